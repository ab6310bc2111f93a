//! Sessions: opaque tokens of which only the hash is kept, in the store, so that every node knows them; ended by idleness,
//! age or sign-out.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, header};
use clinical_model::{RecordId as _, Timestamp, UserId};
use pipeline::records::{json_from, json_write, sortable};
use serde::{Deserialize, Serialize};
use store::{
    DocumentQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order, Store, StoreError,
    TransactError, Transaction,
};
use tokio::sync::watch;
use trust::{TokenHash, TokenSecret};

use crate::people::User;

/// Sessions that one node holds in memory; beyond it the one longest unseen is read again when it comes back.
const KNOWN_LIMIT: usize = 10_000;
/// Sessions of one person at one time; the oldest ends beyond it. A ward's account is used on many tablets.
const OF_ONE_USER_LIMIT: usize = 100;
/// Sessions beyond their age that are removed with each new one: more than one, so that they cannot pile up.
const SWEEP_LIMIT: usize = 16;
/// Activity is written down at most this often in the idle time: once a minute of the usual fifteen.
const TOUCHES_OF_IDLE_TIME: u32 = 15;
/// Where several nodes share the store, what one of them knows of a session is asked again after so long.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// Times that a session is read again because another node was faster to write it.
const LOOK_LIMIT_TRIES: usize = 4;
/// The index of sessions by their beginning.
const BY_START: &str = "started";
/// The index of sessions by person and beginning.
const BY_USER: &str = "user-started";

/// The cookie's name on plain loopback.
const COOKIE: &str = "auscult_session";
/// The cookie's name over TLS: browsers bind it to the host.
const SECURE_COOKIE: &str = "__Host-auscult_session";

/// The address a request came from; put into the request's extensions by the listener.
#[derive(Clone, Copy, Debug)]
pub struct RemoteAddress(pub IpAddr);

/// A session as it is kept: sealed, under the first half of the token's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// SHA-256 of the token, whole.
    hash: [u8; 32],
    user: UserId,
    started_at: Timestamp,
    seen_at: Timestamp,
}

impl Record {
    fn id(&self) -> [u8; 16] {
        id_of(&TokenHash(self.hash))
    }

    fn write(&self, expected: Expected) -> DocumentWrite {
        let started = sortable(self.started_at);
        let by_user = [&self.user.to_bytes()[..], &started].concat();
        let index = vec![
            IndexEntry { name: BY_START, value: started.to_vec(), unique: false },
            IndexEntry { name: BY_USER, value: by_user, unique: false },
        ];
        json_write(Kind::Session, self.id(), expected, KeyDomain::System, self, index)
    }
}

fn id_of(hash: &TokenHash) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&hash.0[..16]);
    id
}

/// Removes a fleeting document, whatever it is.
pub(crate) fn removal(id: [u8; 16]) -> DocumentWrite {
    DocumentWrite {
        kind: Kind::Session,
        id,
        expected: Expected::Any,
        domain: KeyDomain::System,
        body: None,
        index: Vec::new(),
    }
}

/// What this node knows of a session.
struct Known {
    record: Record,
    /// When activity was last written down.
    written_at: Timestamp,
    /// When the store was last asked.
    read_at: Instant,
    ended: watch::Sender<bool>,
}

/// A session as a handler sees it.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub user: UserId,
    pub hash: TokenHash,
    pub expires_at: Timestamp,
    /// Turns true when the session ends, for streams that outlive their request.
    pub ended: watch::Receiver<bool>,
}

/// All sessions.
pub(crate) struct Sessions {
    store: Arc<dyn Store>,
    /// Whether other nodes write to the same store.
    is_shared: bool,
    idle_timeout: Duration,
    limit: Duration,
    known: Mutex<HashMap<[u8; 16], Known>>,
}

