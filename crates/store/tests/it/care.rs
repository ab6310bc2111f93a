//! Keys that are turned over, patients who are erased, and what is kept no longer: the same on every store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use clinical_model::quarantine::{QuarantineReason, QuarantineState};
use clinical_model::{
    DeviceId, Fact, FrameKind, Interval, MeasureKind, PatientId, QuarantineId, QuarantineItem, SeriesKey,
    Subject, Timestamp,
};
use store::sqlite::{RestoreError, SqliteStore, restore, verify_backup};
use store::{
    Actor, AuditAction, AuditQuery, AuditRecord, DocumentWrite, ErasureScope, Expected, IndexEntry,
    KeptClass, KeyDomain, Kind, OpenError, Store, StoreError, Transaction,
};
use trust::{Kek, KekRing, KekSource, SourceError};

use super::support::{
    ALL, Factory, KEK, SqliteFactory, at, curve, device, event, fold_all, measure_of, options, patient,
    reading, readings, record, series, series_of,
};

/// A home of keys in memory, which outlives the stores that are opened with it.
#[derive(Debug, Default)]
pub struct Home {
    keys: Mutex<Vec<[u8; 32]>>,
    fails: AtomicBool,
    /// What else the keys wrap here is wrapped with this one.
    taken_along: Mutex<Option<[u8; 8]>>,
    cannot_take_along: AtomicBool,
}

impl Home {
    pub fn new() -> Arc<Self> {
        Arc::new(Home {
            keys: Mutex::new(vec![KEK]),
            fails: AtomicBool::default(),
            taken_along: Mutex::default(),
            cannot_take_along: AtomicBool::default(),
        })
    }

    pub fn ring(self: &Arc<Self>) -> KekRing {
        KekRing::load(Arc::clone(self) as Arc<dyn KekSource>).unwrap()
    }

    fn keys(&self) -> Vec<[u8; 32]> {
        self.keys.lock().unwrap().clone()
    }
}

impl KekSource for Home {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn place(&self) -> String {
        "a test".to_owned()
    }

    fn current(&self) -> Result<Kek, SourceError> {
        Ok(Kek::from_bytes(&self.keys()[0]))
    }

    fn next(&self) -> Result<Option<Kek>, SourceError> {
        Ok(self.keys().get(1).map(Kek::from_bytes))
    }

    fn make_next(&self) -> Result<Kek, SourceError> {
        let mut keys = self.keys.lock().unwrap();
        if keys.len() == 1 {
            keys.push(trust::random_bytes());
        }
        Ok(Kek::from_bytes(&keys[1]))
    }

    fn take_along(&self, next: &Kek) -> Result<(), SourceError> {
        if self.cannot_take_along.load(Ordering::SeqCst) {
            return Err(SourceError::failed("the disk is full"));
        }
        *self.taken_along.lock().unwrap() = Some(next.fingerprint());
        Ok(())
    }

    fn promote(&self) -> Result<(), SourceError> {
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(SourceError::failed("the token was pulled out"));
        }
        let mut keys = self.keys.lock().unwrap();
        if keys.len() > 1 {
            keys.remove(0);
        }
        Ok(())
    }
}

fn document(id: u8, of: u8, expected: Expected, text: &str) -> DocumentWrite {
    DocumentWrite {
        kind: Kind::Alert,
        id: [id; 16],
        expected,
        domain: KeyDomain::Patient(patient(of)),
        body: Some(text.as_bytes().to_vec()),
        index: vec![IndexEntry { name: "all", value: vec![of], unique: false }],
    }
}

fn audited(of: u8, detail: &str) -> AuditRecord {
    let record = AuditRecord::new(at(0), Actor::System, AuditAction::Read, "Observation");
    AuditRecord { patient: Some(patient(of)), detail: detail.to_owned(), ..record }
}

fn write(store: &dyn Store, writes: Vec<DocumentWrite>, audit: Vec<AuditRecord>) {
    store.transact(&Transaction { at: at(0), writes, audit, ..Transaction::default() }).unwrap();
}

fn curve_series(of: u8) -> SeriesKey {
    series_of(of, measure_of(|kind| kind == MeasureKind::Waveform))
}

