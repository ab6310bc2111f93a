//! What strangers do leaves a trace, and fills nothing.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::json;
use store::{AuditOutcome, AuditQuery};

use crate::clinic::Clinic;
use crate::oauth::TOKEN;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_credentials_fills_the_audit_log() {
    let mut clinic = Clinic::furnished();
    clinic.address = Some("203.0.113.9".parse().unwrap());
    let refused = |clinic: &Clinic| {
        let query =
            AuditQuery { outcome: Some(AuditOutcome::Refused), limit: 1_000, ..AuditQuery::default() };
        clinic.site.store().audit_rows(&query).unwrap()
    };
    for number in 0..40 {
        let link = json!({"token": format!("none-{number}")});
        let answer = clinic.post("/api/v1/sign-in/link", "", link).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        let asked = [("grant_type", "client_credentials"), ("client_id", "nobody")];
        assert_eq!(clinic.form(TOKEN, &asked).await.status, StatusCode::UNAUTHORIZED);
        let callback = Request::builder().uri("/api/v1/sign-in/oidc/callback?state=x").body(Body::empty());
        clinic.send(callback.unwrap()).await;
    }
    assert_eq!(refused(&clinic).len(), 30, "of 120");
    clinic.address = Some("203.0.113.10".parse().unwrap());
    clinic.post("/api/v1/sign-in/link", "", json!({"token": "none"})).await;
    assert_eq!(refused(&clinic).len(), 31, "another address");
    clinic.address = Some("203.0.113.9".parse().unwrap());
    clinic.clock.advance(2);
    clinic.post("/api/v1/sign-in/link", "", json!({"token": "none"})).await;
    let rows = refused(&clinic);
    assert!(rows[0].record.detail.contains("90 refusals from there"), "{}", rows[0].record.detail);
    let before = rows.len();
    for number in 0..40 {
        clinic.address = Some(format!("2001:db8:1:2::{number:x}").parse().unwrap());
        clinic.post("/api/v1/sign-in/link", "", json!({"token": "none"})).await;
    }
    assert_eq!(refused(&clinic).len(), before + 30, "a host has a whole network of IPv6");
    // Who has a passkey is let in all the same.
    clinic.sign_in("nurse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_of_the_pen_is_told() {
    let clinic = Clinic::furnished();
    let admin = clinic.sign_in("administrator").await;
    let admit = async |born: &str, number: &str| {
        let new = json!({
            "family": "A", "given": "B", "gender": "female", "record_number": number, "birth_date": born,
        });
        clinic.post("/api/v1/patients", &admin, new).await
    };
    let ahead = admit("2045-07-14", "MRN-8").await;
    assert_eq!(ahead.status, StatusCode::BAD_REQUEST);
    assert!(ahead.body["detail"].as_str().unwrap().contains("birth_date"), "{:?}", ahead.body);
    assert_eq!(admit("2026-11-22", "MRN-9").await.status, StatusCode::OK, "born today");
    let resource = json!({
        "resourceType": "Patient", "name": [{"family": "C", "given": ["D"]}], "birthDate": "2045-07-14",
        "identifier": [{"type": {"coding": [{
            "system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]}, "value": "MRN-10"}],
    });
    let sent = crate::fhir::post(&clinic, &crate::fhir::program(), "/fhir/Patient", &resource).await;
    assert_eq!(sent.status, StatusCode::UNPROCESSABLE_ENTITY, "{:?}", sent.body);
    assert!(sent.body.to_string().contains("Patient.birthDate"), "{:?}", sent.body);
    let ward = json!({"name": " ward 1 ", "kind": "ward"});
    let twice = clinic.call(Method::POST, "/api/v1/places", Some(&admin), Some(ward)).await;
    assert_eq!(twice.body["code"], "exists", "{:?}", twice.body);
}
