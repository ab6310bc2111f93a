//! The queue before the commit: bounded, fair between devices, the urgent first, and in order within a device.
//!
//! Each device has one line, so that what it sent first is committed first. A device waits in the ring of the most
//! urgent frame in its line; a group takes one frame of each device of a ring in turn. So an alarm pulls forward what
//! its own device sent before it, and a device that floods us waits in its own line.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clinical_model::{DeviceId, Timestamp};
use store::{AuditRecord, FrameRecord};
use tokio::sync::{Notify, oneshot};

use crate::gaps::Counted;
use crate::intake::{IntakeError, Receipt};
use crate::line::Line as Connection;
use crate::shedding::{Bounds, CLASSES, Class, Load, Refusals};

/// Frames that may wait for a commit: far more than one commit takes, so that the disk is never idle.
pub const QUEUE_LIMIT_FRAMES: usize = 8_192;
/// Bytes of frames that may wait: the bound on memory when the disk is slow.
pub const QUEUE_LIMIT_BYTES: usize = 64 << 20;
/// Frames of one device that may wait: a minute of a monitor that sends ten a second, and an eighth of the queue.
pub const DEVICE_LIMIT_FRAMES: usize = 1_024;
/// Bytes of one device that may wait: an eighth of the queue.
pub const DEVICE_LIMIT_BYTES: usize = 8 << 20;
/// Frames in one commit: enough to spread one fsync widely, few enough that the last does not wait long.
pub const GROUP_LIMIT_FRAMES: usize = 2_048;
/// Bytes of frames in one commit.
pub const GROUP_LIMIT_BYTES: usize = 4 << 20;

/// Sixteenths of the queue that a class may fill together with those that are less urgent: there is always room for an
/// alarm, and always for live data before backfill.
const ROOM_SIXTEENTHS: [usize; 3] = [16, 14, 8];
/// The part of a group that is kept for each class which is less urgent and waits: nobody waits for ever.
const KEPT_FOR_OTHERS: usize = 8;

/// From arrival to commit a frame takes milliseconds; a disk that takes so long does not keep up.
const KEEPS_UP_WITHIN: Duration = Duration::from_secs(1);
/// How long a slow commit is held against the disk.
const SLOW_FOR: Duration = Duration::from_secs(10);

/// One frame on its way to the disk.
pub(crate) struct Submission {
    pub record: FrameRecord,
    pub receipt: Receipt,
    pub class: Class,
    pub counted: Option<Counted>,
    /// The connection that it came over, where frames of one come one behind another.
    pub line: Option<Connection>,
    /// The acts by which it came, recorded in its commit.
    pub audit: Vec<AuditRecord>,
}

/// A frame in the queue.
pub(crate) struct Waiting {
    pub submission: Submission,
    pub answer: oneshot::Sender<Result<Receipt, IntakeError>>,
    arrival: u64,
    bytes: usize,
}

/// How long a frame may wait for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until its class has to give way.
    ByClass,
    /// The same, and not at all where its device has its share already.
    ByShare,
    /// For so long, though its class has to give way: its sender cannot be told to come again.
    Hold(Duration),
    /// For ever: somebody was promised that it is kept.
    Endless,
}

/// The way into the commit. The queue ends when all of them are gone.
#[derive(Clone)]
pub struct CommitQueue {
    shared: Arc<Shared>,
    _open: Arc<Open>,
}

/// The end of the queue that the commit takes from.
pub(crate) struct Submissions {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Something came, or the queue has ended.
    news: Condvar,
    /// There is room again.
    room: Notify,
}

struct Open {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct State {
    lines: HashMap<DeviceId, Line>,
    rings: [VecDeque<(DeviceId, u64)>; 3],
    waiting: [usize; 3],
    bytes: [usize; 3],
    arrivals: Arrivals,
    committing_since: Option<Instant>,
    /// When a group last took too long.
    slow_at: Option<Instant>,
    refusals: Refusals,
    next_place: u64,
    is_closed: bool,
    is_abandoned: bool,
}

/// What waits of one device, in the order in which it came.
#[derive(Default)]
struct Line {
    frames: VecDeque<Waiting>,
    waiting: [usize; 3],
    bytes: usize,
    /// Its place in a ring; entries of the rings with another number are old.
    place: u64,
    ring: usize,
}

/// When each waiting frame came, without a search for the oldest.
#[derive(Default)]
struct Arrivals {
    first: u64,
    at: VecDeque<Option<Instant>>,
}

/// Resolves after the commit.
pub(crate) type Answered = oneshot::Receiver<Result<Receipt, IntakeError>>;

/// An answer to come, or the frame back; or the end of the queue.
type Offered = Result<Result<Answered, (Submission, NotNow)>, IntakeError>;

/// Why a frame is not taken now.
enum NotNow {
    MustGiveWay,
    NoRoom,
    NoShare,
}

impl CommitQueue {
    /// The queue, and its other end.
    pub(crate) fn new() -> (Self, Submissions) {
        let shared = Arc::new(Shared { state: Mutex::default(), news: Condvar::new(), room: Notify::new() });
        let open = Arc::new(Open { shared: Arc::clone(&shared) });
        (CommitQueue { shared: Arc::clone(&shared), _open: open }, Submissions { shared })
    }

