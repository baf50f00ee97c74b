//! How many are answered at a time, in all and of one address, so that nobody who holds connections
//! open keeps all others out. Who they are is not known here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Those who are being answered.
#[derive(Debug, Clone)]
pub(crate) struct Callers {
    most: usize,
    most_of_one: usize,
    here: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// A caller's place, which it has until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    callers: Callers,
    from: IpAddr,
}

impl Callers {
    /// Room for so many, of whom so many may come from one address.
    pub(crate) fn new(most: usize, most_of_one: usize) -> Callers {
        Callers { most, most_of_one, here: Arc::default() }
    }

    /// A place for a caller; none if there is none for it.
    pub(crate) fn admit(&self, from: IpAddr) -> Option<Place> {
        let from = network(from);
        let mut here = self.here();
        let of_one = here.get(&from).copied().unwrap_or(0);
        if of_one >= self.most_of_one || here.values().sum::<usize>() >= self.most {
            return None;
        }
        here.insert(from, of_one + 1);
        drop(here);
        Some(Place { callers: self.clone(), from })
    }

    fn here(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut here = self.callers.here();
        if let Some(count) = here.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                here.remove(&self.from);
            }
        }
    }
}

/// What counts as one address: of version 6 a machine has as many as it likes below 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !0 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_gets_no_more_than_its_places_and_all_no_more_than_there_are() {
        let callers = Callers::new(3, 2);
        let mut stranger: Vec<Place> =
            (0..2).filter_map(|_| callers.admit(ip("10.0.0.66"))).collect();
        assert_eq!(stranger.len(), 2);
        assert!(callers.admit(ip("10.0.0.66")).is_none());
        assert!(callers.admit(ip("::ffff:10.0.0.66")).is_none(), "the same in other words");
        let node = callers.admit(ip("10.0.0.1"));
        assert!(node.is_some(), "others are answered all the same");
        assert!(callers.admit(ip("10.0.0.2")).is_none(), "there are no more places");
        stranger.pop();
        assert!(callers.admit(ip("10.0.0.2")).is_some(), "a place that was left is free");
        drop((stranger, node));
        assert!(callers.here().is_empty());
    }

    #[test]
    fn a_machine_with_many_addresses_of_one_network_counts_as_one() {
        let callers = Callers::new(10, 1);
        let first = callers.admit(ip("2001:db8::1"));
        assert!(first.is_some());
        assert!(callers.admit(ip("2001:db8::ffff:2")).is_none());
        assert!(callers.admit(ip("2001:db8:0:1::1")).is_some());
    }
}
