//! Marks of a request that is being served: whether its change has begun, and what was there
//! before, so that a successor can tell whether it was made.

use std::sync::atomic::Ordering;

use memory::Words;

use crate::backing::Handle;

pub(super) const WORDS: usize = 128;

const PHASE: usize = 0;
const FIRST: usize = 1;
const DEATHS: usize = 2;
const COUNT: usize = 3;
const NOTE: usize = 4;
/// What was under each of two names: a length in bytes, 0 for nothing, then the handle.
const NAMES: usize = 8;
const NAME_WORDS: usize = 32;
const NAMES_MAX: usize = 2;

/// The request was read and nothing was done.
const READ: u64 = 0;
/// A change of it may have been made.
const BEGUN: u64 = 1;
/// It was made, recorded and noted: nothing more is to be done.
const DONE: u64 = 2;

/// The marks of one slot.
#[derive(Debug)]
pub(crate) struct Marks {
    words: Words,
}

/// What is known of a change that may have been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// The number that its first operation would have got.
    pub(crate) first: u64,
    /// What was under its names before, once it was about to change them; none when nothing was
    /// noted, so that names were not changed.
    pub(crate) before: Option<Before>,
}

/// What was there before a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Before {
    /// Under its names: what the handle leads to, or nothing.
    pub(crate) names: Vec<Option<Handle>>,
    /// Whatever else must be known.
    pub(crate) note: u64,
}

impl Before {
    /// What was under the first name.
    pub(crate) fn first(self) -> Option<Handle> {
        self.names.into_iter().next().flatten()
    }
}

impl Marks {
    pub(super) fn new(words: Words) -> Marks {
        Marks { words }
    }

    /// From here on a change may be made, whose first operation would get this number.
    pub(crate) fn begin(&self, first: u64) {
        self.store(COUNT, 0);
        self.store(FIRST, first);
        self.store(PHASE, BEGUN);
    }

    /// From here on names may be changed, under which this was before.
    pub(crate) fn expect(&self, before: &Before) {
        for (index, handle) in before.names.iter().take(NAMES_MAX).enumerate() {
            let at = NAMES + index * NAME_WORDS;
            let bytes = handle.as_ref().map(Handle::to_bytes).unwrap_or_default();
            for (index, chunk) in bytes.chunks(8).enumerate() {
                let mut word = [0; 8];
                word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
                self.store(at + 1 + index, u64::from_le_bytes(word));
            }
            self.store(at, bytes.len() as u64);
        }
        self.store(NOTE, before.note);
        self.store(COUNT, 1 + before.names.len().min(NAMES_MAX) as u64);
    }

    /// The change was made, and its answer is noted or given.
    pub(crate) fn done(&self) {
        self.store(PHASE, DONE);
    }

    /// Whether nothing more is to be done for the request.
    pub(crate) fn is_done(&self) -> bool {
        self.load(PHASE) == DONE
    }

    /// The request is done with.
    pub(crate) fn clear(&self) {
        self.store(PHASE, READ);
        if self.load(DEATHS) != 0 {
            self.store(DEATHS, 0);
        }
    }

    /// What a predecessor may have changed.
    pub(crate) fn doubt(&self) -> Option<Doubt> {
        if self.load(PHASE) != BEGUN {
            return None;
        }
        let before = self.load(COUNT).checked_sub(1).map(|count| {
            let names = (0..(count as usize).min(NAMES_MAX)).map(|index| self.name(index));
            Before { names: names.collect(), note: self.load(NOTE) }
        });
        Some(Doubt { first: self.load(FIRST), before })
    }

    /// One more process is about to try; says how many died of it before.
    pub(crate) fn try_again(&self) -> u64 {
        let deaths = self.load(DEATHS) + 1;
        self.store(DEATHS, deaths);
        deaths
    }

    fn name(&self, index: usize) -> Option<Handle> {
        let at = NAMES + index * NAME_WORDS;
        let length = self.load(at) as usize;
        let words = (0..length.div_ceil(8).min(NAME_WORDS - 1)).map(|i| self.load(at + 1 + i));
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        bytes.truncate(length);
        Handle::from_bytes(&bytes)
    }

    fn load(&self, word: usize) -> u64 {
        self.words.get(word).load(Ordering::Acquire)
    }

    fn store(&self, word: usize, value: u64) {
        self.words.get(word).store(value, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use memory::Memory;

    use super::*;

    #[test]
    fn marks_say_how_far_a_change_got() {
        let memory = Memory::new("test", memory::PAGE_BYTES).unwrap();
        let marks = Marks::new(memory.words(0, WORDS).unwrap());
        assert_eq!(marks.doubt(), None);
        marks.begin(7);
        assert_eq!(marks.doubt(), Some(Doubt { first: 7, before: None }));
        let handle = Handle::from_bytes(&[&[1, 0, 0, 0][..], &[9; 128]].concat());
        assert!(handle.is_some());
        let before = Before { names: vec![None, handle], note: 2 };
        marks.expect(&before);
        assert_eq!(marks.doubt(), Some(Doubt { first: 7, before: Some(before) }));
        assert_eq!((marks.try_again(), marks.try_again()), (1, 2));
        marks.done();
        assert!(marks.is_done() && marks.doubt().is_none());
        marks.clear();
        assert_eq!(marks.doubt(), None);
        marks.begin(8);
        assert_eq!(marks.doubt(), Some(Doubt { first: 8, before: None }));
        assert_eq!(marks.try_again(), 1);
    }
}
