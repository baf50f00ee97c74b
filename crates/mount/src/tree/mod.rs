//! One replicated directory: its backing tree and the ids of the files in it.
//!
//! It finds and opens files; it neither serves requests nor applies changes. The lock of names
//! keeps a lookup from storing a name that a change is just taking away.

mod descriptors;
mod excluded;
mod notes;
mod table;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use replica::Exclude;
use replica::op::FileId;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::backing::{self, DirReader, Handle, Kind, Root, Stat};
use crate::estate::{Estate, Journal};
use crate::unfit::unfit;
use crate::{mounts, process};
use table::Table;

pub(crate) use table::{Reference, Unnamed};

/// Most descriptors that are kept only to save calls.
const CACHED_MAX: usize = 4096;

/// One replicated directory.
#[derive(Debug)]
pub struct Tree {
    index: u16,
    root: Arc<Root>,
    table: Mutex<Table>,
    names: RwLock<()>,
    /// How many files have no name yet. Mostly none, so that no change need look further.
    unnamed: AtomicUsize,
    estate: Arc<Estate>,
    /// The journal of open files, until somebody serves.
    files: Mutex<Option<Journal>>,
    exclude: Exclude,
}

/// Why a directory cannot be replicated.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// It is missing or no directory.
    #[error("{path} cannot be opened as a directory: {errno}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Error of the system call.
        errno: Errno,
    },
    /// Another file system is mounted below it.
    #[error(
        "{below} is a mount point below {path}: unmount it, or replicate it as an entry of its own"
    )]
    Nested {
        /// The directory.
        path: PathBuf,
        /// The mount point below.
        below: PathBuf,
    },
    /// Its file system cannot be worked with.
    #[error("{0}")]
    Unfit(String),
}

impl Tree {
    /// Opens the directory with this index in the module's configuration, before anything is
    /// mounted over it.
    pub fn open(index: u16, path: &Path) -> Result<Tree, TreeError> {
        let failed = |errno| TreeError::Open { path: path.to_owned(), errno };
        if let Some(below) = mounts::below(path).map_err(failed)?.into_iter().next() {
            return Err(TreeError::Nested { path: path.to_owned(), below });
        }
        let root = Root::open(path).map_err(failed)?;
        if let Some(why) = unfit(path, &root) {
            return Err(TreeError::Unfit(why));
        }
        Tree::of(index, Arc::new(root)).map_err(failed)
    }

    /// The tree of a root that was opened before, for a server without successors.
    pub fn of(index: u16, root: Arc<Root>) -> Result<Tree, Errno> {
        Tree::with_estate(index, root, Estate::private()?, Vec::new())
    }

    /// The tree of a root that was opened before, with what a predecessor left: the estate, and
    /// the descriptors that were held for it by node id.
    pub fn with_estate(
        index: u16,
        root: Arc<Root>,
        estate: Arc<Estate>,
        held: Vec<(u64, OwnedFd)>,
    ) -> Result<Tree, Errno> {
        let handle = backing::handle_of(&*root, b"")?;
        let directory = root.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
        let cached_max = CACHED_MAX.min(process::descriptors_max() / 4);
        let holder = Arc::clone(estate.holder());
        let mut table = Table::new(index, handle, directory, cached_max, holder);
        let (files, nodes) = estate.take_journals().ok_or(Errno::BUSY)?;
        table.keep_journal(nodes, held)?;
        let unnamed = AtomicUsize::new(table.unnamed().len());
        let (table, files) = (Mutex::new(table), Mutex::new(Some(files)));
        let (names, exclude) = (RwLock::new(()), Exclude::default());
        Ok(Tree { index, root, table, names, unnamed, estate, files, exclude })
    }

    /// The tree with what is not replicated of it.
    #[must_use]
    pub fn without(self, exclude: Exclude) -> Tree {
        Tree { exclude, ..self }
    }

    pub(crate) fn estate(&self) -> &Arc<Estate> {
        &self.estate
    }

    pub(crate) fn take_files(&self) -> Option<Journal> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Its root in the backing file system.
    #[must_use]
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// The id of a node of this tree.
    #[must_use]
    pub fn id(&self, node: u64) -> FileId {
        FileId { tree: self.index, node }
    }

    /// Finds a name and pins the id of what it names until `unpin`. `EXDEV` tells that another
    /// file system is mounted there.
    pub fn lookup(&self, parent: FileId, name: &[u8]) -> Result<(FileId, Stat), Errno> {
        let (node, stat) = self.find(self.node(parent)?, name, Reference::Pin)?;
        Ok((self.id(node), stat))
    }

    /// Pins the id of a known file; `ESTALE` when it is not known.
    pub fn pin(&self, file: FileId) -> Result<(), Errno> {
        let node = self.node(file)?;
        let mut table = self.table();
        table.get(node).ok_or(Errno::STALE)?;
        table.refer(node, Reference::Pin);
        Ok(())
    }

