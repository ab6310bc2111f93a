//! What is asked of a provider: its description, its keys, and a token for a code. Bounded in time and size, without
//! following redirects, and only at addresses that are safe to ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clinical_model::Timestamp;
use reqwest::redirect::Policy;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use trust::jwt::{KeyError, KeySet};

use super::providers::{Provider, is_safe_address};
use crate::json::hex;
use crate::oauth::sign_with_ours;
use crate::state::Web;

/// Time for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const ANSWER_LIMIT_BYTES: usize = 256 << 10;
/// What a provider says of itself is asked again after so long.
const FRESH_FOR: Duration = Duration::from_secs(600);
/// Keys are asked again for a name that is not known, at most so often: a flood of made-up names must not reach it.
const KEYS_EVERY: Duration = Duration::from_secs(30);
/// How long an assertion of ours lasts.
const ASSERTION_LIFE: Duration = Duration::from_secs(60);

/// Why a provider could not be asked. What it answered is not repeated: it may carry a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum RemoteError {
    /// The client could not be made.
    #[error("no connection can be made to the identity provider")]
    Client(#[source] Arc<reqwest::Error>),
    /// It did not answer.
    #[error("the identity provider did not answer ({what})")]
    Asked {
        /// For what.
        what: &'static str,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It answered with an error.
    #[error("the identity provider refused ({what}, status {status})")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Its status.
        status: u16,
    },
    /// It answered something else, or too much.
    #[error("the identity provider's answer cannot be used ({what})")]
    Answer {
        /// What was asked for.
        what: &'static str,
    },
    /// It calls itself something else than the settings do.
    #[error("the identity provider calls itself another issuer than the settings do")]
    Issuer,
    /// An address that it names is not safe to ask.
    #[error("the identity provider names an address that is not https")]
    Address,
    /// Its keys cannot be used.
    #[error("the identity provider's keys cannot be used")]
    Keys(#[source] KeyError),
    /// We could not prove ourselves.
    #[error("our own key could not be used")]
    Own,
}

/// The description of a provider (OpenID Connect Discovery 1.0 §3), as far as it is used.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Description {
    issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    userinfo_endpoint: Option<String>,
    /// Whether its answers say who they are by (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// What is known of a provider.
#[derive(Clone)]
struct Known {
    description: Arc<Description>,
    keys: Arc<KeySet>,
    at: Instant,
}

/// Connections to providers, and what they said of themselves, by issuer.
#[derive(Default)]
pub(crate) struct Remote {
    known: Mutex<HashMap<String, Known>>,
}

fn client() -> Result<reqwest::Client, RemoteError> {
    let made = reqwest::Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build();
    made.map_err(|error| RemoteError::Client(Arc::new(error)))
}

async fn read(what: &'static str, request: reqwest::RequestBuilder) -> Result<Value, RemoteError> {
    let failed = |source: reqwest::Error| RemoteError::Asked { what, source: source.without_url() };
    let mut response = request.header("accept", "application/json").send().await.map_err(failed)?;
    let status = response.status();
    if !status.is_success() {
        return Err(RemoteError::Refused { what, status: status.as_u16() });
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > ANSWER_LIMIT_BYTES {
            return Err(RemoteError::Answer { what });
        }
        bytes.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&bytes).map_err(|_| RemoteError::Answer { what })
}

async fn described(provider: &Provider) -> Result<Description, RemoteError> {
    let address = format!("{}/.well-known/openid-configuration", provider.issuer.trim_end_matches('/'));
    let answer = read("description", client()?.get(address)).await?;
    let found: Description =
        serde_json::from_value(answer).map_err(|_| RemoteError::Answer { what: "description" })?;
    // Whoever can answer in its name must not speak for another (mix-up): the names are compared exactly.
    if found.issuer != provider.issuer {
        return Err(RemoteError::Issuer);
    }
    let is_secure = provider.issuer.starts_with("https://");
    let addresses = [&found.authorization_endpoint, &found.token_endpoint, &found.jwks_uri];
    if addresses
        .into_iter()
        .chain(&found.userinfo_endpoint)
        .any(|one| !is_safe_address(one) || (is_secure && !one.starts_with("https://")))
    {
        return Err(RemoteError::Address);
    }
    Ok(found)
}

async fn keys_at(address: &str) -> Result<KeySet, RemoteError> {
    let answer = read("keys", client()?.get(address)).await?;
    KeySet::from_published(&answer).map_err(RemoteError::Keys)
}

impl Remote {
    fn held(&self, issuer: &str, fresh_for: Duration) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(issuer).filter(|known| known.at.elapsed() < fresh_for).cloned()
    }

    /// What a provider says of itself, and its keys. `again`: a token was signed with a key that is not known.
    pub(super) async fn of(
        &self,
        provider: &Provider,
        again: bool,
    ) -> Result<(Arc<Description>, Arc<KeySet>), RemoteError> {
        let fresh_for = if again { KEYS_EVERY } else { FRESH_FOR };
        if let Some(held) = self.held(&provider.issuer, fresh_for) {
            return Ok((held.description, held.keys));
        }
        let description = Arc::new(described(provider).await?);
        let keys = Arc::new(keys_at(&description.jwks_uri).await?);
        let known =
            Known { description: Arc::clone(&description), keys: Arc::clone(&keys), at: Instant::now() };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(provider.issuer.clone(), known);
        Ok((description, keys))
    }
}

