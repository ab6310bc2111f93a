//! Commit, read back, fold: what the pipeline relies on.

use clinical_model::quarantine::{QuarantineReason, QuarantineState};
use clinical_model::{
    DeviceId, Fact, Findings, FrameKind, MeasureKind, QuarantineId, QuarantineItem, Subject, UserId, measure,
};
use store::{Order, QuarantineCount, RangeQuery, SeriesFilter, Store, Transaction};
use trust::digest::Sha256;

use crate::support::*;

const NURSE: UserId = UserId::from_bytes([0x77; 16]);

fn item(number: u8, received_ms: i64) -> QuarantineItem {
    QuarantineItem {
        id: QuarantineId::from_bytes([number; 16]),
        device: device(1),
        kind: FrameKind::Envelope,
        received_at: at(received_ms),
        at_most_once: false,
        reason: QuarantineReason::Unassigned,
        what: "the device was assigned to nobody".to_owned(),
        offset: 3,
        state: QuarantineState::Waiting,
        bytes: vec![number; 10],
    }
}

pub fn a_committed_group_is_read_back(factory: &dyn Factory) {
    let store = factory.open();
    assert_eq!((store.last_group(), store.groups_after(0, 10).unwrap().len()), (0, 0));
    let mut first = readings(vec![reading(series(1), 0, 0, "72.50"), reading(series(1), 1_000, 7, "-3")]);
    first.quarantined = vec![item(9, 500)];
    let ecg = series_of(1, measure_of(|kind| matches!(kind, MeasureKind::Waveform)));
    let dose = series_of(1, measure_of(|kind| matches!(kind, MeasureKind::Event)));
    let second = record(vec![
        Fact::Waveform(curve(ecg, 10, vec![1, -2, i16::MIN, i16::MAX])),
        Fact::Event(event(dose, 20, 3, "puff")),
    ]);
    let appended = store.append(&[first.clone(), second.clone()], at(5_000)).unwrap();
    assert_eq!((appended.group, appended.committed_at, store.last_group()), (1, at(5_000), 1));
    store.append(&[], at(6_000)).unwrap();

    let check = |store: &dyn Store| {
        let groups = store.groups_after(0, 10).unwrap();
        assert_eq!(groups.iter().map(|group| group.group).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(groups[0].committed_at, at(5_000));
        for (found, sent) in groups[0].frames.iter().zip([&first, &second]) {
            assert_eq!(found.facts, sent.facts);
            assert_eq!(found.quarantined, sent.quarantined);
            assert_eq!(
                (found.frame.device, found.frame.received_at),
                (sent.frame.device, sent.frame.received_at)
            );
            assert!(found.frame.bytes.is_empty());
        }
        assert_eq!(store.groups_after(1, 10).unwrap().len(), 1);
        assert_eq!(store.groups_after(0, 1).unwrap()[0].group, 1);
        assert_eq!(store.events(&dose, &ALL).unwrap()[0].get(), &event(dose, 20, 3, "puff"));
        assert_eq!(store.waveforms(&ecg, &ALL).unwrap()[0].samples, [1, -2, i16::MIN, i16::MAX]);
    };
    check(&*store);
    drop(store);
    let store = factory.open();
    check(&*store);
    assert_eq!(store.append(&[], at(7_000)).unwrap().group, 3);
    fold_all(&*store);
    drop(store);
    let store = factory.open();
    assert_eq!((store.last_group(), store.groups_after(0, 10).unwrap().len()), (3, 0));
    assert_eq!(store.readings(&series(1), &ALL).unwrap().len(), 2);
    assert_eq!(store.events(&dose, &ALL).unwrap()[0].get(), &event(dose, 20, 3, "puff"));
}

pub fn latest_is_the_newest_by_time_and_sequence(factory: &dyn Factory) {
    let store = factory.open();
    let latest = |store: &dyn Store| {
        let found = store.latest(Subject::Patient(patient(1))).unwrap();
        let mut found: Vec<_> =
            found.iter().map(|r| (r.series().measure.name, r.value(), r.sequence())).collect();
        found.sort_by_key(|(name, ..)| *name);
        found
    };
    let spo2 = series_of(1, measure::OXYGEN_SATURATION);
    let group = [readings(vec![
        reading(series(1), 2_000, 0, "80"),
        reading(series(1), 3_000, 1, "82"),
        reading(series(1), 3_000, 0, "81"),
        reading(spo2, 1_000, 0, "97"),
        reading(series(2), 9_000, 0, "55"),
    ])];
    store.append(&group, at(4_000)).unwrap();
    let expected = [("heart_rate", number("82"), 1), ("oxygen_saturation", number("97"), 0)];
    assert_eq!(latest(&*store), expected);
    // Older, repeated and contradicting readings change nothing.
    store.append(&group, at(5_000)).unwrap();
    let late = [readings(vec![reading(series(1), 1_000, 0, "60"), reading(series(1), 3_000, 1, "99")])];
    store.append(&late, at(6_000)).unwrap();
    assert_eq!(latest(&*store), expected);
    fold_all(&*store);
    drop(store);
    let store = factory.open();
    assert_eq!(latest(&*store), expected);
    store.append(&[readings(vec![reading(series(1), 3_001, 0, "83")])], at(7_000)).unwrap();
    assert_eq!(latest(&*store)[0], ("heart_rate", number("83"), 0));
    assert!(store.latest(Subject::Patient(patient(9))).unwrap().is_empty());
}

pub fn a_latest_value_that_was_contradicted_says_so(factory: &dyn Factory) {
    let store = factory.open();
    let contradicted = |store: &dyn Store, number: u8| {
        let latest = store.latest(Subject::Patient(patient(number))).unwrap();
        latest[0].findings().contains(Findings::CONFLICT)
    };
    let one = [readings(vec![reading(series(1), 3_000, 0, "81")])];
    store.append(&one, at(4_000)).unwrap();
    store.append(&one, at(5_000)).unwrap();
    assert!(!contradicted(&*store, 1), "a repeat is no contradiction");
    store.append(&[readings(vec![reading(series(1), 3_000, 0, "140")])], at(6_000)).unwrap();
    assert!(contradicted(&*store, 1));
    let both = readings(vec![reading(series(2), 3_000, 0, "81"), reading(series(2), 3_000, 0, "140")]);
    store.append(&[both], at(7_000)).unwrap();
    assert!(contradicted(&*store, 2), "in one group too");
}

pub fn latest_is_not_held_by_a_clock_that_ran_ahead(factory: &dyn Factory) {
    let store = factory.open();
    let latest = |store: &dyn Store| store.latest(Subject::Patient(patient(1))).unwrap()[0].value();
    let append = |measured_ms, value: &str, committed_ms| {
        let one = readings(vec![reading(series(1), measured_ms, 0, value)]);
        store.append(&[one], at(committed_ms)).unwrap();
    };
    append(1_240_000, "44", 1_000_000);
    append(100_000, "50", 1_001_000);
    assert_eq!(latest(&*store), number("44"), "late data is never the latest");
    append(1_002_000, "120", 1_002_000);
    assert_eq!(latest(&*store), number("120"), "what is live goes before what claims to be of the future");
    append(1_001_000, "119", 1_003_000);
    assert_eq!(latest(&*store), number("120"));
}

pub fn cursors_hold_folding_back(factory: &dyn Factory) {
    let store = factory.open();
    for i in 0..5 {
        store.append(&[readings(vec![reading(series(1), i * 1_000, 0, "70")])], at(i * 1_000)).unwrap();
    }
    let advance = |name: &'static str, group| {
        let cursor = Some((name, group));
        store.transact(&Transaction { at: at(0), cursor, ..Transaction::default() }).unwrap();
    };
    advance("chart", 4);
    advance("alerts", 2);
    assert_eq!((store.cursor("chart").unwrap(), store.cursor("never").unwrap()), (4, 0));
    let folded = store.fold(100, at(9_000)).unwrap();
    assert_eq!((folded.groups, folded.readings, folded.repeats), (2, 2, 0));
    assert_eq!(store.fold(100, at(9_000)).unwrap().groups, 0);
    assert_eq!(store.groups_after(2, 10).unwrap()[0].group, 3);
    // A cursor never goes back: what lies behind it may be gone.
    advance("alerts", 1);
    assert_eq!(store.cursor("alerts").unwrap(), 2);
    advance("alerts", 5);
    assert_eq!(store.fold(1, at(9_000)).unwrap().groups, 1);
    assert_eq!(store.fold(100, at(9_000)).unwrap().groups, 1);
    assert_eq!(store.readings(&series(1), &ALL).unwrap().len(), 5);
}

