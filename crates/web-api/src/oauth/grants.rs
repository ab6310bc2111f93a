//! Grants: what a program was let in for, kept as one sealed document with the hashes of its code, its access tokens and
//! its refresh token. Removing the document ends them all, on every node, at once.

use std::collections::BTreeSet;
use std::time::Duration;

use access::scopes::{Ceiling, Scopes};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clinical_model::{PatientId, RecordId as _, Timestamp, UserId};
use pipeline::records::{json_from, json_write, sortable};
use serde::{Deserialize, Serialize};
use store::{
    DocumentQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order, Store, StoreError,
    TransactError,
};
use trust::{SecretText, TokenHash, TokenSecret};

use crate::access::AppAccess;
use crate::state::Web;

/// An access token is good for so long.
pub(super) const ACCESS_LIFE: Duration = Duration::from_secs(300);
/// A code is good for so long (RFC 6749 §4.1.2 recommends ten minutes at the most).
pub(super) const CODE_LIFE: Duration = Duration::from_secs(60);
/// A grant for access beyond the session ends after so long.
pub(super) const OFFLINE_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// Access tokens of one grant that are good at one time; the oldest gives way.
const ACCESS_LIMIT: usize = 8;
/// Spent refresh tokens that are remembered, so that one that comes again is known.
const SPENT_LIMIT: usize = 64;
/// Grants of one person to one program; the oldest ends beyond it.
const OF_ONE_PERSON_LIMIT: usize = 20;
/// Grants of one service at one time, which asks anew every five minutes; the oldest ends beyond it.
const OF_ONE_SERVICE_LIMIT: usize = 200;
/// Grants beyond their time that are removed with each new one: more than one, so that they cannot pile up.
const SWEEP_LIMIT: usize = 16;
/// Grants that are shown of a person, and that end in one transaction.
const ENDED_AT_ONCE: usize = 500;
/// Uses are written down at most so often.
const USE_WRITTEN_EVERY: Duration = Duration::from_secs(300);

/// The index of grants by their end.
const BY_END: &str = "end";
/// The index of grants by program, person and beginning.
const BY_HOLDER: &str = "client-user-created";
/// The index of grants by person and beginning.
const BY_USER: &str = "user-created";

/// A code that was not redeemed yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Code {
    pub hash: [u8; 32],
    pub redirect_uri: String,
    /// The challenge of RFC 7636, by SHA-256.
    pub challenge: String,
    pub nonce: Option<String>,
    pub expires_at: Timestamp,
}

/// An access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AccessToken {
    pub hash: [u8; 32],
    pub expires_at: Timestamp,
    /// Fewer scopes than those of the grant, where fewer were asked for.
    pub scopes: Option<String>,
}

/// A grant as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub id: [u8; 16],
    pub client: [u8; 16],
    /// Who let it in; `None`: a service.
    pub user: Option<UserId>,
    /// The session with which it ends.
    pub session: Option<[u8; 32]>,
    pub scopes: String,
    pub patient: Option<PatientId>,
    pub created_at: Timestamp,
    pub used_at: Timestamp,
    pub ends_at: Timestamp,
    pub code: Option<Code>,
    /// The code that was redeemed: coming again, it ends the grant.
    pub spent_code: Option<[u8; 32]>,
    pub access: Vec<AccessToken>,
    pub refresh: Option<[u8; 32]>,
    pub spent: Vec<[u8; 32]>,
}

impl Grant {
    pub(super) fn write(&self, expected: Expected) -> DocumentWrite {
        let created = sortable(self.created_at);
        let user = self.user.map(|user| user.to_bytes()).unwrap_or_default();
        let mut index = vec![
            IndexEntry { name: BY_END, value: sortable(self.ends_at).to_vec(), unique: false },
            IndexEntry {
                name: BY_HOLDER,
                value: [&self.client[..], &user, &created].concat(),
                unique: false,
            },
        ];
        if self.user.is_some() {
            index.push(IndexEntry { name: BY_USER, value: [&user[..], &created].concat(), unique: false });
        }
        json_write(Kind::Grant, self.id, expected, KeyDomain::System, self, index)
    }

    /// Whether it lasts beyond the session.
    pub(crate) fn is_offline(&self) -> bool {
        self.user.is_some() && self.session.is_none()
    }

    /// A new access token.
    pub(super) fn issue(&mut self, now: Timestamp, scopes: Option<String>) -> SecretText {
        let secret = TokenSecret::generate();
        self.access.retain(|token| token.expires_at > now);
        if self.access.len() >= ACCESS_LIMIT {
            self.access.remove(0);
        }
        let expires_at = now.plus(ACCESS_LIFE).min(self.ends_at);
        self.access.push(AccessToken { hash: secret.hash().0, expires_at, scopes });
        self.used_at = now;
        ticket(self.id, &secret)
    }

