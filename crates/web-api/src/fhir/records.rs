//! Patients, devices and locations: read and searched in the registry, shown through the audit wrapper.

use axum::http::header;
use clinical_model::{Device, DeviceId, Patient, PatientId, PlaceId, Private, RecordId, Subject};
use health_codecs::fhir::bundle::{SearchEntry, SearchMode, SearchsetInput};
use health_codecs::fhir::search::{DeviceSearch, PatientSearch, parse_device_search, parse_patient_search};
use health_codecs::fhir::{self, searchset, with_version};
use pipeline::audited::ReadError;
use serde_json::Value;
use store::{AuditAction, Document, Kind};

use super::answer::{Answer, Refusal};
use super::call::{self, Call};
use super::{page, refused};
use crate::state::Web;

/// `GET /fhir/Patient/{id}`
pub(crate) fn read_patient(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let id: Option<PatientId> = call.id.parse().ok();
    let known = id.and_then(|id| web.site.registry().patient(id));
    let act = call.act(AuditAction::Read, "Patient")?.detail(format!("Patient/{}", call::shown(&call.id)));
    let act = known.iter().fold(act, |act, patient| act.patient(patient.id));
    let Some(patient) = known.filter(|patient| call.may_see(web, Subject::Patient(patient.id))) else {
        refused(web, act)?;
        return Err(Refusal::not_found("Patient"));
    };
    web.site.read(act, |_| Ok(())).map_err(Refusal::from)?;
    versioned(web, call, Kind::Patient, patient.id.to_bytes(), fhir::patient::render(&patient))
}

/// `GET /fhir/Device/{id}`
pub(crate) fn read_device(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let known = call.id.parse().ok().and_then(|id: DeviceId| web.site.registry().device(id));
    let act = call.act(AuditAction::Read, "Device")?.detail(format!("Device/{}", call::shown(&call.id)));
    let Some(device) = known else {
        refused(web, act)?;
        return Err(Refusal::not_found("Device"));
    };
    let assigned = call::assigned(web, call, &device);
    let act = assigned
        .and_then(Subject::patient)
        .into_iter()
        .fold(act.device(device.id), |act, id| act.patient(id));
    web.site.read(act, |_| Ok(())).map_err(Refusal::from)?;
    let rendered = fhir::device::render_assigned(&device, assigned);
    versioned(web, call, Kind::Device, device.id.to_bytes(), rendered)
}

/// `GET /fhir/Location/{id}`
pub(crate) fn read_location(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let known = call.id.parse().ok().and_then(|id: PlaceId| web.site.registry().place(id));
    let act = call.act(AuditAction::Read, "Location")?.detail(format!("Location/{}", call::shown(&call.id)));
    let Some(place) = known else {
        refused(web, act)?;
        return Err(Refusal::not_found("Location"));
    };
    web.site.read(act, |_| Ok(())).map_err(Refusal::from)?;
    versioned(web, call, Kind::Place, place.id.to_bytes(), fhir::location::render(&place))
}

fn document(web: &Web, kind: Kind, id: [u8; 16]) -> Result<Option<Document>, Refusal> {
    web.site.store().document(kind, id).map_err(Refusal::from)
}

/// The resource with the version of its record; 304 where the caller has that version.
fn versioned(web: &Web, call: &Call, kind: Kind, id: [u8; 16], rendered: Value) -> Result<Answer, Refusal> {
    let Some(document) = document(web, kind, id)? else { return Ok(Answer::ok(rendered)) };
    let answer = Answer::ok(with_version(rendered, document.version, document.updated_at));
    let answer = answer.version(document.version, document.updated_at);
    let current = answer.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    if current.is_some() && call.header("if-none-match") == current {
        return Ok(Answer { body: None, ..answer.status(axum::http::StatusCode::NOT_MODIFIED) });
    }
    Ok(answer)
}

/// One page of records in the order of their ids.
struct IdPage<T> {
    items: Vec<T>,
    next: Option<String>,
}

/// Cuts a page out of all that fit.
fn id_page<T>(
    web: &Web,
    call: &Call,
    kind: &str,
    mut all: Vec<T>,
    id_of: impl Fn(&T) -> [u8; 16],
    (count, cursor): (Option<u16>, Option<&str>),
) -> Result<IdPage<T>, Refusal> {
    let store = web.site.store();
    let after = cursor.map(|cursor| page::place_of(store, kind, &call.params, cursor)).transpose()?;
    let after = after.map(|place| page::id_from(&place)).transpose()?;
    all.retain(|item| after.is_none_or(|after| id_of(item) > after));
    all.sort_by_key(&id_of);
    let count = usize::from(count.unwrap_or(page::COUNT_DEFAULT));
    let more = all.len() > count;
    all.truncate(count);
    let last = all.last().filter(|_| more).map(&id_of);
    let next = last.map(|last| {
        let cursor = page::cursor(store, kind, &call.params, &last);
        page::next_link(&call.base, kind, &call.params, cursor)
    });
    Ok(IdPage { items: all, next })
}

