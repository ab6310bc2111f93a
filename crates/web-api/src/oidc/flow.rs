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
use store::{Actor, AuditAction, DocumentWrite, StoreError, TransactError, Transaction};
use trust::TokenHash;
use trust::digest::Sha256;
use trust::jwt::{self, Algorithm, Claims, JwtError};
use trust::webauthn::CHALLENGE_LEN;

use super::person::{self, StrangerError, Vouched};
use super::providers::{self, Provider};
use super::remote::{self, Exchange, RemoteError};
use crate::ceremony::{self, Answered, PROVIDER_LIFE, Purpose};
use crate::json::session::{Asking, begin_by_provider, sign_in_act};
use crate::oauth::{Parameters, origin_of, with_parameters};
use crate::operations::signed_in;
use crate::people::{PeopleError, Subject};
use crate::problem::Problem;
use crate::session::{Stage, cookie_named};
use crate::state::Web;

/// Longest address within the web app to go on to, in bytes.
const NEXT_LIMIT_BYTES: usize = 2_000;
/// How much the clock of a provider may differ.
const LEEWAY: Duration = Duration::from_secs(60);
/// How long ago somebody proved themself at the provider who proves themself again: the time of the way back, and as much
/// as the clocks may differ.
const AGAIN_LIMIT: Duration = Duration::from_secs(120);
/// The page that says why nobody was signed in.
const SIGN_IN: &str = "/sign-in";
/// The page that says why somebody who is signed in was not proven again.
const ACCOUNT: &str = "/account";
/// Algorithms of id_tokens: with public keys only.
const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::Ps256, Algorithm::EdDsa];
/// What is made of a challenge: the state that comes back.
const STATE: &str = "provider state";
/// The nonce that stands in the id_token.
const NONCE: &str = "provider nonce";
/// The text whose hash goes along first (PKCE).
const VERIFIER: &str = "provider verifier";
/// The cookie that binds a sign-in under way to the browser that began it, on plain loopback.
const COOKIE: &str = "auscult_oidc";
/// The same over TLS.
const SECURE_COOKIE: &str = "__Host-auscult_oidc";

/// A sign-in under way: nothing is kept of it here, all of it is in the cookie of the browser that began it, sealed.
struct Pending {
    /// What the others are made of, which nobody but this browser knows.
    challenge: [u8; CHALLENGE_LEN],
    next: String,
    /// The session whose person proves themself again, where that is what it is for.
    again: Option<TokenHash>,
    /// What must be written where the sign-in counts: it fails the second time.
    used: DocumentWrite,
}

/// What goes along to the provider, each of its own, and tells nothing of the cookie.
fn made_of(challenge: &[u8; CHALLENGE_LEN], what: &str) -> String {
    URL_SAFE_NO_PAD.encode(trust::digest::sha256(&[what.as_bytes(), challenge]))
}

/// What a sealed cookie is good for.
fn way(provider: &Provider, again: &str, next: &str) -> String {
    format!("{} {} {again} {next}", provider.id, provider.issuer)
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
    #[error("this server cannot sign you in now; try again in a moment")]
    Unavailable,
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
    #[error(
        "the identity provider does not say that you proved yourself there just now, with a second factor, as the person \
         who is signed in here"
    )]
    NotAgain,
}

