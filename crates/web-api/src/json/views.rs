//! How readings, devices, patients and alerts look in JSON.

use clinical_model::measure::{self, Category};
use clinical_model::reading::Absent;
use clinical_model::{
    Alert, AlertKind, AlertState, Committed, Device, Measure, MeasureKind, Patient, Place, PlaceId, Priority,
    Reading, Subject, Timestamp, Value,
};
use pipeline::alarms;
use pipeline::chart::{Chart, Observed};
use pipeline::live::Heard;
use serde::Serialize;
use store::StoreError;

use crate::access::Sight;
use crate::state::Web;

/// A continuous value older than this many of its device's intervals is stale.
const STALE_AFTER_INTERVALS: u32 = 3;
/// The shortest time after which a continuous value is stale, in seconds.
const STALE_AT_LEAST_S: u32 = 15;
/// A spot check of a continuous measure (a home oximeter) is stale after an hour.
const SPOT_STALE_S: u32 = 3_600;
/// An intermittent value (cuff, thermometer, score) is stale after four hours.
const INTERMITTENT_STALE_S: u32 = 4 * 3_600;
/// Weight and height are stale after a month.
const BODY_STALE_S: u32 = 30 * 86_400;

#[derive(Serialize)]
pub(crate) struct FindingView {
    pub name: &'static str,
    pub text: &'static str,
}

#[derive(Serialize)]
pub(crate) struct ComponentView {
    pub measure: &'static str,
    pub short: &'static str,
    pub value: Option<String>,
    pub absent: Option<&'static str>,
    pub findings: Vec<FindingView>,
}

/// One observation as a tile or a table shows it.
#[derive(Serialize)]
pub(crate) struct Vital {
    pub measure: &'static str,
    pub short: &'static str,
    pub display: &'static str,
    pub value: Option<String>,
    pub absent: Option<&'static str>,
    pub unit: &'static str,
    pub unit_display: &'static str,
    pub measured_at: Timestamp,
    pub received_at: Timestamp,
    pub committed_at: Timestamp,
    pub device_id: String,
    pub stale_after_s: u32,
    pub findings: Vec<FindingView>,
    pub observation_id: String,
    pub components: Vec<ComponentView>,
}

fn absent_word(absent: Absent) -> &'static str {
    match absent {
        Absent::NotANumber => "not-a-number",
        Absent::PositiveInfinity => "above-range",
        Absent::NegativeInfinity => "below-range",
        Absent::Error => "error",
        Absent::Unavailable => "unavailable",
    }
}

fn value_of(reading: &Reading) -> (Option<String>, Option<&'static str>) {
    match reading.value() {
        Value::Number(number) => (Some(number.to_string()), None),
        Value::Absent(absent) => (None, Some(absent_word(absent))),
    }
}

fn findings_of(reading: &Reading) -> Vec<FindingView> {
    reading.findings().described().into_iter().map(|(name, text)| FindingView { name, text }).collect()
}

/// After how many seconds a value must no longer look current.
pub(crate) fn stale_after_s(measure: Measure, device: Option<&Device>) -> u32 {
    let body = [measure::BODY_WEIGHT, measure::BODY_HEIGHT, measure::BODY_MASS_INDEX];
    let intermittent = [
        measure::BLOOD_PRESSURE,
        measure::SYSTOLIC,
        measure::DIASTOLIC,
        measure::MEAN_PRESSURE,
        measure::PULSE_RATE_CUFF,
        measure::BODY_TEMPERATURE,
        measure::GLUCOSE,
        measure::GLASGOW_COMA_SCORE,
    ];
    if body.contains(&measure) {
        return BODY_STALE_S;
    }
    if intermittent.contains(&measure) {
        return INTERMITTENT_STALE_S;
    }
    match device.and_then(|device| device.expected_interval_s) {
        Some(interval) => (interval * STALE_AFTER_INTERVALS).max(STALE_AT_LEAST_S),
        None => SPOT_STALE_S,
    }
}

