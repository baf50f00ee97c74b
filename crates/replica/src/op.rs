//! Operations: what changes a replicated tree.
//!
//! An operation names files by id, never by path, so that a rename elsewhere cannot redirect it.

use serde::{Deserialize, Serialize};

/// A file or directory of a module, unique for the life of the source's mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Index of the replicated directory in the module's configuration.
    pub tree: u16,
    /// Number within it; 1 is the root. Never used twice while the source serves.
    pub node: u64,
}

impl FileId {
    /// The root of a replicated directory.
    #[must_use]
    pub const fn root(tree: u16) -> FileId {
        FileId { tree, node: 1 }
    }
}

/// A point of wall time, as the file system stores it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanoseconds: u32,
}

/// A change of a replicated tree that has been applied at the source.
///
/// `touched` lists directories whose modification time changed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op<'a> {
    /// Bytes were written to a regular file.
    Write {
        /// File.
        file: FileId,
        /// Position, in bytes.
        offset: u64,
        /// The bytes.
        data: &'a [u8],
        /// Modification time afterwards.
        mtime: Stamp,
    },
    /// Attributes were changed; absent ones stay.
    SetAttr {
        /// File.
        file: FileId,
        /// New attributes.
        attr: Attr,
    },
    /// A file, directory, symlink or special file was created.
    Create {
        /// Directory.
        parent: FileId,
        /// Name in it.
        name: &'a [u8],
        /// Id given to what was created.
        file: FileId,
        /// Type and permission bits, as in `st_mode`.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Device number of a special file.
        rdev: u64,
        /// Target of a symlink, else empty.
        target: &'a [u8],
        /// Its modification time.
        mtime: Stamp,
        /// The directory's.
        parent_mtime: Stamp,
    },
    /// A hard link was made.
    Link {
        /// File.
        file: FileId,
        /// Directory.
        parent: FileId,
        /// New name in it.
        name: &'a [u8],
        /// The directory's modification time.
        parent_mtime: Stamp,
    },
    /// A name was removed.
    Remove {
        /// Directory.
        parent: FileId,
        /// Name in it.
        name: &'a [u8],
        /// Whether it was a directory.
        directory: bool,
        /// The directory's modification time.
        parent_mtime: Stamp,
    },
    /// A name was moved, possibly over another, or two were exchanged.
    Rename {
        /// Old directory.
        parent: FileId,
        /// Old name.
        name: &'a [u8],
        /// New directory.
        new_parent: FileId,
        /// New name.
        new_name: &'a [u8],
        /// Flags of renameat2.
        flags: u32,
        /// Modification time of the old directory.
        parent_mtime: Stamp,
        /// Modification time of the new directory.
        new_parent_mtime: Stamp,
    },
    /// An extended attribute was set.
    SetXattr {
        /// File.
        file: FileId,
        /// Name.
        name: &'a [u8],
        /// Value.
        value: &'a [u8],
    },
    /// An extended attribute was removed.
    RemoveXattr {
        /// File.
        file: FileId,
        /// Name.
        name: &'a [u8],
    },
    /// Space was allocated, punched or zeroed.
    Allocate {
        /// File.
        file: FileId,
        /// Mode of fallocate.
        mode: u32,
        /// Start, in bytes.
        offset: u64,
        /// Length, in bytes.
        length: u64,
        /// Modification time afterwards.
        mtime: Stamp,
    },
    /// Everything before this, and the file itself, must be durable before it is confirmed.
    Sync {
        /// File or directory.
        file: FileId,
        /// Whether its metadata may be left out.
        data_only: bool,
    },
}

/// New values of attributes; absent ones stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size, in bytes.
    pub size: Option<u64>,
    /// Modification time.
    pub mtime: Option<Stamp>,
}
