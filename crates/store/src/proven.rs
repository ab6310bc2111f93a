//! The [`ProvenLog`] trait and its words: the trees over the audit log and over the records of groups, their signed
//! checkpoints, proofs and the check of all of it.

use std::time::Duration;

use clinical_model::{PatientId, Timestamp};
use trust::log::Hash;
use trust::log::check::{Report, Signpost};
use trust::log::note::Signer;

use crate::{AuditRow, StoreError, TransactError};

/// A log with a tree of its own. The numbers are part of the storage format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Log {
    /// Acts of people and programs: the audit rows, by their sequence.
    Acts = 1,
    /// Records of committed groups, by their numbers.
    Groups = 2,
}

impl Log {
    /// Both.
    pub const ALL: [Log; 2] = [Log::Acts, Log::Groups];

    /// Its name in origins and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Log::Acts => "acts",
            Log::Groups => "groups",
        }
    }
}

/// How far a log and its tree have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// What its origins begin with; the epoch follows.
    pub origin: String,
    /// Counts restores from a backup, from 1.
    pub epoch: u64,
    /// Rows that are committed.
    pub rows: u64,
    /// Of them, rows in the tree.
    pub size: u64,
    /// The last checkpoint.
    pub checkpoint: Option<KeptCheckpoint>,
}

impl LogState {
    /// The origin line of its checkpoints now.
    pub fn origin_line(&self) -> String {
        format!("{}{}", self.origin, self.epoch)
    }
}

/// A checkpoint as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCheckpoint {
    /// Its number in the log, from 1.
    pub number: u64,
    /// Leaves in the tree.
    pub size: u64,
    /// When it was signed.
    pub at: Timestamp,
    /// The signed note, with the cosignatures that came.
    pub note: String,
}

/// A row of a log as it enters an export: everything that its leaf is computed from, as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its sequence, or the number of the group.
    pub sequence: u64,
    /// The public part of the leaf.
    pub header: Vec<u8>,
    /// Blinding and payload; `None` where they were erased.
    pub content: Option<([u8; 32], Vec<u8>)>,
    /// The leaf as kept.
    pub leaf: Hash,
}

/// Content of an act may be removed for its age no earlier than after so long: six years (45 CFR 164.316(b)(2)).
pub const CONTENT_KEPT_FOR: Duration = Duration::from_secs(2_190 * 86_400);

/// What the public part of an act's leaf says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActHeader {
    /// When it was done.
    pub at: Timestamp,
    /// The number of its [`crate::AuditAction`].
    pub action: u8,
    /// The patient whom it was about.
    pub patient: Option<PatientId>,
}

impl ActHeader {
    /// Reads [`LogEntry::header`] of [`Log::Acts`]; `None` where it is none. Rows of the first releases name no patient.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let at = i64::from_be_bytes(*header.get(8..)?.first_chunk()?);
        let action = *header.get(16)?;
        let patient = match header.get(19) {
            Some(1) => Some(PatientId::from_bytes(*header.get(20..)?.first_chunk()?)),
            _ => None,
        };
        Some(ActHeader { at: Timestamp::from_micros(at), action, patient })
    }
}

/// How far a pass over the checkpoints of a log has come that lets old ones go. A new one begins with the oldest.
#[derive(Clone, Debug, Default)]
pub struct Thinning {
    /// The last number that was looked at.
    pub(crate) after: u64,
    /// The span of time that is being looked at.
    pub(crate) span: Option<ThinningSpan>,
    /// Those of the span that stay so far, with the witnesses for whose sake they do.
    pub(crate) held: Vec<(u64, Vec<String>)>,
}

/// A span of time, in one epoch, of which the last checkpoint stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ThinningSpan {
    pub(crate) origin: String,
    pub(crate) is_day: bool,
    pub(crate) index: i64,
}

/// What a step of such a pass did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thinned {
    /// Checkpoints that went.
    pub removed: u64,
    /// Whether there are more to look at.
    pub more: bool,
}

