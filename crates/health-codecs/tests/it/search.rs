//! Searches: what is read, what matches nothing, what is refused and how it says so.

use clinical_model::patient::Gender;
use clinical_model::{Subject, measure};
use health_codecs::fhir::search::{
    LastnSearch, ObservationSearch, ObservationStatus, Sort, parse_audit_search, parse_device_search,
    parse_lastn, parse_location_search, parse_observation_search, parse_patient_search,
};

use crate::support::{DEVICE, PATIENT, at, lines};

fn pairs(query: &[(&str, &str)]) -> Vec<(String, String)> {
    query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn search(query: &[(&str, &str)]) -> ObservationSearch {
    parse_observation_search(&pairs(query))
        .unwrap_or_else(|issues| panic!("{query:?}: {:#?}", lines(&issues)))
}

fn names(search: &ObservationSearch) -> Vec<&'static str> {
    search.measures.as_ref().map(|set| set.iter().map(|measure| measure.name).collect()).unwrap_or_default()
}

#[test]
fn nothing_given_is_no_condition() {
    let all = search(&[("_format", "application/fhir json"), ("_pretty", "true")]);
    assert_eq!(all, ObservationSearch::default());
    assert_eq!(all.sort, Sort::NewestFirst);
}

#[test]
fn subjects_and_devices() {
    let patient = PATIENT.to_string();
    let typed = format!("Patient/{patient}");
    assert_eq!(search(&[("patient", &patient)]).subjects, Some(vec![Subject::Patient(PATIENT)]));
    assert_eq!(search(&[("patient", &typed)]).subjects, Some(vec![Subject::Patient(PATIENT)]));
    assert_eq!(search(&[("subject", &typed)]).subjects, Some(vec![Subject::Patient(PATIENT)]));
    assert_eq!(search(&[("subject", &patient)]).subjects.map(|all| all.len()), Some(3));
    assert_eq!(search(&[("patient", "p1")]).subjects, Some(vec![]));
    let both = format!("{typed},Patient/{DEVICE}");
    assert_eq!(search(&[("patient", &both)]).subjects.map(|all| all.len()), Some(2));
    assert_eq!(
        search(&[("patient", &both), ("subject", &typed)]).subjects,
        Some(vec![Subject::Patient(PATIENT)])
    );
    assert_eq!(search(&[("device", &format!("Device/{DEVICE}"))]).devices, Some(vec![DEVICE]));
}

#[test]
fn codes() {
    let of = |code: &str| search(&[("code", code)]);
    assert_eq!(names(&of("8867-4")), ["heart_rate", "pulse_rate_oximeter", "pulse_rate_cuff"]);
    assert_eq!(names(&of("http://loinc.org|2708-6")), ["oxygen_saturation"]);
    assert_eq!(names(&of("http://loinc.org|59408-5")), ["oxygen_saturation"]);
    assert_eq!(names(&of("urn:iso:std:iso:11073:10101|149530")), ["pulse_rate_oximeter"]);
    assert_eq!(names(&of("http://loinc.org|149530")), [""; 0]);
    assert_eq!(names(&of("|8867-4")), [""; 0]);
    assert_eq!(names(&of("9279-1,urn:auscult:measure|dose")), ["respiratory_rate", "dose"]);
    assert_eq!(of("1-8").measures.map(|set| set.len()), Some(0));
    let pressure = of("85354-9");
    assert_eq!(names(&pressure), ["blood_pressure", "arterial_pressure"]);
    let series = pressure.series_measures().expect("given");
    assert!(
        series.contains(&measure::SYSTOLIC) && series.contains(&measure::ARTERIAL_MEAN) && series.len() == 6
    );
    // A component is not the code of an Observation: nothing matches, and a hint says how to ask.
    let systolic = of("8480-6");
    assert_eq!(names(&systolic), [""; 0]);
    assert!(systolic.hints[0].diagnostics.contains("combo-code"), "{:?}", systolic.hints);
    assert_eq!(names(&search(&[("combo-code", "8480-6")])), ["blood_pressure", "arterial_pressure"]);
}

#[test]
fn values_are_compared_in_the_unit_of_the_measure() {
    let fits = |filter: &str, measure: clinical_model::Measure, value: &str| {
        search(&[("value-quantity", filter)]).values[0].matches(measure, value.parse().unwrap())
    };
    assert!(fits("gt61|http://unitsofmeasure.org|/min", measure::HEART_RATE, "62"));
    assert!(!fits("gt61|http://unitsofmeasure.org|/min", measure::HEART_RATE, "61"));
    assert!(!fits("gt61|http://unitsofmeasure.org|Cel", measure::HEART_RATE, "62"), "another dimension");
    assert!(fits("98.6||[degF]", measure::BODY_TEMPERATURE, "37.0"));
    assert!(fits("5.4", measure::PERFUSION_INDEX, "5.44") && !fits("5.4", measure::PERFUSION_INDEX, "5.45"));
    assert!(fits("ne5.4", measure::PERFUSION_INDEX, "5.45") && fits("le5", measure::PERFUSION_INDEX, "5"));
}

