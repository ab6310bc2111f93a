//! Every act has its row in the transaction of what it did: where the row cannot be written, nothing was done. And the rows
//! say from where it was done, and by which policies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use clinical_model::{Subject, Timestamp};
use serde_json::json;
use store::{AuditAction, AuditOutcome, AuditQuery, AuditRecord, AuditRow};
use web_api::session::RemoteAddress;

use crate::clinic::{Answer, Clinic, monitor, patient};
use crate::fhir::{at, heart_rate, post, program};
use crate::kept::Refusing;

/// A clinic, and what makes its audit log fail.
fn clinic() -> (Clinic, Arc<AtomicBool>) {
    let refuse = Arc::new(AtomicBool::new(false));
    let also = Arc::clone(&refuse);
    (Clinic::furnished_over(|kept| Arc::new(Refusing::new(kept, also))), refuse)
}

/// Does something while nothing can be recorded.
async fn unrecorded(refuse: &AtomicBool, act: impl Future<Output = Answer>) {
    refuse.store(true, Ordering::SeqCst);
    let answer = act.await;
    refuse.store(false, Ordering::SeqCst);
    assert!(answer.status.is_server_error(), "{} {:?}", answer.status, answer.body);
}

async fn runs(clinic: &Clinic, cookie: &str) -> bool {
    clinic.get("/api/v1/account/sessions", cookie).await.status == StatusCode::OK
}

async fn count(clinic: &Clinic, cookie: &str) -> usize {
    let list = clinic.get("/api/v1/account/sessions", cookie).await.body;
    list["sessions"].as_array().unwrap().len()
}

