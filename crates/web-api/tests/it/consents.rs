//! What a patient denies is shown nowhere: not on a page, not by FHIR, not in a stream, a count or an export; and a
//! broken glass shows it again, for one person, one patient and four hours.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use clinical_model::{Device, PatientId};
use serde_json::{Value, json};
use web_api::Role;

use crate::clinic::{Answer, Clinic, monitor, patient, ward};
use crate::fhir::operating;
use crate::fhir::{self, program};
use crate::live::Reader;

/// A glucose that nothing else in the clinic has.
const MARK: &str = "187.25";
const GLUCOSE: &str = "41653-7";

async fn measured() -> Clinic {
    let clinic = Clinic::furnished();
    for (name, value) in [("glucose", MARK), ("heart_rate", "72")] {
        let unit = if name == "glucose" { "mg/dL" } else { "/min" };
        let body = format!(
            r#"{{"measure":"{name}","value":{value},"unit":"{unit}","time":"2026-11-22T08:29:30Z"}}"#
        );
        clinic.ingest(monitor(1), &body).await;
    }
    clinic
}

fn of(number: u8, rest: &str) -> String {
    format!("/api/v1/patients/{}{rest}", patient(number))
}

async fn consents(clinic: &Clinic, cookie: &str, rule: Value) -> Value {
    let answer = clinic.post(&of(1, "/consents"), cookie, rule).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.body
}

/// Every way to a value of patient 1 in the JSON API.
fn pages() -> Vec<String> {
    let span = "from=2026-11-22T08:00:00Z&to=2026-11-22T09:00:00Z";
    vec![
        of(1, ""),
        of(1, &format!("/trend?measures=glucose,heart_rate&buckets=10&{span}")),
        of(1, &format!("/readings?measure=glucose&{span}")),
        format!("/api/v1/wards/{}/board", ward(1)),
        "/api/v1/wards".to_owned(),
    ]
}

/// Every way to a value of patient 1 by FHIR.
fn interactions(observation: &str) -> Vec<String> {
    let id = patient(1);
    let device = monitor(1);
    vec![
        format!("/fhir/Observation/{observation}"),
        format!("/fhir/Observation/{observation}/_history"),
        format!("/fhir/Observation/{observation}/_history/1"),
        format!("/fhir/Observation?patient={id}"),
        format!("/fhir/Observation?patient={id}&_total=accurate"),
        format!("/fhir/Observation?_id={observation}"),
        format!("/fhir/Observation?code={GLUCOSE}"),
        format!("/fhir/Observation?device={device}"),
        "/fhir/Observation?category=laboratory".to_owned(),
        format!("/fhir/Observation?patient={id}&value-quantity=gt100"),
        format!("/fhir/Patient/{id}/Observation"),
        format!("/fhir/Observation/$lastn?patient={id}"),
        format!("/fhir/Observation/$lastn?patient={id}&max=5"),
        format!(
            "/fhir/Observation/$stats?subject=Patient/{id}&code={GLUCOSE}&statistic=average&statistic=count"
        ),
        format!(
            "/fhir/Observation/$trend?subject=Patient/{id}&code={GLUCOSE}&start=2026-11-22T08:00:00Z&end=2026-11-22T09:00:00Z"
        ),
        format!("/fhir/Patient/{id}/$everything"),
        format!("/fhir/Patient?_id={id}&_revinclude=Observation:patient"),
        format!("/fhir/Device?_id={device}&_revinclude=Observation:device"),
    ]
}

fn shows(answer: &Answer) -> bool {
    answer.body.to_string().contains(MARK)
}

async fn glucose_id(clinic: &Clinic) -> String {
    let found = fhir::get(clinic, &program(), &format!("/fhir/Observation?code={GLUCOSE}")).await;
    found.body["entry"][0]["resource"]["id"].as_str().expect("charted").to_owned()
}

