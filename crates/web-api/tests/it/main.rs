//! The web side over a real site and store: sessions, permissions, the JSON API, live events, FHIR and ingest.

#[macro_use]
#[path = "../../../pipeline/tests/it/kept.rs"]
mod kept;

mod addresses;
mod assigning;
mod audit;
mod bombs;
mod care;
mod clinic;
mod consents;
mod coverage;
mod downloads;
mod enrol;
mod fhir;
mod ingest;
mod keeping_out;
mod live;
mod looks;
mod oauth;
mod oidc;
mod passkeys;
mod people;
mod recorded;
mod rights;
mod sessions;
mod smuggling;
mod strangers;
mod wards;
mod waveforms;
