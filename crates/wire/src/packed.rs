//! Frames of the replication stream that travel packed: several in one, compressed.
//!
//! The compression itself is not here. How much packed frames may be is checked before anything is
//! unpacked.

use crate::frame::{Decoder, FRAME_BYTES_MAX, PREFIX_BYTES, WireError, put_frame};

/// Kind of the frame; no other of the stream has it, so that none is packed twice.
const KIND: u8 = 200;

/// Most bytes that packed frames may have: as a single one with its prefix.
pub const PACKED_BYTES_MAX: usize = FRAME_BYTES_MAX + PREFIX_BYTES;

/// Several frames from the source to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed<'a> {
    /// Bytes of the frames with their prefixes, at most `PACKED_BYTES_MAX`.
    pub length: usize,
    /// An LZ4 block.
    pub block: &'a [u8],
}

/// Appends packed frames.
pub fn put_packed(out: &mut Vec<u8>, packed: &Packed<'_>) {
    put_frame(out, |out| {
        out.push(KIND);
        out.extend_from_slice(&u32::try_from(packed.length).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(packed.block);
    });
}

/// Reads packed frames; nothing when the frame is of another kind.
pub fn take_packed(frame: &[u8]) -> Result<Option<Packed<'_>>, WireError> {
    let mut decoder = Decoder::new(frame);
    if decoder.u8()? != KIND {
        return Ok(None);
    }
    let length = decoder.u32()? as usize;
    if length == 0 || length > PACKED_BYTES_MAX {
        return Err(WireError::Length(length));
    }
    Ok(Some(Packed { length, block: decoder.remainder() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_claims_too_much_is_refused_before_it_is_unpacked() {
        for (length, fine) in
            [(1, true), (PACKED_BYTES_MAX, true), (0, false), (PACKED_BYTES_MAX + 1, false)]
        {
            let mut out = Vec::new();
            put_packed(&mut out, &Packed { length, block: b"block" });
            let taken = take_packed(&out[PREFIX_BYTES..]);
            let expected = Ok(Some(Packed { length, block: b"block" }));
            assert_eq!(taken, if fine { expected } else { Err(WireError::Length(length)) });
        }
        let unpacked = crate::replication::take_forward(&[KIND]);
        assert_eq!(unpacked, Err(WireError::Kind(KIND)), "the kind is no other's too");
        assert_eq!(take_packed(&[1, 0]), Ok(None));
        assert_eq!(take_packed(&[KIND, 1, 0]), Err(WireError::Truncated));
    }
}
