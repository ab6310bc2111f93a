//! What folding and reading back share: references to sealed rows, and when two pieces of a curve are the same.

use clinical_model::{Committed, DeviceId, Event, Findings, RecordId, SeriesKey, Timestamp, Waveform};
use trust::Aad;

use super::SqlStore;
use super::bytes::{Reader, Writer};
use super::frame_text;
use super::journal::{read_event_content, read_frame, write_event_content, write_frame};
use super::row::Malformed;
use crate::StoreError;
use crate::sql::{Backend, DbError, Row as SqlRow};
use crate::words::KeptFrame;

const EVENT_FORMAT: u8 = 1;
const FRAMES_FORMAT: u8 = 1;
/// Raw frames are kept for years and read seldom.
const FRAMES_ZSTD_LEVEL: i32 = 3;

/// A row of the table of blocks.
#[derive(Clone)]
pub(super) struct BlockRef {
    pub(super) number: i64,
    pub(super) series: u32,
    pub(super) first_at: i64,
    pub(super) first_sequence: u32,
    pub(super) last_at: i64,
    pub(super) count: u64,
    pub(super) sealed: Vec<u8>,
}

impl BlockRef {
    /// From the columns number, series, first_at, first_sequence, last_at, count, sealed.
    pub(super) fn from_row(row: &SqlRow<'_>) -> Result<Self, DbError> {
        Ok(BlockRef {
            number: row.get(0)?,
            series: row.get(1)?,
            first_at: row.get(2)?,
            first_sequence: row.get(3)?,
            last_at: row.get(4)?,
            count: row.get(5)?,
            sealed: row.get(6)?,
        })
    }

    /// What binds the ciphertext to its row.
    pub(super) fn row_key(&self) -> Vec<u8> {
        let mut key = self.number.to_be_bytes().to_vec();
        key.extend_from_slice(&self.series.to_be_bytes());
        key.extend_from_slice(&self.first_at.to_be_bytes());
        key.extend_from_slice(&self.first_sequence.to_be_bytes());
        key
    }

    pub(super) fn place<'a>(&self, row_key: &'a [u8]) -> Aad<'a> {
        Aad { table: "block", row: row_key, column: "readings" }
    }
}

/// A row of the table of curves.
#[derive(Clone)]
pub(super) struct WaveRef {
    pub(super) number: i64,
    pub(super) series: u32,
    pub(super) start_at: i64,
    pub(super) duration_us: i64,
    pub(super) sealed: Vec<u8>,
}

impl WaveRef {
    /// From the columns number, series, start_at, duration_us, sealed.
    pub(super) fn from_row(row: &SqlRow<'_>) -> Result<Self, DbError> {
        Ok(WaveRef {
            number: row.get(0)?,
            series: row.get(1)?,
            start_at: row.get(2)?,
            duration_us: row.get(3)?,
            sealed: row.get(4)?,
        })
    }

    pub(super) fn row_key(&self) -> Vec<u8> {
        let mut key = self.number.to_be_bytes().to_vec();
        key.extend_from_slice(&self.series.to_be_bytes());
        key.extend_from_slice(&self.start_at.to_be_bytes());
        key
    }

    pub(super) fn place<'a>(&self, row_key: &'a [u8]) -> Aad<'a> {
        Aad { table: "wave_block", row: row_key, column: "samples" }
    }
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventPlace {
    pub(super) series: u32,
    pub(super) at: i64,
    pub(super) sequence: u32,
    pub(super) version: u32,
}

impl EventPlace {
    pub(super) fn row_key(&self) -> Vec<u8> {
        let mut key = self.series.to_be_bytes().to_vec();
        key.extend_from_slice(&self.at.to_be_bytes());
        key.extend_from_slice(&self.sequence.to_be_bytes());
        key.extend_from_slice(&self.version.to_be_bytes());
        key
    }

    pub(super) fn place<'a>(&self, row_key: &'a [u8]) -> Aad<'a> {
        Aad { table: "event", row: row_key, column: "event" }
    }
}

pub(super) fn encode_event(event: &Committed<Event>) -> Vec<u8> {
    let mut writer = Writer::with_capacity(64);
    writer.u8(EVENT_FORMAT);
    writer.signed(event.received_at.as_millis());
    writer.signed(event.committed_at().as_millis());
    writer.unsigned(u64::from(event.findings.bits()));
    write_event_content(&mut writer, event);
    writer.finish()
}

fn decode_event(bytes: &[u8], place: &EventPlace, series: SeriesKey) -> Result<Committed<Event>, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != EVENT_FORMAT {
        return Err(Malformed("its format is unknown to this release"));
    }
    let received_at = Timestamp::from_millis(reader.signed()?);
    let committed_at = Timestamp::from_millis(reader.signed()?);
    let findings = Findings::from_bits_retain(reader.u32()?);
    let (amount, text) = read_event_content(&mut reader)?;
    reader.finish()?;
    let at = Timestamp::from_micros(place.at);
    let event = Event { series, at, received_at, sequence: place.sequence, amount, text, findings };
    Ok(Committed::restored(event, committed_at, 0))
}

