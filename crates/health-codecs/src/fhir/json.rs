//! JSON as FHIR wants it: bounded in depth, no duplicate names, digits kept.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Number, Value};

use super::element::cut;
use super::outcome::{IssueCode, OutcomeIssue};

/// Reads a FHIR JSON document. A name that occurs twice in one object is refused: readers would disagree on what it
/// says. Nesting is bounded by the JSON reader (128 levels).
///
/// # Errors
/// An issue that names the line and column.
pub fn parse(bytes: &[u8]) -> Result<Value, OutcomeIssue> {
    let structure = |what: String| OutcomeIssue::error(IssueCode::Structure, what, "");
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| match error.classify() {
        Category::Data => structure(format!("not FHIR JSON: {error}")),
        _ => structure(format!("not JSON: {error}")),
    })
}

/// The name under which the JSON reader hands over a number with its digits.
const NUMBER_NAME: &str = "$serde_json::private::Number";

/// Builds the document in one pass and refuses a name that is there already.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if name.starts_with('$') {
                // The JSON reader gives a number as a map with one name of its own; no such name may come from outside.
                if name != NUMBER_NAME || !object.is_empty() {
                    return Err(de::Error::custom(format!("\"{}\" is no name in FHIR", cut(&name))));
                }
                let digits: String = fields.next_value()?;
                let number: Number = digits.parse().map_err(de::Error::custom)?;
                return Ok(Value::Number(number));
            }
            if object.contains_key(&name) {
                return Err(de::Error::custom(format!("\"{}\" occurs twice in one object", cut(&name))));
            }
            let value = fields.next_value_seed(Strict)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_kept_and_duplicates_refused() {
        assert_eq!(
            parse(b"{\"a\":72.50,\"b\":[{\"c\":1e-2}]}").unwrap().to_string(),
            "{\"a\":72.50,\"b\":[{\"c\":1e-2}]}"
        );
        for bad in [
            &b"{"[..],
            b"",
            b"{\"a\":1,\"a\":2}",
            b"[{\"a\":{\"b\":1.5,\"b\":1.5}}]",
            b"1 2",
            b"\xff",
            b"{\"$serde_json::private::RawValue\":\"{}\"}",
            b"{\"a\":{\"b\":1,\"$serde_json::private::Number\":\"5\"}}",
            b"{\"$serde_json::private::Number\":\"five\"}",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
