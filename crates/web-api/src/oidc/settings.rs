//! The identity providers for administrators, and their buttons for the sign-in page.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use pipeline::audited::ReadError;
use serde::{Deserialize, Serialize};
use store::{AuditAction, AuditOutcome, Expected};

use super::providers::{self, Provider, ProviderError, Provisioning, RoleRule};
use crate::access::{Permit, may};
use crate::json::session::people_problem;
use crate::json::{Answer, Body};
use crate::problem::Problem;
use crate::session::Current;
use crate::state::Web;

impl From<ProviderError> for Problem {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::NotFound => Problem::not_found("identity provider"),
            ProviderError::Keep(cause) => cause.into(),
            ProviderError::Store(cause) => ReadError::Store(cause).into(),
            ProviderError::Setting { .. } => Problem::bad_request(error.to_string()),
            ProviderError::Record(_) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "an identity provider cannot be read"
                );
                Problem::internal()
            }
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Buttons {
    providers: Vec<Button>,
}

#[derive(Serialize)]
struct Button {
    id: String,
    name: String,
}

/// `GET /api/v1/identity-providers`
pub(crate) async fn buttons(State(web): State<Arc<Web>>) -> Answer<Buttons> {
    web.blocking(|web| {
        let all = providers::all(web.site.store())?;
        let enabled = all.into_iter().filter(|(one, _)| one.enabled);
        let providers = enabled.map(|(one, _)| Button { id: one.id, name: one.name });
        Ok(Json(Buttons { providers: providers.collect() }))
    })
    .await?
}

/// `GET /api/v1/step-up/providers`: those at which whoever is signed in can prove themself again.
pub(crate) async fn again(
    State(web): State<Arc<Web>>,
    _permit: Permit<may::SignedIn>,
    Extension(current): Extension<Current>,
) -> Answer<Buttons> {
    web.blocking(move |web| {
        let kept = web.people.kept(current.user);
        let links = kept.as_ref().map(|kept| &kept.record.provider_links[..]).unwrap_or_default();
        let counts = |one: &Provider| {
            one.enabled && one.trusts_mfa && links.iter().any(|link| link.subject.issuer == one.issuer)
        };
        let all = providers::all(web.site.store())?.into_iter().map(|(one, _)| one);
        let providers = all.filter(counts).map(|one| Button { id: one.id, name: one.name });
        Ok(Json(Buttons { providers: providers.collect() }))
    })
    .await?
}

#[derive(Serialize)]
pub(crate) struct Providers {
    providers: Vec<ProviderView>,
}

#[derive(Serialize)]
pub(crate) struct ProviderView {
    id: String,
    name: String,
    issuer: String,
    client_id: String,
    has_secret: bool,
    uses_key: bool,
    scopes: String,
    name_claim: String,
    allowed_domains: Vec<String>,
    provisioning: Provisioning,
    role_claim: Option<String>,
    roles: Vec<RoleRule>,
    trusts_mfa: bool,
    mfa_values: Vec<String>,
    enabled: bool,
    version: u64,
}

fn view((provider, version): (Provider, u64)) -> ProviderView {
    ProviderView {
        has_secret: provider.client_secret.is_some(),
        id: provider.id,
        name: provider.name,
        issuer: provider.issuer,
        client_id: provider.client_id,
        uses_key: provider.uses_key,
        scopes: provider.scopes,
        name_claim: provider.name_claim,
        allowed_domains: provider.allowed_domains,
        provisioning: provider.provisioning,
        role_claim: provider.role_claim,
        roles: provider.roles,
        trusts_mfa: provider.trusts_mfa,
        mfa_values: provider.mfa_values,
        enabled: provider.enabled,
        version,
    }
}

/// `GET /api/v1/identity-providers/settings`
pub(crate) async fn list(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageIdentityProvider>,
) -> Answer<Providers> {
    let act = permit.act(AuditAction::Search, "identity provider");
    web.blocking(move |web| {
        web.site.record(act, AuditOutcome::Success)?;
        let all = providers::all(web.site.store())?;
        Ok(Json(Providers { providers: all.into_iter().map(view).collect() }))
    })
    .await?
}

/// The settings of a provider as an administrator sends them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    name: String,
    issuer: String,
    client_id: String,
    /// Not said: the one that is kept stays; empty: none.
    #[serde(default)]
    client_secret: Option<String>,
    #[serde(default)]
    uses_key: bool,
    #[serde(default = "usual_scopes")]
    scopes: String,
    #[serde(default = "usual_name_claim")]
    name_claim: String,
    #[serde(default)]
    allowed_domains: Vec<String>,
    #[serde(default)]
    provisioning: Provisioning,
    #[serde(default)]
    role_claim: Option<String>,
    #[serde(default)]
    roles: Vec<RoleRule>,
    #[serde(default)]
    trusts_mfa: bool,
    #[serde(default)]
    mfa_values: Vec<String>,
    #[serde(default)]
    enabled: bool,
    /// The version that was seen; none: it is new.
    #[serde(default)]
    version: Option<u64>,
}

fn usual_scopes() -> String {
    "openid profile email".to_owned()
}

fn usual_name_claim() -> String {
    "preferred_username".to_owned()
}

/// `PUT /api/v1/identity-providers/settings/{id}`
pub(crate) async fn change(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageIdentityProvider>,
    Path(id): Path<String>,
    Body(settings): Body<Settings>,
) -> Answer<ProviderView> {
    let by = permit.by();
    web.blocking(move |web| {
        let known = match providers::one(web.site.store(), &id) {
            Ok((known, _)) => Some(known),
            Err(ProviderError::NotFound) => None,
            Err(error) => return Err(error.into()),
        };
        if known.as_ref().is_some_and(|known| known.issuer != settings.issuer) {
            web.await_no_more(&by, &id).map_err(people_problem)?;
        }
        let client_secret = match settings.client_secret {
            Some(text) => Some(text).filter(|text| !text.is_empty()),
            // A secret goes to whom it was given for, not to another address.
            None => {
                known.filter(|known| known.issuer == settings.issuer).and_then(|known| known.client_secret)
            }
        };
        let provider = Provider {
            id,
            name: settings.name,
            issuer: settings.issuer,
            client_id: settings.client_id,
            client_secret,
            uses_key: settings.uses_key,
            scopes: settings.scopes,
            name_claim: settings.name_claim,
            allowed_domains: settings.allowed_domains,
            provisioning: settings.provisioning,
            role_claim: settings.role_claim,
            roles: settings.roles,
            trusts_mfa: settings.trusts_mfa,
            mfa_values: settings.mfa_values,
            enabled: settings.enabled,
        };
        let expected = settings.version.map_or(Expected::Absent, Expected::Version);
        providers::keep(web, &by, &provider, expected)?;
        Ok(Json(view(providers::one(web.site.store(), &provider.id)?)))
    })
    .await?
}

/// `DELETE /api/v1/identity-providers/settings/{id}`
pub(crate) async fn remove(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageIdentityProvider>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let by = permit.by();
    web.blocking(move |web| {
        // First, so that nobody is left who would come by the next provider of this name.
        web.await_no_more(&by, &id).map_err(people_problem)?;
        Ok::<_, Problem>(providers::remove(web, &by, &id)?)
    })
    .await??;
    Ok(StatusCode::NO_CONTENT)
}
