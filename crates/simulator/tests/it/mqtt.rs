//! The MQTT device client: acknowledgements, window, refusals, reconnects, wills, commands.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::poll;
use simulator::client::{Acked, ConnectError, Message, MqttVersion, Publisher, Qos, Reconnect};
use tokio::time::timeout;

use crate::peer::{Answer, MAX_PACKET_BYTES, PATIENCE, Peer, Trust};

const VERSIONS: [MqttVersion; 2] = [MqttVersion::V311, MqttVersion::V5];

#[tokio::test]
async fn every_quality_of_service_is_acknowledged() {
    for version in VERSIONS {
        let peer = Peer::start(|_| Answer::Accept).await;
        let mut options = peer.options("device-1");
        options.version = version;
        let publisher = Publisher::connect(options).await.unwrap();
        for (number, qos) in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce].into_iter().enumerate() {
            let pending = publisher.publish("t/a", format!("{number}").into_bytes(), qos).await.unwrap();
            let acked = timeout(PATIENCE, pending).await.unwrap().unwrap();
            assert_eq!(acked, Acked { reason: 0, resent: false }, "{version:?} {qos:?}");
        }
        let log = peer.until(|log| log.published.len() == 3).await;
        let qualities: Vec<_> = log.published.iter().map(|seen| (seen.qos, seen.dup)).collect();
        assert_eq!(qualities, vec![(0, false), (1, false), (2, false)], "{version:?}");
        publisher.disconnect().await;
        assert_eq!(peer.until(|log| !log.farewells.is_empty()).await.farewells, vec![true]);
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_in_its_order() {
    for version in VERSIONS {
        // The first connection is cut at the third message; one and two were held.
        let seen = AtomicUsize::new(0);
        let peer = Peer::start(move |_| match seen.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Answer::Hold,
            2 => Answer::Cut,
            _ => Answer::Accept,
        })
        .await;
        let mut options = peer.options("device-1");
        options.version = version;
        options.window = 3;
        let publisher = Publisher::connect(options).await.unwrap();
        let mut pending = Vec::new();
        for number in 0..3 {
            let payload = format!("{number}").into_bytes();
            pending.push(publisher.publish("t/a", payload, Qos::AtLeastOnce).await.unwrap());
        }
        for answer in pending {
            let acked = timeout(PATIENCE, answer).await.unwrap().unwrap();
            assert_eq!(acked, Acked { reason: 0, resent: true });
        }
        let log = peer.log();
        assert_eq!(log.connections, 2);
        let again: Vec<_> = log.published.iter().filter(|seen| seen.connection == 2).collect();
        let order: Vec<_> = again.iter().map(|seen| seen.payload.as_slice()).collect();
        assert_eq!(order, vec![b"0", b"1", b"2"]);
        assert!(again.iter().all(|seen| seen.dup));
        assert_eq!(*publisher.connections().borrow(), 2);
    }
}

#[tokio::test]
async fn an_unfinished_exactly_once_exchange_is_sent_again() {
    let first = AtomicUsize::new(0);
    let peer = Peer::start(move |_| match first.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Cut,
        _ => Answer::Accept,
    })
    .await;
    let publisher = Publisher::connect(peer.options("device-1")).await.unwrap();
    let pending = publisher.publish("t/a", b"x".as_slice(), Qos::ExactlyOnce).await.unwrap();
    let acked = timeout(PATIENCE, pending).await.unwrap().unwrap();
    assert_eq!(acked, Acked { reason: 0, resent: true });
}

#[tokio::test]
async fn the_window_holds_back_what_the_server_has_not_answered() {
    let peer = Peer::start(|_| Answer::Hold).await;
    let mut options = peer.options("device-1");
    options.window = 2;
    let publisher = Publisher::connect(options).await.unwrap();
    let first = publisher.publish("t/a", b"0".as_slice(), Qos::AtLeastOnce).await.unwrap();
    let second = publisher.publish("t/a", b"1".as_slice(), Qos::AtLeastOnce).await.unwrap();
    let third = publisher.publish("t/a", b"2".as_slice(), Qos::AtLeastOnce);
    tokio::pin!(third);
    peer.until(|log| log.published.len() == 2).await;
    assert!(poll!(&mut third).is_pending());
    peer.release();
    let third = timeout(PATIENCE, third).await.unwrap().unwrap();
    for pending in [first, second, third] {
        assert!(timeout(PATIENCE, pending).await.unwrap().is_ok());
    }
    assert_eq!(peer.log().payloads(), vec!["0", "1", "2"]);
}

