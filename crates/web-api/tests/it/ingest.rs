//! Device ingest over HTTPS: per-entry outcomes, refusals, idempotency keys, and the listener with real certificates.

mod keys;
pub mod listener;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use base64::Engine as _;
use clinical_model::{DeviceId, measure};
use pipeline::Peer;
use serde_json::json;
use store::{Order, RangeQuery, SeriesFilter};

use crate::clinic::{Answer, Clinic, monitor};
use crate::fhir::{ask, at, get, program};

pub const ENVELOPE: &str = "/ingest/v1/envelope";

pub fn reading(second: i64, value: u32) -> String {
    format!(r#"{{"measure":"heart_rate","value":{value},"unit":"/min","time":"{}"}}"#, at(second))
}

pub fn kept(clinic: &Clinic) -> usize {
    let store = clinic.site.store();
    let filter = SeriesFilter { measures: vec![measure::HEART_RATE], ..SeriesFilter::default() };
    let range = RangeQuery { from: at(-100_000), to: at(100_000), order: Order::Ascending, limit: 10_000 };
    store.series(&filter).unwrap().iter().map(|series| store.readings(series, &range).unwrap().len()).sum()
}

pub async fn send(
    clinic: &Clinic,
    peer: &Peer,
    path: &str,
    kind: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Answer {
    let mut request = Request::post(path).header(header::CONTENT_TYPE, kind);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(clinic, peer, request.body(body.into()).unwrap()).await
}

fn device() -> Peer {
    Peer::Device(monitor(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_of_an_envelope_has_an_outcome() {
    let clinic = Clinic::furnished();
    let body =
        format!("[{},{},{}]", reading(-10, 72), reading(-9, 7_200), r#"{"measure":"nothing","value":1}"#);
    let answer = send(&clinic, &device(), ENVELOPE, "application/json", &[], body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.body["group"], 1);
    let entries = answer.body["entries"].as_array().unwrap();
    let outcomes: Vec<&str> = entries.iter().map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["committed", "quarantined", "quarantined"]);
    assert_eq!((&entries[1]["reason"], &entries[2]["reason"]), (&json!("impossible"), &json!("undecodable")));
    let id = entries[0]["observations"][0].as_str().unwrap();
    let read = get(&clinic, &program(), &format!("/fhir/Observation/{id}")).await;
    assert_eq!(read.body["valueQuantity"]["value"].to_string(), "72");
    assert_eq!(clinic.site.store().quarantine_count().items, 2);
    // What cannot be read at all is kept whole.
    for bad in [&b"{"[..], b"\xff\xfe", b"[[[[[["] {
        let answer = send(&clinic, &device(), ENVELOPE, "application/json", &[], bad.to_vec()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.body["entries"][0]["reason"], "undecodable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gatt_frames_come_raw_or_in_json() {
    let clinic = Clinic::furnished();
    // Heart rate 72/min, flags 0.
    let path = "/ingest/v1/gatt/2A37";
    let raw = send(&clinic, &device(), path, "application/octet-stream", &[], vec![0x00, 72]).await;
    assert_eq!(
        (raw.status, &raw.body["entries"][0]["outcome"]),
        (StatusCode::OK, &json!("committed")),
        "{}",
        raw.body
    );
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let body = json!({"frames": [encode(&[0x00, 80]), encode(&[0x01])]}).to_string();
    let several = send(&clinic, &device(), path, "application/json", &[], body).await;
    let outcomes: Vec<&str> = several.body["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["committed", "quarantined"], "{}", several.body);
    for (path, kind, body) in [
        ("/ingest/v1/gatt/xyz", "application/octet-stream", "ab"),
        (path, "application/json", r#"{"frames":[]}"#),
        (path, "application/json", r#"{"frames":["?"]}"#),
        (path, "application/json", r#"{"frames":[],"more":1}"#),
        (path, "application/octet-stream", ""),
    ] {
        let answer = send(&clinic, &device(), path, kind, &[], body).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (StatusCode::BAD_REQUEST, &json!("bad-request")),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_without_the_scope_to_write_sends_nothing() {
    let clinic = Clinic::furnished();
    let hub = Peer::Program("hub".into());
    let gatt = "/ingest/v1/gatt/2a37";
    let told = async |path: &str, kind: &str, body: Vec<u8>| {
        let path = format!("{path}?device={}", monitor(1));
        send(&clinic, &hub, &path, kind, &[], body).await
    };
    let narrow = ["system/*.rs", "system/Patient.cruds", "system/Observation.cruds?category=laboratory"];
    for scope in [None].into_iter().chain(narrow.map(Some)) {
        // Without a registration a program reads.
        if let Some(scope) = scope {
            clinic.site.admission().set_program_scopes([("hub".to_owned(), vec![scope.to_owned()])]);
        }
        for answer in [
            told(ENVELOPE, "application/json", reading(-10, 72).into()).await,
            told(gatt, "application/octet-stream", vec![0x00, 72]).await,
        ] {
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{scope:?}: {}", answer.body);
            assert!(
                answer.body["detail"].as_str().unwrap().contains("system/Observation.c"),
                "{}",
                answer.body
            );
        }
    }
    assert_eq!(kept(&clinic), 0);
    clinic.site.admission().set_program_scopes([("hub".to_owned(), vec!["system/Observation.c".to_owned()])]);
    let answer = told(ENVELOPE, "application/json", reading(-10, 72).into()).await;
    assert_eq!((answer.status, kept(&clinic)), (StatusCode::OK, 1), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_for_whom() {
    let clinic = Clinic::furnished();
    let status = async |peer: &Peer, path: &str, headers: &[(&str, &str)]| {
        send(&clinic, peer, path, "application/json", headers, reading(-10, 72)).await.status
    };
    let other = format!("{ENVELOPE}?device={}", monitor(2));
    assert_eq!(status(&device(), &other, &[]).await, StatusCode::FORBIDDEN);
    assert_eq!(status(&program(), ENVELOPE, &[]).await, StatusCode::BAD_REQUEST);
    assert_eq!(status(&program(), &format!("{ENVELOPE}?device=x"), &[]).await, StatusCode::BAD_REQUEST);
    let unknown = DeviceId::from_bytes([0x99; 16]).to_string();
    assert_eq!(status(&program(), ENVELOPE, &[("x-auscult-device", &unknown)]).await, StatusCode::FORBIDDEN);
    assert_eq!(kept(&clinic), 0);
    let known = monitor(2).to_string();
    assert_eq!(status(&program(), ENVELOPE, &[("x-auscult-device", &known)]).await, StatusCode::OK);
    assert_eq!(status(&program(), &other, &[]).await, StatusCode::OK);
    assert_eq!(kept(&clinic), 1, "a repeat stores nothing new");
    // Without a certificate there is nobody.
    use tower::ServiceExt as _;
    let request =
        Request::post(ENVELOPE).header(header::CONTENT_TYPE, "application/json").body(Body::from("{}"));
    let response = web_api::device_router(&clinic.web).oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_refused() {
    let clinic = Clinic::furnished();
    let large = send(&clinic, &device(), ENVELOPE, "application/json", &[], vec![b' '; 10 << 20]).await;
    assert_eq!((large.status, &large.body["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too-large")));
    let kind = send(&clinic, &device(), ENVELOPE, "text/plain", &[], reading(-10, 72)).await;
    assert_eq!((kind.status, &kind.body["code"]), (StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!("media-type")));
    assert_eq!(kept(&clinic), 0);
    clinic.site.stop();
    let stopping = send(&clinic, &device(), ENVELOPE, "application/json", &[], reading(-10, 72)).await;
    assert_eq!(stopping.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(stopping.headers.get(header::RETRY_AFTER).unwrap(), "2");
}
