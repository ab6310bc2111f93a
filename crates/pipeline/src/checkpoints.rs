//! The keeper of the log: takes committed rows into the tree, signs checkpoints at a set pace, and writes a heartbeat, on
//! one node only. Everything that it signs was read back from the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use clinical_model::Timestamp;
use store::{
    Actor, AuditAction, AuditOutcome, HEARTBEAT, KeptCheckpoint, Log, LogState, Store, StoreError, Thinning,
    TransactError,
};
use trust::log::checkpoint::{Checkpoint, CheckpointError};
use trust::log::note::Signer;

use crate::audited::Act;
use crate::site::{Site, StartError, Stop};

/// How often it is looked for new rows.
const TICK: Duration = Duration::from_secs(1);
/// Rows taken into the tree in one transaction: a few tiles.
const BATCH_ROWS: usize = 4_096;
/// Transactions of one look: what is left waits for the next, so that a stop is heard.
const BATCHES_LIMIT: usize = 64;
/// The lease of the one node that keeps the log.
const LEASE: &str = "log";
/// How long the lease lasts without being renewed.
const LEASE_LIFE: Duration = Duration::from_secs(15);

/// How long checkpoints are put off while the disk does not keep up with what devices send.
const GIVES_WAY_FOR: Duration = Duration::from_secs(300);

/// Between two passes that let old checkpoints go: the last of each hour stays, so that there is nothing new sooner.
const THIN_EVERY: Duration = Duration::from_secs(3_600);

/// The pace of checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// A checkpoint is signed after so long, where anything was added.
    pub every: Duration,
    /// A checkpoint of the log of acts is signed after so many rows, however soon.
    pub entries: u64,
    /// A heartbeat is written after so long, so that an end that was cut off shows by its absence.
    pub heartbeat: Duration,
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        CheckpointOptions {
            every: Duration::from_secs(10),
            entries: 256,
            heartbeat: Duration::from_secs(300),
        }
    }
}

/// How a witness stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WitnessHealth {
    /// It was not asked yet.
    New,
    /// It cosigned a checkpoint of late.
    Fresh,
    /// It has not cosigned for too long.
    Stale,
    /// It says that the log did not grow out of what it saw.
    Refused,
    /// It cannot be reached.
    Unreachable,
}

/// What is known of a witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessState {
    /// Name of its key.
    pub name: String,
    /// Its key.
    pub key: String,
    /// Where it is asked.
    pub url: String,
    /// How it stands.
    pub health: WitnessHealth,
    /// When it cosigned last.
    pub last_at: Option<Timestamp>,
    /// Size of what it cosigned last.
    pub last_size: Option<u64>,
    /// What it said, or why it could not be asked.
    pub what: String,
}

