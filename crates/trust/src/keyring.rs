//! Data keys, and the key-encryption key that wraps them and lives elsewhere than the data.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{self, RandomizedNonceKey};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::encoding::{hex, push_framed, unhex_into};
use crate::random::random_bytes;
use crate::secret::SecretText;

/// Length of every key of this room, in bytes (AES-256, HMAC-SHA256).
pub const KEY_LEN: usize = 32;

/// How many values one data key may seal before it must be replaced.
///
/// Nonces are random, and NIST SP 800-38D (section 8.3) allows 2^32 of them under one key; half of
/// that leaves room for values sealed by a process that ended before it could count them.
pub const MAX_SEALS_PER_KEY: u64 = 1 << 31;

/// Nonce length of AES-GCM, in bytes.
pub(crate) const NONCE_LEN: usize = 12;
/// Tag length of AES-GCM, in bytes.
pub(crate) const TAG_LEN: usize = 16;

const WRAP_VERSION: u8 = 1;
const FINGERPRINT_LEN: usize = 8;
const WRAP_HEADER_LEN: usize = 1 + FINGERPRINT_LEN + NONCE_LEN;

/// Length of a wrapped key, in bytes: version, fingerprint, nonce, key, tag.
pub const WRAPPED_LEN: usize = WRAP_HEADER_LEN + KEY_LEN + TAG_LEN;

/// Longest key-encryption key file that is looked at, in bytes: 64 digits and generous white space.
pub const MAX_KEK_TEXT_BYTES: usize = 256;

const KEK_HEX_LEN: usize = 2 * KEY_LEN;
const KEK_BASE64_LEN: usize = 44;

/// The name of a data key, written in front of everything it sealed. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);

impl KeyId {
    /// A fresh random name; two never meet.
    pub fn generate() -> Self {
        Self(random_bytes())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A 256-bit data key with its prepared cipher. Wiped when dropped; `Debug` shows nothing.
///
/// Preparing the cipher costs more than sealing a short value, so keep a `Key` (behind an `Arc`)
/// instead of making it anew for each value.
pub struct Key {
    bytes: Zeroizing<[u8; KEY_LEN]>,
    pub(crate) aead: RandomizedNonceKey,
    pub(crate) seals: AtomicU64,
}

impl Key {
    /// A fresh random key.
    pub fn generate() -> Self {
        Self::from_secret(Zeroizing::new(random_bytes()))
    }

    /// A key from bytes that another part of the product kept. Prefer [`Kek::unwrap`].
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        Self::from_secret(Zeroizing::new(*bytes))
    }

    /// How many values this object has sealed since it was made; compare [`MAX_SEALS_PER_KEY`].
    pub fn seals(&self) -> u64 {
        self.seals.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }

    fn from_secret(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        let aead = RandomizedNonceKey::new(&aead::AES_256_GCM, &*bytes)
            .expect("AES-256-GCM takes every key of 32 bytes");
        Self { bytes, aead, seals: AtomicU64::new(0) }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

/// A key for one purpose, derived from `key` with HKDF-SHA256 (RFC 5869, no salt, `purpose` as info).
///
/// One stored key can so serve several uses without any of them learning the others. The purpose is
/// part of the stored data's format: changing its spelling makes old data unreadable.
pub fn derive(key: &Key, purpose: &str) -> Key {
    Key::from_secret(expand(key.bytes(), &[b"auscult/derive/v1/", purpose.as_bytes()]))
}

/// The key-encryption key: it wraps data keys and must not live beside the data it protects.
///
/// Everything is done with keys derived from it, so the raw value is used for nothing itself.
pub struct Kek {
    bytes: Zeroizing<[u8; KEY_LEN]>,
    wrapping: RandomizedNonceKey,
    fingerprint: [u8; FINGERPRINT_LEN],
}

impl Kek {
    /// A fresh random key-encryption key.
    pub fn generate() -> Self {
        Self::from_bytes(&random_bytes())
    }

    /// A key-encryption key from its 32 bytes.
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        let bytes = Zeroizing::new(*bytes);
        let wrapping_key = expand(&bytes, &[b"auscult/kek/wrap/v1"]);
        let wrapping = RandomizedNonceKey::new(&aead::AES_256_GCM, &*wrapping_key)
            .expect("AES-256-GCM takes every key of 32 bytes");
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*bytes), b"auscult/kek/fingerprint/v1");
        let mut fingerprint = [0_u8; FINGERPRINT_LEN];
        fingerprint.copy_from_slice(&mac.as_ref()[..FINGERPRINT_LEN]);
        Self { bytes, wrapping, fingerprint }
    }

