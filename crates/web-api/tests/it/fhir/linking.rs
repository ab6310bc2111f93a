//! Searches that look at other resources: chains, reverse chains, includes, totals and views; and that none of them tells
//! anything of a patient of another ward.

use axum::http::StatusCode;
use serde_json::{Value, json};
use store::AuditQuery;

use super::{at, get, ids, issue, link, program};
use crate::clinic::{Answer, Clinic, bed, monitor, patient, ward};

/// Both wards with a few heart rates, ward 1 with blood pressures too.
async fn measured() -> Clinic {
    let clinic = Clinic::furnished();
    for number in [1_u8, 2] {
        let mut entries: Vec<Value> = (0..3)
            .map(|n| json!({"measure": "heart_rate", "value": 60 + n, "unit": "/min", "time": at(-60 + n).to_rfc3339()}))
            .collect();
        if number == 1 {
            entries.push(json!({"panel": "blood_pressure", "unit": "mm[Hg]", "time": at(-50).to_rfc3339(),
                "values": {"systolic": 120, "diastolic": 80}}));
        }
        let receipt = clinic.ingest(monitor(number), &json!(entries).to_string()).await;
        for entry in &receipt.entries {
            assert!(matches!(entry, pipeline::EntryOutcome::Committed { .. }), "{entry:?}");
        }
    }
    clinic
}

