//! Readings, waveforms and events that were believed: what validation made and what the store keeps.

use crate::decimal::Decimal;
use crate::finding::Findings;
use crate::id::{DeviceId, Subject};
use crate::measure::Measure;
use crate::time::Timestamp;

/// The count that marks a sample that is not there.
pub const MISSING_SAMPLE: i16 = i16::MIN;

/// Largest sequence number of a reading or an event: its public identifier has 24 bits for it. A larger one is refused
/// at the door, since what is kept without an identifier could never be shown again.
pub const SEQUENCE_LIMIT: u32 = (1 << 24) - 1;

/// Why there is no number. The discriminants are part of the storage format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Absent {
    /// The device sent "not a number".
    NotANumber = 1,
    /// Above what the device can express.
    PositiveInfinity = 2,
    /// Below what the device can express.
    NegativeInfinity = 3,
    /// The device sent "not at this resolution", a reserved value, or says that measuring failed.
    Error = 4,
    /// The device says that the value is not available now.
    Unavailable = 5,
}

impl Absent {
    /// The inverse of the discriminant.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Absent::NotANumber),
            2 => Some(Absent::PositiveInfinity),
            3 => Some(Absent::NegativeInfinity),
            4 => Some(Absent::Error),
            5 => Some(Absent::Unavailable),
            _ => None,
        }
    }
}

/// A number in the unit of its series, or the reason there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// Digits as sent, or as converted to the unit of the series.
    Number(Decimal),
    /// No number, and why.
    Absent(Absent),
}

impl Value {
    /// The digits, if there are any.
    pub const fn number(self) -> Option<Decimal> {
        match self {
            Value::Number(value) => Some(value),
            Value::Absent(_) => None,
        }
    }
}

/// Subject × measure × device: what belongs into one curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// Whom or what it is about.
    pub subject: Subject,
    /// What is measured.
    pub measure: Measure,
    /// By which device.
    pub device: DeviceId,
}

/// One scalar at one instant, built by validation alone.
///
/// Its identity is (series, measured time, sequence): the same reading always has the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    series: SeriesKey,
    measured_at: Timestamp,
    received_at: Timestamp,
    sequence: u32,
    value: Value,
    findings: Findings,
}

impl Reading {
    /// Only [`crate::validation`] builds new readings.
    pub(crate) const fn validated(
        series: SeriesKey,
        measured_at: Timestamp,
        received_at: Timestamp,
        sequence: u32,
        value: Value,
        findings: Findings,
    ) -> Self {
        Reading { series, measured_at, received_at, sequence, value, findings }
    }

    /// A reading as it was kept: for the store, when it reads back what validation once made. A project check
    /// refuses any other caller.
    pub const fn restored(
        series: SeriesKey,
        measured_at: Timestamp,
        received_at: Timestamp,
        sequence: u32,
        value: Value,
        findings: Findings,
    ) -> Self {
        Reading::validated(series, measured_at, received_at, sequence, value, findings)
    }

    /// Which curve it belongs to.
    pub const fn series(&self) -> SeriesKey {
        self.series
    }

    /// When the device measured it.
    pub const fn measured_at(&self) -> Timestamp {
        self.measured_at
    }

    /// When its frame arrived here, in milliseconds.
    pub const fn received_at(&self) -> Timestamp {
        self.received_at
    }

    /// Order among readings of one series at one instant.
    pub const fn sequence(&self) -> u32 {
        self.sequence
    }

    /// The number, or why there is none.
    pub const fn value(&self) -> Value {
        self.value
    }

    /// What is odd about it.
    pub const fn findings(&self) -> Findings {
        self.findings
    }
}

/// An evenly sampled block of a curve, built by validation alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Waveform {
    /// Which curve.
    pub series: SeriesKey,
    /// Time of the first sample.
    pub start: Timestamp,
    /// When its frame arrived here.
    pub received_at: Timestamp,
    /// Samples a second = numerator / denominator.
    pub rate_numerator: u32,
    /// See `rate_numerator`; at least 1.
    pub rate_denominator: u32,
    /// Size of one count in the unit of the series.
    pub gain: Decimal,
    /// Value at count 0 in the unit of the series.
    pub offset: Decimal,
    /// Counts; [`MISSING_SAMPLE`] marks a sample that is not there.
    pub samples: Vec<i16>,
    /// What is odd about it.
    pub findings: Findings,
}

