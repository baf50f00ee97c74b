//! Names that go over the border of what is replicated.
//!
//! A file with one name can go out: for the peer it is removed. Nothing can come in, and no file
//! has names on both sides: that gets `EXDEV`, as between file systems, upon which programs copy.
//! What came in could not come at once at the peer, and whether a file is left out would depend on
//! names that nobody has looked up.

use std::os::fd::AsFd;

use fuse::Errno;
use replica::op::Op;
use rustix::fs::RenameFlags;

use super::Server;
use super::turn::{Done, Turn};
use crate::backing::{self, Kind};

/// Which way a renaming goes over the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crossing {
    /// Not at all.
    None,
    /// Out of what is replicated.
    Out,
    /// Into it.
    In,
    /// A directory would take something over the border that is left out by its path.
    Below,
}

impl Server {
    pub(super) fn crossing(&self, from: (u64, &[u8]), to: (u64, &[u8])) -> Crossing {
        if !self.tree.has_excluded() {
            return Crossing::None;
        }
        let [from, to] = [from, to].map(|(parent, name)| (self.tree.id(parent), name));
        let excluded = [from, to].map(|(parent, name)| self.tree.is_excluded_name(parent, name));
        match excluded {
            [false, true] => Crossing::Out,
            [true, false] => Crossing::In,
            [true, true] => Crossing::None,
            [false, false] => {
                let stays =
                    [from, to].iter().any(|(parent, name)| self.tree.must_stay(*parent, name));
                if stays { Crossing::Below } else { Crossing::None }
            }
        }
    }

    /// A file has gone out of what is replicated.
    pub(super) fn tell_gone(
        &self,
        turn: Turn<'_>,
        parent: u64,
        name: &[u8],
    ) -> Result<Done, Errno> {
        let parent_mtime = backing::stat(&*self.tree.descriptor(parent)?)?.mtime;
        let parent = self.tree.id(parent);
        let op = Op::Remove { parent, name, directory: false, parent_mtime };
        Ok(turn.finish(op, Ok(Vec::new())))
    }
}

/// Whether a file may be renamed that way.
pub(super) fn may_cross(crossing: Crossing, file: impl AsFd, flags: u32) -> Result<(), Errno> {
    let stat = backing::stat(file)?;
    let plain = RenameFlags::from_bits_retain(flags).difference(RenameFlags::NOREPLACE).is_empty();
    let exchange = RenameFlags::from_bits_retain(flags).contains(RenameFlags::EXCHANGE);
    match crossing {
        Crossing::None => Ok(()),
        Crossing::Below if stat.kind() != Kind::Directory && !exchange => Ok(()),
        Crossing::Out if plain && stat.kind() == Kind::File && stat.nlink == 1 => Ok(()),
        Crossing::Below | Crossing::In | Crossing::Out => Err(Errno::XDEV),
    }
}
