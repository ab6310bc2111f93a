//! What every source file owes its reader: a first sentence, and an end in sight.

use std::collections::BTreeMap;

use super::Tree;
use crate::finding::Finding;

/// Above this a file is asked to be split.
const FILE_LINES_WARNED: usize = 500;

/// Above this a file must be split: nobody holds more in the head.
const FILE_LINES_MAX: usize = 800;

/// Above this a crate must be split, or ARCHITECTURE.md says why not.
const CRATE_LINES_MAX: usize = 20_000;

/// How ARCHITECTURE.md excuses a large crate: these words in the line that names it.
const EXCUSE: &str = "20,000 lines";

/// Every file opens with `//!` and a sentence.
pub fn headers(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.rust {
        let first_line = file.text.lines().next().unwrap_or_default();
        let sentence = first_line.strip_prefix("//!").unwrap_or_default();
        if !sentence.contains(char::is_alphabetic) {
            findings.push(Finding::error(
                &file.path,
                1,
                "the file does not open by saying what lives in it",
                "make the first line `//! ` and one sentence",
            ));
        }
    }
    findings
}

/// Files and crates stay small enough to be read.
pub fn sizes(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut crates: BTreeMap<&str, usize> = BTreeMap::new();
    for file in &tree.rust {
        let lines = file.text.lines().count();
        *crates.entry(file.room()).or_default() += lines;
        if FILE_LINES_MAX < lines {
            findings.push(Finding::error(
                &file.path,
                FILE_LINES_MAX + 1,
                format!("the file has {lines} lines, and {FILE_LINES_MAX} are the most"),
                "split it by what its parts are about",
            ));
        } else if FILE_LINES_WARNED < lines {
            findings.push(Finding::warning(
                &file.path,
                FILE_LINES_WARNED + 1,
                format!("the file has {lines} lines, and {FILE_LINES_WARNED} are wished for"),
                "split it when it is next worked on",
            ));
        }
    }
    let architecture = tree.architecture.as_deref().unwrap_or_default();
    for (room, lines) in crates {
        let excused = architecture.lines().any(|line| line.contains(room) && line.contains(EXCUSE));
        if CRATE_LINES_MAX < lines && !excused {
            findings.push(Finding::error(
                "ARCHITECTURE.md",
                0,
                format!("the crate `{room}` has {lines} lines, and {CRATE_LINES_MAX} are the most"),
                format!("split it, or say in ARCHITECTURE.md why `{room}` exceeds {EXCUSE}"),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn a_file_without_a_first_sentence_is_found() {
        let tree = Tree::of(&[
            ("crates/a/src/good.rs", "//! Good things live here.\n"),
            ("crates/a/src/empty.rs", ""),
            ("crates/a/src/hollow.rs", "//!\n//! Late.\n"),
            ("crates/a/src/plain.rs", "use std::fmt;\n"),
        ]);
        let found: Vec<String> = headers(&tree).into_iter().map(|finding| finding.path).collect();
        assert_eq!(found, ["crates/a/src/empty.rs", "crates/a/src/hollow.rs", "crates/a/src/plain.rs"]);
    }

    #[test]
    fn long_files_are_warned_of_and_longer_ones_refused() {
        let lines = |count: usize| "x\n".repeat(count);
        let (fine, long, too_long) = (lines(500), lines(501), lines(801));
        let tree =
            Tree::of(&[("crates/a/f.rs", &fine), ("crates/a/l.rs", &long), ("crates/a/t.rs", &too_long)]);
        let found: Vec<(String, Severity)> =
            sizes(&tree).into_iter().map(|finding| (finding.path, finding.severity)).collect();
        assert_eq!(
            found,
            [("crates/a/l.rs".to_owned(), Severity::Warning), ("crates/a/t.rs".to_owned(), Severity::Error)]
        );
    }

    #[test]
    fn a_huge_crate_needs_a_sentence_in_the_map() {
        let lines = "x\n".repeat(400);
        let paths: Vec<String> = (0..51).map(|number| format!("crates/huge/src/f{number}.rs")).collect();
        let mut files: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), lines.as_str())).collect();
        let found = sizes(&Tree::of(&files));
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("`huge` has 20400 lines"), "{}", found[0]);
        files.push(("ARCHITECTURE.md", "`huge` exceeds 20,000 lines because of its generated tables."));
        assert_eq!(sizes(&Tree::of(&files)), []);
    }
}
