//! One authority for all nodes over one database: its certificate and key lie there, sealed, and every node gets them at
//! its start; what is issued or revoked on one node is known, or revoked, on all.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use clinical_model::Timestamp;
use pipeline::records::{json_from, json_write};
use serde::{Deserialize, Serialize};
use store::{
    DocumentQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order, Store, TransactError,
    Transaction,
};
use tokio::sync::Notify;
use trust::pki::{NameLimits, RevokedSerials, SealedError};
use trust::{KekRing, SecretText};

use super::directory::PkiDirectory;
use super::tiers::{Drawn, Tiers, draw};
use super::{IssuedLine, ProgramLine};
use crate::pki;

/// The setting that holds the authority.
const AUTHORITY: [u8; 16] = *b"pki.authority...";
/// The setting that holds what was revoked.
const REVOKED: [u8; 16] = *b"pki.revoked.....";
/// How the ids of settings begin that are one issued certificate each.
const ISSUED: &[u8; 8] = b"pki.iss.";
/// How the ids of settings begin that are one registration of a program each.
const PROGRAM: &[u8; 8] = b"pki.prg.";
/// The indexes of those settings.
const ISSUED_INDEX: &str = "issued";
const PROGRAM_INDEX: &str = "program";
/// Issued certificates read or written at once.
const ISSUED_PAGE: usize = 500;
/// Times that a setting is read again because another node was faster.
const LIMIT_TRIES: usize = 8;

/// The authority that all nodes share. The root's key is not in it: it stays where it was made, until it is taken away.
#[derive(Serialize, Deserialize)]
struct Authority {
    /// The anchors.
    certificate_pem: String,
    /// The key, where earlier releases kept one of one tier.
    #[serde(default)]
    key_pem: String,
    #[serde(default)]
    issuing_pem: String,
    #[serde(default)]
    retired: String,
    /// File name and key of each issuing certificate.
    #[serde(default)]
    keys: Vec<(String, String)>,
}

impl Authority {
    fn of(tiers: &Tiers, keys: &[(String, SecretText)]) -> Self {
        Authority {
            certificate_pem: tiers.anchors_pem.clone(),
            key_pem: String::new(),
            issuing_pem: tiers.issuing_pem(),
            retired: tiers.retired_text(),
            keys: keys.iter().map(|(file, key)| (file.clone(), key.expose().to_owned())).collect(),
        }
    }

    fn tiers(&self) -> anyhow::Result<Tiers> {
        let issuing = if self.issuing_pem.is_empty() { &self.certificate_pem } else { &self.issuing_pem };
        Tiers::parse(self.certificate_pem.clone(), issuing, &self.retired)
            .context("the authority in the database is damaged")
    }

    fn keys(&self, tiers: &Tiers) -> Vec<(String, SecretText)> {
        let one_tier = tiers.issuing.first().filter(|_| !self.key_pem.is_empty());
        let one_tier = one_tier.map(|tier| (super::directory::key_file(&tier.id), self.key_pem.clone()));
        let all = self.keys.iter().cloned().chain(one_tier);
        all.map(|(file, key)| (file, SecretText::new(key))).collect()
    }
}

