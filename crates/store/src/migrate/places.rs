//! The two ends of a move: how each database is read beside running servers, made ready, and held alone.

use std::any::Any;
use std::path::{Path, PathBuf};

use trust::Kek;

use super::{META_MOVING, MoveError, copy, database};
use crate::postgres::{PgStore, Postgres, raw};
use crate::rules::{META_EPOCH, META_RESTORED, Options, SqlStore};
use crate::sql::{Backend, Begin, DbError, Fault, Session, read, values, write};
use crate::sqlite::{Sqlite, files};
use crate::words::RestoreReport;
use crate::{OpenError, StoreError};

/// A directory or a database.
#[derive(Clone)]
pub enum Place {
    /// A directory with SQLite files.
    Files(PathBuf),
    /// A PostgreSQL database: its URL, which may hold a password.
    Database(String),
}

impl Place {
    /// A URL that begins with `postgres://` or `postgresql://`, else a path.
    pub fn parse(text: &str) -> Self {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Place::Database(text.to_owned())
        } else {
            Place::Files(PathBuf::from(text))
        }
    }
}

/// Shows no password.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Files(path) => write!(f, "{}", path.display()),
            Place::Database(url) => f.write_str(&raw::shown(url)),
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({self})")
    }
}

/// Whatever keeps others out as long as it lives.
pub(super) type Held = Box<dyn Any>;

/// Connections to one end.
pub(super) struct Side<B: Backend> {
    pub(super) data: B::Session,
    /// To the keys, where they stand in a file of their own.
    pub(super) keys: Option<B::Session>,
    /// Dropped after the connections.
    _held: Held,
}

impl<B: Backend> Side<B> {
    pub(super) fn keys(&self) -> &B::Session {
        self.keys.as_ref().unwrap_or(&self.data)
    }

    fn meta(&self, session: &B::Session, name: &str) -> Result<Option<Vec<u8>>, MoveError> {
        session
            .row("SELECT value FROM meta WHERE name = ?1", &values![name], |row| row.get(0))
            .map_err(database("reading what the store says about itself".to_owned()))
    }

    /// The store's own id.
    pub(super) fn store_id(&self) -> Result<Vec<u8>, MoveError> {
        self.meta(self.keys(), "store")?.ok_or(MoveError::NoStore { place: B::PLACE.to_owned() })
    }

    /// Refuses a key-encryption key that does not open this store.
    fn check_kek(&self, place: &Place, kek: &Kek) -> Result<(), MoveError> {
        let given = kek.fingerprint_text();
        match self.meta(self.keys(), "kek")? {
            Some(expected) if expected == given.as_bytes() => Ok(()),
            Some(expected) => {
                let expected = String::from_utf8_lossy(&expected).into_owned();
                let source = OpenError::WrongKey { given, expected };
                Err(MoveError::Open { place: place.to_string(), source })
            }
            None => Err(MoveError::NoStore { place: place.to_string() }),
        }
    }

    /// Marks a new target, or finds the mark of the same move.
    fn mark(&self, place: &Place, id: &[u8]) -> Result<(), MoveError> {
        match self.meta(&self.data, META_MOVING)? {
            Some(moving) if moving == id => Ok(()),
            None if self.meta(self.keys(), "store")?.is_none() => self
                .data
                .execute("INSERT INTO meta(name, value) VALUES(?1, ?2)", &values![META_MOVING, id])
                .map(drop)
                .map_err(database("marking the target".to_owned())),
            _ => Err(MoveError::NotEmpty { place: place.to_string() }),
        }
    }
}

fn set_meta<S: Session>(session: &S, name: &str, value: &[u8]) -> Result<(), DbError> {
    session
        .execute(
            "INSERT INTO meta(name, value) VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
            &values![name, value],
        )
        .map(drop)
}

fn opening(place: &Place) -> impl Fn(OpenError) -> MoveError {
    let place = place.to_string();
    move |source| match source {
        OpenError::InUse { .. } => MoveError::InUse { place: place.clone() },
        source => MoveError::Open { place: place.clone(), source },
    }
}

/// Copies what the data say of the log's epoch: without it a moved log would not know its own checkpoints.
pub(super) fn copy_epoch<F: Session, T: Session>(from: &F, to: &T) -> Result<(), DbError> {
    for name in [META_EPOCH, META_RESTORED] {
        let sql = "SELECT value FROM meta WHERE name = ?1";
        match from.row::<Vec<u8>>(sql, &values![name], |row| row.get(0))? {
            Some(value) => set_meta(to, name, &value)?,
            None => to.execute("DELETE FROM meta WHERE name = ?1", &values![name]).map(drop)?,
        }
    }
    Ok(())
}

/// A database that can be either end.
pub(super) trait Movable: Backend {
    /// Opens the store with nobody else on it; also one that is marked, where it is the target.
    fn alone(place: &Place, kek: Kek, is_target: bool) -> Result<SqlStore<Self>, MoveError>;

    /// Reads a store, beside the servers that may run on it.
    fn source(place: &Place, kek: &Kek) -> Result<Side<Self>, MoveError>;

    /// Makes the tables of a target ready and keeps servers away.
    fn target(place: &Place, id: &[u8]) -> Result<Side<Self>, MoveError>;

    /// Counts what was copied, where the database keeps counters.
    fn settle(side: &mut Side<Self>) -> Result<(), DbError>;

