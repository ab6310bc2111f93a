//! What is kept: the [`Store`] trait, its words, and two databases behind it: embedded SQLite, and PostgreSQL.
//!
//! The trait is narrow and speaks in batches. FHIR search, rules and rendering stay above it. One call is
//! one transaction. Everything that says anything about a person is sealed before it reaches a file.

mod care;
mod error;
pub mod migrate;
pub mod postgres;
mod proven;
mod rules;
mod sql;
pub mod sqlite;
#[doc(hidden)]
pub mod testing;
mod words;

use std::path::Path;
use std::time::Duration;

use clinical_model::{
    Committed, DeviceId, Event, PatientId, QuarantineId, QuarantineItem, Reading, SeriesKey, Subject,
    Timestamp, Waveform,
};

pub use care::{
    Care, ErasedPatient, ErasureScope, KekTurn, KeptClass, KeyStatus, Outdated, Rekey, Removed, Rows,
};
pub use error::{OpenError, StoreError, TransactError};
pub use proven::{
    ActHeader, CONTENT_KEPT_FOR, KeptCheckpoint, Lease, Log, LogAgainst, LogEntry, LogState, ProvenLog,
    Thinned, Thinning,
};
pub use words::{
    Actor, Appended, AuditAction, AuditOutcome, AuditQuery, AuditRecord, AuditRow, Document, DocumentChange,
    DocumentQuery, DocumentWrite, Expected, Folded, FrameRecord, GroupSummary, HEARTBEAT, IndexEntry,
    KeptFrame, KeyDomain, Kind, News, Order, Point, QuarantineCount, RangeQuery, RestoreReport, SeriesFilter,
    StoredGroup, Transaction, VerifyFinding, VerifyReport,
};