pub fn repeats_and_conflicts_of_events_and_curves(factory: &dyn Factory) {
    let store = factory.open();
    let ecg = series_of(1, measure_of(|kind| matches!(kind, MeasureKind::Waveform)));
    let dose = series_of(1, measure_of(|kind| matches!(kind, MeasureKind::Event)));
    let samples: Vec<i16> = (0..100).collect();
    let other: Vec<i16> = (0..100).map(|i| -i).collect();
    let append = |facts: Vec<Fact>| {
        store.append(&[record(facts)], at(99_000)).unwrap();
    };
    let check = |when: &str| {
        let conflicts = |findings: Findings| findings.contains(Findings::CONFLICT);
        let curves = store.waveforms(&ecg, &ALL).unwrap();
        let found: Vec<_> = curves.iter().map(|c| (c.samples[1], conflicts(c.findings))).collect();
        assert_eq!(found, [(1, false), (-1, true)], "{when}");
        let events = store.events(&dose, &ALL).unwrap();
        let found: Vec<_> =
            events.iter().map(|e| (e.text.as_deref().unwrap(), conflicts(e.findings))).collect();
        assert_eq!(found, [("one", false), ("two", true), ("later", false)], "{when}");
        let query = RangeQuery { order: Order::Descending, limit: 2, ..ALL };
        assert_eq!(store.events(&dose, &query).unwrap()[1].text.as_deref(), Some("two"), "{when}");
    };
    let first = vec![Fact::Waveform(curve(ecg, 0, samples)), Fact::Event(event(dose, 5, 0, "one"))];
    let second = vec![
        Fact::Waveform(curve(ecg, 0, other)),
        Fact::Event(event(dose, 5, 0, "two")),
        Fact::Event(event(dose, 6, 0, "later")),
    ];
    append(first.clone());
    append(second.clone());
    append(first.clone());
    check("in the tail");
    store.fold(1, at(100_000)).unwrap();
    check("half folded");
    let folded = store.fold(9, at(100_000)).unwrap();
    assert_eq!(folded.repeats, 2);
    check("folded");
    append(second);
    append(first);
    check("repeated after the fold");
    assert_eq!(fold_all(&*store).repeats, 5);
    check("folded again");
}

