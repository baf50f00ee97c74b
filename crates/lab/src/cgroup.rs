//! The hosts' cgroups: found, made, frozen and removed. Only cgroup version 2; a machine without it
//! gets `None` and everything but freezing.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{During, Error, Result, cannot};

/// Directory of all labs below the root of the hierarchy.
const TOP: &str = "evenkeel-lab";
/// How long processes that were killed may take to leave their cgroup.
const EMPTY_SECONDS: u64 = 10;

/// Where cgroup version 2 is mounted, or `None`.
pub(crate) fn mount_point() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    find_mount_point(&text)
}

/// The directory of a lab's cgroups.
pub(crate) fn of_lab(lab: &str) -> Option<PathBuf> {
    Some(mount_point()?.join(TOP).join(lab))
}

/// Makes the cgroup of a host and returns its directory; `None` without cgroup version 2.
pub(crate) fn create(lab: &str, host: &str) -> Result<Option<PathBuf>> {
    let Some(dir) = of_lab(lab) else {
        return Ok(None);
    };
    let dir = dir.join(host);
    match fs::create_dir_all(&dir) {
        Ok(()) => Ok(Some(dir)),
        // In a container that may not make cgroups, everything but freezing works.
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => Ok(None),
        Err(error) => Err(error).during(|| cannot("create", &dir)),
    }
}

/// Moves the calling process into a cgroup.
pub(crate) fn join(dir: &Path) -> std::io::Result<()> {
    fs::write(dir.join("cgroup.procs"), "0")
}

/// Freezes or thaws everything in a cgroup.
pub(crate) fn set_frozen(dir: &Path, frozen: bool) -> Result<()> {
    let path = dir.join("cgroup.freeze");
    fs::write(&path, if frozen { "1" } else { "0" }).during(|| cannot("write", &path))
}

/// Whether the kernel says that all of a cgroup is frozen.
pub(crate) fn is_frozen(dir: &Path) -> bool {
    let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "frozen 1")
}

/// Kills everything in the cgroup `dir` and below, then removes it; nothing if it does not exist.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(EMPTY_SECONDS);
    loop {
        if !dir.exists() {
            return Ok(());
        }
        kill_all(dir);
        let Err(error) = remove_tree(dir) else {
            return Ok(());
        };
        if Instant::now() > end {
            return Err(error).during(|| cannot("remove", dir));
        }
        // A killed process leaves its cgroup a moment after it is seen dead.
        thread::sleep(Duration::from_millis(2));
    }
}

/// Removes the directory of all labs if this was the last one.
pub(crate) fn remove_top_if_empty() {
    if let Some(root) = mount_point() {
        // Fails while another lab exists, which is as it should be.
        let _ = fs::remove_dir(root.join(TOP));
    }
}

/// Refuses what cannot be done without cgroups.
pub(crate) fn required(lab: &str, host: &str, what: &'static str) -> Result<PathBuf> {
    Ok(of_lab(lab).ok_or(Error::NoCgroup(what))?.join(host))
}

fn kill_all(dir: &Path) {
    // Absent before Linux 5.14; then whoever is left must leave by itself.
    let _ = fs::write(dir.join("cgroup.kill"), "1");
}

fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

fn find_mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let path = mount.split_ascii_whitespace().nth(4)?;
        kind.starts_with("cgroup2 ").then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_among_those_of_version_1() {
        let text = "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(find_mount_point(text), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find_mount_point("1 0 0:1 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
