//! The rules of keeping, written once over the seam: journal, blocks, tail, documents, audit, quarantine, keys.
//!
//! A committed group is one sealed journal row (that is the acknowledgement) and stays in the tail in memory;
//! folding moves its readings into compressed blocks by series. Queries join blocks and tail and drop repeats by
//! identity, so that folding is never visible. Where other processes write to the same database, every query first
//! brings the tail up to what is committed.

mod append;
mod audit;
mod audit_search;
mod blocks;
mod bytes;
pub(crate) mod digest;
mod documents;
mod erase;
mod fold;
mod fold_curves;
mod fold_parts;
mod follow;
mod frame_text;
mod journal;
pub(crate) mod keys;
pub(crate) mod news;
mod quarantine;
mod query;
mod rekey;
mod retain;
mod row;
mod scan;
pub(crate) mod schema;
mod sealed;
mod series;
pub(crate) mod tables;
mod tail;
mod thin;
mod tree;
mod tree_check;
mod turn;
pub(crate) mod verify;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, TryLockError};
use std::time::{Duration, Instant};

use clinical_model::{
    Committed, DeviceId, Event, PatientId, QuarantineId, QuarantineItem, Reading, SeriesKey, Subject,
    Timestamp, Waveform,
};
use trust::log::Hash;
use trust::log::check::Report;
use trust::log::note::Signer;
use trust::{BlindIndexKey, IdentityKey};

use crate::care::*;
use crate::proven::*;
use crate::sql::{Backend, DbError, Fault, Session, lock, read, readable, writable, write};
use crate::words::*;
use crate::{ProvenLog, Store, StoreError, TransactError};

pub(crate) use tree::{META_EPOCH, META_RESTORED};

use keys::{Domain, Keys, Purpose};
use news::Bell;
use quarantine::Waiting;
use series::{LoadError, SeriesTable};
use tail::Tail;

/// Connections that read beside the one that writes. More than the cores of a usual machine gain nothing.
pub(crate) const READ_CONNECTIONS: usize = 4;
/// How often a transaction is tried where another process was in the way.
const TRIES: u32 = 5;

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
            waveform_block: Duration::from_secs(120),
            journal_key_life: Duration::from_secs(4 * 3_600),
        }
    }
}

/// A store over one of the databases.
pub struct SqlStore<B: Backend> {
    options: Options,
    /// The connection that commits groups.
    writer: Mutex<B::Session>,
    /// The connection that writes documents and audit rows, where it is another one.
    acts: Option<Mutex<B::Session>>,
    readers: Readers<B::Session>,
    keys: Keys<B>,
    /// One fold at a time, on a connection of its own so that queries never wait for it; taken before `writer`.
    folding: Mutex<B::Session>,
    series: RwLock<SeriesTable>,
    tail: RwLock<Tail>,
    /// Held by the one who reads what other processes committed.
    following: Mutex<()>,
    last_group: AtomicU64,
    news: Arc<Bell>,
    waiting: Mutex<Waiting>,
    /// How far the turn of a patient's key has come through the tables.
    rekeying: Mutex<Option<rekey::Pass>>,
    /// Stable storage has failed once: nothing is written any more.
    failed: AtomicBool,
    blind: BlindIndexKey,
    identity: IdentityKey,
    /// Last, so that what it holds is let go after the connections are closed.
    backend: B,
}

impl<B: Backend> std::fmt::Debug for SqlStore<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SqlStore({}, group {})", B::PLACE, self.last_group.load(Ordering::Acquire))
    }
}

/// The connections of a store that is being opened.
pub(crate) struct Sessions<S> {
    pub(crate) writer: S,
    pub(crate) acts: Option<S>,
    pub(crate) folding: S,
    pub(crate) readers: Vec<S>,
}

/// Why what is kept could not be read.
pub(crate) enum LoadFault {
    Database(DbError),
    Damaged(String),
    Keys(StoreError),
    Store(StoreError),
}

