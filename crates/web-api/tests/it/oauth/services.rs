//! SMART Backend Services: a program proves itself with a signed assertion, each of which is good once.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use trust::jwt::SigningKey;

use super::{REDIRECT, TOKEN};
use crate::clinic::{Answer, Clinic, monitor, patient};

const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn claims(clinic: &Clinic, client: &str, jti: &str) -> Value {
    let now = clinic.site.clock().now().as_seconds();
    json!({"iss": client, "sub": client, "aud": "http://localhost/oauth2/token", "exp": now + 120, "jti": jti})
}

async fn ask(clinic: &Clinic, key: &SigningKey, claims: &Value, scopes: &str) -> Answer {
    let assertion = key.sign(claims).unwrap();
    let sent = [
        ("grant_type", "client_credentials"),
        ("scope", scopes),
        ("client_assertion_type", KIND),
        ("client_assertion", assertion.expose()),
    ];
    clinic.form(TOKEN, &sent).await
}

impl Clinic {
    /// An access token of a new service that is registered for these scopes.
    pub async fn service_token(&self, scopes: &str) -> String {
        let (client, key) = self.register_service(scopes).await;
        let answer = ask(self, &key, &claims(self, &client, "first"), scopes).await;
        assert_eq!(answer.body["scope"], scopes, "{:?}", answer.body);
        answer.body["access_token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_reads_what_its_scopes_reach_until_it_is_disabled() {
    let clinic = Clinic::furnished();
    clinic.ingest(monitor(1), r#"[{"measure":"heart_rate","value":71}]"#).await;
    let (client, key) = clinic.register_service("system/Observation.rs system/Patient.r").await;
    let asked = "system/Observation.rs system/Patient.rs system/Device.rs user/*.rs";
    let answer = ask(&clinic, &key, &claims(&clinic, &client, "1"), asked).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_eq!(answer.body["scope"], "system/Observation.rs system/Patient.r");
    assert!(answer.body.get("refresh_token").is_none());
    let token = answer.body["access_token"].as_str().unwrap();
    let found = clinic.read("/fhir/Observation?code=8867-4", token).await;
    assert_eq!(found.body["entry"].as_array().map(Vec::len), Some(1), "{:?}", found.body);
    assert_eq!(clinic.read(&format!("/fhir/Patient/{}", patient(2)), token).await.status, StatusCode::OK);
    assert_eq!(
        clinic.read("/fhir/Patient", token).await.status,
        StatusCode::FORBIDDEN,
        "search was not granted"
    );
    assert_eq!(clinic.read("/fhir/Device", token).await.status, StatusCode::FORBIDDEN);
    let post = clinic.with_token(Method::POST, "/fhir/Observation", token, Some(json!({}))).await;
    assert_eq!(post.status, StatusCode::FORBIDDEN);

    let cookie = clinic.sign_in("administrator").await;
    let path = format!("/api/v1/clients/{client}");
    let known = clinic.get(&path, &cookie).await.body;
    assert_eq!(known["is_confidential"], true);
    let changed = json!({
        "name": known["name"], "kind": "service", "scopes": known["scopes"], "jwks": known["jwks"],
        "disabled": true, "version": known["version"],
    });
    let stale = {
        let mut stale = changed.clone();
        stale["version"] = json!(99);
        clinic.call(Method::PUT, &path, Some(&cookie), Some(stale)).await
    };
    assert_eq!(stale.status, StatusCode::CONFLICT);
    assert_eq!(clinic.call(Method::PUT, &path, Some(&cookie), Some(changed)).await.status, StatusCode::OK);
    assert_eq!(clinic.read("/fhir/Observation?code=8867-4", token).await.status, StatusCode::UNAUTHORIZED);
    let again = ask(&clinic, &key, &claims(&clinic, &client, "2"), asked).await;
    assert_eq!((again.status, &again.body["error"]), (StatusCode::UNAUTHORIZED, &json!("invalid_client")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_is_believed_once_and_only_where_all_of_it_is_right() {
    let clinic = Clinic::furnished();
    let (client, key) = clinic.register_service("system/*.rs").await;
    let (other, _) = clinic.register_service("system/*.rs").await;
    let good = claims(&clinic, &client, "once");
    assert_eq!(ask(&clinic, &key, &good, "system/*.rs").await.status, StatusCode::OK);
    let replayed = ask(&clinic, &key, &good, "system/*.rs").await;
    assert_eq!(replayed.body["error"], "invalid_client", "replayed");
    let now = clinic.site.clock().now().as_seconds();
    type Change = Box<dyn Fn(&mut Value)>;
    let set =
        |name: &'static str, value: Value| -> Change { Box::new(move |claims| claims[name] = value.clone()) };
    let gone = |name: &'static str| -> Change {
        Box::new(move |claims| drop(claims.as_object_mut().unwrap().remove(name)))
    };
    let cases: Vec<(&str, Change)> = vec![
        ("another audience", set("aud", json!("https://evil.example/oauth2/token"))),
        ("the FHIR interface as audience", set("aud", json!("http://localhost/fhir"))),
        ("too long", set("exp", json!(now + 3_600))),
        ("over", set("exp", json!(now - 60))),
        ("no end", gone("exp")),
        ("not yet", set("nbf", json!(now + 60))),
        ("another subject", set("sub", json!(other))),
        ("somebody else's name", set("iss", json!(other))),
        ("no jti", gone("jti")),
        ("an empty jti", set("jti", json!(""))),
        ("a long jti", set("jti", json!("j".repeat(300)))),
        ("a jti that is no text", set("jti", json!(1))),
    ];
    for (number, (what, change)) in cases.into_iter().enumerate() {
        let mut changed = claims(&clinic, &client, &format!("case {number}"));
        change(&mut changed);
        let answer = ask(&clinic, &key, &changed, "system/*.rs").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}: {:?}", answer.body);
        assert_eq!(answer.body["error"], "invalid_client", "{what}");
    }
    let stranger = SigningKey::generate().unwrap();
    let forged = ask(&clinic, &stranger, &claims(&clinic, &client, "forged"), "system/*.rs").await;
    let unknown = ask(&clinic, &stranger, &claims(&clinic, &"0".repeat(32), "unknown"), "system/*.rs").await;
    assert_eq!(forged.body, unknown.body, "a wrong key and an unknown program are answered alike");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_gets_no_more_than_it_is_registered_for() {
    let clinic = Clinic::furnished();
    let (client, key) = clinic.register_service("system/Observation.r").await;
    for (number, scopes) in ["system/*.cruds", "system/Patient.r", "user/*.rs", "patient/*.rs", "openid", "x"]
        .into_iter()
        .enumerate()
    {
        let answer = ask(&clinic, &key, &claims(&clinic, &client, &number.to_string()), scopes).await;
        match scopes {
            "system/*.cruds" => assert_eq!(answer.body["scope"], "system/Observation.r"),
            _ => assert_eq!(answer.body["error"], "invalid_scope", "{scopes}: {:?}", answer.body),
        }
    }
    // Its name alone is nothing; a secret is nothing; an app does not act by itself.
    let bare =
        [("grant_type", "client_credentials"), ("scope", "system/*.rs"), ("client_id", client.as_str())];
    assert_eq!(clinic.form(TOKEN, &bare).await.body["error"], "invalid_client");
    let secret = [&bare[..], &[("client_secret", "x")]].concat();
    assert_eq!(clinic.form(TOKEN, &secret).await.body["error"], "invalid_client");
    let app = clinic.register_app("user/*.rs").await;
    let sent = [("grant_type", "client_credentials"), ("scope", "user/*.rs"), ("client_id", app.as_str())];
    assert_eq!(clinic.form(TOKEN, &sent).await.body["error"], "unauthorized_client");
    let password =
        [("grant_type", "password"), ("username", "nurse"), ("password", "x"), ("client_id", app.as_str())];
    assert_eq!(clinic.form(TOKEN, &password).await.body["error"], "unsupported_grant_type");
    let query = clinic.form(&format!("{TOKEN}?grant_type=client_credentials"), &sent).await;
    assert_eq!(query.body["error"], "invalid_request", "nothing is taken from the address");
    let doubled = [&sent[..], &[("scope", "user/*.cruds")]].concat();
    assert_eq!(clinic.form(TOKEN, &doubled).await.body["error"], "invalid_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_with_a_key_must_prove_itself_with_it() {
    let clinic = Clinic::furnished();
    let key = SigningKey::generate().unwrap();
    let jwks = json!({"keys": [key.to_jwk()]});
    let new = json!({
        "name": "Clinic app", "kind": "app", "redirect_uris": [REDIRECT], "jwks": jwks,
        "scopes": "user/*.rs offline_access",
    });
    let client = clinic.register(new).await;
    let cookie = clinic.sign_in("nurse").await;
    let code = clinic.code_for(&cookie, &client, "user/*.rs offline_access", None).await;
    assert_eq!(clinic.redeem(&client, &code).await.body["error"], "invalid_client");
    let assertion = key.sign(&claims(&clinic, &client, "1")).unwrap();
    let mut sent = super::redeeming(&client, &code);
    sent.extend([("client_assertion_type", KIND), ("client_assertion", assertion.expose())]);
    let answer = clinic.form(TOKEN, &sent).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let refresh_token = answer.body["refresh_token"].as_str().unwrap();
    let nameless = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
    assert_eq!(clinic.form(TOKEN, &nameless).await.body["error"], "invalid_client", "not without its key");
}
