//! First start, sign-in, sign-out, idleness, and guessing.

use axum::http::{Method, StatusCode, header};
use serde_json::json;

use crate::clinic::{Clinic, PASSWORD, cookie_of};

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
    assert_eq!(answer.body["state"], "signed-in");
    assert_eq!(answer.body["user"]["role"], "administrator");
    let cookie = cookie_of(&answer);
    assert_eq!(clinic.get("/api/v1/users", &cookie).await.status, StatusCode::OK);
    assert_eq!(post(setup(token.expose(), PASSWORD)).await.body["code"], "setup-closed");
    assert!(clinic.web.first_start_token().is_none());
    assert_eq!(show().await.body["state"], "signed-out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_with_the_right_password_and_ends_by_sign_out_and_idleness() {
    let clinic = Clinic::furnished();
    let wrong = json!({"name": "nurse", "password": "not the password"});
    let answer = clinic.call(Method::POST, "/api/v1/sign-in", None, Some(wrong)).await;
    assert_eq!((answer.status, &answer.body["code"]), (StatusCode::UNAUTHORIZED, &json!("bad-credentials")));
    let cookie = clinic.sign_in(" NURSE ").await;
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
        let request = axum::http::Request::get("/api/v1/wards")
            .header(header::COOKIE, &cookie)
            .header("x-auscult-unattended", "1")
            .body(axum::body::Body::empty())
            .unwrap();
        status = clinic.send(request).await.status;
    }
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_even_for_the_right_password_and_for_names_nobody_has() {
    for name in ["nurse", "nobody"] {
        let clinic = Clinic::furnished();
        let guess = |password: &str| {
            let body = json!({"name": name, "password": password});
            clinic.call(Method::POST, "/api/v1/sign-in", None, Some(body))
        };
        for _ in 0..5 {
            assert_eq!(guess("not the password").await.body["code"], "bad-credentials", "{name}");
        }
        let answer = guess(PASSWORD).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{name}");
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
        clinic.clock.advance(2);
        let expected = if name == "nurse" { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        assert_eq!(guess(PASSWORD).await.status, expected, "{name}");
    }
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
        let request = axum::http::Request::post("/api/v1/sign-in")
            .header("x-auscult", "1")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::COOKIE, &cookie)
            .body(axum::body::Body::from(body.clone()))
            .unwrap();
        let answer = clinic.send(request).await;
        assert_eq!(answer.body["code"], "bad-request", "{} bytes: {:?}", body.len(), answer.body);
        assert!(answer.body["detail"].as_str().unwrap().len() > 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_the_headers_that_keep_strangers_out() {
    let clinic = Clinic::empty();
    for path in ["/", "/api/v1/session", "/ward/x", "/assets/none.js"] {
        let answer = clinic.call(Method::GET, path, None, None).await;
        assert!(
            answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'self'")
        );
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(answer.headers[header::X_FRAME_OPTIONS], "DENY");
    }
    assert_eq!(clinic.call(Method::GET, "/assets/none.js", None, None).await.status, StatusCode::NOT_FOUND);
}
