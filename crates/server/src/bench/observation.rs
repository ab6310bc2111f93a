//! Heart rates as FHIR Observations, the same for us and for a peer.

use clinical_model::measure::HEART_RATE;
use clinical_model::{DeviceId, Measure, PatientId, Timestamp};
use serde_json::{Value, json};

/// One Observation.
pub fn observation(
    measure: Measure,
    patient: PatientId,
    device: DeviceId,
    at: Timestamp,
    value: i32,
) -> Value {
    json!({
        "resourceType": "Observation",
        "status": "final",
        "category": [{"coding": [{
            "system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"
        }]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": measure.loinc, "display": measure.display}]},
        "subject": {"reference": format!("Patient/{patient}")},
        "device": {"reference": format!("Device/{device}")},
        "effectiveDateTime": at.to_rfc3339(),
        "valueQuantity": {
            "value": value, "unit": measure.unit, "system": "http://unitsofmeasure.org", "code": measure.unit
        },
    })
}

/// A heart rate.
pub fn heart_rate(patient: PatientId, device: DeviceId, at: Timestamp, value: i32) -> Value {
    observation(HEART_RATE, patient, device, at, value)
}

/// A Bundle that creates them all; `kind` is `transaction` or `batch`.
pub fn bundle(kind: &str, observations: Vec<Value>) -> Value {
    let entry = |(number, resource): (usize, Value)| {
        json!({
            "fullUrl": format!("urn:uuid:00000000-0000-4000-8000-{number:012x}"),
            "resource": resource,
            "request": {"method": "POST", "url": "Observation"},
        })
    };
    json!({
        "resourceType": "Bundle",
        "type": kind,
        "entry": observations.into_iter().enumerate().map(entry).collect::<Vec<_>>(),
    })
}

/// A patient whom a peer must know before it takes what refers to them.
pub fn patient(id: PatientId) -> Value {
    json!({"resourceType": "Patient", "id": id.to_string(), "name": [{"family": "Measured"}], "gender": "unknown"})
}

/// The same for a device.
pub fn device(id: DeviceId) -> Value {
    json!({"resourceType": "Device", "id": id.to_string(), "status": "active"})
}
