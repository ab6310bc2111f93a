//! Statements that anybody can check with usual tools: bytes, and a signature that a certificate of the site stands for.

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, KeyUsagePurpose};
use zeroize::Zeroizing;

use crate::pki::fingerprint_hex;

/// Life of the certificate of a signer, in years: a statement is to be checked long after it was made.
const LIFE_YEARS: u64 = 30;
/// Days of a year, on average, rounded up.
const YEAR_S: u64 = 31_557_600;
/// Longest name in a certificate, in characters (RFC 5280, upper bound of a common name).
const NAME_LIMIT_CHARS: usize = 64;

/// Why there is no signer, or a statement does not hold.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The key or the certificate cannot be made.
    #[error("a signer cannot be made: {what}")]
    Make {
        /// What the library said.
        what: String,
    },
    /// What was kept of a signer is not one.
    #[error("what was kept of the signer is damaged: {what}")]
    Kept {
        /// In what way.
        what: &'static str,
    },
    /// The signature is not the signer's over these bytes.
    #[error("the signature does not belong to these bytes and this signer")]
    Signature,
}

/// Signs with ECDSA over P-256 and SHA-256 (FIPS 186-5); `openssl dgst -sha256 -verify` checks it.
pub struct Signer {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
    certificate_pem: String,
}

impl Signer {
    /// A new signer with a certificate of its own.
    ///
    /// # Errors
    /// [`AttestError::Make`].
    pub fn generate(name: &str, now: SystemTime) -> Result<Self, AttestError> {
        let failed = |error: rcgen::Error| AttestError::Make { what: error.to_string() };
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name.chars().take(NAME_LIMIT_CHARS).collect::<String>());
        params.distinguished_name = subject;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment];
        params.not_before = now.into();
        params.not_after = (now + std::time::Duration::from_secs(LIFE_YEARS * YEAR_S)).into();
        let certificate_pem = params.self_signed(&key).map_err(failed)?.pem();
        Self::restored(Zeroizing::new(key.serialize_der()), certificate_pem)
    }

    /// A signer as it was kept: its certificate (PEM), a zero byte, its key (PKCS #8).
    ///
    /// # Errors
    /// [`AttestError::Kept`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AttestError> {
        let at =
            bytes.iter().position(|byte| *byte == 0).ok_or(AttestError::Kept { what: "it has no key" })?;
        let certificate_pem = std::str::from_utf8(&bytes[..at])
            .map_err(|_| AttestError::Kept { what: "its certificate is no text" })?;
        Self::restored(Zeroizing::new(bytes[at + 1..].to_vec()), certificate_pem.to_owned())
    }

    fn restored(pkcs8: Zeroizing<Vec<u8>>, certificate_pem: String) -> Result<Self, AttestError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8)
            .map_err(|_| AttestError::Kept { what: "its key is none" })?;
        Ok(Signer { pair, pkcs8, certificate_pem })
    }

    /// The inverse of [`Signer::from_bytes`]; to be sealed.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(self.certificate_pem.as_bytes().to_vec());
        bytes.push(0);
        bytes.extend_from_slice(&self.pkcs8);
        bytes
    }

    /// The certificate that stands for the signatures, as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of the certificate, in hexadecimal: what is compared by eye or with `openssl x509 -fingerprint -sha256`.
    pub fn fingerprint_hex(&self) -> String {
        let der = x509_parser::pem::parse_x509_pem(self.certificate_pem.as_bytes());
        der.map(|(_, pem)| fingerprint_hex(&pem.contents)).unwrap_or_default()
    }

    /// A signature over bytes, in DER.
    ///
    /// # Panics
    /// When the system has no randomness.
    pub fn sign(&self, statement: &[u8]) -> Vec<u8> {
        let signature = self.pair.sign(&SystemRandom::new(), statement);
        signature.expect("signing fails only without randomness").as_ref().to_vec()
    }

    /// Whether a signature over these bytes belongs to a certificate (PEM). That says nothing of whose it is.
    ///
    /// # Errors
    /// [`AttestError::Signature`], also for what is no certificate.
    pub fn check_by(certificate_pem: &str, statement: &[u8], signature: &[u8]) -> Result<(), AttestError> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes())
            .map_err(|_| AttestError::Signature)?;
        let certificate = pem.parse_x509().map_err(|_| AttestError::Signature)?;
        let key = &certificate.public_key().subject_public_key.data;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.as_ref())
            .verify(statement, signature)
            .map_err(|_| AttestError::Signature)
    }

    /// Whether a signature is this signer's over these bytes.
    ///
    /// # Errors
    /// [`AttestError::Signature`].
    pub fn check(&self, statement: &[u8], signature: &[u8]) -> Result<(), AttestError> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.pair.public_key().as_ref())
            .verify(statement, signature)
            .map_err(|_| AttestError::Signature)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signer_that_was_kept_signs_as_before() {
        let signer = Signer::generate(
            "Ward, erasures",
            SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_336_200),
        )
        .unwrap();
        let kept = Signer::from_bytes(&signer.to_bytes()).unwrap();
        let signature = kept.sign(b"statement");
        signer.check(b"statement", &signature).unwrap();
        assert!(signer.check(b"another", &signature).is_err());
        Signer::check_by(signer.certificate_pem(), b"statement", &signature).unwrap();
        assert!(Signer::check_by(signer.certificate_pem(), b"another", &signature).is_err());
        assert!(Signer::check_by("none", b"statement", &signature).is_err());
        assert!(signer.certificate_pem().contains("BEGIN CERTIFICATE"));
        assert_eq!(kept.fingerprint_hex(), signer.fingerprint_hex());
        assert_eq!(kept.fingerprint_hex().len(), 64);
        assert!(!format!("{signer:?}").contains("BEGIN"));
        assert!(Signer::from_bytes(b"no key").is_err() && Signer::from_bytes(b"x\0y").is_err());
    }
}
