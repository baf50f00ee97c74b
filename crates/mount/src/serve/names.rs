//! Names: looking them up, making, moving and removing them.
//!
//! Each change holds the lock of names besides the order, so that the table of files never
//! keeps a name that is gone.

use std::os::fd::OwnedFd;

use fuse::{Errno, Operation, reply};
use replica::op::{FileId, Op, Stamp};
use replica::touch::Touch;
use rustix::fs::{OFlags, RenameFlags};

use super::Server;
use super::attributes::attr_of;
use super::border::{Crossing, may_cross};
use super::call::Call;
use super::caller::{as_caller, as_masked_caller};
use super::data::access;
use super::turn::{Done, Turn};
use crate::backing::{self, Handle, Kind, Stat};
use crate::estate::Before;
use crate::tree::{Reference, Unnamed};

const SYMLINK: u32 = 0o120_777;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const PERMISSIONS: u32 = 0o7777;

/// Something to be created.
struct New<'a> {
    name: &'a [u8],
    mode: u32,
    umask: u32,
    rdev: u32,
    target: &'a [u8],
}

impl Server {
    pub(super) fn lookup(&self, request: &Call<'_>, name: &[u8]) {
        let outcome = match self.tree.find(request.node, name, Reference::Kernel) {
            Ok((node, stat)) => Ok(reply::entry(node, &attr_of(&stat))),
            // Worth remembering: only calls that pass through here can make it exist.
            Err(Errno::NOENT) => Ok(reply::no_entry()),
            Err(errno) => Err(errno),
        };
        self.answer(request, outcome);
    }

    /// Everything that is created without being opened.
    pub(super) fn make(&self, request: &Call<'_>) {
        let new = match request.operation {
            Operation::MkNod { name, mode, rdev, umask } => {
                New { name, mode, umask, rdev, target: b"" }
            }
            Operation::MkDir { name, mode, umask } => {
                New { name, mode: mode & PERMISSIONS | DIRECTORY, umask, rdev: 0, target: b"" }
            }
            Operation::Symlink { name, target } => {
                New { name, mode: SYMLINK, umask: 0, rdev: 0, target }
            }
            _ => return,
        };
        let touches = [Touch::Names(self.tree.id(request.node))];
        self.change(request, "creating a file", &touches, |turn| {
            self.make_new(turn, request, &new, |node, stat| Ok(reply::entry(node, &attr_of(stat))))
        });
    }

    pub(super) fn create(&self, request: &Call<'_>) {
        let Operation::Create { name, flags, mode, umask, kill_privileges } = request.operation
        else {
            return;
        };
        let new = New { name, mode: mode & PERMISSIONS | REGULAR, umask, rdev: 0, target: b"" };
        let body = |node: u64, stat: &Stat, handle: u64| {
            reply::create(node, &attr_of(stat), handle, self.cache_mode(flags))
        };
        let exclusive = OFlags::from_bits_retain(flags).contains(OFlags::EXCL);
        let truncate = OFlags::from_bits_retain(flags).contains(OFlags::TRUNC);
        let parent = self.tree.id(request.node);
        let mut touches = vec![Touch::Names(parent)];
        if truncate && !exclusive {
            // What appears only after this has come to a directory whose names are touched.
            touches.extend(self.tree.known_child(parent, name).map(Touch::Rest));
        }
        self.change(request, "creating a file", &touches, |turn| {
            // What a predecessor may have made here was not found, but made.
            if !exclusive
                && turn.before().is_none()
                && let Ok((node, _)) = self.tree.find(request.node, name, Reference::Kernel)
            {
                let found = self.open_found(turn, node, flags, kill_privileges, |handle, stat| {
                    body(node, stat, handle)
                });
                return found.inspect_err(|_| self.tree.forget(node, 1));
            }
            self.make_new(turn, request, &new, |node, stat| {
                let file = self.tree.open_node(node, access(flags))?;
                let mode = self.cache_mode(flags);
                Ok(body(node, stat, self.files.add_file(node, file, access(flags), mode)))
            })
        });
    }

