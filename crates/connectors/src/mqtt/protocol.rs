//! The state machine of one connection: bytes in, requests and bytes out; no I/O and no clock.
//!
//! The MQTT library checks and builds packets and tracks flow control. Three things are decided here,
//! because a promise hangs on them:
//!
//! - *Order.* Answers wait in a queue in the order of their messages and leave only from its front.
//! - *QoS 2 repeats.* The library answers a repeated packet id with PUBREC at once, though the commit of
//!   the first copy may be pending. Its memory of ids is therefore emptied after each message, and ours
//!   decides: pending, the repeat adds nothing, for the first copy's answer answers both; committed, it
//!   is answered at once.
//! - *One answer a message.* A second answer to one packet id could reach a client that has reused the id,
//!   and acknowledge what is not on disk.

use std::collections::VecDeque;

use bytes::BytesMut;
use clinical_model::Delivery;
use mqtt_protocol_core::mqtt::common::{Cursor, HashSet};
use mqtt_protocol_core::mqtt::connection::{ConnectionOptions, Event};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait as _, Packet, Qos};
use mqtt_protocol_core::mqtt::result_code::{DisconnectReasonCode, MqttError};
use mqtt_protocol_core::mqtt::{Connection, Version, role};
use pipeline::Peer;
use pipeline::line::EndsOn;

use super::limits::{
    MAX_IN_FLIGHT_BYTES, MAX_LOGGED_TOPIC_CHARS, MAX_PACKET_BYTES, MAX_UNRELEASED, MAX_USER_PROPERTIES,
    RECEIVE_MAXIMUM,
};
use super::strict::{self, ConnectFault, Framed};
use super::topic::{Channel, Topic, TopicError};
use super::wire::{self, ConnectRefusal, Grant, Incoming, Level, Publish, Refusal};

mod commands;
#[cfg(test)]
mod tests;
mod words;

use words::Reply;
pub(super) use words::{Closing, Command, FrameRequest, Kept, Request, Step};

/// Type of the packet that opens a connection.
const CONNECT: u8 = 1;

/// One connection's protocol.
pub(super) struct Protocol {
    link: Connection<role::Server>,
    level: Level,
    peer: Option<Peer>,
    explain: bool,
    keeps_session: bool,
    at_packet_start: bool,
    partial_bytes: usize,
    connected: bool,
    replies: VecDeque<Reply>,
    in_flight_bytes: usize,
    next_ticket: u64,
    refusals: u64,
    kept: Kept,
    output: Vec<u8>,
    closing: Option<Closing>,
}

impl Protocol {
    pub(super) fn new() -> Self {
        let limit = u32::try_from(MAX_PACKET_BYTES).unwrap_or(u32::MAX);
        let options = ConnectionOptions::new().maximum_packet_size_recv(limit);
        Self {
            link: Connection::with_options(Version::Undetermined, options),
            level: Level::V3,
            peer: None,
            explain: false,
            keeps_session: false,
            at_packet_start: true,
            partial_bytes: 0,
            connected: false,
            replies: VecDeque::new(),
            in_flight_bytes: 0,
            next_ticket: 0,
            refusals: 0,
            kept: Kept::default(),
            output: Vec::new(),
            closing: None,
        }
    }

    /// Bytes for the client; the driver writes and empties them.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Why the connection is to be ended, once the output is written.
    pub(super) fn closing(&self) -> Option<Closing> {
        self.closing
    }

    /// Whether a packet has begun and not ended.
    pub(super) fn is_amid_packet(&self) -> bool {
        !self.at_packet_start
    }

    /// Bytes of the packet that has begun and not ended, as far as they are known.
    pub(super) fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    /// Whether more input may be handled now; otherwise the socket is left alone until commits resolve.
    pub(super) fn takes_input(&self) -> bool {
        self.closing.is_none()
            && self.replies.len() < usize::from(RECEIVE_MAXIMUM)
            && self.in_flight_bytes < MAX_IN_FLIGHT_BYTES
    }

