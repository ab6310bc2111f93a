//! Live events over SSE: ordered, resumable, and closed when the session ends.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use clinical_model::{Committed, Patient, PatientId, PlaceId, Reading, Subject};
use pipeline::audited::Act;
use pipeline::live::{Happening, LiveEvent, Since};
use serde::{Deserialize, Serialize};
use store::{AuditAction, AuditOutcome};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::only::Only;
use crate::access::{LOOK_LASTS, Permission, Permit, STREAM_LASTS, Sight, may};
use crate::json::patients::theirs;
use crate::json::{Asked, id_of, views};
use crate::problem::Problem;
use crate::serve::Stopping;
use crate::session::Current;
use crate::state::Web;

/// Without anything else to say, a beat is sent so often: twice missed, and the screen knows that the link is lost.
const BEAT_EVERY: Duration = Duration::from_secs(4);
/// Events that may wait for one slow reader; a reader that stays behind is closed and comes back by its position.
const WAITING_LIMIT_EVENTS: usize = 64;
/// Where more vitals than this wait for one reader, it gets only what is newest of each patient. Up to here each is shown
/// as it came: a patient's page that was away for half a minute misses nothing, and a ward's board needs only the newest.
const MERGE_BEYOND_EVENTS: usize = 64;
/// Patients of a stream of whom each beat asks whether they may still be seen: a ward. Of more, changes tell.
const ASKED_AGAIN_LIMIT: usize = 64;
/// A reader that takes nothing for so long is closed.
const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
pub(crate) struct Scope {
    ward: Option<String>,
    patient: Option<String>,
    only: Option<String>,
}

/// What one stream may show.
struct Stream {
    web: Arc<Web>,
    access: Permit<may::SignedIn>,
    current: Current,
    stopping: CancellationToken,
    ward: Option<PlaceId>,
    patient: Option<PatientId>,
    only: Only,
    /// The look at a patient, as it stands in their row.
    look: Act,
    /// Of whom anything was shown in this stream.
    looked_at: Mutex<HashSet<PatientId>>,
    /// Whom the reader could see in it last: who is so no more is told.
    visible: Mutex<HashSet<PatientId>>,
    sender: mpsc::Sender<Result<Event, Infallible>>,
}

/// The stream is over: the reader is gone or too slow.
struct Closed;

#[derive(Serialize)]
struct Position {
    position: String,
    server_time: clinical_model::Timestamp,
}

pub(crate) async fn stream(
    State(web): State<Arc<Web>>,
    access: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
    stopping: Option<Extension<Stopping>>,
    Asked(scope): Asked<Scope>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let only = Only::of(scope.only.as_deref())?;
    let mut look = access.act(AuditAction::Stream, only.object());
    let ward: Option<PlaceId> = match &scope.ward {
        Some(id) => Some(id_of(id, "ward")?),
        None => None,
    };
    if let Some(ward) = ward {
        if !access.sight(&web).ward(ward) {
            return Err(Problem::not_found("ward"));
        }
        look = look.detail(format!("ward {ward}"));
    }
    let patient = match &scope.patient {
        Some(id) => Some(theirs(&web, &access, id).await?.id),
        None => None,
    };
    // Who is shown has a row before anything of them is; that of the stream itself names nobody.
    match patient {
        Some(patient) => {
            let due = access.due_looks(&web, &look, [(patient, LOOK_LASTS)]);
            web.blocking(move |web| due.write(web)).await??;
        }
        None => {
            let act = look.clone();
            web.blocking(move |web| web.site.record(act, AuditOutcome::Success)).await??;
        }
    }
    let (sender, receiver) = mpsc::channel(WAITING_LIMIT_EVENTS);
    let position = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (stopping, looked_at, visible) = (Stopping::of(stopping), Mutex::default(), Mutex::default());
    let stream =
        Stream { web, access, current, stopping, ward, patient, only, look, looked_at, visible, sender };
    tokio::spawn(async move {
        // However it ends, the reader sees the stream close and comes back.
        let _ = stream.run(position).await;
    });
    let events = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|event| (event, receiver))
    });
    let mut response = Sse::new(events).into_response();
    // Proxies must not hold events back.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

