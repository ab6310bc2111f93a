//! The four shapes of an entry: scalar, panel, waveform and event.

use clinical_model::decoded::{DecodeFault, DecodedEvent, DecodedScalar};
use clinical_model::reading::Absent;
use clinical_model::{Decoded, DecodedValue, DeviceTime, Findings, Measure, MeasureKind, Timestamp};
use serde_json::value::RawValue;

use super::fields::{Fields, List, Source};
use super::{DEVICE_FLAGS, MAX_FLAGS, MAX_TEXT_CHARS, waveform};
use crate::fault::{self, quote};

/// The names of the reasons why there is no value, as the envelope spells them.
pub(super) const ABSENT_NAMES: [(&str, Absent); 5] = [
    ("not-a-number", Absent::NotANumber),
    ("positive-infinity", Absent::PositiveInfinity),
    ("negative-infinity", Absent::NegativeInfinity),
    ("error", Absent::Error),
    ("unavailable", Absent::Unavailable),
];

/// Reads one entry: the field that names its shape comes first, the rest by the shape, and nothing may be left.
pub(super) fn read<'a>(source: &Source<'a>, mut fields: Fields<'a>) -> Result<Vec<Decoded>, DecodeFault> {
    let shapes = ["measure", "panel", "waveform", "event"];
    let mut named = shapes.iter().copied().filter(|shape| fields.has(shape));
    let (first, second) = (named.next(), named.next());
    match (first, second) {
        (Some(one), Some(other)) => {
            let what = format!("an entry has one of {one} and {other}, not both");
            Err(fault::at(fault::CONFLICTING_FIELDS, fields.offset, what))
        }
        (Some("measure"), None) => scalar(source, &mut fields).and_then(|decoded| {
            fields.finish(source, "measure, value, absent, unit, time, local_time, sequence and flags")?;
            Ok(decoded)
        }),
        (Some("panel"), None) => panel(source, &mut fields).and_then(|decoded| {
            fields.finish(source, "panel, values, absent, unit, time, local_time, sequence and flags")?;
            Ok(decoded)
        }),
        (Some("waveform"), None) => waveform::read(source, &mut fields).and_then(|decoded| {
            let known =
                "waveform, time, local_time, rate, unit, gain, offset, samples, samples_base64 and flags";
            fields.finish(source, known)?;
            Ok(vec![Decoded::Waveform(decoded)])
        }),
        (Some(_), None) => event(source, &mut fields).and_then(|decoded| {
            fields.finish(source, "event, time, local_time, amount, unit, text and sequence")?;
            Ok(vec![Decoded::Event(decoded)])
        }),
        (None, _) => {
            let what = "an entry names its shape by one of the fields measure, panel, waveform and event";
            Err(fault::at(fault::UNKNOWN_SHAPE, fields.offset, what))
        }
    }
}

fn scalar<'a>(source: &Source<'a>, fields: &mut Fields<'a>) -> Result<Vec<Decoded>, DecodeFault> {
    let measure = measure(source, fields, "measure", "a single number", |measure| measure.is_scalar())?;
    let findings = flags(source, fields)?;
    let absent = absent(source, fields)?;
    let number = fields.take("value");
    let place = number.map_or(fields.offset, |raw| source.offset(raw.get()));
    let value = value(source, number, "value", absent, place, findings)?;
    let unit = unit(source, fields, measure)?;
    let time = time(source, fields)?;
    let sequence = sequence(source, fields)?;
    Ok(vec![Decoded::Scalar(DecodedScalar { measure, value, unit, time, sequence, findings })])
}

fn panel<'a>(source: &Source<'a>, fields: &mut Fields<'a>) -> Result<Vec<Decoded>, DecodeFault> {
    let panel = measure(source, fields, "panel", "a panel", |measure| measure.kind == MeasureKind::Panel)?;
    let findings = flags(source, fields)?;
    let absent = absent(source, fields)?;
    let unit = unit(source, fields, panel)?;
    let time = time(source, fields)?;
    let sequence = sequence(source, fields)?;
    let values = fields.need("values")?;
    let components = panel.components();
    let mut decoded: Vec<Decoded> = Vec::with_capacity(components.len());
    let mut values_are_missing = false;
    for field in Fields::read(source, values.get())?.into_all() {
        let named = |measure: &&Measure| names(**measure, &field.name);
        let Some(measure) = components.iter().find(named).copied() else {
            let known: Vec<&str> = components.iter().map(|measure| measure.name).collect();
            let what = format!(
                "{} is no component of {}; known are {}",
                quote(&field.name),
                panel.name,
                known.join(", ")
            );
            return Err(source.fault_at_key(&field, fault::UNKNOWN_MEASURE, what));
        };
        // Two names of one component.
        if decoded.iter().any(|one| matches!(one, Decoded::Scalar(scalar) if scalar.measure == measure)) {
            let what = format!("{} stands twice under different names", measure.name);
            return Err(source.fault_at_key(&field, fault::DUPLICATE_FIELD, what));
        }
        let place = source.offset(field.value.get());
        // The reason stands once for all components that are null.
        let value = match field.value.get() {
            "null" => {
                values_are_missing = true;
                value(source, None, measure.name, absent, place, findings)?
            }
            _ => value(source, Some(field.value), measure.name, None, place, findings)?,
        };
        let unit = unit.clone();
        decoded.push(Decoded::Scalar(DecodedScalar { measure, value, unit, time, sequence, findings }));
    }
    if decoded.is_empty() {
        return Err(source.fault(values, fault::MISSING_FIELD, "the panel has no values"));
    }
    if absent.is_some() && !values_are_missing {
        return Err(source.fault(
            values,
            fault::CONFLICTING_FIELDS,
            "\"absent\" without a component that is null",
        ));
    }
    Ok(decoded)
}

