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
//! | rename with `RENAME_NOREPLACE`, `RENAME_EXCHANGE` and `RENAME_WHITEOUT`, link | done |
//! | O_TMPFILE, and linking it | done; told to the recorder when it gets a name |
//! | open, create, read, write, fallocate, lseek, release, shared writable mappings | done |
//! | fallocate that collapses or inserts a range | `EOPNOTSUPP`, by the kernel alone |
//! | fsync, fdatasync, fsync of directories, O_SYNC, O_DSYNC, msync | done |
//! | statfs, opendir, readdir, readdirplus, releasedir | done |
//! | extended attributes `user.*`, `trusted.*`, `security.*` | done |
//! | `trusted.evenkeel*` | not shown (`ENODATA`), not settable (`EPERM`) |
//! | `system.posix_acl_*` (POSIX ACLs) | done; the kernel keeps and enforces them |
//! | the same where the kernel or the store has none | `EOPNOTSUPP`: nobody would enforce them |
//! | anything that leads into another file system mounted below | `EXDEV` |
//! | flush, access, locks, poll | `ENOSYS`: the kernel does these alone |
//! | copy_file_range | `ENOSYS`: the kernel reads and writes, as the peer needs it anyway |
//! | bmap, DAX mappings | `ENOSYS` |
//! | syncfs | `ENOSYS`; the kernel asks no server of this kind, see docs/semantics.md |
//! | ioctl, such as flags, project ids and encryption | `ENOTTY` |
//! | a kind of request that is not known | `ENOSYS` |
//! | interrupt | ignored: a change cannot be taken back |
//! | init, destroy, an answer to a notification | what the protocol wants |
//!
//! Changes are applied under the caller's ids and umask, without the privilege to exceed limits:
//! owners, inherited groups and ACLs, quotas and reserved blocks are the file system's business.

pub mod backing;
mod estate;
mod mounts;
mod openers;
mod process;
mod record;
mod serve;
mod tree;
mod unfit;
mod ways;

pub use estate::{ESTATE_BYTES, Estate, Holder};
pub use mounts::{
    below, has_read_only_bind, read_only_bind, remove_leftovers, undo_read_only_bind,
};
pub use openers::{Has, Opener, openers};
pub use process::prepare;
pub use record::{After, Gate, Immediate, Order, Recorder};
pub use serve::Serving;
pub use tree::{Tree, TreeError};
pub use unfit::unfit;
pub use ways::{Way, ways};
