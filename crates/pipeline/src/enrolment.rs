//! Enrolment: how a device comes to its certificate, keeps it, and loses it.
//!
//! What is known of one device is one sealed document: the code it can be claimed with, what was issued to it, and what
//! waits for a person. It is written at its version, so that of two devices that race with one code one is refused.

mod acts;
mod claims;
mod renewals;

use std::collections::HashMap;
use std::time::Duration;

use clinical_model::{Device, DeviceId, RecordId as _, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use store::{
    AuditOutcome, Document, DocumentWrite, Expected, KeyDomain, Kind, StoreError, TransactError, Transaction,
};
use trust::pki::{PeerUri, RequestError, SigningRequest};

pub use self::acts::Proof;
pub use self::claims::{ClaimCode, ClaimRequest, OpenedClaim};
pub use self::renewals::{Renewal, ShownCertificate};
use crate::audited::Act;
use crate::records::{RecordError, all_of, json_from, json_write};
use crate::site::Site;

/// How long a claim code can be used: from the desk to the bedside, over a weekend.
pub const CLAIM_LIFE: Duration = Duration::from_secs(72 * 3_600);
/// How long a certificate of a device lives.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// A certificate that ended longer ago is renewed only after a person has looked.
pub const LATE_AFTER: Duration = Duration::from_secs(90 * 86_400);
/// How long an approval of a late renewal stands.
pub const APPROVAL_LIFE: Duration = Duration::from_secs(72 * 3_600);
/// Certificates of one device that are remembered, the newest first: almost a year of renewals.
pub const CERTIFICATES_KEPT: usize = 20;
/// Certificates that one device is issued within an hour: one that asks more often has a fault.
pub const ISSUED_PER_HOUR: usize = 8;
/// Times that a document is read again because somebody else was faster.
const LIMIT_TRIES: usize = 8;
/// Enrolments read at once.
const PAGE: usize = 500;

/// Whoever holds the issuing key.
pub trait CertificateAuthority: Send + Sync {
    /// Issues a certificate for the key of a request, from a little before now for [`CERTIFICATE_LIFE`]. Blocks.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    fn issue(
        &self,
        peer: &PeerUri,
        common_name: &str,
        request: &SigningRequest,
    ) -> Result<NewCertificate, AuthorityFault>;

    /// Revokes certificates, here at once and on other nodes within a second. Blocks.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    fn revoke(&self, serials: &[String], reason: &str) -> Result<(), AuthorityFault>;

    /// When and why a certificate was revoked.
    fn revocation(&self, serial_hex: &str) -> Option<Revoked>;

    /// What was issued to a device or a program, by its URI, oldest first. Blocks.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    fn issued_to(&self, uri: &str) -> Result<Vec<IssuedTo>, AuthorityFault>;

    /// What people should know of it.
    fn outline(&self) -> Outline;

    /// The signed list of what was revoked (DER) of the issuing key `id`; `None` for an unknown one. Blocks.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    fn revocation_list(&self, id: &str) -> Result<Option<Vec<u8>>, AuthorityFault>;

    /// The registered programs. Blocks.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    fn programs(&self) -> Result<Vec<Program>, AuthorityFault>;

    /// Registers what a program may do. Blocks.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    fn register_program(&self, name: &str, scopes: &[String]) -> Result<(), AuthorityFault>;
}

/// A certificate that was just issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCertificate {
    /// The certificate and behind it that of the issuing key, PEM.
    pub chain_pem: String,
    /// Serial number in lower-case hexadecimal.
    pub serial_hex: String,
    /// First instant of validity.
    pub not_before: Timestamp,
    /// Last instant of validity.
    pub not_after: Timestamp,
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// A line of what was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedTo {
    /// Serial number in lower-case hexadecimal.
    pub serial_hex: String,
    /// Last instant of validity.
    pub not_after: Timestamp,
}

/// A registered program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its SMART system scopes.
    pub scopes: Vec<String>,
    /// When they were registered.
    pub registered_at: Timestamp,
}

/// What people should know of the authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Its name.
    pub name: String,
    /// The anchors that devices must know, PEM.
    pub anchors_pem: String,
    /// SHA-256 of the first anchor (DER), lower-case hexadecimal: what a claim code carries as a pin.
    pub anchor_sha256: String,
    /// Last instant of the first anchor.
    pub anchor_not_after: Timestamp,
    /// Issuing keys that are believed, the present one first.
    pub issuing: Vec<IssuingKey>,
    /// Whether the key of the root lies here, which it should not.
    pub is_root_key_here: bool,
    /// `https://host:port` of the device port, as devices should call it.
    pub address: String,
}

/// An issuing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuingKey {
    /// What tells it from others.
    pub id: String,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// Last instant of its certificate.
    pub not_after: Timestamp,
}

/// The authority cannot do its part now.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct AuthorityFault {
    /// What failed, and what to do.
    pub what: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// How a certificate came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// A claim code over JSON.
    Claim,
    /// A claim code over EST.
    Est,
    /// An earlier certificate.
    Renewal,
}

