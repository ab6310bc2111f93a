//! Versions: each by its number, and all of them, the newest first.

use axum::http::StatusCode;
use clinical_model::{DeviceId, PatientId, PlaceId, RecordId as _, Subject, Timestamp};
use health_codecs::fhir::history::{HistoryEntry, HistoryInput, history};
use health_codecs::fhir::{IssueCode, OutcomeIssue, json, with_version};
use pipeline::audited::{Act, ReadError};
use pipeline::chart::Chart;
use pipeline::search::Position;
use serde_json::Value;
use store::{AuditAction, Document, Kind, StoreError};

use super::answer::{Answer, Refusal};
use super::call::{self, Call, shown};
use super::render::{self, Rendered};
use super::update::known_position;
use super::{page, refused};
use crate::access::Permission;
use crate::state::Web;

/// Versions on a page where the caller does not say; also the most.
const COUNT_DEFAULT: usize = 100;
/// Records whose versions are put into one order: those of a large site; beyond it the history of one is asked for.
const TYPE_LIMIT_RECORDS: usize = 5_000;

/// What can be asked of a history.
struct Asked {
    count: usize,
    /// The page goes on below this version.
    below: Option<u64>,
}

impl Asked {
    fn of(call: &Call) -> Result<Self, Refusal> {
        let mut asked = Asked { count: COUNT_DEFAULT, below: None };
        let bad = |what: String, place: &str| {
            Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::Value, what, place)])
        };
        for (name, value) in &call.params {
            let number = value.parse::<u64>();
            match (name.as_str(), number) {
                ("_count", Ok(count)) => {
                    asked.count = usize::try_from(count).unwrap_or(COUNT_DEFAULT).clamp(1, COUNT_DEFAULT);
                }
                ("_before", Ok(below)) => asked.below = Some(below),
                ("_count" | "_before", Err(_)) => {
                    return Err(bad(format!("{name} is a whole number"), &format!("http.{name}")));
                }
                _ => {
                    let what = format!("the parameter \"{}\" of a history is not supported", shown(name));
                    let issue = OutcomeIssue::error(IssueCode::NotSupported, what, "");
                    return Err(Refusal::bad_request(vec![issue]));
                }
            }
        }
        Ok(asked)
    }
}

/// The number in `/_history/{vid}`.
fn version_of(call: &Call, kind: &str) -> Result<u64, Refusal> {
    call.vid.parse().map_err(|_| Refusal::not_found(&format!("version of this {kind}")))
}

/// `GET /fhir/Observation/{id}/_history`
pub(crate) fn of_observation(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let asked = Asked::of(call)?;
    let versions = versions_of(web, call, "history")?;
    let entry = |rendered: Rendered| HistoryEntry {
        full_url: format!("{}/Observation/{}", call.base, rendered.id),
        method: match (rendered.version, rendered.is_withdrawn) {
            (1, _) => "POST",
            (_, false) => "PUT",
            (_, true) => "DELETE",
        },
        url: if rendered.version == 1 {
            "Observation".to_owned()
        } else {
            format!("Observation/{}", rendered.id)
        },
        status: status_of(rendered.version, rendered.is_withdrawn),
        version: rendered.version,
        last_modified: rendered.updated_at,
        resource: (!rendered.is_withdrawn).then_some(rendered.resource),
    };
    Ok(answer(web, call, &asked, "Observation", versions.into_iter().map(entry).collect()))
}

const fn status_of(version: u64, is_gone: bool) -> &'static str {
    match (version, is_gone) {
        (_, true) => "204 No Content",
        (1, false) => "201 Created",
        (_, false) => "200 OK",
    }
}

/// `GET /fhir/Observation/{id}/_history/{vid}`
pub(crate) fn version_of_observation(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let wanted = version_of(call, "Observation")?;
    let versions = versions_of(web, call, "version")?;
    let found = versions.into_iter().find(|rendered| rendered.version == wanted);
    let rendered = found.ok_or_else(|| Refusal::not_found("version of this Observation"))?;
    if rendered.is_withdrawn {
        return Err(gone("Observation"));
    }
    Ok(Answer::ok(rendered.resource).version(rendered.version, rendered.updated_at))
}

