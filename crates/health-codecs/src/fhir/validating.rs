//! `$validate`: what our own checks say about a resource.

use serde_json::Value;

use super::outcome::{IssueCode, OutcomeIssue, operation_outcome};
use super::validate;

/// The OperationOutcome about a resource, or about the one that a Parameters resource carries as `resource`. `kind` is
/// the type that was asked for; empty for any.
///
/// # Errors
/// Where a Parameters resource carries none, or says more than we heed.
pub fn validated(body: &Value, kind: &str) -> Result<Value, OutcomeIssue> {
    let resource = match body["resourceType"].as_str() {
        Some("Parameters") => carried(body)?,
        _ => body,
    };
    let mut issues = validate::resource(resource);
    let found = resource["resourceType"].as_str().unwrap_or("");
    if !kind.is_empty() && !found.is_empty() && found != kind {
        let what = format!("expected a resource of type {kind}");
        issues.insert(0, OutcomeIssue::error(IssueCode::Value, what, "resourceType"));
    }
    Ok(operation_outcome(&issues))
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
