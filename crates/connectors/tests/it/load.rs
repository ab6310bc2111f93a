//! Load: a disk that does not keep up, storms of handshakes, and packets too large to be read all at once.

use std::time::Duration;

use connectors::mqtt::MqttOptions;
use connectors::mqtt::limits::MAX_PACKET_BYTES;
use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait as _, Qos};
use pipeline::Clock as _;
use pipeline::shedding::Bounds;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::{Client, Line, Wish, heart_rate, publish};
use crate::house::{House, Registered, until};

/// Backfill gives way as soon as anything waits, live data never: the tests need no clock.
const BACKFILL_ONLY: Bounds =
    Bounds { backfill_after: Duration::ZERO, live_after: Duration::from_secs(86_400) };

/// A heart rate measured so many seconds ago.
fn stored(per_min: u32, age_s: i64) -> Vec<u8> {
    let at =
        clinical_model::Timestamp::from_micros(pipeline::SystemClock.now().as_micros() - age_s * 1_000_000);
    format!(r#"{{"measure":"heart_rate","value":{per_min},"time":"{at}"}}"#).into_bytes()
}

/// Holds the disk up with one message on its way to it.
async fn hold_up(house: &House, gate: &crate::house::Gate, busy: &Registered) -> (Client, u16) {
    gate.shut();
    let (mut client, _) = Client::open(house, busy, &Wish::of(Version::V5_0)).await;
    let id = client.publish(&busy.envelope(), Qos::AtLeastOnce, &heart_rate(60)).await;
    let intake = house.site.intake().unwrap();
    until("the commit stands", || intake.load().oldest_waits > Duration::ZERO).await;
    (client, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn version_5_is_told_to_keep_its_backfill_and_sends_it_again() {
    let (mut house, gate) = House::open_gated(MqttOptions::default(), BACKFILL_ONLY).await;
    let (busy, device) = (house.device(), house.device());
    let (mut first, first_id) = hold_up(&house, &gate, &busy).await;

    let (mut client, _) = Client::open(&house, &device, &Wish::of(Version::V5_0)).await;
    let message = |qos, id, payload: &[u8]| {
        publish(Version::V5_0, &device.envelope(), qos, id, false, payload).to_continuous_buffer()
    };
    client.line.send(&message(Qos::AtLeastOnce, 1, &stored(70, 3_600))).await;
    let (kind, body) = client.line.receive().await.unwrap();
    assert_eq!((kind, &body[..3]), (0x40, &[0, 1, 0x97][..]), "PUBACK: quota exceeded");
    client.line.send(&message(Qos::ExactlyOnce, 2, &stored(71, 3_500))).await;
    let (kind, body) = client.line.receive().await.unwrap();
    assert_eq!((kind, &body[..3]), (0x50, &[0, 2, 0x97][..]), "PUBREC: quota exceeded");

    // Beyond the limits of an adult, and what is measured now.
    client.line.send(&message(Qos::AtLeastOnce, 3, &heart_rate(190))).await;
    client.line.send(&message(Qos::AtLeastOnce, 4, &heart_rate(72))).await;
    until("both wait", || house.site.intake().unwrap().load().waiting_frames == [1, 1, 0]).await;
    assert!(house.committed().is_empty(), "nothing was kept yet, and nothing acknowledged");
    assert_eq!(house.site.intake().unwrap().load().refused_frames, [0, 0, 2]);
    gate.open();
    for id in [3, 4] {
        assert_eq!(client.line.receive().await.unwrap(), (0x40, vec![0, id]));
    }
    first.await_delivery(first_id).await;
    let intake = house.site.intake().unwrap();
    until("nothing waits", || intake.load().oldest_waits == Duration::ZERO).await;
    client.line.send(&message(Qos::AtLeastOnce, 1, &stored(70, 3_600))).await;
    assert_eq!(client.line.receive().await.unwrap(), (0x40, vec![0, 1]));
    assert_eq!(house.committed_values(), ["60", "190", "72", "70"]);
    drop(intake);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_3_is_held_until_there_is_room() {
    let (mut house, gate) = House::open_gated(MqttOptions::default(), BACKFILL_ONLY).await;
    let (busy, device) = (house.device(), house.device());
    let (mut first, first_id) = hold_up(&house, &gate, &busy).await;
    let (mut client, _) = Client::open(&house, &device, &Wish::of(Version::V3_1_1)).await;
    let backfill = client.publish(&device.envelope(), Qos::AtLeastOnce, &stored(70, 3_600)).await;
    let live = client.publish(&device.envelope(), Qos::AtLeastOnce, &heart_rate(71)).await;
    gate.open();
    first.await_delivery(first_id).await;
    client.await_delivery(backfill).await;
    client.await_delivery(live).await;
    assert_eq!(house.committed_values(), ["60", "70", "71"], "in the order of the connection");
    assert_eq!(house.site.intake().unwrap().load().refused_frames, [0; 3]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_3_that_was_held_for_too_long_is_let_go_unanswered() {
    let options = MqttOptions { hold: Duration::ZERO, ..MqttOptions::default() };
    let (mut house, gate) = House::open_gated(options, BACKFILL_ONLY).await;
    let (busy, device) = (house.device(), house.device());
    let (mut first, first_id) = hold_up(&house, &gate, &busy).await;
    let (mut client, _) = Client::open(&house, &device, &Wish::of(Version::V3_1_1)).await;
    client.publish(&device.envelope(), Qos::AtLeastOnce, &stored(70, 3_600)).await;
    assert_eq!(client.line.receive_to_end().await, [], "it has the message still");
    gate.open();
    first.await_delivery(first_id).await;
    assert_eq!(house.committed_values(), ["60"]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_take_turns_and_whoever_says_nothing_takes_none() {
    let options = MqttOptions { max_handshakes: 1, ..MqttOptions::default() };
    let mut house = House::open_with(options).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(house.address).await.unwrap());
    }
    let device = house.device();
    let (mut connected, _) = Client::open(&house, &device, &Wish::of(Version::V5_0)).await;
    let others: Vec<Registered> = (0..8).map(|_| house.device()).collect();
    let house_ref = &house;
    let storm = others
        .iter()
        .map(|device| async move { Client::open(house_ref, device, &Wish::of(Version::V5_0)).await.0 });
    let storm = futures_util::future::join_all(storm);
    let steady = async {
        for value in 60..65 {
            let id = connected.publish(&device.envelope(), Qos::AtLeastOnce, &heart_rate(value)).await;
            connected.await_delivery(id).await;
        }
    };
    let (clients, ()) = tokio::join!(storm, steady);
    assert_eq!(clients.len(), 8);
    let mut goodbyes: JoinSet<()> = clients.into_iter().map(Client::goodbye).collect();
    while let Some(ended) = goodbyes.join_next().await {
        ended.unwrap();
    }
    drop((silent, connected));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_packets_wait_for_room_and_small_ones_do_not() {
    let options = MqttOptions { large_room_bytes: MAX_PACKET_BYTES + 1_024, ..MqttOptions::default() };
    let mut house = House::open_with(options).await;
    let devices = [house.device(), house.device(), house.device()];
    let mut payload = heart_rate(70);
    payload.resize(1 << 20, b' ');
    let large = |of: &Registered| {
        publish(Version::V3_1_1, &of.envelope(), Qos::AtLeastOnce, 1, false, &payload).to_continuous_buffer()
    };
    let mut lines: Vec<Line> = Vec::new();
    for device in &devices {
        lines.push(Client::open(&house, device, &Wish::of(Version::V3_1_1)).await.0.line);
    }
    let [slow, waiting, small] = lines.as_mut_slice() else { panic!() };
    // The first has the room and takes its time.
    let bytes = large(&devices[0]);
    slow.send(&bytes[..200_000]).await;
    let other = large(&devices[1]);
    let (sent, ()) = tokio::join!(waiting.try_send(&other), async {
        for id in 1..=3 {
            let message = publish(
                Version::V3_1_1,
                &devices[2].envelope(),
                Qos::AtLeastOnce,
                id,
                false,
                &heart_rate(60),
            );
            small.send(&message.to_continuous_buffer()).await;
            assert_eq!(small.receive().await.unwrap(), (0x40, id.to_be_bytes().to_vec()));
        }
        slow.send(&bytes[200_000..]).await;
        assert_eq!(slow.receive().await.unwrap(), (0x40, vec![0, 1]));
    });
    sent.unwrap();
    assert_eq!(waiting.receive().await.unwrap(), (0x40, vec![0, 1]));
    assert_eq!(house.committed().len(), 5);
    house.stop().await;
}
