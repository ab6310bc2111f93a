//! One connection: its socket, its timers, and the way of its messages to intake.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use clinical_model::{DeviceId, Frame, Timestamp};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use mqtt_protocol_core::mqtt::result_code::DisconnectReasonCode;
use pipeline::{Intake, IntakeError, Peer, PeerCertificate, Pending};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};
use tokio_rustls::server::TlsStream;
use trust::pki::PeerIdentity;

use super::limits::{
    KEPT_INPUT_BYTES, LARGE_PACKET_BYTES, LINGER, PACKET_TIMEOUT, QUIET_CHUNK_BYTES, READ_CHUNK_BYTES,
};
use super::protocol::{Closing, FrameRequest, Kept, Protocol, Request, Step};
use super::server::Shared;
use super::sessions::{ClientKey, Lease, Session};
use super::wire::{Connect, ConnectRefusal, Grant, Refusal};

mod opening;

/// Serves one socket to its end.
pub(super) async fn run(socket: TcpStream, shared: &Shared) {
    // Acknowledgements are small and awaited: do not let the kernel collect them.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "the socket keeps its delay");
    }
    let shaken = tokio::select! {
        () = shared.stopping.cancelled() => return,
        shaken = handshake(socket, shared) => shaken,
    };
    let mut stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::warn!(%error, "the TLS handshake failed"),
        Err(_) => return tracing::info!("the TLS handshake took too long"),
    };
    let Some(certificate) = opening::certificate(&stream) else {
        return tracing::warn!("the client certificate names no device or program");
    };
    let mut protocol = Protocol::new();
    let mut input = BytesMut::new();
    let opened = opening::open(&mut stream, &mut protocol, &mut input, certificate, shared).await;
    if let Some(opened) = opened {
        let device = opened.device();
        let intake = shared.intake.for_connection(protocol.ends_on());
        let live = Connection { stream: &mut stream, protocol, input, shared, opened, intake };
        live.serve(device).await;
    } else {
        flush(&mut stream, &mut protocol, shared.options.write_timeout).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the refusal could not be written");
        });
    }
    linger(stream).await;
}

/// The TLS handshake, in its turn. Whoever connects and says nothing takes nobody's turn.
async fn handshake(
    socket: TcpStream,
    shared: &Shared,
) -> Result<io::Result<TlsStream<TcpStream>>, tokio::time::error::Elapsed> {
    let patience = shared.options.handshake_timeout;
    // To wait for readiness is not enough: it may be announced without a byte.
    if let Err(error) = timeout(patience, socket.peek(&mut [0])).await? {
        return Ok(Err(error));
    }
    // Closed never: it is ours. Without a turn the handshake would only be less fair.
    let _turn = shared.handshakes.acquire().await.ok();
    timeout(patience, shared.acceptor.accept(socket)).await
}

/// A client that was accepted.
struct Opened {
    certificate: PeerCertificate,
    not_after: Timestamp,
    peer: Peer,
    client_id: String,
    lease: Lease,
    commands: Option<mpsc::Receiver<Vec<u8>>>,
    keep_alive: Duration,
    session_expiry_s: u32,
    /// Whose will it is to be shown as out of reach when the connection ends without a goodbye.
    will_of: Option<DeviceId>,
}

impl Opened {
    fn device(&self) -> Option<DeviceId> {
        match self.peer {
            Peer::Device(device) => Some(device),
            Peer::Program(_) => None,
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client took its leave.
    Goodbye { with_will: bool },
    /// The client is gone without one.
    Lost,
    /// Nothing was heard for one and a half times the keep-alive.
    Silent,
    /// A packet took too long.
    Slow,
    /// The client does not read.
    NotReading,
    /// The protocol ended it.
    Closed(Closing),
    /// The certificate is not admitted any more.
    NotAdmitted,
    /// The client has connected again.
    TakenOver,
    /// The server stops.
    Stopping,
}

/// A device shown as in reach, until this is dropped, however the connection ends.
struct Presence<'a> {
    intake: &'a Intake,
    device: Option<DeviceId>,
}

impl<'a> Presence<'a> {
    fn show(intake: &'a Intake, device: DeviceId) -> Self {
        intake.device_status(device, true);
        Self { intake, device: Some(device) }
    }

    /// The device has another connection already: it stays in reach.
    fn leave_to_successor(mut self) {
        self.device = None;
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        if let Some(device) = self.device {
            self.intake.device_status(device, false);
        }
    }
}

type Commit = Pin<Box<dyn Future<Output = (u64, Result<(), Refusal>)> + Send>>;
type Submission = Pin<Box<dyn Future<Output = (u64, Result<Pending, IntakeError>)> + Send>>;

struct Connection<'a> {
    stream: &'a mut TlsStream<TcpStream>,
    protocol: Protocol,
    input: BytesMut,
    shared: &'a Shared,
    opened: Opened,
    intake: Intake,
}

