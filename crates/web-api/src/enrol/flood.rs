//! The dam before enrolment: failures from one address are slowed down, so that guesses do not fill the audit log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clinical_model::Timestamp;

/// Failures from one address at once.
const FAILURES_AT_ONCE: u32 = 30;
/// Time for which a failure counts.
const FAILURE_LASTS: Duration = Duration::from_secs(2);
/// Addresses that are remembered; the one longest quiet is forgotten beyond it.
const ADDRESSES_LIMIT: usize = 4_096;
/// When somebody who is slowed down may come again, in seconds.
pub(super) const RETRY_AFTER_S: u64 = 2;

/// Failures of each address, less those whose time is over.
#[derive(Default)]
pub(super) struct Flood(Mutex<HashMap<IpAddr, Level>>);

#[derive(Clone, Copy)]
struct Level {
    failures: u32,
    at: Timestamp,
}

impl Level {
    fn now(self, now: Timestamp) -> u32 {
        let over = now.duration_since(self.at).as_secs() / FAILURE_LASTS.as_secs();
        self.failures.saturating_sub(u32::try_from(over).unwrap_or(u32::MAX))
    }
}

impl Flood {
    /// Whether an address has failed too often just now.
    pub(super) fn is_over(&self, address: IpAddr, now: Timestamp) -> bool {
        let levels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        levels.get(&address).is_some_and(|level| level.now(now) >= FAILURES_AT_ONCE)
    }

    /// Counts a failure.
    pub(super) fn failed(&self, address: IpAddr, now: Timestamp) {
        let mut levels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if levels.len() >= ADDRESSES_LIMIT && !levels.contains_key(&address) {
            levels.retain(|_, level| level.now(now) > 0);
            if levels.len() >= ADDRESSES_LIMIT {
                let quiet = levels.iter().min_by_key(|(_, level)| level.at).map(|(address, _)| *address);
                quiet.and_then(|address| levels.remove(&address));
            }
        }
        let level = levels.entry(address).or_insert(Level { failures: 0, at: now });
        *level = Level { failures: level.now(now).saturating_add(1), at: now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_slow_one_address_down_for_a_moment() {
        let flood = Flood::default();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let at = Timestamp::from_seconds;
        for _ in 0..FAILURES_AT_ONCE {
            assert!(!flood.is_over(one, at(0)));
            flood.failed(one, at(0));
        }
        assert!(flood.is_over(one, at(1)) && !flood.is_over(other, at(1)));
        assert!(!flood.is_over(one, at(2)), "a failure counts for two seconds");
        for number in 0..5_000_u32 {
            flood.failed(IpAddr::from(number.to_be_bytes()), at(2));
        }
        assert!(flood.0.lock().unwrap().len() <= ADDRESSES_LIMIT);
    }
}
