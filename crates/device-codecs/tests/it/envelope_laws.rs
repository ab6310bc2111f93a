//! Laws of the envelope: what is written is read back, spans are exact, bounds hold, nothing panics.

use clinical_model::decoded::{DecodedEvent, DecodedScalar, DecodedWaveform};
use clinical_model::reading::Absent;
use clinical_model::{
    Decimal, Decoded, DecodedValue, DeviceTime, FrameKind, Measure, MeasureKind, Timestamp, measure,
};
use device_codecs::decode;
use device_codecs::envelope::{
    DEVICE_FLAGS, EncodePanelError, MAX_ENTRIES, MAX_FRAME_BYTES, MAX_SAMPLES, encode_batch, encode_event,
    encode_panel, encode_scalar, encode_waveform,
};
use proptest::prelude::*;

fn measure_of(fits: impl Fn(Measure) -> bool) -> impl Strategy<Value = Measure> {
    proptest::sample::select(Measure::all().filter(|measure| fits(*measure)).collect::<Vec<_>>())
}

fn time() -> impl Strategy<Value = DeviceTime> {
    let at = || (0i64..4_000_000_000_000_000).prop_map(Timestamp::from_micros);
    prop_oneof![at().prop_map(DeviceTime::Utc), at().prop_map(DeviceTime::Local), Just(DeviceTime::Unknown)]
}

fn decimal() -> impl Strategy<Value = Decimal> {
    (-999_999_999i64..=999_999_999, -9i8..=0).prop_map(|(m, e)| Decimal::new(m, e).unwrap())
}

fn value() -> impl Strategy<Value = DecodedValue> {
    let absent = (1u8..=5).prop_map(|number| DecodedValue::Absent(Absent::from_number(number).unwrap()));
    prop_oneof![4 => decimal().prop_map(DecodedValue::Number), 1 => absent]
}

fn scalar() -> impl Strategy<Value = DecodedScalar> {
    // "Invalid" takes the digits away, so it is not among what is read back unchanged.
    let flags = DEVICE_FLAGS.iter().filter(|flag| *flag != clinical_model::Findings::INVALID);
    let flags = proptest::sample::subsequence(flags.collect::<Vec<_>>(), 0..4);
    (measure_of(Measure::is_scalar), value(), "\\PC{1,20}", time(), any::<u32>(), flags).prop_map(
        |(measure, value, unit, time, sequence, flags)| DecodedScalar {
            measure,
            value,
            unit,
            time,
            sequence,
            findings: flags.into_iter().collect(),
        },
    )
}

fn waveform() -> impl Strategy<Value = DecodedWaveform> {
    let samples = proptest::collection::vec(any::<i16>(), 0..50);
    let rate = prop_oneof![(1u32..2_000, Just(1u32)), any::<(u32, u32)>()];
    let shape = measure_of(|measure| measure.kind == MeasureKind::Waveform);
    (shape, time(), rate, decimal(), decimal(), samples).prop_map(
        |(measure, time, (rate_numerator, rate_denominator), gain, offset, samples)| DecodedWaveform {
            measure,
            time,
            rate_numerator,
            rate_denominator,
            unit: measure.unit.to_owned(),
            gain,
            offset,
            samples,
            findings: clinical_model::Findings::LOW_SIGNAL,
        },
    )
}