    fn make_new(
        &self,
        turn: Turn<'_>,
        request: &Call<'_>,
        new: &New<'_>,
        body: impl FnOnce(u64, &Stat) -> Result<Vec<u8>, Errno>,
    ) -> Result<Done, Errno> {
        let &New { name, mode, target, .. } = new;
        let _names = self.tree.names();
        let directory = self.tree.descriptor(request.node)?;
        let rdev = u64::from(new.rdev);
        let is_there = backing::open_name(&*directory, name).is_ok();
        let is_made = is_there && turn.before().is_some();
        if !is_there && turn.before().is_none() {
            turn.expect(&Before { names: vec![None], note: 0 });
        }
        if !is_made {
            as_masked_caller(request, new.umask, || {
                backing::make(&*directory, name, mode, rdev, target)
            })?;
        }
        let made = backing::open_name(&*directory, name);
        let made =
            made.and_then(|file| self.tree.introduce(file, request.node, name, Reference::Kernel));
        let made = made.and_then(|(node, stat)| match body(node, &stat) {
            Ok(body) => Ok((node, stat, body)),
            Err(errno) => {
                self.tree.forget(node, 1);
                Err(errno)
            }
        });
        let (node, stat, body) = made.inspect_err(|_| {
            // The caller is told that it failed, so it must not be there.
            let is_directory = Kind::of_mode(mode) == Kind::Directory;
            if backing::remove(&*directory, name, is_directory).is_err() {
                turn.made();
            }
        })?;
        turn.made();
        let parent_mtime = backing::stat(&*directory)?.mtime;
        let (parent, file) = (self.tree.id(request.node), self.tree.id(node));
        let op = created(parent, name, file, &stat, target, parent_mtime);
        Ok(turn.finish(op, Ok(body)))
    }

    pub(super) fn link(&self, request: &Call<'_>, target: u64, name: &[u8]) {
        let (file, parent) = (self.tree.id(target), self.tree.id(request.node));
        let mut touches = vec![Touch::Names(parent)];
        if self.tree.stat(file).is_ok_and(|stat| stat.nlink > 0) {
            // One without a name comes into being with this one.
            touches.extend([Touch::Meta(file), Touch::Moving(file)]);
        }
        self.change(request, "making a hard link", &touches, |turn| {
            let _names = self.tree.names();
            let file = self.tree.descriptor(target)?;
            let directory = self.tree.descriptor(request.node)?;
            let is_there = backing::open_name(&*directory, name).is_ok();
            let before = turn.before();
            let is_made = is_there && before.is_some();
            let unnamed = match &before {
                Some(before) => Unnamed::of_note(before.note),
                None => self.tree.unnamed(target),
            };
            if unnamed.is_none() && !is_made {
                let name_out = self.tree.is_excluded_name(self.tree.id(request.node), name);
                if self.tree.is_excluded(self.tree.id(target)) != name_out {
                    return Err(Errno::XDEV);
                }
            }
            if !is_there && before.is_none() {
                turn.expect(&Before { names: vec![None], note: Unnamed::to_note(unnamed) });
            }
            if !is_made {
                as_caller(request, || backing::link(&*file, &*directory, name))?;
            }
            turn.made();
            self.tree.refer(target);
            self.tree.name_added(target, request.node, name);
            if let Some(unnamed) = unnamed {
                self.tree.named(target);
                let body = |stat: &Stat| reply::entry(target, &attr_of(stat));
                return self.tell_named(turn, (request.node, name), target, unnamed, body);
            }
            let body = reply::entry(target, &attr_of(&backing::stat(&*file)?));
            let op = Op::Link {
                file: self.tree.id(target),
                parent: self.tree.id(request.node),
                name,
                parent_mtime: backing::stat(&*directory)?.mtime,
            };
            Ok(turn.finish(op, Ok(body)))
        });
    }

    pub(super) fn remove(&self, request: &Call<'_>, name: &[u8], is_directory: bool) {
        let parent = self.tree.id(request.node);
        let mut touches = vec![Touch::Names(parent)];
        touches.extend(self.losing(parent, name));
        self.change(request, "removing a name", &touches, |turn| {
            let _names = self.tree.names();
            let directory = self.tree.descriptor(request.node)?;
            let (handle, file) = match (backing::open_name(&*directory, name), turn.before()) {
                // A predecessor has removed it.
                (Err(Errno::NOENT), Some(before)) => (before.first().ok_or(Errno::NOENT)?, None),
                (file, before) => {
                    let file = file?;
                    let handle = backing::handle_of(&file, b"")?;
                    if before.is_none() {
                        turn.expect(&Before { names: vec![Some(handle.clone())], note: 0 });
                    }
                    self.tree.name_goes(&file, &handle);
                    backing::remove(&*directory, name, is_directory)
                        .inspect_err(|_| self.tree.name_stays(&handle))?;
                    (handle, Some(file))
                }
            };
            turn.made();
            self.tree.name_removed(&handle, file, request.node, name);
            let op = Op::Remove {
                parent: self.tree.id(request.node),
                name,
                directory: is_directory,
                parent_mtime: backing::stat(&*directory)?.mtime,
            };
            Ok(turn.finish(op, Ok(Vec::new())))
        });
    }

