//! The target's copy: applies operations to the backing tree by the ids of the source.
//!
//! Strict by default: any difference from what the source saw is an error, which ends the
//! session. What a resync tolerates is in `tolerant`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mount::backing::{self, Handle, Kind, Root};
use replica::Exclude;
use replica::op::{Attr, FileId, Op, Stamp};
use rustix::fs::OFlags;
use rustix::io::Errno;
use wire::replication::{Backward, Forward, put_backward};

use crate::replicator::compare;
use crate::replicator::log::ActivityLog;
use crate::replicator::quarantine::Quarantine;

/// Descriptors of files being written that are kept open.
const OPEN_MAX: usize = 256;
/// Descriptors of directories that are kept open.
const PLACES_MAX: usize = 64;

/// Why something was not applied.
#[derive(Debug)]
pub(super) struct NotApplied {
    pub(super) errno: Errno,
    pub(super) what: String,
}

/// What follows from applying something, beyond that it is applied.
#[derive(Debug)]
pub(super) enum After {
    Nothing,
    /// Make this durable and say so under the number.
    Sync {
        number: u64,
        file: Arc<OwnedFd>,
        data_only: bool,
    },
    /// Make everything durable and say so under the number.
    Barrier {
        number: u64,
        base: Option<(u128, u128)>,
    },
    /// The object is not held here any more.
    Absent(FileId),
    /// The answer to a question, as an encoded frame.
    Answer(Vec<u8>),
}

/// The target's copy.
pub(super) struct Store {
    pub(super) roots: Vec<Arc<Root>>,
    pub(super) bound: BTreeMap<FileId, Handle>,
    /// What was found under its former name.
    pub(super) recognized: BTreeSet<FileId>,
    pub(super) ids: BTreeMap<(u16, Handle), FileId>,
    open: Kept,
    /// `O_PATH` descriptors of directories in which names changed.
    places: Kept,
    clock: u64,
    pub(super) strict: bool,
    /// Whether the source has said what kind of session this is.
    begun: bool,
    number: u64,
    pub(super) log: Arc<ActivityLog>,
    /// What is not replicated of each directory.
    pub(super) excluded: Vec<Exclude>,
    /// Where things go before a resync overwrites them, if this copy was given up.
    pub(super) quarantine: Option<Quarantine>,
}

impl Store {
    pub(super) fn new(roots: Vec<Arc<Root>>, number: u64, log: Arc<ActivityLog>) -> Store {
        Store {
            roots,
            bound: BTreeMap::new(),
            recognized: BTreeSet::new(),
            ids: BTreeMap::new(),
            open: BTreeMap::new(),
            places: BTreeMap::new(),
            clock: 0,
            strict: false,
            begun: false,
            number,
            log,
            excluded: Vec::new(),
            quarantine: None,
        }
    }

    /// The copy with what is not replicated of each directory.
    pub(super) fn without(self, excluded: Vec<Exclude>) -> Store {
        Store { excluded, ..self }
    }

    /// The copy of which nothing is overwritten before it is in quarantine.
    pub(super) fn sparing(self, quarantine: Option<Quarantine>) -> Store {
        Store { quarantine, ..self }
    }

    /// Number of the last operation that was applied.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Applies a message of the source.
    pub(super) fn apply(&mut self, message: &Forward<'_>) -> Result<After, NotApplied> {
        let result = match message {
            Forward::Op { number, op } => {
                if *number <= self.number && self.strict {
                    let what = format!("operation {number} came after {}", self.number);
                    return Err(NotApplied { errno: Errno::INVAL, what });
                }
                self.number = *number;
                self.operate(*number, op)
            }
            Forward::Bind { file, parent, name } => match self.bind_name(*file, *parent, name) {
                Err(Errno::STALE | Errno::NOENT | Errno::NOTDIR) if !self.strict => {
                    Ok(self.absent(*file))
                }
                bound => bound.map(|()| After::Nothing),
            },
            Forward::Formerly { file, directory, parent, name } => {
                self.formerly(*file, *directory, (*parent, name))
            }
            Forward::Ensure(ensure) => self.ensure(ensure),
            Forward::Attributes(wanted) => self.attributes(wanted),
            Forward::Forget(file) => {
                self.unbind(*file);
                Ok(After::Nothing)
            }
            Forward::Discard { parent, name } => self.discard(*parent, name),
            Forward::List { tag, directory } => self.list(*tag, *directory),
            Forward::Compare { tag, file, offset, hashes } => {
                self.compare(*tag, *file, *offset, hashes)
            }
            Forward::Block { file, offset, data } => self.block(*file, *offset, data),
            Forward::Summarize { tag, directory, name } => self.summarize(*tag, *directory, name),
            Forward::Finish { file, mtime } => self.finish(*file, *mtime),
            Forward::Barrier { number, base } => {
                // Operations that do not travel are counted at the source alone.
                self.number = self.number.max(*number);
                Ok(After::Barrier { number: *number, base: *base })
            }
            Forward::Recall => self.recall(),
            Forward::Strict(strict) => {
                self.places.clear();
                if !self.begun && !strict {
                    // What is compared counts afresh: the old count may be of another time.
                    self.number = 0;
                }
                self.begun = true;
                self.strict = *strict;
                Ok(After::Nothing)
            }
            Forward::Check { tag } => {
                let mut frame = Vec::new();
                put_backward(&mut frame, &Backward::Checked { tag: *tag });
                Ok(After::Answer(frame))
            }
            // The link's own business.
            Forward::Received(_) | Forward::Ping(_) | Forward::Owners(_) => Ok(After::Nothing),
        };
        result.map_err(|errno| NotApplied { errno, what: self.failed_at(message) })
    }

