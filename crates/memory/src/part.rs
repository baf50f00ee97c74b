//! A part that has one owner at a time, as bytes.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::mm::{Advice, madvise};

use crate::map::Map;

/// Bytes that outlive the process.
#[derive(Debug)]
pub struct Part {
    map: Map,
}

impl Part {
    pub(crate) fn map(
        file: Option<BorrowedFd<'_>>,
        at: usize,
        bytes: usize,
    ) -> Result<Part, Errno> {
        Map::once(file, at, bytes).map(|map| Part { map })
    }

    /// Its bytes.
    #[must_use]
    #[allow(unsafe_code, reason = "the bytes behind a mapping have no safe type")]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as `self`; `Memory` hands each range out once, and no
        // other process works in it at the same time.
        unsafe { std::slice::from_raw_parts(self.map.at(), self.map.bytes()) }
    }

    /// Its bytes, to be changed.
    #[must_use]
    #[allow(unsafe_code, reason = "the bytes behind a mapping have no safe type")]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.map.at(), self.map.bytes()) }
    }

    /// Has all of it in memory from here on, as far as the system allows, so that no access waits.
    #[allow(unsafe_code, reason = "locking memory is unsafe, and so is a store nobody may omit")]
    pub fn settle(&mut self) {
        let length = self.map.bytes();
        // SAFETY: the range is the mapping. Without the right to lock, pages may go away later,
        // which makes it slower and nothing else.
        let _ = unsafe { rustix::mm::mlock(self.map.at().cast(), length) };
        for page in self.as_mut_slice().chunks_mut(crate::PAGE_BYTES) {
            if let Some(byte) = page.first_mut() {
                // SAFETY: a valid place, which gets what it holds; the page is written to by that.
                unsafe { std::ptr::write_volatile(byte, std::ptr::read_volatile(byte)) };
            }
        }
    }

    /// Gives the memory of everything from this byte on back to the system; it reads as zeros
    /// then. `from` is rounded up to whole pages.
    #[allow(unsafe_code, reason = "giving memory back is unsafe")]
    pub fn release(&mut self, from: usize) -> Result<(), Errno> {
        let from = from.next_multiple_of(crate::PAGE_BYTES);
        if from >= self.map.bytes() {
            return Ok(());
        }
        // SAFETY: the range lies within the mapping, and `self` is borrowed alone.
        unsafe {
            let at = self.map.at().add(from);
            madvise(at.cast(), self.map.bytes() - from, Advice::LinuxRemove)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Memory, PAGE_BYTES};

    #[test]
    fn what_is_released_is_zero_and_takes_no_room() {
        let memory = Memory::new("test", 64 * PAGE_BYTES).unwrap();
        let mut part = memory.part(0, 64 * PAGE_BYTES).unwrap();
        part.as_mut_slice().fill(7);
        part.release(PAGE_BYTES + 1).unwrap();
        part.release(64 * PAGE_BYTES).unwrap();
        let blocks = rustix::fs::fstat(memory.file().unwrap()).unwrap().st_blocks;
        assert_eq!(blocks, 2 * PAGE_BYTES as i64 / 512);
        let (kept, gone) = part.as_slice().split_at(2 * PAGE_BYTES);
        assert!(kept.iter().all(|byte| *byte == 7));
        assert!(gone.iter().all(|byte| *byte == 0));
    }
}
