//! A disk that is full for one group: what was sent behind a refused frame over the same connection is not committed
//! before it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use clinical_model::{
    Committed, Delivery, DeviceId, Event, Frame, FrameKind, PatientId, QuarantineId, QuarantineItem, Reading,
    SeriesKey, Subject, Timestamp, Waveform,
};
use pipeline::line::EndsOn;
use pipeline::{Intake, IntakeError, Pending, Site};
use store::sqlite::{Options, SqliteStore};
use store::{
    Appended, AuditQuery, AuditRecord, AuditRow, Document, DocumentChange, DocumentQuery, Folded,
    FrameRecord, GroupSummary, KeptFrame, Kind, News, QuarantineCount, RangeQuery, RestoreReport,
    SeriesFilter, Store, StoreError, StoredGroup, TransactError, Transaction, VerifyReport,
};
use trust::Kek;

use crate::site::{KEY, MONITOR, SetClock, furnish, quiet};

type Kept<T> = Result<T, StoreError>;

/// Refuses one group, once another frame waits behind it.
struct FullOnce {
    kept: SqliteStore,
    refuses: Arc<AtomicBool>,
    meeting: Arc<Barrier>,
}

impl Store for FullOnce {
    fn append_with(&self, frames: &[FrameRecord], audit: &[AuditRecord], at: Timestamp) -> Kept<Appended> {
        if self.refuses.swap(false, Ordering::SeqCst) {
            // Here it is; there the next one is queued.
            self.meeting.wait();
            self.meeting.wait();
            return Err(StoreError::Full { doing: "committing a group" });
        }
        self.kept.append_with(frames, audit, at)
    }

    as_kept! {
        transact(transaction: &Transaction) -> Result<(), TransactError>;
    }

    one_node_as_kept!();

    the_rest_as_kept!();
}

struct House {
    site: Arc<Site>,
    refuses: Arc<AtomicBool>,
    meeting: Arc<Barrier>,
    _directory: tempfile::TempDir,
}

fn house() -> House {
    let directory = tempfile::tempdir().unwrap();
    let kept = SqliteStore::open(directory.path(), Kek::from_bytes(&KEY), Options::default()).unwrap();
    let (refuses, meeting) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(2)));
    let store = FullOnce { kept, refuses: Arc::clone(&refuses), meeting: Arc::clone(&meeting) };
    let site = Site::start(Arc::new(store), SetClock::new(), quiet()).unwrap();
    furnish(&site);
    House { site, refuses, meeting, _directory: directory }
}

async fn send(intake: &Intake, value: u32) -> Result<Pending, IntakeError> {
    let received_at = intake.now().truncated_to_millis();
    let body =
        format!("{{\"measure\":\"heart_rate\",\"value\":{value},\"unit\":\"/min\",\"sequence\":{value}}}");
    let (kind, delivery) = (FrameKind::Envelope, Delivery::AtLeastOnce);
    intake.submit(Frame { device: MONITOR, kind, received_at, delivery, bytes: body.into_bytes() }).await
}

/// What became of the refused frame, the one behind it, and how many groups were committed by both.
async fn one_behind_a_refused_one(house: &House, line: &Intake) -> (bool, Result<(), IntakeError>, u64) {
    let before = house.site.store().last_group();
    house.refuses.store(true, Ordering::SeqCst);
    let first = send(line, 70).await.unwrap();
    house.meeting.wait();
    let second = send(line, 71).await.unwrap();
    house.meeting.wait();
    let is_full = matches!(first.await, Err(IntakeError::StorageFull));
    let second = second.await.map(drop);
    (is_full, second, house.site.store().last_group() - before)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_committed_behind_a_refused_frame_of_a_connection_that_ends_for_it() {
    let house = house();
    let line = house.site.intake().unwrap().for_connection(EndsOn::Anything);
    let came = one_behind_a_refused_one(&house, &line).await;
    assert_eq!(came, (true, Err(IntakeError::NotKept), 0));
    let late = send(&line, 72).await;
    assert!(matches!(late, Err(IntakeError::NotKept)), "{late:?}");
    // The next connection sends all of them again.
    let next = house.site.intake().unwrap().for_connection(EndsOn::Anything);
    for value in [70, 71, 72] {
        send(&next, value).await.unwrap().await.unwrap();
    }
    drop((line, next));
    house.site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_can_be_told_goes_on_behind_a_refused_frame() {
    let house = house();
    let line = house.site.intake().unwrap().for_connection(EndsOn::Passing);
    let came = one_behind_a_refused_one(&house, &line).await;
    assert_eq!(came, (true, Ok(()), 1));
    drop(line);
    house.site.stop();
}