    fn operate(&mut self, number: u64, op: &Op<'_>) -> Result<After, Errno> {
        let result = self.exactly(number, op);
        match result {
            Err(errno) if !self.strict => self.tolerate(op, errno),
            other => other,
        }
    }

    fn exactly(&mut self, number: u64, op: &Op<'_>) -> Result<After, Errno> {
        match *op {
            Op::Write { file, offset, data, mtime } => {
                self.spare(file)?;
                let target = self.data(file)?;
                write_at(&*target, data, offset)?;
                set_mtime(&*target, mtime)?;
            }
            Op::SetAttr { file, attr } => self.set_attr(file, &attr)?,
            Op::Create { .. } => self.create(op)?,
            Op::Link { file, parent, name, parent_mtime } => {
                let (object, directory) = (self.object(file)?, self.directory(parent)?);
                backing::link(object, &*directory, name)?;
                set_mtime(&*directory, parent_mtime)?;
            }
            Op::Remove { parent, name, directory, parent_mtime } => {
                let place = self.directory(parent)?;
                self.spare_name(parent.tree, &*place, name)?;
                self.forget_if_last(parent.tree, &place, name);
                if directory {
                    self.remove_excluded(parent.tree, &place, name)?;
                }
                backing::remove(&*place, name, directory)?;
                set_mtime(&*place, parent_mtime)?;
            }
            Op::Rename { parent, name, new_parent, new_name, flags, .. } => {
                let (from, to) = (self.directory(parent)?, self.directory(new_parent)?);
                if flags == 0 {
                    self.spare_name(new_parent.tree, &*to, new_name)?;
                    self.forget_if_last(new_parent.tree, &to, new_name);
                    self.remove_excluded(new_parent.tree, &to, new_name)?;
                }
                backing::rename(&*from, name, &*to, new_name, flags)?;
                self.rename_mtimes(op)?;
            }
            Op::SetXattr { file, name, value } => {
                compare::check_attribute(name)?;
                backing::set_xattr(self.object(file)?, name, value, 0)?;
            }
            Op::RemoveXattr { file, name } => {
                compare::check_attribute(name)?;
                backing::remove_xattr(self.object(file)?, name)?;
            }
            Op::Allocate { file, mode, offset, length, mtime } => {
                self.spare(file)?;
                let target = self.data(file)?;
                backing::allocate(&*target, mode, offset, length)?;
                set_mtime(&*target, mtime)?;
            }
            Op::Sync { file, data_only } => {
                let file = self.to_sync(file)?;
                return Ok(After::Sync { number, file, data_only });
            }
        }
        Ok(After::Nothing)
    }

    fn set_attr(&mut self, file: FileId, attr: &Attr) -> Result<(), Errno> {
        if attr.size.is_some() {
            self.spare(file)?;
        }
        match self.open.get(&file) {
            Some((_, open)) if self.strict => backing::set_attr(&**open, attr),
            Some(_) | None => backing::set_attr(self.object(file)?, attr),
        }
    }

    pub(super) fn create(&mut self, op: &Op<'_>) -> Result<(), Errno> {
        let Op::Create { parent, name, file, mode, uid, gid, rdev, target, mtime, parent_mtime } =
            *op
        else {
            return Ok(());
        };
        let directory = self.directory(parent)?;
        let object = backing::create(&*directory, name, mode, uid, gid, rdev, target)?;
        set_mtime(&object, mtime)?;
        set_mtime(&*directory, parent_mtime)?;
        self.came_with_source(parent.tree, &object);
        self.bind(file, &object)
    }

