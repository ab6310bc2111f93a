//! CBOR maps as authenticators write them, read over a library and refused when a key stands twice.

use ciborium::Value;

/// Deepest nesting that is read: a certificate chain in a statement needs four.
const DEPTH_LIMIT: usize = 8;

/// A map.
#[derive(Debug)]
pub(super) struct Map(Vec<(Value, Value)>);

impl Map {
    /// Reads a map at the beginning of `bytes`, and what stands behind it.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), &'static str> {
        let mut rest = bytes;
        let value: Value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_LIMIT)
            .map_err(|_| "it is no CBOR, or breaks off")?;
        let Value::Map(entries) = value else { return Err("it is no CBOR map") };
        for (at, (key, _)) in entries.iter().enumerate() {
            if entries[..at].iter().any(|(earlier, _)| earlier == key) {
                return Err("a key stands twice in it");
            }
        }
        Ok((Map(entries), rest))
    }

    /// Reads a map that is all there is.
    pub(super) fn read_whole(bytes: &[u8]) -> Result<Self, &'static str> {
        let (map, rest) = Self::read(bytes)?;
        if rest.is_empty() { Ok(map) } else { Err("something stands behind its end") }
    }

    fn named(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value)
    }

    fn numbered(&self, number: i64) -> Option<&Value> {
        let is_it = |key: &Value| key.as_integer().is_some_and(|key| i128::from(key) == i128::from(number));
        self.0.iter().find(|(key, _)| is_it(key)).map(|(_, value)| value)
    }

    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.named(name)?.as_bytes().map(Vec::as_slice)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.named(name)?.as_text()
    }

    pub(super) fn map(&self, name: &str) -> Option<()> {
        self.named(name)?.as_map().map(|_| ())
    }

    pub(super) fn integer_at(&self, number: i64) -> Option<i64> {
        i64::try_from(i128::from(self.numbered(number)?.as_integer()?)).ok()
    }

    pub(super) fn bytes_at(&self, number: i64) -> Option<&[u8]> {
        self.numbered(number)?.as_bytes().map(Vec::as_slice)
    }
}
