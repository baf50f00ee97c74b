//! The walk of a resync at the source: performs the plan of `replica::Walk` under live writes.
//!
//! Everything that is sent is read under the order lock, so that it takes its place among the
//! live operations. The lock is held for one entry or one stretch of blocks at a time; what is
//! read under it was read before without it, so that the disk is waited for outside.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use cluster::input::ReplicatorEvent;
use mount::Tree;
use mount::backing::Kind;
use replica::op::FileId;
use replica::{Complete, Session, Task, Theirs, Walk, leave_out};
use rustix::io::Errno;
use wire::replication::{BLOCK_BYTES, BLOCKS_MAX, Forward, put_forward};

use crate::replicator::compare;
use crate::replicator::links::Links;
use crate::replicator::moved::Moves;
use crate::replicator::primary::TreeNames;
use crate::replicator::progress::Meter;
use crate::replicator::source::{Heard, Link, next};

/// Blocks that are read and sent under one lock: 256 KiB.
const BLOCKS_AT_ONCE: usize = 4;
const _: () = assert!(BLOCKS_AT_ONCE <= BLOCKS_MAX, "one message must hold them");

/// Tasks whose messages leave together: waking the thread that sends costs more than a task.
const TASKS_AT_ONCE: usize = 16;

/// A name that file systems make in their root and that is nobody's data.
pub(super) const LOST_AND_FOUND: &[u8] = b"lost+found";

/// The walk of a resync.
pub(super) struct Walker {
    pub(super) link: Arc<Link>,
    pub(super) heard: Receiver<Heard>,
    pub(super) walk: Walk,
    /// Parts of listings whose end has not come yet.
    listing: BTreeMap<u64, BTreeMap<Vec<u8>, Theirs>>,
    pub(super) meter: Meter,
    pub(super) links: Links,
    pub(super) moves: Moves,
    pub(super) buffer: Vec<u8>,
    /// Checks asked for so far; the number of one is its tag.
    pub(super) checks: u64,
    /// The directory whose objects are being found, in a walk through everything.
    reading: Option<FileId>,
    /// What is complete, by the check that shows whether the target knows of no fault in it.
    pub(super) unconfirmed: BTreeMap<u64, Complete>,
}

impl Walker {
    pub(super) fn new(link: Arc<Link>, heard: Receiver<Heard>) -> Walker {
        let meter = Meter::start(&link);
        Walker {
            link,
            heard,
            walk: Walk::default(),
            listing: BTreeMap::new(),
            meter,
            links: Links::default(),
            moves: Moves::default(),
            buffer: vec![0; BLOCK_BYTES * BLOCKS_AT_ONCE],
            checks: 0,
            reading: None,
            unconfirmed: BTreeMap::new(),
        }
    }

    /// Walks until the target holds everything, or the session ends.
    pub(super) fn run(mut self) -> io::Result<()> {
        if !self.plan() {
            return Ok(());
        }
        let mut quiet = 0;
        loop {
            if !self.link.outbox.wait_for_room() {
                return Ok(());
            }
            self.take_left_over();
            if let Some(task) = self.walk.next_task() {
                quiet += 1;
                if quiet == TASKS_AT_ONCE {
                    quiet = 0;
                    self.link.outbox.flush();
                }
                self.perform(task).map_err(io::Error::from)?;
                self.check_complete();
                while let Ok(heard) = self.heard.try_recv() {
                    self.hear(heard);
                }
            } else if self.walk.awaits_answers() {
                self.link.outbox.flush();
                let Some(heard) = next(&self.link, &self.heard) else { return Ok(()) };
                self.hear(heard);
            } else if self.settle() {
                return Ok(());
            }
        }
    }

