//! The built-in authority: makes itself, and issues certificates for devices, programs and servers.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::peer::{PeerUri, fingerprint_hex};
use super::revocation::serial_bytes_hex;
use crate::random::random_bytes;
use crate::secret::SecretText;

/// Longest common name, in characters (X.520, `ub-common-name`).
pub const MAX_COMMON_NAME_CHARS: usize = 64;

/// Longest life of an authority, in years.
pub const MAX_AUTHORITY_YEARS: u32 = 30;

/// Most names and addresses in one server certificate, so that it fits a few network packets.
pub const MAX_SERVER_NAMES: usize = 50;

/// Length of serial numbers, in bytes; 126 of their bits are random (RFC 5280 asks for positive
/// numbers of at most 20 bytes).
const SERIAL_LEN: usize = 16;

/// How far before its making an authority is valid already, in seconds: clocks of gateways and
/// devices run behind, and to those a certificate made now would lie in the future.
pub const AUTHORITY_BACKDATE_S: u64 = 3600;

/// Mean length of a Gregorian year, in seconds (365.2425 days).
const SECONDS_OF_YEAR: u64 = 31_556_952;

/// An authority's certificate and private key as PEM, to be written to two files.
#[derive(Debug, Clone)]
pub struct AuthorityPem {
    /// The certificate; every device and program must know it.
    pub certificate_pem: String,
    /// The private key; whoever has it can be any device.
    pub key_pem: SecretText,
}

/// What a client certificate shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// A name for people, 1 to [`MAX_COMMON_NAME_CHARS`] characters. Not a patient's name:
    /// certificates are not encrypted at rest.
    pub common_name: String,
    /// Which device or program.
    pub uri: PeerUri,
    /// First instant of validity, cut to the second.
    pub not_before: SystemTime,
    /// Last instant of validity, cut to the second; not after the authority's.
    pub not_after: SystemTime,
}

/// What a server certificate shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueServerRequest {
    /// A name for people, 1 to [`MAX_COMMON_NAME_CHARS`] characters.
    pub common_name: String,
    /// Host names by which clients will call the server.
    pub dns_names: Vec<String>,
    /// Addresses by which clients will call the server.
    pub ips: Vec<IpAddr>,
    /// First instant of validity, cut to the second.
    pub not_before: SystemTime,
    /// Last instant of validity, cut to the second; not after the authority's.
    pub not_after: SystemTime,
}

/// A certificate and the private key that was made for it.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key (P-256, PKCS #8). It is kept nowhere else.
    pub key_pem: SecretText,
    /// Serial number, lower-case hexadecimal without leading zero bytes.
    pub serial_hex: String,
    /// SHA-256 of the certificate (DER), lower-case hexadecimal.
    pub sha256_fingerprint_hex: String,
}

/// A certificate for a key that the holder made and kept.
#[derive(Debug, Clone)]
pub struct IssuedForRequest {
    /// The certificate.
    pub certificate_pem: String,
    /// Serial number, lower-case hexadecimal without leading zero bytes.
    pub serial_hex: String,
    /// SHA-256 of the certificate (DER), lower-case hexadecimal.
    pub sha256_fingerprint_hex: String,
}

