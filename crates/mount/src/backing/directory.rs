//! Listing of directories, in chunks.
//!
//! Order and offsets are those of the file system; nothing is sorted or kept in memory whole.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{OFlags, RawDir, SeekFrom, openat, seek};
use rustix::io::Errno;

use super::Kind;

/// Bytes that the kernel may fill at once.
const CHUNK_BYTES: usize = 32 * 1024;

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Name.
    pub name: Vec<u8>,
    /// Type; `Kind::Other` where the file system does not say.
    pub kind: Kind,
    /// Inode number.
    pub ino: u64,
    /// Offset at which the following entry is found.
    pub next: u64,
}

/// An open directory, read from front to back.
#[derive(Debug)]
pub struct DirReader {
    directory: OwnedFd,
}

/// Opens a directory anew, from any descriptor of it, and reads it from the start.
pub fn read_dir(directory: impl AsFd) -> Result<DirReader, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(directory, ".", flags, rustix::fs::Mode::empty())?;
    Ok(DirReader { directory })
}

impl DirReader {
    /// The next entries, with `.` and `..` among them; none at the end.
    pub fn next_chunk(&mut self) -> Result<Vec<DirEntry>, Errno> {
        let mut buffer = [MaybeUninit::uninit(); CHUNK_BYTES];
        let mut entries = Vec::new();
        let mut raw = RawDir::new(&self.directory, &mut buffer);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            entries.push(DirEntry {
                name: entry.file_name().to_bytes().to_vec(),
                kind: Kind::of_type(entry.file_type()),
                ino: entry.ino(),
                next: entry.next_entry_cookie(),
            });
            if raw.is_buffer_empty() {
                break;
            }
        }
        Ok(entries)
    }

    /// Goes to an offset that an entry told; 0 is the start.
    pub fn seek(&mut self, offset: u64) -> Result<(), Errno> {
        seek(&self.directory, SeekFrom::Start(offset)).map(|_| ())
    }
}

impl AsFd for DirReader {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.directory.as_fd()
    }
}
