//! The files of a store: opened for serving, made for a copy, read beside a server, and held by one process.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use trust::KekRing;

use super::session::{self, SqliteSession, open_failure, open_fault};
use super::{
    DATA_FILE, KEYS_FILE, LOCK_FILE, META_COMPLETE, META_STORE_ID, Options, SQLITE_AT_LEAST, Sqlite,
    SqliteStore, log_check,
};
use crate::migrate::META_MOVING;
use crate::rules::keys::{KekFault, Keys};
use crate::rules::news::Bell;
use crate::rules::{LoadFault, READ_CONNECTIONS, Sessions, SqlStore, describe, schema};
use crate::sql::{DbError, Session, values};
use crate::words::News;
use crate::{OpenError, StoreError};

pub(crate) use super::backup::{finish_backup, make_empty, remove_backup};

/// Opens the store in a directory, or makes one there; one that is marked as the target of a move only for that move.
pub(crate) fn open(
    directory: &Path,
    kek: KekRing,
    options: Options,
    is_target: bool,
) -> Result<SqliteStore, OpenError> {
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
    let given = kek.current().fingerprint_text();
    let keys = Keys::open(session, kek, options.journal_key_life).map_err(|fault| match fault {
        KekFault::Another { expected } => OpenError::WrongKey { given, expected },
        KekFault::Source(error) => OpenError::KeySource(error),
        KekFault::Unnamed => OpenError::Damaged {
            path: keys_path.clone(),
            what: "it holds keys but does not say by which key they are wrapped".to_owned(),
        },
        KekFault::Database(error) => open_fault(&keys_path, "reading the key store", error),
    })?;
    let complete =
        keys.meta(META_COMPLETE).map_err(|e| open_fault(&keys_path, "reading the key store", e))?;
    let mut writer = session::open_writer(&data_path, complete.is_none())?;
    migrate(&mut writer, &data_path)?;
    let writer = SqliteSession(writer);
    if !is_target && is_marked(&writer).map_err(|e| open_fault(&data_path, "reading the data file", e))? {
        return Err(OpenError::Unfinished { path: directory.to_owned() });
    }
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

/// Whether a move into the store was not finished.
fn is_marked(session: &SqliteSession) -> Result<bool, DbError> {
    let found = session.row("SELECT 1 FROM meta WHERE name = ?1", &values![META_MOVING], |_| Ok(()))?;
    Ok(found.is_some())
}

/// Sessions with the data and the keys of a store that another process may be serving; `None` where there is none, or
/// one of another format.
pub(crate) fn beside(directory: &Path) -> Result<Option<(SqliteSession, SqliteSession)>, OpenError> {
    let (data, keys) = (directory.join(DATA_FILE), directory.join(KEYS_FILE));
    if !has_content(&data) || !has_content(&keys) {
        return Ok(None);
    }
    let sessions = (session::open_reader(&data)?, session::open_reader(&keys)?);
    let current = |path: &Path, session: &SqliteSession, scripts: &[&str]| {
        let found = schema::version(&session.0).map_err(|e| open_failure(path, "reading the file", e))?;
        Ok::<_, OpenError>(found as usize == scripts.len())
    };
    let fit = current(&data, &sessions.0, schema::DATA)? && current(&keys, &sessions.1, schema::KEYSTORE)?;
    Ok(fit.then_some(sessions))
}

/// Sessions with the data and the keys of a store that is being made, and the lock that keeps servers away.
pub(crate) fn make(directory: &Path) -> Result<(SqliteSession, SqliteSession, File), OpenError> {
    make_directory(directory).map_err(|e| unusable(directory, "cannot be made", e))?;
    let held = take_lock(directory)?;
    let data = directory.join(DATA_FILE);
    let keys = session::open_keys(&directory.join(KEYS_FILE), true)?;
    let mut writer = session::open_writer(&data, true)?;
    migrate(&mut writer, &data)?;
    Ok((SqliteSession(writer), keys, held))
}

fn migrate(writer: &mut rusqlite::Connection, path: &Path) -> Result<(), OpenError> {
    schema::migrate(writer, schema::DATA).map_err(|error| match error {
        schema::MigrateError::TooNew { found, known } => OpenError::TooNew { found, known },
        schema::MigrateError::Database(e) => open_failure(path, "migrating the data file", e),
    })
}

fn unusable(path: &Path, what: &str, source: std::io::Error) -> OpenError {
    OpenError::Path { path: path.to_owned(), what: what.to_owned(), source: Some(source) }
}

/// Makes a directory that only its owner may enter; one that exists is left as it is.
pub(super) fn make_directory(path: &Path) -> std::io::Result<()> {
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
pub(super) fn has_content(path: &Path) -> bool {
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
