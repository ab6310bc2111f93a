//! Conditions on other resources: chains and reverse chains, decided with the eyes of whoever asks. What they may not
//! see does not exist for them, so that no condition tells anything about it.

use std::collections::BTreeSet;

use clinical_model::Subject;
use health_codecs::fhir::search::{
    Chain, Handling, Has, Query, Reference, ResourceType, parse_query, references_from,
};

use super::answer::Refusal;
use super::call::Call;
use super::{observations, records};
use crate::access::Permission;
use crate::state::Web;

/// What it takes to see resources of a type at all.
pub(crate) const fn permission_for(kind: ResourceType) -> Permission {
    match kind {
        ResourceType::Patient | ResourceType::Observation => Permission::ReadChart,
        ResourceType::Device | ResourceType::Location => Permission::ReadDevices,
        ResourceType::AuditEvent => Permission::ReadAudit,
        ResourceType::Consent => Permission::ReadConsents,
    }
}

/// The parameters of a search taken apart.
///
/// # Errors
/// 400 for what is not understood.
pub(crate) fn query_of(
    kind: ResourceType,
    call: &Call,
    given: &[(String, String)],
) -> Result<Query, Refusal> {
    // A reference may be written as the whole address of a resource of ours.
    let own = format!("{}/", call.base);
    let is_reference = |name: &str| {
        let bare = name.split(':').next().unwrap_or(name);
        references_from(kind).any(|reference| reference.name == bare)
    };
    let given: Vec<(String, String)> = given
        .iter()
        .map(|(name, value)| match is_reference(name) {
            true => (name.clone(), value.replace(&own, "")),
            false => (name.clone(), value.clone()),
        })
        .collect();
    parse_query(kind, &given, handling_of(call)).map_err(Refusal::bad_request)
}

/// What whoever asks wants done with what is not supported (`Prefer: handling=…`; R4 §3.1.1.2).
fn handling_of(call: &Call) -> Handling {
    let is_lenient = call
        .header("prefer")
        .is_some_and(|prefer| prefer.split([',', ';']).any(|part| part.trim() == "handling=lenient"));
    if is_lenient { Handling::Lenient } else { Handling::Strict }
}

fn needs(call: &Call, kind: ResourceType) -> Result<(), Refusal> {
    if call.access()?.holds(permission_for(kind)) {
        return Ok(());
    }
    Err(Refusal::forbidden(format!("your role does not permit a condition on a {}", kind.name())))
}

/// The patients, devices or places that fit one parameter and that whoever asks may see.
fn matching(
    web: &Web,
    call: &Call,
    kind: ResourceType,
    params: &[(String, String)],
) -> Result<BTreeSet<Subject>, Refusal> {
    needs(call, kind)?;
    let query = parse_query(kind, params, Handling::Strict).map_err(Refusal::bad_request)?;
    Ok(match kind {
        ResourceType::Patient => {
            let (_, found) = records::patients(web, call, &query)?;
            found.iter().map(|patient| Subject::Patient(patient.id)).collect()
        }
        ResourceType::Device => {
            let (_, found) = records::devices(web, call, &query)?;
            found.iter().map(|(device, _)| Subject::Device(device.id)).collect()
        }
        ResourceType::Location => {
            let (_, found) = records::places(web, call, &query)?;
            found.iter().map(|place| Subject::Place(place.id)).collect()
        }
        // No reference leads to one.
        ResourceType::Observation | ResourceType::AuditEvent | ResourceType::Consent => BTreeSet::new(),
    })
}

/// To what a reference may lead for a chain to hold.
pub(crate) fn targets_of(web: &Web, call: &Call, chain: &Chain) -> Result<BTreeSet<Subject>, Refusal> {
    matching(web, call, chain.target, &[(chain.name.clone(), chain.value.clone())])
}

/// What is referred to by something that fits a `_has`.
pub(crate) fn referred_by(web: &Web, call: &Call, has: &Has) -> Result<BTreeSet<Subject>, Refusal> {
    let Reference { source, name, .. } = has.reference;
    needs(call, source)?;
    let params = [(has.name.clone(), has.value.clone())];
    let query = parse_query(source, &params, Handling::Strict).map_err(Refusal::bad_request)?;
    Ok(match source {
        ResourceType::Observation => observations::referred(web, call, name, &query)?,
        ResourceType::Device => {
            let (_, found) = records::devices(web, call, &query)?;
            let is_patient = name == "patient";
            let assigned = found.into_iter().filter_map(|(_, assigned)| assigned);
            assigned.filter(|subject| subject.patient().is_some() == is_patient).collect()
        }
        ResourceType::Location => {
            let (_, found) = records::places(web, call, &query)?;
            found.iter().filter_map(|place| place.ward).map(Subject::Place).collect()
        }
        ResourceType::Patient | ResourceType::AuditEvent | ResourceType::Consent => BTreeSet::new(),
    })
}

/// What every `_has` of a search allows; `None` where there is none.
pub(crate) fn allowed_by_has(
    web: &Web,
    call: &Call,
    query: &Query,
) -> Result<Option<BTreeSet<Subject>>, Refusal> {
    let mut allowed: Option<BTreeSet<Subject>> = None;
    for has in &query.has {
        let found = referred_by(web, call, has)?;
        allowed = Some(match allowed {
            None => found,
            Some(before) => before.intersection(&found).copied().collect(),
        });
    }
    Ok(allowed)
}

/// What the chains over some references allow; `None` where there is none.
pub(crate) fn allowed_by_chains(
    web: &Web,
    call: &Call,
    query: &Query,
    names: &[&str],
) -> Result<Option<BTreeSet<Subject>>, Refusal> {
    let mut allowed: Option<BTreeSet<Subject>> = None;
    for chain in query.chains.iter().filter(|chain| names.contains(&chain.reference.name)) {
        let found = targets_of(web, call, chain)?;
        allowed = Some(match allowed {
            None => found,
            Some(before) => before.intersection(&found).copied().collect(),
        });
    }
    Ok(allowed)
}

/// Whether a subject may be shown as a resource of its own.
pub(crate) fn may_show(web: &Web, call: &Call, subject: Subject) -> bool {
    let kind = match subject {
        Subject::Patient(_) => ResourceType::Patient,
        Subject::Device(_) => ResourceType::Device,
        Subject::Place(_) => ResourceType::Location,
    };
    call.access().is_ok_and(|access| access.holds(permission_for(kind))) && call.may_see(web, subject)
}
