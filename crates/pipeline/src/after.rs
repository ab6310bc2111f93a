//! After the commit, in commit order: alarms, then live screens. Each is idempotent and has its own durable cursor.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clinical_model::measure::BATTERY_LEVEL;
use clinical_model::{
    Alert, AlertId, AlertState, Committed, Delivery, Fact, Findings, Frame, PatientId, Reading,
    RecordId as _, SeriesKey, Timestamp,
};
use store::{Actor, AuditAction, AuditRecord, Kind, Store, TransactError, Transaction};

use crate::alarms::{self, Alarms};
use crate::clock::Clock;
use crate::commit::{AfterQueue, CommittedGroup};
use crate::corrections::{self, Correction};
use crate::live::{Happening, Live, contradicted};
use crate::records;
use crate::registry::Registry;

/// The cursor of the alarms.
pub const ALARMS_CURSOR: &str = "alarms";
/// How often silence is checked.
pub(crate) const TICK: Duration = Duration::from_millis(500);
/// Groups after which the cursor is moved although no alert changed: bounds what is looked at again after a crash,
/// and what cannot be folded yet.
pub(crate) const CURSOR_EVERY_GROUPS: u64 = 200;
/// Groups read at once when catching up.
pub(crate) const CATCH_UP_PAGE: usize = 64;
/// Times that a change of alerts is laid onto what others changed meanwhile: each time there is something new to read.
const KEEP_LIMIT_TRIES: u32 = 4;

/// What the stage needs.
pub(crate) struct After {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub registry: Arc<Registry>,
    pub alarms: Arc<Mutex<Alarms>>,
    pub live: Live,
    pub started_at: Timestamp,
    /// Changed alerts that storage refused: they go with the next transaction, and until then the cursor stands.
    pub unkept: Mutex<HashMap<AlertId, Alert>>,
    /// Which node writes alerts, where several share the store: its lease is a condition of each transaction.
    pub lease: Option<Lease>,
    /// Set when a transaction was refused because the lease was another's.
    pub is_lease_lost: AtomicBool,
}

/// A lease and its holder.
pub(crate) type Lease = (&'static str, [u8; 16]);

/// What is done with a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stages {
    /// Alarms and screens.
    Both,
    /// Alarms only: the screens have seen it.
    Alarms,
    /// Screens only: the alarms are another node's, or have seen it.
    Screens,
}

/// What is looked at from time to time beside the groups.
pub(crate) struct Rounds {
    silence_checked: Instant,
    quarantined: u64,
}

impl Rounds {
    pub(crate) fn begin(after: &After) -> Self {
        Rounds { silence_checked: Instant::now(), quarantined: after.store.quarantine_count().items }
    }

    /// Looks for silent devices once a tick: all devices are gone through for it, which is too much for each of
    /// thousands of groups a second.
    pub(crate) fn check_silence(&mut self, after: &After) {
        if self.silence_checked.elapsed() >= TICK {
            after.check_silence();
            self.silence_checked = Instant::now();
        }
    }

    /// Tells the screens when another number of items waits in quarantine.
    pub(crate) fn tell_quarantine(&mut self, after: &After) {
        let items = after.store.quarantine_count().items;
        if std::mem::replace(&mut self.quarantined, items) != items {
            after.live.happened(Happening::Quarantine { items });
        }
    }
}

