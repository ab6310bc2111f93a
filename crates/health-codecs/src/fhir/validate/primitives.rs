//! The lexical rules of the FHIR primitives (R4 §2.24.0.1).

use serde_json::Value;

use crate::fhir::element::cut;
use crate::fhir::period;

/// The primitive types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Primitive {
    Boolean,
    Integer,
    UnsignedInt,
    PositiveInt,
    Decimal,
    String,
    Markdown,
    Code,
    Id,
    Uri,
    Url,
    Canonical,
    Oid,
    Uuid,
    Base64Binary,
    Instant,
    Date,
    DateTime,
    Time,
    Xhtml,
}

/// FHIR's limit for a string, in bytes.
const STRING_LIMIT_BYTES: usize = 1024 * 1024;

/// Says what is wrong with a value of that type.
///
/// # Errors
/// A sentence that names what was expected.
pub(super) fn check(primitive: Primitive, value: &Value) -> Result<(), String> {
    match primitive {
        Primitive::Boolean => value.is_boolean().then_some(()).ok_or_else(|| wrong("true or false", value)),
        Primitive::Decimal => {
            value.is_number().then_some(()).ok_or_else(|| wrong("a JSON number (no quotes)", value))
        }
        Primitive::Integer => integer(value, i64::from(i32::MIN)),
        Primitive::UnsignedInt => integer(value, 0),
        Primitive::PositiveInt => integer(value, 1),
        _ => match value.as_str() {
            Some(text) => check_text(primitive, text),
            None => Err(wrong("a JSON string", value)),
        },
    }
}

fn wrong(expected: &str, found: &Value) -> String {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    format!("expected {expected}, found {kind}")
}

fn integer(value: &Value, least: i64) -> Result<(), String> {
    let expected = format!("a whole number from {least} to {}", i32::MAX);
    let Some(number) = value.as_number() else { return Err(wrong(&expected, value)) };
    let text = number.to_string();
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    match text.parse::<i64>() {
        Ok(whole) if plain && (least..=i64::from(i32::MAX)).contains(&whole) => Ok(()),
        _ => Err(format!("expected {expected}, found {}", cut(&text))),
    }
}

fn check_text(primitive: Primitive, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("an empty string; leave the element out instead".into());
    }
    if text.len() > STRING_LIMIT_BYTES {
        return Err("longer than 1 MiB".into());
    }
    let (fits, expected) = match primitive {
        Primitive::String | Primitive::Markdown => (printable(text), "text that is not only white space"),
        Primitive::Code => (is_code(text), "a code without leading, trailing or double white space"),
        Primitive::Id => (is_id(text), "1 to 64 of A-Z a-z 0-9 - ."),
        Primitive::Uri | Primitive::Url | Primitive::Canonical => {
            (is_uri(text), "a URI without white space or control characters")
        }
        Primitive::Oid => (is_oid(text), "urn:oid: with numbers parted by dots"),
        Primitive::Uuid => (is_uuid(text), "urn:uuid: with a UUID in small letters"),
        Primitive::Base64Binary => (is_base64(text), "base64"),
        Primitive::Instant => (period::is_instant(text), "a date and time to the second with a zone"),
        Primitive::Date => (period::is_date(text), "YYYY, YYYY-MM or YYYY-MM-DD"),
        Primitive::DateTime => {
            (period::is_date_time(text), "YYYY, YYYY-MM, YYYY-MM-DD or a time to the second with a zone")
        }
        Primitive::Time => (period::is_time(text), "hh:mm:ss"),
        Primitive::Xhtml => (is_narrative(text), "a single XHTML div"),
        Primitive::Boolean
        | Primitive::Decimal
        | Primitive::Integer
        | Primitive::UnsignedInt
        | Primitive::PositiveInt => (true, ""),
    };
    if fits { Ok(()) } else { Err(format!("expected {expected}, found \"{}\"", cut(text))) }
}

