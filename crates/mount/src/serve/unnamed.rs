//! Files without a name: made by `O_TMPFILE`, and perhaps linked later.
//!
//! As long as one has no name the peer does not know it, and nothing that is done to it travels.
//! When it gets one, the peer is told all of it at once. One that was removed while it is open is
//! none of these: the peer had it.

use std::os::fd::AsFd;

use fuse::{Errno, Operation, reply};
use replica::op::{Attr, FileId, Op};
use rustix::fs::SeekFrom;

use super::Server;
use super::attributes::attr_of;
use super::call::Call;
use super::caller::as_masked_caller;
use super::data::access;
use super::names::created;
use super::turn::{Done, Turn};
use crate::backing::{self, ACCESS_ACL, DEFAULT_ACL, Stat};
use crate::tree::Unnamed;

const PERMISSIONS: u32 = 0o7777;

impl Server {
    pub(super) fn make_unnamed(&self, request: &Call<'_>) {
        let Operation::TmpFile { flags, mode, umask } = request.operation else {
            return;
        };
        if !self.connection.protocol().features.tmpfile {
            self.connection.reply_error(request.unique, Errno::NOSYS);
            return;
        }
        self.change(request, "creating a file without a name", &[], |turn| {
            let directory = self.tree.descriptor(request.node)?;
            let mode = mode & PERMISSIONS;
            let file =
                as_masked_caller(request, umask, || backing::make_unnamed(&*directory, mode))?;
            let kept = file.try_clone().map_err(|_| Errno::MFILE)?;
            let (node, stat) = self.tree.introduce_unnamed(kept)?;
            let mode = self.cache_mode(flags);
            let handle = self.files.add_file(node, file, access(flags), mode);
            let body = reply::create(node, &attr_of(&stat), handle, mode);
            Ok(turn.unchanged(&body))
        });
    }

    /// Tells everything about a file that has just got the first name that the peer is to know.
    pub(super) fn tell_named(
        &self,
        mut turn: Turn<'_>,
        (parent, name): (u64, &[u8]),
        node: u64,
        unnamed: Unnamed,
        body: impl FnOnce(&Stat) -> Vec<u8>,
    ) -> Result<Done, Errno> {
        let object = self.tree.descriptor(node)?;
        let directory = self.tree.descriptor(parent)?;
        let stat = backing::stat(&*object)?;
        let (parent, file) = (self.tree.id(parent), self.tree.id(node));
        let parent_mtime = backing::stat(&*directory)?.mtime;
        turn.also(created(parent, name, file, &stat, b"", parent_mtime));
        turn.tell_again();
        // What cannot be read back cannot be told: the copies are no longer equal.
        if let Err(errno) = self.tell_all(&mut turn, node, &stat) {
            turn.broken(errno);
        }
        if let Err(errno) = tell_xattrs(&mut turn, file, &stat, &*object, &*directory) {
            turn.broken(errno);
        }
        let attr = Attr {
            mode: Some(stat.mode & PERMISSIONS),
            size: Some(stat.size),
            mtime: Some(stat.mtime),
            ..Attr::default()
        };
        let body = body(&stat);
        let op = Op::SetAttr { file, attr };
        Ok(match unnamed {
            // What is left out is not there at the peer.
            _ if self.tree.is_excluded(file) => turn.finish(op, Ok(body)),
            Unnamed::Changed => turn.finish(op, Ok(body)),
            // It was made durable here; that must be so at the peer before it is relied on.
            Unnamed::Synced => turn.finish_durably(op, file, body),
        })
    }

    /// Tells the content, holes left out.
    fn tell_all(&self, turn: &mut Turn<'_>, node: u64, stat: &Stat) -> Result<(), Errno> {
        let file = self.tree.open_node(node, rustix::fs::OFlags::RDONLY)?;
        let mut at = 0;
        while at < stat.size {
            let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(errno),
            };
            let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?.min(stat.size);
            self.tell_content(turn, node, file.as_fd(), start..end, stat.mtime);
            at = end;
        }
        Ok(())
    }
}

/// Tells the extended attributes. They come after the content, as writing removes capabilities.
fn tell_xattrs(
    turn: &mut Turn<'_>,
    file: FileId,
    stat: &Stat,
    object: impl AsFd,
    directory: impl AsFd,
) -> Result<(), Errno> {
    let names = match backing::list_xattr(&object) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        names => names?,
    };
    // At the peer it is created in the directory of its name and takes over that one's list.
    let inherits = backing::get_xattr(&directory, DEFAULT_ACL).is_ok();
    if inherits && !names.iter().any(|name| name == ACCESS_ACL) {
        let value = backing::minimal_acl(stat.mode);
        turn.also(Op::SetXattr { file, name: ACCESS_ACL, value: &value });
    }
    for name in names {
        let value = backing::get_xattr(&object, &name)?;
        turn.also(Op::SetXattr { file, name: &name, value: &value });
    }
    Ok(())
}
