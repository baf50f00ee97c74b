//! Listing of directories, plain or with attributes.
//!
//! Offsets are those of the backing file system, so a listing can go on anywhere, also after
//! entries were added or removed.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::PoisonError;

use fuse::reply::{Attr, Listing};
use fuse::{Errno, Operation, reply};

use super::Server;
use super::attributes::attr_of;
use super::call::Call;
use super::sync::Synced;
use crate::backing::{self, DirEntry, DirReader, Kind};
use crate::tree::Reference;

/// An open directory and how far it was listed.
#[derive(Debug)]
pub(super) struct Listed {
    reader: DirReader,
    /// Entries read and not yet listed.
    ahead: VecDeque<DirEntry>,
    /// Offset of the first of them.
    offset: u64,
}

impl Listed {
    /// At the beginning; a reader that goes on elsewhere is taken there.
    pub(super) fn begin(directory: impl AsFd) -> Result<Listed, Errno> {
        let reader = backing::read_dir(directory)?;
        Ok(Listed { reader, ahead: VecDeque::new(), offset: 0 })
    }

    pub(super) fn descriptor(&self) -> impl AsFd + '_ {
        self.reader.as_fd()
    }

    /// The entry at an offset, without taking it; `None` at the end.
    fn peek(&mut self, offset: u64) -> Result<Option<&DirEntry>, Errno> {
        if offset != self.offset {
            self.ahead.clear();
            self.reader.seek(offset)?;
            self.offset = offset;
        }
        if self.ahead.is_empty() {
            self.ahead.extend(self.reader.next_chunk()?);
        }
        Ok(self.ahead.front())
    }

    fn take(&mut self) {
        if let Some(entry) = self.ahead.pop_front() {
            self.offset = entry.next;
        }
    }
}

impl Server {
    pub(super) fn open_directory(&self, node: u64) -> Result<Vec<u8>, Errno> {
        let listed = Listed::begin(&*self.tree.descriptor(node)?)?;
        Ok(reply::open(self.files.add_directory(node, listed), 0))
    }

    pub(super) fn list(&self, request: &Call<'_>) -> Result<Vec<u8>, Errno> {
        let Operation::ReadDir { handle, offset, size, plus } = request.operation else {
            return Err(Errno::INVAL);
        };
        let open = self.files.directory(handle)?;
        let mut listed = open.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut listing = Listing::new(size as usize);
        // A rewound directory shows what was added since.
        if offset == 0 {
            listed.offset = u64::MAX;
        }
        let mut at = offset;
        while let Some(entry) = listed.peek(at)? {
            let fits = if plus {
                self.add_plus(open.node, entry, &mut listing)
            } else {
                listing.add(&entry.name, entry.ino, entry.kind.dirent(), entry.next)
            };
            if !fits {
                break;
            }
            at = entry.next;
            listed.take();
        }
        Ok(listing.into_bytes())
    }

    /// Adds an entry with attributes and a reference to its id.
    fn add_plus(&self, directory: u64, entry: &DirEntry, listing: &mut Listing) -> bool {
        if !listing.has_room_plus(entry.name.len()) {
            return false;
        }
        let is_dots = matches!(entry.name.as_slice(), b"." | b"..");
        let found = if is_dots {
            Err(Errno::INVAL)
        } else {
            self.tree.find(directory, &entry.name, Reference::Kernel)
        };
        let (name, next) = (&entry.name, entry.next);
        match found {
            Ok((node, stat)) => {
                let kind = Kind::of_mode(stat.mode).dirent();
                listing.add_plus(name, node, &attr_of(&stat), kind, next);
            }
            // Dots, and what has just gone: the bare entry, as a plain listing shows it.
            Err(_) => {
                let attr = Attr { ino: entry.ino, ..Attr::default() };
                listing.add_plus(name, 0, &attr, entry.kind.dirent(), next);
            }
        }
        true
    }

    pub(super) fn sync_directory(&self, request: &Call<'_>, handle: u64, data_only: bool) {
        let opened =
            self.files.directory(handle).and_then(|open| Ok((open.node, Synced::listed(&open)?)));
        match opened {
            Ok((node, what)) => self.sync(request, handle, node, what, data_only),
            Err(errno) => self.refuse(request, errno),
        }
    }
}
