//! SampledData as a decoded waveform: counts of sixteen bits, an exact rate.

use clinical_model::decoded::DecodedWaveform;
use clinical_model::reading::MISSING_SAMPLE;
use clinical_model::{Decimal, DeviceTime, Findings, Measure};
use serde_json::Value;

use super::super::element::{cut, extension, text};
use super::super::outcome::IssueCode;
use super::super::system;

/// Samples of one SampledData: ten minutes at 1,000 a second; more are sent in several components.
pub(super) const SAMPLES_LIMIT: usize = 600_000;

/// Name of the element, kind of issue, sentence.
type Refusal = (&'static str, IssueCode, String);

/// Reads a valid SampledData.
pub(super) fn read(
    sampled: &Value,
    measure: Measure,
    time: DeviceTime,
    findings: Findings,
) -> Result<DecodedWaveform, Refusal> {
    if sampled["dimensions"].as_u64() != Some(1) {
        let what = "a curve has one dimension; send several curves as several components".to_owned();
        return Err(("dimensions", IssueCode::NotSupported, what));
    }
    let origin = &sampled["origin"];
    let unit = text(origin, "code").filter(|_| origin["system"] == system::UCUM).ok_or_else(|| {
        let shown = cut(text(origin, "unit").unwrap_or(""));
        let what = format!("a UCUM unit is needed: system {} and its code; found \"{shown}\"", system::UCUM);
        ("origin.code", IssueCode::Required, what)
    })?;
    let number = |value: &Value, name: &'static str| {
        value.to_string().parse::<Decimal>().map_err(|error| (name, IssueCode::Value, error.to_string()))
    };
    let offset = number(&origin["value"], "origin.value")?;
    let factor = match sampled.get("factor") {
        Some(factor) => number(factor, "factor")?,
        None => Decimal::from_integer(1),
    };
    let (rate_numerator, rate_denominator) = rate(sampled)?;
    let data = text(sampled, "data")
        .ok_or_else(|| ("data", IssueCode::Required, "there are no samples".to_owned()))?;
    let (samples, decimals) = counts(data)?;
    let gain = i8::try_from(decimals)
        .ok()
        .and_then(|decimals| Decimal::new(factor.mantissa(), factor.exponent().checked_sub(decimals)?))
        .ok_or_else(|| {
            ("factor", IssueCode::Value, "the factor is too small to be kept exactly".to_owned())
        })?;
    Ok(DecodedWaveform {
        measure,
        time,
        rate_numerator,
        rate_denominator,
        unit: unit.to_owned(),
        gain,
        offset,
        samples,
        findings,
    })
}

/// Whole counts, and how many decimal places were moved into the gain.
fn counts(data: &str) -> Result<(Vec<i16>, u8), Refusal> {
    let refuse = |what: String| ("data", IssueCode::Value, what);
    let words: Vec<&str> = data.split(' ').collect();
    if words.len() > SAMPLES_LIMIT {
        let what = format!("{} samples; {SAMPLES_LIMIT} are taken at once", words.len());
        return Err(("data", IssueCode::TooLong, what));
    }
    let mut values: Vec<Option<Decimal>> = Vec::with_capacity(words.len());
    for word in words {
        let value = match word {
            "E" | "U" | "L" => None,
            _ => Some(
                with_whole(word).parse().map_err(|_| refuse(format!("\"{}\" is not a sample", cut(word))))?,
            ),
        };
        values.push(value);
    }
    let decimals = values.iter().flatten().map(|value| value.decimals()).max().unwrap_or(0);
    let counts = values.iter().enumerate().map(|(index, value)| {
        let Some(value) = value else { return Ok(MISSING_SAMPLE) };
        let scaled = 10_i64
            .checked_pow(u32::from(decimals - value.decimals()))
            .and_then(|scale| value.mantissa().checked_mul(scale))
            .and_then(|count| i16::try_from(count).ok())
            .filter(|count| *count != MISSING_SAMPLE);
        scaled.ok_or_else(|| {
            refuse(format!("sample {index} is {value}: with {decimals} decimals it does not fit 16 bits"))
        })
    });
    Ok((counts.collect::<Result<_, _>>()?, decimals))
}

/// `.5` as `0.5`: sampled data may leave the zero out, other decimals may not.
fn with_whole(word: &str) -> std::borrow::Cow<'_, str> {
    match (word.strip_prefix("-."), word.strip_prefix('.')) {
        (Some(fraction), _) => format!("-0.{fraction}").into(),
        (_, Some(fraction)) => format!("0.{fraction}").into(),
        _ => word.into(),
    }
}

