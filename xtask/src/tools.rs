//! What a machine must have besides Rust: a C compiler, Node.js, npm, and a browser for the browser tests.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::clients;
use crate::process;
use crate::workshop::Workshop;

/// The oldest Node.js that runs the web app's tools: major and minor version, as `engines` in web/package.json.
const NODE_MIN: (u32, u32) = (20, 19);

/// Names under which systems install a browser that the tests can drive.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Checks everything, and installs a browser where that is missing and we may.
pub fn check(workshop: &Workshop) -> anyhow::Result<()> {
    components(workshop)?;
    let compiler = process::find_program(&["cc", "gcc", "clang"]).context(
        "there is no C compiler; SQLite, zstd and the crypto library need one (Debian: `apt-get install -y gcc`)",
    )?;
    println!("C compiler: {}", compiler.display());
    let node = node_version(workshop)?;
    println!("node: {node}");
    let npm = process::output(process::program(workshop, "npm").arg("--version"))
        .context("npm does not run; it comes with Node.js")?;
    println!("npm: {}", npm.trim());
    check_clients(workshop)
}

/// A browser, installed where it is missing and we may.
fn check_browser(workshop: &Workshop) -> anyhow::Result<()> {
    let browser = match chromium(workshop) {
        Some(browser) => browser,
        None => {
            install("chromium", "a browser for the browser tests", workshop)?;
            chromium(workshop).context("chromium was installed, and still does not start")?
        }
    };
    println!("browser: {}", browser.display());
    Ok(())
}

/// Checks what the clients of `clients/` need, and installs it where that is missing and we may.
pub fn check_clients(workshop: &Workshop) -> anyhow::Result<()> {
    check_node(workshop)?;
    check_browser(workshop)?;
    if process::find_program(&["mosquitto_pub"]).is_none() {
        install("mosquitto-clients", "an MQTT client that nobody here wrote", workshop)?;
    }
    if !has_postgres() {
        install("postgresql", "a database server for the tests of a shared store", workshop)?;
        // The tests start servers of their own; the package starts one that nobody asked for.
        if process::find_program(&["service"]).is_some() {
            process::run(process::program(workshop, "service").args(["postgresql", "stop"]))?;
        }
    }
    if process::find_program(&["softhsm2-util"]).is_none() {
        install("softhsm2", "a token of software for the tests of keys in a token", workshop)?;
    }
    for (program, what) in [
        ("curl", "what enrols a device in the tests"),
        ("openssl", "what checks chains and signatures in the tests"),
    ] {
        if process::find_program(&[program]).is_none() {
            install(program, what, workshop)?;
        }
    }
    if !clients::has_python(workshop) {
        install("python3-venv", "Python 3.11 or later with venv, for clients and validators", workshop)?;
        if !clients::has_python(workshop) {
            bail!("Python 3.11 or later with venv is needed for the clients");
        }
    }
    check_torture(workshop)
}

/// Checks what the fault harness needs beside Rust, and installs what is missing where we may.
pub fn check_torture(workshop: &Workshop) -> anyhow::Result<()> {
    for (program, package, what) in [
        ("strace", "strace", "what lets writes and syncs of a running server fail"),
        ("faketime", "faketime", "what sets a running server's clock"),
        ("prlimit", "util-linux", "what takes memory from a running server"),
    ] {
        if process::find_program(&[program]).is_none() {
            install(package, what, workshop)?;
        }
    }
    Ok(())
}

/// Whether there is a PostgreSQL server; packages leave its programs off the search path.
fn has_postgres() -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.into_iter().any(|version| version.path().join("bin/initdb").exists())
        || process::find_program(&["initdb"]).is_some()
}

/// Checks that Node.js and npm are there, for commands that need no browser.
pub fn check_node(workshop: &Workshop) -> anyhow::Result<()> {
    node_version(workshop)?;
    process::find_program(&["npm"]).context("npm is missing; it comes with Node.js")?;
    Ok(())
}

/// A browser that starts: the one that `AUSCULT_CHROMIUM` names, or the first on the search path.
pub fn chromium(workshop: &Workshop) -> Option<PathBuf> {
    let named = std::env::var_os("AUSCULT_CHROMIUM").map(PathBuf::from);
    let browser = named.or_else(|| process::find_program(&BROWSERS))?;
    // Some systems install a placeholder that only says how to get the browser.
    process::output(process::program(workshop, &browser).arg("--version")).ok()?;
    Some(browser)
}

/// rustfmt and clippy belong to the toolchain but can be left out of it.
fn components(workshop: &Workshop) -> anyhow::Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if process::output(&mut process::cargo(workshop, &[subcommand, "--version"])).is_err() {
            process::run(process::program(workshop, "rustup").args(["component", "add", component]))
                .with_context(|| format!("{component} is missing; install it with your Rust toolchain"))?;
        }
    }
    Ok(())
}

fn node_version(workshop: &Workshop) -> anyhow::Result<String> {
    let (major, minor) = NODE_MIN;
    let version = process::output(process::program(workshop, "node").arg("--version"))
        .with_context(|| format!("Node.js {major}.{minor} or later is needed"))?;
    let version = version.trim().to_owned();
    match major_and_minor(&version) {
        Some(found) if NODE_MIN <= found => Ok(version),
        _ => bail!("Node.js {major}.{minor} or later is needed, and `node --version` says {version}"),
    }
}

/// 20 and 19 of `v20.19.2`.
fn major_and_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix('v')?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Installs a Debian package where we may; else says the one line to run.
pub fn install(package: &str, what: &str, workshop: &Workshop) -> anyhow::Result<()> {
    const UPDATE: &str = "apt-get update";
    let install = format!("apt-get install -y --no-install-recommends {package}");
    let is_root =
        process::output(process::program(workshop, "id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !is_root || process::find_program(&["apt-get"]).is_none() {
        bail!("{what} is missing; run: sudo sh -c '{UPDATE} && {install}'");
    }
    for line in [UPDATE, &install] {
        let mut words = line.split(' ');
        let mut command = process::program(workshop, words.next().unwrap_or_default());
        process::run(command.args(words).env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_node_are_read() {
        assert_eq!(major_and_minor("v20.19.2"), Some((20, 19)));
        assert_eq!(major_and_minor("v8"), None);
        assert_eq!(major_and_minor("20.1.0"), None);
        assert_eq!(major_and_minor("vx.1"), None);
    }
}
