//! Load with a ledger: unique readings from many connections, each acknowledged one written down outside the server.
//!
//! After a crash of the server, every line of the ledger must be found in the chart: the server said it was safe.

mod figures;
mod ledger;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clinical_model::measure::HEART_RATE;
use clinical_model::{DeviceId, FrameKind, Timestamp};
use futures_util::{StreamExt as _, TryStreamExt as _};
use rustls_pki_types::ServerName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use figures::{Figures, Latency};
pub use ledger::{LedgerError, LedgerLine, read_ledger};

use crate::client::{ConnectError, ConnectOptions, MqttVersion, Publisher, Qos, Reconnect};
use crate::play::Credentials;
use figures::Recorder;
use ledger::Ledger;

/// Most readings of one message: what the envelope takes.
pub const MAX_BATCH: usize = 10_000;
/// Acknowledgements that wait for the ledger; beyond it the connections wait, so that nothing is lost or piles up.
const LEDGER_QUEUE: usize = 4_096;

/// Connections that are being made at the same time: more would wait for the processor and time out.
const HANDSHAKES_AT_ONCE: usize = 16;

/// What load to make.
#[derive(Clone, Debug)]
pub struct Load {
    /// The devices that send, one connection each.
    pub devices: Vec<DeviceId>,
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
}

