//! Date parameters: a prefix and the span of time that a partial date names.

use clinical_model::{Interval, Timestamp};

use super::super::element::cut;
use super::super::outcome::{IssueCode, OutcomeIssue};
use super::super::period;

/// How a date is compared (R4 §3.1.1.4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// Within the span.
    Eq,
    /// Not within the span.
    Ne,
    /// After the span.
    Gt,
    /// Before the span.
    Lt,
    /// Within or after the span.
    Ge,
    /// Within or before the span.
    Le,
    /// Starts after the span.
    Sa,
    /// Ends before the span.
    Eb,
}

/// One condition on an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateFilter {
    /// How it is compared.
    pub prefix: Prefix,
    /// First instant of the span.
    pub start: Timestamp,
    /// First instant behind the span.
    pub end: Timestamp,
}

impl DateFilter {
    /// Whether an instant fits.
    pub fn matches(&self, at: Timestamp) -> bool {
        match self.prefix {
            Prefix::Eq => self.start <= at && at < self.end,
            Prefix::Ne => at < self.start || self.end <= at,
            Prefix::Gt | Prefix::Sa => self.end <= at,
            Prefix::Lt | Prefix::Eb => at < self.start,
            Prefix::Ge => self.start <= at,
            Prefix::Le => at < self.end,
        }
    }

    /// Reads one value such as `ge2026-11-22T10:00:00Z`. A time without a zone is read as UTC; a space stands for
    /// the `+` that a sloppy client did not escape.
    pub(super) fn parse(name: &str, value: &str) -> Result<Self, OutcomeIssue> {
        let (prefix, date) = split_prefix(name, value)?;
        let mended = date.replace(' ', "+");
        let span = period::span(&mended).and_then(|span| Some((span.start, span.end?)));
        let (start, end) = span.ok_or_else(|| {
            let what = format!(
                "\"{}\" is no date: expected YYYY, YYYY-MM, YYYY-MM-DD or a time such as 2026-11-22T10:15:30Z, with eq, ne, gt, lt, ge, le, sa or eb before it",
                cut(value)
            );
            OutcomeIssue::error(IssueCode::Value, what, format!("http.{name}"))
        })?;
        Ok(DateFilter { prefix, start, end })
    }
}

fn split_prefix<'v>(name: &str, value: &'v str) -> Result<(Prefix, &'v str), OutcomeIssue> {
    let Some((head, date)) =
        value.split_at_checked(2).filter(|(head, _)| head.bytes().all(|b| b.is_ascii_alphabetic()))
    else {
        return Ok((Prefix::Eq, value));
    };
    let prefix = match head {
        "eq" => Prefix::Eq,
        "ne" => Prefix::Ne,
        "gt" => Prefix::Gt,
        "lt" => Prefix::Lt,
        "ge" => Prefix::Ge,
        "le" => Prefix::Le,
        "sa" => Prefix::Sa,
        "eb" => Prefix::Eb,
        _ => {
            let what = format!("the prefix \"{head}\" is not supported: eq, ne, gt, lt, ge, le, sa, eb are");
            return Err(OutcomeIssue::error(IssueCode::NotSupported, what, format!("http.{name}")));
        }
    };
    Ok((prefix, date))
}

/// The smallest interval that holds every instant which fits all filters: what must be read at all. `None` where
/// nothing can fit.
pub fn bounds(filters: &[DateFilter]) -> Option<Interval> {
    let mut start = Timestamp::MIN;
    let mut end: Option<Timestamp> = None;
    for filter in filters {
        let (from, to) = match filter.prefix {
            Prefix::Eq => (Some(filter.start), Some(filter.end)),
            Prefix::Ne => (None, None),
            Prefix::Gt | Prefix::Sa => (Some(filter.end), None),
            Prefix::Lt | Prefix::Eb => (None, Some(filter.start)),
            Prefix::Ge => (Some(filter.start), None),
            Prefix::Le => (None, Some(filter.end)),
        };
        start = from.map_or(start, |from| start.max(from));
        end = to.map_or(end, |to| Some(end.map_or(to, |end| end.min(to))));
    }
    end.is_none_or(|end| start < end).then_some(Interval { start, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, fits: &[&str], fits_not: &[&str]) {
        let filter = DateFilter::parse("date", value).expect(value);
        for at in fits {
            assert!(filter.matches(at.parse().unwrap()), "{value} {at}");
        }
        for at in fits_not {
            assert!(!filter.matches(at.parse().unwrap()), "{value} {at}");
        }
    }

    const BEFORE: &str = "2026-11-21T23:59:59.999Z";
    const FIRST: &str = "2026-11-22T00:00:00Z";
    const LAST: &str = "2026-11-22T23:59:59.999999Z";
    const AFTER: &str = "2026-11-23T00:00:00Z";

    #[test]
    fn a_partial_date_is_a_span() {
        check("2026-11-22", &[FIRST, LAST], &[BEFORE, AFTER]);
        check("eq2026-11-22", &[FIRST, LAST], &[BEFORE, AFTER]);
        check("ne2026-11-22", &[BEFORE, AFTER], &[FIRST, LAST]);
        check("gt2026-11-22", &[AFTER], &[BEFORE, FIRST, LAST]);
        check("sa2026-11-22", &[AFTER], &[BEFORE, FIRST, LAST]);
        check("lt2026-11-22", &[BEFORE], &[FIRST, LAST, AFTER]);
        check("eb2026-11-22", &[BEFORE], &[FIRST, LAST, AFTER]);
        check("ge2026-11-22", &[FIRST, LAST, AFTER], &[BEFORE]);
        check("le2026-11-22", &[BEFORE, FIRST, LAST], &[AFTER]);
        check("2026-11-22T00:00:00 00:00", &[FIRST], &[LAST]);
        check("ge2026-11-22T01:00:00+01:00", &[FIRST], &[BEFORE]);
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for bad in ["", "ge", "x", "ap2026", "2026-13", "22.11.2026", "ge 2026", "2026-11-22T25:00:00Z"] {
            assert!(DateFilter::parse("date", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn several_filters_have_common_bounds() {
        let all = |values: &[&str]| {
            let filters: Vec<DateFilter> =
                values.iter().map(|value| DateFilter::parse("date", value).unwrap()).collect();
            bounds(&filters)
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(all(&["ge2026-11-22", "lt2026-11-23"]), Some(Interval::between(at(FIRST), at(AFTER))));
        assert_eq!(all(&["ge2026-11-22"]), Some(Interval::since(at(FIRST))));
        assert_eq!(all(&["gt2026-11-22", "lt2026-11-22"]), None);
        assert_eq!(all(&[]), Some(Interval::since(Timestamp::MIN)));
    }
}
