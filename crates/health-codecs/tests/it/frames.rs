//! Frames of kind FHIR: what programs send, entry by entry, with what is refused and why.

use clinical_model::decoded::{DecodedScalar, DecodedValue};
use clinical_model::{Absent, Decoded, DeviceTime, Findings, measure};
use health_codecs::fhir::{bundle, decode_frame, json, observation, read_frame};
use serde_json::{Value, json};

use crate::support::{at, case, decimal, lines};

fn heart_rate(changes: &[(&str, Value)]) -> Value {
    let mut resource = case("00-valid-hr");
    // Without the profile claim, so that the reader itself has to judge.
    resource.as_object_mut().expect("object").remove("meta");
    for (name, content) in changes {
        match content {
            Value::Null => drop(resource.as_object_mut().expect("object").remove(*name)),
            content => resource[*name] = content.clone(),
        }
    }
    resource
}

#[test]
fn an_observation_becomes_a_decoded_scalar() {
    let text = heart_rate(&[]).to_string().replace("\"value\":72", "\"value\":72.50");
    let frame = decode_frame(text.as_bytes());
    let expected = DecodedScalar {
        measure: measure::HEART_RATE,
        value: DecodedValue::Number(decimal("72.50")),
        unit: "/min".into(),
        time: DeviceTime::Utc(at("2026-11-22T10:15:30.250Z")),
        sequence: 0,
        findings: Findings::FROM_PROGRAM,
    };
    assert_eq!(frame.entries.len(), 1);
    assert_eq!(frame.entries[0].span, 0..text.len());
    assert_eq!(frame.entries[0].result, Ok(vec![Decoded::Scalar(expected)]));
}

