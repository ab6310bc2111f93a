//! Folding of curves, events and raw frames.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use clinical_model::{Committed, DeviceId, Event, Findings, PatientId, RecordId, Timestamp, Waveform};

use super::fold::{Changes, DOING, FrameBlock};
use super::fold_parts::{
    EventPlace, Overlap, WaveRef, encode_event, encode_frames, frames_place, frames_row_key, half_sample_us,
    overlap, same_scale,
};
use super::keys::{Domain, Purpose};
use super::{SqlStore, blocks};
use crate::StoreError;
use crate::sql::{Backend, Row, Session, read, values};
use crate::words::{KeptFrame, Order};

/// A block of raw frames closes at so many bytes before compression; larger ones compress no better.
const FRAME_BLOCK_BYTES: usize = 256 * 1024;

/// A piece of a curve while chunks are added to it.
struct Piece {
    number: Option<i64>,
    waveform: Waveform,
    committed_at: Timestamp,
    changed: bool,
}

impl<B: Backend> SqlStore<B> {
    pub(super) fn fold_curve(
        &self,
        session: &B::Session,
        series: u32,
        mut chunks: Vec<Committed<Waveform>>,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let key = self.known_series(series)?;
        chunks.sort_by_key(|chunk| chunk.start);
        let mut pieces: Vec<Piece> = Vec::new();
        let mut loaded: HashSet<i64> = HashSet::new();
        for chunk in chunks {
            let near = half_sample_us(&chunk) + 1;
            let (from, to) = (chunk.start.as_micros() - near, chunk.end().as_micros() + near);
            for wave in self.wave_blocks(session, series, from, to, Order::Ascending, usize::MAX)? {
                if loaded.insert(wave.number) {
                    let curve = self.open_wave(&wave, key)?;
                    pieces.push(Piece {
                        number: Some(wave.number),
                        waveform: curve.get().clone(),
                        committed_at: curve.committed_at(),
                        changed: false,
                    });
                }
            }
            self.place_chunk(&mut pieces, &chunk, changes);
        }
        for piece in pieces.into_iter().filter(|piece| piece.changed) {
            changes.gone_curves.extend(piece.number);
            let curve = Committed::restored(piece.waveform, piece.committed_at, 0);
            let plain =
                blocks::encode_curve(&curve).map_err(|m| m.of(format!("new curve of series {series}")))?;
            let mut wave = WaveRef {
                number: changes.next_curve,
                series,
                start_at: curve.start.as_micros(),
                duration_us: curve.end().micros_since(curve.start),
                sealed: Vec::new(),
            };
            changes.next_curve += 1;
            let named = self.keys.sealing(Domain::of(key.subject.patient(), Purpose::Series), now)?;
            wave.sealed = named.seal(wave.place(&wave.row_key()), &plain);
            changes.curves.push(wave);
        }
        Ok(())
    }

    /// Drops a repeat, lengthens the piece that ends where the chunk begins, or begins a new piece.
    fn place_chunk(&self, pieces: &mut Vec<Piece>, chunk: &Committed<Waveform>, changes: &mut Changes) {
        let relation = pieces.iter().map(|piece| overlap(&piece.waveform, chunk)).max();
        let mut waveform = chunk.get().clone();
        match relation {
            Some(Overlap::Repeat) => {
                changes.repeats += 1;
                return;
            }
            Some(Overlap::Differs) => waveform.findings |= Findings::CONFLICT,
            Some(Overlap::None) | None => {
                let longest_us = i64::try_from(self.options.waveform_block.as_micros()).unwrap_or(i64::MAX);
                let fits = |piece: &&mut Piece| {
                    let kept = &piece.waveform;
                    same_scale(kept, &waveform)
                        && kept.findings == waveform.findings
                        && waveform.start.micros_since(kept.end()).abs() <= half_sample_us(kept)
                        && kept.end().micros_since(kept.start) < longest_us
                };
                if let Some(piece) = pieces.iter_mut().find(fits) {
                    piece.waveform.samples.extend_from_slice(&waveform.samples);
                    piece.changed = true;
                    return;
                }
            }
        }
        pieces.push(Piece { number: None, waveform, committed_at: chunk.committed_at(), changed: true });
    }

