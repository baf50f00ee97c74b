//! Frames on their way to the other end of a link: everything pending leaves in one write.
//!
//! A thread of the link's own writes them. Small ones that somebody waits for are sent by whoever
//! put them, as long as the stream takes them at once, which saves waking that thread.
//!
//! A full outbox does not block whoever adds to it, because that would hold up the order of
//! changes; answers are held back instead until it has room, which slows the callers down.

use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuse::Answer;
use rustix::net::SendFlags;

/// Bytes beyond which answers are held back.
const FULL_BYTES: usize = 8 << 20;
/// Bytes beyond which the link's own thread sends, beside whoever put them.
const AT_ONCE_BYTES_MAX: usize = 128 << 10;

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
    /// Whether somebody is writing to the stream: nobody else may then.
    busy: bool,
    /// Whether somebody waits for what is pending.
    urgent: bool,
    /// Whether the link's own thread waits for something to send.
    waiting: bool,
    /// How many wait for room.
    crowd: usize,
    /// The stream, for sending at once.
    stream: Option<Arc<TcpStream>>,
    /// Room of the last frames that were sent at once.
    spare: Vec<u8>,
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
        self.wake(inner);
    }

    /// Adds frames that leave with the next call of `put` or `send_at_once`, unless they are so
    /// many that they had better leave now.
    pub(super) fn put_quietly(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        fill(&mut inner.pending);
        if inner.pending.len() > AT_ONCE_BYTES_MAX {
            self.wake(inner);
        }
    }

    /// Somebody waits for what is pending: the next `send_at_once` is worth its while.
    pub(super) fn urge(&self) {
        self.lock().urgent = true;
    }

    /// From now on frames may be sent over this stream at once.
    pub(super) fn attach(&self, stream: TcpStream) {
        let mut inner = self.lock();
        inner.stream = (!inner.closed).then(|| Arc::new(stream));
    }

    /// Sends what is pending, as far as it is urgent and the stream takes it without waiting; the
    /// link's own thread is woken for the rest.
    pub(super) fn send_at_once(&self) {
        let mut inner = self.lock();
        // Whoever is writing looks at what is pending when it is done.
        while inner.urgent && !inner.busy && !inner.pending.is_empty() {
            inner.urgent = false;
            let Some(stream) = inner.stream.as_ref().map(Arc::clone) else { break };
            if inner.pending.len() > AT_ONCE_BYTES_MAX {
                break;
            }
            let room = std::mem::take(&mut inner.spare);
            let mut frames = std::mem::replace(&mut inner.pending, room);
            inner.writing = frames.len();
            inner.busy = true;
            drop(inner);
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            // An error is met again, and told, by the thread.
            let sent = rustix::net::send(&*stream, &frames, flags).unwrap_or(0);
            inner = self.lock();
            inner.busy = false;
            inner.writing = 0;
            if inner.closed {
                break;
            }
            if sent < frames.len() {
                frames.drain(..sent);
                frames.append(&mut inner.pending);
                inner.pending = frames;
                break;
            }
            frames.clear();
            inner.spare = frames;
        }
        if !inner.pending.is_empty() || inner.closed {
            self.wake(inner);
        }
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
        inner.crowd += 1;
        while !inner.closed && inner.pending.len() + inner.writing > FULL_BYTES {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.crowd -= 1;
        !inner.closed
    }

    /// Waits for frames and swaps them with `empty`; false once the outbox is closed. After
    /// `pause` it returns without frames. What was taken before counts as written.
    pub(super) fn take(&self, empty: &mut Vec<u8>, pause: Duration) -> bool {
        empty.clear();
        let mut inner = self.lock();
        inner.writing = 0;
        inner.busy = false;
        if inner.pending.len() <= FULL_BYTES / 2 {
            inner.held.drain(..).for_each(Answer::send);
            if inner.crowd > 0 {
                self.changed.notify_all();
            }
        }
        let waited = self.changed.wait_timeout_while(inner, pause, |inner| {
            inner.waiting = inner.pending.is_empty() && !inner.closed;
            inner.waiting
        });
        inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        inner.waiting = false;
        // What is sent at once takes no time, and its end is told only when something is left.
        while inner.busy && !inner.closed {
            drop(inner);
            std::thread::yield_now();
            inner = self.lock();
        }
        std::mem::swap(&mut inner.pending, empty);
        inner.writing = empty.len();
        inner.busy = true;
        inner.urgent = false;
        !inner.closed
    }

    /// Nothing more is taken or sent; answers that were held back are given.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.pending = Vec::new();
        inner.stream = None;
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
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const PIECE_BYTES: usize = 1 << 20;

    /// Puts pieces until an answer is held back; says how many were put, and where that one and
    /// all later answers arrive.
    fn fill(outbox: &Outbox) -> (usize, Receiver<()>) {
        let (given, arrived) = channel();
        for count in 1.. {
            outbox.put_quietly(|out| out.resize(out.len() + PIECE_BYTES, 0));
            let given = given.clone();
            outbox.answer(Answer::calling(Ok(Vec::new()), move |_| given.send(()).unwrap()));
            if arrived.try_recv().is_err() {
                return (count, arrived);
            }
        }
        unreachable!("the loop has no end");
    }

    #[test]
    fn callers_who_wait_for_nobody_are_slowed_down_by_a_link_that_takes_nothing() {
        let outbox = Outbox::default();
        let (count, arrived) = fill(&outbox);
        assert_eq!(count, FULL_BYTES / PIECE_BYTES + 1);
        // What was taken is still under way until the next time.
        let mut taken = Vec::new();
        assert!(outbox.take(&mut taken, Duration::ZERO));
        assert_eq!(taken.len(), count * PIECE_BYTES);
        assert!(arrived.try_recv().is_err());
        assert!(outbox.take(&mut taken, Duration::ZERO));
        assert!(arrived.try_recv().is_ok());
    }

    #[test]
    fn what_is_urgent_is_sent_by_whoever_asks_and_the_rest_by_the_thread() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut other = listener.accept().unwrap().0;
        let outbox = Outbox::default();
        outbox.attach(stream.try_clone().unwrap());
        outbox.put_quietly(|out| out.extend_from_slice(b"early"));
        outbox.send_at_once();
        outbox.put_quietly(|out| out.extend_from_slice(b" late"));
        outbox.urge();
        outbox.send_at_once();
        let mut bytes = [0; 10];
        std::io::Read::read_exact(&mut other, &mut bytes).unwrap();
        assert_eq!(&bytes, b"early late");
        let mut taken = Vec::new();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| outbox.take(&mut taken, Duration::from_secs(60)));
            outbox.put_quietly(|out| out.extend_from_slice(b"rest"));
            outbox.send_at_once();
            assert!(thread.join().unwrap());
        });
        assert_eq!(taken, b"rest");
        // The thread is writing: nobody else may.
        outbox.put_quietly(|out| out.extend_from_slice(b"next"));
        outbox.urge();
        outbox.send_at_once();
        assert!(outbox.take(&mut taken, Duration::ZERO));
        assert_eq!(taken, b"next");
    }

    #[test]
    fn nobody_is_held_back_once_the_session_is_over() {
        let outbox = Outbox::default();
        let (_, arrived) = fill(&outbox);
        outbox.close();
        assert!(arrived.try_recv().is_ok());
    }
}
