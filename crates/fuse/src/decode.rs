//! Decoding of the bodies of requests, kind by kind.
//!
//! The header has been read before; lengths in the body are trusted no more than those there.

use crate::abi;
use crate::cursor::{Cursor, Short};
use crate::request::{Forgets, InitRequest, Moment, Operation, SetAttr};

/// Decodes the body: lookups and attributes here, the rest further down.
pub(crate) fn operation(opcode: u32, mut body: Cursor<'_>) -> Result<Operation<'_>, Short> {
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
            Operation::GetAttr { handle: (flags & abi::GETATTR_FH != 0).then_some(handle) }
        }
        abi::STATX => {
            let flags = body.u32()?;
            body.skip(4)?;
            let handle = body.u64()?;
            body.skip(4)?;
            let handle = (flags & abi::GETATTR_FH != 0).then_some(handle);
            Operation::StatX { handle, mask: body.u32()? }
        }
        abi::SETATTR => Operation::SetAttr(set_attr(body)?),
        _ => return name_operation(opcode, body),
    })
}

/// Decodes the body of requests that make, move or remove names.
fn name_operation(opcode: u32, mut body: Cursor<'_>) -> Result<Operation<'_>, Short> {
    Ok(match opcode {
        abi::READLINK => Operation::ReadLink,
        abi::SYMLINK => Operation::Symlink { name: body.text()?, target: body.text()? },
        abi::MKNOD => {
            let (mode, rdev, umask) = (body.u32()?, body.u32()?, body.u32()?);
            body.skip(4)?;
            Operation::MkNod { name: body.text()?, mode, rdev, umask }
        }
        abi::MKDIR => {
            let (mode, umask) = (body.u32()?, body.u32()?);
            Operation::MkDir { name: body.text()?, mode, umask }
        }
        abi::UNLINK => Operation::Unlink { name: body.text()? },
        abi::RMDIR => Operation::RmDir { name: body.text()? },
        abi::RENAME => rename(body.u64()?, 0, body)?,
        abi::RENAME2 => {
            let (new_parent, flags) = (body.u64()?, body.u32()?);
            body.skip(4)?;
            rename(new_parent, flags, body)?
        }
        abi::LINK => Operation::Link { target: body.u64()?, name: body.text()? },
        _ => return file_operation(opcode, body),
    })
}

fn rename(new_parent: u64, flags: u32, mut body: Cursor<'_>) -> Result<Operation<'_>, Short> {
    Ok(Operation::Rename { name: body.text()?, new_parent, new_name: body.text()?, flags })
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

/// Decodes the body of requests about open files.
fn file_operation(opcode: u32, mut body: Cursor<'_>) -> Result<Operation<'_>, Short> {
    Ok(match opcode {
        abi::OPEN => Operation::Open {
            flags: body.u32()?,
            kill_privileges: body.u32()? & abi::OPEN_KILL_SUIDGID != 0,
        },
        abi::CREATE => {
            let (flags, mode, umask) = (body.u32()?, body.u32()?, body.u32()?);
            let kill_privileges = body.u32()? & abi::OPEN_KILL_SUIDGID != 0;
            Operation::Create { name: body.text()?, flags, mode, umask, kill_privileges }
        }
        abi::TMPFILE => {
            Operation::TmpFile { flags: body.u32()?, mode: body.u32()?, umask: body.u32()? }
        }
        abi::READ => {
            let (handle, offset, size) = (body.u64()?, body.u64()?, body.u32()?);
            Operation::Read { handle, offset, size }
        }
        abi::READDIR | abi::READDIRPLUS => {
            let (handle, offset, size) = (body.u64()?, body.u64()?, body.u32()?);
            Operation::ReadDir { handle, offset, size, plus: opcode == abi::READDIRPLUS }
        }
        abi::WRITE => write(body)?,
        abi::STATFS => Operation::StatFs,
        abi::RELEASE => Operation::Release { handle: body.u64()? },
        abi::FSYNC => Operation::Fsync {
            handle: body.u64()?,
            data_only: body.u32()? & abi::FSYNC_FDATASYNC != 0,
        },
        abi::FSYNCDIR => Operation::FsyncDir {
            handle: body.u64()?,
            data_only: body.u32()? & abi::FSYNC_FDATASYNC != 0,
        },
        abi::FLUSH => Operation::Flush { handle: body.u64()? },
        abi::OPENDIR => Operation::OpenDir { flags: body.u32()? },
        abi::RELEASEDIR => Operation::ReleaseDir { handle: body.u64()? },
        _ => return attribute_operation(opcode, body),
    })
}

/// Decodes the body of requests about extended attributes and holes.
fn attribute_operation(opcode: u32, mut body: Cursor<'_>) -> Result<Operation<'_>, Short> {
    Ok(match opcode {
        abi::SETXATTR => {
            let (size, flags) = (body.u32()? as usize, body.u32()?);
            set_xattr(size, flags, body).or_else(|Short| {
                // Kernels before 7.33 have no flags of their own.
                let (name, value) = (body.text()?, body.take(size)?);
                let whole = Operation::SetXattr { name, value, flags, kill_group: false };
                if body.is_empty() { Ok(whole) } else { Err(Short) }
            })?
        }
        abi::GETXATTR => {
            let size = body.u32()?;
            body.skip(4)?;
            Operation::GetXattr { name: body.text()?, size }
        }
        abi::LISTXATTR => Operation::ListXattr { size: body.u32()? },
        abi::REMOVEXATTR => Operation::RemoveXattr { name: body.text()? },
        abi::FALLOCATE => {
            let (handle, offset, length) = (body.u64()?, body.u64()?, body.u64()?);
            Operation::Fallocate { handle, offset, length, mode: body.u32()? }
        }
        abi::LSEEK => {
            let (handle, offset, whence) = (body.u64()?, body.u64()?, body.u32()?);
            Operation::Lseek { handle, offset, whence }
        }
        _ => return rare_operation(opcode, body),
    })
}

/// The long form: four bytes of flags and four of padding before the name. In the short one no
/// name that is long enough to be taken for it has a zero byte there.
fn set_xattr(size: usize, flags: u32, mut body: Cursor<'_>) -> Result<Operation<'_>, Short> {
    let (own, padding) = (body.u32()?, body.u32()?);
    let (name, value) = (body.text()?, body.take(size)?);
    if padding != 0 || !body.is_empty() {
        return Err(Short);
    }
    let kill_group = own & abi::SETXATTR_ACL_KILL_SGID != 0;
    Ok(Operation::SetXattr { name, value, flags, kill_group })
}

fn write(mut body: Cursor<'_>) -> Result<Operation<'_>, Short> {
    let (handle, offset, size) = (body.u64()?, body.u64()?, body.u32()?);
    let flags = body.u32()?;
    body.skip(8)?;
    let file_flags = body.u32()?;
    body.skip(4)?;
    Ok(Operation::Write {
        handle,
        offset,
        data: body.take(size as usize)?,
        file_flags,
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
            let flags = if low & abi::INIT_EXT == 0 { low } else { low | (high << 32) };
            Operation::Init(InitRequest { major, minor, readahead, flags })
        }
        abi::GETLK => Operation::GetLock,
        abi::SETLK => Operation::SetLock,
        abi::SETLKW => Operation::SetLockWait,
        abi::ACCESS => Operation::Access { mask: body.u32()? },
        abi::INTERRUPT => Operation::Interrupt { unique: body.u64()? },
        abi::BMAP => Operation::Bmap,
        abi::DESTROY => Operation::Destroy,
        abi::IOCTL => {
            let handle = body.u64()?;
            body.skip(4)?;
            Operation::Ioctl { handle, command: body.u32()? }
        }
        abi::POLL => Operation::Poll { handle: body.u64()? },
        abi::NOTIFY_REPLY => Operation::NotifyReply,
        abi::COPY_FILE_RANGE => Operation::CopyFileRange,
        abi::COPY_FILE_RANGE_64 => Operation::CopyFileRange64,
        abi::SETUPMAPPING => Operation::SetupMapping,
        abi::REMOVEMAPPING => Operation::RemoveMapping,
        abi::SYNCFS => Operation::SyncFs,
        _ => Operation::Unknown(opcode),
    })
}
