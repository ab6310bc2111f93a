//! People who may sign in: listing and adding, for administrators.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use clinical_model::place::PlaceKind;
use pipeline::audited::Act;
use serde::Serialize;
use store::{AuditAction, AuditOutcome};

use super::session::{UserView, people_problem, user_view};
use super::{Answer, Body};
use crate::access::Access;
use crate::people::NewUser;
use crate::problem::Problem;
use crate::state::Web;

#[derive(Serialize)]
pub(crate) struct UserLine {
    #[serde(flatten)]
    user: UserView,
    disabled: bool,
}

#[derive(Serialize)]
pub(crate) struct Users {
    users: Vec<UserLine>,
}

pub(crate) async fn list(State(web): State<Arc<Web>>, Extension(access): Extension<Access>) -> Answer<Users> {
    let act = Act::new(access.actor(), AuditAction::Search, "User");
    web.blocking(move |web| {
        web.site.record(act, AuditOutcome::Success)?;
        let line = |user: &crate::people::User| UserLine { user: user_view(user), disabled: user.disabled };
        Ok(Json(Users { users: web.people.list().iter().map(line).collect() }))
    })
    .await?
}

pub(crate) async fn add(
    State(web): State<Arc<Web>>,
    Extension(access): Extension<Access>,
    Body(new): Body<NewUser>,
) -> Answer<UserLine> {
    for ward in new.wards.iter().flatten() {
        if web.site.registry().place(*ward).is_none_or(|place| place.kind != PlaceKind::Ward) {
            return Err(Problem::not_found("ward"));
        }
    }
    web.blocking(move |web| {
        let user = web.add_user(access.actor(), new).map_err(people_problem)?;
        Ok(Json(UserLine { user: user_view(&user), disabled: user.disabled }))
    })
    .await?
}
