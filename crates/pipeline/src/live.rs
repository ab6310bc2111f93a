//! What is happening now: an ordered ring of events for the screens, live waveforms, and when each device was heard.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clinical_model::validation::restated;
use clinical_model::{
    Alert, Committed, Decimal, DeviceId, Findings, GlassId, PatientId, Reading, SeriesKey, Subject,
    Timestamp, UserId, Waveform,
};
use tokio::sync::{broadcast, mpsc, watch};

use crate::break_glass::GlassState;

/// Events that are kept for a screen that comes back: a minute and more of a busy ward.
pub const RING_LIMIT_EVENTS: usize = 8_192;
/// Waveform blocks that a slow reader may lag behind before it loses the oldest.
pub const WAVEFORM_LAG_LIMIT_BLOCKS: usize = 64;
/// Series whose last shown reading is remembered: more than a large site has. Beyond it a later value under an identity
/// that was shown already is shown as it comes; the chart shows what stands.
const SHOWN_LIMIT_SERIES: usize = 200_000;
/// Commands that may wait for one device.
pub const COMMAND_LIMIT: usize = 32;

/// Something that a screen should show.
#[derive(Clone, Debug)]
pub enum Happening {
    /// New readings of one patient, newest of each series.
    Vitals {
        /// Whose.
        patient: PatientId,
        /// The readings.
        readings: Vec<Committed<Reading>>,
    },
    /// An alert was raised or changed.
    Alert(Box<Alert>),
    /// A device was heard again, fell silent, or its battery changed.
    Device(DeviceId),
    /// The number of items waiting in quarantine changed.
    Quarantine {
        /// How many wait.
        items: u64,
    },
    /// Patients, places or assignments changed: screens fetch their snapshot again.
    Assignment {
        /// To whom or where.
        subject: Subject,
    },
    /// A glass was broken, ended or reviewed, or its review is overdue.
    BreakGlass {
        /// Which.
        id: GlassId,
        /// Who broke it.
        by: UserId,
        /// For which patient.
        patient: PatientId,
        /// What became of it.
        state: GlassState,
    },
}

/// One event with its place in the order.
#[derive(Clone, Debug)]
pub struct LiveEvent {
    /// Counted from 1 since the server started.
    pub offset: u64,
    /// What happened.
    pub happening: Happening,
}

/// What became of a device's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// When its last frame arrived.
    pub last_heard_at: Option<Timestamp>,
    /// Whether it holds a connection now; `None` where its protocol has none.
    pub connected: Option<bool>,
    /// When that became so.
    pub link_changed_at: Option<Timestamp>,
    /// Its last battery level in percent.
    pub battery: Option<Decimal>,
    /// Whether it sends without a promise of delivery.
    pub at_most_once: bool,
    /// Whether its silence has raised an alert.
    pub silent: bool,
}

/// What came of asking for events after a position.
#[derive(Clone, Debug)]
pub enum Since {
    /// The events after the position, oldest first.
    Events(Vec<Arc<LiveEvent>>),
    /// Some of them are no longer kept: fetch a snapshot again. The position to go on from.
    Lost(u64),
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<LiveEvent>>,
    last_offset: u64,
}

struct Inner {
    epoch: String,
    ring: Mutex<Ring>,
    position: watch::Sender<u64>,
    waveforms: Mutex<HashMap<PatientId, broadcast::Sender<Arc<Waveform>>>>,
    heard: Mutex<HashMap<DeviceId, Heard>>,
    /// The last reading of each series that was shown.
    shown: Mutex<HashMap<SeriesKey, Committed<Reading>>>,
    commands: Mutex<HashMap<DeviceId, mpsc::Sender<Vec<u8>>>>,
}

/// Shared by all screens and all devices.
#[derive(Clone)]
pub struct Live(Arc<Inner>);

