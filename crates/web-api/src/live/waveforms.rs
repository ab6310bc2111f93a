//! Live waveforms over WebSocket: binary blocks, the latest wins, gaps are told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use clinical_model::validation::CLOCK_AHEAD_REMARKED;
use clinical_model::{DeviceId, Measure, MeasureKind, PatientId, Timestamp, Waveform};
use serde::{Deserialize, Serialize};
use store::AuditAction;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access::{LOOK_LASTS, Permit, STREAM_LASTS, may};
use crate::problem::{Code, Problem};
use crate::serve::Stopping;
use crate::session::Current;
use crate::state::Web;

/// Channels of one connection: a ward of sixty beds with two strips each.
const CHANNEL_LIMIT: usize = 128;
/// Largest message of a client, in bytes: a list of subscriptions.
const CLIENT_MESSAGE_LIMIT_BYTES: usize = 32 << 10;
/// Blocks that may wait for one slow reader; older ones are dropped by the hub and the gap is told.
const WAITING_LIMIT_BLOCKS: usize = 64;
/// A reader that takes nothing for so long is closed.
const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the session is looked at.
const SESSION_CHECK_EVERY: Duration = Duration::from_secs(5);
/// Blocks further apart than this are a gap, in microseconds: the jitter of a device's clock.
const GAP_MICROS: i64 = 20_000;
/// A channel goes over to another device of the same measure when its own has sent nothing for so long.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(5);
/// Flag of a block before which samples are missing.
const FLAG_GAP: u8 = 1;

#[derive(Deserialize)]
struct Subscribe {
    subscribe: Vec<Wanted>,
}

#[derive(Deserialize, Clone, PartialEq, Eq, Hash)]
struct Wanted {
    patient_id: PatientId,
    measure: Measure,
}

#[derive(Serialize)]
struct ChannelView {
    channel: u32,
    patient_id: PatientId,
    measure: &'static str,
    unit_display: &'static str,
    gain: f64,
    offset: f64,
}

#[derive(Serialize)]
struct Channels {
    channels: Vec<ChannelView>,
}

/// What the readers of the hub tell the connection.
enum Told {
    Block(Arc<Waveform>),
    Lost(PatientId),
}

pub(crate) async fn upgrade(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadChart>,
    Extension(current): Extension<Current>,
    stopping: Option<Extension<Stopping>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Problem> {
    if !same_origin(&headers) {
        return Err(Problem::new(Code::Forbidden, "a page of another origin may not listen here"));
    }
    let stopping = Stopping::of(stopping);
    Ok(upgrade.max_message_size(CLIENT_MESSAGE_LIMIT_BYTES).on_upgrade(move |socket| {
        Connection { web, access, current, stopping, channels: HashMap::new(), last: 0 }.run(socket)
    }))
}

/// Whether the page that opens the stream is ours. A strict same-site cookie does not keep out a page of another port of
/// the same host, and the rule that a page reads only its own origin does not hold for WebSockets. What is no browser
/// sends no origin.
fn same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let asked = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
    asked.is_some() && asked == host
}

struct Channel {
    number: u32,
    gain_offset: Option<(f64, f64)>,
    expected: Option<Timestamp>,
    /// Whose blocks it draws, and when the last of them arrived: two devices are never one curve.
    drawn: Option<(DeviceId, Timestamp)>,
    lost: bool,
}

struct Connection {
    web: Arc<Web>,
    access: Permit<may::ReadChart>,
    current: Current,
    stopping: CancellationToken,
    channels: HashMap<Wanted, Channel>,
    last: u32,
}

