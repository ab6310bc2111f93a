//! Reading single resources, the CapabilityStatement, and what must be refused.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use pipeline::Peer;
use serde_json::Value;
use store::{AuditOutcome, AuditQuery};
use web_api::access::Permission;
use web_api::fhir::interactions;

use super::{ask, at, get, heart_rate, issue, post, program, text};
use crate::clinic::{Clinic, bed, monitor, patient, ward};

pub(super) fn concrete(path: &str) -> String {
    path.replace("{id}", "00000000-0000-0000-0000-000000000000")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_capability_statement_lists_exactly_what_is_served() {
    let clinic = Clinic::furnished();
    let answer = get(&clinic, &program(), "/fhir/metadata").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body["fhirVersion"], "4.0.1");
    let mut listed: Vec<(String, String)> = Vec::new();
    for resource in answer.body["rest"][0]["resource"].as_array().unwrap() {
        let kind = resource["type"].as_str().unwrap();
        for interaction in resource["interaction"].as_array().into_iter().flatten() {
            listed.push((kind.to_owned(), interaction["code"].as_str().unwrap().to_owned()));
        }
        for operation in resource["operation"].as_array().into_iter().flatten() {
            listed.push((kind.to_owned(), format!("${}", operation["name"].as_str().unwrap())));
        }
    }
    let mut served: Vec<(String, String)> = interactions()
        .iter()
        .filter(|interaction| !interaction.resource.is_empty())
        .map(|interaction| (interaction.resource.to_owned(), interaction.code.to_owned()))
        .collect();
    listed.sort();
    served.sort();
    served.dedup();
    assert_eq!(listed, served);
    // Each of them is there, and nothing else is.
    for interaction in interactions() {
        let request = Request::builder().method(&interaction.method).uri(concrete(interaction.path));
        let answer = ask(&clinic, &program(), request.body(Body::empty()).unwrap()).await;
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{}", interaction.path);
        assert!(!issue_of(&answer.body).contains("nothing is served"), "{}", interaction.path);
    }
    for (method, path, status) in [
        (Method::DELETE, "/fhir/Patient/x", StatusCode::METHOD_NOT_ALLOWED),
        (Method::PUT, "/fhir/AuditEvent/x", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/fhir/Encounter", StatusCode::NOT_FOUND),
        (Method::GET, "/fhir/Observation/a/b", StatusCode::NOT_FOUND),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let answer = ask(&clinic, &program(), request).await;
        assert_eq!((answer.status, issue(&answer).0), (status, "not-supported"), "{path}");
    }
}

fn issue_of(body: &Value) -> String {
    body["issue"][0]["diagnostics"].as_str().unwrap_or("").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_without_a_session_or_certificate() {
    let clinic = Clinic::furnished();
    for interaction in interactions() {
        let request = || Request::builder().method(&interaction.method).uri(concrete(interaction.path));
        let open = interaction.permission == Permission::Open;
        let on_web = clinic.send(request().body(Body::empty()).unwrap()).await;
        let response = {
            use tower::ServiceExt as _;
            web_api::device_router(&clinic.web).oneshot(request().body(Body::empty()).unwrap()).await.unwrap()
        };
        for status in [on_web.status, response.status()] {
            assert_eq!(status == StatusCode::UNAUTHORIZED, !open, "{} {status}", interaction.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clinician_reads_their_patients_only_and_a_refusal_is_recorded() {
    let clinic = Clinic::furnished();
    let mut observations = Vec::new();
    for number in [1, 2] {
        let sent = heart_rate(monitor(number), Some(patient(number)), at(-10), "72");
        let made = post(&clinic, &program(), "/fhir/Observation", &sent).await;
        observations.push(made.body["id"].as_str().unwrap().to_owned());
    }
    let cookie = clinic.sign_in("nurse").await;
    let of = |number: usize| {
        [
            format!("/fhir/Patient/{}", patient(number as u8)),
            format!("/fhir/Observation/{}", observations[number - 1]),
        ]
    };
    for path in of(1) {
        let answer = clinic.get(&path, &cookie).await;
        assert_eq!(answer.status, StatusCode::OK, "{path} {}", answer.body);
        assert!(text(&answer.headers, "etag").starts_with("W/\""));
        assert_eq!(text(&answer.headers, "cache-control"), "no-store");
    }
    for path in of(2) {
        let answer = clinic.get(&path, &cookie).await;
        assert_eq!((answer.status, issue(&answer).0), (StatusCode::NOT_FOUND, "not-found"), "{path}");
        let query = AuditQuery { patient: Some(patient(2)), limit: 1, ..AuditQuery::default() };
        let rows = clinic.site.store().audit_rows(&query).unwrap();
        assert_eq!(rows[0].record.outcome, AuditOutcome::Refused, "{path}");
    }
    // The answer for what is not there is the same, word for word.
    let other = clinic.get(&of(2)[0], &cookie).await;
    let missing = clinic.get(&format!("/fhir/Patient/{}", patient(9)), &cookie).await;
    assert_eq!(other.body, missing.body);
    // And by search: nothing, and recorded as refused.
    let bundle = clinic.get(&format!("/fhir/Observation?patient={}", patient(2)), &cookie).await;
    assert_eq!((bundle.status, bundle.body["entry"].as_array()), (StatusCode::OK, None), "{}", bundle.body);
    let unknown = clinic.get(&format!("/fhir/Observation?patient={}", patient(9)), &cookie).await;
    assert_eq!((unknown.status, unknown.body["entry"].as_array()), (StatusCode::OK, None));
    let all = clinic.get("/fhir/Observation", &cookie).await;
    assert_eq!(super::ids(&all.body), vec![observations[0].clone()]);
    let by_id = format!("/fhir/Observation?_id={},{}", observations[0], observations[1]);
    assert_eq!(super::ids(&clinic.get(&by_id, &cookie).await.body), vec![observations[0].clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_without_the_permission_are_refused() {
    let clinic = Clinic::furnished();
    for role in web_api::Role::ALL {
        let cookie = clinic.sign_in(&crate::clinic::name_of(*role)).await;
        for interaction in interactions() {
            let path = concrete(interaction.path);
            let answer = clinic.call(interaction.method.clone(), &path, Some(&cookie), None).await;
            let may = crate::rights::holds(*role, interaction.permission);
            assert_eq!(answer.status != StatusCode::FORBIDDEN, may, "{role:?} {path} {}", answer.status);
        }
    }
    let device = Peer::Device(monitor(1));
    for interaction in interactions().iter().filter(|interaction| interaction.method == Method::GET) {
        let answer = get(&clinic, &device, &concrete(interaction.path)).await;
        let open = interaction.permission == Permission::Open;
        assert_eq!(answer.status == StatusCode::FORBIDDEN, !open, "{}", interaction.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ids_are_not_found() {
    let clinic = Clinic::furnished();
    for id in ["x", "%FF", "..%2f..", "00000000000000000000000000000000", "' OR 1=1", &"a".repeat(5_000), "0"]
    {
        for kind in ["Patient", "Device", "Location", "Observation", "AuditEvent"] {
            let path = format!("/fhir/{kind}/{}", id.replace(' ', "%20"));
            let answer = get(&clinic, &program(), &path).await;
            assert_eq!((answer.status, issue(&answer).0), (StatusCode::NOT_FOUND, "not-found"), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_with_their_version() {
    let clinic = Clinic::furnished();
    let patient = get(&clinic, &program(), &format!("/fhir/Patient/{}", patient(1))).await;
    assert_eq!(patient.body["name"][0]["family"], "Family1");
    assert_eq!(patient.body["meta"]["versionId"], "1");
    let device = get(&clinic, &program(), &format!("/fhir/Device/{}", monitor(1))).await;
    assert_eq!(device.body["patient"]["reference"], format!("Patient/{}", crate::clinic::patient(1)));
    let location = get(&clinic, &program(), &format!("/fhir/Location/{}", bed(1))).await;
    assert_eq!(location.body["partOf"]["reference"], format!("Location/{}", ward(1)));
    // One who may not read the chart learns no patient from a device.
    let cookie = clinic.sign_in("biomedical-engineer").await;
    let device = clinic.get(&format!("/fhir/Device/{}", monitor(1)), &cookie).await;
    assert_eq!((device.status, &device.body["patient"]), (StatusCode::OK, &Value::Null));
    // What is known already is not sent again.
    let etag = text(&patient.headers, "etag").to_owned();
    let path = format!("/fhir/Patient/{}", crate::clinic::patient(1));
    let request = Request::get(path).header("if-none-match", etag).body(Body::empty()).unwrap();
    assert_eq!(ask(&clinic, &program(), request).await.status, StatusCode::NOT_MODIFIED);
    let sent = heart_rate(monitor(1), Some(crate::clinic::patient(1)), at(-10), "72");
    let made = post(&clinic, &program(), "/fhir/Observation", &sent).await;
    let path = format!("/fhir/Observation/{}", made.body["id"].as_str().unwrap());
    let modified = text(&made.headers, "last-modified").to_owned();
    let before = "Sun, 06 Nov 1994 08:49:37 GMT".to_owned();
    for (name, value, status) in [
        ("if-none-match", "W/\"1\"".to_owned(), StatusCode::NOT_MODIFIED),
        ("if-none-match", "W/\"2\"".to_owned(), StatusCode::OK),
        ("if-modified-since", modified, StatusCode::NOT_MODIFIED),
        ("if-modified-since", before, StatusCode::OK),
    ] {
        let request = Request::get(&path).header(name, value).body(Body::empty()).unwrap();
        assert_eq!(ask(&clinic, &program(), request).await.status, status, "{name}");
    }
}