impl Load {
    /// `devices`, one reading a message, QoS 1 over MQTT 5, unlimited, window 64, ten seconds, no ledger.
    pub fn new(devices: Vec<DeviceId>) -> Self {
        Load {
            devices,
            batch: 1,
            qos: Qos::AtLeastOnce,
            version: MqttVersion::V5,
            rate_per_s: None,
            window: 64,
            duration: Some(Duration::from_secs(10)),
            ledger: None,
            reconnect: Reconnect::PATIENT,
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
    /// The ledger cannot be written.
    #[error("the ledger cannot be written; what was acknowledged is not known for sure")]
    Ledger(#[from] LedgerError),
}

/// Makes the load and returns what was measured.
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
    mqtt: &str,
    server_name: ServerName<'static>,
    credentials: Credentials,
    shutdown: CancellationToken,
) -> Result<Figures, LoadError> {
    let publishers = connect(load, mqtt, &server_name, &credentials).await?;
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
    for (number, (device, publisher)) in publishers.into_iter().enumerate() {
        let sender = Sender {
            device,
            publisher,
            batch: load.batch.clamp(1, MAX_BATCH),
            qos: load.qos,
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
    mqtt: &str,
    server_name: &ServerName<'static>,
    credentials: &Credentials,
) -> Result<Vec<(DeviceId, Publisher)>, LoadError> {
    let opening = load.devices.iter().map(|device| async move {
        let device = *device;
        let tls = credentials(device).ok_or(LoadError::NoCredentials { device })?;
        let mut options = ConnectOptions::new(mqtt, server_name.clone(), tls, device.to_string());
        options.version = load.version;
        options.window = load.window;
        options.reconnect = load.reconnect;
        let publisher = Publisher::connect(options).await;
        publisher.map(|publisher| (device, publisher)).map_err(|source| LoadError::Connect { device, source })
    });
    futures_util::stream::iter(opening).buffered(HANDSHAKES_AT_ONCE).try_collect().await
}

/// One message and its fate.
pub(crate) struct Outcome {
    device: DeviceId,
    readings: Vec<(Timestamp, u32, i32)>,
    latency: Duration,
    fate: Fate,
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
        recorder.note(outcome.fate, outcome.latency);
        if let (Fate::Acked { .. }, Some(ledger), None) = (outcome.fate, &mut ledger, &failure)
            && let Err(error) = ledger.append(outcome.device, &outcome.readings, queue.is_empty()).await
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

struct Sender {
    device: DeviceId,
    publisher: Publisher,
    batch: usize,
    qos: Qos,
    pace: Option<Duration>,
    offset: Duration,
    began: Instant,
    until: Option<Instant>,
    acks: mpsc::Sender<Outcome>,
    stop: CancellationToken,
}

impl Sender {
    async fn run(self) {
        let topic = format!("auscult/v1/{}/{}", self.device, FrameKind::Envelope);
        let mut open = JoinSet::new();
        let mut sequence = 0u32;
        let mut message = 0u32;
        let mut last = Timestamp::MIN;
        while !self.stop.is_cancelled() && self.until.is_none_or(|until| Instant::now() < until) {
            let due = self.pace.map(|pace| self.began + self.offset + pace * message);
            if let Some(due) = due {
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.stop.cancelled() => break,
                }
            }
            message = message.wrapping_add(1);
            let readings = self.readings(&mut last, &mut sequence);
            let frame = envelope(&readings);
            // A server that is down must not keep the load from ending.
            let published = tokio::select! {
                published = self.publisher.publish(topic.clone(), frame.into_bytes(), self.qos) => published,
                () = self.stop.cancelled() => break,
            };
            let Ok(pending) = published else { break };
            // A paced message counts from when it was due, or a server that falls behind would look fast.
            let sent = due.unwrap_or_else(Instant::now);
            let (acks, device) = (self.acks.clone(), self.device);
            // The publisher's window bounds how many of these are open.
            open.spawn(async move {
                let fate = match pending.await {
                    Ok(acked) if acked.is_refused() => Fate::Refused,
                    Ok(acked) => Fate::Acked { resent: acked.resent },
                    Err(_) => Fate::Lost,
                };
                let latency = sent.elapsed();
                // The writer outlives all senders.
                let _ = acks.send(Outcome { device, readings, latency, fate }).await;
            });
            while open.try_join_next().is_some() {}
        }
        let finished = async { while open.join_next().await.is_some() {} };
        tokio::select! {
            () = finished => {}
            () = self.stop.cancelled() => {}
        }
        self.publisher.disconnect().await;
        // What is still open ends as lost, and is counted so.
        while open.join_next().await.is_some() {}
    }

    fn readings(&self, last: &mut Timestamp, sequence: &mut u32) -> Vec<(Timestamp, u32, i32)> {
        (0..self.batch)
            .map(|_| {
                let now = Timestamp::from_micros(micros_now());
                *last = if now > *last { now } else { last.plus_micros(1) };
                let reading = (*last, *sequence, rate_of(*sequence));
                *sequence = sequence.wrapping_add(1);
                reading
            })
            .collect()
    }
}

fn micros_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The heart rate of a sequence number: up and down between 60 and 120 by one, so that no change is odd.
fn rate_of(sequence: u32) -> i32 {
    let turn = (sequence % 120) as i32;
    if turn < 60 { 60 + turn } else { 180 - turn }
}

/// The envelope of a batch, written by hand: the load must not measure its own encoder.
fn envelope(readings: &[(Timestamp, u32, i32)]) -> String {
    // Longest entry, with room to spare.
    let mut text = String::with_capacity(readings.len() * 112 + 16);
    if readings.len() != 1 {
        text.push_str("{\"readings\":[");
    }
    let (mut second, mut date_time) = (i64::MIN, String::new());
    for (index, (at, sequence, value)) in readings.iter().enumerate() {
        if at.as_seconds() != second {
            second = at.as_seconds();
            date_time = Timestamp::from_seconds(second).to_rfc3339().trim_end_matches('Z').to_owned();
        }
        let micros = at.as_micros().rem_euclid(1_000_000);
        let comma = if index == 0 { "" } else { "," };
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "{comma}{{\"measure\":\"{}\",\"value\":{value},\"unit\":\"{}\",\
             \"time\":\"{date_time}.{micros:06}Z\",\"sequence\":{sequence}}}",
            HEART_RATE.name, HEART_RATE.unit
        );
    }
    if readings.len() != 1 {
        text.push_str("]}");
    }
    text
}

#[cfg(test)]
mod tests {
    use clinical_model::{Decimal, Decoded, DecodedValue, DeviceTime};
    use device_codecs::decode;

    use super::*;

    fn check(readings: &[(Timestamp, u32, i32)]) {
        let frame = decode(FrameKind::Envelope, envelope(readings).as_bytes());
        assert_eq!(frame.entries.len(), readings.len());
        for (entry, (at, sequence, value)) in frame.entries.into_iter().zip(readings) {
            let decoded = entry.result.unwrap();
            let [Decoded::Scalar(scalar)] = &decoded[..] else { panic!("{decoded:?}") };
            assert_eq!(scalar.time, DeviceTime::Utc(*at));
            assert_eq!((scalar.measure, scalar.sequence), (HEART_RATE, *sequence));
            assert_eq!(scalar.value, DecodedValue::Number(Decimal::from_integer(*value)));
        }
    }

    #[test]
    fn what_is_sent_is_what_the_ledger_will_say() {
        let at = Timestamp::from_micros(1_790_000_000_999_999);
        check(&[(at, 7, 67)]);
        check(&[(at, 0, 60), (at.plus_micros(1), 1, 61), (at.plus_micros(2_000_000), 2, 62)]);
    }

    #[test]
    fn heart_rates_change_by_one() {
        assert_eq!((rate_of(0), rate_of(60), rate_of(119), rate_of(120)), (60, 120, 61, 60));
        assert!((0..500).all(|sequence| (rate_of(sequence + 1) - rate_of(sequence)).abs() == 1));
    }
}
