//! The directory of the authority: anchors and issuing keys, the server's own certificate, and the lists.
//!
//! | File | What |
//! |---|---|
//! | `authority.pem` | the anchors: what every device and program must know |
//! | `issuing.pem` | certificates of the issuing keys that are believed, the present one first |
//! | `issuing-<id>.key` | their keys, sealed |
//! | `retired.txt` | until when earlier issuing keys are believed |
//! | `sealing.key` | the key that sealed them, wrapped by the key-encryption key |
//! | `root.key` | the key of the root, sealed, until the operator takes it away |
//! | `server.pem`, `server.key` | the server's own certificate and its sealed key |
//! | `issued.txt`, `revoked.txt`, `programs.txt` | the lists |
//! | `address.txt` | how devices call the server, for what is issued |

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use trust::pki::{
    Authority, IssueRequest, IssueServerRequest, Issued, IssuedForRequest, MAX_COMMON_NAME_CHARS, PeerUri,
    RevokedSerials, SealingKey, SigningRequest, begins_at, certificates_of, is_plain_key, is_signed_by,
};
use trust::{KekRing, SecretText};

use super::lists::{
    self, ISSUED_HEAD, IssuedLine, SERVER_PURPOSE, append_issued, read_issued, read_revoked, read_text,
    remove_file, write_whole,
};
use super::tiers::Tiers;
use super::{BACKDATE, DEFAULT_DAYS, MAX_DAYS, RENEW_BEFORE, make_private_directory, timestamp};

pub(super) const ANCHORS_FILE: &str = "authority.pem";
pub(super) const ISSUING_FILE: &str = "issuing.pem";
pub(super) const RETIRED_FILE: &str = "retired.txt";
pub(super) const ROOT_KEY_FILE: &str = "root.key";
pub(super) const PROGRAMS_FILE: &str = "programs.txt";
const SEALING_FILE: &str = "sealing.key";
/// The key of an authority of one tier, as earlier releases kept it: plain.
const PLAIN_KEY_FILE: &str = "authority.key";
const ISSUED_FILE: &str = "issued.txt";
const REVOKED_FILE: &str = "revoked.txt";
const ADDRESS_FILE: &str = "address.txt";
const SERVER_CERTIFICATE_FILE: &str = "server.pem";
const SERVER_KEY_FILE: &str = "server.key";

/// The server's own certificate and key, as PEM.
pub struct ServerIdentity {
    /// Certificate chain.
    pub chain_pem: String,
    /// Private key.
    pub key_pem: SecretText,
}

/// The authority and its directory.
pub struct PkiDirectory {
    pub(super) path: PathBuf,
    pub(super) tiers: Tiers,
    pub(super) sealing: Option<Arc<SealingKey>>,
    authority: Option<Authority>,
    now: trust::tls::Now,
}

/// What stands in the list of what was issued instead of the common name of whoever asked for a certificate itself.
const BY_REQUEST: &str = "by request";

impl PkiDirectory {
    /// Whether a directory holds an authority.
    pub fn exists(path: &Path) -> bool {
        path.join(ANCHORS_FILE).exists()
    }

    /// Puts an authority into a directory that has none.
    ///
    /// # Errors
    /// When there is one already, or the directory cannot be written.
    pub(super) fn put(
        path: &Path,
        tiers: &Tiers,
        keys: &[(String, SecretText)],
        keks: &KekRing,
    ) -> anyhow::Result<Self> {
        make_private_directory(path)?;
        if Self::exists(path) || path.join(PLAIN_KEY_FILE).exists() {
            bail!(
                "{} holds an authority already; a second one would not be believed by the devices of the first",
                path.display()
            );
        }
        let sealing = SealingKey::generate();
        write_whole(&path.join(SEALING_FILE), &sealing.to_text(keks.current()))?;
        for (file, key) in keys {
            write_whole(&path.join(file), &sealing.seal(file, key))?;
        }
        write_whole(&path.join(ISSUED_FILE), ISSUED_HEAD)?;
        write_whole(&path.join(REVOKED_FILE), &RevokedSerials::default().to_string())?;
        write_whole(&path.join(PROGRAMS_FILE), lists::PROGRAMS_HEAD)?;
        tiers.write_issuing(path)?;
        // Last: the directory holds an authority only when all of it is there.
        write_whole(&path.join(ANCHORS_FILE), &tiers.anchors_pem)?;
        Self::open(path, keks)
    }

