//! The web side over a real site and store: sessions, permissions, the JSON API, live events, FHIR and ingest.

mod clinic;
mod coverage;
mod fhir;
mod ingest;
mod live;
mod sessions;
mod smuggling;
mod wards;
mod waveforms;
