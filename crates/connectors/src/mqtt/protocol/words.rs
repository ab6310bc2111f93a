//! What the protocol and its driver say to each other.

use std::collections::{BTreeSet, VecDeque};

use clinical_model::{Delivery, DeviceId, FrameKind};
use mqtt_protocol_core::mqtt::packet::Qos;
use mqtt_protocol_core::mqtt::result_code::{DisconnectReasonCode, MqttError};

use crate::mqtt::wire::{Connect, ConnectRefusal, Refusal};

/// What the driver must do about a packet.
#[derive(Debug)]
pub(in crate::mqtt) enum Request {
    /// Accept or refuse the client.
    Connect(Box<Connect>),
    /// Commit a frame, then [`Protocol::settle`] its ticket.
    Frame(FrameRequest),
    /// Tell the screens about a device's link.
    Status { device: DeviceId, online: bool },
    /// The client takes its leave; `session_expiry_s` replaces what it asked at the start.
    Goodbye { with_will: bool, session_expiry_s: Option<u32> },
}

/// A frame that waits for its commit.
pub(in crate::mqtt) struct FrameRequest {
    pub ticket: u64,
    pub device: DeviceId,
    pub kind: FrameKind,
    pub delivery: Delivery,
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for FrameRequest {
    /// Without the bytes, which are about a patient.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameRequest({}, {}, {} bytes)", self.ticket, self.kind, self.bytes.len())
    }
}

/// What one call of [`Protocol::advance`] did.
#[derive(Debug)]
pub(in crate::mqtt) enum Step {
    /// The input holds no whole packet.
    NeedsInput,
    /// A packet was handled.
    Handled,
    /// A packet was handled, and the driver must act.
    Asks(Request),
}

/// Why the protocol ended the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mqtt) enum Closing {
    /// The client broke the protocol or a limit.
    Violation(MqttError),
    /// A message was refused in a way that only ending the connection can say.
    Refused(Refusal),
    /// CONNECT was refused.
    ConnectRefused(ConnectRefusal),
    /// The driver asked for it.
    Asked(DisconnectReasonCode),
    /// The client took its leave.
    Goodbye,
}

/// What of a connection outlives it.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct Kept {
    /// QoS 2 messages that are committed and not yet released by the client.
    pub unreleased: BTreeSet<u16>,
    /// QoS of the subscription to the command topic, when there is one.
    pub subscription: Option<Qos>,
    /// Commands that the client has not acknowledged, oldest first.
    pub commands: VecDeque<Command>,
}

/// A command on its way to a device.
pub(in crate::mqtt) struct Command {
    pub packet_id: u16,
    pub bytes: Vec<u8>,
    pub sent: bool,
    pub repeated: bool,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command({}, {} bytes)", self.packet_id, self.bytes.len())
    }
}

/// An answer in the queue; it leaves when it has a verdict and is in front.
pub(super) struct Reply {
    pub ticket: u64,
    pub qos: Qos,
    pub packet_id: Option<u16>,
    pub bytes: usize,
    pub verdict: Option<Result<(), Refusal>>,
}
