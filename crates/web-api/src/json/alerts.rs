//! Alerts: listing and answering.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use clinical_model::{Alert, AlertId, UserId};
use pipeline::Site;
use pipeline::audited::Agent;
use pipeline::desk::DeskError;
use serde::{Deserialize, Serialize};
use store::AuditAction;

use super::paging::{self, LIST_LIMIT, Place, place_of};
use super::patients::theirs;
use super::views::{self, AlertView};
use super::{Answer, Asked, Body, id_of};
use crate::access::{LOOK_LASTS, Permit, may};
use crate::problem::Problem;
use crate::state::Web;

/// Longest note, in characters.
const NOTE_LIMIT_CHARS: usize = 1_000;

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    state: Option<String>,
    patient: Option<String>,
    before: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Alerts {
    alerts: Vec<AlertView>,
    next_before: Option<String>,
}

pub(crate) async fn list(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadChart>,
    Asked(query): Asked<ListQuery>,
) -> Answer<Alerts> {
    let all = match query.state.as_deref() {
        None | Some("open") => false,
        Some("all") => true,
        Some(_) => return Err(Problem::bad_request("\"state\" must be \"open\" or \"all\"")),
    };
    let patient = match &query.patient {
        Some(id) => Some(theirs(&web, &access, id).await?),
        None => None,
    };
    let before = place_of(query.before.as_deref())?;
    let looking = access.act(AuditAction::Search, "Alert");
    let act = patient.iter().fold(looking.clone(), |act, patient| act.patient(patient.id));
    web.blocking(move |web| {
        let sight = access.sight(web);
        let page = access.read(web, act, |chart| {
            let id = patient.as_ref().map(|patient| patient.id);
            let open = if all { Vec::new() } else { chart.open_alerts() };
            let place = |alert: &Alert| (alert.raised_at, alert.id);
            let read = |before: Option<Place<AlertId>>, limit| match all {
                true => chart.alerts(id, before, limit),
                false => {
                    let after = open.iter().filter(|alert| before.is_none_or(|before| place(alert) < before));
                    Ok(after.take(limit).cloned().collect())
                }
            };
            let is_about = |alert: &Alert| {
                id.is_none_or(|id| views::concerned(web, alert).is_some_and(|one| one.id == id))
            };
            paging::page(before, LIST_LIMIT, read, place, |alert| sight.alert(alert) && is_about(alert))
        })?;
        if patient.is_none() {
            let concerned = page.rows.iter().filter_map(|alert| views::concerned(web, alert));
            access.due_looks(web, &looking, concerned.map(|patient| (patient.id, LOOK_LASTS))).write(web)?;
        }
        let alerts = page.rows.iter().map(|alert| views::alert(&sight, web, alert)).collect();
        Ok(Json(Alerts { alerts, next_before: page.next_before }))
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswerNote {
    note: Option<String>,
}

type Act2 = fn(&Site, Agent<UserId>, AlertId, Option<String>) -> Result<Alert, DeskError>;

async fn answer(
    web: Arc<Web>,
    access: Permit<may::ActOnAlerts>,
    id: String,
    note: AnswerNote,
    act: Act2,
) -> Answer<AlertView> {
    let id: AlertId = id_of(&id, "alert")?;
    let by = access.by_person().ok_or_else(|| Problem::not_found("alert"))?;
    let note = note.note.map(|note| note.trim().to_owned()).filter(|note| !note.is_empty());
    if note.as_ref().is_some_and(|note| note.chars().count() > NOTE_LIMIT_CHARS) {
        return Err(Problem::bad_request(format!("a note has at most {NOTE_LIMIT_CHARS} characters")));
    }
    web.blocking(move |web| {
        let looked = access.act(AuditAction::Read, "Alert").detail(id.to_string());
        let alert = access.read(web, looked, |chart| chart.alert(id))?;
        if !alert.is_some_and(|alert| access.sight(web).alert(&alert)) {
            return Err(Problem::not_found("alert"));
        }
        // That it was answered stands in a row of the patient, with the answer.
        let alert = act(&web.site, by, id, note)?;
        Ok(Json(views::alert(&access.sight(web), web, &alert)))
    })
    .await?
}

pub(crate) async fn acknowledge(
    State(web): State<Arc<Web>>,
    access: Permit<may::ActOnAlerts>,
    Path(id): Path<String>,
    Body(note): Body<AnswerNote>,
) -> Answer<AlertView> {
    answer(web, access, id, note, Site::acknowledge).await
}

pub(crate) async fn resolve(
    State(web): State<Arc<Web>>,
    access: Permit<may::ActOnAlerts>,
    Path(id): Path<String>,
    Body(note): Body<AnswerNote>,
) -> Answer<AlertView> {
    answer(web, access, id, note, Site::resolve).await
}