fn printable(text: &str) -> bool {
    let allowed = |c: char| !c.is_control() || matches!(c, '\t' | '\r' | '\n');
    text.chars().all(allowed) && text.chars().any(|c| !c.is_whitespace())
}

fn is_code(text: &str) -> bool {
    text.split(' ')
        .all(|word| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c.is_control()))
}

/// Whether the text can be a resource id.
pub(in crate::fhir) fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

fn is_uri(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn is_oid(text: &str) -> bool {
    let Some(arcs) = text.strip_prefix("urn:oid:") else { return false };
    let arc = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    arcs.contains('.') && arcs.starts_with(['0', '1', '2']) && arcs.split('.').all(arc)
}

fn is_uuid(text: &str) -> bool {
    let Some(digits) = text.strip_prefix("urn:uuid:") else { return false };
    let hyphen = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    digits.len() == 36
        && digits.bytes().enumerate().all(|(at, byte)| match byte {
            b'-' => hyphen(at),
            _ => !hyphen(at) && matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

fn is_base64(text: &str) -> bool {
    let packed: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let padding = packed.iter().rev().take_while(|byte| **byte == b'=').count();
    let (body, _) = packed.split_at(packed.len() - padding);
    packed.len().is_multiple_of(4)
        && padding <= 2
        && !body.is_empty()
        && body.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// Only the frame is looked at: a div of its own, no script. We never show a foreign narrative as markup.
fn is_narrative(text: &str) -> bool {
    let trimmed = text.trim();
    trimmed.starts_with("<div")
        && (trimmed.ends_with("</div>") || trimmed.ends_with("/>"))
        && !trimmed.to_ascii_lowercase().contains("<script")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn accepts(primitive: Primitive, good: &[Value], bad: &[Value]) {
        for value in good {
            assert_eq!(check(primitive, value), Ok(()), "{primitive:?} {value}");
        }
        for value in bad {
            assert!(check(primitive, value).is_err(), "{primitive:?} {value}");
        }
    }

    #[test]
    fn numbers_and_booleans() {
        accepts(Primitive::Boolean, &[json!(true)], &[json!("true"), json!(1)]);
        accepts(Primitive::Decimal, &[json!(1), json!(-0.5)], &[json!("1"), json!(null)]);
        accepts(
            Primitive::Integer,
            &[json!(-3), json!(i32::MAX)],
            &[json!(1.5), json!(1.0), json!(2_147_483_648_u32), json!("3")],
        );
        accepts(Primitive::UnsignedInt, &[json!(0)], &[json!(-1)]);
        accepts(Primitive::PositiveInt, &[json!(1)], &[json!(0)]);
    }

    #[test]
    fn words() {
        accepts(Primitive::String, &[json!("a\tb")], &[json!(""), json!("  "), json!("a\u{0}b"), json!(1)]);
        accepts(Primitive::Code, &[json!("a b")], &[json!(" a"), json!("a  b"), json!("a\n")]);
        accepts(Primitive::Id, &[json!("A-1.b")], &[json!("a_b"), json!("é"), json!("x".repeat(65))]);
        accepts(Primitive::Uri, &[json!("urn:x")], &[json!("a b")]);
        accepts(Primitive::Oid, &[json!("urn:oid:2.16.840")], &[json!("2.16"), json!("urn:oid:2.016")]);
        accepts(
            Primitive::Uuid,
            &[json!("urn:uuid:6f1f0c53-6c1a-4e7e-8f0e-1b1b6a0c9d01")],
            &[json!("urn:uuid:6F1F0C53-6c1a-4e7e-8f0e-1b1b6a0c9d01"), json!("urn:uuid:6f1f0c53")],
        );
        accepts(
            Primitive::Base64Binary,
            &[json!("YWI="), json!("YWJj\nYWJj")],
            &[json!("YWI"), json!("Y*I=")],
        );
    }
}
