//! The audit log over HTTP: searched, proven, taken out, and safe from what people write into it.

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipeline::audited::Act;
use pipeline::checkpoints::{CheckpointOptions, keep};
use serde_json::Value;
use store::{Actor, AuditAction, AuditOutcome, Log};
use trust::log::checkpoint::Checkpoint;
use trust::log::note::VerifierKey;
use trust::log::receipt::Receipt;
use trust::log::tree::{leaf_hash, verify_inclusion};

use crate::clinic::{Clinic, monitor, patient};

/// What somebody may write into a field that reaches the log, a table or a page.
const INJECTIONS: [&str; 6] = [
    "=cmd|' /C calc'!A0",
    "two\r\nlines\n2026-11-22T08:30:00Z ERROR forged",
    "\u{1b}[2J\u{1b}[31mred",
    "nul\0byte",
    "<script>alert(1)</script>",
    "\u{202e}txt.exe",
];

fn sign(clinic: &Clinic) {
    for log in Log::ALL {
        let at = clinic.site.clock().now();
        keep(clinic.site.store(), log, &CheckpointOptions::default(), at, true, None).unwrap();
    }
}

fn act(clinic: &Clinic, act: Act, outcome: AuditOutcome) {
    clinic.site.record(act, outcome).unwrap();
}

