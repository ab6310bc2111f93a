//! Reading a characteristic field by field, with every field named, and writing one.

use clinical_model::Decoded;
use clinical_model::decoded::DecodeFault;

use super::date_time::DateTime;
use super::medfloat::{Float, Sfloat, show};
use super::{Characteristic, MAX_ATTRIBUTE_BYTES};
use crate::explain::ExplainedField;
use crate::fault;

/// A place in the bytes; remembers a row for each field when it is asked to explain.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    rows: Option<Vec<ExplainedField>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0, rows: None }
    }

    pub(super) fn explaining(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0, rows: Some(Vec::new()) }
    }

    pub(super) fn into_rows(self) -> Vec<ExplainedField> {
        self.rows.unwrap_or_default()
    }

    /// Reads one whole value and nothing beyond it.
    pub(super) fn whole<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, DecodeFault>,
    ) -> Result<T, DecodeFault> {
        if self.bytes.len() > MAX_ATTRIBUTE_BYTES {
            let what =
                format!("{} bytes; no attribute is longer than {MAX_ATTRIBUTE_BYTES}", self.bytes.len());
            return Err(fault::at(fault::TOO_LONG, MAX_ATTRIBUTE_BYTES, what));
        }
        let value = read(self)?;
        let rest = self.remaining();
        if rest > 0 {
            let what = format!("{rest} more bytes than the flags announce");
            return Err(fault::at(fault::TRAILING_BYTES, self.at, what));
        }
        Ok(value)
    }

    /// Like [`Reader::whole`], down to what it says.
    pub(super) fn all<T: Characteristic>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, DecodeFault>,
    ) -> Result<Vec<Decoded>, DecodeFault> {
        self.whole(read).map(|value| value.to_decoded())
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take<const N: usize>(
        &mut self,
        name: &str,
        meaning: impl FnOnce([u8; N]) -> String,
    ) -> Result<[u8; N], DecodeFault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(field) = rest.first_chunk::<N>() else {
            let unit = if N == 1 { "byte" } else { "bytes" };
            let what = format!("{name} needs {N} {unit}, {} are left", rest.len());
            return Err(fault::at(fault::TRUNCATED, self.at, what));
        };
        if let Some(rows) = &mut self.rows {
            rows.push(ExplainedField::new(self.at, field, name, meaning(*field)));
        }
        self.at += N;
        Ok(*field)
    }

    pub(super) fn u8(&mut self, name: &str, meaning: impl FnOnce(u8) -> String) -> Result<u8, DecodeFault> {
        self.take(name, |[byte]| meaning(byte)).map(|[byte]| byte)
    }

    pub(super) fn u16(
        &mut self,
        name: &str,
        meaning: impl FnOnce(u16) -> String,
    ) -> Result<u16, DecodeFault> {
        self.take(name, |field| meaning(u16::from_le_bytes(field))).map(u16::from_le_bytes)
    }

    pub(super) fn u24(
        &mut self,
        name: &str,
        meaning: impl FnOnce(u32) -> String,
    ) -> Result<u32, DecodeFault> {
        let wide = |[low, middle, high]: [u8; 3]| u32::from_le_bytes([low, middle, high, 0]);
        self.take(name, |field| meaning(wide(field))).map(wide)
    }

    pub(super) fn u32(
        &mut self,
        name: &str,
        meaning: impl FnOnce(u32) -> String,
    ) -> Result<u32, DecodeFault> {
        self.take(name, |field| meaning(u32::from_le_bytes(field))).map(u32::from_le_bytes)
    }

    pub(super) fn sfloat(&mut self, name: &str, unit: &str) -> Result<Sfloat, DecodeFault> {
        let number = |field| Sfloat::from_bits(u16::from_le_bytes(field));
        self.take(name, |field| with_unit(show(number(field).value()), unit)).map(number)
    }

    pub(super) fn float(&mut self, name: &str, unit: &str) -> Result<Float, DecodeFault> {
        let start = self.at;
        let number = |field| Float::from_bits(u32::from_le_bytes(field));
        let shown = |field| match number(field) {
            Some(number) => with_unit(show(number.value()), unit),
            None => "an exponent beyond ±30".to_owned(),
        };
        let field = self.take(name, shown)?;
        number(field).ok_or_else(|| {
            fault::at(fault::NUMBER_OUT_OF_RANGE, start, format!("{name} has an exponent beyond ±30"))
        })
    }

    pub(super) fn date_time(&mut self, name: &str) -> Result<DateTime, DecodeFault> {
        self.take(name, |field| DateTime::from_bytes(field).to_string()).map(DateTime::from_bytes)
    }
}

fn with_unit(number: String, unit: &str) -> String {
    if unit.is_empty() || number.starts_with("no value") { number } else { format!("{number} {unit}") }
}

/// What the flag bits say, in one line: the names of those that are set, and the reserved ones by number.
pub(super) fn flags_in_words(flags: u8, words: &[(u8, &str, &str)]) -> String {
    let mut known = 0;
    let mut parts: Vec<String> = Vec::new();
    for (bit, set, clear) in words {
        known |= bit;
        let word = if flags & bit == 0 { clear } else { set };
        if !word.is_empty() {
            parts.push((*word).to_owned());
        }
    }
    if flags & !known != 0 {
        parts.push(format!("reserved bits 0x{:02x} ignored", flags & !known));
    }
    if parts.is_empty() { "nothing optional".to_owned() } else { parts.join(", ") }
}

/// The names of a set of flags, or "nothing reported".
pub(super) fn names_in_words<T: bitflags::Flags>(set: &T) -> String {
    let names: Vec<String> =
        set.iter_names().map(|(name, _)| name.to_ascii_lowercase().replace('_', " ")).collect();
    if names.is_empty() { "nothing reported".to_owned() } else { names.join(", ") }
}

/// Bytes in the order of the air.
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts with the flags, which every caller knows before the fields.
    pub(super) fn new(flags: u8) -> Self {
        Writer { bytes: vec![flags] }
    }

    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u24(&mut self, value: u32) -> &mut Self {
        self.bytes.extend(value.to_le_bytes().into_iter().take(3));
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn sfloat(&mut self, value: Sfloat) -> &mut Self {
        self.u16(value.bits())
    }

    pub(super) fn date_time(&mut self, value: DateTime) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_bytes());
        self
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The bit where a field is there.
pub(super) fn flag<T>(field: &Option<T>, bit: u8) -> u8 {
    if field.is_some() { bit } else { 0 }
}
