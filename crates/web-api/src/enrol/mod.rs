//! Enrolment: the paths of a device that has no certificate yet, or one that is out of date: claim, EST, revocation lists.
//!
//! Nothing here trusts on first use: the device believes the server by the pin that came with its claim code, and the
//! server believes the device by the code.

mod claim;
mod est;
mod lists;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use clinical_model::Timestamp;
use pipeline::PeerCertificate;
use pipeline::enrolment::{CertificateAuthority, EnrolError};
use trust::pki::{RequestError, SigningRequest};

use crate::problem::{Code, Problem};
use crate::state::Web;

/// Bytes of a request to enrol: a signing request as text, and little around it.
pub(crate) const ENROL_BODY_LIMIT_BYTES: usize = trust::pki::MAX_REQUEST_TEXT_BYTES + (4 << 10);

const CLAIM_PATH: &str = "/enrol/v1/claim";
const LISTS_PATH: &str = "/pki/crl/";
const EST_PATH: &str = "/.well-known/est/";

/// What enrolment has of its own.
#[derive(Default)]
pub(crate) struct Enrolling {
    authority: OnceLock<Arc<dyn CertificateAuthority>>,
}

impl Web {
    /// Lets this server issue and revoke certificates, and finishes claims that were broken off. Once; a second authority is
    /// not taken.
    pub fn set_authority(self: &Arc<Self>, authority: Arc<dyn CertificateAuthority>) {
        let _ = self.enrolling.authority.set(Arc::clone(&authority));
        let web = Arc::clone(self);
        // In its own thread: the store blocks, and nobody waits for it.
        std::thread::spawn(move || {
            if let Err(error) = web.site.finish_claims(authority.as_ref()) {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "it was not looked whether earlier certificates of claimed devices still stand"
                );
            }
        });
    }

    /// Whoever holds the issuing key.
    pub(crate) fn authority(&self) -> Result<&Arc<dyn CertificateAuthority>, Problem> {
        self.enrolling
            .authority
            .get()
            .ok_or_else(|| Problem::new(Code::Unavailable, "this server cannot issue certificates"))
    }
}

/// What a client of the device port has shown: its chain is sound and it has the key, but it may be out of date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The certificate.
    pub certificate: PeerCertificate,
    /// First instant of validity.
    pub not_before: Timestamp,
    /// Last instant of validity.
    pub not_after: Timestamp,
}

impl Shown {
    /// Why it is not in date, if it is not.
    pub fn out_of_date(&self, now: Timestamp) -> Option<String> {
        if now > self.not_after {
            let ended = self.not_after;
            return Some(format!(
                "the certificate ended {ended}; it can only be renewed, at {EST_PATH}simplereenroll"
            ));
        }
        // Clocks run a little apart.
        if now < self.not_before {
            let begins = self.not_before;
            return Some(format!(
                "the certificate begins {begins}, and here it is {now}; set the clock that is wrong, or renew it at \
                 {EST_PATH}simplereenroll"
            ));
        }
        None
    }
}

/// Who calls a path of enrolment.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// What it showed on the device port.
    pub shown: Option<Result<Shown, String>>,
    /// From where.
    pub address: IpAddr,
}

/// Whether a path of the device port is for clients without a certificate, too.
pub(crate) fn is_open(path: &str) -> bool {
    path == CLAIM_PATH || path.starts_with(EST_PATH) || path.starts_with(LISTS_PATH)
}

/// An operation: method, path and handler.
type Operation = (Method, &'static str, MethodRouter<Arc<Web>>);

/// What only the device port has.
fn of_devices() -> [Operation; 4] {
    [
        (Method::GET, "/.well-known/est/cacerts", get(est::authorities)),
        (Method::GET, "/.well-known/est/csrattrs", get(est::attributes)),
        (Method::POST, "/.well-known/est/simpleenroll", post(est::enrol)),
        (Method::POST, "/.well-known/est/simplereenroll", post(est::renew)),
    ]
}

/// What both ports have.
fn of_both() -> [Operation; 3] {
    [
        (Method::POST, CLAIM_PATH, post(claim::claim)),
        (Method::GET, CLAIM_PATH, get(claim::explained)),
        (Method::GET, "/pki/crl/{file}", get(lists::revoked)),
    ]
}

/// Methods and paths of all operations on the device port.
pub(crate) fn paths() -> impl Iterator<Item = (Method, &'static str)> {
    of_both().into_iter().chain(of_devices()).map(|(method, path, _)| (method, path))
}

fn routed(routes: Router<Arc<Web>>, operations: impl IntoIterator<Item = Operation>) -> Router<Arc<Web>> {
    operations.into_iter().fold(routes, |all, (_, path, handler)| all.route(path, handler))
}

/// The paths of the device port.
pub(crate) fn device_router(web: &Arc<Web>) -> Router {
    routed(shared(), of_devices())
        .layer(middleware::from_fn_with_state(Arc::clone(web), dated))
        .layer(DefaultBodyLimit::max(ENROL_BODY_LIMIT_BYTES))
        .with_state(Arc::clone(web))
}

/// The paths of the web port: an installer's phone and whoever checks certificates may reach nothing else.
pub(crate) fn web_router(web: &Arc<Web>) -> Router {
    shared()
        .layer(middleware::from_fn_with_state(Arc::clone(web), dated))
        .layer(DefaultBodyLimit::max(ENROL_BODY_LIMIT_BYTES))
        .with_state(Arc::clone(web))
}

fn shared() -> Router<Arc<Web>> {
    routed(Router::new(), of_both())
}

/// Every answer tells the time by which certificates are judged here: a device whose clock lost its battery sets it by
/// that.
async fn dated(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Ok(date) = HeaderValue::from_str(&crate::fhir::http_date(web.site.clock().now())) {
        headers.insert(header::DATE, date);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A signing request, or why it is none.
fn request_of(text: &str) -> Result<SigningRequest, Problem> {
    SigningRequest::from_text(text).map_err(|error| match error {
        RequestError::TooLong { .. } => Problem::new(Code::TooLarge, error.to_string()),
        _ => Problem::bad_request(error.to_string()),
    })
}

impl From<EnrolError> for Problem {
    fn from(error: EnrolError) -> Self {
        let with_cause = || match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        match &error {
            EnrolError::NoDevice => Problem::not_found("device"),
            EnrolError::NotClaimed | EnrolError::Revoked | EnrolError::Outlived => {
                Problem::new(Code::Forbidden, error.to_string())
            }
            EnrolError::Request(_) => Problem::bad_request(with_cause()),
            EnrolError::TooOften => Problem::new(Code::Busy, error.to_string()).retry_after(3_600),
            EnrolError::NotNow(_) => Problem::new(Code::AlreadyAnswered, error.to_string()),
            EnrolError::Conflict => Problem::new(Code::ChangedBySomebodyElse, error.to_string()),
            EnrolError::Authority(_) | EnrolError::Damaged(_) | EnrolError::Store(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "enrolment failed");
                Problem::new(
                    Code::Unavailable,
                    "no certificate can be issued or revoked now; the server's log says why",
                )
                .retry_after(30)
            }
        }
    }
}
