//! `$export`: the bulk data of all patients, of a ward, or of those named, as NDJSON (FHIR Bulk Data Access 2.0).
//!
//! A file is not kept: it is a list of what belongs into it, and it is read from the chart while it is downloaded, so
//! that no plain copy of a record lies on a disk. What was committed after the transaction time is not in it. Each
//! download asks anew whether whoever asks may see these patients, and puts each of them into the audit log.

mod download;
mod jobs;

use std::sync::Arc;

use axum::http::{StatusCode, header};
use clinical_model::place::PlaceKind;
use clinical_model::{Patient, PlaceId, Subject, Timestamp};
use health_codecs::fhir::search::{ExportRequest, ResourceType, parse_export};
use health_codecs::fhir::{IssueCode, OutcomeIssue};
use serde_json::{Value, json};
use store::{AuditAction, SeriesFilter};

use super::answer::{Answer, Refusal};
use super::call::Call;
use super::{links, page, refused};
use crate::state::Web;

pub(crate) use download::download;
pub use jobs::Exports;
use jobs::{Content, File, Job, Step};

/// Most patients of one export; more are exported ward by ward.
const PATIENTS_LIMIT: usize = 20_000;
/// Seconds after which it is worth asking again how far an export is.
const ASK_AGAIN_S: u64 = 1;

/// `GET /fhir/$export`
pub(crate) fn system(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    kick_off(web, call, None)
}

/// `GET /fhir/Patient/$export`
pub(crate) fn patients(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    kick_off(web, call, None)
}

/// `GET /fhir/Group/{id}/$export`: the group of the patients of a ward has the id of the ward.
pub(crate) fn group(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let ward = call.id.parse::<PlaceId>().ok().and_then(|id| web.site.registry().place(id));
    let sight = call.sight_of(web, "Patient")?;
    let may_see = |id: PlaceId| sight.ward(id);
    match ward.filter(|place| place.kind == PlaceKind::Ward && may_see(place.id)) {
        Some(ward) => kick_off(web, call, Some(ward.id)),
        None => {
            refused(web, call.act(AuditAction::Search, "export")?.detail(call.query_text(web)))?;
            Err(Refusal::not_found("Group"))
        }
    }
}

/// Begins an export: 202 with the address at which it can be asked for.
fn kick_off(web: &Web, call: &Call, ward: Option<PlaceId>) -> Result<Answer, Refusal> {
    let asks = call
        .header("prefer")
        .is_some_and(|prefer| prefer.split([',', ';']).any(|part| part.trim() == "respond-async"));
    if !asks {
        let what = "an export is answered later: ask with the header \"Prefer: respond-async\"";
        return Err(Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::Required, what, "")]));
    }
    let request = parse_export(&call.params).map_err(Refusal::bad_request)?;
    let registry = web.site.registry();
    let sight = call.sight_of(web, "Patient")?;
    let mut patients = registry.patients();
    patients.retain(|patient| {
        sight.patient(patient)
            && ward.is_none_or(|ward| registry.ward_of(patient) == Some(ward))
            && request.patients.as_ref().is_none_or(|named| named.contains(&patient.id))
    });
    if patients.len() > PATIENTS_LIMIT {
        let what =
            format!("{} patients; {PATIENTS_LIMIT} are exported at once: export by Group", patients.len());
        return Err(Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::TooCostly, what, "")]));
    }
    // With a narrower circle than everybody, devices and places that have nothing to do with it stay out.
    let is_whole = ward.is_none() && request.patients.is_none();
    let files = files_of(web, call, &request, &patients, is_whole)?;
    let at = web.site.clock().now().truncated_to_millis();
    let act = call.act(AuditAction::Search, "export")?;
    let detail = format!("{} patients, {} files: {}", patients.len(), files.len(), call.query_text(web));
    web.site.read(act.detail(detail), |_| Ok(()))?;
    let path = match ward {
        Some(ward) => format!("Group/{ward}/$export"),
        None if call.kind.is_empty() => "$export".to_owned(),
        None => format!("{}/$export", call.kind),
    };
    let job = Job {
        owner: call.access()?.by(),
        request: page::link(&call.base, &path, &call.params),
        transaction_at: at,
        since: request.since,
        files,
    };
    let id = web.exports.begin(Arc::clone(&web.site), job, at).map_err(|_| {
        let what = "too many exports are kept; fetch and delete one, or try again later";
        Refusal {
            retry_after_s: Some(60),
            ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, IssueCode::Throttled, what)
        }
    })?;
    let location = format!("{}/$export-status/{id}", call.base);
    let answer = Answer { body: None, ..Answer::ok(Value::Null) };
    Ok(answer.status(StatusCode::ACCEPTED).header(header::CONTENT_LOCATION, &location))
}

