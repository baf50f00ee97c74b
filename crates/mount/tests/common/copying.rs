//! A recorder that applies every change to a second tree.
//!
//! It answers when that is done, as a peer with no distance would.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use fuse::{Answer, Errno};
use mount::Recorder;
use mount::backing::{self, Root};
use replica::op::{Attr, FileId, Op, Stamp};
use rustix::fs::OFlags;

/// Applies every change to a second tree, at once.
pub struct Copying {
    files: BTreeMap<FileId, OwnedFd>,
    syncs: u64,
}

impl Copying {
    pub fn new(path: &Path) -> Copying {
        let root = Root::open(path).unwrap();
        let root = root.as_fd().try_clone_to_owned().unwrap();
        Copying { files: BTreeMap::from([(FileId::root(0), root)]), syncs: 0 }
    }

    fn stamp(&self, file: FileId, mtime: Stamp) {
        let attr = Attr { mtime: Some(mtime), ..Attr::default() };
        backing::set_attr(&self.files[&file], &attr).unwrap();
    }

    fn opened(&self, file: FileId) -> OwnedFd {
        backing::reopen(&self.files[&file], OFlags::RDWR).unwrap()
    }

    fn name(&mut self, op: &Op<'_>) {
        match *op {
            Op::Create {
                parent,
                name,
                file,
                mode,
                uid,
                gid,
                rdev,
                target,
                mtime,
                parent_mtime,
            } => {
                let directory = &self.files[&parent];
                let made = backing::create(directory, name, mode, uid, gid, rdev, target).unwrap();
                assert!(self.files.insert(file, made).is_none(), "{file:?} was given twice");
                self.stamp(file, mtime);
                self.stamp(parent, parent_mtime);
            }
            Op::Link { file, parent, name, parent_mtime } => {
                backing::link(&self.files[&file], &self.files[&parent], name).unwrap();
                self.stamp(parent, parent_mtime);
            }
            Op::Remove { parent, name, directory, parent_mtime } => {
                backing::remove(&self.files[&parent], name, directory).unwrap();
                self.stamp(parent, parent_mtime);
            }
            Op::Rename { parent, name, new_parent, new_name, flags, .. } => {
                let (from, to) = (&self.files[&parent], &self.files[&new_parent]);
                backing::rename(from, name, to, new_name, flags).unwrap();
                let Op::Rename { parent_mtime, new_parent_mtime, .. } = *op else { return };
                self.stamp(parent, parent_mtime);
                self.stamp(new_parent, new_parent_mtime);
            }
            _ => {}
        }
    }

    fn content(&mut self, op: &Op<'_>) {
        match *op {
            Op::Write { file, offset, data, mtime } => {
                let written = rustix::io::pwrite(self.opened(file), data, offset).unwrap();
                assert_eq!(written, data.len());
                self.stamp(file, mtime);
            }
            Op::Allocate { file, mode, offset, length, mtime } => {
                backing::allocate(self.opened(file), mode, offset, length).unwrap();
                self.stamp(file, mtime);
            }
            Op::SetAttr { file, ref attr } => {
                backing::set_attr(&self.files[&file], attr).unwrap();
            }
            Op::SetXattr { file, name, value } => {
                backing::set_xattr(&self.files[&file], name, value, 0).unwrap();
            }
            Op::RemoveXattr { file, name } => {
                backing::remove_xattr(&self.files[&file], name).unwrap();
            }
            _ => {}
        }
    }
}

impl Recorder for Copying {
    fn admit(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    fn record(&mut self, op: Op<'_>, answer: Option<Answer>) {
        self.name(&op);
        self.content(&op);
        if let Some(answer) = answer {
            answer.send();
        }
    }

    fn sync_begins(&mut self, file: FileId, _data_only: bool) -> u64 {
        assert!(self.files.contains_key(&file));
        self.syncs += 1;
        self.syncs
    }

    fn sync_ended(&mut self, sync: u64, local: Result<(), Errno>, answer: Answer) {
        assert!(sync <= self.syncs && local.is_ok());
        answer.send();
    }

    fn copy_failed(&mut self, what: &str, errno: Errno) {
        panic!("{what}: {errno}");
    }
}
