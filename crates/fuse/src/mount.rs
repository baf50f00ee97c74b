//! Mounting and unmounting.
//!
//! Only the system calls: what is served is none of its business, and leftovers of a crashed
//! server are found and removed by those who know where to look.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, open, openat, statx};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{Connection, Features};

/// How to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// What `mount` and `df` show as the source.
    pub source: String,
    /// Features that are used where the kernel has them.
    pub features: Features,
    /// Flags of mount(2), such as read-only.
    pub flags: MountFlags,
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        let (features, flags) = (Features::default(), MountFlags::empty());
        MountOptions { source: "evenkeel".to_owned(), features, flags }
    }
}

/// Type of the mounts, as /proc/self/mountinfo shows it.
pub const FILE_SYSTEM_TYPE: &str = "fuse.evenkeel";

/// Why a directory could not be mounted on.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE, or hides it.
    #[error("/dev/fuse cannot be opened ({0}): load it with `modprobe fuse`")]
    NoDevice(Errno),
    /// Not root.
    #[error("mounting on {0} needs root privileges (CAP_SYS_ADMIN)")]
    NotPermitted(PathBuf),
    /// The path holds a zero byte.
    #[error("{0:?} is no path")]
    NoPath(PathBuf),
    /// Anything else.
    #[error("mounting on {path} failed: {errno}")]
    Failed {
        /// Mount point.
        path: PathBuf,
        /// Error of the system call.
        errno: Errno,
    },
    /// Mounted, but the kernel and we do not understand each other.
    #[error("no agreement with the kernel's FUSE on {path}: {errno}")]
    Protocol {
        /// Mount point.
        path: PathBuf,
        /// What went wrong.
        errno: Errno,
    },
}

/// Mounts a file system on the directory `path` and negotiates.
///
/// Everybody may use it, under the permissions of its files; set-id bits and devices count, as
/// they did in the directory below.
pub fn mount_at(path: &Path, options: &MountOptions) -> Result<Connection, MountError> {
    let device = open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let device = device.map_err(|errno| match errno {
        Errno::PERM | Errno::ACCESS => MountError::NotPermitted(path.to_owned()),
        errno => MountError::NoDevice(errno),
    })?;
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    );
    let data = CString::new(data).map_err(|_| MountError::NoPath(path.to_owned()))?;
    let source = options.source.as_str();
    mount(source, path, FILE_SYSTEM_TYPE, options.flags, data.as_c_str()).map_err(|errno| {
        match errno {
            Errno::PERM => MountError::NotPermitted(path.to_owned()),
            errno => MountError::Failed { path: path.to_owned(), errno },
        }
    })?;
    device_number(path)
        .and_then(|number| Connection::negotiate(device, number, options.features))
        .map_err(|errno| {
            let _ = unmount(path, UnmountFlags::DETACH);
            MountError::Protocol { path: path.to_owned(), errno }
        })
}

/// Takes the mount of `connection` off `path`, at once for new callers. `Ok(false)` when
/// something else is mounted there by now.
pub fn detach(path: &Path, connection: &Connection) -> Result<bool, Errno> {
    if device_number(path)? != connection.number() {
        return Ok(false);
    }
    unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map(|()| true)
}

/// Minor number of the device mounted at `path`, found without asking its server.
fn device_number(path: &Path) -> Result<u32, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty())?;
    let how = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    Ok(statx(&directory, "", how, StatxFlags::empty())?.stx_dev_minor)
}
