//! What one request may cost: beyond the bound it is refused, and says how to ask for less.

use axum::http::StatusCode;
use serde_json::{Value, json};
use web_api::CostLimits;

use super::{at, get, ids, issue, post, program};
use crate::clinic::{Clinic, monitor, patient};

#[tokio::test(flavor = "multi_thread")]
async fn a_has_that_looks_at_too_much_is_refused() {
    let limits = CostLimits { has_observations: 20, ..CostLimits::default() };
    let clinic = Clinic::furnished().with_costs(limits);
    for number in [1_u8, 2] {
        let entry = |n: i64| json!({"measure": "heart_rate", "value": 60 + n % 5, "unit": "/min", "time": at(n - 60).to_rfc3339()});
        let entries: Vec<Value> = (0..15).map(entry).collect();
        clinic.ingest(monitor(number), &json!(entries).to_string()).await;
    }
    let ask = async |query: &str| get(&clinic, &program(), &format!("/fhir/Patient?{query}")).await;
    // Nothing fits, so all thirty would be looked at.
    for has in ["value-quantity=gt200", "status=preliminary"] {
        let answer = ask(&format!("_has:Observation:patient:{has}")).await;
        assert_eq!((answer.status, issue(&answer).0), (StatusCode::BAD_REQUEST, "too-costly"), "{has}");
        let said = answer.body["issue"][0]["diagnostics"].to_string()
            + &answer.body["issue"][0]["details"].to_string();
        assert!(said.contains("more than 20 observations"), "{said}");
    }
    // What is found early costs little, and what a series alone answers costs nothing.
    for has in ["value-quantity=gt59", "code=8867-4"] {
        let answer = ask(&format!("_has:Observation:patient:{has}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{has}: {}", answer.body);
        assert_eq!(ids(&answer.body).len(), 2, "{has}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_a_type_with_too_many_versions_is_refused() {
    let clinic = Clinic::furnished();
    let made = get(&clinic, &program(), "/fhir/Patient/_history").await;
    let versions = usize::try_from(made.body["total"].as_u64().unwrap()).unwrap();
    assert!(versions >= 2, "{}", made.body);
    let limits = CostLimits { type_history_versions: versions, ..CostLimits::default() };
    let clinic = clinic.with_costs(limits);
    assert_eq!(get(&clinic, &program(), "/fhir/Patient/_history").await.status, StatusCode::OK);
    let new = json!({"resourceType": "Patient", "name": [{"family": "Third", "given": ["One"]}], "gender": "unknown",
        "identifier": [{"system": "urn:auscult:record-number", "value": "MRN-3"}]});
    let added = post(&clinic, &program(), "/fhir/Patient", &new).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.body);
    for page in ["", "?_count=1"] {
        let answer = get(&clinic, &program(), &format!("/fhir/Patient/_history{page}")).await;
        assert_eq!(
            (answer.status, issue(&answer).0),
            (StatusCode::BAD_REQUEST, "too-costly"),
            "{}",
            answer.body
        );
    }
    let one = get(&clinic, &program(), &format!("/fhir/Patient/{}/_history", patient(1))).await;
    assert_eq!(one.status, StatusCode::OK, "the history of one is there: {}", one.body);
}
