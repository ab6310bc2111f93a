//! The store on PostgreSQL: the same rules, for several server nodes over one database.
//!
//! Groups are numbered under a lock on one row, so that numbers stand in the order of the commits of all nodes; documents
//! and audit rows likewise. The database's own acknowledgement of a commit is ours. A commit whose answer was lost is
//! looked up by its transaction id before anybody is told anything. The data keys stand in the same database, wrapped;
//! the key-encryption key lives elsewhere.

mod address;
mod io;
mod listen;
pub(crate) mod raw;
mod session;
mod setup;
mod tls;

use std::path::Path;
use std::sync::{Arc, Mutex};

use trust::KekRing;

use crate::rules::SqlStore;
use crate::sql::{Backend, DbError, Session};
use crate::words::RestoreReport;
use crate::{OpenError, StoreError};

pub use crate::rules::Options;

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
    /// Keeps every server away, while the store is moved.
    _alone: Option<Mutex<PgSession>>,
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
    pub fn open(url: &str, keks: impl Into<KekRing>, options: Options) -> Result<Self, OpenError> {
        raw::open(url, keks.into(), options, raw::As::Server)
    }
}

impl Backend for Postgres {
    type Session = PgSession;

    const SHARED: bool = true;
    const PLACE: &'static str = "postgres";
    const KEYS_PLACE: &'static str = "postgres";
    const FIRST_BLOCKS: u32 = 4;
    const ANNOUNCE: &'static str = "SELECT pg_notify('auscult_' || current_schema(),
        (SELECT value FROM counter WHERE name = 'group') || ' ' ||
        (SELECT coalesce(max(change), 0) FROM document_change))";
    const NOW_US: &'static str = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";

    fn another(&self) -> Result<PgSession, StoreError> {
        let mut session = PgSession::new(Arc::clone(&self.connector), false);
        let _is_new = session.ready().map_err(crate::sql::read("opening one more connection"))?;
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

    /// Removes the dead rows; what the write-ahead log and its archive hold is the operator's to expire.
    fn scrub(session: &PgSession) -> Result<(), DbError> {
        session.batch("VACUUM data_key")
    }

    /// Dead rows are removed afterwards, by [`Backend::scrub_data`].
    fn overwrite_deleted(_: &PgSession, _: bool) -> Result<(), DbError> {
        Ok(())
    }

    fn scrub_data(session: &PgSession) -> Result<(), DbError> {
        for table in crate::rules::tables::sealed().map(|table| table.name).chain(["document_index"]) {
            session.batch(&format!("VACUUM {table}"))?;
        }
        Ok(())
    }

    fn bytes_literal(hex: &str) -> String {
        format!("'\\x{hex}'::bytea")
    }

    fn backup(
        store: &PgStore,
        target: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<RestoreReport, StoreError> {
        crate::migrate::places::backup_into_files(store, target, progress)
    }
}

/// A call of an advisory lock's function, for this store.
fn lock_call(function: &str, lock: i32) -> String {
    format!("SELECT {function}({lock}, hashtext(current_schema()))")
}
