//! Virtual addresses: finding their interface, taking, renewing and giving them up.
//!
//! The kernel removes an address by itself when it is not renewed, so a dead daemon cannot hold one
//! for ever. Nothing here decides who may hold an address.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use model::config::Vip;

use crate::announce::announce;
use crate::arp::{ArpSocket, Kind, Packet};
use crate::error::Error;
use crate::link::{Address, Link, Mac, Netlink};
use crate::neighbour::DiscoverySocket;

/// How long the kernel keeps an address that is not renewed.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// How often [`Holder::renew`] is to be called.
pub const RENEW_EVERY: Duration = Duration::from_secs(20);

/// How often a held address is announced again, for switches and neighbours that missed it.
pub const ANNOUNCE_EVERY: Duration = Duration::from_secs(60);

/// Questions asked by a probe, evenly spread over its time.
const PROBES: u32 = 3;

/// How long an interface may take until it has an address to ask from. The kernel first asks
/// whether somebody else has that one, which takes up to two seconds after the cable is in.
const READY_MAX: Duration = Duration::from_secs(5);
const READY_PAUSE: Duration = Duration::from_millis(50);

/// A virtual address that this node holds.
#[derive(Debug)]
pub struct Holder {
    vip: Vip,
    link: Link,
    announce_at: Instant,
}

impl Holder {
    /// Takes the address: adds it with [`LIFETIME`] and announces it to the neighbours. Taking one
    /// that is there already renews it.
    ///
    /// # Errors
    /// When there is no interface for it or the kernel refuses. When only the announcement fails,
    /// the address has been removed again.
    pub fn take(vip: &Vip) -> Result<Self, Error> {
        let link = find_interface(vip)?;
        let mut netlink = Netlink::open()?;
        netlink.add_address(&link.name, vip.address, vip.prefix, Some(LIFETIME))?;
        // A switch may be learning just now, so the first renewal announces again.
        let holder = Self { vip: vip.clone(), link, announce_at: Instant::now() };
        match holder.announce() {
            Ok(()) => Ok(holder),
            Err(error) => {
                holder.release()?;
                Err(error)
            }
        }
    }

    /// The interface that has the address.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.link.name
    }

    /// Starts the lifetime anew, and announces the address again when that is due. To be called
    /// each [`RENEW_EVERY`].
    ///
    /// # Errors
    /// [`Error::Lost`] when the address has gone meanwhile: after a long standstill somebody else
    /// may hold it by now, so it is not simply added again. Others when the kernel refuses.
    pub fn renew(&mut self) -> Result<(), Error> {
        let mut netlink = Netlink::open()?;
        let held =
            |address: &Address| address.ip == self.vip.address && address.index == self.link.index;
        if !netlink.addresses()?.iter().any(held) {
            let interface = self.link.name.clone();
            return Err(Error::Lost { address: self.vip.address, interface });
        }
        let (name, ip) = (&self.link.name, self.vip.address);
        netlink.add_address(name, ip, self.vip.prefix, Some(LIFETIME))?;
        if self.announce_at <= Instant::now() {
            self.announce()?;
            self.announce_at = Instant::now() + ANNOUNCE_EVERY;
        }
        Ok(())
    }

    /// Announces the address now.
    ///
    /// # Errors
    /// When a packet cannot be sent.
    pub fn announce(&self) -> Result<(), Error> {
        match self.link.mac {
            Some(mac) if mac != [0; 6] => announce(self.link.index, mac, self.vip.address),
            // Tunnels and the loopback interface have no neighbours that cache anything.
            Some(_) | None => Ok(()),
        }
    }

    /// Gives the address up. That it has gone already is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn release(self) -> Result<(), Error> {
        remove_from(&self.link.name, &self.vip)
    }
}

/// Removes a virtual address wherever it is on this node, for example one left by a daemon that
/// died. That it is nowhere is success.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(vip: &Vip) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    let addresses = netlink.addresses()?;
    let links = netlink.links()?;
    for address in addresses.iter().filter(|address| address.ip == vip.address) {
        if let Some(link) = links.iter().find(|link| link.index == address.index) {
            netlink.delete_address(&link.name, address.ip, address.prefix)?;
        }
    }
    Ok(())
}

