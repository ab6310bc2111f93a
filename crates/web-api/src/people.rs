//! People who sign in: kept as documents, held in memory, with a password that only its hash knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clinical_model::{PlaceId, RecordId, UserId};
use pipeline::audited::Act;
use pipeline::records::{self, RecordError};
use serde::{Deserialize, Serialize};
use store::{
    Actor, AuditAction, AuditOutcome, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Store,
    StoreError, TransactError, Transaction,
};
use trust::password::{self, PasswordError, WeakPassword};
use trust::{SecretText, TokenSecret};

use crate::state::Web;

/// Users of one site that are held in memory.
const USER_LIMIT: usize = 100_000;
/// The setting that says that the first administrator was made.
const SETUP_DONE: [u8; 16] = *b"first-start-done";
/// Longest name or display name, in characters.
const NAME_LIMIT_CHARS: usize = 100;

/// What a person does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the site.
    Administrator,
    /// Physician.
    Physician,
    /// Nurse.
    Nurse,
    /// Looks after the devices.
    BiomedicalEngineer,
    /// Looks after the log.
    Auditor,
}

impl Role {
    /// Every role.
    pub const ALL: &'static [Role] =
        &[Role::Administrator, Role::Physician, Role::Nurse, Role::BiomedicalEngineer, Role::Auditor];
}

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
    /// May no longer sign in.
    pub disabled: bool,
}

#[derive(Clone, Serialize, Deserialize)]
struct UserRecord {
    id: UserId,
    name: String,
    display: String,
    role: Role,
    wards: Option<Vec<PlaceId>>,
    disabled: bool,
    password_hash: String,
}

impl UserRecord {
    fn user(&self) -> User {
        User {
            id: self.id,
            name: self.name.clone(),
            display: self.display.clone(),
            role: self.role,
            wards: self.wards.clone(),
            disabled: self.disabled,
        }
    }
}

/// A person to be added.
#[derive(Deserialize)]
pub struct NewUser {
    /// The name to sign in with; unique, not told apart by case.
    pub name: String,
    /// What others see.
    pub display: String,
    /// What they do here.
    pub role: Role,
    /// The wards that are theirs; `None`: all.
    pub wards: Option<Vec<PlaceId>>,
    /// At least twelve characters.
    pub password: String,
}

