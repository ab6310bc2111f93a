//! The guard against guessing passwords: waits that grow with each failure on a name, and with many from an address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clinical_model::Timestamp;
use pipeline::records::{json_from, json_write, sortable};
use serde::{Deserialize, Serialize};
use store::{
    DocumentQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order, Store, StoreError,
    TransactError, Transaction,
};

use crate::session::removal;

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

/// Slows down guessing: waits grow with each failure on a name, and with many failures from an address. Where several
/// nodes share the store the counts stand there, so that no node can be tried afresh.
pub(crate) struct SignInGuard {
    shared: Option<Arc<dyn Store>>,
    here: Mutex<HashMap<String, Failures>>,
}

fn name_key(name: &str) -> String {
    // Cut, so that a long name costs no memory.
    format!("name:{}", name.trim().to_lowercase().chars().take(100).collect::<String>())
}

fn address_key(address: IpAddr) -> String {
    format!("address:{address}")
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

    /// Seconds to wait before an attempt may be made, or `None`: then it is counted as a failure at once, before the
    /// password is checked, so that many attempts at one time do not slip through together. Blocks.
    ///
    /// # Errors
    /// [`TransactError`] where the counts are kept in the store, and it failed.
    pub(crate) fn attempt(
        &self,
        name: &str,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Option<u64>, TransactError> {
        let wait = self.wait_s(name, address, now)?;
        if wait.is_none() {
            self.failed(name, address, now)?;
        }
        Ok(wait)
    }

    fn wait_s(
        &self,
        name: &str,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Option<u64>, TransactError> {
        let wait = |key: &str, free: u32| {
            let Some(failed) = self.failures(key, now)? else { return Ok(None) };
            let Some(over) = failed.count.checked_sub(free) else { return Ok(None) };
            let wait = LONGEST_WAIT_S.min(2u64.saturating_pow(over.min(20)));
            let passed = now.duration_since(failed.last).as_secs();
            Ok::<_, TransactError>((passed < wait).then(|| wait - passed))
        };
        let by_name = wait(&name_key(name), FREE_ATTEMPTS)?;
        let by_address = match address {
            Some(address) => wait(&address_key(address), FREE_ATTEMPTS_ADDRESS)?,
            None => None,
        };
        Ok(by_name.max(by_address))
    }

    fn failed(&self, name: &str, address: Option<IpAddr>, now: Timestamp) -> Result<(), TransactError> {
        for key in [Some(name_key(name)), address.map(address_key)].into_iter().flatten() {
            self.change(&key, now, |failed| {
                let count = failed.map_or(0, |failed| failed.count).saturating_add(1);
                Some(Failures { count, last: now })
            })?;
        }
        Ok(())
    }

    /// A right password clears the name, and takes back what this attempt counted against its address: a change of
    /// shift behind one address is no attack. Blocks.
    ///
    /// # Errors
    /// As [`SignInGuard::attempt`].
    pub(crate) fn succeeded(
        &self,
        name: &str,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), TransactError> {
        self.change(&name_key(name), now, |_| None)?;
        let Some(address) = address else { return Ok(()) };
        self.change(&address_key(address), now, |failed| {
            failed.map(|failed| Failures { count: failed.count.saturating_sub(1), ..failed })
        })
    }

    fn failures(&self, key: &str, now: Timestamp) -> Result<Option<Failures>, TransactError> {
        let failed = match &self.shared {
            None => self.lock().get(key).copied(),
            Some(store) => read(store.as_ref(), key)?.map(|(failed, _)| failed),
        };
        Ok(failed.filter(|failed| now.duration_since(failed.last) < FORGET_AFTER))
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
        here.retain(|_, failed| now.duration_since(failed.last) < FORGET_AFTER);
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
    let is_over = |failed: &Failures| now.duration_since(failed.last) >= FORGET_AFTER;
    let mut tries = 1;
    loop {
        let before = read(store, key)?;
        let expected = before.map_or(Expected::Absent, |(_, version)| Expected::Version(version));
        let after = change(before.map(|(failed, _)| failed).filter(|failed| !is_over(failed)));
        let write = match after {
            None if before.is_none() => return Ok(()),
            None => DocumentWrite {
                kind: Kind::Session,
                id: id_of(key),
                expected,
                domain: KeyDomain::System,
                body: None,
                index: Vec::new(),
            },
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
    Ok(over.map(|one| removal(one.id)).collect())
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

    #[test]
    fn a_change_of_shift_behind_one_address_locks_nobody_out() {
        let guard = guard();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        for number in 0..200 {
            let name = format!("nurse {number}");
            assert_eq!(guard.wait_s(&name, Some(address), at(0)).unwrap(), None, "{name}");
            guard.failed(&name, Some(address), at(0)).unwrap();
            guard.succeeded(&name, Some(address), at(0)).unwrap();
        }
    }

    #[test]
    fn guessing_is_slowed_down_by_name_and_by_address() {
        let guard = guard();
        let address: IpAddr = "127.0.0.1".parse().unwrap();
        for _ in 0..4 {
            guard.failed("Nurse", Some(address), at(0)).unwrap();
        }
        assert_eq!(guard.wait_s("nurse", None, at(0)).unwrap(), None);
        guard.failed(" NURSE", Some(address), at(0)).unwrap();
        assert_eq!(guard.wait_s("nurse", None, at(0)).unwrap(), Some(1));
        for _ in 0..20 {
            guard.failed("nurse", None, at(0)).unwrap();
        }
        assert_eq!(guard.wait_s("nurse", None, at(0)).unwrap(), Some(LONGEST_WAIT_S));
        assert_eq!(guard.wait_s("physician", Some(address), at(0)).unwrap(), None);
        for number in 0..30 {
            guard.failed(&format!("name {number}"), Some(address), at(0)).unwrap();
        }
        assert!(guard.wait_s("physician", Some(address), at(0)).unwrap().is_some());
        guard.succeeded("nurse", None, at(0)).unwrap();
        assert_eq!(guard.wait_s("nurse", None, at(0)).unwrap(), None);
        guard.failed("x", None, at(2_000)).unwrap();
        assert_eq!(guard.lock().len(), 1, "old failures are forgotten");
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
            assert_eq!(nodes[attempt % 3].attempt("nurse", None, at(0)).unwrap(), None, "{attempt}");
        }
        for node in &nodes {
            assert_eq!(node.attempt(" NURSE ", None, at(0)).unwrap(), Some(1));
        }
        nodes[1].succeeded("nurse", None, at(0)).unwrap();
        assert_eq!(nodes[2].attempt("nurse", None, at(0)).unwrap(), None);
        nodes[0].attempt("other", None, at(5_000)).unwrap();
        assert_eq!(read(store.as_ref(), &name_key("nurse")).unwrap(), None, "swept");
    }
}
