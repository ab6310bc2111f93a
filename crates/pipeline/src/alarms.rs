//! Alarms: committed readings against limits, silence and batteries; each change is one transaction with its audit.

use std::collections::HashMap;

use clinical_analytics::{Limit, ThresholdMonitor, Transition, silence};
use clinical_model::alert::Side;
use clinical_model::measure::{BATTERY_LEVEL, DEVICE_ALARM};
use clinical_model::{
    Alert, AlertId, AlertKind, AlertState, Committed, Device, DeviceId, Fact, Findings, Measure, Priority,
    Reading, SeriesKey, Subject, Timestamp,
};
use store::{Expected, Kind, Store, StoreError};

use crate::records::{self, RecordError};
use crate::registry::Registry;

/// Percent at and below which a battery is low.
const BATTERY_LOW_PERCENT: f64 = 15.0;
/// Percent at and above which it is no longer low.
const BATTERY_FINE_PERCENT: f64 = 20.0;
/// Open alerts that are held at once; a site with more has another problem, and gets it as a log line.
pub const OPEN_LIMIT_ALERTS: usize = 10_000;

/// What an open alert is about: there is never a second one for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Threshold(SeriesKey, Side),
    Silent(DeviceId),
    Battery(DeviceId),
    DeviceAlarm(DeviceId),
}

fn key_of(alert: &Alert) -> Key {
    match &alert.what {
        AlertKind::Threshold { measure, side, .. } => {
            let series = SeriesKey { subject: alert.subject, measure: *measure, device: alert.device };
            Key::Threshold(series, *side)
        }
        AlertKind::DeviceSilent { .. } => Key::Silent(alert.device),
        AlertKind::BatteryLow { .. } => Key::Battery(alert.device),
        AlertKind::DeviceAlarm { .. } => Key::DeviceAlarm(alert.device),
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
            alarms.keep(alert);
        }
        Ok(alarms)
    }

    /// All open alerts, in no order.
    pub fn open(&self) -> impl Iterator<Item = &Alert> {
        self.open.values()
    }

    /// One open alert.
    pub fn get(&self, id: AlertId) -> Option<&Alert> {
        self.by_id.get(&id).and_then(|key| self.open.get(key))
    }

    /// Puts an alert as it now is: kept while open, forgotten when resolved. An unacknowledged alert whose condition
    /// comes back goes on as the same alert.
    pub fn keep(&mut self, alert: Alert) {
        let key = key_of(&alert);
        if alert.state == AlertState::Resolved {
            self.by_id.remove(&alert.id);
            self.open.remove(&key);
        } else {
            self.by_id.insert(alert.id, key);
            self.open.insert(key, alert);
        }
    }

    /// What one committed fact changes, not yet kept anywhere.
    pub fn observe(&mut self, fact: &Committed<Fact>, registry: &Registry, now: Timestamp) -> Vec<Alert> {
        match fact.get() {
            Fact::Reading(reading) if reading.series().measure == BATTERY_LEVEL => self.battery(reading, now),
            Fact::Reading(reading) => self.threshold(reading, registry, now),
            Fact::Event(event) if event.series.measure == DEVICE_ALARM => {
                let text = event.text.clone().unwrap_or_else(|| "alarm".to_owned());
                let key = Key::DeviceAlarm(event.series.device);
                let what = AlertKind::DeviceAlarm { text };
                self.raise(key, event.series.subject, event.series.device, Priority::Medium, what, now)
            }
            Fact::Event(_) | Fact::Waveform(_) => Vec::new(),
        }
    }

    /// A device that is heard is no longer silent.
    pub fn heard(&mut self, device: DeviceId, now: Timestamp) -> Vec<Alert> {
        self.end(Key::Silent(device), now)
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
        self.raise(Key::Silent(device.id), subject, device.id, Priority::Low, what, now)
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
        let transition = self.monitors.entry(series).or_default().observe(limit, at, value.to_f64());
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
            self.end(key, now)
        } else {
            Vec::new()
        }
    }

    fn raise(
        &mut self,
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
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        let id = AlertId::from_uuid(trust::uuid_v7(millis));
        vec![Alert::raise(id, subject, device, priority, what, now)]
    }

    fn end(&mut self, key: Key, now: Timestamp) -> Vec<Alert> {
        let Some(open) = self.open.get(&key).filter(|alert| alert.condition_active) else {
            return Vec::new();
        };
        let mut ended = open.clone();
        ended.condition_ended(now);
        vec![ended]
    }

    fn end_both(&mut self, series: SeriesKey, now: Timestamp) -> Vec<Alert> {
        let mut changed = self.end(Key::Threshold(series, Side::Below), now);
        changed.extend(self.end(Key::Threshold(series, Side::Above), now));
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

/// The write of one changed alert.
pub(crate) fn alert_write(alert: &Alert) -> store::DocumentWrite {
    records::alert_write(alert, Expected::Any)
}