/// What binds a frame block to its row.
pub(super) fn frames_row_key(number: i64, device: DeviceId) -> Vec<u8> {
    let mut key = number.to_be_bytes().to_vec();
    key.extend_from_slice(&device.to_bytes());
    key
}

pub(super) fn frames_place(row_key: &[u8]) -> Aad<'_> {
    Aad { table: "frame_block", row: row_key, column: "frames" }
}

pub(super) fn encode_frames(frames: &[KeptFrame]) -> Vec<u8> {
    let size: usize = frames.iter().map(|kept| kept.frame.bytes.len() + 40).sum();
    let mut writer = Writer::with_capacity(size);
    writer.u8(FRAMES_FORMAT);
    writer.unsigned(frames.len() as u64);
    for kept in frames {
        writer.signed(kept.committed_at.as_millis());
        write_frame(&mut writer, &kept.frame);
    }
    frame_text::pack(&writer.finish(), FRAMES_ZSTD_LEVEL)
}

fn decode_frames(packed: &[u8]) -> Result<Vec<KeptFrame>, Malformed> {
    let plain = frame_text::unpack(packed)?;
    let mut reader = Reader::new(&plain);
    if reader.u8()? != FRAMES_FORMAT {
        return Err(Malformed("its format is unknown to this release"));
    }
    let count = reader.count()?;
    let mut frames = Vec::with_capacity(count);
    for _ in 0..count {
        let committed_at = Timestamp::from_millis(reader.signed()?);
        frames.push(KeptFrame { frame: read_frame(&mut reader, true)?, committed_at });
    }
    reader.finish()?;
    Ok(frames)
}

impl<B: Backend> SqlStore<B> {
    pub(super) fn open_event(
        &self,
        place: &EventPlace,
        series: SeriesKey,
        sealed: &[u8],
    ) -> Result<Committed<Event>, StoreError> {
        let what = || {
            let EventPlace { series, at, sequence, version } = place;
            format!("event of series {series} at {at} (sequence {sequence}, version {version})")
        };
        let plain = self.keys.open_sealed(place.place(&place.row_key()), sealed, &what)?;
        decode_event(&plain, place, series).map_err(|malformed| malformed.of(what()))
    }

    pub(super) fn open_frames(
        &self,
        number: i64,
        device: DeviceId,
        sealed: &[u8],
    ) -> Result<Vec<KeptFrame>, StoreError> {
        let what = || format!("frame block {number} of {device:?}");
        let plain = self.keys.open_sealed(frames_place(&frames_row_key(number, device)), sealed, &what)?;
        decode_frames(&plain).map_err(|malformed| malformed.of(what()))
    }
}

/// How a chunk of a curve relates to a kept piece of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Overlap {
    /// It begins elsewhere.
    None,
    /// It begins within the piece, at one of its samples, but says something else.
    Differs,
    /// The piece holds the same samples at the same time.
    Repeat,
}

/// Whether two pieces have one rate, gain and offset.
pub(super) fn same_scale(left: &Waveform, right: &Waveform) -> bool {
    // Rates as fractions: 500/2 is 250/1.
    u64::from(left.rate_numerator) * u64::from(right.rate_denominator)
        == u64::from(right.rate_numerator) * u64::from(left.rate_denominator)
        && left.gain == right.gain
        && left.offset == right.offset
}

/// Half the time from one sample to the next, in microseconds; at least 1. Times of chunks are rounded.
pub(super) fn half_sample_us(waveform: &Waveform) -> i64 {
    let half = i64::from(waveform.rate_denominator) * 500_000 / i64::from(waveform.rate_numerator);
    half.max(1)
}

pub(super) fn overlap(piece: &Waveform, chunk: &Waveform) -> Overlap {
    let ahead_us = chunk.start.micros_since(piece.start);
    if !same_scale(piece, chunk) {
        return if ahead_us == 0 { Overlap::Differs } else { Overlap::None };
    }
    let half = half_sample_us(piece);
    if ahead_us < -half || chunk.start >= piece.end() {
        return Overlap::None;
    }
    let samples_ahead = (i128::from(ahead_us) + i128::from(half)) * i128::from(piece.rate_numerator)
        / (i128::from(piece.rate_denominator) * 1_000_000);
    let Ok(first) = usize::try_from(samples_ahead) else { return Overlap::None };
    let Some(kept) = piece.samples.get(first..).filter(|kept| !kept.is_empty()) else { return Overlap::None };
    // A chunk that reaches beyond the piece is no repeat, but need not contradict it either.
    let shared = kept.len().min(chunk.samples.len());
    match (kept[..shared] == chunk.samples[..shared], shared == chunk.samples.len()) {
        (true, true) => Overlap::Repeat,
        (true, false) => Overlap::None,
        (false, _) => Overlap::Differs,
    }
}
