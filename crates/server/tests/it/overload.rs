//! Under load: thousands of devices, a storm of reconnects, a flood from one of them, and a disk that does not keep up.
//!
//! What is asserted are counts and bounds, not times: other programs share the machine. The figures are printed
//! (`--nocapture`).

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clinical_model::{DeviceId, Timestamp};
use pipeline::{Clock as _, SystemClock};
use rustls_pki_types::ServerName;
use simulator::client::{ConnectOptions, MqttVersion, Publisher, Qos, Reconnect};
use simulator::play::Credentials;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::devices;
use crate::process::{ON_FREE_PORTS, Place, Server, auscult};

/// Devices of the storm; `AUSCULT_OVERLOAD_DEVICES` gives another number: 2000 for the figures in the book.
const DEVICES: usize = 200;
/// A storm of so many lasts for many commits.
const LONG_STORM: usize = 1_000;
/// Devices that were connected before it and go on sending.
const STEADY: usize = 20;
/// Most memory that a connection may cost, in bytes: the state of TLS, of the protocol, and a read buffer.
const BYTES_A_CONNECTION: u64 = 96 << 10;
/// What the allocator's threads keep for themselves once they have worked, however many connections there are.
const BYTES_OF_ALLOCATOR: u64 = 24 << 20;
/// Most memory that may stay behind after a storm, in bytes for each of its connections: sessions, and what the allocator
/// keeps.
const BYTES_LEFT: u64 = 48 << 10;
/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(240);

fn count() -> usize {
    std::env::var("AUSCULT_OVERLOAD_DEVICES").map_or(DEVICES, |text| text.parse().unwrap())
}

/// Resident memory of a process, in bytes.
fn resident_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1_024
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn options(address: &str, device: DeviceId, credentials: &Credentials) -> ConnectOptions {
    let tls = credentials(device).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut options = ConnectOptions::new(address, name, tls, device.to_string());
    options.reconnect = Reconnect::Never;
    options.keep_alive_s = 300;
    options
}

/// Connects a device, as often as it takes: a client in a storm gives up and comes again.
async fn connect(options: &ConnectOptions, failures: &AtomicU64) -> Publisher {
    let began = Instant::now();
    loop {
        match Publisher::connect(options.clone()).await {
            Ok(publisher) => return publisher,
            Err(error) => {
                assert!(began.elapsed() < PATIENCE, "{error}: {:?}", std::error::Error::source(&error))
            }
        }
        failures.fetch_add(1, Ordering::Relaxed);
    }
}

async fn send(publisher: &Publisher, device: DeviceId, body: String) -> u8 {
    let topic = format!("auscult/v1/{device}/envelope");
    let sent = publisher.publish(topic, body.into_bytes(), Qos::AtLeastOnce);
    let pending = tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap();
    tokio::time::timeout(PATIENCE, pending).await.expect("an answer").unwrap().reason
}

