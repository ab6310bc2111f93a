//! The MQTT ingest endpoint: MQTT 3.1.1 and 5.0 over mutual TLS, acknowledged when it is on disk.
//!
//! It is an endpoint, not a broker: devices publish to us, nobody publishes to anybody else. A PUBACK
//! (QoS 1) or PUBREC (QoS 2) means that the frame is on stable storage, and acknowledgements leave in
//! the order in which the messages came [MQTT-4.6.0-2, MQTT-4.6.0-3].
//!
//! | Topic | Who may | What it does |
//! |---|---|---|
//! | `auscult/v1/<device>/envelope`, `…/fhir`, `…/gatt/2a35` | publish: the device itself, or a program | a frame for intake |
//! | `auscult/v1/<device>/status` (`online`, `offline`) | publish and will: the same | tells the live screens |
//! | `auscult/v1/<device>/command` | subscribe: the device itself | commands, QoS 0 or 1 |
//!
//! **Repeats.** The packet ids of QoS 2 messages that were received and not yet released are kept while
//! the session lives (in memory, at most [`limits::MAX_SESSION_EXPIRY_S`] after the connection), so that
//! a message repeated within its session is submitted once. After a restart of the server there is no
//! session: CONNACK says so, the client sends again, and the readings' own identity makes the second
//! copy harmless.
//!
//! | Module | Holds |
//! |---|---|
//! | [`limits`] | every bound of this endpoint |
//! | [`topic`] | what a topic means and who may use it |
//! | `strict` | the form of packets, as the specification demands it |
//! | `wire` | packets of both versions behind one face |
//! | `protocol` | the state machine of one connection: bytes in, requests out; no I/O, no clock |
//! | `sessions` | what outlives a connection; one connection a client |
//! | `connection` | one connection: socket, timers, intake |
//! | `server` | accepting, TLS, stopping |

mod connection;
pub mod limits;
mod protocol;
mod server;
mod sessions;
mod strict;
pub mod topic;
mod wire;

pub use server::{MqttOptions, serve};
