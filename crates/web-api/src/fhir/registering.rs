//! Patients and devices: created and changed as FHIR resources, with versions, and found by their identifiers.
//!
//! A record keeps the resource as it was sent, whether we use all of it or not. What a caller leaves out of it is left
//! out from then on, but for two things that other people decide: the bed of a patient and the assignment of a device
//! stay as they are where the resource does not name any.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use clinical_model::{
    Assignment, AssignmentId, Device, DeviceId, Interval, Patient, PatientId, PlaceId, RecordId as _,
    Subject, Timestamp,
};
use health_codecs::fhir::{self, IssueCode, OutcomeIssue, json, operation_outcome, with_version};
use pipeline::desk::DeskError;
use pipeline::identifiers::{self, IDENTIFIER_LIMIT_BYTES, IdentifierKey, Target};
use pipeline::new_id;
use pipeline::together::{DeviceChange, PatientChange, Together};
use serde_json::Value;
use store::{AuditAction, Document, DocumentWrite, Expected, Kind};

use super::answer::{Answer, Refusal};
use super::call::{self, Call};
use super::conditions::{Condition, Expecting, device_by, if_match, lost_race, not_current, patient_by};
use super::create::Wanted;
use super::update::same_id;
use super::{Waiting, blocking, refused};
use crate::access::Permission;
use crate::json::patients::is_unborn;
use crate::state::Web;

/// Times that a write is planned again when somebody else was faster.
const TRIES_LIMIT: usize = 8;
/// Identifiers of one resource by which it can be found.
const IDENTIFIERS_LIMIT: usize = 16;

/// What a write of a record comes to.
pub(crate) struct Planned {
    pub kind: &'static str,
    pub id: String,
    /// As it will stand.
    pub resource: Value,
    pub version: u64,
    pub is_new: bool,
    /// When it was changed, where nothing is to be written.
    pub unchanged_since: Option<Timestamp>,
}

/// Which type of record is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    Patient,
    Device,
}

impl Record {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Record::Patient => "Patient",
            Record::Device => "Device",
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Record::Patient => Kind::Patient,
            Record::Device => Kind::Device,
        }
    }

    const fn permission(self) -> Permission {
        match self {
            Record::Patient => Permission::AdmitPatients,
            Record::Device => Permission::ManageDevices,
        }
    }

    /// The id of the record that goes by an identifier.
    pub(crate) fn by(self, web: &Web, condition: &Condition) -> Result<Option<[u8; 16]>, Refusal> {
        Ok(match self {
            Record::Patient => patient_by(web, condition)?.map(PatientId::to_bytes),
            Record::Device => device_by(web, condition)?.map(DeviceId::to_bytes),
        })
    }

    pub(crate) fn text(self, id: [u8; 16]) -> String {
        match self {
            Record::Patient => PatientId::from_bytes(id).to_string(),
            Record::Device => DeviceId::from_bytes(id).to_string(),
        }
    }

    fn target(self, id: [u8; 16]) -> Target {
        match self {
            Record::Patient => Target::Patient(PatientId::from_bytes(id)),
            Record::Device => Target::Device(DeviceId::from_bytes(id)),
        }
    }

    /// The record of an id that this node knows, where whoever asks may see it.
    fn seen(self, web: &Web, call: &Call, id: &str) -> Option<[u8; 16]> {
        let registry = web.site.registry();
        match self {
            Record::Patient => id
                .parse()
                .ok()
                .filter(|id| registry.patient(*id).is_some() && call.may_see(web, Subject::Patient(*id)))
                .map(PatientId::to_bytes),
            Record::Device => {
                id.parse().ok().filter(|id| registry.device(*id).is_some()).map(DeviceId::to_bytes)
            }
        }
    }

    /// The record of an id in a path, where it is there and whoever asks may see it; a refusal is recorded.
    pub(crate) fn known(
        self,
        web: &Web,
        call: &Call,
        id: &str,
        action: AuditAction,
    ) -> Result<[u8; 16], Refusal> {
        let found = self.seen(web, call, id).or_else(|| {
            // Who was found by an identifier may have been committed just now, by somebody else.
            web.site.settled();
            self.seen(web, call, id)
        });
        if found.is_none() {
            refused(
                web,
                call.act(action, self.name())?.detail(format!("{}/{}", self.name(), call::named(id))),
            )?;
        }
        found.ok_or_else(|| Refusal::not_found(self.name()))
    }
}

