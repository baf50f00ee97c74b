//! From entries of the log to objects: where in the tree what they name stands today.
//!
//! Nothing is guessed: an object that exists but is not found by handle, parent and name, or path
//! makes the log useless for a delta, and that is said.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use activity::{Entry, Part, Reach};
use mount::backing::{self, Handle, Kind, Root};
use replica::Task;
use replica::op::FileId;
use rustix::fs::OFlags;
use rustix::io::Errno;
use wire::recall::Strayed;

use crate::replicator::moved::Moved;
use crate::replicator::primary::Trees;

/// Names from a root down to an object.
pub(super) type Components = Vec<Vec<u8>>;

/// What a delta goes through.
#[derive(Default)]
pub(in crate::replicator) struct Suspects {
    /// Directories whose names may differ, with their depth.
    pub(in crate::replicator) directories: BTreeMap<FileId, usize>,
    /// Names that may stand for other objects, with all below them, and the depth of the directory.
    pub(in crate::replicator) names: BTreeMap<(FileId, Vec<u8>), usize>,
    /// Parts of objects: positions in bytes, from and to.
    pub(in crate::replicator) parts: BTreeSet<(FileId, u64, u64)>,
    /// What was moved while no session was under way.
    pub(in crate::replicator) moved: Moved,
    /// Objects all below which may differ, under whatever names they have by then.
    doubted: std::collections::BTreeSet<FileId>,
    /// Ids that were pinned.
    pub(in crate::replicator) pinned: Vec<FileId>,
    /// Entries whose objects were on the move when they were looked for.
    missed: Vec<Entry>,
    /// Why no delta will do.
    pub(in crate::replicator) hopeless: Option<String>,
}

impl Suspects {
    /// Adds what entries of this node's log name.
    pub(in crate::replicator) fn add(&mut self, trees: &Trees, entries: &[Entry]) {
        for entry in entries {
            if self.add_entry(trees, entry).is_err() {
                self.missed.push(entry.clone());
            }
        }
    }

    /// Looks again for what was not found, while nothing moves.
    pub(in crate::replicator) fn retry(&mut self, trees: &Trees) {
        // What was moved once more in between has another name now.
        for file in std::mem::take(&mut self.doubted) {
            let mut at = file;
            let mut depth = 0;
            let tree = trees.get(usize::from(file.tree));
            while let Some((parent, _)) = tree.and_then(|tree| tree.name_of(at)) {
                at = parent;
                depth += 1;
            }
            self.doubt(trees, file, depth);
        }
        for entry in std::mem::take(&mut self.missed) {
            if let Err(errno) = self.add_entry(trees, &entry) {
                let name = String::from_utf8_lossy(&entry.name);
                self.hopeless =
                    Some(format!("what the activity log names `{name}` was not found: {errno}"));
            }
        }
    }

    fn add_entry(&mut self, trees: &Trees, entry: &Entry) -> Result<(), Errno> {
        let tree = trees.get(usize::from(entry.tree)).ok_or(Errno::STALE)?;
        let Some((components, object)) = locate(tree.root(), entry)? else { return Ok(()) };
        let Some(file) = self.enter(trees, entry.tree, &components)? else {
            // It was moved or removed this moment; the log names it or its directory again.
            return if is_gone(&object)? { Ok(()) } else { Err(Errno::AGAIN) };
        };
        if tree.is_excluded(file) {
            // It came to its name after the entry was made.
            return Ok(());
        }
        let stat = backing::stat(&object)?;
        let found = tree.stat(file)?;
        if (found.dev, found.ino) != (stat.dev, stat.ino) {
            // Something else has come under its name in between.
            return Err(Errno::AGAIN);
        }
        if entry.part == Part::Moved && entry.alone && !self.moved.contains_key(&file) {
            // The oldest one counts: later the target had not heard of it either.
            if let Some(parent) = self.former_parent(trees, entry) {
                self.moved.insert(file, (parent, entry.name.clone()));
            }
        }
        match strayed(entry.part, stat.kind() == Kind::Directory) {
            Strayed::All => {
                self.doubted.insert(file);
                self.doubt(trees, file, components.len());
            }
            Strayed::Names => {
                self.directories.insert(file, components.len());
            }
            Strayed::Part { offset, end } => {
                self.parts.insert((file, offset, end));
            }
        }
        Ok(())
    }

