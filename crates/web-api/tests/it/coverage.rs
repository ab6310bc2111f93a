//! Every operation of the table: refused to nobody in particular, refused to a role without the permission, refused
//! to the clinician of another patient. A new operation without its rows fails here.

mod devices;
mod tokens;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use web_api::Role;
use web_api::access::Permission;
use web_api::operations::operations;
use web_api::problem::Code;

use crate::clinic::{Clinic, assigned, eventually, monitor, name_of, patient, ward};
use crate::rights::holds;

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
            assert_eq!(refused, !holds(*role, operation.permission), "{what}");
            assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{what}");
        }
    }
}

/// What there is of patient 2.
struct Theirs {
    observation: String,
    alert: String,
    consent: String,
}

/// What the clinician of ward 1, another patient and a caregiver of nobody must not get of patient 2, for every operation:
/// a path and a body, or the reason why the operation shows no patient.
fn of_the_other_patient(method: &Method, path: &str, of: &Theirs) -> Result<(String, Value), &'static str> {
    let (other, device) = (patient(2), monitor(2));
    let span = "from=2026-11-22T08:00:00Z&to=2026-11-22T09:00:00Z";
    let at = "2026-11-22T08:30:00Z";
    let plain = |path: String| Ok((path, Value::Null));
    let rule = json!({"decision": "deny", "who": [], "purposes": ["HRESCH"], "classes": [], "measures": [],
        "except": []});
    match path {
        "/api/v1/wards/{id}/board" => plain(format!("/api/v1/wards/{}/board", ward(2))),
        "/api/v1/patients/{id}" => plain(format!("/api/v1/patients/{other}")),
        "/api/v1/patients/{id}/trend" => {
            plain(format!("/api/v1/patients/{other}/trend?measures=heart_rate&buckets=10&{span}"))
        }
        "/api/v1/patients/{id}/readings" => {
            plain(format!("/api/v1/patients/{other}/readings?measure=heart_rate&{span}"))
        }
        "/api/v1/patients/{id}/waveform" => plain(format!(
            "/api/v1/patients/{other}/waveform?measure=ecg_ii&from={at}&to=2026-11-22T08:31:00Z"
        )),
        "/api/v1/patients/{id}/limits" => {
            Ok((format!("/api/v1/patients/{other}/limits"), json!({"limits": []})))
        }
        "/api/v1/observations/{id}/provenance" => {
            plain(format!("/api/v1/observations/{}/provenance", of.observation))
        }
        "/api/v1/alerts/{id}/acknowledge" | "/api/v1/alerts/{id}/resolve" => {
            Ok((path.replace("{id}", &of.alert), json!({"note": null})))
        }
        "/api/v1/alerts" => plain(format!("/api/v1/alerts?patient={other}")),
        "/api/v1/live" => plain(format!("/api/v1/live?ward={}", ward(2))),
        "/api/v1/devices/{id}/assignments" => Ok((
            format!("/api/v1/devices/{device}/assignments"),
            json!({"subject": {"kind": "patient", "id": other}, "start": at, "end": null}),
        )),
        "/api/v1/assignments/{id}/end" => {
            Ok((format!("/api/v1/assignments/{}/end", assigned(2)), json!({"end": at})))
        }
        "/api/v1/patients/{id}/consents" if *method == Method::GET => {
            plain(format!("/api/v1/patients/{other}/consents"))
        }
        "/api/v1/patients/{id}/consents" => Ok((format!("/api/v1/patients/{other}/consents"), rule)),
        "/api/v1/consents/{id}" => {
            Ok((format!("/api/v1/consents/{}", of.consent), json!({"version": 1, "rule": rule})))
        }
        "/api/v1/consents/{id}/withdraw" => {
            Ok((format!("/api/v1/consents/{}/withdraw", of.consent), json!({"version": 1})))
        }
        "/api/v1/consents/defaults" | "/api/v1/consents/choices" => Err("the same for every patient"),
        path if path.starts_with("/api/v1/patients/{id}/export") => {
            plain(path.replace("{id}", &other.to_string()))
        }
        "/api/v1/wards" | "/api/v1/places" | "/api/v1/patients" | "/api/v1/my-people" => {
            Err("lists only theirs: tested below")
        }
        "/api/v1/status" | "/api/v1/break-glass/reasons" => Err("nothing of a patient"),
        "/api/v1/break-glass" | "/api/v1/break-glass/{id}/end" | "/api/v1/break-glass/mine" => {
            Err("the way to see a stranger, and one's own glasses: tested where it is broken")
        }
        "/api/v1/devices" | "/api/v1/devices/{id}" => Err("shows devices; the label of a stranger is hidden"),
        "/api/v1/quarantine"
        | "/api/v1/quarantine/{id}"
        | "/api/v1/quarantine/rerun"
        | "/api/v1/quarantine/{id}/rerun"
        | "/api/v1/quarantine/{id}/discard" => Err("quarantine is of nobody yet"),
        "/api/v1/live/waveforms" => Err("subscriptions are filtered: tested with the stream"),
        "/api/v1/me/audit" => Err("one's own record alone"),
        "/api/v1/authorize" | "/api/v1/grants" | "/api/v1/grants/{id}" => {
            Err("the programs that one let in oneself; the patient of a program is asked through sight")
        }
        path if ["account", "step-up", "session"].iter().any(|own| path[8..].starts_with(own)) => {
            Err("about oneself alone")
        }
        other => {
            panic!("{method} {other} needs a row here: who must not get what of another ward's patient?")
        }
    }
}

