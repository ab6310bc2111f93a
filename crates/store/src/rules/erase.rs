//! Erasing a patient: the keys are destroyed first, so that nothing can be read any more, then the rows are removed in
//! bounded steps. A crash at any point leaves an erasure that goes on.

use clinical_model::{DeviceId, PatientId, QuarantineId, RecordId as _, Timestamp};

use super::SqlStore;
use super::fold::next_numbers;
use super::keys::{Domain, META_KEK, Purpose, kept_fingerprint};
use super::rekey::{by_key, sealed_by};
use super::tables::Table;
use super::turn::now as clock_now;
use crate::StoreError;
use crate::care::{ErasedPatient, ErasureScope, Rows};
use crate::sql::{Backend, Begin, Owned, Session, Tx, Value, lock, read, readable, values, writable, write};

const DOING: &str = "erasing a patient";
/// Where other processes hold keys, they have heard of the erasure after so long (microseconds): they look with every
/// beat, and at the latest when what they remember of a key grows old.
const HEARD_AFTER_US: i64 = 60_000_000;
/// The tables with rows of a patient, documents before their history.
const TABLES: [&str; 8] =
    ["latest", "block", "wave_block", "event", "frame_block", "document", "document_history", "audit"];

impl<B: Backend> SqlStore<B> {
    pub(super) fn begin_erasing(
        &self,
        patient: PatientId,
        now: Timestamp,
    ) -> Result<ErasedPatient, StoreError> {
        // Whoever sealed with the patient's key has committed when these are ours, and nobody does after.
        let _nobody_folds = lock(&self.folding);
        let writer = self.writer(DOING)?;
        let _nobody_acts = self.acts.as_ref().map(lock);
        let last_group = if B::SHARED {
            self.counters(&writer)?.0
        } else {
            self.last_group.load(std::sync::atomic::Ordering::Acquire)
        };
        let domain = Domain::Patient(patient);
        let mut session = self.keys.session(DOING)?;
        let transaction = Tx::begin(&mut *session, Begin::Write).map_err(write(DOING))?;
        let epoch = kept_fingerprint(&*transaction, META_KEK).map_err(write(DOING))?.unwrap_or_default();
        // One that is erased again, because an older copy was restored, is purged again, in the epoch of today.
        transaction
            .execute(
                "INSERT INTO erasure(patient, begun_at, purged_at, last_group, epoch, epoch_ended_at)
                 VALUES(?1, ?2, NULL, ?3, ?4, NULL)
                 ON CONFLICT(patient) DO UPDATE SET purged_at = NULL, last_group = excluded.last_group",
                &values![patient.to_bytes(), now.as_micros(), last_group, &epoch],
            )
            .map_err(write(DOING))?;
        transaction
            .execute(
                "INSERT INTO erased_key(id, patient) SELECT id, ?2 FROM data_key WHERE domain = ?1
                 ON CONFLICT(id) DO NOTHING",
                &values![&domain.text(), patient.to_bytes()],
            )
            .map_err(write(DOING))?;
        for table in ["data_key", "rekey"] {
            let sql = format!("DELETE FROM {table} WHERE domain = ?1");
            transaction.execute(&sql, &values![&domain.text()]).map_err(write(DOING))?;
        }
        transaction.commit().map_err(write(DOING))?;
        B::scrub(&session).map_err(write(DOING))?;
        let gone = self.erased_keys(&session, patient)?;
        writable(&self.keys.erased).insert(patient);
        writable(&self.keys.sealing).remove(&domain);
        writable(&self.keys.by_id).retain(|id, _| !gone.contains(&id.0));
        // The key of the journal rows that tell of the patient goes as soon as they are folded, not in hours.
        let journal = self.keys.create(&mut session, Domain::System(Purpose::Journal), now)?;
        writable(&self.keys.sealing).insert(Domain::System(Purpose::Journal), journal);
        let series = readable(&self.series).numbers_of(clinical_model::Subject::Patient(patient));
        writable(&self.tail).forget_series(&series);
        let found = self.erasures_in(&session)?.into_iter().find(|erased| erased.patient == patient);
        found.ok_or_else(|| StoreError::KeyGone { whose: domain.text() })
    }

    fn erased_keys(&self, session: &B::Session, patient: PatientId) -> Result<Vec<[u8; 16]>, StoreError> {
        let sql = "SELECT id FROM erased_key WHERE patient = ?1";
        session.rows(sql, &values![patient.to_bytes()], |row| row.get(0)).map_err(read(DOING))
    }

