//! Load with a ledger: unique readings from many connections, each acknowledged one written down outside the server.
//!
//! After a crash of the server, every line of the ledger must be found in the chart: the server said it was safe.

mod figures;
mod ledger;
mod readings;
mod sender;

use std::path::PathBuf;
use std::time::Duration;

use clinical_model::{DeviceId, Timestamp};
use futures_util::{StreamExt as _, TryStreamExt as _};
use rustls_pki_types::ServerName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use figures::{Figures, Latency};
pub use ledger::{LedgerError, LedgerLine, read_ledger};
pub use readings::rate_of;

use crate::client::{
    ConnectError, ConnectOptions, HttpsDevice, HttpsError, MqttVersion, Publisher, Qos, Reconnect,
};
use crate::play::Credentials;
use figures::Recorder;
use ledger::Ledger;
use readings::Readings;
use sender::{Line, Sender};

/// Most readings of one message: what the envelope takes.
pub const MAX_BATCH: usize = 10_000;
/// Acknowledgements that wait for the ledger; beyond it the connections wait, so that nothing is lost or piles up.
const LEDGER_QUEUE: usize = 4_096;

/// Connections that are being made at the same time: more would wait for the processor and time out.
const HANDSHAKES_AT_ONCE: usize = 16;

/// How the devices of a load speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Over MQTT, pipelined.
    Mqtt,
    /// Over HTTPS, one post after another.
    Https,
}

/// What load to make.
#[derive(Clone, Debug)]
pub struct Load {
    /// The devices that send, one connection each.
    pub devices: Vec<DeviceId>,
    /// How they speak; for HTTPS, version, quality of service and window mean nothing.
    pub via: Via,
    /// Readings of each message, 1 to [`MAX_BATCH`].
    pub batch: usize,
    /// What is asked of delivery.
    pub qos: Qos,
    /// Version of MQTT.
    pub version: MqttVersion,
    /// Messages a second of all connections together; `None` for as fast as the server answers.
    pub rate_per_s: Option<f64>,
    /// Messages of one connection that wait for their acknowledgement.
    pub window: u16,
    /// How long; `None` until `shutdown`.
    pub duration: Option<Duration>,
    /// File that gets a line for each acknowledged reading; appended to.
    pub ledger: Option<PathBuf>,
    /// Whether connections that break are made again, and what was not acknowledged is sent again.
    pub reconnect: Reconnect,
    /// Whether what is sent again over another connection is marked as a duplicate (MQTT's DUP flag).
    pub mark_resent: bool,
    /// Sequence of each device's first reading: a later load goes on where an earlier one ended.
    pub first_sequence: u32,
    /// Every so many messages of a device, one is sent once more as a new message; 0 for never.
    pub repeat_every: u32,
    /// Measured times are shuffled within so many readings, while sequences rise; 1 for none.
    pub disorder: usize,
}

impl Load {
    /// `devices`, one reading a message, QoS 1 over MQTT 5, unlimited, window 64, ten seconds, no ledger, no repeats,
    /// in order.
    pub fn new(devices: Vec<DeviceId>) -> Self {
        Load {
            devices,
            via: Via::Mqtt,
            batch: 1,
            qos: Qos::AtLeastOnce,
            version: MqttVersion::V5,
            rate_per_s: None,
            window: 64,
            duration: Some(Duration::from_secs(10)),
            ledger: None,
            reconnect: Reconnect::PATIENT,
            mark_resent: true,
            first_sequence: 0,
            repeat_every: 0,
            disorder: 1,
        }
    }
}

