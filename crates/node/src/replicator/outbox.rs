//! Frames on their way to the other end of a link, and those that it has not confirmed yet: a ring
//! that a broken connection leaves as it is, so that the next one goes on where that ended.
//!
//! A thread of the link's own sends everything pending at once. Small frames that somebody waits
//! for are sent by whoever put them, as long as the stream takes them at once, which saves waking
//! that thread.
//!
//! A full outbox does not block whoever adds to it, because that would hold up the order of
//! changes; answers are held back instead until it has room, which slows the callers down.

mod inner;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fuse::Answer;
use memory::{Memory, PAGE_BYTES, Ring, RingSender};
use model::SessionId;
use wire::hello::Joint;

use crate::clock;
use crate::replicator::keep::Keep;
use crate::replicator::outbox::inner::Inner;
use crate::replicator::packing::Packer;
use crate::replicator::ping::PING_EVERY;
use crate::replicator::place::{Place, WORDS};
use crate::sealed::Sealed;
use crate::stream::Stream;

/// Bytes kept until the other end has confirmed them; more wait behind. No frame is longer.
pub(super) const RING_BYTES: usize = 32 << 20;
/// Bytes not yet sent beyond which answers are held back.
const FULL_BYTES: u64 = 8 << 20;
/// Bytes beyond which the link's own thread sends, beside whoever put them.
const AT_ONCE_BYTES_MAX: usize = 128 << 10;
/// Bytes that are copied at a time to be sealed.
const PIECE_BYTES: usize = 256 << 10;
/// What was taken from the other end is confirmed whenever it is so many bytes more.
const CONFIRM_BYTES: u64 = 256 << 10;

/// Frames on their way.
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    changed: Condvar,
    sender: RingSender,
}

/// Why sending over a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The outbox was closed.
    Closed,
    /// The connection broke; what is not confirmed is kept for the next one.
    Broken(io::Error),
}

impl Outbox {
    /// An outbox that ends with this process.
    pub(super) fn new() -> io::Result<Arc<Outbox>> {
        let memory = Memory::new("evenkeel-outbox", PAGE_BYTES + RING_BYTES)?;
        let place = Place::new(Arc::new(memory.words(0, WORDS)?), 0);
        Ok(Outbox::begin(memory.ring(PAGE_BYTES, RING_BYTES)?, place))
    }

    /// An outbox of a session that a successor can go on with, after operation `number`, which must
    /// stay the last one as long as this takes.
    pub(super) fn kept(keep: &Keep, session: SessionId, number: u64) -> io::Result<Arc<Outbox>> {
        let place = Place::new(Arc::clone(keep.words()), number);
        place.set_session(session);
        Ok(Outbox::begin(keep.ring()?, place))
    }

    /// The outbox of a session that a predecessor left, if it can be gone on with.
    pub(super) fn left(keep: &Keep, session: SessionId) -> io::Result<Option<Arc<Outbox>>> {
        let place = Place::new(Arc::clone(keep.words()), keep.counts().number());
        let Some(left) = place.left(session) else { return Ok(None) };
        let tail = keep.counts().tail();
        let mut inner = Inner::new(keep.ring()?, place, left.stream);
        (inner.theirs, inner.received, inner.told) = (left.theirs, left.received, left.received);
        // What of it was sent the other end knows.
        (inner.head, inner.sent, inner.tail) = (left.head, tail, tail);
        Ok(Some(Outbox::over(inner)))
    }

    fn begin(ring: Ring, place: Place) -> Arc<Outbox> {
        let stream = clock::random();
        place.begin(stream);
        Outbox::over(Inner::new(ring, place, stream))
    }

    fn over(inner: Inner) -> Arc<Outbox> {
        let sender = inner.ring.sender();
        Arc::new(Outbox { inner: Mutex::new(inner), changed: Condvar::new(), sender })
    }

    /// Adds the frames of operation `number`, or none, as `put_quietly` does. Also of a closed
    /// outbox it is known from then on that the operation was recorded.
    pub(super) fn put_operation(&self, number: u64, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        inner.place.set_number(number);
        if inner.closed || inner.closing {
            inner.publish();
            return;
        }
        inner.append(fill);
        if inner.unsent() > AT_ONCE_BYTES_MAX as u64 {
            self.wake(inner);
        }
    }

    /// Adds frames, unless the outbox is closed.
    pub(super) fn put(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        if inner.closed || inner.closing {
            return;
        }
        inner.append(fill);
        self.wake(inner);
    }

