//! Kill -9 under load: what the server acknowledged is in the chart, once, with its value.
//!
//! The ledger of acknowledged readings is kept by the devices, outside the server. Five rounds by default; a longer
//! run: `AUSCULT_CRASH_ROUNDS=50 cargo test -p server crash -- --nocapture`. With the feature
//! `planted-early-acknowledgement` the server acknowledges too early, and this test must fail; that is the proof
//! that it can (`cargo test -p server --features planted-early-acknowledgement -- --ignored planted`).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clinical_model::patient::Gender;
use clinical_model::{
    Assignment, AssignmentId, ClockRule, Device, DeviceId, Interval, Patient, PatientId, Private, Subject,
    Timestamp, Value,
};
use pipeline::{Clock as _, Site, SiteOptions, SystemClock};
use rustls_pki_types::ServerName;
use simulator::client::Reconnect;
use simulator::load::{self, LedgerLine, Load};
use simulator::play::Credentials;
use simulator::random::Random;
use store::sqlite::SqliteStore;
use store::{Actor, Order, RangeQuery, SeriesFilter, Store};
use tokio_util::sync::CancellationToken;
use trust::Kek;
use trust::pki::{Authority, IssueRequest, PeerUri};

use crate::process::{Place, Server, succeed};

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
#[cfg_attr(feature = "planted-early-acknowledgement", ignore = "the bug is planted")]
fn what_was_acknowledged_survives_every_crash() {
    let rounds = std::env::var("AUSCULT_CRASH_ROUNDS").map_or(DEFAULT_ROUNDS, |text| text.parse().unwrap());
    let verdict = crash(rounds);
    assert_eq!((verdict.lost, verdict.duplicated, verdict.changed), (0, 0, 0), "{verdict:?}");
}

#[test]
#[cfg_attr(not(feature = "planted-early-acknowledgement"), ignore = "needs the planted bug")]
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
    let devices = provision(&place);
    let credentials = credentials(&place, &devices);
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
    let verdict = judge(&acked, &read_back(&place));
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
    let load = Load {
        batch: BATCH,
        duration: None,
        ledger: Some(ledger.to_owned()),
        reconnect: Reconnect::Never,
        ..Load::new(devices.to_vec())
    };
    let (mqtt, stop) = (server.address("mqtt"), CancellationToken::new());
    let (credentials, stopped) = (Arc::clone(credentials), stop.clone());
    let loading = std::thread::spawn(move || {
        let name = ServerName::try_from("localhost").unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(load::run(&load, &mqtt, name, credentials, stopped))
    });
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
    let figures = loading.join().unwrap().unwrap();
    assert!(figures.acked_messages > 0, "{figures:?}");
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

fn read_back(place: &Place) -> HashMap<(DeviceId, Timestamp, u32), Vec<String>> {
    let store = open(place);
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

fn open(place: &Place) -> SqliteStore {
    let kek = Kek::parse(std::fs::read(place.key()).unwrap()).unwrap();
    SqliteStore::open(&place.data(), kek, store::sqlite::Options::default()).unwrap()
}

fn file_length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// Patients and devices, before the first start.
fn provision(place: &Place) -> Vec<DeviceId> {
    std::fs::create_dir(place.data()).unwrap();
    let options = SiteOptions {
        fold_every: Duration::from_secs(3_600),
        on_durability_failure: Box::new(|error| panic!("{error}")),
    };
    let site = Site::start(Arc::new(open(place)), Arc::new(SystemClock), options).unwrap();
    let now = SystemClock.now();
    let devices = (1..=DEVICES).map(|number| {
        let id = || trust::uuid_v7(u64::try_from(now.as_millis()).unwrap());
        let patient = Patient {
            id: PatientId::from_uuid(id()),
            family: Private::new("Crash".into()),
            given: Private::new(number.to_string()),
            birth_date: None,
            gender: Gender::Unknown,
            record_number: Private::new(format!("C{number}")),
            place: None,
            active: true,
        };
        let device = Device {
            id: DeviceId::from_uuid(id()),
            name: format!("Crash {number}"),
            kind: "load".into(),
            manufacturer: "Auscult".into(),
            model: "crash".into(),
            serial: number.to_string(),
            clock: ClockRule::Trust,
            utc_offset_min: 0,
            expected_interval_s: None,
            retired: false,
        };
        let assignment = Assignment {
            id: AssignmentId::from_uuid(id()),
            device: device.id,
            subject: Subject::Patient(patient.id),
            interval: Interval::since(Timestamp::from_seconds(now.as_millis() / 1_000 - 3_600)),
        };
        site.add_patient(Actor::System, patient).unwrap();
        site.add_device(Actor::System, device).unwrap();
        site.assign(Actor::System, assignment).unwrap();
        assignment.device
    });
    let devices = devices.collect();
    site.stop();
    devices
}

/// A certificate for each device from the server's own authority.
fn credentials(place: &Place, devices: &[DeviceId]) -> Credentials {
    let pki: PathBuf = place.data().join("pki");
    succeed(&["pki", "init", pki.to_str().unwrap(), "--site", "Crash"]);
    let read = |name: &str| std::fs::read_to_string(pki.join(name)).unwrap();
    let authority = Authority::load(&read("authority.pem"), &read("authority.key")).unwrap();
    let now = std::time::SystemTime::now();
    let configs: HashMap<DeviceId, _> = devices
        .iter()
        .map(|device| {
            let request = IssueRequest {
                common_name: device.to_string(),
                uri: PeerUri::Device(*device.as_uuid()),
                not_before: now - Duration::from_secs(60),
                not_after: now + Duration::from_secs(86_400),
            };
            let issued = authority.issue_client(&request).unwrap();
            let identity = (issued.certificate_pem.as_str(), issued.key_pem.expose());
            let config = trust::tls::client_config(authority.certificate_pem(), Some(identity), &[]).unwrap();
            (*device, Arc::new(config))
        })
        .collect();
    Arc::new(move |device| configs.get(&device).cloned())
}
