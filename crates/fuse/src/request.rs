//! Decoding of requests read from /dev/fuse.
//!
//! A pure function of the bytes: no length in them is trusted, nothing is copied, nothing is
//! answered here.

use crate::abi;
use crate::cursor::{Cursor, Short};

/// A request of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// Number that the answer must carry.
    pub unique: u64,
    /// Node id it is about; 0 where none is.
    pub node: u64,
    /// File-system user id of the caller.
    pub uid: u32,
    /// File-system group id of the caller.
    pub gid: u32,
    /// Process id of the caller, 0 when the kernel itself asks.
    pub pid: u32,
    /// What is asked.
    pub operation: Operation<'a>,
}

/// Why bytes are not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed request, opcode {opcode:?}")]
pub struct ParseError {
    /// Number that an error answer must carry, when that much could be read.
    pub unique: Option<u64>,
    /// Kind of request, when that much could be read.
    pub opcode: Option<u32>,
}

/// What is asked. Names are single components as the kernel sent them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "fields are those of the system call of the same name"
)]
pub enum Operation<'a> {
    /// Name to inode.
    Lookup { name: &'a [u8] },
    /// References were dropped; no answer.
    Forget { count: u64 },
    /// References to many inodes were dropped; no answer.
    BatchForget(Forgets<'a>),
    /// Attributes.
    GetAttr { handle: Option<u64> },
    /// Change of attributes.
    SetAttr(SetAttr),
    /// Target of a symlink.
    ReadLink,
    /// New symlink.
    Symlink { name: &'a [u8], target: &'a [u8] },
    /// New file of a type in `mode`.
    MkNod {
        name: &'a [u8],
        mode: u32,
        rdev: u32,
    },
    /// New directory.
    MkDir { name: &'a [u8], mode: u32 },
    /// Removal of a name that is no directory.
    Unlink { name: &'a [u8] },
    /// Removal of a directory.
    RmDir { name: &'a [u8] },
    /// Change of a name; flags as of renameat2.
    Rename {
        name: &'a [u8],
        new_parent: u64,
        new_name: &'a [u8],
        flags: u32,
    },
    /// New hard link to `target`.
    Link { target: u64, name: &'a [u8] },
    /// Opening of a file.
    Open { flags: u32, kill_privileges: bool },
    /// Reading.
    Read { handle: u64, offset: u64, size: u32 },
    /// Writing.
    Write {
        handle: u64,
        offset: u64,
        data: &'a [u8],
        from_cache: bool,
        kill_privileges: bool,
    },
    /// Figures of the file system.
    StatFs,
    /// End of an open file.
    Release { handle: u64 },
    /// Durability of a file.
    Fsync { handle: u64, data_only: bool },
    /// Setting of an extended attribute; flags as of setxattr.
    SetXattr {
        name: &'a [u8],
        value: &'a [u8],
        flags: u32,
    },
    /// Value of an extended attribute; size 0 asks for its length.
    GetXattr { name: &'a [u8], size: u32 },
    /// Names of extended attributes; size 0 asks for their length.
    ListXattr { size: u32 },
    /// Removal of an extended attribute.
    RemoveXattr { name: &'a [u8] },
    /// A descriptor was closed.
    Flush { handle: u64 },
    /// Negotiation.
    Init(InitRequest),
    /// Opening of a directory.
    OpenDir { flags: u32 },
    /// Listing of a directory, with attributes or without.
    ReadDir {
        handle: u64,
        offset: u64,
        size: u32,
        plus: bool,
    },
    /// End of an open directory.
    ReleaseDir { handle: u64 },
    /// Durability of a directory.
    FsyncDir { handle: u64, data_only: bool },
    /// Test for a lock.
    GetLock,
    /// Lock, without waiting.
    SetLock,
    /// Lock, waiting.
    SetLockWait,
    /// Permission check.
    Access { mask: u32 },
    /// Creation and opening of a file.
    Create {
        name: &'a [u8],
        flags: u32,
        mode: u32,
        kill_privileges: bool,
    },
    /// The caller of request `unique` wants to give up; no answer needed.
    Interrupt { unique: u64 },
    /// Block number of a position.
    Bmap,
    /// End of the mount.
    Destroy,
    /// Device control.
    Ioctl { handle: u64, command: u32 },
    /// Readiness.
    Poll { handle: u64 },
    /// Answer to a notification.
    NotifyReply,
    /// Allocation of space; mode as of fallocate.
    Fallocate {
        handle: u64,
        offset: u64,
        length: u64,
        mode: u32,
    },
    /// Search for data or holes; whence as of lseek.
    Lseek {
        handle: u64,
        offset: u64,
        whence: u32,
    },
    /// Copy within the file system.
    CopyFileRange,
    /// Copy within the file system, with a 64-bit result.
    CopyFileRange64,
    /// DAX mapping.
    SetupMapping,
    /// End of DAX mappings.
    RemoveMapping,
    /// Durability of the whole file system.
    SyncFs,
    /// File without a name.
    TmpFile,
    /// Attributes with the time of birth; mask as of statx.
    StatX { handle: Option<u64>, mask: u32 },
    /// A kind of request that did not exist when this was written.
    Unknown(u32),
}

/// New attributes; absent ones stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Open file through which it is done.
    pub handle: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size, in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<Moment>,
    /// Modification time.
    pub mtime: Option<Moment>,
    /// Clear set-id bits.
    pub kill_privileges: bool,
}

/// A time given in a change of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The clock of the server.
    Now,
    /// Seconds since 1970 and nanoseconds within the second.
    At(i64, u32),
}

/// What the kernel offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitRequest {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Read-ahead, in bytes.
    pub readahead: u32,
    /// Features.
    pub flags: u64,
}

/// Node ids and counts of a batch of forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgets<'a>(&'a [u8]);

impl Forgets<'_> {
    /// The pairs of node id and count.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.chunks_exact(16).filter_map(|pair| {
            let mut cursor = Cursor::new(pair);
            Some((cursor.u64().ok()?, cursor.u64().ok()?))
        })
    }
}

