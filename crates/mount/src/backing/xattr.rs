//! Extended attributes of anything, through descriptors of any sort.
//!
//! `O_PATH` descriptors are refused by the calls that take descriptors, so these go through
//! /proc, where the last step leads to the file itself, symlinks included.

use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::magic_path;

/// Longest value or list of names that the kernel allows, in bytes.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// The value of an attribute; `ENODATA` when there is none.
pub fn get_xattr(file: impl AsFd, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let path = magic_path(file.as_fd());
    read_growing(|buffer| rustix::fs::getxattr(path.as_str(), name, buffer))
}

/// The names of all attributes.
pub fn list_xattr(file: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let path = magic_path(file.as_fd());
    let names = read_growing(|buffer| rustix::fs::listxattr(path.as_str(), buffer))?;
    Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Sets an attribute; flags as of setxattr.
pub fn set_xattr(file: impl AsFd, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
    let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
    rustix::fs::setxattr(magic_path(file.as_fd()).as_str(), name, value, flags)
}

/// Removes an attribute; `ENODATA` when there is none.
pub fn remove_xattr(file: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::removexattr(magic_path(file.as_fd()).as_str(), name)
}

/// Most values are short; only a long one costs a second call.
fn read_growing(get: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    for bytes in [512, XATTR_BYTES_MAX] {
        let mut buffer = vec![0; bytes];
        match get(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::TOOBIG)
}
