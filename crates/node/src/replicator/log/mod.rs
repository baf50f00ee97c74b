//! The replicator's activity log: a file, what of it is hot, and the gate that changes go through.
//!
//! Changes that need entries wait for one write together. The rules and the form of the file are
//! those of `activity`; what a resync makes of the entries is in `suspects`.

mod file;
mod points;
mod seal;
pub(super) mod suspects;
pub(super) mod unwatched;

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use activity::heat::{CHECKPOINT_AT, ENTRIES_MAX};
use activity::image::Clock;
use activity::{Entry, Header, Heat, Key, Part, Point};
use mount::Gate;
use replica::op::{FileId, Op};
use replica::touch::Touch;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use wire::recall::Recalled;

use crate::replicator::primary::Trees;
use file::LogFile;
use unwatched::Watch;

/// The activity log of a module.
pub(super) struct ActivityLog {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    file: LogFile,
    heat: Heat,
    /// The trees whose changes are logged, while they are served.
    trees: Option<Trees>,
    /// Entries to be written next.
    pending: Vec<(Key, Box<[u8]>)>,
    /// Whether somebody is writing to the file.
    writing: bool,
    /// Why the log cannot be written any more.
    failed: Option<Errno>,
    /// Number of the newest operation.
    number: u64,
    /// Whether no session is under way.
    alone: bool,
    /// Whether changes are logged again although the log says that anything may differ: a
    /// checkpoint that is to put an end to that has begun.
    renewing: bool,
    /// Whoever waits for a checkpoint to be due has something else to look at.
    woken: bool,
    /// While what was changed before this process began is being looked for.
    watch: Option<Watch>,
    /// Whether the roots carry another seal than the log.
    broken: bool,
    /// Whether this process has made both copies equal.
    shared: bool,
}

impl ActivityLog {
    /// Opens the log, or begins one that names no state shared with anybody. Says in a sentence
    /// if there was one that could not be read.
    pub(super) fn open(path: &Path, number: u64) -> io::Result<(Arc<ActivityLog>, Option<String>)> {
        let (file, entries, damage) = LogFile::open(path, now())?;
        let mut heat = Heat::default();
        heat.inherit(entries.into_iter(), number);
        let inner = Inner {
            file,
            heat,
            trees: None,
            pending: Vec::new(),
            writing: false,
            failed: None,
            number,
            alone: true,
            renewing: false,
            woken: false,
            watch: None,
            broken: false,
            shared: false,
        };
        let log = ActivityLog { inner: Mutex::new(inner), changed: Condvar::new() };
        Ok((Arc::new(log), damage))
    }

    /// The trees that are served from now on.
    pub(super) fn serve(&self, trees: &Trees, number: u64) {
        let mut inner = self.lock();
        inner.trees = Some(Arc::clone(trees));
        inner.number = number;
    }

    /// Serving has ended; ids mean nothing any more.
    pub(super) fn end_serving(&self) {
        let mut inner = self.lock();
        inner.trees = None;
        let entries: Vec<Box<[u8]>> = inner.heat.entries().map(Box::from).collect();
        let mut heat = Heat::default();
        heat.inherit(entries.into_iter(), inner.number);
        inner.heat = heat;
        if let Some(watch) = &mut inner.watch {
            watch.forget_ids();
        }
    }

    /// Whether changes from now on can be known to no peer.
    pub(super) fn set_alone(&self, alone: bool) {
        let mut inner = self.lock();
        if inner.alone != alone {
            inner.alone = alone;
            inner.heat.forget_moves();
        }
    }

    /// Whether what a change is about to touch stands in the log; if so, operation `number` may
    /// touch it. Asked under the order lock.
    pub(super) fn confirm(&self, touches: &[Touch], number: u64) -> bool {
        let mut inner = self.lock();
        if inner.failed.is_some() || now() < inner.file.header().since {
            return false;
        }
        if inner.is_silent() {
            return true;
        }
        if inner.is_unseen(touches) {
            return false;
        }
        let Some(keys) = inner.heat.keys(touches) else { return false };
        if !inner.heat.touch(&keys, number) {
            return false;
        }
        inner.number = number;
        for touch in touches {
            if let Touch::Losing { file, .. } = touch {
                inner.heat.forget(*file);
            }
        }
        true
    }

