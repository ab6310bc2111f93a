//! The embedded store: SQLite in write-ahead mode, everything about persons sealed before it reaches a file.
//!
//! | File | Holds |
//! |---|---|
//! | `data.db` | journal, blocks, latest values, documents, audit, quarantine: ciphertext, random ids, instants |
//! | `keystore.db` | the data keys, wrapped by the key-encryption key, which lives elsewhere |
//! | `lock` | an advisory lock, so that a second process is refused |
//!
//! A committed group is one sealed journal row (that is the acknowledgement) and stays in the tail in memory;
//! folding moves its readings into compressed blocks by series. Queries join blocks and tail and drop repeats by
//! identity, so that folding is never visible.

mod append;
mod audit;
mod backup;
mod blocks;
mod bytes;
mod connection;
mod documents;
#[cfg(test)]
mod failing;
mod fold;
mod fold_curves;
mod fold_parts;
mod journal;
mod keys;
mod log_check;
mod news;
mod quarantine;
mod query;
mod row;
mod schema;
mod series;
mod tail;
mod verify;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use clinical_model::{
    Committed, DeviceId, Event, PatientId, QuarantineId, QuarantineItem, Reading, SeriesKey, Subject,
    Timestamp, Waveform,
};
use rusqlite::{Connection, OptionalExtension, params};
use trust::{BlindIndexKey, IdentityKey, Kek};

use crate::words::*;
use crate::{OpenError, Store, StoreError, TransactError};

pub use backup::{RestoreError, restore, verify_backup};

use connection::{Readers, lock, open_failure, readable};
use keys::{Domain, Keys, Purpose};
use news::Bell;
use series::{LoadError, SeriesTable};
use tail::Tail;

/// Name of the data file.
const DATA_FILE: &str = "data.db";
/// Name of the lock file.
const LOCK_FILE: &str = "lock";
/// Earliest SQLite whose write-ahead log is free of the reset bug (3.7.0 to 3.51.2 can lose commits).
const SQLITE_AT_LEAST: (i32, &str) = (3_051_003, "3.51.3");
/// In both files: the store's own random id.
const META_STORE_ID: &str = "store";
/// In the key store: the data file was made once, so an empty one is a loss and not a beginning.
const META_COMPLETE: &str = "complete";

/// How a store behaves. The defaults suit; tests use smaller blocks.
#[derive(Clone, Debug)]
pub struct Options {
    /// A block of readings closes at so many. At least 2.
    pub block_readings: usize,
    /// A block of a curve closes at so long.
    pub waveform_block: Duration,
    /// A journal key seals for so long.
    pub journal_key_life: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            block_readings: 4_096,
            waveform_block: Duration::from_secs(60),
            journal_key_life: Duration::from_secs(4 * 3_600),
        }
    }
}

/// The embedded store.
pub struct SqliteStore {
    directory: PathBuf,
    options: Options,
    /// The one connection that writes.
    writer: Mutex<Connection>,
    readers: Readers,
    keys: Keys,
    /// One fold at a time, on a connection of its own so that queries never wait for it; taken before `writer`.
    folding: Mutex<Connection>,
    series: RwLock<SeriesTable>,
    tail: RwLock<Tail>,
    last_group: AtomicU64,
    news: Bell,
    waiting: Mutex<QuarantineCount>,
    /// Stable storage has failed once: nothing is written any more.
    failed: AtomicBool,
    blind: BlindIndexKey,
    identity: IdentityKey,
    /// Held as long as the store lives; last, so that it is let go after the files are closed.
    _lock: File,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "SqliteStore({}, group {})",
            self.directory.display(),
            self.last_group.load(Ordering::Acquire)
        )
    }
}

