//! Programs that prove themselves by certificate: what they may, and their end.

use std::sync::Arc;

use ::access::scopes::{Context, Scopes};
use axum::Json;
use axum::extract::{Path, State};
use clinical_model::Timestamp;
use pipeline::enrolment::{CertificateAuthority, EnrolError, Program};
use serde::{Deserialize, Serialize};
use store::{AuditAction, AuditOutcome};
use trust::pki::PeerUri;

use super::enrolment::Because;
use super::{Answer, Body};
use crate::access::{Permission, Permit, may};
use crate::problem::{Code, Problem};
use crate::state::Web;

#[derive(Serialize)]
struct CertificateView {
    serial_hex: String,
    not_after: Timestamp,
    revoked_at: Option<Timestamp>,
}

#[derive(Serialize)]
pub(crate) struct ProgramView {
    name: String,
    scopes: Vec<String>,
    registered_at: Timestamp,
    certificates: Vec<CertificateView>,
}

#[derive(Serialize)]
pub(crate) struct Listed {
    programs: Vec<ProgramView>,
}

fn view(authority: &dyn CertificateAuthority, program: Program) -> Result<ProgramView, EnrolError> {
    let uri = PeerUri::Program(program.name.clone()).to_string();
    let certificates = authority.issued_to(&uri)?.into_iter().map(|one| CertificateView {
        revoked_at: authority.revocation(&one.serial_hex).map(|revoked| revoked.at),
        serial_hex: one.serial_hex,
        not_after: one.not_after,
    });
    Ok(ProgramView {
        certificates: certificates.collect(),
        name: program.name,
        scopes: program.scopes,
        registered_at: program.registered_at,
    })
}

fn of_name(authority: &dyn CertificateAuthority, name: &str) -> Result<ProgramView, Problem> {
    let programs = authority.programs().map_err(EnrolError::Authority)?;
    let program = programs.into_iter().find(|program| program.name == name);
    Ok(view(authority, program.ok_or_else(|| Problem::not_found("program"))?)?)
}

pub(crate) async fn list(State(web): State<Arc<Web>>, _: Permit<may::ManageApps>) -> Answer<Listed> {
    let authority = Arc::clone(web.authority()?);
    web.blocking(move |_| {
        let programs = authority.programs().map_err(EnrolError::Authority)?;
        let programs = programs.into_iter().map(|program| view(authority.as_ref(), program));
        Ok(Json(Listed { programs: programs.collect::<Result<_, _>>()? }))
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewScopes {
    scopes: Vec<String>,
}

pub(crate) async fn set_scopes(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageApps>,
    Path(name): Path<String>,
    Body(new): Body<NewScopes>,
) -> Answer<ProgramView> {
    let scopes: Scopes = new
        .scopes
        .join(" ")
        .parse()
        .map_err(|error| Problem::bad_request(format!("the scopes cannot be used: {error}")))?;
    scopes
        .check_types()
        .map_err(|error| Problem::bad_request(format!("the scopes cannot be used: {error}")))?;
    if scopes.resources().is_empty() || scopes.resources().iter().any(|one| one.context != Context::System) {
        return Err(Problem::bad_request("a program has scopes that begin with system/, at least one"));
    }
    let authority = Arc::clone(web.authority()?);
    web.blocking(move |web| {
        let before = of_name(authority.as_ref(), &name)?.scopes.join(" ").parse::<Scopes>();
        let detail = format!("{name}: {}", new.scopes.join(" "));
        let act = permit.act(AuditAction::Administer, "program").detail(detail);
        // As with registered services (`oauth::clients`): who sees no chart opens none through a program of theirs.
        let is_wider = !before.is_ok_and(|before| before.covers(&scopes));
        if is_wider && !permit.holds(Permission::ReadChart) {
            web.site.record(act, AuditOutcome::Refused)?;
            let what =
                "a program acts by itself: only somebody who may see charts lets it do more than before";
            return Err(Problem::new(Code::Forbidden, what));
        }
        web.site.record(act, AuditOutcome::Success)?;
        authority.register_program(&name, &new.scopes).map_err(EnrolError::Authority)?;
        of_name(authority.as_ref(), &name).map(Json)
    })
    .await?
}

pub(crate) async fn revoke(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageApps>,
    Path(name): Path<String>,
    Body(because): Body<Because>,
) -> Answer<ProgramView> {
    let reason = because.reason()?;
    let authority = Arc::clone(web.authority()?);
    web.blocking(move |web| {
        let known = of_name(authority.as_ref(), &name)?;
        let believed = known.certificates.into_iter().filter(|one| one.revoked_at.is_none());
        let serials: Vec<String> = believed.map(|one| one.serial_hex).collect();
        let act = permit
            .act(AuditAction::Delete, "program")
            .detail(format!("{name}: revoked {}: {reason}", serials.join(", ")));
        web.site.record(act, AuditOutcome::Success)?;
        authority.revoke(&serials, &reason).map_err(EnrolError::Authority)?;
        of_name(authority.as_ref(), &name).map(Json)
    })
    .await?
}
