//! A host's view of the file system: the machine's root, with private places of its own over it.
//! Only called by pid 1 in its own mount namespace; nothing here reaches the machine's mounts.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::explain;
use crate::disk;
use crate::options::{Bind, Disk};
use crate::protocol::Boot;

/// Where a host finds what the lab put there.
pub(crate) const LAB_DIR: &str = "/run/lab";

/// Builds everything below `/`.
pub(super) fn prepare(boot: &Boot, dir: &OwnedFd) -> io::Result<()> {
    make_private()?;
    let binary = open_binary(boot)?;
    release_foreign(&boot.binary)?;
    rustix::system::sethostname(boot.spec.name.as_bytes())?;
    kernel_file_systems(Path::new("/"), boot)?;
    for (path, mode) in [("/tmp", "1777"), ("/run", "755"), ("/mnt", "755"), ("/dev/shm", "1777")] {
        memory(Path::new(path), mode)?;
    }
    lab_files(Path::new("/"), boot, &binary)?;
    for disk in &boot.spec.disks {
        mount_disk(Path::new("/"), dir, disk)?;
    }
    for bind in &boot.spec.binds {
        mount_bind(Path::new("/"), bind)?;
    }
    loopback_up()
}

/// Cuts the new mount namespace off from the machine's, both ways.
pub(super) fn make_private() -> io::Result<()> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).map_err(io::Error::from)
}

/// Lets go of the machine's FUSE mounts and loop devices: a copy of such a mount that lives on in
/// here would keep its owner from seeing it end.
pub(super) fn release_foreign(binary: &Path) -> io::Result<()> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    for path in foreign(&text).filter(|path| !binary.starts_with(path)) {
        // Below a mount that was released just before, or unreachable: gone from here either way.
        let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
    }
    Ok(())
}

/// Mount points of FUSE and of loop devices. Paths with escaped characters are left alone.
fn foreign(mountinfo: &str) -> impl Iterator<Item = &str> {
    mountinfo.lines().filter_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        let (kind, rest) = rest.split_once(' ')?;
        let fuse = kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.");
        let device = rest.starts_with("/dev/loop");
        mount.split(' ').nth(4).filter(|path| (fuse || device) && !path.contains('\\'))
    })
}

/// Opens the binary before private mounts can hide it.
pub(super) fn open_binary(boot: &Boot) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let open = rustix::fs::open(&boot.binary, flags, Mode::empty()).map_err(io::Error::from);
    open.map_err(explain(&format!("cannot open {}", boot.binary.display())))
}

/// proc, sysfs and cgroup2 as the host's own namespaces show them.
pub(super) fn kernel_file_systems(root: &Path, boot: &Boot) -> io::Result<()> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", &at(root, "/proc"), safe, "")?;
    mount("sysfs", &at(root, "/sys"), safe, "")?;
    if boot.cgroup.is_some() {
        mount("cgroup2", &at(root, "/sys/fs/cgroup"), safe, "")?;
    }
    let connections = at(root, "/sys/fs/fuse/connections");
    if connections.exists() {
        mount("fusectl", &connections, safe, "")?;
    }
    Ok(())
}

/// A tmpfs of the host's own.
pub(super) fn memory(path: &Path, mode: &str) -> io::Result<()> {
    mount("tmpfs", path, MountFlags::NOSUID | MountFlags::NODEV, &format!("mode={mode}"))
}

/// `/run/lab`: the binary at a fixed path, a boot id that is new at each boot, the hosts' names.
pub(super) fn lab_files(root: &Path, boot: &Boot, binary: &OwnedFd) -> io::Result<()> {
    let dir = at(root, LAB_DIR);
    fs::create_dir_all(dir.join("disk"))?;
    let program = dir.join("evenkeel");
    fs::write(&program, "")?;
    bind(Path::new(&format!("/proc/self/fd/{}", binary.as_raw_fd())), &program)?;

    let fresh = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    fs::write(dir.join("boot_id"), fresh)?;
    bind(&dir.join("boot_id"), &at(root, "/proc/sys/kernel/random/boot_id"))?;

    fs::write(dir.join("hosts"), &boot.hosts_file)?;
    let hosts = at(root, "/etc/hosts");
    if hosts.exists() { bind(&dir.join("hosts"), &hosts) } else { Ok(()) }
}

