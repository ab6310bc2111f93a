//! The table of operations: method, path, permission, sentence, handler. The router, the OpenAPI description and the
//! coverage tests are made from it, so that none of them can forget one.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use pipeline::audited::Act;
use store::{AuditAction, AuditOutcome};

use crate::access::{Access, Permission};
use crate::problem::{Code, Problem};
use crate::session::{self, Current};
use crate::state::Web;
use crate::{app, json, live};

/// Header that a page of another site cannot send without asking first.
pub const FORGERY_HEADER: &str = "x-auscult";

/// Header by which a page says that nobody has touched it for a while: what it asks by itself keeps no session alive.
pub const UNATTENDED_HEADER: &str = "x-auscult-unattended";

/// One operation.
pub struct Operation {
    /// HTTP method.
    pub method: Method,
    /// Path with its parameters in braces.
    pub path: &'static str,
    /// What it needs.
    pub permission: Permission,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Whether the second factor must have been used within the last minutes (step-up).
    pub is_fresh: bool,
    /// Whether a session may do it whose person has still to make their way in complete.
    pub is_enrolling: bool,
    router: MethodRouter<Arc<Web>>,
}

impl Operation {
    /// The same, for people who have just used their second factor only.
    #[must_use]
    pub fn fresh(self) -> Self {
        Operation { is_fresh: true, ..self }
    }

    /// The same, also for sessions that have still to make the way in complete.
    #[must_use]
    pub fn enrolling(self) -> Self {
        Operation { is_enrolling: true, ..self }
    }
}

/// An operation of the table.
pub fn operation<H, T>(
    method: Method,
    path: &'static str,
    permission: Permission,
    summary: &'static str,
    handler: H,
) -> Operation
where
    H: Handler<T, Arc<Web>>,
    T: 'static,
{
    let filter = match method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    let router = on(filter, handler);
    Operation { method, path, permission, summary, is_fresh: false, is_enrolling: false, router }
}

/// Every operation of the JSON API and the live streams.
pub fn operations() -> Vec<Operation> {
    use Permission as P;
    let get = Method::GET;
    let post = Method::POST;
    let put = Method::PUT;
    macro_rules! table {
        // Behind the permission: `fresh` for acts that need a step-up, `enrolling` for those of the way in.
        ($($method:ident $path:literal $permission:ident $($flag:ident)* $summary:literal $handler:path;)*) => {
            vec![$(operation($method.clone(), $path, P::$permission, $summary, $handler)$(.$flag())*),*]
        };
    }
    table! {
        get "/api/v1/session" Open "Who is signed in" json::session::show;
        post "/api/v1/setup" Open "Add the first administrator with the printed token" json::session::set_up;
        post "/api/v1/sign-in" Open "Sign in" json::session::sign_in;
        post "/api/v1/sign-out" Open "Sign out" json::session::sign_out;
        get "/api/v1/wards" SignedIn "The wards that are theirs" json::wards::list;
        get "/api/v1/wards/{id}/board" ReadChart "All beds of a ward on one screen" json::wards::board;
        get "/api/v1/places" SignedIn "Wards, beds, homes and rooms" json::wards::places;
        post "/api/v1/places" ManagePeople "Add a place" json::wards::add_place;
        get "/api/v1/patients" ReadChart "Find patients" json::patients::find;
        post "/api/v1/patients" AdmitPatients "Admit a patient" json::patients::admit;
        get "/api/v1/patients/{id}" ReadChart "One patient with the latest values" json::patients::show;
        get "/api/v1/patients/{id}/trend" ReadChart "Minimum, mean and maximum a bucket" json::curves::trend;
        get "/api/v1/patients/{id}/readings" ReadChart "Readings of one measure" json::curves::readings;
        get "/api/v1/patients/{id}/waveform" ReadChart "Samples of one waveform" json::curves::waveform;
        put "/api/v1/patients/{id}/limits" ActOnAlerts "Set the alert limits of a patient" json::patients::set_limits;
        get "/api/v1/observations/{id}/provenance" ReadChart "Everything behind one value" json::curves::provenance;
        get "/api/v1/alerts" ReadChart "Alerts" json::alerts::list;
        post "/api/v1/alerts/{id}/acknowledge" ActOnAlerts "Take an alert" json::alerts::acknowledge;
        post "/api/v1/alerts/{id}/resolve" ActOnAlerts "Close an alert" json::alerts::resolve;
        get "/api/v1/devices" ReadDevices "The devices" json::devices::list;
        post "/api/v1/devices" ManageDevices "Register a device" json::devices::register;
        get "/api/v1/devices/{id}" ReadDevices "One device with its assignments" json::devices::show;
        put "/api/v1/devices/{id}" ManageDevices "Change a device" json::devices::update;
        post "/api/v1/devices/{id}/assignments" AssignDevices "Assign a device" json::devices::assign;
        post "/api/v1/assignments/{id}/end" AssignDevices "End an assignment" json::devices::end_assignment;
        get "/api/v1/quarantine" MendQuarantine "What could not be read or placed" json::quarantine::list;
        get "/api/v1/quarantine/{id}" MendQuarantine "One item with its bytes" json::quarantine::show;
        post "/api/v1/quarantine/rerun" MendQuarantine "Run many items again" json::quarantine::rerun_many;
        post "/api/v1/quarantine/{id}/rerun" MendQuarantine "Run an item again" json::quarantine::rerun;
        post "/api/v1/quarantine/{id}/discard" MendQuarantine "Set an item aside" json::quarantine::discard;
        get "/api/v1/audit" ReadAudit "The audit log" json::audit::rows;
        get "/api/v1/audit/groups" ReadAudit "What each committed group carried" json::audit::groups;
        get "/api/v1/users" ManagePeople "People who may sign in" json::users::list;
        post "/api/v1/users" ManagePeople "Add a person" json::users::add;
        get "/api/v1/live" ReadChart "Live events" live::events::stream;
        get "/api/v1/live/waveforms" ReadChart "Live waveforms" live::waveforms::upgrade;
        get "/api/v1/status" SignedIn "What waits for the disk, and what had to give way" json::status::show;
        get "/health" Open "Whether this node can serve, for a balancer" json::health::show;
        get "/api/v1/openapi.json" Open "This description" openapi_document;
    }
}

