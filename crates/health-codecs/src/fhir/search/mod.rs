//! FHIR search parameters as typed filters: nothing is ignored, what is not supported is refused by name.
//!
//! A repeated parameter means *and*, a comma *or*. Values that are well-formed but cannot match anything here (an id
//! of another form, an unknown code) give a filter that matches nothing, as FHIR wants it, and not an error.

mod date;
mod observation;
mod params;
mod records;

pub use date::{DateFilter, Prefix, bounds};
pub use observation::{
    LastnSearch, OBSERVATION_PARAMETERS, ObservationSearch, ObservationStatus, Sort, parse_lastn,
    parse_observation_search,
};
pub use params::Token;
pub use records::{
    AUDIT_PARAMETERS, AuditSearch, DEVICE_PARAMETERS, DeviceSearch, PATIENT_PARAMETERS, PatientSearch,
    parse_audit_search, parse_device_search, parse_patient_search,
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