fn event<'a>(source: &Source<'a>, fields: &mut Fields<'a>) -> Result<DecodedEvent, DecodeFault> {
    let measure = measure(source, fields, "event", "an event", |measure| measure.kind == MeasureKind::Event)?;
    let time = time(source, fields)?;
    let sequence = sequence(source, fields)?;
    let amount = match (fields.take("amount"), fields.take("unit")) {
        (Some(amount), Some(unit)) => {
            Some((source.decimal(amount, "amount")?, source.word(unit, "unit")?.into_owned()))
        }
        // An amount without its unit is how a dose goes wrong by a factor of ten.
        (Some(amount), None) => {
            return Err(source.fault(amount, fault::MISSING_FIELD, "an amount needs its unit"));
        }
        (None, Some(unit)) => {
            return Err(source.fault(unit, fault::CONFLICTING_FIELDS, "a unit without an amount"));
        }
        (None, None) => None,
    };
    let text = match fields.take("text") {
        Some(raw) => Some(source.text(raw, "text")?.chars().take(MAX_TEXT_CHARS).collect()),
        None => None,
    };
    Ok(DecodedEvent { measure, time, sequence, amount, text })
}

/// The measure under one of its names: ours, LOINC, MDC number or MDC reference id; of the shape that is wanted.
pub(super) fn measure<'a>(
    source: &Source<'a>,
    fields: &mut Fields<'a>,
    field: &str,
    shape: &str,
    fits: impl Fn(Measure) -> bool,
) -> Result<Measure, DecodeFault> {
    let raw = fields.need(field)?;
    let name = source.word(raw, field)?;
    let Some(measure) = Measure::find(&name) else {
        let what = format!("{field} {} is not known by name, LOINC or MDC", quote(&name));
        return Err(source.fault(raw, fault::UNKNOWN_MEASURE, what));
    };
    if !fits(measure) {
        return Err(source.fault(raw, fault::WRONG_KIND, format!("{} is not {shape}", measure.name)));
    }
    Ok(measure)
}

/// What a component is to its panel: within one, `systolic` needs no further name.
const ROLES: [&str; 3] = ["systolic", "diastolic", "mean"];

/// Whether a measure carries this name; a LOINC code may be shared, so this is asked of a panel's own components.
fn names(measure: Measure, name: &str) -> bool {
    measure.name == name
        || (ROLES.contains(&name) && measure.name.split('_').any(|word| word == name))
        || measure.loinc == Some(name)
        || measure.also_loinc.contains(&name)
        || (!measure.mdc_refid.is_empty() && measure.mdc_refid == name)
        || (measure.mdc.is_some() && name.parse().ok() == measure.mdc)
}

/// The number, or the reason that stands in for it. What the device calls invalid is no number, whatever digits
/// stand beside it: the same rule as for an oximeter that speaks Bluetooth.
fn value(
    source: &Source<'_>,
    number: Option<&RawValue>,
    name: &str,
    absent: Option<Absent>,
    place: usize,
    findings: Findings,
) -> Result<DecodedValue, DecodeFault> {
    match (number, absent) {
        (Some(raw), None) => {
            let number = source.decimal(raw, name)?;
            let invalid = findings.contains(Findings::INVALID);
            Ok(if invalid { DecodedValue::Absent(Absent::Error) } else { DecodedValue::Number(number) })
        }
        (None, Some(reason)) => Ok(DecodedValue::Absent(reason)),
        (None, None) => {
            let what = format!("{name} is missing; without a value, \"absent\" says why");
            Err(fault::at(fault::MISSING_FIELD, place, what))
        }
        (Some(_), Some(_)) => {
            let what = format!("{name} and \"absent\" exclude each other");
            Err(fault::at(fault::CONFLICTING_FIELDS, place, what))
        }
    }
}