/// What changes, and what the refusal says: kind, place, a word of the sentence.
type Refused = (Vec<(&'static str, Value)>, &'static str, &'static str, &'static str);

fn coded(system: &str, code: &str) -> Value {
    json!({ "coding": [{ "system": system, "code": code }] })
}

fn refused_values() -> Vec<Refused> {
    let quantity = |changes: Value| {
        let mut quantity =
            json!({ "value": 72, "unit": "bpm", "system": "http://unitsofmeasure.org", "code": "/min" });
        for (name, content) in changes.as_object().expect("object") {
            match content {
                Value::Null => drop(quantity.as_object_mut().expect("object").remove(name)),
                content => quantity[name.as_str()] = content.clone(),
            }
        }
        quantity
    };
    vec![
        (vec![("code", coded("http://loinc.org", "1234-5"))], "not-supported", "Observation.code", "1234-5"),
        (
            vec![("code", coded("http://snomed.info/sct", "364075005"))],
            "not-supported",
            "Observation.code",
            "364075005",
        ),
        (vec![("code", json!({ "text": "pulse" }))], "not-supported", "Observation.code", "coding is needed"),
        (vec![("effectiveDateTime", json!("2026-11-22"))], "value", "Observation.effectiveDateTime", "zone"),
        (vec![("effectiveDateTime", Value::Null)], "required", "Observation.effective[x]", "time"),
        (
            vec![("effectiveDateTime", json!("1850-01-01T00:00:00Z"))],
            "value",
            "Observation.effectiveDateTime",
            "1900",
        ),
        (
            vec![("valueQuantity", quantity(json!({ "system": null, "code": null })))],
            "required",
            "Observation.valueQuantity.code",
            "bpm",
        ),
        (
            vec![("valueQuantity", quantity(json!({ "system": "urn:x" })))],
            "required",
            "Observation.valueQuantity.code",
            "UCUM",
        ),
        (
            vec![("valueQuantity", quantity(json!({ "comparator": "<" })))],
            "not-supported",
            "Observation.valueQuantity.comparator",
            "<",
        ),
        (
            vec![("valueQuantity", quantity(json!({ "value": null })))],
            "required",
            "Observation.valueQuantity.value",
            "no value",
        ),
        (vec![("valueQuantity", Value::Null)], "required", "Observation", "no value"),
        (
            vec![("valueQuantity", Value::Null), ("valueString", json!("72"))],
            "value",
            "Observation.valueString",
            "valueQuantity",
        ),
    ]
}

fn refused_structures() -> Vec<Refused> {
    vec![
        (
            vec![("status", json!("entered-in-error"))],
            "not-supported",
            "Observation.status",
            "entered-in-error",
        ),
        (vec![("status", json!("cancelled"))], "not-supported", "Observation.status", "cancelled"),
        (
            vec![("modifierExtension", json!([{ "url": "urn:negated", "valueBoolean": true }]))],
            "extension",
            "Observation.modifierExtension",
            "not understood",
        ),
        (vec![("code", coded("http://loinc.org", "85354-9"))], "value", "Observation", "panel"),
        (
            vec![(
                "code",
                json!({ "coding": [
                    { "system": "http://loinc.org", "code": "8867-4" },
                    { "system": "http://loinc.org", "code": "9279-1" },
                ] }),
            )],
            "value",
            "Observation.code",
            "contradict",
        ),
        (vec![("code", coded("urn:iso:std:iso:11073:10101", "131330"))], "value", "Observation", "curve"),
        (
            vec![("component", json!([{ "code": { "text": "cuff" }, "valueString": "large" }]))],
            "not-supported",
            "Observation.component[0].code",
            "coding",
        ),
        (vec![("resourceType", json!("Patient"))], "structure", "resourceType", "Observation"),
    ]
}

#[test]
fn what_is_not_understood_is_refused() {
    for (changes, code, place, word) in refused_values().into_iter().chain(refused_structures()) {
        let issues = observation::parse(&heart_rate(&changes)).expect_err(place);
        let named = issues.iter().any(|issue| {
            issue.code.code() == code && issue.expression == [place] && issue.diagnostics.contains(word)
        });
        assert!(named, "{changes:?}: {:#?}", lines(&issues));
    }
    let long = heart_rate(&[]).to_string().replace("\"value\":72", "\"value\":72.0000000000000000001");
    let issues = observation::parse(&json::parse(long.as_bytes()).expect("JSON")).expect_err("too long");
    assert_eq!(issues[0].expression, ["Observation.valueQuantity.value"]);
}

#[test]
fn codes_are_found_in_their_order() {
    let of = |codings: Value| {
        let unit = json!({ "value": 72, "system": "http://unitsofmeasure.org", "code": "/min" });
        let resource = heart_rate(&[("code", json!({ "coding": codings })), ("valueQuantity", unit)]);
        match &observation::parse(&resource).map_err(|issues| lines(&issues)).expect("readable").decoded[..] {
            [Decoded::Scalar(scalar)] => scalar.measure,
            other => panic!("{other:?}"),
        }
    };
    let loinc = json!({ "system": "http://loinc.org", "code": "8867-4" });
    let mdc = |code: &str| json!({ "system": "urn:iso:std:iso:11073:10101", "code": code });
    let own = json!({ "system": "urn:auscult:measure", "code": "pulse_rate_cuff" });
    assert_eq!(of(json!([loinc])), measure::HEART_RATE);
    assert_eq!(of(json!([loinc, mdc("149530")])), measure::PULSE_RATE_OXIMETER);
    assert_eq!(of(json!([loinc, mdc("MDC_PULS_RATE_NON_INV")])), measure::PULSE_RATE_CUFF);
    assert_eq!(of(json!([loinc, mdc("1"), own])), measure::HEART_RATE);
    assert_eq!(of(json!([own])), measure::PULSE_RATE_CUFF);
    assert_eq!(of(json!([{ "system": "http://loinc.org", "code": "59408-5" }])), measure::OXYGEN_SATURATION);
}

#[test]
fn absence_status_and_identifiers_are_kept() {
    let reason = json!({ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "error" }] });
    let resource = heart_rate(&[
        ("valueQuantity", Value::Null),
        ("dataAbsentReason", reason),
        ("status", json!("preliminary")),
        ("identifier", json!([{ "system": "urn:a", "value": "7" }])),
    ]);
    let foreign = observation::parse(&resource).map_err(|issues| lines(&issues)).expect("readable");
    assert_eq!(foreign.identifiers, ["urn:a|7"]);
    assert_eq!((foreign.id.as_deref(), foreign.subject.as_deref()), (Some("hr-1"), Some("Patient/p1")));
    let [Decoded::Scalar(scalar)] = &foreign.decoded[..] else { panic!("{foreign:?}") };
    assert_eq!(scalar.value, DecodedValue::Absent(Absent::Error));
    assert_eq!(scalar.findings, Findings::FROM_PROGRAM | Findings::PRELIMINARY);
}

