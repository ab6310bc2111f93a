//! Serving, stopping, and what reaches a running server from its own machine.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clinical_model::patient::Gender;
use clinical_model::{Patient, PatientId, Private, RecordId as _};
use pipeline::erasure::ErasureOrder;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use simulator::client::{ConnectOptions, Publisher, Qos, Reconnect};
use store::{Actor, SeriesFilter, Store as _};

use crate::devices;
use crate::process::{Place, Server, copy, refuse, run, succeed};

/// Longest wait for a revocation to be noticed; the list is looked at each second.
const REVOKED_LIMIT: Duration = Duration::from_secs(20);

fn with<'a>(command: &'a str, place: &'a [String; 4], more: &[&'a str]) -> Vec<&'a str> {
    [command].into_iter().chain(place.iter().map(String::as_str)).chain(more.iter().copied()).collect()
}

#[test]
fn it_serves_and_stops_when_it_is_asked_to() {
    let place = Place::new();
    let server = Server::serve(&place, &[]);
    // By name, and not by address: passkeys need one.
    let port = server.address("address").rsplit(':').next().unwrap().to_owned();
    let link = format!("http://localhost:{port}/setup#token=");
    assert!(server.address("setup_link").starts_with(&link), "{}", server.ready);
    let token = server.address("setup_link").split('=').next_back().unwrap().to_owned();
    assert!(!server.log().contains(&token), "the log is kept, the link must not be in it");
    let arguments = place.arguments();
    let errors = refuse(&with("serve", &arguments, &["--web", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]));
    assert!(errors.contains("in use by another process"), "{errors}");
    let (status, rest) = server.stop();
    assert!(status.success(), "{status}");
    assert_eq!(rest, "", "one line on standard output");
    assert!(!place.data().join("admin.sock").exists());

    // A second start finds what the first one made.
    let server = Server::serve(&place, &[]);
    assert!(server.stop().0.success());
}

#[test]
fn a_running_server_is_backed_up_verified_and_examined() {
    let place = Place::new();
    let server = Server::serve(&place, &[]);
    let (backup, restored) = (place.path("backup"), place.path("restored"));
    let (backup, restored) = (backup.to_str().unwrap(), restored.to_str().unwrap());
    let arguments = place.arguments();
    assert!(succeed(&with("backup", &arguments, &[backup])).contains("SHA-256"));
    assert!(refuse(&with("backup", &arguments, &[backup])).contains("not empty"), "a second one is refused");
    assert!(succeed(&with("verify", &arguments, &[])).contains(" 0 damaged"));
    assert!(run(&with("doctor", &arguments, &[])).status.success());
    assert!(server.stop().0.success());

    let key = place.key();
    let key = key.to_str().unwrap();
    assert!(succeed(&["verify", "--backup", backup, "--key-file", key]).contains("is sound"));
    assert!(succeed(&["restore", backup, restored, "--key-file", key]).contains("last audit row"));
    assert!(refuse(&["restore", backup, restored, "--key-file", key]).contains("not empty"));
    // Stopped: the same commands open the store themselves.
    assert!(succeed(&with("verify", &arguments, &[])).contains(" 0 damaged"));
    let direct = place.path("direct");
    succeed(&with("backup", &arguments, &[direct.to_str().unwrap()]));
}