/// `POST /fhir/Patient`
pub(crate) fn create_patient(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    create(web, call, Record::Patient)
}

/// `POST /fhir/Device`
pub(crate) fn create_device(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    create(web, call, Record::Device)
}

/// `PUT /fhir/Patient/{id}`
pub(crate) fn update_patient(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    update(web, call, Record::Patient)
}

/// `PUT /fhir/Device/{id}`
pub(crate) fn update_device(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    update(web, call, Record::Device)
}

/// `PUT /fhir/Patient?identifier=…`
pub(crate) fn update_patient_by(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    update_by(web, call, Record::Patient)
}

/// `PUT /fhir/Device?identifier=…`
pub(crate) fn update_device_by(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    update_by(web, call, Record::Device)
}

fn create(web: Arc<Web>, call: Arc<Call>, record: Record) -> Waiting {
    Box::pin(async move {
        blocking(&web, move |web| {
            let condition = call.header("if-none-exist").map(Condition::parse).transpose()?;
            let body = json::parse(&call.body).map_err(|issue| Refusal::invalid(vec![issue]))?;
            write(web, &call, condition.is_some(), &mut |together| {
                plan_create(web, &call, record, &body, condition.as_ref(), together)
            })
        })
        .await
    })
}

fn update(web: Arc<Web>, call: Arc<Call>, record: Record) -> Waiting {
    Box::pin(async move {
        blocking(&web, move |web| {
            let id = record.known(web, &call, &call.id, AuditAction::Update)?;
            let body = json::parse(&call.body).map_err(|issue| Refusal::invalid(vec![issue]))?;
            same_id(&body, &call.id)?;
            write(web, &call, if_match(&call)?.is_none(), &mut |together| {
                plan_update(web, &call, record, &body, id, together)
            })
        })
        .await
    })
}

fn update_by(web: Arc<Web>, call: Arc<Call>, record: Record) -> Waiting {
    Box::pin(async move {
        blocking(&web, move |web| {
            let condition = Condition::of(&call.params)?;
            let body = json::parse(&call.body).map_err(|issue| Refusal::invalid(vec![issue]))?;
            write(web, &call, true, &mut |together| match record.by(web, &condition)? {
                Some(id) => {
                    let id = record.known(web, &call, &record.text(id), AuditAction::Update)?;
                    if body.get("id").is_some() {
                        same_id(&body, &record.text(id))?;
                    }
                    plan_update(web, &call, record, &body, id, together)
                }
                None => plan_create(web, &call, record, &body, Some(&condition), together),
            })
        })
        .await
    })
}

/// Plans and writes, again where somebody else was faster and the outcome may be another now.
fn write(
    web: &Web,
    call: &Call,
    may_repeat: bool,
    plan: &mut dyn FnMut(&mut Together) -> Result<Planned, Refusal>,
) -> Result<Answer, Refusal> {
    for attempt in 1.. {
        let mut together = Together::default();
        let planned = plan(&mut together)?;
        if let Some(since) = planned.unchanged_since {
            return Ok(answer(call, planned, since));
        }
        match web.site.decide(together) {
            Ok(decided) => return Ok(answer(call, planned, decided.at)),
            Err(DeskError::Conflict { .. }) if may_repeat && attempt < TRIES_LIMIT => {}
            Err(error) => return Err(refusal(call, error)),
        }
    }
    Err(lost_race())
}

/// Why the desk refused.
pub(crate) fn refusal(call: &Call, error: DeskError) -> Refusal {
    let what = error.to_string();
    let conflict = |status, code| Refusal::new(status, code, what.clone());
    match error {
        DeskError::Conflict { detail, .. } if detail.contains("the same ") => {
            let what = format!("it exists already: {detail}");
            Refusal::new(StatusCode::CONFLICT, IssueCode::Duplicate, what)
        }
        DeskError::Conflict { .. } if call.headers.contains_key(header::IF_MATCH) => {
            conflict(StatusCode::PRECONDITION_FAILED, IssueCode::Conflict)
        }
        DeskError::Conflict { .. } => lost_race(),
        DeskError::Taken { .. } | DeskError::Overlap(_) => {
            conflict(StatusCode::CONFLICT, IssueCode::Conflict)
        }
        DeskError::NotFound { .. } => conflict(StatusCode::UNPROCESSABLE_ENTITY, IssueCode::NotFound),
        DeskError::Intake(error) => error.into(),
        DeskError::Store(error) => error.into(),
        DeskError::Time { .. } | DeskError::Limit(_) | DeskError::Alert(_) | DeskError::DealtWith => {
            conflict(StatusCode::UNPROCESSABLE_ENTITY, IssueCode::BusinessRule)
        }
    }
}

