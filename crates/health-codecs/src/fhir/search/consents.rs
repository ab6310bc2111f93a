//! Searches for consents.

use clinical_model::{ConsentId, ConsentStatus, PatientId};

use super::super::outcome::OutcomeIssue;
use super::Parameter;
use super::date::DateFilter;
use super::params::{Params, ids_of, own_id, token, unescape};

/// What can be asked of Consents.
pub const CONSENT_PARAMETERS: &[Parameter] = &[
    ("_id", "token", "the logical id"),
    ("patient", "reference", "whose data it is about"),
    ("status", "token", "draft, proposed, active, rejected, inactive, entered-in-error"),
    ("date", "date", "when it was given"),
    ("_count", "number", "results of a page, 1 to 1000"),
    ("_cursor", "string", "the next page; only from a next link"),
];

/// A search for consents. `None` is no condition; an empty list matches nothing.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ConsentSearch {
    /// Any of these ids.
    pub ids: Option<Vec<ConsentId>>,
    /// Of any of these patients.
    pub patients: Option<Vec<PatientId>>,
    /// In any of these states.
    pub statuses: Option<Vec<ConsentStatus>>,
    /// Given when; all must fit.
    pub date: Vec<DateFilter>,
    /// Results of a page.
    pub count: Option<u16>,
    /// Where the page starts; opaque.
    pub cursor: Option<String>,
}

/// Reads the parameters of a search for consents.
///
/// # Errors
/// Every parameter that is unknown, malformed or not supported.
pub fn parse_consent_search(given: &[(String, String)]) -> Result<ConsentSearch, Vec<OutcomeIssue>> {
    let mut params = Params::new(given, CONSENT_PARAMETERS);
    let status = |name: &str, value: &str| {
        let code = token(name, value)?.code;
        Ok(code.as_deref().and_then(ConsentStatus::by_code).into_iter().collect())
    };
    let search = ConsentSearch {
        ids: params.any_of(&["_id"], own_id),
        patients: params.any_of(&["patient"], |name, value| ids_of(name, &unescape(value), "Patient")),
        statuses: params.any_of(&["status"], status),
        date: params.dates("date"),
        count: params.count(),
        cursor: params.cursor(),
    };
    params.finish(search)
}
