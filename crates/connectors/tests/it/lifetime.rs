//! Lifetime: how connections begin, are limited, time out and are taken over.

use std::time::Duration;

use connectors::mqtt::MqttOptions;
use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait as _, Qos};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::client::{Client, Line, VERSIONS, Wish, heart_rate, publish};
use crate::house::{House, until, within};

/// Short enough for a test, long enough for a loaded machine's handshake.
const SHORT: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_closed() {
    let options = MqttOptions { handshake_timeout: SHORT, connect_timeout: SHORT, ..MqttOptions::default() };
    let mut house = House::open_with(options).await;
    let device = house.device();
    let mut silent = TcpStream::connect(house.address).await.unwrap();
    let mut line = Line::open(&house, &device.certificate).await;
    let mut byte = [0];
    assert!(matches!(within(silent.read(&mut byte)).await, Ok(0) | Err(_)), "no TLS handshake came");
    assert_eq!(line.receive_to_end().await, [], "no CONNECT came");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_disconnected_after_one_and_a_half_keep_alives() {
    let mut house = House::open().await;
    for version in VERSIONS {
        let device = house.device();
        let wish = Wish { keep_alive_s: 1, ..Wish::of(version) };
        let (mut client, _) = Client::open(&house, &device, &wish).await;
        let began = std::time::Instant::now();
        let packets = client.line.receive_to_end().await;
        assert!(began.elapsed() >= Duration::from_millis(1_400), "{version:?}: not before its time");
        match version {
            Version::V5_0 => assert_eq!(packets, [(0xe0, vec![0x8d])], "keep alive timeout"),
            _ => assert_eq!(packets, []),
        }
        until("the link is shown as lost", || house.site.live().heard(device.id).connected == Some(false))
            .await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_5_is_told_the_keep_alive_that_holds() {
    let options = MqttOptions { max_keep_alive_s: 1, ..MqttOptions::default() };
    let mut house = House::open_with(options).await;
    let device = house.device();
    let mut line = Line::open(&house, &device.certificate).await;
    line.send(&Wish { keep_alive_s: 0, ..Wish::of(Version::V5_0) }.bytes(&device.id.to_string())).await;
    let packets = line.receive_to_end().await;
    assert!(
        packets[0].1.windows(3).any(|window| window == [0x13, 0x00, 0x01]),
        "Server Keep Alive: {packets:?}"
    );
    assert_eq!(packets[1], (0xe0, vec![0x8d]));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_of_a_device_ends_the_first() {
    let mut house = House::open().await;
    for version in VERSIONS {
        let device = house.device();
        let (mut first, _) = Client::open(&house, &device, &Wish::resuming(version)).await;
        let message = publish(version, &device.envelope(), Qos::ExactlyOnce, 3, false, &heart_rate(64));
        let before = house.committed().len();
        first.line.send(&message.to_continuous_buffer()).await;
        // The commit of the message may be pending when the second connection comes.
        let (mut second, present) = Client::open(&house, &device, &Wish::resuming(version)).await;
        assert!(present, "{version:?}");
        let packets = first.line.receive_to_end().await;
        let farewell = packets.last().filter(|(first, _)| *first == 0xe0).map(|(_, body)| body[0]);
        assert_eq!(farewell, (version == Version::V5_0).then_some(0x8e), "{version:?}: {packets:?}");
        let again = publish(version, &device.envelope(), Qos::ExactlyOnce, 3, true, &heart_rate(64));
        second.line.send(&again.to_continuous_buffer()).await;
        assert_eq!(second.line.receive().await.unwrap().0, 0x50, "PUBREC");
        assert_eq!(house.committed().len(), before + 1, "{version:?}: committed once");
        assert_eq!(house.site.live().heard(device.id).connected, Some(true), "no flicker on the screens");
        second.goodbye().await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_and_a_freed_place_is_given_again() {
    let options = MqttOptions { max_connections: 1, ..MqttOptions::default() };
    let mut house = House::open_with(options).await;
    let (one, two) = (house.device(), house.device());
    let (client, _) = Client::open(&house, &one, &Wish::of(Version::V5_0)).await;
    assert!(Line::try_open(&house, Some(&two.certificate)).await.is_err());
    client.goodbye().await;
    let mut line = Err(std::io::ErrorKind::NotConnected.into());
    while line.is_err() {
        line = Line::try_open(&house, Some(&two.certificate)).await;
    }
    let mut line = line.unwrap();
    line.send(&Wish::of(Version::V5_0).bytes(&two.id.to_string())).await;
    assert_eq!(line.receive().await.unwrap().1[1], 0);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_ends_connections_in_every_state() {
    let mut house = House::open().await;
    let device = house.device();
    let _no_tls = TcpStream::connect(house.address).await.unwrap();
    let _no_connect = Line::open(&house, &device.certificate).await;
    let (_idle, _) = Client::open(&house, &device, &Wish::of(Version::V3_1_1)).await;
    house.stop().await;
    assert!(TcpStream::connect(house.address).await.is_err(), "nobody listens any more");
}
