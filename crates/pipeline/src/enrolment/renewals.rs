//! Renewals: a device shows the certificate it has and gets the next one; late is allowed, very late is looked at, and
//! whoever comes with one that the device has outlived is refused.

use std::sync::Weak;
use std::sync::mpsc::Receiver;

use clinical_model::{Device, DeviceId, Timestamp};
use store::{Actor, AuditAction, AuditOutcome, Expected};
use trust::pki::SigningRequest;

use super::claims::{given, remembered};
use super::{
    APPROVAL_LIFE, Certificate, CertificateAuthority, EnrolError, Enrolment, ISSUED_PER_HOUR, Kept,
    LATE_AFTER, LIMIT_TRIES, NewCertificate, Review, Via, asks_for, common_name_of, uri_of,
};
use crate::admission::CertificateUse;
use crate::audited::{Act, Agent};
use crate::site::{Site, Stop};

/// An hour.
const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);
/// How often it is written down which certificates came into use.
const NOTED_EVERY: std::time::Duration = std::time::Duration::from_millis(200);

/// The certificate that a device showed: its chain is sound and it has the private key, but it may be out of date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCertificate {
    /// Serial number in lower-case hexadecimal.
    pub serial_hex: String,
    /// Common name.
    pub common_name: String,
    /// First instant of validity.
    pub not_before: Timestamp,
    /// Last instant of validity.
    pub not_after: Timestamp,
}

/// What becomes of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The next certificate.
    Granted(NewCertificate),
    /// The present one ended so long ago that a person looks first; ask again later.
    Waits,
}