fn rows(body: &Value) -> Vec<(String, String)> {
    let rows = body["rows"].as_array().unwrap();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(row, "action"), text(row, "object"))).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_found_by_patient_person_device_action_outcome_and_broken_glass() {
    let clinic = Clinic::furnished();
    let read = |object| Act::new(Actor::System, AuditAction::Read, object);
    act(&clinic, read("first").patient(patient(1)).purpose("TREAT").role("nurse"), AuditOutcome::Success);
    act(&clinic, read("second").patient(patient(2)).break_glass([9; 16]), AuditOutcome::Success);
    act(&clinic, read("third").device(monitor(1)), AuditOutcome::Refused);
    let export = Act::new(Actor::Program("lab".to_owned()), AuditAction::Export, "fourth");
    act(&clinic, export.policies(["p1", "p2"]).address("192.0.2.7"), AuditOutcome::Success);
    let auditor = clinic.sign_in("auditor").await;
    let ask = async |query: &str| {
        let answer = clinic.get(&format!("/api/v1/audit?{query}"), &auditor).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {:?}", answer.body);
        answer.body
    };
    let only = |object: &str, action: &str| vec![(action.to_owned(), object.to_owned())];
    let mine = |body: &Value| {
        let wanted = ["first", "second", "third", "fourth"];
        rows(body).into_iter().filter(|(_, object)| wanted.contains(&object.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(mine(&ask(&format!("patient={}", patient(1))).await), only("first", "read"));
    assert_eq!(mine(&ask("break_glass=true").await), only("second", "read"));
    assert_eq!(mine(&ask(&format!("device={}", monitor(1))).await), only("third", "read"));
    assert_eq!(mine(&ask("outcome=refused").await), only("third", "read"));
    assert_eq!(mine(&ask("action=export").await), only("fourth", "export"));
    assert_eq!(mine(&ask("actor=lab").await), only("fourth", "export"));
    let body = ask("action=export").await;
    let row = body["rows"].as_array().unwrap().iter().find(|row| row["object"] == "fourth").unwrap();
    assert_eq!((&row["policies"][1], &row["address"]), (&"p2".into(), &"192.0.2.7".into()));
    let page = ask("limit=2").await;
    assert_eq!((page["rows"].as_array().unwrap().len(), &page["more"]), (2, &true.into()));
    let before = page["next_before"].as_u64().unwrap();
    assert!(ask(&format!("limit=2&before={before}")).await["rows"][0]["sequence"].as_u64().unwrap() < before);
    for wrong in ["action=nothing", "outcome=x", "from=yesterday"] {
        let answer = clinic.get(&format!("/api/v1/audit?{wrong}"), &auditor).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_proven_to_a_signed_checkpoint() {
    let clinic = Clinic::furnished();
    act(&clinic, Act::new(Actor::System, AuditAction::Read, "x").patient(patient(1)), AuditOutcome::Success);
    let auditor = clinic.sign_in("auditor").await;
    let early = clinic.get("/api/v1/audit/1/proof", &auditor).await;
    assert_eq!((early.status, &early.body["code"]), (StatusCode::CONFLICT, &"not-yet-provable".into()));
    sign(&clinic);
    let proof = clinic.get("/api/v1/audit/1/proof", &auditor).await.body;
    let leaf = leaf_hash(&bytes(&proof["leaf_input"]));
    assert_eq!(leaf.to_vec(), bytes(&proof["leaf"]));
    let path: Vec<[u8; 32]> =
        proof["path"].as_array().unwrap().iter().map(|hash| bytes(hash).try_into().unwrap()).collect();
    let keys: Vec<VerifierKey> = proof["log_keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key.as_str().unwrap().parse().unwrap())
        .collect();
    let (head, _) = Checkpoint::verified(proof["checkpoint"].as_str().unwrap(), &keys).unwrap();
    assert_eq!(verify_inclusion(&leaf, 0, head.size, &path, &head.root), Ok(()));
    let receipt = Receipt::parse(proof["tlog_proof"].as_str().unwrap()).unwrap();
    assert!(receipt.verify(&leaf, &keys).is_ok());
    let content = &proof["content"];
    let blinding: [u8; 32] = bytes(&content["blinding"]).try_into().unwrap();
    let payload = content["payload"].as_str().unwrap().as_bytes();
    assert_eq!(trust::audit::leaf(&bytes(&content["header"]), &blinding, payload), leaf);
    assert_eq!(clinic.get("/api/v1/audit/99999/proof", &auditor).await.status, StatusCode::NOT_FOUND);
    let state = clinic.get("/api/v1/audit/log", &auditor).await.body;
    assert_eq!(state["logs"][0]["log"], "acts");
    assert_eq!(state["alarms"], Value::Array(Vec::new()));
    // Anybody may see how large the log is, and nobody else its tree.
    let checkpoint = clinic.text("/audit/checkpoint", "").await;
    assert!(Checkpoint::verified(&checkpoint, &keys).is_ok(), "{checkpoint}");
    assert_eq!(clinic.get("/audit/tile/0/0", "").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_write_into_the_log_acts_nowhere() {
    let clinic = Clinic::furnished();
    for injection in INJECTIONS {
        let detail = Act::new(Actor::Program(injection.to_owned()), AuditAction::Read, "x");
        act(&clinic, detail.detail(injection).role(injection).address(injection), AuditOutcome::Success);
    }
    let long = "x".repeat(1 << 20);
    act(
        &clinic,
        Act::new(Actor::Unproven(long.clone()), AuditAction::SignIn, "session").detail(long),
        AuditOutcome::Refused,
    );
    let auditor = clinic.sign_in("auditor").await;
    let csv = clinic.text("/api/v1/audit/export?format=csv", &auditor).await;
    let lines: Vec<&str> = csv.split("\r\n").collect();
    let columns = lines[0].split(',').count();
    for line in lines[1..].iter().filter(|line| !line.is_empty()) {
        assert!(!line.chars().any(char::is_control), "{line}");
        assert!(line.starts_with('"') && line.ends_with('"') && line.len() < 20_000);
        assert_eq!(line.split("\",\"").count(), columns, "{line}");
        for field in line.trim_matches('"').split("\",\"") {
            assert!(!field.starts_with(['=', '+', '-', '@']), "{field}");
        }
    }
    let text = clinic.text("/api/v1/audit/export?format=ndjson", &auditor).await;
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["resourceType"], "AuditEvent");
        assert!(!line.chars().any(char::is_control));
    }
    assert!(text.lines().count() > INJECTIONS.len());
    // The page gets them as they are, as text in JSON, and cut to a bound.
    let page = clinic.get("/api/v1/audit?limit=50", &auditor).await.body;
    let longest =
        page["rows"].as_array().unwrap().iter().map(|row| row["detail"].as_str().unwrap().len()).max();
    assert_eq!(longest, Some(4_096));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_read_the_log_takes_it_out_and_that_is_recorded() {
    let clinic = Clinic::furnished();
    let nurse = clinic.sign_in("nurse").await;
    for path in
        ["/api/v1/audit/export?format=csv", "/api/v1/audit/1/proof", "/api/v1/audit/log", "/audit/tile/0/0"]
    {
        assert_eq!(clinic.get(path, &nurse).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(clinic.get("/api/v1/me/audit", &nurse).await.status, StatusCode::NOT_FOUND);
    let auditor = clinic.sign_in("auditor").await;
    drop(clinic.text("/api/v1/audit/export?format=csv&action=read", &auditor).await);
    let rows = clinic.get("/api/v1/audit?action=export", &auditor).await.body;
    assert_eq!(rows["rows"][0]["object"], "audit log");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_no_chart_reads_record_numbers_and_no_names_in_the_log() {
    let clinic = Clinic::furnished();
    let theirs = clinic.sign_in("patient").await;
    let nurse = clinic.sign_in("nurse").await;
    for cookie in [&theirs, &nurse] {
        let answer = clinic.get(&format!("/api/v1/patients/{}", patient(1)), cookie).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let auditor = clinic.sign_in("auditor").await;
    let page = clinic.get(&format!("/api/v1/audit?patient={}", patient(1)), &auditor).await.body;
    assert_eq!(page["rows"][0]["patient"]["label"], "record MRN-1");
    let labels: Vec<_> =
        page["rows"].as_array().unwrap().iter().map(|row| row["actor"]["label"].to_string()).collect();
    assert!(labels.contains(&"\"nurse\"".to_owned()), "{labels:?}");
    assert!(labels.contains(&"\"patient, record MRN-1\"".to_owned()), "{labels:?}");
    for path in ["/api/v1/audit?limit=500", "/fhir/AuditEvent?_count=500"] {
        let text = clinic.get(path, &auditor).await.body.to_string();
        assert!(!text.to_lowercase().contains("family1"), "{path}: {text}");
    }
    for format in ["csv", "ndjson"] {
        let text = clinic.text(&format!("/api/v1/audit/export?format={format}"), &auditor).await;
        assert!(!text.to_lowercase().contains("family1") && text.contains("MRN-1"), "{format}: {text}");
    }
    // Who may see the patient reads the name.
    let mine = clinic.get("/api/v1/me/audit", &theirs).await.body;
    assert_eq!(mine["rows"][0]["patient"]["label"], "FAMILY1, Given1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_asked_by_record_number_and_by_the_name_or_serial_number_of_a_device() {
    let clinic = Clinic::furnished();
    let read = |object| Act::new(Actor::System, AuditAction::Read, object);
    act(&clinic, read("first").patient(patient(1)), AuditOutcome::Success);
    act(&clinic, read("third").device(monitor(1)), AuditOutcome::Success);
    let auditor = clinic.sign_in("auditor").await;
    for (query, object) in
        [("patient=mrn-1", "first"), ("device=monitor%201", "third"), ("device=S1", "third")]
    {
        let answer = clinic.get(&format!("/api/v1/audit?{query}"), &auditor).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {:?}", answer.body);
        assert!(rows(&answer.body).iter().any(|(_, found)| found == object), "{query}: {:?}", answer.body);
        assert!(!rows(&answer.body).iter().any(|(_, found)| found == "x"), "{query}");
    }
    for query in ["patient=MRN-", "patient=MRN-9", "device=Monitor"] {
        let answer = clinic.get(&format!("/api/v1/audit?{query}"), &auditor).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
    let export = clinic.text("/api/v1/audit/export?format=csv&patient=MRN-1", &auditor).await;
    assert!(export.contains("first") && !export.contains("third"), "{export}");
}
