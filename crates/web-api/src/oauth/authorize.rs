//! The authorisation request of an app (RFC 6749 §4.1, PKCE of RFC 7636, SMART App Launch 2.2): read, put before the
//! person by the web app, and decided. What is wrong with the program or its address is shown here and sent nowhere.

use std::sync::Arc;

use access::scopes::{Context, Extra, Scopes};
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use clinical_model::{PatientId, Timestamp};
use serde::{Deserialize, Serialize};
use store::{AuditAction, AuditOutcome, Transaction};
use trust::TokenSecret;

use super::answer::{Parameters, Word, Wrong};
use super::clients::{Client, ClientKind};
use super::grants::{self, CODE_LIFE, Code, Grant, OFFLINE_LIFE};
use super::{origin_of, with_parameters};
use crate::access::{Access, Permit, may};
use crate::json::{Answer, Body, id_of};
use crate::people::{Role, User};
use crate::problem::{Code as ProblemCode, Problem};
use crate::session::Current;
use crate::state::Web;

/// Longest query of an authorisation request, in bytes.
const QUERY_LIMIT_BYTES: usize = 16 << 10;
/// Longest `state` and `nonce`, in bytes.
const STATE_LIMIT_BYTES: usize = 2_048;
/// Characters of a challenge: SHA-256 as base64url.
const CHALLENGE_CHARS: usize = 43;

/// An authorisation request that may be put before a person.
struct Asked {
    client: Arc<Client>,
    redirect_uri: String,
    state: String,
    challenge: String,
    nonce: Option<String>,
    scopes: Scopes,
    refused: Vec<String>,
    origin: String,
}

/// What becomes of a request that may not.
enum Unfit {
    /// It is shown, because the address to which it would be sent is not known to be the program's.
    Shown(Problem),
    /// It is said to the program, at its own address.
    Returned(String),
}

fn read(web: &Web, headers: &HeaderMap, query: &str, user: &User) -> Result<Asked, Unfit> {
    let shown = |what: &str| Unfit::Shown(Problem::bad_request(what));
    if query.len() > QUERY_LIMIT_BYTES {
        return Err(shown("the request of the program is too long"));
    }
    let asked = Parameters::of_text(query)
        .map_err(|wrong| shown(&format!("the request cannot be used: {}", wrong.what)))?;
    let client = asked.get("client_id").and_then(|id| web.oauth.clients.by_text(id));
    let client = client.filter(|client| client.record.kind == ClientKind::App);
    let client = client
        .ok_or_else(|| shown("no program of this name is registered at this site, or it is disabled"))?;
    // Exactly as registered, and always said: no part of an address decides where a code goes.
    let redirect_uri =
        asked.get("redirect_uri").filter(|uri| client.record.redirect_uris.iter().any(|own| own == uri));
    let redirect_uri = redirect_uri
        .ok_or_else(|| shown("the address to return to is not one that the program registered"))?;
    let origin = origin_of(&web.options, headers);
    let state = asked.get("state").unwrap_or("");
    checked(&asked, &origin).and_then(|()| granted(&asked, &client, user)).map_or_else(
        |wrong| Err(Unfit::Returned(returned(redirect_uri, state, &origin, &wrong))),
        |(scopes, refused)| {
            Ok(Asked {
                redirect_uri: redirect_uri.to_owned(),
                state: state.to_owned(),
                challenge: asked.get("code_challenge").unwrap_or("").to_owned(),
                nonce: asked.get("nonce").map(str::to_owned),
                scopes,
                refused,
                origin: origin.clone(),
                client: Arc::clone(&client),
            })
        },
    )
}

/// What must be true of the parameters, whoever asks.
fn checked(asked: &Parameters, origin: &str) -> Result<(), Wrong> {
    if asked.get("request").is_some() || asked.get("request_uri").is_some() {
        return Err(Wrong::new(Word::RequestNotSupported, "request objects are not taken"));
    }
    if asked.needed("response_type")? != "code" {
        return Err(Wrong::new(Word::UnsupportedResponseType, "only response_type=code is supported"));
    }
    if asked.get("response_mode").is_some_and(|mode| mode != "query") {
        return Err(Wrong::request("only response_mode=query is supported"));
    }
    if asked.get("code_challenge_method") != Some("S256") {
        return Err(Wrong::request("PKCE with code_challenge_method=S256 is required"));
    }
    let challenge = asked.needed("code_challenge")?;
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if challenge.len() != CHALLENGE_CHARS || !challenge.bytes().all(is_base64url) {
        return Err(Wrong::request("code_challenge is no SHA-256 as base64url"));
    }
    asked.needed("state")?;
    if ["state", "nonce"]
        .iter()
        .any(|name| asked.get(name).is_some_and(|text| text.len() > STATE_LIMIT_BYTES))
    {
        return Err(Wrong::request("state or nonce is too long"));
    }
    // A token for another server's address would be played to us by whoever got it there.
    let audience = asked.needed("aud")?;
    if audience.trim_end_matches('/') != format!("{origin}/fhir") {
        return Err(Wrong::request(format!("aud must be {origin}/fhir")));
    }
    if asked.get("prompt") == Some("none") {
        return Err(Wrong::new(Word::InteractionRequired, "a person must decide"));
    }
    Ok(())
}

