//! Claims: a one-time code, bound to a serial number, for which the device that has it gets its first certificate.

use clinical_model::{Device, DeviceId, Timestamp};
use store::{Actor, AuditAction, AuditOutcome};
use trust::pki::SigningRequest;
use trust::{SecretText, random_bytes};

use super::{
    CLAIM_LIFE, Certificate, CertificateAuthority, Claim, ClaimState, EnrolError, Enrolment, Kept,
    LIMIT_TRIES, NewCertificate, Via, asks_for, common_name_of, uri_of,
};
use crate::audited::{Act, Agent};
use crate::site::Site;

/// Bytes of a code: 128 bit, drawn by chance. Whoever knows the serial number and sends a million guesses a second for
/// all of the 72 hours that a code lives makes 2.6e11 of 3.4e38: one chance in 1.3e27. That is why wrong codes spend
/// nothing: a count of tries would only let strangers take the code away from the device that has it.
const CODE_BYTES: usize = 16;
/// Letters of a code: 26 of five bits, the last of them two bits short.
const CODE_LETTERS: usize = 26;
/// Crockford's alphabet: no letter is mistaken for a digit.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Letters of a group.
const GROUP: usize = 5;
/// Longest text that is looked at as a code, in bytes.
const CODE_TEXT_LIMIT_BYTES: usize = 64;

/// A claim code in the clear.
pub struct ClaimCode([u8; CODE_BYTES]);

impl ClaimCode {
    /// A new one.
    pub fn generate() -> Self {
        ClaimCode(random_bytes())
    }

    /// In groups of five letters and digits, to be read aloud and typed.
    pub fn to_text(&self) -> SecretText {
        let mut bits = u128::from_be_bytes(self.0);
        let mut letters = [0_u8; CODE_LETTERS];
        for letter in letters.iter_mut().rev() {
            *letter = ALPHABET[usize::from((bits & 31) as u8)];
            bits >>= 5;
        }
        let groups: Vec<&str> =
            letters.chunks(GROUP).map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
        SecretText::new(groups.join("-"))
    }

    /// As somebody typed it: case, spaces and hyphens do not matter, and look-alikes are taken for what was meant.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > CODE_TEXT_LIMIT_BYTES {
            return None;
        }
        let mut bits: u128 = 0;
        let mut count = 0;
        for typed in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let letter = match typed.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let value = ALPHABET.iter().position(|known| char::from(*known) == letter)?;
            // Beyond 128 bits: no code of ours.
            if bits >> (128 - 5) != 0 {
                return None;
            }
            bits = bits << 5 | value as u128;
            count += 1;
        }
        (count == CODE_LETTERS).then(|| ClaimCode(bits.to_be_bytes()))
    }

    fn hash(&self) -> String {
        let digest = trust::digest::sha256(&[b"auscult claim code", &self.0]);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A claim that was just made.
pub struct OpenedClaim {
    /// The code: shown once, kept nowhere.
    pub code: SecretText,
    /// The device.
    pub device: DeviceId,
    /// Its serial number.
    pub serial: String,
    /// Until when the code can be used.
    pub expires_at: Timestamp,
}

/// What a device sends to be enrolled.
pub struct ClaimRequest<'a> {
    /// Its serial number.
    pub serial: &'a str,
    /// The code.
    pub code: &'a str,
    /// Its signing request.
    pub request: &'a SigningRequest,
    /// Over which protocol.
    pub via: Via,
    /// From where, for the record.
    pub from: String,
    /// What is recorded of a refusal, if anything: whoever floods the site fills no log.
    pub noted: &'a (dyn Fn(Act) -> Option<Act> + Sync),
}

