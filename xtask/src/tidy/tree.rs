//! The files that the house rules look at, read once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::rust_source::RustSource;

/// Folders that are walked; sources elsewhere are not the product's.
const WALKED: [&str; 2] = ["crates", "xtask"];

/// Folders that hold what tools made.
const SKIPPED: [&str; 3] = ["target", "node_modules", "snapshots"];

/// A Rust source file.
pub struct SourceFile {
    /// From the repository's root, with forward slashes.
    pub path: String,
    /// As it was read.
    pub text: String,
    /// Taken apart.
    pub source: RustSource,
    /// Whether the whole file is compiled for tests only.
    pub is_test: bool,
}

impl SourceFile {
    /// The crate's folder name: `store` for `crates/store/src/lib.rs`.
    pub fn room(&self) -> &str {
        room_of(&self.path)
    }

    /// Whether what stands at this byte is compiled for tests only.
    pub fn is_test_at(&self, offset: usize) -> bool {
        self.is_test || self.source.is_test(offset)
    }
}

/// A crate's `Cargo.toml`.
pub struct Manifest {
    /// From the repository's root, with forward slashes.
    pub path: String,
    /// As it was read.
    pub text: String,
}

impl Manifest {
    /// The crate's folder name.
    pub fn room(&self) -> &str {
        room_of(&self.path)
    }
}

/// Everything the rules read.
#[derive(Default)]
pub struct Tree {
    /// Every `.rs` file under `crates/` and `xtask/`, by path.
    pub rust: Vec<SourceFile>,
    /// Every crate's manifest, by path.
    pub manifests: Vec<Manifest>,
    /// `ARCHITECTURE.md`, when there is one.
    pub architecture: Option<String>,
}

impl Tree {
    /// Reads a checkout.
    pub fn load(root: &Path) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        for folder in WALKED {
            walk(root, folder, &mut files)?;
        }
        let map = root.join("ARCHITECTURE.md");
        if map.is_file() {
            files.insert("ARCHITECTURE.md".to_owned(), read(&map)?);
        }
        Ok(Self::from_files(files))
    }

    /// A tree of planted files.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        Self::from_files(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    /// The folder names under `crates/` that hold a manifest.
    pub fn crate_folders(&self) -> impl Iterator<Item = &str> {
        self.manifests.iter().filter(|manifest| manifest.path.starts_with("crates/")).map(Manifest::room)
    }

    fn from_files(files: BTreeMap<String, String>) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            if path.ends_with(".rs") {
                let source = RustSource::parse(&text);
                let is_test = lives_among_tests(&path);
                tree.rust.push(SourceFile { path, text, source, is_test });
            } else if path.ends_with("Cargo.toml") {
                tree.manifests.push(Manifest { path, text });
            } else if path == "ARCHITECTURE.md" {
                tree.architecture = Some(text);
            }
        }
        tree.mark_test_modules();
        tree
    }

    /// `#[cfg(test)] mod suite;` makes `suite.rs`, `suite/mod.rs` and all below `suite/` test code.
    fn mark_test_modules(&mut self) {
        let mut prefixes = Vec::new();
        for file in &self.rust {
            for module in &file.source.test_modules {
                prefixes.push(format!("{}/{module}", module_folder(&file.path)));
            }
        }
        for file in &mut self.rust {
            file.is_test |= prefixes.iter().any(|prefix| {
                file.path.strip_prefix(prefix).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            });
        }
    }
}

fn room_of(path: &str) -> &str {
    let mut parts = path.split('/');
    match (parts.next(), parts.next()) {
        (Some("crates"), Some(folder)) => folder,
        (Some(folder), _) => folder,
        (None, _) => "",
    }
}

/// `testing.rs` of a room helps the tests of other rooms; a cargo feature for it would compile the room twice.
fn lives_among_tests(path: &str) -> bool {
    let mut parts: Vec<&str> = path.split('/').collect();
    let file = parts.pop().unwrap_or_default();
    parts.iter().any(|part| matches!(*part, "tests" | "benches" | "examples"))
        || matches!(file, "tests.rs" | "testing.rs")
}

/// Where the modules that a file declares live.
fn module_folder(path: &str) -> String {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    match file {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        _ => format!("{folder}/{}", file.trim_end_matches(".rs")),
    }
}

fn walk(root: &Path, below: &str, files: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    let folder = root.join(below);
    let entries = fs::read_dir(&folder).with_context(|| format!("{} cannot be listed", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("{} cannot be listed", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{below}/{name}");
        let kind = entry.file_type().with_context(|| format!("{path} cannot be looked at"))?;
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) && !name.starts_with('.') {
            walk(root, &path, files)?;
        } else if kind.is_file() && (name.ends_with(".rs") || name == "Cargo.toml") {
            files.insert(path, read(&entry.path())?);
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read as text", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_files_are_told_apart() {
        let tree = Tree::of(&[
            ("crates/a/src/lib.rs", "//! A.\n#[cfg(test)]\nmod suite;\nmod ship;\n"),
            ("crates/a/src/ship.rs", "//! Ship.\n#[cfg(test)]\nmod drill;\n"),
            ("crates/a/src/ship/drill.rs", "//! Drill."),
            ("crates/a/src/ship/drilling.rs", "//! Not a drill."),
            ("crates/a/src/suite/mod.rs", "//! Suite."),
            ("crates/a/tests/main.rs", "//! Main."),
            ("crates/a/src/tests.rs", "//! Tests."),
        ]);
        let tests: Vec<&str> =
            tree.rust.iter().filter(|file| file.is_test).map(|file| file.path.as_str()).collect();
        assert_eq!(
            tests,
            [
                "crates/a/src/ship/drill.rs",
                "crates/a/src/suite/mod.rs",
                "crates/a/src/tests.rs",
                "crates/a/tests/main.rs"
            ]
        );
        assert!(tree.rust.iter().all(|file| file.room() == "a"));
    }

    #[test]
    fn the_checkout_is_read() {
        let tree = Tree::load(crate::workshop::Workshop::here().root()).unwrap();
        assert!(tree.rust.iter().any(|file| file.path == "xtask/src/tidy/tree.rs"));
        assert!(tree.crate_folders().any(|folder| folder == "store"));
    }
}