    fn erasures_in(&self, session: &B::Session) -> Result<Vec<ErasedPatient>, StoreError> {
        session
            .rows(
                "SELECT patient, begun_at, purged_at, epoch, epoch_ended_at FROM erasure ORDER BY begun_at, patient",
                &[],
                |row| {
                    let at = |at: Option<i64>| at.map(Timestamp::from_micros);
                    Ok(ErasedPatient {
                        patient: PatientId::from_bytes(row.get(0)?),
                        begun_at: Timestamp::from_micros(row.get(1)?),
                        purged_at: at(row.get(2)?),
                        epoch: row.get(3)?,
                        epoch_ended_at: at(row.get(4)?),
                    })
                },
            )
            .map_err(read(DOING))
    }

    pub(super) fn list_erasures(&self) -> Result<Vec<ErasedPatient>, StoreError> {
        self.erasures_in(&*self.keys.session(DOING)?)
    }

    /// Where a patient's rows stand in a table, with the values of the condition.
    fn rows_of(&self, table: &str, patient: PatientId, keys: &[[u8; 16]]) -> (String, Vec<Value<'static>>) {
        match table {
            "latest" | "block" | "wave_block" | "event" => {
                (format!("series IN ({})", self.series_list(patient)), Vec::new())
            }
            "frame_block" => ("patient = ?1".to_owned(), values![patient.to_bytes()].to_vec()),
            "audit" => {
                ("patient = ?1 AND length(sealed) > 0".to_owned(), values![patient.to_bytes()].to_vec())
            }
            _ => sealed_by(keys, 0),
        }
    }

    pub(super) fn count_rows_of(&self, patient: PatientId, scope: &ErasureScope) -> Result<Rows, StoreError> {
        let keys: Vec<[u8; 16]> = self
            .keys
            .session(DOING)?
            .rows(
                "SELECT id FROM data_key WHERE domain = ?1",
                &values![&Domain::Patient(patient).text()],
                |row| row.get(0),
            )
            .map_err(read(DOING))?;
        let session = self.reader(DOING)?;
        let mut rows = Rows::default();
        for table in TABLES {
            let (condition, bound) = self.rows_of(table, patient, &keys);
            let sql = format!(
                "SELECT count(*), CAST(coalesce(sum(length(sealed)), 0) AS BIGINT) FROM {table} WHERE {condition}"
            );
            let found = session.row(&sql, &bound, |row| Ok((row.get(0)?, row.get::<u64>(1)?)));
            let (count, bytes) = found.map_err(read(DOING))?.unwrap_or_default();
            add(&mut rows, table, count);
            rows.bytes += bytes;
        }
        let series = self.series_list(patient);
        for (table, first, last) in [
            ("block", "first_at", "last_at"),
            ("wave_block", "start_at", "start_at + duration_us"),
            ("event", "at", "at"),
        ] {
            let sql = format!("SELECT min({first}), max({last}) FROM {table} WHERE series IN ({series})");
            let found =
                session.row(&sql, &[], |row| Ok((row.get::<Option<i64>>(0)?, row.get::<Option<i64>>(1)?)));
            let (oldest, newest) = found.map_err(read(DOING))?.unwrap_or_default();
            let at = |at: Option<i64>| at.map(Timestamp::from_micros);
            rows.add(&Rows { oldest: at(oldest), newest: at(newest), ..Rows::default() });
        }
        rows.quarantine = self.quarantined_in(&session, scope, usize::MAX)?.len() as u64;
        Ok(rows)
    }

    pub(super) fn step_erasing(
        &self,
        patient: PatientId,
        scope: &ErasureScope,
        limit: usize,
    ) -> Result<(Rows, bool), StoreError> {
        let mut rows = Rows::default();
        let mut folding = lock(&self.folding);
        self.make_ready(&mut folding, DOING)?;
        if !B::claim_fold(&folding).map_err(read(DOING))? {
            return Ok((rows, true));
        }
        B::overwrite_deleted(&*self.writer(DOING)?, true).map_err(write(DOING))?;
        let outcome = self.purge_claimed(&folding, patient, scope, limit.max(1), &mut rows);
        B::overwrite_deleted(&*self.writer(DOING)?, false).map_err(write(DOING))?;
        B::release_fold(&folding);
        let is_full = outcome?;
        let more = is_full || self.is_in_journal(&folding, patient)?;
        drop(folding);
        if rows.quarantine > 0 {
            let count = super::quarantine::count_waiting(&*self.reader(DOING)?)?;
            lock(&self.waiting).count = count;
        }
        Ok((rows, more))
    }