fn heart_rate(value: u32, age_s: i64) -> String {
    let at = Timestamp::from_micros(SystemClock.now().as_micros() - age_s * 1_000_000);
    format!(r#"{{"measure":"heart_rate","value":{value},"unit":"/min","time":"{at}"}}"#)
}

/// Devices that send one reading after another, each after the answer to the one before.
fn keep_sending(
    publishers: Vec<(DeviceId, Publisher)>,
    stop: &CancellationToken,
    acked: &Arc<AtomicU64>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (device, publisher) in publishers {
        let (stop, acked) = (stop.clone(), Arc::clone(acked));
        tasks.spawn(async move {
            while !stop.is_cancelled() {
                assert_eq!(send(&publisher, device, heart_rate(72, 0)).await, 0);
                acked.fetch_add(1, Ordering::Relaxed);
            }
            publisher.disconnect().await;
        });
    }
    tasks
}

/// All devices connect at once. Gives them, how many answers the steady got in each half of the storm, and how often a
/// device had to come again. A short storm ends before the disk has answered anybody twice, so the steady are waited for.
async fn storm(
    address: &str,
    ids: &[DeviceId],
    credentials: &Credentials,
    acked: &AtomicU64,
) -> (Vec<(DeviceId, Publisher)>, Vec<u64>, u64) {
    let failures = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for device in ids.iter().copied() {
        let (options, failures) = (options(address, device, credentials), Arc::clone(&failures));
        tasks.spawn(async move { (device, connect(&options, &failures).await) });
    }
    let mut connected = Vec::with_capacity(ids.len());
    let mut halves = Vec::new();
    let mut before = acked.load(Ordering::Relaxed);
    while let Some(joined) = tasks.join_next().await {
        connected.push(joined.unwrap());
        if connected.len().is_multiple_of((ids.len() / 2).max(1)) {
            let now = acked.load(Ordering::Relaxed);
            halves.push(now - before);
            before = now;
        }
    }
    let began = Instant::now();
    while acked.load(Ordering::Relaxed) < before + STEADY as u64 && ids.len() > STEADY {
        assert!(began.elapsed() < PATIENCE, "the connected are served no more");
        tokio::task::yield_now().await;
    }
    (connected, halves, failures.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_come_all_at_once_and_one_of_them_floods() {
    let count = count();
    let place = Place::new();
    let ids = devices::provision(&place, count + STEADY);
    let credentials = devices::credentials(&place, &ids);
    let server = Server::serve(&place, &[]);
    let address = server.address("mqtt");
    let idle = resident_bytes(&server);
    let (steady, many) = ids.split_at(STEADY);

    let stop = CancellationToken::new();
    let acked = Arc::new(AtomicU64::new(0));
    let (publishers, _, _) = storm(&address, steady, &credentials, &acked).await;
    let mut sending = keep_sending(publishers, &stop, &acked);

    let began = Instant::now();
    let (connected, halves, failures) = storm(&address, many, &credentials, &acked).await;
    let peak = resident_bytes(&server);
    println!(
        "{count} devices connected in {:?}, {failures} came again; answers meanwhile {halves:?}",
        began.elapsed()
    );
    assert!(
        count < LONG_STORM || halves.iter().all(|answers| *answers > 0),
        "the connected are served throughout: {halves:?}"
    );

    // One of them floods; each of the others sends one reading, and all are answered while the flood goes on.
    let mut connected = connected.into_iter();
    let (flooder, publisher) = connected.next().unwrap();
    let flooded = Arc::new(AtomicU64::new(0));
    let flood = flood(flooder, publisher, &stop, &flooded);
    let others: Vec<(DeviceId, Publisher)> = connected.collect();
    let mut answers = JoinSet::new();
    for (device, publisher) in others {
        answers.spawn(async move {
            assert_eq!(send(&publisher, device, heart_rate(80, 0)).await, 0);
            publisher
        });
    }
    let others: Vec<Publisher> = answers.join_all().await;
    let of_flood = flooded.load(Ordering::Relaxed);
    println!("{} others were answered beside {of_flood} messages of the flood", others.len());
    assert!(of_flood > 0, "and the flood is served as well");
    let loaded = resident_bytes(&server);

    // All links break without a word, and everybody comes again.
    drop(others);
    let again: Vec<DeviceId> = many.iter().copied().filter(|device| *device != flooder).collect();
    let (connected, halves, failures) = storm(&address, &again, &credentials, &acked).await;
    println!("the second storm: {failures} came again; answers meanwhile {halves:?}");
    assert!(count < LONG_STORM || halves.iter().all(|answers| *answers > 0), "{halves:?}");
    let again = resident_bytes(&server);
    for (device, publisher) in connected.iter().take(50) {
        assert_eq!(send(publisher, *device, heart_rate(81, 0)).await, 0, "no restart was needed");
    }
    let goodbyes: JoinSet<()> = connected.into_iter().map(|(_, publisher)| publisher.disconnect()).collect();
    goodbyes.join_all().await;
    stop.cancel();
    flood.await.unwrap();
    while let Some(ended) = sending.join_next().await {
        ended.unwrap();
    }
    let after = resident_bytes(&server);
    println!(
        "resident: idle {}, {count} connections {} ({} KiB each), after a flood {}, after a second storm {}, all gone {}",
        mib(idle),
        mib(peak),
        (peak - idle.min(peak)) / 1_024 / count as u64,
        mib(loaded),
        mib(again),
        mib(after),
    );
    let each = |bytes: u64| bytes.saturating_sub(idle + BYTES_OF_ALLOCATOR) / count as u64;
    assert!(each(peak) < BYTES_A_CONNECTION, "{} bytes a connection", each(peak));
    assert!(
        each(again) < BYTES_A_CONNECTION + BYTES_LEFT,
        "{} bytes a connection the second time",
        each(again)
    );
    assert!(server.stop().0.success());
}

/// One device sends as fast as it is answered, with all the messages under way that the server allows.
fn flood(
    device: DeviceId,
    publisher: Publisher,
    stop: &CancellationToken,
    flooded: &Arc<AtomicU64>,
) -> tokio::task::JoinHandle<()> {
    let (stop, flooded) = (stop.clone(), Arc::clone(flooded));
    tokio::spawn(async move {
        let publisher = Arc::new(publisher);
        let window = Arc::new(Semaphore::new(64));
        while !stop.is_cancelled() {
            let place = Arc::clone(&window).acquire_owned().await.unwrap();
            let (publisher, flooded) = (Arc::clone(&publisher), Arc::clone(&flooded));
            tokio::spawn(async move {
                let _place = place;
                assert_eq!(send(&publisher, device, heart_rate(90, 0)).await, 0);
                flooded.fetch_add(1, Ordering::Relaxed);
            });
        }
        let _all = window.acquire_many(64).await.unwrap();
    })
}

/// A disk whose every sync takes so long, in microseconds: longer than backfill may wait, shorter than live data may.
const SYNC_TAKES_US: u64 = 4_000_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace; the step \"clients\" of the check runs it"]
async fn on_a_slow_disk_backfill_is_refused_and_live_data_and_alarms_are_kept() {
    let place = Place::new();
    let ids = devices::provision(&place, 3);
    let credentials = devices::credentials(&place, &ids);
    let plain = auscult();
    let mut command = std::process::Command::new("strace");
    // The server is the child, and strace its grandchild. Only commits are slow, not the start.
    let log = place.data().join("data.db-wal");
    let calls = ["-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"];
    command.args(calls).arg(format!("inject=fsync,fdatasync:delay_exit={SYNC_TAKES_US}")).arg("-P").arg(log);
    command.arg(plain.get_program()).arg("serve").args(place.arguments().map(OsString::from));
    command.args(ON_FREE_PORTS);
    let server = Server::start(command, place.path("log.txt"));
    let address = server.address("mqtt");
    let failures = AtomicU64::new(0);
    let mut v5 = Vec::new();
    for device in &ids[..2] {
        v5.push(Arc::new(connect(&options(&address, *device, &credentials), &failures).await));
    }
    let v3 = ConnectOptions { version: MqttVersion::V311, ..options(&address, ids[2], &credentials) };
    let v3 = connect(&v3, &failures).await;

    // Live data of the first device keeps the disk busy; stored data of the second comes meanwhile.
    let busy = async {
        for value in 60..64 {
            assert_eq!(send(&v5[0], ids[0], heart_rate(value, 0)).await, 0, "live data is kept");
        }
        assert_eq!(send(&v5[0], ids[0], heart_rate(190, 0)).await, 0, "an alarm is kept");
    };
    let stored = async {
        let mut answers = JoinSet::new();
        let mut pace = tokio::time::interval(Duration::from_millis(300));
        loop {
            tokio::select! {
                _ = pace.tick() => {
                    let (publisher, device) = (Arc::clone(&v5[1]), ids[1]);
                    answers.spawn(async move { send(&publisher, device, heart_rate(70, 3_600)).await });
                }
                Some(reason) = answers.join_next() => match reason.unwrap() {
                    0 => {}
                    0x97 => break,
                    other => panic!("answered with {other:#x}"),
                },
            }
        }
        answers.join_all().await;
    };
    let held = send(&v3, ids[2], heart_rate(71, 3_600));
    let ((), (), held) = tokio::join!(busy, stored, held);
    assert_eq!(held, 0, "version 3.1.1 is held, and then kept");
    assert!(server.log().contains("the disk does not keep up"), "{}", server.log());
    // When the pressure is gone, what was refused is taken.
    while send(&v5[1], ids[1], heart_rate(70, 3_600)).await != 0 {}
    server.kill();
}