/// A reading that says that another value came under its identity.
pub(crate) fn contradicted(reading: Committed<Reading>) -> Committed<Reading> {
    reading.part(|inner| restated(inner, inner.value(), Findings::CONFLICT).ok()).unwrap_or(reading)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// Nothing has happened yet. `epoch` names this run of the server, so that positions of an earlier run are known
    /// to be of another.
    pub fn new(epoch: String) -> Self {
        Live(Arc::new(Inner {
            epoch,
            ring: Mutex::default(),
            position: watch::Sender::new(0),
            waveforms: Mutex::default(),
            heard: Mutex::default(),
            shown: Mutex::default(),
            commands: Mutex::default(),
        }))
    }

    /// The name of this run.
    pub fn epoch(&self) -> &str {
        &self.0.epoch
    }

    /// The offset of the last event.
    pub fn position(&self) -> u64 {
        lock(&self.0.ring).last_offset
    }

    /// Wakes whenever the position moves.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.position.subscribe()
    }

    /// The events after `offset`.
    pub fn since(&self, offset: u64) -> Since {
        let ring = lock(&self.0.ring);
        let first_kept = ring.events.front().map_or(ring.last_offset + 1, |event| event.offset);
        if offset > ring.last_offset || offset + 1 < first_kept {
            return Since::Lost(ring.last_offset);
        }
        let skip = usize::try_from(offset + 1 - first_kept).unwrap_or(usize::MAX);
        Since::Events(ring.events.iter().skip(skip).cloned().collect())
    }

    /// Adds one event.
    pub fn happened(&self, happening: Happening) {
        let offset = {
            let mut ring = lock(&self.0.ring);
            ring.last_offset += 1;
            let event = Arc::new(LiveEvent { offset: ring.last_offset, happening });
            ring.events.push_back(event);
            if ring.events.len() > RING_LIMIT_EVENTS {
                ring.events.pop_front();
            }
            ring.last_offset
        };
        self.0.position.send_replace(offset);
    }

    /// Something was missed: whoever asks for events from before now is told to fetch a snapshot again.
    pub fn lost(&self) {
        let offset = {
            let mut ring = lock(&self.0.ring);
            ring.last_offset += 1;
            ring.events.clear();
            ring.last_offset
        };
        self.0.position.send_replace(offset);
    }

    /// Forgets what is held of a patient who was erased; every screen fetches a snapshot again.
    pub(crate) fn forget_patient(&self, patient: PatientId) {
        lock(&self.0.shown).retain(|series, _| series.subject.patient() != Some(patient));
        lock(&self.0.waveforms).remove(&patient);
        self.lost();
    }

    /// Live waveform blocks of one patient. A reader that lags loses the oldest and is told so.
    pub fn waveforms(&self, patient: PatientId) -> broadcast::Receiver<Arc<Waveform>> {
        let mut waveforms = lock(&self.0.waveforms);
        waveforms.retain(|_, sender| sender.receiver_count() > 0);
        waveforms
            .entry(patient)
            .or_insert_with(|| broadcast::Sender::new(WAVEFORM_LAG_LIMIT_BLOCKS))
            .subscribe()
    }

    /// Whether anybody watches the waveforms of a patient.
    pub fn is_watched(&self, patient: PatientId) -> bool {
        lock(&self.0.waveforms).get(&patient).is_some_and(|sender| sender.receiver_count() > 0)
    }

    /// Shows one committed block.
    pub fn show_waveform(&self, patient: PatientId, waveform: Arc<Waveform>) {
        if let Some(sender) = lock(&self.0.waveforms).get(&patient) {
            // Nobody listening is no failure.
            let _ = sender.send(waveform);
        }
    }

    /// What is shown for a new reading: itself; or, where another value was shown under its identity, that one, which was
    /// committed first and stands, and says that there is another. False where just this was shown already: it was sent
    /// again, and may have been put right in between.
    pub(crate) fn standing(&self, reading: Committed<Reading>) -> (Committed<Reading>, bool) {
        let mut shown = lock(&self.0.shown);
        let series = reading.series();
        let is_full = shown.len() >= SHOWN_LIMIT_SERIES;
        let Some(kept) = shown.get_mut(&series) else {
            if !is_full {
                shown.insert(series, reading);
            }
            return (reading, true);
        };
        let identity = |one: &Reading| (one.measured_at(), one.sequence());
        match identity(kept).cmp(&identity(&reading)) {
            Ordering::Less => *kept = reading,
            Ordering::Equal if kept.value() == reading.value() => return (*kept, false),
            Ordering::Equal => {
                *kept = contradicted(*kept);
                return (*kept, true);
            }
            Ordering::Greater => {}
        }
        (reading, true)
    }

    /// What is known of a device's connection.
    pub fn heard(&self, device: DeviceId) -> Heard {
        lock(&self.0.heard).get(&device).copied().unwrap_or_default()
    }

    /// Changes what is known of a device's connection; true when `change` says that screens should know.
    pub fn update_heard(&self, device: DeviceId, change: impl FnOnce(&mut Heard) -> bool) {
        let tell = change(lock(&self.0.heard).entry(device).or_default());
        if tell {
            self.happened(Happening::Device(device));
        }
    }

    /// A device's connection came up or was lost.
    pub fn device_link(&self, device: DeviceId, connected: bool, at: Timestamp) {
        self.update_heard(device, |heard| {
            let changed = heard.connected != Some(connected);
            heard.connected = Some(connected);
            heard.link_changed_at = Some(at);
            changed
        });
    }

    /// The commands for a device; a later call ends the earlier receiver.
    pub fn take_commands(&self, device: DeviceId) -> mpsc::Receiver<Vec<u8>> {
        let (sender, receiver) = mpsc::channel(COMMAND_LIMIT);
        lock(&self.0.commands).insert(device, sender);
        receiver
    }

    /// Hands a command to a device that is connected now; false where it is not, or has too many waiting.
    pub fn command(&self, device: DeviceId, command: Vec<u8>) -> bool {
        lock(&self.0.commands).get(&device).is_some_and(|sender| sender.try_send(command).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(since: Since) -> Option<Vec<u64>> {
        match since {
            Since::Events(events) => Some(events.iter().map(|event| event.offset).collect()),
            Since::Lost(_) => None,
        }
    }

    #[test]
    fn a_screen_that_comes_back_gets_what_it_missed_or_is_told() {
        let live = Live::new("run".into());
        assert_eq!(offsets(live.since(0)), Some(vec![]));
        for items in 0..3 {
            live.happened(Happening::Quarantine { items });
        }
        assert_eq!(offsets(live.since(1)), Some(vec![2, 3]));
        assert_eq!(offsets(live.since(3)), Some(vec![]));
        assert_eq!(offsets(live.since(4)), None, "a position of the future is of another run");
        for items in 0..RING_LIMIT_EVENTS as u64 {
            live.happened(Happening::Quarantine { items });
        }
        assert_eq!(offsets(live.since(2)), None, "no longer kept");
        assert_eq!(offsets(live.since(3)).map(|all| all.len()), Some(RING_LIMIT_EVENTS));
    }

    #[test]
    fn after_something_was_missed_every_screen_starts_again() {
        let live = Live::new("run".into());
        live.happened(Happening::Quarantine { items: 1 });
        live.lost();
        assert_eq!(offsets(live.since(1)), None);
        live.happened(Happening::Quarantine { items: 2 });
        assert_eq!(offsets(live.since(1)), None);
        assert_eq!(offsets(live.since(2)), Some(vec![3]));
    }

    #[test]
    fn a_later_connection_takes_over_the_commands() {
        let live = Live::new("run".into());
        let device = DeviceId::from_bytes([1; 16]);
        assert!(!live.command(device, vec![1]));
        let mut first = live.take_commands(device);
        let mut second = live.take_commands(device);
        assert!(live.command(device, vec![2]));
        assert!(first.try_recv().is_err());
        assert_eq!(second.try_recv().unwrap(), vec![2]);
    }
}
