//! A journal: notes in the order in which they were made, of which a successor makes the state
//! anew. When most of them are superseded, the state is written anew into the other half.
//!
//! What the notes mean is up to those who make them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use memory::{Part, Words};
use rustix::io::Errno;

/// Which half counts.
const ACTIVE: usize = 0;
/// Where the notes of each half end.
const ENDS: usize = 1;
/// Whether something could not be noted.
const BROKEN: usize = 3;

/// Bytes in front of each note: its length and a sum.
const HEAD_BYTES: usize = 8;
/// Bytes below which nothing is written anew.
const WASTEFUL_BYTES: usize = 1 << 20;

/// Notes for a successor.
#[derive(Debug)]
pub(crate) struct Journal {
    halves: [Part; 2],
    words: Arc<Words>,
    first: usize,
    active: usize,
    end: usize,
    /// Bytes after which it is looked at for waste.
    wasteful_at: usize,
    /// Bytes that had no room since the last attempt to write it anew.
    lost: usize,
    scratch: Vec<u8>,
}

impl Journal {
    /// A journal over these halves, whose words begin at `first`.
    pub(super) fn new(halves: [Part; 2], words: Arc<Words>, first: usize) -> Journal {
        let active = usize::from(words.get(first + ACTIVE).load(Ordering::Acquire) & 1 == 1);
        let end = words.get(first + ENDS + active).load(Ordering::Acquire) as usize;
        let wasteful_at = wasteful_at(&halves, end);
        Journal { halves, words, first, active, end, wasteful_at, lost: 0, scratch: Vec::new() }
    }

    /// Adds a note. One that has no room makes the journal useless until it is written anew, not
    /// the server.
    pub(crate) fn note(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        let active = self.active;
        match self.put(active, self.end, fill) {
            Some(end) => {
                self.end = end;
                self.words.get(self.first + ENDS + active).store(end as u64, Ordering::Release);
            }
            None => {
                self.words.get(self.first + BROKEN).store(1, Ordering::Release);
                self.lost += self.scratch.len();
                // Writing all of it anew in vain for each note would be the end of the server.
                if self.lost > room(&self.halves) / 2 || self.wasteful_at != usize::MAX {
                    (self.lost, self.wasteful_at) = (0, 0);
                }
            }
        }
    }

    /// Whether the state had better be written anew.
    pub(crate) fn is_wasteful(&self) -> bool {
        self.end > self.wasteful_at
    }

    /// Begins to write the state anew.
    pub(crate) fn renew(&mut self) -> Renewal<'_> {
        Renewal { end: Some(0), journal: self }
    }

    /// All notes, oldest first.
    pub(crate) fn notes(&self) -> Result<Vec<&[u8]>, Errno> {
        if self.words.get(self.first + BROKEN).load(Ordering::Acquire) != 0 {
            return Err(Errno::NOSPC);
        }
        let bytes = self.halves.get(self.active).map(Part::as_slice).unwrap_or_default();
        let mut rest = bytes.get(..self.end).ok_or(Errno::PROTO)?;
        let mut notes = Vec::new();
        while let Some((head, tail)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let [a, b, c, d, sum @ ..] = *head;
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            let (note, tail) = tail.split_at_checked(length).ok_or(Errno::PROTO)?;
            if u32::from_le_bytes(sum) != sum_of(note) {
                return Err(Errno::PROTO);
            }
            notes.push(note);
            rest = tail;
        }
        if rest.is_empty() { Ok(notes) } else { Err(Errno::PROTO) }
    }

    /// Where a note ends; none when there is no room for it.
    fn put(&mut self, half: usize, at: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Option<usize> {
        self.scratch.clear();
        self.scratch.extend_from_slice(&[0; HEAD_BYTES]);
        fill(&mut self.scratch);
        let (head, note) = self.scratch.split_at_mut(HEAD_BYTES);
        let (length, sum) = head.split_at_mut(4);
        length.copy_from_slice(&(note.len() as u32).to_le_bytes());
        sum.copy_from_slice(&sum_of(note).to_le_bytes());
        let end = at + self.scratch.len();
        let part = self.halves.get_mut(half)?;
        part.as_mut_slice().get_mut(at..end)?.copy_from_slice(&self.scratch);
        Some(end)
    }
}

fn room(halves: &[Part; 2]) -> usize {
    halves.iter().map(|part| part.as_slice().len()).min().unwrap_or(0)
}

/// Where it is time to look for waste: when the state may have doubled, and in any case before
/// there is no room.
fn wasteful_at(halves: &[Part; 2], end: usize) -> usize {
    let room = room(halves);
    // Of a state that nearly fills it, each renewal makes half of the rest useful.
    WASTEFUL_BYTES.max(2 * end).min((room / 8 * 7).max(end + room.saturating_sub(end) / 2))
}

