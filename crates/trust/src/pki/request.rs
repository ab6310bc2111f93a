//! Signing requests (PKCS #10, RFC 2986): what a device asks to have certified, believed only as far as its signature goes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
    OID_X509_COMMON_NAME, OID_X509_SERIALNUMBER,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use super::peer::fingerprint_hex;

/// Largest signing request, in bytes of DER: RSA-4096 with generous attributes needs 2 KiB.
pub const MAX_REQUEST_BYTES: usize = 8 << 10;
/// Largest signing request as text: base64 with line ends, and armour.
pub const MAX_REQUEST_TEXT_BYTES: usize = 16 << 10;
/// Fewest and most bits of an RSA key: below it is weak, above it a small server is kept busy.
pub const RSA_BITS: (usize, usize) = (2_048, 4_096);

const ARMOUR: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// A signing request whose signature is right: whoever sent it has the private key.
#[derive(Debug, Clone)]
pub struct SigningRequest {
    pub(super) key: SubjectPublicKeyInfo,
    key_sha256_hex: String,
    names: Vec<String>,
    uris: Vec<String>,
}

impl SigningRequest {
    /// Reads PEM, or base64 of DER with or without line ends (RFC 7030, section 4.2.1; RFC 8951, section 3).
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn from_text(text: &str) -> Result<Self, RequestError> {
        if text.len() > MAX_REQUEST_TEXT_BYTES {
            return Err(RequestError::TooLong { bytes: text.len() });
        }
        let mut body = text.trim();
        for label in ARMOUR {
            let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
            if let Some(inner) = body.strip_prefix(&begin).and_then(|rest| rest.trim_end().strip_suffix(&end))
            {
                body = inner;
                break;
            }
        }
        let packed: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der =
            STANDARD.decode(packed).map_err(|error| RequestError::Malformed { reason: error.to_string() })?;
        Self::from_der(&der)
    }

    /// Reads DER.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLong { bytes: der.len() });
        }
        let malformed = |reason: String| RequestError::Malformed { reason };
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed(format!("{} bytes follow it", rest.len())));
        }
        let info = &request.certification_request_info;
        check_key(&info.subject_pki)?;
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
            .map_err(|error| malformed(error.to_string()))?;
        Ok(Self {
            key,
            key_sha256_hex: fingerprint_hex(info.subject_pki.raw),
            names: subject_names(&info.subject)?,
            uris: requested_uris(&request)?,
        })
    }

    /// SHA-256 of the public key (`SubjectPublicKeyInfo`), lower-case hexadecimal.
    pub fn key_sha256_hex(&self) -> &str {
        &self.key_sha256_hex
    }

    /// Whether it asks to be called anything but one of `names` (as common name or serial number) or `uri`. An empty
    /// subject asks for nothing.
    ///
    /// # Errors
    /// [`RequestError::Subject`] with the first name that is another's.
    pub fn asks_only_for(&self, names: &[&str], uri: &str) -> Result<(), RequestError> {
        let foreign_name = self.names.iter().find(|name| !names.contains(&name.as_str()) && *name != uri);
        let foreign_uri = self.uris.iter().find(|asked| *asked != uri);
        match foreign_name.or(foreign_uri) {
            None => Ok(()),
            Some(asked) => Err(RequestError::Subject { asked: asked.chars().take(80).collect() }),
        }
    }
}

fn check_key(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Result<(), RequestError> {
    let weak = |what: String| Err(RequestError::WeakKey { what });
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == OID_SIG_ED25519 {
        return Ok(());
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 || curve == OID_NIST_EC_P384 => Ok(()),
            Some(curve) => weak(format!("curve {curve}")),
            None => weak("a curve without a name".to_owned()),
        };
    }
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        let (least, most) = RSA_BITS;
        return match key.parsed() {
            Ok(PublicKey::RSA(rsa)) if (least..=most).contains(&rsa.key_size()) => Ok(()),
            Ok(PublicKey::RSA(rsa)) => weak(format!("RSA of {} bits", rsa.key_size())),
            _ => weak("an unreadable RSA key".to_owned()),
        };
    }
    weak(format!("algorithm {algorithm}"))
}

fn subject_names(subject: &x509_parser::x509::X509Name<'_>) -> Result<Vec<String>, RequestError> {
    let mut names = Vec::new();
    for attribute in subject.iter_attributes() {
        let kind = attribute.attr_type();
        let text = attribute.as_str().unwrap_or("an unreadable name").to_owned();
        if *kind != OID_X509_COMMON_NAME && *kind != OID_X509_SERIALNUMBER {
            return Err(RequestError::Subject {
                asked: format!("{kind}={}", text.chars().take(60).collect::<String>()),
            });
        }
        names.push(text);
    }
    Ok(names)
}

/// The URIs among the requested alternative names; another kind of name is refused, and so is the wish to be an authority.
fn requested_uris(request: &X509CertificationRequest<'_>) -> Result<Vec<String>, RequestError> {
    let mut uris = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(wanted) => {
                for name in &wanted.general_names {
                    match name {
                        GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                        other => {
                            let asked = format!("{other:?}").chars().take(80).collect();
                            return Err(RequestError::Subject { asked });
                        }
                    }
                }
            }
            ParsedExtension::BasicConstraints(basic) if basic.ca => {
                return Err(RequestError::Subject { asked: "to be an authority".to_owned() });
            }
            _ => {}
        }
    }
    Ok(uris)
}

/// Why a signing request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than any sound request.
    #[error("the signing request has {bytes} bytes, more than {MAX_REQUEST_BYTES} of DER")]
    TooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// Not PKCS #10.
    #[error("this is no signing request (PKCS #10 as PEM, or DER in base64): {reason}")]
    Malformed {
        /// What the parser says.
        reason: String,
    },
    /// Whoever sent it does not have the key, or it was changed.
    #[error("the signature of the signing request is wrong")]
    Signature,
    /// A key that is not accepted.
    #[error("the key is not accepted ({what}): use P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits")]
    WeakKey {
        /// What was found.
        what: String,
    },
    /// A name that is not the device's.
    #[error(
        "the signing request asks for {asked:?}, which is not the name of this device; leave the subject empty or put the serial number there as common name"
    )]
    Subject {
        /// The first such name, shortened.
        asked: String,
    },
}
