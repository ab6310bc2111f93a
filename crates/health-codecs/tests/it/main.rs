//! Tests of the FHIR codecs from outside: vectors, mutations, snapshots, round trips, frames, searches.

mod consents;
mod definitions;
mod frames;
mod mutations;
mod query;
mod render;
mod round_trip;
mod search;
mod support;
mod vectors;
