//! The directory of the built-in authority: `authority.pem`, `authority.key`, `issued.txt`, `revoked.txt`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clinical_model::Timestamp;
use trust::pki::{
    Authority, AuthorityPem, IssueRequest, IssueServerRequest, Issued, MAX_COMMON_NAME_CHARS, PeerUri,
    RevokedSerials,
};

use crate::keys;

/// Life of a new authority, in years: longer than most devices serve.
const AUTHORITY_YEARS: u32 = 20;
/// Life of a certificate where nothing else is asked for, in days: a year and a month to renew it.
pub const DEFAULT_DAYS: u32 = 397;
/// Longest life of a certificate, in days: five years.
pub const MAX_DAYS: u32 = 1_826;
/// A server certificate with less than this left is replaced at start.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// A certificate is valid a little before it was made: clocks of devices run behind.
const BACKDATE: Duration = Duration::from_secs(300);
/// Largest text file of the directory that is read, in bytes: 100,000 revocations of 100 bytes and more.
const FILE_LIMIT_BYTES: u64 = 64 << 20;

const CERTIFICATE_FILE: &str = "authority.pem";
const KEY_FILE: &str = "authority.key";
const ISSUED_FILE: &str = "issued.txt";
const REVOKED_FILE: &str = "revoked.txt";
const SERVER_CERTIFICATE_FILE: &str = "server.pem";
const SERVER_KEY_FILE: &str = "server.key";
/// Before the names of a server in the list of what was issued.
const SERVER_PURPOSE: &str = "server:";
const ISSUED_HEAD: &str = "# issued certificates: serial number, last instant, for what, common name\n";

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

/// The server's own certificate and key, as PEM.
pub struct ServerIdentity {
    /// Certificate chain.
    pub chain_pem: String,
    /// Private key.
    pub key_pem: trust::SecretText,
}

/// The authority and its directory.
pub struct PkiDirectory {
    path: PathBuf,
    authority: Authority,
}

impl PkiDirectory {
    /// Makes a new authority in a directory that has none.
    ///
    /// # Errors
    /// When there is one already, or the directory cannot be written.
    pub fn init(path: &Path, site: &str) -> anyhow::Result<Self> {
        let shown = path.display();
        make_private_directory(path)?;
        if path.join(KEY_FILE).exists() || path.join(CERTIFICATE_FILE).exists() {
            bail!(
                "{shown} holds an authority already; a second one would not be believed by the devices of the first"
            );
        }
        let made = Self::draw(site)?;
        Self::put(path, &made.certificate_pem, &made.key_pem)
    }

