//! What a target recalls when a resync begins: how its copy relates to the source's, and in what
//! it may have strayed on its own.
//!
//! Whether that suffices for comparing less than everything, the source decides.

use replica::walk::Theirs;

use crate::frame::{Decoder, WireError, put_bytes};
use crate::op::{put_u64, take_bool, take_limited, take_name};

/// Longest path of a suspect below its root, in bytes.
pub const PATH_BYTES_MAX: usize = 1 << 20;

/// How a target's copy relates to others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recalled {
    /// Whether its log is whole; if not, nothing else here counts.
    pub usable: bool,
    /// The state that it shared with the source last.
    pub base: u128,
    /// The one before.
    pub previous: u128,
    /// Whether it was the target when that state was reached.
    pub as_target: bool,
    /// Number of the newest checkpoint since that it began or took part in.
    pub begun: u64,
}

/// Something in which a target may have strayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect<'a> {
    /// Index of the replicated directory.
    pub tree: u16,
    /// Path below it, empty for itself.
    pub path: &'a [u8],
    /// In what.
    pub strayed: Strayed,
}

/// In what an object may have strayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strayed {
    /// The names in a directory.
    Names,
    /// Everything in and below it.
    All,
    /// Attributes, and content from one position to another.
    Part {
        /// Position, in bytes.
        offset: u64,
        /// End, in bytes.
        end: u64,
    },
}

pub(crate) fn put_recalled(out: &mut Vec<u8>, recalled: &Recalled) {
    out.push(u8::from(recalled.usable));
    out.push(u8::from(recalled.as_target));
    out.extend_from_slice(&recalled.base.to_le_bytes());
    out.extend_from_slice(&recalled.previous.to_le_bytes());
    put_u64(out, recalled.begun);
}

pub(crate) fn take_recalled(decoder: &mut Decoder<'_>) -> Result<Recalled, WireError> {
    Ok(Recalled {
        usable: take_bool(decoder)?,
        as_target: take_bool(decoder)?,
        base: take_u128(decoder)?,
        previous: take_u128(decoder)?,
        begun: decoder.u64()?,
    })
}

pub(crate) fn put_suspects(out: &mut Vec<u8>, suspects: &[Suspect<'_>]) {
    for suspect in suspects {
        out.extend_from_slice(&suspect.tree.to_le_bytes());
        put_bytes(out, suspect.path);
        match suspect.strayed {
            Strayed::Names => out.push(1),
            Strayed::All => out.push(2),
            Strayed::Part { offset, end } => {
                out.push(3);
                put_u64(out, offset);
                put_u64(out, end);
            }
        }
    }
}

pub(crate) fn take_suspects<'a>(decoder: &mut Decoder<'a>) -> Result<Vec<Suspect<'a>>, WireError> {
    let mut suspects = Vec::new();
    while !decoder.is_empty() {
        let tree = decoder.u16()?;
        let path = take_limited(decoder, PATH_BYTES_MAX, "path")?;
        let strayed = match decoder.u8()? {
            1 => Strayed::Names,
            2 => Strayed::All,
            3 => Strayed::Part { offset: decoder.u64()?, end: decoder.u64()? },
            _ => return Err(WireError::Value("suspect")),
        };
        suspects.push(Suspect { tree, path, strayed });
    }
    Ok(suspects)
}

pub(crate) fn put_theirs(out: &mut Vec<u8>, name: &[u8], theirs: Theirs) {
    put_bytes(out, name);
    put_u64(out, theirs.size);
    out.push(theirs.kind);
    out.push(u8::from(theirs.recent));
}

pub(crate) fn take_theirs<'a>(decoder: &mut Decoder<'a>) -> Result<(&'a [u8], Theirs), WireError> {
    let name = take_name(decoder)?;
    let (size, kind) = (decoder.u64()?, decoder.u8()?);
    Ok((name, Theirs { size, kind, recent: take_bool(decoder)? }))
}

pub(crate) fn take_u128(decoder: &mut Decoder<'_>) -> Result<u128, WireError> {
    let (low, high) = (decoder.u64()?, decoder.u64()?);
    Ok(u128::from(high) << 64 | u128::from(low))
}