#[tokio::test]
async fn a_refusal_is_told_with_its_reason() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let peer = Peer::start(|_| Answer::Refuse).await;
        let publisher = Publisher::connect(peer.options("device-1")).await.unwrap();
        let pending = publisher.publish("t/a", b"x".as_slice(), qos).await.unwrap();
        let acked = timeout(PATIENCE, pending).await.unwrap().unwrap();
        assert!(acked.is_refused());
        assert_eq!(acked.reason, 0x99);
    }
}

#[tokio::test]
async fn what_the_server_announced_as_too_large_is_not_sent() {
    let peer = Peer::start(|_| Answer::Accept).await;
    let publisher = Publisher::connect(peer.options("device-1")).await.unwrap();
    let large = vec![b'x'; MAX_PACKET_BYTES as usize];
    let pending = publisher.publish("t/a", large, Qos::AtLeastOnce).await.unwrap();
    assert_eq!(timeout(PATIENCE, pending).await.unwrap().unwrap().reason, 0x95);
    let pending = publisher.publish("t/a", b"small".as_slice(), Qos::AtLeastOnce).await.unwrap();
    assert_eq!(timeout(PATIENCE, pending).await.unwrap().unwrap().reason, 0);
    let log = peer.log();
    assert_eq!((log.connections, log.payloads()), (1, vec!["small".to_owned()]));
}

#[tokio::test]
async fn without_reconnect_the_loss_is_told() {
    let peer = Peer::start(|_| Answer::Cut).await;
    let mut options = peer.options("device-1");
    options.reconnect = Reconnect::Never;
    let publisher = Publisher::connect(options).await.unwrap();
    let pending = publisher.publish("t/a", b"x".as_slice(), Qos::AtLeastOnce).await.unwrap();
    assert!(timeout(PATIENCE, pending).await.unwrap().is_err());
    // The session ends by itself; from then on every publish is refused at once.
    let refused = timeout(PATIENCE, async {
        while publisher.publish("t/a", b"y".as_slice(), Qos::AtLeastOnce).await.is_ok() {}
    });
    refused.await.unwrap();
}

#[tokio::test]
async fn a_device_announces_itself_takes_commands_and_leaves_a_will() {
    for version in VERSIONS {
        let peer = Peer::start(|_| Answer::Accept).await;
        let mut options = peer.options("device-1");
        options.version = version;
        let mut online = Message::new("d/status", b"online".as_slice(), Qos::AtLeastOnce);
        online.retain = true;
        options.announce = Some(online);
        options.will = Some(Message::new("d/status", b"offline".as_slice(), Qos::AtLeastOnce));
        options.subscribe = vec!["d/command".to_owned()];
        let publisher = Publisher::connect(options).await.unwrap();
        let command = timeout(PATIENCE, publisher.receive()).await.unwrap().unwrap();
        assert_eq!((command.topic.as_str(), &command.payload[..]), ("d/command", b"hello".as_slice()));
        let log = peer.until(|log| !log.published.is_empty()).await;
        assert_eq!(log.published[0].payload, b"online");
        assert!(log.published[0].retain);
        assert_eq!(log.wills, vec![Some(("d/status".to_owned(), b"offline".to_vec()))]);
        publisher.abandon();
        // No farewell: a real server publishes the will now.
        assert_eq!(peer.until(|log| !log.farewells.is_empty()).await.farewells, vec![false]);
    }
}

#[tokio::test]
async fn an_unknown_authority_is_refused() {
    let peer = Peer::start(|_| Answer::Accept).await;
    let mut options = peer.options("device-1");
    options.tls = Trust::new().client;
    let error = Publisher::connect(options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    assert_eq!(peer.log().connections, 0);
}

#[tokio::test]
async fn nobody_there_is_said_plainly() {
    let peer = Peer::start(|_| Answer::Accept).await;
    let mut options = peer.options("device-1");
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    options.address = free.to_string();
    let error = Publisher::connect(options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tcp { .. }), "{error:?}");
    assert!(error.to_string().contains(&free.to_string()));
}
