//! What an object of the source is, for the target of a resync to make it so.
//!
//! Content is not part of it: that is compared and sent in blocks.

use replica::op::{FileId, Stamp};

use crate::frame::{Decoder, WireError, put_bytes};
use crate::op::{
    TARGET_BYTES_MAX, XATTR_BYTES_MAX, put_file, put_stamp, put_u64, take_bool, take_file,
    take_limited, take_name, take_stamp, take_xattr_name,
};

/// Extended attributes of one file that are carried: more do not fit into the list of their names,
/// which the kernel limits to 64 KiB.
pub const XATTRS_MAX: usize = 16 << 10;

/// What an object must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensure<'a> {
    /// Directory.
    pub parent: FileId,
    /// Name in it.
    pub name: &'a [u8],
    /// Id of the object.
    pub file: FileId,
    /// Whether the source takes it that the target holds the object.
    pub held: bool,
    /// Whether something that has other names must not be taken for it, as those are not looked
    /// at.
    pub apart: bool,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number.
    pub rdev: u64,
    /// Size of a regular file, in bytes.
    pub size: u64,
    /// Modification time, for what has no content to compare.
    pub mtime: Stamp,
    /// Target of a symlink.
    pub target: &'a [u8],
    /// All extended attributes, sorted by name.
    pub xattrs: Vec<(&'a [u8], &'a [u8])>,
}

/// Owner, permissions and extended attributes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// Object.
    pub file: FileId,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// All extended attributes, sorted by name.
    pub xattrs: Xattrs<'a>,
}

/// Extended attributes: names and values.
pub type Xattrs<'a> = Vec<(&'a [u8], &'a [u8])>;

pub(crate) fn put_ensure(out: &mut Vec<u8>, ensure: &Ensure<'_>) {
    put_file(out, ensure.parent);
    put_bytes(out, ensure.name);
    put_file(out, ensure.file);
    out.push(u8::from(ensure.held));
    out.push(u8::from(ensure.apart));
    for field in [ensure.mode, ensure.uid, ensure.gid] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    put_u64(out, ensure.rdev);
    put_u64(out, ensure.size);
    put_stamp(out, ensure.mtime);
    put_bytes(out, ensure.target);
    put_xattrs(out, &ensure.xattrs);
}

pub(crate) fn put_attributes(out: &mut Vec<u8>, attributes: &Attributes<'_>) {
    put_file(out, attributes.file);
    for field in [attributes.mode, attributes.uid, attributes.gid] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    put_xattrs(out, &attributes.xattrs);
}

pub(crate) fn take_attributes<'a>(decoder: &mut Decoder<'a>) -> Result<Attributes<'a>, WireError> {
    Ok(Attributes {
        file: take_file(decoder)?,
        mode: decoder.u32()?,
        uid: decoder.u32()?,
        gid: decoder.u32()?,
        xattrs: take_xattrs(decoder)?,
    })
}

fn put_xattrs(out: &mut Vec<u8>, xattrs: &[(&[u8], &[u8])]) {
    for (name, value) in xattrs {
        out.push(1);
        put_bytes(out, name);
        put_bytes(out, value);
    }
    out.push(0);
}

pub(crate) fn take_ensure<'a>(decoder: &mut Decoder<'a>) -> Result<Ensure<'a>, WireError> {
    let ensure = Ensure {
        parent: take_file(decoder)?,
        name: take_name(decoder)?,
        file: take_file(decoder)?,
        held: take_bool(decoder)?,
        apart: take_bool(decoder)?,
        mode: decoder.u32()?,
        uid: decoder.u32()?,
        gid: decoder.u32()?,
        rdev: decoder.u64()?,
        size: decoder.u64()?,
        mtime: take_stamp(decoder)?,
        target: take_limited(decoder, TARGET_BYTES_MAX, "symlink target")?,
        xattrs: take_xattrs(decoder)?,
    };
    if ensure.size > i64::MAX as u64 {
        return Err(WireError::Value("size"));
    }
    Ok(ensure)
}

fn take_xattrs<'a>(decoder: &mut Decoder<'a>) -> Result<Xattrs<'a>, WireError> {
    let mut xattrs = Vec::new();
    while take_bool(decoder)? {
        if xattrs.len() == XATTRS_MAX {
            return Err(WireError::Value("number of attributes"));
        }
        let name = take_xattr_name(decoder)?;
        xattrs.push((name, take_limited(decoder, XATTR_BYTES_MAX, "attribute value")?));
    }
    Ok(xattrs)
}
