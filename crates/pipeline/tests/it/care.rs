//! Erasure, legal holds, retention and keys over a running site.

use clinical_model::{DeviceId, FrameKind, RecordId as _, Subject, Timestamp};
use pipeline::desk::DeskError;
use pipeline::erasure::{ErasureError, ErasureOrder};
use pipeline::records::{REQUESTS_BY_DEVICE, json_write};
use pipeline::retention::{KeepDays, RetainedClass};
use pipeline::{Site, erasure};
use store::{
    Actor, AuditQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order, RangeQuery, StoreError,
    Transaction,
};

use super::site::{MONITOR, NURSE, PATIENT, START_S, SetClock, furnish, heart_rate, open, send};

const PIECES: usize = 200;

fn by() -> Actor {
    Actor::User(NURSE)
}

fn order() -> ErasureOrder {
    ErasureOrder {
        patient: PATIENT,
        reason: "asked for by the patient".to_owned(),
        request: "case 17".to_owned(),
        confirm: "MRN-1".to_owned(),
        turn_within_days: 30,
    }
}

fn details(site: &Site) -> Vec<String> {
    let rows = site.store().audit_rows(&AuditQuery { limit: 1_000, ..AuditQuery::default() }).unwrap();
    rows.iter()
        .map(|row| format!("{:?} {} {}", row.record.action, row.record.object, row.record.detail))
        .collect()
}

#[tokio::test]
async fn a_patient_is_erased_with_a_statement_that_anybody_can_check() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    for value in [70, 180, 71] {
        heart_rate(&site, value).await;
        clock.advance(60);
    }
    send(&site, MONITOR, FrameKind::Envelope, b"{\"unreadable\":").await;
    clock.advance(60);
    let preview = site.preview_erasure(by(), PATIENT).unwrap();
    assert!(
        preview.hold.is_none() && preview.rows.quarantine == 1 && preview.rows.latest == 1,
        "{preview:?}"
    );

    // A hold beats everything, and a wrong number erases nobody.
    site.hold(by(), PATIENT, "a claim is pending", None).unwrap();
    assert!(matches!(site.erase(by(), &order()), Err(ErasureError::OnHold { .. })));
    site.end_hold(by(), PATIENT, "the claim was settled").unwrap();
    let wrong = ErasureOrder { confirm: "MRN-2".to_owned(), ..order() };
    assert!(matches!(site.erase(by(), &wrong), Err(ErasureError::NotConfirmed)));
    assert!(site.registry().patient(PATIENT).is_some());

    site.erase(by(), &order()).unwrap();
    assert!(site.registry().patient(PATIENT).is_none());
    assert_eq!(site.registry().assignments(MONITOR), []);
    assert!(matches!(site.erase(by(), &order()), Err(ErasureError::NotFound)));
    // The device goes on sending: to nobody.
    let receipt = heart_rate(&site, 75).await;
    assert!(format!("{receipt:?}").contains("Quarantined"), "{receipt:?}");
    while site.care_now("Test site", PIECES).unwrap() {}

    let done = site.erasures().unwrap().remove(0);
    assert_eq!(
        (done.state(), done.request.as_str(), done.removed.quarantine),
        ("waiting-for-turn", "case 17", 1)
    );
    let statement = done.statement.unwrap();
    let signer = erasure::signer(site.store(), "Test site", Timestamp::from_seconds(START_S)).unwrap();
    let signature: Vec<u8> = (0..done.signature.as_ref().unwrap().len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&done.signature.as_ref().unwrap()[at..at + 2], 16).unwrap())
        .collect();
    signer.check(statement.as_bytes(), &signature).unwrap();
    for private in ["Okonkwo", "Ada", "MRN-1", "1950"] {
        assert!(!statement.contains(private), "{private} in {statement}");
        assert!(!details(&site).iter().any(|line| line.contains(private)), "{private} in the audit log");
    }
    assert!(details(&site).iter().any(|line| line.contains("case 17") && line.contains("asked for")));
    // Whoever was handed certificate and signer finds the signer in the log, which others cosign.
    let anchored = format!("signer's certificate SHA-256 {}", signer.fingerprint_hex());
    assert!(details(&site).iter().any(|line| line.contains(&anchored)));
    let report = site.store().verify(&mut |_, _| {}).unwrap();
    assert_eq!(report.findings, []);
    site.stop();
    drop(site);

    // Nothing comes back with a restart.
    let site = open(directory.path(), clock);
    assert!(site.registry().patient(PATIENT).is_none());
    let filter = store::SeriesFilter { subject: Some(Subject::Patient(PATIENT)), ..Default::default() };
    for series in site.store().series(&filter).unwrap() {
        let all = RangeQuery { from: Timestamp::MIN, to: Timestamp::MAX, order: Order::Ascending, limit: 10 };
        assert_eq!(site.store().readings(&series, &all).unwrap().len(), 0);
    }
    site.stop();
}

