//! Crates: `deny.toml` against everything that cargo would compile for the targets named there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::Context;
use cargo_metadata::{Metadata, Package as CargoPackage};
use serde::Deserialize;

use super::{Allowed, line_with};
use crate::finding::Finding;
use crate::process;
use crate::workshop::Workshop;

const POLICY: &str = "deny.toml";
const LOCK: &str = "Cargo.lock";

/// The part of cargo-deny's format that is checked here; its other keys are left to cargo-deny.
#[derive(Deserialize)]
struct Policy {
    graph: Graph,
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate", alias = "name")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    #[serde(default)]
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate", alias = "name")]
    name: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    unknown_registry: String,
    unknown_git: String,
    #[serde(default)]
    allow_registry: Vec<String>,
    #[serde(default)]
    allow_git: Vec<String>,
}

/// A crate that would be compiled.
struct Package {
    name: String,
    version: String,
    licence: Option<String>,
    source: Source,
}

enum Source {
    /// A crate of this workspace.
    House,
    /// The public registry.
    Public,
    /// A folder outside the workspace.
    Folder,
    /// Another registry.
    Registry(String),
    /// A git repository.
    Git(String),
}

/// Checks this workspace.
pub fn check_workspace(workshop: &Workshop) -> anyhow::Result<Vec<Finding>> {
    let text = fs::read_to_string(workshop.path(POLICY)).context("deny.toml cannot be read")?;
    let policy: Policy = toml::from_str(&text).context("deny.toml is not in cargo-deny's format")?;
    let lock = fs::read_to_string(workshop.path(LOCK)).context("Cargo.lock cannot be read")?;
    let mut packages = BTreeMap::new();
    for target in &policy.graph.targets {
        for package in compiled(workshop, target)? {
            packages.insert((package.name.clone(), package.version.clone()), package);
        }
    }
    let packages: Vec<Package> = packages.into_values().collect();
    println!("{} crates are compiled for {}", packages.len(), policy.graph.targets.join(" or "));
    check(&policy, &packages, &lock)
}

/// Every crate that is compiled for a target, with all features, tests and build scripts included. `cargo metadata`
/// knows licences and sources but also lists crates that no feature turns on; `cargo tree` knows which are used.
fn compiled(workshop: &Workshop, target: &str) -> anyhow::Result<Vec<Package>> {
    let metadata_arguments =
        ["metadata", "--format-version", "1", "--all-features", "--filter-platform", target, "--locked"];
    let tree_arguments = [
        "tree",
        "--workspace",
        "--all-features",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--target",
        target,
        "--locked",
    ];
    let metadata = offline_first(workshop, &metadata_arguments)?;
    let metadata: Metadata =
        serde_json::from_str(&metadata).context("cargo metadata printed something unexpected")?;
    let tree = offline_first(workshop, &tree_arguments)?;
    let used: BTreeSet<String> =
        tree.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    let is_used = |package: &&CargoPackage| used.contains(&format!("{} v{}", package.name, package.version));
    Ok(metadata.packages.iter().filter(is_used).map(|package| describe(&metadata, package)).collect())
}

/// Without the network, so that a check of what is here needs nothing else; a fresh machine downloads once.
fn offline_first(workshop: &Workshop, arguments: &[&str]) -> anyhow::Result<String> {
    let mut offline = arguments.to_vec();
    offline.push("--offline");
    process::output(&mut process::cargo(workshop, &offline))
        .or_else(|_| process::output(&mut process::cargo(workshop, arguments)))
}

fn describe(metadata: &Metadata, package: &CargoPackage) -> Package {
    let source = match &package.source {
        None if metadata.workspace_members.contains(&package.id) => Source::House,
        None => Source::Folder,
        Some(source) if source.is_crates_io() => Source::Public,
        Some(source) if source.repr.starts_with("git+") => Source::Git(source.repr.clone()),
        Some(source) => Source::Registry(source.repr.clone()),
    };
    Package {
        name: package.name.to_string(),
        version: package.version.to_string(),
        licence: package.license.clone(),
        source,
    }
}

