//! Backup of the running store, proof of a backup, and restore with proof.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use trust::Kek;
use trust::digest::Sha256;

use super::files::has_content;
use super::session::{SqliteSession, open_failure};
use super::{DATA_FILE, KEYS_FILE, LOCK_FILE, Options, Sqlite, SqliteStore};
use crate::rules::verify::count_table;
use crate::sql::{Backend as _, Begin, Session, read, write};
use crate::words::RestoreReport;
use crate::{OpenError, Store, StoreError};

const DOING: &str = "copying the store";
/// Name of the file with counts and hashes.
const MANIFEST_FILE: &str = "manifest.json";
/// Format of the manifest; later ones take later numbers.
const MANIFEST_FORMAT: u32 = 1;
/// Largest manifest that is read, in bytes.
const MANIFEST_LIMIT_BYTES: u64 = 1024 * 1024;
/// Pages copied between two calls of `progress`: 8 MiB.
const PAGES_PER_STEP: i32 = 1_024;
/// Bytes read at once while hashing.
const HASH_CHUNK_BYTES: usize = 256 * 1024;

/// What a backup says about itself.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Manifest {
    format: u32,
    files: Vec<ManifestFile>,
    counts: Vec<(String, u64)>,
    last_group: u64,
    last_audit: u64,
}

#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct ManifestFile {
    name: String,
    bytes: u64,
    sha256: String,
}

impl Manifest {
    fn report(self) -> RestoreReport {
        RestoreReport {
            files: self.files.into_iter().map(|file| (file.name, file.bytes, file.sha256)).collect(),
            counts: self.counts,
            last_group: self.last_group,
            last_audit: self.last_audit,
        }
    }
}

