//! Ids tried out: over every way in which a search, a chain, an include or a batch could tell of a patient, the stranger
//! gets for a patient of another ward what they get for one that nobody is.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{at, get, heart_rate, post, program};
use crate::clinic::{Clinic, bed, monitor, patient, ward};

const NOBODY: &str = "01234567-89ab-7def-8123-456789abcdef";

/// Queries with `{patient}`, `{family}`, `{number}`, `{device}` and `{bed}` in them.
const QUERIES: &[&str] = &[
    "Observation?patient={patient}&_total=accurate",
    "Observation?subject=Patient/{patient}",
    "Observation?subject:Patient.family={family}",
    "Observation?patient.identifier={number}",
    "Observation?patient._id={patient}",
    "Observation?patient={patient}&_summary=count",
    "Observation?patient={patient}&_include=Observation:subject",
    "Observation?patient={patient}&_sort=date",
    "Observation/$lastn?patient={patient}",
    "Observation/$stats?patient={patient}&code=8867-4&statistic=count",
    "Observation/$trend?patient={patient}&code=8867-4&duration=1",
    "Patient?_id={patient}",
    "Patient?family={family}",
    "Patient?identifier={number}&_total=accurate",
    "Patient?_id={patient}&_revinclude=Observation:subject",
    "Patient?_id={patient}&_has:Observation:patient:code=8867-4",
    "Patient?_id={patient}&_has:Device:patient:status=active",
    "Patient/{patient}",
    "Patient/{patient}/Observation",
    "Patient/{patient}/_history",
    "Patient/{patient}/_history/1",
    "Patient/{patient}/$everything",
    "Device?patient={patient}",
    "Device?patient.family={family}",
    "Device?patient=Patient/{patient}&_include=Device:patient",
    "Consent?patient={patient}",
    "Consent?patient=Patient/{patient}&_total=accurate",
];

/// What an answer says, without the echo of the question and the time.
fn told(status: StatusCode, mut body: Value) -> String {
    for echo in ["link", "id", "meta", "timestamp"] {
        body.as_object_mut().map(|body| body.remove(echo));
    }
    format!("{status} {body}")
}

fn filled(query: &str, [patient, family, number]: [&str; 3]) -> String {
    query.replace("{patient}", patient).replace("{family}", family).replace("{number}", number)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_search_chain_include_or_batch_tells_a_patient_of_another_ward_from_nobody() {
    let clinic = Clinic::furnished();
    let sent = heart_rate(monitor(2), Some(patient(2)), at(-10), "72");
    assert_eq!(post(&clinic, &program(), "/fhir/Observation", &sent).await.status, StatusCode::CREATED);
    let known = patient(2).to_string();
    let theirs = [known.as_str(), "Family2", "MRN-2"];
    let nobodys = [NOBODY, "Nobody", "MRN-0"];
    let right = clinic.sign_in("nurse 2").await;
    let mut differs_for_the_right_one = 0;
    for stranger in ["nurse", "patient", "caregiver"] {
        let cookie = clinic.sign_in(stranger).await;
        for query in QUERIES {
            let ask = async |cookie: &str, values: [&str; 3]| {
                let answer = clinic.get(&format!("/fhir/{}", filled(query, values)), cookie).await;
                let shown = told(answer.status, answer.body);
                // What they wrote themselves may be said back.
                values.iter().fold(shown, |shown, value| shown.replace(value, "…"))
            };
            assert_eq!(ask(&cookie, theirs).await, ask(&cookie, nobodys).await, "{stranger}: {query}");
            let differs = ask(&right, theirs).await != ask(&right, nobodys).await;
            differs_for_the_right_one += usize::from(differs && stranger == "nurse");
        }
        // All of them in one batch.
        let batch = |values| {
            let entries: Vec<Value> = QUERIES
                .iter()
                .filter(|query| !query.contains("$stats") && !query.contains("$trend"))
                .map(|query| json!({"request": {"method": "GET", "url": filled(query, values)}}))
                .collect();
            json!({"resourceType": "Bundle", "type": "batch", "entry": entries})
        };
        let answer = clinic.post("/fhir", &cookie, batch(theirs)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let entries = answer.body["entry"].as_array().unwrap();
        for entry in entries {
            let text = entry["resource"]["entry"].to_string();
            assert!(!text.contains(&known) && !text.contains("Family2"), "{stranger}: {entry}");
        }
    }
    assert!(differs_for_the_right_one >= 18, "{differs_for_the_right_one}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_of_a_place_belongs_to_the_ward_of_the_place() {
    let clinic = Clinic::furnished();
    let admin = clinic.sign_in("administrator").await;
    for number in [1, 2] {
        let end = json!({"end": at(0).to_rfc3339()});
        let path = format!("/api/v1/assignments/{}/end", crate::clinic::assigned(number));
        assert_eq!(clinic.post(&path, &admin, end).await.status, StatusCode::OK);
        let subject = json!({"kind": "place", "id": bed(number)});
        let assignment = json!({"subject": subject, "start": at(1).to_rfc3339(), "end": null});
        let path = format!("/api/v1/devices/{}/assignments", monitor(number));
        let made = clinic.post(&path, &admin, assignment).await;
        assert_eq!(made.status, StatusCode::OK, "{}", made.body);
    }
    clinic.clock.advance(60);
    for number in [1, 2] {
        let sent = json!([{"measure": "body_temperature", "value": 21.5, "unit": "Cel", "time": at(30).to_rfc3339()}]);
        clinic.ingest(monitor(number), &sent.to_string()).await;
    }
    let nurse = clinic.sign_in("nurse").await;
    for (number, expected) in [(1, 1), (2, 0)] {
        let path = format!("/fhir/Observation?subject=Location/{}", bed(number));
        let answer = clinic.get(&path, &nurse).await;
        assert_eq!(
            answer.body["entry"].as_array().map_or(0, Vec::len),
            expected,
            "{number}: {}",
            answer.body
        );
    }
    // Nor may a device be taken from, or given to, a place of another ward.
    let assignment =
        json!({"subject": {"kind": "place", "id": bed(2)}, "start": at(90).to_rfc3339(), "end": null});
    let path = format!("/api/v1/devices/{}/assignments", monitor(1));
    assert_eq!(clinic.post(&path, &nurse, assignment).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_not_taken_from_a_patient_of_another_ward_by_assigning_it_anew() {
    let clinic = Clinic::furnished();
    clinic.add_user("administrator of ward 1", web_api::Role::Administrator, Some(vec![ward(1)]));
    let path = format!("/fhir/Device/{}", monitor(2));
    let mut device = get(&clinic, &program(), &path).await.body;
    device["patient"] = json!({"reference": format!("Patient/{}", patient(1))});
    let cookie = clinic.sign_in("administrator of ward 1").await;
    let answer = clinic.call(Method::PUT, &path, Some(&cookie), Some(device.clone())).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.body);
    let serves = clinic.site.registry().subject_at(monitor(2), at(1));
    assert_eq!(serves.and_then(clinical_model::Subject::patient), Some(patient(2)));
    // Whose ward it is may do it.
    let cookie = clinic.sign_in("administrator").await;
    let answer = clinic.call(Method::PUT, &path, Some(&cookie), Some(device)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
}
