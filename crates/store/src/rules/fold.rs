//! Folding: journal rows become blocks by series, a set union by identity, and vanish in the same transaction.

use std::collections::BTreeMap;

use clinical_model::{Committed, DeviceId, Event, Fact, PatientId, RecordId, SeriesKey, Timestamp, Waveform};
use trust::KeyId;

use super::append::DecodedGroup;
use super::fold_parts::{BlockRef, EventPlace, WaveRef};
use super::keys::{Domain, Purpose};
use super::row::{Row, unite};
use super::{SqlStore, blocks};
use crate::StoreError;
use crate::sql::{
    Backend, Begin, DbError, Session, Tx, Value, lock, read, readable, values, writable, write,
};
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

impl<B: Backend> SqlStore<B> {
    pub(super) fn fold_groups(&self, limit_groups: usize, now: Timestamp) -> Result<Folded, StoreError> {
        // Only a fold changes blocks, so they can be read and compressed while commits go on.
        let mut session = lock(&self.folding);
        self.still_durable(DOING)?;
        self.make_ready(&mut session, DOING)?;
        if !B::claim_fold(&session).map_err(read(DOING))? {
            return Ok(Folded::default());
        }
        let outcome = self.fold_claimed(&mut session, limit_groups, now);
        B::release_fold(&session);
        outcome
    }

    fn fold_claimed(
        &self,
        session: &mut B::Session,
        limit_groups: usize,
        now: Timestamp,
    ) -> Result<Folded, StoreError> {
        let up_to = self.foldable(session)?;
        let groups = self.decode_groups(session, 0, up_to, limit_groups, true)?;
        let Some(last) = groups.last().map(|group| group.number) else { return Ok(Folded::default()) };
        let folded_groups = groups.len() as u64;
        let sorted = sort_out(self.without_erased(groups));
        let mut changes = next_numbers(session)?;
        for (series, rows) in sorted.rows {
            self.fold_rows(session, series, rows, now, &mut changes)?;
        }
        for (series, chunks) in sorted.curves {
            self.fold_curve(session, series, chunks, now, &mut changes)?;
        }
        self.fold_events(session, sorted.events, now, &mut changes)?;
        for ((device, patient), frames) in sorted.frames {
            self.fold_frames(session, device, patient, frames, now, &mut changes)?;
        }
        let written = (changes.blocks.len() + changes.curves.len() + changes.frames.len()) as u64;
        if B::SHARED {
            // On the session that has the claim: when it breaks, so does the claim, and nothing is written.
            self.write_fold(session, &changes, last)?;
            self.destroy_keys_shared()?;
        } else {
            // Under the writer's lock to the end: a backup takes both files at one instant, with every key in use.
            let mut writer = self.writer(DOING)?;
            self.write_fold(&mut writer, &changes, last)?;
            let oldest = oldest_journal_key(&*writer).map_err(write(DOING))?;
            self.keys.destroy_journal_keys(|_| Ok(oldest))?;
        }
        Ok(Folded {
            groups: folded_groups,
            readings: sorted.readings,
            repeats: changes.repeats,
            blocks: written,
        })
    }

    /// Leaves out what is about patients who were erased while it waited, raw bytes included.
    fn without_erased(&self, mut groups: Vec<DecodedGroup>) -> Vec<DecodedGroup> {
        if readable(&self.keys.erased).is_empty() {
            return groups;
        }
        let is_erased = |fact: &Fact| self.keys.is_erased(fact.series().subject.patient());
        for group in &mut groups {
            group.frames.retain_mut(|frame| {
                let all = frame.facts.len();
                frame.facts.retain(|(_, fact)| !is_erased(fact));
                if frame.facts.len() < all {
                    frame.frame.bytes.clear();
                }
                all == 0 || !frame.facts.is_empty()
            });
        }
        groups
    }

    /// The last group that every consumer and every living node has passed.
    fn foldable(&self, session: &B::Session) -> Result<u64, StoreError> {
        let slowest: Option<u64> =
            session.one("SELECT min(position) FROM cursor", &[]).map_err(read(DOING))?;
        let mut last = self.last_group.load(std::sync::atomic::Ordering::Acquire);
        if B::SHARED {
            last = self.counters(session)?.0;
            let sql = format!("SELECT min(passed) FROM node WHERE expires_at > {}", B::NOW_US);
            let node: Option<u64> = session.one(&sql, &[]).map_err(read(DOING))?;
            last = node.map_or(last, |node| last.min(node));
        }
        Ok(slowest.map_or(last, |slowest| last.min(slowest)))
    }

    fn write_fold(&self, session: &mut B::Session, changes: &Changes, last: u64) -> Result<(), StoreError> {
        let transaction = Tx::begin(session, Begin::Write).map_err(self.wrote(DOING))?;
        changes.write(&*transaction).map_err(self.wrote(DOING))?;
        transaction
            .execute("DELETE FROM journal WHERE number <= ?1", &values![last])
            .map_err(self.wrote(DOING))?;
        if B::SHARED {
            transaction
                .execute("UPDATE counter SET value = ?1 WHERE name = 'folded'", &values![last])
                .map_err(self.wrote(DOING))?;
        }
        transaction.commit().map_err(self.wrote(DOING))?;
        writable(&self.tail).forget_up_to(last);
        Ok(())
    }

    /// Destroys journal keys that seal nothing any more, while no process commits a group. Keys live hours, so mostly
    /// there is one only and nothing to do.
    fn destroy_keys_shared(&self) -> Result<(), StoreError> {
        if self.keys.journal_keys()? <= 1 {
            return Ok(());
        }
        self.keys.destroy_journal_keys(|transaction| {
            let _nobody_commits: u64 =
                transaction.one("SELECT value FROM counter WHERE name = 'group' FOR UPDATE", &[])?;
            oldest_journal_key(transaction)
        })
    }