fn bundle_of(
    web: &Web,
    call: &Call,
    kind: &str,
    next_link: Option<String>,
    resources: Vec<(String, Value)>,
) -> Answer {
    let entry = |(id, resource): (String, Value)| SearchEntry {
        full_url: format!("{}/{kind}/{id}", call.base),
        resource,
        mode: SearchMode::Match,
    };
    Answer::ok(searchset(&SearchsetInput {
        self_link: page::link(&call.base, kind, &call.params),
        next_link,
        total: None,
        at: web.site.clock().now(),
        entries: resources.into_iter().map(entry).collect(),
    }))
}

/// `GET /fhir/Patient?…`
pub(crate) fn search_patients(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let search = parse_patient_search(&call.params).map_err(Refusal::bad_request)?;
    let registry = web.site.registry();
    let access = call.access()?;
    let mut all = registry.patients();
    all.retain(|patient| access.may_see(registry, patient) && patient_fits(&search, patient));
    let wanted = (search.count, search.cursor.as_deref());
    let found = id_page(web, call, "Patient", all, |patient| patient.id.to_bytes(), wanted)?;
    let ids: Vec<PatientId> = found.items.iter().map(|patient| patient.id).collect();
    let acts = call.acts(AuditAction::Search, "Patient", &call.query_text(), &ids)?;
    let resources = web.site.read_each(acts, |_| {
        let mut resources = Vec::with_capacity(found.items.len());
        for patient in &found.items {
            let kept =
                web.site.store().document(Kind::Patient, patient.id.to_bytes()).map_err(ReadError::Store)?;
            let rendered = fhir::patient::render(patient);
            resources.push((patient.id.to_string(), with_record(rendered, kept)));
        }
        Ok(resources)
    })?;
    Ok(bundle_of(web, call, "Patient", found.next, resources))
}

fn with_record(rendered: Value, kept: Option<Document>) -> Value {
    match kept {
        Some(document) => with_version(rendered, document.version, document.updated_at),
        None => rendered,
    }
}

fn patient_fits(search: &PatientSearch, patient: &Patient) -> bool {
    let begins = |text: &str, wanted: &Private<String>| {
        text.to_lowercase().starts_with(&wanted.expose().to_lowercase())
    };
    let family = |wanted: &Private<String>| begins(patient.family.expose(), wanted);
    let given = |wanted: &Private<String>| {
        let names = patient.given.expose();
        begins(names, wanted) || names.split_whitespace().any(|name| begins(name, wanted))
    };
    let all = |groups: &[Vec<Private<String>>], fits: &dyn Fn(&Private<String>) -> bool| {
        groups.iter().all(|alternatives| alternatives.iter().any(fits))
    };
    search.ids.as_ref().is_none_or(|ids| ids.contains(&patient.id))
        && search.record_numbers.as_ref().is_none_or(|numbers| numbers.contains(&patient.record_number))
        && all(&search.family, &family)
        && all(&search.given, &given)
        && all(&search.name, &|wanted| family(wanted) || given(wanted))
        && search.genders.as_ref().is_none_or(|genders| genders.contains(&patient.gender))
        && search
            .birth_dates
            .as_ref()
            .is_none_or(|dates| patient.birth_date.as_ref().is_some_and(|date| dates.contains(date)))
}

/// `GET /fhir/Device?…`
pub(crate) fn search_devices(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let search = parse_device_search(&call.params).map_err(Refusal::bad_request)?;
    let all = web.site.registry().devices().into_iter().map(|device| {
        let assigned = call::assigned(web, call, &device);
        (device, assigned)
    });
    let all = all.filter(|(device, assigned)| device_fits(&search, device, *assigned)).collect();
    let wanted = (search.count, search.cursor.as_deref());
    let found = id_page(web, call, "Device", all, |(device, _)| device.id.to_bytes(), wanted)?;
    let mut patients: Vec<PatientId> =
        found.items.iter().filter_map(|(_, assigned)| assigned.and_then(Subject::patient)).collect();
    patients.sort();
    patients.dedup();
    let acts = call.acts(AuditAction::Search, "Device", &call.query_text(), &patients)?;
    let resources = web.site.read_each(acts, |_| {
        let mut resources = Vec::with_capacity(found.items.len());
        for (device, assigned) in &found.items {
            let kept =
                web.site.store().document(Kind::Device, device.id.to_bytes()).map_err(ReadError::Store)?;
            let rendered = fhir::device::render_assigned(device, *assigned);
            resources.push((device.id.to_string(), with_record(rendered, kept)));
        }
        Ok(resources)
    })?;
    Ok(bundle_of(web, call, "Device", found.next, resources))
}

fn device_fits(search: &DeviceSearch, device: &Device, assigned: Option<Subject>) -> bool {
    let patient = assigned.and_then(Subject::patient);
    search.ids.as_ref().is_none_or(|ids| ids.contains(&device.id))
        && search.serials.as_ref().is_none_or(|serials| serials.contains(&device.serial))
        && search
            .patients
            .as_ref()
            .is_none_or(|patients| patient.is_some_and(|patient| patients.contains(&patient)))
}