impl SqliteStore {
    /// Opens the store in a directory, or makes one there.
    ///
    /// # Errors
    /// [`OpenError`]: see its variants. Nothing that exists is changed unless the key-encryption key fits.
    pub fn open(directory: &Path, kek: Kek, options: Options) -> Result<Self, OpenError> {
        if rusqlite::version_number() < SQLITE_AT_LEAST.0 {
            return Err(OpenError::OldSqlite { found: rusqlite::version().to_owned() });
        }
        make_directory(directory).map_err(|e| unusable(directory, "cannot be made", e))?;
        let held = take_lock(directory)?;
        let data_path = directory.join(DATA_FILE);
        let keys_path = directory.join(keys::FILE);
        log_check::check(&keys_path)?;
        log_check::check(&data_path)?;
        let keys = Keys::open(directory, kek, options.journal_key_life, !has_content(&data_path))?;
        let complete =
            keys.meta(META_COMPLETE).map_err(|e| open_failure(&keys_path, "reading the key store", e))?;
        let mut writer = connection::open_writer(&data_path, complete.is_none())?;
        schema::migrate(&mut writer, schema::DATA).map_err(|error| match error {
            schema::MigrateError::TooNew { found, known } => OpenError::TooNew { found, known },
            schema::MigrateError::Database(e) => open_failure(&data_path, "migrating the data file", e),
        })?;
        match_files(&writer, &keys, complete.is_some(), &data_path)?;
        log_check::settle(&writer, &data_path)?;
        keys.settle(&keys_path)?;
        Self::load(directory, options, keys, writer, held)
    }

    /// Reads what lives in memory, and rebuilds the tail from the journal.
    fn load(
        directory: &Path,
        options: Options,
        keys: Keys,
        writer: Connection,
        held: File,
    ) -> Result<Self, OpenError> {
        let path = directory.join(DATA_FILE);
        let failed = |error| open_failure(&path, "reading the data file", error);
        let damaged = |what: String| OpenError::Damaged { path: path.clone(), what };
        let series = SeriesTable::load(&writer).map_err(|error| match error {
            LoadError::Database(error) => failed(error),
            LoadError::Gap { number } => damaged(format!("a series is missing before number {number}")),
            LoadError::Unknown { number } => {
                damaged(format!("series {number} names a measure that this release does not know"))
            }
        })?;
        let last_group: i64 = writer
            .query_row("SELECT coalesce(max(number), 0) FROM group_summary", [], |row| row.get(0))
            .map_err(failed)?;
        let last_change: i64 = writer
            .query_row("SELECT coalesce(max(change), 0) FROM document_change", [], |row| row.get(0))
            .map_err(failed)?;
        let (items, bytes): (i64, i64) = writer
            .query_row(
                "SELECT count(*), coalesce(sum(frame_bytes), 0) FROM quarantine WHERE waiting = 1",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(failed)?;
        // Keys that live for ever carry no date.
        let for_ever = |purpose| {
            keys.sealing(Domain::System(purpose), Timestamp::from_micros(0)).map_err(|error| {
                OpenError::Damaged { path: directory.join(keys::FILE), what: describe(&error) }
            })
        };
        let blind = BlindIndexKey::new(&for_ever(Purpose::Blind)?.key);
        let identity = IdentityKey::new(&for_ever(Purpose::Identity)?.key);
        let readers = Readers::open(&path)?;
        let store = SqliteStore {
            directory: directory.to_owned(),
            options,
            writer: Mutex::new(writer),
            readers,
            keys,
            folding: Mutex::new(connection::open_reader(&path)?),
            series: RwLock::new(series),
            tail: RwLock::default(),
            last_group: AtomicU64::new(last_group as u64),
            news: Bell::new(News { group: last_group as u64, change: last_change as u64 }),
            waiting: Mutex::new(QuarantineCount { items: items as u64, bytes: bytes as u64 }),
            failed: AtomicBool::new(false),
            blind,
            identity,
            _lock: held,
        };
        store.rebuild_tail().map_err(|error| match error {
            StoreError::Database { source, .. } => failed(source),
            other => damaged(describe(&other)),
        })?;
        Ok(store)
    }

    /// What a failed write means; after a failure of stable storage nothing is written any more.
    fn wrote(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + Copy + '_ {
        move |error| {
            let meaning = connection::write(doing)(error);
            if matches!(meaning, StoreError::Durability { .. }) {
                self.failed.store(true, Ordering::Release);
            }
            meaning
        }
    }

    /// Refuses to write after stable storage has failed: a later sync that succeeds proves nothing about the
    /// pages that an earlier one lost.
    fn still_durable(&self, doing: &'static str) -> Result<(), StoreError> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
        let source = rusqlite::Error::SqliteFailure(code, Some("an earlier write failed".to_owned()));
        Err(StoreError::Durability { doing, source })
    }

    /// One more connection that reads, for work that takes long.
    fn another_reader(&self, file: &str) -> Result<Connection, StoreError> {
        connection::open_reader(&self.directory.join(file)).map_err(|error| match error {
            OpenError::Database { doing, source } => StoreError::Database { doing, source },
            other => StoreError::Damaged { what: file.to_owned(), how: describe(&other) },
        })
    }

    fn series_key(&self, number: u32) -> Option<SeriesKey> {
        readable(&self.series).key(number)
    }

    fn series_number(&self, key: &SeriesKey) -> Option<u32> {
        readable(&self.series).number(key)
    }
}

/// An error with all its causes in one line, for messages that have no place for a source.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn unusable(path: &Path, what: &str, source: std::io::Error) -> OpenError {
    OpenError::Path { path: path.to_owned(), what: what.to_owned(), source: Some(source) }
}

