//! The table of known files: node ids, what keeps them, and their names.
//!
//! Bookkeeping only, no system calls but the closing of descriptors. An entry lives as long as
//! the kernel remembers it, the replicator pins it, or a known name lies below it. What a successor
//! must know of it is noted in a journal as it changes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::descriptors::Descriptors;
use super::notes::{Note, Noted};
use crate::backing::{Handle, Kind};
use crate::estate::{Holder, Journal};
use crate::process;

/// Why a file becomes known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reference {
    /// The kernel is told its node id and will say when it forgets it.
    Kernel,
    /// The replicator wants the id to stay.
    Pin,
}

/// A file that was made without a name and has had none since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unnamed {
    /// Nobody relies on it.
    Changed,
    /// It was made durable once.
    Synced,
}

impl Unnamed {
    /// As a number in the notes for a successor; 0 for a file that has a name.
    pub(crate) fn to_note(unnamed: Option<Unnamed>) -> u64 {
        match unnamed {
            None => 0,
            Some(Unnamed::Changed) => 1,
            Some(Unnamed::Synced) => 2,
        }
    }

    /// The inverse of `to_note`.
    pub(crate) fn of_note(note: u64) -> Option<Unnamed> {
        match note {
            1 => Some(Unnamed::Changed),
            2 => Some(Unnamed::Synced),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Inode {
    pub(super) handle: Handle,
    pub(super) kind: Kind,
    lookups: u64,
    pins: u64,
    /// Known names of other files in this directory.
    children: u64,
    /// Known names: directory and name in it. There may be more.
    names: Vec<(u64, Box<[u8]>)>,
    /// Kept where a handle does not suffice: no handles, or no name left.
    held: Option<Arc<OwnedFd>>,
}

pub(super) struct Table {
    index: u16,
    inodes: HashMap<u64, Inode>,
    by_handle: HashMap<Handle, u64>,
    next: u64,
    cache: Descriptors,
    /// Files that the peer does not know, as they have no name yet.
    unnamed: BTreeMap<u64, Unnamed>,
    /// Requests to forget that were carried out last.
    forgotten: VecDeque<u64>,
    journal: Option<Journal>,
    holder: Arc<dyn Holder>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("nodes", &self.inodes.len()).finish_non_exhaustive()
    }
}

/// Files for which there is room below which none of it is given back.
const SHRINK_MIN: usize = 1 << 16;

/// Requests to forget of which it is remembered that they were carried out: more than can be under
/// way at once.
const FORGOTTEN_MAX: usize = 64;

impl Table {
    /// A table that knows the root.
    pub(super) fn new(
        index: u16,
        root: Handle,
        directory: OwnedFd,
        cached_max: usize,
        holder: Arc<dyn Holder>,
    ) -> Table {
        let mut table = Table {
            index,
            inodes: HashMap::new(),
            by_handle: HashMap::new(),
            next: fuse::ROOT,
            cache: Descriptors::new(cached_max),
            unnamed: BTreeMap::new(),
            forgotten: VecDeque::new(),
            journal: None,
            holder,
        };
        let node = table.know(root, Kind::Directory, Some(directory));
        if let Some(inode) = table.inodes.get_mut(&node) {
            inode.pins = 1;
            inode.held = table.cache.get(node);
        }
        table
    }

    /// Does once more what a predecessor noted, with the descriptors that were held for it, and
    /// goes on noting.
    pub(super) fn keep_journal(
        &mut self,
        journal: Journal,
        held: Vec<(u64, OwnedFd)>,
    ) -> Result<(), Errno> {
        for note in journal.notes()? {
            self.redo(&Noted::take(note).ok_or(Errno::PROTO)?);
        }
        // Nobody is left who pinned anything; the root stays anyway.
        for inode in self.inodes.values_mut() {
            inode.pins = 0;
        }
        if let Some(root) = self.inodes.get_mut(&fuse::ROOT) {
            root.pins = 1;
        }
        for (node, file) in held {
            match self.inodes.get_mut(&node) {
                Some(inode) => inode.held = Some(Arc::new(file)),
                None => self.holder.let_go(self.index, node),
            }
        }
        self.journal = Some(journal);
        let idle: Vec<u64> = self.inodes.keys().copied().collect();
        idle.into_iter().for_each(|node| self.collect(node));
        self.renew();
        Ok(())
    }

    fn redo(&mut self, note: &Noted) {
        match note {
            Noted::Next(next) => self.next = self.next.max(*next),
            Noted::Know { node, kind, handle } => {
                self.next = *node;
                self.know(handle.clone(), *kind, None);
            }
            Noted::Refer { node, pin: false, count } => {
                if let Some(inode) = self.inodes.get_mut(node) {
                    inode.lookups += count;
                }
            }
            Noted::Refer { node, pin: true, .. } => self.refer(*node, Reference::Pin),
            Noted::Release { node, pin, count } => {
                let reference = if *pin { Reference::Pin } else { Reference::Kernel };
                self.release(*node, reference, *count);
            }
            Noted::Forget { unique, pairs } => self.forget_all(*unique, pairs),
            Noted::AddName { node, parent, name } => self.add_name(*node, *parent, name),
            Noted::RemoveName { node, parent, name } => self.remove_name(*node, *parent, name),
            Noted::Unnamed { node, unnamed } => self.set_unnamed(*node, *unnamed),
        }
    }

    fn note(&mut self, note: &Note<'_>) {
        // Before the note, as what it tells may not be in the state yet.
        if self.journal.as_ref().is_some_and(Journal::is_wasteful) {
            self.renew();
        }
        if let Some(journal) = &mut self.journal {
            journal.note(|out| note.put(out));
        }
    }

    /// Writes the state anew in place of its history.
    fn renew(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let mut renewal = journal.renew();
        let mut put = |note: &Note<'_>| renewal.note(|out| note.put(out));
        // The first one is known without being told.
        let mut nodes: Vec<(&u64, &Inode)> =
            self.inodes.iter().filter(|(node, _)| **node != fuse::ROOT).collect();
        nodes.sort_by_key(|(node, _)| **node);
        for (node, inode) in &nodes {
            let (node, kind, handle) = (**node, inode.kind, &inode.handle);
            put(&Note::Know { node, kind, handle });
            put(&Note::Refer { node, pin: false, count: inode.lookups });
            (0..inode.pins).for_each(|_| put(&Note::Refer { node, pin: true, count: 1 }));
        }
        for (node, inode) in nodes {
            for (parent, name) in &inode.names {
                put(&Note::AddName { node: *node, parent: *parent, name });
            }
        }
        for (node, unnamed) in &self.unnamed {
            put(&Note::Unnamed { node: *node, unnamed: Some(*unnamed) });
        }
        for unique in &self.forgotten {
            put(&Note::Forget { unique: *unique, pairs: &[] });
        }
        put(&Note::Next(self.next));
        renewal.finish();
    }

    /// The node id of a file, a new one if it was not known. It counts as unreferenced.
    pub(super) fn know(&mut self, handle: Handle, kind: Kind, file: Option<OwnedFd>) -> u64 {
        if let Some(node) = self.by_handle.get(&handle) {
            return *node;
        }
        let node = self.next;
        self.next += 1;
        self.note(&Note::Know { node, kind, handle: &handle });
        let file = file.map(Arc::new);
        let held = file.clone().filter(|_| !handle.opens());
        self.by_handle.insert(handle.clone(), node);
        let names = Vec::new();
        let inode = Inode { handle, kind, lookups: 0, pins: 0, children: 0, names, held };
        self.inodes.insert(node, inode);
        if let Some(file) = file {
            self.cache.insert(node, file);
        }
        node
    }

    pub(super) fn unnamed(&self) -> &BTreeMap<u64, Unnamed> {
        &self.unnamed
    }

    /// Notes that a file has no name yet, or has one from now on.
    pub(super) fn set_unnamed(&mut self, node: u64, unnamed: Option<Unnamed>) {
        self.note(&Note::Unnamed { node, unnamed });
        match unnamed {
            Some(unnamed) => drop(self.unnamed.insert(node, unnamed)),
            None => drop(self.unnamed.remove(&node)),
        }
    }

    pub(super) fn get(&self, node: u64) -> Option<&Inode> {
        self.inodes.get(&node)
    }

    pub(super) fn node_of(&self, handle: &Handle) -> Option<u64> {
        self.by_handle.get(handle).copied()
    }

    /// A descriptor, when one is kept.
    pub(super) fn descriptor(&mut self, node: u64) -> Option<Arc<OwnedFd>> {
        match &self.inodes.get(&node)?.held {
            Some(held) => Some(Arc::clone(held)),
            None => self.cache.get(node),
        }
    }

    pub(super) fn cache(&mut self, node: u64, file: &Arc<OwnedFd>) {
        if self.inodes.contains_key(&node) {
            self.cache.insert(node, Arc::clone(file));
        }
    }

    /// Keeps a descriptor until the file is forgotten.
    pub(super) fn hold(&mut self, node: u64, file: OwnedFd) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.held.get_or_insert_with(|| Arc::new(file));
            self.cache.remove(node);
        }
    }

