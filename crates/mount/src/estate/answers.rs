//! Requests that left their slots and wait for their answers: for the peer, or for a disk.
//!
//! When an answer may be given is not decided here.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use fuse::{Answer, Connection, Settled};
use memory::Words;
use rustix::io::Errno;

/// Requests that may wait at once.
const COUNT: usize = 16 << 10;
/// Longest body of an answer that can wait, in bytes.
const BODY_BYTES: usize = 256;
const ENTRY_WORDS: usize = 64;
pub(super) const WORDS: usize = COUNT * ENTRY_WORDS;
pub(super) const BYTES: usize = WORDS * size_of::<u64>();

const STATE: usize = 0;
const UNIQUE: usize = 1;
const NUMBER: usize = 2;
const LENGTH: usize = 3;
const HANDLE: usize = 4;
const FLAGS: usize = 5;
const BODY: usize = 8;

const FREE: u64 = 0;
const ANSWER: u64 = 1;
const SYNC: u64 = 2;
const DURABLE: u64 = 3;

/// The first entry's only word: how many entries were ever used, with itself.
const USED: usize = 0;

/// Set in the length when it is an errno.
const IS_ERROR: u64 = 1 << 63;
const DATA_ONLY: u64 = 1;
const DIRECTORY: u64 = 2;

/// The table of waiting requests.
pub(crate) struct Answers {
    words: Words,
    free: Mutex<Vec<u32>>,
}

/// A request that waits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The change with this number was made; that is its outcome.
    Answer { unique: u64, number: u64, outcome: Result<Vec<u8>, Errno> },
    /// The change with the number before this one was made, and its file must be durable at the
    /// peer, as it is here.
    Durable { unique: u64, number: u64, node: u64, body: Vec<u8> },
    /// Of a sync: what is synced, and what its caller gets.
    Sync { unique: u64, handle: u64, directory: bool, data_only: bool, body: Vec<u8> },
}

impl Waiting {
    /// The request, and what its caller gets.
    pub(crate) fn into_outcome(self) -> (u64, Result<Vec<u8>, Errno>) {
        match self {
            Waiting::Answer { unique, outcome, .. } => (unique, outcome),
            Waiting::Durable { unique, body, .. } | Waiting::Sync { unique, body, .. } => {
                (unique, Ok(body))
            }
        }
    }
}

impl Answers {
    pub(super) fn new(words: Words) -> Arc<Answers> {
        let answers = Answers { words, free: Mutex::default() };
        // What was never used is not looked at, so that it takes no memory.
        let used = answers.used();
        answers.store(0, USED, u64::from(used));
        let free = (1..used).filter(|ticket| answers.load(*ticket, STATE) == FREE).collect();
        *answers.free.lock().unwrap_or_else(PoisonError::into_inner) = free;
        Arc::new(answers)
    }

    /// Notes a request; the ticket is to be given back. `ENOMEM` when too many wait.
    pub(crate) fn add(&self, waiting: &Waiting) -> Result<u32, Errno> {
        let ticket = self.ticket()?;
        let state = match waiting {
            Waiting::Answer { unique, number, outcome } => {
                self.store(ticket, UNIQUE, *unique);
                self.store(ticket, NUMBER, *number);
                match outcome {
                    Ok(body) => self.store_body(ticket, body),
                    Err(errno) => {
                        let errno = u64::from(errno.raw_os_error().unsigned_abs());
                        self.store(ticket, LENGTH, IS_ERROR | errno);
                    }
                }
                ANSWER
            }
            Waiting::Durable { unique, number, node, body } => {
                self.store(ticket, UNIQUE, *unique);
                self.store(ticket, NUMBER, *number);
                self.store(ticket, HANDLE, *node);
                self.store_body(ticket, body);
                DURABLE
            }
            Waiting::Sync { unique, handle, directory, data_only, body } => {
                let flags = u64::from(*data_only) * DATA_ONLY + u64::from(*directory) * DIRECTORY;
                self.store(ticket, UNIQUE, *unique);
                self.store(ticket, HANDLE, *handle);
                self.store(ticket, FLAGS, flags);
                self.store_body(ticket, body);
                SYNC
            }
        };
        self.store(ticket, STATE, state);
        Ok(ticket)
    }

