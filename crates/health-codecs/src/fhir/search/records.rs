//! Searches for patients, devices and audit events.

use clinical_model::patient::Gender;
use clinical_model::{DeviceId, PatientId, PlaceId, Private};

use super::super::audit_event::{AuditAction, AuditOutcome};
use super::super::element::cut;
use super::super::outcome::{IssueCode, OutcomeIssue};
use super::super::{period, system};
use super::Parameter;
use super::date::DateFilter;
use super::params::{Params, Token, ids_of, own_id, token, unescape};

/// What can be asked of Patients.
pub const PATIENT_PARAMETERS: &[Parameter] = &[
    ("_id", "token", "the logical id"),
    ("identifier", "token", "the medical record number"),
    ("family", "string", "start of the family name"),
    ("given", "string", "start of a given name"),
    ("name", "string", "start of the family name or a given name"),
    ("birthdate", "date", "the birth date, to the day"),
    ("gender", "token", "male, female, other, unknown"),
    ("_count", "number", "results of a page, 1 to 1000"),
    ("_cursor", "string", "the next page; only from a next link"),
];

/// What can be asked of Devices.
pub const DEVICE_PARAMETERS: &[Parameter] = &[
    ("_id", "token", "the logical id"),
    ("identifier", "token", "the serial number"),
    ("patient", "reference", "the patient to whom it is assigned now"),
    ("location", "reference", "the place to which it is assigned now"),
    ("device-name", "string", "start of its name, maker or model"),
    ("status", "token", "active or inactive"),
    ("_count", "number", "results of a page, 1 to 1000"),
    ("_cursor", "string", "the next page; only from a next link"),
];

/// What can be asked of Locations.
pub const LOCATION_PARAMETERS: &[Parameter] = &[
    ("_id", "token", "the logical id"),
    ("name", "string", "start of the name"),
    ("partof", "reference", "the ward it belongs to"),
    ("_count", "number", "results of a page, 1 to 1000"),
    ("_cursor", "string", "the next page; only from a next link"),
];

/// What can be asked of AuditEvents.
pub const AUDIT_PARAMETERS: &[Parameter] = &[
    ("_id", "token", "the logical id"),
    ("patient", "reference", "the patient whose data it was"),
    ("agent", "reference", "who did it: Device/id, Practitioner/id, Patient/id or id"),
    ("date", "date", "when it was recorded"),
    ("action", "token", "C, R, U, D, E"),
    ("outcome", "token", "0 success, 4 refused, 8 failed"),
    ("type", "token", "the code of the kind of event: rest, act, 110114"),
    ("subtype", "token", "the code of the kind below that: read, search, stream"),
    ("entity", "reference", "what it was about: Patient/id, Device/id"),
    ("_count", "number", "results of a page, 1 to 1000"),
    ("_cursor", "string", "the next page; only from a next link"),
];

/// A search for patients. `None` is no condition; an empty list matches nothing. Names match without regard to case
/// from their start; all conditions must fit.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PatientSearch {
    /// Any of these ids.
    pub ids: Option<Vec<PatientId>>,
    /// Any of these record numbers (of our system, or of any).
    pub record_numbers: Option<Vec<Private<String>>>,
    /// Every one of these must fit, by any of its alternatives.
    pub family: Vec<Vec<Private<String>>>,
    /// Likewise for a given name.
    pub given: Vec<Vec<Private<String>>>,
    /// Likewise for the family name or a given name.
    pub name: Vec<Vec<Private<String>>>,
    /// Any of these birth dates as YYYY-MM-DD.
    pub birth_dates: Option<Vec<Private<String>>>,
    /// Any of these.
    pub genders: Option<Vec<Gender>>,
    /// Results of a page.
    pub count: Option<u16>,
    /// Where the page starts; opaque.
    pub cursor: Option<String>,
}

/// A search for devices. `None` is no condition; an empty list matches nothing.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct DeviceSearch {
    /// Any of these ids.
    pub ids: Option<Vec<DeviceId>>,
    /// Any of these serial numbers.
    pub serials: Option<Vec<String>>,
    /// Assigned now to any of these.
    pub patients: Option<Vec<PatientId>>,
    /// Assigned now to any of these places.
    pub places: Option<Vec<PlaceId>>,
    /// Every one of these must fit name, maker or model, by any of its alternatives.
    pub names: Vec<Vec<String>>,
    /// Whether it may be out of service, in service, or either.
    pub retired: Option<Vec<bool>>,
    /// Results of a page.
    pub count: Option<u16>,
    /// Where the page starts; opaque.
    pub cursor: Option<String>,
}

