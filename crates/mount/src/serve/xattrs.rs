//! Extended attributes.
//!
//! The mark of a replicated directory is hidden, and POSIX ACLs are refused: the kernel would
//! not enforce them here.

use fuse::{Errno, Operation, Request, reply};
use replica::op::Op;
use replica::touch::Touch;

use super::Server;
use crate::backing;

/// Attributes that are Evenkeel's own business.
const OWN: &[u8] = b"trusted.evenkeel";
const TRUSTED: &[u8] = b"trusted.";
const ACL: &[u8] = b"system.posix_acl_";

impl Server {
    pub(super) fn get_xattr(
        &self,
        request: &Request<'_>,
        name: &[u8],
        size: u32,
    ) -> Result<Vec<u8>, Errno> {
        check(name, Errno::NODATA)?;
        let value = backing::get_xattr(&*self.tree.descriptor(request.node)?, name)?;
        fit(value, size)
    }

    pub(super) fn list_xattr(&self, request: &Request<'_>, size: u32) -> Result<Vec<u8>, Errno> {
        let privileged = request.uid == 0;
        let mut list = Vec::new();
        for name in backing::list_xattr(&*self.tree.descriptor(request.node)?)? {
            let hidden = check(&name, Errno::NODATA).is_err();
            if !hidden && (privileged || !name.starts_with(TRUSTED)) {
                list.extend_from_slice(&name);
                list.push(0);
            }
        }
        fit(list, size)
    }

    pub(super) fn change_xattr(&self, request: &Request<'_>) {
        let touches = [Touch::Meta(self.tree.id(request.node))];
        self.change(request, "changing an extended attribute", &touches, |turn| {
            let descriptor = self.tree.descriptor(request.node)?;
            let file = self.tree.id(request.node);
            match request.operation {
                Operation::SetXattr { name, value, flags } => {
                    check(name, Errno::PERM)?;
                    backing::set_xattr(&*descriptor, name, value, flags)?;
                    Ok(turn.finish(Op::SetXattr { file, name, value }, Ok(Vec::new())))
                }
                Operation::RemoveXattr { name } => {
                    check(name, Errno::PERM)?;
                    backing::remove_xattr(&*descriptor, name)?;
                    Ok(turn.finish(Op::RemoveXattr { file, name }, Ok(Vec::new())))
                }
                _ => Err(Errno::INVAL),
            }
        });
    }
}

fn check(name: &[u8], own: Errno) -> Result<(), Errno> {
    if name.starts_with(OWN) {
        Err(own)
    } else if name.starts_with(ACL) {
        Err(Errno::OPNOTSUPP)
    } else {
        Ok(())
    }
}

/// A value as an answer: its length when that was asked for.
fn fit(value: Vec<u8>, size: u32) -> Result<Vec<u8>, Errno> {
    match size as usize {
        0 => Ok(reply::size(value.len() as u32)),
        room if value.len() > room => Err(Errno::RANGE),
        _ => Ok(value),
    }
}