/// Samples a second: from our extension, else from the period.
fn rate(sampled: &Value) -> Result<(u32, u32), Refusal> {
    let period = sampled["period"].to_string();
    let bad = || {
        let what = format!("a period of {} ms gives no rate that can be kept", cut(&period));
        ("period", IssueCode::Value, what)
    };
    let from_period = rate_of(period.parse().map_err(|_| bad())?).ok_or_else(bad)?;
    let Some(ratio) = extension(sampled, system::EXT_SAMPLING_RATE).map(|found| &found["valueRatio"]) else {
        return Ok(from_period);
    };
    let part = |name: &str| ratio[name]["value"].as_u64().and_then(|value| u32::try_from(value).ok());
    let stated = part("numerator").zip(part("denominator")).filter(|(n, d)| *n > 0 && *d > 0);
    // The extension makes the period exact; it must not say something else.
    let close = |(n, d): &(u32, u32)| {
        let apart =
            f64::from(*n) / f64::from(*d) / (f64::from(from_period.0) / f64::from(from_period.1)) - 1.0;
        apart.abs() < 1e-3
    };
    stated.filter(close).ok_or_else(|| {
        ("extension", IssueCode::Extension, "the sampling rate and the period do not agree".to_owned())
    })
}

/// The rate of a period in ms: exact where it fits, else the simplest that rounds to the digits given.
fn rate_of(period: Decimal) -> Option<(u32, u32)> {
    let mantissa = u128::try_from(period.mantissa()).ok().filter(|mantissa| *mantissa > 0)?;
    let exponent = period.exponent();
    let power = 10_u128.checked_pow(u32::from(exponent.unsigned_abs()))?;
    let (numerator, denominator) =
        if exponent < 0 { (1_000 * power, mantissa) } else { (1_000, mantissa.checked_mul(power)?) };
    let divisor = gcd(numerator, denominator);
    let exact = (numerator / divisor, denominator / divisor);
    let (numerator, denominator) = match fits(exact) {
        Some(rate) => return Some(rate),
        None if exponent < 0 => {
            let doubled = numerator.checked_mul(2)?;
            simplest((doubled, 2 * mantissa + 1), (doubled, 2 * mantissa - 1))
        }
        None => return None,
    };
    fits((numerator, denominator))
}

fn fits((numerator, denominator): (u128, u128)) -> Option<(u32, u32)> {
    Some((u32::try_from(numerator).ok()?, u32::try_from(denominator).ok()?)).filter(|(n, _)| *n > 0)
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// The fraction with the smallest denominator between two fractions, by their continued fractions.
fn simplest(low: (u128, u128), high: (u128, u128)) -> (u128, u128) {
    let whole = low.0 / low.1;
    if low.0.is_multiple_of(low.1) {
        return (whole, 1);
    }
    if (whole + 1) * high.1 <= high.0 {
        return (whole + 1, 1);
    }
    let (numerator, denominator) =
        simplest((high.1, high.0 - whole * high.1), (low.1, low.0 - whole * low.1));
    (whole * numerator + denominator, numerator)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(period: &str, rate: Option<(u32, u32)>) {
        assert_eq!(rate_of(period.parse().unwrap()), rate, "{period}");
    }

    #[test]
    fn the_rate_of_a_period_is_exact() {
        check("4", Some((250, 1)));
        check("4.00", Some((250, 1)));
        check("3.90625", Some((256, 1)));
        check("16", Some((125, 2)));
        check("2.777777777778", Some((360, 1)));
        check("333.333333333333", Some((3, 1)));
        check("60000", Some((1, 60)));
        check("0", None);
        check("-4", None);
        check("1e30", None);
    }

    #[test]
    fn samples_become_counts() {
        assert_eq!(
            counts("1 -2 E U L 3").unwrap(),
            (vec![1, -2, MISSING_SAMPLE, MISSING_SAMPLE, MISSING_SAMPLE, 3], 0)
        );
        assert_eq!(counts("-.5 .5 1").unwrap(), (vec![-5, 5, 10], 1));
        assert_eq!(counts("1.5 -2 0.25").unwrap(), (vec![150, -200, 25], 2));
        assert!(counts("40000").is_err());
        assert!(counts("-32768").is_err());
        assert!(counts("1.000001 2").is_err());
    }
}
