//! `$validate`: what our own checks say about a resource, without keeping it.

use health_codecs::fhir::json;
use health_codecs::fhir::validating::validated;

use super::answer::{Answer, Refusal};
use super::call::Call;
use crate::state::Web;

/// `POST /fhir/$validate` and `POST /fhir/{type}/$validate`; the body is the resource, or a Parameters resource that
/// carries it as `resource`. Whatever the checks say, the operation has succeeded.
pub(crate) fn validate(_: &Web, call: &Call) -> Result<Answer, Refusal> {
    let said = json::parse(&call.body).and_then(|body| validated(&body, call.kind));
    said.map(Answer::ok).map_err(|issue| Refusal::bad_request(vec![issue]))
}