#[tokio::test]
async fn an_erasure_that_was_broken_off_goes_on_before_anything_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    heart_rate(&site, 190).await;
    let now = Timestamp::from_seconds(START_S);
    // The process ends right after the key was destroyed: every document of the patient is still there, unreadable.
    site.store().care().begin_erasure(PATIENT, now).unwrap();
    site.stop();
    drop(site);
    let site = open(directory.path(), clock);
    assert!(site.registry().patient(PATIENT).is_none());
    while site.care_now("Test site", PIECES).unwrap() {}
    assert!(site.erasures().unwrap()[0].purged_at.is_some());
    assert!(matches!(site.store().ensure_patient_key(PATIENT), Err(StoreError::KeyGone { .. })));
    site.stop();
}

#[tokio::test]
async fn a_run_removes_what_the_policy_no_longer_keeps() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    heart_rate(&site, 200).await;
    clock.advance(40 * 86_400);
    heart_rate(&site, 72).await;
    site.fold_now().unwrap();
    let days = KeepDays::from([(RetainedClass::Readings, 30), (RetainedClass::RawFrames, 30)]);
    let too_short = KeepDays::from([(RetainedClass::AuditDetails, 365)]);
    assert!(site.set_retention(by(), 0, too_short, "too short").is_err());
    assert!(site.run_retention(by(), "nothing to do").is_err(), "without a policy nothing goes");
    let counted = site.count_outdated(by(), Some(days.clone())).unwrap();
    assert!(counted.iter().all(|count| count.outdated.rows == 1), "{counted:?}");
    let kept = site.set_retention(by(), 0, days.clone(), "thirty days").unwrap();
    assert!(site.set_retention(by(), 0, days, "again").is_err(), "somebody else was faster");
    assert_eq!(kept.version, 1);

    site.hold(by(), PATIENT, "a claim", None).unwrap();
    site.run_retention(by(), "monthly").unwrap();
    assert!(site.run_retention(by(), "twice").is_err());
    while site.care_now("Test site", PIECES).unwrap() {}
    let run = site.retention().unwrap().run.unwrap();
    assert!(run.ended_at.is_some() && run.rows == 0, "a hold keeps everything: {run:?}");

    site.end_hold(by(), PATIENT, "settled").unwrap();
    site.run_retention(by(), "monthly").unwrap();
    while site.care_now("Test site", PIECES).unwrap() {}
    let run = site.retention().unwrap().run.unwrap();
    assert!(run.error.is_none() && run.rows == 2, "{run:?}");
    let left = site.count_outdated(by(), None).unwrap();
    assert!(left.iter().all(|count| count.outdated.rows == 0), "{left:?}");
    assert!(details(&site).iter().any(|line| line.contains("retention") && line.contains("2 stored rows")));
    // Nobody changed the policy: neither the two runs nor their ends count as a version of it.
    assert_eq!(site.retention().unwrap().version, 1);
    assert_eq!(site.retention_versions().unwrap().len(), 1);
    site.stop();
}

