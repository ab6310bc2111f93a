//! The protocol, byte by byte and commit by commit.

use bytes::BytesMut;
use clinical_model::FrameKind;
use mqtt_protocol_core::mqtt::packet::{TopicAlias, UserProperty, v3_1_1, v5_0};
use proptest::prelude::*;

use super::*;
use crate::mqtt::limits::{MAX_COMMANDS_IN_FLIGHT, MAX_FILTERS};

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

#[test]
fn nothing_is_answered_before_its_commit_and_answers_keep_the_order_of_messages() {
    for level in LEVELS {
        let mut line = Line::open(level);
        let mut bytes = publish(level, Qos::AtLeastOnce, 1);
        bytes.extend(publish(level, Qos::ExactlyOnce, 2));
        bytes.extend(publish(level, Qos::AtMostOnce, 0));
        bytes.extend(publish(level, Qos::AtLeastOnce, 3));
        let tickets = line.tickets(&bytes);
        assert_eq!(tickets.len(), 4);
        assert_eq!(line.acks(), [], "{level:?}: nothing is committed yet");
        for late in [3, 2, 1] {
            line.protocol.settle(tickets[late], Ok(()));
            assert_eq!(line.acks(), [], "{level:?}: the first is not committed yet");
        }
        line.protocol.settle(tickets[0], Ok(()));
        assert_eq!(line.acks(), [(PUBACK, 1, 0), (PUBREC, 2, 0), (PUBACK, 3, 0)], "{level:?}");
        line.feed(&pubrel(2));
        assert_eq!(line.acks(), [(PUBCOMP, 2, 0)]);
        assert_eq!(line.protocol.closing(), None);
    }
}

