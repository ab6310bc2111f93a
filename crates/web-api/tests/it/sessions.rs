//! First start, sessions, where they are bound to, and their end.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::json;
use web_api::session::RemoteAddress;

use crate::clinic::{Answer, Clinic, PASSWORD, cookie_of, eventually};

fn setup(token: &str, password: &str) -> serde_json::Value {
    json!({"token": token, "name": "admin", "display": "Admin", "password": password})
}

#[tokio::test(flavor = "multi_thread")]
async fn first_start_works_once_with_the_printed_token() {
    let clinic = Clinic::empty();
    let show = || clinic.call(Method::GET, "/api/v1/session", None, None);
    assert_eq!(show().await.body["state"], "setup-needed");
    let token = clinic.web.first_start_token().unwrap();
    let post = |body| clinic.call(Method::POST, "/api/v1/setup", None, Some(body));
    let wrong = trust::TokenSecret::generate().to_text();
    assert_eq!(post(setup(wrong.expose(), PASSWORD)).await.body["code"], "setup-closed");
    assert_eq!(post(setup(token.expose(), "short")).await.body["code"], "bad-request");
    let answer = post(setup(token.expose(), PASSWORD)).await;
    assert_eq!(answer.body["state"], "enrolment-needed");
    assert_eq!(answer.body["user"]["role"], "administrator");
    let cookie = cookie_of(&answer);
    let refused = clinic.get("/api/v1/users", &cookie).await;
    assert_eq!((refused.status, &refused.body["code"]), (StatusCode::FORBIDDEN, &json!("enrolment-needed")));
    assert_eq!(post(setup(token.expose(), PASSWORD)).await.body["code"], "setup-closed");
    assert!(clinic.web.first_start_token().is_none());
    assert_eq!(show().await.body["state"], "signed-out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setup_that_was_broken_off_before_any_way_in_can_be_done_again() {
    let clinic = Clinic::empty();
    let token = clinic.web.first_start_token().unwrap();
    let body = json!({"token": token.expose(), "name": "admin", "display": "Admin"});
    for _ in 0..2 {
        let answer = clinic.call(Method::POST, "/api/v1/setup", None, Some(body.clone())).await;
        assert_eq!(answer.body["state"], "enrolment-needed", "{:?}", answer.body);
        assert!(clinic.web.first_start_token().is_some());
    }
    let other = json!({"token": token.expose(), "name": "mallory", "display": "M"});
    let answer = clinic.call(Method::POST, "/api/v1/setup", None, Some(other)).await;
    assert_eq!(answer.body["code"], "setup-closed", "nobody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_by_sign_out_and_idleness() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    let answer = clinic.get("/api/v1/wards", &cookie).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(clinic.get("/api/v1/session", &cookie).await.body["user"]["name"], "nurse");
    clinic.post("/api/v1/sign-out", &cookie, json!({})).await;
    assert_eq!(clinic.get("/api/v1/wards", &cookie).await.status, StatusCode::UNAUTHORIZED);

    let cookie = clinic.sign_in("nurse").await;
    clinic.clock.advance(15 * 60 + 1);
    assert_eq!(clinic.get("/api/v1/wards", &cookie).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_unattended_page_asks_keeps_no_session_alive() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    let mut status = StatusCode::OK;
    for _ in 0..4 {
        clinic.clock.advance(5 * 60);
        let request = Request::get("/api/v1/wards")
            .header(header::COOKIE, &cookie)
            .header("x-auscult-unattended", "1")
            .body(Body::empty())
            .unwrap();
        status = clinic.send(request).await.status;
    }
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

/// The same as from a browser somewhere.
async fn from(clinic: &Clinic, address: &str, agent: &str, cookie: &str, path: &str) -> Answer {
    let mut request = Request::get(path)
        .header(header::COOKIE, cookie)
        .header(header::USER_AGENT, agent)
        .body(Body::empty())
        .unwrap();
    request.extensions_mut().insert(RemoteAddress(address.parse::<IpAddr>().unwrap()));
    clinic.send(request).await
}

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const CHROME: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36";

/// Signs in as from a browser somewhere.
async fn sign_in_from(clinic: &Clinic, address: &str, agent: &str) -> String {
    let begun = clinic.post("/api/v1/sign-in/passkey/begin", "", json!({})).await.body;
    let body = clinic.use_passkey("nurse", &begun);
    let mut request = Request::post("/api/v1/sign-in/passkey")
        .header("x-auscult", "1")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, agent)
        .body(Body::from(body.to_string()))
        .unwrap();
    request.extensions_mut().insert(RemoteAddress(address.parse::<IpAddr>().unwrap()));
    let answer = clinic.send(request).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    cookie_of(&answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_session_moved_to_another_address_is_refused_and_over() {
    let clinic = Clinic::furnished();
    for (address, agent) in [("203.0.113.9", FIREFOX), ("10.0.0.1", CHROME), ("10.0.0.1", "")] {
        let cookie = sign_in_from(&clinic, "10.0.0.1", FIREFOX).await;
        let path = "/api/v1/wards";
        assert_eq!(from(&clinic, "10.0.0.1", FIREFOX, &cookie, path).await.status, StatusCode::OK);
        let newer = FIREFOX.replace("140.0", "141.0");
        assert_eq!(
            from(&clinic, "10.0.0.1", &newer, &cookie, path).await.status,
            StatusCode::OK,
            "an update"
        );
        let stolen = from(&clinic, address, agent, &cookie, path).await;
        assert_eq!(stolen.status, StatusCode::UNAUTHORIZED, "{address} {agent}");
        let over = from(&clinic, "10.0.0.1", FIREFOX, &cookie, path).await;
        assert_eq!(
            over.status,
            StatusCode::UNAUTHORIZED,
            "two people have the token: nobody goes on with it"
        );
    }
    let fhir = sign_in_from(&clinic, "10.0.0.1", FIREFOX).await;
    let stolen = from(&clinic, "203.0.113.9", FIREFOX, &fhir, "/fhir/Patient").await;
    assert_eq!(stolen.status, StatusCode::UNAUTHORIZED, "over FHIR as well");
    let auditor = clinic.sign_in("auditor").await;
    let rows = clinic.get("/api/v1/audit", &auditor).await.body.to_string();
    assert!(
        rows.contains("ended, for it began from 10.0.0.1, Firefox on Linux and was shown from 203.0.113.9")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sees_ones_sessions_and_ends_them_but_nobody_elses() {
    let clinic = Clinic::furnished();
    let (here, there) = (clinic.sign_in("nurse").await, clinic.sign_in("nurse").await);
    let others = clinic.sign_in("physician").await;
    let list = clinic.get("/api/v1/account/sessions", &here).await.body;
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions.iter().filter(|one| one["is_current"] == true).count(), 1);
    assert!(sessions.iter().all(|one| one["signed_in_by"] == "passkey" && one["browser"].is_string()));
    let other = sessions.iter().find(|one| one["is_current"] == false).unwrap()["id"].as_str().unwrap();
    let path = format!("/api/v1/account/sessions/{other}");
    let refused = clinic.call(Method::DELETE, &path, Some(&others), None).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND, "not theirs");
    assert_eq!(clinic.get("/api/v1/wards", &there).await.status, StatusCode::OK);
    let left = clinic.call(Method::DELETE, &path, Some(&here), None).await;
    assert_eq!(left.body["sessions"].as_array().unwrap().len(), 1, "{:?}", left.body);
    assert_eq!(clinic.get("/api/v1/wards", &there).await.status, StatusCode::UNAUTHORIZED);
    for id in ["", "x", "00", &"0".repeat(32), &"+".repeat(32)] {
        let path = format!("/api/v1/account/sessions/{id}");
        let answer = clinic.call(Method::DELETE, &path, Some(&here), None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{id}");
    }
    let third = clinic.sign_in("nurse").await;
    let left = clinic.post("/api/v1/account/sessions/end-others", &here, json!({})).await;
    assert_eq!(left.body["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(clinic.get("/api/v1/wards", &third).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(clinic.get("/api/v1/wards", &here).await.status, StatusCode::OK);
    assert_eq!(clinic.get("/api/v1/wards", &others).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_gives_a_new_token_and_ends_the_one_that_was_sent_along() {
    let clinic = Clinic::furnished();
    let planted = clinic.sign_in("nurse").await;
    let begun = clinic.post("/api/v1/sign-in/passkey/begin", &planted, json!({})).await.body;
    let body = clinic.use_passkey("physician", &begun);
    let answer = clinic.call(Method::POST, "/api/v1/sign-in/passkey", Some(&planted), Some(body)).await;
    assert_eq!(answer.body["user"]["name"], "physician");
    assert_ne!(cookie_of(&answer), planted);
    assert_eq!(clinic.get("/api/v1/wards", &planted).await.status, StatusCode::UNAUTHORIZED, "fixation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_rights_takes_effect_at_once_and_ends_sessions() {
    let clinic = Clinic::furnished();
    let (admin, nurse) = (clinic.sign_in("administrator").await, clinic.sign_in("nurse").await);
    let users = clinic.get("/api/v1/users", &admin).await.body;
    let line = users["users"].as_array().unwrap().iter().find(|one| one["name"] == "nurse").unwrap().clone();
    let path = format!("/api/v1/users/{}", line["id"].as_str().unwrap());
    let change = |role: &str, disabled: bool, version: u64| json!({"display": "N", "role": role, "wards": line["wards"], "disabled": disabled, "version": version});
    let version = line["version"].as_u64().unwrap();
    let put = |body| clinic.call(Method::PUT, &path, Some(&admin), Some(body));
    let renamed = put(change("nurse", false, version)).await;
    assert_eq!(renamed.status, StatusCode::OK, "{:?}", renamed.body);
    assert_eq!(clinic.get("/api/v1/wards", &nurse).await.status, StatusCode::OK, "only the name changed");
    assert_eq!(put(change("auditor", false, version)).await.body["code"], "changed-by-somebody-else");
    let version = renamed.body["version"].as_u64().unwrap();
    let changed = put(change("auditor", false, version)).await;
    assert_eq!(changed.body["role"], "auditor");
    assert_eq!(clinic.get("/api/v1/wards", &nurse).await.status, StatusCode::UNAUTHORIZED);
    let again = clinic.sign_in("nurse").await;
    assert_eq!(clinic.get("/api/v1/patients", &again).await.status, StatusCode::FORBIDDEN);
    let version = changed.body["version"].as_u64().unwrap();
    put(change("auditor", true, version)).await;
    assert_eq!(clinic.get("/api/v1/audit", &again).await.status, StatusCode::UNAUTHORIZED, "disabled");
    let begun = clinic.post("/api/v1/sign-in/passkey/begin", "", json!({})).await.body;
    let body = clinic.use_passkey("nurse", &begun);
    assert_eq!(clinic.post("/api/v1/sign-in/passkey", "", body).await.status, StatusCode::UNAUTHORIZED);
    let body = json!({"name": "nurse", "password": PASSWORD, "code": clinic.code()});
    assert_eq!(clinic.post("/api/v1/sign-in", "", body).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_ends_when_its_person_loses_the_role() {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    let clinic = Clinic::furnished();
    let (admin, nurse) = (clinic.sign_in("administrator").await, clinic.sign_in("nurse").await);
    let request = Request::get("/api/v1/live").header(header::COOKIE, &nurse).body(Body::empty()).unwrap();
    let stream = clinic.router.clone().oneshot(request).await.unwrap();
    assert_eq!(stream.status(), StatusCode::OK);
    let read = tokio::spawn(stream.into_body().collect());
    let users = clinic.get("/api/v1/users", &admin).await.body;
    let line = users["users"].as_array().unwrap().iter().find(|one| one["name"] == "nurse").unwrap().clone();
    let path = format!("/api/v1/users/{}", line["id"].as_str().unwrap());
    let body =
        json!({"display": "N", "role": "nurse", "wards": [], "disabled": false, "version": line["version"]});
    let changed = clinic.call(Method::PUT, &path, Some(&admin), Some(body)).await;
    assert_eq!(changed.status, StatusCode::OK, "{:?}", changed.body);
    eventually("the stream ends", || read.is_finished()).await;
    let bytes = read.await.unwrap().unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&bytes).contains("signed-out"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_are_answered_with_a_sentence() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"{\"name\":\xff}".to_vec(),
        b"[]".to_vec(),
        deep.into_bytes(),
        vec![b' '; 10 << 20],
    ];
    for body in bodies {
        let request = Request::post("/api/v1/sign-in")
            .header("x-auscult", "1")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::COOKIE, &cookie)
            .body(Body::from(body.clone()))
            .unwrap();
        let answer = clinic.send(request).await;
        let code = if body.len() > 1 << 20 { "too-large" } else { "bad-request" };
        assert_eq!(answer.body["code"], code, "{} bytes: {:?}", body.len(), answer.body);
        assert!(answer.body["detail"].as_str().unwrap().len() > 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_the_headers_that_keep_strangers_out() {
    let clinic = Clinic::empty();
    for path in ["/", "/api/v1/session", "/ward/x", "/assets/none.js", "/sign-in", "/oauth2/authorize"] {
        let answer = clinic.call(Method::GET, path, None, None).await;
        let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(answer.headers[header::X_FRAME_OPTIONS], "DENY");
    }
    assert_eq!(clinic.call(Method::GET, "/assets/none.js", None, None).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_can_change_nothing() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("administrator").await;
    for operation in web_api::operations::operations() {
        if operation.method == Method::GET {
            continue;
        }
        let path = operation.path.replace("{id}", "00000000-0000-0000-0000-000000000000");
        // What a form can send: no header of its own, and one of three media types.
        let request = Request::builder()
            .method(&operation.method)
            .uri(&path)
            .header(header::COOKIE, &cookie)
            .header(header::ORIGIN, "https://evil.example")
            .header(header::CONTENT_TYPE, "text/plain")
            .body(Body::from("{}"))
            .unwrap();
        let answer = clinic.send(request).await;
        assert_eq!(answer.body["code"], "forged", "{} {path}", operation.method);
    }
    for path in ["/api/v1/wards", "/fhir/Patient"] {
        let asked = |site: &'static str| {
            let request = Request::get(path).header(header::COOKIE, &cookie).header("sec-fetch-site", site);
            clinic.send(request.body(Body::empty()).unwrap())
        };
        assert_eq!(asked("same-origin").await.status, StatusCode::OK, "{path}");
        assert_eq!(asked("cross-site").await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let set = clinic.sign_in_answer("nurse").await;
    let lines: Vec<&str> =
        set.headers.get_all(header::SET_COOKIE).iter().map(|line| line.to_str().unwrap()).collect();
    assert!(
        lines.iter().all(|line| line.contains("SameSite=Strict") && line.contains("HttpOnly")),
        "{lines:?}"
    );
}
