//! Length-prefixed frames on a byte stream, and the small readers and writers of their fields.
//!
//! A frame is a little-endian `u32` length followed by that many bytes, of which the first is the
//! kind. All integers are little-endian. This file knows no kinds.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest frame accepted: all extended attributes of a file, at their limits of number and size,
/// with their names and the header.
pub const FRAME_BYTES_MAX: usize = 17 << 20;

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// Why bytes were not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// The frame ends before its fields do.
    #[error("a frame ends in the middle of a field")]
    Truncated,
    /// Bytes are left after the last field.
    #[error("a frame has {0} bytes after its last field")]
    Trailing(usize),
    /// The length is zero or beyond the limit.
    #[error("a frame of {0} bytes is outside the limits")]
    Length(usize),
    /// The kind is not part of the agreed version.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// A field has a value that is not allowed.
    #[error("a frame has a bad {0}")]
    Value(&'static str),
    /// The first bytes are not ours.
    #[error("the other side does not speak this protocol")]
    Magic,
    /// No common version.
    #[error("the other side speaks version {theirs}, this one {ours}")]
    Version {
        /// What the other side offered.
        theirs: u16,
        /// What this side speaks.
        ours: u16,
    },
}

/// Checks a length prefix before anything is allocated for it.
pub fn frame_length(prefix: [u8; PREFIX_BYTES]) -> Result<usize, WireError> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length == 0 || length > FRAME_BYTES_MAX {
        return Err(WireError::Length(length));
    }
    Ok(length)
}

/// Appends a frame to `out`: `fill` writes kind and fields, the length is put in front.
pub fn put_frame(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    fill(out);
    let length = out.len() - start - PREFIX_BYTES;
    debug_assert!(length <= FRAME_BYTES_MAX, "frames are cut to size by their makers");
    let prefix = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    out[start..start + PREFIX_BYTES].copy_from_slice(&prefix);
}

/// Appends bytes with a `u32` length in front.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a frame of a magic word, a version and a postcard message.
pub(crate) fn put_versioned<T: Serialize>(
    out: &mut Vec<u8>,
    magic: [u8; 4],
    version: u16,
    message: &T,
) {
    put_frame(out, |out| {
        out.extend_from_slice(&magic);
        out.extend_from_slice(&version.to_le_bytes());
        // Serialising these plain types into memory cannot fail.
        out.extend_from_slice(&postcard::to_stdvec(message).unwrap_or_default());
    });
}

/// Reads a postcard message behind a magic word and a version.
pub(crate) fn take_versioned<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    magic: [u8; 4],
    ours: u16,
) -> Result<T, WireError> {
    let body = bytes.strip_prefix(&magic).ok_or(WireError::Magic)?;
    let (version, body) = body.split_first_chunk::<2>().ok_or(WireError::Truncated)?;
    let theirs = u16::from_le_bytes(*version);
    if theirs != ours {
        return Err(WireError::Version { theirs, ours });
    }
    let (message, rest) =
        postcard::take_from_bytes(body).map_err(|_| WireError::Value("message"))?;
    if rest.is_empty() { Ok(message) } else { Err(WireError::Trailing(rest.len())) }
}

/// Reads the fields of one frame, in order.
#[derive(Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// A decoder of a frame's bytes, without the length prefix.
    #[must_use]
    pub fn new(frame: &'a [u8]) -> Decoder<'a> {
        Decoder { rest: frame }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.try_into().map_err(|_| WireError::Truncated)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Bytes with a `u32` length in front.
    pub fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let count = self.u32()? as usize;
        self.take(count)
    }

    /// Everything that is left.
    pub fn remainder(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Checks that nothing is left.
    pub fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.rest.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_at_and_beyond_the_limits() {
        let length = |n: u32| frame_length(n.to_le_bytes());
        assert_eq!(length(0), Err(WireError::Length(0)));
        assert_eq!(length(1), Ok(1));
        assert_eq!(length(FRAME_BYTES_MAX as u32), Ok(FRAME_BYTES_MAX));
        assert!(length(FRAME_BYTES_MAX as u32 + 1).is_err());
        assert!(length(u32::MAX).is_err());
    }

    #[test]
    fn a_length_inside_a_frame_cannot_reach_beyond_it() {
        let mut out = Vec::new();
        put_bytes(&mut out, b"abc");
        out[0] = 200;
        assert_eq!(Decoder::new(&out).bytes(), Err(WireError::Truncated));
    }
}
