//! What people do about certificates: revoke those of a device, and take a device out of service for good.

use clinical_model::{Device, DeviceId, Timestamp};
use serde::Serialize;
use store::{AuditAction, AuditOutcome};

use super::{CertificateAuthority, ClaimState, EnrolError, Enrolment, Kept, LIMIT_TRIES, uri_of};
use crate::audited::Agent;
use crate::desk::DeskError;
use crate::site::Site;

/// What was done to take a device out of service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// The device.
    pub device_id: DeviceId,
    /// Its serial number.
    pub serial: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// The serial numbers of its certificates, all of them revoked.
    pub revoked: Vec<String>,
    /// Where the signed lists stand that name them.
    pub crl_paths: Vec<String>,
    /// Whether an assignment was ended.
    pub assignment_ended: bool,
}

impl Site {
    /// Revokes every certificate of a device, and closes an open claim. Open connections end within a
    /// second. Blocks.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub fn revoke_certificates(
        &self,
        authority: &dyn CertificateAuthority,
        by: impl Into<Agent>,
        device: DeviceId,
        reason: &str,
    ) -> Result<(Enrolment, Vec<String>), EnrolError> {
        let by = by.into();
        self.device_to_enrol(device)?;
        let mut serials = self.serials_of(authority, device)?;
        // First the effect, then the record of it: what is revoked but not recorded is seen in the list.
        if !serials.is_empty() {
            authority.revoke(&serials, reason)?;
        }
        for _ in 0..LIMIT_TRIES {
            let Kept { mut enrolment, expected } = self.kept_enrolment(device)?;
            let now = self.clock().now();
            if let Some(claim) = enrolment.claim.as_mut().filter(|claim| claim.state(now) == ClaimState::Open)
            {
                claim.withdrawn_at = Some(now);
            }
            enrolment.review = None;
            let act = by
                .act(AuditAction::Delete, "certificate")
                .device(device)
                .detail(format!("revoked {}: {reason}", serials.join(", ")));
            if !self.keep_enrolment(device, expected, &enrolment, vec![(act, AuditOutcome::Success)])? {
                continue;
            }
            // A renewal that began before may have got its certificate in between; from here on none can.
            let late = self.serials_of(authority, device)?;
            if late.is_empty() {
                return Ok((enrolment, serials));
            }
            authority.revoke(&late, reason)?;
            serials.extend(late);
        }
        Err(EnrolError::Conflict)
    }

    /// Takes a device out of service for good: its certificates are revoked, its claim is closed, its assignment ends,
    /// and it is retired. Blocks.
    ///
    /// # Errors
    /// [`EnrolError`]; what was done by then stays done, and it can be asked for again.
    pub fn decommission(
        &self,
        authority: &dyn CertificateAuthority,
        by: impl Into<Agent>,
        device: DeviceId,
        reason: &str,
    ) -> Result<(Enrolment, Proof), EnrolError> {
        let by = by.into();
        let (_, mut revoked) = self.revoke_certificates(authority, by.clone(), device, reason)?;
        // With those that were revoked before, so that the proof names all.
        for one in authority.issued_to(&uri_of(device).to_string())? {
            if authority.revocation(&one.serial_hex).is_some() && !revoked.contains(&one.serial_hex) {
                revoked.push(one.serial_hex);
            }
        }
        let now = self.clock().now();
        let assignment_ended = match self.registry().assignment_at(device, now) {
            Some(assignment) => match self.end_assignment(by.clone(), assignment.id, now) {
                Ok(_) => true,
                Err(error) => return Err(of_desk(error)),
            },
            None => false,
        };
        let (known, version) = self.registry().device_versioned(device).ok_or(EnrolError::NoDevice)?;
        if !known.retired {
            let retired = Device { retired: true, ..Device::clone(&known) };
            self.update_device(by.clone(), retired, version).map_err(of_desk)?;
        }
        self.admission().note_change();
        for _ in 0..LIMIT_TRIES {
            let Kept { mut enrolment, expected } = self.kept_enrolment(device)?;
            enrolment.decommissioned_at = Some(now);
            let act = by
                .act(AuditAction::Administer, "certificate")
                .device(device)
                .detail(format!("taken out of service: {reason}"));
            if self.keep_enrolment(device, expected, &enrolment, vec![(act, AuditOutcome::Success)])? {
                let issuing = authority.outline().issuing;
                let proof = Proof {
                    device_id: device,
                    serial: known.serial.clone(),
                    reason: reason.to_owned(),
                    at: now,
                    revoked,
                    crl_paths: issuing.iter().map(|key| format!("/pki/crl/{}.crl", key.id)).collect(),
                    assignment_ended,
                };
                return Ok((enrolment, proof));
            }
        }
        Err(EnrolError::Conflict)
    }

    /// The serial numbers of a device's certificates that are believed: by enrolment and by hand.
    fn serials_of(
        &self,
        authority: &dyn CertificateAuthority,
        device: DeviceId,
    ) -> Result<Vec<String>, EnrolError> {
        // Also those that ended: an ended certificate can still ask for a renewal.
        let mut serials: Vec<String> = self
            .enrolment(device)?
            .certificates
            .into_iter()
            .map(|one| one.serial_hex)
            .chain(authority.issued_to(&uri_of(device).to_string())?.into_iter().map(|one| one.serial_hex))
            .filter(|serial| authority.revocation(serial).is_none())
            .collect();
        serials.sort_unstable();
        serials.dedup();
        Ok(serials)
    }
}

fn of_desk(error: DeskError) -> EnrolError {
    match error {
        DeskError::NotFound { .. } => EnrolError::NoDevice,
        DeskError::Store(error) => EnrolError::Store(error),
        _ => EnrolError::Conflict,
    }
}