/// Who writes to a log, where a lease decides it.
pub type Lease = Option<(&'static str, [u8; 16])>;

/// The log that can be proven. All methods block.
pub trait ProvenLog: Send + Sync {
    /// How far a log has come.
    ///
    /// # Errors
    /// [`StoreError`] on reading.
    fn log_state(&self, log: Log) -> Result<LogState, StoreError>;

    /// Takes up to `limit` rows into the tree, each read back from the store and its leaf computed anew; tells how many.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] at the first row that does not say what its leaf says: nothing after it is taken up.
    /// [`TransactError::Conflict`] where another process was faster.
    fn integrate(&self, log: Log, limit: usize, lease: Lease) -> Result<u64, TransactError>;

    /// The root of the tree of the first `size` rows, from the tiles that are kept.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the tiles do not have it.
    fn log_root(&self, log: Log, size: u64) -> Result<Hash, StoreError>;

    /// The proof that a row (index from 0) is among the first `size`, its sibling first.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the tiles do not have it.
    fn log_inclusion(&self, log: Log, index: u64, size: u64) -> Result<Vec<Hash>, StoreError>;

    /// The proof that the tree of `old` rows grew into that of `size`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the tiles do not have it.
    fn log_consistency(&self, log: Log, old: u64, size: u64) -> Result<Vec<Hash>, StoreError>;

    /// The hashes of a tile (C2SP tlog-tiles), as far as it is filled.
    ///
    /// # Errors
    /// [`StoreError`] on reading.
    fn log_tile(&self, log: Log, level: u8, number: u64) -> Result<Vec<Hash>, StoreError>;

    /// Checkpoints with numbers below `before`, newest first.
    ///
    /// # Errors
    /// [`StoreError`] on reading.
    fn checkpoints(
        &self,
        log: Log,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<KeptCheckpoint>, StoreError>;

    /// Keeps a new checkpoint, or cosignatures that came for the one of this number.
    ///
    /// # Errors
    /// [`TransactError`].
    fn keep_checkpoint(
        &self,
        log: Log,
        checkpoint: &KeptCheckpoint,
        lease: Lease,
    ) -> Result<(), TransactError>;

    /// Goes on with a pass over the checkpoints, in a bounded step: those of the last thirty days stay, of those before the
    /// last of each hour, of those older than a year the last of each day; always the first, the last of an epoch, and of
    /// each hour or day the last that each witness cosigned. Whoever takes away another one is found out by
    /// [`ProvenLog::check_log`].
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where one is missing that was not let go: nothing goes then. [`TransactError`]; the pass
    /// must begin again then.
    fn thin_checkpoints(
        &self,
        log: Log,
        pass: &mut Thinning,
        now: Timestamp,
        lease: Lease,
    ) -> Result<Thinned, TransactError>;

    /// The keys that sign checkpoints, oldest first; the last one signs. Made where there is none.
    ///
    /// # Errors
    /// [`StoreError`] on the key store.
    fn log_signers(&self, at: Timestamp) -> Result<Vec<Signer>, StoreError>;

    /// Makes a new signing key, which signs from now on together with the one before it.
    ///
    /// # Errors
    /// [`StoreError`] on the key store.
    fn turn_log_key(&self, at: Timestamp) -> Result<(), StoreError>;

    /// Where a backup was restored: begins a new epoch of both logs with a row that commits to the last checkpoints.
    /// True where one began.
    ///
    /// # Errors
    /// [`TransactError`].
    fn begin_epoch_after_restore(&self, at: Timestamp) -> Result<bool, TransactError>;

    /// One row with what its leaf is computed from.
    ///
    /// # Errors
    /// [`StoreError`] on reading.
    fn log_entry(&self, sequence: u64) -> Result<Option<(LogEntry, AuditRow)>, StoreError>;

    /// Rows of a log with sequences from `from` on.
    ///
    /// # Errors
    /// [`StoreError`] on reading or opening one.
    fn log_entries(&self, log: Log, from: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError>;

    /// Checks a whole log: every row against its leaf, every leaf against the tree, the tree against every checkpoint,
    /// and all of it against checkpoints that were kept elsewhere. `now` tells which content may have been removed for
    /// its age.
    ///
    /// # Errors
    /// [`StoreError`] where it could not even be read; what is wrong is in the report.
    fn check_log(
        &self,
        log: Log,
        against: &LogAgainst,
        now: Timestamp,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Report, StoreError>;
}

/// What a log is compared with besides itself.
#[derive(Clone, Debug, Default)]
pub struct LogAgainst {
    /// Checkpoints that were kept elsewhere.
    pub signposts: Vec<Signpost>,
    /// Keys of witnesses.
    pub witnesses: Vec<trust::log::note::VerifierKey>,
}
