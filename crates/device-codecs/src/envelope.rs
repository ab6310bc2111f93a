//! The JSON envelope: one reading, panel, waveform block or event, or a batch of them.
//!
//! A frame is UTF-8 text holding one entry object, an array of entries, or an object with the array under
//! `readings` and optionally a `message_id` and a `message_number`. Each entry stands for itself: a bad one becomes a fault with its
//! place, and its neighbours are kept. Digits are kept as sent, and no tree is built: the text is taken apart in
//! place. A field that is not in this table, or stands twice, is a fault; `null` is the same as leaving it out.
//!
//! | Field | In | Is |
//! |---|---|---|
//! | `measure` | scalar | what was measured: name, LOINC code, MDC number or MDC reference id |
//! | `panel` | panel | the same, of a panel |
//! | `waveform` | waveform | the same, of a curve |
//! | `event` | event | the same, of an event |
//! | `value` | scalar | a number, or `null` with `absent` |
//! | `values` | panel | an object from component to number; a component is named like a measure, or `systolic`, `diastolic`, `mean` |
//! | `absent` | scalar, panel | why there is no number: `not-a-number`, `positive-infinity`, `negative-infinity`, `error`, `unavailable` |
//! | `unit` | all | UCUM; left out, it is the unit of the series (an `amount` must have one) |
//! | `time` | all | RFC 3339 with an offset |
//! | `local_time` | all | the same without an offset: the device's own clock, placed by its configured offset |
//! | `sequence` | scalar, panel, event | order among readings of one instant, from 0 |
//! | `flags` | scalar, panel, waveform | what the device reports of the measurement: names of [`DEVICE_FLAGS`] |
//! | `rate` | waveform | samples a second: a number, or `{"numerator": …, "denominator": …}` |
//! | `gain`, `offset` | waveform | a sample is `count · gain + offset`; `offset` is 0 if left out |
//! | `samples` | waveform | 16-bit counts; -32768 marks a missing one |
//! | `samples_base64` | waveform | the same, little-endian, in base64 |
//! | `amount` | event | how much, in `unit` |
//! | `text` | event | free text, cut after [`MAX_TEXT_CHARS`] characters |
//!
//! A number whose entry is flagged `invalid` is not kept as a number: it becomes an absence (`error`) that
//! carries the flag, as for a Bluetooth oximeter that says the same.

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
    EncodePanelError, encode_batch, encode_event, encode_numbered_batch, encode_panel, encode_scalar,
    encode_waveform,
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
        Ok((entries, message_number)) => DecodedFrame { entries, message_number },
        Err(fault) => DecodedFrame::unreadable(bytes.len(), fault),
    }
}

/// Entries, and the device's count of its messages.
type Read = (Vec<DecodedEntry>, Option<u32>);

fn read(bytes: &[u8]) -> Result<Read, DecodeFault> {
    if bytes.len() > MAX_FRAME_BYTES {
        let what = format!("{} bytes; an envelope has at most {MAX_FRAME_BYTES}", bytes.len());
        return Err(fault::at(fault::TOO_LONG, MAX_FRAME_BYTES, what));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| fault::at(fault::BAD_UTF8, error.valid_up_to(), "the envelope is not UTF-8 text"))?;
    let source = Source::new(text);
    let piece = text.trim_matches([' ', '\t', '\n', '\r']);
    match piece.bytes().next() {
        Some(b'[') => Ok((entries(&source, piece)?, None)),
        Some(b'{') => object(&source, piece),
        _ => {
            let any: Result<serde::de::IgnoredAny, _> = serde_json::from_str(text);
            any.map_err(|error| source.json_fault(0, &error))?;
            let what = "an envelope is an object or a list of objects";
            Err(fault::at(fault::WRONG_TYPE, source.offset(piece), what))
        }
    }
}

/// An object: a batch if it has `readings`, else an entry.
fn object<'a>(source: &Source<'a>, piece: &'a str) -> Result<Read, DecodeFault> {
    let result = match Fields::read(source, piece) {
        Ok(fields) if fields.has("readings") => return batch(source, fields),
        Ok(fields) => entry::read(source, fields),
        // Broken text is the frame's fault; everything else is the entry's.
        Err(fault) if fault.code == fault::BAD_JSON => return Err(fault),
        Err(fault) => Err(fault),
    };
    Ok((vec![DecodedEntry { span: source.span(piece), result }], None))
}

fn batch<'a>(source: &Source<'a>, mut fields: Fields<'a>) -> Result<Read, DecodeFault> {
    let readings = fields.need("readings")?;
    if let Some(id) = fields.take("message_id") {
        source.word(id, "message_id")?;
    }
    let number = fields.take("message_number").map(|raw| source.count(raw, "message_number")).transpose()?;
    fields.finish(source, "readings, message_id and message_number")?;
    Ok((entries(source, readings.get())?, number))
}

/// Each item of a list, read for itself.
fn entries<'a>(source: &Source<'a>, piece: &'a str) -> Result<Vec<DecodedEntry>, DecodeFault> {
    let list = List { name: "readings", limit: MAX_ENTRIES, too_many: fault::TOO_MANY_ENTRIES };
    let items = source.list(piece, list)?;
    if items.is_empty() {
        return Err(fault::at(fault::NO_ENTRIES, source.offset(piece), "the batch has no entries"));
    }
    let decoded = |item: &'a RawValue| {
        let result = Fields::read(source, item.get()).and_then(|fields| entry::read(source, fields));
        DecodedEntry { span: source.span(item.get()), result }
    };
    Ok(items.into_iter().map(decoded).collect())
}
