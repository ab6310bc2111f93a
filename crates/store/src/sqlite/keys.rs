//! The key store: data keys wrapped by the key-encryption key, in a file of their own, and a bounded cache of them unwrapped.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use clinical_model::{PatientId, Timestamp};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use trust::envelope::{self, Aad};
use trust::keyring::{MAX_SEALS_PER_KEY, UnwrapError};
use trust::{Kek, Key, KeyId};

use super::connection::{lock, open_failure, open_file, read, readable, refuse_empty, writable};
use super::schema;
use crate::{KeyDomain, OpenError, StoreError};

/// Name of the file.
pub(super) const FILE: &str = "keystore.db";

/// Most unwrapped keys in memory; about one kilobyte each. Beyond it the cache begins anew.
const CACHED_KEYS_LIMIT: usize = 16_384;
/// A system key seals for so long: at 3,000 seals a second a week stays below [`MAX_SEALS_PER_KEY`].
const SYSTEM_KEY_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// A patient's key seals for so long: at 50 seals a second a year stays below [`MAX_SEALS_PER_KEY`].
const PATIENT_KEY_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// What a system key is for. One key never serves two purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// Series of devices and places.
    Series,
    /// Documents about no patient.
    Document,
    /// Audit rows about no patient.
    Audit,
    /// Quarantined items: nobody knows yet whom they are about.
    Quarantine,
    /// Summaries of groups.
    Summary,
    /// Raw frames that belong to no single patient.
    Frame,
    /// Journal rows; lives hours.
    Journal,
    /// Sealed identifiers; lives for ever.
    Identity,
    /// Blind indices; lives for ever.
    Blind,
}

/// Whose data a key seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Domain {
    Patient(PatientId),
    System(Purpose),
}

impl Domain {
    /// A patient's, or the purpose's where there is none.
    pub(super) fn of(patient: Option<PatientId>, purpose: Purpose) -> Self {
        patient.map_or(Domain::System(purpose), Domain::Patient)
    }

    pub(super) fn of_document(domain: KeyDomain) -> Self {
        match domain {
            KeyDomain::Patient(patient) => Domain::Patient(patient),
            KeyDomain::System => Domain::System(Purpose::Document),
        }
    }

    /// As bound into the wrapped key; part of the storage format.
    fn text(self) -> String {
        let purpose = match self {
            Domain::Patient(patient) => return format!("patient/{patient}"),
            Domain::System(Purpose::Series) => "series",
            Domain::System(Purpose::Document) => "document",
            Domain::System(Purpose::Audit) => "audit",
            Domain::System(Purpose::Quarantine) => "quarantine",
            Domain::System(Purpose::Summary) => "summary",
            Domain::System(Purpose::Frame) => "frame",
            Domain::System(Purpose::Journal) => "journal",
            Domain::System(Purpose::Identity) => "identity",
            Domain::System(Purpose::Blind) => "blind",
        };
        format!("system/{purpose}")
    }
}

/// A key with its name, ready to seal.
#[derive(Clone)]
pub(super) struct NamedKey {
    pub(super) id: KeyId,
    pub(super) key: Arc<Key>,
    created_at: Timestamp,
}

impl NamedKey {
    pub(super) fn seal(&self, place: Aad<'_>, plain: &[u8]) -> Vec<u8> {
        envelope::seal(&self.key, self.id, place, plain)
    }
}

/// The open key store.
pub(super) struct Keys {
    connection: Mutex<Connection>,
    kek: Kek,
    journal_key_life: Duration,
    by_id: RwLock<HashMap<KeyId, NamedKey>>,
    sealing: RwLock<HashMap<Domain, NamedKey>>,
}

impl Keys {
    /// Opens the key store in a directory, or creates it where `may_be_new`, and proves that the key-encryption
    /// key fits.
    pub(super) fn open(
        directory: &Path,
        kek: Kek,
        journal_key_life: Duration,
        may_be_new: bool,
    ) -> Result<Self, OpenError> {
        let path = directory.join(FILE);
        let mut connection = open_file(&path)?;
        refuse_empty(&connection, &path, may_be_new)?;
        let pragma = |name: &str, value: &str| {
            connection
                .pragma_update(None, name, value)
                .map_err(|e| open_failure(&path, "opening the key store", e))
        };
        pragma("journal_mode", "WAL")?;
        pragma("synchronous", "FULL")?;
        pragma("secure_delete", "ON")?;
        migrate(&mut connection, &path)?;
        let keys = Keys {
            connection: Mutex::new(connection),
            kek,
            journal_key_life,
            by_id: RwLock::default(),
            sealing: RwLock::default(),
        };
        keys.prove(&path)?;
        Ok(keys)
    }

    /// Empties the log; see [`super::log_check::settle`].
    pub(super) fn settle(&self, path: &Path) -> Result<(), OpenError> {
        super::log_check::settle(&lock(&self.connection), path)
    }

