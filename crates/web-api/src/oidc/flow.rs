//! The way of a browser to a provider and back. What it comes back with counts only where this browser was sent, once, and
//! by the provider to which it was sent.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clinical_model::Timestamp;
use pipeline::records::{json_from, json_write, sortable};
use serde::{Deserialize, Serialize};
use store::{
    Actor, AuditAction, DocumentQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order, Store,
    StoreError, TransactError, Transaction,
};
use trust::TokenSecret;
use trust::digest::Sha256;
use trust::jwt::{self, Algorithm, Claims, JwtError};

use super::person::{self, StrangerError};
use super::providers::{self, Provider};
use super::remote::{self, Exchange, RemoteError};
use crate::json::session::{Asking, begin_by_provider};
use crate::oauth::{Parameters, origin_of, with_parameters};
use crate::problem::Problem;
use crate::session::cookie_named;
use crate::state::Web;

/// Time for signing in at the provider.
const PENDING_LIFE: Duration = Duration::from_secs(600);
/// Sign-ins under way beyond their time that are removed with each new one.
const SWEEP_LIMIT: usize = 16;
/// Sign-ins under way at one time: anybody can begin one.
const PENDING_LIMIT: usize = 10_000;
/// Longest address within the web app to go on to, in bytes.
const NEXT_LIMIT_BYTES: usize = 2_000;
/// How much the clock of a provider may differ.
const LEEWAY: Duration = Duration::from_secs(60);
/// Algorithms of id_tokens: with public keys only.
const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::Ps256, Algorithm::EdDsa];
/// The index of sign-ins under way by their end.
const BY_END: &str = "end";
/// The cookie that binds a sign-in under way to the browser that began it, on plain loopback.
const COOKIE: &str = "auscult_oidc";
/// The same over TLS.
const SECURE_COOKIE: &str = "__Host-auscult_oidc";

/// A sign-in under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pending {
    provider: String,
    issuer: String,
    nonce: String,
    verifier: String,
    /// SHA-256 of the binding cookie.
    browser: [u8; 32],
    next: String,
    ends_at: Timestamp,
}

