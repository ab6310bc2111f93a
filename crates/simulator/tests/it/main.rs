//! The device clients, the load and the play against a small MQTT and HTTPS peer with real TLS.

mod https;
mod mqtt;
mod peer;
mod play;
