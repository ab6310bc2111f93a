//! The commit of one group: journal row, series, latest values, quarantine and audit record in one transaction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;

use clinical_model::validation::{CLOCK_AHEAD_REMARKED, LATE_AFTER};
use clinical_model::{DeviceId, Fact, Findings, QuarantineItem, RecordId, SeriesKey, Timestamp};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use trust::Aad;
use trust::digest::Sha256;

use super::bytes::{Reader, Writer};
use super::connection::{lock, read, readable, writable};
use super::keys::{Domain, Purpose};
use super::row::{Malformed, Row};
use super::series::NewSeries;
use super::tail::READINGS_REMARKED;
use super::{SqliteStore, journal};
use crate::StoreError;
use crate::words::{Appended, FrameRecord, GroupSummary, StoredGroup};

const DOING: &str = "committing a group";
const SUMMARY_FORMAT: u8 = 1;

/// What binds a group's rows to their places: its number and when it was committed (microseconds).
pub(super) fn group_key(number: u64, committed_at: i64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&committed_at.to_be_bytes());
    key
}

pub(super) fn journal_place(group: &[u8; 16]) -> Aad<'_> {
    Aad { table: "journal", row: group, column: "group" }
}

pub(super) fn summary_place(group: &[u8; 16]) -> Aad<'_> {
    Aad { table: "group_summary", row: group, column: "summary" }
}

pub(super) fn latest_place(series: &[u8; 4]) -> Aad<'_> {
    Aad { table: "latest", row: series, column: "reading" }
}

/// Everything of a group that is computed before the transaction begins.
struct Prepared {
    journal: Vec<u8>,
    summary: Vec<u8>,
    latest: Vec<(u32, Row, Vec<u8>)>,
    quarantined: Vec<(QuarantineItem, Vec<u8>)>,
}

impl SqliteStore {
    pub(super) fn append_group(
        &self,
        frames: &[FrameRecord],
        committed_at: Timestamp,
    ) -> Result<Appended, StoreError> {
        let committed_at = committed_at.truncated_to_millis();
        let mut writer = lock(&self.writer);
        self.still_durable(DOING)?;
        let group = self.last_group.load(Ordering::Acquire) + 1;
        let known = readable(&self.series);
        let mut numbers = NewSeries::beside(&known);
        let prepared = self.prepare(frames, committed_at, group, &mut numbers)?;

        let transaction =
            writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(self.wrote(DOING))?;
        numbers.write(&transaction).map_err(self.wrote(DOING))?;
        let unchanged =
            self.write_group(&transaction, &prepared, group, committed_at).map_err(self.wrote(DOING))?;
        self.mark_contradicted(&transaction, &unchanged, committed_at)?;
        let mut change = self.write_quarantined(&transaction, &prepared.quarantined)?;
        for (id, by) in frames.iter().flat_map(|record| &record.released) {
            change += self.release(&transaction, *id, *by, committed_at)?;
        }
        transaction.commit().map_err(self.wrote(DOING))?;

        let added = numbers.into_added();
        drop(known);
        if !added.is_empty() {
            let mut series = writable(&self.series);
            added.into_iter().for_each(|key| series.insert(key));
        }
        change.apply(&mut lock(&self.waiting));
        self.extend_tail(frames, committed_at, group);
        self.last_group.store(group, Ordering::Release);
        self.news.tell(|news| news.group = group);
        Ok(Appended { group, committed_at })
    }

