//! Blood Pressure Measurement (0x2A35) and Enhanced Blood Pressure Measurement (0x2B34).

use clinical_model::decoded::DecodeFault;
use clinical_model::{Decoded, DeviceTime, Findings, Timestamp, measure};

use super::date_time::{DateTime, device_time};
use super::medfloat::Sfloat;
use super::reader::{Reader, Writer, flag, flags_in_words, names_in_words};
use super::{Characteristic, scalar};

const KILOPASCAL: u8 = 1 << 0;
const HAS_TIME: u8 = 1 << 1;
const HAS_PULSE: u8 = 1 << 2;
const HAS_USER: u8 = 1 << 3;
const HAS_STATUS: u8 = 1 << 4;
const HAS_USER_TIME: u8 = 1 << 5;
const EPOCH_2000: u8 = 1 << 6;

/// Unit of the three pressures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PressureUnit {
    /// Millimetres of mercury.
    MmHg,
    /// Kilopascal.
    Kilopascal,
}

impl PressureUnit {
    const fn from_flags(flags: u8) -> Self {
        if flags & KILOPASCAL == 0 { PressureUnit::MmHg } else { PressureUnit::Kilopascal }
    }

    const fn flag(self) -> u8 {
        match self {
            PressureUnit::MmHg => 0,
            PressureUnit::Kilopascal => KILOPASCAL,
        }
    }

    /// UCUM code.
    pub const fn ucum(self) -> &'static str {
        match self {
            PressureUnit::MmHg => "mm[Hg]",
            PressureUnit::Kilopascal => "kPa",
        }
    }
}

bitflags::bitflags! {
    /// What the cuff reports about the measurement.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct BloodPressureStatus: u16 {
        /// The body moved.
        const BODY_MOVEMENT = 1 << 0;
        /// The cuff was too loose.
        const CUFF_LOOSE = 1 << 1;
        /// The pulse was irregular.
        const IRREGULAR_PULSE = 1 << 2;
        /// Above the pulse range. With [`Self::PULSE_BELOW_RANGE`] together: reserved, ignored.
        const PULSE_ABOVE_RANGE = 1 << 3;
        /// Below the pulse range.
        const PULSE_BELOW_RANGE = 1 << 4;
        /// Improper measuring position.
        const IMPROPER_POSITION = 1 << 5;
    }
}

impl BloodPressureStatus {
    /// The same in findings.
    pub fn findings(self) -> Findings {
        let above = self.contains(Self::PULSE_ABOVE_RANGE);
        let below = self.contains(Self::PULSE_BELOW_RANGE);
        let mut findings = Findings::empty();
        findings.set(Findings::BODY_MOVEMENT, self.contains(Self::BODY_MOVEMENT));
        findings.set(Findings::CUFF_LOOSE, self.contains(Self::CUFF_LOOSE));
        findings.set(Findings::IRREGULAR_PULSE, self.contains(Self::IRREGULAR_PULSE));
        findings.set(Findings::PULSE_ABOVE_RANGE, above && !below);
        findings.set(Findings::PULSE_BELOW_RANGE, below && !above);
        findings.set(Findings::IMPROPER_POSITION, self.contains(Self::IMPROPER_POSITION));
        findings
    }
}

/// One measurement of a cuff, with the seven-byte time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BloodPressureMeasurement {
    /// Unit of the three pressures.
    pub unit: PressureUnit,
    /// Systolic pressure.
    pub systolic: Sfloat,
    /// Diastolic pressure.
    pub diastolic: Sfloat,
    /// Mean arterial pressure.
    pub mean: Sfloat,
    /// The cuff's own clock.
    pub time: Option<DateTime>,
    /// Pulse rate.
    pub pulse_rate_per_min: Option<Sfloat>,
    /// User of the device, 255 where unknown. Never decides whose reading it is: the assignment does.
    pub user_id: Option<u8>,
    /// What the cuff reports.
    pub status: Option<BloodPressureStatus>,
}

/// Where the seconds of an [`EpochTime`] start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// 1900-01-01T00:00:00.
    Year1900,
    /// 2000-01-01T00:00:00.
    Year2000,
}

/// Seconds since an epoch of the device's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochTime {
    /// Where they start.
    pub epoch: Epoch,
    /// How many; 0 is what a clock says that was never set.
    pub seconds: u32,
}

