//! The protocol, byte by byte and commit by commit.

use bytes::BytesMut;
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};

use super::*;

mod abuse;
mod commands;
mod delivery;

const OWN: &str = "01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11";
const OTHER: &str = "01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b12";

/// No frames to commit.
const NONE: [u64; 0] = [];

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBCOMP: u8 = 0x70;
const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xb0;
const DISCONNECT: u8 = 0xe0;

fn envelope() -> String {
    format!("auscult/v1/{OWN}/envelope")
}

/// A connection whose commits are decided by the test.
struct Line {
    protocol: Protocol,
    input: BytesMut,
}

impl Line {
    fn silent() -> Self {
        Self { protocol: Protocol::new(), input: BytesMut::new() }
    }

    fn open(level: Level) -> Self {
        Self::resumed(level, Kept::default())
    }

    fn resumed(level: Level, kept: Kept) -> Self {
        let mut line = Self::resumed_with_answers(level, kept);
        let answers = line.answers();
        assert_eq!(answers[0].0, 0x20, "CONNACK comes first");
        line
    }

    /// As [`Line::resumed`], with CONNACK still among the answers.
    fn resumed_with_answers(level: Level, kept: Kept) -> Self {
        let mut line = Self::silent();
        line.feed(&connect(level));
        line.protocol.accept(Peer::Device(OWN.parse().unwrap()), &Grant::default(), kept);
        line
    }

    /// Feeds bytes, and gives what the protocol asks of its driver.
    fn feed(&mut self, bytes: &[u8]) -> Vec<Request> {
        self.input.extend_from_slice(bytes);
        let mut asked = Vec::new();
        while self.protocol.takes_input() {
            match self.protocol.advance(&mut self.input) {
                Step::NeedsInput => break,
                Step::Handled => {}
                Step::Asks(request) => asked.push(request),
            }
        }
        asked
    }

    fn tickets(&mut self, bytes: &[u8]) -> Vec<u64> {
        self.feed(bytes)
            .into_iter()
            .filter_map(|request| match request {
                Request::Frame(frame) => Some(frame.ticket),
                _ => None,
            })
            .collect()
    }

    /// Packets sent since the last call: first byte and body.
    fn answers(&mut self) -> Vec<(u8, Vec<u8>)> {
        let output = std::mem::take(self.protocol.output());
        let mut rest = output.as_slice();
        let mut packets = Vec::new();
        while let [first, tail @ ..] = rest {
            let digits = tail.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
            let length =
                tail[..digits].iter().rev().fold(0, |sum, byte| sum * 128 + usize::from(byte & 0x7f));
            packets.push((*first, tail[digits..digits + length].to_vec()));
            rest = &tail[digits + length..];
        }
        packets
    }

    /// As [`Line::answers`], for acknowledgements: type, packet id, reason.
    fn acks(&mut self) -> Vec<(u8, u16, u8)> {
        let ack = |(first, body): (u8, Vec<u8>)| {
            (first, u16::from_be_bytes([body[0], body[1]]), body.get(2).copied().unwrap_or(0))
        };
        self.answers().into_iter().map(ack).collect()
    }

    fn disconnect_reason(&mut self) -> Option<u8> {
        self.answers().into_iter().find(|(first, _)| *first == DISCONNECT).map(|(_, body)| body[0])
    }
}

fn connect(level: Level) -> Vec<u8> {
    match level {
        Level::V3 => {
            v3_1_1::Connect::builder().client_id(OWN).unwrap().build().unwrap().to_continuous_buffer()
        }
        Level::V5 => v5_0::Connect::builder().client_id(OWN).unwrap().build().unwrap().to_continuous_buffer(),
    }
}

fn publish_to(level: Level, topic: &str, qos: Qos, packet_id: u16, dup: bool, payload: &[u8]) -> Vec<u8> {
    match level {
        Level::V3 => {
            let builder = v3_1_1::Publish::builder().topic_name(topic).unwrap().qos(qos).dup(dup);
            let builder = if qos == Qos::AtMostOnce { builder } else { builder.packet_id(packet_id) };
            builder.payload(payload.to_vec()).build().unwrap().to_continuous_buffer()
        }
        Level::V5 => {
            let builder = v5_0::Publish::builder().topic_name(topic).unwrap().qos(qos).dup(dup);
            let builder = if qos == Qos::AtMostOnce { builder } else { builder.packet_id(packet_id) };
            builder.payload(payload.to_vec()).build().unwrap().to_continuous_buffer()
        }
    }
}

fn publish(level: Level, qos: Qos, packet_id: u16) -> Vec<u8> {
    publish_to(level, &envelope(), qos, packet_id, false, b"{}")
}

fn again(level: Level, qos: Qos, packet_id: u16) -> Vec<u8> {
    publish_to(level, &envelope(), qos, packet_id, true, b"{}")
}

fn pubrel(packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [0x62, 0x02, high, low]
}

const LEVELS: [Level; 2] = [Level::V3, Level::V5];
