//! JSON Web Tokens (RFC 7519) in the compact form of RFC 7515: verified with known public keys only, and signed.
//!
//! What a token says of itself decides nothing: the keys come from the caller, each key fits its own algorithms only, and
//! `jku`, `jwk`, `x5u`, `x5c` in a header are not looked at (RFC 8725 §3). There is no symmetric algorithm here, so that
//! a public key can never be taken for a secret.

mod jwk;
mod sign;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

pub use jwk::{KEYS_LIMIT, KeyError, KeySet, PublicKey};
pub use sign::{SigningKey, SigningKeyError};

/// Longest token that is looked at, in bytes: an id_token with its groups has a few thousand.
pub const TOKEN_LIMIT_BYTES: usize = 16 << 10;
/// Longest `kid`, in bytes.
const KID_LIMIT_BYTES: usize = 256;

/// A signature algorithm (RFC 7518 §3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    Rs384,
    /// RSA PSS with SHA-256.
    Ps256,
    /// RSA PSS with SHA-384.
    Ps384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 7] = [
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::EdDsa,
    ];

    /// The value of `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::EdDsa => "EdDSA",
        }
    }
}

/// Why a token is not believed. No variant carries anything of the token but short names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is too long.
    #[error("the token has {length} bytes, more than the {TOKEN_LIMIT_BYTES} that are read")]
    TooLong {
        /// Bytes found.
        length: usize,
    },
    /// It is not three parts of base64url with two JSON objects.
    #[error("the token cannot be read: {part}")]
    Malformed {
        /// Which part.
        part: &'static str,
    },
    /// A name stands twice in the header or the claims.
    #[error("the token says something twice")]
    Duplicate,
    /// `alg` is none of those that are taken here.
    #[error("the algorithm of the token is not one of those that are taken here")]
    Algorithm,
    /// `crit` asks for something that is not understood, or the payload is no plain JSON.
    #[error("the token asks for an extension that is not understood here")]
    Critical,
    /// `typ` says that it is another kind of token.
    #[error("the token is of another type")]
    Type,
    /// None of the keys fits its `kid` and algorithm.
    #[error("no key is known for the token")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the signature of the token is wrong")]
    Signature,
    /// A claim is missing or of another kind.
    #[error("the claim \"{claim}\" is missing or cannot be read")]
    Claim {
        /// Its name.
        claim: &'static str,
    },
    /// It is for somebody else.
    #[error("the token is for somebody else (aud)")]
    Audience,
    /// It is by somebody else.
    #[error("the token is by somebody else (iss)")]
    Issuer,
    /// It is over.
    #[error("the token is over (exp)")]
    Expired,
    /// It begins in the future.
    #[error("the token begins in the future (nbf, iat)")]
    Early,
    /// It lasts longer than tokens of its kind may.
    #[error("the token lasts longer than is taken here (exp)")]
    LongLived,
}

/// What must be true of a token.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// Algorithms that are taken.
    pub algorithms: &'a [Algorithm],
    /// Values of `typ` that are taken, without regard to case; none at all is taken too.
    pub types: &'a [&'a str],
    /// Who it must be by.
    pub issuer: &'a str,
    /// Whom it may be for: one of these.
    pub audiences: &'a [String],
    /// The time now, in seconds since 1970.
    pub now_s: i64,
    /// How much clocks may differ.
    pub leeway: Duration,
    /// How long it may still last; `None`: any time.
    pub life: Option<Duration>,
}

/// What a token says, once it is believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// With what somebody else says of the same subject beside it, where the token itself says nothing.
    #[must_use]
    pub fn with_missing(mut self, more: Map<String, Value>) -> Self {
        for (name, value) in more {
            self.0.entry(name).or_insert(value);
        }
        self
    }

    /// A claim.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A claim as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// A claim as whole seconds since 1970.
    pub fn seconds(&self, name: &str) -> Option<i64> {
        seconds(self.0.get(name)?)
    }

    /// A claim that is a text or a list of texts.
    pub fn texts(&self, name: &str) -> Vec<&str> {
        match self.0.get(name) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

fn seconds(value: &Value) -> Option<i64> {
    // RFC 7519 §2: a NumericDate may have a fraction. Beyond the year 5138 nothing is a date.
    let number = value.as_f64().filter(|number| (0.0..1e11).contains(number))?;
    Some(number as i64)
}

/// The parts of a token, of which nothing is believed yet.
struct Parts<'a> {
    signed: &'a str,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, JwtError> {
        if token.len() > TOKEN_LIMIT_BYTES {
            return Err(JwtError::TooLong { length: token.len() });
        }
        let malformed = |part| JwtError::Malformed { part };
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed("it has no dots"))?;
        let (header, claims) = signed.split_once('.').ok_or(malformed("it has one dot"))?;
        if claims.contains('.') {
            return Err(malformed("it has more than two dots"));
        }
        let decoded = |text: &str, part| URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed(part));
        Ok(Parts {
            signed,
            header: object(&decoded(header, "header")?, "header")?,
            claims: object(&decoded(claims, "claims")?, "claims")?,
            signature: decoded(signature, "signature")?,
        })
    }
}

