//! The medical numbers of IEEE 11073-20601 as Bluetooth carries them: SFLOAT (16 bits) and FLOAT (32 bits).
//!
//! Both are `mantissa · 10^exponent` with two's complement parts; a handful of mantissas stand for the reasons
//! why there is no number. As usual in the field, those are told by the mantissa alone, whatever the exponent:
//! no number is lost by it, because the largest usable mantissa lies below them.

use std::fmt;

use clinical_model::reading::Absent;
use clinical_model::{Decimal, DecodedValue};

/// A 16-bit medical number: exponent −8 to 7, mantissa −2045 to 2045.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sfloat(u16);

/// A 32-bit medical number: mantissa −8,388,605 to 8,388,605, exponent kept to −30 to 30.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Float(u32);

/// What a mantissa pattern of `bits` bits stands for.
fn interpret(pattern: u32, bits: u32, exponent: i8) -> Option<DecodedValue> {
    let top = 1u32 << (bits - 1);
    let absent = match pattern {
        p if p == top - 1 => Some(Absent::NotANumber),
        p if p == top - 2 => Some(Absent::PositiveInfinity),
        p if p == top + 2 => Some(Absent::NegativeInfinity),
        // "Not at this resolution" and the value reserved for future use.
        p if p == top || p == top + 1 => Some(Absent::Error),
        _ => None,
    };
    if let Some(reason) = absent {
        return Some(DecodedValue::Absent(reason));
    }
    let mantissa = if pattern >= top { i64::from(pattern) - (1i64 << bits) } else { i64::from(pattern) };
    Decimal::new(mantissa, exponent).map(DecodedValue::Number)
}

/// Brings a number into the limits of a format: trailing zeros go first, then (unless `exact`) the last digits.
fn fit(value: Decimal, limit: i64, exponents: (i8, i8), exact: bool) -> Option<(i64, i8)> {
    let (mut mantissa, mut exponent) = (value.mantissa(), value.exponent());
    while mantissa.abs() > limit || exponent < exponents.0 {
        if mantissa == 0 {
            return Some((0, exponents.0));
        }
        let rest = mantissa % 10;
        if exact && rest != 0 {
            return None;
        }
        let away_from_zero = if rest.abs() >= 5 { mantissa.signum() } else { 0 };
        mantissa = mantissa / 10 + away_from_zero;
        exponent += 1;
    }
    while exponent > exponents.1 {
        mantissa *= 10;
        exponent -= 1;
        if mantissa.abs() > limit {
            return None;
        }
    }
    Some((mantissa, exponent))
}

impl Sfloat {
    /// Not a number.
    pub const NAN: Sfloat = Sfloat(0x07FF);
    /// Not at this resolution.
    pub const NRES: Sfloat = Sfloat(0x0800);
    /// Above what can be expressed.
    pub const POSITIVE_INFINITY: Sfloat = Sfloat(0x07FE);
    /// Below what can be expressed.
    pub const NEGATIVE_INFINITY: Sfloat = Sfloat(0x0802);
    /// Largest magnitude of a mantissa; the patterns beyond it are the special values.
    pub const MANTISSA_LIMIT: i16 = 0x7FD;

    /// From the 16 bits on the wire (low byte first there). Every pattern means something.
    pub const fn from_bits(bits: u16) -> Self {
        Sfloat(bits)
    }

    /// `mantissa · 10^exponent`; `None` outside −2045..=2045 and −8..=7.
    pub const fn new(mantissa: i16, exponent: i8) -> Option<Self> {
        if mantissa > Self::MANTISSA_LIMIT
            || mantissa < -Self::MANTISSA_LIMIT
            || exponent < -8
            || exponent > 7
        {
            return None;
        }
        Some(Sfloat(((exponent as u16 & 0xF) << 12) | (mantissa as u16 & 0xFFF)))
    }

    /// The same value, if it can be expressed exactly; trailing zeros are given up only where they do not fit.
    pub fn from_decimal(value: Decimal) -> Option<Self> {
        fit(value, i64::from(Self::MANTISSA_LIMIT), (-8, 7), true).and_then(Self::from_parts)
    }

