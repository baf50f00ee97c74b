//! Decoding of requests read from /dev/fuse.
//!
//! A pure function of the bytes: no length in them is trusted, nothing is copied, nothing is
//! answered here.

use crate::abi;
use crate::cursor::{Cursor, Short};
use crate::decode;

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
#[expect(missing_docs, reason = "fields are those of the system call of the same name")]
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
    /// New file of a type in `mode`, to which the umask is yet to be applied.
    MkNod { name: &'a [u8], mode: u32, rdev: u32, umask: u32 },
    /// New directory.
    MkDir { name: &'a [u8], mode: u32, umask: u32 },
    /// Removal of a name that is no directory.
    Unlink { name: &'a [u8] },
    /// Removal of a directory.
    RmDir { name: &'a [u8] },
    /// Change of a name; flags as of renameat2.
    Rename { name: &'a [u8], new_parent: u64, new_name: &'a [u8], flags: u32 },
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
        /// Flags of the open file, and what the call itself added to them.
        file_flags: u32,
        from_cache: bool,
        kill_privileges: bool,
    },
    /// Figures of the file system.
    StatFs,
    /// End of an open file.
    Release { handle: u64 },
    /// Durability of a file.
    Fsync { handle: u64, data_only: bool },
    /// Setting of an extended attribute; flags as of setxattr. `kill_group`: the set-gid bit goes.
    SetXattr { name: &'a [u8], value: &'a [u8], flags: u32, kill_group: bool },
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
    ReadDir { handle: u64, offset: u64, size: u32, plus: bool },
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
    Create { name: &'a [u8], flags: u32, mode: u32, umask: u32, kill_privileges: bool },
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
    Fallocate { handle: u64, offset: u64, length: u64, mode: u32 },
    /// Search for data or holes; whence as of lseek.
    Lseek { handle: u64, offset: u64, whence: u32 },
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
    /// File without a name in a directory.
    TmpFile { flags: u32, mode: u32, umask: u32 },
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
pub struct Forgets<'a>(pub(crate) &'a [u8]);

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
        let mut error = ParseError { unique: None, opcode: None };
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
        let body = body.get(..body.len().checked_sub(extension).ok_or(Short)?).ok_or(Short)?;
        let operation = decode::operation(opcode, Cursor::new(body))?;
        Ok(Request { unique, node, uid, gid, pid, operation })
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
