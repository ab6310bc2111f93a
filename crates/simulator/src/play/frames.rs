//! The bytes that home devices put on the air, with what is wrong with some of them.

use std::time::Duration;

use clinical_model::{Decimal, FrameKind, Timestamp};
use device_codecs::gatt::{
    BloodPressureMeasurement, BloodPressureStatus, BodyFigures, Characteristic, DateTime, Float,
    HeartRateMeasurement, MeasurementStatus, PlxContinuous, PlxPair, PlxSpotCheck, PressureUnit,
    SensorContact, Sfloat, TemperatureMeasurement, TemperatureUnit, WeightMeasurement, WeightUnit,
};

use crate::hospital::{Baseline, Trouble};
use crate::random::Random;

/// Millimetres of mercury in one kilopascal.
const MMHG_PER_KPA: f64 = 7.500_617;
/// How far a clock that is a year ahead is ahead.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// A frame to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AirFrame {
    pub(super) kind: FrameKind,
    pub(super) bytes: Vec<u8>,
}

impl AirFrame {
    fn of<C: Characteristic>(value: &C) -> Self {
        AirFrame { kind: FrameKind::Gatt(C::NUMBER), bytes: value.encode() }
    }

    /// What the trouble of the device makes of it: the frames that are sent in its place.
    pub(super) fn troubled(self, trouble: Option<Trouble>) -> Vec<AirFrame> {
        match trouble {
            Some(Trouble::RepeatsEveryFrame) => vec![self.clone(), self],
            Some(Trouble::TruncatesFrames) => {
                let mut cut = self;
                cut.bytes.truncate(cut.bytes.len() * 2 / 3);
                vec![cut]
            }
            _ => vec![self],
        }
    }
}

/// What a home device knows of the moment.
pub(super) struct Moment<'a> {
    pub(super) now: Timestamp,
    pub(super) utc_offset_min: i16,
    pub(super) trouble: Option<Trouble>,
    pub(super) random: &'a mut Random,
}

impl Moment<'_> {
    /// What the device's own clock shows.
    fn clock(&self) -> DateTime {
        let local = self.now.plus_micros(i64::from(self.utc_offset_min) * 60_000_000);
        DateTime::from_local(if self.trouble == Some(Trouble::ClockAYearAhead) {
            local.plus(YEAR)
        } else {
            local
        })
    }

    fn around(&mut self, center: f64, deviation: f64) -> f64 {
        center + deviation * self.random.normal()
    }
}

/// Whole-number or one-digit value as the 16-bit float; what cannot be expressed becomes "not a number".
fn short(value: f64, decimals: u8) -> Sfloat {
    Decimal::from_f64(value, decimals).and_then(Sfloat::rounded).unwrap_or(Sfloat::NAN)
}

pub(super) fn cuff(of: &Baseline, moment: &mut Moment<'_>) -> AirFrame {
    let systolic = moment.around(of.systolic_mmhg, 6.0);
    let diastolic = moment.around(of.diastolic_mmhg, 4.0).min(systolic - 15.0);
    let mean = diastolic + (systolic - diastolic) / 3.0;
    let pulse = moment.around(of.heart_rate_per_min, 4.0);
    let (unit, factor, decimals) = match moment.trouble {
        Some(Trouble::Kilopascal) => (PressureUnit::Kilopascal, 1.0 / MMHG_PER_KPA, 1),
        _ => (PressureUnit::MmHg, 1.0, 0),
    };
    let mut status = BloodPressureStatus::empty();
    // One measurement in twelve is taken while the person moves.
    status.set(BloodPressureStatus::BODY_MOVEMENT, moment.random.below(12) == 0);
    AirFrame::of(&BloodPressureMeasurement {
        unit,
        systolic: short(systolic * factor, decimals),
        diastolic: short(diastolic * factor, decimals),
        mean: short(mean * factor, decimals),
        time: Some(moment.clock()),
        pulse_rate_per_min: Some(short(pulse, 0)),
        user_id: Some(1),
        status: Some(status),
    })
}

