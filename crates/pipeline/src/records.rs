//! Records: how patients, devices, places, assignments and alerts become documents and back.

use clinical_analytics::Limit;
use clinical_model::{
    Alert, AlertState, Assignment, Device, Patient, PatientId, Place, RecordId, Subject, Timestamp,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::{DocumentQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order, Store};

/// The index that every document is in, for loading all of a kind.
const ALL: &str = "all";
/// The index of remembered answers to requests by the device that they were about (its 16 bytes).
pub const REQUESTS_BY_DEVICE: &str = "device";
/// The index of alerts by state (open 0, over 1) and time.
pub const ALERTS_BY_STATE: &str = "state-time";
/// The index of alerts by patient and time.
pub const ALERTS_BY_PATIENT: &str = "patient-time";

/// The index of the patients in care by where they lie: a second one in the same place is refused, also by the store.
const BED: &str = "bed";

/// Why a document does not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not the JSON it should be.
    #[error("it is not the expected JSON")]
    Json(#[source] serde_json::Error),
    /// It is JSON with another meaning.
    #[error("it does not make sense: {what}")]
    Meaning {
        /// In what way.
        what: String,
    },
}

/// The alert limits of one patient.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PatientLimits {
    /// Whose.
    pub patient: PatientId,
    /// The limits.
    pub limits: Vec<Limit>,
}

/// A page of all documents of a kind.
pub fn all_of(kind: Kind, after: Option<(Vec<u8>, [u8; 16])>, limit: usize) -> DocumentQuery {
    DocumentQuery { kind, index: ALL, prefix: Vec::new(), after, order: Order::Ascending, limit }
}

/// Reads a JSON document.
///
/// # Errors
/// [`RecordError::Json`].
pub fn json_from<T: DeserializeOwned>(body: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(body).map_err(RecordError::Json)
}

/// A JSON document of a kind, in the index of all.
pub fn json_write(
    kind: Kind,
    id: [u8; 16],
    expected: Expected,
    domain: KeyDomain,
    body: &impl Serialize,
    mut index: Vec<IndexEntry>,
) -> DocumentWrite {
    index.push(IndexEntry { name: ALL, value: Vec::new(), unique: false });
    // Our own records have string keys and finite numbers only, so that writing them as JSON cannot fail.
    let body = serde_json::to_vec(body).unwrap_or_default();
    DocumentWrite { kind, id, expected, domain, body: Some(body), index }
}

/// Reads a patient.
///
/// # Errors
/// [`RecordError`].
pub fn patient_from(body: &[u8]) -> Result<Patient, RecordError> {
    let resource: serde_json::Value = json_from(body)?;
    health_codecs::fhir::patient::parse(&resource)
        .map_err(|issues| RecordError::Meaning { what: format!("{issues:?}") })
}

/// A patient as a FHIR document; found by record number through its blind index. In care, alone in the place it has, also
/// when two nodes admit at the same time.
pub fn patient_write(store: &dyn Store, patient: &Patient, expected: Expected) -> DocumentWrite {
    patient_write_as(store, patient, &health_codecs::fhir::patient::render(patient), expected)
}

/// As [`patient_write`], kept as the resource that was sent: with all that it says, whether we use it or not.
pub fn patient_write_as(
    store: &dyn Store,
    patient: &Patient,
    resource: &serde_json::Value,
    expected: Expected,
) -> DocumentWrite {
    let number = store.blind("record-number", patient.record_number.expose()).to_vec();
    let mut index = vec![IndexEntry { name: "record-number", value: number, unique: true }];
    if let Some(place) = patient.place.filter(|_| patient.active) {
        // Blind: who lay where is nobody's who holds the disk only.
        let bed = store.blind(BED, &place.to_string()).to_vec();
        index.push(IndexEntry { name: BED, value: bed, unique: true });
    }
    json_write(
        Kind::Patient,
        patient.id.to_bytes(),
        expected,
        KeyDomain::Patient(patient.id),
        resource,
        index,
    )
}

