//! Business identifiers of resources: which resource goes by `system|value`, decided by one document an identifier, so
//! that of many who ask at once for the same only one creates it.
//!
//! A program that sends an Observation under an identifier claims the identifier first, with the very frame that it
//! will send. Whoever comes second finds the claim and finishes it: charting the same frame again changes nothing, so
//! that neither a race nor a crash in between leaves a second observation or a claim without one.

use clinical_model::{Delivery, DeviceId, Frame, FrameKind, PatientId, RecordId as _, SeriesKey, Timestamp};
use serde::{Deserialize, Serialize};
use store::{
    Document, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Store, StoreError, TransactError,
    Transaction,
};

use crate::records;
use crate::search::Position;

/// Resources that may go by one identifier and are told apart; more are as ambiguous as these.
const TARGET_LIMIT: usize = 8;
/// Times that a write is tried again when somebody else was faster: each time there is something new to read.
const TRIES_LIMIT: usize = 16;
/// Longest identifier, system and value together, in bytes.
pub const IDENTIFIER_LIMIT_BYTES: usize = 1_024;

/// A resource that goes by an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A patient.
    Patient(PatientId),
    /// A device.
    Device(DeviceId),
    /// An observation, by its identity.
    Observation {
        /// Whom or what it is about.
        subject: clinical_model::Subject,
        /// What was measured.
        measure: clinical_model::Measure,
        /// By which device.
        device: DeviceId,
        /// When.
        at: Timestamp,
        /// Order among readings of one series at one instant.
        sequence: u32,
    },
}

impl Target {
    /// An observation.
    pub fn observation(position: &Position) -> Self {
        let SeriesKey { subject, measure, device } = position.series;
        Target::Observation { subject, measure, device, at: position.at, sequence: position.sequence }
    }

    /// Where the observation stands, if it is one.
    pub fn position(&self) -> Option<Position> {
        match *self {
            Target::Observation { subject, measure, device, at, sequence } => {
                Some(Position { at, series: SeriesKey { subject, measure, device }, sequence })
            }
            Target::Patient(_) | Target::Device(_) => None,
        }
    }

    /// What is known about a patient is sealed with the patient's key.
    fn domain(&self) -> KeyDomain {
        let patient = match self {
            Target::Patient(id) => Some(*id),
            Target::Device(_) => None,
            Target::Observation { subject, .. } => subject.patient(),
        };
        patient.map_or(KeyDomain::System, KeyDomain::Patient)
    }
}

/// A frame as a claim keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFrame {
    device: DeviceId,
    received_at: Timestamp,
    /// FHIR JSON.
    text: String,
}

impl KeptFrame {
    /// A frame of kind FHIR; `None` for any other, and for bytes that are no text.
    pub fn of(frame: &Frame) -> Option<Self> {
        let text = std::str::from_utf8(&frame.bytes).ok().filter(|_| frame.kind == FrameKind::Fhir)?;
        Some(KeptFrame { device: frame.device, received_at: frame.received_at, text: text.to_owned() })
    }

    /// The frame, as it was sent.
    pub fn frame(&self) -> Frame {
        Frame {
            device: self.device,
            kind: FrameKind::Fhir,
            received_at: self.received_at,
            delivery: Delivery::AtLeastOnce,
            bytes: self.text.clone().into_bytes(),
        }
    }
}

/// Who goes by an identifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// The resources, in the order in which they were claimed; at least one.
    pub targets: Vec<Target>,
    /// What the first was claimed with, so that anybody can finish it.
    pub frame: Option<KeptFrame>,
}

/// `system|value` of one type of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentifierKey([u8; 16]);

impl IdentifierKey {
    /// Of a resource type and `system|value`.
    pub fn of(store: &dyn Store, kind: &str, identifier: &str) -> Self {
        IdentifierKey(store.blind("resource-identifier", &format!("{kind}\u{1f}{identifier}")))
    }
}

fn read(document: &Document) -> Result<Claimed, StoreError> {
    records::json_from(&document.body).map_err(|error| StoreError::Damaged {
        what: "document of a resource identifier".to_owned(),
        how: error.to_string(),
    })
}

/// Who goes by an identifier, with the version of that record.
///
/// # Errors
/// [`StoreError`].
pub fn find(store: &dyn Store, key: IdentifierKey) -> Result<Option<(Claimed, u64)>, StoreError> {
    let document = store.document(Kind::ResourceIdentifier, key.0)?;
    document.map(|document| Ok((read(&document)?, document.version))).transpose()
}

