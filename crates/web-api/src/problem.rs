//! Errors at the edge: one closed list of codes, and the one place where they become HTTP statuses.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pipeline::audited::ReadError;
use pipeline::desk::DeskError;
use serde::Serialize;
use store::TransactError;

/// Characters of a detail: readers of bodies quote what they were given, which may be a name of a megabyte.
const DETAIL_LIMIT_CHARS: usize = 4_000;

/// Stable words for programs. Snapshot-tested: a new one is added, none is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Nobody is signed in, or the session has ended.
    SignedOut,
    /// Wrong name or password.
    BadCredentials,
    /// Too many failed sign-ins.
    TooManyAttempts,
    /// The role does not permit it.
    Forbidden,
    /// The request lacks the header that keeps forged requests out.
    Forged,
    /// It is not there, or not theirs.
    NotFound,
    /// The request makes no sense.
    BadRequest,
    /// A newer version exists.
    ChangedBySomebodyElse,
    /// The device is assigned then already.
    Overlap,
    /// The alert or item was answered already.
    AlreadyAnswered,
    /// It exists already.
    Exists,
    /// Setup was done already, or the token is wrong.
    SetupClosed,
    /// The server is stopping or cannot keep anything now.
    Unavailable,
    /// The sender has its share of what may wait.
    Busy,
    /// The body is too large.
    TooLarge,
    /// The body is of another media type.
    MediaType,
    /// The idempotency key was used for another request.
    KeyUsed,
    /// There is no room to keep it.
    Full,
    /// The second factor must be used again first.
    StepUpNeeded,
    /// The way in is not complete yet.
    EnrolmentNeeded,
    /// The password was right, and a code is needed.
    SecondFactorNeeded,
    /// The code is wrong or was used.
    BadCode,
    /// The one-time link was used, is over or was never valid.
    LinkSpent,
    /// Without it there would be no complete way in.
    LastWayIn,
    /// Nobody could administer the site any more.
    LastAdministrator,
    /// A legal hold stands on the record.
    OnHold,
    /// Only a person can do it, at the home of the key.
    ByHand,
    /// No signed checkpoint covers the row yet.
    NotYetProvable,
    /// It has to be said why.
    ReasonNeeded,
    /// A fault of ours.
    Internal,
}

impl Code {
    /// Every code, for the snapshot.
    pub const ALL: &'static [Code] = &[
        Code::SignedOut,
        Code::BadCredentials,
        Code::TooManyAttempts,
        Code::Forbidden,
        Code::Forged,
        Code::NotFound,
        Code::BadRequest,
        Code::ChangedBySomebodyElse,
        Code::Overlap,
        Code::AlreadyAnswered,
        Code::Exists,
        Code::SetupClosed,
        Code::Unavailable,
        Code::Busy,
        Code::TooLarge,
        Code::MediaType,
        Code::KeyUsed,
        Code::Full,
        Code::StepUpNeeded,
        Code::EnrolmentNeeded,
        Code::SecondFactorNeeded,
        Code::BadCode,
        Code::LinkSpent,
        Code::LastWayIn,
        Code::LastAdministrator,
        Code::OnHold,
        Code::ByHand,
        Code::NotYetProvable,
        Code::ReasonNeeded,
        Code::Internal,
    ];

    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        match self {
            Code::SignedOut | Code::BadCredentials => StatusCode::UNAUTHORIZED,
            Code::TooManyAttempts | Code::Busy => StatusCode::TOO_MANY_REQUESTS,
            Code::Forbidden | Code::Forged | Code::SetupClosed => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::BadRequest | Code::ReasonNeeded => StatusCode::BAD_REQUEST,
            Code::ChangedBySomebodyElse | Code::Overlap | Code::AlreadyAnswered | Code::Exists => {
                StatusCode::CONFLICT
            }
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::KeyUsed => StatusCode::UNPROCESSABLE_ENTITY,
            Code::Full => StatusCode::INSUFFICIENT_STORAGE,
            Code::StepUpNeeded => StatusCode::FORBIDDEN,
            Code::EnrolmentNeeded => StatusCode::FORBIDDEN,
            Code::SecondFactorNeeded => StatusCode::FORBIDDEN,
            Code::BadCode => StatusCode::UNAUTHORIZED,
            Code::LinkSpent => StatusCode::FORBIDDEN,
            Code::LastWayIn => StatusCode::CONFLICT,
            Code::LastAdministrator => StatusCode::CONFLICT,
            Code::OnHold | Code::ByHand | Code::NotYetProvable => StatusCode::CONFLICT,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Code::SignedOut => "Signed out",
            Code::BadCredentials => "Wrong name or password",
            Code::TooManyAttempts => "Too many attempts",
            Code::Forbidden => "Not permitted",
            Code::Forged => "The request could be forged",
            Code::NotFound => "Not found",
            Code::BadRequest => "The request cannot be used",
            Code::ChangedBySomebodyElse => "Changed by somebody else",
            Code::Overlap => "Assigned already",
            Code::AlreadyAnswered => "Answered already",
            Code::Exists => "Exists already",
            Code::SetupClosed => "Setup is closed",
            Code::Unavailable => "Not available now",
            Code::Busy => "More than its share",
            Code::TooLarge => "Too large",
            Code::MediaType => "Another media type is needed",
            Code::KeyUsed => "The key was used already",
            Code::Full => "There is no room",
            Code::StepUpNeeded => "Prove it is you",
            Code::EnrolmentNeeded => "Set up your way in",
            Code::SecondFactorNeeded => "A code is needed",
            Code::BadCode => "Wrong code",
            Code::LinkSpent => "The link does not work",
            Code::LastWayIn => "The last way in",
            Code::LastAdministrator => "The last administrator",
            Code::OnHold => "On legal hold",
            Code::ByHand => "To be done by hand",
            Code::NotYetProvable => "Not yet provable",
            Code::ReasonNeeded => "Say why",
            Code::Internal => "A fault of the server",
        }
    }
}

