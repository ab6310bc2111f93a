//! Moving a store between databases in either direction, and backups of a database.

use store::migrate::{MoveError, Place, copy_running, finish};
use store::postgres::PgStore;
use store::sqlite::{restore, verify_backup};
use store::testing::Cluster;
use store::{OpenError, Store};
use trust::Kek;

use crate::files::fill;
use crate::support::*;

fn kek() -> Kek {
    Kek::from_bytes(&KEK)
}

fn no_matter(_: u64) {}

/// What can be asked of a store that [`fill`] has filled.
fn answers(store: &dyn Store) -> String {
    let page = store::AuditQuery { limit: 99, ..store::AuditQuery::default() };
    let ecg = series_of(1, measure_of(|kind| matches!(kind, clinical_model::MeasureKind::Waveform)));
    let dose = series_of(1, measure_of(|kind| matches!(kind, clinical_model::MeasureKind::Event)));
    let readings: Vec<_> = store.readings(&series(1), &ALL).unwrap();
    let readings: Vec<_> = readings.iter().map(|kept| (kept.get(), kept.committed_at())).collect();
    format!(
        "{readings:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        store.waveforms(&ecg, &ALL).unwrap().iter().map(|curve| curve.get().clone()).collect::<Vec<_>>(),
        store.events(&dose, &ALL).unwrap().iter().map(|event| event.get().clone()).collect::<Vec<_>>(),
        store.document_versions(store::Kind::Patient, [1; 16]).unwrap(),
        store.audit_rows(&page).unwrap(),
        store.group_summaries(None, 99).unwrap(),
        store.quarantine(false, None, 99).unwrap(),
        (store.quarantine_count(), store.last_group(), store.changes_after(0, 99).unwrap()),
        store.frames(device(1), at(40)).unwrap(),
        (store.blind("record-number", "1"), store.identifier(&series(1), at(0), 0).unwrap()),
        store.groups_after(0, 99).unwrap().iter().map(|group| group.group).collect::<Vec<_>>(),
    )
}

#[test]
fn a_running_store_moves_to_a_database_and_back_with_proof() {
    let (files, database) = (SqliteFactory::new(), PgFactory::new());
    let (from, to) = (Place::Files(files.path().to_owned()), Place::Database(database.url.clone()));
    let server = files.sqlite();
    fill(&server);
    let first = copy_running(&from, &to, (&kek(), &kek()), &mut no_matter).unwrap();
    assert!(first.added > 40 && first.removed == 0 && first.tables.is_empty(), "{first:?}");
    // Nobody serves from what is not finished.
    let early = PgStore::open(&database.url, kek(), options());
    assert!(matches!(early, Err(OpenError::Unfinished { .. })), "{early:?}");
    // The site goes on: more groups, a fold that rewrites blocks, another version of a document.
    for i in 100..120 {
        server.append(&[readings(vec![reading(series(1), i * 1_000, 0, "71")])], at(i * 1_000)).unwrap();
    }
    fold_all(&server);
    server.append(&[readings(vec![reading(series(2), 0, 0, "72")])], at(200_000)).unwrap();
    let refused = finish(&from, &to, (kek(), kek()), &mut no_matter);
    assert!(matches!(refused, Err(MoveError::InUse { .. })), "{refused:?}");
    let before = answers(&server);
    drop(server);
    // Another key-encryption key at the new place.
    let other = || Kek::from_bytes(&[9; 32]);
    let wrong = finish(&from, &to, (other(), other()), &mut no_matter);
    assert!(matches!(wrong, Err(MoveError::Open { source: OpenError::WrongKey { .. }, .. })), "{wrong:?}");
    let moved = finish(&from, &to, (kek(), kek()), &mut no_matter).unwrap();
    assert!(moved.removed > 0 && moved.tables.len() == 19, "{moved:?}");
    assert!(moved.tables.iter().all(|table| table.source == table.target && table.source.len() == 64));
    let rows = |name: &str| moved.tables.iter().find(|table| table.table == name).unwrap().rows;
    assert_eq!((rows("journal"), rows("audit"), rows("group_summary")), (1, 2, 29));

    let server = database.postgres();
    assert_eq!(answers(&server), before);
    assert_eq!(server.verify(&mut |_, _| {}).unwrap().findings, vec![]);
    // It goes on there: numbers continue, keys can be made.
    assert_eq!(
        server.append(&[readings(vec![reading(series(3), 0, 0, "1")])], at(300_000)).unwrap().group,
        30
    );
    fold_all(&server);
    let before = answers(&server);

    let back = tempfile::tempdir().unwrap();
    let (from, to) = (to, Place::Files(back.path().join("store")));
    copy_running(&from, &to, (&kek(), &other()), &mut no_matter).unwrap();
    let refused = finish(&from, &to, (kek(), other()), &mut no_matter);
    assert!(matches!(refused, Err(MoveError::InUse { .. })), "a server still runs: {refused:?}");
    drop(server);
    finish(&from, &to, (kek(), other()), &mut no_matter).unwrap();
    let again = store::sqlite::SqliteStore::open(&back.path().join("store"), other(), options()).unwrap();
    assert_eq!(answers(&again), before);
    assert_eq!(again.verify(&mut |_, _| {}).unwrap().findings, vec![]);
    assert_eq!(again.append(&[], at(400_000)).unwrap().group, 31);
}