    pub(super) fn rename_mtimes(&mut self, op: &Op<'_>) -> Result<(), Errno> {
        let Op::Rename { parent, new_parent, parent_mtime, new_parent_mtime, .. } = *op else {
            return Ok(());
        };
        set_mtime(&*self.directory(parent)?, parent_mtime)?;
        set_mtime(&*self.directory(new_parent)?, new_parent_mtime)
    }

    fn bind_name(&mut self, file: FileId, parent: FileId, name: &[u8]) -> Result<(), Errno> {
        let object = backing::open_name(self.object(parent)?, name)?;
        self.bind(file, &object)
    }

    /// Gives an object the source's id.
    pub(super) fn bind(&mut self, file: FileId, object: impl AsFd) -> Result<(), Errno> {
        if usize::from(file.tree) >= self.roots.len() || file.node <= FileId::root(0).node {
            return Err(Errno::INVAL);
        }
        let handle = backing::handle_of(object, b"")?;
        self.unbind(file);
        if let Some(other) = self.ids.insert((file.tree, handle.clone()), file)
            && other != file
        {
            self.bound.remove(&other);
            self.close(other);
        }
        self.bound.insert(file, handle);
        Ok(())
    }

    pub(super) fn unbind(&mut self, file: FileId) {
        self.close(file);
        if let Some(handle) = self.bound.remove(&file) {
            self.ids.remove(&(file.tree, handle));
        }
    }

    /// Which object of the source stands here.
    pub(super) fn id_of(&self, tree: u16, object: impl AsFd) -> Result<Option<FileId>, Errno> {
        let handle = backing::handle_of(object, b"")?;
        Ok(self.ids.get(&(tree, handle)).copied())
    }

    /// An `O_PATH` descriptor of an object; `ESTALE` when it is not held.
    pub(super) fn object(&self, file: FileId) -> Result<OwnedFd, Errno> {
        let root = self.roots.get(usize::from(file.tree)).ok_or(Errno::STALE)?;
        if file.node == 1 {
            return root.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE);
        }
        let handle = self.bound.get(&file).ok_or(Errno::STALE)?;
        root.open_handle(handle, OFlags::PATH | OFlags::CLOEXEC)
    }

    /// A descriptor of a regular file for reading and writing, kept for the next time.
    pub(super) fn data(&mut self, file: FileId) -> Result<Arc<OwnedFd>, Errno> {
        self.clock += 1;
        if let Some(open) = kept(&mut self.open, file, self.clock) {
            // While names are not yet right, one that was removed with a wrong name must show.
            if self.strict || backing::stat(&*open)?.nlink > 0 {
                return Ok(open);
            }
            self.close(file);
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let open = Arc::new(reopen(&self.object(file)?, flags)?);
        keep(&mut self.open, OPEN_MAX, file, self.clock, &open);
        Ok(open)
    }

    /// An `O_PATH` descriptor of a directory in which a name changes, kept for the next time.
    fn directory(&mut self, directory: FileId) -> Result<Arc<OwnedFd>, Errno> {
        if !self.strict {
            // That it is gone must show, which an old descriptor hides.
            return Ok(Arc::new(self.object(directory)?));
        }
        self.clock += 1;
        if let Some(place) = kept(&mut self.places, directory, self.clock) {
            return Ok(place);
        }
        let place = Arc::new(self.object(directory)?);
        keep(&mut self.places, PLACES_MAX, directory, self.clock, &place);
        Ok(place)
    }

    /// A descriptor for syncing: the one that was written to, so that it tells of every failure.
    fn to_sync(&self, file: FileId) -> Result<Arc<OwnedFd>, Errno> {
        match self.open.get(&file) {
            Some((_, open)) => Ok(Arc::clone(open)),
            None => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                Ok(Arc::new(reopen(&self.object(file)?, flags)?))
            }
        }
    }

    /// Keeps no descriptor any longer.
    fn close(&mut self, file: FileId) {
        self.open.remove(&file);
        self.places.remove(&file);
    }

    /// Forgets the object under a name that is about to be removed, when it is its last.
    ///
    /// Not while a resync goes on: then another object than the source's may stand there, and
    /// that it was held must be remembered, so that the source is told when it turns out to be
    /// gone.
    fn forget_if_last(&mut self, tree: u16, directory: &OwnedFd, name: &[u8]) {
        if !self.strict {
            return;
        }
        let Ok(object) = backing::open_name(directory, name) else { return };
        let last = backing::stat(&object)
            .is_ok_and(|stat| stat.nlink <= 1 || stat.kind() == backing::Kind::Directory);
        if last && let Ok(Some(file)) = self.id_of(tree, &object) {
            self.unbind(file);
        }
    }
}

