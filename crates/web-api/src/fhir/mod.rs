//! FHIR R4 REST: the table of interactions, and the one way of every request through it.
//!
//! The same interactions are served on both ports: on the web port for people with a session, on the device port for
//! devices and programs with a certificate. The table makes the router and the CapabilityStatement, so that neither
//! can say what the other does not. Nothing is ignored: an unknown parameter, header or element is refused by name.

mod answer;
mod audit;
mod bundle;
mod call;
mod capability;
mod create;
mod observations;
mod page;
mod records;
mod render;

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use health_codecs::fhir::IssueCode;
use pipeline::audited::Act;
use store::{AuditAction, AuditOutcome};

use crate::access::Permission;
use crate::serve::DevicePeer;
use crate::state::Web;
use answer::{Answer, Refusal};
use call::{Call, Door};

pub(crate) use create::position_of;

/// Patients of one act that get an audit row each; more get one row with their number.
pub const AUDITED_PATIENTS_LIMIT: usize = 50;

/// The path of the interface.
const BASE: &str = "/fhir";

/// What a handler returns when it waits for a commit.
type Waiting = Pin<Box<dyn Future<Output = Result<Answer, Refusal>> + Send>>;

/// How an interaction is done.
#[derive(Clone, Copy)]
enum Handler {
    /// By reading the store, off the async threads.
    Read(fn(&Web, &Call) -> Result<Answer, Refusal>),
    /// By waiting for a commit.
    Write(fn(Arc<Web>, Arc<Call>) -> Waiting),
}

/// One interaction of the FHIR interface.
#[derive(Clone)]
pub struct Interaction {
    /// HTTP method.
    pub method: Method,
    /// Path with its parameter in braces.
    pub path: &'static str,
    /// What it needs.
    pub permission: Permission,
    /// The type of resource; empty for the whole system.
    pub resource: &'static str,
    /// The code of the interaction in a CapabilityStatement, or the name of an operation with a `$`.
    pub code: &'static str,
    handler: Handler,
}

/// Every interaction that is served.
pub fn interactions() -> Vec<Interaction> {
    use Handler::{Read, Write};
    use Permission as P;
    let (get, post) = (Method::GET, Method::POST);
    macro_rules! table {
        ($($method:ident $path:literal $permission:ident $resource:literal $code:literal $handler:expr;)*) => {
            vec![$(Interaction { method: $method.clone(), path: $path, permission: P::$permission,
                resource: $resource, code: $code, handler: $handler }),*]
        };
    }
    table! {
        get "/fhir/metadata" Open "" "capabilities" Read(capability::show);
        get "/fhir/Patient/{id}" ReadChart "Patient" "read" Read(records::read_patient);
        get "/fhir/Patient" ReadChart "Patient" "search-type" Read(records::search_patients);
        post "/fhir/Patient/_search" ReadChart "Patient" "search-type" Read(records::search_patients);
        get "/fhir/Device/{id}" ReadDevices "Device" "read" Read(records::read_device);
        get "/fhir/Device" ReadDevices "Device" "search-type" Read(records::search_devices);
        post "/fhir/Device/_search" ReadDevices "Device" "search-type" Read(records::search_devices);
        get "/fhir/Location/{id}" ReadDevices "Location" "read" Read(records::read_location);
        get "/fhir/Observation/{id}" ReadChart "Observation" "read" Read(observations::read);
        get "/fhir/Observation" ReadChart "Observation" "search-type" Read(observations::search);
        post "/fhir/Observation/_search" ReadChart "Observation" "search-type" Read(observations::search);
        get "/fhir/Observation/$lastn" ReadChart "Observation" "$lastn" Read(observations::lastn);
        post "/fhir/Observation" SendMeasurements "Observation" "create" Write(create::create);
        get "/fhir/AuditEvent/{id}" ReadAudit "AuditEvent" "read" Read(audit::read);
        get "/fhir/AuditEvent" ReadAudit "AuditEvent" "search-type" Read(audit::search);
        post "/fhir/AuditEvent/_search" ReadAudit "AuditEvent" "search-type" Read(audit::search);
        post "/fhir" SendMeasurements "" "transaction" Write(bundle::process);
    }
}

