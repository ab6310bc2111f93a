//! The data keys, wrapped by the key-encryption key, in a place of their own, and a bounded cache of them unwrapped.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};

use clinical_model::{PatientId, RecordId as _, Timestamp};
use trust::envelope::{self, Aad};
use trust::keyring::{MAX_SEALS_PER_KEY, UnwrapError};
use trust::{Kek, KekRing, Key, KeyId};

use crate::sql::{Backend, Begin, DbError, Session, Tx, lock, read, readable, values, writable, write};
use crate::{KeyDomain, StoreError};

/// Most unwrapped keys in memory; about one kilobyte each. Beyond it the cache begins anew.
const CACHED_KEYS_LIMIT: usize = 16_384;
/// Most characters of a fingerprint that a message shows; ours are shorter, a damaged one may not be.
const FINGERPRINT_SHOWN: usize = 64;
/// A system key seals for so long: at 3,000 seals a second a week stays below [`MAX_SEALS_PER_KEY`].
const SYSTEM_KEY_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// A patient's key seals for so long: at 50 seals a second a year stays below [`MAX_SEALS_PER_KEY`].
const PATIENT_KEY_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// Where other processes make keys too, a remembered key seals for so long before the database is asked for a newer one.
const SHARED_KEY_LOOK: Duration = Duration::from_secs(60);
/// In the key store: fingerprint of the key-encryption key in force.
pub(super) const META_KEK: &str = "kek";
/// In the key store: fingerprint of the next key-encryption key, while an epoch turns.
pub(crate) const META_KEK_NEXT: &str = "kek-next";

/// What a system key is for. One key never serves two purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
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
    /// Signing the log's checkpoints; lives until it is turned over, and is never destroyed.
    Log,
}

/// Whose data a key seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Domain {
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
    pub(super) fn text(self) -> String {
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
            Domain::System(Purpose::Log) => "log",
        };
        format!("system/{purpose}")
    }
}

/// A key with its name, ready to seal.
#[derive(Clone)]
pub(crate) struct NamedKey {
    pub(super) id: KeyId,
    pub(super) key: Arc<Key>,
    created_at: Timestamp,
    /// When the database was asked whether it is the newest.
    looked_at: Instant,
}

impl NamedKey {
    pub(super) fn seal(&self, place: Aad<'_>, plain: &[u8]) -> Vec<u8> {
        envelope::seal(&self.key, self.id, place, plain)
    }
}

/// The open key store.
pub(crate) struct Keys<B: Backend> {
    session: Mutex<B::Session>,
    pub(super) ring: RwLock<KekRing>,
    journal_key_life: Duration,
    pub(super) by_id: RwLock<HashMap<KeyId, NamedKey>>,
    pub(super) sealing: RwLock<HashMap<Domain, NamedKey>>,
    /// Patients whose keys were destroyed: none is ever made again.
    pub(super) erased: RwLock<HashSet<PatientId>>,
}

/// Why a key-encryption key does not fit.
pub(crate) enum KekFault {
    /// The keys are wrapped by another one, of this fingerprint.
    Another { expected: String },
    /// There are keys, but nothing says by which key they are wrapped.
    Unnamed,
    /// The source of the key-encryption keys did not end a turn that was begun.
    Source(trust::SourceError),
    /// The database said no.
    Database(DbError),
}

impl From<DbError> for KekFault {
    fn from(error: DbError) -> Self {
        KekFault::Database(error)
    }
}

impl<B: Backend> Keys<B> {
    /// Takes the key store over, and proves that the key-encryption key fits; writes its fingerprint into a new one.
    pub(crate) fn open(
        session: B::Session,
        mut ring: KekRing,
        journal_key_life: Duration,
    ) -> Result<Self, KekFault> {
        prove(&session, &mut ring)?;
        let keys = Keys {
            session: Mutex::new(session),
            ring: RwLock::new(ring),
            journal_key_life,
            by_id: RwLock::default(),
            sealing: RwLock::default(),
            erased: RwLock::default(),
        };
        keys.recall_erased(&*lock(&keys.session))?;
        keys.settle_epochs(&*lock(&keys.session))?;
        Ok(keys)
    }

    /// The key-encryption key in force, for another store that is to hold the same keys.
    pub(crate) fn kek(&self) -> Arc<Kek> {
        let ring = readable(&self.ring);
        let kept = self.meta(META_KEK).ok().flatten().unwrap_or_default();
        let kept = std::str::from_utf8(&kept).ok().and_then(|kept| ring.find(kept));
        Arc::clone(kept.unwrap_or_else(|| ring.current()))
    }

