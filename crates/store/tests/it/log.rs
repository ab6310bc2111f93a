//! The trees over the logs: rows enter, are proven, and every change made in the database behind our back is named.

use clinical_model::{PatientId, Timestamp, UserId};
use store::{
    Actor, AuditAction, AuditOutcome, AuditQuery, AuditRecord, HEARTBEAT, KeptCheckpoint, Log, LogAgainst,
    Store, StoreError, Thinning, TransactError, Transaction,
};
use trust::log::check::{Fault, Report, Signpost};
use trust::log::checkpoint::Checkpoint;
use trust::log::note::{KeyKind, Signer, VerifierKey};
use trust::log::tree::{verify_consistency, verify_inclusion};

use crate::support::{Factory, SqliteFactory, at, patient, reading, readings, series};

const ROWS: u64 = 40;

fn act(number: u64) -> AuditRecord {
    let about: Option<PatientId> = (!number.is_multiple_of(3)).then(|| patient((number % 3) as u8));
    AuditRecord {
        patient: about,
        device: (number.is_multiple_of(2)).then(|| crate::support::device(4)),
        detail: format!("act {number}"),
        break_glass: (number.is_multiple_of(10)).then_some([7; 16]),
        policies: vec!["nurse-reads-ward".to_owned()],
        ..AuditRecord::new(at(number as i64), Actor::System, AuditAction::Read, "Observation")
    }
}

fn record(store: &dyn Store, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let audit = vec![act(number)];
        store.transact(&Transaction { at: at(number as i64), audit, ..Transaction::default() }).unwrap();
    }
}

/// Signs what stands in the tree now, as the server does.
pub fn sign(store: &dyn Store, log: Log, at: Timestamp) -> KeptCheckpoint {
    while store.log().integrate(log, 7, None).unwrap() > 0 {}
    let state = store.log().log_state(log).unwrap();
    let root = store.log().log_root(log, state.size).unwrap();
    let signers = store.log().log_signers(at).unwrap();
    let checkpoint = Checkpoint { origin: state.origin_line(), size: state.size, root };
    let number = state.checkpoint.map_or(1, |last| last.number + 1);
    let note = checkpoint.sign(&[signers.last().unwrap()], 0);
    let kept = KeptCheckpoint { number, size: state.size, at, note };
    store.log().keep_checkpoint(log, &kept, None).unwrap();
    kept
}

/// Forty rows of each log, with three checkpoints.
pub fn filled(store: &dyn Store) {
    store.ensure_patient_key(patient(1)).unwrap();
    store.ensure_patient_key(patient(2)).unwrap();
    for (from, to) in [(1, 15), (16, 25), (26, ROWS)] {
        record(store, from..=to);
        for number in from..=to {
            let one = readings(vec![reading(series(1), number as i64 * 1_000, 0, "70")]);
            store.append(&[one], at(number as i64)).unwrap();
        }
        Log::ALL.iter().for_each(|log| drop(sign(store, *log, at(to as i64))));
    }
}

fn check(store: &dyn Store, log: Log, against: &[Signpost]) -> Report {
    let against = LogAgainst { signposts: against.to_vec(), witnesses: Vec::new() };
    store.log().check_log(log, &against, at(1_000_000), &mut |_, _| {}).unwrap()
}

fn keys(store: &dyn Store) -> Vec<VerifierKey> {
    store.log().log_signers(at(0)).unwrap().iter().map(|signer| signer.verifier().clone()).collect()
}

