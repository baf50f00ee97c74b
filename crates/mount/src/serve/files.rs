//! Open files and directories by the handles that the kernel was given.
//!
//! A handle number is never used twice. What is open stays so while a request is using it. What a
//! successor needs to open the same once more is noted in a journal.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};

use fuse::{Errno, abi};
use rustix::fs::OFlags;

use super::directories::Listed;
use crate::estate::{Estate, Journal};
use crate::tree::Tree;

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) node: u64,
    pub(super) file: OwnedFd,
    /// How it was opened.
    access: OFlags,
    /// Whether what is written to it comes here as it is, past the page cache.
    pub(super) direct: bool,
}

/// An open directory.
pub(super) struct OpenDirectory {
    pub(super) node: u64,
    pub(super) listed: Mutex<Listed>,
}

pub(super) struct Files {
    estate: Arc<Estate>,
    open: RwLock<Open>,
}

struct Open {
    files: HashMap<u64, Arc<OpenFile>>,
    directories: HashMap<u64, Arc<OpenDirectory>>,
    journal: Journal,
}

const FILE: u8 = 1;
const DIRECTORY: u8 = 2;
const CLOSED: u8 = 3;

impl Files {
    /// What a predecessor had open, or nothing.
    pub(super) fn new(tree: &Tree) -> Result<Files, Errno> {
        let journal = tree.take_files().ok_or(Errno::BUSY)?;
        let mut open = Open { files: HashMap::new(), directories: HashMap::new(), journal };
        for (handle, [kind, node, access, direct]) in left_open(&open.journal)? {
            let access = OFlags::from_bits_retain(access as u32);
            let opened = match u64::from(DIRECTORY) == kind {
                true => open.directory_again(tree, handle, node),
                false => open.file_again(tree, handle, node, access, direct != 0),
            };
            match opened {
                // The kernel keeps what it has open. A predecessor died before it was told of
                // this one, which was opened once more then.
                Err(Errno::STALE) => {}
                opened => opened?,
            }
        }
        open.renew();
        Ok(Files { estate: Arc::clone(tree.estate()), open: RwLock::new(open) })
    }

    pub(super) fn add_file(
        &self,
        node: u64,
        file: OwnedFd,
        access: OFlags,
        cache_mode: u32,
    ) -> u64 {
        let handle = self.estate.next_handle();
        let direct = cache_mode & abi::FOPEN_DIRECT_IO != 0;
        let file = Arc::new(OpenFile { node, file, access, direct });
        let mut open = self.write();
        open.note(|out| put_file(out, handle, &file));
        open.files.insert(handle, file);
        handle
    }

    pub(super) fn file(&self, handle: u64) -> Result<Arc<OpenFile>, Errno> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.files.get(&handle).map(Arc::clone).ok_or(Errno::BADF)
    }

    pub(super) fn close_file(&self, handle: u64) {
        let closed = {
            let mut open = self.write();
            open.note(|out| put(out, CLOSED, &[handle]));
            open.files.remove(&handle)
        };
        // Closed outside the lock: the last close of a removed file may take long.
        drop(closed);
    }

    pub(super) fn add_directory(&self, node: u64, listed: Listed) -> u64 {
        let handle = self.estate.next_handle();
        let directory = Arc::new(OpenDirectory { node, listed: Mutex::new(listed) });
        let mut open = self.write();
        open.note(|out| put(out, DIRECTORY, &[handle, node]));
        open.directories.insert(handle, directory);
        handle
    }

    pub(super) fn directory(&self, handle: u64) -> Result<Arc<OpenDirectory>, Errno> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.directories.get(&handle).map(Arc::clone).ok_or(Errno::BADF)
    }

    pub(super) fn close_directory(&self, handle: u64) {
        let mut open = self.write();
        open.note(|out| put(out, CLOSED, &[handle]));
        open.directories.remove(&handle);
    }

    fn write(&self) -> RwLockWriteGuard<'_, Open> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn directory_again(&mut self, tree: &Tree, handle: u64, node: u64) -> Result<(), Errno> {
        let listed = Mutex::new(Listed::begin(&*tree.descriptor(node)?)?);
        self.directories.insert(handle, Arc::new(OpenDirectory { node, listed }));
        Ok(())
    }

    fn file_again(
        &mut self,
        tree: &Tree,
        handle: u64,
        node: u64,
        access: OFlags,
        direct: bool,
    ) -> Result<(), Errno> {
        let file = tree.open_node(node, access)?;
        self.files.insert(handle, Arc::new(OpenFile { node, file, access, direct }));
        Ok(())
    }

    fn note(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        if self.journal.is_wasteful() {
            self.renew();
        }
        self.journal.note(fill);
    }

    /// Writes what is open anew in place of its history.
    fn renew(&mut self) {
        let mut renewal = self.journal.renew();
        for (handle, file) in &self.files {
            renewal.note(|out| put_file(out, *handle, file));
        }
        for (handle, directory) in &self.directories {
            renewal.note(|out| put(out, DIRECTORY, &[*handle, directory.node]));
        }
        renewal.finish();
    }
}

fn put_file(out: &mut Vec<u8>, handle: u64, file: &OpenFile) {
    let access = u64::from(file.access.bits());
    put(out, FILE, &[handle, file.node, access, u64::from(file.direct)]);
}

fn put(out: &mut Vec<u8>, kind: u8, numbers: &[u64]) {
    out.push(kind);
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

/// By handle: the kind of what is open, its node, how a file was opened, whether directly.
fn left_open(journal: &Journal) -> Result<BTreeMap<u64, [u64; 4]>, Errno> {
    let mut open = BTreeMap::new();
    for note in journal.notes()? {
        let (kind, rest) = note.split_first().ok_or(Errno::PROTO)?;
        let (numbers, _) = rest.as_chunks::<8>();
        let numbers: Vec<u64> = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        match (*kind, &*numbers) {
            (FILE, [handle, node, access, direct]) => {
                open.insert(*handle, [u64::from(FILE), *node, *access, *direct]);
            }
            (DIRECTORY, [handle, node]) => {
                open.insert(*handle, [u64::from(DIRECTORY), *node, 0, 0]);
            }
            (CLOSED, [handle]) => drop(open.remove(handle)),
            _ => return Err(Errno::PROTO),
        }
    }
    Ok(open)
}