/// What a code is exchanged with.
pub(super) struct Exchange<'a> {
    pub code: &'a str,
    pub verifier: &'a str,
    pub redirect_uri: &'a str,
}

/// What a provider gives for a code.
pub(super) struct Given {
    pub id_token: String,
    access_token: Option<String>,
}

/// What a code is worth.
pub(super) async fn redeem(
    web: &Arc<Web>,
    provider: &Provider,
    description: &Description,
    exchange: Exchange<'_>,
) -> Result<Given, RemoteError> {
    let mut form = vec![
        ("grant_type", "authorization_code".to_owned()),
        ("code", exchange.code.to_owned()),
        ("code_verifier", exchange.verifier.to_owned()),
        ("redirect_uri", exchange.redirect_uri.to_owned()),
        ("client_id", provider.client_id.clone()),
    ];
    let mut request = client()?.post(&description.token_endpoint);
    match &provider.client_secret {
        _ if provider.uses_key => {
            form.push((
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned(),
            ));
            form.push(("client_assertion", our_assertion(web, provider, description).await?));
        }
        Some(secret) => {
            let methods = description.token_endpoint_auth_methods_supported.as_deref().unwrap_or(&[]);
            // Where nothing is said, it is client_secret_basic (OpenID Connect Discovery 1.0 §3).
            let is_basic = methods.is_empty() || methods.iter().any(|method| method == "client_secret_basic");
            if is_basic {
                form.retain(|(name, _)| *name != "client_id");
                request = request.basic_auth(form_encoded(&provider.client_id), Some(form_encoded(secret)));
            } else {
                form.push(("client_secret", secret.clone()));
            }
        }
        None => {}
    }
    let body = form
        .iter()
        .map(|(name, value)| format!("{name}={}", form_encoded(value)))
        .collect::<Vec<_>>()
        .join("&");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
    let answer = read("token", request).await?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
    let id_token = text("id_token").ok_or(RemoteError::Answer { what: "token" })?;
    Ok(Given { id_token, access_token: text("access_token") })
}

/// What a provider says of a person beside the id_token: many put names and groups there only (OpenID Connect Core §5.3).
/// Nothing where it has no such place. What is said of another subject is no answer.
pub(super) async fn more_about(
    description: &Description,
    given: &Given,
    subject: &str,
) -> Result<Map<String, Value>, RemoteError> {
    let (Some(address), Some(token)) = (&description.userinfo_endpoint, &given.access_token) else {
        return Ok(Map::new());
    };
    match read("userinfo", client()?.get(address).bearer_auth(token)).await? {
        Value::Object(said) if said.get("sub").and_then(Value::as_str) == Some(subject) => Ok(said),
        _ => Err(RemoteError::Answer { what: "userinfo" }),
    }
}

fn form_encoded(text: &str) -> String {
    let whole = crate::oauth::with_parameters("", &[("", text)]);
    whole.strip_prefix("?=").unwrap_or_default().to_owned()
}

async fn our_assertion(
    web: &Arc<Web>,
    provider: &Provider,
    description: &Description,
) -> Result<String, RemoteError> {
    let now = web.site.clock().now();
    let claims = claims_of_ours(provider, description, now);
    let signed = web.blocking(move |web| sign_with_ours(web, now, &claims)).await;
    match signed {
        Ok(Ok(token)) => Ok(token.expose().to_owned()),
        Ok(Err(error)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "our assertion could not be signed");
            Err(RemoteError::Own)
        }
        Err(_) => Err(RemoteError::Own),
    }
}

fn claims_of_ours(provider: &Provider, description: &Description, now: Timestamp) -> Value {
    json!({
        "iss": provider.client_id,
        "sub": provider.client_id,
        "aud": description.token_endpoint,
        "jti": hex(&trust::random_bytes::<16>()),
        "iat": now.as_seconds(),
        "exp": now.plus(ASSERTION_LIFE).as_seconds(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_value_is_encoded_whole() {
        assert_eq!(form_encoded("a b&c=d?e"), "a%20b%26c%3Dd%3Fe");
        assert_eq!(form_encoded(""), "");
    }
}
