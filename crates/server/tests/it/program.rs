//! Programs that act for a person or for themselves, from outside: what they register, ask for and are given.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use serde_json::{Value, json};
use trust::jwt::SigningKey;

use crate::person::Person;

const REDIRECT: &str = "https://app.example.org/callback";
/// The verifier of every app of these tests (RFC 7636 §4.1).
pub const VERIFIER: &str = "the-verifier-of-these-tests-has-enough-characters-0";
/// The name under which a service knows every node: the nodes of a site answer to one name.
const HOST: &str = "localhost";

/// Parameters as forms and queries write them.
fn form(parameters: &[(&str, &str)]) -> String {
    let encoded = |text: &str| {
        let kept = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        let one = |byte: u8| if kept(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        text.bytes().map(one).collect::<String>()
    };
    let pairs: Vec<_> =
        parameters.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&")
}

/// Asks the token endpoint of a node.
pub async fn ask(node: &str, parameters: &[(&str, &str)]) -> (StatusCode, Value) {
    let sent = reqwest::Client::new().post(format!("{node}/oauth2/token")).header("host", HOST);
    let sent = sent.header("content-type", "application/x-www-form-urlencoded").body(form(parameters));
    let answer = sent.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// What the FHIR interface of a node says to a token.
pub async fn reads(node: &str, path: &str, token: &str) -> StatusCode {
    reqwest::Client::new().get(format!("{node}{path}")).bearer_auth(token).send().await.unwrap().status()
}

/// A public app that people let in.
pub struct App {
    /// Its client id.
    pub id: String,
}

impl App {
    /// Registered by somebody who may.
    pub async fn register(by: &Person, node: &str, scopes: &str) -> Self {
        let new = json!({"name": "Trend app", "kind": "app", "redirect_uris": [REDIRECT], "scopes": scopes});
        let said = by.does(node, "/api/v1/clients", new).await;
        App { id: said["id"].as_str().unwrap().to_owned() }
    }

    /// The code that it gets when a person lets it in for a patient.
    pub async fn code_for(&self, person: &Person, node: &str, scopes: &str, patient: &str) -> String {
        let mut digest = trust::digest::Sha256::new();
        digest.update(VERIFIER.as_bytes());
        let challenge = URL_SAFE_NO_PAD.encode(digest.finish());
        let query = form(&[
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", REDIRECT),
            ("scope", scopes),
            ("state", "a state"),
            ("aud", &format!("{node}/fhir")),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let body = json!({"query": query, "approve": true, "patient": patient});
        let said = person.does(node, "/api/v1/authorize", body).await;
        let to = said["redirect_to"].as_str().unwrap();
        let code = to.split("code=").nth(1).unwrap_or_else(|| panic!("no code in {to}"));
        code.split('&').next().unwrap().to_owned()
    }

    /// What a code gives at a node.
    pub async fn redeem(&self, node: &str, code: &str) -> (StatusCode, Value) {
        let sent = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("client_id", &self.id),
            ("code_verifier", VERIFIER),
        ];
        ask(node, &sent).await
    }

    /// What a refresh token gives at a node.
    pub async fn refresh(&self, node: &str, token: &str) -> (StatusCode, Value) {
        let sent = [("grant_type", "refresh_token"), ("client_id", &self.id), ("refresh_token", token)];
        ask(node, &sent).await
    }
}

/// A program that acts by itself and proves itself with assertions.
pub struct Service {
    id: String,
    key: SigningKey,
}

impl Service {
    /// Registered by somebody who may, with a key of its own.
    pub async fn register(by: &Person, node: &str, scopes: &str) -> Self {
        let key = SigningKey::generate().unwrap();
        let jwks = json!({"keys": [key.to_jwk()]});
        let new = json!({"name": "Population service", "kind": "service", "scopes": scopes, "jwks": jwks});
        let said = by.does(node, "/api/v1/clients", new).await;
        Service { id: said["id"].as_str().unwrap().to_owned(), key }
    }

    /// An assertion of a name.
    pub fn assertion(&self, jti: &str) -> String {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let audience = format!("http://{HOST}/oauth2/token");
        let claims = json!({"iss": self.id, "sub": self.id, "aud": audience, "exp": now + 120, "jti": jti});
        self.key.sign(&claims).unwrap().expose().to_owned()
    }

    /// What an assertion gives at a node.
    pub async fn token(&self, node: &str, scopes: &str, assertion: &str) -> (StatusCode, Value) {
        let sent = [
            ("grant_type", "client_credentials"),
            ("scope", scopes),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
        ];
        ask(node, &sent).await
    }
}
