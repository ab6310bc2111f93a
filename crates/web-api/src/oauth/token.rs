//! The token endpoint: a code, a refresh token or an assertion against an access token of five minutes.

use std::sync::Arc;

use access::scopes::{Context, Extra, Scopes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clinical_model::Timestamp;
use serde_json::{Value, json};
use store::{Actor, AuditAction, AuditOutcome, Expected, TransactError, Transaction};
use trust::digest::Sha256;

use super::answer::{Parameters, Word, Wrong, answer};
use super::clients::{Client, ClientKind};
use super::grants::{self, ACCESS_LIFE, Grant};
use super::{assertion, keys, origin_of};
use crate::json::session::Asking;
use crate::people::{Role, User};
use crate::session::Caller;
use crate::state::Web;

/// Times that a grant is read again because another request was faster.
const CHANGE_LIMIT_TRIES: usize = 4;
/// Fewest and most characters of a PKCE verifier (RFC 7636 §4.1).
const VERIFIER_CHARS: std::ops::RangeInclusive<usize> = 43..=128;

/// `POST /oauth2/token`
pub(super) async fn token(State(web): State<Arc<Web>>, request: Request) -> Response {
    let (asked, from) = match Parameters::of_form(request).await {
        Ok(asked) => asked,
        Err(wrong) => return wrong.into_response(),
    };
    let given = web.blocking(move |web| give(web, &from, &asked)).await;
    match given {
        Ok(Ok(body)) => answer(StatusCode::OK, body),
        Ok(Err(wrong)) => wrong.into_response(),
        Err(_) => Wrong::ours().into_response(),
    }
}

fn give(web: &Web, from: &Asking, asked: &Parameters) -> Result<Value, Wrong> {
    let kind = asked.needed("grant_type")?;
    match kind {
        "authorization_code" => {
            let client = assertion::client_of(web, from, asked)?;
            redeem(web, from, asked, &client)
        }
        "refresh_token" => {
            let client = match asked.get("client_id").or(asked.get("client_assertion")) {
                Some(_) => assertion::client_of(web, from, asked)?,
                None => holder_of(web, asked)?,
            };
            refresh(web, &from.caller, asked, &client)
        }
        "client_credentials" => {
            let client = assertion::client_of(web, from, asked)?;
            credentials(web, &from.caller, asked, &client)
        }
        _ => Err(Wrong::new(Word::UnsupportedGrantType, "this grant type is not supported")),
    }
}

/// The answer that carries a token.
fn body_of(grant: &Grant, token: &str, scopes: &Scopes) -> Value {
    let mut body = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": ACCESS_LIFE.as_secs(),
        "scope": scopes.to_string(),
    });
    if let Some(patient) = grant.patient {
        body["patient"] = json!(patient.to_string());
        body["need_patient_banner"] = json!(true);
    }
    body
}

/// Why a grant gives nothing, and whether it ends with that.
enum Refused {
    /// Nothing else happens.
    Only(Wrong),
    /// Somebody holds what is not theirs: the grant and all its tokens end.
    Ending(Wrong),
}