impl Stream {
    async fn run(mut self, last_event_id: Option<String>) -> Result<(), Closed> {
        let mut moved = self.web.site.live().watch();
        let mut offset = self.begin(last_event_id).await?;
        self.look_around().await?;
        let mut beat = tokio::time::interval(BEAT_EVERY);
        beat.tick().await;
        loop {
            moved.borrow_and_update();
            offset = self.send_since(offset).await?;
            tokio::select! {
                changed = moved.changed() => changed.map_err(|_| Closed)?,
                _ = beat.tick() => self.beat(offset).await?,
                _ = self.current.ended.changed() => return self.signed_out().await,
                () = self.sender.closed() => return Err(Closed),
                () = self.stopping.cancelled() => return Err(Closed),
            }
        }
    }

    /// Finds out whom the reader can see, in a stream that is not about one patient.
    async fn look_around(&self) -> Result<(), Closed> {
        if self.patient.is_some() {
            return Ok(());
        }
        let (access, ward) = (self.access.clone(), self.ward);
        let seen = self.web.blocking(move |web| {
            let (registry, sight) = (web.site.registry(), access.sight(web));
            let is_here = |patient: &Patient| ward.is_none_or(|ward| registry.ward_of(patient) == Some(ward));
            let seen = registry.patients().into_iter().filter(|one| is_here(one) && sight.patient(one));
            seen.map(|patient| patient.id).collect::<HashSet<_>>()
        });
        *self.visible.lock().unwrap_or_else(PoisonError::into_inner) = seen.await.map_err(|_| Closed)?;
        Ok(())
    }

    /// Tells that a patient may no longer be seen here, where they could be before.
    async fn gone(&self, offset: u64, patient: PatientId) -> Result<(), Closed> {
        if !self.visible.lock().unwrap_or_else(PoisonError::into_inner).remove(&patient) {
            return Ok(());
        }
        self.send("gone", offset, &serde_json::json!({ "patient_id": patient })).await
    }

    /// Where the reader goes on: after its last event, where that is still kept; else at the present, with a reset.
    async fn begin(&self, last_event_id: Option<String>) -> Result<u64, Closed> {
        let live = self.web.site.live();
        let now = live.position();
        let asked = last_event_id.map(|id| {
            let (epoch, offset) = id.split_once('.')?;
            let offset = offset.parse().ok()?;
            (epoch == live.epoch() && matches!(live.since(offset), Since::Events(_))).then_some(offset)
        });
        match asked {
            Some(Some(offset)) => Ok(offset),
            Some(None) => {
                self.send("reset", now, &self.position(now)).await?;
                Ok(now)
            }
            None => {
                self.send("hello", now, &self.position(now)).await?;
                Ok(now)
            }
        }
    }

    async fn send_since(&self, offset: u64) -> Result<u64, Closed> {
        match self.web.site.live().since(offset) {
            Since::Lost(now) => {
                self.send("reset", now, &self.position(now)).await?;
                Ok(now)
            }
            Since::Events(events) => {
                let mut last = offset;
                for run in runs(&events) {
                    match run {
                        [event] => self.show(event).await?,
                        many => self.show_run(last, many).await?,
                    }
                    last = run.last().map_or(last, |event| event.offset);
                }
                Ok(last)
            }
        }
    }

    async fn beat(&self, offset: u64) -> Result<(), Closed> {
        if !self.web.session_runs(&self.current.hash).await {
            return self.signed_out().await;
        }
        if let Some(patient) = self.patient.filter(|patient| !self.sight().patient_id(*patient)) {
            // A consent was withdrawn, a broken glass has ended, or the patient was moved.
            self.send("unseen", offset, &serde_json::json!({ "patient_id": patient })).await?;
            return Err(Closed);
        }
        for patient in self.few_visible() {
            if !self.shows(patient) {
                // A rule or a broken glass has ended by its time.
                self.gone(offset, patient).await?;
            }
        }
        self.send("beat", offset, &self.position(offset)).await
    }

    /// Whom the reader can see, where they are so few that all can be asked for again with every beat.
    fn few_visible(&self) -> Vec<PatientId> {
        let visible = self.visible.lock().unwrap_or_else(PoisonError::into_inner);
        if visible.len() > ASKED_AGAIN_LIMIT { Vec::new() } else { visible.iter().copied().collect() }
    }

    async fn signed_out(&self) -> Result<(), Closed> {
        let event = Event::default().event("signed-out").data("{}");
        let _ = self.sender.send(Ok(event)).await;
        Err(Closed)
    }

