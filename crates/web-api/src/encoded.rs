//! Bodies that are packed: refused before anything is read of them, for a few bytes can unpack to more than there is memory.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use health_codecs::fhir::IssueCode;

use crate::fhir::Refusal;
use crate::oauth::{Word, Wrong};
use crate::problem::{Code, Problem};
use crate::serve::discard;

const WHAT: &str = "the body has a Content-Encoding, and only bodies as they are can be taken";

/// Lets a request pass whose body is as it is. The answer tells what can be taken instead (RFC 9110 §12.5.3), in the words of
/// the interface that was asked.
pub(crate) async fn refuse_packed(request: Request, next: Next) -> Response {
    if !is_packed(request.headers()) {
        return next.run(request).await;
    }
    let path = request.uri().path();
    let mut response = if path == "/fhir" || path.starts_with("/fhir/") {
        Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, IssueCode::NotSupported, WHAT).into_response()
    } else if path.starts_with("/oauth2/") {
        Wrong { word: Word::InvalidRequest, what: WHAT.to_owned() }.into_response()
    } else {
        Problem::new(Code::MediaType, WHAT).into_response()
    };
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    // A client that is cut off while it sends often misses the answer; one who asks before sending does not send.
    if !request.headers().contains_key(header::EXPECT) {
        discard(request.into_body()).await;
    }
    response
}

/// Whether anything but `identity` was done to the body (RFC 9110 §8.4).
fn is_packed(headers: &HeaderMap) -> bool {
    let is_plain = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    headers.get_all(header::CONTENT_ENCODING).iter().any(|value| match value.to_str() {
        Ok(text) => !text.split(',').map(str::trim).all(is_plain),
        Err(_) => true,
    })
}
