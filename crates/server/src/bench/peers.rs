//! The peers that we are measured beside: where they are found, how they are set up, how they are stopped.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::apart::{Apart, free_port};
use super::stage::Stage;

/// What drives AtriumDB; it speaks JSON.
const ATRIUMDB_DRIVER: &str = include_str!("../../../../clients/bench/atriumdb_waveforms.py");
/// What keeps one row a reading in SQLite.
const ROWS_DRIVER: &str = include_str!("../../../../clients/bench/row_a_reading.py");

/// The broker Mosquitto, with our certificates and TLS 1.3.
pub struct Mosquitto {
    /// `host:port`.
    pub address: String,
    /// Its process.
    pub apart: Apart,
    _directory: TempDir,
}

impl Mosquitto {
    /// Starts it on a free port, with its data beside ours.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(stage: &Stage) -> anyhow::Result<Self> {
        let program = found("AUSCULT_MOSQUITTO", &["mosquitto", "/usr/sbin/mosquitto"])?;
        let directory = beside(stage)?;
        let at = directory.path();
        let port = free_port()?;
        std::fs::write(at.join("ca.pem"), &stage.authority_pem)?;
        std::fs::write(at.join("chain.pem"), &stage.identity.chain_pem)?;
        crate::keys::write_secret(&at.join("key.pem"), stage.identity.key_pem.expose(), 0o600)?;
        let shown = at.display();
        // It gives up root's rights otherwise, and could then not read our files.
        let user = if rustix::process::geteuid().is_root() { "user root\n" } else { "" };
        let settings = format!(
            "{user}listener {port} 127.0.0.1\ncafile {shown}/ca.pem\ncertfile {shown}/chain.pem\n\
             keyfile {shown}/key.pem\nrequire_certificate true\ntls_version tlsv1.3\nallow_anonymous true\n\
             set_tcp_nodelay true\npersistence true\npersistence_location {shown}/\nautosave_interval 1\n\
             max_inflight_messages 100\nlog_type error\n"
        );
        let path = at.join("mosquitto.conf");
        std::fs::write(&path, settings)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&path).stderr(Stdio::null());
        let mut apart = Apart::start("Mosquitto", &mut command)?;
        let address = format!("127.0.0.1:{port}");
        apart.wait_for(&address)?;
        Ok(Mosquitto { address, apart, _directory: directory })
    }
}

/// The FHIR server helios-hfs on SQLite.
pub struct Hfs {
    /// Base address.
    pub base: String,
    /// Its process.
    pub apart: Apart,
    /// How it was set up, for the report.
    pub setting: String,
    _directory: TempDir,
}

/// Whether a server judges what it is given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Judging {
    /// Invalid resources are refused.
    On,
    /// For loading only.
    Off,
}

impl Hfs {
    /// Starts it on a free port, with its data beside ours.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(stage: &Stage, judging: Judging) -> anyhow::Result<Self> {
        let program = found("AUSCULT_HFS", &["hfs"])?;
        let directory = beside(stage)?;
        let at = directory.path();
        let port = free_port()?;
        let mut command = Command::new(program);
        command
            .args(["--port", &port.to_string(), "--database-url"])
            .arg(at.join("hfs.db"))
            .env("HFS_LOG_LEVEL", "error")
            .env("RUST_LOG", "error")
            .env("HFS_VALIDATION_MODE", if judging == Judging::On { "enforce" } else { "off" })
            .env("HFS_AUDIT_BACKEND", "file")
            .env("HFS_AUDIT_FILE_PATH", at.join("audit.ndjson"))
            .env("HFS_BASE_URL", format!("http://127.0.0.1:{port}"))
            .current_dir(at)
            .stderr(Stdio::null());
        let parameters = match std::env::var_os("AUSCULT_HFS_DATA") {
            Some(data) => {
                command.arg("--data-dir").arg(data);
                "the R4 search parameters of HL7's definitions"
            }
            None => "its embedded fallback search parameters",
        };
        let mut apart = Apart::start("hfs", &mut command)?;
        let address = format!("127.0.0.1:{port}");
        apart.wait_for(&address)?;
        let judged = if judging == Judging::On { "validation enforced" } else { "validation off" };
        let setting = format!(
            "helios-hfs 0.2.7 on SQLite over plain HTTP, {judged}, audit to a file, {parameters}; its commit does not wait \
             for the disk (WAL, synchronous=NORMAL)."
        );
        Ok(Hfs { base: format!("http://{address}"), apart, setting, _directory: directory })
    }
}

/// Runs the driver of AtriumDB over a directory of its own; it is told where the samples are.
///
/// # Errors
/// When AtriumDB is not installed or its driver fails.
pub fn atriumdb(beside_dir: &Path, samples: &Path, arguments: &[String]) -> anyhow::Result<Value> {
    let python = std::env::var_os("AUSCULT_ATRIUMDB")
        .context("AUSCULT_ATRIUMDB does not name a Python with atriumdb; `cargo xtask bench` sets it up")?;
    let directory = tempfile::Builder::new().prefix("auscult-peer-").tempdir_in(beside_dir)?;
    drive(PathBuf::from(python), ATRIUMDB_DRIVER, directory.path(), samples, arguments)
}

/// Keeps readings one row each in SQLite.
///
/// # Errors
/// When Python is not installed or the driver fails.
pub fn row_a_reading(beside_dir: &Path, readings: &Path) -> anyhow::Result<Value> {
    let python = found("AUSCULT_PYTHON", &["python3"])?;
    let directory = tempfile::Builder::new().prefix("auscult-peer-").tempdir_in(beside_dir)?;
    drive(python, ROWS_DRIVER, directory.path(), readings, &[])
}

fn drive(
    python: PathBuf,
    driver: &str,
    directory: &Path,
    input: &Path,
    arguments: &[String],
) -> anyhow::Result<Value> {
    let mut child = Command::new(python)
        .arg("-")
        .arg(directory)
        .arg(input)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("Python cannot be started")?;
    child.stdin.take().context("its standard input is piped")?.write_all(driver.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("the driver failed: {}", error.lines().last().unwrap_or("it said nothing"));
    }
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("the driver said {last:?}"))
}

/// A program named by a variable of the environment, or on the search path.
fn found(variable: &str, names: &[&str]) -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os(variable) {
        let path = PathBuf::from(named);
        ensure!(path.is_file(), "{variable} names {}, which is not there", path.display());
        return Ok(path);
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let places =
        names.iter().flat_map(|name| std::env::split_paths(&search).map(move |folder| folder.join(name)));
    let mut files = places.filter(|place| place.is_file());
    files.next().with_context(|| format!("{} is not installed; name it with {variable}", names[0]))
}

fn beside(stage: &Stage) -> anyhow::Result<TempDir> {
    let data = stage.data_dir();
    let base = data.parent().context("a data directory has a parent")?;
    tempfile::Builder::new().prefix("auscult-peer-").tempdir_in(base).context("no directory for the peer")
}