impl<B: Backend> SqlStore<B> {
    /// Reads what lives in memory, and rebuilds the tail from the journal.
    pub(crate) fn load(
        backend: B,
        options: Options,
        keys: Keys<B>,
        sessions: Sessions<B::Session>,
        news: Arc<Bell>,
    ) -> Result<Self, LoadFault> {
        let session = &sessions.writer;
        let mut series = SeriesTable::default();
        series.extend(session).map_err(|error| match error {
            LoadError::Database(error) => LoadFault::Database(error),
            LoadError::Gap { number } => {
                LoadFault::Damaged(format!("a series is missing before number {number}"))
            }
            LoadError::Unknown { number } => {
                LoadFault::Damaged(format!("series {number} names a measure that this release does not know"))
            }
        })?;
        let number = |sql: &str| session.one::<u64>(sql, &[]).map_err(LoadFault::Database);
        let last_group = number("SELECT coalesce(max(number), 0) FROM group_summary")?;
        let change = number("SELECT coalesce(max(change), 0) FROM document_change")?;
        let as_of = News { group: last_group, change };
        news.tell(as_of);
        let count = quarantine::count_waiting(session).map_err(LoadFault::Store)?;
        // Keys that live for ever carry no date.
        let for_ever = |purpose| {
            keys.sealing(Domain::System(purpose), Timestamp::from_micros(0)).map_err(LoadFault::Keys)
        };
        let blind = BlindIndexKey::new(&for_ever(Purpose::Blind)?.key);
        let identity = IdentityKey::new(&for_ever(Purpose::Identity)?.key);
        let Sessions { writer, acts, folding, readers } = sessions;
        let store = SqlStore {
            options,
            writer: Mutex::new(writer),
            acts: acts.map(Mutex::new),
            readers: Readers::new(readers),
            keys,
            folding: Mutex::new(folding),
            series: RwLock::new(series),
            tail: RwLock::default(),
            following: Mutex::default(),
            last_group: AtomicU64::new(last_group),
            news,
            waiting: Mutex::new(Waiting { count, counted_at: Instant::now(), as_of }),
            rekeying: Mutex::default(),
            failed: AtomicBool::new(false),
            blind,
            identity,
            backend,
        };
        store.rebuild_tail(last_group).map_err(LoadFault::Store)?;
        Ok(store)
    }

    /// Reads the whole journal into the tail.
    fn rebuild_tail(&self, last_group: u64) -> Result<(), StoreError> {
        let session = self.reader("reading the journal")?;
        if B::SHARED { self.catch_up(&session) } else { self.follow(&session, 0, last_group) }
    }

    /// Rows with something sealed in them.
    pub(crate) fn count_rows(&self, session: &B::Session) -> Result<u64, StoreError> {
        verify::count_rows(session)
    }

    pub(crate) fn backend(&self) -> &B {
        &self.backend
    }

    pub(crate) fn keys(&self) -> &Keys<B> {
        &self.keys
    }

