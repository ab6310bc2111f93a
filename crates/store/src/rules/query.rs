//! Reading back: blocks and tail joined, repeats dropped by identity, only the blocks that a range touches.

use std::collections::HashMap;

use clinical_model::{
    Committed, DeviceId, Event, Findings, Reading, RecordId, SeriesKey, Subject, Timestamp, Waveform,
};
use trust::identity::PackedIdentity;

use super::fold_parts::{BlockRef, EventPlace, Overlap, WaveRef, overlap};
use super::row::{Row, unite};
use super::{SqlStore, append, blocks};
use crate::StoreError;
use crate::sql::{Backend, Session, read, readable, values};
use crate::words::{KeptFrame, Order, RangeQuery, SeriesFilter};

/// Kind in sealed identifiers. Panels, readings, curves and events are told apart by the measure of their series.
const IDENTITY_KIND: u8 = 1;

const READINGS: &str = "reading a series";

impl<B: Backend> SqlStore<B> {
    pub(super) fn query_readings(
        &self,
        series: &SeriesKey,
        range: &RangeQuery,
    ) -> Result<Vec<Committed<Reading>>, StoreError> {
        let session = self.following_reader(READINGS)?;
        let Some(number) = self.series_number(series) else { return Ok(Vec::new()) };
        if range.limit == 0 || range.from >= range.to {
            return Ok(Vec::new());
        }
        // The tail first: what a fold moves in between is then seen twice, never missed.
        let recent = readable(&self.tail).rows(number, range);
        let mut rows: Vec<Row> = Vec::new();
        let inside =
            |row: &Row| range.from.as_micros() <= row.measured_us && row.measured_us < range.to.as_micros();
        self.each_block(&session, number, range, &mut |block| {
            rows.extend(self.open_block(&block)?.into_iter().filter(&inside));
            // Blocks do not overlap, so later ones cannot come before what is here already.
            Ok(rows.len() < range.limit)
        })?;
        drop(session);
        // One identity never spans two blocks, so each identity's rows stand in the order of their commits.
        rows.extend(recent);
        unite(&mut rows);
        if range.order == Order::Descending {
            rows.reverse();
        }
        rows.truncate(range.limit);
        Ok(rows.iter().map(|row| row.committed(*series)).collect())
    }

    /// Calls back with the blocks of a series that touch a range, in its order, until told to stop. They come in
    /// pages, so that nothing much is read that nobody wants. A fold between two pages may show rows twice, never hide
    /// them: it cuts blocks but joins none, so no row moves before the block that was shown last.
    pub(super) fn each_block(
        &self,
        session: &B::Session,
        series: u32,
        range: &RangeQuery,
        each: &mut dyn FnMut(BlockRef) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        // Blocks are disjoint and sorted: of those that begin before the range only the last can reach into it.
        let sql = match range.order {
            Order::Ascending => {
                "SELECT number, series, first_at, first_sequence, last_at, count, sealed FROM block
                 WHERE series = ?1 AND first_at < ?3
                   AND first_at >= (SELECT coalesce(max(first_at), ?2) FROM block WHERE series = ?1 AND first_at < ?2)
                   AND (first_at, first_sequence) > (?4, ?5)
                 ORDER BY first_at, first_sequence LIMIT ?6"
            }
            Order::Descending => {
                "SELECT number, series, first_at, first_sequence, last_at, count, sealed FROM block
                 WHERE series = ?1 AND first_at < ?3
                   AND first_at >= (SELECT coalesce(max(first_at), ?2) FROM block WHERE series = ?1 AND first_at < ?2)
                   AND (first_at, first_sequence) < (?4, ?5)
                 ORDER BY first_at DESC, first_sequence DESC LIMIT ?6"
            }
        };
        let (from, to) = (range.from.as_micros(), range.to.as_micros());
        let mut shown = match range.order {
            Order::Ascending => (i64::MIN, -1),
            Order::Descending => (i64::MAX, i64::MAX),
        };
        let mut page = B::FIRST_BLOCKS;
        loop {
            let mut outcome = Ok(true);
            let mut found = 0;
            session
                .query(sql, &values![series, from, to, shown.0, shown.1, page], &mut |row| {
                    let block = BlockRef::from_row(row)?;
                    found += 1;
                    shown = (block.first_at, i64::from(block.first_sequence));
                    if block.last_at >= from {
                        outcome = each(block);
                    }
                    Ok(matches!(outcome, Ok(true)))
                })
                .map_err(read(READINGS))?;
            if !outcome? || found < page {
                return Ok(());
            }
            page = page.saturating_mul(4);
        }
    }

