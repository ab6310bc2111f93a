//! Witnesses: what a log asks them, and what a witness remembers. A witness keeps the last checkpoint of each log on
//! stable storage before it cosigns, so that no log can be rolled back behind its back, not even over a restart.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use store::{KeptCheckpoint, Log, Store, StoreError, TransactError};
use trust::digest::Sha256;
use trust::log::checkpoint::{Checkpoint, CheckpointError};
use trust::log::note::{Note, NoteError, Signer, VerifierKey};
use trust::log::witness::{KnownLog, Refusal, Request, cosign, judge};

/// Origins that one witness remembers: each key signs a handful of logs, and a few more after restores.
const ORIGINS_LIMIT: usize = 1_024;
/// Longest file of a log, in bytes: a note and some numbers.
const STATE_LIMIT_BYTES: u64 = 256 << 10;

// --- The side of the log ------------------------------------------------------------------------------------------

/// Why a witness could not be asked, or its answer is not kept.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The store failed.
    #[error("the checkpoint cannot be read")]
    Store(#[source] StoreError),
    /// The answer was not kept.
    #[error("the cosignature was not kept")]
    Transact(#[source] TransactError),
    /// The answer is no cosignature of the witness.
    #[error("the answer is no cosignature of the witness")]
    Note(#[source] NoteError),
    /// The checkpoint cannot be read.
    #[error("the checkpoint cannot be read")]
    Checkpoint(#[source] CheckpointError),
    /// The witness saw more than there is: the log was rolled back.
    #[error("the witness saw {seen} rows, the log has {size}: the log was rolled back")]
    SawMore {
        /// What it saw.
        seen: u64,
        /// What there is.
        size: u64,
    },
}

impl From<StoreError> for AskError {
    fn from(error: StoreError) -> Self {
        AskError::Store(error)
    }
}

/// A question to a witness about the last checkpoint of a log.
#[derive(Clone, Debug)]
pub struct Question {
    /// Which log.
    pub log: Log,
    /// The checkpoint.
    pub checkpoint: KeptCheckpoint,
    /// What is sent.
    pub request: Request,
}

/// The question about the last checkpoint of a log, for a witness that cosigned `old_size` last; `None` where there is no
/// checkpoint yet, or the witness has cosigned it.
///
/// # Errors
/// [`AskError`]; [`AskError::SawMore`] is proof of a rollback.
pub fn question(
    store: &dyn Store,
    log: Log,
    old_size: u64,
    key: &VerifierKey,
) -> Result<Option<Question>, AskError> {
    let Some(checkpoint) = store.log().checkpoints(log, None, 1)?.into_iter().next() else { return Ok(None) };
    let (head, note) = Checkpoint::parse(&checkpoint.note).map_err(AskError::Checkpoint)?;
    if note.verify(std::slice::from_ref(key)).is_ok() {
        return Ok(None);
    }
    if old_size > head.size {
        return Err(AskError::SawMore { seen: old_size, size: head.size });
    }
    let path = store.log().log_consistency(log, old_size, head.size)?;
    let request = Request { old_size, path, checkpoint: checkpoint.note.clone() };
    Ok(Some(Question { log, checkpoint, request }))
}

/// Keeps the cosignature that a witness answered.
///
/// # Errors
/// [`AskError`] where it is not its signature.
pub fn keep_answer(
    store: &dyn Store,
    question: &Question,
    answer: &str,
    key: &VerifierKey,
) -> Result<KeptCheckpoint, AskError> {
    // Others may have cosigned it meanwhile.
    let number = question.checkpoint.number;
    let now = store.log().checkpoints(question.log, Some(number + 1), 1)?.into_iter().next();
    let mut kept = now.filter(|now| now.number == number).unwrap_or_else(|| question.checkpoint.clone());
    let mut note = Note::parse(&kept.note).map_err(AskError::Note)?;
    note.add_lines(answer).map_err(AskError::Note)?;
    note.verify(std::slice::from_ref(key)).map_err(AskError::Note)?;
    kept.note = note.to_note_text();
    store.log().keep_checkpoint(question.log, &kept, None).map_err(AskError::Transact)?;
    Ok(kept)
}

// --- The side of the witness ----------------------------------------------------------------------------------------

/// Why a witness answers nothing.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// It refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What it remembers cannot be read or written: nothing is cosigned without it.
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
    /// What it remembers is not what it wrote.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There are too many origins.
    #[error("{ORIGINS_LIMIT} logs are remembered; no more are taken")]
    TooMany,
}

/// What a witness remembers of one log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Its origin line.
    pub origin: String,
    /// Size of the checkpoint that was cosigned last.
    pub size: u64,
    /// The checkpoint, with the cosignature.
    pub checkpoint: String,
    /// When, in seconds since 1970.
    pub cosigned_at_s: u64,
    /// Refused requests since then that prove that the log misbehaved: the note that was refused.
    pub refused: Option<String>,
}

/// A witness: its key, the keys of the logs it knows, and its memory in a directory of its own.
pub struct Witness {
    directory: PathBuf,
    signer: Signer,
    logs: Vec<VerifierKey>,
    /// Comparing with what was seen, and remembering, are one step.
    one_at_a_time: Mutex<()>,
}

impl Witness {
    /// A witness for the logs of these keys: each key knows the origins that begin with its name and a slash.
    ///
    /// # Errors
    /// [`WitnessError::File`] where the directory cannot be made.
    pub fn open(directory: &Path, signer: Signer, logs: Vec<VerifierKey>) -> Result<Self, WitnessError> {
        fs::create_dir_all(directory).map_err(failed("making", directory))?;
        Ok(Witness { directory: directory.to_owned(), signer, logs, one_at_a_time: Mutex::default() })
    }

    /// The public half of its key.
    pub fn key(&self) -> &VerifierKey {
        self.signer.verifier()
    }

    /// Answers a request with the cosignature line. What it cosigns is on stable storage before this returns.
    ///
    /// # Errors
    /// [`WitnessError`]; nothing was cosigned then.
    pub fn add_checkpoint(&self, body: &str, now_s: u64) -> Result<String, WitnessError> {
        let request = Request::parse(body).ok_or(Refusal::Malformed)?;
        let (head, _) = Checkpoint::parse(&request.checkpoint).map_err(|_| Refusal::Malformed)?;
        let keys: Vec<VerifierKey> = self
            .logs
            .iter()
            .filter(|key| head.origin.strip_prefix(key.name()).is_some_and(|rest| rest.starts_with('/')))
            .cloned()
            .collect();
        if keys.is_empty() {
            return Err(Refusal::UnknownLog.into());
        }
        let _turn = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.remembered(&head.origin)?;
        let last = match &before {
            Some(kept) => Some(self.last_of(kept)?),
            None => None,
        };
        let known = KnownLog { origin: head.origin.clone(), keys, last };
        let checkpoint = match judge(&request, Some(&known)) {
            Ok(checkpoint) => checkpoint,
            Err(refusal) => {
                if let Some(kept) = before.filter(|_| refusal.is_misbehaviour()) {
                    tracing::error!(origin = head.origin, "{refusal}");
                    // Signed by the log itself, and not what it signed before: kept as proof.
                    self.remember(&Remembered { refused: Some(request.checkpoint.clone()), ..kept })?;
                }
                return Err(refusal.into());
            }
        };
        if before.is_none() {
            if self.all()?.len() >= ORIGINS_LIMIT {
                return Err(WitnessError::TooMany);
            }
            tracing::warn!(
                origin = head.origin,
                size = head.size,
                "a log, or a new epoch of one, is seen for the first time"
            );
        }
        let line = cosign(&checkpoint, &self.signer, now_s);
        let remembered = Remembered {
            origin: checkpoint.origin,
            size: checkpoint.size,
            checkpoint: format!("{}{line}", request.checkpoint),
            cosigned_at_s: now_s,
            refused: before.and_then(|kept| kept.refused),
        };
        self.remember(&remembered)?;
        Ok(line)
    }

    /// Size and root of what was cosigned last; proven by our own signature, or the file was changed.
    fn last_of(&self, kept: &Remembered) -> Result<(u64, trust::log::Hash), WitnessError> {
        let path = self.path(&kept.origin);
        let damaged = |what: String| WitnessError::Damaged { path: path.clone(), what };
        let own = std::slice::from_ref(self.signer.verifier());
        let (head, _) =
            Checkpoint::verified(&kept.checkpoint, own).map_err(|error| damaged(error.to_string()))?;
        if head.origin != kept.origin || head.size != kept.size {
            return Err(damaged("its numbers are not those of its checkpoint".to_owned()));
        }
        Ok((head.size, head.root))
    }

    fn path(&self, origin: &str) -> PathBuf {
        let mut digest = Sha256::new();
        digest.update(origin.as_bytes());
        let name: String = digest.finish()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(format!("{name}.json"))
    }

    fn remembered(&self, origin: &str) -> Result<Option<Remembered>, WitnessError> {
        let path = self.path(origin);
        if !path.exists() {
            return Ok(None);
        }
        read_state(&path).map(Some)
    }

    /// Everything that is remembered.
    ///
    /// # Errors
    /// [`WitnessError`].
    pub fn all(&self) -> Result<Vec<Remembered>, WitnessError> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed("reading", &self.directory))? {
            let path = entry.map_err(failed("reading", &self.directory))?.path();
            if path.extension().is_some_and(|ending| ending == "json") {
                all.push(read_state(&path)?);
            }
        }
        all.sort_by(|one, other| one.origin.cmp(&other.origin));
        Ok(all)
    }

    fn remember(&self, state: &Remembered) -> Result<(), WitnessError> {
        let path = self.path(&state.origin);
        let new = path.with_extension("new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(state)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(failed("writing", &path))
    }
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> WitnessError + 'a {
    move |source| WitnessError::File { doing, path: path.to_owned(), source }
}

