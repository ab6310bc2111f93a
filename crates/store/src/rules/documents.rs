//! Documents with versions and index rows, and the transaction that writes them together with audit rows and a cursor.

use std::collections::HashSet;

use clinical_model::Timestamp;
use trust::Aad;

use super::bytes::{pack, unpack};
use super::keys::Domain;
use super::news::NewChanges;
use super::quarantine::CountChange;
use super::{SqlStore, TRIES};
use crate::sql::{Backend, Begin, Fault, Row, Session, Tx, Value, lock, read, values};
use crate::words::{
    Document, DocumentQuery, DocumentWrite, Expected, IndexEntry, Kind, News, Order, Transaction,
};
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
    !matches!(
        kind,
        Kind::Session
            | Kind::IdempotentRequest
            | Kind::PendingTransaction
            | Kind::Grant
            | Kind::SpentAssertion
    )
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
        Kind::Consent => "consent",
        Kind::BreakGlass => "break-glass",
        Kind::Enrolment => "enrolment",
        Kind::RetentionPolicy => "retention policy",
        Kind::LegalHold => "legal hold",
        Kind::Erasure => "erasure",
        Kind::Client => "client",
        Kind::Grant => "grant",
        Kind::SpentAssertion => "spent assertion",
        Kind::IdentityProvider => "identity provider",
    }
}

pub(super) fn kind_from_number(number: u8) -> Option<Kind> {
    const KINDS: &[Kind] = &[
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
        Kind::Consent,
        Kind::BreakGlass,
        Kind::Enrolment,
        Kind::RetentionPolicy,
        Kind::LegalHold,
        Kind::Erasure,
        Kind::Client,
        Kind::Grant,
        Kind::SpentAssertion,
        Kind::IdentityProvider,
    ];
    KINDS.iter().copied().find(|kind| *kind as u8 == number)
}