    fn position(&self, offset: u64) -> Position {
        let live = self.web.site.live();
        Position { position: format!("{}.{offset}", live.epoch()), server_time: self.web.site.clock().now() }
    }

    async fn send(&self, name: &str, offset: u64, data: &impl Serialize) -> Result<(), Closed> {
        let id = format!("{}.{offset}", self.web.site.live().epoch());
        let event = Event::default().event(name).id(id).json_data(data).map_err(|_| Closed)?;
        let sent = tokio::time::timeout(SLOW_READER_TIMEOUT, self.sender.send(Ok(event))).await;
        sent.map_err(|_| Closed)?.map_err(|_| Closed)
    }

    /// Whom and what the reader may see now: asked again for each event, so that a consent holds from the next one on.
    fn sight(&self) -> Sight<'_> {
        self.access.sight(&self.web)
    }

    /// Puts it into the log that these patients are looked at: when the first of each is shown, and again while the stream
    /// goes on. Where it cannot be written, nothing is shown and the stream ends.
    async fn looks_at(&self, patients: impl IntoIterator<Item = PatientId>) -> Result<(), Closed> {
        let due = {
            let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
            let mut lasts = |patient| if looked_at.insert(patient) { LOOK_LASTS } else { STREAM_LASTS };
            let patients = patients.into_iter().map(|patient| (patient, lasts(patient)));
            let patients: Vec<_> = patients.collect();
            self.access.due_looks(&self.web, &self.look, patients)
        };
        if due.is_empty() {
            return Ok(());
        }
        let written = self.web.blocking(move |web| due.write(web)).await;
        if matches!(written, Ok(Ok(()))) { Ok(()) } else { Err(Closed) }
    }

    /// Whether a patient is in the scope of the stream.
    fn is_in_scope(&self, patient: PatientId) -> bool {
        let registry = self.web.site.registry();
        let in_ward =
            |ward| registry.patient(patient).and_then(|found| registry.ward_of(&found)) == Some(ward);
        self.patient.is_none_or(|only| only == patient) && self.ward.is_none_or(in_ward)
    }

    /// Whether a patient is in the scope of the stream and theirs.
    fn shows(&self, patient: PatientId) -> bool {
        self.is_in_scope(patient) && self.sight().patient_id(patient)
    }

    /// Whether how their devices work may be shown, too.
    fn shows_devices_of(&self, patient: PatientId) -> bool {
        let known = self.web.site.registry().patient(patient);
        known.is_some_and(|patient| self.sight().devices_of(&patient))
    }

    /// Of readings of one patient those that the reader may see.
    fn seen(&self, patient: PatientId, readings: &[Committed<Reading>]) -> Vec<Committed<Reading>> {
        if !self.is_in_scope(patient) {
            return Vec::new();
        }
        let sight = self.sight();
        match sight.patient_id(patient) {
            true => readings.iter().filter(|one| sight.series(&one.series())).copied().collect(),
            false => Vec::new(),
        }
    }

    async fn show(&self, event: &Arc<LiveEvent>) -> Result<(), Closed> {
        let web = &self.web;
        match &event.happening {
            Happening::Vitals { .. } => self.show_run(event.offset, std::slice::from_ref(event)).await,
            Happening::Alert(alert)
                if self.only.alerts && self.sight().alert(alert) && self.in_scope(alert) =>
            {
                self.looks_at(views::concerned(web, alert).map(|patient| patient.id)).await?;
                self.send("alert", event.offset, &views::alert(&self.sight(), web, alert)).await
            }
            Happening::Device(id) if self.only.devices => {
                let Some(device) = web.site.registry().device(*id) else { return Ok(()) };
                let subject = web.site.registry().subject_at(*id, web.site.clock().now());
                let theirs = match subject {
                    Some(Subject::Patient(patient)) => self.shows(patient) && self.shows_devices_of(patient),
                    _ => self.ward.is_none() && self.patient.is_none() && self.sight().device(&device),
                };
                if !theirs {
                    return Ok(());
                }
                self.looks_at(subject.and_then(Subject::patient)).await?;
                self.send("device", event.offset, &views::device_state(web, &device)).await
            }
            Happening::Quarantine { items } if self.access.holds(Permission::MendQuarantine) => {
                self.send("quarantine", event.offset, &serde_json::json!({ "items": items })).await
            }
            Happening::Assignment { subject } => {
                let Subject::Patient(patient) = subject else { return Ok(()) };
                if !self.shows(*patient) {
                    return self.gone(event.offset, *patient).await;
                }
                self.visible.lock().unwrap_or_else(PoisonError::into_inner).insert(*patient);
                self.looks_at([*patient]).await?;
                let place = web.site.registry().patient(*patient).and_then(|patient| patient.place);
                let data = serde_json::json!({ "patient_id": patient, "place_id": place });
                self.send("assignment", event.offset, &data).await
            }
            Happening::BreakGlass { id, by, state, .. }
                if self.access.user() == Some(*by) || self.access.holds(Permission::ReviewBreakGlass) =>
            {
                let data = serde_json::json!({ "id": id, "state": state.code() });
                self.send("break-glass", event.offset, &data).await
            }
            Happening::Alert(_)
            | Happening::Device(_)
            | Happening::Quarantine { .. }
            | Happening::BreakGlass { .. } => Ok(()),
        }
    }

    /// Vitals that wait, prepared together: each as it came, or, for a reader who fell behind, of each patient what is newest,
    /// once. Of these all but the last carry the position before the run: who comes back from there gets what was newest
    /// again, and misses nothing.
    async fn show_run(&self, before: u64, run: &[Arc<LiveEvent>]) -> Result<(), Closed> {
        if !self.only.vitals {
            return Ok(());
        }
        let shown = run.iter().filter_map(|event| match &event.happening {
            Happening::Vitals { patient, readings } => {
                Some((event.offset, *patient, self.seen(*patient, readings)))
            }
            _ => None,
        });
        let shown: Vec<_> = shown.filter(|(_, _, readings)| !readings.is_empty()).collect();
        if shown.len() <= MERGE_BEYOND_EVENTS {
            return self.show_vitals(shown).await;
        }
        let last = run.last().map_or(before, |event| event.offset);
        let merged = merge(shown.iter().map(|(_, patient, readings)| (*patient, readings.as_slice())));
        let count = merged.len();
        let placed = merged.into_iter().enumerate().map(|(number, (patient, readings))| {
            (if number + 1 == count { last } else { before }, patient, readings)
        });
        self.show_vitals(placed.collect()).await
    }

    /// Vitals of patients that the stream shows, each with the position that it carries.
    async fn show_vitals(&self, all: Vec<(u64, PatientId, Vec<Committed<Reading>>)>) -> Result<(), Closed> {
        #[derive(Serialize)]
        struct Vitals {
            patient_id: PatientId,
            place_id: Option<PlaceId>,
            vitals: Vec<views::Vital>,
        }
        if all.is_empty() {
            return Ok(());
        }
        self.looks_at(all.iter().map(|(_, patient, _)| *patient)).await?;
        let viewed = self.web.blocking(move |web| {
            let view = |(offset, patient, readings)| {
                let observed = pipeline::chart::together(readings);
                let vitals = web.site.live_chart(|chart| views::vitals(chart, &observed));
                vitals.map(|vitals| (offset, patient, vitals))
            };
            all.into_iter().map(view).collect::<Result<Vec<_>, _>>()
        });
        let Ok(Ok(viewed)) = viewed.await else { return Err(Closed) };
        for (offset, patient, vitals) in viewed.into_iter().filter(|(_, _, vitals)| !vitals.is_empty()) {
            let place_id = self.web.site.registry().patient(patient).and_then(|patient| patient.place);
            self.send("vitals", offset, &Vitals { patient_id: patient, place_id, vitals }).await?;
        }
        Ok(())
    }

    fn in_scope(&self, alert: &clinical_model::Alert) -> bool {
        match views::concerned(&self.web, alert) {
            Some(patient) => self.shows(patient.id),
            None => self.ward.is_none() && self.patient.is_none(),
        }
    }
}

