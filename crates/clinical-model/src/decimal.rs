//! A decimal number that keeps the digits it was sent with: 72.50 stays 72.50.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `mantissa · 10^exponent`, exactly as a device or a client wrote it.
///
/// Equality is of digits (`2.0 != 2.00`); compare sizes with [`Decimal::numeric_cmp`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Decimal {
    mantissa: i64,
    exponent: i8,
}

/// Why a text or a number cannot be kept as a [`Decimal`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// The text is not a decimal number.
    #[error("\"{text}\" is not a decimal number")]
    NotANumber {
        /// What was read, cut to 40 characters.
        text: String,
    },
    /// More than 18 significant digits, or an exponent outside −30..=30.
    #[error("\"{text}\" has more digits than can be kept exactly (18 significant, exponent -30 to 30)")]
    TooLong {
        /// What was read, cut to 40 characters.
        text: String,
    },
}

impl Decimal {
    /// Largest magnitude of the exponent.
    pub const EXPONENT_LIMIT: i8 = 30;
    /// Largest magnitude of the mantissa: 18 decimal digits.
    pub const MANTISSA_LIMIT: i64 = 999_999_999_999_999_999;

    /// `mantissa · 10^exponent`; `None` outside the limits above.
    pub const fn new(mantissa: i64, exponent: i8) -> Option<Self> {
        if mantissa > Self::MANTISSA_LIMIT
            || mantissa < -Self::MANTISSA_LIMIT
            || exponent > Self::EXPONENT_LIMIT
            || exponent < -Self::EXPONENT_LIMIT
        {
            return None;
        }
        Some(Decimal { mantissa, exponent })
    }

    /// A whole number.
    pub const fn from_integer(value: i32) -> Self {
        Decimal { mantissa: value as i64, exponent: 0 }
    }

    /// The binary number rounded to `decimals` places (0..=12); `None` where it is not finite or too large.
    pub fn from_f64(value: f64, decimals: u8) -> Option<Self> {
        let decimals = decimals.min(12);
        let scaled = (value * 10f64.powi(i32::from(decimals))).round();
        // 2^53: beyond it neighbouring integers are no longer distinct in a double.
        if !scaled.is_finite() || scaled.abs() > 9_007_199_254_740_992.0 {
            return None;
        }
        Some(Decimal { mantissa: scaled as i64, exponent: -(decimals as i8) })
    }

    /// The digits as an integer.
    pub const fn mantissa(self) -> i64 {
        self.mantissa
    }

    /// The power of ten.
    pub const fn exponent(self) -> i8 {
        self.exponent
    }

    /// The nearest double.
    pub fn to_f64(self) -> f64 {
        // Dividing by an exact power of ten rounds once; multiplying by 0.1 would round twice.
        if self.exponent < 0 {
            self.mantissa as f64 / 10f64.powi(-i32::from(self.exponent))
        } else {
            self.mantissa as f64 * 10f64.powi(i32::from(self.exponent))
        }
    }

    /// Number of digits after the decimal point.
    pub const fn decimals(self) -> u8 {
        if self.exponent < 0 { self.exponent.unsigned_abs() } else { 0 }
    }

    /// Order by size: 2.0 and 2.00 are equal here.
    pub fn numeric_cmp(self, other: Self) -> Ordering {
        self.to_f64().total_cmp(&other.to_f64())
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let digits = self.mantissa.unsigned_abs().to_string();
        if self.exponent >= 0 {
            let zeros = if self.mantissa == 0 { 0 } else { self.exponent as usize };
            return write!(f, "{sign}{digits}{}", "0".repeat(zeros));
        }
        let places = usize::from(self.decimals());
        let padded = format!("{digits:0>width$}", width = places + 1);
        let (whole, fraction) = padded.split_at(padded.len() - places);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let cut = || text.chars().take(40).collect::<String>();
        let bad = || DecimalError::NotANumber { text: cut() };
        let long = || DecimalError::TooLong { text: cut() };
        let (body, power) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], text[at + 1..].parse::<i32>().map_err(|_| bad())?),
            None => (text, 0),
        };
        let (negative, unsigned) = match body.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, body),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let point = unsigned.contains('.');
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || (point && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err(bad());
        }
        let significant = format!("{whole}{fraction}");
        let trimmed = significant.trim_start_matches('0');
        if trimmed.len() > 18 {
            return Err(long());
        }
        let magnitude: i64 = if trimmed.is_empty() { 0 } else { trimmed.parse().map_err(|_| bad())? };
        let exponent = i64::from(power) - fraction.len() as i64;
        let exponent = i8::try_from(exponent).map_err(|_| long())?;
        Decimal::new(if negative { -magnitude } else { magnitude }, exponent).ok_or_else(long)
    }
}

impl Serialize for Decimal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_are_kept() {
        for text in ["0", "2.0", "2.00", "-1234", "98.60", "0.005", "-0.5", "100000000000000000"] {
            assert_eq!(text.parse::<Decimal>().unwrap().to_string(), text);
        }
        assert_eq!(Decimal::new(2, 1).unwrap().to_string(), "20");
        assert_eq!("1.5e2".parse::<Decimal>().unwrap().to_string(), "150");
        assert_eq!("37".parse::<Decimal>().unwrap().numeric_cmp("37.0".parse().unwrap()), Ordering::Equal);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in
            ["", "-", ".5", "5.", "1,5", "NaN", "1e", "0x10", "1e999", "1234567890123456789", "+1", " 1"]
        {
            assert!(text.parse::<Decimal>().is_err(), "{text}");
        }
        assert_eq!(Decimal::from_f64(f64::NAN, 1), None);
        assert_eq!(Decimal::from_f64(1e300, 1), None);
    }

    proptest! {
        #[test]
        fn printing_and_reading_round_trip(mantissa in -999_999_999_999i64..999_999_999_999, exponent in -12i8..=0) {
            let value = Decimal::new(mantissa, exponent).unwrap();
            prop_assert_eq!(value.to_string().parse::<Decimal>().unwrap(), value);
        }
    }
}
