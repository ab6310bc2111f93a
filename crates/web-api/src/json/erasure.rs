//! Erasure: what would go, the act itself, and its signed statement.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use clinical_model::{PatientId, Timestamp};
use pipeline::erasure::{Erasure, ErasureError, ErasureOrder, RemovedRows};
use serde::{Deserialize, Serialize};
use store::{AuditAction, AuditOutcome};

use super::keys::{REASON_LIMIT_CHARS, label_of};
use super::retention::HoldView;
use super::views::{self, Named};
use super::{Answer, Body, id_of};
use crate::access::{Permission, Permit, may};
use crate::problem::{Code, Problem};
use crate::state::Web;

#[derive(Serialize)]
pub(crate) struct PreviewView {
    patient: String,
    label: String,
    hold: Option<HoldView>,
    rows: RemovedRows,
    bytes: u64,
    oldest: Option<Timestamp>,
    newest: Option<Timestamp>,
    devices: Vec<Named>,
    alerts_open: usize,
    confirm: String,
}

#[derive(Serialize)]
struct ByView {
    id: String,
    label: String,
}

#[derive(Serialize)]
pub(crate) struct ErasureView {
    id: String,
    patient: String,
    request: String,
    by: Option<ByView>,
    begun_at: Timestamp,
    state: &'static str,
    removed: RemovedRows,
    purged_at: Option<Timestamp>,
    epoch: String,
    epoch_destroyed_at: Option<Timestamp>,
    turn_due_by: Timestamp,
    has_certificate: bool,
}

#[derive(Serialize)]
pub(crate) struct Erased {
    erasure: ErasureView,
}

#[derive(Serialize)]
pub(crate) struct Erasures {
    erasures: Vec<ErasureView>,
}

fn view(web: &Web, erasure: &Erasure) -> ErasureView {
    let by = erasure.by.map(|id| ByView {
        id: id.to_string(),
        label: web
            .people
            .by_id(id)
            .map_or_else(|| "somebody who left".to_owned(), |user| user.display.clone()),
    });
    ErasureView {
        id: erasure.patient.to_string(),
        patient: erasure.patient.to_string(),
        request: erasure.request.clone(),
        by,
        begun_at: erasure.begun_at,
        state: erasure.state(),
        removed: erasure.removed,
        purged_at: erasure.purged_at,
        epoch: erasure.epoch.clone(),
        epoch_destroyed_at: erasure.epoch_destroyed_at,
        turn_due_by: erasure.turn_due_by,
        has_certificate: erasure.statement.is_some(),
    }
}

pub(super) fn refused(error: ErasureError) -> Problem {
    match error {
        ErasureError::NotFound => Problem::not_found("patient"),
        ErasureError::OnHold { .. } => Problem::new(Code::OnHold, error.to_string()),
        ErasureError::NotConfirmed | ErasureError::Field { .. } => Problem::bad_request(error.to_string()),
        ErasureError::Transact(error) => error.into(),
        ErasureError::Signer(_) | ErasureError::Store(_) => {
            tracing::error!(error = &error as &dyn std::error::Error, "an erasure failed");
            Problem::internal()
        }
    }
}