fn event_series(of: u8) -> SeriesKey {
    series_of(of, measure_of(|kind| kind == MeasureKind::Event))
}

fn item(number: u8, of: DeviceId, received_ms: i64, state: QuarantineState) -> QuarantineItem {
    QuarantineItem {
        id: QuarantineId::from_bytes([number; 16]),
        device: of,
        kind: FrameKind::Envelope,
        received_at: at(received_ms),
        bytes: b"unreadable".to_vec(),
        reason: QuarantineReason::Undecodable,
        what: "no JSON".to_owned(),
        at_most_once: false,
        offset: 0,
        state,
    }
}

/// Some of everything for a patient, half of it folded.
pub fn furnish(store: &dyn Store, of: u8) {
    store.ensure_patient_key(patient(of)).unwrap();
    let some = |from: i64| -> Vec<_> {
        (from..from + 20).map(|second| reading(series(of), second * 1_000, 0, "72")).collect()
    };
    store.append(&[readings(some(0))], at(30_000)).unwrap();
    let mut quarantined = readings(some(100));
    quarantined.quarantined = vec![item(of, device(of), 100_000, QuarantineState::Waiting)];
    store.append(&[quarantined], at(130_000)).unwrap();
    let samples = (0..400).map(|sample| (sample % 50) as i16).collect();
    let facts = vec![
        Fact::Waveform(curve(curve_series(of), 0, samples)),
        Fact::Event(event(event_series(of), 5_000, 0, "dose")),
    ];
    store.append(&[record(facts)], at(131_000)).unwrap();
    fold_all(store);
    store.append(&[readings(some(200))], at(230_000)).unwrap();
    write(store, vec![document(of, of, Expected::Absent, "first")], vec![audited(of, "one")]);
    write(store, vec![document(of, of, Expected::Version(1), "second")], vec![audited(of, "two")]);
}

/// Everything that a store says of a patient, for comparison.
fn told(store: &dyn Store, of: u8) -> String {
    let documents = store.document_versions(Kind::Alert, [of; 16]).unwrap();
    let rows =
        store.audit_rows(&AuditQuery { patient: Some(patient(of)), limit: 100, ..AuditQuery::default() });
    let details: Vec<String> = rows.unwrap().into_iter().map(|row| row.record.detail).collect();
    format!(
        "{:?} {:?} {:?} {:?} {:?} {details:?}",
        store
            .readings(&series(of), &ALL)
            .unwrap()
            .iter()
            .map(|one| (one.measured_at(), one.value()))
            .collect::<Vec<_>>(),
        store
            .waveforms(&curve_series(of), &ALL)
            .unwrap()
            .iter()
            .map(|one| one.samples.len())
            .collect::<Vec<_>>(),
        store.events(&event_series(of), &ALL).unwrap().len(),
        store.latest(Subject::Patient(patient(of))).unwrap().len(),
        documents.iter().map(|one| one.body.clone()).collect::<Vec<_>>(),
    )
}

fn is_sound(store: &dyn Store) {
    let report = store.verify(&mut |_, _| {}).unwrap();
    assert_eq!(report.findings, []);
}

pub fn an_epoch_turns_in_steps_and_goes_on_after_every_end(factory: &impl Factory) {
    let home = Home::new();
    let open = || factory.open_with(home.ring()).unwrap();
    let store = open();
    furnish(&*store, 1);
    furnish(&*store, 2);
    let (before, epoch) = (told(&*store, 1), store.care().key_status().unwrap().epoch);
    let turn = store.care().begin_kek_turn().unwrap();
    assert_ne!(turn.to, epoch);
    assert_eq!((turn.done, home.keys().len()), (0, 2));
    drop(store);

    // Each step ends with the process, and the next one begins with another.
    let mut steps = 0;
    loop {
        let store = open();
        let left = store.care().step_kek_turn(1, at(500_000)).unwrap();
        steps += 1;
        assert_eq!(told(&*store, 1), before);
        // A key that is made meanwhile is wrapped with the next key.
        store.ensure_patient_key(patient(100 + steps)).unwrap();
        let Some(turn_left) = left else { break };
        assert!(turn_left.done >= u64::from(steps), "{turn_left:?}");
        if steps == 3 {
            let alone = KekRing::from(Kek::from_bytes(&home.keys()[1]));
            drop(store);
            assert!(matches!(factory.open_with(alone).err(), Some(OpenError::WrongKey { .. })));
        }
    }
    assert_eq!(home.keys().len(), 1, "the key before is destroyed");
    let store = open();
    let status = store.care().key_status().unwrap();
    assert_eq!((status.epoch, status.turn), (turn.to, None));
    assert_eq!(status.epoch_since, Some(at(500_000)));
    assert_eq!(told(&*store, 1), before);
    is_sound(&*store);
    drop(store);
    let old = factory.open_with(Kek::from_bytes(&KEK).into());
    assert!(matches!(old.err(), Some(OpenError::WrongKey { .. })), "the key before opens nothing");
}