pub(crate) fn answer(call: &Call, planned: Planned, at: Timestamp) -> Answer {
    let Planned { kind, id, resource, version, is_new, unchanged_since } = planned;
    let location = format!("{}/{kind}/{id}/_history/{version}", call.base);
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let body = match Wanted::of(call).unwrap_or(Wanted::Representation) {
        Wanted::Minimal => None,
        Wanted::Representation => Some(with_version(resource, version, at)),
        Wanted::Outcome => {
            let said = match (is_new, unchanged_since) {
                (true, _) => "it was created",
                (false, None) => "it was changed",
                (false, Some(_)) => "it was there already; nothing was stored anew",
            };
            Some(operation_outcome(&[OutcomeIssue::information(said)]))
        }
    };
    let answer = Answer { body, ..Answer::ok(Value::Null) };
    answer.status(status).version(version, at).header(header::LOCATION, &location)
}

fn may(call: &Call, permission: Permission) -> Result<(), Refusal> {
    match call.access()?.holds(permission) {
        true => Ok(()),
        false => Err(Refusal::forbidden("your role does not permit this")),
    }
}

/// Plans a new record; or, where one goes by the identifier already, that it is shown.
pub(crate) fn plan_create(
    web: &Web,
    call: &Call,
    record: Record,
    body: &Value,
    condition: Option<&Condition>,
    together: &mut Together,
) -> Result<Planned, Refusal> {
    may(call, record.permission())?;
    if let Some(condition) = condition
        && let Some(id) = record.by(web, condition)?
    {
        return shown_as_is(web, call, record, id);
    }
    let id = new_id(web.site.clock().now());
    plan_new(web, call, record, body, id, condition, together)
}

/// Plans a new record under an id that was drawn for it.
pub(crate) fn plan_new(
    web: &Web,
    call: &Call,
    record: Record,
    body: &Value,
    id: [u8; 16],
    condition: Option<&Condition>,
    together: &mut Together,
) -> Result<Planned, Refusal> {
    may(call, record.permission())?;
    // The id of a new record is ours whatever was sent, but what was sent must be one.
    if body.get("id").is_some_and(|id| !id.is_string()) {
        let what = "expected a JSON string";
        let issue = OutcomeIssue::error(IssueCode::Structure, what, format!("{}.id", record.name()));
        return Err(Refusal::invalid(vec![issue]));
    }
    let resource = with_id(body, &record.text(id));
    let resource = put(web, call, record, resource, Expected::Absent, AuditAction::Create, together)?;
    let store = web.site.store();
    let target = record.target(id);
    let own = condition.map(|condition| condition.key(web, record.name()));
    if let Some(key) = own {
        together.identifiers.push(identifiers::claim(key, target, None));
    }
    for key in keys_of(web, record, &resource).into_iter().filter(|key| Some(*key) != own) {
        push_identifier(together, identifiers::add(store, key, target)?);
    }
    Ok(Planned {
        kind: record.name(),
        id: record.text(id),
        resource,
        version: 1,
        is_new: true,
        unchanged_since: None,
    })
}

fn push_identifier(together: &mut Together, write: Option<DocumentWrite>) {
    // Two resources of one transaction that share an identifier: the first claims it.
    together
        .identifiers
        .extend(write.filter(|write| !together.identifiers.iter().any(|planned| planned.id == write.id)));
}

/// Plans the next version of a record.
pub(crate) fn plan_update(
    web: &Web,
    call: &Call,
    record: Record,
    body: &Value,
    id: [u8; 16],
    together: &mut Together,
) -> Result<Planned, Refusal> {
    may(call, record.permission())?;
    let store = web.site.store();
    let before = store.document(record.kind(), id)?.ok_or_else(|| Refusal::not_found(record.name()))?;
    if let Some(Expecting::Version(expected)) = if_match(call)?
        && expected != before.version
    {
        return Err(not_current(expected, before.version));
    }
    let resource = with_id(body, &record.text(id));
    let expected = Expected::Version(before.version);
    let resource = put(web, call, record, resource, expected, AuditAction::Update, together)?;
    let (was, is) = (keys_of(web, record, &body_of(record, &before)?), keys_of(web, record, &resource));
    for key in was.iter().filter(|key| !is.contains(key)) {
        push_identifier(together, identifiers::remove(store, *key, record.target(id))?);
    }
    for key in is.iter().filter(|key| !was.contains(key)) {
        push_identifier(together, identifiers::add(store, *key, record.target(id))?);
    }
    Ok(Planned {
        kind: record.name(),
        id: record.text(id),
        resource,
        version: before.version + 1,
        is_new: false,
        unchanged_since: None,
    })
}

