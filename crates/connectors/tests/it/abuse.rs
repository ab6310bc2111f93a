//! Abuse: what hostile, broken and mistaken clients get, over the wire.

use std::time::Duration;

use connectors::mqtt::MqttOptions;
use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait as _, Qos, v3_1_1, v5_0};
use trust::pki::PeerUri;

use crate::client::{Client, Line, VERSIONS, Wish, heart_rate, publish};
use crate::house::{House, foreign_certificate, until};

/// The reason in a DISCONNECT that ends the list, if there is one.
fn farewell(packets: &[(u8, Vec<u8>)]) -> Option<u8> {
    packets.last().filter(|(first, _)| *first == 0xe0).map(|(_, body)| body[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_of_ours_nobody_gets_in() {
    let mut house = House::open().await;
    let device = house.device();
    let foreign = foreign_certificate(PeerUri::Device(*device.id.as_uuid()));
    for certificate in [None, Some(&foreign)] {
        // In TLS 1.3 the client learns of its refusal only when it reads.
        if let Ok(mut line) = Line::try_open(&house, certificate).await {
            let _ = line.try_send(&Wish::of(Version::V5_0).bytes(&device.id.to_string())).await;
            assert_eq!(line.receive_to_end().await, [], "no CONNACK, no word");
        }
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_admitted_is_told_so() {
    let mut house = House::open().await;
    let unknown = clinical_model::DeviceId::from_bytes([9; 16]);
    let certificate = house.issue(PeerUri::Device(*unknown.as_uuid()));
    for (version, code) in [(Version::V3_1_1, 5), (Version::V5_0, 0x87)] {
        let mut line = Line::open(&house, &certificate).await;
        line.send(&Wish::of(version).bytes(&unknown.to_string())).await;
        let packets = line.receive_to_end().await;
        assert_eq!(packets.len(), 1);
        assert_eq!((packets[0].0, packets[0].1[1]), (0x20, code), "{version:?}");
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_client_id_and_a_foreign_will_are_refused() {
    let mut house = House::open().await;
    let (device, other) = (house.device(), house.device());
    for (version, code) in [(Version::V3_1_1, 2), (Version::V5_0, 0x85)] {
        let mut line = Line::open(&house, &device.certificate).await;
        line.send(&Wish::of(version).bytes(&other.id.to_string())).await;
        assert_eq!(line.receive_to_end().await[0].1[1], code, "{version:?}");
    }
    let id = device.id.to_string();
    let topic = format!("auscult/v1/{}/status", other.id);
    let will_v3 = v3_1_1::Connect::builder().client_id(&id).unwrap();
    let will_v3 =
        will_v3.will_message(&topic, b"offline".to_vec(), Qos::AtMostOnce, false).unwrap().build().unwrap();
    let will_v5 = v5_0::Connect::builder().client_id(&id).unwrap();
    let will_v5 =
        will_v5.will_message(&topic, b"offline".to_vec(), Qos::AtMostOnce, false).unwrap().build().unwrap();
    for (bytes, code) in [(will_v3.to_continuous_buffer(), 5), (will_v5.to_continuous_buffer(), 0x87)] {
        let mut line = Line::open(&house, &device.certificate).await;
        line.send(&bytes).await;
        assert_eq!(line.receive_to_end().await[0].1[1], code);
    }
    assert_eq!(house.site.live().heard(device.id).connected, None, "it never was connected");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_ends_a_live_connection_and_opens_none() {
    let mut house = House::open().await;
    for version in VERSIONS {
        let device = house.device();
        let (mut client, _) = Client::open(&house, &device, &Wish::of(version)).await;
        let id = client.publish(&device.envelope(), Qos::AtLeastOnce, &heart_rate(80)).await;
        client.await_delivery(id).await;
        let before = house.committed().len();
        house.site.admission().set_revoked([device.certificate.serial_hex.clone()]);
        let message = publish(version, &device.envelope(), Qos::AtLeastOnce, 7, false, &heart_rate(81));
        client.line.send(&message.to_continuous_buffer()).await;
        let packets = client.line.receive_to_end().await;
        let expected = (version == Version::V5_0).then_some(0x87);
        assert_eq!(
            (packets.len(), farewell(&packets)),
            (usize::from(expected.is_some()), expected),
            "{version:?}"
        );
        assert_eq!(house.committed().len(), before, "nothing of it was kept");
        let mut line = Line::open(&house, &device.certificate).await;
        line.send(&Wish::of(version).bytes(&device.id.to_string())).await;
        assert_ne!(line.receive_to_end().await[0].1[1], 0, "{version:?}");
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_ends_a_quiet_connection_too() {
    let options = MqttOptions { recheck_admission: Duration::from_millis(50), ..MqttOptions::default() };
    let mut house = House::open_with(options).await;
    let device = house.device();
    let (mut client, _) = Client::open(&house, &device, &Wish::of(Version::V5_0)).await;
    house.site.admission().set_revoked([device.certificate.serial_hex.clone()]);
    assert_eq!(farewell(&client.line.receive_to_end().await), Some(0x87));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answers_is_cut() {
    let options = MqttOptions { write_timeout: Duration::from_millis(300), ..MqttOptions::default() };
    let mut house = House::open_with(options).await;
    let device = house.device();
    let (mut client, _) = Client::open(&house, &device, &Wish::of(Version::V3_1_1)).await;
    let pings = [0xc0, 0x00].repeat(8_192);
    while client.line.try_send(&pings).await.is_ok() {}
    until("the link is shown as lost", || house.site.live().heard(device.id).connected == Some(false)).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_devices_topic_is_refused_and_nothing_is_kept() {
    let mut house = House::open().await;
    let (device, other) = (house.device(), house.device());
    let message = |version, qos, id| {
        publish(version, &other.envelope(), qos, id, false, &heart_rate(80)).to_continuous_buffer()
    };
    let (mut client, _) = Client::open(&house, &device, &Wish::of(Version::V5_0)).await;
    client.line.send(&message(Version::V5_0, Qos::AtLeastOnce, 1)).await;
    assert_eq!(client.line.receive().await.unwrap().1[..3], [0, 1, 0x87]);
    client.line.send(&message(Version::V5_0, Qos::AtMostOnce, 0)).await;
    assert_eq!(farewell(&client.line.receive_to_end().await), Some(0x87));
    let (mut client, _) = Client::open(&house, &device, &Wish::of(Version::V3_1_1)).await;
    client.line.send(&message(Version::V3_1_1, Qos::AtLeastOnce, 1)).await;
    assert_eq!(client.line.receive_to_end().await, []);
    house.stop().await;
    assert!(house.committed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_are_refused_at_their_header() {
    let mut house = House::open().await;
    let device = house.device();
    for version in VERSIONS {
        let (mut client, _) = Client::open(&house, &device, &Wish::of(version)).await;
        let payload = vec![b' '; 10 << 20];
        let message = publish(version, &device.envelope(), Qos::AtLeastOnce, 1, false, &payload);
        // The server closes long before all of it is sent.
        let _ = client.line.try_send(&message.to_continuous_buffer()).await;
        let packets = client.line.receive_to_end().await;
        assert_eq!(farewell(&packets), (version == Version::V5_0).then_some(0x95), "{version:?}");
    }
    house.stop().await;
    assert!(house.committed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_largest_frame_is_taken_and_one_byte_more_is_not() {
    let mut house = House::open().await;
    let device = house.device();
    let limit = pipeline::intake::FRAME_LIMIT_BYTES;
    let (mut client, _) = Client::open(&house, &device, &Wish::of(Version::V5_0)).await;
    let mut payload = heart_rate(70);
    payload.resize(limit, b' ');
    let id = client.publish(&device.envelope(), Qos::AtLeastOnce, &payload).await;
    client.await_delivery(id).await;
    payload.push(b' ');
    let message = publish(Version::V5_0, &device.envelope(), Qos::AtLeastOnce, 2, false, &payload);
    client.line.send(&message.to_continuous_buffer()).await;
    assert_eq!(client.line.receive().await.unwrap().1[..3], [0, 2, 0x97]);
    client.goodbye().await;
    house.stop().await;
    assert_eq!(house.committed().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_packet_and_then_nothing_leaves_no_trace() {
    let mut house = House::open().await;
    let device = house.device();
    let (mut client, _) = Client::open(&house, &device, &Wish::of(Version::V5_0)).await;
    let bytes = publish(Version::V5_0, &device.envelope(), Qos::AtLeastOnce, 1, false, &heart_rate(80));
    let bytes = bytes.to_continuous_buffer();
    client.line.send(&bytes[..bytes.len() - 3]).await;
    client.line.cut();
    until("the link is shown as lost", || house.site.live().heard(device.id).connected == Some(false)).await;
    house.stop().await;
    assert!(house.committed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn unsound_json_is_quarantined_whole_and_acknowledged() {
    let mut house = House::open().await;
    let device = house.device();
    let (mut client, _) = Client::open(&house, &device, &Wish::of(Version::V5_0)).await;
    let id = client.publish(&device.envelope(), Qos::AtLeastOnce, b"\xff\x00 not json").await;
    client.await_delivery(id).await;
    assert_eq!(house.site.store().quarantine_count().items, 1);
    client.goodbye().await;
    house.stop().await;
}
