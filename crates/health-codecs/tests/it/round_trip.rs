//! What we render, we read back: digits, unit, time, reason of absence, samples; for every measure.

use clinical_model::decoded::{DecodedEvent, DecodedValue};
use clinical_model::patient::Gender;
use clinical_model::reading::MISSING_SAMPLE;
use clinical_model::{
    Absent, ClockRule, Committed, Decimal, Decoded, Device, DeviceId, DeviceTime, Event, Findings, Measure,
    MeasureKind, Patient, PatientId, PlaceId, Private, Timestamp, Value, Waveform,
};
use health_codecs::fhir::observation::{EventInput, ObservationInput};
use health_codecs::fhir::sampled::SampledInput;
use health_codecs::fhir::{device, observation, patient, sampled, validate};
use proptest::prelude::*;

use crate::support::{DEVICE, PATIENT, at, lines, reading_at, series};

fn any_scalar() -> impl Strategy<Value = Measure> {
    let all: Vec<Measure> = Measure::all().filter(|measure| measure.is_scalar()).collect();
    prop::sample::select(all)
}

fn any_waveform() -> impl Strategy<Value = Measure> {
    let all: Vec<Measure> = Measure::all().filter(|measure| measure.kind == MeasureKind::Waveform).collect();
    prop::sample::select(all)
}

fn any_absent() -> impl Strategy<Value = Absent> {
    (1_u8..=5).prop_map(|number| Absent::from_number(number).expect("1 to 5"))
}

fn any_decimal() -> impl Strategy<Value = Decimal> {
    (-999_999_999_999_999_999_i64..=999_999_999_999_999_999, -12_i8..=2)
        .prop_map(|(mantissa, exponent)| Decimal::new(mantissa, exponent).expect("in range"))
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![any_decimal().prop_map(Value::Number), any_absent().prop_map(Value::Absent)]
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.as_micros()..Timestamp::MAX.as_micros()).prop_map(Timestamp::from_micros)
}

fn any_findings() -> impl Strategy<Value = Findings> {
    any::<u32>().prop_map(Findings::from_bits_truncate)
}

/// The digits that JSON writes: 20 for 2·10¹.
fn written(value: Value) -> DecodedValue {
    match value {
        Value::Number(number) => DecodedValue::Number(number.to_string().parse().expect("digits")),
        Value::Absent(absent) => DecodedValue::Absent(absent),
    }
}

