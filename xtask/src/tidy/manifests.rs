//! Crate manifests: lints and versions come from the workspace, and some dependencies belong to few crates.

use toml::{Table, Value};

use super::Tree;
use super::tree::Manifest;
use crate::finding::Finding;

const SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// A dependency that only these crates may have.
struct Confined {
    dependency: &'static str,
    rooms: &'static [&'static str],
    /// Whether tests may use it elsewhere.
    tests_exempt: bool,
    remedy: &'static str,
}

const CONFINED: [Confined; 8] = [
    Confined {
        dependency: "anyhow",
        rooms: &["server", "simulator", "xtask"],
        tests_exempt: false,
        remedy: "libraries give a thiserror enum for each operation, so that callers can tell failures apart",
    },
    Confined {
        dependency: "rusqlite",
        rooms: &["store"],
        tests_exempt: true,
        remedy: "only `store` knows SQL; ask for what is needed through the Store trait",
    },
    Confined {
        dependency: "tokio-postgres",
        rooms: &["store"],
        tests_exempt: true,
        remedy: "only `store` knows SQL; ask for what is needed through the Store trait",
    },
    Confined {
        dependency: "axum",
        rooms: &["web-api"],
        tests_exempt: true,
        remedy: "only `web-api` knows HTTP; give it a function to call",
    },
    Confined {
        dependency: "aws-lc-rs",
        rooms: &["trust"],
        tests_exempt: false,
        remedy: "only `trust` touches key material; add the operation there",
    },
    Confined {
        dependency: "argon2",
        rooms: &["trust"],
        tests_exempt: false,
        remedy: "only `trust` touches key material; add the operation there",
    },
    Confined {
        dependency: "rcgen",
        // A simulated device makes its own key and asks for a certificate, as a real one does.
        rooms: &["trust", "simulator"],
        tests_exempt: true,
        remedy: "only `trust` issues certificates; add the operation there",
    },
    Confined {
        dependency: "mqtt-protocol-core",
        rooms: &["connectors", "simulator", "gateway"],
        tests_exempt: true,
        remedy: "only those who move bytes know MQTT",
    },
];

/// Every crate takes its lints and every dependency's version and features from the root manifest.
pub fn lints_and_versions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in &tree.manifests {
        let table: Table = match manifest.text.parse() {
            Ok(table) => table,
            Err(error) => {
                let what = format!("the manifest is not TOML: {error}");
                findings.push(Finding::error(&manifest.path, 1, what, "mend it"));
                continue;
            }
        };
        if at(&table, &["lints", "workspace"]) != Some(&Value::Boolean(true)) {
            findings.push(Finding::error(
                &manifest.path,
                1,
                "the crate does not take the workspace's lints",
                "add `[lints]` with `workspace = true`",
            ));
        }
        for (_, name, value) in dependencies(&table) {
            findings.extend(entry_fault(manifest, name, value));
        }
    }
    findings
}

fn entry_fault(manifest: &Manifest, name: &str, value: &Value) -> Option<Finding> {
    let line = line_of_key(&manifest.text, name);
    let entry = value.as_table();
    if entry.and_then(|entry| entry.get("workspace")) != Some(&Value::Boolean(true)) {
        return Some(Finding::error(
            &manifest.path,
            line,
            format!("`{name}` has a version or a path of its own"),
            "put it in [workspace.dependencies] of the root manifest and write `workspace = true` here",
        ));
    }
    let own =
        entry.into_iter().flatten().find(|(key, _)| !matches!(key.as_str(), "workspace" | "optional"))?;
    Some(Finding::error(
        &manifest.path,
        line,
        format!("`{name}` sets `{}` here", own.0),
        "set it in [workspace.dependencies]: different features in different crates compile the crate twice",
    ))
}

/// Some dependencies are the mark of one room.
pub fn confined_dependencies(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in &tree.manifests {
        let Ok(table) = manifest.text.parse::<Table>() else { continue };
        for (section, name, value) in dependencies(&table) {
            let package = value.get("package").and_then(Value::as_str).unwrap_or(name);
            for rule in &CONFINED {
                let exempt = rule.tests_exempt && section == "dev-dependencies";
                if rule.dependency == package && !rule.rooms.contains(&manifest.room()) && !exempt {
                    findings.push(Finding::error(
                        &manifest.path,
                        line_of_key(&manifest.text, name),
                        format!("`{package}` may only be used by {}", rule.rooms.join(", ")),
                        rule.remedy,
                    ));
                }
            }
        }
    }
    findings
}

