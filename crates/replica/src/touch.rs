//! What a change is about to touch, told before it is applied, so that a log can say so durably.
//!
//! Only a superset is asked of whoever tells: what turns out not to have changed does no harm.

use crate::op::FileId;

/// Something that a change is about to touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Bytes of a file, and its times.
    Content {
        /// File.
        file: FileId,
        /// Position, in bytes.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// All content of a file, and its size.
    Rest(FileId),
    /// Owner, mode, times or extended attributes.
    Meta(FileId),
    /// The names in a directory.
    Names(FileId),
    /// A file or directory gets a name that is not its first one.
    Moving(FileId),
    /// A file that has other names loses one.
    Losing {
        /// File.
        file: FileId,
        /// A directory that holds one of the other names, if all of those are known.
        other: Option<FileId>,
    },
    /// More than can be told.
    Anything,
}
