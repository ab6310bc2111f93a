//! A connection to the database: prepared statements, transactions whose outcome is never guessed, and reconnection.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::io::{Connector, block_on};
use super::{LOCK_SERVE, lock_call};
use crate::sql::{Begin, Column, Columns, DbError, Fault, Row, Session, Value};

/// Prepared statements kept by one connection; all of this crate's fit. Beyond it the cache begins anew.
const PREPARED_LIMIT: usize = 256;
/// Statements sent before the answer to the first is awaited.
const PIPELINED: usize = 64;
/// Rows fetched at once from a result that is too large for memory.
const FETCHED_ROWS: usize = 200;
/// What is waited before a connection is tried again; a longer absence is the caller's to bear.
const CONNECT_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
/// After so long it is not tried again: the server does not even refuse.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long the outcome of a commit is looked for where the connection broke while it was awaited.
const RESOLVE_FOR: Duration = Duration::from_secs(15);
/// The connections of a process that ended are gone after so long.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks.
const RESOLVE_EVERY: Duration = Duration::from_millis(50);

/// What every connection is told first. A node that stops in the middle of a transaction must not hold up the others
/// for ever, and waiting for another's lock ends with an error that is tried again.
const SETTINGS: &str = "SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '10s';
    SET client_min_messages = warning";

/// A connection to the database.
pub struct PgSession {
    connector: Arc<Connector>,
    /// Whether it takes part in serving: the store cannot be moved away while such a connection lives.
    serving: bool,
    client: Option<Client>,
    was_connected: bool,
    /// When the server that is connected was started: another start may be another server with another history.
    server_started: Option<String>,
    statements: RefCell<HashMap<String, Statement>>,
    /// The transaction's id while one that writes is open.
    writing: Option<String>,
    is_open: bool,
    /// Cursors that were declared, so that each has a name of its own.
    cursors: Cell<u64>,
}

impl PgSession {
    /// A session that is not connected yet.
    pub(super) fn new(connector: Arc<Connector>, serving: bool) -> Self {
        PgSession {
            connector,
            serving,
            client: None,
            was_connected: false,
            server_started: None,
            statements: RefCell::default(),
            writing: None,
            is_open: false,
            cursors: Cell::new(0),
        }
    }

    fn client(&self) -> Result<&Client, DbError> {
        self.client
            .as_ref()
            .ok_or_else(|| DbError::new(Fault::Unreachable, "the connection to the database broke"))
    }

    fn connect(&mut self) -> Result<(), DbError> {
        self.statements.borrow_mut().clear();
        let client = self.connector.connect()?;
        block_on(client.batch_execute(SETTINGS)).map_err(meaning)?;
        self.client = Some(client);
        self.server_started = Some(self.one("SELECT CAST(pg_postmaster_start_time() AS TEXT)", &[])?);
        if self.serving && !self.try_lock("pg_try_advisory_lock_shared", LOCK_SERVE)? {
            self.client = None;
            return Err(DbError::new(
                Fault::Forbidden,
                "the store is being moved; start again when that is done",
            ));
        }
        Ok(())
    }