impl Connection {
    async fn run(mut self, mut socket: WebSocket) {
        let (teller, mut told) = mpsc::channel(WAITING_LIMIT_BLOCKS);
        let mut readers: JoinSet<()> = JoinSet::new();
        let mut check = tokio::time::interval(SESSION_CHECK_EVERY);
        loop {
            let send = tokio::select! {
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => match self.subscribe(&text).await {
                        Some(channels) => {
                            readers.abort_all();
                            readers = self.read_hub(&teller);
                            channels
                        }
                        None => break,
                    },
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Binary(_) | Message::Close(_)) | Err(_)) | None => break,
                },
                told = told.recv() => match told {
                    Some(Told::Lost(patient)) => {
                        self.mark_lost(patient);
                        continue;
                    }
                    Some(Told::Block(block)) => self.block(&block),
                    None => break,
                },
                _ = self.current.ended.changed() => break,
                () = self.stopping.cancelled() => break,
                _ = check.tick() => {
                    let watched: Vec<_> = self.channels.keys().map(|wanted| wanted.patient_id).collect();
                    if !self.web.session_runs(&self.current.hash).await
                        || !self.looks_at(watched, STREAM_LASTS).await
                    {
                        break;
                    }
                    continue;
                }
            };
            for message in send {
                match tokio::time::timeout(SLOW_READER_TIMEOUT, socket.send(message)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return,
                }
            }
        }
        // The reader may be gone already; then there is nobody to tell.
        let _ = tokio::time::timeout(SLOW_READER_TIMEOUT, socket.send(Message::Close(None))).await;
    }

    /// Replaces the subscriptions; `None` closes the connection: the request was wrong or could not be recorded.
    async fn subscribe(&mut self, text: &str) -> Option<Vec<Message>> {
        let request: Subscribe = serde_json::from_str(text).ok()?;
        if request.subscribe.len() > CHANNEL_LIMIT {
            return None;
        }
        let wanted: Vec<Wanted> = request
            .subscribe
            .into_iter()
            .filter(|one| {
                one.measure.kind == MeasureKind::Waveform
                    && self.access.sight(&self.web).measure(one.patient_id, one.measure)
            })
            .collect();
        let patients = wanted.iter().map(|one| one.patient_id).collect();
        if !self.looks_at(patients, LOOK_LASTS).await {
            return None;
        }
        let mut channels = HashMap::new();
        for one in wanted {
            let kept = self.channels.remove(&one).unwrap_or_else(|| {
                self.last += 1;
                Channel { number: self.last, gain_offset: None, expected: None, drawn: None, lost: false }
            });
            channels.insert(one, kept);
        }
        self.channels = channels;
        Some(vec![self.describe()])
    }

    /// Puts it into the log that the curves of these patients are looked at, where that is due; false where it could not be
    /// written: nothing may be shown then.
    async fn looks_at(&self, patients: Vec<PatientId>, lasts: Duration) -> bool {
        let look = self.access.act(AuditAction::Stream, "live waveforms");
        let due =
            self.access.due_looks(&self.web, &look, patients.into_iter().map(|patient| (patient, lasts)));
        due.is_empty() || matches!(self.web.blocking(move |web| due.write(web)).await, Ok(Ok(())))
    }

    fn describe(&self) -> Message {
        let mut channels: Vec<ChannelView> = self
            .channels
            .iter()
            .map(|(wanted, channel)| ChannelView {
                channel: channel.number,
                patient_id: wanted.patient_id,
                measure: wanted.measure.name,
                unit_display: wanted.measure.unit_display,
                gain: channel.gain_offset.map_or(1.0, |(gain, _)| gain),
                offset: channel.gain_offset.map_or(0.0, |(_, offset)| offset),
            })
            .collect();
        channels.sort_by_key(|view| view.channel);
        let text = serde_json::to_string(&Channels { channels }).unwrap_or_default();
        Message::Text(text.into())
    }

    /// One reader of the hub a patient. Each has its own bound: one busy patient takes nothing from the others.
    fn read_hub(&self, teller: &mpsc::Sender<Told>) -> JoinSet<()> {
        let mut readers = JoinSet::new();
        let mut patients: Vec<PatientId> = self.channels.keys().map(|wanted| wanted.patient_id).collect();
        patients.sort();
        patients.dedup();
        for patient in patients {
            let mut blocks = self.web.site.live().waveforms(patient);
            let teller = teller.clone();
            readers.spawn(async move {
                loop {
                    let told = match blocks.recv().await {
                        Ok(block) => Told::Block(block),
                        Err(RecvError::Lagged(_)) => Told::Lost(patient),
                        Err(RecvError::Closed) => return,
                    };
                    if teller.send(told).await.is_err() {
                        return;
                    }
                }
            });
        }
        readers
    }

    fn mark_lost(&mut self, patient: PatientId) {
        for (wanted, channel) in &mut self.channels {
            channel.lost |= wanted.patient_id == patient;
        }
    }

    /// The messages for one block: the description again where gain or offset changed, then the block.
    fn block(&mut self, block: &Waveform) -> Vec<Message> {
        let Some(patient_id) = block.series.subject.patient() else { return Vec::new() };
        // A patient may be moved to another ward, or say no, while somebody watches.
        if !self.access.sight(&self.web).measure(patient_id, block.series.measure) {
            return Vec::new();
        }
        let wanted = Wanted { patient_id, measure: block.series.measure };
        let Some(channel) = self.channels.get_mut(&wanted) else { return Vec::new() };
        let device = block.series.device;
        if let Some((drawn, last)) = channel.drawn
            && drawn != device
        {
            if block.received_at.duration_since(last) < TAKE_OVER_AFTER {
                return Vec::new();
            }
            channel.lost = true;
            channel.expected = None;
        }
        channel.drawn = Some((device, block.received_at));
        // A block of a clock that ran ahead must not keep those that follow from being drawn.
        let ahead = block.received_at.plus(CLOCK_AHEAD_REMARKED);
        if block.start <= ahead
            && channel.expected.is_some_and(|expected| ahead.plus(TAKE_OVER_AFTER) < expected)
        {
            channel.lost = true;
            channel.expected = None;
        }
        let apart = channel.expected.map_or(0, |expected| block.start.micros_since(expected));
        if apart < -GAP_MICROS {
            // Late or repeated: the sweep has passed it.
            return Vec::new();
        }
        let flags = if channel.lost || apart > GAP_MICROS { FLAG_GAP } else { 0 };
        channel.lost = false;
        channel.expected = Some(block.end());
        let number = channel.number;
        let scale = (block.gain.to_f64(), block.offset.to_f64());
        let rescaled = channel.gain_offset.replace(scale) != Some(scale);
        let mut messages = Vec::with_capacity(2);
        if rescaled {
            messages.push(self.describe());
        }
        for (index, samples) in block.samples.chunks(usize::from(u16::MAX)).enumerate() {
            let start = block.start.plus_micros(block.offset_micros(index * usize::from(u16::MAX)));
            let flags = if index == 0 { flags } else { 0 };
            messages.push(Message::Binary(encode(flags, number, start, block, samples).into()));
        }
        messages
    }
}

/// The binary frame of `docs/reference/json-api.md`.
fn encode(flags: u8, channel: u32, start: Timestamp, block: &Waveform, samples: &[i16]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24 + samples.len() * 2);
    bytes.push(1);
    bytes.push(flags);
    bytes.extend((samples.len() as u16).to_le_bytes());
    bytes.extend(channel.to_le_bytes());
    bytes.extend(start.as_micros().to_le_bytes());
    bytes.extend(block.rate_numerator.to_le_bytes());
    bytes.extend(block.rate_denominator.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes
}
