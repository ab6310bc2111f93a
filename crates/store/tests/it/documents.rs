//! Documents, their index and history, the audit log, and transactions that are all or nothing.

use std::time::Duration;

use clinical_model::{AlertId, PatientId, UserId};
use store::{
    Actor, AuditAction, AuditQuery, AuditRecord, DocumentChange, DocumentQuery, DocumentWrite, Expected,
    IndexEntry, KeyDomain, Kind, News, Order, Store, TransactError, Transaction,
};

use crate::support::*;

const NURSE: UserId = UserId::from_bytes([0x77; 16]);

fn write(id: u8, expected: Expected, body: &str, index: Vec<IndexEntry>) -> DocumentWrite {
    DocumentWrite {
        kind: Kind::Patient,
        id: [id; 16],
        expected,
        domain: KeyDomain::Patient(patient(id)),
        body: Some(body.as_bytes().to_vec()),
        index,
    }
}

fn entry(name: &'static str, value: &[u8], unique: bool) -> IndexEntry {
    IndexEntry { name, value: value.to_vec(), unique }
}

fn put(store: &dyn Store, writes: Vec<DocumentWrite>) -> Result<(), TransactError> {
    store.transact(&Transaction { at: at(1_000), writes, ..Transaction::default() })
}

fn refused(outcome: Result<(), TransactError>) -> String {
    match outcome {
        Err(TransactError::Conflict { kind: "patient", detail }) => detail,
        other => panic!("{other:?}"),
    }
}

fn audit(actor: Actor, action: AuditAction, about: Option<PatientId>, detail: &str) -> AuditRecord {
    AuditRecord {
        patient: about,
        device: Some(device(3)),
        alert: Some(AlertId::from_bytes([5; 16])),
        detail: detail.to_owned(),
        ..AuditRecord::new(at(detail.len() as i64), actor, action, "Observation")
    }
}

pub fn versions_and_expectations(factory: &dyn Factory) {
    let store = factory.open();
    assert_eq!(store.document(Kind::Patient, [1; 16]).unwrap(), None);
    refused(put(&*store, vec![write(1, Expected::Version(1), "a", vec![])]));
    put(&*store, vec![write(1, Expected::Absent, "a", vec![])]).unwrap();
    assert!(refused(put(&*store, vec![write(1, Expected::Absent, "b", vec![])])).contains("version 1"));
    put(&*store, vec![write(1, Expected::Version(1), "b", vec![])]).unwrap();
    refused(put(&*store, vec![write(1, Expected::Version(1), "c", vec![])]));
    put(&*store, vec![write(1, Expected::Any, "c", vec![]), write(1, Expected::Version(3), "d", vec![])])
        .unwrap();
    drop(store);
    let found = factory.open().document(Kind::Patient, [1; 16]).unwrap().unwrap();
    assert_eq!((found.version, found.updated_at, &found.body[..]), (4, at(1_000), &b"d"[..]));
    assert_eq!((found.kind, found.id, found.index_value), (Kind::Patient, [1; 16], vec![]));
}

pub fn unique_values(factory: &dyn Factory) {
    let store = factory.open();
    let number = |value: &[u8]| vec![entry("record-number", value, true), entry("ward", b"north", false)];
    put(&*store, vec![write(1, Expected::Any, "a", number(b"1"))]).unwrap();
    let detail = refused(put(&*store, vec![write(2, Expected::Any, "b", number(b"1"))]));
    assert!(detail.contains("record-number"), "{detail}");
    assert_eq!(store.document(Kind::Patient, [2; 16]).unwrap(), None, "nothing of it is kept");
    put(&*store, vec![write(2, Expected::Any, "b", number(b"2"))]).unwrap();
    // Two patients' numbers were mixed up: one transaction swaps them.
    put(
        &*store,
        vec![write(1, Expected::Any, "a", number(b"2")), write(2, Expected::Any, "b", number(b"1"))],
    )
    .unwrap();
    let by = |name, value: &[u8]| {
        let prefix = value.to_vec();
        let query = DocumentQuery {
            kind: Kind::Patient,
            index: name,
            prefix,
            after: None,
            order: Order::Ascending,
            limit: 9,
        };
        store.documents(&query).unwrap().iter().map(|found| found.id[0]).collect::<Vec<_>>()
    };
    assert_eq!((by("record-number", b"1"), by("record-number", b"2")), (vec![2], vec![1]));
    assert_eq!(by("ward", b"north"), [1, 2]);
    put(&*store, vec![write(1, Expected::Any, "a", vec![])]).unwrap();
    assert_eq!((by("record-number", b"2"), by("ward", b"")), (vec![], vec![2]));
    put(&*store, vec![write(3, Expected::Any, "c", number(b"2"))]).unwrap();
}

