//! Load, play and replay, as a server sees them.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clinical_model::{Decoded, DeviceId, FrameKind, Timestamp};
use rustls::pki_types::ServerName;
use simulator::client::Publisher;
use simulator::hospital::{Plan, Role, Transport, Trouble};
use simulator::load::{Load, read_ledger};
use simulator::play::{Credentials, Endpoints, Progress};
use tokio_util::sync::CancellationToken;

use crate::peer::{Answer, Peer};

fn everybody(peer: &Peer) -> Credentials {
    let tls = peer.trust.client.clone();
    Arc::new(move |_| Some(tls.clone()))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// Readings of an envelope as device, microseconds, sequence and value, the way a ledger has them.
fn readings(device: DeviceId, payload: &[u8]) -> Vec<(DeviceId, i64, u32, String)> {
    let entries = device_codecs::decode(FrameKind::Envelope, payload).entries;
    entries
        .into_iter()
        .flat_map(|entry| entry.result.unwrap())
        .map(|decoded| match decoded {
            Decoded::Scalar(scalar) => match (scalar.time, scalar.value) {
                (clinical_model::DeviceTime::Utc(at), clinical_model::DecodedValue::Number(value)) => {
                    (device, at.as_micros(), scalar.sequence, value.to_string())
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn the_ledger_holds_what_was_acknowledged_and_the_server_has_it() {
    // Every 40th message breaks its connection.
    let count = AtomicUsize::new(0);
    let peer = Peer::start(move |_| match count.fetch_add(1, Ordering::SeqCst) % 40 {
        39 => Answer::Cut,
        _ => Answer::Accept,
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut load = Load::new((1..=3).map(|n| DeviceId::from_bytes([n; 16])).collect());
    load.batch = 4;
    load.window = 8;
    load.duration = None;
    load.ledger = Some(folder.path().join("ledger.txt"));
    let stop = CancellationToken::new();
    let address = peer.address.to_string();
    let running = simulator::load::run(&load, &address, localhost(), everybody(&peer), stop.clone());
    let enough = async {
        peer.until(|log| log.published.len() >= 200).await;
        stop.cancel();
    };
    let (figures, ()) = tokio::join!(running, enough);
    let figures = figures.unwrap();

    let received: HashSet<_> = peer
        .log()
        .published
        .iter()
        .flat_map(|seen| {
            let device = seen.topic.split('/').nth(2).unwrap().parse().unwrap();
            readings(device, &seen.payload)
        })
        .collect();
    let ledger = read_ledger(load.ledger.as_deref().unwrap()).unwrap();
    assert_eq!(ledger.len() as u64, figures.acked_readings);
    assert_eq!(figures.acked_readings, figures.acked_messages * 4);
    assert!(figures.acked_messages > 100 && figures.resent_messages > 0, "{figures:?}");
    let unique: HashSet<_> = ledger.iter().map(|l| (l.device, l.measured_at, l.sequence)).collect();
    assert_eq!(unique.len(), ledger.len());
    for line in ledger {
        let key = (line.device, line.measured_at.as_micros(), line.sequence, line.value.to_string());
        assert!(received.contains(&key), "acknowledged but never received: {line:?}");
    }
    assert!(figures.latency.p50_us > 0 && figures.latency.p50_us <= figures.latency.most_us);
}

#[tokio::test]
async fn a_paced_load_keeps_its_pace() {
    let peer = Peer::start(|_| Answer::Accept).await;
    let mut load = Load::new(vec![DeviceId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16])]);
    load.rate_per_s = Some(50.0);
    load.duration = Some(Duration::from_secs(1));
    let address = peer.address.to_string();
    let stop = CancellationToken::new();
    let figures = simulator::load::run(&load, &address, localhost(), everybody(&peer), stop).await.unwrap();
    // A slow machine may send fewer; none may send more.
    assert!((1..=52).contains(&figures.acked_messages), "{figures:?}");
    assert_eq!(figures.lost_messages, 0);
}

#[tokio::test]
async fn a_small_hospital_comes_alive() {
    let peer = Peer::start(|_| Answer::Accept).await;
    let mut plan = Plan::seeded(11, 2, 1);
    // Only what this peer can hear.
    plan.devices.retain(|planned| matches!(planned.transport, Transport::Mqtt(_)));
    let endpoints = Endpoints {
        mqtt: peer.address.to_string(),
        https: "https://localhost:1".to_owned(),
        server_name: localhost(),
    };
    let progress = Arc::new(Progress::default());
    let stop = CancellationToken::new();
    let playing =
        simulator::play::play(&plan, endpoints, everybody(&peer), 3_600.0, progress.clone(), stop.clone());
    let ids: Vec<String> = plan.devices.iter().map(|planned| planned.device.id.to_string()).collect();
    let heard = async {
        let all = |log: &crate::peer::Log| {
            ids.iter().all(|id| {
                log.published.iter().any(|seen| seen.topic.contains(id) && !seen.topic.ends_with("/status"))
            })
        };
        let log = peer.until(all).await;
        stop.cancel();
        log
    };
    let (played, log) = tokio::join!(playing, heard);
    played.unwrap();

    let mut kinds: HashMap<String, usize> = HashMap::new();
    for seen in &log.published {
        let parts: Vec<&str> = seen.topic.splitn(4, '/').collect();
        assert_eq!(parts[..2], ["auscult", "v1"], "{}", seen.topic);
        let planned = plan.device(parts[2].parse().unwrap()).expect("a device of the plan");
        if parts[3] == "status" {
            assert_eq!(seen.payload, b"online");
            continue;
        }
        *kinds.entry(parts[3].to_owned()).or_default() += 1;
        let entries = device_codecs::decode(parts[3].parse().unwrap(), &seen.payload).entries;
        let readable = entries.iter().all(|entry| entry.result.is_ok());
        assert_eq!(
            readable,
            planned.trouble != Some(Trouble::TruncatesFrames),
            "{entries:?} on {}",
            seen.topic
        );
    }
    assert!(kinds["envelope"] > 2 && kinds.len() > 1, "{kinds:?}");
    let counts = progress.counts();
    assert!(counts.acked > 0 && counts.sent >= counts.acked && counts.refused == 0, "{counts:?}");
    assert_eq!(counts.connected, 0, "all are switched off");
    // Every device subscribes to its commands, and the peer greets each.
    assert!(counts.connections as usize >= ids.len(), "{counts:?}");
    assert!(plan.devices.iter().any(|planned| matches!(planned.role, Role::Telemetry { .. })));
}

#[tokio::test]
async fn a_recording_on_disk_is_replayed_whole() {
    let peer = Peer::start(|_| Answer::Accept).await;
    let publisher = Publisher::connect(peer.options("replay")).await.unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/mitdb/208.hea");
    let device = DeviceId::from_bytes([9; 16]);
    let from = Timestamp::from_seconds(1_790_000_000);
    let mut told = 0;
    let replayed = simulator::replay::replay(&path, &publisher, device, from, 1_000.0, |_| told += 1);
    let replayed = replayed.await.unwrap();
    assert_eq!((replayed.sent, replayed.acked, replayed.refused), (180, 180, 0));
    assert_eq!(told, 181);
    let log = peer.log();
    let mut samples = 0;
    for seen in &log.published {
        assert_eq!(seen.topic, format!("auscult/v1/{device}/envelope"));
        for entry in device_codecs::decode(FrameKind::Envelope, &seen.payload).entries {
            for decoded in entry.result.unwrap() {
                if let Decoded::Waveform(block) = decoded {
                    samples += block.samples.len();
                }
            }
        }
    }
    assert_eq!(samples, 2 * 64_800);
}