/// A JSON object in which no name stands twice: two readers of one token must not see different claims.
fn object(bytes: &[u8], part: &'static str) -> Result<Map<String, Value>, JwtError> {
    struct Once(Result<Map<String, Value>, JwtError>);
    impl<'de> serde::Deserialize<'de> for Once {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(OnceVisitor)
        }
    }
    struct OnceVisitor;
    impl<'de> serde::de::Visitor<'de> for OnceVisitor {
        type Value = Once;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
            let mut object = Map::new();
            let mut is_twice = false;
            while let Some((name, raw)) = map.next_entry::<String, Box<RawValue>>()? {
                let value: Value = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
                is_twice |= object.insert(name, value).is_some();
            }
            Ok(Once(if is_twice { Err(JwtError::Duplicate) } else { Ok(object) }))
        }
    }
    let Once(read) = serde_json::from_slice(bytes).map_err(|_| JwtError::Malformed { part })?;
    read
}

/// Who a token says that it is by, before anything of it is believed: only to look up whose keys must fit.
///
/// # Errors
/// [`JwtError`] where the token cannot be read.
pub fn unproven_issuer(token: &str) -> Result<String, JwtError> {
    let parts = Parts::of(token)?;
    let issuer = parts.claims.get("iss").and_then(Value::as_str);
    issuer.map(str::to_owned).ok_or(JwtError::Claim { claim: "iss" })
}

/// Believes a token: its signature by one of `keys`, and all that is expected.
///
/// # Errors
/// [`JwtError`], the first thing that is wrong.
pub fn verify(token: &str, keys: &KeySet, expected: &Expected<'_>) -> Result<Claims, JwtError> {
    let parts = Parts::of(token)?;
    verify_header(&parts.header, expected)?;
    let algorithm = algorithm_of(&parts.header, expected.algorithms)?;
    let kid = match parts.header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= KID_LIMIT_BYTES => Some(kid.as_str()),
        Some(_) => return Err(JwtError::UnknownKey),
    };
    let mut fitting = keys.fitting(kid, algorithm).peekable();
    if fitting.peek().is_none() {
        return Err(JwtError::UnknownKey);
    }
    if !fitting.any(|key| key.verifies(algorithm, parts.signed.as_bytes(), &parts.signature)) {
        return Err(JwtError::Signature);
    }
    verify_claims(parts.claims, expected)
}

fn algorithm_of(header: &Map<String, Value>, taken: &[Algorithm]) -> Result<Algorithm, JwtError> {
    let name = header.get("alg").and_then(Value::as_str).ok_or(JwtError::Algorithm)?;
    taken.iter().copied().find(|known| known.name() == name).ok_or(JwtError::Algorithm)
}

fn verify_header(header: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), JwtError> {
    if ["crit", "b64", "zip", "enc"].iter().any(|name| header.contains_key(*name)) {
        return Err(JwtError::Critical);
    }
    // A token in a token is another kind of token.
    if header.contains_key("cty") {
        return Err(JwtError::Type);
    }
    match header.get("typ") {
        None => Ok(()),
        Some(Value::String(found))
            if expected.types.iter().any(|known| found.eq_ignore_ascii_case(known)) =>
        {
            Ok(())
        }
        Some(_) => Err(JwtError::Type),
    }
}

fn verify_claims(claims: Map<String, Value>, expected: &Expected<'_>) -> Result<Claims, JwtError> {
    let claims = Claims(claims);
    let issuer = claims.text("iss").ok_or(JwtError::Claim { claim: "iss" })?;
    if issuer != expected.issuer {
        return Err(JwtError::Issuer);
    }
    if !claims.texts("aud").iter().any(|one| expected.audiences.iter().any(|own| own == one)) {
        return Err(JwtError::Audience);
    }
    let leeway_s = i64::try_from(expected.leeway.as_secs()).unwrap_or(i64::MAX / 4);
    let over_s = claims.seconds("exp").ok_or(JwtError::Claim { claim: "exp" })?;
    if over_s.saturating_add(leeway_s) <= expected.now_s {
        return Err(JwtError::Expired);
    }
    if let Some(life) = expected.life {
        let life_s = i64::try_from(life.as_secs()).unwrap_or(i64::MAX / 4);
        if over_s > expected.now_s.saturating_add(life_s).saturating_add(leeway_s) {
            return Err(JwtError::LongLived);
        }
    }
    for claim in ["nbf", "iat"] {
        let Some(value) = claims.get(claim) else { continue };
        let begins_s = seconds(value).ok_or(JwtError::Claim { claim })?;
        if begins_s > expected.now_s.saturating_add(leeway_s) {
            return Err(JwtError::Early);
        }
    }
    Ok(claims)
}