/// Roles that see patients, each with somebody of the same role for whom patient 2 is theirs.
const STRANGERS: [(&str, Role, Option<&str>); 4] = [
    ("nurse", Role::Nurse, Some("nurse 2")),
    ("physician", Role::Physician, Some("physician 2")),
    ("patient", Role::Patient, None),
    ("caregiver", Role::Caregiver, None),
];

/// Where patient 2 has a reading, an alert and a consent.
async fn furnished_for_strangers(clinic: &Clinic) -> Theirs {
    clinic.add_user("physician 2", Role::Physician, Some(vec![ward(2)]));
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
    let rule = json!({"decision": "deny", "who": [], "purposes": ["HRESCH"], "classes": [], "measures": [],
        "except": []});
    let path = format!("/api/v1/patients/{}/consents", patient(2));
    let made = clinic.post(&path, &theirs, rule).await;
    let consent = made.body["id"].as_str().unwrap_or_else(|| panic!("{:?}", made.body)).to_owned();
    Theirs { observation, alert, consent }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clinician_of_another_patient_another_patient_and_a_caregiver_get_nothing() {
    for (stranger, role, right) in STRANGERS {
        // A clinic each, since the right clinician changes what is asked for.
        let clinic = Clinic::furnished();
        let of = furnished_for_strangers(&clinic).await;
        let cookie = clinic.sign_in(stranger).await;
        let theirs = match right {
            Some(right) => Some(clinic.sign_in(right).await),
            None => None,
        };
        for operation in operations() {
            if operation.permission == Permission::Open || !holds(role, operation.permission) {
                continue;
            }
            let Ok((path, body)) = of_the_other_patient(&operation.method, operation.path, &of) else {
                continue;
            };
            let body = (operation.method != Method::GET).then_some(body);
            let what = format!("{stranger}: {} {path}", operation.method);
            let answer = clinic.call(operation.method.clone(), &path, Some(&cookie), body.clone()).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{what}: {:?}", answer.body);
            // The same request of the right clinician is not refused, so that the refusal is about the patient.
            if operation.path != "/api/v1/live"
                && let Some(theirs) = &theirs
            {
                let answer = clinic.call(operation.method.clone(), &path, Some(theirs), body).await;
                let is_done = answer.status.is_success() || answer.status == StatusCode::CONFLICT;
                assert!(is_done, "{what}: {} {:?}", answer.status, answer.body);
            }
        }
        for (path, list, permission) in [
            ("/api/v1/wards", "wards", Permission::SeePlaces),
            ("/api/v1/places", "places", Permission::SeePlaces),
            ("/api/v1/patients", "patients", Permission::ReadChart),
            ("/api/v1/alerts", "alerts", Permission::ReadChart),
        ] {
            let answer = clinic.get(path, &cookie).await;
            if !holds(role, permission) {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{stranger} {path}");
                continue;
            }
            let shown = answer.body[list].as_array().unwrap();
            let text = serde_json::to_string(shown).unwrap();
            assert!(!text.contains("Family2") && !text.contains("Ward 2"), "{stranger} {path}: {text}");
        }
        // What was refused about a patient is in the log.
        let auditor = clinic.sign_in("auditor").await;
        let path = format!("/api/v1/audit?patient={}&limit=500", patient(2));
        let answer = clinic.get(&path, &auditor).await;
        let rows = answer.body["rows"].as_array().unwrap();
        let refused = rows.iter().filter(|row| row["outcome"] == "refused").count();
        assert!(refused >= 5, "{stranger}: {refused}");
    }
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    let answer = clinic.get("/api/v1/devices", &cookie).await;
    assert!(!answer.body.to_string().contains("GIVEN2") && !answer.body.to_string().contains("Given2"));
    assert!(answer.body.to_string().contains("Given1"));
    let answer = clinic.get("/api/v1/patients", &clinic.sign_in("patient").await).await;
    assert!(answer.body.to_string().contains("Family1"), "a patient sees themselves: {:?}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_learns_no_more_from_an_id_of_another_ward_than_from_one_that_nothing_has() {
    let clinic = Clinic::furnished();
    let of = furnished_for_strangers(&clinic).await;
    let nobody = "01234567-89ab-7def-8123-456789abcdef";
    for (stranger, role, _) in STRANGERS {
        let cookie = clinic.sign_in(stranger).await;
        for operation in operations() {
            if operation.permission == Permission::Open
                || !holds(role, operation.permission)
                || operation.path == "/api/v1/live"
            {
                continue;
            }
            let Ok((path, body)) = of_the_other_patient(&operation.method, operation.path, &of) else {
                continue;
            };
            let mut unknown = (path.clone(), body.to_string());
            let ids = [patient(2).to_string(), ward(2).to_string(), assigned(2).to_string()];
            for known in ids.iter().chain([&of.alert, &of.consent, &of.observation]) {
                unknown = (unknown.0.replace(known, nobody), unknown.1.replace(known, nobody));
            }
            let mut told = Vec::new();
            for (path, body) in [(path.clone(), body.to_string()), unknown] {
                let body = (operation.method != Method::GET).then(|| serde_json::from_str(&body).unwrap());
                let answer = clinic.call(operation.method.clone(), &path, Some(&cookie), body).await;
                told.push((answer.status, answer.body));
            }
            assert_eq!(told[0], told[1], "{stranger}: {} {path}", operation.method);
        }
    }
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
