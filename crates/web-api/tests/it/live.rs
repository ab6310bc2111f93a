//! Live events: ordered, resumable, scoped, and closed with the session.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode, header};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::clinic::{Clinic, monitor, patient, ward};

/// One event as a client reads it.
#[derive(Debug)]
pub struct Seen {
    name: String,
    id: String,
    pub data: Value,
}

impl Seen {
    pub fn name(&self) -> &str {
        &self.name
    }
}

pub struct Reader {
    stream: BodyDataStream,
    text: String,
}

impl Reader {
    pub async fn open(clinic: &Clinic, path: &str, cookie: &str, last: Option<&str>) -> Reader {
        let mut request = Request::get(path).header(header::COOKIE, cookie);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = clinic.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/event-stream"));
        Reader { stream: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    let value = block.lines().find_map(|line| line.strip_prefix(name));
                    value.unwrap_or_default().trim_start().to_owned()
                };
                let data = serde_json::from_str(&field("data:")).unwrap_or(Value::Null);
                return Some(Seen { name: field("event:"), id: field("id:"), data });
            }
            let chunk =
                tokio::time::timeout(Duration::from_secs(20), self.stream.next()).await.expect("an event")?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }

    /// The next event of a name; beats and others in between are passed over.
    pub async fn until(&mut self, name: &str) -> Seen {
        loop {
            let seen = self.next().await.expect("the stream goes on");
            if seen.name == name {
                return seen;
            }
        }
    }
}

fn heart_rate(value: u32, second: u32) -> String {
    format!(r#"{{"measure":"heart_rate","value":{value},"time":"2026-11-22T08:29:{second:02}Z"}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_its_ward_and_resumes_without_a_hole() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    let path = format!("/api/v1/live?ward={}", ward(1));
    let mut reader = Reader::open(&clinic, &path, &cookie, None).await;
    assert_eq!(reader.next().await.unwrap().name, "hello");
    clinic.ingest(monitor(2), &heart_rate(99, 1)).await;
    clinic.ingest(monitor(1), &heart_rate(60, 1)).await;
    let seen = reader.until("vitals").await;
    assert_eq!(
        seen.data["patient_id"],
        patient(1).to_string(),
        "the other ward's came first and is not shown"
    );
    assert_eq!(seen.data["vitals"][0]["value"], "60");
    drop(reader);
    for (value, second) in [(61, 2), (62, 3)] {
        clinic.ingest(monitor(1), &heart_rate(value, second)).await;
    }
    let mut reader = Reader::open(&clinic, &path, &cookie, Some(&seen.id)).await;
    assert_eq!(reader.until("vitals").await.data["vitals"][0]["value"], "61");
    assert_eq!(reader.until("vitals").await.data["vitals"][0]["value"], "62");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_of_another_run_or_garbage_is_answered_with_a_reset() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    for last in ["other-run.1", "garbage", "", ".", &format!("{}.999999", clinic.site.live().epoch())] {
        let mut reader = Reader::open(&clinic, "/api/v1/live", &cookie, Some(last)).await;
        let seen = reader.next().await.unwrap();
        assert_eq!(seen.name, "reset", "{last}");
        assert!(seen.data["position"].as_str().unwrap().starts_with(clinic.site.live().epoch()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_session() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    let mut reader =
        Reader::open(&clinic, &format!("/api/v1/live?patient={}", patient(1)), &cookie, None).await;
    reader.until("hello").await;
    clinic.post("/api/v1/sign-out", &cookie, json!({})).await;
    reader.until("signed-out").await;
    assert!(reader.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_costs_no_memory_and_is_told_to_start_again() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    let mut reader = Reader::open(&clinic, "/api/v1/live", &cookie, None).await;
    let hello = reader.until("hello").await;
    for items in 0..pipeline::live::RING_LIMIT_EVENTS as u64 + 500 {
        clinic.site.live().happened(pipeline::live::Happening::Quarantine { items });
    }
    drop(reader);
    let mut late = Reader::open(&clinic, "/api/v1/live", &cookie, Some(&hello.id)).await;
    assert_eq!(late.next().await.unwrap().name, "reset");
}
