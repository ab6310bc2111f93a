//! Whether this node can serve: 200 where it can, 503 where it cannot reach what is kept. For a balancer.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::state::Web;

pub(crate) async fn show(State(web): State<Arc<Web>>) -> Response {
    let (status, state) = if web.site.is_ready() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "store-unreachable")
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(json!({ "status": state }))).into_response()
}