impl<B: Backend> SqlStore<B> {
    pub(super) fn write_transaction(&self, wanted: &Transaction) -> Result<(), TransactError> {
        let mut writer = self.acts(DOING)?;
        let mut tries = 1;
        loop {
            match self.try_transaction(&mut writer, wanted) {
                Err(TransactError::Store(error)) if error.is_contended() && tries < TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    fn try_transaction(&self, writer: &mut B::Session, wanted: &Transaction) -> Result<(), TransactError> {
        let transaction = Tx::begin(writer, Begin::Write).map_err(self.wrote(DOING))?;
        if B::SHARED {
            // One transaction after the other, in all processes: audit rows and changes are numbered without gaps.
            let _turn: u64 = transaction
                .one("SELECT value FROM counter WHERE name = 'acts' FOR UPDATE", &[])
                .map_err(self.wrote(DOING))?;
        }
        self.check_lease(&transaction, wanted.lease)?;
        let mut last_change = None;
        if !wanted.writes.is_empty() {
            let mut changes = NewChanges::after(&*transaction)?;
            for write in &wanted.writes {
                let version = self.write_document(&transaction, write, wanted.at)?;
                changes.note(write, version);
            }
            last_change = changes.write(&*transaction).map_err(self.wrote(DOING))?;
        }
        self.write_index(&transaction, &wanted.writes)?;
        let mut change = CountChange::default();
        for item in &wanted.quarantine {
            change += self.put_quarantined(&transaction, item, wanted.at)?;
        }
        self.write_audit(&transaction, &wanted.audit)?;
        if let Some((consumer, group)) = wanted.cursor {
            // A cursor never goes back: what lies behind it may be folded away.
            transaction
                .execute(
                    "INSERT INTO cursor(consumer, position) VALUES(?1, ?2)
                     ON CONFLICT(consumer) DO UPDATE SET position = excluded.position
                     WHERE excluded.position > cursor.position",
                    &values![consumer, group],
                )
                .map_err(self.wrote(DOING))?;
        }
        if B::SHARED && last_change.is_some() {
            transaction.execute(B::ANNOUNCE, &[]).map_err(self.wrote(DOING))?;
        }
        transaction.commit().map_err(self.wrote(DOING))?;
        change.apply(&mut lock(&self.waiting).count);
        self.news.tell(News { group: 0, change: last_change.unwrap_or(0) });
        Ok(())
    }

    /// Writes or removes one document; tells its version then.
    fn write_document(
        &self,
        session: &B::Session,
        write: &DocumentWrite,
        at: Timestamp,
    ) -> Result<u64, TransactError> {
        let (kind, id) = (write.kind as u8, write.id);
        let current: Option<u64> = session
            .row("SELECT version FROM document WHERE kind = ?1 AND id = ?2", &values![kind, id], |row| {
                row.get(0)
            })
            .map_err(read(DOING))?;
        check_expected(write, current)?;
        if current.is_some() && keeps_history(write.kind) {
            session
                .execute(
                    "INSERT INTO document_history(kind, id, version, updated_at, sealed)
                     SELECT kind, id, version, updated_at, sealed FROM document WHERE kind = ?1 AND id = ?2",
                    &values![kind, id],
                )
                .map_err(self.wrote(DOING))?;
        }
        let Some(body) = &write.body else {
            session
                .execute("DELETE FROM document WHERE kind = ?1 AND id = ?2", &values![kind, id])
                .map_err(self.wrote(DOING))?;
            return Ok(current.unwrap_or(0));
        };
        let before = match current {
            Some(version) => version,
            // A document that comes back goes on counting, so that no two of its versions share a number.
            None => session
                .one::<u64>(
                    "SELECT coalesce(max(version), 0) FROM document_history WHERE kind = ?1 AND id = ?2",
                    &values![kind, id],
                )
                .map_err(read(DOING))?,
        };
        let version = before + 1;
        let key = self.keys.sealing(Domain::of_document(write.domain), at)?;
        let row = row_key((write.kind, write.id, version, at));
        let sealed = key.seal(place(&row), &pack(body, ZSTD_LEVEL));
        session
            .execute(
                "INSERT INTO document(kind, id, version, updated_at, sealed) VALUES(?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT(kind, id) DO UPDATE SET version = excluded.version,
                     updated_at = excluded.updated_at, sealed = excluded.sealed",
                &values![kind, id, version, at.as_micros(), &sealed],
            )
            .map_err(self.wrote(DOING))?;
        Ok(version)
    }

    /// Replaces the index rows of all written documents; all old ones go first, so that a unique value can move
    /// from one document to another in one transaction.
    fn write_index(&self, session: &B::Session, writes: &[DocumentWrite]) -> Result<(), TransactError> {
        let owners: Vec<_> =
            writes.iter().map(|write| values![write.kind as u8, write.id].to_vec()).collect();
        session
            .execute_each("DELETE FROM document_index WHERE kind = ?1 AND id = ?2", &owners)
            .map_err(self.wrote(DOING))?;
        let mut done = HashSet::new();
        // Of several writes of one document the last one counts.
        for write in writes.iter().rev() {
            if !done.insert((write.kind, write.id)) || write.body.is_none() {
                continue;
            }
            for entry in &write.index {
                self.write_index_row(session, write, entry)?;
            }
        }
        Ok(())
    }

    fn write_index_row(
        &self,
        session: &B::Session,
        write: &DocumentWrite,
        entry: &IndexEntry,
    ) -> Result<(), TransactError> {
        let inserted = session.execute(
            "INSERT INTO document_index(kind, name, value, id, is_unique) VALUES(?1, ?2, ?3, ?4, ?5)
             ON CONFLICT(kind, name, value, id) DO NOTHING",
            &values![write.kind as u8, entry.name, &entry.value, write.id, entry.unique],
        );
        match inserted {
            Ok(_) => Ok(()),
            Err(error) if error.fault == Fault::Constraint => {
                let detail = format!("another has the same {}", entry.name);
                Err(TransactError::Conflict { kind: kind_name(write.kind), detail })
            }
            Err(error) => Err(self.wrote(DOING)(error).into()),
        }
    }

    pub(super) fn read_document(&self, kind: Kind, id: [u8; 16]) -> Result<Option<Document>, StoreError> {
        let doing = "reading a document";
        let found = self
            .reader(doing)?
            .row(
                "SELECT version, updated_at, sealed FROM document WHERE kind = ?1 AND id = ?2",
                &values![kind as u8, id],
                version_columns,
            )
            .map_err(read(doing))?;
        found.map(|found| self.open_version(kind, id, found)).transpose()
    }

    pub(super) fn read_versions(&self, kind: Kind, id: [u8; 16]) -> Result<Vec<Document>, StoreError> {
        let doing = "reading the versions of a document";
        let found = self
            .reader(doing)?
            .rows(
                "SELECT version, updated_at, sealed FROM document_history WHERE kind = ?1 AND id = ?2
                 UNION ALL SELECT version, updated_at, sealed FROM document WHERE kind = ?1 AND id = ?2
                 ORDER BY version",
                &values![kind as u8, id],
                version_columns,
            )
            .map_err(read(doing))?;
        found.into_iter().map(|found| self.open_version(kind, id, found)).collect()
    }

    fn open_version(
        &self,
        kind: Kind,
        id: [u8; 16],
        (version, updated_at, sealed): (u64, Timestamp, Vec<u8>),
    ) -> Result<Document, StoreError> {
        let body = self.open_document((kind, id, version, updated_at), &sealed)?;
        Ok(Document { kind, id, version, updated_at, body, index_value: Vec::new() })
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
        let mut bound: Vec<Value<'_>> = values![query.kind as u8, query.index, &query.prefix].to_vec();
        let end = after_prefix(&query.prefix);
        if let Some(end) = &end {
            bound.push(end.into());
            sql.push_str(&format!(" AND i.value < ?{}", bound.len()));
        }
        let (sign, direction) = match query.order {
            Order::Ascending => ('>', "ASC"),
            Order::Descending => ('<', "DESC"),
        };
        if let Some((value, id)) = &query.after {
            bound.extend(values![value, *id]);
            sql.push_str(&format!(" AND (i.value, i.id) {sign} (?{}, ?{})", bound.len() - 1, bound.len()));
        }
        bound.push(query.limit.into());
        let limit = bound.len();
        sql.push_str(&format!(" ORDER BY i.value {direction}, i.id {direction} LIMIT ?{limit}"));

        type Found = (Vec<u8>, [u8; 16], u64, i64, Vec<u8>);
        let found: Vec<Found> = self
            .reader(doing)?
            .rows(&sql, &bound, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
            .map_err(read(doing))?;
        let open = |(index_value, id, version, updated_at, sealed): Found| {
            let (kind, updated_at) = (query.kind, Timestamp::from_micros(updated_at));
            let body = self.open_document((kind, id, version, updated_at), &sealed)?;
            Ok(Document { kind, id, version, updated_at, body, index_value })
        };
        found.into_iter().map(open).collect()
    }
}

/// From the columns version, updated_at, sealed.
fn version_columns(row: &Row<'_>) -> Result<(u64, Timestamp, Vec<u8>), crate::sql::DbError> {
    Ok((row.get(0)?, Timestamp::from_micros(row.get(1)?), row.get(2)?))
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
