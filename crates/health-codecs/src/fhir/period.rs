//! FHIR dates and times: their lexical rules, and the span of time that a partial date names.

use clinical_model::{Interval, Timestamp};

/// The fields of a date or date-time, as far as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields<'t> {
    year: i16,
    month: Option<i8>,
    day: Option<i8>,
    /// The time and zone behind the `T`.
    time: Option<&'t str>,
}

/// The clock part of a date-time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock<'t> {
    hour: i8,
    minute: i8,
    second: Option<i8>,
    /// Digits behind the decimal point of the second.
    fraction: &'t str,
    /// `Z` or an offset.
    zone: Option<&'t str>,
}

fn digits(text: &str, length: usize) -> Option<i16> {
    (text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn days_in_month(year: i16, month: i8) -> i8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn fields(text: &str) -> Option<Fields<'_>> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = parts.next().map(|part| digits(part, 2).filter(|month| (1..=12).contains(month)));
    let month = match month {
        Some(found) => Some(found? as i8),
        None => None,
    };
    let day = parts.next().map(|part| digits(part, 2).map(|day| day as i8));
    let day = match day {
        Some(found) => Some(found.filter(|day| (1..=days_in_month(year, month.unwrap_or(1))).contains(day))?),
        None => None,
    };
    if parts.next().is_some() || (time.is_some() && day.is_none()) {
        return None;
    }
    Some(Fields { year, month, day, time })
}

fn clock(text: &str) -> Option<Clock<'_>> {
    let (time, zone) = match text.find(['Z', '+', '-']) {
        Some(at) => (&text[..at], Some(&text[at..])),
        None => (text, None),
    };
    if zone.is_some_and(|zone| !is_zone(zone)) {
        return None;
    }
    let mut parts = time.split(':');
    let two = |part: &str, most: i16| digits(part, 2).filter(|n| *n <= most).map(|n| n as i8);
    let hour = two(parts.next()?, 23)?;
    let minute = two(parts.next()?, 59)?;
    let (second, fraction) = match parts.next() {
        None => (None, ""),
        Some(part) => {
            let (whole, fraction) = part.split_once('.').unwrap_or((part, ""));
            let has_point = part.contains('.');
            if has_point && (fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit())) {
                return None;
            }
            // 60 is a leap second.
            (Some(two(whole, 60)?), fraction)
        }
    };
    parts.next().is_none().then_some(Clock { hour, minute, second, fraction, zone })
}

fn is_zone(zone: &str) -> bool {
    if zone == "Z" {
        return true;
    }
    let Some((hours, minutes)) = zone[1..].split_once(':') else { return false };
    let hours = digits(hours, 2).filter(|n| *n <= 14);
    let minutes = digits(minutes, 2).filter(|n| *n <= 59);
    matches!((hours, minutes), (Some(h), Some(m)) if h < 14 || m == 0)
}

/// Whether the text is a FHIR `date`.
pub(super) fn is_date(text: &str) -> bool {
    fields(text).is_some_and(|fields| fields.time.is_none())
}

/// Whether the text is a FHIR `dateTime`: a date, or a time to the second with a zone.
pub(super) fn is_date_time(text: &str) -> bool {
    fields(text).is_some_and(|fields| match fields.time {
        None => true,
        Some(time) => clock(time).is_some_and(|clock| clock.second.is_some() && clock.zone.is_some()),
    })
}

/// Whether the text is a FHIR `instant`.
pub(super) fn is_instant(text: &str) -> bool {
    text.contains('T') && is_date_time(text)
}

/// Whether the text is a FHIR `time`.
pub(super) fn is_time(text: &str) -> bool {
    clock(text).is_some_and(|clock| clock.second.is_some() && clock.zone.is_none())
}

/// Whether a `dateTime` names at least a day.
pub(super) fn names_a_day(text: &str) -> bool {
    fields(text).is_some_and(|fields| fields.day.is_some())
}