pub fn rows_enter_the_tree_and_are_proven(factory: &dyn Factory) {
    let store = factory.open();
    filled(&*store);
    for log in Log::ALL {
        let report = check(&*store, log, &[]);
        assert_eq!(report.findings, [], "{log:?}");
        assert_eq!((report.rows, report.checkpoints, report.uncovered), (ROWS, 3, 0), "{log:?}");
        let kept = store.log().checkpoints(log, None, 10).unwrap();
        let sizes: Vec<u64> = kept.iter().map(|one| one.size).collect();
        assert_eq!(sizes, [40, 25, 15]);
        let (new, _) = Checkpoint::verified(&kept[0].note, &keys(&*store)).unwrap();
        for entry in store.log().log_entries(log, 1, 100).unwrap() {
            let index = entry.sequence - 1;
            let path = store.log().log_inclusion(log, index, new.size).unwrap();
            assert_eq!(verify_inclusion(&entry.leaf, index, new.size, &path, &new.root), Ok(()));
            let (blinding, payload) = entry.content.unwrap();
            assert_eq!(trust::audit::leaf(&entry.header, &blinding, &payload), entry.leaf);
        }
        let (old, _) = Checkpoint::verified(&kept[2].note, &keys(&*store)).unwrap();
        let path = store.log().log_consistency(log, old.size, new.size).unwrap();
        assert_eq!(verify_consistency((old.size, &old.root), (new.size, &new.root), &path), Ok(()));
        assert_eq!(store.log().log_tile(log, 0, 0).unwrap().len() as u64, ROWS);
    }
    let broken = AuditQuery { break_glass: true, limit: 100, ..AuditQuery::default() };
    let found: Vec<u64> = store.audit_rows(&broken).unwrap().iter().map(|row| row.sequence).collect();
    assert_eq!(found, [40, 30, 20, 10]);
    let device = AuditQuery { device: Some(crate::support::device(4)), limit: 100, ..AuditQuery::default() };
    assert_eq!(store.audit_rows(&device).unwrap().len(), 20);
    // The same is found after the store was closed and opened again.
    drop(store);
    let store = factory.open();
    assert_eq!(store.log().log_state(Log::Acts).unwrap().size, ROWS);
    assert_eq!(check(&*store, Log::Acts, &[]).findings, []);
}

/// One change behind our back, and what must be said of it.
struct Change {
    what: &'static str,
    sql: &'static str,
    fault: Fault,
    row: Option<u64>,
}

const fn change(what: &'static str, sql: &'static str, fault: Fault, row: u64) -> Change {
    Change { what, sql, fault, row: if row == 0 { None } else { Some(row) } }
}

