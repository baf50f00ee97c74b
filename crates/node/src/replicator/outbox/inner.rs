//! What an outbox holds, and the account that it keeps of it: positions count the bytes of the
//! stream from its beginning.
//!
//! Nothing is sent here.

use std::collections::VecDeque;

use fuse::Answer;
use memory::Ring;

use crate::replicator::outbox::RING_BYTES;
use crate::replicator::place::Place;
use crate::stream::Stream;

/// The state of an outbox.
pub(super) struct Inner {
    pub(super) ring: Ring,
    pub(super) place: Place,
    /// Identity of the stream.
    pub(super) stream: u128,
    /// Identity of the other end's stream, once it is known.
    pub(super) theirs: Option<u128>,
    /// The other end has confirmed everything up to here.
    pub(super) head: u64,
    /// Up to here it was given to a connection, or is just being given.
    pub(super) sent: u64,
    /// Up to here it is in the ring.
    pub(super) tail: u64,
    /// What has no room in the ring yet, whole frames each.
    pub(super) behind: VecDeque<Vec<u8>>,
    pub(super) behind_bytes: u64,
    /// Bytes taken of what the other end sends, and how many of them it was told of.
    pub(super) received: u64,
    pub(super) told: u64,
    /// Whether somebody is writing to the connection: nobody else may then.
    pub(super) busy: bool,
    /// Whether somebody waits for what is pending.
    pub(super) urgent: bool,
    /// Whether the link's own thread waits for something to send.
    pub(super) waiting: bool,
    /// How many wait for room.
    pub(super) crowd: usize,
    /// The connection, for sending at once.
    pub(super) at_once: Option<Stream>,
    /// Whether the connection keeps something that it was given and has not sent.
    pub(super) kept: bool,
    /// Whether a connection stands.
    pub(super) joined: bool,
    /// Room for the frames that are being made.
    pub(super) spare: Vec<u8>,
    pub(super) held: Vec<Answer>,
    /// Whether nothing more is added, and it is closed once everything is sent.
    pub(super) closing: bool,
    pub(super) closed: bool,
}

impl Inner {
    pub(super) fn new(ring: Ring, place: Place, stream: u128) -> Inner {
        Inner {
            ring,
            place,
            stream,
            theirs: None,
            head: 0,
            sent: 0,
            tail: 0,
            behind: VecDeque::new(),
            behind_bytes: 0,
            received: 0,
            told: 0,
            busy: false,
            urgent: false,
            waiting: false,
            crowd: 0,
            at_once: None,
            kept: false,
            joined: false,
            spare: Vec::new(),
            held: Vec::new(),
            closing: false,
            closed: false,
        }
    }

    pub(super) fn publish(&self) {
        self.place.publish(self.tail);
    }

    pub(super) fn append(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut frames = std::mem::take(&mut self.spare);
        fill(&mut frames);
        if self.behind.is_empty() && self.fits(frames.len()) {
            self.ring.write(self.tail, &frames);
            self.tail += frames.len() as u64;
            self.publish();
            frames.clear();
            self.spare = frames;
        } else if !frames.is_empty() {
            // What waits behind is not kept: a successor cannot go on with this stream.
            self.place.is_whole(false);
            self.publish();
            self.behind_bytes += frames.len() as u64;
            self.behind.push_back(frames);
        }
    }

    pub(super) fn fits(&self, length: usize) -> bool {
        (self.tail - self.head) as usize + length <= RING_BYTES
    }

    /// What of the ring was not sent: where it begins, and its length.
    pub(super) fn pending(&self) -> (u64, usize) {
        (self.sent, (self.tail - self.sent) as usize)
    }

    pub(super) fn unsent(&self) -> u64 {
        self.tail - self.sent + self.behind_bytes
    }

    /// The other end has taken everything up to here; true if that made room for what was behind.
    pub(super) fn confirm(&mut self, received: u64) -> bool {
        if received > self.head {
            self.head = received;
            self.place.confirmed(received);
        }
        let mut moved = false;
        while self.behind.front().is_some_and(|frames| self.fits(frames.len())) {
            let Some(frames) = self.behind.pop_front() else { break };
            self.ring.write(self.tail, &frames);
            self.tail += frames.len() as u64;
            self.behind_bytes -= frames.len() as u64;
            moved = true;
        }
        if moved {
            self.publish();
            self.place.is_whole(self.behind.is_empty());
        }
        moved
    }
}
