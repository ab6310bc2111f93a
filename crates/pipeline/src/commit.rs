//! Group commit: frames of all connections become one transaction; nobody is answered before it is on disk.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};

use store::{Appended, FrameRecord, Store, StoreError, StoredGroup};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::clock::Clock;
use crate::intake::{IntakeError, Receipt};

/// Frames that may wait for a commit: far more than one commit takes, so that the disk is never idle.
pub const QUEUE_LIMIT_FRAMES: usize = 8_192;
/// Bytes of frames that may wait: the bound on memory when the disk is slow.
pub const QUEUE_LIMIT_BYTES: usize = 64 << 20;
/// Frames in one commit: enough to spread one fsync widely, few enough that the last does not wait long.
pub const GROUP_LIMIT_FRAMES: usize = 2_048;
/// Bytes of frames in one commit.
pub const GROUP_LIMIT_BYTES: usize = 4 << 20;
/// Committed groups that may wait for alerts and screens before ingest is slowed down.
pub const AFTER_LIMIT_GROUPS: usize = 256;

/// Bytes counted by one permit of the queue's semaphore, whose count is a `u32`.
const PERMIT_BYTES: usize = 256;

/// One frame on its way to the disk.
pub(crate) struct Submission {
    record: FrameRecord,
    receipt: Receipt,
    answer: oneshot::Sender<Result<Receipt, IntakeError>>,
    _room: OwnedSemaphorePermit,
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

/// The way into the commit.
#[derive(Clone)]
pub struct CommitQueue {
    sender: mpsc::Sender<Submission>,
    room: Arc<Semaphore>,
}

impl CommitQueue {
    /// The queue, and its other end for [`run`].
    pub(crate) fn new() -> (Self, mpsc::Receiver<Submission>) {
        let (sender, receiver) = mpsc::channel(QUEUE_LIMIT_FRAMES);
        (CommitQueue { sender, room: Arc::new(Semaphore::new(QUEUE_LIMIT_BYTES / PERMIT_BYTES)) }, receiver)
    }

    /// Waits for room and hands the frame over; the receiver resolves after the commit.
    pub(crate) async fn submit(
        &self,
        record: FrameRecord,
        receipt: Receipt,
    ) -> Result<oneshot::Receiver<Result<Receipt, IntakeError>>, IntakeError> {
        let permits = u32::try_from(record.frame.bytes.len() / PERMIT_BYTES + 1).unwrap_or(u32::MAX);
        let room =
            Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_| IntakeError::Stopping)?;
        let (answer, answered) = oneshot::channel();
        let submission = Submission { record, receipt, answer, _room: room };
        self.sender.send(submission).await.map_err(|_| IntakeError::Stopping)?;
        Ok(answered)
    }
}

/// What to do when stable storage failed under a commit: must not return control to a process that goes on
/// acknowledging. The server prints what to do and exits.
pub type OnDurabilityFailure = Box<dyn Fn(&StoreError) + Send>;

/// Runs on its own thread until every sender is gone.
pub(crate) fn run(
    mut queue: mpsc::Receiver<Submission>,
    store: &dyn Store,
    clock: &dyn Clock,
    after: &SyncSender<CommittedGroup>,
    on_durability_failure: &OnDurabilityFailure,
) {
    #[cfg(feature = "planted")]
    let mut planted = crate::planted::Planted::default();
    while let Some(first) = queue.blocking_recv() {
        let mut bytes = first.record.frame.bytes.len();
        let mut records = vec![first.record];
        let mut waiting = vec![(first.receipt, first.answer)];
        let mut rooms = vec![first._room];
        while records.len() < GROUP_LIMIT_FRAMES && bytes < GROUP_LIMIT_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.record.frame.bytes.len();
            records.push(next.record);
            waiting.push((next.receipt, next.answer));
            rooms.push(next._room);
        }
        #[cfg(feature = "planted")]
        let Some((records, waiting)) = planted.before_commit(records, waiting, clock) else { continue };
        match store.append(&records, clock.now()) {
            Ok(appended) => {
                acknowledge(waiting, appended);
                hand_on(records, appended, after);
            }
            Err(error) => refuse(waiting, &error, on_durability_failure),
        }
        drop(rooms);
    }
}

pub(crate) fn acknowledge(
    waiting: Vec<(Receipt, oneshot::Sender<Result<Receipt, IntakeError>>)>,
    appended: Appended,
) {
    for (mut receipt, answer) in waiting {
        receipt.group = appended.group;
        receipt.committed_at = appended.committed_at;
        // A connection that is gone does not need its answer: the device will send again, harmlessly.
        let _ = answer.send(Ok(receipt));
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

fn refuse(
    waiting: Vec<(Receipt, oneshot::Sender<Result<Receipt, IntakeError>>)>,
    error: &StoreError,
    on_durability_failure: &OnDurabilityFailure,
) {
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
    for (_, answer) in waiting {
        let _ = answer.send(Err(answer_with.clone()));
    }
}

/// The receiving end of what comes after the commit.
pub(crate) type AfterQueue = Receiver<CommittedGroup>;
