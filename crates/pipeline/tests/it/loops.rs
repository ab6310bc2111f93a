//! The loop: frames become charted readings; what is refused waits in quarantine and lands where it belongs.

use clinical_model::decimal::Decimal;
use clinical_model::{
    ClockRule, Device, DeviceId, FrameKind, Interval, QuarantineReason, Subject, Timestamp,
};
use clinical_model::{Findings, measure};
use pipeline::audited::Act;
use pipeline::desk::{DeskError, Rerun};
use pipeline::{EntryOutcome, IntakeError};
use store::{Actor, AuditAction, AuditQuery};

use crate::site::{
    KEY, MONITOR, NURSE, PATIENT, START_S, SetClock, assignment, device, eventually, frame, furnish,
    heart_rate, open, send,
};

const CUFF: DeviceId = DeviceId::from_bytes([8; 16]);
/// 120/80 (93) mmHg, pulse 72, no time: `vectors/gatt`.
const CUFF_FRAME: [u8; 9] = [0x04, 0x78, 0x00, 0x50, 0x00, 0x5D, 0x00, 0x48, 0x00];

fn act() -> Act {
    Act::new(Actor::User(NURSE), AuditAction::Read, "Patient").patient(PATIENT)
}

fn latest(site: &pipeline::Site) -> Vec<(String, String)> {
    let observed = site.read(act(), |chart| chart.latest(Subject::Patient(PATIENT))).unwrap();
    let mut values: Vec<_> = observed
        .iter()
        .flat_map(|one| &one.readings)
        .map(|reading| {
            (reading.series().measure.name.to_owned(), reading.value().number().unwrap().to_string())
        })
        .collect();
    values.sort();
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blood_pressure_goes_from_the_cuff_to_the_chart_with_its_provenance() {
    let directory = tempfile::tempdir().unwrap();
    let site = open(directory.path(), SetClock::new());
    furnish(&site);
    let receipt = send(&site, MONITOR, FrameKind::Gatt(0x2A35), &CUFF_FRAME).await;
    assert!(receipt.group > 0);
    let expected =
        [("diastolic", "80"), ("mean_pressure", "93"), ("pulse_rate_cuff", "72"), ("systolic", "120")];
    assert_eq!(latest(&site), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

    let EntryOutcome::Committed { facts } = &receipt.entries[0] else { panic!("{receipt:?}") };
    let panel = clinical_model::SeriesKey { measure: measure::BLOOD_PRESSURE, ..facts[0].series };
    let id = site.store().identifier(&panel, facts[0].at, facts[0].sequence).unwrap();
    for folded in [false, true] {
        if folded {
            eventually("folded", || site.fold_now().unwrap().groups > 0).await;
        }
        let provenance = site.read(act(), |chart| chart.provenance(&id)).unwrap().unwrap();
        assert_eq!(provenance.observed.measure, measure::BLOOD_PRESSURE);
        assert_eq!(provenance.observed.readings.len(), 3);
        assert_eq!(provenance.frames[0].frame.bytes, CUFF_FRAME, "folded: {folded}");
    }
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unassigned_device_waits_and_lands_with_its_original_time_once_assigned() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    site.add_device(Actor::System, device(CUFF, "Cuff 1")).unwrap();
    let receipt = send(&site, CUFF, FrameKind::Gatt(0x2A35), &CUFF_FRAME).await;
    let EntryOutcome::Quarantined { id, reason, .. } = receipt.entries[0].clone() else {
        panic!("{receipt:?}")
    };
    assert_eq!(reason, QuarantineReason::Unassigned);
    assert!(latest(&site).is_empty());
    // The same frame again is the same item.
    send(&site, CUFF, FrameKind::Gatt(0x2A35), &CUFF_FRAME).await;
    assert_eq!(site.store().quarantine_count().items, 1);

    clock.advance(600);
    let Rerun::StillQuarantined { what } = site.rerun(NURSE, id).await.unwrap() else { panic!("assigned?") };
    assert!(what.contains("assigned to nobody"), "{what}");
    site.assign(Actor::User(NURSE), assignment(2, CUFF, Timestamp::from_seconds(START_S - 60))).unwrap();
    let Rerun::Committed(receipt) = site.rerun(NURSE, id).await.unwrap() else { panic!("not assigned?") };
    let EntryOutcome::Committed { facts } = &receipt.entries[0] else { panic!("{receipt:?}") };
    assert_eq!(facts[0].at, Timestamp::from_seconds(START_S), "measured when it was received first");
    assert_eq!(latest(&site).len(), 4);
    assert_eq!(site.store().quarantine_count().items, 0);
    assert!(matches!(site.rerun(NURSE, id).await, Err(DeskError::DealtWith)));
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_mended_by_its_rule() {
    let directory = tempfile::tempdir().unwrap();
    let site = open(directory.path(), SetClock::new());
    furnish(&site);
    let year_ahead = Timestamp::from_seconds(START_S + 365 * 86_400);
    let body = format!(r#"{{"measure":"heart_rate","value":61,"time":"{year_ahead}"}}"#);
    let receipt = send(&site, MONITOR, FrameKind::Envelope, body.as_bytes()).await;
    let EntryOutcome::Quarantined { id, reason, .. } = receipt.entries[0].clone() else {
        panic!("{receipt:?}")
    };
    assert_eq!(reason, QuarantineReason::Clock);
    let (known, version) = site.registry().device_versioned(MONITOR).unwrap();
    let mended = Device { clock: ClockRule::Shift { seconds: -365 * 86_400 }, ..Device::clone(&known) };
    site.update_device(Actor::User(NURSE), mended.clone(), version).unwrap();
    assert!(matches!(
        site.update_device(Actor::User(NURSE), mended, version),
        Err(DeskError::Conflict { .. })
    ));
    let Rerun::Committed(receipt) = site.rerun(NURSE, id).await.unwrap() else { panic!("still quarantined") };
    let EntryOutcome::Committed { facts } = &receipt.entries[0] else { panic!("{receipt:?}") };
    assert_eq!(facts[0].at, Timestamp::from_seconds(START_S));
    let observed = site.read(act(), |chart| chart.latest(Subject::Patient(PATIENT))).unwrap();
    assert_eq!(observed[0].readings[0].findings(), Findings::CLOCK_CORRECTED);
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_entry_of_a_batch_never_loses_the_good_ones() {
    let directory = tempfile::tempdir().unwrap();
    let site = open(directory.path(), SetClock::new());
    furnish(&site);
    let body = br#"[{"measure":"heart_rate","value":60},{"measure":"heart_rate","value":900},
        {"measure":"humour","value":1},{"measure":"oxygen_saturation","value":97,"unit":"kg"},
        {"measure":"respiratory_rate","value":14}]"#;
    let receipt = send(&site, MONITOR, FrameKind::Envelope, body).await;
    let words: Vec<_> = receipt
        .entries
        .iter()
        .map(|entry| match entry {
            EntryOutcome::Committed { .. } => "committed",
            EntryOutcome::Quarantined { reason, .. } => reason.word(),
        })
        .collect();
    assert_eq!(words, ["committed", "impossible", "undecodable", "unit", "committed"]);
    assert_eq!(latest(&site).len(), 2);
    // Each waits with its exact bytes.
    let items = site.read(act(), |chart| chart.quarantine(true, None, 10)).unwrap();
    let impossible = items.iter().find(|item| item.reason == QuarantineReason::Impossible).unwrap();
    assert_eq!(impossible.bytes, br#"{"measure":"heart_rate","value":900}"#);
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_under_any_concurrency_are_charted_once_and_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    let body = format!(r#"{{"measure":"heart_rate","value":72.50,"time":"{}"}}"#, site.clock().now());
    let sends = (0..16).map(|_| send(&site, MONITOR, FrameKind::Envelope, body.as_bytes()));
    futures_join(sends).await;
    let check = |site: &pipeline::Site| {
        let series = clinical_model::SeriesKey {
            subject: Subject::Patient(PATIENT),
            measure: measure::HEART_RATE,
            device: MONITOR,
        };
        let range = store::RangeQuery {
            from: Timestamp::MIN,
            to: Timestamp::MAX,
            order: store::Order::Ascending,
            limit: 100,
        };
        let readings = site.read(act(), |chart| chart.observations(&series, &range)).unwrap();
        assert_eq!(readings.len(), 1);
        assert_eq!(readings[0].readings[0].value().number(), Some("72.50".parse::<Decimal>().unwrap()));
    };
    check(&site);
    site.stop();
    drop(site);
    let site = open(directory.path(), clock);
    check(&site);
    eventually("folded", || site.fold_now().unwrap().groups > 0).await;
    check(&site);
    assert!(site.live().heard(MONITOR).last_heard_at.is_some(), "known from what is kept");
    site.stop();
}

async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let site = open(directory.path(), SetClock::new());
    furnish(&site);
    let intake = site.intake().unwrap();
    let refused = |frame| {
        let intake = intake.clone();
        async move { intake.submit(frame).await.unwrap_err() }
    };
    let now = intake.now();
    let large = frame(MONITOR, FrameKind::Envelope, &vec![b' '; 10 << 20], now);
    assert_eq!(refused(large).await, IntakeError::TooLarge { size_bytes: 10 << 20 });
    let stranger = DeviceId::from_bytes([99; 16]);
    assert_eq!(
        refused(frame(stranger, FrameKind::Envelope, b"[]", now)).await,
        IntakeError::UnknownDevice { device: stranger }
    );
    let (known, version) = site.registry().device_versioned(MONITOR).unwrap();
    site.update_device(Actor::System, Device { retired: true, ..Device::clone(&known) }, version).unwrap();
    let retired = refused(frame(MONITOR, FrameKind::Envelope, b"[]", now)).await;
    assert_eq!(retired, IntakeError::Retired { device: MONITOR });
    drop(intake);
    site.stop();
    assert!(site.intake().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn acts_of_people_are_audited_and_bad_ones_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let site = open(directory.path(), SetClock::new());
    furnish(&site);
    let overlap = site.assign(Actor::User(NURSE), assignment(3, MONITOR, Timestamp::from_seconds(START_S)));
    assert!(matches!(overlap, Err(DeskError::Overlap(_))), "{overlap:?}");
    let backwards = Interval::between(Timestamp::from_seconds(2), Timestamp::from_seconds(1));
    let mut wrong = assignment(4, MONITOR, Timestamp::from_seconds(2));
    wrong.interval = backwards;
    assert!(matches!(site.assign(Actor::User(NURSE), wrong), Err(DeskError::Time { .. })));
    let ended = assignment(1, MONITOR, Timestamp::from_seconds(0)).id;
    site.end_assignment(Actor::User(NURSE), ended, Timestamp::from_seconds(START_S + 1)).unwrap();
    heart_rate(&site, 70).await;
    latest(&site);
    let query = AuditQuery { limit: 100, ..AuditQuery::default() };
    let rows = site.read(act(), |chart| chart.audit_rows(&query)).unwrap();
    let of_nurse: Vec<_> = rows
        .iter()
        .filter(|row| row.record.actor == Actor::User(NURSE))
        .map(|row| (row.record.action, row.record.patient.is_some()))
        .collect();
    assert_eq!(of_nurse, [(AuditAction::Read, true), (AuditAction::Read, true), (AuditAction::Assign, true)]);
    let sequences: Vec<u64> = rows.iter().map(|row| row.sequence).rev().collect();
    assert_eq!(sequences, (1..=rows.len() as u64).collect::<Vec<_>>(), "no gaps");
    let groups = site.read(act(), |chart| chart.group_summaries(None, 10)).unwrap();
    assert_eq!(groups[0].sources[0].0, MONITOR);
    site.stop();
    // Nothing of the patient is readable in any file.
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in [&b"Okonkwo"[..], b"MRN-1", b"1950-03-21", &KEY] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_did_not_arrive_leave_a_record_of_the_gap() {
    let directory = tempfile::tempdir().unwrap();
    let site = open(directory.path(), SetClock::new());
    furnish(&site);
    for number in [7, 8, 8, 12] {
        let body =
            format!(r#"{{"message_number":{number},"readings":[{{"measure":"heart_rate","value":70}}]}}"#);
        send(&site, MONITOR, FrameKind::Envelope, body.as_bytes()).await;
    }
    let series = clinical_model::SeriesKey {
        subject: Subject::Patient(PATIENT),
        measure: measure::DATA_GAP,
        device: MONITOR,
    };
    let range = store::RangeQuery {
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        order: store::Order::Ascending,
        limit: 10,
    };
    let gaps = site.read(act(), |chart| chart.events(&series, &range)).unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].text.as_deref(), Some("messages 9 to 11 did not arrive"));
    assert_eq!(gaps[0].amount.as_ref().map(|(count, _)| count.to_string()), Some("3".to_owned()));
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_quarantine_refuses_what_would_wait_and_takes_what_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let site = open(directory.path(), SetClock::new());
    furnish(&site);
    let intake = site.intake().unwrap().with_quarantine_limit(2);
    let submit = |body: String| {
        let frame = frame(MONITOR, FrameKind::Envelope, body.as_bytes(), intake.now());
        let intake = intake.clone();
        async move {
            match intake.submit(frame).await {
                Ok(pending) => pending.await,
                Err(refused) => Err(refused),
            }
        }
    };
    for number in 0..2 {
        submit(format!(r#"{{"measure":"heart_rate","value":{}}}"#, 900 + number)).await.unwrap();
    }
    let refused = submit(r#"{"measure":"heart_rate","value":999}"#.into()).await;
    assert_eq!(refused.unwrap_err(), IntakeError::QuarantineFull);
    submit(r#"{"measure":"heart_rate","value":70}"#.into()).await.unwrap();
    let items = site.read(act(), |chart| chart.quarantine(true, None, 10)).unwrap();
    site.discard(NURSE, items[0].id, "nonsense").unwrap();
    submit(r#"{"measure":"heart_rate","value":999}"#.into()).await.unwrap();
    let _ = submit;
    drop(intake);
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_bytes_without_a_time_are_two_readings_even_in_quarantine() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    site.add_device(Actor::System, device(CUFF, "Cuff 1")).unwrap();
    let receipt = send(&site, CUFF, FrameKind::Gatt(0x2A35), &CUFF_FRAME).await;
    let EntryOutcome::Quarantined { id, .. } = receipt.entries[0] else { panic!("{receipt:?}") };
    site.discard(NURSE, id, "not on a patient").unwrap();
    clock.advance(3_600);
    send(&site, CUFF, FrameKind::Gatt(0x2A35), &CUFF_FRAME).await;
    assert_eq!(site.store().quarantine_count().items, 1, "acknowledged, so it must be somewhere");
    clock.advance(3_600);
    send(&site, CUFF, FrameKind::Gatt(0x2A35), &CUFF_FRAME).await;
    assert_eq!(site.store().quarantine_count().items, 2);
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_without_an_identifier_waits_and_the_chart_stays_readable() {
    let directory = tempfile::tempdir().unwrap();
    let site = open(directory.path(), SetClock::new());
    furnish(&site);
    assert_eq!(clinical_model::reading::SEQUENCE_LIMIT, trust::identity::MAX_SEQUENCE);
    let body = br#"{"measure":"heart_rate","value":60,"sequence":4294967295}"#;
    let receipt = send(&site, MONITOR, FrameKind::Envelope, body).await;
    assert!(
        matches!(receipt.entries[0], EntryOutcome::Quarantined { reason: QuarantineReason::Impossible, .. }),
        "{receipt:?}"
    );
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_the_newest_panel_lacks_is_not_shown_from_an_earlier_one() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    for values in [r#"{"systolic":120,"diastolic":80,"mean":93}"#, r#"{"systolic":85,"diastolic":50}"#] {
        let now = clinical_model::Timestamp::to_rfc3339(site.clock().now());
        let body = format!(r#"{{"panel":"blood_pressure","values":{values},"time":"{now}"}}"#);
        send(&site, MONITOR, FrameKind::Envelope, body.as_bytes()).await;
        clock.advance(60);
    }
    let expected = [("diastolic", "50"), ("systolic", "85")];
    assert_eq!(latest(&site), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_strip_is_charted_and_never_drawn_as_live() {
    let directory = tempfile::tempdir().unwrap();
    let site = open(directory.path(), SetClock::new());
    furnish(&site);
    let mut strips = site.live().waveforms(PATIENT);
    for (ago_s, count) in [(600, 1), (2, 2)] {
        let at = Timestamp::from_seconds(START_S - ago_s);
        let body = format!(
            r#"{{"waveform":"ecg_ii","time":"{at}","rate":250,"gain":0.005,"samples":[{count},{count}]}}"#
        );
        let receipt = send(&site, MONITOR, FrameKind::Envelope, body.as_bytes()).await;
        assert!(matches!(receipt.entries[0], EntryOutcome::Committed { .. }), "{receipt:?}");
    }
    let shown =
        tokio::time::timeout(std::time::Duration::from_secs(20), strips.recv()).await.unwrap().unwrap();
    assert_eq!(shown.samples, [2, 2], "the first that is shown is the one of now");
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_starts_although_assignments_overlap() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    let ended = clinical_model::Assignment {
        interval: Interval::between(Timestamp::from_seconds(START_S), Timestamp::from_seconds(START_S + 9)),
        ..assignment(9, MONITOR, Timestamp::from_seconds(START_S))
    };
    let writes = vec![pipeline::records::assignment_write(&ended, store::Expected::Absent)];
    let at = site.clock().now();
    site.store().transact(&store::Transaction { at, writes, ..store::Transaction::default() }).unwrap();
    site.stop();
    drop(site);
    let site = open(directory.path(), clock);
    let kept: Vec<_> = site.registry().assignments(MONITOR).iter().map(|one| one.id).collect();
    assert_eq!(kept, [assignment(1, MONITOR, Timestamp::MIN).id], "the one that was there first");
    heart_rate(&site, 70).await;
    assert_eq!(latest(&site), [("heart_rate".to_owned(), "70".to_owned())]);
    site.stop();
}