type Kept = BTreeMap<FileId, (u64, Arc<OwnedFd>)>;

/// A descriptor that was kept, used now.
fn kept(all: &mut Kept, file: FileId, now: u64) -> Option<Arc<OwnedFd>> {
    let (used, open) = all.get_mut(&file)?;
    *used = now;
    Some(Arc::clone(open))
}

/// Keeps a descriptor, if need be in place of the one that was used longest ago.
fn keep(all: &mut Kept, most: usize, file: FileId, now: u64, open: &Arc<OwnedFd>) {
    if all.len() >= most {
        let oldest = all.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| *id);
        oldest.and_then(|id| all.remove(&id));
    }
    all.insert(file, (now, Arc::clone(open)));
}

/// Opens a file's content or a directory. Nothing else: opening a pipe or a device has effects,
/// and a device is not part of the copy.
fn reopen(object: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    match backing::stat(object)?.kind() {
        Kind::File | Kind::Directory => backing::reopen(object, flags),
        Kind::Symlink | Kind::Pipe | Kind::Socket | Kind::Character | Kind::Block | Kind::Other => {
            Err(Errno::INVAL)
        }
    }
}

/// Writes everything.
pub(super) fn write_at(file: impl AsFd, data: &[u8], offset: u64) -> Result<(), Errno> {
    let mut written = 0;
    while written < data.len() {
        let (rest, position) = (&data[written..], offset + written as u64);
        match rustix::io::retry_on_intr(|| rustix::io::pwrite(&file, rest, position))? {
            0 => return Err(Errno::IO),
            count => written += count,
        }
    }
    Ok(())
}

/// Sets the modification time alone.
pub(super) fn set_mtime(file: impl AsFd, mtime: Stamp) -> Result<(), Errno> {
    backing::set_attr(file, &Attr { mtime: Some(mtime), ..Attr::default() })
}

pub(super) fn describe(message: &Forward<'_>) -> String {
    let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    match message {
        Forward::Op { number, op } => {
            format!("operation {number} ({}) could not be applied", kind(op))
        }
        Forward::Ensure(ensure) => {
            format!("`{}` could not be made as at the source", name(ensure.name))
        }
        Forward::Formerly { name: under, .. } => {
            format!("`{}` could not be looked at", name(under))
        }
        Forward::Attributes(_) => "attributes could not be set".to_owned(),
        Forward::Bind { name: under, .. } => format!("`{}` was not found", name(under)),
        Forward::Discard { name: under, .. } => format!("`{}` could not be removed", name(under)),
        Forward::List { .. } => "a directory could not be listed".to_owned(),
        Forward::Compare { .. } => "a file could not be compared".to_owned(),
        Forward::Summarize { .. } => "a directory could not be summarized".to_owned(),
        Forward::Block { .. } => "a block could not be written".to_owned(),
        Forward::Finish { .. } => "a modification time could not be set".to_owned(),
        Forward::Barrier { .. }
        | Forward::Strict(_)
        | Forward::Check { .. }
        | Forward::Forget(_)
        | Forward::Received(_)
        | Forward::Ping(_) => "a mark in the stream was not understood".to_owned(),
        Forward::Recall => "the activity log could not be told".to_owned(),
        Forward::Owners(_) => "the owners could not be compared".to_owned(),
    }
}

fn kind(op: &Op<'_>) -> String {
    let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    match op {
        Op::Write { offset, data, .. } => format!("write of {} bytes at {offset}", data.len()),
        Op::SetAttr { .. } => "change of attributes".to_owned(),
        Op::Create { name: new, .. } => format!("creation of `{}`", name(new)),
        Op::Link { name: new, .. } => format!("link `{}`", name(new)),
        Op::Remove { name: old, .. } => format!("removal of `{}`", name(old)),
        Op::Rename { name: old, new_name, .. } => {
            format!("renaming `{}` to `{}`", name(old), name(new_name))
        }
        Op::SetXattr { name: attribute, .. } | Op::RemoveXattr { name: attribute, .. } => {
            format!("change of attribute {}", name(attribute))
        }
        Op::Allocate { .. } => "allocation".to_owned(),
        Op::Sync { .. } => "sync".to_owned(),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