impl Site {
    /// Makes a new code for a device; an earlier one is worth nothing from then on. Blocks.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub fn open_claim(&self, by: impl Into<Agent>, device: DeviceId) -> Result<OpenedClaim, EnrolError> {
        let known = self.device_to_enrol(device)?;
        if known.retired {
            return Err(EnrolError::NotNow("the device is out of service; put it back into service first"));
        }
        if known.serial.trim().is_empty() {
            return Err(EnrolError::NotNow("the device has no serial number, to which a code is bound"));
        }
        let by = by.into();
        let created_by = if let Actor::User(user) = &by.who { Some(*user) } else { None };
        for _ in 0..LIMIT_TRIES {
            let Kept { mut enrolment, expected } = self.kept_enrolment(device)?;
            let (code, now) = (ClaimCode::generate(), self.clock().now());
            let expires_at = now.plus(CLAIM_LIFE);
            enrolment.claim = Some(Claim {
                code_hash: code.hash(),
                created_at: now,
                expires_at,
                created_by,
                used_at: None,
                used_key_sha256: None,
                withdrawn_at: None,
            });
            enrolment.decommissioned_at = None;
            let act = by
                .act(AuditAction::Create, "claim")
                .device(device)
                .detail(format!("serial number {}, until {expires_at}", known.serial));
            if self.keep_enrolment(device, expected, &enrolment, vec![(act, AuditOutcome::Success)])? {
                let serial = known.serial.clone();
                return Ok(OpenedClaim { code: code.to_text(), device, serial, expires_at });
            }
        }
        Err(EnrolError::Conflict)
    }

    /// Takes back an open code. Blocks.
    ///
    /// # Errors
    /// [`EnrolError::NotNow`] where none is open.
    pub fn withdraw_claim(&self, by: impl Into<Agent>, device: DeviceId) -> Result<Enrolment, EnrolError> {
        let by = by.into();
        self.device_to_enrol(device)?;
        for _ in 0..LIMIT_TRIES {
            let Kept { mut enrolment, expected } = self.kept_enrolment(device)?;
            let now = self.clock().now();
            let open = enrolment.claim.as_mut().filter(|claim| claim.state(now) == ClaimState::Open);
            let Some(claim) = open else {
                return Err(EnrolError::NotNow("no code is open for this device"));
            };
            claim.withdrawn_at = Some(now);
            let act = by.act(AuditAction::Delete, "claim").device(device);
            if self.keep_enrolment(device, expected, &enrolment, vec![(act, AuditOutcome::Success)])? {
                return Ok(enrolment);
            }
        }
        Err(EnrolError::Conflict)
    }

    /// Gives the device that shows the right code its first certificate. Of several that show it at the same time one
    /// gets it; to the one that got it, it is given once more while the code would still be valid, for an answer can be
    /// lost. A wrong code is refused, and changes nothing. Blocks.
    ///
    /// # Errors
    /// [`EnrolError`]; the refusal is recorded.
    pub fn claim(
        &self,
        authority: &dyn CertificateAuthority,
        asked: &ClaimRequest<'_>,
    ) -> Result<(DeviceId, NewCertificate), EnrolError> {
        let serial = asked.serial.trim();
        let hash = ClaimCode::parse(asked.code).map(|code| code.hash());
        let named = |device: &std::sync::Arc<Device>| device.serial.trim() == serial && !device.retired;
        let devices: Vec<_> = self.registry().devices().into_iter().filter(named).collect();
        for device in &devices {
            if let Some(granted) = self.claim_as(authority, asked, hash.as_deref(), device)? {
                return Ok((device.id, granted));
            }
        }
        let why = match (&devices[..], &hash) {
            ([], _) => "no device in service has this serial number",
            (_, Some(_)) => "a wrong code",
            (_, None) => "no code at all",
        };
        self.refuse_claim(asked, devices.first().map(|device| device.id), why);
        Err(EnrolError::NotClaimed)
    }

    /// Revokes what devices had before they were claimed anew, where a server was stopped before it did. To be called at the
    /// start. Blocks.
    ///
    /// # Errors
    /// [`EnrolError::Store`] or [`EnrolError::Damaged`].
    pub fn finish_claims(&self, authority: &dyn CertificateAuthority) -> Result<(), EnrolError> {
        let now = self.clock().now();
        self.enrolments()?.values().for_each(|enrolment| supersede(authority, enrolment, now));
        Ok(())
    }

    /// The certificate, if the code is this device's; `None` if it is another's.
    fn claim_as(
        &self,
        authority: &dyn CertificateAuthority,
        asked: &ClaimRequest<'_>,
        hash: Option<&str>,
        device: &Device,
    ) -> Result<Option<NewCertificate>, EnrolError> {
        let Some(hash) = hash else { return Ok(None) };
        for _ in 0..LIMIT_TRIES {
            let Kept { mut enrolment, expected } = self.kept_enrolment(device.id)?;
            let now = self.clock().now();
            let right = |claim: &&mut Claim| trust::equal(claim.code_hash.as_bytes(), hash.as_bytes());
            let Some(claim) = enrolment.claim.as_mut().filter(right) else { return Ok(None) };
            match claim.state(now) {
                ClaimState::Open => {}
                ClaimState::Used if is_same_again(claim, asked.request, now) => {
                    supersede(authority, &enrolment, now);
                    return match given(&enrolment, asked.request) {
                        Some(again) => Ok(Some(again)),
                        None => Err(EnrolError::NotClaimed),
                    };
                }
                state => {
                    let why = format!("the code is right, but {}", state.word());
                    self.refuse_claim(asked, Some(device.id), &why);
                    return Err(EnrolError::NotClaimed);
                }
            }
            asks_for(asked.request, device, None).inspect_err(|_| {
                self.refuse_claim(asked, Some(device.id), "the signing request asks for another name");
            })?;
            claim.used_at = Some(now);
            claim.used_key_sha256 = Some(asked.request.key_sha256_hex().to_owned());
            let issued = authority.issue(&uri_of(device.id), &common_name_of(device), asked.request)?;
            enrolment.put(remembered(&issued, asked.request, asked.via, now));
            enrolment.review = None;
            let act = Act::new(Actor::Device(device.id), AuditAction::Create, "certificate")
                .device(device.id)
                .address(asked.from.clone())
                .detail(format!("claimed by code from {}: {}", asked.from, issued.serial_hex));
            if self.keep_enrolment(device.id, expected, &enrolment, vec![(act, AuditOutcome::Success)])? {
                supersede(authority, &enrolment, now);
                return Ok(Some(issued));
            }
        }
        Err(EnrolError::Conflict)
    }

    /// Records a refusal; it stands even where the record cannot be written.
    fn refuse_claim(&self, asked: &ClaimRequest<'_>, device: Option<DeviceId>, why: &str) {
        let Some(act) = (asked.noted)(refusal(asked, device, &format!("{why}; from {}", asked.from))) else {
            return;
        };
        if let Err(error) = self.record(act, AuditOutcome::Refused) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a refused claim could not be recorded"
            );
        }
    }
}

