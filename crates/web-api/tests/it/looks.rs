//! Who has a patient before their eyes stands in a row of that patient: on boards, in lists and over live streams too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{Method, StatusCode};
use clinical_model::place::PlaceKind;
use clinical_model::{Assignment, Device, Interval, Patient, PatientId, Place, Private, Subject, Timestamp};
use serde_json::{Value, json};
use store::{Actor, AuditQuery, AuditRow};

use crate::clinic::{Clinic, START_S, assigned, bed, monitor, patient, ward};
use crate::kept::Refusing;
use crate::live::Reader;

fn heart_rate(value: u32, second: u32) -> String {
    format!(r#"{{"measure":"heart_rate","value":{value},"time":"2026-11-22T08:29:{second:02}Z"}}"#)
}

/// The rows of people about a patient, newest first.
fn rows(clinic: &Clinic, of: PatientId) -> Vec<AuditRow> {
    let query = AuditQuery { patient: Some(of), limit: 1_000, ..AuditQuery::default() };
    let mut rows = clinic.site.store().audit_rows(&query).unwrap();
    rows.retain(|row| matches!(row.record.actor, Actor::User(_)));
    rows
}

fn count(clinic: &Clinic, of: PatientId, object: &str) -> usize {
    rows(clinic, of).iter().filter(|row| row.record.object == object).count()
}

/// Raises an alert of the first patient.
async fn alarmed(clinic: &Clinic, cookie: &str) {
    let path = format!("/api/v1/patients/{}/limits", patient(1));
    let limits = json!({"limits": [{
        "measure": "heart_rate", "low": null, "high": 100.0, "priority": "high",
        "persistence_s": 0, "hysteresis": 0.0,
    }]});
    let answer = clinic.call(Method::PUT, &path, Some(cookie), Some(limits)).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    clinic.ingest(monitor(1), &heart_rate(190, 1)).await;
    crate::clinic::eventually("an alert", || clinic.site.live_chart(|chart| !chart.open_alerts().is_empty()))
        .await;
}

fn holds(body: &Value, id: PatientId) -> bool {
    body.to_string().contains(&id.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn boards_lists_and_streams_that_show_a_patient_are_rows_of_that_patient() {
    let clinic = Clinic::furnished();
    let nurse = clinic.sign_in("nurse").await;
    alarmed(&clinic, &nurse).await;
    for (path, object) in [
        (format!("/api/v1/wards/{}/board", ward(1)), "ward board"),
        ("/api/v1/patients".to_owned(), "Patient"),
        ("/api/v1/alerts?state=all".to_owned(), "Alert"),
        ("/api/v1/devices".to_owned(), "Device"),
    ] {
        let before = count(&clinic, patient(1), object);
        let answer = clinic.get(&path, &nurse).await;
        assert!(holds(&answer.body, patient(1)) && !answer.body.to_string().contains("Family2"), "{path}");
        assert_eq!(count(&clinic, patient(1), object), before + 1, "{path}");
        assert_eq!(count(&clinic, patient(2), object), 0, "{path}: nobody looked at the other");
    }
    let mut reader = Reader::open(&clinic, &format!("/api/v1/live?ward={}", ward(1)), &nurse, None).await;
    assert_eq!(count(&clinic, patient(1), "live events"), 0, "nothing was shown yet");
    clinic.ingest(monitor(1), &heart_rate(70, 2)).await;
    reader.until("vitals").await;
    assert_eq!(count(&clinic, patient(1), "live events"), 1);
    clinic.ingest(monitor(1), &heart_rate(71, 3)).await;
    reader.until("vitals").await;
    assert_eq!(count(&clinic, patient(1), "live events"), 1, "the look goes on");
    // And the patient sees all of them.
    let theirs = clinic.sign_in("patient").await;
    let seen = clinic.get("/api/v1/me/audit?limit=100", &theirs).await.body;
    for object in ["ward board", "Patient", "Alert", "Device", "live events"] {
        let of = |row: &&Value| row["object"] == object && row["actor"]["label"] == "nurse";
        assert!(seen["rows"].as_array().unwrap().iter().any(|row| of(&row)), "{object}: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_that_asks_again_and_again_writes_a_row_a_quarter_of_an_hour() {
    let clinic = Clinic::furnished();
    let nurse = clinic.sign_in("nurse").await;
    let board = format!("/api/v1/wards/{}/board", ward(1));
    for _ in 0..20 {
        assert_eq!(clinic.get(&board, &nurse).await.status, StatusCode::OK);
    }
    assert_eq!(count(&clinic, patient(1), "ward board"), 1);
    for minutes in 1..=32 {
        clinic.clock.advance(60);
        assert_eq!(clinic.get(&board, &nurse).await.status, StatusCode::OK, "minute {minutes}");
    }
    assert_eq!(count(&clinic, patient(1), "ward board"), 3, "after 15 and after 30 minutes");
    // Somebody else's look is another one.
    let physician = clinic.sign_in("physician").await;
    clinic.get(&board, &physician).await;
    assert_eq!(count(&clinic, patient(1), "ward board"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_records_who_comes_into_it_and_that_it_goes_on() {
    let clinic = Clinic::furnished();
    let nurse = clinic.sign_in("nurse").await;
    let path = format!("/api/v1/live?ward={}", ward(1));
    let mut reader = Reader::open(&clinic, &path, &nurse, None).await;
    clinic.ingest(monitor(2), &heart_rate(70, 1)).await;
    clinic.ingest(monitor(1), &heart_rate(70, 1)).await;
    reader.until("vitals").await;
    let of = |number| count(&clinic, patient(number), "live events");
    assert_eq!((of(1), of(2)), (1, 0));
    // Somebody is admitted to the ward.
    let actor = || Actor::System;
    let (place, third) = (bed(3), patient(3));
    let kind = PlaceKind::Bed;
    clinic
        .site
        .add_place(actor(), Place { id: place, name: "Bed 3".into(), kind, ward: Some(ward(1)) })
        .unwrap();
    let known = Patient::clone(&clinic.site.registry().patient(patient(1)).unwrap());
    let record_number = Private::new("MRN-3".to_owned());
    clinic
        .site
        .add_patient(actor(), Patient { id: third, record_number, place: Some(place), ..known })
        .unwrap();
    let device = Device::clone(&clinic.site.registry().device(monitor(1)).unwrap());
    clinic.site.add_device(actor(), Device { id: monitor(3), serial: "S3".into(), ..device }).unwrap();
    let interval = Interval::since(Timestamp::from_seconds(START_S - 3_600));
    let subject = Subject::Patient(third);
    clinic
        .site
        .assign(actor(), Assignment { id: assigned(3), device: monitor(3), subject, interval })
        .unwrap();
    clinic.ingest(monitor(3), &heart_rate(71, 2)).await;
    while reader.until("vitals").await.data["patient_id"] != third.to_string() {}
    assert_eq!((of(1), of(2), of(3)), (1, 0, 1));
    // An hour later the stream still goes on.
    for _ in 0..7 {
        clinic.clock.advance(600);
        assert_eq!(clinic.get("/api/v1/wards", &nurse).await.status, StatusCode::OK, "they are still there");
    }
    clinic.ingest(monitor(1), r#"{"measure":"heart_rate","value":72}"#).await;
    while reader.until("vitals").await.data["patient_id"] != patient(1).to_string() {}
    assert_eq!((of(1), of(3)), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_row_of_a_look_cannot_be_written_nothing_is_shown() {
    let refuse = Arc::new(AtomicBool::new(false));
    let also = Arc::clone(&refuse);
    let clinic = Clinic::furnished_over(|kept| Arc::new(Refusing::new(kept, also)));
    let nurse = clinic.sign_in("nurse").await;
    let mut reader = Reader::open(&clinic, &format!("/api/v1/live?ward={}", ward(1)), &nurse, None).await;
    assert!(reader.next().await.is_some(), "hello");
    refuse.store(true, Ordering::SeqCst);
    for path in
        [format!("/api/v1/wards/{}/board", ward(1)), "/api/v1/patients".into(), "/api/v1/alerts".into()]
    {
        let answer = clinic.get(&path, &nurse).await;
        assert!(answer.status.is_server_error() && !holds(&answer.body, patient(1)), "{path}");
    }
    clinic.ingest(monitor(1), &heart_rate(70, 1)).await;
    while let Some(seen) = reader.next().await {
        assert!(!holds(&seen.data, patient(1)), "{seen:?}");
    }
    refuse.store(false, Ordering::SeqCst);
    assert_eq!(clinic.get("/api/v1/patients", &nurse).await.status, StatusCode::OK);
    assert_eq!(count(&clinic, patient(1), "Patient"), 1);
}

/// What was typed in a search that found nobody, or several, is in a row of nobody, which outlives whom it was about.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_of_a_person_is_in_no_row_that_outlives_them() {
    let clinic = Clinic::furnished();
    let nurse = clinic.sign_in("nurse").await;
    let auditor = clinic.sign_in("auditor").await;
    for path in [
        "/api/v1/patients?query=Family1",
        "/api/v1/patients?query=fAMILY1%20",
        "/fhir/Patient?family=Family1&given=Nobody&_count=7",
        "/fhir/Patient?identifier=MRN-1&given=Nobody",
        "/fhir/Patient?name:exact=Family1",
        "/fhir/Observation?patient.family=Family1&code=8867-4",
        "/fhir/Observation?patient=Family1",
        "/fhir/Patient/Family1",
        "/fhir/Patient/Family1/_history",
        "/fhir/Patient/Family1/$everything",
        "/fhir/Patient?_id=MRN-1",
    ] {
        clinic.get(path, &nurse).await;
    }
    clinic.get("/api/v1/audit?actor=Family1", &auditor).await;
    let rows = clinic.site.store().audit_rows(&AuditQuery { limit: 1_000, ..AuditQuery::default() }).unwrap();
    let mut details: Vec<String> = rows
        .iter()
        .filter(|row| row.record.patient.is_none() && matches!(row.record.actor, Actor::User(_)))
        .map(|row| row.record.detail.clone())
        .collect();
    for detail in &details {
        let small = detail.to_lowercase();
        assert!(
            !small.contains("family1") && !small.contains("mrn-1") && !small.contains("nobody"),
            "{detail}"
        );
    }
    // The same text gives the same word, whatever its letters; closed words stay.
    let of_list: Vec<_> = details.iter().filter(|detail| detail.starts_with("query=#")).collect();
    assert_eq!((of_list.len(), of_list[0]), (2, of_list[1]));
    assert!(details.iter().any(|detail| detail.contains("&_count=7")), "{details:?}");
    details.retain(|detail| detail.contains("code=8867-4") && detail.contains("patient.family=#"));
    assert_eq!(details.len(), 1);
}

/// The badge of alerts followed all values of the site, and every patient read that somebody watched them.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_alerts_alone_looks_at_nobody_who_has_none() {
    let clinic = Clinic::furnished();
    let nurse = clinic.sign_in("nurse").await;
    let mut reader = Reader::open(&clinic, "/api/v1/live?only=alerts", &nurse, None).await;
    assert_eq!(reader.next().await.unwrap().name(), "hello");
    let physician = clinic.sign_in("physician").await;
    let mut of_values = Reader::open(&clinic, "/api/v1/live?only=vitals,devices", &physician, None).await;
    assert_eq!(of_values.next().await.unwrap().name(), "hello");
    clinic.ingest(monitor(1), &heart_rate(71, 0)).await;
    of_values.until("vitals").await;
    let of = |role: &str, object: &str| {
        let is_it = |row: &&AuditRow| row.record.object == object && row.record.role.as_deref() == Some(role);
        rows(&clinic, patient(1)).iter().filter(is_it).count()
    };
    assert_eq!((of("nurse", "live alerts"), of("physician", "live events")), (0, 1));
    alarmed(&clinic, &nurse).await;
    loop {
        let seen = reader.next().await.unwrap();
        assert!(matches!(seen.name(), "beat" | "alert"), "{seen:?}");
        if seen.name() == "alert" {
            break;
        }
    }
    assert_eq!((of("nurse", "live alerts"), of("physician", "live events")), (1, 1));
    assert_eq!(clinic.get("/api/v1/live?only=all", &nurse).await.status, StatusCode::BAD_REQUEST);
}