#[tokio::test]
async fn a_patients_key_turns_over_in_the_background() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    heart_rate(&site, 70).await;
    site.fold_now().unwrap();
    site.turn_patient_key(by(), PATIENT, "a key may have leaked").unwrap();
    assert_eq!(site.store().care().key_status().unwrap().rekeys.len(), 1);
    while site.care_now("Test site", PIECES).unwrap() {}
    site.care_now("Test site", PIECES).unwrap();
    let status = site.store().care().key_status().unwrap();
    assert_eq!((status.rekeys.len(), status.patient_keys), (0, 1));
    let turned = details(&site).iter().filter(|line| line.contains("patient's key")).count();
    assert_eq!(turned, 2, "begun and ended: {:?}", details(&site));
    site.stop();
}

#[tokio::test]
async fn an_erasure_that_ended_between_its_order_and_its_key_is_carried_out() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    heart_rate(&site, 190).await;
    let at = Timestamp::from_seconds(START_S);
    // What the first transaction of an erasure leaves behind: the order is kept, the patient is not, the key still is.
    let ordered = erasure::Erasure {
        patient: PATIENT,
        request: "case 18".to_owned(),
        by: Some(NURSE),
        begun_at: at,
        purged_at: None,
        epoch: String::new(),
        epoch_destroyed_at: None,
        turn_due_by: at,
        removed: erasure::RemovedRows::default(),
        worn: Vec::new(),
        statement: None,
        signature: None,
    };
    let id = PATIENT.to_bytes();
    let (any, system) = (Expected::Any, KeyDomain::System);
    let order = json_write(Kind::Erasure, id, any, system, &ordered, Vec::new());
    let patient = DocumentWrite {
        kind: Kind::Patient,
        id,
        expected: Expected::Any,
        domain: KeyDomain::System,
        body: None,
        index: Vec::new(),
    };
    let writes = vec![order, patient];
    site.store().transact(&Transaction { at, writes, ..Transaction::default() }).unwrap();
    site.stop();
    drop(site);

    let site = open(directory.path(), clock);
    assert!(matches!(site.store().ensure_patient_key(PATIENT), Err(StoreError::KeyGone { .. })));
    while site.care_now("Test site", PIECES).unwrap() {}
    let done = site.erasures().unwrap().remove(0);
    assert_eq!((done.state(), done.request.as_str()), ("waiting-for-turn", "case 18"));
    assert!(done.statement.is_some() && done.removed != erasure::RemovedRows::default(), "{done:?}");
    site.stop();
}

#[tokio::test]
async fn an_erasure_in_a_restored_copy_takes_along_what_nobody_could_read() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    send(&site, MONITOR, FrameKind::Envelope, b"{\"unreadable\":").await;
    clock.advance(60);
    // As a list of erasures beside the key does it before an older copy is opened: no document here knows the devices.
    site.store().care().begin_erasure(PATIENT, Timestamp::from_seconds(START_S + 60)).unwrap();
    site.stop();
    drop(site);
    let site = open(directory.path(), clock);
    while site.care_now("Test site", PIECES).unwrap() {}
    let done = site.erasures().unwrap().remove(0);
    assert_eq!((done.removed.quarantine, done.worn.len()), (1, 1), "{done:?}");
    site.stop();
}

