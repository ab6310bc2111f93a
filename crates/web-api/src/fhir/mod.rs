//! FHIR R4 REST: the table of interactions, and the one way of every request through it.
//!
//! The same interactions are served on both ports: on the web port for people with a session, on the device port for
//! devices and programs with a certificate. The table makes the router and the CapabilityStatement, so that neither
//! can say what the other does not. Nothing is ignored: an unknown parameter, header or element is refused by name.

mod answer;
pub(crate) mod audit;
mod bundle;
mod call;
mod capability;
mod conditions;
pub(crate) mod consents;
mod create;
pub(crate) mod everything;
mod export;
mod fitting;
mod history;
mod include;
mod lastn;
mod links;
mod observations;
mod page;
mod records;
mod registering;
mod render;
mod results;
mod stats;
mod transaction;
mod update;
mod validating;

use std::pin::Pin;
use std::sync::Arc;

use ::access::scopes::{Ceiling, Cruds};
use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use health_codecs::fhir::IssueCode;
use health_codecs::fhir::view::View;
use pipeline::audited::Act;
use store::AuditOutcome;

use crate::access::{Access, Permission};
use crate::serve::DevicePeer;
use crate::session::Caller;
use crate::state::Web;
use Handler::{Read, Write};
use answer::Answer;
use call::{Call, Door};

pub use export::Exports;

pub(crate) use answer::{Refusal, http_date};
pub(crate) use create::position_of;

/// Patients of one act that get an audit row each, all of a page of the largest size among them; more, whom statistics count
/// and do not show, get one row with their number.
pub const AUDITED_PATIENTS_LIMIT: usize = 1_000;

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

impl Interaction {
    /// What it does with resources of its type, as scopes know it.
    pub(crate) fn what(&self) -> Cruds {
        match self.code {
            "read" | "vread" | "history-instance" | "$everything" | "$export" => Cruds::READ,
            "create" => Cruds::CREATE,
            "update" => Cruds::UPDATE,
            "delete" => Cruds::DELETE,
            _ => Cruds::SEARCH,
        }
    }

    /// Whether scopes have to reach its type: what is about the whole system asks for each type it touches.
    fn is_scoped(&self) -> bool {
        !self.resource.is_empty()
            && !matches!(self.code, "$validate" | "capabilities")
            && self.resource != "Group"
    }

    /// Whether it reads a query parameter of that name: those of a search, an operation or a history, the condition of
    /// a write, or how much of a resource is to be shown.
    fn takes(&self, name: &str) -> bool {
        match self.code {
            "read" | "vread" => matches!(name, "_summary" | "_elements"),
            "update" | "delete" => !self.path.contains('{'),
            "search-type" | "history-instance" | "history-type" => true,
            code => code.starts_with('$'),
        }
    }
}