impl FlowError {
    const fn word(&self) -> &'static str {
        match self {
            FlowError::Store(_) | FlowError::Keep(_) | FlowError::Unavailable => "unavailable",
            FlowError::Provider(_) => "unknown-provider",
            FlowError::NotBegun => "not-begun",
            FlowError::Refused => "refused",
            FlowError::Remote(_) => "provider-failed",
            FlowError::MixUp | FlowError::Token(_) | FlowError::Nonce => "not-believed",
            FlowError::Stranger(_) => "not-known",
            FlowError::NotAgain => "not-again",
        }
    }

    fn sentence(&self) -> String {
        match self {
            FlowError::Stranger(
                why @ (StrangerError::Read(_) | StrangerError::Add(PeopleError::Keep(_))),
            ) => {
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

/// Back to a page, with the reason behind the `#`, where no server sees it.
fn failed(page: &str, error: &FlowError) -> Response {
    tracing::info!(error = error as &dyn std::error::Error, "a sign-in by way of a provider failed");
    let sentence = error.sentence();
    let parameters = with_parameters("", &[("error", error.word()), ("detail", &sentence)]);
    see_other(&format!("{page}#{}", parameters.trim_start_matches('?')))
}

fn callback_of(web: &Web, headers: &HeaderMap) -> String {
    format!("{}/api/v1/sign-in/oidc/callback", origin_of(&web.options, headers))
}

fn binding(web: &Web, value: &str, life: Duration) -> Option<HeaderValue> {
    // Lax, because the provider's page leads the browser back.
    let (name, secure) = if web.options.secure_cookies { (SECURE_COOKIE, "; Secure") } else { (COOKIE, "") };
    let age = life.as_secs();
    HeaderValue::from_str(&format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}"))
        .ok()
}

/// `GET /api/v1/sign-in/oidc/{id}?next=/path`, and with `again=true` to prove oneself again in the session that there is.
pub(crate) async fn start(
    State(web): State<Arc<Web>>,
    Path(id): Path<String>,
    from: Asking,
    RawQuery(query): RawQuery,
) -> Response {
    let asked = Parameters::of_text(query.as_deref().unwrap_or("")).unwrap_or_default();
    let next = inside(asked.get("next")).to_owned();
    let again = match asked.get("again") {
        // Where the session has ended meanwhile, they sign in.
        Some("true") => signed_in(&web, &from.caller, &from.headers, true).await.ok(),
        _ => None,
    };
    let again = again.map(|(_, current)| current.hash);
    match begun(&web, &id, &from.headers, next, again).await {
        Ok((address, cookie)) => {
            let mut response = see_other(&address);
            if let Some(cookie) = binding(&web, &cookie, PROVIDER_LIFE) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            response
        }
        Err(error) => failed(if again.is_some() { ACCOUNT } else { SIGN_IN }, &error),
    }
}

async fn begun(
    web: &Arc<Web>,
    id: &str,
    headers: &HeaderMap,
    next: String,
    again: Option<TokenHash>,
) -> Result<(String, String), FlowError> {
    let id = id.to_owned();
    let provider =
        blocking(web, move |web| providers::enabled(web.site.store(), &id).map_err(FlowError::Provider))
            .await?;
    let (description, _) = web.remote.of(&provider, false).await?;
    let session = again.map(|hash| URL_SAFE_NO_PAD.encode(hash.0)).unwrap_or_default();
    let purpose = way(&provider, &session, &next);
    let asked = ceremony::ask(web.site.store(), Purpose::Provider(&purpose), web.site.clock().now());
    let (state, nonce) = (made_of(&asked.challenge, STATE), made_of(&asked.challenge, NONCE));
    // RFC 7636, section 4.2: the plain hash of the text that goes along with the code.
    let mut digest = Sha256::new();
    digest.update(made_of(&asked.challenge, VERIFIER).as_bytes());
    let challenge = URL_SAFE_NO_PAD.encode(digest.finish());
    let redirect_uri = callback_of(web, headers);
    let mut parameters = vec![
        ("response_type", "code"),
        ("client_id", &provider.client_id),
        ("redirect_uri", &redirect_uri),
        ("scope", &provider.scopes),
        ("state", &state),
        ("nonce", &nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    if again.is_some() {
        // OpenID Connect Core §3.1.2.1: they are asked anew there, and the id_token says when.
        parameters.extend([("prompt", "login"), ("max_age", "0")]);
    }
    let address = with_parameters(&description.authorization_endpoint, &parameters);
    let next = URL_SAFE_NO_PAD.encode(next);
    Ok((address, format!("{}.{}.{next}.{session}", asked.token, provider.id)))
}

/// The sign-in under way that a browser's cookie holds, if this is the answer to it. Blocks.
fn pending(web: &Web, state: &str, cookie: Option<&str>) -> Result<(Pending, Provider), FlowError> {
    let store = web.site.store();
    let mut parts = cookie.unwrap_or("").split('.');
    let (Some(token), Some(id), Some(next), Some(session), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(FlowError::NotBegun);
    };
    let next = URL_SAFE_NO_PAD.decode(next).ok().and_then(|next| String::from_utf8(next).ok());
    let next = next.ok_or(FlowError::NotBegun)?;
    let provider = providers::enabled(store, id).map_err(FlowError::Provider)?;
    let purpose = way(&provider, session, &next);
    let answered = ceremony::answered(store, Purpose::Provider(&purpose), token, web.site.clock().now());
    let Answered { challenge, used } = answered.ok_or(FlowError::NotBegun)?;
    match trust::equal(made_of(&challenge, STATE).as_bytes(), state.as_bytes()) {
        true => {
            let again = URL_SAFE_NO_PAD.decode(session).ok().and_then(|hash| hash.try_into().ok());
            Ok((Pending { challenge, next, again: again.map(TokenHash), used }, provider))
        }
        false => Err(FlowError::NotBegun),
    }
}

/// Uses a sign-in under way up. Blocks.
fn used_up(web: &Web, used: DocumentWrite) -> Result<(), FlowError> {
    let (store, at) = (web.site.store(), web.site.clock().now());
    ceremony::sweep(store, at)?;
    match store.transact(&Transaction { at, writes: vec![used], ..Transaction::default() }) {
        Err(TransactError::Conflict { .. }) => Err(FlowError::NotBegun),
        kept => Ok(kept?),
    }
}

async fn blocking<T: Send + 'static>(
    web: &Arc<Web>,
    run: impl FnOnce(&Web) -> Result<T, FlowError> + Send + 'static,
) -> Result<T, FlowError> {
    // Work that panicked has been logged.
    web.blocking(run).await.unwrap_or(Err(FlowError::Unavailable))
}

/// `GET /api/v1/sign-in/oidc/callback`
pub(crate) async fn callback(
    State(web): State<Arc<Web>>,
    from: Asking,
    RawQuery(query): RawQuery,
) -> Response {
    let asked = Parameters::of_text(query.as_deref().unwrap_or("")).unwrap_or_default();
    let name = if web.options.secure_cookies { SECURE_COOKIE } else { COOKIE };
    let cookie = cookie_named(&from.headers, name);
    let is_again = cookie.as_ref().is_some_and(|cookie| !cookie.ends_with('.'));
    let mut response = match come_back(&web, &from, &asked, cookie).await {
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
            failed(if is_again { ACCOUNT } else { SIGN_IN }, &error)
        }
    };
    if let Some(cookie) = binding(&web, "", Duration::ZERO) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

type SignedIn = Result<(String, Vec<HeaderValue>), Problem>;

async fn come_back(
    web: &Arc<Web>,
    from: &Asking,
    asked: &Parameters,
    cookie: Option<String>,
) -> Result<SignedIn, FlowError> {
    let state = asked.get("state").unwrap_or("").to_owned();
    let (pending, provider) = blocking(web, move |web| pending(web, &state, cookie.as_deref())).await?;
    let (description, _) = web.remote.of(&provider, false).await?;
    // RFC 9207: who answers says who it is; one that promises to and does not is somebody else.
    match asked.get("iss") {
        Some(issuer) if issuer == provider.issuer => {}
        None if !description.authorization_response_iss_parameter_supported => {}
        _ => return Err(FlowError::MixUp),
    }
    let code = asked.get("code").filter(|_| asked.get("error").is_none()).ok_or(FlowError::Refused)?;
    let redirect_uri = callback_of(web, &from.headers);
    let verifier = made_of(&pending.challenge, VERIFIER);
    let exchange = Exchange { code, verifier: &verifier, redirect_uri: &redirect_uri };
    let given = remote::redeem(web, &provider, &description, exchange).await?;
    let mut claims = believed(web, &provider, &given.id_token).await?;
    if claims.text("nonce") != Some(&made_of(&pending.challenge, NONCE)) {
        return Err(FlowError::Nonce);
    }
    let now = web.site.clock().now();
    let second_factor_at = person::used_second_factor(&provider, &claims).then_some(now);
    let subject = claims.text("sub").unwrap_or_default().to_owned();
    if let Some(session) = pending.again {
        let is_fresh = second_factor_at.is_some() && is_just_now(&claims, now);
        let subject = Subject { issuer: provider.issuer, subject };
        again(web, from, session, pending.used, Some(subject).filter(|_| is_fresh)).await?;
        return Ok(Ok((pending.next, Vec::new())));
    }
    if person::needs(&provider).into_iter().any(|claim| claims.get(claim).is_none()) {
        claims = claims.with_missing(remote::more_about(&description, &given, &subject).await?);
    }
    let caller = from.caller.clone();
    let used = pending.used;
    let vouched = blocking(web, move |web| {
        used_up(web, used)?;
        Ok(person::of(web, &provider, &claims, &caller)?)
    });
    let Vouched { user, to_link, factor_counts } = vouched.await?;
    let second_factor_at = second_factor_at.filter(|_| factor_counts);
    let cookies = begin_by_provider(web, from, &user, to_link, second_factor_at).await;
    Ok(cookies.map(|cookies| (pending.next, cookies)))
}

/// Whether the person proved themself at the provider, not only in the browser's session there, just now.
fn is_just_now(claims: &Claims, now: Timestamp) -> bool {
    let at = claims.seconds("auth_time").map(Timestamp::from_seconds);
    at.is_some_and(|at| now.duration_since(at) <= AGAIN_LIMIT && at.duration_since(now) <= LEEWAY)
}

/// Writes down that the person of a session proved themself again at the provider; `proven`: who did there, by a second
/// factor and just now.
async fn again(
    web: &Arc<Web>,
    from: &Asking,
    session: TokenHash,
    used: DocumentWrite,
    proven: Option<Subject>,
) -> Result<(), FlowError> {
    let caller = from.caller.clone();
    blocking(web, move |web| {
        used_up(web, used)?;
        let now = web.site.clock().now();
        let proven = proven.ok_or(FlowError::NotAgain)?;
        let user = web.linked(&proven).map_err(StrangerError::Read)?.filter(|user| !user.disabled);
        let user = user.ok_or(FlowError::NotAgain)?;
        let current = web.sessions.look(&session, now, true)?.ok_or(FlowError::NotAgain)?;
        let is_theirs = current.user == user.id
            && current.stage == Stage::Whole
            && current.caller.fits(&caller, web.options.binding);
        if !is_theirs {
            return Err(FlowError::NotAgain);
        }
        let act = sign_in_act(&caller, Actor::User(user.id), "proven again by the identity provider");
        web.sessions.proven(&session, &act, now)?.ok_or(FlowError::NotAgain)?;
        Ok(())
    })
    .await
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
