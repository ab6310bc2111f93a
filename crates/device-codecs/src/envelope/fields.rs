//! Taking JSON apart in place: the fields of an object and the items of a list, each with its exact byte range.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use clinical_model::Decimal;
use clinical_model::decoded::DecodeFault;
use serde::Deserializer as _;
use serde::de::{Deserialize, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::de::StrRead;
use serde_json::value::RawValue;

use super::{MAX_FIELDS, MAX_WORD_BYTES};
use crate::fault::{self, quote};

/// The text of a frame, to which every offset refers.
pub(super) struct Source<'a> {
    text: &'a str,
}

/// A list with its bound.
pub(super) struct List {
    pub(super) name: &'static str,
    pub(super) limit: usize,
    pub(super) too_many: &'static str,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Source { text }
    }

    /// Where a borrowed piece stands in the frame. Pieces that were copied stand at its start.
    pub(super) fn offset(&self, piece: &str) -> usize {
        let offset = (piece.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        if offset <= self.text.len() { offset } else { 0 }
    }

    pub(super) fn span(&self, piece: &str) -> Range<usize> {
        let start = self.offset(piece);
        start..start + piece.len()
    }

    pub(super) fn first_byte(&self, raw: &RawValue) -> u8 {
        raw.get().bytes().next().unwrap_or_default()
    }

    pub(super) fn fault(&self, raw: &RawValue, code: &'static str, what: impl Into<String>) -> DecodeFault {
        fault::at(code, self.offset(raw.get()), what)
    }

    /// Where a field name stands, with its quotation mark; names with escapes were copied and are not found.
    fn key_offset(&self, name: &str) -> Option<usize> {
        // `offset` places what was copied at 0, where only an opening brace can stand.
        self.offset(name).checked_sub(1)
    }

    /// A fault at the name of a field, or at its value where the name was copied.
    pub(super) fn fault_at_key(
        &self,
        field: &Field<'a>,
        code: &'static str,
        what: impl Into<String>,
    ) -> DecodeFault {
        let place = self.key_offset(&field.name).unwrap_or_else(|| self.offset(field.value.get()));
        fault::at(code, place, what)
    }

    pub(super) fn wrong_type(&self, raw: &RawValue, name: &str, expected: &str) -> DecodeFault {
        self.fault(raw, fault::WRONG_TYPE, format!("{name} is {expected}, not {}", quote(raw.get())))
    }

    /// A JSON error, its line and column turned into a byte offset of the frame; `start` is where the text that
    /// was parsed begins.
    pub(super) fn json_fault(&self, start: usize, error: &serde_json::Error) -> DecodeFault {
        let parsed = self.text.get(start..).unwrap_or_default();
        let line_start: usize =
            parsed.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        // Columns count bytes from 1, and 0 before the first. What ends too early is wrong at its end.
        let offset = match error.classify() {
            serde_json::error::Category::Eof => self.text.len(),
            _ => start + line_start + error.column().saturating_sub(1),
        };
        let full = error.to_string();
        let plain = full.split(" at line ").next().unwrap_or_default();
        fault::at(fault::BAD_JSON, offset.min(self.text.len()), format!("not JSON: {plain}"))
    }

    /// The items of a JSON array.
    pub(super) fn list(&self, piece: &'a str, list: List) -> Result<Vec<&'a RawValue>, DecodeFault> {
        let start = self.offset(piece);
        if !piece.starts_with('[') {
            let what = format!("{} is a list, not {}", list.name, quote(piece));
            return Err(fault::at(fault::WRONG_TYPE, start, what));
        }
        let mut overflow = false;
        let visitor = ListVisitor { limit: list.limit, overflow: &mut overflow };
        whole(piece, |json| json.deserialize_seq(visitor)).map_err(|error| match overflow {
            true => {
                let what = format!("{} has more than {} items", list.name, list.limit);
                fault::at(list.too_many, start, what)
            }
            false => self.json_fault(start, &error),
        })
    }

    /// A text of at most [`MAX_WORD_BYTES`].
    pub(super) fn word(&self, raw: &'a RawValue, name: &str) -> Result<Cow<'a, str>, DecodeFault> {
        let word = self.text(raw, name)?;
        if word.len() > MAX_WORD_BYTES {
            let what = format!("{name} has {} bytes; at most {MAX_WORD_BYTES} are read", word.len());
            return Err(self.fault(raw, fault::TEXT_TOO_LONG, what));
        }
        Ok(word)
    }

    /// A text of any length.
    pub(super) fn text(&self, raw: &'a RawValue, name: &str) -> Result<Cow<'a, str>, DecodeFault> {
        let inside = raw.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let Some(inside) = inside else {
            return Err(self.wrong_type(raw, name, "a text"));
        };
        // Without a backslash the text is what stands there.
        if !inside.contains('\\') {
            return Ok(Cow::Borrowed(inside));
        }
        let start = self.offset(raw.get());
        serde_json::from_str(raw.get()).map(Cow::Owned).map_err(|error| self.json_fault(start, &error))
    }

    /// A number with the digits that were sent.
    pub(super) fn decimal(&self, raw: &RawValue, name: &str) -> Result<Decimal, DecodeFault> {
        if !matches!(self.first_byte(raw), b'-' | b'0'..=b'9') {
            return Err(self.wrong_type(raw, name, "a number"));
        }
        raw.get().parse().map_err(|_| {
            let what =
                format!("{name} {} cannot be kept exactly (18 digits, exponent ±30)", quote(raw.get()));
            self.fault(raw, fault::NUMBER_OUT_OF_RANGE, what)
        })
    }

    /// A whole number from 0 to 4,294,967,295.
    pub(super) fn count(&self, raw: &RawValue, name: &str) -> Result<u32, DecodeFault> {
        raw.get().parse().map_err(|_| self.wrong_type(raw, name, "a whole number from 0 to 4294967295"))
    }
}

/// Parses a piece of text and makes sure that nothing stands behind it.
pub(super) fn whole<'a, T>(
    piece: &'a str,
    parse: impl FnOnce(&mut serde_json::Deserializer<StrRead<'a>>) -> serde_json::Result<T>,
) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_str(piece);
    let value = parse(&mut json)?;
    json.end()?;
    Ok(value)
}

struct ListVisitor<'o> {
    limit: usize,
    overflow: &'o mut bool,
}

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            if items.len() == self.limit {
                *self.overflow = true;
                return Err(A::Error::custom("too many items"));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// A key, borrowed unless it holds escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// One field of an object.
pub(super) struct Field<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) value: &'a RawValue,
}

