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

#[test]
fn a_sequence_without_an_identifier_is_refused_and_never_poisons_the_chart() {
    let sequenced = |sequence| {
        let Decoded::Scalar(one) = scalar(measure::HEART_RATE, "72", "/min", received_plus(0)) else {
            panic!("not a scalar")
        };
        validate(Decoded::Scalar(DecodedScalar { sequence, ..one }), &site())
    };
    assert!(sequenced(SEQUENCE_LIMIT).is_ok());
    for sequence in [SEQUENCE_LIMIT + 1, u32::MAX] {
        assert_eq!(sequenced(sequence), Err(Rejection::Sequence { sequence }));
    }
    let event = DecodedEvent {
        measure: measure::DEVICE_ALARM,
        time: received_plus(0),
        sequence: u32::MAX,
        amount: None,
        text: None,
    };
    assert_eq!(validate(Decoded::Event(event), &site()).unwrap_err().reason(), QuarantineReason::Impossible);
}

fn curve(start: DeviceTime, rate: (u32, u32), gain: &str, unit: &str, samples: usize) -> DecodedWaveform {
    DecodedWaveform {
        measure: measure::ECG_II,
        time: start,
        rate_numerator: rate.0,
        rate_denominator: rate.1,
        unit: unit.into(),
        gain: gain.parse().unwrap(),
        offset: Decimal::from_integer(0),
        samples: vec![1; samples],
        findings: Findings::empty(),
    }
}

#[test]
fn a_block_of_a_curve_neither_spans_years_nor_reaches_into_the_future() {
    let at = received_plus(-10);
    let taken = |curve| validate(Decoded::Waveform(curve), &site());
    assert!(taken(curve(at, (250, 1), "0.005", "mV", 2_500)).is_ok());
    for rate in [(1, u32::MAX), (1, 1_000_000_000), (1, 3_600)] {
        let refused = taken(curve(at, rate, "0.005", "mV", 3)).unwrap_err();
        assert_eq!(refused.reason(), QuarantineReason::Impossible, "{rate:?}");
    }
    let future = taken(curve(at, (1, 1), "0.005", "mV", 1_000)).unwrap_err();
    assert_eq!(future.reason(), QuarantineReason::Clock);
}

#[test]
fn a_gain_that_draws_nothing_is_refused_after_conversion_too() {
    let at = received_plus(-10);
    for (gain, unit) in [("0", "mV"), ("1e30", "mV"), ("1e-30", "mV"), ("0.0001", "nV")] {
        let refused = validate(Decoded::Waveform(curve(at, (250, 1), gain, unit, 5)), &site()).unwrap_err();
        assert_eq!(refused.reason(), QuarantineReason::Impossible, "{gain} {unit}");
    }
}

#[test]
fn a_block_over_a_change_of_assignment_is_charted_to_nobody() {
    struct Moved(Site);
    impl Context for Moved {
        fn device(&self) -> &Device {
            &self.0.device
        }
        fn received_at(&self) -> Timestamp {
            self.0.received_at
        }
        fn delivery(&self) -> Delivery {
            self.0.delivery
        }
        fn subject_at(&self, at: Timestamp) -> Option<Subject> {
            let second = Timestamp::from_seconds(RECEIVED_S - 30) <= at;
            Some(Subject::Patient(if second { PatientId::from_bytes([7; 16]) } else { PATIENT }))
        }
        fn previous(&self, _: &SeriesKey) -> Option<(Timestamp, Decimal)> {
            None
        }
    }
    let moved = Moved(site());
    let from = |start_s, samples| {
        validate(Decoded::Waveform(curve(received_plus(start_s), (1, 1), "0.005", "mV", samples)), &moved)
    };
    assert!(from(-60, 30).is_ok(), "the last sample is a second before the change");
    assert_eq!(from(-60, 31).unwrap_err().reason(), QuarantineReason::Impossible);
    assert!(from(-30, 20).is_ok());
}

/// What nurses read in quarantine: the name and the unit that people use, not those of machines.
#[test]
fn an_impossible_value_is_said_in_the_words_of_people() {
    let value = Decimal::new(0, 0).unwrap();
    let text = Rejection::Impossible { measure: crate::measure::BODY_TEMPERATURE, value }.to_string();
    assert_eq!(text, "Body temperature cannot be 0 °C (10 to 50 are possible)");
}