pub fn pages_in_both_directions(factory: &dyn Factory) {
    let store = factory.open();
    let state = |id: u8| vec![b's', id % 3, if id.is_multiple_of(2) { 0xff } else { 0 }];
    let writes = (1..=20)
        .map(|id| write(id, Expected::Absent, &format!("{id}"), vec![entry("state", &state(id), false)]));
    put(&*store, writes.collect()).unwrap();
    let mut expected: Vec<(Vec<u8>, u8)> = (1..=20).map(|id| (state(id), id)).collect();
    expected.sort();
    for order in [Order::Ascending, Order::Descending] {
        for prefix in [vec![], vec![b's'], vec![b's', 1], vec![b's', 2, 0xff], vec![b't']] {
            let mut wanted: Vec<_> =
                expected.iter().filter(|(value, _)| value.starts_with(&prefix)).cloned().collect();
            if order == Order::Descending {
                wanted.reverse();
            }
            let mut found = Vec::new();
            let mut after = None;
            loop {
                let query = DocumentQuery {
                    kind: Kind::Patient,
                    index: "state",
                    prefix: prefix.clone(),
                    after: after.clone(),
                    order,
                    limit: 3,
                };
                let page = store.documents(&query).unwrap();
                let Some(last) = page.last() else { break };
                after = Some((last.index_value.clone(), last.id));
                for document in page {
                    assert_eq!(document.body, document.id[0].to_string().as_bytes());
                    found.push((document.index_value, document.id[0]));
                }
            }
            assert_eq!(found, wanted, "{order:?} {prefix:?}");
        }
    }
}

pub fn audit_has_no_gaps_and_filters(factory: &dyn Factory) {
    let store = factory.open();
    let long = "é".repeat(3_000);
    let records = [
        audit(Actor::User(NURSE), AuditAction::Read, Some(patient(1)), "1"),
        audit(Actor::Device(device(2)), AuditAction::Create, Some(patient(2)), "22"),
        audit(Actor::Program("ehr".to_owned()), AuditAction::Search, None, "333"),
        audit(Actor::System, AuditAction::Administer, None, "4444"),
        audit(Actor::Unproven("mallory".to_owned()), AuditAction::SignIn, None, &long),
    ];
    store.ensure_patient_key(patient(1)).unwrap();
    for record in &records[..2] {
        let audit = vec![record.clone()];
        store.transact(&Transaction { at: at(0), audit, ..Transaction::default() }).unwrap();
    }
    // A refused transaction takes no number.
    let refused = Transaction {
        at: at(0),
        writes: vec![write(1, Expected::Version(9), "x", vec![])],
        audit: records.to_vec(),
        ..Transaction::default()
    };
    assert!(store.transact(&refused).is_err());
    let audit = records[2..].to_vec();
    store.transact(&Transaction { at: at(0), audit, ..Transaction::default() }).unwrap();
    drop(store);
    let store = factory.open();
    let ask = |query: AuditQuery| {
        let rows =
            store.audit_rows(&AuditQuery { limit: if query.limit == 0 { 99 } else { query.limit }, ..query });
        rows.unwrap().iter().map(|row| row.sequence).collect::<Vec<_>>()
    };
    assert_eq!(ask(AuditQuery::default()), [5, 4, 3, 2, 1]);
    assert_eq!(ask(AuditQuery { limit: 2, before: Some(4), ..AuditQuery::default() }), [3, 2]);
    assert_eq!(ask(AuditQuery { patient: Some(patient(2)), ..AuditQuery::default() }), [2]);
    for (record, sequence) in records.iter().zip(1..) {
        let actor = Some(record.actor.clone());
        assert_eq!(ask(AuditQuery { actor, ..AuditQuery::default() }), [sequence]);
    }
    assert_eq!(ask(AuditQuery { from: Some(at(2)), to: Some(at(4)), ..AuditQuery::default() }), [3, 2]);
    let rows = store.audit_rows(&AuditQuery { limit: 99, ..AuditQuery::default() }).unwrap();
    for (row, record) in rows.iter().rev().zip(&records[..4]) {
        assert_eq!(&row.record, record);
    }
    assert_eq!(rows[0].record.detail, "é".repeat(2_048), "4096 bytes");
    assert!(rows.iter().all(|row| row.leaf != [0; 32] && row.leaf != rows[1].leaf || row.sequence == 4));
}

pub fn a_failed_transaction_leaves_nothing(factory: &dyn Factory) {
    let store = factory.open();
    let audit = vec![audit(Actor::System, AuditAction::Create, None, "x")];
    let wanted = Transaction {
        at: at(0),
        writes: vec![write(1, Expected::Any, "a", vec![]), write(2, Expected::Version(1), "b", vec![])],
        audit,
        cursor: Some(("chart", 3)),
        ..Transaction::default()
    };
    refused(store.transact(&wanted));
    assert_eq!(store.document(Kind::Patient, [1; 16]).unwrap(), None);
    assert_eq!(store.cursor("chart").unwrap(), 0);
    assert!(store.audit_rows(&AuditQuery { limit: 9, ..AuditQuery::default() }).unwrap().is_empty());
}

