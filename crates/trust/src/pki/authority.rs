//! The built-in authority: makes itself, and issues certificates for devices, programs and servers.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::errors::{AuthorityError, IssueError};
use super::peer::{PeerUri, fingerprint_hex};
use super::request::SigningRequest;
use super::revocation::serial_bytes_hex;
use crate::random::random_bytes;
use crate::secret::SecretText;

/// Longest common name, in characters (X.520, `ub-common-name`).
pub const MAX_COMMON_NAME_CHARS: usize = 64;

/// Longest life of an authority, in years.
pub const MAX_AUTHORITY_YEARS: u32 = 30;

/// Most names and addresses in one server certificate, so that it fits a few network packets.
pub const MAX_SERVER_NAMES: usize = 50;

/// Hexadecimal digits by which an authority's key is told from others.
pub const ID_DIGITS: usize = 16;

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
    /// The certificate, and behind it that of the issuing authority where that is no anchor.
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
    /// The certificate, and behind it that of the issuing authority where that is no anchor.
    pub certificate_pem: String,
    /// Serial number, lower-case hexadecimal without leading zero bytes.
    pub serial_hex: String,
    /// SHA-256 of the certificate (DER), lower-case hexadecimal.
    pub sha256_fingerprint_hex: String,
}

/// Whoever signs certificates here. `Debug` shows its name and life, not its key.
pub struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    name: String,
    certificate_pem: String,
    id_hex: String,
    /// Whether it is its own issuer: an anchor, which nobody needs to be shown.
    is_anchor: bool,
    revocation_lists: Vec<String>,
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
        let library = |source| AuthorityError::Library { source };
        let (key, mut params) = Self::draw(name, now, years)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).map_err(library)?;
        Ok(AuthorityPem { certificate_pem: certificate.pem(), key_pem: SecretText::new(key.serialize_pem()) })
    }

    /// A key, and what every authority's certificate says.
    pub(super) fn draw(
        name: &str,
        now: SystemTime,
        years: u32,
    ) -> Result<(KeyPair, CertificateParams), AuthorityError> {
        if !is_common_name(name) {
            return Err(AuthorityError::Name { chars: name.chars().count() });
        }
        if years == 0 || years > MAX_AUTHORITY_YEARS {
            return Err(AuthorityError::Years { years });
        }
        let not_before = now.checked_sub(Duration::from_secs(AUTHORITY_BACKDATE_S));
        let not_after = now.checked_add(Duration::from_secs(u64::from(years) * SECONDS_OF_YEAR));
        let (Some(not_before), Some(not_after)) = (not_before, not_after) else {
            return Err(AuthorityError::Now { now });
        };
        if !is_certificate_time(not_before) || !is_certificate_time(not_after) {
            return Err(AuthorityError::Now { now });
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|source| AuthorityError::Library { source })?;
        let mut params = end_params(name, not_before, not_after);
        params.serial_number = Some(new_serial());
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = false;
        Ok((key, params))
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
            id_hex: fingerprint_hex(certificate.public_key().raw)[..ID_DIGITS].to_owned(),
            is_anchor: certificate.subject().as_raw() == certificate.issuer().as_raw(),
            revocation_lists: Vec::new(),
            not_before: validity.not_before.to_datetime().into(),
            not_after: validity.not_after.to_datetime().into(),
            issuer: Issuer::from_ca_cert_der(&der, key)
                .map_err(|source| AuthorityError::Library { source })?,
        })
    }

    /// Where its list of revoked certificates can be had; stands in all that it issues from now on.
    #[must_use]
    pub fn with_revocation_lists(mut self, urls: Vec<String>) -> Self {
        self.revocation_lists = urls;
        self
    }

    /// What tells its key from others: the first [`ID_DIGITS`] hexadecimal digits of the SHA-256 of the public key.
    pub fn id_hex(&self) -> &str {
        &self.id_hex
    }

    /// Whether it signed itself.
    pub fn is_anchor(&self) -> bool {
        self.is_anchor
    }

    /// First instant of its certificate's validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
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
    /// [`IssueError::SigningRequest`] when it cannot be read, its signature is wrong, or its key is weak.
    pub fn issue_client_for_request(
        &self,
        signing_request_pem: &str,
        request: &IssueRequest,
    ) -> Result<IssuedForRequest, IssueError> {
        let theirs = SigningRequest::from_text(signing_request_pem)
            .map_err(|source| IssueError::SigningRequest { source })?;
        self.issue_client_for_key(&theirs, request)
    }

    /// Issues a client certificate for the key of a signing request that was read already.
    ///
    /// # Errors
    /// [`IssueError`] when the request cannot be granted.
    pub fn issue_client_for_key(
        &self,
        theirs: &SigningRequest,
        request: &IssueRequest,
    ) -> Result<IssuedForRequest, IssueError> {
        let params = self.client_params(request)?;
        let (certificate_pem, serial_hex, sha256_fingerprint_hex) = self.sign(params, &theirs.key)?;
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

    /// Certificate with the issuing one behind it (PEM), serial number and fingerprint.
    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<(String, String, String), IssueError> {
        if !self.revocation_lists.is_empty() {
            let uris = self.revocation_lists.clone();
            params.crl_distribution_points = vec![rcgen::CrlDistributionPoint { uris }];
        }
        let serial = new_serial();
        let serial_hex = serial_bytes_hex(&serial.to_bytes());
        params.serial_number = Some(serial);
        let certificate =
            params.signed_by(key, &self.issuer).map_err(|source| IssueError::Library { source })?;
        let own = if self.is_anchor { "" } else { self.certificate_pem.trim_end() };
        let mut chain = certificate.pem();
        if !own.is_empty() {
            chain.push_str(own);
            chain.push('\n');
        }
        Ok((chain, serial_hex, fingerprint_hex(certificate.der())))
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