    /// Reads a key-encryption key as it stands in a file or a variable: 32 raw bytes, 64 hexadecimal
    /// digits, or 44 characters of base64; white space around a text is ignored, and so is one line
    /// end after raw bytes.
    ///
    /// # Errors
    /// [`KekParseError`] says what was found instead, without repeating any of it.
    pub fn parse(input: impl AsRef<[u8]>) -> Result<Self, KekParseError> {
        let input = input.as_ref();
        if input.is_empty() {
            return Err(KekParseError::Empty);
        }
        if input.len() > MAX_KEK_TEXT_BYTES {
            return Err(KekParseError::TooLong { len: input.len() });
        }
        let text = input.trim_ascii();
        let mut bytes = Zeroizing::new([0_u8; KEY_LEN]);
        match text.len() {
            0 => return Err(KekParseError::Empty),
            KEK_HEX_LEN => unhex_into(text, &mut *bytes)
                .map_err(|position| KekParseError::NotHexadecimal { position: position + 1 })?,
            KEK_BASE64_LEN => decode_base64(text, &mut bytes)?,
            _ => bytes.copy_from_slice(raw_bytes(input, text.len())?),
        }
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(KekParseError::Trivial);
        }
        Ok(Self::from_bytes(&bytes))
    }

    /// The key as 44 characters of base64, to be written to a file that only the owner may read.
    pub fn to_text(&self) -> SecretText {
        SecretText::new(STANDARD.encode(*self.bytes))
    }

    /// Eight bytes that tell one key-encryption key from another and say nothing about it.
    pub fn fingerprint(&self) -> [u8; FINGERPRINT_LEN] {
        self.fingerprint
    }

    /// [`Kek::fingerprint`] as 16 hexadecimal digits, for logs and error messages.
    pub fn fingerprint_text(&self) -> String {
        hex(&self.fingerprint)
    }

    /// Wraps a data key (AES-256-GCM). The domain (what the key is for, for example `patient`) and
    /// the key's name are bound in: a wrapped key works under both or not at all.
    pub fn wrap(&self, domain: &str, key_id: KeyId, key: &Key) -> Vec<u8> {
        let mut out = Vec::with_capacity(WRAPPED_LEN);
        out.push(WRAP_VERSION);
        out.extend_from_slice(&self.fingerprint);
        out.extend_from_slice(&[0; NONCE_LEN]);
        out.extend_from_slice(key.bytes());
        let aad = wrap_aad(domain, key_id);
        let (nonce, tag) = self
            .wrapping
            .seal_in_place_separate_tag(aead::Aad::from(aad), &mut out[WRAP_HEADER_LEN..])
            .expect("sealing 32 bytes fails only without randomness");
        out[1 + FINGERPRINT_LEN..WRAP_HEADER_LEN].copy_from_slice(nonce.as_ref());
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// Opens a wrapped data key.
    ///
    /// # Errors
    /// [`UnwrapError::WrongKek`] when it was wrapped with another key-encryption key; the other
    /// variants when the bytes are not what [`Kek::wrap`] wrote for this domain and name.
    pub fn unwrap(&self, domain: &str, key_id: KeyId, wrapped: &[u8]) -> Result<Key, UnwrapError> {
        let Some((&version, rest)) = wrapped.split_first() else {
            return Err(UnwrapError::WrongLength { key_id, len: 0 });
        };
        if version != WRAP_VERSION {
            return Err(UnwrapError::UnknownFormat { key_id, version });
        }
        if wrapped.len() != WRAPPED_LEN {
            return Err(UnwrapError::WrongLength { key_id, len: wrapped.len() });
        }
        let (fingerprint, rest) = rest.split_at(FINGERPRINT_LEN);
        if fingerprint != self.fingerprint {
            return Err(UnwrapError::WrongKek {
                key_id,
                needed: hex(fingerprint),
                given: self.fingerprint_text(),
            });
        }
        let failed = || UnwrapError::AuthenticationFailed { key_id, domain: domain.to_owned() };
        let (nonce, ciphertext) = rest.split_at(NONCE_LEN);
        let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut buffer = Zeroizing::new([0_u8; KEY_LEN + TAG_LEN]);
        buffer.copy_from_slice(ciphertext);
        let plain = self
            .wrapping
            .open_in_place(nonce, aead::Aad::from(wrap_aad(domain, key_id)), &mut *buffer)
            .map_err(|_| failed())?;
        let mut bytes = Zeroizing::new([0_u8; KEY_LEN]);
        bytes.copy_from_slice(plain);
        Ok(Key::from_secret(bytes))
    }
}

/// The fingerprint of the key-encryption key that wrapped a data key; `None` for what is no wrapped key.
pub fn wrapped_by(wrapped: &[u8]) -> Option<[u8; FINGERPRINT_LEN]> {
    (wrapped.len() == WRAPPED_LEN && wrapped[0] == WRAP_VERSION)
        .then(|| wrapped[1..].first_chunk().copied())
        .flatten()
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kek(fingerprint {})", self.fingerprint_text())
    }
}

