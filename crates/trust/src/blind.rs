//! The keyed blind index: look-up by name or record number without storing either.

use std::fmt;

use aws_lc_rs::hmac;

use crate::keyring::Key;

/// Length of one index value, in bytes. 128 bits keep accidental meetings out of reach.
pub const BLIND_INDEX_LEN: usize = 16;

/// The key of a blind index. Whoever lacks it cannot test guesses of names against the index.
pub struct BlindIndexKey {
    mac: hmac::Key,
}

impl BlindIndexKey {
    /// An index key with the same secret as `key`; derive one for this purpose with
    /// [`crate::keyring::derive`].
    pub fn new(key: &Key) -> Self {
        Self { mac: hmac::Key::new(hmac::HMAC_SHA256, key.bytes()) }
    }

    /// The index value of `value` in `field`: HMAC-SHA256 over both, cut to 16 bytes.
    ///
    /// Only equality can be asked, so the caller must bring the value into one normal form first
    /// (case, accents, spaces). The same value in two fields gives two unrelated index values.
    pub fn index(&self, field: &str, value: &str) -> [u8; BLIND_INDEX_LEN] {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(&(field.len() as u64).to_le_bytes());
        context.update(field.as_bytes());
        context.update(value.as_bytes());
        let tag = context.sign();
        let mut out = [0_u8; BLIND_INDEX_LEN];
        out.copy_from_slice(&tag.as_ref()[..BLIND_INDEX_LEN]);
        out
    }
}

impl fmt::Debug for BlindIndexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlindIndexKey(redacted)")
    }
}
