//! Patients and devices as FHIR resources: created, changed, found by identifier, with versions.

use axum::http::{Method, StatusCode};
use clinical_model::Subject;
use serde_json::{Value, json};

use super::{get, issue, post, post_with, program, put, send, text};
use crate::clinic::{Clinic, bed, monitor, patient};

fn newcomer(number: &str) -> Value {
    json!({
        "resourceType": "Patient",
        "identifier": [{ "system": "urn:hospital", "value": number }],
        "name": [{ "family": "New", "given": ["Ada", "Bea"] }],
        "telecom": [{ "system": "phone", "value": "+49 30 1" }],
        "birthDate": "1990-01-01",
        "gender": "female",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_is_created_and_changed_with_everything_that_was_sent() {
    let clinic = Clinic::furnished();
    let made = post(&clinic, &program(), "/fhir/Patient", &newcomer("H-1")).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let path = format!("/fhir/Patient/{}", made.body["id"].as_str().unwrap());
    assert!(text(&made.headers, "location").ends_with(&format!("{path}/_history/1")));
    let mut listed = newcomer("H-9");
    listed["id"] = json!(["p1"]);
    let refused = post(&clinic, &program(), "/fhir/Patient", &listed).await;
    assert_eq!(
        (refused.status, issue(&refused).0),
        (StatusCode::BAD_REQUEST, "structure"),
        "{}",
        refused.body
    );
    let read = get(&clinic, &program(), &path).await;
    assert_eq!(read.body, made.body, "what was sent is kept, whether we use it or not");
    assert_eq!(read.body["telecom"][0]["value"], "+49 30 1");

    let mut changed = read.body.clone();
    changed["name"][0]["family"] = json!("Newer");
    let stale = put(&clinic, &program(), &path, "W/\"9\"", &changed).await;
    assert_eq!((stale.status, issue(&stale).0), (StatusCode::PRECONDITION_FAILED, "conflict"));
    let updated = put(&clinic, &program(), &path, "W/\"1\"", &changed).await;
    assert_eq!(
        (updated.status, text(&updated.headers, "etag")),
        (StatusCode::OK, "W/\"2\""),
        "{}",
        updated.body
    );
    // Without an expectation the last one wins.
    changed["name"][0]["family"] = json!("Newest");
    let blind = send(&clinic, &program(), Method::PUT, &path, &[], Some(&changed)).await;
    assert_eq!(blind.status, StatusCode::OK);
    let history = get(&clinic, &program(), &format!("{path}/_history")).await;
    let names: Vec<_> = history.body["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["resource"]["name"][0]["family"])
        .collect();
    assert_eq!(names, ["Newest", "Newer", "New"]);
    let first = get(&clinic, &program(), &format!("{path}/_history/1")).await;
    assert_eq!((first.status, &first.body["name"][0]["family"]), (StatusCode::OK, &json!("New")));
    assert_eq!(get(&clinic, &program(), &format!("{path}/_history/4")).await.status, StatusCode::NOT_FOUND);
    let found = get(&clinic, &program(), "/fhir/Patient?family=newest").await;
    assert_eq!(found.body["entry"].as_array().map(Vec::len), Some(1), "{}", found.body);
    let page = get(&clinic, &program(), &format!("{path}/_history?_count=2")).await;
    assert_eq!(page.body["entry"].as_array().unwrap().len(), 2);
    let next = super::link(&page.body, "next").unwrap();
    assert_eq!(
        get(&clinic, &program(), &next).await.body["entry"][0]["resource"]["name"][0]["family"],
        "New"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bed_stays_where_the_resource_names_none_and_is_never_shared() {
    let clinic = Clinic::furnished();
    let path = format!("/fhir/Patient/{}", patient(1));
    let mut known = get(&clinic, &program(), &path).await.body;
    known.as_object_mut().unwrap().remove("extension");
    known["name"][0]["family"] = json!("Moved");
    let updated = put(&clinic, &program(), &path, "W/\"1\"", &known).await;
    assert_eq!(updated.status, StatusCode::OK, "{}", updated.body);
    assert_eq!(clinic.site.registry().patient(patient(1)).unwrap().place, Some(bed(1)));
    assert_eq!(*clinic.site.registry().patient(patient(1)).unwrap().family.expose(), "Moved");
    let mut taken = newcomer("H-2");
    taken["extension"] = json!([{ "url": "urn:auscult:place", "valueReference": { "reference": format!("Location/{}", bed(1)) } }]);
    let refused = post(&clinic, &program(), "/fhir/Patient", &taken).await;
    assert_eq!((refused.status, issue(&refused).0), (StatusCode::CONFLICT, "conflict"), "{}", refused.body);
    // The bed of another ward is none of a nurse's.
    let nurse = clinic.sign_in("nurse").await;
    taken["extension"][0]["valueReference"]["reference"] = json!(format!("Location/{}", bed(2)));
    let refused = clinic.post("/fhir/Patient", &nurse, taken).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.body);
    let other =
        clinic.call(Method::PUT, &format!("/fhir/Patient/{}", patient(2)), Some(&nurse), Some(known)).await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_found_by_their_identifiers() {
    let clinic = Clinic::furnished();
    let header = [("if-none-exist", "identifier=urn:hospital|H-3")];
    let body = newcomer("H-3").to_string();
    let first = post_with(&clinic, &program(), "/fhir/Patient", body.clone(), &header).await;
    let again = post_with(&clinic, &program(), "/fhir/Patient", body, &header).await;
    assert_eq!((first.status, again.status), (StatusCode::CREATED, StatusCode::OK), "{}", again.body);
    assert_eq!(first.body["id"], again.body["id"]);
    // A patient of the desk goes by the record number; the same number twice is no new patient.
    let header = [("if-none-exist", "identifier=urn:auscult:record-number|MRN-1")];
    let known = post_with(&clinic, &program(), "/fhir/Patient", newcomer("x").to_string(), &header).await;
    assert_eq!((known.status, known.body["id"].as_str()), (StatusCode::OK, Some(&*patient(1).to_string())));
    let twice = post(&clinic, &program(), "/fhir/Patient", &newcomer("H-3")).await;
    assert_eq!((twice.status, issue(&twice).0), (StatusCode::CONFLICT, "duplicate"), "{}", twice.body);
    // A conditional update finds it, and the identifiers move with the resource.
    let mut moved = newcomer("H-4");
    moved["name"][0]["family"] = json!("Found");
    let path = "/fhir/Patient?identifier=urn:hospital%7CH-3";
    let updated = send(&clinic, &program(), Method::PUT, path, &[], Some(&moved)).await;
    assert_eq!(
        (updated.status, &updated.body["id"]),
        (StatusCode::OK, &first.body["id"]),
        "{}",
        updated.body
    );
    let other = send(&clinic, &program(), Method::PUT, path, &[], Some(&newcomer("H-3"))).await;
    assert_eq!(other.status, StatusCode::CREATED, "H-3 is free again: {}", other.body);
    assert_ne!(other.body["id"], first.body["id"]);
    // Somebody else's patient is not shown to whoever knows the number.
    let nurse = clinic.sign_in("nurse").await;
    let mut request = axum::http::Request::post("/fhir/Patient")
        .header("content-type", super::FHIR_JSON)
        .header("cookie", &nurse)
        .header("if-none-exist", "identifier=urn:auscult:record-number|MRN-2");
    request = request.header("x-auscult", "1");
    let refused = clinic.send(request.body(newcomer("y").to_string().into()).unwrap()).await;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED, "{}", refused.body);
    assert!(!refused.body.to_string().contains(&patient(2).to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_registered_assigned_and_changed() {
    let clinic = Clinic::furnished();
    let mut sent = json!({
        "resourceType": "Device",
        "identifier": [{ "system": "urn:fleet", "value": "D-1" }],
        "manufacturer": "Maker",
        "modelNumber": "M1",
        "serialNumber": "77",
        "deviceName": [{ "name": "Oximeter 77", "type": "user-friendly-name" }],
        "note": [{ "text": "a loan" }],
        "patient": { "reference": format!("Patient/{}", patient(1)) },
    });
    let made = post(&clinic, &program(), "/fhir/Device", &sent).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let id: clinical_model::DeviceId = made.body["id"].as_str().unwrap().parse().unwrap();
    let path = format!("/fhir/Device/{id}");
    let now = clinic.site.clock().now();
    assert_eq!(clinic.site.registry().subject_at(id, now), Some(Subject::Patient(patient(1))));
    let read = get(&clinic, &program(), &path).await;
    assert_eq!((&read.body["note"][0]["text"], &read.body["patient"]), (&json!("a loan"), &sent["patient"]));
    // The desk changes what it knows of; what was sent besides stays.
    let device = clinic.site.registry().device(id).unwrap();
    let renamed =
        clinical_model::Device { name: "Oximeter 78".into(), ..clinical_model::Device::clone(&device) };
    clinic.site.update_device(store::Actor::System, renamed, 1).unwrap();
    let read = get(&clinic, &program(), &path).await;
    assert_eq!(read.body["deviceName"][0]["name"], "Oximeter 78", "{}", read.body);
    assert_eq!(read.body["note"][0]["text"], "a loan");
    assert_eq!(read.body["meta"]["versionId"], "2");
    // Handed to the next patient from now on; left out, it stays where it is.
    clinic.clock.advance(60);
    sent["id"] = json!(id.to_string());
    sent["patient"]["reference"] = json!(format!("Patient/{}", patient(2)));
    let moved = put(&clinic, &program(), &path, "W/\"2\"", &sent).await;
    assert_eq!(moved.status, StatusCode::OK, "{}", moved.body);
    let now = clinic.site.clock().now();
    assert_eq!(clinic.site.registry().subject_at(id, now), Some(Subject::Patient(patient(2))));
    let earlier = now.minus(std::time::Duration::from_secs(30));
    assert_eq!(clinic.site.registry().subject_at(id, earlier), Some(Subject::Patient(patient(1))));
    sent.as_object_mut().unwrap().remove("patient");
    let kept = put(&clinic, &program(), &path, "W/\"3\"", &sent).await;
    assert_eq!(kept.body["patient"]["reference"], format!("Patient/{}", patient(2)), "{}", kept.body);
    for (name, value) in [("patient", "Patient/x"), ("patient", &*format!("Patient/{}", patient(9)))] {
        sent[name] = json!({ "reference": value });
        let refused = put(&clinic, &program(), &path, "W/\"4\"", &sent).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{value} {}", refused.body);
    }
    assert_eq!(
        get(&clinic, &program(), &format!("/fhir/Device/{}/_history", monitor(1))).await.body["total"],
        2,
        "registered, and assigned"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_of_a_device_before_it_was_handed_on_is_not_written_back() {
    let clinic = Clinic::furnished();
    let path = format!("/fhir/Device/{}", monitor(1));
    let seen = get(&clinic, &program(), &path).await;
    let etag = super::text(&seen.headers, "etag").to_owned();
    clinic.clock.advance(60);
    let (now, actor) = (clinic.site.clock().now(), || store::Actor::System);
    clinic.site.end_assignment(actor(), crate::clinic::assigned(1), now).unwrap();
    clinic.clock.advance(60);
    let handed_on = clinical_model::Assignment {
        id: clinical_model::AssignmentId::from_bytes([0x77; 16]),
        device: monitor(1),
        subject: Subject::Patient(patient(2)),
        interval: clinical_model::Interval::since(clinic.site.clock().now()),
    };
    clinic.site.assign(actor(), handed_on).unwrap();
    let headers = [("if-none-match", etag.as_str())];
    let again = super::send(&clinic, &program(), axum::http::Method::GET, &path, &headers, None).await;
    assert_eq!(again.status, StatusCode::OK, "it is another patient's now");
    assert_eq!(again.body["patient"]["reference"], format!("Patient/{}", patient(2)));
    let stale = put(&clinic, &program(), &path, &etag, &seen.body).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED, "{}", stale.body);
    let now = clinic.site.clock().now();
    assert_eq!(clinic.site.registry().subject_at(monitor(1), now), Some(Subject::Patient(patient(2))));
}