    /// Takes over what live operations left to the walk.
    fn take_left_over(&mut self) {
        let mut inner = self.link.primary.lock();
        if let Some(live) = inner.live_of(self.link.id) {
            while let Some(task) = live.known.next_task() {
                if live.known.is_delta() {
                    // Not before the names on the way to it have been put right.
                    self.walk.add_last(task);
                } else {
                    self.walk.add(task);
                }
            }
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Listed { tag, last, entries } => {
                let listing = self.listing.entry(tag).or_default();
                listing.extend(entries);
                if last {
                    let theirs = self.listing.remove(&tag).unwrap_or_default();
                    self.walk.listed(tag, theirs);
                }
            }
            Heard::Differ { tag, blocks } => {
                self.walk.compared(tag, blocks);
            }
            Heard::Absent(file) => self.absent(file),
            Heard::Astray(parent, name) => self.astray(parent, &name),
            // Else it was overtaken by a complaint.
            Heard::Checked(tag) => self.release_confirmed(tag),
            // What was asked for before.
            Heard::Recalled(_) | Heard::Suspects { .. } | Heard::Summarized { .. } => {}
        }
    }

    /// The target has lost an object because its names there went before the walk came to others.
    fn absent(&mut self, file: FileId) {
        self.walk.unvisit(file);
        self.unconfirmed.values_mut().for_each(|complete| leave_out(complete, file));
        self.take_back(|known, names| known.unbind(file, names));
    }

    /// The target could not change a name as was done here.
    fn astray(&mut self, parent: FileId, name: &[u8]) {
        self.take_back(|known, _| known.astray(parent, name));
    }

