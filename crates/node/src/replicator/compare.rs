//! What source and target of a resync must compute alike: descriptions of objects and hashes of
//! blocks.

use std::os::fd::AsFd;

use activity::image::Clock;
use mount::backing::{self, Kind, Stat};
use replica::op::FileId;
use rustix::io::Errno;
use wire::replication::{
    Attributes, BLOCK_BYTES, BlockHash, Ensure, Forward, XATTR_VALUES_BYTES_MAX, XATTRS_MAX,
    put_forward,
};

use crate::replicator::primary::Trees;

/// Attributes that belong to the node and not to the data.
const OWN_ATTRIBUTE: &[u8] = b"trusted.evenkeel";

/// Permission bits that writing to a file may remove.
const SET_ID_BITS: u32 = 0o6000;

/// Extended attributes with their values, by name.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Describes an object as it is now, under a name, for the target to make it so.
pub(super) fn put_ensure(
    out: &mut Vec<u8>,
    trees: &Trees,
    file: FileId,
    (held, apart): (bool, bool),
    (parent, name): (FileId, &[u8]),
) -> Result<(), Errno> {
    let tree = trees.get(usize::from(file.tree)).ok_or(Errno::STALE)?;
    let object = tree.path_descriptor(file)?;
    let stat = backing::stat(&*object)?;
    let target = match stat.kind() {
        Kind::Symlink => rustix::fs::readlinkat(&*object, "", Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    let xattrs = xattrs_of(&*object, stat.kind())?;
    let ensure = Ensure {
        parent,
        name,
        file,
        held,
        apart,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        rdev: stat.rdev,
        size: if stat.kind() == Kind::File { stat.size } else { 0 },
        mtime: stat.mtime,
        target: &target,
        xattrs: xattrs.iter().map(|(name, value)| (&name[..], &value[..])).collect(),
    };
    put_forward(out, &Forward::Ensure(ensure));
    Ok(())
}

/// Describes the attributes of an object as they are now. For a file that has none that writing
/// could have removed, nothing is put.
pub(super) fn put_attributes(out: &mut Vec<u8>, trees: &Trees, file: FileId) -> Result<(), Errno> {
    let tree = trees.get(usize::from(file.tree)).ok_or(Errno::STALE)?;
    let object = tree.path_descriptor(file)?;
    let stat = backing::stat(&*object)?;
    let xattrs = xattrs_of(&*object, stat.kind())?;
    let removable = !xattrs.is_empty() || stat.mode & SET_ID_BITS != 0;
    if stat.kind() == Kind::File && !removable {
        return Ok(());
    }
    let xattrs = xattrs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let (mode, uid, gid) = (stat.mode, stat.uid, stat.gid);
    put_forward(out, &Forward::Attributes(Attributes { file, mode, uid, gid, xattrs }));
    Ok(())
}

/// All extended attributes that belong to the data, sorted by name.
pub(super) fn xattrs_of(object: impl AsFd, kind: Kind) -> Result<Xattrs, Errno> {
    // Symlinks and special files can only have attributes of privileged name spaces, which the
    // file systems give them rarely; what cannot be listed is not there.
    let mut names = match backing::list_xattr(&object) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => Vec::new(),
        Err(_) if kind == Kind::Symlink => Vec::new(),
        Err(errno) => return Err(errno),
    };
    names.retain(|name| !name.starts_with(OWN_ATTRIBUTE));
    names.sort();
    if names.len() > XATTRS_MAX {
        return Err(Errno::TOOBIG);
    }
    let (mut xattrs, mut bytes) = (Vec::new(), 0);
    for name in names {
        match backing::get_xattr(&object, &name) {
            Ok(value) => {
                bytes += value.len();
                xattrs.push((name, value));
            }
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
        if bytes > XATTR_VALUES_BYTES_MAX {
            return Err(Errno::TOOBIG);
        }
    }
    Ok(xattrs)
}

/// Whether an object came or changed at or after a moment of this node's clock. A directory shows
/// when it came by its birth alone, as other times change with what is in it.
pub(super) fn is_recent(stat: &Stat, since: Clock) -> bool {
    let changed = stat.ctime;
    let stamp = match stat.kind() {
        Kind::Directory => stat.btime.unwrap_or(changed),
        _ => changed,
    };
    (stamp.seconds, stamp.nanoseconds) >= since
}

/// Refuses what belongs to the node and not to the data.
pub(super) fn check_attribute(name: &[u8]) -> Result<(), Errno> {
    if name.starts_with(OWN_ATTRIBUTE) { Err(Errno::PERM) } else { Ok(()) }
}

/// Reads up to `buffer.len()` bytes, fewer only at the end of the file.
pub(super) fn read_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        let position = offset + filled as u64;
        let rest = &mut buffer[filled..];
        match rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut *rest, position))? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Hashes of successive blocks; the last one may be short.
pub(super) fn hashes(data: &[u8]) -> Vec<BlockHash> {
    data.chunks(BLOCK_BYTES).map(|block| *blake3::hash(block).as_bytes()).collect()
}
