//! Numbers of the kernel interface, version 7.45, as far as this crate uses them.
//!
//! Only constants; layouts are known to the decoder (`request`) and the encoder (`reply`).

/// Major version of the protocol.
pub const MAJOR: u32 = 7;
/// Newest minor version that is understood.
pub const MINOR: u32 = 45;
/// Bytes of the header before each request.
pub const IN_HEADER_BYTES: usize = 40;
/// Bytes of the header before each answer.
pub const OUT_HEADER_BYTES: usize = 16;
/// Largest write that is negotiated, in bytes.
pub const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Pages of that write, of 4 KiB each.
pub const PAGES_MAX: u16 = 256;
/// Room needed to read any request, in bytes.
pub const REQUEST_BYTES_MAX: usize = WRITE_BYTES_MAX as usize + 4096;

/// Reads may be outstanding at once.
pub const ASYNC_READ: u64 = 1 << 0;
/// O_TRUNC reaches `open` instead of a separate change of size.
pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
/// Writes above 4 KiB.
pub const BIG_WRITES: u64 = 1 << 5;
/// The umask travels with what is created instead of being applied to its mode.
pub const DONT_MASK: u64 = 1 << 6;
/// Directories are listed with attributes.
pub const DO_READDIRPLUS: u64 = 1 << 13;
/// ... when the kernel expects it to pay.
pub const READDIRPLUS_AUTO: u64 = 1 << 14;
/// Direct I/O may have several requests outstanding.
pub const ASYNC_DIO: u64 = 1 << 15;
/// Lookups and listings of one directory may run at once.
pub const PARALLEL_DIROPS: u64 = 1 << 18;
/// The kernel keeps and enforces POSIX ACLs.
pub const POSIX_ACL: u64 = 1 << 20;
/// `max_pages` of the answer to `init` counts.
pub const MAX_PAGES: u64 = 1 << 22;
/// Targets of symlinks are cached.
pub const CACHE_SYMLINKS: u64 = 1 << 23;
/// Cached data is dropped on notification only, not when a modification time changes.
pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
/// Set-id bits are cleared by the server, and only when the request says so.
pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
/// `setxattr` has flags of its own besides those of the caller.
pub const SETXATTR_EXT: u64 = 1 << 29;
/// The second word of flags counts.
pub const INIT_EXT: u64 = 1 << 30;
/// Shared mappings of files opened for direct I/O.
pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;

/// `open` answer: bypass the page cache.
pub const FOPEN_DIRECT_IO: u32 = 1 << 0;
/// `open` answer: keep what the page cache holds of the file.
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// `open` answer: direct writes of one file may run at once.
pub const FOPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

/// `setattr`: permission bits are given.
pub const FATTR_MODE: u32 = 1 << 0;
/// `setattr`: the owner is given.
pub const FATTR_UID: u32 = 1 << 1;
/// `setattr`: the group is given.
pub const FATTR_GID: u32 = 1 << 2;
/// `setattr`: the size is given.
pub const FATTR_SIZE: u32 = 1 << 3;
/// `setattr`: the access time is given.
pub const FATTR_ATIME: u32 = 1 << 4;
/// `setattr`: the modification time is given.
pub const FATTR_MTIME: u32 = 1 << 5;
/// `setattr`: the handle is given.
pub const FATTR_FH: u32 = 1 << 6;
/// `setattr`: the access time is now.
pub const FATTR_ATIME_NOW: u32 = 1 << 7;
/// `setattr`: the modification time is now.
pub const FATTR_MTIME_NOW: u32 = 1 << 8;
/// `setattr`: clear set-id bits.
pub const FATTR_KILL_SUIDGID: u32 = 1 << 11;

/// `getattr`: the handle is given.
pub const GETATTR_FH: u32 = 1 << 0;
/// `write`: written back from the page cache.
pub const WRITE_CACHE: u32 = 1 << 0;
/// `write`: clear set-id bits.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `open` and `create`: clear set-id bits.
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `setxattr`: an ACL is set by somebody for whom the set-gid bit must go.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// `fsync`: data and what is needed to read it, no other metadata.
pub const FSYNC_FDATASYNC: u32 = 1 << 0;

