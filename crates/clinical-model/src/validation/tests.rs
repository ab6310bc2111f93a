//! Cases for validation: what is kept with which findings, and what is refused why.

use super::*;
use crate::id::{DeviceId, PatientId};

struct Site {
    device: Device,
    received_at: Timestamp,
    assigned_from: Option<Timestamp>,
    previous: Option<(Timestamp, Decimal)>,
    delivery: Delivery,
}

const PATIENT: PatientId = PatientId::from_bytes([1; 16]);
const RECEIVED_S: i64 = 1_795_332_600;

fn site() -> Site {
    Site {
        device: Device {
            id: DeviceId::from_bytes([2; 16]),
            name: "Monitor".into(),
            kind: "bedside monitor".into(),
            manufacturer: "Test".into(),
            model: "T1".into(),
            serial: "1".into(),
            clock: ClockRule::Trust,
            utc_offset_min: 0,
            expected_interval_s: None,
            retired: false,
        },
        received_at: Timestamp::from_seconds(RECEIVED_S),
        assigned_from: Some(Timestamp::from_seconds(0)),
        previous: None,
        delivery: Delivery::AtLeastOnce,
    }
}

impl Context for Site {
    fn device(&self) -> &Device {
        &self.device
    }
    fn received_at(&self) -> Timestamp {
        self.received_at
    }
    fn delivery(&self) -> Delivery {
        self.delivery
    }
    fn subject_at(&self, at: Timestamp) -> Option<Subject> {
        self.assigned_from.filter(|from| *from <= at).map(|_| Subject::Patient(PATIENT))
    }
    fn previous(&self, _: &SeriesKey) -> Option<(Timestamp, Decimal)> {
        self.previous
    }
}

fn scalar(measure: Measure, value: &str, unit: &str, time: DeviceTime) -> Decoded {
    Decoded::Scalar(DecodedScalar {
        measure,
        value: DecodedValue::Number(value.parse().unwrap()),
        unit: unit.into(),
        time,
        sequence: 0,
        findings: Findings::empty(),
    })
}

fn received_plus(seconds: i64) -> DeviceTime {
    DeviceTime::Utc(Timestamp::from_seconds(RECEIVED_S + seconds))
}

fn check(site: &Site, decoded: Decoded, value: &str, findings: Findings) -> Reading {
    let Fact::Reading(reading) = validate(decoded, site).unwrap() else { panic!("not a reading") };
    assert_eq!(reading.value().number().unwrap().to_string(), value);
    assert_eq!(reading.findings(), findings);
    reading
}

#[test]
fn a_plain_reading_has_no_findings() {
    let reading =
        check(&site(), scalar(measure::HEART_RATE, "72", "/min", received_plus(-1)), "72", Findings::empty());
    assert_eq!(reading.series().subject, Subject::Patient(PATIENT));
    assert_eq!(reading.measured_at(), Timestamp::from_seconds(RECEIVED_S - 1));
}

#[test]
fn odd_is_kept_with_findings() {
    let site = site();
    check(&site, scalar(measure::HEART_RATE, "12", "/min", received_plus(0)), "12", Findings::OUTSIDE_USUAL);
    check(
        &site,
        scalar(measure::BODY_TEMPERATURE, "98.6", "[degF]", received_plus(0)),
        "37.0",
        Findings::UNIT_CONVERTED,
    );
    check(&site, scalar(measure::HEART_RATE, "72", "/min", received_plus(60)), "72", Findings::CLOCK_AHEAD);
    check(&site, scalar(measure::HEART_RATE, "72", "/min", received_plus(-3_600)), "72", Findings::LATE);
    check(
        &site,
        scalar(measure::HEART_RATE, "72", "/min", DeviceTime::Unknown),
        "72",
        Findings::TIME_RECEIVED,
    );
}

#[test]
fn fast_change_is_remarked_against_the_neighbour() {
    let mut site = site();
    site.previous = Some((Timestamp::from_seconds(RECEIVED_S - 10), Decimal::from_integer(60)));
    check(&site, scalar(measure::HEART_RATE, "120", "/min", received_plus(0)), "120", Findings::FAST_CHANGE);
    check(&site, scalar(measure::HEART_RATE, "70", "/min", received_plus(0)), "70", Findings::empty());
    site.previous = Some((Timestamp::from_seconds(RECEIVED_S - 3_600), Decimal::from_integer(60)));
    check(&site, scalar(measure::HEART_RATE, "180", "/min", received_plus(0)), "180", Findings::empty());
}

#[test]
fn local_clocks_use_the_devices_zone_and_rule() {
    let mut site = site();
    site.device.utc_offset_min = 60;
    let local = DeviceTime::Local(Timestamp::from_seconds(RECEIVED_S + 3_600));
    let reading = check(&site, scalar(measure::HEART_RATE, "72", "/min", local), "72", Findings::empty());
    assert_eq!(reading.measured_at(), Timestamp::from_seconds(RECEIVED_S));
    site.device.clock = ClockRule::Shift { seconds: -86_400 };
    let tomorrow = received_plus(86_400);
    check(&site, scalar(measure::HEART_RATE, "72", "/min", tomorrow), "72", Findings::CLOCK_CORRECTED);
    site.device.clock = ClockRule::UseReceived;
    check(&site, scalar(measure::HEART_RATE, "72", "/min", tomorrow), "72", Findings::TIME_RECEIVED);
}

#[test]
fn impossible_is_refused_with_its_reason() {
    let mut site = site();
    let reason = |site: &Site, decoded| validate(decoded, site).unwrap_err().reason();
    let at = received_plus(0);
    assert_eq!(reason(&site, scalar(measure::HEART_RATE, "900", "/min", at)), QuarantineReason::Impossible);
    assert_eq!(reason(&site, scalar(measure::HEART_RATE, "72", "kg", at)), QuarantineReason::Unit);
    assert_eq!(
        reason(&site, scalar(measure::HEART_RATE, "72", "/min", received_plus(301))),
        QuarantineReason::Clock
    );
    let long_ago = DeviceTime::Utc(Timestamp::from_seconds(0));
    assert_eq!(reason(&site, scalar(measure::HEART_RATE, "72", "/min", long_ago)), QuarantineReason::Clock);
    site.assigned_from = None;
    assert_eq!(reason(&site, scalar(measure::HEART_RATE, "72", "/min", at)), QuarantineReason::Unassigned);
    let battery = validate(scalar(measure::BATTERY_LEVEL, "80", "%", at), &site).unwrap();
    assert_eq!(battery.series().subject, Subject::Device(site.device.id));
}

#[test]
fn demonstration_data_is_never_charted() {
    let Decoded::Scalar(mut demo) = scalar(measure::OXYGEN_SATURATION, "98", "%", received_plus(0)) else {
        return;
    };
    demo.findings = Findings::DEMONSTRATION;
    assert_eq!(validate(Decoded::Scalar(demo), &site()), Err(Rejection::Demonstration));
}
