//! Compression of what leaves for the target: frames that go together become one block, when that
//! pays.
//!
//! Order and content stay; a target takes packed and plain frames alike.

use std::io;

use wire::frame::{PREFIX_BYTES, frame_length};
use wire::packed::{PACKED_BYTES_MAX, Packed, put_packed, take_packed};

/// Frames are packed together up to so many bytes; larger ones alone.
const TOGETHER_BYTES: usize = 256 << 10;
/// Fewer bytes are not worth the trouble.
const WORTH_BYTES: usize = 256;

/// Packs batches of frames.
#[derive(Default)]
pub(super) struct Packer {
    out: Vec<u8>,
    block: Vec<u8>,
}

impl Packer {
    /// The same frames, packed where that saves an eighth at least.
    pub(super) fn pack(&mut self, frames: &[u8]) -> &[u8] {
        self.out.clear();
        let mut rest = frames;
        while !rest.is_empty() {
            let (together, after) = rest.split_at(group(rest));
            self.add(together);
            rest = after;
        }
        &self.out
    }

    fn add(&mut self, together: &[u8]) {
        if together.len() >= WORTH_BYTES && together.len() <= PACKED_BYTES_MAX {
            let room = lz4_flex::block::get_maximum_output_size(together.len());
            self.block.resize(room.max(self.block.len()), 0);
            let packed = lz4_flex::block::compress_into(together, &mut self.block);
            let block = packed.ok().and_then(|length| self.block.get(..length));
            if let Some(block) = block.filter(|block| block.len() < together.len() / 8 * 7) {
                return put_packed(&mut self.out, &Packed { length: together.len(), block });
            }
        }
        self.out.extend_from_slice(together);
    }
}

/// Length of the first frames that go together, at least one.
fn group(frames: &[u8]) -> usize {
    let mut length = 0;
    while let Some(prefix) = frames.get(length..).and_then(<[u8]>::first_chunk::<PREFIX_BYTES>) {
        let Ok(frame) = frame_length(*prefix) else { return frames.len() };
        let end = length + PREFIX_BYTES + frame;
        if length > 0 && end > TOGETHER_BYTES {
            return length;
        }
        length = end.min(frames.len());
    }
    if length == 0 { frames.len() } else { length }
}

/// Unpacks a frame into `room`: the frames that were in it with their prefixes. Nothing when it was
/// not packed.
pub(super) fn unpack<'a>(frame: &[u8], room: &'a mut Vec<u8>) -> io::Result<Option<&'a [u8]>> {
    let Some(packed) = take_packed(frame).map_err(io::Error::other)? else { return Ok(None) };
    // Bounded by what a frame may be.
    room.resize(packed.length.max(room.len()), 0);
    let room = room.get_mut(..packed.length).unwrap_or_default();
    match lz4_flex::block::decompress_into(packed.block, room) {
        Ok(length) if length == packed.length => Ok(Some(room)),
        Ok(_) | Err(_) => Err(io::Error::other("packed frames are damaged")),
    }
}

/// Takes the first of the frames that were packed, without its prefix.
pub(super) fn first<'a>(frames: &mut &'a [u8]) -> io::Result<Option<&'a [u8]>> {
    if frames.is_empty() {
        return Ok(None);
    }
    let cut = || io::Error::other("packed frames end in the middle of one");
    let (prefix, rest) = frames.split_first_chunk::<PREFIX_BYTES>().ok_or_else(cut)?;
    let length = frame_length(*prefix).map_err(io::Error::other)?;
    let (frame, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
    *frames = rest;
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use wire::frame::put_frame;

    use super::*;
    use crate::connection::Frames;

    fn frames(sizes: &[usize], byte: impl Fn(usize) -> u8) -> Vec<u8> {
        let mut out = Vec::new();
        for size in sizes {
            put_frame(&mut out, |out| {
                out.push(1);
                out.extend((0..*size).map(&byte));
            });
        }
        out
    }

    fn unpacked(packed: &[u8]) -> Vec<u8> {
        let (mut out, mut room) = (Vec::new(), Vec::new());
        let mut frames = Frames::new(packed, 64);
        while let Ok(frame) = frames.next() {
            match unpack(frame, &mut room).unwrap() {
                Some(inner) => out.extend_from_slice(inner),
                None => put_frame(&mut out, |out| out.extend_from_slice(frame)),
            }
        }
        out
    }

    #[test]
    fn what_was_packed_comes_out_as_it_went_in() {
        let noise = |index: usize| (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as u8;
        let noise = |index: usize| noise(index * index + index / 3) ^ noise(index / 251);
        for sizes in [&[0, 1, 5][..], &[4096; 500], &[3_000_000, 7, 300_000, 900], &[17 << 20]] {
            let sizes: Vec<usize> = sizes.iter().map(|size| (*size).min((17 << 20) - 1)).collect();
            let plain = frames(&sizes, |index| (index / 100) as u8);
            let mut packer = Packer::default();
            let packed = packer.pack(&plain).to_vec();
            assert!(packed.len() < plain.len() / 10 || plain.len() < WORTH_BYTES);
            assert!(unpacked(&packed) == plain);
            let plain = frames(&sizes, noise);
            assert!(unpacked(packer.pack(&plain)) == plain);
        }
    }

    #[test]
    fn frames_are_taken_out_whole_or_not_at_all() {
        let plain = frames(&[0, 300], |_| 7);
        let mut rest = &plain[..];
        assert_eq!(first(&mut rest).unwrap().map(<[u8]>::len), Some(1));
        assert_eq!(first(&mut rest).unwrap().map(<[u8]>::len), Some(301));
        assert_eq!(first(&mut rest).unwrap(), None);
        for bad in [&[1, 0][..], &[5, 0, 0, 0, 1], &[0xff; 8], &[0; 4]] {
            let mut rest = bad;
            assert!(first(&mut rest).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hostile_blocks_neither_grow_nor_pass() {
        let plain = frames(&[4096], |_| 0);
        let block = lz4_flex::block::compress(&plain);
        let mut room = Vec::new();
        for (length, block) in [
            (plain.len() - 1, &block[..]),
            (plain.len() + 1, &block[..]),
            (plain.len(), &block[..block.len() - 1]),
            (plain.len(), &[0xff; 40][..]),
            (plain.len(), &[][..]),
        ] {
            let mut out = Vec::new();
            put_packed(&mut out, &Packed { length, block });
            assert!(unpack(&out[PREFIX_BYTES..], &mut room).is_err(), "{length}");
            assert!(room.len() <= plain.len() + 1);
        }
    }
}
