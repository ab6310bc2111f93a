//! Moving a store from one database to another: copied while it runs, caught up when it stands, proven equal.
//!
//! Sealed rows are copied as they are: what binds them to their place is the same in both databases. Their keys come
//! along, wrapped anew where the key-encryption key is another. The proof opens everything on both sides.

pub(crate) mod places;
mod tables;

use trust::{Kek, KeyId};

use crate::postgres::Postgres;
use crate::rules::digest::TableDigest;
use crate::sql::{Backend, DbError, Fault, Owned, Session, values};
use crate::sqlite::Sqlite;
use crate::{OpenError, StoreError};

pub use places::Place;
use places::{Movable, Side};
use tables::Synced;

/// In the target's meta table while a move into it is not finished: the id of the store that is being moved.
pub(crate) const META_MOVING: &str = "moving";

/// Why a move was not done. The source is as it was; a move into the same target may be begun again.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// One of the two could not be opened.
    #[error("{place} could not be opened")]
    Open {
        /// Which.
        place: String,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The target holds another store.
    #[error("{place} holds a store already; name an empty one")]
    NotEmpty {
        /// The target.
        place: String,
    },
    /// There is no store at the source.
    #[error("there is no store in {place}, or it was written by another release: open it once with this one")]
    NoStore {
        /// The source.
        place: String,
    },
    /// A server still runs on it.
    #[error("{place} is in use; stop every server on it first")]
    InUse {
        /// Which.
        place: String,
    },
    /// A database failed.
    #[error("{doing} failed")]
    Database {
        /// What was being done.
        doing: String,
        /// What the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// One of the two could not be read.
    #[error("what is kept could not be read")]
    Store(#[source] StoreError),
    /// The two sides say different things. The target stays marked as unfinished.
    #[error("table {table} differs after the copy ({from_rows} and {to_rows} rows): do not use the target")]
    Unequal {
        /// Which table.
        table: &'static str,
        /// Rows at the source.
        from_rows: u64,
        /// Rows at the target.
        to_rows: u64,
    },
}

fn database(doing: String) -> impl FnOnce(DbError) -> MoveError {
    move |DbError { source, .. }| MoveError::Database { doing, source }
}

/// One table on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableProof {
    /// Its name.
    pub table: &'static str,
    /// Its rows, on either side.
    pub rows: u64,
    /// Of them, those that nobody can open because their patient was erased.
    pub erased: u64,
    /// SHA-256 over the opened rows at the source, added up without regard to order, in hex.
    pub source: String,
    /// The same at the target; equal, or the move would have failed.
    pub target: String,
}

/// What a move did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoveReport {
    /// Rows written to the target.
    pub added: u64,
    /// Rows of an earlier pass that were outdated.
    pub removed: u64,
    /// The proof; empty after a pass on a running store, which proves nothing yet.
    pub tables: Vec<TableProof>,
}

/// Copies what is there now, while servers go on with the source. May be repeated, and begun again after it was broken
/// off; each time only what changed is copied. The target stays marked as unfinished, and no server opens it.
/// `progress` gets rows compared so far.
///
/// # Errors
/// [`MoveError`].
pub fn copy_running(
    from: &Place,
    to: &Place,
    keks: (&Kek, &Kek),
    progress: &mut dyn FnMut(u64),
) -> Result<MoveReport, MoveError> {
    match (from, to) {
        (Place::Files(_), Place::Files(_)) => pass::<Sqlite, Sqlite>(from, to, keks, progress),
        (Place::Files(_), Place::Database(_)) => pass::<Sqlite, Postgres>(from, to, keks, progress),
        (Place::Database(_), Place::Files(_)) => pass::<Postgres, Sqlite>(from, to, keks, progress),
        (Place::Database(_), Place::Database(_)) => pass::<Postgres, Postgres>(from, to, keks, progress),
    }
}

/// Catches up, while no server runs on either, opens everything on both sides and compares it. Then the target may be
/// used, and the source may not: it is left as it is, for the way back.
///
/// # Errors
/// [`MoveError`].
pub fn finish(
    from: &Place,
    to: &Place,
    keks: (Kek, Kek),
    progress: &mut dyn FnMut(u64),
) -> Result<MoveReport, MoveError> {
    match (from, to) {
        (Place::Files(_), Place::Files(_)) => end::<Sqlite, Sqlite>(from, to, keks, progress),
        (Place::Files(_), Place::Database(_)) => end::<Sqlite, Postgres>(from, to, keks, progress),
        (Place::Database(_), Place::Files(_)) => end::<Postgres, Sqlite>(from, to, keks, progress),
        (Place::Database(_), Place::Database(_)) => end::<Postgres, Postgres>(from, to, keks, progress),
    }
}

fn pass<F: Movable, T: Movable>(
    from: &Place,
    to: &Place,
    keks: (&Kek, &Kek),
    progress: &mut dyn FnMut(u64),
) -> Result<MoveReport, MoveError> {
    let source = F::source(from, keks.0)?;
    let mut target = T::target(to, &source.store_id()?)?;
    copy(&source, &mut target, keks, progress)
}

