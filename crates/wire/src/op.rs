//! Encoding of `replica::op::Op`.
//!
//! Names and data are raw bytes, as the file system has them. A name is checked here once for
//! all: one component, no slash, no NUL, not `.` or `..`, so that no decoded operation can leave
//! its directory.

use replica::op::{Attr, FileId, Op, Stamp};

use crate::frame::{Decoder, WireError, put_bytes};

/// Longest name of a directory entry, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symlink, in bytes.
pub const TARGET_BYTES_MAX: usize = 4096;
/// Longest value of an extended attribute, in bytes.
pub const XATTR_BYTES_MAX: usize = 1 << 16;

const WRITE: u8 = 1;
const SET_ATTR: u8 = 2;
const CREATE: u8 = 3;
const LINK: u8 = 4;
const REMOVE: u8 = 5;
const RENAME: u8 = 6;
const SET_XATTR: u8 = 7;
const REMOVE_XATTR: u8 = 8;
const ALLOCATE: u8 = 9;
const SYNC: u8 = 10;

/// Appends an operation.
pub fn put_op(out: &mut Vec<u8>, op: &Op<'_>) {
    match *op {
        Op::Write { file, offset, data, mtime } => {
            start(out, WRITE, file);
            put_u64(out, offset);
            put_stamp(out, mtime);
            out.extend_from_slice(data);
        }
        Op::SetAttr { file, attr } => {
            start(out, SET_ATTR, file);
            put_attr(out, &attr);
        }
        Op::Create { .. } => put_create(out, op),
        Op::Link { file, parent, name, parent_mtime } => {
            start(out, LINK, file);
            put_file(out, parent);
            put_bytes(out, name);
            put_stamp(out, parent_mtime);
        }
        Op::Remove { parent, name, directory, parent_mtime } => {
            start(out, REMOVE, parent);
            put_bytes(out, name);
            out.push(u8::from(directory));
            put_stamp(out, parent_mtime);
        }
        Op::Rename { .. } => put_rename(out, op),
        Op::SetXattr { file, name, value } => {
            start(out, SET_XATTR, file);
            put_bytes(out, name);
            put_bytes(out, value);
        }
        Op::RemoveXattr { file, name } => {
            start(out, REMOVE_XATTR, file);
            put_bytes(out, name);
        }
        Op::Allocate { file, mode, offset, length, mtime } => {
            start(out, ALLOCATE, file);
            out.extend_from_slice(&mode.to_le_bytes());
            put_u64(out, offset);
            put_u64(out, length);
            put_stamp(out, mtime);
        }
        Op::Sync { file, data_only } => {
            start(out, SYNC, file);
            out.push(u8::from(data_only));
        }
    }
}

fn put_create(out: &mut Vec<u8>, op: &Op<'_>) {
    let Op::Create { parent, name, file, mode, uid, gid, rdev, target, mtime, parent_mtime } = *op
    else {
        return;
    };
    start(out, CREATE, parent);
    put_bytes(out, name);
    put_file(out, file);
    for field in [mode, uid, gid] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    put_u64(out, rdev);
    put_bytes(out, target);
    put_stamp(out, mtime);
    put_stamp(out, parent_mtime);
}

fn put_rename(out: &mut Vec<u8>, op: &Op<'_>) {
    let Op::Rename { parent, name, new_parent, new_name, flags, parent_mtime, new_parent_mtime } =
        *op
    else {
        return;
    };
    start(out, RENAME, parent);
    put_bytes(out, name);
    put_file(out, new_parent);
    put_bytes(out, new_name);
    out.extend_from_slice(&flags.to_le_bytes());
    put_stamp(out, parent_mtime);
    put_stamp(out, new_parent_mtime);
}

/// Reads an operation that fills the rest of the frame.
pub fn take_op<'a>(decoder: &mut Decoder<'a>) -> Result<Op<'a>, WireError> {
    let kind = decoder.u8()?;
    let first = take_file(decoder)?;
    Ok(match kind {
        WRITE => {
            let offset = decoder.u64()?;
            let mtime = take_stamp(decoder)?;
            let data = decoder.remainder();
            if offset.checked_add(data.len() as u64).is_none_or(|end| end > i64::MAX as u64) {
                return Err(WireError::Value("offset"));
            }
            Op::Write { file: first, offset, data, mtime }
        }
        SET_ATTR => Op::SetAttr { file: first, attr: take_attr(decoder)? },
        CREATE => take_create(decoder, first)?,
        LINK => Op::Link {
            file: first,
            parent: take_file(decoder)?,
            name: take_name(decoder)?,
            parent_mtime: take_stamp(decoder)?,
        },
        REMOVE => Op::Remove {
            parent: first,
            name: take_name(decoder)?,
            directory: take_bool(decoder)?,
            parent_mtime: take_stamp(decoder)?,
        },
        RENAME => Op::Rename {
            parent: first,
            name: take_name(decoder)?,
            new_parent: take_file(decoder)?,
            new_name: take_name(decoder)?,
            flags: decoder.u32()?,
            parent_mtime: take_stamp(decoder)?,
            new_parent_mtime: take_stamp(decoder)?,
        },
        SET_XATTR => Op::SetXattr {
            file: first,
            name: take_xattr_name(decoder)?,
            value: take_limited(decoder, XATTR_BYTES_MAX, "attribute value")?,
        },
        REMOVE_XATTR => Op::RemoveXattr { file: first, name: take_xattr_name(decoder)? },
        ALLOCATE => Op::Allocate {
            file: first,
            mode: decoder.u32()?,
            offset: decoder.u64()?,
            length: decoder.u64()?,
            mtime: take_stamp(decoder)?,
        },
        SYNC => Op::Sync { file: first, data_only: take_bool(decoder)? },
        unknown => return Err(WireError::Kind(unknown)),
    })
}

