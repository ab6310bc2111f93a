//! The commit of one group: journal row, series, latest values, quarantine and audit record in one transaction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;

use clinical_model::validation::{CLOCK_AHEAD_REMARKED, LATE_AFTER};
use clinical_model::{DeviceId, Fact, Findings, QuarantineItem, RecordId, SeriesKey, Timestamp};
use trust::Aad;
use trust::digest::Sha256;

use super::bytes::{Reader, Writer};
use super::keys::{Domain, NamedKey, Purpose};
use super::row::{Malformed, Row};
use super::series::NewSeries;
use super::{SqlStore, TRIES, journal};
use crate::StoreError;
use crate::proven::LogEntry;
use crate::sql::{Backend, Begin, DbError, Session, Tx, lock, read, readable, values, writable};
use crate::words::{Appended, AuditRecord, FrameRecord, GroupSummary, News, StoredGroup};

const DOING: &str = "committing a group";
/// The first format of summaries, without a blinding.
const SUMMARY_UNBLINDED: u8 = 1;
const SUMMARY_FORMAT: u8 = 2;
/// Stands for the blinding of a summary of the first format.
const NO_BLINDING: [u8; 32] = [0; 32];

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

/// Whether a measurement switched the record of groups off.
#[cfg(feature = "bench-off")]
fn is_audit_off() -> bool {
    trust::bench_off::is_off(trust::bench_off::Part::Audit)
}

/// Everything of a group that is computed before the transaction begins.
struct Prepared {
    journal: Vec<u8>,
    summary: Vec<u8>,
    leaf: [u8; 32],
    latest: Vec<(u32, Row, Vec<u8>)>,
    quarantined: Vec<(QuarantineItem, Vec<u8>)>,
}