pub fn a_promotion_that_failed_is_made_up_for(factory: &impl Factory) {
    let home = Home::new();
    let store = factory.open_with(home.ring()).unwrap();
    furnish(&*store, 1);
    let before = told(&*store, 1);
    let turn = store.care().begin_kek_turn().unwrap();
    home.fails.store(true, Ordering::SeqCst);
    let failed = store.care().step_kek_turn(1_000, at(0)).unwrap_err();
    assert!(matches!(failed, StoreError::KeySource { .. }), "{failed}");
    assert_eq!(home.keys().len(), 2, "both keys are still there");
    assert_eq!(told(&*store, 1), before);
    drop(store);
    let store = factory.open_with(home.ring()).unwrap();
    assert_eq!(home.keys().len(), 1, "opening made up for it");
    assert_eq!(store.care().key_status().unwrap().epoch, turn.to);
    assert_eq!(told(&*store, 1), before);
}

#[test]
fn a_backup_of_before_a_turn_opens_with_the_key_of_then_and_else_names_it() {
    let (factory, home, place) = (SqliteFactory::new(), Home::new(), tempfile::tempdir().unwrap());
    let store = factory.open_with(home.ring()).unwrap();
    furnish(&*store, 1);
    furnish(&*store, 2);
    let (before, then) = (told(&*store, 1), store.care().key_status().unwrap().epoch);
    let backup = place.path().join("backup");
    store.backup(&backup, &mut |_, _| {}).unwrap();
    store.care().begin_kek_turn().unwrap();
    while store.care().step_kek_turn(1, at(0)).unwrap().is_some() {}
    let now = store.care().key_status().unwrap().epoch;
    drop(store);

    let target = place.path().join("restored");
    let refused = restore(&backup, &target, Kek::from_bytes(&home.keys()[0])).unwrap_err();
    let RestoreError::Open(why @ OpenError::WrongKey { given, expected }) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!((given, expected), (&now, &then));
    assert!(why.to_string().contains(&then) && !target.exists(), "{why}");
    assert!(verify_backup(&backup, &Kek::from_bytes(&home.keys()[0])).is_err());
    // The whole of it is there for whoever kept the key, and so is a turn of its own.
    let kept = || Kek::from_bytes(&KEK);
    verify_backup(&backup, &kept()).unwrap();
    restore(&backup, &target, kept()).unwrap();
    let restored = SqliteStore::open(&target, Home::new().ring(), options()).unwrap();
    assert_eq!(told(&restored, 1), before);
    is_sound(&restored);
    restored.care().begin_kek_turn().unwrap();
    while restored.care().step_kek_turn(1, at(0)).unwrap().is_some() {}
    assert_eq!(told(&restored, 1), before);
    is_sound(&restored);
}

