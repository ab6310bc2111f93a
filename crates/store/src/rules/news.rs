//! News of what was committed: a bell for those who wait, and the numbered list of changes of documents.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::SqlStore;
use super::documents::kind_from_number;
use crate::sql::{Backend, DbError, Session, Value, lock, read, values};
use crate::words::{DocumentChange, DocumentWrite, News};
use crate::{StoreError, TransactError};

/// Changes of documents that stay listed: an hour of a large site, some 5 MB.
const CHANGES_LISTED: u64 = 100_000;
/// Every so many changes the oldest are dropped from the list.
const CHANGES_PER_CLEARING: u64 = 1_024;

/// Rings when something was committed.
pub(crate) struct Bell {
    news: Mutex<News>,
    rung: Condvar,
}

impl Bell {
    pub(crate) fn new(news: News) -> Self {
        Bell { news: Mutex::new(news), rung: Condvar::new() }
    }

    /// Says what is committed; what is not later than what was said before changes nothing.
    pub(crate) fn tell(&self, later: News) {
        let mut news = lock(&self.news);
        if later.is_later_than(*news) {
            *news = News { group: news.group.max(later.group), change: news.change.max(later.change) };
            drop(news);
            self.rung.notify_all();
        }
    }

    /// What was said last.
    pub(super) fn last(&self) -> News {
        *lock(&self.news)
    }

