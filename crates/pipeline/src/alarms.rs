//! Alarms: committed readings against limits, silence and batteries; each change is one transaction with its audit.

use std::collections::HashMap;
use std::time::Duration;

use clinical_analytics::{Limit, ThresholdMonitor, Transition, silence};
use clinical_model::alert::Side;
use clinical_model::measure::{BATTERY_LEVEL, DATA_GAP, DEVICE_ALARM};
use clinical_model::validation::CLOCK_AHEAD_REMARKED;
use clinical_model::{
    Alert, AlertId, AlertKind, AlertState, Committed, Device, DeviceId, Event, Fact, Findings, Measure,
    PatientId, Priority, Reading, SeriesKey, Subject, Timestamp,
};
use store::{Expected, FrameRecord, Kind, Store, StoreError};

use crate::records::{self, RecordError};
use crate::registry::Registry;

/// Percent at and below which a battery is low.
const BATTERY_LOW_PERCENT: f64 = 15.0;
/// Percent at and above which it is no longer low.
const BATTERY_FINE_PERCENT: f64 = 20.0;
/// Open alerts that are held at once; a site with more has another problem, and gets it as a log line.
pub const OPEN_LIMIT_ALERTS: usize = 10_000;

/// Different alarms of one device about one subject that may be open at once; further ones share one alert, so that a
/// device that goes on inventing texts does not fill the inbox of the site.
pub const DEVICE_ALARMS_LIMIT: usize = 16;
/// A device's alarm that arrives later than this after it happened is charted only: news of the day before is no alert.
pub const DEVICE_ALARM_LATEST: Duration = Duration::from_secs(3_600);

/// A device that should be heard all the time may send nothing but late data for so long: what it stored while its link
/// was lost comes first, and then what is new.
pub const ONLY_LATE_FOR: Duration = Duration::from_secs(60);

/// What an open alert is about: there is never a second one for the same. The subject belongs to it: what a device said
/// about one patient must not hide what it says about the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Threshold(SeriesKey, Side),
    Silent(DeviceId, Subject),
    Battery(DeviceId),
    Late(DeviceId, Subject),
    DeviceAlarm(DeviceId, Subject, String),
}

fn key_of(alert: &Alert) -> Key {
    match &alert.what {
        AlertKind::Threshold { measure, side, .. } => {
            let series = SeriesKey { subject: alert.subject, measure: *measure, device: alert.device };
            Key::Threshold(series, *side)
        }
        AlertKind::DeviceSilent { .. } => Key::Silent(alert.device, alert.subject),
        AlertKind::BatteryLow { .. } => Key::Battery(alert.device),
        AlertKind::DataLate { .. } => Key::Late(alert.device, alert.subject),
        AlertKind::DeviceAlarm { text } => Key::DeviceAlarm(alert.device, alert.subject, text.clone()),
    }
}

