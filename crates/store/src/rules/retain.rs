//! What is kept no longer than a class allows: counted, and removed in bounded steps. Blocks that reach beyond the
//! instant are cut.

use clinical_model::{DeviceId, PatientId, QuarantineId, QuarantineItem, RecordId as _, Timestamp};

use super::SqlStore;
use super::fold::next_numbers;
use super::fold_parts::BlockRef;
use crate::StoreError;
use crate::care::{KeptClass, Outdated, Removed};
use crate::sql::{Backend, Begin, Session, Tx, lock, read, values};

const DOING: &str = "removing what is kept no longer";

/// Table, condition on `?1` for what is older, first and last instant, and microseconds in their unit.
struct Shape {
    table: &'static str,
    older: &'static str,
    first: &'static str,
    last: &'static str,
    unit_us: i64,
    /// Whether the rows belong to series.
    by_series: bool,
}

const fn shape(class: KeptClass) -> Shape {
    let (table, older, first, last, unit_us, by_series) = match class {
        KeptClass::Waveforms => {
            ("wave_block", "start_at + duration_us <= ?1", "start_at", "start_at + duration_us", 1, true)
        }
        KeptClass::Readings => ("block", "first_at < ?1", "first_at", "last_at", 1, true),
        KeptClass::Events => ("event", "at < ?1", "at", "at", 1, true),
        KeptClass::RawFrames => {
            ("frame_block", "first_received < ?1", "first_received", "last_received", 1_000, false)
        }
        KeptClass::Quarantine => {
            ("quarantine", "waiting = 0 AND received_at < ?1", "received_at", "received_at", 1, false)
        }
        KeptClass::AuditDetails => ("audit", "length(sealed) > 0 AND at < ?1", "at", "at", 1, false),
    };
    Shape { table, older, first, last, unit_us, by_series }
}

