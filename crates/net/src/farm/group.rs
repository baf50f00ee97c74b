//! The hardware address that all nodes of a farm receive, for multicast delivery.
//!
//! It is never the source of a frame, so that no switch learns where it is and all flood it.

use std::net::IpAddr;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::{Error, kernel};
use crate::link::Mac;

/// The group of a virtual address: locally administered, and its last four bytes.
pub(super) fn mac(ip: IpAddr) -> Mac {
    let octets = super::dispatch::octets(ip);
    let mut mac = [0x03, 0xbf, 0, 0, 0, 0];
    for (to, from) in mac.iter_mut().rev().zip(octets.iter().rev()).take(4) {
        *to = *from;
    }
    mac
}

/// Lets the device receive the group; that it does already is success.
pub(super) fn join(device: &str, mac: Mac) -> Result<(), Error> {
    change(libc::SIOCADDMULTI, device, mac)
        .map_err(kernel("receive", format!("{} on interface \"{device}\"", text(mac))))
}

/// Lets the device no longer receive the group; that it does not is success.
pub(super) fn leave(device: &str, mac: Mac) -> Result<(), Error> {
    match change(libc::SIOCDELMULTI, device, mac) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        result => {
            result.map_err(kernel("leave", format!("{} on interface \"{device}\"", text(mac))))
        }
    }
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[allow(unsafe_code, reason = "no wrapper knows this request of sockets")]
fn change(request: libc::c_ulong, device: &str, mac: Mac) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().take(libc::IFNAMSIZ - 1).zip(device.bytes()) {
        *to = from.cast_signed();
    }
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().zip(mac) {
        *to = from.cast_signed();
    }
    let address = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: data };
    let ifru = libc::__c_anonymous_ifr_ifru { ifru_hwaddr: address };
    let mut message = libc::ifreq { ifr_name: name, ifr_ifru: ifru };
    // SAFETY: the message is a live ifreq, which is what this request reads; the descriptor is open
    // for the duration of the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut message) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_told_apart_by_the_end_of_the_address() {
        assert_eq!(mac(IpAddr::from([10, 9, 0, 50])), [3, 0xbf, 10, 9, 0, 50]);
        let ip: IpAddr = [0xfd09, 0, 0, 0, 0, 0, 0x1234, 0x50].into();
        assert_eq!(mac(ip), [3, 0xbf, 0x12, 0x34, 0, 0x50]);
    }
}
