//! Fills a chart through the store's own commits: validated readings in whole seconds, without the way over the wire.

use anyhow::Context as _;
use clinical_model::decoded::DecodedScalar;
use clinical_model::validation::{Context, validate};
use clinical_model::{
    ClockRule, Decimal, Decoded, DecodedValue, Delivery, Device, DeviceId, DeviceTime, Fact, Findings, Frame,
    FrameKind, Measure, PatientId, SeriesKey, Subject, Timestamp,
};
use store::sqlite::SqliteStore;
use store::{FrameRecord, Store, Transaction};

/// Readings of one commit: as many as a busy ward's minute.
const COMMIT_READINGS: usize = 50_000;
/// Commits that are folded at a time.
const FOLD_COMMITS: usize = 16;

/// One series to fill.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    /// Of whom.
    pub patient: PatientId,
    /// By which device.
    pub device: DeviceId,
    /// What.
    pub measure: Measure,
    /// Its least and greatest value.
    pub between: (i32, i32),
}

/// Fills each series with `count` readings, one a second from `from` on, and folds them; says how far it has come.
///
/// # Errors
/// When the store refuses.
pub fn fill(
    store: &SqliteStore,
    series: &[Filled],
    from: Timestamp,
    count: u64,
    progress: &mut dyn FnMut(u64),
) -> anyhow::Result<()> {
    let (mut waiting, mut size, mut commits, mut done) = (Vec::new(), 0, 0, 0);
    // A block closes when it is full, so that each visit of a series should bring whole blocks.
    let stretch = 4_096.min(count.max(1));
    let mut at = 0;
    while at < count {
        let length = stretch.min(count - at);
        for one in series {
            let record = stretch_of(one, from, at, length)?;
            size += record.facts.len();
            waiting.push(record);
            if size >= COMMIT_READINGS {
                commit(store, &mut waiting)?;
                (commits, done, size) = (commits + 1, done + size as u64, 0);
                progress(done);
            }
            if commits >= FOLD_COMMITS {
                fold(store)?;
                commits = 0;
            }
        }
        at += length;
    }
    commit(store, &mut waiting)?;
    fold(store)
}

fn commit(store: &SqliteStore, waiting: &mut Vec<FrameRecord>) -> anyhow::Result<()> {
    if !waiting.is_empty() {
        store.append(waiting, clock_now()).context("the store refuses")?;
        waiting.clear();
    }
    Ok(())
}

/// Folds everything; alarms and screens are taken to have seen it.
///
/// # Errors
/// When the store refuses.
pub fn fold(store: &SqliteStore) -> anyhow::Result<()> {
    let seen = (pipeline::after::ALARMS_CURSOR, store.last_group());
    store.transact(&Transaction { at: clock_now(), cursor: Some(seen), ..Transaction::default() })?;
    while store.fold(FOLD_COMMITS, clock_now())?.groups > 0 {}
    Ok(())
}

/// Now.
pub fn clock_now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// What validation is told.
pub struct Moment {
    device: Device,
    subject: Subject,
    received_at: Timestamp,
}

impl Moment {
    /// A device that is assigned to `subject`, heard at `received_at`.
    pub fn new(id: DeviceId, subject: Subject, received_at: Timestamp) -> Self {
        Moment { device: device(id), subject, received_at }
    }
}

impl Context for Moment {
    fn device(&self) -> &Device {
        &self.device
    }

    fn received_at(&self) -> Timestamp {
        self.received_at
    }

    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn subject_at(&self, _: Timestamp) -> Option<Subject> {
        Some(self.subject)
    }

    fn previous(&self, _: &SeriesKey) -> Option<(Timestamp, Decimal)> {
        None
    }
}

fn stretch_of(one: &Filled, from: Timestamp, first: u64, length: u64) -> anyhow::Result<FrameRecord> {
    let mut moment = Moment::new(one.device, Subject::Patient(one.patient), from);
    let mut facts = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    for number in first..first + length {
        let at = from.plus_micros(i64::try_from(number).unwrap_or(i64::MAX) * 1_000_000);
        moment.received_at = at.plus_micros(500_000);
        facts.push(reading(one.measure, at, one.value(number), &moment)?);
    }
    let frame = Frame {
        device: one.device,
        kind: FrameKind::Envelope,
        received_at: moment.received_at,
        delivery: Delivery::AtLeastOnce,
        bytes: Vec::new(),
    };
    Ok(FrameRecord { frame, facts, quarantined: Vec::new(), released: Vec::new() })
}

/// A number that a device says it measured at `at`, in the measure's own unit.
pub fn scalar(measure: Measure, at: Timestamp, value: i32) -> DecodedScalar {
    DecodedScalar {
        measure,
        value: DecodedValue::Number(Decimal::from_integer(value)),
        unit: measure.unit.to_owned(),
        time: DeviceTime::Utc(at),
        sequence: 0,
        findings: Findings::empty(),
    }
}

fn reading(measure: Measure, at: Timestamp, value: i32, moment: &Moment) -> anyhow::Result<Fact> {
    validate(Decoded::Scalar(scalar(measure, at, value)), moment).context("a made-up reading is possible")
}

impl Filled {
    /// A value that wanders between its bounds, as a heart rate does and no formula of one step predicts.
    pub fn value(&self, number: u64) -> i32 {
        let (least, most) = self.between;
        let noise =
            (mixed(number ^ (u64::from(self.measure.number) << 48)) >> 40) as f64 / f64::from(1 << 24);
        let swell = (number as f64 / 97.0).sin();
        least + (f64::from(most - least) * (0.5 + 0.35 * swell + 0.15 * (2.0 * noise - 1.0))).round() as i32
    }
}

/// Numbers without a pattern that a coder could find: multiples of one constant alone would flatter the sizes that are
/// measured (the finalizer of SplitMix64; Steele, Lea and Flood, 2014).
pub fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn device(id: DeviceId) -> Device {
    Device {
        id,
        name: "Load".into(),
        kind: "load".into(),
        manufacturer: "Auscult".into(),
        model: "load".into(),
        serial: String::new(),
        clock: ClockRule::Trust,
        utc_offset_min: 0,
        expected_interval_s: None,
        retired: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_values_stay_within_their_bounds_and_are_not_all_alike() {
        let one = Filled {
            patient: PatientId::from_bytes([1; 16]),
            device: DeviceId::from_bytes([2; 16]),
            measure: clinical_model::measure::HEART_RATE,
            between: (60, 100),
        };
        let values: Vec<i32> = (0..10_000).map(|number| one.value(number)).collect();
        assert!(values.iter().all(|value| (60..=100).contains(value)), "{:?}", values.iter().max());
        assert!(values.windows(2).filter(|pair| pair[0] != pair[1]).count() > 5_000);
    }
}
