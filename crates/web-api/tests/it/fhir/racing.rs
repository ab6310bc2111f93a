//! Conditions under many at once, over real HTTP with client certificates: of many, exactly one wins.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use futures_util::future::join_all;
use pipeline::identifiers::{self, IdentifierKey, KeptFrame, Outcome, Target};
use pipeline::{EntryOutcome, FactAddress, search::Position};
use serde_json::{Value, json};
use trust::pki::PeerUri;

use super::{at, get, heart_rate, ids, issue, post, post_with, program, send};
use crate::clinic::{Clinic, monitor, patient};
use crate::ingest::kept;
use crate::ingest::listener::Port;

const CLIENTS: usize = 16;
const ROUNDS: i64 = 12;

/// A heart rate that goes by an identifier.
fn named(second: i64, value: &str, identifier: &str) -> Value {
    let mut sent = heart_rate(monitor(1), Some(patient(1)), at(second), value);
    sent["identifier"] = json!([{ "system": "urn:example:once", "value": identifier }]);
    sent
}

fn condition(identifier: &str) -> String {
    format!("identifier=urn:example:once|{identifier}")
}

async fn statuses(
    port: &Port,
    clients: &[reqwest::Client],
    requests: impl Fn(usize, &reqwest::Client) -> reqwest::RequestBuilder,
) -> Vec<(u16, Value)> {
    let _ = port;
    let asked = clients.iter().enumerate().map(|(index, client)| {
        let request = requests(index, client).header("content-type", super::FHIR_JSON);
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
        }
    });
    join_all(asked).await
}

