//! npm packages: `xtask/npm-policy.toml` against the lock files of the web app and of the clients.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;
use serde::Deserialize;

use super::{Allowed, line_with};
use crate::finding::Finding;
use crate::workshop::Workshop;

const POLICY: &str = "xtask/npm-policy.toml";
/// The folders with a lock file.
const FOLDERS: [&str; 2] = ["web", "clients"];

/// Which packages may be used.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Policy {
    /// Licences of what may be part of the web app.
    allow: Vec<String>,
    /// Further licences of what only builds or tests it.
    allow_dev: Vec<String>,
    /// Licences that one package may have.
    #[serde(default)]
    exceptions: Vec<Exception>,
    /// Packages that may not be used at all.
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    name: String,
    reason: String,
}

/// The lock file, as far as it matters here (lockfileVersion 2 and 3).
#[derive(Deserialize)]
struct Lock {
    packages: BTreeMap<String, Package>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Package {
    /// Stated only when it differs from the folder's name.
    name: Option<String>,
    version: Option<String>,
    license: Option<String>,
    resolved: Option<String>,
    integrity: Option<String>,
    dev: bool,
    link: bool,
    #[serde(rename = "inBundle")]
    in_bundle: bool,
}

/// Checks every lock file.
pub fn check_all(workshop: &Workshop) -> anyhow::Result<Vec<Finding>> {
    let text = fs::read_to_string(workshop.path(POLICY)).context("xtask/npm-policy.toml cannot be read")?;
    let policy: Policy = toml::from_str(&text).context("xtask/npm-policy.toml is not a policy")?;
    let mut findings = Vec::new();
    for folder in FOLDERS {
        let name = format!("{folder}/package-lock.json");
        let path = workshop.path(&name);
        if !path.exists() {
            let what = "there is no lock file, so its packages cannot be judged";
            let remedy = format!("run `npm install` in {folder}/ and keep package-lock.json");
            findings.push(Finding::error(&name, 0, what, remedy));
            continue;
        }
        let lock = fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
        findings.extend(check(&policy, folder, &lock)?);
    }
    Ok(findings)
}

fn check(policy: &Policy, app: &str, text: &str) -> anyhow::Result<Vec<Finding>> {
    let lock_name = format!("{app}/package-lock.json");
    let lock: Lock = serde_json::from_str(text)
        .with_context(|| format!("{lock_name} is not a lock file of npm 7 or later"))?;
    let mut findings = Vec::new();
    // The entry with the empty name is the app itself.
    for (folder, package) in lock.packages.iter().filter(|(folder, _)| !folder.is_empty()) {
        let name = package.name.as_deref().unwrap_or_else(|| name_of(folder));
        let version = package.version.as_deref().unwrap_or("without version");
        let mut find = |fault: String, remedy: &str| {
            let what = format!("`{name} {version}`: {fault}");
            findings.push(Finding::error(
                &lock_name,
                line_with(text, &format!("\"{folder}\"")),
                what,
                remedy,
            ));
        };
        if let Some(ban) = policy.deny.iter().find(|ban| ban.name == name) {
            find(format!("it is banned: {}", ban.reason), &format!("remove it from {app}/package.json"));
        }
        let exception = policy.exceptions.iter().find(|exception| exception.name == name);
        let fault = match exception {
            Some(exception) => Allowed::parse(policy.allow.iter().chain(&exception.allow))?,
            None => {
                Allowed::parse(policy.allow.iter().chain(policy.allow_dev.iter().filter(|_| package.dev)))?
            }
        }
        .fault(package.license.as_deref());
        if let Some(fault) = fault {
            find(fault, &format!("`npm ls {name}` in {app}/ says who brings it; replace that"));
        }
        if let Some(fault) = source_fault(name, package) {
            find(fault.to_owned(), "use a version that is published in the registry");
        }
    }
    Ok(findings)
}

/// The package whose folder this is: `@scope/b` for `node_modules/a/node_modules/@scope/b`.
fn name_of(folder: &str) -> &str {
    folder.rsplit_once("node_modules/").map_or(folder, |(_, name)| name)
}

/// A package must come from a registry, whichever: its archive's address then ends in a known way.
fn source_fault(name: &str, package: &Package) -> Option<&'static str> {
    if package.link {
        return Some("it is a link to a folder");
    }
    // A bundled package came inside its parent's archive and has no address of its own.
    if package.in_bundle {
        return None;
    }
    if package.integrity.is_none() {
        return Some("the lock file holds no hash of it");
    }
    let Some(address) = &package.resolved else { return None };
    let file = name.rsplit('/').next().unwrap_or(name);
    let version = package.version.as_deref().unwrap_or_default();
    let is_archive = address.ends_with(&format!("/{name}/-/{file}-{version}.tgz"));
    (!address.starts_with("https://") || !is_archive).then_some("it does not come from a registry")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHED: &str = r#""integrity": "sha512-x""#;

