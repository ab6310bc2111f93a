//! What is decided on one node holds on the other: consents, broken glasses, and everything that is good once.

use std::time::{Duration, Instant};

use clinical_model::DeviceId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use simulator::client::enrol::{EnrolError, Held};

use super::{Cluster, send};
use crate::person::{Person, as_nobody, code_of};
use crate::process::Server;
use crate::program::{self, App, Service};

/// Longest wait for what one node decided to hold on another: half a second by the book (`docs/operate/cluster.md`), and as
/// long again and more for a machine that does other things.
const HOLDS_LIMIT: Duration = Duration::from_secs(5);

/// Two nodes, their web addresses, and the first administrator, who signed in at the first.
struct Pair {
    cluster: Cluster,
    nodes: Vec<Server>,
    a: String,
    b: String,
    admin: Person,
}

impl Pair {
    async fn of(devices: usize) -> Self {
        let cluster = Cluster::new(devices);
        let nodes = cluster.nodes(2);
        let (a, b) = (nodes[0].address("address"), nodes[1].address("address"));
        let admin = Person::first(&nodes[0].address("setup_link"), &a).await;
        Pair { cluster, nodes, a, b, admin }
    }

    /// Somebody whom the administrator invites at the first node, and who comes to the second.
    async fn person(&self, name: &str, role: &str, wards: Value) -> Person {
        let new = json!({"name": name, "display": name, "role": role, "wards": wards});
        self.admin.invited(&self.a, new, &self.b).await
    }

    /// The id of the patient of that record number.
    async fn patient(&self, number: &str) -> String {
        let found = self.admin.get(&self.a, &format!("/api/v1/patients?query={number}")).await.1;
        let patients = found["patients"].as_array().unwrap_or_else(|| panic!("{found}"));
        let one = patients.iter().find(|one| one["record_number"] == number);
        one.unwrap_or_else(|| panic!("no {number} in {found}"))["id"].as_str().unwrap().to_owned()
    }

    async fn measures(&self, device: DeviceId, node: usize, measure: &str, value: u32) {
        let publisher = self.cluster.publisher(device, &self.nodes[node].address("mqtt")).await;
        assert!(send(&publisher, device, measure, value).await, "log: {}", self.nodes[node].log());
    }
}

