//! Alarms over committed readings: raised once, answered by people, ended by the condition, kept over a restart.

use clinical_analytics::Limit;
use clinical_model::{
    Alert, AlertKind, AlertState, FrameKind, Interval, Patient, PatientId, Priority, Private, Subject,
    Timestamp, measure,
};
use pipeline::Site;
use pipeline::audited::Act;
use pipeline::desk::DeskError;
use pipeline::live::{Happening, Since};
use store::{Actor, AuditAction};

use crate::site::{
    MONITOR, NURSE, PATIENT, START_S, SetClock, assignment, eventually, furnish, heart_rate, open, send,
};

fn open_alerts(site: &Site) -> Vec<Alert> {
    let act = Act::new(Actor::System, AuditAction::Read, "Alert");
    site.read(act, |chart| Ok(chart.open_alerts())).unwrap()
}

fn limit() -> Limit {
    Limit {
        measure: measure::HEART_RATE,
        low: Some(40.0),
        high: Some(120.0),
        priority: Priority::High,
        persistence_s: 2,
        hysteresis: 3.0,
    }
}

async fn tachycardia(site: &Site, clock: &SetClock) {
    for _ in 0..3 {
        heart_rate(site, 134).await;
        clock.advance(1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_raised_once_acknowledged_and_ends_with_its_condition() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    site.set_limits(Actor::User(NURSE), PATIENT, vec![limit()]).unwrap();
    tachycardia(&site, &clock).await;
    eventually("raised", || !open_alerts(&site).is_empty()).await;
    heart_rate(&site, 135).await;
    let alert = open_alerts(&site).remove(0);
    assert_eq!(open_alerts(&site).len(), 1);
    assert_eq!(pipeline::alarms::describe(&alert), "HR 134 > 120 /min");
    assert!(alert.condition_active);

    let answered = site.acknowledge(NURSE, alert.id, Some("at the bed".into())).unwrap();
    assert_eq!(answered.steps[1].by, Some(NURSE));
    assert!(matches!(site.acknowledge(NURSE, alert.id, None), Err(DeskError::Alert(_))));
    clock.advance(1);
    heart_rate(&site, 80).await;
    eventually("ended", || open_alerts(&site).is_empty()).await;
    let act = Act::new(Actor::System, AuditAction::Read, "Alert");
    let kept = site.read(act, |chart| chart.alert(alert.id)).unwrap().unwrap();
    assert_eq!(kept.state, AlertState::Resolved);
    assert!(matches!(site.resolve(NURSE, alert.id, None), Err(DeskError::Alert(_))));

    let Since::Events(events) = site.live().since(0) else { panic!("lost") };
    let states: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.happening {
            Happening::Alert(alert) => Some(alert.state),
            _ => None,
        })
        .collect();
    assert_eq!(states, [AlertState::Raised, AlertState::Acknowledged, AlertState::Resolved]);
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_alarm_survives_a_restart_and_is_not_raised_again() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    site.set_limits(Actor::User(NURSE), PATIENT, vec![limit()]).unwrap();
    tachycardia(&site, &clock).await;
    eventually("raised", || !open_alerts(&site).is_empty()).await;
    let before = open_alerts(&site);
    site.stop();
    drop(site);

    let site = open(directory.path(), clock.clone());
    assert_eq!(open_alerts(&site), before);
    tachycardia(&site, &clock).await;
    heart_rate(&site, 70).await;
    eventually("condition ended", || open_alerts(&site).iter().all(Alert::is_latched)).await;
    let after = open_alerts(&site);
    assert_eq!(after.len(), 1, "the same alert, latched: nobody has seen it");
    assert_eq!(after[0].id, before[0].id);
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_connection_was_lost_is_back_when_it_sends_another_way() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    let intake = site.intake().unwrap();
    intake.device_status(MONITOR, true);
    heart_rate(&site, 70).await;
    clock.advance(5);
    intake.device_status(MONITOR, false);
    // What was on its way when the connection went does not bring it back.
    heart_rate(&site, 71).await;
    let now = || Some(site.clock().now());
    eventually("heard", || site.live().heard(MONITOR).last_heard_at == now()).await;
    assert_eq!(site.live().heard(MONITOR).connected, Some(false));
    let seen = site.live().position();
    clock.advance(5);
    heart_rate(&site, 72).await;
    eventually("back", || site.live().heard(MONITOR).connected.is_none()).await;
    let is_told = |event: &std::sync::Arc<pipeline::live::LiveEvent>| matches!(event.happening, pipeline::live::Happening::Device(device) if device == MONITOR);
    eventually("told", || {
        let pipeline::live::Since::Events(events) = site.live().since(seen) else { panic!("all are kept") };
        events.iter().any(is_told)
    })
    .await;
    drop(intake);
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_device_is_itself_an_alert_and_ends_when_it_is_heard() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    heart_rate(&site, 70).await;
    eventually("heard", || site.live().heard(MONITOR).last_heard_at.is_some()).await;
    clock.advance(36);
    eventually("silent", || !open_alerts(&site).is_empty()).await;
    let alert = open_alerts(&site).remove(0);
    assert!(matches!(alert.what, AlertKind::DeviceSilent { last_heard_at: Some(_) }), "{alert:?}");
    assert!(site.live().heard(MONITOR).silent);
    heart_rate(&site, 70).await;
    eventually("heard again", || open_alerts(&site).iter().all(Alert::is_latched)).await;
    assert!(!site.live().heard(MONITOR).silent);
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_low_battery_is_an_alert_about_the_device() {
    let directory = tempfile::tempdir().unwrap();
    let site = open(directory.path(), SetClock::new());
    furnish(&site);
    let body = br#"{"measure":"battery_level","value":9,"unit":"%"}"#;
    send(&site, MONITOR, FrameKind::Envelope, body).await;
    eventually("raised", || !open_alerts(&site).is_empty()).await;
    assert_eq!(pipeline::alarms::describe(&open_alerts(&site)[0]), "Battery 9 %");
    site.stop();
}

/// An alarm of the monitor itself, so many seconds ago.
async fn device_alarm(site: &Site, text: &str, ago_s: i64) {
    let at = site.clock().now().plus_micros(-ago_s * 1_000_000);
    let body = format!(r#"{{"event":"device_alarm","text":"{text}","time":"{at}"}}"#);
    send(site, MONITOR, FrameKind::Envelope, body.as_bytes()).await;
}

fn texts(site: &Site) -> Vec<(String, bool)> {
    let mut open: Vec<_> = open_alerts(site)
        .iter()
        .filter_map(|alert| match &alert.what {
            AlertKind::DeviceAlarm { text } => Some((text.clone(), alert.condition_active)),
            _ => None,
        })
        .collect();
    open.sort();
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_of_a_device_does_not_hide_another_nor_its_own_return() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    device_alarm(&site, "lead off", 0).await;
    eventually("first", || texts(&site).len() == 1).await;
    let first = open_alerts(&site).remove(0);
    site.acknowledge(NURSE, first.id, None).unwrap();
    clock.advance(5);
    device_alarm(&site, "asystole", 0).await;
    eventually("second", || texts(&site).len() == 2).await;
    clock.advance(5);
    device_alarm(&site, "lead off", 0).await;
    eventually("again", || open_alerts(&site).iter().all(|alert| alert.state == AlertState::Raised)).await;
    assert_eq!(texts(&site), [("asystole".to_owned(), true), ("lead off".to_owned(), true)]);
    assert!(open_alerts(&site).iter().all(|alert| alert.id != first.id), "the acknowledged one is over");
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_alarm_of_a_device_says_when_and_is_not_shown_as_going_on() {
    let directory = tempfile::tempdir().unwrap();
    let site = open(directory.path(), SetClock::new());
    furnish(&site);
    device_alarm(&site, "yesterday", 86_000).await;
    device_alarm(&site, "occlusion", 600).await;
    eventually("raised", || !texts(&site).is_empty()).await;
    let happened = Timestamp::from_seconds(START_S - 600);
    assert_eq!(texts(&site), [(format!("occlusion (happened at {happened})"), false)]);
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_said_about_one_patient_does_not_hide_what_it_says_about_the_next() {
    const OTHER: PatientId = PatientId::from_bytes([0x21; 16]);
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    let known = site.registry().patient(PATIENT).unwrap();
    let record_number = Private::new("MRN-2".into());
    let other = Patient { id: OTHER, record_number, place: None, ..Patient::clone(&known) };
    site.add_patient(Actor::System, other).unwrap();
    device_alarm(&site, "apnoea", 0).await;
    clock.advance(36);
    eventually("alarm and silence", || open_alerts(&site).len() == 2).await;

    let now = site.clock().now();
    let held = site.registry().assignment_at(MONITOR, now).unwrap();
    site.end_assignment(Actor::User(NURSE), held.id, now).unwrap();
    let next = clinical_model::Assignment {
        subject: Subject::Patient(OTHER),
        interval: Interval::since(now),
        ..assignment(2, MONITOR, now)
    };
    site.assign(Actor::User(NURSE), next).unwrap();
    clock.advance(1);
    device_alarm(&site, "apnoea", 0).await;
    let about = |site: &Site, patient| {
        open_alerts(site).iter().filter(|alert| alert.subject == Subject::Patient(patient)).count()
    };
    eventually("about the next", || about(&site, OTHER) == 1).await;
    clock.advance(36);
    eventually("silent about the next", || about(&site, OTHER) == 2).await;
    assert_eq!(about(&site, PATIENT), 2, "nobody has seen those");
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_goes_on_after_its_alert_was_closed_is_an_alert_again() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    site.set_limits(Actor::User(NURSE), PATIENT, vec![limit()]).unwrap();
    tachycardia(&site, &clock).await;
    eventually("raised", || !open_alerts(&site).is_empty()).await;
    let closed = site.resolve(NURSE, open_alerts(&site)[0].id, None).unwrap();
    assert!(open_alerts(&site).is_empty());
    tachycardia(&site, &clock).await;
    eventually("raised again", || !open_alerts(&site).is_empty()).await;
    assert_ne!(open_alerts(&site)[0].id, closed.id);
    site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_hides_neither_a_silence_nor_a_value() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    site.set_limits(Actor::User(NURSE), PATIENT, vec![limit()]).unwrap();
    heart_rate(&site, 70).await;
    eventually("heard", || site.live().heard(MONITOR).last_heard_at.is_some()).await;
    clock.advance(-3_000);
    tachycardia(&site, &clock).await;
    eventually("raised", || !open_alerts(&site).is_empty()).await;
    let latest = site
        .read(Act::new(Actor::System, AuditAction::Read, "Patient").patient(PATIENT), |chart| {
            chart.latest(Subject::Patient(PATIENT))
        })
        .unwrap();
    assert_eq!(
        latest[0].readings[0].value().number().unwrap().to_string(),
        "134",
        "not the one of the future"
    );
    clock.advance(36);
    eventually("silent", || open_alerts(&site).len() == 2).await;
    site.stop();
}

/// One heart rate measured `age_s` seconds ago.
async fn heart_rate_of_before(site: &Site, age_s: u64) {
    let at = site.clock().now().minus(std::time::Duration::from_secs(age_s));
    let body = format!(r#"{{"measure":"heart_rate","value":180,"time":"{at}"}}"#);
    crate::site::send(site, MONITOR, clinical_model::FrameKind::Envelope, body.as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_whose_clock_is_behind_is_itself_an_alert() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::new();
    let site = open(directory.path(), clock.clone());
    furnish(&site);
    heart_rate(&site, 70).await;
    // What was stored while the link was lost is no alert, as long as something new follows.
    for _ in 0..5 {
        clock.advance(5);
        heart_rate_of_before(&site, 600).await;
    }
    heart_rate(&site, 70).await;
    for _ in 0..12 {
        assert!(open_alerts(&site).is_empty());
        clock.advance(5);
        heart_rate_of_before(&site, 600).await;
    }
    eventually("raised", || !open_alerts(&site).is_empty()).await;
    let alert = open_alerts(&site).remove(0);
    assert!(matches!(alert.what, AlertKind::DataLate { .. }), "{alert:?}");
    assert_eq!(alert.priority, Priority::Medium);
    site.acknowledge(NURSE, alert.id, None).unwrap();
    heart_rate(&site, 70).await;
    eventually("new data ends it", || open_alerts(&site).is_empty()).await;
    site.stop();
}
