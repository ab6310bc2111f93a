//! Alarms over committed readings: raised once, answered by people, ended by the condition, kept over a restart.

use clinical_analytics::Limit;
use clinical_model::{Alert, AlertKind, AlertState, Priority, measure};
use pipeline::Site;
use pipeline::audited::Act;
use pipeline::desk::DeskError;
use pipeline::live::{Happening, Since};
use store::{Actor, AuditAction};

use crate::site::{MONITOR, NURSE, PATIENT, SetClock, eventually, furnish, heart_rate, open};

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
    crate::site::send(&site, MONITOR, clinical_model::FrameKind::Envelope, body).await;
    eventually("raised", || !open_alerts(&site).is_empty()).await;
    assert_eq!(pipeline::alarms::describe(&open_alerts(&site)[0]), "Battery 9 %");
    site.stop();
}