    /// A kept descriptor is no longer needed, where the handle suffices.
    pub(super) fn let_go(&mut self, node: u64) {
        self.holder.let_go(self.index, node);
        if let Some(inode) = self.inodes.get_mut(&node)
            && inode.handle.opens()
            && let Some(file) = inode.held.take()
        {
            self.cache.insert(node, file);
        }
    }

    /// A descriptor that was put into safety before its time is needed no more.
    pub(super) fn not_held(&mut self, node: u64) {
        if self.inodes.get(&node).is_none_or(|inode| inode.held.is_none()) {
            self.holder.let_go(self.index, node);
        }
    }

    pub(super) fn refer(&mut self, node: u64, reference: Reference) {
        self.note(&Note::Refer { node, pin: reference == Reference::Pin, count: 1 });
        if let Some(inode) = self.inodes.get_mut(&node) {
            match reference {
                Reference::Kernel => inode.lookups += 1,
                Reference::Pin => inode.pins += 1,
            }
        }
    }

    pub(super) fn release(&mut self, node: u64, reference: Reference, count: u64) {
        self.note(&Note::Release { node, pin: reference == Reference::Pin, count });
        self.unrefer(node, reference, count);
    }

    /// Releases what the kernel has forgotten, once, however often that request is carried out.
    pub(super) fn forget_all(&mut self, unique: u64, pairs: &[(u64, u64)]) {
        if self.forgotten.contains(&unique) {
            return;
        }
        self.note(&Note::Forget { unique, pairs });
        self.forgotten.push_back(unique);
        if self.forgotten.len() > FORGOTTEN_MAX {
            self.forgotten.pop_front();
        }
        for (node, count) in pairs.iter().filter(|(node, _)| *node != fuse::ROOT) {
            self.unrefer(*node, Reference::Kernel, *count);
        }
    }