/// Why a load could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A device has no certificate.
    #[error("device {device} has no certificate to connect with")]
    NoCredentials {
        /// Its id.
        device: DeviceId,
    },
    /// A device could not connect at the start.
    #[error("device {device} cannot connect")]
    Connect {
        /// Its id.
        device: DeviceId,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// A device that posts cannot be set up.
    #[error("device {device} cannot be set up")]
    Setup {
        /// Its id.
        device: DeviceId,
        /// Why.
        #[source]
        source: HttpsError,
    },
    /// The ledger cannot be written.
    #[error("the ledger cannot be written; what was acknowledged is not known for sure")]
    Ledger(#[from] LedgerError),
}

/// Makes the load over `address` (`host:port`) and returns what was measured.
///
/// Readings are heart rates whose time (whole microseconds, one apart or more) is unique within its device, also
/// across runs, because it starts at the wall clock; the value depends on the sequence, so that a mix-up shows.
/// It returns when the time is up and every message has its answer, or soon after `shutdown`; what has no answer
/// then is counted as lost.
///
/// # Errors
/// [`LoadError`].
pub async fn run(
    load: &Load,
    address: &str,
    server_name: ServerName<'static>,
    credentials: Credentials,
    shutdown: CancellationToken,
) -> Result<Figures, LoadError> {
    let lines = connect(load, address, &server_name, &credentials).await?;
    let (acks, queue) = mpsc::channel(LEDGER_QUEUE);
    let ledger = match &load.ledger {
        Some(path) => Some(Ledger::open(path).await?),
        None => None,
    };
    let stop = shutdown.child_token();
    let writer = tokio::spawn(record(queue, ledger, stop.clone()));
    let began = Instant::now();
    let pace = load
        .rate_per_s
        .filter(|rate| rate.is_finite() && *rate > 0.0)
        .map(|rate| Duration::from_secs_f64(load.devices.len() as f64 / rate));
    let mut tasks = JoinSet::new();
    for (number, (device, line)) in lines.into_iter().enumerate() {
        let sender = Sender {
            device,
            line,
            readings: Readings::new(device, load),
            repeat_every: load.repeat_every,
            reconnect: load.reconnect,
            pace,
            // Connections take turns within one pace.
            offset: pace
                .map_or(Duration::ZERO, |pace| pace.mul_f64(number as f64 / load.devices.len() as f64)),
            began,
            until: load.duration.map(|duration| began + duration),
            acks: acks.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(sender.run());
    }
    drop(acks);
    while tasks.join_next().await.is_some() {}
    let elapsed = began.elapsed();
    match writer.await {
        Ok(recorder) => Ok(recorder?.figures(load.batch.clamp(1, MAX_BATCH) as u64, elapsed)),
        // The writer never panics on its own; if it did, its panic is the answer.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Connects all devices, some at a time, in their order.
async fn connect(
    load: &Load,
    address: &str,
    server_name: &ServerName<'static>,
    credentials: &Credentials,
) -> Result<Vec<(DeviceId, Line)>, LoadError> {
    let opening = load.devices.iter().copied().map(|device| async move {
        let tls = credentials(device).ok_or(LoadError::NoCredentials { device })?;
        if load.via == Via::Https {
            // The certificate is checked against the host of the address.
            let base = match server_name {
                ServerName::DnsName(name) => {
                    let port = address.rsplit(':').next().unwrap_or_default();
                    format!("https://{}:{port}", name.as_ref())
                }
                _ => format!("https://{address}"),
            };
            let posting = HttpsDevice::new(&base, (*tls).clone());
            return posting
                .map(|posting| (device, Line::Https(posting)))
                .map_err(|source| LoadError::Setup { device, source });
        }
        let mut options = ConnectOptions::new(address, server_name.clone(), tls, device.to_string());
        options.version = load.version;
        options.window = load.window;
        options.reconnect = load.reconnect;
        options.mark_resent = load.mark_resent;
        let publisher = Publisher::connect(options).await;
        publisher
            .map(|publisher| (device, Line::Mqtt(publisher, load.qos)))
            .map_err(|source| LoadError::Connect { device, source })
    });
    futures_util::stream::iter(opening).buffered(HANDSHAKES_AT_ONCE).try_collect().await
}

/// One message and its fate.
pub(crate) struct Outcome {
    device: DeviceId,
    readings: Vec<(Timestamp, u32, i32)>,
    latency: Duration,
    fate: Fate,
    /// When the client knew, by its own clock.
    at: Timestamp,
    /// It was sent once more on purpose: its readings are counted and written down already, or never.
    is_repeat: bool,
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Acked { resent: bool },
    Refused,
    Lost,
}

/// Writes acknowledgements down in their order of arrival; on a failure the load stops.
async fn record(
    mut queue: mpsc::Receiver<Outcome>,
    mut ledger: Option<Ledger>,
    stop: CancellationToken,
) -> Result<Recorder, LedgerError> {
    let mut recorder = Recorder::new();
    let mut failure = None;
    while let Some(outcome) = queue.recv().await {
        if outcome.is_repeat {
            continue;
        }
        recorder.note(outcome.fate, outcome.latency);
        if let (Fate::Acked { .. }, Some(ledger), None) = (outcome.fate, &mut ledger, &failure)
            && let Err(error) =
                ledger.append(outcome.device, &outcome.readings, outcome.at, queue.is_empty()).await
        {
            stop.cancel();
            failure = Some(error);
        }
    }
    if let (Some(ledger), None) = (&mut ledger, &failure) {
        ledger.flush().await?;
    }
    failure.map_or(Ok(recorder), Err)
}
