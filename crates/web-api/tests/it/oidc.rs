//! Sign-in by way of an identity provider: a small provider of the test's own that can be made to lie.

mod proofs;

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use clinical_model::UserId;
use serde_json::{Value, json};
use store::Kind;
use trust::jwt::SigningKey;
use web_api::{Role, Ways};

use crate::clinic::{Answer, Clinic, PASSWORD, ward};
use crate::oauth::said;

/// What the provider answers next, and what it was sent.
struct Provider {
    issuer: String,
    key: SigningKey,
    token: Mutex<Option<String>>,
    sent: Mutex<Vec<String>>,
    says_issuer: Mutex<Option<String>>,
    /// What it says of a person beside the id_token.
    says_more: Mutex<Value>,
}

impl Provider {
    async fn started() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let provider = Arc::new(Provider {
            issuer,
            key: SigningKey::generate().unwrap(),
            token: Mutex::default(),
            sent: Mutex::default(),
            says_issuer: Mutex::default(),
            says_more: Mutex::default(),
        });
        let router =
            Router::new()
                .route("/.well-known/openid-configuration", get(describe))
                .route(
                    "/jwks",
                    get(|State(own): State<Arc<Provider>>| async move {
                        Json(json!({"keys": [own.key.to_jwk()]}))
                    }),
                )
                .route("/token", post(token))
                .route("/userinfo", get(userinfo))
                .with_state(Arc::clone(&provider));
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    fn claims(&self, clinic: &Clinic, nonce: &str) -> Value {
        let now = clinic.site.clock().now().as_seconds();
        json!({
            "iss": self.issuer, "sub": "subject-1", "aud": "auscult", "iat": now, "exp": now + 300, "nonce": nonce,
            "preferred_username": "nurse", "email": "nurse@clinic.example", "email_verified": true,
        })
    }
}