    /// A new authority, not yet in any directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn draw(site: &str) -> anyhow::Result<AuthorityPem> {
        let name: String = format!("{site} authority").chars().take(MAX_COMMON_NAME_CHARS).collect();
        Authority::create(&name, SystemTime::now(), AUTHORITY_YEARS)
            .with_context(|| format!("the authority \"{name}\" cannot be made"))
    }

    /// Puts an authority into a directory that has none.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn put(path: &Path, certificate_pem: &str, key_pem: &trust::SecretText) -> anyhow::Result<Self> {
        make_private_directory(path)?;
        keys::write_secret(&path.join(KEY_FILE), key_pem.expose(), 0o600)?;
        write_whole(&path.join(ISSUED_FILE), ISSUED_HEAD)?;
        write_whole(&path.join(REVOKED_FILE), &RevokedSerials::default().to_string())?;
        // Last: the directory holds an authority only when all of it is there.
        write_whole(&path.join(CERTIFICATE_FILE), certificate_pem)?;
        Self::open(path)
    }

    /// Whether a directory holds an authority.
    pub fn exists(path: &Path) -> bool {
        path.join(CERTIFICATE_FILE).exists()
    }

    /// Certificate and key of the authority, for another node.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn pem(&self) -> anyhow::Result<(String, trust::SecretText)> {
        let key = read_text(&self.path.join(KEY_FILE))?;
        Ok((self.certificate_pem().to_owned(), trust::SecretText::new(key)))
    }

    /// Opens an existing authority.
    ///
    /// # Errors
    /// When files are missing or do not belong together.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let certificate = read_text(&path.join(CERTIFICATE_FILE))?;
        let key = trust::SecretText::new(read_text(&path.join(KEY_FILE))?);
        let authority = Authority::load(&certificate, key.expose())
            .with_context(|| format!("the authority in {} cannot be used", path.display()))?;
        Ok(PkiDirectory { path: path.to_owned(), authority })
    }

    /// Opens the authority, or makes it at the first start.
    ///
    /// # Errors
    /// As [`PkiDirectory::open`] and [`PkiDirectory::init`].
    pub fn open_or_init(path: &Path, site: &str) -> anyhow::Result<Self> {
        if Self::exists(path) { Self::open(path) } else { Self::init(path, site) }
    }

    /// The authority's certificate, which devices must trust.
    pub fn certificate_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// The authority's name.
    pub fn name(&self) -> &str {
        self.authority.name()
    }

    /// Issues a client certificate with a fresh key.
    ///
    /// # Errors
    /// When it cannot be granted or noted.
    pub fn issue_client(&self, uri: PeerUri, common_name: &str, days: u32) -> anyhow::Result<Issued> {
        let (not_before, not_after) = self.period(days)?;
        let purpose = uri.to_string();
        let request = IssueRequest { common_name: common_name.to_owned(), uri, not_before, not_after };
        let issued = self
            .authority
            .issue_client(&request)
            .with_context(|| format!("no certificate can be issued to {purpose}"))?;
        self.note(&issued.serial_hex, not_after, &purpose, common_name)?;
        Ok(issued)
    }

    /// Issues a client certificate for the key in a signing request, so that the key stays with its device.
    ///
    /// # Errors
    /// When it cannot be granted or noted.
    pub fn sign_request(
        &self,
        pem: &str,
        uri: PeerUri,
        common_name: &str,
        days: u32,
    ) -> anyhow::Result<String> {
        let (not_before, not_after) = self.period(days)?;
        let purpose = uri.to_string();
        let request = IssueRequest { common_name: common_name.to_owned(), uri, not_before, not_after };
        let issued = self
            .authority
            .issue_client_for_request(pem, &request)
            .with_context(|| format!("the signing request for {purpose} cannot be granted"))?;
        self.note(&issued.serial_hex, not_after, &purpose, common_name)?;
        Ok(issued.certificate_pem)
    }

    /// Issues a server certificate with a fresh key for names and addresses.
    ///
    /// # Errors
    /// When it cannot be granted or noted.
    pub fn issue_server(&self, names: &[String], days: u32) -> anyhow::Result<Issued> {
        let (not_before, not_after) = self.period(days)?;
        let (ips, dns_names): (Vec<_>, Vec<_>) =
            names.iter().partition(|name| name.parse::<IpAddr>().is_ok());
        let common_name: String =
            names.first().map_or("auscult", String::as_str).chars().take(MAX_COMMON_NAME_CHARS).collect();
        let request = IssueServerRequest {
            common_name: common_name.clone(),
            dns_names: dns_names.into_iter().cloned().collect(),
            ips: ips.into_iter().filter_map(|name| name.parse().ok()).collect(),
            not_before,
            not_after,
        };
        let issued = self
            .authority
            .issue_server(&request)
            .with_context(|| format!("no server certificate can be issued for {}", names.join(", ")))?;
        self.note(&issued.serial_hex, not_after, &server_purpose(names), &common_name)?;
        Ok(issued)
    }

    /// The server's certificate and key in this directory; issued now where there is none, where its names are
    /// others, or where it ends within a month.
    ///
    /// # Errors
    /// When it cannot be read or issued.
    pub fn server_identity(&self, names: &[String]) -> anyhow::Result<ServerIdentity> {
        let (certificate, key) = (self.path.join(SERVER_CERTIFICATE_FILE), self.path.join(SERVER_KEY_FILE));
        if certificate.exists() && key.exists() && self.server_identity_serves(names)? {
            return Ok(ServerIdentity {
                chain_pem: read_text(&certificate)?,
                key_pem: trust::SecretText::new(read_text(&key)?),
            });
        }
        let issued = self.issue_server(names, DEFAULT_DAYS)?;
        if key.exists() {
            std::fs::remove_file(&key).with_context(|| format!("{} cannot be replaced", key.display()))?;
        }
        keys::write_secret(&key, issued.key_pem.expose(), 0o600)?;
        write_whole(&certificate, &issued.certificate_pem)?;
        tracing::info!(
            serial = issued.serial_hex,
            names = names.join(","),
            "a server certificate was issued"
        );
        Ok(ServerIdentity { chain_pem: issued.certificate_pem, key_pem: issued.key_pem })
    }

    fn server_identity_serves(&self, names: &[String]) -> anyhow::Result<bool> {
        let purpose = server_purpose(names);
        let last = self.issued()?.into_iter().rfind(IssuedLine::is_of_server);
        let fresh_until = timestamp(SystemTime::now() + RENEW_BEFORE);
        Ok(last.is_some_and(|line| line.purpose == purpose && line.not_after > fresh_until))
    }

    /// What was issued, oldest first.
    ///
    /// # Errors
    /// When the list cannot be read; the line is named.
    pub fn issued(&self) -> anyhow::Result<Vec<IssuedLine>> {
        read_issued(&self.issued_file())
    }

    /// The file of issued certificates, for whoever watches it.
    pub fn issued_file(&self) -> PathBuf {
        self.path.join(ISSUED_FILE)
    }

    /// Revokes a certificate by its serial number; false where it was revoked before.
    ///
    /// # Errors
    /// When the serial number was never issued here, or the list cannot be written.
    pub fn revoke(&self, serial: &str, reason: &str) -> anyhow::Result<bool> {
        let serial = trust::pki::normal_serial_hex(serial)?;
        if !self.issued()?.iter().any(|line| line.serial_hex == serial) {
            bail!(
                "no certificate with serial number {serial} was issued here; `auscult pki list` shows them"
            );
        }
        let mut revoked = self.revoked()?;
        let new = revoked.insert(&serial, SystemTime::now(), reason)?;
        if new {
            write_whole(&self.path.join(REVOKED_FILE), &revoked.to_string())?;
        }
        Ok(new)
    }

    /// What was revoked.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn revoked(&self) -> anyhow::Result<RevokedSerials> {
        read_revoked(&self.revoked_file())
    }

    /// The file of revoked certificates, for whoever watches it.
    pub fn revoked_file(&self) -> PathBuf {
        self.path.join(REVOKED_FILE)
    }

    /// From a little before now until `days` later, but never beyond the authority's own life.
    fn period(&self, days: u32) -> anyhow::Result<(SystemTime, SystemTime)> {
        if !(1..=MAX_DAYS).contains(&days) {
            bail!("a certificate is issued for 1 to {MAX_DAYS} days, not {days}");
        }
        let now = SystemTime::now();
        let until = now + Duration::from_secs(u64::from(days) * 86_400);
        Ok((now - BACKDATE, until.min(self.authority.not_after())))
    }

    fn note(
        &self,
        serial: &str,
        not_after: SystemTime,
        purpose: &str,
        common_name: &str,
    ) -> anyhow::Result<()> {
        let line = IssuedLine {
            serial_hex: serial.to_owned(),
            not_after: timestamp(not_after),
            purpose: purpose.to_owned(),
            common_name: common_name.to_owned(),
        };
        append_issued(&self.issued_file(), &[line]).context("nothing was issued")
    }
}

