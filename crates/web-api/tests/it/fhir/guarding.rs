//! Every interaction of the FHIR table against the clinician of another ward: a new interaction without its row fails.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use web_api::fhir::interactions;

use super::{at, heart_rate, post, program};
use crate::clinic::{Clinic, bed, monitor, patient, ward};

/// What the clinician of another ward gets.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Gets {
    /// The same as where there is no such thing.
    NotFound,
    /// An answer in which nothing of the patient stands.
    Nothing,
}

/// What is asked about the patient of ward 2: path, body and expectation; or why the interaction shows no patient.
fn asked(
    method: &Method,
    path: &str,
    observation: &str,
    consent: &str,
) -> Result<(String, Value, Gets), &'static str> {
    use Gets::{NotFound, Nothing};
    let (other, device) = (patient(2), monitor(2));
    let plain = |path: String, gets: Gets| Ok((path, Value::Null, gets));
    let is_read = *method == Method::GET;
    match path {
        "/fhir/metadata" => Err("says nothing of patients"),
        _ if path.ends_with("/$validate") => Err("reads nothing"),
        _ if path.ends_with("/_search") => Err("the same handler as the search by GET: tested with forms"),
        _ if path.starts_with("/fhir/AuditEvent") => Err("no clinician holds it"),
        _ if !is_read && !path.contains('$') => {
            Err("tested where writing is: creating, correcting, registering")
        }
        "/fhir/Patient/{id}" => plain(format!("/fhir/Patient/{other}"), NotFound),
        "/fhir/Patient" => plain(format!("/fhir/Patient?_id={other}"), Nothing),
        "/fhir/Patient/_history" => plain("/fhir/Patient/_history".into(), Nothing),
        "/fhir/Patient/{id}/_history" => plain(format!("/fhir/Patient/{other}/_history"), NotFound),
        "/fhir/Patient/{id}/_history/{vid}" => plain(format!("/fhir/Patient/{other}/_history/1"), NotFound),
        "/fhir/Patient/{id}/Observation" => plain(format!("/fhir/Patient/{other}/Observation"), Nothing),
        "/fhir/Patient/{id}/$everything" => plain(format!("/fhir/Patient/{other}/$everything"), NotFound),
        "/fhir/Device/{id}" => plain(format!("/fhir/Device/{device}"), Nothing),
        "/fhir/Device" => plain(format!("/fhir/Device?_id={device}&_include=Device:patient"), Nothing),
        "/fhir/Device/_history" => plain("/fhir/Device/_history".into(), Nothing),
        "/fhir/Device/{id}/_history" => plain(format!("/fhir/Device/{device}/_history"), Nothing),
        "/fhir/Device/{id}/_history/{vid}" => plain(format!("/fhir/Device/{device}/_history/1"), Nothing),
        "/fhir/Location/{id}" => plain(format!("/fhir/Location/{}", bed(2)), Nothing),
        "/fhir/Location" => {
            plain(format!("/fhir/Location?_id={}&_revinclude=Observation:subject", bed(2)), Nothing)
        }
        "/fhir/Location/{id}/_history" => plain(format!("/fhir/Location/{}/_history", bed(2)), Nothing),
        "/fhir/Location/{id}/_history/{vid}" => {
            plain(format!("/fhir/Location/{}/_history/1", bed(2)), Nothing)
        }
        "/fhir/Observation/{id}" => plain(format!("/fhir/Observation/{observation}"), NotFound),
        "/fhir/Observation" => {
            plain(format!("/fhir/Observation?subject=Patient/{other}&_total=accurate"), Nothing)
        }
        "/fhir/Observation/{id}/_history" => {
            plain(format!("/fhir/Observation/{observation}/_history"), NotFound)
        }
        "/fhir/Observation/{id}/_history/{vid}" => {
            plain(format!("/fhir/Observation/{observation}/_history/1"), NotFound)
        }
        "/fhir/Observation/$lastn" => plain(format!("/fhir/Observation/$lastn?patient={other}"), Nothing),
        "/fhir/Observation/$stats" | "/fhir/Observation/$trend" if !is_read => {
            let mut body = json!({"resourceType": "Parameters", "parameter": [
                {"name": "patient", "valueString": other.to_string()},
                {"name": "code", "valueString": "8867-4"},
                {"name": "duration", "valueDecimal": 1},
            ]});
            if path.ends_with("$stats") {
                let statistic = json!({"name": "statistic", "valueCode": "count"});
                body["parameter"].as_array_mut().unwrap().push(statistic);
            }
            Ok((path.to_owned(), body, Nothing))
        }
        "/fhir/Observation/$stats" => {
            plain(format!("/fhir/Observation/$stats?patient={other}&code=8867-4&statistic=count"), Nothing)
        }
        "/fhir/Observation/$trend" => {
            plain(format!("/fhir/Observation/$trend?patient={other}&code=8867-4&duration=1"), Nothing)
        }
        "/fhir/Consent/{id}" => plain(format!("/fhir/Consent/{consent}"), NotFound),
        "/fhir/Consent" => plain(format!("/fhir/Consent?patient={other}"), Nothing),
        "/fhir/Consent/_history" => plain("/fhir/Consent/_history".into(), Nothing),
        "/fhir/Consent/{id}/_history" => plain(format!("/fhir/Consent/{consent}/_history"), NotFound),
        "/fhir/Consent/{id}/_history/{vid}" => plain(format!("/fhir/Consent/{consent}/_history/1"), NotFound),
        "/fhir/Group/{id}/$export" => plain(format!("/fhir/Group/{}/$export", ward(2)), NotFound),
        _ if path.contains("$export") => Err("an export is of one's own ward: tested with its files"),
        other => {
            panic!("{method} {other} needs a row here: who must not get what of another ward's patient?")
        }
    }
}

