//! ARCHITECTURE.md tells the truth: what it names exists, and every crate is named.

use super::Tree;
use crate::finding::Finding;
use crate::rust_source::is_word;

/// A back-quoted text that begins so is a path of this repository.
const ROOTS: [&str; 7] = ["crates/", "web/", "xtask/", "vectors/", "docs/", ".ci/", ".cargo/"];

/// Paths that builds make, so that a fresh checkout lacks them.
const BUILT: [&str; 2] = ["web/dist", "web/node_modules"];

/// Every path in back quotes exists.
pub fn paths_exist(tree: &Tree, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let Some(text) = &tree.architecture else {
        return vec![Finding::error(
            "ARCHITECTURE.md",
            0,
            "the map of the house is missing",
            "write it: what each crate is for, who may import whom, and one walk from device to screen",
        )];
    };
    let mut findings = Vec::new();
    for (number, path) in quoted_paths(text) {
        if !exists(&path) {
            findings.push(Finding::error(
                "ARCHITECTURE.md",
                number,
                format!("`{path}` does not exist"),
                "name what is there now, or remove the mention",
            ));
        }
    }
    findings
}

/// Every folder of `crates/` is on the map.
pub fn crates_are_named(tree: &Tree) -> Vec<Finding> {
    let Some(text) = &tree.architecture else { return Vec::new() };
    tree.crate_folders()
        .filter(|folder| !contains_name(text, folder))
        .map(|folder| {
            Finding::error(
                "ARCHITECTURE.md",
                0,
                format!("the crate `{folder}` is not on the map"),
                "say in one sentence what it is for and who may import it",
            )
        })
        .collect()
}

/// Whether a crate's name stands in the text by itself: `store` does not stand in `restored` or `block-store`.
fn contains_name(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let joins = |byte: Option<&u8>| byte.is_some_and(|byte| is_word(*byte) || *byte == b'-');
        let bytes = text.as_bytes();
        !joins(at.checked_sub(1).and_then(|before| bytes.get(before))) && !joins(bytes.get(at + name.len()))
    })
}

/// The back-quoted texts that look like paths, with their lines; pattern characters mean that none is meant.
fn quoted_paths(text: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    let mut in_block = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        for quoted in line.split('`').skip(1).step_by(2) {
            let path = quoted.split(['#', ':']).next().unwrap_or_default().trim_end_matches('/');
            let is_path = ROOTS.iter().any(|root| quoted.starts_with(root))
                && !quoted.contains([' ', '<', '*', '{', '…', '('])
                && !BUILT.iter().any(|built| quoted.starts_with(built));
            if is_path {
                paths.push((index + 1, path.to_owned()));
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_gone_is_found() {
        let text = concat!(
            "See `crates/store/src/lib.rs`, `crates/store/`, `crates/*/tests`, `web/dist/index.html`.\n",
            "Start at `crates/gone/src/main.rs:12` and `cargo xtask test`, then `and/or`.\n",
            "```\n`crates/in-a-block`\n```\n",
            "`vectors/<protocol>/x` and `docs/gone.md#part`\n",
        );
        let tree = Tree::of(&[("ARCHITECTURE.md", text)]);
        let there = ["crates/store/src/lib.rs", "crates/store"];
        let found: Vec<String> =
            paths_exist(&tree, &|path| there.contains(&path)).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("ARCHITECTURE.md:2: error: `crates/gone/src/main.rs` does not exist"));
        assert!(found[1].starts_with("ARCHITECTURE.md:6: error: `docs/gone.md` does not exist"));
    }

    #[test]
    fn a_missing_map_is_found() {
        let found = paths_exist(&Tree::of(&[]), &|_| true);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("missing"));
    }

    #[test]
    fn a_crate_that_is_not_on_the_map_is_found() {
        let tree = Tree::of(&[
            ("ARCHITECTURE.md", "`trust` is one; what was restored, or a block-store, is none."),
            ("crates/trust/Cargo.toml", ""),
            ("crates/store/Cargo.toml", ""),
        ]);
        let found = crates_are_named(&tree);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("`store`"), "{}", found[0]);
    }
}
