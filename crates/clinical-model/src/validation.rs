//! Validation: the only way from what a device said to what we believe. Odd is kept with findings; impossible is not.

use std::time::Duration;

use crate::decimal::Decimal;
use crate::decoded::{Decoded, DecodedEvent, DecodedScalar, DecodedValue, DecodedWaveform, DeviceTime};
use crate::device::{ClockRule, Device};
use crate::finding::Findings;
use crate::frame::Delivery;
use crate::id::Subject;
use crate::measure::{self, Measure};
use crate::quarantine::QuarantineReason;
use crate::reading::{Event, Fact, Reading, SEQUENCE_LIMIT, SeriesKey, Value, Waveform};
use crate::time::Timestamp;
use crate::unit::{self, UnitError};

/// A device's clock may run this far ahead of ours without a remark.
pub const CLOCK_AHEAD_REMARKED: Duration = Duration::from_secs(5);
/// Further ahead than this, a time is impossible: nothing is measured in the future.
pub const CLOCK_AHEAD_REFUSED: Duration = Duration::from_secs(300);
/// Older than this at receipt, a reading is marked late.
pub const LATE_AFTER: Duration = Duration::from_secs(120);
/// Older than this at receipt, the device's clock is taken to be wrong: no device of ours stores for so long.
pub const CLOCK_BEHIND_REFUSED: Duration = Duration::from_secs(400 * 86_400);
/// Neighbours further apart than this are not compared for fast change.
pub const FAST_CHANGE_WINDOW: Duration = Duration::from_secs(600);

/// A block of a curve spans no more than this: a device sends seconds at a time, and a rate that is wrong by a factor
/// of thousands must not lay one block over a patient's whole record.
pub const WAVEFORM_LONGEST: Duration = Duration::from_secs(3_600);
/// Least and largest size of one count of a curve, in the unit of the series: no converter is finer than a millionth of
/// a millionth, and what is coarser cannot be drawn.
pub const GAIN_POSSIBLE: (f64, f64) = (1e-12, 1e6);

/// What validation needs to know about the moment and the site.
pub trait Context {
    /// The device that sent the frame.
    fn device(&self) -> &Device;
    /// When the frame arrived.
    fn received_at(&self) -> Timestamp;
    /// What the transport promised.
    fn delivery(&self) -> Delivery;
    /// To whom the device was assigned at `at`.
    fn subject_at(&self, at: Timestamp) -> Option<Subject>;
    /// The latest earlier number of a series, if one is at hand.
    fn previous(&self, series: &SeriesKey) -> Option<(Timestamp, Decimal)>;
}

/// Why something decoded was not believed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// The device's time is impossible.
    #[error(
        "the device's time {claimed} cannot be right: it was received at {received}; set the device's clock rule and run it again"
    )]
    Clock {
        /// What the device's time came to.
        claimed: Timestamp,
        /// When the frame arrived.
        received: Timestamp,
    },
    /// The device was assigned to nobody then.
    #[error("the device was assigned to nobody at {at}; assign it for that time and run it again")]
    Unassigned {
        /// The time of the reading.
        at: Timestamp,
    },
    /// The unit does not fit.
    #[error("the unit of {} does not fit", measure.display)]
    Unit {
        /// What was measured.
        measure: Measure,
        /// How it does not fit.
        #[source]
        source: UnitError,
    },
    /// The value cannot be a measurement of this kind.
    #[error(
        "{} cannot be {value} {} ({} to {} are possible)",
        measure.display, measure.unit_display, measure.possible.0, measure.possible.1
    )]
    Impossible {
        /// What was measured.
        measure: Measure,
        /// The value in the unit of the series.
        value: Decimal,
    },
    /// A block whose rate, gain or length makes no sense.
    #[error("the waveform block of {} is not usable: {what}", measure.display)]
    Waveform {
        /// Which curve.
        measure: Measure,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The sequence number has no identifier.
    #[error("the sequence number {sequence} is too large; at most {SEQUENCE_LIMIT} can be told apart")]
    Sequence {
        /// As sent.
        sequence: u32,
    },
    /// Demonstration or test data.
    #[error("the device marks it as demonstration or test data")]
    Demonstration,
}

impl Rejection {
    /// The reason under which it is quarantined.
    pub const fn reason(&self) -> QuarantineReason {
        match self {
            Rejection::Clock { .. } => QuarantineReason::Clock,
            Rejection::Unassigned { .. } => QuarantineReason::Unassigned,
            Rejection::Unit { .. } => QuarantineReason::Unit,
            Rejection::Impossible { .. } | Rejection::Waveform { .. } | Rejection::Sequence { .. } => {
                QuarantineReason::Impossible
            }
            Rejection::Demonstration => QuarantineReason::Demonstration,
        }
    }
}

/// Turns one decoded thing into a fact with its findings, or says why it cannot be believed.
///
/// # Errors
/// [`Rejection`]: the caller quarantines the whole entry.
pub fn validate(decoded: Decoded, context: &dyn Context) -> Result<Fact, Rejection> {
    match decoded {
        Decoded::Scalar(scalar) => validate_scalar(scalar, context).map(Fact::Reading),
        Decoded::Waveform(waveform) => validate_waveform(waveform, context).map(Fact::Waveform),
        Decoded::Event(event) => validate_event(event, context).map(Fact::Event),
    }
}

