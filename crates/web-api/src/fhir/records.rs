//! Patients, devices and locations: read and searched in the registry, shown through the audit wrapper.

use std::sync::Arc;

use clinical_model::{
    Device, DeviceId, Patient, PatientId, Place, PlaceId, Private, RecordId, Subject, Timestamp,
};
use health_codecs::fhir::search::{
    DeviceSearch, LocationSearch, PatientSearch, Query, ResourceType, Total, parse_device_search,
    parse_location_search, parse_patient_search,
};
use health_codecs::fhir::{self, with_version};
use pipeline::Site;
use pipeline::audited::ReadError;
use serde_json::Value;
use store::{AuditAction, Document, Kind};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::answer::{Answer, Refusal};
use super::call::{self, Call};
use super::include::{self, Node};
use super::results::{self, Results};
use super::{links, page, refused};
use crate::state::Web;

/// `GET /fhir/Patient/{id}`
pub(crate) fn read_patient(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let id: Option<PatientId> = call.id.parse().ok();
    let known = id.and_then(|id| web.site.registry().patient(id));
    let act = call.act(AuditAction::Read, "Patient")?.detail(format!("Patient/{}", call::named(&call.id)));
    let act = known.iter().fold(act, |act, patient| act.patient(patient.id));
    let Some(patient) = known.filter(|patient| call.may_see(web, Subject::Patient(patient.id))) else {
        refused(web, call.access()?.refused_look(web, act))?;
        return Err(Refusal::not_found("Patient"));
    };
    call.chart(web, act, |_| Ok(()))?;
    versioned(web, Kind::Patient, patient.id.to_bytes(), fhir::patient::render(&patient))
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
    call.chart(web, act, |_| Ok(()))?;
    let rendered = fhir::device::render_assigned(&device, assigned);
    versioned(web, Kind::Device, device.id.to_bytes(), rendered)
}

/// `GET /fhir/Location/{id}`
pub(crate) fn read_location(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let known = call.id.parse().ok().and_then(|id: PlaceId| web.site.registry().place(id));
    let act = call.act(AuditAction::Read, "Location")?.detail(format!("Location/{}", call::shown(&call.id)));
    let Some(place) = known else {
        refused(web, act)?;
        return Err(Refusal::not_found("Location"));
    };
    call.chart(web, act, |_| Ok(()))?;
    versioned(web, Kind::Place, place.id.to_bytes(), fhir::location::render(&place))
}

fn document(web: &Web, kind: Kind, id: [u8; 16]) -> Result<Option<Document>, Refusal> {
    web.site.store().document(kind, id).map_err(Refusal::from)
}

/// A patient or a device as it was sent, with all that it says; to whom a device is assigned is known now, not then.
fn as_kept(kind: Kind, rendered: Value, document: &Document) -> Value {
    // What was read at the start can be read now; were it not so, what we know of it would still be shown.
    let kept = matches!(kind, Kind::Patient | Kind::Device).then(|| fhir::json::parse(&document.body).ok());
    let Some(mut kept) = kept.flatten() else { return rendered };
    // To whom a device is assigned is decided by its assignment and by who asks, never by what was sent once.
    if let Some(fields) = kept.as_object_mut().filter(|_| kind == Kind::Device) {
        for name in ["patient", "location"] {
            fields.remove(name);
            fields.extend(rendered.get(name).map(|shown| (name.to_owned(), shown.clone())));
        }
    }
    kept
}

/// The resource with the version of its record.
fn versioned(web: &Web, kind: Kind, id: [u8; 16], rendered: Value) -> Result<Answer, Refusal> {
    let Some(document) = document(web, kind, id)? else { return Ok(Answer::ok(rendered)) };
    let resource = as_kept(kind, rendered, &document);
    let answer = Answer::ok(with_version(resource, document.version, document.updated_at));
    Ok(answer.version(document.version, document.updated_at))
}

/// One page of records in the order of their ids.
pub(crate) struct IdPage<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
    pub total: u64,
}

/// Cuts a page out of all that fit.
pub(crate) fn id_page<T>(
    web: &Web,
    call: &Call,
    kind: &str,
    mut all: Vec<T>,
    id_of: impl Fn(&T) -> [u8; 16],
    (count, cursor): (Option<u16>, Option<&str>),
) -> Result<IdPage<T>, Refusal> {
    let store = web.site.store();
    let total = all.len() as u64;
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
    Ok(IdPage { items: all, next, total })
}

