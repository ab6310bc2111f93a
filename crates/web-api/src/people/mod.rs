//! People who sign in: kept as sealed documents, held in memory, changed at their version so that no node undoes another's
//! change.

mod changes;
mod erased;
mod links;
mod record;
mod setup;
mod ways;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

pub use access::Role;
use clinical_model::{PatientId, PlaceId, RecordId as _, UserId};
use pipeline::records::{self, RecordError};
use serde::Deserialize;
use store::{Kind, Store, StoreError, TransactError};
use trust::TokenSecret;
use trust::password::{PasswordError, WeakPassword};
use trust::webauthn::WebauthnError;

pub use changes::{Invitation, UserChange};
pub(crate) use links::{ProviderLink, Subject};
pub(crate) use record::{Passkey, UserRecord};
pub use ways::Ways;
pub(crate) use ways::{Checked, GivenAssertion};

/// Users of one site that are held in memory.
const USER_LIMIT: usize = 100_000;
/// Longest name or display name, in characters.
const NAME_LIMIT_CHARS: usize = 100;
/// Care teams of one person.
const CARE_TEAM_LIMIT: usize = 50;
/// Passkeys of one person: a few devices, and some that were forgotten.
pub(crate) const PASSKEY_LIMIT: usize = 20;

/// A person who may sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Our id.
    pub id: UserId,
    /// The name to sign in with.
    pub name: String,
    /// What others see.
    pub display: String,
    /// What they do here.
    pub role: Role,
    /// The wards that are theirs; `None`: all.
    pub wards: Option<Vec<PlaceId>>,
    /// The care teams they belong to, by name.
    pub care_teams: Vec<String>,
    /// Who they are themselves, for the role of a patient.
    pub patient: Option<PatientId>,
    /// May no longer sign in.
    pub disabled: bool,
}

/// A person to be added. How they sign in they set themselves, with the one-time link of their invitation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// The name to sign in with; unique, not told apart by case.
    pub name: String,
    /// What others see.
    pub display: String,
    /// What they do here.
    pub role: Role,
    /// The wards that are theirs; `None`: all.
    #[serde(default)]
    pub wards: Option<Vec<PlaceId>>,
    /// The care teams they belong to, by name.
    #[serde(default)]
    pub care_teams: Vec<String>,
    /// Who they are themselves: for the role of a patient, and only there.
    #[serde(default)]
    pub patient: Option<PatientId>,
}

/// Why people could not be read, added or changed.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The store failed.
    #[error("reading the users failed")]
    Store(#[source] StoreError),
    /// A document does not say what it should.
    #[error("a user cannot be read")]
    Record(#[source] RecordError),
    /// A field is empty or too long.
    #[error("the {field} must have 1 to {NAME_LIMIT_CHARS} characters, none of them a control character")]
    Name {
        /// Which field.
        field: &'static str,
    },
    /// Too many care teams.
    #[error("a person belongs to at most {CARE_TEAM_LIMIT} care teams")]
    CareTeams,
    /// A patient's account says who the patient is, and no other account does.
    #[error("an account with the role of a patient names the patient, and no other account does")]
    PatientOfRole,
    /// The password is too weak.
    #[error("the password is too weak")]
    Weak(#[source] WeakPassword),
    /// Hashing failed.
    #[error("the password could not be hashed")]
    Hash(#[source] PasswordError),
    /// The name is taken.
    #[error("somebody is called \"{name}\" already")]
    Exists {
        /// The name.
        name: String,
    },
    /// There is no such person.
    #[error("there is no such person")]
    NotFound,
    /// Somebody else changed the person meanwhile.
    #[error("somebody else changed this person meanwhile")]
    Changed,
    /// Nobody could administer the site any more.
    #[error("nobody could administer the site any more; make somebody else an administrator first")]
    LastAdministrator,
    /// They could not sign in any more.
    #[error(
        "without it there is no complete way in left; add another passkey, or a password and a code, first"
    )]
    LastWayIn,
    /// Too many passkeys.
    #[error("a person has at most {PASSKEY_LIMIT} passkeys; remove one first")]
    TooManyPasskeys,
    /// The passkey is registered already.
    #[error("this passkey is registered already")]
    PasskeyKnown,
    /// The passkey was not taken.
    #[error("the passkey was not taken")]
    Passkey(#[source] WebauthnError),
    /// The ceremony is over, was used, or is another's.
    #[error("this attempt is over or was used already; begin again")]
    Ceremony,
    /// A code of six digits, or a recovery code, is wrong, or was used.
    #[error("the code is wrong, or was used already")]
    BadCode,
    /// The link is spent, over, or wrong.
    #[error("this link was used already, is over, or was never valid; ask for a new one")]
    LinkSpent,
    /// A subject of an identity provider is somebody else here, or the person is another subject there.
    #[error(
        "somebody else comes from the identity provider as this person, or you came from there as somebody else; ask an \
         administrator"
    )]
    LinkTaken,
    /// There is no such link to an identity provider.
    #[error("there is no such link to an identity provider")]
    NoLink,
    /// Somebody who has a way in proves themself by it when they come from an identity provider.
    #[error(
        "this person has a way in, or comes from an identity provider already: they link it by coming from there and \
         proving themself here"
    )]
    HasWayIn,
    /// Somebody else made the way in complete meanwhile, and who has not proven themself by it changes it no more.
    #[error("this way in was made complete meanwhile; sign in with it")]
    Completed,
    /// It could not be kept.
    #[error("the user could not be kept")]
    Keep(#[source] TransactError),
    /// Setup is over, or the token is not the one that was printed.
    #[error("setup is over, or the link is not the one that was printed at first start")]
    SetupClosed,
}

