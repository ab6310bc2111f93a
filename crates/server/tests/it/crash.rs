//! Kill -9 under load: what the server acknowledged is in the chart, once, with its value.
//!
//! The ledger of acknowledged readings is kept by the devices, outside the server. Five rounds by default; a longer
//! run: `AUSCULT_CRASH_ROUNDS=50 cargo test -p server crash -- --nocapture`. With the feature
//! `planted` the server acknowledges too early, and this test must fail; that is the proof
//! that it can (`cargo test -p server --features planted -- --ignored planted`).

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clinical_model::{DeviceId, Timestamp, Value};
use pipeline::{Clock as _, SystemClock};
use rustls_pki_types::ServerName;
use simulator::client::Reconnect;
use simulator::load::{self, Figures, LedgerLine, Load};
use simulator::play::Credentials;
use simulator::random::Random;
use store::{Order, RangeQuery, SeriesFilter, Store as _};
use tokio_util::sync::CancellationToken;

use crate::devices;
use crate::process::{Place, Server, auscult, succeed};

/// Rounds where nothing else is asked for.
const DEFAULT_ROUNDS: u32 = 5;
/// Devices that send at the same time.
const DEVICES: usize = 8;
/// Readings of a message.
const BATCH: usize = 5;
/// A server lives at least so long after its first acknowledgement of the round, and up to three times as long.
const LIFE: Duration = Duration::from_millis(150);
/// Longest wait for the first acknowledgement of a round.
const FIRST_ACK_LIMIT: Duration = Duration::from_secs(60);
/// The backup begins when the ledger is so long: some thousand readings.
const LEDGER_BEFORE_BACKUP_BYTES: u64 = 256 << 10;
/// Most readings that are read back of one series.
const READ_LIMIT: usize = 10_000_000;

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    acked: usize,
    lost: usize,
    duplicated: usize,
    changed: usize,
}

#[test]
#[cfg(not(feature = "planted"))]
fn what_was_acknowledged_survives_every_crash() {
    let rounds = std::env::var("AUSCULT_CRASH_ROUNDS").map_or(DEFAULT_ROUNDS, |text| text.parse().unwrap());
    let verdict = crash(rounds);
    assert_eq!((verdict.lost, verdict.duplicated, verdict.changed), (0, 0, 0), "{verdict:?}");
}

#[test]
#[cfg(feature = "planted")]
fn a_planted_early_acknowledgement_is_found() {
    let verdict = crash(DEFAULT_ROUNDS);
    assert!(verdict.lost > 0, "the harness did not notice the planted bug: {verdict:?}");
}

fn crash(rounds: u32) -> Verdict {
    let seed = std::env::var("AUSCULT_CRASH_SEED").map_or_else(
        |_| u64::from(std::process::id()) ^ u64::try_from(SystemClock.now().as_micros()).unwrap_or(0),
        |text| text.parse().unwrap(),
    );
    println!("AUSCULT_CRASH_SEED={seed}");
    let mut random = Random::for_part(seed, "crash");
    let place = Place::new();
    let devices = devices::provision(&place, DEVICES);
    let credentials = devices::credentials(&place, &devices);
    let ledger = place.path("ledger.txt");
    for round in 1..=rounds {
        let server = Server::serve(&place, &[]);
        let life = LIFE.mul_f64(random.between(1.0, 3.0));
        let before = file_length(&ledger);
        one_round(server, &devices, &credentials, &ledger, before, life);
        let written = file_length(&ledger) - before;
        println!(
            "round {round} of {rounds}: killed {} ms after its first acknowledgement, ledger grew by {written} bytes",
            life.as_millis()
        );
        assert!(written > 0, "nothing was acknowledged in round {round}");
    }
    let acked = load::read_ledger(&ledger).unwrap();
    let verdict = judge(&acked, &read_back(&place, &place.data()));
    println!("{rounds} rounds: {verdict:?}");
    verdict
}

