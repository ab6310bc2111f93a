//! The directory of the authority: made, sealed, turned over, taken from an earlier release.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clinical_model::Timestamp;
use trust::pki::{Authority, NameLimits, PeerUri, begins_at, certificates_of, is_signed_by};
use trust::{Kek, KekRing, SecretText};

use super::*;

const DEVICE: &str = "01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11";

fn device() -> PeerUri {
    format!("urn:auscult:device:{DEVICE}").parse().unwrap()
}

fn ring() -> KekRing {
    KekRing::from(Kek::from_bytes(&[7; 32]))
}

fn made(path: &Path) -> PkiDirectory {
    PkiDirectory::init(path, "Site", &ring(), &RootHome::Here, &NameLimits::default()).unwrap()
}

/// No file of a directory holds a private key in the clear.
fn nothing_is_plain(path: &Path) {
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!trust::pki::is_plain_key(&text), "{}", path.display());
    }
}

#[test]
fn what_is_issued_is_listed_and_can_be_revoked_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pki");
    let pki = made(&path);
    let again = PkiDirectory::init(&path, "Site", &ring(), &RootHome::Here, &NameLimits::default());
    assert!(again.is_err(), "a second authority");
    let issued = pki.issue_client(device(), "Monitor 07, north", DEFAULT_DAYS).unwrap();
    assert_eq!(certificates_of(&issued.certificate_pem).len(), 2, "with the issuing certificate");
    // Looking and revoking need no key.
    let look = PkiDirectory::look(&path).unwrap();
    let lines = look.issued().unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].serial_hex, issued.serial_hex);
    assert_eq!(lines[0].common_name, "Monitor 07, north");
    assert_eq!(lines[0].purpose, format!("urn:auscult:device:{DEVICE}"));
    assert!(look.revoke("00ff", "lost").is_err(), "never issued");
    assert!(look.revoke(&issued.serial_hex.to_uppercase(), "lost").unwrap());
    assert!(!look.revoke(&issued.serial_hex, "lost").unwrap());
    assert!(read_revoked(&look.revoked_file()).unwrap().contains(&issued.serial_hex));
    let error = look.issue_client(device(), "x", 1).unwrap_err();
    assert!(format!("{error:#}").contains("--key-file"), "{error:#}");
    assert!(pki.issue_client(device(), "x", 0).is_err());
    assert!(pki.issue_client(device(), "x", MAX_DAYS + 1).is_err());
    nothing_is_plain(&path);
}

#[test]
fn the_directory_opens_with_its_key_encryption_key_only_and_follows_its_turn() {
    let directory = tempfile::tempdir().unwrap();
    made(directory.path());
    let other = Kek::from_bytes(&[8; 32]);
    let error =
        PkiDirectory::open(directory.path(), &KekRing::from(Kek::from_bytes(&[8; 32]))).err().unwrap();
    assert!(format!("{error:#}").contains("fingerprint"), "{error:#}");
    rewrap(directory.path(), &ring(), &other).unwrap();
    assert!(PkiDirectory::open(directory.path(), &ring()).is_err());
    assert!(PkiDirectory::open(directory.path(), &KekRing::from(other)).is_ok());
    rewrap(&directory.path().join("none"), &ring(), &Kek::from_bytes(&[9; 32])).unwrap();
}

/// A node that was away while the key turned over could never start again: its copy is wrapped by a key that is gone.
#[test]
fn a_copy_that_no_key_opens_is_fetched_from_the_database_again() {
    let directory = tempfile::tempdir().unwrap();
    let options = store::sqlite::Options::default();
    let store =
        store::sqlite::SqliteStore::open(&directory.path().join("data"), Kek::from_bytes(&[1; 32]), options)
            .unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    let first = shared::settle(&store, &one, "Site", &ring()).unwrap();
    let second = shared::settle(&store, &two, "Site", &ring()).unwrap();
    let issued = second.issue_client(device(), "Monitor", 30).unwrap();
    second.revoke(&issued.serial_hex, "stolen").unwrap();

    let next = KekRing::from(Kek::from_bytes(&[8; 32]));
    assert!(PkiDirectory::open(&two, &next).is_err());
    let again = shared::settle(&store, &two, "Site", &next).unwrap();
    assert_eq!(again.certificate_pem(), first.certificate_pem());
    assert_eq!(again.issuing_pem(), first.issuing_pem());
    again.issue_client(device(), "Monitor", 30).unwrap();
    let revoked = read_revoked(&again.revoked_file()).unwrap();
    assert!(revoked.contains(&issued.serial_hex), "what was revoked here is not lost");
    let aside = std::fs::read_dir(directory.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("two.unreadable-"));
    assert_eq!(aside.count(), 1, "the earlier copy is kept");
    nothing_is_plain(&two);
    // A directory that cannot be read for another reason is not put aside.
    std::fs::write(two.join("sealing.key"), "damaged").unwrap();
    assert!(shared::settle(&store, &two, "Site", &next).is_err() && two.exists());
}

