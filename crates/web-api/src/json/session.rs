//! Who is signed in: the session as a page sees it, setup, sign-out, and how a session begins.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Extensions, HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use clinical_model::{PatientId, PlaceId, Timestamp, UserId};
use pipeline::audited::Act;
use serde::{Deserialize, Serialize};
use store::{Actor, AuditAction, AuditOutcome};
use trust::TokenHash;

use super::Body;
use crate::access::Access;
use crate::known_browser;
use crate::operations::has_session;
use crate::people::{Kept, NewUser, PeopleError, Role, Subject, User};
use crate::problem::{Code, Problem};
use crate::session::{self, By, Caller, Current, NewSession, Stage};
use crate::state::Web;

/// Where a request comes from, with its headers: an extractor for handlers that begin sessions.
pub(crate) struct Asking {
    pub caller: Caller,
    pub headers: HeaderMap,
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Asking {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        _state: &S,
    ) -> Result<Self, Self::Rejection> {
        Ok(Asking::of(&parts.headers, &parts.extensions))
    }
}

impl Asking {
    pub(crate) fn of(headers: &HeaderMap, extensions: &Extensions) -> Self {
        Asking { caller: Caller::of(headers, extensions), headers: headers.clone() }
    }
}

#[derive(Serialize)]
pub(crate) struct SiteView {
    name: String,
    demo: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    demo_people: Vec<DemoPerson>,
}

#[derive(Serialize)]
struct DemoPerson {
    name: String,
    display: String,
    role: Role,
}

#[derive(Serialize)]
pub(crate) struct UserView {
    pub id: String,
    pub name: String,
    pub display: String,
    pub role: Role,
    pub wards: Option<Vec<PlaceId>>,
    pub care_teams: Vec<String>,
    pub patient: Option<PatientId>,
}

pub(crate) fn user_view(user: &User) -> UserView {
    UserView {
        id: user.id.to_string(),
        name: user.name.clone(),
        display: user.display.clone(),
        role: user.role,
        wards: user.wards.clone(),
        care_teams: user.care_teams.clone(),
        patient: user.patient,
    }
}

/// The session as a page sees it.
#[derive(Serialize)]
pub(crate) struct SessionView {
    state: &'static str,
    site: SiteView,
    user: Option<UserView>,
    permissions: Vec<&'static str>,
    idle_timeout_s: u64,
    expires_at: Option<Timestamp>,
    passkeys: bool,
    second_factors: Vec<&'static str>,
    fresh_until: Option<Timestamp>,
    recovery_codes_left: Option<usize>,
    is_complete: bool,
    /// Who at an identity provider becomes the person who signs in here now.
    linking: Option<Subject>,
}

/// Whether a browser that calls this server so can use passkeys here.
fn can_passkeys(web: &Web, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let id = web.party.id();
    name == id || name.strip_suffix(id).is_some_and(|front| front.ends_with('.'))
}

fn second_factors(kept: &Kept, current: &Current) -> Vec<&'static str> {
    let record = &kept.record;
    let all = [
        ("passkey", !record.passkeys.is_empty()),
        ("totp", record.totp.is_some()),
        ("recovery-code", !record.recovery_codes.is_empty()),
        ("demo-link", current.by == By::Demo),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(word, _)| word).collect()
}

