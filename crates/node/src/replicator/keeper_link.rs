//! The replicator's side of its keeper: what a predecessor left, and what the next one will need.
//!
//! Without a keeper, as in tests, nothing is kept.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use mount::Holder;
use rustix::io::{FdFlags, fcntl_setfd};
use wire::local::{FromKeeper, Kept, ToKeeper};

use crate::packet;

/// The way to the keeper.
pub(super) struct KeeperLink {
    socket: Option<OwnedFd>,
}

/// What was kept, and how the replicator before this one ended.
#[derive(Default)]
pub(super) struct Left {
    pub(super) kept: BTreeMap<Kept, OwnedFd>,
    pub(super) ended: Option<String>,
}

impl Left {
    /// The files that were held for a tree, by node.
    pub(super) fn held(&mut self, tree: u16) -> Vec<(u64, OwnedFd)> {
        let (from, to) = (Kept::Held(tree, 0), Kept::Held(tree, u64::MAX));
        let all: Vec<Kept> = self.kept.range(from..=to).map(|(kept, _)| *kept).collect();
        let take = |kept| match kept {
            Kept::Held(_, node) => Some((node, self.kept.remove(&kept)?)),
            _ => None,
        };
        all.into_iter().filter_map(take).collect()
    }
}

impl KeeperLink {
    /// Hears from the keeper behind this descriptor what was kept.
    #[allow(unsafe_code, reason = "the descriptor is named on the command line")]
    pub(super) fn open(number: Option<RawFd>) -> io::Result<(Arc<KeeperLink>, Left)> {
        let Some(number) = number else {
            return Ok((Arc::new(KeeperLink { socket: None }), Left::default()));
        };
        // SAFETY: the keeper passes a descriptor on and names it; nothing else here owns it. If it
        // is none, the next call says so.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        let mut left = Left::default();
        loop {
            match packet::receive::<FromKeeper>(&socket)? {
                Some((FromKeeper::Kept(kept), Some(descriptor))) => {
                    left.kept.insert(kept, descriptor);
                }
                Some((FromKeeper::Kept(_), None)) => {}
                Some((FromKeeper::All { ended }, _)) => {
                    left.ended = ended;
                    return Ok((Arc::new(KeeperLink { socket: Some(socket) }), left));
                }
                None => return Err(io::Error::other("the keeper has ended")),
            }
        }
    }

    /// Waits until the keeper ends; for ever when there is none.
    pub(super) fn wait_for_end(&self) {
        let Some(socket) = &self.socket else { return };
        while let Ok(Some(_)) = packet::receive::<FromKeeper>(socket) {}
    }

    /// Whether there is a keeper at all.
    pub(super) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    pub(super) fn keep(&self, kept: Kept, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.send(&ToKeeper::Keep(kept), Some(descriptor))
    }

    pub(super) fn let_go(&self, kept: Kept) {
        // A keeper that has ended keeps nothing.
        let _ = self.send(&ToKeeper::LetGo(kept), None);
    }

    /// There is nothing to go on with from here on.
    pub(super) fn let_go_all(&self) {
        let _ = self.send(&ToKeeper::LetGoAll, None);
    }

    pub(super) fn resumed(&self) {
        let _ = self.send(&ToKeeper::Resumed, None);
    }

    fn send(&self, message: &ToKeeper, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        match &self.socket {
            Some(socket) => packet::send(&socket.as_fd(), message, descriptor),
            None => Ok(()),
        }
    }
}

impl Holder for KeeperLink {
    fn hold(&self, tree: u16, node: u64, file: BorrowedFd<'_>) {
        // Without a keeper there is no successor who would miss it.
        let _ = self.keep(Kept::Held(tree, node), file);
    }

    fn let_go(&self, tree: u16, node: u64) {
        self.let_go(Kept::Held(tree, node));
    }
}
