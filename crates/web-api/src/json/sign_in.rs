//! Signing in: a passkey; or a password and then a code; or a one-time link. Answers tell nobody which names there are.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use clinical_model::UserId;
use serde::{Deserialize, Serialize};
use store::{Actor, AuditOutcome};
use tokio::sync::SemaphorePermit;
use trust::TokenSecret;

use super::session::{Asking, begin, beginning, people_problem, sign_in_act};
use super::webauthn::{AuthenticationResponse, request_options};
use super::{Answer, Body};
use crate::ceremony::{self, Purpose};
use crate::guard::Trying;
use crate::known_browser;
use crate::operations::has_session;
use crate::people::{Checked, PeopleError, User};
use crate::problem::{Code, Problem};
use crate::session::{By, Current, NewSession, Stage};
use crate::state::Web;

/// Longest wait for a turn to check a password, when many are checked at one time.
const TURN_LIMIT: Duration = Duration::from_secs(5);
/// Whom the demonstration's link signs in as where nobody is named.
const DEMO_PERSON: &str = "nurse";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    name: String,
    password: String,
    code: Option<String>,
}

fn wrong() -> Problem {
    Problem::new(Code::BadCredentials, "the name or the password is wrong")
}

/// Counts an attempt, or says how long to wait.
async fn count(web: &Arc<Web>, trying: &Trying) -> Result<(), Problem> {
    let (trying, now) = (trying.clone(), web.site.clock().now());
    match web.blocking(move |web| web.guard.attempt(&trying, now)).await?? {
        None => Ok(()),
        Some(wait_s) => {
            let detail = format!("too many failed attempts; try again in {wait_s} s");
            Err(Problem::new(Code::TooManyAttempts, detail).retry_after(wait_s))
        }
    }
}

async fn succeeded(web: &Arc<Web>, trying: Trying) -> Result<(), Problem> {
    let now = web.site.clock().now();
    Ok(web.blocking(move |web| web.guard.succeeded(&trying, now)).await??)
}

/// A turn to hash a password.
pub(crate) async fn turn(web: &Web) -> Result<SemaphorePermit<'_>, Problem> {
    match tokio::time::timeout(TURN_LIMIT, web.hashing.acquire()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => {
            let detail = "too many passwords are being checked; try again in a moment";
            Err(Problem::new(Code::Unavailable, detail).retry_after(2))
        }
    }
}

/// Records that nobody was let in. Who is let in is recorded with their session.
pub(crate) async fn refused(web: &Arc<Web>, from: &Asking, actor: Actor, why: &str) -> Result<(), Problem> {
    let act = sign_in_act(&from.caller, actor, why);
    Ok(web.blocking(move |web| web.site.record(act, AuditOutcome::Refused)).await??)
}

/// As [`refused`], where nothing slows down who tries.
async fn stranger_refused(web: &Arc<Web>, from: &Asking, actor: Actor, why: &str) -> Result<(), Problem> {
    let (caller, act) = (from.caller.clone(), sign_in_act(&from.caller, actor, why));
    Ok(web.blocking(move |web| web.stranger_refused(&caller, act)).await??)
}

pub(crate) async fn sign_in(
    State(web): State<Arc<Web>>,
    from: Asking,
    Body(given): Body<SignIn>,
) -> Result<Response, Problem> {
    let now = web.site.clock().now();
    let browser = known_browser::known(web.site.store(), &from.headers, &given.name, now);
    let trying = Trying::Password { name: given.name.clone(), address: from.caller.address, browser };
    count(&web, &trying).await?;
    let checked = {
        let _turn = turn(&web).await?;
        let (name, password) = (given.name.clone(), given.password);
        web.blocking(move |web| web.check_password(&name, &password)).await?
    };
    let checked = checked.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a password could not be checked");
        Problem::internal()
    })?;
    let (user, stage) = match checked {
        Checked::Wrong => {
            let name = given.name.chars().take(100).collect();
            refused(&web, &from, Actor::Unproven(name), "wrong password").await?;
            return Err(wrong());
        }
        Checked::Incomplete(user) => (user, Stage::Enrolling),
        Checked::CodeNeeded(user) => (user, Stage::SecondFactor),
    };
    succeeded(&web, trying).await?;
    let code = given.code.filter(|_| stage == Stage::SecondFactor);
    let Some(code) = code else {
        let new = beginning(&from, user.id, stage, By::Password, "the password alone");
        return begin(&web, &from, new).await;
    };
    by_code(&web, &from, &user, (By::Password, "a code"), move |web| web.take_totp(user.id, &code)).await
}

/// Takes a code and goes on as a whole session, which began as the first factor says.
async fn by_code<T: Send + 'static>(
    web: &Arc<Web>,
    from: &Asking,
    user: &User,
    (by, what): (By, &str),
    take: impl FnOnce(&Web) -> Result<T, PeopleError> + Send + 'static,
) -> Result<Response, Problem> {
    try_code(web, from, user, what, take).await?;
    let now = web.site.clock().now();
    let whole = beginning(from, user.id, Stage::Whole, by, &format!("by {what}"));
    begin(web, from, NewSession { second_factor_at: Some(now), ..whole }).await
}