#[derive(Serialize, Deserialize)]
struct Revoked {
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Issued {
    line: String,
}

/// Opens this node's copy of the shared authority; makes both at the first start of the first node. Of two that differ
/// in their issuing key the later one counts, on all nodes. Blocks.
///
/// # Errors
/// When this node's directory holds another authority than the database, or one of them cannot be used.
pub fn settle(
    store: &dyn Store,
    directory: &Path,
    site: &str,
    keks: &KekRing,
) -> anyhow::Result<PkiDirectory> {
    for _ in 0..LIMIT_TRIES {
        let shared = read::<Authority>(store, AUTHORITY)?;
        let (expected, made, root) = match &shared {
            Some((shared, version)) => {
                let here = adopt(shared, directory, keks)?;
                if here.tiers().generation() <= shared.tiers()?.generation() {
                    return Ok(here);
                }
                // This node's issuing key was turned over.
                (Expected::Version(*version), Authority::of(here.tiers(), &here.issuing_keys()?), None)
            }
            None if PkiDirectory::exists(directory) => {
                let here = PkiDirectory::open(directory, keks)?;
                (Expected::Absent, Authority::of(here.tiers(), &here.issuing_keys()?), None)
            }
            None => {
                let Drawn { tiers, issuing_key, root_key } = draw(site, &NameLimits::default())?;
                let made = Authority::of(&tiers, &[issuing_key]);
                (Expected::Absent, made, Some(root_key))
            }
        };
        match write(store, AUTHORITY, expected, &made) {
            Ok(()) => {
                if let Some(root_key) = root {
                    put(&made, Some(root_key), directory, keks)?;
                }
            }
            Err(TransactError::Conflict { .. }) => {}
            Err(error) => return Err(error).context("the authority cannot be kept in the database"),
        }
    }
    bail!("the authority in the database cannot be read back after it was written")
}

fn put(
    shared: &Authority,
    root_key: Option<SecretText>,
    directory: &Path,
    keks: &KekRing,
) -> anyhow::Result<PkiDirectory> {
    let tiers = shared.tiers()?;
    let mut keys = shared.keys(&tiers);
    keys.extend(root_key.map(|key| (super::directory::ROOT_KEY_FILE.to_owned(), key)));
    PkiDirectory::put(directory, &tiers, &keys, keks)
}

fn adopt(shared: &Authority, directory: &Path, keks: &KekRing) -> anyhow::Result<PkiDirectory> {
    if !PkiDirectory::exists(directory) {
        return put(shared, None, directory, keks);
    }
    let here = PkiDirectory::look(directory)?;
    if here.certificate_pem().trim() != shared.certificate_pem.trim() {
        bail!(
            "{} holds another authority than the database: devices that trust one do not trust the other. Move this \
             directory away to use the one of the database",
            directory.display()
        );
    }
    let here = match PkiDirectory::open(directory, keks) {
        Err(error) if is_of_another_key(&error) => return fetch_again(shared, directory, keks, &error),
        opened => opened?,
    };
    let tiers = shared.tiers()?;
    if here.tiers().generation() < tiers.generation() {
        here.take_over(&tiers, &shared.keys(&tiers))?;
        return PkiDirectory::open(directory, keks);
    }
    Ok(here)
}

/// Whether a directory is sealed by a key-encryption key that is not to be had.
fn is_of_another_key(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(SealedError::Kek { .. })))
}

/// Puts a copy that no key opens aside and fetches the authority from the database, as at a first start: this node was
/// away while the key-encryption key turned over. What was revoked or issued here meanwhile is taken along.
fn fetch_again(
    shared: &Authority,
    directory: &Path,
    keks: &KekRing,
    why: &anyhow::Error,
) -> anyhow::Result<PkiDirectory> {
    let mut aside = directory.as_os_str().to_owned();
    aside.push(format!(".unreadable-{}", pki::timestamp(SystemTime::now()).as_micros()));
    let aside = PathBuf::from(aside);
    tracing::warn!(
        aside = %aside.display(),
        "this node's copy of the authority is sealed by an earlier key-encryption key; it is put aside and fetched from \
         the database: {why:#}"
    );
    std::fs::rename(directory, &aside)
        .with_context(|| format!("{} cannot be put aside as {}", directory.display(), aside.display()))?;
    put(shared, None, directory, keks)?;
    let old = PkiDirectory::look(&aside)?;
    let new = PkiDirectory::open(directory, keks)?;
    let lists = [
        (old.revoked_file(), new.revoked_file()),
        (old.issued_file(), new.issued_file()),
        (old.programs_file(), new.programs_file()),
    ];
    for (from, to) in lists.iter().filter(|(from, _)| from.exists()) {
        std::fs::copy(from, to).with_context(|| format!("{} cannot be taken along", from.display()))?;
    }
    Ok(new)
}

fn read<T: serde::de::DeserializeOwned>(store: &dyn Store, id: [u8; 16]) -> anyhow::Result<Option<(T, u64)>> {
    let document = store.document(Kind::Setting, id).context("a setting cannot be read from the store")?;
    document
        .map(|document| Ok((json_from(&document.body).context("a setting is damaged")?, document.version)))
        .transpose()
}

fn write(
    store: &dyn Store,
    id: [u8; 16],
    expected: Expected,
    value: &impl Serialize,
) -> Result<(), TransactError> {
    let write = json_write(Kind::Setting, id, expected, KeyDomain::System, value, Vec::new());
    let at: Timestamp = pki::timestamp(SystemTime::now());
    store.transact(&Transaction { at, writes: vec![write], ..Transaction::default() })
}

