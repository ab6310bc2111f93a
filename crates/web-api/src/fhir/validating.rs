//! `$validate`: what our own checks say about a resource, without keeping it.

use health_codecs::fhir::{IssueCode, OutcomeIssue, json, operation_outcome, validate};
use serde_json::Value;

use super::answer::{Answer, Refusal};
use super::call::Call;
use crate::state::Web;

/// `POST /fhir/$validate` and `POST /fhir/{type}/$validate`; the body is the resource, or a Parameters resource that
/// carries it as `resource`. Whatever the checks say, the operation has succeeded.
pub(crate) fn validate(_: &Web, call: &Call) -> Result<Answer, Refusal> {
    let refuse = |issue: OutcomeIssue| Refusal::bad_request(vec![issue]);
    let body = json::parse(&call.body).map_err(refuse)?;
    let resource = match body["resourceType"].as_str() {
        Some("Parameters") => carried(&body).map_err(refuse)?,
        _ => &body,
    };
    let mut issues = validate::resource(resource);
    let found = resource["resourceType"].as_str().unwrap_or("");
    if !call.kind.is_empty() && !found.is_empty() && found != call.kind {
        let what = format!("expected a resource of type {}", call.kind);
        issues.insert(0, OutcomeIssue::error(IssueCode::Value, what, "resourceType"));
    }
    Ok(Answer::ok(operation_outcome(&issues)))
}

/// The resource that a Parameters resource carries. Other parameters would be ignored, and so are refused.
fn carried(parameters: &Value) -> Result<&Value, OutcomeIssue> {
    let refuse = |code, what: &str| Err(OutcomeIssue::error(code, what, "Parameters.parameter"));
    let mut found = None;
    for parameter in parameters["parameter"].as_array().into_iter().flatten() {
        match parameter["name"].as_str() {
            Some("resource") => found = parameter.get("resource"),
            _ => return refuse(IssueCode::NotSupported, "only the parameter resource is supported"),
        }
    }
    match found {
        Some(resource) => Ok(resource),
        None => refuse(IssueCode::Required, "there is no resource to validate"),
    }
}