/// Everybody who may sign in.
pub(crate) struct People {
    all: RwLock<Known>,
    first_start: Mutex<Option<TokenSecret>>,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<UserId, Kept>,
    ids: HashMap<String, UserId>,
}

/// A person as the store knows them.
#[derive(Clone)]
pub(crate) struct Kept {
    pub record: Arc<UserRecord>,
    pub version: u64,
}

impl Known {
    fn put(&mut self, record: UserRecord, version: u64) {
        // A name may have been taken away.
        if let Some(before) = self.by_id.get(&record.id) {
            self.ids.remove(&folded(&before.record.name));
        }
        self.ids.insert(folded(&record.name), record.id);
        self.by_id.insert(record.id, Kept { record: Arc::new(record), version });
    }

    fn remove(&mut self, id: UserId) {
        if let Some(kept) = self.by_id.remove(&id) {
            self.ids.remove(&folded(&kept.record.name));
        }
    }
}

fn is_setup_open(known: &Known) -> bool {
    !known.by_id.values().any(|kept| kept.record.has_begun() || kept.record.link.is_some())
}

pub(crate) fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

fn read_all(store: &dyn Store) -> Result<Known, PeopleError> {
    let documents =
        store.documents(&records::all_of(Kind::User, None, USER_LIMIT)).map_err(PeopleError::Store)?;
    let mut known = Known::default();
    for document in documents {
        let record = records::json_from(&document.body).map_err(PeopleError::Record)?;
        known.put(record, document.version);
    }
    Ok(known)
}

impl People {
    pub(crate) fn load(store: &dyn Store) -> Result<Self, PeopleError> {
        let known = read_all(store)?;
        let first_start = is_setup_open(&known).then(|| setup::first_start_token(store));
        Ok(People { all: RwLock::new(known), first_start: Mutex::new(first_start) })
    }

    /// Reads one person again, or all, after another node may have written.
    pub(crate) fn refresh(&self, store: &dyn Store, id: Option<[u8; 16]>) -> Result<(), PeopleError> {
        let Some(id) = id else {
            let all = read_all(store)?;
            *self.all.write().unwrap_or_else(PoisonError::into_inner) = all;
            return Ok(());
        };
        let found = self.read_one(store, UserId::from_bytes(id))?;
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        match found {
            Some((record, version)) => all.put(record, version),
            None => all.remove(UserId::from_bytes(id)),
        }
        Ok(())
    }

    fn read_one(&self, store: &dyn Store, id: UserId) -> Result<Option<(UserRecord, u64)>, PeopleError> {
        let document = store.document(Kind::User, id.to_bytes()).map_err(PeopleError::Store)?;
        let read = |document: store::Document| {
            Ok((records::json_from(&document.body).map_err(PeopleError::Record)?, document.version))
        };
        document.map(read).transpose()
    }

    fn put(&self, record: UserRecord, version: u64) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been faster with a later version.
        if all.by_id.get(&record.id).is_none_or(|known| known.version < version) {
            all.put(record, version);
        }
    }

    fn all(&self) -> RwLockReadGuard<'_, Known> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody has begun to set a way in, or is about to: the setup link works until then.
    pub(crate) fn is_setup_open(&self) -> bool {
        is_setup_open(&self.all())
    }

    pub(crate) fn list(&self) -> Vec<Kept> {
        let mut people: Vec<Kept> = self.all().by_id.values().cloned().collect();
        people.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        people
    }

    pub(crate) fn by_id(&self, id: UserId) -> Option<User> {
        self.kept(id).map(|kept| kept.record.user())
    }

    pub(crate) fn kept(&self, id: UserId) -> Option<Kept> {
        self.all().by_id.get(&id).cloned()
    }

    /// The person of a name, not told apart by case.
    pub(crate) fn by_name(&self, name: &str) -> Option<User> {
        self.named(name).map(|kept| kept.record.user())
    }

    fn named(&self, name: &str) -> Option<Kept> {
        let all = self.all();
        all.ids.get(&folded(name)).and_then(|id| all.by_id.get(id)).cloned()
    }

    /// Whether somebody other than `but` can administer the site.
    fn has_administrator_but(&self, but: UserId) -> bool {
        self.all().by_id.values().any(|kept| {
            let record = &kept.record;
            record.id != but && record.role == Role::Administrator && !record.disabled && record.has_begun()
        })
    }
}