    fn fold_rows(
        &self,
        session: &B::Session,
        series: u32,
        mut rows: Vec<Row>,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let limit = self.options.block_readings.max(2);
        changes.repeats += unite(&mut rows);
        let mut rest = &rows[..];
        while let Some(first) = rest.first() {
            let target = block_for(session, series, first.key())?;
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

    pub(super) fn write_block(
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
    pub(super) fn write<S: Session>(&self, session: &S) -> Result<(), DbError> {
        let gone = [
            ("DELETE FROM block WHERE number = ?1", &self.gone_blocks),
            ("DELETE FROM wave_block WHERE number = ?1", &self.gone_curves),
            ("DELETE FROM frame_block WHERE number = ?1", &self.gone_frames),
        ];
        for (sql, numbers) in gone {
            let rows: Vec<_> = numbers.iter().map(|number| values![*number].to_vec()).collect();
            session.execute_each(sql, &rows)?;
        }
        let block = |b: &BlockRef| {
            let BlockRef { number, series, first_at, first_sequence, last_at, count, .. } = *b;
            values![number, series, first_at, first_sequence, last_at, count]
        };
        let rows: Vec<_> =
            self.blocks.iter().map(|b| [&block(b)[..], &values![&b.sealed]].concat()).collect();
        session.execute_each(
            "INSERT INTO block(number, series, first_at, first_sequence, last_at, count, sealed)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            &rows,
        )?;
        let wave = |w: &WaveRef| values![w.number, w.series, w.start_at, w.duration_us];
        let rows: Vec<_> = self.curves.iter().map(|w| [&wave(w)[..], &values![&w.sealed]].concat()).collect();
        session.execute_each(
            "INSERT INTO wave_block(number, series, start_at, duration_us, sealed) VALUES(?1, ?2, ?3, ?4, ?5)",
            &rows,
        )?;
        let event = |place: &EventPlace| values![place.series, place.at, place.sequence, place.version];
        let rows: Vec<_> = self
            .events
            .iter()
            .map(|(place, sealed)| [&event(place)[..], &values![sealed]].concat())
            .collect();
        session.execute_each(
            "INSERT INTO event(series, at, sequence, version, sealed) VALUES(?1, ?2, ?3, ?4, ?5)",
            &rows,
        )?;
        let rows: Vec<_> = self.frames.iter().map(FrameBlock::values).collect();
        session.execute_each(
            "INSERT INTO frame_block(number, device, patient, first_received, last_received, count, plain_bytes,
                 sealed)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            &rows,
        )?;
        Ok(())
    }
}

impl FrameBlock {
    fn values(&self) -> Vec<Value<'_>> {
        let patient = self.patient.map(RecordId::to_bytes);
        let (first, last) = (self.first_received, self.last_received);
        let (count, bytes) = (self.count, self.plain_bytes);
        values![self.number, self.device.to_bytes(), patient, first, last, count, bytes, &self.sealed]
            .to_vec()
    }
}

/// The key that sealed the oldest journal row still kept.
fn oldest_journal_key<S: Session>(session: &S) -> Result<Option<KeyId>, DbError> {
    let sql = "SELECT substr(sealed, 2, 16) FROM journal ORDER BY number LIMIT 1";
    session.row(sql, &[], |row| row.get(0).map(KeyId))
}

pub(super) fn next_numbers<S: Session>(session: &S) -> Result<Changes, StoreError> {
    session
        .row(
            "SELECT (SELECT coalesce(max(number), 0) + 1 FROM block),
                    (SELECT coalesce(max(number), 0) + 1 FROM wave_block),
                    (SELECT coalesce(max(number), 0) + 1 FROM frame_block)",
            &[],
            |row| {
                let (next_block, next_curve, next_frames) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Changes { next_block, next_curve, next_frames, ..Changes::default() })
            },
        )
        .map(Option::unwrap_or_default)
        .map_err(read(DOING))
}

/// A block, and the first key of the block after it.
type Target = (BlockRef, Option<(i64, u32)>);

/// The block that a new row belongs to, and the first key of the block after it: the last block that begins at or
/// before the row, else the first of all; `None` where the series has no block.
fn block_for<S: Session>(
    session: &S,
    series: u32,
    (at, sequence): (i64, u32),
) -> Result<Option<Target>, StoreError> {
    let found = session
        .row(
            "SELECT number, series, first_at, first_sequence, last_at, count, sealed FROM block
             WHERE series = ?1 AND (first_at, first_sequence) <= (?2, ?3)
             ORDER BY first_at DESC, first_sequence DESC LIMIT 1",
            &values![series, at, sequence],
            BlockRef::from_row,
        )
        .map_err(read(DOING))?;
    let found = match found {
        Some(block) => Some(block),
        None => session
            .row(
                "SELECT number, series, first_at, first_sequence, last_at, count, sealed FROM block
                 WHERE series = ?1 ORDER BY first_at, first_sequence LIMIT 1",
                &values![series],
                BlockRef::from_row,
            )
            .map_err(read(DOING))?,
    };
    let Some(block) = found else { return Ok(None) };
    let next = session
        .row(
            "SELECT first_at, first_sequence FROM block
             WHERE series = ?1 AND (first_at, first_sequence) > (?2, ?3)
             ORDER BY first_at, first_sequence LIMIT 1",
            &values![series, block.first_at, block.first_sequence],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
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
