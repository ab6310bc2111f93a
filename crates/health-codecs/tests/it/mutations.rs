//! Small changes to sound resources, each with the place and kind of issue that must come of it.

use clinical_model::{Findings, measure};
use health_codecs::fhir::{observation, validate};
use serde_json::Value;

use crate::support::{case, lines, number, reading};

/// The sound resource that is changed.
fn base(name: &str) -> Value {
    match name {
        "hr" => case("00-valid-hr"),
        "ecg" => case("01-valid-sampleddata"),
        "tx" => case("20-valid-transaction"),
        "audit" => case("22-valid-auditevent"),
        "metric" => case("27-valid-devicemetric"),
        "bp" => observation::render(&observation::ObservationInput {
            id: "bp-1".into(),
            readings: &[
                reading(measure::SYSTOLIC, number("120"), Findings::empty()),
                reading(measure::DIASTOLIC, number("80"), Findings::empty()),
            ],
            panel: Some(measure::BLOOD_PRESSURE),
            device_display: None,
        }),
        "patient" => crate::render::patient(),
        "device" => crate::render::device(),
        "location" => crate::render::location(),
        other => panic!("no base {other}"),
    }
}

/// Sets what stands at the pointer (making the last step where needed), or removes it.
fn change(resource: &mut Value, pointer: &str, content: Option<&str>) {
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    let parent = resource.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} leads nowhere"));
    let content =
        content.map(|text| serde_json::from_str(text).unwrap_or_else(|_| panic!("{text} is no JSON")));
    match (parent, content) {
        (Value::Object(fields), Some(content)) => {
            fields.insert(last.into(), content);
        }
        (Value::Object(fields), None) => {
            fields.remove(last).unwrap_or_else(|| panic!("{pointer} is not there"));
        }
        (Value::Array(items), Some(content)) if last == "-" => items.push(content),
        (Value::Array(items), Some(content)) => items[last.parse::<usize>().expect("index")] = content,
        (Value::Array(items), None) => {
            items.remove(last.parse().expect("index"));
        }
        _ => panic!("{pointer} leads into a primitive"),
    }
}

