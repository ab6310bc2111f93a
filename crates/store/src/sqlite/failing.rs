//! What happens when stable storage fails: nothing is kept by halves, and nothing is acknowledged afterwards.

use std::fs::File;
use std::os::unix::fs::FileExt;

use clinical_model::{
    Decimal, Delivery, DeviceId, Fact, Findings, Frame, FrameKind, PatientId, Reading, SeriesKey, Subject,
    Timestamp, Value, measure,
};
use rusqlite::ffi;
use trust::Kek;

use super::{DATA_FILE, Options, SqliteStore};
use crate::sql::{Session as _, write};
use crate::words::{FrameRecord, Order, RangeQuery, Transaction};
use crate::{Store, StoreError, TransactError};

const SERIES: SeriesKey = SeriesKey {
    subject: Subject::Patient(PatientId::from_bytes([1; 16])),
    measure: measure::HEART_RATE,
    device: DeviceId::from_bytes([2; 16]),
};

fn open(directory: &std::path::Path) -> SqliteStore {
    SqliteStore::open(directory, Kek::from_bytes(&[3; 32]), Options::default()).unwrap()
}

fn append(store: &SqliteStore, second: i64, frame_bytes: usize) -> Result<u64, StoreError> {
    let at = Timestamp::from_seconds(1_795_332_600 + second);
    let value = Value::Number(Decimal::from_integer(70));
    let reading = Reading::restored(SERIES, at, at, 0, value, Findings::empty());
    let frame = Frame {
        device: SERIES.device,
        kind: FrameKind::Envelope,
        received_at: at,
        delivery: Delivery::AtLeastOnce,
        // Noise does not compress.
        bytes: trust::random_bytes::<100_000>()[..frame_bytes].to_vec(),
    };
    let record =
        FrameRecord { frame, facts: vec![Fact::Reading(reading)], quarantined: vec![], released: vec![] };
    store.append(&[record], at).map(|appended| appended.group)
}

fn count(store: &SqliteStore) -> usize {
    let range =
        RangeQuery { from: Timestamp::MIN, to: Timestamp::MAX, order: Order::Ascending, limit: usize::MAX };
    store.readings(&SERIES, &range).unwrap().len()
}

#[test]
fn a_full_disk_keeps_nothing_of_a_group_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    assert_eq!(append(&store, 0, 10).unwrap(), 1);
    {
        let writer = store.writer("testing").unwrap();
        let pages: i64 = writer.one("PRAGMA page_count", &[]).unwrap();
        let limit: i64 = writer.one(&format!("PRAGMA max_page_count = {}", pages + 2), &[]).unwrap();
        assert_eq!(limit, pages + 2);
    }
    assert!(matches!(append(&store, 1, 100_000), Err(StoreError::Full { .. })));
    assert_eq!((store.last_group(), count(&store)), (1, 1));
    let _limit: i64 = store.writer("testing").unwrap().one("PRAGMA max_page_count = 1000000", &[]).unwrap();
    assert_eq!(append(&store, 2, 100_000).unwrap(), 2);
    drop(store);
    assert_eq!(count(&open(directory.path())), 2);
}

#[test]
fn after_a_failure_of_storage_nothing_is_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    append(&store, 0, 100_000).unwrap();
    {
        // Everything into the file, nothing in memory, then noise over the file: the next write meets it.
        let writer = store.writer("testing").unwrap();
        writer.row("PRAGMA wal_checkpoint(TRUNCATE)", &[], |_| Ok(())).unwrap();
        writer.batch("PRAGMA shrink_memory").unwrap();
    }
    let path = directory.path().join(DATA_FILE);
    let whole = std::fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0x5a; whole.len() - 8_192], 8_192).unwrap();
    assert!(matches!(append(&store, 1, 10), Err(StoreError::Durability { .. })));
    file.write_all_at(&whole, 0).unwrap();
    // The file is whole again, but what else was lost nobody knows: only a new start may go on.
    assert!(matches!(append(&store, 2, 10), Err(StoreError::Durability { .. })));
    assert!(matches!(store.fold(1, Timestamp::from_seconds(0)), Err(StoreError::Durability { .. })));
    let refused = store.transact(&Transaction::default());
    assert!(matches!(refused, Err(TransactError::Store(StoreError::Durability { .. }))));
    assert_eq!(store.last_group(), 1);
    drop(store);
    let store = open(directory.path());
    assert_eq!((count(&store), append(&store, 3, 10).unwrap()), (1, 2));
}

#[test]
fn errors_of_the_library_mean_what_they_should() {
    let meaning = |code| write("testing")(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).into());
    assert!(matches!(meaning(ffi::SQLITE_FULL), StoreError::Full { .. }));
    for code in [
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_DIR_FSYNC,
        ffi::SQLITE_IOERR,
        ffi::SQLITE_CORRUPT,
        ffi::SQLITE_NOTADB,
    ] {
        assert!(matches!(meaning(code), StoreError::Durability { .. }), "{code}");
    }
    assert!(matches!(meaning(ffi::SQLITE_BUSY), StoreError::Database { .. }));
    assert!(matches!(meaning(ffi::SQLITE_CONSTRAINT), StoreError::Database { .. }));
}
