//! What a person does over the network stands in the audit log with the address that it came from.

use axum::http::{Method, StatusCode};
use clinical_model::Timestamp;
use serde_json::{Value, json};
use store::{Actor, AuditQuery};

use crate::clinic::{Clinic, START_S, eventually, monitor, patient, ward};
use crate::enrol::house::House;

const ADDRESS: &str = "192.0.2.7";

/// Does something that must succeed; the answer's body.
async fn does(clinic: &Clinic, cookie: &str, method: Method, path: &str, body: Value) -> Value {
    let answer = clinic.call(method.clone(), &format!("/api/v1/{path}"), Some(cookie), Some(body)).await;
    assert!(answer.status.is_success(), "{method} {path}: {} {:?}", answer.status, answer.body);
    answer.body
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The rows of people that name no address, or another.
fn without_address(clinic: &Clinic) -> Vec<String> {
    let query = AuditQuery { limit: 10_000, ..AuditQuery::default() };
    let rows = clinic.site.store().audit_rows(&query).unwrap();
    let of_people =
        rows.iter().map(|row| &row.record).filter(|record| matches!(record.actor, Actor::User(_)));
    // What is said of a patient goes with the patient.
    let missing =
        of_people.filter(|record| record.address.as_deref() != Some(ADDRESS) && record.object != "(erased)");
    missing.map(|record| format!("{:?} {}: {}", record.action, record.object, record.detail)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_act_of_an_administrator_names_the_address() {
    let mut clinic = Clinic::furnished();
    clinic.address = Some(ADDRESS.parse().unwrap());
    let admin = clinic.sign_in("administrator").await;
    let (post, put, delete) = (Method::POST, Method::PUT, Method::DELETE);
    let at = |seconds: i64| Timestamp::from_seconds(START_S + seconds);
    let did = async |method: &Method, path: &str, body: Value| {
        does(&clinic, &admin, method.clone(), path, body).await
    };

    did(&post, "places", json!({"name": "Ward 3", "kind": "ward"})).await;
    let new = json!({"family": "A", "given": "B", "gender": "female", "record_number": "MRN-3"});
    let third = did(&post, "patients", new).await;
    let device = json!({"name": "D", "kind": "cuff", "manufacturer": "M", "model": "X", "serial": "Z1"});
    let device = did(&post, "devices", device).await;
    let (third, device) = (text(&third["id"]).to_owned(), text(&device["id"]).to_owned());
    let assignment = json!({"subject": {"kind": "patient", "id": third}, "start": at(-60)});
    let assignment = did(&post, &format!("devices/{device}/assignments"), assignment).await;
    did(&post, &format!("assignments/{}/end", text(&assignment["id"])), json!({"end": at(-30)})).await;

    let new = json!({"name": "new", "display": "New", "role": "nurse", "wards": [ward(1)]});
    let added = did(&post, "users", new).await["user"].clone();
    let user = text(&added["id"]).to_owned();
    let change = json!({
        "display": "Newer", "role": "physician", "wards": [ward(1)], "disabled": false, "version": added["version"],
    });
    did(&put, &format!("users/{user}"), change).await;
    did(&post, &format!("users/{user}/reset"), json!({})).await;
    did(&delete, &format!("users/{user}/sessions"), json!({})).await;

    let hold = format!("patients/{}/hold", patient(1));
    did(&put, &hold, json!({"reason": "a claim"})).await;
    did(&delete, &hold, json!({"reason": "settled"})).await;
    let keep = json!({"version": 0, "keep_days": {"waveforms": 30}, "reason": "policy"});
    did(&put, "retention", keep).await;
    clinic.get("/api/v1/retention/dry-run", &admin).await;
    did(&post, "retention/run", json!({"reason": "monthly"})).await;
    did(&post, &format!("patients/{}/key/turn", patient(2)), json!({"reason": "leaked"})).await;
    did(&post, &format!("patients/{third}/erasure/dry-run"), json!({})).await;
    let order = json!({"reason": "asked for", "request": "case 1", "confirm": "MRN-3"});
    did(&post, &format!("patients/{third}/erasure"), order).await;

    let app = json!({"name": "App", "kind": "app", "redirect_uris": ["https://a.example/cb"], "scopes": "user/*.rs"});
    let mut app = did(&post, "clients", app).await;
    let path = format!("clients/{}", text(&app["id"]));
    let change = json!({
        "name": "App 2", "kind": "app", "redirect_uris": ["https://a.example/cb"], "scopes": "user/*.rs",
        "version": app["version"].take(),
    });
    did(&put, &path, change).await;
    did(&delete, &path, json!({})).await;
    let provider = json!({
        "name": "P", "issuer": "https://idp.example", "client_id": "us", "enabled": false, "provisioning": "existing",
    });
    did(&put, "identity-providers/settings/p", provider).await;
    did(&delete, "identity-providers/settings/p", json!({})).await;
    did(&post, "policies/reload", json!({})).await;
    clinic.get("/api/v1/audit?action=erase", &admin).await;
    clinic.text("/api/v1/audit/export?format=csv", &admin).await;

    let account = did(&post, "account/recovery-codes", json!({})).await;
    assert_eq!(account["codes"].as_array().unwrap().len(), 10);
    did(&put, "account/password", json!({"password": "another good battery"})).await;
    did(&delete, "account/totp", json!({})).await;
    let shown = clinic.get("/api/v1/account", &admin).await.body;
    let passkey = format!("account/passkeys/{}", text(&shown["passkeys"][0]["id"]));
    did(&put, &passkey, json!({"name": "the blue one"})).await;
    did(&post, "account/sessions/end-others", json!({})).await;
    did(&post, "sign-out", json!({})).await;
    assert_eq!(without_address(&clinic), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_act_of_a_clinician_names_the_address() {
    let mut clinic = Clinic::furnished();
    clinic.address = Some(ADDRESS.parse().unwrap());
    let (nurse, physician) = (clinic.sign_in("nurse").await, clinic.sign_in("physician").await);
    clinic
        .ingest(monitor(1), r#"[{"measure":"heart_rate","value":20},{"measure":"systolic","value":30}]"#)
        .await;
    eventually("an alert stands", || clinic.site.live_chart(|chart| !chart.open_alerts().is_empty())).await;
    let alerts = clinic.get("/api/v1/alerts", &nurse).await.body["alerts"].clone();
    let path = format!("alerts/{}", text(&alerts[0]["id"]));
    does(&clinic, &nurse, Method::POST, &format!("{path}/acknowledge"), json!({"note": null})).await;
    does(&clinic, &nurse, Method::POST, &format!("{path}/resolve"), json!({"note": null})).await;
    let limits = json!({"limits": []});
    does(&clinic, &nurse, Method::PUT, &format!("patients/{}/limits", patient(1)), limits).await;

    for _ in 0..2 {
        clinic.ingest(monitor(1), r#"[{"measure":"heart_rate","value":100000}]"#).await;
        clinic.clock.advance(1);
    }
    let waiting = clinic.get("/api/v1/quarantine", &nurse).await.body["items"].clone();
    let path = format!("quarantine/{}", text(&waiting[0]["id"]));
    does(&clinic, &nurse, Method::POST, &format!("{path}/rerun"), json!({})).await;
    does(&clinic, &nurse, Method::POST, &format!("{path}/discard"), json!({"reason": "nonsense"})).await;

    let rule = json!({"decision": "deny", "who": [], "purposes": ["HRESCH"]});
    let path = format!("patients/{}/consents", patient(1));
    let consent = does(&clinic, &nurse, Method::POST, &path, rule).await;
    let path = format!("consents/{}/withdraw", text(&consent["id"]));
    does(&clinic, &nurse, Method::POST, &path, json!({"version": 1})).await;

    let asked = json!({
        "record_number": "MRN-2", "birth_date": "1950-03-21", "reason": "other", "text": "found lying on the floor",
    });
    let glass = does(&clinic, &physician, Method::POST, "break-glass", asked).await;
    let id = text(&glass["id"]).to_owned();
    let glass = does(&clinic, &physician, Method::POST, &format!("break-glass/{id}/end"), json!({})).await;
    let auditor = clinic.sign_in("auditor").await;
    let review = json!({"version": glass["version"], "finding": "justified", "note": "seen in the notes"});
    does(&clinic, &auditor, Method::POST, &format!("break-glass/{id}/review"), review).await;
    assert_eq!(without_address(&clinic), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_act_of_an_engineer_names_the_address() {
    let mut house = House::open().await;
    house.clinic.address = Some(ADDRESS.parse().unwrap());
    let clinic = &house.clinic;
    let engineer = clinic.sign_in("biomedical-engineer").await;
    let path = |rest: &str| format!("devices/{}/{rest}", monitor(1));
    does(clinic, &engineer, Method::POST, &path("claim"), json!({})).await;
    does(clinic, &engineer, Method::DELETE, &path("claim"), json!({})).await;
    does(clinic, &engineer, Method::POST, &path("certificate/revoke"), json!({"reason": "lost"})).await;
    does(clinic, &engineer, Method::POST, &path("decommission"), json!({"reason": "broken"})).await;
    assert_eq!(without_address(clinic), Vec::<String>::new());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_and_a_program_name_the_address() {
    let mut clinic = Clinic::empty();
    clinic.address = Some(ADDRESS.parse().unwrap());
    let token = clinic.web.first_start_token().unwrap();
    let body = json!({"token": token.expose(), "name": "first", "display": "First", "password": null});
    assert_eq!(clinic.post("/api/v1/setup", "", body).await.status, StatusCode::OK);
    let wrong = [("grant_type", "client_credentials"), ("client_id", "nobody")];
    assert_eq!(clinic.form(crate::oauth::TOKEN, &wrong).await.status, StatusCode::UNAUTHORIZED);
    let rows = clinic.site.store().audit_rows(&AuditQuery { limit: 100, ..AuditQuery::default() }).unwrap();
    let asked = rows.iter().map(|row| &row.record).filter(|record| record.actor != Actor::System);
    let addresses: Vec<_> = asked.map(|record| record.address.as_deref()).collect();
    assert!(addresses.len() >= 3 && addresses.iter().all(|one| *one == Some(ADDRESS)), "{rows:?}");
}
