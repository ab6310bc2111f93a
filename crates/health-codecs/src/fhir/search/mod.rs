//! FHIR search parameters as typed filters: nothing is ignored, what is not supported is refused by name.
//!
//! A repeated parameter means *and*, a comma *or*. Values that are well-formed but cannot match anything here (an id
//! of another form, an unknown code) give a filter that matches nothing, as FHIR wants it, and not an error.

mod consents;
mod date;
mod observation;
mod operations;
mod params;
mod query;
mod records;

pub use consents::{CONSENT_PARAMETERS, ConsentSearch, parse_consent_search};
pub use date::{DateFilter, Prefix, bounds};
pub use observation::{
    LastnSearch, OBSERVATION_PARAMETERS, ObservationSearch, ObservationStatus, Sort, ValueFilter,
    parse_lastn, parse_observation_search,
};
pub use operations::{
    EverythingRequest, ExportRequest, Statistic, StatsRequest, TrendRequest, Wanted, When,
    parameters_as_pairs, parse_everything, parse_export, parse_stats, parse_trend,
};
pub use params::Token;
pub use query::{
    CHAIN_LIMIT, Chain, Handling, Has, Include, Query, REFERENCES, Reference, ResourceType, Total,
    parse_query, references_from, reverse_of,
};
pub use records::{
    AUDIT_PARAMETERS, AuditSearch, DEVICE_PARAMETERS, DeviceSearch, LOCATION_PARAMETERS, LocationSearch,
    PATIENT_PARAMETERS, PatientSearch, parse_audit_search, parse_device_search, parse_location_search,
    parse_patient_search,
};

/// Most results of one page; a larger `_count` is cut to it, as FHIR allows.
pub const COUNT_LIMIT: u16 = 1_000;

/// Parameters of one search: more than this is no query of a person or a program.
pub const PARAMETER_LIMIT: usize = 50;

/// Alternatives (commas) of one parameter.
pub const ALTERNATIVE_LIMIT: usize = 200;

/// Bytes of one parameter's value.
pub const VALUE_LIMIT_BYTES: usize = 8_192;

/// A search parameter that is supported: name, type (`token`, `date`, `reference`, `string`, `number`), meaning.
pub type Parameter = (&'static str, &'static str, &'static str);

/// The parameters of a search for resources of that type.
pub fn parameters_of(kind: &str) -> &'static [Parameter] {
    match kind {
        "Observation" => OBSERVATION_PARAMETERS,
        "Patient" => PATIENT_PARAMETERS,
        "Device" => DEVICE_PARAMETERS,
        "Location" => LOCATION_PARAMETERS,
        "AuditEvent" => AUDIT_PARAMETERS,
        "Consent" => CONSENT_PARAMETERS,
        _ => &[],
    }
}