/// Every interaction that is served.
pub fn interactions() -> Vec<Interaction> {
    use Permission as P;
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
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
        post "/fhir/Patient" AdmitPatients "Patient" "create" Write(registering::create_patient);
        put "/fhir/Patient" AdmitPatients "Patient" "update" Write(registering::update_patient_by);
        put "/fhir/Patient/{id}" AdmitPatients "Patient" "update" Write(registering::update_patient);
        get "/fhir/Patient/_history" ReadChart "Patient" "history-type" Read(history::of_patients);
        get "/fhir/Patient/{id}/_history" ReadChart "Patient" "history-instance" Read(history::of_patient);
        get "/fhir/Patient/{id}/_history/{vid}" ReadChart "Patient" "vread" Read(history::version_of_patient);
        get "/fhir/Device/{id}" ReadDevices "Device" "read" Read(records::read_device);
        get "/fhir/Device" ReadDevices "Device" "search-type" Read(records::search_devices);
        post "/fhir/Device/_search" ReadDevices "Device" "search-type" Read(records::search_devices);
        post "/fhir/Device" ManageDevices "Device" "create" Write(registering::create_device);
        put "/fhir/Device" ManageDevices "Device" "update" Write(registering::update_device_by);
        put "/fhir/Device/{id}" ManageDevices "Device" "update" Write(registering::update_device);
        get "/fhir/Device/_history" ReadDevices "Device" "history-type" Read(history::of_devices);
        get "/fhir/Device/{id}/_history" ReadDevices "Device" "history-instance" Read(history::of_device);
        get "/fhir/Device/{id}/_history/{vid}" ReadDevices "Device" "vread" Read(history::version_of_device);
        get "/fhir/Location/{id}" ReadDevices "Location" "read" Read(records::read_location);
        get "/fhir/Location/{id}/_history" ReadDevices "Location" "history-instance" Read(history::of_location);
        get "/fhir/Location/{id}/_history/{vid}" ReadDevices "Location" "vread" Read(history::version_of_location);
        get "/fhir/Location" ReadDevices "Location" "search-type" Read(records::search_locations);
        post "/fhir/Location/_search" ReadDevices "Location" "search-type" Read(records::search_locations);
        get "/fhir/Observation/{id}" ReadChart "Observation" "read" Read(observations::read);
        get "/fhir/Observation" ReadChart "Observation" "search-type" Read(observations::search);
        post "/fhir/Observation/_search" ReadChart "Observation" "search-type" Read(observations::search);
        get "/fhir/Patient/{id}/Observation" ReadChart "Observation" "search-type" Read(observations::search_of_patient);
        get "/fhir/Observation/$lastn" ReadChart "Observation" "$lastn" Read(lastn::lastn);
        post "/fhir/Observation" SendMeasurements "Observation" "create" Write(create::create);
        put "/fhir/Observation" CorrectChart "Observation" "update" Write(update::update_by);
        put "/fhir/Observation/{id}" CorrectChart "Observation" "update" Write(update::update);
        delete "/fhir/Observation" CorrectChart "Observation" "delete" Write(update::delete_by);
        delete "/fhir/Observation/{id}" CorrectChart "Observation" "delete" Write(update::delete);
        get "/fhir/Observation/{id}/_history" ReadChart "Observation" "history-instance" Read(history::of_observation);
        get "/fhir/Observation/{id}/_history/{vid}" ReadChart "Observation" "vread" Read(history::version_of_observation);
        get "/fhir/AuditEvent/{id}" ReadAudit "AuditEvent" "read" Read(audit::read);
        get "/fhir/AuditEvent" ReadAudit "AuditEvent" "search-type" Read(audit::search);
        post "/fhir/AuditEvent/_search" ReadAudit "AuditEvent" "search-type" Read(audit::search);
        get "/fhir/Consent/{id}" ReadConsents "Consent" "read" Read(consents::read);
        get "/fhir/Consent" ReadConsents "Consent" "search-type" Read(consents::search);
        post "/fhir/Consent/_search" ReadConsents "Consent" "search-type" Read(consents::search);
        post "/fhir/Consent" ManageConsents "Consent" "create" Write(consents::create);
        put "/fhir/Consent/{id}" ManageConsents "Consent" "update" Write(consents::update);
        get "/fhir/Consent/{id}/_history" ReadConsents "Consent" "history-instance" Read(history::of_consent);
        get "/fhir/Consent/{id}/_history/{vid}" ReadConsents "Consent" "vread" Read(history::version_of_consent);
        post "/fhir" SendBundle "" "transaction" Write(bundle::process);
        get "/fhir/Observation/$stats" ReadChart "Observation" "$stats" Read(stats::stats);
        post "/fhir/Observation/$stats" ReadChart "Observation" "$stats" Read(stats::stats);
        get "/fhir/Observation/$trend" ReadChart "Observation" "$trend" Read(stats::trend);
        post "/fhir/Observation/$trend" ReadChart "Observation" "$trend" Read(stats::trend);
        get "/fhir/Patient/{id}/$everything" ReadChart "Patient" "$everything" Read(everything::everything);
        post "/fhir/$validate" SendBundle "" "$validate" Read(validating::validate);
        post "/fhir/Patient/$validate" SendBundle "Patient" "$validate" Read(validating::validate);
        post "/fhir/Device/$validate" SendBundle "Device" "$validate" Read(validating::validate);
        post "/fhir/Location/$validate" SendBundle "Location" "$validate" Read(validating::validate);
        post "/fhir/Observation/$validate" SendBundle "Observation" "$validate" Read(validating::validate);
        post "/fhir/AuditEvent/$validate" SendBundle "AuditEvent" "$validate" Read(validating::validate);
        post "/fhir/Consent/$validate" SendBundle "Consent" "$validate" Read(validating::validate);
        get "/fhir/$export" ReadChart "" "$export" Read(export::system);
        get "/fhir/Patient/$export" ReadChart "Patient" "$export" Read(export::patients);
        get "/fhir/Group/{id}/$export" ReadChart "Group" "$export" Read(export::group);
        get "/fhir/$export-status/{id}" ReadChart "" "$export-status" Read(export::status);
        delete "/fhir/$export-status/{id}" ReadChart "" "$export-status" Read(export::delete);
        get "/fhir/$export-file/{id}" ReadChart "" "$export-file" Write(export::download);
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
        Method::PUT => MethodFilter::PUT,
        Method::DELETE => MethodFilter::DELETE,
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
            let caller = Caller::of(request.headers(), request.extensions());
            let access = door.access(&web, &caller, &request.headers().clone(), peer).await?;
            let access = consents::for_purpose(access, request.headers())?;
            let is_export = interaction.code.starts_with("$export");
            Some(if is_export { access.disclosing() } else { access })
        }
    };
    if let Some(access) = &access {
        permitted_to(&web, access, &interaction).await?;
    }
    let call = Call::read(&web, door, access, &interaction, request).await?;
    let is_pretty = call.is_pretty;
    let view = View::of(&call.params).map_err(Refusal::bad_request)?;
    let headers = (interaction.code == "read").then(|| call.headers.clone());
    let mut answer = match interaction.handler {
        Handler::Read(read) => blocking(&web, move |web| read(web, &call)).await?,
        Handler::Write(write) => write(web, Arc::new(call)).await?,
    };
    if headers.is_some_and(|headers| answer.is_known(&headers)) {
        return Ok(Answer { body: None, ..answer.status(StatusCode::NOT_MODIFIED) });
    }
    if let Some(body) = &mut answer.body {
        view.cut(body);
    }
    Ok(Answer { is_pretty, ..answer })
}

