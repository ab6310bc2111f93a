//! A store with patients and devices before its first start, and a certificate for each device.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clinical_model::patient::Gender;
use clinical_model::{
    Assignment, AssignmentId, ClockRule, Device, DeviceId, Interval, Patient, PatientId, Private, Subject,
    Timestamp,
};
use pipeline::{Clock as _, Site, SiteOptions, SystemClock};
use simulator::play::Credentials;
use store::Actor;
use store::sqlite::SqliteStore;
use trust::Kek;
use trust::pki::{Authority, IssueRequest, PeerUri, SealingKey};

use crate::process::Place;

/// Opens a store that no server holds with the key of a place.
pub fn open(place: &Place, data: &Path) -> SqliteStore {
    try_open(place, data).unwrap()
}

/// The same, or why it does not open, with all causes.
pub fn try_open(place: &Place, data: &Path) -> Result<SqliteStore, String> {
    let kek = Kek::parse(std::fs::read(place.key()).unwrap()).unwrap();
    SqliteStore::open(data, kek, store::sqlite::Options::default()).map_err(|error| {
        let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        causes.fold(format!("the store does not open: {error}"), |text, cause| format!("{text}: {cause}"))
    })
}

/// Patients and devices, before the first start.
pub fn provision(place: &Place, count: usize) -> Vec<DeviceId> {
    std::fs::create_dir(place.data()).unwrap();
    with_site(place, |site| register(site, count))
}

/// Lets something be done at the desk of a site whose server does not run.
pub fn with_site<T>(place: &Place, act: impl FnOnce(&Site) -> T) -> T {
    let options = SiteOptions {
        fold_every: Duration::from_secs(3_600),
        on_durability_failure: Box::new(|error| panic!("{error}")),
    };
    let site = Site::start(Arc::new(open(place, &place.data())), Arc::new(SystemClock), options).unwrap();
    let done = act(&site);
    site.stop();
    done
}

/// Patients, and for each a device.
pub fn register(site: &Site, count: usize) -> Vec<DeviceId> {
    let now = SystemClock.now();
    let devices = (1..=count).map(|number| {
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
    devices.collect()
}

/// A certificate for each device from the server's own authority.
pub fn credentials(place: &Place, devices: &[DeviceId]) -> Credentials {
    place.pki(&["init", pki(place).to_str().unwrap(), "--site", "Crash"]);
    let authority = authority(place);
    let configs: HashMap<DeviceId, _> = devices
        .iter()
        .map(|device| (*device, issue(&authority, &device.to_string(), PeerUri::Device(*device.as_uuid()))))
        .collect();
    Arc::new(move |device| configs.get(&device).cloned())
}

/// A certificate for a program, from the server's own authority.
pub fn program(place: &Place, name: &str) -> Arc<rustls::ClientConfig> {
    // It writes, too.
    place.pki(&["scope", pki(place).to_str().unwrap(), name, "--scope", "system/*.cruds"]);
    issue(&authority(place), name, PeerUri::program(name).unwrap())
}

fn pki(place: &Place) -> PathBuf {
    place.data().join("pki")
}

/// The issuing key of a place, and the anchor that its devices know.
fn authority(place: &Place) -> (Authority, String) {
    let read = |name: &str| std::fs::read_to_string(pki(place).join(name)).unwrap();
    let kek = trust::Kek::parse(std::fs::read(place.key()).unwrap()).unwrap();
    let sealing = SealingKey::from_text(&read("sealing.key"), &kek.into()).unwrap();
    let entries = std::fs::read_dir(pki(place)).unwrap().map(|entry| entry.unwrap().file_name());
    let name = entries
        .map(|name| name.into_string().unwrap())
        .find(|name| name.starts_with("issuing-") && name.ends_with(".key"))
        .unwrap();
    let key = sealing.open(&name, &read(&name)).unwrap();
    (Authority::load(&read("issuing.pem"), key.expose()).unwrap(), read("authority.pem"))
}

fn issue((authority, anchor): &(Authority, String), name: &str, uri: PeerUri) -> Arc<rustls::ClientConfig> {
    let now = std::time::SystemTime::now();
    let request = IssueRequest {
        common_name: name.to_owned(),
        uri,
        not_before: now - Duration::from_secs(60),
        // Long enough for a server whose clock is a day ahead.
        not_after: now + Duration::from_secs(3 * 86_400),
    };
    let issued = authority.issue_client(&request).unwrap();
    let identity = (issued.certificate_pem.as_str(), issued.key_pem.expose());
    let config = trust::tls::client_config(anchor, Some(identity), &[]).unwrap();
    Arc::new(config)
}
