//! A shared mapping of a file.

#![allow(unsafe_code, reason = "a mapping has no safe wrapper")]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::File;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// A file mapped whole.
pub struct Mapping {
    at: *mut u8,
    length: usize,
}

impl Mapping {
    pub fn shared(file: &File, length: usize) -> Mapping {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place where nothing else is.
        let at = unsafe { mmap(std::ptr::null_mut(), length, access, MapFlags::SHARED, file, 0) };
        Mapping { at: at.unwrap().cast(), length }
    }

    pub fn store(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.length);
        // SAFETY: the range lies within the mapping, which nobody else refers to.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at.add(at), bytes.len()) };
    }

    pub fn load(&self, at: usize, length: usize) -> Vec<u8> {
        assert!(at + length <= self.length);
        let mut bytes = vec![0; length];
        // SAFETY: the range lies within the mapping.
        unsafe { std::ptr::copy_nonoverlapping(self.at.add(at), bytes.as_mut_ptr(), length) };
        bytes
    }

    pub fn sync(&self) {
        // SAFETY: the range is that of the mapping.
        unsafe { msync(self.at.cast(), self.length, MsyncFlags::SYNC) }.unwrap();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more.
        let _ = unsafe { munmap(self.at.cast(), self.length) };
    }
}
