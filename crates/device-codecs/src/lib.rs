//! What devices say: GATT characteristics and the JSON envelope, bytes to measurements and back.
//!
//! Everything here is a pure function of its bytes: no I/O, no clock, no random number. [`decode`] is the one
//! entry point; [`explain()`] shows a person which bytes mean what; the typed structs of [`gatt`] and the
//! `encode_*` functions of [`envelope`] go the other way, for the simulator and for tests.
//!
//! A device may send anything. What cannot be read becomes a [`DecodeFault`](clinical_model::decoded::DecodeFault)
//! with one of the words of [`fault`], never a panic and never half an entry.

pub mod envelope;
pub mod explain;
pub mod fault;
pub mod gatt;

use clinical_model::FrameKind;
use clinical_model::decoded::DecodedFrame;

pub use explain::{ExplainedField, explain};

/// Reads the bytes of a frame in the language of its kind.
///
/// Never fails as a whole: what could not be read stands in the entries as a fault. A FHIR frame is read by
/// another room and comes back unreadable from here.
pub fn decode(kind: FrameKind, bytes: &[u8]) -> DecodedFrame {
    match kind {
        FrameKind::Gatt(number) => gatt::decode(number, bytes),
        FrameKind::Envelope => envelope::decode(bytes),
        FrameKind::Fhir => DecodedFrame::unreadable(bytes.len(), fault::not_a_device_frame()),
    }
}
