//! Serves a replicated directory over itself, and hands every change to a recorder in order.
//!
//! The directory is opened first and then mounted over; from then on it is reached only by
//! descriptor. What becomes of a change, and when its caller is answered, is the recorder's
//! business: nothing here knows the peer, its protocol or the rules of replication.
//!
//! # What is served
//!
//! | Request | Answer |
//! |---|---|
//! | lookup, forget, getattr, statx, setattr, readlink | done |
//! | symlink, mknod, mkdir, unlink, rmdir | done |
//! | rename with `RENAME_NOREPLACE` and `RENAME_EXCHANGE`, link | done |
//! | rename with `RENAME_WHITEOUT` | `EINVAL` |
//! | open, create, read, write, fallocate, lseek, release, shared writable mappings | done |
//! | fsync, fdatasync, fsync of directories, O_SYNC, O_DSYNC, msync | done |
//! | statfs, opendir, readdir, readdirplus, releasedir | done |
//! | extended attributes `user.*`, `trusted.*`, `security.*` | done |
//! | `trusted.evenkeel*` | not shown (`ENODATA`), not settable (`EPERM`) |
//! | `system.posix_acl_*` (POSIX ACLs) | `EOPNOTSUPP`: the kernel would not enforce them |
//! | anything that leads into another file system mounted below | `EXDEV` |
//! | flush, access, locks, poll | `ENOSYS`: the kernel does these alone |
//! | copy_file_range | `ENOSYS`: the kernel copies by reading and writing |
//! | O_TMPFILE | `ENOSYS`: the caller gets `EOPNOTSUPP` |
//! | bmap, syncfs, DAX mappings | `ENOSYS` |
//! | ioctl | `ENOTTY` |
//! | interrupt | ignored: a change cannot be taken back |

pub mod backing;
mod mounts;
mod process;
mod record;
mod serve;
mod tree;

pub use mounts::{
    below, has_read_only_bind, read_only_bind, remove_leftovers, undo_read_only_bind,
};
pub use process::prepare;
pub use record::{After, Gate, Immediate, Order, Recorder};
pub use serve::Serving;
pub use tree::{Tree, TreeError};