pub fn frames_are_found_before_and_after_folding(factory: &dyn Factory) {
    let store = factory.open();
    let about_one = readings(vec![reading(series(1), 0, 0, "70")]);
    let mut about_two = readings(vec![reading(series(1), 0, 0, "70"), reading(series(2), 0, 0, "71")]);
    about_two.frame.bytes = b"two patients".to_vec();
    let nothing = store::FrameRecord {
        frame: frame(device(1), 40, &[0xab; 100_000]),
        facts: vec![],
        quarantined: vec![],
        released: vec![],
    };
    let other = readings(vec![reading(series(2), 0, 0, "70")]);
    let all = [about_one.clone(), about_two.clone(), nothing.clone(), other];
    store.append(&all, at(77)).unwrap();
    let check = |store: &dyn Store| {
        let mut found = store.frames(device(1), at(40)).unwrap();
        found.sort_by_key(|kept| kept.frame.bytes.len());
        assert!(found.iter().all(|kept| kept.committed_at == at(77)));
        let found: Vec<_> = found.into_iter().map(|kept| kept.frame).collect();
        assert_eq!(found, [about_one.frame.clone(), about_two.frame.clone(), nothing.frame.clone()]);
        assert!(store.frames(device(1), at(41)).unwrap().is_empty());
        assert!(store.frames(DeviceId::from_bytes([9; 16]), at(40)).unwrap().is_empty());
    };
    check(&*store);
    fold_all(&*store);
    check(&*store);
    // Later frames join the open block of their device.
    store.append(&[readings(vec![reading(series(1), 500, 0, "70")])], at(600)).unwrap();
    fold_all(&*store);
    check(&*store);
    assert_eq!(store.frames(device(1), at(540)).unwrap().len(), 1);
    drop(store);
    check(&*factory.open());
}

