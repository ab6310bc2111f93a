//! Folding: journal rows become blocks by series, a set union by identity, and vanish in the same transaction.

use std::collections::BTreeMap;

use clinical_model::{Committed, DeviceId, Event, Fact, PatientId, RecordId, SeriesKey, Timestamp, Waveform};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use trust::KeyId;

use super::append::DecodedGroup;
use super::connection::{lock, read, writable};
use super::fold_parts::{BlockRef, EventPlace, WaveRef};
use super::keys::{Domain, Purpose};
use super::row::{Row, unite};
use super::{SqliteStore, blocks};
use crate::StoreError;
use crate::words::{Folded, KeptFrame};

pub(super) const DOING: &str = "folding the journal";

/// What the journal rows hold, sorted out.
#[derive(Default)]
struct Sorted {
    rows: BTreeMap<u32, Vec<Row>>,
    curves: BTreeMap<u32, Vec<Committed<Waveform>>>,
    events: Vec<(u32, Committed<Event>)>,
    frames: BTreeMap<(DeviceId, Option<PatientId>), Vec<KeptFrame>>,
    readings: u64,
}

/// What the transaction will write.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) gone_blocks: Vec<i64>,
    pub(super) blocks: Vec<BlockRef>,
    pub(super) gone_curves: Vec<i64>,
    pub(super) curves: Vec<WaveRef>,
    pub(super) events: Vec<(EventPlace, Vec<u8>)>,
    pub(super) gone_frames: Vec<i64>,
    pub(super) frames: Vec<FrameBlock>,
    pub(super) next_block: i64,
    pub(super) next_curve: i64,
    pub(super) next_frames: i64,
    pub(super) repeats: u64,
}

pub(super) struct FrameBlock {
    pub(super) number: i64,
    pub(super) device: DeviceId,
    pub(super) patient: Option<PatientId>,
    pub(super) first_received: i64,
    pub(super) last_received: i64,
    pub(super) count: usize,
    pub(super) plain_bytes: usize,
    pub(super) sealed: Vec<u8>,
}

impl SqliteStore {
    pub(super) fn fold_groups(&self, limit_groups: usize, now: Timestamp) -> Result<Folded, StoreError> {
        // Only a fold changes blocks, so they can be read and compressed while commits go on.
        let connection = lock(&self.folding);
        self.still_durable(DOING)?;
        let up_to = self.foldable(&connection)?;
        let groups = self.decode_groups(&connection, 0, up_to, limit_groups, true)?;
        let Some(last) = groups.last().map(|group| group.number) else { return Ok(Folded::default()) };
        let folded_groups = groups.len() as u64;
        let sorted = sort_out(groups);
        let mut changes = next_numbers(&connection)?;
        for (series, rows) in sorted.rows {
            self.fold_rows(&connection, series, rows, now, &mut changes)?;
        }
        for (series, chunks) in sorted.curves {
            self.fold_curve(&connection, series, chunks, now, &mut changes)?;
        }
        self.fold_events(&connection, sorted.events, now, &mut changes)?;
        for ((device, patient), frames) in sorted.frames {
            self.fold_frames(&connection, device, patient, frames, now, &mut changes)?;
        }
        let written = (changes.blocks.len() + changes.curves.len() + changes.frames.len()) as u64;
        self.write_fold(&changes, last)?;
        Ok(Folded {
            groups: folded_groups,
            readings: sorted.readings,
            repeats: changes.repeats,
            blocks: written,
        })
    }

    /// The last group that every consumer has passed.
    fn foldable(&self, connection: &Connection) -> Result<u64, StoreError> {
        let slowest: Option<i64> = connection
            .query_row("SELECT min(position) FROM cursor", [], |row| row.get(0))
            .map_err(read(DOING))?;
        let last = self.last_group.load(std::sync::atomic::Ordering::Acquire);
        Ok(slowest.map_or(last, |slowest| last.min(slowest.unsigned_abs())))
    }

