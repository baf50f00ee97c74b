//! The table of known files: node ids, what keeps them, and their names.
//!
//! Bookkeeping only, no system calls but the closing of descriptors. An entry lives as long as
//! the kernel remembers it, the replicator pins it, or a known name lies below it.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::descriptors::Descriptors;
use crate::backing::{Handle, Kind};

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

#[derive(Debug)]
pub(super) struct Table {
    inodes: HashMap<u64, Inode>,
    by_handle: HashMap<Handle, u64>,
    next: u64,
    cache: Descriptors,
    /// Files that the peer does not know, as they have no name yet.
    pub(super) unnamed: BTreeMap<u64, Unnamed>,
}

impl Table {
    /// A table that knows the root.
    pub(super) fn new(root: Handle, directory: OwnedFd, cached_max: usize) -> Table {
        let mut table = Table {
            inodes: HashMap::new(),
            by_handle: HashMap::new(),
            next: fuse::ROOT,
            cache: Descriptors::new(cached_max),
            unnamed: BTreeMap::new(),
        };
        let node = table.know(root, Kind::Directory, directory);
        if let Some(inode) = table.inodes.get_mut(&node) {
            inode.pins = 1;
            inode.held = table.cache.get(node);
        }
        table
    }

    /// The node id of a file, a new one if it was not known. It counts as unreferenced.
    pub(super) fn know(&mut self, handle: Handle, kind: Kind, file: OwnedFd) -> u64 {
        if let Some(node) = self.by_handle.get(&handle) {
            return *node;
        }
        let node = self.next;
        self.next += 1;
        let file = Arc::new(file);
        let held = (!handle.opens()).then(|| Arc::clone(&file));
        self.by_handle.insert(handle.clone(), node);
        let names = Vec::new();
        let inode = Inode { handle, kind, lookups: 0, pins: 0, children: 0, names, held };
        self.inodes.insert(node, inode);
        self.cache.insert(node, file);
        node
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
        if let Some(inode) = self.inodes.get_mut(&node)
            && inode.handle.opens()
            && let Some(file) = inode.held.take()
        {
            self.cache.insert(node, file);
        }
    }

    pub(super) fn refer(&mut self, node: u64, reference: Reference) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            match reference {
                Reference::Kernel => inode.lookups += 1,
                Reference::Pin => inode.pins += 1,
            }
        }
    }

    pub(super) fn release(&mut self, node: u64, reference: Reference, count: u64) {
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
        self.cache.remove(node);
        for (parent, _) in inode.names {
            self.child_left(parent);
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
mod tests {
    use super::*;

    fn handle(number: u8) -> Handle {
        Handle::from_bytes(&[1, 0, 0, 0, number]).unwrap()
    }

    fn file() -> OwnedFd {
        OwnedFd::from(std::fs::File::open("/dev/null").unwrap())
    }

    #[test]
    fn a_directory_stays_while_names_below_it_are_known() {
        let mut table = Table::new(handle(1), file(), 10);
        let directory = table.know(handle(2), Kind::Directory, file());
        table.refer(directory, Reference::Kernel);
        table.add_name(directory, fuse::ROOT, b"directory");
        let child = table.know(handle(3), Kind::File, file());
        table.refer(child, Reference::Kernel);
        table.add_name(child, directory, b"child");
        table.release(directory, Reference::Kernel, 1);
        assert_eq!(table.name_of(child), Some((directory, b"child".to_vec())));
        assert_eq!(table.name_of(directory), Some((fuse::ROOT, b"directory".to_vec())));
        table.release(child, Reference::Kernel, 1);
        assert_eq!(table.len(), 1);
        assert_eq!(table.know(handle(3), Kind::File, file()), 4);
    }

    #[test]
    fn a_pinned_file_without_lookups_stays() {
        let mut table = Table::new(handle(1), file(), 10);
        let node = table.know(handle(2), Kind::File, file());
        table.refer(node, Reference::Kernel);
        table.refer(node, Reference::Pin);
        table.release(node, Reference::Kernel, 7);
        assert_eq!(table.node_of(&handle(2)), Some(node));
        table.release(node, Reference::Pin, 1);
        assert_eq!(table.node_of(&handle(2)), None);
    }
}