/// Columns of the audit table, for inserting and moving rows.
const ACTS: [Change; 21] = [
    change("the time", "UPDATE audit SET at = at + 1 WHERE sequence = 17", Fault::Changed, 17),
    change("the action", "UPDATE audit SET action = 4 WHERE sequence = 17", Fault::Changed, 17),
    change("the outcome", "UPDATE audit SET outcome = 4 WHERE sequence = 17", Fault::Changed, 17),
    change("the patient", "UPDATE audit SET patient = NULL WHERE sequence = 17", Fault::Changed, 17),
    change("the device", "UPDATE audit SET device = NULL WHERE sequence = 16", Fault::Changed, 16),
    change("the flags", "UPDATE audit SET flags = 0 WHERE sequence = 20", Fault::Changed, 20),
    change("no flags", "UPDATE audit SET flags = NULL WHERE sequence = 17", Fault::Changed, 17),
    change("the actor", "UPDATE audit SET actor = substr(actor, 1, 16) WHERE sequence = 17", Fault::Changed, 17),
    change(
        "the content",
        "UPDATE audit SET sealed = (SELECT sealed FROM audit WHERE sequence = 18) WHERE sequence = 17",
        Fault::Changed,
        17,
    ),
    change("a blank content", "UPDATE audit SET sealed = substr(sealed, 1, 0) WHERE sequence = 17", Fault::Changed, 17),
    change(
        "the leaf",
        "UPDATE audit SET leaf = (SELECT leaf FROM audit WHERE sequence = 18) WHERE sequence = 17",
        Fault::Changed,
        17,
    ),
    change("a row deleted", "DELETE FROM audit WHERE sequence = 17", Fault::Missing, 17),
    change("the first row deleted", "DELETE FROM audit WHERE sequence = 1", Fault::Missing, 1),
    change("the tail cut off", "DELETE FROM audit WHERE sequence > 30", Fault::Missing, 31),
    change(
        "a row added at the end",
        "INSERT INTO audit(sequence, at, action, outcome, patient, device, actor, flags, sealed, leaf)
         SELECT 41, at, action, outcome, patient, device, actor, flags, sealed, leaf FROM audit WHERE sequence = 17",
        Fault::Added,
        41,
    ),
    change(
        "two rows exchanged",
        "UPDATE audit SET sequence = 1000 WHERE sequence = 5; UPDATE audit SET sequence = 5 WHERE sequence = 22;
         UPDATE audit SET sequence = 22 WHERE sequence = 1000",
        Fault::Moved,
        5,
    ),
    change(
        "a row deleted and the others moved up",
        "DELETE FROM audit WHERE sequence = 17; UPDATE audit SET sequence = -sequence WHERE sequence > 17;
         UPDATE audit SET sequence = -sequence - 1 WHERE sequence < 0",
        Fault::Missing,
        17,
    ),
    change(
        "the tree",
        "UPDATE log_tile SET hashes = (SELECT hashes FROM log_tile WHERE log = 2 AND level = 0) WHERE log = 1 AND level = 0",
        Fault::Tree,
        1,
    ),
    change(
        "a checkpoint replaced",
        "UPDATE log_checkpoint SET note = (SELECT note FROM log_checkpoint WHERE log = 2 AND number = 2)
         WHERE log = 1 AND number = 2",
        Fault::Checkpoint,
        0,
    ),
    change(
        "a checkpoint edited",
        "UPDATE log_checkpoint SET note = replace(note, '25', '26') WHERE log = 1 AND number = 2",
        Fault::Checkpoint,
        0,
    ),
    change(
        "everything after a checkpoint taken back, the tree with it",
        "DELETE FROM audit WHERE sequence > 25; UPDATE log_head SET size = 25 WHERE log = 1;
         UPDATE log_tile SET hashes = substr(hashes, 1, 800) WHERE log = 1",
        Fault::RolledBack,
        26,
    ),
];

const GROUPS: [Change; 7] = [
    change("the time", "UPDATE group_summary SET committed_at = committed_at + 1 WHERE number = 17", Fault::Changed, 17),
    change(
        "the content",
        "UPDATE group_summary SET sealed = (SELECT sealed FROM group_summary WHERE number = 18) WHERE number = 17",
        Fault::Changed,
        17,
    ),
    change(
        "the leaf",
        "UPDATE group_summary SET leaf = (SELECT leaf FROM group_summary WHERE number = 18) WHERE number = 17",
        Fault::Changed,
        17,
    ),
    change("a record deleted", "DELETE FROM group_summary WHERE number = 17", Fault::Missing, 17),
    change("the tail cut off", "DELETE FROM group_summary WHERE number > 30", Fault::Missing, 31),
    change(
        "two records exchanged",
        "UPDATE group_summary SET number = 1000 WHERE number = 5; UPDATE group_summary SET number = 5 WHERE number = 22;
         UPDATE group_summary SET number = 22 WHERE number = 1000",
        Fault::Moved,
        5,
    ),
    change(
        "a record added",
        "INSERT INTO group_summary(number, committed_at, sealed, leaf)
         SELECT 41, committed_at, sealed, leaf FROM group_summary WHERE number = 17",
        Fault::Added,
        41,
    ),
];

fn each_is_named(factory: &dyn Factory, log: Log, changes: &[Change]) {
    for Change { what, sql, fault, row } in changes {
        let fresh = factory.fresh();
        let store = fresh.open();
        filled(&*store);
        drop(store);
        fresh.tamper(sql);
        let store = fresh.open();
        let report = check(&*store, log, &[]);
        let found = report.findings.first().map(|finding| (finding.fault, finding.first));
        assert_eq!(found, Some((*fault, *row)), "{what}: {:?}", report.findings);
        let other = if log == Log::Acts { Log::Groups } else { Log::Acts };
        assert_eq!(check(&*store, other, &[]).findings, [], "{what}: the other log is sound");
        // The whole verification says it as well.
        let whole = store.verify(&mut |_, _| {}).unwrap();
        assert!(!whole.findings.is_empty(), "{what}");
    }
}

