//! A mapping: where it is, and that it goes away. Nothing is read or written here.

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// Mapped bytes of a file.
#[derive(Debug)]
pub(crate) struct Map {
    at: *mut u8,
    bytes: usize,
}

#[allow(unsafe_code, reason = "a mapping is the same in every thread")]
// SAFETY: the mapping belongs to the process; what may be done with its bytes at the same time is
// the business of the types that own it.
unsafe impl Send for Map {}
#[allow(unsafe_code, reason = "a mapping is the same in every thread")]
// SAFETY: as above; `Map` itself only hands out the address.
unsafe impl Sync for Map {}

impl Map {
    /// Maps bytes of a file once, or new ones without a file.
    #[allow(unsafe_code, reason = "mapping memory is unsafe")]
    pub(crate) fn once(
        file: Option<BorrowedFd<'_>>,
        at: usize,
        bytes: usize,
    ) -> Result<Map, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let Some(file) = file else {
            let flags = MapFlags::SHARED | MapFlags::NORESERVE;
            // SAFETY: as below.
            let mapped = unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, flags)? };
            return Ok(Map { at: mapped.cast(), bytes });
        };
        // SAFETY: a new mapping where the kernel likes touches nothing that is there.
        let mapped =
            unsafe { mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, file, at as u64)? };
        Ok(Map { at: mapped.cast(), bytes })
    }

    /// Maps bytes of a file twice, the second time right behind the first.
    #[allow(unsafe_code, reason = "mapping memory is unsafe")]
    pub(crate) fn twice(file: BorrowedFd<'_>, at: usize, bytes: usize) -> Result<Map, Errno> {
        let none = ProtFlags::empty();
        // SAFETY: as above; it only reserves room.
        let room = unsafe { mmap_anonymous(ptr::null_mut(), 2 * bytes, none, MapFlags::PRIVATE)? };
        let map = Map { at: room.cast(), bytes: 2 * bytes };
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        for half in 0..2 {
            // SAFETY: both halves lie in the room reserved above, which is nobody else's.
            unsafe {
                let place: *mut c_void = map.at.add(half * bytes).cast();
                mmap(place, bytes, protection, flags, file, at as u64)?;
            }
        }
        Ok(map)
    }

    pub(crate) fn at(&self) -> *mut u8 {
        self.at
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Map {
    #[allow(unsafe_code, reason = "unmapping memory is unsafe")]
    fn drop(&mut self) {
        // SAFETY: the mapping was made by this type with this length, and whoever borrowed from it
        // is gone. An error would leave it mapped, which harms nobody.
        let _ = unsafe { munmap(self.at.cast(), self.bytes) };
    }
}