#[test]
fn codes_can_be_left_out_and_asked_for_as_components() {
    let pressure = ["blood_pressure", "arterial_pressure"];
    assert_eq!(names(&search(&[("component-code", "8480-6")])), pressure);
    assert_eq!(names(&search(&[("code", "8867-4,85354-9"), ("code:not", "8867-4")])), pressure);
    assert!(!names(&search(&[("code:not", "8867-4")])).contains(&"heart_rate"));
}

#[test]
fn categories_narrow_codes() {
    let labs = search(&[("category", "laboratory")]);
    assert_eq!(names(&labs), ["glucose"]);
    assert_eq!(names(&search(&[("category", "laboratory"), ("code", "8867-4")])), [""; 0]);
    assert_eq!(names(&search(&[("category", "vital-signs"), ("code", "8867-4,41653-7")])).len(), 3);
    assert_eq!(names(&search(&[("category", "urn:x|laboratory")])), [""; 0]);
}

#[test]
fn dates_orders_and_pages() {
    let query = [
        ("date", "ge2026-11-22"),
        ("date", "lt2026-11-23T00:00:00Z"),
        ("_sort", "date"),
        ("_count", "5000"),
        ("_cursor", "ab-C_1"),
        ("status", "final"),
        ("_lastUpdated", "gt2026"),
        ("_id", "abc,def"),
    ];
    let found = search(&query);
    assert!(found.date.iter().all(|filter| filter.matches(at("2026-11-22T12:00:00Z"))));
    assert!(!found.date.iter().all(|filter| filter.matches(at("2026-11-23T00:00:00Z"))));
    assert_eq!(
        (found.sort, found.count, found.cursor.as_deref()),
        (Sort::OldestFirst, Some(1_000), Some("ab-C_1"))
    );
    assert_eq!(found.statuses, Some(vec![ObservationStatus::Final]));
    assert_eq!(found.ids, Some(vec!["abc".to_owned(), "def".to_owned()]));
    assert_eq!(search(&[("status", "amended")]).statuses, Some(vec![ObservationStatus::Amended]));
    assert_eq!(search(&[("status", "cancelled")]).statuses, Some(vec![]));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let long = "x".repeat(10_000);
    let cases: &[(&str, &str, &str, &str)] = &[
        ("value-quantity", "gt", "value", "quantity"),
        ("value-quantity", "5|urn:x|mg", "value", "quantity"),
        ("identifier", "MRN-1", "not-supported", "system|value"),
        ("_include", "Observation:subject", "not-supported", "_count"),
        ("code:missing", "true", "not-supported", ":missing"),
        ("code:text", "heart", "not-supported", ":text"),
        ("subject:Patient", "1", "not-supported", ":Patient"),
        ("patient.name", "x", "not-supported", "patient.name"),
        ("date", "yesterday", "not-supported", "prefix"),
        ("date", "2026-99", "value", "no date"),
        ("date", "ap2026", "not-supported", "ap"),
        ("date", "2026-11-22,2026-11-23", "not-supported", "alternatives"),
        ("date", "", "value", "no value"),
        ("patient", "Device/1", "value", "reference"),
        ("patient", "http://other.example/Patient/1", "value", "reference"),
        ("code", "a|b|c", "value", "token"),
        ("code", "8867-4,,2708-6", "value", "empty alternative"),
        ("code", &long, "too-long", "8192"),
        ("_sort", "code", "not-supported", "-date"),
        ("_count", "0", "value", "from 1"),
        ("_count", "-1", "value", "from 1"),
        ("_count", "ten", "value", "from 1"),
        ("_cursor", "a b", "value", "next link"),
        ("_format", "xml", "not-supported", "JSON"),
        ("_id", "a_b", "value", "no id"),
    ];
    for (name, value, code, word) in cases {
        let issues = parse_observation_search(&pairs(&[(name, value)])).expect_err(name);
        assert_eq!(issues.len(), 1, "{name}={value:.30}: {:#?}", lines(&issues));
        assert_eq!(issues[0].code.code(), *code, "{name}={value:.30}: {:#?}", lines(&issues));
        assert!(issues[0].diagnostics.contains(word), "{name}={value:.30}: {:#?}", lines(&issues));
        assert!(issues[0].expression[0].starts_with("http."));
    }
    let twice = parse_observation_search(&pairs(&[("_count", "1"), ("_count", "2")])).expect_err("twice");
    assert!(twice[0].diagnostics.contains("once"));
    let flood = vec![("date".to_owned(), "ge2026".to_owned()); 51];
    assert_eq!(parse_observation_search(&flood).expect_err("flood")[0].code.code(), "too-long");
}

