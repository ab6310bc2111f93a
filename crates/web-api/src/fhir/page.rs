//! Paging: links, and cursors that only this server can make and only for the search they belong to.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clinical_model::{DeviceId, Measure, RecordId, SeriesKey, Subject, Timestamp};
use health_codecs::fhir::{IssueCode, OutcomeIssue};
use pipeline::search::Position;
use store::Store;

use super::answer::Refusal;

/// Results of a page where the caller does not say.
pub(crate) const COUNT_DEFAULT: u16 = 100;

/// Bytes of the seal of a cursor.
const SEAL_BYTES: usize = 16;

/// Parameters that do not change what is found, and so not to which search a cursor belongs.
const SHAPING: [&str; 2] = ["_cursor", "_count"];

/// The search that a cursor belongs to: type and parameters in their order.
fn search_of(kind: &str, params: &[(String, String)]) -> String {
    let mut text = kind.to_owned();
    for (name, value) in params.iter().filter(|(name, _)| !SHAPING.contains(&name.as_str())) {
        // Lengths, so that no value can pass for another parameter.
        text.push_str(&format!("\u{1f}{}:{name}{}:{value}", name.len(), value.len()));
    }
    text
}

fn seal(store: &dyn Store, search: &str, place: &[u8]) -> [u8; SEAL_BYTES] {
    store.blind("fhir-cursor", &format!("{}\u{1f}{search}", URL_SAFE_NO_PAD.encode(place)))
}

/// A cursor for a place in a search.
pub(crate) fn cursor(store: &dyn Store, kind: &str, params: &[(String, String)], place: &[u8]) -> String {
    let mut bytes = place.to_vec();
    bytes.extend(seal(store, &search_of(kind, params), place));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The place that a cursor names.
///
/// # Errors
/// 400 for a cursor that we did not make for this search.
pub(crate) fn place_of(
    store: &dyn Store,
    kind: &str,
    params: &[(String, String)],
    cursor: &str,
) -> Result<Vec<u8>, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| not_ours())?;
    let at = bytes.len().checked_sub(SEAL_BYTES).ok_or_else(not_ours)?;
    let (place, given) = bytes.split_at(at);
    if trust::equal(given, &seal(store, &search_of(kind, params), place)) {
        Ok(place.to_vec())
    } else {
        Err(not_ours())
    }
}

/// The refusal of a cursor.
pub(crate) fn not_ours() -> Refusal {
    let what = "the cursor is none of ours, or belongs to another search; follow the next link as it is";
    Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::Value, what, "http._cursor")])
}

/// A position of the chart as bytes.
pub(crate) fn position_bytes(position: &Position) -> Vec<u8> {
    let series = position.series;
    let mut bytes = position.at.as_micros().to_be_bytes().to_vec();
    bytes.push(series.subject.kind_number());
    bytes.extend(series.subject.id_bytes());
    bytes.extend(series.measure.number.to_be_bytes());
    bytes.extend(series.device.to_bytes());
    bytes.extend(position.sequence.to_be_bytes());
    bytes
}

/// The inverse of [`position_bytes`].
///
/// # Errors
/// 400 for anything else.
pub(crate) fn position_from(bytes: &[u8]) -> Result<Position, Refusal> {
    read_position(bytes).ok_or_else(not_ours)
}

fn read_position(bytes: &[u8]) -> Option<Position> {
    let (at, rest) = bytes.split_first_chunk::<8>()?;
    let (kind, rest) = rest.split_first()?;
    let (subject, rest) = rest.split_first_chunk::<16>()?;
    let (measure, rest) = rest.split_first_chunk::<2>()?;
    let (device, rest) = rest.split_first_chunk::<16>()?;
    let (sequence, rest) = rest.split_first_chunk::<4>()?;
    rest.is_empty().then_some(())?;
    Some(Position {
        at: Timestamp::from_micros(i64::from_be_bytes(*at)),
        series: SeriesKey {
            subject: Subject::from_parts(*kind, *subject)?,
            measure: Measure::by_number(u16::from_be_bytes(*measure))?,
            device: DeviceId::from_bytes(*device),
        },
        sequence: u32::from_be_bytes(*sequence),
    })
}

/// The 16 bytes of an id, for searches in the order of ids.
pub(crate) fn id_from(bytes: &[u8]) -> Result<[u8; 16], Refusal> {
    bytes.try_into().map_err(|_| not_ours())
}

/// A number, for searches in the order of a log.
pub(crate) fn number_from(bytes: &[u8]) -> Result<u64, Refusal> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| not_ours())
}

/// The address of a search with its parameters.
pub(crate) fn link(base: &str, path: &str, params: &[(String, String)]) -> String {
    let mut url = format!("{base}/{path}");
    for (index, (name, value)) in params.iter().enumerate() {
        url.push(if index == 0 { '?' } else { '&' });
        escape(name, &mut url);
        url.push('=');
        escape(value, &mut url);
    }
    url
}

/// The address of the next page.
pub(crate) fn next_link(base: &str, path: &str, params: &[(String, String)], cursor: String) -> String {
    let mut params: Vec<_> = params.iter().filter(|(name, _)| name != "_cursor").cloned().collect();
    params.push(("_cursor".to_owned(), cursor));
    link(base, path, &params)
}

/// Percent-encodes everything but the unreserved characters and a few that are readable in a query.
fn escape(text: &str, url: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b':'
            | b'/'
            | b','
            | b'$' => {
                url.push(char::from(byte));
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clinical_model::{PatientId, measure};

    #[test]
    fn a_position_round_trips_and_cut_ones_are_refused() {
        let position = Position {
            at: Timestamp::from_micros(-5),
            series: SeriesKey {
                subject: Subject::Patient(PatientId::from_bytes([7; 16])),
                measure: measure::BLOOD_PRESSURE,
                device: DeviceId::from_bytes([9; 16]),
            },
            sequence: 70_000,
        };
        let bytes = position_bytes(&position);
        assert_eq!(position_from(&bytes).unwrap(), position);
        for length in 0..bytes.len() {
            assert!(position_from(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn links_are_escaped() {
        let params = [
            ("date".to_owned(), "ge2026-11-22T10:00:00+01:00".to_owned()),
            ("a&b".to_owned(), "ü=".to_owned()),
        ];
        let link = link("https://h/fhir", "Observation", &params);
        assert_eq!(link, "https://h/fhir/Observation?date=ge2026-11-22T10:00:00%2B01:00&a%26b=%C3%BC%3D");
    }
}
