//! What the journal of nodes says, and its bytes.
//!
//! Numbers are little-endian and eight bytes long; what is of any length comes last.

use super::table::Unnamed;
use crate::backing::{Handle, Kind};

/// A change of the table.
pub(super) enum Note<'a> {
    /// The next node id that was never given before.
    Next(u64),
    /// A file becomes known under an id.
    Know { node: u64, kind: Kind, handle: &'a Handle },
    /// References are added.
    Refer { node: u64, pin: bool, count: u64 },
    /// References are given back.
    Release { node: u64, pin: bool, count: u64 },
    /// The kernel's request with this number was carried out: nodes and counts.
    Forget { unique: u64, pairs: &'a [(u64, u64)] },
    /// A name becomes known.
    AddName { node: u64, parent: u64, name: &'a [u8] },
    /// A name is gone.
    RemoveName { node: u64, parent: u64, name: &'a [u8] },
    /// A file has no name, or has one from now on.
    Unnamed { node: u64, unnamed: Option<Unnamed> },
}

/// The same, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Noted {
    Next(u64),
    Know { node: u64, kind: Kind, handle: Handle },
    Refer { node: u64, pin: bool, count: u64 },
    Release { node: u64, pin: bool, count: u64 },
    Forget { unique: u64, pairs: Vec<(u64, u64)> },
    AddName { node: u64, parent: u64, name: Vec<u8> },
    RemoveName { node: u64, parent: u64, name: Vec<u8> },
    Unnamed { node: u64, unnamed: Option<Unnamed> },
}

impl Note<'_> {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Note::Next(next) => put(out, 1, &[*next], &[]),
            Note::Know { node, kind, handle } => {
                put(out, 2, &[*node, u64::from(kind.dirent())], &handle.to_bytes());
            }
            Note::Refer { node, pin, count } => {
                put(out, 3, &[*node, u64::from(*pin), *count], &[]);
            }
            Note::Release { node, pin, count } => {
                put(out, 4, &[*node, u64::from(*pin), *count], &[]);
            }
            Note::Forget { unique, pairs } => {
                put(out, 5, &[*unique], &[]);
                for (node, count) in *pairs {
                    out.extend_from_slice(&node.to_le_bytes());
                    out.extend_from_slice(&count.to_le_bytes());
                }
            }
            Note::AddName { node, parent, name } => put(out, 6, &[*node, *parent], name),
            Note::RemoveName { node, parent, name } => put(out, 7, &[*node, *parent], name),
            Note::Unnamed { node, unnamed } => {
                put(out, 8, &[*node, Unnamed::to_note(*unnamed)], &[]);
            }
        }
    }
}

impl Noted {
    /// Reads a note; none when the bytes are not one.
    pub(super) fn take(bytes: &[u8]) -> Option<Noted> {
        let (kind, mut rest) = bytes.split_first()?;
        let noted = match kind {
            1 => Noted::Next(number(&mut rest)?),
            2 => Noted::Know {
                node: number(&mut rest)?,
                kind: Kind::of_dirent(u8::try_from(number(&mut rest)?).ok()?),
                handle: Handle::from_bytes(std::mem::take(&mut rest))?,
            },
            3 => {
                let (node, pin) = (number(&mut rest)?, number(&mut rest)? != 0);
                Noted::Refer { node, pin, count: number(&mut rest)? }
            }
            4 => {
                let (node, pin) = (number(&mut rest)?, number(&mut rest)? != 0);
                Noted::Release { node, pin, count: number(&mut rest)? }
            }
            5 => {
                let unique = number(&mut rest)?;
                let mut pairs = Vec::new();
                while !rest.is_empty() {
                    pairs.push((number(&mut rest)?, number(&mut rest)?));
                }
                Noted::Forget { unique, pairs }
            }
            6 => {
                let (node, parent) = (number(&mut rest)?, number(&mut rest)?);
                Noted::AddName { node, parent, name: std::mem::take(&mut rest).to_vec() }
            }
            7 => {
                let (node, parent) = (number(&mut rest)?, number(&mut rest)?);
                Noted::RemoveName { node, parent, name: std::mem::take(&mut rest).to_vec() }
            }
            8 => {
                let (node, note) = (number(&mut rest)?, number(&mut rest)?);
                Noted::Unnamed { node, unnamed: Unnamed::of_note(note) }
            }
            _ => return None,
        };
        rest.is_empty().then_some(noted)
    }
}

fn put(out: &mut Vec<u8>, kind: u8, numbers: &[u64], rest: &[u8]) {
    out.push(kind);
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    out.extend_from_slice(rest);
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_they_were_made_and_no_part_of_one_is_another() {
        let handle = Handle::from_bytes(&[1, 0, 0, 0, 7, 8]).unwrap();
        let notes = [
            Note::Next(5),
            Note::Know { node: 2, kind: Kind::Symlink, handle: &handle },
            Note::Refer { node: 2, pin: true, count: 1 },
            Note::Release { node: 2, pin: false, count: 3 },
            Note::Forget { unique: 9, pairs: &[(2, 1), (3, 4)] },
            Note::AddName { node: 2, parent: 1, name: b"name" },
            Note::RemoveName { node: 2, parent: 1, name: b"" },
            Note::Unnamed { node: 2, unnamed: Some(Unnamed::Synced) },
        ];
        let mut read = Vec::new();
        for note in &notes {
            let mut bytes = Vec::new();
            note.put(&mut bytes);
            read.push(Noted::take(&bytes).unwrap());
            assert_eq!(Noted::take(&bytes[..bytes.len().min(8)]), None);
        }
        assert_eq!(read[4], Noted::Forget { unique: 9, pairs: vec![(2, 1), (3, 4)] });
        assert_eq!(read[1], Noted::Know { node: 2, kind: Kind::Symlink, handle });
        assert_eq!(Noted::take(&[99]), None);
    }
}
