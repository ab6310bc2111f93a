//! Passwords: argon2id hashes as PHC strings, and the few rules a new password must meet.
//!
//! Hashing takes tens of milliseconds and megabytes on purpose: call it where blocking is allowed,
//! and never for more sign-ins at a time than memory permits.
//!
//! What is hashed is the password in normalisation form KC (NIST SP 800-63B, section 3.1.1.2), so that a letter with an
//! accent is the same from every keyboard and system.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error as LibraryError, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};

use unicode_normalization::{UnicodeNormalization as _, is_nfkc};
use zeroize::Zeroizing;

use crate::keyring::{KEY_LEN, Key};
use crate::random::random_bytes;

/// Fewest characters of a password.
pub const MIN_PASSWORD_CHARS: usize = 12;

/// Fewest pieces of a password where a common word, a name, a year, a row of keys or a repetition counts as one, and any
/// other character as one.
pub const MIN_UNITS: usize = 8;

/// Longest password that is hashed, in bytes: hashing a megabyte would be a gift to an attacker.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// Most memory a stored hash may demand, in KiB, lest a forged row exhaust the machine.
pub const MAX_MEMORY_KIB: u32 = 1 << 20;

/// Most passes a stored hash may demand, for the same reason.
pub const MAX_PASSES: u32 = 64;

/// Most lanes a stored hash may demand, for the same reason.
pub const MAX_LANES: u32 = 16;

const SALT_LEN: usize = 16;

/// What one hash costs (argon2id, RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory, in KiB, from 8 times the lanes up to [`MAX_MEMORY_KIB`].
    pub memory_kib: u32,
    /// Passes over the memory, 1 to [`MAX_PASSES`].
    pub passes: u32,
    /// Lanes, 1 to [`MAX_LANES`].
    pub lanes: u32,
}

impl PasswordCost {
    /// The lowest cost the OWASP password storage guidance accepts for argon2id: 19 MiB, two passes.
    pub const OWASP_MINIMUM: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };
}

impl Default for PasswordCost {
    /// 64 MiB and three passes: well above the minimum, still a fraction of a second.
    fn default() -> Self {
        Self { memory_kib: 65_536, passes: 3, lanes: 1 }
    }
}

/// Hashes a password with a random salt; the result is a PHC string that carries its own cost.
///
/// # Errors
/// [`PasswordError::TooLong`], or [`PasswordError::Cost`] for a cost outside the documented ranges.
pub fn hash(password: &str, cost: PasswordCost) -> Result<String, PasswordError> {
    check_len(password)?;
    let salt = random_bytes::<SALT_LEN>();
    let hash = hasher(cost)?
        .hash_password_with_salt(normal(password).as_bytes(), &salt)
        .map_err(|source| PasswordError::Hashing { source })?;
    Ok(hash.to_string())
}

/// Whether `password` is the one behind the PHC string; compared in constant time. Tried normalised, and where that is
/// another text, as it was typed too: earlier releases hashed it so.
///
/// # Errors
/// [`PasswordError::Stored`] when the stored text is no argon2id PHC string, or one that demands
/// more than this system ever asks for; [`PasswordError::TooLong`] for an overlong password.
pub fn verify(password: &str, phc: &str) -> Result<bool, PasswordError> {
    check_len(password)?;
    let (stored, cost) = parse(phc)?;
    let hasher = hasher(cost)?;
    let is = |text: &str| match hasher.verify_password(text.as_bytes(), &stored) {
        Ok(()) => Ok(true),
        Err(LibraryError::PasswordInvalid) => Ok(false),
        Err(source) => {
            Err(PasswordError::Stored { reason: "the hash cannot be computed", source: Some(source) })
        }
    };
    let normalised = is(&normal(password))?;
    // Both always, so that the time is that of `verify_nobody`.
    Ok(if is_nfkc(password) { normalised } else { is(password)? | normalised })
}

/// A password as it is hashed.
fn normal(password: &str) -> Zeroizing<String> {
    Zeroizing::new(password.nfkc().collect())
}

/// Spends the time of one [`verify`] for an account that does not exist, so that the answer's delay
/// does not tell which user names do.
///
/// # Errors
/// As [`hash()`].
pub fn verify_nobody(password: &str, cost: PasswordCost) -> Result<(), PasswordError> {
    hash(password, cost)?;
    if is_nfkc(password) { Ok(()) } else { hash(password, cost).map(drop) }
}

/// A key from a passphrase and a salt (argon2id), for a secret that a person carries away.
///
/// # Errors
/// [`PasswordError::TooLong`], or [`PasswordError::Cost`] for a cost outside the documented ranges.
pub fn derive_key(passphrase: &str, salt: &[u8], cost: PasswordCost) -> Result<Key, PasswordError> {
    check_len(passphrase)?;
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    hasher(cost)?
        .hash_password_into(passphrase.as_bytes(), salt, &mut *bytes)
        .map_err(|_| PasswordError::Cost { cost })?;
    Ok(Key::from_bytes(&bytes))
}