/// The session as a page sees it; `None`: nobody is signed in.
pub(crate) fn view(web: &Web, headers: &HeaderMap, current: Option<&Current>) -> SessionView {
    // Whoever has proven nothing learns nothing of the person.
    let linking = current.and_then(|current| current.vouched.clone());
    let current = current.filter(|current| current.stage != Stage::Linking);
    let known = current.and_then(|current| Some((current, web.people.kept(current.user)?)));
    let state = match &known {
        Some((current, _)) => match current.stage {
            Stage::Whole => "signed-in",
            Stage::Enrolling => "enrolment-needed",
            Stage::SecondFactor => "second-factor-needed",
            Stage::Linking => "signed-out",
        },
        None if web.people.is_setup_open() && !web.options.demo => "setup-needed",
        None => "signed-out",
    };
    // A password that somebody knows tells them nothing of whose it is.
    let shown = known.as_ref().filter(|(current, _)| current.stage != Stage::SecondFactor);
    let user = shown.map(|(_, kept)| kept.record.user());
    let is_whole = state == "signed-in";
    let permissions =
        user.clone().filter(|_| is_whole).map(|user| Access::of_person(web, user).permissions());
    let person = |kept: Kept| {
        let user = kept.record.user();
        DemoPerson { name: user.name, display: user.display, role: user.role }
    };
    let demo_people =
        if web.options.demo { web.people.list().into_iter().map(person).collect() } else { Vec::new() };
    SessionView {
        state,
        site: SiteView { name: web.options.site_name.clone(), demo: web.options.demo, demo_people },
        user: user.as_ref().map(user_view),
        permissions: permissions.unwrap_or_default(),
        idle_timeout_s: web.options.idle_timeout.as_secs(),
        expires_at: known.as_ref().map(|(current, _)| current.expires_at),
        passkeys: can_passkeys(web, headers),
        second_factors: known
            .as_ref()
            .map(|(current, kept)| second_factors(kept, current))
            .unwrap_or_default(),
        fresh_until: current.and_then(Current::fresh_until),
        recovery_codes_left: shown.map(|(_, kept)| kept.record.recovery_codes.len()),
        is_complete: shown.is_some_and(|(_, kept)| kept.record.is_complete()),
        linking,
    }
}

pub(crate) async fn show(State(web): State<Arc<Web>>, from: Asking) -> Response {
    let current = has_session(&web, &from.caller, &from.headers, false).await.ok();
    let answer = view(&web, &from.headers, current.as_ref().map(|(_, current)| current));
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setup {
    token: String,
    name: String,
    display: String,
    password: Option<String>,
}

pub(crate) async fn set_up(
    State(web): State<Arc<Web>>,
    from: Asking,
    Body(setup): Body<Setup>,
) -> Result<Response, Problem> {
    let new = NewUser {
        name: setup.name,
        display: setup.display,
        role: Role::Administrator,
        wards: None,
        care_teams: Vec::new(),
        patient: None,
    };
    let by = from.caller.by(Actor::Unproven("first start".to_owned()));
    let user = web.blocking(move |web| web.set_up(&by, &setup.token, new, setup.password.as_deref())).await?;
    let user = user.map_err(people_problem)?.id;
    begin(&web, &from, beginning(&from, user, Stage::Enrolling, By::Link, "after the first start")).await
}

/// What went wrong with a person, as a client sees it.
pub(crate) fn people_problem(error: PeopleError) -> Problem {
    use PeopleError as E;
    let with_cause = |error: &PeopleError| match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    match &error {
        E::SetupClosed => Problem::new(Code::SetupClosed, error.to_string()),
        E::Exists { .. } | E::PasskeyKnown | E::LinkTaken | E::HasWayIn => {
            Problem::new(Code::Exists, error.to_string())
        }
        E::Name { .. } | E::CareTeams | E::PatientOfRole | E::TooManyPasskeys | E::Ceremony => {
            Problem::bad_request(error.to_string())
        }
        E::Weak(_) | E::Passkey(_) => Problem::bad_request(with_cause(&error)),
        E::NotFound => Problem::not_found("person"),
        E::NoLink => Problem::not_found("link to an identity provider"),
        E::Changed => Problem::new(Code::ChangedBySomebodyElse, error.to_string()),
        E::LastAdministrator => Problem::new(Code::LastAdministrator, error.to_string()),
        E::LastWayIn => Problem::new(Code::LastWayIn, error.to_string()),
        E::BadCode => Problem::new(Code::BadCode, error.to_string()),
        E::Completed => Problem::new(Code::SignedOut, error.to_string()),
        E::LinkSpent => Problem::new(Code::LinkSpent, error.to_string()),
        E::Store(_) | E::Record(_) | E::Hash(_) | E::Keep(_) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a person could not be read or kept");
            Problem::internal()
        }
    }
}

