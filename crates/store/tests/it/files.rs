//! What only files can get wrong: crashes, damage, other keys, other processes, secrets at rest, backups.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clinical_model::quarantine::{QuarantineReason, QuarantineState};
use clinical_model::{Fact, FrameKind, MeasureKind, QuarantineId, QuarantineItem};
use rusqlite::Connection;
use store::sqlite::{Options, RestoreError, SqliteStore, restore, verify_backup};
use store::{
    Actor, AuditAction, AuditQuery, AuditRecord, DocumentWrite, Expected, KeyDomain, Kind, OpenError, Store,
    StoreError, Transaction,
};
use trust::Kek;

use crate::support::*;

fn kek() -> Kek {
    Kek::from_bytes(&KEK)
}

fn try_open(path: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(path, kek(), options())
}

/// A store with something in every table, half of it folded.
pub fn fill(store: &dyn Store) {
    let ecg = series_of(1, measure_of(|kind| matches!(kind, MeasureKind::Waveform)));
    let dose = series_of(1, measure_of(|kind| matches!(kind, MeasureKind::Event)));
    for group in 0..8 {
        let ms = group * 10_000;
        let mut facts: Vec<Fact> =
            (0..10).map(|i| Fact::Reading(reading(series(1), ms + i * 1_000, 0, SECRET_VALUE))).collect();
        facts.push(Fact::Waveform(curve(ecg, ms, (0..100).collect())));
        facts.push(Fact::Event(event(dose, ms, 0, SECRET_TEXT)));
        let mut frame = record(facts);
        frame.frame.bytes = SECRET_FRAME.as_bytes().to_vec();
        frame.quarantined = vec![QuarantineItem {
            id: QuarantineId::from_bytes([group as u8; 16]),
            device: device(1),
            kind: FrameKind::Fhir,
            received_at: at(ms),
            at_most_once: true,
            reason: QuarantineReason::Clock,
            what: SECRET_TEXT.to_owned(),
            offset: 0,
            state: QuarantineState::Waiting,
            bytes: SECRET_FRAME.as_bytes().to_vec(),
        }];
        store.append(&[frame], at(ms + 50)).unwrap();
        if group == 3 {
            store.fold(100, at(ms)).unwrap();
        }
    }
    for (version, body) in [(Expected::Absent, SECRET_NAME), (Expected::Version(1), SECRET_NUMBER)] {
        let write = DocumentWrite {
            kind: Kind::Patient,
            id: [1; 16],
            expected: version,
            domain: KeyDomain::Patient(patient(1)),
            body: Some(format!("{{\"name\": \"{body}\"}}").into_bytes()),
            index: vec![store::IndexEntry {
                name: "record-number",
                value: store.blind("record-number", SECRET_NUMBER).to_vec(),
                unique: true,
            }],
        };
        let actor = Actor::Unproven(SECRET_NAME.to_owned());
        let audit = vec![AuditRecord {
            patient: Some(patient(1)),
            detail: format!("name={SECRET_NAME}&number={SECRET_NUMBER}"),
            address: Some(SECRET_NAME.to_owned()),
            policies: vec![SECRET_NUMBER.to_owned()],
            ..AuditRecord::new(at(0), actor, AuditAction::Update, "Patient")
        }];
        store
            .transact(&Transaction { at: at(0), writes: vec![write], audit, ..Transaction::default() })
            .unwrap();
    }
}

const SECRET_VALUE: &str = "137.2946";
const SECRET_NAME: &str = "Quirrenbach-Zylberstein";
const SECRET_NUMBER: &str = "MRN-90317756";
const SECRET_TEXT: &str = "salbutamol-overheard-by-nobody";
const SECRET_FRAME: &str = "{\"device\":\"cuff-8821\",\"sys\":137.2946,\"who\":\"Quirrenbach\"}";

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn rows(store: &dyn Store) -> Vec<(i64, clinical_model::Value)> {
    let found = store.readings(&series(1), &ALL).unwrap();
    found.iter().map(|r| (r.measured_at().as_micros(), r.value())).collect()
}

#[test]
fn a_crash_loses_nothing() {
    let factory = SqliteFactory::new();
    let store = factory.sqlite();
    fill(&store);
    let whole = rows(&store);
    assert_eq!(whole.len(), 80);
    // The files as they are, with the log beside them, as after a power cut.
    let after = tempfile::tempdir().unwrap();
    copy_directory(factory.path(), after.path());
    assert!(after.path().join("data.db-wal").exists());
    let second = open(after.path());
    assert_eq!(rows(&second), whole);
    assert_eq!((second.last_group(), second.groups_after(4, 99).unwrap().len()), (8, 4));
    assert_eq!(second.quarantine_count(), store.quarantine_count());
    assert_eq!(second.verify(&mut |_, _| {}).unwrap().findings, vec![]);
    fold_all(&second);
    assert_eq!(rows(&second), whole);
}

