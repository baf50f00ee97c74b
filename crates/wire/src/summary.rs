//! What both ends compare in a verification: an object in a few words, so that equal objects have
//! equal summaries and it can be told in what others differ.
//!
//! Content is compared by hashes of blocks, as in a resync; who computes a summary is not here.

use replica::op::Stamp;

use crate::frame::{Decoder, WireError, put_bytes};
use crate::op::{put_stamp, put_u64, take_limited, take_stamp};

/// Longest name in a summary, in bytes; `.` stands for the directory itself.
const NAME_BYTES_MAX: usize = 255;

/// An object in a few words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Mode, with the kind.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size of a regular file, in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Stamp,
    /// Hash of all else: device number, target of a symlink, extended attributes.
    pub rest: [u8; 16],
}

/// Appends a name and what stands under it.
pub(crate) fn put_summary(out: &mut Vec<u8>, name: &[u8], summary: &Summary) {
    let Summary { mode, uid, gid, size, mtime, rest } = summary;
    put_bytes(out, name);
    for field in [mode, uid, gid] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    put_u64(out, *size);
    put_stamp(out, *mtime);
    out.extend_from_slice(rest);
}

/// Reads a name and what stands under it.
pub(crate) fn take_summary<'a>(
    decoder: &mut Decoder<'a>,
) -> Result<(&'a [u8], Summary), WireError> {
    let name = take_limited(decoder, NAME_BYTES_MAX, "name")?;
    let (mode, uid, gid) = (decoder.u32()?, decoder.u32()?, decoder.u32()?);
    let (size, mtime) = (decoder.u64()?, take_stamp(decoder)?);
    let rest = decoder.take(16)?.try_into().map_err(|_| WireError::Truncated)?;
    Ok((name, Summary { mode, uid, gid, size, mtime, rest }))
}

/// Which names of a directory are asked for: all, one, or `.` for itself.
pub(crate) fn take_wanted<'a>(decoder: &mut Decoder<'a>) -> Result<&'a [u8], WireError> {
    let name = take_limited(decoder, NAME_BYTES_MAX, "name")?;
    let bad = name == b".." || name.iter().any(|byte| *byte == b'/' || *byte == 0);
    if bad { Err(WireError::Value("name")) } else { Ok(name) }
}