/// A session that is to begin, with nothing else to say of it but how.
pub(crate) fn beginning(from: &Asking, user: UserId, stage: Stage, by: By, how: &str) -> NewSession {
    let caller = from.caller.clone();
    let act = sign_in_act(&caller, Actor::User(user), how);
    // Whoever begins a session ends the one they had: a token that was known before proves nothing after.
    let replaces = session::token_of(&from.headers).map(|token| token.hash());
    NewSession { user, stage, by, second_factor_at: None, caller, vouched: None, replaces, act }
}

/// The act of signing in, or of trying to, somewhere.
pub(crate) fn sign_in_act(caller: &Caller, actor: Actor, how: &str) -> Act {
    caller.by(actor).act(AuditAction::SignIn, "session").detail(format!("{how}{}", caller.words()))
}

impl Web {
    /// Where a person stands who proved a first factor, or both.
    pub(crate) fn stage_of(&self, user: UserId, second_factor_at: Option<Timestamp>) -> Stage {
        match self.people.kept(user) {
            Some(kept) if !kept.record.is_complete() => Stage::Enrolling,
            _ if second_factor_at.is_some() => Stage::Whole,
            _ => Stage::SecondFactor,
        }
    }
}

/// Who acts where an identity provider says no more than a name.
fn unproven(subject: &Subject) -> Actor {
    Actor::Unproven(format!("\"{}\" of {}", subject.subject, subject.issuer))
}

/// As whom an identity provider vouches by name for the very person who now proves themself here by ways of their own.
async fn whom_vouched(web: &Arc<Web>, from: &Asking, new: &NewSession) -> Option<Subject> {
    if !matches!(new.by, By::Password | By::Passkey | By::RecoveryCode) || new.stage == Stage::Enrolling {
        return None;
    }
    let (user, waiting) = has_session(web, &from.caller, &from.headers, false).await.ok()?;
    waiting.vouched.filter(|_| user.id == new.user)
}

/// Begins a session, in the place of the one that the request carries: its cookies. One that is whole makes the link to the
/// identity provider that waited for it, one that needs a second factor takes it along.
pub(crate) async fn begin_cookies(
    web: &Arc<Web>,
    from: &Asking,
    mut new: NewSession,
) -> Result<Vec<HeaderValue>, Problem> {
    let now = web.site.clock().now();
    let (user, is_whole, headers) = (new.user, new.stage == Stage::Whole, from.headers.clone());
    match whom_vouched(web, from, &new).await {
        Some(subject) if is_whole => {
            let by = from.caller.by(user);
            match web.blocking(move |web| web.link_provider(by, true, &subject)).await? {
                // Somebody else was faster. Whoever signs in as they always do is in all the same.
                Err(error @ PeopleError::LinkTaken) => {
                    tracing::info!(error = &error as &dyn std::error::Error, "nobody was linked");
                }
                linked => linked.map_err(people_problem)?,
            }
        }
        None => {}
        vouched => new.vouched = vouched,
    }
    let (token, known) = web
        .blocking(move |web| {
            let token = web.sessions.begin(new, now)?;
            let name = web.people.by_id(user).map(|user| user.name).unwrap_or_default();
            let known = is_whole.then(|| {
                known_browser::cookie(web.site.store(), &headers, &name, now, web.options.secure_cookies)
            });
            if is_whole && let Err(error) = web.signed_in_now(user) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the last sign-in was not written down"
                );
            }
            Ok::<_, store::TransactError>((token, known.flatten()))
        })
        .await??;
    let cookie = session::cookie(&token, web.options.secure_cookies).ok_or_else(Problem::internal)?;
    Ok([Some(cookie), known].into_iter().flatten().collect())
}