pub fn each_change_of_the_acts_is_found_and_named(factory: &dyn Factory) {
    each_is_named(factory, Log::Acts, &ACTS);
}

pub fn each_change_of_the_groups_is_found_and_named(factory: &dyn Factory) {
    each_is_named(factory, Log::Groups, &GROUPS);
}

pub fn every_search_of_the_log_finds_what_a_look_at_each_row_finds(factory: &dyn Factory) {
    let store = factory.open();
    let users: Vec<Actor> = (1..=2).map(|number| Actor::User(UserId::from_bytes([number; 16]))).collect();
    let audit: Vec<AuditRecord> = (0..120_u64)
        .map(|number| {
            let pick = |of: u64| (number / of) as usize;
            // Clocks of several nodes do not quite agree.
            let seconds = number as i64 + if number.is_multiple_of(7) { -9 } else { 0 };
            let is_beat = number.is_multiple_of(5);
            let actor = if is_beat { Actor::System } else { users[pick(3) % 2].clone() };
            let action = AuditAction::ALL[pick(2) % 3];
            let object = if is_beat { HEARTBEAT } else { "Observation" };
            AuditRecord {
                outcome: AuditOutcome::ALL[pick(1) % 3],
                patient: (number % 4 == 1).then(|| patient(1)),
                device: (number % 3 == 1).then(|| crate::support::device(4)),
                break_glass: (number % 11 == 2).then_some([7; 16]),
                ..AuditRecord::new(at(seconds), actor, action, object)
            }
        })
        .collect();
    store.transact(&Transaction { at: at(0), audit: audit.clone(), ..Transaction::default() }).unwrap();
    for case in 0..512_u32 {
        let is = |bit: u32| case & (1 << bit) != 0;
        let query = AuditQuery {
            patient: is(0).then(|| patient(1)),
            device: is(1).then(|| crate::support::device(4)),
            actor: is(2).then(|| users[0].clone()),
            break_glass: is(3),
            outcome: is(4).then_some(AuditOutcome::ALL[case as usize % 3]),
            actions: if is(5) { AuditAction::ALL[..1 + case as usize % 2].to_vec() } else { Vec::new() },
            without_heartbeats: is(6),
            from: is(7).then(|| at(20)),
            to: is(8).then(|| at(100)),
            before: (case % 5 == 0).then_some(90),
            limit: 7,
        };
        let fits = |row: &AuditRecord| {
            query.patient.is_none_or(|patient| row.patient == Some(patient))
                && query.device.is_none_or(|device| row.device == Some(device))
                && query.actor.as_ref().is_none_or(|actor| row.actor == *actor)
                && (!query.break_glass || row.break_glass.is_some())
                && query.outcome.is_none_or(|outcome| row.outcome == outcome)
                && (query.actions.is_empty() || query.actions.contains(&row.action))
                && (!query.without_heartbeats || row.object != HEARTBEAT)
                && query.from.is_none_or(|from| row.at >= from)
                && query.to.is_none_or(|to| row.at < to)
        };
        let wanted: Vec<u64> = (1..)
            .zip(&audit)
            .filter(|(sequence, row)| query.before.is_none_or(|before| *sequence < before) && fits(row))
            .map(|(sequence, _)| sequence)
            .collect();
        let wanted: Vec<u64> = wanted.into_iter().rev().take(query.limit).collect();
        let found: Vec<u64> = store.audit_rows(&query).unwrap().iter().map(|row| row.sequence).collect();
        assert_eq!(found, wanted, "{query:?}");
    }
}

