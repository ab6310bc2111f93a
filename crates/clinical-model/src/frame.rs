//! A frame: the exact bytes that arrived, from which device, how and when.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;
use crate::time::Timestamp;

/// What language the bytes of a frame are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FrameKind {
    /// One notification or indication of a Bluetooth GATT characteristic, by its 16-bit number.
    Gatt(u16),
    /// The JSON envelope: one reading, or a batch.
    Envelope,
    /// A FHIR R4 Observation, or a Bundle of them, as JSON.
    Fhir,
}

/// A text that names no kind of frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is no kind of frame; known are envelope, fhir and gatt/XXXX with four hexadecimal digits"
)]
pub struct FrameKindError {
    /// What was read, cut to 40 characters.
    pub text: String,
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameKind::Gatt(number) => write!(f, "gatt/{number:04x}"),
            FrameKind::Envelope => f.write_str("envelope"),
            FrameKind::Fhir => f.write_str("fhir"),
        }
    }
}

impl FromStr for FrameKind {
    type Err = FrameKindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "envelope" => Ok(FrameKind::Envelope),
            "fhir" => Ok(FrameKind::Fhir),
            _ => text
                .strip_prefix("gatt/")
                .filter(|digits| digits.len() == 4)
                .and_then(|digits| u16::from_str_radix(digits, 16).ok())
                .map(FrameKind::Gatt)
                .ok_or_else(|| FrameKindError { text: text.chars().take(40).collect() }),
        }
    }
}

impl From<FrameKind> for String {
    fn from(kind: FrameKind) -> String {
        kind.to_string()
    }
}

impl TryFrom<String> for FrameKind {
    type Error = FrameKindError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What the transport promised about delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// MQTT QoS 0: may be lost on the way.
    AtMostOnce,
    /// Repeated until acknowledged.
    AtLeastOnce,
}

/// The exact bytes that arrived.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Who sent them, by certificate or key.
    pub device: DeviceId,
    /// Their language.
    pub kind: FrameKind,
    /// When the last byte arrived here, cut to milliseconds.
    pub received_at: Timestamp,
    /// What the transport promised.
    pub delivery: Delivery,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:?}, {}, {} bytes, {})", self.device, self.kind, self.bytes.len(), self.received_at)
    }
}