fn body_of(record: Record, document: &Document) -> Result<Value, Refusal> {
    json::parse(&document.body).map_err(|issue| {
        tracing::error!(%issue, "a {} cannot be read", record.name());
        Refusal::internal()
    })
}

/// A record that is there already, as the answer to a create that found it.
pub(crate) fn shown_as_is(web: &Web, call: &Call, record: Record, id: [u8; 16]) -> Result<Planned, Refusal> {
    let text = record.text(id);
    // Somebody else's patient goes by it: that is all that may be said.
    let id = record.known(web, call, &text, AuditAction::Create).map_err(|_| {
        let what = format!("a {} that is not one of yours goes by this identifier", record.name());
        Refusal::new(StatusCode::PRECONDITION_FAILED, IssueCode::Conflict, what)
    })?;
    let act = call.act(AuditAction::Create, record.name())?.detail("it was there already");
    let act = match record {
        Record::Patient => act.patient(PatientId::from_bytes(id)),
        Record::Device => act.device(DeviceId::from_bytes(id)),
    };
    call.chart(web, act, |_| Ok(()))?;
    let kept = web.site.store().document(record.kind(), id)?.ok_or_else(Refusal::internal)?;
    let resource = body_of(record, &kept)?;
    Ok(Planned {
        kind: record.name(),
        id: text,
        resource,
        version: kept.version,
        is_new: false,
        unchanged_since: Some(kept.updated_at),
    })
}

/// The resource under its id, without the version that the caller may have seen.
pub(crate) fn with_id(body: &Value, id: &str) -> Value {
    let mut resource = body.clone();
    if let Some(fields) = resource.as_object_mut() {
        fields.insert("id".to_owned(), Value::String(id.to_owned()));
        if let Some(meta) = fields.get_mut("meta").and_then(Value::as_object_mut) {
            meta.remove("versionId");
            meta.remove("lastUpdated");
            if meta.is_empty() {
                fields.remove("meta");
            }
        }
    }
    resource
}

