//! Ciphertext that is moved: between rows, between tables, or back from an earlier version, in every sealed column that
//! the schema has. None of it opens, and verification names the table.

use std::collections::BTreeSet;

use clinical_model::Timestamp;
use rusqlite::Connection;
use store::{Kind, Store as _};

use super::care::furnish;
use super::support::{PgFactory, SqliteFactory, at, reading, readings, series};

/// Every table with a sealed column. One that the schema has and that is not here fails the test until it is covered;
/// the journal stands last, because a store whose journal is damaged does not even open.
const TABLES: [&str; 11] = [
    "group_summary",
    "latest",
    "block",
    "wave_block",
    "event",
    "frame_block",
    "quarantine",
    "document",
    "document_history",
    "audit",
    "journal",
];

/// Two rows at least in each of them.
fn fill(store: &dyn store::Store) {
    for of in [1, 2] {
        furnish(store, of);
    }
    for second in [500, 501] {
        let one = reading(series(1), second * 1_000, 0, "75");
        store.append(&[readings(vec![one])], at(second * 1_000 + 100)).unwrap();
    }
}

fn swap(data: &Connection, table: &str, other: &str) {
    let row = |table: &str, at: u32| -> (i64, Vec<u8>) {
        let sql = format!("SELECT rowid, sealed FROM {table} ORDER BY rowid LIMIT 1 OFFSET {at}");
        data.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    let (left, right) = (row(table, 0), row(other, u32::from(table == other)));
    assert_ne!(left.1, right.1);
    for (table, row, sealed) in [(table, left.0, &right.1), (other, right.0, &left.1)] {
        let sql = format!("UPDATE {table} SET sealed = ?1 WHERE rowid = ?2");
        assert_eq!(data.execute(&sql, rusqlite::params![sealed, row]).unwrap(), 1);
    }
}

/// Whether the damage of a table is found: by verification, or by opening where that reads it.
fn is_found(factory: &SqliteFactory, table: &str) -> bool {
    let options = super::support::options();
    match store::sqlite::SqliteStore::open(
        factory.path(),
        trust::Kek::from_bytes(&super::support::KEK),
        options,
    ) {
        Err(error) => format!("{error:?}").contains(table),
        Ok(store) => {
            let report = store.verify(&mut |_, _| {}).unwrap();
            report.findings.iter().any(|finding| finding.place.contains(&format!("table {table},")))
        }
    }
}

#[test]
fn what_is_moved_between_rows_and_tables_does_not_open_in_files() {
    let factory = SqliteFactory::new();
    let store = factory.sqlite();
    fill(&store);
    drop(store);
    let data = Connection::open(factory.path().join("data.db")).unwrap();
    let sql = "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
               WHERE m.type = 'table' AND c.name = 'sealed'";
    let mut statement = data.prepare(sql).unwrap();
    let names = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let sealed: BTreeSet<String> = names.map(Result::unwrap).collect();
    assert_eq!(sealed, TABLES.map(str::to_owned).into(), "a new sealed column needs its row here");
    drop(statement);
    for table in TABLES {
        // Between two rows, and back.
        swap(&data, table, table);
        assert!(is_found(&factory, table), "two rows of {table} were swapped");
        swap(&data, table, table);
        // Between two tables.
        for other in TABLES.into_iter().filter(|other| *other != table) {
            swap(&data, table, other);
            let found = is_found(&factory, table) || is_found(&factory, other);
            assert!(found, "rows of {table} and {other} were swapped");
            swap(&data, table, other);
        }
    }
    let store = factory.sqlite();
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().findings, [], "swapped back, all is as it was");
}

#[test]
fn an_earlier_version_does_not_stand_in_for_the_present_one() {
    let factory = SqliteFactory::new();
    let store = factory.sqlite();
    fill(&store);
    drop(store);
    let data = Connection::open(factory.path().join("data.db")).unwrap();
    let sql = "UPDATE document SET sealed = (SELECT h.sealed FROM document_history h
                   WHERE h.kind = document.kind AND h.id = document.id)
               WHERE EXISTS(SELECT 1 FROM document_history h WHERE h.kind = document.kind AND h.id = document.id)";
    assert_eq!(data.execute(sql, []).unwrap(), 2);
    assert!(is_found(&factory, "document"));
    let store = factory.sqlite();
    assert!(store.document(Kind::Alert, [1; 16]).is_err());
    drop(store);
    // Not with its version and time beside it either: then it is another version, and the history has two of it.
    let sql =
        "UPDATE document SET (version, updated_at) = (SELECT h.version, h.updated_at FROM document_history h
                   WHERE h.kind = document.kind AND h.id = document.id)
               WHERE kind = ?1 AND id = ?2";
    data.execute(sql, rusqlite::params![Kind::Alert as u8, [1_u8; 16]]).unwrap();
    let store = factory.sqlite();
    let shown = store.document(Kind::Alert, [1; 16]).unwrap().unwrap();
    assert_eq!((shown.version, shown.updated_at), (1, Timestamp::from_micros(at(0).as_micros())));
    let report = store.verify(&mut |_, _| {}).unwrap();
    let named = report.findings.iter().any(|finding| finding.what.contains("put back to an earlier version"));
    assert!(named, "{:?}", report.findings);
}

#[test]
fn what_is_moved_between_rows_does_not_open_in_a_database() {
    let factory = PgFactory::new();
    let store = factory.postgres();
    fill(&store);
    let cluster = store::testing::Cluster::shared();
    let names = TABLES.map(|name| format!("'{name}'")).join(", ");
    cluster.execute_in(
        &factory.url,
        &format!(
            "DO $$ BEGIN IF (SELECT count(*) FROM information_schema.columns WHERE table_schema = current_schema()
                 AND column_name = 'sealed' AND table_name NOT IN ({names})) > 0
             THEN RAISE EXCEPTION 'a new sealed column needs its row here'; END IF; END $$"
        ),
    );
    for table in TABLES {
        cluster.execute_in(
            &factory.url,
            &format!(
                "WITH two AS (SELECT ctid AS place, sealed, row_number() OVER (ORDER BY ctid) AS number
                     FROM {table} LIMIT 2)
                 UPDATE {table} SET sealed = other.sealed FROM two AS mine, two AS other
                 WHERE {table}.ctid = mine.place AND mine.number + other.number = 3"
            ),
        );
        let report = store.verify(&mut |_, _| {}).unwrap();
        let named = report.findings.iter().any(|finding| finding.place.contains(&format!("table {table},")));
        assert!(named, "two rows of {table} were swapped: {:?}", report.findings);
    }
}
