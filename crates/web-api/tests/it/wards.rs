//! The ward board and a patient's page: what they show, and how it got there.

use axum::http::StatusCode;
use serde_json::json;

use crate::clinic::{Clinic, START_S, assigned, bed, eventually, monitor, patient, ward};

const BATCH: &str = r#"[
    {"measure":"heart_rate","value":72,"unit":"/min","time":"2026-11-22T08:29:59Z"},
    {"panel":"blood_pressure","values":{"systolic":120,"diastolic":80,"mean":93},"unit":"mm[Hg]","time":"2026-11-22T08:29:58Z"},
    {"measure":"body_temperature","value":37.20,"unit":"Cel","time":"2026-11-22T08:29:57Z"},
    {"waveform":"ecg_ii","time":"2026-11-22T08:29:58Z","rate":250,"unit":"mV","gain":0.005,"offset":0,"samples":[0,10,-10,200]}
]"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_board_shows_values_with_unit_age_and_panels_together() {
    let clinic = Clinic::furnished();
    clinic.ingest(monitor(1), BATCH).await;
    eventually("heard", || clinic.site.live().heard(monitor(1)).last_heard_at.is_some()).await;
    let cookie = clinic.sign_in("nurse").await;
    let board = clinic.get(&format!("/api/v1/wards/{}/board", ward(1)), &cookie).await;
    assert_eq!(board.status, StatusCode::OK, "{:?}", board.body);
    let tile = &board.body["tiles"][0];
    assert_eq!(tile["patient"]["family"], "Family1");
    assert_eq!(tile["devices"][0]["link"], "live");
    assert_eq!(tile["strips"][0]["measure"], "ecg_ii");
    let shown: Vec<_> = tile["vitals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vital| {
            (vital["measure"].as_str().unwrap(), vital["value"].clone(), vital["unit_display"].clone())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("heart_rate", json!("72"), json!("/min")),
            ("body_temperature", json!("37.20"), json!("°C")),
            ("blood_pressure", json!(null), json!("mmHg")),
        ]
    );
    let pressure = &tile["vitals"][2]["components"];
    assert_eq!((&pressure[0]["value"], &pressure[1]["value"]), (&json!("120"), &json!("80")));
    assert_eq!(tile["vitals"][0]["stale_after_s"], 90);
    assert_eq!(clinic.get("/api/v1/wards/not-an-id/board", &cookie).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        clinic.get(&format!("/api/v1/wards/{}/board", bed(1)), &cookie).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_page_leads_from_a_value_down_to_its_bytes() {
    let clinic = Clinic::furnished();
    clinic.ingest(monitor(1), BATCH).await;
    let cookie = clinic.sign_in("physician").await;
    let page = clinic.get(&format!("/api/v1/patients/{}", patient(1)), &cookie).await;
    assert_eq!(page.body["ward"]["name"], "Ward 1");
    assert!(page.body["limits"].as_array().unwrap().len() > 3);
    for vital in page.body["latest"].as_array().unwrap() {
        let id = vital["observation_id"].as_str().unwrap();
        let behind = clinic.get(&format!("/api/v1/observations/{id}/provenance"), &cookie).await;
        assert_eq!(behind.status, StatusCode::OK, "{vital}: {:?}", behind.body);
        assert_eq!(behind.body["vital"]["measure"], vital["measure"]);
        assert_eq!(behind.body["assignment"]["id"], assigned(1).to_string());
        let hex = behind.body["frames"][0]["hex"].as_str().unwrap();
        assert!(hex.starts_with("5b0a2020"), "the exact bytes: {hex}");
    }
    let garbage = clinic.get(&format!("/api/v1/observations/{}/provenance", "0".repeat(32)), &cookie).await;
    assert_eq!(garbage.status, StatusCode::NOT_FOUND);
    let span = "from=2026-11-22T08:00:00Z&to=2026-11-22T09:00:00Z";
    let path =
        format!("/api/v1/patients/{}/trend?measures=heart_rate,systolic&buckets=60&{span}", patient(1));
    let trend = clinic.get(&path, &cookie).await;
    assert_eq!(trend.body["series"][0]["mean"], json!([72.0]));
    assert_eq!(trend.body["series"][0]["t"], json!([(START_S - 1) * 1_000]));
    assert!(trend.body["series"][0]["observation_id"][0].is_string());
    assert_eq!(trend.body["series"][1]["measure"], "systolic");
    let path = format!("/api/v1/patients/{}/readings?measure=blood_pressure&{span}", patient(1));
    assert_eq!(clinic.get(&path, &cookie).await.body["readings"][0]["components"][0]["value"], "120");
    let span = "from=2026-11-22T08:29:58.004Z&to=2026-11-22T08:30:00Z";
    let path = format!("/api/v1/patients/{}/waveform?measure=ecg_ii&{span}", patient(1));
    let wave = clinic.get(&path, &cookie).await;
    assert_eq!(wave.body["rate"], json!(250.0));
    assert_eq!(
        wave.body["segments"][0]["samples_base64"], "CgD2/8gA",
        "the first sample lies before the span"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_make_no_sense_are_answered_with_a_sentence() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    let of = |rest: &str| format!("/api/v1/patients/{}/{rest}", patient(1));
    for path in [
        of("trend?measures=heart_rate&buckets=60&from=2026-11-22T09:00:00Z&to=2026-11-22T08:00:00Z"),
        of("trend?measures=heart_rate&buckets=5&from=2026-11-22T08:00:00Z&to=2026-11-22T09:00:00Z"),
        of("trend?measures=humour&buckets=60&from=2026-11-22T08:00:00Z&to=2026-11-22T09:00:00Z"),
        of("trend?measures=&buckets=60&from=2026-11-22T08:00:00Z&to=2026-11-22T09:00:00Z"),
        of("trend?measures=heart_rate&buckets=60&from=yesterday&to=2026-11-22T09:00:00Z"),
        of("waveform?measure=heart_rate&from=2026-11-22T08:00:00Z&to=2026-11-22T08:01:00Z"),
        of("waveform?measure=ecg_ii&from=2026-11-22T08:00:00Z&to=2026-11-22T09:00:00Z"),
        "/api/v1/alerts?state=odd".to_owned(),
    ] {
        let answer = clinic.get(&path, &cookie).await;
        assert_eq!(answer.body["code"], "bad-request", "{path}: {:?}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_registers_assigns_mends_and_runs_again() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("biomedical-engineer").await;
    let new = json!({"name": "Cuff", "kind": "cuff", "manufacturer": "M", "model": "X", "serial": "1",
                     "utc_offset_min": 0, "expected_interval_s": null});
    let device = clinic.post("/api/v1/devices", &cookie, new.clone()).await;
    assert_eq!(device.status, StatusCode::OK, "{:?}", device.body);
    assert_eq!(clinic.post("/api/v1/devices", &cookie, new).await.status, StatusCode::CONFLICT);
    let id = device.body["id"].as_str().unwrap().to_owned();
    clinic
        .ingest(id.parse().unwrap(), r#"{"measure":"heart_rate","value":66,"time":"2026-11-22T08:20:00Z"}"#)
        .await;
    let waiting = clinic.get("/api/v1/quarantine", &cookie).await;
    assert_eq!(waiting.body["count"]["items"], 1);
    let item = waiting.body["items"][0].clone();
    assert_eq!(item["reason"], "unassigned");
    let page = clinic.get(&format!("/api/v1/quarantine/{}", item["id"].as_str().unwrap()), &cookie).await;
    assert!(page.body["hex"].as_str().unwrap().starts_with("7b22"));
    let rerun = format!("/api/v1/quarantine/{}/rerun", item["id"].as_str().unwrap());
    assert_eq!(clinic.post(&rerun, &cookie, json!({})).await.body["outcome"], "quarantined");
    let assign = json!({"subject": {"kind": "patient", "id": patient(1)}, "start": "2026-11-22T08:00:00Z", "end": null});
    let assigned = clinic.post(&format!("/api/v1/devices/{id}/assignments"), &cookie, assign.clone()).await;
    assert_eq!(assigned.status, StatusCode::OK, "{:?}", assigned.body);
    assert_eq!(assigned.body["subject"]["label"], "a patient", "an engineer does not learn who");
    let overlap = clinic.post(&format!("/api/v1/devices/{id}/assignments"), &cookie, assign).await;
    assert_eq!(overlap.body["code"], "overlap");
    let done = clinic.post(&rerun, &cookie, json!({})).await;
    assert_eq!(done.body["outcome"], "committed", "{:?}", done.body);
    let observation = done.body["observation_ids"][0].as_str().unwrap();
    let nurse = clinic.sign_in("nurse").await;
    let behind = clinic.get(&format!("/api/v1/observations/{observation}/provenance"), &nurse).await;
    assert_eq!(behind.body["measured_at"], "2026-11-22T08:20:00Z");
    let clock = json!({"version": 2, "name": "Cuff", "clock": {"rule": "shift", "seconds": -3600},
                       "utc_offset_min": 60, "expected_interval_s": 60, "retired": false});
    let id_path = format!("/api/v1/devices/{id}");
    let changed = clinic.call(axum::http::Method::PUT, &id_path, Some(&cookie), Some(clock.clone())).await;
    assert_eq!(changed.body["clock"], json!({"rule": "shift", "seconds": -3600}), "{:?}", changed.body);
    let again = clinic.call(axum::http::Method::PUT, &id_path, Some(&cookie), Some(clock)).await;
    assert_eq!(again.body["code"], "changed-by-somebody-else");
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantined_readings_of_another_wards_patient_are_not_theirs() {
    let clinic = Clinic::furnished();
    let receipt = clinic.ingest(monitor(1), r#"{"measure":"heart_rate","value":999}"#).await;
    let pipeline::EntryOutcome::Quarantined { id, .. } = receipt.entries[0] else { panic!("{receipt:?}") };
    let (ours, other) = (clinic.sign_in("nurse").await, clinic.sign_in("nurse 2").await);
    let listed = |answer: &crate::clinic::Answer| answer.body["items"].as_array().unwrap().len();
    assert_eq!(listed(&clinic.get("/api/v1/quarantine", &ours).await), 1);
    assert_eq!(listed(&clinic.get("/api/v1/quarantine", &other).await), 0);
    let page = format!("/api/v1/quarantine/{id}");
    assert_eq!(clinic.get(&page, &ours).await.status, StatusCode::OK);
    assert_eq!(clinic.get(&page, &other).await.status, StatusCode::NOT_FOUND);
    for (act, body) in [("rerun", json!({})), ("discard", json!({"reason": "not mine"}))] {
        let refused = clinic.post(&format!("{page}/{act}"), &other, body).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{act}");
    }
    let many = clinic.post("/api/v1/quarantine/rerun", &other, json!({})).await;
    assert_eq!((&many.body["released"], &many.body["still_waiting"]), (&json!(0), &json!(0)));
    let typo = clinic.post("/api/v1/quarantine/rerun", &ours, json!({"device": "x"})).await;
    assert_eq!(typo.status, StatusCode::BAD_REQUEST, "a filter that is not known is no wish for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_beyond_all_bounds_is_wrong_and_no_fault_of_the_server() {
    let clinic = Clinic::furnished();
    let body = json!({"name": "nurse", "password": "x".repeat(5_000)});
    assert_eq!(clinic.post("/api/v1/sign-in", "", body).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_patient_in_a_taken_bed_is_refused_and_hides_nobody() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    let new = |number: &str, place: serde_json::Value| {
        json!({"family": "New", "given": "Ann", "birth_date": "1950-03-21", "gender": "female",
               "record_number": number, "place_id": place})
    };
    let taken = clinic.post("/api/v1/patients", &cookie, new("MRN-9", json!(bed(1)))).await;
    assert_eq!((taken.status, &taken.body["code"]), (StatusCode::CONFLICT, &json!("exists")));
    assert_eq!(taken.body["detail"], "Bed 1 is taken by another patient");
    let same = clinic.post("/api/v1/patients", &cookie, new("MRN-1", json!(null))).await;
    assert_eq!(same.body["detail"], "another patient has this record number");
    let board = clinic.get(&format!("/api/v1/wards/{}/board", ward(1)), &cookie).await;
    assert_eq!(board.body["tiles"][0]["patient"]["family"], "Family1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_another_ward_pushes_nothing_off_a_list() {
    let clinic = Clinic::furnished();
    let nonsense = r#"[{"measure":"heart_rate","value":100000}]"#;
    clinic.ingest(monitor(1), nonsense).await;
    for _ in 0..520 {
        clinic.clock.advance(1);
        clinic.ingest(monitor(2), nonsense).await;
    }
    let nurse = clinic.sign_in("nurse").await;
    let list = clinic.get("/api/v1/quarantine", &nurse).await.body;
    let items = list["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["device"]["id"]), (1, &serde_json::json!(monitor(1))), "{list}");
    assert!(list["next_before"].is_null());
    let admin = clinic.sign_in("administrator").await;
    let (mut found, mut path, mut pages) = (0, "/api/v1/quarantine?limit=200".to_owned(), 0);
    loop {
        let page = clinic.get(&path, &admin).await.body;
        found += page["items"].as_array().unwrap().len();
        pages += 1;
        let Some(next) = page["next_before"].as_str() else { break };
        path = format!("/api/v1/quarantine?limit=200&before={next}");
    }
    assert_eq!((found, pages), (521, 3));
    let alerts = clinic.get("/api/v1/alerts?state=all", &nurse).await.body;
    assert!(alerts["alerts"].is_array() && alerts["next_before"].is_null(), "{alerts}");
    let bad = clinic.get("/api/v1/alerts?before=nonsense", &nurse).await;
    assert_eq!(bad.status, axum::http::StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn wards_of_who_may_see_no_patient_are_unknown_and_not_empty() {
    let clinic = Clinic::furnished();
    let nurse = clinic.sign_in("nurse").await;
    let seen = clinic.get("/api/v1/wards", &nurse).await.body;
    assert_eq!((&seen["wards"][0]["patients"], &seen["wards"][0]["alerts"]["high"]), (&json!(1), &json!(0)));
    for role in ["auditor", "integrator"] {
        let cookie = clinic.sign_in(role).await;
        let ward = &clinic.get("/api/v1/wards", &cookie).await.body["wards"][0];
        assert_eq!((&ward["patients"], &ward["alerts"]), (&json!(null), &json!(null)), "{role}");
        assert_eq!((&ward["name"], &ward["places"]), (&json!("Ward 1"), &json!(1)), "{role}");
    }
}
