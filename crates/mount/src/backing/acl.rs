//! POSIX access control lists, as far as they are more than extended attributes.
//!
//! Who may do what by them is decided by the kernel, both above and below the mount.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::get_xattr;

/// Attribute that holds the list of a file.
pub const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// Attribute that holds the list which a directory passes on.
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Version of the attributes' layout.
const VERSION: u32 = 2;
/// Tags of the owner, the group and all others.
const TAGS: [u16; 3] = [0x01, 0x04, 0x20];
/// Stands where an entry names nobody.
const NOBODY: u32 = u32::MAX;

/// Whether the file system of a directory keeps lists.
#[must_use]
pub fn has_acls(directory: impl AsFd) -> bool {
    matches!(get_xattr(directory, DEFAULT_ACL), Ok(_) | Err(Errno::NODATA))
}

/// The access list that says no more than the permission bits of `mode`: setting it removes any
/// other one.
#[must_use]
pub fn minimal_acl(mode: u32) -> Vec<u8> {
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, shift) in TAGS.into_iter().zip([6, 3, 0]) {
        value.extend(tag.to_le_bytes());
        value.extend(((mode >> shift & 0o7) as u16).to_le_bytes());
        value.extend(NOBODY.to_le_bytes());
    }
    value
}
