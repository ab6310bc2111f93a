//! The CapabilityStatement: what the FHIR interface can do, taken from the same tables that the searches use.

use clinical_model::Timestamp;
use serde_json::{Value, json};

use super::search::{
    AUDIT_PARAMETERS, DEVICE_PARAMETERS, OBSERVATION_PARAMETERS, PATIENT_PARAMETERS, Parameter,
};
use super::{FHIR_VERSION, MEDIA_TYPE, system};

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
    /// Which resources are served.
    pub resources: Vec<CapabilityResource>,
}

/// One resource that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityResource {
    /// Observation, Patient, Device, Location, AuditEvent.
    pub kind: &'static str,
    /// `read`, `create`, `update`, `search-type` …
    pub interactions: Vec<&'static str>,
    /// Operations by name and address of their definition: `lastn`.
    pub operations: Vec<(&'static str, &'static str)>,
}

/// The operation `$lastn` as FHIR defines it.
pub const LASTN: (&str, &str) = ("lastn", "http://hl7.org/fhir/OperationDefinition/Observation-lastn");

impl CapabilityResource {
    /// What the product serves: the default of [`CapabilityInput::resources`].
    pub fn standard() -> Vec<CapabilityResource> {
        let resource = |kind, interactions: &[&'static str], operations: &[(&'static str, &'static str)]| {
            CapabilityResource { kind, interactions: interactions.to_vec(), operations: operations.to_vec() }
        };
        vec![
            resource("Observation", &["read", "create", "search-type"], &[LASTN]),
            resource("Patient", &["read", "create", "update", "search-type"], &[]),
            resource("Device", &["read", "create", "update", "search-type"], &[]),
            resource("Location", &["read"], &[]),
            resource("AuditEvent", &["read", "search-type"], &[]),
        ]
    }
}

/// The parameters of a search for resources of that type.
pub fn parameters_of(kind: &str) -> &'static [Parameter] {
    match kind {
        "Observation" => OBSERVATION_PARAMETERS,
        "Patient" => PATIENT_PARAMETERS,
        "Device" => DEVICE_PARAMETERS,
        "AuditEvent" => AUDIT_PARAMETERS,
        _ => &[],
    }
}

/// Renders the statement.
pub fn capability_statement(input: &CapabilityInput) -> Value {
    json!({
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
            "security": { "cors": false, "description": input.security_description },
            "resource": input.resources.iter().map(resource).collect::<Vec<_>>(),
            "interaction": [{ "code": "transaction" }, { "code": "batch" }],
        }],
    })
}

fn resource(resource: &CapabilityResource) -> Value {
    let interactions: Vec<Value> = resource.interactions.iter().map(|code| json!({ "code": code })).collect();
    let mut rendered = json!({
        "type": resource.kind,
        "versioning": "versioned",
        "interaction": interactions,
    });
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
        .filter(|(name, _, _)| searches && !matches!(*name, "_sort" | "_count" | "_cursor"))
        .map(|(name, kind, text)| json!({ "name": name, "type": kind, "documentation": text }))
        .collect();
    if !parameters.is_empty() {
        rendered["searchParam"] = Value::Array(parameters);
    }
    if !resource.operations.is_empty() {
        rendered["operation"] = resource
            .operations
            .iter()
            .map(|(name, definition)| json!({ "name": name, "definition": definition }))
            .collect();
    }
    rendered
}