#[test]
fn the_last_of_each_code() {
    let patient = PATIENT.to_string();
    let found = parse_lastn(&pairs(&[("patient", &patient), ("category", "vital-signs"), ("max", "3")]));
    let Ok(LastnSearch { subjects, max, search }) = found else { panic!("{found:?}") };
    assert_eq!((subjects, max), (vec![Subject::Patient(PATIENT)], 3));
    assert!(search.measures.is_some_and(|set| set.contains(&measure::HEART_RATE)));
    for bad in [vec![], vec![("patient", "1"), ("max", "0")], vec![("patient", "1"), ("max", "101")]] {
        assert!(parse_lastn(&pairs(&bad)).is_err(), "{bad:?}");
    }
    assert!(parse_lastn(&pairs(&[("patient", "1"), ("_count", "3")])).is_err());
    let narrowed =
        parse_lastn(&pairs(&[("patient", "1"), ("date", "2026"), ("status", "final")])).expect("sound");
    assert_eq!((narrowed.search.date.len(), narrowed.search.statuses.map(|all| all.len())), (1, Some(1)));
}

#[test]
fn patients() {
    let query = [
        ("identifier", "urn:auscult:record-number|MRN-1,MRN-2,urn:other|MRN-3"),
        ("family", "Oka,Sm\\,ith"),
        ("given", "ada"),
        ("birthdate", "1951-03-09"),
        ("gender", "female,other"),
        ("_count", "10"),
    ];
    let found = parse_patient_search(&pairs(&query)).unwrap_or_else(|issues| panic!("{:?}", lines(&issues)));
    let plain = |all: &[clinical_model::Private<String>]| {
        all.iter().map(|each| each.expose().clone()).collect::<Vec<_>>()
    };
    assert_eq!(plain(&found.record_numbers.expect("given")), ["MRN-1", "MRN-2"]);
    assert_eq!(plain(&found.family[0]), ["Oka", "Sm,ith"]);
    assert_eq!(plain(&found.birth_dates.expect("given")), ["1951-03-09"]);
    assert_eq!(found.genders, Some(vec![Gender::Female, Gender::Other]));
    for (name, value) in
        [("birthdate", "1951"), ("birthdate", "ge1951-03-09"), ("gender", "f"), ("phone", "1")]
    {
        assert!(parse_patient_search(&pairs(&[(name, value)])).is_err(), "{name}={value}");
    }
    // What a caller typed about a birth date is not repeated.
    let refused = parse_patient_search(&pairs(&[("birthdate", "1951-03")])).expect_err("not a day");
    assert!(!refused[0].diagnostics.contains("1951"));
}

#[test]
fn devices_and_audit_events() {
    let patient = format!("Patient/{PATIENT}");
    let devices =
        parse_device_search(&pairs(&[("identifier", "urn:x|S-1"), ("patient", &patient)])).expect("sound");
    assert_eq!((devices.serials, devices.patients), (Some(vec!["S-1".to_owned()]), Some(vec![PATIENT])));
    assert!(parse_device_search(&pairs(&[("patient", "Device/1")])).is_err());

    let query =
        [("patient", patient.as_str()), ("agent", "Device/d1,u1"), ("date", "ge2026"), ("action", "R,E")];
    let devices =
        parse_device_search(&pairs(&[("device-name", "mon,ven"), ("status", "inactive")])).expect("sound");
    assert_eq!((devices.names[0].len(), devices.retired), (2, Some(vec![true])));
    let places = parse_location_search(&pairs(&[("name", "Bed"), ("partof", "Location/x")])).expect("sound");
    assert_eq!((places.names[0][0].as_str(), places.wards), ("Bed", Some(vec![])));
    let events = parse_audit_search(&pairs(&query)).unwrap_or_else(|issues| panic!("{:?}", lines(&issues)));
    assert_eq!(events.agents, Some(vec!["Device/d1".to_owned(), "u1".to_owned()]));
    assert_eq!(events.actions.map(|all| all.len()), Some(2));
    for (name, value) in [("action", "X"), ("agent", "Group/1"), ("outcome", "x")] {
        assert!(parse_audit_search(&pairs(&[(name, value)])).is_err(), "{name}={value}");
    }
}