pub fn acts_come_with_the_frames_they_sent(factory: &dyn Factory) {
    let store = factory.open();
    let one = readings(vec![reading(series(1), 1_000, 0, "70")]);
    store.append_with(&[one], &[act(1), act(2)], at(1)).unwrap();
    let rows = store.audit_rows(&AuditQuery { limit: 10, ..AuditQuery::default() }).unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.sequence, row.record.detail.as_str())).collect();
    assert_eq!(found, [(2, "act 2"), (1, "act 1")]);
    record(&*store, 3..=3);
    assert_eq!(store.log().log_state(Log::Acts).unwrap().rows, 3);
}

pub fn one_of_two_writers_takes_rows_into_the_tree(factory: &dyn Factory) {
    let store = factory.open();
    record(&*store, 1..=100);
    let taken = std::thread::scope(|threads| {
        let take = || {
            let mut taken = 0;
            loop {
                match store.log().integrate(Log::Acts, 9, None) {
                    Ok(0) => return taken,
                    Ok(count) => taken += count,
                    Err(TransactError::Conflict { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        };
        let both = [threads.spawn(take), threads.spawn(take)];
        both.map(|thread| thread.join().unwrap()).iter().sum::<u64>()
    });
    assert_eq!(taken, 100);
    sign(&*store, Log::Acts, at(100));
    assert_eq!(check(&*store, Log::Acts, &[]).findings, []);
}

/// A checkpoint of what stands in the tree, at a time of its own, cosigned by a witness or not.
fn keep_at(store: &dyn Store, number: u64, at: Timestamp, witness: Option<&Signer>) {
    let state = store.log().log_state(Log::Acts).unwrap();
    let root = store.log().log_root(Log::Acts, state.size).unwrap();
    let checkpoint = Checkpoint { origin: state.origin_line(), size: state.size, root };
    let signers = store.log().log_signers(at).unwrap();
    let by: Vec<&Signer> = signers.last().into_iter().chain(witness).collect();
    let kept = KeptCheckpoint { number, size: state.size, at, note: checkpoint.sign(&by, 1_000) };
    store.log().keep_checkpoint(Log::Acts, &kept, None).unwrap();
}

fn thin(store: &dyn Store, now: Timestamp) -> Result<u64, TransactError> {
    let (mut pass, mut removed) = (Thinning::default(), 0);
    loop {
        let thinned = store.log().thin_checkpoints(Log::Acts, &mut pass, now, None)?;
        removed += thinned.removed;
        if !thinned.more {
            return Ok(removed);
        }
    }
}

fn kept_numbers(store: &dyn Store) -> Vec<u64> {
    let kept = store.log().checkpoints(Log::Acts, None, 10_000).unwrap();
    kept.iter().rev().map(|kept| kept.number).collect()
}

pub fn old_checkpoints_thin_out_and_one_more_that_goes_is_found(factory: &dyn Factory) {
    const DAY: i64 = 86_400;
    let day = |days: i64, seconds: i64| at((days * DAY + seconds) * 1_000);
    let store = factory.open();
    filled(&*store);
    let witness = Signer::derive(&trust::Key::from_bytes(&[5; 32]), KeyKind::Witness, "w.example/1");
    // Beside the first three, of day 0: three of an early day; nine from 07:30 to 08:50 half a year before day 1000, the
    // second and the sixth cosigned; two of yesterday.
    let times = [day(500, 0), day(500, 7_000), day(500, 50_000)]
        .into_iter()
        .chain((0..9).map(|at| day(820, at * 600)))
        .chain([day(999, 0), day(999, 10)]);
    for (number, at) in (4..).zip(times) {
        keep_at(&*store, number, at, [8, 12].contains(&number).then_some(&witness));
    }
    assert_eq!(thin(&*store, day(1_000, 0)).unwrap(), 8);
    // The first; the last of each early day; of each hour the last and the last cosigned one; all of yesterday.
    assert_eq!(kept_numbers(&*store), [1, 3, 6, 8, 9, 12, 15, 16, 17]);
    let sound = check(&*store, Log::Acts, &[]);
    assert_eq!((sound.findings, sound.checkpoints), (vec![], 9));
    assert_eq!(thin(&*store, day(1_000, 0)).unwrap(), 0, "once more changes nothing");
    // More than a year later a day has one, and the last cosigned one beside it.
    keep_at(&*store, 18, day(1_000, 1), None);
    assert_eq!(thin(&*store, day(1_400, 0)).unwrap(), 3);
    assert_eq!(kept_numbers(&*store), [1, 3, 6, 12, 15, 17, 18]);
    assert_eq!(check(&*store, Log::Acts, &[]).findings, []);
    for (number, at) in (19..).zip([day(1_401, 0), day(1_401, 1), day(1_401, 2), day(1_402, 0)]) {
        keep_at(&*store, number, at, None);
    }
    drop(store);
    for (sql, is_refused) in [
        ("DELETE FROM log_checkpoint WHERE log = 1 AND number = 12", true),
        ("DELETE FROM log_checkpoint WHERE log = 1 AND number = 18", true),
        ("DELETE FROM log_checkpoint WHERE log = 1 AND number = 20", false),
        ("DELETE FROM log_checkpoint WHERE log = 1 AND number <= 6", true),
        ("UPDATE log_checkpoint SET at = at + 1 WHERE log = 1 AND number = 15", true),
        ("DELETE FROM log_thinned", true),
        ("UPDATE log_thinned SET note = replace(note, 'up to 16', 'up to 18')", true),
    ] {
        let before = "CREATE TABLE old_checkpoint AS SELECT * FROM log_checkpoint;
            CREATE TABLE old_thinned AS SELECT * FROM log_thinned";
        factory.tamper(&format!("{before}; {sql}"));
        let store = factory.open();
        let found = check(&*store, Log::Acts, &[]).findings;
        assert_eq!(found.first().map(|found| found.fault), Some(Fault::Checkpoint), "{sql}: {found:?}");
        assert!(!store.verify(&mut |_, _| {}).unwrap().findings.is_empty(), "{sql}");
        // What was done does not become the rule when more goes.
        let thinned = thin(&*store, day(3_000, 0));
        let damaged = matches!(thinned, Err(TransactError::Store(StoreError::Damaged { .. })));
        assert_eq!(damaged, is_refused, "{sql}: {thinned:?}");
        assert!(!check(&*store, Log::Acts, &[]).findings.is_empty(), "{sql}: found no more");
        drop(store);
        let after = "DELETE FROM log_checkpoint; INSERT INTO log_checkpoint SELECT * FROM old_checkpoint;
            DELETE FROM log_thinned; INSERT INTO log_thinned SELECT * FROM old_thinned;
            DROP TABLE old_checkpoint; DROP TABLE old_thinned";
        factory.tamper(after);
    }
    assert_eq!(check(&*factory.open(), Log::Acts, &[]).findings, []);
}

pub fn the_signing_key_turns_over(factory: &dyn Factory) {
    let store = factory.open();
    filled(&*store);
    store.log().turn_log_key(at(50)).unwrap();
    record(&*store, 41..=50);
    sign(&*store, Log::Acts, at(50));
    let signers = store.log().log_signers(at(50)).unwrap();
    assert_eq!(signers.len(), 2);
    let newest = signers.last().map(Signer::verifier).unwrap().clone();
    let kept = store.log().checkpoints(Log::Acts, None, 1).unwrap();
    assert!(Checkpoint::verified(&kept[0].note, std::slice::from_ref(&newest)).is_ok());
    assert!(
        Checkpoint::verified(&store.log().checkpoints(Log::Acts, None, 9).unwrap()[1].note, &[newest])
            .is_err()
    );
    assert_eq!(check(&*store, Log::Acts, &[]).findings, []);
}

#[test]
fn a_whole_older_copy_is_found_by_a_checkpoint_that_was_kept_elsewhere() {
    let factory = SqliteFactory::new();
    let store = factory.open();
    filled(&*store);
    drop(store);
    let older = tempfile::tempdir().unwrap();
    for name in ["data.db", "keystore.db"] {
        std::fs::copy(factory.path().join(name), older.path().join(name)).unwrap();
    }
    let store = factory.open();
    record(&*store, 41..=60);
    let kept = sign(&*store, Log::Acts, at(60));
    let outside = Signpost { name: "the auditor's checkpoint".to_owned(), note: kept.note, outside: true };
    assert_eq!(check(&*store, Log::Acts, std::slice::from_ref(&outside)).findings, []);
    drop(store);
    for name in ["data.db", "keystore.db"] {
        std::fs::copy(older.path().join(name), factory.path().join(name)).unwrap();
    }
    let store = factory.open();
    assert_eq!(check(&*store, Log::Acts, &[]).findings, [], "by itself an older copy is a sound log");
    let found = check(&*store, Log::Acts, std::slice::from_ref(&outside)).findings;
    assert_eq!((found[0].fault, found[0].first, found[0].last), (Fault::RolledBack, Some(41), Some(60)));
    // Grown past the old size again, it is still another log.
    record(&*store, 41..=70);
    sign(&*store, Log::Acts, at(70));
    let found = check(&*store, Log::Acts, std::slice::from_ref(&outside)).findings;
    assert_eq!(found[0].fault, Fault::RolledBack, "{found:?}");
}

/// The key is really gone: out of the file of keys, by hand.
#[test]
fn an_erased_patient_breaks_no_proof() {
    let factory = SqliteFactory::new();
    let store = factory.open();
    filled(&*store);
    let rows = AuditQuery { patient: Some(patient(1)), limit: 100, ..AuditQuery::default() };
    let of_patient: Vec<u64> = store.audit_rows(&rows).unwrap().iter().map(|row| row.sequence).collect();
    drop(store);
    let keystore = rusqlite::Connection::open(factory.path().join("keystore.db")).unwrap();
    let gone = keystore
        .execute("DELETE FROM data_key WHERE domain = ?1", [format!("patient/{}", patient(1))])
        .unwrap();
    assert_eq!(gone, 1);
    drop(keystore);
    let store = factory.open();
    let report = check(&*store, Log::Acts, &[]);
    assert_eq!((report.findings, report.erased), (vec![], of_patient.len() as u64));
    let kept = store.log().checkpoints(Log::Acts, None, 1).unwrap();
    let (head, _) = Checkpoint::verified(&kept[0].note, &keys(&*store)).unwrap();
    for sequence in of_patient {
        let (entry, row) = store.log().log_entry(sequence).unwrap().unwrap();
        assert_eq!((entry.content, row.record.detail.as_str()), (None, ""));
        let path = store.log().log_inclusion(Log::Acts, sequence - 1, head.size).unwrap();
        assert_eq!(verify_inclusion(&entry.leaf, sequence - 1, head.size, &path, &head.root), Ok(()));
    }
}

#[test]
fn a_restored_backup_begins_a_new_epoch_that_holds_the_last_checkpoint() {
    let factory = SqliteFactory::new();
    let store = factory.open();
    filled(&*store);
    let last = store.log().checkpoints(Log::Acts, None, 1).unwrap()[0].note.clone();
    let places = tempfile::tempdir().unwrap();
    let (backup, target) = (places.path().join("backup"), places.path().join("target"));
    store.backup(&backup, &mut |_, _| {}).unwrap();
    assert!(!store.log().begin_epoch_after_restore(at(70)).unwrap());
    drop(store);
    store::sqlite::restore(&backup, &target, trust::Kek::from_bytes(&crate::support::KEK)).unwrap();
    let store = crate::support::open(&target);
    assert!(store.log().begin_epoch_after_restore(at(70)).unwrap());
    assert!(!store.log().begin_epoch_after_restore(at(71)).unwrap());
    assert_eq!(store.log().log_state(Log::Acts).unwrap().epoch, 2);
    let (_, row) = store.log().log_entry(ROWS + 1).unwrap().unwrap();
    assert!(row.record.detail.contains(&last), "{}", row.record.detail);
    let kept = sign(&store, Log::Acts, at(80));
    assert!(kept.note.contains("/acts/2\n"));
    assert_eq!(check(&store, Log::Acts, &[]).findings, []);
}