fn pair(of: &Baseline, moment: &mut Moment<'_>) -> PlxPair {
    let saturation = moment.around(of.saturation_percent, 0.8).clamp(80.0, 100.0);
    let pulse = moment.around(of.heart_rate_per_min, 3.0);
    PlxPair { saturation_percent: short(saturation, 0), pulse_rate_per_min: short(pulse, 0) }
}

fn oximeter_status(trouble: Option<Trouble>) -> MeasurementStatus {
    match trouble {
        Some(Trouble::DemonstrationMode) => MeasurementStatus::DEMONSTRATION,
        _ => MeasurementStatus::VALIDATED | MeasurementStatus::FULLY_QUALIFIED,
    }
}

pub(super) fn spot_oximeter(of: &Baseline, moment: &mut Moment<'_>) -> AirFrame {
    let reading = pair(of, moment);
    let amplitude = moment.around(4.0, 1.0).clamp(0.3, 12.0);
    AirFrame::of(&PlxSpotCheck {
        reading,
        time: Some(moment.clock()),
        status: Some(oximeter_status(moment.trouble)),
        sensor_status: None,
        pulse_amplitude_percent: Some(short(amplitude, 1)),
        clock_not_set: false,
    })
}

pub(super) fn continuous_oximeter(of: &Baseline, moment: &mut Moment<'_>) -> AirFrame {
    AirFrame::of(&PlxContinuous {
        normal: pair(of, moment),
        fast: None,
        slow: None,
        status: Some(oximeter_status(moment.trouble)),
        sensor_status: None,
        pulse_amplitude_percent: None,
    })
}

pub(super) fn thermometer(of: &Baseline, moment: &mut Moment<'_>) -> AirFrame {
    let celsius = moment.around(of.temperature_cel, 0.15);
    let (unit, value) = match moment.trouble {
        Some(Trouble::Fahrenheit) => (TemperatureUnit::Fahrenheit, celsius * 1.8 + 32.0),
        _ => (TemperatureUnit::Celsius, celsius),
    };
    AirFrame::of(&TemperatureMeasurement {
        unit,
        temperature: Decimal::from_f64(value, 1).and_then(Float::rounded).unwrap_or(Float::NAN),
        time: Some(moment.clock()),
        // In the ear.
        site: Some(3),
    })
}

pub(super) fn scale(of: &Baseline, moment: &mut Moment<'_>) -> AirFrame {
    let weight_kg = moment.around(of.weight_kg, 0.2);
    AirFrame::of(&WeightMeasurement {
        unit: WeightUnit::Metric,
        // Steps of 0.005 kg, shown to the nearest 50 g as scales do.
        weight_steps: ((weight_kg * 20.0).round() * 10.0) as u16,
        time: Some(moment.clock()),
        user_id: Some(1),
        body: Some(BodyFigures {
            bmi_tenths: (weight_kg / (of.height_m * of.height_m) * 10.0).round() as u16,
            height_steps: (of.height_m * 1_000.0).round() as u16,
        }),
    })
}