/// A search for places. `None` is no condition; an empty list matches nothing.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LocationSearch {
    /// Any of these ids.
    pub ids: Option<Vec<PlaceId>>,
    /// Every one of these must fit the start of the name, by any of its alternatives.
    pub names: Vec<Vec<String>>,
    /// In any of these wards.
    pub wards: Option<Vec<PlaceId>>,
    /// Results of a page.
    pub count: Option<u16>,
    /// Where the page starts; opaque.
    pub cursor: Option<String>,
}

/// A search for audit events. `None` is no condition; an empty list matches nothing.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct AuditSearch {
    /// Any of these ids.
    pub ids: Option<Vec<String>>,
    /// About any of these patients.
    pub patients: Option<Vec<PatientId>>,
    /// By any of these: `Device/…`, `Practitioner/…`, `Patient/…` or a bare id.
    pub agents: Option<Vec<String>>,
    /// Recorded when; all must fit.
    pub date: Vec<DateFilter>,
    /// Any of these.
    pub actions: Option<Vec<AuditAction>>,
    /// With any of these outcomes.
    pub outcomes: Option<Vec<AuditOutcome>>,
    /// Of any of these kinds, by code.
    pub types: Option<Vec<String>>,
    /// Of any of these kinds below, by code.
    pub subtypes: Option<Vec<String>>,
    /// About any of these: `Patient/…`, `Device/…`.
    pub entities: Option<Vec<String>>,
    /// Results of a page.
    pub count: Option<u16>,
    /// Where the page starts; opaque.
    pub cursor: Option<String>,
}

/// Reads the parameters of a search for patients.
///
/// # Errors
/// Every parameter that is unknown, malformed or not supported.
pub fn parse_patient_search(given: &[(String, String)]) -> Result<PatientSearch, Vec<OutcomeIssue>> {
    let mut params = Params::new(given, PATIENT_PARAMETERS);
    let search = PatientSearch {
        ids: params.any_of(&["_id"], own_id),
        record_numbers: params.any_of(&["identifier"], |name, value| {
            Ok(identifier(&token(name, value)?, system::RECORD_NUMBER)
                .map(Private::new)
                .into_iter()
                .collect())
        }),
        family: names(&mut params, "family"),
        given: names(&mut params, "given"),
        name: names(&mut params, "name"),
        birth_dates: params.any_of(&["birthdate"], birth_date),
        genders: params.any_of(&["gender"], gender),
        count: params.count(),
        cursor: params.cursor(),
    };
    params.finish(search)
}

/// Reads the parameters of a search for devices.
///
/// # Errors
/// As [`parse_patient_search`].
pub fn parse_device_search(given: &[(String, String)]) -> Result<DeviceSearch, Vec<OutcomeIssue>> {
    let mut params = Params::new(given, DEVICE_PARAMETERS);
    let search = DeviceSearch {
        ids: params.any_of(&["_id"], own_id),
        serials: params
            .any_of(&["identifier"], |name, value| Ok(token(name, value)?.code.into_iter().collect())),
        patients: params.any_of(&["patient"], |name, value| ids_of(name, &unescape(value), "Patient")),
        places: params.any_of(&["location"], |name, value| ids_of(name, &unescape(value), "Location")),
        names: texts(&mut params, "device-name", |text| text),
        retired: params.any_of(&["status"], retired),
        count: params.count(),
        cursor: params.cursor(),
    };
    params.finish(search)
}

/// Reads the parameters of a search for places.
///
/// # Errors
/// As [`parse_patient_search`].
pub fn parse_location_search(given: &[(String, String)]) -> Result<LocationSearch, Vec<OutcomeIssue>> {
    let mut params = Params::new(given, LOCATION_PARAMETERS);
    let search = LocationSearch {
        ids: params.any_of(&["_id"], own_id),
        names: texts(&mut params, "name", |text| text),
        wards: params.any_of(&["partof"], |name, value| ids_of(name, &unescape(value), "Location")),
        count: params.count(),
        cursor: params.cursor(),
    };
    params.finish(search)
}

