//! Laws of the characteristics: what is written is read back, for every combination of flags; nothing panics.

use clinical_model::FrameKind;
use device_codecs::gatt::{
    BatteryLevel, BloodPressureMeasurement, BloodPressureStatus, BodyFigures, Characteristic, DateTime,
    EnhancedBloodPressureMeasurement, Epoch, Float, HeartRateMeasurement, MAX_ATTRIBUTE_BYTES,
    MeasurementStatus, PlxContinuous, PlxPair, PlxSpotCheck, PressureUnit, SUPPORTED, SensorContact,
    SensorStatus, Sfloat, TemperatureMeasurement, TemperatureUnit, WeightMeasurement, WeightUnit,
};
use device_codecs::{decode, explain};
use proptest::option;
use proptest::prelude::*;

fn date_time() -> impl Strategy<Value = DateTime> {
    any::<(u16, u8, u8, u8, u8, u8)>().prop_map(|(year, month, day, hour, minute, second)| DateTime {
        year,
        month,
        day,
        hour,
        minute,
        second,
    })
}

fn sfloat() -> impl Strategy<Value = Sfloat> {
    any::<u16>().prop_map(Sfloat::from_bits)
}

fn float() -> impl Strategy<Value = Float> {
    any::<u32>().prop_filter_map("too large or too small to keep", Float::from_bits)
}

fn bp_status() -> impl Strategy<Value = BloodPressureStatus> {
    any::<u16>().prop_map(BloodPressureStatus::from_bits_truncate)
}

fn pressure_unit() -> impl Strategy<Value = PressureUnit> {
    prop_oneof![Just(PressureUnit::MmHg), Just(PressureUnit::Kilopascal)]
}

fn pair() -> impl Strategy<Value = PlxPair> {
    (sfloat(), sfloat()).prop_map(|(saturation_percent, pulse_rate_per_min)| PlxPair {
        saturation_percent,
        pulse_rate_per_min,
    })
}

fn plx_status() -> impl Strategy<Value = MeasurementStatus> {
    any::<u16>().prop_map(MeasurementStatus::from_bits_truncate)
}

fn sensor_status() -> impl Strategy<Value = SensorStatus> {
    any::<u32>().prop_map(SensorStatus::from_bits_truncate)
}

/// Written and read back; and no shorter or longer run of bytes is the same thing.
fn round_trip<T: Characteristic + PartialEq + std::fmt::Debug>(value: &T) -> Result<(), TestCaseError> {
    let mut bytes = value.encode();
    let read = T::decode(&bytes).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
    prop_assert_eq!(&read, value);
    prop_assert_eq!(read.encode(), bytes.clone());
    let frame = decode(FrameKind::Gatt(T::NUMBER), &bytes);
    prop_assert_eq!(frame.entries[0].result.as_ref().ok(), Some(&value.to_decoded()));
    let cut = T::decode(&bytes[..bytes.len() - 1]).ok();
    prop_assert_ne!(cut.as_ref(), Some(value));
    bytes.push(0);
    prop_assert!(T::decode(&bytes).is_err());
    Ok(())
}

