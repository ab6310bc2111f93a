//! Quarantine: what waits, why, its bytes, and running it again.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use clinical_model::quarantine::QuarantineState;
use clinical_model::{DeviceId, QuarantineId, QuarantineItem, QuarantineReason, Timestamp, UserId};
use pipeline::audited::{Agent, ReadError};
use pipeline::chart::Chart;
use pipeline::desk::{DeskError, Rerun};
use pipeline::intake::{EntryOutcome, IntakeError, QUARANTINE_LIMIT_ITEMS};
use serde::{Deserialize, Serialize};
use store::AuditAction;

use super::curves::{Explained, explained};
use super::paging::{self, LIST_LIMIT, Paged, Place, place_of};
use super::views::{self, Named};
use super::{Answer, Asked, Body, hex, id_of};
use crate::access::{Access, Permission, Permit, may};
use crate::problem::Problem;
use crate::state::Web;

/// Items run again by one request.
const RERUN_LIMIT: usize = 1_000;

#[derive(Serialize)]
pub(crate) struct ItemView {
    id: String,
    device: Named,
    kind: String,
    received_at: Timestamp,
    reason: &'static str,
    what: String,
    offset: usize,
    size_bytes: usize,
    state: &'static str,
}

/// Whether an item is theirs: its bytes may be readings of the patient that the device was assigned to. What belongs to
/// nobody yet is everybody's to mend.
fn theirs(web: &Web, access: &Access, item: &QuarantineItem) -> bool {
    let registry = web.site.registry();
    match registry.subject_at(item.device, item.received_at).and_then(|subject| subject.patient()) {
        Some(patient) => access.sight(web).may(Permission::MendQuarantine, patient),
        None => true,
    }
}

fn item_view(web: &Web, item: &QuarantineItem) -> ItemView {
    ItemView {
        id: item.id.to_string(),
        device: views::named_device(web, item.device),
        kind: item.kind.to_string(),
        received_at: item.received_at,
        reason: item.reason.word(),
        what: item.what.clone(),
        offset: item.offset,
        size_bytes: item.bytes.len(),
        state: match item.state {
            QuarantineState::Waiting => "waiting",
            QuarantineState::Released { .. } => "released",
            QuarantineState::Discarded { .. } => "discarded",
        },
    }
}

#[derive(Serialize)]
struct Count {
    items: u64,
    bytes: u64,
    limit_items: u64,
}

#[derive(Serialize)]
pub(crate) struct Items {
    items: Vec<ItemView>,
    count: Count,
    next_before: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    state: Option<String>,
    limit: Option<usize>,
    before: Option<String>,
}

/// A page of the items that are theirs, newest first.
fn page_of(
    web: &Web,
    access: &Access,
    chart: &Chart<'_>,
    waiting_only: bool,
    (before, limit): (Option<Place<QuarantineId>>, usize),
    fits: impl Fn(&QuarantineItem) -> bool,
) -> Result<Paged<QuarantineItem>, ReadError> {
    paging::page(
        before,
        limit,
        |before, limit| chart.quarantine(waiting_only, before, limit),
        |item| (item.received_at, item.id),
        |item| fits(item) && theirs(web, access, item),
    )
}

pub(crate) async fn list(
    State(web): State<Arc<Web>>,
    access: Permit<may::MendQuarantine>,
    Asked(query): Asked<ListQuery>,
) -> Answer<Items> {
    let waiting_only = match query.state.as_deref() {
        None | Some("waiting") => true,
        Some("all") => false,
        Some(_) => return Err(Problem::bad_request("\"state\" must be \"waiting\" or \"all\"")),
    };
    let limit = query.limit.unwrap_or(LIST_LIMIT).clamp(1, LIST_LIMIT);
    let before = place_of(query.before.as_deref())?;
    let act = access.act(AuditAction::Search, "Quarantine");
    web.blocking(move |web| {
        let page = access
            .read(web, act, |chart| page_of(web, &access, chart, waiting_only, (before, limit), |_| true))?;
        let count = web.site.store().quarantine_count();
        let count = Count { items: count.items, bytes: count.bytes, limit_items: QUARANTINE_LIMIT_ITEMS };
        let items = page.rows.iter().map(|item| item_view(web, item)).collect();
        Ok(Json(Items { items, count, next_before: page.next_before }))
    })
    .await?
}

#[derive(Serialize)]
pub(crate) struct ItemPage {
    item: ItemView,
    hex: String,
    explained: Vec<Explained>,
}

pub(crate) async fn show(
    State(web): State<Arc<Web>>,
    access: Permit<may::MendQuarantine>,
    Path(id): Path<String>,
) -> Answer<ItemPage> {
    let id: QuarantineId = id_of(&id, "quarantined item")?;
    let act = access.act(AuditAction::Read, "Quarantine").detail(id.to_string());
    web.blocking(move |web| {
        let item = access.read(web, act, |chart| chart.quarantined(id))?;
        let item = item.filter(|item| theirs(web, &access, item));
        let item = item.ok_or_else(|| Problem::not_found("quarantined item"))?;
        Ok(Json(ItemPage {
            item: item_view(web, &item),
            hex: hex(&item.bytes),
            explained: explained(item.kind, &item.bytes),
        }))
    })
    .await?
}

