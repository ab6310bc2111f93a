//! Public keys as JSON Web Keys (RFC 7517) and as PEM, each for its own algorithms only.

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use x509_parser::prelude::FromDer as _;

use super::Algorithm;

/// Most keys of one set.
pub const KEYS_LIMIT: usize = 32;
/// Fewest and most bits of an RSA modulus: below nobody should trust it, above checking costs too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;
/// Longest exponent of an RSA key, in bytes.
const RSA_EXPONENT_LIMIT_BYTES: usize = 4;

/// Why a public key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is no JSON Web Key set, or no PEM of a public key.
    #[error("this is no set of public keys: {what}")]
    Malformed {
        /// In what way.
        what: &'static str,
    },
    /// There are none, or too many.
    #[error("a set has 1 to {KEYS_LIMIT} keys, this one {found}")]
    Count {
        /// Keys found.
        found: usize,
    },
    /// A private or symmetric key was sent.
    #[error(
        "key {position} is private or symmetric: whoever sent it must make a new one and send its public half only"
    )]
    Private {
        /// Its place in the set, counted from 1.
        position: usize,
    },
    /// A kind of key that is not taken.
    #[error("key {position} cannot be used: {what}")]
    Unusable {
        /// Its place in the set, counted from 1.
        position: usize,
        /// Why.
        what: &'static str,
    },
    /// Two keys have one name.
    #[error("two keys are called by one kid")]
    TwoOfOneName,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    /// Uncompressed point.
    P256(Vec<u8>),
    /// Uncompressed point.
    P384(Vec<u8>),
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    Ed25519(Vec<u8>),
}

/// A public key with the algorithms for which it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kid: Option<String>,
    /// `alg` of the key, where it says one.
    only: Option<Algorithm>,
    material: Material,
}