/// What could be granted: what is asked for, as far as the registration reaches.
fn granted(asked: &Parameters, client: &Client, user: &User) -> Result<(Scopes, Vec<String>), Wrong> {
    let (wanted, mut refused) = Scopes::parse_some(asked.needed("scope")?)
        .map_err(|error| Wrong::new(Word::InvalidScope, error.to_string()))?;
    let mut scopes = wanted.of(&[Context::Patient, Context::User]).intersect(&client.scopes);
    // The longer of the two says both.
    if scopes.has(Extra::OfflineAccess) {
        scopes = scopes.without(Extra::OnlineAccess);
    }
    if user.role == Role::Patient && user.patient.is_none() && scopes.needs_patient() {
        return Err(Wrong::new(Word::AccessDenied, "this person is no patient here yet"));
    }
    for one in wanted.resources() {
        let one = one.to_string();
        if one.parse::<Scopes>().is_ok_and(|one| !scopes.covers(&one)) {
            refused.push(one);
        }
    }
    if scopes.is_empty() {
        return Err(Wrong::new(Word::InvalidScope, "none of these scopes is open to the program"));
    }
    Ok((scopes, refused))
}

/// The address that says to the program what went wrong (RFC 6749 §4.1.2.1), and who says it (RFC 9207).
fn returned(redirect_uri: &str, state: &str, origin: &str, wrong: &Wrong) -> String {
    let mut parameters = vec![("error", wrong.word.text()), ("error_description", wrong.what.as_str())];
    if !state.is_empty() {
        parameters.push(("state", state));
    }
    parameters.push(("iss", origin));
    with_parameters(redirect_uri, &parameters)
}

/// What the person decides on.
#[derive(Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub(crate) enum Step {
    /// Whether to let the program in.
    Consent(Box<ConsentView>),
    /// Nothing: the program asked wrongly, and is told.
    Return {
        /// Where the browser goes.
        redirect_to: String,
    },
}

#[derive(Serialize)]
pub(crate) struct ConsentView {
    client: ClientView,
    redirect_host: String,
    user: PersonView,
    scopes: Vec<ScopeView>,
    refused_scopes: Vec<String>,
    needs_patient: bool,
    patient: Option<PatientView>,
    lasts: &'static str,
}

#[derive(Serialize)]
struct ClientView {
    id: String,
    name: String,
    registered_at: Timestamp,
    is_confidential: bool,
}

#[derive(Serialize)]
struct PersonView {
    name: String,
    display: String,
}

#[derive(Serialize)]
struct PatientView {
    id: String,
    display: String,
}

#[derive(Serialize)]
struct ScopeView {
    scope: String,
    words: String,
    needs_patient: bool,
}

fn view(asked: &Asked, user: &User) -> ConsentView {
    let resources = asked.scopes.resources().iter().map(|one| ScopeView {
        scope: one.to_string(),
        words: one.words(),
        needs_patient: one.context == Context::Patient,
    });
    let extras = asked.scopes.extras().iter().map(|one| ScopeView {
        scope: one.word().to_owned(),
        words: one.words().to_owned(),
        needs_patient: *one == Extra::LaunchPatient,
    });
    let own = (user.role == Role::Patient).then_some(user.patient).flatten();
    let needs_patient = asked.scopes.needs_patient();
    let redirect_host = asked
        .redirect_uri
        .split_once("://")
        .map_or(asked.redirect_uri.as_str(), |(_, rest)| rest.split(['/', '?']).next().unwrap_or(rest));
    ConsentView {
        client: ClientView {
            id: asked.client.id_text(),
            name: asked.client.name.clone(),
            registered_at: asked.client.record.created_at,
            is_confidential: asked.client.is_confidential(),
        },
        redirect_host: redirect_host.to_owned(),
        user: PersonView { name: user.name.clone(), display: user.display.clone() },
        scopes: resources.chain(extras).collect(),
        refused_scopes: asked.refused.clone(),
        needs_patient: needs_patient && own.is_none(),
        patient: own
            .filter(|_| needs_patient)
            .map(|id| PatientView { id: id.to_string(), display: user.display.clone() }),
        lasts: match () {
            () if asked.scopes.has(Extra::OfflineAccess) => "offline",
            () if asked.scopes.has(Extra::OnlineAccess) => "session",
            () => "short",
        },
    }
}

fn person_of(access: &Access) -> Result<User, Problem> {
    let person = access.person().cloned();
    person.ok_or_else(|| Problem::new(ProblemCode::Forbidden, "only a person can let a program in"))
}