fn denied() -> Value {
    json!({ "decision": "deny", "classes": ["glucose"] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_class_is_shown_nowhere_and_the_rest_everywhere() {
    let clinic = measured().await;
    let id = glucose_id(&clinic).await;
    let (nurse, themselves) = (clinic.sign_in("nurse").await, clinic.sign_in("patient").await);
    for path in pages().iter().take(4) {
        assert!(shows(&clinic.get(path, &nurse).await), "before: {path}");
    }
    for path in interactions(&id) {
        assert!(shows(&fhir::get(&clinic, &program(), &path).await), "before: {path}");
    }
    let consent = consents(&clinic, &themselves, denied()).await;
    assert_eq!(consent["says"], "Everybody may not see blood glucose.");
    assert_eq!((&consent["is_effective"], &consent["written_by"]), (&json!(true), &json!("The patient")));
    for path in pages() {
        let answer = clinic.get(&path, &nurse).await;
        assert!(!shows(&answer), "{path}: {}", answer.body);
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
    for path in interactions(&id) {
        let answer = fhir::get(&clinic, &program(), &path).await;
        assert!(!shows(&answer), "{path}: {}", answer.body);
    }
    let page = clinic.get(&of(1, ""), &nurse).await.body;
    assert!(page["latest"].to_string().contains("72") && !page["series"].to_string().contains("glucose"));
    // Whoever is the patient sees all of it.
    assert!(shows(&clinic.get(&of(1, ""), &themselves).await));
    // Withdrawn, it is shown again from the next request on.
    let path = format!("/api/v1/consents/{}/withdraw", consent["id"].as_str().unwrap());
    let withdrawn = clinic.post(&path, &themselves, json!({ "version": consent["version"] })).await;
    assert_eq!((withdrawn.status, &withdrawn.body["status"]), (StatusCode::OK, &json!("inactive")));
    assert!(shows(&clinic.get(&of(1, ""), &nurse).await));
}

/// Counts, totals, statistics and reverse conditions say of what is denied what they say of what was never measured.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_tells_that_a_denied_class_is_there() {
    let clinic = measured().await;
    let id = glucose_id(&clinic).await;
    let themselves = clinic.sign_in("patient").await;
    consents(&clinic, &themselves, denied()).await;
    let ask = async |path: String| fhir::get(&clinic, &program(), &path).await;
    let weight = "29463-7";
    let same = |answer: &Answer| {
        let text = answer.body.to_string().replace(GLUCOSE, weight);
        // What was asked comes back in the link to itself; ids and times are drawn anew.
        let body: Value = serde_json::from_str(&text).unwrap();
        (answer.status, body["total"].clone(), body["entry"].as_array().map(Vec::len))
    };
    let of_patient = format!("patient={}", patient(1));
    for shape in [
        format!("/fhir/Observation?{of_patient}&code=CODE"),
        format!("/fhir/Observation?{of_patient}&code=CODE&_total=accurate"),
        format!("/fhir/Observation?{of_patient}&code=CODE&_summary=count"),
        format!("/fhir/Observation?{of_patient}&code=CODE&_count=0"),
        "/fhir/Patient?_has:Observation:patient:code=CODE".to_owned(),
        "/fhir/Device?_has:Observation:device:code=CODE".to_owned(),
        format!("/fhir/Observation/$lastn?{of_patient}&code=CODE"),
        format!("/fhir/Observation/$stats?subject=Patient/{}&code=CODE&statistic=count", patient(1)),
    ] {
        let of_denied = ask(shape.replace("CODE", GLUCOSE)).await;
        let of_unknown = ask(shape.replace("CODE", weight)).await;
        assert_eq!(same(&of_denied), same(&of_unknown), "{shape}: {}", of_denied.body);
    }
    let not_there = ask(format!("/fhir/Observation/{id}")).await;
    let never = ask("/fhir/Observation/none".to_owned()).await;
    assert_eq!((not_there.status, &not_there.body["issue"]), (never.status, &never.body["issue"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_what_is_allowed_and_asks_again_when_it_is_fetched() {
    let clinic = measured().await;
    let themselves = clinic.sign_in("patient").await;
    let files = async || {
        operating::exported(&clinic, &program(), "/fhir/$export?_type=Observation").await.1["output"].clone()
    };
    let count = |files: &Value| -> u64 {
        files.as_array().unwrap().iter().map(|file| file["count"].as_u64().unwrap()).sum()
    };
    clinic.clock.advance(1);
    let before = files().await;
    let file = before[0]["url"].as_str().unwrap().to_owned();
    assert!(operating::downloaded(&clinic, &program(), &file).await.contains(MARK));
    consents(&clinic, &themselves, denied()).await;
    let text = operating::downloaded(&clinic, &program(), &file).await;
    assert!(!text.contains(MARK) && text.contains("8867-4"), "an export that was begun before: {text}");
    let after = files().await;
    assert_eq!(count(&after), count(&before) - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_no_denied_class_from_the_next_event_on() {
    let clinic = measured().await;
    let (nurse, themselves) = (clinic.sign_in("nurse").await, clinic.sign_in("patient").await);
    let mut reader = Reader::open(&clinic, &format!("/api/v1/live?ward={}", ward(1)), &nurse, None).await;
    reader.until("hello").await;
    let glucose = |value: u32, second: u32| {
        format!(
            r#"{{"measure":"glucose","value":{value},"unit":"mg/dL","time":"2026-11-22T08:29:{second:02}Z"}}"#
        )
    };
    clinic.ingest(monitor(1), &glucose(121, 40)).await;
    assert_eq!(reader.until("vitals").await.data["vitals"][0]["value"], "121");
    consents(&clinic, &themselves, denied()).await;
    clinic.ingest(monitor(1), &glucose(122, 41)).await;
    let heart = r#"{"measure":"heart_rate","value":73,"unit":"/min","time":"2026-11-22T08:29:42Z"}"#;
    clinic.ingest(monitor(1), heart).await;
    let next = reader.until("vitals").await;
    assert_eq!(next.data["vitals"][0]["value"], "73", "{}", next.data);
}

async fn alarm(clinic: &Clinic) {
    for second in 0..16 {
        let body = format!(
            r#"{{"measure":"heart_rate","value":180,"unit":"/min","time":"2026-11-22T08:29:{:02}Z"}}"#,
            40 + second
        );
        clinic.ingest(monitor(1), &body).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_silences_no_alarm_of_the_caring_ward() {
    let clinic = measured().await;
    let themselves = clinic.sign_in("patient").await;
    consents(&clinic, &themselves, json!({ "decision": "deny" })).await;
    let (nurse, elsewhere) = (clinic.sign_in("nurse").await, clinic.sign_in("nurse 2").await);
    let administrator = clinic.sign_in("administrator").await;
    alarm(&clinic).await;
    let alerts = async |cookie: &str| clinic.get("/api/v1/alerts", cookie).await.body["alerts"].clone();
    let mut tries = 0;
    while alerts(&nurse).await == json!([]) && tries < 400 {
        tries += 1;
        tokio::task::yield_now().await;
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    assert_ne!(alerts(&nurse).await, json!([]), "the ward that cares is told");
    assert_eq!(alerts(&elsewhere).await, json!([]));
    assert_eq!(alerts(&administrator).await, json!([]));
    let board = clinic.get(&format!("/api/v1/wards/{}/board", ward(1)), &nurse).await.body;
    assert!(board["tiles"][0]["patient"].is_object() && board["tiles"][0]["vitals"] == json!([]), "{board}");
    assert_ne!(board["tiles"][0]["alerts"], json!([]));
    let board = clinic.get(&format!("/api/v1/wards/{}/board", ward(1)), &administrator).await.body;
    assert!(!board.to_string().contains("Family1"), "{board}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caregiver_sees_who_named_them_and_no_more_than_was_said() {
    let clinic = measured().await;
    let (caregiver, themselves) = (clinic.sign_in("caregiver").await, clinic.sign_in("patient").await);
    assert_eq!(clinic.get(&of(1, ""), &caregiver).await.status, StatusCode::NOT_FOUND);
    assert_eq!(clinic.get("/api/v1/my-people", &caregiver).await.body["patients"], json!([]));
    let choices = clinic.get("/api/v1/consents/choices?name=Caregiver", &themselves).await.body;
    let people = choices["people"].as_array().unwrap();
    let id = people.iter().find(|one| one["role"] == "caregiver").unwrap()["id"].clone();
    let who = json!([{ "kind": "caregiver", "id": id }]);
    let rule = json!({ "decision": "permit", "who": who, "classes": ["record", "vital-signs"] });
    let consent = consents(&clinic, &themselves, rule).await;
    let page = clinic.get(&of(1, ""), &caregiver).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    assert!(!shows(&page) && page.body["latest"].to_string().contains("72"), "{}", page.body);
    assert_eq!(clinic.get(&of(2, ""), &caregiver).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        clinic.get(&format!("/api/v1/wards/{}/board", ward(1)), &caregiver).await.status,
        StatusCode::NOT_FOUND
    );
    let people = clinic.get("/api/v1/my-people", &caregiver).await.body;
    assert_eq!(people["patients"].as_array().map(Vec::len), Some(1), "{people}");
    let own = clinic.get("/api/v1/my-people", &themselves).await.body;
    assert_eq!(own["patients"].as_array().map(Vec::len), Some(1), "{own}");
    // A caregiver looks; the patient decides.
    let refused = clinic.post(&of(1, "/consents"), &caregiver, denied()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let path = format!("/api/v1/consents/{}/withdraw", consent["id"].as_str().unwrap());
    clinic.post(&path, &themselves, json!({ "version": 1 })).await;
    assert_eq!(clinic.get(&of(1, ""), &caregiver).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_cannot_be_enforced_is_refused() {
    let clinic = measured().await;
    let themselves = clinic.sign_in("patient").await;
    let nobody = PatientId::from_bytes([9; 16]);
    for bad in [
        json!({ "decision": "perhaps" }),
        json!({ "decision": "deny", "classes": ["glucose"], "measures": ["glucose"] }),
        json!({ "decision": "deny", "from": "2026-11-22T10:00:00Z", "until": "2026-11-22T10:00:00Z" }),
        json!({ "decision": "deny", "who": [{ "kind": "person", "id": nobody }] }),
        json!({ "decision": "deny", "who": [{ "kind": "ward", "id": ward(9) }] }),
        json!({ "decision": "deny", "who": [{ "kind": "planet", "id": "x" }] }),
        json!({ "decision": "deny", "except": [{ "decision": "permit", "except": [{ "decision": "deny" }] }] }),
        json!({ "decision": "deny", "unless": "monday" }),
        json!({ "decision": "deny", "except": vec![json!({ "decision": "permit" }); 21] }),
    ] {
        let answer = clinic.post(&of(1, "/consents"), &themselves, bad.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}: {}", answer.body);
    }
    let answer = clinic.post(&of(2, "/consents"), &themselves, denied()).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "another patient's");
    assert_eq!(clinic.get(&of(1, "/consents"), &themselves).await.body["consents"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_not_the_current_one_changes_nothing() {
    let clinic = measured().await;
    let (nurse, themselves) = (clinic.sign_in("nurse").await, clinic.sign_in("patient").await);
    let consent = consents(&clinic, &themselves, denied()).await;
    let path = format!("/api/v1/consents/{}", consent["id"].as_str().unwrap());
    let rule = json!({ "decision": "deny", "classes": ["waveforms"] });
    let put = async |cookie: &str, version: u64| {
        let body = json!({ "version": version, "rule": rule.clone() });
        clinic.call(Method::PUT, &path, Some(cookie), Some(body)).await
    };
    assert_eq!(put(&themselves, 7).await.status, StatusCode::CONFLICT);
    assert_eq!(put(&clinic.sign_in("nurse 2").await, 1).await.status, StatusCode::NOT_FOUND);
    let changed = put(&themselves, 1).await;
    assert_eq!((changed.status, &changed.body["version"]), (StatusCode::OK, &json!(2)), "{}", changed.body);
    assert!(shows(&clinic.get(&of(1, ""), &nurse).await));
}

async fn broken(clinic: &Clinic, cookie: &str, number: u8) -> Answer {
    let body = json!({
        "record_number": format!("MRN-{number}"), "birth_date": "1950-03-21", "reason": "emergency",
        "text": "found unconscious in the corridor",
    });
    clinic.post("/api/v1/break-glass", cookie, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_glass_shows_one_patient_until_it_ends() {
    let clinic = measured().await;
    let elsewhere = clinic.sign_in("nurse 2").await;
    assert_eq!(clinic.get(&of(1, ""), &elsewhere).await.status, StatusCode::NOT_FOUND);
    let glass = broken(&clinic, &elsewhere, 1).await;
    assert_eq!((glass.status, &glass.body["stands"]), (StatusCode::OK, &json!(true)), "{}", glass.body);
    assert!(glass.body["remaining_s"].as_i64().unwrap() > 4 * 3_600 - 60);
    assert!(shows(&clinic.get(&of(1, ""), &elsewhere).await));
    let mine = clinic.get("/api/v1/break-glass/mine", &elsewhere).await.body;
    assert_eq!(mine["glasses"].as_array().map(Vec::len), Some(1));
    // It lifts ward and consent, never the role.
    let body = json!({ "subject": { "kind": "patient", "id": patient(1) } });
    assert_eq!(clinic.post("/api/v1/users", &elsewhere, body).await.status, StatusCode::FORBIDDEN);
    let again = broken(&clinic, &elsewhere, 1).await;
    assert_eq!(again.body["code"], "exists", "nothing is left to lift");
    let mut reader =
        Reader::open(&clinic, &format!("/api/v1/live?patient={}", patient(1)), &elsewhere, None).await;
    reader.until("hello").await;
    let end = format!("/api/v1/break-glass/{}/end", glass.body["id"].as_str().unwrap());
    assert_eq!(
        clinic.post(&end, &clinic.sign_in("nurse").await, json!({})).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(clinic.post(&end, &elsewhere, json!({})).await.status, StatusCode::OK);
    assert_eq!(clinic.get(&of(1, ""), &elsewhere).await.status, StatusCode::NOT_FOUND);
    assert_eq!(reader.until("unseen").await.data["patient_id"], patient(1).to_string());
    assert!(reader.next().await.is_none(), "the stream ends with the sight");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_four_hours_nothing_is_shown_any_more() {
    let clinic = measured().await;
    let mut cookie = clinic.sign_in("nurse 2").await;
    assert_eq!(broken(&clinic, &cookie, 1).await.status, StatusCode::OK);
    // Sessions are shorter than a glass stands: it is the person's, not the session's.
    clinic.clock.advance(4 * 3_600 - 1);
    cookie = clinic.sign_in("nurse 2").await;
    assert_eq!(clinic.get(&of(1, ""), &cookie).await.status, StatusCode::OK);
    clinic.clock.advance(1);
    assert_eq!(clinic.get(&of(1, ""), &cookie).await.status, StatusCode::NOT_FOUND);
    assert_eq!(clinic.get("/api/v1/break-glass/mine", &cookie).await.body["glasses"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn breaking_the_glass_needs_the_second_factor_again() {
    let clinic = measured().await;
    let cookie = clinic.sign_in("nurse 2").await;
    clinic.clock.advance(6 * 60);
    let answer = broken(&clinic, &cookie, 1).await;
    assert_eq!(answer.body["code"], "step-up-needed", "{}", answer.body);
    assert_eq!(clinic.get(&of(1, ""), &cookie).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_reviews_it_and_is_told_at_once() {
    let clinic = measured().await;
    let (elsewhere, auditor) = (clinic.sign_in("nurse 2").await, clinic.sign_in("auditor").await);
    let mut reader = Reader::open(&clinic, "/api/v1/live", &auditor, None).await;
    reader.until("hello").await;
    let glass = broken(&clinic, &elsewhere, 1).await.body;
    let told = reader.until("break-glass").await;
    assert_eq!((&told.data["id"], &told.data["state"]), (&glass["id"], &json!("opened")));
    let list = clinic.get("/api/v1/break-glass", &auditor).await.body;
    assert_eq!(
        (&list["open"], &list["glasses"][0]["by"]["display"]),
        (&json!(1), &json!("nurse 2")),
        "{list}"
    );
    assert_eq!(list["glasses"][0]["patient"]["family"], Value::Null, "a reviewer needs no name");
    assert_eq!(clinic.get("/api/v1/break-glass", &elsewhere).await.status, StatusCode::FORBIDDEN);
    let path = format!("/api/v1/break-glass/{}", glass["id"].as_str().unwrap());
    let review = json!({ "version": 2, "finding": "justified", "note": "the corridor camera shows it" });
    let early = clinic
        .post(
            &format!("{path}/review"),
            &auditor,
            json!({ "version": 1, "finding": "justified", "note": "the corridor camera shows it" }),
        )
        .await;
    assert_eq!(early.body["code"], "already-answered", "{}", early.body);
    clinic.post(&format!("{path}/end"), &elsewhere, json!({})).await;
    let closed = clinic.post(&format!("{path}/review"), &auditor, review.clone()).await;
    assert_eq!(
        (closed.status, &closed.body["review"]["finding"]),
        (StatusCode::OK, &json!("justified")),
        "{}",
        closed.body
    );
    assert_eq!(
        clinic.post(&format!("{path}/review"), &auditor, review).await.body["code"],
        "already-answered"
    );
    let list = clinic.get("/api/v1/break-glass?state=closed", &auditor).await.body;
    assert_eq!(list["glasses"].as_array().map(Vec::len), Some(1));
    // Neither the auditor's page nor their stream shows a chart.
    assert_eq!(clinic.get(&of(1, ""), &auditor).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_breaks_no_glass_and_a_role_without_wards_sees_no_more() {
    let clinic = measured().await;
    for role in ["administrator", "auditor", "biomedical-engineer", "integrator", "patient", "caregiver"] {
        let cookie = clinic.sign_in(role).await;
        assert_eq!(broken(&clinic, &cookie, 1).await.status, StatusCode::FORBIDDEN, "{role}");
    }
    let themselves = clinic.sign_in("patient").await;
    assert_eq!(clinic.get(&of(2, ""), &themselves).await.status, StatusCode::NOT_FOUND);
    assert!(Role::ALL.len() >= 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_are_set_by_an_administrator_and_not_for_treatment() {
    let clinic = measured().await;
    let administrator = clinic.sign_in("administrator").await;
    let put = async |cookie: &str, set: Value| {
        clinic
            .call(Method::PUT, "/api/v1/consents/defaults", Some(cookie), Some(json!({ "defaults": set })))
            .await
    };
    assert_eq!(put(&administrator, json!({ "TREAT": "deny" })).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(put(&administrator, json!({ "HOPERAT": "deny" })).await.status, StatusCode::OK);
    assert_eq!(clinic.get(&of(1, ""), &administrator).await.status, StatusCode::NOT_FOUND, "at once");
    assert_eq!(put(&clinic.sign_in("nurse").await, json!({})).await.status, StatusCode::FORBIDDEN);
}

fn consent_resource(number: u8) -> Value {
    json!({
        "resourceType": "Consent",
        "status": "active",
        "scope": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy" }] },
        "category": [{ "coding": [{ "system": "http://loinc.org", "code": "59284-0" }] }],
        "patient": { "reference": format!("Patient/{}", patient(number)) },
        "policyRule": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "OPTIN" }] },
        "provision": { "type": "deny", "class": [{ "system": "urn:auscult:data-class", "code": "glucose" }] },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fhir_consent_is_kept_as_it_was_sent_and_enforced() {
    let clinic = measured().await;
    let nurse = clinic.sign_in("nurse").await;
    let send = async |method: Method, path: &str, cookie: &str, body: Option<Value>| {
        let request = Request::builder().method(method).uri(path).header(header::COOKIE, cookie);
        let request = request.header("x-auscult", "1").header(header::CONTENT_TYPE, fhir::FHIR_JSON);
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        clinic.send(request.body(body).unwrap()).await
    };
    let themselves = clinic.sign_in("patient").await;
    let made = send(Method::POST, "/fhir/Consent", &themselves, Some(consent_resource(1))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert_eq!(made.body["category"], consent_resource(1)["category"]);
    assert!(!shows(&clinic.get(&of(1, ""), &nurse).await));
    let id = made.body["id"].as_str().unwrap().to_owned();
    let path = format!("/fhir/Consent/{id}");
    assert_eq!(send(Method::GET, &path, &nurse, None).await.body["id"], id.as_str());
    let found =
        send(Method::GET, &format!("/fhir/Consent?patient={}&status=active", patient(1)), &nurse, None).await;
    assert_eq!(found.body["total"], 1, "{}", found.body);
    // Another ward's clinician, and somebody else's patient.
    let elsewhere = clinic.sign_in("nurse 2").await;
    assert_eq!(send(Method::GET, &path, &elsewhere, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(send(Method::GET, "/fhir/Consent", &elsewhere, None).await.body["total"], 0);
    let others = send(Method::POST, "/fhir/Consent", &nurse, Some(consent_resource(2))).await;
    let nobodys = send(Method::POST, "/fhir/Consent", &nurse, Some(consent_resource(9))).await;
    assert_eq!(others.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(others.body["issue"], nobodys.body["issue"], "nothing tells which patients there are");
    // It stays that of its patient, whoever asks.
    let mut moved = consent_resource(2);
    moved["id"] = json!(id);
    let administrator = clinic.sign_in("administrator").await;
    let moved = send(Method::PUT, &path, &administrator, Some(moved)).await;
    assert_eq!(moved.status, StatusCode::UNPROCESSABLE_ENTITY);
    let mut ended = consent_resource(1);
    ended["id"] = json!(id);
    ended["status"] = json!("inactive");
    let kept_out = send(Method::PUT, &path, &nurse, Some(ended.clone())).await;
    assert_eq!(
        kept_out.status,
        StatusCode::FORBIDDEN,
        "whom it concerns does not lift it: {}",
        kept_out.body
    );
    let changed = send(Method::PUT, &path, &administrator, Some(ended.clone())).await;
    assert_eq!(changed.status, StatusCode::FORBIDDEN, "what the patient said: {}", changed.body);
    let changed = send(Method::PUT, &path, &themselves, Some(ended)).await;
    assert_eq!(
        (changed.status, &changed.body["meta"]["versionId"]),
        (StatusCode::OK, &json!("2")),
        "{}",
        changed.body
    );
    assert!(shows(&clinic.get(&of(1, ""), &nurse).await));
    let history = send(Method::GET, &format!("{path}/_history"), &nurse, None).await;
    assert_eq!(history.body["total"], 2, "{}", history.body);
    let first = send(Method::GET, &format!("{path}/_history/1"), &nurse, None).await;
    assert_eq!(first.body["status"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fhir_consent_that_cannot_be_enforced_is_refused_by_name() {
    let clinic = measured().await;
    let nurse = clinic.sign_in("nurse").await;
    let post = async |change: &dyn Fn(&mut Value)| {
        let mut resource = consent_resource(1);
        change(&mut resource);
        let request = Request::post("/fhir/Consent").header(header::COOKIE, &nurse);
        let request = request.header("x-auscult", "1").header(header::CONTENT_TYPE, fhir::FHIR_JSON);
        clinic.send(request.body(Body::from(resource.to_string())).unwrap()).await
    };
    let many: Vec<Value> = vec![json!({ "type": "deny" }); 10_000];
    let answer = post(&|it| it["provision"]["provision"] = json!(many)).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.body.to_string().contains("10001 provisions"), "{}", answer.body);
    let answer = post(&|it| it["provision"]["dataPeriod"] = json!({ "start": "2020-01-01" })).await;
    assert!(answer.body.to_string().contains("dataPeriod"), "{}", answer.body);
    let hidden = json!([{ "system": "http://hl7.org/fhir/resource-types", "code": "AuditEvent" }]);
    let answer = post(&|it| it["provision"]["class"] = hidden.clone()).await;
    assert!(answer.body.to_string().contains("audit log"), "{}", answer.body);
    let role = json!({ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "IRCP" }] });
    let gone =
        json!([{ "role": role, "reference": { "reference": format!("Practitioner/{}", patient(9)) } }]);
    let answer = post(&|it| it["provision"]["actor"] = gone.clone()).await;
    assert!(answer.body.to_string().contains("nobody knows"), "{}", answer.body);
    assert_eq!(clinic.site.consents().all().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_says_why_it_asks() {
    let clinic = measured().await;
    let ask = async |purpose: Option<&str>| {
        let request = Request::get(format!("/fhir/Observation?patient={}", patient(1)));
        let request = match purpose {
            Some(purpose) => request.header("x-purpose-of-use", purpose),
            None => request,
        };
        fhir::ask(&clinic, &program(), request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(ask(None).await.body["entry"].as_array().map(Vec::len), Some(2));
    assert_eq!(ask(Some("TREAT")).await.body["entry"].as_array().map(Vec::len), Some(2));
    assert_eq!(ask(Some("HRESCH")).await.body["entry"], Value::Null, "nobody said yes to research");
    for bad in ["BTG", "ETREAT", "PATRQT", "treat", ""] {
        assert_eq!(ask(Some(bad)).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let nurse = clinic.sign_in("nurse").await;
    let request = Request::get("/fhir/Observation").header("x-purpose-of-use", "HRESCH");
    let request = request.header(header::COOKIE, &nurse).body(Body::empty()).unwrap();
    assert_eq!(clinic.send(request).await.status, StatusCode::BAD_REQUEST, "people have that of their role");
    let themselves = clinic.sign_in("patient").await;
    let study = json!({
        "decision": "permit", "who": [{ "kind": "program", "id": "ehr" }], "purposes": ["HRESCH"],
        "classes": ["record", "vital-signs"],
    });
    consents(&clinic, &themselves, study).await;
    let found = ask(Some("HRESCH")).await;
    assert_eq!(found.body["entry"].as_array().map(Vec::len), Some(1), "{}", found.body);
    assert!(!shows(&found));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_seen_need_not_leave_the_house() {
    let clinic = measured().await;
    let (nurse, themselves) = (clinic.sign_in("nurse").await, clinic.sign_in("patient").await);
    let rule = json!({ "decision": "deny", "actions": ["disclose"], "classes": ["glucose"] });
    consents(&clinic, &themselves, rule).await;
    assert!(shows(&clinic.get(&of(1, ""), &nurse).await), "at the bedside");
    let found = fhir::get(&clinic, &program(), &format!("/fhir/Observation?code={GLUCOSE}")).await;
    assert!(!shows(&found), "{}", found.body);
    let physician = clinic.sign_in("physician").await;
    let record = clinic.text(&of(1, "/export/record.ndjson"), &physician).await;
    assert!(record.contains("Patient") && !record.contains(GLUCOSE), "a record that is taken out: {record}");
    clinic.clock.advance(1);
    let request = Request::get("/fhir/$export?_type=Observation").header("prefer", "respond-async");
    let kicked = clinic.send(request.header(header::COOKIE, &nurse).body(Body::empty()).unwrap()).await;
    assert_eq!(kicked.status, StatusCode::ACCEPTED);
    let address = kicked.headers[header::CONTENT_LOCATION].to_str().unwrap().to_owned();
    let path = &address[address.find("/fhir/").unwrap()..];
    let mut manifest = clinic.get(path, &nurse).await;
    while manifest.status == StatusCode::ACCEPTED {
        tokio::task::yield_now().await;
        manifest = clinic.get(path, &nurse).await;
    }
    let counts =
        manifest.body["output"].as_array().unwrap().iter().map(|file| file["count"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 1, "the heart rate alone: {}", manifest.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_under_a_broken_glass_says_so_in_the_log() {
    let clinic = measured().await;
    let (elsewhere, nurse) = (clinic.sign_in("nurse 2").await, clinic.sign_in("nurse").await);
    let glass = broken(&clinic, &elsewhere, 1).await.body;
    clinic.get(&of(1, ""), &elsewhere).await;
    clinic.get(&of(1, ""), &nurse).await;
    let act = pipeline::audited::Act::new(store::Actor::System, store::AuditAction::Read, "audit");
    let query = store::AuditQuery { patient: Some(patient(1)), limit: 20, ..store::AuditQuery::default() };
    let rows = clinic.site.read(act, |chart| chart.audit_rows(&query)).unwrap();
    let reads: Vec<_> =
        rows.iter().map(|row| &row.record).filter(|record| record.object == "Patient").collect();
    let under: Vec<_> = reads.iter().filter(|record| record.break_glass.is_some()).collect();
    assert_eq!(under.len(), 1, "{reads:?}");
    let id = under[0].break_glass.map(clinical_model::GlassId::from_bytes);
    assert_eq!(id.map(|id| id.to_string()).as_deref(), glass["id"].as_str());
    assert_eq!((under[0].purpose.as_deref(), under[0].role.as_deref()), (Some("BTG"), Some("nurse")));
    let plain = reads.iter().find(|record| record.break_glass.is_none() && record.role.is_some()).unwrap();
    assert_eq!(plain.purpose.as_deref(), Some("TREAT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_denial_concerns_does_not_lift_it() {
    let clinic = measured().await;
    let (nurse, themselves) = (clinic.sign_in("nurse").await, clinic.sign_in("patient").await);
    let people = clinic.get("/api/v1/consents/choices", &nurse).await.body["people"].clone();
    let of_name = |name: &str| {
        people.as_array().unwrap().iter().find(|one| one["display"] == name).unwrap()["id"].clone()
    };
    let denies =
        |who: Value, purposes: Value| json!({ "decision": "deny", "who": who, "purposes": purposes });
    let nurses = json!([{ "kind": "role", "id": "nurse" }]);
    let wards = json!([{ "kind": "ward", "id": ward(1) }]);
    let named = json!([{ "kind": "person", "id": of_name("nurse") }]);
    let nested = json!({ "decision": "permit", "except": [denies(named.clone(), json!([]))] });
    for rule in [
        denied(),
        denies(nurses, json!([])),
        denies(wards, json!(["TREAT"])),
        denies(named, json!([])),
        nested,
        json!({ "decision": "deny", "from": "2030-01-01T00:00:00Z" }),
    ] {
        let consent = consents(&clinic, &themselves, rule.clone()).await;
        let path = format!("/api/v1/consents/{}", consent["id"].as_str().unwrap());
        let withdraw = async |cookie: &str| {
            clinic.post(&format!("{path}/withdraw"), cookie, json!({ "version": 1 })).await.status
        };
        let body = json!({ "version": 1, "rule": { "decision": "permit" } });
        let put = clinic.call(Method::PUT, &path, Some(&nurse), Some(body)).await;
        assert_eq!(
            (put.status, withdraw(&nurse).await),
            (StatusCode::FORBIDDEN, StatusCode::FORBIDDEN),
            "{rule}"
        );
        assert_eq!(withdraw(&themselves).await, StatusCode::OK, "the patient does: {rule}");
    }
    // Of what does not concern her she writes down what the patient says.
    let physician = json!([{ "kind": "person", "id": of_name("physician") }]);
    for rule in [denies(physician, json!([])), denies(json!([]), json!(["HRESCH"]))] {
        let consent = consents(&clinic, &themselves, rule).await;
        let path = format!("/api/v1/consents/{}/withdraw", consent["id"].as_str().unwrap());
        let answer = clinic.post(&path, &nurse, json!({ "version": 1 })).await;
        assert_eq!(answer.body["code"], "reason-needed", "{:?}", answer.body);
        let why = json!({ "version": 1, "reason": "she asked me to" });
        assert_eq!(clinic.post(&path, &nurse, why).await.status, StatusCode::OK);
    }
    let auditor = clinic.sign_in("auditor").await;
    let rows =
        clinic.get("/api/v1/audit?action=consent&outcome=refused", &auditor).await.body["rows"].clone();
    assert_eq!(rows.as_array().unwrap().len(), 12, "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_is_told_of_nobody_whom_they_do_not_know() {
    let clinic = measured().await;
    let themselves = clinic.sign_in("patient").await;
    let asked = async |cookie: &str, query: &str| {
        let path = format!("/api/v1/consents/choices?patient={}{query}", patient(1));
        let people = clinic.get(&path, cookie).await.body["people"].clone();
        let mut names: Vec<_> = people
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["display"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(asked(&themselves, "").await, Vec::<String>::new());
    let nurse = clinic.sign_in("nurse").await;
    clinic.get(&of(1, ""), &nurse).await;
    assert_eq!(asked(&themselves, "").await, ["nurse"], "who looked");
    assert_eq!(asked(&themselves, "&name=caregiver").await, ["caregiver", "nurse"], "by the exact name");
    for part in ["&name=care", "&name=", "&name=%25", "&name=patient"] {
        assert_eq!(asked(&themselves, part).await, ["nurse"], "{part}");
    }
    let people =
        clinic.get("/api/v1/consents/choices?name=caregiver", &themselves).await.body["people"].clone();
    let id = people.as_array().unwrap().iter().find(|one| one["role"] == "caregiver").unwrap()["id"].clone();
    let who = json!([{ "kind": "caregiver", "id": id }]);
    consents(&clinic, &themselves, json!({ "decision": "permit", "who": who })).await;
    assert_eq!(asked(&themselves, "").await, ["caregiver", "nurse"], "who stands in a rule");
    assert_eq!(asked(&clinic.sign_in("caregiver").await, "").await, ["caregiver", "nurse"]);
    assert!(asked(&nurse, "").await.len() > 6, "staff see whom a rule can name");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_devices_work_is_shown_to_those_who_care_and_to_whom_it_was_not_denied() {
    let clinic = measured().await;
    let (nurse, themselves) = (clinic.sign_in("nurse").await, clinic.sign_in("patient").await);
    clinic.ingest(monitor(1), r#"[{"measure":"systolic","value":30}]"#).await;
    crate::clinic::eventually("an alert stands", || {
        clinic.site.live_chart(|chart| !chart.open_alerts().is_empty())
    })
    .await;
    let alerts = clinic.get("/api/v1/alerts", &nurse).await.body["alerts"].clone();
    let path = format!("/api/v1/alerts/{}/acknowledge", alerts[0]["id"].as_str().unwrap());
    clinic.post(&path, &nurse, json!({ "note": "he drinks" })).await;
    let people = clinic.get("/api/v1/consents/choices", &nurse).await.body["people"].clone();
    let people = people.as_array().unwrap();
    let id = people.iter().find(|one| one["role"] == "caregiver").unwrap()["id"].clone();
    let who = json!([{ "kind": "caregiver", "id": id }]);
    let rule = json!({ "decision": "permit", "who": who, "classes": ["record", "vital-signs"] });
    consents(&clinic, &themselves, rule).await;
    let caregiver = clinic.sign_in("caregiver").await;
    let page = clinic.get(&of(1, ""), &caregiver).await.body;
    assert_eq!(page["devices"], json!([]), "{page}");
    assert_eq!(page["alerts"].as_array().unwrap().len(), 1, "a vital sign: {page}");
    assert!(!page.to_string().contains("he drinks"), "{page}");
    assert!(!page["limits"].to_string().contains("glucose"), "{page}");
    // Nor does a live stream tell, nor what is behind a value.
    let path = format!("/api/v1/live?patient={}", patient(1));
    let mut theirs = Reader::open(&clinic, &path, &caregiver, None).await;
    let mut of_nurse = Reader::open(&clinic, &path, &nurse, None).await;
    let (device, version) = clinic.site.registry().device_versioned(monitor(1)).unwrap();
    let renamed = Device { name: "Renamed".into(), ..Device::clone(&device) };
    clinic.site.update_device(store::Actor::System, renamed, version).unwrap();
    clinic.ingest(monitor(1), r#"[{"measure":"systolic","value":120}]"#).await;
    of_nurse.until("device").await;
    loop {
        let seen = theirs.next().await.unwrap();
        assert_ne!(seen.name(), "device", "{seen:?}");
        if seen.name() == "vitals" {
            break;
        }
    }
    let value = page["latest"][0]["observation_id"].as_str().unwrap();
    let behind = format!("/api/v1/observations/{value}/provenance");
    assert_eq!(clinic.get(&behind, &caregiver).await.body["device"], json!(null));
    assert_eq!(clinic.get(&behind, &nurse).await.body["device"]["name"], "Renamed");
    let page = clinic.get(&of(1, ""), &nurse).await.body;
    assert!(page.to_string().contains("he drinks") && !page["devices"].as_array().unwrap().is_empty());
}
