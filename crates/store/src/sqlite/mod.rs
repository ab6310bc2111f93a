//! The embedded store: SQLite in write-ahead mode, everything about persons sealed before it reaches a file.
//!
//! | File | Holds |
//! |---|---|
//! | `data.db` | journal, blocks, latest values, documents, audit, quarantine: ciphertext, random ids, instants |
//! | `keystore.db` | the data keys, wrapped by the key-encryption key, which lives elsewhere |
//! | `lock` | an advisory lock, so that a second process is refused |

mod backup;
#[cfg(test)]
mod failing;
pub(crate) mod files;
mod log_check;
mod session;

use std::fs::File;
use std::path::{Path, PathBuf};

use trust::KekRing;

use crate::rules::{SqlStore, describe};
use crate::sql::{Backend, DbError, Session};
use crate::words::RestoreReport;
use crate::{OpenError, StoreError};

pub use crate::rules::Options;
pub use backup::{RestoreError, restore, verify_backup};

use session::SqliteSession;

/// Name of the data file.
const DATA_FILE: &str = "data.db";
/// Name of the file with the data keys.
const KEYS_FILE: &str = "keystore.db";
/// Name of the lock file.
const LOCK_FILE: &str = "lock";
/// Earliest SQLite whose write-ahead log is free of the reset bug (3.7.0 to 3.51.2 can lose commits).
const SQLITE_AT_LEAST: (i32, &str) = (3_051_003, "3.51.3");
/// In both files: the store's own random id.
const META_STORE_ID: &str = "store";
/// In the key store: the data file was made once, so an empty one is a loss and not a beginning.
const META_COMPLETE: &str = "complete";
/// Most findings of the page check of one file; after so many the file is to be restored, not read on.
const PAGE_FINDINGS_LIMIT: u32 = 100;

/// SQLite files in a directory.
pub struct Sqlite {
    directory: PathBuf,
    /// Held as long as the store lives.
    _lock: File,
}

/// The embedded store.
pub type SqliteStore = SqlStore<Sqlite>;

impl SqliteStore {
    /// Opens the store in a directory, or makes one there.
    ///
    /// # Errors
    /// [`OpenError`]: see its variants. Nothing that exists is changed unless the key-encryption key fits.
    pub fn open(directory: &Path, keks: impl Into<KekRing>, options: Options) -> Result<Self, OpenError> {
        files::open(directory, keks.into(), options, false)
    }
}

impl Backend for Sqlite {
    type Session = SqliteSession;

    // The lock on the directory keeps every other process out.
    const SHARED: bool = false;
    const PLACE: &'static str = DATA_FILE;
    const KEYS_PLACE: &'static str = KEYS_FILE;
    // Rows are stepped through one by one, so that nothing is read in vain.
    const FIRST_BLOCKS: u32 = u32::MAX;
    const ANNOUNCE: &'static str = "SELECT 1";
    const NOW_US: &'static str = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)";

    fn another(&self) -> Result<SqliteSession, StoreError> {
        self.reader(DATA_FILE)
    }

    fn check_pages(session: &SqliteSession) -> Result<Vec<String>, DbError> {
        let mut faults: Vec<String> =
            session.rows(&format!("PRAGMA integrity_check({PAGE_FINDINGS_LIMIT})"), &[], |row| row.get(0))?;
        faults.retain(|line| line != "ok");
        Ok(faults)
    }

    fn claim_fold(_: &SqliteSession) -> Result<bool, DbError> {
        Ok(true)
    }

    fn release_fold(_: &SqliteSession) {}

    /// The log still holds the old pages until it is emptied.
    fn scrub(session: &SqliteSession) -> Result<(), DbError> {
        session.row("PRAGMA wal_checkpoint(TRUNCATE)", &[], |_| Ok(())).map(drop)
    }

    fn overwrite_deleted(session: &SqliteSession, overwrite: bool) -> Result<(), DbError> {
        let sql = if overwrite { "PRAGMA secure_delete = ON" } else { "PRAGMA secure_delete = OFF" };
        session.row(sql, &[], |_| Ok(())).map(drop)
    }

    fn scrub_data(session: &SqliteSession) -> Result<(), DbError> {
        Self::scrub(session)
    }

    fn bytes_literal(hex: &str) -> String {
        format!("x'{hex}'")
    }

    fn backup(
        store: &SqliteStore,
        target: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<RestoreReport, StoreError> {
        store.write_backup(target, progress)
    }
}

impl Sqlite {
    /// One more connection that reads one of the files.
    fn reader(&self, file: &str) -> Result<SqliteSession, StoreError> {
        session::open_reader(&self.directory.join(file)).map_err(|error| match error {
            OpenError::Database { doing, source } => StoreError::Database { doing, source },
            other => StoreError::Damaged { what: file.to_owned(), how: describe(&other) },
        })
    }
}
