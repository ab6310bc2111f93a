//! Private keys as files: sealed with a key that the key-encryption key wraps, or with a passphrase for what leaves the house.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::encoding::{hex, unhex_into};
use crate::envelope::{self, Aad, OpenError};
use crate::kek::KekRing;
use crate::keyring::{Kek, Key, KeyId, UnwrapError};
use crate::password::{self, PasswordCost, PasswordError};
use crate::random::random_bytes;
use crate::secret::SecretText;

/// What a file with the wrapped key begins with.
const WRAPPED_HEAD: &str = "auscult-sealing-key-1";
/// What a file with a sealed private key begins with.
const SEALED_HEAD: &str = "auscult-sealed-1";
/// What a file with a private key under a passphrase begins with.
const PASSPHRASE_HEAD: &str = "auscult-passphrase-1";
/// The domain under which the key-encryption key wraps the sealing key.
const DOMAIN: &str = "pki";
const SALT_LEN: usize = 16;
/// Longest file that is looked at, in bytes: an RSA key of 4,096 bits has 3 KiB.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// The key of an authority's directory: everything secret there is sealed with it.
pub struct SealingKey {
    id: KeyId,
    key: Key,
}

impl SealingKey {
    /// A new one.
    pub fn generate() -> Self {
        SealingKey { id: KeyId::generate(), key: Key::generate() }
    }

    /// As it stands in its file, wrapped by the key-encryption key.
    pub fn to_text(&self, kek: &Kek) -> String {
        let wrapped = kek.wrap(DOMAIN, self.id, &self.key);
        format!("{WRAPPED_HEAD} {} {}\n", hex(&self.id.0), STANDARD.encode(wrapped))
    }

    /// Reads its file.
    ///
    /// # Errors
    /// [`SealedError`].
    pub fn from_text(text: &str, keks: &KekRing) -> Result<Self, SealedError> {
        let (id, wrapped) = two_words(text, WRAPPED_HEAD)?;
        let mut bytes = [0; 16];
        unhex_into(id.as_bytes(), &mut bytes).map_err(|_| SealedError::Malformed)?;
        let wrapped = STANDARD.decode(wrapped).map_err(|_| SealedError::Malformed)?;
        let id = KeyId(bytes);
        // Of none of them: the current one says which it needs.
        let kek = keks.that_wrapped(&wrapped).unwrap_or_else(|| keks.current());
        let key = kek.unwrap(DOMAIN, id, &wrapped).map_err(|source| SealedError::Kek { source })?;
        Ok(SealingKey { id, key })
    }

    /// A private key as it stands in the file `name`; it opens under that name only.
    pub fn seal(&self, name: &str, secret: &SecretText) -> String {
        let sealed = envelope::seal(&self.key, self.id, place(name), secret.expose().as_bytes());
        format!("{SEALED_HEAD} {}\n", STANDARD.encode(sealed))
    }

    /// Opens the file `name`.
    ///
    /// # Errors
    /// [`SealedError`].
    pub fn open(&self, name: &str, text: &str) -> Result<SecretText, SealedError> {
        let sealed = STANDARD.decode(word(text, SEALED_HEAD)?).map_err(|_| SealedError::Malformed)?;
        let plain =
            envelope::open(&self.key, place(name), &sealed).map_err(|source| SealedError::Open { source })?;
        String::from_utf8(plain).map(SecretText::new).map_err(|_| SealedError::Malformed)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.id)
    }
}

/// Whether a text is a private key in the clear.
pub fn is_plain_key(text: &str) -> bool {
    text.contains("PRIVATE KEY-----")
}

/// Whether a text is a private key under a passphrase.
pub fn is_under_passphrase(text: &str) -> bool {
    text.starts_with(PASSPHRASE_HEAD)
}

/// A private key under a passphrase (argon2id), for what an operator takes away.
///
/// # Errors
/// [`SealedError::Passphrase`].
pub fn seal_with_passphrase(
    name: &str,
    secret: &SecretText,
    passphrase: &SecretText,
) -> Result<String, SealedError> {
    let salt = random_bytes::<SALT_LEN>();
    let cost = PasswordCost::default();
    let (id, key) = derived(passphrase, &salt, cost)?;
    let sealed = envelope::seal(&key, id, place(name), secret.expose().as_bytes());
    let cost = format!("{},{},{}", cost.memory_kib, cost.passes, cost.lanes);
    Ok(format!("{PASSPHRASE_HEAD} {cost} {} {}\n", hex(&salt), STANDARD.encode(sealed)))
}

