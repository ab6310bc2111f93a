//! Programs that people let in, and programs that act by themselves: what they get, and every way in which others have been
//! tricked before.

mod abuse;
mod launch;
mod services;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use trust::digest::Sha256;
use trust::jwt::SigningKey;

use crate::clinic::{Answer, Clinic, patient};

pub const REDIRECT: &str = "https://app.example.org/callback";
pub const VERIFIER: &str = "the-verifier-of-these-tests-has-enough-characters-0";
pub const BASE: &str = "http://localhost/fhir";
/// The path to the token endpoint.
pub const TOKEN: &str = "/oauth2/token";

/// Percent-encodes a value.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Parameters as forms and queries write them.
pub fn form(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&")
}

/// What an address says under a name.
pub fn said(address: &str, name: &str) -> Option<String> {
    let (_, query) = address.split_once('?')?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")))?;
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

pub fn challenge(verifier: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(verifier.as_bytes());
    URL_SAFE_NO_PAD.encode(digest.finish())
}

impl Clinic {
    /// Registers a program; its client id.
    pub async fn register(&self, mut registration: Value) -> String {
        // Who may see charts registers services; an integrator registers the others.
        let by = if registration["kind"] == "service" { "administrator" } else { "integrator" };
        let cookie = self.sign_in(by).await;
        // Each has a name of its own: the second of a test is told by its number.
        let known = self.get("/api/v1/clients", &cookie).await.body["clients"].as_array().unwrap().clone();
        if known.iter().any(|one| one["name"] == registration["name"]) {
            registration["name"] =
                format!("{} {}", registration["name"].as_str().unwrap(), known.len()).into();
        }
        let answer = self.post("/api/v1/clients", &cookie, registration).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
        answer.body["id"].as_str().unwrap().to_owned()
    }

    /// Registers a public app.
    pub async fn register_app(&self, scopes: &str) -> String {
        let new = json!({"name": "Trend app", "kind": "app", "redirect_uris": [REDIRECT], "scopes": scopes});
        self.register(new).await
    }

    /// Registers a service with a key of its own.
    pub async fn register_service(&self, scopes: &str) -> (String, SigningKey) {
        let key = SigningKey::generate().unwrap();
        let jwks = json!({"keys": [key.to_jwk()]});
        let new = json!({"name": "Population service", "kind": "service", "scopes": scopes, "jwks": jwks});
        (self.register(new).await, key)
    }

    /// Sends a form to a protocol endpoint.
    pub async fn form(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form(parameters)))
            .unwrap();
        self.send(request).await
    }

    /// Asks the FHIR interface with a token.
    pub async fn with_token(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/fhir+json");
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    pub async fn read(&self, path: &str, token: &str) -> Answer {
        self.with_token(Method::GET, path, token, None).await
    }

    /// The decision of a signed-in person on a request.
    pub async fn decide(&self, cookie: &str, query: &str, patient: Option<u8>) -> Answer {
        let patient = patient.map(|number| crate::clinic::patient(number).to_string());
        self.post("/api/v1/authorize", cookie, json!({"query": query, "approve": true, "patient": patient}))
            .await
    }

    /// A code for an app that a person lets in for a patient.
    pub async fn code_for(&self, cookie: &str, client: &str, scopes: &str, patient: Option<u8>) -> String {
        let answer = self.decide(cookie, &asking(client, scopes), patient).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let to = answer.body["redirect_to"].as_str().unwrap();
        said(to, "code").unwrap_or_else(|| panic!("no code in {to}"))
    }

    /// What a code gives.
    pub async fn redeem(&self, client: &str, code: &str) -> Answer {
        self.form(TOKEN, &redeeming(client, code)).await
    }

    /// An app that a nurse let in for patient 1: what the token endpoint answered, and her cookie.
    pub async fn let_in(&self, client: &str, scopes: &str) -> (Value, String) {
        let cookie = self.sign_in("nurse").await;
        let code = self.code_for(&cookie, client, scopes, Some(1)).await;
        let answer = self.redeem(client, &code).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        (answer.body, cookie)
    }

    /// Asks whether a token reads the patient's Observations.
    pub async fn is_good(&self, token: &Value) -> bool {
        let path = format!("/fhir/Observation?patient={}", patient(1));
        self.read(&path, token.as_str().unwrap()).await.status == StatusCode::OK
    }
}

/// A good authorisation request.
pub fn asked<'a>(client: &'a str, scopes: &'a str, challenge: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", REDIRECT),
        ("scope", scopes),
        ("state", "a state & more"),
        ("aud", BASE),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
    ]
}

pub fn asking(client: &str, scopes: &str) -> String {
    form(&asked(client, scopes, &challenge(VERIFIER)))
}

pub fn redeeming<'a>(client: &'a str, code: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("client_id", client),
        ("code_verifier", VERIFIER),
    ]
}
