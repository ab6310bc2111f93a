//! What a program needs to know before it asks: the SMART configuration, and our public keys.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::answer::{Word, Wrong};
use super::{assertion, origin_of};
use crate::state::Web;

/// The SMART configuration (SMART App Launch 2.2, "Conformance"), which says what OpenID Connect Discovery and RFC 8414 ask
/// for as well.
pub(super) async fn smart(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let origin = origin_of(&web.options, &headers);
    Json(json!({
        "issuer": origin,
        "jwks_uri": format!("{origin}/oauth2/jwks"),
        "authorization_endpoint": format!("{origin}/oauth2/authorize"),
        "token_endpoint": format!("{origin}/oauth2/token"),
        "introspection_endpoint": format!("{origin}/oauth2/introspect"),
        "revocation_endpoint": format!("{origin}/oauth2/revoke"),
        "management_endpoint": format!("{origin}/account"),
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt", "none"],
        "token_endpoint_auth_signing_alg_values_supported": assertion::ALGORITHMS.map(|one| one.name()),
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "request_uri_parameter_supported": false,
        "request_parameter_supported": false,
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nonce", "fhirUser", "name"],
        "scopes_supported": [
            "openid", "fhirUser", "profile", "launch/patient", "offline_access", "online_access",
            "patient/*.rs", "patient/Observation.rs?category=vital-signs", "user/*.cruds", "user/*.rs", "system/*.cruds",
            "system/*.rs",
        ],
        "capabilities": [
            "launch-standalone", "client-public", "client-confidential-asymmetric", "sso-openid-connect",
            "context-standalone-patient", "permission-patient", "permission-user", "permission-offline",
            "permission-online", "permission-v1", "permission-v2",
        ],
    }))
    .into_response()
}

/// Our public keys, as a JSON Web Key set.
pub(super) async fn jwks(State(web): State<Arc<Web>>) -> Response {
    let keys = web.blocking(move |web| web.published_keys(web.site.clock().now())).await;
    match keys {
        Ok(Ok(keys)) => (StatusCode::OK, Json(keys)).into_response(),
        Ok(Err(error)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "our signing keys cannot be shown");
            Wrong::new(Word::ServerError, "the keys cannot be read now").into_response()
        }
        Err(problem) => problem.into_response(),
    }
}
