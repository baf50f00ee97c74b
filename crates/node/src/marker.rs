//! Markers: an attribute on each replicated root that says whose data it holds.
//!
//! A record on the system disk cannot tell whether the data disk is mounted, replaced or restored;
//! a marker on the data itself can. Its epoch may lag, as the record is written first.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use model::{EpochId, ModuleName};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

/// Name of the attribute; readable and writable by root alone, hidden on the mount.
const ATTRIBUTE: &str = "trusted.evenkeel";

/// Name of the attribute that is renewed with each checkpoint.
const SEAL: &str = "trusted.evenkeel.seal";

/// Set and removed again, to see whether a disk takes changes.
const PROBE: &str = "trusted.evenkeel.probe";

/// Longest value accepted, in bytes.
const MARKER_BYTES_MAX: usize = 4096;

/// What a root says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// Module.
    pub(crate) module: ModuleName,
    /// Identity of the module's data.
    pub(crate) root: u128,
    /// Position of the directory in the module's configuration.
    pub(crate) index: usize,
    /// Epoch.
    pub(crate) epoch: EpochId,
}

/// Reads the marker of a directory.
pub(crate) fn read(path: &Path) -> io::Result<Option<Marker>> {
    let mut value = vec![0; MARKER_BYTES_MAX];
    match rustix::fs::getxattr(path, ATTRIBUTE, &mut value[..]) {
        Ok(length) => {
            let text = &value[..length];
            let marker = serde_json::from_slice(text).map_err(|error| {
                io::Error::other(format!("the marker {ATTRIBUTE} is damaged: {error}"))
            })?;
            Ok(Some(marker))
        }
        Err(rustix::io::Errno::NODATA) => Ok(None),
        Err(rustix::io::Errno::NOTSUP) => Err(io::Error::other(
            "the file system has no trusted attributes; use ext4, xfs or btrfs",
        )),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes the marker of a directory, durably.
pub(crate) fn write(path: &Path, marker: &Marker) -> io::Result<()> {
    let text = serde_json::to_vec(marker).map_err(io::Error::other)?;
    rustix::fs::setxattr(path, ATTRIBUTE, &text, rustix::fs::XattrFlags::empty())?;
    std::fs::File::open(path)?.sync_all()
}

/// Removes the marker of a directory and its seal, durably.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    for name in [ATTRIBUTE, SEAL] {
        match rustix::fs::removexattr(path, name) {
            Ok(()) | Err(rustix::io::Errno::NODATA) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    std::fs::File::open(path)?.sync_all()
}

/// The seal of a root; none when it carries none, or something that is none.
pub(crate) fn read_seal(directory: impl AsFd) -> rustix::io::Result<Option<u128>> {
    let mut value = [0; size_of::<u128>()];
    match rustix::fs::fgetxattr(directory, SEAL, &mut value[..]) {
        Ok(length) => Ok((length == value.len()).then(|| u128::from_le_bytes(value))),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::RANGE) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Sets the seal of a root; it becomes durable with the next sync.
pub(crate) fn write_seal(directory: impl AsFd, seal: u128) -> rustix::io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(directory, SEAL, &seal.to_le_bytes(), flags)
}

/// Whether the file system takes a change and makes it durable. A full one counts as one that does,
/// for what is missing there may come to be removed.
pub(crate) fn probe(directory: impl AsFd) -> rustix::io::Result<()> {
    // Not through the path, on which something else is mounted by now.
    let opened =
        rustix::fs::openat(directory, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::fsetxattr(&opened, PROBE, b"", rustix::fs::XattrFlags::empty()) {
        Ok(()) => {
            rustix::fs::fsync(&opened)?;
            rustix::fs::fremovexattr(&opened, PROBE)
        }
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Ok(()),
        Err(errno) => Err(errno),
    }
}
