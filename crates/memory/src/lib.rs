//! Memory that outlives the process that works in it: a file without a name, whose parts are
//! mapped, and which somebody else holds open as well.
//!
//! What is stored in a part is there for a successor as soon as the store has happened, in the
//! order of the stores; nothing is written to a disk. What the parts mean, and when what is in
//! them counts, is up to those who use them.

mod map;
mod part;
mod ring;
mod words;

pub use part::Part;
pub use ring::{Ring, RingSender};
pub use words::Words;

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::io::Errno;

/// Parts begin and end at multiples of this many bytes.
pub const PAGE_BYTES: usize = 4096;

/// Memory that may outlive the process.
#[derive(Debug)]
pub struct Memory {
    /// None when it ends with the process.
    file: Option<OwnedFd>,
    bytes: usize,
    /// What was handed out: no two parts may overlap.
    taken: Mutex<Vec<Range<usize>>>,
}

impl Memory {
    /// New memory of this size, all zeros. What is never touched takes no room.
    pub fn new(name: &str, bytes: usize) -> Result<Memory, Errno> {
        let file = memfd_create(name, MemfdFlags::CLOEXEC)?;
        ftruncate(&file, bytes as u64)?;
        Ok(Memory { file: Some(file), bytes, taken: Mutex::default() })
    }

    /// Memory that ends with the process, and on which no limit of files bears. It has no rings.
    #[must_use]
    pub fn private(bytes: usize) -> Memory {
        Memory { file: None, bytes, taken: Mutex::default() }
    }

    /// The memory that another process made and left.
    pub fn of(file: OwnedFd) -> Result<Memory, Errno> {
        let bytes = usize::try_from(fstat(&file)?.st_size).map_err(|_| Errno::INVAL)?;
        Ok(Memory { file: Some(file), bytes, taken: Mutex::default() })
    }

    /// The file, for whoever is to hold it open as well.
    #[must_use]
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// Its size, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A part for one owner at a time.
    pub fn part(&self, at: usize, bytes: usize) -> Result<Part, Errno> {
        self.take(at, bytes)?;
        Part::map(self.file(), at, bytes)
    }

    /// Words that many threads may use at a time.
    pub fn words(&self, at: usize, count: usize) -> Result<Words, Errno> {
        let bytes = (count * size_of::<u64>()).next_multiple_of(PAGE_BYTES);
        self.take(at, bytes)?;
        Words::map(self.file(), at, count)
    }

    /// A ring of this many bytes.
    pub fn ring(&self, at: usize, bytes: usize) -> Result<Ring, Errno> {
        self.take(at, bytes)?;
        Ring::map(self.file().ok_or(Errno::OPNOTSUPP)?, at, bytes)
    }

    fn take(&self, at: usize, bytes: usize) -> Result<(), Errno> {
        let end = at.checked_add(bytes).ok_or(Errno::INVAL)?;
        let pages = at.is_multiple_of(PAGE_BYTES) && bytes.is_multiple_of(PAGE_BYTES);
        if !pages || bytes == 0 || end > self.bytes {
            return Err(Errno::INVAL);
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.iter().any(|range| range.start < end && at < range.end) {
            return Err(Errno::BUSY);
        }
        taken.push(at..end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_one_stored_another_finds() {
        let memory = Memory::new("test", 16 * PAGE_BYTES).unwrap();
        let mut part = memory.part(0, PAGE_BYTES).unwrap();
        part.as_mut_slice()[..5].copy_from_slice(b"hello");
        memory.words(PAGE_BYTES, 3).unwrap().get(2).store(7, Ordering::Release);
        let other = Memory::of(memory.file().unwrap().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(other.bytes(), 16 * PAGE_BYTES);
        assert_eq!(&other.part(0, PAGE_BYTES).unwrap().as_slice()[..5], b"hello");
        assert_eq!(other.words(PAGE_BYTES, 3).unwrap().get(2).load(Ordering::Acquire), 7);
    }

    #[test]
    fn parts_neither_overlap_nor_reach_beyond_the_end() {
        let memory = Memory::new("test", 4 * PAGE_BYTES).unwrap();
        let first = memory.part(PAGE_BYTES, 2 * PAGE_BYTES);
        assert!(first.is_ok());
        assert_eq!(memory.part(2 * PAGE_BYTES, PAGE_BYTES).unwrap_err(), Errno::BUSY);
        assert_eq!(memory.words(0, 513).unwrap_err(), Errno::BUSY);
        assert_eq!(memory.part(3 * PAGE_BYTES, 2 * PAGE_BYTES).unwrap_err(), Errno::INVAL);
        assert_eq!(memory.part(1, PAGE_BYTES).unwrap_err(), Errno::INVAL);
        assert!(memory.part(3 * PAGE_BYTES, PAGE_BYTES).is_ok());
    }
}
