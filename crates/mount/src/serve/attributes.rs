//! Attributes: asking for them, changing them, and clearing set-id bits.
//!
//! What the kernel caches of them is valid for ever, so whatever changes one without the kernel
//! knowing must say so.

use std::os::fd::{AsFd, BorrowedFd};

use fuse::{Errno, Operation, SetAttr, reply};
use replica::op::{Attr, Op, Stamp};
use replica::touch::Touch;

use super::Server;
use super::call::Call;
use super::caller::as_caller;
use super::turn::{Done, Turn};
use crate::backing::{self, Kind, Moment, Stat};

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;
const PERMISSIONS: u32 = 0o7777;

/// Attributes in the form of the protocol.
pub(super) fn attr_of(stat: &Stat) -> reply::Attr {
    let pair = |stamp: Stamp| (stamp.seconds, stamp.nanoseconds);
    reply::Attr {
        ino: stat.ino,
        size: stat.size,
        blocks: stat.blocks,
        atime: pair(stat.atime),
        mtime: pair(stat.mtime),
        ctime: pair(stat.ctime),
        btime: stat.btime.map(pair),
        mode: stat.mode,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        // Majors of 12 and minors of 20 bits have the same form in 32 bits as in 64.
        rdev: stat.rdev as u32,
        blksize: stat.blksize,
    }
}

impl Server {
    pub(super) fn get_attr(&self, request: &Call<'_>, handle: Option<u64>) -> Result<Stat, Errno> {
        match handle.and_then(|handle| self.files.file(handle).ok()) {
            Some(open) => backing::stat(&open.file),
            None => backing::stat(&*self.tree.descriptor(request.node)?),
        }
    }

    pub(super) fn set_attr(&self, request: &Call<'_>) {
        let Operation::SetAttr(wanted) = &request.operation else {
            return;
        };
        let file = self.tree.id(request.node);
        let touch = if wanted.size.is_some() { Touch::Rest(file) } else { Touch::Meta(file) };
        self.change(request, "changing attributes", &[touch], |turn| {
            match wanted.handle.and_then(|handle| self.files.file(handle).ok()) {
                Some(open) => self.apply(turn, request, open.file.as_fd(), wanted),
                None => {
                    let file = self.tree.descriptor(request.node)?;
                    self.apply(turn, request, file.as_fd(), wanted)
                }
            }
        });
    }

    fn apply(
        &self,
        turn: Turn<'_>,
        request: &Call<'_>,
        file: BorrowedFd<'_>,
        wanted: &SetAttr,
    ) -> Result<Done, Errno> {
        let before = backing::stat(file)?;
        let (done, applied) = as_caller(request, || apply_to(file, &before, wanted));
        let after = backing::stat(file)?;
        let attr = if turn.is_doubtful() {
            // What a predecessor has changed looks as if it had been so before.
            all_of(&after, &done)
        } else {
            changed(&before, &after, &done, wanted.mtime.is_some())
        };
        let outcome = applied.map(|()| reply::attr(&attr_of(&after)));
        match outcome {
            Err(errno) if attr == Attr::default() => Err(errno),
            Ok(body) if attr == Attr::default() => Ok(turn.unchanged(&body)),
            // Also when only a part of it succeeded: that part is there.
            outcome => {
                let op = Op::SetAttr { file: self.tree.id(request.node), attr };
                Ok(turn.finish(op, outcome))
            }
        }
    }

    /// Clears set-id bits as writing by somebody unprivileged does, and records it.
    pub(super) fn kill_privileges(
        &self,
        turn: &mut Turn<'_>,
        node: u64,
        file: BorrowedFd<'_>,
    ) -> Result<(), Errno> {
        let mode = backing::stat(file)?.mode;
        let Some(mode) = without_privileges(mode).or(turn.is_doubtful().then_some(mode)) else {
            return Ok(());
        };
        let attr = Attr { mode: Some(mode & PERMISSIONS), ..Attr::default() };
        backing::set_attr(file, &attr)?;
        turn.also(Op::SetAttr { file: self.tree.id(node), attr });
        // Without data; the kernel may be holding pages of this very write.
        let _ = self.connection.forget_inode(node, -1, 0);
        Ok(())
    }
}