/// Mounts a disk at `/run/lab/disk/NAME`, and from there at its place: the first stays reachable
/// when something is mounted over the second.
pub(super) fn mount_disk(root: &Path, dir: &OwnedFd, disk: &Disk) -> io::Result<()> {
    let (_device, path) = disk::attach(dir, disk)
        .map_err(explain(&format!("cannot put the disk {} on a loop device", disk.name)))?;
    let own = own_mount(root, &disk.name);
    fs::create_dir_all(&own)?;
    let what = format!("cannot mount the disk {} ({})", disk.name, disk.fs.name());
    rustix::mount::mount(&path, &own, disk.fs.name(), MountFlags::empty(), None)
        .map_err(io::Error::from)
        .map_err(explain(&what))?;
    let target = at(root, &disk.at);
    if disk.at.starts_with("/mnt") || disk.at.starts_with("/run") {
        fs::create_dir_all(&target)?;
    }
    bind(&own, &target)
}

/// Takes a disk from its place, then from wherever else it is shown.
pub(super) fn unmount_disk(disk: &Disk, binds: &[Bind]) -> io::Result<()> {
    unmount(&disk.at)?;
    for bind in binds_of(disk, binds) {
        match unmount(&bind.target) {
            // Somebody on the host unmounted it before.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            other => other?,
        }
    }
    unmount(&own_mount(Path::new("/"), &disk.name))
}

/// The second places of directories on a disk.
pub(super) fn binds_of<'a>(disk: &Disk, binds: &'a [Bind]) -> impl Iterator<Item = &'a Bind> {
    binds.iter().filter(move |bind| bind.source.starts_with(&disk.at))
}

/// Shows a directory of a disk at a second place.
pub(super) fn mount_bind(root: &Path, pair: &Bind) -> io::Result<()> {
    let source = at(root, &pair.source);
    fs::create_dir_all(&source).map_err(explain(&format!("cannot create {}", source.display())))?;
    bind(&source, &at(root, &pair.target))
}

/// Brings up the loopback interface of the host's network namespace.
pub(super) fn loopback_up() -> io::Result<()> {
    let mut netlink = net::link::Netlink::open().map_err(io::Error::other)?;
    netlink.set_up("lo").map_err(io::Error::other)
}

/// Where a disk is mounted first, below the host's root.
pub(crate) fn own_mount(root: &Path, disk: &str) -> PathBuf {
    at(root, LAB_DIR).join("disk").join(disk)
}

/// An absolute path below another root.
pub(crate) fn at(root: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    root.join(path.strip_prefix("/").unwrap_or(path))
}

pub(super) fn bind(source: &Path, target: &Path) -> io::Result<()> {
    rustix::mount::mount_bind(source, target).map_err(io::Error::from).map_err(explain(&format!(
        "cannot show {} at {} (both must exist)",
        source.display(),
        target.display()
    )))
}

fn unmount(path: &Path) -> io::Result<()> {
    rustix::mount::unmount(path, UnmountFlags::empty())
        .map_err(io::Error::from)
        .map_err(explain(&format!("cannot unmount {}", path.display())))
}

pub(super) fn mount(kind: &str, path: &Path, flags: MountFlags, data: &str) -> io::Result<()> {
    let data = std::ffi::CString::new(data)?;
    rustix::mount::mount(kind, path, kind, flags, Some(data.as_c_str()))
        .map_err(io::Error::from)
        .map_err(explain(&format!("cannot mount {kind} at {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fuse_and_loop_mounts_are_let_go() {
        let text = "27 1 254:0 / / rw - ext4 /dev/vda rw\n\
                    30 27 0:40 / /srv/a rw - fuse evenkeel rw\n\
                    31 27 0:41 / /home/x rw shared:3 - fuse.sshfs a:/ rw\n\
                    32 27 0:42 / /sys/fs/fuse/connections rw - fusectl fusectl rw\n\
                    33 27 7:0 / /mnt/img rw - ext4 /dev/loop0 rw\n";
        assert_eq!(foreign(text).collect::<Vec<_>>(), ["/srv/a", "/home/x", "/mnt/img"]);
    }
}