/// Notification: an inode's attributes or data are stale.
pub const NOTIFY_INVAL_INODE: i32 = 2;
/// Notification: a name is stale.
pub const NOTIFY_INVAL_ENTRY: i32 = 3;

/// Name to inode.
pub const LOOKUP: u32 = 1;
/// References to an inode were dropped.
pub const FORGET: u32 = 2;
/// Attributes of an inode.
pub const GETATTR: u32 = 3;
/// Change of attributes.
pub const SETATTR: u32 = 4;
/// Target of a symlink.
pub const READLINK: u32 = 5;
/// New symlink.
pub const SYMLINK: u32 = 6;
/// New file of any type but directory and symlink.
pub const MKNOD: u32 = 8;
/// New directory.
pub const MKDIR: u32 = 9;
/// Removal of a name.
pub const UNLINK: u32 = 10;
/// Removal of a directory.
pub const RMDIR: u32 = 11;
/// Change of a name.
pub const RENAME: u32 = 12;
/// New hard link.
pub const LINK: u32 = 13;
/// Opening of a file.
pub const OPEN: u32 = 14;
/// Reading of a file.
pub const READ: u32 = 15;
/// Writing of a file.
pub const WRITE: u32 = 16;
/// Figures of the file system.
pub const STATFS: u32 = 17;
/// End of an open file.
pub const RELEASE: u32 = 18;
/// Durability of a file.
pub const FSYNC: u32 = 20;
/// Setting of an extended attribute.
pub const SETXATTR: u32 = 21;
/// Value of an extended attribute.
pub const GETXATTR: u32 = 22;
/// Names of extended attributes.
pub const LISTXATTR: u32 = 23;
/// Removal of an extended attribute.
pub const REMOVEXATTR: u32 = 24;
/// A descriptor was closed.
pub const FLUSH: u32 = 25;
/// Negotiation.
pub const INIT: u32 = 26;
/// Opening of a directory.
pub const OPENDIR: u32 = 27;
/// Listing of a directory.
pub const READDIR: u32 = 28;
/// End of an open directory.
pub const RELEASEDIR: u32 = 29;
/// Durability of a directory.
pub const FSYNCDIR: u32 = 30;
/// Test for a lock.
pub const GETLK: u32 = 31;
/// Lock without waiting.
pub const SETLK: u32 = 32;
/// Lock, waiting.
pub const SETLKW: u32 = 33;
/// Permission check.
pub const ACCESS: u32 = 34;
/// Creation and opening of a file.
pub const CREATE: u32 = 35;
/// A caller wants to give up.
pub const INTERRUPT: u32 = 36;
/// Block number of a position.
pub const BMAP: u32 = 37;
/// End of the mount.
pub const DESTROY: u32 = 38;
/// Device control.
pub const IOCTL: u32 = 39;
/// Readiness.
pub const POLL: u32 = 40;
/// Answer to a notification.
pub const NOTIFY_REPLY: u32 = 41;
/// Many forgets at once.
pub const BATCH_FORGET: u32 = 42;
/// Allocation of space.
pub const FALLOCATE: u32 = 43;
/// Listing with attributes.
pub const READDIRPLUS: u32 = 44;
/// Change of a name, with flags.
pub const RENAME2: u32 = 45;
/// Search for data or holes.
pub const LSEEK: u32 = 46;
/// Copy within the file system.
pub const COPY_FILE_RANGE: u32 = 47;
/// DAX mapping.
pub const SETUPMAPPING: u32 = 48;
/// End of DAX mappings.
pub const REMOVEMAPPING: u32 = 49;
/// Durability of the whole file system.
pub const SYNCFS: u32 = 50;
/// File without a name.
pub const TMPFILE: u32 = 51;
/// Attributes with the time of birth.
pub const STATX: u32 = 52;
/// Copy within the file system, with a 64-bit result.
pub const COPY_FILE_RANGE_64: u32 = 53;
