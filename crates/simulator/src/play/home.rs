//! The devices of a home: a measurement now and then, or a strap that sends all the time.

use std::sync::Arc;
use std::time::Duration;

use clinical_model::{DecodedValue, Timestamp};
use rustls::ClientConfig;
use tokio::time::{Instant, sleep, sleep_until};

use super::frames::{self, AirFrame, Moment};
use super::uplink::Uplink;
use super::{Stage, now};
use crate::hospital::{PlannedDevice, Role};
use crate::random::Random;
use crate::strip::Strip;

/// Shortest and longest pause between two measurements, in seconds.
const PAUSE_S: (f64, f64) = (20.0, 60.0);
/// Longest wait before the first measurement, in seconds.
const FIRST_S: f64 = 15.0;
/// Seconds between two frames of a strap.
const STRAP_EVERY_S: u64 = 5;

pub(super) async fn perform(stage: &Stage, planned: &PlannedDevice, tls: Arc<ClientConfig>) {
    let uplink = Uplink::open(stage, planned, &tls).await;
    if let Role::HeartRateStrap { record } = &planned.role {
        if let Some(strip) = stage.strips.get(record) {
            wear(stage, planned, &uplink, strip).await;
        }
        return;
    }
    let mut random = Random::for_part(stage.seed, &format!("measurements {}", planned.device.id));
    let mut pause_s = random.between(1.0, FIRST_S);
    loop {
        sleep(Duration::from_secs_f64(pause_s)).await;
        let Some(frame) = measure(planned, now(), &mut random) else { return };
        if !send(stage, planned, &uplink, frame).await {
            return;
        }
        pause_s = random.between(PAUSE_S.0, PAUSE_S.1);
    }
}

/// The frame of one measurement; `None` for a role that is no home device.
fn measure(planned: &PlannedDevice, now: Timestamp, random: &mut Random) -> Option<AirFrame> {
    let utc_offset_min = planned.device.utc_offset_min;
    let mut moment = Moment { now, utc_offset_min, trouble: planned.trouble, random };
    Some(match &planned.role {
        Role::Cuff(person) => frames::cuff(person, &mut moment),
        Role::SpotOximeter(person) => frames::spot_oximeter(person, &mut moment),
        Role::ContinuousOximeter(person) => frames::continuous_oximeter(person, &mut moment),
        Role::Thermometer(person) => frames::thermometer(person, &mut moment),
        Role::Scale(person) => frames::scale(person, &mut moment),
        Role::Telemetry { .. } | Role::Bedside { .. } | Role::HeartRateStrap { .. } => return None,
    })
}

async fn wear(stage: &Stage, planned: &PlannedDevice, uplink: &Uplink, strip: &Strip) {
    let began = Instant::now();
    let mut second = 0;
    loop {
        sleep_until(began + Duration::from_secs(second + STRAP_EVERY_S)).await;
        let seconds = second..second + STRAP_EVERY_S;
        second = seconds.end;
        // Skin contact is never lost here, but a pause of the heart has no rate.
        let DecodedValue::Number(rate) = strip.heart_rate(second - 1, now()).value else { continue };
        let intervals_s: Vec<f64> = seconds.flat_map(|s| strip.intervals_s(s)).collect();
        let frame = frames::strap(rate.to_f64() as u16, &intervals_s);
        if !send(stage, planned, uplink, frame).await {
            return;
        }
    }
}

async fn send(stage: &Stage, planned: &PlannedDevice, uplink: &Uplink, frame: AirFrame) -> bool {
    for frame in frame.troubled(planned.trouble) {
        if !uplink.send(&stage.progress, frame.kind, frame.bytes).await {
            return false;
        }
    }
    true
}