pub fn quarantine_counts_releases_and_pages(factory: &dyn Factory) {
    let store = factory.open();
    let mut frame = readings(vec![]);
    frame.quarantined = (1..=5).map(|number| item(number, i64::from(number / 2) * 100)).collect();
    store.append(&[frame.clone()], at(1_000)).unwrap();
    store.append(&[frame], at(2_000)).unwrap();
    assert_eq!(store.quarantine_count(), QuarantineCount { items: 5, bytes: 50 });
    assert_eq!(store.quarantined(item(3, 100).id).unwrap(), Some(item(3, 100)));
    assert_eq!(store.quarantined(QuarantineId::from_bytes([99; 16])).unwrap(), None);

    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = store.quarantine(true, before, 2).unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.received_at, last.id));
        seen.extend(page.iter().map(|item| item.bytes[0]));
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);

    let mut again = readings(vec![reading(series(1), 0, 0, "70")]);
    again.released = vec![(item(3, 100).id, NURSE)];
    store.append(&[again.clone()], at(3_000)).unwrap();
    store.append(&[again], at(4_000)).unwrap();
    let mut discarded = item(4, 200);
    discarded.state = QuarantineState::Discarded { at: at(5_000), by: NURSE };
    let change = Transaction { at: at(5_000), quarantine: vec![discarded.clone()], ..Transaction::default() };
    store.transact(&change).unwrap();
    drop(store);
    let store = factory.open();
    assert_eq!(store.quarantine_count(), QuarantineCount { items: 3, bytes: 30 });
    let waiting: Vec<u8> =
        store.quarantine(true, None, 9).unwrap().iter().map(|item| item.bytes[0]).collect();
    assert_eq!(waiting, [5, 2, 1]);
    assert_eq!(store.quarantine(false, None, 9).unwrap().len(), 5);
    assert_eq!(store.quarantined(discarded.id).unwrap(), Some(discarded));
    let released = store.quarantined(item(3, 100).id).unwrap().unwrap();
    assert!(matches!(released.state, QuarantineState::Released { by: NURSE, .. }));
    let groups = store.groups_after(2, 1).unwrap();
    assert_eq!(groups[0].frames[0].released, [(item(3, 100).id, NURSE)]);
}

pub fn identifiers_round_trip(factory: &dyn Factory) {
    let store = factory.open();
    let systolic = series_of(1, measure::SYSTOLIC);
    let panel = series_of(1, measure::BLOOD_PRESSURE);
    store
        .append(&[readings(vec![reading(systolic, 0, 0, "120"), reading(series(1), 0, 0, "70")])], at(0))
        .unwrap();
    let id = store.identifier(&systolic, at(0), 5).unwrap();
    let of_panel = store.identifier(&panel, at(0), 5).unwrap();
    assert_ne!(id, of_panel);
    assert!(store.identifier(&series(7), at(0), 0).is_err(), "the series is not known");
    assert!(store.identifier(&systolic, at(0), u32::MAX).is_err(), "the sequence does not fit");
    drop(store);
    let store = factory.open();
    assert_eq!(store.identifier(&systolic, at(0), 5).unwrap(), id);
    assert_eq!(store.open_identifier(&id).unwrap(), Some((systolic, at(0), 5)));
    assert_eq!(store.open_identifier(&of_panel).unwrap(), Some((panel, at(0), 5)));
    for text in ["", "x", "00000000000000000000000000000000", "../../etc/passwd", &id[..31]] {
        assert_eq!(store.open_identifier(text).unwrap(), None, "{text}");
    }
    assert_eq!(store.blind("name", "doe"), store.blind("name", "doe"));
    assert_ne!(store.blind("name", "doe"), store.blind("record-number", "doe"));
}