/// Why a key-encryption key could not be read. No variant repeats what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KekParseError {
    /// Nothing there, or white space only.
    #[error("the key-encryption key is empty")]
    Empty,
    /// Far longer than any accepted form.
    #[error(
        "the key-encryption key is {len} bytes long, more than any accepted form; is this the right file?"
    )]
    TooLong {
        /// Bytes given.
        len: usize,
    },
    /// Neither 32 raw bytes, nor 64 digits, nor 44 characters.
    #[error(
        "the key-encryption key is {len} bytes long without white space; \
         expected 32 raw bytes, 64 hexadecimal digits or 44 characters of base64"
    )]
    WrongLength {
        /// Bytes given, without surrounding white space.
        len: usize,
    },
    /// 64 characters, but not all of them hexadecimal digits.
    #[error("the key-encryption key has 64 characters, but character {position} is no hexadecimal digit")]
    NotHexadecimal {
        /// The first wrong character, counted from 1.
        position: usize,
    },
    /// 44 characters, but not the base64 of 32 bytes.
    #[error("the key-encryption key has 44 characters, but they are not base64 of 32 bytes")]
    NotBase64,
    /// 32 printable characters: somebody typed a phrase instead of drawing a key.
    #[error(
        "the key-encryption key is 32 typed characters, not 32 random bytes; draw one with the product's own command"
    )]
    TypedPhrase,
    /// All bytes are the same.
    #[error("the key-encryption key repeats one single byte; draw one with the product's own command")]
    Trivial,
}

/// Why a wrapped data key could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// Not the length of a wrapped key.
    #[error("wrapped key {key_id} has {len} bytes instead of {WRAPPED_LEN}")]
    WrongLength {
        /// The key's name.
        key_id: KeyId,
        /// Bytes found.
        len: usize,
    },
    /// Written by a newer release, or damaged.
    #[error("wrapped key {key_id} has format {version}, which this release does not know")]
    UnknownFormat {
        /// The key's name.
        key_id: KeyId,
        /// The format byte found.
        version: u8,
    },
    /// Wrapped by another key-encryption key than the one in use.
    #[error(
        "data key {key_id} needs the key-encryption key with fingerprint {needed}, but {given} was given"
    )]
    WrongKek {
        /// The key's name.
        key_id: KeyId,
        /// Fingerprint of the key-encryption key that wrapped it.
        needed: String,
        /// Fingerprint of the key-encryption key in use.
        given: String,
    },
    /// Damaged or moved here from another domain or another key's row.
    #[error("wrapped key {key_id} is damaged or does not belong to the domain {domain}")]
    AuthenticationFailed {
        /// The key's name.
        key_id: KeyId,
        /// The domain it was asked for.
        domain: String,
    },
}

fn expand(secret: &[u8; KEY_LEN], info: &[&[u8]]) -> Zeroizing<[u8; KEY_LEN]> {
    let mut out = Zeroizing::new([0_u8; KEY_LEN]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(secret)
        .expand(info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *out))
        .expect("HKDF-SHA256 gives 32 bytes for every info of this room");
    out
}

fn wrap_aad(domain: &str, key_id: KeyId) -> Vec<u8> {
    let mut aad = Vec::with_capacity(64 + domain.len());
    push_framed(&mut aad, b"auscult/wrapped-key");
    aad.push(WRAP_VERSION);
    push_framed(&mut aad, domain.as_bytes());
    aad.extend_from_slice(&key_id.0);
    aad
}

fn decode_base64(text: &[u8], out: &mut [u8; KEY_LEN]) -> Result<(), KekParseError> {
    // 44 characters of base64 can carry 33 bytes, which is no key.
    let mut buffer = Zeroizing::new([0_u8; KEY_LEN + 1]);
    match STANDARD.decode_slice(text, &mut *buffer) {
        Ok(KEY_LEN) => {
            out.copy_from_slice(&buffer[..KEY_LEN]);
            Ok(())
        }
        _ => Err(KekParseError::NotBase64),
    }
}

fn raw_bytes(input: &[u8], trimmed_len: usize) -> Result<&[u8], KekParseError> {
    // Raw bytes may begin or end with a byte that looks like white space, so they are not trimmed.
    let raw = match input {
        [raw @ .., b'\r', b'\n'] if raw.len() == KEY_LEN => raw,
        [raw @ .., b'\n'] if raw.len() == KEY_LEN => raw,
        _ => input,
    };
    if raw.len() != KEY_LEN {
        return Err(KekParseError::WrongLength { len: trimmed_len });
    }
    // 32 random bytes are all printable once in 10^14 draws; a typed phrase always is.
    if raw.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        return Err(KekParseError::TypedPhrase);
    }
    Ok(raw)
}
