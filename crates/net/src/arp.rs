//! ARP for version 4 addresses on Ethernet: frames and the packet socket that carries them.
//!
//! It answers nothing (the kernel does) and keeps no cache.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::{Error, kernel};
use crate::link::Mac;

const BROADCAST: Mac = [0xff; 6];
const FRAME_LENGTH: usize = 42;

/// Whether a frame asks or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request = 1,
    Reply = 2,
}

/// An ARP packet, always sent to all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) kind: Kind,
    pub(crate) sender_mac: Mac,
    pub(crate) sender: Ipv4Addr,
    pub(crate) target_mac: Mac,
    pub(crate) target: Ipv4Addr,
}

impl Packet {
    /// The Ethernet frame.
    pub(crate) fn encode(&self) -> [u8; FRAME_LENGTH] {
        let mut frame = [0; FRAME_LENGTH];
        frame[0..6].copy_from_slice(&BROADCAST);
        frame[6..12].copy_from_slice(&self.sender_mac);
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        // Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
        frame[14..20].copy_from_slice(&[0, 1, 0x08, 0x00, 6, 4]);
        frame[21] = self.kind as u8;
        frame[22..28].copy_from_slice(&self.sender_mac);
        frame[28..32].copy_from_slice(&self.sender.octets());
        frame[32..38].copy_from_slice(&self.target_mac);
        frame[38..42].copy_from_slice(&self.target.octets());
        frame
    }

    /// Reads an Ethernet frame; `None` for anything but ARP for IPv4 on Ethernet.
    pub(crate) fn decode(frame: &[u8]) -> Option<Self> {
        let frame: &[u8; FRAME_LENGTH] = frame.first_chunk()?;
        if frame[12..21] != [0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0] {
            return None;
        }
        let mac = |at: usize| -> Mac { std::array::from_fn(|i| frame[at + i]) };
        let ip = |at: usize| Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|i| frame[at + i]));
        Some(Self {
            kind: match frame[21] {
                1 => Kind::Request,
                2 => Kind::Reply,
                _ => return None,
            },
            sender_mac: mac(22),
            sender: ip(28),
            target_mac: mac(32),
            target: ip(38),
        })
    }
}

/// A packet socket for ARP on one interface.
pub(crate) struct ArpSocket {
    socket: OwnedFd,
}

impl ArpSocket {
    /// Opens a socket on interface number `index`.
    pub(crate) fn open(index: u32) -> Result<Self, Error> {
        let object = || format!("an ARP socket on interface number {index}");
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Without a protocol it hears nothing until it is bound to one interface.
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
            .map_err(kernel("open", object()))?;
        bind(&socket, index).map_err(kernel("bind", object()))?;
        Ok(Self { socket })
    }

    /// Sends one packet.
    pub(crate) fn send(&self, packet: &Packet) -> Result<(), Error> {
        rustix::io::write(&self.socket, &packet.encode())
            .map(drop)
            .map_err(kernel("send", format!("an ARP packet for {}", packet.target)))
    }

    /// The next packet from the wire, or `None` when `until` comes first.
    pub(crate) fn receive(&self, until: Instant) -> Result<Option<Packet>, Error> {
        let failed = || kernel("receive", "ARP packets");
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(failed()(error)),
            }
            let mut frame = [0; 128];
            match rustix::io::read(&self.socket, &mut frame) {
                Ok(length) => {
                    if let Some(packet) = Packet::decode(&frame[..length]) {
                        return Ok(Some(packet));
                    }
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(failed()(error)),
            }
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: duration.subsec_nanos().into() }
}

#[allow(unsafe_code, reason = "no wrapper knows the address type of packet sockets")]
fn bind(socket: &OwnedFd, index: u32) -> std::io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: i32::try_from(index).map_err(std::io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer is to a live sockaddr_ll and the length is its size; the descriptor is
    // open for the duration of the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_survives_its_frame() {
        let packet = Packet {
            kind: Kind::Reply,
            sender_mac: [2, 0, 0, 0, 0, 1],
            sender: Ipv4Addr::new(10, 0, 0, 50),
            target_mac: [0xff; 6],
            target: Ipv4Addr::new(10, 0, 0, 51),
        };
        let frame = packet.encode();
        assert_eq!(Packet::decode(&frame), Some(packet));
        assert_eq!(Packet::decode(&frame[..41]), None);
        let mut other = frame;
        other[13] = 0;
        assert_eq!(Packet::decode(&other), None);
    }
}