    /// A new refresh token; the one before is spent.
    pub(super) fn rotate(&mut self) -> SecretText {
        let secret = TokenSecret::generate();
        if let Some(before) = self.refresh.replace(secret.hash().0) {
            if self.spent.len() >= SPENT_LIMIT {
                self.spent.remove(0);
            }
            self.spent.push(before);
        }
        ticket(self.id, &secret)
    }
}

/// A code or token as a program holds it: which grant, and the secret.
pub(super) fn ticket(grant: [u8; 16], secret: &TokenSecret) -> SecretText {
    SecretText::new(format!("{}.{}", URL_SAFE_NO_PAD.encode(grant), secret.to_text().expose()))
}

/// The parts of a ticket, of which nothing is believed yet.
pub(super) fn ticket_parts(text: &str) -> Option<([u8; 16], TokenHash)> {
    let (grant, secret) = text.split_once('.')?;
    let grant = URL_SAFE_NO_PAD.decode(grant).ok()?.try_into().ok()?;
    Some((grant, TokenSecret::parse(secret).ok()?.hash()))
}

/// Reads a grant with its version.
pub(super) fn read(store: &dyn Store, id: [u8; 16]) -> Result<Option<(Grant, u64)>, StoreError> {
    let document = store.document(Kind::Grant, id)?;
    Ok(document.and_then(|document| Some((json_from(&document.body).ok()?, document.version))))
}

/// Removes a grant.
pub(super) const fn removal(id: [u8; 16]) -> DocumentWrite {
    DocumentWrite::removal(Kind::Grant, id)
}

fn listed(
    store: &dyn Store,
    index: &'static str,
    prefix: Vec<u8>,
    order: Order,
    limit: usize,
) -> Result<Vec<Grant>, StoreError> {
    let query = DocumentQuery { kind: Kind::Grant, index, prefix, after: None, order, limit };
    let found = store.documents(&query)?;
    Ok(found.iter().filter_map(|document| json_from(&document.body).ok()).collect())
}

/// The writes that keep a new grant, and end those that are over or too many.
pub(super) fn beginning(
    store: &dyn Store,
    grant: &Grant,
    now: Timestamp,
) -> Result<Vec<DocumentWrite>, StoreError> {
    let over = listed(store, BY_END, Vec::new(), Order::Ascending, SWEEP_LIMIT)?;
    let over = over.into_iter().filter(|old| old.ends_at < now);
    let user = grant.user.map(|user| user.to_bytes()).unwrap_or_default();
    let limit = if grant.user.is_some() { OF_ONE_PERSON_LIMIT } else { OF_ONE_SERVICE_LIMIT };
    let holder = [&grant.client[..], &user].concat();
    // Oldest first: as many as there may be, of which the first gives way.
    let theirs = listed(store, BY_HOLDER, holder, Order::Ascending, limit)?;
    let oldest = (theirs.len() >= limit).then(|| theirs.into_iter().next()).flatten();
    let ending: BTreeSet<[u8; 16]> = over.chain(oldest).map(|old| old.id).collect();
    let mut writes = vec![grant.write(Expected::Absent)];
    writes.extend(ending.into_iter().map(removal));
    Ok(writes)
}

/// The grants of a person, newest first.
pub(super) fn of_user(store: &dyn Store, user: UserId) -> Result<Vec<Grant>, StoreError> {
    listed(store, BY_USER, user.to_bytes().to_vec(), Order::Descending, ENDED_AT_ONCE)
}

/// The writes that end what a person let in, as far as they fit into one transaction.
pub(crate) fn ending_of(store: &dyn Store, user: UserId) -> Result<Vec<DocumentWrite>, StoreError> {
    Ok(of_user(store, user)?.iter().map(|grant| removal(grant.id)).collect())
}

/// Ends what a person let in: it may outlast the sessions, and whoever had the ways in may have let it in.
///
/// # Errors
/// [`TransactError`].
pub(crate) fn end_all_of(store: &dyn Store, user: UserId, now: Timestamp) -> Result<(), TransactError> {
    end_while(store, now, || ending_of(store, user))
}

/// Ends all that a program was let in for, by people and by itself.
///
/// # Errors
/// [`TransactError`].
pub(super) fn end_all_for(store: &dyn Store, client: [u8; 16], now: Timestamp) -> Result<(), TransactError> {
    end_while(store, now, || {
        let theirs = listed(store, BY_HOLDER, client.to_vec(), Order::Ascending, ENDED_AT_ONCE)?;
        Ok(theirs.iter().map(|grant| removal(grant.id)).collect())
    })
}

