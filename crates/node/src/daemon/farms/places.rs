//! Where packets for the nodes of a farm are to be sent: hardware address and own address, for each
//! virtual address. They ride in pulses, opaque to the core.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cluster::farm::{PLACE_BYTES_MAX, Seat};
use net::farm::Place;

use super::driver::Order;

/// What a group's hardware address has set in its first byte.
const GROUP: u8 = 1;

/// The places of a farm's nodes, as far as they are known.
pub(crate) struct Places {
    known: Mutex<Known>,
    driver: Sender<Order>,
}

#[derive(Default)]
struct Known {
    own: Vec<u8>,
    others: BTreeMap<Seat, Vec<Place>>,
}

impl Places {
    pub(super) fn new(others: BTreeMap<Seat, Vec<Place>>, driver: Sender<Order>) -> Places {
        Places { known: Mutex::new(Known { own: Vec::new(), others }), driver }
    }

    /// This node's, for its pulses.
    pub(super) fn own(&self) -> Vec<u8> {
        self.known().own.clone()
    }

    /// Takes this node's up. False if there are more than fit into a pulse.
    pub(super) fn set_own(&self, places: &[Place]) -> bool {
        let bytes = encode(places);
        self.known().own = bytes.clone().unwrap_or_default();
        bytes.is_some()
    }

    /// Another node has told its own. What is none is left out, as that node is not yet ready.
    pub(super) fn heard(&self, seat: Seat, bytes: &[u8]) {
        let Some(places) = decode(bytes).filter(|places| !places.is_empty()) else { return };
        let mut known = self.known();
        if known.others.get(&seat) != Some(&places) {
            known.others.insert(seat, places);
            // The driver lives as long as the process.
            let _ = self.driver.send(Order::Moved);
        }
    }

    pub(super) fn others(&self) -> BTreeMap<Seat, Vec<Place>> {
        self.known().others.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For each place its hardware address, the length of its address, and that.
pub(super) fn encode(places: &[Place]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for place in places {
        out.extend_from_slice(&place.mac);
        match place.address {
            IpAddr::V4(address) => {
                out.push(4);
                out.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                out.push(16);
                out.extend_from_slice(&address.octets());
            }
        }
    }
    (out.len() <= PLACE_BYTES_MAX).then_some(out)
}

/// The inverse of `encode`; none when it cannot be places.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Place>> {
    let mut rest = bytes;
    let mut places = Vec::new();
    while !rest.is_empty() {
        let (mac, tail) = rest.split_first_chunk::<6>()?;
        let (length, tail) = tail.split_first()?;
        let (octets, tail) = tail.split_at_checked(usize::from(*length))?;
        let address = match octets.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
            16 => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
            _ => return None,
        };
        let usable = mac.first().is_some_and(|first| first & GROUP == 0) && *mac != [0; 6];
        if !usable || address.is_unspecified() || address.is_multicast() {
            return None;
        }
        places.push(Place { mac: *mac, address });
        rest = tail;
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn place(last: u8) -> Place {
        Place { mac: [2, 0, 0, 0, 0, last], address: IpAddr::from([10, 0, 0, last]) }
    }

    #[test]
    fn places_are_told_whole_or_not_at_all() {
        let six = Place { mac: [2, 0, 0, 0, 0, 9], address: IpAddr::from([0xfd; 16]) };
        let places = vec![place(1), six];
        let bytes = encode(&places).unwrap_or_default();
        assert_eq!(decode(&bytes), Some(places));
        for length in (1..bytes.len()).filter(|length| *length != 11) {
            assert_eq!(decode(&bytes[..length]), None, "{length}");
        }
        let mut group = bytes.clone();
        group[0] |= GROUP;
        assert_eq!(decode(&group), None);
        assert_eq!(decode(&[0, 0, 0, 0, 0, 0, 4, 10, 0, 0, 1]), None);
        assert_eq!(decode(&[2, 0, 0, 0, 0, 1, 5, 10, 0, 0, 1, 1]), None);
        assert!(encode(&vec![place(1); 13]).is_none(), "more than fit into a pulse");
    }

    #[test]
    fn only_a_place_that_changed_is_told_to_the_driver() {
        let (driver, orders) = channel();
        let places = Places::new(BTreeMap::new(), driver);
        let bytes = encode(&[place(1)]).unwrap_or_default();
        for heard in [&bytes[..], &bytes, b"nonsense", b""] {
            places.heard(3, heard);
        }
        assert_eq!(places.others(), BTreeMap::from([(3, vec![place(1)])]));
        assert_eq!(orders.try_iter().count(), 1);
    }
}