/// Finds the interface for a virtual address: the configured one, or else the first (those set up
/// before others) that has another address in the same subnet.
///
/// # Errors
/// [`Error::NoInterface`] and [`Error::UnknownInterface`] list what there is.
pub fn find_interface(vip: &Vip) -> Result<Link, Error> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let addresses = netlink.addresses()?;
    if let Some(name) = &vip.interface {
        let link = links.iter().find(|link| link.name == *name);
        return link.cloned().ok_or_else(|| Error::UnknownInterface {
            address: vip.address,
            interface: name.clone(),
            candidates: describe(vip, &links, &addresses),
        });
    }
    let serves = |link: &&Link| {
        addresses.iter().any(|address| {
            address.index == link.index
                && address.ip != vip.address
                && same_subnet(address.ip, vip.address, vip.prefix)
        })
    };
    let found = links.iter().filter(serves).min_by_key(|link| (!link.up, link.index));
    found.cloned().ok_or_else(|| Error::NoInterface {
        address: vip.address,
        prefix: vip.prefix,
        candidates: describe(vip, &links, &addresses),
    })
}

/// Asks the wire, for the time `wait`, whether somebody else has the address, and returns the
/// hardware address of the first that says so. For version 4 it asks, like RFC 5227, with the empty
/// sender address, so that no neighbour's cache changes.
///
/// # Errors
/// When there is no interface for the address, or it is down.
pub fn probe(vip: &Vip, wait: Duration) -> Result<Option<Mac>, Error> {
    let link = find_interface(vip)?;
    let Some(own) = link.mac.filter(|mac| *mac != [0; 6]) else {
        return Ok(None);
    };
    match vip.address {
        IpAddr::V4(target) => probe_by_arp(&link, own, target, wait),
        IpAddr::V6(target) => probe_by_discovery(&link, own, target, wait),
    }
}

fn probe_by_arp(
    link: &Link,
    own: Mac,
    target: Ipv4Addr,
    wait: Duration,
) -> Result<Option<Mac>, Error> {
    let socket = ArpSocket::open(link.index)?;
    let question = Packet {
        kind: Kind::Request,
        sender_mac: own,
        sender: Ipv4Addr::UNSPECIFIED,
        target_mac: [0; 6],
        target,
    };
    let start = Instant::now();
    for round in 1..=PROBES {
        socket.send(&question)?;
        let until = start + wait * round / PROBES;
        while let Some(packet) = socket.receive(until)? {
            if packet.sender == target && packet.sender_mac != own {
                return Ok(Some(packet.sender_mac));
            }
        }
    }
    Ok(None)
}

fn probe_by_discovery(
    link: &Link,
    own: Mac,
    target: Ipv6Addr,
    wait: Duration,
) -> Result<Option<Mac>, Error> {
    let socket = DiscoverySocket::open(link.index)?;
    let ready = Instant::now() + READY_MAX;
    while let Err(error) = socket.ask(own, target) {
        if error.errno() != Some(libc::EADDRNOTAVAIL) || Instant::now() > ready {
            return Err(error);
        }
        std::thread::sleep(READY_PAUSE);
    }
    let start = Instant::now();
    for round in 1..=PROBES {
        socket.ask(own, target)?;
        let until = start + wait * round / PROBES;
        while let Some(mac) = socket.answer(target, until)? {
            if mac != own {
                return Ok(Some(mac));
            }
        }
    }
    Ok(None)
}

fn remove_from(interface: &str, vip: &Vip) -> Result<(), Error> {
    Netlink::open()?.delete_address(interface, vip.address, vip.prefix)
}

/// The interfaces with their addresses, in words.
fn describe(vip: &Vip, links: &[Link], addresses: &[Address]) -> String {
    let mut text = String::new();
    for link in links {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&link.name);
        let own = |address: &&Address| address.index == link.index && address.ip != vip.address;
        let mut separator = " (";
        for address in addresses.iter().filter(own) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{}/{}", address.ip, address.prefix);
            separator = " ";
        }
        text.push_str(if separator == " " { ")" } else { " (no address)" });
    }
    text
}

/// Whether two addresses share a prefix of so many bits.
pub(crate) fn same_subnet(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    let (a, b, bits) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let host_bits = bits - u32::from(prefix).min(bits);
    u128::checked_shr(a ^ b, host_bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_told_apart() -> Result<(), std::net::AddrParseError> {
        for (a, b, prefix, same) in [
            ("10.0.0.1", "10.0.0.50", 24, true),
            ("10.0.1.1", "10.0.0.50", 24, false),
            ("10.0.1.1", "192.168.0.1", 0, true),
            ("10.0.0.1", "10.0.0.1", 32, true),
            ("10.0.0.1", "10.0.0.2", 32, false),
            ("fd00::1", "fd00::2", 64, true),
            ("fd00::1", "fd01::1", 64, false),
            ("fd00::1", "::1", 0, true),
            ("fd00::1", "10.0.0.1", 0, false),
        ] {
            assert_eq!(same_subnet(a.parse()?, b.parse()?, prefix), same, "{a} {b} /{prefix}");
        }
        Ok(())
    }
}
