//! What goes back: resources with their headers, and every error as an OperationOutcome with its HTTP status.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clinical_model::Timestamp;
use health_codecs::fhir::{IssueCode, MEDIA_TYPE, OutcomeIssue, operation_outcome};
use pipeline::IntakeError;
use pipeline::audited::ReadError;
use serde_json::Value;
use store::{StoreError, TransactError};

use crate::problem::Problem;

/// Seconds after which it is worth trying again when nothing can be kept for a moment.
const RETRY_AFTER_S: u64 = 2;

/// A good answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub body: Option<Value>,
    pub headers: HeaderMap,
    /// Written for people, with line breaks.
    pub is_pretty: bool,
    /// What is sent instead of a body while it is read.
    pub stream: Option<Body>,
    /// What the body is.
    pub media_type: &'static str,
    /// The version that it shows, and since when that stands.
    pub versioned: Option<(u64, Timestamp)>,
}

impl Answer {
    /// A resource or Bundle.
    pub(crate) fn ok(body: Value) -> Self {
        Answer {
            status: StatusCode::OK,
            body: Some(body),
            headers: HeaderMap::new(),
            is_pretty: false,
            stream: None,
            media_type: MEDIA_TYPE,
            versioned: None,
        }
    }

    /// Something that is read while it is sent.
    pub(crate) fn stream(stream: Body, media_type: &'static str) -> Self {
        Answer { body: None, stream: Some(stream), media_type, ..Answer::ok(Value::Null) }
    }

    /// With another media type.
    #[must_use]
    pub(crate) fn media_type(self, media_type: &'static str) -> Self {
        Answer { media_type, ..self }
    }

    /// With another status.
    #[must_use]
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With a header; a value that cannot be one is left out.
    #[must_use]
    pub(crate) fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// With the headers that name a version.
    #[must_use]
    pub(crate) fn version(self, version: u64, updated_at: Timestamp) -> Self {
        let answer = Answer { versioned: Some((version, updated_at)), ..self };
        answer
            .header(header::ETAG, &format!("W/\"{version}\""))
            .header(header::LAST_MODIFIED, &http_date(updated_at))
    }
}

