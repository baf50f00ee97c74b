//! Checkpoints of a session: from time to time both nodes make durable what they hold, so that the
//! activity log can let go of what lies before.
//!
//! What is hot is the log's business, and what a checkpoint proves that of `activity`.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use activity::Point;
use rustix::io::Errno;
use wire::replication::{Forward, put_forward};

use crate::clock;
use crate::replicator::log;
use crate::replicator::ping::PING_EVERY;
use crate::replicator::source::{Link, State};

/// Time between two checkpoints when little changes.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);

impl Link {
    /// Lets what is hot go cold from time to time, once the target lacks nothing.
    pub(super) fn keep_checkpoints(&self) {
        let waiting = |state: &mut State| !(state.ended || state.settled && state.linked);
        let waited = self.changed.wait_while(self.lock(), waiting);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        // The second one tells the target that the first one is complete here too.
        let known = self.primary.log().point().is_some_and(|point| point.base == self.id.0);
        let mut made = if known { 2 } else { 0 };
        let mut last = None;
        while !self.is_ended() {
            let number = self.primary.lock().acks.number();
            if made < 2 || last != Some(number) {
                match self.checkpoint(made == 0) {
                    Ok(true) => {
                        made += 1;
                        last = Some(number);
                    }
                    Ok(false) => {}
                    Err(error) => {
                        let mut order = self.order.lock();
                        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                        order.copy_failed("making a checkpoint", errno);
                        return;
                    }
                }
            }
            match (made, last) {
                // Not possible at the moment: the target has lost something again.
                (_, None) => self.primary.log().wait_due(PING_EVERY),
                (1, _) => {}
                _ => self.primary.log().wait_due(CHECKPOINT_EVERY),
            }
        }
    }

    /// Has both nodes make durable what they hold, and lets go of the log entries up to there;
    /// false when that is not possible now.
    fn checkpoint(&self, first: bool) -> io::Result<bool> {
        let log = self.primary.log();
        let point = log.point();
        // A log that names too much to be of use begins anew as well.
        let renew = first || point.is_none();
        let point = point.unwrap_or_default();
        let base = match (first, renew) {
            (true, _) => self.id.0,
            (false, true) => clock::random(),
            (false, false) => point.base,
        };
        let previous = if renew { point.base } else { point.previous };
        let (since, number) = {
            let _order = self.order.lock();
            (log.stamp(), self.primary.lock().acks.number())
        };
        log.begin_checkpoint(number)?;
        match self.primary.lock().live_of(self.id) {
            Some(live) if !live.known.is_walking() => live.outbox.put(|out| {
                put_forward(out, &Forward::Barrier { number, base: Some((base, previous)) });
            }),
            Some(_) | None => return Ok(false),
        }
        let roots = self.primary.trees().iter().map(|tree| Arc::clone(tree.root()));
        log.begin_seal(&roots.collect::<Vec<_>>())?;
        log::sync_trees(self.primary.trees())?;
        let waiting = |state: &mut State| !state.ended && state.barrier < Some(number);
        let waited = self.changed.wait_while(self.lock(), waiting);
        if waited.unwrap_or_else(PoisonError::into_inner).barrier < Some(number) {
            return Ok(false);
        }
        let shared = Point { base, previous, as_target: false, cooled: number, begun: number };
        log.checkpoint(number, since, renew.then_some(shared)).map(|()| true)
    }
}
