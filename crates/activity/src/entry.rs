//! Entries of the activity log and their bytes.
//!
//! An entry finds its object by file handle and, as a handle of a regular file tells no name, by
//! the handle of a directory and the name in it. Whether either still leads anywhere is for the
//! reader to find out.

use crate::REGION_BYTES;

/// Longest file handle of any file system, in bytes, with its kind in front.
pub const HANDLE_BYTES_MAX: usize = 132;

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// In what an object may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The names in a directory, and all of every child that changed or came since the log's
    /// stamp.
    Names,
    /// Owner, mode, times, size and extended attributes.
    Meta,
    /// A region of a file's content, and what `Meta` covers.
    Region(u32),
    /// The content from a region to the end, and what `Meta` covers.
    From(u32),
    /// The object went from the name in the entry to another; below a directory nothing moved
    /// with that.
    Moved,
}

/// What a resync looks at because of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The names in a directory, and all of its children that are recent.
    Names,
    /// All below a directory.
    All,
    /// Attributes, and the content from one position to another.
    Content {
        /// The first byte.
        offset: u64,
        /// The byte after the last one.
        end: u64,
    },
}

impl Part {
    /// What a resync looks at because of it. That a file was moved shows by its times; but those
    /// and the new name may be lost with power on both nodes, when content that was written after
    /// the move, and needed no entry of its own in its new place, is on one disk already.
    #[must_use]
    pub fn reach(self, directory: bool) -> Reach {
        let region = |index: u32| u64::from(index) * REGION_BYTES;
        match self {
            Part::Names => Reach::Names,
            Part::Moved if directory => Reach::All,
            Part::Moved => Reach::Content { offset: 0, end: u64::MAX },
            Part::Meta => Reach::Content { offset: 0, end: 0 },
            Part::Region(index) => {
                let offset = region(index);
                Reach::Content { offset, end: offset + REGION_BYTES }
            }
            Part::From(index) => Reach::Content { offset: region(index), end: u64::MAX },
        }
    }
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Index of the replicated directory.
    pub tree: u16,
    /// Handle of the object.
    pub object: Vec<u8>,
    /// Handle of a directory that holds it; empty when none was known, and for roots.
    pub parent: Vec<u8>,
    /// Its name there.
    pub name: Vec<u8>,
    /// What may differ.
    pub part: Part,
    /// Whether no session to a peer was under way, so that no peer can have been told.
    pub alone: bool,
}

impl Entry {
    /// Appends the entry.
    pub fn put(&self, out: &mut Vec<u8>) {
        let (kind, region) = match self.part {
            Part::Names => (1, 0),
            Part::Meta => (2, 0),
            Part::Region(region) => (3, region),
            Part::From(region) => (4, region),
            Part::Moved => (5, 0),
        };
        out.push(kind);
        out.push(u8::from(self.alone));
        out.extend_from_slice(&self.tree.to_le_bytes());
        out.extend_from_slice(&region.to_le_bytes());
        for bytes in [&self.object, &self.parent, &self.name] {
            debug_assert!(bytes.len() <= NAME_BYTES_MAX, "the file system's limits are below");
            out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(bytes);
        }
    }

    /// Reads an entry off the front; none when the bytes are not one.
    #[must_use]
    pub fn take(bytes: &mut &[u8]) -> Option<Entry> {
        let &[kind, alone, low, high, a, b, c, d] = bytes.split_off(..8)? else { return None };
        let region = u32::from_le_bytes([a, b, c, d]);
        let part = match kind {
            1 => Part::Names,
            2 => Part::Meta,
            3 => Part::Region(region),
            4 => Part::From(region),
            5 => Part::Moved,
            _ => return None,
        };
        let mut field = |limit: usize| {
            let length = usize::from(*bytes.split_off_first()?);
            (length <= limit).then_some(())?;
            Some(bytes.split_off(..length)?.to_vec())
        };
        Some(Entry {
            tree: u16::from_le_bytes([low, high]),
            object: field(HANDLE_BYTES_MAX)?,
            parent: field(HANDLE_BYTES_MAX)?,
            name: field(NAME_BYTES_MAX)?,
            part,
            alone: alone != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(part: Part) -> Entry {
        Entry {
            tree: 3,
            object: vec![1; 12],
            parent: vec![2; 12],
            name: b"a\xff".to_vec(),
            part,
            alone: true,
        }
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let parts = [Part::Names, Part::Meta, Part::Region(7), Part::From(u32::MAX), Part::Moved];
        let mut bytes = Vec::new();
        parts.iter().for_each(|part| entry(*part).put(&mut bytes));
        let mut rest = &bytes[..];
        for part in parts {
            assert_eq!(Entry::take(&mut rest), Some(entry(part)));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn no_bytes_are_taken_for_more_than_they_are() {
        let mut bytes = Vec::new();
        entry(Part::Region(1)).put(&mut bytes);
        for length in 0..bytes.len() {
            assert_eq!(Entry::take(&mut &bytes[..length]), None, "{length}");
        }
        bytes[0] = 9;
        assert_eq!(Entry::take(&mut &bytes[..]), None);
    }
}
