//! Telling the neighbours on the wire that an address has moved here.
//!
//! One call sends one burst, without waiting; when to repeat it is the caller's decision. Nothing
//! checks that the address is ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, ipproto, sendto};
use rustix::net::{socket_with, sockopt};

use crate::arp::{ArpSocket, Kind, Packet};
use crate::error::{Error, kernel};
use crate::link::Mac;

/// Announcements per burst and form; single packets get lost.
const REPEATS: u32 = 3;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Replace what the receiver has cached, though it did not ask.
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_TARGET_LINK_ADDRESS: u8 = 2;

/// Announces that `ip` is at `mac`, on interface number `index`. A version 6 address must be
/// present on the interface.
///
/// # Errors
/// When a packet cannot be sent, for example because the interface is down.
pub fn announce(index: u32, mac: Mac, ip: IpAddr) -> Result<(), Error> {
    match ip {
        IpAddr::V4(ip) => gratuitous_arp(index, mac, ip),
        IpAddr::V6(ip) => unsolicited_advertisement(index, mac, ip),
    }
}

/// Some stacks update their cache on requests only, others on replies only, so both are sent.
fn gratuitous_arp(index: u32, mac: Mac, ip: Ipv4Addr) -> Result<(), Error> {
    let socket = ArpSocket::open(index)?;
    let request =
        Packet { kind: Kind::Request, sender_mac: mac, sender: ip, target_mac: [0; 6], target: ip };
    let reply = Packet { kind: Kind::Reply, target_mac: mac, ..request.clone() };
    for _ in 0..REPEATS {
        socket.send(&request)?;
        socket.send(&reply)?;
    }
    Ok(())
}

fn unsolicited_advertisement(index: u32, mac: Mac, ip: Ipv6Addr) -> Result<(), Error> {
    let send = || -> rustix::io::Result<()> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(ipproto::ICMPV6);
        let socket = socket_with(AddressFamily::INET6, SocketType::RAW, flags, protocol)?;
        bind(&socket, &SocketAddrV6::new(ip, 0, 0, index))?;
        // Receivers drop neighbour discovery with any other hop limit, as it crossed a router.
        sockopt::set_ipv6_multicast_hops(&socket, 255)?;
        sockopt::set_ipv6_multicast_if(&socket, index)?;
        let message = advertisement(mac, ip);
        for _ in 0..REPEATS {
            let to = SocketAddrV6::new(ALL_NODES, 0, 0, index);
            sendto(&socket, &message, SendFlags::empty(), &to)?;
        }
        Ok(())
    };
    send().map_err(kernel("send", format!("a neighbour advertisement for {ip}")))
}

/// The kernel fills in the checksum (bytes 2 and 3).
fn advertisement(mac: Mac, ip: Ipv6Addr) -> [u8; 32] {
    let mut message = [0; 32];
    message[0] = NEIGHBOUR_ADVERTISEMENT;
    message[4] = FLAG_OVERRIDE;
    message[8..24].copy_from_slice(&ip.octets());
    message[24] = OPTION_TARGET_LINK_ADDRESS;
    // Length of the option in units of eight bytes.
    message[25] = 1;
    message[26..32].copy_from_slice(&mac);
    message
}
