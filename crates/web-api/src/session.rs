//! Sessions: opaque tokens that only their hash is kept of, ended by idleness, age or sign-out; and the guard
//! against guessing passwords.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use clinical_model::{Timestamp, UserId};
use tokio::sync::watch;
use trust::{TokenHash, TokenSecret};

use crate::people::User;

/// Sessions that may exist at once; the oldest ends beyond it.
const SESSION_LIMIT: usize = 10_000;
/// Failed attempts on one name before waiting begins.
const FREE_ATTEMPTS: u32 = 5;
/// Longest wait after a failed attempt, in seconds.
const LONGEST_WAIT_S: u64 = 300;
/// Failed attempts from one address, whatever the names, before waiting begins.
const FREE_ATTEMPTS_ADDRESS: u32 = 30;
/// Names and addresses that are remembered; the one longest quiet is forgotten beyond it.
const GUARD_LIMIT: usize = 20_000;
/// Failures are forgotten after so long without another.
const FORGET_AFTER: Duration = Duration::from_secs(900);

/// The cookie's name on plain loopback.
const COOKIE: &str = "auscult_session";
/// The cookie's name over TLS: browsers bind it to the host.
const SECURE_COOKIE: &str = "__Host-auscult_session";

/// The address a request came from; put into the request's extensions by the listener.
#[derive(Clone, Copy, Debug)]
pub struct RemoteAddress(pub IpAddr);