/// One observation; `None` where it has no readings.
pub(crate) fn vital(chart: &Chart<'_>, observed: &Observed) -> Result<Option<Vital>, StoreError> {
    let (Some(first), Some(series)) = (observed.readings.first(), observed.series()) else { return Ok(None) };
    let is_panel = observed.measure.kind == MeasureKind::Panel;
    let (value, absent) = if is_panel { (None, None) } else { value_of(first) };
    let components = if is_panel { observed.readings.iter().map(component).collect() } else { Vec::new() };
    let device = chart.registry().device(series.device);
    Ok(Some(Vital {
        measure: observed.measure.name,
        short: observed.measure.short,
        display: observed.measure.display,
        value,
        absent,
        unit: observed.measure.unit,
        unit_display: observed.measure.unit_display,
        measured_at: first.measured_at(),
        received_at: first.received_at(),
        committed_at: first.committed_at(),
        device_id: series.device.to_string(),
        stale_after_s: stale_after_s(observed.measure, device.as_deref()),
        findings: if is_panel { Vec::new() } else { findings_of(first) },
        observation_id: chart.identifier(&series, first.measured_at(), first.sequence())?,
        components,
    }))
}

fn component(reading: &Committed<Reading>) -> ComponentView {
    let measure = reading.series().measure;
    let (value, absent) = value_of(reading);
    ComponentView {
        measure: measure.name,
        short: measure.short,
        value,
        absent,
        findings: findings_of(reading),
    }
}

/// Several observations, in the order of the table of measures. Intervals between beats are raw material, no vital.
pub(crate) fn vitals(chart: &Chart<'_>, observed: &[Observed]) -> Result<Vec<Vital>, StoreError> {
    let mut shown: Vec<&Observed> = observed
        .iter()
        .filter(|one| one.measure != measure::RR_INTERVAL)
        .filter(|one| one.measure.category != Category::Procedure || one.measure.is_scalar())
        .collect();
    shown.sort_by_key(|one| (one.measure, one.series()));
    shown.into_iter().filter_map(|one| vital(chart, one).transpose()).collect()
}

#[derive(Clone, Serialize)]
pub(crate) struct PlaceView {
    pub id: PlaceId,
    pub name: String,
    pub kind: clinical_model::place::PlaceKind,
    pub ward_id: Option<PlaceId>,
}

pub(crate) fn place(place: &Place) -> PlaceView {
    PlaceView { id: place.id, name: place.name.clone(), kind: place.kind, ward_id: place.ward }
}

#[derive(Serialize)]
pub(crate) struct PatientLine {
    pub id: String,
    pub family: String,
    pub given: String,
    pub birth_date: Option<String>,
    pub gender: clinical_model::patient::Gender,
    pub record_number: String,
    pub place: Option<PlaceView>,
    pub ward_id: Option<PlaceId>,
    pub active: bool,
}

pub(crate) fn patient_line(web: &Web, patient: &Patient) -> PatientLine {
    let registry = web.site.registry();
    PatientLine {
        id: patient.id.to_string(),
        family: patient.family.expose().clone(),
        given: patient.given.expose().clone(),
        birth_date: patient.birth_date.as_ref().map(|date| date.expose().clone()),
        gender: patient.gender,
        record_number: patient.record_number.expose().clone(),
        place: patient.place.and_then(|id| registry.place(id)).map(|found| place(&found)),
        ward_id: registry.ward_of(patient),
        active: patient.active,
    }
}

#[derive(Serialize)]
pub(crate) struct DeviceState {
    pub id: String,
    pub name: String,
    pub kind: String,
    pub model: String,
    pub link: &'static str,
    pub last_heard_at: Option<Timestamp>,
    pub battery_percent: Option<String>,
    pub expected_interval_s: Option<u32>,
    pub place_id: Option<PlaceId>,
}

/// Silent: longer than its interval, or, where it should hold a connection, that was lost. Never: nothing ever came.
/// A device that is only used now and then is not silent because it is not connected.
fn link_word(device: &Device, heard: Heard, now: Timestamp) -> &'static str {
    let Some(last) = heard.last_heard_at else { return "never" };
    let Some(interval) = device.expected_interval_s else { return "live" };
    let late = clinical_analytics::silence::is_silent(last, interval, now);
    if late || heard.silent || heard.connected == Some(false) { "silent" } else { "live" }
}