    /// An operation was applied.
    pub(super) fn applied(&self, op: &Op<'_>) {
        match *op {
            Op::Create { parent, file, .. } => self.lock().heat.arrived(file, parent),
            Op::Rename { parent, name, new_parent, new_name, flags, .. } => {
                let mut inner = self.lock();
                let Some(trees) = inner.trees.clone() else { return };
                inner.moved(&trees, new_parent, new_name);
                if flags != 0 {
                    inner.moved(&trees, parent, name);
                }
            }
            Op::Write { .. }
            | Op::SetAttr { .. }
            | Op::Link { .. }
            | Op::Remove { .. }
            | Op::SetXattr { .. }
            | Op::RemoveXattr { .. }
            | Op::Allocate { .. }
            | Op::Sync { .. } => {}
        }
    }

    /// All entries.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let inner = self.lock();
        inner.heat.entries().filter_map(|mut bytes| Entry::take(&mut bytes)).collect()
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.lock().heat.len()
    }

    /// What the entries are relative to; none when they may not name everything.
    pub(super) fn point(&self) -> Option<Point> {
        let inner = self.lock();
        let header = inner.file.header();
        (!header.everything && inner.failed.is_none()).then_some(header.point)
    }

    /// This node's clock when the newest checkpoint began, with a margin for coarse stamps.
    pub(super) fn since(&self) -> Clock {
        let (seconds, nanoseconds) = self.lock().file.header().since;
        (seconds - 1, nanoseconds)
    }

    /// Whether this process has made both copies equal, so that nothing from before counts.
    pub(super) fn is_shared(&self) -> bool {
        self.lock().shared
    }

    /// What a target tells the source of it.
    pub(super) fn recalled(&self) -> Recalled {
        match self.point() {
            None => Recalled::default(),
            Some(Point { base, previous, as_target, begun, .. }) => {
                Recalled { usable: true, base, previous, as_target, begun }
            }
        }
    }

    /// Waits until a checkpoint is due because much is hot, for so long at most, or until woken.
    pub(super) fn wait_due(&self, pause: Duration) {
        let inner = self.lock();
        let waiting = |inner: &mut Inner| !inner.woken && inner.heat.len() < CHECKPOINT_AT;
        let waited = self.changed.wait_timeout_while(inner, pause, waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0.woken = false;
    }

    /// Has whoever waits for a checkpoint look at once.
    pub(super) fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_all();
    }

    fn note(&self, change: impl FnOnce(&mut Header)) -> io::Result<()> {
        let mut inner = self.wait_for_writer();
        let mut header = *inner.file.header();
        change(&mut header);
        inner.file.write_header(header)
    }

    fn wait_for_writer(&self) -> MutexGuard<'_, Inner> {
        self.until_written(self.lock())
    }

    fn until_written<'a>(&self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        let waited = self.changed.wait_while(inner, |inner| inner.writing);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for ActivityLog {
    fn prepare(&self, touches: &[Touch]) -> Result<(), Errno> {
        let mut inner = self.lock();
        loop {
            if let Some(errno) = inner.failed {
                return Err(errno);
            }
            if now() < inner.file.header().since {
                // The clock was set back: what changes from here on has earlier stamps.
                inner = self.until_written(inner);
                let mut header = *inner.file.header();
                header.since = now();
                header.coming = header.since;
                let written = inner.file.write_header(header);
                inner.note(written)?;
            }
            if inner.is_silent() {
                return Ok(());
            }
            let cold = inner.cold(touches);
            let Some(cold) = cold.filter(|cold| inner.heat.len() + cold.len() < ENTRIES_MAX) else {
                inner = self.until_written(inner);
                inner.renewing = false;
                let mut header = *inner.file.header();
                header.everything = true;
                let written = inner.file.write_header(header);
                inner.note(written)?;
                continue;
            };
            if cold.is_empty() {
                inner.saw(touches);
                return Ok(());
            }
            for key in cold {
                if !inner.pending.iter().any(|(pending, _)| *pending == key) {
                    let bytes = inner.describe(key);
                    inner.pending.push((key, bytes));
                }
            }
            inner = if inner.writing {
                self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.write(inner)
            };
        }
    }
}

