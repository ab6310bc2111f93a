//! Stored values, sealed with AES-256-GCM and bound to the table, row and column they belong to.

use std::sync::atomic::Ordering;

use aws_lc_rs::aead;

use crate::encoding::push_framed;
pub use crate::keyring::{Key, KeyId};
use crate::keyring::{NONCE_LEN, TAG_LEN};

/// The format that [`seal`] writes; the first byte of every sealed value.
pub const FORMAT_VERSION: u8 = 1;

const HEADER_LEN: usize = 1 + 16 + NONCE_LEN;

/// How many bytes longer a sealed value is than the plain one: format, key id, nonce, tag.
pub const OVERHEAD_BYTES: usize = HEADER_LEN + TAG_LEN;

/// Where a sealed value lives. It opens there and nowhere else, so that nobody who can write the
/// database can move one patient's value into another's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aad<'a> {
    /// Table name.
    pub table: &'a str,
    /// The row's primary key, in the one byte form the store always uses for it.
    pub row: &'a [u8],
    /// Column name.
    pub column: &'a str,
}

/// Seals `plaintext` with a random nonce: format (1 byte), key id (16), nonce (12), ciphertext, tag (16).
///
/// # Panics
/// When the system has no randomness, or for a plaintext beyond AES-GCM's limit of 64 GiB.
pub fn seal(key: &Key, key_id: KeyId, aad: Aad<'_>, plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
    out.push(FORMAT_VERSION);
    out.extend_from_slice(&key_id.0);
    out.extend_from_slice(&[0; NONCE_LEN]);
    out.extend_from_slice(plaintext);
    let bound = bind(FORMAT_VERSION, key_id, aad);
    let (nonce, tag) = key
        .aead
        .seal_in_place_separate_tag(aead::Aad::from(bound), &mut out[HEADER_LEN..])
        .expect("sealing fails only without randomness or beyond 64 GiB");
    out[HEADER_LEN - NONCE_LEN..HEADER_LEN].copy_from_slice(nonce.as_ref());
    out.extend_from_slice(tag.as_ref());
    key.seals.fetch_add(1, Ordering::Relaxed);
    out
}

/// Which key sealed this value, read from its header. The header is proven only by [`open`].
///
/// # Errors
/// [`OpenError::TooShort`] or [`OpenError::UnknownFormat`].
pub fn key_id_of(sealed: &[u8]) -> Result<KeyId, OpenError> {
    let Some(&version) = sealed.first() else {
        return Err(OpenError::TooShort { len: 0 });
    };
    if version != FORMAT_VERSION {
        return Err(OpenError::UnknownFormat { version });
    }
    if sealed.len() < OVERHEAD_BYTES {
        return Err(OpenError::TooShort { len: sealed.len() });
    }
    let mut id = [0_u8; 16];
    id.copy_from_slice(&sealed[1..17]);
    Ok(KeyId(id))
}

/// Opens a sealed value for the place it was sealed for.
///
/// # Errors
/// [`OpenError::AuthenticationFailed`] when the key is another, the value was changed, or it was
/// sealed for another place; these cannot be told apart. The other variants need no key.
pub fn open(key: &Key, aad: Aad<'_>, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let key_id = key_id_of(sealed)?;
    let failed = |_| OpenError::AuthenticationFailed {
        key_id,
        table: aad.table.to_owned(),
        column: aad.column.to_owned(),
    };
    let nonce = aead::Nonce::try_assume_unique_for_key(&sealed[HEADER_LEN - NONCE_LEN..HEADER_LEN])
        .map_err(failed)?;
    let mut plain = sealed[HEADER_LEN..].to_vec();
    let bound = bind(sealed[0], key_id, aad);
    let len = key.aead.open_in_place(nonce, aead::Aad::from(bound), &mut plain).map_err(failed)?.len();
    plain.truncate(len);
    Ok(plain)
}

/// Why a sealed value could not be opened. The row is left out on purpose: it may be a patient's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than an empty sealed value.
    #[error("sealed value has {len} bytes, fewer than the {OVERHEAD_BYTES} of an empty one")]
    TooShort {
        /// Bytes found.
        len: usize,
    },
    /// Written by a newer release, or not a sealed value at all.
    #[error("sealed value has format {version}, which this release does not know")]
    UnknownFormat {
        /// The format byte found.
        version: u8,
    },
    /// Wrong key, changed bytes, or moved here from another table, row or column.
    #[error(
        "sealed value in {table}.{column} does not open with key {key_id}: \
         changed, moved from another place, or sealed with another key of that name"
    )]
    AuthenticationFailed {
        /// The key's name in the value's header.
        key_id: KeyId,
        /// The table it was read from.
        table: String,
        /// The column it was read from.
        column: String,
    },
}

fn bind(version: u8, key_id: KeyId, aad: Aad<'_>) -> Vec<u8> {
    let parts = aad.table.len() + aad.row.len() + aad.column.len();
    let mut bound = Vec::with_capacity(1 + 16 + 3 * 8 + parts);
    bound.push(version);
    bound.extend_from_slice(&key_id.0);
    push_framed(&mut bound, aad.table.as_bytes());
    push_framed(&mut bound, aad.row);
    push_framed(&mut bound, aad.column.as_bytes());
    bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::unhex_into;

    fn unhex<const N: usize>(text: &str) -> [u8; N] {
        let mut bytes = [0_u8; N];
        unhex_into(text.as_bytes(), &mut bytes).unwrap();
        bytes
    }

    /// Test case 16 of the GCM specification (McGrew and Viega, appendix B), used by NIST as well.
    #[test]
    fn the_cipher_opens_the_published_vector() {
        let key = Key::from_bytes(&unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"));
        let nonce = aead::Nonce::assume_unique_for_key(unhex("cafebabefacedbaddecaf888"));
        let bound = unhex::<20>("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let mut text = unhex::<76>(concat!(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        ));
        let plain = key.aead.open_in_place(nonce, aead::Aad::from(bound), &mut text).unwrap();
        assert_eq!(
            plain,
            unhex::<60>(concat!(
                "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
                "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            ))
        );
    }
}
