//! Sealed identifiers: the public id of a reading is its identity itself, encrypted as one block.
//!
//! What makes a reading unique (kind, series, measured time, sequence) fills exactly one AES block.
//! Encrypting that block alone is a permutation of all 128-bit values: the same reading has the same
//! id for ever, two readings never share one, no table of ids is kept, and without the key an id is
//! indistinguishable from a random number. A single block has no neighbours whose repetition could
//! show, which is what makes the codebook mode unfit for messages.

use std::fmt;

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey};

use crate::encoding::{hex, unhex_into};
use crate::keyring::Key;

/// Length of a sealed identifier as text: 32 lower-case hexadecimal digits, a valid FHIR `id`.
pub const SEALED_ID_LEN: usize = 32;

/// Largest sequence number: 24 bits.
pub const MAX_SEQUENCE: u32 = (1 << 24) - 1;

/// 2000-01-01T00:00:00Z in microseconds since 1970-01-01T00:00:00Z; packed instants count from here.
pub const EPOCH_2000_US: i64 = 946_684_800_000_000;

/// Earliest measured instant that fits, in microseconds since 1970 (in the year 858).
pub const MIN_MEASURED_US: i64 = EPOCH_2000_US - (1 << 55);

/// Latest measured instant that fits, in microseconds since 1970 (in the year 3141).
pub const MAX_MEASURED_US: i64 = EPOCH_2000_US + (1 << 55) - 1;

const BLOCK_LEN: usize = 16;
const CHECK_BYTE: u8 = 0;

/// What makes a reading unique.
///
/// Packed, most significant byte first: check (1 byte, zero), kind (1), series (4), measured (7,
/// two's complement from the year 2000), sequence (3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackedIdentity {
    /// What kind of thing this is (reading, panel, waveform, …), as the caller numbers them.
    pub kind: u8,
    /// The series' number.
    pub series: u32,
    /// Measured instant, microseconds since 1970-01-01T00:00:00Z, from [`MIN_MEASURED_US`] to
    /// [`MAX_MEASURED_US`].
    pub measured_us: i64,
    /// Sequence among readings of one instant, up to [`MAX_SEQUENCE`].
    pub sequence: u32,
}

impl PackedIdentity {
    fn pack(&self) -> Result<[u8; BLOCK_LEN], SealIdError> {
        if !(MIN_MEASURED_US..=MAX_MEASURED_US).contains(&self.measured_us) {
            return Err(SealIdError::InstantOutOfRange { measured_us: self.measured_us });
        }
        if self.sequence > MAX_SEQUENCE {
            return Err(SealIdError::SequenceOutOfRange { sequence: self.sequence });
        }
        let mut block = [0_u8; BLOCK_LEN];
        block[0] = CHECK_BYTE;
        block[1] = self.kind;
        block[2..6].copy_from_slice(&self.series.to_be_bytes());
        block[6..13].copy_from_slice(&(self.measured_us - EPOCH_2000_US).to_be_bytes()[1..]);
        block[13..].copy_from_slice(&self.sequence.to_be_bytes()[1..]);
        Ok(block)
    }

    fn unpack(block: &[u8; BLOCK_LEN]) -> Option<Self> {
        if block[0] != CHECK_BYTE {
            return None;
        }
        let mut series = [0_u8; 4];
        series.copy_from_slice(&block[2..6]);
        let sign = if block[6] & 0x80 == 0 { 0x00 } else { 0xff };
        let mut offset = [sign; 8];
        offset[1..].copy_from_slice(&block[6..13]);
        let mut sequence = [0_u8; 4];
        sequence[1..].copy_from_slice(&block[13..]);
        Some(Self {
            kind: block[1],
            series: u32::from_be_bytes(series),
            measured_us: i64::from_be_bytes(offset) + EPOCH_2000_US,
            sequence: u32::from_be_bytes(sequence),
        })
    }
}

/// The key that seals identifiers. It must never change while ids it made are in use.
pub struct IdentityKey {
    encrypting: EncryptingKey,
    decrypting: DecryptingKey,
}

impl IdentityKey {
    /// An identity key with the same secret as `key`; derive one for this purpose with
    /// [`crate::keyring::derive`].
    pub fn new(key: &Key) -> Self {
        let unbound =
            || UnboundCipherKey::new(&AES_256, key.bytes()).expect("AES-256 takes every key of 32 bytes");
        Self {
            encrypting: EncryptingKey::ecb(unbound()).expect("AES-256 has this mode"),
            decrypting: DecryptingKey::ecb(unbound()).expect("AES-256 has this mode"),
        }
    }

    /// The public id of an identity: 32 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// [`SealIdError`] when the instant or the sequence does not fit.
    pub fn seal(&self, identity: &PackedIdentity) -> Result<String, SealIdError> {
        let mut block = identity.pack()?;
        self.encrypting.encrypt(&mut block).expect("one whole block always encrypts");
        Ok(hex(&block))
    }

    /// The identity behind a public id.
    ///
    /// Of random texts 255 in 256 are refused by the check byte; the rest give an identity that
    /// exists nowhere. Whether the asker may see it is for the caller to decide in either case.
    ///
    /// # Errors
    /// [`OpenIdError`]; to the outside both variants mean "no such resource".
    pub fn open(&self, id: &str) -> Result<PackedIdentity, OpenIdError> {
        let mut block = [0_u8; BLOCK_LEN];
        let malformed = OpenIdError::Malformed { len: id.len() };
        // One identity has one spelling: upper-case digits would be a second address.
        if id.bytes().any(|digit| digit.is_ascii_uppercase())
            || unhex_into(id.as_bytes(), &mut block).is_err()
        {
            return Err(malformed);
        }
        self.decrypting
            .decrypt(&mut block, DecryptionContext::None)
            .expect("one whole block always decrypts");
        PackedIdentity::unpack(&block).ok_or(OpenIdError::NotOurs)
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(redacted)")
    }
}

/// Why an identity has no public id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealIdError {
    /// The measured instant lies outside the 56 bits kept for it.
    #[error(
        "measured instant {measured_us} µs since 1970 does not fit an identifier \
         ({MIN_MEASURED_US} to {MAX_MEASURED_US})"
    )]
    InstantOutOfRange {
        /// Microseconds since 1970-01-01T00:00:00Z.
        measured_us: i64,
    },
    /// The sequence number lies outside the 24 bits kept for it.
    #[error("sequence {sequence} does not fit an identifier (at most {MAX_SEQUENCE})")]
    SequenceOutOfRange {
        /// The sequence number.
        sequence: u32,
    },
}

/// Why a text is no identifier of this system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenIdError {
    /// Not 32 lower-case hexadecimal digits.
    #[error(
        "an identifier is {SEALED_ID_LEN} lower-case hexadecimal digits; this text of {len} bytes is not"
    )]
    Malformed {
        /// Length of the text, in bytes.
        len: usize,
    },
    /// Well formed, but not sealed with this key.
    #[error("the identifier was not made by this system")]
    NotOurs,
}
