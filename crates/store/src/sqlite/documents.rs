//! Documents with versions and index rows, and the transaction that writes them together with audit rows and a cursor.

use std::collections::HashSet;

use clinical_model::Timestamp;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params, params_from_iter};
use trust::Aad;

use super::SqliteStore;
use super::bytes::{pack, unpack};
use super::connection::{lock, read};
use super::keys::Domain;
use super::news::NewChanges;
use super::quarantine::CountChange;
use crate::words::{Document, DocumentQuery, DocumentWrite, Expected, IndexEntry, Kind, Order, Transaction};
use crate::{StoreError, TransactError};

const DOING: &str = "writing documents";
/// Documents are small and read often.
const ZSTD_LEVEL: i32 = 1;

/// What binds a version of a document to its row; the same in the history, so that it moves there as it is.
pub(super) fn row_key((kind, id, version, updated_at): VersionOf) -> Vec<u8> {
    let mut key = vec![kind as u8];
    key.extend_from_slice(&id);
    key.extend_from_slice(&version.to_be_bytes());
    key.extend_from_slice(&updated_at.as_micros().to_be_bytes());
    key
}

/// Kind, id, version, and when it was written.
pub(super) type VersionOf = (Kind, [u8; 16], u64, Timestamp);

pub(super) fn place(row_key: &[u8]) -> Aad<'_> {
    Aad { table: "document", row: row_key, column: "body" }
}

/// Sessions, remembered outcomes and intents are fleeting: their earlier versions tell nothing and would outgrow the rest.
const fn keeps_history(kind: Kind) -> bool {
    !matches!(kind, Kind::Session | Kind::IdempotentRequest | Kind::PendingTransaction)
}

pub(super) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Patient => "patient",
        Kind::Device => "device",
        Kind::Place => "place",
        Kind::Assignment => "assignment",
        Kind::Alert => "alert",
        Kind::AlertLimits => "alert limits",
        Kind::User => "user",
        Kind::Session => "session",
        Kind::IdempotentRequest => "idempotent request",
        Kind::Setting => "setting",
        Kind::Correction => "correction",
        Kind::ResourceIdentifier => "resource identifier",
        Kind::PendingTransaction => "pending transaction",
    }
}

pub(super) fn kind_from_number(number: u8) -> Option<Kind> {
    const KINDS: [Kind; 13] = [
        Kind::Patient,
        Kind::Device,
        Kind::Place,
        Kind::Assignment,
        Kind::Alert,
        Kind::AlertLimits,
        Kind::User,
        Kind::Session,
        Kind::IdempotentRequest,
        Kind::Setting,
        Kind::Correction,
        Kind::ResourceIdentifier,
        Kind::PendingTransaction,
    ];
    KINDS.into_iter().find(|kind| *kind as u8 == number)
}

impl SqliteStore {
    pub(super) fn write_transaction(&self, wanted: &Transaction) -> Result<(), TransactError> {
        let mut writer = lock(&self.writer);
        self.still_durable(DOING)?;
        let transaction =
            writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(self.wrote(DOING))?;
        let mut changes = NewChanges::after(&transaction)?;
        for write in &wanted.writes {
            let version = self.write_document(&transaction, write, wanted.at)?;
            changes.note(write, version);
        }
        let last_change = changes.write(&transaction).map_err(self.wrote(DOING))?;
        self.write_index(&transaction, &wanted.writes)?;
        let mut change = CountChange::default();
        for item in &wanted.quarantine {
            change += self.put_quarantined(&transaction, item, wanted.at)?;
        }
        self.write_audit(&transaction, &wanted.audit)?;
        if let Some((consumer, group)) = wanted.cursor {
            // A cursor never goes back: what lies behind it may be folded away.
            transaction
                .prepare_cached(
                    "INSERT INTO cursor(consumer, position) VALUES(?1, ?2)
                     ON CONFLICT(consumer) DO UPDATE SET position = max(position, excluded.position)",
                )
                .and_then(|mut put| put.execute(params![consumer, group.min(i64::MAX as u64) as i64]))
                .map_err(self.wrote(DOING))?;
        }
        transaction.commit().map_err(self.wrote(DOING))?;
        change.apply(&mut lock(&self.waiting));
        if let Some(change) = last_change {
            self.news.tell(|news| news.change = change);
        }
        Ok(())
    }

