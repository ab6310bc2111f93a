//! The log that can be proven: rows into the tree, proofs, the check of everything, and what a record costs an act and a
//! reading.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use clinical_model::PatientId;
use pipeline::checkpoints::{CheckpointOptions, keep};
use store::sqlite::SqliteStore;
use store::{
    Actor, AuditAction, AuditRecord, DocumentWrite, Expected, KeyDomain, Kind, Log, LogAgainst, Store,
    Transaction,
};
use trust::Kek;
use trust::log::tree::{verify_consistency, verify_inclusion};

use super::Settings;
use super::fill::clock_now;
use super::outcome::{Better, Row, Section, Spread};
use crate::audit::export;

/// Rows of the log.
const ROWS: u64 = 1_000_000;
/// The same with `--quick`.
const QUICK_ROWS: u64 = 50_000;
/// Rows of one transaction while the log is filled.
const FILL_ROWS: usize = 2_000;
/// Proofs that are made and verified.
const PROOFS: u64 = 1_000;
/// Acts whose cost is compared.
const ACTS: u64 = 300;
/// How far the figures are carried on: ten million rows.
const CARRIED_TO: f64 = 10_000_000.0;

fn record(number: u64) -> AuditRecord {
    let patient = PatientId::from_bytes([(number % 50) as u8; 16]);
    AuditRecord {
        patient: Some(patient),
        detail: format!("patient={patient}&code=8867-4&_count=50"),
        purpose: Some("TREAT".to_owned()),
        policies: vec!["nurse-reads-her-ward".to_owned()],
        ..AuditRecord::new(clock_now(), Actor::System, AuditAction::Search, "Observation")
    }
}

fn filled(store: &SqliteStore, rows: u64) -> anyhow::Result<()> {
    for patient in 0..50_u8 {
        store.ensure_patient_key(PatientId::from_bytes([patient; 16]))?;
    }
    let mut number = 0;
    while number < rows {
        let count = (rows - number).min(FILL_ROWS as u64);
        let audit = (number..number + count).map(record).collect();
        store.transact(&Transaction { at: clock_now(), audit, ..Transaction::default() })?;
        number += count;
    }
    Ok(())
}

