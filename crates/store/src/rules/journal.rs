//! The journal's row: one committed group of frames with their facts, in a compact binary format.

use clinical_model::{
    Delivery, DeviceId, Event, Fact, Findings, Frame, FrameKind, QuarantineId, Reading, RecordId, SeriesKey,
    Timestamp, UserId, Waveform,
};

use super::bytes::{Reader, Writer, pack, unpack};
use super::row::{Malformed, read_decimal, read_value, write_decimal, write_value};
use crate::{FrameRecord, StoreError};

/// First byte of the row; later formats take later numbers.
const FORMAT: u8 = 1;
/// The journal is on the way to the acknowledgement: the fastest level.
const ZSTD_LEVEL: i32 = 1;

const READING: u8 = 0;
const WAVEFORM: u8 = 1;
const EVENT: u8 = 2;

/// One frame of a group, read back.
pub(super) struct FrameRow {
    pub(super) frame: Frame,
    pub(super) facts: Vec<(u32, Fact)>,
    pub(super) quarantined: Vec<QuarantineId>,
    pub(super) released: Vec<(QuarantineId, UserId)>,
}

/// Encodes a group; `number` gives each series its number.
pub(super) fn encode(
    frames: &[FrameRecord],
    number: &mut dyn FnMut(&SeriesKey) -> Result<u32, StoreError>,
) -> Result<Vec<u8>, StoreError> {
    let size: usize =
        frames.iter().map(|record| record.frame.bytes.len() + record.facts.len() * 16 + 64).sum();
    let mut writer = Writer::with_capacity(size);
    writer.u8(FORMAT);
    writer.unsigned(frames.len() as u64);
    for record in frames {
        write_frame(&mut writer, &record.frame);
        writer.unsigned(record.facts.len() as u64);
        for fact in &record.facts {
            let series = number(&fact.series())?;
            write_fact(&mut writer, series, fact, record.frame.received_at.truncated_to_millis());
        }
        writer.unsigned(record.quarantined.len() as u64);
        for item in &record.quarantined {
            writer.fixed(&item.id.to_bytes());
        }
        writer.unsigned(record.released.len() as u64);
        for (id, user) in &record.released {
            writer.fixed(&id.to_bytes());
            writer.fixed(&user.to_bytes());
        }
    }
    Ok(pack(&writer.finish(), ZSTD_LEVEL))
}

/// Decodes a group. Raw bytes of frames are left out unless they are asked for.
pub(super) fn decode(
    packed: &[u8],
    with_bytes: bool,
    key: &dyn Fn(u32) -> Option<SeriesKey>,
) -> Result<Vec<FrameRow>, Malformed> {
    let plain = unpack(packed)?;
    let mut reader = Reader::new(&plain);
    if reader.u8()? != FORMAT {
        return Err(Malformed("its format is unknown to this release"));
    }
    let count = reader.count()?;
    let mut frames = Vec::with_capacity(count);
    for _ in 0..count {
        let frame = read_frame(&mut reader, with_bytes)?;
        let facts = reader.count()?;
        let facts =
            (0..facts).map(|_| read_fact(&mut reader, key, frame.received_at)).collect::<Result<_, _>>()?;
        let quarantined = reader.count()?;
        let quarantined = (0..quarantined)
            .map(|_| reader.array().map(QuarantineId::from_bytes))
            .collect::<Result<_, _>>()?;
        let released = reader.count()?;
        let released = (0..released)
            .map(|_| Ok((QuarantineId::from_bytes(reader.array()?), UserId::from_bytes(reader.array()?))))
            .collect::<Result<_, Malformed>>()?;
        frames.push(FrameRow { frame, facts, quarantined, released });
    }
    reader.finish()?;
    Ok(frames)
}

/// Device, kind, time, delivery and bytes; also the format inside frame blocks.
pub(super) fn write_frame(writer: &mut Writer, frame: &Frame) {
    writer.fixed(&frame.device.to_bytes());
    match frame.kind {
        FrameKind::Envelope => writer.u8(0),
        FrameKind::Fhir => writer.u8(1),
        FrameKind::Gatt(number) => {
            writer.u8(2);
            writer.fixed(&number.to_be_bytes());
        }
    }
    writer.signed(frame.received_at.as_millis());
    writer.u8(match frame.delivery {
        Delivery::AtMostOnce => 0,
        Delivery::AtLeastOnce => 1,
    });
    writer.framed(&frame.bytes);
}

pub(super) fn read_frame(reader: &mut Reader<'_>, with_bytes: bool) -> Result<Frame, Malformed> {
    let device = DeviceId::from_bytes(reader.array()?);
    let kind = match reader.u8()? {
        0 => FrameKind::Envelope,
        1 => FrameKind::Fhir,
        2 => FrameKind::Gatt(u16::from_be_bytes(reader.array()?)),
        _ => return Err(Malformed("a kind of frame is unknown to this release")),
    };
    let received_at = Timestamp::from_millis(reader.signed()?);
    let delivery = match reader.u8()? {
        0 => Delivery::AtMostOnce,
        1 => Delivery::AtLeastOnce,
        _ => return Err(Malformed("a kind of delivery is unknown to this release")),
    };
    let bytes = reader.framed()?;
    let bytes = if with_bytes { bytes.to_vec() } else { Vec::new() };
    Ok(Frame { device, kind, received_at, delivery, bytes })
}