/// Makes a directory that only its owner may enter; one that exists is left as it is.
fn make_directory(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn take_lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| unusable(&path, "the lock file cannot be opened", e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path }),
        Err(TryLockError::Error(error)) => Err(unusable(&path, "the lock file cannot be locked", error)),
    }
}

/// Whether a file exists and is not empty. The library takes an empty file for a new database.
fn has_content(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Proves that both files belong together; marks them when they are new. The key store is marked first, and
/// again when the data file is: a process that ends in between leaves nothing that looks like damage.
fn match_files(writer: &Connection, keys: &Keys, complete: bool, path: &Path) -> Result<(), OpenError> {
    let failed = |error| open_failure(path, "reading the data file", error);
    let expected = keys.meta(META_STORE_ID).map_err(failed)?;
    let found: Option<Vec<u8>> = writer
        .query_row("SELECT value FROM meta WHERE name = ?1", [META_STORE_ID], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    match &found {
        None if !complete => {
            writer
                .execute("INSERT INTO meta(name, value) VALUES(?1, ?2)", params![META_STORE_ID, expected])
                .map_err(failed)?;
        }
        Some(_) if found == expected => {}
        _ => {
            let what = format!("it does not belong to {} beside it", keys::FILE);
            return Err(OpenError::Damaged { path: path.to_owned(), what });
        }
    }
    if complete { Ok(()) } else { keys.set_meta(META_COMPLETE, b"1").map_err(failed) }
}

impl Store for SqliteStore {
    fn append(&self, frames: &[FrameRecord], committed_at: Timestamp) -> Result<Appended, StoreError> {
        self.append_group(frames, committed_at)
    }

    fn groups_after(&self, after: u64, limit_groups: usize) -> Result<Vec<StoredGroup>, StoreError> {
        self.read_groups(after, limit_groups)
    }

    fn last_group(&self) -> u64 {
        self.last_group.load(Ordering::Acquire)
    }

    fn cursor(&self, consumer: &str) -> Result<u64, StoreError> {
        self.read_cursor(consumer)
    }

    fn fold(&self, limit_groups: usize, now: Timestamp) -> Result<Folded, StoreError> {
        self.fold_groups(limit_groups, now)
    }

    fn series(&self, filter: &SeriesFilter) -> Result<Vec<SeriesKey>, StoreError> {
        Ok(readable(&self.series).matching(filter))
    }

    fn readings(
        &self,
        series: &SeriesKey,
        range: &RangeQuery,
    ) -> Result<Vec<Committed<Reading>>, StoreError> {
        self.query_readings(series, range)
    }

    fn waveforms(
        &self,
        series: &SeriesKey,
        range: &RangeQuery,
    ) -> Result<Vec<Committed<Waveform>>, StoreError> {
        self.query_waveforms(series, range)
    }

    fn events(&self, series: &SeriesKey, range: &RangeQuery) -> Result<Vec<Committed<Event>>, StoreError> {
        self.query_events(series, range)
    }

    fn latest(&self, subject: Subject) -> Result<Vec<Committed<Reading>>, StoreError> {
        self.query_latest(subject)
    }

    fn frames(&self, device: DeviceId, received_at: Timestamp) -> Result<Vec<KeptFrame>, StoreError> {
        self.query_frames(device, received_at)
    }

    fn identifier(&self, series: &SeriesKey, at: Timestamp, sequence: u32) -> Result<String, StoreError> {
        self.seal_identifier(series, at, sequence)
    }

    fn open_identifier(&self, text: &str) -> Result<Option<(SeriesKey, Timestamp, u32)>, StoreError> {
        Ok(self.unseal_identifier(text))
    }

    fn blind(&self, field: &str, value: &str) -> [u8; 16] {
        self.blind.index(field, value)
    }

    fn transact(&self, transaction: &Transaction) -> Result<(), TransactError> {
        self.write_transaction(transaction)
    }

    fn document(&self, kind: Kind, id: [u8; 16]) -> Result<Option<Document>, StoreError> {
        self.read_document(kind, id)
    }

    fn document_versions(&self, kind: Kind, id: [u8; 16]) -> Result<Vec<Document>, StoreError> {
        self.read_versions(kind, id)
    }

    fn documents(&self, query: &DocumentQuery) -> Result<Vec<Document>, StoreError> {
        self.page_documents(query)
    }

    fn audit_rows(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
        self.page_audit(query)
    }

    fn group_summaries(&self, before: Option<u64>, limit: usize) -> Result<Vec<GroupSummary>, StoreError> {
        self.page_summaries(before, limit)
    }

    fn quarantined(&self, id: QuarantineId) -> Result<Option<QuarantineItem>, StoreError> {
        self.read_quarantined(id)
    }

    fn quarantine(
        &self,
        waiting_only: bool,
        before: Option<(Timestamp, QuarantineId)>,
        limit: usize,
    ) -> Result<Vec<QuarantineItem>, StoreError> {
        self.page_quarantine(waiting_only, before, limit)
    }

    fn quarantine_count(&self) -> QuarantineCount {
        *lock(&self.waiting)
    }

    fn shared(&self) -> bool {
        false
    }

    fn wait_for_news(&self, seen: News, timeout: Duration) -> Result<News, StoreError> {
        Ok(self.news.wait(seen, timeout))
    }

    fn changes_after(&self, change: u64, limit: usize) -> Result<Vec<DocumentChange>, StoreError> {
        self.read_changes(change, limit)
    }

    // The lock on the directory keeps every other process out: leases and the progress of nodes are this one's own.

    fn hold_lease(&self, _: &'static str, _: [u8; 16], _: Duration) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn release_lease(&self, _: &'static str, _: [u8; 16]) -> Result<(), StoreError> {
        Ok(())
    }

    fn node_progress(&self, _: [u8; 16], _: u64, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    fn node_gone(&self, _: [u8; 16]) -> Result<(), StoreError> {
        Ok(())
    }

    fn backup(&self, target: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<RestoreReport, StoreError> {
        self.write_backup(target, progress)
    }

    fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, StoreError> {
        self.verify_all(progress)
    }

    fn ensure_patient_key(&self, patient: PatientId) -> Result<(), StoreError> {
        // A key made here begins its life with its first use.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
        self.keys.sealing(Domain::Patient(patient), now).map(drop)
    }
}