async fn describe(State(own): State<Arc<Provider>>) -> Json<Value> {
    let issuer = own.says_issuer.lock().unwrap().clone().unwrap_or_else(|| own.issuer.clone());
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{}/authorize", own.issuer),
        "token_endpoint": format!("{}/token", own.issuer),
        "jwks_uri": format!("{}/jwks", own.issuer),
        "userinfo_endpoint": format!("{}/userinfo", own.issuer),
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn token(State(own): State<Arc<Provider>>, body: String) -> Result<Json<Value>, StatusCode> {
    own.sent.lock().unwrap().push(body);
    let token = own.token.lock().unwrap().take().ok_or(StatusCode::BAD_REQUEST)?;
    Ok(Json(json!({"access_token": "x", "token_type": "Bearer", "id_token": token})))
}

async fn userinfo(State(own): State<Arc<Provider>>, headers: axum::http::HeaderMap) -> Json<Value> {
    assert_eq!(headers[header::AUTHORIZATION], "Bearer x");
    Json(own.says_more.lock().unwrap().clone())
}

fn settings(provider: &Provider) -> Value {
    json!({
        "name": "Clinic sign-in", "issuer": provider.issuer, "client_id": "auscult", "client_secret": "s",
        "enabled": true, "trusts_mfa": true, "mfa_values": ["mfa"],
    })
}

async fn configured(clinic: &Clinic, settings: Value) {
    let cookie = clinic.sign_in("administrator").await;
    let path = "/api/v1/identity-providers/settings/clinic";
    let answer = clinic.call(Method::PUT, path, Some(&cookie), Some(settings)).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert!(answer.body.get("client_secret").is_none());
}

fn location(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{:?}", answer.body);
    answer.headers[header::LOCATION].to_str().unwrap().to_owned()
}

fn cookie_called(answer: &Answer, name: &str) -> Option<String> {
    let lines = answer.headers.get_all(header::SET_COOKIE).into_iter();
    let mut pairs = lines.map(|line| line.to_str().unwrap().split(';').next().unwrap().to_owned());
    pairs.find(|pair| pair.starts_with(&format!("{name}=")) && !pair.ends_with('='))
}

/// A browser that was sent to the provider.
struct Sent {
    cookie: String,
    state: String,
    nonce: String,
}

async fn sent(clinic: &Clinic) -> Sent {
    let begun = clinic.call(Method::GET, "/api/v1/sign-in/oidc/clinic?next=/board", None, None).await;
    let to = location(&begun);
    assert_eq!(said(&to, "code_challenge_method").as_deref(), Some("S256"), "{to}");
    Sent {
        cookie: cookie_called(&begun, "auscult_oidc").unwrap(),
        state: said(&to, "state").unwrap(),
        nonce: said(&to, "nonce").unwrap(),
    }
}

async fn back(clinic: &Clinic, cookie: &str, query: &str) -> Answer {
    clinic.call(Method::GET, &format!("/api/v1/sign-in/oidc/callback?{query}"), Some(cookie), None).await
}

/// Goes there and back with claims that `change` altered.
async fn round(clinic: &Clinic, provider: &Provider, change: impl FnOnce(&mut Value)) -> Answer {
    let sent = sent(clinic).await;
    let mut claims = provider.claims(clinic, &sent.nonce);
    change(&mut claims);
    let token = provider.key.sign(&claims).unwrap().expose().to_owned();
    *provider.token.lock().unwrap() = Some(token);
    let query = format!("code=c&state={}&iss={}", sent.state, crate::oauth::encoded(&provider.issuer));
    back(clinic, &sent.cookie, &query).await
}

/// Adds somebody without a way in who is to come by the provider.
async fn awaited(clinic: &Clinic, name: &str) -> UserId {
    let id = clinic.invite(name, Role::Nurse).id;
    let answer = allowed(clinic, id, json!("clinic")).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_eq!(answer.body["awaited_provider"], "clinic");
    id
}

async fn allowed(clinic: &Clinic, id: UserId, provider: Value) -> Answer {
    let cookie = clinic.sign_in("administrator").await;
    let path = format!("/api/v1/users/{id}/awaited-provider");
    clinic.call(Method::PUT, &path, Some(&cookie), Some(json!({"provider": provider}))).await
}

/// A person as administrators see them.
async fn line(clinic: &Clinic, name: &str) -> Value {
    let cookie = clinic.sign_in("administrator").await;
    let users = clinic.get("/api/v1/users", &cookie).await.body;
    users["users"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone()
}

/// Comes as a subject who calls himself so, without a second factor there.
async fn come(clinic: &Clinic, provider: &Provider, subject: &str, name: &str) -> Answer {
    let claims = |claims: &mut Value| {
        claims["sub"] = json!(subject);
        claims["preferred_username"] = json!(name);
    };
    round(clinic, provider, claims).await
}

/// Signs in as people do without a provider, in the browser of an answer.
async fn as_always(clinic: &Clinic, before: &Answer, name: &str) -> Answer {
    clinic.clock.advance(30);
    let cookie = cookie_called(before, "auscult_session").unwrap();
    let half = clinic.post("/api/v1/sign-in", &cookie, json!({"name": name, "password": PASSWORD})).await;
    assert_eq!(half.body["state"], "second-factor-needed", "{:?}", half.body);
    let cookie = crate::clinic::cookie_of(&half);
    clinic.post("/api/v1/sign-in/totp", &cookie, json!({"code": clinic.code()})).await
}

fn rows_of_links(clinic: &Clinic) -> usize {
    let query = store::AuditQuery { limit: 500, ..store::AuditQuery::default() };
    let rows = clinic.site.store().audit_rows(&query).unwrap();
    rows.iter().filter(|row| row.record.detail.contains("of the identity provider")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_of_a_provider_takes_nobody_over_at_their_next_reset() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    let refused = |answer: &Answer| assert!(location(answer).contains("error=not-known"));
    let evil = come(&clinic, &provider, "evil-subject", "physician").await;
    let session = state_after(&clinic, &evil).await;
    assert_eq!((&session["state"], &session["second_factors"]), (&json!("signed-out"), &json!([])));
    assert_eq!(session["linking"], json!({"issuer": provider.issuer, "subject": "evil-subject"}));
    assert_eq!(line(&clinic, "physician").await["provider_links"], json!([]), "nothing is kept of it");

    // The true physician comes after all, and it is their own proof that links them.
    let true_one = come(&clinic, &provider, "true-subject", "physician").await;
    assert_eq!(state_after(&clinic, &true_one).await["state"], "signed-out");
    assert_eq!(rows_of_links(&clinic), 0);
    let whole = as_always(&clinic, &true_one, "physician").await;
    assert_eq!((&whole.body["state"], &whole.body["linking"]), (&json!("signed-in"), &Value::Null));
    assert_eq!(rows_of_links(&clinic), 1);
    let known = line(&clinic, "physician").await;
    assert_eq!(known["provider_links"][0]["subject"], "true-subject");
    let cookie = crate::clinic::cookie_of(&whole);
    let own = clinic.get("/api/v1/account", &cookie).await.body;
    assert_eq!(own["provider_links"], known["provider_links"], "whoever it is sees it");
    refused(&come(&clinic, &provider, "evil-subject", "physician").await);
    // Now that they have proven themself once, the provider's own second factor counts.
    let trusted = round(&clinic, &provider, |claims| {
        claims["sub"] = json!("true-subject");
        claims["amr"] = json!(["mfa"]);
    });
    assert_eq!(state_after(&clinic, &trusted.await).await["state"], "signed-in");

    let administrator = clinic.sign_in("administrator").await;
    let path = format!("/api/v1/users/{}/reset", known["id"].as_str().unwrap());
    let reset = clinic.post(&path, &administrator, Value::Null).await;
    assert_eq!(reset.body["user"]["provider_links"], json!([]), "{:?}", reset.body);
    for subject in ["evil-subject", "true-subject"] {
        refused(&come(&clinic, &provider, subject, "physician").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_is_invited_or_half_enrolled_is_linked_by_name() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    let id = clinic.invite("new nurse", Role::Nurse).id;
    let refused = |answer: &Answer| assert!(location(answer).contains("error=not-known"));
    refused(&come(&clinic, &provider, "a", "new nurse").await);
    clinic.web.reset_user(store::Actor::System, id).unwrap();
    refused(&come(&clinic, &provider, "a", "new nurse").await);
    // Allowed by an administrator, who thereby withdraws the invitation; only by a provider that is there.
    assert_eq!(allowed(&clinic, id, json!("other")).await.status, StatusCode::NOT_FOUND);
    assert!(line(&clinic, "new nurse").await["invitation_expires_at"].is_string());
    assert_eq!(allowed(&clinic, id, json!("clinic")).await.status, StatusCode::OK);
    assert!(line(&clinic, "new nurse").await["invitation_expires_at"].is_null());
    let half = come(&clinic, &provider, "a", "new nurse").await;
    assert_eq!(state_after(&clinic, &half).await["state"], "enrolment-needed");
    let linked = line(&clinic, "new nurse").await;
    assert_eq!(linked["provider_links"][0]["subject"], "a", "the first who comes, at once");
    assert_eq!(linked["awaited_provider"], Value::Null);
    refused(&come(&clinic, &provider, "b", "new nurse").await);
    // Taken back before anybody came.
    let other = clinic.invite("other nurse", Role::Nurse).id;
    assert_eq!(allowed(&clinic, other, json!("clinic")).await.status, StatusCode::OK);
    assert_eq!(allowed(&clinic, other, Value::Null).await.body["awaited_provider"], Value::Null);
    refused(&come(&clinic, &provider, "c", "other nurse").await);
    // Nobody is let in by name who has a way in to prove themself by.
    let physician = clinic.web.user_named("physician").unwrap().id;
    assert_eq!(allowed(&clinic, physician, json!("clinic")).await.status, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_awaited_from_a_provider_that_was_removed() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    awaited(&clinic, "new nurse").await;
    let cookie = clinic.sign_in("administrator").await;
    let path = "/api/v1/identity-providers/settings/clinic";
    let removed = clinic.call(Method::DELETE, path, Some(&cookie), None).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    assert_eq!(line(&clinic, "new nurse").await["awaited_provider"], Value::Null);
    configured(&clinic, settings(&provider)).await;
    let answer = come(&clinic, &provider, "x", "new nurse").await;
    assert!(location(&answer).contains("error=not-known"), "another provider of the same id");
}

/// A session that had still to make the way in complete changed it after somebody else had completed it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_still_enrolling_is_out_once_the_way_in_is_complete() {
    let clinic = Clinic::furnished();
    let id = clinic.invite("new nurse", Role::Nurse).id;
    let ways = Ways { password: Some(PASSWORD), ..Ways::default() };
    clinic.web.equip(store::Actor::System, id, ways).unwrap();
    let enrolling = async || {
        let body = json!({"name": "new nurse", "password": PASSWORD});
        let answer = clinic.call(Method::POST, "/api/v1/sign-in", None, Some(body)).await;
        assert_eq!(answer.body["state"], "enrolment-needed");
        crate::clinic::cookie_of(&answer)
    };
    let (first, second) = (enrolling().await, enrolling().await);
    // The person is complete in the store, as another node would make them: the session itself still stands.
    let totp = Some(trust::totp::TotpSecret::from_bytes([9; trust::totp::SECRET_LEN]));
    clinic.web.equip(store::Actor::System, id, Ways { totp, ..Ways::default() }).unwrap();
    let body = json!({"password": "a whole other long sentence"});
    for cookie in [&first, &second] {
        let path = "/api/v1/account/password";
        let answer = clinic.call(Method::PUT, path, Some(cookie), Some(body.clone())).await;
        assert_eq!((answer.status, &answer.body["code"]), (StatusCode::UNAUTHORIZED, &json!("signed-out")));
        assert_eq!(clinic.get("/api/v1/account", cookie).await.status, StatusCode::UNAUTHORIZED);
    }
    let body = json!({"name": "new nurse", "password": PASSWORD});
    let answer = clinic.call(Method::POST, "/api/v1/sign-in", None, Some(body)).await;
    assert_eq!(answer.body["state"], "second-factor-needed", "the password is what it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_provider_goes_with_whoever_is_disabled_and_by_hand() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    let whole = as_always(&clinic, &come(&clinic, &provider, "n", "nurse").await, "nurse").await;
    let cookie = crate::clinic::cookie_of(&whole);
    let user = line(&clinic, "nurse").await;
    let (id, link) = (user["id"].as_str().unwrap(), user["provider_links"][0]["id"].as_str().unwrap());
    let administrator = clinic.sign_in("administrator").await;
    let path = |link: &str| format!("/api/v1/users/{id}/provider-links/{link}");
    let unknown = clinic.call(Method::DELETE, &path("00"), Some(&administrator), None).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let removed = clinic.call(Method::DELETE, &path(link), Some(&administrator), None).await;
    assert_eq!((removed.status, &removed.body["provider_links"]), (StatusCode::OK, &json!([])));
    assert_eq!(clinic.get("/api/v1/account", &cookie).await.status, StatusCode::UNAUTHORIZED, "out at once");

    as_always(&clinic, &come(&clinic, &provider, "n", "nurse").await, "nurse").await;
    let user = line(&clinic, "nurse").await;
    assert_eq!(user["provider_links"][0]["subject"], "n", "linked again, by their own proof");
    let change = |disabled: bool, version: &Value| json!({"display": "N", "role": "nurse", "wards": null, "disabled": disabled, "version": version});
    let path = format!("/api/v1/users/{id}");
    let body = change(true, &user["version"]);
    let disabled = clinic.call(Method::PUT, &path, Some(&administrator), Some(body)).await;
    assert_eq!((disabled.status, &disabled.body["provider_links"]), (StatusCode::OK, &json!([])));
    assert!(location(&come(&clinic, &provider, "n", "nurse").await).contains("error=not-known"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_begins_to_sign_in_at_a_provider_leaves_nothing_here() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    let kept = || {
        let all = [Kind::Session, Kind::IdentityProvider, Kind::User];
        all.map(|kind| {
            clinic.site.store().documents(&pipeline::records::all_of(kind, None, 500)).unwrap().len()
        })
    };
    let before = kept();
    for _ in 0..50 {
        sent(&clinic).await;
    }
    assert_eq!(kept(), before, "so that nobody fills a list and keeps others out");
}

/// The state of the session that an answer began.
async fn state_after(clinic: &Clinic, answer: &Answer) -> Value {
    let cookie = cookie_called(answer, "auscult_session").unwrap_or_default();
    clinic.get("/api/v1/session", &cookie).await.body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_comes_in_by_the_provider_as_far_as_its_second_factor_is_trusted() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    let buttons = clinic.call(Method::GET, "/api/v1/identity-providers", None, None).await;
    assert_eq!(buttons.body, json!({"providers": [{"id": "clinic", "name": "Clinic sign-in"}]}));

    awaited(&clinic, "new nurse").await;
    let whole = round(&clinic, &provider, |claims| {
        claims["sub"] = json!("subject-0");
        claims["preferred_username"] = json!("new nurse");
        claims["amr"] = json!(["pwd", "mfa"]);
    });
    let whole = whole.await;
    assert_eq!(location(&whole), "/board");
    let session = state_after(&clinic, &whole).await;
    assert_eq!((&session["state"], &session["user"]["name"]), (&json!("signed-in"), &json!("new nurse")));
    let form = provider.sent.lock().unwrap().pop().unwrap();
    assert!(form.contains("code_verifier="), "{form}");

    let first = round(&clinic, &provider, |claims| claims["amr"] = json!(["pwd"])).await;
    as_always(&clinic, &first, "nurse").await;
    clinic.clock.advance(30);
    let half = round(&clinic, &provider, |claims| claims["amr"] = json!(["pwd"])).await;
    assert_eq!(state_after(&clinic, &half).await["state"], "second-factor-needed");
    let cookie = cookie_called(&half, "auscult_session").unwrap();
    let done = clinic.post("/api/v1/sign-in/totp", &cookie, json!({"code": clinic.code()})).await;
    let sessions = clinic.get("/api/v1/account/sessions", &crate::clinic::cookie_of(&done)).await.body;
    let current =
        sessions["sessions"].as_array().unwrap().iter().find(|one| one["is_current"] == true).unwrap();
    assert_eq!(current["signed_in_by"], "provider", "also after our second factor");
    // From the first time on it is the subject that counts, not the name, which the provider may give to somebody else.
    let renamed =
        round(&clinic, &provider, |claims| claims["preferred_username"] = json!("administrator")).await;
    assert_ne!(state_after(&clinic, &renamed).await["state"], "signed-out");
    let successor = round(&clinic, &provider, |claims| claims["sub"] = json!("subject-2")).await;
    assert!(location(&successor).contains("error=not-known"), "a name that was given anew");
    let stranger = round(&clinic, &provider, |claims| {
        claims["sub"] = json!("subject-3");
        claims["preferred_username"] = json!("nobody");
    });
    assert!(location(&stranger.await).contains("error=not-known"));
}

/// Whoever can choose a name at the provider could otherwise become the administrator by being the first with that name.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_at_the_provider_alone_never_takes_over_somebody_with_ways_in_of_their_own() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    for _ in 0..2 {
        let taken = round(&clinic, &provider, |claims| {
            claims["preferred_username"] = json!("administrator");
            claims["amr"] = json!(["mfa"]);
        });
        assert_eq!(state_after(&clinic, &taken.await).await["state"], "signed-out");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_says_is_believed_only_where_all_of_it_is_right() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    let now = clinic.site.clock().now().as_seconds();
    let cases: [(&str, Value, &str); 9] = [
        ("nonce", json!("another"), "not-believed"),
        ("nonce", Value::Null, "not-believed"),
        ("aud", json!("somebody else"), "not-believed"),
        ("aud", json!(["auscult", "somebody else"]), "not-believed"),
        ("azp", json!("somebody else"), "not-believed"),
        ("iss", json!("https://evil.example"), "not-believed"),
        ("exp", json!(now - 3_600), "not-believed"),
        ("iat", json!(now + 3_600), "not-believed"),
        ("sub", json!(""), "not-known"),
    ];
    for (claim, value, error) in cases {
        let answer = round(&clinic, &provider, |claims| claims[claim] = value).await;
        assert!(location(&answer).contains(&format!("error={error}")), "{claim}: {}", location(&answer));
        assert!(cookie_called(&answer, "auscult_session").is_none(), "{claim}");
    }
    let forger = SigningKey::generate().unwrap();
    let begun = sent(&clinic).await;
    let token = forger.sign(&provider.claims(&clinic, &begun.nonce)).unwrap();
    *provider.token.lock().unwrap() = Some(token.expose().to_owned());
    let query = format!("code=c&state={}&iss={}", begun.state, crate::oauth::encoded(&provider.issuer));
    assert!(
        location(&back(&clinic, &begun.cookie, &query).await).contains("error=not-believed"),
        "another key"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_counts_once_in_the_browser_that_asked_and_by_whom_it_asked() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    let give = |nonce: &str| {
        let token = provider.key.sign(&provider.claims(&clinic, nonce)).unwrap().expose().to_owned();
        *provider.token.lock().unwrap() = Some(token);
    };
    let issuer = crate::oauth::encoded(&provider.issuer);
    let begun = sent(&clinic).await;
    give(&begun.nonce);
    let query = format!("code=c&state={}&iss={issuer}", begun.state);
    // Somebody who is led to the callback with an attacker's code is not signed in as the attacker.
    for cookie in ["", "auscult_oidc=x", &sent(&clinic).await.cookie] {
        let answer = back(&clinic, cookie, &query).await;
        assert!(location(&answer).contains("error=not-begun"), "{cookie}");
    }
    assert_eq!(location(&back(&clinic, &begun.cookie, &query).await), "/board", "its own browser still may");
    give(&begun.nonce);
    let again = back(&clinic, &begun.cookie, &query).await;
    assert!(location(&again).contains("error=not-begun"), "replayed");
    for (what, iss) in
        [("no issuer", String::new()), ("another issuer", "&iss=https%3A%2F%2Fevil.example".to_owned())]
    {
        let begun = sent(&clinic).await;
        give(&begun.nonce);
        let answer = back(&clinic, &begun.cookie, &format!("code=c&state={}{iss}", begun.state)).await;
        assert!(location(&answer).contains("error=not-believed"), "{what}");
    }
    let begun = sent(&clinic).await;
    clinic.clock.advance(601);
    let late = back(&clinic, &begun.cookie, &format!("code=c&state={}&iss={issuer}", begun.state)).await;
    assert!(location(&late).contains("error=not-begun"), "too late");
    let begun = sent(&clinic).await;
    let refused = format!("error=access_denied&state={}&iss={issuer}", begun.state);
    assert!(location(&back(&clinic, &begun.cookie, &refused).await).contains("error=refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_never_leads_to_another_site() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    for next in
        ["//evil.example", "https://evil.example", "/%5Cevil.example", "%2F%2Fevil.example", "/a%0d%0aX:y"]
    {
        let begun =
            clinic.call(Method::GET, &format!("/api/v1/sign-in/oidc/clinic?next={next}"), None, None).await;
        let to = location(&begun);
        let (state, nonce) = (said(&to, "state").unwrap(), said(&to, "nonce").unwrap());
        let token = provider.key.sign(&provider.claims(&clinic, &nonce)).unwrap().expose().to_owned();
        *provider.token.lock().unwrap() = Some(token);
        let query = format!("code=c&state={state}&iss={}", crate::oauth::encoded(&provider.issuer));
        let cookie = cookie_called(&begun, "auscult_oidc").unwrap();
        assert_eq!(location(&back(&clinic, &cookie, &query).await), "/", "{next}");
    }
    let unknown = clinic.call(Method::GET, "/api/v1/sign-in/oidc/other?next=/board", None, None).await;
    assert!(location(&unknown).starts_with("/sign-in#error=unknown-provider"));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_people_come_with_the_role_of_a_rule_or_not_at_all() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    let mut wanted = settings(&provider);
    wanted["provisioning"] = json!("just-in-time");
    wanted["role_claim"] = json!("groups");
    wanted["roles"] = json!([{"value": "icu", "role": "nurse", "wards": [ward(1)]}]);
    wanted["allowed_domains"] = json!(["clinic.example"]);
    configured(&clinic, wanted.clone()).await;
    let come = |name: &'static str, groups: Value, verified: bool| {
        let (clinic, provider) = (&clinic, &provider);
        async move {
            let answer = round(clinic, provider, |claims| {
                claims["sub"] = json!(name);
                claims["preferred_username"] = json!(name);
                claims["groups"] = groups;
                claims["email_verified"] = json!(verified);
                claims["amr"] = json!(["mfa"]);
            });
            answer.await
        }
    };
    let new = come("new nurse", json!(["x", "icu"]), true).await;
    let session = state_after(&clinic, &new).await;
    assert_eq!((&session["state"], &session["user"]["role"]), (&json!("signed-in"), &json!("nurse")));
    assert_eq!(session["user"]["wards"], json!([ward(1)]));
    for (name, groups, verified) in
        [("without", json!([]), true), ("other", json!("admins"), true), ("forged", json!(["icu"]), false)]
    {
        let answer = come(name, groups, verified).await;
        assert!(location(&answer).contains("error=not-known"), "{name}");
    }
    let cookie = clinic.sign_in("administrator").await;
    let path = "/api/v1/identity-providers/settings/second";
    for (name, value) in [
        ("roles", json!([{"value": "x", "role": "administrator", "wards": null}])),
        ("issuer", json!("http://169.254.169.254")),
        ("issuer", json!("file:///etc/passwd")),
        ("scopes", json!("profile")),
        ("role_claim", Value::Null),
        ("surprise", json!(1)),
    ] {
        let mut bad = wanted.clone();
        bad[name] = value;
        let answer = clinic.call(Method::PUT, path, Some(&cookie), Some(bad)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}");
    }
    for role in Role::ALL.iter().filter(|role| **role != Role::Administrator) {
        let cookie = clinic.sign_in(&crate::clinic::name_of(*role)).await;
        let answer = clinic.call(Method::PUT, path, Some(&cookie), Some(wanted.clone())).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{role:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_calls_itself_another_is_not_asked() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    *provider.says_issuer.lock().unwrap() = Some("https://id.example.org".to_owned());
    let begun = clinic.call(Method::GET, "/api/v1/sign-in/oidc/clinic", None, None).await;
    assert!(location(&begun).starts_with("/sign-in#error=provider-failed"), "{}", location(&begun));
    // A kept secret does not go along to another address.
    let cookie = clinic.sign_in("administrator").await;
    let path = "/api/v1/identity-providers/settings/clinic";
    let mut moved = settings(&provider);
    moved["issuer"] = json!("https://evil.example");
    moved["version"] = json!(1);
    moved.as_object_mut().unwrap().remove("client_secret");
    let answer = clinic.call(Method::PUT, path, Some(&cookie), Some(moved)).await;
    assert_eq!((answer.status, &answer.body["has_secret"]), (StatusCode::OK, &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_stands_beside_the_id_token_counts_for_its_subject_only() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    awaited(&clinic, "new nurse").await;
    let without_name = |claims: &mut Value| {
        claims.as_object_mut().unwrap().remove("preferred_username");
        claims["amr"] = json!(["mfa"]);
    };
    *provider.says_more.lock().unwrap() = json!({"sub": "another", "preferred_username": "administrator"});
    let answer = round(&clinic, &provider, without_name).await;
    assert!(location(&answer).contains("error=provider-failed"), "{}", location(&answer));
    *provider.says_more.lock().unwrap() =
        json!({"sub": "subject-1", "preferred_username": "new nurse", "amr": ["mfa"], "nonce": "x"});
    let answer = round(&clinic, &provider, without_name).await;
    assert_eq!(state_after(&clinic, &answer).await["user"]["name"], "new nurse");
    // What the token says stands, and a second factor is read from the token alone.
    *provider.says_more.lock().unwrap() =
        json!({"sub": "subject-4", "preferred_username": "physician", "amr": ["mfa"]});
    let answer = round(&clinic, &provider, |claims| {
        without_name(claims);
        claims["sub"] = json!("subject-4");
        claims.as_object_mut().unwrap().remove("amr");
    });
    assert_eq!(state_after(&clinic, &answer.await).await["linking"]["subject"], "subject-4");
}
