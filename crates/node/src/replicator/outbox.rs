//! Frames on their way to the other end of a link: everything pending leaves in one write.
//!
//! A full outbox does not block whoever adds to it, because that would hold up the order of
//! changes; answers are held back instead until it has room, which slows the callers down.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuse::Answer;

/// Bytes beyond which answers are held back.
const FULL_BYTES: usize = 8 << 20;

/// Frames on their way.
#[derive(Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    pending: Vec<u8>,
    /// Bytes taken for writing and not yet written.
    writing: usize,
    held: Vec<Answer>,
    closed: bool,
}

impl Outbox {
    /// Adds frames, unless the outbox is closed.
    pub(super) fn put(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        fill(&mut inner.pending);
        drop(inner);
        self.changed.notify_all();
    }

    /// Sends an answer now, or when there is room again.
    pub(super) fn answer(&self, answer: Answer) {
        let mut inner = self.lock();
        if !inner.closed && inner.pending.len() + inner.writing > FULL_BYTES {
            inner.held.push(answer);
        } else {
            drop(inner);
            answer.send();
        }
    }

    /// Waits until there is room for more, or the outbox is closed (false).
    pub(super) fn wait_for_room(&self) -> bool {
        let mut inner = self.lock();
        while !inner.closed && inner.pending.len() + inner.writing > FULL_BYTES {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        !inner.closed
    }

    /// Waits for frames and swaps them with `empty`; false once the outbox is closed. After
    /// `pause` it returns without frames. What was taken before counts as written.
    pub(super) fn take(&self, empty: &mut Vec<u8>, pause: Duration) -> bool {
        empty.clear();
        let mut inner = self.lock();
        inner.writing = 0;
        if inner.pending.len() <= FULL_BYTES / 2 {
            inner.held.drain(..).for_each(Answer::send);
            self.changed.notify_all();
        }
        if inner.pending.is_empty() && !inner.closed {
            let waited = self.changed.wait_timeout_while(inner, pause, |inner| {
                inner.pending.is_empty() && !inner.closed
            });
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut inner.pending, empty);
        inner.writing = empty.len();
        !inner.closed
    }

    /// Nothing more is taken or sent; answers that were held back are given.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.pending = Vec::new();
        let held = std::mem::take(&mut inner.held);
        drop(inner);
        held.into_iter().for_each(Answer::send);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