pub fn a_patients_key_turns_over_beside_writes(factory: &impl Factory) {
    let mut store = factory.open();
    furnish(&*store, 1);
    furnish(&*store, 2);
    let before = told(&*store, 2);
    let begun = store.care().begin_rekey(patient(1), at(0)).unwrap();
    assert!(begun.all >= 8, "{begun:?}");
    let keys = |store: &dyn Store| store.care().key_status().unwrap().patient_keys;
    assert_eq!(keys(&*store), 3);
    let mut steps = 0;
    // Later than any time that other nodes might need.
    while let Some(going) = store.care().step_rekey(2, at(3_600_000 + steps)).unwrap() {
        steps += 1;
        assert!(steps < 200, "it never ends: {going:?}");
        match steps {
            1 => {
                // The process ends in the middle.
                drop(std::mem::replace(&mut store, factory.fresh().open()));
                store = factory.open();
            }
            3 => {
                write(&*store, vec![document(1, 1, Expected::Version(2), "third")], vec![audited(1, "three")])
            }
            4 => {
                store.append(&[readings(vec![reading(series(1), 300_000, 0, "80")])], at(301_000)).unwrap();
                fold_all(&*store);
            }
            _ => {}
        }
    }
    assert!(steps > 4, "in several steps");
    assert_eq!(keys(&*store), 2, "the earlier key is destroyed");
    assert_eq!(store.care().key_status().unwrap().rekeys, []);
    assert_eq!(told(&*store, 2), before);
    assert_eq!(store.readings(&series(1), &ALL).unwrap().len(), 61);
    assert_eq!(store.document_versions(Kind::Alert, [1; 16]).unwrap().len(), 3);
    is_sound(&*store);
    drop(store);
    let store = factory.open();
    assert_eq!(store.readings(&series(1), &ALL).unwrap().len(), 61);
    assert_eq!(store.document_versions(Kind::Alert, [1; 16]).unwrap().len(), 3);
}

pub fn an_erased_patient_is_gone_and_stays_gone(factory: &impl Factory) {
    let home = Home::new();
    let open = || factory.open_with(home.ring()).unwrap();
    let mut store = open();
    furnish(&*store, 1);
    furnish(&*store, 2);
    let other = told(&*store, 2);
    let leaves: Vec<_> = log_of(&*store);
    let scope = ErasureScope { devices: vec![(device(1), Interval::since(Timestamp::MIN))] };
    let kept = store.care().count_patient(patient(1), &scope).unwrap();
    assert!(kept.blocks > 0 && kept.curves > 0 && kept.events > 0 && kept.latest > 0, "{kept:?}");
    assert!(kept.documents == 2 && kept.quarantine == 1 && kept.audit_details == 2 && kept.raw_frames > 0);
    assert_eq!((kept.oldest, kept.newest), (Some(at(0)), Some(at(219_000))));

    let erased = store.care().begin_erasure(patient(1), at(1_000)).unwrap();
    assert_eq!((erased.purged_at, erased.epoch_ended_at), (None, None));
    let gone = store.readings(&series(1), &ALL);
    assert!(matches!(gone, Err(StoreError::KeyGone { .. })), "{gone:?}");
    let again = store.ensure_patient_key(patient(1));
    assert!(matches!(again, Err(StoreError::KeyGone { .. })), "no key is ever made again: {again:?}");
    // A reading that was under way does not keep anybody else from being heard.
    let late = readings(vec![reading(series(1), 400_000, 0, "70"), reading(series(2), 400_000, 0, "71")]);
    store.append(&[late], at(401_000)).unwrap();

    // The process ends after each of the first steps.
    let mut removed = store::Rows::default();
    for step in 0.. {
        assert!(step < 200, "it never ends");
        if step < 3 {
            drop(std::mem::replace(&mut store, factory.fresh().open()));
            store = open();
        }
        let (rows, more) = store.care().step_erasure(patient(1), &scope, 2).unwrap();
        removed.add(&rows);
        fold_all(&*store);
        // Where other nodes may hold keys, the last minute is waited for: not here.
        if !more || (store.shared() && rows.total() == 0 && step > 20) {
            break;
        }
    }
    assert_eq!((removed.documents, removed.quarantine, removed.audit_details), (2, 1, 2), "{removed:?}");
    assert!(removed.blocks >= kept.blocks && removed.curves == 1 && removed.events == 1, "{removed:?}");
    store.care().end_erasure(patient(1), at(2_000)).unwrap();
    let erasures = store.care().erasures().unwrap();
    assert_eq!(erasures[0].purged_at, Some(at(2_000)));

    let left = store.care().count_patient(patient(1), &scope).unwrap();
    assert_eq!(left, store::Rows::default(), "nothing is left");
    assert_eq!(store.readings(&series(1), &ALL).unwrap().len(), 0);
    assert_eq!(store.quarantined(QuarantineId::from_bytes([1; 16])).unwrap(), None);
    assert_eq!(store.document(Kind::Alert, [1; 16]).unwrap(), None);
    assert_eq!(store.readings(&series(2), &ALL).unwrap().len(), 61);
    assert_eq!(log_of(&*store)[..leaves.len()], leaves[..], "every leaf stands where it stood");
    is_sound(&*store);

    // Its epoch ends, and with it what older copies could still open.
    store.care().begin_kek_turn().unwrap();
    assert_eq!(store.care().step_kek_turn(1_000, at(3_000)).unwrap(), None);
    assert!(store.care().erasures().unwrap()[0].epoch_ended_at.is_some());
    drop(store);
    let store = open();
    assert!(matches!(store.ensure_patient_key(patient(1)), Err(StoreError::KeyGone { .. })));
    drop(other);
}