/// Waits until a page of a node is as wanted, and says how long that took.
async fn until(
    what: &str,
    person: &Person,
    node: &str,
    path: &str,
    is_so: impl Fn(StatusCode, &Value) -> bool,
) -> Duration {
    let began = Instant::now();
    loop {
        let (status, said) = person.get(node, path).await;
        if is_so(status, &said) {
            return began.elapsed();
        }
        assert!(began.elapsed() < HOLDS_LIMIT, "never: {what}; {status} {said}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn shows(said: &Value, measure: &str) -> bool {
    said["latest"].to_string().contains(measure)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_that_is_denied_on_one_node_hides_on_the_other() {
    let pair = Pair::of(1).await;
    let device = pair.cluster.devices[0];
    let nurse = pair.person("nurse", "nurse", Value::Null).await;
    for (measure, value) in [("glucose", 101), ("heart_rate", 72)] {
        pair.measures(device, 0, measure, value).await;
    }
    let id = pair.patient("C1").await;
    let page = format!("/api/v1/patients/{id}");
    let both = |_, said: &Value| shows(said, "glucose") && shows(said, "heart_rate");
    until("both are charted", &nurse, &pair.b, &page, both).await;
    let screen = nurse.watch(&pair.b).await;

    let rule = json!({"decision": "deny", "classes": ["glucose"], "reason": "asked for it"});
    let consent = pair.admin.does(&pair.a, &format!("{page}/consents"), rule).await;
    let hidden = |status, said: &Value| {
        assert_eq!(status, StatusCode::OK, "{said}");
        !shows(said, "glucose") && shows(said, "heart_rate")
    };
    let took = until("a denial hides on the other node", &nurse, &pair.b, &page, hidden).await;
    println!("a denial holds on the other node after {took:?}");
    // From then on no stream of that node shows it either; what comes after it is shown.
    for node in [1, 0] {
        pair.measures(device, node, "glucose", 102).await;
        pair.measures(device, node, "heart_rate", 73).await;
    }
    screen.until("the pulse shows", |screen| screen.values("heart_rate").contains(&"73".to_owned())).await;
    assert_eq!(screen.values("glucose"), [""; 0]);

    // Withdrawn on the other node, by somebody from whom it keeps nothing, it shows on the first.
    let path = format!("/api/v1/consents/{}/withdraw", consent["id"].as_str().unwrap());
    pair.admin.does(&pair.b, &path, json!({"version": consent["version"], "reason": "asked for it"})).await;
    until("what was withdrawn shows again", &nurse, &pair.a, &page, both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_glass_that_is_broken_on_one_node_opens_on_the_other_and_is_reviewed_on_either() {
    let pair = Pair::of(1).await;
    pair.measures(pair.cluster.devices[0], 0, "heart_rate", 72).await;
    let ward = json!({"name": "Elsewhere", "kind": "ward"});
    let ward = pair.admin.does(&pair.a, "/api/v1/places", ward).await["id"].clone();
    assert!(ward.is_string(), "{ward}");
    let nurse = pair.person("nurse", "nurse", json!([ward])).await;
    let auditor = pair.person("auditor", "auditor", Value::Null).await;
    let page = format!("/api/v1/patients/{}", pair.patient("C1").await);
    for node in [&pair.a, &pair.b] {
        assert_eq!(nurse.get(node, &page).await.0, StatusCode::NOT_FOUND);
    }
    let body = json!({
        "record_number": "C1", "birth_date": null, "reason": "emergency", "text": "found unconscious in the corridor",
    });
    let glass = nurse.does(&pair.a, "/api/v1/break-glass", body).await;
    assert_eq!(nurse.get(&pair.a, &page).await.0, StatusCode::OK);
    let opened = |status, said: &Value| status == StatusCode::OK && shows(said, "heart_rate");
    let took = until("a broken glass opens on the other node", &nurse, &pair.b, &page, opened).await;
    println!("a broken glass opens on the other node after {took:?}");
    let waits = |wanted: u64| {
        let id = glass["id"].clone();
        move |_, said: &Value| {
            let listed = said["glasses"].as_array().is_some_and(|all| all.iter().any(|one| one["id"] == id));
            said["open"] == wanted && listed == (wanted == 1)
        }
    };
    for node in [&pair.a, &pair.b] {
        until("it waits for a review", &auditor, node, "/api/v1/break-glass", waits(1)).await;
    }

    // Ended on the other node, it is shut on both.
    let path = format!("/api/v1/break-glass/{}", glass["id"].as_str().unwrap());
    let ended = nurse.does(&pair.b, &format!("{path}/end"), json!({})).await;
    for node in [&pair.a, &pair.b] {
        until("it is shut", &nurse, node, &page, |status, _| status == StatusCode::NOT_FOUND).await;
    }
    let review = json!({"version": ended["version"], "finding": "justified", "note": "the corridor camera"});
    auditor.does(&pair.b, &format!("{path}/review"), review.clone()).await;
    for node in [&pair.a, &pair.b] {
        until("its review is closed", &auditor, node, "/api/v1/break-glass", waits(0)).await;
        let (status, said) = auditor.post(node, &format!("{path}/review"), review.clone()).await;
        assert_eq!((status, &said["code"]), (StatusCode::CONFLICT, &json!("already-answered")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lets_in_once_lets_in_once_on_all_nodes() {
    let pair = Pair::of(1).await;
    // The code of the present step was spent when the app was added; the next one is good for whoever is first.
    let code = code_of(&pair.admin.app_secret, 1);
    let first = Person::begins_to_sign_in("admin", &pair.a).await;
    let second = Person::begins_to_sign_in("admin", &pair.b).await;
    let path = "/api/v1/sign-in/totp";
    let said = first.does(&pair.a, path, json!({"code": code})).await;
    assert_eq!(said["state"], "signed-in", "{said}");
    assert_eq!(second.post(&pair.b, path, json!({"code": code})).await.0, StatusCode::UNAUTHORIZED);

    let codes = pair.admin.does(&pair.a, "/api/v1/account/recovery-codes", json!({})).await;
    let code = &codes["codes"][0];
    let (first, second) = (second, Person::begins_to_sign_in("admin", &pair.a).await);
    let path = "/api/v1/sign-in/recovery";
    let said = first.does(&pair.b, path, json!({"code": code})).await;
    assert_eq!(said["state"], "signed-in", "{said}");
    assert_eq!(second.post(&pair.a, path, json!({"code": code})).await.0, StatusCode::UNAUTHORIZED);
    let said = second.does(&pair.a, path, json!({"code": codes["codes"][1]})).await;
    assert_eq!(said["state"], "signed-in", "another one is good: {said}");

    let new = json!({"name": "nurse", "display": "Nurse", "role": "nurse", "wards": null});
    let invited = pair.admin.does(&pair.a, "/api/v1/users", new).await;
    let path = invited["invitation"]["path"].as_str().unwrap();
    let token = json!({"token": path.split("#token=").nth(1).unwrap()});
    assert_eq!(as_nobody(&pair.b, "/api/v1/sign-in/link", token.clone()).await.0, StatusCode::OK);
    assert_eq!(as_nobody(&pair.a, "/api/v1/sign-in/link", token).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_used_on_one_node_is_spent_on_the_other() {
    let pair = Pair::of(1).await;
    let device = pair.cluster.devices[0];
    let opened = pair.admin.does(&pair.a, &format!("/api/v1/devices/{device}/claim"), json!({})).await;
    let code = opened["code"].as_str().unwrap();
    let anchors = std::fs::read_to_string(pair.cluster.directory(0).join("pki/authority.pem")).unwrap();
    let claim = async |node: usize, code: &str| {
        let port = pair.nodes[node].address("devices").rsplit(':').next().unwrap().to_owned();
        Held::claim(&format!("https://localhost:{port}"), &anchors, "1", code).await
    };
    // Opened on the first, claimed on the second, spent on both.
    claim(1, code).await.unwrap();
    for node in [0, 1] {
        let again = claim(node, code).await;
        assert!(matches!(again, Err(EnrolError::Refused { status: 403, .. })), "{node}: {again:?}");
    }
    let opened = pair.admin.does(&pair.b, &format!("/api/v1/devices/{device}/claim"), json!({})).await;
    let withdrawn = format!("/api/v1/devices/{device}/claim");
    assert_eq!(pair.admin.call(Method::DELETE, &pair.a, &withdrawn, None).await.0, StatusCode::OK);
    let late = claim(1, opened["code"].as_str().unwrap()).await;
    assert!(matches!(late, Err(EnrolError::Refused { status: 403, .. })), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_comes_again_on_another_node_ends_its_whole_family() {
    let pair = Pair::of(1).await;
    let nurse = pair.person("nurse", "nurse", Value::Null).await;
    let patient = pair.patient("C1").await;
    let scopes = "launch/patient patient/Observation.rs patient/Patient.r offline_access";
    let app = App::register(&pair.admin, &pair.a, scopes).await;
    let known = format!("/api/v1/clients/{}", app.id);
    until("the other node knows it", &pair.admin, &pair.b, &known, |status, _| status == StatusCode::OK)
        .await;
    let path = format!("/fhir/Patient/{patient}");
    let text = |said: &Value, name: &str| said[name].as_str().unwrap_or_else(|| panic!("{said}")).to_owned();
    let refused = |(status, said): (StatusCode, Value), what: &str| {
        assert_eq!(
            (status, &said["error"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_grant")),
            "{what}: {said}"
        );
    };
    let good = async |token: &str| {
        [program::reads(&pair.a, &path, token).await, program::reads(&pair.b, &path, token).await]
    };

    // A refresh token: the second use, on the other node, ends the tokens of the first.
    let code = app.code_for(&nurse, &pair.a, scopes, &patient).await;
    let (status, given) = app.redeem(&pair.b, &code).await;
    assert_eq!(status, StatusCode::OK, "{given}");
    let spent = text(&given, "refresh_token");
    let (status, next) = app.refresh(&pair.a, &spent).await;
    assert_eq!(status, StatusCode::OK, "{next}");
    assert_eq!(good(&text(&next, "access_token")).await, [StatusCode::OK; 2]);
    refused(app.refresh(&pair.b, &spent).await, "the spent one");
    refused(app.refresh(&pair.a, &text(&next, "refresh_token")).await, "the one that was good");
    for said in [&given, &next] {
        assert_eq!(good(&text(said, "access_token")).await, [StatusCode::UNAUTHORIZED; 2]);
    }

    // A code: the same.
    let code = app.code_for(&nurse, &pair.b, scopes, &patient).await;
    let (status, given) = app.redeem(&pair.a, &code).await;
    assert_eq!(status, StatusCode::OK, "{given}");
    refused(app.redeem(&pair.b, &code).await, "the code");
    assert_eq!(good(&text(&given, "access_token")).await, [StatusCode::UNAUTHORIZED; 2]);

    // An assertion.
    let service = Service::register(&pair.admin, &pair.a, "system/Patient.rs").await;
    let assertion = service.assertion("once");
    let (status, given) = service.token(&pair.a, "system/Patient.rs", &assertion).await;
    assert_eq!(status, StatusCode::OK, "{given}");
    let (status, again) = service.token(&pair.b, "system/Patient.rs", &assertion).await;
    assert_eq!((status, &again["error"]), (StatusCode::UNAUTHORIZED, &json!("invalid_client")), "{again}");
    assert_eq!(
        service.token(&pair.b, "system/Patient.rs", &service.assertion("twice")).await.0,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_their_role_or_session_on_one_node_loses_the_stream_on_the_other() {
    let pair = Pair::of(1).await;
    let device = pair.cluster.devices[0];
    let nurse = pair.person("nurse", "nurse", Value::Null).await;
    let screen = nurse.watch(&pair.b).await;
    pair.measures(device, 0, "heart_rate", 71).await;
    screen.until("it shows", |screen| screen.values("heart_rate") == ["71"]).await;
    let users = pair.admin.get(&pair.a, "/api/v1/users").await.1;
    let line = users["users"].as_array().unwrap().iter().find(|one| one["name"] == "nurse").unwrap();
    let path = format!("/api/v1/users/{}", line["id"].as_str().unwrap());
    let change = json!({
        "display": "nurse", "role": "biomedical-engineer", "wards": null, "disabled": false, "version": line["version"],
    });
    let (status, said) = pair.admin.call(Method::PUT, &pair.a, &path, Some(change)).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let began = Instant::now();
    screen.until("the stream ends with the role", |screen| !screen.events("end").is_empty()).await;
    assert!(began.elapsed() < HOLDS_LIMIT, "{:?}", began.elapsed());
    pair.measures(device, 1, "heart_rate", 72).await;
    assert_eq!(screen.values("heart_rate"), ["71"]);

    // A session that was ended from another browser.
    let physician = pair.person("physician", "physician", Value::Null).await;
    let screen = physician.watch(&pair.b).await;
    let users = pair.admin.get(&pair.a, "/api/v1/users").await.1;
    let line = users["users"].as_array().unwrap().iter().find(|one| one["name"] == "physician").unwrap();
    let path = format!("/api/v1/users/{}/sessions", line["id"].as_str().unwrap());
    let (status, said) = pair.admin.call(Method::DELETE, &pair.a, &path, None).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let began = Instant::now();
    screen.until("the stream is told", |screen| !screen.events("signed-out").is_empty()).await;
    screen.until("the stream ends", |screen| !screen.events("end").is_empty()).await;
    assert!(began.elapsed() < HOLDS_LIMIT, "{:?}", began.elapsed());
}
