//! Where an outbox stands, in words that a successor finds: whether there is a stream to go on
//! with, how far the other end has confirmed it, and how much was taken of the other end's.
//!
//! The stream itself is in the outbox's ring.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use memory::Words;
use model::SessionId;

use crate::replicator::keep::Counts;

/// Words of which `Place` and `Counts` use some each.
pub(super) const WORDS: usize = 32;

const OPEN: usize = 0;
const HEAD: usize = 1;
const RECEIVED: usize = 2;
const STREAM: [usize; 2] = [3, 4];
const THEIRS: [usize; 2] = [5, 6];
const IS_JOINED: usize = 7;
const IS_INCOMPLETE: usize = 8;
const SESSION: [usize; 2] = [9, 10];

/// Where an outbox keeps account of itself.
pub(super) struct Place {
    words: Arc<Words>,
    counts: Counts,
    /// The newest operation that was put.
    number: u64,
}

/// What a predecessor left of an outbox.
pub(super) struct Left {
    pub(super) stream: u128,
    /// Identity of the other end's stream, if that was known.
    pub(super) theirs: Option<u128>,
    pub(super) head: u64,
    pub(super) received: u64,
}

impl Place {
    /// The place in these words, after operation `number`.
    pub(super) fn new(words: Arc<Words>, number: u64) -> Place {
        let counts = Counts::over(&words);
        Place { words, counts, number }
    }

    /// What a predecessor left for this session, if it can be gone on with.
    pub(super) fn left(&self, session: SessionId) -> Option<Left> {
        let whole = self.load(OPEN) != 0 && self.load(IS_INCOMPLETE) == 0;
        if !whole || self.load_identity(SESSION) != session.0 {
            return None;
        }
        let theirs = (self.load(IS_JOINED) != 0).then(|| self.load_identity(THEIRS));
        let (head, received) = (self.load(HEAD), self.load(RECEIVED));
        Some(Left { stream: self.load_identity(STREAM), theirs, head, received })
    }

    /// The stream is one of this session, once it has begun.
    pub(super) fn set_session(&self, session: SessionId) {
        self.close();
        self.store_identity(SESSION, session.0);
    }

    /// A stream begins.
    pub(super) fn begin(&self, stream: u128) {
        self.close();
        for word in [HEAD, RECEIVED, IS_JOINED, IS_INCOMPLETE] {
            self.store(word, 0);
        }
        self.store_identity(STREAM, stream);
        self.publish(0);
        self.store(OPEN, 1);
    }

    /// There is nothing to go on with.
    pub(super) fn close(&self) {
        self.store(OPEN, 0);
    }

    pub(super) fn joined(&self, theirs: u128) {
        self.store_identity(THEIRS, theirs);
        self.store(IS_JOINED, 1);
    }

    pub(super) fn took(&self, received: u64) {
        self.store(RECEIVED, received);
    }

    pub(super) fn confirmed(&self, head: u64) {
        self.store(HEAD, head);
    }

    /// Whether all of the stream is in the ring: a successor cannot go on with a part.
    pub(super) fn is_whole(&self, whole: bool) {
        self.store(IS_INCOMPLETE, u64::from(!whole));
    }

    pub(super) fn set_number(&mut self, number: u64) {
        self.number = number;
    }

    /// The stream reaches up to here, with the newest operation in it.
    pub(super) fn publish(&self, tail: u64) {
        self.counts.publish(tail, self.number);
    }

    fn load(&self, word: usize) -> u64 {
        self.words.get(word).load(Ordering::Acquire)
    }

    fn store(&self, word: usize, value: u64) {
        self.words.get(word).store(value, Ordering::Release);
    }

    fn load_identity(&self, words: [usize; 2]) -> u128 {
        let [low, high] = words.map(|word| u128::from(self.load(word)));
        high << 64 | low
    }

    fn store_identity(&self, [low, high]: [usize; 2], identity: u128) {
        self.store(low, identity as u64);
        self.store(high, (identity >> 64) as u64);
    }
}