fn refusal(asked: &ClaimRequest<'_>, device: Option<DeviceId>, detail: &str) -> Act {
    let claimed: String = asked.serial.chars().filter(|c| !c.is_control()).take(100).collect();
    let act = Act::new(Actor::Unproven(claimed), AuditAction::Create, "certificate")
        .address(asked.from.clone())
        .detail(detail);
    match device {
        Some(device) => act.device(device),
        None => act,
    }
}

/// Whether this is the device that used the code, asking again within its time.
fn is_same_again(claim: &Claim, request: &SigningRequest, now: Timestamp) -> bool {
    claim.used_key_sha256.as_deref() == Some(request.key_sha256_hex()) && now < claim.expires_at
}

/// The newest certificate once more, if it is for this key.
pub(super) fn given(enrolment: &Enrolment, request: &SigningRequest) -> Option<NewCertificate> {
    let newest = enrolment.certificates.first()?;
    let chain_pem = newest.chain_pem.clone().filter(|_| newest.key_sha256 == request.key_sha256_hex())?;
    Some(NewCertificate {
        chain_pem,
        serial_hex: newest.serial_hex.clone(),
        not_before: newest.not_before,
        not_after: newest.not_after,
    })
}

pub(super) fn remembered(
    issued: &NewCertificate,
    request: &SigningRequest,
    via: Via,
    now: Timestamp,
) -> Certificate {
    Certificate {
        serial_hex: issued.serial_hex.clone(),
        not_before: issued.not_before,
        not_after: issued.not_after,
        issued_at: now,
        via,
        key_sha256: request.key_sha256_hex().to_owned(),
        used_at: None,
        chain_pem: Some(issued.chain_pem.clone()),
    }
}

/// A device that was claimed anew has one identity: what it had before is worth nothing any more. What that is follows from
/// what is kept, so that whoever was stopped between the claim and this finds it again.
pub(super) fn supersede(authority: &dyn CertificateAuthority, enrolment: &Enrolment, now: Timestamp) {
    let claimed = enrolment.certificates.iter().position(|one| one.via != Via::Renewal);
    let before = enrolment.certificates.iter().skip(claimed.map_or(usize::MAX, |place| place + 1));
    let valid = before.filter(|one| one.not_after > now && authority.revocation(&one.serial_hex).is_none());
    let earlier: Vec<String> = valid.map(|one| one.serial_hex.clone()).collect();
    if earlier.is_empty() {
        return;
    }
    if let Err(error) = authority.revoke(&earlier, "superseded by a new claim") {
        let error = &error as &dyn std::error::Error;
        tracing::error!(error, "earlier certificates of a claimed device could not be revoked; revoke them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_it_is_typed() {
        for _ in 0..50 {
            let code = ClaimCode::generate();
            let text = code.to_text();
            let text = text.expose();
            assert_eq!(text.len(), 31, "{text}");
            assert_eq!(ClaimCode::parse(text).unwrap().0, code.0);
            let sloppy = text.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
            assert_eq!(ClaimCode::parse(&sloppy).unwrap().0, code.0);
        }
        let good = ClaimCode::generate().to_text();
        let good = good.expose();
        for text in
            ["", "x", &good[1..], &format!("{good}0"), &format!("Z{}", &good[1..]), &"0".repeat(65), "U"]
        {
            assert!(ClaimCode::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_hash_is_of_the_whole_code() {
        let (one, other) = (ClaimCode([0; 16]), ClaimCode([1; 16]));
        assert_ne!(one.hash(), other.hash());
        assert_eq!(one.hash().len(), 64);
    }
}
