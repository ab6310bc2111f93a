//! What hangs on a value follows its correction, and the first of two values under one identity stands on screens too.

use clinical_model::measure::{HEART_RATE, SYSTOLIC};
use clinical_model::{Decimal, Findings, FrameKind, SeriesKey, Subject, Timestamp, Value};
use pipeline::audited::Act;
use pipeline::corrections::{CorrectError, CorrectedStatus, NewCorrection};
use pipeline::live::{Happening, Since};
use pipeline::search::Position;
use pipeline::{EntryOutcome, Site};
use store::{Actor, AuditAction, Order, RangeQuery};

use crate::site::{MONITOR, NURSE, PATIENT, SetClock, eventually, furnish, open, send};

fn act() -> Act {
    Act::new(Actor::User(NURSE), AuditAction::Update, "Observation").patient(PATIENT)
}

/// A value of a measure, measured now; where it stands.
async fn measured(site: &Site, measure: &str, unit: &str, value: u32) -> Position {
    let now = site.clock().now();
    let body = format!(r#"{{"measure":"{measure}","value":{value},"unit":"{unit}","time":"{now}"}}"#);
    let receipt = send(site, MONITOR, FrameKind::Envelope, body.as_bytes()).await;
    let EntryOutcome::Committed { facts } = &receipt.entries[0] else { panic!("{receipt:?}") };
    let series = pipeline::corrections::address_of(facts[0].series);
    Position { at: facts[0].at, series, sequence: facts[0].sequence }
}

fn entered_in_error() -> NewCorrection {
    NewCorrection { status: CorrectedStatus::EnteredInError, withdrawn: false, values: vec![], reason: None }
}

fn heart_rate_of(value: i32) -> NewCorrection {
    let values = vec![(HEART_RATE, Value::Number(Decimal::from_integer(value)))];
    NewCorrection { status: CorrectedStatus::Corrected, withdrawn: false, values, reason: None }
}

fn current(site: &Site) -> Vec<(Option<String>, Findings)> {
    let series = site.read(act(), |chart| chart.current(Subject::Patient(PATIENT))).unwrap();
    series
        .iter()
        .filter(|reading| reading.series().measure == HEART_RATE)
        .map(|reading| (reading.value().number().map(|value| value.to_string()), reading.findings()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_ends_when_the_value_that_raised_it_was_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    for is_error in [true, false] {
        clock.advance(60);
        let wrong = measured(&site, "systolic", "mm[Hg]", 212).await;
        let open_alerts = || site.live_chart(|chart| chart.open_alerts());
        eventually("raised", || open_alerts().iter().any(|alert| alert.condition_active)).await;
        let systolic = |value| vec![(SYSTOLIC, Value::Number(Decimal::from_integer(value)))];
        let still_high = NewCorrection { values: systolic(211), ..heart_rate_of(0) };
        site.correct(act(), &wrong, 1, &still_high).unwrap();
        assert!(open_alerts().iter().any(|alert| alert.condition_active), "211 is too high as well");
        let right = NewCorrection { values: systolic(112), ..heart_rate_of(0) };
        let put_right = if is_error { entered_in_error() } else { right };
        site.correct(act(), &wrong, 2, &put_right).unwrap();
        // Nobody has seen it yet: it stays until somebody does, and no longer holds.
        let alerts = open_alerts();
        assert_eq!((alerts.len(), alerts[0].condition_active), (1, false), "{alerts:?}");
        site.acknowledge(NURSE, alerts[0].id, None).unwrap();
        assert!(open_alerts().is_empty());
    }
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn corrections_survive_a_restart_and_a_fold() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    measured(&site, "heart_rate", "/min", 70).await;
    clock.advance(10);
    let second = measured(&site, "heart_rate", "/min", 71).await;
    clock.advance(10);
    let third = measured(&site, "heart_rate", "/min", 172).await;
    site.correct(act(), &third, 1, &entered_in_error()).unwrap();
    site.correct(act(), &second, 1, &heart_rate_of(75)).unwrap();
    assert!(matches!(
        site.correct(act(), &second, 1, &heart_rate_of(76)),
        Err(CorrectError::Changed { expected: 1 })
    ));
    let expected = vec![(Some("75".to_owned()), Findings::CORRECTED)];
    assert_eq!(current(&site), expected);
    site.fold_now().unwrap();
    assert_eq!(current(&site), expected);
    site.stop();
    drop(site);
    let site = open(directory.path(), clock);
    assert_eq!(current(&site), expected);
    let range = RangeQuery { from: Timestamp::MIN, to: Timestamp::MAX, order: Order::Descending, limit: 10 };
    let series = SeriesKey { measure: HEART_RATE, ..second.series };
    let all = site.read(act(), |chart| chart.observations(&series, &range)).unwrap();
    let seen: Vec<_> = all.iter().map(|one| one.readings[0].value().number().unwrap().to_string()).collect();
    assert_eq!(seen, ["172", "75", "70"]);
    let versions = site.read(act(), |chart| chart.corrections_of(&second)).unwrap();
    assert_eq!(versions.iter().map(|version| version.version).collect::<Vec<_>>(), [2]);
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screen_goes_on_showing_the_first_of_two_values_under_one_identity() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    for value in [70, 80, 70] {
        measured(&site, "heart_rate", "/min", value).await;
    }
    clock.advance(1);
    measured(&site, "heart_rate", "/min", 71).await;
    let vitals = || {
        let Since::Events(events) = site.live().since(0) else { return Vec::new() };
        let shown = events.iter().filter_map(|event| match &event.happening {
            Happening::Vitals { readings, .. } => Some(readings.clone()),
            _ => None,
        });
        shown
            .flatten()
            .map(|reading| (reading.value().number().unwrap().to_string(), reading.findings()))
            .collect()
    };
    eventually("three shown", || vitals().len() == 3).await;
    let (values, findings): (Vec<_>, Vec<_>) = vitals().into_iter().unzip();
    assert_eq!(values, ["70", "70", "71"], "the repeat of what was shown is no news");
    assert_eq!(findings, [Findings::empty(), Findings::CONFLICT, Findings::empty()]);
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_after_it_was_put_right_is_neither_shown_nor_an_alarm() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    let at = site.clock().now();
    let wrong = measured(&site, "systolic", "mm[Hg]", 212).await;
    let active = || {
        let alerts = site.live_chart(|chart| chart.open_alerts());
        alerts.iter().filter(|alert| alert.condition_active).count()
    };
    eventually("raised", || active() == 1).await;
    site.correct(act(), &wrong, 1, &entered_in_error()).unwrap();
    assert_eq!(active(), 0);
    let position = site.live().position();
    let body = format!(r#"{{"measure":"systolic","value":212,"unit":"mm[Hg]","time":"{at}"}}"#);
    send(&site, MONITOR, FrameKind::Envelope, body.as_bytes()).await;
    clock.advance(1);
    measured(&site, "heart_rate", "/min", 71).await;
    let vitals = || {
        let Since::Events(events) = site.live().since(position) else { panic!("lost") };
        let shown = events.iter().filter_map(|event| match &event.happening {
            Happening::Vitals { readings, .. } => Some(readings.clone()),
            _ => None,
        });
        shown.flatten().map(|reading| reading.series().measure).collect::<Vec<_>>()
    };
    eventually("what came later is shown", || !vitals().is_empty()).await;
    assert_eq!(vitals(), [HEART_RATE]);
    assert_eq!(active(), 0, "the value that was an error raises nothing once more");
    site.stop();
}