/// An error as a client sees it (RFC 9457).
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    retry_after_s: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: Code,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
}

impl Problem {
    /// With a sentence that says what, where and what to do.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(DETAIL_LIMIT_CHARS) {
            detail.truncate(end);
            detail.push('…');
        }
        Problem { code, detail, retry_after_s: None }
    }

    /// A request that makes no sense.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new(Code::BadRequest, detail)
    }

    /// Something that is not there, or not theirs: the same answer, so that nothing can be learned from it.
    pub fn not_found(what: &str) -> Self {
        Problem::new(Code::NotFound, format!("there is no such {what}, or it is not one of yours"))
    }

    /// A fault of ours; the log says more.
    pub fn internal() -> Self {
        Problem::new(Code::Internal, "something went wrong here; the server's log says more")
    }

    /// When it is worth trying again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// What, where and what to do.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// When it is worth trying again, in seconds.
    pub const fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_s
    }

    /// The code.
    pub const fn code(&self) -> Code {
        self.code
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let body = Body {
            r#type: "about:blank",
            title: self.code.title(),
            status: status.as_u16(),
            code: self.code,
            detail: &self.detail,
            retry_after_s: self.retry_after_s,
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Logs a failure once, with its causes, and hides it from the client.
fn hidden(error: &(dyn std::error::Error + 'static), code: Code) -> Problem {
    tracing::error!(error, "a request failed");
    match code {
        Code::Unavailable => {
            Problem::new(code, "nothing can be kept now; try again in a moment").retry_after(2)
        }
        _ => Problem::internal(),
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Audit(_) => hidden(&error, Code::Unavailable),
            ReadError::Store(_) | ReadError::Unrecorded => hidden(&error, Code::Internal),
        }
    }
}

impl From<TransactError> for Problem {
    fn from(error: TransactError) -> Self {
        match &error {
            TransactError::Conflict { .. } | TransactError::LeaseLost { .. } => {
                Problem::new(Code::ChangedBySomebodyElse, error.to_string())
            }
            TransactError::Store(_) => hidden(&error, Code::Unavailable),
        }
    }
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        let with_cause = || match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        match &error {
            DeskError::NotFound { what, .. } => Problem::not_found(what),
            DeskError::Conflict { .. } => Problem::new(Code::ChangedBySomebodyElse, error.to_string()),
            DeskError::Taken { .. } => Problem::new(Code::Exists, error.to_string()),
            DeskError::Overlap(_) => Problem::new(Code::Overlap, with_cause()),
            DeskError::Time { .. } | DeskError::Limit(_) => Problem::bad_request(with_cause()),
            DeskError::Alert(_) | DeskError::DealtWith => Problem::new(Code::AlreadyAnswered, with_cause()),
            DeskError::Intake(_) => Problem::new(Code::Unavailable, with_cause()).retry_after(2),
            DeskError::Store(_) => hidden(&error, Code::Unavailable),
        }
    }
}
