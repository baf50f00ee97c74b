//! Operations of a writer, as they stand in its log. Paths are relative to the writer's directory;
//! those below [`SHARED`] lie in a directory that all writers change at the same time.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The directory that all writers share; a writer's names in it begin with its own prefix.
pub(crate) const SHARED: &str = "shared";

/// One operation: a single call that changes something, with the opening and closing around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Op {
    /// Makes an empty file.
    Create { path: String, mode: u32 },
    /// Writes bytes that follow from the key.
    Write { path: String, offset: u64, length: u64, key: u64, how: How },
    /// Writes bytes that follow from the key at the end.
    Append { path: String, length: u64, key: u64 },
    /// Opens with `O_TRUNC`.
    Empty { path: String },
    /// Sets the size, by name or by descriptor.
    Truncate { path: String, size: u64, open: bool },
    /// `fallocate`.
    Allocate { path: String, how: Allocation, offset: u64, length: u64 },
    /// `copy_file_range`.
    Copy { from: String, to: String, offset: u64, at: u64, length: u64 },
    /// Stores to a shared mapping, then `msync`: pairs of offset and length.
    Map { path: String, parts: Vec<(u64, u64)>, key: u64 },
    /// `fsync` or `fdatasync` of a file or directory.
    Sync { path: String, data_only: bool },
    /// `rename`.
    Rename { from: String, to: String, how: Renaming },
    /// A second name.
    Link { from: String, to: String },
    /// Removes a name that is no directory's.
    Unlink { path: String },
    /// Opens, removes the name, writes to what is left and syncs it.
    Orphan { path: String, key: u64 },
    /// Makes a symbolic link.
    Symlink { path: String, target: String },
    /// Makes a directory.
    Directory { path: String, mode: u32 },
    /// Removes an empty directory.
    RemoveDirectory { path: String },
    /// Makes a named pipe.
    Pipe { path: String, mode: u32 },
    /// `chmod`.
    Mode { path: String, mode: u32 },
    /// `lchown`.
    Owner { path: String, uid: u32, gid: u32 },
    /// Sets an extended attribute.
    SetAttribute { path: String, name: String, value: String },
    /// Removes an extended attribute.
    RemoveAttribute { path: String, name: String },
    /// Sets the modification time.
    Times { path: String, seconds: i64, nanoseconds: u32 },
}

/// How a file is opened for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    /// For writing alone.
    Plain,
    /// For reading too.
    Cached,
    /// Through a descriptor that stays open, whatever the file is called meanwhile.
    Held,
    /// `O_SYNC`.
    Sync,
    /// `O_DSYNC`.
    DataSync,
    /// `pwritev2` with `RWF_DSYNC`.
    DataSyncOnce,
    /// `O_DIRECT`.
    Direct,
}

/// Modes of `fallocate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Allocation {
    /// May grow the file.
    Grow,
    /// Leaves the size.
    Keep,
    /// Makes a hole.
    Punch,
    /// Makes zeros, and may grow the file.
    Zero,
    /// Takes blocks out.
    Collapse,
    /// Puts zeros in between.
    Insert,
}

/// Kinds of `rename`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Renaming {
    /// Replaces what has the new name.
    Replace,
    /// Refuses to.
    Fresh,
    /// Both change places.
    Exchange,
}

impl Op {
    /// The paths that it names.
    pub(crate) fn paths(&self) -> Vec<&str> {
        match self {
            Op::Create { path, .. }
            | Op::Write { path, .. }
            | Op::Append { path, .. }
            | Op::Empty { path }
            | Op::Truncate { path, .. }
            | Op::Allocate { path, .. }
            | Op::Map { path, .. }
            | Op::Sync { path, .. }
            | Op::Unlink { path }
            | Op::Orphan { path, .. }
            | Op::Symlink { path, .. }
            | Op::Directory { path, .. }
            | Op::RemoveDirectory { path }
            | Op::Pipe { path, .. }
            | Op::Mode { path, .. }
            | Op::Owner { path, .. }
            | Op::SetAttribute { path, .. }
            | Op::RemoveAttribute { path, .. }
            | Op::Times { path, .. } => vec![path],
            Op::Copy { from, to, .. } | Op::Rename { from, to, .. } | Op::Link { from, to } => {
                vec![from, to]
            }
        }
    }

    /// The file whose content it changes in place, part by part.
    pub(crate) fn content_of(&self) -> Option<&str> {
        match self {
            Op::Write { path, .. }
            | Op::Append { path, .. }
            | Op::Empty { path }
            | Op::Truncate { path, .. }
            | Op::Allocate { path, .. }
            | Op::Map { path, .. } => Some(path),
            Op::Copy { to, .. } => Some(to),
            Op::Create { .. }
            | Op::Sync { .. }
            | Op::Rename { .. }
            | Op::Link { .. }
            | Op::Unlink { .. }
            | Op::Orphan { .. }
            | Op::Symlink { .. }
            | Op::Directory { .. }
            | Op::RemoveDirectory { .. }
            | Op::Pipe { .. }
            | Op::Mode { .. }
            | Op::Owner { .. }
            | Op::SetAttribute { .. }
            | Op::RemoveAttribute { .. }
            | Op::Times { .. } => None,
        }
    }
}

/// What stands before a writer's names in the shared directory.
pub(crate) fn prefix(writer: u32) -> String {
    format!("w{writer}-")
}

/// A writer's directory below the place of all.
pub(crate) fn own_directory(writer: u32) -> String {
    format!("w{writer}")
}

/// A writer's path as it is below the place of all writers.
pub(crate) fn place(writer: u32, path: &str) -> PathBuf {
    match path.strip_prefix(SHARED) {
        Some("") => PathBuf::from(SHARED),
        Some(rest) if rest.starts_with('/') => {
            PathBuf::from(format!("{SHARED}/{}{}", prefix(writer), &rest[1..]))
        }
        Some(_) | None => PathBuf::from(own_directory(writer)).join(path),
    }
}

/// Bytes that follow from a key. None is 0, so that none is taken for a hole.
pub(crate) fn bytes(key: u64, length: u64) -> Vec<u8> {
    let mut random = super::generate::Random::new(key);
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        bytes.extend(random.next().to_le_bytes().map(|byte| byte.max(1)));
    }
    bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    bytes
}
