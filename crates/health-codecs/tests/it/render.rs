//! One of each rendered resource, kept as a snapshot and judged by our own strict reader.

use clinical_model::patient::Gender;
use clinical_model::place::PlaceKind;
use clinical_model::{
    Absent, ClockRule, Committed, Device, Event, Findings, Patient, Place, PlaceId, Private, Subject, Value,
    measure,
};
use health_codecs::fhir::audit_event::{
    self, AuditAction, AuditAgent, AuditCoding, AuditEntity, AuditInput, AuditOutcome,
};
use health_codecs::fhir::bundle::{ResponseEntry, SearchEntry, SearchMode, SearchsetInput};
use health_codecs::fhir::capability::{CapabilityInput, CapabilityResource};
use health_codecs::fhir::observation::{EventInput, ObservationInput};
use health_codecs::fhir::{self, IssueCode, OutcomeIssue, sampled, validate};

use crate::support::{DEVICE, PATIENT, at, block, decimal, lines, number, reading, series};

const WARD: PlaceId = PlaceId::from_bytes([0x33; 16]);
const BED: PlaceId = PlaceId::from_bytes([0x44; 16]);

/// A patient with everything.
pub fn patient() -> serde_json::Value {
    fhir::patient::render(&Patient {
        id: PATIENT,
        family: Private::new("Okafor".into()),
        given: Private::new("Ada Maria".into()),
        birth_date: Some(Private::new("1951-03-09".into())),
        gender: Gender::Female,
        record_number: Private::new("MRN-0042".into()),
        place: Some(BED),
        active: true,
    })
}

/// A device with everything.
pub fn device() -> serde_json::Value {
    let device = Device {
        id: DEVICE,
        name: "Monitor 07".into(),
        kind: "bedside monitor".into(),
        manufacturer: "Acme".into(),
        model: "M-1".into(),
        serial: "S 0001".into(),
        clock: ClockRule::Shift { seconds: -3600 },
        utc_offset_min: 60,
        expected_interval_s: Some(60),
        retired: false,
    };
    fhir::device::render_assigned(&device, Some(Subject::Patient(PATIENT)))
}

/// A bed in a ward.
pub fn location() -> serde_json::Value {
    fhir::location::render(&Place { id: BED, name: "Bed 07".into(), kind: PlaceKind::Bed, ward: Some(WARD) })
}

fn is_sound(resource: &serde_json::Value) {
    let issues = validate::resource(resource);
    assert!(issues.is_empty(), "{:#?}\n{resource:#}", lines(&issues));
}

fn snapshot(name: &str, resource: &serde_json::Value) {
    // As text, because a snapshot must show every digit as it is written.
    insta::assert_snapshot!(name, serde_json::to_string_pretty(resource).expect("JSON"));
}

fn observation(id: &str, readings: &[Committed<clinical_model::Reading>]) -> serde_json::Value {
    fhir::observation::render(&ObservationInput {
        id: id.into(),
        readings,
        panel: readings[0].series().measure.panel(),
        device_display: Some("Monitor 07"),
    })
}

#[test]
fn a_saturation() {
    let findings = Findings::OUTSIDE_USUAL | Findings::LOW_SIGNAL;
    let resource = observation("spo2", &[reading(measure::OXYGEN_SATURATION, number("49.50"), findings)]);
    is_sound(&resource);
    snapshot("saturation", &resource);
}

#[test]
fn an_absent_value() {
    let absent = Value::Absent(Absent::NotANumber);
    let resource = observation("hr", &[reading(measure::HEART_RATE, absent, Findings::PRELIMINARY)]);
    is_sound(&resource);
    snapshot("absent", &resource);
}

#[test]
fn a_blood_pressure_without_a_diastolic() {
    let resource = observation(
        "bp",
        &[
            reading(measure::SYSTOLIC, number("120"), Findings::IRREGULAR_PULSE),
            reading(measure::MEAN_PRESSURE, Value::Absent(Absent::Error), Findings::empty()),
        ],
    );
    is_sound(&resource);
    snapshot("blood_pressure", &resource);
}

#[test]
fn events() {
    let event = |measure, amount: Option<(&str, &str)>, text: Option<&str>| {
        let event = Event {
            series: series(measure),
            at: at("2026-11-22T10:15:30Z"),
            received_at: at("2026-11-22T10:15:31Z"),
            sequence: 3,
            amount: amount.map(|(value, unit)| (decimal(value), unit.to_owned())),
            text: text.map(str::to_owned),
            findings: Findings::empty(),
        };
        let event = Committed::restored(event, at("2026-11-22T10:15:31.010Z"), 7);
        fhir::observation::render_event(&EventInput { id: "e".into(), event: &event, device_display: None })
    };
    let dose = event(measure::DOSE, Some(("4.5", "[iU]")), Some("rapid"));
    let alarm = event(measure::DEVICE_ALARM, None, Some("occlusion"));
    let call = event(measure::PATIENT_CALL, None, None);
    let puffs = event(measure::DOSE, Some(("2", "puffs")), None);
    for resource in [&dose, &alarm, &call, &puffs] {
        is_sound(resource);
    }
    assert_eq!(puffs["valueQuantity"].to_string(), "{\"value\":2,\"unit\":\"puffs\"}");
    snapshot("dose", &dose);
    snapshot("device_alarm", &alarm);
    snapshot("patient_call", &call);
}

