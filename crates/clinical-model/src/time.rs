//! Instants in UTC with microsecond resolution, and half-open intervals of them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What was written further ahead of the present than this is not believed: a clock that ran ahead was set back.
pub const CLOCK_STEP_ENDURED: Duration = Duration::from_secs(300);

/// An instant: whole microseconds since 1970-01-01T00:00:00Z (leap seconds not counted, as in POSIX time).
///
/// Ordered, cheap to copy, and always UTC; zones belong to the edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// A text that is not an RFC 3339 date-time with an offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not an RFC 3339 date and time with an offset, such as 2026-11-22T08:30:00Z")]
pub struct TimestampParseError {
    /// What was read, cut to 64 characters.
    pub text: String,
}

impl Timestamp {
    /// The earliest instant that is accepted anywhere: 1900-01-01T00:00:00Z.
    pub const MIN: Timestamp = Timestamp(-2_208_988_800_000_000);
    /// The latest instant that is accepted anywhere: 2200-01-01T00:00:00Z.
    pub const MAX: Timestamp = Timestamp(7_258_118_400_000_000);

    /// From microseconds since the epoch, clamped to [`Timestamp::MIN`]..=[`Timestamp::MAX`].
    pub const fn from_micros(micros: i64) -> Self {
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Timestamp(micros)
        }
    }

    /// From milliseconds since the epoch, clamped like [`Timestamp::from_micros`].
    pub const fn from_millis(millis: i64) -> Self {
        Self::from_micros(millis.saturating_mul(1_000))
    }

    /// From whole seconds since the epoch, clamped like [`Timestamp::from_micros`].
    pub const fn from_seconds(seconds: i64) -> Self {
        Self::from_micros(seconds.saturating_mul(1_000_000))
    }

    /// From civil date and time fields read as UTC; `None` where they name no real date or time.
    pub fn from_civil(year: i16, month: i8, day: i8, hour: i8, minute: i8, second: i8) -> Option<Self> {
        let civil = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        let at = zoned.timestamp().as_microsecond();
        (Self::MIN.0..=Self::MAX.0).contains(&at).then_some(Timestamp(at))
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Seconds since the epoch, rounded down.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The same instant cut to whole milliseconds.
    pub const fn truncated_to_millis(self) -> Self {
        Self::from_millis(self.as_millis())
    }

    /// Later by `duration`, clamped at [`Timestamp::MAX`].
    pub fn plus(self, duration: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Earlier by `duration`, clamped at [`Timestamp::MIN`].
    pub fn minus(self, duration: Duration) -> Self {
        Self::from_micros(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Later (or earlier, when negative) by `micros` microseconds, clamped.
    pub const fn plus_micros(self, micros: i64) -> Self {
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// Signed distance `self - earlier` in microseconds.
    pub const fn micros_since(self, earlier: Timestamp) -> i64 {
        self.0 - earlier.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn duration_since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.micros_since(earlier)).unwrap_or(0))
    }

    /// Whether this was written by a clock that ran ahead and was set back: later than now by more than
    /// [`CLOCK_STEP_ENDURED`].
    pub fn is_ahead_of(self, now: Timestamp) -> bool {
        self > now.plus(CLOCK_STEP_ENDURED)
    }

    /// RFC 3339 in UTC with exactly the fractional digits needed (none, 3 or 6).
    pub fn to_rfc3339(self) -> String {
        let at = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let digits = if self.0 % 1_000_000 == 0 {
            0
        } else if self.0 % 1_000 == 0 {
            3
        } else {
            6
        };
        let printer = jiff::fmt::temporal::DateTimePrinter::new().precision(Some(digits));
        printer.timestamp_to_string(&at)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

impl FromStr for Timestamp {
    type Err = TimestampParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || TimestampParseError { text: text.chars().take(64).collect() };
        let at: jiff::Timestamp = text.parse().map_err(|_| error())?;
        let micros = at.as_microsecond();
        if (Self::MIN.0..=Self::MAX.0).contains(&micros) { Ok(Timestamp(micros)) } else { Err(error()) }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_rfc3339())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A half-open span of time `[start, end)`; without an end it is still running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// First instant inside.
    pub start: Timestamp,
    /// First instant no longer inside; `None` while it is open.
    pub end: Option<Timestamp>,
}

impl Interval {
    /// From `start` on, without an end.
    pub const fn since(start: Timestamp) -> Self {
        Interval { start, end: None }
    }

    /// From `start` up to but without `end`.
    pub const fn between(start: Timestamp, end: Timestamp) -> Self {
        Interval { start, end: Some(end) }
    }

    /// Whether `at` lies inside.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && self.end.is_none_or(|end| at < end)
    }

    /// Whether the two share at least one instant.
    pub fn overlaps(&self, other: &Interval) -> bool {
        self.end.is_none_or(|end| other.start < end) && other.end.is_none_or(|end| self.start < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, micros: i64, printed: &str) {
        let at: Timestamp = text.parse().unwrap();
        assert_eq!(at.as_micros(), micros, "{text}");
        assert_eq!(at.to_rfc3339(), printed, "{text}");
    }

    #[test]
    fn rfc3339_is_read_and_written() {
        check("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z");
        check("2026-11-22T08:30:00+01:00", 1_795_332_600_000_000, "2026-11-22T07:30:00Z");
        check("2026-11-22T07:30:00.25Z", 1_795_332_600_250_000, "2026-11-22T07:30:00.250Z");
        check("2026-11-22T07:30:00.000001Z", 1_795_332_600_000_001, "2026-11-22T07:30:00.000001Z");
    }

    #[test]
    fn bad_times_are_refused() {
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T08:30:00",
            "2026-13-01T00:00:00Z",
            "9999-01-01T00:00:00Z",
            "yesterday",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
        assert_eq!(Timestamp::from_civil(2026, 2, 30, 0, 0, 0), None);
    }

    #[test]
    fn intervals_are_half_open() {
        let at = Timestamp::from_seconds;
        let first = Interval::between(at(10), at(20));
        assert!(first.contains(at(10)) && !first.contains(at(20)));
        assert!(!first.overlaps(&Interval::since(at(20))));
        assert!(first.overlaps(&Interval::since(at(19))));
        assert!(Interval::since(at(0)).overlaps(&first));
    }
}
