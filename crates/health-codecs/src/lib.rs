//! What hospitals say: FHIR R4 in and out.
//!
//! Pure functions: no I/O, no clock, no random numbers. Ids and times arrive as arguments.

pub mod fhir;
