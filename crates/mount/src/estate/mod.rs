//! What one who goes on serving a mount in a dead server's place must know, kept in memory that
//! outlives the process: node ids, open files, requests that were read, answers that wait.
//!
//! ```text
//! words | slots: requests being served | answers that wait | journal of files | journal of nodes
//! ```
//!
//! A process that is killed has done its stores up to some point, whole and in order. So a store of
//! one word publishes what was stored before it; nothing here is meant to survive the machine.
//! Descriptors are somebody else's to keep: see `Holder`.

mod answers;
mod intent;
mod journal;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use fuse::{Features, Protocol, abi};
use memory::{Memory, PAGE_BYTES, Part, Words};
use rustix::io::Errno;

pub(crate) use answers::{Answers, Waiting};
pub(crate) use intent::{Before, Doubt, Marks};
pub(crate) use journal::Journal;

/// Requests of one mount that can be served at once.
pub(crate) const SLOTS: usize = 8;
const SLOT_BYTES: usize = abi::REQUEST_BYTES_MAX.next_multiple_of(PAGE_BYTES);
const ANSWERS_BYTES: usize = answers::BYTES.next_multiple_of(PAGE_BYTES);
/// Of each half of the journals. Most of it is never touched.
const FILES_BYTES: usize = 64 << 20;
const NODES_BYTES: usize = 2 << 30;

const WORDS_AT: usize = 0;
const MARKS_AT: usize = WORDS_AT + PAGE_BYTES;
const SLOTS_AT: usize = MARKS_AT + SLOTS * PAGE_BYTES;
const ANSWERS_AT: usize = SLOTS_AT + SLOTS * SLOT_BYTES;
const FILES_AT: usize = ANSWERS_AT + ANSWERS_BYTES;
const NODES_AT: usize = FILES_AT + 2 * FILES_BYTES;
/// Bytes of memory for an estate; what is not used takes no room.
pub const ESTATE_BYTES: usize = NODES_AT + 2 * NODES_BYTES;

/// Changes whenever what is stored does.
const VERSION: u64 = 1;
const WORDS: usize = 64;
const VERSION_WORD: usize = 0;
const NUMBER_WORD: usize = 1;
const MINOR_WORD: usize = 2;
const FLAGS_WORD: usize = 3;
const FEATURES_WORD: usize = 4;
/// The newest handle of an open file.
const HANDLE_WORD: usize = 5;
const FILES_WORDS: usize = 8;
const NODES_WORDS: usize = 12;

/// Keeps descriptors for a successor.
pub trait Holder: Send + Sync {
    /// Keeps the descriptor of a file that no handle or name leads to any more. It must be safe
    /// when this returns.
    fn hold(&self, tree: u16, node: u64, file: BorrowedFd<'_>);

    /// That descriptor is needed no more.
    fn let_go(&self, tree: u16, node: u64);
}

/// For servers without successors.
struct Nobody;

impl Holder for Nobody {
    fn hold(&self, _tree: u16, _node: u64, _file: BorrowedFd<'_>) {}
    fn let_go(&self, _tree: u16, _node: u64) {}
}

/// What a successor needs to know of one mount.
pub struct Estate {
    words: Arc<Words>,
    slots: Mutex<Vec<(Part, Marks)>>,
    answers: Arc<Answers>,
    journals: Mutex<Option<(Journal, Journal)>>,
    holder: Arc<dyn Holder>,
}

impl Estate {
    /// An estate in this part of a memory, which is all zeros or was left by another process.
    pub fn new(memory: &Memory, at: usize, holder: Arc<dyn Holder>) -> Result<Arc<Estate>, Errno> {
        let words = Arc::new(memory.words(at + WORDS_AT, WORDS)?);
        let version = words.get(VERSION_WORD);
        match version.load(Ordering::Acquire) {
            0 => version.store(VERSION, Ordering::Release),
            VERSION => {}
            _ => return Err(Errno::PROTO),
        }
        let mut slots = Vec::new();
        for slot in 0..SLOTS {
            let part = memory.part(at + SLOTS_AT + slot * SLOT_BYTES, SLOT_BYTES)?;
            let marks = memory.words(at + MARKS_AT + slot * PAGE_BYTES, intent::WORDS)?;
            slots.push((part, Marks::new(marks)));
        }
        let answers = memory.words(at + ANSWERS_AT, answers::WORDS)?;
        let journal = |start: usize, bytes: usize, first: usize| -> Result<Journal, Errno> {
            let halves = [memory.part(at + start, bytes)?, memory.part(at + start + bytes, bytes)?];
            Ok(Journal::new(halves, Arc::clone(&words), first))
        };
        let files = journal(FILES_AT, FILES_BYTES, FILES_WORDS)?;
        let nodes = journal(NODES_AT, NODES_BYTES, NODES_WORDS)?;
        Ok(Arc::new(Estate {
            words,
            slots: Mutex::new(slots),
            answers: Answers::new(answers),
            journals: Mutex::new(Some((files, nodes))),
            holder,
        }))
    }

    /// An estate that nobody will succeed to.
    pub(crate) fn private() -> Result<Arc<Estate>, Errno> {
        Estate::new(&Memory::private(ESTATE_BYTES), 0, Arc::new(Nobody))
    }

    pub(crate) fn holder(&self) -> &Arc<dyn Holder> {
        &self.holder
    }

    pub(crate) fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }

    /// The journals of open files and of nodes; each mount takes them once.
    pub(crate) fn take_journals(&self) -> Option<(Journal, Journal)> {
        self.journals.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The slots, for the threads that serve.
    pub(crate) fn take_slots(&self) -> Vec<(Part, Marks)> {
        std::mem::take(&mut self.slots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn note_connection(&self, number: u32, protocol: Protocol) {
        let store = |word: usize, value: u64| self.words.get(word).store(value, Ordering::Release);
        store(NUMBER_WORD, u64::from(number));
        store(MINOR_WORD, u64::from(protocol.minor));
        store(FLAGS_WORD, protocol.flags);
        store(FEATURES_WORD, protocol.features.to_bits());
    }

    /// The connection that was noted, over its descriptor.
    pub(crate) fn connection(&self, device: OwnedFd) -> fuse::Connection {
        let load = |word: usize| self.words.get(word).load(Ordering::Acquire);
        let protocol = Protocol {
            minor: load(MINOR_WORD) as u32,
            flags: load(FLAGS_WORD),
            features: Features::from_bits(load(FEATURES_WORD)),
        };
        fuse::Connection::resume(device, load(NUMBER_WORD) as u32, protocol)
    }

    /// A number for an open file that was never given before.
    pub(crate) fn next_handle(&self) -> u64 {
        self.words.get(HANDLE_WORD).fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl std::fmt::Debug for Estate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Estate").finish_non_exhaustive()
    }
}