#[test]
fn a_damaged_backup_is_named() {
    let place = Place::new();
    Server::serve(&place, &[]).stop();
    let backup = place.path("backup");
    let arguments = place.arguments();
    succeed(&with("backup", &arguments, &[backup.to_str().unwrap()]));
    let file = backup.join("data.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let key = place.key();
    let errors =
        refuse(&["verify", "--backup", backup.to_str().unwrap(), "--key-file", key.to_str().unwrap()]);
    assert!(errors.contains("data.db") && errors.contains("SHA-256"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setup_link_makes_the_first_administrator_once() {
    let place = Place::new();
    let server = Server::serve(&place, &[]);
    let token = server.address("setup_link").split('=').next_back().unwrap().to_owned();
    let url = format!("{}/api/v1/setup", server.address("address"));
    let client = reqwest::Client::new();
    let ask = async |token: &str, name: &str| {
        let body =
            json!({ "token": token, "name": name, "display": "A", "password": "correct horse battery" });
        client.post(&url).header("x-auscult", "1").json(&body).send().await.unwrap()
    };
    let wrong = ask("A".repeat(43).as_str(), "mallory").await;
    assert!(wrong.status().is_client_error(), "{}", wrong.status());
    let right = ask(&token, "alice").await;
    assert!(right.status().is_success(), "{}", right.status());
    let session: Value = right.json().await.unwrap();
    assert_eq!(session["user"]["role"], "administrator", "{session}");
    assert_eq!(session["state"], "enrolment-needed", "a password alone is no way in");
    let again = ask(&token, "bob").await;
    assert!(again.status().is_client_error(), "{}", again.status());
    assert!(server.stop().0.success());
    // Now that somebody can sign in, no link is printed any more.
    let server = Server::serve(&place, &[]);
    assert_eq!(server.ready["setup_link"], Value::Null);
}

/// A new authority and a certificate of it; their directories.
fn issue(place: &Place, device: &str) -> (PathBuf, PathBuf) {
    let (pki, certs) = (place.data().join("pki"), place.path("certs"));
    place.pki(&["init", pki.to_str().unwrap(), "--site", "Site"]);
    place.pki(&["issue", pki.to_str().unwrap(), "--device", device, "--out", certs.to_str().unwrap()]);
    (pki, certs)
}

#[test]
fn a_recording_is_replayed_and_kept() {
    let place = Place::new();
    let device = devices::provision(&place, 1)[0].to_string();
    let (_, certs) = issue(&place, &device);
    let server = Server::serve(&place, &[]);
    let file = |name: String| certs.join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (file(format!("{device}.pem")), file(format!("{device}.key")));
    let authority = file("authority.pem".into());
    let record = concat!(env!("CARGO_MANIFEST_DIR"), "/../simulator/recordings/mitdb/208.hea");
    let to = format!("mqtts://localhost:{}", server.address("mqtt").rsplit(':').next().unwrap());
    let mut arguments = vec!["replay", record, "--device", &device, "--cert", &certificate, "--key", &key];
    arguments.extend(["--authority", &authority, "--to", &to, "--speed", "1000"]);
    let said = succeed(&arguments);
    assert!(said.contains("180 seconds sent, 180 acknowledged, 0 refused"), "{said}");
    assert!(server.stop().0.success());
    let store = devices::open(&place, &place.data());
    let measures: BTreeSet<_> = store
        .series(&SeriesFilter::default())
        .unwrap()
        .into_iter()
        .map(|series| series.measure.name)
        .collect();
    assert!(measures.contains("heart_rate") && measures.len() >= 3, "two leads and the rate: {measures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_ends_a_live_connection() {
    let place = Place::new();
    let device = devices::provision(&place, 1)[0];
    let (pki, certs) = issue(&place, &device.to_string());
    let pki = pki.to_str().unwrap();
    let read = |name: String| std::fs::read_to_string(certs.join(name)).unwrap();
    let (certificate, key) = (read(format!("{device}.pem")), read(format!("{device}.key")));
    let identity = Some((certificate.as_str(), key.as_str()));
    let tls = trust::tls::client_config(&read("authority.pem".into()), identity, &[]).unwrap();

    let server = Server::serve(&place, &[]);
    let name = ServerName::try_from("localhost").unwrap();
    let mut options = ConnectOptions::new(server.address("mqtt"), name, Arc::new(tls), device.to_string());
    options.reconnect = Reconnect::Never;
    let publisher = Publisher::connect(options.clone()).await.unwrap();
    let topic = format!("auscult/v1/{device}/gatt/2a37");
    let accepted = async || {
        let pending = publisher.publish(topic.clone(), vec![0x00, 0x48], Qos::AtLeastOnce).await.ok()?;
        pending.await.ok().filter(|acked| !acked.is_refused())
    };
    assert!(accepted().await.is_some(), "log: {}", server.log());

    let list = succeed(&["pki", "list", pki]);
    let line = list.lines().find(|line| line.contains(&device.to_string())).unwrap();
    let serial = line.split(' ').next().unwrap();
    succeed(&["pki", "revoke", pki, serial, "--reason", "stolen"]);
    let revoked_at = Instant::now();
    while accepted().await.is_some() {
        assert!(revoked_at.elapsed() < REVOKED_LIMIT, "still accepted; log: {}", server.log());
    }
    assert!(Publisher::connect(options).await.is_err(), "it must not come back");
}

/// It held a quarter of a second later: a program that was issued and used at once had the rights of an unknown one.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_changes_in_the_authority_holds_when_it_ends() {
    let place = Place::new();
    let ids = devices::provision(&place, 4);
    let (pki, certs) = issue(&place, "01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11");
    let (pki, out) = (pki.to_str().unwrap(), certs.to_str().unwrap());
    let server = Server::serve(&place, &[]);
    for device in ids {
        let name = device.to_string();
        place.pki(&["issue", pki, "--device", &name, "--out", out]);
        let read = |name: String| std::fs::read_to_string(certs.join(name)).unwrap();
        let (certificate, key) = (read(format!("{name}.pem")), read(format!("{name}.key")));
        let tls = trust::tls::client_config(
            &read("authority.pem".into()),
            Some((certificate.as_str(), key.as_str())),
            &[],
        );
        let host = ServerName::try_from("localhost").unwrap();
        let mut options = ConnectOptions::new(server.address("mqtt"), host, Arc::new(tls.unwrap()), &name);
        options.reconnect = Reconnect::Never;
        Publisher::connect(options.clone()).await.unwrap().disconnect().await;
        let list = succeed(&["pki", "list", pki]);
        for line in list.lines().filter(|line| line.contains(&name)) {
            succeed(&["pki", "revoke", pki, line.split(' ').next().unwrap(), "--reason", "a test"]);
        }
        assert!(Publisher::connect(options).await.is_err(), "{name} is revoked; log: {}", server.log());
    }
    assert!(server.stop().0.success());
}

/// A data directory that is put back by a snapshot of the disk brought erased patients back, and the list of erasures was
/// written over with what it knew.
#[test]
fn an_erased_patient_does_not_come_back_with_an_older_data_directory() {
    let place = Place::new();
    devices::provision(&place, 1);
    let patient = Patient {
        id: PatientId::from_bytes([0x5a; 16]),
        family: Private::new("Finch".into()),
        given: Private::new("Ada".into()),
        birth_date: None,
        gender: Gender::Female,
        record_number: Private::new("MRN-1".into()),
        place: None,
        active: true,
    };
    devices::with_site(&place, |site| site.add_patient(Actor::System, patient.clone()).unwrap());
    assert!(Server::serve(&place, &[]).stop().0.success());
    let snapshot = place.path("snapshot");
    copy(&place.data(), &snapshot);
    devices::with_site(&place, |site| {
        let order = ErasureOrder {
            patient: patient.id,
            reason: "asked for".to_owned(),
            request: "case 9".to_owned(),
            confirm: "MRN-1".to_owned(),
            turn_within_days: 30,
        };
        site.erase(&Actor::System, &order).unwrap();
        while site.care_now("Test", 100).unwrap() {}
    });
    assert!(Server::serve(&place, &[]).stop().0.success());
    let list = place.path("key.erasures");
    let written = std::fs::read_to_string(&list).unwrap();
    assert!(written.contains("5a5a5a5a"), "{written}");

    std::fs::remove_dir_all(place.data()).unwrap();
    copy(&snapshot, &place.data());
    // A list that somebody changed is neither believed nor written over.
    std::fs::write(&list, written.replace("5a5a5a5a", "5b5b5b5b")).unwrap();
    let arguments = place.arguments();
    let refused = refuse(&with("serve", &arguments, &["--web", "127.0.0.1:0"]));
    assert!(refused.contains("is not the list of this site"), "{refused}");
    std::fs::write(&list, &written).unwrap();

    let server = Server::serve(&place, &[]);
    assert!(server.log().contains("the patient was erased again"), "{}", server.log());
    assert!(server.stop().0.success());
    assert!(std::fs::read_to_string(&list).unwrap().contains("5a5a5a5a"));
    let store = devices::open(&place, &place.data());
    assert!(store.document(store::Kind::Patient, patient.id.to_bytes()).unwrap().is_none());
    assert!(store.ensure_patient_key(patient.id).is_err(), "and no key is ever made again");
}