    /// Compares the fingerprint, or writes it into a new key store.
    fn prove(&self, path: &Path) -> Result<(), OpenError> {
        let given = self.kek.fingerprint_text();
        let failed = |error| open_failure(path, "reading the key store", error);
        match self.meta("kek").map_err(failed)? {
            Some(expected) if expected == given.as_bytes() => Ok(()),
            Some(expected) => Err(OpenError::WrongKey {
                given,
                expected: String::from_utf8_lossy(&expected).chars().take(64).collect(),
            }),
            None => {
                let connection = lock(&self.connection);
                let any: bool = connection
                    .query_row("SELECT EXISTS(SELECT 1 FROM data_key)", [], |row| row.get(0))
                    .map_err(failed)?;
                if any {
                    let what = "it holds keys but does not say by which key they are wrapped".to_owned();
                    return Err(OpenError::Damaged { path: path.to_owned(), what });
                }
                connection
                    .execute(
                        "INSERT INTO meta(name, value) VALUES('kek', ?1), ('store', ?2)",
                        params![given.as_bytes(), trust::random_bytes::<16>()],
                    )
                    .map(drop)
                    .map_err(failed)
            }
        }
    }

    pub(super) fn meta(&self, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
        lock(&self.connection)
            .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
            .optional()
    }

    pub(super) fn set_meta(&self, name: &str, value: &[u8]) -> rusqlite::Result<()> {
        lock(&self.connection)
            .execute("INSERT OR REPLACE INTO meta(name, value) VALUES(?1, ?2)", params![name, value])
            .map(drop)
    }

    /// The key that seals for a domain now; made, and on stable storage, before this returns.
    pub(super) fn sealing(&self, domain: Domain, at: Timestamp) -> Result<NamedKey, StoreError> {
        if let Some(named) = readable(&self.sealing).get(&domain)
            && self.still_seals(domain, named, at)
        {
            return Ok(named.clone());
        }
        let mut connection = lock(&self.connection);
        let named = match self.newest(&connection, domain)? {
            Some(named) if self.still_seals(domain, &named, at) => named,
            _ => self.create(&mut connection, domain, at)?,
        };
        let mut sealing = writable(&self.sealing);
        if sealing.len() >= CACHED_KEYS_LIMIT {
            sealing.clear();
        }
        sealing.insert(domain, named.clone());
        Ok(named)
    }

    /// The key of a domain, if it has one.
    pub(super) fn existing(&self, domain: Domain) -> Result<Option<NamedKey>, StoreError> {
        if let Some(named) = readable(&self.sealing).get(&domain) {
            return Ok(Some(named.clone()));
        }
        self.newest(&lock(&self.connection), domain)
    }

    fn still_seals(&self, domain: Domain, named: &NamedKey, at: Timestamp) -> bool {
        let life = match domain {
            Domain::System(Purpose::Identity | Purpose::Blind) => return true,
            Domain::System(Purpose::Journal) => self.journal_key_life,
            Domain::System(_) => SYSTEM_KEY_LIFE,
            Domain::Patient(_) => PATIENT_KEY_LIFE,
        };
        named.key.seals() < MAX_SEALS_PER_KEY / 2 && at.duration_since(named.created_at) < life
    }

