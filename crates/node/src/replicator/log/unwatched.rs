//! The time in which no replicator watched, so that anybody may have changed the directories: since
//! when, and that this node's own changes do not hide what came before them.
//!
//! What was changed in that time is looked for elsewhere; here it is noted.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use activity::heat::ENTRIES_MAX;
use activity::image::Clock;
use activity::{Key, Part, Window};
use mount::backing::{Kind, Root};
use replica::op::FileId;
use replica::touch::Touch;
use rustix::time::{ClockId, clock_gettime};

use super::{ActivityLog, Inner, now};
use crate::clock;

/// Objects that are remembered as having been looked at; one that was forgotten is looked at again.
const SEEN_MAX: usize = 1 << 20;

/// How often it is looked whether the clock of the files has moved on, which it does every few
/// milliseconds.
const CLOCK_STEP: Duration = Duration::from_millis(1);

/// What can be known of the time in which no replicator watched.
pub(in crate::replicator) enum Past {
    /// What was changed in it has a change time of it.
    Shows,
    /// There is nothing to go by, as this copy shares no state with another yet.
    Nothing,
    /// Nothing is certain, for this reason.
    Doubtful(String),
    /// Directories and log do not belong together.
    Restored,
}

/// The look-out for objects that were changed in that time, before this node changes them itself.
#[derive(Debug)]
pub(super) struct Watch {
    window: Window,
    /// Objects whose change times need no look any more.
    seen: HashSet<FileId>,
}

impl Watch {
    /// Ids mean nothing any more.
    pub(super) fn forget_ids(&mut self) {
        self.seen.clear();
    }
}

impl ActivityLog {
    /// A replicator begins. What one before it left may have covered the directories until
    /// `covered`.
    pub(in crate::replicator) fn begin(
        &self,
        roots: &[Arc<Root>],
        covered: Option<Clock>,
    ) -> io::Result<Past> {
        let fits = self.is_sealed(roots)?;
        let past = self.look_at_clock(covered)?;
        Ok(if fits { past } else { Past::Restored })
    }

    /// What is left out of the replication from here on. What was left out before and is not any
    /// more was never compared.
    pub(in crate::replicator) fn leave_out(&self, excluded: u128) -> io::Result<Option<Past>> {
        let header = *self.wait_for_writer().file.header();
        if header.excluded == excluded {
            return Ok(None);
        }
        let doubtful = header.boot != 0;
        self.note(|header| {
            header.excluded = excluded;
            header.everything |= doubtful;
            header.strayed |= doubtful;
        })?;
        let why = "what is left out of the replication was changed";
        Ok(doubtful.then(|| Past::Doubtful(why.to_owned())))
    }

    /// What change times can tell.
    fn look_at_clock(&self, covered: Option<Clock>) -> io::Result<Past> {
        let boot = clock::boot_id()?.0;
        let header = *self.wait_for_writer().file.header();
        let closed = header.unwatched.map(|window| window.from).or(covered);
        let from = match closed {
            Some(from) => from,
            // The machine went down over it.
            None if header.boot != boot => boot_began()?,
            None => header.since,
        };
        let past = if header.boot == 0 {
            Past::Nothing
        } else if header.everything {
            Past::Doubtful("the activity log does not name all that changed before".to_owned())
        } else if now() < from {
            Past::Doubtful("the clock stands earlier than when the module was stopped".to_owned())
        } else {
            Past::Shows
        };
        self.note(|header| {
            header.boot = boot;
            let shows = matches!(past, Past::Shows);
            header.unwatched = shows.then_some(Window { from, until: None });
            header.everything |= matches!(past, Past::Doubtful(_));
            header.strayed |= !shows;
        })?;
        Ok(past)
    }

    /// Nobody else reaches the directories from here on. Says what is to be looked through, which
    /// a predecessor may have begun.
    pub(in crate::replicator) fn cover(&self) -> io::Result<Option<Window>> {
        let Some(mut window) = self.wait_for_writer().file.header().unwatched else {
            return Ok(None);
        };
        if window.until.is_none() {
            // The finest clock, for no stamp may be later that was made before.
            let time = clock_gettime(ClockId::Realtime);
            let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(u32::MAX);
            window.until = Some((time.tv_sec, nanoseconds));
            self.note(|header| header.unwatched = Some(window))?;
        }
        self.lock().watch = Some(Watch { window, seen: HashSet::new() });
        Ok(Some(window))
    }

    /// Notes objects that were changed while nobody watched; false when that is more than the log
    /// may name, or all may differ anyway.
    pub(in crate::replicator) fn suspect(&self, entries: Vec<Box<[u8]>>) -> io::Result<bool> {
        let mut inner = self.wait_for_writer();
        if inner.is_silent() || inner.heat.len() + entries.len() >= ENTRIES_MAX {
            return Ok(false);
        }
        inner.writing = true;
        let batch = inner.file.next_batch(entries.iter().map(|bytes| &**bytes));
        drop(inner);
        let written = batch.write();
        let mut inner = self.lock();
        inner.writing = false;
        let written = written.map(|()| inner.file.wrote(&batch));
        if inner.note(written).is_ok() {
            let number = inner.number;
            inner.heat.inherit(entries.into_iter(), number);
        }
        let failed = inner.failed;
        drop(inner);
        self.changed.notify_all();
        failed.map_or(Ok(true), |errno| Err(errno.into()))
    }

