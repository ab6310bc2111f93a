//! Registrations for those who manage programs, and one's own grants for everybody.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use clinical_model::{Timestamp, UserId};
use pipeline::audited::ReadError;
use serde::Serialize;
use serde_json::Value;
use store::{AuditAction, AuditOutcome, TransactError, Transaction};

use super::clients::{Client, ClientKind, ClientsError, NewClient, id_from};
use super::grants;
use crate::access::{Permission, Permit, may};
use crate::json::{Answer, Body, hex};
use crate::problem::{Code, Problem};
use crate::state::Web;

impl From<ClientsError> for Problem {
    fn from(error: ClientsError) -> Self {
        let with_cause = || match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        match error {
            ClientsError::NotFound => Problem::not_found("program"),
            ClientsError::Keep(cause) => cause.into(),
            ClientsError::Store(cause) => ReadError::Store(cause).into(),
            ClientsError::Record(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a registration cannot be read");
                Problem::internal()
            }
            ClientsError::TooMany => Problem::new(Code::Full, error.to_string()),
            ClientsError::Rights => Problem::new(Code::Forbidden, error.to_string()),
            ClientsError::Name
            | ClientsError::NameTaken
            | ClientsError::Scopes(_)
            | ClientsError::Unfit { .. }
            | ClientsError::Keys(_)
            | ClientsError::Redirect { .. } => Problem::bad_request(with_cause()),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct ClientView {
    id: String,
    name: String,
    kind: ClientKind,
    redirect_uris: Vec<String>,
    scopes: String,
    jwks: Option<Value>,
    is_confidential: bool,
    disabled: bool,
    version: u64,
    created_by: Option<UserId>,
    created_at: Timestamp,
}

fn view(client: &Client) -> ClientView {
    let record = client.record.clone();
    ClientView {
        id: client.id_text(),
        is_confidential: client.is_confidential(),
        name: record.name,
        kind: record.kind,
        redirect_uris: record.redirect_uris,
        scopes: record.scopes,
        jwks: record.jwks,
        disabled: record.disabled,
        version: client.version,
        created_by: record.created_by,
        created_at: record.created_at,
    }
}

#[derive(Serialize)]
pub(crate) struct ClientList {
    clients: Vec<ClientView>,
}

/// `GET /api/v1/clients`
pub(crate) async fn list(State(web): State<Arc<Web>>, permit: Permit<may::ManageApps>) -> Answer<ClientList> {
    let act = permit.act(AuditAction::Search, "registered program");
    web.blocking(move |web| {
        web.site.record(act, AuditOutcome::Success)?;
        Ok(Json(ClientList { clients: web.oauth.clients.list().iter().map(|client| view(client)).collect() }))
    })
    .await?
}

fn known_id(id: &str) -> Result<[u8; 16], Problem> {
    id_from(id).ok_or_else(|| Problem::not_found("program"))
}

/// `GET /api/v1/clients/{id}`
pub(crate) async fn show(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageApps>,
    Path(id): Path<String>,
) -> Answer<ClientView> {
    let id = known_id(&id)?;
    let act = permit.act(AuditAction::Read, "registered program").detail(hex(&id));
    web.blocking(move |web| {
        web.site.record(act, AuditOutcome::Success)?;
        let client = web.oauth.clients.by_id(id).ok_or_else(|| Problem::not_found("program"))?;
        Ok(Json(view(&client)))
    })
    .await?
}

/// `POST /api/v1/clients`
pub(crate) async fn add(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageApps>,
    Body(new): Body<NewClient>,
) -> Result<(StatusCode, Json<ClientView>), Problem> {
    let by = permit.by();
    let sees_charts = permit.holds(Permission::ReadChart);
    web.blocking(move |web| {
        let client = web.keep_client(&by, sees_charts, None, new)?;
        Ok((StatusCode::CREATED, Json(view(&client))))
    })
    .await?
}

/// `PUT /api/v1/clients/{id}`
pub(crate) async fn change(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageApps>,
    Path(id): Path<String>,
    Body(new): Body<NewClient>,
) -> Answer<ClientView> {
    let id = known_id(&id)?;
    if new.version.is_none() {
        return Err(Problem::bad_request("say which version was changed (\"version\")"));
    }
    let by = permit.by();
    let sees_charts = permit.holds(Permission::ReadChart);
    web.blocking(move |web| Ok(Json(view(&*web.keep_client(&by, sees_charts, Some(id), new)?)))).await?
}

/// `DELETE /api/v1/clients/{id}`
pub(crate) async fn remove(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageApps>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = known_id(&id)?;
    let by = permit.by();
    web.blocking(move |web| web.remove_client(&by, id)).await??;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
pub(crate) struct GrantList {
    grants: Vec<GrantView>,
}

#[derive(Serialize)]
struct GrantView {
    id: String,
    client: ClientName,
    scopes: String,
    patient: Option<PatientName>,
    created_at: Timestamp,
    last_used_at: Timestamp,
    expires_at: Timestamp,
    is_offline: bool,
}

#[derive(Serialize)]
struct ClientName {
    id: String,
    name: String,
}

#[derive(Serialize)]
struct PatientName {
    id: String,
    display: String,
}

/// `GET /api/v1/grants`: the programs that one let in oneself.
pub(crate) async fn grants(State(web): State<Arc<Web>>, permit: Permit<may::SignedIn>) -> Answer<GrantList> {
    let Some(user) = permit.user() else { return Ok(Json(GrantList { grants: Vec::new() })) };
    web.blocking(move |web| {
        let now = web.site.clock().now();
        let sight = permit.sight(web);
        let theirs = grants::of_user(web.site.store(), user).map_err(ReadError::Store)?;
        let standing = theirs.into_iter().filter(|grant| web.standing(grant, None, now).is_some());
        let grants = standing.map(|grant| {
            let client = web.oauth.clients.by_id(grant.client);
            let patient = grant.patient.filter(|id| sight.patient_id(*id));
            let patient = patient.and_then(|id| web.site.registry().patient(id));
            GrantView {
                id: hex(&grant.id),
                client: ClientName {
                    id: hex(&grant.client),
                    name: client.map(|client| client.name.clone()).unwrap_or_default(),
                },
                patient: patient.map(|patient| PatientName {
                    id: patient.id.to_string(),
                    display: format!("{}, {}", patient.family.expose(), patient.given.expose()),
                }),
                is_offline: grant.is_offline(),
                scopes: grant.scopes,
                created_at: grant.created_at,
                last_used_at: grant.used_at,
                expires_at: grant.ends_at,
            }
        });
        Ok(Json(GrantList { grants: grants.collect() }))
    })
    .await?
}

/// `DELETE /api/v1/grants/{id}`: one's own.
pub(crate) async fn remove_grant(
    State(web): State<Arc<Web>>,
    permit: Permit<may::SignedIn>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = id_from(&id).ok_or_else(|| Problem::not_found("grant"))?;
    web.blocking(move |web| {
        let now = web.site.clock().now();
        let store = web.site.store();
        let known = grants::read(store, id).map_err(ReadError::Store)?;
        let known = known.filter(|(grant, _)| grant.user.is_some() && grant.user == permit.user());
        let (grant, _) = known.ok_or_else(|| Problem::not_found("grant"))?;
        let act = permit.act(AuditAction::Delete, "grant").detail(hex(&grant.client));
        let audit = vec![act.record(now, AuditOutcome::Success)];
        let transaction =
            Transaction { at: now, writes: vec![grants::removal(id)], audit, ..Transaction::default() };
        store.transact(&transaction).map_err(|error: TransactError| Problem::from(error))?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await?
}