fn check(policy: &Policy, packages: &[Package], lock: &str) -> anyhow::Result<Vec<Finding>> {
    let allowed = Allowed::parse(&policy.licenses.allow)?;
    let mut findings = Vec::new();
    for package in packages {
        let line = line_with(lock, &format!("name = \"{}\"", package.name));
        let mut find = |fault: String, remedy: &str| {
            let what = format!("`{} {}`: {fault}", package.name, package.version);
            findings.push(Finding::error(LOCK, line, what, remedy));
        };
        if let Some(ban) = policy.bans.deny.iter().find(|ban| ban.name == package.name) {
            find(format!("it is banned: {}", ban.reason), &who_brings(package));
        }
        let exception = policy.licenses.exceptions.iter().find(|exception| exception.name == package.name);
        let fault = match exception {
            Some(exception) => Allowed::parse(policy.licenses.allow.iter().chain(&exception.allow))?
                .fault(package.licence.as_deref()),
            None => allowed.fault(package.licence.as_deref()),
        };
        if let Some(fault) = fault {
            find(fault, &who_brings(package));
        }
        if let Some(fault) = source_fault(&policy.sources, &package.source) {
            find(fault, "use a version that is published in the public registry");
        }
    }
    for exception in &policy.licenses.exceptions {
        if !packages.iter().any(|package| package.name == exception.name) {
            let what = format!("the exception for `{}` is for a crate that is not used", exception.name);
            findings.push(Finding::warning(POLICY, 0, what, "remove it"));
        }
    }
    Ok(findings)
}

fn who_brings(package: &Package) -> String {
    format!(
        "`cargo tree --workspace --all-features -i {}@{}` says who brings it; replace that, or turn off the feature",
        package.name, package.version
    )
}

fn source_fault(sources: &Sources, source: &Source) -> Option<String> {
    match source {
        Source::House | Source::Public => None,
        Source::Folder => Some("it comes from a folder outside the workspace".to_owned()),
        Source::Registry(place) => {
            let known = sources.allow_registry.iter().any(|allowed| place.ends_with(allowed.as_str()));
            (sources.unknown_registry == "deny" && !known)
                .then(|| "it comes from an unknown registry".to_owned())
        }
        Source::Git(place) => {
            let known = sources.allow_git.iter().any(|allowed| place.contains(allowed.as_str()));
            (sources.unknown_git == "deny" && !known).then(|| "it comes from a git repository".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY_TEXT: &str = r#"
        [graph]
        targets = []
        [licenses]
        allow = ["MIT"]
        exceptions = [{ crate = "oddity", allow = ["MPL-2.0"] }]
        [bans]
        multiple-versions = "allow"
        deny = [{ crate = "ring", reason = "one library" }, { name = "openssl" }]
        [sources]
        unknown-registry = "deny"
        unknown-git = "deny"
    "#;

    fn package(name: &str, licence: &str, source: Source) -> Package {
        Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: Some(licence.to_owned()),
            source,
        }
    }

    fn judged(package: Package) -> Vec<String> {
        let policy: Policy = toml::from_str(POLICY_TEXT).unwrap();
        let oddity = self::package("oddity", "MPL-2.0", Source::Public);
        let lock = "[[package]]\nname = \"ring\"\n";
        let findings = check(&policy, &[package, oddity], lock).unwrap();
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_permissive_crate_of_the_registry_passes() {
        assert_eq!(judged(package("fine", "MIT OR Apache-2.0", Source::Public)), [""; 0]);
        assert_eq!(judged(package("store", "MIT", Source::House)), [""; 0]);
    }

    #[test]
    fn a_banned_crate_is_found_where_the_lock_names_it() {
        let found = judged(package("ring", "MIT", Source::Public));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("Cargo.lock:2: error: `ring 1.0.0`: it is banned: one library"),
            "{}",
            found[0]
        );
        assert_eq!(judged(package("openssl", "MIT", Source::Public)).len(), 1);
    }

    #[test]
    fn a_licence_that_is_not_allowed_is_found() {
        assert_eq!(judged(package("copyleft", "GPL-3.0-only", Source::Public)).len(), 1);
        // The exception holds for its crate only.
        assert_eq!(judged(package("other", "MPL-2.0", Source::Public)).len(), 1);
    }

    #[test]
    fn an_unknown_source_is_found() {
        for source in [
            Source::Folder,
            Source::Git("git+https://example.invalid/x".to_owned()),
            Source::Registry("registry+https://example.invalid/index".to_owned()),
        ] {
            assert_eq!(judged(package("stray", "MIT", source)).len(), 1);
        }
    }

    #[test]
    fn an_exception_nobody_needs_is_mentioned() {
        let policy: Policy = toml::from_str(POLICY_TEXT).unwrap();
        let findings = check(&policy, &[], "").unwrap();
        assert_eq!(findings.len(), 1);
        assert!(findings[0].to_string().starts_with("deny.toml: warning"), "{}", findings[0]);
    }

    #[test]
    fn the_policy_of_this_repository_can_be_read() {
        let text = fs::read_to_string(Workshop::here().path(POLICY)).unwrap();
        let policy: Policy = toml::from_str(&text).unwrap();
        assert!(Allowed::parse(&policy.licenses.allow).is_ok());
        assert!(policy.bans.deny.iter().any(|ban| ban.name == "openssl-sys"));
        assert_eq!(
            (policy.sources.unknown_registry.as_str(), policy.sources.unknown_git.as_str()),
            ("deny", "deny")
        );
    }
}
