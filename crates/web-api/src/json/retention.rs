//! Retention: for how long each class is kept, what would go, the run, and legal holds.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use clinical_model::{PatientId, Timestamp};
use pipeline::holds::{self, Hold};
use pipeline::retention::{ClassCount, KeepDays, KeptPolicy, RetainedClass, Run};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::keys::{Because, label_of};
use super::{Answer, Asked, Body, hex, id_of};
use crate::access::{Permission, Permit, may};
use crate::problem::Problem;
use crate::state::Web;

#[derive(Serialize)]
struct VersionView {
    version: u64,
    updated_at: Timestamp,
}

#[derive(Serialize)]
struct RemovedView {
    rows: u64,
    bytes: u64,
}

#[derive(Serialize)]
pub(crate) struct RunView {
    id: String,
    begun_at: Timestamp,
    ended_at: Option<Timestamp>,
    class: Option<&'static str>,
    removed: RemovedView,
    state: &'static str,
    error: Option<String>,
}

impl From<&Run> for RunView {
    fn from(run: &Run) -> Self {
        let state = match (run.ended_at, &run.error) {
            (None, _) => "running",
            (Some(_), None) => "done",
            (Some(_), Some(_)) => "failed",
        };
        RunView {
            id: hex(&run.id),
            begun_at: run.begun_at,
            ended_at: run.ended_at,
            class: run.class.map(RetainedClass::word),
            removed: RemovedView { rows: run.rows, bytes: run.bytes },
            state,
            error: run.error.clone(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct PolicyView {
    version: u64,
    updated_at: Option<Timestamp>,
    keep_days: Map<String, Value>,
    versions: Vec<VersionView>,
    run: Option<RunView>,
}

fn days_view(keep_days: &KeepDays) -> Map<String, Value> {
    let days = |class: &RetainedClass| keep_days.get(class).map_or(Value::Null, |days| Value::from(*days));
    RetainedClass::ALL.iter().map(|class| (class.word().to_owned(), days(class))).collect()
}

fn policy_view(web: &Web, kept: &KeptPolicy) -> Result<PolicyView, Problem> {
    let versions = web.site.retention_versions().map_err(internal)?;
    Ok(PolicyView {
        version: kept.version,
        updated_at: kept.updated_at,
        keep_days: days_view(&kept.policy.keep_days),
        versions: versions
            .into_iter()
            .map(|(version, updated_at)| VersionView { version, updated_at })
            .collect(),
        run: kept.run.as_ref().map(RunView::from),
    })
}

fn internal(error: store::StoreError) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "the retention policy could not be read");
    Problem::internal()
}

/// `GET /api/v1/retention`
pub(crate) async fn show(
    State(web): State<Arc<Web>>,
    _permit: Permit<may::ManageRetention>,
) -> Answer<PolicyView> {
    web.blocking(|web| policy_view(web, &web.site.retention().map_err(internal)?).map(Json)).await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPolicy {
    version: u64,
    keep_days: std::collections::BTreeMap<RetainedClass, Option<u32>>,
    reason: String,
}

/// `PUT /api/v1/retention`
pub(crate) async fn set(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageRetention>,
    Body(new): Body<NewPolicy>,
) -> Answer<PolicyView> {
    if new.reason.trim().is_empty() {
        return Err(Problem::bad_request("a reason is needed"));
    }
    web.blocking(move |web| {
        let keep_days = new.keep_days.into_iter().filter_map(|(class, days)| Some((class, days?))).collect();
        let kept = web.site.set_retention(permit.by(), new.version, keep_days, new.reason.trim())?;
        policy_view(web, &kept).map(Json)
    })
    .await?
}

#[derive(Serialize)]
struct CountView {
    class: &'static str,
    before: Timestamp,
    rows: u64,
    bytes: u64,
    patients: u64,
    oldest: Option<Timestamp>,
    newest: Option<Timestamp>,
    held_rows: u64,
}

#[derive(Serialize)]
pub(crate) struct DryRun {
    at: Timestamp,
    classes: Vec<CountView>,
}

/// `GET /api/v1/retention/dry-run`
pub(crate) async fn dry_run(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageRetention>,
    Asked(proposed): Asked<std::collections::BTreeMap<RetainedClass, u32>>,
) -> Answer<DryRun> {
    web.blocking(move |web| {
        let proposed = (!proposed.is_empty()).then_some(proposed);
        let counts = web.site.count_outdated(permit.by(), proposed)?;
        let view = |count: &ClassCount| CountView {
            class: count.class.word(),
            before: count.before,
            rows: count.outdated.rows,
            bytes: count.outdated.bytes,
            patients: count.outdated.patients,
            oldest: count.outdated.oldest,
            newest: count.outdated.newest,
            held_rows: count.outdated.held_rows,
        };
        Ok(Json(DryRun { at: web.site.clock().now(), classes: counts.iter().map(view).collect() }))
    })
    .await?
}

#[derive(Serialize)]
pub(crate) struct Running {
    run: RunView,
}

/// `POST /api/v1/retention/run`
pub(crate) async fn run(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageRetention>,
    Body(because): Body<Because>,
) -> Answer<Running> {
    web.blocking(move |web| {
        let run = web.site.run_retention(permit.by(), because.checked()?)?;
        Ok(Json(Running { run: RunView::from(&run) }))
    })
    .await?
}

#[derive(Serialize)]
struct ByView {
    id: String,
    label: String,
}

/// A hold as people see it.
#[derive(Serialize)]
pub(crate) struct HoldView {
    patient: String,
    label: String,
    reason: String,
    by: Option<ByView>,
    since: Timestamp,
    until: Option<Timestamp>,
}

impl HoldView {
    pub(super) fn of(web: &Web, hold: &Hold) -> Self {
        let by = hold.by.map(|id| ByView {
            id: id.to_string(),
            label: web
                .people
                .by_id(id)
                .map_or_else(|| "somebody who left".to_owned(), |user| user.display.clone()),
        });
        HoldView {
            patient: hold.patient.to_string(),
            label: label_of(web, hold.patient),
            reason: hold.reason.clone(),
            by,
            since: hold.since,
            until: hold.until,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Holds {
    holds: Vec<HoldView>,
}

/// `GET /api/v1/holds`
pub(crate) async fn list_holds(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageRetention>,
) -> Answer<Holds> {
    web.blocking(move |web| {
        let mut all = holds::all(web.site.store(), web.site.clock().now()).map_err(internal)?;
        let sight = permit.sight(web);
        all.retain(|hold| sight.may(Permission::ManageRetention, hold.patient));
        Ok(Json(Holds { holds: all.iter().map(|hold| HoldView::of(web, hold)).collect() }))
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewHold {
    reason: String,
    until: Option<Timestamp>,
}

/// `PUT /api/v1/patients/{id}/hold`
pub(crate) async fn hold(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageRetention>,
    Path(id): Path<String>,
    Body(new): Body<NewHold>,
) -> Answer<HoldView> {
    let patient: PatientId = id_of(&id, "patient")?;
    web.blocking(move |web| {
        if !permit.sight(web).may(Permission::ManageRetention, patient) {
            return Err(Problem::not_found("patient"));
        }
        let hold = web.site.hold(permit.by(), patient, &new.reason, new.until)?;
        Ok(Json(HoldView::of(web, &hold)))
    })
    .await?
}

/// `DELETE /api/v1/patients/{id}/hold`
pub(crate) async fn end_hold(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageRetention>,
    Path(id): Path<String>,
    Body(because): Body<Because>,
) -> Answer<Map<String, Value>> {
    let patient: PatientId = id_of(&id, "patient")?;
    web.blocking(move |web| {
        if !permit.sight(web).may(Permission::ManageRetention, patient) {
            return Err(Problem::not_found("patient"));
        }
        web.site.end_hold(permit.by(), patient, because.checked()?)?;
        Ok(Json(Map::new()))
    })
    .await?
}
