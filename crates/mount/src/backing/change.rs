//! Changes of a backing tree, each one system call as far as possible.
//!
//! What is told is done: which group a new file gets, or who may do what, is decided before.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use replica::op::{Attr, Stamp};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps,
    UTIME_NOW, UTIME_OMIT, Uid,
};
use rustix::io::Errno;

use super::handle::check_name;
use super::{magic_path, open_name, reopen, stat};

/// Type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Pipe,
    /// Socket.
    Socket,
    /// Character device.
    Character,
    /// Block device.
    Block,
    /// Something that did not exist when this was written.
    Other,
}

impl Kind {
    /// The type in the mode of a file.
    #[must_use]
    pub fn of_mode(mode: u32) -> Kind {
        Kind::of_type(FileType::from_raw_mode(mode))
    }

    pub(super) fn of_type(kind: FileType) -> Kind {
        match kind {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Pipe,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::Character,
            FileType::BlockDevice => Kind::Block,
            FileType::Unknown => Kind::Other,
        }
    }

    /// The type that `dirent` is of.
    pub(crate) fn of_dirent(kind: u8) -> Kind {
        match kind {
            1 => Kind::Pipe,
            2 => Kind::Character,
            4 => Kind::Directory,
            6 => Kind::Block,
            8 => Kind::File,
            10 => Kind::Symlink,
            12 => Kind::Socket,
            _ => Kind::Other,
        }
    }

    /// The type as in `d_type` of a directory entry.
    #[must_use]
    pub fn dirent(self) -> u8 {
        match self {
            Kind::Other => 0,
            Kind::Pipe => 1,
            Kind::Character => 2,
            Kind::Directory => 4,
            Kind::Block => 6,
            Kind::File => 8,
            Kind::Symlink => 10,
            Kind::Socket => 12,
        }
    }
}

/// Creates a file of the type in `mode` with exactly this owner, group and mode, and opens it as
/// `O_PATH`. `rdev` counts for devices, `target` for symlinks. `EEXIST` when the name is taken.
pub fn create(
    directory: impl AsFd,
    name: &[u8],
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: u64,
    target: &[u8],
) -> Result<OwnedFd, Errno> {
    make(&directory, name, mode, rdev, target)?;
    finish(directory.as_fd(), name, mode, uid, gid).inspect_err(|_| {
        // Not as wanted is as bad as not at all; the first error is the one to tell.
        let _ = remove(directory, name, Kind::of_mode(mode) == Kind::Directory);
    })
}

/// Creates a file of the type in `mode` as the calling thread: the owner, the umask, the group and
/// the ACL that a directory passes on are the file system's business.
pub fn make(
    directory: impl AsFd,
    name: &[u8],
    mode: u32,
    rdev: u64,
    target: &[u8],
) -> Result<(), Errno> {
    check_name(name)?;
    let bits = Mode::from_raw_mode(mode & 0o7777);
    match Kind::of_mode(mode) {
        Kind::Directory => rustix::fs::mkdirat(&directory, name, bits)?,
        Kind::Symlink => rustix::fs::symlinkat(target, &directory, name)?,
        Kind::File | Kind::Pipe | Kind::Socket | Kind::Character | Kind::Block => {
            let kind = FileType::from_raw_mode(mode);
            rustix::fs::mknodat(&directory, name, kind, bits, rdev)?;
        }
        Kind::Other => return Err(Errno::INVAL),
    }
    Ok(())
}

/// Creates a regular file without a name as the calling thread, and opens it for reading and
/// writing. It can be linked later.
pub fn make_unnamed(directory: impl AsFd, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(directory, ".", flags, Mode::from_raw_mode(mode & 0o7777))
}

/// Gives what was just created its owner and mode.
fn finish(
    directory: BorrowedFd<'_>,
    name: &[u8],
    mode: u32,
    uid: u32,
    gid: u32,
) -> Result<OwnedFd, Errno> {
    let file = open_name(directory, name)?;
    let mut now = stat(&file)?;
    if (now.uid, now.gid) != (uid, gid) {
        own(file.as_fd(), Some(uid), Some(gid))?;
        now = stat(&file)?;
    }
    // A change of owner clears set-id bits, and a default ACL of the directory masks others.
    if now.kind() != Kind::Symlink && now.mode & 0o7777 != mode & 0o7777 {
        permit(file.as_fd(), mode)?;
    }
    Ok(file)
}

/// Makes a hard link to what a descriptor refers to.
pub fn link(file: impl AsFd, directory: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    check_name(name)?;
    rustix::fs::linkat(file, "", directory, name, AtFlags::EMPTY_PATH)
}

/// Removes a name of a file, or an empty directory.
pub fn remove(directory: impl AsFd, name: &[u8], is_directory: bool) -> Result<(), Errno> {
    check_name(name)?;
    let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    rustix::fs::unlinkat(directory, name, flags)
}

/// Moves or exchanges names; flags as of renameat2.
pub fn rename(
    directory: impl AsFd,
    name: &[u8],
    new_directory: impl AsFd,
    new_name: &[u8],
    flags: u32,
) -> Result<(), Errno> {
    check_name(name)?;
    check_name(new_name)?;
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
    rustix::fs::renameat_with(directory, name, new_directory, new_name, flags)
}

/// Changes attributes, of symlinks too (not their mode). Owner first, as that clears set-id bits,
/// and the modification time last, as a change of size sets it.
pub fn set_attr(file: impl AsFd, attr: &Attr) -> Result<(), Errno> {
    let file = file.as_fd();
    if attr.uid.is_some() || attr.gid.is_some() {
        own(file, attr.uid, attr.gid)?;
    }
    if let Some(mode) = attr.mode {
        permit(file, mode)?;
    }
    if let Some(size) = attr.size {
        if stat(file)?.kind() != Kind::File {
            return Err(Errno::INVAL);
        }
        rustix::fs::ftruncate(reopen(file, OFlags::WRONLY)?, size)?;
    }
    match attr.mtime {
        Some(mtime) => set_times(file, Moment::Keep, Moment::At(mtime)),
        None => Ok(()),
    }
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Keep,
    Now,
    At(Stamp),
}

/// Sets the access and modification times.
pub(crate) fn set_times(file: BorrowedFd<'_>, atime: Moment, mtime: Moment) -> Result<(), Errno> {
    let spec = |moment: Moment| match moment {
        Moment::Keep => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        // Not the time of day read here: files are stamped by a coarser clock that lags behind.
        Moment::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Moment::At(at) => Timespec { tv_sec: at.seconds, tv_nsec: i64::from(at.nanoseconds) },
    };
    let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
    rustix::fs::utimensat(file, "", &times, AtFlags::EMPTY_PATH)
}

/// Allocates, punches or zeroes a range of a file opened for writing; mode as of fallocate.
pub fn allocate(file: impl AsFd, mode: u32, offset: u64, length: u64) -> Result<(), Errno> {
    let mode = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
    rustix::fs::fallocate(file, mode, offset, length)
}

fn own(file: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    rustix::fs::chownat(file, "", uid, gid, AtFlags::EMPTY_PATH)
}

fn permit(file: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(mode & 0o7777);
    rustix::fs::chmodat(CWD, magic_path(file).as_str(), mode, AtFlags::empty())
}
