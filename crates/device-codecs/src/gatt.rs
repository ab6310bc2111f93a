//! Bluetooth health characteristics: one typed struct each, decoded from and encoded to the bytes on the air.
//!
//! Layouts follow the Bluetooth GATT Specification Supplement (Blood Pressure, Heart Rate, Temperature, Weight,
//! Battery Level) and the Pulse Oximeter Service 1.0.1, tables 3.2 to 3.5. Integers are little-endian; an
//! optional field is there only when its flag is set. Bits that the standards reserve are accepted and ignored,
//! so that a newer device is still understood; bytes beyond what the flags announce are not, because then the
//! two sides do not agree on the layout.

mod battery;
mod blood_pressure;
mod date_time;
mod heart_rate;
pub(crate) mod medfloat;
mod pulse_oximeter;
mod reader;
mod thermometer;
mod weight;

use clinical_model::decoded::{DecodeFault, DecodedFrame, DecodedScalar};
use clinical_model::{Decoded, DecodedValue, DeviceTime, Findings, Measure};

use crate::explain::{self, ExplainedField};
use crate::fault;

pub use battery::BatteryLevel;
pub use blood_pressure::{
    BloodPressureMeasurement, BloodPressureStatus, EnhancedBloodPressureMeasurement, Epoch, EpochTime,
    PressureUnit,
};
pub use date_time::DateTime;
pub use heart_rate::{HeartRateMeasurement, MAX_RR_INTERVALS, SensorContact};
pub use medfloat::{Float, Sfloat};
pub use pulse_oximeter::{MeasurementStatus, PlxContinuous, PlxPair, PlxSpotCheck, SensorStatus};
pub use thermometer::{TemperatureMeasurement, TemperatureUnit};
pub use weight::{BodyFigures, WeightMeasurement, WeightUnit};

use reader::Reader;

/// Longest attribute value, in bytes: Bluetooth Core Specification, Vol 3, Part F, 3.2.9.
pub const MAX_ATTRIBUTE_BYTES: usize = 512;

/// A characteristic whose bytes are understood.
pub trait Characteristic: Sized {
    /// Its 16-bit number.
    const NUMBER: u16;
    /// Its name in the Bluetooth assigned numbers.
    const NAME: &'static str;

    /// Reads one notification, indication or read response.
    ///
    /// # Errors
    /// A fault of [`crate::fault`] with the offset of the byte where the layout no longer fits.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeFault>;

    /// The bytes that [`Characteristic::decode`] reads back as the same struct.
    fn encode(&self) -> Vec<u8>;

    /// What it says, in the words of the house.
    fn to_decoded(&self) -> Vec<Decoded>;
}

/// Every characteristic that is understood, with its name.
pub const SUPPORTED: [(u16, &str); 8] = [
    (BatteryLevel::NUMBER, BatteryLevel::NAME),
    (TemperatureMeasurement::NUMBER, TemperatureMeasurement::NAME),
    (BloodPressureMeasurement::NUMBER, BloodPressureMeasurement::NAME),
    (HeartRateMeasurement::NUMBER, HeartRateMeasurement::NAME),
    (PlxSpotCheck::NUMBER, PlxSpotCheck::NAME),
    (PlxContinuous::NUMBER, PlxContinuous::NAME),
    (WeightMeasurement::NUMBER, WeightMeasurement::NAME),
    (EnhancedBloodPressureMeasurement::NUMBER, EnhancedBloodPressureMeasurement::NAME),
];

/// Reads one value of the characteristic with this number.
pub fn decode(number: u16, bytes: &[u8]) -> DecodedFrame {
    match read(number, &mut Reader::new(bytes)) {
        Ok(decoded) => DecodedFrame::single(bytes.len(), decoded),
        Err(fault) => DecodedFrame::unreadable(bytes.len(), fault),
    }
}

/// Every field of one value, in its order; then what the whole comes to, or the fault that ended the reading.
pub(crate) fn explain(number: u16, bytes: &[u8]) -> Vec<ExplainedField> {
    let mut reader = Reader::explaining(bytes);
    let result = read(number, &mut reader);
    let mut rows = reader.into_rows();
    match result {
        Ok(decoded) => {
            let row = |decoded| ExplainedField::new(0, &[], "reading", explain::describe(decoded));
            rows.extend(decoded.iter().map(row));
        }
        Err(fault) => {
            // From the first byte that no row above covers.
            let covered: usize = rows.iter().map(|row| row.length).sum();
            let rest = bytes.get(covered..).unwrap_or_default();
            rows.push(ExplainedField::new(covered, rest, "fault", format!("{fault} ({})", fault.code)));
        }
    }
    rows
}

fn read(number: u16, reader: &mut Reader<'_>) -> Result<Vec<Decoded>, DecodeFault> {
    match number {
        BatteryLevel::NUMBER => reader.all(BatteryLevel::read),
        TemperatureMeasurement::NUMBER => reader.all(TemperatureMeasurement::read),
        BloodPressureMeasurement::NUMBER => reader.all(BloodPressureMeasurement::read),
        HeartRateMeasurement::NUMBER => reader.all(HeartRateMeasurement::read),
        PlxSpotCheck::NUMBER => reader.all(PlxSpotCheck::read),
        PlxContinuous::NUMBER => reader.all(PlxContinuous::read),
        WeightMeasurement::NUMBER => reader.all(WeightMeasurement::read),
        EnhancedBloodPressureMeasurement::NUMBER => reader.all(EnhancedBloodPressureMeasurement::read),
        _ => {
            let known: Vec<String> = SUPPORTED.iter().map(|(known, _)| format!("{known:04x}")).collect();
            let what =
                format!("characteristic {number:04x} is not understood; known are {}", known.join(", "));
            Err(fault::at(fault::UNSUPPORTED_CHARACTERISTIC, 0, what))
        }
    }
}

/// A number of a characteristic; several of one instant are told apart by the caller.
fn scalar(
    measure: Measure,
    value: DecodedValue,
    unit: &str,
    time: DeviceTime,
    findings: Findings,
) -> Decoded {
    Decoded::Scalar(DecodedScalar { measure, value, unit: unit.to_owned(), time, sequence: 0, findings })
}
