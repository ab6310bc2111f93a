//! Authorisation requests, codes and tokens in the hands of somebody else.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use super::{REDIRECT, TOKEN, VERIFIER, asked, asking, challenge, form, redeeming, said};
use crate::clinic::{Clinic, patient, ward};

const SCOPES: &str = "user/Observation.rs offline_access";

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_never_sent_to_an_address_that_is_not_registered_to_the_letter() {
    let clinic = Clinic::furnished();
    let client = clinic.register_app(SCOPES).await;
    let cookie = clinic.sign_in("nurse").await;
    let challenge = challenge(VERIFIER);
    for address in [
        "https://app.example.org/callback/",
        "https://app.example.org/callback?x=1",
        "https://app.example.org/callback#x",
        "https://app.example.org/callback/../callback",
        "https://APP.example.org/callback",
        "https://app.example.org:443/callback",
        "https://app.example.org@evil.example/callback",
        "https://app.example.org.evil.example/callback",
        "https://evil.example/callback",
        "http://app.example.org/callback",
        "javascript:alert(1)",
        "",
    ] {
        let mut query = asked(&client, SCOPES, &challenge);
        query[2].1 = address;
        let query = form(&query);
        for answer in [
            clinic.get(&format!("/api/v1/authorize?{query}"), &cookie).await,
            clinic.decide(&cookie, &query, None).await,
        ] {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{address}: {:?}", answer.body);
            assert!(!answer.body.to_string().contains("redirect_to"), "{address}");
        }
    }
    // Said twice: whichever is looked at, the other might be used.
    let twice = format!("{}&redirect_uri=https%3A%2F%2Fevil.example", asking(&client, SCOPES));
    assert_eq!(clinic.decide(&cookie, &twice, None).await.status, StatusCode::BAD_REQUEST);
    for client in ["", "unknown", &"0".repeat(32), "../x"] {
        assert_eq!(
            clinic.decide(&cookie, &asking(client, SCOPES), None).await.status,
            StatusCode::BAD_REQUEST
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_is_told_to_the_app_and_gives_nothing() {
    let clinic = Clinic::furnished();
    let client = clinic.register_app(SCOPES).await;
    let cookie = clinic.sign_in("nurse").await;
    let challenge = challenge(VERIFIER);
    let cases: [(&str, Option<&str>, &str); 13] = [
        ("response_type", Some("token"), "unsupported_response_type"),
        ("response_type", Some("code token"), "unsupported_response_type"),
        ("response_type", None, "invalid_request"),
        ("code_challenge_method", Some("plain"), "invalid_request"),
        ("code_challenge_method", None, "invalid_request"),
        ("code_challenge", None, "invalid_request"),
        ("code_challenge", Some("short"), "invalid_request"),
        ("state", None, "invalid_request"),
        ("aud", Some("https://evil.example/fhir"), "invalid_request"),
        ("aud", Some("http://localhost/fhirx"), "invalid_request"),
        ("aud", None, "invalid_request"),
        ("scope", Some("system/*.cruds"), "invalid_scope"),
        ("scope", Some("user/Device.rs"), "invalid_scope"),
    ];
    for (name, value, error) in cases {
        let mut query = asked(&client, SCOPES, &challenge);
        query.retain(|(known, _)| *known != name);
        query.extend(value.map(|value| (name, value)));
        let query = form(&query);
        let told = clinic.get(&format!("/api/v1/authorize?{query}"), &cookie).await;
        assert_eq!(told.body["step"], "return", "{name}: {:?}", told.body);
        let decided = clinic.decide(&cookie, &query, Some(1)).await;
        for to in [&told.body["redirect_to"], &decided.body["redirect_to"]] {
            let to = to.as_str().unwrap();
            assert!(to.starts_with(REDIRECT) && said(to, "code").is_none(), "{to}");
            assert_eq!(said(to, "error").as_deref(), Some(error), "{name} {value:?}");
        }
    }
    for (name, value, error) in [
        ("request_uri", "https://evil.example/r", "request_not_supported"),
        ("prompt", "none", "interaction_required"),
    ] {
        let query = format!("{}&{}", asking(&client, SCOPES), form(&[(name, value)]));
        let told = clinic.get(&format!("/api/v1/authorize?{query}"), &cookie).await;
        assert_eq!(said(told.body["redirect_to"].as_str().unwrap(), "error").as_deref(), Some(error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_decides_without_a_session_and_no_other_page_decides_for_them() {
    let clinic = Clinic::furnished();
    let client = clinic.register_app(SCOPES).await;
    let body = json!({"query": asking(&client, SCOPES), "approve": true});
    let nobody = clinic.call(Method::POST, "/api/v1/authorize", None, Some(body.clone())).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    let cookie = clinic.sign_in("nurse").await;
    for kind in ["application/json", "text/plain", "application/x-www-form-urlencoded"] {
        let forged = Request::builder()
            .method(Method::POST)
            .uri("/api/v1/authorize")
            .header(header::COOKIE, &cookie)
            .header(header::ORIGIN, "https://evil.example")
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body.to_string()))
            .unwrap();
        assert_eq!(clinic.send(forged).await.body["code"], "forged", "{kind}");
    }
    let mut more = body;
    more["user"] = json!("physician");
    let assigned = clinic.post("/api/v1/authorize", &cookie, more).await;
    assert_eq!(assigned.status, StatusCode::BAD_REQUEST, "nothing that is not asked for is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_good_once_for_one_app_with_its_verifier_for_a_minute() {
    let clinic = Clinic::furnished();
    let client = clinic.register_app(SCOPES).await;
    let other = clinic.register_app(SCOPES).await;
    let cookie = clinic.sign_in("nurse").await;

    let code = clinic.code_for(&cookie, &client, SCOPES, None).await;
    let given = clinic.redeem(&client, &code).await.body;
    assert!(clinic.is_good(&given["access_token"]).await);
    assert_eq!(clinic.redeem(&client, &code).await.body["error"], "invalid_grant", "replayed");
    assert!(!clinic.is_good(&given["access_token"]).await, "a replay ends what the code gave");

    type Change = fn(&mut Vec<(&'static str, &str)>);
    let changes: [(&str, Change); 3] = [
        ("another verifier", |sent| sent[4].1 = "another-verifier-that-has-enough-characters-too-0"),
        ("the challenge as verifier", |sent| sent[4].1 = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("another address", |sent| sent[2].1 = "https://evil.example/callback"),
    ];
    for (what, change) in changes {
        let code = clinic.code_for(&cookie, &client, SCOPES, None).await;
        let mut sent = redeeming(&client, &code);
        change(&mut sent);
        assert_eq!(clinic.form(TOKEN, &sent).await.body["error"], "invalid_grant", "{what}");
        assert_eq!(clinic.redeem(&client, &code).await.body["error"], "invalid_grant", "{what}: burnt");
    }
    let code = clinic.code_for(&cookie, &client, SCOPES, None).await;
    let mut without = redeeming(&client, &code);
    without.remove(4);
    assert_eq!(clinic.form(TOKEN, &without).await.body["error"], "invalid_request", "no verifier at all");
    assert_eq!(clinic.redeem(&other, &code).await.body["error"], "invalid_grant", "another app");
    let code = clinic.code_for(&cookie, &client, SCOPES, None).await;
    clinic.clock.advance(61);
    assert_eq!(clinic.redeem(&client, &code).await.body["error"], "invalid_grant", "too late");
    for code in ["", "x", "x.y", &"A".repeat(66), &format!("{}.{}", "A".repeat(22), "A".repeat(43))] {
        let error = clinic.redeem(&client, code).await.body["error"].clone();
        assert!(["invalid_grant", "invalid_request"].contains(&error.as_str().unwrap()), "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_requests_with_one_code_do_not_both_succeed() {
    let clinic = Clinic::furnished();
    let client = clinic.register_app(SCOPES).await;
    let cookie = clinic.sign_in("nurse").await;
    let code = clinic.code_for(&cookie, &client, SCOPES, None).await;
    let (one, two) = tokio::join!(clinic.redeem(&client, &code), clinic.redeem(&client, &code));
    let good = [&one, &two].into_iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert!(good <= 1, "{:?} {:?}", one.body, two.body);
    for answer in [one, two].iter().filter(|answer| answer.status == StatusCode::OK) {
        assert!(!clinic.is_good(&answer.body["access_token"]).await, "the second one ended it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_counts_in_its_header_on_fhir_and_nowhere_else() {
    let clinic = Clinic::furnished();
    let client = clinic.register_app("user/*.cruds").await;
    let (given, cookie) = clinic.let_in(&client, "user/*.rs").await;
    let token = given["access_token"].as_str().unwrap().to_owned();
    let path = format!("/fhir/Patient/{}", patient(1));
    assert_eq!(clinic.read(&path, &token).await.status, StatusCode::OK);
    let bare = clinic.call(Method::GET, &format!("{path}?access_token={token}"), None, None).await;
    assert_eq!(bare.status, StatusCode::UNAUTHORIZED, "in the address");
    let named = clinic.read(&format!("{path}?access_token={token}"), &token).await;
    assert_eq!(named.status, StatusCode::BAD_REQUEST);
    assert!(!named.body.to_string().contains(&token), "and it is not repeated");
    let api = clinic.read("/api/v1/patients", &token).await;
    assert_eq!(api.status, StatusCode::UNAUTHORIZED, "the web app's own interface");

    let with = |headers: Vec<(header::HeaderName, String)>| {
        let mut request = Request::builder().uri(&path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        clinic.send(request.body(Body::empty()).unwrap())
    };
    let bearer = |text: &str| (header::AUTHORIZATION, format!("Bearer {text}"));
    let twice = with(vec![bearer(&token), bearer(&token)]).await;
    assert_eq!(twice.status, StatusCode::UNAUTHORIZED, "two of them");
    let basic = with(vec![(header::AUTHORIZATION, "Basic bnVyc2U6eA==".to_owned())]).await;
    assert_eq!(basic.status, StatusCode::UNAUTHORIZED);
    // A bad token does not fall back on the session beside it, which may do more.
    let beside = with(vec![bearer("nonsense"), (header::COOKIE, cookie)]).await;
    assert_eq!(beside.status, StatusCode::UNAUTHORIZED);
    let challenge = beside.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.contains("invalid_token"), "{challenge}");
    let refresh = clinic.read(&path, &format!("{}x", &token[..token.len() - 1])).await;
    assert_eq!(refresh.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refresh.headers[header::CACHE_CONTROL], "no-store");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_takes_nothing_unsafe_and_only_from_those_who_manage_programs() {
    let clinic = Clinic::furnished();
    let good = json!({"name": "A", "kind": "app", "redirect_uris": [REDIRECT], "scopes": "user/*.rs"});
    let cookie = clinic.sign_in("integrator").await;
    let with = |name: &str, value: Value| {
        let mut new = good.clone();
        new[name] = value;
        clinic.post("/api/v1/clients", &cookie, new)
    };
    for (name, value) in [
        ("redirect_uris", json!(["http://evil.example/cb"])),
        ("redirect_uris", json!(["javascript:alert(1)"])),
        ("redirect_uris", json!(["https://*.example.org/cb"])),
        ("redirect_uris", json!([])),
        ("scopes", json!("system/*.rs")),
        ("scopes", json!("user/Observation.rs?code=1")),
        ("scopes", json!("user/Foo.rs")),
        ("scopes", json!("user/Observatoin.rs user/Patient.rs")),
        ("scopes", json!("")),
        ("name", json!("a\u{202e}b")),
        ("name", json!("")),
        ("kind", json!("service")),
        ("jwks", json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]})),
        ("id", json!("00")),
        ("created_by", json!("00")),
        ("is_trusted", json!(true)),
    ] {
        let answer = with(name, value.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name} {value}: {:?}", answer.body);
    }
    for role in ["nurse", "physician", "patient", "caregiver", "auditor", "biomedical-engineer"] {
        let cookie = clinic.sign_in(role).await;
        let answer = clinic.post("/api/v1/clients", &cookie, good.clone()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_sees_no_chart_makes_a_key_to_all_of_them() {
    let clinic = Clinic::furnished();
    let jwks = json!({"keys": [trust::jwt::SigningKey::generate().unwrap().to_jwk()]});
    let service = json!({"name": "Mine", "kind": "service", "scopes": "system/*.cruds", "jwks": jwks});
    let cookie = clinic.sign_in("integrator").await;
    let answer = clinic.post("/api/v1/clients", &cookie, service.clone()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{:?}", answer.body);
    // Nor by putting a key of their own into one that is there.
    let (client, _) = clinic.register_service("system/Observation.rs").await;
    let path = format!("/api/v1/clients/{client}");
    let mut changed = service;
    changed["version"] = clinic.get(&path, &cookie).await.body["version"].clone();
    let answer = clinic.call(Method::PUT, &path, Some(&cookie), Some(changed)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{:?}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_cannot_take_the_name_of_another() {
    let clinic = Clinic::furnished();
    clinic.register_app("user/*.rs").await;
    let cookie = clinic.sign_in("integrator").await;
    for name in ["Trend app", "trend  APP"] {
        let new = json!({"name": name, "kind": "app", "redirect_uris": [REDIRECT], "scopes": "user/*.rs"});
        let answer = clinic.post("/api/v1/clients", &cookie, new).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}: {:?}", answer.body);
        assert!(answer.body["detail"].as_str().unwrap().contains("name of its own"), "{:?}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_thief_let_in_ends_when_the_ways_in_are_reset() {
    let clinic = Clinic::furnished();
    let client = clinic.register_app("user/Observation.rs offline_access").await;
    let (given, _) = clinic.let_in(&client, "user/Observation.rs offline_access").await;
    assert!(clinic.is_good(&given["access_token"]).await);
    let cookie = clinic.sign_in("administrator").await;
    let users = clinic.get("/api/v1/users", &cookie).await.body;
    let nurse = users["users"].as_array().unwrap().iter().find(|user| user["name"] == "nurse").unwrap();
    let path = format!("/api/v1/users/{}/reset", nurse["id"].as_str().unwrap());
    let reset = clinic.post(&path, &cookie, json!({})).await;
    assert_eq!(reset.status, StatusCode::OK, "{:?}", reset.body);
    assert!(!clinic.is_good(&given["access_token"]).await, "the token outlived the person's ways in");
    let sent = [
        ("grant_type", "refresh_token"),
        ("client_id", client.as_str()),
        ("refresh_token", given["refresh_token"].as_str().unwrap()),
    ];
    assert_eq!(clinic.form(TOKEN, &sent).await.body["error"], "invalid_grant");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_let_in_ends_when_an_administrator_ends_their_sessions_or_lets_them_out() {
    let clinic = Clinic::furnished();
    let client = clinic.register_app("user/Observation.rs offline_access").await;
    let admin = clinic.sign_in("administrator").await;
    let nurse = async || {
        let users = clinic.get("/api/v1/users", &admin).await.body;
        users["users"].as_array().unwrap().iter().find(|user| user["name"] == "nurse").unwrap().clone()
    };
    let path = format!("/api/v1/users/{}", nurse().await["id"].as_str().unwrap());
    let change = async |disabled: bool, ward_number: u8| {
        let body = json!({
            "display": "nurse", "role": "nurse", "wards": [ward(ward_number)], "disabled": disabled,
            "version": nurse().await["version"],
        });
        let changed = clinic.call(Method::PUT, &path, Some(&admin), Some(body)).await;
        assert_eq!(changed.status, StatusCode::OK, "{:?}", changed.body);
    };
    let refreshed = async |given: &Value| {
        let sent = [
            ("grant_type", "refresh_token"),
            ("client_id", client.as_str()),
            ("refresh_token", given["refresh_token"].as_str().unwrap()),
        ];
        clinic.form(TOKEN, &sent).await.body["access_token"].is_string()
    };
    let let_in = async || clinic.let_in(&client, "user/Observation.rs offline_access").await.0;

    let given = let_in().await;
    let ended = clinic.call(Method::DELETE, &format!("{path}/sessions"), Some(&admin), None).await;
    assert_eq!(ended.status, StatusCode::OK, "{:?}", ended.body);
    assert!(!clinic.is_good(&given["access_token"]).await, "the sessions were ended");
    assert!(!refreshed(&given).await, "the sessions were ended");

    let (given, other) = (let_in().await, let_in().await);
    change(false, 2).await;
    assert!(refreshed(&given).await, "another ward narrows what is seen, and ends nothing");
    change(true, 2).await;
    assert!(!refreshed(&other).await, "let out");
    change(false, 1).await;
    assert!(!refreshed(&other).await, "let in again, which revives nothing");
    assert!(!clinic.is_good(&other["access_token"]).await);
    let cookie = clinic.sign_in("nurse").await;
    assert_eq!(clinic.get("/api/v1/grants", &cookie).await.body["grants"], json!([]));
}