    /// Handles at most one packet from `input`, and removes from it what was read.
    pub(super) fn advance(&mut self, input: &mut BytesMut) -> Step {
        let bytes = match strict::frame(input, MAX_PACKET_BYTES) {
            Framed::Whole { bytes } => bytes,
            Framed::Partial { bytes } => {
                self.at_packet_start = input.is_empty();
                self.partial_bytes = bytes.unwrap_or(0);
                return Step::NeedsInput;
            }
            Framed::TooLarge => return self.violated(MqttError::PacketTooLarge),
            Framed::Malformed => return self.violated(MqttError::MalformedPacket),
        };
        self.at_packet_start = true;
        self.partial_bytes = 0;
        let packet = input.split_to(bytes);
        let checked = if packet[0] >> 4 == CONNECT && !self.connected {
            strict::connect(&packet).map(|sound| self.link.recv(&mut Cursor::new(sound.as_slice())))
        } else {
            let checked = strict::check(self.level, &packet);
            checked
                .map_err(|error| ConnectFault::Unsound(None, error))
                .map(|()| self.link.recv(&mut Cursor::new(&packet[..])))
        };
        let events = match checked {
            Ok(events) => events,
            Err(fault) => return self.unsound(fault),
        };
        let (packet, error) = self.take(events);
        if let Some(error) = error {
            self.violate(error);
        }
        match packet.map(wire::incoming) {
            Some(incoming) if self.closing.is_none() => self.handle(incoming),
            _ => Step::Handled,
        }
    }

    /// Accepts the client that asked to connect.
    pub(super) fn accept(&mut self, peer: Peer, grant: &Grant, kept: Kept) {
        self.peer = Some(peer);
        self.kept = kept;
        for command in &mut self.kept.commands {
            command.sent = false;
            command.repeated = true;
            // Fails only for an id that is taken, and none is before the first packet.
            let _ = self.link.register_packet_id(command.packet_id);
        }
        self.connected = true;
        self.send(wire::connack(self.level, grant));
        self.send_waiting_commands();
    }

    /// Refuses the client that asked to connect.
    pub(super) fn refuse(&mut self, refusal: ConnectRefusal) {
        self.closing = Some(Closing::ConnectRefused(refusal));
        // A reason in words is left out where the client takes no packet so large [MQTT-3.2.2-19].
        if !self.sent(wire::connack_refused(self.level, refusal, true)) {
            self.sent(wire::connack_refused(self.level, refusal, false));
        }
    }

    /// Notes what became of a frame, and sends the answers that are due.
    pub(super) fn settle(&mut self, ticket: u64, verdict: Result<(), Refusal>) {
        if let Err(refusal) = verdict {
            self.note_refusal(refusal, None);
        }
        if let Some(reply) = self.replies.iter_mut().find(|reply| reply.ticket == ticket) {
            reply.verdict = Some(verdict);
        }
        self.send_due_replies();
    }

    /// Whether a refusal of one message can be said without ending the connection.
    pub(super) fn can_refuse(&self, delivery: Delivery) -> bool {
        self.level == Level::V5 && delivery == Delivery::AtLeastOnce
    }

    /// Frames whose verdict is awaited.
    pub(super) fn unsettled(&self) -> usize {
        self.replies.iter().filter(|reply| reply.verdict.is_none()).count()
    }

    /// Ends the connection; version 5 clients are told why.
    pub(super) fn disconnect(&mut self, reason: DisconnectReasonCode) {
        if self.closing.is_none() {
            self.closing = Some(Closing::Asked(reason));
            self.say_goodbye(reason);
        }
    }

    /// Which refusals of a frame end the connection.
    pub(super) fn ends_on(&self) -> EndsOn {
        match self.level {
            Level::V3 => EndsOn::Anything,
            Level::V5 => EndsOn::Passing,
        }
    }

    /// What outlives the connection.
    pub(super) fn into_kept(self) -> Kept {
        self.kept
    }

    fn handle(&mut self, incoming: Incoming) -> Step {
        if !self.connected && !matches!(incoming, Incoming::Connect(_)) {
            self.violate(MqttError::ProtocolError);
            return Step::Handled;
        }
        match incoming {
            Incoming::Connect(connect) => {
                self.level = connect.level;
                self.explain = connect.problem_information;
                self.keeps_session = connect.session_expiry_s > 0;
                return Step::Asks(Request::Connect(connect));
            }
            Incoming::Publish(publish) => return self.publish(publish),
            Incoming::Released(packet_id) => self.release(packet_id),
            Incoming::Acknowledged(packet_id) => {
                self.kept.commands.retain(|command| command.packet_id != packet_id);
                self.send_waiting_commands();
            }
            Incoming::Subscribe { packet_id, filters } => self.subscribe(packet_id, &filters),
            Incoming::Unsubscribe { packet_id, filters } => self.unsubscribe(packet_id, &filters),
            Incoming::Ping => self.send(Ok(wire::pingresp(self.level))),
            // A session that was to end with the connection cannot be prolonged at its end (MQTT 5.0, 3.14.2.2.2).
            Incoming::Disconnect { session_expiry_s: Some(1..), .. } if !self.keeps_session => {
                self.violate(MqttError::ProtocolError);
            }
            Incoming::Disconnect { with_will, session_expiry_s } => {
                self.closing = Some(Closing::Goodbye);
                return Step::Asks(Request::Goodbye { with_will, session_expiry_s });
            }
            Incoming::Unexpected => self.violate(MqttError::ProtocolError),
        }
        Step::Handled
    }

