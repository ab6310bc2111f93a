//! Overload: a store that does not keep up. Backfill gives way before live data and live data before alarms, nothing that
//! was acknowledged is lost, and what was refused is taken when it comes again.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use clinical_model::{
    Committed, DeviceId, Event, Fact, FrameKind, PatientId, QuarantineId, QuarantineItem, Reading, SeriesKey,
    Subject, Timestamp, Waveform,
};
use pipeline::shedding::{Bounds, Class};
use pipeline::{Intake, IntakeError, Pending, Site};
use store::sqlite::{Options, SqliteStore};
use store::{
    Actor, Appended, AuditQuery, AuditRecord, AuditRow, Document, DocumentChange, DocumentQuery, Folded,
    FrameRecord, GroupSummary, KeptFrame, Kind, News, QuarantineCount, RangeQuery, RestoreReport,
    SeriesFilter, Store, StoreError, StoredGroup, TransactError, Transaction, VerifyReport,
};
use trust::Kek;

use crate::site::{KEY, MONITOR, SetClock, device, eventually, frame, furnish, quiet};

/// A disk that can be held up.
#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
    held: AtomicUsize,
}

impl Gate {
    fn shut(&self) {
        *self.is_shut.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.is_shut.lock().unwrap() = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let is_shut = self.is_shut.lock().unwrap();
        self.held.fetch_add(1, Ordering::SeqCst);
        drop(self.opened.wait_while(is_shut, |is_shut| *is_shut).unwrap());
        self.held.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Slow {
    kept: SqliteStore,
    gate: Arc<Gate>,
}

type Kept<T> = Result<T, StoreError>;

impl Store for Slow {
    fn append_with(&self, frames: &[FrameRecord], audit: &[AuditRecord], at: Timestamp) -> Kept<Appended> {
        self.gate.pass();
        self.kept.append_with(frames, audit, at)
    }

    as_kept! {
        transact(transaction: &Transaction) -> Result<(), TransactError>;
    }

    one_node_as_kept!();
    the_rest_as_kept!();
}

/// A second monitor, which nobody asks anything.
const OTHER: DeviceId = DeviceId::from_bytes([22; 16]);

/// Everything that may give way does as soon as anything waits: the test needs no clock.
const AT_ONCE: Bounds = Bounds { backfill_after: Duration::ZERO, live_after: Duration::ZERO };
/// Live data never gives way.
const BACKFILL_ONLY: Bounds =
    Bounds { backfill_after: Duration::ZERO, live_after: Duration::from_secs(86_400) };

struct House {
    site: Arc<Site>,
    gate: Arc<Gate>,
    _directory: tempfile::TempDir,
}

impl House {
    fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kept = SqliteStore::open(directory.path(), Kek::from_bytes(&KEY), Options::default()).unwrap();
        let gate = Arc::new(Gate::default());
        let store = Arc::new(Slow { kept, gate: Arc::clone(&gate) });
        let site = Site::start(store, SetClock::new(), quiet()).unwrap();
        furnish(&site);
        site.add_device(Actor::System, device(OTHER, "Monitor 2")).unwrap();
        House { site, gate, _directory: directory }
    }

    fn intake(&self, bounds: Bounds) -> Intake {
        self.site.intake().unwrap().with_bounds(bounds)
    }

    async fn send(&self, intake: &Intake, of: DeviceId, body: &str) -> Result<Pending, IntakeError> {
        let received_at = intake.now().truncated_to_millis();
        intake.submit(frame(of, FrameKind::Envelope, body.as_bytes(), received_at)).await
    }

    /// Holds the disk up with one frame on its way to it.
    async fn hold_up(&self) -> Pending {
        self.gate.shut();
        let intake = self.site.intake().unwrap();
        let first = self.send(&intake, MONITOR, &heart_rate(70, 0)).await.unwrap();
        eventually("the commit stands", || self.gate.held.load(Ordering::SeqCst) == 1).await;
        first
    }

    /// The values on stable storage, in the order of their commit.
    fn values(&self) -> Vec<String> {
        let groups = self.site.store().groups_after(0, 1_000).unwrap();
        let facts = groups.into_iter().flat_map(|group| group.frames).flat_map(|record| record.facts);
        facts
            .filter_map(|fact| match fact {
                Fact::Reading(reading) => Some(reading.value().number().unwrap().to_string()),
                Fact::Event(event) => event.text.clone(),
                Fact::Waveform(_) => None,
            })
            .collect()
    }
}

/// A heart rate, so many seconds old.
fn heart_rate(value: u32, age_s: i64) -> String {
    let at = Timestamp::from_seconds(crate::site::START_S - age_s);
    format!(r#"{{"measure":"heart_rate","value":{value},"unit":"/min","time":"{at}"}}"#)
}

fn numbered(number: u32, value: u32, age_s: i64) -> String {
    format!(r#"{{"message_number":{number},"readings":[{}]}}"#, heart_rate(value, age_s))
}

#[tokio::test(flavor = "multi_thread")]
async fn backfill_gives_way_to_live_data_and_live_data_to_alarms() {
    let house = House::open();
    let first = house.hold_up().await;
    let (strict, mild) = (house.intake(AT_ONCE), house.intake(BACKFILL_ONLY));

    let backfill = house.send(&mild, MONITOR, &heart_rate(60, 600)).await;
    assert_eq!(backfill.unwrap_err(), IntakeError::Overloaded { class: Class::Backfill });
    let live = house.send(&mild, MONITOR, &heart_rate(71, 1)).await.unwrap();
    let refused = house.send(&strict, OTHER, &heart_rate(72, 2)).await;
    assert_eq!(refused.unwrap_err(), IntakeError::Overloaded { class: Class::Live });
    // Beyond the limits of an adult.
    let alarm = house.send(&strict, MONITOR, &heart_rate(190, 3)).await.unwrap();

    let load = strict.load();
    assert_eq!((load.waiting_frames, load.refused_frames), ([1, 1, 0], [0, 1, 1]));
    house.gate.open();
    for pending in [first, live, alarm] {
        pending.await.unwrap();
    }
    assert_eq!(house.values(), ["70", "71", "190"], "a device's order stays, whatever is urgent");

    // The same again, now that there is room: nothing has to be restarted or reset.
    eventually("nothing waits", || strict.load().oldest_waits == Duration::ZERO).await;
    house.send(&strict, MONITOR, &heart_rate(60, 600)).await.unwrap().await.unwrap();
    assert_eq!(house.values(), ["70", "71", "190", "60"]);
    house.site.stop_after(strict, mild);
}

#[tokio::test(flavor = "multi_thread")]
async fn alarms_are_committed_before_what_others_sent_earlier() {
    let house = House::open();
    let first = house.hold_up().await;
    let patient = house.site.intake().unwrap();
    let mut pending = vec![first];
    for age_s in 601..=640 {
        pending.push(house.send(&patient, MONITOR, &heart_rate(60, age_s)).await.unwrap());
    }
    let alarm = r#"{"event":"device_alarm","text":"asystole","time":"2026-11-22T08:30:00Z"}"#;
    pending.push(house.send(&patient, OTHER, alarm).await.unwrap());
    house.gate.open();
    for pending in pending {
        pending.await.unwrap();
    }
    let order = house.site.store().groups_after(0, 1_000).unwrap();
    let devices: Vec<DeviceId> =
        order.into_iter().flat_map(|group| group.frames).map(|record| record.frame.device).collect();
    assert_eq!(devices[..2], [MONITOR, OTHER], "right after what was on its way to the disk");
    house.site.stop_after(patient.clone(), patient);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_had_to_give_way_is_no_gap_and_hides_none() {
    let house = House::open();
    let intake = house.intake(AT_ONCE);
    let send = |number, value, age_s| {
        let (house, intake) = (&house, &intake);
        async move { house.send(intake, MONITOR, &numbered(number, value, age_s)).await }
    };
    send(1, 61, 1_000).await.unwrap().await.unwrap();
    eventually("nothing waits", || intake.load().oldest_waits == Duration::ZERO).await;
    let first = house.hold_up().await;
    // 2 and 3 are lost on the way; 4 is refused and comes again.
    assert!(send(4, 64, 700).await.is_err());
    house.gate.open();
    first.await.unwrap();
    eventually("nothing waits", || intake.load().oldest_waits == Duration::ZERO).await;
    send(4, 64, 700).await.unwrap().await.unwrap();
    eventually("nothing waits", || intake.load().oldest_waits == Duration::ZERO).await;
    send(5, 65, 600).await.unwrap().await.unwrap();
    assert_eq!(house.values(), ["61", "70", "messages 2 to 3 did not arrive", "64", "65"]);
    house.site.stop_after(intake.clone(), intake);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_bounded_and_every_frame_that_was_taken_is_kept() {
    let house = House::open();
    let first = house.hold_up().await;
    let intake = house.site.intake().unwrap();
    let mut pending = vec![first];
    let refused = loop {
        let at = Timestamp::from_seconds(crate::site::START_S);
        let age_s = i64::try_from(pending.len()).unwrap();
        let body = heart_rate(75, age_s % 100);
        let frame = frame(OTHER, FrameKind::Envelope, body.as_bytes(), at);
        match intake.submit_or_refuse(frame).await {
            Ok(taken) => pending.push(taken),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, IntakeError::Busy { device: OTHER });
    assert_eq!(pending.len(), 1 + pipeline::queue::DEVICE_LIMIT_FRAMES);
    assert_eq!(intake.load().refused_shares, 1);
    // The others have room.
    pending.push(house.send(&intake, MONITOR, &heart_rate(76, 0)).await.unwrap());
    house.gate.open();
    for pending in pending {
        pending.await.unwrap();
    }
    house.site.stop_after(intake.clone(), intake);
}

/// Stops a site whose intakes were handed out.
trait StopAfter {
    fn stop_after(&self, one: Intake, other: Intake);
}

impl StopAfter for Site {
    fn stop_after(&self, one: Intake, other: Intake) {
        drop((one, other));
        self.stop();
    }
}