impl EpochTime {
    /// The wall clock that these seconds show.
    ///
    /// The characteristic carries no zone and does not say whether the clock was set to UTC; home cuffs are set
    /// by their user to what the wall shows. So it is local, and the device's configured offset decides.
    pub const fn to_device_time(self) -> DeviceTime {
        let start_s = match self.epoch {
            Epoch::Year1900 => -2_208_988_800,
            Epoch::Year2000 => 946_684_800,
        };
        if self.seconds == 0 {
            return DeviceTime::Unknown;
        }
        DeviceTime::Local(Timestamp::from_seconds(start_s + self.seconds as i64))
    }
}

/// One measurement of a cuff, with times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnhancedBloodPressureMeasurement {
    /// Unit of the three pressures.
    pub unit: PressureUnit,
    /// Systolic pressure.
    pub systolic: Sfloat,
    /// Diastolic pressure.
    pub diastolic: Sfloat,
    /// Mean arterial pressure.
    pub mean: Sfloat,
    /// Where both times start.
    pub epoch: Epoch,
    /// The cuff's own clock, in seconds.
    pub time_s: Option<u32>,
    /// Pulse rate.
    pub pulse_rate_per_min: Option<Sfloat>,
    /// User of the device, 255 where unknown.
    pub user_id: Option<u8>,
    /// What the cuff reports.
    pub status: Option<BloodPressureStatus>,
    /// The time that the cuff showed to its user, in seconds.
    pub user_facing_time_s: Option<u32>,
}

fn read_pressures(reader: &mut Reader<'_>, unit: PressureUnit) -> Result<[Sfloat; 3], DecodeFault> {
    let unit = unit.ucum();
    Ok([
        reader.sfloat("systolic pressure", unit)?,
        reader.sfloat("diastolic pressure", unit)?,
        reader.sfloat("mean arterial pressure", unit)?,
    ])
}

/// The three fields that both characteristics share behind the time.
type Shared = (Option<Sfloat>, Option<u8>, Option<BloodPressureStatus>);

fn read_shared(reader: &mut Reader<'_>, flags: u8) -> Result<Shared, DecodeFault> {
    let pulse = if flags & HAS_PULSE == 0 { None } else { Some(reader.sfloat("pulse rate", "/min")?) };
    let user = if flags & HAS_USER == 0 {
        None
    } else {
        Some(reader.u8("user id", |id| if id == 255 { "unknown".to_owned() } else { format!("user {id}") })?)
    };
    let status = if flags & HAS_STATUS == 0 {
        None
    } else {
        let known = BloodPressureStatus::from_bits_truncate;
        Some(known(reader.u16("measurement status", |bits| names_in_words(&known(bits)))?))
    };
    Ok((pulse, user, status))
}

fn to_decoded(
    pressures: [Sfloat; 3],
    unit: PressureUnit,
    time: DeviceTime,
    pulse: Option<Sfloat>,
    status: Option<BloodPressureStatus>,
) -> Vec<Decoded> {
    let findings = status.unwrap_or_default().findings();
    let components = [measure::SYSTOLIC, measure::DIASTOLIC, measure::MEAN_PRESSURE];
    let mut decoded: Vec<Decoded> = components
        .into_iter()
        .zip(pressures)
        .map(|(measure, number)| scalar(measure, number.value(), unit.ucum(), time, findings))
        .collect();
    if let Some(pulse) = pulse {
        decoded.push(scalar(measure::PULSE_RATE_CUFF, pulse.value(), "/min", time, findings));
    }
    decoded
}

impl BloodPressureMeasurement {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeFault> {
        let words = [
            (KILOPASCAL, "kPa", "mmHg"),
            (HAS_TIME, "with time", ""),
            (HAS_PULSE, "with pulse rate", ""),
            (HAS_USER, "with user", ""),
            (HAS_STATUS, "with status", ""),
        ];
        let flags = reader.u8("flags", |flags| flags_in_words(flags, &words))?;
        let unit = PressureUnit::from_flags(flags);
        let [systolic, diastolic, mean] = read_pressures(reader, unit)?;
        let time = if flags & HAS_TIME == 0 { None } else { Some(reader.date_time("time stamp")?) };
        let (pulse_rate_per_min, user_id, status) = read_shared(reader, flags)?;
        Ok(Self { unit, systolic, diastolic, mean, time, pulse_rate_per_min, user_id, status })
    }
}

impl Characteristic for BloodPressureMeasurement {
    const NUMBER: u16 = 0x2A35;
    const NAME: &'static str = "Blood Pressure Measurement";

    fn decode(bytes: &[u8]) -> Result<Self, DecodeFault> {
        Reader::new(bytes).whole(Self::read)
    }