impl Site {
    /// Gives a device that showed its present certificate the next one; its identity stays. One that ended more than
    /// [`LATE_AFTER`] ago waits for a person. Blocks.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub fn renew(
        &self,
        authority: &dyn CertificateAuthority,
        device: DeviceId,
        shown: &ShownCertificate,
        request: &SigningRequest,
    ) -> Result<Renewal, EnrolError> {
        let known =
            self.registry().device(device).filter(|known| !known.retired).ok_or(EnrolError::Revoked)?;
        asks_for(request, &known, Some(&shown.common_name))?;
        for _ in 0..LIMIT_TRIES {
            let Kept { mut enrolment, expected } = self.kept_enrolment(device)?;
            // Looked at with each try: whoever revoked meanwhile changed the enrolment, which is why there is another.
            if authority.revocation(&shown.serial_hex).is_some() {
                return Err(EnrolError::Revoked);
            }
            let now = self.clock().now();
            // An answer can be lost: within the hour the same key gets the same certificate.
            let is_fresh = enrolment.certificates.first().is_some_and(|newest| {
                newest.issued_at > now.minus(HOUR)
                    && !newest.issued_at.is_ahead_of(now)
                    && newest.serial_hex != shown.serial_hex
            });
            if let Some(again) = given(&enrolment, request).filter(|_| is_fresh) {
                return Ok(Renewal::Granted(again));
            }
            if is_outlived(authority, &enrolment, shown, now) {
                if self.refuse_outlived(device, shown, &mut enrolment, expected, now)? {
                    return Err(EnrolError::Outlived);
                }
                continue;
            }
            if enrolment.issued_since(now.minus(HOUR), now) >= ISSUED_PER_HOUR {
                return Err(EnrolError::TooOften);
            }
            if now > shown.not_after.plus(LATE_AFTER) && !is_approved(&enrolment, shown, now) {
                if self.ask_review(&known, shown, &mut enrolment, expected, now)? {
                    return Ok(Renewal::Waits);
                }
                continue;
            }
            let issued = authority.issue(&uri_of(device), &common_name_of(&known), request)?;
            enrolment.put(remembered(&issued, request, Via::Renewal, now));
            enrolment.last_renewed_at = Some(now);
            enrolment.review = None;
            let act = Act::new(Actor::Device(device), AuditAction::Update, "certificate")
                .device(device)
                .detail(detail_of(shown, &issued, now));
            if self.keep_enrolment(device, expected, &enrolment, vec![(act, AuditOutcome::Success)])? {
                return Ok(Renewal::Granted(issued));
            }
        }
        Err(EnrolError::Conflict)
    }

    /// Records that an outlived certificate asked to be renewed, once an hour: it may be the key of a device that was replaced.
    fn refuse_outlived(
        &self,
        device: DeviceId,
        shown: &ShownCertificate,
        enrolment: &mut Enrolment,
        expected: Expected,
        now: Timestamp,
    ) -> Result<bool, EnrolError> {
        if enrolment.outlived_at.is_some_and(|last| last <= now && now < last.plus(HOUR)) {
            return Ok(true);
        }
        enrolment.outlived_at = Some(now);
        let detail = format!("renewal of {} refused: a newer one is in use", shown.serial_hex);
        tracing::warn!(%device, serial = shown.serial_hex, "an outlived certificate asks to be renewed; who has its key?");
        let act =
            Act::new(Actor::Device(device), AuditAction::Update, "certificate").device(device).detail(detail);
        self.keep_enrolment(device, expected, enrolment, vec![(act, AuditOutcome::Refused)])
    }

    /// Writes down that a device used a certificate, the first time. Blocks.
    fn certificate_used(&self, device: DeviceId, serial_hex: &str) -> Result<(), EnrolError> {
        for _ in 0..LIMIT_TRIES {
            let Kept { mut enrolment, expected } = self.kept_enrolment(device)?;
            let unused = |one: &&mut Certificate| one.serial_hex == serial_hex && one.used_at.is_none();
            let Some(one) = enrolment.certificates.iter_mut().find(unused) else { return Ok(()) };
            one.used_at = Some(self.clock().now());
            if self.keep_enrolment(device, expected, &enrolment, Vec::new())? {
                return Ok(());
            }
        }
        Err(EnrolError::Conflict)
    }

    /// Writes down which certificates came into use, until the site stops.
    pub(crate) fn keep_noting_certificates(site: &Weak<Self>, stop: &Stop, uses: &Receiver<CertificateUse>) {
        while !stop.wait(NOTED_EVERY) {
            let Some(site) = site.upgrade() else { return };
            while let Ok((device, serial_hex)) = uses.try_recv() {
                if let Err(error) = site.certificate_used(device, &serial_hex) {
                    // It is noted when this node starts again, or the device comes to another.
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, %device, "the use of a certificate was not written down");
                }
            }
        }
    }

    /// Puts the device where a person looks; once.
    fn ask_review(
        &self,
        device: &Device,
        shown: &ShownCertificate,
        enrolment: &mut Enrolment,
        expected: Expected,
        now: Timestamp,
    ) -> Result<bool, EnrolError> {
        let waits =
            |review: &Review| review.serial_hex == shown.serial_hex && review.approved_until.is_none();
        if enrolment.review.as_ref().is_some_and(waits) {
            return Ok(true);
        }
        enrolment.review = Some(Review {
            asked_at: now,
            expired_at: shown.not_after,
            serial_hex: shown.serial_hex.clone(),
            approved_until: None,
        });
        let act = Act::new(Actor::Device(device.id), AuditAction::Update, "certificate")
            .device(device.id)
            .detail(format!(
                "late renewal of {}, which ended {}: a person decides",
                shown.serial_hex, shown.not_after
            ));
        tracing::warn!(device = %device.id, ended = %shown.not_after, "a device asks for a late renewal; a person decides");
        self.keep_enrolment(device.id, expected, enrolment, vec![(act, AuditOutcome::Refused)])
    }

    /// A person decides on a late renewal: the device's next try is granted within [`APPROVAL_LIFE`], or its
    /// certificate is revoked. Blocks.
    ///
    /// # Errors
    /// [`EnrolError::NotNow`] where nothing waits.
    pub fn review_late_renewal(
        &self,
        authority: &dyn CertificateAuthority,
        by: impl Into<Agent>,
        device: DeviceId,
        approves: bool,
        note: &str,
    ) -> Result<Enrolment, EnrolError> {
        let by = by.into();
        self.device_to_enrol(device)?;
        for _ in 0..LIMIT_TRIES {
            let Kept { mut enrolment, expected } = self.kept_enrolment(device)?;
            let now = self.clock().now();
            let Some(review) = &mut enrolment.review else {
                return Err(EnrolError::NotNow("no late renewal of this device waits"));
            };
            let serial = review.serial_hex.clone();
            if approves {
                review.approved_until = Some(now.plus(APPROVAL_LIFE));
            } else {
                authority.revoke(std::slice::from_ref(&serial), "late renewal refused")?;
                enrolment.review = None;
            }
            let word = if approves { "approved" } else { "refused" };
            let act = by
                .act(AuditAction::Administer, "certificate")
                .device(device)
                .detail(format!("late renewal of {serial} {word}: {note}"));
            if self.keep_enrolment(device, expected, &enrolment, vec![(act, AuditOutcome::Success)])? {
                return Ok(enrolment);
            }
        }
        Err(EnrolError::Conflict)
    }
}

/// Whether the device was seen to use one that was issued after this one and that counts: not one that was revoked since,
/// nor one of a clock that ran ahead.
fn is_outlived(
    authority: &dyn CertificateAuthority,
    enrolment: &Enrolment,
    shown: &ShownCertificate,
    now: Timestamp,
) -> bool {
    enrolment.certificates.iter().any(|one| {
        one.used_at.is_some()
            && one.not_before > shown.not_before
            && !one.not_before.is_ahead_of(now)
            && authority.revocation(&one.serial_hex).is_none()
    })
}

fn is_approved(enrolment: &Enrolment, shown: &ShownCertificate, now: Timestamp) -> bool {
    enrolment.review.as_ref().is_some_and(|review| {
        review.serial_hex == shown.serial_hex && review.approved_until.is_some_and(|until| now < until)
    })
}

fn detail_of(shown: &ShownCertificate, issued: &NewCertificate, now: Timestamp) -> String {
    let late = if now > shown.not_after {
        format!(", late: it ended {}", shown.not_after)
    } else if now < shown.not_before {
        format!(", before its first instant {}", shown.not_before)
    } else {
        String::new()
    };
    format!("renewed {} as {}{late}", shown.serial_hex, issued.serial_hex)
}
