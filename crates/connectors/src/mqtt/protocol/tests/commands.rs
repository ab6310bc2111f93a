//! Subscriptions, and commands on their way to a device.

use mqtt_protocol_core::mqtt::packet::{ReceiveMaximum, SubEntry, SubOpts};

use super::*;
use crate::mqtt::limits::{MAX_COMMANDS_IN_FLIGHT, MAX_FILTERS};

pub(super) fn subscribe(level: Level, filters: &[&str]) -> Vec<u8> {
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
        "$share/g/auscult/v1/x/envelope",
        "auscult/v1/+/command",
        "auscult/v1/01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b12/command",
    ];
    for (level, expected, too_many) in
        [(Level::V3, [1, 0x80, 0x80, 0x80, 0x80], 0x80), (Level::V5, [1, 0xa2, 0x9e, 0xa2, 0x87], 0x97)]
    {
        let mut line = Line::open(level);
        assert!(!line.protocol.is_subscribed());
        line.feed(&subscribe(level, &filters));
        let answers = line.answers();
        assert_eq!(answers[0].0, SUBACK);
        assert!(answers[0].1.ends_with(&expected), "{answers:?}");
        assert!(line.protocol.is_subscribed());
        let many = vec![own.as_str(); MAX_FILTERS + 1];
        line.feed(&subscribe(level, &many));
        assert!(line.answers()[0].1.ends_with(&[too_many; MAX_FILTERS + 1]));
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
