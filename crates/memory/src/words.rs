//! Words that many threads use at a time.

use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;

use rustix::io::Errno;

use crate::PAGE_BYTES;
use crate::map::Map;

/// Words that outlive the process.
#[derive(Debug)]
pub struct Words {
    map: Map,
    count: usize,
}

impl Words {
    pub(crate) fn map(
        file: Option<BorrowedFd<'_>>,
        at: usize,
        count: usize,
    ) -> Result<Words, Errno> {
        let bytes = (count * size_of::<u64>()).next_multiple_of(PAGE_BYTES);
        Map::once(file, at, bytes).map(|map| Words { map, count })
    }

    /// A word.
    ///
    /// # Panics
    /// There are not so many.
    #[must_use]
    #[allow(unsafe_code, reason = "the bytes behind a mapping have no safe type")]
    pub fn get(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count, "word {index} of {}", self.count);
        // SAFETY: the word lies within the mapping, which begins at a page and lives as long as
        // `self`; all access to it is atomic.
        unsafe { AtomicU64::from_ptr(self.map.at().cast::<u64>().add(index)) }
    }
}
