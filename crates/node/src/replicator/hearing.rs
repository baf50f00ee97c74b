//! What the target of a session says: confirmations go to the acknowledgements, answers to whoever
//! asked.
//!
//! The connection itself is `source`'s.

use std::io;
use std::sync::mpsc::{SendError, Sender};

use cluster::input::ReplicatorEvent;
use wire::frame::PREFIX_BYTES;
use wire::replication::{Backward, Forward, put_forward, take_backward};

use crate::connection;
use crate::replicator::source::{Heard, Link};
use crate::stream::Stream;

impl Link {
    pub(super) fn hear(&self, stream: &Stream, to_walker: &Sender<Heard>) -> io::Result<()> {
        let mut frames = connection::Frames::new(stream, 1 << 16);
        loop {
            let frame = frames.next()?;
            let message = take_backward(frame).map_err(io::Error::other)?;
            let is_ping = matches!(message, Backward::Ping(_));
            if !self.take_in(message, to_walker) {
                return Ok(());
            }
            if is_ping {
                continue;
            }
            self.pings.moved();
            if let Some(received) = self.outbox.took(PREFIX_BYTES + frame.len()) {
                self.outbox.put(|out| put_forward(out, &Forward::Received(received)));
            }
        }
    }

    /// Takes in what the target says; false when the session is over.
    fn take_in(&self, message: Backward<'_>, to_walker: &Sender<Heard>) -> bool {
        match message {
            Backward::Applied { number } => {
                self.primary.applied(&self.target, number);
            }
            Backward::Durable { number } => {
                self.primary.durable(&self.target, number);
            }
            Backward::BarrierDone { number } => {
                self.barrier_done(number);
            }
            Backward::Received(bytes) => {
                self.outbox.confirmed(bytes);
            }
            Backward::Failed { errno, what } => {
                let what = String::from_utf8_lossy(what).into_owned();
                self.target_failed(errno, what);
                return false;
            }
            Backward::Ping(ping) if self.pings.is_stalled(ping, self.stall_timeout) => {
                let limit = self.stall_timeout.as_secs_f64();
                let what = format!("it is alive but has taken nothing for {limit} s");
                self.target_failed(0, what);
                return false;
            }
            Backward::Ping(ping) => {
                self.primary.daemon().tell(self.pings.heard(ping));
            }
            message => self.pass_on(heard_of(message), to_walker),
        }
        true
    }

    /// Hands an answer to whoever asked.
    fn pass_on(&self, heard: Option<Heard>, to_walker: &Sender<Heard>) {
        let Some(heard) = heard else { return };
        // After the walk only a verification asks anything.
        if let Err(SendError(heard)) = to_walker.send(heard)
            && let Some(listener) = &self.lock().listener
        {
            let _ = listener.send(heard);
        }
    }

    fn barrier_done(&self, number: u64) {
        {
            let mut state = self.lock();
            state.barrier = state.barrier.max(Some(number));
        }
        self.changed.notify_all();
        let session = self.id;
        self.primary.daemon().event(ReplicatorEvent::TargetDurable { session, number });
    }

    fn target_failed(&self, errno: u32, what: String) {
        if self.finish() {
            let why = if errno == 0 {
                what
            } else {
                let errno = io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(0));
                format!("{what}: {errno}")
            };
            let event = ReplicatorEvent::TargetFailed { session: self.id, why };
            self.primary.daemon().event(event);
        }
    }
}

/// An answer, for whoever asked.
fn heard_of(message: Backward<'_>) -> Option<Heard> {
    Some(match message {
        Backward::Checked { tag } => Heard::Checked(tag),
        Backward::Listed { tag, last, entries } => {
            let entries = entries.into_iter();
            let entries = entries.map(|(name, theirs)| (name.to_vec(), theirs));
            Heard::Listed { tag, last, entries: entries.collect() }
        }
        Backward::Recalled(recalled) => Heard::Recalled(recalled),
        Backward::Suspects { last, suspects } => {
            let suspects = suspects.into_iter();
            let suspects = suspects.map(|s| (s.tree, s.path.to_vec(), s.strayed));
            Heard::Suspects { last, suspects: suspects.collect() }
        }
        Backward::Summarized { tag, last, entries } => {
            let entries = entries.into_iter();
            let entries = entries.map(|(name, summary)| (name.to_vec(), summary));
            Heard::Summarized { tag, last, entries: entries.collect() }
        }
        Backward::Differ { tag, blocks } => Heard::Differ { tag, blocks },
        Backward::Absent { file } => Heard::Absent(file),
        Backward::Astray { parent, name } => Heard::Astray(parent, name.to_vec()),
        _ => return None,
    })
}