/// A certificate as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Serial number in lower-case hexadecimal.
    pub serial_hex: String,
    /// First instant of validity.
    pub not_before: Timestamp,
    /// Last instant of validity.
    pub not_after: Timestamp,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// How.
    pub via: Via,
    /// SHA-256 of its public key.
    pub key_sha256: String,
    /// When the device was first seen to use it; then earlier ones renew no more.
    #[serde(default)]
    pub used_at: Option<Timestamp>,
    /// The chain, while it is the newest: a device whose answer was lost is given the same once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_pem: Option<String>,
}

/// Where a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// The code can be used.
    Open,
    /// A device has used it.
    Used,
    /// Its time is over.
    Expired,
    /// A person took it back.
    Withdrawn,
}

impl ClaimState {
    /// As a word.
    pub const fn word(self) -> &'static str {
        match self {
            ClaimState::Open => "open",
            ClaimState::Used => "used",
            ClaimState::Expired => "expired",
            ClaimState::Withdrawn => "withdrawn",
        }
    }
}

/// A one-time code by which a device proves that it is the one that was expected. Kept as a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    code_hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it can be used.
    pub expires_at: Timestamp,
    /// By whom.
    pub created_by: Option<UserId>,
    /// When it was used.
    pub used_at: Option<Timestamp>,
    used_key_sha256: Option<String>,
    /// When it was taken back.
    pub withdrawn_at: Option<Timestamp>,
}

impl Claim {
    /// Where it stands.
    pub fn state(&self, now: Timestamp) -> ClaimState {
        if self.used_at.is_some() {
            ClaimState::Used
        } else if self.withdrawn_at.is_some() {
            ClaimState::Withdrawn
        } else if now >= self.expires_at {
            ClaimState::Expired
        } else {
            ClaimState::Open
        }
    }
}

/// A device whose certificate ended long ago asks to come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// When it asked first.
    pub asked_at: Timestamp,
    /// When its certificate ended.
    pub expired_at: Timestamp,
    /// The certificate.
    pub serial_hex: String,
    /// Until when its next try is granted, once a person approved.
    pub approved_until: Option<Timestamp>,
}

/// What is known of a device's certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The last claim.
    pub claim: Option<Claim>,
    /// What was issued by enrolment, the newest first, at most [`CERTIFICATES_KEPT`].
    pub certificates: Vec<Certificate>,
    /// When it was renewed last.
    pub last_renewed_at: Option<Timestamp>,
    /// When an outlived certificate was last refused a renewal.
    #[serde(default)]
    pub outlived_at: Option<Timestamp>,
    /// What waits for a person.
    pub review: Option<Review>,
    /// When it was taken out of service for good.
    pub decommissioned_at: Option<Timestamp>,
}

impl Enrolment {
    fn put(&mut self, certificate: Certificate) {
        for earlier in &mut self.certificates {
            earlier.chain_pem = None;
        }
        self.certificates.insert(0, certificate);
        self.certificates.truncate(CERTIFICATES_KEPT);
    }

    fn issued_since(&self, instant: Timestamp, now: Timestamp) -> usize {
        let counts = |at: Timestamp| at >= instant && !at.is_ahead_of(now);
        self.certificates.iter().filter(|one| counts(one.issued_at)).count()
    }
}

