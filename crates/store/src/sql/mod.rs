//! The narrow seam under the rules: sessions with a database that execute and query, whichever database it is.
//!
//! The SQL text is written once, in what SQLite and PostgreSQL share: placeholders are `?1`, integers are 64 bits,
//! everything else is text or bytes. What differs stands in the two implementations of [`Backend`].

mod value;

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::StoreError;
use crate::error::Contended;

pub(crate) use value::Owned;
pub use value::{Column, Columns, FromColumn, Row, Value};

/// Values for the placeholders of a statement, in their order.
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::sql::Value::from($value)),*] };
}
pub(crate) use values;

/// What the rules do about an error of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no room.
    Full,
    /// Stable storage failed, or the file is not what it was.
    Storage,
    /// The file is not a database, or damaged.
    Damaged,
    /// The file may not be used.
    Forbidden,
    /// A constraint does not hold.
    Constraint,
    /// Somebody else was in the way; trying again may help.
    Contended,
    /// The database cannot be reached, or the connection broke.
    Unreachable,
    /// Anything else.
    Other,
}

/// An error of a database, with what it means to us.
#[derive(Debug)]
pub struct DbError {
    /// What it means.
    pub fault: Fault,
    /// What the database said.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl DbError {
    /// An error with words of our own.
    pub fn new(fault: Fault, words: impl Into<String>) -> Self {
        DbError { fault, source: words.into().into() }
    }
}

/// What an error while reading means.
pub(crate) fn read(doing: &'static str) -> impl Fn(DbError) -> StoreError + Copy {
    move |DbError { fault, source }| match fault {
        Fault::Unreachable => StoreError::Unavailable { doing, source },
        _ => StoreError::Database { doing, source },
    }
}

/// What an error while writing means.
pub(crate) fn write(doing: &'static str) -> impl Fn(DbError) -> StoreError + Copy {
    move |DbError { fault, source }| match fault {
        Fault::Full => StoreError::Full { doing },
        Fault::Storage | Fault::Damaged => StoreError::Durability { doing, source },
        Fault::Unreachable => StoreError::Unavailable { doing, source },
        Fault::Contended => StoreError::Database { doing, source: Box::new(Contended(source)) },
        Fault::Forbidden | Fault::Constraint | Fault::Other => StoreError::Database { doing, source },
    }
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It writes.
    Write,
    /// It reads, all of one instant.
    Snapshot,
}

/// One connection to a database.
pub trait Session: Send + 'static {
    /// Makes the session usable again where its connection broke; called before each piece of work. True where it was
    /// connected anew, perhaps to another server than before.
    ///
    /// # Errors
    /// [`DbError`] where the database cannot be reached.
    fn ready(&mut self) -> Result<bool, DbError>;

    /// Executes a statement that returns no rows; tells how many it changed.
    ///
    /// # Errors
    /// [`DbError`] as the database said.
    fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, DbError>;

    /// Executes one statement with each row of values, in their order; tells how many rows each changed.
    ///
    /// # Errors
    /// [`DbError`] of the first that failed.
    fn execute_each(&self, sql: &str, rows: &[Vec<Value<'_>>]) -> Result<Vec<u64>, DbError>;

    /// Executes several statements, each with its rows of values, in their order, without waiting for one answer
    /// before the next is sent where the database is far away; tells how many rows each changed.
    ///
    /// # Errors
    /// [`DbError`] of the first that failed.
    fn execute_all(&self, statements: &[(&str, Vec<Vec<Value<'_>>>)]) -> Result<Vec<Vec<u64>>, DbError> {
        statements.iter().map(|(sql, rows)| self.execute_each(sql, rows)).collect()
    }

    /// Calls back with each row of a query until told to stop.
    ///
    /// # Errors
    /// [`DbError`] as the database or the callback said.
    fn query(
        &self,
        sql: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<bool, DbError>,
    ) -> Result<(), DbError>;

    /// As [`Session::query`], for results that are too large for memory; inside a transaction only.
    ///
    /// # Errors
    /// [`DbError`] as the database or the callback said.
    fn stream(
        &self,
        sql: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<bool, DbError>,
    ) -> Result<(), DbError> {
        self.query(sql, values, each)
    }

    /// Executes statements without values.
    ///
    /// # Errors
    /// [`DbError`] as the database said.
    fn batch(&self, script: &str) -> Result<(), DbError>;

    /// Begins a transaction. Use [`Tx::begin`].
    ///
    /// # Errors
    /// [`DbError`] as the database said.
    fn begin(&mut self, begin: Begin) -> Result<(), DbError>;

    /// Ends the transaction; when it returns, all of it is on stable storage.
    ///
    /// # Errors
    /// [`DbError`]; nothing was changed then, or nobody knows and the fault is [`Fault::Unreachable`].
    fn commit(&mut self) -> Result<(), DbError>;

    /// Undoes the transaction, as far as that is still needed.
    fn rollback(&mut self);

    /// All rows of a query.
    ///
    /// # Errors
    /// [`DbError`] as the database said, or where a column is of another type.
    fn rows<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut map: impl FnMut(&Row<'_>) -> Result<T, DbError>,
    ) -> Result<Vec<T>, DbError>
    where
        Self: Sized,
    {
        let mut rows = Vec::new();
        self.query(sql, values, &mut |row| {
            rows.push(map(row)?);
            Ok(true)
        })?;
        Ok(rows)
    }

    /// The first row of a query, if there is one.
    ///
    /// # Errors
    /// [`DbError`] as the database said, or where a column is of another type.
    fn row<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut map: impl FnMut(&Row<'_>) -> Result<T, DbError>,
    ) -> Result<Option<T>, DbError>
    where
        Self: Sized,
    {
        let mut found = None;
        self.query(sql, values, &mut |row| {
            found = Some(map(row)?);
            Ok(false)
        })?;
        Ok(found)
    }

    /// The first column of the one row of a query.
    ///
    /// # Errors
    /// [`DbError`] as the database said, or where there is no row.
    fn one<T: FromColumn>(&self, sql: &str, values: &[Value<'_>]) -> Result<T, DbError>
    where
        Self: Sized,
    {
        self.row(sql, values, |row| row.get(0))?
            .ok_or_else(|| DbError::new(Fault::Other, "a row was expected and there is none"))
    }
}

/// A transaction, undone unless it is committed.
pub(crate) struct Tx<'a, S: Session> {
    session: &'a mut S,
    ended: bool,
}

impl<'a, S: Session> Tx<'a, S> {
    pub(crate) fn begin(session: &'a mut S, begin: Begin) -> Result<Self, DbError> {
        session.begin(begin)?;
        Ok(Tx { session, ended: false })
    }

    pub(crate) fn commit(mut self) -> Result<(), DbError> {
        self.ended = true;
        let outcome = self.session.commit();
        if outcome.is_err() {
            self.session.rollback();
        }
        outcome
    }
}

impl<S: Session> Deref for Tx<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.session
    }
}

impl<S: Session> DerefMut for Tx<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        self.session
    }
}

