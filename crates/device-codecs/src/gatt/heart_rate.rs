//! Heart Rate Measurement (0x2A37).

use clinical_model::decoded::{DecodeFault, DecodedScalar};
use clinical_model::reading::Absent;
use clinical_model::{Decimal, Decoded, DecodedValue, DeviceTime, Findings, measure};

use super::reader::{Reader, Writer, flag, flags_in_words};
use super::{Characteristic, MAX_ATTRIBUTE_BYTES, scalar};

const WIDE: u8 = 1 << 0;
const CONTACT_DETECTED: u8 = 1 << 1;
const CONTACT_SUPPORTED: u8 = 1 << 2;
const HAS_ENERGY: u8 = 1 << 3;
const HAS_RR: u8 = 1 << 4;

/// Most R-R intervals in one notification: what the longest attribute leaves after flags, rate and energy.
pub const MAX_RR_INTERVALS: usize = (MAX_ATTRIBUTE_BYTES - 5) / 2;

/// Whether the strap feels the skin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SensorContact {
    /// The sensor does not say.
    Unsupported,
    /// It says: no skin.
    NotDetected,
    /// It says: skin.
    Detected,
}

/// One notification of a heart-rate sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartRateMeasurement {
    /// Heart rate; written as one byte where it fits.
    pub heart_rate_per_min: u16,
    /// Whether the sensor feels the skin.
    pub contact: SensorContact,
    /// Energy expended since the last reset, in kilojoules; 65,535 means "that or more".
    pub energy_expended_kj: Option<u16>,
    /// Intervals between beats in 1/1024 s, oldest first; [`HeartRateMeasurement::encode`] writes the first
    /// [`MAX_RR_INTERVALS`].
    pub rr_intervals_1024ths: Vec<u16>,
}

/// 1/1024 s in milliseconds with three decimals: the step is 0.977 ms, so no two counts become one.
fn milliseconds(count: u16) -> Option<Decimal> {
    Decimal::new((i64::from(count) * 1_000_000 + 512) / 1_024, -3)
}

impl HeartRateMeasurement {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeFault> {
        let words = [
            (WIDE, "16-bit rate", "8-bit rate"),
            (CONTACT_SUPPORTED, "contact supported", "contact not supported"),
            (CONTACT_DETECTED, "contact detected", "contact not detected"),
            (HAS_ENERGY, "with energy", ""),
            (HAS_RR, "with R-R intervals", ""),
        ];
        let flags = reader.u8("flags", |flags| flags_in_words(flags, &words))?;
        let heart_rate_per_min = if flags & WIDE == 0 {
            u16::from(reader.u8("heart rate", |rate| format!("{rate} /min"))?)
        } else {
            reader.u16("heart rate", |rate| format!("{rate} /min"))?
        };
        let contact = match (flags & CONTACT_SUPPORTED != 0, flags & CONTACT_DETECTED != 0) {
            (false, _) => SensorContact::Unsupported,
            (true, false) => SensorContact::NotDetected,
            (true, true) => SensorContact::Detected,
        };
        let energy_expended_kj = if flags & HAS_ENERGY == 0 {
            None
        } else {
            Some(reader.u16("energy expended", |energy| format!("{energy} kJ"))?)
        };
        let mut rr_intervals_1024ths = Vec::new();
        if flags & HAS_RR != 0 {
            // At least one must stand there: reading it faults where it does not.
            loop {
                let shown = |count| milliseconds(count).map(|ms| format!("{ms} ms")).unwrap_or_default();
                rr_intervals_1024ths.push(reader.u16("R-R interval", shown)?);
                if reader.remaining() == 0 {
                    break;
                }
            }
        }
        Ok(Self { heart_rate_per_min, contact, energy_expended_kj, rr_intervals_1024ths })
    }
}

impl Characteristic for HeartRateMeasurement {
    const NUMBER: u16 = 0x2A37;
    const NAME: &'static str = "Heart Rate Measurement";

    fn decode(bytes: &[u8]) -> Result<Self, DecodeFault> {
        Reader::new(bytes).whole(Self::read)
    }

    fn encode(&self) -> Vec<u8> {
        let narrow = u8::try_from(self.heart_rate_per_min);
        let contact = match self.contact {
            SensorContact::Unsupported => 0,
            SensorContact::NotDetected => CONTACT_SUPPORTED,
            SensorContact::Detected => CONTACT_SUPPORTED | CONTACT_DETECTED,
        };
        let flags = if narrow.is_ok() { 0 } else { WIDE }
            | contact
            | flag(&self.energy_expended_kj, HAS_ENERGY)
            | if self.rr_intervals_1024ths.is_empty() { 0 } else { HAS_RR };
        let mut writer = Writer::new(flags);
        match narrow {
            Ok(rate) => writer.u8(rate),
            Err(_) => writer.u16(self.heart_rate_per_min),
        };
        self.energy_expended_kj.map(|energy| writer.u16(energy));
        for interval in self.rr_intervals_1024ths.iter().take(MAX_RR_INTERVALS) {
            writer.u16(*interval);
        }
        writer.finish()
    }

    /// A strap off the body commonly sends 0 (or the last rate it knew). A zero with "no contact" is no
    /// measurement; a zero from a sensor that cannot tell is kept, but questionable. Other rates are kept.
    fn to_decoded(&self) -> Vec<Decoded> {
        let mut findings = Findings::empty();
        findings.set(Findings::SENSOR_OFF, self.contact == SensorContact::NotDetected);
        let number = |value: u16| DecodedValue::Number(Decimal::from_integer(value.into()));
        let (rate, doubt) = match (self.heart_rate_per_min, self.contact) {
            (0, SensorContact::NotDetected) => (DecodedValue::Absent(Absent::Unavailable), Findings::empty()),
            (0, SensorContact::Unsupported) => (number(0), Findings::QUESTIONABLE),
            (rate, _) => (number(rate), Findings::empty()),
        };
        let time = DeviceTime::Unknown;
        let mut decoded = vec![scalar(measure::HEART_RATE, rate, "/min", time, findings | doubt)];
        for (sequence, count) in (0u32..).zip(&self.rr_intervals_1024ths) {
            let value =
                milliseconds(*count).map_or(DecodedValue::Absent(Absent::Error), DecodedValue::Number);
            let unit = "ms".to_owned();
            let measure = measure::RR_INTERVAL;
            decoded.push(Decoded::Scalar(DecodedScalar { measure, value, unit, time, sequence, findings }));
        }
        if let Some(energy) = self.energy_expended_kj {
            decoded.push(scalar(measure::ENERGY_EXPENDED, number(energy), "kJ", time, findings));
        }
        decoded
    }
}