    /// Gives back one pin.
    pub fn unpin(&self, file: FileId) {
        if file.tree == self.index && file.node != fuse::ROOT {
            self.table().release(file.node, Reference::Pin, 1);
        }
    }

    /// A currently valid name: the directory and the name in it. None for the root, for what has
    /// no name left, and when only names are left that nobody looked up.
    #[must_use]
    pub fn name_of(&self, file: FileId) -> Option<(FileId, Vec<u8>)> {
        let (parent, name) = self.table().name_of(self.node(file).ok()?)?;
        Some((self.id(parent), name))
    }

    /// All known names, the newest last. There may be more that nobody looked up.
    #[must_use]
    pub fn names_of(&self, file: FileId) -> Vec<(FileId, Vec<u8>)> {
        let Ok(node) = self.node(file) else { return Vec::new() };
        let names = self.table().names_of(node);
        names.into_iter().map(|(parent, name)| (self.id(parent), name)).collect()
    }

    /// The id of what stands under a name, if it is known. Takes no lock that a change holds, so
    /// a recorder may ask.
    #[must_use]
    pub fn known_child(&self, parent: FileId, name: &[u8]) -> Option<FileId> {
        let directory = self.descriptor(self.node(parent).ok()?).ok()?;
        let handle = backing::handle_of(&*directory, name).ok()?;
        let node = self.table().node_of(&handle)?;
        Some(self.id(node))
    }

    /// Opens a regular file or directory, or anything with `O_PATH`.
    pub fn open_id(&self, file: FileId, flags: OFlags) -> Result<OwnedFd, Errno> {
        let node = self.node(file)?;
        self.open_node(node, flags)
    }

    /// Attributes.
    pub fn stat(&self, file: FileId) -> Result<Stat, Errno> {
        backing::stat(&*self.descriptor(self.node(file)?)?)
    }

    /// Lists a directory.
    pub fn read_dir(&self, directory: FileId) -> Result<DirReader, Errno> {
        backing::read_dir(&*self.descriptor(self.node(directory)?)?)
    }

    /// An `O_PATH` descriptor.
    pub fn path_descriptor(&self, file: FileId) -> Result<Arc<OwnedFd>, Errno> {
        self.descriptor(self.node(file)?)
    }

    /// The handle of a known file.
    #[must_use]
    pub fn handle(&self, file: FileId) -> Option<Handle> {
        self.table().get(self.node(file).ok()?).map(|inode| inode.handle.clone())
    }

    /// Whether an id is in use; one that is not will never be used again.
    #[must_use]
    pub fn is_known(&self, file: FileId) -> bool {
        self.node(file).is_ok_and(|node| self.table().get(node).is_some())
    }

    /// Number of files whose ids are known.
    #[must_use]
    pub fn known(&self) -> usize {
        self.table().len()
    }

    pub(crate) fn find(
        &self,
        parent: u64,
        name: &[u8],
        reference: Reference,
    ) -> Result<(u64, Stat), Errno> {
        let _names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let directory = self.descriptor(parent)?;
        let file = backing::open_name(&*directory, name)?;
        self.introduce(file, parent, name, reference)
    }

    /// Gives a file found or made under a name its id. The lock of names must be held.
    pub(crate) fn introduce(
        &self,
        file: OwnedFd,
        parent: u64,
        name: &[u8],
        reference: Reference,
    ) -> Result<(u64, Stat), Errno> {
        let stat = backing::stat(&file)?;
        if stat.dev != self.root.stat().dev {
            return Err(Errno::XDEV);
        }
        let handle = backing::handle_of(&file, b"")?;
        let mut table = self.table();
        let node = table.know(handle, stat.kind(), Some(file));
        table.refer(node, reference);
        table.add_name(node, parent, name);
        Ok((node, stat))
    }

    /// Gives a file that was made without a name its id.
    pub(crate) fn introduce_unnamed(&self, file: OwnedFd) -> Result<(u64, Stat), Errno> {
        let stat = backing::stat(&file)?;
        let handle = backing::handle_of(&file, b"")?;
        let kept = file.try_clone().map_err(|_| Errno::MFILE)?;
        let mut table = self.table();
        let node = table.know(handle, stat.kind(), Some(file));
        self.estate.holder().hold(self.index, node, kept.as_fd());
        table.refer(node, Reference::Kernel);
        table.hold(node, kept);
        table.set_unnamed(node, Some(Unnamed::Changed));
        self.unnamed.store(table.unnamed().len(), Ordering::Release);
        Ok((node, stat))
    }

    /// Whether a file has had no name so far.
    pub(crate) fn is_unnamed(&self, node: u64) -> bool {
        self.unnamed.load(Ordering::Acquire) > 0 && self.table().unnamed().contains_key(&node)
    }

