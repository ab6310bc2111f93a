//! The two tiers: making root and issuing key, turning the issuing key over, and taking the root's key away.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use clinical_model::Timestamp;
use trust::pki::{
    Authority, AuthorityPem, MAX_COMMON_NAME_CHARS, NameLimits, certificates_of, fingerprint_hex,
    is_plain_key, is_signed_by, is_under_passphrase, open_with_passphrase, seal_with_passphrase,
};
use trust::{KekRing, SecretText};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::directory::{
    ANCHORS_FILE, ISSUING_FILE, PkiDirectory, RETIRED_FILE, ROOT_KEY_FILE, each_pem, key_file,
};
use super::lists::{read_text, remove_file, write_whole};
use super::{ISSUING_YEARS, ROOT_YEARS, timestamp};
use crate::keys;

/// The name under which a root's key is sealed in a file that an operator carries.
const ROOT_NAME: &str = "auscult root";
/// The mode of such a file.
const ROOT_MODE: u32 = 0o400;

/// Where a new root's key goes.
#[derive(Clone, Debug)]
pub enum RootHome {
    /// Into the directory, sealed, until the operator takes it away.
    Here,
    /// Into a file of the operator, under a passphrase where there is one.
    File(PathBuf, Option<SecretText>),
}

/// Where the root's key comes from.
#[derive(Clone, Debug)]
pub enum RootSource {
    /// The directory.
    Here,
    /// A file of the operator, with its passphrase where it has one.
    File(PathBuf, Option<SecretText>),
}

/// An issuing certificate that is, or was, believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IssuingTier {
    pub id: String,
    pub name: String,
    pub pem: String,
    pub not_after: Timestamp,
    /// Set once another took its place.
    pub believed_until: Option<Timestamp>,
}

impl IssuingTier {
    pub fn is_believed(&self, now: Timestamp) -> bool {
        now <= self.not_after && self.believed_until.is_none_or(|until| now <= until)
    }
}

/// The certificates of both tiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tiers {
    pub anchors_pem: String,
    /// The present one first.
    pub issuing: Vec<IssuingTier>,
}

impl Tiers {
    /// From a directory. One of an earlier release has one tier: its anchor issues.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let anchors_pem = read_text(&path.join(ANCHORS_FILE))?;
        let issuing = path.join(ISSUING_FILE);
        let issuing = if issuing.exists() { read_text(&issuing)? } else { anchors_pem.clone() };
        let retired = path.join(RETIRED_FILE);
        let retired = if retired.exists() { read_text(&retired)? } else { String::new() };
        Self::parse(anchors_pem, &issuing, &retired)
    }

    pub fn parse(anchors_pem: String, issuing_pem: &str, retired: &str) -> anyhow::Result<Self> {
        if certificates_of(&anchors_pem).is_empty() {
            bail!("{ANCHORS_FILE} holds no certificate");
        }
        let mut issuing = Vec::new();
        for pem in each_pem(issuing_pem) {
            let mut tier = tier_of(pem)?;
            let line = retired.lines().find_map(|line| line.strip_prefix(&format!("{} ", tier.id)));
            tier.believed_until = line.map(str::parse).transpose().context("a line of retired.txt")?;
            issuing.push(tier);
        }
        if issuing.is_empty() {
            bail!("{ISSUING_FILE} holds no certificate");
        }
        Ok(Tiers { anchors_pem, issuing })
    }

    pub fn issuing_pem(&self) -> String {
        self.issuing.iter().map(|one| one.pem.as_str()).collect()
    }

    pub fn retired_text(&self) -> String {
        let until = |one: &IssuingTier| one.believed_until.map(|until| format!("{} {until}\n", one.id));
        self.issuing.iter().filter_map(until).collect()
    }

    /// What tells when the present issuing key was made.
    pub fn generation(&self) -> Option<Timestamp> {
        let pem = &self.issuing.first()?.pem;
        let der = certificates_of(pem).into_iter().next()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        Some(Timestamp::from_seconds(certificate.validity().not_before.timestamp()))
    }

    /// Writes what belongs to the issuing keys; the certificates last, for they say which keys there are.
    pub fn write_issuing(&self, path: &Path) -> anyhow::Result<()> {
        let retired = self.retired_text();
        if !retired.is_empty() || path.join(RETIRED_FILE).exists() {
            write_whole(&path.join(RETIRED_FILE), &retired)?;
        }
        write_whole(&path.join(ISSUING_FILE), &self.issuing_pem())
    }

    /// SHA-256 and last instant of the first anchor.
    pub fn anchor(&self) -> (String, Timestamp) {
        let Some(der) = certificates_of(&self.anchors_pem).into_iter().next() else {
            return (String::new(), Timestamp::from_seconds(0));
        };
        let ends =
            X509Certificate::from_der(&der).map_or(0, |(_, found)| found.validity().not_after.timestamp());
        (fingerprint_hex(&der), Timestamp::from_seconds(ends))
    }
}