#[test]
fn delivery_and_kind_come_from_qos_and_topic() {
    let mut line = Line::open(Level::V5);
    let topic = format!("auscult/v1/{OWN}/gatt/2a35");
    let mut bytes = publish_to(Level::V5, &topic, Qos::AtMostOnce, 0, false, &[1, 2]);
    bytes.extend(publish_to(Level::V5, &topic, Qos::AtLeastOnce, 9, false, &[3]));
    let asked = line.feed(&bytes);
    let [Request::Frame(first), Request::Frame(second)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((first.kind, first.delivery), (FrameKind::Gatt(0x2a35), Delivery::AtMostOnce));
    assert_eq!((second.bytes.as_slice(), second.delivery), ([3].as_slice(), Delivery::AtLeastOnce));
    assert_eq!(first.device, OWN.parse().unwrap());
}

#[test]
fn a_repeated_qos_2_message_is_never_answered_before_the_first_copy_is_committed() {
    for level in LEVELS {
        let mut line = Line::open(level);
        let tickets = line.tickets(&publish(level, Qos::ExactlyOnce, 5));
        assert_eq!(line.tickets(&again(level, Qos::ExactlyOnce, 5)), NONE, "it is not submitted twice");
        assert_eq!(line.acks(), [], "{level:?}: the commit of the first copy is pending");
        line.protocol.settle(tickets[0], Ok(()));
        assert_eq!(line.acks(), [(PUBREC, 5, 0)], "{level:?}: one answer for both");
        assert_eq!(line.tickets(&again(level, Qos::ExactlyOnce, 5)), NONE);
        assert_eq!(line.acks(), [(PUBREC, 5, 0)], "{level:?}: it is on disk, so it is answered at once");
        line.feed(&pubrel(5));
        assert_eq!(line.acks(), [(PUBCOMP, 5, 0)]);
        assert_eq!(line.tickets(&publish(level, Qos::ExactlyOnce, 5)).len(), 1, "the id is free again");
    }
}

#[test]
fn a_repeated_qos_1_message_gets_one_answer() {
    for level in LEVELS {
        let mut line = Line::open(level);
        let mut bytes = publish(level, Qos::AtLeastOnce, 5);
        bytes.extend(publish(level, Qos::AtLeastOnce, 6));
        bytes.extend(again(level, Qos::AtLeastOnce, 5));
        let tickets = line.tickets(&bytes);
        assert_eq!(tickets.len(), 2);
        line.protocol.settle(tickets[0], Ok(()));
        // From here the client may reuse the id: an answer for the repeat would acknowledge the new message.
        let reused = line.tickets(&publish(level, Qos::AtLeastOnce, 5));
        line.protocol.settle(tickets[1], Ok(()));
        assert_eq!(line.acks(), [(PUBACK, 5, 0), (PUBACK, 6, 0)]);
        line.protocol.settle(reused[0], Ok(()));
        assert_eq!(line.acks(), [(PUBACK, 5, 0)]);
    }
}

#[test]
fn an_id_in_use_cannot_bear_another_message() {
    for (first, second) in [
        (publish(Level::V5, Qos::AtLeastOnce, 5), publish(Level::V5, Qos::AtLeastOnce, 5)),
        (publish(Level::V5, Qos::AtLeastOnce, 5), again(Level::V5, Qos::ExactlyOnce, 5)),
    ] {
        let mut line = Line::open(Level::V5);
        line.feed(&first);
        line.feed(&second);
        assert_eq!(line.disconnect_reason(), Some(0x82));
        assert!(line.protocol.closing().is_some());
    }
}

#[test]
fn what_was_never_received_cannot_be_released() {
    let mut line = Line::open(Level::V5);
    line.feed(&pubrel(77));
    assert_eq!(line.acks(), [(PUBCOMP, 77, 0x92)]);
    let mut line = Line::open(Level::V3);
    line.feed(&pubrel(77));
    assert_eq!(line.acks(), [(PUBCOMP, 77, 0)], "version 3.1.1 knows no reasons");
    let mut line = Line::open(Level::V5);
    line.feed(&publish(Level::V5, Qos::ExactlyOnce, 5));
    line.feed(&pubrel(5));
    assert_eq!(line.disconnect_reason(), Some(0x82), "released before it was answered");
}

#[test]
fn a_foreign_or_wrong_topic_is_refused_with_its_reason() {
    for (topic, reason) in [
        (format!("auscult/v1/{OTHER}/envelope"), 0x87),
        (format!("auscult/v1/{OWN}/command"), 0x87),
        ("home/gateway".to_owned(), 0x87),
        (format!("auscult/v1/{OWN}/nonsense"), 0x90),
        (format!("auscult/v1/{OWN}/+"), 0x90),
        (format!("auscult/v1/{OWN}/enve\0lope"), 0x90),
    ] {
        let with = |level, qos| {
            // The library refuses to build such topics for good reasons; a hostile client does not ask it.
            let stand_in = "x".repeat(topic.len());
            let mut bytes = publish_to(level, &stand_in, qos, 8, false, b"{}");
            let at = bytes.windows(topic.len()).position(|window| window == stand_in.as_bytes()).unwrap();
            bytes[at..at + topic.len()].copy_from_slice(topic.as_bytes());
            bytes
        };
        let mut line = Line::open(Level::V5);
        assert_eq!(line.tickets(&with(Level::V5, Qos::AtLeastOnce)), NONE);
        assert_eq!(line.acks(), [(PUBACK, 8, reason)], "{topic:?}");
        assert_eq!(line.tickets(&with(Level::V5, Qos::ExactlyOnce)), NONE);
        assert_eq!(line.acks(), [(PUBREC, 8, reason)], "{topic:?}");
        assert_eq!(line.protocol.closing(), None);
        assert_eq!(line.tickets(&with(Level::V5, Qos::AtMostOnce)), NONE);
        assert_eq!(line.disconnect_reason(), Some(reason), "{topic:?}");
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let mut line = Line::open(Level::V3);
            assert_eq!(line.tickets(&with(Level::V3, qos)), NONE);
            assert_eq!(line.acks(), [], "version 3.1.1 cannot refuse: the connection ends unanswered");
            assert!(line.protocol.closing().is_some());
        }
    }
}

