//! Who a peer is, as its certificate says: a device or a program, named by a URI.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use uuid::Uuid;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::revocation::serial_bytes_hex;
use crate::encoding::hex;

/// Longest name of a program, in bytes.
pub const MAX_PROGRAM_NAME_BYTES: usize = 64;

const DEVICE_PREFIX: &str = "urn:auscult:device:";
const PROGRAM_PREFIX: &str = "urn:auscult:program:";

/// The name of a peer, as the URI in its certificate's subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerUri {
    /// A device or a gateway: `urn:auscult:device:` and its UUID.
    Device(Uuid),
    /// A program: `urn:auscult:program:` and its name.
    Program(String),
}

impl PeerUri {
    /// The URI of a program.
    ///
    /// # Errors
    /// [`PeerUriError::ProgramName`] unless the name has 1 to [`MAX_PROGRAM_NAME_BYTES`] letters,
    /// digits, dots, hyphens or underscores (ASCII).
    pub fn program(name: &str) -> Result<Self, PeerUriError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if name.is_empty() || name.len() > MAX_PROGRAM_NAME_BYTES || !name.bytes().all(allowed) {
            return Err(PeerUriError::ProgramName { name: shortened(name) });
        }
        Ok(Self::Program(name.to_owned()))
    }

    /// The device's id, when this names a device.
    pub fn device(&self) -> Option<Uuid> {
        match self {
            Self::Device(id) => Some(*id),
            Self::Program(_) => None,
        }
    }
}

impl fmt::Display for PeerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(id) => write!(f, "{DEVICE_PREFIX}{}", id.hyphenated()),
            Self::Program(name) => write!(f, "{PROGRAM_PREFIX}{name}"),
        }
    }
}

impl FromStr for PeerUri {
    type Err = PeerUriError;

    /// Reads the exact spelling that `Display` writes; one peer has one URI.
    fn from_str(uri: &str) -> Result<Self, PeerUriError> {
        if let Some(text) = uri.strip_prefix(DEVICE_PREFIX) {
            let id = Uuid::try_parse(text).ok().filter(|id| id.hyphenated().to_string() == text);
            return id.map(Self::Device).ok_or_else(|| PeerUriError::DeviceId { text: shortened(text) });
        }
        match uri.strip_prefix(PROGRAM_PREFIX) {
            Some(name) => Self::program(name),
            None => Err(PeerUriError::Foreign { uri: shortened(uri) }),
        }
    }
}

/// What a client certificate says about its holder. Believe it only after the handshake verified
/// the chain, and ask [`super::RevokedSerials`] before acting on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Which device or program.
    pub uri: PeerUri,
    /// The subject's common name, for people; empty when there is none.
    pub common_name: String,
    /// Serial number, lower-case hexadecimal without leading zero bytes.
    pub serial_hex: String,
    /// SHA-256 of the certificate (DER), lower-case hexadecimal.
    pub fingerprint_hex: String,
    /// First instant of validity.
    pub not_before: SystemTime,
    /// Last instant of validity.
    pub not_after: SystemTime,
}

impl PeerIdentity {
    /// Reads a certificate in DER, as the TLS library hands it over.
    ///
    /// # Errors
    /// [`PeerIdentityError`] names the first thing that is missing or ambiguous.
    pub fn from_der(der: &[u8]) -> Result<Self, PeerIdentityError> {
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|error| PeerIdentityError::NotACertificate { reason: error.to_string() })?;
        if !rest.is_empty() {
            return Err(PeerIdentityError::TrailingBytes { len: rest.len() });
        }
        if certificate.is_ca() {
            return Err(PeerIdentityError::IsAuthority);
        }
        let validity = certificate.validity();
        Ok(Self {
            uri: peer_uri(&certificate)?,
            common_name: common_name(&certificate)?,
            serial_hex: serial_bytes_hex(certificate.raw_serial()),
            fingerprint_hex: fingerprint_hex(der),
            not_before: instant(validity.not_before.timestamp()),
            not_after: instant(validity.not_after.timestamp()),
        })
    }
}

/// SHA-256 of a certificate (DER), as lower-case hexadecimal digits.
pub fn fingerprint_hex(der: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, der).as_ref())
}

/// Why a text is no peer's URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerUriError {
    /// The part after `urn:auscult:device:` is no UUID in its usual lower-case spelling.
    #[error("{text:?} is no device id (a lower-case UUID with hyphens)")]
    DeviceId {
        /// What was found, shortened.
        text: String,
    },
    /// The part after `urn:auscult:program:` is no program name.
    #[error("{name:?} is no program name (1 to {MAX_PROGRAM_NAME_BYTES} letters, digits, '.', '-' or '_')")]
    ProgramName {
        /// What was found, shortened.
        name: String,
    },
    /// Another scheme.
    #[error("{uri:?} names neither a device nor a program of this system")]
    Foreign {
        /// What was found, shortened.
        uri: String,
    },
}

/// Why a certificate names no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerIdentityError {
    /// The bytes are no X.509 certificate.
    #[error("not an X.509 certificate in DER: {reason}")]
    NotACertificate {
        /// What the parser says.
        reason: String,
    },
    /// Bytes after the certificate.
    #[error("{len} bytes follow the certificate")]
    TrailingBytes {
        /// How many.
        len: usize,
    },
    /// An authority's certificate is nobody's identity.
    #[error("the certificate is an authority's and identifies no peer")]
    IsAuthority,
    /// The extension with the alternative names is malformed or appears twice.
    #[error("the certificate's subject alternative names cannot be read")]
    AlternativeNames,
    /// No URI among the alternative names.
    #[error("the certificate carries no URI in its subject alternative names")]
    NoUri,
    /// Two URIs: which one would be believed?
    #[error("the certificate carries {count} URIs in its subject alternative names instead of one")]
    SeveralUris {
        /// How many.
        count: usize,
    },
    /// One URI, but not one of this system's.
    #[error("the certificate's URI names no peer of this system")]
    Uri {
        /// What is wrong with it.
        #[source]
        source: PeerUriError,
    },
    /// A common name that is no text.
    #[error("the certificate's common name is not readable text")]
    CommonName,
}

fn peer_uri(certificate: &X509Certificate<'_>) -> Result<PeerUri, PeerIdentityError> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| PeerIdentityError::AlternativeNames)?
        .ok_or(PeerIdentityError::NoUri)?;
    let uris: Vec<&str> = extension
        .value
        .general_names
        .iter()
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris.as_slice() {
        [] => Err(PeerIdentityError::NoUri),
        [uri] => uri.parse().map_err(|source| PeerIdentityError::Uri { source }),
        several => Err(PeerIdentityError::SeveralUris { count: several.len() }),
    }
}

fn common_name(certificate: &X509Certificate<'_>) -> Result<String, PeerIdentityError> {
    match certificate.subject().iter_common_name().next() {
        None => Ok(String::new()),
        Some(name) => name.as_str().map(str::to_owned).map_err(|_| PeerIdentityError::CommonName),
    }
}

fn instant(unix_seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(unix_seconds.unsigned_abs());
    if unix_seconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

/// At most 80 characters of a foreign text, for an error message.
fn shortened(text: &str) -> String {
    const MAX_SHOWN_CHARS: usize = 80;
    text.chars().take(MAX_SHOWN_CHARS).collect()
}