proptest! {
    #[test]
    fn a_scalar_is_sound_and_comes_back(
        measure in any_scalar(),
        value in any_value(),
        measured_at in any_time(),
        sequence in any::<u32>(),
        findings in any_findings(),
    ) {
        let kept = reading_at(series(measure), measured_at, sequence, value, findings);
        let input = ObservationInput { id: "x".into(), readings: &[kept], panel: None, device_display: None };
        let resource = observation::render(&input);
        let issues = validate::resource(&resource);
        prop_assert!(issues.is_empty(), "{:#?}", lines(&issues));
        // Through text, as a client would send it.
        let text = resource.to_string();
        let foreign = observation::parse(&health_codecs::fhir::json::parse(text.as_bytes()).expect("JSON"));
        // A value of more than 18 written digits (12·10²) cannot come back; it is refused, never changed.
        let too_long = matches!(value, Value::Number(n) if n.to_string().parse::<Decimal>().is_err());
        if too_long {
            prop_assert!(foreign.is_err());
            return Ok(());
        }
        let foreign = foreign.map_err(|issues| TestCaseError::fail(format!("{:#?}", lines(&issues))))?;
        prop_assert_eq!(foreign.subject, Some(format!("Patient/{PATIENT}")));
        prop_assert_eq!(foreign.device, Some(format!("Device/{DEVICE}")));
        let [Decoded::Scalar(scalar)] = &foreign.decoded[..] else {
            return Err(TestCaseError::fail(format!("{:?}", foreign.decoded)));
        };
        prop_assert_eq!(scalar.measure, measure);
        prop_assert_eq!(scalar.value, written(value));
        prop_assert_eq!(&scalar.unit, measure.unit);
        prop_assert_eq!(scalar.time, DeviceTime::Utc(measured_at));
        prop_assert_eq!(scalar.sequence, sequence);
        prop_assert!(scalar.findings.contains(Findings::FROM_PROGRAM));
    }

    #[test]
    fn a_panel_is_sound_and_comes_back(
        arterial in any::<bool>(),
        values in prop::collection::vec(prop::option::of((0_i64..99_999, -2_i8..=0)), 3),
        findings in any_findings(),
    ) {
        let panel = if arterial {
            clinical_model::measure::ARTERIAL_PRESSURE
        } else {
            clinical_model::measure::BLOOD_PRESSURE
        };
        let measured_at = at("2026-11-22T10:15:30.250Z");
        let readings: Vec<_> = panel
            .components()
            .into_iter()
            .zip(values)
            .filter_map(|(measure, value)| Some((measure, value?)))
            .map(|(measure, (mantissa, exponent))| {
                let value = Value::Number(Decimal::new(mantissa, exponent).expect("small"));
                reading_at(series(measure), measured_at, 0, value, findings)
            })
            .collect();
        prop_assume!(!readings.is_empty());
        let input =
            ObservationInput { id: "x".into(), readings: &readings, panel: Some(panel), device_display: None };
        let resource = observation::render(&input);
        let issues = validate::resource(&resource);
        prop_assert!(issues.is_empty(), "{:#?}", lines(&issues));
        let foreign = observation::parse(&resource).expect("it is sound");
        for kept in &readings {
            let found = foreign.decoded.iter().any(|decoded| matches!(decoded, Decoded::Scalar(scalar)
                if scalar.measure == kept.series().measure && scalar.value == written(kept.value())));
            prop_assert!(found, "{kept:?} in {:?}", foreign.decoded);
        }
    }

    #[test]
    fn a_waveform_comes_back(
        measure in any_waveform(),
        rate in prop_oneof![Just((250_u32, 1_u32)), Just((360, 1)), Just((125, 2)), (1_u32..20_000, 1_u32..50)],
        gain in (1_i64..100_000, -8_i8..=0),
        offset in (-100_000_i64..100_000, -8_i8..=0),
        samples in prop::collection::vec(any::<i16>(), 1..40),
        start in any_time(),
    ) {
        let waveform = Waveform {
            series: series(measure),
            start,
            received_at: start,
            rate_numerator: rate.0,
            rate_denominator: rate.1,
            gain: Decimal::new(gain.0, gain.1).expect("small"),
            offset: Decimal::new(offset.0, offset.1).expect("small"),
            samples: samples.clone(),
            findings: Findings::empty(),
        };
        let kept = Committed::restored(waveform.clone(), start, 0);
        let resource =
            sampled::render(&SampledInput { id: "w".into(), blocks: &[kept], device_display: None });
        let issues = validate::resource(&resource);
        prop_assert!(issues.is_empty(), "{:#?}", lines(&issues));
        let foreign = observation::parse(&resource).map_err(|e| TestCaseError::fail(format!("{:#?}", lines(&e))))?;
        let [Decoded::Waveform(read)] = &foreign.decoded[..] else {
            return Err(TestCaseError::fail(format!("{:?}", foreign.decoded)));
        };
        prop_assert_eq!(read.measure, measure);
        prop_assert_eq!(&read.samples, &samples);
        prop_assert_eq!((read.gain, read.offset), (waveform.gain, waveform.offset));
        prop_assert_eq!(&read.unit, measure.unit);
        prop_assert_eq!(read.time, DeviceTime::Utc(start));
        // The same rate, perhaps in lower terms.
        let (n, d) = (u64::from(read.rate_numerator), u64::from(read.rate_denominator));
        prop_assert_eq!(n * u64::from(rate.1), d * u64::from(rate.0));
    }

    #[test]
    fn joined_blocks_keep_every_sample_within_half_a_period(
        gaps_us in prop::collection::vec(0_i64..30_000_000, 1..12),
        lengths in prop::collection::vec(1_usize..60, 12),
    ) {
        let mut start = at("2026-11-22T10:00:00Z");
        let mut blocks = Vec::new();
        let mut next: i16 = 0;
        for (gap, length) in gaps_us.iter().zip(&lengths) {
            start = start.plus_micros(*gap);
            let samples: Vec<i16> = (0..*length).map(|_| { next += 1; next }).collect();
            let mut kept = crate::support::block(clinical_model::measure::ECG, "2026-11-22T10:00:00Z", samples)
                .get()
                .clone();
            kept.start = start;
            start = kept.end();
            blocks.push(Committed::restored(kept, start, 0));
        }
        let resource =
            sampled::render(&SampledInput { id: "w".into(), blocks: &blocks, device_display: None });
        let foreign = observation::parse(&resource).map_err(|e| TestCaseError::fail(format!("{:#?}", lines(&e))))?;
        let mut read = Vec::new();
        for decoded in &foreign.decoded {
            let Decoded::Waveform(wave) = decoded else { return Err(TestCaseError::fail("no waveform")) };
            let DeviceTime::Utc(first) = wave.time else { return Err(TestCaseError::fail("no time")) };
            for (index, sample) in wave.samples.iter().enumerate().filter(|(_, s)| **s != MISSING_SAMPLE) {
                read.push((first.plus_micros(index as i64 * 4_000), *sample));
            }
        }
        let sent = blocks.iter().flat_map(|block| {
            block.samples.iter().enumerate().map(|(i, s)| (block.start.plus_micros(block.offset_micros(i)), *s))
        });
        let sent: Vec<(Timestamp, i16)> = sent.collect();
        prop_assert_eq!(sent.len(), read.len());
        for ((sent_at, sent), (read_at, read)) in sent.iter().zip(&read) {
            prop_assert_eq!(sent, read);
            prop_assert!(sent_at.micros_since(*read_at).abs() <= 2_000, "{sent_at} {read_at}");
        }
    }

    #[test]
    fn a_device_comes_back(
        texts in prop::collection::vec("([A-Za-zäö0-9][A-Za-z 0-9/.-]{0,20})?", 5),
        clock in prop_oneof![
            Just(ClockRule::Trust),
            Just(ClockRule::UseReceived),
            any::<i64>().prop_map(|seconds| ClockRule::Shift { seconds }),
        ],
        utc_offset_min in -14_i16 * 60..=14 * 60,
        expected_interval_s in any::<Option<u32>>(),
        retired in any::<bool>(),
        id in any::<[u8; 16]>(),
    ) {
        let kept = Device {
            id: DeviceId::from_bytes(id),
            name: texts[0].clone(),
            kind: texts[1].clone(),
            manufacturer: texts[2].clone(),
            model: texts[3].clone(),
            serial: texts[4].clone(),
            clock,
            utc_offset_min,
            expected_interval_s,
            retired,
        };
        let resource = device::render(&kept);
        let read = device::parse(&resource).map_err(|e| TestCaseError::fail(format!("{:#?}", lines(&e))))?;
        prop_assert_eq!(read, kept);
    }

    #[test]
    fn a_patient_comes_back(
        family in "[A-Za-zäöüé' -]{0,15}[A-Za-zé]",
        given in "([A-Z][a-z]{0,6} {0,2}){0,3}",
        birth_date in prop::option::of("19[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"),
        gender in prop::sample::select(vec![Gender::Male, Gender::Female, Gender::Other, Gender::Unknown]),
        record_number in "[A-Z0-9-]{1,20}",
        place in any::<Option<[u8; 16]>>(),
        active in any::<bool>(),
        id in any::<[u8; 16]>(),
    ) {
        let kept = Patient {
            id: PatientId::from_bytes(id),
            family: Private::new(family),
            given: Private::new(given),
            birth_date: birth_date.map(Private::new),
            gender,
            record_number: Private::new(record_number),
            place: place.map(PlaceId::from_bytes),
            active,
        };
        let resource = patient::render(&kept);
        let read = patient::parse(&resource).map_err(|e| TestCaseError::fail(format!("{:#?}", lines(&e))))?;
        prop_assert_eq!(read, kept);
    }

    #[test]
    fn an_event_comes_back(
        measure in prop::sample::select(
            Measure::all().filter(|measure| measure.kind == MeasureKind::Event).collect::<Vec<_>>()
        ),
        amount in prop::option::of((0_i64..1_000_000, -3_i8..=0)),
        said in prop::option::of("[a-zäö%<>&\"]{1,200}"),
        sequence in any::<u32>(),
        measured_at in any_time(),
        findings in any_findings(),
    ) {
        let amount = amount.map(|(m, e)| (Decimal::new(m, e).expect("small"), "[iU]".to_owned()));
        let event = Event {
            series: series(measure),
            at: measured_at,
            received_at: measured_at,
            sequence,
            amount: amount.clone(),
            text: said.clone(),
            findings,
        };
        let kept = Committed::restored(event, measured_at, 0);
        let resource =
            observation::render_event(&EventInput { id: "e".into(), event: &kept, device_display: None });
        let foreign = observation::parse(&resource).map_err(|e| TestCaseError::fail(format!("{:#?}", lines(&e))))?;
        let time = DeviceTime::Utc(measured_at);
        let expected = DecodedEvent { measure, time, sequence, amount, text: said };
        prop_assert_eq!(&foreign.decoded[..], &[Decoded::Event(expected)][..]);
    }

    #[test]
    fn a_sound_resource_with_any_part_replaced_makes_no_reader_panic(
        base in prop::sample::select(vec![
            "00-valid-hr", "01-valid-sampleddata", "20-valid-transaction", "22-valid-auditevent",
        ]),
        at in any::<prop::sample::Index>(),
        content in prop::sample::select(vec![
            "null", "true", "0", "-1.50", "1e400", "99999999999999999999", "\"\"", "\"x\"", "[]", "{}", "[null]",
            "{\"\":{}}", "[[1]]", "\"2026-11-22T10:15:30Z\"", "\"Patient/1\"", "{\"reference\":\"#\"}",
        ]),
    ) {
        let mut resource = crate::support::case(base);
        let parts = count(&resource);
        let mut left = at.index(parts);
        replace(&mut resource, &mut left, &serde_json::from_str(content).expect("JSON"));
        let text = resource.to_string();
        validate::resource(&resource);
        let frame = health_codecs::fhir::read_frame(text.as_bytes());
        for entry in &frame.entries {
            prop_assert!(entry.span.end <= text.len());
        }
        let _ = health_codecs::fhir::bundle::parse_request(resource.clone());
        let _ = patient::parse(&resource);
        let _ = device::parse(&resource);
    }

    #[test]
    fn nothing_that_is_sent_makes_the_readers_panic(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        health_codecs::fhir::decode_frame(text.as_bytes());
        health_codecs::fhir::decode_frame(&bytes);
    }
}

