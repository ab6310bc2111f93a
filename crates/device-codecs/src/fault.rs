//! The words for what can be wrong with a frame, one stable code each, and the sentences that go with them.

use clinical_model::decoded::DecodeFault;

/// Fewer bytes than the flags announce.
pub const TRUNCATED: &str = "truncated";
/// More bytes than the flags announce.
pub const TRAILING_BYTES: &str = "trailing-bytes";
/// Longer than any frame of its kind can be.
pub const TOO_LONG: &str = "too-long";
/// A GATT characteristic that is not known here.
pub const UNSUPPORTED_CHARACTERISTIC: &str = "unsupported-characteristic";
/// A frame of a language that no device speaks.
pub const NOT_A_DEVICE_FRAME: &str = "not-a-device-frame";
/// A number that cannot be kept exactly.
pub const NUMBER_OUT_OF_RANGE: &str = "number-out-of-range";
/// Bytes that are not UTF-8.
pub const BAD_UTF8: &str = "bad-utf8";
/// Text that is not JSON.
pub const BAD_JSON: &str = "bad-json";
/// A batch with more entries than are read.
pub const TOO_MANY_ENTRIES: &str = "too-many-entries";
/// A batch without entries.
pub const NO_ENTRIES: &str = "no-entries";
/// An entry that says neither `measure` nor `panel` nor `waveform` nor `event`.
pub const UNKNOWN_SHAPE: &str = "unknown-shape";
/// JSON of another type than the field has.
pub const WRONG_TYPE: &str = "wrong-type";
/// A field that does not exist.
pub const UNKNOWN_FIELD: &str = "unknown-field";
/// A field that stands twice.
pub const DUPLICATE_FIELD: &str = "duplicate-field";
/// A field that must stand and does not.
pub const MISSING_FIELD: &str = "missing-field";
/// Fields that exclude each other.
pub const CONFLICTING_FIELDS: &str = "conflicting-fields";
/// A measure that is not in the table.
pub const UNKNOWN_MEASURE: &str = "unknown-measure";
/// A measure of another shape than the entry.
pub const WRONG_KIND: &str = "wrong-kind";
/// A time that is no RFC 3339 date and time.
pub const BAD_TIME: &str = "bad-time";
/// A flag that no device may report.
pub const UNKNOWN_FLAG: &str = "unknown-flag";
/// A reason for absence that is not known.
pub const UNKNOWN_REASON: &str = "unknown-absent-reason";
/// Samples that cannot be read.
pub const BAD_SAMPLES: &str = "bad-samples";
/// A text longer than its bound.
pub const TEXT_TOO_LONG: &str = "text-too-long";

/// Longest piece of a device's own text that a fault repeats, in characters: enough to recognise it.
const QUOTE_LIMIT_CHARS: usize = 40;

/// A fault at a place.
pub(crate) fn at(code: &'static str, offset: usize, what: impl Into<String>) -> DecodeFault {
    DecodeFault { code, what: what.into(), offset }
}

/// The device's own text between quotation marks, cut and without control characters.
pub(crate) fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTE_LIMIT_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTE_LIMIT_CHARS).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

pub(crate) fn not_a_device_frame() -> DecodeFault {
    at(NOT_A_DEVICE_FRAME, 0, "a FHIR resource is not read by the device codecs")
}