fn write_of(key: IdentifierKey, claimed: &Claimed, expected: Expected) -> DocumentWrite {
    let domain = claimed.targets.first().map_or(KeyDomain::System, Target::domain);
    let index = claimed.targets.iter().map(|target| {
        let value = match target {
            Target::Patient(id) => id.to_bytes().to_vec(),
            Target::Device(id) => id.to_bytes().to_vec(),
            Target::Observation { subject, .. } => subject.id_bytes().to_vec(),
        };
        IndexEntry { name: "about", value, unique: false }
    });
    let mut index: Vec<IndexEntry> = index.collect();
    index.dedup();
    records::json_write(Kind::ResourceIdentifier, key.0, expected, domain, claimed, index)
}

/// The write that claims an identifier for a resource as the only one; it conflicts where it is taken by then.
pub fn claim(key: IdentifierKey, target: Target, frame: Option<KeptFrame>) -> DocumentWrite {
    write_of(key, &Claimed { targets: vec![target], frame }, Expected::Absent)
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is ours.
    Ours,
    /// It was taken already, by these.
    Taken(Claimed),
}

/// Claims an identifier, on stable storage when it returns.
///
/// # Errors
/// [`TransactError::Store`].
pub fn claim_now(
    store: &dyn Store,
    at: Timestamp,
    key: IdentifierKey,
    target: Target,
    frame: Option<KeptFrame>,
) -> Result<Outcome, TransactError> {
    let write = claim(key, target, frame);
    let transaction = Transaction { at, writes: vec![write], ..Transaction::default() };
    match store.transact(&transaction) {
        Ok(()) => Ok(Outcome::Ours),
        Err(conflict @ TransactError::Conflict { .. }) => match find(store, key)? {
            Some((claimed, _)) => Ok(Outcome::Taken(claimed)),
            // Gone again, which nobody does.
            None => Err(conflict),
        },
        Err(other) => Err(other),
    }
}

/// The write after which a resource goes by an identifier, beside those that already do; `None` where it does, or where
/// they are too many to matter.
///
/// # Errors
/// [`StoreError`].
pub fn add(
    store: &dyn Store,
    key: IdentifierKey,
    target: Target,
) -> Result<Option<DocumentWrite>, StoreError> {
    Ok(match find(store, key)? {
        None => Some(claim(key, target, None)),
        Some((mut claimed, version)) => {
            if claimed.targets.contains(&target) || claimed.targets.len() >= TARGET_LIMIT {
                return Ok(None);
            }
            claimed.targets.push(target);
            Some(write_of(key, &claimed, Expected::Version(version)))
        }
    })
}

/// The write after which a resource no longer goes by an identifier; `None` where it does not.
///
/// # Errors
/// [`StoreError`].
pub fn remove(
    store: &dyn Store,
    key: IdentifierKey,
    target: Target,
) -> Result<Option<DocumentWrite>, StoreError> {
    let Some((mut claimed, version)) = find(store, key)? else { return Ok(None) };
    if !claimed.targets.contains(&target) {
        return Ok(None);
    }
    claimed.targets.retain(|kept| *kept != target);
    let expected = Expected::Version(version);
    if claimed.targets.is_empty() {
        let domain = target.domain();
        let kind = Kind::ResourceIdentifier;
        return Ok(Some(DocumentWrite { kind, id: key.0, expected, domain, body: None, index: Vec::new() }));
    }
    Ok(Some(write_of(key, &claimed, expected)))
}

/// Lets an observation go by its identifiers beside whatever already does: for those that were sent without a
/// condition.
///
/// # Errors
/// [`TransactError`].
pub fn add_now(
    store: &dyn Store,
    at: Timestamp,
    keys: &[IdentifierKey],
    target: Target,
) -> Result<(), TransactError> {
    for _ in 0..TRIES_LIMIT {
        let mut writes = Vec::with_capacity(keys.len());
        for key in keys {
            writes.extend(add(store, *key, target)?);
        }
        if writes.is_empty() {
            return Ok(());
        }
        match store.transact(&Transaction { at, writes, ..Transaction::default() }) {
            Err(TransactError::Conflict { .. }) => {}
            other => return other,
        }
    }
    Err(TransactError::Conflict {
        kind: "resource identifier",
        detail: format!("{TRIES_LIMIT} times somebody else was faster; send again"),
    })
}
