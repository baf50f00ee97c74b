//! What serving needs of the process and its threads: no umask, all the descriptors there may be,
//! files of any size.
//!
//! How much memory or which priority it has, the program that embeds the server decides.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Prepares the process. Harmless when repeated.
pub fn prepare() {
    // Modes are those of the caller.
    umask(Mode::empty());
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Fails only when it cannot be raised; what there is must do then.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    // A caller's limit is the kernel's business. Ours is lifted as far as possible; what is left
    // of it must fail a write and not end us. A handler is not inherited by other programs, as
    // ignoring the signal would be.
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    let lifted = setrlimit(Resource::Fsize, Rlimit { current: None, maximum: None });
    let _ = lifted.or_else(|_| setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }));
    survive_file_size_limit();
}

/// Has memory that was freed go back to the system, which the allocator keeps as long as something
/// lies beyond it. It takes a while, so not on the caller's thread.
pub(crate) fn give_memory_back() {
    // Without the thread it stays here for later use.
    let _ = std::thread::Builder::new().name("trim".to_owned()).spawn(trim);
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "the allocator's own function has no safe wrapper")]
fn trim() {
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

extern "C" fn nothing(_signal: libc::c_int) {}

#[allow(unsafe_code, reason = "handling a signal has no safe wrapper")]
fn survive_file_size_limit() {
    let handler = nothing as extern "C" fn(libc::c_int);
    // SAFETY: the action is valid when zeroed; the handler does nothing, so it may interrupt
    // anything, and calls that it interrupts are restarted.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGXFSZ, &raw const action, std::ptr::null_mut());
    }
}

/// Gives the calling thread a umask of its own.
#[allow(unsafe_code, reason = "unsharing the table of descriptors would be unsafe")]
pub(crate) fn own_umask() -> Result<(), rustix::io::Errno> {
    // SAFETY: root, working directory and umask are unshared, no descriptors.
    unsafe { unshare_unsafe(UnshareFlags::FS) }
}

/// Prepares a thread that the kernel may wait for when it wants to free memory: its own requests
/// for memory must not wait for that in turn, nor its writes for those that it is to carry out.
pub(crate) fn prepare_thread() {
    // Refused without CAP_SYS_RESOURCE; the danger then is slowness under want of memory.
    let _ = rustix::process::configure_io_flusher_behavior(true);
}

/// How many descriptors the process may have open.
pub(crate) fn descriptors_max() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}
