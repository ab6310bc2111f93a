//! Quarantine: what could not be read or placed, kept whole with the reason until a person has mended the cause.

use serde::{Deserialize, Serialize};

use crate::frame::FrameKind;
use crate::id::{DeviceId, QuarantineId, UserId};
use crate::time::Timestamp;

/// Why something was quarantined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuarantineReason {
    /// The bytes could not be read.
    Undecodable,
    /// The device is not registered here.
    UnknownDevice,
    /// The device was assigned to nobody at the time of the reading.
    Unassigned,
    /// The device's time is impossible.
    Clock,
    /// The unit does not fit the measure.
    Unit,
    /// The value cannot be a measurement of this kind.
    Impossible,
    /// Demonstration, test or control data.
    Demonstration,
    /// The sender named a patient that the device is not assigned to.
    WrongSubject,
}

impl QuarantineReason {
    /// The word in the JSON API and in logs.
    pub const fn word(self) -> &'static str {
        match self {
            QuarantineReason::Undecodable => "undecodable",
            QuarantineReason::UnknownDevice => "unknown-device",
            QuarantineReason::Unassigned => "unassigned",
            QuarantineReason::Clock => "clock",
            QuarantineReason::Unit => "unit",
            QuarantineReason::Impossible => "impossible",
            QuarantineReason::Demonstration => "demonstration",
            QuarantineReason::WrongSubject => "wrong-subject",
        }
    }
}

/// Where a quarantined item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum QuarantineState {
    /// Waiting for a person.
    Waiting,
    /// Run again, and committed.
    Released {
        /// When.
        at: Timestamp,
        /// By whom.
        by: UserId,
    },
    /// Set aside for good, with a reason in the audit log.
    Discarded {
        /// When.
        at: Timestamp,
        /// By whom.
        by: UserId,
    },
}

/// One quarantined frame, or one entry of a batch.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineItem {
    /// Our id.
    pub id: QuarantineId,
    /// Who sent it, by certificate.
    pub device: DeviceId,
    /// Language of the bytes.
    pub kind: FrameKind,
    /// When it first arrived.
    pub received_at: Timestamp,
    /// Whether it was sent without a promise of delivery.
    pub at_most_once: bool,
    /// Why it is here.
    pub reason: QuarantineReason,
    /// A sentence for a person.
    pub what: String,
    /// Where in the bytes the trouble begins.
    pub offset: usize,
    /// Where it stands.
    pub state: QuarantineState,
    /// The exact bytes.
    #[serde(with = "hex_bytes")]
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for QuarantineItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "QuarantineItem({:?}, {:?}, {}, {} bytes)",
            self.id,
            self.reason,
            self.kind,
            self.bytes.len()
        )
    }
}

mod hex_bytes {
    //! Bytes as hexadecimal text inside a record.

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write;
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bad = || serde::de::Error::custom("not hexadecimal bytes");
        if text.len() % 2 != 0 || !text.is_ascii() {
            return Err(bad());
        }
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| bad()))
            .collect()
    }
}