impl<B: Backend> SqlStore<B> {
    pub(super) fn append_group(
        &self,
        frames: &[FrameRecord],
        audit: &[AuditRecord],
        committed_at: Timestamp,
    ) -> Result<Appended, StoreError> {
        let committed_at = committed_at.truncated_to_millis();
        let mut writer = self.writer(DOING)?;
        let mut tries = 1;
        loop {
            match self.try_append(&mut writer, (frames, audit), committed_at) {
                Err(error) if error.is_contended() && tries < TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    fn try_append(
        &self,
        writer: &mut B::Session,
        (frames, audit): (&[FrameRecord], &[AuditRecord]),
        committed_at: Timestamp,
    ) -> Result<Appended, StoreError> {
        // What takes long comes before the transaction: others wait for it.
        let mut numbers = NewSeries::after(&readable(&self.series));
        let mut plain = self.encode_journal(frames, &mut numbers)?;
        let transaction = Tx::begin(writer, Begin::Write).map_err(self.wrote(DOING))?;
        let group = self.next_group(&transaction)?;
        if B::SHARED && !numbers.is_empty() {
            // Others may have numbered the same series; nobody numbers any until we are done.
            self.refresh_series(&transaction)?;
            numbers = NewSeries::after(&readable(&self.series));
            plain = self.encode_journal(frames, &mut numbers)?;
        }
        let key = self.journal_key(&transaction, committed_at)?;
        let prepared = self.prepare(frames, &plain, (group, committed_at), &key, &mut numbers)?;
        numbers.write(&*transaction).map_err(self.wrote(DOING))?;
        let unchanged =
            self.write_group(&*transaction, &prepared, group, committed_at).map_err(self.wrote(DOING))?;
        self.mark_contradicted(&*transaction, &unchanged, committed_at)?;
        let mut change = self.write_quarantined(&*transaction, &prepared.quarantined)?;
        for (id, by) in frames.iter().flat_map(|record| &record.released) {
            change += self.release(&*transaction, *id, *by, committed_at)?;
        }
        self.write_acts(&transaction, audit)?;
        transaction.commit().map_err(self.wrote(DOING))?;

        let added = numbers.into_added();
        if !added.is_empty() {
            let mut series = writable(&self.series);
            added.into_iter().for_each(|(number, key)| series.insert_numbered(number, key));
        }
        change.apply(&mut lock(&self.waiting).count);
        self.extend_tail(frames, committed_at, group);
        self.last_group.fetch_max(group, Ordering::AcqRel);
        self.news.tell(News { group, change: 0 });
        Ok(Appended { group, committed_at })
    }

    /// The acts by which the frames came. They take their turn among those of all processes as late as can be.
    fn write_acts(&self, transaction: &B::Session, audit: &[AuditRecord]) -> Result<(), StoreError> {
        if B::SHARED && !audit.is_empty() {
            let sql = "SELECT value FROM counter WHERE name = 'acts' FOR UPDATE";
            let _turn: u64 = transaction.one(sql, &[]).map_err(self.wrote(DOING))?;
        }
        self.write_audit(transaction, audit)
    }

    /// The number of the group. Where other processes write too, they wait from here until the transaction ends, so
    /// that numbers have no gaps and stand in the order of the commits.
    fn next_group(&self, transaction: &B::Session) -> Result<u64, StoreError> {
        if !B::SHARED {
            return Ok(self.last_group.load(Ordering::Acquire) + 1);
        }
        let group = transaction
            .one("UPDATE counter SET value = value + 1 WHERE name = 'group' RETURNING value", &[])
            .map_err(self.wrote(DOING))?;
        if group <= readable(&self.tail).seen() { Err(self.went_back(group)) } else { Ok(group) }
    }

    /// The key that seals the journal row. Another process may have destroyed the one that we remember, together with
    /// the last row that it sealed; none is destroyed until the transaction ends.
    fn journal_key(&self, transaction: &B::Session, at: Timestamp) -> Result<NamedKey, StoreError> {
        let domain = Domain::System(Purpose::Journal);
        let key = self.keys.sealing(domain, at)?;
        if B::SHARED && !self.keys.is_kept(transaction, key.id)? {
            self.keys.forget(domain);
            return self.keys.sealing(domain, at);
        }
        Ok(key)
    }

    fn encode_journal(&self, frames: &[FrameRecord], numbers: &mut NewSeries) -> Result<Vec<u8>, StoreError> {
        let known = readable(&self.series);
        journal::encode(frames, &mut |key: &SeriesKey| numbers.number(&known, key))
    }

    fn prepare(
        &self,
        frames: &[FrameRecord],
        plain: &[u8],
        (group, committed_at): (u64, Timestamp),
        journal_key: &NamedKey,
        numbers: &mut NewSeries,
    ) -> Result<Prepared, StoreError> {
        let row = group_key(group, committed_at.as_micros());
        let system = |purpose| self.keys.sealing(Domain::System(purpose), committed_at);
        let journal = journal_key.seal(journal_place(&row), plain);
        let summarised = || {
            let (plain, leaf) = encode_summary(group, committed_at.as_micros(), &summarise(frames));
            Ok::<_, StoreError>((system(Purpose::Summary)?.seal(summary_place(&row), &plain), leaf))
        };
        #[cfg(not(feature = "bench-off"))]
        let (summary, leaf) = summarised()?;
        #[cfg(feature = "bench-off")]
        let (summary, leaf) = if is_audit_off() { Default::default() } else { summarised()? };
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
            if self.keys.is_erased(key.subject.patient()) {
                // Measured before the erasure, committed after it: the fold leaves it out as well.
                continue;
            }
            let number = numbers.number(&readable(&self.series), &key)?;
            let named =
                self.keys.sealing(Domain::of(key.subject.patient(), Purpose::Series), committed_at)?;
            latest.push((number, row, named.seal(latest_place(&number.to_be_bytes()), &row.encode())));
        }
        let mut quarantined = Vec::new();
        for item in frames.iter().flat_map(|record| &record.quarantined) {
            quarantined.push((item.clone(), self.seal_item(item, committed_at)?));
        }
        Ok(Prepared { journal, summary, leaf, latest, quarantined })
    }

    fn write_group(
        &self,
        session: &B::Session,
        prepared: &Prepared,
        group: u64,
        committed_at: Timestamp,
    ) -> Result<Vec<(u32, Row)>, DbError> {
        let at = committed_at.as_micros();
        // What a clock that ran ahead left behind must not stand as the latest value before those that follow.
        let ahead = committed_at.plus(CLOCK_AHEAD_REMARKED).as_micros();
        let live = committed_at.minus(LATE_AFTER).as_micros();
        let rows: Vec<_> = prepared
            .latest
            .iter()
            .map(|(series, row, sealed)| {
                values![*series, row.measured_us, row.sequence, sealed, ahead, live].to_vec()
            })
            .collect();
        let summary = vec![values![group, at, &prepared.summary, &prepared.leaf].to_vec()];
        #[cfg(feature = "bench-off")]
        let summary = if is_audit_off() { Vec::new() } else { summary };
        let changed = session.execute_all(&[
            (
                "INSERT INTO journal(number, committed_at, sealed) VALUES(?1, ?2, ?3)",
                vec![values![group, at, &prepared.journal].to_vec()],
            ),
            (
                "INSERT INTO group_summary(number, committed_at, sealed, leaf) VALUES(?1, ?2, ?3, ?4)",
                summary,
            ),
            (
                "INSERT INTO latest(series, measured_at, sequence, sealed) VALUES(?1, ?2, ?3, ?4)
                 ON CONFLICT(series) DO UPDATE SET
                     measured_at = excluded.measured_at, sequence = excluded.sequence, sealed = excluded.sealed
                 WHERE (excluded.measured_at, excluded.sequence) > (latest.measured_at, latest.sequence)
                    OR (latest.measured_at > ?5 AND excluded.measured_at BETWEEN ?6 AND ?5)",
                rows,
            ),
            // Told when the transaction ends, to those whom it concerns.
            (B::ANNOUNCE, if B::SHARED { vec![Vec::new()] } else { Vec::new() }),
        ])?;
        let changed = changed.into_iter().nth(2).unwrap_or_default();
        let kept = prepared.latest.iter().zip(changed).filter(|(_, changed)| *changed == 0);
        Ok(kept.map(|((series, row, _), _)| (*series, *row)).collect())
    }

    /// Where another value came under the identity of a latest value, the latest says so: it stays, and is remarked.
    fn mark_contradicted(
        &self,
        session: &B::Session,
        unchanged: &[(u32, Row)],
        committed_at: Timestamp,
    ) -> Result<(), StoreError> {
        for (series, row) in unchanged {
            let found: Option<Vec<u8>> = session
                .row(
                    "SELECT sealed FROM latest WHERE series = ?1 AND measured_at = ?2 AND sequence = ?3",
                    &values![*series, row.measured_us, row.sequence],
                    |found| found.get(0),
                )
                .map_err(read(DOING))?;
            let Some(sealed) = found else { continue };
            let mut kept = self.open_latest(*series, &sealed)?;
            if kept.value == row.value || kept.findings.contains(Findings::CONFLICT) {
                continue;
            }
            kept.findings |= Findings::CONFLICT;
            let named = self.keys.sealing(self.domain_of(*series)?, committed_at)?;
            let sealed = named.seal(latest_place(&series.to_be_bytes()), &kept.encode());
            session
                .execute("UPDATE latest SET sealed = ?2 WHERE series = ?1", &values![*series, &sealed])
                .map_err(self.wrote(DOING))?;
        }
        Ok(())
    }

    /// Adds a group that was just committed to the tail, where it is the next one; else it comes with those before
    /// it, when somebody asks.
    fn extend_tail(&self, frames: &[FrameRecord], committed_at: Timestamp, group: u64) {
        let series = readable(&self.series);
        let mut tail = writable(&self.tail);
        if !tail.advance(group, committed_at) {
            return;
        }
        for record in frames {
            for fact in &record.facts {
                if let Some(number) = series.number(&fact.series()) {
                    tail.add(number, fact, committed_at, group);
                }
            }
            tail.add_frame(record.frame.device, record.frame.received_at.as_millis(), group);
        }
        tail.remark();
    }

    /// Decodes journal rows with numbers in `after + 1 ..= up_to`.
    pub(super) fn decode_groups(
        &self,
        session: &B::Session,
        after: u64,
        up_to: u64,
        limit: usize,
        with_bytes: bool,
    ) -> Result<Vec<DecodedGroup>, StoreError> {
        let rows: Vec<(u64, i64, Vec<u8>)> = session
            .rows(
                "SELECT number, committed_at, sealed FROM journal
                 WHERE number > ?1 AND number <= ?2 ORDER BY number LIMIT ?3",
                &values![after, up_to, limit],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .map_err(read("reading the journal"))?;
        if B::SHARED && !rows.is_empty() {
            // Series were committed with the groups that name them, so now all of them can be seen.
            self.refresh_series(session)?;
        }
        let mut groups = Vec::with_capacity(rows.len());
        for (number, committed_at, sealed) in rows {
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
        let session = self.reader("reading groups")?;
        // In one process a group is shown only once its append is about to return: consumers never run ahead of the
        // tail. Where several write, every query catches up by itself.
        let last = if B::SHARED { u64::MAX } else { self.last_group.load(Ordering::Acquire) };
        let groups = self.decode_groups(&session, after, last, limit, false)?;
        groups
            .into_iter()
            .map(|group| {
                let frames = group.frames.into_iter().map(|row| {
                    let items = row.quarantined.iter().map(|id| self.find_quarantined(&*session, *id));
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
        let rows: Vec<(u64, i64, Vec<u8>)> = self
            .reader(doing)?
            .rows(
                "SELECT number, committed_at, sealed FROM group_summary
                 WHERE number < ?1 ORDER BY number DESC LIMIT ?2",
                &values![before.unwrap_or(u64::MAX), limit],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .map_err(read(doing))?;
        let open = |(group, committed_at, sealed): (u64, i64, Vec<u8>)| {
            let sources = self.open_summary(group, committed_at, &sealed)?;
            Ok(GroupSummary { group, committed_at: Timestamp::from_micros(committed_at), sources })
        };
        rows.into_iter().map(open).collect()
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

    /// What the leaf of a group's record is computed from. Records that were kept before there was a tree have no leaf
    /// beside them; theirs is computed here.
    pub(super) fn group_entry(
        &self,
        group: u64,
        committed_at: i64,
        leaf: Option<[u8; 32]>,
        sealed: &[u8],
    ) -> Result<LogEntry, StoreError> {
        let what = || format!("summary of group {group}");
        let plain = self.keys.open_sealed(summary_place(&group_key(group, committed_at)), sealed, &what)?;
        let (blinding, payload) = split_summary(&plain).map_err(|malformed| malformed.of(what()))?;
        let header = group_key(group, committed_at);
        let leaf = leaf.unwrap_or_else(|| trust::audit::leaf(&header, &blinding, payload));
        let content = Some((blinding, payload.to_vec()));
        Ok(LogEntry { sequence: group, header: header.to_vec(), content, leaf })
    }
}

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

/// The summary as it is sealed, with its leaf. Blinded, for the hash of a short frame can be guessed.
fn encode_summary(group: u64, committed_at: i64, sources: &Sources) -> (Vec<u8>, [u8; 32]) {
    let blinding = trust::audit::new_blinding();
    let mut writer = Writer::with_capacity(34 + sources.len() * 54);
    writer.u8(SUMMARY_FORMAT);
    writer.fixed(&blinding);
    writer.unsigned(sources.len() as u64);
    for (device, frames, facts, quarantined, hash) in sources {
        writer.fixed(&device.to_bytes());
        writer.unsigned(u64::from(*frames));
        writer.unsigned(u64::from(*facts));
        writer.unsigned(u64::from(*quarantined));
        writer.fixed(hash);
    }
    let plain = writer.finish();
    let leaf = trust::audit::leaf(&group_key(group, committed_at), &blinding, &plain[1 + blinding.len()..]);
    (plain, leaf)
}

/// The blinding and what it blinds.
fn split_summary(plain: &[u8]) -> Result<([u8; 32], &[u8]), Malformed> {
    match plain.split_first() {
        Some((&SUMMARY_UNBLINDED, payload)) => Ok((NO_BLINDING, payload)),
        Some((&SUMMARY_FORMAT, rest)) => {
            let (blinding, payload) = rest.split_first_chunk::<32>().ok_or(Malformed("it ends too early"))?;
            Ok((*blinding, payload))
        }
        _ => Err(Malformed("its format is unknown to this release")),
    }
}

fn decode_summary(bytes: &[u8]) -> Result<Sources, Malformed> {
    let mut reader = Reader::new(split_summary(bytes)?.1);
    let count = reader.count()?;
    let mut sources = Vec::with_capacity(count);
    for _ in 0..count {
        let device = DeviceId::from_bytes(reader.array()?);
        sources.push((device, reader.u32()?, reader.u32()?, reader.u32()?, reader.array()?));
    }
    reader.finish()?;
    Ok(sources)
}