impl After {
    /// Runs on its own thread until the commit is gone.
    pub(crate) fn run(&self, queue: &AfterQueue, mut done: u64) {
        let mut moved = done;
        let mut rounds = Rounds::begin(self);
        loop {
            match queue.recv_timeout(TICK) {
                Ok(group) => {
                    // Groups that were caught up with from the journal come once more through the queue.
                    if done < group.appended.group {
                        moved = self.take(&group, Stages::Both, moved);
                        done = group.appended.group;
                    }
                }
                // Idle: nothing holds the cursor back.
                Err(RecvTimeoutError::Timeout) if moved < done && self.all_kept() => {
                    moved = self.move_cursor(done).map_or(moved, |()| done);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if done.saturating_sub(moved) >= CURSOR_EVERY_GROUPS && self.all_kept() {
                moved = self.move_cursor(done).map_or(moved, |()| done);
            }
            rounds.check_silence(self);
            rounds.tell_quarantine(self);
        }
    }

    /// Takes the groups that were committed but not looked at when the server stopped. Returns the last one.
    pub(crate) fn catch_up(&self) -> Result<u64, store::StoreError> {
        let mut done = self.store.cursor(ALARMS_CURSOR)?;
        loop {
            let page = self.store.groups_after(done, CATCH_UP_PAGE)?;
            let Some(last) = page.last().map(|group| group.group) else { return Ok(done) };
            for group in page {
                self.take(&CommittedGroup::from(group), Stages::Both, done);
            }
            if !self.all_kept() || self.move_cursor(last).is_err() {
                return Ok(last);
            }
            done = last;
        }
    }

    /// One committed group. Returns how far the cursor has been moved.
    pub(crate) fn take(&self, group: &CommittedGroup, stages: Stages, moved: u64) -> u64 {
        let now = self.clock.now();
        let mut changed: Vec<Alert> = Vec::new();
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest: HashMap<SeriesKey, Committed<Reading>> = HashMap::new();
        let (judged, shown) = (stages != Stages::Screens, stages != Stages::Alarms);
        for record in group.frames.iter() {
            if judged {
                let ended = alarms.heard(record.frame.device, record.frame.received_at, now);
                adopt(&mut alarms, &mut changed, ended);
            }
            if shown {
                self.heard(&record.frame, now, &record.facts);
            }
            // What a person ran again from quarantine is old by nature.
            if judged
                && record.released.is_empty()
                && let Some(device) = self.registry.device(record.frame.device)
            {
                let alerts = alarms.freshness(&device, record, now);
                adopt(&mut alarms, &mut changed, alerts);
            }
            for fact in &record.facts {
                let fact = group.appended.committed(fact.clone());
                if judged {
                    let alerts = alarms.observe(&fact, &self.registry, now);
                    adopt(&mut alarms, &mut changed, alerts);
                }
                if shown {
                    self.show(&fact, group, &mut newest);
                }
            }
        }
        self.show_vitals(newest);
        if !judged {
            return moved;
        }
        self.add_unkept(&alarms, &mut changed);
        if changed.is_empty() {
            return moved;
        }
        let cursor = Some((ALARMS_CURSOR, group.appended.group));
        self.keep_with(&mut alarms, changed, cursor).map_or(moved, |()| group.appended.group)
    }

    fn heard(&self, frame: &Frame, now: Timestamp, facts: &[Fact]) {
        let at = frame.received_at;
        let battery = facts.iter().rev().find_map(|fact| match fact {
            Fact::Reading(reading) if reading.series().measure == BATTERY_LEVEL => reading.value().number(),
            _ => None,
        });
        self.live.update_heard(frame.device, |heard| {
            // What a person ran again from quarantine was heard long ago. After our clock was set back, what was
            // heard "later" than now must not hide a silence.
            let last = heard.last_heard_at.filter(|last| *last <= now);
            if last.is_some_and(|last| at < last) {
                return false;
            }
            // What came after its connection was lost came another way: it holds none now that could be lost.
            let is_back = heard.connected == Some(false)
                && heard.link_changed_at.is_none_or(|lost| lost < at || now < lost);
            if is_back {
                heard.connected = None;
            }
            let tell = heard.silent
                || is_back
                || heard.last_heard_at.is_none()
                || battery.is_some_and(|level| heard.battery != Some(level));
            heard.last_heard_at = Some(at);
            heard.at_most_once = frame.delivery == Delivery::AtMostOnce;
            heard.battery = battery.or(heard.battery);
            heard.silent = false;
            tell
        });
    }

    fn show(
        &self,
        fact: &Committed<Fact>,
        group: &CommittedGroup,
        newest: &mut HashMap<SeriesKey, Committed<Reading>>,
    ) {
        match fact.get() {
            Fact::Reading(reading) => {
                let reading = group.appended.committed(*reading);
                let kept = newest.entry(reading.series()).or_insert(reading);
                let identity = |one: &Reading| (one.measured_at(), one.sequence());
                if identity(kept) < identity(&reading) {
                    *kept = reading;
                } else if identity(kept) == identity(&reading) && kept.value() != reading.value() {
                    *kept = contradicted(*kept);
                }
            }
            // A strip from a buffer is in the chart; drawn on a live screen, it would be taken for the heart of now.
            Fact::Waveform(waveform) if waveform.findings.contains(Findings::LATE) => {}
            Fact::Waveform(waveform) => {
                if let Some(patient) = waveform.series.subject.patient()
                    && self.live.is_watched(patient)
                {
                    self.live.show_waveform(patient, Arc::new(waveform.clone()));
                }
            }
            Fact::Event(_) => {}
        }
    }

    fn show_vitals(&self, newest: HashMap<SeriesKey, Committed<Reading>>) {
        let mut by_patient: HashMap<PatientId, (Vec<Committed<Reading>>, bool)> = HashMap::new();
        for (series, reading) in newest {
            if let Some(patient) = series.subject.patient() {
                let (standing, is_new) = self.live.standing(reading);
                let of_patient = by_patient.entry(patient).or_default();
                of_patient.0.push(standing);
                of_patient.1 |= is_new;
            }
        }
        // What was only sent again is on the screens already, or was put right there since.
        for (patient, (mut readings, _)) in by_patient.into_iter().filter(|(_, (_, is_new))| *is_new) {
            readings.sort_by_key(|reading| reading.series());
            self.live.happened(Happening::Vitals { patient, readings });
        }
    }

    /// Every assigned device that should be heard, against the clock.
    fn check_silence(&self) {
        let now = self.clock.now();
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Vec::new();
        for device in self.registry.devices() {
            if device.retired || device.expected_interval_s.is_none() {
                continue;
            }
            let Some(assignment) = self.registry.assignment_at(device.id, now) else {
                // Nobody waits for a device that was taken off.
                let ended = alarms.not_expected(device.id, now);
                adopt(&mut alarms, &mut changed, ended);
                continue;
            };
            let mut heard = self.live.heard(device.id);
            if heard.last_heard_at.is_some_and(|last| now < last) {
                heard.last_heard_at = Some(now);
                self.live.update_heard(device.id, |kept| {
                    kept.last_heard_at = Some(now);
                    false
                });
            }
            let started_at = Some(self.started_at).filter(|at| *at <= now);
            let since = heard.last_heard_at.max(Some(assignment.interval.start)).max(started_at);
            let since = since.unwrap_or(now);
            let alerts = alarms.check_silence(&device, assignment.subject, since, heard.last_heard_at, now);
            if !alerts.is_empty() {
                self.live.update_heard(device.id, |heard| !std::mem::replace(&mut heard.silent, true));
            }
            adopt(&mut alarms, &mut changed, alerts);
        }
        self.add_unkept(&alarms, &mut changed);
        if !changed.is_empty() {
            // The cursor stays where it is: silence is about time, not about a group.
            let _ = self.keep_with(&mut alarms, changed, None);
        }
    }

    /// A value was put right, perhaps on a node that did not know of the alert that it raised: whoever judges the alarms
    /// ends what holds no longer, unless that was done already.
    pub(crate) fn value_put_right(&self, correction: &Correction) {
        let now = self.clock.now();
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let Correction { position, status, values, .. } = correction;
        let ids = corrections::alerts_put_right(&mut alarms, position, *status, values);
        let mut ended: Vec<Alert> = ids.into_iter().filter_map(|id| alarms.get(id).cloned()).collect();
        if ended.is_empty() {
            return;
        }
        for alert in &mut ended {
            alert.condition_ended(now);
            alarms.keep(alert.clone());
        }
        // The cursor stays where it is: this is about a document, not about a group.
        let _ = self.keep_with(&mut alarms, ended, None);
    }

    pub(crate) fn all_kept(&self) -> bool {
        self.unkept.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// What storage refused earlier, as it stands now; without what a person has answered, and so kept, meanwhile.
    fn add_unkept(&self, alarms: &Alarms, changed: &mut Vec<Alert>) {
        let refused = std::mem::take(&mut *self.unkept.lock().unwrap_or_else(PoisonError::into_inner));
        let earlier = refused.into_values().filter_map(|alert| match alarms.get(alert.id) {
            Some(now) => Some(now.clone()),
            None => Some(alert).filter(|alert| alert.state == AlertState::Resolved),
        });
        changed.splice(0..0, earlier);
    }

    /// Whether a transaction was refused for want of the lease since this was last asked.
    pub(crate) fn lost_lease(&self) -> bool {
        self.is_lease_lost.swap(false, Ordering::AcqRel)
    }

    /// Moves the cursor where no alert changed.
    pub(crate) fn move_cursor(&self, group: u64) -> Result<(), TransactError> {
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        self.keep_with(&mut alarms, Vec::new(), Some((ALARMS_CURSOR, group)))
    }

    /// Alerts, their audit rows and the cursor in one transaction; screens learn of them only afterwards.
    fn keep_with(
        &self,
        alarms: &mut Alarms,
        changed: Vec<Alert>,
        cursor: Option<(&'static str, u64)>,
    ) -> Result<(), TransactError> {
        let mut changed = last_of_each(changed);
        let mut tries = 1;
        let kept = loop {
            let kept = self.store.transact(&self.transaction(alarms, &changed, cursor));
            match &kept {
                Err(TransactError::Conflict { .. }) if tries < KEEP_LIMIT_TRIES => {
                    tries += 1;
                    if let Err(error) = self.rebase(alarms, &mut changed) {
                        break Err(error.into());
                    }
                }
                _ => break kept,
            }
        };
        match &kept {
            Ok(()) => changed.iter().for_each(|alert| alarms.written(alert.id)),
            // What this node noticed is noticed by the one that has the lease now.
            Err(TransactError::LeaseLost { .. }) => {
                self.is_lease_lost.store(true, Ordering::Release);
                return kept;
            }
            Err(error) => {
                tracing::error!(
                    error = error as &dyn std::error::Error,
                    alerts = changed.len(),
                    "alerts were not kept; they are tried again"
                );
                let mut unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
                unkept.extend(changed.iter().map(|alert| (alert.id, alert.clone())));
            }
        }
        for alert in changed {
            self.live.happened(Happening::Alert(Box::new(alert)));
        }
        kept
    }

    fn transaction(
        &self,
        alarms: &Alarms,
        changed: &[Alert],
        cursor: Option<(&'static str, u64)>,
    ) -> Transaction {
        let at = self.clock.now();
        Transaction {
            at,
            writes: changed
                .iter()
                .map(|alert| records::alert_write(alert, alarms.expected(alert.id)))
                .collect(),
            audit: changed.iter().map(|alert| audit_of(alert, at)).collect(),
            cursor,
            lease: self.lease,
            ..Transaction::default()
        }
    }

    /// Somebody on another node answered one of the alerts: their steps are taken up, and our change is laid onto them.
    fn rebase(&self, alarms: &mut Alarms, changed: &mut Vec<Alert>) -> Result<(), store::StoreError> {
        let mut left = Vec::with_capacity(changed.len());
        for ours in changed.drain(..) {
            let Some(document) = self.store.document(Kind::Alert, ours.id.to_bytes())? else {
                left.push(ours);
                continue;
            };
            let Ok(theirs) = records::json_from::<Alert>(&document.body) else {
                tracing::error!(alert = %ours.id, "an alert cannot be read; its change is given up");
                continue;
            };
            if !alarms.adopt(theirs.clone(), document.version) {
                left.push(ours);
                continue;
            }
            let merged = alarms::rebased(&ours, theirs.clone());
            if merged == theirs {
                self.live.happened(Happening::Alert(Box::new(merged)));
            } else {
                alarms.keep(merged.clone());
                left.push(merged);
            }
        }
        *changed = left;
        Ok(())
    }
}

/// The last state of each alert, in the order in which they first changed.
fn last_of_each(changed: Vec<Alert>) -> Vec<Alert> {
    let mut latest: HashMap<AlertId, Alert> = HashMap::new();
    let mut order = Vec::new();
    for alert in changed {
        if latest.insert(alert.id, alert.clone()).is_none() {
            order.push(alert.id);
        }
    }
    order.into_iter().filter_map(|id| latest.remove(&id)).collect()
}

fn adopt(alarms: &mut Alarms, changed: &mut Vec<Alert>, alerts: Vec<Alert>) {
    for alert in alerts {
        alarms.keep(alert.clone());
        changed.push(alert);
    }
}

fn audit_of(alert: &Alert, at: Timestamp) -> AuditRecord {
    let action = if alert.steps.len() == 1 { AuditAction::Create } else { AuditAction::Update };
    AuditRecord {
        patient: alert.subject.patient(),
        device: Some(alert.device),
        alert: Some(alert.id),
        detail: alarms::describe(alert),
        ..AuditRecord::new(at, Actor::System, action, "Alert")
    }
}
