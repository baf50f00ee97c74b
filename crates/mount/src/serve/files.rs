//! Open files and directories by the handles that the kernel was given.
//!
//! A handle number is never used twice. What is open stays so while a request is using it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use fuse::{Errno, abi};

use super::directories::Listed;

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) node: u64,
    pub(super) file: OwnedFd,
    /// Whether what is written to it comes here as it is, past the page cache.
    pub(super) direct: bool,
}

/// An open directory.
pub(super) struct OpenDirectory {
    pub(super) node: u64,
    pub(super) listed: Mutex<Listed>,
}

#[derive(Default)]
pub(super) struct Files {
    next: AtomicU64,
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    directories: RwLock<HashMap<u64, Arc<OpenDirectory>>>,
}

impl Files {
    pub(super) fn add_file(&self, node: u64, file: OwnedFd, cache_mode: u32) -> u64 {
        let handle = self.number();
        let direct = cache_mode & abi::FOPEN_DIRECT_IO != 0;
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.insert(handle, Arc::new(OpenFile { node, file, direct }));
        handle
    }

    pub(super) fn file(&self, handle: u64) -> Result<Arc<OpenFile>, Errno> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&handle).map(Arc::clone).ok_or(Errno::BADF)
    }

    pub(super) fn close_file(&self, handle: u64) {
        let closed = self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&handle);
        // Closed outside the lock: the last close of a removed file may take long.
        drop(closed);
    }

    pub(super) fn add_directory(&self, node: u64, listed: Listed) -> u64 {
        let handle = self.number();
        let directory = Arc::new(OpenDirectory { node, listed: Mutex::new(listed) });
        let mut directories = self.directories.write().unwrap_or_else(PoisonError::into_inner);
        directories.insert(handle, directory);
        handle
    }

    pub(super) fn directory(&self, handle: u64) -> Result<Arc<OpenDirectory>, Errno> {
        let directories = self.directories.read().unwrap_or_else(PoisonError::into_inner);
        directories.get(&handle).map(Arc::clone).ok_or(Errno::BADF)
    }

    pub(super) fn close_directory(&self, handle: u64) {
        let mut directories = self.directories.write().unwrap_or_else(PoisonError::into_inner);
        directories.remove(&handle);
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }
}