/// For people with a session.
pub(crate) fn web_router(web: &Arc<Web>) -> Router {
    router(web, Door::People)
}

/// For devices and programs with a certificate.
pub(crate) fn device_router(web: &Arc<Web>) -> Router {
    router(web, Door::Peers)
}

fn router(web: &Arc<Web>, door: Door) -> Router {
    let mut paths: Vec<(&'static str, MethodRouter)> = Vec::new();
    for interaction in interactions() {
        let (path, filter) = (interaction.path, filter_of(&interaction.method));
        let web = Arc::clone(web);
        let handler = move |request: Request| serve(web, door, interaction, request);
        match paths.iter_mut().find(|(known, _)| *known == path) {
            Some((_, methods)) => *methods = std::mem::take(methods).on(filter, handler),
            None => paths.push((path, on(filter, handler))),
        }
    }
    let mut router = Router::new();
    for (path, methods) in paths {
        let methods = methods.fallback(no_such_method);
        if path == BASE {
            // Clients write the base with and without a slash at its end.
            router = router.route("/fhir/", methods.clone());
        }
        router = router.route(path, methods);
    }
    router.route("/fhir/{*rest}", axum::routing::any(no_such_path))
}

fn filter_of(method: &Method) -> MethodFilter {
    match *method {
        Method::POST => MethodFilter::POST,
        _ => MethodFilter::GET,
    }
}

async fn no_such_method(request: Request) -> Response {
    let what = format!(
        "{} is not supported on {}; see /fhir/metadata for what is",
        request.method(),
        call::shown(request.uri().path())
    );
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, IssueCode::NotSupported, what).into_response()
}

async fn no_such_path(request: Request) -> Response {
    let what =
        format!("nothing is served on {}; see /fhir/metadata for what is", call::shown(request.uri().path()));
    Refusal::new(StatusCode::NOT_FOUND, IssueCode::NotSupported, what).into_response()
}

async fn serve(web: Arc<Web>, door: Door, interaction: Interaction, request: Request) -> Response {
    match pass(web, door, interaction, request).await {
        Ok(answer) => answer.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// Who asks, whether they may, what they ask; then the handler.
async fn pass(
    web: Arc<Web>,
    door: Door,
    interaction: Interaction,
    request: Request,
) -> Result<Answer, Refusal> {
    call::accepts_json(request.headers())?;
    let access = match interaction.permission {
        Permission::Open => None,
        _ => {
            let peer = request.extensions().get::<DevicePeer>().cloned();
            Some(door.access(&web, &request.headers().clone(), peer).await?)
        }
    };
    if let Some(access) = access.as_ref().filter(|access| !access.holds(interaction.permission)) {
        let detail =
            format!("{} {} needs {:?}", interaction.method, interaction.path, interaction.permission);
        let act = Act::new(access.actor(), AuditAction::Read, "FHIR interaction").detail(detail);
        blocking(&web, move |web| refused(web, act)).await?;
        return Err(Refusal::forbidden("your role does not permit this"));
    }
    let call = Call::read(&web, door, access, &interaction, request).await?;
    let is_pretty = call.is_pretty;
    let answer = match interaction.handler {
        Handler::Read(read) => blocking(&web, move |web| read(web, &call)).await?,
        Handler::Write(write) => write(web, Arc::new(call)).await?,
    };
    Ok(Answer { is_pretty, ..answer })
}

/// Runs something that blocks off the async threads.
async fn blocking<T: Send + 'static>(
    web: &Arc<Web>,
    run: impl FnOnce(&Web) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    web.blocking(run).await?
}

/// Records a refusal. It stands even where the record cannot be written.
fn refused(web: &Web, act: Act) -> Result<(), Refusal> {
    if let Err(error) = web.site.record(act, AuditOutcome::Refused) {
        tracing::error!(error = &error as &dyn std::error::Error, "a refusal could not be recorded");
    }
    Ok(())
}
