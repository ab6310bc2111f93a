//! Searches taken apart: chains, reverse chains, includes, totals; and what operations are asked with.

use clinical_model::{Interval, Subject, measure};
use health_codecs::fhir::search::{
    Handling, Query, REFERENCES, ResourceType, Statistic, Total, When, parameters_as_pairs, parse_everything,
    parse_export, parse_query, parse_stats, parse_trend,
};
use health_codecs::fhir::view::View;
use serde_json::json;

use crate::support::{PATIENT, at, lines};

fn pairs(query: &[(&str, &str)]) -> Vec<(String, String)> {
    query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn query(kind: ResourceType, given: &[(&str, &str)]) -> Query {
    parse_query(kind, &pairs(given), Handling::Strict)
        .unwrap_or_else(|issues| panic!("{given:?}: {:#?}", lines(&issues)))
}

#[test]
fn chains_and_reverse_chains() {
    let found = query(
        ResourceType::Observation,
        &[
            ("code", "8867-4"),
            ("patient.family", "Ito"),
            ("subject:Patient.identifier", "MRN-1"),
            ("device.patient.family", "Ito"),
            ("subject:Device", "d1,Device/d2"),
        ],
    );
    assert_eq!(found.filters, pairs(&[("code", "8867-4"), ("subject", "Device/d1,Device/d2")]));
    let chains: Vec<_> =
        found.chains.iter().map(|chain| (chain.reference.name, chain.target, chain.name.as_str())).collect();
    assert_eq!(
        chains,
        [
            ("patient", ResourceType::Patient, "family"),
            ("subject", ResourceType::Patient, "identifier"),
            ("device", ResourceType::Device, "patient.family"),
        ]
    );
    let found = query(
        ResourceType::Patient,
        &[
            ("_has:Observation:patient:code", "8867-4"),
            ("_has:Device:patient:_has:Observation:device:code", "x"),
        ],
    );
    assert_eq!(
        (found.has[0].reference.source, found.has[0].name.as_str()),
        (ResourceType::Observation, "code")
    );
    assert_eq!(found.has[1].name, "_has:Observation:device:code");
}

#[test]
fn includes_totals_and_views() {
    let found = query(
        ResourceType::Observation,
        &[
            ("_include", "Observation:device"),
            ("_include", "Observation:subject:Location"),
            ("_include:iterate", "Device:patient"),
            ("_total", "accurate"),
            ("_elements", "code,value"),
        ],
    );
    assert_eq!(found.includes.len(), 3);
    assert_eq!(found.includes[1].target, Some(ResourceType::Location));
    assert!(found.includes[2].iterate && !found.includes[0].iterate);
    assert_eq!(found.total, Total::Accurate);
    assert_eq!(found.view, View::Elements(vec!["code".into(), "value".into()]));
    assert_eq!(query(ResourceType::Observation, &[("_include", "*")]).includes.len(), 3);
    assert_eq!(query(ResourceType::Observation, &[("_include", "Observation:*")]).includes.len(), 3);
    let found = query(
        ResourceType::Patient,
        &[("_revinclude", "Observation:subject"), ("_revinclude", "Device:patient")],
    );
    assert_eq!(found.reverse_includes.len(), 2);
    assert!(REFERENCES.iter().all(|each| !each.targets.is_empty()));
}

#[test]
fn what_is_not_understood_is_refused_or_left_out() {
    use ResourceType::{Location, Observation, Patient};
    let deep = format!("{}name", "partof.".repeat(5));
    let cases: &[(ResourceType, &str, &str, &str, &str)] = &[
        (Observation, "colour", "red", "not-supported", "supported are"),
        (Observation, "identifier:missing", "true", "not-supported", ":missing"),
        (Observation, "code:missing", "perhaps", "value", "true or false"),
        (Observation, "code:text", "heart", "not-supported", ":text"),
        (Observation, "patient:Device", "d", "not-supported", ":Device"),
        (Observation, "patient:identifier", "x", "not-supported", ":identifier"),
        (Observation, "subject.name", "x", "value", "name one"),
        (Observation, "patient.colour", "x", "not-supported", "colour"),
        (Observation, "patient:Device.name", "x", "value", "Patient"),
        (Observation, "patient._count", "1", "not-supported", "chained"),
        (Observation, "code.text", "x", "not-supported", "no reference"),
        (Observation, "_has:Device:patient:identifier", "x", "not-supported", "nothing of the kind"),
        (Observation, "_include", "Patient:organization", "not-supported", "Observation:device"),
        (Observation, "_include", "Observation:device:Patient", "not-supported", "Observation:device"),
        (Observation, "_include", "Observation", "value", "Type:reference"),
        (Observation, "_revinclude", "Provenance:target", "not-supported", "nothing of the kind"),
        (Observation, "_total", "yes", "value", "accurate"),
        (Observation, "_summary", "maybe", "value", "count"),
        (Patient, "_has:Observation:patient", "x", "value", "_has:Type"),
        (Patient, "_has:Observation:device:code", "x", "not-supported", "Observation:patient"),
        (Patient, "_has:AuditEvent:patient:action", "R", "not-supported", "Device:patient"),
        (Patient, "_has:Observation:patient:colour", "x", "not-supported", "colour"),
        (Location, &deep, "x", "too-costly", "followed"),
    ];
    for (kind, name, value, code, word) in cases {
        let issues = parse_query(*kind, &pairs(&[(name, value)]), Handling::Strict).expect_err(name);
        assert_eq!(issues[0].code.code(), *code, "{name}: {:#?}", lines(&issues));
        assert!(issues[0].diagnostics.contains(word), "{name}: {:#?}", lines(&issues));
        assert!(issues[0].expression[0].starts_with("http."), "{name}");
        let lenient = parse_query(*kind, &pairs(&[(name, value)]), Handling::Lenient);
        match lenient {
            Ok(query) => {
                assert_eq!(*code, "not-supported", "{name}");
                assert_eq!((query.ignored.len(), query.hints.len()), (1, 1), "{name}: {query:?}");
                assert!(
                    query.filters.is_empty() && query.chains.is_empty() && query.has.is_empty(),
                    "{name}"
                );
            }
            // What is malformed is refused all the same.
            Err(_) => assert!(*code != "not-supported" || *name == "patient._count", "{name}"),
        }
    }
    let both = pairs(&[("_summary", "text"), ("_include", "Observation:device")]);
    assert!(parse_query(Observation, &both, Handling::Strict).is_err());
}

#[test]
fn statistics_are_asked_for() {
    let patient = format!("Patient/{PATIENT}");
    let query = [
        ("subject", patient.as_str()),
        ("code", "8867-4,85354-9"),
        ("system", "http://loinc.org"),
        ("statistic", "average"),
        ("statistic", "20-percent,count"),
        ("duration", "1.5"),
        ("include", "true"),
    ];
    let found = parse_stats(&pairs(&query)).unwrap_or_else(|issues| panic!("{:#?}", lines(&issues)));
    assert_eq!(found.subjects, [Subject::Patient(PATIENT)]);
    assert!(found.wanted[0].measures.contains(&measure::PULSE_RATE_CUFF));
    assert!(found.wanted[1].measures.contains(&measure::SYSTOLIC), "a panel stands for its components");
    let statistics: Vec<Statistic> = found.statistics.iter().map(|(_, statistic)| *statistic).collect();
    assert_eq!(statistics, [Statistic::Average, Statistic::Quantile(20), Statistic::Count]);
    assert_eq!((found.when, found.sources), (When::LastMicros(5_400_000_000), 100));
    for bad in [
        vec![("code", "8867-4"), ("statistic", "count")],
        vec![("subject", &patient), ("statistic", "count")],
        vec![("subject", &patient), ("code", "8867-4")],
        vec![("subject", &patient), ("code", "8867-4"), ("statistic", "regression")],
        vec![("subject", &patient), ("code", "8867-4"), ("statistic", "count"), ("duration", "0")],
        vec![
            ("subject", &patient),
            ("code", "8867-4"),
            ("statistic", "count"),
            ("duration", "1"),
            ("start", "2026"),
        ],
    ] {
        assert!(parse_stats(&pairs(&bad)).is_err(), "{bad:?}");
    }
    // The same as a Parameters resource.
    let resource = json!({"resourceType": "Parameters", "parameter": [
        {"name": "subject", "valueUri": patient},
        {"name": "coding", "valueCoding": {"system": "http://loinc.org", "code": "8867-4"}},
        {"name": "statistic", "valueCode": "average"},
        {"name": "period", "valuePeriod": {"start": "2026-11-22T10:00:00Z", "end": "2026-11-22T11:00:00Z"}},
        {"name": "limit", "valuePositiveInt": 5},
    ]});
    let found = parse_stats(&parameters_as_pairs(&resource).expect("sound")).expect("sound");
    let hour = Interval::between(at("2026-11-22T10:00:00Z"), at("2026-11-22T11:00:01Z"));
    assert_eq!(found.when, When::Between(hour));
    assert_eq!(found.wanted[0].measures.len(), 3);
    for bad in [
        json!({"resourceType": "Patient"}),
        json!({"resourceType": "Parameters", "parameter": [{"name": "subject"}]}),
        json!({"resourceType": "Parameters", "parameter": [{"valueCode": "x"}]}),
    ] {
        assert!(parameters_as_pairs(&bad).is_err(), "{bad}");
    }
}

#[test]
fn trends_everything_and_exports_are_asked_for() {
    let span = [("patient", "p1"), ("code", "8867-4"), ("start", "2026-11-22"), ("end", "2026-11-22")];
    let found = parse_trend(&pairs(&span)).expect("sound");
    let day = Interval::between(at("2026-11-22T00:00:00Z"), at("2026-11-23T00:00:00Z"));
    assert_eq!((found.when, found.buckets), (When::Between(day), 288));
    for bad in [
        vec![("patient", "p1"), ("code", "8867-4")],
        vec![("patient", "p1"), ("code", "8867-4"), ("end", "2026")],
        vec![("patient", "p1"), ("code", "8867-4"), ("duration", "24"), ("buckets", "2001")],
        vec![("patient", "p1"), ("code", "8867-4"), ("start", "2026-11-22"), ("end", "2026-11-21")],
    ] {
        assert!(parse_trend(&pairs(&bad)).is_err(), "{bad:?}");
    }
    let everything =
        parse_everything(&pairs(&[("_type", "Patient,Device"), ("_since", "2026-11-22T10:00:00Z")]));
    let everything = everything.expect("sound");
    assert_eq!(everything.types, [ResourceType::Patient, ResourceType::Device]);
    assert_eq!(everything.since, Some(at("2026-11-22T10:00:00Z")));
    assert!(parse_everything(&pairs(&[("_type", "Encounter")])).is_err());
    let export = parse_export(&pairs(&[("_outputFormat", "application/fhir ndjson")])).expect("sound");
    assert_eq!((export.types.len(), export.patients), (4, None));
    assert!(parse_export(&pairs(&[("_outputFormat", "text/csv")])).is_err());
    assert!(parse_export(&pairs(&[("_typeFilter", "x")])).is_err());
}