/// `GET /api/v1/authorize`: what a program asks for, for the page that puts it before the person.
pub(crate) async fn describe(
    State(web): State<Arc<Web>>,
    permit: Permit<may::SignedIn>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer<Step> {
    let user = person_of(permit.access())?;
    match read(&web, &headers, query.as_deref().unwrap_or(""), &user) {
        Ok(asked) => Ok(Json(Step::Consent(Box::new(view(&asked, &user))))),
        Err(Unfit::Returned(redirect_to)) => Ok(Json(Step::Return { redirect_to })),
        Err(Unfit::Shown(problem)) => Err(problem),
    }
}

/// The decision of the person.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decision {
    query: String,
    approve: bool,
    #[serde(default)]
    patient: Option<String>,
    /// Those that the person left ticked; none: all.
    #[serde(default)]
    scopes: Option<Vec<String>>,
}

#[derive(Serialize)]
pub(crate) struct Decided {
    redirect_to: String,
}

/// `POST /api/v1/authorize`
pub(crate) async fn decide(
    State(web): State<Arc<Web>>,
    permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
    headers: HeaderMap,
    Body(decision): Body<Decision>,
) -> Answer<Decided> {
    let user = person_of(permit.access())?;
    let mut asked = match read(&web, &headers, &decision.query, &user) {
        Ok(asked) => asked,
        Err(Unfit::Returned(redirect_to)) => return Ok(Json(Decided { redirect_to })),
        Err(Unfit::Shown(problem)) => return Err(problem),
    };
    let denied = |asked: &Asked, what: &str| {
        let wrong = Wrong::new(Word::AccessDenied, what);
        Ok(Json(Decided { redirect_to: returned(&asked.redirect_uri, &asked.state, &asked.origin, &wrong) }))
    };
    if !decision.approve {
        return denied(&asked, "the person did not let the program in");
    }
    if let Some(ticked) = &decision.scopes {
        let (ticked, _) =
            Scopes::parse_some(&ticked.join(" ")).map_err(|error| Problem::bad_request(error.to_string()))?;
        // Only what was shown can be left ticked.
        asked.scopes = asked.scopes.intersect(&ticked);
    }
    if asked.scopes.is_empty() {
        return denied(&asked, "the person left nothing of it");
    }
    if asked.scopes.has(Extra::OfflineAccess) {
        current.require_fresh(web.site.clock().now())?;
    }
    web.blocking(move |web| {
        let patient = chosen(web, permit.access(), &user, &asked, decision.patient.as_deref())?;
        keep(web, permit.access(), &current, asked, patient)
    })
    .await?
}

/// The patient in context: a patient's own self, or one whom the person may see.
fn chosen(
    web: &Web,
    access: &Access,
    user: &User,
    asked: &Asked,
    chosen: Option<&str>,
) -> Result<Option<PatientId>, Problem> {
    if !asked.scopes.needs_patient() {
        return Ok(None);
    }
    if user.role == Role::Patient {
        return Ok(user.patient);
    }
    let chosen = chosen.ok_or_else(|| Problem::bad_request("choose a patient first"))?;
    let id: PatientId = id_of(chosen, "patient")?;
    match access.sight(web).patient_id(id) {
        true => Ok(Some(id)),
        false => Err(Problem::not_found("patient")),
    }
}

/// Keeps what was granted with a code for it, and answers with the way back.
fn keep(
    web: &Web,
    access: &Access,
    current: &Current,
    asked: Asked,
    patient: Option<PatientId>,
) -> Answer<Decided> {
    let now = web.site.clock().now();
    let is_offline = asked.scopes.has(Extra::OfflineAccess);
    let secret = TokenSecret::generate();
    let life = if is_offline { OFFLINE_LIFE } else { web.options.session_limit };
    let grant = Grant {
        id: trust::random_bytes(),
        client: asked.client.record.id,
        user: Some(current.user),
        session: (!is_offline).then_some(current.hash.0),
        scopes: asked.scopes.to_string(),
        patient,
        created_at: now,
        used_at: now,
        ends_at: now.plus(life),
        code: Some(Code {
            hash: secret.hash().0,
            redirect_uri: asked.redirect_uri.clone(),
            challenge: asked.challenge,
            nonce: asked.nonce,
            expires_at: now.plus(CODE_LIFE),
        }),
        spent_code: None,
        access: Vec::new(),
        refresh: None,
        spent: Vec::new(),
    };
    let mut act = access
        .act(AuditAction::Create, "grant")
        .detail(format!("{} was let in for {}", asked.client.name, grant.scopes));
    if let Some(patient) = patient {
        act = act.patient(patient);
    }
    let store = web.site.store();
    let writes = grants::beginning(store, &grant, now).map_err(pipeline::audited::ReadError::Store)?;
    let audit = vec![act.record(now, AuditOutcome::Success)];
    store.transact(&Transaction { at: now, writes, audit, ..Transaction::default() })?;
    let code = grants::ticket(grant.id, &secret);
    let parameters =
        [("code", code.expose()), ("state", asked.state.as_str()), ("iss", asked.origin.as_str())];
    Ok(Json(Decided { redirect_to: with_parameters(&asked.redirect_uri, &parameters) }))
}