fn read_state(path: &Path) -> Result<Remembered, WitnessError> {
    let damaged = |what: String| WitnessError::Damaged { path: path.to_owned(), what };
    let length = fs::metadata(path).map_err(failed("reading", path))?.len();
    if length > STATE_LIMIT_BYTES {
        return Err(damaged(format!("it has {length} bytes")));
    }
    let text = fs::read(path).map_err(failed("reading", path))?;
    serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clinical_model::Timestamp;
    use store::sqlite::{Options, SqliteStore};
    use store::{Actor, AuditAction, AuditRecord, Transaction};
    use trust::log::note::KeyKind;
    use trust::{Kek, Key};

    use super::*;
    use crate::checkpoints::{CheckpointOptions, keep};

    const START: Timestamp = Timestamp::from_seconds(1_795_336_200);

    fn open(directory: &Path) -> SqliteStore {
        SqliteStore::open(directory, Kek::from_bytes(&[7; 32]), Options::default()).unwrap()
    }

    fn grow(store: &SqliteStore, rows: u64, detail: &str) {
        let record = AuditRecord {
            detail: detail.to_owned(),
            ..AuditRecord::new(START, Actor::System, AuditAction::Read, "Patient")
        };
        let audit = vec![record; rows as usize];
        store.transact(&Transaction { at: START, audit, ..Transaction::default() }).unwrap();
        keep(store, Log::Acts, &CheckpointOptions::default(), START, true, None).unwrap();
    }

    fn witness(directory: &Path, store: &SqliteStore) -> Witness {
        let signer = Signer::derive(&Key::from_bytes(&[3; 32]), KeyKind::Witness, "witness.example/w1");
        let keys = store.log().log_signers(START).unwrap();
        let logs = keys.iter().map(|signer| signer.verifier().clone()).collect();
        Witness::open(directory, signer, logs).unwrap()
    }

    fn ask(store: &SqliteStore, witness: &Witness, old: u64) -> Result<String, WitnessError> {
        let question = question(store, Log::Acts, old, witness.key()).unwrap().unwrap();
        let line = witness.add_checkpoint(&question.request.to_text(), 1_795_336_300)?;
        keep_answer(store, &question, &line, witness.key()).unwrap();
        Ok(line)
    }

    #[test]
    fn a_witness_follows_a_log_and_refuses_one_that_was_rolled_back_over_its_own_restart() {
        let (data, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = open(data.path());
        grow(&store, 5, "a");
        let first = witness(memory.path(), &store);
        ask(&store, &first, 0).unwrap();
        assert!(question(&store, Log::Acts, 5, first.key()).unwrap().is_none(), "cosigned already");
        drop(store);
        let older = tempfile::tempdir().unwrap();
        for name in ["data.db", "keystore.db"] {
            fs::copy(data.path().join(name), older.path().join(name)).unwrap();
        }
        let store = open(data.path());
        grow(&store, 20, "b");
        ask(&store, &first, 5).unwrap();
        drop(first);

        // The older copy, alone and grown again differently.
        let rolled = open(older.path());
        let again = witness(memory.path(), &rolled);
        assert!(matches!(
            question(&rolled, Log::Acts, 25, again.key()),
            Err(AskError::SawMore { seen: 25, .. }) | Ok(None)
        ));
        grow(&rolled, 20, "c");
        let refused = ask(&rolled, &again, 25);
        assert!(matches!(refused, Err(WitnessError::Refused(Refusal::Forked { size: 25 }))), "{refused:?}");
        grow(&rolled, 3, "c");
        let refused = ask(&rolled, &again, 25);
        assert!(
            matches!(refused, Err(WitnessError::Refused(Refusal::Inconsistent { size: 25 }))),
            "{refused:?}"
        );
        let refused = ask(&rolled, &again, 0);
        assert!(matches!(refused, Err(WitnessError::Refused(Refusal::Stale { size: 25 }))), "{refused:?}");
        assert!(again.all().unwrap()[0].refused.is_some(), "the proof is kept");
        // The true log goes on.
        grow(&store, 1, "d");
        ask(&store, &again, 25).unwrap();
    }

    #[test]
    fn a_memory_that_was_changed_cosigns_nothing() {
        let (data, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = open(data.path());
        grow(&store, 5, "a");
        let witness = witness(memory.path(), &store);
        ask(&store, &witness, 0).unwrap();
        grow(&store, 5, "b");
        let path = fs::read_dir(memory.path()).unwrap().next().unwrap().unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"size\": 5", "\"size\": 0")).unwrap();
        let refused = ask(&store, &witness, 0);
        assert!(matches!(refused, Err(WitnessError::Damaged { .. })), "{refused:?}");
    }
}
