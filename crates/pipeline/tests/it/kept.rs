//! What the stores of tests leave to the real one behind them, and one whose audit log can be made to fail; for the tests
//! of this room and of the web's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clinical_model::{
    Committed, DeviceId, Event, PatientId, QuarantineId, QuarantineItem, Reading, SeriesKey, Subject,
    Timestamp, Waveform,
};
use store::sqlite::SqliteStore;
use store::{
    Appended, AuditQuery, AuditRecord, AuditRow, Document, DocumentChange, DocumentQuery, Folded,
    FrameRecord, GroupSummary, KeptFrame, Kind, News, QuarantineCount, RangeQuery, RestoreReport,
    SeriesFilter, Store, StoreError, StoredGroup, TransactError, Transaction, VerifyReport,
};

/// Forwards methods of the store to the field `kept`.
macro_rules! as_kept {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $($argument: $kind),*) -> $answer { self.kept.$name($($argument),*) })*
    };
}

/// Forwards what only several nodes need otherwise. The types must be imported where it is used.
macro_rules! one_node_as_kept {
    () => {
        as_kept! {
            groups_after(after: u64, limit: usize) -> Kept<Vec<StoredGroup>>;
            shared() -> bool;
            wait_for_news(seen: News, timeout: Duration) -> Kept<News>;
            changes_after(change: u64, limit: usize) -> Kept<Vec<DocumentChange>>;
            hold_lease(name: &'static str, holder: [u8; 16], life: Duration) -> Kept<bool>;
            release_lease(name: &'static str, holder: [u8; 16]) -> Kept<()>;
        }
    };
}

/// Forwards everything that no store of these tests changes. The types must be imported where it is used.
macro_rules! the_rest_as_kept {
    () => {
        fn log(&self) -> &dyn store::ProvenLog {
            self.kept.log()
        }

        fn care(&self) -> &dyn store::Care {
            self.kept.care()
        }

        as_kept! {
            last_group() -> u64;
            cursor(consumer: &str) -> Kept<u64>;
            fold(limit: usize, now: Timestamp) -> Kept<Folded>;
            series(filter: &SeriesFilter) -> Kept<Vec<SeriesKey>>;
            readings(series: &SeriesKey, range: &RangeQuery) -> Kept<Vec<Committed<Reading>>>;
            waveforms(series: &SeriesKey, range: &RangeQuery) -> Kept<Vec<Committed<Waveform>>>;
            events(series: &SeriesKey, range: &RangeQuery) -> Kept<Vec<Committed<Event>>>;
            latest(subject: Subject) -> Kept<Vec<Committed<Reading>>>;
            frames(device: DeviceId, received_at: Timestamp) -> Kept<Vec<KeptFrame>>;
            identifier(series: &SeriesKey, at: Timestamp, sequence: u32) -> Kept<String>;
            open_identifier(text: &str) -> Kept<Option<(SeriesKey, Timestamp, u32)>>;
            blind(field: &str, value: &str) -> [u8; 16];
            document(kind: Kind, id: [u8; 16]) -> Kept<Option<Document>>;
            document_versions(kind: Kind, id: [u8; 16]) -> Kept<Vec<Document>>;
            documents(query: &DocumentQuery) -> Kept<Vec<Document>>;
            audit_rows(query: &AuditQuery) -> Kept<Vec<AuditRow>>;
            group_summaries(before: Option<u64>, limit: usize) -> Kept<Vec<GroupSummary>>;
            quarantined(id: QuarantineId) -> Kept<Option<QuarantineItem>>;
            quarantine(waiting: bool, before: Option<(Timestamp, QuarantineId)>, limit: usize) -> Kept<Vec<QuarantineItem>>;
            quarantine_count() -> QuarantineCount;
            node_progress(node: [u8; 16], group: u64, life: Duration) -> Kept<()>;
            node_gone(node: [u8; 16]) -> Kept<()>;
            backup(target: &Path, progress: &mut dyn FnMut(u64, u64)) -> Kept<RestoreReport>;
            verify(progress: &mut dyn FnMut(u64, u64)) -> Kept<VerifyReport>;
            ensure_patient_key(patient: PatientId) -> Kept<()>;
        }
    };
}

type Kept<T> = Result<T, StoreError>;

/// A store that keeps nothing with an audit row in it while it is told to refuse.
pub struct Refusing {
    kept: SqliteStore,
    refuse: Arc<AtomicBool>,
}

impl Refusing {
    /// Over a store; it refuses while the switch is on.
    pub fn new(kept: SqliteStore, refuse: Arc<AtomicBool>) -> Self {
        Refusing { kept, refuse }
    }

    fn refused(&self, audit: &[AuditRecord]) -> Kept<()> {
        if self.refuse.load(Ordering::SeqCst) && !audit.is_empty() {
            return Err(StoreError::Full { doing: "writing the audit log" });
        }
        Ok(())
    }
}

impl Store for Refusing {
    fn transact(&self, transaction: &Transaction) -> Result<(), TransactError> {
        self.refused(&transaction.audit)?;
        self.kept.transact(transaction)
    }

    fn append_with(&self, frames: &[FrameRecord], audit: &[AuditRecord], at: Timestamp) -> Kept<Appended> {
        self.refused(audit)?;
        self.kept.append_with(frames, audit, at)
    }

    one_node_as_kept!();

    the_rest_as_kept!();
}