/// The span of time that a search value names: a year, a month, a day, a minute, a second or a part of one.
/// Without a zone it is read as UTC. `None` where it is no date, or outside what is accepted anywhere.
pub(super) fn span(text: &str) -> Option<Interval> {
    let fields = fields(text)?;
    let Some(time) = fields.time else { return date_span(fields) };
    let clock = clock(time)?;
    let zone = clock.zone.unwrap_or("Z");
    let second = clock.second.unwrap_or(0);
    let (year, month, day) = (fields.year, fields.month?, fields.day?);
    let fraction: String = clock.fraction.chars().take(6).collect();
    let point = if fraction.is_empty() { "" } else { "." };
    let whole = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{second:02}{point}{fraction}{zone}",
        clock.hour, clock.minute
    );
    let start: Timestamp = whole.parse().ok()?;
    let micros = match clock.second {
        None => 60_000_000,
        // One unit of the last digit given: .25 is ten milliseconds long.
        Some(_) => 1_000_000 / 10_i64.pow(fraction.len() as u32),
    };
    Some(Interval::between(start, start.plus_micros(micros)))
}

fn date_span(fields: Fields<'_>) -> Option<Interval> {
    let midnight = |year: i16, month: i8, day: i8| Timestamp::from_civil(year, month, day, 0, 0, 0);
    let year = fields.year;
    let (start, end) = match (fields.month, fields.day) {
        (Some(month), Some(day)) => {
            let start = midnight(year, month, day)?;
            (start, start.plus_micros(86_400_000_000))
        }
        (Some(12), None) => (midnight(year, 12, 1)?, midnight(year + 1, 1, 1)?),
        (Some(month), None) => (midnight(year, month, 1)?, midnight(year, month + 1, 1)?),
        (None, _) => (midnight(year, 1, 1)?, midnight(year + 1, 1, 1)?),
    };
    Some(Interval::between(start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_follow_the_lexical_rules() {
        for good in [
            "2026",
            "2026-11",
            "2026-11-22",
            "2024-02-29",
            "2026-11-22T10:15:30Z",
            "2026-11-22T10:15:30.25+01:00",
        ] {
            assert!(is_date_time(good), "{good}");
        }
        for bad in [
            "26",
            "2026-13",
            "2026-02-29",
            "2026-1-1",
            "2026-11-22T10:15Z",
            "2026-11-22T10:15:30",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:15:30.Z",
            "2026-11-22 10:15:30Z",
            "2026-11T10:15:30Z",
            "2026-11-22T10:15:30+15:00",
            "2026-11-22T10:15:30+1:00",
            "",
            "x",
        ] {
            assert!(!is_date_time(bad), "{bad}");
        }
        assert!(is_instant("2026-11-22T10:15:30Z") && !is_instant("2026-11-22"));
        assert!(is_date("2026-11") && !is_date("2026-11-22T10:15:30Z"));
        assert!(is_time("10:15:30.5") && !is_time("10:15") && !is_time("10:15:30Z"));
    }

    fn check(text: &str, start: &str, end: &str) {
        let span = span(text).expect(text);
        assert_eq!(
            (span.start.to_string(), span.end.unwrap().to_string()),
            (start.into(), end.into()),
            "{text}"
        );
    }

    #[test]
    fn a_partial_date_names_a_span() {
        check("2026", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check("2026-12", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check("2026-02", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z");
        check("2026-11-22", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z");
        check("2026-11-22T10:15", "2026-11-22T10:15:00Z", "2026-11-22T10:16:00Z");
        check("2026-11-22T10:15:30+01:00", "2026-11-22T09:15:30Z", "2026-11-22T09:15:31Z");
        check("2026-11-22T10:15:30.25Z", "2026-11-22T10:15:30.250Z", "2026-11-22T10:15:30.260Z");
        check("2026-11-22T10:15:30.123456Z", "2026-11-22T10:15:30.123456Z", "2026-11-22T10:15:30.123457Z");
        assert_eq!(span("2026-13"), None);
        assert_eq!(span("yesterday"), None);
    }
}