    /// Refuses while an epoch turns: a copy would need two key-encryption keys, one of which is about to be destroyed.
    pub(crate) fn is_still(&self) -> Result<(), StoreError> {
        match self.meta(META_KEK_NEXT).map_err(read("reading the key store"))? {
            None => Ok(()),
            Some(_) => Err(StoreError::EpochTurns),
        }
    }

    /// The session, ready for use.
    pub(crate) fn session(&self, doing: &'static str) -> Result<MutexGuard<'_, B::Session>, StoreError> {
        let mut session = lock(&self.session);
        let _is_new = session.ready().map_err(read(doing))?;
        Ok(session)
    }

    pub(crate) fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, DbError> {
        lock(&self.session).row("SELECT value FROM meta WHERE name = ?1", &values![name], |row| row.get(0))
    }

    pub(crate) fn set_meta(&self, name: &str, value: &[u8]) -> Result<(), DbError> {
        lock(&self.session)
            .execute(
                "INSERT INTO meta(name, value) VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
                &values![name, value],
            )
            .map(drop)
    }

    /// The key that seals for a domain now; made, and on stable storage, before this returns.
    pub(crate) fn sealing(&self, domain: Domain, at: Timestamp) -> Result<NamedKey, StoreError> {
        if let Some(named) = readable(&self.sealing).get(&domain)
            && self.still_seals(domain, named, at)
        {
            return Ok(named.clone());
        }
        self.not_erased(domain)?;
        let mut session = self.session("reading the key store")?;
        let named = match self.newest(&session, domain)? {
            Some(named) if self.still_seals(domain, &named, at) => named,
            _ => self.create(&mut session, domain, at)?,
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
        if let Some(named) = readable(&self.sealing).get(&domain).filter(|named| is_looked_up::<B>(named)) {
            return Ok(Some(named.clone()));
        }
        self.newest(&*self.session("reading the key store")?, domain)
    }

    /// All keys of a domain, oldest first.
    pub(super) fn all_of(&self, domain: Domain) -> Result<Vec<NamedKey>, StoreError> {
        let text = domain.text();
        let found: Vec<(Vec<u8>, i64, Vec<u8>)> = self
            .session("reading the key store")?
            .rows(
                "SELECT id, created_at, wrapped FROM data_key WHERE domain = ?1 ORDER BY number",
                &values![&text],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .map_err(read("reading the key store"))?;
        found.iter().map(|(id, created_at, wrapped)| self.unwrap(&text, id, *created_at, wrapped)).collect()
    }

    /// Makes a new key for a domain, which seals from now on.
    pub(super) fn renew(&self, domain: Domain, at: Timestamp) -> Result<(), StoreError> {
        self.create(&mut *self.session("making a data key")?, domain, at)?;
        self.forget(domain);
        Ok(())
    }

    /// Forgets which key seals for a domain, so that the next question asks the database.
    pub(super) fn forget(&self, domain: Domain) {
        writable(&self.sealing).remove(&domain);
    }

    /// Whether a key still exists; asked on another session, where it is part of a transaction.
    pub(super) fn is_kept(&self, session: &B::Session, id: KeyId) -> Result<bool, StoreError> {
        let found = session.row("SELECT 1 FROM data_key WHERE id = ?1", &values![id.0], |_| Ok(()));
        found.map(|found| found.is_some()).map_err(read("looking for a key"))
    }

    fn still_seals(&self, domain: Domain, named: &NamedKey, at: Timestamp) -> bool {
        let life = match domain {
            Domain::System(Purpose::Identity | Purpose::Blind | Purpose::Log) => return true,
            _ if !is_looked_up::<B>(named) => return false,
            Domain::System(Purpose::Journal) => self.journal_key_life,
            Domain::System(_) => SYSTEM_KEY_LIFE,
            Domain::Patient(_) => PATIENT_KEY_LIFE,
        };
        named.key.seals() < MAX_SEALS_PER_KEY / 2 && at.duration_since(named.created_at) < life
    }

    pub(super) fn newest(
        &self,
        session: &B::Session,
        domain: Domain,
    ) -> Result<Option<NamedKey>, StoreError> {
        let text = domain.text();
        let found: Option<(Vec<u8>, i64, Vec<u8>)> = session
            .row(
                "SELECT id, created_at, wrapped FROM data_key WHERE domain = ?1 ORDER BY number DESC LIMIT 1",
                &values![&text],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .map_err(read("reading the key store"))?;
        found.map(|(id, created_at, wrapped)| self.unwrap(&text, &id, created_at, &wrapped)).transpose()
    }

    fn unwrap(
        &self,
        domain: &str,
        id: &[u8],
        created_at: i64,
        wrapped: &[u8],
    ) -> Result<NamedKey, StoreError> {
        let damaged =
            |how: String| StoreError::Damaged { what: format!("key of {domain} in {}", B::KEYS_PLACE), how };
        let id = KeyId(id.try_into().map_err(|_| damaged(format!("its id has {} bytes", id.len())))?);
        let kek = self.that_wrapped(wrapped);
        let key = kek.unwrap(domain, id, wrapped).map_err(|error: UnwrapError| damaged(error.to_string()))?;
        let created_at = Timestamp::from_micros(created_at);
        Ok(NamedKey { id, key: Arc::new(key), created_at, looked_at: Instant::now() })
    }

    /// The key-encryption key that wrapped a data key; the current one where it is none of ours, to say so.
    pub(super) fn that_wrapped(&self, wrapped: &[u8]) -> Arc<Kek> {
        if let Some(kek) = readable(&self.ring).that_wrapped(wrapped) {
            return Arc::clone(kek);
        }
        // Another process may have turned the epoch: the key is looked for once more where it lives.
        let mut ring = writable(&self.ring);
        if let Err(error) = ring.reload() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the key-encryption keys cannot be read again"
            );
        }
        Arc::clone(ring.that_wrapped(wrapped).unwrap_or_else(|| ring.current()))
    }

    pub(super) fn create(
        &self,
        session: &mut B::Session,
        domain: Domain,
        at: Timestamp,
    ) -> Result<NamedKey, StoreError> {
        let doing = "making a data key";
        let (id, key) = (KeyId::generate(), Arc::new(Key::generate()));
        let named = NamedKey { id, key, created_at: at, looked_at: Instant::now() };
        let text = domain.text();
        let transaction = Tx::begin(session, Begin::Write).map_err(write(doing))?;
        if let Domain::Patient(patient) = domain {
            let sql = "SELECT 1 FROM erasure WHERE patient = ?1";
            let erased = transaction.row(sql, &values![patient.to_bytes()], |_| Ok(()));
            if erased.map_err(write(doing))?.is_some() {
                writable(&self.erased).insert(patient);
                return Err(gone(domain));
            }
        }
        let wrapped = self.wrapping(&transaction)?.wrap(&text, named.id, &named.key);
        transaction
            .execute(
                "INSERT INTO data_key(id, domain, created_at, wrapped) VALUES(?1, ?2, ?3, ?4)",
                &values![named.id.0, &text, at.as_micros(), &wrapped],
            )
            .map_err(write(doing))?;
        transaction.commit().map_err(write(doing))?;
        Ok(named)
    }

    /// Refuses to seal or make a key for a patient who was erased.
    pub(super) fn not_erased(&self, domain: Domain) -> Result<(), StoreError> {
        match domain {
            Domain::Patient(patient) if readable(&self.erased).contains(&patient) => Err(gone(domain)),
            _ => Ok(()),
        }
    }

    /// Whether a patient was erased, as far as this process knows.
    pub(super) fn is_erased(&self, patient: Option<PatientId>) -> bool {
        patient.is_some_and(|patient| readable(&self.erased).contains(&patient))
    }

    /// The key of a name; `None` when it was destroyed.
    fn opening(&self, id: KeyId) -> Result<Option<NamedKey>, StoreError> {
        if let Some(named) = readable(&self.by_id).get(&id) {
            return Ok(Some(named.clone()));
        }
        let doing = "reading the key store";
        let found: Option<(String, i64, Vec<u8>)> = self
            .session(doing)?
            .row("SELECT domain, created_at, wrapped FROM data_key WHERE id = ?1", &values![id.0], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
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
        if sealed.is_empty() {
            // It was removed on purpose; the row stands for the proof that it was there.
            return Err(StoreError::KeyGone { whose: what() });
        }
        let failed = |source| StoreError::Sealed { what: what(), source };
        let id = envelope::key_id_of(sealed).map_err(failed)?;
        let Some(named) = self.opening(id)? else { return Err(StoreError::KeyGone { whose: what() }) };
        envelope::open(&named.key, place, sealed).map_err(failed)
    }

    /// How many keys for the journal there are.
    pub(super) fn journal_keys(&self) -> Result<u64, StoreError> {
        let doing = "counting journal keys";
        let domain = Domain::System(Purpose::Journal).text();
        self.session(doing)?
            .one("SELECT count(*) FROM data_key WHERE domain = ?1", &values![&domain])
            .map_err(read(doing))
    }

    /// Destroys the journal keys older than the one that sealed the oldest journal row still kept; all but the
    /// sealing one when none is kept. `oldest_kept` asks for that row's key inside the transaction that destroys,
    /// which holds the others' commits up; one process knows it already.
    pub(super) fn destroy_journal_keys(
        &self,
        oldest_kept: impl FnOnce(&B::Session) -> Result<Option<KeyId>, DbError>,
    ) -> Result<(), StoreError> {
        let doing = "destroying old journal keys";
        let domain = Domain::System(Purpose::Journal);
        let mut session = self.session(doing)?;
        let transaction = Tx::begin(&mut *session, Begin::Write).map_err(write(doing))?;
        let oldest = oldest_kept(&transaction).map_err(write(doing))?;
        let oldest = oldest.or_else(|| readable(&self.sealing).get(&domain).map(|named| named.id));
        let Some(oldest) = oldest else { return Ok(()) };
        let gone: Vec<[u8; 16]> = transaction
            .rows(
                "DELETE FROM data_key WHERE domain = ?1
                 AND number < (SELECT number FROM data_key WHERE id = ?2) RETURNING id",
                &values![&domain.text(), oldest.0],
                |row| row.get(0),
            )
            .map_err(write(doing))?;
        transaction.commit().map_err(write(doing))?;
        if gone.is_empty() {
            return Ok(());
        }
        B::scrub(&session).map_err(write(doing))?;
        writable(&self.by_id).retain(|id, _| !gone.contains(&id.0));
        Ok(())
    }

    /// Unwraps every key once. Calls back with the key's place and what is wrong with it, if anything.
    pub(super) fn verify(&self, each: &mut dyn FnMut(String, Option<String>)) -> Result<(), StoreError> {
        let doing = "verifying the key store";
        type Kept = (i64, Vec<u8>, String, i64, Vec<u8>);
        let keys: Vec<Kept> = self
            .session(doing)?
            .rows(
                "SELECT number, id, domain, created_at, wrapped FROM data_key ORDER BY number",
                &[],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
            )
            .map_err(read(doing))?;
        for (number, id, domain, created_at, wrapped) in keys {
            let fault = self.unwrap(&domain, &id, created_at, &wrapped).err().map(|error| error.to_string());
            each(format!("{}, table data_key, number {number}", B::KEYS_PLACE), fault);
        }
        Ok(())
    }

    /// The database's own check of the pages.
    pub(super) fn check_pages(&self) -> Result<Vec<String>, StoreError> {
        let doing = "verifying the key store";
        B::check_pages(&*self.session(doing)?).map_err(read(doing))
    }
}

fn gone(domain: Domain) -> StoreError {
    StoreError::KeyGone { whose: domain.text() }
}

/// Whether what is remembered of a key need not be asked for again.
fn is_looked_up<B: Backend>(named: &NamedKey) -> bool {
    !B::SHARED || named.looked_at.elapsed() < SHARED_KEY_LOOK
}

/// A fingerprint as the key store has it.
pub(super) fn kept_fingerprint<S: Session>(session: &S, name: &str) -> Result<Option<String>, DbError> {
    let kept: Option<Vec<u8>> =
        session.row("SELECT value FROM meta WHERE name = ?1", &values![name], |row| row.get(0))?;
    Ok(kept.map(|kept| String::from_utf8_lossy(&kept).chars().take(FINGERPRINT_SHOWN).collect()))
}

/// Compares the fingerprints of the key-encryption keys, or writes one, with a random id, into a new key store. A turn
/// that was ended in the key store is ended where the keys live.
fn prove<S: Session>(session: &S, ring: &mut KekRing) -> Result<(), KekFault> {
    let kept = kept_fingerprint(session, META_KEK)?;
    let next = kept_fingerprint(session, META_KEK_NEXT)?;
    if let Some(expected) = kept {
        for needed in next.iter().chain([&expected]) {
            if ring.find(needed).is_none() {
                return Err(KekFault::Another { expected: needed.clone() });
            }
        }
        let is_next = ring.next().is_some_and(|kek| kek.fingerprint_text() == expected);
        if next.is_none() && is_next {
            super::turn::promote(ring).map_err(KekFault::Source)?;
        }
        return Ok(());
    }
    if session.row("SELECT 1 FROM data_key LIMIT 1", &[], |_| Ok(()))?.is_some() {
        return Err(KekFault::Unnamed);
    }
    session.execute(
        "INSERT INTO meta(name, value) VALUES(?1, ?2), ('store', ?3)",
        &values![META_KEK, ring.current().fingerprint_text().as_bytes(), trust::random_bytes::<16>()],
    )?;
    Ok(())
}
