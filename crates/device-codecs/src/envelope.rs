//! The JSON envelope: one reading, panel, waveform block or event, or a batch of them.
//!
//! A frame is UTF-8 text holding one entry object, an array of entries, or an object with the array under
//! `readings` and optionally a `message_id`. What the fields of an entry mean stands at the functions of
//! `entry`. Each entry stands for itself: a bad one becomes a fault with its place and its neighbours are kept.
//! Digits are kept as sent, and nothing is built but the result: the text is scanned in place.

mod encode;
mod entry;
mod fields;
mod waveform;

use clinical_model::Findings;
use clinical_model::decoded::{DecodeFault, DecodedEntry, DecodedFrame};
use serde_json::value::RawValue;

use crate::fault;
use fields::{Fields, List, Source};

pub use encode::{
    EncodePanelError, encode_batch, encode_event, encode_panel, encode_scalar, encode_waveform,
};

/// Longest frame, in bytes: more than [`MAX_SAMPLES`] written out in full, with room to spare.
pub const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;
/// Most entries of a batch: hours of a monitor's backlog, and a bound on the rows of one transaction.
pub const MAX_ENTRIES: usize = 10_000;
/// Most samples of one waveform block: a minute at 1,000 a second.
pub const MAX_SAMPLES: usize = 60_000;
/// Longest text of an event, in characters; longer ones are cut.
pub const MAX_TEXT_CHARS: usize = 200;
/// Longest code, unit, time or other short text, in bytes: the longest in use is under half of it.
pub const MAX_WORD_BYTES: usize = 100;
/// Most flags of one entry: more than there are.
pub const MAX_FLAGS: usize = 32;
/// Most fields of one object: well above the largest shape.
pub const MAX_FIELDS: usize = 32;

/// The findings that a device may report about its own measurement; every other one is ours to find.
pub const DEVICE_FLAGS: Findings = Findings::QUESTIONABLE
    .union(Findings::INVALID)
    .union(Findings::BODY_MOVEMENT)
    .union(Findings::CUFF_LOOSE)
    .union(Findings::IRREGULAR_PULSE)
    .union(Findings::IMPROPER_POSITION)
    .union(Findings::PULSE_ABOVE_RANGE)
    .union(Findings::PULSE_BELOW_RANGE)
    .union(Findings::SENSOR_OFF)
    .union(Findings::LOW_SIGNAL)
    .union(Findings::SENSOR_FAULT)
    .union(Findings::PRELIMINARY)
    .union(Findings::FROM_DEVICE_STORAGE)
    .union(Findings::DEMONSTRATION)
    .union(Findings::CLOCK_NOT_SET);

/// Reads an envelope.
pub fn decode(bytes: &[u8]) -> DecodedFrame {
    match read(bytes) {
        Ok(entries) => DecodedFrame { entries },
        Err(fault) => DecodedFrame::unreadable(bytes.len(), fault),
    }
}

fn read(bytes: &[u8]) -> Result<Vec<DecodedEntry>, DecodeFault> {
    if bytes.len() > MAX_FRAME_BYTES {
        let what = format!("{} bytes; an envelope has at most {MAX_FRAME_BYTES}", bytes.len());
        return Err(fault::at(fault::TOO_LONG, MAX_FRAME_BYTES, what));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| fault::at(fault::BAD_UTF8, error.valid_up_to(), "the envelope is not UTF-8 text"))?;
    let source = Source::new(text);
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| source.json_fault(0, &error))?;
    let entries = match source.first_byte(whole) {
        b'[' => list(&source, whole)?,
        b'{' => match batch(&source, whole)? {
            Some(entries) => entries,
            None => vec![whole],
        },
        _ => {
            let what = "an envelope is an object or an array of objects";
            return Err(fault::at(fault::WRONG_TYPE, source.span(whole).start, what));
        }
    };
    if entries.is_empty() {
        return Err(fault::at(fault::NO_ENTRIES, source.span(whole).start, "the batch has no entries"));
    }
    let decoded = |raw: &RawValue| DecodedEntry { span: source.span(raw), result: entry::read(&source, raw) };
    Ok(entries.into_iter().map(decoded).collect())
}

/// The entries of `{"readings": […]}`; `None` where the object is an entry itself.
fn batch<'a>(source: &Source<'a>, whole: &'a RawValue) -> Result<Option<Vec<&'a RawValue>>, DecodeFault> {
    // An object that is no batch is read again as an entry, and there its faults are its own.
    let Ok(mut fields) = Fields::read(source, whole) else {
        return Ok(None);
    };
    let Some(readings) = fields.take("readings") else {
        return Ok(None);
    };
    if let Some(id) = fields.take("message_id") {
        source.word(id, "message_id")?;
    }
    fields.finish(source, "readings and message_id")?;
    list(source, readings).map(Some)
}

fn list<'a>(source: &Source<'a>, raw: &'a RawValue) -> Result<Vec<&'a RawValue>, DecodeFault> {
    source.list(raw, List { name: "readings", limit: MAX_ENTRIES, too_many: fault::TOO_MANY_ENTRIES })
}
