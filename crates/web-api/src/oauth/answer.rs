//! How the protocol endpoints are asked and answer: forms in, JSON out, errors by the words of RFC 6749 §5.2.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, Request};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::FORM_LIMIT_BYTES;
use crate::json::session::Asking;
use crate::problem::Problem;
use crate::serve::read_body;

/// The words for what went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    InvalidScope,
    UnauthorizedClient,
    UnsupportedGrantType,
    UnsupportedResponseType,
    AccessDenied,
    InteractionRequired,
    RequestNotSupported,
    ServerError,
}

impl Word {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Word::InvalidRequest => "invalid_request",
            Word::InvalidClient => "invalid_client",
            Word::InvalidGrant => "invalid_grant",
            Word::InvalidScope => "invalid_scope",
            Word::UnauthorizedClient => "unauthorized_client",
            Word::UnsupportedGrantType => "unsupported_grant_type",
            Word::UnsupportedResponseType => "unsupported_response_type",
            Word::AccessDenied => "access_denied",
            Word::InteractionRequired => "interaction_required",
            Word::RequestNotSupported => "request_not_supported",
            Word::ServerError => "server_error",
        }
    }
}

/// A refusal by a protocol endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub word: Word,
    pub what: String,
}

impl Wrong {
    pub(super) fn new(word: Word, what: impl Into<String>) -> Self {
        Wrong { word, what: what.into() }
    }

    pub(super) fn request(what: impl Into<String>) -> Self {
        Wrong::new(Word::InvalidRequest, what)
    }

    pub(super) fn grant(what: impl Into<String>) -> Self {
        Wrong::new(Word::InvalidGrant, what)
    }

    /// A fault of ours, which was logged.
    pub(super) fn ours() -> Self {
        Wrong::new(Word::ServerError, "something went wrong here; the server's log says more")
    }
}

impl From<store::TransactError> for Wrong {
    fn from(error: store::TransactError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a grant could not be kept");
        Wrong::ours()
    }
}

impl From<store::StoreError> for Wrong {
    fn from(error: store::StoreError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a grant could not be read");
        Wrong::ours()
    }
}

impl From<Problem> for Wrong {
    fn from(_: Problem) -> Self {
        // Problems come here from work that panicked; it has been logged.
        Wrong::ours()
    }
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        let status = match self.word {
            Word::InvalidClient => StatusCode::UNAUTHORIZED,
            Word::ServerError => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        let mut response = answer(status, json!({"error": self.word.text(), "error_description": self.what}));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"oauth2\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// JSON that nobody keeps.
pub(super) fn answer(status: StatusCode, body: Value) -> Response {
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// Named parameters, each at most once (RFC 6749 §3.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Of pairs.
    ///
    /// # Errors
    /// [`Wrong`] where one stands twice.
    fn of(pairs: Vec<(String, String)>) -> Result<Self, Wrong> {
        let mut named = BTreeMap::new();
        for (name, value) in pairs {
            // RFC 6749 §3.1: one without a value is as if it were not there.
            if !value.is_empty() && named.insert(name, value).is_some() {
                return Err(Wrong::request("a parameter stands twice"));
            }
        }
        Ok(Parameters(named))
    }

    /// Of a text as forms and queries write it.
    ///
    /// # Errors
    /// [`Wrong`] where it cannot be read, or one stands twice.
    pub(crate) fn of_text(text: &str) -> Result<Self, Wrong> {
        let unreadable = || Wrong::request("the parameters cannot be read");
        let uri: Uri = format!("/?{text}").parse().map_err(|_| unreadable())?;
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&uri).map_err(|_| unreadable())?;
        Parameters::of(pairs)
    }

    /// Those of a form in the body; none is taken from the address, where logs and histories would keep it.
    ///
    /// # Errors
    /// [`Wrong`].
    pub(super) async fn of_form(request: Request) -> Result<(Self, Asking), Wrong> {
        if request.uri().query().is_some_and(|query| !query.is_empty()) {
            return Err(Wrong::request("parameters go into the body, not into the address"));
        }
        let from = Asking::of(request.headers(), request.extensions());
        let headers = &from.headers;
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Wrong::request("the body must be application/x-www-form-urlencoded"));
        }
        let body = read_body(request.into_body(), headers, FORM_LIMIT_BYTES).await;
        let body = body.map_err(|error| Wrong::request(error.to_string()))?;
        let text = std::str::from_utf8(&body).map_err(|_| Wrong::request("the form cannot be read"))?;
        Ok((Parameters::of_text(text)?, from))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn needed(&self, name: &'static str) -> Result<&str, Wrong> {
        self.get(name).ok_or_else(|| Wrong::request(format!("the parameter \"{name}\" is missing")))
    }
}
