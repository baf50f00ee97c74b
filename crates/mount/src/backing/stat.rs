//! Attributes of a file, with times in nanoseconds.
//!
//! Plain values; conversion to what the kernel or the peer wants happens where they are sent.

use std::os::fd::AsFd;

use replica::op::Stamp;
use rustix::fs::{AtFlags, StatxFlags, StatxTimestamp, makedev, statx};
use rustix::io::Errno;

use super::Kind;

/// Attributes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Device of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a special file.
    pub rdev: u64,
    /// Size, in bytes.
    pub size: u64,
    /// Size on disk, in units of 512 bytes.
    pub blocks: u64,
    /// Preferred size of transfers, in bytes.
    pub blksize: u32,
    /// Access time.
    pub atime: Stamp,
    /// Modification time.
    pub mtime: Stamp,
    /// Change time.
    pub ctime: Stamp,
    /// Birth time, where the file system has one.
    pub btime: Option<Stamp>,
    /// Id of the mount through which it was seen; 0 on kernels that do not say.
    pub mount: u64,
}

impl Stat {
    /// Type of the file.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::of_mode(self.mode)
    }
}

/// Attributes of what a descriptor refers to; works on `O_PATH` descriptors and symlinks.
pub fn stat(file: impl AsFd) -> Result<Stat, Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    let found = statx(file, "", AtFlags::EMPTY_PATH, wanted)?;
    let has = |what: StatxFlags| found.stx_mask & what.bits() != 0;
    Ok(Stat {
        dev: makedev(found.stx_dev_major, found.stx_dev_minor),
        ino: found.stx_ino,
        mode: u32::from(found.stx_mode),
        nlink: found.stx_nlink,
        uid: found.stx_uid,
        gid: found.stx_gid,
        rdev: makedev(found.stx_rdev_major, found.stx_rdev_minor),
        size: found.stx_size,
        blocks: found.stx_blocks,
        blksize: found.stx_blksize,
        atime: stamp(found.stx_atime),
        mtime: stamp(found.stx_mtime),
        ctime: stamp(found.stx_ctime),
        btime: has(StatxFlags::BTIME).then(|| stamp(found.stx_btime)),
        mount: if has(StatxFlags::MNT_ID) { found.stx_mnt_id } else { 0 },
    })
}

fn stamp(time: StatxTimestamp) -> Stamp {
    Stamp { seconds: time.tv_sec, nanoseconds: time.tv_nsec }
}
