//! Battery Level (0x2A19): one byte, percent.

use clinical_model::decoded::DecodeFault;
use clinical_model::reading::Absent;
use clinical_model::{Decimal, Decoded, DecodedValue, DeviceTime, Findings, measure};

use super::reader::Reader;
use super::{Characteristic, scalar};

/// Charge of a battery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatteryLevel {
    /// 0 to 100; the values above are reserved.
    pub percent: u8,
}

impl BatteryLevel {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeFault> {
        let percent = reader.u8("battery level", |percent| format!("{percent} %"))?;
        Ok(BatteryLevel { percent })
    }
}

impl Characteristic for BatteryLevel {
    const NUMBER: u16 = 0x2A19;
    const NAME: &'static str = "Battery Level";

    fn decode(bytes: &[u8]) -> Result<Self, DecodeFault> {
        Reader::new(bytes).whole(Self::read)
    }

    fn encode(&self) -> Vec<u8> {
        vec![self.percent]
    }

    /// A reserved value is no number.
    fn to_decoded(&self) -> Vec<Decoded> {
        let value = match self.percent {
            0..=100 => DecodedValue::Number(Decimal::from_integer(self.percent.into())),
            _ => DecodedValue::Absent(Absent::Error),
        };
        vec![scalar(measure::BATTERY_LEVEL, value, "%", DeviceTime::Unknown, Findings::empty())]
    }
}
