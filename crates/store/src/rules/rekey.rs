//! Turning the key of one patient over: a new version for what is written from now on, what earlier versions sealed
//! sealed anew in bounded steps, and the earlier versions destroyed once a whole pass finds nothing of them.

use std::time::Duration;

use clinical_model::{PatientId, Subject, Timestamp};

use super::SqlStore;
use super::keys::Domain;
use super::sealed::{Place, place_of};
use super::tables::Table;
use crate::StoreError;
use crate::care::Rekey;
use crate::sql::{
    Backend, Begin, Owned, Row, Session, Tx, Value, lock, read, readable, values, writable, write,
};

const DOING: &str = "turning a patient's key over";
/// Where other processes seal too, they have seen the new key after so long at the latest: they look every minute.
const SEEN_AFTER: Duration = Duration::from_secs(300);
/// The tables that hold rows of patients. A document moves into its history as it is, so that the history comes last.
const TABLES: [&str; 8] =
    ["latest", "block", "wave_block", "event", "frame_block", "audit", "document", "document_history"];

/// How far a pass over the tables has come.
pub(super) struct Pass {
    domain: String,
    began_at: Timestamp,
    table: usize,
    found: u64,
}

/// A sealed row with what tells it from others.
pub(super) struct Found {
    pub(super) key: Vec<Owned>,
    pub(super) place: Place,
    pub(super) sealed: Vec<u8>,
}

impl Found {
    /// From the columns of its table, those of the key first.
    fn of(table: &Table, row: &Row<'_>) -> Result<Self, crate::sql::DbError> {
        let key = (0..table.key.len()).map(|at| row.0.column(at).map(Owned::of)).collect::<Result<_, _>>()?;
        Ok(Found { key, place: place_of(table.name, row)?, sealed: row.get(table.width() - 1)? })
    }
}

/// The condition that finds a row by its key, with placeholders from `first` on.
pub(super) fn by_key(table: &Table, first: usize) -> String {
    let each = table.key.iter().zip(first..).map(|(column, at)| format!("{column} = ?{at}"));
    each.collect::<Vec<_>>().join(" AND ")
}

/// The turns that are under way, oldest first.
pub(super) fn list<S: Session>(session: &S) -> Result<Vec<Rekey>, StoreError> {
    session
        .rows("SELECT domain, begun_at, done, total FROM rekey ORDER BY begun_at, domain", &[], |row| {
            let domain: String = row.get(0)?;
            let patient = domain.strip_prefix("patient/").and_then(|id| id.parse().ok());
            let begun_at = Timestamp::from_micros(row.get(1)?);
            Ok(Rekey { patient, domain, begun_at, done: row.get(2)?, all: row.get(3)? })
        })
        .map_err(read(DOING))
}

