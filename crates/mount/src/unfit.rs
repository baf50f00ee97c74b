//! File systems whose directories cannot be replicated, told before anything is mounted.
//!
//! One is known: ext4 with `inline_data`, which no distribution makes by itself. It keeps a small
//! directory within its inode, and there the kernel (6.18 was tried) does not find the parent: such
//! a directory cannot be opened by handle unless it was reached by its path of late, and answers
//! `ESTALE`. Nothing is concluded from a device that cannot be read.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{major, minor};

use crate::backing::Root;
use crate::mounts;

/// What statfs says of ext2, ext3 and ext4.
const EXT4_MAGIC: u64 = 0xef53;
/// Where the superblock lies on the device, and what lies where in it, in bytes.
const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 0x68;
const MAGIC_AT: usize = 0x38;
const INCOMPATIBLE_AT: usize = 0x60;
/// The bit of `inline_data` among the features that an older kernel must not mount.
const INLINE_DATA: u32 = 0x8000;

/// Why the directory cannot be replicated where it is, and the mend; none where nothing is known
/// against it.
#[must_use]
pub fn unfit(path: &Path, root: &Root) -> Option<String> {
    let found = rustix::fs::fstatfs(root).ok()?;
    if found.f_type as u64 != EXT4_MAGIC {
        return None;
    }
    let device = root.stat().dev;
    let device = format!("{}:{}", major(device), minor(device)).into_bytes();
    let mount = mounts::mounts().ok()?.into_iter().find(|mount| mount.device == device)?;
    let disk = Path::new(OsStr::from_bytes(&mount.source));
    let mut superblock = [0; SUPERBLOCK_BYTES];
    File::open(disk).ok()?.read_exact_at(&mut superblock, SUPERBLOCK_AT).ok()?;
    has_inline_data(&superblock).then(|| {
        format!(
            "{} is on an ext4 with the feature inline_data ({}), whose small directories the \
             kernel cannot open by handle; move it to a file system made without \
             (mkfs.ext4 -O ^inline_data)",
            path.display(),
            disk.display()
        )
    })
}

fn has_inline_data(superblock: &[u8]) -> bool {
    let magic = superblock.get(MAGIC_AT..).and_then(|rest| rest.first_chunk());
    let features = superblock.get(INCOMPATIBLE_AT..).and_then(|rest| rest.first_chunk());
    let (Some(magic), Some(features)) = (magic, features) else { return false };
    u64::from(u16::from_le_bytes(*magic)) == EXT4_MAGIC
        && u32::from_le_bytes(*features) & INLINE_DATA != 0
}