pub fn summaries_count_and_hash(factory: &dyn Factory) {
    let store = factory.open();
    let mut one = readings(vec![reading(series(1), 0, 0, "70"), reading(series(1), 1, 0, "71")]);
    one.frame.bytes = b"abc".to_vec();
    let mut two = one.clone();
    two.facts.clear();
    two.frame.bytes = b"def".to_vec();
    two.quarantined = vec![item(1, 0)];
    let other = readings(vec![reading(series(2), 0, 0, "70")]);
    store.append(&[one, other.clone(), two], at(10)).unwrap();
    store.append(&[other], at(20)).unwrap();
    let hash = |pieces: &[&[u8]]| {
        let mut digest = Sha256::new();
        pieces.iter().for_each(|piece| digest.update(piece));
        digest.finish()
    };
    let all = store.group_summaries(None, 10).unwrap();
    assert_eq!(all.iter().map(|summary| summary.group).collect::<Vec<_>>(), [2, 1]);
    let expected = [(device(1), 2, 2, 1, hash(&[b"abc", b"def"])), (device(2), 1, 1, 0, hash(&[b"1 facts"]))];
    assert_eq!(all[1].sources, expected);
    assert_eq!(store.group_summaries(Some(2), 10).unwrap(), all[1..]);
    fold_all(&*store);
    assert_eq!(store.group_summaries(None, 10).unwrap(), all);
}

pub fn series_are_listed_by_subject_device_and_measure(factory: &dyn Factory) {
    let store = factory.open();
    let keys =
        [series(1), series_of(1, measure::SYSTOLIC), series(2), series_of(2, measure::OXYGEN_SATURATION)];
    let facts = keys.iter().map(|key| reading(*key, 0, 0, "90")).collect();
    store.append(&[readings(facts)], at(0)).unwrap();
    let list = |filter: SeriesFilter| store.series(&filter).unwrap();
    assert_eq!(list(SeriesFilter::default()), keys, "the panel of the blood pressure is not listed");
    let subject = Some(Subject::Patient(patient(1)));
    assert_eq!(list(SeriesFilter { subject, ..SeriesFilter::default() }), keys[..2]);
    assert_eq!(list(SeriesFilter { device: Some(device(2)), ..SeriesFilter::default() }), keys[2..]);
    let measures = vec![measure::HEART_RATE];
    assert_eq!(list(SeriesFilter { subject, measures, ..SeriesFilter::default() }), keys[..1]);
    assert!(list(SeriesFilter { subject, device: Some(device(2)), measures: vec![] }).is_empty());
}

pub fn limits_and_orders_agree_with_the_whole(factory: &dyn Factory) {
    let store = factory.open();
    // Two hours at 1 Hz arrive in ten-second groups, most of them folded, a few late.
    for group in 0..60 {
        let second = if group % 7 == 0 { group * 10 - 300 } else { group * 10 };
        let batch = (0..10).map(|i| reading(series(1), (second + i) * 1_000, 0, "70")).collect();
        store.append(&[readings(batch)], at(group * 10_000)).unwrap();
        if group % 5 == 4 {
            store.fold(4, at(0)).unwrap();
        }
    }
    let all: Vec<_> =
        store.readings(&series(1), &ALL).unwrap().iter().map(|r| (r.measured_at(), r.value())).collect();
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for limit in [1, 3, 8, 9, 50, 1_000] {
        for start in [-400_000, -1, 0, 123_456, 300_000] {
            let query = RangeQuery { from: at(start), to: at(500_000), order: Order::Ascending, limit };
            let part: Vec<_> =
                all.iter().filter(|(t, _)| query.from <= *t && *t < query.to).copied().collect();
            let ask = |query: &RangeQuery| {
                let found = store.readings(&series(1), query).unwrap();
                found.iter().map(|r| (r.measured_at(), r.value())).collect::<Vec<_>>()
            };
            assert_eq!(ask(&query), part[..limit.min(part.len())]);
            let newest: Vec<_> = part.iter().rev().take(limit).copied().collect();
            assert_eq!(ask(&RangeQuery { order: Order::Descending, ..query }), newest);
        }
    }
}
