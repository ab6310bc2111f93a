//! PLX Spot-Check Measurement (0x2A5E) and PLX Continuous Measurement (0x2A5F).

use clinical_model::decoded::DecodeFault;
use clinical_model::reading::Absent;
use clinical_model::{Decoded, DecodedValue, DeviceTime, Findings, measure};

use super::date_time::{DateTime, device_time};
use super::medfloat::Sfloat;
use super::reader::{Reader, Writer, flag, flags_in_words, names_in_words};
use super::{Characteristic, scalar};

bitflags::bitflags! {
    /// What the oximeter reports about the measurement. Bits 0 to 4 are reserved.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct MeasurementStatus: u16 {
        /// Still measuring.
        const ONGOING = 1 << 5;
        /// An early estimate.
        const EARLY_ESTIMATE = 1 << 6;
        /// Validated.
        const VALIDATED = 1 << 7;
        /// Fully qualified.
        const FULLY_QUALIFIED = 1 << 8;
        /// From the oximeter's own storage.
        const FROM_STORAGE = 1 << 9;
        /// Demonstration data.
        const DEMONSTRATION = 1 << 10;
        /// Test data.
        const TESTING = 1 << 11;
        /// Calibrating.
        const CALIBRATING = 1 << 12;
        /// No measurement available.
        const UNAVAILABLE = 1 << 13;
        /// Questionable.
        const QUESTIONABLE = 1 << 14;
        /// Invalid.
        const INVALID = 1 << 15;
    }
}

bitflags::bitflags! {
    /// What the oximeter reports about itself and its sensor. Bits 16 to 23 are reserved.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct SensorStatus: u32 {
        /// The display is updated more slowly than usual.
        const EXTENDED_UPDATE = 1 << 0;
        /// The equipment malfunctions.
        const MALFUNCTION = 1 << 1;
        /// The signal processing is irregular.
        const PROCESSING_IRREGULAR = 1 << 2;
        /// The signal is inadequate.
        const INADEQUATE_SIGNAL = 1 << 3;
        /// The signal is poor.
        const POOR_SIGNAL = 1 << 4;
        /// Perfusion is low.
        const LOW_PERFUSION = 1 << 5;
        /// The signal is erratic.
        const ERRATIC_SIGNAL = 1 << 6;
        /// The signal does not pulsate.
        const NONPULSATILE_SIGNAL = 1 << 7;
        /// The pulse is questionable.
        const QUESTIONABLE_PULSE = 1 << 8;
        /// The signal is still being analysed.
        const ANALYSING = 1 << 9;
        /// Something interferes with the sensor.
        const INTERFERENCE = 1 << 10;
        /// The sensor is not on the user.
        const UNCONNECTED_TO_USER = 1 << 11;
        /// The sensor is not known to the oximeter.
        const UNKNOWN_SENSOR = 1 << 12;
        /// The sensor is displaced.
        const DISPLACED = 1 << 13;
        /// The sensor malfunctions.
        const SENSOR_MALFUNCTION = 1 << 14;
        /// The sensor is disconnected.
        const DISCONNECTED = 1 << 15;
    }
}

impl MeasurementStatus {
    /// The same in findings. A measurement during calibration counts as questionable.
    pub fn findings(self) -> Findings {
        let mut findings = Findings::empty();
        findings.set(Findings::PRELIMINARY, self.intersects(Self::ONGOING | Self::EARLY_ESTIMATE));
        findings.set(Findings::FROM_DEVICE_STORAGE, self.contains(Self::FROM_STORAGE));
        findings.set(Findings::DEMONSTRATION, self.intersects(Self::DEMONSTRATION | Self::TESTING));
        findings.set(Findings::QUESTIONABLE, self.intersects(Self::CALIBRATING | Self::QUESTIONABLE));
        findings.set(Findings::INVALID, self.contains(Self::INVALID));
        findings
    }
}

