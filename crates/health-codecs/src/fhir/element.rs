//! Small builders that several resources share: codings, references, quantities, extensions.

use clinical_model::{Decimal, Subject, Timestamp};
use serde_json::{Number, Value, json};

use super::system;

/// The number with its digits as they are: 72.50 stays 72.50.
pub(super) fn number(value: Decimal) -> Value {
    Value::Number(Number::from_string_unchecked(value.to_string()))
}

/// A coding without display.
pub(super) fn coding(system: &str, code: &str) -> Value {
    json!({ "system": system, "code": code })
}

/// A coding with display.
pub(super) fn shown(system: &str, code: &str, display: &str) -> Value {
    if display.is_empty() {
        return coding(system, code);
    }
    json!({ "system": system, "code": code, "display": display })
}

/// A concept of one coding.
pub(super) fn concept(system: &str, code: &str, display: &str) -> Value {
    json!({ "coding": [shown(system, code, display)] })
}

/// `Patient/…`, `Device/…` or `Location/…`.
pub(super) fn subject_reference(subject: Subject) -> String {
    match subject {
        Subject::Patient(id) => format!("Patient/{id}"),
        Subject::Device(id) => format!("Device/{id}"),
        Subject::Place(id) => format!("Location/{id}"),
    }
}

/// A reference with what a person reads for it.
pub(super) fn reference(target: &str, display: Option<&str>) -> Value {
    match display.filter(|text| !text.is_empty()) {
        Some(text) => json!({ "reference": target, "display": text }),
        None => json!({ "reference": target }),
    }
}

/// A UCUM quantity; `display` stands in for the unit where it is not empty.
pub(super) fn quantity(value: Decimal, code: &str, display: &str) -> Value {
    let unit = if display.is_empty() { code } else { display };
    json!({ "value": number(value), "unit": unit, "system": system::UCUM, "code": code })
}

/// An extension with an instant.
pub(super) fn instant_extension(url: &str, at: Timestamp) -> Value {
    json!({ "url": url, "valueInstant": at.to_rfc3339() })
}

/// The extension of that address among those of an element.
pub(super) fn extension<'v>(element: &'v Value, url: &str) -> Option<&'v Value> {
    element.get("extension")?.as_array()?.iter().find(|each| each["url"] == url)
}

/// A text element, if it is there.
pub(super) fn text<'v>(element: &'v Value, name: &str) -> Option<&'v str> {
    element.get(name)?.as_str()
}

/// The elements of an array, or none.
pub(super) fn items<'v>(element: &'v Value, name: &str) -> &'v [Value] {
    element.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text cut to so many characters, for quoting a caller's input.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}