    fn prepare(
        &self,
        frames: &[FrameRecord],
        committed_at: Timestamp,
        group: u64,
        numbers: &mut NewSeries<'_>,
    ) -> Result<Prepared, StoreError> {
        let plain = journal::encode(frames, &mut |key: &SeriesKey| numbers.number(key))?;
        let row = group_key(group, committed_at.as_micros());
        let system = |purpose| self.keys.sealing(Domain::System(purpose), committed_at);
        let journal = system(Purpose::Journal)?.seal(journal_place(&row), &plain);
        let summary =
            system(Purpose::Summary)?.seal(summary_place(&row), &encode_summary(&summarise(frames)));
        let mut newest: HashMap<SeriesKey, Row> = HashMap::new();
        for fact in frames.iter().flat_map(|record| &record.facts) {
            let Fact::Reading(reading) = fact else { continue };
            let row = Row::new(reading, committed_at, group);
            match newest.entry(reading.series()) {
                Entry::Vacant(entry) => drop(entry.insert(row)),
                Entry::Occupied(mut entry) if entry.get().key() < row.key() => drop(entry.insert(row)),
                Entry::Occupied(mut entry)
                    if entry.get().key() == row.key() && entry.get().value != row.value =>
                {
                    entry.get_mut().findings |= Findings::CONFLICT;
                }
                Entry::Occupied(_) => {}
            }
        }
        let mut latest = Vec::with_capacity(newest.len());
        for (key, row) in newest {
            let number = numbers.number(&key)?;
            let named =
                self.keys.sealing(Domain::of(key.subject.patient(), Purpose::Series), committed_at)?;
            latest.push((number, row, named.seal(latest_place(&number.to_be_bytes()), &row.encode())));
        }
        let mut quarantined = Vec::new();
        for item in frames.iter().flat_map(|record| &record.quarantined) {
            quarantined.push((item.clone(), self.seal_item(item, committed_at)?));
        }
        Ok(Prepared { journal, summary, latest, quarantined })
    }

    fn write_group(
        &self,
        connection: &Connection,
        prepared: &Prepared,
        group: u64,
        committed_at: Timestamp,
    ) -> rusqlite::Result<Vec<(u32, Row)>> {
        let at = committed_at.as_micros();
        connection
            .prepare_cached("INSERT INTO journal(number, committed_at, sealed) VALUES(?1, ?2, ?3)")?
            .execute(params![group as i64, at, prepared.journal])?;
        connection
            .prepare_cached("INSERT INTO group_summary(number, committed_at, sealed) VALUES(?1, ?2, ?3)")?
            .execute(params![group as i64, at, prepared.summary])?;
        let mut upsert = connection.prepare_cached(
            "INSERT INTO latest(series, measured_at, sequence, sealed) VALUES(?1, ?2, ?3, ?4)
             ON CONFLICT(series) DO UPDATE SET
                 measured_at = excluded.measured_at, sequence = excluded.sequence, sealed = excluded.sealed
             WHERE (excluded.measured_at, excluded.sequence) > (latest.measured_at, latest.sequence)
                OR (latest.measured_at > ?5 AND excluded.measured_at BETWEEN ?6 AND ?5)",
        )?;
        // What a clock that ran ahead left behind must not stand as the latest value before those that follow.
        let ahead = committed_at.plus(CLOCK_AHEAD_REMARKED).as_micros();
        let live = committed_at.minus(LATE_AFTER).as_micros();
        let mut unchanged = Vec::new();
        for (series, row, sealed) in &prepared.latest {
            let place = params![series, row.measured_us, row.sequence, sealed, ahead, live];
            if upsert.execute(place)? == 0 {
                unchanged.push((*series, *row));
            }
        }
        Ok(unchanged)
    }

    /// Where another value came under the identity of a latest value, the latest says so: it stays, and is remarked.
    fn mark_contradicted(
        &self,
        connection: &Connection,
        unchanged: &[(u32, Row)],
        committed_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut select = connection
            .prepare_cached(
                "SELECT sealed FROM latest WHERE series = ?1 AND measured_at = ?2 AND sequence = ?3",
            )
            .map_err(read(DOING))?;
        let mut update = connection
            .prepare_cached("UPDATE latest SET sealed = ?2 WHERE series = ?1")
            .map_err(self.wrote(DOING))?;
        for (series, row) in unchanged {
            let place = params![series, row.measured_us, row.sequence];
            let found: Option<Vec<u8>> =
                select.query_row(place, |found| found.get(0)).optional().map_err(read(DOING))?;
            let Some(sealed) = found else { continue };
            let mut kept = self.open_latest(*series, &sealed)?;
            if kept.value == row.value || kept.findings.contains(Findings::CONFLICT) {
                continue;
            }
            kept.findings |= Findings::CONFLICT;
            let named = self.keys.sealing(self.domain_of(*series)?, committed_at)?;
            let sealed = named.seal(latest_place(&series.to_be_bytes()), &kept.encode());
            update.execute(params![series, sealed]).map_err(self.wrote(DOING))?;
        }
        Ok(())
    }