/// Heart rate with the intervals, in seconds, of the beats since the last frame.
pub(super) fn strap(heart_rate_per_min: u16, intervals_s: &[f64]) -> AirFrame {
    AirFrame::of(&HeartRateMeasurement {
        heart_rate_per_min,
        contact: SensorContact::Detected,
        energy_expended_kj: None,
        rr_intervals_1024ths: intervals_s
            .iter()
            .map(|s| (s * 1_024.0).round().min(65_535.0) as u16)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use clinical_model::{Decoded, DecodedValue, DeviceTime, Findings};
    use device_codecs::decode;

    use super::*;

    const PERSON: Baseline = Baseline {
        systolic_mmhg: 130.0,
        diastolic_mmhg: 80.0,
        heart_rate_per_min: 70.0,
        saturation_percent: 97.0,
        temperature_cel: 36.6,
        weight_kg: 80.0,
        height_m: 1.75,
    };

    const NOW: Timestamp = Timestamp::from_seconds(1_790_000_000);

    fn read(frame: fn(&Baseline, &mut Moment<'_>) -> AirFrame, trouble: Option<Trouble>) -> Vec<Decoded> {
        let mut random = Random::seeded(5);
        let mut moment = Moment { now: NOW, utc_offset_min: 60, trouble, random: &mut random };
        let frame = frame(&PERSON, &mut moment);
        let entries = decode(frame.kind, &frame.bytes).entries;
        entries.into_iter().flat_map(|entry| entry.result.unwrap()).collect()
    }

    /// Name, number and unit of each reading.
    fn values(decoded: &[Decoded]) -> Vec<(&'static str, f64, String)> {
        decoded
            .iter()
            .filter_map(|one| match one {
                Decoded::Scalar(s) => match s.value {
                    DecodedValue::Number(n) => Some((s.measure.name, n.to_f64(), s.unit.clone())),
                    DecodedValue::Absent(_) => None,
                },
                _ => None,
            })
            .collect()
    }

    fn check(
        frame: fn(&Baseline, &mut Moment<'_>) -> AirFrame,
        trouble: Option<Trouble>,
        measure: &str,
        range: (f64, f64),
        unit: &str,
    ) {
        let values = values(&read(frame, trouble));
        let found = values.iter().find(|(name, ..)| *name == measure);
        let (_, value, sent_unit) = found.unwrap_or_else(|| panic!("{measure} is not in {values:?}"));
        assert!(range.0 <= *value && *value <= range.1, "{measure} {value}");
        assert_eq!(sent_unit, unit);
    }

    #[test]
    fn frames_say_what_the_person_has() {
        check(cuff, None, "systolic", (105.0, 155.0), "mm[Hg]");
        check(cuff, None, "diastolic", (60.0, 100.0), "mm[Hg]");
        check(cuff, Some(Trouble::Kilopascal), "systolic", (14.0, 20.7), "kPa");
        check(thermometer, None, "body_temperature", (36.0, 37.3), "Cel");
        check(thermometer, Some(Trouble::Fahrenheit), "body_temperature", (96.8, 99.2), "[degF]");
        check(spot_oximeter, None, "oxygen_saturation", (92.0, 100.0), "%");
        check(continuous_oximeter, None, "pulse_rate_oximeter", (55.0, 85.0), "/min");
        check(scale, None, "body_weight", (78.5, 81.5), "kg");
        check(scale, None, "body_height", (1.75, 1.75), "m");
    }

    #[test]
    fn clocks_show_local_time() {
        let time = |trouble| match &read(cuff, trouble)[0] {
            Decoded::Scalar(scalar) => scalar.time,
            other => panic!("{other:?}"),
        };
        let local = NOW.plus(Duration::from_secs(3_600));
        assert_eq!(time(None), DeviceTime::Local(local));
        assert_eq!(time(Some(Trouble::ClockAYearAhead)), DeviceTime::Local(local.plus(YEAR)));
    }

    #[test]
    fn planted_trouble_shows_on_the_wire() {
        for frame in [spot_oximeter, continuous_oximeter] {
            let decoded = read(frame, Some(Trouble::DemonstrationMode));
            assert!(decoded.iter().all(|one| matches!(one,
                Decoded::Scalar(scalar) if scalar.findings.contains(Findings::DEMONSTRATION))));
        }
        let mut random = Random::seeded(1);
        let mut moment = Moment { now: NOW, utc_offset_min: 0, trouble: None, random: &mut random };
        let frame = scale(&PERSON, &mut moment);
        let cut = frame.clone().troubled(Some(Trouble::TruncatesFrames));
        assert!(cut.len() == 1 && decode(cut[0].kind, &cut[0].bytes).entries[0].result.is_err());
        let twice = frame.clone().troubled(Some(Trouble::RepeatsEveryFrame));
        assert_eq!(twice, vec![frame.clone(), frame]);
    }

    #[test]
    fn a_strap_sends_its_intervals() {
        let frame = strap(72, &[0.8, 0.85]);
        let entries = decode(frame.kind, &frame.bytes).entries;
        let values = values(entries[0].result.as_ref().unwrap());
        assert_eq!(values.iter().filter(|(name, ..)| *name == "rr_interval").count(), 2);
        assert_eq!(values[0].1, 72.0);
    }
}
