//! What a device said, before anyone believed it: the output of decoding, the input of validation.

use std::ops::Range;

use crate::decimal::Decimal;
use crate::finding::Findings;
use crate::measure::Measure;
use crate::reading::Absent;
use crate::time::Timestamp;

/// When the device says it measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceTime {
    /// An instant with a known relation to UTC.
    Utc(Timestamp),
    /// A wall clock without a zone (all Bluetooth date-times): the fields read as if they were UTC.
    Local(Timestamp),
    /// The device sent no usable time.
    Unknown,
}

/// A number, or the reason there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DecodedValue {
    /// Digits as sent.
    Number(Decimal),
    /// No value, and why.
    Absent(Absent),
}

/// One number that a device sent.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodedScalar {
    /// What was measured.
    pub measure: Measure,
    /// The value in `unit`.
    pub value: DecodedValue,
    /// The unit as sent (UCUM, or a common spelling of it).
    pub unit: String,
    /// When, by the device.
    pub time: DeviceTime,
    /// Order among readings of the same instant, 0 where there is only one.
    pub sequence: u32,
    /// What the device itself reported about the measurement.
    pub findings: Findings,
}

/// One evenly sampled block that a device sent.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodedWaveform {
    /// Which curve.
    pub measure: Measure,
    /// Time of the first sample, by the device.
    pub time: DeviceTime,
    /// Samples a second, as the fraction `rate_numerator / rate_denominator`.
    pub rate_numerator: u32,
    /// See `rate_numerator`; at least 1.
    pub rate_denominator: u32,
    /// Unit of `count · gain + offset`.
    pub unit: String,
    /// Size of one count.
    pub gain: Decimal,
    /// Value at count 0.
    pub offset: Decimal,
    /// Counts; [`crate::reading::MISSING_SAMPLE`] marks a sample that is not there.
    pub samples: Vec<i16>,
    /// What the device itself reported.
    pub findings: Findings,
}

/// Something that happened to or at a device.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodedEvent {
    /// What kind of event.
    pub measure: Measure,
    /// When, by the device.
    pub time: DeviceTime,
    /// Order among events of the same instant.
    pub sequence: u32,
    /// Amount with unit, where the event has one (a dose).
    pub amount: Option<(Decimal, String)>,
    /// Free text of the device, cut to 200 characters by the codec.
    pub text: Option<String>,
}

/// One thing that a device said.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// A number.
    Scalar(DecodedScalar),
    /// A block of a curve.
    Waveform(DecodedWaveform),
    /// An event.
    Event(DecodedEvent),
}

/// Why an entry of a frame could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct DecodeFault {
    /// A stable word for statistics: `truncated`, `trailing-bytes`, `unknown-measure`, `bad-json` …
    pub code: &'static str,
    /// A sentence for a person: what was expected and what was there.
    pub what: String,
    /// Where in the frame, in bytes from its start.
    pub offset: usize,
}

/// One entry of a frame: a notification has one, a batch has many.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodedEntry {
    /// Which bytes of the frame this entry came from.
    pub span: Range<usize>,
    /// What it said, or why it could not be read. An entry is never half taken.
    pub result: Result<Vec<Decoded>, DecodeFault>,
}

/// All that one frame said, in its order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct DecodedFrame {
    /// The entries.
    pub entries: Vec<DecodedEntry>,
    /// The device's own count of its messages, where it sends one: it rises by one with each.
    pub message_number: Option<u32>,
}

impl DecodedFrame {
    /// A frame of these entries whose messages are not counted.
    pub const fn of(entries: Vec<DecodedEntry>) -> Self {
        DecodedFrame { entries, message_number: None }
    }

    /// A frame that is one readable entry.
    pub fn single(length: usize, decoded: Vec<Decoded>) -> Self {
        DecodedFrame::of(vec![DecodedEntry { span: 0..length, result: Ok(decoded) }])
    }

    /// A frame that could not be read at all.
    pub fn unreadable(length: usize, fault: DecodeFault) -> Self {
        DecodedFrame::of(vec![DecodedEntry { span: 0..length, result: Err(fault) }])
    }
}
