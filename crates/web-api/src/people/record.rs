//! What is kept of a person: who they are, and by what they prove it. Sealed as a document; secrets never leave this room.

use clinical_model::{PatientId, PlaceId, RecordId as _, Timestamp, UserId};
use pipeline::records::json_write;
use serde::{Deserialize, Serialize};
use store::{DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Store};
use trust::totp::{SECRET_LEN, TotpSecret};

use super::links::ProviderLink;
use super::{Role, User, folded};

/// A person as they are kept.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct UserRecord {
    pub id: UserId,
    pub name: String,
    pub display: String,
    pub role: Role,
    pub wards: Option<Vec<PlaceId>>,
    #[serde(default)]
    pub care_teams: Vec<String>,
    #[serde(default)]
    pub patient: Option<PatientId>,
    pub disabled: bool,
    #[serde(default)]
    pub password_hash: Option<String>,
    #[serde(default)]
    pub totp: Option<Totp>,
    /// A secret that was shown and not yet proven.
    #[serde(default)]
    pub pending_totp: Option<PendingTotp>,
    #[serde(default)]
    pub passkeys: Vec<Passkey>,
    /// Hashes of the codes that are left.
    #[serde(default)]
    pub recovery_codes: Vec<[u8; 32]>,
    /// The one-time link of an invitation or a reset.
    #[serde(default)]
    pub link: Option<Link>,
    /// As whom they come from identity providers.
    #[serde(default)]
    pub provider_links: Vec<ProviderLink>,
    /// The identity provider (its id) whose first visitor of this name becomes the person: an administrator said so.
    #[serde(default)]
    pub awaited_provider: Option<String>,
    #[serde(default)]
    pub last_sign_in_at: Option<Timestamp>,
    /// How often an administrator changed the person: signing in changes the document too, and is no conflict.
    #[serde(default)]
    pub edits: u64,
}

/// The secret of an authenticator app.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Totp {
    secret: [u8; SECRET_LEN],
    pub added_at: Timestamp,
    /// The last step whose code was used: it and all before it are never taken again.
    pub last_step: Option<u64>,
}

impl Totp {
    pub(crate) fn new(secret: &TotpSecret, added_at: Timestamp, last_step: Option<u64>) -> Self {
        Totp { secret: *secret.bytes(), added_at, last_step }
    }

    pub(crate) fn secret(&self) -> TotpSecret {
        TotpSecret::from_bytes(self.secret)
    }
}

/// A secret that was shown and not yet proven.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PendingTotp {
    pub secret: [u8; SECRET_LEN],
    pub expires_at: Timestamp,
}

/// A passkey.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Passkey {
    pub id: Vec<u8>,
    pub key: Vec<u8>,
    pub name: String,
    pub sign_count: u32,
    pub is_backup_eligible: bool,
    pub is_backed_up: bool,
    pub added_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
}

/// A one-time link: the hash of its token.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Link {
    pub hash: [u8; 32],
    pub expires_at: Timestamp,
}

impl UserRecord {
    pub(crate) fn user(&self) -> User {
        User {
            id: self.id,
            name: self.name.clone(),
            display: self.display.clone(),
            role: self.role,
            wards: self.wards.clone(),
            care_teams: self.care_teams.clone(),
            patient: self.patient,
            disabled: self.disabled,
        }
    }

    /// Whether there is a way in with two factors: a passkey is both.
    pub(crate) fn is_complete(&self) -> bool {
        !self.passkeys.is_empty() || (self.password_hash.is_some() && self.totp.is_some())
    }

    /// Whether there is any way in, complete or not.
    pub(crate) fn has_begun(&self) -> bool {
        self.password_hash.is_some() || !self.passkeys.is_empty()
    }

    /// Forgets that identity providers vouch for the person.
    pub(crate) fn forget_providers(&mut self) {
        self.provider_links.clear();
        self.awaited_provider = None;
    }

    /// Forgets every way in.
    pub(crate) fn forget_ways(&mut self) {
        self.forget_providers();
        self.password_hash = None;
        self.totp = None;
        self.pending_totp = None;
        self.passkeys.clear();
        self.recovery_codes.clear();
        self.link = None;
    }

    pub(crate) fn write(&self, store: &dyn Store, expected: Expected) -> DocumentWrite {
        let name = store.blind("user-name", &folded(&self.name)).to_vec();
        let mut index = vec![IndexEntry { name: "name", value: name, unique: true }];
        index.extend(self.provider_links.iter().map(|link| link.subject.entry(store)));
        json_write(Kind::User, self.id.to_bytes(), expected, KeyDomain::System, self, index)
    }
}
