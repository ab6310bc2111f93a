//! Tests of the FHIR codecs from outside: vectors, mutations, snapshots, round trips, frames, searches.

mod frames;
mod mutations;
mod render;
mod round_trip;
mod search;
mod support;
mod vectors;