#[test]
fn a_moved_log_knows_its_epoch_and_its_checkpoints() {
    let (files, database) = (SqliteFactory::new(), PgFactory::new());
    let server = files.sqlite();
    crate::log::filled(&server);
    let backup = files.path().join("backup");
    server.backup(&backup, &mut |_, _| {}).unwrap();
    let restored = files.path().join("restored");
    restore(&backup, &restored, kek()).unwrap();
    let server = open(&restored);
    assert!(server.log().begin_epoch_after_restore(at(100)).unwrap());
    store::Log::ALL.iter().for_each(|log| drop(crate::log::sign(&server, *log, at(100))));
    drop(server);

    let (from, to) = (Place::Files(restored), Place::Database(database.url.clone()));
    finish(&from, &to, (kek(), kek()), &mut no_matter).unwrap();
    let server = database.postgres();
    assert_eq!(server.log().log_state(store::Log::Acts).unwrap().epoch, 2);
    assert_eq!(server.verify(&mut |_, _| {}).unwrap().findings, vec![]);
    // So does a backup of the database, which waits for its own new epoch.
    let backup = files.path().join("from database");
    server.backup(&backup, &mut |_, _| {}).unwrap();
    restore(&backup, &files.path().join("again"), kek()).unwrap();
    let again = open(&files.path().join("again"));
    assert!(again.log().begin_epoch_after_restore(at(200)).unwrap());
    assert_eq!(again.log().log_state(store::Log::Groups).unwrap().epoch, 3);
    assert_eq!(again.verify(&mut |_, _| {}).unwrap().findings, vec![]);
}

#[test]
fn a_move_into_another_store_or_from_nowhere_is_refused() {
    let (files, database) = (SqliteFactory::new(), PgFactory::new());
    drop(database.postgres());
    let nowhere = tempfile::tempdir().unwrap();
    let (from, to) = (Place::Files(files.path().to_owned()), Place::Database(database.url.clone()));
    let empty = Place::Files(nowhere.path().join("none"));
    let refused = finish(&empty, &to, (kek(), kek()), &mut no_matter);
    assert!(matches!(refused, Err(MoveError::NoStore { .. })), "{refused:?}");
    assert!(!nowhere.path().join("none").join("data.db").exists(), "nothing was made");
    drop(files.sqlite());
    let refused = finish(&from, &to, (kek(), kek()), &mut no_matter);
    assert!(matches!(refused, Err(MoveError::NotEmpty { .. })), "{refused:?}");
    assert!(!Place::parse("postgres://ann:s3cret@db/ward").to_string().contains("s3cret"));
}

#[test]
fn a_copy_that_differs_is_not_believed() {
    let (files, database) = (SqliteFactory::new(), PgFactory::new());
    let (from, to) = (Place::Files(files.path().to_owned()), Place::Database(database.url.clone()));
    let server = files.sqlite();
    fill(&server);
    drop(server);
    copy_running(&from, &to, (&kek(), &kek()), &mut no_matter).unwrap();
    // Beyond the bytes by which rows are compared.
    let flip = "UPDATE document SET updated_at = updated_at; CREATE RULE keep AS ON INSERT TO document_change DO INSTEAD NOTHING;
        DELETE FROM document_change";
    Cluster::shared().execute_in(&database.url, flip);
    let refused = finish(&from, &to, (kek(), kek()), &mut no_matter);
    assert!(
        matches!(refused, Err(MoveError::Unequal { table: "document_change", from_rows: 2, to_rows: 0 })),
        "{refused:?}"
    );
    let served = PgStore::open(&database.url, kek(), options());
    assert!(matches!(served, Err(OpenError::Unfinished { .. })), "{served:?}");
    Cluster::shared().execute_in(&database.url, "DROP RULE keep ON document_change");
    finish(&from, &to, (kek(), kek()), &mut no_matter).unwrap();
    assert_eq!(database.postgres().changes_after(0, 9).unwrap().len(), 2);
}

#[test]
fn a_database_is_backed_up_while_it_runs_and_restores_into_files() {
    let database = PgFactory::new();
    let store = database.postgres();
    fill(&store);
    let place = tempfile::tempdir().unwrap();
    let (backup, restored) = (place.path().join("backup"), place.path().join("restored"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0.. {
                if stop.load(std::sync::atomic::Ordering::Acquire) {
                    break;
                }
                store.append(&[readings(vec![reading(series(4), i, 0, "70")])], at(i)).unwrap();
                store.fold(2, at(i)).unwrap();
            }
        });
        let report = store.backup(&backup, &mut |_, _| {});
        stop.store(true, std::sync::atomic::Ordering::Release);
        report.unwrap()
    });
    assert_eq!(verify_backup(&backup, &kek()).unwrap(), report);
    assert_eq!(restore(&backup, &restored, kek()).unwrap(), report);
    let copy = open(&restored);
    assert_eq!((copy.last_group(), report.last_audit), (report.last_group, 2));
    let whole = |store: &dyn Store| store.readings(&series(1), &ALL).unwrap().len();
    assert_eq!(whole(&copy), whole(&store));
    assert_eq!(copy.verify(&mut |_, _| {}).unwrap().findings, vec![]);
    assert!(store.backup(&backup, &mut |_, _| {}).is_err(), "not empty");
}