fn absent<'a>(source: &Source<'a>, fields: &mut Fields<'a>) -> Result<Option<Absent>, DecodeFault> {
    let Some(raw) = fields.take("absent") else {
        return Ok(None);
    };
    let name = source.word(raw, "absent")?;
    match ABSENT_NAMES.iter().find(|(known, _)| *known == name) {
        Some((_, reason)) => Ok(Some(*reason)),
        None => {
            let known: Vec<&str> = ABSENT_NAMES.iter().map(|(known, _)| *known).collect();
            let what = format!("{} is no reason for absence; known are {}", quote(&name), known.join(", "));
            Err(source.fault(raw, fault::UNKNOWN_REASON, what))
        }
    }
}

/// The unit as sent, or that of the series. Whether it fits is validation's question.
pub(super) fn unit<'a>(
    source: &Source<'a>,
    fields: &mut Fields<'a>,
    measure: Measure,
) -> Result<String, DecodeFault> {
    match fields.take("unit") {
        Some(raw) => source.word(raw, "unit").map(|unit| unit.into_owned()),
        None => Ok(measure.unit.to_owned()),
    }
}

fn sequence<'a>(source: &Source<'a>, fields: &mut Fields<'a>) -> Result<u32, DecodeFault> {
    fields.take("sequence").map_or(Ok(0), |raw| source.count(raw, "sequence"))
}

/// `time` with an offset, `local_time` without one, or neither.
pub(super) fn time<'a>(source: &Source<'a>, fields: &mut Fields<'a>) -> Result<DeviceTime, DecodeFault> {
    match (fields.take("time"), fields.take("local_time")) {
        (Some(raw), None) => {
            let text = source.word(raw, "time")?;
            let at = civil_length(&text).filter(|length| is_offset(&text[*length..]));
            let at = at.and_then(|_| text.parse::<Timestamp>().ok());
            let what = || format!("time {} is no RFC 3339 date and time with an offset", quote(&text));
            at.map(DeviceTime::Utc).ok_or_else(|| source.fault(raw, fault::BAD_TIME, what()))
        }
        (None, Some(raw)) => {
            let text = source.word(raw, "local_time")?;
            let at = civil_length(&text).filter(|length| *length == text.len());
            let at = at.and_then(|_| format!("{text}Z").parse::<Timestamp>().ok());
            let what = || format!("local_time {} is no date and time without an offset", quote(&text));
            at.map(DeviceTime::Local).ok_or_else(|| source.fault(raw, fault::BAD_TIME, what()))
        }
        (Some(_), Some(raw)) => {
            let what = "time and local_time exclude each other";
            Err(source.fault(raw, fault::CONFLICTING_FIELDS, what))
        }
        (None, None) => Ok(DeviceTime::Unknown),
    }
}

/// Length of `YYYY-MM-DDThh:mm:ss[.f…]` at the start of a text.
fn civil_length(text: &str) -> Option<usize> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let bytes = text.as_bytes();
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        _ => byte == shape,
    };
    if bytes.len() < SHAPE.len() || !bytes.iter().zip(SHAPE).all(fits) {
        return None;
    }
    let fraction = match bytes[SHAPE.len()..].strip_prefix(b".") {
        None => return Some(SHAPE.len()),
        Some(rest) => rest.iter().take_while(|byte| byte.is_ascii_digit()).count(),
    };
    (fraction > 0).then_some(SHAPE.len() + 1 + fraction)
}

/// `Z` or `±hh:mm`.
fn is_offset(text: &str) -> bool {
    let digit = |byte: &u8| byte.is_ascii_digit();
    match text.as_bytes() {
        b"Z" => true,
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].into_iter().all(digit),
        _ => false,
    }
}

/// The flags that the device reports.
pub(super) fn flags<'a>(source: &Source<'a>, fields: &mut Fields<'a>) -> Result<Findings, DecodeFault> {
    let Some(raw) = fields.take("flags") else {
        return Ok(Findings::empty());
    };
    let list = List { name: "flags", limit: MAX_FLAGS, too_many: fault::UNKNOWN_FLAG };
    let mut findings = Findings::empty();
    for item in source.list(raw.get(), list)? {
        let name = source.word(item, "a flag")?;
        let known = DEVICE_FLAGS.described();
        let bit = DEVICE_FLAGS.iter().zip(&known).find(|(_, (known, _))| *known == name);
        let Some((bit, _)) = bit else {
            let known: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let what = format!("{} is no flag of a device; known are {}", quote(&name), known.join(", "));
            return Err(source.fault(item, fault::UNKNOWN_FLAG, what));
        };
        findings |= bit;
    }
    Ok(findings)
}