    /// Whether the limit was reached.
    fn purge_claimed(
        &self,
        session: &B::Session,
        patient: PatientId,
        scope: &ErasureScope,
        limit: usize,
        rows: &mut Rows,
    ) -> Result<bool, StoreError> {
        let keys = self.erased_keys(&*self.keys.session(DOING)?, patient)?;
        for table in TABLES {
            let (condition, bound) = self.rows_of(table, patient, &keys);
            let left = limit.saturating_sub(usize::try_from(rows.total()).unwrap_or(usize::MAX));
            if left == 0 {
                return Ok(true);
            }
            let (count, bytes) = self.purge_table(session, table, &condition, bound, left)?;
            add(rows, table, count);
            rows.bytes += bytes;
        }
        let left = limit.saturating_sub(usize::try_from(rows.total()).unwrap_or(usize::MAX));
        let items = self.quarantined_in(session, scope, left)?;
        if !items.is_empty() {
            let gone: Vec<_> = items.iter().map(|id| values![id.to_bytes()].to_vec()).collect();
            let mut writer = self.writer(DOING)?;
            let transaction = Tx::begin(&mut *writer, Begin::Write).map_err(self.wrote(DOING))?;
            transaction
                .execute_each("DELETE FROM quarantine WHERE id = ?1", &gone)
                .map_err(self.wrote(DOING))?;
            transaction.commit().map_err(self.wrote(DOING))?;
            rows.quarantine += items.len() as u64;
        }
        rows.raw_frames += self.purge_frames(session, scope)?;
        Ok(rows.total() >= limit as u64)
    }

    fn purge_table(
        &self,
        session: &B::Session,
        table: &str,
        condition: &str,
        mut bound: Vec<Value<'static>>,
        limit: usize,
    ) -> Result<(u64, u64), StoreError> {
        let Some(table) = Table::named(table) else { return Ok((0, 0)) };
        bound.push(limit.into());
        let (keys, name, at) = (table.key.join(", "), table.name, bound.len());
        let sql = format!("SELECT length(sealed), {keys} FROM {name} WHERE {condition} LIMIT ?{at}");
        let found: Vec<(u64, Vec<Owned>)> = session
            .rows(&sql, &bound, |row| {
                let key = (1..=table.key.len()).map(|at| row.0.column(at).map(Owned::of));
                Ok((row.get(0)?, key.collect::<Result<_, crate::sql::DbError>>()?))
            })
            .map_err(read(DOING))?;
        if found.is_empty() {
            return Ok((0, 0));
        }
        let gone: Vec<Vec<Value<'_>>> =
            found.iter().map(|(_, key)| key.iter().map(Owned::value).collect()).collect();
        let mut writer = self.writer(DOING)?;
        let transaction = Tx::begin(&mut *writer, Begin::Write).map_err(self.wrote(DOING))?;
        let condition = by_key(table, 1);
        let sql = match name {
            // The row and its leaf stay, and with them every proof.
            "audit" => format!("UPDATE audit SET sealed = substr(sealed, 1, 0) WHERE {condition}"),
            _ => format!("DELETE FROM {name} WHERE {condition}"),
        };
        transaction.execute_each(&sql, &gone).map_err(self.wrote(DOING))?;
        if name == "document" {
            let sql = "DELETE FROM document_index WHERE kind = ?1 AND id = ?2";
            transaction.execute_each(sql, &gone).map_err(self.wrote(DOING))?;
        }
        transaction.commit().map_err(self.wrote(DOING))?;
        Ok((found.len() as u64, found.iter().map(|(bytes, _)| bytes).sum()))
    }