#[test]
fn a_refusal_waits_for_its_turn() {
    let mut line = Line::open(Level::V5);
    let tickets = line.tickets(&publish(Level::V5, Qos::AtLeastOnce, 1));
    let foreign = format!("auscult/v1/{OTHER}/envelope");
    line.feed(&publish_to(Level::V5, &foreign, Qos::AtLeastOnce, 2, false, b"{}"));
    assert_eq!(line.acks(), []);
    line.protocol.settle(tickets[0], Ok(()));
    assert_eq!(line.acks(), [(PUBACK, 1, 0), (PUBACK, 2, 0x87)]);
}

#[test]
fn what_intake_refuses_is_refused_with_a_reason_or_left_unanswered() {
    for (refusal, answer, farewell) in [
        (Refusal::Full, Some(0x97), None),
        (Refusal::TooLarge, Some(0x97), None),
        (Refusal::NotAuthorized, Some(0x87), None),
        (Refusal::Stopping, None, Some(0x8b)),
        (Refusal::NotKept, None, Some(0x80)),
    ] {
        let mut line = Line::open(Level::V5);
        let tickets = line.tickets(&publish(Level::V5, Qos::AtLeastOnce, 4));
        line.protocol.settle(tickets[0], Err(refusal));
        let answers = line.answers();
        assert_eq!(answers.len(), 1, "{refusal:?}");
        let (first, body) = &answers[0];
        match (answer, farewell) {
            (Some(reason), _) => assert_eq!((*first, body[2]), (PUBACK, reason), "{refusal:?}"),
            (_, reason) => assert_eq!((*first, Some(body[0])), (DISCONNECT, reason), "{refusal:?}"),
        }
        let mut line = Line::open(Level::V3);
        let tickets = line.tickets(&publish(Level::V3, Qos::AtLeastOnce, 4));
        line.protocol.settle(tickets[0], Err(refusal));
        assert_eq!((line.answers(), line.protocol.closing()), (vec![], Some(Closing::Refused(refusal))));
    }
}

#[test]
fn a_refused_qos_2_id_is_free_again() {
    let mut line = Line::open(Level::V5);
    let tickets = line.tickets(&publish(Level::V5, Qos::ExactlyOnce, 4));
    line.protocol.settle(tickets[0], Err(Refusal::Full));
    assert_eq!(line.acks(), [(PUBREC, 4, 0x97)]);
    assert_eq!(line.tickets(&publish(Level::V5, Qos::ExactlyOnce, 4)).len(), 1);
}

#[test]
fn the_socket_is_left_alone_while_too_much_is_in_flight() {
    for level in LEVELS {
        let mut line = Line::open(level);
        let most = usize::from(RECEIVE_MAXIMUM);
        let bytes: Vec<u8> =
            (1..=RECEIVE_MAXIMUM + 1).flat_map(|id| publish(level, Qos::AtLeastOnce, id)).collect();
        let tickets = line.tickets(&bytes);
        assert_eq!(tickets.len(), most, "{level:?}");
        assert!(!line.protocol.takes_input());
        line.protocol.settle(tickets[0], Ok(()));
        assert!(line.protocol.takes_input());
        assert_eq!(line.tickets(&[]).len(), 1, "the rest was waiting in the input");
    }
    let mut line = Line::open(Level::V5);
    let half = vec![b' '; MAX_IN_FLIGHT_BYTES / 2];
    let large = |id| publish_to(Level::V5, &envelope(), Qos::AtLeastOnce, id, false, &half);
    assert_eq!(line.tickets(&[large(1), large(2), large(3)].concat()).len(), 2);
    assert!(!line.protocol.takes_input());
}

#[test]
fn a_client_that_overruns_the_receive_maximum_is_disconnected() {
    let mut line = Line::open(Level::V5);
    for id in 1..=RECEIVE_MAXIMUM {
        let tickets = line.tickets(&publish(Level::V5, Qos::ExactlyOnce, id));
        line.protocol.settle(tickets[0], Ok(()));
    }
    line.answers();
    assert_eq!(line.tickets(&publish(Level::V5, Qos::ExactlyOnce, RECEIVE_MAXIMUM + 1)), NONE);
    assert_eq!(line.disconnect_reason(), Some(0x93));
}