/// Every measure and every reason of absence, not only those that chance picks.
#[test]
fn every_measure_is_sound_with_every_kind_of_value() {
    let values = (1..=5)
        .filter_map(Absent::from_number)
        .map(Value::Absent)
        .chain(["0", "72.50", "-0.5", "100000000000000000"].map(crate::support::number));
    for value in values {
        for measure in Measure::all().filter(|measure| measure.is_scalar()) {
            let kept = crate::support::reading(measure, value, Findings::all());
            let input =
                ObservationInput { id: "x".into(), readings: &[kept], panel: None, device_display: None };
            let resource = observation::render(&input);
            let issues = validate::resource(&resource);
            assert!(issues.is_empty(), "{measure:?} {value:?}: {:#?}", lines(&issues));
            let foreign =
                observation::parse(&resource).unwrap_or_else(|issues| panic!("{:?}", lines(&issues)));
            assert_eq!(foreign.decoded.len(), 1, "{measure:?}");
        }
    }
}

/// Parts of a document: every object, array and leaf.
fn count(value: &serde_json::Value) -> usize {
    use serde_json::Value::{Array, Object};
    1 + match value {
        Array(items) => items.iter().map(count).sum(),
        Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Replaces the part of that number.
fn replace(value: &mut serde_json::Value, left: &mut usize, content: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object};
    if *left == 0 {
        *value = content.clone();
        return true;
    }
    *left -= 1;
    match value {
        Array(items) => items.iter_mut().any(|item| replace(item, left, content)),
        Object(fields) => fields.values_mut().any(|item| replace(item, left, content)),
        _ => false,
    }
}
