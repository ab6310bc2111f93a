//! Delivery: what is acknowledged is on disk, once, and in order.

use clinical_model::{Delivery, DeviceId, FrameKind};
use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait as _, Packet, Qos};
use trust::pki::PeerUri;

use crate::client::{Client, Line, VERSIONS, Wish, heart_rate, publish};
use crate::house::{House, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn every_quality_of_service_is_served_in_both_versions() {
    let mut house = House::open().await;
    for version in VERSIONS {
        let device = house.device();
        let (mut client, present) = Client::open(&house, &device, &Wish::of(version)).await;
        assert!(!present);
        for (qos, value) in [(Qos::AtLeastOnce, 71), (Qos::ExactlyOnce, 72)] {
            let id = client.publish(&device.envelope(), qos, &heart_rate(value)).await;
            client.await_delivery(id).await;
            let last = house.committed().pop().unwrap();
            assert_eq!(
                (last.device, last.kind),
                (device.id, FrameKind::Envelope),
                "it was on disk when answered"
            );
            assert_eq!(last.delivery, Delivery::AtLeastOnce);
        }
        let before = house.committed().len();
        client.publish(&device.envelope(), Qos::AtMostOnce, &heart_rate(73)).await;
        until("QoS 0 is committed too", || house.committed().len() == before + 1).await;
        assert_eq!(house.committed().pop().unwrap().delivery, Delivery::AtMostOnce);
        client.goodbye().await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_messages_are_answered_in_order_and_none_is_missing() {
    const COUNT: usize = 300;
    let beat = |id: u16| u32::from(id) % 100 + 50;
    let mut house = House::open().await;
    for version in VERSIONS {
        let device = house.device();
        let (mut client, _) = Client::open(&house, &device, &Wish::of(version)).await;
        // Bytes by hand: version 5 clients that follow the protocol would pause at the Receive Maximum.
        let ids: Vec<u16> = (1..=u16::try_from(COUNT).unwrap()).collect();
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|id| {
                let payload = heart_rate(beat(*id));
                publish(version, &device.envelope(), Qos::AtLeastOnce, *id, false, &payload)
                    .to_continuous_buffer()
            })
            .collect();
        let before = house.committed_values().len();
        client.line.send(&bytes).await;
        let mut answered = Vec::new();
        while answered.len() < COUNT {
            let (first, body) = client.line.receive().await.expect("the server goes on");
            assert_eq!(first, 0x40, "PUBACK");
            answered.push(u16::from_be_bytes([body[0], body[1]]));
        }
        assert_eq!(answered, ids, "{version:?}");
        let values: Vec<String> = ids.iter().map(|id| beat(*id).to_string()).collect();
        assert_eq!(house.committed_values().split_off(before), values, "{version:?}: committed in order");
        client.goodbye().await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_repeated_after_a_reconnect_is_committed_once_within_its_session() {
    let mut house = House::open().await;
    for version in VERSIONS {
        let device = house.device();
        let (mut client, _) = Client::open(&house, &device, &Wish::resuming(version)).await;
        let message = |dup| {
            publish(version, &device.envelope(), Qos::ExactlyOnce, 9, dup, &heart_rate(66))
                .to_continuous_buffer()
        };
        let before = house.committed().len();
        client.line.send(&message(false)).await;
        assert_eq!(client.line.receive().await.unwrap().0, 0x50, "PUBREC");
        client.line.cut();

        let (mut client, present) = Client::open(&house, &device, &Wish::resuming(version)).await;
        assert!(present, "{version:?}: the session lives");
        client.line.send(&message(true)).await;
        assert_eq!(client.line.receive().await.unwrap().0, 0x50, "PUBREC");
        client.line.send(&[0x62, 0x02, 0x00, 0x09]).await;
        assert_eq!(client.line.receive().await.unwrap().0, 0x70, "PUBCOMP");
        assert_eq!(house.committed().len(), before + 1, "{version:?}");

        // The id is free now: the same id is another message.
        client.line.send(&message(false)).await;
        assert_eq!(client.line.receive().await.unwrap().0, 0x50);
        assert_eq!(house.committed().len(), before + 2);
        client.line.cut();

        let (mut client, present) = Client::open(&house, &device, &Wish::of(version)).await;
        assert!(!present, "{version:?}: a clean start ends the session");
        client.line.send(&message(true)).await;
        assert_eq!(client.line.receive().await.unwrap().0, 0x50);
        assert_eq!(house.committed().len(), before + 3, "its identity will make it harmless");
        client.goodbye().await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_the_stop_is_acknowledged_and_the_client_is_told() {
    const COUNT: u16 = 50;
    let mut house = House::open().await;
    let device = house.device();
    let (mut client, _) = Client::open(&house, &device, &Wish::of(Version::V5_0)).await;
    for id in 1..=COUNT {
        let message =
            publish(Version::V5_0, &device.envelope(), Qos::AtLeastOnce, id, false, &heart_rate(60));
        client.line.send(&message.to_continuous_buffer()).await;
    }
    let mut packets = vec![client.line.receive().await.unwrap()];
    house.begin_stop();
    packets.extend(client.line.receive_to_end().await);
    let (first, body) = packets.pop().unwrap();
    assert_eq!((first, body[0]), (0xe0, 0x8b), "DISCONNECT: server shutting down");
    assert!(packets.iter().all(|(first, _)| *first == 0x40), "{packets:?}");
    house.stop().await;
    assert_eq!(
        packets.len(),
        house.committed().len(),
        "acknowledged is committed, and committed is acknowledged"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_sends_for_any_device() {
    let mut house = House::open().await;
    let device = house.device();
    let hub = house.issue(PeerUri::program("hub").unwrap());
    house.let_send("hub", "system/Observation.c");
    let mut line = Line::open(&house, &hub).await;
    line.send(&Wish::of(Version::V5_0).bytes("hub-live")).await;
    assert_eq!(line.receive().await.unwrap().1[1], 0, "accepted");
    let message = |topic: &str, id| {
        publish(Version::V5_0, topic, Qos::AtLeastOnce, id, false, &heart_rate(61)).to_continuous_buffer()
    };
    line.send(&message(&device.envelope(), 1)).await;
    assert_eq!(line.receive().await.unwrap(), (0x40, vec![0, 1]));
    assert_eq!(house.committed().pop().unwrap().device, device.id);
    let unknown = format!("auscult/v1/{}/envelope", DeviceId::from_bytes([7; 16]));
    line.send(&message(&unknown, 2)).await;
    assert_eq!(line.receive().await.unwrap().1[..3], [0, 2, 0x87], "no such device is registered");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_without_the_scope_to_write_sends_nothing() {
    let mut house = House::open().await;
    let hub = house.issue(PeerUri::program("hub").unwrap());
    let refused = async |house: &House| {
        let mut line = Line::open(house, &hub).await;
        line.send(&Wish::of(Version::V5_0).bytes("hub-live")).await;
        line.receive().await.unwrap().1[1]
    };
    assert_eq!(refused(&house).await, 0x87, "not registered: reads only");
    for narrow in ["system/*.rs", "system/Patient.cruds", "system/Observation.cruds?category=laboratory"] {
        house.let_send("hub", narrow);
        assert_eq!(refused(&house).await, 0x87, "{narrow}");
    }
    // A connection that stands ends with the scope.
    house.let_send("hub", "system/*.cruds");
    let mut line = Line::open(&house, &hub).await;
    line.send(&Wish::of(Version::V5_0).bytes("hub-live")).await;
    assert_eq!(line.receive().await.unwrap().1[1], 0, "accepted");
    house.let_send("hub", "system/*.rs");
    let (kind, body) = line.receive().await.unwrap();
    assert_eq!((kind, body[0]), (0xE0, 0x87), "not authorised any more");
    assert!(line.receive().await.is_none(), "and closed");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_the_device_that_listens() {
    let mut house = House::open().await;
    for version in VERSIONS {
        let device = house.device();
        let (mut client, _) = Client::open(&house, &device, &Wish::resuming(version)).await;
        assert!(!house.site.live().command(device.id, b"early".to_vec()), "nobody listens yet");
        client.subscribe(&format!("auscult/v1/{}/command", device.id)).await;
        until("the device listens", || house.site.live().command(device.id, b"measure now".to_vec())).await;
        let (topic, payload) = loop {
            match client.receive().await {
                Some(Packet::V3_1_1Publish(p)) => {
                    break (p.topic_name().to_owned(), p.payload().as_slice().to_vec());
                }
                Some(Packet::V5_0Publish(p)) => {
                    break (p.topic_name().to_owned(), p.payload().as_slice().to_vec());
                }
                Some(_) => {}
                None => panic!("the server closed"),
            }
        };
        assert_eq!(
            (topic, payload.as_slice()),
            (format!("auscult/v1/{}/command", device.id), &b"measure now"[..])
        );
        client.goodbye().await;

        // While the session rests, commands wait for the device.
        until("the session rests", || house.site.live().heard(device.id).connected == Some(false)).await;
        assert!(house.site.live().command(device.id, b"later".to_vec()));
        let (mut client, present) = Client::open(&house, &device, &Wish::resuming(version)).await;
        assert!(present);
        let (first, body) = client.line.receive().await.unwrap();
        assert_eq!(first, 0x32, "QoS 1");
        assert!(body.ends_with(b"later"));
        client.line.cut();

        // Not acknowledged: it comes again, marked as a repeat.
        let (mut client, _) = Client::open(&house, &device, &Wish::resuming(version)).await;
        assert_eq!(client.line.receive().await.unwrap(), (0x3a, body));
        client.line.cut();
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_screens_are_told_of_every_link() {
    let mut house = House::open().await;
    let device = house.device();
    let connected = || house.site.live().heard(device.id).connected;
    assert_eq!(connected(), None);
    let (client, _) = Client::open(&house, &device, &Wish::of(Version::V5_0)).await;
    until("it is shown as connected", || connected() == Some(true)).await;
    client.goodbye().await;
    until("it is shown as away after its goodbye", || connected() == Some(false)).await;
    let (client, _) = Client::open(&house, &device, &Wish::of(Version::V3_1_1)).await;
    until("it is shown as connected again", || connected() == Some(true)).await;
    client.line.cut();
    until("it is shown as lost", || connected() == Some(false)).await;
    let (mut client, _) = Client::open(&house, &device, &Wish::of(Version::V5_0)).await;
    let status = format!("auscult/v1/{}/status", device.id);
    let id = client.publish(&status, Qos::AtLeastOnce, b"offline").await;
    client.await_delivery(id).await;
    assert_eq!(connected(), Some(false), "by its own word");
    assert!(house.committed().is_empty(), "a status is no measurement");
    within(client.goodbye()).await;
    house.stop().await;
}
