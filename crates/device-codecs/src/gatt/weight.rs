//! Weight Measurement (0x2A9D).

use clinical_model::decoded::DecodeFault;
use clinical_model::reading::Absent;
use clinical_model::{Decimal, Decoded, DecodedValue, Findings, measure};

use super::date_time::{DateTime, device_time};
use super::medfloat::show;
use super::reader::{Reader, Writer, flag, flags_in_words};
use super::{Characteristic, scalar};

const IMPERIAL: u8 = 1 << 0;
const HAS_TIME: u8 = 1 << 1;
const HAS_USER: u8 = 1 << 2;
const HAS_BODY_FIGURES: u8 = 1 << 3;

/// The weight of a measurement that did not succeed (Weight Scale Service 1.0, 3.2.1.2).
const UNSUCCESSFUL: u16 = 0xFFFF;

/// System of units of weight and height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightUnit {
    /// Weight in steps of 0.005 kg, height in steps of 0.001 m.
    Metric,
    /// Weight in steps of 0.01 lb, height in steps of 0.1 in.
    Imperial,
}

impl WeightUnit {
    /// UCUM code of the weight.
    pub const fn weight_ucum(self) -> &'static str {
        match self {
            WeightUnit::Metric => "kg",
            WeightUnit::Imperial => "[lb_av]",
        }
    }

    /// UCUM code of the height.
    pub const fn height_ucum(self) -> &'static str {
        match self {
            WeightUnit::Metric => "m",
            WeightUnit::Imperial => "[in_i]",
        }
    }
}

/// What a scale computes with the height that its user entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyFigures {
    /// Body mass index in 0.1 kg/m²; 0 where the scale does not know.
    pub bmi_tenths: u16,
    /// Height in 0.001 m or 0.1 in; 0 where the scale does not know.
    pub height_steps: u16,
}

/// One measurement of a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightMeasurement {
    /// System of units.
    pub unit: WeightUnit,
    /// Weight in 0.005 kg or 0.01 lb; 65,535 where the measurement did not succeed.
    pub weight_steps: u16,
    /// The scale's own clock.
    pub time: Option<DateTime>,
    /// User of the scale, 255 where unknown. Never decides whose reading it is: the assignment does.
    pub user_id: Option<u8>,
    /// Body mass index and height.
    pub body: Option<BodyFigures>,
}

/// `steps · per_step · 10^exponent`, exactly.
fn number(steps: u16, per_step: i64, exponent: i8) -> DecodedValue {
    let exact = Decimal::new(i64::from(steps) * per_step, exponent);
    exact.map_or(DecodedValue::Absent(Absent::Error), DecodedValue::Number)
}

fn weight(unit: WeightUnit, steps: u16) -> DecodedValue {
    match (unit, steps) {
        (_, UNSUCCESSFUL) => DecodedValue::Absent(Absent::Error),
        (WeightUnit::Metric, _) => number(steps, 5, -3),
        (WeightUnit::Imperial, _) => number(steps, 1, -2),
    }
}

/// Nobody has a body mass index or a height of nothing: scales send 0 where no user is set up.
fn body_mass_index(tenths: u16) -> DecodedValue {
    if tenths == 0 { DecodedValue::Absent(Absent::Unavailable) } else { number(tenths, 1, -1) }
}

fn height(unit: WeightUnit, steps: u16) -> DecodedValue {
    match (unit, steps) {
        (_, 0) => DecodedValue::Absent(Absent::Unavailable),
        (WeightUnit::Metric, _) => number(steps, 1, -3),
        (WeightUnit::Imperial, _) => number(steps, 1, -1),
    }
}

impl WeightMeasurement {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeFault> {
        let words = [
            (IMPERIAL, "pounds and inches", "kilograms and metres"),
            (HAS_TIME, "with time", ""),
            (HAS_USER, "with user", ""),
            (HAS_BODY_FIGURES, "with body mass index and height", ""),
        ];
        let flags = reader.u8("flags", |flags| flags_in_words(flags, &words))?;
        let unit = if flags & IMPERIAL == 0 { WeightUnit::Metric } else { WeightUnit::Imperial };
        let shown = |steps| format!("{} {}", show(weight(unit, steps)), unit.weight_ucum());
        let weight_steps = reader.u16("weight", shown)?;
        let time = if flags & HAS_TIME == 0 { None } else { Some(reader.date_time("time stamp")?) };
        let user_id =
            if flags & HAS_USER == 0 {
                None
            } else {
                Some(reader.u8("user id", |id| {
                    if id == 255 { "unknown".to_owned() } else { format!("user {id}") }
                })?)
            };
        let body = if flags & HAS_BODY_FIGURES == 0 {
            None
        } else {
            let shown_height = |steps| format!("{} {}", show(height(unit, steps)), unit.height_ucum());
            let bmi_tenths =
                reader.u16("body mass index", |tenths| format!("{} kg/m2", show(body_mass_index(tenths))))?;
            Some(BodyFigures { bmi_tenths, height_steps: reader.u16("height", shown_height)? })
        };
        Ok(Self { unit, weight_steps, time, user_id, body })
    }
}

impl Characteristic for WeightMeasurement {
    const NUMBER: u16 = 0x2A9D;
    const NAME: &'static str = "Weight Measurement";

    fn decode(bytes: &[u8]) -> Result<Self, DecodeFault> {
        Reader::new(bytes).whole(Self::read)
    }

    fn encode(&self) -> Vec<u8> {
        let unit = if self.unit == WeightUnit::Imperial { IMPERIAL } else { 0 };
        let flags = unit
            | flag(&self.time, HAS_TIME)
            | flag(&self.user_id, HAS_USER)
            | flag(&self.body, HAS_BODY_FIGURES);
        let mut writer = Writer::new(flags);
        writer.u16(self.weight_steps);
        self.time.map(|time| writer.date_time(time));
        self.user_id.map(|user| writer.u8(user));
        if let Some(body) = self.body {
            writer.u16(body.bmi_tenths).u16(body.height_steps);
        }
        writer.finish()
    }

    fn to_decoded(&self) -> Vec<Decoded> {
        let time = device_time(self.time);
        let none = Findings::empty();
        let value = weight(self.unit, self.weight_steps);
        let mut decoded = vec![scalar(measure::BODY_WEIGHT, value, self.unit.weight_ucum(), time, none)];
        if let Some(body) = self.body {
            let bmi = body_mass_index(body.bmi_tenths);
            decoded.push(scalar(measure::BODY_MASS_INDEX, bmi, "kg/m2", time, none));
            let height = height(self.unit, body.height_steps);
            decoded.push(scalar(measure::BODY_HEIGHT, height, self.unit.height_ucum(), time, none));
        }
        decoded
    }
}