/// Whether a setting is of the authority: its keys, what it issued or revoked, and its programs.
pub fn is_of_certificates(id: [u8; 16]) -> bool {
    id == REVOKED || id == AUTHORITY || id.starts_with(ISSUED) || id.starts_with(PROGRAM)
}

fn line_id(prefix: [u8; 8], line: &str) -> [u8; 16] {
    let digest = trust::digest::sha256(&[b"issued", line.as_bytes()]);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&prefix);
    id[8..].copy_from_slice(&digest[..8]);
    id
}

/// All lines under an index.
fn lines_in(store: &dyn Store, index: &'static str) -> anyhow::Result<Vec<String>> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let query = DocumentQuery {
            kind: Kind::Setting,
            index,
            prefix: Vec::new(),
            after: after.take(),
            order: Order::Ascending,
            limit: ISSUED_PAGE,
        };
        let page =
            store.documents(&query).context("a list of the authority cannot be read from the store")?;
        for document in &page {
            let issued: Issued = json_from(&document.body)
                .context("a line of the authority's lists in the store is damaged")?;
            found.push(issued.line);
        }
        match page.last() {
            Some(last) if page.len() == ISSUED_PAGE => after = Some((last.index_value.clone(), last.id)),
            _ => return Ok(found),
        }
    }
}

/// Keeps lines, each once: the id is what tells one from another.
fn keep_lines(store: &dyn Store, index: &'static str, lines: &[([u8; 16], String)]) -> anyhow::Result<()> {
    let write = |(id, line): &([u8; 16], String)| {
        let index = IndexEntry { name: index, value: Vec::new(), unique: false };
        let issued = Issued { line: line.clone() };
        json_write(Kind::Setting, *id, Expected::Any, KeyDomain::System, &issued, vec![index])
    };
    let writes: Vec<DocumentWrite> = lines.iter().map(write).collect();
    for writes in writes.chunks(ISSUED_PAGE) {
        let at = pki::timestamp(SystemTime::now());
        let transaction = Transaction { at, writes: writes.to_vec(), ..Transaction::default() };
        store.transact(&transaction).context("what was issued here cannot be told to the other nodes")?;
    }
    Ok(())
}

/// Makes what was issued to devices and programs here known to the other nodes, and the other way round, so that each
/// node can revoke it. Blocks.
///
/// # Errors
/// When a list cannot be read or written.
pub fn issued_everywhere(store: &dyn Store, file: &Path) -> anyhow::Result<()> {
    let here = pki::read_issued(file)?;
    let shared = lines_in(store, ISSUED_INDEX)?;
    let shared = shared.iter().map(|line| pki::parse_issued(line)).collect::<anyhow::Result<Vec<_>>>()?;
    let serials = |lines: &[IssuedLine]| -> HashSet<String> {
        lines.iter().map(|line| line.serial_hex.clone()).collect()
    };
    let (known_here, known_there) = (serials(&here), serials(&shared));
    let is_new = |line: &&IssuedLine| !line.is_of_server() && !known_there.contains(&line.serial_hex);
    let new = here.iter().filter(is_new);
    let new: Vec<_> = new.map(|line| (line_id(*ISSUED, &line.serial_hex), line.to_string())).collect();
    keep_lines(store, ISSUED_INDEX, &new)?;
    let lacking: Vec<IssuedLine> =
        shared.into_iter().filter(|line| !known_here.contains(&line.serial_hex)).collect();
    if lacking.is_empty() { Ok(()) } else { pki::append_issued(file, &lacking) }
}

/// As [`issued_everywhere`], for the registrations of programs. Blocks.
///
/// # Errors
/// When a list cannot be read or written.
pub fn programs_everywhere(store: &dyn Store, file: &Path) -> anyhow::Result<()> {
    let here: Vec<ProgramLine> = pki::read_programs(file)?.into_values().collect();
    let shared = lines_in(store, PROGRAM_INDEX)?;
    let text = |line: &ProgramLine| line.to_string();
    let known_here: HashSet<String> = here.iter().map(text).collect();
    let new = here.iter().map(text).filter(|line| !shared.contains(line));
    let new: Vec<_> = new.map(|line| (line_id(*PROGRAM, &line), line)).collect();
    keep_lines(store, PROGRAM_INDEX, &new)?;
    let known = pki::read_programs(file)?;
    let is_newer = |line: &ProgramLine| known.get(&line.name).is_none_or(|own| own.at < line.at);
    let mut lacking = Vec::new();
    for line in shared.iter().filter(|line| !known_here.contains(*line)) {
        lacking.extend(Some(pki::parse_program(line)?).filter(is_newer));
    }
    if lacking.is_empty() { Ok(()) } else { pki::append_programs(file, &lacking) }
}

