//! Leaves of the audit log: commitments that prove an entry later and show nothing of it now.
//!
//! A leaf is what the log's Merkle tree (RFC 6962, section 2.1) stores of an audit entry; the tree,
//! its checkpoints and its proofs are in [`crate::log`]. The payload may name a person, so it enters only as a keyed commitment: when payload
//! and blinding are erased, the leaf stays, every proof stays valid, and nothing about the person
//! can be guessed from it.

use aws_lc_rs::hmac;

use crate::random::random_bytes;

/// Length of a blinding value and of a leaf, in bytes.
pub const LEAF_LEN: usize = 32;

/// A fresh blinding value; store it with the payload, under the same key, and erase both together.
pub fn new_blinding() -> [u8; LEAF_LEN] {
    random_bytes()
}

/// What a leaf hashes after its first byte: header ‖ HMAC-SHA256(blinding, payload).
pub fn leaf_input(header: &[u8], blinding: &[u8; LEAF_LEN], payload: &[u8]) -> Vec<u8> {
    let commitment = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, blinding), payload);
    [header, commitment.as_ref()].concat()
}

/// The leaf of one audit entry: SHA-256(0x00 ‖ header ‖ HMAC-SHA256(blinding, payload)).
///
/// The header (sequence number, instant, type, outcome) is public and must carry no personal data.
/// The commitment has a fixed length, so the border between it and the header is never in doubt.
pub fn leaf(header: &[u8], blinding: &[u8; LEAF_LEN], payload: &[u8]) -> [u8; LEAF_LEN] {
    crate::log::tree::leaf_hash(&leaf_input(header, blinding, payload))
}
