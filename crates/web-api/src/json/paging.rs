//! Pages of what is newest first, by where the last one ended: what somebody may not see is left out before a page is cut, and
//! what one request looks at has a bound.

use clinical_model::Timestamp;
use pipeline::audited::ReadError;

use crate::problem::Problem;

/// Rows of a list.
pub(super) const LIST_LIMIT: usize = 500;
/// Rows that one request looks at for a page; behind it the next one goes on.
const LOOK_LIMIT: usize = 5_000;

/// Where a page ended: the instant and the id of its last row.
pub(super) type Place<I> = (Timestamp, I);

/// A page of rows, and from where the next one goes on, if there may be more.
pub(super) struct Paged<T> {
    pub rows: Vec<T>,
    pub next_before: Option<String>,
}

/// Where a page ended, as text.
fn text_of<I: std::fmt::Display>((at, id): &Place<I>) -> String {
    format!("{}_{id}", at.as_micros())
}

/// Where the last page ended, from the text that it gave.
pub(super) fn place_of<I: std::str::FromStr>(text: Option<&str>) -> Result<Option<Place<I>>, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let place = text
        .split_once('_')
        .and_then(|(at, id)| Some((Timestamp::from_micros(at.parse().ok()?), id.parse().ok()?)));
    place
        .map(Some)
        .ok_or_else(|| Problem::bad_request("\"before\" is no place that a page of this list gave"))
}

/// A page of at most `limit` rows that are `shown`; `read` gives rows strictly after a place, newest first.
pub(super) fn page<T, I: Copy + std::fmt::Display>(
    mut before: Option<Place<I>>,
    limit: usize,
    mut read: impl FnMut(Option<Place<I>>, usize) -> Result<Vec<T>, ReadError>,
    place: impl Fn(&T) -> Place<I>,
    shown: impl Fn(&T) -> bool,
) -> Result<Paged<T>, ReadError> {
    let (mut rows, mut looked_at) = (Vec::new(), 0);
    loop {
        let some = read(before, LIST_LIMIT)?;
        let is_last = some.len() < LIST_LIMIT;
        looked_at += some.len();
        for row in some {
            before = Some(place(&row));
            if shown(&row) {
                rows.push(row);
                if rows.len() >= limit {
                    return Ok(Paged { rows, next_before: before.as_ref().map(text_of) });
                }
            }
        }
        if is_last {
            return Ok(Paged { rows, next_before: None });
        }
        if looked_at >= LOOK_LIMIT {
            return Ok(Paged { rows, next_before: before.as_ref().map(text_of) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Place<u64> {
        (Timestamp::from_seconds(number as i64), number)
    }

    fn read(before: Option<Place<u64>>, limit: usize) -> Result<Vec<u64>, ReadError> {
        let from = before.map_or(12_000, |(_, number)| number);
        Ok((0..from).rev().take(limit).collect())
    }

    #[test]
    fn what_is_not_shown_cuts_no_page_and_costs_a_bounded_look() {
        let rare = |number: &u64| number.is_multiple_of(700);
        let first = page(None, 3, read, |number| at(*number), rare).unwrap();
        assert_eq!(first.rows, [11_900, 11_200, 10_500]);
        let (mut found, mut next, mut requests) = (first.rows, first.next_before, 1);
        while let Some(text) = next {
            let before = place_of(Some(&text)).unwrap();
            let more = page(before, LIST_LIMIT, read, |number| at(*number), rare).unwrap();
            found.extend(more.rows);
            next = more.next_before;
            requests += 1;
        }
        let all: Vec<u64> = (0..12_000).rev().filter(rare).collect();
        assert_eq!(found, all, "none is missed and none comes twice");
        assert_eq!(requests, 4, "5,000 rows a request");
        for bad in ["x", "1", "_", "1_x", "x_1"] {
            assert!(place_of::<u64>(Some(bad)).is_err(), "{bad}");
        }
    }
}