    pub(super) fn rename(&self, request: &Call<'_>) {
        let Operation::Rename { name, new_parent, new_name, flags } = request.operation else {
            return;
        };
        let touches = self.touched_by_rename((request.node, name), (new_parent, new_name), flags);
        let crossing = self.crossing((request.node, name), (new_parent, new_name));
        self.change(request, "renaming", &touches, |turn| {
            let _names = self.tree.names();
            let from = self.tree.descriptor(request.node)?;
            let to = self.tree.descriptor(new_parent)?;
            let other = match backing::open_name(&*to, new_name) {
                Err(Errno::NOENT) => None,
                found => Some(found?),
            };
            let renamed = Renamed::by_predecessor(&turn, other.as_ref());
            let renamed = match renamed {
                Some(renamed) => renamed,
                None => {
                    let file = backing::open_name(&*from, name)?;
                    may_cross(crossing, &file, flags)?;
                    let idle = is_idle(&file, other.as_ref());
                    let renamed = Renamed::of(&file, other)?;
                    if !idle {
                        self.about_to_rename(&turn, &renamed, flags);
                    }
                    as_caller(request, || backing::rename(&*from, name, &*to, new_name, flags))
                        .inspect_err(|_| self.not_renamed(&renamed))?;
                    if idle {
                        return Ok(turn.unchanged(&[]));
                    }
                    renamed
                }
            };
            turn.made();
            self.moved(renamed, (request.node, name), (new_parent, new_name), flags);
            if crossing == Crossing::Out {
                return self.tell_gone(turn, request.node, name);
            }
            let op = Op::Rename {
                parent: self.tree.id(request.node),
                name,
                new_parent: self.tree.id(new_parent),
                new_name,
                flags: flags & !RenameFlags::WHITEOUT.bits(),
                parent_mtime: backing::stat(&*from)?.mtime,
                new_parent_mtime: backing::stat(&*to)?.mtime,
            };
            if RenameFlags::from_bits_retain(flags).contains(RenameFlags::WHITEOUT) {
                return self.tell_whiteout(turn, op);
            }
            Ok(turn.finish(op, Ok(Vec::new())))
        });
    }

    fn about_to_rename(&self, turn: &Turn<'_>, renamed: &Renamed, flags: u32) {
        if turn.before().is_none() {
            turn.expect(&renamed.as_before());
        }
        let exchange = RenameFlags::from_bits_retain(flags).contains(RenameFlags::EXCHANGE);
        if let (Some(handle), Some(file), false) = (&renamed.other, &renamed.other_file, exchange) {
            self.tree.name_goes(file, handle);
        }
    }

    fn not_renamed(&self, renamed: &Renamed) {
        if let Some(handle) = &renamed.other {
            self.tree.name_stays(handle);
        }
    }