/// The identifiers of a resource by which it can be found.
fn keys_of(web: &Web, record: Record, resource: &Value) -> Vec<IdentifierKey> {
    let text = |each: &Value, name: &str| each[name].as_str().unwrap_or("").to_owned();
    let identifiers = resource["identifier"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|each| Condition { system: text(each, "system"), value: text(each, "value") });
    let mut keys: Vec<IdentifierKey> = identifiers
        .filter(|each| !each.value.is_empty() && each.text().len() <= IDENTIFIER_LIMIT_BYTES)
        .take(IDENTIFIERS_LIMIT)
        .map(|each| each.key(web, record.name()))
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Puts a record among what is kept together; the resource as it will be kept.
fn put(
    web: &Web,
    call: &Call,
    record: Record,
    resource: Value,
    expected: Expected,
    action: AuditAction,
    together: &mut Together,
) -> Result<Value, Refusal> {
    match record {
        Record::Patient => put_patient(web, call, resource, expected, action, together),
        Record::Device => put_device(web, call, resource, expected, action, together),
    }
}

fn put_patient(
    web: &Web,
    call: &Call,
    mut resource: Value,
    expected: Expected,
    action: AuditAction,
    together: &mut Together,
) -> Result<Value, Refusal> {
    let mut patient: Patient = fhir::patient::parse(&resource).map_err(Refusal::invalid)?;
    let born =
        patient.birth_date.as_ref().and_then(|date| format!("{}T00:00:00Z", date.expose()).parse().ok());
    if born.is_some_and(|born| is_unborn(born, web.site.clock().now())) {
        let what = "the birth date lies in the future";
        return Err(Refusal::invalid(vec![OutcomeIssue::error(IssueCode::Value, what, "Patient.birthDate")]));
    }
    // The bed as it is kept: what this node holds in memory may lag behind another, and lay the patient back.
    let kept = web.site.store().document(Kind::Patient, patient.id.to_bytes())?;
    let kept = kept.and_then(|kept| pipeline::records::patient_from(&kept.body).ok());
    if patient.place.is_none()
        && let Some(place) = kept.and_then(|kept| kept.place)
    {
        patient.place = Some(place);
        fhir::patient::put_place(&mut resource, place);
    }
    if let Some(place) = patient.place {
        is_theirs(web, call, place, patient.id)?;
    }
    together.acts.push(call.act(action, "Patient")?.patient(patient.id));
    together.patients.push(PatientChange { patient, resource: resource.clone(), expected });
    Ok(resource)
}

/// Whether a patient may be laid into a bed: it is there, and in a ward of whoever does it.
fn is_theirs(web: &Web, call: &Call, place: PlaceId, patient: PatientId) -> Result<(), Refusal> {
    let registry = web.site.registry();
    if registry.patient(patient).is_some_and(|known| known.place == Some(place)) {
        return Ok(());
    }
    match call.access()?.sight(web).beside_scopes().place_id(place) {
        true => Ok(()),
        false => {
            let what = "there is no such place, or it is not one of yours";
            let place = "Patient.extension";
            Err(Refusal::at(StatusCode::UNPROCESSABLE_ENTITY, IssueCode::NotFound, what, place))
        }
    }
}

fn put_device(
    web: &Web,
    call: &Call,
    mut resource: Value,
    expected: Expected,
    action: AuditAction,
    together: &mut Together,
) -> Result<Value, Refusal> {
    let device: Device = fhir::device::parse(&resource).map_err(Refusal::invalid)?;
    let wanted = fhir::device::assigned_in(&resource).map_err(|issue| Refusal::invalid(vec![issue]))?;
    // To whom it is assigned is kept as assignments, and shown from there.
    if let Some(fields) = resource.as_object_mut() {
        fields.remove("patient");
        fields.remove("location");
    }
    let now = web.site.clock().now();
    let assigned = web.site.registry().subject_at(device.id, now);
    if let Some(subject) = wanted.filter(|wanted| Some(*wanted) != assigned) {
        may(call, Permission::AssignDevices)?;
        may_be_taken_from(web, call, assigned)?;
        is_known(web, call, subject, together)?;
        let id = AssignmentId::from_bytes(new_id(now));
        together.assignments.push(Assignment {
            id,
            device: device.id,
            subject,
            interval: Interval::since(now),
        });
        let act =
            call.act(AuditAction::Assign, "Assignment")?.device(device.id).detail(format!("from {now}"));
        together.acts.push(subject.patient().into_iter().fold(act, |act, id| act.patient(id)));
    }
    let mut shown = resource.clone();
    let visible = wanted.or_else(|| call::assigned(web, call, &device));
    fhir::device::put_assigned(&mut shown, visible);
    together.acts.push(call.act(action, "Device")?.device(device.id));
    together.devices.push(DeviceChange { device, resource, expected });
    Ok(shown)
}

/// Whether a device may be taken from whom it serves now: to assign it anew ends that.
fn may_be_taken_from(web: &Web, call: &Call, assigned: Option<Subject>) -> Result<(), Refusal> {
    let sight = call.access()?.sight(web).beside_scopes();
    let is_theirs = match assigned {
        None | Some(Subject::Device(_)) => true,
        Some(Subject::Patient(patient)) => sight.may(Permission::AssignDevices, patient),
        Some(Subject::Place(place)) => sight.place_id(place),
    };
    if is_theirs {
        return Ok(());
    }
    let act = call.act(AuditAction::Assign, "Assignment")?;
    refused(web, assigned.and_then(Subject::patient).into_iter().fold(act, |act, id| act.patient(id)))?;
    Err(Refusal::forbidden(
        "the device serves somebody who is not one of yours: who cares for them must end that first",
    ))
}

/// Whether a device may be assigned there: somebody or something that is there, or will be by the same act.
fn is_known(web: &Web, call: &Call, subject: Subject, together: &Together) -> Result<(), Refusal> {
    let sight = call.access()?.sight(web).beside_scopes();
    let is_there = match subject {
        Subject::Patient(id) => {
            together.patients.iter().any(|change| change.patient.id == id)
                || sight.may(Permission::AssignDevices, id)
        }
        Subject::Place(id) => sight.place_id(id),
        Subject::Device(_) => false,
    };
    if is_there {
        return Ok(());
    }
    let what =
        "the device cannot be assigned there: there is no such patient or place, or it is not one of yours";
    Err(Refusal::at(StatusCode::UNPROCESSABLE_ENTITY, IssueCode::NotFound, what, "Device.patient"))
}
