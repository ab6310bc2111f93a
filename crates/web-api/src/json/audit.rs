//! The audit log: acts of people and programs, and what each committed group carried.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use clinical_model::{PatientId, Timestamp};
use pipeline::audited::Act;
use serde::{Deserialize, Serialize};
use store::{Actor, AuditAction, AuditOutcome, AuditQuery, AuditRow};

use super::views::{self, Named};
use super::{Answer, Asked, hex, id_of};
use crate::access::Access;
use crate::state::Web;

/// Rows of one page.
const PAGE_LIMIT: usize = 500;

#[derive(Serialize)]
struct ActorView {
    kind: &'static str,
    id: String,
    label: String,
}

#[derive(Serialize)]
struct Labelled {
    id: String,
    label: String,
}

#[derive(Serialize)]
pub(crate) struct RowView {
    sequence: u64,
    at: Timestamp,
    actor: ActorView,
    action: &'static str,
    outcome: &'static str,
    patient: Option<Labelled>,
    device: Option<Named>,
    object: String,
    detail: String,
}

fn actor_view(web: &Web, actor: &Actor) -> ActorView {
    match actor {
        Actor::User(id) => {
            let label =
                web.people.by_id(*id).map_or_else(|| "somebody who left".to_owned(), |user| user.display);
            ActorView { kind: "user", id: id.to_string(), label }
        }
        Actor::Device(id) => {
            ActorView { kind: "device", id: id.to_string(), label: views::named_device(web, *id).name }
        }
        Actor::Program(name) => ActorView { kind: "program", id: name.clone(), label: name.clone() },
        Actor::System => ActorView { kind: "system", id: String::new(), label: "Auscult".to_owned() },
        Actor::Unproven(name) => ActorView { kind: "unproven", id: name.clone(), label: name.clone() },
    }
}

fn action_word(action: AuditAction) -> &'static str {
    match action {
        AuditAction::Create => "create",
        AuditAction::Read => "read",
        AuditAction::Update => "update",
        AuditAction::Delete => "delete",
        AuditAction::Search => "search",
        AuditAction::Stream => "stream",
        AuditAction::SignIn => "sign-in",
        AuditAction::SignOut => "sign-out",
        AuditAction::Assign => "assign",
        AuditAction::Answer => "answer",
        AuditAction::Quarantine => "quarantine",
        AuditAction::Administer => "administer",
    }
}

fn outcome_word(outcome: AuditOutcome) -> &'static str {
    match outcome {
        AuditOutcome::Success => "success",
        AuditOutcome::Refused => "refused",
        AuditOutcome::Failed => "failed",
    }
}

fn row_view(web: &Web, row: &AuditRow) -> RowView {
    let registry = web.site.registry();
    let record = &row.record;
    let patient = record.patient.map(|id| Labelled {
        id: id.to_string(),
        label: registry.patient(id).map_or_else(
            || "erased".to_owned(),
            |patient| format!("{}, {}", patient.family.expose().to_uppercase(), patient.given.expose()),
        ),
    });
    RowView {
        sequence: row.sequence,
        at: record.at,
        actor: actor_view(web, &record.actor),
        action: action_word(record.action),
        outcome: outcome_word(record.outcome),
        patient,
        device: record.device.map(|id| views::named_device(web, id)),
        object: record.object.clone(),
        detail: record.detail.clone(),
    }
}

#[derive(Serialize)]
pub(crate) struct Rows {
    rows: Vec<RowView>,
}

#[derive(Deserialize)]
pub(crate) struct RowsQuery {
    patient: Option<String>,
    before: Option<u64>,
    limit: Option<usize>,
}

pub(crate) async fn rows(
    State(web): State<Arc<Web>>,
    Extension(access): Extension<Access>,
    Asked(query): Asked<RowsQuery>,
) -> Answer<Rows> {
    let patient: Option<PatientId> = match &query.patient {
        Some(id) => Some(id_of(id, "patient")?),
        None => None,
    };
    let mut act = Act::new(access.actor(), AuditAction::Search, "audit log");
    if let Some(patient) = patient {
        act = act.patient(patient);
    }
    let page = AuditQuery {
        patient,
        before: query.before,
        limit: query.limit.unwrap_or(100).min(PAGE_LIMIT),
        ..AuditQuery::default()
    };
    web.blocking(move |web| {
        let rows = web.site.read(act, |chart| chart.audit_rows(&page))?;
        Ok(Json(Rows { rows: rows.iter().map(|row| row_view(web, row)).collect() }))
    })
    .await?
}

#[derive(Serialize)]
struct SourceView {
    device: Named,
    frames: u32,
    facts: u32,
    quarantined: u32,
    sha256: String,
}

#[derive(Serialize)]
struct GroupView {
    group: u64,
    committed_at: Timestamp,
    sources: Vec<SourceView>,
}

#[derive(Serialize)]
pub(crate) struct Groups {
    groups: Vec<GroupView>,
}

#[derive(Deserialize)]
pub(crate) struct GroupsQuery {
    before: Option<u64>,
    limit: Option<usize>,
}

pub(crate) async fn groups(
    State(web): State<Arc<Web>>,
    Extension(access): Extension<Access>,
    Asked(query): Asked<GroupsQuery>,
) -> Answer<Groups> {
    let act = Act::new(access.actor(), AuditAction::Search, "committed groups");
    let limit = query.limit.unwrap_or(100).min(PAGE_LIMIT);
    web.blocking(move |web| {
        let groups = web.site.read(act, |chart| chart.group_summaries(query.before, limit))?;
        let view = |group: &store::GroupSummary| GroupView {
            group: group.group,
            committed_at: group.committed_at,
            sources: group
                .sources
                .iter()
                .map(|(device, frames, facts, quarantined, digest)| SourceView {
                    device: views::named_device(web, *device),
                    frames: *frames,
                    facts: *facts,
                    quarantined: *quarantined,
                    sha256: hex(digest),
                })
                .collect(),
        };
        Ok(Json(Groups { groups: groups.iter().map(view).collect() }))
    })
    .await?
}