/// The refusal of what was deleted.
pub(crate) fn gone(kind: &str) -> Refusal {
    let what = format!("this {kind} was taken out of the chart; its earlier versions are in its _history");
    Refusal::new(StatusCode::GONE, IssueCode::Deleted, what)
}

/// All versions of an observation, oldest first.
fn versions_of(web: &Web, call: &Call, what: &str) -> Result<Vec<Rendered>, Refusal> {
    let position = known_position(web, call, &call.id, AuditAction::Read)?;
    let act = call.act(AuditAction::Read, "Observation")?.detail(format!("{what} of {}", shown(&call.id)));
    let act = act.device(position.series.device);
    let act = position.series.subject.patient().into_iter().fold(act, |act, id| act.patient(id));
    let versions = call.chart(web, act, |chart| all_versions(chart, &position))?;
    if versions.is_empty() { Err(Refusal::not_found("Observation")) } else { Ok(versions) }
}

fn all_versions(chart: &Chart<'_>, position: &Position) -> Result<Vec<Rendered>, ReadError> {
    let measured = match chart.as_measured(position)? {
        Some(measured) => measured,
        // Curves have one version, and are found by their interval.
        None => match chart.found(position)? {
            Some(curve) => curve,
            None => return Ok(Vec::new()),
        },
    };
    let mut versions = vec![render::version(chart, position, &measured, None)?];
    for correction in chart.corrections_of(position)? {
        let found = correction.over(&measured);
        versions.push(render::version(chart, position, &found, Some(&correction))?);
    }
    Ok(versions)
}

fn answer(web: &Web, call: &Call, asked: &Asked, kind: &str, mut entries: Vec<HistoryEntry>) -> Answer {
    let total = entries.len() as u64;
    let path = format!("{kind}/{}/_history", call.id);
    entries.reverse();
    entries.retain(|entry| asked.below.is_none_or(|below| entry.version < below));
    let more = entries.len() > asked.count;
    entries.truncate(asked.count);
    let next_link = entries.last().filter(|_| more).map(|last| {
        let params = [
            ("_count".to_owned(), asked.count.to_string()),
            ("_before".to_owned(), last.version.to_string()),
        ];
        page::link(&call.base, &path, &params)
    });
    let self_link = page::link(&call.base, &path, &call.params);
    Answer::ok(history(HistoryInput { self_link, next_link, total, at: web.site.clock().now(), entries }))
}

/// A record whose versions are asked for.
struct Record {
    kind: Kind,
    id: [u8; 16],
    name: &'static str,
}

/// The record in the path, where whoever asks may see it; a refusal is recorded.
fn record(web: &Web, call: &Call, name: &'static str) -> Result<(Record, Act), Refusal> {
    let registry = web.site.registry();
    let act =
        call.act(AuditAction::Read, name)?.detail(format!("history of {name}/{}", call::named(&call.id)));
    let found = match name {
        "Patient" => call
            .id
            .parse::<PatientId>()
            .ok()
            .filter(|id| registry.patient(*id).is_some() && call.may_see(web, Subject::Patient(*id)))
            .map(|id| (Kind::Patient, id.to_bytes(), act.clone().patient(id))),
        "Device" => call
            .id
            .parse::<DeviceId>()
            .ok()
            .filter(|id| registry.device(*id).is_some())
            .map(|id| (Kind::Device, id.to_bytes(), act.clone().device(id))),
        "Consent" => super::consents::kept_of(web, call, Permission::ReadConsents).map(|kept| {
            (Kind::Consent, kept.consent.id.to_bytes(), act.clone().patient(kept.consent.patient))
        }),
        _ => call
            .id
            .parse::<PlaceId>()
            .ok()
            .filter(|id| registry.place(*id).is_some())
            .map(|id| (Kind::Place, id.to_bytes(), act.clone())),
    };
    match found {
        Some((kind, id, act)) => Ok((Record { kind, id, name }, act)),
        None => {
            refused(web, act)?;
            Err(Refusal::not_found(name))
        }
    }
}

