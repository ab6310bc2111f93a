//! What can go wrong with keeping and reading back.

use std::path::PathBuf;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it cannot be used.
    #[error("cannot use {path}: {what}")]
    Path {
        /// Which.
        path: PathBuf,
        /// In what way.
        what: String,
        /// What the system said.
        #[source]
        source: Option<std::io::Error>,
    },
    /// Another process has it open, or it is being moved.
    #[error("{path} is in use by another process; stop it first")]
    InUse {
        /// The lock.
        path: PathBuf,
    },
    /// The key-encryption key is not the one that wraps the keys of this store.
    #[error(
        "the key-encryption key (fingerprint {given}) does not open this store: it needs {expected}; a copy of before a \
         turn of the key needs the key of then"
    )]
    WrongKey {
        /// Fingerprint of the key that was given.
        given: String,
        /// Fingerprint that the key store names.
        expected: String,
    },
    /// A turn of the key-encryption key was not ended where the keys live.
    #[error("a turn of the key-encryption key was begun and cannot be ended")]
    KeySource(#[source] trust::SourceError),
    /// A file is damaged.
    #[error("{path} is damaged: {what}; restore it from a backup")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The store was written by a later release.
    #[error("the store has format {found}, this release knows up to {known}; run the later release")]
    TooNew {
        /// Format of the store.
        found: u32,
        /// Latest format known here.
        known: u32,
    },
    /// A move into it was begun and not finished.
    #[error(
        "a move into {path} was not finished; run it again to its end, or begin anew with an empty target"
    )]
    Unfinished {
        /// The directory or the database.
        path: PathBuf,
    },
    /// The SQLite library is one with a known corruption bug.
    #[error(
        "the SQLite library is {found}; 3.51.3 or later is needed (earlier ones can corrupt a write-ahead log)"
    )]
    OldSqlite {
        /// Its version.
        found: String,
    },
    /// The database server cannot be reached, or does not let us in.
    #[error("the database {server} cannot be reached (while {doing})")]
    Unreachable {
        /// Which, without any password.
        server: String,
        /// What was being done.
        doing: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address of the database cannot be understood.
    #[error("the address of the database cannot be used: {what}")]
    Address {
        /// What is wrong with it.
        what: String,
    },
    /// The database server would acknowledge what is not on stable storage.
    #[error("the database has {setting} = {found}, so it can lose what it acknowledged; set it to on")]
    Unsafe {
        /// Which setting.
        setting: &'static str,
        /// What it is.
        found: String,
    },
    /// The database said no.
    #[error("opening the store failed while {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What can go wrong with keeping and reading back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Stable storage failed under a commit. What is on disk is not known: the process must end and start again.
    #[error("stable storage failed while {doing}; ending, so that nothing is acknowledged that may be lost")]
    Durability {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no room on the disk. Nothing was kept.
    #[error("the disk is full (while {doing}); make room, nothing was acknowledged")]
    Full {
        /// What was being done.
        doing: &'static str,
    },
    /// The database said no.
    #[error("the database failed while {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database cannot be reached, or the connection to it broke. Nothing was acknowledged; whoever tries again
    /// later loses nothing, because repeats are harmless.
    #[error("the database cannot be reached (while {doing})")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// What the connection said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Changes of documents later than the one asked for are no longer listed: read the documents again.
    #[error("changes of documents are listed from {oldest} on only; read the documents again")]
    TooFarBehind {
        /// The oldest change that is still listed.
        oldest: u64,
    },
    /// A sealed row does not open: it was changed, moved or damaged, or its key is gone.
    #[error("the sealed {what} cannot be opened")]
    Sealed {
        /// Which row.
        what: String,
        /// How it failed.
        #[source]
        source: trust::envelope::OpenError,
    },
    /// The patient's key was destroyed: the record is erased.
    #[error("the key of {whose} is gone; the record is erased")]
    KeyGone {
        /// Whose.
        whose: String,
    },
    /// The home of the key-encryption key did not do what was asked of it.
    #[error("the home of the key-encryption key failed while {doing}")]
    KeySource {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        #[source]
        source: trust::SourceError,
    },
    /// This process does not hold a key-encryption key that is in force.
    #[error("the key-encryption key with fingerprint {needed} is not here; bring it to this machine")]
    KekMissing {
        /// Its fingerprint.
        needed: String,
    },
    /// An epoch of the key-encryption key is turning.
    #[error("the key-encryption key is being turned over; let `auscult keys rotate` end first")]
    EpochTurns,
    /// A row opens but does not say what it should.
    #[error("the {what} is damaged: {how}")]
    Damaged {
        /// Which row.
        what: String,
        /// In what way.
        how: String,
    },
    /// An identity that cannot be packed.
    #[error("no identifier can be made: {how}")]
    Identity {
        /// Why.
        how: String,
    },
    /// A file beside the database failed.
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
}

/// Somebody else was in the way, and trying again may help; stands inside [`StoreError::Database`].
#[derive(Debug, thiserror::Error)]
#[error("another process was in the way")]
pub(crate) struct Contended(#[source] pub(crate) Box<dyn std::error::Error + Send + Sync>);

impl StoreError {
    /// Whether the same again may succeed at once.
    pub(crate) fn is_contended(&self) -> bool {
        matches!(self, StoreError::Database { source, .. } if source.is::<Contended>())
    }
}

/// Why a transaction was not done.
#[derive(Debug, thiserror::Error)]
pub enum TransactError {
    /// An expectation does not hold: somebody else was faster, or it exists already.
    #[error("the {kind} was changed by somebody else, or exists already ({detail})")]
    Conflict {
        /// Which kind of document.
        kind: &'static str,
        /// Which expectation or unique index.
        detail: String,
    },
    /// The lease that the transaction depends on is held by somebody else now, or by nobody. Nothing was changed.
    #[error("the lease of {lease} was lost to somebody else")]
    LeaseLost {
        /// Name of the lease.
        lease: &'static str,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
}

impl From<StoreError> for TransactError {
    fn from(error: StoreError) -> Self {
        TransactError::Store(error)
    }
}