    /// The nearest value, rounded half away from zero; `None` only where it is too large.
    pub fn rounded(value: Decimal) -> Option<Self> {
        fit(value, i64::from(Self::MANTISSA_LIMIT), (-8, 7), false).and_then(Self::from_parts)
    }

    fn from_parts((mantissa, exponent): (i64, i8)) -> Option<Self> {
        i16::try_from(mantissa).ok().and_then(|mantissa| Self::new(mantissa, exponent))
    }

    /// The 16 bits.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The number with the digits that were sent, or why there is none.
    pub fn value(self) -> DecodedValue {
        let exponent = (self.0 as i16 >> 12) as i8;
        // Exponents −8..=7 are always kept.
        interpret(u32::from(self.0 & 0xFFF), 12, exponent).unwrap_or(DecodedValue::Absent(Absent::Error))
    }
}

impl Float {
    /// Not a number.
    pub const NAN: Float = Float(0x007F_FFFF);
    /// Not at this resolution.
    pub const NRES: Float = Float(0x0080_0000);
    /// Above what can be expressed.
    pub const POSITIVE_INFINITY: Float = Float(0x007F_FFFE);
    /// Below what can be expressed.
    pub const NEGATIVE_INFINITY: Float = Float(0x0080_0002);
    /// Largest magnitude of a mantissa; the patterns beyond it are the special values.
    pub const MANTISSA_LIMIT: i32 = 0x7F_FFFD;

    /// From the 32 bits on the wire (low byte first there); `None` where the number is so large or so small
    /// (exponent beyond ±30) that it cannot be kept exactly.
    pub fn from_bits(bits: u32) -> Option<Self> {
        interpret(bits & 0xFF_FFFF, 24, (bits >> 24) as i8).map(|_| Float(bits))
    }

    /// `mantissa · 10^exponent`; `None` outside the limits of the type.
    pub const fn new(mantissa: i32, exponent: i8) -> Option<Self> {
        if mantissa > Self::MANTISSA_LIMIT
            || mantissa < -Self::MANTISSA_LIMIT
            || exponent > Decimal::EXPONENT_LIMIT
            || exponent < -Decimal::EXPONENT_LIMIT
        {
            return None;
        }
        Some(Float(((exponent as u8 as u32) << 24) | (mantissa as u32 & 0xFF_FFFF)))
    }

    /// The same value, if it can be expressed exactly; trailing zeros are given up only where they do not fit.
    pub fn from_decimal(value: Decimal) -> Option<Self> {
        Self::from_parts(fit(value, i64::from(Self::MANTISSA_LIMIT), Self::EXPONENTS, true)?)
    }

    /// The nearest value, rounded half away from zero; `None` only where it is too large.
    pub fn rounded(value: Decimal) -> Option<Self> {
        Self::from_parts(fit(value, i64::from(Self::MANTISSA_LIMIT), Self::EXPONENTS, false)?)
    }

    const EXPONENTS: (i8, i8) = (-Decimal::EXPONENT_LIMIT, Decimal::EXPONENT_LIMIT);

    fn from_parts((mantissa, exponent): (i64, i8)) -> Option<Self> {
        i32::try_from(mantissa).ok().and_then(|mantissa| Self::new(mantissa, exponent))
    }

    /// The 32 bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The number with the digits that were sent, or why there is none.
    pub fn value(self) -> DecodedValue {
        // `from_bits` and `new` let nothing in that cannot be kept.
        interpret(self.0 & 0xFF_FFFF, 24, (self.0 >> 24) as i8).unwrap_or(DecodedValue::Absent(Absent::Error))
    }
}

/// A number as digits, an absence in words.
pub(crate) fn show(value: DecodedValue) -> String {
    match value {
        DecodedValue::Number(number) => number.to_string(),
        DecodedValue::Absent(Absent::NotANumber) => "no value: not a number".into(),
        DecodedValue::Absent(Absent::PositiveInfinity) => "no value: above the range".into(),
        DecodedValue::Absent(Absent::NegativeInfinity) => "no value: below the range".into(),
        DecodedValue::Absent(Absent::Error) => "no value: error, resolution or reserved".into(),
        DecodedValue::Absent(Absent::Unavailable) => "no value: not available".into(),
    }
}