    fn ticket(&self) -> Result<u32, Errno> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ticket) = free.pop() {
            return Ok(ticket);
        }
        let used = self.used();
        if used as usize == COUNT {
            return Err(Errno::NOMEM);
        }
        self.store(0, USED, u64::from(used) + 1);
        Ok(used)
    }

    fn used(&self) -> u32 {
        self.load(0, USED).clamp(1, COUNT as u64) as u32
    }

    /// What waits under a ticket.
    fn get(&self, ticket: u32) -> Option<Waiting> {
        let unique = self.load(ticket, UNIQUE);
        let length = self.load(ticket, LENGTH);
        let body = |length: u64| {
            let words = (0..BODY_BYTES / 8).map(|index| self.load(ticket, BODY + index));
            let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
            bytes.truncate(length as usize);
            bytes
        };
        match self.load(ticket, STATE) {
            ANSWER => {
                let outcome = if length & IS_ERROR == 0 {
                    Ok(body(length))
                } else {
                    Err(Errno::from_raw_os_error((length & 0xfff) as i32))
                };
                Some(Waiting::Answer { unique, number: self.load(ticket, NUMBER), outcome })
            }
            DURABLE => {
                let (number, node) = (self.load(ticket, NUMBER), self.load(ticket, HANDLE));
                Some(Waiting::Durable { unique, number, node, body: body(length) })
            }
            SYNC => {
                let (handle, flags) = (self.load(ticket, HANDLE), self.load(ticket, FLAGS));
                let (directory, data_only) = (flags & DIRECTORY != 0, flags & DATA_ONLY != 0);
                Some(Waiting::Sync { unique, handle, directory, data_only, body: body(length) })
            }
            _ => None,
        }
    }

    /// All that wait, with their tickets, by rising number.
    pub(crate) fn all(&self) -> Vec<(u32, Waiting)> {
        let all = 1..self.used();
        let mut all: Vec<(u32, Waiting)> =
            all.filter_map(|ticket| Some((ticket, self.get(ticket)?))).collect();
        all.sort_by_key(|(_, waiting)| match waiting {
            Waiting::Answer { number, .. } | Waiting::Durable { number, .. } => *number,
            Waiting::Sync { .. } => u64::MAX,
        });
        all
    }

    /// The answer to a request that was noted.
    pub(crate) fn answer(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        unique: u64,
        outcome: Result<Vec<u8>, Errno>,
        ticket: u32,
    ) -> Answer {
        let by: Arc<dyn Settled> = Arc::clone(self) as Arc<dyn Settled>;
        Answer::noted(connection, unique, outcome, by, ticket)
    }

    fn store_body(&self, ticket: u32, body: &[u8]) {
        // Longer ones there are none: entries, attributes and sizes.
        let body = body.get(..body.len().min(BODY_BYTES)).unwrap_or_default();
        for (index, chunk) in body.chunks(8).enumerate() {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.store(ticket, BODY + index, u64::from_le_bytes(bytes));
        }
        self.store(ticket, LENGTH, body.len() as u64);
    }

    fn load(&self, ticket: u32, word: usize) -> u64 {
        self.words.get(ticket as usize * ENTRY_WORDS + word).load(Ordering::Acquire)
    }

    fn store(&self, ticket: u32, word: usize, value: u64) {
        self.words.get(ticket as usize * ENTRY_WORDS + word).store(value, Ordering::Release);
    }
}

impl Settled for Answers {
    fn settled(&self, ticket: u32) {
        self.store(ticket, STATE, FREE);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(ticket);
    }
}

#[cfg(test)]
mod tests {
    use memory::Memory;

    use super::*;

    #[test]
    fn what_waits_is_found_again_until_it_is_settled() {
        let bytes = BYTES.next_multiple_of(memory::PAGE_BYTES);
        let memory = Memory::new("test", bytes).unwrap();
        let answers = Answers::new(memory.words(0, WORDS).unwrap());
        let answer = |number, outcome| Waiting::Answer { unique: number + 100, number, outcome };
        let sync = Waiting::Sync {
            unique: 9,
            handle: 7,
            directory: true,
            data_only: false,
            body: vec![1; 11],
        };
        let late = answers.add(&answer(2, Err(Errno::NOSPC))).unwrap();
        let syncing = answers.add(&sync).unwrap();
        let early = answers.add(&answer(1, Ok(vec![5; BODY_BYTES]))).unwrap();
        let found = answers.all();
        let expected = [
            (early, answer(1, Ok(vec![5; BODY_BYTES]))),
            (late, answer(2, Err(Errno::NOSPC))),
            (syncing, sync),
        ];
        assert_eq!(found, expected);
        for ticket in [early, late, syncing] {
            answers.settled(ticket);
        }
        assert_eq!(answers.all(), []);
        for _ in 1..COUNT {
            answers.add(&answer(1, Ok(vec![]))).unwrap();
        }
        assert_eq!(answers.add(&answer(1, Ok(vec![]))), Err(Errno::NOMEM));
    }
}