    fn judged(entry: &str) -> Vec<String> {
        let policy: Policy = toml::from_str(
            r#"
            allow = ["MIT"]
            allow-dev = ["MPL-2.0"]
            exceptions = [{ name = "font", allow = ["OFL-1.1"] }]
            deny = [{ name = "react-leaflet", reason = "its licence" }]
            "#,
        )
        .unwrap();
        let lock = format!(
            "{{\"lockfileVersion\": 3, \"packages\": {{\n\"\": {{\"name\": \"web\"}},\n{entry}\n}} }}"
        );
        check(&policy, "web", &lock).unwrap().iter().map(ToString::to_string).collect()
    }

    fn package(name: &str, fields: &str) -> String {
        format!(r#""node_modules/{name}": {{ "version": "1.2.3", {fields} }}"#)
    }

    #[test]
    fn a_package_of_a_registry_passes() {
        let with_address = |name: &str, file: &str| {
            package(
                name,
                &format!(
                    r#""license": "MIT", {HASHED}, "resolved": "https://r.example.invalid/{name}/-/{file}-1.2.3.tgz""#
                ),
            )
        };
        assert_eq!(judged(&with_address("react", "react")), [""; 0]);
        assert_eq!(judged(&with_address("@types/react", "react")), [""; 0]);
        assert_eq!(judged(&package("react", &format!(r#""license": "MIT", {HASHED}"#))), [""; 0]);
    }

    #[test]
    fn licences_are_judged_by_what_is_shipped() {
        let found = judged(&package("shipped", &format!(r#""license": "MPL-2.0", {HASHED}"#)));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("web/package-lock.json:3: error: `shipped 1.2.3`"), "{}", found[0]);
        assert_eq!(
            judged(&package("tool", &format!(r#""license": "MPL-2.0", "dev": true, {HASHED}"#))),
            [""; 0]
        );
        assert_eq!(
            judged(&package("tool", &format!(r#""license": "GPL-3.0", "dev": true, {HASHED}"#))).len(),
            1
        );
        assert_eq!(judged(&package("mute", HASHED)).len(), 1);
        assert_eq!(judged(&package("font", &format!(r#""license": "OFL-1.1", {HASHED}"#))), [""; 0]);
        // The exception holds for its package only.
        assert_eq!(judged(&package("other", &format!(r#""license": "OFL-1.1", {HASHED}"#))).len(), 1);
    }

    #[test]
    fn a_banned_package_is_found_at_any_depth() {
        let found =
            judged(&package("map/node_modules/react-leaflet", &format!(r#""license": "MIT", {HASHED}"#)));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("banned: its licence"), "{}", found[0]);
    }

    #[test]
    fn a_package_from_elsewhere_is_found() {
        for address in [
            "git+ssh://git@example.invalid/x.git#0123",
            "file:../x",
            "https://example.invalid/x.tgz",
            "https://r.example.invalid/y/-/y-1.2.3.tgz",
            "http://r.example.invalid/x/-/x-1.2.3.tgz",
        ] {
            let entry = package("x", &format!(r#""license": "MIT", {HASHED}, "resolved": "{address}""#));
            assert_eq!(judged(&entry).len(), 1, "{address}");
        }
        assert_eq!(judged(&package("x", r#""license": "MIT", "link": true"#)).len(), 1);
        assert_eq!(judged(&package("x", r#""license": "MIT""#)).len(), 1);
    }

    #[test]
    fn the_policy_of_this_repository_can_be_read() {
        let text = fs::read_to_string(Workshop::here().path(POLICY)).unwrap();
        let policy: Policy = toml::from_str(&text).unwrap();
        assert!(Allowed::parse(policy.allow.iter().chain(&policy.allow_dev)).is_ok());
        assert!(policy.deny.iter().any(|ban| ban.name == "react-leaflet"));
    }
}