/// Whether a stored hash is cheaper than `cost` and should be made anew at the next sign-in.
///
/// # Errors
/// [`PasswordError::Stored`] as for [`verify`].
pub fn needs_rehash(phc: &str, cost: PasswordCost) -> Result<bool, PasswordError> {
    let (_, stored) = parse(phc)?;
    Ok(stored.memory_kib < cost.memory_kib || stored.passes < cost.passes)
}

/// Checks a new password: at least [`MIN_PASSWORD_CHARS`] characters, at most [`MAX_PASSWORD_BYTES`] bytes, not the user
/// name, not one character repeated, and at least [`MIN_UNITS`] characters that are not guessed with their neighbours.
///
/// Length counts more than kinds of characters (NIST SP 800-63B, section 5.1.1.2), so none are asked for.
///
/// # Errors
/// [`WeakPassword`], whose text may be shown to the person.
pub fn check_strength(password: &str, user_name: &str) -> Result<(), WeakPassword> {
    let normal = normal(password);
    // One sign can stand for a whole phrase, and a letter be written as two: neither makes a password longer.
    let chars = password.chars().count().min(normal.chars().count());
    if chars < MIN_PASSWORD_CHARS {
        return Err(WeakPassword::TooShort { chars });
    }
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(WeakPassword::TooLong { bytes: password.len() });
    }
    let password = normal.as_str();
    if password.trim().to_lowercase() == user_name.trim().to_lowercase() {
        return Err(WeakPassword::EqualsUserName);
    }
    let mut rest = password.chars();
    let first = rest.next();
    if rest.all(|next| Some(next) == first) {
        return Err(WeakPassword::OneCharacter);
    }
    if crate::guessable::units(password, user_name) < MIN_UNITS {
        return Err(WeakPassword::Guessable);
    }
    Ok(())
}

/// Why a password could not be hashed or checked. No variant repeats the password or the hash.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Longer than [`MAX_PASSWORD_BYTES`].
    #[error("the password has {bytes} bytes, more than {MAX_PASSWORD_BYTES}")]
    TooLong {
        /// Length in bytes.
        bytes: usize,
    },
    /// The cost is outside the documented ranges.
    #[error("argon2id cannot run with {} KiB, {} passes and {} lanes", cost.memory_kib, cost.passes, cost.lanes)]
    Cost {
        /// The cost asked for.
        cost: PasswordCost,
    },
    /// The stored hash cannot be used.
    #[error("the stored password hash is unusable: {reason}")]
    Stored {
        /// What is wrong with it.
        reason: &'static str,
        /// What the hashing library says.
        source: Option<LibraryError>,
    },
    /// The library could not compute the hash (memory, for example).
    #[error("the password could not be hashed")]
    Hashing {
        /// What the hashing library says.
        source: LibraryError,
    },
}

/// Why a new password is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    /// Fewer than [`MIN_PASSWORD_CHARS`] characters.
    #[error("the password has {chars} characters; at least {MIN_PASSWORD_CHARS} are needed")]
    TooShort {
        /// Characters given.
        chars: usize,
    },
    /// More than [`MAX_PASSWORD_BYTES`] bytes.
    #[error("the password has {bytes} bytes; at most {MAX_PASSWORD_BYTES} are accepted")]
    TooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// The user name, perhaps in another case.
    #[error("the password must not be the user name")]
    EqualsUserName,
    /// One character repeated.
    #[error("the password must not be one character repeated")]
    OneCharacter,
    /// Made of what is guessed first.
    #[error(
        "the password is made of what is guessed first: common words, your name, years, rows of keys, or one piece \
         repeated; add words that have nothing to do with each other"
    )]
    Guessable,
}

fn check_len(password: &str) -> Result<(), PasswordError> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(PasswordError::TooLong { bytes: password.len() });
    }
    Ok(())
}

fn within_bounds(cost: PasswordCost) -> bool {
    cost.memory_kib <= MAX_MEMORY_KIB && cost.passes <= MAX_PASSES && cost.lanes <= MAX_LANES
}

fn hasher(cost: PasswordCost) -> Result<Argon2<'static>, PasswordError> {
    if !within_bounds(cost) {
        return Err(PasswordError::Cost { cost });
    }
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None)
        .map_err(|_| PasswordError::Cost { cost })?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn parse(phc: &str) -> Result<(PasswordHash, PasswordCost), PasswordError> {
    let unusable = |reason, source| PasswordError::Stored { reason, source };
    let stored = PasswordHash::new(phc).map_err(|_| unusable("not a PHC string", None))?;
    if stored.algorithm.as_str() != Algorithm::Argon2id.as_str() {
        return Err(unusable("the algorithm is not argon2id", None));
    }
    if stored.salt.is_none() || stored.hash.is_none() {
        return Err(unusable("salt or hash is missing", None));
    }
    let params =
        Params::try_from(&stored).map_err(|source| unusable("the parameters are invalid", Some(source)))?;
    let cost = PasswordCost { memory_kib: params.m_cost(), passes: params.t_cost(), lanes: params.p_cost() };
    if !within_bounds(cost) {
        return Err(unusable("it demands more memory, passes or lanes than this system allows", None));
    }
    Ok((stored, cost))
}
