//! Two tiers: a root that stays offline, issuing keys under it, and the lists of what they revoked.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateRevocationListParams, CidrSubnet, GeneralSubtree, IsCa, NameConstraints,
    RevokedCertParams, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::authority::{Authority, AuthorityPem};
use super::errors::{AuthorityError, IssueError};
use super::pkcs7::certificates_of;
use super::revocation::RevokedSerials;
use crate::encoding::unhex_into;
use crate::secret::SecretText;

/// For which names of servers an issuing key may sign; none given: for all.
///
/// It names hosts and networks. Devices and programs are named by URI and not limited by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameLimits {
    hosts: Vec<String>,
    networks: Vec<(IpAddr, u8)>,
}

impl NameLimits {
    /// From host names (a name stands for all below it) and networks such as `10.0.0.0/8`. Loopback is always permitted,
    /// for the server's own checks.
    ///
    /// # Errors
    /// [`AuthorityError::Limit`] with the first text that is neither.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, AuthorityError> {
        let mut limits = NameLimits::default();
        for text in texts {
            let malformed = || AuthorityError::Limit { text: text.chars().take(80).collect() };
            if let Some((address, prefix)) = text.split_once('/') {
                let address = IpAddr::from_str(address).map_err(|_| malformed())?;
                let prefix: u8 = prefix.parse().map_err(|_| malformed())?;
                let most = if address.is_ipv4() { 32 } else { 128 };
                if prefix > most {
                    return Err(malformed());
                }
                limits.networks.push((address, prefix));
            } else {
                rustls_pki_types::DnsName::try_from(text).map_err(|_| malformed())?;
                limits.hosts.push(text.to_owned());
            }
        }
        if !limits.hosts.is_empty() || !limits.networks.is_empty() {
            limits.hosts.push("localhost".to_owned());
            limits.networks.push((IpAddr::from([127, 0, 0, 0]), 8));
            limits.networks.push((IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128));
        }
        Ok(limits)
    }

    fn constraints(&self) -> Option<NameConstraints> {
        let hosts = self.hosts.iter().map(|host| GeneralSubtree::DnsName(host.clone()));
        let networks = self.networks.iter().map(|(address, prefix)| {
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, *prefix))
        });
        let permitted_subtrees: Vec<_> = hosts.chain(networks).collect();
        (!permitted_subtrees.is_empty())
            .then(|| NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() })
    }
}

impl Authority {
    /// Makes a root: a self-signed P-256 certificate that may sign issuing keys, which may sign end certificates.
    ///
    /// # Errors
    /// As [`Authority::create`].
    pub fn create_root(name: &str, now: SystemTime, years: u32) -> Result<AuthorityPem, AuthorityError> {
        let (key, mut params) = Self::draw(name, now, years)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        let certificate = params.self_signed(&key).map_err(|source| AuthorityError::Library { source })?;
        Ok(AuthorityPem { certificate_pem: certificate.pem(), key_pem: SecretText::new(key.serialize_pem()) })
    }

    /// Makes an issuing key under this root; it may sign end certificates only, of servers within `limits`, and not
    /// longer than the root lives.
    ///
    /// # Errors
    /// As [`Authority::create`].
    pub fn create_issuing(
        &self,
        name: &str,
        now: SystemTime,
        years: u32,
        limits: &NameLimits,
    ) -> Result<AuthorityPem, AuthorityError> {
        let (key, mut params) = Self::draw(name, now, years)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.use_authority_key_identifier_extension = true;
        params.not_after = params.not_after.min(self.not_after().into());
        params.not_before = params.not_before.max(self.not_before().into());
        params.name_constraints = limits.constraints();
        let certificate =
            params.signed_by(&key, &self.issuer).map_err(|source| AuthorityError::Library { source })?;
        Ok(AuthorityPem { certificate_pem: certificate.pem(), key_pem: SecretText::new(key.serialize_pem()) })
    }

    /// The signed list of revoked certificates (RFC 5280, section 5), in DER. Its number is the second at which it was
    /// made, so that numbers grow without anything being kept.
    ///
    /// # Errors
    /// [`IssueError::Library`].
    pub fn revocation_list(
        &self,
        revoked: &RevokedSerials,
        now: SystemTime,
        next_update: Duration,
    ) -> Result<Vec<u8>, IssueError> {
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let revoked_certs = revoked.iter().filter_map(|(serial, revocation)| {
            let mut bytes = vec![0; serial.len() / 2];
            unhex_into(serial.as_bytes(), &mut bytes).ok()?;
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&bytes),
                // A clock that went back must not make a list that is refused for an entry of its future.
                revocation_time: revocation.revoked_at.min(now).into(),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + next_update).into(),
            crl_number: SerialNumber::from_slice(&second.to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).map_err(|source| IssueError::Library { source })?;
        Ok(list.der().to_vec())
    }
}

/// First instant of validity of the first certificate of a PEM text.
pub fn begins_at(chain_pem: &str) -> Option<SystemTime> {
    let der = certificates_of(chain_pem).into_iter().next()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(certificate.validity().not_before.to_datetime().into())
}

/// Whether the first certificate of a PEM text was signed by the first of another.
pub fn is_signed_by(certificate_pem: &str, issuer_pem: &str) -> bool {
    let first = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).ok();
    let (Some(certificate), Some(issuer)) = (first(certificate_pem), first(issuer_pem)) else { return false };
    let (Ok((_, certificate)), Ok((_, issuer))) =
        (X509Certificate::from_der(&certificate), X509Certificate::from_der(&issuer))
    else {
        return false;
    };
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}