/// What was revoked here or on any other node; what one of the two lists lacks is added to it. Blocks.
///
/// # Errors
/// When a list cannot be read or written: the earlier one stays in force then.
pub fn revoked_everywhere(store: &dyn Store, file: &Path) -> anyhow::Result<RevokedSerials> {
    for _ in 0..LIMIT_TRIES {
        let here = pki::read_revoked(file)?;
        let shared = read::<Revoked>(store, REVOKED)?;
        let version = shared.as_ref().map(|(_, version)| *version);
        let shared = match &shared {
            Some((revoked, _)) => RevokedSerials::parse(&revoked.text)
                .context("the shared list of revoked certificates is damaged")?,
            None => RevokedSerials::default(),
        };
        let mut all = RevokedSerials::parse(&shared.to_string()).context("the list cannot be read back")?;
        for (serial, revocation) in here.iter() {
            all.insert(serial, revocation.revoked_at, &revocation.reason)?;
        }
        if shared.len() < all.len() {
            let expected = version.map_or(Expected::Absent, Expected::Version);
            match write(store, REVOKED, expected, &Revoked { text: all.to_string() }) {
                Ok(()) => {}
                Err(TransactError::Conflict { .. }) => continue,
                Err(error) => {
                    return Err(error).context("what was revoked here cannot be told to the other nodes");
                }
            }
        }
        if here.len() < all.len() {
            pki::write_revoked(file, &all)?;
        }
        return Ok(all);
    }
    bail!("other nodes go on revoking certificates; this is tried again")
}

/// The list of revoked certificates as this node knows it: of its file, or of its file and the database.
pub struct RevokedLists {
    /// The file.
    pub file: PathBuf,
    /// The file of issued certificates.
    pub issued: PathBuf,
    /// The file of registered programs.
    pub programs: PathBuf,
    /// The file of issuing certificates.
    pub issuing: PathBuf,
    /// The store, where several nodes share it.
    pub shared: Option<Arc<dyn Store>>,
    /// Rung when another node has revoked or issued one.
    pub bell: Arc<Notify>,
}

impl RevokedLists {
    /// All that is revoked now. Blocks.
    ///
    /// # Errors
    /// As [`revoked_everywhere`].
    pub fn read(&self) -> anyhow::Result<RevokedSerials> {
        match &self.shared {
            None => pki::read_revoked(&self.file),
            Some(store) => {
                let revoked = revoked_everywhere(store.as_ref(), &self.file)?;
                // Who was issued what only serves people; what is revoked is in force whatever comes of it.
                let listed = issued_everywhere(store.as_ref(), &self.issued)
                    .and_then(|()| programs_everywhere(store.as_ref(), &self.programs));
                if let Err(error) = listed {
                    tracing::warn!(
                        "{error:#}; certificates or programs of other nodes may be missing in the lists"
                    );
                }
                Ok(revoked)
            }
        }
    }

    /// When the files were last changed, and how long they are; `None` while one is not there.
    pub fn look(&self) -> Option<[(SystemTime, u64); 4]> {
        let of = |path: &Path| -> Option<(SystemTime, u64)> {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        let none = (SystemTime::UNIX_EPOCH, 0);
        // What was issued concerns nobody but other nodes.
        let issued = self.shared.as_ref().map_or(Some(none), |_| of(&self.issued));
        Some([
            of(&self.file)?,
            issued?,
            of(&self.programs).unwrap_or(none),
            of(&self.issuing).unwrap_or(none),
        ])
    }
}

/// Puts the shared authority, where there is one, into a directory that has none: for a site that leaves its database.
///
/// # Errors
/// When it cannot be read or written.
pub fn put_into(store: &dyn Store, directory: &Path, keks: &KekRing) -> anyhow::Result<()> {
    if let Some((shared, _)) = read::<Authority>(store, AUTHORITY)?
        && !PkiDirectory::exists(directory)
    {
        adopt(&shared, directory, keks)?;
        revoked_everywhere(store, &directory.join("revoked.txt"))?;
        issued_everywhere(store, &directory.join("issued.txt"))?;
        programs_everywhere(store, &directory.join("programs.txt"))?;
    }
    Ok(())
}