impl ActivityLog {
    /// Writes what is pending, for everybody who waits for that.
    fn write<'a>(&'a self, mut inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        let pending = std::mem::take(&mut inner.pending);
        inner.writing = true;
        let batch = inner.file.next_batch(pending.iter().map(|(_, bytes)| &**bytes));
        drop(inner);
        let written = batch.write();
        let mut inner = self.lock();
        inner.writing = false;
        let written = written.map(|()| inner.file.wrote(&batch));
        if inner.note(written).is_ok() {
            let number = inner.number;
            for (key, bytes) in pending {
                inner.heat.heat(key, bytes, number + 1);
            }
            if inner.file.is_wasteful(inner.heat.len()) {
                let renewed = inner.renew();
                // A failure is told, and what follows from it is done, by the one that noted it.
                let _ = inner.note(renewed);
            }
        }
        self.changed.notify_all();
        inner
    }
}

impl Inner {
    /// Whether changes are not logged, as anything may differ anyway.
    fn is_silent(&self) -> bool {
        self.file.header().everything && !self.renewing
    }

    /// What is not in the log yet; none when only "anything may differ" would do.
    fn cold(&self, touches: &[Touch]) -> Option<Vec<Key>> {
        let mut keys = self.heat.keys(touches)?;
        keys.extend(self.hidden(touches));
        Some(keys.into_iter().filter(|key| !self.heat.is_hot(key)).collect())
    }

    /// Leaves behind the entries that were written anew since.
    fn renew(&mut self) -> io::Result<()> {
        let entries: Vec<Box<[u8]>> = self.heat.entries().map(Box::from).collect();
        self.file = LogFile::create(self.file.path(), *self.file.header(), &entries)?;
        Ok(())
    }

    fn describe(&self, key: Key) -> Box<[u8]> {
        let tree = self.trees.as_ref().and_then(|trees| trees.get(usize::from(key.file.tree)));
        let handle =
            |file: FileId| tree.and_then(|tree| tree.handle(file)).map(|handle| handle.to_bytes());
        let names = tree.map(|tree| tree.names_of(key.file)).unwrap_or_default();
        let (parent, name) = match names.into_iter().next_back() {
            Some((parent, name)) => (handle(parent).unwrap_or_default(), name),
            None => (Vec::new(), Vec::new()),
        };
        let entry = Entry {
            tree: key.file.tree,
            object: handle(key.file).unwrap_or_default(),
            parent,
            name,
            part: key.part,
            alone: self.alone && key.part == Part::Moved,
        };
        let mut bytes = Vec::new();
        entry.put(&mut bytes);
        bytes.into()
    }

    fn moved(&mut self, trees: &Trees, parent: FileId, name: &[u8]) {
        let Some(tree) = trees.get(usize::from(parent.tree)) else { return };
        let Some(file) = tree.known_child(parent, name) else { return };
        if tree.stat(file).is_ok_and(|stat| stat.kind() == mount::backing::Kind::Directory) {
            self.heat.uncover();
        } else {
            self.heat.arrived(file, parent);
        }
    }

    /// A log that cannot be written lets no change pass any more.
    fn note(&mut self, result: io::Result<()>) -> Result<(), Errno> {
        result.map_err(|error| {
            eprintln!("the activity log cannot be written: {error}");
            self.failed = Some(Errno::IO);
            Errno::IO
        })
    }
}

/// Makes everything in the backing trees durable.
pub(super) fn sync_trees(trees: &Trees) -> io::Result<()> {
    for tree in trees.iter() {
        // By the descriptor held since the start: it tells of every failure since the last sync.
        rustix::fs::syncfs(&**tree.root())?;
    }
    Ok(())
}

/// The clock that files are stamped by.
pub(super) fn now() -> Clock {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    (time.tv_sec, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
