//! One's own account: ways in, recovery codes and sessions; and proving oneself again for acts that need it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clinical_model::{Timestamp, UserId};
use pipeline::audited::Agent;
use serde::{Deserialize, Serialize};
use store::{Actor, AuditAction};
use trust::webauthn;

use super::session::{Asking, UserView, go_on, people_problem, same, sign_in_act, user_view};
use super::sign_in::{Begun, GivenCode, GivenPasskey, is_demo_token, refused, try_code, turn};
use super::webauthn::{RegistrationResponse, creation_options, request_options};
use super::{Answer, Body, hex};
use crate::access::{Permit, may};
use crate::ceremony::{self, Purpose};
use crate::people::{Kept, PeopleError, ProviderLink, User, UserRecord};
use crate::problem::{Code, Problem};
use crate::session::{By, Current, Record};
use crate::state::Web;

/// One's own account.
#[derive(Serialize)]
pub(crate) struct AccountView {
    user: UserView,
    has_password: bool,
    totp: Option<TotpView>,
    passkeys: Vec<PasskeyView>,
    provider_links: Vec<LinkView>,
    recovery_codes_left: usize,
    is_complete: bool,
}

#[derive(Serialize)]
struct TotpView {
    added_at: Timestamp,
}

#[derive(Serialize)]
struct PasskeyView {
    id: String,
    name: String,
    added_at: Timestamp,
    last_used_at: Option<Timestamp>,
    is_synced: bool,
}

/// A link to an identity provider, for its owner and for administrators.
#[derive(Serialize)]
pub(crate) struct LinkView {
    id: String,
    #[serde(flatten)]
    link: ProviderLink,
}

pub(crate) fn link_views(record: &UserRecord) -> Vec<LinkView> {
    record.provider_links.iter().map(|link| LinkView { id: link.id(), link: link.clone() }).collect()
}

fn account_view(kept: &Kept) -> AccountView {
    let record = &kept.record;
    let passkey = |one: &crate::people::Passkey| PasskeyView {
        id: URL_SAFE_NO_PAD.encode(&one.id),
        name: one.name.clone(),
        added_at: one.added_at,
        last_used_at: one.last_used_at,
        is_synced: one.is_backed_up,
    };
    AccountView {
        user: user_view(&record.user()),
        has_password: record.password_hash.is_some(),
        totp: record.totp.as_ref().map(|totp| TotpView { added_at: totp.added_at }),
        passkeys: record.passkeys.iter().map(passkey).collect(),
        provider_links: link_views(record),
        recovery_codes_left: record.recovery_codes.len(),
        is_complete: record.is_complete(),
    }
}

/// Whose account it is, for the audit log.
fn by(permit: &Permit<may::SignedIn>, current: &Current) -> Agent<UserId> {
    permit.by().with(current.user)
}

fn kept(web: &Web, id: UserId) -> Result<Kept, Problem> {
    web.people.kept(id).ok_or_else(|| people_problem(PeopleError::NotFound))
}

pub(crate) async fn show(
    State(web): State<Arc<Web>>,
    _permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
) -> Answer<AccountView> {
    Ok(Json(account_view(&kept(&web, current.user)?)))
}

/// Changes a way in, and answers with the session, which may have become whole by it.
async fn change(
    web: &Arc<Web>,
    from: &Asking,
    current: &Current,
    change: impl FnOnce(&Web) -> Result<(), PeopleError> + Send + 'static,
) -> Result<Response, Problem> {
    web.blocking(change).await?.map_err(people_problem)?;
    go_on(web, from, current).await
}

