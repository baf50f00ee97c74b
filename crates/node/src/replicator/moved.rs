//! What was moved while the target was away, at the source: before anything is made or removed
//! under the former name or the new one, the target is told the former name, and puts what it finds
//! there in its place, so that it need not be sent what it has.
//!
//! It is only a saving: what was moved is compared whole all the same.

use std::collections::{BTreeMap, BTreeSet};

use mount::backing::Kind;
use replica::Names;
use replica::op::FileId;
use rustix::io::Errno;
use wire::replication::Forward;

use crate::replicator::primary::TreeNames;
use crate::replicator::walker::Walker;

/// Moved directories on the way to each other's former names beyond which none is told.
const NESTED_MAX: usize = 256;

/// Directories on the way to a name beyond which it is taken for a circle.
const DEPTH_MAX: usize = 1 << 14;

/// What was moved, with the directory and the name that it had when the target last heard of it.
pub(super) type Moved = BTreeMap<FileId, (FileId, Vec<u8>)>;

/// What was moved, as far as it is not in its place yet.
#[derive(Default)]
pub(super) struct Moves {
    waiting: Moved,
    former: BTreeMap<(FileId, Vec<u8>), FileId>,
    /// Objects of which the target was told the former names.
    told: BTreeSet<FileId>,
    nested: usize,
}

impl Moves {
    pub(super) fn new(waiting: Moved) -> Moves {
        let former = waiting.iter().map(|(file, name)| (name.clone(), *file)).collect();
        Moves { waiting, former, ..Moves::default() }
    }

    /// Whether the target may have the content of an object.
    pub(super) fn was_told(&self, file: FileId) -> bool {
        self.told.contains(&file)
    }
}

impl Walker {
    /// Whether a name is that of something that is not in its place yet, or was. It is put right
    /// once the other names in its directory are.
    pub(super) fn is_moving(&self, parent: FileId, name: &[u8]) -> bool {
        !self.moving(parent, name).is_empty()
    }

    /// Has the target put in its place what has a name, or had it.
    pub(super) fn bring_moved(&mut self, parent: FileId, name: &[u8]) -> Result<(), Errno> {
        for file in self.moving(parent, name) {
            self.bring(file)?;
        }
        Ok(())
    }

    fn moving(&self, parent: FileId, name: &[u8]) -> Vec<FileId> {
        if self.moves.waiting.is_empty() {
            return Vec::new();
        }
        let now = self.tree(parent).ok().and_then(|tree| tree.known_child(parent, name));
        let before = self.moves.former.get(&(parent, name.to_vec())).copied();
        let waits = |file: &FileId| self.moves.waiting.contains_key(file);
        before.into_iter().chain(now).filter(waits).collect()
    }

    fn bring(&mut self, file: FileId) -> Result<(), Errno> {
        let Some((parent, name)) = self.moves.waiting.remove(&file) else { return Ok(()) };
        if self.moves.nested > NESTED_MAX {
            return Ok(());
        }
        self.moves.nested += 1;
        for directory in self.way_to(parent) {
            self.bring(directory)?;
        }
        if self.tell_former_name(file, parent, &name)? {
            self.moves.told.insert(file);
            for (parent, name) in TreeNames(self.link.primary.trees()).names_of(file) {
                if self.reach(parent)? {
                    self.entry(parent, &name, false)?;
                }
            }
        }
        self.moves.nested -= 1;
        Ok(())
    }

    fn tell_former_name(
        &mut self,
        file: FileId,
        parent: FileId,
        name: &[u8],
    ) -> Result<bool, Errno> {
        let stat = match self.tree(file)?.stat(file) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::STALE) => return Ok(false),
            Err(errno) => return Err(errno),
        };
        let directory = stat.kind() == Kind::Directory;
        let single = stat.kind() == Kind::File && stat.nlink == 1;
        let tell = (directory || single) && self.reach(parent)?;
        if tell {
            self.put(&Forward::Formerly { file, directory, parent, name });
        }
        Ok(tell)
    }

    /// A directory and those above it, from the root down.
    fn way_to(&self, directory: FileId) -> Vec<FileId> {
        let names = TreeNames(self.link.primary.trees());
        let mut way = vec![directory];
        while let Some((parent, _)) =
            way.last().and_then(|last| names.names_of(*last).into_iter().next())
        {
            way.push(parent);
            if way.len() > DEPTH_MAX {
                break;
            }
        }
        way.reverse();
        way
    }
}
