//! What a writer's files are after each of its operations, by the rules of POSIX alone. Times of
//! modification are known only where the writer has set them and nothing has changed since.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::op::{Allocation, How, Op, Renaming, SHARED, bytes};
use super::tree::{self, Entry, Kind, Tree};

/// A file, whatever its names; never used twice.
pub(crate) type Id = u32;

/// The writer's directory.
pub(crate) const ROOT: Id = 0;
/// The directory shared with others.
pub(crate) const SHARED_ID: Id = 1;
/// Blocks that `fallocate` may take out or put in.
pub(crate) const BLOCK: u64 = 4096;

/// All files of a writer.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    inodes: BTreeMap<Id, Inode>,
    next: Id,
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub node: Node,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: Option<(i64, u32)>,
    pub attributes: BTreeMap<String, Vec<u8>>,
}

/// What is in a file.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    File(Arc<Vec<u8>>),
    Directory(BTreeMap<String, Id>),
    Symlink(String),
    Pipe,
}

/// What an operation did, for those who follow files through a log.
#[derive(Debug, Default)]
pub(crate) struct Effect {
    /// The file whose content or attributes it changed.
    pub changed: Option<Id>,
    /// Whether names came, went or moved.
    pub names: bool,
    /// What it made durable.
    pub synced: Option<(Id, Scope)>,
}

/// How much a sync covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Content and size.
    Data,
    /// Attributes and names too.
    Whole,
}

/// The operation is none that a writer would do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unfit;

type Fits<T> = Result<T, Unfit>;

impl Model {
    /// A writer's files before its first operation.
    pub(crate) fn new() -> Model {
        let directory = |names: &[(&str, Id)]| Inode {
            node: Node::Directory(
                names.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect(),
            ),
            mode: 0o755,
            owner: (0, 0),
            mtime: None,
            attributes: BTreeMap::new(),
        };
        let root = directory(&[(SHARED, SHARED_ID)]);
        Model { inodes: [(ROOT, root), (SHARED_ID, directory(&[]))].into(), next: SHARED_ID + 1 }
    }

    /// Does one operation.
    pub(crate) fn apply(&mut self, op: &Op) -> Fits<Effect> {
        match op {
            Op::Create { path, mode } => self.make(path, Node::File(Arc::default()), *mode),
            Op::Symlink { path, target } => self.make(path, Node::Symlink(target.clone()), 0o777),
            Op::Directory { path, mode } => {
                self.make(path, Node::Directory(BTreeMap::new()), *mode)
            }
            Op::Pipe { path, mode } => self.make(path, Node::Pipe, *mode),
            Op::Write { .. }
            | Op::Append { .. }
            | Op::Empty { .. }
            | Op::Truncate { .. }
            | Op::Allocate { .. }
            | Op::Copy { .. }
            | Op::Map { .. } => self.apply_content(op),
            Op::Sync { path, data_only } => {
                let scope = if *data_only { Scope::Data } else { Scope::Whole };
                let synced = Some((self.id(path).ok_or(Unfit)?, scope));
                Ok(Effect { synced, ..Effect::default() })
            }
            Op::Rename { from, to, how } => self.rename(from, to, *how),
            Op::Link { from, to } => self.link(from, to),
            Op::Unlink { path } => self.remove(path, false),
            Op::Orphan { path, .. } => {
                // With a second name, what is written would be seen.
                let names = self.locations(self.id(path).ok_or(Unfit)?).len();
                if names == 1 { self.remove(path, false) } else { Err(Unfit) }
            }
            Op::RemoveDirectory { path } => self.remove(path, true),
            Op::Mode { path, mode } => self.attribute(path, |inode| inode.mode = *mode),
            Op::Owner { path, uid, gid } => {
                self.attribute(path, |inode| inode.owner = (*uid, *gid))
            }
            Op::SetAttribute { path, name, value } => self.attribute(path, |inode| {
                inode.attributes.insert(name.clone(), value.clone().into_bytes());
            }),
            Op::RemoveAttribute { path, name } => {
                let known =
                    self.inode(path).is_some_and(|inode| inode.attributes.contains_key(name));
                if !known {
                    return Err(Unfit);
                }
                self.attribute(path, |inode| drop(inode.attributes.remove(name)))
            }
            Op::Times { path, seconds, nanoseconds } => {
                self.attribute(path, |inode| inode.mtime = Some((*seconds, *nanoseconds)))
            }
        }
    }