    /// Writes or removes one document; tells its version then.
    fn write_document(
        &self,
        connection: &Connection,
        write: &DocumentWrite,
        at: Timestamp,
    ) -> Result<u64, TransactError> {
        let kind = write.kind as u8;
        let current: Option<u64> = connection
            .prepare_cached("SELECT version FROM document WHERE kind = ?1 AND id = ?2")
            .and_then(|mut select| {
                select.query_row(params![kind, write.id], |row| row.get::<_, i64>(0)).optional()
            })
            .map_err(read(DOING))
            .map(|version| version.map(i64::unsigned_abs))?;
        check_expected(write, current)?;
        if current.is_some() && keeps_history(write.kind) {
            connection
                .prepare_cached(
                    "INSERT INTO document_history(kind, id, version, updated_at, sealed)
                     SELECT kind, id, version, updated_at, sealed FROM document WHERE kind = ?1 AND id = ?2",
                )
                .and_then(|mut keep| keep.execute(params![kind, write.id]))
                .map_err(self.wrote(DOING))?;
        }
        let Some(body) = &write.body else {
            connection
                .prepare_cached("DELETE FROM document WHERE kind = ?1 AND id = ?2")
                .and_then(|mut delete| delete.execute(params![kind, write.id]))
                .map_err(self.wrote(DOING))?;
            return Ok(current.unwrap_or(0));
        };
        let before = match current {
            Some(version) => version,
            // A document that comes back goes on counting, so that no two of its versions share a number.
            None => connection
                .prepare_cached(
                    "SELECT coalesce(max(version), 0) FROM document_history WHERE kind = ?1 AND id = ?2",
                )
                .and_then(|mut select| select.query_row(params![kind, write.id], |row| row.get::<_, i64>(0)))
                .map_err(read(DOING))?
                .unsigned_abs(),
        };
        let version = before + 1;
        let key = self.keys.sealing(Domain::of_document(write.domain), at)?;
        let row = row_key((write.kind, write.id, version, at));
        let sealed = key.seal(place(&row), &pack(body, ZSTD_LEVEL));
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO document(kind, id, version, updated_at, sealed) VALUES(?1, ?2, ?3, ?4, ?5)",
            )
            .and_then(|mut put| put.execute(params![kind, write.id, version as i64, at.as_micros(), sealed]))
            .map_err(self.wrote(DOING))?;
        Ok(version)
    }

    /// Replaces the index rows of all written documents; all old ones go first, so that a unique value can move
    /// from one document to another in one transaction.
    fn write_index(&self, connection: &Connection, writes: &[DocumentWrite]) -> Result<(), TransactError> {
        for write in writes {
            connection
                .prepare_cached("DELETE FROM document_index WHERE kind = ?1 AND id = ?2")
                .and_then(|mut delete| delete.execute(params![write.kind as u8, write.id]))
                .map_err(self.wrote(DOING))?;
        }
        let mut done = HashSet::new();
        // Of several writes of one document the last one counts.
        for write in writes.iter().rev() {
            if !done.insert((write.kind, write.id)) || write.body.is_none() {
                continue;
            }
            for entry in &write.index {
                self.write_index_row(connection, write, entry)?;
            }
        }
        Ok(())
    }

    fn write_index_row(
        &self,
        connection: &Connection,
        write: &DocumentWrite,
        entry: &IndexEntry,
    ) -> Result<(), TransactError> {
        let inserted = connection
            .prepare_cached(
                "INSERT INTO document_index(kind, name, value, id, is_unique) VALUES(?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT(kind, name, value, id) DO NOTHING",
            )
            .and_then(|mut insert| {
                insert.execute(params![write.kind as u8, entry.name, entry.value, write.id, entry.unique])
            });
        match inserted {
            Ok(_) => Ok(()),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                let detail = format!("another has the same {}", entry.name);
                Err(TransactError::Conflict { kind: kind_name(write.kind), detail })
            }
            Err(error) => Err(self.wrote(DOING)(error).into()),
        }
    }

    pub(super) fn read_document(&self, kind: Kind, id: [u8; 16]) -> Result<Option<Document>, StoreError> {
        let connection = self.readers.get();
        let found = connection
            .prepare_cached("SELECT version, updated_at, sealed FROM document WHERE kind = ?1 AND id = ?2")
            .and_then(|mut select| {
                let row = |row: &rusqlite::Row<'_>| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
                };
                select.query_row(params![kind as u8, id], row).optional()
            })
            .map_err(read("reading a document"))?;
        found
            .map(|(version, updated_at, sealed)| {
                let (version, updated_at) = (version.unsigned_abs(), Timestamp::from_micros(updated_at));
                let body = self.open_document((kind, id, version, updated_at), &sealed)?;
                Ok(Document { kind, id, version, updated_at, body, index_value: Vec::new() })
            })
            .transpose()
    }

    pub(super) fn read_versions(&self, kind: Kind, id: [u8; 16]) -> Result<Vec<Document>, StoreError> {
        let doing = "reading the versions of a document";
        let connection = self.readers.get();
        let mut select = connection
            .prepare_cached(
                "SELECT version, updated_at, sealed FROM document_history WHERE kind = ?1 AND id = ?2
                 UNION ALL SELECT version, updated_at, sealed FROM document WHERE kind = ?1 AND id = ?2
                 ORDER BY version",
            )
            .map_err(read(doing))?;
        let rows = select
            .query_map(params![kind as u8, id], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
            })
            .map_err(read(doing))?;
        rows.map(|row| {
            let (version, updated_at, sealed) = row.map_err(read(doing))?;
            let (version, updated_at) = (version.unsigned_abs(), Timestamp::from_micros(updated_at));
            let body = self.open_document((kind, id, version, updated_at), &sealed)?;
            Ok(Document { kind, id, version, updated_at, body, index_value: Vec::new() })
        })
        .collect()
    }

    pub(super) fn open_document(&self, of: VersionOf, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let (kind, id, version, _) = of;
        let what = || format!("{} {}, version {version}", kind_name(kind), uuid::Uuid::from_bytes(id));
        let packed = self.keys.open_sealed(place(&row_key(of)), sealed, &what)?;
        unpack(&packed).map_err(|malformed| malformed.of(what()))
    }

    pub(super) fn page_documents(&self, query: &DocumentQuery) -> Result<Vec<Document>, StoreError> {
        let doing = "listing documents";
        let mut sql = "SELECT i.value, d.id, d.version, d.updated_at, d.sealed
             FROM document_index i JOIN document d ON d.kind = i.kind AND d.id = i.id
             WHERE i.kind = ?1 AND i.name = ?2 AND i.value >= ?3"
            .to_owned();
        let mut values = vec![
            Sql::from(i64::from(query.kind as u8)),
            Sql::from(query.index.to_owned()),
            Sql::from(query.prefix.clone()),
        ];
        let mut bind = |value: Sql| {
            values.push(value);
            values.len()
        };
        if let Some(end) = after_prefix(&query.prefix) {
            sql.push_str(&format!(" AND i.value < ?{}", bind(Sql::from(end))));
        }
        let (sign, direction) = match query.order {
            Order::Ascending => ('>', "ASC"),
            Order::Descending => ('<', "DESC"),
        };
        if let Some((value, id)) = &query.after {
            let (value, id) = (bind(Sql::from(value.clone())), bind(Sql::from(id.to_vec())));
            sql.push_str(&format!(" AND (i.value, i.id) {sign} (?{value}, ?{id})"));
        }
        let limit = bind(Sql::from(query.limit.min(i64::MAX as usize) as i64));
        sql.push_str(&format!(" ORDER BY i.value {direction}, i.id {direction} LIMIT ?{limit}"));

        let connection = self.readers.get();
        let mut select = connection.prepare_cached(&sql).map_err(read(doing))?;
        let mut rows = select.query(params_from_iter(values)).map_err(read(doing))?;
        let mut documents = Vec::new();
        while let Some(row) = rows.next().map_err(read(doing))? {
            let id: [u8; 16] = row.get(1).map_err(read(doing))?;
            let version = row.get::<_, i64>(2).map_err(read(doing))?.unsigned_abs();
            let sealed: Vec<u8> = row.get(4).map_err(read(doing))?;
            let updated_at = Timestamp::from_micros(row.get(3).map_err(read(doing))?);
            let (kind, index_value) = (query.kind, row.get(0).map_err(read(doing))?);
            let body = self.open_document((kind, id, version, updated_at), &sealed)?;
            documents.push(Document { kind, id, version, updated_at, body, index_value });
        }
        Ok(documents)
    }
}

fn check_expected(write: &DocumentWrite, current: Option<u64>) -> Result<(), TransactError> {
    let conflict = |detail: String| Err(TransactError::Conflict { kind: kind_name(write.kind), detail });
    match (write.expected, current) {
        (Expected::Any, _) | (Expected::Absent, None) => Ok(()),
        (Expected::Absent, Some(version)) => conflict(format!("it exists already, in version {version}")),
        (Expected::Version(expected), Some(version)) if expected == version => Ok(()),
        (Expected::Version(expected), Some(version)) => {
            conflict(format!("version {expected} was expected, it has {version}"))
        }
        (Expected::Version(expected), None) => {
            conflict(format!("version {expected} was expected, it does not exist"))
        }
    }
}

/// The first value after all that begin with a prefix; `None` where there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(&[1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(after_prefix(&[0xff]), None);
        assert_eq!(after_prefix(&[]), None);
    }

    #[test]
    fn kinds_are_found_by_their_numbers() {
        for number in 0..=u8::MAX {
            assert!(kind_from_number(number).is_none_or(|kind| kind as u8 == number));
        }
        assert_eq!(kind_from_number(10), Some(Kind::Setting));
        assert_eq!(kind_from_number(13), Some(Kind::PendingTransaction));
    }
}