#[tokio::test]
async fn a_hold_keeps_what_nobody_could_read_too() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    send(&site, MONITOR, FrameKind::Envelope, b"{\"unreadable\":").await;
    clock.advance(40 * 86_400);
    heart_rate(&site, 72).await;
    site.fold_now().unwrap();
    let days = KeepDays::from([(RetainedClass::RawFrames, 30)]);
    site.set_retention(by(), 0, days, "thirty days").unwrap();
    let would_go = |site: &Site| site.count_outdated(by(), None).unwrap()[0].outdated.rows;
    assert_eq!(would_go(&site), 1);
    site.hold(by(), PATIENT, "a claim", None).unwrap();
    assert_eq!(would_go(&site), 0, "it may be the held patient's");
    site.run_retention(by(), "monthly").unwrap();
    while site.care_now("Test site", PIECES).unwrap() {}
    assert_eq!(site.retention().unwrap().run.unwrap().rows, 0);
    site.end_hold(by(), PATIENT, "settled").unwrap();
    assert_eq!(would_go(&site), 1);
    site.stop();
}

#[tokio::test]
async fn a_care_that_fails_keeps_no_erasure_from_going_on() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    heart_rate(&site, 72).await;
    site.hold(by(), PATIENT, "a claim", None).unwrap();
    site.set_retention(by(), 0, KeepDays::from([(RetainedClass::Readings, 30)]), "thirty days").unwrap();
    site.run_retention(by(), "monthly").unwrap();
    // As another node erases: the hold stands there until its row is removed, and nobody can read it.
    site.store().care().begin_erasure(PATIENT, Timestamp::from_seconds(START_S)).unwrap();
    assert!(site.care_now("Test site", 1).is_err(), "the run cannot read the holds");
    let is_over = (0..PIECES).any(|_| matches!(site.care_now("Test site", 1), Ok(false)));
    assert!(is_over && site.store().care().erasures().unwrap()[0].purged_at.is_some());
    site.stop();
}

#[tokio::test]
async fn what_devices_were_answered_and_what_was_promised_is_erased_with_the_patient() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    heart_rate(&site, 72).await;
    let put = |kind: Kind, number: u8, domain: KeyDomain, index: Vec<IndexEntry>| {
        let body = Some(br#"{"what":"999 is no heart rate"}"#.to_vec());
        let write = DocumentWrite { kind, id: [number; 16], expected: Expected::Any, domain, body, index };
        let at = site.clock().now();
        site.store().transact(&Transaction { at, writes: vec![write], ..Transaction::default() }).unwrap();
    };
    let of_device = |device: DeviceId| {
        let value = device.to_bytes().to_vec();
        vec![IndexEntry { name: REQUESTS_BY_DEVICE, value, unique: false }]
    };
    put(Kind::IdempotentRequest, 1, KeyDomain::System, of_device(MONITOR));
    put(Kind::IdempotentRequest, 2, KeyDomain::System, of_device(DeviceId::from_bytes([9; 16])));
    put(Kind::PendingTransaction, 3, KeyDomain::Patient(PATIENT), Vec::new());
    clock.advance(60);
    site.erase(by(), &order()).unwrap();
    while site.care_now("Test site", PIECES).unwrap() {}
    let is_there = |kind, number| site.store().document(kind, [number; 16]).unwrap().is_some();
    assert!(!is_there(Kind::IdempotentRequest, 1) && !is_there(Kind::PendingTransaction, 3));
    assert!(is_there(Kind::IdempotentRequest, 2), "of a device that was never the patient's");
    assert_eq!(site.store().verify(&mut |_, _| {}).unwrap().findings, []);
    site.stop();
}

#[tokio::test]
async fn nobody_holds_a_record_that_another_node_erases() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    let order = json_write(
        Kind::Erasure,
        PATIENT.to_bytes(),
        Expected::Any,
        KeyDomain::System,
        &serde_json::json!({}),
        Vec::new(),
    );
    let at = site.clock().now();
    site.store().transact(&Transaction { at, writes: vec![order], ..Transaction::default() }).unwrap();
    let refused = site.hold(by(), PATIENT, "a claim", None);
    assert!(matches!(refused, Err(DeskError::Conflict { .. })), "{refused:?}");
    assert!(site.store().document(Kind::LegalHold, PATIENT.to_bytes()).unwrap().is_none());
    site.stop();
}