async fn found(clinic: &Clinic, path: &str) -> Value {
    let answer = get(clinic, &program(), path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    answer.body
}

/// Types and ids of what was included.
fn included(bundle: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let mut all: Vec<_> = bundle["entry"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["search"]["mode"] == "include")
        .map(|entry| (text(&entry["resource"]["resourceType"]), text(&entry["resource"]["id"])))
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_follow_references() {
    let clinic = measured().await;
    let count = async |query: &str| ids(&found(&clinic, &format!("/fhir/Observation?{query}")).await).len();
    for (query, expected) in [
        ("patient.family=family1", 4),
        ("patient.identifier=MRN-2", 3),
        ("subject:Patient.identifier=urn:auscult:record-number|MRN-1", 4),
        ("subject:Patient.name=Given", 7),
        ("subject:Device.identifier=S1", 0),
        ("device.identifier=S2", 3),
        ("device.patient.family=Family1", 4),
        ("device.device-name=Monitor%201&code=85354-9", 1),
        ("patient.family=Family1&device.identifier=S2", 0),
        ("patient.family=Family1,Family2", 7),
        ("patient.family=Family1&patient.given=Given2", 0),
        ("patient.family=nobody", 0),
    ] {
        assert_eq!(count(query).await, expected, "{query}");
    }
    let subject = format!("subject:Patient={}", patient(1));
    assert_eq!(count(&subject).await, 4);
    assert_eq!(count(&format!("subject:Device={}", patient(1))).await, 0);
    let of_kind = async |path: &str| ids(&found(&clinic, path).await);
    assert_eq!(of_kind("/fhir/Device?patient.identifier=MRN-1").await, [monitor(1).to_string()]);
    assert_eq!(of_kind("/fhir/Device?location.name=Bed").await, Vec::<String>::new());
    assert_eq!(of_kind("/fhir/Location?partof.name=Ward%202").await, [bed(2).to_string()]);
    assert_eq!(of_kind(&format!("/fhir/Location?partof={}", ward(1))).await, [bed(1).to_string()]);
    assert!(!of_kind("/fhir/AuditEvent?patient.family=Family1").await.is_empty());
    // A page goes on where it ended, chains and all.
    let first = found(&clinic, "/fhir/Observation?patient.family=Family1&_count=3").await;
    let second = found(&clinic, &link(&first, "next").unwrap()).await;
    assert_eq!((ids(&first).len(), ids(&second).len(), link(&second, "next")), (3, 1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn reverse_chains_ask_what_refers_here() {
    let clinic = measured().await;
    let of = async |path: String| ids(&found(&clinic, &path).await);
    let (one, two) = (patient(1).to_string(), patient(2).to_string());
    assert_eq!(
        of("/fhir/Patient?_has:Observation:patient:code=8867-4".into()).await,
        [one.clone(), two.clone()]
    );
    assert_eq!(
        of("/fhir/Patient?_has:Observation:patient:code=85354-9".into()).await,
        std::slice::from_ref(&one)
    );
    assert_eq!(
        of("/fhir/Patient?_has:Device:patient:identifier=S2".into()).await,
        std::slice::from_ref(&two)
    );
    assert_eq!(
        of("/fhir/Patient?_has:Device:patient:_has:Observation:device:code=85354-9".into()).await,
        std::slice::from_ref(&one)
    );
    let recent = format!("/fhir/Patient?_has:Observation:subject:date=ge{}", at(-55));
    assert_eq!(of(recent).await, std::slice::from_ref(&one), "only ward 1 was measured since then");
    assert_eq!(
        of("/fhir/Patient?_has:Observation:patient:status=preliminary".into()).await,
        Vec::<String>::new()
    );
    assert_eq!(
        of("/fhir/Device?_has:Observation:device:patient.family=Family2".into()).await,
        [monitor(2).to_string()]
    );
    assert_eq!(of("/fhir/Location?_has:Location:partof:name=Bed%201".into()).await, [ward(1).to_string()]);
    assert_eq!(
        of(format!("/fhir/Patient?_id={one},{two}&_has:Observation:patient:code=85354-9")).await,
        [one]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn includes_bring_what_is_referred_to_and_what_refers() {
    let clinic = measured().await;
    let own = |kind: &str, id: String| (kind.to_owned(), id);
    let (device, person) = (own("Device", monitor(1).to_string()), own("Patient", patient(1).to_string()));
    let search = format!("/fhir/Observation?patient={}", patient(1));
    let with = async |more: &str| included(&found(&clinic, &format!("{search}&{more}")).await);
    assert_eq!(with("_include=Observation:device").await, std::slice::from_ref(&device));
    assert_eq!(with("_include=Observation:subject").await, std::slice::from_ref(&person));
    assert_eq!(with("_include=Observation:subject:Location").await, []);
    assert_eq!(
        with("_include=Observation:patient&_include=Observation:device").await,
        [device.clone(), person.clone()]
    );
    assert_eq!(with("_include=*").await, [device.clone(), person.clone()]);
    assert_eq!(
        with("_include=Observation:device&_include:iterate=Device:patient").await,
        [device.clone(), person.clone()]
    );
    assert_eq!(
        with("_include=Observation:device&_revinclude:iterate=Device:patient").await,
        std::slice::from_ref(&device)
    );
    let all = found(
        &clinic,
        &format!(
            "/fhir/Patient?_id={}&_revinclude=Observation:subject&_revinclude=Device:patient",
            patient(1)
        ),
    )
    .await;
    assert_eq!(ids(&all), [patient(1).to_string()]);
    let kinds: Vec<String> = included(&all).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["Device", "Observation", "Observation", "Observation", "Observation"]);
    let beds = found(&clinic, &format!("/fhir/Location?_id={}&_include=Location:partof", bed(1))).await;
    assert_eq!(included(&beds), [own("Location", ward(1).to_string())]);
    let wards = found(&clinic, &format!("/fhir/Location?_id={}&_revinclude=Location:partof", ward(1))).await;
    assert_eq!(included(&wards), [own("Location", bed(1).to_string())]);
    let events =
        found(&clinic, &format!("/fhir/AuditEvent?patient={}&_include=AuditEvent:patient", patient(1))).await;
    assert_eq!(included(&events), [person]);
    // Every page has what its own results refer to, once.
    let page = found(&clinic, &format!("{search}&_count=2&_include=Observation:device")).await;
    assert_eq!((ids(&page).len(), included(&page)), (2, vec![device.clone()]));
    let next = found(&clinic, &link(&page, "next").unwrap()).await;
    assert_eq!((ids(&next).len(), included(&next)), (2, vec![device]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_another_wards_patient_comes_out_sideways() {
    let clinic = measured().await;
    let cookie = clinic.sign_in("nurse").await;
    let ask = async |path: &str| -> Answer { clinic.get(path, &cookie).await };
    let (other, device) = (patient(2), monitor(2));
    for path in [
        "/fhir/Observation?patient.family=Family2".to_owned(),
        "/fhir/Observation?patient.identifier=MRN-2".to_owned(),
        "/fhir/Observation?device.patient.family=Family2".to_owned(),
        format!("/fhir/Observation?device={device}&_include=Observation:patient"),
        format!("/fhir/Observation?device={device}&_total=accurate"),
        "/fhir/Patient?_has:Device:patient:identifier=S2".to_owned(),
        format!("/fhir/Patient?_has:Observation:patient:device={device}"),
        "/fhir/Device?patient.family=Family2".to_owned(),
        "/fhir/Device?_has:Observation:device:patient.family=Family2".to_owned(),
        format!("/fhir/Device?_id={device}&_has:Observation:device:code=8867-4"),
        format!("/fhir/Device?_id={device}&_has:Observation:device:date=ge{}", at(-3_600)),
        format!("/fhir/Observation/$lastn?patient={other}"),
        format!("/fhir/Patient/{other}/Observation"),
    ] {
        let answer = ask(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        assert_eq!(answer.body["entry"], Value::Null, "{path}: {}", answer.body);
        assert!(matches!(answer.body["total"].as_u64(), None | Some(0)), "{path}");
    }
    // The device itself may be seen; whose it is, and what it measured, may not.
    for path in [
        format!("/fhir/Device?_id={device}&_include=Device:patient"),
        format!("/fhir/Device?_id={device}&_revinclude=Observation:device"),
        format!(
            "/fhir/Device?_id={device}&_revinclude=Observation:device&_include:iterate=Observation:patient"
        ),
        format!("/fhir/Location?_id={}&_revinclude=Observation:subject&_revinclude=Device:location", bed(2)),
    ] {
        let answer = ask(&path).await;
        assert_eq!((answer.status, ids(&answer.body).len()), (StatusCode::OK, 1), "{path}");
        assert_eq!(included(&answer.body), [], "{path}");
        assert!(!answer.body.to_string().contains(&other.to_string()), "{path}");
    }
    for path in [
        format!("/fhir/Observation/$stats?subject=Patient/{other}&code=8867-4&statistic=count"),
        format!("/fhir/Observation/$trend?subject=Patient/{other}&code=8867-4&duration=1"),
    ] {
        let answer = ask(&path).await;
        assert_eq!((answer.status, &answer.body["parameter"]), (StatusCode::OK, &Value::Null), "{path}");
    }
    let everything = ask(&format!("/fhir/Patient/{other}/$everything")).await;
    assert_eq!((everything.status, issue(&everything).0), (StatusCode::NOT_FOUND, "not-found"));
    // Named outright, it stands in the log as refused.
    let query = AuditQuery { patient: Some(other), limit: 50, ..AuditQuery::default() };
    let rows = clinic.site.store().audit_rows(&query).unwrap();
    let refused = rows.iter().filter(|row| row.record.outcome == store::AuditOutcome::Refused).count();
    assert!(refused >= 5, "{refused}");
    // One who may not read the chart asks nothing of it.
    let engineer = clinic.sign_in("biomedical-engineer").await;
    for path in [
        "/fhir/Device?patient.family=Family1",
        "/fhir/Device?_has:Observation:device:code=8867-4",
        "/fhir/Device?_revinclude=Observation:device",
    ] {
        let answer = clinic.get(path, &engineer).await;
        assert_eq!((answer.status, issue(&answer).0), (StatusCode::FORBIDDEN, "forbidden"), "{path}");
    }
    let answer = clinic.get("/fhir/Device?_include=Device:patient", &engineer).await;
    assert_eq!((answer.status, included(&answer.body).len()), (StatusCode::OK, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_included_of_a_patient_is_in_the_log() {
    let clinic = measured().await;
    let of_patient = |number: u8| {
        let query = AuditQuery { patient: Some(patient(number)), limit: 500, ..AuditQuery::default() };
        clinic.site.store().audit_rows(&query).unwrap().len()
    };
    let before = (of_patient(1), of_patient(2));
    found(&clinic, &format!("/fhir/Location?_id={}&_revinclude=Device:location", ward(1))).await;
    assert_eq!((of_patient(1), of_patient(2)), before, "nobody was shown");
    found(&clinic, "/fhir/Location?_revinclude:iterate=Location:partof").await;
    assert_eq!((of_patient(1), of_patient(2)), before);
    found(&clinic, &format!("/fhir/Observation?device={}&_include=Observation:patient", monitor(1))).await;
    assert_eq!((of_patient(1), of_patient(2)), (before.0 + 1, before.1), "one row for one look");
    found(&clinic, "/fhir/Patient?_has:Observation:patient:date=ge2026&family=Family2").await;
    assert!(of_patient(2) > before.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_and_counts() {
    let clinic = measured().await;
    for fold in [false, true] {
        if fold {
            clinic.site.fold_now().unwrap();
        }
        for (query, expected) in [
            ("", 7),
            ("code=85354-9", 1),
            ("status=final", 7),
            ("status=preliminary", 0),
            ("_lastUpdated=ge2026", 7),
            ("patient.family=Family2", 3),
        ] {
            for (how, is_page) in [
                ("_total=accurate", true),
                ("_total=estimate", true),
                ("_summary=count", false),
                ("_count=0", false),
            ] {
                let bundle = found(&clinic, &format!("/fhir/Observation?{query}&{how}")).await;
                assert_eq!(bundle["total"], expected, "{query} {how}");
                assert_eq!(bundle["entry"].is_array(), is_page && expected > 0, "{query} {how}");
            }
        }
        let dated =
            format!("/fhir/Observation?date=ge{}&date=lt{}&_total=accurate&_count=1", at(-60), at(-58));
        let bundle = found(&clinic, &dated).await;
        assert_eq!((&bundle["total"], ids(&bundle).len()), (&json!(4), 1));
        let ne = found(&clinic, &format!("/fhir/Observation?date=ne{}&_summary=count", at(-60))).await;
        assert_eq!(ne["total"], 5);
        assert_eq!(found(&clinic, "/fhir/Observation?_total=none").await["total"], Value::Null);
        assert_eq!(found(&clinic, "/fhir/Patient?_total=accurate&_count=1").await["total"], 2);
        assert_eq!(found(&clinic, "/fhir/Location?_summary=count").await["total"], 4);
        assert!(found(&clinic, "/fhir/AuditEvent?_summary=count").await["total"].as_u64().unwrap() > 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_cut_what_is_shown() {
    let clinic = measured().await;
    let bundle = found(&clinic, "/fhir/Observation?code=85354-9&_elements=component,effective").await;
    let resource = &bundle["entry"][0]["resource"];
    assert!(resource["component"].is_array() && resource["effectiveDateTime"].is_string());
    assert_eq!(
        (&resource["subject"], &resource["meta"]["tag"][0]["code"]),
        (&Value::Null, &json!("SUBSETTED"))
    );
    let bundle =
        found(&clinic, "/fhir/Observation?code=85354-9&_summary=true&_include=Observation:device").await;
    assert_eq!(bundle["entry"][0]["resource"]["category"], Value::Null);
    assert_eq!(bundle["entry"][1]["resource"]["serialNumber"], Value::Null);
    let whole = found(&clinic, &format!("/fhir/Patient/{}", patient(1))).await;
    let cut = found(&clinic, &format!("/fhir/Patient/{}?_elements=name", patient(1))).await;
    assert_eq!((&cut["name"], &cut["gender"]), (&whole["name"], &Value::Null));
    let refused = get(&clinic, &program(), &format!("/fhir/Patient/{}?_elements=", patient(1))).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn lenient_handling_leaves_out_what_is_unknown_and_says_so() {
    let clinic = measured().await;
    let path = format!("/fhir/Observation?patient={}&colour=red&code:text=heart", patient(1));
    let strict = get(&clinic, &program(), &path).await;
    assert_eq!((strict.status, issue(&strict).0), (StatusCode::BAD_REQUEST, "not-supported"));
    let request = axum::http::Request::get(&path).header("prefer", "handling=lenient");
    let lenient = super::ask(&clinic, &program(), request.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!((lenient.status, ids(&lenient.body).len()), (StatusCode::OK, 4), "{}", lenient.body);
    let own = link(&lenient.body, "self").unwrap();
    assert!(own.contains("patient=") && !own.contains("colour"), "{own}");
    let outcome = lenient.body["entry"].as_array().unwrap().last().unwrap();
    assert_eq!(outcome["search"]["mode"], "outcome");
    assert!(outcome.to_string().contains("colour"), "{outcome}");
}