    /// Notes that a file which the peer does not know is made durable; `false` for any other.
    pub(crate) fn note_sync(&self, node: u64) -> bool {
        if self.is_excluded(self.id(node)) {
            return true;
        }
        if !self.is_unnamed(node) {
            return false;
        }
        let mut table = self.table();
        let known = table.unnamed().contains_key(&node);
        if known {
            table.set_unnamed(node, Some(Unnamed::Synced));
        }
        known
    }

    /// What a file is that has had no name so far.
    pub(crate) fn unnamed(&self, node: u64) -> Option<Unnamed> {
        if !self.is_unnamed(node) {
            return None;
        }
        self.table().unnamed().get(&node).copied()
    }

    /// A file has got its first name.
    pub(crate) fn named(&self, node: u64) {
        let mut table = self.table();
        table.set_unnamed(node, None);
        table.let_go(node);
        self.unnamed.store(table.unnamed().len(), Ordering::Release);
    }

    /// Keeps lookups away while names change.
    pub(crate) fn names(&self) -> RwLockWriteGuard<'_, ()> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name_added(&self, node: u64, parent: u64, name: &[u8]) {
        self.table().add_name(node, parent, name);
    }

    /// A name of `file` is about to go. If that may be the last one and somebody may still use the
    /// file, its descriptor is put into safety.
    pub(crate) fn name_goes(&self, file: &OwnedFd, handle: &Handle) {
        let last =
            backing::stat(file).is_ok_and(|stat| stat.nlink < 2 || stat.kind() == Kind::Directory);
        let node = if last { self.table().node_of(handle) } else { None };
        if let Some(node) = node {
            self.estate.holder().hold(self.index, node, file.as_fd());
        }
    }

    /// It did not go.
    pub(crate) fn name_stays(&self, handle: &Handle) {
        let mut table = self.table();
        if let Some(node) = table.node_of(handle) {
            table.not_held(node);
        }
    }

    /// A name of the file with this handle is gone. If that was the last one, its descriptor is
    /// kept.
    pub(crate) fn name_removed(
        &self,
        handle: &Handle,
        file: Option<OwnedFd>,
        parent: u64,
        name: &[u8],
    ) {
        let last = |file: &OwnedFd| {
            backing::stat(file).is_ok_and(|stat| stat.nlink == 0 || stat.kind() == Kind::Directory)
        };
        let file = file.filter(last);
        let mut table = self.table();
        if let Some(node) = table.node_of(handle) {
            table.remove_name(node, parent, name);
            if let Some(file) = file {
                table.hold(node, file);
            }
        }
    }

    /// The file with this handle has moved from one name to another.
    pub(crate) fn name_moved(&self, handle: &Handle, from: (u64, &[u8]), to: (u64, &[u8])) {
        let mut table = self.table();
        if let Some(node) = table.node_of(handle) {
            // The new name first, so that its directory is not dropped in between.
            table.add_name(node, to.0, to.1);
            table.remove_name(node, from.0, from.1);
        }
    }

    pub(crate) fn refer(&self, node: u64) {
        self.table().refer(node, Reference::Kernel);
    }

    pub(crate) fn forget(&self, node: u64, count: u64) {
        if node != fuse::ROOT {
            let mut table = self.table();
            table.release(node, Reference::Kernel, count);
            if self.unnamed.load(Ordering::Acquire) > 0 {
                self.unnamed.store(table.unnamed().len(), Ordering::Release);
            }
        }
    }

    /// Carries out the kernel's request to forget these nodes, so many references each.
    pub(crate) fn forget_all(&self, unique: u64, pairs: &[(u64, u64)]) {
        let mut table = self.table();
        table.forget_all(unique, pairs);
        if self.unnamed.load(Ordering::Acquire) > 0 {
            self.unnamed.store(table.unnamed().len(), Ordering::Release);
        }
    }

    pub(crate) fn open_node(&self, node: u64, flags: OFlags) -> Result<OwnedFd, Errno> {
        let kind = self.table().get(node).ok_or(Errno::STALE)?.kind;
        // Opening a device or a pipe would have effects, or wait for ever.
        if !matches!(kind, Kind::File | Kind::Directory) && !flags.contains(OFlags::PATH) {
            return Err(Errno::NXIO);
        }
        backing::reopen(&*self.descriptor(node)?, flags)
    }

    pub(crate) fn descriptor(&self, node: u64) -> Result<Arc<OwnedFd>, Errno> {
        let handle = {
            let mut table = self.table();
            if let Some(file) = table.descriptor(node) {
                return Ok(file);
            }
            table.get(node).ok_or(Errno::STALE)?.handle.clone()
        };
        let file = Arc::new(self.root.open_handle(&handle, OFlags::PATH)?);
        self.table().cache(node, &file);
        Ok(file)
    }

    fn node(&self, file: FileId) -> Result<u64, Errno> {
        if file.tree == self.index { Ok(file.node) } else { Err(Errno::STALE) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
