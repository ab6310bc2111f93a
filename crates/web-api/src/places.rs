//! Places for connections: how many a port has at one time, and how many of them one address may take when they run short.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What an address may hold once half of the places are taken: a hospital behind one address has room while nobody floods
/// the port, and sixteen hosts would be needed to shut others out.
pub(crate) const SHARE: usize = 256;

/// The places of a port.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    /// The port is full.
    #[error("all {limit} connections are in use")]
    Full {
        /// Places of the port.
        limit: usize,
    },
    /// The port is half full, and the address has its share.
    #[error("{share} connections are in use by one address, and half of {limit} by all")]
    ShareTaken {
        /// What an address may hold then.
        share: usize,
        /// Places of the port.
        limit: usize,
    },
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    address: Option<IpAddr>,
}

/// Whose share a connection counts in: a network of 64 bits is one household or one host (RFC 6177).
fn holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Places {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Places { limit, taken: Mutex::default() })
    }

    /// A place for a connection from an address; of a balancer, who speaks for many, none is counted.
    pub(crate) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Place, NoPlace> {
        let mut taken = self.lock();
        if taken.all >= self.limit {
            return Err(NoPlace::Full { limit: self.limit });
        }
        let address = address.map(holder);
        if let Some(address) = address {
            self.count(&mut taken, address)?;
        }
        taken.all += 1;
        drop(taken);
        Ok(Place { places: Arc::clone(self), address })
    }

    fn count(&self, taken: &mut Taken, address: IpAddr) -> Result<(), NoPlace> {
        let half_full = taken.all >= self.limit / 2;
        let own = taken.by_address.entry(address).or_default();
        if half_full && *own >= SHARE {
            return Err(NoPlace::ShareTaken { share: SHARE, limit: self.limit });
        }
        *own += 1;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The address became known by what the balancer said.
    pub(crate) fn belongs_to(&mut self, address: IpAddr) -> Result<(), NoPlace> {
        if self.address.is_none() {
            let address = holder(address);
            self.places.count(&mut self.places.lock(), address)?;
            self.address = Some(address);
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(address) = self.address
            && let Some(own) = taken.by_address.get_mut(&address)
        {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 4 * SHARE;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn one_address_leaves_half_of_the_places_to_others() {
        let places = Places::new(LIMIT);
        let flood: Vec<Place> = std::iter::from_fn(|| places.take(address("192.0.2.1")).ok()).collect();
        assert_eq!(flood.len(), LIMIT / 2);
        let refused = places.take(address("192.0.2.1")).unwrap_err();
        assert_eq!(refused, NoPlace::ShareTaken { share: SHARE, limit: LIMIT });
        let other: Vec<Place> = std::iter::from_fn(|| places.take(address("192.0.2.2")).ok()).collect();
        assert_eq!(other.len(), SHARE);
        let third: Vec<Place> = std::iter::from_fn(|| places.take(address("192.0.2.3")).ok()).collect();
        assert_eq!(third.len(), SHARE);
        assert_eq!(places.take(address("192.0.2.4")).unwrap_err(), NoPlace::Full { limit: LIMIT });
        drop((flood, other, third));
        assert!(places.lock().by_address.is_empty() && places.lock().all == 0, "all are given back");
    }

    #[test]
    fn a_network_of_64_bits_and_a_mapped_address_are_one_holder() {
        let places = Places::new(LIMIT);
        let _kept = ["2001:db8::1", "2001:db8::2:1", "::ffff:192.0.2.9", "192.0.2.9"]
            .map(|text| places.take(address(text)).unwrap());
        let mut counts: Vec<usize> = places.lock().by_address.values().copied().collect();
        counts.sort_unstable();
        assert_eq!(counts, [2, 2]);
    }

    #[test]
    fn whom_a_balancer_speaks_for_is_counted_and_not_the_balancer() {
        let places = Places::new(LIMIT);
        let mut kept = Vec::new();
        for _ in 0..LIMIT / 2 {
            kept.push(places.take(None).unwrap());
        }
        for place in &mut kept[..SHARE] {
            place.belongs_to(address("192.0.2.1").unwrap()).unwrap();
        }
        let refused = kept[SHARE].belongs_to(address("192.0.2.1").unwrap());
        assert_eq!(refused, Err(NoPlace::ShareTaken { share: SHARE, limit: LIMIT }));
        assert_eq!(kept[SHARE].belongs_to(address("192.0.2.2").unwrap()), Ok(()));
    }
}
