//! How a device speaks: MQTT 3.1.1 or 5 over TLS with its own certificate, or HTTPS with the same.

pub mod enrol;
mod https;
mod link;
mod publisher;

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

pub use https::{HttpsDevice, HttpsError, Posted};
pub use link::ConnectError;
pub use publisher::{Acked, Closed, Pending, Publisher};

/// Most times that one message is sent; a server that closes the connection at it every time never takes it.
pub const MAX_SENDS: u32 = 100;
/// Most messages of one device that wait for their acknowledgement, where nothing else is asked for.
pub const DEFAULT_WINDOW: u16 = 64;
/// Messages from the server that wait to be looked at; the oldest ones stay, later ones are dropped and counted.
pub const INCOMING_LIMIT: usize = 64;
/// Longest wait for TCP, for TLS and for the answer to CONNECT, each.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for one write; a peer that takes nothing for so long is gone.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for the answer to a ping.
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest packet that is taken from the server, in bytes: commands are small.
pub const MAX_INCOMING_PACKET_BYTES: u32 = 256 * 1024;

/// Version of the MQTT protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum MqttVersion {
    /// MQTT 3.1.1 (OASIS, 2014).
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.0 (OASIS, 2019).
    #[serde(rename = "5")]
    V5,
}

/// What the sender asks of delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Qos {
    /// 0: at most once, never acknowledged.
    AtMostOnce,
    /// 1: at least once.
    AtLeastOnce,
    /// 2: exactly once.
    ExactlyOnce,
}

/// A message on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The bytes.
    pub payload: Arc<[u8]>,
    /// What is asked of delivery.
    pub qos: Qos,
    /// Whether the server keeps it for later subscribers.
    pub retain: bool,
}

impl Message {
    /// A message that is not retained.
    pub fn new(topic: impl Into<String>, payload: impl Into<Arc<[u8]>>, qos: Qos) -> Self {
        Message { topic: topic.into(), payload: payload.into(), qos, retain: false }
    }
}

/// What happens when the connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// Nothing: what was not acknowledged is reported as lost.
    Never,
    /// The connection is made again and what was not acknowledged is sent again.
    BackOff {
        /// First wait; doubled after each failure, with up to a quarter added so that devices do not come in step.
        first: Duration,
        /// Longest wait.
        longest: Duration,
        /// Failures in a row after which it gives up.
        attempts: u32,
    },
}

impl Reconnect {
    /// For devices of the demo: from a quarter of a second to ten seconds, for about three hours.
    pub const PATIENT: Reconnect = Reconnect::BackOff {
        first: Duration::from_millis(250),
        longest: Duration::from_secs(10),
        attempts: 1_000,
    };

    /// For tests that kill the server and start it again: from 50 ms to half a second, for about eight minutes.
    pub const EAGER: Reconnect = Reconnect::BackOff {
        first: Duration::from_millis(50),
        longest: Duration::from_millis(500),
        attempts: 1_000,
    };
}

/// Where and how a device connects.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// `host:port` of the MQTT port.
    pub address: String,
    /// The name that the server's certificate must carry.
    pub server_name: ServerName<'static>,
    /// TLS with the device's certificate.
    pub tls: Arc<ClientConfig>,
    /// Client identifier; for a device of ours its id.
    pub client_id: String,
    /// Version of the protocol.
    pub version: MqttVersion,
    /// Longest silence towards the server, in seconds; 0 for no limit.
    pub keep_alive_s: u16,
    /// What the server publishes when this connection breaks.
    pub will: Option<Message>,
    /// What is published first on every connection ("online").
    pub announce: Option<Message>,
    /// Topic filters to subscribe to on every connection, with QoS 1.
    pub subscribe: Vec<String>,
    /// Most messages that wait for their acknowledgement, at least 1.
    pub window: u16,
    /// What happens when the connection breaks.
    pub reconnect: Reconnect,
    /// Whether a message that is sent again carries the DUP flag; over a new session it need not (MQTT 5.0, 3.3.1.1).
    pub mark_resent: bool,
}

impl ConnectOptions {
    /// MQTT 5, keep-alive 30 s, no will, [`DEFAULT_WINDOW`], [`Reconnect::PATIENT`], resent messages marked.
    pub fn new(
        address: impl Into<String>,
        server_name: ServerName<'static>,
        tls: Arc<ClientConfig>,
        client_id: impl Into<String>,
    ) -> Self {
        ConnectOptions {
            address: address.into(),
            server_name,
            tls,
            client_id: client_id.into(),
            version: MqttVersion::V5,
            keep_alive_s: 30,
            will: None,
            announce: None,
            subscribe: Vec::new(),
            window: DEFAULT_WINDOW,
            reconnect: Reconnect::PATIENT,
            mark_resent: true,
        }
    }
}
