//! The lists of an authority as text files, one line an entry: what was issued, what was revoked, what programs may do.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use clinical_model::Timestamp;
use trust::pki::{PeerUri, RevokedSerials};

/// Largest text file of the directory that is read, in bytes: 100,000 revocations of 100 bytes and more.
const FILE_LIMIT_BYTES: u64 = 64 << 20;
/// Before the names of a server in the list of what was issued.
pub(super) const SERVER_PURPOSE: &str = "server:";
pub(super) const ISSUED_HEAD: &str =
    "# issued certificates: serial number, last instant, for what, common name\n";
pub(super) const PROGRAMS_HEAD: &str =
    "# programs: since when, name, SMART scopes; the last line of a name counts\n";

/// One line of `issued.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedLine {
    /// Serial number in hexadecimal.
    pub serial_hex: String,
    /// Last instant of validity.
    pub not_after: Timestamp,
    /// A URI of a device or program, or `server:` and its names with commas.
    pub purpose: String,
    /// Common name.
    pub common_name: String,
}

impl IssuedLine {
    /// Whether it was issued to a server: each node has its own.
    pub fn is_of_server(&self) -> bool {
        self.purpose.starts_with(SERVER_PURPOSE)
    }
}

impl std::fmt::Display for IssuedLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {} {}", self.serial_hex, self.not_after, self.purpose, self.common_name)
    }
}

/// One line of `programs.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramLine {
    /// When it was registered.
    pub at: Timestamp,
    /// Its name.
    pub name: String,
    /// What it may do, as SMART scopes.
    pub scopes: Vec<String>,
}

impl ProgramLine {
    /// A registration, checked.
    ///
    /// # Errors
    /// When the name is no program's, or a scope is none that can be enforced.
    pub fn new(at: Timestamp, name: &str, scopes: &[String]) -> anyhow::Result<Self> {
        PeerUri::program(name)?;
        if scopes.is_empty() {
            bail!("a program needs at least one scope, such as system/*.rs");
        }
        let read = scopes
            .join(" ")
            .parse::<access::scopes::Scopes>()
            .with_context(|| format!("the scopes of {name} cannot be used"))?;
        let is_empty = read.resources().is_empty();
        if is_empty || read.resources().iter().any(|scope| scope.context != access::scopes::Context::System) {
            bail!(
                "a program that acts by itself has scopes that begin with system/, such as system/Observation.rs"
            );
        }
        Ok(ProgramLine { at, name: name.to_owned(), scopes: scopes.to_vec() })
    }
}

impl std::fmt::Display for ProgramLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.at, self.name, self.scopes.join(" "))
    }
}

/// Reads a list of issued certificates, oldest first.
///
/// # Errors
/// When it cannot be read; the line is named.
pub fn read_issued(path: &Path) -> anyhow::Result<Vec<IssuedLine>> {
    read_lines(path, parse_issued)
}

/// Reads the registered programs by name. A directory of an earlier release has none.
///
/// # Errors
/// When the list cannot be read; the line is named.
pub fn read_programs(path: &Path) -> anyhow::Result<BTreeMap<String, ProgramLine>> {
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let mut programs: BTreeMap<String, ProgramLine> = BTreeMap::new();
    for line in read_lines(path, parse_program)? {
        let is_newer = programs.get(&line.name).is_none_or(|known| known.at <= line.at);
        if is_newer {
            programs.insert(line.name.clone(), line);
        }
    }
    Ok(programs)
}

fn read_lines<T>(path: &Path, parse: fn(&str) -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
    let text = read_text(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| parse(line).with_context(|| format!("{}, line {}", path.display(), number + 1)))
        .collect()
}

/// Reads one line of the list of issued certificates.
///
/// # Errors
/// When a part is missing or the instant cannot be read.
pub fn parse_issued(line: &str) -> anyhow::Result<IssuedLine> {
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next().context("expected serial number, instant, purpose and name");
    Ok(IssuedLine {
        serial_hex: word()?.to_owned(),
        not_after: word()?.parse()?,
        purpose: word()?.to_owned(),
        common_name: word()?.to_owned(),
    })
}

/// Reads one line of the list of programs.
///
/// # Errors
/// When a part is missing, or a scope cannot be enforced.
pub fn parse_program(line: &str) -> anyhow::Result<ProgramLine> {
    let mut words = line.split_ascii_whitespace();
    let at = words.next().context("expected an instant, a name and scopes")?.parse()?;
    let name = words.next().context("expected a name after the instant")?;
    let scopes: Vec<String> = words.map(str::to_owned).collect();
    ProgramLine::new(at, name, &scopes)
}

/// Adds to a list of issued certificates; others may add to it at the same time.
///
/// # Errors
/// When it cannot be written.
pub fn append_issued(path: &Path, new: &[IssuedLine]) -> anyhow::Result<()> {
    append(path, new.iter().map(|line| format!("{line}\n")).collect())
}

/// Adds to the list of programs; others may add to it at the same time.
///
/// # Errors
/// When it cannot be written.
pub fn append_programs(path: &Path, new: &[ProgramLine]) -> anyhow::Result<()> {
    let head = if path.exists() { "" } else { PROGRAMS_HEAD };
    let lines: String = new.iter().map(|line| format!("{line}\n")).collect();
    append(path, format!("{head}{lines}"))
}

fn append(path: &Path, text: String) -> anyhow::Result<()> {
    let written = File::options().create(true).append(true).open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("{} cannot be written", path.display()))
}

/// Reads a list of revoked certificates.
///
/// # Errors
/// When it is not there or a line of it cannot be read: an unread revocation would be an open door.
pub fn read_revoked(path: &Path) -> anyhow::Result<RevokedSerials> {
    let text = read_text(path)?;
    RevokedSerials::parse(&text).with_context(|| format!("{} cannot be used; mend the line", path.display()))
}

/// Replaces a list of revoked certificates.
///
/// # Errors
/// When it cannot be written.
pub fn write_revoked(path: &Path, revoked: &RevokedSerials) -> anyhow::Result<()> {
    write_whole(path, &revoked.to_string())
}

pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let length = std::fs::metadata(path).with_context(|| format!("{shown} cannot be read"))?.len();
    if length > FILE_LIMIT_BYTES {
        bail!("{shown} has {length} bytes, more than {FILE_LIMIT_BYTES}");
    }
    std::fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))
}

/// Replaces a file so that after a crash there is the old one or the new one, never half of it.
pub(super) fn write_whole(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    });
    written.with_context(|| format!("{} cannot be written", path.display()))
}

/// Removes a file that held a secret, so that it is gone after a crash too.
pub(super) fn remove_file(path: &Path) -> anyhow::Result<()> {
    let removed = std::fs::remove_file(path)
        .and_then(|()| path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()));
    removed.with_context(|| format!("{} cannot be removed", path.display()))
}