/// What is wrong with the log now, and how its witnesses stand; for pages and the doctor.
#[derive(Debug, Default)]
pub struct LogWatch {
    faults: Mutex<BTreeMap<&'static str, String>>,
    witnesses: Mutex<Vec<WitnessState>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogWatch {
    /// What is wrong with the logs themselves, a sentence each.
    pub fn faults(&self) -> Vec<String> {
        lock(&self.faults).values().cloned().collect()
    }

    /// What is wrong, with witnesses too, a sentence each.
    pub fn alarms(&self) -> Vec<String> {
        let mut alarms = self.faults();
        for witness in lock(&self.witnesses).iter() {
            let WitnessState { name, what, health, .. } = witness;
            match health {
                WitnessHealth::Refused => alarms.push(format!("Witness {name} refuses the log: {what}")),
                WitnessHealth::Stale => {
                    alarms.push(format!("Witness {name} has not cosigned for too long: {what}"))
                }
                WitnessHealth::New | WitnessHealth::Fresh | WitnessHealth::Unreachable => {}
            }
        }
        alarms
    }

    /// The witnesses.
    pub fn witnesses(&self) -> Vec<WitnessState> {
        lock(&self.witnesses).clone()
    }

    /// Takes up how a witness stands.
    pub fn put_witness(&self, state: WitnessState) {
        let mut witnesses = lock(&self.witnesses);
        match witnesses.iter_mut().find(|kept| kept.key == state.key) {
            Some(kept) => *kept = state,
            None => witnesses.push(state),
        }
    }

    /// Notes a fault of a log, or that there is none; true where that is news.
    fn note(&self, log: Log, fault: Option<String>) -> bool {
        let mut faults = lock(&self.faults);
        match fault {
            Some(fault) => faults.insert(log.name(), fault.clone()) != Some(fault),
            None => faults.remove(log.name()).is_some(),
        }
    }
}

/// Why a checkpoint was not signed.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The store failed, or a row is not what its leaf says.
    #[error("the tree does not grow")]
    Store(#[source] StoreError),
    /// Something was not written.
    #[error("the tree or a checkpoint was not kept")]
    Transact(#[source] TransactError),
    /// The last checkpoint cannot be read.
    #[error("the last checkpoint is not believed; it was changed")]
    Last(#[source] CheckpointError),
    /// The tree is no longer the one that was signed.
    #[error("the tree does not lead to checkpoint {number} any more; rows before {size} were changed")]
    Forked {
        /// Its number.
        number: u64,
        /// Its size.
        size: u64,
    },
    /// There are fewer rows than were signed.
    #[error("there are {rows} rows, checkpoint {number} says {size}: the end was cut off")]
    Shorter {
        /// Rows now.
        rows: u64,
        /// Number of the checkpoint.
        number: u64,
        /// Its size.
        size: u64,
    },
}

impl From<StoreError> for KeepError {
    fn from(error: StoreError) -> Self {
        KeepError::Store(error)
    }
}

impl From<TransactError> for KeepError {
    fn from(error: TransactError) -> Self {
        match error {
            TransactError::Store(error) => KeepError::Store(error),
            other => KeepError::Transact(other),
        }
    }
}

/// Whose signatures go under a checkpoint: the newest key's, and the one's before it, so that who knows only that one
/// can follow a turn of the key.
fn signing(signers: &[Signer]) -> Vec<&Signer> {
    signers.iter().rev().take(2).collect()
}

/// Takes rows into the tree; tells whether all that are committed are in.
fn integrate(store: &dyn Store, log: Log, lease: store::Lease) -> Result<(), KeepError> {
    for _ in 0..BATCHES_LIMIT {
        if store.log().integrate(log, BATCH_ROWS, lease)? < BATCH_ROWS as u64 {
            break;
        }
    }
    Ok(())
}

/// Signs a checkpoint of what is in the tree, where it grew. The tree must still lead to the last one.
///
/// # Errors
/// [`KeepError`]; nothing was signed then.
pub fn sign_now(
    store: &dyn Store,
    log: Log,
    state: &LogState,
    at: Timestamp,
    lease: store::Lease,
) -> Result<(), KeepError> {
    let signers = store.log().log_signers(at)?;
    let mut number = 1;
    if let Some(last) = &state.checkpoint {
        let keys: Vec<_> = signers.iter().map(|signer| signer.verifier().clone()).collect();
        let (signed, _) = Checkpoint::verified(&last.note, &keys).map_err(KeepError::Last)?;
        if store.log().log_root(log, signed.size)? != signed.root {
            return Err(KeepError::Forked { number: last.number, size: signed.size });
        }
        number = last.number + 1;
    }
    let root = store.log().log_root(log, state.size)?;
    let checkpoint = Checkpoint { origin: state.origin_line(), size: state.size, root };
    let note = checkpoint.sign(&signing(&signers), 0);
    store.log().keep_checkpoint(log, &KeptCheckpoint { number, size: state.size, at, note }, lease)?;
    Ok(())
}

/// One look at one log: takes up what is new, signs when it is time.
///
/// # Errors
/// [`KeepError`].
pub fn keep(
    store: &dyn Store,
    log: Log,
    options: &CheckpointOptions,
    at: Timestamp,
    is_last_look: bool,
    lease: store::Lease,
) -> Result<(), KeepError> {
    let before = sound_state(store, log)?;
    let (size, signed_at) = before.checkpoint.as_ref().map_or((0, None), |last| (last.size, Some(last.at)));
    let grown = before.rows - size;
    let is_new_epoch =
        before.checkpoint.as_ref().is_some_and(|last| !last.note.starts_with(&before.origin_line()));
    let is_due = signed_at.is_none_or(|signed_at| at.duration_since(signed_at) >= options.every)
        || (log == Log::Acts && grown >= options.entries)
        || is_last_look
        || is_new_epoch;
    // Nothing is written until it is time: each commit is one that a reading waits for.
    if grown == 0 || !is_due {
        return Ok(());
    }
    integrate(store, log, lease)?;
    let state = sound_state(store, log)?;
    if state.size > size { sign_now(store, log, &state, at, lease) } else { Ok(()) }
}

/// The state of a log of which nothing that was signed is missing.
fn sound_state(store: &dyn Store, log: Log) -> Result<LogState, KeepError> {
    let state = store.log().log_state(log)?;
    match &state.checkpoint {
        Some(last) if state.rows < last.size || state.size < last.size => {
            let (number, rows, size) = (last.number, state.rows.min(state.size), last.size);
            Err(KeepError::Shorter { rows, number, size })
        }
        _ => Ok(state),
    }
}

/// The keeper on its thread.
struct Keeper {
    site: Weak<Site>,
    stop: Arc<Stop>,
    options: CheckpointOptions,
    node: [u8; 16],
    lease_asked_at: Option<Instant>,
    holds_lease: bool,
    has_begun: bool,
    beat_at: Instant,
    looked_at: Instant,
    /// The passes that let old checkpoints go, where they are under way.
    thinning: Vec<(Log, Thinning)>,
    thinned_at: Option<Instant>,
}

/// Looks once at a site's logs, before anything comes that would wait for it, and starts their keeper; it ends with the
/// site.
///
/// # Errors
/// [`StartError`] where there is no thread to be had.
pub fn start(site: &Arc<Site>, options: CheckpointOptions) -> Result<(), StartError> {
    let mut keeper = Keeper {
        site: Arc::downgrade(site),
        stop: site.stop_signal(),
        options,
        node: crate::clock::new_id(site.clock().now()),
        lease_asked_at: None,
        holds_lease: false,
        has_begun: false,
        beat_at: Instant::now(),
        looked_at: Instant::now(),
        thinning: Vec::new(),
        thinned_at: None,
    };
    if keeper.may_keep(site) {
        keeper.look(site, false);
    }
    site.spawn("log", move || keeper.run())
}

impl Keeper {
    fn run(mut self) {
        loop {
            let is_over = self.stop.wait(TICK);
            let Some(site) = self.site.upgrade() else { return };
            if self.may_keep(&site) && (is_over || !self.gives_way(&site)) {
                self.look(&site, is_over);
                if !is_over {
                    self.thin(&site);
                }
            }
            if is_over {
                if self.holds_lease
                    && let Err(error) = site.store().release_lease(LEASE, self.node)
                {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "the lease of the log runs out by itself"
                    );
                }
                return;
            }
        }
    }

    fn may_keep(&mut self, site: &Site) -> bool {
        if self.lease_asked_at.is_some_and(|at| at.elapsed() < LEASE_LIFE / 3) {
            return self.holds_lease;
        }
        let held = site.store().hold_lease(LEASE, self.node, LEASE_LIFE);
        self.lease_asked_at = held.is_ok().then(Instant::now);
        self.holds_lease = held.unwrap_or(false);
        self.holds_lease
    }

    /// Whether the disk is so slow that readings come first.
    fn gives_way(&self, site: &Site) -> bool {
        site.disk_is_behind() && self.looked_at.elapsed() < GIVES_WAY_FOR
    }

    /// Lets some old checkpoints go, a step of each log at a time.
    fn thin(&mut self, site: &Site) {
        if self.thinned_at.is_none_or(|at| at.elapsed() >= THIN_EVERY) {
            self.thinned_at = Some(Instant::now());
            self.thinning = Log::ALL.map(|log| (log, Thinning::default())).to_vec();
        }
        let (store, now) = (site.store(), site.clock().now());
        let lease = store.shared().then_some((LEASE, self.node));
        self.thinning.retain_mut(|(log, pass)| match store.log().thin_checkpoints(*log, pass, now, lease) {
            Ok(thinned) => thinned.more,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, log = log.name(), "old checkpoints stay; run `auscult verify`");
                false
            }
        });
    }

