//! Changing the backing store as the caller of a request.
//!
//! Whose a new file is, whose quota is charged and who may use the blocks that are reserved for
//! root is decided by the file system, by the ids of the thread that asks. What the caller may do
//! has been checked by the kernel above, so all privileges stay but the one that lifts limits. The
//! recorder is never called in here: what it writes is not the caller's.
//!
//! Changing its identity costs a thread more than a write does, so one that wrote for somebody
//! stays in that place until it does something for which that matters.

use std::cell::{Cell, OnceCell};

use fuse::Request;
use rustix::fs::Mode;
use rustix::process::umask;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

thread_local! {
    /// What this thread may do when it is itself.
    static OWN: OnceCell<Option<CapabilitySets>> = const { OnceCell::new() };
    /// The caller in whose place this thread still is after writing for it; 0 when it is itself.
    static KEPT: Cell<u32> = const { Cell::new(0) };
}

/// The calling thread in the place of a caller, until it is dropped.
struct Place {
    uid: u32,
    gid: u32,
    masked: bool,
}

/// Applies a change as the caller. For root it costs nothing.
pub(super) fn as_caller<T>(request: &Request<'_>, change: impl FnOnce() -> T) -> T {
    as_masked_caller(request, 0, change)
}

/// As `as_caller`, for creating something under the caller's umask.
pub(super) fn as_masked_caller<T>(
    request: &Request<'_>,
    mask: u32,
    change: impl FnOnce() -> T,
) -> T {
    let _place = Place::take(request.uid, request.gid, mask);
    change()
}

/// Writes as the caller, as far as limits are concerned: into a file that is open already, so
/// that nothing comes to belong to anybody. The thread stays in that place.
pub(super) fn as_writer<T>(request: &Request<'_>, write: impl FnOnce() -> T) -> T {
    let uid = request.uid;
    if KEPT.get() != uid {
        be_self();
        if uid != 0 {
            set_caller(uid);
            KEPT.set(uid);
        }
    }
    write()
}

/// Leaves the place of whoever was written for.
pub(crate) fn be_self() {
    if KEPT.replace(0) != 0 {
        set_self();
    }
}

fn set_caller(uid: u32) {
    let own = OWN.with(|own| *own.get_or_init(|| capabilities(None).ok()));
    set_user(uid);
    if let Some(mut sets) = own {
        sets.effective.remove(CapabilitySet::SYS_RESOURCE);
        // Cannot fail: what is given up was held.
        let _ = set_capabilities(None, sets);
    }
}

fn set_self() {
    set_user(0);
    if let Some(sets) = OWN.with(|own| own.get().copied().flatten()) {
        let _ = set_capabilities(None, sets);
    }
}

impl Place {
    fn take(uid: u32, gid: u32, mask: u32) -> Place {
        be_self();
        if mask != 0 {
            umask(Mode::from_raw_mode(mask & 0o777));
        }
        if gid != 0 {
            set_group(gid);
        }
        if uid != 0 {
            set_caller(uid);
        }
        Place { uid, gid, masked: mask != 0 }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.uid != 0 {
            set_self();
        }
        if self.gid != 0 {
            set_group(0);
        }
        if self.masked {
            umask(Mode::empty());
        }
    }
}

#[allow(unsafe_code, reason = "setfsuid has no safe wrapper")]
fn set_user(uid: u32) {
    // SAFETY: it takes a number and changes the calling thread alone.
    unsafe { libc::setfsuid(uid) };
}

#[allow(unsafe_code, reason = "setfsgid has no safe wrapper")]
fn set_group(gid: u32) {
    // SAFETY: it takes a number and changes the calling thread alone.
    unsafe { libc::setfsgid(gid) };
}
