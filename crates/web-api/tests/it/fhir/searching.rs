//! Searching Observations: filters, order, paging while readings arrive, panels, curves and the latest of each code.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use clinical_model::measure;
use serde_json::{Value, json};
use store::AuditQuery;

use super::{at, get, heart_rate, ids, issue, link, post, post_with, program};
use crate::clinic::{Clinic, monitor, patient};

/// Heart rates every second from `from` to `to`, of one monitor.
async fn send(clinic: &Clinic, number: u8, from: i64, to: i64) {
    let entries: Vec<String> = (from..to)
        .map(|second| {
            let value = 60 + second.rem_euclid(40);
            format!(r#"{{"measure":"heart_rate","value":{value},"unit":"/min","time":"{}"}}"#, at(second))
        })
        .collect();
    let receipt = clinic.ingest(monitor(number), &format!("[{}]", entries.join(","))).await;
    for entry in receipt.entries {
        assert!(matches!(entry, pipeline::EntryOutcome::Committed { .. }), "{entry:?}");
    }
}

async fn pressure(clinic: &Clinic, second: i64, systolic: u32, diastolic: u32) {
    let component = |code: &str, value: u32| {
        json!({
            "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "valueQuantity": {"value": value, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"},
        })
    };
    let sent = json!({
        "resourceType": "Observation", "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]},
        "device": {"reference": format!("Device/{}", monitor(1))},
        "effectiveDateTime": at(second).to_rfc3339(),
        "component": [component("8480-6", systolic), component("8462-4", diastolic)],
    });
    let made = post(clinic, &program(), "/fhir/Observation", &sent).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
}