/// Reads the grant of a ticket, lets `judge` change it, and keeps it; where that ends it, removes it and records why.
fn changed<T>(
    web: &Web,
    caller: &Caller,
    ticket: &str,
    judge: impl Fn(&mut Grant, [u8; 32], Timestamp) -> Result<T, Refused>,
) -> Result<T, Wrong> {
    let unknown = || Wrong::grant("the code or token is unknown, over, or was used already");
    let (id, hash) = grants::ticket_parts(ticket).ok_or_else(unknown)?;
    let store = web.site.store();
    for _ in 0..CHANGE_LIMIT_TRIES {
        let now = web.site.clock().now();
        let (mut grant, version) = grants::read(store, id)?.ok_or_else(unknown)?;
        let (outcome, transaction) = match judge(&mut grant, hash.0, now) {
            Ok(given) => {
                let writes = vec![grant.write(Expected::Version(version))];
                (Ok(given), Transaction { at: now, writes, ..Transaction::default() })
            }
            Err(Refused::Only(wrong)) => return Err(wrong),
            Err(Refused::Ending(wrong)) => {
                let actor = grant.user.map_or(Actor::System, Actor::User);
                let act = caller.by(actor).act(AuditAction::Delete, "grant").detail(wrong.what.clone());
                tracing::warn!(
                    why = wrong.what,
                    client = crate::json::hex(&grant.client),
                    "a grant was ended"
                );
                let audit = vec![act.record(now, AuditOutcome::Refused)];
                (
                    Err(wrong),
                    Transaction {
                        at: now,
                        writes: vec![grants::removal(id)],
                        audit,
                        ..Transaction::default()
                    },
                )
            }
        };
        match store.transact(&transaction) {
            Ok(()) => return outcome,
            Err(TransactError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Wrong::new(Word::ServerError, "too many ask with this at one time; try again"))
}

fn redeem(web: &Web, from: &Asking, asked: &Parameters, client: &Client) -> Result<Value, Wrong> {
    let code = asked.needed("code")?;
    let redirect_uri = asked.needed("redirect_uri")?;
    let verifier = asked.needed("code_verifier")?;
    let origin = origin_of(&web.options, &from.headers);
    let ending = |what: &str| Refused::Ending(Wrong::grant(what));
    changed(web, &from.caller, code, |grant, hash, now| {
        if grant.spent_code.is_some_and(|spent| trust::equal(&spent, &hash)) {
            return Err(ending("the code was used already: all that it gave has ended"));
        }
        let known = grant.code.take().filter(|known| trust::equal(&known.hash, &hash));
        let known = known.ok_or_else(|| {
            Refused::Only(Wrong::grant("the code or token is unknown, over, or was used already"))
        })?;
        if grant.client != client.record.id {
            return Err(ending("the code was given to another program"));
        }
        if known.redirect_uri != redirect_uri {
            return Err(ending("the redirect_uri is not the one to which the code was sent"));
        }
        if !proves(verifier, &known.challenge) {
            return Err(ending("the code_verifier does not fit"));
        }
        if known.expires_at <= now {
            return Err(ending("the code is over"));
        }
        let Some((scopes, access)) = web.standing(grant, None, now) else {
            return Err(ending("whoever let the program in is not signed in any more"));
        };
        grant.spent_code = Some(hash);
        let token = grant.issue(now, None);
        let mut body = body_of(grant, token.expose(), &scopes);
        if scopes.has(Extra::OfflineAccess) || scopes.has(Extra::OnlineAccess) {
            body["refresh_token"] = json!(grant.rotate().expose());
        }
        if let (true, Some(user)) = (scopes.has(Extra::OpenId), &access.user) {
            let claims = id_claims(&origin, client, user, &scopes, known.nonce.as_deref(), now);
            let signed = keys::sign_with_ours(web, now, &claims).map_err(|error| {
                tracing::error!(error = &error as &dyn std::error::Error, "an id_token could not be signed");
                Refused::Only(Wrong::ours())
            })?;
            body["id_token"] = json!(signed.expose());
        }
        Ok(body)
    })
}

/// Whether a verifier fits its challenge: SHA-256 only, there is no plain one.
fn proves(verifier: &str, challenge: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut digest = Sha256::new();
    digest.update(verifier.as_bytes());
    let found = URL_SAFE_NO_PAD.encode(digest.finish());
    VERIFIER_CHARS.contains(&verifier.len())
        && verifier.bytes().all(is_plain)
        && trust::equal(found.as_bytes(), challenge.as_bytes())
}

/// What an id_token says (OpenID Connect Core §2; SMART App Launch 2.2, "Scopes for requesting identity data").
fn id_claims(
    origin: &str,
    client: &Client,
    user: &User,
    scopes: &Scopes,
    nonce: Option<&str>,
    now: Timestamp,
) -> Value {
    let mut claims = json!({
        "iss": origin,
        "sub": user.id.to_string(),
        "aud": client.id_text(),
        "iat": now.as_seconds(),
        "exp": now.plus(ACCESS_LIFE).as_seconds(),
    });
    if let Some(nonce) = nonce {
        claims["nonce"] = json!(nonce);
    }
    if scopes.has(Extra::Profile) {
        claims["name"] = json!(user.display);
    }
    if scopes.has(Extra::FhirUser) {
        let reference = match (user.role, user.patient) {
            (Role::Patient, Some(patient)) => format!("Patient/{patient}"),
            (Role::Caregiver, _) => format!("RelatedPerson/{}", user.id),
            _ => format!("Practitioner/{}", user.id),
        };
        claims["fhirUser"] = json!(format!("{origin}/fhir/{reference}"));
    }
    claims
}

/// The app that a refresh token was given to. A public app need not name itself beside it (RFC 6749 §6), and many do not.
fn holder_of(web: &Web, asked: &Parameters) -> Result<Arc<Client>, Wrong> {
    let unknown = || Wrong::new(Word::InvalidClient, "no client_id and no client_assertion");
    let (id, _) = grants::ticket_parts(asked.needed("refresh_token")?).ok_or_else(unknown)?;
    let (grant, _) = grants::read(web.site.store(), id)?.ok_or_else(unknown)?;
    let client = web.oauth.clients.active(grant.client).ok_or_else(unknown)?;
    if client.is_confidential() { Err(unknown()) } else { Ok(client) }
}

fn refresh(web: &Web, caller: &Caller, asked: &Parameters, client: &Client) -> Result<Value, Wrong> {
    let token = asked.needed("refresh_token")?;
    let fewer: Option<Scopes> = match asked.get("scope") {
        None => None,
        Some(text) => Some(text.parse().map_err(|error| Wrong::new(Word::InvalidScope, format!("{error}")))?),
    };
    let ending = |what: &str| Refused::Ending(Wrong::grant(what));
    changed(web, caller, token, |grant, hash, now| {
        if grant.spent.iter().any(|spent| trust::equal(spent, &hash)) {
            return Err(ending("the refresh token was used already: all that it gave has ended"));
        }
        if !grant.refresh.is_some_and(|current| trust::equal(&current, &hash)) {
            return Err(Refused::Only(Wrong::grant(
                "the code or token is unknown, over, or was used already",
            )));
        }
        if grant.client != client.record.id {
            return Err(ending("the refresh token was given to another program"));
        }
        let Some((granted, _)) = web.standing(grant, None, now) else {
            return Err(ending("whoever let the program in is not signed in any more, or the grant is over"));
        };
        if fewer.as_ref().is_some_and(|fewer| !granted.covers(fewer)) {
            let what = "more scopes than were granted cannot be asked for with a refresh token";
            return Err(Refused::Only(Wrong::new(Word::InvalidScope, what)));
        }
        let scopes = fewer.as_ref().map_or_else(|| granted.clone(), |fewer| granted.intersect(fewer));
        let token = grant.issue(now, fewer.as_ref().map(|_| scopes.to_string()));
        let mut body = body_of(grant, token.expose(), &scopes);
        body["refresh_token"] = json!(grant.rotate().expose());
        Ok(body)
    })
}

fn credentials(web: &Web, caller: &Caller, asked: &Parameters, client: &Client) -> Result<Value, Wrong> {
    if client.record.kind != ClientKind::Service {
        let what = "this program acts for people only; register it as a service";
        return Err(Wrong::new(Word::UnauthorizedClient, what));
    }
    let text = asked.needed("scope")?;
    let invalid = |what: String| Wrong::new(Word::InvalidScope, what);
    let (wanted, _) = Scopes::parse_some(text).map_err(|error| invalid(error.to_string()))?;
    let scopes = wanted.of(&[Context::System]).intersect(&client.scopes);
    if scopes.resources().is_empty() {
        return Err(invalid("none of these scopes is open to the program".to_owned()));
    }
    let now = web.site.clock().now();
    let mut grant = Grant {
        id: trust::random_bytes(),
        client: client.record.id,
        user: None,
        session: None,
        scopes: scopes.to_string(),
        patient: None,
        created_at: now,
        used_at: now,
        ends_at: now.plus(ACCESS_LIFE),
        code: None,
        spent_code: None,
        access: Vec::new(),
        refresh: None,
        spent: Vec::new(),
    };
    let token = grant.issue(now, None);
    let actor = Actor::Program(client.name.clone());
    let act = caller.by(actor).act(AuditAction::SignIn, "program").detail(grant.scopes.clone());
    let store = web.site.store();
    let writes = grants::beginning(store, &grant, now)?;
    let audit = vec![act.record(now, AuditOutcome::Success)];
    store.transact(&Transaction { at: now, writes, audit, ..Transaction::default() })?;
    Ok(body_of(&grant, token.expose(), &scopes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_proves_by_its_digest_only() {
        // The example of RFC 7636, appendix B.
        let (verifier, challenge) =
            ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(proves(verifier, challenge));
        assert!(!proves(challenge, challenge), "plain");
        assert!(!proves("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl", challenge));
        assert!(!proves("short", challenge));
        assert!(!proves("", ""));
    }
}