/// Every dependency of a manifest, also those of one target only: section, key, value.
fn dependencies(table: &Table) -> Vec<(&'static str, &str, &Value)> {
    let mut found = Vec::new();
    let targets = table.get("target").and_then(Value::as_table).into_iter().flatten();
    let tables = std::iter::once(table).chain(targets.filter_map(|(_, value)| value.as_table()));
    for table in tables {
        for section in SECTIONS {
            let entries = table.get(section).and_then(Value::as_table).into_iter().flatten();
            found.extend(entries.map(|(name, value)| (section, name.as_str(), value)));
        }
    }
    found
}

fn at<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(*key))
}

/// The line whose key this is, or 1 when it is written in an unusual way.
fn line_of_key(text: &str, key: &str) -> usize {
    let is_key = |line: &str| {
        let rest = line.trim_start().trim_start_matches(['"', '\'']).strip_prefix(key);
        rest.is_some_and(|rest| rest.starts_with([' ', '.', '=', '"', '\'']))
    };
    text.lines().position(is_key).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINTS: &str = "[lints]\nworkspace = true\n";

    fn manifest(room: &str, text: &str) -> Tree {
        Tree::of(&[(&format!("crates/{room}/Cargo.toml"), &format!("{LINTS}{text}"))])
    }

    fn faults(text: &str) -> Vec<String> {
        lints_and_versions(&manifest("a", text)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        for text in [
            "[package]\nname = \"a\"\n",
            "[lints]\nworkspace = false\n",
            "[lints.rust]\nmissing_docs = \"allow\"\n",
        ] {
            let found = lints_and_versions(&Tree::of(&[("crates/a/Cargo.toml", text)]));
            assert_eq!(found.len(), 1, "{text}");
            assert!(found[0].what.contains("lints"));
        }
    }

    #[test]
    fn own_versions_and_features_are_found() {
        assert_eq!(
            faults(
                "[dependencies]\nserde.workspace = true\nserde_json = { workspace = true, optional = true }\n"
            ),
            [""; 0]
        );
        let found = faults("[dependencies]\nserde_json.workspace = true\nserde = \"1\"\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("crates/a/Cargo.toml:5: error: `serde` has a version"), "{}", found[0]);
        let found = faults("[dev-dependencies]\nserde = { workspace = true, features = [\"rc\"] }\n");
        assert!(found[0].contains("sets `features`"), "{}", found[0]);
        let found = faults("[dependencies]\nstore = { path = \"../store\" }\n");
        assert!(found[0].contains("of its own"), "{}", found[0]);
        let found = faults("[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n");
        assert!(found[0].contains("`libc`"), "{}", found[0]);
        let found = faults("not toml");
        assert!(found[0].contains("not TOML"), "{}", found[0]);
    }

    #[test]
    fn a_dependency_in_the_wrong_room_is_found() {
        let line = |section: &str, name: &str| format!("[{section}]\n{name}.workspace = true\n");
        let count = |room: &str, section: &str, name: &str| {
            confined_dependencies(&manifest(room, &line(section, name))).len()
        };
        assert_eq!(count("store", "dependencies", "anyhow"), 1);
        assert_eq!(count("store", "dev-dependencies", "anyhow"), 1);
        assert_eq!(count("simulator", "dependencies", "anyhow"), 0);
        assert_eq!(count("pipeline", "dependencies", "rusqlite"), 1);
        assert_eq!(count("server", "dev-dependencies", "rusqlite"), 0);
        assert_eq!(count("store", "build-dependencies", "aws-lc-rs"), 1);
        assert_eq!(count("trust", "dependencies", "aws-lc-rs"), 0);
        let renamed = "[dependencies]\nany = { version = \"1\", package = \"anyhow\" }\n";
        assert_eq!(confined_dependencies(&manifest("store", renamed)).len(), 1);
    }
}
