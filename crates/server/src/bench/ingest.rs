//! Acknowledged readings a second in batches, beside what the disk itself could commit.

use std::time::Duration;

use anyhow::Context as _;
use simulator::client::Reconnect;
use simulator::load::Load;

use super::outcome::{Better, Goal, Peer, Row, Section, Spread};
use super::stage::Stage;
use super::{Settings, disk};
use crate::serve;

/// Connections: a large ward with two devices a bed.
const CONNECTIONS: usize = 50;
/// Messages of one connection that wait for their acknowledgement; more would only wait in line.
const WINDOW: u16 = 4;
/// The measurement of the disk after each run takes this fraction of the run.
const DISK_SHARE: u32 = 3;
/// Least share of the disk's own commits that is wanted.
const SHARE_WANTED: f64 = 0.4;
/// Readings a second that are wanted in batches of 1,000.
const RATE_WANTED_PER_S: f64 = 300_000.0;

/// One run, and what the disk could do right after it.
struct Run {
    readings_per_s: f64,
    p99_ms: f64,
    share_of_disk: f64,
    processor_us_per_reading: f64,
}

/// Measures.
///
/// # Errors
/// When a load cannot be made or was not served whole.
pub fn measure(settings: &Settings) -> anyhow::Result<Section> {
    serve::block_on(async {
        let stage = Stage::set(settings, CONNECTIONS).await?;
        let server = stage.serve()?;
        let mut rows = Vec::new();
        for batch in [100, 1_000] {
            let mut runs = Vec::new();
            for _ in 0..settings.runs {
                runs.push(run(settings, &stage, &server, batch).await?);
            }
            rows.extend(table(batch, &runs));
        }
        server.apart.stop()?;
        Ok(Section {
            title: "Acknowledged readings a second",
            settings: vec![
                format!(
                    "{CONNECTIONS} MQTT 5 connections over TLS 1.3 with client certificates, QoS 1, {WINDOW} messages \
                     in flight a connection, each a JSON batch of readings at random microseconds; the \
                     acknowledgement means decoded, validated, encrypted and fsynced."
                ),
                "The disk's limit: appends of a batch's own bytes with fdatasync, one after another, in the same \
                 directory right after each run; the share is our readings against that many batches."
                    .to_owned(),
            ],
            rows,
        })
    })
}

async fn run(
    settings: &Settings,
    stage: &Stage,
    server: &super::stage::Server,
    batch: usize,
) -> anyhow::Result<Run> {
    let load = Load {
        batch,
        window: WINDOW,
        duration: Some(settings.length),
        reconnect: Reconnect::Never,
        ..Load::new(stage.devices.clone())
    };
    let processor = server.apart.processor_s()?;
    let figures = stage.load(&server.mqtt, &load).await?;
    let processor = server.apart.processor_s()? - processor;
    let bytes = super::screen::message_bytes(batch);
    let (directory, length) = (stage.data_dir(), settings.length / DISK_SHARE);
    let length = length.max(Duration::from_millis(500));
    let disk = tokio::task::spawn_blocking(move || disk::commits_per_s(&directory, bytes, length));
    let disk_per_s = disk.await.context("measuring the disk was broken off")??;
    Ok(Run {
        readings_per_s: figures.readings_per_s,
        p99_ms: figures.latency.p99_us as f64 / 1e3,
        share_of_disk: figures.readings_per_s / (disk_per_s * batch as f64),
        processor_us_per_reading: processor * 1e6 / figures.acked_readings as f64,
    })
}

fn table(batch: usize, runs: &[Run]) -> Vec<Row> {
    let spread =
        |figure: fn(&Run) -> f64| Spread::of(runs.iter().map(figure)).unwrap_or(Spread::one(f64::NAN));
    let name = |what: &str| format!("{what}, batches of {batch}");
    let ours = spread(|run| run.readings_per_s);
    let limit = Spread::of(runs.iter().map(|run| run.readings_per_s / run.share_of_disk));
    let limit = limit.map_or(Peer::None, |limit| Peer::Measured("the disk's group-commit limit", limit));
    let mut rate =
        Row::new(name("readings"), "/s", Better::Higher, ours).beside(limit).goal(Goal::Times(SHARE_WANTED));
    if batch == 1_000 {
        rate = rate.goal(Goal::AtLeast(RATE_WANTED_PER_S));
    }
    vec![
        rate,
        Row::new(
            name("publish to acknowledge at full load, p99"),
            "ms",
            Better::Lower,
            spread(|run| run.p99_ms),
        ),
        Row::new(
            name("the server's processor time a reading"),
            "µs",
            Better::Lower,
            spread(|run| run.processor_us_per_reading),
        ),
    ]
}