/// Why people could not be read or added.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The store failed.
    #[error("reading the users failed")]
    Store(#[source] StoreError),
    /// A document does not say what it should.
    #[error("a user cannot be read")]
    Record(#[source] RecordError),
    /// The name is empty or too long.
    #[error("the {field} must have 1 to {NAME_LIMIT_CHARS} characters")]
    Name {
        /// Which field.
        field: &'static str,
    },
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
    /// It could not be kept.
    #[error("the user could not be kept")]
    Keep(#[source] TransactError),
    /// Setup is over, or the token is not the one that was printed.
    #[error("setup is over, or the link is not the one that was printed at first start")]
    SetupClosed,
}

/// Everybody who may sign in.
pub(crate) struct People {
    by_name: RwLock<HashMap<String, Arc<UserRecord>>>,
    first_start: Mutex<Option<TokenSecret>>,
}

fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

fn read_all(store: &dyn Store) -> Result<HashMap<String, Arc<UserRecord>>, PeopleError> {
    let documents =
        store.documents(&records::all_of(Kind::User, None, USER_LIMIT)).map_err(PeopleError::Store)?;
    let mut by_name = HashMap::new();
    for document in documents {
        let record: UserRecord = records::json_from(&document.body).map_err(PeopleError::Record)?;
        by_name.insert(folded(&record.name), Arc::new(record));
    }
    Ok(by_name)
}

/// The token of the setup link. Nodes that share a store must agree on it, since a balancer sends the link to any of them:
/// there it is made with the store's key for blind indexes, which nobody outside knows.
fn first_start_token(store: &dyn Store) -> TokenSecret {
    if !store.shared() {
        return TokenSecret::generate();
    }
    let half = |which| store.blind("first-start", which);
    let text = URL_SAFE_NO_PAD.encode([half("one"), half("two")].concat());
    TokenSecret::parse(&text).unwrap_or_else(|_| TokenSecret::generate())
}

impl People {
    pub(crate) fn load(store: &dyn Store) -> Result<Self, PeopleError> {
        let by_name = read_all(store)?;
        let first_start = by_name.is_empty().then(|| first_start_token(store));
        Ok(People { by_name: RwLock::new(by_name), first_start: Mutex::new(first_start) })
    }

    /// Reads one person again, or all, after another node may have written.
    pub(crate) fn refresh(&self, store: &dyn Store, id: Option<[u8; 16]>) -> Result<(), PeopleError> {
        let write = || self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let Some(id) = id else {
            let all = read_all(store)?;
            *write() = all;
            return Ok(());
        };
        let document = store.document(Kind::User, id).map_err(PeopleError::Store)?;
        let record: Option<UserRecord> = match document {
            Some(document) => Some(records::json_from(&document.body).map_err(PeopleError::Record)?),
            None => None,
        };
        let mut by_name = write();
        by_name.retain(|_, known| known.id.to_bytes() != id);
        if let Some(record) = record {
            by_name.insert(folded(&record.name), Arc::new(record));
        }
        Ok(())
    }

    fn all(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Arc<UserRecord>>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    pub(crate) fn list(&self) -> Vec<User> {
        let mut users: Vec<User> = self.all().values().map(|record| record.user()).collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    pub(crate) fn by_id(&self, id: UserId) -> Option<User> {
        self.all().values().find(|record| record.id == id).map(|record| record.user())
    }

    /// Whether name and password belong together. Takes as long for a name that nobody has.
    pub(crate) fn check(&self, name: &str, given: &str, web: &Web) -> Result<Option<User>, PasswordError> {
        let record = self.all().get(&folded(name)).cloned();
        let Some(record) = record else {
            password::verify_nobody(given, web.options.password_cost)?;
            return Ok(None);
        };
        let right = password::verify(given, &record.password_hash)?;
        Ok((right && !record.disabled).then(|| record.user()))
    }
}

impl Web {
    /// The token of the one-time setup link, while nobody can sign in yet.
    pub fn first_start_token(&self) -> Option<SecretText> {
        let token = self.people.first_start.lock().unwrap_or_else(PoisonError::into_inner);
        token.as_ref().filter(|_| self.people.is_empty()).map(TokenSecret::to_text)
    }

    /// Adds the first administrator with the token that was printed at first start. It works once.
    ///
    /// # Errors
    /// [`PeopleError::SetupClosed`] for a wrong or spent token.
    pub fn set_up(&self, token: &str, user: NewUser) -> Result<User, PeopleError> {
        let mut first_start = self.people.first_start.lock().unwrap_or_else(PoisonError::into_inner);
        let given = TokenSecret::parse(token).map_err(|_| PeopleError::SetupClosed)?;
        let expected = first_start.as_ref().ok_or(PeopleError::SetupClosed)?.hash();
        if !expected.matches(&given) || !self.people.is_empty() {
            return Err(PeopleError::SetupClosed);
        }
        let user = NewUser { role: Role::Administrator, wards: None, ..user };
        // Of two nodes that are set up at one time, one is.
        let once = records::json_write(
            Kind::Setting,
            SETUP_DONE,
            Expected::Absent,
            KeyDomain::System,
            &self.site.clock().now(),
            Vec::new(),
        );
        let added = self.keep_user(Actor::Unproven("first start".to_owned()), user, vec![once]);
        let added = added.map_err(|error| match error {
            PeopleError::Exists { .. } => PeopleError::SetupClosed,
            other => other,
        })?;
        *first_start = None;
        Ok(added)
    }

    /// Adds a person.
    ///
    /// # Errors
    /// [`PeopleError`].
    pub fn add_user(&self, actor: Actor, new: NewUser) -> Result<User, PeopleError> {
        self.keep_user(actor, new, Vec::new())
    }

    fn keep_user(
        &self,
        actor: Actor,
        new: NewUser,
        mut writes: Vec<DocumentWrite>,
    ) -> Result<User, PeopleError> {
        for (field, value) in [("name", &new.name), ("display name", &new.display)] {
            let length = value.trim().chars().count();
            if length == 0 || NAME_LIMIT_CHARS < length || value.chars().any(char::is_control) {
                return Err(PeopleError::Name { field });
            }
        }
        password::check_strength(&new.password, &new.name).map_err(PeopleError::Weak)?;
        let password_hash =
            password::hash(&new.password, self.options.password_cost).map_err(PeopleError::Hash)?;
        let at = self.site.clock().now();
        let record = UserRecord {
            id: UserId::from_bytes(pipeline::new_id(at)),
            name: new.name.trim().to_owned(),
            display: new.display.trim().to_owned(),
            role: new.role,
            wards: new.wards,
            disabled: false,
            password_hash,
        };
        let key = folded(&record.name);
        let store = self.site.store();
        let index = IndexEntry { name: "name", value: store.blind("user-name", &key).to_vec(), unique: true };
        let write = records::json_write(
            Kind::User,
            record.id.to_bytes(),
            Expected::Absent,
            KeyDomain::System,
            &record,
            vec![index],
        );
        let act = Act::new(actor, AuditAction::Create, "User")
            .detail(format!("{} as {:?}", record.name, record.role))
            .record(at, AuditOutcome::Success);
        writes.push(write);
        let transaction = Transaction { at, writes, audit: vec![act], ..Transaction::default() };
        store.transact(&transaction).map_err(|error| match error {
            TransactError::Conflict { .. } => PeopleError::Exists { name: record.name.clone() },
            TransactError::LeaseLost { .. } | TransactError::Store(_) => PeopleError::Keep(error),
        })?;
        let user = record.user();
        let mut by_name = self.people.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.insert(key, Arc::new(record));
        Ok(user)
    }
}
