//! A store whose audit can be made to fail: what cannot be recorded must not be done, and not be seen.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clinical_model::{
    Committed, DeviceId, Event, PatientId, QuarantineId, QuarantineItem, Reading, SeriesKey, Subject,
    Timestamp, Waveform,
};
use pipeline::Site;
use pipeline::audited::{Act, ReadError};
use pipeline::desk::DeskError;
use store::sqlite::{Options, SqliteStore};
use store::{
    Actor, Appended, AuditAction, AuditQuery, AuditRecord, AuditRow, Document, DocumentChange, DocumentQuery,
    Folded, FrameRecord, GroupSummary, KeptFrame, Kind, News, QuarantineCount, RangeQuery, RestoreReport,
    SeriesFilter, Store, StoreError, StoredGroup, TransactError, Transaction, VerifyReport,
};
use trust::Kek;

use crate::site::{KEY, MONITOR, NURSE, PATIENT, SetClock, assignment, furnish, heart_rate, quiet};

struct Refusing {
    kept: SqliteStore,
    refuse: Arc<AtomicBool>,
}

type Kept<T> = Result<T, StoreError>;

impl Store for Refusing {
    fn transact(&self, transaction: &Transaction) -> Result<(), TransactError> {
        if self.refuse.load(Ordering::SeqCst) && !transaction.audit.is_empty() {
            return Err(TransactError::Store(StoreError::Full { doing: "writing the audit log" }));
        }
        self.kept.transact(transaction)
    }

    as_kept! {
        append_with(frames: &[FrameRecord], audit: &[AuditRecord], at: Timestamp) -> Kept<Appended>;
    }

    one_node_as_kept!();

    the_rest_as_kept!();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_not_seen_and_not_done() {
    let directory = tempfile::tempdir().unwrap();
    let kept = SqliteStore::open(directory.path(), Kek::from_bytes(&KEY), Options::default()).unwrap();
    let refuse = Arc::new(AtomicBool::new(false));
    let store = Refusing { kept, refuse: Arc::clone(&refuse) };
    let site = Site::start(Arc::new(store), SetClock::new(), quiet()).unwrap();
    furnish(&site);
    heart_rate(&site, 70).await;
    refuse.store(true, Ordering::SeqCst);

    let act = || Act::new(Actor::User(NURSE), AuditAction::Read, "Patient").patient(PATIENT);
    let mut seen = false;
    let read = site.read(act(), |chart| {
        seen = true;
        chart.latest(Subject::Patient(PATIENT))
    });
    assert!(matches!(read, Err(ReadError::Audit(_))), "{read:?}");
    assert!(!seen, "nothing was read");

    let limits = site.set_limits(Actor::User(NURSE), PATIENT, Vec::new());
    assert!(matches!(limits, Err(DeskError::Store(_))), "{limits:?}");
    assert!(!site.registry().limits(PATIENT).is_empty(), "nothing was changed");
    let history = site.registry().assignments(MONITOR);
    let ended =
        site.end_assignment(Actor::User(NURSE), assignment(1, MONITOR, Timestamp::MIN).id, Timestamp::MAX);
    assert!(matches!(ended, Err(DeskError::Store(_))), "{ended:?}");
    assert_eq!(site.registry().assignments(MONITOR), history);

    // Ingest is audited by its group, and goes on.
    heart_rate(&site, 71).await;
    refuse.store(false, Ordering::SeqCst);
    let latest = site.read(act(), |chart| chart.latest(Subject::Patient(PATIENT))).unwrap();
    assert_eq!(latest.len(), 1);
    site.stop();
}
