//! Whether a connection is accepted. Nothing is sent: that the server answers is not asked.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::Time;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::{Finding, Turn, is_ready};

/// A connection that is being made.
pub(super) struct Connecting {
    address: SocketAddr,
    socket: OwnedFd,
    /// Known already: what the kernel said at once.
    outcome: Option<Result<(), Errno>>,
    limit: Time,
}

impl Connecting {
    pub(super) fn begin(address: SocketAddr, limit: Time) -> io::Result<Connecting> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        let outcome = match connect(&socket, &address) {
            Err(Errno::INPROGRESS | Errno::INTR) => None,
            outcome => Some(outcome),
        };
        Ok(Connecting { address, socket, outcome, limit })
    }

    pub(super) fn turn(&mut self, now: Time) -> Turn {
        if self.outcome.is_none() && is_ready(&self.socket, PollFlags::OUT) {
            self.outcome = Some(sockopt::socket_error(&self.socket).and_then(|outcome| outcome));
        }
        let words = match self.outcome {
            Some(Ok(())) => return Turn::Ends(Some(Finding::Well)),
            Some(Err(errno)) => {
                format!("{}: {}", self.address, io::Error::from(errno))
            }
            // Whatever has come by now counts, so that a node that slept does not blame others.
            None if now >= self.limit => {
                format!("{} did not accept a connection in time", self.address)
            }
            None => return Turn::Waits,
        };
        Turn::Ends(Some(Finding::Failed(vec![words])))
    }

    pub(super) fn descriptors<'a>(&'a self, all: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        all.push((self.socket.as_fd(), PollFlags::OUT));
    }

    /// When the next turn is due at the latest.
    pub(super) fn deadline(&self) -> Time {
        if self.outcome.is_some() { Time::ZERO } else { self.limit }
    }
}