/// Cuts events into runs: vitals that follow one another, and everything else by itself, so that the order of different
/// kinds of events stays.
fn runs(events: &[Arc<LiveEvent>]) -> impl Iterator<Item = &[Arc<LiveEvent>]> {
    let is_vitals = |event: &Arc<LiveEvent>| matches!(event.happening, Happening::Vitals { .. });
    events.chunk_by(move |left, right| is_vitals(left) && is_vitals(right))
}

/// Of each patient the newest of each series; of a panel only what belongs to its newest instant, so that no component of
/// an earlier one stands beside it.
fn merge<'a>(
    all: impl Iterator<Item = (PatientId, &'a [Committed<Reading>])>,
) -> Vec<(PatientId, Vec<Committed<Reading>>)> {
    let key = |reading: &Committed<Reading>| {
        let series = reading.series();
        clinical_model::SeriesKey { measure: series.measure.panel().unwrap_or(series.measure), ..series }
    };
    let instant = |reading: &Committed<Reading>| (reading.measured_at(), reading.sequence());
    let mut merged: Vec<(PatientId, Vec<Committed<Reading>>)> = Vec::new();
    for (patient, readings) in all {
        let at = merged.iter().position(|(known, _)| *known == patient).unwrap_or_else(|| {
            merged.push((patient, Vec::new()));
            merged.len() - 1
        });
        let kept = &mut merged[at].1;
        for reading in readings {
            let newest = kept.iter().filter(|other| key(other) == key(reading)).map(instant).max();
            if newest.is_some_and(|newest| newest > instant(reading)) {
                continue;
            }
            kept.retain(|other| key(other) != key(reading) || instant(other) == instant(reading));
            kept.push(*reading);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use clinical_model::measure::{DIASTOLIC, HEART_RATE, SYSTOLIC};
    use clinical_model::{Decimal, DeviceId, Findings, Measure, SeriesKey, Timestamp, Value};

    use super::*;

    fn reading(patient: PatientId, measure: Measure, at: i64, value: i32) -> Committed<Reading> {
        let subject = Subject::Patient(patient);
        let series = SeriesKey { subject, measure, device: DeviceId::from_bytes([7; 16]) };
        let at = Timestamp::from_seconds(at);
        let value = Value::Number(Decimal::from_integer(value));
        Committed::restored(Reading::restored(series, at, at, 0, value, Findings::empty()), at, 1)
    }

    fn vitals(offset: u64, patient: PatientId, readings: Vec<Committed<Reading>>) -> Arc<LiveEvent> {
        Arc::new(LiveEvent { offset, happening: Happening::Vitals { patient, readings } })
    }

    #[test]
    fn a_reader_who_fell_behind_gets_the_newest_of_each_patient() {
        let (first, second) = (PatientId::from_bytes([1; 16]), PatientId::from_bytes([2; 16]));
        let all = [
            (first, vec![reading(first, HEART_RATE, 1, 70)]),
            (second, vec![reading(second, HEART_RATE, 1, 80)]),
            (first, vec![reading(first, HEART_RATE, 2, 71), reading(first, SYSTOLIC, 1, 120)]),
            (first, vec![reading(first, HEART_RATE, 1, 69), reading(first, DIASTOLIC, 1, 80)]),
        ];
        let merged = merge(all.iter().map(|(patient, readings)| (*patient, readings.as_slice())));
        let expected = vec![
            reading(first, HEART_RATE, 2, 71),
            reading(first, SYSTOLIC, 1, 120),
            reading(first, DIASTOLIC, 1, 80),
        ];
        assert_eq!(merged, [(first, expected), (second, vec![reading(second, HEART_RATE, 1, 80)])]);
        // A newer panel without its diastolic pressure: the earlier one must not stand beside it.
        let newer = [
            (first, vec![reading(first, SYSTOLIC, 1, 120), reading(first, DIASTOLIC, 1, 80)]),
            (first, vec![reading(first, SYSTOLIC, 2, 125)]),
        ];
        let merged = merge(newer.iter().map(|(patient, readings)| (*patient, readings.as_slice())));
        assert_eq!(merged, [(first, vec![reading(first, SYSTOLIC, 2, 125)])]);
    }

    #[test]
    fn vitals_are_never_merged_across_another_event() {
        let patient = PatientId::from_bytes([1; 16]);
        let other = Arc::new(LiveEvent { offset: 3, happening: Happening::Quarantine { items: 1 } });
        let events =
            [vitals(1, patient, vec![]), vitals(2, patient, vec![]), other, vitals(4, patient, vec![])];
        let lengths: Vec<usize> = runs(&events).map(<[_]>::len).collect();
        assert_eq!(lengths, [2, 1, 1]);
    }
}