fn validate_scalar(scalar: DecodedScalar, context: &dyn Context) -> Result<Reading, Rejection> {
    let measure = scalar.measure;
    check_sequence(scalar.sequence)?;
    let (series, measured_at, mut findings) = place(measure, scalar.time, scalar.findings, context)?;
    let value = match scalar.value {
        DecodedValue::Absent(absent) => Value::Absent(absent),
        DecodedValue::Number(number) => {
            let converted = unit::to_series_unit(measure, number, &scalar.unit)
                .map_err(|source| Rejection::Unit { measure, source })?;
            findings.set(Findings::UNIT_CONVERTED, converted.changed);
            findings |= plausibility(&series, measured_at, converted.value, context)?;
            Value::Number(converted.value)
        }
    };
    Ok(Reading::validated(series, measured_at, context.received_at(), scalar.sequence, value, findings))
}

/// A value that somebody puts in the place of a measured one, in the unit of the series: the same rules of unit and
/// possible range as for any other value.
///
/// # Errors
/// [`Rejection::Unit`], [`Rejection::Impossible`].
pub fn replacement(measure: Measure, value: DecodedValue, unit: &str) -> Result<Value, Rejection> {
    let number = match value {
        DecodedValue::Absent(absent) => return Ok(Value::Absent(absent)),
        DecodedValue::Number(number) => number,
    };
    let converted =
        unit::to_series_unit(measure, number, unit).map_err(|source| Rejection::Unit { measure, source })?;
    usual(measure, converted.value).map(|_| Value::Number(converted.value))
}

/// A reading as a correction left it: the same identity with another value, or the same value with other findings. What
/// was remarked about the measured value goes with it.
///
/// # Errors
/// [`Rejection::Impossible`].
pub fn restated(reading: &Reading, value: Value, marked: Findings) -> Result<Reading, Rejection> {
    let mut findings = reading.findings() | marked;
    if marked.intersects(Findings::CORRECTED | Findings::ENTERED_IN_ERROR) {
        findings.remove(Findings::PRELIMINARY);
    }
    if value != reading.value() {
        findings.remove(Findings::OUTSIDE_USUAL | Findings::FAST_CHANGE | Findings::UNIT_CONVERTED);
        if let Value::Number(number) = value {
            findings |= usual(reading.series().measure, number)?;
        }
    }
    let (at, received_at) = (reading.measured_at(), reading.received_at());
    Ok(Reading::validated(reading.series(), at, received_at, reading.sequence(), value, findings))
}

fn validate_waveform(waveform: DecodedWaveform, context: &dyn Context) -> Result<Waveform, Rejection> {
    let measure = waveform.measure;
    let unusable = |what| Rejection::Waveform { measure, what };
    if waveform.rate_numerator == 0 || waveform.rate_denominator == 0 {
        return Err(unusable("the sampling rate is zero"));
    }
    if waveform.rate_numerator / waveform.rate_denominator > 100_000 {
        return Err(unusable("the sampling rate is above 100,000 a second"));
    }
    if waveform.samples.is_empty() {
        return Err(unusable("it has no samples"));
    }
    let longest_samples = u128::from(WAVEFORM_LONGEST.as_secs()) * u128::from(waveform.rate_numerator);
    if waveform.samples.len() as u128 * u128::from(waveform.rate_denominator) > longest_samples {
        return Err(unusable("it spans more than an hour"));
    }
    let (series, start, mut findings) = place(measure, waveform.time, waveform.findings, context)?;
    let unit_error = |source| Rejection::Unit { measure, source };
    // Gain and offset are converted as differences from zero; offset units (degrees) never carry waveforms.
    let gain = unit::to_series_unit(measure, waveform.gain, &waveform.unit).map_err(unit_error)?;
    let offset = unit::to_series_unit(measure, waveform.offset, &waveform.unit).map_err(unit_error)?;
    findings.set(Findings::UNIT_CONVERTED, gain.changed);
    // Asked of the converted gain: rounding may have made it zero.
    if gain.value.mantissa() == 0 {
        return Err(unusable("the gain is zero"));
    }
    if !(GAIN_POSSIBLE.0..=GAIN_POSSIBLE.1).contains(&gain.value.to_f64().abs()) {
        return Err(unusable("the gain is far outside what a device can measure"));
    }
    let waveform = Waveform {
        series,
        start,
        received_at: context.received_at(),
        rate_numerator: waveform.rate_numerator,
        rate_denominator: waveform.rate_denominator,
        gain: gain.value,
        offset: offset.value,
        samples: waveform.samples,
        findings,
    };
    placed_whole(&waveform, context)?;
    Ok(waveform)
}