fn log_of(store: &dyn Store) -> Vec<(u64, [u8; 32])> {
    let rows = store.audit_rows(&AuditQuery { limit: 1_000, ..AuditQuery::default() }).unwrap();
    let mut rows: Vec<_> = rows.iter().map(|row| (row.sequence, row.leaf)).collect();
    rows.reverse();
    rows
}

pub fn what_is_older_goes_and_what_is_on_hold_stays(factory: &impl Factory) {
    let store = factory.open();
    let by = clinical_model::UserId::from_bytes([9; 16]);
    for of in [1, 2] {
        furnish(&*store, of);
        let done = item(10 + of, device(of), 10_000, QuarantineState::Discarded { at: at(20_000), by });
        store.transact(&Transaction { at: at(0), quarantine: vec![done], ..Transaction::default() }).unwrap();
    }
    let care = store.care();
    let held: &[PatientId] = &[patient(2)];
    let keep = |item: &QuarantineItem| item.device == device(2);
    let before = at(110_000);
    let count = |class| care.count_outdated(class, before, held).unwrap();
    let readings_old = count(KeptClass::Readings);
    assert!(readings_old.rows >= 3 && readings_old.held_rows == readings_old.rows, "{readings_old:?}");
    assert_eq!((readings_old.patients, readings_old.oldest), (1, Some(at(0))));
    assert_eq!((count(KeptClass::Waveforms).rows, count(KeptClass::Events).rows), (1, 1));
    assert_eq!(count(KeptClass::AuditDetails).rows, 2);

    let classes = [
        KeptClass::Waveforms,
        KeptClass::Readings,
        KeptClass::Events,
        KeptClass::RawFrames,
        KeptClass::Quarantine,
        KeptClass::AuditDetails,
    ];
    for class in classes {
        let mut steps = 0;
        while care.remove_outdated(class, before, held, &keep, 1, at(900_000)).unwrap().more {
            steps += 1;
            assert!(steps < 100, "{class:?} never ends");
        }
        let left = care.count_outdated(class, before, held).unwrap();
        let expected = u64::from(class == KeptClass::Quarantine);
        assert_eq!(left.rows, expected, "{class:?}: {left:?}");
    }
    let measured = |of| -> Vec<i64> {
        let all = store.readings(&series(of), &ALL).unwrap();
        all.iter().map(|one| one.measured_at().micros_since(at(0)) / 1_000_000).collect()
    };
    assert_eq!(measured(1), (110..120).chain(200..220).collect::<Vec<_>>(), "cut to the second");
    assert_eq!(measured(2).len(), 60, "a hold keeps everything");
    assert_eq!(store.waveforms(&curve_series(1), &ALL).unwrap().len(), 0);
    assert_eq!(store.waveforms(&curve_series(2), &ALL).unwrap().len(), 1);
    assert_eq!(store.events(&event_series(1), &ALL).unwrap().len(), 0);
    let waiting = store.quarantined(QuarantineId::from_bytes([1; 16])).unwrap();
    assert!(waiting.is_some(), "what nobody has looked at stays");
    assert_eq!(store.quarantined(QuarantineId::from_bytes([11; 16])).unwrap(), None);
    assert!(store.quarantined(QuarantineId::from_bytes([12; 16])).unwrap().is_some());
    let rows = store.audit_rows(&AuditQuery { limit: 100, ..AuditQuery::default() }).unwrap();
    let said = |of| {
        rows.iter()
            .filter(|row| row.record.patient == Some(patient(of)) && !row.record.detail.is_empty())
            .count()
    };
    assert_eq!((said(1), said(2)), (0, 2));
    // Younger than the six years for which details of the audit log must be kept: the verification says so.
    let report = store.verify(&mut |_, _| {}).unwrap();
    assert!(!report.findings.is_empty());
    for finding in &report.findings {
        assert!(finding.what.contains("its content was removed"), "{finding:?}");
    }
}