impl fmt::Debug for Sfloat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sfloat(0x{:04X}: {})", self.0, show(self.value()))
    }
}

impl fmt::Debug for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Float(0x{:08X}: {})", self.0, show(self.value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Values of the IEEE 11073 personal-health guidance, checked by the independent reference.
    #[test]
    fn golden_numbers() {
        for (bits, text) in [
            (0x0002u16, "2"),
            (0xF014, "2.0"),
            (0xE0C8, "2.00"),
            (0x1002, "20"),
            (0x2002, "200"),
            (0x04D2, "1234"),
        ] {
            assert_eq!(show(Sfloat::from_bits(bits).value()), text);
        }
        assert_eq!(show(Sfloat::from_bits(0x0B2E).value()), "-1234");
        for (bits, text) in
            [(0xFF00_0014u32, "2.0"), (0xFE00_00C8, "2.00"), (0x0100_0002, "20"), (0x00FF_FB2E, "-1234")]
        {
            assert_eq!(show(Float::from_bits(bits).unwrap().value()), text);
        }
    }

    #[test]
    fn special_values_hold_for_every_exponent() {
        let reasons = [
            (0x7FFu16, Absent::NotANumber),
            (0x7FE, Absent::PositiveInfinity),
            (0x800, Absent::Error),
            (0x801, Absent::Error),
            (0x802, Absent::NegativeInfinity),
        ];
        for (mantissa, reason) in reasons {
            for exponent in 0..16 {
                let number = Sfloat::from_bits(exponent << 12 | mantissa);
                assert_eq!(number.value(), DecodedValue::Absent(reason), "{number:?}");
            }
        }
        assert_eq!(Float::from_bits(0x7F7F_FFFF).unwrap().value(), DecodedValue::Absent(Absent::NotANumber));
        assert_eq!(
            Float::from_bits(0x0080_0002).unwrap().value(),
            DecodedValue::Absent(Absent::NegativeInfinity)
        );
        assert_eq!(Float::from_bits(0x7F00_0001), None);
    }

    #[test]
    fn numbers_are_fitted() {
        let decimal = |text: &str| text.parse::<Decimal>().unwrap();
        let shown = |number: Option<Sfloat>| number.map(|n| show(n.value()));
        assert_eq!(shown(Sfloat::from_decimal(decimal("72.50"))).as_deref(), Some("72.5"));
        assert_eq!(shown(Sfloat::from_decimal(decimal("233.1"))), None);
        assert_eq!(shown(Sfloat::rounded(decimal("233.15"))).as_deref(), Some("233"));
        assert_eq!(shown(Sfloat::rounded(decimal("-20.45"))).as_deref(), Some("-20.45"));
        assert_eq!(shown(Sfloat::rounded(decimal("1e12"))), None);
        assert_eq!(shown(Sfloat::rounded(decimal("1e-12"))).as_deref(), Some("0.00000000"));
        assert_eq!(Float::from_decimal(decimal("37.60")).map(Float::bits), Some(0xFE00_0EB0));
    }

    proptest! {
        #[test]
        fn sfloat_keeps_digits(mantissa in -2045i16..=2045, exponent in -8i8..=7) {
            let number = Sfloat::new(mantissa, exponent).unwrap();
            let kept = Decimal::new(mantissa.into(), exponent).unwrap();
            prop_assert_eq!(number.value(), DecodedValue::Number(kept));
            prop_assert_eq!(Sfloat::from_decimal(kept), Some(number));
        }

        #[test]
        fn float_keeps_digits(mantissa in -8_388_605i32..=8_388_605, exponent in -30i8..=30) {
            let number = Float::new(mantissa, exponent).unwrap();
            let kept = Decimal::new(mantissa.into(), exponent).unwrap();
            prop_assert_eq!(number.value(), DecodedValue::Number(kept));
            prop_assert_eq!(Float::from_decimal(kept), Some(number));
        }
    }
}
