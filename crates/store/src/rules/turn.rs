//! Turning the epoch of the key-encryption key: every data key is wrapped anew, nothing else is rewritten, and the
//! key before is destroyed. Each step may be repeated after a crash.

use std::collections::HashSet;
use std::sync::Arc;

use clinical_model::{PatientId, Timestamp};
use trust::{Kek, KekRing, KeyId, SourceError};

use super::SqlStore;
use super::keys::{Domain, Keys, META_KEK, META_KEK_NEXT, Purpose, kept_fingerprint};
use crate::StoreError;
use crate::care::{KekTurn, KeyStatus};
use crate::sql::{Backend, Begin, DbError, Session, Tx, read, readable, values, writable, write};

const DOING: &str = "turning the key-encryption key over";
/// In the key store: when the epoch in force began, in microseconds since 1970 as text.
const META_KEK_SINCE: &str = "kek-since";

/// Makes the next key the current one where the keys live, and reads them again. Where only a person can, that is left
/// to them: the store goes on with the next key.
pub(super) fn promote(ring: &mut KekRing) -> Result<(), SourceError> {
    let Some(source) = ring.source() else { return Ok(()) };
    match source.promote() {
        Ok(()) => ring.reload(),
        Err(SourceError::ByHand { advice }) => {
            tracing::warn!(advice, "the earlier key-encryption key is to be destroyed by hand");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// The clock of this machine, for what no caller gives a time for.
pub(super) fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

fn set<S: Session>(session: &S, name: &str, value: &[u8]) -> Result<(), DbError> {
    session
        .execute(
            "INSERT INTO meta(name, value) VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
            &values![name, value],
        )
        .map(drop)
}

impl<B: Backend> Keys<B> {
    /// The key that wraps new data keys, inside a transaction: until it ends, no epoch ends.
    pub(super) fn wrapping(&self, transaction: &B::Session) -> Result<Arc<Kek>, StoreError> {
        self.hold_epoch(transaction, " FOR SHARE")?;
        let failed = read("reading the key store");
        let next = kept_fingerprint(transaction, META_KEK_NEXT).map_err(failed)?;
        let needed = match next {
            Some(next) => next,
            None => kept_fingerprint(transaction, META_KEK).map_err(failed)?.unwrap_or_default(),
        };
        self.held(&needed)
    }

    /// Where other processes make keys too, they wait for each other at the row that names the epoch.
    fn hold_epoch(&self, transaction: &B::Session, how: &str) -> Result<(), StoreError> {
        if !B::SHARED {
            return Ok(());
        }
        let sql = format!("SELECT 1 FROM meta WHERE name = ?1{how}");
        transaction.row(&sql, &values![META_KEK], |_| Ok(())).map(drop).map_err(write(DOING))
    }

    /// A key-encryption key by its fingerprint; looked for again where it lives.
    fn held(&self, needed: &str) -> Result<Arc<Kek>, StoreError> {
        if let Some(kek) = readable(&self.ring).find(needed) {
            return Ok(Arc::clone(kek));
        }
        let mut ring = writable(&self.ring);
        ring.reload().map_err(|source| StoreError::KeySource { doing: DOING, source })?;
        ring.find(needed).cloned().ok_or_else(|| StoreError::KekMissing { needed: needed.to_owned() })
    }

    fn begin_turn(&self) -> Result<KekTurn, StoreError> {
        let failed = |source| StoreError::KeySource { doing: DOING, source };
        let mut session = self.session(DOING)?;
        if kept_fingerprint(&*session, META_KEK_NEXT).map_err(read(DOING))?.is_none() {
            let next = {
                let mut ring = writable(&self.ring);
                let by_hand = || SourceError::ByHand {
                    advice: "this key-encryption key was given by hand; name its home in the settings"
                        .to_owned(),
                };
                let source = ring.source().ok_or_else(by_hand).map_err(failed)?;
                let next = source.make_next().map_err(failed)?;
                ring.reload().map_err(failed)?;
                next
            };
            let transaction = Tx::begin(&mut *session, Begin::Write).map_err(write(DOING))?;
            self.hold_epoch(&transaction, " FOR UPDATE")?;
            set(&*transaction, META_KEK_NEXT, next.fingerprint_text().as_bytes()).map_err(write(DOING))?;
            transaction.commit().map_err(write(DOING))?;
        }
        let turn = self.turn(&session)?;
        // It stands there since a moment ago.
        turn.ok_or(StoreError::EpochTurns)
    }

    fn turn(&self, session: &B::Session) -> Result<Option<KekTurn>, StoreError> {
        let failed = read(DOING);
        let Some(to) = kept_fingerprint(session, META_KEK_NEXT).map_err(failed)? else { return Ok(None) };
        let all = session.one("SELECT count(*) FROM data_key", &[]).map_err(failed)?;
        let sql = "SELECT count(*) FROM data_key WHERE substr(wrapped, 2, 8) = ?1";
        let done = session.one(sql, &values![&bytes_of(&to)]).map_err(failed)?;
        let nodes_waiting = if B::SHARED {
            let sql = format!("SELECT count(*) FROM node WHERE expires_at > {} AND keks <> ?1", B::NOW_US);
            session.one(&sql, &values![&to]).map_err(failed)?
        } else {
            0
        };
        Ok(Some(KekTurn { to, nodes_waiting, done, all }))
    }

    fn step_turn(&self, limit_keys: usize, at: Timestamp) -> Result<Option<KekTurn>, StoreError> {
        let mut session = self.session(DOING)?;
        let Some(turn) = self.turn(&session)? else { return Ok(None) };
        if turn.nodes_waiting > 0 {
            return Ok(Some(turn));
        }
        let next = self.held(&turn.to)?;
        let transaction = Tx::begin(&mut *session, Begin::Write).map_err(write(DOING))?;
        self.hold_epoch(&transaction, " FOR UPDATE")?;
        let left = self.wrap_some(&transaction, &next, limit_keys)?;
        if !left {
            set(&*transaction, META_KEK, turn.to.as_bytes()).map_err(write(DOING))?;
            set(&*transaction, META_KEK_SINCE, at.as_micros().to_string().as_bytes())
                .map_err(write(DOING))?;
            transaction
                .execute("DELETE FROM meta WHERE name = ?1", &values![META_KEK_NEXT])
                .map_err(write(DOING))?;
        }
        transaction.commit().map_err(write(DOING))?;
        if left {
            return self.turn(&session);
        }
        // Nothing of the wrappings before may be found in the file, and then the key before goes.
        B::scrub(&session).map_err(write(DOING))?;
        promote(&mut writable(&self.ring))
            .map_err(|source| StoreError::KeySource { doing: DOING, source })?;
        self.settle_epochs(&session).map_err(write(DOING))?;
        Ok(None)
    }

    /// Wraps some data keys anew; whether others are left.
    fn wrap_some(&self, transaction: &B::Session, next: &Kek, limit: usize) -> Result<bool, StoreError> {
        let found: Vec<(i64, Vec<u8>, String, Vec<u8>)> = transaction
            .rows(
                "SELECT number, id, domain, wrapped FROM data_key WHERE substr(wrapped, 2, 8) <> ?1
                 ORDER BY number LIMIT ?2",
                &values![&next.fingerprint(), limit],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .map_err(read(DOING))?;
        let mut rows = Vec::with_capacity(found.len());
        for (number, id, domain, wrapped) in &found {
            let damaged = |how: String| StoreError::Damaged { what: format!("data key {number}"), how };
            let id = <[u8; 16]>::try_from(&id[..]).map(KeyId).map_err(|_| damaged("its id".to_owned()))?;
            let by = self.that_wrapped(wrapped);
            let key = by.unwrap(domain, id, wrapped).map_err(|error| damaged(error.to_string()))?;
            rows.push((*number, next.wrap(domain, id, &key)));
        }
        let rows: Vec<_> = rows.iter().map(|(number, wrapped)| values![*number, wrapped].to_vec()).collect();
        transaction
            .execute_each("UPDATE data_key SET wrapped = ?2 WHERE number = ?1", &rows)
            .map_err(write(DOING))?;
        Ok(found.len() >= limit)
    }

    /// Notes which erasures have seen the end of their epoch: its key is no longer to be had.
    pub(super) fn settle_epochs(&self, session: &B::Session) -> Result<(), DbError> {
        let waiting: Vec<String> =
            session.rows("SELECT DISTINCT epoch FROM erasure WHERE epoch_ended_at IS NULL", &[], |row| {
                row.get(0)
            })?;
        let ring = readable(&self.ring);
        for epoch in waiting.iter().filter(|epoch| ring.find(epoch).is_none()) {
            session.execute(
                "UPDATE erasure SET epoch_ended_at = ?2 WHERE epoch = ?1 AND epoch_ended_at IS NULL",
                &values![epoch, now().as_micros()],
            )?;
        }
        Ok(())
    }

    /// Reads who was erased, and forgets the keys of those whom another process erased.
    pub(super) fn recall_erased(&self, session: &B::Session) -> Result<(), DbError> {
        let count: usize = session.one::<u64>("SELECT count(*) FROM erasure", &[])? as usize;
        if count == readable(&self.erased).len() {
            return Ok(());
        }
        let erased: HashSet<PatientId> = session
            .rows("SELECT patient FROM erasure", &[], |row| row.get(0).map(PatientId::from_bytes))?
            .into_iter()
            .collect();
        writable(&self.sealing)
            .retain(|domain, _| !matches!(domain, Domain::Patient(p) if erased.contains(p)));
        // Which of them are whose is not remembered; the others are unwrapped again when they are needed.
        writable(&self.by_id).clear();
        *writable(&self.erased) = erased;
        Ok(())
    }

    /// Takes note of what another process did to the epoch, and says which next key is here.
    fn follow(&self, node: [u8; 16]) -> Result<(), StoreError> {
        if !B::SHARED {
            return Ok(());
        }
        let session = self.session(DOING)?;
        self.recall_erased(&session).map_err(read(DOING))?;
        let next = kept_fingerprint(&*session, META_KEK_NEXT).map_err(read(DOING))?;
        let kept = kept_fingerprint(&*session, META_KEK).map_err(read(DOING))?.unwrap_or_default();
        if let Some(next) = next {
            // A key that has not come yet is asked for again with the next beat.
            if let Ok(key) = self.held(&next) {
                let source = readable(&self.ring).source().cloned();
                if let Err(error) = source.map_or(Ok(()), |source| source.take_along(&key)) {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the turn of the key-encryption key waits for this node; it is tried again"
                    );
                    return Ok(());
                }
                let sql = "UPDATE node SET keks = ?2 WHERE id = ?1 AND keks <> ?2";
                session.execute(sql, &values![node, &next]).map_err(write(DOING))?;
            }
            return Ok(());
        }
        let is_next = readable(&self.ring).next().is_some_and(|kek| kek.fingerprint_text() == kept);
        if is_next {
            promote(&mut writable(&self.ring))
                .map_err(|source| StoreError::KeySource { doing: DOING, source })?;
            self.settle_epochs(&session).map_err(write(DOING))?;
        }
        Ok(())
    }

    fn status(&self) -> Result<KeyStatus, StoreError> {
        let failed = read("reading the key store");
        let session = self.session("reading the key store")?;
        let since = kept_fingerprint(&*session, META_KEK_SINCE).map_err(failed)?;
        let count = |condition: &str, domain: &str| {
            let sql = format!("SELECT count(*) FROM data_key WHERE domain {condition} ?1");
            session.one::<u64>(&sql, &values![domain]).map_err(failed)
        };
        let journal = Domain::System(Purpose::Journal).text();
        let all: u64 = session.one("SELECT count(*) FROM data_key", &[]).map_err(failed)?;
        let (patient_keys, journal_keys) = (count("LIKE", "patient/%")?, count("=", &journal)?);
        Ok(KeyStatus {
            epoch: kept_fingerprint(&*session, META_KEK).map_err(failed)?.unwrap_or_default(),
            epoch_since: since.and_then(|text| text.parse().ok()).map(Timestamp::from_micros),
            turn: self.turn(&session)?,
            patient_keys,
            system_keys: all.saturating_sub(patient_keys + journal_keys),
            journal_keys,
            rekeys: super::rekey::list(&*session)?,
        })
    }
}

/// A fingerprint's bytes, as they stand in a wrapped key.
fn bytes_of(fingerprint: &str) -> Vec<u8> {
    let digit = |at: usize| fingerprint.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    (0..fingerprint.len()).step_by(2).filter_map(digit).collect()
}

impl<B: Backend> SqlStore<B> {
    pub(super) fn key_state(&self) -> Result<KeyStatus, StoreError> {
        self.keys.status()
    }

    pub(super) fn begin_kek_epoch(&self) -> Result<KekTurn, StoreError> {
        self.keys.begin_turn()
    }

    pub(super) fn step_epoch(&self, limit: usize, now: Timestamp) -> Result<Option<KekTurn>, StoreError> {
        self.still_durable(DOING)?;
        self.keys.step_turn(limit.max(1), now)
    }

    pub(super) fn follow_epoch(&self, node: [u8; 16]) -> Result<(), StoreError> {
        self.keys.follow(node)
    }
}
