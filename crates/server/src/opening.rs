//! Which store: the one in the data directory, or the database that the settings name; opened once for every command.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use store::Store;
use store::postgres::PgStore;
use store::sqlite::SqliteStore;
use trust::KekRing;

use crate::config::{Config, DatabaseUrl};
use crate::kek;

/// Held while a node runs: two nodes in one data directory would take each other's admin socket and authority.
const NODE_LOCK_FILE: &str = "node.lock";

/// Opens the store of the settings, or makes it where there is none.
///
/// # Errors
/// What failed, where, and what to do. The password of a database is never part of it.
pub fn open(config: &Config, kek: impl Into<KekRing>) -> anyhow::Result<Arc<dyn Store>> {
    match config.store.url()? {
        Some(url) => database(&url, kek),
        None => Ok(Arc::new(directory(&config.site.data_dir, kek)?)),
    }
}

/// Opens a store that is there already, for a command beside the server. Never makes one in a directory.
///
/// # Errors
/// When there is none, it is in use, or the key does not fit.
pub fn open_existing(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let data_dir = &config.site.data_dir;
    if config.store.url()?.is_none() && !data_dir.join("data.db").exists() {
        bail!("there is no store in {}; name another directory with --data DIR", data_dir.display());
    }
    open(config, kek::ring(config)?)
}

/// Opens a store in a directory.
///
/// # Errors
/// As [`open`].
pub fn directory(path: &Path, kek: impl Into<KekRing>) -> anyhow::Result<SqliteStore> {
    SqliteStore::open(path, kek, store::sqlite::Options::default())
        .with_context(|| format!("the store in {} cannot be opened", path.display()))
}

/// Opens a store in a database.
///
/// # Errors
/// As [`open`].
pub fn database(url: &DatabaseUrl, kek: impl Into<KekRing>) -> anyhow::Result<Arc<dyn Store>> {
    let store = PgStore::open(url.expose(), kek, store::postgres::Options::default());
    Ok(Arc::new(store.with_context(|| format!("the store in {url} cannot be opened"))?))
}

/// Makes sure that this node is the only one in its data directory, as long as the answer lives.
///
/// # Errors
/// When another node has it, or it cannot be written.
pub fn hold_directory(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join(NODE_LOCK_FILE);
    let shown = path.display();
    let file = File::options().create(true).write(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("{shown} cannot be made"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!(
            "another server runs in {}; nodes that share a database need a data directory each (--data DIR)",
            data_dir.display()
        ),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{shown} cannot be locked"))
        }
    }
}
