//! `cargo xtask clients` and `cargo xtask peers`: programs that nobody here wrote, against the real server.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::workshop::Workshop;
use crate::{process, tools, web};

/// The peer FHIR server that the black-box suite is run against as well: crate, version and features of its default
/// without the web pages, which nobody looks at here.
const PEER: (&str, &str, &str) = ("helios-hfs", "0.2.7", "R4,sqlite");
/// The oldest Python that runs the validators.
const PYTHON_MIN: (u32, u32) = (3, 11);

/// `cargo xtask clients [ARGS...]`: builds the server, installs what is missing, and runs `clients/run.py ARGS`.
pub fn command(workshop: &Workshop, arguments: &[String]) -> anyhow::Result<ExitCode> {
    tools::check_clients(workshop)?;
    // Before the server, which takes the web app in: some of the clients sign people in through it.
    web::build(workshop)?;
    // The whole workspace, as in the test command: the same features, so nothing is compiled twice.
    process::run(&mut process::cargo(workshop, &["build", "--workspace", "--bins", "--locked"]))?;
    run(workshop, arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing and runs the clients against the binary that was built.
pub fn run(workshop: &Workshop, arguments: &[String]) -> anyhow::Result<()> {
    let python = process::timed("installing the clients", || {
        web::install_packages(workshop, "clients")?;
        let python = install_python(workshop)?;
        build_rumqttc(workshop)?;
        Ok(python)
    })?;
    let mut run = process::program(workshop, python);
    run.arg("clients/run.py").arg("--auscult").arg(workshop.auscult("debug"));
    run.arg("--cache").arg(kept(workshop)).arg("--rumqttc").arg(rumqttc(workshop)).args(arguments);
    if let Some(chromium) = tools::chromium(workshop) {
        run.env("AUSCULT_CHROMIUM", chromium);
    }
    process::run(&mut run)
}

/// `cargo xtask peers [ARGS...]`: the black-box suite against the peer server, which is installed where it is missing.
pub fn peers(workshop: &Workshop, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let peer = match std::env::var_os("AUSCULT_HFS") {
        Some(named) => PathBuf::from(named),
        None => install_peer(workshop)?,
    };
    tools::check_clients(workshop)?;
    process::run(&mut process::cargo(workshop, &["build", "--workspace", "--bins", "--locked"]))?;
    let mut given =
        vec!["--hfs".to_owned(), peer.display().to_string(), "--only".to_owned(), "blackbox".to_owned()];
    given.extend_from_slice(arguments);
    run(workshop, &given)?;
    Ok(ExitCode::SUCCESS)
}

/// What is kept for the next run.
fn kept(workshop: &Workshop) -> PathBuf {
    workshop.target().join("clients")
}

fn rumqttc(workshop: &Workshop) -> PathBuf {
    let name = format!("mqtt-rumqttc{}", std::env::consts::EXE_SUFFIX);
    kept(workshop).join("rumqttc").join("debug").join(name)
}

/// A virtual environment with exactly the packages of `clients/requirements.txt`, made anew when that file changes.
fn install_python(workshop: &Workshop) -> anyhow::Result<PathBuf> {
    let wanted = fs::read_to_string(workshop.path("clients/requirements.txt"))
        .context("clients/requirements.txt cannot be read")?;
    let folder = kept(workshop).join("python");
    let python = folder.join("bin").join("python");
    let installed = folder.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    process::run(process::program(workshop, "python3").args(["-m", "venv"]).arg(&folder))?;
    let mut install = process::program(workshop, &python);
    install.args(["-m", "pip", "install", "--quiet", "--no-deps", "-r", "clients/requirements.txt"]);
    process::run(&mut install)?;
    fs::write(&installed, wanted).with_context(|| format!("{} cannot be written", installed.display()))?;
    Ok(python)
}

/// rumqttc has a lock file and a target folder of its own: what it brings must not reach the product.
fn build_rumqttc(workshop: &Workshop) -> anyhow::Result<()> {
    let manifest = "clients/programs/mqtt_rumqttc/Cargo.toml";
    let mut build = process::cargo(workshop, &["build", "--quiet", "--locked", "--manifest-path", manifest]);
    build.env("CARGO_TARGET_DIR", kept(workshop).join("rumqttc"));
    process::run(&mut build)
}

/// Installs the peer server where it is missing.
pub fn install_peer(workshop: &Workshop) -> anyhow::Result<PathBuf> {
    let (name, version, features) = PEER;
    let root = workshop.target().join("peers");
    let binary = root.join("bin").join(format!("hfs{}", std::env::consts::EXE_SUFFIX));
    if !binary.exists() {
        println!("building {name} {version}: half an hour or more, once");
        let mut install = process::cargo(workshop, &["install", name, "--version", version, "--locked"]);
        install.args(["--no-default-features", "--features", features, "--root"]).arg(&root);
        install.env("CARGO_TARGET_DIR", root.join("target"));
        process::run(&mut install)?;
    }
    if !binary.exists() {
        bail!("{name} was installed, and {} is not there", binary.display());
    }
    Ok(binary)
}

/// Whether a Python that can make virtual environments is here, and new enough.
pub fn has_python(workshop: &Workshop) -> bool {
    let (major, minor) = PYTHON_MIN;
    let ask = format!("import ensurepip, sys, venv; sys.exit(sys.version_info < ({major}, {minor}))");
    process::output(process::program(workshop, "python3").args(["-c", &ask])).is_ok()
}
