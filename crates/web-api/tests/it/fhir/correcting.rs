//! Corrections: versions beside what was measured, who may make them, and that everything that shows a value follows.

use axum::http::{Method, StatusCode};
use pipeline::Peer;
use serde_json::{Value, json};
use store::{AuditAction, AuditOutcome, AuditQuery};

use super::{at, get, heart_rate, ids, issue, post, program, put, send, text};
use crate::clinic::{Clinic, monitor, patient};

/// A charted heart rate of patient 1: its path and its resource.
async fn charted(clinic: &Clinic, second: i64, value: &str) -> (String, Value) {
    let sent = heart_rate(monitor(1), Some(patient(1)), at(second), value);
    let made = post(clinic, &program(), "/fhir/Observation", &sent).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    (format!("/fhir/Observation/{}", made.body["id"].as_str().unwrap()), made.body)
}

fn changed(resource: &Value, status: &str, value: i64) -> Value {
    let mut changed = resource.clone();
    changed["status"] = json!(status);
    changed["valueQuantity"]["value"] = json!(value);
    changed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_is_a_version_and_the_measurement_stays() {
    let clinic = Clinic::furnished();
    let (path, first) = charted(&clinic, -10, "172").await;
    clinic.clock.advance(5);
    let mut body = changed(&first, "corrected", 72);
    body["note"] = json!([{ "text": "the one was a slip" }]);
    let corrected = put(&clinic, &program(), &path, "W/\"1\"", &body).await;
    assert_eq!(corrected.status, StatusCode::OK, "{}", corrected.body);
    assert_eq!(text(&corrected.headers, "etag"), "W/\"2\"");
    assert!(text(&corrected.headers, "location").ends_with("/_history/2"));

    for folded in [false, true] {
        if folded {
            clinic.site.fold_now().unwrap();
        }
        let read = get(&clinic, &program(), &path).await;
        assert_eq!(read.body["status"], "corrected", "folded: {folded} {}", read.body);
        assert_eq!(read.body["valueQuantity"]["value"], 72);
        assert_eq!(read.body["meta"]["versionId"], "2");
        let notes = read.body["note"].to_string();
        assert!(notes.contains("the one was a slip"), "{notes}");
        let measured = get(&clinic, &program(), &format!("{path}/_history/1")).await;
        assert_eq!(measured.body["valueQuantity"]["value"], 172);
        assert_eq!(measured.body["status"], "final");
        let history = get(&clinic, &program(), &format!("{path}/_history")).await;
        let seen: Vec<_> = history.body["entry"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                (entry["request"]["method"].clone(), entry["resource"]["valueQuantity"]["value"].clone())
            })
            .collect();
        assert_eq!(seen, [(json!("PUT"), json!(72)), (json!("POST"), json!(172))]);
        assert_eq!(history.body["total"], 2);
        let found = get(&clinic, &program(), &format!("/fhir/Observation?patient={}", patient(1))).await;
        assert_eq!(found.body["entry"][0]["resource"]["valueQuantity"]["value"], 72, "{}", found.body);
    }
    // The same again changes nothing; what is stale is refused.
    let again = put(&clinic, &program(), &path, "W/\"2\"", &get(&clinic, &program(), &path).await.body).await;
    assert_eq!((again.status, text(&again.headers, "etag")), (StatusCode::OK, "W/\"2\""));
    let stale = put(&clinic, &program(), &path, "W/\"1\"", &changed(&first, "corrected", 73)).await;
    assert_eq!((stale.status, issue(&stale).0), (StatusCode::PRECONDITION_FAILED, "conflict"));
    let rows = clinic.site.store().audit_rows(&AuditQuery {
        patient: Some(patient(1)),
        limit: 50,
        ..AuditQuery::default()
    });
    let rows = rows.unwrap();
    let kept = rows.iter().find(|row| row.record.detail.contains("the one was a slip")).unwrap();
    assert_eq!(kept.record.action, AuditAction::Update);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_entered_in_error_is_no_current_value_any_more() {
    let clinic = Clinic::furnished();
    charted(&clinic, -20, "71").await;
    let (path, newest) = charted(&clinic, -10, "172").await;
    let error = put(&clinic, &program(), &path, "W/\"1\"", &changed(&newest, "entered-in-error", 172)).await;
    assert_eq!(error.status, StatusCode::OK, "{}", error.body);
    // Shown with its status where it is asked for, and in lists.
    assert_eq!(get(&clinic, &program(), &path).await.body["status"], "entered-in-error");
    let listed = get(&clinic, &program(), &format!("/fhir/Observation?patient={}", patient(1))).await;
    assert_eq!(ids(&listed.body).len(), 2);
    // The current value is the one before: on the board, in $lastn, in the patient's page.
    let last = get(&clinic, &program(), &format!("/fhir/Observation/$lastn?patient={}", patient(1))).await;
    assert_eq!(last.body["entry"][0]["resource"]["valueQuantity"]["value"], 71, "{}", last.body);
    let cookie = clinic.sign_in("nurse").await;
    let page = clinic.get(&format!("/api/v1/patients/{}", patient(1)), &cookie).await;
    assert_eq!(page.body["latest"][0]["value"], "71", "{}", page.body);
    let span = "from=2026-11-22T08:00:00Z&to=2026-11-22T09:00:00Z";
    let trend = format!("/api/v1/patients/{}/trend?measures=heart_rate&buckets=10&{span}", patient(1));
    let trend = clinic.get(&trend, &cookie).await;
    let counts = &trend.body["series"][0]["count"];
    assert_eq!(
        counts.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>(),
        1,
        "{}",
        trend.body
    );
    let readings = clinic
        .get(&format!("/api/v1/patients/{}/readings?measure=heart_rate&{span}", patient(1)), &cookie)
        .await;
    let marked: Vec<_> = readings.body["readings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reading| reading["findings"].to_string().contains("entered-in-error"))
        .collect();
    assert_eq!(marked, [true, false], "{}", readings.body);
    // It can be put right again.
    let back = put(&clinic, &program(), &path, "W/\"2\"", &changed(&newest, "corrected", 72)).await;
    assert_eq!(back.status, StatusCode::OK, "{}", back.body);
    let last = get(&clinic, &program(), &format!("/fhir/Observation/$lastn?patient={}", patient(1))).await;
    assert_eq!(last.body["entry"][0]["resource"]["valueQuantity"]["value"], 72);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_value_is_checked_like_any_other_and_the_identity_stays() {
    let clinic = Clinic::furnished();
    let (path, first) = charted(&clinic, -10, "72").await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = changed(&first, "corrected", 73);
        change(&mut body);
        body
    };
    let cases: Vec<(&str, Value, u16)> = vec![
        ("impossible", changed(&first, "corrected", 7200), 422),
        ("final again", changed(&first, "final", 73), 422),
        ("preliminary", changed(&first, "preliminary", 73), 422),
        ("unit", with(&|body| body["valueQuantity"]["code"] = json!("mm[Hg]")), 422),
        (
            "subject",
            with(&|body| body["subject"]["reference"] = json!(format!("Patient/{}", patient(2)))),
            422,
        ),
        ("device", with(&|body| body["device"]["reference"] = json!(format!("Device/{}", monitor(2)))), 422),
        ("time", with(&|body| body["effectiveDateTime"] = json!("2026-11-22T08:00:00Z")), 422),
        (
            "code",
            with(&|body| {
                body["code"] = json!({"coding": [{"system": "http://loinc.org", "code": "9279-1"}]})
            }),
            422,
        ),
        ("no value", with(&|body| drop(body.as_object_mut().unwrap().remove("valueQuantity"))), 422),
        ("another id", with(&|body| body["id"] = json!("x")), 400),
        ("no id", with(&|body| drop(body.as_object_mut().unwrap().remove("id"))), 400),
        ("unknown element", with(&|body| body["colour"] = json!("red")), 400),
    ];
    for (name, body, status) in cases {
        let answer = put(&clinic, &program(), &path, "W/\"1\"", &body).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {}", answer.body);
        issue(&answer);
    }
    let mut unseen = changed(&first, "corrected", 73);
    unseen.as_object_mut().unwrap().remove("meta");
    let blind = send(&clinic, &program(), Method::PUT, &path, &[], Some(&unseen)).await;
    assert_eq!((blind.status, issue(&blind).0), (StatusCode::PRECONDITION_REQUIRED, "required"));
    assert_eq!(get(&clinic, &program(), &path).await.body["meta"]["versionId"], "1", "nothing was changed");
    // The version that a caller has seen may stand in the resource.
    let seen =
        send(&clinic, &program(), Method::PUT, &path, &[], Some(&changed(&first, "amended", 73))).await;
    assert_eq!(
        (seen.status, seen.body["status"].as_str()),
        (StatusCode::OK, Some("amended")),
        "{}",
        seen.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panel_is_corrected_whole() {
    let clinic = Clinic::furnished();
    let coded = |code: &str| json!({"coding": [{"system": "http://loinc.org", "code": code}]});
    let part = |code: &str, value: i64| {
        json!({"code": coded(code), "valueQuantity":
            {"value": value, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}})
    };
    let mut sent = heart_rate(monitor(1), Some(patient(1)), at(-10), "1");
    sent["code"] = coded("85354-9");
    sent.as_object_mut().unwrap().remove("valueQuantity");
    sent["component"] = json!([part("8480-6", 212), part("8462-4", 80)]);
    let made = post(&clinic, &program(), "/fhir/Observation", &sent).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let path = format!("/fhir/Observation/{}", made.body["id"].as_str().unwrap());
    let mut body = made.body.clone();
    body["status"] = json!("corrected");
    body["component"].as_array_mut().unwrap().remove(1);
    let half = put(&clinic, &program(), &path, "W/\"1\"", &body).await;
    assert_eq!(half.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", half.body);
    let mut body = made.body.clone();
    body["status"] = json!("corrected");
    body["component"][0]["valueQuantity"]["value"] = json!(112);
    let whole = put(&clinic, &program(), &path, "W/\"1\"", &body).await;
    assert_eq!(whole.status, StatusCode::OK, "{}", whole.body);
    let values = |resource: &Value| {
        let parts = resource["component"].as_array().unwrap().clone();
        parts.iter().map(|part| part["valueQuantity"]["value"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(values(&get(&clinic, &program(), &path).await.body), [112, 80]);
    assert_eq!(values(&get(&clinic, &program(), &format!("{path}/_history/1")).await.body), [212, 80]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_gone_and_its_history_is_not() {
    let clinic = Clinic::furnished();
    charted(&clinic, -20, "71").await;
    let (path, _) = charted(&clinic, -10, "172").await;
    let stale = send(&clinic, &program(), Method::DELETE, &path, &[("if-match", "W/\"7\"")], None).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    for _ in 0..2 {
        let deleted = send(&clinic, &program(), Method::DELETE, &path, &[], None).await;
        assert_eq!(deleted.status, StatusCode::NO_CONTENT, "{}", deleted.body);
    }
    let read = get(&clinic, &program(), &path).await;
    assert_eq!((read.status, issue(&read).0), (StatusCode::GONE, "deleted"));
    let version = get(&clinic, &program(), &format!("{path}/_history/2")).await;
    assert_eq!(version.status, StatusCode::GONE);
    assert_eq!(get(&clinic, &program(), &format!("{path}/_history/1")).await.status, StatusCode::OK);
    let history = get(&clinic, &program(), &format!("{path}/_history")).await;
    let methods: Vec<_> =
        history.body["entry"].as_array().unwrap().iter().map(|entry| &entry["request"]["method"]).collect();
    assert_eq!(methods, ["DELETE", "POST"]);
    let listed = get(&clinic, &program(), &format!("/fhir/Observation?patient={}", patient(1))).await;
    assert_eq!(ids(&listed.body).len(), 1, "{}", listed.body);
    let last = get(&clinic, &program(), &format!("/fhir/Observation/$lastn?patient={}", patient(1))).await;
    assert_eq!(last.body["entry"][0]["resource"]["valueQuantity"]["value"], 71);
    // A gateway that repeats itself does not bring it back.
    let sent = heart_rate(monitor(1), Some(patient(1)), at(-10), "172");
    let again = post(&clinic, &program(), "/fhir/Observation", &sent).await;
    assert_eq!((again.status, again.body["status"].as_str()), (StatusCode::OK, Some("entered-in-error")));
    assert_eq!(get(&clinic, &program(), &path).await.status, StatusCode::GONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_care_for_the_patient_put_anything_right() {
    let clinic = Clinic::furnished();
    let (path, first) = charted(&clinic, -10, "72").await;
    let body = changed(&first, "corrected", 73);
    let device = put(&clinic, &Peer::Device(monitor(1)), &path, "W/\"1\"", &body).await;
    assert_eq!(device.status, StatusCode::FORBIDDEN);
    let strangers = clinic.sign_in("nurse 2").await;
    let engineer = clinic.sign_in("biomedical-engineer").await;
    for (cookie, status) in [(&strangers, StatusCode::NOT_FOUND), (&engineer, StatusCode::FORBIDDEN)] {
        for method in [Method::PUT, Method::DELETE] {
            let answer = clinic.call(method.clone(), &path, Some(cookie), Some(body.clone())).await;
            assert_eq!(answer.status, status, "{method} {}", answer.body);
        }
        for path in [format!("{path}/_history"), format!("{path}/_history/1")] {
            let answer = clinic.get(&path, cookie).await;
            assert_eq!(answer.status, status, "{path}");
        }
    }
    let refused = AuditQuery { patient: Some(patient(1)), limit: 50, ..AuditQuery::default() };
    let rows = clinic.site.store().audit_rows(&refused).unwrap();
    assert!(rows.iter().filter(|row| row.record.outcome == AuditOutcome::Refused).count() >= 4);
    let own = clinic.sign_in("nurse").await;
    let answer = clinic.call(Method::PUT, &path, Some(&own), Some(body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_two_values_under_one_identity_stands_everywhere() {
    let clinic = Clinic::furnished();
    let (path, first) = charted(&clinic, -10, "72").await;
    for value in ["80", "72", "80"] {
        let sent = heart_rate(monitor(1), Some(patient(1)), at(-10), value);
        let repeat = post(&clinic, &program(), "/fhir/Observation", &sent).await;
        assert_eq!(repeat.body["id"], first["id"], "{}", repeat.body);
        assert_eq!(repeat.body["valueQuantity"]["value"], 72, "{value}");
    }
    let cookie = clinic.sign_in("nurse").await;
    let span = "from=2026-11-22T08:00:00Z&to=2026-11-22T09:00:00Z";
    for folded in [false, true] {
        if folded {
            clinic.site.fold_now().unwrap();
        }
        let read = get(&clinic, &program(), &path).await.body;
        let patient_id = patient(1);
        let lastn =
            get(&clinic, &program(), &format!("/fhir/Observation/$lastn?patient={patient_id}")).await.body;
        let mut shown = vec![read, lastn["entry"][0]["resource"].clone()];
        for sort in ["date", "-date"] {
            let path = format!("/fhir/Observation?patient={patient_id}&_sort={sort}");
            let listed = get(&clinic, &program(), &path).await.body;
            assert_eq!(ids(&listed).len(), 1, "folded: {folded} {listed}");
            shown.push(listed["entry"][0]["resource"].clone());
        }
        for resource in &shown {
            assert_eq!(resource["valueQuantity"]["value"], 72, "folded: {folded} {resource}");
            assert!(resource.to_string().contains("another value"), "folded: {folded} {resource}");
        }
        let page = clinic.get(&format!("/api/v1/patients/{patient_id}"), &cookie).await.body;
        let readings = format!("/api/v1/patients/{patient_id}/readings?measure=heart_rate&{span}");
        let readings = clinic.get(&readings, &cookie).await.body;
        assert_eq!(readings["readings"].as_array().unwrap().len(), 1, "folded: {folded} {readings}");
        for vital in [&page["latest"][0], &readings["readings"][0]] {
            assert_eq!(vital["value"], "72", "folded: {folded}");
            assert!(vital["findings"].to_string().contains("conflict"), "folded: {folded} {vital}");
        }
        let trend = format!("/api/v1/patients/{patient_id}/trend?measures=heart_rate&buckets=10&{span}");
        let trend = clinic.get(&trend, &cookie).await.body;
        assert_eq!(trend["series"][0]["max"], json!([72.0]), "folded: {folded} {trend}");
        assert_eq!(trend["series"][0]["count"], json!([1]), "folded: {folded}");
    }
}