impl Sessions {
    pub(crate) fn new(store: Arc<dyn Store>, idle_timeout: Duration, limit: Duration) -> Self {
        Sessions { is_shared: store.shared(), store, idle_timeout, limit, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 16], Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session and returns its token, which is shown once. Blocks.
    pub(crate) fn begin(&self, user: &User, now: Timestamp) -> Result<TokenSecret, TransactError> {
        let token = TokenSecret::generate();
        let record = Record { hash: token.hash().0, user: user.id, started_at: now, seen_at: now };
        let first = self.listed(BY_START, Vec::new(), Order::Ascending, SWEEP_LIMIT)?;
        let over = first.into_iter().filter(|old| now.duration_since(old.started_at) > self.limit);
        let theirs =
            self.listed(BY_USER, user.id.to_bytes().to_vec(), Order::Descending, OF_ONE_USER_LIMIT)?;
        let oldest = theirs.into_iter().nth(OF_ONE_USER_LIMIT - 1);
        let ending: BTreeSet<[u8; 16]> = over.chain(oldest).map(|record| record.id()).collect();
        let mut writes = vec![record.write(Expected::Absent)];
        writes.extend(ending.iter().copied().map(removal));
        self.store.transact(&Transaction { at: now, writes, ..Transaction::default() })?;
        ending.into_iter().for_each(|id| self.forget(id));
        self.learn(record);
        Ok(token)
    }

    fn listed(
        &self,
        index: &'static str,
        prefix: Vec<u8>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let query = DocumentQuery { kind: Kind::Session, index, prefix, after: None, order, limit };
        let found = self.store.documents(&query)?;
        Ok(found.iter().filter_map(|document| json_from(&document.body).ok()).collect())
    }

    /// Takes what the store says of a session, and answers with it as this node now knows it.
    fn learn(&self, record: Record) -> Current {
        let mut known = self.lock();
        if known.len() >= KNOWN_LIMIT && !known.contains_key(&record.id()) {
            // One that a stream waits for stays: dropping it would end the stream.
            let quiet = known.iter().filter(|(_, one)| one.ended.receiver_count() == 0);
            let quiet = quiet.min_by_key(|(_, one)| one.record.seen_at).map(|(id, _)| *id);
            quiet.and_then(|id| known.remove(&id));
        }
        let one = known.entry(record.id()).or_insert_with(|| Known {
            record,
            written_at: record.seen_at,
            read_at: Instant::now(),
            ended: watch::Sender::new(false),
        });
        one.written_at = record.seen_at;
        one.record.seen_at = one.record.seen_at.max(record.seen_at);
        one.read_at = Instant::now();
        self.shown(one)
    }

    fn shown(&self, one: &Known) -> Current {
        let Record { hash, user, started_at, seen_at } = one.record;
        let expires_at = started_at.plus(self.limit).min(seen_at.plus(self.idle_timeout));
        Current { user, hash: TokenHash(hash), expires_at, ended: one.ended.subscribe() }
    }

    fn is_over(&self, record: &Record, now: Timestamp) -> bool {
        now.duration_since(record.seen_at) > self.idle_timeout
            || now.duration_since(record.started_at) > self.limit
    }

    /// The session of a token as far as this node knows it for certain; `None`: ask [`Sessions::look`]. `touch` counts
    /// the request as activity: streams that stay open by themselves must not keep a session alive. Never blocks.
    pub(crate) fn glance(&self, hash: &TokenHash, now: Timestamp, touch: bool) -> Option<Current> {
        let mut known = self.lock();
        let one = known.get_mut(&id_of(hash)).filter(|one| one.record.hash == hash.0)?;
        let is_fresh = !self.is_shared || one.read_at.elapsed() < FRESH_FOR;
        let touch_due =
            touch && now.duration_since(one.written_at) >= self.idle_timeout / TOUCHES_OF_IDLE_TIME;
        if !is_fresh || touch_due || self.is_over(&one.record, now) {
            return None;
        }
        if touch {
            one.record.seen_at = one.record.seen_at.max(now);
        }
        Some(self.shown(one))
    }

    /// The session of a token as the store knows it, if it still runs. Blocks.
    ///
    /// # Errors
    /// [`TransactError`] when the store failed.
    pub(crate) fn look(
        &self,
        hash: &TokenHash,
        now: Timestamp,
        touch: bool,
    ) -> Result<Option<Current>, TransactError> {
        let id = id_of(hash);
        for _ in 0..LOOK_LIMIT_TRIES {
            let document = self.store.document(Kind::Session, id)?;
            let Some((mut record, version)) = document.and_then(|document| {
                let record: Record = json_from(&document.body).ok()?;
                (record.hash == hash.0).then_some((record, document.version))
            }) else {
                self.forget(id);
                return Ok(None);
            };
            let here = self.lock().get(&id).map(|one| one.record.seen_at);
            let written_at = record.seen_at;
            record.seen_at = record.seen_at.max(here.unwrap_or(record.seen_at));
            if self.is_over(&record, now) {
                self.end(hash, now)?;
                return Ok(None);
            }
            if touch && now.duration_since(written_at) >= self.idle_timeout / TOUCHES_OF_IDLE_TIME {
                record.seen_at = record.seen_at.max(now);
                let writes = vec![record.write(Expected::Version(version))];
                match self.store.transact(&Transaction { at: now, writes, ..Transaction::default() }) {
                    Ok(()) => {}
                    // Another node wrote it down, or it was ended meanwhile: see which.
                    Err(TransactError::Conflict { .. }) => continue,
                    Err(error) => return Err(error),
                }
            } else {
                record.seen_at = written_at;
            }
            let current = self.learn(record);
            return Ok(if touch { self.glance(hash, now, true).or(Some(current)) } else { Some(current) });
        }
        Ok(None)
    }

    /// Whether a session still runs, for a stream that asks from time to time. Where the store cannot be asked, what this
    /// node knows stands. Blocks.
    pub(crate) fn runs(&self, hash: &TokenHash, now: Timestamp) -> bool {
        if self.glance(hash, now, false).is_some() {
            return true;
        }
        self.look(hash, now, false).map_or_else(
            |_| self.lock().get(&id_of(hash)).is_some_and(|one| !self.is_over(&one.record, now)),
            |current| current.is_some(),
        )
    }

    /// Ends one session everywhere; its streams end too. Blocks.
    ///
    /// # Errors
    /// [`TransactError`] when it could not be removed: it ends on this node all the same.
    pub(crate) fn end(&self, hash: &TokenHash, now: Timestamp) -> Result<(), TransactError> {
        self.forget(id_of(hash));
        let writes = vec![removal(id_of(hash))];
        self.store.transact(&Transaction { at: now, writes, ..Transaction::default() })
    }

    /// A session was removed from the store: its streams on this node end.
    pub(crate) fn forget(&self, id: [u8; 16]) {
        if let Some(one) = self.lock().remove(&id) {
            one.ended.send_replace(true);
        }
    }
}

/// The token that a request carries.
pub(crate) fn token_of(headers: &HeaderMap) -> Option<TokenSecret> {
    let named = |wanted: &str| {
        let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        cookies
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == wanted)
            .map(|(_, token)| token.to_owned())
    };
    // The one that browsers bind to the host goes first: a neighbour can plant the other.
    let token = named(SECURE_COOKIE).or_else(|| named(COOKIE))?;
    TokenSecret::parse(&token).ok()
}