#[derive(Serialize)]
pub(crate) struct RerunAnswer {
    outcome: &'static str,
    what: String,
    observation_ids: Vec<String>,
}

/// Refuses an item that is not theirs as if it were not there.
async fn check_theirs(
    web: &Arc<Web>,
    access: &Permit<may::MendQuarantine>,
    id: QuarantineId,
) -> Result<(), Problem> {
    let access = access.clone();
    let act = access.act(AuditAction::Read, "Quarantine").detail(id.to_string());
    web.blocking(move |web| {
        let item = access.read(web, act, |chart| chart.quarantined(id))?;
        match item {
            Some(item) if theirs(web, &access, &item) => Ok(()),
            _ => Err(Problem::not_found("quarantined item")),
        }
    })
    .await?
}

fn person_of(access: &Access) -> Result<Agent<UserId>, Problem> {
    access.by_person().ok_or_else(|| Problem::not_found("quarantined item"))
}

pub(crate) async fn rerun(
    State(web): State<Arc<Web>>,
    access: Permit<may::MendQuarantine>,
    Path(id): Path<String>,
) -> Answer<RerunAnswer> {
    let id: QuarantineId = id_of(&id, "quarantined item")?;
    let by = person_of(&access)?;
    check_theirs(&web, &access, id).await?;
    match web.site.rerun(by, id).await? {
        Rerun::StillQuarantined { what } => {
            Ok(Json(RerunAnswer { outcome: "quarantined", what, observation_ids: Vec::new() }))
        }
        Rerun::Committed(receipt) => {
            let store = web.site.shared_store();
            let observation_ids = web
                .blocking(move |_| {
                    let facts = receipt.entries.iter().filter_map(|entry| match entry {
                        EntryOutcome::Committed { facts } => Some(facts),
                        EntryOutcome::Quarantined { .. } => None,
                    });
                    facts
                        .flatten()
                        .filter_map(|fact| store.identifier(&fact.series, fact.at, fact.sequence).ok())
                        .collect()
                })
                .await?;
            let what = "it is in the chart now, at its original time".to_owned();
            Ok(Json(RerunAnswer { outcome: "committed", what, observation_ids }))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Many {
    device_id: Option<DeviceId>,
    reason: Option<QuarantineReason>,
}

#[derive(Serialize)]
pub(crate) struct ManyAnswer {
    released: u64,
    still_waiting: u64,
}

pub(crate) async fn rerun_many(
    State(web): State<Arc<Web>>,
    access: Permit<may::MendQuarantine>,
    Body(many): Body<Many>,
) -> Answer<ManyAnswer> {
    let by = person_of(&access)?;
    let act = access.act(AuditAction::Search, "Quarantine").detail("to run again");
    let permit = access.clone();
    let fits = move |item: &QuarantineItem| {
        many.device_id.is_none_or(|device| item.device == device)
            && many.reason.is_none_or(|reason| item.reason == reason)
    };
    let wanted = web.blocking(move |web| {
        permit.read(web, act, |chart| page_of(web, &permit, chart, true, (None, RERUN_LIMIT), fits))
    });
    let mut answer = ManyAnswer { released: 0, still_waiting: 0 };
    // Oldest first, so that what follows sees its neighbours in order.
    for item in wanted.await??.rows.into_iter().rev() {
        match web.site.rerun(by.clone(), item.id).await {
            Ok(Rerun::Committed(_)) => answer.released += 1,
            // What cannot be run now (a retired device) must not keep the others waiting.
            Ok(Rerun::StillQuarantined { .. })
            | Err(
                DeskError::DealtWith
                | DeskError::Intake(IntakeError::Retired { .. } | IntakeError::UnknownDevice { .. }),
            ) => answer.still_waiting += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Json(answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Discard {
    reason: String,
}

pub(crate) async fn discard(
    State(web): State<Arc<Web>>,
    access: Permit<may::MendQuarantine>,
    Path(id): Path<String>,
    Body(discard): Body<Discard>,
) -> Answer<ItemView> {
    let id: QuarantineId = id_of(&id, "quarantined item")?;
    let by = person_of(&access)?;
    let reason = discard.reason.trim().to_owned();
    if reason.is_empty() || reason.chars().count() > 500 {
        return Err(Problem::bad_request("say why, in 1 to 500 characters"));
    }
    check_theirs(&web, &access, id).await?;
    web.blocking(move |web| {
        let item = web.site.discard(by, id, &reason)?;
        Ok(Json(item_view(web, &item)))
    })
    .await?
}