    /// Opens and decodes a block of readings and compares it with the plain columns beside it.
    pub(super) fn open_block(&self, block: &BlockRef) -> Result<Vec<Row>, StoreError> {
        let what = || format!("block {} of series {}", block.number, block.series);
        let plain = self.keys.open_sealed(block.place(&block.row_key()), &block.sealed, &what)?;
        let rows = blocks::decode_rows(&plain).map_err(|malformed| malformed.of(what()))?;
        let matches = rows.len() as u64 == block.count
            && rows.first().is_some_and(|row| row.key() == (block.first_at, block.first_sequence))
            && rows.last().is_some_and(|row| row.measured_us == block.last_at);
        if !matches {
            let how = "its rows do not match the columns beside it".to_owned();
            return Err(StoreError::Damaged { what: what(), how });
        }
        Ok(rows)
    }

    pub(super) fn query_waveforms(
        &self,
        series: &SeriesKey,
        range: &RangeQuery,
    ) -> Result<Vec<Committed<Waveform>>, StoreError> {
        let session = self.following_reader("reading a curve")?;
        let Some(number) = self.series_number(series) else { return Ok(Vec::new()) };
        if range.limit == 0 || range.from >= range.to {
            return Ok(Vec::new());
        }
        let recent = readable(&self.tail).waveforms(number, range);
        let (from, to) = (range.from.as_micros(), range.to.as_micros());
        let mut curves = Vec::new();
        for wave in self.wave_blocks(&session, number, from, to, range.order, range.limit)? {
            curves.push(self.open_wave(&wave, *series)?);
        }
        drop(session);
        curves.sort_by_key(|curve| curve.start);
        for chunk in recent {
            add_curve(&mut curves, &chunk);
        }
        curves.sort_by_key(|curve| curve.start);
        if range.order == Order::Descending {
            curves.reverse();
        }
        curves.truncate(range.limit);
        Ok(curves)
    }

    /// Blocks of a curve that touch `[from, to)`.
    pub(super) fn wave_blocks(
        &self,
        session: &B::Session,
        series: u32,
        from_us: i64,
        to_us: i64,
        order: Order,
        limit: usize,
    ) -> Result<Vec<WaveRef>, StoreError> {
        // The longest block tells how far before the range one can begin that reaches into it.
        let sql = match order {
            Order::Ascending => {
                "SELECT number, series, start_at, duration_us, sealed FROM wave_block
                 WHERE series = ?1 AND start_at < ?3 AND start_at + duration_us > ?2
                   AND start_at >= ?2 - (SELECT coalesce(max(duration_us), 0) FROM wave_block WHERE series = ?1)
                 ORDER BY start_at, number LIMIT ?4"
            }
            Order::Descending => {
                "SELECT number, series, start_at, duration_us, sealed FROM wave_block
                 WHERE series = ?1 AND start_at < ?3 AND start_at + duration_us > ?2
                   AND start_at >= ?2 - (SELECT coalesce(max(duration_us), 0) FROM wave_block WHERE series = ?1)
                 ORDER BY start_at DESC, number DESC LIMIT ?4"
            }
        };
        session
            .rows(sql, &values![series, from_us, to_us, limit], WaveRef::from_row)
            .map_err(read("reading a curve"))
    }

    pub(super) fn open_wave(
        &self,
        wave: &WaveRef,
        series: SeriesKey,
    ) -> Result<Committed<Waveform>, StoreError> {
        let what = || format!("curve block {} of series {}", wave.number, wave.series);
        let plain = self.keys.open_sealed(wave.place(&wave.row_key()), &wave.sealed, &what)?;
        let curve = blocks::decode_curve(&plain, series).map_err(|malformed| malformed.of(what()))?;
        if curve.start.as_micros() != wave.start_at
            || curve.end().micros_since(curve.start) != wave.duration_us
        {
            let how = "its samples do not match the columns beside it".to_owned();
            return Err(StoreError::Damaged { what: what(), how });
        }
        Ok(curve)
    }

