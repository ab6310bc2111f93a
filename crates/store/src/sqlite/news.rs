//! News of what was committed: a bell for those who wait, and the numbered list of changes of documents.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, params};

use super::SqliteStore;
use super::connection::{lock, read};
use super::documents::kind_from_number;
use crate::StoreError;
use crate::words::{DocumentChange, DocumentWrite, News};

/// Changes of documents that stay listed: an hour of a large site, some 5 MB.
const CHANGES_LISTED: u64 = 100_000;
/// Every so many changes the oldest are dropped from the list.
const CHANGES_PER_CLEARING: u64 = 1_024;

/// Rings when something was committed.
pub(super) struct Bell {
    news: Mutex<News>,
    rung: Condvar,
}

impl Bell {
    pub(super) fn new(news: News) -> Self {
        Bell { news: Mutex::new(news), rung: Condvar::new() }
    }

    pub(super) fn tell(&self, change: impl FnOnce(&mut News)) {
        change(&mut lock(&self.news));
        self.rung.notify_all();
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
    pub(super) fn after(connection: &Connection) -> Result<Self, StoreError> {
        let last: i64 = connection
            .prepare_cached("SELECT coalesce(max(change), 0) FROM document_change")
            .and_then(|mut select| select.query_row([], |row| row.get(0)))
            .map_err(read("numbering changes of documents"))?;
        Ok(NewChanges { last: last.unsigned_abs(), noted: Vec::new() })
    }

    pub(super) fn note(&mut self, write: &DocumentWrite, version: u64) {
        self.last += 1;
        let (kind, id, removed) = (write.kind, write.id, write.body.is_none());
        self.noted.push(DocumentChange { change: self.last, kind, id, version, removed });
    }

    /// Lists them, and drops the oldest now and then. Returns the last number where there is one.
    pub(super) fn write(self, connection: &Connection) -> rusqlite::Result<Option<u64>> {
        if self.noted.is_empty() {
            return Ok(None);
        }
        let mut insert = connection.prepare_cached(
            "INSERT INTO document_change(change, kind, id, version, removed) VALUES(?1, ?2, ?3, ?4, ?5)",
        )?;
        for noted in &self.noted {
            let (change, version) = (noted.change as i64, noted.version as i64);
            insert.execute(params![change, noted.kind as u8, noted.id, version, noted.removed])?;
        }
        let first = self.last - self.noted.len() as u64;
        if self.last / CHANGES_PER_CLEARING != first / CHANGES_PER_CLEARING {
            connection
                .prepare_cached("DELETE FROM document_change WHERE change <= ?1")?
                .execute([self.last.saturating_sub(CHANGES_LISTED) as i64])?;
        }
        Ok(Some(self.last))
    }
}

impl SqliteStore {
    pub(super) fn read_changes(&self, after: u64, limit: usize) -> Result<Vec<DocumentChange>, StoreError> {
        let doing = "listing changes of documents";
        let connection = self.readers.get();
        let mut select = connection
            .prepare_cached(
                "SELECT change, kind, id, version, removed FROM document_change WHERE change > ?1
                 ORDER BY change LIMIT ?2",
            )
            .map_err(read(doing))?;
        let bounds = params![after.min(i64::MAX as u64) as i64, limit.min(i64::MAX as usize) as i64];
        let rows = select
            .query_map(bounds, |row| {
                let (change, version) =
                    (row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(3)?.unsigned_abs());
                Ok((change, row.get::<_, u8>(1)?, row.get(2)?, version, row.get(4)?))
            })
            .map_err(read(doing))?;
        let mut changes: Vec<DocumentChange> = Vec::new();
        for row in rows {
            let (change, number, id, version, removed) = row.map_err(read(doing))?;
            if changes.is_empty() && change != after + 1 {
                return Err(StoreError::TooFarBehind { oldest: change });
            }
            let kind = kind_from_number(number).ok_or_else(|| StoreError::Damaged {
                what: format!("change {change} of a document"),
                how: format!("this release does not know kind {number}"),
            })?;
            changes.push(DocumentChange { change, kind, id, version, removed });
        }
        Ok(changes)
    }
}
