//! `POST /enrol/v1/claim`: serial number, code and signing request in, certificate out; and what a person reads who opens
//! that address in a browser.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use clinical_model::{DeviceId, Timestamp};
use pipeline::enrolment::{ClaimRequest, NewCertificate, Via};
use serde::{Deserialize, Serialize};
use trust::pki::SigningRequest;

use super::{Caller, ENROL_BODY_LIMIT_BYTES, request_of};
use crate::flood::RETRY_AFTER_S;
use crate::json::Answer;
use crate::problem::{Code, Problem};
use crate::serve::{BodyError, read_body};
use crate::state::Web;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    serial: String,
    code: String,
    csr: String,
}

#[derive(Serialize)]
pub(crate) struct Granted {
    device_id: DeviceId,
    /// The certificate, then that of the issuing key.
    certificate_pem: String,
    /// The anchors.
    authority_pem: String,
    not_before: Timestamp,
    not_after: Timestamp,
    /// From when on it should be renewed: half of its life.
    renew_after: Timestamp,
    /// Where.
    est: String,
}

/// What a browser may do on the page: nothing.
const PAGE_POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /enrol/v1/claim`: what a phone's camera opens when it reads a claim code.
pub(crate) async fn explained() -> Response {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    let policy = HeaderValue::from_static(PAGE_POLICY);
    let page = include_str!("claim.html");
    ([(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, policy)], page).into_response()
}

pub(crate) async fn claim(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<Granted> {
    debug_assert_eq!(request.method(), Method::POST);
    let headers = request.headers().clone();
    is_json(&headers)?;
    let body = read_body(request.into_body(), &headers, ENROL_BODY_LIMIT_BYTES).await.map_err(of_body)?;
    let asked: Asked = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body cannot be read: {error}")))?;
    let csr = request_of(&asked.csr)?;
    let (device_id, granted) = granted(&web, &caller, asked.serial, asked.code, csr, Via::Claim).await?;
    let outline = web.authority()?.outline();
    Ok(Json(Granted {
        device_id,
        certificate_pem: granted.chain_pem,
        authority_pem: outline.anchors_pem,
        not_before: granted.not_before,
        not_after: granted.not_after,
        renew_after: half_life(granted.not_before, granted.not_after),
        est: format!("{}/.well-known/est", outline.address),
    }))
}

/// The instant at which half of a life is over.
pub(super) fn half_life(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    not_before.plus_micros(not_after.micros_since(not_before) / 2)
}

/// The certificate for a right code. Wrong ones are slowed down by address, and not all of them recorded; a right one is
/// taken however many wrong ones come from where it comes from.
pub(super) async fn granted(
    web: &Arc<Web>,
    caller: &Caller,
    serial: String,
    code: String,
    csr: SigningRequest,
    via: Via,
) -> Result<(DeviceId, NewCertificate), Problem> {
    let (address, authority) = (caller.address, Arc::clone(web.authority()?));
    let claimed = web.blocking(move |web| {
        let now = web.site.clock().now();
        let is_flood = AtomicBool::new(false);
        let noted = |act| {
            let act = web.flood.recorded(Some(address), act, now);
            is_flood.store(act.is_none(), Ordering::Relaxed);
            act
        };
        let from = address.to_string();
        let asked = ClaimRequest { serial: &serial, code: &code, request: &csr, via, from, noted: &noted };
        let claimed = web.site.claim(authority.as_ref(), &asked);
        claimed.map_err(|error| match is_flood.load(Ordering::Relaxed) {
            true => {
                let what = "too many attempts from this address failed; try again in a moment";
                Problem::new(Code::TooManyAttempts, what).retry_after(RETRY_AFTER_S)
            }
            false => error.into(),
        })
    });
    claimed.await?
}

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    match kind.split(';').next().map(str::trim) {
        Some("application/json") => Ok(()),
        _ => Err(Problem::new(Code::MediaType, "the body must be application/json")),
    }
}

pub(super) fn of_body(error: BodyError) -> Problem {
    let code = match error {
        BodyError::TooLarge { .. } => Code::TooLarge,
        BodyError::Slow | BodyError::Broken => Code::BadRequest,
    };
    Problem::new(code, error.to_string())
}