impl PublicKey {
    fn from_jwk(jwk: &Map<String, Value>, position: usize) -> Result<Self, KeyError> {
        let unusable = |what| KeyError::Unusable { position, what };
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            let given = text(name).ok_or(unusable("a part is missing"))?;
            URL_SAFE_NO_PAD.decode(given).map_err(|_| unusable("a part is no base64url"))
        };
        if ["d", "p", "q", "dp", "dq", "qi", "k"].iter().any(|name| jwk.contains_key(*name)) {
            return Err(KeyError::Private { position });
        }
        if text("use").is_some_and(|used| used != "sig") {
            return Err(unusable("it is not for signatures"));
        }
        if let Some(operations) = jwk.get("key_ops").and_then(Value::as_array)
            && !operations.iter().any(|one| one == "verify")
        {
            return Err(unusable("it is not for verifying"));
        }
        let only = match text("alg") {
            None => None,
            Some(name) => {
                let known = Algorithm::ALL.into_iter().find(|one| one.name() == name);
                Some(known.ok_or(unusable("its algorithm is not taken here"))?)
            }
        };
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            let fits = x.len() == length && y.len() == length;
            fits.then(|| [&[4][..], &x, &y].concat()).ok_or(unusable("the point has another length"))
        };
        let material = match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => Material::P256(point(32)?),
            (Some("EC"), Some("P-384")) => Material::P384(point(48)?),
            (Some("OKP"), Some("Ed25519")) => {
                let x = bytes("x")?;
                if x.len() != 32 {
                    return Err(unusable("the point has another length"));
                }
                Material::Ed25519(x)
            }
            (Some("RSA"), _) => {
                rsa(&bytes("n")?, &bytes("e")?).ok_or(unusable("an RSA key has 2048 to 4096 bits"))?
            }
            _ => return Err(unusable("its kind or curve is not taken here")),
        };
        let key = PublicKey { kid: text("kid").map(str::to_owned), only, material };
        if key.only.is_some_and(|only| !key.fits(only)) {
            return Err(unusable("its algorithm is of another kind of key"));
        }
        Ok(key)
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let by_kind = match self.material {
            Material::P256(_) => algorithm == Algorithm::Es256,
            Material::P384(_) => algorithm == Algorithm::Es384,
            Material::Ed25519(_) => algorithm == Algorithm::EdDsa,
            Material::Rsa { .. } => {
                use Algorithm as A;
                matches!(algorithm, A::Rs256 | A::Rs384 | A::Ps256 | A::Ps384)
            }
        };
        by_kind && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether a signature is by this key, in the fixed-length form of RFC 7518 §3.4 for the elliptic curves.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        match &self.material {
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            Material::P384(point) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature).is_ok()
            }
            Material::Ed25519(point) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature).is_ok()
            }
            Material::Rsa { modulus, exponent } => {
                let rules = match algorithm {
                    Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
                    _ => &RSA_PSS_2048_8192_SHA384,
                };
                PublicKeyComponents { n: modulus, e: exponent }.verify(rules, message, signature).is_ok()
            }
        }
    }

    fn to_jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.material {
            Material::P256(point) => {
                json!({"kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Material::P384(point) => {
                json!({"kty": "EC", "crv": "P-384", "x": text(&point[1..49]), "y": text(&point[49..])})
            }
            Material::Ed25519(point) => json!({"kty": "OKP", "crv": "Ed25519", "x": text(point)}),
            Material::Rsa { modulus, exponent } => {
                json!({"kty": "RSA", "n": text(modulus), "e": text(exponent)})
            }
        };
        jwk["use"] = json!("sig");
        if let Some(kid) = &self.kid {
            jwk["kid"] = json!(kid);
        }
        if let Some(only) = self.only {
            jwk["alg"] = json!(only.name());
        }
        jwk
    }
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Material> {
    let trimmed = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
    let (modulus, exponent) = (trimmed(modulus), trimmed(exponent));
    let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
    let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
    let is_small = exponent.len() <= RSA_EXPONENT_LIMIT_BYTES && exponent != [1];
    (RSA_BITS.contains(&bits) && is_odd && is_small).then_some(Material::Rsa { modulus, exponent })
}

/// A set of public keys of one party.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeySet(Vec<PublicKey>);

impl KeySet {
    /// Reads a JSON Web Key set; every key must be usable.
    ///
    /// # Errors
    /// [`KeyError`], for the first key that is not.
    pub fn from_jwks(jwks: &Value) -> Result<Self, KeyError> {
        let keys = listed(jwks)?;
        let mut set = Vec::with_capacity(keys.len());
        for (place, jwk) in keys.iter().enumerate() {
            let jwk = jwk.as_object().ok_or(KeyError::Malformed { what: "a key is no object" })?;
            let key = PublicKey::from_jwk(jwk, place + 1)?;
            if key.kid.is_some() && set.iter().any(|known: &PublicKey| known.kid == key.kid) {
                return Err(KeyError::TwoOfOneName);
            }
            set.push(key);
        }
        Ok(KeySet(set))
    }

    /// Reads a JSON Web Key set of somebody who publishes keys for others too; those that are not usable here are left
    /// out.
    ///
    /// # Errors
    /// [`KeyError`] where it is no set, or none is left.
    pub fn from_published(jwks: &Value) -> Result<Self, KeyError> {
        let keys = listed(jwks)?.iter().enumerate();
        let usable = keys.filter_map(|(place, jwk)| PublicKey::from_jwk(jwk.as_object()?, place + 1).ok());
        let set: Vec<PublicKey> = usable.collect();
        if set.is_empty() { Err(KeyError::Count { found: 0 }) } else { Ok(KeySet(set)) }
    }

    /// Reads one public key as PEM (`BEGIN PUBLIC KEY`), as `openssl pkey -pubout` writes it.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let malformed = |what| KeyError::Malformed { what };
        if pem.contains("PRIVATE KEY") {
            return Err(KeyError::Private { position: 1 });
        }
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| malformed("no PEM"))?;
        if pem.label != "PUBLIC KEY" {
            return Err(malformed("not BEGIN PUBLIC KEY"));
        }
        let (rest, info) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&pem.contents)
            .map_err(|_| malformed("no SubjectPublicKeyInfo"))?;
        if !rest.is_empty() {
            return Err(malformed("something follows the key"));
        }
        use x509_parser::public_key::PublicKey as Parsed;
        let material = match info.parsed() {
            Ok(Parsed::RSA(key)) => rsa(key.modulus, key.exponent),
            Ok(Parsed::EC(point)) => match point.data() {
                data if data.len() == 65 && data[0] == 4 => Some(Material::P256(data.to_vec())),
                data if data.len() == 97 && data[0] == 4 => Some(Material::P384(data.to_vec())),
                _ => None,
            },
            Ok(Parsed::Unknown(data))
                if data.len() == 32 && info.algorithm.algorithm.to_id_string() == "1.3.101.112" =>
            {
                Some(Material::Ed25519(data.to_vec()))
            }
            _ => None,
        };
        let what = "only P-256, P-384, Ed25519 and RSA of 2048 to 4096 bits are taken here";
        let material = material.ok_or(KeyError::Unusable { position: 1, what })?;
        Ok(KeySet(vec![PublicKey { kid: None, only: None, material }]))
    }

    /// The set as JSON, as it is kept and shown.
    pub fn to_jwks(&self) -> Value {
        json!({"keys": self.0.iter().map(PublicKey::to_jwk).collect::<Vec<_>>()})
    }

    /// The keys of a `kid` for an algorithm. A key without a name fits every name: whoever registered a PEM has one.
    pub(super) fn fitting<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a PublicKey> {
        self.0.iter().filter(move |key| {
            let is_named = match (kid, key.kid.as_deref()) {
                (Some(wanted), Some(own)) => wanted == own,
                _ => true,
            };
            is_named && key.fits(algorithm)
        })
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn listed(jwks: &Value) -> Result<&Vec<Value>, KeyError> {
    let keys = jwks.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or(KeyError::Malformed { what: "no object with a list \"keys\"" })?;
    if keys.is_empty() || keys.len() > KEYS_LIMIT {
        return Err(KeyError::Count { found: keys.len() });
    }
    Ok(keys)
}
