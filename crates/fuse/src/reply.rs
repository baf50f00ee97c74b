//! Layout of answers: plain values in, bytes out.
//!
//! It knows the order of fields, not what they mean for a file system. Validity times are
//! infinite unless the caller asks for none.

use crate::abi;

/// Attributes of an inode, as `stat` shows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attr {
    /// Inode number shown to programs.
    pub ino: u64,
    /// Size, in bytes.
    pub size: u64,
    /// Size on disk, in units of 512 bytes.
    pub blocks: u64,
    /// Access time: seconds and nanoseconds.
    pub atime: (i64, u32),
    /// Modification time.
    pub mtime: (i64, u32),
    /// Change time.
    pub ctime: (i64, u32),
    /// Birth time; only `statx` shows it.
    pub btime: Option<(i64, u32)>,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a special file, in the kernel's 32-bit form.
    pub rdev: u32,
    /// Preferred size of transfers, in bytes.
    pub blksize: u32,
}

/// Figures of a file system, as `statfs` shows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Blocks of `frsize` bytes.
    pub blocks: u64,
    /// Free ones.
    pub bfree: u64,
    /// Free ones for unprivileged users.
    pub bavail: u64,
    /// Inodes.
    pub files: u64,
    /// Free ones.
    pub ffree: u64,
    /// Preferred size of transfers, in bytes.
    pub bsize: u32,
    /// Longest name, in bytes.
    pub namelen: u32,
    /// Size of a block, in bytes.
    pub frsize: u32,
}

/// Seconds that mean for ever.
const FOREVER: u64 = u64::MAX;

/// Bytes of an answer under construction.
#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(&mut self, value: u32) -> &mut Bytes {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Bytes {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn attr(&mut self, attr: &Attr) -> &mut Bytes {
        self.u64(attr.ino).u64(attr.size).u64(attr.blocks);
        for time in [attr.atime, attr.mtime, attr.ctime] {
            self.u64(time.0.cast_unsigned());
        }
        for time in [attr.atime, attr.mtime, attr.ctime] {
            self.u32(time.1);
        }
        self.u32(attr.mode).u32(attr.nlink).u32(attr.uid).u32(attr.gid);
        self.u32(attr.rdev).u32(attr.blksize).u32(0)
    }

    fn entry(&mut self, node: u64, attr: &Attr) -> &mut Bytes {
        self.u64(node).u64(0).u64(FOREVER).u64(FOREVER).u32(0).u32(0).attr(attr)
    }

    fn statx_time(&mut self, time: (i64, u32)) -> &mut Bytes {
        self.u64(time.0.cast_unsigned()).u32(time.1).u32(0)
    }
}

/// Answer to whatever makes a name known: its node id and attributes.
#[must_use]
pub fn entry(node: u64, attr: &Attr) -> Vec<u8> {
    let mut bytes = Bytes::default();
    bytes.entry(node, attr);
    bytes.0
}

/// Answer to a lookup: the name does not exist, and the kernel may remember that.
#[must_use]
pub fn no_entry() -> Vec<u8> {
    entry(0, &Attr::default())
}

/// Answer to `getattr` and `setattr`.
#[must_use]
pub fn attr(attr: &Attr) -> Vec<u8> {
    let mut bytes = Bytes::default();
    bytes.u64(FOREVER).u32(0).u32(0).attr(attr);
    bytes.0
}

/// Answer to `statx`.
#[must_use]
pub fn statx(attr: &Attr) -> Vec<u8> {
    const BASIC: u32 = 0x7ff;
    const BTIME: u32 = 0x800;
    let mut bytes = Bytes::default();
    bytes.u64(FOREVER).u32(0).u32(0).u64(0).u64(0);
    bytes.u32(BASIC | if attr.btime.is_some() { BTIME } else { 0 });
    bytes.u32(attr.blksize).u64(0).u32(attr.nlink).u32(attr.uid).u32(attr.gid);
    // The mode has 16 bits there, followed by padding.
    bytes.0.extend_from_slice(&(attr.mode as u16).to_ne_bytes());
    bytes.0.extend_from_slice(&[0; 2]);
    bytes.u64(attr.ino).u64(attr.size).u64(attr.blocks).u64(0);
    bytes.statx_time(attr.atime).statx_time(attr.btime.unwrap_or_default());
    bytes.statx_time(attr.ctime).statx_time(attr.mtime);
    let (major, minor) = ((attr.rdev >> 8) & 0xfff, (attr.rdev & 0xff) | ((attr.rdev >> 12) << 8));
    bytes.u32(major).u32(minor & 0xf_ffff).u32(0).u32(0);
    (0..14).for_each(|_| {
        bytes.u64(0);
    });
    bytes.0
}

/// Answer to `open` and `opendir`; flags are `FOPEN_...`.
#[must_use]
pub fn open(handle: u64, flags: u32) -> Vec<u8> {
    let mut bytes = Bytes::default();
    bytes.u64(handle).u32(flags).u32(0);
    bytes.0
}

/// Answer to `create`.
#[must_use]
pub fn create(node: u64, attr: &Attr, handle: u64, flags: u32) -> Vec<u8> {
    let mut bytes = entry(node, attr);
    bytes.extend(open(handle, flags));
    bytes
}