impl Waveform {
    /// Microseconds from the first sample to sample number `index`.
    pub fn offset_micros(&self, index: usize) -> i64 {
        let micros =
            index as i128 * 1_000_000 * i128::from(self.rate_denominator) / i128::from(self.rate_numerator);
        i64::try_from(micros).unwrap_or(i64::MAX)
    }

    /// The part whose samples lie in `[from, to)`; `None` where there is none.
    pub fn within(&self, from: Timestamp, to: Timestamp) -> Option<Waveform> {
        let at = |index: usize| self.start.plus_micros(self.offset_micros(index));
        let first = (0..self.samples.len()).find(|index| from <= at(*index))?;
        let end = (first..self.samples.len()).find(|index| to <= at(*index)).unwrap_or(self.samples.len());
        if end <= first {
            return None;
        }
        Some(Waveform { start: at(first), samples: self.samples[first..end].to_vec(), ..self.clone() })
    }

    /// The instant after the last sample: where the next block is expected.
    pub fn end(&self) -> Timestamp {
        self.start.plus_micros(self.offset_micros(self.samples.len()))
    }
}

/// Something that happened, built by validation alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whom, what and by which device.
    pub series: SeriesKey,
    /// When.
    pub at: Timestamp,
    /// When its frame arrived here.
    pub received_at: Timestamp,
    /// Order among events of one series at one instant.
    pub sequence: u32,
    /// Amount with its UCUM unit, where the event has one.
    pub amount: Option<(Decimal, String)>,
    /// Free text of the device.
    pub text: Option<String>,
    /// What is odd about it.
    pub findings: Findings,
}

/// One of the three shapes, believed.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A number at an instant.
    Reading(Reading),
    /// A block of a curve.
    Waveform(Waveform),
    /// Something that happened.
    Event(Event),
}

impl Fact {
    /// What is odd about any shape.
    pub const fn findings(&self) -> Findings {
        match self {
            Fact::Reading(reading) => reading.findings(),
            Fact::Waveform(waveform) => waveform.findings,
            Fact::Event(event) => event.findings,
        }
    }

    /// The instant of any shape: of a block, that of its first sample.
    pub const fn at(&self) -> Timestamp {
        match self {
            Fact::Reading(reading) => reading.measured_at(),
            Fact::Waveform(waveform) => waveform.start,
            Fact::Event(event) => event.at,
        }
    }

    /// The series of any shape.
    pub fn series(&self) -> SeriesKey {
        match self {
            Fact::Reading(reading) => reading.series(),
            Fact::Waveform(waveform) => waveform.series,
            Fact::Event(event) => event.series,
        }
    }
}

/// Something that is on stable storage. Chart, alerts and screens accept nothing less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    inner: T,
    committed_at: Timestamp,
    group: u64,
}

impl<T> Committed<T> {
    /// For the store alone, after its commit returned or when it reads back what it kept. A project check refuses
    /// any other caller.
    pub const fn restored(inner: T, committed_at: Timestamp, group: u64) -> Self {
        Committed { inner, committed_at, group }
    }

    /// A part of what was committed is committed too.
    pub fn part<U>(&self, part: impl FnOnce(&T) -> Option<U>) -> Option<Committed<U>> {
        let inner = part(&self.inner)?;
        Some(Committed { inner, committed_at: self.committed_at, group: self.group })
    }

    /// When the group that carried it was committed.
    pub const fn committed_at(&self) -> Timestamp {
        self.committed_at
    }

    /// Number of the committed group; 0 where it has been folded into a block.
    pub const fn group(&self) -> u64 {
        self.group
    }

    /// What was committed.
    pub const fn get(&self) -> &T {
        &self.inner
    }
}

impl<T> std::ops::Deref for Committed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}
