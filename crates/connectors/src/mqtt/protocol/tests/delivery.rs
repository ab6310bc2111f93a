//! Delivery: the order and the moment of answers, and what is asked of the driver.

use clinical_model::FrameKind;
use mqtt_protocol_core::mqtt::packet::{SessionExpiryInterval, TopicAlias};

use super::*;

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
    let prolonging = [0xe0, 0x07, 0x04, 0x05, 0x11, 0x00, 0x00, 0x00, 0x3c];
    let mut line = Line::open(Level::V5);
    assert!(line.feed(&prolonging).is_empty(), "CONNECT asked for no session");
    assert_eq!(line.disconnect_reason(), Some(0x82));
    let mut line = Line::silent();
    let keeping = v5_0::Connect::builder().client_id(OWN).unwrap();
    let keeping = keeping.props(vec![SessionExpiryInterval::new(60).unwrap().into()]).build().unwrap();
    line.feed(&keeping.to_continuous_buffer());
    line.protocol.accept(Peer::Device(OWN.parse().unwrap()), &Grant::default(), Kept::default());
    let asked = line.feed(&prolonging);
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
