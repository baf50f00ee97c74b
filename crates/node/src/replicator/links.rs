//! All names of files that have several, for a resync that does not visit every name.
//!
//! A file with a name that is visited and another that is not must be found at the target by the
//! other one, or it would become two files there. The index is made once it is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use mount::Tree;
use mount::backing::{self, Kind};
use replica::Without;
use replica::op::FileId;
use rustix::io::Errno;

use crate::replicator::delta::put_bind;
use crate::replicator::primary::{Live, TreeNames};
use crate::replicator::walker::Walker;

/// Times that the index is made anew because names have moved since.
const INDEXINGS_MAX: u32 = 8;

/// A directory and a name in it.
type Name = (FileId, Vec<u8>);

/// The names of files that have several.
#[derive(Default)]
pub(super) struct Links {
    by_file: BTreeMap<(u16, u64), Vec<Name>>,
    indexings: u32,
    /// Names that were put off already.
    put_off: BTreeSet<Name>,
}

impl Walker {
    /// Makes all names of what stands under a name known, if there are several.
    pub(super) fn learn_names(&mut self, parent: FileId, name: &[u8]) -> Result<(), Errno> {
        loop {
            let tree = std::sync::Arc::clone(self.tree(parent)?);
            let (file, stat) = match tree.lookup(parent, name) {
                Ok(found) => found,
                // Whoever asked will find so too.
                Err(Errno::NOENT | Errno::STALE) => return Ok(()),
                Err(errno) => return Err(errno),
            };
            self.keep(file);
            let several = stat.kind() != Kind::Directory && stat.nlink > 1;
            if !several || tree.names_of(file).len() >= stat.nlink as usize {
                return Ok(());
            }
            let key = (file.tree, stat.ino);
            for (directory, name) in self.links.by_file.get(&key).cloned().unwrap_or_default() {
                if let Ok((found, _)) = tree.lookup(directory, &name) {
                    self.keep(found);
                }
            }
            if tree.names_of(file).len() >= stat.nlink as usize {
                return Ok(());
            }
            if self.links.indexings == INDEXINGS_MAX {
                return Err(Errno::MLINK);
            }
            self.index(&tree)?;
        }
    }

    /// Under the order lock: binds a file by another of its names, so that the name which is put
    /// right becomes a link to it at the target too. False when the name is put off until all
    /// else is done, as one of the others may be trusted by then.
    pub(super) fn bind_linked(
        &mut self,
        live: &mut Live,
        file: FileId,
        parent: FileId,
        name: &[u8],
    ) -> bool {
        let trees = self.link.primary.trees();
        let names = TreeNames(trees);
        let without = Without { names: &names, parent, name };
        if let Some(steps) = live.known.reach(file, &without) {
            live.outbox.put_quietly(|out| steps.iter().for_each(|step| put_bind(out, step)));
            live.pin_bound(trees, &steps);
            return true;
        }
        let first = self.links.put_off.insert((parent, name.to_vec()));
        if first {
            live.known.name_is_right(parent, name);
            live.known.leave_name(parent, name);
        }
        !first
    }

    /// Before a name that was put off is put right: puts the directories right in which its file
    /// has names that are trusted.
    pub(super) fn clear_ways(&mut self, parent: FileId, name: &[u8]) -> Result<(), Errno> {
        if !self.links.put_off.contains(&(parent, name.to_vec())) {
            return Ok(());
        }
        let tree = std::sync::Arc::clone(self.tree(parent)?);
        let Some(file) = tree.known_child(parent, name) else { return Ok(()) };
        for (directory, other) in tree.names_of(file) {
            let itself = (directory, &*other) == (parent, name);
            if !itself && self.is_trusted(directory, &other) {
                self.reach(directory)?;
            }
        }
        Ok(())
    }

    fn index(&mut self, tree: &Tree) -> Result<(), Errno> {
        self.links.indexings += 1;
        let root = tree.id(1);
        self.links.by_file.retain(|(index, _), _| *index != root.tree);
        let mut directories = vec![root];
        while let Some(directory) = directories.pop() {
            if self.link.is_ended() {
                return Ok(());
            }
            let Ok(mut reader) = tree.read_dir(directory) else { continue };
            let place = tree.path_descriptor(directory)?;
            loop {
                let chunk = reader.next_chunk()?;
                if chunk.is_empty() {
                    break;
                }
                for entry in chunk {
                    if entry.name == b"." || entry.name == b".." {
                        continue;
                    }
                    self.index_entry(tree, directory, place.as_fd(), entry, &mut directories)?;
                }
            }
        }
        Ok(())
    }

    fn index_entry(
        &mut self,
        tree: &Tree,
        directory: FileId,
        place: std::os::fd::BorrowedFd<'_>,
        entry: backing::DirEntry,
        directories: &mut Vec<FileId>,
    ) -> Result<(), Errno> {
        if entry.kind == Kind::Directory {
            // What goes away meanwhile has no names to be found.
            if let Ok((file, _)) = tree.lookup(directory, &entry.name) {
                self.keep(file);
                directories.push(file);
            }
            return Ok(());
        }
        match backing::open_name(place, &entry.name).and_then(backing::stat) {
            Ok(stat) if stat.nlink > 1 => {
                let names = self.links.by_file.entry((directory.tree, stat.ino)).or_default();
                names.push((directory, entry.name));
                Ok(())
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// A lookup has pinned an id: it stays so until the walk ends.
    fn keep(&self, file: FileId) {
        match self.link.primary.lock().live_of(self.link.id) {
            Some(live) => live.is_pinned(file),
            None => {
                if let Ok(tree) = self.tree(file) {
                    tree.unpin(file);
                }
            }
        }
    }
}
