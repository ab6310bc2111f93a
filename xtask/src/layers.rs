//! Who may import whom among the rooms of the house.

use anyhow::Context;
use cargo_metadata::{DependencyKind, Metadata};

use crate::finding::Finding;
use crate::process;
use crate::workshop::Workshop;

/// What a room may import.
enum Imports {
    /// Every other room.
    All,
    /// These.
    Only(&'static [&'static str]),
}

/// The table of ARCHITECTURE.md. A crate that is not here has no place yet.
const LAYERS: [(&str, Imports); 14] = [
    ("clinical-model", Imports::Only(&[])),
    ("clinical-analytics", Imports::Only(&["clinical-model"])),
    ("device-codecs", Imports::Only(&["clinical-model"])),
    ("health-codecs", Imports::Only(&["clinical-model"])),
    ("trust", Imports::Only(&[])),
    ("access", Imports::Only(&["clinical-model"])),
    ("store", Imports::Only(&["trust", "clinical-model"])),
    (
        "pipeline",
        Imports::Only(&[
            "store",
            "device-codecs",
            "health-codecs",
            "clinical-analytics",
            "access",
            "trust",
            "clinical-model",
        ]),
    ),
    ("connectors", Imports::Only(&["pipeline", "device-codecs", "health-codecs", "trust", "clinical-model"])),
    (
        "web-api",
        Imports::Only(&[
            "pipeline",
            "store",
            "health-codecs",
            "clinical-analytics",
            "access",
            "trust",
            "clinical-model",
        ]),
    ),
    ("simulator", Imports::Only(&["device-codecs", "health-codecs", "clinical-model"])),
    ("gateway", Imports::Only(&["device-codecs", "trust", "clinical-model"])),
    ("server", Imports::All),
    ("xtask", Imports::Only(&[])),
];

/// What tests may import beyond the table: the simulator drives real devices against a room, and a connector's tests
/// need something real to keep what they send.
const FOR_TESTS: [(&str, &str); 4] =
    [("connectors", "simulator"), ("web-api", "simulator"), ("server", "simulator"), ("connectors", "store")];

/// Crates that nobody imports: programs, not libraries.
const PROGRAMS: [&str; 3] = ["server", "gateway", "xtask"];

/// One crate of the workspace with what it imports from the workspace.
struct Room {
    name: String,
    manifest: String,
    imports: Vec<Import>,
}

struct Import {
    name: String,
    for_tests_only: bool,
}

/// Asks cargo for the workspace's crates and judges every import between them.
pub fn check_workspace(workshop: &Workshop) -> anyhow::Result<Vec<Finding>> {
    let mut command =
        process::cargo(workshop, &["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let text = process::output(&mut command)?;
    let metadata: Metadata =
        serde_json::from_str(&text).context("cargo metadata printed something unexpected")?;
    Ok(check(&rooms(&metadata)))
}

fn rooms(metadata: &Metadata) -> Vec<Room> {
    let members = metadata.workspace_packages();
    let is_member = |name: &str| members.iter().any(|member| member.name.as_str() == name);
    let import = |dependency: &cargo_metadata::Dependency| Import {
        name: dependency.name.clone(),
        for_tests_only: dependency.kind == DependencyKind::Development,
    };
    let room = |member: &&cargo_metadata::Package| Room {
        name: member.name.to_string(),
        manifest: member
            .manifest_path
            .strip_prefix(&metadata.workspace_root)
            .unwrap_or(&member.manifest_path)
            .to_string(),
        imports: member
            .dependencies
            .iter()
            .filter(|dependency| is_member(&dependency.name))
            .map(import)
            .collect(),
    };
    members.iter().map(room).collect()
}

fn check(rooms: &[Room]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for room in rooms {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == room.name) else {
            findings.push(Finding::error(
                &room.manifest,
                0,
                format!("the crate `{}` has no place in the house yet", room.name),
                "decide who may import it and what it may import: ARCHITECTURE.md, then the table in \
                 xtask/src/layers.rs",
            ));
            continue;
        };
        for import in &room.imports {
            let by_table = match allowed {
                Imports::All => !PROGRAMS.contains(&import.name.as_str()),
                Imports::Only(names) => names.contains(&import.name.as_str()),
            };
            let by_exception =
                import.for_tests_only && FOR_TESTS.contains(&(room.name.as_str(), import.name.as_str()));
            if !by_table && !by_exception {
                findings.push(Finding::error(
                    &room.manifest,
                    0,
                    format!("`{}` imports `{}`, which its layer does not allow", room.name, import.name),
                    "move the code to the room that knows both, or change the decision in ARCHITECTURE.md first",
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str, imports: &[&str], for_tests_only: bool) -> Vec<String> {
        let imports = imports
            .iter()
            .map(|name| Import { name: (*name).to_owned(), for_tests_only })
            .collect::<Vec<_>>();
        let room = Room { name: name.to_owned(), manifest: format!("crates/{name}/Cargo.toml"), imports };
        check(&[room]).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn the_workspace_keeps_its_layers() {
        let findings = check_workspace(&Workshop::here()).unwrap();
        assert!(findings.is_empty(), "{findings:#?}");
    }

    #[test]
    fn what_the_table_allows_passes() {
        for (name, imports) in &LAYERS {
            if let Imports::Only(names) = imports {
                assert_eq!(judged(name, names, false), [""; 0], "{name}");
                assert_eq!(judged(name, names, true), [""; 0], "{name}");
            }
        }
        assert_eq!(judged("server", &["store", "simulator", "web-api"], false), [""; 0]);
    }

    #[test]
    fn an_import_against_the_layers_is_found() {
        for (name, import) in [
            ("clinical-model", "trust"),
            ("device-codecs", "health-codecs"),
            ("store", "pipeline"),
            ("simulator", "store"),
            ("simulator", "pipeline"),
            ("connectors", "store"),
            ("web-api", "device-codecs"),
            ("web-api", "simulator"),
            ("gateway", "pipeline"),
            ("xtask", "trust"),
            ("server", "gateway"),
        ] {
            let found = judged(name, &[import], false);
            assert_eq!(found.len(), 1, "{name} -> {import}");
            assert!(found[0].contains(&format!("`{name}` imports `{import}`")), "{found:?}");
        }
    }

    #[test]
    fn only_some_tests_may_drive_the_simulator() {
        for (room, import) in FOR_TESTS {
            assert_eq!(judged(room, &[import], true), [""; 0], "{room} -> {import}");
        }
        assert_eq!(judged("store", &["simulator"], true).len(), 1);
        assert_eq!(judged("store", &["pipeline"], true).len(), 1);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        let found = judged("radiology", &[], false);
        assert_eq!(found, ["the crate `radiology` has no place in the house yet"]);
    }
}
