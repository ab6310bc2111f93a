//! Setup, sign-in, sign-out, and who is signed in.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use clinical_model::{PlaceId, Timestamp};
use pipeline::audited::Act;
use serde::{Deserialize, Serialize};
use store::{Actor, AuditAction, AuditOutcome};
use trust::password::MAX_PASSWORD_BYTES;

use super::Body;
use crate::operations::signed_in;
use crate::people::{NewUser, PeopleError, Role, User};
use crate::problem::{Code, Problem};
use crate::session::{self, RemoteAddress};
use crate::state::Web;

#[derive(Serialize)]
pub(crate) struct SiteView {
    name: String,
    demo: bool,
}

#[derive(Serialize)]
pub(crate) struct UserView {
    pub id: String,
    pub name: String,
    pub display: String,
    pub role: Role,
    pub wards: Option<Vec<PlaceId>>,
}

pub(crate) fn user_view(user: &User) -> UserView {
    UserView {
        id: user.id.to_string(),
        name: user.name.clone(),
        display: user.display.clone(),
        role: user.role,
        wards: user.wards.clone(),
    }
}

#[derive(Serialize)]
struct SessionView {
    state: &'static str,
    site: SiteView,
    user: Option<UserView>,
    idle_timeout_s: u64,
    expires_at: Option<Timestamp>,
}

fn view(web: &Web, user: Option<&User>, expires_at: Option<Timestamp>) -> SessionView {
    let state = match user {
        Some(_) => "signed-in",
        None if web.people.is_empty() => "setup-needed",
        None => "signed-out",
    };
    SessionView {
        state,
        site: SiteView { name: web.options.site_name.clone(), demo: web.options.demo },
        user: user.map(user_view),
        idle_timeout_s: web.options.idle_timeout.as_secs(),
        expires_at,
    }
}

pub(crate) async fn show(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let answer = match signed_in(&web, &headers, false).await {
        Ok((access, current)) => {
            let user = access.user().and_then(|id| web.people.by_id(id));
            view(&web, user.as_ref(), Some(current.expires_at))
        }
        Err(_) => view(&web, None, None),
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

#[derive(Deserialize)]
pub(crate) struct Setup {
    token: String,
    name: String,
    display: String,
    password: String,
}

pub(crate) async fn set_up(
    State(web): State<Arc<Web>>,
    Body(setup): Body<Setup>,
) -> Result<Response, Problem> {
    let new = NewUser {
        name: setup.name,
        display: setup.display,
        role: Role::Administrator,
        wards: None,
        password: setup.password,
    };
    let user = web.blocking(move |web| web.set_up(&setup.token, new)).await?.map_err(people_problem)?;
    begin(&web, user).await
}

/// What went wrong with a person, as a client sees it.
pub(crate) fn people_problem(error: PeopleError) -> Problem {
    match &error {
        PeopleError::SetupClosed => Problem::new(Code::SetupClosed, error.to_string()),
        PeopleError::Exists { .. } => Problem::new(Code::Exists, error.to_string()),
        PeopleError::Name { .. } => Problem::bad_request(error.to_string()),
        PeopleError::Weak(cause) => Problem::bad_request(format!("{error}: {cause}")),
        PeopleError::Store(_) | PeopleError::Record(_) | PeopleError::Hash(_) | PeopleError::Keep(_) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a person could not be kept");
            Problem::internal()
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct SignIn {
    name: String,
    password: String,
}

pub(crate) async fn sign_in(
    State(web): State<Arc<Web>>,
    remote: Option<Extension<RemoteAddress>>,
    Body(given): Body<SignIn>,
) -> Result<Response, Problem> {
    let address = remote.map(|Extension(RemoteAddress(address))| address);
    let now = web.site.clock().now();
    let name = given.name.clone();
    let wait = web.blocking(move |web| web.guard.attempt(&name, address, now)).await??;
    if let Some(wait_s) = wait {
        let detail = format!("too many failed attempts; try again in {wait_s} s");
        return Err(Problem::new(Code::TooManyAttempts, detail).retry_after(wait_s));
    }
    let name = given.name.clone();
    let checked = web
        .blocking(move |web| {
            // Longer than any password may be: wrong, and no fault of ours. The check takes its time all the same.
            let fits = given.password.len() <= MAX_PASSWORD_BYTES;
            let user = web.people.check(&given.name, if fits { &given.password } else { "" }, web);
            let (actor, outcome) = match &user {
                Ok(Some(user)) => (Actor::User(user.id), AuditOutcome::Success),
                _ => (Actor::Unproven(given.name.chars().take(100).collect()), AuditOutcome::Refused),
            };
            let from = address.map_or_else(String::new, |address| format!("from {address}"));
            let act = Act::new(actor, AuditAction::SignIn, "session").detail(from);
            web.site.record(act, outcome).map(|()| user)
        })
        .await??;
    let user = checked.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a password could not be checked");
        Problem::internal()
    })?;
    let user = user.ok_or_else(|| Problem::new(Code::BadCredentials, "the name or the password is wrong"))?;
    web.blocking(move |web| web.guard.succeeded(&name, address, now)).await??;
    begin(&web, user).await
}

async fn begin(web: &Arc<Web>, user: User) -> Result<Response, Problem> {
    let now = web.site.clock().now();
    let id = user.id;
    let token = web.blocking(move |web| web.sessions.begin(&user, now)).await??;
    let cookie = session::cookie(&token, web.options.secure_cookies).ok_or_else(Problem::internal)?;
    let expires_at = now.plus(web.options.idle_timeout);
    let user = web.people.by_id(id);
    let mut response = Json(view(web, user.as_ref(), Some(expires_at))).into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

pub(crate) async fn sign_out(State(web): State<Arc<Web>>, headers: HeaderMap) -> Result<Response, Problem> {
    if let Ok((access, current)) = signed_in(&web, &headers, false).await {
        let act = Act::new(access.actor(), AuditAction::SignOut, "session");
        let end = move |web: &Web| {
            web.sessions.end(&current.hash, web.site.clock().now())?;
            web.site.record(act, AuditOutcome::Success)
        };
        web.blocking(end).await??;
    }
    let mut response = Json(view(&web, None, None)).into_response();
    response.headers_mut().insert(header::SET_COOKIE, session::no_cookie(web.options.secure_cookies));
    Ok(response)
}