/// Microseconds of each of so many tries.
fn timed(count: u64, mut each: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<Spread> {
    let mut figures = Vec::with_capacity(count as usize);
    for number in 0..count {
        let began = Instant::now();
        each(number)?;
        figures.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Spread::of(figures).context("nothing was measured")
}

/// An act that changes one document, with and without its row.
fn cost_of_an_act(store: &SqliteStore, runs: usize) -> anyhow::Result<Spread> {
    let act = |number: u64, is_recorded: bool| -> anyhow::Result<()> {
        let write = DocumentWrite {
            kind: Kind::Setting,
            id: [9; 16],
            expected: Expected::Any,
            domain: KeyDomain::System,
            body: Some(format!("{{\"n\":{number}}}").into_bytes()),
            index: Vec::new(),
        };
        let audit = if is_recorded { vec![record(number)] } else { Vec::new() };
        Ok(store.transact(&Transaction {
            at: clock_now(),
            writes: vec![write],
            audit,
            ..Transaction::default()
        })?)
    };
    let ratios = (0..runs).map(|_| {
        let without = timed(ACTS, |number| act(number, false))?;
        let with = timed(ACTS, |number| act(number, true))?;
        Ok(with.median / without.median)
    });
    Spread::of(ratios.collect::<anyhow::Result<Vec<f64>>>()?).context("nothing was measured")
}

/// The leaf of a group's record against the commit of the group, in per cent of its time.
fn cost_of_a_reading(store: &SqliteStore, runs: usize) -> anyhow::Result<Spread> {
    let shares = (0..runs).map(|_| {
        let commit = timed(100, |_| store.append(&[], clock_now()).map(drop).context("the store refuses"))?;
        let (header, blinding, payload) = ([1_u8; 16], [2_u8; 32], [3_u8; 54]);
        let leaf = timed(10_000, |_| {
            std::hint::black_box(trust::audit::leaf(&header, &blinding, std::hint::black_box(&payload)));
            Ok(())
        })?;
        Ok(leaf.median * 100.0 / commit.median)
    });
    Spread::of(shares.collect::<anyhow::Result<Vec<f64>>>()?).context("nothing was measured")
}

/// A log that was filled and signed.
struct Filled {
    store: SqliteStore,
    size: u64,
    filled_s: f64,
    tree_s: f64,
}

/// Fills a log in a directory, and signs it.
fn fill_and_sign(directory: &Path, rows: u64) -> anyhow::Result<Filled> {
    let store = SqliteStore::open(directory, Kek::generate(), store::sqlite::Options::default())
        .context("the store cannot be made")?;
    let began = Instant::now();
    filled(&store, rows)?;
    let filled_s = began.elapsed().as_secs_f64();
    let began = Instant::now();
    // One look takes in a bounded number of rows; the rest comes with the next ones.
    while store.log().log_state(Log::Acts)?.size < rows {
        let options = CheckpointOptions::default();
        keep(&store, Log::Acts, &options, clock_now(), true, None).context("the log cannot be kept")?;
    }
    let tree_s = began.elapsed().as_secs_f64();
    let size = store.log().log_state(Log::Acts)?.size;
    Ok(Filled { store, size, filled_s, tree_s })
}

fn spread(what: &str, spread: Spread) -> Row {
    Row::new(what, "µs", Better::Lower, spread)
}

fn one(what: &str, unit: &'static str, figure: f64) -> Row {
    Row::new(what, unit, Better::Lower, Spread::one(figure))
}

/// Proofs made and verified, and how many hashes one has.
fn proofs(store: &SqliteStore, size: u64) -> anyhow::Result<(Vec<Row>, usize)> {
    let log = store.log();
    // Places that are spread over the whole log.
    let place = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % size;
    let root = log.log_root(Log::Acts, size)?;
    let made = timed(PROOFS, |number| {
        log.log_inclusion(Log::Acts, place(number), size)?;
        Ok(())
    })?;
    let index = place(7);
    let path = log.log_inclusion(Log::Acts, index, size)?;
    let leaf = log.log_entry(index + 1)?.context("the row is there")?.0.leaf;
    let verified = timed(PROOFS, |_| Ok(verify_inclusion(&leaf, index, size, &path, &root)?))?;
    let old = size / 3;
    let old_root = log.log_root(Log::Acts, old)?;
    let grown = timed(PROOFS, |number| {
        log.log_consistency(Log::Acts, 1 + place(number), size)?;
        Ok(())
    })?;
    let steps = log.log_consistency(Log::Acts, old, size)?;
    let grown_verified = timed(PROOFS, |_| Ok(verify_consistency((old, &old_root), (size, &root), &steps)?))?;
    let rows = vec![
        spread("inclusion proof made", made),
        spread("inclusion proof verified", verified),
        spread("consistency proof made", grown),
        spread("consistency proof verified", grown_verified),
    ];
    Ok((rows, path.len()))
}

/// Measures.
///
/// # Errors
/// When the store refuses, or what was filled is not sound.
pub fn measure(settings: &Settings) -> anyhow::Result<Section> {
    let rows = if settings.quick { QUICK_ROWS } else { ROWS };
    let place = tempfile::tempdir_in(&settings.dir).context("no throw-away directory")?;
    let Filled { store, size, filled_s, tree_s } = fill_and_sign(&place.path().join("data"), rows)?;
    let (proven, hashes) = proofs(&store, size)?;
    let began = Instant::now();
    let report = store.log().check_log(Log::Acts, &LogAgainst::default(), clock_now(), &mut |_, _| {})?;
    anyhow::ensure!(report.findings.is_empty(), "the filled log is not sound: {:?}", report.findings);
    let check_s = began.elapsed().as_secs_f64();
    let file = place.path().join("audit.jsonl");
    let began = Instant::now();
    export::write(&store, &[], &file, clock_now(), &mut |_, _| {})?;
    let export_s = began.elapsed().as_secs_f64();
    let megabytes = std::fs::metadata(&file)?.len() / 1_000_000;
    let began = Instant::now();
    let reports = export::check(&file, &export::Believed::default(), &mut |_, _| {})?;
    anyhow::ensure!(reports.iter().all(|report| report.findings.is_empty()), "the export is not sound");
    let offline_s = began.elapsed().as_secs_f64();
    let carried = CARRIED_TO / size as f64;
    let mut rows = vec![one(
        "1,000 rows into the tree, each read back and its leaf computed anew",
        "ms",
        tree_s * 1e6 / size as f64,
    )];
    rows.extend(proven);
    rows.extend([
        one("check of every row, leaf, tile and checkpoint", "s", check_s),
        one("export written", "s", export_s),
        one("export checked offline", "s", offline_s),
    ]);
    let (act, reading) = (cost_of_an_act(&store, settings.runs)?, cost_of_a_reading(&store, settings.runs)?);
    rows.extend([
        Row::new("an act with its row, against the same act without", "times", Better::Lower, act),
        Row::new("the leaf of a group, share of the commit of the group", "%", Better::Lower, reading),
    ]);
    Ok(Section {
        title: "The log that can be proven",
        settings: vec![format!(
            "{size} rows of the audit log about 50 patients, filled in {filled_s:.0} s; a proof has {hashes} hashes ({} \
             bytes), the export {megabytes} MB. Carried on to ten million rows: the check {:.0} s, the offline check of an \
             export {:.0} s, a proof with {:.0} hashes more.",
            hashes * 32,
            check_s * carried,
            offline_s * carried,
            carried.log2().ceil(),
        )],
        rows,
    })
}