/// Shows a page of records with what was asked for besides.
fn show<T>(
    web: &Web,
    call: &Call,
    (kind, query): (ResourceType, Query),
    page: IdPage<T>,
    node_of: impl Fn(&T) -> (Subject, Option<PatientId>),
) -> Result<Answer, Refusal> {
    let nodes: Vec<(Subject, Option<PatientId>)> = page.items.iter().map(node_of).collect();
    let mut patients: Vec<PatientId> = nodes.iter().filter_map(|(_, patient)| *patient).collect();
    patients.sort();
    patients.dedup();
    let is_counted = results::is_count(&query, &call.params);
    let acts = call.acts(AuditAction::Search, kind.name(), &call.query_text(web), &patients)?;
    let matches = call.chart_each(web, acts, |_| {
        let shown = nodes.iter().filter(|_| !is_counted);
        shown.filter_map(|(subject, _)| shown_record(web, call, *subject).transpose()).collect()
    })?;
    let total = (is_counted || query.total != Total::None).then_some(page.total);
    let nodes: Vec<Node> = nodes.into_iter().map(|(subject, _)| Node::Record(subject)).collect();
    let included = include::all(web, call, &query, kind, nodes, patients)?;
    Ok(results::bundle(
        web,
        call,
        &query,
        Results { path: kind.name(), kind, matches, included, total, next_link: page.next },
    ))
}

/// A record that is kept, as a resource with its version. Whether it may be shown was decided before.
pub(crate) fn shown_record(
    web: &Web,
    call: &Call,
    subject: Subject,
) -> Result<Option<(String, Value)>, ReadError> {
    let registry = web.site.registry();
    let (kind, id, rendered) = match subject {
        Subject::Patient(id) => {
            let Some(patient) = registry.patient(id) else { return Ok(None) };
            (Kind::Patient, id.to_bytes(), fhir::patient::render(&patient))
        }
        Subject::Device(id) => {
            let Some(device) = registry.device(id) else { return Ok(None) };
            let assigned = call::assigned(web, call, &device);
            (Kind::Device, id.to_bytes(), fhir::device::render_assigned(&device, assigned))
        }
        Subject::Place(id) => {
            let Some(place) = registry.place(id) else { return Ok(None) };
            (Kind::Place, id.to_bytes(), fhir::location::render(&place))
        }
    };
    let kept = web.site.store().document(kind, id).map_err(ReadError::Store)?;
    let shown = match kept {
        Some(document) => {
            with_version(as_kept(kind, rendered, &document), document.version, document.updated_at)
        }
        None => rendered,
    };
    Ok(Some((subject_id(subject), shown)))
}

/// When the record of a subject was last changed; long ago where it was never written.
pub(crate) fn updated_at(site: &Site, subject: Subject) -> Result<Timestamp, ReadError> {
    let (kind, id) = match subject {
        Subject::Patient(id) => (Kind::Patient, id.to_bytes()),
        Subject::Device(id) => (Kind::Device, id.to_bytes()),
        Subject::Place(id) => (Kind::Place, id.to_bytes()),
    };
    let document = site.store().document(kind, id).map_err(ReadError::Store)?;
    Ok(document.map_or(Timestamp::MIN, |document| document.updated_at))
}

/// The logical id of a record.
pub(crate) fn subject_id(subject: Subject) -> String {
    match subject {
        Subject::Patient(id) => id.to_string(),
        Subject::Device(id) => id.to_string(),
        Subject::Place(id) => id.to_string(),
    }
}

/// `GET /fhir/Patient?…`
pub(crate) fn search_patients(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let query = links::query_of(ResourceType::Patient, call, &call.params)?;
    let (search, all) = patients(web, call, &query)?;
    let wanted = (results::count_of(search.count), search.cursor.as_deref());
    let page = id_page(web, call, "Patient", all, |patient| patient.id.to_bytes(), wanted)?;
    show(web, call, (ResourceType::Patient, query), page, |patient| {
        (Subject::Patient(patient.id), Some(patient.id))
    })
}

/// The patients that fit and that whoever asks may see.
pub(crate) fn patients(
    web: &Web,
    call: &Call,
    query: &Query,
) -> Result<(PatientSearch, Vec<Arc<Patient>>), Refusal> {
    let search =
        parse_patient_search(&results::without_zero_count(&query.filters)).map_err(Refusal::bad_request)?;
    let registry = web.site.registry();
    let sight = call.sight_of(web, "Patient")?;
    let allowed = links::allowed_by_has(web, call, query)?;
    let mut all = registry.patients();
    all.retain(|patient| {
        patient_fits(&search, patient)
            && sight.patient(patient)
            && allowed.as_ref().is_none_or(|allowed| allowed.contains(&Subject::Patient(patient.id)))
    });
    Ok((search, all))
}

/// Whether a text begins with another, without regard to case and accents (R4 §3.1.1.4.7).
fn begins(text: &str, wanted: &str) -> bool {
    folded(text).starts_with(&folded(wanted))
}