/// All that a change may have set, as it is now.
fn all_of(after: &Stat, done: &Attr) -> Attr {
    Attr {
        mode: (after.kind() != Kind::Symlink).then_some(after.mode & PERMISSIONS),
        uid: Some(after.uid),
        gid: Some(after.gid),
        size: done.size.and(Some(after.size)),
        mtime: Some(after.mtime),
    }
}

/// What was done for certain, and why it is not all that was wanted.
fn apply_to(file: BorrowedFd<'_>, before: &Stat, wanted: &SetAttr) -> (Attr, Result<(), Errno>) {
    let killed = || without_privileges(before.mode).filter(|_| wanted.kill_privileges);
    let mut done = Attr::default();
    if wanted.uid.is_some() || wanted.gid.is_some() {
        let owner = Attr { uid: wanted.uid, gid: wanted.gid, ..Attr::default() };
        if let Err(errno) = backing::set_attr(file, &owner) {
            return (done, Err(errno));
        }
        done = owner;
    }
    if let Some(mode) = wanted.mode.or_else(killed) {
        let bits = Attr { mode: Some(mode), ..Attr::default() };
        if let Err(errno) = backing::set_attr(file, &bits) {
            return (done, Err(errno));
        }
        done.mode = Some(mode);
    }
    if let Some(size) = wanted.size {
        let length = Attr { size: Some(size), ..Attr::default() };
        if let Err(errno) = backing::set_attr(file, &length) {
            return (done, Err(errno));
        }
        done.size = Some(size);
    }
    (done, apply_times(file, wanted))
}

fn apply_times(file: BorrowedFd<'_>, wanted: &SetAttr) -> Result<(), Errno> {
    let moment = |moment: Option<fuse::Moment>| match moment {
        None => Moment::Keep,
        Some(fuse::Moment::Now) => Moment::Now,
        Some(fuse::Moment::At(seconds, nanoseconds)) => Moment::At(Stamp { seconds, nanoseconds }),
    };
    match (moment(wanted.atime), moment(wanted.mtime)) {
        (Moment::Keep, Moment::Keep) => Ok(()),
        (atime, mtime) => backing::set_times(file, atime, mtime),
    }
}

/// What the peer must be told: everything done, and whatever else changed with it.
///
/// Also what looks the same afterwards: setting an owner or a size removes capabilities of a
/// file, here and there. And as an owner that is set clears set-id bits, the mode goes with it.
fn changed(before: &Stat, after: &Stat, done: &Attr, stamped: bool) -> Attr {
    let uid = done.uid.is_some() || before.uid != after.uid;
    let gid = done.gid.is_some() || before.gid != after.gid;
    let size = done.size.is_some() || before.size != after.size;
    let size = size && after.kind() == Kind::File;
    // The mode of a symlink cannot be set.
    let mode = (uid || gid) && after.kind() != Kind::Symlink || before.mode != after.mode;
    // The clock of files is so coarse that a stamp set anew may look like the old one.
    let mtime = stamped || size || before.mtime != after.mtime;
    Attr {
        mode: mode.then_some(after.mode & PERMISSIONS),
        uid: uid.then_some(after.uid),
        gid: gid.then_some(after.gid),
        size: size.then_some(after.size),
        mtime: mtime.then_some(after.mtime),
    }
}

/// The mode after a write by somebody unprivileged, if that changes it.
fn without_privileges(mode: u32) -> Option<u32> {
    let mut cleared = mode & !SET_USER_ID;
    // Without the execute bit it once meant mandatory locking, and stays.
    if mode & GROUP_EXECUTE != 0 {
        cleared &= !SET_GROUP_ID;
    }
    (Kind::of_mode(mode) == Kind::File && cleared != mode).then_some(cleared)
}
