//! Leaves of the audit log: commitments that prove an entry later and show nothing of it now.
//!
//! A leaf is what the log's Merkle tree (RFC 6962, section 2.1) stores of an audit entry. Only the
//! leaf is computed here; the tree, its signed checkpoints and its proofs are not part of this
//! crate yet. The payload may name a person, so it enters only as a keyed commitment: when payload
//! and blinding are erased, the leaf stays, every proof stays valid, and nothing about the person
//! can be guessed from it.

use aws_lc_rs::{digest, hmac};

use crate::random::random_bytes;

/// Length of a blinding value and of a leaf, in bytes.
pub const LEAF_LEN: usize = 32;

/// First byte of what a leaf hashes; inner nodes of the tree begin with 0x01, so that no inner node
/// can be shown as a leaf (RFC 6962, section 2.1).
const LEAF_PREFIX: [u8; 1] = [0x00];

/// A fresh blinding value; store it with the payload, under the same key, and erase both together.
pub fn new_blinding() -> [u8; LEAF_LEN] {
    random_bytes()
}

/// The leaf of one audit entry: SHA-256(0x00 ‖ header ‖ HMAC-SHA256(blinding, payload)).
///
/// The header (sequence number, instant, type, outcome) is public and must carry no personal data.
/// The commitment has a fixed length, so the border between it and the header is never in doubt.
pub fn leaf(header: &[u8], blinding: &[u8; LEAF_LEN], payload: &[u8]) -> [u8; LEAF_LEN] {
    let commitment = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, blinding), payload);
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&LEAF_PREFIX);
    context.update(header);
    context.update(commitment.as_ref());
    let mut out = [0_u8; LEAF_LEN];
    out.copy_from_slice(context.finish().as_ref());
    out
}
