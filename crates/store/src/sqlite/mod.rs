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
mod log_check;
mod session;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trust::Kek;

use crate::rules::keys::{KekFault, Keys};
use crate::rules::news::Bell;
use crate::rules::{LoadFault, READ_CONNECTIONS, Sessions, SqlStore, describe, schema};
use crate::sql::{Backend, DbError, Session, values};
use crate::words::{News, RestoreReport};
use crate::{OpenError, StoreError};

pub use crate::rules::Options;
pub use backup::{RestoreError, restore, verify_backup};

use session::{SqliteSession, open_failure, open_fault};

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
    pub fn open(directory: &Path, kek: Kek, options: Options) -> Result<Self, OpenError> {
        if rusqlite::version_number() < SQLITE_AT_LEAST.0 {
            return Err(OpenError::OldSqlite { found: rusqlite::version().to_owned() });
        }
        make_directory(directory).map_err(|e| unusable(directory, "cannot be made", e))?;
        let held = take_lock(directory)?;
        let data_path = directory.join(DATA_FILE);
        let keys_path = directory.join(KEYS_FILE);
        log_check::check(&keys_path)?;
        log_check::check(&data_path)?;
        let session = session::open_keys(&keys_path, !has_content(&data_path))?;
        let given = kek.fingerprint_text();
        let keys = Keys::open(session, kek, options.journal_key_life).map_err(|fault| match fault {
            KekFault::Another { expected } => OpenError::WrongKey { given, expected },
            KekFault::Unnamed => OpenError::Damaged {
                path: keys_path.clone(),
                what: "it holds keys but does not say by which key they are wrapped".to_owned(),
            },
            KekFault::Database(error) => open_fault(&keys_path, "reading the key store", error),
        })?;
        let complete =
            keys.meta(META_COMPLETE).map_err(|e| open_fault(&keys_path, "reading the key store", e))?;
        let mut writer = session::open_writer(&data_path, complete.is_none())?;
        schema::migrate(&mut writer, schema::DATA).map_err(|error| match error {
            schema::MigrateError::TooNew { found, known } => OpenError::TooNew { found, known },
            schema::MigrateError::Database(e) => open_failure(&data_path, "migrating the data file", e),
        })?;
        let writer = SqliteSession(writer);
        match_files(&writer, &keys, complete.is_some(), &data_path)?;
        log_check::settle(&writer.0, &data_path)?;
        let doing = "emptying the log";
        let in_keys = |error| OpenError::Damaged { path: keys_path.clone(), what: describe(&error) };
        log_check::settle(&keys.session(doing).map_err(in_keys)?.0, &keys_path)?;
        let readers = (0..READ_CONNECTIONS).map(|_| session::open_reader(&data_path));
        let sessions = Sessions {
            writer,
            acts: None,
            folding: session::open_reader(&data_path)?,
            readers: readers.collect::<Result<_, _>>()?,
        };
        let backend = Sqlite { directory: directory.to_owned(), _lock: held };
        let news = Arc::new(Bell::new(News::default()));
        SqlStore::load(backend, options, keys, sessions, news).map_err(|fault| match fault {
            LoadFault::Database(error) => open_fault(&data_path, "reading the data file", error),
            LoadFault::Damaged(what) => OpenError::Damaged { path: data_path, what },
            LoadFault::Keys(error) => OpenError::Damaged { path: keys_path, what: describe(&error) },
            LoadFault::Store(StoreError::Database { doing, source }) => OpenError::Database { doing, source },
            LoadFault::Store(error) => OpenError::Damaged { path: data_path, what: describe(&error) },
        })
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

    fn announce(_: &SqliteSession) -> Result<(), DbError> {
        Ok(())
    }

    /// The log still holds the old pages until it is emptied.
    fn scrub(session: &SqliteSession) -> Result<(), DbError> {
        session.row("PRAGMA wal_checkpoint(TRUNCATE)", &[], |_| Ok(())).map(drop)
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

fn unusable(path: &Path, what: &str, source: std::io::Error) -> OpenError {
    OpenError::Path { path: path.to_owned(), what: what.to_owned(), source: Some(source) }
}

/// Makes a directory that only its owner may enter; one that exists is left as it is.
fn make_directory(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn take_lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| unusable(&path, "the lock file cannot be opened", e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path }),
        Err(TryLockError::Error(error)) => Err(unusable(&path, "the lock file cannot be locked", error)),
    }
}

/// Whether a file exists and is not empty. The library takes an empty file for a new database.
fn has_content(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Proves that both files belong together; marks them when they are new. The key store is marked first, and
/// again when the data file is: a process that ends in between leaves nothing that looks like damage.
fn match_files(
    writer: &SqliteSession,
    keys: &Keys<Sqlite>,
    complete: bool,
    path: &Path,
) -> Result<(), OpenError> {
    let failed = |error| open_fault(path, "reading the data file", error);
    let expected = keys.meta(META_STORE_ID).map_err(failed)?.unwrap_or_default();
    let found: Option<Vec<u8>> = writer
        .row("SELECT value FROM meta WHERE name = ?1", &values![META_STORE_ID], |row| row.get(0))
        .map_err(failed)?;
    match &found {
        None if !complete => {
            writer
                .execute("INSERT INTO meta(name, value) VALUES(?1, ?2)", &values![META_STORE_ID, &expected])
                .map_err(failed)?;
        }
        Some(found) if *found == expected => {}
        _ => {
            let what = format!("it does not belong to {KEYS_FILE} beside it");
            return Err(OpenError::Damaged { path: path.to_owned(), what });
        }
    }
    if complete { Ok(()) } else { keys.set_meta(META_COMPLETE, b"1").map_err(failed) }
}