/// The fields of an object that nobody has asked for yet.
pub(super) struct Fields<'a> {
    fields: Vec<Field<'a>>,
    /// Where the object stands in the frame.
    pub(super) offset: usize,
}

enum Refusal<'a> {
    Duplicate(Cow<'a, str>),
    TooMany,
}

struct FieldsVisitor<'o, 'a> {
    refusal: &'o mut Option<Refusal<'a>>,
}

impl<'de> Visitor<'de> for FieldsVisitor<'_, 'de> {
    type Value = Vec<Field<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut fields: Vec<Field<'de>> = Vec::with_capacity(8);
        while let Some(Key(name)) = access.next_key()? {
            if fields.iter().any(|field| field.name == name) {
                *self.refusal = Some(Refusal::Duplicate(name));
                return Err(A::Error::custom("duplicate"));
            }
            if fields.len() == MAX_FIELDS {
                *self.refusal = Some(Refusal::TooMany);
                return Err(A::Error::custom("too many"));
            }
            fields.push(Field { name, value: access.next_value()? });
        }
        Ok(fields)
    }
}

impl<'a> Fields<'a> {
    /// Every field of an object; a name that stands twice is refused, because nobody can know which one counts.
    pub(super) fn read(source: &Source<'a>, piece: &'a str) -> Result<Self, DecodeFault> {
        let offset = source.offset(piece);
        if !piece.starts_with('{') {
            let what = format!("expected an object, not {}", quote(piece));
            return Err(fault::at(fault::WRONG_TYPE, offset, what));
        }
        let mut refusal = None;
        let visitor = FieldsVisitor { refusal: &mut refusal };
        let fields = whole(piece, |json| json.deserialize_map(visitor));
        match (fields, refusal) {
            (Ok(fields), _) => Ok(Fields { fields, offset }),
            (Err(error), Some(Refusal::Duplicate(name))) => {
                let place = source.key_offset(&name).unwrap_or(source.json_fault(offset, &error).offset);
                Err(fault::at(fault::DUPLICATE_FIELD, place, format!("{} stands twice", quote(&name))))
            }
            (Err(_), Some(Refusal::TooMany)) => {
                let what = format!("more than {MAX_FIELDS} fields in one object");
                Err(fault::at(fault::UNKNOWN_FIELD, offset, what))
            }
            (Err(error), None) => Err(source.json_fault(offset, &error)),
        }
    }

    /// The field of that name; `null` counts as left out.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.fields.iter().position(|field| field.name == name)?;
        let value = self.fields.swap_remove(at).value;
        (value.get() != "null").then_some(value)
    }

    /// The field of that name, which must stand.
    pub(super) fn need(&mut self, name: &str) -> Result<&'a RawValue, DecodeFault> {
        let offset = self.offset;
        self.take(name)
            .ok_or_else(|| fault::at(fault::MISSING_FIELD, offset, format!("{} is missing", quote(name))))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name == name)
    }

    /// All fields, in the order sent.
    pub(super) fn into_all(self) -> Vec<Field<'a>> {
        self.fields
    }

    /// Refuses what nobody asked for: a misspelt field would otherwise be lost without a word.
    pub(super) fn finish(self, source: &Source<'a>, known: &str) -> Result<(), DecodeFault> {
        match self.fields.first() {
            None => Ok(()),
            Some(field) => {
                let what = format!("{} is no field here; known are {known}", quote(&field.name));
                Err(source.fault_at_key(field, fault::UNKNOWN_FIELD, what))
            }
        }
    }
}