/// Reads a list of issued certificates, oldest first.
///
/// # Errors
/// When it cannot be read; the line is named.
pub fn read_issued(path: &Path) -> anyhow::Result<Vec<IssuedLine>> {
    let text = read_text(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            parse_issued(line).with_context(|| format!("{}, line {}", path.display(), number + 1))
        })
        .collect()
}

/// Adds to a list of issued certificates; others may add to it at the same time.
///
/// # Errors
/// When it cannot be written.
pub fn append_issued(path: &Path, new: &[IssuedLine]) -> anyhow::Result<()> {
    let text: String = new.iter().map(|line| format!("{line}\n")).collect();
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

/// The names of a server certificate from the built-in authority: loopback, the machine, and what was configured.
pub fn server_names(extra: &[String]) -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // A machine may be named in ways that no certificate can say.
    let host = Some(host).filter(|name| rustls_pki_types::DnsName::try_from(name.as_str()).is_ok());
    let mut seen = BTreeSet::new();
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter().chain(host);
    names.chain(extra.iter().cloned()).filter(|name| seen.insert(name.clone())).collect()
}

/// Makes a directory that only its owner may enter, with its parents; one that exists is left as it is.
///
/// # Errors
/// When it cannot be made.
pub fn make_private_directory(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("the directory {} cannot be made", path.display()))
}