async fn found(clinic: &Clinic, query: &str) -> Value {
    let answer = get(clinic, &program(), &format!("/fhir/Observation?{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.body);
    answer.body
}

fn times(bundle: &Value) -> Vec<String> {
    let entries = bundle["entry"].as_array().into_iter().flatten();
    entries.map(|entry| entry["resource"]["effectiveDateTime"].as_str().unwrap_or("").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_miss_and_repeat_nothing_while_readings_arrive() {
    for (order, fold) in [("date", false), ("-date", true)] {
        let clinic = Clinic::furnished();
        send(&clinic, 1, -1_200, -700).await;
        send(&clinic, 2, -1_200, -700).await;
        if fold {
            clinic.site.fold_now().unwrap();
        }
        let mut next = Some(format!("/fhir/Observation?_sort={order}&_count=37&code=8867-4"));
        let mut seen: Vec<String> = Vec::new();
        let mut all_times: Vec<String> = Vec::new();
        let mut arrived = 0;
        while let Some(path) = next {
            let page = get(&clinic, &program(), &path).await;
            assert_eq!(page.status, StatusCode::OK, "{}", page.body);
            assert!(ids(&page.body).len() <= 37);
            seen.extend(ids(&page.body));
            all_times.extend(times(&page.body));
            next = link(&page.body, "next");
            // New ones arrive behind the end of the range and before its beginning.
            if arrived < 5 {
                send(&clinic, 1, -600 + arrived, -599 + arrived).await;
                send(&clinic, 2, -1_300 + arrived, -1_299 + arrived).await;
                arrived += 1;
            }
        }
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len(), "none twice");
        let in_range = |time: &&String| {
            let time: clinical_model::Timestamp = time.parse().unwrap();
            at(-1_200) <= time && time < at(-700)
        };
        assert_eq!(all_times.iter().filter(in_range).count(), 1_000, "none missed");
        let mut sorted = all_times.clone();
        sorted.sort();
        if order == "-date" {
            sorted.reverse();
        }
        assert_eq!(all_times, sorted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_narrow_the_search() {
    let clinic = Clinic::furnished();
    send(&clinic, 1, -100, -90).await;
    send(&clinic, 2, -100, -95).await;
    pressure(&clinic, -50, 120, 80).await;
    let count = async |query: &str| ids(&found(&clinic, query).await).len();
    assert_eq!(count("").await, 16);
    assert_eq!(count(&format!("patient={}", patient(1))).await, 11);
    assert_eq!(count(&format!("subject=Patient/{}", patient(2))).await, 5);
    assert_eq!(count(&format!("device=Device/{}", monitor(2))).await, 5);
    assert_eq!(count(&format!("patient={}&device={}", patient(1), monitor(2))).await, 0);
    assert_eq!(count("code=http://loinc.org|8867-4").await, 15);
    assert_eq!(count("code=http://loinc.org|85354-9").await, 1);
    assert_eq!(count("combo-code=8480-6").await, 1);
    assert_eq!(count("code=unknown").await, 0);
    assert_eq!(count("code=http://loinc.org|").await, 16);
    assert_eq!(count("code=|8867-4").await, 0);
    assert_eq!(count("category=vital-signs").await, 16);
    assert_eq!(count("category=laboratory").await, 0);
    assert_eq!(count("status=final").await, 16);
    assert_eq!(count("status=preliminary").await, 0);
    assert_eq!(count(&format!("date=ge{}&date=lt{}", at(-98), at(-96))).await, 4);
    assert_eq!(count(&format!("date={}", at(-100))).await, 2);
    assert_eq!(count(&format!("date=ne{}&patient={}", at(-100), patient(2))).await, 4);
    assert_eq!(count(&format!("date=gt{}&date=lt{}", at(0), at(-100))).await, 0);
    assert_eq!(count(&format!("_lastUpdated=lt{}", at(-1))).await, 0);
    assert_eq!(count(&format!("_lastUpdated=ge{}", at(-1))).await, 16);
    assert_eq!(count("component-code=8480-6").await, 1);
    assert_eq!(count("code:not=8867-4").await, 1);
    assert_eq!(count("date:missing=false").await, 16);
    assert_eq!(count("date:missing=true").await, 0);
    assert_eq!(count(&format!("subject=https://localhost/fhir/Patient/{}", patient(2))).await, 5);
    assert_eq!(count("value-quantity=gt60&code=8867-4&_total=accurate").await, 15);
    assert_eq!(
        count(&format!("value-quantity=gt60||/min&patient={}&date=ge{}", patient(1), at(-92))).await,
        2
    );
    assert_eq!(count("value-quantity=gt60||mm[Hg]").await, 0);
    // A component is found under its panel; the answer says so where the code alone finds nothing.
    let hinted = found(&clinic, "code=8480-6").await;
    assert!(ids(&hinted).is_empty());
    assert_eq!(hinted["entry"][0]["search"]["mode"], "outcome");
    let panel = found(&clinic, "combo-code=8480-6").await;
    let components = panel["entry"][0]["resource"]["component"].as_array().unwrap();
    assert_eq!(components.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_is_refused_where_it_is_not_understood() {
    let clinic = Clinic::furnished();
    for query in
        ["colour=red", "patient:missing=true", "_sort=code", "date=yesterday", "_count=-1", "_total=many"]
    {
        let answer = get(&clinic, &program(), &format!("/fhir/Observation?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        issue(&answer);
    }
    let xml = get(&clinic, &program(), "/fhir/Observation?_format=xml").await;
    assert_eq!(xml.status, StatusCode::NOT_ACCEPTABLE);
    let json = get(&clinic, &program(), "/fhir/Observation?_format=application/fhir+json&_total=none").await;
    assert_eq!(json.status, StatusCode::OK);
    let read = get(&clinic, &program(), "/fhir/metadata?colour=red").await;
    assert_eq!((read.status, issue(&read).0), (StatusCode::BAD_REQUEST, "not-supported"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_serves_its_own_search_only() {
    let clinic = Clinic::furnished();
    send(&clinic, 1, -100, -50).await;
    let query = format!("patient={}&_count=10", patient(1));
    let next = link(&found(&clinic, &query).await, "next").unwrap();
    assert_eq!(get(&clinic, &program(), &next).await.status, StatusCode::OK);
    let cursor = next.split("_cursor=").nth(1).unwrap();
    let mut tampered: Vec<String> = Vec::new();
    for place in [0, 10, cursor.len() - 1] {
        let mut bytes = cursor.as_bytes().to_vec();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        tampered.push(format!("{query}&_cursor={}", String::from_utf8(bytes).unwrap()));
    }
    tampered.push(format!("patient={}&_cursor={cursor}", patient(2)));
    tampered.push(format!("_cursor={cursor}"));
    tampered.push(format!("{query}&_cursor=AAAA"));
    tampered.push(format!("{query}&_cursor=..."));
    for query in tampered {
        let answer = get(&clinic, &program(), &format!("/fhir/Observation?{query}")).await;
        assert_eq!((answer.status, issue(&answer).0), (StatusCode::BAD_REQUEST, "value"), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_by_form_is_the_same_search() {
    let clinic = Clinic::furnished();
    send(&clinic, 1, -100, -90).await;
    let form = format!("patient={}&_sort=date", patient(1));
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let by_form = post_with(&clinic, &program(), "/fhir/Observation/_search", form.clone(), &headers).await;
    assert_eq!(by_form.status, StatusCode::OK, "{}", by_form.body);
    assert_eq!(ids(&by_form.body), ids(&found(&clinic, &form).await));
    let as_json = post_with(&clinic, &program(), "/fhir/Observation/_search", form, &[]).await;
    assert_eq!(as_json.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_patient_of_a_search_has_an_audit_row_with_the_query() {
    let clinic = Clinic::furnished();
    send(&clinic, 1, -100, -90).await;
    send(&clinic, 2, -100, -90).await;
    found(&clinic, "code=8867-4&_count=5").await;
    for number in [1, 2] {
        let query = AuditQuery { patient: Some(patient(number)), limit: 1, ..AuditQuery::default() };
        let rows = clinic.site.store().audit_rows(&query).unwrap();
        assert_eq!(rows[0].record.object, "Observation");
        assert_eq!(rows[0].record.detail, "?code=8867-4&_count=5");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_of_each_code() {
    let clinic = Clinic::furnished();
    send(&clinic, 1, -100, -90).await;
    pressure(&clinic, -60, 120, 80).await;
    pressure(&clinic, -50, 125, 82).await;
    let lastn = async |query: &str| {
        let path = format!("/fhir/Observation/$lastn?patient={}{query}", patient(1));
        let answer = get(&clinic, &program(), &path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.body
    };
    for fold in [false, true] {
        if fold {
            clinic.site.fold_now().unwrap();
        }
        assert_eq!(times(&lastn("").await), [at(-91).to_rfc3339(), at(-50).to_rfc3339()]);
        assert_eq!(times(&lastn("&max=2&code=85354-9").await), [at(-50).to_rfc3339(), at(-60).to_rfc3339()]);
        assert_eq!(times(&lastn("&max=3&code=8867-4").await).len(), 3);
        let latest = lastn("&code=85354-9").await;
        assert_eq!(latest["entry"][0]["resource"]["component"].as_array().unwrap().len(), 2);
        assert_eq!(ids(&latest), ids(&lastn("&max=1&combo-code=8480-6").await), "the same address");
    }
    let nobody = get(&clinic, &program(), "/fhir/Observation/$lastn").await;
    assert_eq!((nobody.status, issue(&nobody).0), (StatusCode::BAD_REQUEST, "required"));
    let cookie = clinic.sign_in("nurse").await;
    let theirs = clinic.get(&format!("/fhir/Observation/$lastn?patient={}", patient(1)), &cookie).await;
    assert_eq!(ids(&theirs.body).len(), 2);
    let other = clinic.get(&format!("/fhir/Observation/$lastn?patient={}", patient(2)), &cookie).await;
    assert_eq!((other.status, ids(&other.body).len()), (StatusCode::OK, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_curve_is_one_observation_an_interval() {
    let clinic = Clinic::furnished();
    let block = |second: i64| {
        let samples: Vec<i32> = (0..250).map(|n| n - 125).collect();
        json!({"waveform": "ecg_ii", "unit": "mV", "time": at(second).to_rfc3339(), "rate": 250, "gain": 0.005,
               "offset": 0, "samples": samples})
    };
    let receipt = clinic.ingest(monitor(1), &json!([block(-20), block(-19), block(-18)]).to_string()).await;
    for entry in &receipt.entries {
        assert!(matches!(entry, pipeline::EntryOutcome::Committed { .. }), "{entry:?}");
    }
    let code = measure::ECG_II.mdc.unwrap();
    let span = format!("date=ge{}&date=lt{}", at(-20), at(-17));
    for fold in [false, true] {
        if fold {
            clinic.site.fold_now().unwrap();
        }
        let bundle = found(&clinic, &format!("patient={}&code={code}&{span}", patient(1))).await;
        assert_eq!(ids(&bundle).len(), 1, "{bundle}");
        let observation = &bundle["entry"][0]["resource"];
        let sampled = &observation["component"][0]["valueSampledData"];
        assert_eq!(sampled["data"].as_str().unwrap().split(' ').count(), 750);
        let path = format!("/fhir/Observation/{}", observation["id"].as_str().unwrap());
        assert_eq!(&get(&clinic, &program(), &path).await.body, observation, "the address holds");
        // An interval inside the blocks holds its own samples only: 1.5 s at 250 Hz, from the middle of a block.
        let half = |second: i64| at(second).plus_micros(500_000);
        let inside = format!("date=ge{}&date=lt{}", half(-20), at(-18));
        let cut = found(&clinic, &format!("patient={}&code={code}&{inside}", patient(1))).await;
        let sampled = &cut["entry"][0]["resource"]["component"][0]["valueSampledData"];
        assert_eq!(sampled["data"].as_str().unwrap().split(' ').count(), 375, "folded: {fold}");
        assert_eq!(
            sampled["data"].as_str().unwrap().split(' ').next(),
            Some("0"),
            "sample 125 of the first block"
        );
        // With readings, in the order of time.
        send(&clinic, 1, -20, -17).await;
        let both = found(&clinic, &format!("code={code},8867-4&{span}&_sort=date")).await;
        assert_eq!(ids(&both).len(), 4);
        let mut paged = Vec::new();
        let mut next = Some(format!("/fhir/Observation?code={code},8867-4&{span}&_count=1"));
        while let Some(path) = next {
            let page = get(&clinic, &program(), &path).await.body;
            paged.extend(ids(&page));
            next = link(&page, "next");
        }
        let mut reversed = ids(&found(&clinic, &format!("code={code},8867-4&{span}")).await);
        assert_eq!(paged, reversed);
        reversed.reverse();
        assert_eq!(ids(&both), reversed);
    }
    for open in ["", "&date=ge2026-11-22", "&date=ge2026-11-22&date=lt2026-11-23"] {
        let answer = get(&clinic, &program(), &format!("/fhir/Observation?code={code}{open}")).await;
        assert_eq!((answer.status, issue(&answer).0), (StatusCode::BAD_REQUEST, "too-costly"), "{open}");
    }
    assert_eq!(ids(&found(&clinic, &format!("patient={}&category=procedure", patient(1))).await).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_value_under_one_identity_stands_everywhere() {
    let clinic = Clinic::furnished();
    let send = async |value: &str| {
        let sent = heart_rate(monitor(1), Some(patient(1)), at(-10), value);
        let made = post(&clinic, &program(), "/fhir/Observation", &sent).await;
        assert!(made.status.is_success());
        made.body["id"].as_str().unwrap().to_owned()
    };
    let first = send("72").await;
    for value in ["75", "72"] {
        assert_eq!(send(value).await, first);
    }
    for fold in [false, true] {
        if fold {
            clinic.site.fold_now().unwrap();
        }
        let mut shown = Vec::new();
        for order in ["date", "-date"] {
            shown.push(found(&clinic, &format!("_sort={order}")).await["entry"][0]["resource"].clone());
        }
        shown.push(get(&clinic, &program(), &format!("/fhir/Observation/{first}")).await.body);
        let path = format!("/fhir/Observation/$lastn?patient={}&max=2", patient(1));
        let last = get(&clinic, &program(), &path).await.body;
        assert_eq!(ids(&last), [first.as_str()]);
        shown.push(last["entry"][0]["resource"].clone());
        for resource in shown {
            assert_eq!((&resource["id"], &resource["valueQuantity"]["value"]), (&json!(first), &json!(72)));
            assert!(resource.to_string().contains("conflict"), "it says that there is another: {resource}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_observations_too() {
    let clinic = Clinic::furnished();
    let event =
        |second: i64| json!({"event": "patient_call", "time": at(second).to_rfc3339(), "text": "bell"});
    let receipt = clinic.ingest(monitor(1), &json!([event(-10), event(-5), event(-5)]).to_string()).await;
    for entry in &receipt.entries {
        assert!(matches!(entry, pipeline::EntryOutcome::Committed { .. }), "{entry:?}");
    }
    for fold in [false, true] {
        if fold {
            clinic.site.fold_now().unwrap();
        }
        let bundle = found(&clinic, &format!("patient={}", patient(1))).await;
        assert_eq!(times(&bundle), [at(-5).to_rfc3339(), at(-10).to_rfc3339()]);
        let event = &bundle["entry"][0]["resource"];
        assert_eq!(event["valueString"], "bell");
        let path = format!("/fhir/Observation/{}", event["id"].as_str().unwrap());
        assert_eq!(&get(&clinic, &program(), &path).await.body, event);
        let last =
            get(&clinic, &program(), &format!("/fhir/Observation/$lastn?patient={}", patient(1))).await;
        assert_eq!(times(&last.body), [at(-5).to_rfc3339()]);
    }
}

/// Small numbers that look random and are the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_size_give_the_same_results() {
    let clinic = Clinic::furnished();
    let mut draw = Draw(7);
    let mut sent: BTreeSet<(u8, &str, i64, u64)> = BTreeSet::new();
    for round in 0..6 {
        let mut entries: [Vec<Value>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..120 {
            let number = 1 + draw.below(2) as u8;
            let measure = ["heart_rate", "respiratory_rate", "blood_pressure"][draw.below(3) as usize];
            let second = draw.below(12) as i64 - 60;
            // Many at one instant, so that a fetch ends in the middle of one.
            let sequence = if second == -55 { draw.below(200) } else { draw.below(2) };
            sent.insert((number, measure, second, sequence));
            let time = at(second).to_rfc3339();
            let entry = match measure {
                "blood_pressure" => {
                    json!({"panel": measure, "sequence": sequence, "time": time, "unit": "mm[Hg]",
                    "values": {"systolic": 120, "diastolic": 80}})
                }
                _ => {
                    json!({"measure": measure, "value": 20, "unit": "/min", "sequence": sequence, "time": time})
                }
            };
            entries[usize::from(number) - 1].push(entry);
        }
        for (index, entries) in entries.into_iter().enumerate() {
            let receipt = clinic.ingest(monitor(index as u8 + 1), &json!(entries).to_string()).await;
            for entry in &receipt.entries {
                assert!(matches!(entry, pipeline::EntryOutcome::Committed { .. }), "{entry:?}");
            }
        }
        if round == 3 {
            clinic.site.fold_now().unwrap();
        }
    }
    let expected = ids(&found(&clinic, "_sort=date&_count=1000").await);
    assert_eq!(expected.len(), sent.len());
    assert_eq!(expected.iter().collect::<BTreeSet<_>>().len(), sent.len());
    for (order, count) in
        [("date", 1), ("-date", 2), ("date", 7), ("-date", 64), ("date", 65), ("-date", 150)]
    {
        let mut next = Some(format!("/fhir/Observation?_sort={order}&_count={count}"));
        let mut paged = Vec::new();
        while let Some(path) = next {
            let page = get(&clinic, &program(), &path).await.body;
            paged.extend(ids(&page));
            next = link(&page, "next");
        }
        if order == "-date" {
            paged.reverse();
        }
        assert_eq!(paged, expected, "{order} by {count}");
    }
}