    /// Waits for room and hands the frame over; the receiver resolves after the commit.
    pub(crate) async fn submit(
        &self,
        submission: Submission,
        patience: Patience,
        bounds: &Bounds,
        now: Timestamp,
    ) -> Result<Answered, IntakeError> {
        let class = submission.class;
        let bound = bounds.of(class).filter(|_| patience != Patience::Endless);
        let wait = match patience {
            Patience::Hold(hold) => bound.map(|bound| bound.max(hold)),
            _ => bound,
        };
        let deadline = wait.map(|wait| tokio::time::Instant::now() + wait);
        let mut submission = submission;
        loop {
            let mut room = std::pin::pin!(self.shared.room.notified());
            room.as_mut().enable();
            match self.shared.offer(submission, bound)? {
                Ok(answered) => return Ok(answered),
                Err((back, NotNow::NoShare)) if patience == Patience::ByShare => {
                    self.shared.lock().refusals.note_share();
                    return Err(IntakeError::Busy { device: back.record.frame.device });
                }
                Err((back, NotNow::MustGiveWay)) if !matches!(patience, Patience::Hold(_)) => {
                    drop(back);
                    return Err(self.shared.refused(class, now));
                }
                Err((back, _)) => submission = back,
            }
            let Some(deadline) = deadline else {
                room.await;
                continue;
            };
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                return Err(self.shared.refused(class, now));
            }
        }
    }

    /// The load at this moment.
    pub(crate) fn load(&self) -> Load {
        let state = self.shared.lock();
        let mut load = Load {
            waiting_frames: state.waiting,
            waiting_bytes: state.bytes.iter().sum(),
            oldest_waits: state.oldest_waits(),
            disk_is_behind: state.disk_is_behind(),
            ..Load::default()
        };
        state.refusals.fill(&mut load);
        load
    }
}

impl Shared {
    /// Takes a frame, or gives it back.
    fn offer(&self, submission: Submission, bound: Option<Duration>) -> Offered {
        let mut state = self.lock();
        if state.is_abandoned {
            return Err(IntakeError::Stopping);
        }
        if bound.is_some_and(|bound| state.oldest_waits() > bound) {
            return Ok(Err((submission, NotNow::MustGiveWay)));
        }
        if let Err(not_now) = state.has_room(&submission) {
            return Ok(Err((submission, not_now)));
        }
        let (answer, answered) = oneshot::channel();
        state.put(submission, answer);
        drop(state);
        self.news.notify_one();
        Ok(Ok(answered))
    }