#[test]
fn a_version_3_client_that_never_releases_is_disconnected() {
    let mut line = Line::open(Level::V3);
    for id in 1..=u16::try_from(MAX_UNRELEASED).unwrap() {
        let tickets = line.tickets(&publish(Level::V3, Qos::ExactlyOnce, id));
        line.protocol.settle(tickets[0], Ok(()));
    }
    assert_eq!(line.protocol.closing(), None);
    assert_eq!(line.tickets(&publish(Level::V3, Qos::ExactlyOnce, 60_000)), NONE);
    assert_eq!(line.protocol.closing(), Some(Closing::Violation(MqttError::ReceiveMaximumExceeded)));
}

#[test]
fn a_packet_that_is_too_large_is_refused_at_its_header() {
    // PUBLISH of 10 MiB: only the header arrives.
    let header = [0x32, 0x80, 0x80, 0x80, 0x05];
    let mut line = Line::open(Level::V5);
    line.feed(&header);
    assert_eq!(line.disconnect_reason(), Some(0x95));
    let mut line = Line::open(Level::V3);
    line.feed(&header);
    assert!(line.protocol.closing().is_some());
    let largest = vec![0; MAX_PACKET_BYTES - 200];
    let mut line = Line::open(Level::V5);
    assert_eq!(
        line.tickets(&publish_to(Level::V5, &envelope(), Qos::AtLeastOnce, 1, false, &largest)).len(),
        1
    );
}

#[test]
fn before_connect_nothing_else_is_heard() {
    for bytes in
        [publish(Level::V5, Qos::AtLeastOnce, 1), pubrel(1).to_vec(), vec![0xc0, 0x00], vec![0x00, 0x00]]
    {
        let mut line = Line::silent();
        assert!(line.feed(&bytes).is_empty());
        assert!(line.protocol.closing().is_some());
        assert_eq!(line.answers(), [], "whoever does not introduce itself gets no answer");
    }
}