    /// The directory that held an object, if it can be found: knowing it only saves copying.
    fn former_parent(&mut self, trees: &Trees, entry: &Entry) -> Option<FileId> {
        let tree = trees.get(usize::from(entry.tree))?;
        let handle = Handle::from_bytes(&entry.parent)?;
        let parent = tree.root().open_handle(&handle, OFlags::PATH).ok()?;
        let components = by_path(tree.root(), &parent)?;
        let file = self.enter(trees, entry.tree, &components).ok()??;
        let (found, stat) = (tree.stat(file).ok()?, backing::stat(&parent).ok()?);
        ((found.dev, found.ino) == (stat.dev, stat.ino)).then_some(file)
    }

    /// Adds what the target says of a path. That it leads nowhere here is no harm: then the names
    /// in the directory where it ends differ, and both logs together name that directory.
    pub(in crate::replicator) fn add_theirs(
        &mut self,
        trees: &Trees,
        tree: u16,
        path: &[u8],
        strayed: Strayed,
    ) {
        let split = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let components: Components = split.map(<[u8]>::to_vec).collect();
        let file = match self.enter(trees, tree, &components) {
            Ok(Some(file)) => file,
            Ok(None) => return,
            Err(errno) => {
                self.hopeless = Some(format!("a suspect of the target was not found: {errno}"));
                return;
            }
        };
        if trees.get(usize::from(tree)).is_some_and(|tree| tree.is_excluded(file)) {
            return;
        }
        match strayed {
            Strayed::Names => {
                self.directories.insert(file, components.len());
            }
            Strayed::All => self.doubt(trees, file, components.len()),
            Strayed::Part { offset, end } => {
                self.parts.insert((file, offset, end));
            }
        }
    }

    fn doubt(&mut self, trees: &Trees, file: FileId, depth: usize) {
        let Some(tree) = trees.get(usize::from(file.tree)) else { return };
        let names = tree.names_of(file).into_iter();
        for name in names.filter(|(parent, name)| !tree.is_excluded_name(*parent, name)) {
            self.names.insert(name, depth.saturating_sub(1));
        }
    }