impl<B: Backend> SqlStore<B> {
    /// The series of a patient as a list for a statement; they are numbers, so they need no placeholders.
    pub(super) fn series_list(&self, patient: PatientId) -> String {
        let numbers = readable(&self.series).numbers_of(Subject::Patient(patient));
        if numbers.is_empty() {
            // No series has this number, and an empty list is none everywhere.
            return "0".to_owned();
        }
        numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Where rows of a patient can stand in a table.
    fn where_of(&self, table: &str, patient: PatientId) -> String {
        let series = || self.series_list(patient);
        match table {
            "latest" | "block" | "wave_block" | "event" => format!("series IN ({})", series()),
            _ => "1 = 1".to_owned(),
        }
    }

    pub(super) fn begin_turn_of(&self, patient: PatientId, now: Timestamp) -> Result<Rekey, StoreError> {
        let domain = Domain::Patient(patient);
        self.keys.not_erased(domain)?;
        if let Some(under_way) = self.turn_of(&domain.text())? {
            return Ok(under_way);
        }
        {
            // Whoever sealed with the key before has committed when these are ours.
            let _nobody_folds = lock(&self.folding);
            let _nobody_commits = self.writer(DOING)?;
            let _nobody_acts = self.acts.as_ref().map(lock);
            let mut session = self.keys.session(DOING)?;
            let named = self.keys.create(&mut session, domain, now)?;
            session
                .execute(
                    "INSERT INTO rekey(domain, begun_at, newest, done, total)
                     SELECT ?1, ?2, number, 0, 0 FROM data_key WHERE id = ?3",
                    &values![&domain.text(), now.as_micros(), named.id.0],
                )
                .map_err(write(DOING))?;
            writable(&self.keys.sealing).insert(domain, named);
        }
        let old = self.old_keys(&domain.text())?;
        let session = self.reader(DOING)?;
        let mut all = 0_u64;
        for table in TABLES {
            let (condition, bound) = sealed_by(&old, 0);
            let place = self.where_of(table, patient);
            let sql = format!("SELECT count(*) FROM {table} WHERE {place} AND {condition}");
            all += session.one::<u64>(&sql, &bound).map_err(read(DOING))?;
        }
        drop(session);
        self.keys
            .session(DOING)?
            .execute("UPDATE rekey SET total = ?2 WHERE domain = ?1", &values![&domain.text(), all])
            .map_err(write(DOING))?;
        Ok(Rekey { patient: Some(patient), domain: domain.text(), begun_at: now, done: 0, all })
    }

    fn turn_of(&self, domain: &str) -> Result<Option<Rekey>, StoreError> {
        Ok(list(&*self.keys.session(DOING)?)?.into_iter().find(|turn| turn.domain == domain))
    }

    /// The names of the keys of a domain before the newest.
    fn old_keys(&self, domain: &str) -> Result<Vec<[u8; 16]>, StoreError> {
        self.keys
            .session(DOING)?
            .rows(
                "SELECT id FROM data_key WHERE domain = ?1
                 AND number < (SELECT newest FROM rekey WHERE domain = ?1) ORDER BY number",
                &values![domain],
                |row| row.get(0),
            )
            .map_err(read(DOING))
    }

    pub(super) fn step_turn_of(&self, limit: usize, now: Timestamp) -> Result<Option<Rekey>, StoreError> {
        let Some(turn) = list(&*self.keys.session(DOING)?)?.into_iter().next() else { return Ok(None) };
        let Some(patient) = turn.patient else { return Ok(None) };
        // Only a fold rewrites blocks, and none does meanwhile.
        let mut folding = lock(&self.folding);
        self.make_ready(&mut folding, DOING)?;
        if !B::claim_fold(&folding).map_err(read(DOING))? {
            return Ok(Some(turn));
        }
        let outcome = self.step_claimed(&folding, patient, &turn, limit.max(1), now);
        B::release_fold(&folding);
        outcome?;
        self.turn_of(&turn.domain).map(|after| Some(after.unwrap_or(Rekey { done: turn.all, ..turn })))
    }

    fn step_claimed(
        &self,
        session: &B::Session,
        patient: PatientId,
        turn: &Rekey,
        limit: usize,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let old = self.old_keys(&turn.domain)?;
        let mut pass = lock(&self.rekeying);
        let fresh = || Pass { domain: turn.domain.clone(), began_at: now, table: 0, found: 0 };
        if pass.as_ref().is_none_or(|pass| pass.domain != turn.domain) {
            *pass = Some(fresh());
        }
        let Some(going) = pass.as_mut() else { return Ok(()) };
        let mut left = limit;
        while let Some(table) = TABLES.get(going.table) {
            let rows = self.sealed_with(session, table, &self.where_of(table, patient), &old, left)?;
            let done = rows.len();
            self.seal_anew(table, rows, Domain::Patient(patient), now)?;
            going.found += done as u64;
            self.keys
                .session(DOING)?
                .execute(
                    "UPDATE rekey SET done = CASE WHEN done + ?2 > total THEN total ELSE done + ?2 END
                     WHERE domain = ?1",
                    &values![&turn.domain, done],
                )
                .map_err(write(DOING))?;
            left -= done;
            if left == 0 {
                return Ok(());
            }
            going.table += 1;
        }
        let seen = !B::SHARED || going.began_at >= turn.begun_at.plus(SEEN_AFTER);
        if going.found == 0 && seen {
            self.destroy_old(&turn.domain, &old)?;
            *pass = None;
        } else {
            *pass = Some(fresh());
        }
        Ok(())
    }

    /// Rows of a table that are sealed with one of some keys.
    pub(super) fn sealed_with(
        &self,
        session: &B::Session,
        table: &str,
        place: &str,
        keys: &[[u8; 16]],
        limit: usize,
    ) -> Result<Vec<Found>, StoreError> {
        let Some(table) = Table::named(table).filter(|_| !keys.is_empty()) else {
            return Ok(Vec::new());
        };
        let (condition, mut bound) = sealed_by(keys, 0);
        bound.push(limit.into());
        let (columns, name, at) = (table.columns(), table.name, bound.len());
        let sql = format!("SELECT {columns} FROM {name} WHERE {place} AND {condition} LIMIT ?{at}");
        session.rows(&sql, &bound, |row| Found::of(table, row)).map_err(read(DOING))
    }

    fn seal_anew(
        &self,
        table: &str,
        rows: Vec<Found>,
        domain: Domain,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(table) = Table::named(table).filter(|_| !rows.is_empty()) else { return Ok(()) };
        let key = self.keys.sealing(domain, now)?;
        let mut changes = Vec::with_capacity(rows.len());
        for found in &rows {
            let what = || format!("row {:?} of table {}", found.key, table.name);
            let plain = self.keys.open_sealed(found.place.aad(), &found.sealed, &what)?;
            changes.push(key.seal(found.place.aad(), &plain));
        }
        // Whoever was faster has sealed with the new key already.
        let sql = format!("UPDATE {} SET sealed = ?1 WHERE sealed = ?2 AND {}", table.name, by_key(table, 3));
        let rows: Vec<Vec<Value<'_>>> = rows
            .iter()
            .zip(&changes)
            .map(|(found, sealed)| {
                let mut row = values![sealed, &found.sealed].to_vec();
                row.extend(found.key.iter().map(Owned::value));
                row
            })
            .collect();
        let mut writer = self.writer(DOING)?;
        let transaction = Tx::begin(&mut *writer, Begin::Write).map_err(self.wrote(DOING))?;
        transaction.execute_each(&sql, &rows).map_err(self.wrote(DOING))?;
        transaction.commit().map_err(self.wrote(DOING))
    }

    fn destroy_old(&self, domain: &str, old: &[[u8; 16]]) -> Result<(), StoreError> {
        let mut session = self.keys.session(DOING)?;
        let transaction = Tx::begin(&mut *session, Begin::Write).map_err(write(DOING))?;
        let rows: Vec<_> = old.iter().map(|id| values![*id].to_vec()).collect();
        transaction.execute_each("DELETE FROM data_key WHERE id = ?1", &rows).map_err(write(DOING))?;
        transaction.execute("DELETE FROM rekey WHERE domain = ?1", &values![domain]).map_err(write(DOING))?;
        transaction.commit().map_err(write(DOING))?;
        B::scrub(&session).map_err(write(DOING))?;
        writable(&self.keys.by_id).retain(|id, _| !old.contains(&id.0));
        Ok(())
    }
}

/// The condition that a row is sealed with one of some keys, with placeholders after `before` others.
pub(super) fn sealed_by<'a>(keys: &[[u8; 16]], before: usize) -> (String, Vec<Value<'a>>) {
    if keys.is_empty() {
        return ("1 = 0".to_owned(), Vec::new());
    }
    let places: Vec<String> = (0..keys.len()).map(|at| format!("?{}", before + at + 1)).collect();
    let condition = format!("substr(sealed, 2, 16) IN ({})", places.join(", "));
    (condition, keys.iter().map(|key| Value::Id(*key)).collect())
}
