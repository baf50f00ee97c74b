//! The address plan: which names, addresses and hardware addresses the hosts of a lab have. Pure
//! arithmetic on positions; nothing is configured here.

use std::net::{IpAddr, Ipv4Addr};

/// Name of the host that holds the bridges.
pub const SWITCH: &str = "switch";
/// Length of the network part of every address, in bits.
pub const PREFIX: u8 = 24;
/// Longest name that the kernel gives an interface, in bytes.
pub(crate) const INTERFACE_NAME_MAX: usize = 15;
/// Most networks of one lab.
pub(crate) const NETWORKS_MAX: usize = 16;
/// Most hosts of one lab.
pub(crate) const HOSTS_MAX: usize = 100;
/// Last byte of the first host's addresses.
const FIRST_HOST: u8 = 11;

/// The address of a host on a network, both counted from 0: `10.77.NETWORK.(11 + HOST)`.
pub fn address(network: usize, host: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, low(network), FIRST_HOST.saturating_add(low(host))))
}

/// A free address of a network for virtual IPs: `10.77.NETWORK.(200 + NUMBER)`.
pub fn virtual_address(network: usize, number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, low(network), 200_u8.saturating_add(low(number))))
}

/// The hardware address of a host on a network: it stays the same when the host is booted again,
/// as a machine's does, so that its neighbours need not forget it.
pub(crate) fn hardware_address(network: usize, host: usize) -> [u8; 6] {
    [0x02, 0x4b, 0x45, 0, low(network), FIRST_HOST.saturating_add(low(host))]
}

/// The switch's end of the cable between a host and a network.
pub(crate) fn port(host: &str, network: &str) -> String {
    format!("{host}-{network}")
}

/// Positions are limited when the lab is described, so nothing is cut off here.
fn low(position: usize) -> u8 {
    u8::try_from(position).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_the_plan() {
        assert_eq!(address(0, 0).to_string(), "10.77.0.11");
        assert_eq!(address(1, 2).to_string(), "10.77.1.13");
        assert_eq!(virtual_address(0, 1).to_string(), "10.77.0.201");
        assert_eq!(port("node1", "lan0"), "node1-lan0");
        assert_ne!(hardware_address(0, 1), hardware_address(1, 0));
    }
}
