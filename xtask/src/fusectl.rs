//! The kernel's list of FUSE connections, and how to end one whose server is gone or stuck.
//!
//! Connections of other people are the caller's to leave alone.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// All connections there are, on whatever mount namespace; none without root.
pub fn connections() -> BTreeSet<u32> {
    let Ok(root) = control() else { return BTreeSet::new() };
    let entries = fs::read_dir(format!("/proc/self/fd/{}", root.as_fd().as_raw_fd()));
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

/// Ends a connection: all who wait for it get an error.
pub fn abort(connection: u32) {
    // One that is gone by now need not be ended.
    let Ok(root) = control() else { return };
    let name = format!("{connection}/abort");
    if let Ok(file) = openat(&root, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(&file, b"1");
    }
}

fn control() -> Result<OwnedFd, Errno> {
    let control = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(control.as_fd())?;
    fsmount(control.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}
