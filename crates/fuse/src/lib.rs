//! The protocol of /dev/fuse: decoding requests, sending answers, negotiating, mounting.
//!
//! A thin layer that knows neither replication nor a file tree. It uses one descriptor shared by
//! a few threads with plain reads and writes; neither clones of the descriptor nor io_uring,
//! because neither survives a change of the serving process.

pub mod abi;
mod answer;
mod connection;
mod cursor;
mod decode;
mod features;
mod mount;
pub mod reply;
mod request;

pub use answer::{Answer, Settled};
pub use connection::{Connection, Protocol};
pub use features::Features;
pub use mount::{FILE_SYSTEM_TYPE, MountError, MountOptions, detach, mount_at};
pub use request::{Forgets, InitRequest, Moment, Operation, ParseError, Request, SetAttr};
pub use rustix::io::Errno;

/// Node id of the root of a mount.
pub const ROOT: u64 = 1;