#[test]
fn an_old_version_is_told_so() {
    let mut line = Line::silent();
    line.feed(b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01x");
    assert_eq!(line.answers(), [(0x20, vec![0x00, 0x01])]);
    assert_eq!(line.protocol.closing(), Some(Closing::Violation(MqttError::UnsupportedProtocolVersion)));
}

#[test]
fn a_second_connect_ends_the_connection() {
    let mut line = Line::open(Level::V5);
    assert!(line.feed(&connect(Level::V5)).is_empty());
    assert_eq!(line.disconnect_reason(), Some(0x82));
    let mut line = Line::open(Level::V3);
    assert!(line.feed(&connect(Level::V3)).is_empty());
    assert!(line.protocol.closing().is_some());
}

#[test]
fn broken_packets_end_the_connection() {
    let cases: [(&str, &[u8], u8); 9] = [
        ("PUBREL without its flags", &[0x60, 0x02, 0x00, 0x01], 0x81),
        ("SUBSCRIBE without its flags", &[0x80, 0x06, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00], 0x81),
        ("QoS 3", &[0x36, 0x05, 0x00, 0x01, b'a', 0x00, 0x01], 0x81),
        ("QoS 0 that claims to be a repeat", &[0x38, 0x04, 0x00, 0x01, b'a', 0x00], 0x81),
        ("packet id 0", &[0x32, 0x06, 0x00, 0x01, b'a', 0x00, 0x00, 0x00], 0x82),
        ("topic longer than the packet", &[0x32, 0x05, 0x00, 0x09, b'a', 0x00, 0x01], 0x81),
        ("topic that is no UTF-8", &[0x32, 0x06, 0x00, 0x01, 0xff, 0x00, 0x01, 0x00], 0x81),
        ("a length without end", &[0x32, 0xff, 0xff, 0xff, 0xff, 0x01], 0x81),
        ("CONNACK from a client", &[0x20, 0x03, 0x00, 0x00, 0x00], 0x82),
    ];
    for (name, bytes, reason) in cases {
        let mut line = Line::open(Level::V5);
        assert!(line.feed(bytes).is_empty(), "{name}");
        assert!(line.protocol.closing().is_some(), "{name}");
        assert_eq!(line.disconnect_reason(), Some(reason), "{name}");
    }
}

#[test]
fn half_a_packet_waits_for_the_rest() {
    let mut line = Line::open(Level::V5);
    let bytes = publish(Level::V5, Qos::AtLeastOnce, 1);
    for byte in &bytes[..bytes.len() - 1] {
        assert!(line.feed(&[*byte]).is_empty());
        assert!(line.protocol.is_amid_packet());
    }
    assert_eq!(line.tickets(&bytes[bytes.len() - 1..]).len(), 1);
    assert!(!line.protocol.is_amid_packet());
}

#[test]
fn topic_aliases_stand_for_their_topics() {
    let alias = |topic: &str, number: u16, id: u16| {
        v5_0::Publish::builder()
            .topic_name(topic)
            .unwrap()
            .qos(Qos::AtLeastOnce)
            .packet_id(id)
            .props(vec![TopicAlias::new(number).unwrap().into()])
            .payload(b"{}".to_vec())
            .build()
            .unwrap()
            .to_continuous_buffer()
    };
    let mut line = Line::open(Level::V5);
    assert_eq!(line.tickets(&alias(&envelope(), 3, 1)).len(), 1);
    assert_eq!(line.tickets(&alias("", 3, 2)).len(), 1);
    line.feed(&alias("", 4, 3));
    assert_eq!(line.disconnect_reason(), Some(0x94));
}

#[test]
fn a_flood_of_user_properties_is_refused() {
    let flood = |count: usize| {
        let props = (0..count).map(|_| UserProperty::new("a", "b").unwrap().into()).collect::<Vec<_>>();
        v5_0::Publish::builder()
            .topic_name(envelope())
            .unwrap()
            .qos(Qos::AtLeastOnce)
            .packet_id(1_u16)
            .props(props)
            .payload(b"{}".to_vec())
            .build()
            .unwrap()
            .to_continuous_buffer()
    };
    let mut line = Line::open(Level::V5);
    line.feed(&flood(MAX_USER_PROPERTIES + 1));
    assert_eq!(line.acks(), [(PUBACK, 1, 0x83)]);
    assert_eq!(line.tickets(&flood(MAX_USER_PROPERTIES)).len(), 1);
}

#[test]
fn a_status_is_told_at_once_and_anything_else_is_no_status() {
    let status = |payload: &[u8]| {
        let topic = format!("auscult/v1/{OWN}/status");
        publish_to(Level::V5, &topic, Qos::AtLeastOnce, 1, false, payload)
    };
    let mut line = Line::open(Level::V5);
    for (payload, expected) in [(b"online".as_slice(), true), (b"offline", false)] {
        let asked = line.feed(&status(payload));
        assert!(matches!(asked[..], [Request::Status { online, .. }] if online == expected), "{asked:?}");
        assert_eq!(line.acks(), [(PUBACK, 1, 0)]);
    }
    assert!(line.feed(&status(b"asleep")).is_empty());
    assert_eq!(line.acks(), [(PUBACK, 1, 0x99)]);
}

fn subscribe(level: Level, filters: &[&str]) -> Vec<u8> {
    use mqtt_protocol_core::mqtt::packet::{SubEntry, SubOpts};
    let entries = filters
        .iter()
        .map(|filter| SubEntry::new(*filter, SubOpts::new().set_qos(Qos::ExactlyOnce)).unwrap())
        .collect::<Vec<_>>();
    match level {
        Level::V3 => v3_1_1::Subscribe::builder()
            .packet_id(7_u16)
            .entries(entries)
            .build()
            .unwrap()
            .to_continuous_buffer(),
        Level::V5 => v5_0::Subscribe::builder()
            .packet_id(7_u16)
            .entries(entries)
            .build()
            .unwrap()
            .to_continuous_buffer(),
    }
}

#[test]
fn a_device_subscribes_to_its_own_commands_and_to_nothing_else() {
    let own = format!("auscult/v1/{OWN}/command");
    let filters = [
        own.as_str(),
        "#",
        "$share/g/auscult/v1/+/envelope",
        "auscult/v1/+/command",
        "auscult/v1/01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b12/command",
    ];
    for (level, refused) in [(Level::V3, 0x80), (Level::V5, 0x87)] {
        let mut line = Line::open(level);
        assert!(!line.protocol.is_subscribed());
        line.feed(&subscribe(level, &filters));
        let answers = line.answers();
        assert_eq!(answers[0].0, SUBACK);
        assert!(answers[0].1.ends_with(&[1, refused, refused, refused, refused]), "{answers:?}");
        assert!(line.protocol.is_subscribed());
        let many = vec![own.as_str(); MAX_FILTERS + 1];
        line.feed(&subscribe(level, &many));
        assert!(line.answers()[0].1.ends_with(&[refused; MAX_FILTERS + 1]));
    }
}

#[test]
fn unsubscribing_ends_the_commands() {
    let own = format!("auscult/v1/{OWN}/command");
    let mut line = Line::open(Level::V5);
    line.feed(&subscribe(Level::V5, &[&own]));
    line.answers();
    let unsubscribe = v5_0::Unsubscribe::builder()
        .packet_id(9_u16)
        .entries(vec![own.as_str(), own.as_str()])
        .unwrap()
        .build()
        .unwrap()
        .to_continuous_buffer();
    line.feed(&unsubscribe);
    assert_eq!(line.answers(), [(UNSUBACK, vec![0, 9, 0, 0x00, 0x11])]);
    assert!(!line.protocol.is_subscribed() && !line.protocol.takes_command());
}

#[test]
fn commands_are_bounded_and_sent_again_in_the_next_connection() {
    for level in LEVELS {
        let mut line = Line::open(level);
        line.feed(&subscribe(level, &[&format!("auscult/v1/{OWN}/command")]));
        line.answers();
        for n in 0..MAX_COMMANDS_IN_FLIGHT {
            assert!(line.protocol.takes_command(), "{n}");
            line.protocol.send_command(vec![u8::try_from(n).unwrap()]);
        }
        assert!(!line.protocol.takes_command());
        let sent = line.answers();
        assert_eq!(sent.len(), MAX_COMMANDS_IN_FLIGHT);
        assert!(sent.iter().all(|(first, _)| *first == 0x32), "QoS 1, for the first time");
        let topic = 2 + format!("auscult/v1/{OWN}/command").len();
        let first_id = [sent[0].1[topic], sent[0].1[topic + 1]];
        line.feed(&[0x40, 0x02, first_id[0], first_id[1]]);
        assert!(line.protocol.takes_command());

        let mut line = Line::resumed_with_answers(level, line.protocol.into_kept());
        let again = line.answers();
        assert_eq!(again.len(), MAX_COMMANDS_IN_FLIGHT, "CONNACK and all but the acknowledged one");
        assert_eq!(again[1].0, 0x3a, "QoS 1, repeated");
        assert_eq!(again[1].1, sent[1].1, "with its id");
    }
}

#[test]
fn a_client_that_takes_few_commands_at_a_time_gets_the_rest_later() {
    use mqtt_protocol_core::mqtt::packet::ReceiveMaximum;
    let mut line = Line::silent();
    let connect = v5_0::Connect::builder()
        .client_id(OWN)
        .unwrap()
        .props(vec![ReceiveMaximum::new(1).unwrap().into()])
        .build()
        .unwrap();
    line.feed(&connect.to_continuous_buffer());
    let command = |packet_id| Command { packet_id, bytes: vec![1], sent: true, repeated: false };
    let kept = Kept {
        subscription: Some(Qos::AtLeastOnce),
        commands: [command(3), command(4)].into(),
        ..Kept::default()
    };
    line.protocol.accept(Peer::Device(OWN.parse().unwrap()), &Grant::default(), kept);
    assert_eq!(line.answers().len(), 2, "CONNACK and one command");
    line.feed(&[0x40, 0x02, 0x00, 0x03]);
    assert_eq!(line.answers().len(), 1, "then the other");
    line.feed(&[0x40, 0x02, 0x00, 0x04]);
    assert!(line.protocol.takes_command());
}

#[test]
fn received_ids_are_remembered_in_the_next_connection() {
    for level in LEVELS {
        let mut line = Line::open(level);
        let tickets = line.tickets(&publish(level, Qos::ExactlyOnce, 5));
        line.protocol.settle(tickets[0], Ok(()));
        let mut line = Line::resumed(level, line.protocol.into_kept());
        assert_eq!(
            line.tickets(&again(level, Qos::ExactlyOnce, 5)),
            NONE,
            "{level:?}: it was received before"
        );
        assert_eq!(line.acks(), [(PUBREC, 5, 0)]);
        line.feed(&pubrel(5));
        assert_eq!(line.acks(), [(PUBCOMP, 5, 0)]);
    }
}

#[test]
fn a_commit_that_ends_after_the_connection_is_remembered() {
    let mut line = Line::open(Level::V5);
    let tickets = line.tickets(&publish(Level::V5, Qos::ExactlyOnce, 5));
    line.protocol.disconnect(DisconnectReasonCode::SessionTakenOver);
    line.protocol.settle(tickets[0], Ok(()));
    assert!(line.protocol.into_kept().unreleased.contains(&5));
}

#[test]
fn goodbye_carries_its_will_and_its_session() {
    let mut line = Line::open(Level::V5);
    let asked = line.feed(&[0xe0, 0x07, 0x04, 0x05, 0x11, 0x00, 0x00, 0x00, 0x3c]);
    let expected = Some(60);
    assert!(
        matches!(asked[..], [Request::Goodbye { with_will: true, session_expiry_s }] if session_expiry_s == expected),
        "{asked:?}"
    );
    let mut line = Line::open(Level::V3);
    let asked = line.feed(&[0xe0, 0x00]);
    assert!(matches!(asked[..], [Request::Goodbye { with_will: false, session_expiry_s: None }]));
}

#[test]
fn pings_are_answered() {
    for level in LEVELS {
        let mut line = Line::open(level);
        line.feed(&[0xc0, 0x00]);
        assert_eq!(line.answers(), [(0xd0, vec![])]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// No bytes bring the state machine down, before or after CONNECT, and none are taken for a message of
    /// another device.
    #[test]
    fn no_bytes_do_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        first in proptest::sample::select(vec![0x10_u8, 0x30, 0x32, 0x34, 0x3a, 0x40, 0x62, 0x70, 0x82, 0xa2, 0xc0, 0xe0, 0xf0]),
        opened in proptest::option::of(proptest::sample::select(LEVELS.to_vec())),
    ) {
        let mut line = opened.map_or_else(Line::silent, Line::open);
        let mut packet = vec![first];
        let length = bytes.len();
        packet.extend(if length < 128 { vec![length as u8] } else { vec![(length % 128) as u8 | 0x80, (length / 128) as u8] });
        packet.extend(&bytes);
        for request in line.feed(&packet) {
            if let Request::Frame(frame) = request {
                prop_assert_eq!(frame.device, OWN.parse().unwrap());
            }
        }
    }

    /// The same for sound packets with one byte changed.
    #[test]
    fn no_changed_byte_does_harm(
        level in proptest::sample::select(LEVELS.to_vec()),
        which in 0_usize..5,
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut packet = match which {
            0 => connect(level),
            1 => publish(level, Qos::AtLeastOnce, 1),
            2 => publish(level, Qos::ExactlyOnce, 2),
            3 => subscribe(level, &["auscult/v1/01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11/command"]),
            _ => pubrel(3).to_vec(),
        };
        let at = at.index(packet.len());
        packet[at] = byte;
        let mut line = if which == 0 { Line::silent() } else { Line::open(level) };
        line.feed(&packet);
    }
}