/// The newest row of an action.
fn last(clinic: &Clinic, action: AuditAction, outcome: AuditOutcome) -> AuditRecord {
    let query =
        AuditQuery { actions: vec![action], outcome: Some(outcome), limit: 1, ..AuditQuery::default() };
    clinic.site.store().audit_rows(&query).unwrap().remove(0).record
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_out_that_cannot_be_recorded_leaves_the_session() {
    let (clinic, refuse) = clinic();
    let cookie = clinic.sign_in("nurse").await;
    unrecorded(&refuse, clinic.post("/api/v1/sign-out", &cookie, json!({}))).await;
    assert!(runs(&clinic, &cookie).await);
    assert_eq!(clinic.post("/api/v1/sign-out", &cookie, json!({})).await.status, StatusCode::OK);
    assert!(!runs(&clinic, &cookie).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_whose_end_cannot_be_recorded_run_on() {
    let (clinic, refuse) = clinic();
    let (here, there) = (clinic.sign_in("nurse").await, clinic.sign_in("nurse").await);
    let list = clinic.get("/api/v1/account/sessions", &here).await.body;
    let sessions = list["sessions"].as_array().unwrap();
    let other = sessions.iter().find(|one| one["is_current"] == false).unwrap()["id"].as_str().unwrap();
    let path = format!("/api/v1/account/sessions/{other}");
    unrecorded(&refuse, clinic.call(Method::DELETE, &path, Some(&here), None)).await;
    unrecorded(&refuse, clinic.post("/api/v1/account/sessions/end-others", &here, json!({}))).await;
    let admin = clinic.sign_in("administrator").await;
    let users = clinic.get("/api/v1/users", &admin).await.body;
    let nurse = users["users"].as_array().unwrap().iter().find(|one| one["name"] == "nurse").unwrap();
    let theirs = format!("/api/v1/users/{}/sessions", nurse["id"].as_str().unwrap());
    unrecorded(&refuse, clinic.call(Method::DELETE, &theirs, Some(&admin), None)).await;
    assert!(runs(&clinic, &here).await && runs(&clinic, &there).await);

    assert_eq!(clinic.call(Method::DELETE, &path, Some(&here), None).await.status, StatusCode::OK);
    assert!(runs(&clinic, &here).await && !runs(&clinic, &there).await);
    assert!(last(&clinic, AuditAction::SignOut, AuditOutcome::Success).detail.starts_with("own session "));
    assert_eq!(clinic.call(Method::DELETE, &theirs, Some(&admin), None).await.status, StatusCode::OK);
    assert!(!runs(&clinic, &here).await);
    assert!(last(&clinic, AuditAction::SignOut, AuditOutcome::Success).detail.starts_with("all of "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_cannot_be_recorded_begins_no_session() {
    let (clinic, refuse) = clinic();
    let cookie = clinic.sign_in("nurse").await;
    let begun = clinic.post("/api/v1/sign-in/passkey/begin", "", json!({})).await.body;
    let body = clinic.use_passkey("nurse", &begun);
    unrecorded(&refuse, clinic.post("/api/v1/sign-in/passkey", "", body)).await;
    assert_eq!(count(&clinic, &cookie).await, 1);
    clinic.sign_in("nurse").await;
    assert_eq!(count(&clinic, &cookie).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_that_cannot_be_recorded_counts_as_not_used() {
    let (clinic, refuse) = clinic();
    let cookie = clinic.sign_in("nurse").await;
    clinic.clock.advance(6 * 60);
    let fresh = async || clinic.get("/api/v1/session", &cookie).await.body["fresh_until"].clone();
    let before = fresh().await;
    let step_up = "/api/v1/step-up/totp";
    unrecorded(&refuse, clinic.post(step_up, &cookie, json!({"code": clinic.code()}))).await;
    assert_eq!(fresh().await, before);
    clinic.clock.advance(60);
    let answer = clinic.post(step_up, &cookie, json!({"code": clinic.code()})).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_ne!(fresh().await, before);
    let row = last(&clinic, AuditAction::SignIn, AuditOutcome::Success);
    assert!(row.detail.starts_with("by a code, again"), "{row:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn measurements_of_several_devices_are_recorded_with_the_decision_or_not_kept() {
    let (clinic, refuse) = clinic();
    let entry = |number| {
        let resource = heart_rate(monitor(number), Some(patient(number)), at(-10), "72");
        json!({"resource": resource, "request": {"method": "POST", "url": "Observation"}})
    };
    let body = json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry(1), entry(2)]});
    unrecorded(&refuse, post(&clinic, &program(), "/fhir", &body)).await;
    assert_eq!(clinic.site.finish_pending(Timestamp::MAX).unwrap(), 0, "nothing was decided");
    for number in [1, 2] {
        assert!(clinic.site.store().latest(Subject::Patient(patient(number))).unwrap().is_empty());
    }
    let answer = post(&clinic, &program(), "/fhir", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let query = AuditQuery { actions: vec![AuditAction::Create], limit: 100, ..AuditQuery::default() };
    let rows = clinic.site.store().audit_rows(&query).unwrap();
    let of = |number| {
        let is_it = |row: &&AuditRow| {
            row.record.object == "Observation" && row.record.patient == Some(patient(number))
        };
        rows.iter().filter(is_it).count()
    };
    assert_eq!((of(1), of(2)), (1, 1), "each once");
}

/// Asks as from an address.
async fn from(clinic: &Clinic, address: &str, cookie: &str, path: &str) -> Answer {
    let mut request = Request::get(path).header(header::COOKIE, cookie).body(Body::empty()).unwrap();
    request.extensions_mut().insert(RemoteAddress(address.parse().unwrap()));
    clinic.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_a_read_has_the_address_and_so_has_its_audit_event() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    for (address, path) in [
        ("203.0.113.9", format!("/api/v1/patients/{}", patient(1))),
        ("2001:db8::7", format!("/fhir/Patient/{}", patient(1))),
    ] {
        let answer = from(&clinic, address, &cookie, &path).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let row = last(&clinic, AuditAction::Read, AuditOutcome::Success);
        assert_eq!(row.address.as_deref(), Some(address), "whole: {row:?}");
        assert!(row.policies.is_empty(), "what is permitted day by day names none: {row:?}");
    }
    let auditor = clinic.sign_in("auditor").await;
    let events = clinic.get(&format!("/fhir/AuditEvent?patient=Patient/{}", patient(1)), &auditor).await.body;
    assert!(events.to_string().contains(r#""network":{"address":"203.0.113.9","type":"2"}"#), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_policy_that_decided() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("patient").await;
    for path in [format!("/api/v1/patients/{}", patient(2)), format!("/fhir/Patient/{}", patient(2))] {
        let answer = from(&clinic, "192.0.2.7", &cookie, &path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        let row = last(&clinic, AuditAction::Read, AuditOutcome::Refused);
        assert_eq!(row.policies, ["core.patients-see-themselves"], "{path}: {row:?}");
        assert_eq!(row.address.as_deref(), Some("192.0.2.7"));
    }
    let auditor = clinic.sign_in("auditor").await;
    let events = clinic.get("/fhir/AuditEvent?outcome=4", &auditor).await.body;
    assert!(events.to_string().contains("core.patients-see-themselves"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_glass_and_what_is_read_under_it_name_the_policies() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse 2").await;
    let body = json!({
        "record_number": "MRN-1", "birth_date": "1950-03-21", "reason": "emergency",
        "text": "resuscitation on the corridor",
    });
    let answer = clinic.post("/api/v1/break-glass", &cookie, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let row = last(&clinic, AuditAction::BreakGlass, AuditOutcome::Success);
    assert!(!row.policies.is_empty(), "{row:?}");
    assert_eq!((row.role.as_deref(), row.purpose.as_deref()), (Some("nurse"), Some("BTG")));
    let answer = clinic.get(&format!("/api/v1/patients/{}", patient(1)), &cookie).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let row = last(&clinic, AuditAction::Read, AuditOutcome::Success);
    assert!(row.break_glass.is_some() && !row.policies.is_empty(), "{row:?}");
}