pub(crate) async fn passkey_begin(
    State(web): State<Arc<Web>>,
    _permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
) -> Answer<Begun> {
    let kept = kept(&web, current.user)?;
    let purpose = Purpose::Register(&current.hash);
    let asked = ceremony::ask(web.site.store(), purpose, web.site.clock().now());
    let (user, passkeys) = (kept.record.user(), &kept.record.passkeys);
    let options = creation_options(&web.party, &web.options.site_name, &user, passkeys, &asked.challenge);
    Ok(Json(Begun { ceremony: asked.token, options }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPasskey {
    ceremony: String,
    #[serde(default)]
    name: String,
    credential: RegistrationResponse,
}

pub(crate) async fn add_passkey(
    State(web): State<Arc<Web>>,
    permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
    from: Asking,
    Body(new): Body<NewPasskey>,
) -> Result<Response, Problem> {
    let not_base64 = |()| Problem::bad_request("the passkey's answer is no base64url");
    let (client_data, object) = new.credential.decoded().map_err(not_base64)?;
    let (by, hash, stage) = (by(&permit, &current), current.hash, current.stage);
    let add = move |web: &Web| {
        let now = web.site.clock().now();
        let answered = ceremony::answered(web.site.store(), Purpose::Register(&hash), &new.ceremony, now);
        let answered = answered.ok_or(PeopleError::Ceremony)?;
        let registered = webauthn::register(&web.party, &answered.challenge, &client_data, &object);
        web.add_passkey(by, stage, answered.used, &registered.map_err(PeopleError::Passkey)?, &new.name)
    };
    change(&web, &from, &current, add).await
}

fn passkey_id(text: &str) -> Result<Vec<u8>, Problem> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Problem::not_found("passkey"))
}

/// A passkey that is not there, in its own words.
fn passkey_problem(error: PeopleError) -> Problem {
    match error {
        PeopleError::NotFound => Problem::not_found("passkey"),
        other => people_problem(other),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Named {
    name: String,
}

pub(crate) async fn rename_passkey(
    State(web): State<Arc<Web>>,
    permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
    Path(passkey): Path<String>,
    Body(new): Body<Named>,
) -> Answer<AccountView> {
    let (id, passkey) = (current.user, passkey_id(&passkey)?);
    let by = by(&permit, &current);
    let renamed = web.blocking(move |web| web.rename_passkey(by, &passkey, &new.name)).await?;
    renamed.map_err(passkey_problem)?;
    Ok(Json(account_view(&kept(&web, id)?)))
}

pub(crate) async fn remove_passkey(
    State(web): State<Arc<Web>>,
    permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
    Path(passkey): Path<String>,
) -> Answer<AccountView> {
    let (id, passkey) = (current.user, passkey_id(&passkey)?);
    let by = by(&permit, &current);
    web.blocking(move |web| web.remove_passkey(by, &passkey)).await?.map_err(passkey_problem)?;
    Ok(Json(account_view(&kept(&web, id)?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    password: String,
}

pub(crate) async fn set_password(
    State(web): State<Arc<Web>>,
    permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
    from: Asking,
    Body(new): Body<NewPassword>,
) -> Result<Response, Problem> {
    let _turn = turn(&web).await?;
    let (by, hash, stage) = (by(&permit, &current), current.hash, current.stage);
    let ending = permit
        .act(AuditAction::SignOut, "session")
        .detail("all own sessions but this one, for the password was set");
    let set = move |web: &Web| {
        let id = by.who;
        web.set_password(by, stage, &new.password)?;
        // Whoever knew the old one is out.
        web.end_sessions_of(id, Some(&hash), ending).map(drop)
    };
    change(&web, &from, &current, set).await
}

#[derive(Serialize)]
struct TotpSecretView {
    secret: String,
    otpauth_uri: String,
}

pub(crate) async fn totp_begin(
    State(web): State<Arc<Web>>,
    _permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
) -> Result<Response, Problem> {
    let id = current.user;
    let started = web.blocking(move |web| web.start_totp(id)).await?.map_err(people_problem)?;
    let view = TotpSecretView {
        secret: started.secret.expose().to_owned(),
        otpauth_uri: started.otpauth_uri.expose().to_owned(),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response())
}

pub(crate) async fn add_totp(
    State(web): State<Arc<Web>>,
    permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
    from: Asking,
    Body(given): Body<GivenCode>,
) -> Result<Response, Problem> {
    let (by, stage) = (by(&permit, &current), current.stage);
    change(&web, &from, &current, move |web| web.finish_totp(by, stage, &given.code)).await
}

pub(crate) async fn remove_totp(
    State(web): State<Arc<Web>>,
    permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
) -> Answer<AccountView> {
    let id = current.user;
    let by = by(&permit, &current);
    let removed = web.blocking(move |web| web.remove_totp(by)).await?;
    removed.map_err(|error| match error {
        PeopleError::NotFound => Problem::not_found("authenticator app"),
        other => people_problem(other),
    })?;
    Ok(Json(account_view(&kept(&web, id)?)))
}

#[derive(Serialize)]
pub(crate) struct RecoveryCodes {
    codes: Vec<String>,
}

pub(crate) async fn recovery_codes(
    State(web): State<Arc<Web>>,
    permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
) -> Answer<RecoveryCodes> {
    let by = by(&permit, &current);
    let codes = web.blocking(move |web| web.draw_recovery_codes(by)).await?.map_err(people_problem)?;
    Ok(Json(RecoveryCodes { codes: codes.iter().map(|code| code.expose().to_owned()).collect() }))
}

/// The sessions of one person.
#[derive(Serialize)]
pub(crate) struct SessionsView {
    sessions: Vec<SessionLine>,
}

#[derive(Serialize)]
struct SessionLine {
    id: String,
    is_current: bool,
    started_at: Timestamp,
    seen_at: Timestamp,
    address: Option<String>,
    browser: String,
    signed_in_by: By,
}

/// The sessions of a person that run.
pub(crate) fn sessions_view(
    web: &Web,
    user: UserId,
    current: Option<&Current>,
) -> Result<SessionsView, store::StoreError> {
    let line = |record: Record| SessionLine {
        id: hex(&record.id()),
        is_current: current.is_some_and(|current| current.hash.0[..16] == record.id()),
        started_at: record.started_at,
        seen_at: record.seen_at,
        address: record.caller.address.map(|address| address.to_string()),
        browser: record.caller.browser.clone(),
        signed_in_by: record.by,
    };
    let running = web.sessions.running(user, web.site.clock().now())?;
    Ok(SessionsView { sessions: running.into_iter().map(line).collect() })
}

async fn own_sessions(web: &Arc<Web>, current: Current) -> Answer<SessionsView> {
    let view = web.blocking(move |web| sessions_view(web, current.user, Some(&current))).await?;
    Ok(Json(view.map_err(store::TransactError::Store)?))
}

pub(crate) async fn sessions(
    State(web): State<Arc<Web>>,
    _permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
) -> Answer<SessionsView> {
    own_sessions(&web, current).await
}

pub(crate) async fn end_session(
    State(web): State<Arc<Web>>,
    permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
    Path(id): Path<String>,
) -> Answer<SessionsView> {
    let unknown = || Problem::not_found("session");
    let id = u128::from_str_radix(&id, 16).ok().filter(|_| id.len() == 32).ok_or_else(unknown)?.to_be_bytes();
    let act = permit.act(AuditAction::SignOut, "session").detail(format!("own session {}", hex(&id[..4])));
    let (user, now) = (current.user, web.site.clock().now());
    if !web.blocking(move |web| web.sessions.end_one(user, id, act, now)).await?? {
        return Err(unknown());
    }
    own_sessions(&web, current).await
}

pub(crate) async fn end_other_sessions(
    State(web): State<Arc<Web>>,
    permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
) -> Answer<SessionsView> {
    let (user, hash) = (current.user, current.hash);
    let act = permit.act(AuditAction::SignOut, "session").detail("all own sessions but this one");
    let now = web.site.clock().now();
    web.blocking(move |web| web.sessions.end_all_of(user, Some(&hash), act, now)).await??;
    own_sessions(&web, current).await
}

// --- Proving oneself again ------------------------------------------------------------------------------------------

const PASSKEY_AGAIN: &str = "proven again by a passkey";

/// The second factor was used in this session now, in this way.
async fn proven(web: &Arc<Web>, from: &Asking, current: &Current, how: &str) -> Result<Response, Problem> {
    let act = sign_in_act(&from.caller, Actor::User(current.user), how);
    let (hash, now) = (current.hash, web.site.clock().now());
    web.blocking(move |web| web.sessions.proven(&hash, &act, now)).await??;
    same(web, from, &current.hash).await
}

fn own(web: &Web, current: &Current) -> Result<User, Problem> {
    Ok(kept(web, current.user)?.record.user())
}

pub(crate) async fn step_up_passkey_begin(
    State(web): State<Arc<Web>>,
    _permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
) -> Answer<Begun> {
    let purpose = Purpose::StepUp(&current.hash);
    let asked = ceremony::ask(web.site.store(), purpose, web.site.clock().now());
    let kept = kept(&web, current.user)?;
    let options = request_options(&web.party, &asked.challenge, &kept.record.passkeys);
    Ok(Json(Begun { ceremony: asked.token, options }))
}

pub(crate) async fn step_up_passkey(
    State(web): State<Arc<Web>>,
    _permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
    from: Asking,
    Body(given): Body<GivenPasskey>,
) -> Result<Response, Problem> {
    let not_taken = || Problem::new(Code::BadCode, "this passkey was not taken; try again, or use a code");
    let assertion = given.credential.decoded().map_err(|()| not_taken())?;
    let (user, hash) = (own(&web, &current)?, current.hash);
    let take = move |web: &Web| {
        let now = web.site.clock().now();
        let answered = ceremony::answered(web.site.store(), Purpose::StepUp(&hash), &given.ceremony, now);
        web.take_passkey(&answered.ok_or(PeopleError::Ceremony)?, Some(user.id), &assertion)
    };
    if web.blocking(take).await?.is_err() {
        refused(&web, &from, Actor::User(current.user), PASSKEY_AGAIN).await?;
        return Err(not_taken());
    }
    proven(&web, &from, &current, PASSKEY_AGAIN).await
}

pub(crate) async fn step_up_totp(
    State(web): State<Arc<Web>>,
    _permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
    from: Asking,
    Body(given): Body<GivenCode>,
) -> Result<Response, Problem> {
    let user = own(&web, &current)?;
    let id = user.id;
    try_code(&web, &from, &user, "a code, again", move |web| web.take_totp(id, &given.code)).await?;
    proven(&web, &from, &current, "by a code, again").await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DemoLink {
    token: String,
}

pub(crate) async fn step_up_link(
    State(web): State<Arc<Web>>,
    _permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
    from: Asking,
    Body(given): Body<DemoLink>,
) -> Result<Response, Problem> {
    if current.by != By::Demo || !is_demo_token(&web, &given.token) {
        return Err(Problem::new(
            Code::LinkSpent,
            "only a session of the demonstration's link is proven by it",
        ));
    }
    proven(&web, &from, &current, "proven again by the demonstration's link").await
}