    pub(super) fn query_events(
        &self,
        series: &SeriesKey,
        range: &RangeQuery,
    ) -> Result<Vec<Committed<Event>>, StoreError> {
        let doing = "reading events";
        let session = self.following_reader(doing)?;
        let Some(number) = self.series_number(series) else { return Ok(Vec::new()) };
        if range.limit == 0 || range.from >= range.to {
            return Ok(Vec::new());
        }
        let recent = readable(&self.tail).events(number, range);
        let sql = match range.order {
            Order::Ascending => {
                "SELECT at, sequence, version, sealed FROM event WHERE series = ?1 AND at >= ?2 AND at < ?3
                 ORDER BY at, sequence, version"
            }
            Order::Descending => {
                "SELECT at, sequence, version, sealed FROM event WHERE series = ?1 AND at >= ?2 AND at < ?3
                 ORDER BY at DESC, sequence DESC, version DESC"
            }
        };
        let mut events: Vec<Committed<Event>> = Vec::new();
        let mut outcome = Ok(());
        session
            .query(sql, &values![number, range.from.as_micros(), range.to.as_micros()], &mut |row| {
                let place = EventPlace {
                    series: number,
                    at: row.get(0)?,
                    sequence: row.get(1)?,
                    version: row.get(2)?,
                };
                // Enough, but all versions of an identity are needed, so that a repeat in the tail is known as one.
                let last = events.last().map(|event| (event.at.as_micros(), event.sequence));
                if events.len() >= range.limit && last != Some((place.at, place.sequence)) {
                    return Ok(false);
                }
                let sealed: Vec<u8> = row.get(3)?;
                outcome = self.open_event(&place, *series, &sealed).map(|event| events.push(event));
                Ok(outcome.is_ok())
            })
            .map_err(read(doing))?;
        outcome?;
        if range.order == Order::Descending {
            events.reverse();
        }
        for event in recent {
            add_event(&mut events, &event);
        }
        if range.order == Order::Descending {
            events.reverse();
        }
        events.truncate(range.limit);
        Ok(events)
    }