#[test]
fn a_second_process_is_refused() {
    let factory = SqliteFactory::new();
    let store = factory.sqlite();
    assert!(matches!(try_open(factory.path()), Err(OpenError::InUse { path }) if path.ends_with("lock")));
    drop(store);
    try_open(factory.path()).unwrap();
}

#[test]
fn another_key_is_named_and_changes_nothing() {
    let factory = SqliteFactory::new();
    drop(factory.sqlite());
    let other = Kek::from_bytes(&[7; 32]);
    let (ours, theirs) = (kek().fingerprint_text(), other.fingerprint_text());
    match SqliteStore::open(factory.path(), other, options()) {
        Err(OpenError::WrongKey { given, expected }) => assert_eq!((given, expected), (theirs, ours)),
        other => panic!("{other:?}"),
    }
    try_open(factory.path()).unwrap();
}

#[test]
fn damaged_files_are_named() {
    let factory = SqliteFactory::new();
    let store = factory.sqlite();
    fill(&store);
    drop(store);
    for name in ["data.db", "keystore.db"] {
        let whole = fs::read(factory.path().join(name)).unwrap();
        let mut damages: Vec<Vec<u8>> =
            [0, 1, 50, 100, 512, 4_096, whole.len() / 2].iter().map(|len| whole[..*len].to_vec()).collect();
        damages.push(vec![0xa5; 20_000]);
        damages.push(b"SQLite format 3\0".iter().copied().chain([0x5a; 20_000]).collect());
        for damage in damages {
            let copy = tempfile::tempdir().unwrap();
            copy_directory(factory.path(), copy.path());
            fs::write(copy.path().join(name), &damage).unwrap();
            match try_open(copy.path()) {
                Err(OpenError::Damaged { path, .. }) => assert!(path.ends_with(name), "{path:?}"),
                other => panic!("{name} cut to {} bytes: {other:?}", damage.len()),
            }
        }
        let copy = tempfile::tempdir().unwrap();
        copy_directory(factory.path(), copy.path());
        fs::remove_file(copy.path().join(name)).unwrap();
        assert!(
            matches!(try_open(copy.path()), Err(OpenError::Damaged { path, .. }) if path.ends_with(name))
        );
        // A file of another store.
        let other = SqliteFactory::new();
        drop(other.sqlite());
        fs::copy(other.path().join(name), copy.path().join(name)).unwrap();
        assert!(matches!(try_open(copy.path()), Err(OpenError::Damaged { .. })), "{name} of another store");
    }
}

#[test]
fn a_later_format_is_refused() {
    for (name, format) in [("data.db", 5), ("keystore.db", 2)] {
        let factory = SqliteFactory::new();
        drop(factory.sqlite());
        let file = Connection::open(factory.path().join(name)).unwrap();
        file.pragma_update(None, "user_version", 99).unwrap();
        file.close().unwrap();
        assert!(
            matches!(try_open(factory.path()), Err(OpenError::TooNew { found: 99, known }) if known == format),
            "{name}"
        );
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, b"").unwrap();
    assert!(matches!(try_open(&path), Err(OpenError::Path { path: named, .. }) if named == path));
}

#[test]
fn no_secret_reaches_a_file() {
    let factory = SqliteFactory::new();
    let store = factory.sqlite();
    fill(&store);
    let target = factory.path().join("backup");
    store.backup(&target, &mut |_, _| {}).unwrap();
    let scan = |directory: &Path| {
        let mut scanned = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            scanned += bytes.len();
            for secret in [SECRET_VALUE, SECRET_NAME, SECRET_NUMBER, SECRET_TEXT, SECRET_FRAME, "cuff-8821"] {
                let hit = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!hit, "{secret} in {}", path.display());
            }
            for raw in [&KEK[..], &1_372_946_i64.to_le_bytes(), &1_372_946_i64.to_be_bytes()] {
                assert!(!bytes.windows(raw.len()).any(|window| window == raw), "{}", path.display());
            }
        }
        scanned
    };
    assert!(scan(factory.path()) > 100_000);
    assert!(scan(&target) > 50_000);
    fold_all(&store);
    drop(store);
    scan(factory.path());
}

/// Changes one file of a closed store with plain SQL.
fn tamper(path: &Path, sql: &str) {
    let file = Connection::open(path.join("data.db")).unwrap();
    assert!(file.execute(sql, []).unwrap() > 0, "{sql}");
    file.close().unwrap();
}