    /// Opens an existing authority with its keys. One of an earlier release, whose key lay there plain, is sealed first.
    ///
    /// # Errors
    /// When files are missing or do not belong together, or the key-encryption key is another.
    pub fn open(path: &Path, keks: &KekRing) -> anyhow::Result<Self> {
        let cannot = || format!("the authority in {} cannot be used", path.display());
        seal_plain(path, keks).with_context(cannot)?;
        let mut opened = Self::look(path)?;
        let sealing =
            SealingKey::from_text(&read_text(&path.join(SEALING_FILE))?, keks).with_context(cannot)?;
        let current = opened.tiers.issuing.first().with_context(cannot)?;
        let file = key_file(&current.id);
        let key = sealing.open(&file, &read_text(&path.join(&file))?).with_context(cannot)?;
        let authority = Authority::load(&current.pem, key.expose()).with_context(cannot)?;
        opened.authority = Some(authority.with_revocation_lists(opened.revocation_urls(&current.id)));
        opened.sealing = Some(Arc::new(sealing));
        Ok(opened)
    }

    /// Opens what needs no key: certificates and lists.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn look(path: &Path) -> anyhow::Result<Self> {
        let tiers = Tiers::read(path)
            .with_context(|| format!("the authority in {} cannot be read", path.display()))?;
        let now: trust::tls::Now = Arc::new(SystemTime::now);
        Ok(PkiDirectory { path: path.to_owned(), tiers, sealing: None, authority: None, now })
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(mut self, now: trust::tls::Now) -> Self {
        self.now = now;
        self
    }

    pub(super) fn authority(&self) -> anyhow::Result<&Authority> {
        self.authority.as_ref().with_context(|| {
            format!(
                "the keys in {} are sealed; name the key-encryption key with --key-file",
                self.path.display()
            )
        })
    }

    pub(super) fn sealing(&self) -> anyhow::Result<&SealingKey> {
        self.sealing.as_deref().with_context(|| {
            format!(
                "the keys in {} are sealed; name the key-encryption key with --key-file",
                self.path.display()
            )
        })
    }

    /// The anchors, which devices must trust.
    pub fn certificate_pem(&self) -> &str {
        &self.tiers.anchors_pem
    }

    /// The issuing certificates whose clients are believed now, the present one first.
    pub fn issuing_pem(&self) -> String {
        let now = timestamp((self.now)());
        self.tiers.issuing.iter().filter(|one| one.is_believed(now)).map(|one| one.pem.as_str()).collect()
    }

    /// The tiers.
    pub(super) fn tiers(&self) -> &Tiers {
        &self.tiers
    }

    /// The authority's name.
    pub fn name(&self) -> &str {
        self.tiers.issuing.first().map_or("", |one| one.name.as_str())
    }

    /// How devices call the server; empty while it never ran.
    pub fn address(&self) -> String {
        read_text(&self.path.join(ADDRESS_FILE)).unwrap_or_default().trim().to_owned()
    }

