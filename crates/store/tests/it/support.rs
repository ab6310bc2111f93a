//! Factories of stores, and short ways to make readings, frames and groups.

use std::path::Path;

use clinical_model::{
    Decimal, Delivery, DeviceId, Event, Fact, Findings, Frame, FrameKind, Measure, MeasureKind, PatientId,
    Reading, SeriesKey, Subject, Timestamp, Value, Waveform, measure,
};
use store::postgres::PgStore;
use store::sqlite::{Options, SqliteStore};
use store::testing::Cluster;
use store::{FrameRecord, OpenError, Order, RangeQuery, Store};
use trust::{Kek, KekRing};

/// Opens one and the same store again and again.
pub trait Factory {
    /// Opens the store, or makes it. The one opened before must have been dropped.
    fn open(&self) -> Box<dyn Store>;

    /// The same with other key-encryption keys; what went wrong where it cannot be opened with them.
    fn open_with(&self, keks: KekRing) -> Result<Box<dyn Store>, OpenError>;

    /// How many of so many cases are worth their time: opening a store may be dear.
    fn cases(&self, all: u32) -> u32 {
        all
    }

    /// A factory of another, empty store of the same sort.
    fn fresh(&self) -> Box<dyn Factory>;

    /// Changes the database behind the store's back. The store must have been dropped.
    fn tamper(&self, sql: &str);
}

pub const KEK: [u8; 32] = *b"\x01test key-encryption key number1";

/// A store in a directory that vanishes with the factory.
pub struct SqliteFactory {
    pub directory: tempfile::TempDir,
}

impl SqliteFactory {
    pub fn new() -> Self {
        SqliteFactory { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn sqlite(&self) -> SqliteStore {
        open(self.path())
    }
}

impl Factory for SqliteFactory {
    fn open(&self) -> Box<dyn Store> {
        Box::new(self.sqlite())
    }

    fn open_with(&self, keks: KekRing) -> Result<Box<dyn Store>, OpenError> {
        Ok(Box::new(SqliteStore::open(self.path(), keks, options())?))
    }

    fn fresh(&self) -> Box<dyn Factory> {
        Box::new(SqliteFactory::new())
    }

    fn tamper(&self, sql: &str) {
        let file = rusqlite::Connection::open(self.path().join("data.db")).unwrap();
        file.execute_batch(sql).unwrap();
        file.close().unwrap();
    }
}

/// A store in a schema of the test process's own server.
pub struct PgFactory {
    pub url: String,
}

impl PgFactory {
    pub fn new() -> Self {
        PgFactory { url: Cluster::shared().database() }
    }

    pub fn postgres(&self) -> PgStore {
        PgStore::open(&self.url, Kek::from_bytes(&KEK), options()).unwrap()
    }
}

impl Factory for PgFactory {
    fn open(&self) -> Box<dyn Store> {
        Box::new(self.postgres())
    }

    fn open_with(&self, keks: KekRing) -> Result<Box<dyn Store>, OpenError> {
        Ok(Box::new(PgStore::open(&self.url, keks, options())?))
    }

    fn cases(&self, all: u32) -> u32 {
        all / 4
    }

    fn fresh(&self) -> Box<dyn Factory> {
        Box::new(PgFactory::new())
    }

    fn tamper(&self, sql: &str) {
        Cluster::shared().execute_in(&self.url, sql);
    }
}

/// Small blocks, so that little data crosses many borders.
pub fn options() -> Options {
    Options { block_readings: 8, ..Options::default() }
}

pub fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, Kek::from_bytes(&KEK), options()).unwrap()
}

/// 2026-11-22T07:30:00Z and so many milliseconds.
pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_795_332_600_000 + millis)
}

pub fn patient(number: u8) -> PatientId {
    PatientId::from_bytes([number; 16])
}

pub fn device(number: u8) -> DeviceId {
    DeviceId::from_bytes([0x80 | number; 16])
}

pub fn series(number: u8) -> SeriesKey {
    series_of(number, measure::HEART_RATE)
}

pub fn series_of(number: u8, measure: Measure) -> SeriesKey {
    SeriesKey { subject: Subject::Patient(patient(number)), measure, device: device(number) }
}

/// The first measure of a shape.
pub fn measure_of(fits: impl Fn(MeasureKind) -> bool) -> Measure {
    Measure::all().find(|measure| fits(measure.kind)).unwrap()
}

pub fn number(text: &str) -> Value {
    Value::Number(text.parse::<Decimal>().unwrap())
}

pub fn reading(series: SeriesKey, measured_ms: i64, sequence: u32, value: &str) -> Reading {
    let measured_at = at(measured_ms);
    Reading::restored(series, measured_at, at(measured_ms + 40), sequence, number(value), Findings::empty())
}

pub fn curve(series: SeriesKey, start_ms: i64, samples: Vec<i16>) -> Waveform {
    Waveform {
        series,
        start: at(start_ms),
        received_at: at(start_ms + 1_000),
        rate_numerator: 100,
        rate_denominator: 1,
        gain: "0.005".parse().unwrap(),
        offset: "0".parse().unwrap(),
        samples,
        findings: Findings::empty(),
    }
}

pub fn event(series: SeriesKey, at_ms: i64, sequence: u32, text: &str) -> Event {
    Event {
        series,
        at: at(at_ms),
        received_at: at(at_ms + 50),
        sequence,
        amount: Some(("1.50".parse().unwrap(), "mg".to_owned())),
        text: Some(text.to_owned()),
        findings: Findings::LATE,
    }
}

pub fn frame(device: DeviceId, received_ms: i64, bytes: &[u8]) -> Frame {
    Frame {
        device,
        kind: FrameKind::Gatt(0x2a35),
        received_at: at(received_ms),
        delivery: Delivery::AtLeastOnce,
        bytes: bytes.to_vec(),
    }
}

/// A frame with facts, received 40 ms after the first of them.
pub fn record(facts: Vec<Fact>) -> FrameRecord {
    let (device, received_ms) = facts.first().map_or((device(1), 0), |fact| {
        let at_ms = match fact {
            Fact::Reading(reading) => reading.measured_at(),
            Fact::Waveform(waveform) => waveform.start,
            Fact::Event(event) => event.at,
        };
        (fact.series().device, at_ms.as_millis() - at(0).as_millis() + 40)
    });
    let bytes = format!("{} facts", facts.len());
    FrameRecord {
        frame: frame(device, received_ms, bytes.as_bytes()),
        facts,
        quarantined: vec![],
        released: vec![],
    }
}

pub fn readings(of: Vec<Reading>) -> FrameRecord {
    record(of.into_iter().map(Fact::Reading).collect())
}

pub const ALL: RangeQuery =
    RangeQuery { from: Timestamp::MIN, to: Timestamp::MAX, order: Order::Ascending, limit: usize::MAX };

/// Folds until nothing is left to fold.
pub fn fold_all(store: &dyn Store) -> store::Folded {
    let mut sum = store::Folded::default();
    loop {
        let folded = store.fold(3, at(1_000_000)).unwrap();
        if folded.groups == 0 {
            return sum;
        }
        sum.groups += folded.groups;
        sum.readings += folded.readings;
        sum.repeats += folded.repeats;
        sum.blocks += folded.blocks;
    }
}
