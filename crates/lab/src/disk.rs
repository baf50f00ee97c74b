//! Disks of the hosts: image files, their file systems, loop devices, filling and shutting down.
//! Where they are mounted is the init's business.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, Mode, OFlags};

use crate::error::{During, Error, Result, cannot};
use crate::options::{Disk, FsType};
use crate::sys;

/// How long a file system may take to let go of its loop device after its last process has died.
const RELEASE_SECONDS: u64 = 20;
/// How often a free loop device may be taken by somebody else before we can have it.
const LOOP_TRIES: u32 = 50;

/// Makes the sparse image of a disk in `dir` and puts a file system on it.
pub(crate) fn create(dir: &Path, disk: &Disk) -> Result<()> {
    let path = dir.join(disk.image());
    let file = File::create_new(&path).during(|| cannot("create", &path))?;
    file.set_len(disk.bytes).during(|| cannot("size", &path))?;
    let program = format!("mkfs.{}", disk.fs.name());
    let options: &[&str] = match disk.fs {
        FsType::Ext4 => &["-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1"],
        FsType::Xfs => &["-q", "-f"],
        FsType::Btrfs => &["-q", "-f", "--mixed"],
    };
    let mut command = Command::new(&program);
    // Root's PATH need not have the directories of mkfs when sudo keeps the user's.
    let search = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{search}:/usr/sbin:/sbin"));
    let output = match command.args(options).arg(&path).output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Missing { program, package: disk.fs.package().to_owned() });
        }
        Err(error) => return Err(error).during(|| format!("cannot run {program}")),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Invalid(format!("{program} {} failed: {}", path.display(), said.trim())))
}

/// Whether this machine has loop devices, said before anything is made.
pub(crate) fn check_loop() -> Result<()> {
    File::options().read(true).write(true).open("/dev/loop-control").map_err(Error::NoLoop)?;
    Ok(())
}

/// Puts the image of a disk behind a loop device. The device is free again when the descriptor is
/// closed and the file system is unmounted.
pub(crate) fn attach(dir: &OwnedFd, disk: &Disk) -> io::Result<(OwnedFd, PathBuf)> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let image = rustix::fs::openat(dir, disk.image(), flags, Mode::empty())?;
    let control = rustix::fs::open("/dev/loop-control", flags, Mode::empty())?;
    let mut tries = 0;
    loop {
        let number = sys::loop_free(control.as_fd())?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = rustix::fs::open(&path, flags, Mode::empty())?;
        match sys::loop_configure(device.as_fd(), image.as_fd()) {
            Ok(()) => return Ok((device, path)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries < LOOP_TRIES => {
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits until no loop device uses a file below `dir`: the kernel unmounts the file systems of a
/// dead host on its own, a little after its last process.
pub(crate) fn wait_released(dir: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(RELEASE_SECONDS);
    loop {
        let used = loops_below(dir);
        if used.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            let names: Vec<String> = used.iter().map(|path| path.display().to_string()).collect();
            let what = format!("unmounting of {} ({})", dir.display(), names.join(", "));
            return Err(Error::Late { what, seconds: RELEASE_SECONDS });
        }
        // The kernel announces the release of a loop device to nobody who could wait for it.
        thread::sleep(Duration::from_millis(2));
    }
}

/// Takes the images below `dir` from their loop devices, whoever still has them mounted.
pub(crate) fn detach_all(dir: &Path) {
    for device in loops_below(dir) {
        if let Ok(file) = File::open(&device) {
            // A device that was released meanwhile has nothing to clear.
            let _ = sys::loop_clear(file.as_fd());
        }
    }
}

/// Loop devices whose image lies below `dir`.
pub(crate) fn loops_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let below = |entry: &fs::DirEntry| {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file"));
        backing.is_ok_and(|path| Path::new(path.trim_end()).starts_with(dir))
    };
    let names = entries.flatten().filter(below).map(|entry| entry.file_name());
    names.map(|name| Path::new("/dev").join(name)).collect()
}

/// Ends the file system at `root` as a loss of power does.
pub(crate) fn shut_down(root: &Path) -> Result<()> {
    let file = File::open(root).during(|| cannot("open", root))?;
    sys::shut_down_file_system(file.as_fd())
        .during(|| format!("cannot shut down the file system at {}", root.display()))
}

/// Writes the file at `path` until its file system is full. Returns its size in bytes.
pub(crate) fn fill(path: &Path) -> Result<u64> {
    let open = File::options().create(true).write(true).truncate(true).open(path);
    let mut file = open.during(|| cannot("create", path))?;
    let mut size = 0_u64;
    let mut chunk = 64_u64 << 20;
    while chunk >= 4096 {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), size, chunk) {
            Ok(()) => size += chunk,
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => chunk /= 2,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::OPNOTSUPP) => return fill_by_writing(&mut file, path),
            Err(error) => return Err(error).during(|| cannot("fill", path)),
        }
    }
    file.sync_all().during(|| cannot("sync", path))?;
    Ok(size)
}

fn fill_by_writing(file: &mut File, path: &Path) -> Result<u64> {
    let zeros = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        match file.write(&zeros) {
            Ok(0) => return Ok(size),
            Ok(length) => size += length as u64,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(size),
            Err(error) => return Err(error).during(|| cannot("fill", path)),
        }
    }
}