/// Why the open alerts could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadAlertsError {
    /// The store failed.
    #[error("reading the open alerts failed")]
    Store(#[source] StoreError),
    /// A document does not say what it should.
    #[error("an open alert cannot be read")]
    Record(#[source] RecordError),
}

/// The open alerts with the monitors behind them. Kept in step with the documents by whoever holds the lock.
#[derive(Default)]
pub struct Alarms {
    monitors: HashMap<SeriesKey, ThresholdMonitor>,
    open: HashMap<Key, Alert>,
    by_id: HashMap<AlertId, Key>,
    /// About whom the silence of a device is an open alert: asked for every frame.
    silent: HashMap<DeviceId, Vec<Subject>>,
    /// About whom the lateness of a device's data is an open alert whose condition holds.
    late: HashMap<DeviceId, Subject>,
    /// When something new, not late, last arrived from a device.
    fresh: HashMap<DeviceId, Timestamp>,
    /// The version of each open alert's document, and of those that were resolved lately.
    versions: HashMap<AlertId, u64>,
}

impl Alarms {
    /// The alerts that were open when the server stopped.
    ///
    /// # Errors
    /// [`LoadAlertsError`].
    pub fn load(store: &dyn Store) -> Result<Self, LoadAlertsError> {
        let mut alarms = Alarms::default();
        let query = store::DocumentQuery {
            kind: Kind::Alert,
            index: records::ALERTS_BY_STATE,
            prefix: vec![0],
            after: None,
            order: store::Order::Descending,
            limit: OPEN_LIMIT_ALERTS,
        };
        for document in store.documents(&query).map_err(LoadAlertsError::Store)? {
            let alert: Alert = records::json_from(&document.body).map_err(LoadAlertsError::Record)?;
            let key = key_of(&alert);
            if let (Key::Threshold(series, side), true) = (key, alert.condition_active) {
                alarms.monitors.insert(series, ThresholdMonitor::holding(side, alert.raised_at));
            }
            alarms.adopt(alert, document.version);
        }
        Ok(alarms)
    }

    /// Takes an alert as the store has it, unless a later version is known: then it is false.
    pub(crate) fn adopt(&mut self, alert: Alert, version: u64) -> bool {
        if self.versions.get(&alert.id).is_some_and(|known| version <= *known) {
            return false;
        }
        self.remember_version(alert.id, version);
        let ended = !alert.condition_active && self.get(alert.id).is_some_and(|known| known.condition_active);
        if let (Key::Threshold(series, _), true) = (key_of(&alert), ended) {
            // A correction on another node ended it; what still holds, or holds again, must be raised anew.
            self.watch_anew(&series);
        }
        self.keep(alert);
        true
    }

    /// Which version of an alert's document a write must find.
    pub(crate) fn expected(&self, id: AlertId) -> Expected {
        self.versions.get(&id).map_or(Expected::Absent, |version| Expected::Version(*version))
    }

    /// An alert was written as [`Alarms::expected`] said.
    pub(crate) fn written(&mut self, id: AlertId) {
        let version = self.versions.get(&id).copied().unwrap_or(0);
        self.remember_version(id, version + 1);
    }

    fn remember_version(&mut self, id: AlertId, version: u64) {
        if self.versions.len() >= 2 * OPEN_LIMIT_ALERTS {
            let open = &self.by_id;
            self.versions.retain(|id, _| open.contains_key(id));
        }
        self.versions.insert(id, version);
    }

    /// All open alerts, in no order.
    pub fn open(&self) -> impl Iterator<Item = &Alert> {
        self.open.values()
    }

    /// One open alert.
    pub fn get(&self, id: AlertId) -> Option<&Alert> {
        self.by_id.get(&id).and_then(|key| self.open.get(key))
    }

    /// Forgets the alerts of a patient who was erased, and what was watched of them.
    pub(crate) fn forget_patient(&mut self, patient: PatientId) {
        let about = |alert: &&Alert| alert.subject == Subject::Patient(patient);
        let open: Vec<Alert> = self.open().filter(about).cloned().collect();
        for mut alert in open {
            alert.state = AlertState::Resolved;
            self.keep(alert);
        }
        self.monitors.retain(|series, _| series.subject.patient() != Some(patient));
    }

    /// Puts an alert as it now is: kept while open, forgotten when resolved. An unacknowledged alert whose condition
    /// comes back goes on as the same alert.
    pub fn keep(&mut self, alert: Alert) {
        let key = key_of(&alert);
        let over = alert.state == AlertState::Resolved;
        match &key {
            Key::Silent(device, subject) => {
                let subjects = self.silent.entry(*device).or_default();
                subjects.retain(|kept| kept != subject);
                if !over {
                    subjects.push(*subject);
                } else if subjects.is_empty() {
                    self.silent.remove(device);
                }
            }
            Key::Late(device, _) if over || !alert.condition_active => {
                self.late.remove(device);
                // Closed by a person while it holds: raised again if it goes on as long as it took before.
                self.fresh.remove(device);
            }
            Key::Late(device, subject) => drop(self.late.insert(*device, *subject)),
            // Closed by a person while it holds: if it goes on, it must be raised again.
            Key::Threshold(series, _) if over && alert.condition_active => {
                if let Some(monitor) = self.monitors.get_mut(series) {
                    monitor.closed_by_hand();
                }
            }
            _ => {}
        }
        if over {
            self.by_id.remove(&alert.id);
            self.open.remove(&key);
        } else {
            self.by_id.insert(alert.id, key.clone());
            self.open.insert(key, alert);
        }
    }

    /// What one committed fact changes, not yet kept anywhere.
    pub fn observe(&mut self, fact: &Committed<Fact>, registry: &Registry, now: Timestamp) -> Vec<Alert> {
        match fact.get() {
            Fact::Reading(reading) if reading.series().measure == BATTERY_LEVEL => self.battery(reading, now),
            Fact::Reading(reading) => self.threshold(reading, registry, now),
            Fact::Event(event) if event.series.measure == DEVICE_ALARM => self.device_alarm(event, now),
            Fact::Event(_) | Fact::Waveform(_) => Vec::new(),
        }
    }

    /// A device of which something was received is no longer silent, whoever it was silent about. What was received
    /// before the silence (and is run again from quarantine, say) does not end it.
    pub fn heard(&self, device: DeviceId, received_at: Timestamp, now: Timestamp) -> Vec<Alert> {
        let subjects = self.silent.get(&device).cloned().unwrap_or_default();
        let mut ended = Vec::new();
        for subject in subjects {
            let key = Key::Silent(device, subject);
            let before = match self.open.get(&key).map(|open| &open.what) {
                Some(AlertKind::DeviceSilent { last_heard_at }) => *last_heard_at,
                _ => None,
            };
            // A silence that began "after" now is one of a clock that was set back.
            if before.is_none_or(|before| before < received_at || now < before) {
                ended.extend(self.end(&key, now));
            }
        }
        ended
    }

    /// Whether what arrives from a device that should be heard all the time is new. Late data raises no threshold
    /// alarms; that nothing else comes must be known.
    pub fn freshness(&mut self, device: &Device, frame: &FrameRecord, now: Timestamp) -> Vec<Alert> {
        let mut facts = frame.facts.iter().filter(|fact| fact.series().measure != DATA_GAP).peekable();
        let Some(first) = facts.peek().filter(|_| device.expected_interval_s.is_some()) else {
            return Vec::new();
        };
        let (subject, measured_at) = (first.series().subject, first.at());
        let received_at = frame.frame.received_at;
        let before = self.late.get(&device.id).copied();
        if !facts.all(|fact| fact.findings().contains(Findings::LATE)) {
            self.fresh.insert(device.id, received_at);
            return before.map_or_else(Vec::new, |about| self.end(&Key::Late(device.id, about), now));
        }
        let since = *self.fresh.entry(device.id).or_insert(received_at);
        if received_at.duration_since(since) < ONLY_LATE_FOR {
            return Vec::new();
        }
        let mut changed = match before.filter(|about| *about != subject) {
            Some(other) => self.end(&Key::Late(device.id, other), now),
            None => Vec::new(),
        };
        let what = AlertKind::DataLate { measured_at, received_at };
        changed.extend(self.raise(
            Key::Late(device.id, subject),
            subject,
            device.id,
            Priority::Medium,
            what,
            now,
        ));
        changed
    }

    /// Nobody waits for a device that is assigned to nobody.
    pub fn not_expected(&self, device: DeviceId, now: Timestamp) -> Vec<Alert> {
        let subjects = self.silent.get(&device).cloned().unwrap_or_default();
        subjects.into_iter().flat_map(|subject| self.end(&Key::Silent(device, subject), now)).collect()
    }

    /// What a device signals has a beginning and no end: another text is another alert, and what happens again after
    /// somebody acknowledged it is signalled again.
    fn device_alarm(&mut self, event: &Event, now: Timestamp) -> Vec<Alert> {
        let late = event.findings.contains(Findings::LATE);
        if late && event.at < event.received_at.minus(DEVICE_ALARM_LATEST) {
            return Vec::new();
        }
        let SeriesKey { subject, device, .. } = event.series;
        let text = event.text.as_deref().unwrap_or("alarm");
        let mut text = if late { format!("{text} (happened at {})", event.at) } else { text.to_owned() };
        let mut key = Key::DeviceAlarm(device, subject, text.clone());
        if !self.open.contains_key(&key) {
            let theirs =
                |key: &&Key| matches!(key, Key::DeviceAlarm(d, s, _) if (*d, *s) == (device, subject));
            if self.open.keys().filter(theirs).count() >= DEVICE_ALARMS_LIMIT {
                text = format!("more than {DEVICE_ALARMS_LIMIT} different alarms; look at the device");
                key = Key::DeviceAlarm(device, subject, text.clone());
            }
        }
        let mut changed = Vec::new();
        if let Some(open) = self.open.get(&key).filter(|open| open.state == AlertState::Acknowledged) {
            // Not newer than the alert: a repeat of what was acknowledged.
            if event.at <= open.raised_at {
                return Vec::new();
            }
            let ended = self.end(&key, now);
            ended.iter().cloned().for_each(|alert| self.keep(alert));
            changed.extend(ended);
        }
        let what = AlertKind::DeviceAlarm { text };
        let mut raised = self.raise(key, subject, device, Priority::Medium, what, now);
        if late {
            // It is over, and nobody has seen it.
            raised.iter_mut().for_each(|alert| alert.condition_ended(now));
        }
        changed.extend(raised);
        changed
    }

    /// Raises an alert where a device has been silent for too long; `since` is when it was last heard, assigned or
    /// expected.
    pub fn check_silence(
        &mut self,
        device: &Device,
        subject: Subject,
        since: Timestamp,
        last_heard_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Vec<Alert> {
        let Some(expected_interval_s) = device.expected_interval_s else { return Vec::new() };
        if !silence::is_silent(since, expected_interval_s, now) {
            return Vec::new();
        }
        let what = AlertKind::DeviceSilent { last_heard_at };
        let others = self.silent.get(&device.id).cloned().unwrap_or_default();
        let others = others.into_iter().filter(|other| *other != subject);
        let mut changed: Vec<Alert> =
            others.flat_map(|other| self.end(&Key::Silent(device.id, other), now)).collect();
        let key = Key::Silent(device.id, subject);
        changed.extend(self.raise(key, subject, device.id, Priority::Low, what, now));
        changed
    }

    /// A series is watched anew: a value that it was judged by was put right. That value itself is looked at no more,
    /// however often it is sent again.
    pub(crate) fn watch_anew(&mut self, series: &SeriesKey) {
        if let Some(monitor) = self.monitors.get_mut(series) {
            monitor.closed_by_hand();
        }
    }

    fn threshold(&mut self, reading: &Reading, registry: &Registry, now: Timestamp) -> Vec<Alert> {
        let series = reading.series();
        let (Some(patient), Some(value)) = (series.subject.patient(), reading.value().number()) else {
            return Vec::new();
        };
        // Late data is charted, but a live alarm about the past would only mislead; a doubtful sensor is no patient.
        let doubtful = Findings::LATE | Findings::SENSOR_OFF | Findings::INVALID | Findings::SENSOR_FAULT;
        if reading.findings().intersects(doubtful) {
            return Vec::new();
        }
        let limits = registry.limits(patient);
        let Some(limit) = limits.iter().find(|limit| limit.measure == series.measure) else {
            self.monitors.remove(&series);
            return self.end_both(series, now);
        };
        let at = reading.measured_at();
        let monitor = self.monitors.entry(series).or_default();
        let present = reading.received_at().plus(CLOCK_AHEAD_REMARKED);
        if at <= present {
            monitor.forget_after(present);
        }
        let transition = monitor.observe(limit, at, value.to_f64());
        let threshold = |side, crossed| AlertKind::Threshold {
            measure: series.measure,
            side,
            limit: crossed,
            value,
            measured_at: at,
        };
        match transition {
            None => Vec::new(),
            Some(Transition::End) => self.end_both(series, now),
            Some(Transition::Raise { side, limit: crossed }) => {
                self.raise_threshold(series, side, limit, threshold(side, crossed), now)
            }
            Some(Transition::Turn { side, limit: crossed }) => {
                let mut changed = self.end_both(series, now);
                changed.extend(self.raise_threshold(series, side, limit, threshold(side, crossed), now));
                changed
            }
        }
    }

    fn raise_threshold(
        &mut self,
        series: SeriesKey,
        side: Side,
        limit: &Limit,
        what: AlertKind,
        now: Timestamp,
    ) -> Vec<Alert> {
        self.raise(Key::Threshold(series, side), series.subject, series.device, limit.priority, what, now)
    }

    fn battery(&mut self, reading: &Reading, now: Timestamp) -> Vec<Alert> {
        let Some(level) = reading.value().number() else { return Vec::new() };
        let series = reading.series();
        let key = Key::Battery(series.device);
        if level.to_f64() <= BATTERY_LOW_PERCENT {
            self.raise(
                key,
                series.subject,
                series.device,
                Priority::Low,
                AlertKind::BatteryLow { level },
                now,
            )
        } else if level.to_f64() >= BATTERY_FINE_PERCENT {
            self.end(&key, now)
        } else {
            Vec::new()
        }
    }

    fn raise(
        &self,
        key: Key,
        subject: Subject,
        device: DeviceId,
        priority: Priority,
        what: AlertKind,
        now: Timestamp,
    ) -> Vec<Alert> {
        if let Some(open) = self.open.get(&key) {
            if open.condition_active {
                return Vec::new();
            }
            // The condition came back before anybody answered: the same alert goes on, with the new value.
            let mut again = open.clone();
            again.condition_active = true;
            again.condition_ended_at = None;
            again.what = what;
            return vec![again];
        }
        if self.open.len() >= OPEN_LIMIT_ALERTS {
            tracing::error!(alerts.open = self.open.len(), "too many open alerts; a new one was not raised");
            return Vec::new();
        }
        let id = AlertId::from_bytes(crate::clock::new_id(now));
        vec![Alert::raise(id, subject, device, priority, what, now)]
    }

    fn end(&self, key: &Key, now: Timestamp) -> Vec<Alert> {
        let Some(open) = self.open.get(key).filter(|alert| alert.condition_active) else {
            return Vec::new();
        };
        let mut ended = open.clone();
        ended.condition_ended(now);
        vec![ended]
    }

    fn end_both(&self, series: SeriesKey, now: Timestamp) -> Vec<Alert> {
        let mut changed = self.end(&Key::Threshold(series, Side::Below), now);
        changed.extend(self.end(&Key::Threshold(series, Side::Above), now));
        changed
    }
}

/// One sentence for a person: parameter, value, comparator, limit, unit.
pub fn describe(alert: &Alert) -> String {
    match &alert.what {
        AlertKind::Threshold { measure, side, limit, value, .. } => {
            threshold_text(*measure, *side, *limit, *value)
        }
        AlertKind::DeviceSilent { last_heard_at: Some(at) } => format!("Device silent since {at}"),
        AlertKind::DeviceSilent { last_heard_at: None } => "Device never heard".to_owned(),
        AlertKind::BatteryLow { level } => format!("Battery {level} %"),
        AlertKind::DataLate { measured_at, .. } => {
            format!("Only late data (measured {measured_at}): no live alarms; check the device's clock")
        }
        AlertKind::DeviceAlarm { text } => format!("Device alarm: {text}"),
    }
}

fn threshold_text(measure: Measure, side: Side, limit: f64, value: clinical_model::Decimal) -> String {
    let comparator = match side {
        Side::Below => "<",
        Side::Above => ">",
    };
    format!("{} {value} {comparator} {limit} {}", measure.short, measure.unit_display)
}

/// A change of ours laid onto an alert that somebody else changed meanwhile: their steps stand, and the condition is what
/// we know of it. An alert that is over stays over.
pub(crate) fn rebased(ours: &Alert, theirs: Alert) -> Alert {
    let mut merged = theirs;
    if merged.state == AlertState::Resolved {
        return merged;
    }
    if ours.condition_active {
        merged.condition_active = true;
        merged.condition_ended_at = None;
        merged.what = ours.what.clone();
    } else if let Some(at) = ours.condition_ended_at {
        merged.condition_ended(at);
    }
    merged
}