    pub(super) fn fold_events(
        &self,
        session: &B::Session,
        events: Vec<(u32, Committed<Event>)>,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let mut versions: HashMap<(u32, i64, u32), Vec<Committed<Event>>> = HashMap::new();
        for (series, event) in events {
            let identity = (series, event.at.as_micros(), event.sequence);
            let kept = match versions.entry(identity) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.event_versions(session, identity)?),
            };
            if kept.iter().any(|kept| (&kept.amount, &kept.text) == (&event.amount, &event.text)) {
                changes.repeats += 1;
                continue;
            }
            let version = kept.len() as u32;
            let mut added = event.get().clone();
            if version > 0 {
                added.findings |= Findings::CONFLICT;
            }
            let added = Committed::restored(added, event.committed_at(), 0);
            let place = EventPlace { series, at: identity.1, sequence: identity.2, version };
            let key = self.keys.sealing(self.domain_of(series)?, now)?;
            changes.events.push((place, key.seal(place.place(&place.row_key()), &encode_event(&added))));
            kept.push(added);
        }
        Ok(())
    }

    fn event_versions(
        &self,
        session: &B::Session,
        (series, at, sequence): (u32, i64, u32),
    ) -> Result<Vec<Committed<Event>>, StoreError> {
        let key = self.known_series(series)?;
        let rows: Vec<(u32, Vec<u8>)> = session
            .rows(
                "SELECT version, sealed FROM event WHERE series = ?1 AND at = ?2 AND sequence = ?3 ORDER BY version",
                &values![series, at, sequence],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(read(DOING))?;
        let open = |(version, sealed): (u32, Vec<u8>)| {
            self.open_event(&EventPlace { series, at, sequence, version }, key, &sealed)
        };
        rows.into_iter().map(open).collect()
    }

    pub(super) fn fold_frames(
        &self,
        session: &B::Session,
        device: DeviceId,
        patient: Option<PatientId>,
        frames: Vec<KeptFrame>,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let columns = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let open: Option<(i64, i64, Vec<u8>)> = match patient {
            Some(patient) => session.row(
                "SELECT number, plain_bytes, sealed FROM frame_block
                 WHERE device = ?1 AND patient = ?2 ORDER BY number DESC LIMIT 1",
                &values![device.to_bytes(), patient.to_bytes()],
                columns,
            ),
            None => session.row(
                "SELECT number, plain_bytes, sealed FROM frame_block
                 WHERE device = ?1 AND patient IS NULL ORDER BY number DESC LIMIT 1",
                &values![device.to_bytes()],
                columns,
            ),
        }
        .map_err(read(DOING))?;
        let mut bundle: Vec<KeptFrame> = Vec::new();
        let mut bytes = 0;
        if let Some((number, plain_bytes, sealed)) = open
            && plain_bytes.unsigned_abs() < FRAME_BLOCK_BYTES as u64
        {
            bundle = self.open_frames(number, device, &sealed)?;
            bytes = plain_bytes.unsigned_abs() as usize;
            changes.gone_frames.push(number);
        }
        for frame in frames {
            bytes += frame.frame.bytes.len();
            bundle.push(frame);
            if bytes >= FRAME_BLOCK_BYTES {
                self.write_frames(device, patient, &std::mem::take(&mut bundle), bytes, now, changes)?;
                bytes = 0;
            }
        }
        self.write_frames(device, patient, &bundle, bytes, now, changes)
    }

    pub(super) fn write_frames(
        &self,
        device: DeviceId,
        patient: Option<PatientId>,
        frames: &[KeptFrame],
        plain_bytes: usize,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let times = || frames.iter().map(|kept| kept.frame.received_at.as_millis());
        let (Some(first_received), Some(last_received)) = (times().min(), times().max()) else {
            return Ok(());
        };
        let number = changes.next_frames;
        changes.next_frames += 1;
        let key = self.keys.sealing(Domain::of(patient, Purpose::Frame), now)?;
        let sealed = key.seal(frames_place(&frames_row_key(number, device)), &encode_frames(frames));
        let count = frames.len();
        changes.frames.push(FrameBlock {
            number,
            device,
            patient,
            first_received,
            last_received,
            count,
            plain_bytes,
            sealed,
        });
        Ok(())
    }
}