/// Whoever signs certificates here. `Debug` shows its name and life, not its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    name: String,
    certificate_pem: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Authority {
    /// Makes a new authority: a self-signed P-256 certificate that may sign end certificates only,
    /// valid from [`AUTHORITY_BACKDATE_S`] before `now` until `years` after it.
    ///
    /// # Errors
    /// [`AuthorityError::Name`], [`AuthorityError::Years`], [`AuthorityError::Now`] or
    /// [`AuthorityError::Library`].
    pub fn create(name: &str, now: SystemTime, years: u32) -> Result<AuthorityPem, AuthorityError> {
        if !is_common_name(name) {
            return Err(AuthorityError::Name { chars: name.chars().count() });
        }
        if years == 0 || years > MAX_AUTHORITY_YEARS {
            return Err(AuthorityError::Years { years });
        }
        let library = |source| AuthorityError::Library { source };
        let not_before = now.checked_sub(Duration::from_secs(AUTHORITY_BACKDATE_S));
        let not_after = now.checked_add(Duration::from_secs(u64::from(years) * SECONDS_OF_YEAR));
        let (Some(not_before), Some(not_after)) = (not_before, not_after) else {
            return Err(AuthorityError::Now { now });
        };
        if !is_certificate_time(not_before) || !is_certificate_time(not_after) {
            return Err(AuthorityError::Now { now });
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(library)?;
        let mut params = end_params(name, not_before, not_after);
        params.serial_number = Some(new_serial());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = false;
        let certificate = params.self_signed(&key).map_err(library)?;
        Ok(AuthorityPem { certificate_pem: certificate.pem(), key_pem: SecretText::new(key.serialize_pem()) })
    }

    /// Loads an authority from its two PEM texts.
    ///
    /// # Errors
    /// [`AuthorityError`] when either cannot be read, the key is not the certificate's, or the
    /// certificate is no authority's. Whether it is still in date is asked when it issues.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|source| AuthorityError::CertificatePem { source })?;
        let (_, certificate) = X509Certificate::from_der(&der)
            .map_err(|error| AuthorityError::Certificate { reason: error.to_string() })?;
        if !certificate.is_ca() {
            return Err(AuthorityError::NotAnAuthority);
        }
        let key = KeyPair::from_pem(key_pem).map_err(|source| AuthorityError::Key { source })?;
        if certificate.public_key().raw != key.subject_public_key_info().as_slice() {
            return Err(AuthorityError::KeyMismatch);
        }
        let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let validity = certificate.validity();
        Ok(Self {
            name: name.unwrap_or_default().to_owned(),
            certificate_pem: certificate_pem.to_owned(),
            not_before: validity.not_before.to_datetime().into(),
            not_after: validity.not_after.to_datetime().into(),
            issuer: Issuer::from_ca_cert_der(&der, key)
                .map_err(|source| AuthorityError::Library { source })?,
        })
    }

    /// The authority's certificate, for clients and servers to trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's common name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Last instant at which anything this authority issued can be valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Issues a client certificate with a fresh key, for a device or program that cannot make its own.
    ///
    /// # Errors
    /// [`IssueError`] when the request cannot be granted.
    pub fn issue_client(&self, request: &IssueRequest) -> Result<Issued, IssueError> {
        self.issue_with_new_key(self.client_params(request)?)
    }

    /// Issues a client certificate for the key in a signing request (PKCS #10, PEM), so that the
    /// private key never leaves the device. The request's signature proves that it has the key;
    /// everything else in it is ignored: the certificate says what `request` says.
    ///
    /// # Errors
    /// [`IssueError::SigningRequest`] when it cannot be read or its signature is wrong,
    /// [`IssueError::WeakKey`] for another key than P-256 or P-384.
    pub fn issue_client_for_request(
        &self,
        signing_request_pem: &str,
        request: &IssueRequest,
    ) -> Result<IssuedForRequest, IssueError> {
        let params = self.client_params(request)?;
        let theirs = CertificateSigningRequestParams::from_pem(signing_request_pem)
            .map_err(|source| IssueError::SigningRequest { source })?;
        let algorithm = theirs.public_key.algorithm();
        if algorithm != &PKCS_ECDSA_P256_SHA256 && algorithm != &rcgen::PKCS_ECDSA_P384_SHA384 {
            return Err(IssueError::WeakKey);
        }
        let (certificate_pem, serial_hex, sha256_fingerprint_hex) = self.sign(params, &theirs.public_key)?;
        Ok(IssuedForRequest { certificate_pem, serial_hex, sha256_fingerprint_hex })
    }

    /// Issues a server certificate with a fresh key.
    ///
    /// # Errors
    /// [`IssueError`] when the request cannot be granted.
    pub fn issue_server(&self, request: &IssueServerRequest) -> Result<Issued, IssueError> {
        let count = request.dns_names.len() + request.ips.len();
        if count == 0 || count > MAX_SERVER_NAMES {
            return Err(IssueError::ServerNames { count });
        }
        let mut params = self.checked_params(&request.common_name, request.not_before, request.not_after)?;
        for name in &request.dns_names {
            // The client's own parser decides what a host name is: what it refuses can never match.
            if rustls_pki_types::DnsName::try_from(name.as_str()).is_err() {
                return Err(IssueError::DnsName { name: name.clone() });
            }
            let text = name.as_str().try_into().map_err(|source| IssueError::Library { source })?;
            params.subject_alt_names.push(SanType::DnsName(text));
        }
        params.subject_alt_names.extend(request.ips.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue_with_new_key(params)
    }

    fn client_params(&self, request: &IssueRequest) -> Result<CertificateParams, IssueError> {
        let mut params = self.checked_params(&request.common_name, request.not_before, request.not_after)?;
        let uri = request.uri.to_string();
        // A `PeerUri` may have been built without its checks; what cannot be read back is not issued.
        if uri.parse::<PeerUri>().as_ref() != Ok(&request.uri) {
            return Err(IssueError::Uri { uri });
        }
        let uri = uri.try_into().map_err(|source| IssueError::Library { source })?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params)
    }

    fn checked_params(
        &self,
        common_name: &str,
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Result<CertificateParams, IssueError> {
        if !is_common_name(common_name) {
            return Err(IssueError::CommonName { chars: common_name.chars().count() });
        }
        if not_after <= not_before {
            return Err(IssueError::Period { not_before, not_after });
        }
        if not_before < self.not_before || not_after > self.not_after {
            return Err(IssueError::OutsideAuthority {
                not_before,
                not_after,
                authority_not_before: self.not_before,
                authority_not_after: self.not_after,
            });
        }
        Ok(end_params(common_name, not_before, not_after))
    }

    fn issue_with_new_key(&self, params: CertificateParams) -> Result<Issued, IssueError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|source| IssueError::Library { source })?;
        let (certificate_pem, serial_hex, sha256_fingerprint_hex) = self.sign(params, &key)?;
        let key_pem = SecretText::new(key.serialize_pem());
        Ok(Issued { certificate_pem, key_pem, serial_hex, sha256_fingerprint_hex })
    }

    /// Certificate (PEM), serial number and fingerprint.
    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<(String, String, String), IssueError> {
        let serial = new_serial();
        let serial_hex = serial_bytes_hex(&serial.to_bytes());
        params.serial_number = Some(serial);
        let certificate =
            params.signed_by(key, &self.issuer).map_err(|source| IssueError::Library { source })?;
        Ok((certificate.pem(), serial_hex, fingerprint_hex(certificate.der())))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("name", &self.name)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why an authority could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Empty, too long, or with control characters.
    #[error(
        "an authority's name has 1 to {MAX_COMMON_NAME_CHARS} printable characters; this one has {chars}"
    )]
    Name {
        /// Characters given.
        chars: usize,
    },
    /// No years, or too many.
    #[error("an authority lives 1 to {MAX_AUTHORITY_YEARS} years, not {years}")]
    Years {
        /// Years asked for.
        years: u32,
    },
    /// A clock far off: the certificate's life would leave the years that certificates can write.
    #[error("the clock shows {now:?}, outside the years 1950 to 9999")]
    Now {
        /// The instant given.
        now: SystemTime,
    },
    /// The certificate's file is not PEM.
    #[error("the authority's certificate is not readable PEM")]
    CertificatePem {
        /// What the parser says.
        source: rustls_pki_types::pem::Error,
    },
    /// PEM, but no certificate inside.
    #[error("the authority's certificate is not X.509: {reason}")]
    Certificate {
        /// What the parser says.
        reason: String,
    },
    /// A device's or server's certificate.
    #[error("the certificate is not an authority's and may sign nothing")]
    NotAnAuthority,
    /// The private key cannot be read.
    #[error("the authority's private key is not readable PKCS #8 PEM")]
    Key {
        /// What the certificate library says.
        source: rcgen::Error,
    },
    /// Two files that do not belong together.
    #[error("the authority's private key belongs to another certificate")]
    KeyMismatch,
    /// The certificate library refused.
    #[error("the certificate library refused the authority")]
    Library {
        /// What it says.
        source: rcgen::Error,
    },
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Empty, too long, or with control characters.
    #[error("a common name has 1 to {MAX_COMMON_NAME_CHARS} printable characters; this one has {chars}")]
    CommonName {
        /// Characters given.
        chars: usize,
    },
    /// Ends before it begins.
    #[error("the certificate would end ({not_after:?}) before it begins ({not_before:?})")]
    Period {
        /// First instant asked for.
        not_before: SystemTime,
        /// Last instant asked for.
        not_after: SystemTime,
    },
    /// Would be valid when the authority is not.
    #[error(
        "the certificate ({not_before:?} to {not_after:?}) would reach beyond its authority \
         ({authority_not_before:?} to {authority_not_after:?})"
    )]
    OutsideAuthority {
        /// First instant asked for.
        not_before: SystemTime,
        /// Last instant asked for.
        not_after: SystemTime,
        /// The authority's first instant.
        authority_not_before: SystemTime,
        /// The authority's last instant.
        authority_not_after: SystemTime,
    },
    /// A peer URI that could not be read back.
    #[error("{uri:?} is no valid peer URI")]
    Uri {
        /// The URI.
        uri: String,
    },
    /// No name at all, or too many.
    #[error("a server certificate carries 1 to {MAX_SERVER_NAMES} names and addresses, not {count}")]
    ServerNames {
        /// Names and addresses given.
        count: usize,
    },
    /// Not a host name.
    #[error("{name:?} is no host name")]
    DnsName {
        /// The name.
        name: String,
    },
    /// A signing request that cannot be read, or whose signature is wrong.
    #[error("the certificate signing request cannot be believed")]
    SigningRequest {
        /// What the certificate library says.
        source: rcgen::Error,
    },
    /// A key that is not accepted.
    #[error("the signing request's key is neither P-256 nor P-384")]
    WeakKey,
    /// The certificate library refused.
    #[error("the certificate library refused the request")]
    Library {
        /// What it says.
        source: rcgen::Error,
    },
}

fn end_params(common_name: &str, not_before: SystemTime, not_after: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// Whether a certificate can write this instant: from 1950 (the first year of the short form,
/// RFC 5280, section 4.1.2.5.1) to 9999.
fn is_certificate_time(instant: SystemTime) -> bool {
    const FIRST: i64 = -631_152_000;
    jiff::Timestamp::try_from(instant).is_ok_and(|instant| instant.as_second() >= FIRST)
}

fn new_serial() -> SerialNumber {
    let mut bytes = random_bytes::<SERIAL_LEN>();
    // Positive (first bit 0) and of fixed length (second bit 1).
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn is_common_name(name: &str) -> bool {
    let chars = name.chars().count();
    (1..=MAX_COMMON_NAME_CHARS).contains(&chars) && !name.chars().any(char::is_control)
}
