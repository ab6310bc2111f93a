//! How bytes move: the MQTT ingest endpoint over mutual TLS.

pub mod mqtt;