impl SensorStatus {
    const WEAK: Self = Self::INADEQUATE_SIGNAL
        .union(Self::POOR_SIGNAL)
        .union(Self::LOW_PERFUSION)
        .union(Self::ERRATIC_SIGNAL)
        .union(Self::NONPULSATILE_SIGNAL);
    const DOUBTFUL: Self =
        Self::PROCESSING_IRREGULAR.union(Self::QUESTIONABLE_PULSE).union(Self::INTERFERENCE);
    const OFF: Self = Self::UNCONNECTED_TO_USER.union(Self::DISPLACED).union(Self::DISCONNECTED);
    const FAULTY: Self = Self::MALFUNCTION.union(Self::UNKNOWN_SENSOR).union(Self::SENSOR_MALFUNCTION);

    /// The same in findings. A slow display says nothing about the value.
    pub fn findings(self) -> Findings {
        let mut findings = Findings::empty();
        findings.set(Findings::LOW_SIGNAL, self.intersects(Self::WEAK));
        findings.set(Findings::QUESTIONABLE, self.intersects(Self::DOUBTFUL));
        findings.set(Findings::PRELIMINARY, self.contains(Self::ANALYSING));
        findings.set(Findings::SENSOR_OFF, self.intersects(Self::OFF));
        findings.set(Findings::SENSOR_FAULT, self.intersects(Self::FAULTY));
        findings
    }
}

/// Oxygen saturation and pulse rate of one averaging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlxPair {
    /// Oxygen saturation in percent.
    pub saturation_percent: Sfloat,
    /// Pulse rate.
    pub pulse_rate_per_min: Sfloat,
}

/// A finished measurement of an oximeter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlxSpotCheck {
    /// Saturation and pulse rate.
    pub reading: PlxPair,
    /// The oximeter's own clock.
    pub time: Option<DateTime>,
    /// What it reports about the measurement.
    pub status: Option<MeasurementStatus>,
    /// What it reports about itself.
    pub sensor_status: Option<SensorStatus>,
    /// Pulse amplitude index in percent.
    pub pulse_amplitude_percent: Option<Sfloat>,
    /// Whether it says that its clock was never set.
    pub clock_not_set: bool,
}

/// One notification of an oximeter that keeps measuring. It carries no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlxContinuous {
    /// With the usual averaging.
    pub normal: PlxPair,
    /// With a fast response.
    pub fast: Option<PlxPair>,
    /// With a slow response.
    pub slow: Option<PlxPair>,
    /// What it reports about the measurement.
    pub status: Option<MeasurementStatus>,
    /// What it reports about itself.
    pub sensor_status: Option<SensorStatus>,
    /// Pulse amplitude index in percent.
    pub pulse_amplitude_percent: Option<Sfloat>,
}

fn read_pair(reader: &mut Reader<'_>, names: [&str; 2]) -> Result<PlxPair, DecodeFault> {
    let [saturation, pulse] = names;
    Ok(PlxPair {
        saturation_percent: reader.sfloat(saturation, "%")?,
        pulse_rate_per_min: reader.sfloat(pulse, "/min")?,
    })
}

/// The three fields that both characteristics share at their end.
type Shared = (Option<MeasurementStatus>, Option<SensorStatus>, Option<Sfloat>);

/// Reads them where the flag bits, in this order, are set.
fn read_shared(reader: &mut Reader<'_>, flags: u8, bits: [u8; 3]) -> Result<Shared, DecodeFault> {
    let [has_status, has_sensor, has_amplitude] = bits;
    let status = if flags & has_status == 0 {
        None
    } else {
        let known = MeasurementStatus::from_bits_truncate;
        Some(known(reader.u16("measurement status", |bits| names_in_words(&known(bits)))?))
    };
    let sensor = if flags & has_sensor == 0 {
        None
    } else {
        let known = SensorStatus::from_bits_truncate;
        Some(known(reader.u24("device and sensor status", |bits| names_in_words(&known(bits)))?))
    };
    let amplitude =
        if flags & has_amplitude == 0 { None } else { Some(reader.sfloat("pulse amplitude index", "%")?) };
    Ok((status, sensor, amplitude))
}

fn write_pair(writer: &mut Writer, pair: PlxPair) {
    writer.sfloat(pair.saturation_percent).sfloat(pair.pulse_rate_per_min);
}

fn write_shared(writer: &mut Writer, (status, sensor, amplitude): Shared) {
    status.map(|status| writer.u16(status.bits()));
    sensor.map(|sensor| writer.u24(sensor.bits()));
    amplitude.map(|amplitude| writer.sfloat(amplitude));
}

