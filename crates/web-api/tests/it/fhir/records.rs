//! Searching patients and devices, and the audit log as AuditEvents.

use axum::http::StatusCode;
use serde_json::Value;

use super::{get, ids, issue, link, program};
use crate::clinic::{Clinic, monitor, patient};

async fn found(clinic: &Clinic, path: &str) -> Value {
    let answer = get(clinic, &program(), path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn patients_are_found_by_what_is_known_of_them() {
    let clinic = Clinic::furnished();
    let all = [patient(1).to_string(), patient(2).to_string()];
    let check = async |query: &str, expected: &[String]| {
        assert_eq!(ids(&found(&clinic, &format!("/fhir/Patient?{query}")).await), expected, "{query}");
    };
    check("", &all).await;
    check("family=family1", &all[..1]).await;
    check("name=GIV", &all).await;
    check("family=F%C3%A1mily1", &all[..1]).await;
    check("given=given2&birthdate=1950-03-21", &all[1..]).await;
    check("identifier=MRN-2", &all[1..]).await;
    check("identifier=urn:auscult:record-number|MRN-1", &all[..1]).await;
    check("identifier=urn:other|MRN-1", &[]).await;
    check("gender=male", &[]).await;
    check(&format!("_id={}", all[0]), &all[..1]).await;
    let page = found(&clinic, "/fhir/Patient?_count=1").await;
    assert_eq!(ids(&page), all[..1]);
    let page = found(&clinic, &link(&page, "next").unwrap()).await;
    assert_eq!((ids(&page), link(&page, "next")), (all[1..].to_vec(), None));
    let cookie = clinic.sign_in("nurse").await;
    assert_eq!(ids(&clinic.get("/fhir/Patient", &cookie).await.body), all[..1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_found_by_serial_number_and_patient() {
    let clinic = Clinic::furnished();
    let serial = found(&clinic, "/fhir/Device?identifier=S2").await;
    assert_eq!(ids(&serial), [monitor(2).to_string()]);
    let path = format!("/fhir/Device?patient={}", patient(1));
    assert_eq!(ids(&found(&clinic, &path).await), [monitor(1).to_string()]);
    // Whose device it is stays hidden from another ward.
    let cookie = clinic.sign_in("nurse 2").await;
    assert_eq!(ids(&clinic.get(&path, &cookie).await.body).len(), 0);
    assert_eq!(ids(&clinic.get("/fhir/Device", &cookie).await.body).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_read_by_those_who_look_after_it() {
    let clinic = Clinic::furnished();
    clinic
        .ingest(
            monitor(1),
            r#"{"measure":"heart_rate","value":72,"unit":"/min","time":"2026-11-22T08:29:50Z"}"#,
        )
        .await;
    found(&clinic, &format!("/fhir/Observation?patient={}", patient(1))).await;
    let cookie = clinic.sign_in("auditor").await;
    let path = format!("/fhir/AuditEvent?patient={}&action=E&agent=ehr", patient(1));
    let bundle = clinic.get(&path, &cookie).await;
    assert_eq!(bundle.status, StatusCode::OK, "{}", bundle.body);
    super::assert_valid(&bundle.body);
    let event = &bundle.body["entry"][0]["resource"];
    assert_eq!(event["agent"][0]["who"]["display"], "ehr");
    assert_eq!(event["entity"][0]["what"]["reference"], format!("Patient/{}", patient(1)));
    let read = clinic.get(&format!("/fhir/AuditEvent/{}", event["id"].as_str().unwrap()), &cookie).await;
    assert_eq!(&read.body, event);
    let group = clinic.get("/fhir/AuditEvent/group-1", &cookie).await;
    assert_eq!(group.status, StatusCode::OK, "{}", group.body);
    super::assert_valid(&group.body);
    assert_eq!(group.body["agent"][0]["who"]["reference"], format!("Device/{}", monitor(1)));
    for id in ["group-2", "group-", "0", "01", "99999999999999999999"] {
        let answer = clinic.get(&format!("/fhir/AuditEvent/{id}"), &cookie).await;
        assert_eq!((answer.status, issue(&answer).0), (StatusCode::NOT_FOUND, "not-found"), "{id}");
    }
    // All of it, page by page, each row once.
    let mut next = Some("/fhir/AuditEvent?_count=7".to_owned());
    let mut seen: Vec<u64> = Vec::new();
    while let Some(path) = next {
        let page = clinic.get(&path, &cookie).await.body;
        super::assert_valid(&page);
        seen.extend(ids(&page).iter().map(|id| id.parse::<u64>().unwrap()));
        next = link(&page, "next");
    }
    let newest = seen[0];
    assert_eq!(seen, (1..=newest).rev().collect::<Vec<u64>>());
    let agent = format!("/fhir/AuditEvent?agent=ehr&patient={}", patient(1));
    assert_eq!(ids(&clinic.get(&agent, &cookie).await.body).len(), 1);
}