/// The cookie that carries a token.
pub(crate) fn cookie(token: &TokenSecret, secure: bool) -> Option<HeaderValue> {
    let text = token.to_text();
    let line = if secure {
        format!("{SECURE_COOKIE}={}; Path=/; HttpOnly; SameSite=Strict; Secure", text.expose())
    } else {
        format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", text.expose())
    };
    HeaderValue::from_str(&line).ok()
}

/// The cookie that takes a token away.
pub(crate) fn no_cookie(secure: bool) -> HeaderValue {
    if secure {
        HeaderValue::from_static(
            "__Host-auscult_session=; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=0",
        )
    } else {
        HeaderValue::from_static("auscult_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")
    }
}

#[cfg(test)]
mod tests {
    use store::sqlite::{Options, SqliteStore};

    use super::*;
    use crate::people::Role;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    fn user() -> User {
        let id = UserId::from_bytes([1; 16]);
        User { id, name: "n".into(), display: "N".into(), role: Role::Nurse, wards: None, disabled: false }
    }

    fn two_nodes(idle_s: u64, limit_s: u64) -> (tempfile::TempDir, Sessions, Sessions) {
        let directory = tempfile::tempdir().unwrap();
        let kek = trust::Kek::from_bytes(&[7; 32]);
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(directory.path(), kek, Options::default()).unwrap());
        let node =
            || Sessions::new(Arc::clone(&store), Duration::from_secs(idle_s), Duration::from_secs(limit_s));
        let (one, two) = (node(), node());
        (directory, one, two)
    }

    fn current(sessions: &Sessions, hash: &TokenHash, second: i64, touch: bool) -> Option<Current> {
        let glance = sessions.glance(hash, at(second), touch);
        glance.or_else(|| sessions.look(hash, at(second), touch).unwrap())
    }

    #[test]
    fn a_session_ends_by_idleness_by_age_and_by_sign_out() {
        let (_directory, sessions, _) = two_nodes(60, 200);
        let hash = sessions.begin(&user(), at(0)).unwrap().hash();
        assert!(current(&sessions, &hash, 50, true).is_some());
        assert!(current(&sessions, &hash, 100, false).is_some());
        let seen = current(&sessions, &hash, 110, false).unwrap();
        assert_eq!(seen.expires_at, at(110));
        assert!(current(&sessions, &hash, 111, true).is_none(), "a stream is no activity");
        assert!(*seen.ended.borrow());

        let hash = sessions.begin(&user(), at(0)).unwrap().hash();
        for second in (0..=200).step_by(50) {
            assert!(current(&sessions, &hash, second, true).is_some());
        }
        assert!(current(&sessions, &hash, 201, true).is_none(), "age");

        let hash = sessions.begin(&user(), at(0)).unwrap().hash();
        assert!(current(&sessions, &hash, 1, true).is_some());
        sessions.end(&hash, at(1)).unwrap();
        assert!(current(&sessions, &hash, 2, true).is_none());
    }

    #[test]
    fn a_session_is_known_on_every_node_and_its_end_too() {
        let (_directory, one, two) = two_nodes(900, 3_600);
        let hash = one.begin(&user(), at(0)).unwrap().hash();
        assert!(current(&two, &hash, 60, true).is_some());
        // What the other node wrote down is activity here too.
        assert!(one.look(&hash, at(950), false).unwrap().is_some());
        two.end(&hash, at(951)).unwrap();
        assert!(one.look(&hash, at(952), true).unwrap().is_none(), "a touch brings nothing back");
        assert!(one.glance(&hash, at(952), false).is_none());
    }

    #[test]
    fn a_person_has_no_more_sessions_than_the_limit_and_old_ones_are_swept() {
        let (_directory, sessions, _) = two_nodes(900, 3_600);
        let first = sessions.begin(&user(), at(0)).unwrap().hash();
        for second in 1..OF_ONE_USER_LIMIT as i64 {
            sessions.begin(&user(), at(second)).unwrap();
        }
        assert!(current(&sessions, &first, 200, true).is_some());
        sessions.begin(&user(), at(200)).unwrap();
        assert!(current(&sessions, &first, 201, true).is_none());
        let other = User { id: UserId::from_bytes([2; 16]), ..user() };
        sessions.begin(&other, at(5_000)).unwrap();
        let left = sessions.listed(BY_START, Vec::new(), Order::Ascending, 1_000).unwrap();
        assert_eq!(left.len(), OF_ONE_USER_LIMIT + 1 - SWEEP_LIMIT);
    }

    #[test]
    fn a_planted_cookie_does_not_take_the_place_of_the_one_bound_to_the_host() {
        let (planted, bound) = (TokenSecret::generate(), TokenSecret::generate());
        let mut headers = HeaderMap::new();
        let line =
            format!("{COOKIE}={}; {SECURE_COOKIE}={}", planted.to_text().expose(), bound.to_text().expose());
        headers.insert(header::COOKIE, line.parse().unwrap());
        assert!(token_of(&headers).is_some_and(|token| token.hash() == bound.hash()));
    }
}
