//! The policies in force: seeing them, explaining a decision, and loading them again.

use std::fmt;
use std::sync::Arc;

use ::access::engine::holders;
use ::access::rules::Rule;
use ::access::{Permission, Role};
use axum::Json;
use axum::extract::State;
use clinical_model::{PatientId, PlaceId, Purpose, Timestamp};
use serde::{Deserialize, Serialize};
use store::{AuditAction, AuditOutcome};

use super::{Answer, Body, id_of};
use crate::access::{Access, Permit, PoliciesError, may};
use crate::problem::Problem;
use crate::state::Web;

#[derive(Serialize)]
pub(crate) struct Shown {
    /// `built-in`, or the directory of the site's own.
    source: String,
    loaded_at: Timestamp,
    /// Why a later attempt to load them was not taken.
    error: Option<String>,
    policies: Vec<Rule>,
    permissions: Vec<Held>,
}

/// What can be permitted, and the roles that hold it before wards, consents and the like narrow it.
#[derive(Serialize)]
struct Held {
    name: &'static str,
    meaning: &'static str,
    roles: Vec<Role>,
}

fn shown(web: &Web) -> Shown {
    let policies = web.policies();
    let loaded = policies.loaded();
    let engine = policies.engine();
    let held =
        |one: &Permission| Held { name: one.word(), meaning: one.meaning(), roles: holders(&engine, *one) };
    Shown {
        source: policies.directory().map_or_else(|| "built-in".to_owned(), |path| path.display().to_string()),
        loaded_at: loaded.at,
        error: loaded.error,
        policies: engine.rules().to_vec(),
        permissions: Permission::ALL.iter().filter(|one| **one != Permission::Open).map(held).collect(),
    }
}

pub(crate) async fn list(State(web): State<Arc<Web>>, _: Permit<may::ManagePolicies>) -> Answer<Shown> {
    Ok(Json(shown(&web)))
}

pub(crate) async fn reload(
    State(web): State<Arc<Web>>,
    access: Permit<may::ManagePolicies>,
) -> Answer<Shown> {
    web.blocking(move |web| {
        web.reload_policies(access.by()).map_err(|error| match error {
            PoliciesError::Unrecorded(error) => error.into(),
            wrong => Problem::bad_request(wrong.to_string()),
        })?;
        Ok(Json(shown(web)))
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// The name that the person signs in with.
    who: String,
    /// The action, such as `read-chart`.
    action: String,
    /// `patient/<id>`, `ward/<id>` or `site`.
    on: String,
    purpose: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Reason {
    id: String,
    effect: &'static str,
    description: String,
}

#[derive(Serialize)]
pub(crate) struct Explained {
    allowed: bool,
    reasons: Vec<Reason>,
    text: String,
}

/// What a question is about.
#[derive(Clone, Copy)]
enum On {
    Site,
    Ward(PlaceId),
    Patient(PatientId),
}

impl On {
    fn parse(text: &str) -> Result<Self, Problem> {
        match text.split_once('/') {
            None if text == "site" => Ok(On::Site),
            Some(("ward", id)) => id_of(id, "ward").map(On::Ward),
            Some(("patient", id)) => id_of(id, "patient").map(On::Patient),
            _ => Err(Problem::bad_request("\"on\" is patient/<id>, ward/<id> or site")),
        }
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            On::Site => f.write_str("site"),
            On::Ward(id) => write!(f, "ward/{id}"),
            On::Patient(id) => write!(f, "patient/{id}"),
        }
    }
}

pub(crate) async fn explain(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManagePolicies>,
    Body(question): Body<Question>,
) -> Answer<Explained> {
    let action = Permission::by_word(&question.action)
        .ok_or_else(|| Problem::bad_request("there is no such action; GET /api/v1/policies names them"))?;
    let purpose = match question.purpose.as_deref() {
        None => None,
        Some(code) => Some(Purpose::by_code(code).ok_or_else(|| Problem::bad_request("no such purpose"))?),
    };
    let user = web.people.by_name(&question.who).ok_or_else(|| Problem::not_found("person"))?;
    let on = On::parse(&question.on)?;
    // By ids: a name that was typed is not written down.
    let detail = format!("{} {} on {on}", user.id, action.word());
    let act = permit.act(AuditAction::Read, "Policies").detail(detail);
    web.blocking(move |web| {
        web.site.record(act, AuditOutcome::Success)?;
        let mut access = Access::of_person(web, user);
        if let Some(purpose) = purpose {
            access = access.with_purpose(purpose);
        }
        let decision = match on {
            On::Site => access.decision(action),
            On::Ward(ward) => access.sight(web).explain_ward(action, ward),
            On::Patient(id) => {
                let patient = web.site.registry().patient(id).ok_or_else(|| Problem::not_found("patient"))?;
                access.sight(web).explain_patient(action, &patient)
            }
        };
        let engine = web.policies().engine();
        let named = engine.rules().iter().filter(|rule| decision.policies.contains(&rule.id));
        let reasons = named.map(|rule| Reason {
            id: rule.id.clone(),
            effect: rule.effect,
            description: rule.description.clone(),
        });
        Ok(Json(Explained { allowed: decision.allowed, reasons: reasons.collect(), text: decision.why() }))
    })
    .await?
}
