//! Connections to the database files, and what the library's errors mean to us.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, ToSql, params_from_iter};

use crate::OpenError;
use crate::rules::schema;
use crate::sql::{Begin, Column, Columns, DbError, Fault, Row, Session, Value};

/// How long a statement waits for another connection's lock; only checkpoints and backups take any.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Prepared statements kept by one connection; all of this crate's fit.
const PREPARED_LIMIT: usize = 128;
/// Pages of a new file. Blocks of some kilobytes fit one page or spill into few.
const PAGE_BYTES: i64 = 8_192;
/// Page cache of the writer in KiB (SQLite counts negative numbers so).
const WRITER_CACHE_KIB: i64 = 32 * 1024;
/// Page cache of each reader in KiB.
const READER_CACHE_KIB: i64 = 8 * 1024;
/// Pages in the log before a commit moves them into the file: 32 MiB.
const CHECKPOINT_PAGES: i64 = 4_096;
/// The log is cut back to this after a checkpoint.
const LOG_LIMIT_BYTES: i64 = 64 * 1024 * 1024;

/// Opens or creates a database file.
fn open_file(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let failed = |error| open_failure(path, "opening the file", error);
    make_private(path);
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(PREPARED_LIMIT);
    connection.pragma_update(None, "page_size", PAGE_BYTES).map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", "OFF").map_err(failed)?;
    Ok(connection)
}

/// Makes a new file that only its owner may read; the library gives the same mode to the log beside it. The directory
/// may have been made by somebody else, with another mode. Where it fails, opening fails and says why.
fn make_private(path: &Path) {
    let mut options = std::fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    drop(options.open(path));
}

/// The library takes a file cut to almost nothing for a new database: refuses one that must hold something.
fn refuse_empty(connection: &Connection, path: &Path, may_be_new: bool) -> Result<(), OpenError> {
    let version =
        schema::version(connection).map_err(|error| open_failure(path, "reading the file", error))?;
    if version == 0 && !may_be_new {
        let what = "it is missing or empty, but the file that belongs to it is not".to_owned();
        return Err(OpenError::Damaged { path: PathBuf::from(path), what });
    }
    Ok(())
}

/// The connection to `keystore.db`, made where it may be new.
pub(super) fn open_keys(path: &Path, may_be_new: bool) -> Result<SqliteSession, OpenError> {
    let mut connection = open_file(path)?;
    refuse_empty(&connection, path, may_be_new)?;
    for (name, value) in [("journal_mode", "WAL"), ("synchronous", "FULL"), ("secure_delete", "ON")] {
        connection
            .pragma_update(None, name, value)
            .map_err(|e| open_failure(path, "opening the key store", e))?;
    }
    schema::migrate(&mut connection, schema::KEYSTORE).map_err(|error| match error {
        schema::MigrateError::TooNew { found, known } => OpenError::TooNew { found, known },
        schema::MigrateError::Database(error) => open_failure(path, "migrating the key store", error),
    })?;
    Ok(SqliteSession(connection))
}

/// The one connection that writes `data.db`.
pub(super) fn open_writer(path: &Path, may_be_new: bool) -> Result<Connection, OpenError> {
    let connection = open_file(path)?;
    refuse_empty(&connection, path, may_be_new)?;
    let failed = |error| open_failure(path, "preparing the file", error);
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    #[cfg(feature = "planted")]
    if trust::planted("no-sync") {
        connection.pragma_update(None, "synchronous", "OFF").map_err(failed)?;
    }
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB).map_err(failed)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(failed)?;
    connection.pragma_update(None, "journal_size_limit", LOG_LIMIT_BYTES).map_err(failed)?;
    Ok(connection)
}

/// Opens one more connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<SqliteSession, OpenError> {
    let connection = open_file(path)?;
    let failed = |error| open_failure(path, "preparing the file", error);
    connection.pragma_update(None, "query_only", "ON").map_err(failed)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB).map_err(failed)?;
    Ok(SqliteSession(connection))
}

/// What an error while opening means.
pub(super) fn open_failure(path: &Path, doing: &'static str, source: rusqlite::Error) -> OpenError {
    open_fault(path, doing, source.into())
}

/// As [`open_failure`], for an error that came through the seam.
pub(super) fn open_fault(path: &Path, doing: &'static str, DbError { fault, source }: DbError) -> OpenError {
    match fault {
        Fault::Damaged => OpenError::Damaged { path: PathBuf::from(path), what: source.to_string() },
        Fault::Forbidden => {
            OpenError::Path { path: PathBuf::from(path), what: source.to_string(), source: None }
        }
        _ => OpenError::Database { doing, source },
    }
}

impl From<rusqlite::Error> for DbError {
    fn from(source: rusqlite::Error) -> Self {
        let fault = match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Fault::Full,
            Some(ErrorCode::SystemIoFailure | ErrorCode::FileLockingProtocolFailed) => Fault::Storage,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Fault::Damaged,
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                Fault::Forbidden
            }
            Some(ErrorCode::ConstraintViolation) => Fault::Constraint,
            _ => Fault::Other,
        };
        DbError { fault, source: source.into() }
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
            Value::Id(id) => ValueRef::Blob(id),
        }))
    }
}

impl Columns for rusqlite::Row<'_> {
    fn column(&self, at: usize) -> Result<Column<'_>, DbError> {
        Ok(match self.get_ref(at)? {
            ValueRef::Null => Column::Null,
            ValueRef::Integer(number) => Column::Int(number),
            ValueRef::Text(text) => {
                let text = std::str::from_utf8(text);
                Column::Text(text.map_err(|error| DbError { fault: Fault::Other, source: error.into() })?)
            }
            ValueRef::Blob(bytes) => Column::Bytes(bytes),
            ValueRef::Real(number) => {
                return Err(DbError::new(
                    Fault::Other,
                    format!("column {at} holds {number}, which we never write"),
                ));
            }
        })
    }
}

/// A connection to one of the files.
pub struct SqliteSession(pub(super) Connection);

impl SqliteSession {
    fn prepared(&self, sql: &str) -> Result<CachedStatement<'_>, DbError> {
        Ok(self.0.prepare_cached(sql)?)
    }
}

impl Session for SqliteSession {
    fn ready(&mut self) -> Result<bool, DbError> {
        Ok(false)
    }

    fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, DbError> {
        Ok(self.prepared(sql)?.execute(params_from_iter(values))? as u64)
    }

    fn execute_each(&self, sql: &str, rows: &[Vec<Value<'_>>]) -> Result<Vec<u64>, DbError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = self.prepared(sql)?;
        let changed = rows.iter().map(|row| Ok(statement.execute(params_from_iter(row))? as u64));
        changed.collect()
    }

    fn query(
        &self,
        sql: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<bool, DbError>,
    ) -> Result<(), DbError> {
        let mut statement = self.prepared(sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            if !each(&Row(row))? {
                break;
            }
        }
        Ok(())
    }

    fn batch(&self, script: &str) -> Result<(), DbError> {
        Ok(self.0.execute_batch(script)?)
    }

    fn begin(&mut self, begin: Begin) -> Result<(), DbError> {
        self.execute(
            match begin {
                Begin::Write => "BEGIN IMMEDIATE",
                Begin::Snapshot => "BEGIN",
            },
            &[],
        )
        .map(drop)
    }

    fn commit(&mut self) -> Result<(), DbError> {
        self.execute("COMMIT", &[]).map(drop)
    }

    fn rollback(&mut self) {
        // Some errors end the transaction themselves.
        if !self.0.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK", &[])
        {
            tracing::warn!(error = %error.source, "a transaction could not be undone; closing the file will do it");
        }
    }
}
