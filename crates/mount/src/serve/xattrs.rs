//! Extended attributes.
//!
//! The mark of a replicated directory is hidden. POSIX ACLs are refused where the kernel does not
//! enforce them.

use std::os::fd::{AsFd, BorrowedFd};

use fuse::{Errno, Operation, reply};
use replica::op::{Attr, FileId, Op};
use replica::touch::Touch;

use super::Server;
use super::call::Call;
use super::caller::as_caller;
use super::turn::{Done, Turn};
use crate::backing;
use crate::estate::Before;

/// Attributes that are Evenkeel's own business.
const OWN: &[u8] = b"trusted.evenkeel";
const TRUSTED: &[u8] = b"trusted.";
const ACL: &[u8] = b"system.posix_acl_";

const PERMISSIONS: u32 = 0o7777;
const SET_GROUP_ID: u32 = 0o2000;

impl Server {
    pub(super) fn get_xattr(
        &self,
        request: &Call<'_>,
        name: &[u8],
        size: u32,
    ) -> Result<Vec<u8>, Errno> {
        self.check(name, Errno::NODATA)?;
        let value = backing::get_xattr(&*self.tree.descriptor(request.node)?, name)?;
        fit(value, size)
    }

    pub(super) fn list_xattr(&self, request: &Call<'_>, size: u32) -> Result<Vec<u8>, Errno> {
        let privileged = request.uid == 0;
        let mut list = Vec::new();
        for name in backing::list_xattr(&*self.tree.descriptor(request.node)?)? {
            let hidden = self.check(&name, Errno::NODATA).is_err();
            if !hidden && (privileged || !name.starts_with(TRUSTED)) {
                list.extend_from_slice(&name);
                list.push(0);
            }
        }
        fit(list, size)
    }

    fn check(&self, name: &[u8], own: Errno) -> Result<(), Errno> {
        if name.starts_with(OWN) {
            Err(own)
        } else if name.starts_with(ACL) && !self.connection.protocol().features.acl {
            Err(Errno::OPNOTSUPP)
        } else {
            Ok(())
        }
    }

    pub(super) fn change_xattr(&self, request: &Call<'_>) {
        let touches = [Touch::Meta(self.tree.id(request.node))];
        self.change(request, "changing an extended attribute", &touches, |turn| {
            let descriptor = self.tree.descriptor(request.node)?;
            let file = self.tree.id(request.node);
            match request.operation {
                Operation::SetXattr { name, value, flags, kill_group } => {
                    self.check(name, Errno::PERM)?;
                    let flags = expect_xattr(&turn, flags, || {
                        backing::get_xattr(&*descriptor, name).ok().as_deref() == Some(value)
                    });
                    as_caller(request, || backing::set_xattr(&*descriptor, name, value, flags))?;
                    let op = Op::SetXattr { file, name, value };
                    if kill_group {
                        return kill_set_group(turn, op, file, descriptor.as_fd());
                    }
                    Ok(turn.finish(op, Ok(Vec::new())))
                }
                Operation::RemoveXattr { name } => {
                    self.check(name, Errno::PERM)?;
                    let is_there = backing::get_xattr(&*descriptor, name).is_ok();
                    let is_gone = !is_there && turn.before().is_some();
                    if is_there && turn.before().is_none() {
                        turn.expect(&Before::default());
                    }
                    if !is_gone {
                        backing::remove_xattr(&*descriptor, name)?;
                    }
                    Ok(turn.finish(Op::RemoveXattr { file, name }, Ok(Vec::new())))
                }
                _ => Err(Errno::INVAL),
            }
        });
    }
}

/// How an attribute is to be set: one that a predecessor made must not be refused as being there.
fn expect_xattr(turn: &Turn<'_>, flags: u32, is_set: impl FnOnce() -> bool) -> u32 {
    if flags != libc::XATTR_CREATE.cast_unsigned() {
        return flags;
    }
    if turn.is_doubtful() && is_set() { 0 } else { flags }
}

/// An ACL was set by somebody outside of the file's group: its set-gid bit goes.
fn kill_set_group(
    mut turn: Turn<'_>,
    set: Op<'_>,
    file: FileId,
    descriptor: BorrowedFd<'_>,
) -> Result<Done, Errno> {
    turn.also(set);
    let mode = backing::stat(descriptor)?.mode & PERMISSIONS & !SET_GROUP_ID;
    let attr = Attr { mode: Some(mode), ..Attr::default() };
    let outcome = backing::set_attr(descriptor, &attr);
    if let Err(errno) = outcome {
        turn.broken(errno);
    }
    Ok(turn.finish(Op::SetAttr { file, attr }, outcome.map(|()| Vec::new())))
}

/// A value as an answer: its length when that was asked for.
fn fit(value: Vec<u8>, size: u32) -> Result<Vec<u8>, Errno> {
    match size as usize {
        0 => Ok(reply::size(value.len() as u32)),
        room if value.len() > room => Err(Errno::RANGE),
        _ => Ok(value),
    }
}