    /// Waits for something later than `seen`, or for `timeout`.
    pub(super) fn wait(&self, seen: News, timeout: Duration) -> News {
        let waited =
            self.rung.wait_timeout_while(lock(&self.news), timeout, |news| !news.is_later_than(seen));
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Changes that a transaction is about to list.
pub(super) struct NewChanges {
    last: u64,
    noted: Vec<DocumentChange>,
}

impl NewChanges {
    pub(super) fn after<S: Session>(session: &S) -> Result<Self, StoreError> {
        let last = session
            .one("SELECT coalesce(max(change), 0) FROM document_change", &[])
            .map_err(read("numbering changes of documents"))?;
        Ok(NewChanges { last, noted: Vec::new() })
    }

    pub(super) fn note(&mut self, write: &DocumentWrite, version: u64) {
        self.last += 1;
        let (kind, id, removed) = (write.kind, write.id, write.body.is_none());
        self.noted.push(DocumentChange { change: self.last, kind, id, version, removed });
    }

    /// Lists them, and drops the oldest now and then. Returns the last number where there is one.
    pub(super) fn write<S: Session>(self, session: &S) -> Result<Option<u64>, DbError> {
        if self.noted.is_empty() {
            return Ok(None);
        }
        let rows: Vec<_> = self
            .noted
            .iter()
            .map(|noted| {
                values![noted.change, noted.kind as u8, noted.id, noted.version, noted.removed].to_vec()
            })
            .collect();
        session.execute_each(
            "INSERT INTO document_change(change, kind, id, version, removed) VALUES(?1, ?2, ?3, ?4, ?5)",
            &rows,
        )?;
        let first = self.last - self.noted.len() as u64;
        if self.last / CHANGES_PER_CLEARING != first / CHANGES_PER_CLEARING {
            let oldest = self.last.saturating_sub(CHANGES_LISTED);
            session.execute("DELETE FROM document_change WHERE change <= ?1", &values![oldest])?;
        }
        Ok(Some(self.last))
    }
}

/// How long news of another process may be missed where nobody told us of them.
const POLL_EVERY: Duration = Duration::from_millis(500);

impl<B: Backend> SqlStore<B> {
    pub(super) fn wait(&self, seen: News, timeout: Duration) -> Result<News, StoreError> {
        if !B::SHARED {
            return Ok(self.news.wait(seen, timeout));
        }
        let until = Instant::now() + timeout;
        loop {
            let news = self.news.last();
            if news.is_later_than(seen) {
                return Ok(news);
            }
            self.news.tell(self.ask_news()?);
            let left = until.saturating_duration_since(Instant::now());
            let news = self.news.wait(seen, left.min(POLL_EVERY));
            if news.is_later_than(seen) || left.is_zero() {
                return Ok(news);
            }
        }
    }

    /// What is committed now, by anybody.
    pub(super) fn ask_news(&self) -> Result<News, StoreError> {
        let doing = "asking for news";
        let found = self
            .reader(doing)?
            .row(
                "SELECT (SELECT value FROM counter WHERE name = 'group'),
                        (SELECT coalesce(max(change), 0) FROM document_change)",
                &[],
                |row| Ok(News { group: row.get(0)?, change: row.get(1)? }),
            )
            .map_err(read(doing))?;
        Ok(found.unwrap_or_default())
    }

    pub(super) fn read_changes(&self, after: u64, limit: usize) -> Result<Vec<DocumentChange>, StoreError> {
        let doing = "listing changes of documents";
        let found: Vec<(u64, u8, [u8; 16], u64, bool)> = self
            .reader(doing)?
            .rows(
                "SELECT change, kind, id, version, removed FROM document_change WHERE change > ?1
                 ORDER BY change LIMIT ?2",
                &values![after, limit],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
            )
            .map_err(read(doing))?;
        match found.first() {
            Some((oldest, ..)) if *oldest != after + 1 => {
                return Err(StoreError::TooFarBehind { oldest: *oldest });
            }
            _ => {}
        }
        let list = |(change, number, id, version, removed)| {
            let kind = kind_from_number(number).ok_or_else(|| StoreError::Damaged {
                what: format!("change {change} of a document"),
                how: format!("this release does not know kind {number}"),
            })?;
            Ok(DocumentChange { change, kind, id, version, removed })
        };
        found.into_iter().map(list).collect()
    }

    /// Refuses a transaction whose lease was lost; where it was not, nobody takes it before the transaction ends.
    pub(super) fn check_lease(
        &self,
        transaction: &B::Session,
        lease: Option<(&'static str, [u8; 16])>,
    ) -> Result<(), TransactError> {
        let Some((lease, holder)) = lease.filter(|_| B::SHARED) else { return Ok(()) };
        let sql = format!(
            "SELECT 1 FROM lease WHERE name = ?1 AND holder = ?2 AND expires_at > {} FOR SHARE",
            B::NOW_US
        );
        let held = transaction
            .row(&sql, &values![lease, holder], |_| Ok(()))
            .map_err(self.wrote("checking a lease"))?;
        held.ok_or(TransactError::LeaseLost { lease })
    }

    pub(super) fn take_lease(
        &self,
        name: &str,
        holder: [u8; 16],
        life: Duration,
    ) -> Result<bool, StoreError> {
        if !B::SHARED {
            return Ok(true);
        }
        let sql = format!(
            "INSERT INTO lease(name, holder, expires_at) VALUES(?1, ?2, {now} + ?3)
             ON CONFLICT(name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
             WHERE lease.holder = excluded.holder OR lease.expires_at <= {now}",
            now = B::NOW_US
        );
        self.execute_alone("taking a lease", &sql, &values![name, holder, micros(life)]).map(|rows| rows == 1)
    }

    pub(super) fn give_lease(&self, name: &str, holder: [u8; 16]) -> Result<(), StoreError> {
        if !B::SHARED {
            return Ok(());
        }
        let sql = "DELETE FROM lease WHERE name = ?1 AND holder = ?2";
        self.execute_alone("giving a lease back", sql, &values![name, holder]).map(drop)
    }

    pub(super) fn keep_progress(&self, node: [u8; 16], group: u64, life: Duration) -> Result<(), StoreError> {
        if !B::SHARED {
            return Ok(());
        }
        let sql = format!(
            "INSERT INTO node(id, passed, expires_at) VALUES(?1, ?2, {now} + ?3)
             ON CONFLICT(id) DO UPDATE SET passed = excluded.passed, expires_at = excluded.expires_at",
            now = B::NOW_US
        );
        self.execute_alone("keeping the progress of a node", &sql, &values![node, group, micros(life)])
            .map(drop)
    }

    pub(super) fn forget_node(&self, node: [u8; 16]) -> Result<(), StoreError> {
        if !B::SHARED {
            return Ok(());
        }
        self.execute_alone("forgetting a node", "DELETE FROM node WHERE id = ?1", &values![node]).map(drop)
    }

    /// One statement that is a transaction of its own, and that nobody loses by repeating it.
    fn execute_alone(&self, doing: &'static str, sql: &str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        self.reader(doing)?.execute(sql, values).map_err(self.wrote(doing))
    }
}

fn micros(life: Duration) -> i64 {
    i64::try_from(life.as_micros()).unwrap_or(i64::MAX / 2)
}
