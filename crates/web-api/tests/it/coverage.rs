//! Every operation of the table: refused to nobody in particular, refused to a role without the permission, refused
//! to the clinician of another patient. A new operation without its rows fails here.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use web_api::Role;
use web_api::access::Permission;
use web_api::operations::operations;
use web_api::problem::Code;

use crate::clinic::{Clinic, assigned, eventually, monitor, name_of, patient, ward};

fn concrete(path: &str) -> String {
    path.replace("{id}", "00000000-0000-0000-0000-000000000000")
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_anything_without_a_session() {
    let clinic = Clinic::furnished();
    for operation in operations() {
        let path = concrete(operation.path);
        let answer = clinic.call(operation.method.clone(), &path, None, Some(json!({}))).await;
        if operation.permission == Permission::Open {
            assert_ne!(answer.body["code"], "signed-out", "{} {path}", operation.method);
        } else {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{} {path}", operation.method);
            assert_eq!(answer.body["code"], "signed-out", "{} {path}", operation.method);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbage_cookie_is_no_session() {
    let clinic = Clinic::furnished();
    for cookie in ["auscult_session=", "auscult_session=abc", &format!("auscult_session={}", "A".repeat(43))]
    {
        let answer = clinic.get("/api/v1/wards", cookie).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{cookie}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changing_request_without_the_header_is_refused() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("administrator").await;
    for operation in operations().into_iter().filter(|operation| operation.method != Method::GET) {
        let request = Request::builder()
            .method(operation.method.clone())
            .uri(concrete(operation.path))
            .header(header::COOKIE, &cookie)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from("{}"))
            .unwrap();
        let answer = clinic.send(request).await;
        assert_eq!(answer.body["code"], "forged", "{} {}", operation.method, operation.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_gets_what_it_holds_and_no_more() {
    let clinic = Clinic::furnished();
    for role in Role::ALL {
        let cookie = clinic.sign_in(&name_of(*role)).await;
        for operation in operations() {
            // The streams answer for as long as they run; they have tests of their own.
            if operation.permission == Permission::Open || operation.path == "/api/v1/live" {
                continue;
            }
            let path = concrete(operation.path);
            let answer = clinic.call(operation.method.clone(), &path, Some(&cookie), Some(json!({}))).await;
            let refused = answer.status == StatusCode::FORBIDDEN;
            let what = format!("{role:?} {} {path}: {}", operation.method, answer.status);
            assert_eq!(refused, !role.holds(operation.permission), "{what}");
            assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{what}");
        }
    }
}

/// What the clinician of ward 1 must not get of patient 2, for every operation that needs a permission: a path and a
/// body, or the reason why the operation shows no patient.
fn of_the_other_patient(path: &str, observation: &str, alert: &str) -> Result<(String, Value), &'static str> {
    let (other, device) = (patient(2), monitor(2));
    let span = "from=2026-11-22T08:00:00Z&to=2026-11-22T09:00:00Z";
    let at = "2026-11-22T08:30:00Z";
    let asked = match path {
        "/api/v1/wards/{id}/board" => (format!("/api/v1/wards/{}/board", ward(2)), Value::Null),
        "/api/v1/patients/{id}" => (format!("/api/v1/patients/{other}"), Value::Null),
        "/api/v1/patients/{id}/trend" => {
            (format!("/api/v1/patients/{other}/trend?measures=heart_rate&buckets=10&{span}"), Value::Null)
        }
        "/api/v1/patients/{id}/readings" => {
            (format!("/api/v1/patients/{other}/readings?measure=heart_rate&{span}"), Value::Null)
        }
        "/api/v1/patients/{id}/waveform" => (
            format!("/api/v1/patients/{other}/waveform?measure=ecg_ii&from={at}&to=2026-11-22T08:31:00Z"),
            Value::Null,
        ),
        "/api/v1/patients/{id}/limits" => (format!("/api/v1/patients/{other}/limits"), json!({"limits": []})),
        "/api/v1/observations/{id}/provenance" => {
            (format!("/api/v1/observations/{observation}/provenance"), Value::Null)
        }
        "/api/v1/alerts/{id}/acknowledge" => {
            (format!("/api/v1/alerts/{alert}/acknowledge"), json!({"note": null}))
        }
        "/api/v1/alerts/{id}/resolve" => (format!("/api/v1/alerts/{alert}/resolve"), json!({"note": null})),
        "/api/v1/alerts" => (format!("/api/v1/alerts?patient={other}"), Value::Null),
        "/api/v1/live" => (format!("/api/v1/live?ward={}", ward(2)), Value::Null),
        "/api/v1/devices/{id}/assignments" => (
            format!("/api/v1/devices/{device}/assignments"),
            json!({"subject": {"kind": "patient", "id": other}, "start": at, "end": null}),
        ),
        "/api/v1/assignments/{id}/end" => {
            (format!("/api/v1/assignments/{}/end", assigned(2)), json!({"end": at}))
        }
        "/api/v1/wards" | "/api/v1/places" | "/api/v1/patients" => {
            return Err("lists only theirs: tested below");
        }
        "/api/v1/status" => return Err("numbers about the server, nothing of a patient"),
        "/api/v1/devices" | "/api/v1/devices/{id}" => {
            return Err("shows devices; the label of a stranger is hidden");
        }
        "/api/v1/quarantine"
        | "/api/v1/quarantine/{id}"
        | "/api/v1/quarantine/rerun"
        | "/api/v1/quarantine/{id}/rerun"
        | "/api/v1/quarantine/{id}/discard" => return Err("quarantine is of nobody yet"),
        "/api/v1/live/waveforms" => return Err("subscriptions are filtered: tested with the stream"),
        "/api/v1/audit" | "/api/v1/audit/groups" | "/api/v1/users" => return Err("no clinician holds it"),
        other => panic!("{other} needs a row here: who must not get what of another ward's patient?"),
    };
    Ok(asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clinician_of_another_patient_gets_nothing() {
    let clinic = Clinic::furnished();
    let receipt = clinic
        .ingest(monitor(2), r#"[{"measure":"heart_rate","value":20},{"measure":"systolic","value":30}]"#)
        .await;
    let pipeline::EntryOutcome::Committed { facts } = &receipt.entries[0] else { panic!("{receipt:?}") };
    let observation =
        clinic.site.store().identifier(&facts[0].series, facts[0].at, facts[0].sequence).unwrap();
    let theirs = clinic.sign_in("nurse 2").await;
    let mut alert = String::new();
    for _ in 0..200 {
        let answer = clinic.get("/api/v1/alerts", &theirs).await;
        if let Some(id) = answer.body["alerts"][0]["id"].as_str() {
            alert = id.to_owned();
            break;
        }
        eventually("the after-commit stage runs", || true).await;
    }
    assert!(!alert.is_empty(), "the systolic pressure raises an alert");
    let cookie = clinic.sign_in("nurse").await;
    for operation in operations().into_iter().filter(|one| one.permission != Permission::Open) {
        let Ok((path, body)) = of_the_other_patient(operation.path, &observation, &alert) else { continue };
        let body = (operation.method != Method::GET).then_some(body);
        let answer = clinic.call(operation.method.clone(), &path, Some(&cookie), body.clone()).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{} {path}: {:?}", operation.method, answer.body);
        // The same request of the right clinician is not refused, so that the refusal is about the patient.
        if operation.path != "/api/v1/live" {
            let answer = clinic.call(operation.method.clone(), &path, Some(&theirs), body).await;
            assert!(
                answer.status.is_success() || answer.status == StatusCode::CONFLICT,
                "{} {path}: {:?}",
                operation.method,
                answer.body
            );
        }
    }
    for (path, list) in
        [("/api/v1/wards", "wards"), ("/api/v1/patients", "patients"), ("/api/v1/alerts", "alerts")]
    {
        let answer = clinic.get(path, &cookie).await;
        let shown = answer.body[list].as_array().unwrap();
        let text = serde_json::to_string(shown).unwrap();
        assert!(!text.contains("Family2") && !text.contains("Ward 2"), "{path}: {text}");
    }
    let answer = clinic.get("/api/v1/devices", &cookie).await;
    assert!(!answer.body.to_string().contains("GIVEN2") && !answer.body.to_string().contains("Given2"));
    assert!(answer.body.to_string().contains("Given1"));
    // What was refused about a patient is in the log.
    let auditor = clinic.sign_in("auditor").await;
    let answer = clinic.get(&format!("/api/v1/audit?patient={}&limit=500", patient(2)), &auditor).await;
    let refused =
        answer.body["rows"].as_array().unwrap().iter().filter(|row| row["outcome"] == "refused").count();
    assert!(refused >= 5, "{refused}");
}

#[test]
fn the_openapi_description_lists_every_operation() {
    let mut lines: Vec<String> = operations()
        .iter()
        .map(|one| format!("{} {} ({:?}): {}", one.method, one.path, one.permission, one.summary))
        .collect();
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"));
    let described = web_api::operations::openapi();
    for operation in operations() {
        let method = operation.method.as_str().to_lowercase();
        assert!(described["paths"][operation.path][&method]["summary"].is_string(), "{}", operation.path);
    }
}

#[test]
fn codes_are_stable() {
    let lines: Vec<String> = Code::ALL
        .iter()
        .map(|code| format!("{} {}", serde_json::to_value(code).unwrap().as_str().unwrap(), code.status()))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}