fn folded(text: &str) -> String {
    text.nfd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).collect()
}

fn patient_fits(search: &PatientSearch, patient: &Patient) -> bool {
    let begins = |text: &str, wanted: &Private<String>| begins(text, wanted.expose());
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
    let query = links::query_of(ResourceType::Device, call, &call.params)?;
    let (search, all) = devices(web, call, &query)?;
    let wanted = (results::count_of(search.count), search.cursor.as_deref());
    let page = id_page(web, call, "Device", all, |(device, _)| device.id.to_bytes(), wanted)?;
    show(web, call, (ResourceType::Device, query), page, |(device, assigned)| {
        (Subject::Device(device.id), assigned.and_then(Subject::patient))
    })
}

/// A device with whom or what it is assigned to now, as far as whoever asks may know.
type AssignedDevice = (Arc<Device>, Option<Subject>);

/// The devices that fit.
pub(crate) fn devices(
    web: &Web,
    call: &Call,
    query: &Query,
) -> Result<(DeviceSearch, Vec<AssignedDevice>), Refusal> {
    let search =
        parse_device_search(&results::without_zero_count(&query.filters)).map_err(Refusal::bad_request)?;
    let allowed = links::allowed_by_has(web, call, query)?;
    let of_patients = links::allowed_by_chains(web, call, query, &["patient"])?;
    let at_places = links::allowed_by_chains(web, call, query, &["location"])?;
    let mut all: Vec<AssignedDevice> = Vec::new();
    for device in web.site.registry().devices() {
        let assigned = call::assigned(web, call, &device);
        let is_of = |allowed: &Option<std::collections::BTreeSet<Subject>>| {
            allowed.as_ref().is_none_or(|allowed| assigned.is_some_and(|subject| allowed.contains(&subject)))
        };
        if device_fits(&search, &device, assigned)
            && allowed.as_ref().is_none_or(|allowed| allowed.contains(&Subject::Device(device.id)))
            && is_of(&of_patients)
            && is_of(&at_places)
        {
            all.push((device, assigned));
        }
    }
    Ok((search, all))
}

fn device_fits(search: &DeviceSearch, device: &Device, assigned: Option<Subject>) -> bool {
    let patient = assigned.and_then(Subject::patient);
    let place = match assigned {
        Some(Subject::Place(place)) => Some(place),
        _ => None,
    };
    let named = |wanted: &String| {
        [&device.name, &device.manufacturer, &device.model].into_iter().any(|text| begins(text, wanted))
    };
    search.ids.as_ref().is_none_or(|ids| ids.contains(&device.id))
        && search.serials.as_ref().is_none_or(|serials| serials.contains(&device.serial))
        && search.names.iter().all(|alternatives| alternatives.iter().any(named))
        && search.retired.as_ref().is_none_or(|retired| retired.contains(&device.retired))
        && search
            .patients
            .as_ref()
            .is_none_or(|patients| patient.is_some_and(|patient| patients.contains(&patient)))
        && search.places.as_ref().is_none_or(|places| place.is_some_and(|place| places.contains(&place)))
}

/// `GET /fhir/Location?…`
pub(crate) fn search_locations(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let query = links::query_of(ResourceType::Location, call, &call.params)?;
    let (search, all) = places(web, call, &query)?;
    let wanted = (results::count_of(search.count), search.cursor.as_deref());
    let page = id_page(web, call, "Location", all, |place| place.id.to_bytes(), wanted)?;
    show(web, call, (ResourceType::Location, query), page, |place| (Subject::Place(place.id), None))
}

/// The places that fit.
pub(crate) fn places(
    web: &Web,
    call: &Call,
    query: &Query,
) -> Result<(LocationSearch, Vec<Arc<Place>>), Refusal> {
    let search =
        parse_location_search(&results::without_zero_count(&query.filters)).map_err(Refusal::bad_request)?;
    let allowed = links::allowed_by_has(web, call, query)?;
    let wards = links::allowed_by_chains(web, call, query, &["partof"])?;
    let mut all = web.site.registry().places();
    all.retain(|place| {
        search.ids.as_ref().is_none_or(|ids| ids.contains(&place.id))
            && search.names.iter().all(|names| names.iter().any(|name| begins(&place.name, name)))
            && search.wards.as_ref().is_none_or(|wards| place.ward.is_some_and(|ward| wards.contains(&ward)))
            && allowed.as_ref().is_none_or(|allowed| allowed.contains(&Subject::Place(place.id)))
            && wards
                .as_ref()
                .is_none_or(|wards| place.ward.is_some_and(|ward| wards.contains(&Subject::Place(ward))))
    });
    Ok((search, all))
}