    fn extend_tail(&self, frames: &[FrameRecord], committed_at: Timestamp, group: u64) {
        let series = readable(&self.series);
        let mut tail = writable(&self.tail);
        let before = tail.count();
        for record in frames {
            for fact in &record.facts {
                if let Some(number) = series.number(&fact.series()) {
                    tail.add(number, fact, committed_at, group);
                }
            }
            tail.add_frame(record.frame.device, record.frame.received_at.as_millis(), group);
        }
        if before < READINGS_REMARKED && tail.count() >= READINGS_REMARKED {
            tracing::warn!(
                readings = tail.count(),
                "folding lags behind: the unfolded tail in memory is large"
            );
        }
    }

    /// Reads the whole journal into the tail, when the store opens.
    pub(super) fn rebuild_tail(&self) -> Result<(), StoreError> {
        let last = self.last_group.load(Ordering::Acquire);
        let mut after = 0;
        while after < last {
            let groups = self.decode_groups(&self.readers.get(), after, last, REBUILD_GROUPS, false)?;
            let Some(newest) = groups.last() else { break };
            after = newest.number;
            let mut tail = writable(&self.tail);
            for group in &groups {
                for row in &group.frames {
                    for (series, fact) in &row.facts {
                        tail.add(*series, fact, group.committed_at, group.number);
                    }
                    tail.add_frame(row.frame.device, row.frame.received_at.as_millis(), group.number);
                }
            }
        }
        Ok(())
    }

    /// Decodes journal rows with numbers in `after + 1 ..= up_to`.
    pub(super) fn decode_groups(
        &self,
        connection: &Connection,
        after: u64,
        up_to: u64,
        limit: usize,
        with_bytes: bool,
    ) -> Result<Vec<DecodedGroup>, StoreError> {
        let doing = "reading the journal";
        let mut select = connection
            .prepare_cached(
                "SELECT number, committed_at, sealed FROM journal
                 WHERE number > ?1 AND number <= ?2 ORDER BY number LIMIT ?3",
            )
            .map_err(read(doing))?;
        let bounds = params![
            after.min(i64::MAX as u64) as i64,
            up_to.min(i64::MAX as u64) as i64,
            limit.min(i64::MAX as usize) as i64
        ];
        let rows = select
            .query_map(bounds, |row| {
                Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
            })
            .map_err(read(doing))?;
        let mut groups = Vec::new();
        for row in rows {
            let (number, committed_at, sealed) = row.map_err(read(doing))?;
            let what = || format!("journal row {number}");
            let plain =
                self.keys.open_sealed(journal_place(&group_key(number, committed_at)), &sealed, &what)?;
            let frames = journal::decode(&plain, with_bytes, &|series| self.series_key(series))
                .map_err(|malformed| malformed.of(what()))?;
            groups.push(DecodedGroup { number, committed_at: Timestamp::from_micros(committed_at), frames });
        }
        Ok(groups)
    }

    pub(super) fn read_groups(&self, after: u64, limit: usize) -> Result<Vec<StoredGroup>, StoreError> {
        let connection = self.readers.get();
        // A group is shown only once its append is about to return: consumers never run ahead of the tail.
        let last = self.last_group.load(Ordering::Acquire);
        let groups = self.decode_groups(&connection, after, last, limit, false)?;
        groups
            .into_iter()
            .map(|group| {
                let frames = group.frames.into_iter().map(|row| {
                    let items = row.quarantined.iter().map(|id| self.find_quarantined(&connection, *id));
                    let quarantined =
                        items.filter_map(Result::transpose).collect::<Result<Vec<_>, StoreError>>()?;
                    let facts = row.facts.into_iter().map(|(_, fact)| fact).collect();
                    Ok(FrameRecord { frame: row.frame, facts, quarantined, released: row.released })
                });
                let frames = frames.collect::<Result<Vec<_>, StoreError>>()?;
                Ok(StoredGroup { group: group.number, committed_at: group.committed_at, frames })
            })
            .collect()
    }

