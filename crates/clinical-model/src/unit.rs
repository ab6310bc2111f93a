//! Units: UCUM validity and conversion, with the factors that chemistry and not UCUM supplies.

use crate::decimal::Decimal;
use crate::measure::{GLUCOSE, Measure};

/// Milligrams per decilitre for one millimole per litre of glucose (molar mass 180.156 g/mol).
pub const GLUCOSE_MG_DL_PER_MMOL_L: f64 = 18.0156;

/// Why a value could not be brought to the unit of its series.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum UnitError {
    /// The text is not a UCUM unit (`bpm` and `mmHg` are not; `/min` and `mm[Hg]` are).
    #[error(
        "\"{unit}\" is not a UCUM unit; {measure} is expected in \"{expected}\" or a unit that converts to it"
    )]
    Unknown {
        /// What was sent, cut to 40 characters.
        unit: String,
        /// Name of the measure.
        measure: &'static str,
        /// UCUM unit of the series.
        expected: &'static str,
    },
    /// A unit of another dimension.
    #[error("the unit \"{unit}\" cannot be converted to \"{expected}\", the unit of {measure}")]
    OtherDimension {
        /// What was sent, cut to 40 characters.
        unit: String,
        /// Name of the measure.
        measure: &'static str,
        /// UCUM unit of the series.
        expected: &'static str,
    },
}

/// Longest unit text that is looked at, in bytes: the longest in use is far shorter.
const UNIT_LIMIT_BYTES: usize = 40;

/// Whether the text is a UCUM unit.
pub fn is_valid(unit: &str) -> bool {
    !unit.is_empty() && unit.len() <= UNIT_LIMIT_BYTES && ucum::validate(unit).is_ok()
}

/// Spellings that devices use for a UCUM unit although UCUM does not know them.
///
/// Only where nothing else can be meant: `C` is a valid UCUM unit (coulomb) and is refused for a temperature.
fn spelled(unit: &str) -> &str {
    match unit {
        "mmHg" => "mm[Hg]",
        "bpm" | "{beat}/min" | "{beats}/min" | "{breath}/min" | "{breaths}/min" | "1/min" => "/min",
        "°C" | "degC" => "Cel",
        "°F" | "degF" => "[degF]",
        "lb" | "lbs" => "[lb_av]",
        other => other,
    }
}

/// A value in the unit of its series, and whether it had to be changed for that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Converted {
    /// The value in the unit of the series.
    pub value: Decimal,
    /// Whether the digits differ from those sent.
    pub changed: bool,
}

/// Brings a value to the unit of the measure's series, rounded to the precision that was sent.
///
/// # Errors
/// [`UnitError`] where the unit is not UCUM or is of another dimension.
pub fn to_series_unit(measure: Measure, value: Decimal, unit: &str) -> Result<Converted, UnitError> {
    let expected = measure.unit;
    let unit = spelled(unit);
    if unit == expected || (expected == "1" && unit.is_empty()) {
        return Ok(Converted { value, changed: false });
    }
    let cut = || unit.chars().take(UNIT_LIMIT_BYTES).collect::<String>();
    if !is_valid(unit) {
        return Err(UnitError::Unknown { unit: cut(), measure: measure.name, expected });
    }
    let other = || UnitError::OtherDimension { unit: cut(), measure: measure.name, expected };
    let (converted, factor) = if measure == GLUCOSE && unit == "mmol/L" {
        (value.to_f64() * GLUCOSE_MG_DL_PER_MMOL_L, GLUCOSE_MG_DL_PER_MMOL_L)
    } else {
        let target = ucum::convert(value.to_f64(), unit, expected).map_err(|_| other())?;
        let step = ucum::convert(1.0, unit, expected).map_err(|_| other())?
            - ucum::convert(0.0, unit, expected).map_err(|_| other())?;
        (target, step)
    };
    let value = Decimal::from_f64(converted, decimals_after(value.decimals(), factor)).ok_or_else(other)?;
    Ok(Converted { value, changed: true })
}

/// Decimal places after multiplying by `factor`, so that the step of the last digit stays about the same size:
/// 98.6 [degF] (0.1) is 37.0 Cel; 16.0 kPa (0.1) is 120 mm[Hg]; 6.6 mmol/L (0.1) is 119 mg/dL.
fn decimals_after(decimals: u8, factor: f64) -> u8 {
    let shift = factor.abs().log10().round() as i32;
    u8::try_from((i32::from(decimals) - shift).clamp(0, 6)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure;

    fn check(measure: Measure, value: &str, unit: &str, expected: &str) {
        let converted = to_series_unit(measure, value.parse().unwrap(), unit).unwrap();
        assert_eq!(converted.value.to_string(), expected, "{value} {unit}");
    }

    #[test]
    fn values_are_brought_to_the_unit_of_the_series() {
        check(measure::HEART_RATE, "60", "/min", "60");
        check(measure::HEART_RATE, "60", "{beat}/min", "60");
        check(measure::BODY_TEMPERATURE, "98.6", "[degF]", "37.0");
        check(measure::BODY_TEMPERATURE, "37.60", "Cel", "37.60");
        check(measure::SYSTOLIC, "16.0", "kPa", "120");
        check(measure::SYSTOLIC, "18.9", "kPa", "142");
        check(measure::BODY_WEIGHT, "171.25", "[lb_av]", "77.68");
        check(measure::BODY_HEIGHT, "1.750", "m", "175.0");
        check(measure::GLUCOSE, "6.6", "mmol/L", "119");
        check(measure::GLUCOSE, "0.00120", "kg/L", "120");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |measure: Measure, unit: &str| to_series_unit(measure, Decimal::from_integer(1), unit);
        assert!(matches!(refused(measure::BODY_TEMPERATURE, "C"), Err(UnitError::OtherDimension { .. })));
        assert!(matches!(refused(measure::HEART_RATE, "mg/dL"), Err(UnitError::OtherDimension { .. })));
        assert!(matches!(refused(measure::HEART_RATE, "beats"), Err(UnitError::Unknown { .. })));
        assert!(matches!(refused(measure::HEART_RATE, ""), Err(UnitError::Unknown { .. })));
        assert!(refused(measure::SYSTOLIC, &"m".repeat(10_000)).is_err());
        // Without the analyte's molar mass there is no way from moles to grams.
        assert!(refused(measure::PERFUSION_INDEX, "mmol/L").is_err());
    }
}
