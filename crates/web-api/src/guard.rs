//! The guard against guessing: waits that grow with each failure, counted for a name at an address, for an address, and for
//! a browser that a person has used before; so that nobody can lock somebody else out from elsewhere.
//!
//! Passkeys are not guarded: there is nothing to guess.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clinical_model::{Timestamp, UserId};
use pipeline::records::{json_from, json_write, sortable};
use serde::{Deserialize, Serialize};
use store::{
    DocumentQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order, Store, StoreError,
    TransactError, Transaction,
};

use crate::known_browser::BrowserId;

/// Failed attempts on one name from one address, or from one known browser, before waiting begins.
const FREE_ATTEMPTS: u32 = 5;
/// Wrong codes for one person from browsers they have not used before, after the right password, before waiting begins.
const FREE_ATTEMPTS_CODE: u32 = 10;
/// Longest wait after a failed attempt, in seconds.
const LONGEST_WAIT_S: u64 = 300;
/// Failed attempts from one address, whatever the names, before waiting begins.
const FREE_ATTEMPTS_ADDRESS: u32 = 30;
/// Names and addresses that are remembered; the one longest quiet is forgotten beyond it.
const GUARD_LIMIT: usize = 20_000;
/// Failures are forgotten after so long without another.
const FORGET_AFTER: Duration = Duration::from_secs(900);
/// Counts in the store that are over and removed with each change.
const SWEEP_LIMIT: usize = 16;
/// Times that a count is read again because another node was faster.
const CHANGE_LIMIT_TRIES: u32 = 8;
/// The index of counts by their last failure.
const BY_LAST: &str = "failed";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Failures {
    count: u32,
    last: Timestamp,
}

impl Failures {
    /// Whether it counts no longer: quiet for long, or written by a clock that ran ahead.
    fn is_over(&self, now: Timestamp) -> bool {
        now.duration_since(self.last) >= FORGET_AFTER || self.last.is_ahead_of(now)
    }
}

/// What is tried.
#[derive(Clone, Debug)]
pub(crate) enum Trying {
    /// A password for a name.
    Password {
        /// The name, as it was given.
        name: String,
        /// From where.
        address: Option<IpAddr>,
        /// From which browser, where the person of this name has used it before.
        browser: Option<BrowserId>,
    },
    /// A code, after the right password.
    Code {
        /// Whose.
        user: UserId,
        /// From which browser, where they have used it before.
        browser: Option<BrowserId>,
    },
}

impl Trying {
    /// What failures count against, and how many are free. The first is the one that a success clears.
    fn keys(&self) -> Vec<(String, u32)> {
        match self {
            // Known browsers count by themselves: what strangers do elsewhere does not slow them down.
            Trying::Password { name, browser: Some(browser), .. } => {
                vec![(format!("browser:{browser} {}", cut(name)), FREE_ATTEMPTS)]
            }
            Trying::Password { name, address: None, browser: None } => {
                vec![(format!("name:{}", cut(name)), FREE_ATTEMPTS)]
            }
            Trying::Password { name, address: Some(address), browser: None } => vec![
                (format!("name:{} {address}", cut(name)), FREE_ATTEMPTS),
                (format!("address:{address}"), FREE_ATTEMPTS_ADDRESS),
            ],
            Trying::Code { user, browser: Some(browser) } => {
                vec![(format!("code:{user} {browser}"), FREE_ATTEMPTS)]
            }
            Trying::Code { user, browser: None } => vec![(format!("code:{user}"), FREE_ATTEMPTS_CODE)],
        }
    }
}

/// A name, cut so that a long one costs no memory.
fn cut(name: &str) -> String {
    name.trim().to_lowercase().chars().take(100).collect()
}

/// Slows down guessing. Where several nodes share the store the counts stand there, so that no node can be tried afresh.
pub(crate) struct SignInGuard {
    shared: Option<Arc<dyn Store>>,
    here: Mutex<HashMap<String, Failures>>,
}

