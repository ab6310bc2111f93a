//! Downloads: few at one time, and one that nobody reads costs the others nothing.

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use pipeline::audited::Act;
use store::{Actor, AuditAction};
use tower::ServiceExt as _;
use web_api::Role;

use crate::clinic::{Clinic, patient, ward};

/// Threads for what blocks: fewer than the downloads that stall.
const THREADS: usize = 4;
const ROWS: usize = 6_000;

async fn begun(clinic: &Clinic, path: &str, cookie: &str) -> axum::response::Response {
    let request = Request::get(path).header(header::COOKIE, cookie).body(Body::empty()).unwrap();
    clinic.router.clone().oneshot(request).await.unwrap()
}

/// A clinic whose audit log takes many parts to download.
fn clinic() -> Clinic {
    let clinic = Clinic::furnished();
    let act = Act::new(Actor::System, AuditAction::Read, "x").patient(patient(1)).detail("y".repeat(200));
    clinic.site.read_each(vec![act; ROWS], |_| Ok(())).unwrap();
    clinic
}

#[test]
fn stalled_downloads_hold_no_thread_and_each_person_gets_few() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(THREADS)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let clinic = clinic();
        let (mut stalled, mut cookies) = (Vec::new(), Vec::new());
        for number in 0..5 {
            let name = format!("auditor {number}");
            clinic.add_user(&name, Role::Auditor, None);
            cookies.push(clinic.sign_in(&name).await);
        }
        let path = "/api/v1/audit/export?format=ndjson";
        for cookie in &cookies[..4] {
            for _ in 0..4 {
                let mut body = begun(&clinic, path, cookie).await.into_body().into_data_stream();
                assert!(!body.next().await.unwrap().unwrap().is_empty(), "the first part");
                stalled.push(body);
            }
            let answer = clinic.get(path, cookie).await;
            assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "a fifth of one person");
            assert!(answer.body["detail"].as_str().unwrap().contains("you have 4 downloads"));
            assert_eq!(answer.headers[header::RETRY_AFTER], "5");
        }
        let answer = clinic.get(path, &cookies[4]).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "a seventeenth of the site");
        let theirs = clinic.sign_in("patient").await;
        let record = format!("/api/v1/patients/{}/export/record.ndjson", patient(1));
        assert_eq!(clinic.get(&record, &theirs).await.status, StatusCode::TOO_MANY_REQUESTS);
        let before = clinic.get(&format!("/api/v1/patients/{}/export", patient(1)), &theirs).await;
        assert_eq!(before.status, StatusCode::TOO_MANY_REQUESTS, "said before the download, too");
        assert_eq!(clinic.get("/fhir/$export-file/x.0", &theirs).await.status, StatusCode::TOO_MANY_REQUESTS);

        let nurse = clinic.sign_in("nurse").await;
        let board = format!("/api/v1/wards/{}/board", ward(1));
        assert_eq!(clinic.get(&board, &nurse).await.status, StatusCode::OK, "nobody else waits");

        // One that is broken off makes room, and one that was stalled goes on where it was.
        stalled.pop();
        let whole = begun(&clinic, path, &cookies[4]).await.into_body().collect().await.unwrap();
        assert!(whole.to_bytes().iter().filter(|byte| **byte == b'\n').count() > ROWS);
        let rest: Vec<Bytes> = stalled.remove(0).map(Result::unwrap).collect().await;
        let lines = rest.concat().iter().filter(|byte| **byte == b'\n').count();
        assert!(lines > ROWS - 1_000 && lines < ROWS + 200, "{lines}");
    });
}

/// It went on for hours for whoever had been disabled meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_ends_with_the_session_of_whoever_asked() {
    let clinic = clinic();
    clinic.add_user("auditor 0", Role::Auditor, None);
    let cookie = clinic.sign_in("auditor 0").await;
    let mut body =
        begun(&clinic, "/api/v1/audit/export?format=csv", &cookie).await.into_body().into_data_stream();
    assert!(!body.next().await.unwrap().unwrap().is_empty(), "the first part");
    clinic.post("/api/v1/sign-out", &cookie, serde_json::json!({})).await;
    let rest: Vec<_> = futures_util::StreamExt::collect(body).await;
    assert!(rest.len() == 1 && rest[0].is_err(), "{} parts", rest.len());
}
