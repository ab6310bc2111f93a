//! The log that can be proven: the Merkle tree over audit leaves, signed checkpoints, witnesses and offline checks.
//!
//! | Module | Answers |
//! |---|---|
//! | [`tree`] | Which hash stands for the first `n` entries, and what proves it (RFC 6962)? |
//! | [`note`] | Who signed this text (C2SP signed-note and cosignature/v1)? |
//! | [`checkpoint`] | How large was the log, and what did it hold (C2SP tlog-checkpoint)? |
//! | [`receipt`] | What proves one entry to somebody without a connection (C2SP tlog-proof)? |
//! | [`witness`] | May a witness cosign this checkpoint (C2SP tlog-witness)? |
//! | [`check`] | Which entry was changed, removed, added or moved? |

pub mod check;
pub mod checkpoint;
pub mod note;
pub mod receipt;
pub mod tree;
pub mod witness;

/// A hash of the tree: of a leaf, of an inner node, or its root (SHA-256).
pub type Hash = [u8; 32];