    fn touched_by_rename(&self, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Vec<Touch> {
        let (parent, new_parent) = (self.tree.id(from.0), self.tree.id(to.0));
        let mut touches = vec![Touch::Names(parent), Touch::Names(new_parent)];
        self.moving(parent, from.1, &mut touches);
        if RenameFlags::from_bits_retain(flags).contains(RenameFlags::EXCHANGE) {
            self.moving(new_parent, to.1, &mut touches);
        } else {
            touches.extend(self.losing(new_parent, to.1));
        }
        touches
    }

    /// What it touches that a name becomes another one. A file with more names must be found by
    /// those at the peer.
    fn moving(&self, parent: FileId, name: &[u8], touches: &mut Vec<Touch>) {
        let Some(file) = self.tree.known_child(parent, name) else { return };
        touches.push(Touch::Moving(file));
        match self.other_names(file, parent, name) {
            Some(others) => touches.extend(others.into_iter().map(Touch::Names)),
            None => touches.push(Touch::Anything),
        }
    }

    /// What the loss of a name touches when the file has others.
    fn losing(&self, parent: FileId, name: &[u8]) -> Option<Touch> {
        let file = self.tree.known_child(parent, name)?;
        let stat = self.tree.stat(file).ok()?;
        if stat.kind() == Kind::Directory || stat.nlink < 2 {
            return None;
        }
        let others = self.other_names(file, parent, name);
        Some(Touch::Losing { file, other: others.and_then(|others| others.into_iter().next()) })
    }

    /// The directories of a file's other names; none when not all of them are known.
    fn other_names(&self, file: FileId, parent: FileId, name: &[u8]) -> Option<Vec<FileId>> {
        let stat = self.tree.stat(file).ok()?;
        if stat.kind() == Kind::Directory || stat.nlink < 2 {
            return Some(Vec::new());
        }
        let names = self.tree.names_of(file).into_iter();
        let others = names.filter(|(at, as_name)| (*at, &**as_name) != (parent, name));
        let others: Vec<FileId> = others.map(|(directory, _)| directory).collect();
        (others.len() + 1 >= stat.nlink as usize).then_some(others)
    }

    /// Tells of a renaming that left something under the old name.
    fn tell_whiteout(&self, mut turn: Turn<'_>, renamed: Op<'_>) -> Result<Done, Errno> {
        let Op::Rename { parent, name, parent_mtime, .. } = renamed else {
            return Err(Errno::INVAL);
        };
        let directory = self.tree.descriptor(parent.node)?;
        let file = backing::open_name(&*directory, name)?;
        let (node, stat) = self.tree.introduce(file, parent.node, name, Reference::Pin)?;
        let file = self.tree.id(node);
        turn.also(renamed);
        let done = if stat.kind() == Kind::Character {
            let op = created(parent, name, file, &stat, b"", parent_mtime);
            turn.finish(op, Ok(Vec::new()))
        } else {
            // Two names of one file: the call did nothing.
            turn.unchanged(&[])
        };
        self.tree.unpin(file);
        Ok(done)
    }

    /// Keeps the known names right after a rename.
    fn moved(&self, renamed: Renamed, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) {
        self.tree.name_moved(&renamed.file, from, to);
        match renamed.other {
            Some(other) if RenameFlags::from_bits_retain(flags) == RenameFlags::EXCHANGE => {
                self.tree.name_moved(&other, to, from);
            }
            Some(other) => self.tree.name_removed(&other, renamed.other_file, to.0, to.1),
            None => {}
        }
    }
}

/// What a renaming is about: the file, and what was under its new name.
struct Renamed {
    file: Handle,
    other: Option<Handle>,
    other_file: Option<OwnedFd>,
}

impl Renamed {
    fn of(file: &OwnedFd, other: Option<OwnedFd>) -> Result<Renamed, Errno> {
        let handle = backing::handle_of(file, b"")?;
        let replaced = other.as_ref().map(|other| backing::handle_of(other, b"")).transpose()?;
        Ok(Renamed { file: handle, other: replaced, other_file: other })
    }

    /// What a predecessor has renamed, if that is what stands under the new name now.
    fn by_predecessor(turn: &Turn<'_>, now: Option<&OwnedFd>) -> Option<Renamed> {
        let mut names = turn.before()?.names.into_iter();
        let (file, other) = (names.next()??, names.next()?);
        let now = backing::handle_of(now?, b"").ok()?;
        (now == file).then_some(Renamed { file, other, other_file: None })
    }

    fn as_before(&self) -> Before {
        Before { names: vec![Some(self.file.clone()), self.other.clone()], note: 0 }
    }
}

/// What the peer is told of something that is new under a name.
pub(super) fn created<'a>(
    parent: FileId,
    name: &'a [u8],
    file: FileId,
    stat: &Stat,
    target: &'a [u8],
    parent_mtime: Stamp,
) -> Op<'a> {
    let &Stat { mode, uid, gid, rdev, mtime, .. } = stat;
    Op::Create { parent, name, file, mode, uid, gid, rdev, target, mtime, parent_mtime }
}

/// Whether both names are of one file: then renaming or exchanging them does nothing, here. At a
/// peer that is being brought up to date they may be of two.
fn is_idle(file: &OwnedFd, other: Option<&OwnedFd>) -> bool {
    other.is_some_and(|other| backing::same_file(file, other).unwrap_or(false))
}