/// What is under way towards the disk.
#[derive(Default)]
struct UnderWay {
    /// The frame that waits for room in the queue; those after it wait for it, so that their order stays.
    submission: Option<Submission>,
    /// Room for the large packet that is being read or submitted.
    large_room: Option<OwnedSemaphorePermit>,
    commits: FuturesUnordered<Commit>,
}

impl<'a> Connection<'a> {
    async fn serve(mut self, device: Option<DeviceId>) {
        let presence = device.map(|device| Presence::show(&self.shared.intake, device));
        tracing::info!(program = device.is_none(), "connected");
        let mut under_way = UnderWay::default();
        let end = self.exchange(&mut under_way).await;
        let drained = timeout(self.shared.options.drain_timeout, self.drain(&mut under_way)).await.is_ok();
        if !drained {
            tracing::warn!(
                frames = self.protocol.unsettled(),
                "commits did not end in time; nothing is lost: they were not acknowledged"
            );
        }
        self.say_why(end);
        let last_words = std::mem::take(self.protocol.output());
        let patience = self.shared.options.write_timeout.min(self.shared.options.drain_timeout);
        // The place is given back first: a client that connects again must not wait for a dead line to take our words.
        let stream = self.close(end, drained, presence);
        if !matches!(end, End::Goodbye { .. } | End::Lost | End::NotReading)
            && let Err(error) = write(stream, &last_words, patience).await
        {
            tracing::debug!(%error, "the last answers could not be written");
        }
    }

    /// Reads, commits and answers until there is a reason to end.
    async fn exchange(&mut self, under_way: &mut UnderWay) -> End {
        let takeover = self.opened.lease.takeover();
        let mut heard_at = Instant::now();
        let mut packet_began_at = None;
        let mut recheck = tokio::time::interval(self.shared.options.recheck_admission);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut revocations = self.shared.intake.admission_changes();
        loop {
            if let Some(end) = self.handle_input(under_way) {
                return end;
            }
            let flushed = tokio::select! {
                biased;
                flushed = flush(self.stream, &mut self.protocol, self.shared.options.write_timeout) => flushed,
                () = self.shared.stopping.cancelled() => return End::NotReading,
                () = takeover.cancelled() => return End::NotReading,
            };
            match flushed {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return End::NotReading,
                Err(_) => return End::Lost,
            }
            if let Some(closing) = self.protocol.closing() {
                return End::Closed(closing);
            }
            self.follow_subscription();
            let large_bytes = Some(self.protocol.partial_bytes()).filter(|bytes| *bytes > LARGE_PACKET_BYTES);
            if large_bytes.is_none() && under_way.submission.is_none() {
                under_way.large_room = None;
            }
            let needs_room = large_bytes.filter(|_| under_way.large_room.is_none());
            let may_read =
                under_way.submission.is_none() && self.protocol.takes_input() && needs_room.is_none();
            if !may_read || !self.protocol.is_amid_packet() {
                packet_began_at = None;
            } else if packet_began_at.is_none() {
                packet_began_at = Some(Instant::now());
            }
            let silent_at = heard_at + self.opened.keep_alive;
            let slow_at = packet_began_at.map_or(silent_at + PACKET_TIMEOUT, |began| began + PACKET_TIMEOUT);
            tokio::select! {
                biased;
                () = self.shared.stopping.cancelled() => return End::Stopping,
                () = takeover.cancelled() => return End::TakenOver,
                () = asks_again(&mut recheck, &mut revocations) => if !self.is_admitted() {
                    return self.end_not_admitted();
                },
                Some((ticket, verdict)) = under_way.commits.next(), if !under_way.commits.is_empty() => {
                    self.protocol.settle(ticket, verdict);
                }
                (ticket, submitted) = submitted(&mut under_way.submission) => {
                    self.note_submitted(ticket, submitted, &mut under_way.commits);
                }
                room = large_room(self.shared, needs_room.unwrap_or(0)), if needs_room.is_some() => {
                    under_way.large_room = room;
                }
                Some(command) = next_command(&mut self.opened.commands), if self.protocol.takes_command() => {
                    if !self.is_admitted() {
                        return self.end_not_admitted();
                    }
                    self.protocol.send_command(command);
                }
                read = read_some(self.stream, &mut self.input), if may_read => match read {
                    Ok(0) | Err(_) => return End::Lost,
                    Ok(_) => heard_at = Instant::now(),
                },
                () = tokio::time::sleep_until(silent_at.min(slow_at)), if may_read => {
                    return if slow_at < silent_at { End::Slow } else { End::Silent };
                }
            }
            if !may_read {
                // The client could not be heard while the socket was left alone.
                heard_at = Instant::now();
            }
        }
    }