fn id_of(key: &str) -> [u8; 16] {
    let digest = trust::digest::sha256(&[b"failed sign-ins", key.as_bytes()]);
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

impl SignInGuard {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        SignInGuard { shared: store.shared().then_some(store), here: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Failures>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds to wait before an attempt may be made, or `None`: then it has been counted as a failure already, in the
    /// same step in which it was found to be free, before anything is checked: of many attempts at one time no more
    /// pass than one after the other would. Blocks.
    ///
    /// # Errors
    /// [`TransactError`] where the counts are kept in the store, and it failed.
    pub(crate) fn attempt(&self, trying: &Trying, now: Timestamp) -> Result<Option<u64>, TransactError> {
        let mut reserved = Vec::new();
        for (key, free) in trying.keys() {
            match self.reserve(&key, free, now)? {
                Ok(before) => reserved.push((key, before)),
                Err(wait_s) => {
                    // What waits elsewhere was no attempt here.
                    for (key, before) in reserved {
                        self.give_back(&key, before, now)?;
                    }
                    return Ok(Some(wait_s));
                }
            }
        }
        Ok(None)
    }

    /// Counts an attempt, where it need not wait: what stood before it, or the seconds to wait.
    fn reserve(
        &self,
        key: &str,
        free: u32,
        now: Timestamp,
    ) -> Result<Result<Option<Failures>, u64>, TransactError> {
        let found = Cell::new(Ok(None));
        self.change(key, now, |failed| match wait_s(failed, free, now) {
            Some(wait_s) => {
                found.set(Err(wait_s));
                failed
            }
            None => {
                found.set(Ok(failed));
                let count = failed.map_or(0, |failed| failed.count).saturating_add(1);
                Some(Failures { count, last: now })
            }
        })?;
        Ok(found.get())
    }

    /// Takes back one count. Where nobody else was counted meanwhile, it is as if nothing had been.
    fn give_back(&self, key: &str, before: Option<Failures>, now: Timestamp) -> Result<(), TransactError> {
        self.change(key, now, |failed| {
            let failed = failed?;
            match before {
                Some(before) if failed.count == before.count.saturating_add(1) => Some(before),
                None if failed.count == 1 => None,
                _ => Some(Failures { count: failed.count.saturating_sub(1), last: failed.last }),
            }
        })
    }

    /// A success clears what it is about, and takes back what this attempt counted against its address: a change of shift
    /// behind one address is no attack. Blocks.
    ///
    /// # Errors
    /// As [`SignInGuard::attempt`].
    pub(crate) fn succeeded(&self, trying: &Trying, now: Timestamp) -> Result<(), TransactError> {
        for (at, (key, _)) in trying.keys().iter().enumerate() {
            self.change(key, now, |failed| {
                let count = failed.filter(|_| at > 0)?.count.saturating_sub(1);
                Some(Failures { count, last: failed?.last })
            })?;
        }
        Ok(())
    }

    fn change(
        &self,
        key: &str,
        now: Timestamp,
        change: impl Fn(Option<Failures>) -> Option<Failures>,
    ) -> Result<(), TransactError> {
        match &self.shared {
            None => self.change_here(key, now, change),
            Some(store) => return change_in(store.as_ref(), key, now, change),
        }
        Ok(())
    }

    fn change_here(&self, key: &str, now: Timestamp, change: impl Fn(Option<Failures>) -> Option<Failures>) {
        let mut here = self.lock();
        here.retain(|_, failed| !failed.is_over(now));
        match change(here.get(key).copied()) {
            None => drop(here.remove(key)),
            Some(failed) => {
                if here.len() >= GUARD_LIMIT && !here.contains_key(key) {
                    let quiet = here.iter().min_by_key(|(_, failed)| failed.last).map(|(key, _)| key.clone());
                    quiet.and_then(|key| here.remove(&key));
                }
                here.insert(key.to_owned(), failed);
            }
        }
    }
}

/// Seconds to wait after so many failures, if any.
fn wait_s(failed: Option<Failures>, free: u32, now: Timestamp) -> Option<u64> {
    let failed = failed?;
    let over = failed.count.checked_sub(free)?;
    let wait = LONGEST_WAIT_S.min(2u64.saturating_pow(over.min(20)));
    let passed = now.duration_since(failed.last).as_secs();
    (passed < wait).then(|| wait - passed)
}

fn read(store: &dyn Store, key: &str) -> Result<Option<(Failures, u64)>, StoreError> {
    let document = store.document(Kind::Session, id_of(key))?;
    Ok(document.and_then(|document| Some((json_from(&document.body).ok()?, document.version))))
}

fn change_in(
    store: &dyn Store,
    key: &str,
    now: Timestamp,
    change: impl Fn(Option<Failures>) -> Option<Failures>,
) -> Result<(), TransactError> {
    let mut tries = 1;
    loop {
        let before = read(store, key)?;
        let expected = before.map_or(Expected::Absent, |(_, version)| Expected::Version(version));
        let known = before.map(|(failed, _)| failed).filter(|failed| !failed.is_over(now));
        let after = change(known);
        // Whoever has to wait writes nothing.
        if after.is_some() && after == known {
            return Ok(());
        }
        let write = match after {
            None if before.is_none() => return Ok(()),
            None => DocumentWrite { expected, ..DocumentWrite::removal(Kind::Session, id_of(key)) },
            Some(failed) => {
                let last = sortable(failed.last).to_vec();
                let index = vec![IndexEntry { name: BY_LAST, value: last, unique: false }];
                json_write(Kind::Session, id_of(key), expected, KeyDomain::System, &failed, index)
            }
        };
        let mut writes = vec![write];
        writes.extend(over(store, now, id_of(key))?);
        match store.transact(&Transaction { at: now, writes, ..Transaction::default() }) {
            Err(TransactError::Conflict { .. }) if tries < CHANGE_LIMIT_TRIES => tries += 1,
            result => return result,
        }
    }
}

/// Counts that are over are removed with each change, so that they cannot pile up.
fn over(store: &dyn Store, now: Timestamp, but: [u8; 16]) -> Result<Vec<DocumentWrite>, StoreError> {
    let query = DocumentQuery {
        kind: Kind::Session,
        index: BY_LAST,
        prefix: Vec::new(),
        after: None,
        order: Order::Ascending,
        limit: SWEEP_LIMIT,
    };
    let end = sortable(now.minus(FORGET_AFTER));
    let over =
        store.documents(&query)?.into_iter().filter(|one| one.index_value[..] < end[..] && one.id != but);
    Ok(over.map(|one| DocumentWrite::removal(Kind::Session, one.id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> SignInGuard {
        SignInGuard { shared: None, here: Mutex::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    fn password(name: &str, address: &str) -> Trying {
        Trying::Password { name: name.into(), address: Some(address.parse().unwrap()), browser: None }
    }

    fn known(name: &str) -> Trying {
        Trying::Password { name: name.into(), address: None, browser: Some(BrowserId([1; 16])) }
    }

    #[test]
    fn a_change_of_shift_behind_one_address_locks_nobody_out() {
        let guard = guard();
        for number in 0..200 {
            let trying = password(&format!("nurse {number}"), "10.0.0.1");
            assert_eq!(guard.attempt(&trying, at(0)).unwrap(), None, "{number}");
            guard.succeeded(&trying, at(0)).unwrap();
        }
    }

    #[test]
    fn guessing_is_slowed_down_by_name_and_by_address() {
        let guard = guard();
        for attempt in 0..5 {
            assert_eq!(guard.attempt(&password(" NURSE", "10.0.0.1"), at(0)).unwrap(), None, "{attempt}");
        }
        assert_eq!(guard.attempt(&password("nurse", "10.0.0.1"), at(0)).unwrap(), Some(1));
        let mut second = 0;
        let mut longest = 0;
        for _ in 0..12 {
            while let Some(wait) = guard.attempt(&password("nurse", "10.0.0.1"), at(second)).unwrap() {
                longest = longest.max(wait);
                second += wait as i64;
            }
        }
        assert_eq!(longest, LONGEST_WAIT_S);
        for number in 0..30 {
            let _ = guard.attempt(&password(&format!("name {number}"), "10.0.0.2"), at(0)).unwrap();
        }
        assert!(guard.attempt(&password("sprayed", "10.0.0.2"), at(0)).unwrap().is_some(), "spraying");
        assert_eq!(guard.attempt(&password("sprayed", "10.0.0.3"), at(0)).unwrap(), None);
        guard.attempt(&password("x", "10.0.0.4"), at(20_000)).unwrap();
        assert_eq!(guard.lock().len(), 2, "old failures are forgotten");
    }

    #[test]
    fn nobody_is_locked_out_from_elsewhere() {
        let guard = guard();
        for number in 0..250 {
            for _ in 0..6 {
                let _ = guard.attempt(&password("nurse", &format!("203.0.113.{number}")), at(0)).unwrap();
            }
        }
        assert_eq!(guard.attempt(&password("nurse", "10.0.0.1"), at(0)).unwrap(), None, "from the ward");
        assert_eq!(guard.attempt(&known("nurse"), at(0)).unwrap(), None, "from a known browser");
        for _ in 0..5 {
            let _ = guard.attempt(&known("nurse"), at(0)).unwrap();
        }
        assert!(
            guard.attempt(&known("nurse"), at(0)).unwrap().is_some(),
            "a stolen browser is slowed down too"
        );
        assert_eq!(guard.attempt(&known("physician"), at(0)).unwrap(), None);
    }

    #[test]
    fn codes_are_counted_for_a_person_wherever_they_are_tried() {
        let guard = guard();
        let user = UserId::from_bytes([1; 16]);
        let code = Trying::Code { user, browser: None };
        for _ in 0..FREE_ATTEMPTS_CODE {
            assert_eq!(guard.attempt(&code, at(0)).unwrap(), None);
        }
        assert!(guard.attempt(&code, at(0)).unwrap().is_some());
        let theirs = Trying::Code { user, browser: Some(BrowserId([1; 16])) };
        assert_eq!(guard.attempt(&theirs, at(0)).unwrap(), None);
    }

    #[test]
    fn guesses_at_one_time_do_not_pass_together() {
        let guard = guard();
        let passed = std::sync::atomic::AtomicU32::new(0);
        let barrier = std::sync::Barrier::new(32);
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    barrier.wait();
                    if guard.attempt(&password("nurse", "10.0.0.1"), at(0)).unwrap().is_none() {
                        passed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), FREE_ATTEMPTS);
        // Who waits for one count is not counted at another.
        for number in 0..FREE_ATTEMPTS_ADDRESS {
            let _ = guard.attempt(&password(&format!("name {number}"), "10.0.0.2"), at(0)).unwrap();
        }
        for _ in 0..10 {
            assert!(guard.attempt(&password("other", "10.0.0.2"), at(0)).unwrap().is_some());
        }
        let key = &password("other", "10.0.0.2").keys()[0].0;
        assert_eq!(guard.lock().get(key), None);
    }

    #[test]
    fn failures_of_a_clock_that_ran_ahead_are_forgotten() {
        let guard = guard();
        for _ in 0..10 {
            let _ = guard.attempt(&known("nurse"), at(90_000_000)).unwrap();
        }
        assert!(guard.attempt(&known("nurse"), at(90_000_000)).unwrap().is_some());
        assert_eq!(guard.attempt(&known("nurse"), at(1_000)).unwrap(), None);
    }

    #[test]
    fn nodes_that_share_a_store_count_together() {
        let directory = tempfile::tempdir().unwrap();
        let kek = trust::Kek::from_bytes(&[7; 32]);
        let store: Arc<dyn Store> = Arc::new(
            store::sqlite::SqliteStore::open(directory.path(), kek, store::sqlite::Options::default())
                .unwrap(),
        );
        let node = || SignInGuard { shared: Some(Arc::clone(&store)), here: Mutex::default() };
        let nodes = [node(), node(), node()];
        for attempt in 0..5 {
            assert_eq!(nodes[attempt % 3].attempt(&known("nurse"), at(0)).unwrap(), None, "{attempt}");
        }
        for node in &nodes {
            assert_eq!(node.attempt(&known(" NURSE "), at(0)).unwrap(), Some(1));
        }
        nodes[1].succeeded(&known("nurse"), at(0)).unwrap();
        assert_eq!(nodes[2].attempt(&known("nurse"), at(0)).unwrap(), None);
        nodes[0].attempt(&known("other"), at(5_000)).unwrap();
        let key = &known("nurse").keys()[0].0;
        assert_eq!(read(store.as_ref(), key).unwrap(), None, "swept");
    }
}