/// `POST /api/v1/patients/{id}/erasure/dry-run`
pub(crate) async fn preview(
    State(web): State<Arc<Web>>,
    permit: Permit<may::EraseData>,
    Path(id): Path<String>,
) -> Answer<PreviewView> {
    let patient: PatientId = id_of(&id, "patient")?;
    web.blocking(move |web| {
        if !permit.sight(web).may(Permission::EraseData, patient) {
            return Err(Problem::not_found("patient"));
        }
        let preview = web.site.preview_erasure(permit.by(), patient).map_err(refused)?;
        let rows = preview.rows;
        let mut devices: Vec<_> = preview.worn.iter().map(|worn| worn.device).collect();
        devices.sort();
        devices.dedup();
        Ok(Json(PreviewView {
            patient: patient.to_string(),
            label: label_of(web, patient),
            hold: preview.hold.as_ref().map(|hold| HoldView::of(web, hold)),
            rows: RemovedRows::from(&rows),
            bytes: rows.bytes,
            oldest: rows.oldest,
            newest: rows.newest,
            devices: devices.into_iter().map(|device| views::named_device(web, device)).collect(),
            alerts_open: preview.alerts_open,
            confirm: preview.patient.record_number.expose().clone(),
        }))
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    reason: String,
    request: String,
    confirm: String,
}

/// `POST /api/v1/patients/{id}/erasure`
pub(crate) async fn erase(
    State(web): State<Arc<Web>>,
    permit: Permit<may::EraseData>,
    Path(id): Path<String>,
    Body(order): Body<Order>,
) -> Answer<Erased> {
    let patient: PatientId = id_of(&id, "patient")?;
    if order.reason.chars().count() > REASON_LIMIT_CHARS {
        return Err(Problem::bad_request(format!("reason has more than {REASON_LIMIT_CHARS} characters")));
    }
    web.blocking(move |web| {
        if !permit.sight(web).may(Permission::EraseData, patient) {
            return Err(Problem::not_found("patient"));
        }
        let order = ErasureOrder {
            patient,
            reason: order.reason,
            request: order.request,
            confirm: order.confirm,
            turn_within_days: web.options.key_home.turn_within_days.max(1),
        };
        let erasure = web.site.erase(permit.by(), &order).map_err(refused)?;
        web.follow_erasures();
        Ok(Json(Erased { erasure: view(web, &erasure) }))
    })
    .await?
}

/// `GET /api/v1/erasures`
pub(crate) async fn list(State(web): State<Arc<Web>>, permit: Permit<may::EraseData>) -> Answer<Erasures> {
    let act = permit.act(AuditAction::Search, "erasures");
    web.blocking(move |web| {
        web.site.record(act, AuditOutcome::Success)?;
        let all = web.site.erasures().map_err(refused)?;
        Ok(Json(Erasures { erasures: all.iter().map(|erasure| view(web, erasure)).collect() }))
    })
    .await?
}

/// `GET /api/v1/erasures/{id}/certificate.json`, `…/certificate.sig`
pub(crate) async fn certificate(
    State(web): State<Arc<Web>>,
    permit: Permit<may::EraseData>,
    Path((id, file)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let patient: PatientId = id_of(&id, "erasure")?;
    let act = permit.act(AuditAction::Read, "erasure certificate").detail(id);
    web.blocking(move |web| {
        web.site.record(act, AuditOutcome::Success)?;
        let all = web.site.erasures().map_err(refused)?;
        let none = || {
            Problem::not_found("certificate: the rows are still being removed, or there is no such erasure,")
        };
        let found = all.into_iter().find(|erasure| erasure.patient == patient).ok_or_else(none)?;
        let (Some(statement), Some(signature)) = (found.statement, found.signature) else {
            return Err(none());
        };
        match file.as_str() {
            "certificate.json" => Ok(download(statement.into_bytes(), "application/json", &file)),
            "certificate.sig" => Ok(download(unhex(&signature), "application/octet-stream", &file)),
            _ => Err(Problem::not_found("file")),
        }
    })
    .await?
}

/// `GET /api/v1/erasures/signer.pem`
pub(crate) async fn signer(
    State(web): State<Arc<Web>>,
    _permit: Permit<may::EraseData>,
) -> Result<Response, Problem> {
    web.blocking(|web| {
        let at = web.site.clock().now();
        let signer =
            pipeline::erasure::signer(web.site.store(), &web.options.site_name, at).map_err(refused)?;
        let pem = signer.certificate_pem().as_bytes().to_vec();
        Ok(download(pem, "application/x-pem-file", "signer.pem"))
    })
    .await?
}

fn download(bytes: Vec<u8>, media_type: &'static str, name: &str) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(header::CONTENT_TYPE, media_type.to_owned()), (header::CONTENT_DISPOSITION, disposition)], bytes)
        .into_response()
}

fn unhex(digits: &str) -> Vec<u8> {
    let two = |at: usize| digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    (0..digits.len()).step_by(2).filter_map(two).collect()
}