    /// Adds frames that leave with the next call of `put` or `send_at_once`, unless they are so
    /// many that they had better leave now.
    pub(super) fn put_quietly(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        if inner.closed || inner.closing {
            return;
        }
        inner.append(fill);
        if inner.unsent() > AT_ONCE_BYTES_MAX as u64 {
            self.wake(inner);
        }
    }

    /// Somebody waits for what is pending: the next `send_at_once` is worth its while.
    pub(super) fn urge(&self) {
        self.lock().urgent = true;
    }

    /// Lets frames leave that were put quietly, if there are any.
    pub(super) fn flush(&self) {
        let inner = self.lock();
        if inner.pending().1 > 0 {
            self.wake(inner);
        }
    }

    /// Sends what was put quietly, if there is anything.
    pub(super) fn send_rest(&self) {
        let mut inner = self.lock();
        if inner.pending().1 > 0 {
            inner.urgent = true;
            drop(inner);
            self.send_at_once();
        }
    }

    /// Whether the other end is known from an earlier connection.
    pub(super) fn is_resumed(&self) -> bool {
        self.lock().theirs.is_some()
    }

    /// Where this end stands.
    pub(super) fn joint(&self) -> Joint {
        let inner = self.lock();
        Joint { stream: inner.stream, received: inner.received }
    }

    /// A connection stands on which the other end said where it stands: what it has not taken is
    /// sent once more. Says in a sentence if it is not the end that was known before.
    pub(super) fn join(&self, theirs: Joint) -> Result<(), String> {
        let mut inner = self.idle(self.lock());
        if *inner.theirs.get_or_insert(theirs.stream) != theirs.stream {
            return Err("the other end has begun anew".to_owned());
        }
        inner.place.joined(theirs.stream);
        if theirs.received < inner.head || theirs.received > inner.sent {
            let why = "the other end speaks of bytes that were not sent or are not kept any more";
            return Err(why.to_owned());
        }
        inner.confirm(theirs.received);
        inner.sent = theirs.received;
        inner.kept = false;
        inner.joined = true;
        Ok(())
    }

    /// From now on frames may be sent over this connection at once.
    pub(super) fn attach(&self, stream: Stream) {
        let mut inner = self.lock();
        inner.at_once = (!inner.closed && inner.joined).then_some(stream);
    }

    /// The connection broke: whoever sends over it ends; frames are kept.
    pub(super) fn part(&self) {
        let mut inner = self.lock();
        inner.joined = false;
        inner.at_once = None;
        drop(inner);
        self.changed.notify_all();
    }

    /// So many bytes were taken of what the other end sends; says up to where, when it is time to
    /// confirm that.
    pub(super) fn took(&self, bytes: usize) -> Option<u64> {
        let mut inner = self.lock();
        inner.received += bytes as u64;
        inner.place.took(inner.received);
        if inner.received - inner.told < CONFIRM_BYTES {
            return None;
        }
        inner.told = inner.received;
        Some(inner.told)
    }

    /// The other end has taken everything up to here.
    pub(super) fn confirmed(&self, received: u64) {
        let mut inner = self.lock();
        // Nobody can have taken what was not sent.
        let received = received.min(inner.sent);
        if inner.confirm(received) {
            self.wake(inner);
        }
    }

    /// Sends what is pending, as far as it is urgent and the stream takes it without waiting; the
    /// link's own thread is woken for the rest.
    pub(super) fn send_at_once(&self) {
        let mut inner = self.lock();
        // Whoever is writing looks at what is pending when it is done.
        while inner.urgent && !inner.busy {
            let (from, length) = inner.pending();
            let Some(stream) = inner.at_once.clone() else { break };
            if length == 0 || length > AT_ONCE_BYTES_MAX || inner.kept {
                break;
            }
            inner.urgent = false;
            inner.busy = true;
            inner.sent += length as u64;
            // An error is met again, and told, by the thread.
            let (count, kept) = match &stream {
                Stream::Plain(socket) => {
                    drop(inner);
                    (self.sender.send(&**socket, from, length, true).unwrap_or(0), false)
                }
                Stream::Sealed(sealed) => {
                    let bytes = inner.ring.read(from, length);
                    drop(inner);
                    (sealed.write_at_once(&bytes).unwrap_or(0), sealed.has_kept())
                }
            };
            inner = self.lock();
            inner.busy = false;
            inner.kept = kept;
            inner.sent -= (length - count) as u64;
            if inner.closed || !inner.joined || count < length || kept {
                break;
            }
        }
        if inner.unsent() > 0 || inner.kept || inner.closed {
            self.wake(inner);
        }
    }

