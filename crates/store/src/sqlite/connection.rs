//! Connections to the database files, locks that survive a panic elsewhere, and what the database's errors mean to us.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::schema;
use crate::{OpenError, StoreError};

/// Connections that read beside the one that writes. More than the cores of a usual machine gain nothing.
pub(super) const READ_CONNECTIONS: usize = 4;
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

/// Locks; what a panicking thread left behind is safe, because every change of files is a transaction.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn readable<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn writable<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Opens or creates a database file.
pub(super) fn open_file(path: &Path) -> Result<Connection, OpenError> {
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
pub(super) fn refuse_empty(connection: &Connection, path: &Path, may_be_new: bool) -> Result<(), OpenError> {
    let version =
        schema::version(connection).map_err(|error| open_failure(path, "reading the file", error))?;
    if version == 0 && !may_be_new {
        let what = "it is missing or empty, but the file that belongs to it is not".to_owned();
        return Err(OpenError::Damaged { path: PathBuf::from(path), what });
    }
    Ok(())
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
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = open_file(path)?;
    let failed = |error| open_failure(path, "preparing the file", error);
    connection.pragma_update(None, "query_only", "ON").map_err(failed)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB).map_err(failed)?;
    Ok(connection)
}

/// The connections that read.
pub(super) struct Readers {
    connections: Vec<Mutex<Connection>>,
    next: AtomicUsize,
}

impl Readers {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let connections =
            (0..READ_CONNECTIONS).map(|_| open_reader(path).map(Mutex::new)).collect::<Result<_, _>>()?;
        Ok(Readers { connections, next: AtomicUsize::new(0) })
    }

    /// A connection that is free, else the next in turn.
    pub(super) fn get(&self) -> MutexGuard<'_, Connection> {
        for connection in &self.connections {
            match connection.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        lock(&self.connections[turn])
    }
}

/// What an error while opening means.
pub(super) fn open_failure(path: &Path, doing: &'static str, source: rusqlite::Error) -> OpenError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            OpenError::Damaged { path: PathBuf::from(path), what: source.to_string() }
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            OpenError::Path { path: PathBuf::from(path), what: source.to_string(), source: None }
        }
        _ => OpenError::Database { doing, source },
    }
}

/// What an error while reading means.
pub(super) fn read(doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + Copy {
    move |source| StoreError::Database { doing, source }
}

/// What an error while writing means.
pub(super) fn write(doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + Copy {
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { doing },
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::CannotOpen
            | ErrorCode::FileLockingProtocolFailed,
        ) => StoreError::Durability { doing, source },
        _ => StoreError::Database { doing, source },
    }
}
