//! What may be believed: keys and envelopes, device certificates, passwords, sealed identifiers.
//!
//! This is the only room that touches key material. It imports no other room, reads and writes no
//! file, opens no socket and reads no clock of its own: instants arrive as arguments (the one
//! exception is the TLS library, which asks the system clock whether a certificate is in date).
//! Randomness comes from the cryptographic library, which seeds itself from the operating system.
//!
//! | Module | Answers |
//! |---|---|
//! | [`keyring`] | Which key opens this, and who may open the key? |
//! | [`kek`] | Which key-encryption keys are in force, and where do they come from? |
//! | [`envelope`] | Is this stored value the one we wrote, in this very row and column? |
//! | [`blind`] | Which row holds this name or record number, without storing either? |
//! | [`identity`] | Which reading is this public id? |
//! | [`jwt`] | Who signed this token, and is it for us? |
//! | [`password`], [`token`] | Is this the person, the session, the link? |
//! | [`webauthn`], [`totp`], [`recovery`] | Is this the person's passkey, authenticator app, recovery code? |
//! | [`pki`], [`tls`] | Which device or program is at the other end of the wire? |
//! | [`attest`] | Which statement of ours can anybody check? |
//! | [`audit`] | What is committed to the log without showing it? |

pub mod attest;
pub mod audit;
#[cfg(feature = "bench-off")]
pub mod bench_off;
pub mod blind;
pub mod digest;
pub mod envelope;
pub mod identity;
pub mod jwt;
pub mod kek;
pub mod keyring;
pub mod log;
pub mod password;
pub mod pki;
pub mod random;
pub mod recovery;
pub mod secret;
pub mod tls;
pub mod token;
pub mod totp;
pub mod webauthn;

mod encoding;
mod guessable;
#[cfg(feature = "planted")]
mod planted;

pub use blind::BlindIndexKey;
pub use envelope::Aad;
pub use identity::{IdentityKey, PackedIdentity};
pub use kek::{KekRing, KekSource, SourceError};
pub use keyring::{Kek, Key, KeyId, derive};
#[cfg(feature = "planted")]
pub use planted::planted;
pub use random::{equal, random_bytes, uuid_v7};
pub use secret::SecretText;
pub use token::{TokenHash, TokenSecret};
