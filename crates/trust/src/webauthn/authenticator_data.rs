//! What the authenticator says: domain, flags, count and, at registration, the new key (WebAuthn, section 6.1).

use super::cbor::Map;
use super::{CREDENTIAL_ID_LIMIT_BYTES, CredentialKey, WebauthnError};

const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const BACKUP_ELIGIBLE: u8 = 0x08;
const BACKED_UP: u8 = 0x10;
const HAS_CREDENTIAL: u8 = 0x40;
const HAS_EXTENSIONS: u8 = 0x80;

/// The parts of authenticator data.
#[derive(Debug)]
pub(super) struct AuthenticatorData {
    /// SHA-256 of the domain.
    pub party_hash: [u8; 32],
    flags: u8,
    /// Uses so far.
    pub sign_count: u32,
    /// The new credential.
    pub attested: Option<Attested>,
}

/// A new credential.
#[derive(Debug)]
pub(super) struct Attested {
    pub aaguid: [u8; 16],
    pub id: Vec<u8>,
    pub key: CredentialKey,
}

impl AuthenticatorData {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, WebauthnError> {
        let malformed = |reason| WebauthnError::Malformed { part: "authenticator data", reason };
        let short = || malformed("they break off");
        let (party_hash, rest) = bytes.split_first_chunk::<32>().ok_or_else(short)?;
        let (&[flags], rest) = rest.split_first_chunk::<1>().ok_or_else(short)?;
        let (count, mut rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let mut attested = None;
        if flags & HAS_CREDENTIAL != 0 {
            let (aaguid, after) = rest.split_first_chunk::<16>().ok_or_else(short)?;
            let (len, after) = after.split_first_chunk::<2>().ok_or_else(short)?;
            let len = usize::from(u16::from_be_bytes(*len));
            if len == 0 || len > CREDENTIAL_ID_LIMIT_BYTES {
                return Err(malformed("the credential's id is empty or too long"));
            }
            let (id, after) = after.split_at_checked(len).ok_or_else(short)?;
            let (key, after) = Map::read(after).map_err(malformed)?;
            let key = CredentialKey::from_map(&key).map_err(WebauthnError::Key)?;
            attested = Some(Attested { aaguid: *aaguid, id: id.to_vec(), key });
            rest = after;
        }
        if flags & HAS_EXTENSIONS != 0 {
            rest = Map::read(rest).map_err(malformed)?.1;
        }
        if !rest.is_empty() {
            return Err(malformed("something stands behind their end"));
        }
        Ok(Self { party_hash: *party_hash, flags, sign_count: u32::from_be_bytes(*count), attested })
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) const fn is_present(&self) -> bool {
        self.has(PRESENT)
    }

    pub(super) const fn is_verified(&self) -> bool {
        self.has(VERIFIED)
    }

    pub(super) const fn is_backup_eligible(&self) -> bool {
        self.has(BACKUP_ELIGIBLE)
    }

    pub(super) const fn is_backed_up(&self) -> bool {
        self.has(BACKED_UP)
    }
}
