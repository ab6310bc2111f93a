//! Resident memory: idle, with 2,000 connections, and under load for a while, beside Mosquitto and helios-hfs.

use std::time::{Duration, Instant};

use simulator::client::{ConnectOptions, Publisher, Reconnect};
use simulator::load::Load;

use super::Settings;
use super::apart::Apart;
use super::outcome::{Better, Goal, Peer, Row, Section, Spread};
use super::peers::{Hfs, Judging, Mosquitto};
use super::stage::Stage;
use crate::serve;

/// Devices that are connected at the same time.
const CONNECTIONS: usize = 2_000;
const QUICK_CONNECTIONS: usize = 200;
/// Connections that are being made at the same time.
const AT_ONCE: usize = 16;
/// Devices that send in the soak, and readings a second of all of them.
const SOAKED: usize = 50;
const SOAK_MESSAGES_PER_S: f64 = 200.0;
const SOAK_BATCH: usize = 25;
/// How often memory is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The first part of the soak, in which caches fill and the first folds are made, says nothing of leaks.
const SETTLING: f64 = 0.4;
/// Growth of what is left that still counts as flat: of the middle of its first half to that of its second.
const FLAT_SHARE: f64 = 1.1;

const MIB: f64 = 1_048_576.0;

/// Measures.
///
/// # Errors
/// When a connection is refused or a process ends.
pub fn measure(settings: &Settings) -> anyhow::Result<Section> {
    serve::block_on(async {
        let connections = if settings.quick { QUICK_CONNECTIONS } else { CONNECTIONS };
        let stage = Stage::set(settings, connections).await?;
        let server = stage.serve()?;
        let mosquitto = Mosquitto::start(&stage);
        let hfs = Hfs::start(&stage, Judging::On);
        let mut rows = Vec::new();
        let idle = server.apart.resident_bytes()? / MIB;
        let row = |what: String, ours: f64| Row::new(what, "MiB", Better::Lower, Spread::one(ours));
        rows.push(row("idle".into(), idle).beside(resident("Mosquitto", &mosquitto, |m| &m.apart)));
        rows.push(row("idle".into(), idle).beside(resident("hfs", &hfs, |hfs| &hfs.apart)));
        drop(hfs);
        let held = connect(&stage, &server.mqtt, connections).await?;
        let ours = server.apart.resident_bytes()? / MIB;
        part(held).await;
        let peer = match &mosquitto {
            Ok(running) => {
                let held = connect(&stage, &running.address, connections).await?;
                let theirs = running.apart.resident_bytes()? / MIB;
                part(held).await;
                Peer::Measured("Mosquitto", Spread::one(theirs))
            }
            Err(error) => Peer::Missing("Mosquitto", error.to_string()),
        };
        rows.push(row(format!("{connections} connected devices"), ours).beside(peer));
        drop(mosquitto);
        rows.extend(soak(settings, &stage, &server).await?);
        server.apart.stop()?;
        Ok(Section {
            title: "Resident memory",
            settings: vec![format!(
                "VmRSS of the server's process; {SOAKED} devices then send {:.0} readings a second for {} s, looked at twice a \
                 second after the first {:.0} %; flat means that the median of the later half is at most {:.0} % of that of \
                 the earlier.",
                SOAK_MESSAGES_PER_S * SOAK_BATCH as f64,
                settings.soak.as_secs(),
                SETTLING * 100.0,
                FLAT_SHARE * 100.0
            )],
            rows,
        })
    })
}

fn resident<P>(name: &'static str, peer: &anyhow::Result<P>, apart: fn(&P) -> &Apart) -> Peer {
    match peer.as_ref().map(|peer| apart(peer).resident_bytes()) {
        Ok(Ok(bytes)) => Peer::Measured(name, Spread::one(bytes / MIB)),
        Ok(Err(error)) => Peer::Missing(name, error.to_string()),
        Err(error) => Peer::Missing(name, error.to_string()),
    }
}

/// Connects devices and keeps them.
async fn connect(stage: &Stage, mqtt: &str, connections: usize) -> anyhow::Result<Vec<Publisher>> {
    use futures_util::{StreamExt as _, TryStreamExt as _};
    let opening = stage.devices.iter().take(connections).map(|device| async move {
        let tls =
            (stage.credentials)(*device).ok_or_else(|| anyhow::anyhow!("a device has no certificate"))?;
        let mut options = ConnectOptions::new(mqtt, stage.server_name.clone(), tls, device.to_string());
        options.reconnect = Reconnect::Never;
        anyhow::Ok(Publisher::connect(options).await?)
    });
    futures_util::stream::iter(opening).buffered(AT_ONCE).try_collect().await
}

/// Lets them go with a goodbye.
async fn part(held: Vec<Publisher>) {
    futures_util::future::join_all(held.into_iter().map(Publisher::disconnect)).await;
}

async fn soak(settings: &Settings, stage: &Stage, server: &super::stage::Server) -> anyhow::Result<Vec<Row>> {
    let load = Load {
        batch: SOAK_BATCH,
        rate_per_s: Some(SOAK_MESSAGES_PER_S),
        duration: Some(settings.soak),
        reconnect: Reconnect::Never,
        ..Load::new(stage.devices[..SOAKED].to_vec())
    };
    let began = Instant::now();
    let looking = async {
        let mut seen = Vec::new();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        while began.elapsed() < settings.soak {
            tick.tick().await;
            seen.push(server.apart.resident_bytes()? / MIB);
        }
        anyhow::Ok(seen)
    };
    let (seen, loaded) = tokio::join!(looking, stage.load(&server.mqtt, &load));
    loaded?;
    let seen = seen?;
    let settled = &seen[((seen.len() as f64 * SETTLING) as usize).min(seen.len().saturating_sub(2))..];
    let (earlier, later) = settled.split_at(settled.len() / 2);
    let middle = |part: &[f64]| Spread::of(part.iter().copied()).unwrap_or(Spread::one(f64::NAN));
    let (earlier, later) = (middle(earlier), middle(later));
    let name = |what: &str| format!("{} s of load, {what}", settings.soak.as_secs());
    Ok(vec![
        Row::new(name("earlier half"), "MiB", Better::Lower, earlier),
        Row::new(name("later half"), "MiB", Better::Lower, later),
        Row::new(
            name("later against earlier"),
            "×",
            Better::Lower,
            Spread::one(later.median / earlier.median),
        )
        .goal(Goal::AtMost(FLAT_SHARE)),
    ])
}