/// The router of the web port: every operation behind its gate, FHIR, and the web app.
pub fn router(web: &Arc<Web>) -> Router {
    let mut router = Router::new();
    for operation in operations() {
        let gate = Gate { permission: operation.permission, web: Arc::clone(web) };
        let guarded = operation.router.layer(middleware::from_fn_with_state(gate, pass_gate));
        router = router.route(operation.path, guarded);
    }
    router
        .with_state(Arc::clone(web))
        .merge(crate::fhir::web_router(web))
        .fallback(app::serve)
        .layer(middleware::from_fn(secure_headers))
}

#[derive(Clone)]
struct Gate {
    permission: Permission,
    web: Arc<Web>,
}

/// Lets a request pass that its session and role permit, and puts [`Access`] where the handler finds it.
async fn pass_gate(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    if request.method() != Method::GET
        && let Err(problem) = not_forged(request.headers())
    {
        return problem.into_response();
    }
    if gate.permission == Permission::Open {
        return next.run(request).await;
    }
    let attended = !request.headers().contains_key(UNATTENDED_HEADER);
    let (access, current) = match signed_in(&gate.web, request.headers(), attended).await {
        Ok(signed_in) => signed_in,
        Err(problem) => return problem.into_response(),
    };
    if !access.holds(gate.permission) {
        let act = Act::new(access.actor(), AuditAction::Read, "operation").detail(format!(
            "{} {} needs {:?}",
            request.method(),
            request.uri().path(),
            gate.permission
        ));
        return refuse(&gate.web, act).await.into_response();
    }
    request.extensions_mut().insert(access);
    request.extensions_mut().insert(current);
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Records a refusal and answers with it. The refusal stands even where the record cannot be written.
pub(crate) async fn refuse(web: &Arc<Web>, act: Act) -> Problem {
    let recorded = web.blocking(move |web| web.site.record(act, AuditOutcome::Refused)).await;
    if let Ok(Err(error)) = recorded {
        tracing::error!(error = &error as &dyn std::error::Error, "a refusal could not be recorded");
    }
    Problem::new(Code::Forbidden, "your role does not permit this")
}

/// Who is signed in by the request's cookie. `touch` counts the request as activity.
pub(crate) async fn signed_in(
    web: &Arc<Web>,
    headers: &HeaderMap,
    touch: bool,
) -> Result<(Access, Current), Problem> {
    let signed_out =
        || Problem::new(Code::SignedOut, "nobody is signed in, or the session has ended; sign in again");
    let hash = session::token_of(headers).ok_or_else(signed_out)?.hash();
    let now = web.site.clock().now();
    let current = match web.sessions.glance(&hash, now, touch) {
        Some(current) => Some(current),
        None => web.blocking(move |web| web.sessions.look(&hash, now, touch)).await??,
    };
    let current = current.ok_or_else(signed_out)?;
    let user = web.people.by_id(current.user).filter(|user| !user.disabled).ok_or_else(signed_out)?;
    Ok((Access::Person(user), current))
}

fn not_forged(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(FORGERY_HEADER) {
        return Ok(());
    }
    let detail = format!("a changing request needs the header \"{FORGERY_HEADER}: 1\"");
    Err(Problem::new(Code::Forged, detail))
}

/// What every answer tells the browser: nothing from elsewhere, no frames, no guessing of types.
async fn secure_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let policy = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
                  form-action 'self'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The OpenAPI 3.1 description of the table.
pub fn openapi() -> serde_json::Value {
    let mut paths = serde_json::Map::new();
    for operation in operations() {
        let parameters: Vec<_> = operation
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')))
            .map(|name| serde_json::json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        let described = serde_json::json!({
            "summary": operation.summary,
            "x-permission": format!("{:?}", operation.permission),
            "parameters": parameters,
            "responses": {
                "200": {"description": "see docs/reference/json-api.md"},
                "default": {"description": "application/problem+json"},
            },
        });
        let path = paths.entry(operation.path).or_insert_with(|| serde_json::json!({}));
        path[operation.method.as_str().to_lowercase()] = described;
    }
    serde_json::json!({
        "openapi": "3.1.0",
        "info": {"title": "Auscult JSON API", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
    })
}

async fn openapi_document() -> axum::Json<serde_json::Value> {
    axum::Json(openapi())
}
