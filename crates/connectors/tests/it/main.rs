//! The MQTT endpoint over real TLS, in front of a real site on a real store.

mod abuse;
mod client;
mod conformance;
mod delivery;
mod house;
mod lifetime;
mod load;
mod real_clients;
