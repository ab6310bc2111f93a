//! The JSON API of the web app, one file a resource; `docs/reference/json-api.md` is its description.

pub(crate) mod account;
pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod audit_export;
pub(crate) mod audit_proof;
pub(crate) mod break_glass;
pub(crate) mod consents;
pub(crate) mod curves;
pub(crate) mod devices;
pub(crate) mod enrolment;
pub(crate) mod erasure;
pub(crate) mod health;
pub mod keys;
mod paging;
pub(crate) mod patients;
pub(crate) mod policies;
pub(crate) mod programs;
pub(crate) mod quarantine;
pub(crate) mod record;
pub(crate) mod retention;
pub(crate) mod session;
pub(crate) mod sign_in;
pub(crate) mod status;
pub(crate) mod users;
pub(crate) mod views;
pub(crate) mod wards;
mod webauthn;

use std::str::FromStr;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::{Code, Problem};

/// What a JSON handler answers.
pub(crate) type Answer<T> = Result<Json<T>, Problem>;

/// A JSON body; what is wrong with it is said in a problem.
pub(crate) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Json(body) = Json::<T>::from_request(request, state).await?;
        Ok(Body(body))
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::MediaType,
            _ => Code::BadRequest,
        };
        Problem::new(code, format!("the body cannot be read: {}", rejection.body_text()))
    }
}

/// The query of a request; what is wrong with it is said in a problem.
pub(crate) struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(query) = Query::<T>::from_request_parts(parts, state).await?;
        Ok(Asked(query))
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Problem::bad_request(format!("the query cannot be read: {}", rejection.body_text()))
    }
}

/// An id of the path. One that is no id is answered like one that nothing has.
pub(crate) fn id_of<T: FromStr>(text: &str, what: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::not_found(what))
}

/// Bytes as hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