    fn refused(&self, class: Class, now: Timestamp) -> IntakeError {
        let mut state = self.lock();
        let waits = state.oldest_waits();
        state.refusals.note(class, waits, now);
        IntakeError::Overloaded { class }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Submissions {
    /// Waits for frames and gives those of the next group; none when the queue has ended. The group before counts as
    /// committed now.
    pub(crate) fn next_group(&self) -> Vec<Waiting> {
        let mut state = self.shared.lock();
        if let Some(since) = state.committing_since.take() {
            if since.elapsed() >= KEEPS_UP_WITHIN {
                state.slow_at = Some(Instant::now());
            }
            // What had to give way to the group before may be taken now, even if nothing waits.
            self.shared.room.notify_waiters();
        }
        loop {
            if state.waiting.iter().any(|waiting| *waiting > 0) {
                break;
            }
            if state.is_closed {
                return Vec::new();
            }
            state = self.shared.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let group = state.take_group();
        state.committing_since = group.iter().map(|(_, came)| *came).min();
        drop(state);
        self.shared.room.notify_waiters();
        group.into_iter().map(|(waiting, _)| waiting).collect()
    }
}

impl Drop for Submissions {
    /// Nobody commits any more: whoever waits is told so by the end of its answer.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_abandoned = true;
        let lines = std::mem::take(&mut state.lines);
        drop(state);
        drop(lines);
        self.shared.room.notify_waiters();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.news.notify_one();
    }
}

impl State {
    fn oldest_waits(&self) -> Duration {
        let oldest = self.arrivals.oldest().into_iter().chain(self.committing_since).min();
        oldest.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn disk_is_behind(&self) -> bool {
        self.oldest_waits() >= KEEPS_UP_WITHIN || self.slow_at.is_some_and(|at| at.elapsed() < SLOW_FOR)
    }

    fn has_room(&self, submission: &Submission) -> Result<(), NotNow> {
        let bytes = size(&submission.record);
        if let Some(line) = self.lines.get(&submission.record.frame.device)
            && (line.frames.len() >= DEVICE_LIMIT_FRAMES || line.bytes + bytes > DEVICE_LIMIT_BYTES)
        {
            return Err(NotNow::NoShare);
        }
        // What is less urgent counts for what is more urgent, and not the other way round.
        for class in &CLASSES[..=submission.class.index()] {
            let from = class.index();
            let frames: usize = self.waiting[from..].iter().sum();
            let waiting_bytes: usize = self.bytes[from..].iter().sum();
            let part = ROOM_SIXTEENTHS[from];
            let is_full = frames >= QUEUE_LIMIT_FRAMES / 16 * part
                || (frames > 0 && waiting_bytes + bytes > QUEUE_LIMIT_BYTES / 16 * part);
            if is_full {
                return Err(NotNow::NoRoom);
            }
        }
        Ok(())
    }

    fn put(&mut self, submission: Submission, answer: oneshot::Sender<Result<Receipt, IntakeError>>) {
        let (class, bytes) = (submission.class.index(), size(&submission.record));
        let device = submission.record.frame.device;
        let arrival = self.arrivals.put();
        self.waiting[class] += 1;
        self.bytes[class] += bytes;
        let line = self.lines.entry(device).or_default();
        let is_first = line.frames.is_empty();
        line.frames.push_back(Waiting { submission, answer, arrival, bytes });
        line.waiting[class] += 1;
        line.bytes += bytes;
        if is_first || class < line.ring {
            self.next_place += 1;
            line.place = self.next_place;
            line.ring = class;
            self.rings[class].push_back((device, line.place));
        }
    }

    /// The next group, the most urgent first, one frame of each device in turn.
    fn take_group(&mut self) -> Vec<(Waiting, Instant)> {
        let mut group = Vec::new();
        let mut bytes = 0;
        for class in CLASSES {
            let others = self.waiting[class.index() + 1..].iter().filter(|waiting| **waiting > 0).count();
            let parts = KEPT_FOR_OTHERS - others;
            let frames_until = GROUP_LIMIT_FRAMES / KEPT_FOR_OTHERS * parts;
            let bytes_until = GROUP_LIMIT_BYTES / KEPT_FOR_OTHERS * parts;
            while group.len() < frames_until && (bytes < bytes_until || group.is_empty()) {
                let Some(taken) = self.take_one(class.index()) else { break };
                bytes += taken.0.bytes;
                group.push(taken);
            }
        }
        group
    }

    /// The first frame of the next device in a ring; the device goes to the end of the ring it belongs into then.
    fn take_one(&mut self, ring: usize) -> Option<(Waiting, Instant)> {
        loop {
            let (device, place) = self.rings[ring].pop_front()?;
            let Some(line) = self.lines.get_mut(&device).filter(|line| line.place == place) else { continue };
            let waiting = line.frames.pop_front()?;
            let class = waiting.submission.class.index();
            line.waiting[class] -= 1;
            line.bytes -= waiting.bytes;
            self.waiting[class] -= 1;
            self.bytes[class] -= waiting.bytes;
            match line.waiting.iter().position(|count| *count > 0) {
                None => drop(self.lines.remove(&device)),
                Some(next) => {
                    self.next_place += 1;
                    line.place = self.next_place;
                    line.ring = next;
                    self.rings[next].push_back((device, line.place));
                }
            }
            let came = self.arrivals.take(waiting.arrival);
            return Some((waiting, came));
        }
    }
}

impl Arrivals {
    fn put(&mut self) -> u64 {
        self.at.push_back(Some(Instant::now()));
        self.first + self.at.len() as u64 - 1
    }

    fn oldest(&self) -> Option<Instant> {
        self.at.front().copied().flatten()
    }

    fn take(&mut self, arrival: u64) -> Instant {
        let index = usize::try_from(arrival - self.first).unwrap_or(usize::MAX);
        let came = self.at.get_mut(index).and_then(Option::take);
        while let Some(None) = self.at.front() {
            self.at.pop_front();
            self.first += 1;
        }
        came.unwrap_or_else(Instant::now)
    }
}

/// The bytes that a waiting frame is counted with: its own, and about what was read from them.
fn size(record: &FrameRecord) -> usize {
    record.frame.bytes.len() + FACT_BYTES * record.facts.len() + FRAME_BYTES
}

/// About what one fact costs while it waits, in bytes.
const FACT_BYTES: usize = 64;
/// About what a frame costs beside its bytes.
const FRAME_BYTES: usize = 256;

#[cfg(test)]
mod tests;
