//! Our own signing key for tokens: RS256, because every OpenID Connect client must understand that one.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::secret::SecretText;

/// A key that signs tokens. `Debug` shows its name only.
pub struct SigningKey {
    kid: String,
    pair: KeyPair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// Why a signing key cannot be made or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// It is no base64 of a PKCS #8 document with an RSA key.
    #[error("the kept signing key cannot be read")]
    Unreadable,
    /// The cryptographic library refused.
    #[error("a signing key could not be made or used")]
    Refused,
}

impl SigningKey {
    /// Makes a key. Takes a good part of a second.
    ///
    /// # Errors
    /// [`SigningKeyError::Refused`].
    pub fn generate() -> Result<Self, SigningKeyError> {
        KeyPair::generate(KeySize::Rsa2048).map(Self::of).map_err(|_| SigningKeyError::Refused)
    }

    fn of(pair: KeyPair) -> Self {
        let (n, e) = numbers(&pair);
        // RFC 7638: the digest of the key's required members in one fixed form.
        let canonical = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
        let mut digest = crate::digest::Sha256::new();
        digest.update(canonical.as_bytes());
        SigningKey { kid: URL_SAFE_NO_PAD.encode(digest.finish()), pair }
    }

    /// Reads a key that [`SigningKey::to_secret`] wrote.
    ///
    /// # Errors
    /// [`SigningKeyError::Unreadable`].
    pub fn from_secret(text: &str) -> Result<Self, SigningKeyError> {
        let der =
            URL_SAFE_NO_PAD.decode(text).map(Zeroizing::new).map_err(|_| SigningKeyError::Unreadable)?;
        KeyPair::from_pkcs8(&der).map(Self::of).map_err(|_| SigningKeyError::Unreadable)
    }

    /// The private key, to be kept sealed.
    ///
    /// # Errors
    /// [`SigningKeyError::Refused`].
    pub fn to_secret(&self) -> Result<SecretText, SigningKeyError> {
        let der = self.pair.as_der().map_err(|_| SigningKeyError::Refused)?;
        Ok(SecretText::new(URL_SAFE_NO_PAD.encode(der.as_ref())))
    }

    /// Its name: the thumbprint of RFC 7638.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as a JSON Web Key.
    pub fn to_jwk(&self) -> Value {
        let (n, e) = numbers(&self.pair);
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": n, "e": e})
    }

    /// Signs claims as a token.
    ///
    /// # Errors
    /// [`SigningKeyError::Refused`].
    pub fn sign(&self, claims: &Value) -> Result<SecretText, SigningKeyError> {
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.kid});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| SigningKeyError::Refused)?;
        Ok(SecretText::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&signature))))
    }
}

fn numbers(pair: &KeyPair) -> (String, String) {
    let public = pair.public_key();
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    (
        text(public.modulus().big_endian_without_leading_zero()),
        text(public.exponent().big_endian_without_leading_zero()),
    )
}
