//! ICMP echo over raw sockets: questions to machines, and their answers.
//!
//! No statistics, no retries, no names. An answer counts only if it repeats what was drawn at
//! random for this socket, so that nobody who does not see the questions can answer them.

use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom, sendto,
    socket_with,
};

use crate::error::{Error, kernel};
use crate::route::Gateway;

const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Type, code, checksum, identifier, number, and what only an answer repeats.
const LENGTH: usize = 16;

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Whose.
    pub from: IpAddr,
    /// The number of the question.
    pub sequence: u16,
}

/// Asks and listens, in the network namespace in which it was opened.
pub struct Pinger {
    v4: OwnedFd,
    /// None where the kernel has no version 6.
    v6: Option<OwnedFd>,
    token: u64,
}

impl Pinger {
    /// Opens the sockets; `token` is to be unpredictable.
    ///
    /// # Errors
    /// Without the right to open raw sockets.
    pub fn open(token: u64) -> Result<Pinger, Error> {
        let open = |family, protocol| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            socket_with(family, SocketType::RAW, flags, Some(protocol))
        };
        let v4 = open(AddressFamily::INET, ipproto::ICMP)
            .map_err(kernel("open", "a raw socket for pings"))?;
        let v6 = open(AddressFamily::INET6, ipproto::ICMPV6).ok();
        Ok(Pinger { v4, v6, token })
    }

    /// Asks once.
    ///
    /// # Errors
    /// When nothing can be sent: there is no route, or the cable is out.
    pub fn ask(&self, target: Gateway, sequence: u16) -> Result<(), Error> {
        let question = question(target.address.is_ipv6(), self.token, sequence);
        let flags = SendFlags::DONTWAIT;
        let sent = match (target.address, &self.v6) {
            (IpAddr::V4(ip), _) => sendto(&self.v4, &question, flags, &SocketAddrV4::new(ip, 0)),
            (IpAddr::V6(ip), Some(v6)) => {
                let scope = if ip.is_unicast_link_local() { target.index } else { 0 };
                sendto(v6, &question, flags, &SocketAddrV6::new(ip, 0, 0, scope))
            }
            (IpAddr::V6(_), None) => Err(Errno::AFNOSUPPORT),
        };
        sent.map(drop).map_err(kernel("ping", target.address.to_string()))
    }

    /// The next answer, or `None` when `until` comes first.
    ///
    /// # Errors
    /// When the kernel gives nothing to read any more.
    pub fn hear(&self, until: Instant) -> Result<Option<Echo>, Error> {
        let failed = || kernel("receive", "answers to pings");
        loop {
            for socket in [Some(&self.v4), self.v6.as_ref()].into_iter().flatten() {
                if let Some(echo) = self.take(socket).map_err(failed())? {
                    return Ok(Some(echo));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            let sockets = [Some(&self.v4), self.v6.as_ref()];
            let mut fds: Vec<PollFd<'_>> = sockets
                .into_iter()
                .flatten()
                .map(|socket| PollFd::new(socket, PollFlags::IN))
                .collect();
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(Errno::INTR) if Instant::now() < until => {}
                Ok(_) | Err(Errno::INTR) => return Ok(None),
                Err(error) => return Err(failed()(error)),
            }
        }
    }

    /// The first answer among what waits at a socket, as far as it waits; what else comes there,
    /// such as answers to the pings of others, is passed over.
    fn take(&self, socket: &OwnedFd) -> Result<Option<Echo>, Errno> {
        for _ in 0..PASSED_OVER_MAX {
            let mut packet = [0; 256];
            match recvfrom(socket, &mut packet[..], RecvFlags::DONTWAIT) {
                Ok((length, _, from)) => {
                    let from = from.and_then(|from| std::net::SocketAddr::try_from(from).ok());
                    let Some(from) = from.map(|from| from.ip()) else { continue };
                    let packet = packet.get(..length).unwrap_or_default();
                    if let Some(sequence) = answer(from.is_ipv6(), self.token, packet) {
                        return Ok(Some(Echo { from, sequence }));
                    }
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// So many other packets are read before the caller is given a chance to look at the time.
const PASSED_OVER_MAX: usize = 64;

fn timespec(duration: Duration) -> Timespec {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: duration.subsec_nanos().into() }
}

fn question(v6: bool, token: u64, sequence: u16) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[0] = if v6 { ECHO_V6 } else { ECHO };
    bytes[4..6].copy_from_slice(&identifier(token).to_be_bytes());
    bytes[6..8].copy_from_slice(&sequence.to_be_bytes());
    bytes[8..].copy_from_slice(&token.to_be_bytes());
    // Of version 6 the kernel computes it, as it covers addresses.
    if !v6 {
        let sum = checksum(&bytes);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// The number of the question that a packet answers, if it answers one of ours.
fn answer(v6: bool, token: u64, packet: &[u8]) -> Option<u16> {
    let (reply, body) = if v6 {
        (ECHO_REPLY_V6, packet)
    } else {
        // The header of IP comes along: its length is in words, in half of its first byte.
        let header = usize::from(packet.first()? & 0x0f) * 4;
        (ECHO_REPLY, packet.get(header..)?)
    };
    let body: &[u8; LENGTH] = body.first_chunk()?;
    let own = body[4..6] == identifier(token).to_be_bytes() && body[8..] == token.to_be_bytes();
    (own && body[..2] == [reply, 0]).then(|| u16::from_be_bytes([body[6], body[7]]))
}

fn identifier(token: u64) -> u16 {
    (token >> 48) as u16
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|two| {
        u32::from(two.first().copied().unwrap_or(0)) << 8
            | u32::from(two.get(1).copied().unwrap_or(0))
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: u64 = 0x1234_5678_9abc_def0;

    fn reply(v6: bool, token: u64, sequence: u16) -> Vec<u8> {
        let mut bytes = question(v6, token, sequence).to_vec();
        bytes[0] = if v6 { ECHO_REPLY_V6 } else { ECHO_REPLY };
        if v6 {
            return bytes;
        }
        let mut packet = vec![0x45; 20];
        packet.extend(bytes);
        packet
    }

    #[test]
    fn an_answer_repeats_what_was_asked() {
        for v6 in [false, true] {
            assert_eq!(answer(v6, TOKEN, &reply(v6, TOKEN, 7)), Some(7));
            assert_eq!(answer(v6, TOKEN, &reply(v6, TOKEN + 1, 7)), None);
            let whole = reply(v6, TOKEN, 7);
            for length in 0..whole.len() {
                assert_eq!(answer(v6, TOKEN, &whole[..length]), None);
            }
        }
        // One's own question, as a machine that pings itself sees it.
        assert_eq!(answer(true, TOKEN, &question(true, TOKEN, 7)), None);
    }

    #[test]
    fn a_question_adds_up_to_nothing() {
        assert_eq!(checksum(&question(false, TOKEN, 0xfffe)), 0);
        assert_eq!(checksum(&[0xff, 0xff, 0xff]), !0xff00);
    }
}
