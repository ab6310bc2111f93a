//! The guard against guessing passwords: waits that grow with each failure on a name, and with many from an address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clinical_model::Timestamp;

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

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
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
