//! Golden vectors, round trips and laws of the device codecs.

mod envelope_laws;
mod gatt_laws;
mod json;
mod snapshots;
mod vectors;