impl Answer {
    /// Whether the caller has this version already, by the headers `If-None-Match` and `If-Modified-Since` (RFC 9110
    /// §13.1.2 and §13.1.3: the first decides where both are given).
    pub(crate) fn is_known(&self, headers: &HeaderMap) -> bool {
        let Some((version, updated_at)) = self.versioned else { return false };
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        if let Some(tags) = text(header::IF_NONE_MATCH) {
            let own = format!("\"{version}\"");
            return tags
                .split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || tag.trim_start_matches("W/") == own);
        }
        let since = text(header::IF_MODIFIED_SINCE).and_then(parse_http_date);
        since.is_some_and(|since| updated_at.as_seconds() <= since.as_seconds())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = match (self.stream, &self.body) {
            (Some(stream), _) => {
                let mut response = Response::new(stream);
                let kind = HeaderValue::from_static(self.media_type);
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            (None, Some(body)) => fhir_json(self.status, body, self.is_pretty, self.media_type),
            (None, None) => self.status.into_response(),
        };
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

fn fhir_json(status: StatusCode, body: &Value, is_pretty: bool, media_type: &'static str) -> Response {
    let written = if is_pretty { serde_json::to_vec_pretty(body) } else { serde_json::to_vec(body) };
    // A JSON value has string keys and valid numbers, so that writing it cannot fail.
    let mut response = Response::new(Body::from(written.unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An instant as HTTP writes it (RFC 9110 §5.6.7), to the second.
pub(crate) fn http_date(at: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let seconds = at.as_seconds();
    let weekday = DAYS[seconds.div_euclid(86_400).rem_euclid(7) as usize];
    // YYYY-MM-DDThh:mm:ss…
    let text = Timestamp::from_seconds(seconds).to_rfc3339();
    let month = text[5..7].parse::<usize>().unwrap_or(1);
    format!("{weekday}, {} {} {} {} GMT", &text[8..10], MONTHS[month - 1], &text[0..4], &text[11..19])
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The inverse of [`http_date`], for the form that every sender must use; `None` for anything else.
fn parse_http_date(text: &str) -> Option<Timestamp> {
    let mut parts = text.split_once(", ")?.1.split(' ');
    let day = parts.next()?;
    let month = parts.next()?;
    let month = MONTHS.iter().position(|known| *known == month)? + 1;
    let (year, time) = (parts.next()?, parts.next()?);
    (parts.next() == Some("GMT") && parts.next().is_none()).then_some(())?;
    format!("{year}-{month:02}-{day}T{time}Z").parse().ok()
}

/// A refusal or failure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub issues: Vec<OutcomeIssue>,
    pub retry_after_s: Option<u64>,
}

impl Refusal {
    /// With one issue that names no place.
    pub(crate) fn new(status: StatusCode, code: IssueCode, what: impl Into<String>) -> Self {
        Refusal::at(status, code, what, "")
    }

    /// With one issue at a place.
    pub(crate) fn at(
        status: StatusCode,
        code: IssueCode,
        what: impl Into<String>,
        place: impl Into<String>,
    ) -> Self {
        Refusal { status, issues: vec![OutcomeIssue::error(code, what, place)], retry_after_s: None }
    }

    /// A request that makes no sense.
    pub(crate) fn bad_request(issues: Vec<OutcomeIssue>) -> Self {
        Refusal { status: StatusCode::BAD_REQUEST, issues, retry_after_s: None }
    }

    /// A resource that is refused: 400 where it cannot be read at all, 422 where it breaks a rule.
    pub(crate) fn invalid(issues: Vec<OutcomeIssue>) -> Self {
        let unreadable = issues.iter().any(|issue| issue.code == IssueCode::Structure);
        let status = if unreadable { StatusCode::BAD_REQUEST } else { StatusCode::UNPROCESSABLE_ENTITY };
        Refusal { status, issues, retry_after_s: None }
    }

    /// Something that is not there, or not theirs: the same answer, so that nothing can be learned from it.
    pub(crate) fn not_found(kind: &str) -> Self {
        let what = format!("there is no such {kind}, or it is not one of yours");
        Refusal::new(StatusCode::NOT_FOUND, IssueCode::NotFound, what)
    }

    /// Not permitted.
    pub(crate) fn forbidden(what: impl Into<String>) -> Self {
        Refusal::new(StatusCode::FORBIDDEN, IssueCode::Forbidden, what)
    }

    /// A token that is not good (RFC 6750 §3.1).
    pub(crate) fn bad_token(what: impl Into<String>) -> Self {
        Refusal::new(StatusCode::UNAUTHORIZED, IssueCode::Security, what)
    }

    /// A token, or the registration of a certificate, whose scopes do not reach (RFC 6750 §3.1).
    pub(crate) fn insufficient_scope(what: impl Into<String>) -> Self {
        Refusal::new(StatusCode::FORBIDDEN, IssueCode::Security, what)
    }

    /// What `WWW-Authenticate` says with it.
    fn challenge(&self) -> Option<&'static str> {
        let is_security = self.issues.iter().any(|issue| issue.code == IssueCode::Security);
        match (self.status, is_security) {
            (StatusCode::UNAUTHORIZED, true) => Some("Bearer realm=\"fhir\", error=\"invalid_token\""),
            (StatusCode::UNAUTHORIZED, false) => Some("Bearer realm=\"fhir\""),
            (StatusCode::FORBIDDEN, true) => Some("Bearer realm=\"fhir\", error=\"insufficient_scope\""),
            _ => None,
        }
    }

    /// A fault of ours; the log says more.
    pub(crate) fn internal() -> Self {
        let what = "something went wrong here; the server's log says more";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, IssueCode::Exception, what)
    }

    /// It may work in a moment.
    pub(crate) fn unavailable(what: impl Into<String>) -> Self {
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::Transient, what);
        Refusal { retry_after_s: Some(RETRY_AFTER_S), ..refusal }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = fhir_json(self.status, &operation_outcome(&self.issues), false, MEDIA_TYPE);
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge() {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a FHIR request failed");
        match error {
            ReadError::Audit(_) => Refusal::unavailable("the audit log cannot be written; nothing was shown"),
            ReadError::Store(_) | ReadError::Unrecorded => Refusal::internal(),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        ReadError::Store(error).into()
    }
}

impl From<TransactError> for Refusal {
    fn from(error: TransactError) -> Self {
        ReadError::Audit(error).into()
    }
}

impl From<Problem> for Refusal {
    fn from(_: Problem) -> Self {
        // Problems come here from work that panicked; it has been logged.
        Refusal::internal()
    }
}

impl From<IntakeError> for Refusal {
    fn from(error: IntakeError) -> Self {
        let what = error.to_string();
        match error {
            IntakeError::TooLarge { .. } => {
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, IssueCode::TooLong, what)
            }
            IntakeError::UnknownDevice { .. } => {
                Refusal::at(StatusCode::UNPROCESSABLE_ENTITY, IssueCode::NotFound, what, "Observation.device")
            }
            IntakeError::Retired { .. } => Refusal::at(
                StatusCode::UNPROCESSABLE_ENTITY,
                IssueCode::BusinessRule,
                what,
                "Observation.device",
            ),
            IntakeError::QuarantineFull | IntakeError::StorageFull => {
                Refusal::new(StatusCode::INSUFFICIENT_STORAGE, IssueCode::NoStore, what)
            }
            IntakeError::Busy { .. } => {
                let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, IssueCode::Throttled, what);
                Refusal { retry_after_s: Some(RETRY_AFTER_S), ..refusal }
            }
            IntakeError::NotKept | IntakeError::Stopping | IntakeError::Overloaded { .. } => {
                Refusal::unavailable(what)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_http_wants_them() {
        // The example of RFC 9110 §5.6.7.
        assert_eq!(http_date("1994-11-06T08:49:37Z".parse().unwrap()), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date("1970-01-01T00:00:00.999Z".parse().unwrap()), "Thu, 01 Jan 1970 00:00:00 GMT");
        let at: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        assert_eq!(parse_http_date(&http_date(at)), Some(at));
        for bad in ["", "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nob 1994 08:49:37 GMT"]
        {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
        assert_eq!(http_date("1969-12-31T23:59:59Z".parse().unwrap()), "Wed, 31 Dec 1969 23:59:59 GMT");
    }
}
