//! The dam before the audit log: of the refusals of strangers from one address only some are recorded, and of all of them
//! together; one by one with how many were not, so that nobody without credentials fills the disk or buries what an auditor
//! looks for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clinical_model::Timestamp;
use pipeline::audited::Act;

/// Of one address, or of one network of IPv6, which a single host has all of.
const OF_ONE: Pace = Pace { at_once: 30, lasts: Duration::from_secs(2) };
/// Of all addresses together: whoever has very many must not fill the log either.
const OF_ALL: Pace = Pace { at_once: 300, lasts: Duration::from_millis(200) };
/// When somebody who is slowed down may come again, in seconds.
pub(crate) const RETRY_AFTER_S: u64 = OF_ONE.lasts.as_secs();
/// Addresses that are remembered; the one longest quiet is forgotten beyond it.
const ADDRESSES_LIMIT: usize = 4_096;

/// How many failures are recorded.
struct Pace {
    /// At once.
    at_once: u32,
    /// Time for which one counts: behind a flood one of so much time is recorded.
    lasts: Duration,
}

/// Failures of each address and of all, less those whose time is over.
#[derive(Default)]
pub(crate) struct Flood(Mutex<Levels>);

#[derive(Default)]
struct Levels {
    of_each: HashMap<IpAddr, Level>,
    of_all: Level,
}

#[derive(Clone, Copy, Default)]
struct Level {
    failures: u32,
    at: Timestamp,
    /// Failures since the last that was recorded.
    unrecorded: u64,
}

impl Level {
    fn now(self, pace: &Pace, now: Timestamp) -> u32 {
        if self.at.is_ahead_of(now) {
            return 0;
        }
        let over = now.duration_since(self.at).as_millis() / pace.lasts.as_millis();
        self.failures.saturating_sub(u32::try_from(over).unwrap_or(u32::MAX))
    }

    /// Counts a failure: with how many before it that were not recorded it is to be recorded, if it is.
    fn failed(&mut self, pace: &Pace, now: Timestamp) -> Option<u64> {
        let failures = self.now(pace, now);
        if failures >= pace.at_once {
            self.unrecorded = self.unrecorded.saturating_add(1);
            return None;
        }
        let unrecorded = self.unrecorded;
        *self = Level { failures: failures + 1, at: now, unrecorded: 0 };
        Some(unrecorded)
    }
}

impl Levels {
    fn of(&mut self, address: IpAddr, now: Timestamp) -> &mut Level {
        let levels = &mut self.of_each;
        if levels.len() >= ADDRESSES_LIMIT && !levels.contains_key(&address) {
            levels.retain(|_, level| level.now(&OF_ONE, now) > 0);
            if levels.len() >= ADDRESSES_LIMIT {
                let quiet = levels.iter().min_by_key(|(_, level)| level.at).map(|(address, _)| *address);
                quiet.and_then(|address| levels.remove(&address));
            }
        }
        levels.entry(address).or_insert(Level { at: now, ..Level::default() })
    }
}

impl Flood {
    /// Counts a failure: with how many before it that were not recorded, of this address and of all, it is to be
    /// recorded, if it is.
    fn failed(&self, address: IpAddr, now: Timestamp) -> Option<(u64, u64)> {
        let mut levels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = levels.of(address, now).failed(&OF_ONE, now)?;
        let anywhere = levels.of_all.failed(&OF_ALL, now);
        if anywhere.is_none() {
            levels.of_all.unrecorded = levels.of_all.unrecorded.saturating_add(here);
        }
        Some((here, anywhere?))
    }

    /// The act of a stranger that was refused, as it is to be recorded; `None`: not, for too many come. The address is
    /// a network of IPv6.
    pub(crate) fn recorded(&self, from: Option<IpAddr>, act: Act, now: Timestamp) -> Option<Act> {
        let Some(address) = from else { return Some(act) };
        let (here, anywhere) = self.failed(address, now)?;
        let mut detail = act.detail.clone();
        for (more, whence) in [(here, "there"), (anywhere, "anywhere")] {
            if more > 0 {
                detail.push_str(&format!("; {more} refusals from {whence} before it were not recorded"));
            }
        }
        Some(act.detail(detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn refusals_of_one_address_are_recorded_now_and_then() {
        let flood = Flood::default();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        for _ in 0..OF_ONE.at_once {
            assert_eq!(flood.failed(one, at(0)), Some((0, 0)));
        }
        for _ in 0..7 {
            assert_eq!(flood.failed(one, at(1)), None);
        }
        assert_eq!(flood.failed(other, at(1)), Some((0, 0)), "of another address");
        assert_eq!(flood.failed(one, at(2)), Some((7, 0)), "one of two seconds, with how many were not");
        assert_eq!(flood.failed(one, at(2)), None);
        assert_eq!(flood.failed(one, at(4)), Some((1, 0)));
        for _ in 0..OF_ONE.at_once {
            flood.failed(one, at(90_000));
        }
        assert_eq!(flood.failed(one, at(5)), Some((0, 0)), "of a clock that ran ahead");
    }

    #[test]
    fn many_addresses_cannot_fill_the_log_together() {
        let flood = Flood::default();
        let failures = |from: u32, now| {
            let addresses = (from..from + 5_000).map(|number| IpAddr::from(number.to_be_bytes()));
            addresses.filter_map(|address| flood.failed(address, now)).collect::<Vec<_>>()
        };
        assert_eq!(failures(0, at(10)), vec![(0, 0); OF_ALL.at_once as usize]);
        assert!(flood.0.lock().unwrap().of_each.len() <= ADDRESSES_LIMIT);
        let later = failures(10_000, at(11));
        assert_eq!(
            later,
            [(0, 4_700), (0, 0), (0, 0), (0, 0), (0, 0)],
            "five a second, with how many were not"
        );
    }
}