    fn write_fold(&self, changes: &Changes, last: u64) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        let transaction =
            writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(self.wrote(DOING))?;
        changes.write(&transaction).map_err(self.wrote(DOING))?;
        transaction
            .execute("DELETE FROM journal WHERE number <= ?1", [last as i64])
            .map_err(self.wrote(DOING))?;
        let oldest: Option<[u8; 16]> = transaction
            .query_row("SELECT substr(sealed, 2, 16) FROM journal ORDER BY number LIMIT 1", [], |row| {
                row.get(0)
            })
            .optional()
            .map_err(self.wrote(DOING))?;
        transaction.commit().map_err(self.wrote(DOING))?;
        writable(&self.tail).forget_up_to(last);
        // Still under the writer's lock: a backup takes both files at one instant, with every key in use.
        self.keys.destroy_journal_keys(oldest.map(KeyId))
    }

    fn fold_rows(
        &self,
        connection: &Connection,
        series: u32,
        mut rows: Vec<Row>,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let limit = self.options.block_readings.max(2);
        changes.repeats += unite(&mut rows);
        let mut rest = &rows[..];
        while let Some(first) = rest.first() {
            let target = block_for(connection, series, first.key())?;
            let Some((target, next)) = target else {
                self.write_rows(series, rest, limit, false, now, changes)?;
                break;
            };
            let here = next.map_or(rest.len(), |next| rest.partition_point(|row| row.key() < next));
            let (mine, others) = rest.split_at(here);
            rest = others;
            let full = target.count >= limit as u64;
            let inside =
                if full { mine.partition_point(|row| row.measured_us <= target.last_at) } else { mine.len() };
            let (merged, after) = mine.split_at(inside);
            if !merged.is_empty() {
                let mut all = self.open_block(&target)?;
                let before = all.len();
                all.extend_from_slice(merged);
                changes.repeats += unite(&mut all);
                if all.len() > before {
                    changes.gone_blocks.push(target.number);
                    self.write_rows(series, &all, limit, next.is_some(), now, changes)?;
                }
            }
            self.write_rows(series, after, limit, next.is_some(), now, changes)?;
        }
        Ok(())
    }

    /// Cuts rows into blocks. Between other blocks halves leave room for more late rows; at the end full blocks
    /// are closed for good.
    fn write_rows(
        &self,
        series: u32,
        mut rows: &[Row],
        limit: usize,
        between: bool,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let pieces = rows.len().div_ceil(limit).max(1);
        let size = if between { rows.len().div_ceil(pieces) } else { limit };
        while !rows.is_empty() {
            let mut cut = size.min(rows.len());
            // Versions of one identity stay together, so that a late one always meets the others.
            while cut < rows.len() && rows[cut].key() == rows[cut - 1].key() {
                cut += 1;
            }
            let (block, rest) = rows.split_at(cut);
            rows = rest;
            self.write_block(series, block, now, changes)?;
        }
        Ok(())
    }

    fn write_block(
        &self,
        series: u32,
        rows: &[Row],
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        let plain = blocks::encode_rows(rows).map_err(|m| m.of(format!("new block of series {series}")))?;
        let mut block = BlockRef {
            number: changes.next_block,
            series,
            first_at: first.measured_us,
            first_sequence: first.sequence,
            last_at: last.measured_us,
            count: rows.len() as u64,
            sealed: Vec::new(),
        };
        changes.next_block += 1;
        let key = self.keys.sealing(self.domain_of(series)?, now)?;
        block.sealed = key.seal(block.place(&block.row_key()), &plain);
        changes.blocks.push(block);
        Ok(())
    }

    pub(super) fn domain_of(&self, series: u32) -> Result<Domain, StoreError> {
        Ok(Domain::of(self.known_series(series)?.subject.patient(), Purpose::Series))
    }

    pub(super) fn known_series(&self, series: u32) -> Result<SeriesKey, StoreError> {
        self.series_key(series).ok_or_else(|| StoreError::Damaged {
            what: format!("series {series}"),
            how: "it has no row".to_owned(),
        })
    }
}

impl Changes {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let gone = [
            ("DELETE FROM block WHERE number = ?1", &self.gone_blocks),
            ("DELETE FROM wave_block WHERE number = ?1", &self.gone_curves),
            ("DELETE FROM frame_block WHERE number = ?1", &self.gone_frames),
        ];
        for (sql, numbers) in gone {
            let mut delete = transaction.prepare_cached(sql)?;
            for number in numbers {
                delete.execute([number])?;
            }
        }
        let mut insert = transaction.prepare_cached(
            "INSERT INTO block(number, series, first_at, first_sequence, last_at, count, sealed)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for b in &self.blocks {
            let count = b.count as i64;
            insert.execute(params![
                b.number,
                b.series,
                b.first_at,
                b.first_sequence,
                b.last_at,
                count,
                b.sealed
            ])?;
        }
        let mut insert = transaction.prepare_cached(
            "INSERT INTO wave_block(number, series, start_at, duration_us, sealed) VALUES(?1, ?2, ?3, ?4, ?5)",
        )?;
        for w in &self.curves {
            insert.execute(params![w.number, w.series, w.start_at, w.duration_us, w.sealed])?;
        }
        let mut insert = transaction.prepare_cached(
            "INSERT INTO event(series, at, sequence, version, sealed) VALUES(?1, ?2, ?3, ?4, ?5)",
        )?;
        for (place, sealed) in &self.events {
            insert.execute(params![place.series, place.at, place.sequence, place.version, sealed])?;
        }
        let mut insert = transaction.prepare_cached(
            "INSERT INTO frame_block(number, device, patient, first_received, last_received, count, plain_bytes,
                 sealed)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for f in &self.frames {
            let patient = f.patient.map(RecordId::to_bytes);
            let (count, plain_bytes) = (f.count as i64, f.plain_bytes as i64);
            insert.execute(params![
                f.number,
                f.device.to_bytes(),
                patient,
                f.first_received,
                f.last_received,
                count,
                plain_bytes,
                f.sealed
            ])?;
        }
        Ok(())
    }
}

