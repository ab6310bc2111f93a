//! A small site for tests: one ward, one bed, one patient, one monitor, and a clock that stands until it is moved.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use clinical_model::patient::Gender;
use clinical_model::place::PlaceKind;
use clinical_model::{
    Assignment, AssignmentId, ClockRule, Delivery, Device, DeviceId, Frame, FrameKind, Interval, Patient,
    PatientId, Place, PlaceId, Private, Subject, Timestamp, UserId,
};
use pipeline::{Clock, Receipt, Site, SiteOptions};
use store::Actor;
use store::sqlite::{Options, SqliteStore};
use trust::Kek;

pub const PATIENT: PatientId = PatientId::from_bytes([1; 16]);
pub const MONITOR: DeviceId = DeviceId::from_bytes([2; 16]);
pub const BED: PlaceId = PlaceId::from_bytes([3; 16]);
pub const WARD: PlaceId = PlaceId::from_bytes([4; 16]);
pub const NURSE: UserId = UserId::from_bytes([5; 16]);
pub const KEY: [u8; 32] = [7; 32];
/// 2026-11-22T08:30:00Z.
pub const START_S: i64 = 1_795_336_200;

pub struct SetClock(AtomicI64);

impl SetClock {
    pub fn new() -> Arc<Self> {
        Arc::new(SetClock(AtomicI64::new(START_S * 1_000_000)))
    }

    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// A site that folds only when it is asked to, and whose storage must not fail.
pub fn quiet() -> SiteOptions {
    SiteOptions {
        fold_every: Duration::from_secs(3_600),
        on_durability_failure: Box::new(|error| panic!("stable storage failed: {error}")),
    }
}

pub fn open(directory: &Path, clock: Arc<SetClock>) -> Arc<Site> {
    let store = SqliteStore::open(directory, Kek::from_bytes(&KEY), Options::default()).unwrap();
    Site::start(Arc::new(store), clock, quiet()).unwrap()
}

pub fn device(id: DeviceId, name: &str) -> Device {
    Device {
        id,
        name: name.into(),
        kind: "bedside monitor".into(),
        manufacturer: "Test".into(),
        model: "T1".into(),
        serial: name.into(),
        clock: ClockRule::Trust,
        utc_offset_min: 0,
        expected_interval_s: Some(30),
        retired: false,
    }
}

pub fn assignment(number: u8, device: DeviceId, start: Timestamp) -> Assignment {
    Assignment {
        id: AssignmentId::from_bytes([number; 16]),
        device,
        subject: Subject::Patient(PATIENT),
        interval: Interval::since(start),
    }
}

/// A ward with one patient and one assigned monitor.
pub fn furnish(site: &Site) {
    let actor = || Actor::System;
    let ward = Place { id: WARD, name: "Ward".into(), kind: PlaceKind::Ward, ward: None };
    let bed = Place { id: BED, name: "Bed 1".into(), kind: PlaceKind::Bed, ward: Some(WARD) };
    site.add_place(actor(), ward).unwrap();
    site.add_place(actor(), bed).unwrap();
    let patient = Patient {
        id: PATIENT,
        family: Private::new("Okonkwo".into()),
        given: Private::new("Ada".into()),
        birth_date: Some(Private::new("1950-03-21".into())),
        gender: Gender::Female,
        record_number: Private::new("MRN-1".into()),
        place: Some(BED),
        active: true,
    };
    site.add_patient(actor(), patient).unwrap();
    site.add_device(actor(), device(MONITOR, "Monitor 1")).unwrap();
    site.assign(actor(), assignment(1, MONITOR, Timestamp::from_seconds(START_S - 3_600))).unwrap();
}

pub fn frame(device: DeviceId, kind: FrameKind, bytes: &[u8], received_at: Timestamp) -> Frame {
    Frame { device, kind, received_at, delivery: Delivery::AtLeastOnce, bytes: bytes.to_vec() }
}

pub async fn send(site: &Site, device: DeviceId, kind: FrameKind, bytes: &[u8]) -> Receipt {
    let intake = site.intake().unwrap();
    let frame = frame(device, kind, bytes, intake.now().truncated_to_millis());
    intake.submit(frame).await.unwrap().await.unwrap()
}

/// One heart rate in the JSON envelope, measured now.
pub async fn heart_rate(site: &Site, value: u32) -> Receipt {
    let now = site.clock().now();
    let body = format!(r#"{{"measure":"heart_rate","value":{value},"unit":"/min","time":"{now}"}}"#);
    send(site, MONITOR, FrameKind::Envelope, body.as_bytes()).await
}

/// Waits until a condition holds: what comes after the commit comes soon, but not at once.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::task::yield_now().await;
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