/// Nodes over one home of the key: the directory of the authority of each is wrapped with it too, and the one that ended
/// the turn destroyed the key before under the others, which could not start again.
#[test]
fn an_epoch_waits_until_each_node_has_taken_along_what_the_key_wraps_there() {
    let factory = super::support::PgFactory::new();
    let (here, there) = (Home::new(), Home::new());
    let first = factory.open_with(here.ring()).unwrap();
    let second = factory.open_with(there.ring()).unwrap();
    let beat = || {
        for (number, node) in [(1, &first), (2, &second)] {
            node.node_progress([number; 16], 1_000_000, std::time::Duration::from_secs(600)).unwrap();
            node.care().follow_kek([number; 16]).unwrap();
        }
    };
    beat();
    first.care().begin_kek_turn().unwrap();
    there.keys.lock().unwrap().push(here.keys()[1]);
    there.cannot_take_along.store(true, Ordering::SeqCst);
    beat();
    let waiting = first.care().step_kek_turn(1_000, at(0)).unwrap().unwrap();
    assert_eq!(
        waiting.nodes_waiting, 1,
        "it has the key, and its own directory is wrapped with the one before"
    );
    there.cannot_take_along.store(false, Ordering::SeqCst);
    beat();
    let next = Kek::from_bytes(&here.keys()[1]).fingerprint();
    assert_eq!(*there.taken_along.lock().unwrap(), Some(next));
    assert_eq!(first.care().step_kek_turn(1_000, at(0)).unwrap(), None);
}

/// Two nodes, each with a home of the key of its own: nothing is wrapped with a key that one of them does not hold.
#[test]
fn an_epoch_waits_until_each_of_two_nodes_holds_the_next_key() {
    let factory = super::support::PgFactory::new();
    let (here, there) = (Home::new(), Home::new());
    let first = factory.open_with(here.ring()).unwrap();
    let second = factory.open_with(there.ring()).unwrap();
    let life = std::time::Duration::from_secs(600);
    let beat = || {
        for (number, node) in [(1, &first), (2, &second)] {
            node.node_progress([number; 16], 1_000_000, life).unwrap();
            node.care().follow_kek([number; 16]).unwrap();
        }
    };
    beat();
    furnish(&*first, 1);
    let before = told(&*first, 1);
    let turn = first.care().begin_kek_turn().unwrap();
    beat();
    let waiting = first.care().step_kek_turn(1_000, at(0)).unwrap().unwrap();
    assert_eq!((waiting.nodes_waiting, waiting.done), (1, 0), "the other node has no next key yet");
    assert!(
        matches!(second.ensure_patient_key(patient(9)), Err(StoreError::KekMissing { .. })),
        "and makes no key"
    );

    // Somebody brings it there.
    there.keys.lock().unwrap().push(here.keys()[1]);
    beat();
    second.ensure_patient_key(patient(9)).unwrap();
    assert_eq!(second.care().step_kek_turn(1_000, at(0)).unwrap(), None);
    assert_eq!(
        there.keys().len(),
        1,
        "the node that ended the turn destroyed its own copy of the key before"
    );
    beat();
    assert_eq!(here.keys().len(), 1, "and the other one does when it hears of it");
    assert_eq!(first.care().key_status().unwrap().epoch, turn.to);
    assert_eq!((told(&*first, 1), told(&*second, 1)), (before.clone(), before));

    // What one node erases the other cannot read either, from its next beat on.
    second.care().begin_erasure(patient(1), at(1)).unwrap();
    beat();
    assert!(matches!(first.events(&event_series(1), &ALL), Err(StoreError::KeyGone { .. })));
    assert!(matches!(first.ensure_patient_key(patient(1)), Err(StoreError::KeyGone { .. })));
}
