//! POST Observation: what is taken, what is refused, and that a repeat stores nothing new.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::StatusCode;
use clinical_model::{Assignment, AssignmentId, Interval, QuarantineReason, Subject, UserId, measure};
use pipeline::Peer;
use serde_json::json;
use store::{Actor, AuditAction, AuditQuery, Order, RangeQuery, SeriesFilter};

use super::{at, get, heart_rate, issue, post, post_with, program, text};
use crate::clinic::{Clinic, monitor, patient};

fn kept_readings(clinic: &Clinic) -> usize {
    let store = clinic.site.store();
    let filter = SeriesFilter { measures: vec![measure::HEART_RATE], ..SeriesFilter::default() };
    let range = RangeQuery { from: at(-100_000), to: at(100_000), order: Order::Ascending, limit: 10_000 };
    store.series(&filter).unwrap().iter().map(|series| store.readings(series, &range).unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_creates_an_observation_and_reads_it_back() {
    let clinic = Clinic::furnished();
    let sent = heart_rate(monitor(1), Some(patient(1)), at(-10), "72.50");
    let made = post(&clinic, &program(), "/fhir/Observation", &sent).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let id = made.body["id"].as_str().unwrap();
    let location = text(&made.headers, "location");
    assert!(location.ends_with(&format!("/fhir/Observation/{id}/_history/1")), "{location}");
    assert_eq!(text(&made.headers, "etag"), "W/\"1\"");
    assert_eq!(text(&made.headers, "content-type"), "application/fhir+json");
    assert_eq!(made.body["valueQuantity"]["value"].to_string(), "72.50", "the digits are kept");
    assert_eq!(made.body["subject"]["reference"], format!("Patient/{}", patient(1)));

    let read = get(&clinic, &program(), &format!("/fhir/Observation/{id}")).await;
    assert_eq!(read.status, StatusCode::OK);
    assert_eq!(read.body, made.body);

    let again = post(&clinic, &program(), "/fhir/Observation", &sent).await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.body);
    assert_eq!(again.body["id"], made.body["id"]);
    assert_eq!(kept_readings(&clinic), 1);

    let query = AuditQuery { patient: Some(patient(1)), limit: 10, ..AuditQuery::default() };
    let rows = clinic.site.store().audit_rows(&query).unwrap();
    assert!(
        rows.iter().any(|row| row.record.action == AuditAction::Create && row.record.object == "Observation")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_equal_posts_at_once_store_one() {
    let clinic = Clinic::furnished();
    let sent = heart_rate(monitor(1), Some(patient(1)), at(-10), "72");
    let peer = program();
    let posts = (0..16).map(|_| post(&clinic, &peer, "/fhir/Observation", &sent));
    let answers = futures_util::future::join_all(posts).await;
    let ids: BTreeSet<&str> = answers.iter().map(|answer| answer.body["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1);
    assert!(answers.iter().all(|answer| answer.status.is_success()));
    assert_eq!(kept_readings(&clinic), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_sends_as_itself_only() {
    let clinic = Clinic::furnished();
    let own = Peer::Device(monitor(1));
    let mut unnamed = heart_rate(monitor(1), None, at(-10), "72");
    unnamed.as_object_mut().unwrap().remove("device");
    let made = post(&clinic, &own, "/fhir/Observation", &unnamed).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert_eq!(made.body["device"]["reference"], format!("Device/{}", monitor(1)));

    let other = heart_rate(monitor(2), None, at(-10), "72");
    let refused = post(&clinic, &own, "/fhir/Observation", &other).await;
    assert_eq!((refused.status, issue(&refused).0), (StatusCode::FORBIDDEN, "forbidden"));
    let unnamed = post(&clinic, &program(), "/fhir/Observation", &unnamed).await;
    assert_eq!((unnamed.status, issue(&unnamed).0), (StatusCode::UNPROCESSABLE_ENTITY, "required"));
    // A device does not read.
    let read = get(&clinic, &own, &format!("/fhir/Patient/{}", patient(1))).await;
    assert_eq!(read.status, StatusCode::FORBIDDEN);
    assert_eq!(kept_readings(&clinic), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_charted_to_another_than_the_assigned_patient() {
    let clinic = Clinic::furnished();
    let wrong = heart_rate(monitor(1), Some(patient(2)), at(-10), "72");
    let refused = post(&clinic, &program(), "/fhir/Observation", &wrong).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let (code, what) = issue(&refused);
    assert_eq!(code, "business-rule");
    assert!(what.contains(&format!("Patient/{}", patient(1))), "{what}");
    let from_device = post(&clinic, &Peer::Device(monitor(1)), "/fhir/Observation", &wrong).await;
    let (_, what) = issue(&from_device);
    assert!(!what.contains(&format!("Patient/{}", patient(1))), "a device is not told: {what}");
    assert_eq!(kept_readings(&clinic), 0);
    assert_eq!(clinic.site.store().quarantine_count().items, 0);
    assert!(clinic.site.store().latest(Subject::Patient(patient(2))).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_charted_waits_in_quarantine() {
    let clinic = Clinic::furnished();
    let impossible = heart_rate(monitor(1), Some(patient(1)), at(-10), "7200");
    let early = heart_rate(monitor(1), None, at(-7_200), "72");
    for (sent, reason) in [(impossible, "impossible"), (early, "unassigned")] {
        let kept = post(&clinic, &program(), "/fhir/Observation", &sent).await;
        assert_eq!(kept.status, StatusCode::ACCEPTED, "{}", kept.body);
        assert!(issue(&kept).1.contains(reason), "{}", kept.body);
    }
    assert_eq!(clinic.site.store().quarantine_count().items, 2);
    assert_eq!(kept_readings(&clinic), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_another_patient_stays_in_quarantine_when_it_is_run_again() {
    let clinic = Clinic::furnished();
    let early = at(-7_200);
    let sent = heart_rate(monitor(1), Some(patient(1)), early, "72");
    assert_eq!(post(&clinic, &program(), "/fhir/Observation", &sent).await.status, StatusCode::ACCEPTED);
    let id = clinic.site.store().quarantine(true, None, 1).unwrap()[0].id;
    // It turns out that the monitor was at another patient then.
    let assignment = Assignment {
        id: AssignmentId::from_bytes([0x77; 16]),
        device: monitor(1),
        subject: Subject::Patient(patient(2)),
        interval: Interval::between(
            early.minus(Duration::from_secs(60)),
            early.plus(Duration::from_secs(60)),
        ),
    };
    clinic.site.assign(Actor::System, assignment).unwrap();
    let user = UserId::from_bytes([1; 16]);
    let rerun = clinic.site.rerun(user, id).await.unwrap();
    assert!(matches!(rerun, pipeline::desk::Rerun::StillQuarantined { .. }), "{rerun:?}");
    let item = clinic.site.store().quarantined(id).unwrap().unwrap();
    assert_eq!(item.reason, QuarantineReason::WrongSubject);
    assert_eq!(kept_readings(&clinic), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_observation_are_refused() {
    let clinic = Clinic::furnished();
    let good = heart_rate(monitor(1), Some(patient(1)), at(-10), "72");
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut body = good.clone();
        change(&mut body);
        body.to_string().into_bytes()
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)).into_bytes();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("empty", Vec::new(), 400),
        ("no JSON", b"{".to_vec(), 400),
        ("invalid UTF-8", b"{\"resourceType\":\"Observation\",\"status\":\"\xff\"}".to_vec(), 400),
        ("deep", deep, 400),
        ("another resource", br#"{"resourceType":"Patient"}"#.to_vec(), 400),
        ("unknown element", changed(&|body| body["colour"] = json!("red")), 400),
        ("no status", changed(&|body| drop(body.as_object_mut().unwrap().remove("status"))), 422),
        ("bad unit", changed(&|body| body["valueQuantity"]["system"] = json!("urn:mine")), 422),
        ("unknown code", changed(&|body| body["code"]["coding"][0]["code"] = json!("0-0")), 422),
        ("a day is no time", changed(&|body| body["effectiveDateTime"] = json!("2026-11-22")), 422),
        ("entered in error", changed(&|body| body["status"] = json!("entered-in-error")), 422),
        ("unknown device", heart_rate(monitor(9), None, at(0), "72").to_string().into_bytes(), 422),
    ];
    for (name, body, status) in cases {
        let answer = post_with(&clinic, &program(), "/fhir/Observation", body, &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {}", answer.body);
        issue(&answer);
    }
    let large = vec![b' '; 10 << 20];
    let answer = post_with(&clinic, &program(), "/fhir/Observation", large, &[]).await;
    assert_eq!((answer.status, issue(&answer).0), (StatusCode::PAYLOAD_TOO_LARGE, "too-long"));
    assert_eq!(kept_readings(&clinic), 0);
    assert_eq!(clinic.site.store().quarantine_count().items, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_heeded_or_refused() {
    let clinic = Clinic::furnished();
    let sent = heart_rate(monitor(1), Some(patient(1)), at(-10), "72").to_string();
    let send = async |headers: &[(&str, &str)]| {
        post_with(&clinic, &program(), "/fhir/Observation", sent.clone(), headers).await
    };
    assert_eq!(send(&[("content-type", "text/plain")]).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(send(&[("accept", "application/fhir+xml")]).await.status, StatusCode::NOT_ACCEPTABLE);
    let conditional = send(&[("if-none-exist", "code=8867-4")]).await;
    assert_eq!((conditional.status, issue(&conditional).0), (StatusCode::BAD_REQUEST, "not-supported"));
    assert_eq!(kept_readings(&clinic), 0);

    let minimal =
        send(&[("prefer", "return=minimal"), ("content-type", "application/json; charset=utf-8")]).await;
    assert_eq!((minimal.status, minimal.body), (StatusCode::CREATED, serde_json::Value::Null));
    let outcome = send(&[("prefer", "respond-async, return=OperationOutcome")]).await;
    assert_eq!(outcome.status, StatusCode::OK);
    issue(&outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_do_not_send_measurements() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    let sent = heart_rate(monitor(1), Some(patient(1)), at(-10), "72");
    let answer = clinic.post("/fhir/Observation", &cookie, sent).await;
    assert_eq!((answer.status, issue(&answer).0), (StatusCode::FORBIDDEN, "forbidden"));
}