/// What the oximeter itself calls unavailable or invalid is no number, whatever digits stand beside it.
fn believed(sent: DecodedValue, status: MeasurementStatus) -> DecodedValue {
    match sent {
        DecodedValue::Absent(_) => sent,
        DecodedValue::Number(_) if status.contains(MeasurementStatus::INVALID) => {
            DecodedValue::Absent(Absent::Error)
        }
        DecodedValue::Number(_) if status.contains(MeasurementStatus::UNAVAILABLE) => {
            DecodedValue::Absent(Absent::Unavailable)
        }
        DecodedValue::Number(_) => sent,
    }
}

fn to_decoded(
    saturation: DecodedValue,
    pulse: DecodedValue,
    (status, sensor, amplitude): Shared,
    time: DeviceTime,
    clock: Findings,
) -> Vec<Decoded> {
    let status = status.unwrap_or_default();
    let findings = status.findings() | sensor.unwrap_or_default().findings() | clock;
    let number = |measure, value, unit| scalar(measure, believed(value, status), unit, time, findings);
    let mut decoded = vec![
        number(measure::OXYGEN_SATURATION, saturation, "%"),
        number(measure::PULSE_RATE_OXIMETER, pulse, "/min"),
    ];
    if let Some(amplitude) = amplitude {
        decoded.push(number(measure::PERFUSION_INDEX, amplitude.value(), "%"));
    }
    decoded
}

mod spot {
    pub(super) const HAS_TIME: u8 = 1 << 0;
    pub(super) const HAS_STATUS: u8 = 1 << 1;
    pub(super) const HAS_SENSOR_STATUS: u8 = 1 << 2;
    pub(super) const HAS_AMPLITUDE: u8 = 1 << 3;
    pub(super) const CLOCK_NOT_SET: u8 = 1 << 4;
}

mod continuous {
    pub(super) const HAS_FAST: u8 = 1 << 0;
    pub(super) const HAS_SLOW: u8 = 1 << 1;
    pub(super) const HAS_STATUS: u8 = 1 << 2;
    pub(super) const HAS_SENSOR_STATUS: u8 = 1 << 3;
    pub(super) const HAS_AMPLITUDE: u8 = 1 << 4;
}

impl PlxSpotCheck {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeFault> {
        let words = [
            (spot::HAS_TIME, "with time", ""),
            (spot::HAS_STATUS, "with measurement status", ""),
            (spot::HAS_SENSOR_STATUS, "with sensor status", ""),
            (spot::HAS_AMPLITUDE, "with pulse amplitude", ""),
            (spot::CLOCK_NOT_SET, "clock not set", ""),
        ];
        let flags = reader.u8("flags", |flags| flags_in_words(flags, &words))?;
        let reading = read_pair(reader, ["oxygen saturation", "pulse rate"])?;
        let time = if flags & spot::HAS_TIME == 0 { None } else { Some(reader.date_time("time stamp")?) };
        let bits = [spot::HAS_STATUS, spot::HAS_SENSOR_STATUS, spot::HAS_AMPLITUDE];
        let (status, sensor_status, pulse_amplitude_percent) = read_shared(reader, flags, bits)?;
        let clock_not_set = flags & spot::CLOCK_NOT_SET != 0;
        Ok(Self { reading, time, status, sensor_status, pulse_amplitude_percent, clock_not_set })
    }
}

impl Characteristic for PlxSpotCheck {
    const NUMBER: u16 = 0x2A5E;
    const NAME: &'static str = "PLX Spot-Check Measurement";

    fn decode(bytes: &[u8]) -> Result<Self, DecodeFault> {
        Reader::new(bytes).whole(Self::read)
    }

    fn encode(&self) -> Vec<u8> {
        let flags = flag(&self.time, spot::HAS_TIME)
            | flag(&self.status, spot::HAS_STATUS)
            | flag(&self.sensor_status, spot::HAS_SENSOR_STATUS)
            | flag(&self.pulse_amplitude_percent, spot::HAS_AMPLITUDE)
            | if self.clock_not_set { spot::CLOCK_NOT_SET } else { 0 };
        let mut writer = Writer::new(flags);
        write_pair(&mut writer, self.reading);
        self.time.map(|time| writer.date_time(time));
        write_shared(&mut writer, (self.status, self.sensor_status, self.pulse_amplitude_percent));
        writer.finish()
    }