/// Why a backup could not be proven or restored. Nothing is left behind in the target.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target holds something already.
    #[error("{path} is not empty; name an empty or a new directory")]
    NotEmpty {
        /// Which directory.
        path: PathBuf,
    },
    /// The backup does not say what it should hold.
    #[error("{path} is no backup of this product: {what}")]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file differs from what the manifest says.
    #[error("{path} was changed or damaged since the backup: {what}; use another backup")]
    Changed {
        /// Which file.
        path: PathBuf,
        /// In what way.
        what: String,
    },
    /// What was restored counts differently from what was backed up.
    #[error("the restored store has {found} {of} instead of {expected}")]
    Counts {
        /// What was counted.
        of: String,
        /// In the manifest.
        expected: u64,
        /// In the restored store.
        found: u64,
    },
    /// A file could not be read or written.
    #[error("{doing} {path} failed")]
    File {
        /// What was being done.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The copy could not be opened.
    #[error("the copy could not be opened")]
    Open(#[source] OpenError),
    /// The copy could not be read.
    #[error("the copy could not be read")]
    Store(#[source] StoreError),
}

impl SqliteStore {
    pub(super) fn write_backup(
        &self,
        target: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<RestoreReport, StoreError> {
        let existed = target.exists();
        make_empty(target)?;
        let result = self.copy_into(target, progress);
        if result.is_err() {
            for name in [DATA_FILE, KEYS_FILE, MANIFEST_FILE] {
                let _ = fs::remove_file(target.join(name));
            }
            if !existed {
                let _ = fs::remove_dir(target);
            }
        }
        result
    }

    fn copy_into(
        &self,
        target: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<RestoreReport, StoreError> {
        let (mut data, mut keystore) = (self.backend().reader(DATA_FILE)?, self.backend().reader(KEYS_FILE)?);
        {
            // Keys are made before what they seal and destroyed after it, both under this lock: held for a moment,
            // it gives two snapshots of one instant, in which every key is there.
            let _still = self.writer(DOING)?;
            self.keys().is_still()?;
            begin_snapshot(&mut data)?;
            begin_snapshot(&mut keystore)?;
        }
        let all = pages(&data)? + pages(&keystore)?;
        let mut done = 0;
        for (name, source) in [(KEYS_FILE, &keystore), (DATA_FILE, &data)] {
            copy_file(source, &target.join(name), done, all, progress)?;
            done += pages(source)?;
        }
        #[cfg(feature = "planted")]
        let data =
            if trust::planted("stale-backup") { planted_stale(&target.join(DATA_FILE))? } else { data };
        let manifest = write_manifest_of(target, count(&data)?)?;
        progress(all, all);
        Ok(manifest.report())
    }
}

/// Hashes the copied files and writes the manifest beside them.
fn write_manifest_of(
    target: &Path,
    (counts, last_group, last_audit): Counts,
) -> Result<Manifest, StoreError> {
    let mut files = Vec::new();
    for name in [DATA_FILE, KEYS_FILE] {
        let path = target.join(name);
        let (bytes, sha256) = hash_file(&path).map_err(file_error("reading", &path))?;
        files.push(ManifestFile { name: name.to_owned(), bytes, sha256 });
    }
    let manifest = Manifest { format: MANIFEST_FORMAT, files, counts, last_group, last_audit };
    let path = target.join(MANIFEST_FILE);
    write_manifest(&path, &manifest).map_err(file_error("writing", &path))?;
    sync_directory(target).map_err(file_error("syncing", target))?;
    Ok(manifest)
}

/// Makes a backup of files that were copied row by row: without logs beside them, hashed, with a manifest.
pub(crate) fn finish_backup(target: &Path) -> Result<RestoreReport, StoreError> {
    let failed = |error: rusqlite::Error| write(DOING)(error.into());
    for name in [KEYS_FILE, DATA_FILE] {
        let path = target.join(name);
        let copy = Connection::open(&path).map_err(failed)?;
        copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(failed)?;
        copy.close().map_err(|(_, error)| failed(error))?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(file_error("syncing", &path))?;
    }
    let lock = target.join(LOCK_FILE);
    fs::remove_file(&lock).map_err(file_error("removing", &lock))?;
    let data = Connection::open(target.join(DATA_FILE)).map(SqliteSession).map_err(failed)?;
    let counts = count(&data)?;
    drop(data);
    write_manifest_of(target, counts).map(Manifest::report)
}

/// Removes what is there of an unfinished copy.
pub(crate) fn remove_backup(target: &Path) {
    for name in [DATA_FILE, KEYS_FILE, LOCK_FILE, MANIFEST_FILE] {
        for ending in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(target.join(format!("{name}{ending}")));
        }
    }
}

/// A bug on purpose: the newest groups are missing in the copy, and nothing says so. Most of the journal, for while a backup
/// is being asked for, many groups are committed of which nobody expects that it has them.
#[cfg(feature = "planted")]
fn planted_stale(path: &Path) -> Result<SqliteSession, StoreError> {
    let failed = |error: rusqlite::Error| write(DOING)(error.into());
    let copy = Connection::open(path).map_err(failed)?;
    for table in ["group_summary", "journal"] {
        let newest = "SELECT max(number) - count(*) * 3 / 4 FROM journal";
        let sql = format!("DELETE FROM {table} WHERE number > ({newest})");
        copy.execute(&sql, []).map_err(failed)?;
    }
    Ok(SqliteSession(copy))
}

/// Proves a backup without restoring it: hashes, keys and counts.
///
/// # Errors
/// [`RestoreError`]: what is wrong with it.
pub fn verify_backup(backup: &Path, kek: &Kek) -> Result<RestoreReport, RestoreError> {
    let manifest = read_manifest(backup)?;
    check_files(backup, &manifest)?;
    check_key(backup, kek)?;
    let path = backup.join(DATA_FILE);
    let data = open_still(&path)?;
    let faults = Sqlite::check_pages(&data).map_err(|error| RestoreError::Store(read(DOING)(error)))?;
    if let Some(fault) = faults.into_iter().next() {
        return Err(RestoreError::Changed { path, what: fault });
    }
    check_counts(&manifest, &data)?;
    Ok(manifest.report())
}

/// Restores a backup into an empty or new directory, and proves it: hashes before, key and counts after.
///
/// # Errors
/// [`RestoreError`]; the target is as it was before then.
pub fn restore(
    backup: &Path,
    target: &Path,
    kek: impl Into<Arc<Kek>>,
) -> Result<RestoreReport, RestoreError> {
    let kek = kek.into();
    let manifest = read_manifest(backup)?;
    check_files(backup, &manifest)?;
    check_key(backup, &kek)?;
    let existed = target.exists();
    if existed && fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(RestoreError::NotEmpty { path: target.to_owned() });
    }
    super::files::make_directory(target).map_err(restore_error("making", target))?;
    let result = copy_back(backup, target, kek, &manifest);
    if result.is_err() {
        // Everything in it is ours: it was empty.
        for entry in fs::read_dir(target).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        if !existed {
            let _ = fs::remove_dir(target);
        }
    }
    result.map(|()| manifest.report())
}

fn copy_back(backup: &Path, target: &Path, kek: Arc<Kek>, manifest: &Manifest) -> Result<(), RestoreError> {
    for name in [KEYS_FILE, DATA_FILE] {
        let path = target.join(name);
        fs::copy(backup.join(name), &path).map_err(restore_error("writing", &path))?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(restore_error("syncing", &path))?;
    }
    sync_directory(target).map_err(restore_error("syncing", target))?;
    mark_restored(&target.join(DATA_FILE))?;
    let store = SqliteStore::open(target, kek, Options::default()).map_err(RestoreError::Open)?;
    check_counts(manifest, &*store.reader(DOING).map_err(RestoreError::Store)?)?;
    same("last group", manifest.last_group, store.last_group())?;
    Ok(())
}

/// Lets the next start begin a new epoch of the log: what was logged after the backup is gone, and shall not be denied.
fn mark_restored(path: &Path) -> Result<(), RestoreError> {
    let failed = |source| RestoreError::Open(open_failure(path, "marking the copy", source));
    let data = Connection::open(path).map_err(failed)?;
    data.execute(
        "INSERT OR REPLACE INTO meta(name, value) VALUES(?1, ?2)",
        (crate::rules::META_RESTORED, &b"1"[..]),
    )
    .map_err(failed)?;
    data.close().map_err(|(_, error)| failed(error))
}

fn begin_snapshot(session: &mut SqliteSession) -> Result<(), StoreError> {
    session.begin(Begin::Snapshot).map_err(read(DOING))?;
    // The snapshot is taken with the first read.
    session.one::<u64>("SELECT count(*) FROM meta", &[]).map(drop).map_err(read(DOING))
}

fn pages(session: &SqliteSession) -> Result<u64, StoreError> {
    session.one("PRAGMA page_count", &[]).map_err(read(DOING))
}

fn copy_file(
    source: &SqliteSession,
    path: &Path,
    done: u64,
    all: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| write(DOING)(error.into());
    let mut copy = Connection::open(path).map_err(failed)?;
    copy.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    {
        let backup = Backup::new(&source.0, &mut copy).map_err(failed)?;
        loop {
            let step = backup.step(PAGES_PER_STEP).map_err(failed)?;
            let state = backup.progress();
            let copied = (state.pagecount - state.remaining).max(0) as u64;
            progress((done + copied).min(all), all);
            if step == StepResult::Done {
                break;
            }
        }
    }
    // One file without a log beside it: it can be hashed, and read from a medium that cannot be written.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(failed)?;
    copy.close().map_err(|(_, error)| failed(error))?;
    File::open(path).and_then(|file| file.sync_all()).map_err(file_error("syncing", path))
}

type Counts = (Vec<(String, u64)>, u64, u64);

fn count(session: &SqliteSession) -> Result<Counts, StoreError> {
    let mut counts = Vec::new();
    for table in crate::rules::tables::sealed().map(|table| table.name) {
        counts.push((table.to_owned(), count_table(session, table)?));
    }
    let of = |sql: &str| session.one(sql, &[]).map_err(read(DOING));
    counts.push(("series".to_owned(), count_table(session, "series")?));
    counts.push(("readings in blocks".to_owned(), of("SELECT coalesce(sum(count), 0) FROM block")?));
    let last_group = of("SELECT coalesce(max(number), 0) FROM group_summary")?;
    let last_audit = of("SELECT coalesce(max(sequence), 0) FROM audit")?;
    Ok((counts, last_group, last_audit))
}

fn check_counts(manifest: &Manifest, session: &SqliteSession) -> Result<(), RestoreError> {
    let (counts, last_group, last_audit) = count(session).map_err(RestoreError::Store)?;
    for (of, expected) in &manifest.counts {
        let found = counts.iter().find(|(name, _)| name == of).map_or(0, |(_, found)| *found);
        same(of, *expected, found)?;
    }
    same("last group", manifest.last_group, last_group)?;
    same("last audit sequence", manifest.last_audit, last_audit)
}

fn same(of: &str, expected: u64, found: u64) -> Result<(), RestoreError> {
    if expected == found { Ok(()) } else { Err(RestoreError::Counts { of: of.to_owned(), expected, found }) }
}

/// Compares the fingerprint in a copied key store.
fn check_key(backup: &Path, kek: &Kek) -> Result<(), RestoreError> {
    let path = backup.join(KEYS_FILE);
    let expected: Vec<u8> = open_still(&path)?
        .one("SELECT value FROM meta WHERE name = 'kek'", &[])
        .map_err(|error| RestoreError::Store(read("reading the key store")(error)))?;
    let given = kek.fingerprint_text();
    if expected == given.as_bytes() {
        return Ok(());
    }
    let expected = String::from_utf8_lossy(&expected).chars().take(64).collect();
    Err(RestoreError::Open(OpenError::WrongKey { given, expected }))
}

/// Opens a file that nobody writes, without making any file beside it.
fn open_still(path: &Path) -> Result<SqliteSession, RestoreError> {
    let failed = |source| RestoreError::Open(open_failure(path, "opening the copy", source));
    // The only characters that mean something in the path of a file URI.
    let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
        .map(SqliteSession)
        .map_err(failed)
}

fn check_files(backup: &Path, manifest: &Manifest) -> Result<(), RestoreError> {
    for name in [DATA_FILE, KEYS_FILE] {
        let path = backup.join(name);
        let Some(file) = manifest.files.iter().find(|file| file.name == name) else {
            let what = format!("it does not list {name}");
            return Err(RestoreError::Manifest { path: backup.join(MANIFEST_FILE), what });
        };
        if !has_content(&path) {
            return Err(RestoreError::Changed { path, what: "it is missing or empty".to_owned() });
        }
        let (bytes, sha256) = hash_file(&path).map_err(restore_error("reading", &path))?;
        if bytes != file.bytes {
            let what = format!("it has {bytes} bytes instead of {}", file.bytes);
            return Err(RestoreError::Changed { path, what });
        }
        if sha256 != file.sha256 {
            return Err(RestoreError::Changed { path, what: "its SHA-256 is another".to_owned() });
        }
    }
    Ok(())
}

fn read_manifest(backup: &Path) -> Result<Manifest, RestoreError> {
    let path = backup.join(MANIFEST_FILE);
    let mut text = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MANIFEST_LIMIT_BYTES).read_to_end(&mut text))
        .map_err(restore_error("reading", &path))?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| RestoreError::Manifest { path: path.clone(), what: error.to_string() })?;
    if manifest.format != MANIFEST_FORMAT {
        let what = format!("it has format {}, this release knows {MANIFEST_FORMAT}", manifest.format);
        return Err(RestoreError::Manifest { path, what });
    }
    Ok(manifest)
}

fn write_manifest(path: &Path, manifest: &Manifest) -> std::io::Result<()> {
    let file = File::create(path)?;
    serde_json::to_writer_pretty(&file, manifest)?;
    file.sync_all()
}

pub(crate) fn make_empty(target: &Path) -> Result<(), StoreError> {
    super::files::make_directory(target).map_err(file_error("making", target))?;
    let mut entries = fs::read_dir(target).map_err(file_error("reading", target))?;
    if entries.next().is_some() {
        let source = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
        return Err(file_error("backing up into", target)(source));
    }
    Ok(())
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Bytes and SHA-256 of a file.
fn hash_file(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        digest.update(&chunk[..read]);
        bytes += read as u64;
    }
    let text = digest.finish().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, text))
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { doing, path, source }
}

fn restore_error(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::File { doing, path, source }
}
