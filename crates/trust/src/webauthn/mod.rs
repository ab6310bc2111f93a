//! Passkeys: what a relying party checks when one is registered and when one is used (WebAuthn level 3, section 7).
//!
//! User verification is always required, so that a passkey is two factors: the device, and the finger, face or PIN that
//! opened it. Attestation is not asked for: whoever may register is known by other means, and which makers a site trusts
//! is no question of this room.

mod authenticator_data;
mod cbor;
mod client_data;
mod cose;
pub mod software;

use aws_lc_rs::digest;

use authenticator_data::AuthenticatorData;
use cbor::Map;
pub use client_data::ClientDataError;
pub use cose::{ALGORITHMS, CredentialKey, KeyError};

/// Longest credential id, in bytes (WebAuthn, section 7.1, step 25).
pub const CREDENTIAL_ID_LIMIT_BYTES: usize = 1_023;

/// Longest client data, attestation object or authenticator data, in bytes: what real ones need many times over.
pub const PART_LIMIT_BYTES: usize = 16 << 10;

/// Length of a challenge, in bytes.
pub const CHALLENGE_LEN: usize = 32;

/// Who asks: the domain that passkeys are bound to, and the addresses at which its pages stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelyingParty {
    id: String,
    origins: Origins,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origins {
    Listed(Vec<String>),
    /// Any port of this machine's loopback name over plain HTTP or TLS.
    Localhost,
}

impl RelyingParty {
    /// A site at these origins (`https://auscult.example.org`, without a slash at the end); passkeys are bound to the
    /// host of the first, which must be the host of the others or a parent of it.
    ///
    /// # Errors
    /// [`OriginError`] names the origin that cannot be used.
    pub fn at(origins: &[String]) -> Result<Self, OriginError> {
        let error = |origin: &str, reason| OriginError { origin: origin.to_owned(), reason };
        let mut id = None;
        for origin in origins {
            let (is_tls, rest) = match (origin.strip_prefix("https://"), origin.strip_prefix("http://")) {
                (Some(rest), _) => (true, rest),
                (None, Some(rest)) => (false, rest),
                (None, None) => return Err(error(origin, "it begins with neither https:// nor http://")),
            };
            let host = rest.split(':').next().unwrap_or_default();
            let port = &rest[host.len()..];
            let is_name = !host.is_empty()
                && host.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
                && host.parse::<std::net::IpAddr>().is_err();
            if !is_name {
                return Err(error(origin, "passkeys need a host name in small letters, and no address"));
            }
            if !port.is_empty() && port[1..].parse::<u16>().is_err() {
                return Err(error(origin, "behind the host only a port may stand, and no path"));
            }
            if !is_tls && host != "localhost" {
                return Err(error(origin, "browsers offer passkeys over https:// only, but on localhost"));
            }
            let id = id.get_or_insert_with(|| host.to_owned());
            let is_below = host.strip_suffix(id.as_str()).is_some_and(|front| front.ends_with('.'));
            if host != id && !is_below {
                return Err(error(origin, "its host is not the first one's, nor below it"));
            }
        }
        let id = id.ok_or_else(|| error("", "there is none"))?;
        Ok(RelyingParty { id, origins: Origins::Listed(origins.to_vec()) })
    }

    /// This machine alone: `localhost` at any port.
    pub fn localhost() -> Self {
        RelyingParty { id: "localhost".to_owned(), origins: Origins::Localhost }
    }

    /// The domain that passkeys are bound to.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn takes(&self, origin: &str) -> bool {
        match &self.origins {
            Origins::Listed(listed) => listed.iter().any(|one| one == origin),
            Origins::Localhost => ["http://localhost", "https://localhost"].iter().any(|front| {
                origin.strip_prefix(front).is_some_and(|rest| {
                    rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
                })
            }),
        }
    }
}

/// Why a site's address cannot be used for passkeys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address \"{origin}\" cannot be used for passkeys: {reason}")]
pub struct OriginError {
    /// The address.
    pub origin: String,
    /// Why.
    pub reason: &'static str,
}

/// A passkey that was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its id, 1 to [`CREDENTIAL_ID_LIMIT_BYTES`].
    pub id: Vec<u8>,
    /// Its public key.
    pub key: CredentialKey,
    /// How often it was used, as the authenticator counts; many always say 0.
    pub sign_count: u32,
    /// Whether it may be copied to other devices of its owner.
    pub is_backup_eligible: bool,
    /// Whether it has been.
    pub is_backed_up: bool,
    /// The authenticator's model, or zeros.
    pub aaguid: [u8; 16],
}

/// What is kept of a passkey, for checking its use.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// Its public key.
    pub key: &'a CredentialKey,
    /// The count at its last use.
    pub sign_count: u32,
    /// Whether it may be copied to other devices of its owner.
    pub is_backup_eligible: bool,
}

/// A passkey that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The count now.
    pub sign_count: u32,
    /// Whether it has been copied to other devices of its owner.
    pub is_backed_up: bool,
}