fn take_create<'a>(decoder: &mut Decoder<'a>, parent: FileId) -> Result<Op<'a>, WireError> {
    Ok(Op::Create {
        parent,
        name: take_name(decoder)?,
        file: take_file(decoder)?,
        mode: decoder.u32()?,
        uid: decoder.u32()?,
        gid: decoder.u32()?,
        rdev: decoder.u64()?,
        target: take_limited(decoder, TARGET_BYTES_MAX, "symlink target")?,
        mtime: take_stamp(decoder)?,
        parent_mtime: take_stamp(decoder)?,
    })
}

/// Appends a file id.
pub fn put_file(out: &mut Vec<u8>, file: FileId) {
    out.extend_from_slice(&file.tree.to_le_bytes());
    put_u64(out, file.node);
}

/// Reads a file id.
pub fn take_file(decoder: &mut Decoder<'_>) -> Result<FileId, WireError> {
    Ok(FileId { tree: decoder.u16()?, node: decoder.u64()? })
}

/// Reads the name of a directory entry.
pub fn take_name<'a>(decoder: &mut Decoder<'a>) -> Result<&'a [u8], WireError> {
    let name = take_limited(decoder, NAME_BYTES_MAX, "name")?;
    let bad = name.is_empty()
        || name == b"."
        || name == b".."
        || name.iter().any(|byte| *byte == b'/' || *byte == 0);
    if bad { Err(WireError::Value("name")) } else { Ok(name) }
}

/// Reads the name of an extended attribute.
pub fn take_xattr_name<'a>(decoder: &mut Decoder<'a>) -> Result<&'a [u8], WireError> {
    let name = take_limited(decoder, NAME_BYTES_MAX, "attribute name")?;
    let bad = name.is_empty() || name.contains(&0) || !name.contains(&b'.');
    if bad { Err(WireError::Value("attribute name")) } else { Ok(name) }
}

/// Reads bytes of limited length.
pub fn take_limited<'a>(
    decoder: &mut Decoder<'a>,
    limit: usize,
    what: &'static str,
) -> Result<&'a [u8], WireError> {
    let bytes = decoder.bytes()?;
    if bytes.len() > limit { Err(WireError::Value(what)) } else { Ok(bytes) }
}

/// Appends a time.
pub fn put_stamp(out: &mut Vec<u8>, stamp: Stamp) {
    out.extend_from_slice(&stamp.seconds.to_le_bytes());
    out.extend_from_slice(&stamp.nanoseconds.to_le_bytes());
}

/// Reads a time.
pub fn take_stamp(decoder: &mut Decoder<'_>) -> Result<Stamp, WireError> {
    let stamp = Stamp { seconds: decoder.i64()?, nanoseconds: decoder.u32()? };
    if stamp.nanoseconds >= 1_000_000_000 { Err(WireError::Value("time")) } else { Ok(stamp) }
}

/// Reads a truth value.
pub fn take_bool(decoder: &mut Decoder<'_>) -> Result<bool, WireError> {
    match decoder.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Value("truth value")),
    }
}

/// Appends eight bytes.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn start(out: &mut Vec<u8>, kind: u8, file: FileId) {
    out.push(kind);
    put_file(out, file);
}

fn put_attr(out: &mut Vec<u8>, attr: &Attr) {
    let present = u8::from(attr.mode.is_some())
        | u8::from(attr.uid.is_some()) << 1
        | u8::from(attr.gid.is_some()) << 2
        | u8::from(attr.size.is_some()) << 3
        | u8::from(attr.mtime.is_some()) << 4;
    out.push(present);
    for field in [attr.mode, attr.uid, attr.gid].into_iter().flatten() {
        out.extend_from_slice(&field.to_le_bytes());
    }
    if let Some(size) = attr.size {
        put_u64(out, size);
    }
    if let Some(mtime) = attr.mtime {
        put_stamp(out, mtime);
    }
}

fn take_attr(decoder: &mut Decoder<'_>) -> Result<Attr, WireError> {
    let present = decoder.u8()?;
    if present >= 1 << 5 {
        return Err(WireError::Value("attribute set"));
    }
    let has = |bit: u8| present & (1 << bit) != 0;
    let mut attr = Attr::default();
    if has(0) {
        attr.mode = Some(decoder.u32()?);
    }
    if has(1) {
        attr.uid = Some(decoder.u32()?);
    }
    if has(2) {
        attr.gid = Some(decoder.u32()?);
    }
    if has(3) {
        attr.size = Some(decoder.u64()?);
    }
    if has(4) {
        attr.mtime = Some(take_stamp(decoder)?);
    }
    Ok(attr)
}