/// An instant of the system's clock, cut to whole seconds.
pub fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_seconds(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn server_purpose(names: &[String]) -> String {
    format!("{SERVER_PURPOSE}{}", names.join(","))
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

fn read_text(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let length = std::fs::metadata(path).with_context(|| format!("{shown} cannot be read"))?.len();
    if length > FILE_LIMIT_BYTES {
        bail!("{shown} has {length} bytes, more than {FILE_LIMIT_BYTES}");
    }
    std::fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))
}

/// Replaces a file so that after a crash there is the old one or the new one, never half of it.
fn write_whole(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    });
    written.with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: &str = "01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11";

    fn device() -> PeerUri {
        format!("urn:auscult:device:{DEVICE}").parse().unwrap()
    }

    #[test]
    fn what_is_issued_is_listed_and_can_be_revoked_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pki");
        let pki = PkiDirectory::init(&path, "Ward 3").unwrap();
        assert!(PkiDirectory::init(&path, "Ward 3").is_err(), "a second authority");
        let issued = pki.issue_client(device(), "Monitor 07, north", DEFAULT_DAYS).unwrap();
        let again = PkiDirectory::open(&path).unwrap();
        let lines = again.issued().unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].serial_hex, issued.serial_hex);
        assert_eq!(lines[0].common_name, "Monitor 07, north");
        assert_eq!(lines[0].purpose, format!("urn:auscult:device:{DEVICE}"));
        assert!(again.revoke("00ff", "lost").is_err(), "never issued");
        assert!(again.revoke(&issued.serial_hex.to_uppercase(), "lost").unwrap());
        assert!(!again.revoke(&issued.serial_hex, "lost").unwrap());
        assert!(read_revoked(&again.revoked_file()).unwrap().contains(&issued.serial_hex));
        assert!(again.issue_client(device(), "x", 0).is_err());
        assert!(again.issue_client(device(), "x", MAX_DAYS + 1).is_err());
    }

    #[test]
    fn the_server_certificate_is_kept_until_its_names_change() {
        let directory = tempfile::tempdir().unwrap();
        let pki = PkiDirectory::open_or_init(directory.path(), "Site").unwrap();
        let names = server_names(&[]);
        assert!(names.starts_with(&["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]));
        let first = pki.server_identity(&names).unwrap();
        let second =
            PkiDirectory::open_or_init(directory.path(), "Site").unwrap().server_identity(&names).unwrap();
        assert_eq!(first.chain_pem, second.chain_pem);
        let other = pki.server_identity(&server_names(&["ward.example".to_owned()])).unwrap();
        assert_ne!(first.chain_pem, other.chain_pem);
        trust::tls::server_config_mutual(
            &other.chain_pem,
            other.key_pem.expose(),
            pki.certificate_pem(),
            &[],
        )
        .unwrap();
    }

    #[test]
    fn a_damaged_list_is_refused_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let pki = PkiDirectory::init(directory.path(), "Site").unwrap();
        std::fs::write(pki.revoked_file(), "# head\nzz\n").unwrap();
        assert!(format!("{:#}", pki.revoked().unwrap_err()).contains("line 2"));
        std::fs::write(directory.path().join(ISSUED_FILE), "ab\n").unwrap();
        assert!(format!("{:#}", pki.issued().unwrap_err()).contains("line 1"));
    }
}
