//! JSON as FHIR wants it: bounded in depth, no duplicate names, digits kept.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::element::cut;
use super::outcome::{IssueCode, OutcomeIssue};

/// Reads a FHIR JSON document. A name that occurs twice in one object is refused: readers would disagree on what it
/// says. Nesting is bounded by the JSON reader (128 levels).
///
/// # Errors
/// An issue that names the line and column.
pub fn parse(bytes: &[u8]) -> Result<Value, OutcomeIssue> {
    let structure = |what: String| OutcomeIssue::error(IssueCode::Structure, what, "");
    let value = serde_json::from_slice(bytes).map_err(|error| structure(format!("not JSON: {error}")))?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    UniqueNames.deserialize(&mut reader).map_err(|error| structure(format!("not FHIR JSON: {error}")))?;
    Ok(value)
}

/// The name under which the JSON reader hands over a number with its digits.
const NUMBER_NAME: &str = "$serde_json::private::Number";

/// Walks a document and keeps nothing.
struct UniqueNames;

impl<'de> DeserializeSeed<'de> for UniqueNames {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueNames {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(UniqueNames)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            // The JSON reader gives numbers as a map with a name of its own; no other such name may come from outside.
            if name.starts_with('$') && name != NUMBER_NAME {
                return Err(de::Error::custom(format!("\"{}\" is no name in FHIR", cut(&name))));
            }
            if seen.contains(&name) {
                return Err(de::Error::custom(format!("\"{}\" occurs twice in one object", cut(&name))));
            }
            fields.next_value_seed(UniqueNames)?;
            seen.insert(name);
        }
        Ok(())
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
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