/// Whether the detail of a conflict says that somebody else lies in the bed.
pub(crate) fn is_bed_taken(detail: &str) -> bool {
    detail.ends_with(BED)
}

/// Reads a device.
///
/// # Errors
/// [`RecordError`].
pub fn device_from(body: &[u8]) -> Result<Device, RecordError> {
    let resource: serde_json::Value = json_from(body)?;
    health_codecs::fhir::device::parse(&resource)
        .map_err(|issues| RecordError::Meaning { what: format!("{issues:?}") })
}

/// A device as a FHIR document; its serial number is unique within maker and model.
pub fn device_write(store: &dyn Store, device: &Device, expected: Expected) -> DocumentWrite {
    device_write_as(store, device, &health_codecs::fhir::device::render(device), expected)
}

/// As [`device_write`], kept as the resource that was sent: with all that it says, whether we use it or not.
pub fn device_write_as(
    store: &dyn Store,
    device: &Device,
    resource: &serde_json::Value,
    expected: Expected,
) -> DocumentWrite {
    let serial = format!("{}\u{1f}{}\u{1f}{}", device.manufacturer, device.model, device.serial);
    let serial = store.blind("device-serial", &serial).to_vec();
    json_write(
        Kind::Device,
        device.id.to_bytes(),
        expected,
        KeyDomain::System,
        resource,
        vec![IndexEntry { name: "serial", value: serial, unique: true }],
    )
}

/// Reads a place.
///
/// # Errors
/// [`RecordError`].
pub fn place_from(body: &[u8]) -> Result<Place, RecordError> {
    json_from(body)
}

/// A place.
pub fn place_write(place: &Place, expected: Expected) -> DocumentWrite {
    json_write(Kind::Place, place.id.to_bytes(), expected, KeyDomain::System, place, Vec::new())
}

/// An assignment. A device has one without an end, also when two nodes assign it at the same time.
pub fn assignment_write(assignment: &Assignment, expected: Expected) -> DocumentWrite {
    let open = assignment.interval.end.is_none();
    let device = assignment.device.to_bytes().to_vec();
    let index = open.then_some(IndexEntry { name: "open-device", value: device, unique: true });
    json_write(
        Kind::Assignment,
        assignment.id.to_bytes(),
        expected,
        KeyDomain::System,
        assignment,
        index.into_iter().collect(),
    )
}

/// An alert: sealed with the patient's key, found by state and by patient, in time.
pub fn alert_write(alert: &Alert, expected: Expected) -> DocumentWrite {
    let domain = alert.subject.patient().map_or(KeyDomain::System, KeyDomain::Patient);
    let over = u8::from(alert.state == AlertState::Resolved);
    let mut by_state = vec![over];
    by_state.extend(sortable(alert.raised_at));
    let mut index = vec![IndexEntry { name: ALERTS_BY_STATE, value: by_state, unique: false }];
    if let Subject::Patient(patient) = alert.subject {
        let mut by_patient = patient.to_bytes().to_vec();
        by_patient.extend(sortable(alert.raised_at));
        index.push(IndexEntry { name: ALERTS_BY_PATIENT, value: by_patient, unique: false });
    }
    json_write(Kind::Alert, alert.id.to_bytes(), expected, domain, alert, index)
}

/// The limits of a patient; the document has the patient's id.
pub fn limits_write(limits: &PatientLimits) -> DocumentWrite {
    json_write(
        Kind::AlertLimits,
        limits.patient.to_bytes(),
        Expected::Any,
        KeyDomain::Patient(limits.patient),
        limits,
        Vec::new(),
    )
}

/// An instant as bytes that sort like time.
pub fn sortable(at: Timestamp) -> [u8; 8] {
    // Flipping the sign bit makes two's complement sort as unsigned.
    (at.as_micros() as u64 ^ (1 << 63)).to_be_bytes()
}