fn tier_of(pem: String) -> anyhow::Result<IssuingTier> {
    let der = certificates_of(&pem).into_iter().next().context("a certificate cannot be read")?;
    let (_, certificate) = X509Certificate::from_der(&der).context("a certificate cannot be read")?;
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let id = fingerprint_hex(certificate.public_key().raw)[..trust::pki::ID_DIGITS].to_owned();
    let not_after = Timestamp::from_seconds(certificate.validity().not_after.timestamp());
    Ok(IssuingTier { id, name: name.unwrap_or_default().to_owned(), not_after, believed_until: None, pem })
}

/// A new authority, not yet in any directory: the tiers, the issuing key and the root's.
pub(super) struct Drawn {
    pub tiers: Tiers,
    pub issuing_key: (String, SecretText),
    pub root_key: SecretText,
}

pub(super) fn draw(site: &str, limits: &NameLimits) -> anyhow::Result<Drawn> {
    let now = SystemTime::now();
    let named = |what: &str| format!("{site} {what}").chars().take(MAX_COMMON_NAME_CHARS).collect::<String>();
    let name = named("root");
    let root = Authority::create_root(&name, now, ROOT_YEARS)
        .with_context(|| format!("the authority \"{name}\" cannot be made"))?;
    let authority = Authority::load(&root.certificate_pem, root.key_pem.expose())?;
    let (tier, key) = draw_issuing(&authority, &named("issuing"), limits)?;
    Ok(Drawn {
        issuing_key: (key_file(&tier.id), key),
        tiers: Tiers { anchors_pem: root.certificate_pem, issuing: vec![tier] },
        root_key: root.key_pem,
    })
}

fn draw_issuing(
    root: &Authority,
    name: &str,
    limits: &NameLimits,
) -> anyhow::Result<(IssuingTier, SecretText)> {
    let AuthorityPem { certificate_pem, key_pem } = root
        .create_issuing(name, SystemTime::now(), ISSUING_YEARS, limits)
        .context("the issuing key cannot be made")?;
    Ok((tier_of(certificate_pem)?, key_pem))
}

impl PkiDirectory {
    /// Makes a new authority in a directory that has none.
    ///
    /// # Errors
    /// When there is one already, or the directory or the file of the root's key cannot be written.
    pub fn init(
        path: &Path,
        site: &str,
        keks: &KekRing,
        root: &RootHome,
        limits: &NameLimits,
    ) -> anyhow::Result<Self> {
        let Drawn { tiers, issuing_key, root_key } = draw(site, limits)?;
        let mut keys = vec![issuing_key];
        match root {
            RootHome::Here => keys.push((ROOT_KEY_FILE.to_owned(), root_key)),
            RootHome::File(file, passphrase) => carry_out(file, &root_key, passphrase.as_ref())?,
        }
        Self::put(path, &tiers, &keys, keks)
    }

    /// Opens the authority, or makes it at the first start.
    ///
    /// # Errors
    /// As [`PkiDirectory::open`] and [`PkiDirectory::init`].
    pub fn open_or_init(path: &Path, site: &str, keks: &KekRing) -> anyhow::Result<Self> {
        if Self::exists(path) {
            return Self::open(path, keks);
        }
        Self::init(path, site, keks, &RootHome::Here, &NameLimits::default())
    }

    /// Whether the root's key lies in the directory.
    pub fn is_root_key_here(&self) -> bool {
        self.path.join(ROOT_KEY_FILE).exists()
    }

    /// Moves the root's key out of the directory into a file of the operator.
    ///
    /// # Errors
    /// When it is not here, or the file exists or cannot be written.
    pub fn take_root(&self, file: &Path, passphrase: Option<&SecretText>) -> anyhow::Result<()> {
        let here = self.path.join(ROOT_KEY_FILE);
        if !here.exists() {
            bail!("the root's key is not in {}; it was taken away already", self.path.display());
        }
        let key = self.sealing()?.open(ROOT_KEY_FILE, &read_text(&here)?)?;
        carry_out(file, &key, passphrase)?;
        remove_file(&here)
    }