/// A block is one curve of one subject in the past: it neither reaches into the future nor over a change of assignment.
fn placed_whole(waveform: &Waveform, context: &dyn Context) -> Result<(), Rejection> {
    if waveform.findings.contains(Findings::TIME_RECEIVED) {
        return Ok(());
    }
    let received = context.received_at();
    let end = waveform.end();
    if end > received.plus(CLOCK_AHEAD_REFUSED) {
        return Err(Rejection::Clock { claimed: end, received });
    }
    let last = waveform.start.plus_micros(waveform.offset_micros(waveform.samples.len().saturating_sub(1)));
    match context.subject_at(last) {
        Some(subject) if subject != waveform.series.subject => Err(Rejection::Waveform {
            measure: waveform.series.measure,
            what: "the device was assigned to another in the middle of it",
        }),
        _ => Ok(()),
    }
}

/// What has no identifier is refused, rather than kept and never shown.
fn check_sequence(sequence: u32) -> Result<(), Rejection> {
    if sequence > SEQUENCE_LIMIT { Err(Rejection::Sequence { sequence }) } else { Ok(()) }
}

fn validate_event(event: DecodedEvent, context: &dyn Context) -> Result<Event, Rejection> {
    check_sequence(event.sequence)?;
    let (series, at, findings) = place(event.measure, event.time, Findings::empty(), context)?;
    Ok(Event {
        series,
        at,
        received_at: context.received_at(),
        sequence: event.sequence,
        amount: event.amount,
        text: event.text,
        findings,
    })
}

/// Finds the instant and the series, and the findings that come with them.
fn place(
    measure: Measure,
    time: DeviceTime,
    reported: Findings,
    context: &dyn Context,
) -> Result<(SeriesKey, Timestamp, Findings), Rejection> {
    if reported.contains(Findings::DEMONSTRATION) {
        return Err(Rejection::Demonstration);
    }
    let (measured_at, clock) = resolve_time(time, reported, context)?;
    let device = context.device().id;
    let subject = if measure == measure::BATTERY_LEVEL {
        Subject::Device(device)
    } else {
        context.subject_at(measured_at).ok_or(Rejection::Unassigned { at: measured_at })?
    };
    let mut findings = reported | clock;
    findings.set(Findings::AT_MOST_ONCE, context.delivery() == Delivery::AtMostOnce);
    Ok((SeriesKey { subject, measure, device }, measured_at, findings))
}

/// The instant of measurement under the device's clock rule.
fn resolve_time(
    time: DeviceTime,
    reported: Findings,
    context: &dyn Context,
) -> Result<(Timestamp, Findings), Rejection> {
    let received = context.received_at();
    let device = context.device();
    let claimed = match time {
        DeviceTime::Utc(at) => Some(at),
        DeviceTime::Local(at) => Some(at.plus_micros(-i64::from(device.utc_offset_min) * 60_000_000)),
        DeviceTime::Unknown => None,
    };
    let claimed = claimed.filter(|_| !reported.contains(Findings::CLOCK_NOT_SET));
    let (at, mut findings) = match (claimed, device.clock) {
        (None, _) | (_, ClockRule::UseReceived) => return Ok((received, Findings::TIME_RECEIVED)),
        (Some(at), ClockRule::Trust) => (at, Findings::empty()),
        (Some(at), ClockRule::Shift { seconds }) => {
            (at.plus_micros(seconds.saturating_mul(1_000_000)), Findings::CLOCK_CORRECTED)
        }
    };
    if at > received.plus(CLOCK_AHEAD_REFUSED) || at < received.minus(CLOCK_BEHIND_REFUSED) {
        return Err(Rejection::Clock { claimed: at, received });
    }
    findings.set(Findings::CLOCK_AHEAD, at > received.plus(CLOCK_AHEAD_REMARKED));
    findings.set(Findings::LATE, at < received.minus(LATE_AFTER));
    Ok((at, findings))
}

/// Range and rate of change, from the one table of measures.
fn plausibility(
    series: &SeriesKey,
    measured_at: Timestamp,
    value: Decimal,
    context: &dyn Context,
) -> Result<Findings, Rejection> {
    let measure = series.measure;
    let number = value.to_f64();
    let mut findings = usual(measure, value)?;
    if let (Some(limit), Some((before_at, before))) = (measure.max_change_per_min, context.previous(series)) {
        let apart = measured_at.duration_since(before_at);
        if !apart.is_zero() && apart <= FAST_CHANGE_WINDOW {
            // At least one second, so that two readings in one instant do not divide by nothing.
            let minutes = apart.as_secs_f64().max(1.0) / 60.0;
            let change = (number - before.to_f64()).abs();
            findings.set(Findings::FAST_CHANGE, change > limit * minutes.max(1.0 / 6.0));
        }
    }
    Ok(findings)
}

/// Whether a number is possible, and whether it is unusual.
fn usual(measure: Measure, value: Decimal) -> Result<Findings, Rejection> {
    let number = value.to_f64();
    let inside = |range: (f64, f64)| range.0 <= number && number <= range.1;
    if !inside(measure.possible) {
        return Err(Rejection::Impossible { measure, value });
    }
    let mut findings = Findings::empty();
    findings.set(Findings::OUTSIDE_USUAL, !inside(measure.usual));
    Ok(findings)
}

#[cfg(test)]
mod tests;
