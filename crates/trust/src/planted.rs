//! Bugs on purpose: which one is wanted, so that the fault harness can prove that it finds it. Never in a release.

/// The variable that names the bug.
const VARIABLE: &str = "AUSCULT_PLANTED";

/// Whether this bug is planted.
pub fn planted(bug: &str) -> bool {
    std::env::var_os(VARIABLE).is_some_and(|wanted| wanted == bug)
}