    /// What was believed of the target does not hold: it takes operations leniently again.
    fn take_back(&self, change: impl FnOnce(&mut Session, &TreeNames<'_>)) {
        let order = self.link.order.lock();
        let mut inner = self.link.primary.lock();
        let trees = Arc::clone(self.link.primary.trees());
        if let Some(live) = inner.live_of(self.link.id) {
            live.outbox.put(|out| put_forward(out, &Forward::Strict(false)));
            change(&mut live.known, &TreeNames(&trees));
        }
        drop(order);
    }

    /// Nothing is left to do: from here on everything must apply exactly. True when the target
    /// has confirmed that, or the session has ended; false when something was left over after all.
    fn settle(&mut self) -> bool {
        self.checks += 1;
        let number = {
            let order = self.link.order.lock();
            let mut inner = self.link.primary.lock();
            let number = inner.acks.number();
            let Some(live) = inner.live_of(self.link.id) else { return true };
            if let Some(task) = live.known.next_task() {
                self.walk.add(task);
                return false;
            }
            live.known.settle();
            live.outbox.put(|out| {
                put_forward(out, &Forward::Strict(true));
                put_forward(out, &Forward::Check { tag: self.checks });
            });
            drop(order);
            number
        };
        loop {
            match next(&self.link, &self.heard) {
                None => return true,
                Some(Heard::Checked(tag)) if tag == self.checks => break,
                Some(complaint @ (Heard::Absent(_) | Heard::Astray(..))) => {
                    self.hear(complaint);
                    return false;
                }
                Some(heard) => self.hear(heard),
            }
        }
        self.release();
        self.link.settled();
        self.meter.finish();
        let event = ReplicatorEvent::Synced { session: self.link.id, number };
        self.link.primary.daemon().event(event);
        true
    }

    /// From here on an id that was forgotten is bound anew by its name.
    fn release(&self) {
        let trees = Arc::clone(self.link.primary.trees());
        if let Some(live) = self.link.primary.lock().live_of(self.link.id) {
            live.unpin(&trees);
        }
    }

    fn perform(&mut self, task: Task) -> Result<(), Errno> {
        match task {
            Task::List(directory) => {
                if self.is_delta() && !self.reach(directory)? {
                    self.names_are_right(directory);
                    return Ok(());
                }
                let tag = self.walk.ask_list(directory);
                self.put(&Forward::List { tag, directory });
                Ok(())
            }
            Task::Directory { directory, theirs } => {
                self.directory(directory, &theirs)?;
                self.names_are_right(directory);
                Ok(())
            }
            Task::Entry { parent, name }
                if !self.walk.is_last_level() && self.is_moving(parent, &name) =>
            {
                // The way to its former name is right by then.
                self.walk.add_last(Task::Entry { parent, name });
                Ok(())
            }
            Task::Entry { parent, name } => {
                if self.is_delta() && !self.reach(parent)? {
                    return Ok(());
                }
                self.entry(parent, &name, false)?;
                self.finish(parent)
            }
            Task::Part { file, offset, end } => self.part(file, offset, end),
            Task::Discard { parent, name } => {
                self.discard(parent, &name);
                self.finish(parent)
            }
            Task::Content { file, offset, end, fresh } => self.content(file, offset, end, fresh),
            Task::Blocks { file, offset, blocks } => self.blocks(file, offset, blocks),
            Task::Finish(file) => self.finish(file),
        }
    }

    /// Makes the target hold what the source holds in a directory.
    fn directory(
        &mut self,
        directory: FileId,
        theirs: &BTreeMap<Vec<u8>, Theirs>,
    ) -> Result<(), Errno> {
        let names = match self.names_in(directory) {
            Ok(names) => names,
            // It went away; so it will at the target.
            Err(Errno::NOENT | Errno::STALE) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        if directory.node == 1 {
            self.attributes(directory)?;
        }
        let delta = self.is_delta();
        let suspect = delta && !self.walk.is_whole(directory);
        for name in &names {
            if self.link.is_ended() {
                return Ok(());
            }
            if self.is_moving(directory, name) {
                self.leave_name(directory, name);
                continue;
            }
            let there = theirs.get(name);
            if suspect && self.is_same(directory, name, there)? {
                continue;
            }
            let fresh = there.is_none_or(|theirs| theirs.size == 0);
            self.reading = (!delta).then_some(directory);
            self.entry(directory, name, fresh)?;
        }
        self.reading = None;
        if !delta {
            self.walk.read_whole(directory);
        }
        let known: BTreeSet<&Vec<u8>> = names.iter().collect();
        let tree = Arc::clone(self.tree(directory)?);
        let theirs = theirs.keys().filter(|name| !known.contains(name));
        for name in theirs.filter(|name| !tree.is_excluded_name(directory, name)) {
            if self.is_moving(directory, name) {
                self.leave_name(directory, name);
            } else {
                self.discard(directory, name);
            }
        }
        self.finish(directory)
    }

    fn names_in(&self, directory: FileId) -> Result<Vec<Vec<u8>>, Errno> {
        let tree = self.tree(directory)?;
        let mut reader = tree.read_dir(directory)?;
        let mut names = Vec::new();
        loop {
            let chunk = reader.next_chunk()?;
            if chunk.is_empty() {
                return Ok(names);
            }
            let ours = |name: &[u8]| {
                let nobodys = directory.node == 1 && name == LOST_AND_FOUND;
                let itself = name == b"." || name == b"..";
                !itself && !nobodys && !tree.is_excluded_name(directory, name)
            };
            names.extend(chunk.into_iter().map(|entry| entry.name).filter(|name| ours(name)));
        }
    }

    /// Leaves a name to be put right when all others are.
    fn leave_name(&self, parent: FileId, name: &[u8]) {
        if let Some(live) = self.link.primary.lock().live_of(self.link.id) {
            live.known.leave_name(parent, name);
        }
    }

    /// Puts one name right, and adds what is below or in it to the walk.
    pub(super) fn entry(&mut self, parent: FileId, name: &[u8], fresh: bool) -> Result<(), Errno> {
        let tree = Arc::clone(self.tree(parent)?);
        self.bring_moved(parent, name)?;
        if self.is_delta() {
            self.learn_names(parent, name)?;
            self.clear_ways(parent, name)?;
        }
        let link = Arc::clone(&self.link);
        let order = link.order.lock();
        let (file, stat) = match tree.lookup(parent, name) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::STALE) => {
                self.found_nothing(parent, name);
                return Ok(());
            }
            Err(errno) => return Err(errno),
        };
        let trees = link.primary.trees();
        let mut inner = link.primary.lock();
        let Some(live) = inner.live_of(link.id) else {
            tree.unpin(file);
            return Ok(());
        };
        let was_bound = live.known.is_bound(file);
        let is_delta = live.known.is_delta();
        let several = stat.kind() != Kind::Directory && stat.nlink > 1;
        // What has one name here must not share its content with another name there.
        let apart = is_delta || !several;
        if is_delta && !was_bound && several && !self.bind_linked(live, file, parent, name) {
            live.is_pinned(file);
            return Ok(());
        }
        let held = live.known.is_bound(file);
        let mut put = Ok(());
        live.outbox.put_quietly(|out| {
            put = compare::put_ensure(out, trees, file, (held, apart), (parent, name))
        });
        // The lookup has pinned the id.
        live.is_pinned(file);
        put?;
        let in_place = live.known.is_delta() && was_bound;
        live.known.bind(file);
        live.known.name_is_right(parent, name);
        live.known.attributes_are_right(file);
        if live.known.is_delta() && !was_bound && stat.kind() == Kind::Directory {
            live.known.names_are_unknown(file);
        }
        drop(inner);
        drop(order);
        self.meter.entry(name);
        // What was bound before may have been linked to what stood elsewhere.
        let alone = stat.kind() != Kind::Directory && !several && !was_bound;
        if self.reading == Some(parent) && alone {
            self.walk.found_alone(parent, file, stat.kind() == Kind::File);
        }
        self.found(file, stat.kind(), (in_place, fresh && !held));
        Ok(())
    }

