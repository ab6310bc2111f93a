//! FHIR R4 (4.0.1) as JSON: what we render for the chart, and what we accept from programs.
//!
//! Reading order: [`system`] and [`outcome`], then [`observation`] (readings out), [`sampled`] (waveforms out),
//! the records ([`patient`], [`device`], [`location`], [`audit_event`]), [`bundle`], [`capability`];
//! for input [`json`], [`validate`], [`foreign`]; for queries [`search`].
//!
//! Numbers are written with exactly the digits that the device sent (FHIR R4 §2.24.0.1 makes the precision of a
//! decimal part of its meaning).

pub mod audit_event;
pub mod bundle;
pub mod capability;
pub mod consent;
pub mod device;
pub mod foreign;
pub mod history;
pub mod json;
pub mod location;
pub mod observation;
pub mod outcome;
pub mod patient;
pub mod sampled;
pub mod search;
pub mod statistics;
pub mod system;
pub mod trend;
pub mod validate;
pub mod validating;
pub mod view;
pub mod watch;

mod element;
mod period;

pub use bundle::{batch_response, searchset, transaction_response};
pub use capability::capability_statement;
pub use foreign::{decode_frame, read_frame};
pub use outcome::{IssueCode, OutcomeIssue, Severity, operation_outcome};

use clinical_model::Timestamp;
use serde_json::Value;

/// The media type of FHIR JSON.
pub const MEDIA_TYPE: &str = "application/fhir+json";

/// The version of FHIR that is spoken here.
pub const FHIR_VERSION: &str = "4.0.1";

/// Sets `meta.versionId` and `meta.lastUpdated` of a rendered resource, for records that are kept in versions.
pub fn with_version(mut resource: Value, version: u64, last_updated: Timestamp) -> Value {
    if let Some(fields) = resource.as_object_mut() {
        let meta = fields.entry("meta").or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Some(meta) = meta.as_object_mut() {
            meta.insert("versionId".into(), Value::String(version.to_string()));
            meta.insert("lastUpdated".into(), Value::String(last_updated.to_rfc3339()));
        }
    }
    resource
}