    /// Looks names up from the root down.
    fn enter(
        &mut self,
        trees: &Trees,
        tree: u16,
        components: &Components,
    ) -> Result<Option<FileId>, Errno> {
        let found = trees.get(usize::from(tree)).ok_or(Errno::STALE)?;
        let mut at = FileId::root(tree);
        for name in components {
            match found.lookup(at, name) {
                Ok((file, _)) => {
                    self.pinned.push(file);
                    at = file;
                }
                Err(Errno::NOENT | Errno::STALE | Errno::NOTDIR) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
        Ok(Some(at))
    }

    /// The names that may stand for other objects.
    pub(in crate::replicator) fn doubted(&self) -> Vec<(FileId, Vec<u8>)> {
        self.names.keys().cloned().collect()
    }

    /// The work, in levels: names from the roots down, then contents.
    pub(in crate::replicator) fn levels(&self) -> Vec<Vec<Task>> {
        let mut by_depth: BTreeMap<usize, Vec<Task>> = BTreeMap::new();
        for (directory, depth) in &self.directories {
            by_depth.entry(*depth).or_default().push(Task::List(*directory));
        }
        for ((parent, name), depth) in &self.names {
            let task = Task::Entry { parent: *parent, name: name.clone() };
            by_depth.entry(*depth).or_default().push(task);
        }
        let parts = merged(&self.parts).into_iter();
        let parts = parts.map(|(file, offset, end)| Task::Part { file, offset, end }).collect();
        by_depth.into_values().chain([parts]).collect()
    }
}

/// What entries of a target's own log mean for the source: paths below the roots.
pub(in crate::replicator) fn strayed_paths(
    roots: &[std::sync::Arc<Root>],
    entries: &[Entry],
) -> Result<Vec<(u16, Vec<u8>, Strayed)>, Errno> {
    let mut paths = Vec::new();
    for entry in entries {
        let root = roots.get(usize::from(entry.tree)).ok_or(Errno::STALE)?;
        let Some((components, object)) = locate(root, entry)? else { continue };
        let directory = backing::stat(&object)?.kind() == Kind::Directory;
        paths.push((entry.tree, components.join(&b'/'), strayed(entry.part, directory)));
    }
    Ok(paths)
}

/// What a resync must look at because of an entry.
fn strayed(part: Part, directory: bool) -> Strayed {
    match part.reach(directory) {
        Reach::Names => Strayed::Names,
        Reach::All => Strayed::All,
        Reach::Content { offset, end } => Strayed::Part { offset, end },
    }
}

/// Where the object of an entry stands; none when it has no name any more.
fn locate(root: &Root, entry: &Entry) -> Result<Option<(Components, OwnedFd)>, Errno> {
    let handle = Handle::from_bytes(&entry.object).ok_or(Errno::BADF)?;
    if !handle.opens() {
        return Err(Errno::OPNOTSUPP);
    }
    let object = match root.open_handle(&handle, OFlags::PATH) {
        Ok(object) => object,
        Err(Errno::STALE | Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    if is_gone(&object)? {
        return Ok(None);
    }
    if backing::stat(&object)?.kind() != Kind::Directory
        && let Some(components) = by_parent(root, entry, &object)?
    {
        return Ok(Some((components, object)));
    }
    match by_path(root, &object) {
        Some(components) => Ok(Some((components, object))),
        None if is_gone(&object)? => Ok(None),
        None => Err(Errno::NOENT),
    }
}

fn by_parent(root: &Root, entry: &Entry, object: &OwnedFd) -> Result<Option<Components>, Errno> {
    let Some(parent) = Handle::from_bytes(&entry.parent) else { return Ok(None) };
    let parent = match root.open_handle(&parent, OFlags::PATH) {
        Ok(parent) => parent,
        Err(Errno::STALE | Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let Ok(named) = backing::open_name(&parent, &entry.name) else { return Ok(None) };
    if !backing::same_file(&named, object)? {
        return Ok(None);
    }
    let components = by_path(root, &parent).map(|mut components| {
        components.push(entry.name.clone());
        components
    });
    Ok(components)
}

/// The path that the kernel knows of an object, if it leads back to it.
pub(in crate::replicator) fn by_path(root: &Root, object: &OwnedFd) -> Option<Components> {
    let path = |file: i32| std::fs::read_link(format!("/proc/self/fd/{file}")).ok();
    let (top, full) = (path(root.as_fd().as_raw_fd())?, path(object.as_raw_fd())?);
    let below = full.strip_prefix(&top).ok()?;
    let components = names(below);
    let mut at = root.as_fd().try_clone_to_owned().ok()?;
    for name in &components {
        at = backing::open_name(&at, name).ok()?;
    }
    backing::same_file(&at, object).ok()?.then_some(components)
}

fn names(path: &Path) -> Components {
    path.iter().map(OsStr::as_bytes).map(<[u8]>::to_vec).collect()
}

fn is_gone(object: &OwnedFd) -> Result<bool, Errno> {
    Ok(backing::stat(object)?.nlink == 0)
}

/// Joins ranges that touch or overlap.
fn merged(parts: &BTreeSet<(FileId, u64, u64)>) -> Vec<(FileId, u64, u64)> {
    let mut joined: Vec<(FileId, u64, u64)> = Vec::new();
    for (file, offset, end) in parts {
        match joined.last_mut() {
            Some((last, from, to)) if last == file && (*offset <= *to || from == to) => {
                if from == to {
                    *from = *offset;
                }
                *to = (*to).max(*end);
            }
            _ => joined.push((*file, *offset, *end)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_compared_in_one() {
        let file = |node| FileId { tree: 0, node };
        let parts = [(1, 0, 0), (1, 8, 12), (1, 12, 16), (1, 20, 24), (2, 0, 0), (3, 4, 8)];
        let parts = parts.map(|(node, from, to)| (file(node), from, to));
        let joined = merged(&parts.into_iter().collect());
        let expected = [(1, 8, 16), (1, 20, 24), (2, 0, 0), (3, 4, 8)];
        assert_eq!(joined, expected.map(|(node, from, to)| (file(node), from, to)));
    }
}