    /// Makes the target say who it is and by which key its keys are wrapped.
    fn name(side: &mut Side<Self>, id: &[u8], kek: &Kek) -> Result<(), DbError>;
}

fn path_of(place: &Place) -> &Path {
    match place {
        Place::Files(path) => path,
        // Chosen by the kind of place, so never.
        Place::Database(_) => Path::new(""),
    }
}

fn url_of(place: &Place) -> &str {
    match place {
        Place::Database(url) => url,
        Place::Files(_) => "",
    }
}

impl Movable for Sqlite {
    fn alone(place: &Place, kek: Kek, is_target: bool) -> Result<SqlStore<Self>, MoveError> {
        files::open(path_of(place), kek.into(), Options::default(), is_target).map_err(opening(place))
    }

    fn source(place: &Place, kek: &Kek) -> Result<Side<Self>, MoveError> {
        let Some((data, keys)) = files::beside(path_of(place)).map_err(opening(place))? else {
            return Err(MoveError::NoStore { place: place.to_string() });
        };
        let side = Side { data, keys: Some(keys), _held: Box::new(()) };
        side.check_kek(place, kek)?;
        Ok(side)
    }

    fn target(place: &Place, id: &[u8]) -> Result<Side<Self>, MoveError> {
        let (data, keys, held) = files::make(path_of(place)).map_err(opening(place))?;
        let side = Side { data, keys: Some(keys), _held: Box::new(held) };
        side.mark(place, id)?;
        Ok(side)
    }

    fn settle(_: &mut Side<Self>) -> Result<(), DbError> {
        Ok(())
    }

    fn name(side: &mut Side<Self>, id: &[u8], kek: &Kek) -> Result<(), DbError> {
        set_meta(&side.data, "store", id)?;
        let keys = side.keys();
        set_meta(keys, "kek", kek.fingerprint_text().as_bytes())?;
        set_meta(keys, "store", id)?;
        set_meta(keys, "complete", b"1")
    }
}

impl Movable for Postgres {
    fn alone(place: &Place, kek: Kek, is_target: bool) -> Result<SqlStore<Self>, MoveError> {
        raw::open_alone(url_of(place), kek.into(), is_target).map_err(opening(place))
    }

    fn source(place: &Place, kek: &Kek) -> Result<Side<Self>, MoveError> {
        let (data, held) = raw::connect(url_of(place)).map_err(opening(place))?;
        let exists = data.one::<Option<String>>("SELECT CAST(to_regclass('meta') AS TEXT)", &[]);
        if exists.map_err(database("looking for a store".to_owned()))?.is_none() {
            return Err(MoveError::NoStore { place: place.to_string() });
        }
        let side = Side { data, keys: None, _held: Box::new(held) };
        side.check_kek(place, kek)?;
        Ok(side)
    }

    fn target(place: &Place, id: &[u8]) -> Result<Side<Self>, MoveError> {
        let (data, held) = raw::make(url_of(place)).map_err(opening(place))?;
        let side = Side { data, keys: None, _held: Box::new(held) };
        side.mark(place, id)?;
        Ok(side)
    }

    fn settle(side: &mut Side<Self>) -> Result<(), DbError> {
        side.data.batch(
            "UPDATE counter SET value = (SELECT coalesce(max(number), 0) FROM group_summary) WHERE name = 'group';
             UPDATE counter SET value = coalesce((SELECT min(number) - 1 FROM journal),
                 (SELECT coalesce(max(number), 0) FROM group_summary)) WHERE name = 'folded';
             SELECT setval(pg_get_serial_sequence('data_key', 'number'),
                 (SELECT coalesce(max(number), 0) + 1 FROM data_key), false)",
        )
    }

    fn name(side: &mut Side<Self>, id: &[u8], kek: &Kek) -> Result<(), DbError> {
        set_meta(&side.data, "kek", kek.fingerprint_text().as_bytes())?;
        set_meta(&side.data, "store", id)
    }
}

/// Copies a running database, as it is at one instant, into a backup of files that restores like any other.
pub(crate) fn backup_into_files(
    store: &PgStore,
    target: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RestoreReport, StoreError> {
    const DOING: &str = "copying the database";
    files::make_empty(target)?;
    let outcome = (|| {
        let mut data = store.backend().another()?;
        data.begin(Begin::Snapshot).map_err(read(DOING))?;
        let rows = store.count_rows(&data)?;
        let source: Side<Postgres> = Side { data, keys: None, _held: Box::new(()) };
        let place = Place::Files(target.to_owned());
        store.keys().is_still()?;
        let kek = store.keys().kek();
        let failed = |error: MoveError| match error {
            MoveError::Store(error) => error,
            MoveError::Open { source, .. } => StoreError::Database { doing: DOING, source: source.into() },
            error => write(DOING)(DbError { fault: Fault::Other, source: error.into() }),
        };
        let id = source.store_id().map_err(failed)?;
        let mut copied = Sqlite::target(&place, &id).map_err(failed)?;
        copy(&source, &mut copied, (&kek, &kek), &mut |done| progress(done.min(rows), rows))
            .map_err(failed)?;
        Sqlite::name(&mut copied, &id, &kek).map_err(write(DOING))?;
        copied
            .data
            .execute("DELETE FROM meta WHERE name = ?1", &values![META_MOVING])
            .map_err(write(DOING))?;
        drop(copied);
        files::finish_backup(target)
    })();
    if outcome.is_err() {
        files::remove_backup(target);
    }
    outcome
}