/// Why a device does not get a certificate, or a person's act was not done.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// There is no such device.
    #[error("there is no such device")]
    NoDevice,
    /// Serial number and code do not fit; which of the two is not said, nor whether the claim was used or is over.
    #[error(
        "the serial number and the code do not fit, or the code was used or is no longer valid; ask for a new one"
    )]
    NotClaimed,
    /// The signing request is not acceptable.
    #[error("the signing request is refused")]
    Request(#[source] RequestError),
    /// The device was taken out of service, or its certificate was revoked.
    #[error("the certificate is revoked, or the device is out of service: it must be claimed anew")]
    Revoked,
    /// The device uses a newer certificate already: somebody else has its earlier key, or it was put back to an earlier state.
    #[error(
        "a newer certificate of this device is in use, and this one renews no more: renew with that one, or claim the device \
         anew"
    )]
    Outlived,
    /// More certificates within an hour than any sound device needs.
    #[error("this device was issued {ISSUED_PER_HOUR} certificates within an hour; it has a fault")]
    TooOften,
    /// A person's act that makes no sense now.
    #[error("{0}")]
    NotNow(&'static str),
    /// Others go on changing it.
    #[error("somebody else is changing this device's enrolment; look again")]
    Conflict,
    /// The authority cannot do its part.
    #[error("no certificate can be issued or revoked now")]
    Authority(#[source] AuthorityFault),
    /// What is kept is damaged.
    #[error("what is kept of the device's enrolment is damaged")]
    Damaged(#[source] RecordError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
}

impl From<StoreError> for EnrolError {
    fn from(error: StoreError) -> Self {
        EnrolError::Store(error)
    }
}

impl From<AuthorityFault> for EnrolError {
    fn from(error: AuthorityFault) -> Self {
        EnrolError::Authority(error)
    }
}

/// A document as it was read: what it says, and at which version it may be written.
struct Kept {
    enrolment: Enrolment,
    expected: Expected,
}

impl Site {
    /// What is known of a device's certificates. Blocks.
    ///
    /// # Errors
    /// [`EnrolError::Store`] or [`EnrolError::Damaged`].
    pub fn enrolment(&self, device: DeviceId) -> Result<Enrolment, EnrolError> {
        Ok(self.kept_enrolment(device)?.enrolment)
    }

    /// As [`Site::enrolment`], of all devices that have one. Blocks.
    ///
    /// # Errors
    /// As [`Site::enrolment`].
    pub fn enrolments(&self) -> Result<HashMap<DeviceId, Enrolment>, EnrolError> {
        let (mut found, mut after) = (HashMap::new(), None);
        loop {
            let page = self.store().documents(&all_of(Kind::Enrolment, after.take(), PAGE))?;
            for document in &page {
                found.insert(DeviceId::from_bytes(document.id), read(document)?);
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some((last.index_value.clone(), last.id)),
                _ => return Ok(found),
            }
        }
    }

    fn kept_enrolment(&self, device: DeviceId) -> Result<Kept, EnrolError> {
        Ok(match self.store().document(Kind::Enrolment, device.to_bytes())? {
            Some(document) => {
                Kept { enrolment: read(&document)?, expected: Expected::Version(document.version) }
            }
            None => Kept { enrolment: Enrolment::default(), expected: Expected::Absent },
        })
    }

    /// Writes at the version that was read, with the record of the act; `false` where somebody else was faster.
    fn keep_enrolment(
        &self,
        device: DeviceId,
        expected: Expected,
        enrolment: &Enrolment,
        acts: Vec<(Act, AuditOutcome)>,
    ) -> Result<bool, EnrolError> {
        let at = self.clock().now();
        let writes = vec![enrolment_write(device, expected, enrolment)];
        let audit = acts.into_iter().map(|(act, outcome)| act.record(at, outcome)).collect();
        match self.store().transact(&Transaction { at, writes, audit, ..Transaction::default() }) {
            Ok(()) => Ok(true),
            Err(TransactError::Conflict { .. }) => Ok(false),
            Err(TransactError::LeaseLost { .. }) => Err(EnrolError::Conflict),
            Err(TransactError::Store(error)) => Err(EnrolError::Store(error)),
        }
    }

    fn device_to_enrol(&self, device: DeviceId) -> Result<std::sync::Arc<Device>, EnrolError> {
        self.registry().device(device).ok_or(EnrolError::NoDevice)
    }
}

fn read(document: &Document) -> Result<Enrolment, EnrolError> {
    json_from(&document.body).map_err(EnrolError::Damaged)
}

/// What withdraws the code that a device may still be claimed with, where there is one.
///
/// # Errors
/// [`EnrolError::Damaged`].
pub fn withdrawal(document: &Document, now: Timestamp) -> Result<Option<DocumentWrite>, EnrolError> {
    let mut enrolment = read(document)?;
    let open = enrolment.claim.as_mut().filter(|claim| claim.state(now) == ClaimState::Open);
    let Some(claim) = open else { return Ok(None) };
    claim.withdrawn_at = Some(now);
    let (device, expected) = (DeviceId::from_bytes(document.id), Expected::Version(document.version));
    Ok(Some(enrolment_write(device, expected, &enrolment)))
}

fn enrolment_write(device: DeviceId, expected: Expected, enrolment: &Enrolment) -> DocumentWrite {
    json_write(Kind::Enrolment, device.to_bytes(), expected, KeyDomain::System, enrolment, Vec::new())
}

/// The URI of a device's certificates.
pub fn uri_of(device: DeviceId) -> PeerUri {
    PeerUri::Device(*device.as_uuid())
}

/// What stands as common name in a device's certificates: its serial number, or its id where that cannot stand there.
pub fn common_name_of(device: &Device) -> String {
    let serial = device.serial.trim();
    let fits = (1..=trust::pki::MAX_COMMON_NAME_CHARS).contains(&serial.chars().count())
        && !serial.chars().any(char::is_control);
    if fits { serial.to_owned() } else { device.id.to_string() }
}

/// Whether a request asks for nothing but this device.
fn asks_for(request: &SigningRequest, device: &Device, present: Option<&str>) -> Result<(), EnrolError> {
    let (id, name) = (device.id.to_string(), common_name_of(device));
    let mut names = vec![device.serial.as_str(), device.name.as_str(), id.as_str(), name.as_str()];
    names.extend(present);
    request.asks_only_for(&names, &uri_of(device.id).to_string()).map_err(EnrolError::Request)
}
