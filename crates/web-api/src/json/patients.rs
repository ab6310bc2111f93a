//! Patients: finding them, admitting them, one patient's page, and their alert limits.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use clinical_analytics::Limit;
use clinical_model::patient::Gender;
use clinical_model::{MeasureKind, Patient, PatientId, PlaceId, Private, SeriesKey, Subject, Timestamp};
use pipeline::audited::ReadError;
use pipeline::chart::Chart;
use serde::{Deserialize, Serialize};
use store::{AuditAction, AuditOutcome, Order, RangeQuery, SeriesFilter};

use super::views::{self, AlertView, DeviceState, Named, PatientLine, PlaceView, Vital};
use super::wards::{alerts_of, position};
use super::{Answer, Asked, Body, id_of};
use crate::access::{Access, Permit, may};
use crate::problem::Problem;
use crate::state::Web;

/// Events that a patient's page shows at most.
const EVENTS_LIMIT: usize = 50;
/// How far back a patient's page looks for events.
const EVENTS_SPAN: Duration = Duration::from_secs(7 * 86_400);
/// Patients of one list.
const LIST_LIMIT: usize = 200;

/// The patient of a path, where it is there and theirs; else the refusal is recorded and nothing can be learned.
pub(crate) async fn theirs(web: &Arc<Web>, access: &Access, id: &str) -> Result<Arc<Patient>, Problem> {
    let id: PatientId = id_of(id, "patient")?;
    let registry = web.site.registry();
    match registry.patient(id) {
        Some(patient) if access.sight(web).patient(&patient) => Ok(patient),
        Some(patient) => {
            let act = access.act(AuditAction::Read, "Patient").patient(patient.id);
            let act = access.refused_look(web, act);
            web.blocking(move |web| web.site.record(act, AuditOutcome::Refused)).await??;
            Err(Problem::not_found("patient"))
        }
        None => Err(Problem::not_found("patient")),
    }
}

#[derive(Deserialize)]
pub(crate) struct Find {
    #[serde(default)]
    query: String,
}

#[derive(Serialize)]
pub(crate) struct Patients {
    patients: Vec<PatientLine>,
}

pub(crate) async fn find(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadChart>,
    Asked(find): Asked<Find>,
) -> Answer<Patients> {
    let query = find.query.trim().to_lowercase();
    web.blocking(move |web| {
        let detail =
            if query.is_empty() { "all".to_owned() } else { format!("query={}", web.blinded(&query)) };
        let act = access.act(AuditAction::Search, "Patient").detail(detail);
        let sight = access.sight(web);
        let matches = |patient: &Patient| {
            query.is_empty()
                || patient.family.expose().to_lowercase().starts_with(&query)
                || patient.given.expose().to_lowercase().starts_with(&query)
                || patient.record_number.expose().to_lowercase() == query
        };
        let mut found = web.site.registry().patients();
        found.retain(|patient| matches(patient) && sight.patient(patient));
        found.sort_by(|a, b| (&a.family, &a.given, a.id).cmp(&(&b.family, &b.given, b.id)));
        found.truncate(LIST_LIMIT);
        let patients = access.read_looking(web, act, found.iter().map(|patient| patient.id), |_| {
            Ok(found.iter().map(|patient| views::patient_line(web, patient)).collect())
        })?;
        Ok(Json(Patients { patients }))
    })
    .await?
}