/// Where what was asked says something of the patient: in matches, not in the echo of the question.
fn says_something(body: &Value) -> bool {
    let of = [patient(2).to_string(), "Family2".to_owned(), "MRN-2".to_owned()];
    let shown = match body["resourceType"].as_str() {
        Some("Bundle") => body["entry"].to_string() + &body["total"].to_string().replace(['0', 'n'], ""),
        _ => body.to_string(),
    };
    of.iter().any(|word| shown.contains(word))
}

async fn consent_of_patient_2(clinic: &Clinic, theirs: &str) -> String {
    let rule = json!({"decision": "deny", "who": [], "purposes": ["HRESCH"], "classes": [], "measures": [],
        "except": []});
    let made = clinic.post(&format!("/api/v1/patients/{}/consents", patient(2)), theirs, rule).await;
    made.body["id"].as_str().unwrap_or_else(|| panic!("{:?}", made.body)).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_patient_and_a_caregiver_of_nobody_get_nothing_over_fhir() {
    let clinic = Clinic::furnished();
    let sent = heart_rate(monitor(2), Some(patient(2)), at(-10), "72");
    let made = post(&clinic, &program(), "/fhir/Observation", &sent).await;
    let observation = made.body["id"].as_str().unwrap().to_owned();
    let consent = consent_of_patient_2(&clinic, &clinic.sign_in("nurse 2").await).await;
    for (name, role) in [("patient", web_api::Role::Patient), ("caregiver", web_api::Role::Caregiver)] {
        let cookie = clinic.sign_in(name).await;
        let mut checked = 0;
        for interaction in interactions() {
            let Ok((path, body, gets)) = asked(&interaction.method, interaction.path, &observation, &consent)
            else {
                continue;
            };
            let body = (body != Value::Null).then_some(body);
            let answer = clinic.call(interaction.method.clone(), &path, Some(&cookie), body).await;
            let what = format!("{name}: {} {path}: {}", interaction.method, answer.body);
            let expected = match gets {
                _ if !crate::rights::holds(role, interaction.permission) => StatusCode::FORBIDDEN,
                Gets::NotFound => StatusCode::NOT_FOUND,
                // What is included needs a permission of its own.
                Gets::Nothing if answer.status == StatusCode::FORBIDDEN => continue,
                Gets::Nothing => StatusCode::OK,
            };
            assert_eq!(answer.status, expected, "{what}");
            assert!(!says_something(&answer.body), "{what}");
            checked += 1;
        }
        assert!(checked >= 20, "{checked}");
        let own = clinic.get("/fhir/Patient", &cookie).await;
        let sees_one = own.body["entry"].as_array().map_or(0, Vec::len);
        assert_eq!(sees_one, usize::from(name == "patient"), "{}", own.body);
    }
}

/// Every interaction on a type, by a program whose scopes reach another type only.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_with_too_small_a_scope_is_refused_every_interaction() {
    let clinic = Clinic::furnished();
    let scopes = [
        ("places only", "system/Location.cruds"),
        ("patients only", "system/Patient.cruds"),
        ("reads only", "system/*.rs"),
        ("nothing", "system/Location.r"),
        ("ehr", "system/*.cruds"),
    ];
    let of = |(name, scope): (&str, &str)| (name.to_owned(), vec![scope.to_owned()]);
    clinic.site.admission().set_program_scopes(scopes.map(of));
    let mut refused = 0;
    for interaction in interactions() {
        let is_about_a_type =
            !matches!(interaction.resource, "" | "Group") && interaction.code != "$validate";
        if !is_about_a_type {
            continue;
        }
        let other = if interaction.resource == "Location" { "patients only" } else { "places only" };
        let is_write = matches!(interaction.code, "create" | "update" | "delete");
        for name in [Some(other), is_write.then_some("reads only")].into_iter().flatten() {
            let peer = pipeline::Peer::Program(name.into());
            let path = super::reading::concrete(interaction.path);
            let request = axum::http::Request::builder().method(&interaction.method).uri(&path);
            let answer = super::ask(&clinic, &peer, request.body(axum::body::Body::empty()).unwrap()).await;
            let what = format!("{name}: {} {path}: {}", interaction.method, answer.body);
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
            refused += 1;
        }
    }
    assert!(refused >= 40, "{refused}");
    // The whole-system interactions show nothing of types that the scopes do not reach.
    let nothing = pipeline::Peer::Program("nothing".into());
    let bundle = json!({"resourceType": "Bundle", "type": "batch", "entry": [
        {"request": {"method": "GET", "url": format!("Patient/{}", patient(1))}},
        {"request": {"method": "GET", "url": "Observation"}},
    ]});
    let answer = post(&clinic, &nothing, "/fhir", &bundle).await;
    for entry in answer.body["entry"].as_array().unwrap() {
        assert!(entry["response"]["status"].as_str().unwrap().starts_with("403"), "{entry}");
    }
    // A scope of one type brings nothing of another along.
    let places = pipeline::Peer::Program("patients only".into());
    let path = format!("/fhir/Patient?_id={}&_revinclude=Observation:subject", patient(1));
    let sent = heart_rate(monitor(1), Some(patient(1)), at(-10), "72");
    assert_eq!(post(&clinic, &program(), "/fhir/Observation", &sent).await.status, StatusCode::CREATED);
    let answer = super::get(&clinic, &places, &path).await;
    assert!(!answer.body.to_string().contains("\"Observation\""), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clinician_of_another_ward_gets_nothing_over_fhir() {
    let clinic = Clinic::furnished();
    let sent = heart_rate(monitor(2), Some(patient(2)), at(-10), "72");
    let made = post(&clinic, &program(), "/fhir/Observation", &sent).await;
    let observation = made.body["id"].as_str().unwrap().to_owned();
    let (stranger, theirs) = (clinic.sign_in("nurse").await, clinic.sign_in("nurse 2").await);
    let consent = consent_of_patient_2(&clinic, &theirs).await;
    let (mut checked, mut told) = (0, 0);
    for interaction in interactions() {
        let Ok((path, body, gets)) = asked(&interaction.method, interaction.path, &observation, &consent)
        else {
            continue;
        };
        let body = (body != Value::Null).then_some(body);
        let what = format!("{} {path}", interaction.method);
        let answer = clinic.call(interaction.method.clone(), &path, Some(&stranger), body.clone()).await;
        let expected = match gets {
            Gets::NotFound => StatusCode::NOT_FOUND,
            Gets::Nothing => StatusCode::OK,
        };
        assert_eq!(answer.status, expected, "{what}: {}", answer.body);
        assert!(!says_something(&answer.body), "{what}: {}", answer.body);
        // The right clinician is not refused, so that the refusal is about the patient.
        let answer = clinic.call(interaction.method.clone(), &path, Some(&theirs), body).await;
        let is_begun = path.ends_with("$export") && answer.status == StatusCode::BAD_REQUEST;
        assert!(answer.status == StatusCode::OK || is_begun, "{what}: {} {}", answer.status, answer.body);
        checked += 1;
        told += usize::from(says_something(&answer.body));
    }
    assert!(checked >= 24, "{checked}");
    assert!(told >= 12, "the right clinician is told: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identifier_of_another_ward_is_as_good_as_none() {
    let clinic = Clinic::furnished();
    let mut named = heart_rate(monitor(2), Some(patient(2)), at(-60), "72");
    named["identifier"] = json!([{"system": "urn:example:lab", "value": "taken"}]);
    let made = post(&clinic, &program(), "/fhir/Observation", &named).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let nurse = clinic.sign_in("nurse").await;
    for method in [Method::DELETE, Method::PUT] {
        let told = async |value: &str| {
            let path = format!("/fhir/Observation?identifier=urn:example:lab|{value}");
            let body = (method == Method::PUT).then(|| named.clone());
            let answer = clinic.call(method.clone(), &path, Some(&nurse), body).await;
            (answer.status, answer.body.to_string())
        };
        assert_eq!(told("taken").await, told("free").await, "{method}");
    }
    let path = format!("/fhir/Observation/{}", made.body["id"].as_str().unwrap());
    assert_eq!(super::get(&clinic, &program(), &path).await.status, StatusCode::OK, "nothing was touched");
}
