//! What serving needs of the whole process: no umask, and all the descriptors it may have.
//!
//! Nothing about memory or priority; the program that embeds the server decides that.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Prepares the process. Harmless when repeated.
pub fn prepare() {
    // Modes arrive with the caller's umask already applied.
    umask(Mode::empty());
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Fails only when it cannot be raised; what there is must do then.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
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
