//! Ways in: passkeys, passwords with codes, recovery codes, invitations, proving oneself again, and guessing.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use clinical_model::{RecordId as _, UserId};
use serde_json::{Value, json};
use store::Actor;
use trust::totp::TotpSecret;
use web_api::session::RemoteAddress;
use web_api::{NewUser, Role};

use crate::clinic::{Answer, Clinic, PASSWORD, cookie_of, ward};
use crate::passkeys;

async fn post(clinic: &Clinic, path: &str, cookie: Option<&str>, body: Value) -> Answer {
    clinic.call(Method::POST, path, cookie, Some(body)).await
}

fn code_of(answer: &Answer) -> (StatusCode, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

const REFUSED: (StatusCode, &str) = (StatusCode::UNAUTHORIZED, "bad-credentials");

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_is_both_factors_and_its_challenge_is_answered_once() {
    let clinic = Clinic::furnished();
    let begun = post(&clinic, "/api/v1/sign-in/passkey/begin", None, json!({})).await.body;
    assert_eq!(begun["options"]["rpId"], "localhost");
    assert_eq!(begun["options"]["userVerification"], "required");
    assert_eq!(begun["options"]["allowCredentials"], json!([]), "nobody is named");
    let body = clinic.use_passkey("nurse", &begun);
    let sign_in = |body: Value| post(&clinic, "/api/v1/sign-in/passkey", None, body);
    let answer = sign_in(body.clone()).await;
    assert_eq!(answer.body["state"], "signed-in");
    assert!(answer.body["fresh_until"].is_string());
    assert_eq!(code_of(&sign_in(body).await), REFUSED, "replayed");
    let again = clinic.use_passkey("nurse", &begun);
    assert_eq!(code_of(&sign_in(again).await), REFUSED, "a used challenge, signed anew");
    let begun = post(&clinic, "/api/v1/sign-in/passkey/begin", None, json!({})).await.body;
    let late = clinic.use_passkey("nurse", &begun);
    clinic.clock.advance(301);
    assert_eq!(code_of(&sign_in(late).await), REFUSED, "late");
    let auditor = clinic.sign_in("auditor").await;
    let rows = clinic.get("/api/v1/audit", &auditor).await.body.to_string();
    assert!(rows.contains("by a passkey") && rows.contains("passkey refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_lets_in_nobody_but_its_owner() {
    let clinic = Clinic::furnished();
    let sign_in = |body: Value| post(&clinic, "/api/v1/sign-in/passkey", None, body);
    let begin = || post(&clinic, "/api/v1/sign-in/passkey/begin", None, json!({}));
    let admin = clinic.sign_in("administrator").await;
    let users = clinic.get("/api/v1/users", &admin).await.body;
    let of = |name: &str| {
        let users = users["users"].as_array().unwrap();
        let id = users.iter().find(|one| one["name"] == name).unwrap()["id"].as_str().unwrap().to_owned();
        id.parse::<UserId>().unwrap()
    };
    let handle = |user: UserId| {
        use base64::Engine as _;
        json!(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(user.to_bytes()))
    };
    let mut body = clinic.use_passkey("nurse", &begin().await.body);
    body["credential"]["response"]["userHandle"] = handle(of("administrator"));
    assert_eq!(code_of(&sign_in(body).await), REFUSED, "another's handle");
    let mut body = clinic.use_passkey("nurse", &begin().await.body);
    body["credential"]["rawId"] =
        clinic.use_passkey("physician", &begin().await.body)["credential"]["rawId"].clone();
    assert_eq!(code_of(&sign_in(body).await), REFUSED, "another's credential");
    let mut stranger = passkeys::new();
    let body = passkeys::answer(&mut stranger, of("nurse"), &begin().await.body);
    assert_eq!(code_of(&sign_in(body).await), REFUSED, "one that was never registered");
    let mut body = clinic.use_passkey("nurse", &begin().await.body);
    body["credential"]["response"]["userHandle"] = Value::Null;
    assert_eq!(code_of(&sign_in(body).await), REFUSED, "nobody is named");
    let mut body = clinic.use_passkey("nurse", &begin().await.body);
    body["credential"]["response"]["signature"] = json!("not base64url!");
    assert_eq!(code_of(&sign_in(body).await), REFUSED);
    for wrong in [json!({}), json!({"ceremony": "x"}), json!({"ceremony": 1, "credential": {}}), json!([])] {
        assert_eq!(code_of(&sign_in(wrong).await).1, "bad-request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_of_one_purpose_is_none_of_another() {
    let clinic = Clinic::furnished();
    let (one, two) = (clinic.sign_in("nurse").await, clinic.sign_in("nurse").await);
    let step_up = clinic.post("/api/v1/step-up/passkey/begin", &one, json!({})).await.body;
    let body = || clinic.use_passkey("nurse", &step_up);
    assert_eq!(code_of(&post(&clinic, "/api/v1/sign-in/passkey", None, body()).await), REFUSED);
    let refused = clinic.post("/api/v1/step-up/passkey", &two, body()).await;
    assert_eq!(code_of(&refused), (StatusCode::UNAUTHORIZED, "bad-code"), "in another session");
    assert_eq!(clinic.post("/api/v1/step-up/passkey", &one, body()).await.status, StatusCode::OK);
    let begun = clinic.post("/api/v1/step-up/passkey/begin", &one, json!({})).await.body;
    let others = clinic.use_passkey("physician", &begun);
    let refused = clinic.post("/api/v1/step-up/passkey", &one, others).await;
    assert_eq!(code_of(&refused).1, "bad-code", "somebody else's passkey");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_proves_themself_again_did_not_sign_in_again() {
    let clinic = Clinic::furnished();
    let (administrator, nurse) = (clinic.sign_in("administrator").await, clinic.sign_in("nurse").await);
    let last = async || {
        let users = clinic.get("/api/v1/users", &administrator).await.body;
        let users = users["users"].as_array().unwrap().clone();
        users.into_iter().find(|one| one["name"] == "nurse").unwrap()["last_sign_in_at"].clone()
    };
    let signed_in_at = last().await;
    assert!(signed_in_at.is_string());
    clinic.clock.advance(120);
    let code = json!({"code": clinic.code()});
    assert_eq!(clinic.post("/api/v1/step-up/totp", &nurse, code).await.status, StatusCode::OK);
    let begun = clinic.post("/api/v1/step-up/passkey/begin", &nurse, json!({})).await.body;
    let answer = clinic.use_passkey("nurse", &begun);
    assert_eq!(clinic.post("/api/v1/step-up/passkey", &nurse, answer).await.status, StatusCode::OK);
    assert_eq!(last().await, signed_in_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_alone_lets_nobody_in_and_a_code_is_taken_once() {
    let clinic = Clinic::furnished();
    let answer =
        post(&clinic, "/api/v1/sign-in", None, json!({"name": " NURSE ", "password": PASSWORD})).await;
    assert_eq!(answer.body["state"], "second-factor-needed");
    assert_eq!((&answer.body["user"], &answer.body["permissions"]), (&Value::Null, &json!([])));
    let cookie = cookie_of(&answer);
    for path in ["/api/v1/wards", "/api/v1/account", "/api/v1/live", "/api/v1/account/sessions"] {
        let refused = clinic.get(path, &cookie).await;
        assert_eq!(code_of(&refused), (StatusCode::FORBIDDEN, "second-factor-needed"), "{path}");
    }
    assert!(clinic.get("/fhir/Patient", &cookie).await.status.is_client_error());
    let code = clinic.code();
    let wrong = clinic.post("/api/v1/sign-in/totp", &cookie, json!({"code": "000000"})).await;
    assert_eq!(code_of(&wrong), (StatusCode::UNAUTHORIZED, "bad-code"));
    let answer = clinic.post("/api/v1/sign-in/totp", &cookie, json!({"code": code})).await;
    assert_eq!(answer.body["state"], "signed-in");
    let whole = cookie_of(&answer);
    assert_ne!(whole, cookie, "a new token at a new privilege");
    assert_eq!(clinic.get("/api/v1/session", &cookie).await.body["state"], "signed-out");
    assert_eq!(clinic.get("/api/v1/wards", &whole).await.status, StatusCode::OK);
    // The same code again, within its thirty seconds: in one request or in two.
    let body = json!({"name": "nurse", "password": PASSWORD, "code": code});
    assert_eq!(code_of(&post(&clinic, "/api/v1/sign-in", None, body).await).1, "bad-code", "replayed");
    clinic.clock.advance(30);
    let body = json!({"name": "nurse", "password": PASSWORD, "code": clinic.code()});
    assert_eq!(post(&clinic, "/api/v1/sign-in", None, body).await.body["state"], "signed-in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_is_given_twice_at_one_time_is_taken_once() {
    let clinic = Clinic::furnished();
    let body = json!({"name": "nurse", "password": PASSWORD, "code": clinic.code()});
    let tries: Vec<_> = (0..4).map(|_| post(&clinic, "/api/v1/sign-in", None, body.clone())).collect();
    let answers = futures_util::future::join_all(tries).await;
    let good = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(good, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_wrong_codes_end_the_attempt() {
    let clinic = Clinic::furnished();
    let answer = post(&clinic, "/api/v1/sign-in", None, json!({"name": "nurse", "password": PASSWORD})).await;
    let cookie = cookie_of(&answer);
    for _ in 0..5 {
        let wrong = clinic.post("/api/v1/sign-in/totp", &cookie, json!({"code": "000000"})).await;
        assert_eq!(code_of(&wrong).1, "bad-code");
    }
    let over = clinic.post("/api/v1/sign-in/totp", &cookie, json!({"code": clinic.code()})).await;
    assert_eq!(code_of(&over).1, "signed-out");
    // Beginning again does not give ten thousand tries more.
    let mut last = String::new();
    for _ in 0..8 {
        let body = json!({"name": "nurse", "password": PASSWORD, "code": "000000"});
        last = code_of(&post(&clinic, "/api/v1/sign-in", None, body).await).1.to_owned();
    }
    assert_eq!(last, "too-many-attempts");
    // Who knows the password locks nobody out: the passkey is not guarded.
    clinic.sign_in("nurse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_codes_are_shown_once_and_work_once() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    let codes = clinic.post("/api/v1/account/recovery-codes", &cookie, json!({})).await.body;
    let codes: Vec<String> = serde_json::from_value(codes["codes"].clone()).unwrap();
    assert_eq!(codes.len(), 10);
    let account = clinic.get("/api/v1/account", &cookie).await.body;
    assert_eq!(account["recovery_codes_left"], 10);
    assert!(!account.to_string().contains(&codes[0]));
    let with_password =
        || post(&clinic, "/api/v1/sign-in", None, json!({"name": "nurse", "password": PASSWORD}));
    let first = cookie_of(&with_password().await);
    let typed = json!({"code": codes[3].to_uppercase().replace('-', " ")});
    let answer = clinic.post("/api/v1/sign-in/recovery", &first, typed.clone()).await;
    assert_eq!(answer.body["state"], "signed-in", "{:?}", answer.body);
    assert_eq!(answer.body["recovery_codes_left"], 9);
    let sessions = clinic.get("/api/v1/account/sessions", &cookie_of(&answer)).await.body;
    let mine = sessions["sessions"].as_array().unwrap().iter().find(|one| one["is_current"] == true).unwrap();
    assert_eq!(mine["signed_in_by"], "recovery-code", "{sessions}");
    let first = cookie_of(&with_password().await);
    assert_eq!(code_of(&clinic.post("/api/v1/sign-in/recovery", &first, typed).await).1, "bad-code", "used");
    // Without the password they are nothing.
    let alone = post(&clinic, "/api/v1/sign-in/recovery", None, json!({"code": codes[4]})).await;
    assert_eq!(code_of(&alone).1, "signed-out");
    // Drawing new ones voids the old.
    clinic.post("/api/v1/account/recovery-codes", &cookie, json!({})).await;
    let first = cookie_of(&with_password().await);
    let old = clinic.post("/api/v1/sign-in/recovery", &first, json!({"code": codes[5]})).await;
    assert_eq!(code_of(&old).1, "bad-code");
}

async fn invited(clinic: &Clinic, admin: &str, name: &str) -> (String, String) {
    let body = json!({"name": name, "display": name, "role": "nurse", "wards": [ward(1)]});
    let answer = clinic.post("/api/v1/users", admin, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let path = answer.body["invitation"]["path"].as_str().unwrap();
    let token = path.strip_prefix("/invite#token=").unwrap().to_owned();
    (answer.body["user"]["id"].as_str().unwrap().to_owned(), token)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_leads_to_a_passkey_and_works_once() {
    let clinic = Clinic::furnished();
    let admin = clinic.sign_in("administrator").await;
    let (_, token) = invited(&clinic, &admin, "anna").await;
    let link = |token: &str| post(&clinic, "/api/v1/sign-in/link", None, json!({"token": token}));
    let answer = link(&token).await;
    assert_eq!(answer.body["state"], "enrolment-needed");
    assert_eq!(answer.body["user"]["name"], "anna");
    let cookie = cookie_of(&answer);
    assert_eq!(code_of(&link(&token).await), (StatusCode::FORBIDDEN, "link-spent"));
    for path in ["/api/v1/wards", "/api/v1/patients", "/api/v1/live", "/api/v1/account/sessions"] {
        assert_eq!(code_of(&clinic.get(path, &cookie).await).1, "enrolment-needed", "{path}");
    }
    assert!(clinic.get("/fhir/Patient", &cookie).await.status.is_client_error());
    let begun = clinic.post("/api/v1/account/passkeys/begin", &cookie, json!({})).await.body;
    assert_eq!(begun["options"]["authenticatorSelection"]["residentKey"], "required");
    let passkey = passkeys::new();
    let body = passkeys::make(&passkey, &begun);
    let answer = clinic.post("/api/v1/account/passkeys", &cookie, body.clone()).await;
    assert_eq!(answer.body["state"], "signed-in", "{:?}", answer.body);
    let whole = cookie_of(&answer);
    assert_eq!(clinic.get("/api/v1/wards", &cookie).await.status, StatusCode::UNAUTHORIZED, "rotated");
    assert_eq!(clinic.get("/api/v1/wards", &whole).await.status, StatusCode::OK);
    let account = clinic.get("/api/v1/account", &whole).await.body;
    assert_eq!(account["passkeys"][0]["name"], "My phone");
    assert_eq!(
        code_of(&clinic.post("/api/v1/account/passkeys", &whole, body).await).1,
        "bad-request",
        "replayed"
    );
    let id = account["passkeys"][0]["id"].as_str().unwrap();
    let path = format!("/api/v1/account/passkeys/{id}");
    let refused = clinic.call(Method::DELETE, &path, Some(&whole), None).await;
    assert_eq!(code_of(&refused), (StatusCode::CONFLICT, "last-way-in"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_leads_to_a_password_and_an_authenticator_app() {
    let clinic = Clinic::furnished();
    let admin = clinic.sign_in("administrator").await;
    let (_, token) = invited(&clinic, &admin, "anna").await;
    let cookie = cookie_of(&post(&clinic, "/api/v1/sign-in/link", None, json!({"token": token})).await);
    let put = |path: &'static str, body| clinic.call(Method::PUT, path, Some(&cookie), Some(body));
    let weak = put("/api/v1/account/password", json!({"password": "short"})).await;
    assert_eq!(code_of(&weak).1, "bad-request");
    let set = put("/api/v1/account/password", json!({"password": PASSWORD})).await;
    assert_eq!(set.body["state"], "enrolment-needed", "a password alone is not enough");
    // Broken off here: the password leads back to this very place, and no further.
    let back = post(&clinic, "/api/v1/sign-in", None, json!({"name": "anna", "password": PASSWORD})).await;
    assert_eq!(back.body["state"], "enrolment-needed");
    let cookie = cookie_of(&back);
    let begun = clinic.post("/api/v1/account/totp/begin", &cookie, json!({})).await.body;
    assert!(begun["otpauth_uri"].as_str().unwrap().starts_with("otpauth://totp/Auscult:anna?secret="));
    let secret = TotpSecret::parse_base32(begun["secret"].as_str().unwrap()).unwrap();
    let now_s = || clinic.web.site().clock().now().as_millis() as u64 / 1_000;
    let wrong = clinic.post("/api/v1/account/totp", &cookie, json!({"code": "000000"})).await;
    assert_eq!(code_of(&wrong).1, "bad-code");
    let code = secret.code_at(now_s());
    let answer = clinic.post("/api/v1/account/totp", &cookie, json!({"code": code})).await;
    assert_eq!(answer.body["state"], "signed-in", "{:?}", answer.body);
    let body = json!({"name": "anna", "password": PASSWORD, "code": code});
    assert_eq!(
        code_of(&post(&clinic, "/api/v1/sign-in", None, body).await).1,
        "bad-code",
        "its first code is used"
    );
    clinic.clock.advance(30);
    let body = json!({"name": "anna", "password": PASSWORD, "code": secret.code_at(now_s())});
    assert_eq!(post(&clinic, "/api/v1/sign-in", None, body).await.body["state"], "signed-in");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_end_with_time_with_a_newer_one_and_with_the_person() {
    let clinic = Clinic::furnished();
    let admin = clinic.sign_in("administrator").await;
    let (id, first) = invited(&clinic, &admin, "anna").await;
    let reset = clinic.post(&format!("/api/v1/users/{id}/reset"), &admin, json!({})).await.body;
    let second = reset["invitation"]["path"].as_str().unwrap().split("token=").nth(1).unwrap().to_owned();
    let try_link = |token: String| post(&clinic, "/api/v1/sign-in/link", None, json!({"token": token}));
    assert_eq!(code_of(&try_link(first).await).1, "link-spent", "a newer one was made");
    let spoilt = format!("{}A", &second[..second.len() - 1]);
    if spoilt != second {
        assert_eq!(code_of(&try_link(spoilt).await).1, "link-spent");
    }
    clinic.clock.advance(72 * 3_600 + 1);
    assert_eq!(code_of(&try_link(second).await).1, "link-spent", "over");
    for junk in ["", ".", "x.y", &"A".repeat(43), &format!("{id}."), &format!("{id}.{}", "A".repeat(43))] {
        assert_eq!(code_of(&try_link(junk.to_owned()).await).1, "link-spent", "{junk}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_ends_everything_somebody_had() {
    let clinic = Clinic::furnished();
    let (admin, nurse) = (clinic.sign_in("administrator").await, clinic.sign_in("nurse").await);
    let users = clinic.get("/api/v1/users", &admin).await.body;
    let line = users["users"].as_array().unwrap().iter().find(|one| one["name"] == "nurse").unwrap().clone();
    assert_eq!(
        (&line["has_password"], &line["has_totp"], &line["passkeys"]),
        (&json!(true), &json!(true), &json!(1))
    );
    let path = format!("/api/v1/users/{}/reset", line["id"].as_str().unwrap());
    let reset = clinic.post(&path, &admin, json!({})).await;
    assert_eq!(reset.body["user"]["is_complete"], false);
    assert_eq!(clinic.get("/api/v1/wards", &nurse).await.status, StatusCode::UNAUTHORIZED);
    let body = json!({"name": "nurse", "password": PASSWORD, "code": clinic.code()});
    assert_eq!(code_of(&post(&clinic, "/api/v1/sign-in", None, body).await), REFUSED);
    let begun = post(&clinic, "/api/v1/sign-in/passkey/begin", None, json!({})).await.body;
    let body = clinic.use_passkey("nurse", &begun);
    assert_eq!(code_of(&post(&clinic, "/api/v1/sign-in/passkey", None, body).await), REFUSED);
}

#[tokio::test(flavor = "multi_thread")]
async fn acts_that_are_marked_need_the_second_factor_again_after_five_minutes() {
    let clinic = Clinic::furnished();
    let admin = clinic.sign_in("administrator").await;
    clinic.clock.advance(299);
    invited(&clinic, &admin, "in time").await;
    clinic.clock.advance(1);
    let body = json!({"name": "late", "display": "Late", "role": "nurse"});
    let late = clinic.post("/api/v1/users", &admin, body.clone()).await;
    assert_eq!(code_of(&late), (StatusCode::FORBIDDEN, "step-up-needed"));
    assert_eq!(clinic.get("/api/v1/users", &admin).await.status, StatusCode::OK, "reading needs none");
    let session = clinic.get("/api/v1/session", &admin).await.body;
    assert_eq!(session["second_factors"], json!(["passkey", "totp"]));
    let wrong = clinic.post("/api/v1/step-up/totp", &admin, json!({"code": "000000"})).await;
    assert_eq!(code_of(&wrong).1, "bad-code");
    let right = clinic.post("/api/v1/step-up/totp", &admin, json!({"code": clinic.code()})).await;
    assert_eq!(right.status, StatusCode::OK, "{:?}", right.body);
    assert_eq!(clinic.post("/api/v1/users", &admin, body).await.status, StatusCode::OK);
    clinic.clock.advance(300);
    let begun = clinic.post("/api/v1/step-up/passkey/begin", &admin, json!({})).await.body;
    assert_eq!(begun["options"]["allowCredentials"].as_array().unwrap().len(), 1);
    let body = clinic.use_passkey("administrator", &begun);
    assert_eq!(clinic.post("/api/v1/step-up/passkey", &admin, body).await.status, StatusCode::OK);
    invited(&clinic, &admin, "again").await;
    let link = clinic.post("/api/v1/step-up/link", &admin, json!({"token": "A".repeat(43)})).await;
    assert_eq!(code_of(&link).1, "link-spent", "there is no demonstration's link here");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_changes_people_or_ways_in_is_marked() {
    let marked = |path: &str| {
        let operations = web_api::operations::operations();
        operations
            .into_iter()
            .filter(|one| one.path.starts_with(path) && one.method != Method::GET)
            .collect::<Vec<_>>()
    };
    for operation in marked("/api/v1/users") {
        assert!(operation.is_fresh, "{} {}", operation.method, operation.path);
    }
    // Naming a passkey and ending sessions take nothing away from safety.
    for operation in marked("/api/v1/account") {
        let is_harmless = operation.path.contains("/sessions")
            || operation.method == Method::PUT && operation.path.ends_with("{id}");
        assert_eq!(operation.is_fresh, !is_harmless, "{} {}", operation.method, operation.path);
    }
    let enrolling: Vec<&str> =
        web_api::operations::operations().iter().filter(|one| one.is_enrolling).map(|one| one.path).collect();
    assert!(enrolling.iter().all(|path| path.starts_with("/api/v1/account")), "{enrolling:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_site_keeps_an_administrator() {
    let clinic = Clinic::furnished();
    let admin = clinic.sign_in("administrator").await;
    let users = clinic.get("/api/v1/users", &admin).await.body;
    let find = |name: &str| {
        users["users"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone()
    };
    let line = find("administrator");
    let path = format!("/api/v1/users/{}", line["id"].as_str().unwrap());
    for (role, disabled) in [("nurse", false), ("administrator", true)] {
        let body = json!({"display": "A", "role": role, "wards": null, "disabled": disabled, "version": line["version"]});
        let refused = clinic.call(Method::PUT, &path, Some(&admin), Some(body)).await;
        assert_eq!(code_of(&refused), (StatusCode::CONFLICT, "last-administrator"));
    }
    assert_eq!(clinic.get("/api/v1/users", &admin).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_themselves_rights_by_fields_that_are_not_asked_for() {
    let clinic = Clinic::furnished();
    let admin = clinic.sign_in("administrator").await;
    let new = |more: Value| {
        let mut body = json!({"name": "x", "display": "X", "role": "nurse"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for more in [
        json!({"password": PASSWORD}),
        json!({"id": "00000000-0000-0000-0000-000000000000"}),
        json!({"password_hash": "x"}),
        json!({"passkeys": []}),
        json!({"patient": "31313131-3131-3131-3131-313131313131"}),
        json!({"role": "patient"}),
        json!({"role": "root"}),
        json!({"wards": ["00000000-0000-0000-0000-000000000000"]}),
        json!({"name": "nurse"}),
        json!({"name": "\u{202e}\n"}),
    ] {
        let answer = clinic.post("/api/v1/users", &admin, new(more.clone())).await;
        assert!(answer.status.is_client_error(), "{more}: {:?}", answer.body);
    }
    let patient = json!({"role": "patient", "patient": crate::clinic::patient(1)});
    assert_eq!(clinic.post("/api/v1/users", &admin, new(patient)).await.status, StatusCode::OK);
    let nurse = clinic.sign_in("nurse").await;
    for (method, path) in
        [(Method::POST, "/api/v1/users"), (Method::PUT, "/api/v1/users/00000000-0000-0000-0000-000000000000")]
    {
        let refused = clinic.call(method, path, Some(&nurse), Some(new(json!({})))).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
    }
    let rename = json!({"name": "x", "role": "administrator"});
    let path = "/api/v1/account/passkeys/AAAA";
    let answer = clinic.call(Method::PUT, path, Some(&nurse), Some(rename)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

/// A sign-in with a password from somewhere.
async fn guess(clinic: &Clinic, name: &str, password: &str, address: &str, cookie: &str) -> Answer {
    let body = json!({"name": name, "password": password}).to_string();
    let mut request = Request::post("/api/v1/sign-in")
        .header("x-auscult", "1")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::COOKIE, cookie)
        .body(Body::from(body))
        .unwrap();
    request.extensions_mut().insert(RemoteAddress(address.parse::<IpAddr>().unwrap()));
    clinic.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_even_for_the_right_password_and_for_names_nobody_has() {
    for name in ["nurse", "nobody"] {
        let clinic = Clinic::furnished();
        for _ in 0..5 {
            let wrong = guess(&clinic, name, "not the password", "10.0.0.1", "").await;
            assert_eq!(code_of(&wrong).1, "bad-credentials", "{name}");
        }
        let answer = guess(&clinic, name, PASSWORD, "10.0.0.1", "").await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{name}");
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
        clinic.clock.advance(2);
        let expected = if name == "nurse" { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        assert_eq!(guess(&clinic, name, PASSWORD, "10.0.0.1", "").await.status, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_guesses_locks_nobody_out() {
    let clinic = Clinic::furnished();
    // The nurse has used this browser before.
    let known = clinic.sign_in("nurse").await;
    let known = known.split("; ").find(|pair| pair.starts_with("auscult_known=")).unwrap().to_owned();
    for number in 0..40 {
        for _ in 0..6 {
            guess(&clinic, "nurse", "not the password", &format!("203.0.113.{number}"), "").await;
        }
    }
    assert_eq!(
        guess(&clinic, "nurse", PASSWORD, "10.0.0.1", "").await.status,
        StatusCode::OK,
        "from elsewhere"
    );
    // Even behind the attacker's own address.
    assert_eq!(
        guess(&clinic, "nurse", PASSWORD, "203.0.113.1", "").await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(guess(&clinic, "nurse", PASSWORD, "203.0.113.1", &known).await.status, StatusCode::OK);
    // A known browser of one person is a stranger to another.
    for _ in 0..5 {
        guess(&clinic, "physician", "not the password", "10.0.0.2", &known).await;
    }
    let waits = guess(&clinic, "physician", PASSWORD, "10.0.0.2", &known).await;
    assert_eq!(waits.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_password_tried_on_many_names_is_slowed_down() {
    let clinic = Clinic::furnished();
    let mut refused = 0;
    for number in 0..40 {
        let answer = guess(&clinic, &format!("person {number}"), "Summer2026!!!", "203.0.113.7", "").await;
        refused += usize::from(answer.status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(refused, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_sign_in_learns_nothing_of_why() {
    let clinic = Clinic::furnished();
    let new = NewUser {
        name: "new".into(),
        display: "New".into(),
        role: Role::Nurse,
        wards: None,
        care_teams: Vec::new(),
        patient: None,
    };
    clinic.web.add_user(Actor::System, new).unwrap();
    let mut answers = Vec::new();
    for name in ["nobody", "new", "nurse"] {
        let answer = guess(&clinic, name, "not the password", "10.0.0.1", "").await;
        answers.push((
            answer.status,
            answer.body.to_string(),
            answer.headers.contains_key(header::SET_COOKIE),
        ));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    let long = guess(&clinic, "nurse", &"x".repeat(5_000), "10.0.0.3", "").await;
    assert_eq!(code_of(&long), REFUSED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_of_an_earlier_release_adds_a_second_factor_before_anything_else() {
    use store::{DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Transaction};
    let clinic = Clinic::furnished();
    let site = clinic.web.site();
    let id = UserId::from_bytes([9; 16]);
    let hash = trust::password::hash(PASSWORD, crate::clinic::cheap()).unwrap();
    let old = json!({"id": id, "name": "old", "display": "Old", "role": "nurse", "wards": [ward(1)],
        "disabled": false, "password_hash": hash});
    let name =
        IndexEntry { name: "name", value: site.store().blind("user-name", "old").to_vec(), unique: true };
    let write = DocumentWrite {
        kind: Kind::User,
        id: id.to_bytes(),
        expected: Expected::Absent,
        domain: KeyDomain::System,
        body: Some(old.to_string().into_bytes()),
        index: vec![IndexEntry { name: "all", value: Vec::new(), unique: false }, name],
    };
    let at = site.clock().now();
    site.store().transact(&Transaction { at, writes: vec![write], ..Transaction::default() }).unwrap();
    let clinic = clinic.with_web_started_again();
    let answer = post(&clinic, "/api/v1/sign-in", None, json!({"name": "old", "password": PASSWORD})).await;
    assert_eq!(answer.body["state"], "enrolment-needed", "{:?}", answer.body);
    let cookie = cookie_of(&answer);
    assert_eq!(code_of(&clinic.get("/api/v1/wards", &cookie).await).1, "enrolment-needed");
    let begun = clinic.post("/api/v1/account/passkeys/begin", &cookie, json!({})).await.body;
    let body = passkeys::make(&passkeys::new(), &begun);
    let answer = clinic.post("/api/v1/account/passkeys", &cookie, body).await;
    assert_eq!(answer.body["state"], "signed-in", "{:?}", answer.body);
    // From now on the password asks for the second factor.
    let answer = post(&clinic, "/api/v1/sign-in", None, json!({"name": "old", "password": PASSWORD})).await;
    assert_eq!(answer.body["state"], "second-factor-needed");
}