#[test]
fn the_server_certificate_is_kept_until_its_names_change() {
    let directory = tempfile::tempdir().unwrap();
    let pki = PkiDirectory::open_or_init(directory.path(), "Site", &ring()).unwrap();
    let names = server_names(&[]);
    assert!(names.starts_with(&["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]));
    let first = pki.server_identity(&names).unwrap();
    let again = PkiDirectory::open_or_init(directory.path(), "Site", &ring()).unwrap();
    assert_eq!(again.server_identity(&names).unwrap().chain_pem, first.chain_pem);
    let other = pki.server_identity(&server_names(&["ward.example".to_owned()])).unwrap();
    assert_ne!(first.chain_pem, other.chain_pem);
    let (chain, key) = (&other.chain_pem, other.key_pem.expose());
    trust::tls::server_config_mutual(chain, key, pki.certificate_pem(), &[]).unwrap();
    nothing_is_plain(directory.path());
    // Within a month of its end it is renewed.
    let late = SystemTime::now() + Duration::from_secs(370 * 86_400);
    let late =
        PkiDirectory::open(directory.path(), &ring()).unwrap().with_clock(std::sync::Arc::new(move || late));
    let renewed = late.server_identity(&server_names(&["ward.example".to_owned()])).unwrap();
    assert_ne!(renewed.chain_pem, other.chain_pem);
    // A key that belongs to another certificate, after a crash between the two files, is replaced.
    std::fs::write(directory.path().join("server.pem"), &other.chain_pem).unwrap();
    let names = server_names(&["ward.example".to_owned()]);
    assert_ne!(late.server_identity(&names).unwrap().chain_pem, other.chain_pem);
}

#[test]
fn the_issuing_key_turns_over_under_a_root_that_was_taken_away() {
    let (directory, stick) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut pki = made(directory.path());
    let before = pki.issue_client(device(), "before", 30).unwrap();
    let names = server_names(&[]);
    let server = pki.server_identity(&names).unwrap();
    let (file, phrase) = (stick.path().join("root.key"), SecretText::new("correct horse battery".to_owned()));
    assert!(pki.is_root_key_here());
    pki.take_root(&file, Some(&phrase)).unwrap();
    assert!(!pki.is_root_key_here() && pki.take_root(&file, None).is_err());
    assert!(PkiDirectory::open(directory.path(), &ring()).is_ok(), "it serves without the root's key");

    let limits = NameLimits::default();
    assert!(pki.rotate(&RootSource::Here, &limits, &ring()).is_err(), "it is not here");
    let wrong = RootSource::File(file.clone(), Some(SecretText::new("another phrase".to_owned())));
    assert!(pki.rotate(&wrong, &limits, &ring()).is_err());
    let first = pki.tiers().issuing[0].clone();
    pki.rotate(&RootSource::File(file, Some(phrase)), &limits, &ring()).unwrap();
    let tiers = pki.tiers();
    assert_eq!((tiers.issuing.len(), tiers.issuing[1].id.as_str()), (2, first.id.as_str()));
    let until = tiers.issuing[1].believed_until.unwrap();
    assert!(until > timestamp(SystemTime::now() + Duration::from_secs(100 * 86_400)), "{until}");
    assert!(certificates_of(&pki.issuing_pem()).len() == 2, "both are believed");

    let after = pki.issue_client(device(), "after", 30).unwrap();
    assert!(is_signed_by(&after.certificate_pem, &tiers.issuing[0].pem));
    assert!(is_signed_by(&before.certificate_pem, &tiers.issuing[1].pem));
    assert_ne!(pki.server_identity(&names).unwrap().chain_pem, server.chain_pem, "the server's own, too");
    // Both go on signing their lists.
    for tier in &pki.tiers().issuing {
        assert!(pki.issuing_key(&tier.id).unwrap().is_some());
    }
    assert!(pki.issuing_key("none").unwrap().is_none());
    let long_after = Timestamp::from_seconds(until.as_seconds() + 1);
    let at = system_time(long_after);
    let later =
        PkiDirectory::open(directory.path(), &ring()).unwrap().with_clock(std::sync::Arc::new(move || at));
    assert_eq!(certificates_of(&later.issuing_pem()).len(), 1, "the earlier one has ended");
    nothing_is_plain(directory.path());
}

#[test]
fn an_authority_of_an_earlier_release_is_sealed_and_stays_what_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let old = Authority::create("Site authority", SystemTime::now(), 20).unwrap();
    std::fs::write(path.join("authority.pem"), &old.certificate_pem).unwrap();
    std::fs::write(path.join("authority.key"), old.key_pem.expose()).unwrap();
    std::fs::write(path.join("issued.txt"), "# head\n").unwrap();
    std::fs::write(path.join("revoked.txt"), "# head\n").unwrap();
    assert_eq!(PkiDirectory::look(path).unwrap().name(), "Site authority");
    assert!(path.join("authority.key").exists(), "looking changes nothing");
    let mut pki = PkiDirectory::open_or_init(path, "Site", &ring()).unwrap();
    assert!(!path.join("authority.key").exists());
    nothing_is_plain(path);
    assert_eq!(pki.certificate_pem(), old.certificate_pem, "its devices know it");
    let issued = pki.issue_client(device(), "x", 30).unwrap();
    assert_eq!(certificates_of(&issued.certificate_pem).len(), 1, "an anchor is not shown");
    let error = pki.rotate(&RootSource::Here, &NameLimits::default(), &ring()).unwrap_err();
    assert!(error.to_string().contains("one tier"), "{error}");
    assert!(read_programs(&pki.programs_file()).unwrap().is_empty());
}

#[test]
fn the_last_registration_of_a_program_counts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("programs.txt");
    let line = |second: i64, scope: &str| {
        ProgramLine::new(Timestamp::from_seconds(second), "lab", &[scope.to_owned()])
    };
    let lines = [line(2, "system/*.cruds").unwrap(), line(1, "system/*.rs").unwrap()];
    append_programs(&file, &lines).unwrap();
    assert_eq!(read_programs(&file).unwrap()["lab"].scopes, ["system/*.cruds"]);
    append_programs(&file, &[line(3, "system/Observation.rs").unwrap()]).unwrap();
    assert_eq!(read_programs(&file).unwrap()["lab"].scopes, ["system/Observation.rs"]);
    for wrong in ["user/*.rs", "patient/*.rs", "system/*.q", "openid", ""] {
        assert!(line(4, wrong).is_err(), "{wrong}");
    }
    std::fs::write(&file, "2026-11-22T10:00:00Z lab\n").unwrap();
    assert!(format!("{:#}", read_programs(&file).unwrap_err()).contains("line 1"));
}

#[test]
fn a_damaged_list_is_refused_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let pki = made(directory.path());
    std::fs::write(pki.revoked_file(), "# head\nzz\n").unwrap();
    assert!(format!("{:#}", pki.revoked().unwrap_err()).contains("line 2"));
    std::fs::write(directory.path().join("issued.txt"), "ab\n").unwrap();
    assert!(format!("{:#}", pki.issued().unwrap_err()).contains("line 1"));
}