/// Copies the data, then the keys: every key that a copied row needs was there before the row.
fn copy<F: Backend, T: Movable>(
    source: &Side<F>,
    target: &mut Side<T>,
    keks: (&Kek, &Kek),
    progress: &mut dyn FnMut(u64),
) -> Result<MoveReport, MoveError> {
    let mut report = MoveReport::default();
    let mut compared = 0;
    let mut add = |synced: Synced| {
        report.added += synced.added;
        report.removed += synced.removed;
    };
    let mut page = |rows| {
        compared += rows;
        progress(compared);
    };
    for table in &crate::rules::tables::DATA {
        let doing = format!("copying table {}", table.name);
        let synced = tables::sync(&source.data, &mut target.data, table, &|_| Ok(()), &mut page)
            .map_err(database(doing))?;
        add(synced);
    }
    places::copy_epoch(&source.data, &target.data).map_err(database("copying the epoch".to_owned()))?;
    let wrap = |row: &mut [Owned]| wrap_anew(row, keks);
    let change: tables::Change<'_> =
        if keks.0.fingerprint() == keks.1.fingerprint() { &|_| Ok(()) } else { &wrap };
    let synced = match &mut target.keys {
        Some(keys) => tables::sync(source.keys(), keys, &tables::KEYS, change, &mut page),
        None => tables::sync(source.keys(), &mut target.data, &tables::KEYS, change, &mut page),
    };
    add(synced.map_err(database("copying the data keys".to_owned()))?);
    for table in &tables::CARE {
        let unchanged: tables::Change<'_> = &|_| Ok(());
        let synced = match &mut target.keys {
            Some(keys) => tables::sync(source.keys(), keys, table, unchanged, &mut page),
            None => tables::sync(source.keys(), &mut target.data, table, unchanged, &mut page),
        };
        add(synced.map_err(database(format!("copying table {}", table.name)))?);
    }
    T::settle(target).map_err(database("counting what was copied".to_owned()))?;
    Ok(report)
}

/// Wraps a data key with the target's key-encryption key: columns number, id, domain, created_at, wrapped.
fn wrap_anew(row: &mut [Owned], (old, new): (&Kek, &Kek)) -> Result<(), DbError> {
    let [_, Owned::Bytes(id), Owned::Text(domain), _, Owned::Bytes(wrapped)] = row else {
        return Err(DbError::new(Fault::Other, "a data key is not what it should be"));
    };
    let id = <[u8; 16]>::try_from(&id[..])
        .map(KeyId)
        .map_err(|_| DbError::new(Fault::Other, "the id of a data key has another length"))?;
    let key = old
        .unwrap(domain, id, wrapped)
        .map_err(|error| DbError { fault: Fault::Other, source: Box::new(error) })?;
    *wrapped = new.wrap(domain, id, &key);
    Ok(())
}

fn end<F: Movable, T: Movable>(
    from: &Place,
    to: &Place,
    (from_kek, to_kek): (Kek, Kek),
    progress: &mut dyn FnMut(u64),
) -> Result<MoveReport, MoveError> {
    // Before it is opened: opening makes a store where there is none.
    drop(F::source(from, &from_kek)?);
    let given = F::alone(from, from_kek, false)?;
    given.keys().is_still().map_err(MoveError::Store)?;
    let from_kek = given.keys().kek();
    let source = F::source(from, &from_kek)?;
    let id = source.store_id()?;
    let mut target = T::target(to, &id)?;
    let mut report = copy(&source, &mut target, (&from_kek, &to_kek), progress)?;
    T::name(&mut target, &id, &to_kek).map_err(database("naming the target".to_owned()))?;
    drop((source, target));
    let copied = T::alone(to, to_kek, true)?;
    let (from, to) = (given.digest(progress).map_err(MoveError::Store)?, copied.digest(progress));
    report.tables = prove(&from, &to.map_err(MoveError::Store)?)?;
    let doing = "ending the move";
    copied
        .writer(doing)
        .map_err(MoveError::Store)?
        .execute("DELETE FROM meta WHERE name = ?1", &values![META_MOVING])
        .map_err(database(doing.to_owned()))?;
    Ok(report)
}

/// Compares both sides.
fn prove(source: &[TableDigest], target: &[TableDigest]) -> Result<Vec<TableProof>, MoveError> {
    let hex = |sum: &[u8; 32]| sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    source
        .iter()
        .zip(target)
        .map(|(from, to)| {
            if from != to {
                let (from_rows, to_rows) = (from.rows, to.rows);
                return Err(MoveError::Unequal { table: from.table, from_rows, to_rows });
            }
            let (table, rows, erased) = (from.table, from.rows, from.erased);
            Ok(TableProof { table, rows, erased, source: hex(&from.sum), target: hex(&to.sum) })
        })
        .collect()
}