fn event() -> impl Strategy<Value = DecodedEvent> {
    let amount = proptest::option::of((decimal(), "\\PC{1,10}"));
    let text = proptest::option::of(".{0,200}");
    let shape = measure_of(|measure| measure.kind == MeasureKind::Event);
    (shape, time(), any::<u32>(), amount, text).prop_map(|(measure, time, sequence, amount, text)| {
        DecodedEvent { measure, time, sequence, amount, text }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(scalars in proptest::collection::vec(scalar(), 1..4), curve in waveform(), happened in event()) {
        let mut entries: Vec<String> = scalars.iter().map(encode_scalar).collect();
        entries.push(encode_waveform(&curve));
        entries.push(encode_event(&happened));
        let mut expected: Vec<Decoded> = scalars.into_iter().map(Decoded::Scalar).collect();
        expected.push(Decoded::Waveform(curve));
        expected.push(Decoded::Event(happened));
        let text = encode_batch(&entries, Some("a \"message\""));
        let frame = decode(FrameKind::Envelope, text.as_bytes());
        prop_assert_eq!(frame.entries.len(), expected.len());
        for ((entry, written), expected) in frame.entries.iter().zip(&entries).zip(expected) {
            prop_assert_eq!(&text[entry.span.clone()], written);
            prop_assert_eq!(entry.result.as_ref(), Ok(&vec![expected]));
            let alone = decode(FrameKind::Envelope, written.as_bytes());
            prop_assert_eq!(&alone.entries[0].result, &entry.result);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let frame = decode(FrameKind::Envelope, &bytes);
        prop_assert!(!frame.entries.is_empty());
    }

    /// Bytes of an envelope turned into others: most are still JSON somewhere.
    #[test]
    fn damaged_envelopes_never_panic(scalars in proptest::collection::vec(scalar(), 1..4), hits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4)) {
        let entries: Vec<String> = scalars.iter().map(encode_scalar).collect();
        let mut bytes = encode_batch(&entries, None).into_bytes();
        for (at, byte) in hits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for entry in decode(FrameKind::Envelope, &bytes).entries {
            prop_assert!(entry.span.start <= entry.span.end && entry.span.end <= bytes.len());
            if let Err(fault) = entry.result {
                prop_assert!(fault.offset <= bytes.len(), "{}", fault);
            }
        }
    }
}

fn reading(measure: Measure, value: &str) -> DecodedScalar {
    DecodedScalar {
        measure,
        value: DecodedValue::Number(value.parse().unwrap()),
        unit: measure.unit.to_owned(),
        time: DeviceTime::Utc("2026-11-22T08:30:00Z".parse().unwrap()),
        sequence: 0,
        findings: clinical_model::Findings::empty(),
    }
}

#[test]
fn panels_are_written_and_read_back() {
    let mut mean = reading(measure::MEAN_PRESSURE, "0");
    mean.value = DecodedValue::Absent(Absent::Unavailable);
    let parts = [reading(measure::SYSTOLIC, "120"), reading(measure::DIASTOLIC, "80"), mean];
    let text = encode_panel(measure::BLOOD_PRESSURE, &parts).unwrap();
    let frame = decode(FrameKind::Envelope, text.as_bytes());
    let expected: Vec<Decoded> = parts.iter().cloned().map(Decoded::Scalar).collect();
    assert_eq!(frame.entries[0].result.as_ref().unwrap(), &expected);

    assert_eq!(encode_panel(measure::BLOOD_PRESSURE, &[]), Err(EncodePanelError::Empty));
    let stranger = encode_panel(measure::BLOOD_PRESSURE, &[reading(measure::HEART_RATE, "60")]);
    assert!(matches!(stranger, Err(EncodePanelError::NotAComponent { measure: "heart_rate", .. })));
    let mut later = reading(measure::DIASTOLIC, "80");
    later.sequence = 1;
    let apart = encode_panel(measure::BLOOD_PRESSURE, &[reading(measure::SYSTOLIC, "120"), later]);
    assert!(matches!(apart, Err(EncodePanelError::NotTogether { measure: "diastolic", .. })));
}

fn fault_code(text: &str) -> &'static str {
    let frame = decode(FrameKind::Envelope, text.as_bytes());
    assert_eq!(frame.entries.len(), 1);
    frame.entries[0].result.as_ref().unwrap_err().code
}

#[test]
fn bounds_hold() {
    let entry = encode_scalar(&reading(measure::HEART_RATE, "60"));
    let most = encode_batch(&vec![entry.as_str(); MAX_ENTRIES], None);
    assert_eq!(decode(FrameKind::Envelope, most.as_bytes()).entries.len(), MAX_ENTRIES);
    assert_eq!(fault_code(&encode_batch(&vec![entry.as_str(); MAX_ENTRIES + 1], None)), "too-many-entries");

    let block = |count: usize| {
        let samples = vec!["1"; count].join(",");
        format!("{{\"waveform\":\"ecg\",\"rate\":250,\"gain\":1,\"samples\":[{samples}]}}")
    };
    let frame = decode(FrameKind::Envelope, block(MAX_SAMPLES).as_bytes());
    assert!(
        matches!(&frame.entries[0].result, Ok(list) if matches!(&list[0], Decoded::Waveform(w) if w.samples.len() == MAX_SAMPLES))
    );
    assert_eq!(fault_code(&block(MAX_SAMPLES + 1)), "bad-samples");
    let packed = |count: usize| {
        let text = "AAAA".repeat(count * 2 / 3);
        format!("{{\"waveform\":\"ecg\",\"rate\":250,\"gain\":1,\"samples_base64\":\"{text}\"}}")
    };
    assert!(decode(FrameKind::Envelope, packed(MAX_SAMPLES).as_bytes()).entries[0].result.is_ok());
    assert_eq!(fault_code(&packed(MAX_SAMPLES + 3)), "bad-samples");

    let fields: Vec<String> = (0..100).map(|n| format!("\"field{n}\":1")).collect();
    assert_eq!(fault_code(&format!("{{{}}}", fields.join(","))), "unknown-field");
    assert_eq!(fault_code(&" ".repeat(MAX_FRAME_BYTES + 1)), "too-long");
}

#[test]
fn depth_costs_nothing() {
    for opening in ["[", "{\"a\":", "[{\"measure\":["] {
        // Never closed: not JSON. Nothing may recurse on the way to finding out.
        assert_eq!(fault_code(&opening.repeat(200_000)), "bad-json");
    }
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(fault_code(&deep), "wrong-type");
}