/// Why a sign-in by way of a provider fails, in a word for the page and a sentence for the person.
#[derive(Debug, thiserror::Error)]
enum FlowError {
    #[error("reading failed")]
    Store(#[from] StoreError),
    #[error("it could not be kept")]
    Keep(#[from] TransactError),
    #[error("no such identity provider is in use here")]
    Provider(#[source] providers::ProviderError),
    #[error("too many are signing in now; try again in a moment")]
    TooMany,
    #[error("this sign-in was not begun in this browser, or too long ago; begin again")]
    NotBegun,
    #[error("the answer is not by the identity provider that was asked")]
    MixUp,
    #[error("the identity provider did not sign you in")]
    Refused,
    #[error("the identity provider could not be asked")]
    Remote(#[from] RemoteError),
    #[error("what the identity provider says of you is not believed")]
    Token(#[source] JwtError),
    #[error("the identity provider's answer belongs to another sign-in")]
    Nonce,
    #[error("you may not sign in this way")]
    Stranger(#[from] StrangerError),
}

impl FlowError {
    const fn word(&self) -> &'static str {
        match self {
            FlowError::Store(_) | FlowError::Keep(_) | FlowError::TooMany => "unavailable",
            FlowError::Provider(_) => "unknown-provider",
            FlowError::NotBegun => "not-begun",
            FlowError::Refused => "refused",
            FlowError::Remote(_) => "provider-failed",
            FlowError::MixUp | FlowError::Token(_) | FlowError::Nonce => "not-believed",
            FlowError::Stranger(_) => "not-known",
        }
    }

    fn sentence(&self) -> String {
        match self {
            FlowError::Stranger(why @ (StrangerError::Store(_) | StrangerError::Keep(_))) => {
                tracing::error!(error = why as &dyn std::error::Error, "a sign-in by a provider failed");
                self.to_string()
            }
            FlowError::Stranger(why) => why.to_string(),
            other => other.to_string(),
        }
    }
}

/// An address within the web app: a path of ours, never one that a browser takes for another host.
fn inside(next: Option<&str>) -> &str {
    let is_inside = |next: &&str| {
        next.len() <= NEXT_LIMIT_BYTES
            && next.starts_with('/')
            && !next.starts_with("//")
            && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    next.filter(is_inside).unwrap_or("/")
}

fn see_other(address: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    let to = HeaderValue::from_str(address).unwrap_or_else(|_| HeaderValue::from_static("/sign-in"));
    headers.insert(header::LOCATION, to);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Back to the sign-in page, with the reason behind the `#`, where no server sees it.
fn failed(error: &FlowError) -> Response {
    tracing::info!(error = error as &dyn std::error::Error, "a sign-in by way of a provider failed");
    let sentence = error.sentence();
    let parameters = with_parameters("", &[("error", error.word()), ("detail", &sentence)]);
    see_other(&format!("/sign-in#{}", parameters.trim_start_matches('?')))
}

fn callback_of(web: &Web, headers: &HeaderMap) -> String {
    format!("{}/api/v1/sign-in/oidc/callback", origin_of(&web.options, headers))
}

fn digest(text: &str) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(text.as_bytes());
    digest.finish()
}

fn id_of(state: &str) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&digest(state)[..16]);
    id
}

fn binding(web: &Web, value: &str, life: Duration) -> Option<HeaderValue> {
    // Lax, because the provider's page leads the browser back.
    let (name, secure) = if web.options.secure_cookies { (SECURE_COOKIE, "; Secure") } else { (COOKIE, "") };
    let age = life.as_secs();
    HeaderValue::from_str(&format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}"))
        .ok()
}

/// `GET /api/v1/sign-in/oidc/{id}?next=/path`
pub(crate) async fn start(
    State(web): State<Arc<Web>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let asked = Parameters::of_text(query.as_deref().unwrap_or("")).unwrap_or_default();
    let next = inside(asked.get("next")).to_owned();
    match begun(&web, &id, &headers, next).await {
        Ok((address, cookie)) => {
            let mut response = see_other(&address);
            if let Some(cookie) = binding(&web, &cookie, PENDING_LIFE) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            response
        }
        Err(error) => failed(&error),
    }
}

async fn begun(
    web: &Arc<Web>,
    id: &str,
    headers: &HeaderMap,
    next: String,
) -> Result<(String, String), FlowError> {
    let id = id.to_owned();
    let provider =
        blocking(web, move |web| providers::enabled(web.site.store(), &id).map_err(FlowError::Provider))
            .await?;
    let (description, _) = web.remote.of(&provider, false).await?;
    let secret = || TokenSecret::generate().to_text().expose().to_owned();
    let (state, cookie, now) = (secret(), secret(), web.site.clock().now());
    let pending = Pending {
        provider: provider.id.clone(),
        issuer: provider.issuer.clone(),
        nonce: secret(),
        verifier: secret(),
        browser: digest(&cookie),
        next,
        ends_at: now.plus(PENDING_LIFE),
    };
    let challenge = URL_SAFE_NO_PAD.encode(digest(&pending.verifier));
    let redirect_uri = callback_of(web, headers);
    let address = with_parameters(
        &description.authorization_endpoint,
        &[
            ("response_type", "code"),
            ("client_id", &provider.client_id),
            ("redirect_uri", &redirect_uri),
            ("scope", &provider.scopes),
            ("state", &state),
            ("nonce", &pending.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ],
    );
    let key = id_of(&state);
    blocking(web, move |web| keep(web.site.store(), key, &pending, now)).await?;
    Ok((address, cookie))
}

fn keep(store: &dyn Store, id: [u8; 16], pending: &Pending, now: Timestamp) -> Result<(), FlowError> {
    let query = |limit, order| DocumentQuery {
        kind: Kind::PendingSignIn,
        index: BY_END,
        prefix: Vec::new(),
        after: None,
        order,
        limit,
    };
    let passed = sortable(now);
    let first = store.documents(&query(SWEEP_LIMIT, Order::Ascending))?;
    let over: Vec<[u8; 16]> =
        first.iter().filter(|one| one.index_value[..] < passed[..]).map(|one| one.id).collect();
    // Only where none is over can there be as many as there may be.
    if over.is_empty()
        && first.len() == SWEEP_LIMIT
        && store.documents(&query(PENDING_LIMIT, Order::Ascending))?.len() >= PENDING_LIMIT
    {
        return Err(FlowError::TooMany);
    }
    let index = vec![IndexEntry { name: BY_END, value: sortable(pending.ends_at).to_vec(), unique: false }];
    let mut writes =
        vec![json_write(Kind::PendingSignIn, id, Expected::Absent, KeyDomain::System, pending, index)];
    writes.extend(over.into_iter().map(|id| removal(id, Expected::Any)));
    Ok(store.transact(&Transaction { at: now, writes, ..Transaction::default() })?)
}

fn removal(id: [u8; 16], expected: Expected) -> DocumentWrite {
    DocumentWrite {
        kind: Kind::PendingSignIn,
        id,
        expected,
        domain: KeyDomain::System,
        body: None,
        index: Vec::new(),
    }
}

/// Takes a sign-in under way, once, for the browser that began it.
fn taken(web: &Web, state: &str, cookie: Option<&str>) -> Result<(Pending, Provider), FlowError> {
    let now = web.site.clock().now();
    let store = web.site.store();
    let id = id_of(state);
    let document = store.document(Kind::PendingSignIn, id)?.ok_or(FlowError::NotBegun)?;
    let pending: Pending = json_from(&document.body).map_err(|_| FlowError::NotBegun)?;
    // Somebody else's browser does not end it for the one that began it.
    if !cookie.is_some_and(|cookie| trust::equal(&digest(cookie), &pending.browser)) {
        return Err(FlowError::NotBegun);
    }
    let writes = vec![removal(id, Expected::Version(document.version))];
    match store.transact(&Transaction { at: now, writes, ..Transaction::default() }) {
        Ok(()) if pending.ends_at > now => {}
        Ok(()) | Err(TransactError::Conflict { .. }) => return Err(FlowError::NotBegun),
        Err(error) => return Err(error.into()),
    }
    let provider = providers::enabled(store, &pending.provider).map_err(FlowError::Provider)?;
    match provider.issuer == pending.issuer {
        true => Ok((pending, provider)),
        false => Err(FlowError::MixUp),
    }
}

async fn blocking<T: Send + 'static>(
    web: &Arc<Web>,
    run: impl FnOnce(&Web) -> Result<T, FlowError> + Send + 'static,
) -> Result<T, FlowError> {
    // Work that panicked has been logged.
    web.blocking(run).await.unwrap_or(Err(FlowError::TooMany))
}

/// `GET /api/v1/sign-in/oidc/callback`
pub(crate) async fn callback(
    State(web): State<Arc<Web>>,
    from: Asking,
    RawQuery(query): RawQuery,
) -> Response {
    let asked = Parameters::of_text(query.as_deref().unwrap_or("")).unwrap_or_default();
    let mut response = match signed_in(&web, &from, &asked).await {
        Ok(Ok((next, cookies))) => {
            let mut response = see_other(&next);
            for cookie in cookies {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            response
        }
        Ok(Err(problem)) => problem.into_response(),
        Err(error) => {
            let actor = Actor::Unproven("somebody from an identity provider".to_owned());
            let act = from.caller.by(actor).act(AuditAction::SignIn, "session").detail(error.sentence());
            let caller = from.caller.clone();
            let recorded = web.blocking(move |web| web.stranger_refused(&caller, act)).await;
            if let Ok(Err(error)) = recorded {
                tracing::error!(error = &error as &dyn std::error::Error, "a refusal could not be recorded");
            }
            failed(&error)
        }
    };
    if let Some(cookie) = binding(&web, "", Duration::ZERO) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

type SignedIn = Result<(String, Vec<HeaderValue>), Problem>;

async fn signed_in(web: &Arc<Web>, from: &Asking, asked: &Parameters) -> Result<SignedIn, FlowError> {
    let state = asked.get("state").unwrap_or("").to_owned();
    let name = if web.options.secure_cookies { SECURE_COOKIE } else { COOKIE };
    let cookie = cookie_named(&from.headers, name);
    let (pending, provider) = blocking(web, move |web| taken(web, &state, cookie.as_deref())).await?;
    let (description, _) = web.remote.of(&provider, false).await?;
    // RFC 9207: who answers says who it is; one that promises to and does not is somebody else.
    match asked.get("iss") {
        Some(issuer) if issuer == provider.issuer => {}
        None if !description.authorization_response_iss_parameter_supported => {}
        _ => return Err(FlowError::MixUp),
    }
    let code = asked.get("code").filter(|_| asked.get("error").is_none()).ok_or(FlowError::Refused)?;
    let redirect_uri = callback_of(web, &from.headers);
    let exchange = Exchange { code, verifier: &pending.verifier, redirect_uri: &redirect_uri };
    let given = remote::redeem(web, &provider, &description, exchange).await?;
    let mut claims = believed(web, &provider, &given.id_token).await?;
    if claims.text("nonce") != Some(&pending.nonce) {
        return Err(FlowError::Nonce);
    }
    let now = web.site.clock().now();
    let second_factor_at = person::used_second_factor(&provider, &claims).then_some(now);
    let subject = claims.text("sub").unwrap_or_default().to_owned();
    if person::needs(&provider).into_iter().any(|claim| claims.get(claim).is_none()) {
        claims = claims.with_missing(remote::more_about(&description, &given, &subject).await?);
    }
    let caller = from.caller.clone();
    let (user, counts) = blocking(web, move |web| Ok(person::of(web, &provider, &claims, &caller)?)).await?;
    let second_factor_at = second_factor_at.filter(|_| counts);
    let cookies = begin_by_provider(web, from, &user, second_factor_at).await;
    Ok(cookies.map(|cookies| (pending.next, cookies)))
}

/// The claims of an id_token (OpenID Connect Core §3.1.3.7). Where its key is not known, the keys are asked for once more.
async fn believed(web: &Arc<Web>, provider: &Provider, token: &str) -> Result<Claims, FlowError> {
    let audiences = [provider.client_id.clone()];
    let expected = jwt::Expected {
        algorithms: &ALGORITHMS,
        types: &["JWT"],
        issuer: &provider.issuer,
        audiences: &audiences,
        now_s: web.site.clock().now().as_seconds(),
        leeway: LEEWAY,
        life: None,
    };
    let (_, keys) = web.remote.of(provider, false).await?;
    let mut judged = jwt::verify(token, &keys, &expected);
    if judged == Err(JwtError::UnknownKey) {
        let (_, keys) = web.remote.of(provider, true).await?;
        judged = jwt::verify(token, &keys, &expected);
    }
    let claims = judged.map_err(FlowError::Token)?;
    let is_ours = match claims.text("azp") {
        Some(party) => party == provider.client_id,
        None => claims.texts("aud").len() == 1,
    };
    if is_ours { Ok(claims) } else { Err(FlowError::Token(JwtError::Audience)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_leads_on_within_this_site_only() {
        for good in ["/", "/board", "/oauth2/authorize?client_id=1&state=a%20b", "/patients/1#trend"] {
            assert_eq!(inside(Some(good)), good);
        }
        for bad in [
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "\\\\evil",
            "javascript:1",
            "/a\r\nX: y",
            "/ü",
            "",
        ] {
            assert_eq!(inside(Some(bad)), "/", "{bad}");
        }
        assert_eq!(inside(None), "/");
        assert_eq!(inside(Some(&format!("/{}", "a".repeat(NEXT_LIMIT_BYTES)))), "/");
    }
}