    fn look(&mut self, site: &Site, is_over: bool) {
        self.looked_at = Instant::now();
        let at = site.clock().now();
        let store = site.store();
        if !self.has_begun {
            match store.log().begin_epoch_after_restore(at) {
                Ok(is_new) => {
                    self.has_begun = true;
                    if is_new {
                        tracing::warn!("a backup was restored: the log begins a new epoch");
                    }
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a new epoch of the log cannot begin"
                    );
                    return;
                }
            }
        }
        if self.beat_at.elapsed() >= self.options.heartbeat {
            let act = Act::new(Actor::System, AuditAction::Administer, HEARTBEAT);
            if let Err(error) = site.record(act, AuditOutcome::Success) {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the heartbeat of the log was not written"
                );
            }
            self.beat_at = Instant::now();
        }
        let lease = store.shared().then_some((LEASE, self.node));
        for log in Log::ALL {
            let kept = keep(store, log, &self.options, at, is_over, lease);
            let fault = match &kept {
                // Another node was faster, or the lease is gone: it keeps the log now.
                Err(KeepError::Transact(
                    TransactError::Conflict { .. } | TransactError::LeaseLost { .. },
                )) => {
                    self.lease_asked_at = None;
                    continue;
                }
                Err(error) => Some(format!("The log of {} does not grow: {}", log.name(), described(error))),
                Ok(()) => None,
            };
            let is_fault = fault.is_some();
            if site.log_watch().note(log, fault) {
                match kept {
                    Err(error) => tracing::error!(
                        error = &error as &dyn std::error::Error,
                        log = log.name(),
                        "the log cannot be proven from here on; run `auscult verify`"
                    ),
                    Ok(()) if !is_fault => tracing::info!(log = log.name(), "the log grows again"),
                    Ok(()) => {}
                }
            }
        }
    }
}

