//! Conditions on writes: which version is meant, and which resource goes by an identifier.
//!
//! A condition is taken only where it can be decided without a race: `identifier=system|value`. Anything else is a
//! search, and between a search and a write somebody else may write.

use axum::http::StatusCode;
use clinical_model::{DeviceId, Patient, PatientId};
use health_codecs::fhir::{IssueCode, system};
use pipeline::identifiers::{self, IDENTIFIER_LIMIT_BYTES, IdentifierKey, Target};

use super::answer::Refusal;
use super::call::{self, Call, shown};
use crate::state::Web;

/// `identifier=system|value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// May be empty: an identifier without a system.
    pub system: String,
    pub value: String,
}

impl Condition {
    /// Reads the query of a condition, as it stands in `If-None-Exist`, `ifNoneExist` or behind a type.
    ///
    /// # Errors
    /// 400 for what cannot be read or decided, 412 for what does not select enough.
    pub(crate) fn parse(query: &str) -> Result<Self, Refusal> {
        // Some clients write the type or a leading ? into the header.
        let query = query.rsplit_once('?').map_or(query, |(_, query)| query);
        Condition::of(&call::pairs_of(query)?)
    }

    /// As [`Condition::parse`], from pairs.
    ///
    /// # Errors
    /// As [`Condition::parse`].
    pub(crate) fn of(params: &[(String, String)]) -> Result<Self, Refusal> {
        let refuse = |code, what: String| Refusal::new(StatusCode::BAD_REQUEST, code, what);
        if let Some((name, _)) = params.iter().find(|(name, _)| name != "identifier") {
            let what = format!(
                "a condition by \"{}\" is not supported: only identifier=system|value can be decided without a race",
                shown(name)
            );
            return Err(refuse(IssueCode::NotSupported, what));
        }
        let [(_, token)] = params else {
            let what = "a condition is exactly one identifier=system|value".to_owned();
            return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, IssueCode::MultipleMatches, what));
        };
        if token.len() > IDENTIFIER_LIMIT_BYTES {
            let what = format!("an identifier has at most {IDENTIFIER_LIMIT_BYTES} bytes");
            return Err(refuse(IssueCode::TooLong, what));
        }
        match token.split_once('|') {
            Some((system, value)) if !value.is_empty() && !value.contains([',', '|']) => {
                Ok(Condition { system: system.to_owned(), value: value.to_owned() })
            }
            _ => {
                let what = format!(
                    "\"{}\" does not select one resource: expected system|value (|value for one without a system)",
                    shown(token)
                );
                Err(Refusal::new(StatusCode::PRECONDITION_FAILED, IssueCode::MultipleMatches, what))
            }
        }
    }

    /// As identifiers are written in records of them.
    pub(crate) fn text(&self) -> String {
        format!("{}|{}", self.system, self.value)
    }

    /// Its key for a type of resource.
    pub(crate) fn key(&self, web: &Web, kind: &str) -> IdentifierKey {
        IdentifierKey::of(web.site.store(), kind, &self.text())
    }
}

/// The refusal of a condition that fits several resources.
pub(crate) fn several(kind: &str) -> Refusal {
    let what = format!("several {kind}s go by this identifier; none was touched");
    Refusal::new(StatusCode::PRECONDITION_FAILED, IssueCode::MultipleMatches, what)
}

/// The patient who goes by an identifier, whether it was sent with the resource or given at the desk.
///
/// # Errors
/// 412 where there are several.
pub(crate) fn patient_by(web: &Web, condition: &Condition) -> Result<Option<PatientId>, Refusal> {
    let mut found: Vec<PatientId> = targets(web, "Patient", condition)?
        .iter()
        .filter_map(|target| match target {
            Target::Patient(id) => Some(*id),
            _ => None,
        })
        .collect();
    if condition.system == system::RECORD_NUMBER {
        let theirs = |patient: &Patient| *patient.record_number.expose() == condition.value;
        found.extend(
            web.site.registry().patients().iter().filter(|patient| theirs(patient)).map(|one| one.id),
        );
    }
    found.sort();
    found.dedup();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => Err(several("Patient")),
    }
}

/// The device that goes by an identifier.
///
/// # Errors
/// 412 where there are several.
pub(crate) fn device_by(web: &Web, condition: &Condition) -> Result<Option<DeviceId>, Refusal> {
    let found = targets(web, "Device", condition)?;
    let ids: Vec<DeviceId> = found
        .iter()
        .filter_map(|target| match target {
            Target::Device(id) => Some(*id),
            _ => None,
        })
        .collect();
    match ids.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => Err(several("Device")),
    }
}

fn targets(web: &Web, kind: &str, condition: &Condition) -> Result<Vec<Target>, Refusal> {
    let found = identifiers::find(web.site.store(), condition.key(web, kind))?;
    Ok(found.map(|(claimed, _)| claimed.targets).unwrap_or_default())
}

/// The version that `If-Match` names. `*` is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expecting {
    /// Whatever is there.
    Any,
    /// Exactly this version.
    Version(u64),
}

/// Reads `If-Match: W/"3"`.
///
/// # Errors
/// 400 for what is no entity tag of ours, 412 for one that is no version.
pub(crate) fn if_match(call: &Call) -> Result<Option<Expecting>, Refusal> {
    let Some(given) = call.header("if-match") else { return Ok(None) };
    let tag = given.trim();
    if tag == "*" {
        return Ok(Some(Expecting::Any));
    }
    let bare = tag.strip_prefix("W/").unwrap_or(tag);
    let bare = bare.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(bare);
    match bare.parse() {
        Ok(version) => Ok(Some(Expecting::Version(version))),
        Err(_) => {
            let what = format!("If-Match names no version: expected W/\"1\", found {}", shown(tag));
            Err(Refusal::new(StatusCode::PRECONDITION_FAILED, IssueCode::Conflict, what))
        }
    }
}

/// The refusal of an expectation that does not hold.
pub(crate) fn not_current(expected: u64, current: u64) -> Refusal {
    let what = format!("version {expected} was expected, the current one is {current}; read it again");
    Refusal::new(StatusCode::PRECONDITION_FAILED, IssueCode::Conflict, what)
}

/// The refusal of a write that lost against another at the same time.
pub(crate) fn lost_race() -> Refusal {
    let what = "somebody else changed it at the same time; read it again";
    Refusal::new(StatusCode::CONFLICT, IssueCode::Conflict, what)
}
