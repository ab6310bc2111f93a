//! What gives way when more comes than can be kept: backfill before live data, live data before alarms.
//!
//! Nothing is dropped here. A frame that has to give way is refused before anything of it is kept: its sender keeps it
//! and sends it again. What was acknowledged is on stable storage and gives way to nothing.

use std::time::{Duration, Instant};

use clinical_analytics::threshold::Limit;
use clinical_model::measure::DEVICE_ALARM;
use clinical_model::{Fact, Findings, Timestamp};
use store::FrameRecord;

use crate::alarms::DEVICE_ALARM_LATEST;
use crate::registry::Registry;

/// How urgent a frame is. The most urgent stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// It holds an alarm of a device, or a value beyond the limits that are set for its patient.
    Alarm,
    /// It was measured now, or cannot be read: then nobody knows what it says.
    Live,
    /// All of it was measured well before it arrived.
    Backfill,
}

/// Every class, the most urgent first.
pub const CLASSES: [Class; 3] = [Class::Alarm, Class::Live, Class::Backfill];

impl Class {
    /// The class of a frame that was read.
    pub fn of(record: &FrameRecord, registry: &Registry) -> Self {
        if record.facts.iter().any(|fact| is_alarming(fact, registry)) {
            return Class::Alarm;
        }
        let is_old = |fact: &Fact| fact.findings().contains(Findings::LATE);
        if record.quarantined.is_empty() && !record.facts.is_empty() && record.facts.iter().all(is_old) {
            return Class::Backfill;
        }
        Class::Live
    }

    /// Its name in logs and in the status of the server.
    pub fn name(self) -> &'static str {
        match self {
            Class::Alarm => "alarm",
            Class::Live => "live",
            Class::Backfill => "backfill",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

fn is_alarming(fact: &Fact, registry: &Registry) -> bool {
    match fact {
        Fact::Event(event) => {
            event.series.measure == DEVICE_ALARM && event.at >= event.received_at.minus(DEVICE_ALARM_LATEST)
        }
        Fact::Reading(reading) => {
            let series = reading.series();
            let (Some(patient), Some(value)) = (series.subject.patient(), reading.value().number()) else {
                return false;
            };
            let value = value.to_f64();
            let is_beyond = |limit: &Limit| {
                limit.measure == series.measure
                    && (limit.low.is_some_and(|low| value < low)
                        || limit.high.is_some_and(|high| value > high))
            };
            !reading.findings().contains(Findings::LATE) && registry.limits(patient).iter().any(is_beyond)
        }
        Fact::Waveform(_) => false,
    }
}

/// When a class gives way: what waits for the disk has waited for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Backfill gives way first. A commit takes milliseconds; two seconds mean that the disk does not keep up.
    pub backfill_after: Duration,
    /// Live data gives way when alarms would wait for longer than anybody should.
    pub live_after: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { backfill_after: Duration::from_secs(2), live_after: Duration::from_secs(10) }
    }
}

impl Bounds {
    /// When a class gives way; alarms never do.
    pub(crate) fn of(&self, class: Class) -> Option<Duration> {
        match class {
            Class::Alarm => None,
            Class::Live => Some(self.live_after),
            Class::Backfill => Some(self.backfill_after),
        }
    }
}

/// Seconds after which it is worth sending again what had to give way.
pub const RETRY_AFTER_S: u64 = 5;

/// Time between two lines in the log about the same trouble: whoever floods us must not flood the log too.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The load of the commit at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Frames that wait for the disk, by class, in the order of [`CLASSES`].
    pub waiting_frames: [usize; 3],
    /// Bytes of them.
    pub waiting_bytes: usize,
    /// How long the oldest of them has waited.
    pub oldest_waits: Duration,
    /// Frames wait, or waited a moment ago, for longer than a healthy disk takes: what the site does for itself gives way.
    pub disk_is_behind: bool,
    /// Frames refused since the server started because something more urgent came first, by class.
    pub refused_frames: [u64; 3],
    /// When that happened last, by class.
    pub refused_at: [Option<Timestamp>; 3],
    /// Requests refused since the server started because their device had its share of the queue.
    pub refused_shares: u64,
}

impl Load {
    /// The classes that had to give way within the last while.
    pub fn shedding(&self, now: Timestamp, within: Duration) -> impl Iterator<Item = Class> {
        let recently = move |at: Option<Timestamp>| at.is_some_and(|at| at >= now.minus(within));
        let refused_at = self.refused_at;
        CLASSES.into_iter().filter(move |class| recently(refused_at[class.index()]))
    }
}

/// Counts what had to give way, and says so in the log.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    frames: [u64; 3],
    at: [Option<Timestamp>; 3],
    logged: [Option<Instant>; 3],
    shares: u64,
}

impl Refusals {
    pub(crate) fn note(&mut self, class: Class, waits: Duration, now: Timestamp) {
        let index = class.index();
        self.frames[index] += 1;
        self.at[index] = Some(now);
        if self.logged[index].is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.logged[index] = Some(Instant::now());
            tracing::warn!(
                class = class.name(),
                refused = self.frames[index],
                oldest_waits_ms = u64::try_from(waits.as_millis()).unwrap_or(u64::MAX),
                "the disk does not keep up: frames are refused, and their devices keep them"
            );
        }
    }

    pub(crate) fn note_share(&mut self) {
        self.shares += 1;
    }

    pub(crate) fn fill(&self, load: &mut Load) {
        load.refused_frames = self.frames;
        load.refused_at = self.at;
        load.refused_shares = self.shares;
    }
}
