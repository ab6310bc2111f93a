//! Introspection (RFC 7662) and revocation (RFC 7009): for a program, of its own tokens.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use store::{Actor, AuditAction, AuditOutcome, Transaction};

use super::answer::{Parameters, Wrong, answer};
use super::clients::Client;
use super::{assertion, grants};
use crate::session::Caller;
use crate::state::Web;

async fn asked(
    web: Arc<Web>,
    request: Request,
    run: fn(&Web, &Caller, &Client, &str) -> Result<Value, Wrong>,
) -> Response {
    let (asked, from) = match Parameters::of_form(request).await {
        Ok(asked) => asked,
        Err(wrong) => return wrong.into_response(),
    };
    let given = web.blocking(move |web| {
        let client = assertion::client_of(web, &from, &asked)?;
        run(web, &from.caller, &client, asked.needed("token")?)
    });
    match given.await {
        Ok(Ok(body)) => answer(StatusCode::OK, body),
        Ok(Err(wrong)) => wrong.into_response(),
        Err(_) => Wrong::ours().into_response(),
    }
}

/// `POST /oauth2/introspect`
pub(super) async fn introspect(State(web): State<Arc<Web>>, request: Request) -> Response {
    asked(web, request, |web, _, client, token| {
        let known = web.known_token(token)?.filter(|known| known.grant.client == client.record.id);
        let Some(known) = known else { return Ok(json!({"active": false})) };
        let mut body = json!({
            "active": true,
            "client_id": client.id_text(),
            "scope": known.scopes.to_string(),
            "token_type": "Bearer",
            "exp": known.expires_at.as_seconds(),
            "iat": known.grant.used_at.as_seconds(),
        });
        if let Some(user) = &known.access.user {
            body["sub"] = json!(user.id.to_string());
        }
        if let Some(patient) = known.grant.patient {
            body["patient"] = json!(patient.to_string());
        }
        Ok(body)
    })
    .await
}

/// `POST /oauth2/revoke`: of an access or a refresh token, both end the grant with all its tokens. Whether the token was
/// known is not said.
pub(super) async fn revoke(State(web): State<Arc<Web>>, request: Request) -> Response {
    asked(web, request, |web, caller, client, token| {
        let Some((id, hash)) = grants::ticket_parts(token) else { return Ok(json!({})) };
        let store = web.site.store();
        let Some((grant, _)) = grants::read(store, id)? else { return Ok(json!({})) };
        let is_access = grant.access.iter().any(|one| trust::equal(&one.hash, &hash.0));
        let is_refresh = grant.refresh.is_some_and(|current| trust::equal(&current, &hash.0));
        if grant.client == client.record.id && (is_access || is_refresh) {
            let now = web.site.clock().now();
            let actor = grant.user.map_or_else(|| Actor::Program(client.name.clone()), Actor::User);
            let act = caller
                .by(actor)
                .act(AuditAction::Delete, "grant")
                .detail(format!("given back by {}", client.name));
            let audit = vec![act.record(now, AuditOutcome::Success)];
            let writes = vec![grants::removal(id)];
            store.transact(&Transaction { at: now, writes, audit, ..Transaction::default() })?;
        }
        Ok(json!({}))
    })
    .await
}