    /// Notes how devices call the server: it stands in what is issued from the next opening on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_address(&self, address: &str) -> anyhow::Result<()> {
        if self.address() == address {
            return Ok(());
        }
        write_whole(&self.path.join(ADDRESS_FILE), &format!("{address}\n"))
    }

    fn revocation_urls(&self, id: &str) -> Vec<String> {
        let address = self.address();
        if address.is_empty() { Vec::new() } else { vec![format!("{address}/pki/crl/{id}.crl")] }
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
            .authority()?
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
        request: &SigningRequest,
        uri: PeerUri,
        common_name: &str,
        life: Duration,
    ) -> anyhow::Result<(IssuedForRequest, SystemTime, SystemTime)> {
        let (not_before, not_after) = self.period_of(life)?;
        let purpose = uri.to_string();
        let asked = IssueRequest { common_name: common_name.to_owned(), uri, not_before, not_after };
        let issued = self
            .authority()?
            .issue_client_for_key(request, &asked)
            .with_context(|| format!("the signing request for {purpose} cannot be granted"))?;
        // Its name is the device's serial number, which stands in no list that is not sealed.
        self.note(&issued.serial_hex, not_after, &purpose, BY_REQUEST)?;
        Ok((issued, not_before, not_after))
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
            .authority()?
            .issue_server(&request)
            .with_context(|| format!("no server certificate can be issued for {}", names.join(", ")))?;
        self.note(&issued.serial_hex, not_after, &server_purpose(names), &common_name)?;
        Ok(issued)
    }

    /// The server's certificate and key in this directory; issued now where there is none, where its names are
    /// others, where another key issued it, or where it ends within a month.
    ///
    /// # Errors
    /// When it cannot be read or issued.
    pub fn server_identity(&self, names: &[String]) -> anyhow::Result<ServerIdentity> {
        let (certificate, key) = (self.path.join(SERVER_CERTIFICATE_FILE), self.path.join(SERVER_KEY_FILE));
        if certificate.exists()
            && key.exists()
            && let Some(kept) = self.kept_identity(&certificate, &key, names)?
        {
            return Ok(kept);
        }
        let issued = self.issue_server(names, DEFAULT_DAYS)?;
        // The key first: a certificate without its key is replaced at the next start.
        write_whole(&key, &self.sealing()?.seal(SERVER_KEY_FILE, &issued.key_pem))?;
        write_whole(&certificate, &issued.certificate_pem)?;
        tracing::info!(
            serial = issued.serial_hex,
            names = names.join(","),
            "a server certificate was issued"
        );
        Ok(ServerIdentity { chain_pem: issued.certificate_pem, key_pem: issued.key_pem })
    }

    /// A new certificate of the server, although the present one still serves.
    ///
    /// # Errors
    /// When it cannot be issued.
    pub fn renew_server_identity(&self, names: &[String]) -> anyhow::Result<ServerIdentity> {
        let certificate = self.path.join(SERVER_CERTIFICATE_FILE);
        if certificate.exists() {
            remove_file(&certificate)?;
        }
        self.server_identity(names)
    }

    /// The signed list of revoked certificates of an issuing key (DER); of the present one where none is named.
    ///
    /// # Errors
    /// When there is no such key, or it cannot be opened.
    pub fn revocation_list(&self, id: Option<&str>) -> anyhow::Result<Vec<u8>> {
        let present = self.tiers.issuing.first().map_or("", |one| one.id.as_str());
        let id = id.unwrap_or(present);
        let authority = self.issuing_key(id)?.with_context(|| format!("there is no issuing key {id}"))?;
        Ok(authority.revocation_list(&self.revoked()?, (self.now)(), super::LIST_LIFE)?)
    }

    fn kept_identity(
        &self,
        certificate: &Path,
        key: &Path,
        names: &[String],
    ) -> anyhow::Result<Option<ServerIdentity>> {
        let purpose = server_purpose(names);
        let last = self.issued()?.into_iter().rfind(IssuedLine::is_of_server);
        let fresh_until = timestamp((self.now)() + RENEW_BEFORE);
        let serves = last.is_some_and(|line| line.purpose == purpose && line.not_after > fresh_until);
        let (chain_pem, key) = (read_text(certificate)?, read_text(key)?);
        if !serves || is_plain_key(&key) || !is_signed_by(&chain_pem, self.authority()?.certificate_pem()) {
            return Ok(None);
        }
        let now = (self.now)();
        let authority = self.authority()?;
        // Nothing begins before its authority: that takes a new issuing key.
        if authority.not_before() <= now && begins_at(&chain_pem).is_none_or(|begins| begins > now) {
            tracing::error!(
                clock = %timestamp(now),
                "the server's certificate begins later: the clock was ahead when it was issued; it is replaced"
            );
            return Ok(None);
        }
        let key_pem = self.sealing()?.open(SERVER_KEY_FILE, &key)?;
        // A crash between the two files leaves a key of another certificate.
        let fits = trust::tls::server_config_plain_tls(&chain_pem, key_pem.expose(), &[]).is_ok();
        Ok(fits.then_some(ServerIdentity { chain_pem, key_pem }))
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

    /// The file of registered programs, for whoever watches it.
    pub fn programs_file(&self) -> PathBuf {
        self.path.join(PROGRAMS_FILE)
    }

    /// The file of issuing certificates, for whoever watches it.
    pub fn issuing_file(&self) -> PathBuf {
        self.path.join(ISSUING_FILE)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
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
        let new = revoked.insert(&serial, (self.now)(), reason)?;
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
        self.period_of(Duration::from_secs(u64::from(days) * 86_400))
    }

    fn period_of(&self, life: Duration) -> anyhow::Result<(SystemTime, SystemTime)> {
        let (now, authority) = ((self.now)(), self.authority()?);
        let from = (now - BACKDATE).max(authority.not_before());
        Ok((from, (now + life).min(authority.not_after())))
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

/// The file of an issuing key.
pub(super) fn key_file(id: &str) -> String {
    format!("issuing-{id}.key")
}

fn server_purpose(names: &[String]) -> String {
    format!("{SERVER_PURPOSE}{}", names.join(","))
}

/// An authority of an earlier release had one tier, and its key lay plain beside its certificate. It stays what it was,
/// for its devices know it; its key is sealed, and a plain server key replaced.
fn seal_plain(path: &Path, keks: &KekRing) -> anyhow::Result<()> {
    let plain = path.join(PLAIN_KEY_FILE);
    if !plain.exists() {
        return Ok(());
    }
    let key = SecretText::new(read_text(&plain)?);
    let certificate = read_text(&path.join(ANCHORS_FILE))?;
    let authority = Authority::load(&certificate, key.expose())?;
    let sealing = SealingKey::generate();
    let file = key_file(authority.id_hex());
    write_whole(&path.join(SEALING_FILE), &sealing.to_text(keks.current()))?;
    write_whole(&path.join(&file), &sealing.seal(&file, &key))?;
    write_whole(&path.join(ISSUING_FILE), &certificate)?;
    remove_file(&plain)?;
    let server = path.join(SERVER_KEY_FILE);
    if server.exists() {
        remove_file(&server)?;
    }
    tracing::info!(directory = %path.display(), "the key of the authority lay there plain and is sealed now");
    Ok(())
}

/// Wraps the key of the directory with another key-encryption key: at a turn of it, before the old one is destroyed.
/// Nothing where there is no authority, or it is wrapped with that one already.
///
/// # Errors
/// When the key-encryption keys do not open it, or it cannot be written.
pub fn rewrap(path: &Path, keks: &KekRing, to: &trust::Kek) -> anyhow::Result<()> {
    let file = path.join(SEALING_FILE);
    if !file.exists() {
        return Ok(());
    }
    let sealing = SealingKey::from_text(&read_text(&file)?, keks)
        .with_context(|| format!("{} cannot be turned over", file.display()))?;
    write_whole(&file, &sealing.to_text(to))
}

/// The certificates of a PEM text, as PEM one by one.
pub(super) fn each_pem(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let parts = text.split_inclusive(END).filter(|part| part.contains(END));
    parts
        .filter_map(|part| part.find("-----BEGIN CERTIFICATE-----").map(|at| format!("{}\n", &part[at..])))
        .filter(|pem| !certificates_of(pem).is_empty())
        .collect()
}