    fn encode(&self) -> Vec<u8> {
        let flags = self.unit.flag()
            | flag(&self.time, HAS_TIME)
            | flag(&self.pulse_rate_per_min, HAS_PULSE)
            | flag(&self.user_id, HAS_USER)
            | flag(&self.status, HAS_STATUS);
        let mut writer = Writer::new(flags);
        writer.sfloat(self.systolic).sfloat(self.diastolic).sfloat(self.mean);
        self.time.map(|time| writer.date_time(time));
        write_shared(&mut writer, self.pulse_rate_per_min, self.user_id, self.status);
        writer.finish()
    }

    fn to_decoded(&self) -> Vec<Decoded> {
        let pressures = [self.systolic, self.diastolic, self.mean];
        to_decoded(pressures, self.unit, device_time(self.time), self.pulse_rate_per_min, self.status)
    }
}

fn write_shared(
    writer: &mut Writer,
    pulse: Option<Sfloat>,
    user: Option<u8>,
    status: Option<BloodPressureStatus>,
) {
    pulse.map(|pulse| writer.sfloat(pulse));
    user.map(|user| writer.u8(user));
    status.map(|status| writer.u16(status.bits()));
}

impl EnhancedBloodPressureMeasurement {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeFault> {
        let words = [
            (KILOPASCAL, "kPa", "mmHg"),
            (HAS_TIME, "with time", ""),
            (HAS_PULSE, "with pulse rate", ""),
            (HAS_USER, "with user", ""),
            (HAS_STATUS, "with status", ""),
            (HAS_USER_TIME, "with the time shown to the user", ""),
            (EPOCH_2000, "seconds since 2000", "seconds since 1900"),
        ];
        let flags = reader.u8("flags", |flags| flags_in_words(flags, &words))?;
        let unit = PressureUnit::from_flags(flags);
        let epoch = if flags & EPOCH_2000 == 0 { Epoch::Year1900 } else { Epoch::Year2000 };
        let shown = |seconds| match (EpochTime { epoch, seconds }).to_device_time() {
            DeviceTime::Local(at) => at.to_string().trim_end_matches('Z').to_owned(),
            _ => "clock never set".to_owned(),
        };
        let [systolic, diastolic, mean] = read_pressures(reader, unit)?;
        let time_s = if flags & HAS_TIME == 0 { None } else { Some(reader.u32("time stamp", shown)?) };
        let (pulse_rate_per_min, user_id, status) = read_shared(reader, flags)?;
        let user_facing_time_s =
            if flags & HAS_USER_TIME == 0 { None } else { Some(reader.u32("user-facing time", shown)?) };
        Ok(Self {
            unit,
            systolic,
            diastolic,
            mean,
            epoch,
            time_s,
            pulse_rate_per_min,
            user_id,
            status,
            user_facing_time_s,
        })
    }
}

impl Characteristic for EnhancedBloodPressureMeasurement {
    const NUMBER: u16 = 0x2B34;
    const NAME: &'static str = "Enhanced Blood Pressure Measurement";

    fn decode(bytes: &[u8]) -> Result<Self, DecodeFault> {
        Reader::new(bytes).whole(Self::read)
    }

    fn encode(&self) -> Vec<u8> {
        let epoch = if self.epoch == Epoch::Year2000 { EPOCH_2000 } else { 0 };
        let flags = self.unit.flag()
            | flag(&self.time_s, HAS_TIME)
            | flag(&self.pulse_rate_per_min, HAS_PULSE)
            | flag(&self.user_id, HAS_USER)
            | flag(&self.status, HAS_STATUS)
            | flag(&self.user_facing_time_s, HAS_USER_TIME)
            | epoch;
        let mut writer = Writer::new(flags);
        writer.sfloat(self.systolic).sfloat(self.diastolic).sfloat(self.mean);
        self.time_s.map(|seconds| writer.u32(seconds));
        write_shared(&mut writer, self.pulse_rate_per_min, self.user_id, self.status);
        self.user_facing_time_s.map(|seconds| writer.u32(seconds));
        writer.finish()
    }

    /// The time stamp is the time of the measurement; the time shown to the user stands in where it is missing.
    fn to_decoded(&self) -> Vec<Decoded> {
        let seconds = self.time_s.or(self.user_facing_time_s);
        let time = seconds
            .map_or(DeviceTime::Unknown, |seconds| EpochTime { epoch: self.epoch, seconds }.to_device_time());
        let pressures = [self.systolic, self.diastolic, self.mean];
        to_decoded(pressures, self.unit, time, self.pulse_rate_per_min, self.status)
    }
}