/// Opens a private key under a passphrase.
///
/// # Errors
/// [`SealedError`]; a wrong passphrase is [`SealedError::Open`].
pub fn open_with_passphrase(
    name: &str,
    text: &str,
    passphrase: &SecretText,
) -> Result<SecretText, SealedError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(SealedError::Malformed);
    }
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [PASSPHRASE_HEAD, cost, salt, sealed] = words[..] else { return Err(SealedError::Malformed) };
    let numbers: Vec<u32> = cost.split(',').filter_map(|number| number.parse().ok()).collect();
    let [memory_kib, passes, lanes] = numbers[..] else { return Err(SealedError::Malformed) };
    let mut salt_bytes = [0; SALT_LEN];
    unhex_into(salt.as_bytes(), &mut salt_bytes).map_err(|_| SealedError::Malformed)?;
    let (_, key) = derived(passphrase, &salt_bytes, PasswordCost { memory_kib, passes, lanes })?;
    let sealed = STANDARD.decode(sealed).map_err(|_| SealedError::Malformed)?;
    let plain = envelope::open(&key, place(name), &sealed).map_err(|source| SealedError::Open { source })?;
    String::from_utf8(plain).map(SecretText::new).map_err(|_| SealedError::Malformed)
}

fn derived(
    passphrase: &SecretText,
    salt: &[u8; SALT_LEN],
    cost: PasswordCost,
) -> Result<(KeyId, Key), SealedError> {
    let key = password::derive_key(passphrase.expose(), salt, cost)
        .map_err(|source| SealedError::Passphrase { source })?;
    // The name tells nothing: it is the salt's, and the same salt is never used twice.
    Ok((KeyId(*salt), key))
}

fn place(name: &str) -> Aad<'_> {
    Aad { table: "pki", row: name.as_bytes(), column: "key" }
}

fn word<'a>(text: &'a str, head: &str) -> Result<&'a str, SealedError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(SealedError::Malformed);
    }
    let mut words = text.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(first), Some(word), None) if first == head => Ok(word),
        _ => Err(SealedError::Malformed),
    }
}

fn two_words<'a>(text: &'a str, head: &str) -> Result<(&'a str, &'a str), SealedError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(SealedError::Malformed);
    }
    let mut words = text.split_ascii_whitespace();
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(first), Some(one), Some(two), None) if first == head => Ok((one, two)),
        _ => Err(SealedError::Malformed),
    }
}

/// Why a private key cannot be had from its file.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// Not a file of ours, or a damaged one.
    #[error("the file is no sealed key, or it is damaged")]
    Malformed,
    /// Another key-encryption key.
    #[error("the key-encryption key does not open the directory of the authority")]
    Kek {
        /// Which one it needs.
        source: UnwrapError,
    },
    /// Damaged, moved here from another file, or a wrong passphrase.
    #[error("the sealed key does not open: the file was changed, or the passphrase is another")]
    Open {
        /// What failed.
        source: OpenError,
    },
    /// A passphrase that cannot be used.
    #[error("the passphrase cannot be used")]
    Passphrase {
        /// Why.
        source: PasswordError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> SecretText {
        SecretText::new("-----BEGIN PRIVATE KEY-----\nabc\n".to_owned())
    }

    #[test]
    fn a_sealed_key_opens_with_its_key_and_under_its_name_only() {
        let (kek, other) = (Kek::generate(), Kek::generate());
        let sealing = SealingKey::generate();
        let text = sealing.seal("issuing.key", &secret());
        assert!(!text.contains("PRIVATE") && !is_plain_key(&text));
        let (file, other) = (sealing.to_text(&kek), KekRing::from(other));
        let again = SealingKey::from_text(&file, &KekRing::from(kek)).unwrap();
        assert_eq!(again.open("issuing.key", &text).unwrap().expose(), secret().expose());
        assert!(matches!(again.open("root.key", &text), Err(SealedError::Open { .. })));
        assert!(matches!(SealingKey::from_text(&file, &other), Err(SealedError::Kek { .. })));
        assert!(matches!(SealingKey::from_text("x", &other), Err(SealedError::Malformed)));
        assert!(!format!("{sealing:?} {text}").contains("BEGIN"));
    }

    #[test]
    fn a_passphrase_opens_what_it_sealed_and_nothing_else_does() {
        let phrase = SecretText::new("correct horse battery staple".to_owned());
        let text = seal_with_passphrase("root.key", &secret(), &phrase).unwrap();
        assert!(is_under_passphrase(&text) && !text.contains("PRIVATE"));
        assert_eq!(open_with_passphrase("root.key", &text, &phrase).unwrap().expose(), secret().expose());
        let wrong = SecretText::new("another one entirely".to_owned());
        assert!(matches!(open_with_passphrase("root.key", &text, &wrong), Err(SealedError::Open { .. })));
        assert!(matches!(open_with_passphrase("other.key", &text, &phrase), Err(SealedError::Open { .. })));
        let greedy = text.replacen("65536,", "4000000000,", 1);
        assert!(matches!(
            open_with_passphrase("root.key", &greedy, &phrase),
            Err(SealedError::Passphrase { .. })
        ));
    }
}