#[test]
fn time_goes_on_from_the_floor_where_the_battery_is_empty() {
    let (released, floor) = (Timestamp::from_seconds(4_000_000_000), Timestamp::from_seconds(4_100_000_000));
    let empty = floored_clock(released, floor);
    let first = empty();
    assert!(first >= system_time(floor), "no release is older than itself");
    assert!(empty() >= first && empty() < first + Duration::from_secs(60), "it goes on");
    let new = floored_clock(released, Timestamp::from_seconds(0));
    assert!(new() >= system_time(released), "nothing was committed yet");
}

/// One row of a clock that ran ahead refused every device and every code until its time came.
#[test]
fn a_time_that_can_be_right_is_believed_though_later_ones_were_kept() {
    let right = floored_clock(Timestamp::from_seconds(1_700_000_000), Timestamp::from_seconds(4_000_000_000));
    assert!(right().duration_since(SystemTime::now()).unwrap_or_default() < Duration::from_secs(1));
}

/// It stayed until its first instant came, and every device refused the server.
#[test]
fn a_server_certificate_of_a_clock_that_ran_ahead_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    drop(made(directory.path()));
    let names = ["localhost".to_owned()];
    let year = Duration::from_secs(365 * 86_400);
    let opened = || PkiDirectory::open(directory.path(), &ring()).unwrap();
    let ahead = opened().with_clock(Arc::new(move || SystemTime::now() + year));
    let first = ahead.server_identity(&names).unwrap();
    assert!(begins_at(&first.chain_pem).unwrap() > SystemTime::now());
    let second = opened().server_identity(&names).unwrap();
    assert!(begins_at(&second.chain_pem).unwrap() <= SystemTime::now());
    assert_eq!(opened().server_identity(&names).unwrap().chain_pem, second.chain_pem, "which is kept");
}