    fn unrefer(&mut self, node: u64, reference: Reference, count: u64) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            let held = match reference {
                Reference::Kernel => &mut inode.lookups,
                Reference::Pin => &mut inode.pins,
            };
            *held = held.saturating_sub(count);
        }
        self.collect(node);
    }

    pub(super) fn add_name(&mut self, node: u64, parent: u64, name: &[u8]) {
        let Some(inode) = self.inodes.get_mut(&node) else {
            return;
        };
        if node == parent || has_name(inode, parent, name) {
            return;
        }
        inode.names.push((parent, name.into()));
        self.note(&Note::AddName { node, parent, name });
        if let Some(directory) = self.inodes.get_mut(&parent) {
            directory.children += 1;
        }
    }

    pub(super) fn remove_name(&mut self, node: u64, parent: u64, name: &[u8]) {
        let Some(inode) = self.inodes.get_mut(&node) else {
            return;
        };
        let known = inode.names.len();
        inode.names.retain(|(directory, known)| (*directory, &**known) != (parent, name));
        if inode.names.len() < known {
            self.note(&Note::RemoveName { node, parent, name });
            self.child_left(parent);
        }
    }

    /// A name that was valid when the table last heard of the file.
    pub(super) fn name_of(&self, node: u64) -> Option<(u64, Vec<u8>)> {
        let (parent, name) = self.inodes.get(&node)?.names.last()?;
        Some((*parent, name.to_vec()))
    }

    pub(super) fn names_of(&self, node: u64) -> Vec<(u64, Vec<u8>)> {
        let names = self.inodes.get(&node).map_or(&[][..], |inode| &inode.names);
        names.iter().map(|(parent, name)| (*parent, name.to_vec())).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Drops an entry that nothing keeps any more, and then perhaps its directories.
    fn collect(&mut self, node: u64) {
        let kept = |inode: &Inode| inode.lookups + inode.pins + inode.children > 0;
        if self.inodes.get(&node).is_none_or(kept) {
            return;
        }
        let Some(inode) = self.inodes.remove(&node) else {
            return;
        };
        self.by_handle.remove(&inode.handle);
        self.unnamed.remove(&node);
        if inode.held.is_some() {
            self.holder.let_go(self.index, node);
        }
        self.cache.remove(node);
        for (parent, _) in inode.names {
            self.child_left(parent);
        }
        self.shrink();
    }

    /// Gives memory back when most of what was known has been forgotten.
    fn shrink(&mut self) {
        let (known, room) = (self.inodes.len(), self.inodes.capacity());
        if room > SHRINK_MIN && known < room / 8 {
            self.inodes.shrink_to(2 * known);
            self.by_handle.shrink_to(2 * known);
            process::give_memory_back();
        }
    }

    fn child_left(&mut self, parent: u64) {
        if let Some(directory) = self.inodes.get_mut(&parent) {
            directory.children = directory.children.saturating_sub(1);
        }
        self.collect(parent);
    }
}

fn has_name(inode: &Inode, parent: u64, name: &[u8]) -> bool {
    inode.names.iter().any(|(directory, known)| (*directory, &**known) == (parent, name))
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
