//! Transactions are taken whole or not at all; batches entry by entry.

use axum::http::StatusCode;
use clinical_model::{Subject, measure};
use serde_json::{Value, json};
use store::{Order, RangeQuery, SeriesFilter};

use super::{at, get, heart_rate, issue, post, program};
use crate::clinic::{Clinic, monitor, patient};

fn bundle(kind: &str, resources: &[Value]) -> Value {
    let entry =
        |resource: &Value| json!({"resource": resource, "request": {"method": "POST", "url": "Observation"}});
    json!({"resourceType": "Bundle", "type": kind, "entry": resources.iter().map(entry).collect::<Vec<_>>()})
}

fn kept(clinic: &Clinic) -> usize {
    let store = clinic.site.store();
    let filter = SeriesFilter { measures: vec![measure::HEART_RATE], ..SeriesFilter::default() };
    let range = RangeQuery { from: at(-100_000), to: at(100_000), order: Order::Ascending, limit: 10_000 };
    store.series(&filter).unwrap().iter().map(|series| store.readings(series, &range).unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_committed_together() {
    let clinic = Clinic::furnished();
    let resources: Vec<Value> =
        (0..50).map(|n| heart_rate(monitor(1), Some(patient(1)), at(-100 + n), "72")).collect();
    let before = clinic.site.store().last_group();
    let answer = post(&clinic, &program(), "/fhir", &bundle("transaction", &resources)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.body["type"], "transaction-response");
    let entries = answer.body["entry"].as_array().unwrap();
    assert_eq!(entries.len(), 50);
    assert!(entries.iter().all(|entry| entry["response"]["status"] == "201 Created"), "{}", answer.body);
    assert_eq!(clinic.site.store().last_group(), before + 1, "one group");
    let location = entries[7]["response"]["location"].as_str().unwrap();
    let path = format!("/fhir/{}", location.strip_suffix("/_history/1").unwrap());
    let read = get(&clinic, &program(), &path).await;
    assert_eq!(read.body["effectiveDateTime"], at(-93).to_rfc3339());

    let again = post(&clinic, &program(), "/fhir", &bundle("transaction", &resources)).await;
    assert!(
        again.body["entry"].as_array().unwrap().iter().all(|entry| entry["response"]["status"] == "200 OK")
    );
    assert_eq!(kept(&clinic), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_entry_refuses_a_transaction() {
    let clinic = Clinic::furnished();
    let good = |n: i64| heart_rate(monitor(1), Some(patient(1)), at(-100 + n), "72");
    let mut no_code = good(5);
    no_code.as_object_mut().unwrap().remove("code");
    let bad: Vec<(&str, Value)> = vec![
        ("impossible", heart_rate(monitor(1), Some(patient(1)), at(-5), "7200")),
        ("another patient", heart_rate(monitor(1), Some(patient(2)), at(-5), "72")),
        ("another device", heart_rate(monitor(2), Some(patient(2)), at(-5), "72")),
        ("invalid", no_code),
    ];
    for (name, bad) in bad {
        let answer =
            post(&clinic, &program(), "/fhir", &bundle("transaction", &[good(1), bad, good(2)])).await;
        assert!(answer.status.is_client_error(), "{name}: {} {}", answer.status, answer.body);
        let (_, _) = issue(&answer);
        let place = answer.body["issue"][0]["expression"][0].as_str().unwrap();
        assert!(place.starts_with("Bundle.entry[1]"), "{name}: {place}");
    }
    assert_eq!(kept(&clinic), 0);
    assert_eq!(clinic.site.store().quarantine_count().items, 0);
    let mut put = bundle("transaction", &[good(1)]);
    put["entry"][0]["request"] = json!({"method": "PUT", "url": "Observation/x"});
    let answer = post(&clinic, &program(), "/fhir", &put).await;
    assert_eq!((answer.status, issue(&answer).0), (StatusCode::BAD_REQUEST, "not-supported"));
    let mut conditional = bundle("transaction", &[good(1)]);
    conditional["entry"][0]["request"]["ifNoneExist"] = json!("identifier=a|b");
    let answer = post(&clinic, &program(), "/fhir", &conditional).await;
    assert_eq!((answer.status, issue(&answer).0), (StatusCode::BAD_REQUEST, "not-supported"));
    let answer = post(&clinic, &program(), "/fhir", &bundle("history", &[good(1)])).await;
    assert!(answer.status.is_client_error());
    assert_eq!(kept(&clinic), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_of_a_batch_stands_by_itself() {
    let clinic = Clinic::furnished();
    let mut no_code = heart_rate(monitor(1), None, at(-5), "72");
    no_code.as_object_mut().unwrap().remove("code");
    let resources = [
        heart_rate(monitor(1), Some(patient(1)), at(-10), "72"),
        no_code,
        heart_rate(monitor(2), Some(patient(2)), at(-10), "80"),
        heart_rate(monitor(1), Some(patient(1)), at(-9), "7200"),
        heart_rate(monitor(1), Some(patient(2)), at(-8), "72"),
        heart_rate(monitor(1), Some(patient(1)), at(-10), "72"),
    ];
    let answer = post(&clinic, &program(), "/fhir", &bundle("batch", &resources)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let statuses: Vec<u16> = answer.body["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["response"]["status"].as_str().unwrap()[..3].parse().unwrap())
        .collect();
    assert_eq!((&statuses[..5]), [201, 422, 201, 202, 422], "{}", answer.body);
    let location = |n: usize| &answer.body["entry"][n]["response"]["location"];
    assert_eq!(location(0), location(5), "a repeat has the same address");
    assert_eq!(kept(&clinic), 2);
    assert_eq!(clinic.site.store().quarantine_count().items, 1);
    assert_eq!(clinic.site.store().latest(Subject::Patient(patient(2))).unwrap().len(), 1);
}
