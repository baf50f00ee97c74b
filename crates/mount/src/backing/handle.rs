//! Finding files: the root of a tree, names within directories, and handles that outlive both.
//!
//! A handle names one file for as long as that exists, also across reboots; a file system without
//! handles gets substitutes that only work while a descriptor is kept.

use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::{Stat, stat};

/// Longest handle that the kernel hands out, in bytes.
const HANDLE_BYTES_MAX: usize = 128;

/// Kind of a substitute for a handle.
const NO_HANDLE: i32 = i32::MIN;

/// Names a file of one file system for as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    kind: i32,
    bytes: Box<[u8]>,
}

impl Handle {
    /// Whether the file can be opened by it. If not, a descriptor must be kept.
    #[must_use]
    pub fn opens(&self) -> bool {
        self.kind != NO_HANDLE
    }

    /// For storage: the kind, then the bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.kind.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.bytes);
        bytes
    }

    /// The inverse of `to_bytes`; `None` when the bytes cannot be a handle.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Handle> {
        let (kind, bytes) = bytes.split_first_chunk::<4>()?;
        (bytes.len() <= HANDLE_BYTES_MAX)
            .then(|| Handle { kind: i32::from_le_bytes(*kind), bytes: bytes.into() })
    }
}

/// The root directory of a backing tree.
///
/// Opened before anything is mounted over it, it keeps showing the directory itself.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    stat: Stat,
}

impl Root {
    /// Opens a directory; a final symlink is not followed.
    pub fn open(path: &Path) -> Result<Root, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Not O_PATH: the kernel opens handles only relative to a descriptor opened for real.
        let directory = openat(rustix::fs::CWD, path, flags, Mode::empty())?;
        let stat = stat(&directory)?;
        Ok(Root { directory, stat })
    }

    /// The root behind a descriptor that another process opened by `open`.
    pub fn of(directory: OwnedFd) -> Result<Root, Errno> {
        let stat = stat(&directory)?;
        Ok(Root { directory, stat })
    }

    /// Attributes as of the opening; device and inode number never change.
    #[must_use]
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Opens the file that a handle names, whatever its name is by now. `ESTALE` when it is gone.
    ///
    /// Only regular files and directories may be opened with flags other than `O_PATH`.
    pub fn open_handle(&self, handle: &Handle, flags: OFlags) -> Result<OwnedFd, Errno> {
        if !handle.opens() {
            return Err(Errno::STALE);
        }
        open_by_handle(self.directory.as_fd(), handle, flags | OFlags::CLOEXEC)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Opens a name of a directory as an `O_PATH` descriptor: symlinks are not followed, and `EXDEV`
/// tells that something is mounted there.
pub fn open_name(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    check_name(name)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::NO_XDEV | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(directory, name, flags, Mode::empty(), within)
}

/// Opens anew what an `O_PATH` descriptor refers to, for reading or writing.
///
/// Only for regular files and directories: opening a device or a pipe has effects.
pub fn reopen(file: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = magic_path(file.as_fd());
    openat(rustix::fs::CWD, path.as_str(), flags | OFlags::CLOEXEC, Mode::empty())
}

/// The handle of a name in a directory, or of the descriptor itself when the name is empty.
///
/// Where the file system has no handles it is a substitute made of device and inode number.
pub fn handle_of(directory: impl AsFd, name: &[u8]) -> Result<Handle, Errno> {
    if !name.is_empty() {
        return handle_of(open_name(directory, name)?, b"");
    }
    match name_to_handle(directory.as_fd()) {
        Err(Errno::OPNOTSUPP | Errno::OVERFLOW | Errno::NOSYS) => {
            let stat = stat(directory)?;
            let mut bytes = stat.dev.to_le_bytes().to_vec();
            bytes.extend_from_slice(&stat.ino.to_le_bytes());
            Ok(Handle { kind: NO_HANDLE, bytes: bytes.into() })
        }
        outcome => outcome,
    }
}

/// Whether two descriptors refer to the same file.
pub fn same_file(a: impl AsFd, b: impl AsFd) -> Result<bool, Errno> {
    let (a, b) = (stat(a)?, stat(b)?);
    Ok((a.dev, a.ino) == (b.dev, b.ino))
}

/// A name is a single component of a path.
pub(super) fn check_name(name: &[u8]) -> Result<(), Errno> {
    let component = !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/');
    if component { Ok(()) } else { Err(Errno::INVAL) }
}

/// A path that leads to what the descriptor refers to, also when that is a symlink.
pub(crate) fn magic_path(file: BorrowedFd<'_>) -> String {
    let mut path = String::with_capacity(24);
    // Writing to a string cannot fail.
    let _ = write!(path, "/proc/self/fd/{}", file.as_raw_fd());
    path
}

/// The kernel's `struct file_handle` with room for the longest one.
#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    data: [u8; HANDLE_BYTES_MAX],
}

#[allow(unsafe_code, reason = "name_to_handle_at has no safe wrapper")]
fn name_to_handle(file: BorrowedFd<'_>) -> Result<Handle, Errno> {
    let mut raw =
        RawHandle { bytes: HANDLE_BYTES_MAX as u32, kind: 0, data: [0; HANDLE_BYTES_MAX] };
    let mut mount: libc::c_int = 0;
    // SAFETY: `raw` has the layout of file_handle and says truly how much room follows its
    // header; name and mount id point to live memory for the length of the call.
    let outcome = unsafe {
        libc::name_to_handle_at(
            file.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut raw).cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if outcome < 0 {
        return Err(last_errno());
    }
    let bytes = raw.data.get(..raw.bytes as usize).ok_or(Errno::OVERFLOW)?;
    Ok(Handle { kind: raw.kind, bytes: bytes.into() })
}

#[allow(unsafe_code, reason = "open_by_handle_at has no safe wrapper")]
fn open_by_handle(root: BorrowedFd<'_>, handle: &Handle, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut raw = RawHandle {
        bytes: handle.bytes.len() as u32,
        kind: handle.kind,
        data: [0; HANDLE_BYTES_MAX],
    };
    let room = raw.data.get_mut(..handle.bytes.len()).ok_or(Errno::STALE)?;
    room.copy_from_slice(&handle.bytes);
    let flags = flags.bits().cast_signed();
    // SAFETY: `raw` has the layout of file_handle and holds as many bytes as it says.
    let opened = unsafe { libc::open_by_handle_at(root.as_raw_fd(), (&raw mut raw).cast(), flags) };
    if opened < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