impl<S: Session> Drop for Tx<'_, S> {
    fn drop(&mut self) {
        if !self.ended {
            self.session.rollback();
        }
    }
}

/// A database, and what differs between one and the other.
pub trait Backend: Send + Sync + Sized + 'static {
    /// Its connections.
    type Session: Session;

    /// Whether other processes may write to it.
    const SHARED: bool;

    /// How findings name it.
    const PLACE: &'static str;

    /// How findings name the place of the data keys.
    const KEYS_PLACE: &'static str;

    /// Blocks that a query of readings asks for first; it asks for four times as many each time after.
    const FIRST_BLOCKS: u32;

    /// One more connection, for work that takes long.
    ///
    /// # Errors
    /// [`StoreError`] where there is none to be had.
    fn another(&self) -> Result<Self::Session, StoreError>;

    /// The database's own check of its pages; what it found.
    ///
    /// # Errors
    /// [`DbError`] where it could not be done.
    fn check_pages(session: &Self::Session) -> Result<Vec<String>, DbError>;

    /// Takes what entitles to fold, on the session that folds; false while another process has it.
    ///
    /// # Errors
    /// [`DbError`] where it could not be asked for.
    fn claim_fold(session: &Self::Session) -> Result<bool, DbError>;

    /// Gives it back.
    fn release_fold(session: &Self::Session);

    /// Microseconds since 1970 by the clock that all processes share, as an SQL expression.
    const NOW_US: &'static str;

    /// The statement that makes what is about to be committed known to other processes, inside the transaction.
    const ANNOUNCE: &'static str;

    /// Leaves nothing of destroyed keys behind, as far as the database lets us.
    ///
    /// # Errors
    /// [`DbError`] as the database said.
    fn scrub(session: &Self::Session) -> Result<(), DbError>;

    /// Whether deletions on a session that writes data overwrite what they free, from now on.
    ///
    /// # Errors
    /// [`DbError`] as the database said.
    fn overwrite_deleted(session: &Self::Session, overwrite: bool) -> Result<(), DbError>;

    /// Leaves nothing of deleted data behind, as far as the database lets us.
    ///
    /// # Errors
    /// [`DbError`] as the database said.
    fn scrub_data(session: &Self::Session) -> Result<(), DbError>;

    /// Bytes, given as hexadecimal digits, as they are written in a statement.
    fn bytes_literal(hex: &str) -> String;

    /// Copies the store as it is at one instant into an empty directory.
    ///
    /// # Errors
    /// [`StoreError`]; an unfinished copy is removed.
    fn backup(
        store: &crate::rules::SqlStore<Self>,
        target: &std::path::Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<crate::RestoreReport, StoreError>;
}

/// Locks; what a panicking thread left behind is safe, because every change of the database is a transaction.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn readable<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn writable<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