fn write_fact(writer: &mut Writer, series: u32, fact: &Fact, frame_received: Timestamp) {
    let (tag, at, received, findings) = match fact {
        Fact::Reading(reading) => (READING, reading.measured_at(), reading.received_at(), reading.findings()),
        Fact::Waveform(waveform) => (WAVEFORM, waveform.start, waveform.received_at, waveform.findings),
        Fact::Event(event) => (EVENT, event.at, event.received_at, event.findings),
    };
    writer.u8(tag);
    writer.unsigned(u64::from(series));
    writer.signed(at.micros_since(frame_received));
    writer.signed(received.as_millis() - frame_received.as_millis());
    writer.unsigned(u64::from(findings.bits()));
    match fact {
        Fact::Reading(reading) => {
            writer.unsigned(u64::from(reading.sequence()));
            write_value(writer, reading.value());
        }
        Fact::Waveform(waveform) => write_curve(writer, waveform),
        Fact::Event(event) => {
            writer.unsigned(u64::from(event.sequence));
            write_event_content(writer, event);
        }
    }
}

fn read_fact(
    reader: &mut Reader<'_>,
    key: &dyn Fn(u32) -> Option<SeriesKey>,
    frame_received: Timestamp,
) -> Result<(u32, Fact), Malformed> {
    let tag = reader.u8()?;
    let number = reader.u32()?;
    let series = key(number).ok_or(Malformed("it names a series that does not exist"))?;
    let at = frame_received.plus_micros(reader.signed()?);
    let received_at = Timestamp::from_millis(frame_received.as_millis().wrapping_add(reader.signed()?));
    let findings = Findings::from_bits_retain(reader.u32()?);
    let fact = match tag {
        READING => {
            let sequence = reader.u32()?;
            let value = read_value(reader)?;
            Fact::Reading(Reading::restored(series, at, received_at, sequence, value, findings))
        }
        WAVEFORM => Fact::Waveform(read_curve(reader, series, at, received_at, findings)?),
        EVENT => {
            let sequence = reader.u32()?;
            let (amount, text) = read_event_content(reader)?;
            Fact::Event(Event { series, at, received_at, sequence, amount, text, findings })
        }
        _ => return Err(Malformed("a kind of fact is unknown to this release")),
    };
    Ok((number, fact))
}

/// Rate, gain, offset and samples as differences: neighbours are close.
fn write_curve(writer: &mut Writer, waveform: &Waveform) {
    writer.unsigned(u64::from(waveform.rate_numerator));
    writer.unsigned(u64::from(waveform.rate_denominator));
    write_decimal(writer, waveform.gain);
    write_decimal(writer, waveform.offset);
    writer.unsigned(waveform.samples.len() as u64);
    let mut before = 0_i64;
    for sample in &waveform.samples {
        let sample = i64::from(*sample);
        writer.signed(sample - before);
        before = sample;
    }
}

fn read_curve(
    reader: &mut Reader<'_>,
    series: SeriesKey,
    start: Timestamp,
    received_at: Timestamp,
    findings: Findings,
) -> Result<Waveform, Malformed> {
    let rate_numerator = reader.u32()?;
    let rate_denominator = reader.u32()?;
    if rate_numerator == 0 || rate_denominator == 0 {
        return Err(Malformed("a sampling rate is zero"));
    }
    let gain = read_decimal(reader)?;
    let offset = read_decimal(reader)?;
    let count = reader.count()?;
    let mut samples = Vec::with_capacity(count);
    let mut before = 0_i64;
    for _ in 0..count {
        before = before.wrapping_add(reader.signed()?);
        samples.push(i16::try_from(before).map_err(|_| Malformed("a sample is out of range"))?);
    }
    Ok(Waveform {
        series,
        start,
        received_at,
        rate_numerator,
        rate_denominator,
        gain,
        offset,
        samples,
        findings,
    })
}

/// Amount and text; also the format inside event rows.
pub(super) fn write_event_content(writer: &mut Writer, event: &Event) {
    match &event.amount {
        None => writer.u8(0),
        Some((amount, unit)) => {
            writer.u8(1);
            write_decimal(writer, *amount);
            writer.framed(unit.as_bytes());
        }
    }
    match &event.text {
        None => writer.u8(0),
        Some(text) => {
            writer.u8(1);
            writer.framed(text.as_bytes());
        }
    }
}

type EventContent = (Option<(clinical_model::Decimal, String)>, Option<String>);

pub(super) fn read_event_content(reader: &mut Reader<'_>) -> Result<EventContent, Malformed> {
    let present = |tag| match tag {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("a mark of presence is neither yes nor no")),
    };
    let amount = if present(reader.u8()?)? { Some((read_decimal(reader)?, reader.text()?)) } else { None };
    let text = if present(reader.u8()?)? { Some(reader.text()?) } else { None };
    Ok((amount, text))
}