#[test]
fn sampled_data_becomes_a_waveform() {
    let foreign = observation::parse(&case("01-valid-sampleddata")).map_err(|i| lines(&i)).expect("readable");
    let [Decoded::Waveform(wave)] = &foreign.decoded[..] else { panic!("{foreign:?}") };
    const MISSING: i16 = clinical_model::reading::MISSING_SAMPLE;
    assert_eq!(wave.measure, measure::ECG_I);
    assert_eq!((wave.rate_numerator, wave.rate_denominator), (250, 1));
    assert_eq!(wave.samples, [1, 2, -3, 4, MISSING, 12, MISSING, MISSING]);
    assert_eq!((wave.gain, wave.offset), (decimal("0.005"), decimal("0")));
    assert_eq!(wave.unit, "mV");
}

#[test]
fn a_bundle_is_read_entry_by_entry() {
    let bad = heart_rate(&[("status", json!("done"))]);
    let patient = json!({ "resourceType": "Patient", "active": true });
    let entry = |resource: &Value, method: &str| json!({ "resource": resource, "request": { "method": method, "url": "Observation" } });
    let entries = [
        entry(&heart_rate(&[]), "POST"),
        entry(&bad, "POST"),
        entry(&patient, "POST"),
        json!({ "request": { "method": "DELETE", "url": "Observation/1" } }),
    ];
    let text = format!(
        "{{\"resourceType\": \"Bundle\",\n  \"type\": \"batch\", \"entry\": [\n{} ,{},{},{}]}}",
        entries[0], entries[1], entries[2], entries[3]
    );
    let frame = read_frame(text.as_bytes());
    assert_eq!(frame.entries.len(), 4);
    let content = |index: usize| &text[frame.entries[index].span.clone()];
    assert_eq!(serde_json::from_str::<Value>(content(0)).expect("JSON"), heart_rate(&[]));
    assert_eq!(serde_json::from_str::<Value>(content(1)).expect("JSON"), bad);
    assert!(frame.entries[0].result.is_ok());
    let fault = |index: usize| frame.entries[index].result.as_ref().expect_err("refused");
    assert_eq!((fault(1).code, fault(1).offset), ("code-invalid", frame.entries[1].span.start));
    assert!(fault(1).what.contains("Observation.status"), "{}", fault(1));
    assert_eq!(fault(2).code, "structure");
    assert_eq!(fault(3).code, "not-supported");
    // What one entry was, can be run again by itself.
    assert_eq!(
        decode_frame(content(0).as_bytes()).entries[0].result,
        decode_frame(text.as_bytes()).entries[0].result
    );
}

#[test]
fn an_unreadable_frame_is_one_fault() {
    let wrong_type = json!({ "resourceType": "Bundle", "type": "collection" }).to_string();
    let no_request = case("21-bdl-3-tx-no-request").to_string();
    for (text, code) in [
        ("", "bad-json"),
        ("{\"a\":1,\"a\":2}", "bad-json"),
        ("[]", "structure"),
        ("{}", "structure"),
        (&wrong_type, "value"),
        (&no_request, "invariant"),
    ] {
        let frame = decode_frame(text.as_bytes());
        assert_eq!(frame.entries.len(), 1, "{text}");
        assert_eq!(frame.entries[0].span, 0..text.len());
        assert_eq!(frame.entries[0].result.as_ref().expect_err("refused").code, code, "{text}");
    }
}

#[test]
fn requests_are_read_and_bounded() {
    let (kind, entries) = bundle::parse_request(case("20-valid-transaction")).expect("valid");
    assert_eq!(kind, bundle::RequestKind::Transaction);
    assert_eq!((entries[0].method.as_str(), entries[0].url.as_str()), ("PUT", "Observation/hr-1"));
    assert!(entries[0].resource.is_some());
    let entry = json!({ "request": { "method": "GET", "url": "Patient/1" } });
    let big =
        json!({ "resourceType": "Bundle", "type": "batch", "entry": vec![entry; bundle::ENTRY_LIMIT + 1] });
    assert_eq!(bundle::parse_request(big).expect_err("too many")[0].code.code(), "too-long");
    // A bad resource spoils its own entry only: it is checked by whoever takes it.
    let mut batch = case("20-valid-transaction");
    batch["type"] = json!("batch");
    batch["entry"][0]["resource"]["status"] = json!("done");
    assert!(bundle::parse_request(batch.clone()).is_ok());
    batch["entry"][0]["request"] = json!("PUT");
    assert!(bundle::parse_request(batch).is_err());
}