/// One file a type; of Observations one a patient, and one of what is measured of devices and places.
fn files_of(
    web: &Web,
    call: &Call,
    request: &ExportRequest,
    patients: &[Arc<Patient>],
    is_whole: bool,
) -> Result<Vec<File>, Refusal> {
    let registry = web.site.registry();
    let now = web.site.clock().now();
    let wants = |kind: ResourceType| request.types.contains(&kind);
    let mut files = Vec::new();
    let mut add = |kind: ResourceType, content: Content, is_empty: bool| {
        if wants(kind) && !is_empty {
            files.push(File { kind, content });
        }
    };
    let of = |subject: Subject| Some(subject).filter(|subject| links::may_show(web, call, *subject));
    let records = |all: Vec<Subject>| Content::Records(all);
    let own: Vec<Subject> = patients.iter().map(|patient| Subject::Patient(patient.id)).collect();
    add(ResourceType::Patient, records(own.clone()), own.is_empty());
    let places: Vec<Subject> = registry
        .places()
        .iter()
        .filter(|place| {
            is_whole
                || patients.iter().any(|patient| {
                    patient.place == Some(place.id) || registry.ward_of(patient) == Some(place.id)
                })
        })
        .filter_map(|place| of(Subject::Place(place.id)))
        .collect();
    let is_empty = places.is_empty();
    add(ResourceType::Location, records(places), is_empty);
    let devices: Vec<Subject> = match is_whole {
        true => registry.devices().iter().filter_map(|device| of(Subject::Device(device.id))).collect(),
        false => own
            .iter()
            .flat_map(|subject| registry.devices_of(*subject, now))
            .filter_map(|device| of(Subject::Device(device.id)))
            .collect(),
    };
    let is_empty = devices.is_empty();
    add(ResourceType::Device, records(devices), is_empty);
    if wants(ResourceType::Observation) {
        let sight = call.sight_of(web, ResourceType::Observation.name())?;
        let mut all = web.site.store().series(&SeriesFilter::default())?;
        all.retain(|series| sight.series(series));
        let mut by_subject: std::collections::BTreeMap<Subject, Vec<_>> = std::collections::BTreeMap::new();
        let mut of_others = Vec::new();
        for series in all {
            match series.subject {
                Subject::Patient(_) => by_subject.entry(series.subject).or_default().push(series),
                _ if is_whole => of_others.push(series),
                _ => {}
            }
        }
        for subject in &own {
            if let Some(series) = by_subject.remove(subject) {
                add(ResourceType::Observation, Content::Observations(Some(*subject), series), false);
            }
        }
        let is_empty = of_others.is_empty();
        add(ResourceType::Observation, Content::Observations(None, of_others), is_empty);
    }
    Ok(files)
}

/// `GET /fhir/$export-status/{id}`
pub(crate) fn status(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let (job, step) = mine(web, call, &call.id)?;
    match step {
        Step::Counting { done, of } => {
            let answer = Answer { body: None, ..Answer::ok(Value::Null) };
            let retry = header::RETRY_AFTER;
            let progress = header::HeaderName::from_static("x-progress");
            let said = format!("{done} of {of} files counted");
            Ok(answer
                .status(StatusCode::ACCEPTED)
                .header(progress, &said)
                .header(retry, &ASK_AGAIN_S.to_string()))
        }
        Step::Failed => Err(Refusal::internal()),
        Step::Ready(counts) => Ok(manifest(call, &job, &counts)),
    }
}

/// The list of files.
fn manifest(call: &Call, job: &Job, counts: &[u64]) -> Answer {
    let files = job.files.iter().zip(counts).enumerate().filter(|(_, (_, count))| **count > 0);
    let output: Vec<Value> = files
        .map(|(index, (file, count))| {
            let url = format!("{}/$export-file/{}.{index}", call.base, call.id);
            json!({ "type": file.kind.name(), "url": url, "count": count })
        })
        .collect();
    Answer::ok(json!({
        "transactionTime": job.transaction_at.to_rfc3339(),
        "request": job.request,
        "requiresAccessToken": true,
        "output": output,
        "deleted": [],
        "error": [],
    }))
    .media_type("application/json")
}

/// `DELETE /fhir/$export-status/{id}`
pub(crate) fn delete(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    mine(web, call, &call.id)?;
    let act = call.act(AuditAction::Delete, "export")?.detail(call.id.clone());
    web.site.read(act, |_| Ok(()))?;
    web.exports.remove(&call.id);
    Ok(Answer { body: None, ..Answer::ok(Value::Null) }.status(StatusCode::ACCEPTED))
}

/// The export of that id, where whoever asks has begun it. For anybody else it does not exist.
fn mine(web: &Web, call: &Call, id: &str) -> Result<(Arc<Job>, Step), Refusal> {
    let now: Timestamp = web.site.clock().now();
    let found = web.exports.get(id, now);
    let owner = call.access()?.actor();
    found.filter(|(job, _)| job.owner.who == owner).ok_or_else(|| Refusal::not_found("export"))
}