/// What is kept, whatever keeps it. All methods block; call them off the async threads.
pub trait Store: Send + Sync + 'static {
    // --- Ingest -------------------------------------------------------------------------------------------

    /// Commits one group of frames with everything that must be true at the same instant: the journal row, the
    /// quarantined items, the latest values and the group's audit record. When it returns, all of it is on
    /// stable storage. Called by one thread.
    ///
    /// # Errors
    /// [`StoreError::Durability`] when stable storage failed: the process must end. [`StoreError::Full`] when
    /// there is no room: nothing was kept.
    fn append(&self, frames: &[FrameRecord], committed_at: Timestamp) -> Result<Appended, StoreError> {
        self.append_with(frames, &[], committed_at)
    }

    /// As [`Store::append`], with the audit rows of the acts by which the frames came, in the same transaction.
    ///
    /// # Errors
    /// As [`Store::append`].
    fn append_with(
        &self,
        frames: &[FrameRecord],
        audit: &[AuditRecord],
        committed_at: Timestamp,
    ) -> Result<Appended, StoreError>;

    /// Committed groups with a number above `after`, oldest first, at most `limit_groups`.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening a sealed row.
    fn groups_after(&self, after: u64, limit_groups: usize) -> Result<Vec<StoredGroup>, StoreError>;

    /// The last committed group; 0 when there is none.
    fn last_group(&self) -> u64;

    /// How far a consumer has come; 0 when it has not begun. A journal row is folded only after every consumer
    /// that ever advanced has passed it.
    ///
    /// # Errors
    /// [`StoreError`] on reading.
    fn cursor(&self, consumer: &str) -> Result<u64, StoreError>;

    /// Folds journal rows into blocks: a set union on (series, measured time, sequence), in one transaction.
    /// At most `limit_groups`; folding twice changes nothing.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    fn fold(&self, limit_groups: usize, now: Timestamp) -> Result<Folded, StoreError>;

    // --- Reading back -------------------------------------------------------------------------------------

    /// The series that match.
    ///
    /// # Errors
    /// [`StoreError`] on reading.
    fn series(&self, filter: &SeriesFilter) -> Result<Vec<SeriesKey>, StoreError>;

    /// Readings of one series in `[from, to)` by measured time, blocks and recent tail joined, repeats removed.
    /// Two different values under one identity both come, oldest commit first, the later with a finding; newest
    /// first, everything comes exactly the other way round. `limit` counts rows.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening a sealed block.
    fn readings(&self, series: &SeriesKey, range: &RangeQuery)
    -> Result<Vec<Committed<Reading>>, StoreError>;

    /// Waveform blocks of one series that touch `[from, to)`, in the order of the range, repeats removed. `limit`
    /// counts blocks. Folding joins chunks without a gap between them, so one block may have come in many pieces.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening a sealed block.
    fn waveforms(
        &self,
        series: &SeriesKey,
        range: &RangeQuery,
    ) -> Result<Vec<Committed<Waveform>>, StoreError>;

    /// Events of one series in `[from, to)`, repeats removed.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening a sealed row.
    fn events(&self, series: &SeriesKey, range: &RangeQuery) -> Result<Vec<Committed<Event>>, StoreError>;

    /// The latest reading of every scalar series of a subject, by (measured time, sequence), from the table kept in
    /// the commit. Of two values under one identity the first one committed.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening a sealed row.
    fn latest(&self, subject: Subject) -> Result<Vec<Committed<Reading>>, StoreError>;

    /// The frames of a device that were received at exactly `received_at` (milliseconds): the raw bytes behind a value.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening a sealed block.
    fn frames(&self, device: DeviceId, received_at: Timestamp) -> Result<Vec<KeptFrame>, StoreError>;

    /// The readings of one series in `[from, to)` by measured time as bare points, for work on many of them: trends,
    /// statistics, counts. One point an identity (the first value committed); points of one call of `each` stand in
    /// the order of time, calls need not. Stops when `each` returns false.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening a sealed block.
    fn scan(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        each: &mut dyn FnMut(&[Point]) -> bool,
    ) -> Result<(), StoreError> {
        let range = RangeQuery { from, to, order: Order::Ascending, limit: usize::MAX };
        let mut points: Vec<Point> = self.readings(series, &range)?.iter().map(Point::of).collect();
        // The store gives the values of one identity in the order of their commits.
        points.dedup_by_key(|point| (point.at, point.sequence));
        if !points.is_empty() {
            each(&points);
        }
        Ok(())
    }

    // --- Identifiers --------------------------------------------------------------------------------------

    /// The sealed identifier of a reading, panel, waveform or event: its identity, unreadable to an outsider.
    ///
    /// # Errors
    /// [`StoreError`] where the series is not known or the identity does not fit.
    fn identifier(&self, series: &SeriesKey, at: Timestamp, sequence: u32) -> Result<String, StoreError>;

    /// The inverse of [`Store::identifier`]; `None` for anything that we did not make.
    ///
    /// # Errors
    /// [`StoreError`] on reading.
    fn open_identifier(&self, text: &str) -> Result<Option<(SeriesKey, Timestamp, u32)>, StoreError>;

    /// The keyed blind index of a value: equal values give equal bytes, and nothing else can be learned.
    fn blind(&self, field: &str, value: &str) -> [u8; 16];

    // --- Documents, audit, quarantine -----------------------------------------------------------------------

    /// Writes documents with their index rows, audit rows and a consumer's progress, all or nothing. Earlier versions
    /// are kept, except of sessions and remembered outcomes; a cursor never goes back.
    ///
    /// # Errors
    /// [`TransactError::Conflict`] where an expectation does not hold, [`TransactError::Store`] otherwise.
    fn transact(&self, transaction: &Transaction) -> Result<(), TransactError>;

    /// All versions of a document that are kept, oldest first, the present one last; without the removals between
    /// them. Empty where it never existed, and of kinds without history only the present one.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening one.
    fn document_versions(&self, kind: Kind, id: [u8; 16]) -> Result<Vec<Document>, StoreError>;

    /// One document.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening it.
    fn document(&self, kind: Kind, id: [u8; 16]) -> Result<Option<Document>, StoreError>;

    /// Documents of a kind in the order of an index, from a position on.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening one.
    fn documents(&self, query: &DocumentQuery) -> Result<Vec<Document>, StoreError>;

    /// Audit rows, newest first, from a position on.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening one.
    fn audit_rows(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError>;

    /// Audit records of committed groups, newest first, numbers below `before`.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening one.
    fn group_summaries(&self, before: Option<u64>, limit: usize) -> Result<Vec<GroupSummary>, StoreError>;

    /// One quarantined item.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening it.
    fn quarantined(&self, id: QuarantineId) -> Result<Option<QuarantineItem>, StoreError>;

    /// Quarantined items, newest first; `waiting_only` leaves out what a person has dealt with.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening one.
    fn quarantine(
        &self,
        waiting_only: bool,
        before: Option<(Timestamp, QuarantineId)>,
        limit: usize,
    ) -> Result<Vec<QuarantineItem>, StoreError>;

    /// How much is waiting in quarantine.
    fn quarantine_count(&self) -> QuarantineCount;

    // --- Several processes over one store ---------------------------------------------------------------------

    /// Whether other processes may write to the same store.
    fn shared(&self) -> bool;

    /// Waits until a group or a change of a document later than `seen` was committed by anybody, or for `timeout`, and
    /// tells what is committed now. A group that it tells of is found by [`Store::groups_after`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where the database cannot be asked.
    fn wait_for_news(&self, seen: News, timeout: Duration) -> Result<News, StoreError>;

    /// Changes of documents with numbers above `change`, in the order of their commits, at most `limit`. A number is
    /// seen only after all numbers before it.
    ///
    /// # Errors
    /// [`StoreError::TooFarBehind`] where some of them are no longer listed; another [`StoreError`] on reading.
    fn changes_after(&self, change: u64, limit: usize) -> Result<Vec<DocumentChange>, StoreError>;

    /// Takes, or keeps, a lease for `life` from now on, by the store's own clock. False while another has it. Where no
    /// other process can write it is always held.
    ///
    /// # Errors
    /// [`StoreError`] on writing.
    fn hold_lease(&self, name: &'static str, holder: [u8; 16], life: Duration) -> Result<bool, StoreError>;

    /// Gives a lease back, where this holder has it.
    ///
    /// # Errors
    /// [`StoreError`] on writing.
    fn release_lease(&self, name: &'static str, holder: [u8; 16]) -> Result<(), StoreError>;

    /// Says that a node lives for `life` from now on and has shown all groups up to `group`: folding leaves the later
    /// ones where [`Store::groups_after`] finds them.
    ///
    /// # Errors
    /// [`StoreError`] on writing.
    fn node_progress(&self, node: [u8; 16], group: u64, life: Duration) -> Result<(), StoreError>;

    /// Says that a node has ended: nothing waits for it any more.
    ///
    /// # Errors
    /// [`StoreError`] on writing.
    fn node_gone(&self, node: [u8; 16]) -> Result<(), StoreError>;

    // --- Care of the whole ----------------------------------------------------------------------------------

    /// Copies the running store, consistent at one instant, into an empty directory, with a manifest of counts
    /// and hashes. `progress` gets pages done and pages in all.
    ///
    /// # Errors
    /// [`StoreError`]; an unfinished copy is removed.
    fn backup(&self, target: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<RestoreReport, StoreError>;

    /// Reads everything once: file integrity, every seal, every block's counts.
    ///
    /// # Errors
    /// [`StoreError`] where it could not even be read; damage that was found is in the report.
    fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, StoreError>;

    /// Makes sure that a patient has a key of their own.
    ///
    /// # Errors
    /// [`StoreError`] on writing the key store.
    fn ensure_patient_key(&self, patient: PatientId) -> Result<(), StoreError>;

    /// The trees over the audit log and over the records of groups.
    fn log(&self) -> &dyn ProvenLog;

    /// Care of the keys, of erasure and of what is kept no longer.
    fn care(&self) -> &dyn Care;
}