/// Load until the server has acknowledged something and lived for `life`; then kill -9, then the load ends.
fn one_round(
    server: Server,
    devices: &[DeviceId],
    credentials: &Credentials,
    ledger: &Path,
    before: u64,
    life: Duration,
) {
    let stop = CancellationToken::new();
    let loading = start_load(&server, devices, credentials, ledger, &stop);
    let began = Instant::now();
    while file_length(ledger) <= before {
        assert!(!loading.is_finished(), "the load ended early; log: {}", server.log());
        assert!(began.elapsed() < FIRST_ACK_LIMIT, "nothing was acknowledged; log: {}", server.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    // The moment of death, not a wait for something to happen.
    std::thread::sleep(life);
    server.kill();
    stop.cancel();
    let figures = loading.join().unwrap();
    assert!(figures.acked_messages > 0, "{figures:?}");
}

/// As fast as the server answers, until `stop` or until every connection is gone.
fn start_load(
    server: &Server,
    devices: &[DeviceId],
    credentials: &Credentials,
    ledger: &Path,
    stop: &CancellationToken,
) -> JoinHandle<Figures> {
    let load = Load {
        batch: BATCH,
        duration: None,
        ledger: Some(ledger.to_owned()),
        reconnect: Reconnect::Never,
        ..Load::new(devices.to_vec())
    };
    let (mqtt, credentials, stop) = (server.address("mqtt"), Arc::clone(credentials), stop.clone());
    std::thread::spawn(move || {
        let name = ServerName::try_from("localhost").unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(load::run(&load, &mqtt, name, credentials, stop)).unwrap()
    })
}

#[test]
#[cfg_attr(feature = "planted", ignore = "the bug is planted")]
fn a_disk_that_fails_ends_the_process_and_loses_nothing() {
    let place = Place::new();
    let devices = devices::provision(&place, DEVICES);
    let credentials = devices::credentials(&place, &devices);
    let ledger = place.path("ledger.txt");
    // No file may grow beyond 4 MiB (8192 blocks of 512 bytes): the system then refuses the write with an error.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\""]);
    command.arg(auscult().get_program()).arg("serve").args(place.arguments()).arg("--print-json");
    command.args(["--web", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--devices", "127.0.0.1:0"]);
    let mut server = Server::start(command, place.path("log.txt"));
    let loading = start_load(&server, &devices, &credentials, &ledger, &CancellationToken::new());
    let (status, _) = server.wait();
    assert_eq!(status.code(), Some(74), "log: {}", server.log());
    assert!(server.log().contains("auscult doctor"), "it says what to do: {}", server.log());
    let figures = loading.join().unwrap();
    assert!(figures.acked_messages > 0, "{figures:?}");
    let verdict = judge(&load::read_ledger(&ledger).unwrap(), &read_back(&place, &place.data()));
    assert_eq!((verdict.lost, verdict.duplicated, verdict.changed), (0, 0, 0), "{verdict:?}");
}

#[test]
#[cfg_attr(feature = "planted", ignore = "the bug is planted")]
fn a_stop_under_load_loses_nothing_and_is_a_success() {
    let place = Place::new();
    let devices = devices::provision(&place, DEVICES);
    let credentials = devices::credentials(&place, &devices);
    let ledger = place.path("ledger.txt");
    let server = Server::serve(&place, &[]);
    let loading = start_load(&server, &devices, &credentials, &ledger, &CancellationToken::new());
    let began = Instant::now();
    while file_length(&ledger) == 0 {
        assert!(began.elapsed() < FIRST_ACK_LIMIT, "nothing was acknowledged; log: {}", server.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    let (status, _) = server.stop();
    assert!(status.success(), "{status}");
    assert!(loading.join().unwrap().acked_messages > 0);
    let verdict = judge(&load::read_ledger(&ledger).unwrap(), &read_back(&place, &place.data()));
    assert_eq!((verdict.lost, verdict.duplicated, verdict.changed), (0, 0, 0), "{verdict:?}");
}

#[test]
#[cfg_attr(feature = "planted", ignore = "the bug is planted")]
fn a_backup_under_load_holds_what_was_acknowledged_before_it() {
    let place = Place::new();
    let devices = devices::provision(&place, DEVICES);
    let credentials = devices::credentials(&place, &devices);
    let ledger = place.path("ledger.txt");
    let server = Server::serve(&place, &[]);
    let stop = CancellationToken::new();
    let loading = start_load(&server, &devices, &credentials, &ledger, &stop);
    let began = Instant::now();
    while file_length(&ledger) < LEDGER_BEFORE_BACKUP_BYTES {
        assert!(began.elapsed() < FIRST_ACK_LIMIT, "too little was acknowledged; log: {}", server.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = load::read_ledger(&ledger).unwrap();
    let (backup, restored) = (place.path("backup"), place.path("restored"));
    let (backup, restored) = (backup.to_str().unwrap(), restored.to_str().unwrap());
    let arguments = place.arguments();
    let mut asked = vec!["backup"];
    asked.extend(arguments.iter().map(String::as_str));
    asked.push(backup);
    succeed(&asked);
    assert!(!loading.is_finished(), "the load went on meanwhile");
    stop.cancel();
    loading.join().unwrap();
    server.kill();
    succeed(&["restore", backup, restored, "--key-file", &arguments[3]]);
    let verdict = judge(&before, &read_back(&place, Path::new(restored)));
    assert_eq!((verdict.lost, verdict.duplicated, verdict.changed), (0, 0, 0), "{verdict:?}");
}

fn judge(acked: &[LedgerLine], kept: &HashMap<(DeviceId, Timestamp, u32), Vec<String>>) -> Verdict {
    let mut verdict = Verdict { acked: acked.len(), ..Verdict::default() };
    let unique: HashSet<_> = acked.iter().collect();
    assert_eq!(unique.len(), acked.len(), "the load sent one identity twice");
    for line in acked {
        match kept.get(&(line.device, line.measured_at, line.sequence)).map(Vec::as_slice) {
            None | Some([]) => verdict.lost += 1,
            Some([value]) if *value == line.value.to_string() => {}
            Some([_]) => verdict.changed += 1,
            Some(_) => verdict.duplicated += 1,
        }
    }
    verdict
}

fn read_back(place: &Place, data: &Path) -> HashMap<(DeviceId, Timestamp, u32), Vec<String>> {
    let store = devices::open(place, data);
    let range =
        RangeQuery { from: Timestamp::MIN, to: Timestamp::MAX, order: Order::Ascending, limit: READ_LIMIT };
    let mut kept: HashMap<_, Vec<String>> = HashMap::new();
    for series in store.series(&SeriesFilter::default()).unwrap() {
        for reading in store.readings(&series, &range).unwrap() {
            let Value::Number(number) = reading.value() else { panic!("a heart rate is a number") };
            let identity = (series.device, reading.measured_at(), reading.sequence());
            kept.entry(identity).or_default().push(number.to_string());
        }
    }
    let report = store.verify(&mut |_, _| {}).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    kept
}

fn file_length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}
