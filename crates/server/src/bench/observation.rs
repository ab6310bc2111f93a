//! Observations as a foreign program writes them, the same for us and for a peer: texts with places to fill.

use clinical_model::measure::HEART_RATE;
use clinical_model::{DeviceId, Measure, PatientId, Timestamp};

/// What foreign programs send; not made by our own writers, which are among what is measured.
const OBSERVATION: &str = include_str!("../../../../clients/bench/observation.json");
const BUNDLE: &str = include_str!("../../../../clients/bench/bundle.json");
const ENTRY: &str = include_str!("../../../../clients/bench/entry.json");
const PATIENT: &str = include_str!("../../../../clients/bench/patient.json");
const DEVICE: &str = include_str!("../../../../clients/bench/device.json");

/// One Observation.
pub fn observation(
    measure: Measure,
    patient: PatientId,
    device: DeviceId,
    at: Timestamp,
    value: i32,
) -> String {
    filled(
        OBSERVATION,
        &[
            ("loinc", measure.loinc.unwrap_or_default()),
            ("display", measure.display),
            ("patient", &patient.to_string()),
            ("device", &device.to_string()),
            ("at", &at.to_rfc3339()),
            ("value", &value.to_string()),
            ("unit", measure.unit),
        ],
    )
}

/// A heart rate.
pub fn heart_rate(patient: PatientId, device: DeviceId, at: Timestamp, value: i32) -> String {
    observation(HEART_RATE, patient, device, at, value)
}

/// A Bundle that creates them all; `kind` is `transaction` or `batch`.
pub fn bundle(kind: &str, observations: &[String]) -> String {
    let entry = |(number, resource): (usize, &String)| {
        filled(ENTRY, &[("number", &format!("{number:012x}")), ("resource", resource)])
    };
    let entries: Vec<String> = observations.iter().enumerate().map(entry).collect();
    filled(BUNDLE, &[("type", kind), ("entries", &entries.join(","))])
}

/// A patient whom a peer must know before it takes what refers to them.
pub fn patient(id: PatientId) -> String {
    filled(PATIENT, &[("id", &id.to_string())])
}

/// The same for a device.
pub fn device(id: DeviceId) -> String {
    filled(DEVICE, &[("id", &id.to_string())])
}

fn filled(template: &str, places: &[(&str, &str)]) -> String {
    let mut text = template.trim_end().to_owned();
    for (name, value) in places {
        text = text.replace(&format!("@{name}@"), value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_believed_by_our_own_reader() {
        let (patient_id, device_id) = (PatientId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16]));
        let at = Timestamp::from_millis(1_795_332_600_250);
        let one = heart_rate(patient_id, device_id, at, 72);
        let bundled = bundle("transaction", &[one.clone(), one.clone()]);
        for text in [one, bundled, patient(patient_id), device(device_id)] {
            assert!(!text.contains('@'), "{text}");
            let value = health_codecs::fhir::json::parse(text.as_bytes()).unwrap();
            assert_eq!(health_codecs::fhir::validate::resource(&value), [], "{text}");
        }
    }
}
