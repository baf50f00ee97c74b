//! Proof of life on a data link, judged by echo.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::Time;
use wire::local::FromReplicator;
use wire::replication::Ping;

use crate::clock;

/// Time between two pings.
pub(super) const PING_EVERY: Duration = Duration::from_millis(100);

/// A link on which nothing was heard for so long is over.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Pings remembered: more than those of the longest stall that can be configured, a minute.
const SENT_MAX: usize = 700;

/// The pings of one end of a link.
#[derive(Default)]
pub(super) struct Pings {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    sequence: u64,
    heard: u64,
    sent: VecDeque<(u64, Time)>,
    last: Time,
    /// The newest of its own pings that was echoed.
    echoed: u64,
    /// When the other end last showed that it takes something.
    moved: Time,
}

impl Pings {
    /// The next ping, if one is due.
    pub(super) fn due(&self) -> Option<Ping> {
        let mut inner = self.lock();
        let now = clock::now();
        if now.since(inner.last) < PING_EVERY {
            return None;
        }
        inner.last = now;
        inner.sequence += 1;
        let sequence = inner.sequence;
        inner.sent.push_back((sequence, now));
        if inner.sent.len() > SENT_MAX {
            inner.sent.pop_front();
        }
        Some(Ping { sequence, echo: inner.heard })
    }

    /// A new connection: pings that went over an earlier one are echoed no more.
    pub(super) fn begin_anew(&self) {
        let mut inner = self.lock();
        inner.sent.clear();
        inner.moved = clock::now();
    }

    /// The other end has taken something from the stream, for it answered.
    pub(super) fn moved(&self) {
        self.lock().moved = clock::now();
    }

    /// Whether the other end has taken nothing for longer than that, although it is alive: it
    /// echoes what it takes from the stream, in order. A slow link may hold a ping for long behind
    /// data, which is no stall as long as data are answered.
    pub(super) fn is_stalled(&self, ping: Ping, limit: Duration) -> bool {
        self.lock().is_stalled(clock::now(), ping, limit)
    }

    /// The other end's ping came: what it proves, for the daemon.
    pub(super) fn heard(&self, ping: Ping) -> FromReplicator {
        let mut inner = self.lock();
        inner.heard = inner.heard.max(ping.sequence);
        let echoed = inner.sent.iter().find(|(sequence, _)| *sequence == ping.echo);
        FromReplicator::DataLink { received: clock::now(), echoed: echoed.map(|(_, at)| *at) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_stalled(&mut self, now: Time, ping: Ping, limit: Duration) -> bool {
        if ping.echo > self.echoed {
            self.echoed = ping.echo;
            self.moved = now;
        }
        let waiting = self.sent.iter().find(|(sequence, _)| *sequence > ping.echo);
        waiting.is_some_and(|(_, at)| now.since(self.moved.max(*at)) > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_neither_an_idle_link_nor_a_slow_one() {
        let at = |seconds: u64| Time::ZERO + Duration::from_secs(seconds);
        let ping = |echo| Ping { sequence: 1, echo };
        let limit = Duration::from_secs(10);
        let mut inner =
            Inner { sent: VecDeque::from([(1, at(1)), (2, at(2))]), ..Inner::default() };
        assert!(!inner.is_stalled(at(30), ping(2), limit), "nothing is under way");
        inner.sent.push_back((3, at(31)));
        assert!(!inner.is_stalled(at(41), ping(2), limit));
        inner.moved = at(40);
        assert!(!inner.is_stalled(at(50), ping(2), limit), "data before the ping were answered");
        assert!(inner.is_stalled(at(51), ping(2), limit));
        assert!(!inner.is_stalled(at(52), ping(3), limit));
    }
}
