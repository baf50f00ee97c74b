//! The memory of a replicator that serves: what the next one needs to go on if this one dies.
//!
//! ```text
//! counts | notes, twice | the outbox's ring | the estate of each mount
//! ```
//!
//! What is in the estates is `mount`'s business, and who keeps the memory the keeper's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use cluster::effect::Serve;
use memory::{Memory, PAGE_BYTES, Part, Ring, Words};
use model::{EpochId, SessionId};
use mount::{ESTATE_BYTES, Estate, Holder};
use serde::{Deserialize, Serialize};

use crate::replicator::outbox::RING_BYTES;
use crate::replicator::place::WORDS;

const COUNTS_AT: usize = 0;
const NOTES_AT: usize = PAGE_BYTES;
const NOTES_BYTES: usize = 64 << 10;
const RING_AT: usize = NOTES_AT + 2 * NOTES_BYTES;
const ESTATES_AT: usize = RING_AT + RING_BYTES;

/// Which of the notes count, 1 or 2; 0 as long as there are none.
const NOTED: usize = 16;
/// The session whose target lacks nothing.
const SETTLED: [usize; 2] = [17, 18];
const NUMBER: usize = 20;
const PUBLISHED: usize = 21;

/// What is to be done, for the next replicator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notes {
    /// Serial of the assignment.
    pub(super) serial: u64,
    /// The assignment.
    pub(super) serve: Serve,
    /// Where its peer can be reached.
    pub(super) peer: Vec<SocketAddr>,
    /// Number of the last operation before the present rule was in force.
    pub(super) ruled_after: u64,
    /// The epoch whose opening checkpoint is complete.
    pub(super) opened: Option<EpochId>,
}

/// The memory of a replicator that serves.
pub(super) struct Keep {
    memory: Memory,
    words: Arc<Words>,
    notes: Mutex<[Part; 2]>,
}

/// How far the changes and the stream to the target have got, as one word that a successor finds
/// as it was published last.
#[derive(Clone)]
pub(super) struct Counts {
    words: Arc<Words>,
}

impl Keep {
    /// New memory for so many mounts.
    pub(super) fn new(mounts: usize, number: u64) -> io::Result<Keep> {
        let bytes = ESTATES_AT + mounts * ESTATE_BYTES;
        let keep = Keep::over(Memory::new("evenkeel-replicator", bytes)?)?;
        keep.counts().publish(0, number);
        Ok(keep)
    }

    /// The memory that a predecessor left.
    pub(super) fn left(file: OwnedFd) -> io::Result<Keep> {
        Keep::over(Memory::of(file)?)
    }

    fn over(memory: Memory) -> io::Result<Keep> {
        let words = Arc::new(memory.words(COUNTS_AT, WORDS)?);
        let part = |half: usize| memory.part(NOTES_AT + half * NOTES_BYTES, NOTES_BYTES);
        let notes = Mutex::new([part(0)?, part(1)?]);
        Ok(Keep { memory, words, notes })
    }

    /// The memory's file, for the keeper.
    pub(super) fn file(&self) -> io::Result<BorrowedFd<'_>> {
        self.memory.file().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    pub(super) fn estate(&self, index: usize, holder: Arc<dyn Holder>) -> io::Result<Arc<Estate>> {
        Ok(Estate::new(&self.memory, ESTATES_AT + index * ESTATE_BYTES, holder)?)
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { words: Arc::clone(&self.words) }
    }

    pub(super) fn words(&self) -> &Arc<Words> {
        &self.words
    }

    /// The ring of the outbox; one session after the other uses it.
    pub(super) fn ring(&self) -> io::Result<Ring> {
        let memory = Memory::of(self.file()?.try_clone_to_owned()?)?;
        Ok(memory.ring(RING_AT, RING_BYTES)?)
    }

    /// Notes what is to be done.
    pub(super) fn note(&self, notes: &Notes) -> io::Result<()> {
        let text = serde_json::to_vec(notes).map_err(io::Error::other)?;
        let mut halves = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = self.words.get(NOTED);
        let half = if noted.load(Ordering::Acquire) == 1 { 1 } else { 0 };
        let room = halves.get_mut(half).map(Part::as_mut_slice).unwrap_or_default();
        let length = (text.len() as u32).to_le_bytes();
        let bytes = [&length[..], &text].concat();
        let room = room.get_mut(..bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        room.copy_from_slice(&bytes);
        noted.store(half as u64 + 1, Ordering::Release);
        Ok(())
    }

    /// What was noted last.
    pub(super) fn notes(&self) -> Option<Notes> {
        let noted = self.words.get(NOTED).load(Ordering::Acquire);
        let halves = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = halves.get((noted as usize).checked_sub(1)?)?.as_slice();
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        serde_json::from_slice(rest.get(..u32::from_le_bytes(*length) as usize)?).ok()
    }

    /// The target of this session lacks nothing.
    pub(super) fn note_settled(&self, session: SessionId) {
        let [low, high] = SETTLED.map(|word| self.words.get(word));
        low.store(session.0 as u64, Ordering::Release);
        high.store((session.0 >> 64) as u64, Ordering::Release);
    }

    pub(super) fn is_settled(&self, session: SessionId) -> bool {
        let [low, high] = SETTLED.map(|word| self.words.get(word).load(Ordering::Acquire));
        u128::from(high) << 64 | u128::from(low) == session.0
    }
}

impl Counts {
    pub(super) fn over(words: &Arc<Words>) -> Counts {
        Counts { words: Arc::clone(words) }
    }

    /// From here on the stream reaches up to `tail`, and everything up to operation `number` is in
    /// it, as far as it belongs there.
    pub(super) fn publish(&self, tail: u64, number: u64) {
        // The whole number first: of the word below only 16 bits are for it.
        self.words.get(NUMBER).store(number, Ordering::Release);
        self.words.get(PUBLISHED).store(tail << 16 | number & 0xffff, Ordering::Release);
    }

    /// The last operation that was published.
    pub(super) fn number(&self) -> u64 {
        let number = self.words.get(NUMBER).load(Ordering::Acquire);
        let published = self.words.get(PUBLISHED).load(Ordering::Acquire);
        // One at a time is published, so it can only be the one before.
        if published & 0xffff == number & 0xffff { number } else { number.saturating_sub(1) }
    }

    /// Up to where the stream reaches.
    pub(super) fn tail(&self) -> u64 {
        self.words.get(PUBLISHED).load(Ordering::Acquire) >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_only_with_what_it_was_published_with() {
        let keep = Keep::new(0, 7).unwrap();
        let counts = keep.counts();
        assert_eq!((counts.number(), counts.tail()), (7, 0));
        counts.publish(100, 65_536);
        assert_eq!((counts.number(), counts.tail()), (65_536, 100));
        // Killed in between.
        counts.words.get(NUMBER).store(65_537, Ordering::Release);
        assert_eq!((counts.number(), counts.tail()), (65_536, 100));
    }

    #[test]
    fn notes_and_settled_sessions_are_found_by_a_successor() {
        let keep = Keep::new(0, 0).unwrap();
        let file = keep.file().unwrap().try_clone_to_owned().unwrap();
        let left = Keep::left(file).unwrap();
        assert_eq!(left.notes(), None);
        let session = SessionId(5 << 64 | 9);
        assert!(!left.is_settled(session));
        keep.note_settled(session);
        assert!(left.is_settled(session) && !left.is_settled(SessionId(9)));
    }
}
