//! Enrolment over Secure Transport (RFC 7030, with the clarifications of RFC 8951), as existing clients speak it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clinical_model::DeviceId;
use pipeline::admission::DEVICE_URI_PREFIX;
use pipeline::enrolment::{Renewal, ShownCertificate, Via};
use rustls::pki_types::CertificateDer;
use trust::pki::{SigningRequest, certificates_of, certs_only, request_attributes};

use super::claim::{granted, of_body};
use super::{Caller, ENROL_BODY_LIMIT_BYTES, Shown, request_of};
use crate::problem::{Code, Problem};
use crate::serve::read_body;
use crate::state::Web;

/// What a list of certificates is sent as (RFC 7030, section 4.1.3).
const CERTIFICATES: &str = "application/pkcs7-mime";
/// What one new certificate is sent as (RFC 7030, section 4.2.3 and appendix A.3).
const CERTIFICATE: &str = "application/pkcs7-mime; smime-type=certs-only";
/// What a signing request comes as (RFC 7030, section 4.2.1).
const REQUEST: &str = "application/pkcs10";
/// What wishes for signing requests are sent as (RFC 7030, section 4.5.2).
const ATTRIBUTES: &str = "application/csrattrs";
/// Letters of base64 on a line: a multiple of four that old decoders read.
const LINE_LETTERS: usize = 64;
/// When somebody whose late renewal waits for a person should ask again, in seconds.
const WAIT_S: u64 = 3_600;

/// A refusal, in plain words: clients show the body to whoever installs a device.
pub(crate) struct Refused(Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Refused(problem)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, text) = (self.0.code().status(), format!("{}\n", self.0.detail()));
        let mut response = (status, text).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if status == StatusCode::UNAUTHORIZED {
            let asks = HeaderValue::from_static("Basic realm=\"Auscult enrolment\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, asks);
        }
        if let Some(seconds) = self.0.retry_after_s() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

type Est = Result<Response, Refused>;

/// `GET cacerts`: the anchors and the issuing keys that are believed.
pub(crate) async fn authorities(State(web): State<Arc<Web>>) -> Est {
    let outline = web.authority()?.outline();
    let mut all = certificates_of(&outline.anchors_pem);
    for issuing in &outline.issuing {
        all.extend(certificates_of(&issuing.certificate_pem));
    }
    Ok(base64(StatusCode::OK, CERTIFICATES, &certs_only(&all)))
}

/// `GET csrattrs`.
pub(crate) async fn attributes() -> Est {
    Ok(base64(StatusCode::OK, ATTRIBUTES, &request_attributes()))
}

/// `POST simpleenroll`: the serial number as user and the claim code as password, or a certificate that is in date.
pub(crate) async fn enrol(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Est {
    let basic = basic_of(request.headers());
    let csr = signing_request(request).await?;
    if let Some((serial, code)) = basic {
        let (_, new) = granted(&web, &caller, serial, code, csr, Via::Est).await?;
        return Ok(certificate(&new.chain_pem));
    }
    match &caller.shown {
        Some(Ok(shown)) if shown.out_of_date(web.site.clock().now()).is_none() => {
            renewed(&web, shown.clone(), csr).await
        }
        _ => Err(Problem::new(
            Code::BadCredentials,
            "give the serial number as user name and the claim code as password, or a certificate that is in date",
        )
        .into()),
    }
}

/// `POST simplereenroll`: with the present certificate, which may be out of date.
pub(crate) async fn renew(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Est {
    let shown = match caller.shown.clone() {
        Some(Ok(shown)) => shown,
        Some(Err(why)) => return Err(Problem::new(Code::Forbidden, why).into()),
        None => {
            let what = "a renewal needs the present certificate of the device in the TLS handshake";
            return Err(Problem::new(Code::Forbidden, what).into());
        }
    };
    let csr = signing_request(request).await?;
    renewed(&web, shown, csr).await
}

async fn renewed(web: &Arc<Web>, shown: Shown, csr: SigningRequest) -> Est {
    let authority = Arc::clone(web.authority()?);
    let uri = shown.certificate.uri.clone();
    let device: DeviceId =
        uri.strip_prefix(DEVICE_URI_PREFIX).and_then(|id| id.parse().ok()).ok_or_else(|| {
            Problem::new(Code::Forbidden, "only devices renew here; an operator issues to programs")
        })?;
    let shown = ShownCertificate {
        serial_hex: shown.certificate.serial_hex,
        common_name: shown.certificate.common_name,
        not_before: shown.not_before,
        not_after: shown.not_after,
    };
    let renewal = web.blocking(move |web| web.site.renew(authority.as_ref(), device, &shown, &csr)).await?;
    match renewal.map_err(Problem::from)? {
        Renewal::Granted(new) => Ok(certificate(&new.chain_pem)),
        Renewal::Waits => {
            // RFC 7030, section 4.2.3: accepted, to be asked for again.
            let text =
                "the certificate ended so long ago that a person looks at this first; ask again later\n";
            let mut response = (StatusCode::ACCEPTED, text).into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(WAIT_S));
            Ok(response)
        }
    }
}

/// The new certificate alone: the rest of the chain is had from `cacerts`.
fn certificate(chain_pem: &str) -> Response {
    let leaf: Vec<CertificateDer<'static>> = certificates_of(chain_pem).into_iter().take(1).collect();
    base64(StatusCode::OK, CERTIFICATE, &certs_only(&leaf))
}

fn base64(status: StatusCode, kind: &'static str, der: &[u8]) -> Response {
    let packed = STANDARD.encode(der);
    let mut text = String::with_capacity(packed.len() + packed.len() / LINE_LETTERS + 1);
    let mut rest = packed.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(LINE_LETTERS));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("content-transfer-encoding", HeaderValue::from_static("base64"));
    response
}

async fn signing_request(request: Request) -> Result<SigningRequest, Problem> {
    let headers = request.headers().clone();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if kind.split(';').next().map(str::trim) != Some(REQUEST) {
        return Err(Problem::new(Code::MediaType, format!("the body must be {REQUEST} in base64")));
    }
    let body = read_body(request.into_body(), &headers, ENROL_BODY_LIMIT_BYTES).await.map_err(of_body)?;
    let text = std::str::from_utf8(&body).map_err(|_| {
        Problem::bad_request("the body must be a signing request in base64, not DER as it is")
    })?;
    request_of(text)
}

/// Name and password of HTTP Basic (RFC 7617).
fn basic_of(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, packed) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = String::from_utf8(STANDARD.decode(packed.trim()).ok()?).ok()?;
    let (name, password) = plain.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}