/// How far clocks are ahead of UTC where the day begins first.
const EASTMOST: Duration = Duration::from_secs(14 * 3_600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPatient {
    family: String,
    given: String,
    birth_date: Option<String>,
    gender: Gender,
    record_number: String,
    place_id: Option<PlaceId>,
}

/// Whether a day of birth (its midnight in UTC) lies ahead everywhere: somewhere it is tomorrow already.
pub(crate) fn is_unborn(born: Timestamp, now: Timestamp) -> bool {
    born > now.plus(EASTMOST)
}

fn checked(new: &NewPatient, now: Timestamp) -> Result<(), Problem> {
    for (field, value) in
        [("family", &new.family), ("given", &new.given), ("record_number", &new.record_number)]
    {
        let length = value.trim().chars().count();
        if length == 0 || length > 100 || value.chars().any(char::is_control) {
            return Err(Problem::bad_request(format!("{field} must have 1 to 100 characters")));
        }
    }
    if let Some(date) = &new.birth_date {
        let Ok(born) = format!("{date}T00:00:00Z").parse::<Timestamp>() else {
            return Err(Problem::bad_request("birth_date must be a date such as 1950-03-21"));
        };
        if is_unborn(born, now) {
            return Err(Problem::bad_request("birth_date lies in the future"));
        }
    }
    Ok(())
}

pub(crate) async fn admit(
    State(web): State<Arc<Web>>,
    access: Permit<may::AdmitPatients>,
    Body(new): Body<NewPatient>,
) -> Answer<PatientLine> {
    checked(&new, web.site.clock().now())?;
    let registry = web.site.registry();
    if let Some(place) = new.place_id {
        let place = registry.place(place).ok_or_else(|| Problem::not_found("place"))?;
        if !access.sight(&web).place(&place) {
            return Err(Problem::not_found("place"));
        }
    }
    web.blocking(move |web| {
        let patient = Patient {
            id: PatientId::from_bytes(pipeline::new_id(web.site.clock().now())),
            family: Private::new(new.family.trim().to_owned()),
            given: Private::new(new.given.trim().to_owned()),
            birth_date: new.birth_date.map(Private::new),
            gender: new.gender,
            record_number: Private::new(new.record_number.trim().to_owned()),
            place: new.place_id,
            active: true,
        };
        let patient = web.site.add_patient(access.by(), patient)?;
        Ok(Json(views::patient_line(web, &patient)))
    })
    .await?
}

#[derive(Serialize)]
pub(crate) struct SeriesView {
    measure: &'static str,
    short: &'static str,
    display: &'static str,
    unit_display: &'static str,
    kind: &'static str,
    device_id: String,
}

/// Something that happened, gaps in the data among it.
#[derive(Serialize)]
pub(crate) struct EventView {
    measure: &'static str,
    display: &'static str,
    at: Timestamp,
    amount: Option<String>,
    unit: Option<String>,
    text: Option<String>,
    device_id: String,
}

/// The latest events of a patient, newest first.
fn events_of(chart: &Chart<'_>, series: &[SeriesKey], now: Timestamp) -> Result<Vec<EventView>, ReadError> {
    let range = RangeQuery {
        from: now.minus(EVENTS_SPAN),
        to: Timestamp::MAX,
        order: Order::Descending,
        limit: EVENTS_LIMIT,
    };
    let mut events = Vec::new();
    for one in series.iter().filter(|one| one.measure.kind == MeasureKind::Event) {
        for event in chart.events(one, &range)? {
            events.push(EventView {
                measure: one.measure.name,
                display: one.measure.display,
                at: event.at,
                amount: event.amount.as_ref().map(|(amount, _)| amount.to_string()),
                unit: event.amount.as_ref().map(|(_, unit)| unit.clone()),
                text: event.text.clone(),
                device_id: one.device.to_string(),
            });
        }
    }
    events.sort_by_key(|event| std::cmp::Reverse(event.at));
    events.truncate(EVENTS_LIMIT);
    Ok(events)
}

/// A limit with the words a person reads.
#[derive(Serialize)]
pub(crate) struct LimitView {
    #[serde(flatten)]
    limit: Limit,
    short: &'static str,
    display: &'static str,
    unit_display: &'static str,
}

fn limit_views(limits: &[Limit]) -> Vec<LimitView> {
    let view = |limit: &Limit| LimitView {
        limit: limit.clone(),
        short: limit.measure.short,
        display: limit.measure.display,
        unit_display: limit.measure.unit_display,
    };
    limits.iter().map(view).collect()
}

#[derive(Serialize)]
pub(crate) struct PatientPage {
    patient: PatientLine,
    place: Option<PlaceView>,
    ward: Option<Named>,
    latest: Vec<Vital>,
    series: Vec<SeriesView>,
    devices: Vec<DeviceState>,
    alerts: Vec<AlertView>,
    limits: Vec<LimitView>,
    events: Vec<EventView>,
    withheld: Vec<&'static str>,
    position: String,
    server_time: Timestamp,
}

fn kind_word(kind: MeasureKind) -> &'static str {
    match kind {
        MeasureKind::Scalar | MeasureKind::Component(_) => "scalar",
        MeasureKind::Panel => "panel",
        MeasureKind::Waveform => "waveform",
        MeasureKind::Event => "event",
    }
}

pub(crate) async fn show(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadChart>,
    Path(id): Path<String>,
) -> Answer<PatientPage> {
    let patient = theirs(&web, &access, &id).await?;
    let act = access.act(AuditAction::Read, "Patient").patient(patient.id);
    web.blocking(move |web| {
        let page = access.read(web, act, |chart| {
            let registry = chart.registry();
            let subject = Subject::Patient(patient.id);
            let position = position(web);
            let ward = registry.ward_of(&patient).and_then(|id| registry.place(id));
            let mut series =
                chart.series(&SeriesFilter { subject: Some(subject), ..SeriesFilter::default() })?;
            series.sort();
            let events = events_of(chart, &series, web.site.clock().now())?;
            let series = series
                .iter()
                .map(|one| SeriesView {
                    measure: one.measure.name,
                    short: one.measure.short,
                    display: one.measure.display,
                    unit_display: one.measure.unit_display,
                    kind: kind_word(one.measure.kind),
                    device_id: one.device.to_string(),
                })
                .collect();
            let sight = access.sight(web);
            let mut devices = registry.devices_of(subject, web.site.clock().now());
            devices.retain(|_| sight.devices_of(&patient));
            let mut limits = registry.limits(patient.id).to_vec();
            limits.retain(|limit| sight.limit(&patient, limit.measure));
            Ok(PatientPage {
                patient: views::patient_line(web, &patient),
                place: patient.place.and_then(|id| registry.place(id)).map(|place| views::place(&place)),
                ward: ward.map(|ward| Named { id: ward.id.to_string(), name: ward.name.clone() }),
                latest: views::vitals(chart, &chart.latest(subject)?)?,
                series,
                devices: devices.iter().map(|device| views::device_state(web, device)).collect(),
                alerts: alerts_of(&sight, web, chart, &patient),
                limits: limit_views(&limits),
                events,
                withheld: sight.withheld(&patient),
                position,
                server_time: web.site.clock().now(),
            })
        })?;
        Ok(Json(page))
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLimits {
    limits: Vec<Limit>,
}

#[derive(Serialize)]
pub(crate) struct Limits {
    limits: Vec<LimitView>,
}

pub(crate) async fn set_limits(
    State(web): State<Arc<Web>>,
    access: Permit<may::ActOnAlerts>,
    Path(id): Path<String>,
    Body(limits): Body<NewLimits>,
) -> Answer<Limits> {
    let patient = theirs(&web, &access, &id).await?;
    if limits.limits.len() > 50 {
        return Err(Problem::bad_request("at most 50 limits a patient"));
    }
    web.blocking(move |web| {
        web.site.set_limits(access.by(), patient.id, limits.limits.clone())?;
        Ok(Json(Limits { limits: limit_views(&limits.limits) }))
    })
    .await?
}
