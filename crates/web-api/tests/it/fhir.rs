//! FHIR REST over a real site: what is asked on the device port by programs and devices, and on the web port by people.

mod bundles;
mod correcting;
mod costs;
mod creating;
mod enumerating;
mod guarding;
mod linking;
pub mod operating;
mod racing;
mod reading;
mod records;
mod registering;
mod searching;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, header};
use clinical_model::{DeviceId, PatientId, Timestamp};
use http_body_util::BodyExt as _;
use pipeline::{Peer, PeerCertificate};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use web_api::{DevicePeer, device_router};

use crate::clinic::{Answer, Clinic, START_S};

pub const FHIR_JSON: &str = "application/fhir+json";

pub fn program() -> Peer {
    Peer::Program("ehr".into())
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_seconds(START_S + second)
}

/// Asks on the device port, as a peer whose certificate was admitted.
pub async fn ask(clinic: &Clinic, peer: &Peer, mut request: Request<Body>) -> Answer {
    let certificate =
        PeerCertificate { uri: "urn:test".into(), serial_hex: "01".into(), common_name: "test".into() };
    request.extensions_mut().insert(DevicePeer { certificate, peer: peer.clone() });
    let response = device_router(&clinic.web).oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    assert_valid(&body);
    Answer { status, headers, body }
}

/// Whatever is answered is valid FHIR, as far as our validator knows its type.
pub fn assert_valid(body: &Value) {
    let resources = match body["resourceType"].as_str() {
        Some("Bundle") => {
            body["entry"].as_array().into_iter().flatten().map(|entry| &entry["resource"]).collect()
        }
        _ => vec![body],
    };
    let is_whole = |resource: &&Value| resource["meta"]["tag"][0]["code"] != "SUBSETTED";
    for resource in resources.into_iter().filter(is_whole) {
        if matches!(
            resource["resourceType"].as_str(),
            Some("Observation" | "Patient" | "Device" | "AuditEvent")
        ) {
            let issues = health_codecs::fhir::validate::resource(resource);
            assert!(issues.is_empty(), "{issues:?} in {resource}");
        }
    }
}

pub async fn get(clinic: &Clinic, peer: &Peer, path: &str) -> Answer {
    ask(clinic, peer, Request::get(path).body(Body::empty()).unwrap()).await
}

pub async fn post_with(
    clinic: &Clinic,
    peer: &Peer,
    path: &str,
    body: impl Into<Body>,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = Request::builder().method(Method::POST).uri(path);
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header(header::CONTENT_TYPE, FHIR_JSON);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(clinic, peer, request.body(body.into()).unwrap()).await
}

/// Any method with a body of FHIR JSON.
pub async fn send(
    clinic: &Clinic,
    peer: &Peer,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, FHIR_JSON);
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    ask(clinic, peer, request.body(body).unwrap()).await
}

pub async fn put(clinic: &Clinic, peer: &Peer, path: &str, etag: &str, body: &Value) -> Answer {
    send(clinic, peer, Method::PUT, path, &[("if-match", etag)], Some(body)).await
}

pub async fn post(clinic: &Clinic, peer: &Peer, path: &str, body: &Value) -> Answer {
    post_with(clinic, peer, path, body.to_string(), &[]).await
}

/// A heart rate as a program sends it.
pub fn heart_rate(device: DeviceId, subject: Option<PatientId>, at: Timestamp, value: &str) -> Value {
    let mut observation = json!({
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "device": {"reference": format!("Device/{device}")},
        "effectiveDateTime": at.to_rfc3339(),
        "valueQuantity": {
            "value": serde_json::from_str::<Value>(value).unwrap(),
            "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"
        },
    });
    if let Some(subject) = subject {
        observation["subject"] = json!({"reference": format!("Patient/{subject}")});
    }
    observation
}

pub fn ids(bundle: &Value) -> Vec<String> {
    bundle["entry"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["search"]["mode"] == "match")
        .map(|entry| entry["resource"]["id"].as_str().unwrap().to_owned())
        .collect()
}

pub fn link(bundle: &Value, relation: &str) -> Option<String> {
    let links = bundle["link"].as_array()?;
    let found = links.iter().find(|link| link["relation"] == relation)?;
    let url = found["url"].as_str()?;
    Some(url[url.find("/fhir").unwrap()..].to_owned())
}

pub fn issue(answer: &Answer) -> (&str, &str) {
    assert_eq!(answer.body["resourceType"], "OperationOutcome", "{}", answer.body);
    let issue = &answer.body["issue"][0];
    (issue["code"].as_str().unwrap(), issue["diagnostics"].as_str().unwrap_or(""))
}

pub fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}