pub fn removed_documents_go_on_counting(factory: &dyn Factory) {
    let store = factory.open();
    let number = vec![entry("record-number", b"1", true)];
    put(&*store, vec![write(1, Expected::Any, "a", number.clone())]).unwrap();
    put(&*store, vec![write(1, Expected::Any, "b", number.clone())]).unwrap();
    let remove = DocumentWrite { body: None, ..write(1, Expected::Version(2), "", number.clone()) };
    put(&*store, vec![remove.clone()]).unwrap();
    assert_eq!(store.document(Kind::Patient, [1; 16]).unwrap(), None);
    put(&*store, vec![write(2, Expected::Absent, "other", number)]).unwrap();
    put(&*store, vec![write(1, Expected::Absent, "back", vec![])]).unwrap();
    assert_eq!(store.document(Kind::Patient, [1; 16]).unwrap().unwrap().version, 3);
    put(&*store, vec![DocumentWrite { expected: Expected::Any, ..remove.clone() }]).unwrap();
    refused(put(&*store, vec![remove]));
}

pub fn versions_stay_readable(factory: &dyn Factory) {
    let store = factory.open();
    for body in ["a", "b", "c"] {
        put(&*store, vec![write(1, Expected::Any, body, vec![])]).unwrap();
    }
    let remove = |id| DocumentWrite { body: None, ..write(id, Expected::Any, "", vec![]) };
    put(&*store, vec![remove(1)]).unwrap();
    put(&*store, vec![write(1, Expected::Absent, "d", vec![]), write(2, Expected::Any, "z", vec![])])
        .unwrap();
    let versions = |kind, id: u8| {
        let found = store.document_versions(kind, [id; 16]).unwrap();
        found
            .iter()
            .map(|one| (one.version, String::from_utf8(one.body.clone()).unwrap()))
            .collect::<Vec<_>>()
    };
    let whole = [(1, "a"), (2, "b"), (3, "c"), (4, "d")].map(|(version, body)| (version, body.to_owned()));
    assert_eq!(versions(Kind::Patient, 1), whole);
    assert_eq!((versions(Kind::Patient, 3), versions(Kind::Device, 1)), (vec![], vec![]));
    put(&*store, vec![remove(1)]).unwrap();
    assert_eq!(versions(Kind::Patient, 1), whole, "what was removed can still be read");
    // What is fleeting keeps its present version only.
    let session = |body: &str| DocumentWrite { kind: Kind::Session, ..write(5, Expected::Any, body, vec![]) };
    put(&*store, vec![session("1")]).unwrap();
    put(&*store, vec![session("2")]).unwrap();
    assert_eq!(versions(Kind::Session, 5), [(2, "2".to_owned())]);
}

pub fn changes_are_listed_in_order(factory: &dyn Factory) {
    let store = factory.open();
    assert_eq!(store.changes_after(0, 9).unwrap(), []);
    put(&*store, vec![write(1, Expected::Any, "a", vec![]), write(2, Expected::Any, "b", vec![])]).unwrap();
    assert!(put(&*store, vec![write(3, Expected::Version(7), "x", vec![])]).is_err(), "takes no number");
    let remove = DocumentWrite { body: None, ..write(1, Expected::Version(1), "", vec![]) };
    put(&*store, vec![write(2, Expected::Any, "c", vec![]), remove]).unwrap();
    drop(store);
    let store = factory.open();
    let of = |change, id, version, removed| DocumentChange {
        change,
        kind: Kind::Patient,
        id: [id; 16],
        version,
        removed,
    };
    let all = [of(1, 1, 1, false), of(2, 2, 1, false), of(3, 2, 2, false), of(4, 1, 1, true)];
    assert_eq!(store.changes_after(0, 9).unwrap(), all);
    assert_eq!(store.changes_after(1, 2).unwrap(), all[1..3]);
    assert_eq!(
        (store.changes_after(4, 9).unwrap(), store.changes_after(u64::MAX, 9).unwrap()),
        (vec![], vec![])
    );
}

pub fn news_wake_who_waits(factory: &dyn Factory) {
    const LONG: Duration = Duration::from_secs(60);
    let store = factory.open();
    let none = store.wait_for_news(News::default(), Duration::ZERO).unwrap();
    assert_eq!(none, News::default());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.wait_for_news(none, LONG).unwrap());
        store.append(&[readings(vec![reading(series(1), 0, 0, "70")])], at(0)).unwrap();
        assert_eq!(waiting.join().unwrap(), News { group: 1, change: 0 });
        let waiting = scope.spawn(|| store.wait_for_news(News { group: 1, change: 0 }, LONG).unwrap());
        put(&*store, vec![write(1, Expected::Any, "a", vec![])]).unwrap();
        assert_eq!(waiting.join().unwrap(), News { group: 1, change: 1 });
    });
    drop(store);
    let news = factory.open().wait_for_news(News::default(), LONG).unwrap();
    assert_eq!(news, News { group: 1, change: 1 }, "what was committed before is news too");
}