/// Begins a session and answers with it.
pub(crate) async fn begin(web: &Arc<Web>, from: &Asking, new: NewSession) -> Result<Response, Problem> {
    let cookies = begin_cookies(web, from, new).await?;
    let mut headers = from.headers.clone();
    headers.remove(header::COOKIE);
    let token = cookies.first().and_then(|cookie| cookie.to_str().ok()?.split(';').next()?.parse().ok());
    if let Some(token) = token {
        headers.insert(header::COOKIE, token);
    }
    let current = has_session(web, &from.caller, &headers, false).await.ok();
    let answer = view(web, &headers, current.as_ref().map(|(_, current)| current));
    let mut response = ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response();
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Begins the session of a person whom an identity provider vouches for: its cookies, for an answer that leads on.
/// `second_factor_at`: when a second factor was used there, where that counts. `vouched`: who they are there, where they are
/// known by name only so far; then somebody who has ways in of their own has proven nothing yet.
///
/// # Errors
/// [`Problem`] where it could not be kept, or the person may not sign in.
pub(crate) async fn begin_by_provider(
    web: &Arc<Web>,
    from: &Asking,
    user: &User,
    vouched: Option<Subject>,
    second_factor_at: Option<Timestamp>,
) -> Result<Vec<HeaderValue>, Problem> {
    if user.disabled {
        return Err(Problem::new(Code::BadCredentials, "this person may not sign in"));
    }
    // Where the provider's second factor counts, nothing is outstanding here; else it is ours that is asked for.
    let stage = match (second_factor_at, web.stage_of(user.id, None)) {
        (Some(_), _) => Stage::Whole,
        (None, Stage::SecondFactor) if vouched.is_some() => Stage::Linking,
        (None, stage) => stage,
    };
    let new = beginning(from, user.id, stage, By::Provider, "by the identity provider");
    if let (Stage::Linking, Some(subject)) = (stage, &vouched) {
        let how = format!("to be linked as {}, not signed in yet", user.id);
        let act = sign_in_act(&from.caller, unproven(subject), &how);
        return begin_cookies(web, from, NewSession { vouched, act, ..new }).await;
    }
    // Nothing is there that they could prove themself by: an administrator said that the first who comes becomes the
    // person, and this is the first. A second one is told so.
    if let Some(subject) = vouched {
        let by = from.caller.by(user.id);
        web.blocking(move |web| web.link_provider(by, false, &subject)).await?.map_err(people_problem)?;
    }
    begin_cookies(web, from, NewSession { second_factor_at, ..new }).await
}

/// After a change of the way in: a session that was waiting for it goes on as a whole one, under a new token.
pub(crate) async fn go_on(web: &Arc<Web>, from: &Asking, current: &Current) -> Result<Response, Problem> {
    let now = web.site.clock().now();
    let is_complete = web.people.kept(current.user).is_some_and(|kept| kept.record.is_complete());
    if current.stage == Stage::Enrolling && is_complete {
        let how = "after a complete way in was set";
        let whole = beginning(from, current.user, Stage::Whole, current.by, how);
        // Nobody else goes on who had still to prove themself.
        let (user, hash) = (current.user, current.hash);
        let ending = from
            .caller
            .by(Actor::User(user))
            .act(AuditAction::SignOut, "session")
            .detail("all own sessions but this one, for the way in was made complete");
        web.blocking(move |web| web.end_sessions_of(user, Some(&hash), ending))
            .await?
            .map_err(people_problem)?;
        return begin(web, from, NewSession { second_factor_at: Some(now), ..whole }).await;
    }
    same(web, from, &current.hash).await
}

/// The session as it stands now.
pub(crate) async fn same(web: &Arc<Web>, from: &Asking, hash: &TokenHash) -> Result<Response, Problem> {
    let (hash, now) = (*hash, web.site.clock().now());
    let current = web.blocking(move |web| web.sessions.look(&hash, now, false)).await??;
    Ok(Json(view(web, &from.headers, current.as_ref())).into_response())
}

pub(crate) async fn sign_out(State(web): State<Arc<Web>>, from: Asking) -> Result<Response, Problem> {
    if let Ok((user, current)) = has_session(&web, &from.caller, &from.headers, false).await {
        let actor = match (current.stage, &current.vouched) {
            (Stage::Linking, Some(subject)) => unproven(subject),
            _ => Actor::User(user.id),
        };
        let act = from.caller.by(actor).act(AuditAction::SignOut, "session");
        let now = web.site.clock().now();
        web.blocking(move |web| web.sessions.end(&current.hash, act, AuditOutcome::Success, now)).await??;
    }
    let mut response = Json(view(&web, &from.headers, None)).into_response();
    response.headers_mut().insert(header::SET_COOKIE, session::no_cookie(web.options.secure_cookies));
    Ok(response)
}
