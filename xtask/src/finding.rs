//! A fault that a check found: where, what, and what to do about it.

use std::fmt;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The check fails.
    Error,
    /// Printed, nothing more.
    Warning,
}

/// One fault, or one thing to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether the check fails because of it.
    pub severity: Severity,
    /// The file, from the repository's root.
    pub path: String,
    /// The line, from 1; 0 when the finding is about the whole file.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// A finding that fails the check.
    pub fn error(path: &str, line: usize, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            path: path.to_owned(),
            line,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// A finding that is only printed.
    pub fn warning(path: &str, line: usize, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, line, what, remedy) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        match self.line {
            0 => write!(f, "{}: {severity}: {}\n    {}", self.path, self.what, self.remedy),
            line => write!(f, "{}:{line}: {severity}: {}\n    {}", self.path, self.what, self.remedy),
        }
    }
}

/// Prints the findings, gravest last so that they stand nearest to the prompt; returns how many are errors.
pub fn report(mut findings: Vec<Finding>) -> usize {
    findings.sort_by(|a, b| {
        let rank = |finding: &Finding| finding.severity == Severity::Error;
        (rank(a), &a.path, a.line).cmp(&(rank(b), &b.path, b.line))
    });
    for finding in &findings {
        println!("{finding}");
    }
    findings.iter().filter(|finding| finding.severity == Severity::Error).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_printed_as_a_place_that_editors_can_open() {
        let finding = Finding::error("crates/store/src/lib.rs", 3, "something is wrong", "mend it");
        assert_eq!(finding.to_string(), "crates/store/src/lib.rs:3: error: something is wrong\n    mend it");
        let finding = Finding::warning("deny.toml", 0, "something is unused", "remove it");
        assert_eq!(finding.to_string(), "deny.toml: warning: something is unused\n    remove it");
    }

    #[test]
    fn only_errors_are_counted() {
        let findings = vec![Finding::error("a", 1, "x", "y"), Finding::warning("b", 1, "x", "y")];
        assert_eq!(report(findings), 1);
    }
}