    /// What a failed write means; after a failure of stable storage nothing is written any more.
    fn wrote(&self, doing: &'static str) -> impl Fn(DbError) -> StoreError + Copy + '_ {
        move |error| {
            let meaning = write(doing)(error);
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
        Err(write(doing)(DbError::new(Fault::Storage, "an earlier write failed")))
    }

    /// Makes a session usable; where it was connected anew, proves that the database is the one that we remember.
    fn make_ready(&self, session: &mut B::Session, doing: &'static str) -> Result<(), StoreError> {
        if session.ready().map_err(read(doing))? { self.check_history(session) } else { Ok(()) }
    }

    /// The connection that commits groups, ready for use.
    pub(crate) fn writer(&self, doing: &'static str) -> Result<MutexGuard<'_, B::Session>, StoreError> {
        self.to_write(&self.writer, doing)
    }

    /// The connection that writes documents and audit rows, ready for use.
    fn acts(&self, doing: &'static str) -> Result<MutexGuard<'_, B::Session>, StoreError> {
        self.to_write(self.acts.as_ref().unwrap_or(&self.writer), doing)
    }

    fn to_write<'a>(
        &self,
        session: &'a Mutex<B::Session>,
        doing: &'static str,
    ) -> Result<MutexGuard<'a, B::Session>, StoreError> {
        let mut session = lock(session);
        self.still_durable(doing)?;
        self.make_ready(&mut session, doing)?;
        Ok(session)
    }

    /// A connection that reads.
    pub(crate) fn reader(&self, doing: &'static str) -> Result<MutexGuard<'_, B::Session>, StoreError> {
        let mut session = self.readers.get();
        self.make_ready(&mut session, doing)?;
        Ok(session)
    }

    /// A connection that reads, after the tail was brought up to what is committed.
    fn following_reader(&self, doing: &'static str) -> Result<MutexGuard<'_, B::Session>, StoreError> {
        let session = self.reader(doing)?;
        self.catch_up(&session)?;
        Ok(session)
    }

    /// Reads the series that other processes have numbered.
    pub(crate) fn refresh_series(&self, session: &B::Session) -> Result<(), StoreError> {
        let damaged = |how: String| StoreError::Damaged { what: "table of series".to_owned(), how };
        writable(&self.series).extend(session).map_err(|error| match error {
            LoadError::Database(error) => read("reading the series")(error),
            LoadError::Gap { number } => damaged(format!("one is missing before number {number}")),
            LoadError::Unknown { number } => {
                damaged(format!("series {number} names a measure that this release does not know"))
            }
        })
    }

    pub(crate) fn series_key(&self, number: u32) -> Option<SeriesKey> {
        readable(&self.series).key(number)
    }

    fn series_number(&self, key: &SeriesKey) -> Option<u32> {
        readable(&self.series).number(key)
    }
}

/// The connections that read.
struct Readers<S> {
    sessions: Vec<Mutex<S>>,
    next: AtomicUsize,
}

impl<S> Readers<S> {
    fn new(sessions: Vec<S>) -> Self {
        Readers { sessions: sessions.into_iter().map(Mutex::new).collect(), next: AtomicUsize::new(0) }
    }

    /// A connection that is free, else the next in turn.
    fn get(&self) -> MutexGuard<'_, S> {
        for session in &self.sessions {
            match session.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.sessions.len();
        lock(&self.sessions[turn])
    }
}

/// An error with all its causes in one line, for messages that have no place for a source.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

impl<B: Backend> Care for SqlStore<B> {
    fn key_status(&self) -> Result<KeyStatus, StoreError> {
        self.key_state()
    }

    fn begin_kek_turn(&self) -> Result<KekTurn, StoreError> {
        self.begin_kek_epoch()
    }

    fn step_kek_turn(&self, limit_keys: usize, now: Timestamp) -> Result<Option<KekTurn>, StoreError> {
        self.step_epoch(limit_keys, now)
    }

    fn follow_kek(&self, node: [u8; 16]) -> Result<(), StoreError> {
        self.follow_epoch(node)
    }

    fn begin_rekey(&self, patient: PatientId, now: Timestamp) -> Result<Rekey, StoreError> {
        self.begin_turn_of(patient, now)
    }

    fn step_rekey(&self, limit_rows: usize, now: Timestamp) -> Result<Option<Rekey>, StoreError> {
        self.step_turn_of(limit_rows, now)
    }

    fn count_patient(&self, patient: PatientId, scope: &ErasureScope) -> Result<Rows, StoreError> {
        self.count_rows_of(patient, scope)
    }

    fn begin_erasure(&self, patient: PatientId, now: Timestamp) -> Result<ErasedPatient, StoreError> {
        self.begin_erasing(patient, now)
    }

    fn step_erasure(
        &self,
        patient: PatientId,
        scope: &ErasureScope,
        limit_rows: usize,
    ) -> Result<(Rows, bool), StoreError> {
        self.step_erasing(patient, scope, limit_rows)
    }

    fn end_erasure(&self, patient: PatientId, now: Timestamp) -> Result<(), StoreError> {
        self.end_erasing(patient, now)
    }

    fn erasures(&self) -> Result<Vec<ErasedPatient>, StoreError> {
        self.list_erasures()
    }

    fn count_outdated(
        &self,
        class: KeptClass,
        before: Timestamp,
        held: &[PatientId],
    ) -> Result<Outdated, StoreError> {
        self.count_older(class, before, held)
    }

    fn remove_outdated(
        &self,
        class: KeptClass,
        before: Timestamp,
        held: &[PatientId],
        keep: &dyn Fn(&QuarantineItem) -> bool,
        limit_rows: usize,
        now: Timestamp,
    ) -> Result<Removed, StoreError> {
        self.remove_older(class, before, held, keep, limit_rows, now)
    }

    fn forget_versions(&self, documents: &[(Kind, [u8; 16])]) -> Result<(), StoreError> {
        self.forget_earlier(documents)
    }
}

impl<B: Backend> ProvenLog for SqlStore<B> {
    fn log_state(&self, log: Log) -> Result<LogState, StoreError> {
        self.read_log_state(log)
    }

    fn integrate(&self, log: Log, limit: usize, lease: Lease) -> Result<u64, TransactError> {
        self.integrate_log(log, limit, lease)
    }

    fn log_root(&self, log: Log, size: u64) -> Result<Hash, StoreError> {
        self.with_tree(log, size, |tree| tree.root())
    }

    fn log_inclusion(&self, log: Log, index: u64, size: u64) -> Result<Vec<Hash>, StoreError> {
        self.with_tree(log, size, |tree| tree.inclusion(index))
    }

    fn log_consistency(&self, log: Log, old: u64, size: u64) -> Result<Vec<Hash>, StoreError> {
        self.with_tree(log, size, |tree| tree.consistency(old))
    }

    fn log_tile(&self, log: Log, level: u8, number: u64) -> Result<Vec<Hash>, StoreError> {
        self.read_tile(log, level, number)
    }

    fn checkpoints(
        &self,
        log: Log,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<KeptCheckpoint>, StoreError> {
        self.read_checkpoints(log, before, limit)
    }

    fn keep_checkpoint(
        &self,
        log: Log,
        checkpoint: &KeptCheckpoint,
        lease: Lease,
    ) -> Result<(), TransactError> {
        self.write_checkpoint(log, checkpoint, lease)
    }

    fn thin_checkpoints(
        &self,
        log: Log,
        pass: &mut Thinning,
        now: Timestamp,
        lease: Lease,
    ) -> Result<Thinned, TransactError> {
        self.thin_some(log, pass, now, lease)
    }

    fn log_signers(&self, at: Timestamp) -> Result<Vec<Signer>, StoreError> {
        self.read_signers(at)
    }

    fn turn_log_key(&self, at: Timestamp) -> Result<(), StoreError> {
        self.keys.renew(Domain::System(Purpose::Log), at)
    }

    fn begin_epoch_after_restore(&self, at: Timestamp) -> Result<bool, TransactError> {
        self.begin_epoch(at)
    }

    fn log_entry(&self, sequence: u64) -> Result<Option<(LogEntry, AuditRow)>, StoreError> {
        self.read_entry(sequence)
    }

    fn log_entries(&self, log: Log, from: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        self.entries_on(&*self.reader("reading the log")?, log, from, limit)
    }

    fn check_log(
        &self,
        log: Log,
        against: &LogAgainst,
        now: Timestamp,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Report, StoreError> {
        self.check_whole_log(log, against, now, progress)
    }
}

impl<B: Backend> Store for SqlStore<B> {
    fn log(&self) -> &dyn ProvenLog {
        self
    }

    fn care(&self) -> &dyn Care {
        self
    }

    fn append_with(
        &self,
        frames: &[FrameRecord],
        audit: &[AuditRecord],
        committed_at: Timestamp,
    ) -> Result<Appended, StoreError> {
        self.append_group(frames, audit, committed_at)
    }

    fn groups_after(&self, after: u64, limit_groups: usize) -> Result<Vec<StoredGroup>, StoreError> {
        self.read_groups(after, limit_groups)
    }

    fn last_group(&self) -> u64 {
        if B::SHARED {
            match self.reader("asking for the last group").and_then(|session| self.counters(&session)) {
                Ok((last, _)) => return self.last_group.fetch_max(last, Ordering::AcqRel).max(last),
                Err(error) => tracing::warn!(error = %error, "the last group is told as it was known"),
            }
        }
        self.last_group.load(Ordering::Acquire)
    }

    fn cursor(&self, consumer: &str) -> Result<u64, StoreError> {
        self.read_cursor(consumer)
    }

    fn fold(&self, limit_groups: usize, now: Timestamp) -> Result<Folded, StoreError> {
        self.fold_groups(limit_groups, now)
    }

    fn series(&self, filter: &SeriesFilter) -> Result<Vec<SeriesKey>, StoreError> {
        if B::SHARED {
            self.refresh_series(&*self.reader("listing series")?)?;
        }
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

    fn scan(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        each: &mut dyn FnMut(&[Point]) -> bool,
    ) -> Result<(), StoreError> {
        self.scan_points(series, from, to, each)
    }

    fn identifier(&self, series: &SeriesKey, at: Timestamp, sequence: u32) -> Result<String, StoreError> {
        self.seal_identifier(series, at, sequence)
    }

    fn open_identifier(&self, text: &str) -> Result<Option<(SeriesKey, Timestamp, u32)>, StoreError> {
        self.unseal_identifier(text)
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
        self.waiting_now()
    }

    fn shared(&self) -> bool {
        B::SHARED
    }

    fn wait_for_news(&self, seen: News, timeout: Duration) -> Result<News, StoreError> {
        self.wait(seen, timeout)
    }

    fn changes_after(&self, change: u64, limit: usize) -> Result<Vec<DocumentChange>, StoreError> {
        self.read_changes(change, limit)
    }

    fn hold_lease(&self, name: &'static str, holder: [u8; 16], life: Duration) -> Result<bool, StoreError> {
        self.take_lease(name, holder, life)
    }

    fn release_lease(&self, name: &'static str, holder: [u8; 16]) -> Result<(), StoreError> {
        self.give_lease(name, holder)
    }

    fn node_progress(&self, node: [u8; 16], group: u64, life: Duration) -> Result<(), StoreError> {
        self.keep_progress(node, group, life)
    }

    fn node_gone(&self, node: [u8; 16]) -> Result<(), StoreError> {
        self.forget_node(node)
    }

    fn backup(&self, target: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<RestoreReport, StoreError> {
        B::backup(self, target, progress)
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