#[test]
fn rows_do_not_open_in_another_place() {
    let factory = SqliteFactory::new();
    let store = factory.sqlite();
    fill(&store);
    // The same patient, so the same key: only the place differs.
    let other = series_of(1, clinical_model::measure::OXYGEN_SATURATION);
    let facts = (0..10).map(|i| reading(other, i * 1_000, 0, "97")).collect();
    store.append(&[readings(facts)], at(0)).unwrap();
    fold_all(&store);
    assert!(store.readings(&other, &ALL).is_ok() && store.readings(&series(1), &ALL).is_ok());
    drop(store);
    tamper(
        factory.path(),
        "UPDATE block SET sealed = (SELECT sealed FROM block b WHERE b.series <> block.series LIMIT 1)
         WHERE number = (SELECT min(number) FROM block)",
    );
    let store = factory.sqlite();
    let outcome = store.readings(&series(1), &ALL).and(store.readings(&other, &ALL));
    match outcome {
        Err(StoreError::Sealed { what, .. }) => assert!(what.starts_with("block "), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn verification_names_what_was_tampered_with() {
    let cases = [
        (
            "block",
            "UPDATE block SET sealed = substr(sealed, 1, 60) || X'00' || substr(sealed, 62) WHERE number = (SELECT max(number) FROM block)",
        ),
        ("block", "UPDATE block SET count = count + 1 WHERE number = (SELECT max(number) FROM block)"),
        ("wave_block", "UPDATE wave_block SET duration_us = duration_us + 1"),
        ("event", "UPDATE event SET sequence = 9 WHERE at = (SELECT min(at) FROM event)"),
        ("frame_block", "UPDATE frame_block SET device = X'00112233445566778899aabbccddeeff'"),
        ("journal", "UPDATE journal SET sealed = X'' WHERE number = 7"),
        ("latest", "UPDATE latest SET measured_at = measured_at + 1"),
        ("document", "UPDATE document SET version = version + 1"),
        ("document_history", "UPDATE document_history SET id = X'00112233445566778899aabbccddeeff'"),
        ("quarantine", "UPDATE quarantine SET frame_bytes = 1"),
        ("audit", "UPDATE audit SET at = at + 1 WHERE sequence = 2"),
        ("audit", "UPDATE audit SET leaf = zeroblob(32) WHERE sequence = 1"),
        ("audit", "DELETE FROM audit WHERE sequence = 1"),
        ("group_summary", "DELETE FROM group_summary WHERE number = 2"),
        ("document_index", "UPDATE document_index SET id = X'00112233445566778899aabbccddeeff'"),
    ];
    let factory = SqliteFactory::new();
    let store = factory.sqlite();
    fill(&store);
    let mut calls = Vec::new();
    let clean = store.verify(&mut |done, all| calls.push((done, all))).unwrap();
    assert_eq!((clean.findings, clean.readings), (vec![], 80));
    assert!(calls.len() > 30 && calls.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    assert_eq!(calls.last().map(|(done, all)| done == all), Some(true));
    drop(store);
    for (table, sql) in cases {
        let copy = tempfile::tempdir().unwrap();
        copy_directory(factory.path(), copy.path());
        tamper(copy.path(), sql);
        // A damaged journal is found at once, because the tail is rebuilt from it.
        if table == "journal" {
            assert!(
                matches!(try_open(copy.path()), Err(OpenError::Damaged { what, .. }) if what.contains("journal row 7"))
            );
            continue;
        }
        let report = open(copy.path()).verify(&mut |_, _| {}).unwrap();
        let place = format!("data.db, table {table}");
        assert!(report.findings.iter().any(|finding| finding.place.starts_with(&place)), "{sql}: {report:?}");
    }
}

#[test]
fn who_is_too_far_behind_is_told_where_the_list_begins() {
    let factory = SqliteFactory::new();
    let store = factory.sqlite();
    fill(&store);
    assert_eq!(store.changes_after(0, 9).unwrap().len(), 2);
    drop(store);
    tamper(factory.path(), "DELETE FROM document_change WHERE change = 1");
    let store = factory.sqlite();
    assert!(matches!(store.changes_after(0, 9), Err(StoreError::TooFarBehind { oldest: 2 })));
    assert_eq!(store.changes_after(1, 9).unwrap().len(), 1);
}

#[test]
fn an_erased_patient_cannot_be_read_and_the_log_stays_whole() {
    let factory = SqliteFactory::new();
    let store = factory.sqlite();
    fill(&store);
    fold_all(&store);
    drop(store);
    let keystore = Connection::open(factory.path().join("keystore.db")).unwrap();
    assert_eq!(keystore.execute("DELETE FROM data_key WHERE domain LIKE 'patient/%'", []).unwrap(), 1);
    keystore.close().unwrap();
    let store = factory.sqlite();
    assert!(matches!(store.readings(&series(1), &ALL), Err(StoreError::KeyGone { .. })));
    assert!(matches!(store.document(Kind::Patient, [1; 16]), Err(StoreError::KeyGone { .. })));
    let log = store.audit_rows(&AuditQuery { limit: 9, ..AuditQuery::default() }).unwrap();
    assert_eq!((log.len(), &log[0].record.detail[..]), (2, ""));
}

#[test]
fn journal_keys_vanish_with_their_rows() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { journal_key_life: std::time::Duration::from_secs(60), ..options() };
    let store = SqliteStore::open(directory.path(), kek(), options).unwrap();
    let keys = || {
        let file = Connection::open(directory.path().join("keystore.db")).unwrap();
        let count = "SELECT count(*) FROM data_key WHERE domain = 'system/journal'";
        file.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    for minute in 0..4 {
        let one = readings(vec![reading(series(1), minute * 70_000, 0, "70")]);
        store.append(&[one], at(minute * 70_000)).unwrap();
    }
    assert_eq!(keys(), 4);
    store.fold(2, at(300_000)).unwrap();
    assert_eq!(keys(), 2);
    store.fold(9, at(300_000)).unwrap();
    assert_eq!(keys(), 1);
    assert_eq!(store.readings(&series(1), &ALL).unwrap().len(), 4);
}

#[test]
fn a_backup_taken_while_groups_are_committed_restores_to_one_instant() {
    let factory = SqliteFactory::new();
    let store = factory.sqlite();
    fill(&store);
    let target = tempfile::tempdir().unwrap();
    let (backup, restored) = (target.path().join("backup"), target.path().join("restored"));
    let (stop, appended) = (AtomicBool::new(false), AtomicU64::new(0));
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0.. {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                // Every group brings a patient, so a key, of its own.
                let one = readings(vec![reading(series((i % 200) as u8 + 2), i, 0, "70")]);
                store.append(&[one], at(i)).unwrap();
                if i % 10 == 0 {
                    store.fold(20, at(i)).unwrap();
                }
                appended.store(i as u64, Ordering::Release);
            }
        });
        while appended.load(Ordering::Acquire) < 5 {
            std::thread::yield_now();
        }
        let before = appended.load(Ordering::Acquire);
        let report = store.backup(&backup, &mut |_, _| {}).unwrap();
        while appended.load(Ordering::Acquire) < before + 20 {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Release);
        report
    });
    assert!(report.last_group >= 13 && report.last_group < store.last_group());
    assert!(matches!(store.backup(&backup, &mut |_, _| {}), Err(StoreError::File { .. })), "not empty");

    assert_eq!(verify_backup(&backup, &kek()).unwrap(), report);
    assert_eq!(fs::read_dir(&backup).unwrap().count(), 3, "nothing is left beside the copy");
    assert_eq!(restore(&backup, &restored, kek()).unwrap(), report);
    let copy = open(&restored);
    assert_eq!(copy.last_group(), report.last_group);
    assert_eq!(rows(&copy), rows(&store));
    assert_eq!(copy.verify(&mut |_, _| {}).unwrap().findings, vec![]);
    drop(copy);

    assert!(matches!(restore(&backup, &restored, kek()), Err(RestoreError::NotEmpty { .. })));
    let other = Kek::from_bytes(&[9; 32]);
    let wrong = restore(&backup, &target.path().join("wrong"), other);
    assert!(matches!(wrong, Err(RestoreError::Open(OpenError::WrongKey { .. }))), "{wrong:?}");
    let mut bytes = fs::read(backup.join("data.db")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(backup.join("data.db"), bytes).unwrap();
    let changed = restore(&backup, &target.path().join("changed"), kek());
    assert!(
        matches!(changed, Err(RestoreError::Changed { ref path, .. }) if path.ends_with("data.db")),
        "{changed:?}"
    );
    assert!(!target.path().join("changed").exists());
}

#[test]
fn readers_and_a_fold_beside_commits_never_see_a_gap() {
    let factory = SqliteFactory::new();
    let store = factory.sqlite();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                store.fold(3, at(0)).unwrap();
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let committed = store.last_group();
                let seen = rows(&store);
                assert!(seen.len() as u64 >= committed, "{} of {committed}", seen.len());
                assert!(seen.windows(2).all(|pair| pair[0].0 + 1_000_000 == pair[1].0));
            }
        });
        for i in 0..150 {
            store.append(&[readings(vec![reading(series(1), i * 1_000, 0, "70")])], at(i * 1_000)).unwrap();
        }
        stop.store(true, Ordering::Release);
    });
}

#[cfg(unix)]
#[test]
fn files_are_readable_by_their_owner_alone_even_in_an_open_directory() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let store = try_open(directory.path()).unwrap();
    store.append(&[], at(1_000)).unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "lock" {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        }
    }
}
