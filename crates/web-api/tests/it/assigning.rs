//! Mass assignment: fields that nobody may set are refused by name, and nothing is made.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::clinic::{Clinic, monitor, patient, ward};

/// Everything that takes a JSON body and makes or changes a record: a body that is taken, and a field that is not theirs.
fn requests() -> Vec<(&'static str, Method, String, Value, &'static str)> {
    let at = "2026-11-22T08:30:00Z";
    let person = json!({"family": "F", "given": "G", "birth_date": null, "gender": "female",
        "record_number": "MRN-77", "place_id": null});
    let device = json!({"name": "M", "kind": "k", "manufacturer": "m", "model": "m", "serial": "S77",
        "utc_offset_min": 0, "expected_interval_s": null});
    let changed = json!({"version": 1, "name": "M", "clock": {"rule": "trust"}, "utc_offset_min": 0,
        "expected_interval_s": null, "retired": false});
    let assignment = json!({"subject": {"kind": "patient", "id": patient(1)}, "start": at, "end": null});
    let place = json!({"name": "P", "kind": "bed", "ward_id": ward(1)});
    let post = || Method::POST;
    vec![
        ("administrator", post(), "/api/v1/patients".into(), person.clone(), "id"),
        ("administrator", post(), "/api/v1/patients".into(), person.clone(), "active"),
        ("nurse", post(), "/api/v1/patients".into(), person, "ward_id"),
        ("administrator", post(), "/api/v1/devices".into(), device.clone(), "id"),
        ("biomedical-engineer", post(), "/api/v1/devices".into(), device, "retired"),
        ("administrator", Method::PUT, format!("/api/v1/devices/{}", monitor(1)), changed, "serial"),
        ("nurse", post(), format!("/api/v1/devices/{}/assignments", monitor(1)), assignment, "device"),
        ("administrator", post(), "/api/v1/places".into(), place, "id"),
        (
            "nurse",
            Method::PUT,
            format!("/api/v1/patients/{}/limits", patient(1)),
            json!({"limits": []}),
            "patient",
        ),
        (
            "administrator",
            post(),
            "/api/v1/users".into(),
            json!({"name": "new", "display": "New", "role": "nurse", "wards": []}),
            "disabled",
        ),
        (
            "administrator",
            post(),
            "/api/v1/policies/explain".into(),
            json!({"who": "nurse", "action": "read-chart", "on": "site"}),
            "allowed",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_nobodys_to_set_is_refused_by_name() {
    let clinic = Clinic::furnished();
    for (who, method, path, mut body, field) in requests() {
        let cookie = clinic.sign_in(who).await;
        let known = ["role", "is_admin", field];
        for name in known.into_iter().filter(|name| body.get(*name).is_none()) {
            let mut more = body.clone();
            more[name] = json!("x");
            let answer = clinic.call(method.clone(), &path, Some(&cookie), Some(more)).await;
            let what = format!("{who} {method} {path} {name}: {} {}", answer.status, answer.body);
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}");
            assert!(answer.body["detail"].as_str().unwrap().contains(name), "{what}");
        }
        body.as_object_mut().unwrap().remove("id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_is_told_what_the_policies_decide_for_a_person() {
    let clinic = Clinic::furnished();
    let admin = clinic.sign_in("administrator").await;
    let ask = async |who: &str, action: &str, on: String| {
        let question = json!({"who": who, "action": action, "on": on});
        let answer = clinic.post("/api/v1/policies/explain", &admin, question).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        (answer.body["allowed"].as_bool().unwrap(), answer.body["text"].as_str().unwrap().to_owned())
    };
    let on = |number: u8| format!("patient/{}", patient(number));
    assert_eq!(ask("nurse", "read-chart", on(1)).await, (true, "permitted by staff.wards".into()));
    assert_eq!(ask("nurse", "read-chart", on(2)).await, (false, "denied: no policy permits it".into()));
    let (allowed, text) = ask("patient", "read-chart", on(2)).await;
    assert!(!allowed && text.contains("core.patients-see-themselves"), "{text}");
    assert!(!ask("auditor", "read-chart", "site".into()).await.0);
    let shown = clinic.get("/api/v1/policies", &admin).await;
    assert_eq!(shown.body["source"], "built-in");
    assert!(shown.body["policies"].as_array().unwrap().len() > 15);
    let permissions = shown.body["permissions"].as_array().unwrap();
    let keys = permissions.iter().find(|one| one["name"] == "manage-keys").unwrap();
    assert_eq!(keys["roles"], serde_json::json!(["administrator"]));
    let nurse = clinic.sign_in("nurse").await;
    assert_eq!(clinic.get("/api/v1/policies", &nurse).await.status, StatusCode::FORBIDDEN);
}

/// The name of a patient's account would stay readable in a row that is about no patient, after the patient was erased.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_about_the_policies_is_recorded_without_the_name_that_was_typed() {
    let clinic = Clinic::furnished();
    let administrator = clinic.sign_in("administrator").await;
    let asked = format!("patient/{}", patient(1));
    let question = json!({"who": "patient", "action": "read-chart", "on": asked});
    let answer = clinic.post("/api/v1/policies/explain", &administrator, question).await;
    assert_eq!((answer.status, &answer.body["allowed"]), (StatusCode::OK, &json!(true)), "{:?}", answer.body);
    let query = store::AuditQuery { limit: 50, ..store::AuditQuery::default() };
    let rows = clinic.site.store().audit_rows(&query).unwrap();
    let row = rows.iter().find(|row| row.record.object == "Policies").unwrap();
    let id = clinic.web.user_named("patient").unwrap().id;
    assert_eq!(row.record.detail, format!("{id} read-chart on {asked}"));
}