    /// Tries to take an advisory lock. A process that ended a moment ago may still hold it: the server takes a while to
    /// see that.
    pub(super) fn try_lock(&self, function: &str, lock: i32) -> Result<bool, DbError> {
        let until = Instant::now() + ENDS_WITHIN;
        loop {
            if self.one(&lock_call(function, lock), &[])? {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            std::thread::sleep(RESOLVE_EVERY);
        }
    }

    fn prepared(&self, sql: &str) -> Result<Statement, DbError> {
        if let Some(statement) = self.statements.borrow().get(sql) {
            return Ok(statement.clone());
        }
        let statement = block_on(self.client()?.prepare(&with_dollars(sql))).map_err(meaning)?;
        let mut statements = self.statements.borrow_mut();
        if statements.len() >= PREPARED_LIMIT {
            statements.clear();
        }
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Looks up what became of a transaction whose commit was not answered. Only the server that took it can tell: on a
    /// standby that took over and lagged, its number may be another transaction's.
    fn resolve(&mut self, transaction: &str, lost: DbError) -> Result<(), DbError> {
        let until = Instant::now() + RESOLVE_FOR;
        let asked = self.server_started.clone();
        tracing::warn!(error = %lost.source, transaction, "the answer to a commit was lost; looking it up");
        loop {
            let found = self.connect().and_then(|()| {
                // What still runs on the broken connection shows as in progress.
                let sql = "SELECT pg_xact_status(CAST(CAST(?1 AS TEXT) AS xid8))";
                self.one::<Option<String>>(sql, &[Value::Text(transaction)])
            });
            match found.as_ref().map(Option::as_deref) {
                Ok(Some("committed")) if self.server_started == asked => return Ok(()),
                Ok(Some("aborted")) => return Err(lost),
                Ok(Some("committed")) => return Err(lost),
                _ if Instant::now() >= until => {
                    let words = format!(
                        "whether transaction {transaction} was committed is not known: its answer was lost, and the \
                         database does not tell"
                    );
                    return Err(DbError::new(Fault::Unreachable, words));
                }
                _ => std::thread::sleep(RESOLVE_EVERY),
            }
        }
    }
}

impl Session for PgSession {
    fn ready(&mut self) -> Result<bool, DbError> {
        if self.is_open {
            // Whoever began it panicked.
            self.rollback();
        }
        if self.client.as_ref().is_some_and(|client| !client.is_closed()) {
            return Ok(false);
        }
        self.client = None;
        self.connector.was_reachable()?;
        let begun = Instant::now();
        let mut tries = CONNECT_PAUSES.iter();
        loop {
            match self.connect() {
                Ok(()) => return Ok(std::mem::replace(&mut self.was_connected, true)),
                Err(error) => {
                    let again = tries.next().filter(|_| begun.elapsed() < CONNECT_WITHIN);
                    match again {
                        Some(pause) if error.fault == Fault::Unreachable => std::thread::sleep(*pause),
                        _ => {
                            self.connector.is_unreachable(&error);
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, DbError> {
        let statement = self.prepared(sql)?;
        block_on(self.client()?.execute_raw(&statement, values)).map_err(meaning)
    }

    fn execute_each(&self, sql: &str, rows: &[Vec<Value<'_>>]) -> Result<Vec<u64>, DbError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let changed = self.execute_all(&[(sql, rows.to_vec())])?;
        Ok(changed.into_iter().flatten().collect())
    }

    fn execute_all(&self, statements: &[(&str, Vec<Vec<Value<'_>>>)]) -> Result<Vec<Vec<u64>>, DbError> {
        let prepared = statements.iter().map(|(sql, _)| self.prepared(sql)).collect::<Result<Vec<_>, _>>()?;
        let client = self.client()?;
        let all: Vec<_> = prepared
            .iter()
            .zip(statements)
            .flat_map(|(one, (_, rows))| rows.iter().map(move |row| (one, row)))
            .collect();
        let mut changed = Vec::with_capacity(all.len());
        for some in all.chunks(PIPELINED) {
            let sent = some.iter().map(|(statement, row)| client.execute_raw(*statement, row.as_slice()));
            changed.extend(block_on(try_join_all(sent)).map_err(meaning)?);
        }
        let mut changed = changed.into_iter();
        Ok(statements.iter().map(|(_, rows)| changed.by_ref().take(rows.len()).collect()).collect())
    }

    fn query(
        &self,
        sql: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<bool, DbError>,
    ) -> Result<(), DbError> {
        let statement = self.prepared(sql)?;
        let rows = block_on(self.client()?.query_raw(&statement, values)).map_err(meaning)?;
        let mut rows = pin!(rows);
        while let Some(row) = block_on(rows.next()) {
            if !each(&Row(&row.map_err(meaning)?))? {
                break;
            }
        }
        Ok(())
    }

    fn stream(
        &self,
        sql: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<bool, DbError>,
    ) -> Result<(), DbError> {
        let client = self.client()?;
        self.cursors.set(self.cursors.get() + 1);
        let cursor = format!("cursor_{}", self.cursors.get());
        let declare = format!("DECLARE {cursor} NO SCROLL CURSOR FOR {}", with_dollars(sql));
        block_on(client.execute_raw(declare.as_str(), values)).map_err(meaning)?;
        let fetch = format!("FETCH {FETCHED_ROWS} FROM {cursor}");
        let mut more = true;
        while more {
            let rows = block_on(client.query_typed(&fetch, &[])).map_err(meaning)?;
            more = rows.len() == FETCHED_ROWS;
            for row in &rows {
                if !each(&Row(row))? {
                    more = false;
                    break;
                }
            }
        }
        block_on(client.batch_execute(&format!("CLOSE {cursor}"))).map_err(meaning)
    }

    fn batch(&self, script: &str) -> Result<(), DbError> {
        block_on(self.client()?.batch_execute(script)).map_err(meaning)
    }

    fn begin(&mut self, begin: Begin) -> Result<(), DbError> {
        let client = self.client()?;
        match begin {
            Begin::Snapshot => {
                let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
                    SET LOCAL idle_in_transaction_session_timeout = 0";
                block_on(client.batch_execute(sql)).map_err(meaning)?;
            }
            Begin::Write => {
                let sql =
                    "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE; SELECT pg_current_xact_id()::text";
                let answers = block_on(client.simple_query(sql)).map_err(meaning)?;
                self.writing = answers.iter().find_map(|answer| match answer {
                    SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
            }
        }
        self.is_open = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), DbError> {
        let outcome = self.batch("COMMIT");
        self.is_open = false;
        let writing = self.writing.take();
        match (outcome, writing) {
            (Err(lost), Some(transaction)) if lost.fault == Fault::Unreachable => {
                self.client = None;
                self.resolve(&transaction, lost)
            }
            (outcome, _) => outcome,
        }
    }

    fn rollback(&mut self) {
        self.writing = None;
        if std::mem::take(&mut self.is_open) && self.batch("ROLLBACK").is_err() {
            // The server undoes it when the connection ends.
            self.client = None;
        }
    }
}

/// `?1` as `$1`; no text of ours holds a question mark otherwise.
fn with_dollars(sql: &str) -> String {
    sql.replace('?', "$")
}

/// What an error of the library means.
pub(super) fn meaning(error: tokio_postgres::Error) -> DbError {
    let fault = match error.code() {
        Some(code) => match *code {
            SqlState::DISK_FULL => Fault::Full,
            SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => Fault::Damaged,
            SqlState::T_R_SERIALIZATION_FAILURE
            | SqlState::T_R_DEADLOCK_DETECTED
            | SqlState::LOCK_NOT_AVAILABLE => Fault::Contended,
            SqlState::INSUFFICIENT_PRIVILEGE
            | SqlState::INVALID_PASSWORD
            | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Fault::Forbidden,
            // The server is starting, ending, or tells us to go; or it has no room for one more connection.
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::TOO_MANY_CONNECTIONS
            | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
            // A standby that is not promoted yet.
            | SqlState::READ_ONLY_SQL_TRANSACTION => Fault::Unreachable,
            _ => match &code.code()[..2] {
                "23" => Fault::Constraint,
                "08" => Fault::Unreachable,
                _ => Fault::Other,
            },
        },
        // Without a code it is the connection, or our own values.
        None if error.is_closed() || is_io(&error) => Fault::Unreachable,
        None => Fault::Other,
    };
    DbError { fault, source: error.into() }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<std::io::Error>() {
            return true;
        }
        cause = inner.source();
    }
    // A connection that could not be made at all.
    error.to_string().starts_with("error connecting") || error.to_string().starts_with("timeout")
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(number) if *kind == Type::INT4 => i32::try_from(*number)?.to_sql(kind, out),
            Value::Int(number) => number.to_sql(kind, out),
            Value::Text(text) => text.to_sql(kind, out),
            Value::Bytes(bytes) => bytes.to_sql(kind, out),
            Value::Id(id) => id.as_slice().to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::INT4, Type::TEXT, Type::VARCHAR, Type::BYTEA].contains(kind)
    }

    to_sql_checked!();
}

impl Columns for tokio_postgres::Row {
    fn column(&self, at: usize) -> Result<Column<'_>, DbError> {
        let kind = self.columns().get(at).map(|column| column.type_().clone());
        let column = match kind {
            Some(Type::INT8) => self.try_get::<_, Option<i64>>(at).map(|number| number.map(Column::Int)),
            Some(Type::INT4) => {
                self.try_get::<_, Option<i32>>(at).map(|number| number.map(|n| Column::Int(n.into())))
            }
            Some(Type::BOOL) => {
                self.try_get::<_, Option<bool>>(at).map(|truth| truth.map(|t| Column::Int(t.into())))
            }
            Some(Type::TEXT | Type::VARCHAR | Type::NAME) => {
                self.try_get::<_, Option<&str>>(at).map(|text| text.map(Column::Text))
            }
            Some(Type::BYTEA) => self.try_get::<_, Option<&[u8]>>(at).map(|bytes| bytes.map(Column::Bytes)),
            other => {
                let words = format!("column {at} has the type {other:?}, which we never use");
                return Err(DbError::new(Fault::Other, words));
            }
        };
        Ok(column.map_err(meaning)?.unwrap_or(Column::Null))
    }
}