    pub(super) fn query_latest(&self, subject: Subject) -> Result<Vec<Committed<Reading>>, StoreError> {
        let doing = "reading the latest values";
        let session = self.following_reader(doing)?;
        let keys = readable(&self.series)
            .matching(&SeriesFilter { subject: Some(subject), ..SeriesFilter::default() });
        // All in one question: the database may be far away.
        let mut kept: HashMap<u32, Vec<u8>> = session
            .rows(
                "SELECT l.series, l.sealed FROM series s JOIN latest l ON l.series = s.number
                 WHERE s.subject_kind = ?1 AND s.subject = ?2",
                &values![subject.kind_number(), subject.id_bytes()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(read(doing))?
            .into_iter()
            .collect();
        let mut latest = Vec::new();
        for key in keys.iter().filter(|key| key.measure.is_scalar()) {
            let Some(number) = self.series_number(key) else { continue };
            let Some(sealed) = kept.remove(&number) else { continue };
            latest.push(self.open_latest(number, &sealed)?.committed(*key));
        }
        Ok(latest)
    }

    pub(super) fn open_latest(&self, series: u32, sealed: &[u8]) -> Result<Row, StoreError> {
        let what = || format!("latest value of series {series}");
        let plain = self.keys.open_sealed(append::latest_place(&series.to_be_bytes()), sealed, &what)?;
        Row::decode(&plain).map_err(|malformed| malformed.of(what()))
    }

    pub(super) fn query_frames(
        &self,
        device: DeviceId,
        received_at: Timestamp,
    ) -> Result<Vec<KeptFrame>, StoreError> {
        let doing = "reading raw frames";
        let received_ms = received_at.as_millis();
        let session = self.following_reader(doing)?;
        let groups = readable(&self.tail).groups_with_frame(device, received_ms);
        let asked = |frame: &clinical_model::Frame| {
            frame.device == device && frame.received_at.as_millis() == received_ms
        };
        let mut recent: Vec<KeptFrame> = Vec::new();
        for number in groups {
            let found = self.decode_groups(&session, number - 1, number, 1, true)?;
            // A group that is gone was folded a moment ago: the blocks have it.
            for group in found {
                let frames = group.frames.into_iter().map(|row| row.frame).filter(&asked);
                recent.extend(frames.map(|frame| KeptFrame { frame, committed_at: group.committed_at }));
            }
        }
        let mut kept: Vec<KeptFrame> = Vec::new();
        let blocks: Vec<(i64, Vec<u8>)> = session
            .rows(
                "SELECT number, sealed FROM frame_block
                 WHERE device = ?1 AND first_received <= ?2 AND last_received >= ?2 ORDER BY number",
                &values![device.to_bytes(), received_ms],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(read(doing))?;
        for (number, sealed) in blocks {
            kept.extend(
                self.open_frames(number, device, &sealed)?.into_iter().filter(|kept| asked(&kept.frame)),
            );
        }
        // A fold between the two looks shows a frame twice.
        recent.retain(|frame| !kept.contains(frame));
        kept.append(&mut recent);
        kept.sort_by_key(|kept| kept.committed_at);
        Ok(kept)
    }

    pub(super) fn seal_identifier(
        &self,
        series: &SeriesKey,
        at: Timestamp,
        sequence: u32,
    ) -> Result<String, StoreError> {
        let number = self
            .series_number(series)
            .ok_or_else(|| StoreError::Identity { how: "the series is not known here".to_owned() })?;
        let identity =
            PackedIdentity { kind: IDENTITY_KIND, series: number, measured_us: at.as_micros(), sequence };
        self.identity.seal(&identity).map_err(|error| StoreError::Identity { how: error.to_string() })
    }

    pub(super) fn unseal_identifier(
        &self,
        text: &str,
    ) -> Result<Option<(SeriesKey, Timestamp, u32)>, StoreError> {
        let identity = self.identity.open(text).ok().filter(|identity| identity.kind == IDENTITY_KIND);
        let Some(identity) = identity else { return Ok(None) };
        let at = Timestamp::from_micros(identity.measured_us);
        if B::SHARED && self.series_key(identity.series).is_none() {
            self.refresh_series(&*self.reader("reading the series")?)?;
        }
        let Some(key) = self.series_key(identity.series) else { return Ok(None) };
        // An instant outside our range was clamped: we made no such identifier.
        Ok((at.as_micros() == identity.measured_us).then_some((key, at, identity.sequence)))
    }

    pub(super) fn read_cursor(&self, consumer: &str) -> Result<u64, StoreError> {
        let doing = "reading a cursor";
        let found = self
            .reader(doing)?
            .row("SELECT position FROM cursor WHERE consumer = ?1", &values![consumer], |row| row.get(0))
            .map_err(read(doing))?;
        Ok(found.unwrap_or(0))
    }
}

/// Adds a chunk of the tail to curves sorted by start: a repeat vanishes, another content is marked.
fn add_curve(curves: &mut Vec<Committed<Waveform>>, chunk: &Committed<Waveform>) {
    match curves.iter().map(|curve| overlap(curve, chunk)).max() {
        Some(Overlap::Repeat) => {}
        Some(Overlap::Differs) => {
            let mut waveform = chunk.get().clone();
            waveform.findings |= Findings::CONFLICT;
            curves.push(Committed::restored(waveform, chunk.committed_at(), chunk.group()));
        }
        Some(Overlap::None) | None => curves.push(chunk.clone()),
    }
}

/// Adds an event of the tail to events sorted by identity: a repeat vanishes, another content is marked.
fn add_event(events: &mut Vec<Committed<Event>>, event: &Committed<Event>) {
    let key = (event.at, event.sequence);
    let end = events.partition_point(|kept| (kept.at, kept.sequence) <= key);
    let run = events[..end].iter().rev().take_while(|kept| (kept.at, kept.sequence) == key);
    if run.clone().any(|kept| (&kept.amount, &kept.text) == (&event.amount, &event.text)) {
        return;
    }
    let mut added = event.get().clone();
    added.findings.set(Findings::CONFLICT, added.findings.contains(Findings::CONFLICT) || run.count() > 0);
    events.insert(end, Committed::restored(added, event.committed_at(), event.group()));
}