/// A kept version as the resource it is.
fn rendered(record: &Record, document: &Document) -> Result<Value, StoreError> {
    let damaged = |how: String| StoreError::Damaged { what: format!("document of a {}", record.name), how };
    let resource = match record.kind {
        Kind::Place => {
            let place =
                pipeline::records::place_from(&document.body).map_err(|error| damaged(error.to_string()))?;
            health_codecs::fhir::location::render(&place)
        }
        _ => json::parse(&document.body).map_err(|issue| damaged(issue.to_string()))?,
    };
    Ok(with_version(resource, document.version, document.updated_at))
}

fn documents(web: &Web, call: &Call, name: &'static str) -> Result<(Record, Vec<Document>), Refusal> {
    let (record, act) = record(web, call, name)?;
    call.chart(web, act, |_| Ok(()))?;
    let versions = web.site.store().document_versions(record.kind, record.id)?;
    Ok((record, versions))
}

fn history_of(web: &Web, call: &Call, name: &'static str) -> Result<Answer, Refusal> {
    let asked = Asked::of(call)?;
    let (record, versions) = documents(web, call, name)?;
    let mut entries = Vec::with_capacity(versions.len());
    for document in &versions {
        entries.push(entry_of(call, &record, &call.id, document)?);
    }
    Ok(answer(web, call, &asked, name, entries))
}

fn one_version(web: &Web, call: &Call, name: &'static str) -> Result<Answer, Refusal> {
    let wanted = version_of(call, name)?;
    let (record, versions) = documents(web, call, name)?;
    let found = versions.iter().find(|document| document.version == wanted);
    let document = found.ok_or_else(|| Refusal::not_found(&format!("version of this {name}")))?;
    Ok(Answer::ok(rendered(&record, document)?).version(document.version, document.updated_at))
}

/// `GET /fhir/Consent/{id}/_history`
pub(crate) fn of_consent(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    history_of(web, call, "Consent")
}

/// `GET /fhir/Consent/{id}/_history/{vid}`
pub(crate) fn version_of_consent(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    one_version(web, call, "Consent")
}

/// What can be asked of the history of a type.
struct AskedOfType {
    count: usize,
    since: Timestamp,
    /// The page goes on behind this version: when it came about, of which record, which it is.
    after: Option<(Timestamp, [u8; 16], u64)>,
}

impl AskedOfType {
    fn of(call: &Call) -> Result<Self, Refusal> {
        let mut asked = AskedOfType { count: COUNT_DEFAULT, since: Timestamp::MIN, after: None };
        for (name, value) in &call.params {
            let is_read = match name.as_str() {
                "_count" => {
                    value.parse::<usize>().map(|count| asked.count = count.clamp(1, COUNT_DEFAULT)).is_ok()
                }
                "_since" => value.parse().map(|since| asked.since = since).is_ok(),
                "_after" => {
                    asked.after = place_from(value);
                    asked.after.is_some()
                }
                _ => {
                    let what = format!("the parameter \"{}\" of a history is not supported", shown(name));
                    let issue = OutcomeIssue::error(IssueCode::NotSupported, what, "");
                    return Err(Refusal::bad_request(vec![issue]));
                }
            };
            if !is_read {
                let what = format!("{name} cannot be read");
                let issue = OutcomeIssue::error(IssueCode::Value, what, format!("http.{name}"));
                return Err(Refusal::bad_request(vec![issue]));
            }
        }
        Ok(asked)
    }
}

/// A place in the history of a type, as a link carries it.
fn place_from(text: &str) -> Option<(Timestamp, [u8; 16], u64)> {
    let mut parts = text.split('_');
    let at = Timestamp::from_micros(parts.next()?.parse().ok()?);
    let id: PatientId = parts.next()?.parse().ok()?;
    let version = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((at, id.to_bytes(), version))
}