    fn newest(&self, connection: &Connection, domain: Domain) -> Result<Option<NamedKey>, StoreError> {
        let doing = "reading the key store";
        let text = domain.text();
        let found: Option<(Vec<u8>, i64, Vec<u8>)> = connection
            .prepare_cached(
                "SELECT id, created_at, wrapped FROM data_key WHERE domain = ?1 ORDER BY number DESC LIMIT 1",
            )
            .map_err(read(doing))?
            .query_row([&text], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()
            .map_err(read(doing))?;
        found.map(|(id, created_at, wrapped)| self.unwrap(&text, &id, created_at, &wrapped)).transpose()
    }

    fn unwrap(
        &self,
        domain: &str,
        id: &[u8],
        created_at: i64,
        wrapped: &[u8],
    ) -> Result<NamedKey, StoreError> {
        let damaged = |how: String| StoreError::Damaged { what: format!("key of {domain} in {FILE}"), how };
        let id = KeyId(id.try_into().map_err(|_| damaged(format!("its id has {} bytes", id.len())))?);
        let key =
            self.kek.unwrap(domain, id, wrapped).map_err(|error: UnwrapError| damaged(error.to_string()))?;
        Ok(NamedKey { id, key: Arc::new(key), created_at: Timestamp::from_micros(created_at) })
    }

    fn create(
        &self,
        connection: &mut Connection,
        domain: Domain,
        at: Timestamp,
    ) -> Result<NamedKey, StoreError> {
        let named = NamedKey { id: KeyId::generate(), key: Arc::new(Key::generate()), created_at: at };
        let text = domain.text();
        let wrapped = self.kek.wrap(&text, named.id, &named.key);
        connection
            .prepare_cached("INSERT INTO data_key(id, domain, created_at, wrapped) VALUES(?1, ?2, ?3, ?4)")
            .and_then(|mut insert| insert.execute(params![named.id.0, text, at.as_micros(), wrapped]))
            .map_err(super::connection::write("making a data key"))?;
        Ok(named)
    }

    /// The key of a name; `None` when it was destroyed.
    fn opening(&self, id: KeyId) -> Result<Option<NamedKey>, StoreError> {
        if let Some(named) = readable(&self.by_id).get(&id) {
            return Ok(Some(named.clone()));
        }
        let doing = "reading the key store";
        let connection = lock(&self.connection);
        let found: Option<(String, i64, Vec<u8>)> = connection
            .prepare_cached("SELECT domain, created_at, wrapped FROM data_key WHERE id = ?1")
            .map_err(read(doing))?
            .query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()
            .map_err(read(doing))?;
        let Some((domain, created_at, wrapped)) = found else { return Ok(None) };
        let named = self.unwrap(&domain, &id.0, created_at, &wrapped)?;
        let mut by_id = writable(&self.by_id);
        if by_id.len() >= CACHED_KEYS_LIMIT {
            by_id.clear();
        }
        by_id.insert(id, named.clone());
        Ok(Some(named))
    }

    /// Opens a sealed value; `what` names it in errors.
    pub(super) fn open_sealed(
        &self,
        place: Aad<'_>,
        sealed: &[u8],
        what: &dyn Fn() -> String,
    ) -> Result<Vec<u8>, StoreError> {
        let failed = |source| StoreError::Sealed { what: what(), source };
        let id = envelope::key_id_of(sealed).map_err(failed)?;
        let Some(named) = self.opening(id)? else { return Err(StoreError::KeyGone { whose: what() }) };
        envelope::open(&named.key, place, sealed).map_err(failed)
    }

    /// Destroys the journal keys older than the one that sealed the oldest journal row still kept; all but the
    /// sealing one when none is kept.
    pub(super) fn destroy_journal_keys(&self, oldest_kept: Option<KeyId>) -> Result<(), StoreError> {
        let doing = "destroying old journal keys";
        let domain = Domain::System(Purpose::Journal);
        let oldest = oldest_kept.or_else(|| readable(&self.sealing).get(&domain).map(|named| named.id));
        let Some(oldest) = oldest else { return Ok(()) };
        let mut connection = lock(&self.connection);
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(super::connection::write(doing))?;
        let mut gone: Vec<Vec<u8>> = Vec::new();
        {
            let mut delete = transaction
                .prepare_cached(
                    "DELETE FROM data_key WHERE domain = ?1
                     AND number < (SELECT number FROM data_key WHERE id = ?2) RETURNING id",
                )
                .map_err(super::connection::write(doing))?;
            let rows = delete
                .query_map(params![domain.text(), oldest.0], |row| row.get(0))
                .map_err(super::connection::write(doing))?;
            for id in rows {
                gone.push(id.map_err(super::connection::write(doing))?);
            }
        }
        transaction.commit().map_err(super::connection::write(doing))?;
        if gone.is_empty() {
            return Ok(());
        }
        // The log still holds the old pages until it is emptied.
        let _busy: i64 = connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(super::connection::write(doing))?;
        writable(&self.by_id).retain(|id, _| !gone.iter().any(|gone| gone[..] == id.0));
        Ok(())
    }

    /// Unwraps every key once. Calls back with the key's place and what is wrong with it, if anything.
    pub(super) fn verify(&self, each: &mut dyn FnMut(String, Option<String>)) -> Result<(), StoreError> {
        let doing = "verifying the key store";
        let connection = lock(&self.connection);
        let mut statement = connection
            .prepare("SELECT number, id, domain, created_at, wrapped FROM data_key ORDER BY number")
            .map_err(read(doing))?;
        let mut rows = statement.query([]).map_err(read(doing))?;
        while let Some(row) = rows.next().map_err(read(doing))? {
            let number: i64 = row.get(0).map_err(read(doing))?;
            let id: Vec<u8> = row.get(1).map_err(read(doing))?;
            let domain: String = row.get(2).map_err(read(doing))?;
            let created_at: i64 = row.get(3).map_err(read(doing))?;
            let wrapped: Vec<u8> = row.get(4).map_err(read(doing))?;
            let fault = self.unwrap(&domain, &id, created_at, &wrapped).err().map(|error| error.to_string());
            each(format!("{FILE}, table data_key, number {number}"), fault);
        }
        Ok(())
    }

    /// `PRAGMA integrity_check` of the file.
    pub(super) fn integrity(&self) -> Result<Vec<String>, StoreError> {
        super::verify::integrity(&lock(&self.connection))
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    schema::migrate(connection, schema::KEYSTORE).map_err(|error| match error {
        schema::MigrateError::TooNew { found, known } => OpenError::TooNew { found, known },
        schema::MigrateError::Database(error) => open_failure(path, "migrating the key store", error),
    })
}