/// Whether whoever asks may do that; a refusal is recorded.
async fn permitted_to(web: &Arc<Web>, access: &Access, interaction: &Interaction) -> Result<(), Refusal> {
    let Err(refusal) = decided(access, interaction) else { return Ok(()) };
    let act = refused_act(access, interaction);
    blocking(web, move |web| refused(web, act)).await?;
    Err(refusal)
}

/// What policies and scopes say of an interaction as such.
fn decided(access: &Access, interaction: &Interaction) -> Result<(), Refusal> {
    if !access.holds(interaction.permission) {
        return Err(Refusal::forbidden("your role does not permit this"));
    }
    let reaches = |ceiling: &Ceiling| !ceiling.reach(interaction.resource, interaction.what()).is_nothing();
    if interaction.is_scoped() && access.ceiling().is_some_and(|ceiling| !reaches(ceiling)) {
        return Err(Refusal::insufficient_scope(format!(
            "the scopes do not reach {} of {}",
            interaction.code, interaction.resource
        )));
    }
    Ok(())
}

/// As [`permitted_to`], for an entry of a Bundle.
async fn permitted(web: &Arc<Web>, call: &Call, interaction: &Interaction) -> Result<(), Refusal> {
    match interaction.permission {
        Permission::Open => Ok(()),
        _ => permitted_to(web, call.access()?, interaction).await,
    }
}

/// As [`permitted`], off the async threads.
fn permitted_now(web: &Web, call: &Call, interaction: &Interaction) -> Result<(), Refusal> {
    let access = call.access()?;
    let Err(refusal) = decided(access, interaction) else { return Ok(()) };
    refused(web, refused_act(access, interaction))?;
    Err(refusal)
}

fn refused_act(access: &Access, interaction: &Interaction) -> Act {
    let what = format!("{} {}", interaction.method, interaction.path);
    access.refused_act(interaction.permission, "FHIR interaction", &what)
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
