//! Registrations of programs: kept as documents, held in memory, changed at their version.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};

use access::scopes::{ScopeError, Scopes};
use clinical_model::{Timestamp, UserId};
use pipeline::audited::Agent;
use pipeline::records::{self, RecordError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{
    Actor, AuditAction, AuditOutcome, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Store,
    StoreError, TransactError, Transaction,
};
use trust::jwt::{KeyError, KeySet};

use crate::json::hex;
use crate::state::Web;

/// Registrations of one site.
const CLIENTS_LIMIT: usize = 5_000;
/// Longest name, in characters.
const NAME_LIMIT_CHARS: usize = 100;
/// Most redirect addresses of one program.
const REDIRECTS_LIMIT: usize = 20;
/// Longest redirect address, in bytes.
const REDIRECT_LIMIT_BYTES: usize = 500;

/// Whether people let it in, or it acts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientKind {
    /// SMART App Launch: for a person.
    App,
    /// SMART Backend Services: for itself.
    Service,
}

/// A registration as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClientRecord {
    pub id: [u8; 16],
    pub name: String,
    pub kind: ClientKind,
    pub redirect_uris: Vec<String>,
    /// Scopes that it may ask for.
    pub scopes: String,
    /// Its public keys, as a JSON Web Key set.
    pub jwks: Option<Value>,
    pub disabled: bool,
    pub created_by: Option<UserId>,
    pub created_at: Timestamp,
}

/// A program as it is known: the registration, read.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub record: ClientRecord,
    pub version: u64,
    pub scopes: Scopes,
    pub keys: KeySet,
}

impl Deref for Client {
    type Target = ClientRecord;

    fn deref(&self) -> &ClientRecord {
        &self.record
    }
}

impl Client {
    fn of(record: ClientRecord, version: u64) -> Result<Self, ClientsError> {
        let scopes = record.scopes.parse().map_err(ClientsError::Scopes)?;
        let keys = match &record.jwks {
            Some(jwks) => KeySet::from_jwks(jwks).map_err(ClientsError::Keys)?,
            None => KeySet::default(),
        };
        Ok(Client { record, version, scopes, keys })
    }

    /// The client id that it sends.
    pub(crate) fn id_text(&self) -> String {
        hex(&self.record.id)
    }

    /// Whether it has keys, and must prove itself with them.
    pub(crate) fn is_confidential(&self) -> bool {
        !self.keys.is_empty()
    }
}

/// What an administrator says of a program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewClient {
    pub name: String,
    pub kind: ClientKind,
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    pub scopes: String,
    #[serde(default)]
    pub jwks: Option<Value>,
    /// Instead of a set: one public key as PEM.
    #[serde(default)]
    pub pem: Option<String>,
    #[serde(default)]
    pub disabled: bool,
    /// The version that was seen; only where it exists.
    #[serde(default)]
    pub version: Option<u64>,
}

