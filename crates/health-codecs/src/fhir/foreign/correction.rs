//! A corrected Observation: what a caller says about an Observation that is in the chart already.

use clinical_model::Decoded;
use serde_json::Value;

use super::super::history::reason;
use super::super::outcome::{IssueCode, OutcomeIssue};
use super::{Reader, expect, text};

/// An Observation that puts another right.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignCorrection {
    /// Its id, where it gives one.
    pub id: Option<String>,
    /// The version that was edited, where it says so.
    pub version: Option<u64>,
    /// `final`, `amended`, `corrected` or `entered-in-error`.
    pub status: String,
    /// Whom it names as its subject.
    pub subject: Option<String>,
    /// Which device it names.
    pub device: Option<String>,
    /// What it says was measured. May be empty for what was entered in error.
    pub decoded: Vec<Decoded>,
    /// Why, in the words of whoever did it.
    pub reason: Option<String>,
}

/// Reads a corrected Observation as strictly as a new one.
///
/// # Errors
/// All issues that were found, each with its place.
pub fn parse_correction(resource: &Value) -> Result<ForeignCorrection, Vec<OutcomeIssue>> {
    let issues = expect(resource, "Observation");
    if !issues.is_empty() {
        return Err(issues);
    }
    let status = text(resource, "status").unwrap_or("");
    let mut reader = Reader { issues: Vec::new(), decoded: Vec::new(), is_correction: true };
    if !matches!(status, "final" | "amended" | "corrected" | "entered-in-error") {
        let what = format!(
            "what is charted can become final, amended, corrected or entered-in-error, not \"{status}\""
        );
        reader.refuse(IssueCode::BusinessRule, what, "Observation.status");
    }
    reader.observation(resource);
    let Reader { mut issues, decoded, .. } = reader;
    if issues.is_empty() && decoded.is_empty() && status != "entered-in-error" {
        let what = "it has no value and no components with a value or dataAbsentReason";
        issues.push(OutcomeIssue::error(IssueCode::Required, what, "Observation"));
    }
    if !issues.is_empty() {
        return Err(issues);
    }
    let target = |name: &str| text(&resource[name], "reference").map(str::to_owned);
    Ok(ForeignCorrection {
        id: text(resource, "id").map(str::to_owned),
        version: text(&resource["meta"], "versionId").and_then(|version| version.parse().ok()),
        status: status.to_owned(),
        subject: target("subject"),
        device: target("device"),
        decoded,
        reason: reason(resource).map(str::to_owned),
    })
}
