//! Framing, and that no bytes bring the checks down. What each check is for is shown over the wire, by the cases of
//! `tests/it/conformance/`.

use proptest::prelude::*;

use super::*;

#[test]
fn a_packet_is_found_when_all_of_it_is_there() {
    let beginning = Framed::Partial { bytes: None };
    assert_eq!(frame(&[], 100), beginning);
    assert_eq!(frame(&[0xc0], 100), beginning);
    assert_eq!(frame(&[0xc0, 0x00, 0xc0], 100), Framed::Whole { bytes: 2 });
    assert_eq!(frame(&[0x30, 0x80], 1_000), beginning);
    let mut packet = vec![0x30, 0x80, 0x01];
    assert_eq!(frame(&packet, 1_000), Framed::Partial { bytes: Some(131) });
    packet.resize(3 + 128, 0);
    assert_eq!(frame(&packet, 1_000), Framed::Whole { bytes: 131 });
    assert_eq!(frame(&packet, 130), Framed::TooLarge);
    assert_eq!(frame(&packet, 131), Framed::Whole { bytes: 131 });
}

#[test]
fn what_is_too_large_or_no_packet_is_known_from_its_header() {
    assert_eq!(frame(&[0x30, 0xff, 0xff, 0xff, 0x7f], 1 << 20), Framed::TooLarge);
    assert_eq!(frame(&[0x30, 0xff, 0xff, 0xff, 0xff], 1 << 20), Framed::Malformed);
    assert_eq!(frame(&[0x36], 100), Framed::Malformed, "QoS 3");
    assert_eq!(frame(&[0x38], 100), Framed::Malformed, "a repeat of QoS 0");
    assert_eq!(frame(&[0x3a], 100), Framed::Partial { bytes: None }, "a repeat of QoS 1");
}

#[test]
fn credentials_are_checked_and_dropped() {
    let with = b"\x10\x18\x00\x04MQTT\x04\xc2\x00\x3c\x00\x02me\x00\x03you\x00\x01x";
    let without = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02me";
    assert_eq!(connect(with).unwrap(), without);
    assert_eq!(connect(without).unwrap(), without);
}

proptest! {
    #[test]
    fn no_bytes_bring_the_checks_down(bytes in proptest::collection::vec(any::<u8>(), 0..100), first: u8) {
        let mut packet = vec![first, bytes.len() as u8];
        packet.extend(&bytes);
        let _ = frame(&packet, 1_000);
        let _ = connect(&packet);
        for level in [Level::V3, Level::V5] {
            let _ = check(level, &packet);
        }
    }
}
