//! Network namespaces: making them and running code inside them.
//!
//! A namespace lives as long as its file descriptor, an interface's peer or a process in it; it
//! gets no name in the file system. The calling thread never changes its own namespace.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::error::{Error, kernel};
use crate::link::Netlink;

/// Network namespaces.
pub struct NetNs;

impl NetNs {
    /// Creates an empty namespace, kept by the descriptor; even its `lo` is down.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create() -> Result<OwnedFd, Error> {
        on_fresh_thread(|| {
            unshare_network().map_err(kernel("create", "a network namespace"))?;
            Self::current()
        })?
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> Result<OwnedFd, Error> {
        let path = "/proc/thread-self/ns/net";
        Ok(File::open(path).map_err(kernel("open", path))?.into())
    }

    /// Sets up `lo` in a namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_loopback_up(namespace: BorrowedFd<'_>) -> Result<(), Error> {
        enter(namespace, || Netlink::open()?.set_up("lo"))?
    }
}

/// Runs `work` on a fresh thread inside a namespace, waits for it and returns its result. A panic
/// of `work` goes on in the caller.
///
/// # Errors
/// When the thread cannot be made or may not enter; `work` has not run then.
pub fn enter<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Error> {
    on_fresh_thread(|| {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
            .map_err(kernel("enter", "a network namespace"))?;
        Ok(work())
    })?
}

fn on_fresh_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("namespace".into())
            .spawn_scoped(scope, work)
            .map_err(kernel("start", "a thread for a network namespace"))?;
        thread.join().or_else(|panic| resume_unwind(panic))
    })
}

#[allow(unsafe_code, reason = "unshare is unsafe because of flags that are not used here")]
fn unshare_network() -> rustix::io::Result<()> {
    // SAFETY: only the network namespace of this fresh thread changes; neither the file table nor
    // memory, which other code could rely on, is unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}