/// Answer to `write`, and to questions for the length of extended attributes.
#[must_use]
pub fn size(size: u32) -> Vec<u8> {
    let mut bytes = Bytes::default();
    bytes.u32(size).u32(0);
    bytes.0
}

/// Answer to `lseek`.
#[must_use]
pub fn offset(offset: u64) -> Vec<u8> {
    offset.to_ne_bytes().to_vec()
}

/// Answer to `statfs`.
#[must_use]
pub fn statfs(figures: &StatFs) -> Vec<u8> {
    let mut bytes = Bytes::default();
    bytes.u64(figures.blocks).u64(figures.bfree).u64(figures.bavail);
    bytes.u64(figures.files).u64(figures.ffree);
    bytes.u32(figures.bsize).u32(figures.namelen).u32(figures.frsize);
    (0..7).for_each(|_| {
        bytes.u32(0);
    });
    bytes.0
}

/// Answer to `init`: what is agreed on.
#[must_use]
pub(crate) fn init(minor: u32, readahead: u32, flags: u64) -> Vec<u8> {
    const BACKGROUND_MAX: u16 = 64;
    const CONGESTED: u16 = 48;
    let mut bytes = Bytes::default();
    bytes.u32(abi::MAJOR).u32(minor).u32(readahead).u32(flags as u32);
    bytes.0.extend_from_slice(&BACKGROUND_MAX.to_ne_bytes());
    bytes.0.extend_from_slice(&CONGESTED.to_ne_bytes());
    // Times have a granularity of one nanosecond.
    bytes.u32(abi::WRITE_BYTES_MAX).u32(1);
    bytes.0.extend_from_slice(&abi::PAGES_MAX.to_ne_bytes());
    bytes.0.extend_from_slice(&[0; 2]);
    bytes.u32((flags >> 32) as u32);
    (0..7).for_each(|_| {
        bytes.u32(0);
    });
    bytes.0
}

/// Entries of a listing, up to the size that the kernel has room for.
#[derive(Debug)]
pub struct Listing {
    bytes: Bytes,
    room: usize,
}

impl Listing {
    /// An empty listing of at most `room` bytes.
    #[must_use]
    pub fn new(room: usize) -> Listing {
        Listing { bytes: Bytes::default(), room: room.min(abi::WRITE_BYTES_MAX as usize) }
    }

    /// Adds an entry; `false` when it does not fit. `next` is the offset at which the following
    /// one is asked for, `kind` the type as in `d_type`.
    #[must_use]
    pub fn add(&mut self, name: &[u8], ino: u64, kind: u8, next: u64) -> bool {
        self.fits(entry_bytes(name.len())) && {
            self.dirent(name, ino, kind, next);
            true
        }
    }

    /// Whether an entry with attributes and a name of this length fits.
    #[must_use]
    pub fn has_room_plus(&self, name_bytes: usize) -> bool {
        self.fits(ENTRY_OUT_BYTES + entry_bytes(name_bytes))
    }

    /// Adds an entry with attributes, for which there is room; node 0 promises nothing.
    pub fn add_plus(&mut self, name: &[u8], node: u64, attr: &Attr, kind: u8, next: u64) {
        self.bytes.entry(node, attr);
        self.dirent(name, attr.ino, kind, next);
    }

    /// The answer.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.0
    }

    fn fits(&self, bytes: usize) -> bool {
        self.bytes.0.len() + bytes <= self.room
    }

    fn dirent(&mut self, name: &[u8], ino: u64, kind: u8, next: u64) {
        self.bytes.u64(ino).u64(next).u32(name.len() as u32).u32(u32::from(kind));
        self.bytes.0.extend_from_slice(name);
        let padded = self.bytes.0.len().next_multiple_of(8);
        self.bytes.0.resize(padded, 0);
    }
}

/// Bytes of the entry and attributes before each name of a listing with attributes.
const ENTRY_OUT_BYTES: usize = 128;

fn entry_bytes(name_bytes: usize) -> usize {
    (24 + name_bytes).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of the kernel's structures: a wrong one makes it refuse the answer.
    #[test]
    fn answers_have_the_size_the_kernel_expects() {
        let plain = Attr::default();
        assert_eq!(entry(2, &plain).len(), ENTRY_OUT_BYTES);
        assert_eq!(attr(&plain).len(), 104);
        assert_eq!(statx(&plain).len(), 288);
        assert_eq!(open(1, 0).len(), 16);
        assert_eq!(create(2, &plain, 1, 0).len(), 144);
        assert_eq!(statfs(&StatFs::default()).len(), 80);
        assert_eq!(init(45, 0, 0).len(), 64);
    }

    #[test]
    fn a_listing_stops_at_its_room() {
        let mut listing = Listing::new(100);
        assert!(listing.add(b"seventeen bytes..", 1, 8, 1));
        assert!(listing.add(b"x", 2, 4, 2));
        assert!(!listing.add(b"y", 3, 4, 3));
        assert!(!listing.has_room_plus(1));
        assert_eq!(listing.into_bytes().len(), 48 + 32);
    }
}
