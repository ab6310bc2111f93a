//! Device ingest over HTTPS: envelopes and GATT frames in, and the outcome of every entry back once it is on stable
//! storage.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clinical_model::{Delivery, DeviceId, Frame, FrameKind, RecordId};
use futures_util::future::try_join_all;
use pipeline::intake::FRAME_LIMIT_BYTES;
use pipeline::search::Position;
use pipeline::shedding::RETRY_AFTER_S as OVERLOAD_RETRY_AFTER_S;
use pipeline::site::received_now;
use pipeline::{EntryOutcome, IntakeError, Peer, Receipt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use self::idempotency::{Claim, Key};
use crate::fhir::position_of;
use crate::problem::{Code, Problem};
use crate::serve::{BodyError, DevicePeer, read_body};
use crate::state::Web;

mod idempotency;

/// Frames of one request: a monitor's notifications of several minutes.
pub const FRAMES_LIMIT: usize = 1_000;
/// Requests under way at one time: each may hold a body of a MiB while it waits for the disk.
pub const REQUESTS_LIMIT: usize = 256;
/// Header by which a program names the device it sends for; the parameter `device` does the same.
pub const DEVICE_HEADER: &str = "x-auscult-device";
/// Seconds after which it is worth sending again when nothing can be kept for a moment.
const RETRY_AFTER_S: u64 = 2;
/// Seconds after which it is worth sending again when there is no room: a person has to make some.
const RETRY_AFTER_FULL_S: u64 = 60;

/// Every operation of ingest: path and handler; all are posted to.
fn operations() -> [(&'static str, MethodRouter<Arc<Web>>); 2] {
    [("/ingest/v1/envelope", post(envelope)), ("/ingest/v1/gatt/{characteristic}", post(gatt))]
}

/// The paths of all operations.
pub(crate) fn paths() -> impl Iterator<Item = &'static str> {
    operations().into_iter().map(|(path, _)| path)
}

/// The routes of ingest; every request carries a [`DevicePeer`].
pub(crate) fn router(web: &Arc<Web>) -> Router {
    let routes =
        operations().into_iter().fold(Router::new(), |all, (path, handler)| all.route(path, handler));
    routes
        .with_state(Arc::clone(web))
        .layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(REQUESTS_LIMIT)), take_place))
}

/// Lets a request pass while there is a place for it; its body is not read before.
async fn take_place(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    match places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => {
            let what = format!("{REQUESTS_LIMIT} requests are under way; keep the data and send it again");
            Problem::new(Code::Unavailable, what).retry_after(OVERLOAD_RETRY_AFTER_S).into_response()
        }
    }
}

#[derive(Deserialize)]
struct Sent {
    device: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GattFrames {
    frames: Vec<String>,
}

/// Who sends, for which device.
struct Sender {
    peer: Peer,
    device: DeviceId,
}

async fn envelope(
    State(web): State<Arc<Web>>,
    Query(sent): Query<Sent>,
    request: Request,
) -> Result<Response, Problem> {
    let sender = sender(&web, &request, sent)?;
    let headers = request.headers().clone();
    if !matches!(media_type(&headers), "application/json") {
        return Err(other_media_type("application/json"));
    }
    let body = body_of(request, &headers).await?;
    deliver(&web, sender, &headers, FrameKind::Envelope, &body, vec![body.clone()]).await
}

async fn gatt(
    State(web): State<Arc<Web>>,
    Path(characteristic): Path<String>,
    Query(sent): Query<Sent>,
    request: Request,
) -> Result<Response, Problem> {
    let sender = sender(&web, &request, sent)?;
    let headers = request.headers().clone();
    let kind: FrameKind = format!("gatt/{}", characteristic.to_lowercase()).parse().map_err(|_| {
        Problem::bad_request("a characteristic is named by four hexadecimal digits, such as gatt/2a37")
    })?;
    let is_json = match media_type(&headers) {
        "application/octet-stream" => false,
        "application/json" => true,
        _ => {
            return Err(other_media_type(
                "application/octet-stream for one frame, or application/json for several",
            ));
        }
    };
    let body = body_of(request, &headers).await?;
    let frames = if is_json { frames_of(&body)? } else { vec![body.clone()] };
    deliver(&web, sender, &headers, kind, &body, frames).await
}

fn frames_of(body: &[u8]) -> Result<Vec<Bytes>, Problem> {
    let read: GattFrames = serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("expected {{\"frames\":[\"base64\",…]}}: {error}")))?;
    if read.frames.is_empty() || read.frames.len() > FRAMES_LIMIT {
        let what = format!("{} frames; 1 to {FRAMES_LIMIT} are taken at once", read.frames.len());
        return Err(Problem::bad_request(what));
    }
    let decode = |(index, text): (usize, &String)| {
        STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|error| Problem::bad_request(format!("frames[{index}] is not base64: {error}")))
    };
    read.frames.iter().enumerate().map(decode).collect()
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim()
}

