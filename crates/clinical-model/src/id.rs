//! Typed identifiers: a patient's id cannot be passed where a device's is due.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a {kind} id (a UUID such as 01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11)")]
pub struct IdParseError {
    /// Which kind of id was expected.
    pub kind: &'static str,
    /// What was read, cut to 64 characters.
    pub text: String,
}

/// What all typed ids have in common, for code that keeps records of any kind.
pub trait RecordId: Copy {
    /// The 16 bytes of the UUID.
    fn to_bytes(self) -> [u8; 16];
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// From the 16 bytes of a UUID.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                $name(Uuid::from_bytes(bytes))
            }

            /// From a UUID drawn by an edge (version 7 for what we create ourselves).
            pub const fn from_uuid(uuid: Uuid) -> Self {
                $name(uuid)
            }

            /// The UUID inside.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl RecordId for $name {
            fn to_bytes(self) -> [u8; 16] {
                *self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($kind, ":{}"), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = IdParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text)
                    .map($name)
                    .map_err(|_| IdParseError { kind: $kind, text: text.chars().take(64).collect() })
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdParseError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
    };
}

typed_id!(
    /// A patient.
    PatientId, "patient");
typed_id!(
    /// A device that measures.
    DeviceId, "device");
typed_id!(
    /// A ward, a bed, a home or another place.
    PlaceId, "place");
typed_id!(
    /// A person or a program that signs in.
    UserId, "user");
typed_id!(
    /// One assignment of a device to a subject.
    AssignmentId, "assignment");
typed_id!(
    /// One alert, from raised to resolved.
    AlertId, "alert");
typed_id!(
    /// One quarantined frame or entry.
    QuarantineId, "quarantine");
typed_id!(
    /// One consent of a patient.
    ConsentId, "consent");
typed_id!(
    /// One breaking of the glass.
    GlassId, "break-glass");

/// Whom or what a reading is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "lowercase")]
pub enum Subject {
    /// A patient.
    Patient(PatientId),
    /// The device itself (its battery, its temperature).
    Device(DeviceId),
    /// A room, a fridge, a vehicle.
    Place(PlaceId),
}

impl Subject {
    /// The patient, when the subject is one.
    pub const fn patient(self) -> Option<PatientId> {
        match self {
            Subject::Patient(id) => Some(id),
            _ => None,
        }
    }

    /// A number that tells the kinds apart in keys: 1 patient, 2 device, 3 place.
    pub const fn kind_number(self) -> u8 {
        match self {
            Subject::Patient(_) => 1,
            Subject::Device(_) => 2,
            Subject::Place(_) => 3,
        }
    }

    /// The 16 bytes of the id inside.
    pub fn id_bytes(self) -> [u8; 16] {
        match self {
            Subject::Patient(id) => id.to_bytes(),
            Subject::Device(id) => id.to_bytes(),
            Subject::Place(id) => id.to_bytes(),
        }
    }

    /// The inverse of [`Subject::kind_number`] with [`Subject::id_bytes`].
    pub const fn from_parts(kind: u8, id: [u8; 16]) -> Option<Self> {
        match kind {
            1 => Some(Subject::Patient(PatientId::from_bytes(id))),
            2 => Some(Subject::Device(DeviceId::from_bytes(id))),
            3 => Some(Subject::Place(PlaceId::from_bytes(id))),
            _ => None,
        }
    }
}