    fn to_decoded(&self) -> Vec<Decoded> {
        let clock = if self.clock_not_set { Findings::CLOCK_NOT_SET } else { Findings::empty() };
        let shared = (self.status, self.sensor_status, self.pulse_amplitude_percent);
        let PlxPair { saturation_percent, pulse_rate_per_min } = self.reading;
        let time = device_time(self.time);
        to_decoded(saturation_percent.value(), pulse_rate_per_min.value(), shared, time, clock)
    }
}

impl PlxContinuous {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeFault> {
        let words = [
            (continuous::HAS_FAST, "with fast response", ""),
            (continuous::HAS_SLOW, "with slow response", ""),
            (continuous::HAS_STATUS, "with measurement status", ""),
            (continuous::HAS_SENSOR_STATUS, "with sensor status", ""),
            (continuous::HAS_AMPLITUDE, "with pulse amplitude", ""),
        ];
        let flags = reader.u8("flags", |flags| flags_in_words(flags, &words))?;
        let normal = read_pair(reader, ["oxygen saturation", "pulse rate"])?;
        let fast = if flags & continuous::HAS_FAST == 0 {
            None
        } else {
            Some(read_pair(reader, ["oxygen saturation, fast response", "pulse rate, fast response"])?)
        };
        let slow = if flags & continuous::HAS_SLOW == 0 {
            None
        } else {
            Some(read_pair(reader, ["oxygen saturation, slow response", "pulse rate, slow response"])?)
        };
        let bits = [continuous::HAS_STATUS, continuous::HAS_SENSOR_STATUS, continuous::HAS_AMPLITUDE];
        let (status, sensor_status, pulse_amplitude_percent) = read_shared(reader, flags, bits)?;
        Ok(Self { normal, fast, slow, status, sensor_status, pulse_amplitude_percent })
    }

    /// The first of normal, fast and slow response that is a number, else what the normal one says.
    fn charted(&self, part: impl Fn(&PlxPair) -> Sfloat) -> DecodedValue {
        let normal = part(&self.normal).value();
        let candidates = [Some(self.normal), self.fast, self.slow];
        candidates
            .iter()
            .flatten()
            .map(|pair| part(pair).value())
            .find(|value| matches!(value, DecodedValue::Number(_)))
            .unwrap_or(normal)
    }
}

impl Characteristic for PlxContinuous {
    const NUMBER: u16 = 0x2A5F;
    const NAME: &'static str = "PLX Continuous Measurement";

    fn decode(bytes: &[u8]) -> Result<Self, DecodeFault> {
        Reader::new(bytes).whole(Self::read)
    }

    fn encode(&self) -> Vec<u8> {
        let flags = flag(&self.fast, continuous::HAS_FAST)
            | flag(&self.slow, continuous::HAS_SLOW)
            | flag(&self.status, continuous::HAS_STATUS)
            | flag(&self.sensor_status, continuous::HAS_SENSOR_STATUS)
            | flag(&self.pulse_amplitude_percent, continuous::HAS_AMPLITUDE);
        let mut writer = Writer::new(flags);
        for pair in [Some(self.normal), self.fast, self.slow].into_iter().flatten() {
            write_pair(&mut writer, pair);
        }
        write_shared(&mut writer, (self.status, self.sensor_status, self.pulse_amplitude_percent));
        writer.finish()
    }

    /// One value is charted for each of saturation and pulse rate, so that one series never mixes averagings at
    /// will: the normal response; where that is no number, the fast one, because it is the nearest to now; and
    /// the slow one last.
    fn to_decoded(&self) -> Vec<Decoded> {
        let shared = (self.status, self.sensor_status, self.pulse_amplitude_percent);
        let saturation = self.charted(|pair| pair.saturation_percent);
        let pulse = self.charted(|pair| pair.pulse_rate_per_min);
        to_decoded(saturation, pulse, shared, DeviceTime::Unknown, Findings::empty())
    }
}
