//! The store on PostgreSQL: the same rules, for several server nodes over one database.
//!
//! Groups are numbered under a lock on one row, so that numbers stand in the order of the commits of all nodes; documents
//! and audit rows likewise. The database's own acknowledgement of a commit is ours. A commit whose answer was lost is
//! looked up by its transaction id before anybody is told anything. The data keys stand in the same database, wrapped;
//! the key-encryption key lives elsewhere.

mod address;
mod io;
mod listen;
mod session;
mod setup;
mod tls;

use std::path::Path;
use std::sync::Arc;

use trust::Kek;

use crate::rules::keys::{KekFault, Keys};
use crate::rules::news::Bell;
use crate::rules::{LoadFault, READ_CONNECTIONS, Sessions, SqlStore, describe};
use crate::sql::{Backend, DbError, Session};
use crate::words::{News, RestoreReport};
use crate::{OpenError, StoreError};

pub use crate::rules::Options;

use address::Address;
use io::{Connector, Io};
use session::PgSession;

/// First halves of the keys of advisory locks; the second is the schema, so that several stores may share a database.
const LOCK_SETUP: i32 = 0x4175_0001;
/// Held by the one who folds.
const LOCK_FOLD: i32 = 0x4175_0002;
/// Held, shared, by everybody who serves; alone by the one who moves the store.
const LOCK_SERVE: i32 = 0x4175_0003;

/// A PostgreSQL database.
pub struct Postgres {
    connector: Arc<Connector>,
    /// Last: it ends all connections.
    _io: Io,
}

/// The store on PostgreSQL.
pub type PgStore = SqlStore<Postgres>;

impl PgStore {
    /// Opens the store in a database, or makes one there. `url` is `postgres://user:password@host:port/database`;
    /// `sslmode` may be `disable`, `prefer`, `require` or `verify-full`, and `sslrootcert` names the authority.
    ///
    /// # Errors
    /// [`OpenError`]: see its variants. Nothing that exists is changed unless the key-encryption key fits.
    pub fn open(url: &str, kek: Kek, options: Options) -> Result<Self, OpenError> {
        let address = Address::parse(url)?;
        let server = address.shown();
        let io = Io::start().map_err(|source| OpenError::Unreachable {
            server: server.clone(),
            doing: "starting the thread that talks to it",
            source: source.into(),
        })?;
        let connector = Arc::new(Connector::new(address, io.handle())?);
        let open_failure = |doing| setup::failure(&server, doing);
        let connect = |serving| {
            let mut session = PgSession::new(Arc::clone(&connector), serving);
            session.ready().map(|()| session).map_err(open_failure("connecting"))
        };
        // Whoever comes first makes the tables and the keys; the others wait here.
        let first = connect(false)?;
        setup::prepare(&first, &server)?;
        let given = kek.fingerprint_text();
        let keys =
            Keys::open(connect(false)?, kek, options.journal_key_life).map_err(|fault| match fault {
                KekFault::Another { expected } => OpenError::WrongKey { given, expected },
                KekFault::Unnamed => OpenError::Damaged {
                    path: server.clone().into(),
                    what: "it holds keys but does not say by which key they are wrapped".to_owned(),
                },
                KekFault::Database(error) => open_failure("reading the keys")(error),
            })?;
        let readers = (0..READ_CONNECTIONS).map(|_| connect(false));
        let sessions = Sessions {
            writer: connect(true)?,
            acts: Some(connect(true)?),
            folding: connect(false)?,
            readers: readers.collect::<Result<_, _>>()?,
        };
        let news = Arc::new(Bell::new(News::default()));
        listen::start(Arc::clone(&connector), Arc::downgrade(&news));
        let backend = Postgres { connector: Arc::clone(&connector), _io: io };
        SqlStore::load(backend, options, keys, sessions, news).map_err(|fault| match fault {
            LoadFault::Database(error) => open_failure("reading what is kept")(error),
            LoadFault::Damaged(what) => OpenError::Damaged { path: server.clone().into(), what },
            LoadFault::Store(StoreError::Unavailable { doing, source }) => {
                OpenError::Unreachable { server: server.clone(), doing, source }
            }
            LoadFault::Store(StoreError::Database { doing, source }) => OpenError::Database { doing, source },
            LoadFault::Keys(error) | LoadFault::Store(error) => {
                OpenError::Damaged { path: server.clone().into(), what: describe(&error) }
            }
        })
    }
}

impl Backend for Postgres {
    type Session = PgSession;

    const SHARED: bool = true;
    const PLACE: &'static str = "postgres";
    const KEYS_PLACE: &'static str = "postgres";
    const FIRST_BLOCKS: u32 = 4;
    const NOW_US: &'static str = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";

    fn another(&self) -> Result<PgSession, StoreError> {
        let mut session = PgSession::new(Arc::clone(&self.connector), false);
        session.ready().map_err(crate::sql::read("opening one more connection"))?;
        Ok(session)
    }

    /// The server checks its pages itself when it reads them, where it was made with checksums.
    fn check_pages(_: &PgSession) -> Result<Vec<String>, DbError> {
        Ok(Vec::new())
    }

    fn claim_fold(session: &PgSession) -> Result<bool, DbError> {
        session.one(&lock_call("pg_try_advisory_lock", LOCK_FOLD), &[])
    }

    fn release_fold(session: &PgSession) {
        if let Err(error) = session.one::<bool>(&lock_call("pg_advisory_unlock", LOCK_FOLD), &[]) {
            tracing::debug!(error = %error.source, "the claim to fold ends with its connection");
        }
    }

    fn announce(session: &PgSession) -> Result<(), DbError> {
        session
            .execute(
                "SELECT pg_notify('auscult_' || current_schema(),
                     (SELECT value FROM counter WHERE name = 'group') || ' ' ||
                     (SELECT coalesce(max(change), 0) FROM document_change))",
                &[],
            )
            .map(drop)
    }

    /// Removes the dead rows; what the write-ahead log and its archive hold is the operator's to expire.
    fn scrub(session: &PgSession) -> Result<(), DbError> {
        session.batch("VACUUM data_key")
    }

    fn backup(_: &PgStore, target: &Path, _: &mut dyn FnMut(u64, u64)) -> Result<RestoreReport, StoreError> {
        let words = "a database server is backed up with its own tools (pg_basebackup, pg_dump)";
        let source = std::io::Error::new(std::io::ErrorKind::Unsupported, words);
        Err(StoreError::File { doing: "copying the database into", path: target.to_owned(), source })
    }
}

/// A call of an advisory lock's function, for this store.
fn lock_call(function: &str, lock: i32) -> String {
    format!("SELECT {function}({lock}, hashtext(current_schema()))")
}