/// The history of all records of a type that whoever asks may see, the newest first.
fn history_of_type(
    web: &Web,
    call: &Call,
    name: &'static str,
    kind: Kind,
    ids: Vec<[u8; 16]>,
) -> Result<Answer, Refusal> {
    let asked = AskedOfType::of(call)?;
    if ids.len() > TYPE_LIMIT_RECORDS {
        let what = format!("the history of {} records; ask for that of one", ids.len());
        return Err(Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::TooCostly, what, "")]));
    }
    let patients: Vec<PatientId> = match kind {
        Kind::Patient => ids.iter().map(|id| PatientId::from_bytes(*id)).collect(),
        _ => Vec::new(),
    };
    let acts =
        call.acts(AuditAction::Search, name, &format!("history {}", call.query_text(web)), &patients)?;
    let limit = web.options.costs.type_history_versions;
    let versions = call.chart_each(web, acts, |_| {
        let mut versions = Vec::new();
        for id in ids {
            versions.extend(web.site.store().document_versions(kind, id)?);
            if versions.len() > limit {
                return Ok(None);
            }
        }
        Ok(Some(versions))
    })?;
    let Some(mut versions) = versions else {
        let what = format!("the history of more than {limit} versions; ask for that of one {name}");
        return Err(Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::TooCostly, what, "")]));
    };
    let place = |document: &Document| (document.updated_at, document.id, document.version);
    versions.retain(|document| document.updated_at >= asked.since);
    versions.sort_by_key(|document| std::cmp::Reverse(place(document)));
    let total = versions.len() as u64;
    versions.retain(|document| asked.after.is_none_or(|after| place(document) < after));
    let more = versions.len() > asked.count;
    versions.truncate(asked.count);
    let path = format!("{name}/_history");
    let next_link = versions.last().filter(|_| more).map(|last| {
        let after =
            format!("{}_{}_{}", last.updated_at.as_micros(), PatientId::from_bytes(last.id), last.version);
        let mut params: Vec<_> = call.params.iter().filter(|(name, _)| name != "_after").cloned().collect();
        params.push(("_after".to_owned(), after));
        page::link(&call.base, &path, &params)
    });
    let mut entries = Vec::with_capacity(versions.len());
    for document in &versions {
        let id = PatientId::from_bytes(document.id).to_string();
        let record = Record { kind, id: document.id, name };
        entries.push(entry_of(call, &record, &id, document)?);
    }
    let self_link = page::link(&call.base, &path, &call.params);
    Ok(Answer::ok(history(HistoryInput { self_link, next_link, total, at: web.site.clock().now(), entries })))
}

fn entry_of(call: &Call, record: &Record, id: &str, document: &Document) -> Result<HistoryEntry, Refusal> {
    let name = record.name;
    Ok(HistoryEntry {
        full_url: format!("{}/{name}/{id}", call.base),
        method: if document.version == 1 { "POST" } else { "PUT" },
        url: if document.version == 1 { name.to_owned() } else { format!("{name}/{id}") },
        status: status_of(document.version, false),
        version: document.version,
        last_modified: document.updated_at,
        resource: Some(rendered(record, document)?),
    })
}

/// `GET /fhir/Patient/_history`
pub(crate) fn of_patients(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let mut patients = web.site.registry().patients();
    patients.retain(|patient| call.may_see(web, Subject::Patient(patient.id)));
    let ids = patients.iter().map(|patient| patient.id.to_bytes()).collect();
    history_of_type(web, call, "Patient", Kind::Patient, ids)
}

/// `GET /fhir/Device/_history`
pub(crate) fn of_devices(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let ids = web.site.registry().devices().iter().map(|device| device.id.to_bytes()).collect();
    history_of_type(web, call, "Device", Kind::Device, ids)
}

/// `GET /fhir/Patient/{id}/_history`
pub(crate) fn of_patient(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    history_of(web, call, "Patient")
}

/// `GET /fhir/Patient/{id}/_history/{vid}`
pub(crate) fn version_of_patient(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    one_version(web, call, "Patient")
}

/// `GET /fhir/Device/{id}/_history`
pub(crate) fn of_device(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    history_of(web, call, "Device")
}

/// `GET /fhir/Device/{id}/_history/{vid}`
pub(crate) fn version_of_device(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    one_version(web, call, "Device")
}

/// `GET /fhir/Location/{id}/_history`
pub(crate) fn of_location(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    history_of(web, call, "Location")
}

/// `GET /fhir/Location/{id}/_history/{vid}`
pub(crate) fn version_of_location(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    one_version(web, call, "Location")
}
