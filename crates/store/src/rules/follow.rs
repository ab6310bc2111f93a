//! Following what other processes commit to the same database, and the journal when the store opens.

use std::sync::atomic::Ordering;

use super::SqlStore;
use crate::StoreError;
use crate::sql::{Backend, DbError, Fault, Session, lock, read, readable, values, writable};

/// Journal rows that are decoded at once.
const REBUILD_GROUPS: usize = 256;

impl<B: Backend> SqlStore<B> {
    /// How far groups are committed, and how far they are folded, by anybody.
    pub(super) fn counters(&self, session: &B::Session) -> Result<(u64, u64), StoreError> {
        let found = session
            .row(
                "SELECT (SELECT value FROM counter WHERE name = 'group'),
                        (SELECT value FROM counter WHERE name = 'folded')",
                &[],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(read("asking how far groups are committed"))?;
        Ok(found.unwrap_or_default())
    }

    /// Brings the tail up to what anybody has committed before this call, so that a query sees all of it. What was
    /// folded is forgotten: it stands in blocks that every later statement sees.
    pub(super) fn catch_up(&self, session: &B::Session) -> Result<(), StoreError> {
        if !B::SHARED {
            return Ok(());
        }
        let known = readable(&self.tail).seen();
        let (last, folded) = self.counters(session)?;
        if last < known {
            return Err(self.went_back(last + 1));
        }
        self.last_group.fetch_max(last, Ordering::AcqRel);
        if readable(&self.tail).seen() < last {
            let _one_at_a_time = lock(&self.following);
            self.follow(session, folded, last)?;
        }
        if readable(&self.tail).forgotten() < folded {
            writable(&self.tail).forget_up_to(folded);
        }
        Ok(())
    }

    /// Reads journal rows into the tail up to a group. Rows that are missing were folded a moment ago.
    pub(super) fn follow(&self, session: &B::Session, folded: u64, last: u64) -> Result<(), StoreError> {
        loop {
            let after = readable(&self.tail).seen().max(folded);
            if after >= last {
                return Ok(());
            }
            let groups = self.decode_groups(session, after, last, REBUILD_GROUPS, false)?;
            let mut tail = writable(&self.tail);
            for group in &groups {
                if group.number <= tail.seen() {
                    continue;
                }
                for row in &group.frames {
                    for (series, fact) in &row.facts {
                        tail.add(*series, fact, group.committed_at, group.number);
                    }
                    tail.add_frame(row.frame.device, row.frame.received_at.as_millis(), group.number);
                }
                tail.saw(group.number, group.committed_at);
            }
            if groups.len() < REBUILD_GROUPS {
                tail.reached(last);
            }
            tail.remark();
        }
    }

    /// Proves that the database that was connected anew has the history that we remember. A standby that took over
    /// may lack what was acknowledged last, and give its numbers to something else.
    pub(super) fn check_history(&self, session: &B::Session) -> Result<(), StoreError> {
        const DOING: &str = "comparing the database with what is remembered of it";
        let seen = readable(&self.tail).last_seen();
        if let Some((group, at)) = seen {
            let found: Option<i64> = session
                .row("SELECT committed_at FROM group_summary WHERE number = ?1", &values![group], |row| {
                    row.get(0)
                })
                .map_err(read(DOING))?;
            if found != Some(at) {
                return Err(self.went_back(group));
            }
        }
        let (number, last) = {
            let known = readable(&self.series);
            let number = u32::try_from(known.len()).unwrap_or(u32::MAX);
            (number, known.key(number))
        };
        let Some(last) = last else { return Ok(()) };
        let found: Option<([u8; 16], u16, [u8; 16])> = session
            .row("SELECT subject, measure, device FROM series WHERE number = ?1", &values![number], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .map_err(read(DOING))?;
        let device = clinical_model::RecordId::to_bytes(last.device);
        if found == Some((last.subject.id_bytes(), last.measure.number, device)) {
            return Ok(());
        }
        Err(self.went_back(readable(&self.tail).seen() + 1))
    }

    /// What was acknowledged is gone. What is remembered of it must not be mixed with what the database says now, so
    /// this process writes nothing more, and starts anew.
    pub(super) fn went_back(&self, group: u64) -> StoreError {
        let words = format!("the database no longer has group {group} as it was acknowledged: it went back");
        self.wrote("following the database")(DbError::new(Fault::Storage, words))
    }
}