/// base, pointer, new content (`-` to remove), kind of issue, its place.
type Mutation = (&'static str, &'static str, &'static str, &'static str, &'static str);

const REFUSED: &[Mutation] = &[
    // Structure and names.
    ("hr", "/resourceType", "\"Observations\"", "not-supported", "Observations"),
    ("hr", "/resourceType", "-", "structure", ""),
    ("hr", "/resourceType", "\"MedicationRequest\"", "not-supported", "MedicationRequest"),
    ("hr", "/Status", "\"final\"", "structure", "Observation.Status"),
    ("hr", "/valueMoney", "{\"value\": 1}", "structure", "Observation.valueMoney"),
    ("hr", "/code", "[{\"text\": \"x\"}]", "structure", "Observation.code"),
    ("hr", "/code", "{}", "structure", "Observation.code"),
    ("hr", "/code", "null", "structure", "Observation.code"),
    ("hr", "/code", "\"8867-4\"", "structure", "Observation.code"),
    ("hr", "/category", "{\"text\": \"x\"}", "structure", "Observation.category"),
    ("hr", "/category", "[null]", "structure", "Observation.category[0]"),
    ("hr", "/category", "[[]]", "structure", "Observation.category[0]"),
    ("hr", "/code/coding/0/sytem", "\"x\"", "structure", "Observation.code.coding[0].sytem"),
    ("hr", "/_code", "{\"id\": \"a\"}", "structure", "Observation._code"),
    ("hr", "/_status", "{\"foo\": 1}", "structure", "Observation._status.foo"),
    ("hr", "/_status", "\"x\"", "structure", "Observation._status"),
    ("hr", "/effectivePeriod", "{\"start\": \"2026\"}", "structure", "Observation.effective[x]"),
    ("hr", "/_valueString", "{\"id\": \"a\"}", "structure", "Observation.value[x]"),
    // Primitives.
    ("hr", "/status", "\"\"", "code-invalid", "Observation.status"),
    ("hr", "/status", "\"Final\"", "code-invalid", "Observation.status"),
    ("hr", "/status", "[\"final\"]", "value", "Observation.status"),
    ("hr", "/id", "\"a_b\"", "value", "Observation.id"),
    ("hr", "/id", "12", "value", "Observation.id"),
    ("hr", "/issued", "\"2026-11-22\"", "value", "Observation.issued"),
    ("hr", "/issued", "\"2026-11-22T25:00:00Z\"", "value", "Observation.issued"),
    ("hr", "/effectiveDateTime", "\"2026-11-22T10:15Z\"", "value", "Observation.effectiveDateTime"),
    ("hr", "/effectiveDateTime", "\"2026-11-22T10:15:30\"", "value", "Observation.effectiveDateTime"),
    ("hr", "/effectiveDateTime", "\"2026-02-30\"", "value", "Observation.effectiveDateTime"),
    ("hr", "/effectiveDateTime", "\"22.11.2026\"", "value", "Observation.effectiveDateTime"),
    ("hr", "/effectiveDateTime", "1795332600", "value", "Observation.effectiveDateTime"),
    ("hr", "/valueQuantity/value", "true", "value", "Observation.valueQuantity.value"),
    ("hr", "/valueQuantity/value", "null", "value", "Observation.valueQuantity.value"),
    ("hr", "/valueQuantity/unit", "\"  \"", "value", "Observation.valueQuantity.unit"),
    ("hr", "/valueQuantity/unit", "5", "value", "Observation.valueQuantity.unit"),
    ("hr", "/valueQuantity/code", "\" /min\"", "value", "Observation.valueQuantity.code"),
    (
        "hr",
        "/valueQuantity/system",
        "\"http://units of measure\"",
        "value",
        "Observation.valueQuantity.system",
    ),
    ("hr", "/valueQuantity/comparator", "\"~\"", "code-invalid", "Observation.valueQuantity.comparator"),
    ("hr", "/note", "[{\"author\": \"x\"}]", "structure", "Observation.note[0].author"),
    ("hr", "/note", "[{\"authorString\": \"x\"}]", "required", "Observation.note[0].text"),
    ("hr", "/language", "\"en  us\"", "value", "Observation.language"),
    // References.
    ("hr", "/subject/reference", "\"Practitioner/p1\"", "value", "Observation.subject.reference"),
    ("hr", "/subject/reference", "\"p1\"", "value", "Observation.subject.reference"),
    ("hr", "/subject/reference", "\"Patient/p 1\"", "value", "Observation.subject.reference"),
    (
        "hr",
        "/subject/reference",
        "\"http://a.example/fhir/Medication/1\"",
        "value",
        "Observation.subject.reference",
    ),
    ("hr", "/subject/reference", "\"#p1\"", "invariant", "Observation"),
    ("hr", "/subject/type", "\"Practitioner\"", "value", "Observation.subject.type"),
    ("hr", "/subject", "{}", "structure", "Observation.subject"),
    ("hr", "/encounter", "{\"reference\": \"Patient/p1\"}", "value", "Observation.encounter.reference"),
    // Extensions.
    ("hr", "/extension", "[{\"url\": \"urn:x\"}]", "invariant", "Observation.extension[0]"),
    ("hr", "/extension", "[{\"valueString\": \"x\"}]", "required", "Observation.extension[0].url"),
    (
        "hr",
        "/extension",
        "[{\"url\": \"urn:x\", \"valueString\": \"a\", \"valueCode\": \"b\"}]",
        "structure",
        "Observation.extension[0].value[x]",
    ),
    (
        "hr",
        "/extension",
        "[{\"url\": \"urn:x\", \"valueString\": \"a\", \"extension\": [{\"url\": \"y\", \"valueCode\": \"b\"}]}]",
        "invariant",
        "Observation.extension[0]",
    ),
    (
        "hr",
        "/extension",
        "[{\"url\": \"urn:x\", \"valueMoneyBag\": 1}]",
        "structure",
        "Observation.extension[0].valueMoneyBag",
    ),
    // Vital-signs profiles.
    ("hr", "/subject", "-", "required", "Observation.subject"),
    ("hr", "/subject/reference", "\"Device/d1\"", "required", "Observation.subject"),
    ("hr", "/effectiveDateTime", "-", "required", "Observation.effective[x]"),
    ("hr", "/effectiveDateTime", "\"2026-11\"", "invariant", "Observation.effectiveDateTime"),
    ("hr", "/code/coding/0/code", "\"8867-5\"", "required", "Observation.code"),
    ("hr", "/code/coding/0/system", "\"urn:oid:1.2.3\"", "required", "Observation.code"),
    ("hr", "/category/0/coding/0/code", "\"laboratory\"", "required", "Observation.category"),
    ("hr", "/category/0/coding/0/system", "-", "required", "Observation.category"),
    ("hr", "/valueQuantity", "-", "invariant", "Observation"),
    ("hr", "/valueQuantity/unit", "-", "required", "Observation.valueQuantity.unit"),
    ("hr", "/valueQuantity/value", "-", "required", "Observation.valueQuantity.value"),
    ("hr", "/valueQuantity/system", "\"urn:x\"", "value", "Observation.valueQuantity.system"),
    ("hr", "/valueQuantity/code", "\"{beat}/min\"", "value", "Observation.valueQuantity.code"),
    (
        "hr",
        "/meta/profile/0",
        "\"http://hl7.org/fhir/StructureDefinition/bodytemp|4.0.1\"",
        "required",
        "Observation.code",
    ),
    (
        "hr",
        "/meta/profile/0",
        "\"http://hl7.org/fhir/StructureDefinition/bp\"",
        "structure",
        "Observation.value[x]",
    ),
    ("bp", "/component/0", "-", "required", "Observation.component"),
    (
        "bp",
        "/component/-",
        "{\"code\": {\"coding\": [{\"system\": \"http://loinc.org\", \"code\": \"8480-6\"}]}, \"dataAbsentReason\": {\"text\": \"x\"}}",
        "structure",
        "Observation.component[2]",
    ),
    ("bp", "/component", "-", "required", "Observation.component"),
    (
        "bp",
        "/component/1/valueQuantity/code",
        "\"kPa\"",
        "value",
        "Observation.component[1].valueQuantity.code",
    ),
    ("bp", "/component/1/valueQuantity", "-", "invariant", "Observation.component[1]"),
    ("bp", "/component/1/dataAbsentReason", "{\"text\": \"x\"}", "invariant", "Observation.component[1]"),
    ("bp", "/component/1/code", "-", "required", "Observation.component[1].code"),
    (
        "bp",
        "/component/1/subject",
        "{\"reference\": \"Patient/p\"}",
        "structure",
        "Observation.component[1].subject",
    ),
    ("bp", "/valueQuantity", "{\"value\": 1}", "structure", "Observation.value[x]"),
    // Sampled data.
    ("ecg", "/valueSampledData/origin", "-", "required", "Observation.valueSampledData.origin"),
    ("ecg", "/valueSampledData/period", "-", "required", "Observation.valueSampledData.period"),
    ("ecg", "/valueSampledData/period", "0", "value", "Observation.valueSampledData.period"),
    ("ecg", "/valueSampledData/dimensions", "0", "value", "Observation.valueSampledData.dimensions"),
    ("ecg", "/valueSampledData/dimensions", "1.0", "value", "Observation.valueSampledData.dimensions"),
    ("ecg", "/valueSampledData/dimensions", "3", "value", "Observation.valueSampledData.data"),
    ("ecg", "/valueSampledData/data", "\"1  2\"", "value", "Observation.valueSampledData.data"),
    ("ecg", "/valueSampledData/data", "\"1,2\"", "value", "Observation.valueSampledData.data"),
    ("ecg", "/valueSampledData/data", "\"1 2. 3\"", "value", "Observation.valueSampledData.data"),
    ("ecg", "/valueSampledData/data", "\"1 - 3\"", "value", "Observation.valueSampledData.data"),
    ("ecg", "/valueSampledData/data", "\"1 e 2\"", "value", "Observation.valueSampledData.data"),
    ("ecg", "/valueSampledData/data", "\"1 2 \"", "value", "Observation.valueSampledData.data"),
    ("ecg", "/valueSampledData/data", "[1, 2]", "value", "Observation.valueSampledData.data"),
    (
        "ecg",
        "/valueSampledData/origin/comparator",
        "\"<\"",
        "structure",
        "Observation.valueSampledData.origin.comparator",
    ),
    (
        "ecg",
        "/referenceRange",
        "[{\"type\": {\"text\": \"x\"}}]",
        "invariant",
        "Observation.referenceRange[0]",
    ),
    (
        "ecg",
        "/referenceRange",
        "[{\"text\": \"x\", \"age\": {\"low\": {\"value\": 9}, \"high\": {\"value\": 1}}}]",
        "invariant",
        "Observation.referenceRange[0].age",
    ),
    ("ecg", "/contained", "[{\"resourceType\": \"Device\"}]", "invariant", "Observation"),
    // Bundles.
    ("tx", "/type", "-", "required", "Bundle.type"),
    ("tx", "/type", "\"searchset\"", "invariant", "Bundle"),
    ("tx", "/total", "1", "invariant", "Bundle"),
    ("tx", "/entry/0/request/method", "\"post\"", "code-invalid", "Bundle.entry[0].request.method"),
    ("tx", "/entry/0/request/url", "-", "required", "Bundle.entry[0].request.url"),
    ("tx", "/entry/0/resource", "-", "required", "Bundle"),
    ("tx", "/entry/0/resource/status", "-", "required", "Bundle.entry[0].resource.status"),
    ("tx", "/entry/0/resource/resourceType", "\"Bogus\"", "not-supported", "Bundle.entry[0].resource"),
    ("tx", "/entry/0/response", "{\"status\": \"200\"}", "invariant", "Bundle"),
    ("tx", "/entry/0/search", "{\"mode\": \"match\"}", "invariant", "Bundle"),
    ("tx", "/entry/0/fullUrl", "\"urn:uuid:a /_history/1\"", "value", "Bundle.entry[0].fullUrl"),
    ("tx", "/entry/0/fullUrl", "\"http://a/Observation/1/_history/1\"", "invariant", "Bundle"),
    ("tx", "/entry", "[]", "structure", "Bundle.entry"),
    ("tx", "/text", "{\"status\": \"generated\"}", "structure", "Bundle.text"),
    // Other resources.
    ("audit", "/agent", "-", "required", "AuditEvent.agent"),
    ("audit", "/agent/0/requestor", "-", "required", "AuditEvent.agent[0].requestor"),
    ("audit", "/agent/0/requestor", "\"true\"", "value", "AuditEvent.agent[0].requestor"),
    ("audit", "/action", "\"Create\"", "code-invalid", "AuditEvent.action"),
    ("audit", "/outcome", "0", "value", "AuditEvent.outcome"),
    ("audit", "/type", "{\"coding\": [{\"code\": \"rest\"}]}", "structure", "AuditEvent.type.coding"),
    ("audit", "/entity", "[{\"name\": \"a\", \"query\": \"YWI=\"}]", "invariant", "AuditEvent.entity[0]"),
    ("audit", "/entity", "[{\"query\": \"a b\"}]", "value", "AuditEvent.entity[0].query"),
    (
        "audit",
        "/entity",
        "[{\"detail\": [{\"type\": \"a\"}]}]",
        "required",
        "AuditEvent.entity[0].detail[0].value[x]",
    ),
    ("metric", "/type", "-", "required", "DeviceMetric.type"),
    ("metric", "/color", "\"orange\"", "code-invalid", "DeviceMetric.color"),
    ("metric", "/calibration", "[{\"time\": \"2026-11-22\"}]", "value", "DeviceMetric.calibration[0].time"),
    ("metric", "/source", "{\"reference\": \"Patient/1\"}", "value", "DeviceMetric.source.reference"),
    ("patient", "/gender", "\"m\"", "code-invalid", "Patient.gender"),
    ("patient", "/birthDate", "\"1950-1-1\"", "value", "Patient.birthDate"),
    ("patient", "/birthDate", "\"1950-01-01T00:00:00Z\"", "value", "Patient.birthDate"),
    ("patient", "/active", "\"yes\"", "value", "Patient.active"),
    ("patient", "/name/0/given", "\"Ann\"", "structure", "Patient.name[0].given"),
    ("patient", "/name/0/given", "[null]", "value", "Patient.name[0].given[0]"),
    ("patient", "/telecom", "[{\"value\": \"1\"}]", "invariant", "Patient.telecom[0]"),
    ("patient", "/contact", "[{\"gender\": \"male\"}]", "invariant", "Patient.contact[0]"),
    ("patient", "/photo", "[{\"data\": \"YWI=\"}]", "invariant", "Patient.photo[0]"),
    (
        "patient",
        "/identifier/0/period",
        "{\"start\": \"2027\", \"end\": \"2026\"}",
        "invariant",
        "Patient.identifier[0].period",
    ),
    ("patient", "/text", "{\"status\": \"generated\", \"div\": \"hello\"}", "value", "Patient.text.div"),
    ("device", "/status", "\"retired\"", "code-invalid", "Device.status"),
    ("device", "/deviceName/0/type", "-", "required", "Device.deviceName[0].type"),
    ("device", "/patient", "{\"reference\": \"Group/1\"}", "value", "Device.patient.reference"),
    ("location", "/mode", "\"real\"", "code-invalid", "Location.mode"),
    ("location", "/position", "{\"latitude\": 1}", "required", "Location.position.longitude"),
];

#[test]
fn every_mutation_is_refused_where_it_is() {
    assert!(REFUSED.len() >= 60);
    let mut wrong = Vec::new();
    for (name, pointer, content, code, place) in REFUSED {
        let mut resource = base(name);
        let sound = validate::resource(&resource);
        assert!(sound.is_empty(), "{name}: {:#?}", lines(&sound));
        change(&mut resource, pointer, (*content != "-").then_some(content));
        let issues = validate::resource(&resource);
        let is_named = issues
            .iter()
            .any(|issue| issue.code.code() == *code && issue.expression.first().map_or("", |e| e) == *place);
        if !is_named {
            wrong.push(format!(
                "{name} {pointer} {content}: expected {code} at {place}, found {:?}",
                lines(&issues)
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Changes that stay sound: the reader is strict, not narrow.
const TAKEN: &[(&str, &str, &str)] = &[
    ("hr", "/id", "-"),
    ("hr", "/meta/profile/0", "\"https://site.example/fhir/StructureDefinition/own\""),
    ("hr", "/valueQuantity/value", "72.50"),
    ("hr", "/valueQuantity/value", "7.25e1"),
    ("hr", "/effectiveDateTime", "\"2026-11-22\""),
    ("hr", "/effectiveDateTime", "\"2026-11-22T11:15:30.123456789+01:00\""),
    ("hr", "/subject/reference", "\"https://a.example/fhir/Patient/p1\""),
    ("hr", "/subject/reference", "\"urn:uuid:6f1f0c53-6c1a-4e7e-8f0e-1b1b6a0c9d01\""),
    ("hr", "/subject", "{\"identifier\": {\"value\": \"1\"}}"),
    (
        "hr",
        "/contained",
        "[{\"resourceType\": \"Organization\", \"id\": \"o\", \"name\": \"x\", \"partOf\": {\"reference\": \"#\"}}]",
    ),
    ("hr", "/_effectiveDateTime", "{\"extension\": [{\"url\": \"urn:x\", \"valueCode\": \"a\"}]}"),
    (
        "hr",
        "/extension",
        "[{\"url\": \"urn:x\", \"extension\": [{\"url\": \"y\", \"valueDosage\": {\"text\": \"a\"}}]}]",
    ),
    (
        "hr",
        "/text",
        "{\"status\": \"generated\", \"div\": \"<div xmlns=\\\"http://www.w3.org/1999/xhtml\\\">x</div>\"}",
    ),
    ("bp", "/component/1/valueQuantity/value", "80.0"),
    ("ecg", "/valueSampledData/dimensions", "2"),
    ("ecg", "/valueSampledData/data", "\"-.5 1.25 E\""),
    ("patient", "/birthDate", "\"1950\""),
    ("tx", "/entry/0/fullUrl", "-"),
];

#[test]
fn what_stays_sound_is_taken() {
    for (name, pointer, content) in TAKEN {
        let mut resource = base(name);
        change(&mut resource, pointer, (*content != "-").then_some(content));
        let issues = validate::resource(&resource);
        assert!(issues.is_empty(), "{name} {pointer} {content}: {:#?}", lines(&issues));
    }
}

#[test]
fn a_resource_full_of_faults_gives_a_bounded_report() {
    let names: Vec<String> = (0..5_000).map(|number| format!("\"x{number}\": 1")).collect();
    let text = format!("{{\"resourceType\": \"Observation\", {}}}", names.join(","));
    let resource: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(validate::resource(&resource).len(), validate::ISSUE_LIMIT);
}