/// Reads the parameters of a search for audit events.
///
/// # Errors
/// As [`parse_patient_search`].
pub fn parse_audit_search(given: &[(String, String)]) -> Result<AuditSearch, Vec<OutcomeIssue>> {
    let mut params = Params::new(given, AUDIT_PARAMETERS);
    let agent = |name: &str, value: &str| {
        let value = unescape(value);
        super::params::reference(name, &value, &["Device", "Practitioner", "Patient"])?;
        Ok(vec![value])
    };
    let search = AuditSearch {
        ids: params.any_of(&["_id"], own_id),
        patients: params.any_of(&["patient"], |name, value| ids_of(name, &unescape(value), "Patient")),
        agents: params.any_of(&["agent"], agent),
        date: params.dates("date"),
        actions: params.any_of(&["action"], action),
        outcomes: params.any_of(&["outcome"], outcome),
        types: params.any_of(&["type"], code),
        subtypes: params.any_of(&["subtype"], code),
        entities: params.any_of(&["entity"], |name, value| {
            let value = unescape(value);
            super::params::reference(name, &value, &["Device", "Patient"])?;
            Ok(vec![value])
        }),
        count: params.count(),
        cursor: params.cursor(),
    };
    params.finish(search)
}

/// The value of an identifier token, unless it names another system than ours.
fn identifier(token: &Token, ours: &str) -> Option<String> {
    match token.system.as_deref() {
        Some(system) if system != ours => None,
        _ => token.code.clone(),
    }
}

fn names(params: &mut Params<'_>, name: &str) -> Vec<Vec<Private<String>>> {
    texts(params, name, Private::new)
}

fn texts<T>(params: &mut Params<'_>, name: &str, made: impl Fn(String) -> T) -> Vec<Vec<T>> {
    let mut all = Vec::new();
    // Each occurrence must fit by itself, so they are not merged.
    for value in params.values(name) {
        let parts = super::params::split(value, ',');
        if parts.len() > super::ALTERNATIVE_LIMIT || parts.iter().any(|part| part.trim().is_empty()) {
            params.refuse(name, IssueCode::Value, format!("{name} has an empty alternative or too many"));
        } else {
            all.push(parts.iter().map(|part| made(unescape(part))).collect());
        }
    }
    all
}

fn refused(name: &str, code: IssueCode, what: String) -> OutcomeIssue {
    OutcomeIssue::error(code, what, format!("http.{name}"))
}

fn birth_date(name: &str, value: &str) -> Result<Vec<Private<String>>, OutcomeIssue> {
    let date = value.strip_prefix("eq").unwrap_or(value);
    if date.len() == 10 && period::is_date(date) {
        return Ok(vec![Private::new(date.to_owned())]);
    }
    // Birth dates are looked up through a keyed index, which knows equality only. The value is not repeated here.
    let what = "birthdate is looked up by the exact day: expected YYYY-MM-DD without a prefix".to_owned();
    Err(refused(name, IssueCode::NotSupported, what))
}

fn gender(name: &str, value: &str) -> Result<Vec<Gender>, OutcomeIssue> {
    match token(name, value)?.code.as_deref() {
        Some("male") => Ok(vec![Gender::Male]),
        Some("female") => Ok(vec![Gender::Female]),
        Some("other") => Ok(vec![Gender::Other]),
        Some("unknown") => Ok(vec![Gender::Unknown]),
        _ => Err(refused(
            name,
            IssueCode::CodeInvalid,
            format!("\"{}\" is no gender: male, female, other, unknown", cut(value)),
        )),
    }
}

fn retired(name: &str, value: &str) -> Result<Vec<bool>, OutcomeIssue> {
    Ok(match token(name, value)?.code.as_deref() {
        Some("active") => vec![false],
        Some("inactive") => vec![true],
        // The other statuses exist, but no device here has one.
        _ => Vec::new(),
    })
}

fn outcome(name: &str, value: &str) -> Result<Vec<AuditOutcome>, OutcomeIssue> {
    let code = token(name, value)?.code.unwrap_or_default();
    AuditOutcome::from_code(&code).map(|outcome| vec![outcome]).ok_or_else(|| {
        refused(name, IssueCode::CodeInvalid, format!("\"{}\" is no outcome: 0, 4, 8, 12", cut(value)))
    })
}

fn code(name: &str, value: &str) -> Result<Vec<String>, OutcomeIssue> {
    Ok(token(name, value)?.code.into_iter().collect())
}

fn action(name: &str, value: &str) -> Result<Vec<AuditAction>, OutcomeIssue> {
    let code = token(name, value)?.code.unwrap_or_default();
    AuditAction::from_code(&code).map(|action| vec![action]).ok_or_else(|| {
        refused(name, IssueCode::CodeInvalid, format!("\"{}\" is no action: C, R, U, D, E", cut(value)))
    })
}