/// Why a passkey was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebauthnError {
    /// A part is longer than [`PART_LIMIT_BYTES`].
    #[error("the {part} has {len} bytes, more than {PART_LIMIT_BYTES}")]
    TooLong {
        /// Which.
        part: &'static str,
        /// Its length, in bytes.
        len: usize,
    },
    /// The client data are not those of this ceremony.
    #[error("the client data are not those of this ceremony")]
    ClientData(#[source] ClientDataError),
    /// The attestation object or the authenticator data cannot be read.
    #[error("the {part} cannot be read: {reason}")]
    Malformed {
        /// Which.
        part: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// The passkey is bound to another domain.
    #[error("the passkey is bound to another domain")]
    OtherDomain,
    /// Nobody touched the authenticator.
    #[error("the authenticator does not say that somebody was there")]
    NotPresent,
    /// The authenticator did not ask for finger, face or PIN.
    #[error("the authenticator did not verify who used it")]
    NotVerified,
    /// The flags of backup contradict each other, or what was said at registration.
    #[error("what the authenticator says of its backup contradicts itself")]
    Backup,
    /// The key cannot be used.
    #[error("the passkey's key cannot be used")]
    Key(#[source] KeyError),
    /// The signature is not by this key over this ceremony.
    #[error("the signature is wrong")]
    Signature,
    /// The authenticator counted backwards: the passkey may have been copied.
    #[error(
        "the passkey was used {given} times by its own count, and {kept} times before: it may have been copied"
    )]
    Counter {
        /// The count it sent.
        given: u32,
        /// The count that is kept.
        kept: u32,
    },
}

/// Checks a registration (WebAuthn level 3, section 7.1, steps 5 to 26; the rest is the caller's: that the id is new, and
/// whose it is).
///
/// # Errors
/// [`WebauthnError`] names the first check that failed.
pub fn register(
    party: &RelyingParty,
    challenge: &[u8],
    client_data: &[u8],
    attestation_object: &[u8],
) -> Result<Registered, WebauthnError> {
    within_limit("attestation object", attestation_object)?;
    check_client_data(party, client_data::Ceremony::Create, challenge, client_data)?;
    let malformed = |reason| WebauthnError::Malformed { part: "attestation object", reason };
    let object = Map::read_whole(attestation_object).map_err(malformed)?;
    let data = object.bytes("authData").ok_or_else(|| malformed("there is no authData"))?;
    object.text("fmt").ok_or_else(|| malformed("there is no fmt"))?;
    // Whatever statement comes with it is not asked for, and proves nothing here.
    object.map("attStmt").ok_or_else(|| malformed("there is no attStmt"))?;
    let data = AuthenticatorData::read(data)?;
    check_flags(party, &data)?;
    let (is_backup_eligible, is_backed_up) = (data.is_backup_eligible(), data.is_backed_up());
    let attested = data.attested.ok_or(WebauthnError::Malformed {
        part: "authenticator data",
        reason: "there is no credential in them",
    })?;
    let (id, key, aaguid) = (attested.id, attested.key, attested.aaguid);
    Ok(Registered { id, key, sign_count: data.sign_count, is_backup_eligible, is_backed_up, aaguid })
}

/// Checks the use of a passkey (WebAuthn level 3, section 7.2, steps 9 to 24; the caller has found the passkey by its id
/// among those of the person whom the user handle names).
///
/// # Errors
/// [`WebauthnError`] names the first check that failed.
pub fn authenticate(
    party: &RelyingParty,
    challenge: &[u8],
    kept: Kept<'_>,
    client_data: &[u8],
    authenticator_data: &[u8],
    signature: &[u8],
) -> Result<Used, WebauthnError> {
    within_limit("authenticator data", authenticator_data)?;
    within_limit("signature", signature)?;
    check_client_data(party, client_data::Ceremony::Get, challenge, client_data)?;
    let data = AuthenticatorData::read(authenticator_data)?;
    check_flags(party, &data)?;
    if data.is_backup_eligible() != kept.is_backup_eligible {
        return Err(WebauthnError::Backup);
    }
    let digest = digest::digest(&digest::SHA256, client_data);
    let signed = [authenticator_data, digest.as_ref()].concat();
    if !kept.key.verifies(&signed, signature) {
        return Err(WebauthnError::Signature);
    }
    let given = data.sign_count;
    if (given != 0 || kept.sign_count != 0) && given <= kept.sign_count {
        return Err(WebauthnError::Counter { given, kept: kept.sign_count });
    }
    Ok(Used { sign_count: given, is_backed_up: data.is_backed_up() })
}

fn within_limit(part: &'static str, bytes: &[u8]) -> Result<(), WebauthnError> {
    if bytes.len() > PART_LIMIT_BYTES {
        return Err(WebauthnError::TooLong { part, len: bytes.len() });
    }
    Ok(())
}

fn check_client_data(
    party: &RelyingParty,
    ceremony: client_data::Ceremony,
    challenge: &[u8],
    bytes: &[u8],
) -> Result<(), WebauthnError> {
    within_limit("client data", bytes)?;
    client_data::check(party, ceremony, challenge, bytes).map_err(WebauthnError::ClientData)
}

fn check_flags(party: &RelyingParty, data: &AuthenticatorData) -> Result<(), WebauthnError> {
    let expected = digest::digest(&digest::SHA256, party.id.as_bytes());
    if data.party_hash[..] != *expected.as_ref() {
        return Err(WebauthnError::OtherDomain);
    }
    if !data.is_present() {
        return Err(WebauthnError::NotPresent);
    }
    if !data.is_verified() {
        return Err(WebauthnError::NotVerified);
    }
    if data.is_backed_up() && !data.is_backup_eligible() {
        return Err(WebauthnError::Backup);
    }
    Ok(())
}
