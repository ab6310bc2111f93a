//! Keys, retention, erasure and the taking out of a record, as a person does them.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::clinic::{Clinic, eventually, monitor, patient};

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_takes_a_record_out_and_erases_it() {
    let clinic = Clinic::furnished();
    clinic
        .ingest(monitor(1), r#"[{"measure":"heart_rate","value":72},{"measure":"heart_rate","value":190}]"#)
        .await;
    let cookie = clinic.sign_in("administrator").await;
    let path = |rest: &str| format!("/api/v1/patients/{}/{rest}", patient(1));

    let lines = clinic.text(&path("export/record.ndjson"), &cookie).await;
    let kinds: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["resourceType"].to_string())
        .collect();
    for kind in ["Patient", "Device", "Location", "Observation", "AuditEvent"] {
        assert!(kinds.iter().any(|one| one.contains(kind)), "{kind}: {kinds:?}");
    }
    let page = clinic.text(&path("export/record.html"), &cookie).await;
    for part in ["Family1", "MRN-1", "<svg", "190", "before their eyes", "Took out the whole record"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(
        !page.contains("http://") && !page.contains("https://") && !page.contains("<script"),
        "opens offline"
    );

    let held =
        clinic.call(Method::PUT, &path("hold"), Some(&cookie), Some(json!({"reason": "a claim"}))).await;
    assert_eq!(held.status, StatusCode::OK, "{:?}", held.body);
    let preview = clinic.post(&path("erasure/dry-run"), &cookie, json!({})).await;
    assert_eq!(
        (preview.body["confirm"].as_str(), preview.body["hold"]["reason"].as_str()),
        (Some("MRN-1"), Some("a claim"))
    );
    let order = json!({"reason": "asked for", "request": "case 4", "confirm": "MRN-1"});
    let refused = clinic.post(&path("erasure"), &cookie, order.clone()).await;
    assert_eq!(refused.body["code"], "on-hold", "{:?}", refused.body);
    let ended =
        clinic.call(Method::DELETE, &path("hold"), Some(&cookie), Some(json!({"reason": "settled"}))).await;
    assert_eq!(ended.status, StatusCode::OK, "{:?}", ended.body);
    let erased = clinic.post(&path("erasure"), &cookie, order).await;
    assert_eq!(erased.status, StatusCode::OK, "{:?}", erased.body);
    while clinic.site.care_now("Test", 100).unwrap() {}

    assert_eq!(clinic.get(&path(""), &cookie).await.status, StatusCode::NOT_FOUND);
    assert_eq!(clinic.get(&path("export"), &cookie).await.status, StatusCode::NOT_FOUND);
    let list = clinic.get("/api/v1/erasures", &cookie).await;
    assert_eq!(list.body["erasures"][0]["state"], "waiting-for-turn", "{:?}", list.body);
    let statement = clinic.text(&format!("/api/v1/erasures/{}/certificate.json", patient(1)), &cookie).await;
    assert!(statement.contains("case 4") && !statement.contains("Family1"), "{statement}");
    let keys = clinic.get("/api/v1/keys", &cookie).await;
    assert_eq!(keys.body["turn_due"]["erasures"], 1, "{:?}", keys.body);
    let by_hand = clinic.post("/api/v1/keys/turn", &cookie, json!({"reason": "erasures wait"})).await;
    assert_eq!(by_hand.body["code"], "by-hand", "a key given by hand has no home: {:?}", by_hand.body);
}

/// A record of 2026-11-22 held patient, observations and looks only, and pages that nobody could read.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_taken_out_is_whole_and_readable_for_the_patient_too() {
    let clinic = Clinic::furnished();
    let nurse = clinic.sign_in("nurse").await;
    let path = format!("/api/v1/patients/{}/limits", patient(1));
    let limit = json!({"measure": "heart_rate", "low": 40.5, "high": 100.0, "priority": "high",
        "persistence_s": 0, "hysteresis": 0.0});
    let set = clinic.call(Method::PUT, &path, Some(&nurse), Some(json!({"limits": [limit]}))).await;
    assert_eq!(set.status, StatusCode::OK, "{:?}", set.body);
    clinic.ingest(monitor(1), r#"{"measure":"heart_rate","value":190}"#).await;
    eventually("an alert", || clinic.site.live_chart(|chart| !chart.open_alerts().is_empty())).await;
    let alerts = clinic.get("/api/v1/alerts", &nurse).await.body;
    let alert = alerts["alerts"][0]["id"].as_str().unwrap().to_owned();
    let note = json!({"note": "lead <moved>"});
    let answer = clinic.post(&format!("/api/v1/alerts/{alert}/acknowledge"), &nurse, note).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);

    let theirs = clinic.sign_in("patient").await;
    let export = |name: &str| format!("/api/v1/patients/{}/export/record.{name}", patient(1));
    let lines = clinic.text(&export("ndjson"), &theirs).await;
    let resources: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| resources.iter().filter(|one| one["resourceType"] == kind).collect::<Vec<_>>();
    assert_eq!(of("Device")[0]["id"], monitor(1).to_string());
    assert_eq!(of("Location").len(), 2, "bed and ward");
    assert_eq!(of("DeviceUseStatement")[0]["subject"]["reference"], format!("Patient/{}", patient(1)));
    let issue = of("DetectedIssue")[0];
    assert_eq!((issue["id"].as_str(), issue["severity"].as_str()), (Some(alert.as_str()), Some("high")));
    assert_eq!(issue["mitigation"][0]["action"]["text"], "acknowledged: lead <moved>");
    assert_eq!(issue["mitigation"][0]["author"]["display"], "nurse");
    let limits = of("Basic")[0]["extension"].to_string();
    assert!(limits.contains("heart_rate") && limits.contains("40.5"), "{limits}");

    let page = clinic.text(&export("html"), &theirs).await;
    for part in [
        "Monitor 1",
        "Bed 1",
        "Ward 1",
        "Heart rate",
        "40.5",
        "lead &lt;moved&gt;",
        "<td>nurse</td><td>nurse</td>",
        "Treatment",
        "2026-11-22 08:30:00 UTC",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("2026-11-22T"), "instants are for people: {page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn acts_on_keys_and_erasure_need_a_fresh_second_factor() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("administrator").await;
    clinic.clock.advance(600);
    for (path, body) in [
        ("/api/v1/keys/turn".to_owned(), json!({"reason": "x"})),
        (
            format!("/api/v1/patients/{}/erasure", patient(1)),
            json!({"reason": "x", "request": "1", "confirm": "MRN-1"}),
        ),
        ("/api/v1/retention/run".to_owned(), json!({"reason": "x"})),
        (format!("/api/v1/patients/{}/key/turn", patient(1)), json!({"reason": "x"})),
    ] {
        let answer = clinic.post(&path, &cookie, body).await;
        assert_eq!(answer.body["code"], "step-up-needed", "{path}: {:?}", answer.body);
    }
    let answer = clinic.get(&format!("/api/v1/patients/{}/export/record.ndjson", patient(1)), &cookie).await;
    assert_eq!(answer.body["code"], "step-up-needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_of_an_erased_patient_ends_with_the_record() {
    let clinic = Clinic::furnished();
    let theirs = clinic.sign_in("patient").await;
    assert_eq!(clinic.get("/api/v1/my-people", &theirs).await.status, StatusCode::OK);
    let admin = clinic.sign_in("administrator").await;
    let order = json!({"reason": "asked for", "request": "case 5", "confirm": "MRN-1"});
    let erased = clinic.post(&format!("/api/v1/patients/{}/erasure", patient(1)), &admin, order).await;
    assert_eq!(erased.status, StatusCode::OK, "{:?}", erased.body);

    let after = clinic.get("/api/v1/my-people", &theirs).await;
    assert_eq!(after.status, StatusCode::UNAUTHORIZED, "{:?}", after.body);
    let clinic = clinic.with_web_started_again();
    let admin = clinic.sign_in("administrator").await;
    let users = clinic.get("/api/v1/users", &admin).await.body;
    let of_them: Vec<_> =
        users["users"].as_array().unwrap().iter().filter(|user| user["role"] == "patient").collect();
    assert_eq!(of_them.len(), 1, "{users}");
    assert_eq!((&of_them[0]["disabled"], &of_them[0]["display"]), (&json!(true), &json!("erased")));
    assert!(of_them[0]["patient"].is_null() && of_them[0]["name"].as_str().unwrap().starts_with("erased "));
    assert!(!users.to_string().contains(&patient(1).to_string()), "{users}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_tells_addresses_to_those_who_may_read_the_log_alone() {
    let mut clinic = Clinic::furnished();
    clinic.address = Some("192.0.2.77".parse().unwrap());
    let path = format!("/api/v1/patients/{}/export/record.ndjson", patient(1));
    for (name, shown) in [("physician", false), ("patient", false), ("administrator", true)] {
        let cookie = clinic.sign_in(name).await;
        clinic.get(&format!("/api/v1/patients/{}", patient(1)), &cookie).await;
        let lines = clinic.text(&path, &cookie).await;
        assert!(lines.contains("AuditEvent"), "{name}");
        assert_eq!(lines.contains("192.0.2.77"), shown, "{name}");
    }
}
