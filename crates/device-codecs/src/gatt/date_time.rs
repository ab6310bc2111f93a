//! The seven-byte Date Time: a wall clock without a zone.

use std::fmt;

use clinical_model::{DeviceTime, Timestamp};

/// Year, month, day, hour, minute and second of the device's own clock, as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DateTime {
    /// 1582 to 9999; 0 where the device does not know.
    pub year: u16,
    /// 1 to 12; 0 where the device does not know.
    pub month: u8,
    /// 1 to 31; 0 where the device does not know.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl DateTime {
    /// The clock of a device that shows `local`, read as in [`DeviceTime::Local`]; parts of a second are cut.
    pub fn from_local(local: Timestamp) -> Self {
        let at = jiff::Timestamp::from_microsecond(local.as_micros()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let civil = at.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        // Timestamps lie between 1900 and 2200: none of the parts is negative.
        DateTime {
            year: civil.year().unsigned_abs(),
            month: civil.month().unsigned_abs(),
            day: civil.day().unsigned_abs(),
            hour: civil.hour().unsigned_abs(),
            minute: civil.minute().unsigned_abs(),
            second: civil.second().unsigned_abs(),
        }
    }

    pub(super) const fn from_bytes(bytes: [u8; 7]) -> Self {
        let [year_low, year_high, month, day, hour, minute, second] = bytes;
        DateTime { year: u16::from_le_bytes([year_low, year_high]), month, day, hour, minute, second }
    }

    pub(super) const fn to_bytes(self) -> [u8; 7] {
        let [year_low, year_high] = self.year.to_le_bytes();
        [year_low, year_high, self.month, self.day, self.hour, self.minute, self.second]
    }

    /// A wall-clock time; unknown where a part is 0 for "unknown" or where the parts name no real date and time.
    ///
    /// A device may send year 0 with a valid month and day: that is no time either.
    pub fn to_device_time(self) -> DeviceTime {
        let small = |part: u8| i8::try_from(part).ok();
        let at = (|| {
            Timestamp::from_civil(
                i16::try_from(self.year).ok()?,
                small(self.month)?,
                small(self.day)?,
                small(self.hour)?,
                small(self.minute)?,
                small(self.second)?,
            )
        })();
        at.map_or(DeviceTime::Unknown, DeviceTime::Local)
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DateTime { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match self.to_device_time() {
            DeviceTime::Unknown => f.write_str(" (no usable time)"),
            _ => Ok(()),
        }
    }
}

/// The time of an optional field.
pub(super) fn device_time(field: Option<DateTime>) -> DeviceTime {
    field.map_or(DeviceTime::Unknown, DateTime::to_device_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guidance_example_is_read() {
        let time = DateTime::from_bytes([0xE0, 0x07, 0x05, 0x17, 0x11, 0x34, 0x11]);
        assert_eq!(time.to_string(), "2016-05-23T17:52:17");
        let at = "2016-05-23T17:52:17Z".parse().unwrap();
        assert_eq!(time.to_device_time(), DeviceTime::Local(at));
        assert_eq!(DateTime::from_local(at), time);
        assert_eq!(DateTime::from_bytes(time.to_bytes()), time);
    }

    #[test]
    fn what_names_no_time_is_unknown() {
        let good = DateTime { year: 2024, month: 2, day: 29, hour: 23, minute: 59, second: 59 };
        assert_ne!(good.to_device_time(), DeviceTime::Unknown);
        for bad in [
            DateTime { year: 0, ..good },
            DateTime { month: 0, ..good },
            DateTime { day: 0, ..good },
            DateTime { year: 2023, ..good },
            DateTime { month: 13, ..good },
            DateTime { hour: 24, ..good },
            DateTime { minute: 60, ..good },
            DateTime { second: 255, ..good },
            DateTime { year: 65_535, ..good },
            DateTime { year: 1582, ..good },
        ] {
            assert_eq!(bad.to_device_time(), DeviceTime::Unknown, "{bad:?}");
        }
    }
}
