//! People who may sign in, for administrators: adding with an invitation, changing, resetting, ending sessions.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use clinical_model::place::PlaceKind;
use clinical_model::{PatientId, PlaceId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use store::{AuditAction, AuditOutcome};

use super::account::{LinkView, SessionsView, link_views, sessions_view};
use super::session::{UserView, people_problem, user_view};
use super::{Answer, Body, id_of};
use crate::access::{Permit, may};
use crate::people::{Invitation, Kept, NewUser, PeopleError, UserChange};
use crate::problem::Problem;
use crate::session::Current;
use crate::state::Web;

#[derive(Serialize)]
pub(crate) struct UserLine {
    #[serde(flatten)]
    user: UserView,
    disabled: bool,
    has_password: bool,
    has_totp: bool,
    passkeys: usize,
    is_complete: bool,
    invitation_expires_at: Option<Timestamp>,
    last_sign_in_at: Option<Timestamp>,
    provider_links: Vec<LinkView>,
    awaited_provider: Option<String>,
    version: u64,
}

fn line(kept: &Kept) -> UserLine {
    let record = &kept.record;
    UserLine {
        user: user_view(&record.user()),
        disabled: record.disabled,
        has_password: record.password_hash.is_some(),
        has_totp: record.totp.is_some(),
        passkeys: record.passkeys.len(),
        is_complete: record.is_complete(),
        invitation_expires_at: record.link.as_ref().map(|link| link.expires_at),
        last_sign_in_at: record.last_sign_in_at,
        provider_links: link_views(record),
        awaited_provider: record.awaited_provider.clone(),
        version: record.edits,
    }
}

fn line_of(web: &Web, id: UserId) -> Result<UserLine, Problem> {
    web.people.kept(id).as_ref().map(line).ok_or_else(|| people_problem(PeopleError::NotFound))
}

#[derive(Serialize)]
pub(crate) struct Users {
    users: Vec<UserLine>,
}

pub(crate) async fn list(State(web): State<Arc<Web>>, permit: Permit<may::ManagePeople>) -> Answer<Users> {
    let act = permit.act(AuditAction::Search, "User");
    web.blocking(move |web| {
        web.site.record(act, AuditOutcome::Success)?;
        Ok(Json(Users { users: web.people.list().iter().map(line).collect() }))
    })
    .await?
}

/// A person, with the link that is shown once.
#[derive(Serialize)]
pub(crate) struct Invited {
    user: UserLine,
    invitation: InvitationView,
}

#[derive(Serialize)]
struct InvitationView {
    path: String,
    expires_at: Timestamp,
}

fn invited(web: &Web, id: UserId, invitation: &Invitation) -> Answer<Invited> {
    let invitation = InvitationView { path: invitation.path(), expires_at: invitation.expires_at };
    Ok(Json(Invited { user: line_of(web, id)?, invitation }))
}

/// Refuses wards and patients that are not there.
fn check_named(web: &Web, wards: Option<&[PlaceId]>, patient: Option<PatientId>) -> Result<(), Problem> {
    for ward in wards.into_iter().flatten() {
        if web.site.registry().place(*ward).is_none_or(|place| place.kind != PlaceKind::Ward) {
            return Err(Problem::not_found("ward"));
        }
    }
    if patient.is_some_and(|patient| web.site.registry().patient(patient).is_none()) {
        return Err(Problem::not_found("patient"));
    }
    Ok(())
}

pub(crate) async fn add(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManagePeople>,
    Body(new): Body<NewUser>,
) -> Answer<Invited> {
    check_named(&web, new.wards.as_deref(), new.patient)?;
    web.blocking(move |web| {
        let user = web.add_user(permit.by(), new).map_err(people_problem)?;
        let invitation = web.reset_user(permit.by(), user.id).map_err(people_problem)?;
        invited(web, user.id, &invitation)
    })
    .await?
}

pub(crate) async fn update(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManagePeople>,
    Path(id): Path<String>,
    Body(to): Body<UserChange>,
) -> Answer<UserLine> {
    let id: UserId = id_of(&id, "person")?;
    check_named(&web, to.wards.as_deref(), to.patient)?;
    web.blocking(move |web| {
        web.update_user(permit.by(), id, to).map_err(people_problem)?;
        Ok(Json(line_of(web, id)?))
    })
    .await?
}

pub(crate) async fn reset(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManagePeople>,
    Path(id): Path<String>,
) -> Answer<Invited> {
    let id: UserId = id_of(&id, "person")?;
    web.blocking(move |web| {
        let invitation = web.reset_user(permit.by(), id).map_err(people_problem)?;
        invited(web, id, &invitation)
    })
    .await?
}

/// By which identity provider somebody may come whom none has vouched for yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Awaited {
    provider: Option<String>,
}

pub(crate) async fn await_provider(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManagePeople>,
    Path(id): Path<String>,
    Body(to): Body<Awaited>,
) -> Answer<UserLine> {
    let id: UserId = id_of(&id, "person")?;
    web.blocking(move |web| {
        let provider = to.provider.as_deref();
        if let Some(provider) = provider {
            crate::oidc::check_known(web, provider)?;
        }
        web.await_provider(&permit.by(), id, provider).map_err(people_problem)?;
        Ok(Json(line_of(web, id)?))
    })
    .await?
}

pub(crate) async fn unlink_provider(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManagePeople>,
    Path((id, link)): Path<(String, String)>,
) -> Answer<UserLine> {
    let id: UserId = id_of(&id, "person")?;
    web.blocking(move |web| {
        web.unlink_provider(&permit.by(), id, &link).map_err(people_problem)?;
        Ok(Json(line_of(web, id)?))
    })
    .await?
}

pub(crate) async fn sessions(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManagePeople>,
    Extension(current): Extension<Current>,
    Path(id): Path<String>,
) -> Answer<SessionsView> {
    let id: UserId = id_of(&id, "person")?;
    let act = permit.act(AuditAction::Read, "session").detail(format!("of {id}"));
    web.blocking(move |web| {
        line_of(web, id)?;
        web.site.record(act, AuditOutcome::Success)?;
        Ok(Json(sessions_view(web, id, Some(&current)).map_err(store::TransactError::Store)?))
    })
    .await?
}

pub(crate) async fn end_sessions(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManagePeople>,
    Extension(current): Extension<Current>,
    Path(id): Path<String>,
) -> Answer<SessionsView> {
    let id: UserId = id_of(&id, "person")?;
    let act = permit.act(AuditAction::SignOut, "session").detail(format!("all of {id}"));
    web.blocking(move |web| {
        line_of(web, id)?;
        // One's own stays: it is ended by signing out.
        let ended = web.end_sessions_of(id, Some(&current.hash), act.clone()).map_err(people_problem)?;
        // Programs that were let in outlast the sessions, and hold what whoever had them could do.
        web.end_grants_of(id).map_err(people_problem)?;
        if ended == 0 {
            // Nothing was changed: the row stands by itself.
            web.site.record(act, AuditOutcome::Success)?;
        }
        Ok(Json(sessions_view(web, id, Some(&current)).map_err(store::TransactError::Store)?))
    })
    .await?
}
