//! Proof of life on a data link, judged by echo.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::Time;
use wire::local::FromReplicator;
use wire::replication::Ping;

use crate::clock;

/// Time between two pings.
pub(super) const PING_EVERY: Duration = Duration::from_millis(100);

/// A link on which nothing was heard for so long is over.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A target that has taken nothing for so long is dropped.
const STALL_MAX: Duration = Duration::from_secs(10);

/// Pings remembered: more than a stall's.
const SENT_MAX: usize = 200;

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
}

impl Pings {
    /// The next ping, if one is due.
    pub(super) fn due(&self) -> Option<Ping> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Whether the other end has taken nothing for too long, although it is alive: it echoes what
    /// it takes from the stream, in order.
    pub(super) fn is_stalled(&self, ping: Ping) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = inner.sent.iter().find(|(sequence, _)| *sequence > ping.echo);
        taken.is_some_and(|(_, at)| clock::now().since(*at) > STALL_MAX)
    }

    /// The other end's ping came: what it proves, for the daemon.
    pub(super) fn heard(&self, ping: Ping) -> FromReplicator {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.heard = inner.heard.max(ping.sequence);
        let echoed = inner.sent.iter().find(|(sequence, _)| *sequence == ping.echo);
        FromReplicator::DataLink { received: clock::now(), echoed: echoed.map(|(_, at)| *at) }
    }
}