    fn publish(&mut self, publish: Publish) -> Step {
        if publish.qos == Qos::ExactlyOnce {
            self.link.restore_qos2_publish_handled(HashSet::default());
        }
        if !self.is_new(&publish) {
            return Step::Handled;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let asks = self.judge(&publish);
        let bytes = publish.payload.len();
        let verdict = match &asks {
            Ok(Topic { channel: Channel::Status, .. }) => Some(Ok(())),
            #[cfg(feature = "planted")]
            Ok(_) if qos_is_answered_early(publish.qos) => Some(Ok(())),
            Ok(_) => None,
            Err(refusal) => Some(Err(*refusal)),
        };
        if let Err(refusal) = asks {
            self.note_refusal(refusal, Some(&publish.topic));
        }
        let Publish { packet_id, qos, payload, .. } = publish;
        self.in_flight_bytes += bytes;
        self.replies.push_back(Reply { ticket, qos, packet_id, bytes, verdict });
        self.send_due_replies();
        match asks {
            Ok(Topic { device, channel: Channel::Frame(kind) }) => {
                let delivery =
                    if qos == Qos::AtMostOnce { Delivery::AtMostOnce } else { Delivery::AtLeastOnce };
                Step::Asks(Request::Frame(FrameRequest { ticket, device, kind, delivery, bytes: payload }))
            }
            Ok(Topic { device, .. }) => Step::Asks(Request::Status { device, online: payload == b"online" }),
            Err(_) => Step::Handled,
        }
    }

    /// Whether a message is to be handled, and not a repeat or against the protocol.
    fn is_new(&mut self, publish: &Publish) -> bool {
        let Some(packet_id) = publish.packet_id else {
            return true;
        };
        if let Some(pending) = self.replies.iter().find(|reply| reply.packet_id == Some(packet_id)) {
            // Only a repeat of the same message may bear the id of one that is not answered yet.
            if !publish.repeated || pending.qos != publish.qos {
                self.violate(MqttError::ProtocolError);
            }
            return false;
        }
        if publish.qos == Qos::ExactlyOnce {
            if self.kept.unreleased.contains(&packet_id) {
                self.send(wire::answer(self.level, Qos::ExactlyOnce, packet_id, None, false));
                return false;
            }
            if self.kept.unreleased.len() >= MAX_UNRELEASED {
                self.violate(MqttError::ReceiveMaximumExceeded);
                return false;
            }
        }
        true
    }

    /// What a message is for, if this peer may send it.
    fn judge(&self, publish: &Publish) -> Result<Topic, Refusal> {
        if publish.user_properties > MAX_USER_PROPERTIES {
            return Err(Refusal::TooManyProperties);
        }
        let peer = self.peer.as_ref().ok_or(Refusal::NotAuthorized)?;
        let topic = Topic::for_publisher(&publish.topic, peer).map_err(|error| match error {
            TopicError::Invalid => Refusal::TopicInvalid,
            TopicError::NotYours => Refusal::NotAuthorized,
        })?;
        let known_status = matches!(publish.payload.as_slice(), b"online" | b"offline");
        if topic.channel == Channel::Status && !known_status {
            return Err(Refusal::PayloadInvalid);
        }
        Ok(topic)
    }

    /// Logs the 1st, 2nd, 4th, 8th … refusal of a connection: whoever floods us must not flood the log too.
    fn note_refusal(&mut self, refusal: Refusal, topic: Option<&str>) {
        self.refusals += 1;
        if self.refusals.is_power_of_two() {
            let topic: String = topic.unwrap_or_default().chars().take(MAX_LOGGED_TOPIC_CHARS).collect();
            tracing::warn!(%refusal, ?topic, so_far = self.refusals, "a message was refused");
        }
    }

    fn send_due_replies(&mut self) {
        while let Some(verdict) = self.replies.front().and_then(|reply| reply.verdict) {
            let Some(reply) = self.replies.pop_front() else { return };
            self.in_flight_bytes -= reply.bytes;
            let Some(packet_id) = reply.packet_id else {
                if let Err(refusal) = verdict {
                    self.end_for(refusal);
                }
                continue;
            };
            match verdict {
                Ok(()) => {
                    if reply.qos == Qos::ExactlyOnce {
                        self.kept.unreleased.insert(packet_id);
                    }
                    self.send(wire::answer(self.level, reply.qos, packet_id, None, false));
                }
                Err(refusal) if self.level == Level::V3 || refusal.is_passing() => self.end_for(refusal),
                Err(refusal) => self.send_refusal(reply.qos, packet_id, refusal),
            }
        }
    }

    /// A reason in words is left out where the client takes no packet so large [MQTT-3.4.2-2, MQTT-3.5.2-2].
    fn send_refusal(&mut self, qos: Qos, packet_id: u16, refusal: Refusal) {
        if self.explain {
            let packet = wire::answer(self.level, qos, packet_id, Some(refusal), true);
            if self.sent(packet) {
                return;
            }
        }
        self.send(wire::answer(self.level, qos, packet_id, Some(refusal), false));
    }

    /// Sends a packet unless it is larger than the client takes; gives whether it was.
    fn sent(&mut self, packet: Result<Packet, MqttError>) -> bool {
        let error = match packet {
            Ok(packet) => {
                let events = self.link.send(packet);
                self.take(events).1
            }
            Err(error) => Some(error),
        };
        match error {
            Some(MqttError::PacketTooLarge) => false,
            Some(error) => {
                self.violate(error);
                true
            }
            None => true,
        }
    }

    fn end_for(&mut self, refusal: Refusal) {
        if self.closing.is_none() {
            self.closing = Some(Closing::Refused(refusal));
            self.say_goodbye(refusal.disconnect_reason());
        }
    }

    fn release(&mut self, packet_id: u16) {
        if self.replies.iter().any(|reply| reply.packet_id == Some(packet_id)) {
            // It was not answered yet, so there is nothing that could be released.
            self.violate(MqttError::ProtocolError);
            return;
        }
        let known = self.kept.unreleased.remove(&packet_id);
        self.send(wire::pubcomp(self.level, packet_id, known));
    }

    fn send(&mut self, packet: Result<Packet, MqttError>) {
        if !self.sent(packet) {
            self.violate(MqttError::PacketTooLarge);
        }
    }

    /// Collects the output and finds the packet and the error among the library's events.
    fn take(&mut self, events: Vec<Event>) -> (Option<Packet>, Option<MqttError>) {
        let mut received = None;
        let mut failed = None;
        let mut close = false;
        for event in events {
            match event {
                Event::NotifyPacketReceived(packet) => received = Some(packet),
                Event::RequestSendPacket { packet, .. } => {
                    self.output.extend_from_slice(&packet.to_continuous_buffer());
                }
                Event::NotifyError(error) => failed = Some(error),
                Event::RequestClose => close = true,
                // Keep-alive is the driver's, for it knows when the socket is left alone on purpose.
                Event::NotifyPacketIdReleased(_)
                | Event::RequestTimerReset { .. }
                | Event::RequestTimerCancel(_) => {}
            }
        }
        if close && self.closing.is_none() {
            let error = failed.unwrap_or(MqttError::ProtocolError);
            self.closing = Some(Closing::Violation(error));
            // The library says goodbye in most cases; where it has, this second one is not sent.
            self.say_goodbye(error.into());
        }
        (received, failed)
    }

    fn violate(&mut self, error: MqttError) {
        if self.closing.is_none() {
            self.closing = Some(Closing::Violation(error));
            self.say_goodbye(error.into());
        }
    }

    fn violated(&mut self, error: MqttError) -> Step {
        self.violate(error);
        Step::Handled
    }

    /// Ends a connection whose packet is not sound; a client that is not connected yet is told in CONNACK where its
    /// version has words for it. Version 3.1.1 demands silence [MQTT-3.1.4-1].
    fn unsound(&mut self, fault: ConnectFault) -> Step {
        let (error, connack): (_, &[u8]) = match fault {
            // "Unacceptable protocol version", which every version understands [MQTT-3.1.2-2].
            ConnectFault::OtherVersion => (MqttError::UnsupportedProtocolVersion, &[0x20, 0x02, 0x00, 0x01]),
            ConnectFault::Unsound(Some(Level::V5), error @ MqttError::ProtocolError) => {
                (error, &[0x20, 0x03, 0x00, 0x82, 0x00])
            }
            ConnectFault::Unsound(Some(Level::V5), error) => (error, &[0x20, 0x03, 0x00, 0x81, 0x00]),
            ConnectFault::Unsound(_, error) => (error, &[]),
        };
        self.output.extend_from_slice(connack);
        self.violated(error)
    }

    fn say_goodbye(&mut self, reason: DisconnectReasonCode) {
        if self.level == Level::V5 && self.connected {
            self.send(wire::disconnect(reason));
        }
    }
}

/// A bug on purpose: PUBREC before the commit.
#[cfg(feature = "planted")]
fn qos_is_answered_early(qos: Qos) -> bool {
    qos == Qos::ExactlyOnce && trust::planted("early-pubrec")
}