/// Why a registration could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ClientsError {
    /// The store failed.
    #[error("reading the registered programs failed")]
    Store(#[source] StoreError),
    /// A document does not say what it should.
    #[error("a registered program cannot be read")]
    Record(#[source] RecordError),
    /// It could not be kept.
    #[error("the registration could not be kept")]
    Keep(#[source] TransactError),
    /// There are too many.
    #[error("a site has at most {CLIENTS_LIMIT} registered programs")]
    TooMany,
    /// It is not there.
    #[error("there is no such program")]
    NotFound,
    /// The name is empty, too long, or has characters that are not seen.
    #[error("the name must have 1 to {NAME_LIMIT_CHARS} characters, all of them visible")]
    Name,
    /// Another program has the name: consents and the audit log would take the one for the other.
    #[error("another program has this name; give this one a name of its own")]
    NameTaken,
    /// A service reads charts by itself, so that who sees none may not make, open or change one.
    #[error("a service acts by itself: only somebody who may see charts registers or changes one")]
    Rights,
    /// The scopes cannot be used.
    #[error("the scopes cannot be used")]
    Scopes(#[source] ScopeError),
    /// They do not fit its kind.
    #[error("the scopes do not fit: {what}")]
    Unfit {
        /// In what way.
        what: &'static str,
    },
    /// The keys cannot be used.
    #[error("the keys cannot be used")]
    Keys(#[source] KeyError),
    /// A redirect address is not safe.
    #[error("the redirect address {uri} cannot be used: {what}")]
    Redirect {
        /// Which, cut.
        uri: String,
        /// Why.
        what: &'static str,
    },
}

/// A redirect address to which a code may be sent: https, http on loopback, or a scheme of the program's own with a dot
/// in it (RFC 8252 §7.1), without a fragment.
fn check_redirect(uri: &str) -> Result<(), &'static str> {
    if uri.len() > REDIRECT_LIMIT_BYTES {
        return Err("it is too long");
    }
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#*".contains(&byte);
    if !uri.bytes().all(is_plain) {
        return Err("it has characters that are not written in an address, a fragment or a star");
    }
    let (scheme, rest) = uri.split_once(':').ok_or("it has no scheme")?;
    match scheme {
        "https" | "http" => {
            let rest = rest.strip_prefix("//").ok_or("it names no host")?;
            let host = rest.split(['/', '?']).next().unwrap_or("");
            if host.is_empty() || host.contains('@') {
                return Err("it names no host, or a person before it");
            }
            if rest.split('?').next().unwrap_or("").split('/').any(|part| part == "..") {
                return Err("it climbs out of its folder");
            }
            let name = match host.rsplit_once(':') {
                Some((name, port)) if port.parse::<u16>().is_ok() => name,
                _ => host,
            };
            let is_loopback = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
            if scheme == "http" && !is_loopback {
                return Err("http is for loopback only");
            }
            Ok(())
        }
        own if own.contains('.')
            && own.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(&byte)) =>
        {
            Ok(())
        }
        _ => Err("its scheme must be https, http on loopback, or one of its own with a dot in it"),
    }
}

/// Whether a character is seen as what it is: control characters and those that turn or hide the text around them could
/// make one program look like another to whoever lets it in.
fn is_shown(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

impl NewClient {
    fn checked(
        self,
        id: [u8; 16],
        created: (Option<UserId>, Timestamp),
    ) -> Result<ClientRecord, ClientsError> {
        let name = self.name.trim().to_owned();
        if name.is_empty() || name.chars().count() > NAME_LIMIT_CHARS || !self.name.chars().all(is_shown) {
            return Err(ClientsError::Name);
        }
        for uri in &self.redirect_uris {
            check_redirect(uri)
                .map_err(|what| ClientsError::Redirect { uri: uri.chars().take(100).collect(), what })?;
        }
        let keys = match (self.jwks, self.pem) {
            (Some(jwks), _) if !jwks.is_null() => Some(KeySet::from_jwks(&jwks).map_err(ClientsError::Keys)?),
            (_, Some(pem)) => Some(KeySet::from_pem(&pem).map_err(ClientsError::Keys)?),
            _ => None,
        };
        let scopes: Scopes = self.scopes.parse().map_err(ClientsError::Scopes)?;
        scopes.check_types().map_err(ClientsError::Scopes)?;
        use access::scopes::Context;
        let has = |context| scopes.resources().iter().any(|one| one.context == context);
        let unfit = |what| Err(ClientsError::Unfit { what });
        let redirects = self.redirect_uris.len();
        match self.kind {
            _ if scopes.is_empty() => return unfit("there are none"),
            ClientKind::App if has(Context::System) => return unfit("an app has patient/ and user/ scopes"),
            ClientKind::App if !(1..=REDIRECTS_LIMIT).contains(&redirects) => {
                return unfit("an app has 1 to 20 redirect addresses");
            }
            ClientKind::Service
                if has(Context::Patient) || has(Context::User) || !scopes.extras().is_empty() =>
            {
                return unfit("a service has system/ scopes only");
            }
            ClientKind::Service if redirects > 0 => return unfit("a service has no redirect addresses"),
            ClientKind::Service if keys.is_none() => return unfit("a service needs a public key"),
            _ => {}
        }
        Ok(ClientRecord {
            id,
            name,
            kind: self.kind,
            redirect_uris: self.redirect_uris,
            scopes: scopes.to_string(),
            jwks: keys.map(|keys| keys.to_jwks()),
            disabled: self.disabled,
            created_by: created.0,
            created_at: created.1,
        })
    }
}

/// All registrations.
pub(crate) struct Clients(RwLock<HashMap<[u8; 16], Arc<Client>>>);

impl Clients {
    pub(super) fn load(store: &dyn Store) -> Result<Self, ClientsError> {
        let clients = Clients(RwLock::default());
        clients.refresh(store, None)?;
        Ok(clients)
    }

    /// Reads one registration again, or all, after another node may have written.
    pub(crate) fn refresh(&self, store: &dyn Store, id: Option<[u8; 16]>) -> Result<(), ClientsError> {
        let read = |body: &[u8], version| {
            Client::of(records::json_from(body).map_err(ClientsError::Record)?, version).map(Arc::new)
        };
        let write = || self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(id) = id else {
            let query = records::all_of(Kind::Client, None, CLIENTS_LIMIT);
            let documents = store.documents(&query).map_err(ClientsError::Store)?;
            let all: Result<HashMap<_, _>, _> =
                documents.iter().map(|one| Ok((one.id, read(&one.body, one.version)?))).collect();
            *write() = all?;
            return Ok(());
        };
        let document = store.document(Kind::Client, id).map_err(ClientsError::Store)?;
        match document {
            Some(document) => drop(write().insert(id, read(&document.body, document.version)?)),
            None => drop(write().remove(&id)),
        }
        Ok(())
    }

    fn all(&self) -> std::sync::RwLockReadGuard<'_, HashMap<[u8; 16], Arc<Client>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn list(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<Arc<Client>> = self.all().values().cloned().collect();
        all.sort_by(|a, b| a.record.name.cmp(&b.record.name).then(a.record.id.cmp(&b.record.id)));
        all
    }

    /// A registration that stands.
    pub(crate) fn active(&self, id: [u8; 16]) -> Option<Arc<Client>> {
        self.by_id(id).filter(|client| !client.record.disabled)
    }

    pub(crate) fn by_id(&self, id: [u8; 16]) -> Option<Arc<Client>> {
        self.all().get(&id).cloned()
    }

    /// As [`Clients::active`], by the text of a client id.
    pub(crate) fn by_text(&self, text: &str) -> Option<Arc<Client>> {
        id_from(text).and_then(|id| self.active(id))
    }
}

/// The bytes of a client id: 32 lower-case hexadecimal digits.
pub(crate) fn id_from(text: &str) -> Option<[u8; 16]> {
    let mut id = [0; 16];
    let is_hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    for (byte, place) in id.iter_mut().zip((0..32).step_by(2)) {
        *byte = is_hex.then(|| u8::from_str_radix(&text[place..place + 2], 16).ok())??;
    }
    Some(id)
}

/// A name as names are compared.
fn folded(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

fn write_of(record: &ClientRecord, expected: Expected) -> DocumentWrite {
    let name = trust::digest::sha256(&[b"name of a program", folded(&record.name).as_bytes()]);
    let index = vec![IndexEntry { name: "name", value: name.to_vec(), unique: true }];
    records::json_write(Kind::Client, record.id, expected, KeyDomain::System, record, index)
}

impl Web {
    /// Registers a program, or changes one. Blocks.
    pub(crate) fn keep_client(
        &self,
        by: &Agent,
        sees_charts: bool,
        id: Option<[u8; 16]>,
        new: NewClient,
    ) -> Result<Arc<Client>, ClientsError> {
        let at = self.site.clock().now();
        let created_by = match by.who {
            Actor::User(user) => Some(user),
            _ => None,
        };
        let known = match id {
            Some(id) => Some(self.oauth.clients.by_id(id).ok_or(ClientsError::NotFound)?),
            None if self.oauth.clients.all().len() >= CLIENTS_LIMIT => return Err(ClientsError::TooMany),
            None => None,
        };
        let (id, created, expected, action) = match &known {
            Some(known) => {
                let created = (known.record.created_by, known.record.created_at);
                let version = new.version.unwrap_or(known.version);
                (known.record.id, created, Expected::Version(version), AuditAction::Update)
            }
            None => (trust::random_bytes(), (created_by, at), Expected::Absent, AuditAction::Create),
        };
        let record = new.checked(id, created)?;
        let was_service = known.as_ref().is_some_and(|known| known.record.kind == ClientKind::Service);
        if (was_service || record.kind == ClientKind::Service) && !sees_charts {
            return Err(ClientsError::Rights);
        }
        self.name_is_free(&record)?;
        let detail = format!("{} {}: {}", hex(&record.id), record.name, record.scopes);
        let act = by.act(action, "registered program").detail(detail).record(at, AuditOutcome::Success);
        let writes = vec![write_of(&record, expected)];
        let store = self.site.store();
        let transaction = Transaction { at, writes, audit: vec![act], ..Transaction::default() };
        store.transact(&transaction).map_err(ClientsError::Keep)?;
        self.oauth.clients.refresh(store, Some(id))?;
        self.oauth.clients.by_id(id).ok_or(ClientsError::NotFound)
    }

    /// That no other program, with a registration or a certificate, has the name.
    fn name_is_free(&self, record: &ClientRecord) -> Result<(), ClientsError> {
        let name = folded(&record.name);
        let is_taken = self
            .oauth
            .clients
            .all()
            .values()
            .any(|one| one.record.id != record.id && folded(&one.name) == name);
        // Without an authority there are no certificates of programs; one that cannot be asked now is asked no further.
        let programs =
            self.authority().ok().and_then(|authority| authority.programs().ok()).unwrap_or_default();
        match is_taken || programs.iter().any(|program| folded(&program.name) == name) {
            true => Err(ClientsError::NameTaken),
            false => Ok(()),
        }
    }

    /// Removes a registration, and all that it was let in for: its tokens are worth nothing from then on. Blocks.
    pub(crate) fn remove_client(&self, by: &Agent, id: [u8; 16]) -> Result<(), ClientsError> {
        let at = self.site.clock().now();
        let known = self.oauth.clients.by_id(id).ok_or(ClientsError::NotFound)?;
        let act = by
            .act(AuditAction::Delete, "registered program")
            .detail(format!("{} {}", hex(&id), known.name))
            .record(at, AuditOutcome::Success);
        let write = DocumentWrite::removal(Kind::Client, id);
        let store = self.site.store();
        let transaction = Transaction { at, writes: vec![write], audit: vec![act], ..Transaction::default() };
        store.transact(&transaction).map_err(ClientsError::Keep)?;
        self.oauth.clients.refresh(store, Some(id))?;
        super::grants::end_all_for(store, id, at).map_err(ClientsError::Keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_sent_to_safe_addresses_only() {
        let good = [
            "https://app.example.org/callback",
            "https://app.example.org:8443/cb?tenant=1",
            "http://localhost:3000/",
            "http://127.0.0.1/cb",
            "http://[::1]:9000/cb",
            "org.example.app:/callback",
        ];
        for uri in good {
            assert_eq!(check_redirect(uri), Ok(()), "{uri}");
        }
        let bad = [
            "",
            "/relative",
            "//host/path",
            "http://app.example.org/cb",
            "https://",
            "https:///path",
            "https:app.example.org",
            "https://app.example.org/cb#fragment",
            "https://app.example.org@evil.example/",
            "https://*.example.org/cb",
            "https://app.example.org/a/../../cb",
            "http://localhost.evil.example/",
            "http://127.0.0.1.evil.example/",
            "http://localhost@evil.example/",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "https://app.example.org/\r\nSet-Cookie: x",
            "https://app.example.org/ x",
            "https://app.example.org\\@evil.example",
        ];
        for uri in bad {
            assert!(check_redirect(uri).is_err(), "{uri}");
        }
        assert!(check_redirect(&format!("https://a.example/{}", "x".repeat(500))).is_err());
    }

    #[test]
    fn a_client_id_is_hexadecimal_and_nothing_else() {
        assert_eq!(id_from(&"0f".repeat(16)), Some([15; 16]));
        for text in ["", "0f", &"0F".repeat(16), &"+f".repeat(16), &"0f".repeat(17), &"é".repeat(16)] {
            assert_eq!(id_from(text), None, "{text}");
        }
    }
}
