//! Rules that shut out those who treat: the patient writes them as they like, others prove themselves and say why, and a
//! bed that lacks something by a rule says so.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::clinic::{Answer, Clinic, monitor, patient, ward};
use crate::live::Reader;

fn treating() -> Value {
    json!([{ "kind": "role", "id": "physician" }, { "kind": "role", "id": "nurse" }])
}

fn denies(who: Value, reason: Option<&str>) -> Value {
    let mut rule = json!({ "decision": "deny", "who": who });
    if let Some(reason) = reason {
        rule["reason"] = json!(reason);
    }
    rule
}

async fn add(clinic: &Clinic, cookie: &str, rule: Value) -> Answer {
    clinic.post(&format!("/api/v1/patients/{}/consents", patient(1)), cookie, rule).await
}

async fn withdraw(clinic: &Clinic, cookie: &str, consent: &Value, reason: Option<&str>) -> Answer {
    let path = format!("/api/v1/consents/{}/withdraw", consent["id"].as_str().unwrap());
    clinic.post(&path, cookie, json!({ "version": consent["version"], "reason": reason })).await
}

async fn measured() -> Clinic {
    let clinic = Clinic::furnished();
    clinic.ingest(monitor(1), r#"[{"measure":"heart_rate","value":72}]"#).await;
    clinic
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_shut_out_who_treats_only_with_a_fresh_proof_and_a_reason() {
    let clinic = measured().await;
    let (nurse, physician) = (clinic.sign_in("nurse").await, clinic.sign_in("physician").await);
    let named = clinic.get("/api/v1/consents/choices", &nurse).await.body["people"].clone();
    let doctor =
        named.as_array().unwrap().iter().find(|one| one["role"] == "physician").unwrap()["id"].clone();
    for who in [
        treating(),
        json!([]),
        json!([{ "kind": "ward", "id": ward(1) }]),
        json!([{ "kind": "care-team", "id": "night" }]),
        json!([{ "kind": "person", "id": doctor }]),
    ] {
        let answer = add(&clinic, &nurse, denies(who.clone(), None)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{who}: {:?}", answer.body);
        assert_eq!(answer.body["code"], "reason-needed");
        let nested = json!({ "decision": "permit", "except": [denies(who.clone(), None)] });
        assert_eq!(add(&clinic, &nurse, nested).await.status, StatusCode::BAD_REQUEST, "{who}");
    }
    // Who is not meant, or not for treatment, needs neither.
    let program = json!([{ "kind": "program", "id": "lab" }]);
    let research = json!({ "decision": "deny", "purposes": ["HRESCH"] });
    for rule in [denies(program, None), research, json!({ "decision": "permit", "who": treating() })] {
        let answer = add(&clinic, &nurse, rule.clone()).await;
        assert_eq!(answer.status, StatusCode::OK, "{rule}: {:?}", answer.body);
    }
    clinic.clock.advance(6 * 60);
    let answer = add(&clinic, &nurse, denies(treating(), Some("she said so"))).await;
    assert_eq!(answer.body["code"], "step-up-needed", "{:?}", answer.body);
    let code = json!({ "code": clinic.code() });
    assert_eq!(clinic.post("/api/v1/step-up/totp", &nurse, code).await.status, StatusCode::OK);
    let answer = add(&clinic, &nurse, denies(treating(), Some("she said so"))).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let themselves = clinic.sign_in("patient").await;
    let rows = clinic.get("/api/v1/me/audit", &themselves).await.body.to_string();
    assert!(rows.contains("Because: she said so"), "the patient reads why: {rows}");

    // The bed does not look silent, and alerts stay.
    let board = clinic.get(&format!("/api/v1/wards/{}/board", ward(1)), &physician).await.body;
    let tile = &board["tiles"][0];
    let length = |name: &str| tile[name].as_array().unwrap().len();
    assert_eq!((length("vitals"), length("devices")), (0, 1), "{tile}");
    let classes = tile["withheld"].to_string();
    assert!(classes.contains("vital-signs") && classes.contains("waveforms"), "{classes}");
    let page = clinic.get(&format!("/api/v1/patients/{}", patient(1)), &physician).await.body;
    assert_eq!(page["withheld"], tile["withheld"]);
    let own = clinic.get(&format!("/api/v1/patients/{}", patient(1)), &themselves).await.body;
    assert_eq!((&own["withheld"], own["latest"].as_array().unwrap().len()), (&json!([]), 1));

    // Whom it keeps out lets everybody in again, with proof and reason; the patient wrote nothing of it.
    let consent = answer.body;
    assert_eq!(
        withdraw(&clinic, &physician, &consent, Some("an error")).await.body["code"],
        "step-up-needed"
    );
    let physician = clinic.sign_in("physician").await;
    assert_eq!(withdraw(&clinic, &physician, &consent, None).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(withdraw(&clinic, &physician, &consent, Some("an error")).await.status, StatusCode::OK);
    let board = clinic.get(&format!("/api/v1/wards/{}/board", ward(1)), &physician).await.body;
    assert_eq!(
        (&board["tiles"][0]["withheld"], board["tiles"][0]["vitals"].as_array().unwrap().len()),
        (&json!([]), 1)
    );
    // And who wrote a rule takes it back.
    let again = add(&clinic, &nurse, denies(treating(), Some("again"))).await.body;
    clinic.clock.advance(6 * 60);
    assert_eq!(withdraw(&clinic, &nurse, &again, None).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_patient_shuts_out_shuts_out_nobody_and_lifts_nothing() {
    let clinic = measured().await;
    let (nurse, physician) = (clinic.sign_in("nurse").await, clinic.sign_in("physician").await);
    let themselves = clinic.sign_in("patient").await;
    let of_patient =
        add(&clinic, &themselves, denies(json!([{ "kind": "role", "id": "nurse" }]), None)).await;
    assert_eq!(of_patient.status, StatusCode::OK, "the patient needs no reason: {:?}", of_patient.body);
    let answer = add(&clinic, &nurse, denies(treating(), Some("spite"))).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{:?}", answer.body);
    let lifted = withdraw(&clinic, &nurse, &of_patient.body, Some("I want to see it")).await;
    assert_eq!(lifted.status, StatusCode::FORBIDDEN, "{:?}", lifted.body);
    // Whom it does not concern writes it down anew, and it stays the patient's.
    let path = format!("/api/v1/consents/{}", of_patient.body["id"].as_str().unwrap());
    let lifts = json!({ "version": 1, "rule": { "decision": "permit" } });
    let changed = clinic.call(Method::PUT, &path, Some(&physician), Some(lifts)).await;
    assert_eq!(changed.body["code"], "reason-needed", "whatever it says: {:?}", changed.body);
    let rule = denies(json!([{ "kind": "role", "id": "nurse" }]), Some("she asked me to"));
    let body = json!({ "version": 1, "rule": rule });
    let changed = clinic.call(Method::PUT, &path, Some(&physician), Some(body)).await;
    assert_eq!((changed.status, &changed.body["written_by"]), (StatusCode::OK, &json!("The patient")));
    let lifted = withdraw(&clinic, &nurse, &changed.body, Some("I want to see it")).await;
    assert_eq!(lifted.status, StatusCode::FORBIDDEN, "{:?}", lifted.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_fhir_staff_shut_out_nobody_who_treats() {
    let clinic = measured().await;
    let (nurse, themselves) = (clinic.sign_in("nurse").await, clinic.sign_in("patient").await);
    let elsewhere = clinic.sign_in("nurse 2").await;
    let deny = json!({
        "resourceType": "Consent", "status": "active",
        "scope": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy" }] },
        "category": [{ "coding": [{ "system": "http://loinc.org", "code": "59284-0" }] }],
        "patient": { "reference": format!("Patient/{}", patient(1)) },
        "performer": [{ "reference": format!("Patient/{}", patient(1)) }],
        "policyRule": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "OPTOUT" }] },
    });
    let answer = clinic.post("/fhir/Consent", &nurse, deny.clone()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{:?}", answer.body);
    let made = clinic.post("/fhir/Consent", &themselves, deny.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    // What the patient said does not become somebody else's word.
    let mut research = deny;
    research["patient"] = json!({ "reference": format!("Patient/{}", patient(2)) });
    research["performer"] = json!([{ "reference": format!("Patient/{}", patient(2)) }]);
    research["policyRule"]["coding"][0]["code"] = json!("OPTIN");
    research["provision"] = json!({
        "type": "deny",
        "purpose": [{ "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HRESCH" }],
    });
    let made = clinic.post("/fhir/Consent", &elsewhere, research.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    let id = made.body["id"].as_str().unwrap().to_owned();
    research["id"] = json!(id);
    research["performer"] = json!([{ "reference": "Practitioner/x" }]);
    let path = format!("/fhir/Consent/{id}");
    let answer = clinic.call(Method::PUT, &path, Some(&elsewhere), Some(research)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{:?}", answer.body);
    assert!(answer.body.to_string().contains("what the patient said"), "{:?}", answer.body);
}

/// The page of a caregiver kept what it had when the patient took the rule back.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_several_tells_who_may_no_longer_be_seen() {
    let clinic = measured().await;
    let (themselves, nurse) = (clinic.sign_in("patient").await, clinic.sign_in("nurse").await);
    let people = clinic.get("/api/v1/consents/choices", &nurse).await.body["people"].clone();
    let caregiver = people.as_array().unwrap().iter().find(|one| one["role"] == "caregiver").unwrap();
    let who = json!([{ "kind": "caregiver", "id": caregiver["id"] }]);
    let rule = json!({ "decision": "permit", "who": who, "classes": ["record", "vital-signs"] });
    let consent = add(&clinic, &themselves, rule).await.body;
    let theirs = clinic.sign_in("caregiver").await;
    let mut reader = Reader::open(&clinic, "/api/v1/live", &theirs, None).await;
    let mut ward = Reader::open(&clinic, &format!("/api/v1/live?ward={}", ward(1)), &nurse, None).await;
    let mut other = Reader::open(&clinic, "/api/v1/live", &clinic.sign_in("nurse 2").await, None).await;
    for reader in [&mut reader, &mut ward, &mut other] {
        assert_eq!(reader.next().await.unwrap().name(), "hello");
    }
    assert_eq!(withdraw(&clinic, &themselves, &consent, None).await.status, StatusCode::OK);
    assert_eq!(reader.until("gone").await.data, json!({ "patient_id": patient(1) }));
    clinic.clock.advance(5);
    clinic.ingest(monitor(1), r#"[{"measure":"heart_rate","value":80}]"#).await;
    clinic.ingest(monitor(2), r#"[{"measure":"heart_rate","value":80}]"#).await;
    for reader in [&mut ward, &mut other] {
        loop {
            let seen = reader.next().await.unwrap();
            assert_ne!(seen.name(), "gone", "they see whom they saw: {seen:?}");
            if seen.name() == "vitals" && seen.data.to_string().contains("\"80\"") {
                break;
            }
        }
    }
}
