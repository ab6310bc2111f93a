//! What hostile and broken clients get.

use mqtt_protocol_core::mqtt::packet::UserProperty;
use proptest::prelude::*;

use super::commands::subscribe;
use super::*;

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
    let cases: [(&str, &[u8], u8); 10] = [
        ("PUBREL without its flags", &[0x60, 0x02, 0x00, 0x01], 0x81),
        ("SUBSCRIBE without its flags", &[0x80, 0x06, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00], 0x81),
        ("QoS 3", &[0x36, 0x05, 0x00, 0x01, b'a', 0x00, 0x01], 0x81),
        ("QoS 0 that claims to be a repeat", &[0x38, 0x04, 0x00, 0x01, b'a', 0x00], 0x81),
        ("a null character in the topic", &[0x32, 0x06, 0x00, 0x02, b'a', 0x00, 0x00, 0x01, 0x00], 0x81),
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
