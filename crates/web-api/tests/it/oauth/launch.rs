//! SMART App Launch, standalone: from the request to the readings, and to the end of it.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use trust::jwt::{Algorithm, Expected, KeySet, verify};

use super::{BASE, REDIRECT, TOKEN, asking, said};
use crate::clinic::{Clinic, monitor, patient};

const SCOPES: &str = "launch/patient patient/Observation.rs?category=vital-signs patient/Patient.r openid fhirUser \
                      offline_access";

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_names_the_endpoints_and_what_they_can() {
    let clinic = Clinic::furnished();
    for path in ["/.well-known/smart-configuration", "/fhir/.well-known/smart-configuration"] {
        let answer = clinic.call(Method::GET, path, None, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.body["token_endpoint"], "http://localhost/oauth2/token");
        assert_eq!(answer.body["code_challenge_methods_supported"], json!(["S256"]));
    }
    let statement = clinic.call(Method::GET, "/fhir/metadata", None, None).await;
    let security = &statement.body["rest"][0]["security"];
    assert_eq!(security["service"][0]["coding"][0]["code"], "SMART-on-FHIR");
    let endpoints = security["extension"][0]["extension"].as_array().unwrap();
    let authorize = endpoints.iter().find(|one| one["url"] == "authorize").unwrap();
    assert_eq!(authorize["valueUri"], "http://localhost/oauth2/authorize");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_let_in_for_one_patient_and_sees_that_one() {
    let clinic = Clinic::furnished();
    clinic
        .ingest(monitor(1), r#"[{"measure":"heart_rate","value":71},{"measure":"battery_level","value":50}]"#)
        .await;
    clinic.ingest(monitor(2), r#"[{"measure":"heart_rate","value":72}]"#).await;
    let client = clinic.register_app(SCOPES).await;
    let cookie = clinic.sign_in("nurse").await;
    let shown = clinic
        .get(&format!("/api/v1/authorize?{}", asking(&client, &format!("{SCOPES} user/*.cruds"))), &cookie)
        .await;
    assert_eq!(shown.body["step"], "consent", "{:?}", shown.body);
    assert_eq!(shown.body["client"]["name"], "Trend app");
    assert_eq!(shown.body["redirect_host"], "app.example.org");
    assert_eq!(shown.body["needs_patient"], true);
    assert_eq!(shown.body["lasts"], "offline");
    assert_eq!(shown.body["refused_scopes"], json!(["user/*.cruds"]));
    let words: Vec<&str> =
        shown.body["scopes"].as_array().unwrap().iter().filter_map(|one| one["words"].as_str()).collect();
    assert!(words.contains(&"Read and search vital signs, of the one patient that is chosen"), "{words:?}");

    let decided = clinic.decide(&cookie, &asking(&client, SCOPES), Some(1)).await;
    let to = decided.body["redirect_to"].as_str().unwrap();
    assert!(to.starts_with(&format!("{REDIRECT}?code=")), "{to}");
    assert_eq!(said(to, "state").as_deref(), Some("a state & more"));
    assert_eq!(said(to, "iss").as_deref(), Some("http://localhost"));
    let answer = clinic.redeem(&client, &said(to, "code").unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.body["patient"], patient(1).to_string());
    assert_eq!(answer.body["expires_in"], 300);
    sees_one_patient(&clinic, answer.body["access_token"].as_str().unwrap()).await;
    is_identified(&clinic, &client, &answer.body).await;
}

async fn sees_one_patient(clinic: &Clinic, token: &str) {
    let own = clinic.read(&format!("/fhir/Patient/{}", patient(1)), token).await;
    assert_eq!(own.status, StatusCode::OK, "{:?}", own.body);
    let found = clinic.read("/fhir/Observation", token).await;
    assert_eq!(found.status, StatusCode::OK, "{:?}", found.body);
    let entries = found.body["entry"].as_array().unwrap();
    let of = |entry: &Value| entry["resource"]["subject"]["reference"].as_str().unwrap().to_owned();
    let codes: Vec<&str> =
        entries.iter().filter_map(|entry| entry["resource"]["code"]["coding"][0]["code"].as_str()).collect();
    assert_eq!(codes, ["8867-4"], "the heart rate of patient 1, and no battery");
    assert!(entries.iter().all(|entry| of(entry) == format!("Patient/{}", patient(1))));
    let other = clinic.read(&format!("/fhir/Patient/{}", patient(2)), token).await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    let other = clinic.read(&format!("/fhir/Observation?patient={}", patient(2)), token).await;
    assert!(other.body["entry"].as_array().is_none_or(Vec::is_empty), "{:?}", other.body);
    for (method, path) in [
        (Method::GET, "/fhir/Device".to_owned()),
        (Method::GET, "/fhir/AuditEvent".to_owned()),
        (Method::GET, "/fhir/Patient".to_owned()),
        (Method::POST, "/fhir/Observation".to_owned()),
        (Method::PUT, format!("/fhir/Patient/{}", patient(1))),
    ] {
        let answer = clinic.with_token(method.clone(), &path, token, Some(json!({}))).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}: {:?}", answer.body);
    }
    let small = clinic.read("/fhir/Patient", token).await;
    let challenge = small.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.contains("insufficient_scope"), "{challenge}");
}

async fn is_identified(clinic: &Clinic, client: &str, given: &Value) {
    let jwks = clinic.call(Method::GET, "/oauth2/jwks", None, None).await.body;
    assert!(!jwks.to_string().contains("\"d\""));
    let keys = KeySet::from_jwks(&jwks).unwrap();
    let audiences = [client.to_owned()];
    let expected = Expected {
        algorithms: &[Algorithm::Rs256],
        types: &["JWT"],
        issuer: "http://localhost",
        audiences: &audiences,
        now_s: clinic.site.clock().now().as_seconds(),
        leeway: std::time::Duration::ZERO,
        life: None,
    };
    let claims = verify(given["id_token"].as_str().unwrap(), &keys, &expected).unwrap();
    let subject = claims.text("sub").unwrap();
    assert_eq!(claims.text("fhirUser"), Some(format!("{BASE}/Practitioner/{subject}").as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_is_their_own_context_and_a_clinician_chooses_only_whom_they_see() {
    let clinic = Clinic::furnished();
    let client = clinic.register_app("launch/patient patient/Observation.rs").await;
    let query = asking(&client, "launch/patient patient/Observation.rs");
    let cookie = clinic.sign_in("patient").await;
    let shown = clinic.get(&format!("/api/v1/authorize?{query}"), &cookie).await;
    assert_eq!(shown.body["needs_patient"], false, "{:?}", shown.body);
    assert_eq!(shown.body["patient"]["id"], patient(1).to_string());
    // Whomever they name: themselves.
    let code = clinic.code_for(&cookie, &client, "launch/patient patient/Observation.rs", Some(2)).await;
    assert_eq!(clinic.redeem(&client, &code).await.body["patient"], patient(1).to_string());

    let cookie = clinic.sign_in("nurse").await;
    let other = clinic.decide(&cookie, &query, Some(2)).await;
    let unknown = clinic.decide(&cookie, &query, Some(9)).await;
    assert_eq!(
        (other.status, &other.body),
        (StatusCode::NOT_FOUND, &unknown.body),
        "no patient is told from none"
    );
    let none = clinic.decide(&cookie, &query, None).await;
    assert_eq!(none.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_does_not_leave_ticked_is_not_granted() {
    let clinic = Clinic::furnished();
    let client = clinic.register_app("user/Observation.rs user/Patient.rs").await;
    let cookie = clinic.sign_in("nurse").await;
    let query = asking(&client, "user/Observation.rs user/Patient.rs");
    let body = |scopes: Value| json!({"query": query, "approve": true, "scopes": scopes});
    // More than was shown cannot be ticked.
    let ticked = body(json!(["user/Patient.rs", "user/*.cruds", "openid"]));
    let decided = clinic.post("/api/v1/authorize", &cookie, ticked).await;
    let code = said(decided.body["redirect_to"].as_str().unwrap(), "code").unwrap();
    let given = clinic.redeem(&client, &code).await.body;
    assert_eq!(given["scope"], "user/Observation.rs user/Patient.rs");
    let decided = clinic.post("/api/v1/authorize", &cookie, body(json!(["user/Patient.r"]))).await;
    let code = said(decided.body["redirect_to"].as_str().unwrap(), "code").unwrap();
    assert_eq!(clinic.redeem(&client, &code).await.body["scope"], "user/Patient.r");
    let nothing = clinic.post("/api/v1/authorize", &cookie, body(json!([]))).await;
    assert_eq!(
        said(nothing.body["redirect_to"].as_str().unwrap(), "error").as_deref(),
        Some("access_denied")
    );
    let no = clinic.post("/api/v1/authorize", &cookie, json!({"query": query, "approve": false})).await;
    assert_eq!(said(no.body["redirect_to"].as_str().unwrap(), "error").as_deref(), Some("access_denied"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_turns_over_and_one_that_comes_twice_ends_everything() {
    let clinic = Clinic::furnished();
    let client = clinic.register_app("user/Observation.rs user/Patient.rs offline_access").await;
    let (given, _) = clinic.let_in(&client, "user/Observation.rs user/Patient.rs offline_access").await;
    let refresh = |token: &Value, scope: Option<&str>| {
        let (client, token, scope) =
            (client.clone(), token.as_str().unwrap().to_owned(), scope.map(str::to_owned));
        let clinic = &clinic;
        async move {
            let mut sent = vec![
                ("grant_type", "refresh_token"),
                ("client_id", client.as_str()),
                ("refresh_token", &token),
            ];
            if let Some(scope) = &scope {
                sent.push(("scope", scope));
            }
            clinic.form(TOKEN, &sent).await
        }
    };
    clinic.clock.advance(301);
    assert!(!clinic.is_good(&given["access_token"]).await, "five minutes are over");
    // fhirclient does not name itself with its refresh token.
    let nameless = clinic.form(TOKEN, &[("grant_type", "refresh_token"), ("refresh_token", "x")]).await;
    assert_eq!(nameless.body["error"], "invalid_client");
    let refresh_token = given["refresh_token"].as_str().unwrap();
    let nameless = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
    let given = clinic.form(TOKEN, &nameless).await.body;
    assert!(clinic.is_good(&given["access_token"]).await, "{given:?}");
    let more = refresh(&given["refresh_token"], Some("user/Observation.rs user/Device.rs")).await;
    assert_eq!(more.body["error"], "invalid_scope");
    let second = refresh(&given["refresh_token"], None).await;
    assert_eq!(second.status, StatusCode::OK, "{:?}", second.body);
    assert!(clinic.is_good(&second.body["access_token"]).await);
    let narrow = refresh(&second.body["refresh_token"], Some("user/Patient.rs")).await;
    assert_eq!(narrow.body["scope"], "user/Patient.rs");
    assert!(!clinic.is_good(&narrow.body["access_token"]).await, "fewer scopes");
    let third = refresh(&narrow.body["refresh_token"], None).await;
    assert!(clinic.is_good(&third.body["access_token"]).await, "the grant itself was not narrowed");
    let again = refresh(&second.body["refresh_token"], None).await;
    assert_eq!(again.body["error"], "invalid_grant");
    assert!(!clinic.is_good(&third.body["access_token"]).await, "all that it gave has ended");
    assert_eq!(refresh(&third.body["refresh_token"], None).await.body["error"], "invalid_grant");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_die_with_the_session_the_person_the_program_and_the_grant() {
    let clinic = Clinic::furnished();
    let client = clinic.register_app("user/Observation.rs online_access offline_access").await;
    let (given, cookie) = clinic.let_in(&client, "user/Observation.rs online_access").await;
    assert!(clinic.is_good(&given["access_token"]).await);
    clinic.post("/api/v1/sign-out", &cookie, Value::Null).await;
    assert!(!clinic.is_good(&given["access_token"]).await, "signed out");
    let sent = [
        ("grant_type", "refresh_token"),
        ("client_id", client.as_str()),
        ("refresh_token", given["refresh_token"].as_str().unwrap()),
    ];
    assert_eq!(clinic.form(TOKEN, &sent).await.body["error"], "invalid_grant");

    let (given, cookie) = clinic.let_in(&client, "user/Observation.rs offline_access").await;
    clinic.post("/api/v1/sign-out", &cookie, Value::Null).await;
    assert!(clinic.is_good(&given["access_token"]).await, "offline");
    let sent = [("client_id", client.as_str()), ("token", given["access_token"].as_str().unwrap())];
    let seen = clinic.form("/oauth2/introspect", &sent).await;
    assert_eq!(
        (&seen.body["active"], &seen.body["scope"]),
        (&json!(true), &json!("user/Observation.rs offline_access"))
    );
    assert_eq!(clinic.form("/oauth2/revoke", &sent).await.status, StatusCode::OK);
    assert!(!clinic.is_good(&given["access_token"]).await, "revoked");
    assert_eq!(clinic.form("/oauth2/introspect", &sent).await.body, json!({"active": false}));

    let (given, cookie) = clinic.let_in(&client, "user/Observation.rs offline_access").await;
    let grants = clinic.get("/api/v1/grants", &cookie).await;
    let grant = grants.body["grants"][0].clone();
    assert_eq!((&grant["client"]["name"], &grant["is_offline"]), (&json!("Trend app"), &json!(true)));
    let path = format!("/api/v1/grants/{}", grant["id"].as_str().unwrap());
    let other = clinic.sign_in("physician").await;
    let foreign = clinic.call(Method::DELETE, &path, Some(&other), None).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND, "somebody else's grant");
    assert!(clinic.is_good(&given["access_token"]).await);
    assert_eq!(clinic.call(Method::DELETE, &path, Some(&cookie), None).await.status, StatusCode::NO_CONTENT);
    assert!(!clinic.is_good(&given["access_token"]).await, "let in no longer");

    let (given, _) = clinic.let_in(&client, "user/Observation.rs offline_access").await;
    let cookie = clinic.sign_in("integrator").await;
    let path = format!("/api/v1/clients/{client}");
    let mut registration = clinic.get(&path, &cookie).await.body;
    let new = json!({
        "name": "Trend app", "kind": "app", "redirect_uris": [REDIRECT], "version": registration["version"].take(),
        "scopes": "user/Patient.rs offline_access",
    });
    let changed = clinic.call(Method::PUT, &path, Some(&cookie), Some(new)).await;
    assert_eq!(changed.status, StatusCode::OK, "{:?}", changed.body);
    assert!(!clinic.is_good(&given["access_token"]).await, "the registration was narrowed");
    assert_eq!(clinic.call(Method::DELETE, &path, Some(&cookie), None).await.status, StatusCode::NO_CONTENT);
    let read = clinic.read("/fhir/Patient", given["access_token"].as_str().unwrap()).await;
    assert_eq!(read.status, StatusCode::UNAUTHORIZED, "the registration is gone");
    let query = store::DocumentQuery {
        kind: store::Kind::Grant,
        index: "end",
        prefix: Vec::new(),
        after: None,
        order: store::Order::Ascending,
        limit: 10,
    };
    let left = clinic.site.store().documents(&query).unwrap();
    assert_eq!(left.len(), 0, "and so is all that it was let in for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_may_bring_a_token_but_no_cookie() {
    let clinic = Clinic::furnished();
    let preflight = Request::builder()
        .method(Method::OPTIONS)
        .uri("/fhir/Observation")
        .header(header::ORIGIN, "https://app.example.org")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization")
        .body(Body::empty())
        .unwrap();
    let answer = clinic.send(preflight).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    let api = Request::builder()
        .uri("/api/v1/session")
        .header(header::ORIGIN, "https://app.example.org")
        .body(Body::empty())
        .unwrap();
    assert!(!clinic.send(api).await.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    let frame = clinic.call(Method::GET, "/oauth2/authorize?client_id=x", None, None).await;
    assert_eq!(frame.headers["x-frame-options"], "DENY", "the consent page is in nobody's frame");
    assert!(
        frame.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("frame-ancestors 'none'")
    );
}