/// An error with its causes in one line.
pub(crate) fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use store::sqlite::{Options, SqliteStore};
    use store::{AuditRecord, Transaction};

    use super::*;

    const START: Timestamp = Timestamp::from_seconds(1_795_336_200);

    fn store() -> (tempfile::TempDir, SqliteStore) {
        let directory = tempfile::tempdir().unwrap();
        let kek = trust::Kek::from_bytes(&[7; 32]);
        let store = SqliteStore::open(directory.path(), kek, Options::default()).unwrap();
        (directory, store)
    }

    fn act(store: &SqliteStore, rows: u64) {
        let audit =
            (0..rows).map(|_| AuditRecord::new(START, Actor::System, AuditAction::Read, "Patient")).collect();
        store.transact(&Transaction { at: START, audit, ..Transaction::default() }).unwrap();
    }

    fn signed(store: &SqliteStore) -> Vec<u64> {
        store.log().checkpoints(Log::Acts, None, 100).unwrap().iter().rev().map(|kept| kept.size).collect()
    }

    #[test]
    fn checkpoints_are_signed_by_time_by_rows_and_at_the_end_and_not_without_news() {
        let (_directory, store) = store();
        let options = CheckpointOptions::default();
        let look = |seconds: u64, last: bool| {
            let at = START.plus(Duration::from_secs(seconds));
            keep(&store, Log::Acts, &options, at, last, None).unwrap();
        };
        look(0, true);
        assert_eq!(signed(&store), [0_u64; 0]);
        act(&store, 3);
        look(1, false);
        assert_eq!(signed(&store), [3], "the first at once");
        act(&store, 3);
        look(5, false);
        assert_eq!(signed(&store), [3], "the pace is kept");
        assert_eq!(store.log().log_state(Log::Acts).unwrap().size, 3, "and nothing is written meanwhile");
        look(11, false);
        assert_eq!(signed(&store), [3, 6]);
        act(&store, 256);
        look(12, false);
        assert_eq!(signed(&store), [3, 6, 262]);
        act(&store, 1);
        look(13, true);
        assert_eq!(signed(&store), [3, 6, 262, 263]);
        look(60, false);
        assert_eq!(signed(&store).len(), 4);
    }

    /// A bit that flipped in the tree must not be signed over: such a log could never prove what it signed before.
    #[test]
    fn a_tree_that_does_not_lead_to_the_last_checkpoint_is_not_signed() {
        let (directory, store) = store();
        act(&store, 10);
        let options = CheckpointOptions::default();
        keep(&store, Log::Acts, &options, START, true, None).unwrap();
        drop(store);
        let file = rusqlite::Connection::open(directory.path().join("data.db")).unwrap();
        file.execute(
            "UPDATE log_tile SET hashes = CAST(substr(hashes, 33) || substr(hashes, 1, 32) AS BLOB)",
            [],
        )
        .unwrap();
        drop(file);
        let store = SqliteStore::open(directory.path(), trust::Kek::from_bytes(&[7; 32]), Options::default())
            .unwrap();
        act(&store, 1);
        let kept = keep(&store, Log::Acts, &options, START, true, None);
        assert!(matches!(kept, Err(KeepError::Forked { number: 1, size: 10 })), "{kept:?}");
        assert_eq!(signed(&store), [10]);
    }

    #[test]
    fn a_log_whose_end_was_cut_off_is_not_signed() {
        let (directory, store) = store();
        act(&store, 10);
        let options = CheckpointOptions::default();
        keep(&store, Log::Acts, &options, START, true, None).unwrap();
        drop(store);
        let file = rusqlite::Connection::open(directory.path().join("data.db")).unwrap();
        file.execute("DELETE FROM audit WHERE sequence > 8", []).unwrap();
        drop(file);
        let store = SqliteStore::open(directory.path(), trust::Kek::from_bytes(&[7; 32]), Options::default())
            .unwrap();
        let kept = keep(&store, Log::Acts, &options, START, true, None);
        assert!(matches!(kept, Err(KeepError::Shorter { rows: 8, number: 1, size: 10 })), "{kept:?}");
    }
}
