//! Stores to a shared mapping, and `truncate`: what a writer does and no safe wrapper offers.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Stores each part at its offset through a shared mapping of the whole file, then `msync`s it.
/// The file must reach to the end of every part, and nobody may cut it meanwhile.
#[allow(unsafe_code, reason = "mmap is not wrapped safely")]
pub(super) fn store(file: &File, parts: &[(usize, Vec<u8>)]) -> io::Result<()> {
    let Some(length) = parts.iter().map(|(offset, data)| offset + data.len()).max() else {
        return Ok(());
    };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let (shared, fd) = (libc::MAP_SHARED, file.as_raw_fd());
    // SAFETY: a new mapping of an open file at an address that the kernel chooses.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, shared, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    for (offset, data) in parts {
        // SAFETY: offset and length of each part lie in the mapping, which is `length` long and
        // unknown to anybody else in this process; the kernel ends us should the file be shorter.
        unsafe {
            start.cast::<u8>().add(*offset).copy_from_nonoverlapping(data.as_ptr(), data.len())
        };
    }
    // SAFETY: the mapping made above, whole.
    let synced = match unsafe { libc::msync(start, length, libc::MS_SYNC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the mapping made above, whole; nothing refers to it any more.
    unsafe { libc::munmap(start, length) };
    synced
}

/// Sets a file's size by its name, which the standard library does only by a descriptor.
#[allow(unsafe_code, reason = "truncate is not wrapped safely")]
pub(super) fn truncate(path: &Path, size: u64) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let size = libc::off_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: the name ends with a NUL and lives until the call returns.
    match unsafe { libc::truncate(name.as_ptr(), size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
