//! The CapabilityStatement: what the FHIR interface can do, taken from the same tables that the searches use.

use clinical_model::Timestamp;
use serde_json::{Value, json};

use super::search::{ResourceType, parameters_of, references_from, reverse_of};
use super::{FHIR_VERSION, MEDIA_TYPE, system};

/// The code system of ways to prove who one is.
const SECURITY_SERVICE: &str = "http://terminology.hl7.org/CodeSystem/restful-security-service";
/// The extension that names the endpoints of the authorisation server.
const OAUTH_URIS: &str = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris";

/// What the statement is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityInput {
    /// Absolute address of the interface.
    pub base_url: String,
    /// Version of the software.
    pub software_version: String,
    /// When the software was built or started.
    pub at: Timestamp,
    /// How a caller proves who it is, in one sentence.
    pub security_description: String,
    /// Address of the authorisation server of SMART App Launch, without a slash at the end; the endpoints lie under it.
    pub authorization_server: Option<String>,
    /// Which resources are served.
    pub resources: Vec<CapabilityResource>,
    /// Operations of the whole system, by name.
    pub operations: Vec<&'static str>,
}

/// One resource that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityResource {
    /// Observation, Patient, Device, Location, AuditEvent.
    pub kind: &'static str,
    /// `read`, `create`, `update`, `search-type` …
    pub interactions: Vec<&'static str>,
    /// Operations by name: `lastn`.
    pub operations: Vec<&'static str>,
}

/// The address of the definition of an operation, by the type it belongs to (empty for the system) and its name.
fn definition_of(kind: &str, name: &str) -> String {
    match (kind, name) {
        ("", "export") => "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export".to_owned(),
        (kind, "export") => {
            format!("http://hl7.org/fhir/uv/bulkdata/OperationDefinition/{}-export", kind.to_lowercase())
        }
        (_, "validate") => "http://hl7.org/fhir/OperationDefinition/Resource-validate".to_owned(),
        // Our own.
        (_, "trend") => "urn:auscult:operation:trend".to_owned(),
        (kind, name) => format!("http://hl7.org/fhir/OperationDefinition/{kind}-{name}"),
    }
}

impl CapabilityResource {
    /// What the product serves: the default of [`CapabilityInput::resources`].
    pub fn standard() -> Vec<CapabilityResource> {
        let resource = |kind, interactions: &[&'static str], operations: &[&'static str]| {
            CapabilityResource { kind, interactions: interactions.to_vec(), operations: operations.to_vec() }
        };
        vec![
            resource("Observation", &["read", "create", "search-type"], &["lastn", "stats", "trend"]),
            resource("Patient", &["read", "create", "update", "search-type"], &[]),
            resource("Device", &["read", "create", "update", "search-type"], &[]),
            resource("Location", &["read"], &[]),
            resource("AuditEvent", &["read", "search-type"], &[]),
        ]
    }
}

/// Renders the statement.
pub fn capability_statement(input: &CapabilityInput) -> Value {
    let mut statement = json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": input.at.to_rfc3339(),
        "kind": "instance",
        "fhirVersion": FHIR_VERSION,
        "format": [MEDIA_TYPE, "json"],
        "software": { "name": "Auscult", "version": input.software_version },
        "implementation": { "description": "Auscult", "url": input.base_url },
        "rest": [{
            "mode": "server",
            "security": security(input),
            "resource": input.resources.iter().map(resource).collect::<Vec<_>>(),
            "interaction": [{ "code": "transaction" }, { "code": "batch" }],
        }],
    });
    let operations =
        input.operations.iter().map(|name| json!({ "name": name, "definition": definition_of("", name) }));
    put_list(&mut statement["rest"][0], "operation", operations.collect());
    statement
}

/// How callers prove who they are. The extension is that of SMART App Launch 1, which many clients still read first.
fn security(input: &CapabilityInput) -> Value {
    let mut rendered = json!({ "cors": false, "description": input.security_description });
    if let Some(server) = &input.authorization_server {
        rendered["cors"] = json!(true);
        rendered["service"] = json!([{
            "coding": [{ "system": SECURITY_SERVICE, "code": "SMART-on-FHIR" }],
            "text": "OAuth2 using SMART-on-FHIR profile (see http://docs.smarthealthit.org)",
        }]);
        let endpoint = |name: &str| json!({ "url": name, "valueUri": format!("{server}/oauth2/{name}") });
        let endpoints: Vec<Value> = ["authorize", "token", "introspect", "revoke"].map(endpoint).into();
        rendered["extension"] = json!([{ "url": OAUTH_URIS, "extension": endpoints }]);
    }
    rendered
}

fn put_list(rendered: &mut Value, name: &str, items: Vec<Value>) {
    if !items.is_empty() {
        rendered[name] = Value::Array(items);
    }
}

fn resource(resource: &CapabilityResource) -> Value {
    let interactions: Vec<Value> = resource.interactions.iter().map(|code| json!({ "code": code })).collect();
    let mut rendered = json!({
        "type": resource.kind,
        "versioning": "versioned",
    });
    put_list(&mut rendered, "interaction", interactions);
    if resource.kind == "Observation" {
        rendered["supportedProfile"] =
            ["heartrate", "resprate", "oxygensat", "bodytemp", "bp", "bodyweight", "bodyheight", "bmi"]
                .iter()
                .map(|name| json!(format!("{}{name}", system::PROFILE_BASE)))
                .collect();
    }
    let searches = resource.interactions.contains(&"search-type");
    // _sort, _count and _cursor shape the answer; they are no search parameters of the resource.
    let parameters: Vec<Value> = parameters_of(resource.kind)
        .iter()
        .filter(|(name, _, _)| {
            searches && !matches!(*name, "_sort" | "_count" | "_cursor") && !name.contains(':')
        })
        .map(|(name, kind, text)| json!({ "name": name, "type": kind, "documentation": text }))
        .collect();
    if !parameters.is_empty() {
        rendered["searchParam"] = Value::Array(parameters);
    }
    let of_type = ResourceType::by_name(resource.kind).filter(|_| searches);
    let written = |source: ResourceType, name: &str| json!(format!("{}:{name}", source.name()));
    if let Some(kind) = of_type {
        let includes = references_from(kind).map(|each| written(each.source, each.name)).collect();
        put_list(&mut rendered, "searchInclude", includes);
        let reverse = reverse_of(kind).map(|each| written(each.source, each.name)).collect();
        put_list(&mut rendered, "searchRevInclude", reverse);
    }
    if !resource.operations.is_empty() {
        rendered["operation"] = resource
            .operations
            .iter()
            .map(|name| json!({ "name": name, "definition": definition_of(resource.kind, name) }))
            .collect();
    }
    rendered
}