    /// Handles the packets at hand, as far as the bounds allow.
    fn handle_input(&mut self, under_way: &mut UnderWay) -> Option<End> {
        while under_way.submission.is_none() && self.protocol.takes_input() {
            match self.protocol.advance(&mut self.input) {
                Step::NeedsInput => return None,
                Step::Handled => {}
                Step::Asks(Request::Goodbye { with_will, session_expiry_s }) => {
                    if let Some(seconds) = session_expiry_s {
                        self.opened.session_expiry_s = seconds.min(self.shared.options.max_session_expiry_s);
                    }
                    return Some(End::Goodbye { with_will });
                }
                Step::Asks(Request::Frame(frame)) => {
                    if !self.is_admitted() {
                        return Some(self.end_not_admitted());
                    }
                    under_way.submission = Some(self.submit(frame));
                }
                Step::Asks(Request::Status { device, online }) => {
                    if !self.is_admitted() {
                        return Some(self.end_not_admitted());
                    }
                    self.shared.intake.device_status(device, online);
                }
                // A second CONNECT is answered by the protocol and never asks.
                Step::Asks(Request::Connect(_)) => return Some(End::Lost),
            }
        }
        None
    }

    fn submit(&self, request: FrameRequest) -> Submission {
        let FrameRequest { ticket, device, kind, delivery, bytes } = request;
        let intake = self.intake.clone();
        let received_at = intake.now().truncated_to_millis();
        let frame = Frame { device, kind, received_at, delivery, bytes };
        if self.protocol.can_refuse(delivery) {
            return Box::pin(async move { (ticket, intake.submit(frame).await) });
        }
        let hold = self.shared.options.hold;
        Box::pin(async move { (ticket, intake.submit_patiently(frame, hold).await) })
    }

    fn note_submitted(
        &mut self,
        ticket: u64,
        submitted: Result<Pending, IntakeError>,
        commits: &mut FuturesUnordered<Commit>,
    ) {
        match submitted {
            Ok(pending) => commits.push(Box::pin(async move { (ticket, verdict(pending.await.map(drop))) })),
            Err(error) => self.protocol.settle(ticket, verdict(Err(error))),
        }
    }

    /// Lets what is under way come to its end, so that it is acknowledged, or at least noted in the session.
    async fn drain(&mut self, under_way: &mut UnderWay) {
        loop {
            tokio::select! {
                Some((ticket, verdict)) = under_way.commits.next(), if !under_way.commits.is_empty() => {
                    self.protocol.settle(ticket, verdict);
                }
                (ticket, submitted) = submitted(&mut under_way.submission), if under_way.submission.is_some() => {
                    self.note_submitted(ticket, submitted, &mut under_way.commits);
                }
                else => return,
            }
        }
    }

    /// In version 5, the reason of the end, after the last answers.
    fn say_why(&mut self, end: End) {
        match end {
            End::Silent | End::Slow => self.protocol.disconnect(DisconnectReasonCode::KeepAliveTimeout),
            End::TakenOver => self.protocol.disconnect(DisconnectReasonCode::SessionTakenOver),
            End::Stopping => self.protocol.disconnect(DisconnectReasonCode::ServerShuttingDown),
            // Said already, or nobody is there to hear it.
            End::NotAdmitted | End::Closed(_) | End::Goodbye { .. } | End::Lost | End::NotReading => {}
        }
    }