pub(crate) fn device_state(web: &Web, device: &Device) -> DeviceState {
    let now = web.site.clock().now();
    let heard = web.site.live().heard(device.id);
    let registry = web.site.registry();
    let place_id = match registry.subject_at(device.id, now) {
        Some(Subject::Patient(patient)) => registry.patient(patient).and_then(|patient| patient.place),
        Some(Subject::Place(place)) => Some(place),
        _ => None,
    };
    DeviceState {
        id: device.id.to_string(),
        name: device.name.clone(),
        kind: device.kind.clone(),
        model: device.model.clone(),
        link: link_word(device, heard, now),
        last_heard_at: heard.last_heard_at,
        battery_percent: heard.battery.map(|level| level.to_string()),
        expected_interval_s: device.expected_interval_s,
        place_id,
    }
}

#[derive(Serialize)]
pub(crate) struct Named {
    pub id: String,
    pub name: String,
}

pub(crate) fn named_device(web: &Web, id: clinical_model::DeviceId) -> Named {
    let name = web
        .site
        .registry()
        .device(id)
        .map_or_else(|| "unknown device".to_owned(), |found| found.name.clone());
    Named { id: id.to_string(), name }
}

#[derive(Serialize)]
pub(crate) struct Person {
    pub id: String,
    pub display: String,
}

#[derive(Serialize)]
pub(crate) struct AlertStepView {
    pub state: AlertState,
    pub at: Timestamp,
    pub by: Option<Person>,
    pub note: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct AlertView {
    pub id: String,
    pub priority: Priority,
    pub technical: bool,
    pub state: AlertState,
    pub condition_active: bool,
    pub latched: bool,
    pub kind: &'static str,
    pub text: String,
    pub patient: Option<PatientLine>,
    pub place: Option<PlaceView>,
    pub device: Named,
    pub raised_at: Timestamp,
    pub condition_ended_at: Option<Timestamp>,
    pub steps: Vec<AlertStepView>,
}

fn alert_kind(what: &AlertKind) -> &'static str {
    match what {
        AlertKind::Threshold { .. } => "threshold",
        AlertKind::DeviceSilent { .. } => "device-silent",
        AlertKind::BatteryLow { .. } => "battery-low",
        AlertKind::DataLate { .. } => "data-late",
        AlertKind::DeviceAlarm { .. } => "device-alarm",
    }
}

pub(crate) fn alert(sight: &Sight<'_>, web: &Web, alert: &Alert) -> AlertView {
    let shows_notes = sight.notes(alert);
    let registry = web.site.registry();
    // A battery is the device's, but the person at the bed needs it: show whom the device serves now.
    let subject = match alert.subject {
        Subject::Device(device) => {
            registry.subject_at(device, web.site.clock().now()).unwrap_or(alert.subject)
        }
        other => other,
    };
    let patient = subject.patient().and_then(|id| registry.patient(id));
    let place_of = match subject {
        Subject::Place(id) => Some(id),
        _ => patient.as_ref().and_then(|patient| patient.place),
    };
    let step = |step: &clinical_model::alert::AlertStep| AlertStepView {
        state: step.state,
        at: step.at,
        by: step.by.map(|id| Person {
            id: id.to_string(),
            display: web.people.by_id(id).map_or_else(|| "somebody who left".to_owned(), |user| user.display),
        }),
        note: step.note.clone().filter(|_| shows_notes),
    };
    AlertView {
        id: alert.id.to_string(),
        priority: alert.priority,
        technical: !matches!(alert.what, AlertKind::Threshold { .. }),
        state: alert.state,
        condition_active: alert.condition_active,
        latched: alert.is_latched(),
        kind: alert_kind(&alert.what),
        text: alarms::describe(alert),
        patient: patient.map(|patient| patient_line(web, &patient)),
        place: place_of.and_then(|id| registry.place(id)).map(|found| place(&found)),
        device: named_device(web, alert.device),
        raised_at: alert.raised_at,
        condition_ended_at: alert.condition_ended_at,
        steps: alert.steps.iter().map(step).collect(),
    }
}

/// The patient that an alert concerns now, for the question who may see it.
pub(crate) fn concerned(web: &Web, alert: &Alert) -> Option<std::sync::Arc<Patient>> {
    let registry = web.site.registry();
    let subject = match alert.subject {
        Subject::Device(device) => {
            registry.subject_at(device, web.site.clock().now()).unwrap_or(alert.subject)
        }
        other => other,
    };
    subject.patient().and_then(|id| registry.patient(id))
}
