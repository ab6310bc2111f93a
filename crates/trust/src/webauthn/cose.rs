//! Public keys of passkeys as COSE keys (RFC 9052, RFC 9053): three algorithms, each with its own shape of key.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::cbor::Map;

/// The algorithms that are offered, the one that is liked best first (COSE numbers): EdDSA, ES256, RS256.
pub const ALGORITHMS: [i64; 3] = [ED_DSA, ES256, RS256];

const ED_DSA: i64 = -8;
const ES256: i64 = -7;
const RS256: i64 = -257;

/// Longest RSA modulus, in bytes.
const MODULUS_LIMIT_BYTES: usize = 512;
/// Shortest RSA modulus, in bytes.
const MODULUS_MIN_BYTES: usize = 256;
/// Longest RSA exponent, in bytes.
const EXPONENT_LIMIT_BYTES: usize = 4;

/// The public key of a passkey. The algorithm is part of it, so that no signature is checked under another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialKey {
    /// ECDSA over P-256 with SHA-256: the uncompressed point (65 bytes).
    Es256(Vec<u8>),
    /// Ed25519: 32 bytes.
    Ed25519(Vec<u8>),
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256 {
        /// Modulus, big endian.
        modulus: Vec<u8>,
        /// Public exponent, big endian.
        exponent: Vec<u8>,
    },
}

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The algorithm is none of those that were offered.
    #[error("the algorithm {algorithm} was not offered")]
    Algorithm {
        /// Its COSE number; 0 where there is none.
        algorithm: i64,
    },
    /// Type, curve or length do not belong to the algorithm.
    #[error("the key is not of the shape that its algorithm asks for")]
    Shape,
    /// The bytes that are kept are no key.
    #[error("the kept key cannot be read")]
    Kept,
}

impl CredentialKey {
    pub(super) fn from_map(map: &Map) -> Result<Self, KeyError> {
        let (kind, algorithm) = (map.integer_at(1), map.integer_at(3).unwrap_or_default());
        let part = |number, len: usize| {
            map.bytes_at(number).filter(|bytes| bytes.len() == len).ok_or(KeyError::Shape)
        };
        let is_shape = |wanted_kind, curve: Option<i64>| {
            kind == Some(wanted_kind) && curve.is_none_or(|curve| map.integer_at(-1) == Some(curve))
        };
        match algorithm {
            ES256 if is_shape(2, Some(1)) => Ok(Self::Es256([&[4], part(-2, 32)?, part(-3, 32)?].concat())),
            ED_DSA if is_shape(1, Some(6)) => Ok(Self::Ed25519(part(-2, 32)?.to_vec())),
            RS256 if is_shape(3, None) => {
                let modulus = map.bytes_at(-1).ok_or(KeyError::Shape)?;
                let exponent = map.bytes_at(-2).ok_or(KeyError::Shape)?;
                let fits = (MODULUS_MIN_BYTES..=MODULUS_LIMIT_BYTES).contains(&modulus.len())
                    && (1..=EXPONENT_LIMIT_BYTES).contains(&exponent.len());
                if !fits {
                    return Err(KeyError::Shape);
                }
                Ok(Self::Rs256 { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
            }
            ES256 | ED_DSA | RS256 => Err(KeyError::Shape),
            algorithm => Err(KeyError::Algorithm { algorithm }),
        }
    }

    /// The key as bytes to be kept; [`CredentialKey::from_bytes`] reads them.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Es256(point) => [b"e", point.as_slice()].concat(),
            Self::Ed25519(key) => [b"d", key.as_slice()].concat(),
            Self::Rs256 { modulus, exponent } => {
                [&[b'r', u8::try_from(exponent.len()).unwrap_or_default()], exponent.as_slice(), modulus]
                    .concat()
            }
        }
    }

    /// Reads a key that was kept.
    ///
    /// # Errors
    /// [`KeyError::Kept`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        match bytes {
            [b'e', point @ ..] if point.len() == 65 => Ok(Self::Es256(point.to_vec())),
            [b'd', key @ ..] if key.len() == 32 => Ok(Self::Ed25519(key.to_vec())),
            [b'r', len, rest @ ..] => {
                let (exponent, modulus) = rest.split_at_checked(usize::from(*len)).ok_or(KeyError::Kept)?;
                Ok(Self::Rs256 { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
            }
            _ => Err(KeyError::Kept),
        }
    }

    /// Whether `signature` is this key's over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Es256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
            Self::Rs256 { modulus, exponent } => RsaPublicKeyComponents { n: modulus, e: exponent }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
        }
    }
}