impl<'a> Request<'a> {
    /// Decodes what one read of /dev/fuse returned.
    ///
    /// An unknown kind of request is not an error, it is answered as unsupported by the caller.
    pub fn parse(bytes: &'a [u8]) -> Result<Request<'a>, ParseError> {
        let mut error = ParseError {
            unique: None,
            opcode: None,
        };
        Self::parse_noting(bytes, &mut error).map_err(|Short| error)
    }

    fn parse_noting(bytes: &'a [u8], error: &mut ParseError) -> Result<Request<'a>, Short> {
        let mut head = Cursor::new(bytes);
        let length = head.u32()? as usize;
        let opcode = head.u32()?;
        let unique = head.u64()?;
        (error.unique, error.opcode) = (Some(unique), Some(opcode));
        let node = head.u64()?;
        let (uid, gid, pid) = (head.u32()?, head.u32()?, head.u32()?);
        let extension = usize::from(head.u16()?) * 8;
        if length != bytes.len() {
            return Err(Short);
        }
        let body = bytes.get(abi::IN_HEADER_BYTES..).ok_or(Short)?;
        let body = body
            .get(..body.len().checked_sub(extension).ok_or(Short)?)
            .ok_or(Short)?;
        let operation = operation(opcode, Cursor::new(body))?;
        Ok(Request {
            unique,
            node,
            uid,
            gid,
            pid,
            operation,
        })
    }
}

/// Decodes the body: namespace and attributes here, the rest further down.
fn operation(opcode: u32, mut body: Cursor<'_>) -> Result<Operation<'_>, Short> {
    Ok(match opcode {
        abi::LOOKUP => Operation::Lookup { name: body.text()? },
        abi::FORGET => Operation::Forget { count: body.u64()? },
        abi::BATCH_FORGET => {
            let count = body.u32()? as usize;
            body.skip(4)?;
            Operation::BatchForget(Forgets(body.take(count.checked_mul(16).ok_or(Short)?)?))
        }
        abi::GETATTR => {
            let flags = body.u32()?;
            body.skip(4)?;
            let handle = body.u64()?;
            Operation::GetAttr {
                handle: (flags & abi::GETATTR_FH != 0).then_some(handle),
            }
        }
        abi::STATX => {
            let flags = body.u32()?;
            body.skip(4)?;
            let handle = body.u64()?;
            body.skip(4)?;
            let handle = (flags & abi::GETATTR_FH != 0).then_some(handle);
            Operation::StatX {
                handle,
                mask: body.u32()?,
            }
        }
        abi::SETATTR => Operation::SetAttr(set_attr(body)?),
        abi::READLINK => Operation::ReadLink,
        abi::SYMLINK => Operation::Symlink {
            name: body.text()?,
            target: body.text()?,
        },
        abi::MKNOD => {
            let (mode, rdev) = (body.u32()?, body.u32()?);
            body.skip(8)?;
            Operation::MkNod {
                name: body.text()?,
                mode,
                rdev,
            }
        }
        abi::MKDIR => {
            let mode = body.u32()?;
            body.skip(4)?;
            Operation::MkDir {
                name: body.text()?,
                mode,
            }
        }
        abi::UNLINK => Operation::Unlink { name: body.text()? },
        abi::RMDIR => Operation::RmDir { name: body.text()? },
        abi::RENAME => rename(body.u64()?, 0, body)?,
        abi::RENAME2 => {
            let (new_parent, flags) = (body.u64()?, body.u32()?);
            body.skip(4)?;
            rename(new_parent, flags, body)?
        }
        abi::LINK => Operation::Link {
            target: body.u64()?,
            name: body.text()?,
        },
        _ => return file_operation(opcode, body),
    })
}

fn rename(new_parent: u64, flags: u32, mut body: Cursor<'_>) -> Result<Operation<'_>, Short> {
    Ok(Operation::Rename {
        name: body.text()?,
        new_parent,
        new_name: body.text()?,
        flags,
    })
}

fn set_attr(mut body: Cursor<'_>) -> Result<SetAttr, Short> {
    let valid = body.u32()?;
    body.skip(4)?;
    let (handle, size) = (body.u64()?, body.u64()?);
    body.skip(8)?;
    let (atime, mtime) = (body.u64()?.cast_signed(), body.u64()?.cast_signed());
    body.skip(8)?;
    let (atime_nanos, mtime_nanos) = (body.u32()?, body.u32()?);
    body.skip(4)?;
    let mode = body.u32()?;
    body.skip(4)?;
    let (uid, gid) = (body.u32()?, body.u32()?);
    let has = |flag: u32| valid & flag != 0;
    let moment = |given: u32, now: u32, seconds: i64, nanos: u32| match (has(now), has(given)) {
        (true, _) => Some(Moment::Now),
        (false, true) => Some(Moment::At(seconds, nanos)),
        (false, false) => None,
    };
    Ok(SetAttr {
        handle: has(abi::FATTR_FH).then_some(handle),
        mode: has(abi::FATTR_MODE).then_some(mode),
        uid: has(abi::FATTR_UID).then_some(uid),
        gid: has(abi::FATTR_GID).then_some(gid),
        size: has(abi::FATTR_SIZE).then_some(size),
        atime: moment(abi::FATTR_ATIME, abi::FATTR_ATIME_NOW, atime, atime_nanos),
        mtime: moment(abi::FATTR_MTIME, abi::FATTR_MTIME_NOW, mtime, mtime_nanos),
        kill_privileges: has(abi::FATTR_KILL_SUIDGID),
    })
}

/// Decodes the body of requests about open files and extended attributes.
fn file_operation(opcode: u32, mut body: Cursor<'_>) -> Result<Operation<'_>, Short> {
    Ok(match opcode {
        abi::OPEN => Operation::Open {
            flags: body.u32()?,
            kill_privileges: body.u32()? & abi::OPEN_KILL_SUIDGID != 0,
        },
        abi::CREATE => {
            let (flags, mode) = (body.u32()?, body.u32()?);
            body.skip(4)?;
            let kill_privileges = body.u32()? & abi::OPEN_KILL_SUIDGID != 0;
            Operation::Create {
                name: body.text()?,
                flags,
                mode,
                kill_privileges,
            }
        }
        abi::READ => {
            let (handle, offset, size) = (body.u64()?, body.u64()?, body.u32()?);
            Operation::Read {
                handle,
                offset,
                size,
            }
        }
        abi::READDIR | abi::READDIRPLUS => {
            let (handle, offset, size) = (body.u64()?, body.u64()?, body.u32()?);
            Operation::ReadDir {
                handle,
                offset,
                size,
                plus: opcode == abi::READDIRPLUS,
            }
        }
        abi::WRITE => write(body)?,
        abi::STATFS => Operation::StatFs,
        abi::RELEASE => Operation::Release {
            handle: body.u64()?,
        },
        abi::FSYNC => Operation::Fsync {
            handle: body.u64()?,
            data_only: body.u32()? & abi::FSYNC_FDATASYNC != 0,
        },
        abi::FSYNCDIR => Operation::FsyncDir {
            handle: body.u64()?,
            data_only: body.u32()? & abi::FSYNC_FDATASYNC != 0,
        },
        abi::SETXATTR => {
            let (size, flags) = (body.u32()? as usize, body.u32()?);
            Operation::SetXattr {
                name: body.text()?,
                value: body.take(size)?,
                flags,
            }
        }
        abi::GETXATTR => {
            let size = body.u32()?;
            body.skip(4)?;
            Operation::GetXattr {
                name: body.text()?,
                size,
            }
        }
        abi::LISTXATTR => Operation::ListXattr { size: body.u32()? },
        abi::REMOVEXATTR => Operation::RemoveXattr { name: body.text()? },
        abi::FLUSH => Operation::Flush {
            handle: body.u64()?,
        },
        abi::OPENDIR => Operation::OpenDir { flags: body.u32()? },
        abi::RELEASEDIR => Operation::ReleaseDir {
            handle: body.u64()?,
        },
        abi::FALLOCATE => {
            let (handle, offset, length) = (body.u64()?, body.u64()?, body.u64()?);
            Operation::Fallocate {
                handle,
                offset,
                length,
                mode: body.u32()?,
            }
        }
        abi::LSEEK => {
            let (handle, offset, whence) = (body.u64()?, body.u64()?, body.u32()?);
            Operation::Lseek {
                handle,
                offset,
                whence,
            }
        }
        _ => return rare_operation(opcode, body),
    })
}

fn write(mut body: Cursor<'_>) -> Result<Operation<'_>, Short> {
    let (handle, offset, size) = (body.u64()?, body.u64()?, body.u32()?);
    let flags = body.u32()?;
    body.skip(16)?;
    Ok(Operation::Write {
        handle,
        offset,
        data: body.take(size as usize)?,
        from_cache: flags & abi::WRITE_CACHE != 0,
        kill_privileges: flags & abi::WRITE_KILL_SUIDGID != 0,
    })
}

fn rare_operation(opcode: u32, mut body: Cursor<'_>) -> Result<Operation<'_>, Short> {
    Ok(match opcode {
        abi::INIT => {
            let (major, minor) = (body.u32()?, body.u32()?);
            let (readahead, low) = (body.u32()?, u64::from(body.u32()?));
            // Kernels before 7.36 end the request here.
            let high = body.u32().map_or(0, u64::from);
            let flags = if low & abi::INIT_EXT == 0 {
                low
            } else {
                low | (high << 32)
            };
            Operation::Init(InitRequest {
                major,
                minor,
                readahead,
                flags,
            })
        }
        abi::GETLK => Operation::GetLock,
        abi::SETLK => Operation::SetLock,
        abi::SETLKW => Operation::SetLockWait,
        abi::ACCESS => Operation::Access { mask: body.u32()? },
        abi::INTERRUPT => Operation::Interrupt {
            unique: body.u64()?,
        },
        abi::BMAP => Operation::Bmap,
        abi::DESTROY => Operation::Destroy,
        abi::IOCTL => {
            let handle = body.u64()?;
            body.skip(4)?;
            Operation::Ioctl {
                handle,
                command: body.u32()?,
            }
        }
        abi::POLL => Operation::Poll {
            handle: body.u64()?,
        },
        abi::NOTIFY_REPLY => Operation::NotifyReply,
        abi::COPY_FILE_RANGE => Operation::CopyFileRange,
        abi::COPY_FILE_RANGE_64 => Operation::CopyFileRange64,
        abi::SETUPMAPPING => Operation::SetupMapping,
        abi::REMOVEMAPPING => Operation::RemoveMapping,
        abi::SYNCFS => Operation::SyncFs,
        abi::TMPFILE => Operation::TmpFile,
        _ => Operation::Unknown(opcode),
    })
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
