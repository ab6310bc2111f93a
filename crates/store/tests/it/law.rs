//! The law of the set union: whatever the order, the grouping, the repeats and the folds, the same facts are read back.

use std::collections::BTreeMap;

use clinical_model::{Absent, Committed, Fact, Findings, Reading, SeriesKey, Value};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use store::{Order, RangeQuery, Store};

use crate::support::*;

/// Each case commits with a sync, so there are few of them with many steps each.
const CASES: u32 = 64;
const SERIES: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Groups are given as frames of readings.
    Append(Vec<Vec<Reading>>),
    Fold(usize),
    Reopen,
}

fn any_reading() -> impl Strategy<Value = Reading> {
    (0..SERIES, 0i64..60, 0u32..2, 0i64..4, 0i64..3_000).prop_map(
        |(owner, second, sequence, value, delay_ms)| {
            let value = match value {
                3 => Value::Absent(Absent::Unavailable),
                digits => number(&format!("{}.{digits}", 70 + second % 5)),
            };
            let received = at(second * 1_000 + delay_ms);
            let findings = if delay_ms > 2_000 { Findings::LATE } else { Findings::empty() };
            Reading::restored(series(owner), at(second * 1_000 + 7), received, sequence, value, findings)
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let frames = prop::collection::vec(prop::collection::vec(any_reading(), 0..6), 0..4);
    prop_oneof![
        6 => frames.prop_map(Step::Append),
        3 => (1usize..4).prop_map(Step::Fold),
        1 => Just(Step::Reopen),
    ]
}

/// What was committed, as simply as can be: versions under each identity in the order of their commits.
#[derive(Default)]
struct Model {
    kept: BTreeMap<SeriesKey, BTreeMap<(i64, u32), Vec<Seen>>>,
}

/// What is compared: everything but the group, which a fold forgets.
type Seen = (Value, Findings, i64, i64);

impl Model {
    fn add(&mut self, reading: &Reading, committed_ms: i64) {
        let key = (reading.measured_at().as_micros(), reading.sequence());
        let versions = self.kept.entry(reading.series()).or_default().entry(key).or_default();
        if versions.iter().all(|(value, ..)| *value != reading.value()) {
            let mut findings = reading.findings();
            findings.set(Findings::CONFLICT, !versions.is_empty());
            versions.push((reading.value(), findings, reading.received_at().as_millis(), committed_ms));
        }
    }

    fn rows(&self, series: &SeriesKey) -> Vec<((i64, u32), Seen)> {
        let kept = self.kept.get(series).into_iter().flatten();
        kept.flat_map(|(key, versions)| versions.iter().map(|seen| (*key, *seen))).collect()
    }
}

fn seen(readings: &[Committed<Reading>]) -> Vec<((i64, u32), Seen)> {
    let row = |reading: &Committed<Reading>| {
        let key = (reading.measured_at().as_micros(), reading.sequence());
        let received = reading.received_at().as_millis();
        (key, (reading.value(), reading.findings(), received, reading.committed_at().as_millis()))
    };
    readings.iter().map(row).collect()
}

fn agree(store: &dyn Store, model: &Model) -> Result<(), TestCaseError> {
    for owner in 0..SERIES {
        let series = series(owner);
        let expected = model.rows(&series);
        prop_assert_eq!(&seen(&store.readings(&series, &ALL).unwrap()), &expected);
        let mut points = Vec::new();
        let mut add = |some: &[store::Point]| {
            points.extend(some.iter().map(|point| ((point.at.as_micros(), point.sequence), point.value)));
            true
        };
        store.scan(&series, ALL.from, ALL.to, &mut add).unwrap();
        points.sort_by_key(|(key, _)| *key);
        let mut first: Vec<_> = expected.iter().map(|(key, seen)| (*key, seen.0)).collect();
        first.dedup_by_key(|(key, _)| *key);
        prop_assert_eq!(points, first);
        for (from, to, limit) in [(0, 60, 5), (10, 30, 7), (29, 31, 1), (59, 60, 100), (30, 30, 9)] {
            let (from, to) = (at(from * 1_000), at(to * 1_000));
            let inside = |row: &&((i64, u32), Seen)| from.as_micros() <= row.0.0 && row.0.0 < to.as_micros();
            let mut part: Vec<_> = expected.iter().filter(inside).copied().collect();
            let query = RangeQuery { from, to, order: Order::Descending, limit };
            let newest: Vec<_> = part.iter().rev().take(limit).copied().collect();
            prop_assert_eq!(seen(&store.readings(&series, &query).unwrap()), newest);
            part.truncate(limit);
            let query = RangeQuery { order: Order::Ascending, ..query };
            prop_assert_eq!(seen(&store.readings(&series, &query).unwrap()), part);
        }
    }
    Ok(())
}

pub fn any_history_reads_as_its_union(factory: &dyn Factory) {
    let mut runner =
        TestRunner::new(Config { cases: factory.cases(CASES), max_shrink_iters: 200, ..Config::default() });
    let steps = prop::collection::vec(any_step(), 4..20);
    runner
        .run(&steps, |steps| {
            let factory = factory.fresh();
            let mut store = Some(factory.open());
            let mut model = Model::default();
            for (second, step) in (0i64..).zip(steps) {
                let open = store.as_deref().unwrap();
                match step {
                    Step::Append(frames) => {
                        let committed_at = at(100_000 + second * 1_000);
                        let frames: Vec<_> = frames.into_iter().map(readings).collect();
                        open.append(&frames, committed_at).unwrap();
                        for fact in frames.iter().flat_map(|frame| &frame.facts) {
                            let Fact::Reading(reading) = fact else { continue };
                            model.add(reading, committed_at.as_millis());
                        }
                    }
                    Step::Fold(limit) => drop(open.fold(limit, at(200_000)).unwrap()),
                    Step::Reopen => {
                        drop(store.take());
                        store = Some(factory.open());
                    }
                }
                agree(store.as_deref().unwrap(), &model)?;
            }
            let open = store.take().unwrap();
            fold_all(&*open);
            agree(&*open, &model)?;
            prop_assert_eq!(open.verify(&mut |_, _| {}).unwrap().findings, vec![]);
            drop(open);
            agree(&*factory.open(), &model)
        })
        .unwrap();
}

pub fn curves_keep_every_sample_once(factory: &dyn Factory) {
    let ecg = series_of(1, measure_of(|kind| matches!(kind, clinical_model::MeasureKind::Waveform)));
    let chunks = prop::collection::vec((0i64..100, 1usize..3), 1..20);
    let mut runner =
        TestRunner::new(Config { cases: factory.cases(CASES), max_shrink_iters: 200, ..Config::default() });
    // A chunk is 0.5 s at 100 Hz and begins at a multiple of 0.5 s: neighbours join, others leave gaps.
    let samples = |slot: i64| (0..50).map(|i| ((slot * 50 + i) * 37 % 1_000) as i16).collect::<Vec<_>>();
    runner
        .run(&(chunks, prop::collection::vec(any::<bool>(), 20)), |(chunks, folds)| {
            let factory = factory.fresh();
            let store = factory.open();
            let mut model = BTreeMap::new();
            for (slot, times) in chunks {
                for _ in 0..times {
                    let chunk = curve(ecg, slot * 500, samples(slot));
                    store.append(&[record(vec![Fact::Waveform(chunk)])], at(500_000)).unwrap();
                }
                for (i, sample) in (0i64..).zip(samples(slot)) {
                    model.insert(at(slot * 500).as_micros() + i * 10_000, sample);
                }
                if folds[(slot % 20) as usize] {
                    store.fold(2, at(600_000)).unwrap();
                }
            }
            for fold in [false, true] {
                if fold {
                    fold_all(&*store);
                }
                let mut found = Vec::new();
                for curve in store.waveforms(&ecg, &ALL).unwrap() {
                    prop_assert!(!curve.findings.contains(Findings::CONFLICT));
                    let time = |i: usize| curve.start.as_micros() + curve.offset_micros(i);
                    found.extend(curve.samples.iter().enumerate().map(|(i, sample)| (time(i), *sample)));
                }
                let expected: Vec<_> = model.iter().map(|(time, sample)| (*time, *sample)).collect();
                prop_assert_eq!(found, expected);
            }
            Ok(())
        })
        .unwrap();
}
