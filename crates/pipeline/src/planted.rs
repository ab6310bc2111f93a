//! Bugs on purpose in the way from the wire to the disk; the fault harness must find each. Never in a release.

use std::time::Duration;

use clinical_model::decoded::DecodedEntry;
use clinical_model::{Decoded, DeviceTime, Timestamp};
use store::{Appended, FrameRecord};
use trust::planted;

use crate::clock::Clock;
use crate::commit::{Answer, acknowledge};

/// A group that was never committed.
pub(crate) const NOWHERE: Appended = Appended { group: 0, committed_at: Timestamp::MIN };
/// How long the early acknowledgement is early.
const EARLY: Duration = Duration::from_millis(30);

/// Groups after which every series of a load is known, so that its answers can name what they answer.
const SERIES_KNOWN: u32 = 50;

type Waiting = Vec<Answer>;

/// What the planted bugs of the commit remember.
#[derive(Default)]
pub(crate) struct Planted {
    groups: u32,
    held: Option<Vec<FrameRecord>>,
    newest: Option<Timestamp>,
}

impl Planted {
    /// What is to be committed and who is to be answered after it; `None` when nothing is.
    pub(crate) fn before_commit(
        &mut self,
        mut records: Vec<FrameRecord>,
        waiting: Waiting,
        clock: &dyn Clock,
    ) -> Option<(Vec<FrameRecord>, Waiting)> {
        if planted("early-acknowledgement") {
            acknowledge(waiting, NOWHERE);
            std::thread::sleep(EARLY);
            return Some((records, Waiting::new()));
        }
        self.groups += 1;
        if planted("unflushed-stop") && self.groups > SERIES_KNOWN {
            // One group is always kept back, and forgotten when the process stops.
            acknowledge(waiting, NOWHERE);
            let held = self.held.replace(records)?;
            return Some((held, Waiting::new()));
        }
        if planted("order-swap") {
            records.reverse();
        }
        if planted("clock-believed") {
            // Takes what comes after a step back for a repeat.
            let now = clock.now();
            if self.newest.is_some_and(|newest| now < newest) {
                acknowledge(waiting, NOWHERE);
                return None;
            }
            self.newest = Some(now);
        }
        Some((records, waiting))
    }
}

/// Makes the identity of a reading depend on when it was received, so that a repeat is another reading.
pub(crate) fn spoil_identity<T>(
    mut decoded: Vec<(DecodedEntry, T)>,
    received_at: Timestamp,
) -> Vec<(DecodedEntry, T)> {
    if !planted("spoiled-identity") {
        return decoded;
    }
    for entry in decoded.iter_mut().filter_map(|(entry, _)| entry.result.as_mut().ok()).flatten() {
        if let Decoded::Scalar(scalar) = entry
            && let DeviceTime::Utc(at) = scalar.time
        {
            scalar.time = DeviceTime::Utc(at.plus_micros(received_at.as_millis() % 1_000));
        }
    }
    decoded
}