    /// Adds what is below or in an object to the walk.
    fn found(&mut self, file: FileId, kind: Kind, (in_place, fresh): (bool, bool)) {
        match kind {
            // What is in a directory that was bound over trusted names needs no second look.
            Kind::Directory if in_place => {}
            Kind::Directory => self.walk.found_directory(file),
            Kind::File => self.walk.found_file(file, fresh && !self.moves.was_told(file)),
            _ => {}
        }
    }

    /// Nothing has a name any more, which the target was told as it happened, unless that was left
    /// to the walk. Under the order lock.
    fn found_nothing(&self, parent: FileId, name: &[u8]) {
        if self.name_is_right(parent, name) {
            self.put(&Forward::Discard { parent, name });
        }
    }

    /// Removes a name that only the target has.
    fn discard(&mut self, parent: FileId, name: &[u8]) {
        let Ok(tree) = self.tree(parent).map(Arc::clone) else { return };
        let order = self.link.order.lock();
        if tree.known_child(parent, name).is_none() && !exists(&tree, parent, name) {
            self.put(&Forward::Discard { parent, name });
        }
        drop(order);
    }

    /// Gives an object its modification time.
    pub(super) fn finish(&mut self, file: FileId) -> Result<(), Errno> {
        let tree = Arc::clone(self.tree(file)?);
        let order = self.link.order.lock();
        match tree.stat(file) {
            Ok(stat) => {
                if stat.kind() == Kind::File {
                    self.put_attributes(file)?;
                }
                self.put(&Forward::Finish { file, mtime: stat.mtime });
            }
            Err(Errno::NOENT | Errno::STALE) => {}
            Err(errno) => return Err(errno),
        }
        drop(order);
        Ok(())
    }

    /// Gives an object that has no name its owner, mode and attributes.
    pub(super) fn attributes(&mut self, file: FileId) -> Result<(), Errno> {
        let link = Arc::clone(&self.link);
        let _order = link.order.lock();
        self.put_attributes(file)
    }

    /// Under the order lock.
    fn put_attributes(&self, file: FileId) -> Result<(), Errno> {
        let trees = self.link.primary.trees();
        let mut put = Ok(());
        self.link.outbox.put_quietly(|out| put = compare::put_attributes(out, trees, file));
        put
    }

    pub(super) fn tree(&self, file: FileId) -> Result<&Arc<Tree>, Errno> {
        self.link.primary.trees().get(usize::from(file.tree)).ok_or(Errno::STALE)
    }

    pub(super) fn put(&self, message: &Forward<'_>) {
        self.link.outbox.put_quietly(|out| put_forward(out, message));
    }
}

fn exists(tree: &Tree, parent: FileId, name: &[u8]) -> bool {
    match tree.path_descriptor(parent) {
        Ok(directory) => mount::backing::open_name(&*directory, name).is_ok(),
        Err(_) => true,
    }
}
