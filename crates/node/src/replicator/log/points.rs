//! Checkpoints as the log sees them: what it lets go of, and what it is relative to from then on.
//!
//! That everything is durable by then is the caller's business.

use std::io;

use activity::image::Clock;
use activity::{Heat, Point};

use super::file::LogFile;
use super::{ActivityLog, now, seal};

impl ActivityLog {
    /// Everything up to a number is durable on both nodes, and was begun at `since`; with a base,
    /// both hold the same from there on.
    pub(in crate::replicator) fn checkpoint(
        &self,
        number: u64,
        since: Clock,
        base: Option<Point>,
    ) -> io::Result<()> {
        let mut inner = self.wait_for_writer();
        inner.writing = true;
        inner.heat.cool(number);
        let mut header = *inner.file.header();
        header.since = since;
        header.coming = since;
        seal::seal(&mut header);
        match base {
            Some(point) => {
                header.point = point;
                header.strayed = false;
                // What was not logged since the checkpoint began may differ still.
                header.everything = inner.is_silent();
            }
            None => header.point.cooled = number,
        }
        let entries: Vec<Box<[u8]>> = inner.heat.entries().map(Box::from).collect();
        let path = inner.file.path().to_owned();
        drop(inner);
        let written = LogFile::create(&path, header, &entries);
        let mut inner = self.lock();
        inner.writing = false;
        inner.renewing = false;
        inner.broken = false;
        inner.shared |= base.is_some();
        let result = written.map(|file| inner.file = file);
        drop(inner);
        self.changed.notify_all();
        result
    }

    /// As a target: this state is shared with the source from here on, which holds all that this
    /// copy ever changed on its own.
    pub(in crate::replicator) fn share(
        &self,
        base: u128,
        previous: u128,
        number: u64,
        since: Clock,
    ) -> io::Result<()> {
        let same = self.point().is_some_and(|point| point.base == base);
        if same && self.len() == 0 {
            return self.note_checkpoint(number, since);
        }
        // Until the source has completed this checkpoint too, what it may lose of the time before
        // must count as recent here.
        let before = {
            let mut inner = self.lock();
            inner.heat = Heat::default();
            inner.renewing = true;
            inner.file.header().since
        };
        let begun = number;
        let point = Point { base, previous, as_target: true, cooled: number, begun };
        self.checkpoint(number, before, Some(point))?;
        self.note(|header| header.coming = since)
    }

    /// As a target, before anything is changed: a clock that was set back makes earlier stamps.
    pub(in crate::replicator) fn watch_clock(&self) -> io::Result<()> {
        let now = now();
        {
            let inner = self.lock();
            let header = inner.file.header();
            if now >= header.since && now >= header.coming {
                return Ok(());
            }
        }
        self.note(|header| {
            header.since = header.since.min(now);
            header.coming = header.coming.min(now);
        })
    }

    /// A checkpoint begins: says the clock, from which on what comes to a hot directory is covered
    /// by that anew. Under the order lock, so that no change is halfway.
    pub(in crate::replicator) fn stamp(&self) -> Clock {
        let mut inner = self.lock();
        inner.heat.uncover();
        inner.renewing = true;
        now()
    }

    /// The entries are of no use for a resync: the next one is to compare everything.
    pub(in crate::replicator) fn give_up(&self) {
        self.lock().renewing = false;
        if let Err(error) = self.note(|header| header.everything = true) {
            eprintln!("the activity log cannot be written: {error}");
        }
    }

    /// A checkpoint up to a number is about to be asked of the peer.
    pub(in crate::replicator) fn begin_checkpoint(&self, number: u64) -> io::Result<()> {
        self.note(|header| header.point.begun = number)
    }

    /// Notes a checkpoint where nothing is hot.
    fn note_checkpoint(&self, number: u64, since: Clock) -> io::Result<()> {
        {
            let mut inner = self.lock();
            inner.broken = false;
            inner.shared = true;
        }
        self.note(|header| {
            seal::seal(header);
            header.strayed = false;
            header.since = header.coming;
            header.coming = since;
            header.point.cooled = number;
            header.point.begun = number;
        })
    }
}
