//! Hosts whose pid 1 is the machine's systemd: an overlay of `/` in memory, a few device nodes, a
//! minimal target, `pivot_root`, exec. Which services run on it is up to whoever uses the host.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::{explain, mounts, report};
use crate::cgroup;
use crate::protocol::{Boot, BootReport};

/// Where the overlay is put together, below a tmpfs of the new mount namespace.
const SCRATCH: &str = "/mnt";
/// The unit that a host boots to: sockets and the bus, no service of the machine.
const TARGET: &str = "[Unit]\nDescription=A host of an Evenkeel lab\nRequires=basic.target\n\
                      Wants=dbus.socket\nAfter=basic.target dbus.socket\nAllowIsolate=yes\n";
/// Units that concern hardware, the machine's file systems, its clock or its consoles.
const MASKED: [&str; 27] = [
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journald-audit.socket",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-resolved.service",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-udev-settle.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "tmp.mount",
];
/// Device nodes that programs expect; the rest of the machine's devices stays out of sight.
const DEVICES: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "fuse"];

/// Ends the host when its owner ends: systemd itself knows nothing of an owner. Returns with the
/// end of the host.
pub(super) fn watch(init: i32, owner: &OwnedFd, host_cgroup: Option<&Path>) -> io::Result<()> {
    let pid = Pid::from_raw(init).ok_or_else(|| io::Error::other("not a pid"))?;
    let host = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    // The report belongs to pid 1 alone from here on.
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    if let Some(lab) = host_cgroup.and_then(Path::parent) {
        // Not in the host's cgroup: systemd wants that for itself, and it may be frozen.
        cgroup::join(lab)?;
    }
    loop {
        let mut poll = [PollFd::new(owner, PollFlags::IN), PollFd::new(&host, PollFlags::IN)];
        match rustix::event::poll(&mut poll, None) {
            Ok(_) if !poll[1].revents().is_empty() => return Ok(()),
            Ok(_) => rustix::process::pidfd_send_signal(&host, Signal::KILL)?,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Builds the host's root and becomes systemd. Returns only when that fails.
pub(super) fn boot(boot: &Boot, dir: &OwnedFd) -> io::Result<()> {
    let program = program()?;
    mounts::make_private()?;
    let binary = mounts::open_binary(boot)?;
    mounts::release_foreign(&boot.binary)?;
    rustix::system::sethostname(boot.spec.name.as_bytes())?;
    let root = overlay()?;
    mounts::kernel_file_systems(&root, boot)?;
    devices(&root)?;
    for (path, mode) in [("/tmp", "1777"), ("/run", "755"), ("/mnt", "755"), ("/dev/shm", "1777")] {
        mounts::memory(&mounts::at(&root, path), mode)?;
    }
    mounts::lab_files(&root, boot, &binary)?;
    for disk in &boot.spec.disks {
        mounts::mount_disk(&root, dir, disk)?;
    }
    for bind in &boot.spec.binds {
        mounts::mount_bind(&root, bind)?;
    }
    configure(&root, boot, dir)?;
    pivot(&root)?;
    mounts::loopback_up()?;
    report(&BootReport::Ready);
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    let mut command = Command::new(&program);
    command.env_clear().env("container", "evenkeel-lab").env("PATH", PATH);
    Err(command.args(["--system", "--log-target=journal"]).exec())
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn program() -> io::Result<PathBuf> {
    let places = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
    let found = places.iter().map(PathBuf::from).find(|path| path.exists());
    found.ok_or_else(|| io::Error::other("systemd is not installed; install the package systemd"))
}

/// `/` of the machine, with a layer in memory that takes all changes.
fn overlay() -> io::Result<PathBuf> {
    let scratch = Path::new(SCRATCH);
    mounts::memory(scratch, "755")?;
    let [upper, work, root] = ["upper", "work", "root"].map(|name| scratch.join(name));
    for dir in [&upper, &work, &root] {
        fs::create_dir(dir)?;
    }
    let data = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    mounts::mount("overlay", &root, MountFlags::empty(), &data)?;
    Ok(root)
}

fn devices(root: &Path) -> io::Result<()> {
    let dev = mounts::at(root, "/dev");
    mounts::mount("tmpfs", &dev, MountFlags::NOSUID, "mode=755")?;
    fs::create_dir(dev.join("shm"))?;
    fs::create_dir(dev.join("pts"))?;
    let safe = MountFlags::NOSUID | MountFlags::NOEXEC;
    mounts::mount("devpts", &dev.join("pts"), safe, "newinstance,ptmxmode=0666,mode=620,gid=5")?;
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        // A machine without /dev/fuse still boots; what needs it says so.
        if source.exists() {
            fs::write(dev.join(name), "")?;
            mounts::bind(&source, &dev.join(name))?;
        }
    }
    fs::write(dev.join("console"), "")?;
    mounts::bind(Path::new("/dev/null"), &dev.join("console"))?;
    for (link, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(link))?;
    }
    Ok(())
}

/// Own identity, no mounts of the machine's, and only the units that a host needs.
fn configure(root: &Path, boot: &Boot, dir: &OwnedFd) -> io::Result<()> {
    let etc = mounts::at(root, "/etc");
    replace(&etc.join("machine-id"), &machine_id(dir)?)?;
    replace(&etc.join("hostname"), &format!("{}\n", boot.spec.name))?;
    replace(&etc.join("fstab"), "")?;
    let units = etc.join("systemd/system");
    fs::create_dir_all(&units)?;
    replace(&units.join("evenkeel-lab.target"), TARGET)?;
    link(&units.join("default.target"), "evenkeel-lab.target")?;
    let mut masked: Vec<String> = MASKED.iter().map(|&unit| unit.to_owned()).collect();
    for place in ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"] {
        let place = mounts::at(root, place);
        masked.extend(names(&place.join("timers.target.wants")));
    }
    for wants in ["sockets.target.wants", "sysinit.target.wants", "basic.target.wants"] {
        masked.extend(names(&units.join(wants)));
    }
    masked.iter().try_for_each(|unit| link(&units.join(unit), "/dev/null"))
}

/// The same at each boot of the host, and unlike that of the machine and of other hosts.
fn machine_id(dir: &OwnedFd) -> io::Result<String> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, "machine-id", flags, Mode::from_raw_mode(0o644))?;
    let mut file = fs::File::from(file);
    let mut text = String::new();
    io::Read::read_to_string(&mut file, &mut text)?;
    if text.is_empty() {
        text = fs::read_to_string("/proc/sys/kernel/random/uuid")?.replace('-', "");
        io::Write::write_all(&mut file, text.as_bytes())?;
    }
    Ok(text)
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Writes a new file, never through a symbolic link of the machine's.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    remove(path)?;
    fs::write(path, text).map_err(explain(&format!("cannot write {}", path.display())))
}

fn link(path: &Path, target: &str) -> io::Result<()> {
    remove(path)?;
    symlink(target, path).map_err(explain(&format!("cannot make {}", path.display())))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes `root` the root of the mount namespace and lets go of the machine's mounts.
fn pivot(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    rustix::process::pivot_root(".", ".")
        .map_err(io::Error::from)
        .map_err(explain("pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}
