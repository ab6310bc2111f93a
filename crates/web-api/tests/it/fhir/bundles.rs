//! Transactions are taken whole or not at all; batches entry by entry.

use axum::http::StatusCode;
use clinical_model::{Subject, measure};
use serde_json::{Value, json};
use store::{Order, RangeQuery, SeriesFilter};

use super::{at, get, heart_rate, issue, post, program};
use crate::clinic::{Answer, Clinic, monitor, patient};

fn bundle(kind: &str, resources: &[Value]) -> Value {
    let entry =
        |resource: &Value| json!({"resource": resource, "request": {"method": "POST", "url": "Observation"}});
    json!({"resourceType": "Bundle", "type": kind, "entry": resources.iter().map(entry).collect::<Vec<_>>()})
}

fn kept(clinic: &Clinic) -> usize {
    let store = clinic.site.store();
    let filter = SeriesFilter { measures: vec![measure::HEART_RATE], ..SeriesFilter::default() };
    let range = RangeQuery { from: at(-100_000), to: at(100_000), order: Order::Ascending, limit: 10_000 };
    store.series(&filter).unwrap().iter().map(|series| store.readings(series, &range).unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_committed_together() {
    let clinic = Clinic::furnished();
    let resources: Vec<Value> =
        (0..50).map(|n| heart_rate(monitor(1), Some(patient(1)), at(-100 + n), "72")).collect();
    let before = clinic.site.store().last_group();
    let answer = post(&clinic, &program(), "/fhir", &bundle("transaction", &resources)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.body["type"], "transaction-response");
    let entries = answer.body["entry"].as_array().unwrap();
    assert_eq!(entries.len(), 50);
    assert!(entries.iter().all(|entry| entry["response"]["status"] == "201 Created"), "{}", answer.body);
    assert_eq!(clinic.site.store().last_group(), before + 1, "one group");
    let location = entries[7]["response"]["location"].as_str().unwrap();
    let path = format!("/fhir/{}", location.strip_suffix("/_history/1").unwrap());
    let read = get(&clinic, &program(), &path).await;
    assert_eq!(read.body["effectiveDateTime"], at(-93).to_rfc3339());

    let again = post(&clinic, &program(), "/fhir", &bundle("transaction", &resources)).await;
    assert!(
        again.body["entry"].as_array().unwrap().iter().all(|entry| entry["response"]["status"] == "200 OK")
    );
    assert_eq!(kept(&clinic), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_entry_refuses_a_transaction() {
    let clinic = Clinic::furnished();
    let good = |n: i64| heart_rate(monitor(1), Some(patient(1)), at(-100 + n), "72");
    let mut no_code = good(5);
    no_code.as_object_mut().unwrap().remove("code");
    let bad: Vec<(&str, Value)> = vec![
        ("impossible", heart_rate(monitor(1), Some(patient(1)), at(-5), "7200")),
        ("another patient", heart_rate(monitor(1), Some(patient(2)), at(-5), "72")),
        ("invalid", no_code),
    ];
    for (name, bad) in bad {
        let answer =
            post(&clinic, &program(), "/fhir", &bundle("transaction", &[good(1), bad, good(2)])).await;
        assert!(answer.status.is_client_error(), "{name}: {} {}", answer.status, answer.body);
        let (_, _) = issue(&answer);
        let place = answer.body["issue"][0]["expression"][0].as_str().unwrap();
        assert!(place.starts_with("Bundle.entry[1]"), "{name}: {place}");
    }
    assert_eq!(kept(&clinic), 0);
    assert_eq!(clinic.site.store().quarantine_count().items, 0);
    let mut put = bundle("transaction", &[good(1)]);
    put["entry"][0]["request"] = json!({"method": "PUT", "url": "Observation/x"});
    let answer = post(&clinic, &program(), "/fhir", &put).await;
    assert_eq!((answer.status, issue(&answer).0), (StatusCode::NOT_FOUND, "not-found"));
    put["entry"][0]["request"] = json!({"method": "POST", "url": "Encounter"});
    let answer = post(&clinic, &program(), "/fhir", &put).await;
    assert_eq!((answer.status, issue(&answer).0), (StatusCode::BAD_REQUEST, "not-supported"));
    let mut conditional = bundle("transaction", &[good(1)]);
    conditional["entry"][0]["request"]["ifNoneExist"] = json!("code=8867-4");
    let answer = post(&clinic, &program(), "/fhir", &conditional).await;
    assert_eq!((answer.status, issue(&answer).0), (StatusCode::BAD_REQUEST, "not-supported"));
    let answer = post(&clinic, &program(), "/fhir", &bundle("history", &[good(1)])).await;
    assert!(answer.status.is_client_error());
    assert_eq!(kept(&clinic), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_of_a_batch_stands_by_itself() {
    let clinic = Clinic::furnished();
    let mut no_code = heart_rate(monitor(1), None, at(-5), "72");
    no_code.as_object_mut().unwrap().remove("code");
    let resources = [
        heart_rate(monitor(1), Some(patient(1)), at(-10), "72"),
        no_code,
        heart_rate(monitor(2), Some(patient(2)), at(-10), "80"),
        heart_rate(monitor(1), Some(patient(1)), at(-9), "7200"),
        heart_rate(monitor(1), Some(patient(2)), at(-8), "72"),
        heart_rate(monitor(1), Some(patient(1)), at(-10), "72"),
    ];
    let answer = post(&clinic, &program(), "/fhir", &bundle("batch", &resources)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let statuses: Vec<u16> = answer.body["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["response"]["status"].as_str().unwrap()[..3].parse().unwrap())
        .collect();
    assert_eq!((&statuses[1..5]), [422, 201, 202, 422], "{}", answer.body);
    // Entries stand by themselves: which of two that say the same comes first is not said, and both are new where one
    // commit takes them.
    assert!(matches!((statuses[0], statuses[5]), (201, 200 | 201) | (200, 201)), "{}", answer.body);
    let location = |n: usize| &answer.body["entry"][n]["response"]["location"];
    assert_eq!(location(0), location(5), "a repeat has the same address");
    assert_eq!(kept(&clinic), 2);
    assert_eq!(clinic.site.store().quarantine_count().items, 1);
    assert_eq!(clinic.site.store().latest(Subject::Patient(patient(2))).unwrap().len(), 1);
}

fn entry(method: &str, url: &str, resource: Option<Value>, more: &[(&str, &str)]) -> Value {
    let mut entry = json!({"request": {"method": method, "url": url}});
    if let Some(resource) = resource {
        entry["resource"] = resource;
    }
    for (name, value) in more {
        let place = if *name == "fullUrl" { &mut entry } else { &mut entry["request"] };
        place[*name] = json!(value);
    }
    entry
}

fn of_entries(kind: &str, entries: &[Value]) -> Value {
    json!({"resourceType": "Bundle", "type": kind, "entry": entries})
}

fn statuses(answer: &Answer) -> Vec<u16> {
    let entries = answer.body["entry"].as_array().unwrap_or_else(|| panic!("{}", answer.body));
    entries.iter().map(|each| each["response"]["status"].as_str().unwrap()[..3].parse().unwrap()).collect()
}

/// A patient, a device that is assigned to the patient, and what the device measured, by addresses of the Bundle alone.
fn household(number: &str, value: &str) -> Vec<Value> {
    let (person, device) =
        ("urn:uuid:0b1f0b1e-0000-4000-8000-000000000001", "urn:uuid:0b1f0b1e-0000-4000-8000-000000000002");
    let mut measured = heart_rate(monitor(1), None, at(-30), value);
    measured["subject"] = json!({"reference": person});
    measured["device"] = json!({"reference": device});
    vec![
        entry("POST", "Observation", Some(measured), &[]),
        entry(
            "POST",
            "Device",
            Some(json!({"resourceType": "Device", "serialNumber": number, "patient": {"reference": person}})),
            &[("fullUrl", device)],
        ),
        entry(
            "POST",
            "Patient",
            Some(json!({
                "resourceType": "Patient", "name": [{"family": "House"}],
                "identifier": [{"system": "urn:hospital", "value": number}]
            })),
            &[("fullUrl", person)],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_household_is_admitted_registered_and_charted_in_one_transaction() {
    let clinic = Clinic::furnished();
    let answer = post(&clinic, &program(), "/fhir", &of_entries("transaction", &household("A", "72"))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(statuses(&answer), [201, 201, 201], "{}", answer.body);
    let location = |n: usize| answer.body["entry"][n]["response"]["location"].as_str().unwrap().to_owned();
    let of = |n: usize| location(n).split("/_history").next().unwrap().to_owned();
    let read = get(&clinic, &program(), &format!("/fhir/{}", of(0))).await;
    assert_eq!(read.body["subject"]["reference"], of(2), "{}", read.body);
    assert_eq!(read.body["device"]["reference"], of(1));
    let device = get(&clinic, &program(), &format!("/fhir/{}", of(1))).await;
    assert_eq!(device.body["patient"]["reference"], of(2), "{}", device.body);
    assert!(
        clinic
            .site
            .store()
            .documents(&pipeline::records::all_of(store::Kind::PendingTransaction, None, 9))
            .unwrap()
            .is_empty()
    );
    assert_eq!(kept(&clinic), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_household_is_kept_when_one_entry_cannot_be() {
    let clinic = Clinic::furnished();
    let before = (clinic.site.registry().patients().len(), clinic.site.registry().devices().len());
    let spoil = |index: usize, spoil: &dyn Fn(&mut Value)| {
        let mut entries = household("B", "72");
        spoil(&mut entries[index]);
        of_entries("transaction", &entries)
    };
    let cases: Vec<(&str, Value)> = vec![
        ("impossible", of_entries("transaction", &household("B", "7200"))),
        (
            "unknown address",
            spoil(0, &|entry| entry["resource"]["subject"]["reference"] = json!("urn:uuid:x")),
        ),
        (
            "no such place",
            spoil(2, &|entry| {
                entry["resource"]["extension"] = json!([{"url": "urn:auscult:place", "valueReference": {"reference": format!("Location/{}", patient(9))}}]);
            }),
        ),
        ("number taken", spoil(2, &|entry| entry["resource"]["identifier"][0]["value"] = json!("MRN-1"))),
        (
            "another patient",
            spoil(0, &|entry| {
                entry["resource"]["subject"]["reference"] = json!(format!("Patient/{}", patient(1)));
            }),
        ),
        ("bad device", spoil(1, &|entry| entry["resource"]["status"] = json!("broken"))),
    ];
    for (name, sent) in cases {
        let answer = post(&clinic, &program(), "/fhir", &sent).await;
        assert!(answer.status.is_client_error(), "{name}: {} {}", answer.status, answer.body);
        issue(&answer);
        let now = (clinic.site.registry().patients().len(), clinic.site.registry().devices().len());
        assert_eq!((now, kept(&clinic)), (before, 0), "{name}");
    }
    assert_eq!(clinic.site.store().quarantine_count().items, 0);
    // A device's certificate sends measurements, and admits nobody.
    let device = pipeline::Peer::Device(monitor(1));
    let answer = post(&clinic, &device, "/fhir", &of_entries("transaction", &household("B", "72"))).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_devices_corrections_and_reads_are_one_transaction() {
    let clinic = Clinic::furnished();
    let sent = heart_rate(monitor(1), Some(patient(1)), at(-60), "172");
    let wrong = post(&clinic, &program(), "/fhir/Observation", &sent).await.body;
    let url = format!("Observation/{}", wrong["id"].as_str().unwrap());
    let mut right = wrong.clone();
    right["status"] = json!("corrected");
    right["valueQuantity"]["value"] = json!(72);
    let once = [("ifNoneExist", "identifier=urn:example:once|t")];
    let mut named = heart_rate(monitor(2), Some(patient(2)), at(-9), "81");
    named["identifier"] = json!([{"system": "urn:example:once", "value": "t"}]);
    let entries = |etag: &str| {
        of_entries(
            "transaction",
            &[
                entry("GET", &url, None, &[]),
                entry(
                    "POST",
                    "Observation",
                    Some(heart_rate(monitor(1), Some(patient(1)), at(-10), "70")),
                    &[],
                ),
                entry(
                    "POST",
                    "Observation",
                    Some(heart_rate(monitor(2), Some(patient(2)), at(-10), "80")),
                    &[],
                ),
                entry("POST", "Observation", Some(named.clone()), &once),
                entry("PUT", &url, Some(right.clone()), &[("ifMatch", etag)]),
                entry("GET", &format!("Observation?patient={}", patient(2)), None, &[]),
            ],
        )
    };
    let answer = post(&clinic, &program(), "/fhir", &entries("W/\"1\"")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(statuses(&answer), [200, 201, 201, 201, 200, 200], "{}", answer.body);
    assert_eq!(answer.body["entry"][0]["resource"]["valueQuantity"]["value"], 72, "reads come last");
    assert_eq!(answer.body["entry"][4]["response"]["etag"], "W/\"2\"");
    assert_eq!(answer.body["entry"][5]["resource"]["entry"].as_array().unwrap().len(), 2);
    assert_eq!(kept(&clinic), 4);
    // Again: the version is another one now, and nothing at all is done.
    let stale = post(&clinic, &program(), "/fhir", &entries("W/\"1\"")).await;
    assert_eq!(
        (stale.status, issue(&stale).0),
        (StatusCode::PRECONDITION_FAILED, "conflict"),
        "{}",
        stale.body
    );
    let again = post(&clinic, &program(), "/fhir", &entries("W/\"2\"")).await;
    assert_eq!(statuses(&again), [200, 200, 200, 200, 200, 200], "{}", again.body);
    assert_eq!(kept(&clinic), 4);
    let twice = of_entries(
        "transaction",
        &[entry("PUT", &url, Some(right.clone()), &[]), entry("DELETE", &url, None, &[])],
    );
    let twice = post(&clinic, &program(), "/fhir", &twice).await;
    assert_eq!((twice.status, issue(&twice).0), (StatusCode::BAD_REQUEST, "duplicate"), "{}", twice.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_reads_changes_and_refuses_each_by_itself() {
    let clinic = Clinic::furnished();
    let made =
        post(&clinic, &program(), "/fhir/Observation", &heart_rate(monitor(1), None, at(-60), "72")).await;
    let url = format!("Observation/{}", made.body["id"].as_str().unwrap());
    let batch = of_entries(
        "batch",
        &[
            entry("GET", &url, None, &[]),
            entry("POST", "Observation", Some(heart_rate(monitor(1), None, at(-10), "70")), &[]),
            entry("GET", "Observation?_count=x", None, &[]),
            entry("DELETE", &url, None, &[]),
            entry("POST", "Encounter", Some(json!({"resourceType": "Encounter"})), &[]),
            entry("GET", "metadata", None, &[]),
        ],
    );
    let answer = post(&clinic, &program(), "/fhir", &batch).await;
    assert_eq!(statuses(&answer), [410, 201, 400, 204, 400, 200], "{}", answer.body);
    assert_eq!(answer.body["entry"][0]["response"]["outcome"]["issue"][0]["code"], "deleted");
    // Each entry needs what it would need by itself.
    let nurse = clinic.sign_in("nurse").await;
    let batch = of_entries(
        "batch",
        &[
            entry("GET", &format!("Patient/{}", patient(1)), None, &[]),
            entry("GET", &format!("Patient/{}", patient(2)), None, &[]),
            entry("POST", "Observation", Some(heart_rate(monitor(1), None, at(-9), "70")), &[]),
            entry("GET", "AuditEvent", None, &[]),
        ],
    );
    let answer = clinic.post("/fhir", &nurse, batch).await;
    assert_eq!(statuses(&answer), [200, 404, 403, 403], "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_before_a_stop_is_charted_at_the_next_start() {
    let clinic = Clinic::furnished();
    // As far as a server comes that is stopped right after the decision.
    let text = heart_rate(monitor(1), Some(patient(1)), at(-10), "72").to_string();
    let frame = clinical_model::Frame {
        device: monitor(1),
        kind: clinical_model::FrameKind::Fhir,
        received_at: clinic.site.clock().now(),
        delivery: clinical_model::Delivery::AtLeastOnce,
        bytes: text.into_bytes(),
    };
    let change =
        |frame| pipeline::together::FrameChange { frame, patient: Some(patient(1)), acts: Vec::new() };
    let other = clinical_model::Frame {
        device: monitor(2),
        bytes: heart_rate(monitor(2), Some(patient(2)), at(-10), "73").to_string().into_bytes(),
        ..frame.clone()
    };
    let together =
        pipeline::together::Together { frames: vec![change(frame), change(other)], ..Default::default() };
    drop(clinic.site.decide(together).unwrap());
    assert_eq!(kept(&clinic), 0);
    assert_eq!(clinic.site.finish_pending(clinical_model::Timestamp::MAX).unwrap(), 2);
    assert_eq!(kept(&clinic), 2);
    assert_eq!(clinic.site.finish_pending(clinical_model::Timestamp::MAX).unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_without_entries_is_answered_without_any() {
    let clinic = Clinic::furnished();
    for sent in [
        json!({"resourceType": "Bundle", "type": "transaction"}),
        json!({"resourceType": "Bundle", "type": "batch"}),
    ] {
        let answer = post(&clinic, &program(), "/fhir", &sent).await;
        assert_eq!((answer.status, &answer.body["entry"]), (StatusCode::OK, &Value::Null), "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_learns_from_no_transaction_who_else_is_a_patient() {
    let clinic = Clinic::furnished();
    let device = pipeline::Peer::Device(monitor(1));
    let told = async |number: &str| {
        let mut sent = heart_rate(monitor(1), None, at(-5), "72");
        sent["subject"] =
            json!({"reference": format!("Patient?identifier=urn:auscult:record-number|{number}")});
        let answer = post(&clinic, &device, "/fhir", &bundle("transaction", &[sent])).await;
        (answer.status, answer.body.to_string().replace(number, "N"))
    };
    let nobody = told("MRN-9").await;
    assert_eq!(nobody.0, StatusCode::PRECONDITION_FAILED, "{}", nobody.1);
    assert_eq!(told("MRN-2").await, nobody, "a patient whom it does not measure is nobody to it");
    let own = told("MRN-1").await;
    assert_eq!(own.0, StatusCode::OK, "{}", own.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reads_of_one_bundle_do_not_fill_the_memory() {
    let clinic = Clinic::furnished();
    let many: Vec<Value> =
        (0..900).map(|n| heart_rate(monitor(1), Some(patient(1)), at(-1_000 + n), "72")).collect();
    assert_eq!(post(&clinic, &program(), "/fhir", &bundle("batch", &many)).await.status, StatusCode::OK);
    let read = entry("GET", "Observation?_count=1000", None, &[]);
    for kind in ["batch", "transaction"] {
        let answer = post(&clinic, &program(), "/fhir", &of_entries(kind, &vec![read.clone(); 20])).await;
        let refused = statuses(&answer).iter().filter(|status| **status == 413).count();
        assert_eq!(refused, 14, "{kind}: {:?}", statuses(&answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_names_the_version_it_knows_is_told_that_nothing_changed() {
    let clinic = Clinic::furnished();
    let path = format!("Patient/{}", crate::clinic::patient(1));
    let entry = |known: &str| json!({"request": {"method": "GET", "url": path, "ifNoneMatch": known}});
    let batch =
        json!({"resourceType": "Bundle", "type": "batch", "entry": [entry("W/\"1\""), entry("W/\"7\"")]});
    let answer = post(&clinic, &program(), "/fhir", &batch).await;
    let statuses: Vec<&str> = answer.body["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["response"]["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["304 Not Modified", "200 OK"], "{}", answer.body);
    assert!(answer.body["entry"][0]["resource"].is_null());
}
