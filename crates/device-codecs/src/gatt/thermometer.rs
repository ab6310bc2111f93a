//! Temperature Measurement (0x2A1C).

use clinical_model::decoded::DecodeFault;
use clinical_model::{Decoded, Findings, measure};

use super::date_time::{DateTime, device_time};
use super::medfloat::Float;
use super::reader::{Reader, Writer, flag, flags_in_words};
use super::{Characteristic, scalar};

const FAHRENHEIT: u8 = 1 << 0;
const HAS_TIME: u8 = 1 << 1;
const HAS_SITE: u8 = 1 << 2;

/// Unit of a temperature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemperatureUnit {
    /// Degrees Celsius.
    Celsius,
    /// Degrees Fahrenheit.
    Fahrenheit,
}

impl TemperatureUnit {
    /// UCUM code.
    pub const fn ucum(self) -> &'static str {
        match self {
            TemperatureUnit::Celsius => "Cel",
            TemperatureUnit::Fahrenheit => "[degF]",
        }
    }
}

/// One measurement of a thermometer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemperatureMeasurement {
    /// Unit of `temperature`.
    pub unit: TemperatureUnit,
    /// The temperature.
    pub temperature: Float,
    /// The thermometer's own clock.
    pub time: Option<DateTime>,
    /// Where on the body, as numbered by the Temperature Type characteristic: 1 armpit, 2 body, 3 ear, 4 finger,
    /// 5 gut, 6 mouth, 7 rectum, 8 toe, 9 eardrum.
    pub site: Option<u8>,
}

fn site_in_words(site: u8) -> String {
    let known = match site {
        1 => "armpit",
        2 => "body",
        3 => "ear",
        4 => "finger",
        5 => "gut",
        6 => "mouth",
        7 => "rectum",
        8 => "toe",
        9 => "eardrum",
        _ => return format!("reserved ({site})"),
    };
    known.to_owned()
}

impl TemperatureMeasurement {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeFault> {
        let words =
            [(FAHRENHEIT, "Fahrenheit", "Celsius"), (HAS_TIME, "with time", ""), (HAS_SITE, "with site", "")];
        let flags = reader.u8("flags", |flags| flags_in_words(flags, &words))?;
        let unit =
            if flags & FAHRENHEIT == 0 { TemperatureUnit::Celsius } else { TemperatureUnit::Fahrenheit };
        let temperature = reader.float("temperature", unit.ucum())?;
        let time = if flags & HAS_TIME == 0 { None } else { Some(reader.date_time("time stamp")?) };
        let site =
            if flags & HAS_SITE == 0 { None } else { Some(reader.u8("temperature type", site_in_words)?) };
        Ok(Self { unit, temperature, time, site })
    }
}

impl Characteristic for TemperatureMeasurement {
    const NUMBER: u16 = 0x2A1C;
    const NAME: &'static str = "Temperature Measurement";

    fn decode(bytes: &[u8]) -> Result<Self, DecodeFault> {
        Reader::new(bytes).whole(Self::read)
    }

    fn encode(&self) -> Vec<u8> {
        let unit = if self.unit == TemperatureUnit::Fahrenheit { FAHRENHEIT } else { 0 };
        let mut writer = Writer::new(unit | flag(&self.time, HAS_TIME) | flag(&self.site, HAS_SITE));
        writer.u32(self.temperature.bits());
        self.time.map(|time| writer.date_time(time));
        self.site.map(|site| writer.u8(site));
        writer.finish()
    }

    /// The site is not charted: the series is "body temperature, whatever the site".
    fn to_decoded(&self) -> Vec<Decoded> {
        let (value, unit) = (self.temperature.value(), self.unit.ucum());
        vec![scalar(measure::BODY_TEMPERATURE, value, unit, device_time(self.time), Findings::empty())]
    }
}
