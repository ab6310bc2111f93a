//! Group commit of audit rows: acts that happen at the same time share one transaction, and each still waits until
//! its own row is on stable storage.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use clinical_model::Timestamp;
use store::{AuditRecord, Store, TransactError, Transaction};

/// Whether the rows of one transaction were kept; empty until it ended.
type Round = Arc<OnceLock<bool>>;

/// Rows that wait while a transaction is under way. There are as many as threads that act at once, a few each.
#[derive(Default)]
struct Collecting {
    records: Vec<AuditRecord>,
    round: Round,
    is_writing: bool,
}

/// Where acts meet.
#[derive(Default)]
pub(crate) struct AuditGroup {
    collecting: Mutex<Collecting>,
    ended: Condvar,
}

/// Ends a round whatever happens, so that nobody waits for ever.
struct Ending<'a> {
    group: &'a AuditGroup,
    round: Round,
    is_kept: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut collecting = self.group.lock();
        collecting.is_writing = false;
        // Nobody else sets the outcome of this round.
        let _ = self.round.set(self.is_kept);
        drop(collecting);
        self.group.ended.notify_all();
    }
}

impl AuditGroup {
    fn lock(&self) -> MutexGuard<'_, Collecting> {
        self.collecting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes rows, together with those of others; returns when they are on stable storage.
    ///
    /// # Errors
    /// [`TransactError`] when they could not be written.
    pub(crate) fn write(
        &self,
        store: &dyn Store,
        at: Timestamp,
        records: Vec<AuditRecord>,
    ) -> Result<(), TransactError> {
        #[cfg(feature = "bench-off")]
        if trust::bench_off::is_off(trust::bench_off::Part::Audit) {
            return Ok(());
        }
        let mut collecting = self.lock();
        collecting.records.extend(records.iter().cloned());
        let round = Arc::clone(&collecting.round);
        // While a transaction is under way, later ones wait for the next; the first of them writes for all.
        while collecting.is_writing && round.get().is_none() {
            collecting = self.ended.wait(collecting).unwrap_or_else(PoisonError::into_inner);
        }
        match round.get() {
            Some(true) => return Ok(()),
            // Somebody else's row may have been the trouble, and the error is theirs: try alone.
            Some(false) => {
                drop(collecting);
                return store.transact(&Transaction { at, audit: records, ..Transaction::default() });
            }
            None => {}
        }
        let audit = std::mem::take(&mut collecting.records);
        collecting.round = Round::default();
        collecting.is_writing = true;
        drop(collecting);
        let mut ending = Ending { group: self, round, is_kept: false };
        store.transact(&Transaction { at, audit, ..Transaction::default() })?;
        ending.is_kept = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use store::sqlite::{Options, SqliteStore};
    use store::{Actor, AuditAction, AuditOutcome, AuditQuery};
    use trust::Kek;

    use super::*;
    use crate::audited::Act;

    #[test]
    fn every_act_at_one_time_has_its_row_when_it_returns() {
        let directory = tempfile::tempdir().unwrap();
        let store =
            SqliteStore::open(directory.path(), Kek::from_bytes(&[7; 32]), Options::default()).unwrap();
        let group = AuditGroup::default();
        let at = Timestamp::from_seconds(1_795_336_200);
        let everything = AuditQuery { limit: 1_000, ..AuditQuery::default() };
        std::thread::scope(|threads| {
            for thread in 0..16 {
                let (store, group, everything) = (&store, &group, &everything);
                threads.spawn(move || {
                    for act in 0..20 {
                        let detail = format!("{thread} {act}");
                        let record = Act::new(Actor::System, AuditAction::Read, "test")
                            .detail(detail.clone())
                            .record(at, AuditOutcome::Success);
                        group.write(store, at, vec![record]).unwrap();
                        let rows = store.audit_rows(everything).unwrap();
                        assert!(rows.iter().any(|row| row.record.detail == detail), "{detail}");
                    }
                });
            }
        });
        let rows = store.audit_rows(&everything).unwrap();
        let distinct: BTreeSet<&str> = rows.iter().map(|row| row.record.detail.as_str()).collect();
        assert_eq!((rows.len(), distinct.len()), (320, 320));
    }
}