    /// Quarantined items that devices sent while they were the patient's.
    fn quarantined_in(
        &self,
        session: &B::Session,
        scope: &ErasureScope,
        limit: usize,
    ) -> Result<Vec<QuarantineId>, StoreError> {
        let mut found = Vec::new();
        for (_, interval) in &scope.devices {
            let end = interval.end.map_or(i64::MAX, Timestamp::as_micros);
            let rows: Vec<([u8; 16], Vec<u8>)> = session
                .rows(
                    "SELECT id, sealed FROM quarantine WHERE received_at >= ?1 AND received_at < ?2",
                    &values![interval.start.as_micros(), end],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .map_err(read(DOING))?;
            for (id, sealed) in rows {
                let id = QuarantineId::from_bytes(id);
                let item = self.open_item(id, &sealed)?;
                if found.len() < limit && scope.holds(item.device, item.received_at) && !found.contains(&id) {
                    found.push(id);
                }
            }
        }
        Ok(found)
    }

    /// Takes raw frames that nobody could read, but that a device sent while it was the patient's, out of the bundles
    /// of that device.
    fn purge_frames(&self, session: &B::Session, scope: &ErasureScope) -> Result<u64, StoreError> {
        let mut changed = 0;
        for (device, interval) in &scope.devices {
            let end = interval.end.map_or(i64::MAX, Timestamp::as_millis);
            let bundles: Vec<(i64, Vec<u8>)> = session
                .rows(
                    "SELECT number, sealed FROM frame_block
                     WHERE device = ?1 AND patient IS NULL AND first_received < ?3 AND last_received >= ?2",
                    &values![device.to_bytes(), interval.start.as_millis(), end],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .map_err(read(DOING))?;
            for (number, sealed) in bundles {
                let frames = self.open_frames(number, *device, &sealed)?;
                let keep = |at: Timestamp| !scope.holds(*device, at);
                changed += u64::from(self.cut_frames(
                    session,
                    (number, *device, None),
                    frames,
                    &keep,
                    clock_now(),
                )?);
            }
        }
        Ok(changed)
    }

    /// Writes a bundle of frames anew without those that go; whether any went. The caller holds the claim to fold.
    pub(super) fn cut_frames(
        &self,
        session: &B::Session,
        (number, device, patient): (i64, DeviceId, Option<PatientId>),
        frames: Vec<crate::words::KeptFrame>,
        keep: &dyn Fn(Timestamp) -> bool,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let all = frames.len();
        let left: Vec<_> = frames.into_iter().filter(|kept| keep(kept.frame.received_at)).collect();
        if left.len() == all {
            return Ok(false);
        }
        let mut changes = next_numbers(session)?;
        changes.gone_frames.push(number);
        let bytes = left.iter().map(|kept| kept.frame.bytes.len()).sum();
        self.write_frames(device, patient, &left, bytes, now, &mut changes)?;
        self.write_changes(&changes).map(|()| true)
    }

    /// Writes changed blocks. The caller holds the claim to fold.
    pub(super) fn write_changes(&self, changes: &super::fold::Changes) -> Result<(), StoreError> {
        let mut writer = self.writer(DOING)?;
        let transaction = Tx::begin(&mut *writer, Begin::Write).map_err(self.wrote(DOING))?;
        changes.write(&*transaction).map_err(self.wrote(DOING))?;
        transaction.commit().map_err(self.wrote(DOING))
    }

    /// Whether the journal may still tell of the patient, or another process may not have heard of the erasure.
    fn is_in_journal(&self, session: &B::Session, patient: PatientId) -> Result<bool, StoreError> {
        let found: Option<(u64, i64)> = self
            .keys
            .session(DOING)?
            .row(
                "SELECT last_group, begun_at FROM erasure WHERE patient = ?1",
                &values![patient.to_bytes()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(read(DOING))?;
        let Some((last_group, begun_at)) = found else { return Ok(false) };
        if B::SHARED && clock_now().as_micros() < begun_at.saturating_add(HEARD_AFTER_US) {
            return Ok(true);
        }
        let sql = "SELECT 1 FROM journal WHERE number <= ?1 LIMIT 1";
        let kept = session.row(sql, &values![last_group], |_| Ok(())).map_err(read(DOING))?;
        Ok(kept.is_some())
    }

    pub(super) fn end_erasing(&self, patient: PatientId, now: Timestamp) -> Result<(), StoreError> {
        {
            let writer = self.writer(DOING)?;
            // What was deleted is not left in the log or in free pages of the file either.
            B::scrub_data(&writer).map_err(write(DOING))?;
        }
        self.keys
            .session(DOING)?
            .execute(
                "UPDATE erasure SET purged_at = ?2 WHERE patient = ?1 AND purged_at IS NULL",
                &values![patient.to_bytes(), now.as_micros()],
            )
            .map(drop)
            .map_err(write(DOING))
    }

    pub(super) fn forget_earlier(&self, documents: &[(crate::Kind, [u8; 16])]) -> Result<(), StoreError> {
        let rows: Vec<_> = documents.iter().map(|(kind, id)| values![*kind as u8, *id].to_vec()).collect();
        let mut writer = self.writer(DOING)?;
        B::overwrite_deleted(&writer, true).map_err(write(DOING))?;
        let transaction = Tx::begin(&mut *writer, Begin::Write).map_err(self.wrote(DOING))?;
        transaction
            .execute_each("DELETE FROM document_history WHERE kind = ?1 AND id = ?2", &rows)
            .map_err(self.wrote(DOING))?;
        transaction.commit().map_err(self.wrote(DOING))?;
        B::overwrite_deleted(&writer, false).map_err(write(DOING))
    }
}

fn add(rows: &mut Rows, table: &str, count: u64) {
    match table {
        "latest" => rows.latest += count,
        "block" => rows.blocks += count,
        "wave_block" => rows.curves += count,
        "event" => rows.events += count,
        "frame_block" => rows.raw_frames += count,
        "audit" => rows.audit_details += count,
        _ => rows.documents += count,
    }
}