/// A state being written anew.
pub(crate) struct Renewal<'a> {
    journal: &'a mut Journal,
    /// None once something had no room.
    end: Option<usize>,
}

impl Renewal<'_> {
    /// Adds a note.
    pub(crate) fn note(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        let half = 1 - self.journal.active;
        self.end = self.end.and_then(|end| self.journal.put(half, end, fill));
    }

    /// From here on this is what counts, unless it had no room.
    pub(crate) fn finish(self) {
        let Renewal { journal, end } = self;
        journal.lost = 0;
        let Some(end) = end else {
            // It would not fit the next time either.
            journal.wasteful_at = usize::MAX;
            return;
        };
        let (old, new) = (journal.active, 1 - journal.active);
        let word = |index: usize| journal.words.get(journal.first + index);
        word(ENDS + new).store(end as u64, Ordering::Release);
        word(ACTIVE).store(new as u64, Ordering::Release);
        word(BROKEN).store(0, Ordering::Release);
        journal.active = new;
        journal.end = end;
        journal.wasteful_at = wasteful_at(&journal.halves, end);
        // Only memory: what cannot be given back is used again.
        if let Some(part) = journal.halves.get_mut(old) {
            let _ = part.release(WASTEFUL_BYTES);
        }
    }
}

/// FNV-1a: it tells notes from garbage, no more.
fn sum_of(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0x811c_9dc5, |sum: u32, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use memory::{Memory, PAGE_BYTES};

    use super::*;

    fn journal(memory: &Memory) -> Journal {
        let bytes = 4 * PAGE_BYTES;
        let halves = [PAGE_BYTES, PAGE_BYTES + bytes].map(|at| memory.part(at, bytes).unwrap());
        Journal::new(halves, Arc::new(memory.words(0, 8).unwrap()), 2)
    }

    fn left_by(memory: &Memory) -> Memory {
        Memory::of(memory.file().unwrap().try_clone_to_owned().unwrap()).unwrap()
    }

    #[test]
    fn a_successor_finds_what_was_noted_and_not_what_was_superseded() {
        let memory = Memory::new("test", 9 * PAGE_BYTES).unwrap();
        let mut first = journal(&memory);
        first.note(|out| out.extend_from_slice(b"one"));
        first.note(|out| out.extend_from_slice(b""));
        let second = journal(&left_by(&memory));
        assert_eq!(second.notes().unwrap(), [&b"one"[..], b""]);
        let mut renewal = first.renew();
        renewal.note(|out| out.extend_from_slice(b"anew"));
        // Killed before it is finished: the old one counts.
        assert_eq!(journal(&left_by(&memory)).notes().unwrap().len(), 2);
        renewal.finish();
        first.note(|out| out.extend_from_slice(b"later"));
        assert_eq!(journal(&left_by(&memory)).notes().unwrap(), [&b"anew"[..], b"later"]);
    }

    #[test]
    fn what_is_damaged_or_incomplete_is_found() {
        let memory = Memory::new("test", 9 * PAGE_BYTES).unwrap();
        let mut first = journal(&memory);
        first.note(|out| out.extend_from_slice(b"one"));
        first.halves[0].as_mut_slice()[HEAD_BYTES] ^= 1;
        assert_eq!(first.notes(), Err(Errno::PROTO));
        first.halves[0].as_mut_slice()[HEAD_BYTES] ^= 1;
        assert!(first.notes().is_ok());
        first.note(|out| out.resize(out.len() + 4 * PAGE_BYTES, 0));
        assert_eq!(first.notes(), Err(Errno::NOSPC));
    }

    #[test]
    fn it_is_written_anew_before_it_is_full_and_whole_again_after_that() {
        let memory = Memory::new("test", 9 * PAGE_BYTES).unwrap();
        let mut first = journal(&memory);
        let mut count = 0;
        while !first.is_wasteful() {
            first.note(|out| out.resize(out.len() + 100, 7));
            count += 1;
        }
        assert_eq!(first.notes().unwrap().len(), count, "there was room for all of it");
        first.note(|out| out.resize(out.len() + 4 * PAGE_BYTES, 0));
        assert!(first.notes().is_err() && first.is_wasteful());
        let mut renewal = first.renew();
        renewal.note(|out| out.extend_from_slice(b"anew"));
        renewal.finish();
        assert_eq!(first.notes().unwrap(), [&b"anew"[..]]);
        let mut renewal = first.renew();
        renewal.note(|out| out.resize(out.len() + 4 * PAGE_BYTES, 0));
        renewal.finish();
        assert_eq!(first.notes().unwrap(), [&b"anew"[..]], "what has no room does not count");
        assert!(!first.is_wasteful());
    }
}
