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
use trust::pki::RevokedSerials;

use crate::pki::{self, IssuedLine, PkiDirectory};

/// The setting that holds the authority.
const AUTHORITY: [u8; 16] = *b"pki.authority...";
/// The setting that holds what was revoked.
const REVOKED: [u8; 16] = *b"pki.revoked.....";
/// How the ids of settings begin that are one issued certificate each.
const ISSUED: &[u8; 8] = b"pki.iss.";
/// The index of those settings.
const ISSUED_INDEX: &str = "issued";
/// Issued certificates read or written at once.
const ISSUED_PAGE: usize = 500;
/// Times that a setting is read again because another node was faster.
const LIMIT_TRIES: usize = 8;

#[derive(Serialize, Deserialize)]
struct Authority {
    certificate_pem: String,
    key_pem: String,
}

#[derive(Serialize, Deserialize)]
struct Revoked {
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Issued {
    line: String,
}

/// Opens this node's copy of the shared authority; makes both at the first start of the first node. Blocks.
///
/// # Errors
/// When this node's directory holds another authority than the database, or one of them cannot be used.
pub fn settle(store: &dyn Store, directory: &Path, site: &str) -> anyhow::Result<PkiDirectory> {
    for _ in 0..LIMIT_TRIES {
        if let Some((shared, _)) = read::<Authority>(store, AUTHORITY)? {
            return adopt(&shared, directory);
        }
        let made = if PkiDirectory::exists(directory) {
            let (certificate_pem, key_pem) = PkiDirectory::open(directory)?.pem()?;
            Authority { certificate_pem, key_pem: key_pem.expose().to_owned() }
        } else {
            let made = PkiDirectory::draw(site)?;
            Authority { certificate_pem: made.certificate_pem, key_pem: made.key_pem.expose().to_owned() }
        };
        match write(store, AUTHORITY, Expected::Absent, &made) {
            Ok(()) | Err(TransactError::Conflict { .. }) => {}
            Err(error) => return Err(error).context("the authority cannot be kept in the database"),
        }
    }
    bail!("the authority in the database cannot be read back after it was written")
}

fn adopt(shared: &Authority, directory: &Path) -> anyhow::Result<PkiDirectory> {
    if !PkiDirectory::exists(directory) {
        let key = trust::SecretText::new(shared.key_pem.clone());
        return PkiDirectory::put(directory, &shared.certificate_pem, &key);
    }
    let here = PkiDirectory::open(directory)?;
    if here.certificate_pem().trim() != shared.certificate_pem.trim() {
        bail!(
            "{} holds another authority than the database: devices that trust one do not trust the other. Move this \
             directory away to use the one of the database",
            directory.display()
        );
    }
    Ok(here)
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

/// Whether a setting is the list of revoked certificates, or one that was issued.
pub fn is_of_certificates(id: [u8; 16]) -> bool {
    id == REVOKED || id.starts_with(ISSUED)
}

fn issued_id(serial: &str) -> [u8; 16] {
    let digest = trust::digest::sha256(&[b"issued", serial.as_bytes()]);
    let mut id = [0; 16];
    id[..8].copy_from_slice(ISSUED);
    id[8..].copy_from_slice(&digest[..8]);
    id
}

fn issued_in(store: &dyn Store) -> anyhow::Result<Vec<IssuedLine>> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let query = DocumentQuery {
            kind: Kind::Setting,
            index: ISSUED_INDEX,
            prefix: Vec::new(),
            after: after.take(),
            order: Order::Ascending,
            limit: ISSUED_PAGE,
        };
        let page = store.documents(&query).context("what was issued cannot be read from the store")?;
        for document in &page {
            let issued: Issued =
                json_from(&document.body).context("an issued certificate in the store is damaged")?;
            found.push(pki::parse_issued(&issued.line)?);
        }
        match page.last() {
            Some(last) if page.len() == ISSUED_PAGE => after = Some((last.index_value.clone(), last.id)),
            _ => return Ok(found),
        }
    }
}

fn issued_write(line: &IssuedLine) -> DocumentWrite {
    let index = IndexEntry { name: ISSUED_INDEX, value: Vec::new(), unique: false };
    let issued = Issued { line: line.to_string() };
    let id = issued_id(&line.serial_hex);
    json_write(Kind::Setting, id, Expected::Any, KeyDomain::System, &issued, vec![index])
}

/// Makes what was issued to devices and programs here known to the other nodes, and the other way round, so that each
/// node can revoke it. Blocks.
///
/// # Errors
/// When a list cannot be read or written.
pub fn issued_everywhere(store: &dyn Store, file: &Path) -> anyhow::Result<()> {
    let (here, shared) = (pki::read_issued(file)?, issued_in(store)?);
    let serials = |lines: &[IssuedLine]| -> HashSet<String> {
        lines.iter().map(|line| line.serial_hex.clone()).collect()
    };
    let (known_here, known_there) = (serials(&here), serials(&shared));
    let is_new = |line: &&IssuedLine| !line.is_of_server() && !known_there.contains(&line.serial_hex);
    let new: Vec<DocumentWrite> = here.iter().filter(is_new).map(issued_write).collect();
    for writes in new.chunks(ISSUED_PAGE) {
        let at = pki::timestamp(SystemTime::now());
        let transaction = Transaction { at, writes: writes.to_vec(), ..Transaction::default() };
        store.transact(&transaction).context("what was issued here cannot be told to the other nodes")?;
    }
    let lacking: Vec<IssuedLine> =
        shared.into_iter().filter(|line| !known_here.contains(&line.serial_hex)).collect();
    if lacking.is_empty() { Ok(()) } else { pki::append_issued(file, &lacking) }
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
                if let Err(error) = issued_everywhere(store.as_ref(), &self.issued) {
                    tracing::warn!("{error:#}; certificates of other nodes may be missing in the list");
                }
                Ok(revoked)
            }
        }
    }

    /// When the files were last changed, and how long they are; `None` while one is not there.
    pub fn look(&self) -> Option<[(SystemTime, u64); 2]> {
        let of = |path: &Path| -> Option<(SystemTime, u64)> {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        // What was issued concerns nobody but other nodes.
        let issued = self.shared.as_ref().map_or(Some((SystemTime::UNIX_EPOCH, 0)), |_| of(&self.issued));
        Some([of(&self.file)?, issued?])
    }
}

/// Puts the shared authority, where there is one, into a directory that has none: for a site that leaves its database.
///
/// # Errors
/// When it cannot be read or written.
pub fn put_into(store: &dyn Store, directory: &Path) -> anyhow::Result<()> {
    if let Some((shared, _)) = read::<Authority>(store, AUTHORITY)?
        && !PkiDirectory::exists(directory)
    {
        adopt(&shared, directory)?;
        revoked_everywhere(store, &directory.join("revoked.txt"))?;
        issued_everywhere(store, &directory.join("issued.txt"))?;
    }
    Ok(())
}
