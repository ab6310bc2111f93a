//! The waveform shape: rate, scale and the samples, as numbers or as base64 of little-endian 16-bit counts.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clinical_model::decoded::{DecodeFault, DecodedWaveform};
use clinical_model::{Decimal, Measure, MeasureKind};
use serde::Deserializer as _;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Fields, Source, whole};
use super::{MAX_SAMPLES, entry};
use crate::fault;

/// Longest base64 text of [`MAX_SAMPLES`] counts of two bytes, in bytes.
const MAX_BASE64_BYTES: usize = (MAX_SAMPLES * 2).div_ceil(3) * 4;

pub(super) fn read<'a>(source: &Source<'a>, fields: &mut Fields<'a>) -> Result<DecodedWaveform, DecodeFault> {
    let is_waveform = |measure: Measure| measure.kind == MeasureKind::Waveform;
    let measure = entry::measure(source, fields, "waveform", "a waveform", is_waveform)?;
    let findings = entry::flags(source, fields)?;
    let time = entry::time(source, fields)?;
    let (rate_numerator, rate_denominator) = rate(source, fields.need("rate")?)?;
    let unit = entry::unit(source, fields, measure)?;
    let gain = source.decimal(fields.need("gain")?, "gain")?;
    let offset =
        fields.take("offset").map_or(Ok(Decimal::from_integer(0)), |raw| source.decimal(raw, "offset"))?;
    let samples = match (fields.take("samples"), fields.take("samples_base64")) {
        (Some(raw), None) => numbers(source, raw)?,
        (None, Some(raw)) => packed(source, raw)?,
        (Some(_), Some(raw)) => {
            let what = "samples and samples_base64 exclude each other";
            return Err(source.fault(raw, fault::CONFLICTING_FIELDS, what));
        }
        (None, None) => {
            let what = "samples or samples_base64 is missing";
            return Err(fault::at(fault::MISSING_FIELD, fields.offset, what));
        }
    };
    Ok(DecodedWaveform {
        measure,
        time,
        rate_numerator,
        rate_denominator,
        unit,
        gain,
        offset,
        samples,
        findings,
    })
}

/// Samples a second: a number (62.5 is 125/2) or `{"numerator": …, "denominator": …}`, as a fraction in lowest
/// terms in the first case and as sent in the second.
fn rate<'a>(source: &Source<'a>, raw: &'a RawValue) -> Result<(u32, u32), DecodeFault> {
    if source.first_byte(raw) == b'{' {
        let mut fields = Fields::read(source, raw.get())?;
        let numerator = source.count(fields.need("numerator")?, "numerator")?;
        let denominator = source.count(fields.need("denominator")?, "denominator")?;
        fields.finish(source, "numerator and denominator")?;
        return Ok((numerator, denominator));
    }
    let decimal = source.decimal(raw, "rate")?;
    let power = 10u64.checked_pow(u32::from(decimal.exponent().unsigned_abs()));
    let fraction = power.zip(u64::try_from(decimal.mantissa()).ok()).and_then(|(power, mantissa)| {
        let (top, bottom) =
            if decimal.exponent() < 0 { (mantissa, power) } else { (mantissa.checked_mul(power)?, 1) };
        let divisor = common_divisor(top, bottom);
        Some((u32::try_from(top / divisor).ok()?, u32::try_from(bottom / divisor).ok()?))
    });
    let what = "rate cannot be written as a fraction of two 32-bit numbers";
    fraction.ok_or_else(|| source.fault(raw, fault::NUMBER_OUT_OF_RANGE, what))
}

/// `bottom` is at least 1.
fn common_divisor(mut top: u64, mut bottom: u64) -> u64 {
    while top != 0 {
        (top, bottom) = (bottom % top, top);
    }
    bottom
}

fn too_many(source: &Source<'_>, raw: &RawValue) -> DecodeFault {
    source.fault(raw, fault::BAD_SAMPLES, format!("more than {MAX_SAMPLES} samples in one block"))
}

fn packed<'a>(source: &Source<'a>, raw: &'a RawValue) -> Result<Vec<i16>, DecodeFault> {
    let text = source.text(raw, "samples_base64")?;
    if text.len() > MAX_BASE64_BYTES {
        return Err(too_many(source, raw));
    }
    let bytes = STANDARD.decode(text.as_bytes()).map_err(|error| {
        source.fault(raw, fault::BAD_SAMPLES, format!("samples_base64 is not base64: {error}"))
    })?;
    let (counts, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        let what = format!("{} bytes of samples are not a whole number of 16-bit counts", bytes.len());
        return Err(source.fault(raw, fault::BAD_SAMPLES, what));
    }
    if counts.len() > MAX_SAMPLES {
        return Err(too_many(source, raw));
    }
    Ok(counts.iter().map(|count| i16::from_le_bytes(*count)).collect())
}

fn numbers<'a>(source: &Source<'a>, raw: &'a RawValue) -> Result<Vec<i16>, DecodeFault> {
    if source.first_byte(raw) != b'[' {
        return Err(source.wrong_type(raw, "samples", "a list"));
    }
    let mut read = 0;
    let visitor = SamplesVisitor { read: &mut read };
    let samples = whole(raw.get(), |json| json.deserialize_seq(visitor));
    samples.map_err(|error| {
        if read > MAX_SAMPLES {
            return too_many(source, raw);
        }
        let place = source.json_fault(source.offset(raw.get()), &error).offset;
        let what = format!("sample {read} (from 0) is no whole number from -32768 (missing) to 32767");
        fault::at(fault::BAD_SAMPLES, place, what)
    })
}

/// Counts the samples as they are read, so that a fault can name the one that failed.
struct SamplesVisitor<'o> {
    read: &'o mut usize,
}

impl<'de> Visitor<'de> for SamplesVisitor<'_> {
    type Value = Vec<i16>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of 16-bit counts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Vec<i16>, A::Error> {
        let mut samples = Vec::new();
        while let Some(sample) = access.next_element()? {
            *self.read += 1;
            if *self.read > MAX_SAMPLES {
                return Err(A::Error::custom("too many samples"));
            }
            samples.push(sample);
        }
        Ok(samples)
    }
}