    /// Whether something was found by this or an earlier process that was not compared yet.
    pub(in crate::replicator) fn is_strayed(&self) -> bool {
        self.lock().file.header().strayed
    }

    /// The directories were looked through; if not to the end, anything may differ.
    pub(in crate::replicator) fn looked_back(&self, complete: bool, found: bool) -> io::Result<()> {
        let strayed = found || !complete;
        self.note(|header| {
            header.unwatched = None;
            header.everything |= !complete;
            header.strayed |= strayed;
        })?;
        self.lock().watch = None;
        Ok(())
    }

    /// Everybody reaches the directories from here on.
    pub(in crate::replicator) fn uncover(&self, roots: &[Arc<Root>]) -> io::Result<()> {
        self.renew_seal(roots)?;
        // What this node itself changed last must not look like a change that somebody made later.
        let last = now();
        while now() == last {
            std::thread::sleep(CLOCK_STEP);
        }
        let now = now();
        self.lock().watch = None;
        self.note(|header| {
            let from = header.unwatched.map_or(now, |window| window.from.min(now));
            header.unwatched = Some(Window { from, until: None });
        })
    }
}

impl Inner {
    /// Whether something that a change is about to touch was not looked at yet.
    pub(super) fn is_unseen(&self, touches: &[Touch]) -> bool {
        let Some(watch) = &self.watch else { return false };
        touches.iter().flat_map(touched).any(|file| !watch.seen.contains(&file))
    }

    /// What must be logged of objects that a change is about to touch, as their change times will
    /// not show any more that they were changed while nobody watched.
    pub(super) fn hidden(&self, touches: &[Touch]) -> Vec<Key> {
        let (Some(watch), Some(trees)) = (&self.watch, &self.trees) else { return Vec::new() };
        let mut keys = Vec::new();
        for file in touches.iter().flat_map(touched).filter(|file| !watch.seen.contains(file)) {
            let tree = trees.get(usize::from(file.tree));
            // What is gone has nothing to show.
            let Some(Ok(stat)) = tree.map(|tree| tree.stat(file)) else { continue };
            if watch.window.contains((stat.ctime.seconds, stat.ctime.nanoseconds)) {
                let directory = stat.kind() == Kind::Directory && file.node != 1;
                let moved = directory.then_some(&Part::Moved);
                let parts = parts_of(stat.kind()).iter().chain(moved);
                keys.extend(parts.map(|part| Key { file, part: *part }));
            }
        }
        keys
    }

    /// What `hidden` named stands in the log.
    pub(super) fn saw(&mut self, touches: &[Touch]) {
        let Some(watch) = &mut self.watch else { return };
        if watch.seen.len() > SEEN_MAX {
            watch.seen.clear();
        }
        watch.seen.extend(touches.iter().flat_map(touched));
    }
}

/// In what an object may differ that was changed while nobody watched.
pub(in crate::replicator) fn parts_of(kind: Kind) -> &'static [Part] {
    match kind {
        Kind::Directory => &[Part::Names, Part::Meta],
        Kind::File => &[Part::From(0)],
        _ => &[Part::Meta],
    }
}

/// The objects whose change times a change is about to renew.
fn touched(touch: &Touch) -> Option<FileId> {
    match *touch {
        Touch::Content { file, .. }
        | Touch::Rest(file)
        | Touch::Meta(file)
        | Touch::Names(file)
        | Touch::Moving(file)
        | Touch::Losing { file, .. } => Some(file),
        Touch::Anything => None,
    }
}

/// Wall time at which the first process of this machine, or of this container, was started.
fn boot_began() -> io::Result<Clock> {
    let text = std::fs::read_to_string("/proc/1/stat")?;
    // Behind the name, which may hold anything, the start is the twentieth field: proc(5).
    let ticks = text.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19));
    let ticks: u64 = ticks
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/1/stat does not say when the machine started"))?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let began = u128::from(ticks) * 1_000_000_000 / u128::from(per_second);
    let ago = u128::from(clock::now().as_nanos()).saturating_sub(began);
    let (seconds, nanoseconds) = now();
    let wall = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let at = wall - i128::try_from(ago).unwrap_or(0);
    let nanoseconds = u32::try_from(at.rem_euclid(1_000_000_000)).unwrap_or(0);
    Ok((i64::try_from(at.div_euclid(1_000_000_000)).unwrap_or(0), nanoseconds))
}

#[cfg(test)]
#[path = "unwatched_tests.rs"]
mod tests;
