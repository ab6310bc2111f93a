//! A patient as a FHIR R4 Patient, out and in.

use clinical_model::patient::Gender;
use clinical_model::{Patient, PatientId, PlaceId, Private};
use serde_json::{Value, json};

use super::element::{concept, extension, items, reference, text};
use super::outcome::{IssueCode, OutcomeIssue};
use super::system;

/// Renders a patient. The bed or home is extension [`system::EXT_PLACE`].
pub fn render(patient: &Patient) -> Value {
    let mut kind = concept(system::IDENTIFIER_TYPE, "MR", "Medical record number");
    kind["text"] = json!("Medical record number");
    let mut name = json!({ "use": "official" });
    put_text(&mut name, "family", patient.family.expose());
    let given = patient.given.expose();
    if !given.trim().is_empty() {
        name["given"] = json!(given_names(given));
    }
    let mut rendered = json!({
        "resourceType": "Patient",
        "id": patient.id.to_string(),
        "active": patient.active,
        "identifier": [{
            "use": "usual",
            "type": kind,
            "system": system::RECORD_NUMBER,
            "value": patient.record_number.expose(),
        }],
        "name": [name],
        "gender": gender_code(patient.gender),
    });
    if let Some(birth_date) = &patient.birth_date {
        rendered["birthDate"] = json!(birth_date.expose());
    }
    if let Some(place) = patient.place {
        put_place(&mut rendered, place);
    }
    rendered
}

/// Puts the bed or home into a Patient that names none.
pub fn put_place(resource: &mut Value, place: PlaceId) {
    let target = reference(&format!("Location/{place}"), None);
    let named = json!({ "url": system::EXT_PLACE, "valueReference": target });
    match resource["extension"].as_array_mut() {
        Some(extensions) => extensions.push(named),
        None => resource["extension"] = json!([named]),
    }
}

/// One text a name, where single spaces part them; else the whole as it is, so that nothing is lost.
fn given_names(given: &str) -> Vec<&str> {
    let names: Vec<&str> = given.split(' ').collect();
    if names.iter().all(|name| !name.trim().is_empty()) { names } else { vec![given] }
}

fn put_text(value: &mut Value, name: &str, content: &str) {
    if !content.trim().is_empty() {
        value[name] = json!(content);
    }
}

fn gender_code(gender: Gender) -> &'static str {
    match gender {
        Gender::Male => "male",
        Gender::Female => "female",
        Gender::Other => "other",
        Gender::Unknown => "unknown",
    }
}

/// Reads a Patient. It needs our id (the caller of a create draws one and puts it in first), a name and a record
/// number: the identifier of our own system, else one of type MR, else the first.
///
/// # Errors
/// What is invalid or missing, with where; never the content of a name.
pub fn parse(resource: &Value) -> Result<Patient, Vec<OutcomeIssue>> {
    let mut issues = super::foreign::expect(resource, "Patient");
    if !issues.is_empty() {
        return Err(issues);
    }
    let mut missing = |what: &str, place: &str| {
        issues.push(OutcomeIssue::error(IssueCode::Required, what, format!("Patient.{place}")));
    };
    let id: Option<PatientId> = text(resource, "id").and_then(|id| id.parse().ok());
    if id.is_none() {
        missing("a patient of this site has a UUID as its id", "id");
    }
    let record_number = record_number(resource);
    if record_number.is_none() {
        missing("an identifier with a value is needed: the medical record number", "identifier");
    }
    let (family, given) = name(resource);
    if family.is_empty() && given.is_empty() {
        missing("a name with family or given is needed", "name");
    }
    let birth_date = text(resource, "birthDate");
    if birth_date.is_some_and(|date| date.len() != 10) {
        let what = "the birth date is needed to the day, or not at all";
        issues.push(OutcomeIssue::error(IssueCode::Value, what, "Patient.birthDate"));
    }
    let place = place(resource).map_err(|issue| vec![issue])?;
    match (id, record_number) {
        (Some(id), Some(record_number)) if issues.is_empty() => Ok(Patient {
            id,
            family: Private::new(family),
            given: Private::new(given),
            birth_date: birth_date.map(|date| Private::new(date.to_owned())),
            gender: gender(resource),
            record_number: Private::new(record_number),
            place,
            active: resource["active"].as_bool().unwrap_or(true),
        }),
        _ => Err(issues),
    }
}

fn gender(resource: &Value) -> Gender {
    match text(resource, "gender") {
        Some("male") => Gender::Male,
        Some("female") => Gender::Female,
        Some("other") => Gender::Other,
        _ => Gender::Unknown,
    }
}

fn record_number(resource: &Value) -> Option<String> {
    let identifiers = items(resource, "identifier");
    let is_record_number = |each: &&Value| {
        items(&each["type"], "coding")
            .iter()
            .any(|coding| coding["system"] == system::IDENTIFIER_TYPE && coding["code"] == "MR")
    };
    let ours = identifiers.iter().find(|each| each["system"] == system::RECORD_NUMBER);
    let chosen = ours.or_else(|| identifiers.iter().find(is_record_number)).or_else(|| identifiers.first());
    chosen.and_then(|each| text(each, "value")).map(str::to_owned)
}

/// Family and given name of the official name, else of the first.
fn name(resource: &Value) -> (String, String) {
    let names = items(resource, "name");
    let chosen = names.iter().find(|name| name["use"] == "official").or_else(|| names.first());
    let Some(chosen) = chosen else { return Default::default() };
    let given: Vec<&str> = items(chosen, "given").iter().filter_map(Value::as_str).collect();
    (text(chosen, "family").unwrap_or("").to_owned(), given.join(" "))
}

fn place(resource: &Value) -> Result<Option<PlaceId>, OutcomeIssue> {
    let Some(found) = extension(resource, system::EXT_PLACE) else { return Ok(None) };
    let target = found["valueReference"]["reference"].as_str().unwrap_or("");
    let id = target.strip_prefix("Location/").and_then(|id| id.parse().ok());
    id.map(Some).ok_or_else(|| {
        let what = "the place of a patient refers to Location/ with a UUID";
        OutcomeIssue::error(IssueCode::Value, what, "Patient.extension")
    })
}
