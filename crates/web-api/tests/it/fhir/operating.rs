//! Operations: `$lastn` by group, `$stats`, `$trend`, `$everything`, `$export`, `$validate`; and that the
//! CapabilityStatement names nothing that does not work.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use clinical_model::DeviceId;
use http_body_util::BodyExt as _;
use pipeline::{Peer, PeerCertificate};
use serde_json::{Value, json};
use store::AuditQuery;
use tower::ServiceExt as _;
use web_api::{DevicePeer, device_router};

use super::{ask, at, get, heart_rate, ids, issue, link, post, program, text};
use crate::clinic::{Clinic, eventually, monitor, patient, ward};

async fn send(clinic: &Clinic, device: DeviceId, entries: Vec<Value>) {
    let receipt = clinic.ingest(device, &json!(entries).to_string()).await;
    for entry in &receipt.entries {
        assert!(matches!(entry, pipeline::EntryOutcome::Committed { .. }), "{entry:?}");
    }
}

fn reading(measure: &str, second: i64, value: Value, unit: &str) -> Value {
    json!({"measure": measure, "value": value, "unit": unit, "time": at(second).to_rfc3339()})
}

async fn found(clinic: &Clinic, path: &str) -> Value {
    let answer = get(clinic, &program(), path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    answer.body
}

/// The number of a statistic of a statistics Observation, as it is written.
fn statistic(observation: &Value, code: &str) -> String {
    let component = observation["component"]
        .as_array()
        .unwrap()
        .iter()
        .find(|component| component["code"]["coding"][0]["code"] == code)
        .unwrap_or_else(|| panic!("{code} in {observation}"));
    match &component["valueQuantity"] {
        Value::Null => component["dataAbsentReason"]["coding"][0]["code"].as_str().unwrap().to_owned(),
        quantity => format!("{} {}", quantity["value"], quantity["code"].as_str().unwrap_or("-")),
    }
}

/// Temperatures of which the last was entered in error, and a blood pressure.
async fn feverish() -> Clinic {
    let clinic = Clinic::furnished();
    // 36.5, 37.0 (as Fahrenheit), 38.0, and one that should not be there.
    send(
        &clinic,
        monitor(1),
        vec![
            reading("body_temperature", -400, json!(36.5), "Cel"),
            reading("body_temperature", -300, json!(98.6), "[degF]"),
            reading("body_temperature", -200, json!(38.0), "Cel"),
            reading("body_temperature", -100, json!(41.5), "Cel"),
            json!({"panel": "blood_pressure", "unit": "mm[Hg]", "time": at(-90).to_rfc3339(),
                "values": {"systolic": 120, "diastolic": 80}}),
        ],
    )
    .await;
    let wrong = found(&clinic, "/fhir/Observation?code=8310-5&_count=1").await;
    let mut resource = wrong["entry"][0]["resource"].clone();
    resource["status"] = json!("entered-in-error");
    let path = format!("/fhir/Observation/{}", resource["id"].as_str().unwrap());
    let put = Request::builder()
        .method(Method::PUT)
        .uri(&path)
        .header(header::CONTENT_TYPE, super::FHIR_JSON)
        .header(header::IF_MATCH, "W/\"1\"")
        .body(Body::from(resource.to_string()))
        .unwrap();
    let corrected = ask(&clinic, &program(), put).await;
    assert_eq!(corrected.status, StatusCode::OK, "{}", corrected.body);
    clinic
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_are_in_the_units_of_the_series_and_without_errors() {
    let clinic = feverish().await;
    let all = "average,minimum,maximum,median,count,total-count,std-dev,variance,sum,4-lower,skew";
    let statistics: String = all.split(',').map(|code| format!("&statistic={code}")).collect();
    let query = format!("subject=Patient/{}&code=8310-5{statistics}", patient(1));
    for fold in [false, true] {
        if fold {
            clinic.site.fold_now().unwrap();
        }
        let answer = found(&clinic, &format!("/fhir/Observation/$stats?{query}&include=true&limit=2")).await;
        assert_eq!(answer["resourceType"], "Parameters");
        let parameters = answer["parameter"].as_array().unwrap();
        let names: Vec<&str> = parameters.iter().map(|each| each["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["statistics", "source", "source"]);
        let observation = &parameters[0]["resource"];
        let said = |code: &str| statistic(observation, code);
        assert_eq!(said("count"), "3 1");
        assert_eq!(said("total-count"), "3 1");
        assert_eq!(said("minimum"), "36.5 Cel");
        assert_eq!(said("maximum"), "38.0 Cel");
        assert_eq!(said("median"), "37.000 Cel");
        assert_eq!(said("average"), "37.167 Cel");
        assert_eq!(said("sum"), "111.5 Cel");
        assert_eq!(said("4-lower"), "36.750 Cel");
        // ((-2/3)^2 + (-1/6)^2 + (5/6)^2) / 2 = 0.583333; its root is 0.764.
        assert_eq!(said("std-dev"), "0.764 Cel");
        assert_eq!(said("variance"), "0.583333 -");
        assert_eq!(observation["subject"]["reference"], format!("Patient/{}", patient(1)));
        assert_eq!(observation["code"]["coding"][0]["code"], "8310-5");
        for source in &parameters[1..] {
            assert_ne!(source["resource"]["status"], "entered-in-error");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_know_panels_empty_codes_and_periods() {
    let clinic = feverish().await;
    // A panel stands for its components; a code without any number has a count of 0 and no mean.
    let pressure = format!("/fhir/Observation/$stats?patient={}&code=85354-9&statistic=maximum", patient(1));
    let answer = found(&clinic, &pressure).await;
    let maxima: BTreeSet<String> = answer["parameter"]
        .as_array()
        .unwrap()
        .iter()
        .map(|each| statistic(&each["resource"], "maximum"))
        .collect();
    assert_eq!(maxima, ["120 mm[Hg]".to_owned(), "80 mm[Hg]".to_owned()].into());
    let none = format!(
        "/fhir/Observation/$stats?patient={}&code=8867-4&statistic=count&statistic=average",
        patient(1)
    );
    let answer = found(&clinic, &none).await;
    let observation = &answer["parameter"][0]["resource"];
    assert_eq!(
        (statistic(observation, "count").as_str(), statistic(observation, "average").as_str()),
        ("0 1", "unknown")
    );
    // The same as a Parameters resource, with a period.
    let body = json!({"resourceType": "Parameters", "parameter": [
        {"name": "subject", "valueUri": format!("Patient/{}", patient(1))},
        {"name": "coding", "valueCoding": {"system": "http://loinc.org", "code": "8310-5"}},
        {"name": "statistic", "valueCode": "count"},
        {"name": "period", "valuePeriod": {"start": at(-350).to_rfc3339(), "end": at(-150).to_rfc3339()}},
    ]});
    let posted = post(&clinic, &program(), "/fhir/Observation/$stats", &body).await;
    assert_eq!(statistic(&posted.body["parameter"][0]["resource"], "count"), "2 1", "{}", posted.body);
    let refused = get(&clinic, &program(), "/fhir/Observation/$stats?code=8310-5&statistic=count").await;
    assert_eq!((refused.status, issue(&refused).0), (StatusCode::BAD_REQUEST, "required"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trend_has_no_bucket_where_nothing_was_measured() {
    let clinic = Clinic::furnished();
    // A minute of readings, nine minutes of nothing, a reading.
    let mut entries: Vec<Value> =
        (0..60).map(|n| reading("heart_rate", -600 + n, json!(60 + n % 2), "/min")).collect();
    entries.push(reading("heart_rate", -5, json!(90), "/min"));
    send(&clinic, monitor(1), entries).await;
    let path = format!(
        "/fhir/Observation/$trend?patient={}&code=8867-4&start={}&end={}&buckets=10",
        patient(1),
        at(-600),
        at(-1)
    );
    for fold in [false, true] {
        if fold {
            clinic.site.fold_now().unwrap();
        }
        let answer = found(&clinic, &path).await;
        let trends = answer["parameter"].as_array().unwrap();
        assert_eq!(trends.len(), 1, "{answer}");
        let parts = trends[0]["part"].as_array().unwrap();
        let named = |parts: &[Value], name: &str| -> Vec<Value> {
            parts.iter().filter(|part| part["name"] == name).cloned().collect()
        };
        assert_eq!(
            named(parts, "device")[0]["valueReference"]["reference"],
            format!("Device/{}", monitor(1))
        );
        let buckets = named(parts, "bucket");
        assert_eq!(buckets.len(), 2, "nothing is invented in between: {answer}");
        let of = |bucket: &Value, name: &str| named(bucket["part"].as_array().unwrap(), name)[0].clone();
        assert_eq!(of(&buckets[0], "count")["valueUnsignedInt"], 60);
        assert_eq!(of(&buckets[0], "min")["valueQuantity"]["value"], 60);
        assert_eq!(of(&buckets[0], "mean")["valueQuantity"]["value"].to_string(), "60.50");
        assert_eq!(of(&buckets[0], "max")["valueQuantity"]["code"], "/min");
        assert_eq!(of(&buckets[1], "count")["valueUnsignedInt"], 1);
        assert_eq!(of(&buckets[1], "mean")["valueQuantity"]["value"].to_string(), "90.00");
        let period = &of(&buckets[0], "period")["valuePeriod"];
        assert_eq!(
            (&period["start"], &period["end"]),
            (&json!(at(-600).to_rfc3339()), &json!(at(-540).to_rfc3339()))
        );
    }
    let empty = format!("/fhir/Observation/$trend?patient={}&code=8310-5&duration=24", patient(1));
    assert_eq!(found(&clinic, &empty).await["parameter"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_each_code_groups_what_shares_a_code() {
    let clinic = Clinic::furnished();
    send(
        &clinic,
        monitor(1),
        vec![
            reading("heart_rate", -30, json!(70), "/min"),
            reading("pulse_rate_oximeter", -20, json!(71), "/min"),
            reading("heart_rate", -10, json!(72), "/min"),
            reading("oxygen_saturation", -20, json!(97), "%"),
        ],
    )
    .await;
    let lastn = async |more: &str| -> Vec<String> {
        let bundle = found(&clinic, &format!("/fhir/Observation/$lastn?patient={}{more}", patient(1))).await;
        let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["resource"]["valueQuantity"]["value"].to_string()).collect()
    };
    assert_eq!(lastn("").await, ["72", "97"]);
    assert_eq!(lastn("&max=2&code=8867-4").await, ["72", "71"]);
    assert_eq!(lastn("&category=vital-signs&max=3").await, ["72", "71", "70", "97"]);
    assert_eq!(lastn(&format!("&code=8867-4&date=lt{}", at(-15))).await, ["71"]);
    assert_eq!(lastn("&code=urn:auscult:measure|pulse_rate_oximeter").await, ["71"]);
    assert_eq!(lastn(&format!("&device={}", monitor(2))).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_a_whole_record_page_by_page() {
    let clinic = Clinic::furnished();
    let readings = (0..25).map(|n| reading("heart_rate", -600 + n, json!(60 + n), "/min")).collect();
    send(&clinic, monitor(1), readings).await;
    let samples: Vec<i32> = (0..250).collect();
    let block = |second: i64| {
        json!({"waveform": "ecg_ii", "unit": "mV", "time": at(second).to_rfc3339(), "rate": 250,
        "gain": 0.005, "offset": 0, "samples": samples})
    };
    send(&clinic, monitor(1), vec![block(-300), block(-299), block(-120)]).await;
    send(&clinic, monitor(2), vec![reading("heart_rate", -10, json!(99), "/min")]).await;
    let all = async |query: &str| -> Vec<(String, String)> {
        let mut next = Some(format!("/fhir/Patient/{}/$everything?{query}", patient(1)));
        let mut seen = Vec::new();
        while let Some(path) = next {
            let page = found(&clinic, &path).await;
            for entry in page["entry"].as_array().into_iter().flatten() {
                let of = |name: &str| entry["resource"][name].as_str().unwrap_or("").to_owned();
                seen.push((of("resourceType"), of("id")));
            }
            next = link(&page, "next");
        }
        seen
    };
    let kinds = |seen: &[(String, String)], kind: &str| seen.iter().filter(|(of, _)| of == kind).count();
    for fold in [false, true] {
        if fold {
            clinic.site.fold_now().unwrap();
        }
        let whole = all("").await;
        assert_eq!(whole[0].1, patient(1).to_string());
        let distinct: BTreeSet<_> = whole.iter().collect();
        assert_eq!(distinct.len(), whole.len(), "none twice");
        // 25 readings and the two minutes that have samples.
        assert_eq!((kinds(&whole, "Location"), kinds(&whole, "Device")), (2, 1));
        assert_eq!(kinds(&whole, "Observation"), 27);
        for count in [1, 3, 10] {
            assert_eq!(all(&format!("_count={count}")).await, whole, "by {count}");
        }
        assert_eq!(all("_type=Patient,Device").await.len(), 2);
        let span = format!("_type=Observation&start={}&end={}", at(-600), at(-590));
        assert_eq!(all(&span).await.len(), 11, "the last second is in it");
        let later = clinic.site.clock().now().plus_micros(1_000_000);
        assert_eq!(all(&format!("_since={later}")).await, []);
    }
    let missing = get(&clinic, &program(), &format!("/fhir/Patient/{}/$everything", patient(9))).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let unknown =
        get(&clinic, &program(), &format!("/fhir/Patient/{}/$everything?_type=Coverage", patient(1))).await;
    assert_eq!((unknown.status, issue(&unknown).0), (StatusCode::BAD_REQUEST, "not-supported"));
}

/// A request on the device port whose answer is read as text.
async fn raw(
    clinic: &Clinic,
    peer: &Peer,
    method: Method,
    path: &str,
) -> (StatusCode, axum::http::HeaderMap, String) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("prefer", "respond-async")
        .body(Body::empty())
        .unwrap();
    let certificate =
        PeerCertificate { uri: "urn:test".into(), serial_hex: "01".into(), common_name: "test".into() };
    request.extensions_mut().insert(DevicePeer { certificate, peer: peer.clone() });
    let response = device_router(&clinic.web).oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, headers, String::from_utf8(bytes.to_vec()).unwrap())
}

fn path_of(url: &str) -> String {
    url[url.find("/fhir").unwrap()..].to_owned()
}

/// Kicks an export off and waits for its list of files.
pub async fn exported(clinic: &Clinic, peer: &Peer, path: &str) -> (String, Value) {
    let (status, headers, body) = raw(clinic, peer, Method::GET, path).await;
    assert_eq!((status, body.as_str()), (StatusCode::ACCEPTED, ""), "{path}");
    let location = path_of(text(&headers, "content-location"));
    let mut manifest = Value::Null;
    for _ in 0..1_000 {
        let (status, headers, body) = raw(clinic, peer, Method::GET, &location).await;
        match status {
            StatusCode::ACCEPTED => assert!(text(&headers, "x-progress").contains("files")),
            _ => {
                assert_eq!((status, text(&headers, "content-type")), (StatusCode::OK, "application/json"));
                manifest = serde_json::from_str(&body).unwrap();
                break;
            }
        }
        eventually("a little later", || true).await;
    }
    assert!(manifest["transactionTime"].is_string(), "the export became ready: {manifest}");
    (location, manifest)
}

/// One file of an export, whatever it holds now.
pub async fn downloaded(clinic: &Clinic, peer: &Peer, url: &str) -> String {
    let (status, _, body) = raw(clinic, peer, Method::GET, &path_of(url)).await;
    assert_eq!(status, StatusCode::OK, "{url}: {body}");
    body
}

/// The lines of all files, by type; each file has as many as it says.
async fn lines(clinic: &Clinic, peer: &Peer, manifest: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for file in manifest["output"].as_array().unwrap() {
        let (status, headers, body) =
            raw(clinic, peer, Method::GET, &path_of(file["url"].as_str().unwrap())).await;
        assert_eq!((status, text(&headers, "content-type")), (StatusCode::OK, "application/fhir+ndjson"));
        let before = all.len();
        for line in body.lines() {
            let resource: Value = serde_json::from_str(line).unwrap();
            assert_eq!(resource["resourceType"], file["type"]);
            super::assert_valid(&resource);
            all.push((file["type"].as_str().unwrap().to_owned(), resource));
        }
        assert_eq!(all.len() - before, file["count"].as_u64().unwrap() as usize, "{file}");
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_what_was_committed_before_it_began() {
    let clinic = Clinic::furnished();
    for number in [1, 2] {
        let readings =
            (0..700).map(|n| reading("heart_rate", -800 + n, json!(60 + n % 30), "/min")).collect();
        send(&clinic, monitor(number), readings).await;
    }
    clinic.clock.advance(60);
    let (status, _, body) = {
        let answer = get(&clinic, &program(), "/fhir/$export").await;
        (answer.status, answer.headers.clone(), answer.body["issue"][0]["code"].clone())
    };
    assert_eq!(
        (status, body),
        (StatusCode::BAD_REQUEST, json!("required")),
        "it must be asked for asynchronously"
    );
    let (location, manifest) = exported(&clinic, &program(), "/fhir/$export").await;
    // What comes later is not in it, however often its files are read.
    clinic.clock.advance(60);
    send(&clinic, monitor(1), vec![reading("heart_rate", -5, json!(99), "/min")]).await;
    for fold in [false, true] {
        if fold {
            clinic.site.fold_now().unwrap();
        }
        let all = lines(&clinic, &program(), &manifest).await;
        let of = |kind: &str| all.iter().filter(|(each, _)| each == kind).count();
        assert_eq!((of("Patient"), of("Device"), of("Location"), of("Observation")), (2, 2, 4, 1_400));
        let ids: BTreeSet<&str> = all.iter().map(|(_, resource)| resource["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), all.len(), "none twice");
    }
    // Each download of a patient's readings stands in the log of that patient.
    let query = AuditQuery { patient: Some(patient(2)), limit: 100, ..AuditQuery::default() };
    let rows = clinic.site.store().audit_rows(&query).unwrap();
    assert!(rows.iter().filter(|row| row.record.object == "export").count() >= 4);
    let (_, narrow) = exported(&clinic, &program(), "/fhir/Patient/$export?_type=Patient").await;
    assert_eq!(narrow["output"].as_array().unwrap().len(), 1);
    let since = clinic.site.clock().now().plus_micros(-30_000_000);
    clinic.clock.advance(1);
    let (_, recent) =
        exported(&clinic, &program(), &format!("/fhir/$export?_since={since}&_type=Observation")).await;
    assert_eq!(lines(&clinic, &program(), &recent).await.len(), 1);
    let (_, of_ward) = exported(&clinic, &program(), &format!("/fhir/Group/{}/$export", ward(2))).await;
    let of_ward = lines(&clinic, &program(), &of_ward).await;
    assert!(of_ward.iter().all(|(_, resource)| !resource.to_string().contains(&patient(1).to_string())));
    assert_eq!(of_ward.iter().filter(|(kind, _)| kind == "Observation").count(), 700);
    // Nobody else sees it, and once deleted nobody does.
    let other = Peer::Program("other".into());
    let file = path_of(manifest["output"][0]["url"].as_str().unwrap());
    for path in [&location, &file] {
        assert_eq!(raw(&clinic, &other, Method::GET, path).await.0, StatusCode::NOT_FOUND);
    }
    assert_eq!(raw(&clinic, &other, Method::DELETE, &location).await.0, StatusCode::NOT_FOUND);
    assert_eq!(raw(&clinic, &program(), Method::DELETE, &location).await.0, StatusCode::ACCEPTED);
    for path in [&location, &file] {
        assert_eq!(raw(&clinic, &program(), Method::GET, path).await.0, StatusCode::NOT_FOUND);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_of_ones_own_ward() {
    let clinic = Clinic::furnished();
    for number in [1, 2] {
        send(&clinic, monitor(number), vec![reading("heart_rate", -10, json!(70 + number), "/min")]).await;
    }
    clinic.clock.advance(10);
    let cookie = clinic.sign_in("nurse").await;
    let call = async |path: String| {
        let request = Request::get(path).header(header::COOKIE, &cookie).header("prefer", "respond-async");
        clinic.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    let response = call("/fhir/$export".into()).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = path_of(text(response.headers(), "content-location"));
    let mut manifest = Value::Null;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while std::time::Instant::now() < until {
        let response = call(location.clone()).await;
        if response.status() == StatusCode::OK {
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            manifest = serde_json::from_slice(&bytes).unwrap();
            break;
        }
        eventually("a little later", || true).await;
    }
    let mut whole = String::new();
    for file in manifest["output"].as_array().unwrap() {
        let response = call(path_of(file["url"].as_str().unwrap())).await;
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        whole.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    assert!(whole.contains(&patient(1).to_string()) && whole.contains("Observation"));
    assert!(!whole.contains(&patient(2).to_string()) && !whole.contains("Family2"), "{whole}");
    let other = call(format!("/fhir/Group/{}/$export", ward(2))).await;
    assert_eq!(other.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_validated_without_being_kept() {
    let clinic = Clinic::furnished();
    let good = heart_rate(monitor(1), Some(patient(1)), at(-10), "72");
    let mut bad = good.clone();
    bad["status"] = json!("done");
    for path in ["/fhir/$validate", "/fhir/Observation/$validate"] {
        let severities = async |body: &Value| -> Vec<String> {
            let answer = post(&clinic, &program(), path, body).await;
            assert_eq!(
                (answer.status, &answer.body["resourceType"]),
                (StatusCode::OK, &json!("OperationOutcome"))
            );
            let issues = answer.body["issue"].as_array().unwrap();
            issues.iter().map(|issue| issue["severity"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(severities(&good).await, ["information"]);
        assert_eq!(severities(&bad).await, ["error"]);
        let wrapped =
            json!({"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": bad}]});
        assert_eq!(severities(&wrapped).await, ["error"]);
    }
    let mismatched = post(&clinic, &program(), "/fhir/Patient/$validate", &good).await;
    assert_eq!(mismatched.body["issue"][0]["severity"], "error");
    assert_eq!(ids(&found(&clinic, "/fhir/Observation").await).len(), 0, "nothing was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_the_capability_statement_names_works() {
    let clinic = Clinic::furnished();
    send(&clinic, monitor(1), vec![reading("heart_rate", -10, json!(72), "/min")]).await;
    let statement = found(&clinic, "/fhir/metadata").await;
    let mut calls = 0;
    for resource in statement["rest"][0]["resource"].as_array().unwrap() {
        let kind = resource["type"].as_str().unwrap();
        let list = |name: &str| resource[name].as_array().cloned().unwrap_or_default();
        let mut queries: Vec<String> = Vec::new();
        for parameter in list("searchParam") {
            let name = parameter["name"].as_str().unwrap();
            let value = match (name, parameter["type"].as_str().unwrap()) {
                ("birthdate", _) => "1950-03-21",
                ("gender", _) => "female",
                ("action", _) => "R",
                ("outcome", _) => "0",
                ("identifier", _) => "urn:x|x",
                (_, "quantity") => "gt5||/min",
                (_, "date") => "ge2026-01-01",
                _ => "x",
            };
            queries.push(format!("{name}={value}"));
        }
        let text = |each: &Value| each.as_str().unwrap().to_owned();
        queries.extend(list("searchInclude").iter().map(|each| format!("_include={}", text(each))));
        queries.extend(list("searchRevInclude").iter().map(|each| format!("_revinclude={}", text(each))));
        for query in queries {
            found(&clinic, &format!("/fhir/{kind}?{query}")).await;
            calls += 1;
        }
    }
    assert!(calls > 40, "{calls}");
}