impl<B: Backend> SqlStore<B> {
    /// The condition that a row is about a patient on hold.
    fn held_rows(&self, shape: &Shape, held: &[PatientId]) -> String {
        if shape.by_series {
            let series = held.iter().map(|patient| self.series_list(*patient)).collect::<Vec<_>>().join(", ");
            return if series.is_empty() { "1 = 0".to_owned() } else { format!("series IN ({series})") };
        }
        if held.is_empty() || shape.table == "quarantine" {
            return "1 = 0".to_owned();
        }
        // Ids are bytes of our own: no text of anybody's comes into a statement.
        let hex = |patient: &PatientId| {
            patient.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let ids: Vec<String> = held.iter().map(|patient| B::bytes_literal(&hex(patient))).collect();
        let ids = ids.join(", ");
        match shape.table {
            // What nobody could read names no patient, and may be of one on hold: it stays while any hold stands.
            "frame_block" => format!("(patient IS NULL OR patient IN ({ids}))"),
            _ => format!("(patient IS NOT NULL AND patient IN ({ids}))"),
        }
    }

    pub(super) fn count_older(
        &self,
        class: KeptClass,
        before: Timestamp,
        held: &[PatientId],
    ) -> Result<Outdated, StoreError> {
        let shape = shape(class);
        let Shape { table, older, first, last, .. } = shape;
        let held = self.held_rows(&shape, held);
        let session = self.reader(DOING)?;
        let at = before.as_micros() / shape.unit_us;
        let sql = format!(
            "SELECT count(*), CAST(coalesce(sum(length(sealed)), 0) AS BIGINT), min({first}), max({last})
             FROM {table} WHERE {older} AND NOT ({held})"
        );
        let found = session.row(&sql, &values![at], |row| {
            let instant =
                |at: Option<i64>| at.map(|at| Timestamp::from_micros(at.saturating_mul(shape.unit_us)));
            let (oldest, newest) = (instant(row.get(2)?), instant(row.get(3)?));
            Ok(Outdated {
                rows: row.get(0)?,
                bytes: row.get(1)?,
                oldest,
                newest: newest.map(|newest| newest.min(before)),
                ..Outdated::default()
            })
        });
        let mut outdated = found.map_err(read(DOING))?.unwrap_or_default();
        let sql = format!("SELECT count(*) FROM {table} WHERE {older} AND {held}");
        outdated.held_rows = session.one(&sql, &values![at]).map_err(read(DOING))?;
        let patients = match table {
            "quarantine" => return Ok(outdated),
            "frame_block" | "audit" => {
                format!("SELECT count(DISTINCT patient) FROM {table} WHERE {older} AND NOT ({held})")
            }
            _ => format!(
                "SELECT count(DISTINCT subject) FROM series WHERE subject_kind = ?2 AND number IN
                 (SELECT series FROM {table} WHERE {older} AND NOT ({held}))"
            ),
        };
        let kind = clinical_model::Subject::Patient(PatientId::from_bytes([0; 16])).kind_number();
        let bound = values![at, kind];
        let bound = if shape.by_series { &bound[..] } else { &bound[..1] };
        outdated.patients = session.one(&patients, bound).map_err(read(DOING))?;
        Ok(outdated)
    }

    pub(super) fn remove_older(
        &self,
        class: KeptClass,
        before: Timestamp,
        held: &[PatientId],
        keep: &dyn Fn(&QuarantineItem) -> bool,
        limit: usize,
        now: Timestamp,
    ) -> Result<Removed, StoreError> {
        let shape = shape(class);
        let held = self.held_rows(&shape, held);
        let limit = limit.max(1);
        // Only a fold rewrites blocks, and none does meanwhile.
        let mut folding = lock(&self.folding);
        self.make_ready(&mut folding, DOING)?;
        if !B::claim_fold(&folding).map_err(read(DOING))? {
            return Ok(Removed { more: true, ..Removed::default() });
        }
        let outcome = match class {
            KeptClass::Readings => self.cut_readings(&folding, before, &held, limit, now),
            KeptClass::RawFrames => self.cut_bundles(&folding, before, &held, limit, now),
            KeptClass::Quarantine => self.remove_items(&folding, before, keep, limit),
            KeptClass::Waveforms | KeptClass::Events | KeptClass::AuditDetails => {
                self.remove_rows(&shape, before, &held, limit)
            }
        };
        B::release_fold(&folding);
        outcome
    }

    fn remove_rows(
        &self,
        shape: &Shape,
        before: Timestamp,
        held: &str,
        limit: usize,
    ) -> Result<Removed, StoreError> {
        let (table, older) = (shape.table, shape.older);
        let (key, sql) = match table {
            "wave_block" => ("number", "DELETE FROM wave_block WHERE number IN"),
            "audit" => ("sequence", "UPDATE audit SET sealed = substr(sealed, 1, 0) WHERE sequence IN"),
            _ => (
                "series, at, sequence, version",
                "DELETE FROM event WHERE (series, at, sequence, version) IN",
            ),
        };
        let some =
            format!("(SELECT {key} FROM {table} WHERE {older} AND NOT ({held}) ORDER BY {key} LIMIT ?2)");
        let bytes = format!(
            "SELECT CAST(coalesce(sum(length(sealed)), 0) AS BIGINT) FROM {table} WHERE {} IN {some}",
            if key.contains(',') { format!("({key})") } else { key.to_owned() }
        );
        let bound = values![before.as_micros(), limit];
        let mut writer = self.writer(DOING)?;
        let transaction = Tx::begin(&mut *writer, Begin::Write).map_err(self.wrote(DOING))?;
        let bytes = transaction.one(&bytes, &bound).map_err(self.wrote(DOING))?;
        let rows = transaction.execute(&format!("{sql} {some}"), &bound).map_err(self.wrote(DOING))?;
        transaction.commit().map_err(self.wrote(DOING))?;
        Ok(Removed { rows, bytes, more: rows >= limit as u64 })
    }

    fn cut_readings(
        &self,
        session: &B::Session,
        before: Timestamp,
        held: &str,
        limit: usize,
        now: Timestamp,
    ) -> Result<Removed, StoreError> {
        let sql = format!(
            "SELECT number, series, first_at, first_sequence, last_at, count, sealed FROM block
             WHERE first_at < ?1 AND NOT ({held}) ORDER BY number LIMIT ?2"
        );
        let at = before.as_micros();
        let found = session.rows(&sql, &values![at, limit], BlockRef::from_row).map_err(read(DOING))?;
        let mut removed = Removed { rows: found.len() as u64, bytes: 0, more: found.len() >= limit };
        let mut changes = next_numbers(session)?;
        for block in found {
            removed.bytes += block.sealed.len() as u64;
            changes.gone_blocks.push(block.number);
            if block.last_at >= at {
                let mut rows = self.open_block(&block)?;
                rows.retain(|row| row.measured_us >= at);
                self.write_block(block.series, &rows, now, &mut changes)?;
                removed.bytes -=
                    changes.blocks.last().map_or(0, |block| block.sealed.len() as u64).min(removed.bytes);
            }
        }
        self.write_changes(&changes)?;
        if !removed.more {
            let sql = format!("DELETE FROM latest WHERE measured_at < ?1 AND NOT ({held})");
            self.writer(DOING)?.execute(&sql, &values![at]).map_err(self.wrote(DOING))?;
        }
        Ok(removed)
    }

    fn cut_bundles(
        &self,
        session: &B::Session,
        before: Timestamp,
        held: &str,
        limit: usize,
        now: Timestamp,
    ) -> Result<Removed, StoreError> {
        let sql = format!(
            "SELECT number, device, patient, last_received, sealed FROM frame_block
             WHERE first_received < ?1 AND NOT ({held}) ORDER BY number LIMIT ?2"
        );
        let at = before.as_millis();
        type Bundle = (i64, DeviceId, Option<PatientId>, i64, Vec<u8>);
        let found: Vec<Bundle> = session
            .rows(&sql, &values![at, limit], |row| {
                let patient = row.get::<Option<[u8; 16]>>(2)?.map(PatientId::from_bytes);
                Ok((row.get(0)?, DeviceId::from_bytes(row.get(1)?), patient, row.get(3)?, row.get(4)?))
            })
            .map_err(read(DOING))?;
        let mut removed = Removed { rows: found.len() as u64, bytes: 0, more: found.len() >= limit };
        for (number, device, patient, last, sealed) in found {
            removed.bytes += sealed.len() as u64;
            if last < at {
                let sql = "DELETE FROM frame_block WHERE number = ?1";
                self.writer(DOING)?.execute(sql, &values![number]).map_err(self.wrote(DOING))?;
                continue;
            }
            let frames = self.open_frames(number, device, &sealed)?;
            self.cut_frames(session, (number, device, patient), frames, &|received| received >= before, now)?;
        }
        Ok(removed)
    }

    fn remove_items(
        &self,
        session: &B::Session,
        before: Timestamp,
        keep: &dyn Fn(&QuarantineItem) -> bool,
        limit: usize,
    ) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        let mut after = (i64::MIN, Vec::new());
        loop {
            let found: Vec<(i64, [u8; 16], Vec<u8>)> = session
                .rows(
                    "SELECT received_at, id, sealed FROM quarantine WHERE waiting = 0 AND received_at < ?1
                     AND (received_at, id) > (?2, ?3) ORDER BY received_at, id LIMIT ?4",
                    &values![before.as_micros(), after.0, &after.1, limit],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .map_err(read(DOING))?;
            let Some((at, id, _)) = found.last() else { return Ok(removed) };
            after = (*at, id.to_vec());
            let mut gone = Vec::new();
            for (_, id, sealed) in &found {
                if !keep(&self.open_item(QuarantineId::from_bytes(*id), sealed)?) {
                    removed.bytes += sealed.len() as u64;
                    gone.push(values![*id].to_vec());
                }
            }
            if gone.is_empty() {
                continue;
            }
            removed.rows += gone.len() as u64;
            removed.more = true;
            let mut writer = self.writer(DOING)?;
            let transaction = Tx::begin(&mut *writer, Begin::Write).map_err(self.wrote(DOING))?;
            let sql = "DELETE FROM quarantine WHERE id = ?1 AND waiting = 0";
            transaction.execute_each(sql, &gone).map_err(self.wrote(DOING))?;
            transaction.commit().map_err(self.wrote(DOING))?;
            return Ok(removed);
        }
    }
}
