//! The house rules that need no compiler: headers, sizes, manifests, the map, and who may know what.

mod architecture;
mod boundaries;
mod errors;
mod files;
mod manifests;
mod tree;

use std::process::ExitCode;

use anyhow::bail;

use crate::finding::{self, Finding};
use crate::layers;
use crate::workshop::Workshop;

pub use tree::Tree;

/// Runs every rule on the checkout.
pub fn check(workshop: &Workshop) -> anyhow::Result<Vec<Finding>> {
    let tree = Tree::load(workshop.root())?;
    let mut findings = rules(&tree, &|path| workshop.path(path).exists());
    findings.extend(layers::check_workspace(workshop)?);
    Ok(findings)
}

/// The rules that read files only. `exists` answers for a path from the repository's root.
fn rules(tree: &Tree, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(files::headers(tree));
    findings.extend(files::sizes(tree));
    findings.extend(architecture::paths_exist(tree, exists));
    findings.extend(architecture::crates_are_named(tree));
    findings.extend(manifests::lints_and_versions(tree));
    findings.extend(manifests::confined_dependencies(tree));
    findings.extend(errors::sources_are_not_repeated(tree));
    findings.extend(boundaries::restored_only_by_the_store(tree));
    findings.extend(boundaries::syntax_stays_at_home(tree));
    findings.extend(boundaries::pure_rooms(tree));
    findings.extend(boundaries::no_process_wide_state(tree));
    findings
}

/// `cargo xtask tidy`, and the step of the same name.
pub fn run(workshop: &Workshop) -> anyhow::Result<()> {
    match finding::report(check(workshop)?) {
        0 => Ok(()),
        1 => bail!("1 house rule is broken, named above"),
        errors => bail!("house rules are broken in {errors} places, named above"),
    }
}

/// The subcommand: the same, with a closing word.
pub fn command(workshop: &Workshop) -> anyhow::Result<ExitCode> {
    run(workshop)?;
    println!("tidy: every house rule holds");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn this_repository_is_tidy() {
        let findings = check(&Workshop::here()).unwrap();
        let errors: Vec<String> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(ToString::to_string)
            .collect();
        assert!(errors.is_empty(), "\n{}", errors.join("\n"));
    }

    #[test]
    fn every_rule_is_wired() {
        let tree = Tree::of(&[
            ("ARCHITECTURE.md", "See `crates/gone/src/lib.rs`."),
            ("crates/a/Cargo.toml", "[dependencies]\nanyhow = \"1\"\n"),
            (
                "crates/store/src/lib.rs",
                "static mut N: u8 = 0;\n#[error(\"bad: {source}\")] struct E;\nfn f() { StatusCode::OK; }\n",
            ),
            (
                "crates/clinical-model/src/lib.rs",
                "//! Model.\nfn f() { Reading::restored(); Instant::now(); }\n",
            ),
        ]);
        let found: Vec<String> = rules(&tree, &|_| false)
            .into_iter()
            .map(|finding| format!("{}:{}", finding.path, finding.line))
            .collect();
        for (place, rule) in [
            ("ARCHITECTURE.md:1", "paths exist"),
            ("ARCHITECTURE.md:0", "crates are named"),
            ("crates/a/Cargo.toml:1", "lints"),
            ("crates/a/Cargo.toml:2", "versions and confined dependencies"),
            ("crates/store/src/lib.rs:1", "header and process-wide state"),
            ("crates/store/src/lib.rs:2", "error sources"),
            ("crates/store/src/lib.rs:3", "HTTP statuses"),
            ("crates/clinical-model/src/lib.rs:2", "restored, clocks"),
        ] {
            assert!(found.iter().any(|found| found == place), "{rule}: {place} is not in {found:?}");
        }
    }
}