    /// Puts the session to rest and tells the screens. Gives the socket back.
    fn close(self, end: End, drained: bool, presence: Option<Presence<'_>>) -> &'a mut TlsStream<TcpStream> {
        let Opened { lease, client_id, commands, session_expiry_s, will_of, .. } = self.opened;
        // Without a whole drain it is not known which messages were committed: such a session is not to be trusted.
        let rest = (drained && session_expiry_s > 0 && end != End::NotAdmitted).then(|| {
            let session = Session { client_id, kept: self.protocol.into_kept(), commands };
            (session, Duration::from_secs(u64::from(session_expiry_s)))
        });
        let is_device = presence.is_some();
        // Shown as away before the place is free: later, the next connection may already be shown as here.
        let presence = presence.filter(|_| lease.takeover().is_cancelled());
        if lease.release(rest)
            && let Some(presence) = presence
        {
            presence.leave_to_successor();
        }
        let goodbye = matches!(end, End::Goodbye { with_will: false });
        match end {
            End::Goodbye { .. } | End::TakenOver | End::Stopping => tracing::info!(?end, "disconnected"),
            _ => tracing::warn!(?end, "the connection ended without a goodbye"),
        }
        // A device is away without its connection, whatever it wills; a program may will it for another.
        if let Some(of) = will_of.filter(|_| !goodbye && !is_device) {
            self.shared.intake.device_status(of, false);
        }
        self.stream
    }

    /// Takes the device's queue of commands while it is subscribed, and only then: a command for a device that
    /// does not listen must be refused to whoever sends it.
    fn follow_subscription(&mut self) {
        match (self.opened.device(), self.protocol.is_subscribed()) {
            (Some(device), true) if self.opened.commands.is_none() => {
                self.opened.commands = Some(self.shared.intake.take_commands(device));
            }
            (_, false) => self.opened.commands = None,
            _ => {}
        }
    }

    fn is_admitted(&self) -> bool {
        self.shared.intake.may_still_send(&self.opened.certificate, &self.opened.peer)
            && self.shared.intake.now() <= self.opened.not_after
    }

    fn end_not_admitted(&mut self) -> End {
        tracing::warn!(serial = %self.opened.certificate.serial_hex, "the certificate is revoked or expired, its device retired, or its program without the scope to send");
        self.protocol.disconnect(DisconnectReasonCode::NotAuthorized);
        End::NotAdmitted
    }
}

/// Resolves when the certificate should be looked at again: something was revoked, or a while has passed.
async fn asks_again(
    recheck: &mut tokio::time::Interval,
    revocations: &mut tokio::sync::watch::Receiver<u64>,
) {
    tokio::select! {
        _ = recheck.tick() => {}
        Ok(()) = revocations.changed() => {}
    }
}

fn verdict(outcome: Result<(), IntakeError>) -> Result<(), Refusal> {
    outcome.map_err(|error| {
        tracing::debug!(%error, "intake refused a frame");
        match error {
            IntakeError::TooLarge { .. } => Refusal::TooLarge,
            IntakeError::UnknownDevice { .. } | IntakeError::Retired { .. } => Refusal::NotAuthorized,
            IntakeError::QuarantineFull | IntakeError::StorageFull => Refusal::Full,
            IntakeError::Overloaded { .. } | IntakeError::Busy { .. } => Refusal::Overloaded,
            IntakeError::NotKept => Refusal::NotKept,
            IntakeError::Stopping => Refusal::Stopping,
        }
    })
}

/// Resolves when the frame that waits for room has it; never, when none waits.
async fn submitted(submission: &mut Option<Submission>) -> (u64, Result<Pending, IntakeError>) {
    match submission {
        Some(waiting) => {
            let done = waiting.await;
            *submission = None;
            done
        }
        None => std::future::pending().await,
    }
}

/// Room for a large packet; never refused, for the room is never closed.
async fn large_room(shared: &Shared, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let kib = u32::try_from(bytes / 1_024 + 1).unwrap_or(u32::MAX);
    Arc::clone(&shared.large_room).acquire_many_owned(kib).await.ok()
}

async fn next_command(commands: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match commands {
        Some(commands) => commands.recv().await,
        None => std::future::pending().await,
    }
}

async fn read_some(stream: &mut TlsStream<TcpStream>, input: &mut BytesMut) -> io::Result<usize> {
    if input.is_empty() {
        if input.capacity() > KEPT_INPUT_BYTES {
            *input = BytesMut::new();
        }
        input.reserve(QUIET_CHUNK_BYTES);
    } else {
        input.reserve(READ_CHUNK_BYTES);
    }
    stream.read_buf(input).await
}

/// Writes what the protocol has for the client.
async fn flush(
    stream: &mut TlsStream<TcpStream>,
    protocol: &mut Protocol,
    patience: Duration,
) -> io::Result<()> {
    let output = std::mem::take(protocol.output());
    write(stream, &output, patience).await
}

async fn write(stream: &mut TlsStream<TcpStream>, bytes: &[u8], patience: Duration) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let written = timeout(patience, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    });
    written.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Closes, and for a moment discards what the client still sends: a socket closed with unread bytes is reset, and
/// the reset may destroy our last packet before the client reads it.
async fn linger(mut stream: TlsStream<TcpStream>) {
    let deadline = Instant::now() + LINGER;
    if !matches!(timeout_at(deadline, stream.shutdown()).await, Ok(Ok(()))) {
        return;
    }
    let socket = stream.get_mut().0;
    let mut discarded = [0_u8; 4096];
    while let Ok(Ok(1..)) = timeout_at(deadline, socket.read(&mut discarded)).await {}
}
