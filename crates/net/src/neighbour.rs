//! Asking the wire who has an address of version 6.
//!
//! It answers nothing (the kernel does) and keeps no cache. What version 4 has for this is `arp`.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{ipproto, recv, sendto, socket_with, sockopt};

use crate::error::{Error, kernel};
use crate::link::Mac;

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE_LINK_ADDRESS: u8 = 1;
const OPTION_TARGET_LINK_ADDRESS: u8 = 2;
/// Receivers drop neighbour discovery with any other, as it crossed a router.
const HOPS: u8 = 255;

/// A socket for neighbour discovery on one interface.
pub(crate) struct DiscoverySocket {
    socket: OwnedFd,
    index: u32,
}

impl DiscoverySocket {
    /// Opens a socket that asks on interface number `index`.
    pub(crate) fn open(index: u32) -> Result<Self, Error> {
        let open = || -> rustix::io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let protocol = Some(ipproto::ICMPV6);
            let socket = socket_with(AddressFamily::INET6, SocketType::RAW, flags, protocol)?;
            sockopt::set_ipv6_multicast_hops(&socket, HOPS.into())?;
            sockopt::set_ipv6_multicast_if(&socket, index)?;
            Ok(socket)
        };
        let socket = open().map_err(kernel("open", "a socket for neighbour discovery"))?;
        Ok(Self { socket, index })
    }

    /// Asks who has an address.
    pub(crate) fn ask(&self, own: Mac, target: Ipv6Addr) -> Result<(), Error> {
        let [.., x, y, z] = target.octets();
        // All whose addresses end alike listen at one group.
        let group = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z];
        let to = SocketAddrV6::new(Ipv6Addr::from(group), 0, 0, self.index);
        sendto(&self.socket, &question(own, target), SendFlags::empty(), &to)
            .map(drop)
            .map_err(kernel("send", format!("a question for {target}")))
    }

    /// Who says until then that it has the address, first.
    pub(crate) fn answer(&self, target: Ipv6Addr, until: Instant) -> Result<Option<Mac>, Error> {
        let failed = || kernel("receive", "neighbour advertisements");
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(failed()(error)),
            }
            let mut message = [0; 256];
            match recv(&self.socket, &mut message, RecvFlags::empty()) {
                Ok((length, _)) => {
                    let message = message.get(..length).unwrap_or_default();
                    if let Some(mac) = owner(message, target) {
                        return Ok(Some(mac));
                    }
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(failed()(error)),
            }
        }
    }
}

/// The kernel fills in the checksum (bytes 2 and 3).
fn question(own: Mac, target: Ipv6Addr) -> [u8; 32] {
    let mut message = [0; 32];
    message[0] = SOLICITATION;
    message[8..24].copy_from_slice(&target.octets());
    // The option's length is in units of eight bytes.
    message[24..26].copy_from_slice(&[OPTION_SOURCE_LINK_ADDRESS, 1]);
    message[26..32].copy_from_slice(&own);
    message
}

/// Who has the address, if this is an advertisement of it.
fn owner(message: &[u8], target: Ipv6Addr) -> Option<Mac> {
    let message: &[u8; 32] = message.first_chunk()?;
    let about = message[0] == ADVERTISEMENT && message[8..24] == target.octets();
    let option = message[24..26] == [OPTION_TARGET_LINK_ADDRESS, 1];
    (about && option).then(|| std::array::from_fn(|at| message[26 + at]))
}

fn timespec(duration: Duration) -> Timespec {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_advertisements_of_the_address_count() {
        let target = Ipv6Addr::LOCALHOST;
        let mut message = question([2, 0, 0, 0, 0, 1], target);
        assert_eq!(owner(&message, target), None);
        message[0] = ADVERTISEMENT;
        message[24] = OPTION_TARGET_LINK_ADDRESS;
        assert_eq!(owner(&message, target), Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(owner(&message, Ipv6Addr::UNSPECIFIED), None);
        assert_eq!(owner(&message[..31], target), None);
    }
}