fn next_numbers(connection: &Connection) -> Result<Changes, StoreError> {
    connection
        .query_row(
            "SELECT (SELECT coalesce(max(number), 0) + 1 FROM block),
                    (SELECT coalesce(max(number), 0) + 1 FROM wave_block),
                    (SELECT coalesce(max(number), 0) + 1 FROM frame_block)",
            [],
            |row| {
                let (next_block, next_curve, next_frames) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Changes { next_block, next_curve, next_frames, ..Changes::default() })
            },
        )
        .map_err(read(DOING))
}

/// A block, and the first key of the block after it.
type Target = (BlockRef, Option<(i64, u32)>);

/// The block that a new row belongs to, and the first key of the block after it: the last block that begins at or
/// before the row, else the first of all; `None` where the series has no block.
fn block_for(
    connection: &Connection,
    series: u32,
    (at, sequence): (i64, u32),
) -> Result<Option<Target>, StoreError> {
    let mut before = connection
        .prepare_cached(
            "SELECT number, series, first_at, first_sequence, last_at, count, sealed FROM block
             WHERE series = ?1 AND (first_at, first_sequence) <= (?2, ?3)
             ORDER BY first_at DESC, first_sequence DESC LIMIT 1",
        )
        .map_err(read(DOING))?;
    let found = before
        .query_row(params![series, at, sequence], BlockRef::from_row)
        .optional()
        .map_err(read(DOING))?;
    let found = match found {
        Some(block) => Some(block),
        None => connection
            .prepare_cached(
                "SELECT number, series, first_at, first_sequence, last_at, count, sealed FROM block
                 WHERE series = ?1 ORDER BY first_at, first_sequence LIMIT 1",
            )
            .and_then(|mut first| first.query_row([series], BlockRef::from_row).optional())
            .map_err(read(DOING))?,
    };
    let Some(block) = found else { return Ok(None) };
    let next = connection
        .prepare_cached(
            "SELECT first_at, first_sequence FROM block
             WHERE series = ?1 AND (first_at, first_sequence) > (?2, ?3)
             ORDER BY first_at, first_sequence LIMIT 1",
        )
        .and_then(|mut after| {
            let key = params![series, block.first_at, block.first_sequence];
            after.query_row(key, |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(read(DOING))?;
    Ok(Some((block, next)))
}

fn sort_out(groups: Vec<DecodedGroup>) -> Sorted {
    let mut sorted = Sorted::default();
    for group in groups {
        for frame in group.frames {
            let patient = one_patient(&frame.facts);
            for (series, fact) in frame.facts {
                match fact {
                    Fact::Reading(reading) => {
                        sorted.readings += 1;
                        let row = Row::new(&reading, group.committed_at, 0);
                        sorted.rows.entry(series).or_default().push(row);
                    }
                    Fact::Waveform(waveform) => {
                        let curve = Committed::restored(waveform, group.committed_at, 0);
                        sorted.curves.entry(series).or_default().push(curve);
                    }
                    Fact::Event(event) => {
                        sorted.events.push((series, Committed::restored(event, group.committed_at, 0)));
                    }
                }
            }
            let kept = KeptFrame { committed_at: group.committed_at, frame: frame.frame };
            sorted.frames.entry((kept.frame.device, patient)).or_default().push(kept);
        }
    }
    sorted
}

/// The patient that all facts about patients are about, where it is one.
fn one_patient(facts: &[(u32, Fact)]) -> Option<PatientId> {
    let mut patients = facts.iter().filter_map(|(_, fact)| fact.series().subject.patient());
    let first = patients.next()?;
    patients.all(|other| other == first).then_some(first)
}