struct Session {
    user: UserId,
    started_at: Timestamp,
    seen_at: Timestamp,
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

/// All sessions. They live in memory: a restart of the server signs everybody out.
pub(crate) struct Sessions {
    idle_timeout: Duration,
    limit: Duration,
    sessions: Mutex<HashMap<[u8; 32], Session>>,
}

impl Sessions {
    pub(crate) fn new(idle_timeout: Duration, limit: Duration) -> Self {
        Sessions { idle_timeout, limit, sessions: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session and returns its token, which is shown once.
    pub(crate) fn begin(&self, user: &User, now: Timestamp) -> TokenSecret {
        let token = TokenSecret::generate();
        let mut sessions = self.lock();
        if sessions.len() >= SESSION_LIMIT
            && let Some(oldest) =
                sessions.iter().min_by_key(|(_, session)| session.seen_at).map(|(hash, _)| *hash)
        {
            end(sessions.remove(&oldest));
        }
        let session =
            Session { user: user.id, started_at: now, seen_at: now, ended: watch::Sender::new(false) };
        sessions.insert(token.hash().0, session);
        token
    }

    /// The session of a request, if it still runs. `touch` counts the request as activity: streams that stay open
    /// by themselves must not keep a session alive.
    pub(crate) fn current(&self, headers: &HeaderMap, now: Timestamp, touch: bool) -> Option<Current> {
        let token = token_of(headers)?;
        let hash = token.hash();
        let mut sessions = self.lock();
        let session = sessions.get_mut(&hash.0)?;
        let idle = now.duration_since(session.seen_at) > self.idle_timeout;
        let old = now.duration_since(session.started_at) > self.limit;
        if idle || old {
            end(sessions.remove(&hash.0));
            return None;
        }
        if touch {
            session.seen_at = now;
        }
        let expires_at = session.started_at.plus(self.limit).min(session.seen_at.plus(self.idle_timeout));
        Some(Current { user: session.user, hash, expires_at, ended: session.ended.subscribe() })
    }

    /// Whether a session still runs, for a stream that asks from time to time.
    pub(crate) fn runs(&self, hash: &TokenHash, now: Timestamp) -> bool {
        let mut sessions = self.lock();
        let Some(session) = sessions.get(&hash.0) else { return false };
        let runs = now.duration_since(session.seen_at) <= self.idle_timeout
            && now.duration_since(session.started_at) <= self.limit;
        if !runs {
            end(sessions.remove(&hash.0));
        }
        runs
    }

    /// Ends one session; its streams end too.
    pub(crate) fn end(&self, hash: &TokenHash) {
        end(self.lock().remove(&hash.0));
    }
}

fn end(session: Option<Session>) {
    if let Some(session) = session {
        session.ended.send_replace(true);
    }
}

fn token_of(headers: &HeaderMap) -> Option<TokenSecret> {
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

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Timestamp,
}

/// Slows down guessing: waits grow with each failure on a name, and with many failures from an address.
#[derive(Default)]
pub(crate) struct SignInGuard {
    failures: Mutex<HashMap<String, Failures>>,
}

fn name_key(name: &str) -> String {
    // Cut, so that a long name costs no memory.
    format!("name:{}", name.trim().to_lowercase().chars().take(100).collect::<String>())
}

fn address_key(address: IpAddr) -> String {
    format!("address:{address}")
}

impl SignInGuard {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds to wait before the next attempt; `None`: try now.
    pub(crate) fn wait_s(&self, name: &str, address: Option<IpAddr>, now: Timestamp) -> Option<u64> {
        let failures = self.lock();
        let wait = |key: &str, free: u32| {
            let failed = failures.get(key)?;
            let over = failed.count.checked_sub(free)?;
            let wait = LONGEST_WAIT_S.min(2u64.saturating_pow(over.min(20)));
            let passed = now.duration_since(failed.last).as_secs();
            (passed < wait).then(|| wait - passed)
        };
        let by_name = wait(&name_key(name), FREE_ATTEMPTS);
        by_name.max(address.and_then(|address| wait(&address_key(address), FREE_ATTEMPTS_ADDRESS)))
    }

    /// Remembers a failed attempt.
    pub(crate) fn failed(&self, name: &str, address: Option<IpAddr>, now: Timestamp) {
        let mut failures = self.lock();
        failures.retain(|_, failed| now.duration_since(failed.last) < FORGET_AFTER);
        let keys = [Some(name_key(name)), address.map(address_key)];
        for key in keys.into_iter().flatten() {
            if failures.len() >= GUARD_LIMIT
                && let Some(quiet) =
                    failures.iter().min_by_key(|(_, failed)| failed.last).map(|(key, _)| key.clone())
            {
                failures.remove(&quiet);
            }
            let failed = failures.entry(key).or_insert(Failures { count: 0, last: now });
            failed.count = failed.count.saturating_add(1);
            failed.last = now;
        }
    }

    /// A right password clears the name, and takes back what this attempt counted against its address: a change of
    /// shift behind one address is no attack.
    pub(crate) fn succeeded(&self, name: &str, address: Option<IpAddr>) {
        let mut failures = self.lock();
        failures.remove(&name_key(name));
        if let Some(failed) = address.and_then(|address| failures.get_mut(&address_key(address))) {
            failed.count = failed.count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::Role;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    fn user() -> User {
        let id = UserId::from_bytes([1; 16]);
        User { id, name: "n".into(), display: "N".into(), role: Role::Nurse, wards: None, disabled: false }
    }

    fn headers(token: &TokenSecret) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let line = format!("other=1; {COOKIE}={}", token.to_text().expose());
        headers.insert(header::COOKIE, line.parse().unwrap());
        headers
    }

    #[test]
    fn a_session_ends_by_idleness_by_age_and_by_sign_out() {
        let sessions = Sessions::new(Duration::from_secs(60), Duration::from_secs(200));
        let headers = headers(&sessions.begin(&user(), at(0)));
        assert!(sessions.current(&headers, at(50), true).is_some());
        assert!(sessions.current(&headers, at(100), false).is_some());
        let current = sessions.current(&headers, at(110), false).unwrap();
        assert_eq!(current.expires_at, at(110));
        assert!(sessions.current(&headers, at(111), true).is_none(), "a stream is no activity");
        assert!(*current.ended.borrow());

        let headers = super::tests::headers(&sessions.begin(&user(), at(0)));
        for second in (0..=200).step_by(50) {
            assert!(sessions.current(&headers, at(second), true).is_some());
        }
        assert!(sessions.current(&headers, at(201), true).is_none(), "age");

        let headers = super::tests::headers(&sessions.begin(&user(), at(0)));
        let current = sessions.current(&headers, at(1), true).unwrap();
        sessions.end(&current.hash);
        assert!(sessions.current(&headers, at(2), true).is_none());
    }

    #[test]
    fn a_change_of_shift_behind_one_address_locks_nobody_out() {
        let guard = SignInGuard::default();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        for number in 0..200 {
            let name = format!("nurse {number}");
            assert_eq!(guard.wait_s(&name, Some(address), at(0)), None, "{name}");
            guard.failed(&name, Some(address), at(0));
            guard.succeeded(&name, Some(address));
        }
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

    #[test]
    fn guessing_is_slowed_down_by_name_and_by_address() {
        let guard = SignInGuard::default();
        let address: IpAddr = "127.0.0.1".parse().unwrap();
        for _ in 0..4 {
            guard.failed("Nurse", Some(address), at(0));
        }
        assert_eq!(guard.wait_s("nurse", None, at(0)), None);
        guard.failed(" NURSE", Some(address), at(0));
        assert_eq!(guard.wait_s("nurse", None, at(0)), Some(1));
        for _ in 0..20 {
            guard.failed("nurse", None, at(0));
        }
        assert_eq!(guard.wait_s("nurse", None, at(0)), Some(LONGEST_WAIT_S));
        assert_eq!(guard.wait_s("physician", Some(address), at(0)), None);
        for number in 0..30 {
            guard.failed(&format!("name {number}"), Some(address), at(0));
        }
        assert!(guard.wait_s("physician", Some(address), at(0)).is_some());
        guard.succeeded("nurse", None);
        assert_eq!(guard.wait_s("nurse", None, at(0)), None);
        guard.failed("x", None, at(2_000));
        assert_eq!(guard.lock().len(), 1, "old failures are forgotten");
    }
}
