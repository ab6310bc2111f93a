//! Opening a database: for serving, alone for a move, or only a connection.

use std::sync::{Arc, Mutex};

use trust::KekRing;

use super::address::Address;
use super::io::{Connector, Io};
use super::session::PgSession;
use super::{LOCK_SERVE, PgStore, Postgres, listen, setup};
use crate::migrate::META_MOVING;
use crate::rules::keys::{KekFault, Keys};
use crate::rules::news::Bell;
use crate::rules::{LoadFault, Options, READ_CONNECTIONS, Sessions, SqlStore, describe};
use crate::sql::{DbError, Session, values};
use crate::words::News;
use crate::{OpenError, StoreError};

/// For what a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum As {
    /// To serve, beside other servers.
    Server,
    /// To be moved away, with no server on it.
    Source,
    /// To be proven after a move into it, with no server on it.
    Target,
}

/// Hosts and database of a URL, without user and password.
pub(crate) fn shown(url: &str) -> String {
    Address::parse(url).map_or_else(|_| "postgres://?".to_owned(), |address| address.shown())
}

/// A thread and what makes connections.
fn reach(url: &str) -> Result<(String, Arc<Connector>, Io), OpenError> {
    let address = Address::parse(url)?;
    let server = address.shown();
    let io = Io::start().map_err(|source| OpenError::Unreachable {
        server: server.clone(),
        doing: "starting the thread that talks to it",
        source: source.into(),
    })?;
    let connector = Arc::new(Connector::new(address, io.handle())?);
    Ok((server, connector, io))
}

fn session(server: &str, connector: &Arc<Connector>, serving: bool) -> Result<PgSession, OpenError> {
    let mut session = PgSession::new(Arc::clone(connector), serving);
    session.ready().map(|_| session).map_err(setup::failure(server, "connecting"))
}

/// A session that keeps every server away as long as it lives.
fn alone(server: &str, connector: &Arc<Connector>) -> Result<PgSession, OpenError> {
    let session = session(server, connector, false)?;
    let held = session.try_lock("pg_try_advisory_lock", LOCK_SERVE);
    if held.map_err(setup::failure(server, "asking whether servers run on it"))? {
        Ok(session)
    } else {
        Err(OpenError::InUse { path: server.into() })
    }
}

fn is_marked(session: &PgSession) -> Result<bool, DbError> {
    let found = session.row("SELECT 1 FROM meta WHERE name = ?1", &values![META_MOVING], |_| Ok(()))?;
    Ok(found.is_some())
}

/// One connection, and what it needs to live.
pub(crate) fn connect(url: &str) -> Result<(PgSession, Io), OpenError> {
    let (server, connector, io) = reach(url)?;
    Ok((session(&server, &connector, false)?, io))
}

/// One connection to a database in which a store is being made, and what keeps servers away.
pub(crate) fn make(url: &str) -> Result<(PgSession, (PgSession, Io)), OpenError> {
    let (server, connector, io) = reach(url)?;
    setup::prepare(&session(&server, &connector, false)?, &server)?;
    let alone = alone(&server, &connector)?;
    Ok((session(&server, &connector, false)?, (alone, io)))
}

/// Opens the store with no server on it.
pub(crate) fn open_alone(url: &str, kek: KekRing, is_target: bool) -> Result<PgStore, OpenError> {
    open(url, kek, Options::default(), if is_target { As::Target } else { As::Source })
}

/// Opens the store, or makes it.
pub(super) fn open(url: &str, kek: KekRing, options: Options, role: As) -> Result<PgStore, OpenError> {
    let (server, connector, io) = reach(url)?;
    let open_failure = |doing| setup::failure(&server, doing);
    let serving = role == As::Server;
    let connect = |serving| session(&server, &connector, serving);
    let alone = if serving { None } else { Some(alone(&server, &connector)?) };
    // Whoever comes first makes the tables and the keys; the others wait here.
    let first = connect(false)?;
    setup::prepare(&first, &server)?;
    if role != As::Target
        && is_marked(&first).map_err(open_failure("reading what the store says about itself"))?
    {
        return Err(OpenError::Unfinished { path: server.into() });
    }
    let given = kek.current().fingerprint_text();
    let keys = Keys::open(connect(false)?, kek, options.journal_key_life).map_err(|fault| match fault {
        KekFault::Another { expected } => OpenError::WrongKey { given, expected },
        KekFault::Source(error) => OpenError::KeySource(error),
        KekFault::Unnamed => OpenError::Damaged {
            path: server.clone().into(),
            what: "it holds keys but does not say by which key they are wrapped".to_owned(),
        },
        KekFault::Database(error) => open_failure("reading the keys")(error),
    })?;
    let readers = (0..READ_CONNECTIONS).map(|_| connect(false));
    let sessions = Sessions {
        writer: connect(serving)?,
        acts: Some(connect(serving)?),
        folding: connect(false)?,
        readers: readers.collect::<Result<_, _>>()?,
    };
    let news = Arc::new(Bell::new(News::default()));
    listen::start(Arc::clone(&connector), Arc::downgrade(&news));
    let backend = Postgres { connector: Arc::clone(&connector), _alone: alone.map(Mutex::new), _io: io };
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