fn clients(port: &Port) -> Vec<reqwest::Client> {
    // Each with a connection of its own; HTTP/1.1 and HTTP/2 by turns.
    (0..CLIENTS).map(|index| port.client(PeerUri::program("ehr").unwrap(), index % 2 == 0).0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_conditional_creates_at_once_store_one() {
    let port = Port::open().await;
    let clients = clients(&port);
    for round in 0..ROUNDS {
        let identifier = format!("round-{round}");
        // Half of the rounds send what differs: another time and value under the same identifier.
        let differs = round % 2 == 1;
        let answers = statuses(&port, &clients, |index, client| {
            let second = -1_000 + round * 20 + if differs { index as i64 } else { 0 };
            client.post(port.url("/fhir/Observation")).header("if-none-exist", condition(&identifier)).body(
                named(second, &format!("{}", 60 + if differs { index } else { 0 }), &identifier).to_string(),
            )
        })
        .await;
        let created = answers.iter().filter(|(status, _)| *status == 201).count();
        assert!(answers.iter().all(|(status, _)| matches!(status, 200 | 201)), "{answers:?}");
        assert_eq!(created, 1, "round {round}: whoever claimed the identifier created it");
        let ids: BTreeSet<_> = answers.iter().map(|(_, body)| body["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 1, "round {round}");
        assert_eq!(kept(&port.clinic), round as usize + 1, "round {round}");
    }
    port.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_patients_at_once_with_one_number_are_one_patient() {
    let port = Port::open().await;
    let clients = clients(&port);
    let before = port.clinic.site.registry().patients().len();
    for round in 0..ROUNDS {
        let answers = statuses(&port, &clients, |_, client| {
            let body = json!({
                "resourceType": "Patient",
                "identifier": [{ "system": "urn:hospital", "value": format!("N-{round}") }],
                "name": [{ "family": "Raced" }],
            });
            client
                .post(port.url("/fhir/Patient"))
                .header("if-none-exist", format!("identifier=urn:hospital|N-{round}"))
                .body(body.to_string())
        })
        .await;
        let mut seen: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        seen.sort_unstable();
        assert_eq!((seen[0], seen[CLIENTS - 2], seen[CLIENTS - 1]), (200, 200, 201), "{answers:?}");
        let ids: BTreeSet<_> = answers.iter().map(|(_, body)| body["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 1);
        assert_eq!(port.clinic.site.registry().patients().len(), before + round as usize + 1);
    }
    port.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixteen_corrections_of_one_version_one_wins() {
    let port = Port::open().await;
    let clients = clients(&port);
    for round in 0..ROUNDS {
        let sent = heart_rate(monitor(1), Some(patient(1)), at(-1_000 + round), "72");
        let made = post(&port.clinic, &program(), "/fhir/Observation", &sent).await;
        let path = format!("/fhir/Observation/{}", made.body["id"].as_str().unwrap());
        let answers = statuses(&port, &clients, |index, client| {
            let mut body = made.body.clone();
            body["status"] = json!("corrected");
            body["valueQuantity"]["value"] = json!(73 + index);
            client.put(port.url(&path)).header("if-match", "W/\"1\"").body(body.to_string())
        })
        .await;
        let won: Vec<&Value> =
            answers.iter().filter(|(status, _)| *status == 200).map(|(_, body)| body).collect();
        assert_eq!(won.len(), 1, "round {round}: {answers:?}");
        assert_eq!(answers.iter().filter(|(status, _)| *status == 412).count(), CLIENTS - 1, "{answers:?}");
        let stands = get(&port.clinic, &program(), &path).await;
        assert_eq!(stands.body["valueQuantity"]["value"], won[0]["valueQuantity"]["value"]);
        assert_eq!(stands.body["meta"]["versionId"], "2");
    }
    port.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_conditional_updates_and_deletes_at_once_touch_one() {
    let port = Port::open().await;
    let clients = clients(&port);
    for round in 0..ROUNDS {
        let identifier = format!("up-{round}");
        let path = format!("/fhir/Observation?{}", condition(&identifier).replace('|', "%7C"));
        let answers = statuses(&port, &clients, |_, client| {
            client.put(port.url(&path)).body(named(-1_000 + round, "72", &identifier).to_string())
        })
        .await;
        // The first creates it; whoever finds it then says nothing new, or has not seen a version.
        assert!(answers.iter().all(|(status, _)| matches!(status, 200 | 201 | 428)), "{answers:?}");
        assert_eq!(kept(&port.clinic), round as usize + 1);
        let answers = statuses(&port, &clients, |_, client| client.delete(port.url(&path))).await;
        assert!(answers.iter().all(|(status, _)| *status == 204), "{answers:?}");
        let found = get(&port.clinic, &program(), "/fhir/Observation").await;
        assert!(ids(&found.body).is_empty(), "{}", found.body);
    }
    port.close().await;
}

/// Claims an identifier for an observation as a sender does that is stopped before it sends it.
fn claim_only(clinic: &Clinic, identifier: &str, sent: &Value) -> Position {
    let intake = clinic.site.intake().unwrap();
    let frame = clinical_model::Frame {
        device: monitor(1),
        kind: clinical_model::FrameKind::Fhir,
        received_at: intake.now().truncated_to_millis(),
        delivery: clinical_model::Delivery::AtLeastOnce,
        bytes: sent.to_string().into_bytes(),
    };
    let outcomes = intake.preview(frame.clone()).unwrap();
    let EntryOutcome::Committed { facts } = &outcomes[0] else { panic!("{outcomes:?}") };
    let FactAddress { series, at, sequence } = facts[0];
    let position = Position { at, series, sequence };
    let store = clinic.site.store();
    let key = IdentifierKey::of(store, "Observation", &format!("urn:example:once|{identifier}"));
    let target = Target::observation(&position);
    let claimed = identifiers::claim_now(store, intake.now(), key, target, KeptFrame::of(&frame)).unwrap();
    assert_eq!(claimed, Outcome::Ours);
    position
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_never_charted_is_finished_by_whoever_comes_next() {
    let clinic = Clinic::furnished();
    claim_only(&clinic, "lost", &named(-50, "61", "lost"));
    assert_eq!(kept(&clinic), 0);
    // Whoever comes next brings another measurement under the same identifier: what was claimed first is what it is.
    let other = named(-40, "99", "lost").to_string();
    let header = [("if-none-exist", &*condition("lost"))];
    let healed = post_with(&clinic, &program(), "/fhir/Observation", other, &header).await;
    assert_eq!(healed.status, StatusCode::OK, "{}", healed.body);
    assert_eq!(healed.body["valueQuantity"]["value"], 61);
    assert_eq!(kept(&clinic), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identifier_of_what_is_not_in_the_chart_is_a_conflict() {
    let clinic = Clinic::furnished();
    let position = claim_only(&clinic, "other", &named(-50, "61", "other"));
    let store = clinic.site.store();
    // As an unconditional create leaves it, which keeps no frame, when the measurement is gone.
    let key = IdentifierKey::of(store, "Observation", "urn:example:once|gone");
    identifiers::add_now(store, clinic.site.clock().now(), &[key], Target::observation(&position)).unwrap();
    let header = [("if-none-exist", &*condition("gone"))];
    let sent = named(-40, "99", "gone").to_string();
    let answer = post_with(&clinic, &program(), "/fhir/Observation", sent, &header).await;
    assert_eq!((answer.status, issue(&answer).0), (StatusCode::CONFLICT, "conflict"), "{}", answer.body);
    assert_eq!(kept(&clinic), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_that_cannot_be_decided_are_refused() {
    let clinic = Clinic::furnished();
    let sent = named(-10, "72", "a").to_string();
    for (condition, status, code) in [
        ("code=8867-4", StatusCode::BAD_REQUEST, "not-supported"),
        ("identifier=urn:example:once|a&status=final", StatusCode::BAD_REQUEST, "not-supported"),
        ("identifier=a", StatusCode::PRECONDITION_FAILED, "multiple-matches"),
        ("identifier=urn:example:once|", StatusCode::PRECONDITION_FAILED, "multiple-matches"),
        ("identifier=x|a,x|b", StatusCode::PRECONDITION_FAILED, "multiple-matches"),
        ("", StatusCode::PRECONDITION_FAILED, "multiple-matches"),
    ] {
        let answer = post_with(
            &clinic,
            &program(),
            "/fhir/Observation",
            sent.clone(),
            &[("if-none-exist", condition)],
        )
        .await;
        assert_eq!((answer.status, issue(&answer).0), (status, code), "{condition}: {}", answer.body);
    }
    assert_eq!(kept(&clinic), 0);
    // Two observations under one identifier are told apart by nobody.
    for second in [-10, -9] {
        post(&clinic, &program(), "/fhir/Observation", &named(second, "72", "two")).await;
    }
    let header = [("if-none-exist", &*condition("two"))];
    let several =
        post_with(&clinic, &program(), "/fhir/Observation", named(-8, "72", "two").to_string(), &header)
            .await;
    assert_eq!(several.status, StatusCode::PRECONDITION_FAILED, "{}", several.body);
    let path = format!("/fhir/Observation?{}", condition("two"));
    let deleted = send(&clinic, &program(), axum::http::Method::DELETE, &path, &[], None).await;
    assert_eq!(deleted.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(kept(&clinic), 2);
    // A device learns nothing of what another has sent.
    let mut foreign = named(-7, "72", "mine");
    post(&clinic, &program(), "/fhir/Observation", &foreign).await;
    foreign["device"]["reference"] = json!(format!("Device/{}", monitor(2)));
    foreign["subject"]["reference"] = json!(format!("Patient/{}", patient(2)));
    let other = pipeline::Peer::Device(monitor(2));
    let header = [("if-none-exist", &*condition("mine"))];
    let refused = post_with(&clinic, &other, "/fhir/Observation", foreign.to_string(), &header).await;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    assert!(!refused.body.to_string().contains(&patient(1).to_string()));
}

/// An update that creates must not be told that all is well when another measurement has just taken its identifier.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_loses_the_race_for_an_identifier_is_told_so() {
    let clinic = Clinic::furnished();
    claim_only(&clinic, "lost", &named(-30, "71", "lost"));
    let path = format!("/fhir/Observation?{}", condition("lost"));
    let other = named(-20, "99", "lost");
    let lost = send(&clinic, &program(), axum::http::Method::PUT, &path, &[], Some(&other)).await;
    assert_eq!(lost.status, StatusCode::CONFLICT, "{}", lost.body);
    let found = get(&clinic, &program(), &path).await;
    assert_eq!(found.body["entry"][0]["resource"]["valueQuantity"]["value"], 71, "{}", found.body);
}

/// An identifier that is used again for another patient must not let that patient's measurement vanish with a 200.
#[tokio::test(flavor = "multi_thread")]
async fn an_identifier_of_another_patients_measurement_is_no_answer_to_a_create() {
    let clinic = Clinic::furnished();
    let header = [("if-none-exist", &*condition("order"))];
    let first = named(-50, "61", "order");
    for expected in [StatusCode::CREATED, StatusCode::OK] {
        let made = post_with(&clinic, &program(), "/fhir/Observation", first.to_string(), &header).await;
        assert_eq!(made.status, expected, "{}", made.body);
    }
    let mut other = heart_rate(monitor(2), Some(patient(2)), at(-40), "140");
    other["identifier"] = first["identifier"].clone();
    let refused = post_with(&clinic, &program(), "/fhir/Observation", other.to_string(), &header).await;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED, "{}", refused.body);
    assert!(!refused.body.to_string().contains(&patient(1).to_string()), "{}", refused.body);
    let entry = json!({"resource": other, "request": {"method": "POST", "url": "Observation", "ifNoneExist": condition("order")}});
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry]});
    let refused = post(&clinic, &program(), "/fhir", &bundle).await;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED, "{}", refused.body);
    assert_eq!(kept(&clinic), 1);
}
