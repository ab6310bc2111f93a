//! `GET /pki/crl/<id>.crl`: the signed list of revoked certificates of one issuing key (RFC 5280, RFC 2585).

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use pipeline::enrolment::EnrolError;

use crate::problem::Problem;
use crate::state::Web;

pub(crate) async fn revoked(
    State(web): State<Arc<Web>>,
    Path(file): Path<String>,
) -> Result<Response, Problem> {
    let no_such = || Problem::not_found("list of revoked certificates");
    let id = file.strip_suffix(".crl").ok_or_else(no_such)?.to_owned();
    let authority = Arc::clone(web.authority()?);
    let list = web.blocking(move |_| authority.revocation_list(&id)).await?;
    let list = list.map_err(|error| Problem::from(EnrolError::Authority(error)))?.ok_or_else(no_such)?;
    let mut response = list.into_response();
    let kind = HeaderValue::from_static("application/pkix-crl");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