fn other_media_type(wanted: &str) -> Problem {
    Problem::new(Code::MediaType, format!("the body must be {wanted}"))
}

async fn body_of(request: Request, headers: &HeaderMap) -> Result<Bytes, Problem> {
    let body = read_body(request.into_body(), headers, FRAME_LIMIT_BYTES).await.map_err(|error| {
        let code = match error {
            BodyError::TooLarge { .. } => Code::TooLarge,
            BodyError::Slow | BodyError::Broken => Code::BadRequest,
        };
        Problem::new(code, error.to_string())
    })?;
    if body.is_empty() { Err(Problem::bad_request("the body is empty")) } else { Ok(body) }
}

/// A device sends as itself; a program names the device, and must have the scope to write.
fn sender(web: &Web, request: &Request, sent: Sent) -> Result<Sender, Problem> {
    let known = request.extensions().get::<DevicePeer>();
    let peer = known.map(|known| known.peer.clone());
    let peer = peer.ok_or_else(|| Problem::new(Code::Forbidden, "a client certificate is needed here"))?;
    let refuse = |refused: pipeline::AdmissionRefused| Problem::new(Code::Forbidden, refused.to_string());
    web.site.admission().may_send(&peer).map_err(refuse)?;
    let header =
        request.headers().get(DEVICE_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let parse = |text: String| {
        text.parse::<DeviceId>()
            .map_err(|error| Problem::bad_request(format!("the device to send for: {error}")))
    };
    let named = sent.device.or(header).map(parse).transpose()?;
    let device = match (&peer, named) {
        (Peer::Device(own), None) => *own,
        (Peer::Device(own), Some(device)) if *own == device => device,
        (Peer::Device(_), Some(_)) => {
            return Err(Problem::new(Code::Forbidden, "a device sends its own measurements only"));
        }
        (Peer::Program(_), Some(device)) => device,
        (Peer::Program(_), None) => {
            let what = format!("a program names the device it sends for: ?device=… or {DEVICE_HEADER}: …");
            return Err(Problem::bad_request(what));
        }
    };
    Ok(Sender { peer, device })
}

/// Hands frames in, waits until all are on stable storage, and says what became of every entry.
async fn deliver(
    web: &Arc<Web>,
    sender: Sender,
    headers: &HeaderMap,
    kind: FrameKind,
    body: &Bytes,
    frames: Vec<Bytes>,
) -> Result<Response, Problem> {
    let device = sender.device;
    let key = Key::of(headers, &sender.peer, device, kind, body)?;
    let claimed = match key {
        None => None,
        Some(key) => {
            match web.blocking(move |web| idempotency::claim(web, &key).map(|claim| (key, claim))).await?? {
                (_, Claim::Answered(answer)) => return Ok(answered(answer, true)),
                (key, Claim::Proceed { version }) => Some((key, version)),
            }
        }
    };
    let receipts = submit(web, device, kind, frames).await?;
    let (answer, is_replay) = web
        .blocking(move |web| {
            let answer = answer_of(web, &receipts)?;
            match claimed {
                None => Ok((answer, false)),
                Some((key, version)) => idempotency::complete(web, &key, version, answer),
            }
        })
        .await??;
    Ok(answered(answer, is_replay))
}

async fn submit(
    web: &Web,
    device: DeviceId,
    kind: FrameKind,
    frames: Vec<Bytes>,
) -> Result<Vec<Receipt>, Problem> {
    let received_at = received_now(web.site.clock());
    let intake = web.site.intake().ok_or_else(|| refused(&IntakeError::Stopping))?;
    let mut pending = Vec::with_capacity(frames.len());
    for bytes in frames {
        let frame =
            Frame { device, kind, received_at, delivery: Delivery::AtLeastOnce, bytes: bytes.to_vec() };
        // What is begun is gone on with: only the first can be told that its device has its share.
        let submitted = if pending.is_empty() {
            intake.submit_or_refuse(frame).await
        } else {
            intake.submit(frame).await
        };
        pending.push(submitted.map_err(|error| refused(&error))?);
    }
    drop(intake);
    try_join_all(pending).await.map_err(|error| refused(&error))
}

/// Nothing of a refused frame was kept; the sender keeps it, and a repeat of what was kept is harmless.
fn refused(error: &IntakeError) -> Problem {
    let what = error.to_string();
    match error {
        IntakeError::TooLarge { .. } => Problem::new(Code::TooLarge, what),
        IntakeError::UnknownDevice { .. } | IntakeError::Retired { .. } => {
            Problem::new(Code::Forbidden, what)
        }
        IntakeError::QuarantineFull | IntakeError::StorageFull => {
            Problem::new(Code::Full, what).retry_after(RETRY_AFTER_FULL_S)
        }
        IntakeError::Overloaded { .. } => {
            Problem::new(Code::Unavailable, what).retry_after(OVERLOAD_RETRY_AFTER_S)
        }
        IntakeError::Busy { .. } => Problem::new(Code::Busy, what).retry_after(OVERLOAD_RETRY_AFTER_S),
        IntakeError::NotKept | IntakeError::Stopping => {
            Problem::new(Code::Unavailable, what).retry_after(RETRY_AFTER_S)
        }
    }
}

fn answered(answer: Value, is_replay: bool) -> Response {
    let mut response = (StatusCode::OK, Json(answer)).into_response();
    if is_replay {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// The last group with its time, and one outcome an entry in the order of frames and entries.
fn answer_of(web: &Web, receipts: &[Receipt]) -> Result<Value, Problem> {
    let mut entries = Vec::new();
    for entry in receipts.iter().flat_map(|receipt| &receipt.entries) {
        entries.push(match entry {
            EntryOutcome::Committed { facts } => {
                let positions: BTreeSet<Position> = facts.iter().map(position_of).collect();
                let ids: Result<Vec<String>, _> = positions
                    .iter()
                    .map(|one| web.site.store().identifier(&one.series, one.at, one.sequence))
                    .collect();
                let ids = ids.map_err(|error| {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "what was committed cannot be named"
                    );
                    Problem::internal()
                })?;
                json!({ "outcome": "committed", "observations": ids })
            }
            EntryOutcome::Quarantined { id, reason, what } => {
                json!({ "outcome": "quarantined", "id": id, "reason": reason, "what": what })
            }
        });
    }
    let last = receipts.iter().max_by_key(|receipt| receipt.group).ok_or_else(Problem::internal)?;
    Ok(json!({ "group": last.group, "committed_at": last.committed_at, "entries": entries }))
}

/// The device's bytes in the identity of a request.
fn device_bytes(device: DeviceId) -> [u8; 16] {
    device.to_bytes()
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use pipeline::shedding::Class;

    use super::*;

    #[tokio::test]
    async fn requests_beyond_the_limit_are_told_to_come_again() {
        use tower::ServiceExt as _;
        let ask = async |places| {
            let router: Router = Router::new()
                .route("/", post(async || "taken"))
                .layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(places)), take_place));
            let request = Request::post("/").body(axum::body::Body::empty()).unwrap();
            let response = router.oneshot(request).await.unwrap();
            (response.status().as_u16(), response.headers().contains_key(header::RETRY_AFTER))
        };
        assert_eq!(ask(1).await, (200, false));
        assert_eq!(ask(0).await, (503, true));
    }

    #[test]
    fn who_has_to_come_again_is_told_when() {
        let device = DeviceId::from_bytes([1; 16]);
        for (error, status, after) in [
            (IntakeError::Busy { device }, 429, "5"),
            (IntakeError::Overloaded { class: Class::Backfill }, 503, "5"),
            (IntakeError::NotKept, 503, "2"),
            (IntakeError::QuarantineFull, 507, "60"),
        ] {
            let response = refused(&error).into_response();
            let said = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            assert_eq!((response.status().as_u16(), said), (status, Some(after)), "{error}");
        }
    }
}
