//! The dam before the audit log: of the refusals of strangers from one address only some are recorded, one by one with how
//! many were not, so that nobody without credentials fills the disk or buries what an auditor looks for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clinical_model::Timestamp;
use pipeline::audited::Act;

/// Failures from one address that are recorded at once.
const FAILURES_AT_ONCE: u32 = 30;
/// Time for which a failure counts: behind a flood one of so much time is recorded.
const FAILURE_LASTS: Duration = Duration::from_secs(2);
/// When somebody who is slowed down may come again, in seconds.
pub(crate) const RETRY_AFTER_S: u64 = 2;
/// Addresses that are remembered; the one longest quiet is forgotten beyond it.
const ADDRESSES_LIMIT: usize = 4_096;
/// Failures of each address, less those whose time is over.
#[derive(Default)]
pub(crate) struct Flood(Mutex<HashMap<IpAddr, Level>>);

#[derive(Clone, Copy)]
struct Level {
    failures: u32,
    at: Timestamp,
    /// Failures since the last that was recorded.
    unrecorded: u64,
}

impl Level {
    fn now(self, now: Timestamp) -> u32 {
        let over = now.duration_since(self.at).as_secs() / FAILURE_LASTS.as_secs();
        self.failures.saturating_sub(u32::try_from(over).unwrap_or(u32::MAX))
    }
}

impl Flood {
    /// Counts a failure: with how many before it that were not recorded it is to be recorded, if it is.
    fn failed(&self, address: IpAddr, now: Timestamp) -> Option<u64> {
        let mut levels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if levels.len() >= ADDRESSES_LIMIT && !levels.contains_key(&address) {
            levels.retain(|_, level| level.now(now) > 0);
            if levels.len() >= ADDRESSES_LIMIT {
                let quiet = levels.iter().min_by_key(|(_, level)| level.at).map(|(address, _)| *address);
                quiet.and_then(|address| levels.remove(&address));
            }
        }
        let level = levels.entry(address).or_insert(Level { failures: 0, at: now, unrecorded: 0 });
        let failures = level.now(now);
        if failures >= FAILURES_AT_ONCE {
            level.unrecorded = level.unrecorded.saturating_add(1);
            return None;
        }
        let unrecorded = level.unrecorded;
        *level = Level { failures: failures + 1, at: now, unrecorded: 0 };
        Some(unrecorded)
    }

    /// The act of a stranger that was refused, as it is to be recorded; `None`: not, for too many come from there.
    pub(crate) fn recorded(&self, from: Option<IpAddr>, act: Act, now: Timestamp) -> Option<Act> {
        let Some(address) = from else { return Some(act) };
        match self.failed(address, now)? {
            0 => Some(act),
            more => {
                let detail =
                    format!("{}; {more} refusals from there before it were not recorded", act.detail);
                Some(act.detail(detail))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_one_address_are_recorded_now_and_then() {
        let flood = Flood::default();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let at = Timestamp::from_seconds;
        for _ in 0..FAILURES_AT_ONCE {
            assert_eq!(flood.failed(one, at(0)), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(flood.failed(one, at(1)), None);
        }
        assert_eq!(flood.failed(other, at(1)), Some(0), "of another address");
        assert_eq!(flood.failed(one, at(2)), Some(7), "one of two seconds, with how many were not");
        assert_eq!(flood.failed(one, at(2)), None);
        assert_eq!(flood.failed(one, at(4)), Some(1));
        for number in 0..5_000_u32 {
            let _ = flood.failed(IpAddr::from(number.to_be_bytes()), at(2));
        }
        assert!(flood.0.lock().unwrap().len() <= ADDRESSES_LIMIT);
    }
}