#[test]
fn a_waveform_in_segments() {
    const MISSING: i16 = clinical_model::reading::MISSING_SAMPLE;
    let blocks = [
        // The third block overlaps the second; the fourth comes after 11 seconds; given out of order.
        block(measure::ECG_II, "2026-11-22T10:15:42.036Z", vec![9]),
        block(measure::ECG_II, "2026-11-22T10:15:30Z", vec![1, -2, MISSING]),
        // One sample late by the grid, and 1 ms off it.
        block(measure::ECG_II, "2026-11-22T10:15:30.017Z", vec![4, 5]),
        block(measure::ECG_II, "2026-11-22T10:15:30.020Z", vec![6, 7]),
    ];
    let resource = sampled::render(&sampled::SampledInput {
        id: "ecg".into(),
        blocks: &blocks,
        device_display: Some("Monitor 07"),
    });
    is_sound(&resource);
    let data: Vec<&str> = resource["component"]
        .as_array()
        .expect("components")
        .iter()
        .map(|component| component["valueSampledData"]["data"].as_str().expect("data"))
        .collect();
    assert_eq!(data, ["1 -2 E E 4 5", "6 7", "9"]);
    snapshot("waveform", &resource);
}

#[test]
fn a_gap_of_ten_seconds_begins_a_new_segment() {
    let segments = |second: &str| {
        let blocks = [
            block(measure::ECG_II, "2026-11-22T10:15:30Z", vec![1]),
            block(measure::ECG_II, second, vec![2]),
        ];
        let input = sampled::SampledInput { id: "ecg".into(), blocks: &blocks, device_display: None };
        sampled::render(&input)["component"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(segments("2026-11-22T10:15:40.000Z"), 1);
    assert_eq!(segments("2026-11-22T10:15:40.004Z"), 2);
}

#[test]
fn records() {
    for (name, resource) in [("patient", patient()), ("device", device()), ("location", location())] {
        is_sound(&resource);
        snapshot(name, &resource);
    }
    let versioned = fhir::with_version(patient(), 3, at("2026-11-22T10:15:31Z"));
    is_sound(&versioned);
    assert_eq!(
        versioned["meta"].to_string(),
        "{\"versionId\":\"3\",\"lastUpdated\":\"2026-11-22T10:15:31Z\"}"
    );
}

#[test]
fn audit_events() {
    let agent = AuditAgent {
        reference: None,
        display: Some("R. Nurse".into()),
        alt_id: Some("0191".into()),
        kind: Some(AuditCoding::dicom("110153", "Source Role ID")),
        role: Some("nurse".into()),
        requestor: true,
        network_address: Some("192.0.2.7".into()),
    };
    let input = AuditInput {
        id: "a1".into(),
        profile: None,
        recorded: at("2026-11-22T10:15:31Z"),
        event_type: AuditCoding::rest(),
        subtypes: vec![AuditCoding::interaction("search-type")],
        action: AuditAction::Execute,
        outcome: AuditOutcome::MinorFailure,
        outcome_description: Some("refused: not on this ward".into()),
        purposes: vec![AuditCoding::new(
            "http://terminology.hl7.org/CodeSystem/v3-ActReason",
            "TREAT",
            "treatment",
        )],
        agents: vec![agent],
        entities: vec![
            AuditEntity::patient(PATIENT),
            AuditEntity { name: Some("both".into()), ..AuditEntity::query("Observation?code=8867-4") },
            AuditEntity::group(12, 400, "00ff"),
            AuditEntity::resource("Observation/x"),
            AuditEntity::default(),
        ],
    };
    let resource = audit_event::render(&input);
    is_sound(&resource);
    snapshot("audit_event", &resource);
    let bare = AuditInput {
        agents: vec![],
        entities: vec![],
        purposes: vec![],
        subtypes: vec![],
        outcome_description: Some(" ".into()),
        ..input
    };
    is_sound(&audit_event::render(&bare));
}

#[test]
fn bundles_and_outcomes() {
    let now = at("2026-11-22T10:15:31Z");
    let found = SearchEntry {
        full_url: "https://a.example/fhir/Location/44444444-4444-4444-4444-444444444444".into(),
        resource: location(),
        mode: SearchMode::Match,
    };
    let hint = SearchEntry {
        full_url: "urn:uuid:6f1f0c53-6c1a-4e7e-8f0e-1b1b6a0c9d01".into(),
        resource: fhir::operation_outcome(&[]),
        mode: SearchMode::Outcome,
    };
    let mut input = SearchsetInput {
        self_link: "https://a.example/fhir/Location?_count=1".into(),
        next_link: Some("https://a.example/fhir/Location?_count=1&_cursor=abc".into()),
        total: Some(2),
        at: now,
        entries: vec![found, hint],
    };
    let page = fhir::searchset(&input);
    is_sound(&page);
    snapshot("searchset", &page);
    input.entries.clear();
    is_sound(&fhir::searchset(&input));

    let refusal = OutcomeIssue::error(IssueCode::NotFound, "there is no such Observation", "");
    let entries = [
        ResponseEntry {
            status: "201 Created".into(),
            location: Some("Observation/x/_history/1".into()),
            etag: Some("W/\"1\"".into()),
            last_modified: Some(now),
            outcome: None,
            resource: None,
        },
        ResponseEntry {
            status: "404 Not Found".into(),
            location: None,
            etag: None,
            last_modified: None,
            outcome: Some(fhir::operation_outcome(&[refusal])),
            resource: None,
        },
    ];
    let response = fhir::batch_response(now, &entries);
    is_sound(&response);
    is_sound(&fhir::transaction_response(now, &[]));
    snapshot("batch_response", &response);
}

#[test]
fn the_capability_statement() {
    let statement = fhir::capability_statement(&CapabilityInput {
        base_url: "https://a.example/fhir".into(),
        software_version: "0.1.0".into(),
        at: at("2026-11-22T10:15:31Z"),
        security_description: "Bearer token or session".into(),
        authorization_server: None,
        resources: CapabilityResource::standard(),
        operations: vec!["export"],
    });
    snapshot("capability_statement", &statement);
}