    /// Sends until the outbox is closed or the connection ends; `ping` may add proofs of life
    /// between frames, which are not part of the stream.
    pub(super) fn send_all(
        &self,
        mut stream: &Stream,
        mut packer: Option<Packer>,
        mut ping: impl FnMut(&mut Vec<u8>),
    ) -> Ended {
        let mut pings = Vec::new();
        loop {
            let mut inner = self.next();
            if inner.closed || inner.closing && inner.unsent() == 0 && !inner.kept {
                return Ended::Closed;
            }
            if !inner.joined {
                return Ended::Broken(io::ErrorKind::NotConnected.into());
            }
            let (from, length) = inner.pending();
            inner.busy = true;
            inner.urgent = false;
            inner.sent += length as u64;
            let packed = packer.as_mut().map(|packer| packer.pack(&inner.ring.read(from, length)));
            drop(inner);
            let written = match (packed, stream) {
                (Some(packed), _) => stream.write_all(packed),
                (None, Stream::Plain(socket)) => self.sender.send_all(&**socket, from, length),
                (None, Stream::Sealed(sealed)) => self.seal_all(sealed, from, length),
            };
            ping(&mut pings);
            let written = written.and_then(|()| stream.write_all(&pings));
            pings.clear();
            let mut inner = self.lock();
            inner.busy = false;
            inner.kept = false;
            drop(inner);
            if let Err(error) = written {
                return Ended::Broken(error);
            }
        }
    }

    /// Sends whole frames sealed, in pieces, so that whoever puts more is not held up.
    fn seal_all(&self, sealed: &Sealed, mut from: u64, mut length: usize) -> io::Result<()> {
        // Also without a piece, for what an earlier call has left.
        loop {
            let piece = length.min(PIECE_BYTES);
            let bytes = self.lock().ring.read(from, piece);
            sealed.write_all(&bytes)?;
            from += piece as u64;
            length -= piece;
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// Waits for something to send, or for a ping to be due.
    fn next(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        if inner.unsent() <= FULL_BYTES / 2 {
            inner.held.drain(..).for_each(Answer::send);
            if inner.crowd > 0 {
                self.changed.notify_all();
            }
        }
        let waited = self.changed.wait_timeout_while(inner, PING_EVERY, |inner| {
            let ending = inner.closed || inner.closing;
            inner.waiting = inner.pending().1 == 0 && !inner.kept && !ending && inner.joined;
            inner.waiting
        });
        inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        inner.waiting = false;
        self.idle(inner)
    }

    /// Waits until nobody is writing at once, which takes no time and whose end is told only when
    /// something is left.
    fn idle<'a>(&'a self, mut inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        while inner.busy && !inner.closed {
            drop(inner);
            std::thread::yield_now();
            inner = self.lock();
        }
        inner
    }

    /// Wakes the link's own thread, if it waits for something to send. Whoever writes looks again
    /// when that is done.
    fn wake(&self, mut inner: MutexGuard<'_, Inner>) {
        if !inner.busy && std::mem::take(&mut inner.waiting) {
            drop(inner);
            self.changed.notify_all();
        }
    }

    /// Sends an answer now, or when there is room again.
    pub(super) fn answer(&self, answer: Answer) {
        let mut inner = self.lock();
        if !inner.closed && inner.unsent() > FULL_BYTES {
            inner.held.push(answer);
        } else {
            drop(inner);
            answer.send();
        }
    }

    /// Waits until there is room for more, or the outbox is closed (false).
    pub(super) fn wait_for_room(&self) -> bool {
        let mut inner = self.lock();
        inner.crowd += 1;
        while !inner.closed && inner.unsent() > FULL_BYTES {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.crowd -= 1;
        !inner.closed
    }

    /// The last frames: once they are sent, the outbox is closed for whoever sends.
    pub(super) fn close_with(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.put(fill);
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// Whether the last frames are on their way.
    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Nothing more is taken or sent; answers that were held back are given.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        if !std::mem::replace(&mut inner.closed, true) {
            inner.place.close();
        }
        inner.joined = false;
        inner.at_once = None;
        inner.behind = VecDeque::new();
        inner.behind_bytes = 0;
        let held = std::mem::take(&mut inner.held);
        drop(inner);
        held.into_iter().for_each(Answer::send);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