    fn apply_content(&mut self, op: &Op) -> Fits<Effect> {
        match op {
            Op::Write { path, offset, length, key, how } => {
                let effect = self.write(path, *offset, &bytes(*key, *length))?;
                Ok(Effect { synced: effect.changed.zip(how.scope()), ..effect })
            }
            Op::Append { path, length, key } => {
                let end = self.content(path)?.len() as u64;
                self.write(path, end, &bytes(*key, *length))
            }
            Op::Empty { path } => self.resize(path, 0),
            Op::Truncate { path, size, .. } => self.resize(path, *size),
            Op::Allocate { path, how, offset, length } => {
                self.allocate(path, *how, *offset, *length)
            }
            Op::Copy { from, to, offset, at, length } => {
                let source = self.content(from)?;
                let (start, end) = (index(*offset), index(offset + length));
                let part = source.get(start..end).ok_or(Unfit)?.to_vec();
                let apart = at + length <= *offset || offset + length <= *at;
                if self.id(from) == self.id(to) && !apart {
                    Err(Unfit)
                } else {
                    self.write(to, *at, &part)
                }
            }
            Op::Map { path, parts, key } => self.map(path, parts, *key),
            _ => Err(Unfit),
        }
    }

    /// All names, as a disk should have them.
    pub(crate) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut ids = BTreeMap::new();
        for (path, id) in self.names() {
            let Some(inode) = self.inodes.get(&id).filter(|_| id != SHARED_ID) else { continue };
            let entry = Entry {
                kind: inode.kind(),
                mode: inode.mode,
                owner: inode.owner,
                mtime: inode.mtime,
                attributes: inode.attributes.clone(),
                first: path.clone(),
            };
            ids.insert(path.clone(), id);
            tree.insert(path, entry);
        }
        tree::name_firsts(&mut tree, &ids);
        tree
    }

    /// All names with their files, the writer's directory and the shared one included.
    pub(crate) fn names(&self) -> Vec<(String, Id)> {
        let mut names = vec![(String::new(), ROOT)];
        let mut next = 0;
        while let Some((path, id)) = names.get(next).cloned() {
            next += 1;
            if let Some(Node::Directory(entries)) = self.inodes.get(&id).map(|inode| &inode.node) {
                let below = |(name, id): (&String, &Id)| (join(&path, name), *id);
                names.extend(entries.iter().map(below));
            }
        }
        names
    }

    /// Where a file's names are: directory and name.
    pub(crate) fn locations(&self, of: Id) -> Vec<(Id, String)> {
        let mut all = Vec::new();
        for (directory, inode) in &self.inodes {
            let Node::Directory(entries) = &inode.node else { continue };
            let here = entries.iter().filter(|(_, id)| **id == of);
            all.extend(here.map(|(name, _)| (*directory, name.clone())));
        }
        all
    }

    /// The file that a path leads to.
    pub(crate) fn id(&self, path: &str) -> Option<Id> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(ROOT, |id, name| {
            match &self.inodes.get(&id)?.node {
                Node::Directory(entries) => entries.get(name).copied(),
                Node::File(_) | Node::Symlink(_) | Node::Pipe => None,
            }
        })
    }

    /// A file by its id.
    pub(crate) fn get(&self, id: Id) -> Option<&Inode> {
        self.inodes.get(&id)
    }

    /// The file that a path leads to.
    pub(crate) fn inode(&self, path: &str) -> Option<&Inode> {
        self.inodes.get(&self.id(path)?)
    }

    /// The content of a regular file.
    pub(crate) fn content(&self, path: &str) -> Fits<Arc<Vec<u8>>> {
        match &self.inode(path).ok_or(Unfit)?.node {
            Node::File(content) => Ok(Arc::clone(content)),
            Node::Directory(_) | Node::Symlink(_) | Node::Pipe => Err(Unfit),
        }
    }

    fn make(&mut self, path: &str, node: Node, mode: u32) -> Fits<Effect> {
        let id = self.next;
        let (parent, name) = self.vacant(path)?;
        let attributes = BTreeMap::new();
        self.inodes.insert(id, Inode { node, mode, owner: (0, 0), mtime: None, attributes });
        self.entries(parent)?.insert(name, id);
        self.next += 1;
        Ok(Effect { changed: Some(id), names: true, synced: None })
    }

    fn write(&mut self, path: &str, offset: u64, data: &[u8]) -> Fits<Effect> {
        self.change(path, |content| {
            let (start, end) = (index(offset), index(offset) + data.len());
            content.resize(content.len().max(end), 0);
            content[start..end].copy_from_slice(data);
        })
    }

    fn resize(&mut self, path: &str, size: u64) -> Fits<Effect> {
        self.change(path, |content| content.resize(index(size), 0))
    }

    fn allocate(&mut self, path: &str, how: Allocation, offset: u64, length: u64) -> Fits<Effect> {
        let size = self.content(path)?.len();
        let (start, end) = (index(offset), index(offset + length));
        let blocks = offset.is_multiple_of(BLOCK) && length.is_multiple_of(BLOCK);
        let fits = match how {
            Allocation::Grow | Allocation::Keep | Allocation::Punch | Allocation::Zero => true,
            Allocation::Collapse => blocks && end < size,
            Allocation::Insert => blocks && start < size,
        };
        if !fits || length == 0 {
            return Err(Unfit);
        }
        self.change(path, |content| match how {
            Allocation::Keep => {}
            Allocation::Grow => content.resize(size.max(end), 0),
            Allocation::Punch => content[start.min(size)..end.min(size)].fill(0),
            Allocation::Zero => {
                content.resize(size.max(end), 0);
                content[start..end].fill(0);
            }
            Allocation::Collapse => drop(content.drain(start..end)),
            Allocation::Insert => {
                let zeros = std::iter::repeat_n(0, end - start);
                drop(content.splice(start..start, zeros));
            }
        })
    }

    fn map(&mut self, path: &str, parts: &[(u64, u64)], key: u64) -> Fits<Effect> {
        let size = self.content(path)?.len() as u64;
        if parts.iter().any(|(offset, length)| offset + length > size) {
            return Err(Unfit);
        }
        let effect = self.change(path, |content| {
            for ((offset, length), key) in parts.iter().zip(key..) {
                let (start, end) = (index(*offset), index(offset + length));
                content[start..end].copy_from_slice(&bytes(key, *length));
            }
        })?;
        Ok(Effect { synced: effect.changed.zip(Some(Scope::Data)), ..effect })
    }

    fn rename(&mut self, from: &str, to: &str, how: Renaming) -> Fits<Effect> {
        let id = self.id(from).filter(|id| *id > SHARED_ID).ok_or(Unfit)?;
        let there = self.id(to);
        // Neither may come to lie in itself.
        let inside = |outer: &str, inner: &str| inner.starts_with(&format!("{outer}/"));
        if from == to
            || inside(from, to)
            || inside(to, from)
            || there.is_some_and(|id| id <= SHARED_ID)
        {
            return Err(Unfit);
        }
        let ((parent, name), (new_parent, new_name)) = (self.parent(from)?, self.parent(to)?);
        match (how, there) {
            (Renaming::Replace | Renaming::Fresh, None) => {}
            (Renaming::Fresh, Some(_)) | (Renaming::Exchange, None) => return Err(Unfit),
            // Two names of one file: nothing happens.
            (Renaming::Replace, Some(other)) if other == id => return Ok(Effect::default()),
            (Renaming::Replace, Some(other)) => self.may_replace(id, other)?,
            (Renaming::Exchange, Some(other)) => {
                self.entries(parent)?.insert(name.clone(), other);
                self.forget_time(other);
            }
        }
        if how != Renaming::Exchange {
            self.entries(parent)?.remove(&name);
        }
        self.entries(new_parent)?.insert(new_name, id);
        // A directory that moves may have its own time changed, by its name of the one above.
        self.forget_time(id);
        self.drop_nameless(there);
        Ok(Effect { names: true, ..Effect::default() })
    }

    fn may_replace(&self, id: Id, other: Id) -> Fits<()> {
        let node = |id: Id| self.inodes.get(&id).map(|inode| &inode.node);
        match (node(id), node(other)) {
            (Some(Node::Directory(_)), Some(Node::Directory(entries))) if entries.is_empty() => {
                Ok(())
            }
            (Some(Node::Directory(_)), _) | (_, Some(Node::Directory(_)) | None) | (None, _) => {
                Err(Unfit)
            }
            (Some(_), Some(_)) => Ok(()),
        }
    }

    fn link(&mut self, from: &str, to: &str) -> Fits<Effect> {
        let id = self.id(from).ok_or(Unfit)?;
        if matches!(self.inodes.get(&id).map(|inode| &inode.node), Some(Node::Directory(_)) | None)
        {
            return Err(Unfit);
        }
        let (parent, name) = self.vacant(to)?;
        self.entries(parent)?.insert(name, id);
        Ok(Effect { names: true, ..Effect::default() })
    }

    fn remove(&mut self, path: &str, directory: bool) -> Fits<Effect> {
        let id = self.id(path).filter(|id| *id > SHARED_ID).ok_or(Unfit)?;
        let fits = match &self.inodes.get(&id).ok_or(Unfit)?.node {
            Node::Directory(entries) => directory && entries.is_empty(),
            Node::File(_) | Node::Symlink(_) | Node::Pipe => !directory,
        };
        if !fits {
            return Err(Unfit);
        }
        let (parent, name) = self.parent(path)?;
        self.entries(parent)?.remove(&name);
        self.drop_nameless(Some(id));
        Ok(Effect { names: true, ..Effect::default() })
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> Fits<Effect> {
        let id = self.id(path).ok_or(Unfit)?;
        let inode = self.inodes.get_mut(&id).ok_or(Unfit)?;
        let Node::File(content) = &mut inode.node else { return Err(Unfit) };
        change(Arc::make_mut(content));
        inode.mtime = None;
        Ok(Effect { changed: Some(id), ..Effect::default() })
    }

    fn attribute(&mut self, path: &str, change: impl FnOnce(&mut Inode)) -> Fits<Effect> {
        let id = self.id(path).filter(|id| *id != SHARED_ID).ok_or(Unfit)?;
        change(self.inodes.get_mut(&id).ok_or(Unfit)?);
        Ok(Effect { changed: Some(id), ..Effect::default() })
    }

    fn parent(&self, path: &str) -> Fits<(Id, String)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let id = self.id(parent).ok_or(Unfit)?;
        let inode = self.inodes.get(&id).ok_or(Unfit)?;
        let fits = matches!(inode.node, Node::Directory(_)) && !name.is_empty();
        if fits { Ok((id, name.to_owned())) } else { Err(Unfit) }
    }

    fn vacant(&self, path: &str) -> Fits<(Id, String)> {
        if self.id(path).is_some() { Err(Unfit) } else { self.parent(path) }
    }

    /// The names in a directory that is about to change.
    fn entries(&mut self, id: Id) -> Fits<&mut BTreeMap<String, Id>> {
        let inode = self.inodes.get_mut(&id).ok_or(Unfit)?;
        inode.mtime = None;
        match &mut inode.node {
            Node::Directory(entries) => Ok(entries),
            Node::File(_) | Node::Symlink(_) | Node::Pipe => Err(Unfit),
        }
    }

    fn forget_time(&mut self, id: Id) {
        if let Some(inode) = self.inodes.get_mut(&id)
            && matches!(inode.node, Node::Directory(_))
        {
            inode.mtime = None;
        }
    }

    fn drop_nameless(&mut self, id: Option<Id>) {
        let Some(id) = id else { return };
        if self.locations(id).is_empty() {
            self.inodes.remove(&id);
        }
    }
}

impl Inode {
    /// The same for a list of names.
    pub(crate) fn kind(&self) -> Kind {
        match &self.node {
            Node::File(content) => Kind::File(Arc::clone(content)),
            Node::Directory(_) => Kind::Directory,
            Node::Symlink(target) => Kind::Symlink(target.clone()),
            Node::Pipe => Kind::Pipe,
        }
    }
}

impl How {
    fn scope(self) -> Option<Scope> {
        match self {
            How::Sync => Some(Scope::Whole),
            How::DataSync | How::DataSyncOnce => Some(Scope::Data),
            How::Plain | How::Cached | How::Held | How::Direct => None,
        }
    }
}

/// A path one level down.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// Files here are far smaller than the address space.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
