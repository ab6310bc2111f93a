//! Every case in `vectors/fhir`: what is valid is taken, what has a planted fault is refused.

use std::collections::BTreeMap;

use health_codecs::fhir::validate;

use crate::support::{case, lines, vectors};

#[test]
fn every_case_is_judged_as_expected() {
    let text = std::fs::read_to_string(vectors().join("expect.json")).expect("expect.json");
    let expected: BTreeMap<String, String> = serde_json::from_str(&text).expect("expect.json is JSON");
    let files = std::fs::read_dir(vectors().join("cases")).expect("cases").count();
    assert_eq!(expected.len(), files, "every case stands in expect.json");
    for (name, verdict) in expected {
        let issues = validate::resource(&case(&name));
        match verdict.as_str() {
            "ok" => assert!(issues.is_empty(), "{name}: {:#?}", lines(&issues)),
            "bad" => assert!(!issues.is_empty(), "{name} was taken"),
            other => panic!("{name}: unknown verdict {other}"),
        }
    }
}

/// Each planted fault is named where it is, so that it was not refused for something else.
#[test]
fn each_fault_is_named_where_it_is() {
    let faults = [
        ("02-missing-status", "required", "Observation.status"),
        ("03-missing-code", "required", "Observation.code"),
        ("04-bad-status-code", "code-invalid", "Observation.status"),
        ("05-unknown-element", "structure", "Observation.foo"),
        ("06-two-value-x", "structure", "Observation.value[x]"),
        ("07-bad-datetime", "value", "Observation.effectiveDateTime"),
        ("08-value-as-string", "value", "Observation.valueQuantity.value"),
        ("09-wrong-ref-target", "value", "Observation.device.reference"),
        ("10-obs-6-dar-and-value", "invariant", "Observation"),
        ("11-obs-7-component-same-code", "invariant", "Observation"),
        ("12-profile-missing-category", "required", "Observation.category"),
        ("13-profile-wrong-ucum", "value", "Observation.valueQuantity.code"),
        ("14-sampled-missing-dimensions", "required", "Observation.valueSampledData.dimensions"),
        ("15-sampled-bad-data", "value", "Observation.valueSampledData.data"),
        ("16-empty-array", "structure", "Observation.note"),
        ("17-bad-id-chars", "value", "Observation.id"),
        ("18-instant-no-tz", "value", "Observation.issued"),
        ("19-qty-3-code-no-system", "invariant", "Observation.valueSampledData.origin"),
        ("21-bdl-3-tx-no-request", "invariant", "Bundle"),
        ("23-auditevent-no-recorded", "required", "AuditEvent.recorded"),
        ("24-empty-string", "value", "Observation.valueQuantity.unit"),
        ("25-contained-unreferenced-dom3", "invariant", "Observation"),
        ("26-device-metric-bad-category", "code-invalid", "DeviceMetric.category"),
    ];
    for (name, code, place) in faults {
        let issues = validate::resource(&case(name));
        let found = issues.iter().any(|issue| issue.code.code() == code && issue.expression == [place]);
        assert!(found, "{name}: expected {code} at {place}, found {:#?}", lines(&issues));
    }
}