/// Counts the try of a code and takes it. A wrong one is recorded here, a right one with what follows of it.
pub(crate) async fn try_code<T: Send + 'static>(
    web: &Arc<Web>,
    from: &Asking,
    user: &User,
    what: &str,
    take: impl FnOnce(&Web) -> Result<T, PeopleError> + Send + 'static,
) -> Result<(), Problem> {
    let now = web.site.clock().now();
    let browser = known_browser::known(web.site.store(), &from.headers, &user.name, now);
    let trying = Trying::Code { user: user.id, browser };
    count(web, &trying).await?;
    let taken = web.blocking(take).await?;
    if let Err(error) = taken {
        refused(web, from, Actor::User(user.id), &format!("by {what}")).await?;
        return Err(people_problem(error));
    }
    succeeded(web, trying).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GivenCode {
    pub code: String,
}

/// The session that waits for a code, if there is one; each call is a try.
async fn waiting(web: &Arc<Web>, from: &Asking) -> Result<(User, Current), Problem> {
    let (user, current) = has_session(web, &from.caller, &from.headers, true).await?;
    let begin_again = || Problem::new(Code::SignedOut, "begin again with your name and password");
    if current.stage != Stage::SecondFactor {
        return Err(begin_again());
    }
    let (hash, caller, now) = (current.hash, from.caller.clone(), web.site.clock().now());
    if !web.blocking(move |web| web.sessions.may_try_code(&hash, &caller, now)).await?? {
        return Err(begin_again());
    }
    Ok((user, current))
}

pub(crate) async fn by_totp(
    State(web): State<Arc<Web>>,
    from: Asking,
    Body(given): Body<GivenCode>,
) -> Result<Response, Problem> {
    let (user, current) = waiting(&web, &from).await?;
    let id = user.id;
    by_code(&web, &from, &user, (current.by, "a code"), move |web| web.take_totp(id, &given.code)).await
}

pub(crate) async fn by_recovery_code(
    State(web): State<Arc<Web>>,
    from: Asking,
    Body(given): Body<GivenCode>,
) -> Result<Response, Problem> {
    let (user, _) = waiting(&web, &from).await?;
    let by = from.caller.by(user.id);
    let what = (By::RecoveryCode, "a recovery code");
    by_code(&web, &from, &user, what, move |web| web.take_recovery_code(by, &given.code)).await
}

/// A ceremony that begins: what the browser needs, and what it sends back.
#[derive(Serialize)]
pub(crate) struct Begun {
    pub ceremony: String,
    pub options: serde_json::Value,
}

/// A ceremony that ends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GivenPasskey {
    pub ceremony: String,
    pub credential: AuthenticationResponse,
}

pub(crate) async fn passkey_begin(State(web): State<Arc<Web>>) -> Answer<Begun> {
    let asked = ceremony::ask(web.site.store(), Purpose::SignIn, web.site.clock().now());
    Ok(Json(Begun { options: request_options(&web.party, &asked.challenge, &[]), ceremony: asked.token }))
}

pub(crate) async fn by_passkey(
    State(web): State<Arc<Web>>,
    from: Asking,
    Body(given): Body<GivenPasskey>,
) -> Result<Response, Problem> {
    let not_taken =
        || Problem::new(Code::BadCredentials, "this passkey was not taken; try again, or another way");
    let assertion = given.credential.decoded().map_err(|()| not_taken())?;
    let claimed = assertion.user;
    let now = web.site.clock().now();
    let taken = web
        .blocking(move |web| {
            let store = web.site.store();
            if let Err(error) = ceremony::sweep(store, now) {
                tracing::debug!(error = &error as &dyn std::error::Error, "used challenges were not swept");
            }
            let answered = ceremony::answered(store, Purpose::SignIn, &given.ceremony, now);
            web.take_passkey(&answered.ok_or(PeopleError::Ceremony)?, None, &assertion)
        })
        .await?;
    match taken {
        Ok(user) => {
            let whole = beginning(&from, user.id, Stage::Whole, By::Passkey, "by a passkey");
            begin(&web, &from, NewSession { second_factor_at: Some(now), ..whole }).await
        }
        Err(error @ (PeopleError::Store(_) | PeopleError::Keep(_) | PeopleError::Record(_))) => {
            Err(people_problem(error))
        }
        Err(error) => {
            let why =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let actor = claimed.filter(|id| web.people.by_id(*id).is_some());
            let actor = actor.map_or_else(|| Actor::Unproven("a passkey".to_owned()), named_by);
            stranger_refused(&web, &from, actor, &format!("passkey refused: {why}")).await?;
            Err(not_taken())
        }
    }
}

/// Whom a passkey named without proving it.
fn named_by(id: UserId) -> Actor {
    Actor::Unproven(format!("a passkey that names {id}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GivenLink {
    token: String,
    name: Option<String>,
}

pub(crate) async fn by_link(
    State(web): State<Arc<Web>>,
    from: Asking,
    Body(given): Body<GivenLink>,
) -> Result<Response, Problem> {
    if is_demo_token(&web, &given.token) {
        let name = given.name.unwrap_or_else(|| DEMO_PERSON.to_owned());
        let user = web.people.by_name(&name).filter(|user| !user.disabled);
        let user = user.ok_or_else(|| Problem::not_found("person of the demonstration"))?;
        let whole = beginning(&from, user.id, Stage::Whole, By::Demo, "by the demonstration's link");
        let second_factor_at = Some(web.site.clock().now());
        return begin(&web, &from, NewSession { second_factor_at, ..whole }).await;
    }
    let caller = from.caller.clone();
    let spent = web.blocking(move |web| web.spend_link(&given.token, &caller)).await?;
    if matches!(spent, Err(PeopleError::LinkSpent)) {
        let actor = Actor::Unproven("a one-time link".to_owned());
        stranger_refused(&web, &from, actor, "the link does not work").await?;
    }
    let user = spent.map_err(people_problem)?;
    begin(&web, &from, beginning(&from, user.id, Stage::Enrolling, By::Link, "after a one-time link")).await
}

/// Whether it is the token of the demonstration's link.
pub(crate) fn is_demo_token(web: &Web, given: &str) -> bool {
    let demo = web.demo_token.as_ref();
    demo.is_some_and(|token| TokenSecret::parse(given).is_ok_and(|given| token.hash().matches(&given)))
}