proptest! {
    #[test]
    fn blood_pressure(
        unit in pressure_unit(), pressures in [sfloat(), sfloat(), sfloat()], time in option::of(date_time()),
        pulse in option::of(sfloat()), user_id in option::of(any::<u8>()), status in option::of(bp_status()),
    ) {
        let [systolic, diastolic, mean] = pressures;
        round_trip(&BloodPressureMeasurement {
            unit, systolic, diastolic, mean, time, pulse_rate_per_min: pulse, user_id, status,
        })?;
    }

    #[test]
    fn enhanced_blood_pressure(
        unit in pressure_unit(), pressures in [sfloat(), sfloat(), sfloat()],
        epoch in prop_oneof![Just(Epoch::Year1900), Just(Epoch::Year2000)], times in any::<[Option<u32>; 2]>(),
        pulse in option::of(sfloat()), user_id in option::of(any::<u8>()), status in option::of(bp_status()),
    ) {
        let [systolic, diastolic, mean] = pressures;
        let [time_s, user_facing_time_s] = times;
        round_trip(&EnhancedBloodPressureMeasurement {
            unit, systolic, diastolic, mean, epoch, time_s, pulse_rate_per_min: pulse, user_id, status,
            user_facing_time_s,
        })?;
    }

    #[test]
    fn heart_rate(
        heart_rate_per_min in prop_oneof![0u16..=300, any::<u16>()],
        contact in prop_oneof![
            Just(SensorContact::Unsupported), Just(SensorContact::NotDetected), Just(SensorContact::Detected)
        ],
        energy_expended_kj in any::<Option<u16>>(),
        rr_intervals_1024ths in proptest::collection::vec(any::<u16>(), 0..12),
    ) {
        round_trip(&HeartRateMeasurement { heart_rate_per_min, contact, energy_expended_kj, rr_intervals_1024ths })?;
    }

    #[test]
    fn spot_check(
        reading in pair(), time in option::of(date_time()), status in option::of(plx_status()),
        sensor_status in option::of(sensor_status()), amplitude in option::of(sfloat()), clock_not_set: bool,
    ) {
        round_trip(&PlxSpotCheck {
            reading, time, status, sensor_status, pulse_amplitude_percent: amplitude, clock_not_set,
        })?;
    }

    #[test]
    fn continuous(
        normal in pair(), fast in option::of(pair()), slow in option::of(pair()),
        status in option::of(plx_status()), sensor_status in option::of(sensor_status()),
        amplitude in option::of(sfloat()),
    ) {
        round_trip(&PlxContinuous {
            normal, fast, slow, status, sensor_status, pulse_amplitude_percent: amplitude,
        })?;
    }

    #[test]
    fn temperature(
        unit in prop_oneof![Just(TemperatureUnit::Celsius), Just(TemperatureUnit::Fahrenheit)],
        temperature in float(), time in option::of(date_time()), site in any::<Option<u8>>(),
    ) {
        round_trip(&TemperatureMeasurement { unit, temperature, time, site })?;
    }

    #[test]
    fn weight(
        unit in prop_oneof![Just(WeightUnit::Metric), Just(WeightUnit::Imperial)], weight_steps: u16,
        time in option::of(date_time()), user_id in any::<Option<u8>>(), body in any::<Option<(u16, u16)>>(),
    ) {
        let body = body.map(|(bmi_tenths, height_steps)| BodyFigures { bmi_tenths, height_steps });
        round_trip(&WeightMeasurement { unit, weight_steps, time, user_id, body })?;
    }

    #[test]
    fn battery(percent: u8) {
        round_trip(&BatteryLevel { percent })?;
    }

    /// Whatever arrives is read or refused with a place inside the frame; it never panics.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), which in 0..SUPPORTED.len()) {
        let kind = FrameKind::Gatt(SUPPORTED[which].0);
        let frame = decode(kind, &bytes);
        prop_assert_eq!(frame.entries.len(), 1);
        if let Err(fault) = &frame.entries[0].result {
            prop_assert!(fault.offset <= bytes.len());
        }
        prop_assert!(!explain(kind, &bytes).is_empty());
    }
}

#[test]
fn every_flags_byte_is_understood() {
    // With enough bytes for every optional field, each flags byte is either taken or has bytes left over.
    for (number, name) in SUPPORTED.into_iter().filter(|(number, _)| *number != BatteryLevel::NUMBER) {
        for flags in 0..=u8::MAX {
            let mut bytes = [0u8; 40];
            bytes[0] = flags;
            let lengths: Vec<usize> = (1..=40)
                .filter(|length| decode(FrameKind::Gatt(number), &bytes[..*length]).entries[0].result.is_ok())
                .collect();
            let repeating = number == HeartRateMeasurement::NUMBER && flags & 0x10 != 0;
            assert!(
                lengths.len() == 1 || (repeating && lengths.len() > 10),
                "{name} {flags:#04x}: {lengths:?}"
            );
        }
    }
}

#[test]
fn an_attribute_has_a_longest_length() {
    let mut measurement = HeartRateMeasurement {
        heart_rate_per_min: 60,
        contact: SensorContact::Detected,
        energy_expended_kj: None,
        rr_intervals_1024ths: vec![1024; 1_000],
    };
    let bytes = measurement.encode();
    assert!(bytes.len() <= MAX_ATTRIBUTE_BYTES);
    let read = HeartRateMeasurement::decode(&bytes).unwrap();
    measurement.rr_intervals_1024ths.truncate(read.rr_intervals_1024ths.len());
    assert_eq!(read, measurement);
    let mut long = bytes;
    long.resize(MAX_ATTRIBUTE_BYTES + 2, 0);
    assert_eq!(HeartRateMeasurement::decode(&long).unwrap_err().code, "too-long");
}

#[test]
fn a_fhir_frame_is_not_for_this_room() {
    let frame = decode(FrameKind::Fhir, b"{}");
    assert_eq!(frame.entries[0].result.as_ref().unwrap_err().code, "not-a-device-frame");
    assert_eq!(explain(FrameKind::Fhir, b"{}").len(), 1);
}