/// Ends grants, as many at once as fit into a transaction, until there are no more.
fn end_while(
    store: &dyn Store,
    now: Timestamp,
    ending: impl Fn() -> Result<Vec<DocumentWrite>, StoreError>,
) -> Result<(), TransactError> {
    loop {
        let writes = ending().map_err(TransactError::Store)?;
        if writes.is_empty() {
            return Ok(());
        }
        store.transact(&store::Transaction { at: now, writes, ..store::Transaction::default() })?;
    }
}

/// Why a request is not let in by its `Authorization`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotABearer {
    /// It carries none.
    #[error("the request carries no token")]
    None,
    /// It carries something else.
    #[error("only \"Authorization: Bearer\" with a token of this site is taken here")]
    Scheme,
    /// The token is unknown, over, or was revoked.
    #[error("the access token is unknown, over, or was revoked")]
    Invalid,
    /// It could not be looked up.
    #[error("the access token could not be looked up")]
    Store(#[source] StoreError),
}

/// The token that a request carries in its `Authorization`.
fn bearer_text(headers: &HeaderMap) -> Result<&str, NotABearer> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let line = lines.next().ok_or(NotABearer::None)?;
    // Two of them: whichever is looked at, somebody else might look at the other.
    if lines.next().is_some() {
        return Err(NotABearer::Scheme);
    }
    let line = line.to_str().map_err(|_| NotABearer::Scheme)?;
    let (scheme, token) = line.split_once(' ').ok_or(NotABearer::Scheme)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(NotABearer::Scheme);
    }
    Ok(token.trim())
}

/// A token that is good, with its grant.
pub(super) struct Known {
    pub grant: Grant,
    pub version: u64,
    pub scopes: Scopes,
    pub expires_at: Timestamp,
    pub access: AppAccess,
}

impl Web {
    /// Whose the token is that a request carries. Blocks.
    pub(crate) fn bearer(&self, headers: &HeaderMap) -> Result<AppAccess, NotABearer> {
        let token = bearer_text(headers)?;
        let known = self.known_token(token).map_err(NotABearer::Store)?.ok_or(NotABearer::Invalid)?;
        self.note_use(&known);
        Ok(known.access)
    }

    /// Whether a request brings an `Authorization` along, by which alone it is judged then.
    pub(crate) fn brings_token(headers: &HeaderMap) -> bool {
        headers.contains_key(header::AUTHORIZATION)
    }

    /// An access token that is good now: known, in time, its program and person and session still standing.
    pub(super) fn known_token(&self, token: &str) -> Result<Option<Known>, StoreError> {
        let now = self.site.clock().now();
        let Some((id, hash)) = ticket_parts(token) else { return Ok(None) };
        let Some((grant, version)) = read(self.site.store(), id)? else { return Ok(None) };
        let found = grant.access.iter().find(|one| trust::equal(&one.hash, &hash.0) && one.expires_at > now);
        let Some(found) = found.cloned() else { return Ok(None) };
        Ok(self.standing(&grant, found.scopes.as_deref(), now).map(|(scopes, access)| Known {
            version,
            scopes,
            access,
            expires_at: found.expires_at,
            grant,
        }))
    }

    /// What a grant is worth now: nothing, where its program, person or session is gone; never more than its program may
    /// still ask for.
    pub(super) fn standing(
        &self,
        grant: &Grant,
        narrowed: Option<&str>,
        now: Timestamp,
    ) -> Option<(Scopes, AppAccess)> {
        if grant.ends_at <= now {
            return None;
        }
        let client = self.oauth.clients.active(grant.client)?;
        let user = match grant.user {
            Some(id) => Some(self.people.by_id(id).filter(|user| !user.disabled)?),
            None => None,
        };
        if let Some(session) = grant.session
            && !self.sessions.runs(&TokenHash(session), now)
        {
            return None;
        }
        let granted: Scopes = grant.scopes.parse().ok()?;
        let mut scopes = granted.intersect(&client.scopes);
        if let Some(narrowed) = narrowed {
            scopes = scopes.intersect(&narrowed.parse().ok()?);
        }
        let ceiling = Ceiling { scopes: scopes.clone(), patient: grant.patient };
        let client_name = client.name.clone();
        Some((scopes, AppAccess { client: grant.client, client_name, user, ceiling }))
    }

    /// Writes down that a grant was used, now and then; that it could not be written changes nothing.
    fn note_use(&self, known: &Known) {
        let now = self.site.clock().now();
        if now.duration_since(known.grant.used_at) < USE_WRITTEN_EVERY {
            return;
        }
        let grant = Grant { used_at: now, ..known.grant.clone() };
        let writes = vec![grant.write(Expected::Version(known.version))];
        let transaction = store::Transaction { at: now, writes, ..store::Transaction::default() };
        match self.site.store().transact(&transaction) {
            Ok(()) | Err(TransactError::Conflict { .. }) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the use of a grant was not written down"
                );
            }
        }
    }
}