    pub(super) fn page_summaries(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<GroupSummary>, StoreError> {
        let doing = "listing group summaries";
        let connection = self.readers.get();
        let mut select = connection
            .prepare_cached(
                "SELECT number, committed_at, sealed FROM group_summary
                 WHERE number < ?1 ORDER BY number DESC LIMIT ?2",
            )
            .map_err(read(doing))?;
        let before = before.unwrap_or(u64::MAX).min(i64::MAX as u64) as i64;
        let rows = select
            .query_map(params![before, limit.min(i64::MAX as usize) as i64], |row| {
                Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
            })
            .map_err(read(doing))?;
        rows.map(|row| {
            let (group, committed_at, sealed) = row.map_err(read(doing))?;
            let sources = self.open_summary(group, committed_at, &sealed)?;
            Ok(GroupSummary { group, committed_at: Timestamp::from_micros(committed_at), sources })
        })
        .collect()
    }

    pub(super) fn open_summary(
        &self,
        group: u64,
        committed_at: i64,
        sealed: &[u8],
    ) -> Result<Sources, StoreError> {
        let what = || format!("summary of group {group}");
        let plain = self.keys.open_sealed(summary_place(&group_key(group, committed_at)), sealed, &what)?;
        decode_summary(&plain).map_err(|malformed| malformed.of(what()))
    }
}

/// Journal rows that are decoded at once when the store opens.
const REBUILD_GROUPS: usize = 256;

/// A journal row, opened.
pub(super) struct DecodedGroup {
    pub(super) number: u64,
    pub(super) committed_at: Timestamp,
    pub(super) frames: Vec<journal::FrameRow>,
}

type Sources = Vec<(DeviceId, u32, u32, u32, [u8; 32])>;

/// For each device, in the order of their first frames.
fn summarise(frames: &[FrameRecord]) -> Sources {
    let mut order: Vec<DeviceId> = Vec::new();
    let mut sums: HashMap<DeviceId, (u32, u32, u32, Sha256)> = HashMap::new();
    for record in frames {
        let sum = sums.entry(record.frame.device).or_insert_with(|| {
            order.push(record.frame.device);
            (0, 0, 0, Sha256::new())
        });
        sum.0 += 1;
        sum.1 += record.facts.len() as u32;
        sum.2 += record.quarantined.len() as u32;
        sum.3.update(&record.frame.bytes);
    }
    let finish = |device: DeviceId| {
        let (frames, facts, quarantined, hash) = sums.remove(&device)?;
        Some((device, frames, facts, quarantined, hash.finish()))
    };
    order.into_iter().filter_map(finish).collect()
}

fn encode_summary(sources: &Sources) -> Vec<u8> {
    let mut writer = Writer::with_capacity(2 + sources.len() * 54);
    writer.u8(SUMMARY_FORMAT);
    writer.unsigned(sources.len() as u64);
    for (device, frames, facts, quarantined, hash) in sources {
        writer.fixed(&device.to_bytes());
        writer.unsigned(u64::from(*frames));
        writer.unsigned(u64::from(*facts));
        writer.unsigned(u64::from(*quarantined));
        writer.fixed(hash);
    }
    writer.finish()
}

fn decode_summary(bytes: &[u8]) -> Result<Sources, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != SUMMARY_FORMAT {
        return Err(Malformed("its format is unknown to this release"));
    }
    let count = reader.count()?;
    let mut sources = Vec::with_capacity(count);
    for _ in 0..count {
        let device = DeviceId::from_bytes(reader.array()?);
        sources.push((device, reader.u32()?, reader.u32()?, reader.u32()?, reader.array()?));
    }
    reader.finish()?;
    Ok(sources)
}
