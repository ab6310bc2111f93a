//! Group commit: frames of all connections become one transaction; nobody is answered before it is on disk.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};

use store::{Appended, AuditRecord, FrameRecord, Store, StoreError, StoredGroup};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::gaps::Counted;
use crate::intake::{IntakeError, Receipt};
use crate::line::Line;
use crate::queue::{Submission, Submissions, Waiting};

/// Committed groups that may wait for alerts and screens before ingest is slowed down.
pub const AFTER_LIMIT_GROUPS: usize = 256;

/// Who is answered after a commit.
pub(crate) struct Answer {
    /// What is said, but for the group.
    pub receipt: Receipt,
    /// To whom.
    pub to: oneshot::Sender<Result<Receipt, IntakeError>>,
    /// The message's place in its device's count.
    pub counted: Option<Counted>,
    /// The connection that it came over.
    pub line: Option<Line>,
    /// The acts by which it came, until they are recorded.
    pub audit: Vec<AuditRecord>,
}

/// A group that is on stable storage, handed to what comes after.
#[derive(Clone, Debug)]
pub struct CommittedGroup {
    /// Its number and time.
    pub appended: Appended,
    /// Its frames; raw bytes were dropped.
    pub frames: Arc<Vec<FrameRecord>>,
}

impl From<StoredGroup> for CommittedGroup {
    fn from(group: StoredGroup) -> Self {
        let appended = Appended { group: group.group, committed_at: group.committed_at };
        CommittedGroup { appended, frames: Arc::new(group.frames) }
    }
}

/// What to do when stable storage failed under a commit: must not return control to a process that goes on
/// acknowledging. The server prints what to do and exits.
pub type OnDurabilityFailure = Box<dyn Fn(&StoreError) + Send>;

/// Runs on its own thread until every sender is gone.
pub(crate) fn run(
    queue: &Submissions,
    store: &dyn Store,
    clock: &dyn Clock,
    after: &SyncSender<CommittedGroup>,
    on_durability_failure: &OnDurabilityFailure,
) {
    #[cfg(feature = "planted")]
    let mut planted = crate::planted::Planted::default();
    loop {
        let group = queue.next_group();
        if group.is_empty() {
            return;
        }
        let apart = |waiting: Waiting| {
            let Submission { record, receipt, counted, line, audit, .. } = waiting.submission;
            (record, Answer { receipt, to: waiting.answer, counted, line, audit })
        };
        // Behind a refused frame of the same connection nothing is committed: its sender sends them all again.
        let (behind, group): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(apart)
            .partition(|(_, answer)| answer.line.as_ref().is_some_and(Line::is_broken));
        answer_refused(behind.into_iter().map(|(_, answer)| answer).collect(), &IntakeError::NotKept);
        if group.is_empty() {
            continue;
        }
        let (records, mut waiting): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let audit: Vec<_> = waiting.iter_mut().flat_map(|answer| std::mem::take(&mut answer.audit)).collect();
        #[cfg(feature = "planted")]
        let Some((records, waiting)) = planted.before_commit(records, waiting, clock) else { continue };
        match store.append_with(&records, &audit, clock.now()) {
            Ok(appended) => {
                acknowledge(waiting, appended);
                hand_on(records, appended, after);
            }
            Err(error) => refuse(waiting, &error, on_durability_failure),
        }
    }
}

pub(crate) fn acknowledge(waiting: Vec<Answer>, appended: Appended) {
    for Answer { mut receipt, to, counted, .. } in waiting {
        receipt.group = appended.group;
        receipt.committed_at = appended.committed_at;
        if let Some(counted) = counted {
            counted.keep();
        }
        // A connection that is gone does not need its answer: the device will send again, harmlessly.
        let _ = to.send(Ok(receipt));
    }
}

fn hand_on(mut records: Vec<FrameRecord>, appended: Appended, after: &SyncSender<CommittedGroup>) {
    for record in &mut records {
        record.frame.bytes = Vec::new();
    }
    let group = CommittedGroup { appended, frames: Arc::new(records) };
    match after.try_send(group) {
        Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        Err(TrySendError::Full(group)) => {
            tracing::warn!(
                group.number = group.appended.group,
                "alerts and screens lag behind; ingest waits for them"
            );
            let _ = after.send(group);
        }
    }
}

fn refuse(waiting: Vec<Answer>, error: &StoreError, on_durability_failure: &OnDurabilityFailure) {
    #[cfg(feature = "planted")]
    if trust::planted("swallowed-failure") {
        return acknowledge(waiting, crate::planted::NOWHERE);
    }
    let answer_with = match error {
        StoreError::Full { .. } => IntakeError::StorageFull,
        _ => IntakeError::NotKept,
    };
    if matches!(error, StoreError::Durability { .. }) {
        on_durability_failure(error);
    }
    tracing::error!(
        frames = waiting.len(),
        error = error as &(dyn std::error::Error + 'static),
        "a group was not kept"
    );
    answer_refused(waiting, &answer_with);
}

fn answer_refused(waiting: Vec<Answer>, answer_with: &IntakeError) {
    // All connections first: nothing that is sent after an answer may find its own still whole.
    waiting.iter().filter_map(|answer| answer.line.as_ref()).for_each(|line| line.note(answer_with));
    // The last first: each takes its number back, and the one before it is the last then.
    for Answer { to, counted, .. } in waiting.into_iter().rev() {
        drop(counted);
        let _ = to.send(Err(answer_with.clone()));
    }
}

/// The receiving end of what comes after the commit.
pub(crate) type AfterQueue = Receiver<CommittedGroup>;