    /// Makes the next issuing key under the root. The present one is believed until everything that was issued so far has
    /// ended, and its list of revocations goes on.
    ///
    /// # Errors
    /// When the authority has one tier, the root's key is missing or another's, or a file cannot be written.
    pub fn rotate(&mut self, source: &RootSource, limits: &NameLimits, keks: &KekRing) -> anyhow::Result<()> {
        let Some(present) = self.tiers.issuing.first() else { bail!("there is no issuing key") };
        if present.pem.trim() == each_pem(&self.tiers.anchors_pem).first().map_or("", |pem| pem.trim()) {
            bail!(
                "this authority is of an earlier release and has one tier: devices know its key itself, so that \
                 no other can take its place. Make a new one with `auscult pki init` and claim the devices anew"
            );
        }
        let root = self.root(source)?;
        let site = present.name.strip_suffix(" issuing").unwrap_or(&present.name).to_owned();
        let name: String = format!("{site} issuing").chars().take(MAX_COMMON_NAME_CHARS).collect();
        let (tier, key) = draw_issuing(&root, &name, limits)?;
        let now = timestamp(SystemTime::now());
        let ends = self.issued()?.into_iter().map(|line| line.not_after).max().unwrap_or(now);
        let until = ends.plus(pipeline::enrolment::LATE_AFTER);
        let file = key_file(&tier.id);
        write_whole(&self.path.join(&file), &self.sealing()?.seal(&file, &key))?;
        let mut tiers = self.tiers.clone();
        if let Some(present) = tiers.issuing.first_mut() {
            present.believed_until = Some(until);
        }
        tiers.issuing.insert(0, tier);
        tiers.write_issuing(&self.path)?;
        *self = Self::open(&self.path, keks)?;
        Ok(())
    }

    fn root(&self, source: &RootSource) -> anyhow::Result<Authority> {
        let key = match source {
            RootSource::Here => {
                let here = self.path.join(ROOT_KEY_FILE);
                if !here.exists() {
                    bail!("the root's key was taken away; name its file with --root-key");
                }
                self.sealing()?.open(ROOT_KEY_FILE, &read_text(&here)?)?
            }
            RootSource::File(file, passphrase) => bring_back(file, passphrase.as_ref())?,
        };
        let anchor = each_pem(&self.tiers.anchors_pem).into_iter().next().unwrap_or_default();
        let root =
            Authority::load(&anchor, key.expose()).context("this is not the key of this site's root")?;
        let present = self.tiers.issuing.first().map_or("", |one| one.pem.as_str());
        anyhow::ensure!(is_signed_by(present, &anchor), "the issuing key was not signed by this root");
        Ok(root)
    }

    /// The authority behind one of the issuing keys, for its list of revocations; `None` for an unknown id.
    ///
    /// # Errors
    /// When its key cannot be opened.
    pub(super) fn issuing_key(&self, id: &str) -> anyhow::Result<Option<Authority>> {
        let Some(tier) = self.tiers.issuing.iter().find(|one| one.id == id) else { return Ok(None) };
        let file = key_file(id);
        let key = self.sealing()?.open(&file, &read_text(&self.path.join(&file))?)?;
        Ok(Some(Authority::load(&tier.pem, key.expose())?))
    }

    /// The keys of all issuing certificates, for the other nodes.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub(super) fn issuing_keys(&self) -> anyhow::Result<Vec<(String, SecretText)>> {
        let open = |tier: &IssuingTier| {
            let file = key_file(&tier.id);
            let key = self.sealing()?.open(&file, &read_text(&self.path.join(&file))?)?;
            anyhow::Ok((file, key))
        };
        self.tiers.issuing.iter().map(open).collect()
    }

    /// Takes the tiers and keys of another node, which turned the issuing key over.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn take_over(&self, tiers: &Tiers, keys: &[(String, SecretText)]) -> anyhow::Result<()> {
        for (file, key) in keys {
            let path = self.path.join(file);
            if !path.exists() {
                write_whole(&path, &self.sealing()?.seal(file, key))?;
            }
        }
        tiers.write_issuing(&self.path)
    }
}

/// Writes the root's key for the operator: under a passphrase, or plain in a file that only its owner reads.
fn carry_out(file: &Path, key: &SecretText, passphrase: Option<&SecretText>) -> anyhow::Result<()> {
    let text = match passphrase {
        Some(passphrase) => seal_with_passphrase(ROOT_NAME, key, passphrase)?,
        None => key.expose().to_owned(),
    };
    keys::write_secret(file, &text, ROOT_MODE)
}

fn bring_back(file: &Path, passphrase: Option<&SecretText>) -> anyhow::Result<SecretText> {
    keys::check_mode(file, "file of the root's key")?;
    let text = SecretText::new(read_text(file)?);
    let shown = file.display();
    if is_plain_key(text.expose()) {
        return Ok(text);
    }
    if !is_under_passphrase(text.expose()) {
        bail!("{shown} holds no key of a root");
    }
    let passphrase = passphrase
        .with_context(|| format!("{shown} has a passphrase; name its file with --passphrase-file"))?;
    open_with_passphrase(ROOT_NAME, text.expose(), passphrase)
        .with_context(|| format!("{shown} cannot be opened"))
}
