//! What the target does in a resync: makes objects be what the source says, answers questions,
//! and takes live operations on a tree that is not yet the source's.

use mount::backing::{self, Kind};
use replica::Theirs;
use replica::op::{Attr, FileId, Op, Stamp};
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use wire::recall::{Recalled, Strayed, Suspect};
use wire::replication::{Attributes, BLOCK_BYTES, Backward, BlockHash, Ensure, put_backward};

use crate::replicator::compare;
use crate::replicator::log::suspects;
use crate::replicator::remove::remove_tree;
use crate::replicator::store::{After, Store, set_mtime, write_at};

/// Suspects told in one message; their paths are of a length that file systems allow.
const SUSPECTS_AT_ONCE: usize = 512;

/// Bytes of names in one part of a listing.
const LISTING_BYTES: usize = 256 << 10;

impl Store {
    /// A live operation did not apply as it did at the source.
    pub(super) fn tolerate(&mut self, op: &Op<'_>, errno: Errno) -> Result<After, Errno> {
        if let Some(lost) = self.lost_directory(op) {
            return Ok(self.leave_out(op, lost));
        }
        match (op, errno) {
            // A full disk or a broken one is no matter of being behind.
            (_, Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::ROFS) => return Err(errno),
            (
                Op::Write { file, .. }
                | Op::SetAttr { file, .. }
                | Op::SetXattr { file, .. }
                | Op::Allocate { file, .. }
                | Op::Sync { file, .. },
                Errno::STALE,
            ) => return Ok(self.absent(*file)),
            (Op::RemoveXattr { file, .. }, Errno::STALE) => return Ok(self.absent(*file)),
            (Op::RemoveXattr { .. }, Errno::NODATA) => {}
            (Op::Create { parent, name, .. }, Errno::EXIST) => {
                let place = self.object(*parent)?;
                self.spare_name(parent.tree, &place, name)?;
                remove_tree(place, name)?;
                self.create(op)?;
            }
            (Op::Link { file, parent, name, parent_mtime }, _) => {
                return self.link_over(*file, *parent, name, *parent_mtime);
            }
            (Op::Remove { parent, name, parent_mtime, .. }, _) => {
                let place = self.object(*parent)?;
                self.spare_name(parent.tree, &place, name)?;
                remove_tree(&place, name)?;
                set_mtime(&place, *parent_mtime)?;
            }
            (Op::Rename { .. }, _) => {
                self.rename_over(op)?;
                return Ok(After::Answer(astray(op, None)));
            }
            _ => return Err(errno),
        }
        Ok(After::Nothing)
    }

    /// A directory of the operation that is not held here any more.
    fn lost_directory(&self, op: &Op<'_>) -> Option<FileId> {
        let parents = match *op {
            Op::Create { parent, .. } | Op::Link { parent, .. } | Op::Remove { parent, .. } => {
                [parent, parent]
            }
            Op::Rename { parent, new_parent, .. } => [parent, new_parent],
            Op::Write { .. }
            | Op::SetAttr { .. }
            | Op::SetXattr { .. }
            | Op::RemoveXattr { .. }
            | Op::Allocate { .. }
            | Op::Sync { .. } => return None,
        };
        parents.into_iter().find(|parent| self.is_lost(*parent))
    }

    /// Whether an object is not there any more, or only for somebody who still has it open: nothing
    /// can be made in a directory that was removed.
    fn is_lost(&self, file: FileId) -> bool {
        match self.object(file).and_then(backing::stat) {
            Ok(stat) => stat.nlink == 0,
            Err(errno) => matches!(errno, Errno::STALE | Errno::NOENT),
        }
    }

    /// An operation in a directory that is lost is left out. The source will go through that
    /// directory anew, but of a rename the other name may be wrong as well.
    fn leave_out(&mut self, op: &Op<'_>, lost: FileId) -> After {
        self.unbind(lost);
        let mut frames = Vec::new();
        put_backward(&mut frames, &Backward::Absent { file: lost });
        frames.extend(astray(op, Some(lost)));
        After::Answer(frames)
    }

    pub(super) fn absent(&mut self, file: FileId) -> After {
        self.unbind(file);
        After::Absent(file)
    }

    fn link_over(
        &mut self,
        file: FileId,
        parent: FileId,
        name: &[u8],
        parent_mtime: Stamp,
    ) -> Result<After, Errno> {
        let directory = self.object(parent)?;
        self.spare_name(parent.tree, &directory, name)?;
        remove_tree(&directory, name)?;
        let linked = self.object(file).and_then(|object| backing::link(object, &directory, name));
        set_mtime(&directory, parent_mtime)?;
        match linked {
            Ok(()) => Ok(After::Nothing),
            Err(Errno::STALE | Errno::NOENT) => Ok(self.absent(file)),
            Err(errno) => Err(errno),
        }
    }

    /// Moves what is there, over whatever stands in the way; the walk puts the new name right.
    fn rename_over(&mut self, op: &Op<'_>) -> Result<(), Errno> {
        let Op::Rename { parent, name, new_parent, new_name, .. } = *op else { return Ok(()) };
        let (from, to) = (self.object(parent)?, self.object(new_parent)?);
        self.spare_name(new_parent.tree, &to, new_name)?;
        remove_tree(&to, new_name)?;
        match backing::rename(from, name, to, new_name, 0) {
            Ok(()) | Err(Errno::NOENT) => self.rename_mtimes(op),
            Err(errno) => Err(errno),
        }
    }

    /// Makes what stands under a name be an object of the source. An object that was held before
    /// and had to be made anew is told as absent: the source believes that its content is here.
    pub(super) fn ensure(&mut self, ensure: &Ensure<'_>) -> Result<After, Errno> {
        if self.is_lost(ensure.parent) {
            return Ok(self.absent(ensure.parent));
        }
        let believed = ensure.held || self.bound.contains_key(&ensure.file);
        let held = self.is_held(ensure.file);
        let kept = self.place(ensure, held)?;
        self.dress(&ensure_attributes(ensure), Some(ensure))?;
        Ok(if believed && !kept { After::Absent(ensure.file) } else { After::Nothing })
    }

    /// Puts an object under a name; says whether it is the one that was held before.
    fn place(&mut self, ensure: &Ensure<'_>, held: bool) -> Result<bool, Errno> {
        let directory = self.object(ensure.parent)?;
        let standing = match backing::open_name(&directory, ensure.name) {
            Ok(standing) => Some(standing),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno),
        };
        let id = match &standing {
            Some(standing) => self.id_of(ensure.file.tree, standing)?,
            None => None,
        };
        if let Some(standing) = standing {
            if id == Some(ensure.file) {
                return Ok(true);
            }
            if id.is_none() && !held && is_alike(&standing, ensure)? {
                self.bind(ensure.file, &standing)?;
                return Ok(false);
            }
            if id.is_some() && self.bring(ensure, &directory, RenameFlags::EXCHANGE)? {
                return Ok(true);
            }
            self.spare_name(ensure.parent.tree, &directory, ensure.name)?;
            remove_tree(&directory, ensure.name)?;
        }
        if self.bring(ensure, &directory, RenameFlags::NOREPLACE)? {
            return Ok(true);
        }
        match self.object(ensure.file) {
            Ok(object) if self.is_linkable(ensure) => {
                backing::link(object, &directory, ensure.name)?;
                Ok(true)
            }
            Ok(_) | Err(Errno::STALE | Errno::NOENT) => {
                let (mode, uid, gid) = (ensure.mode, ensure.uid, ensure.gid);
                let object = backing::create(
                    &directory,
                    ensure.name,
                    mode,
                    uid,
                    gid,
                    ensure.rdev,
                    ensure.target,
                )?;
                self.came_with_source(ensure.parent.tree, &object);
                self.bind(ensure.file, &object)?;
                Ok(false)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Whether the object is held and may get one more name. What was removed just now, as it
    /// stood in the way under its only name, is not held any more.
    fn is_linkable(&self, ensure: &Ensure<'_>) -> bool {
        Kind::of_mode(ensure.mode) != Kind::Directory && self.is_held(ensure.file)
    }

    /// Whether the object is there under some name.
    fn is_held(&self, file: FileId) -> bool {
        self.object(file).and_then(backing::stat).is_ok_and(|stat| stat.nlink > 0)
    }

    /// Gives an object its owner, mode and attributes; and, when its whole description is at
    /// hand, its size, or for what has no content its modification time.
    pub(super) fn dress(
        &mut self,
        wanted: &Attributes<'_>,
        whole: Option<&Ensure<'_>>,
    ) -> Result<(), Errno> {
        let object = self.object(wanted.file)?;
        let stat = backing::stat(&object)?;
        let kind = stat.kind();
        let differs = |now: u32, wanted: u32| (now != wanted).then_some(wanted);
        let size = whole.filter(|whole| kind == Kind::File && stat.size != whole.size);
        let mut attr = Attr {
            mode: differs(stat.mode, wanted.mode),
            uid: differs(stat.uid, wanted.uid),
            gid: differs(stat.gid, wanted.gid),
            size: size.map(|whole| whole.size),
            mtime: None,
        };
        if attr.uid.is_some() || attr.gid.is_some() || attr.size.is_some() {
            // A change of owner or size clears set-id bits, so the mode goes with it.
            attr.mode = Some(wanted.mode);
        }
        attr.mode = attr.mode.filter(|_| kind != Kind::Symlink).map(|mode| mode & 0o7777);
        if attr.size.is_some() {
            self.spare(wanted.file)?;
        }
        if attr != Attr::default() {
            backing::set_attr(&object, &attr)?;
        }
        dress_xattrs(&object, kind, &wanted.xattrs)?;
        match (kind, whole) {
            (Kind::File | Kind::Directory, _) | (_, None) => Ok(()),
            (_, Some(whole)) => set_mtime(&object, whole.mtime),
        }
    }

    pub(super) fn attributes(&mut self, wanted: &Attributes<'_>) -> Result<After, Errno> {
        match self.dress(wanted, None) {
            Ok(()) => Ok(After::Nothing),
            Err(Errno::STALE | Errno::NOENT) => Ok(self.absent(wanted.file)),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn discard(&mut self, parent: FileId, name: &[u8]) -> Result<After, Errno> {
        match self.object(parent) {
            Ok(directory) => {
                self.spare_name(parent.tree, &directory, name)?;
                remove_tree(directory, name).map(|()| After::Nothing)
            }
            Err(Errno::STALE | Errno::NOENT) => Ok(After::Nothing),
            Err(errno) => Err(errno),
        }
    }

    /// Tells how this copy relates to the source's, and in what it strayed on its own.
    pub(super) fn recall(&mut self) -> Result<After, Errno> {
        let mut recalled = self.log.recalled();
        let strayed = match suspects::strayed_paths(&self.roots, &self.log.entries()) {
            Ok(strayed) => strayed,
            Err(errno @ (Errno::IO | Errno::UCLEAN)) => return Err(errno),
            Err(_) => {
                recalled.usable = false;
                Vec::new()
            }
        };
        Ok(recollection(recalled, &strayed))
    }

    pub(super) fn list(&mut self, tag: u64, directory: FileId) -> Result<After, Errno> {
        let mut names: Vec<(Vec<u8>, Theirs)> = Vec::new();
        let since = self.log.since();
        let place = match self.object(directory) {
            Ok(place) => place,
            // It was removed meanwhile, as the source will find too.
            Err(Errno::STALE | Errno::NOENT) => return Ok(listing(tag, &names)),
            Err(errno) => return Err(errno),
        };
        let mut reader = backing::read_dir(&place)?;
        loop {
            let chunk = reader.next_chunk()?;
            if chunk.is_empty() {
                return Ok(listing(tag, &names));
            }
            for entry in chunk {
                let hidden = directory.node == 1 && entry.name == b"lost+found";
                if entry.name == b"." || entry.name == b".." || hidden {
                    continue;
                }
                let stat = backing::stat(backing::open_name(&place, &entry.name)?)?;
                let theirs = Theirs {
                    size: if stat.kind() == Kind::File { stat.size } else { 0 },
                    kind: stat.kind().dirent(),
                    recent: compare::is_recent(&stat, since),
                };
                names.push((entry.name, theirs));
            }
        }
    }

    pub(super) fn compare(
        &mut self,
        tag: u64,
        file: FileId,
        offset: u64,
        hashes: &[BlockHash],
    ) -> Result<After, Errno> {
        let mut blocks = 0;
        // Without the file everything differs; what is sent then tells the source that it is gone.
        match self.data(file) {
            Err(Errno::STALE | Errno::NOENT) => blocks = u32::MAX,
            Err(errno) => return Err(errno),
            Ok(target) => {
                let mut buffer = vec![0; BLOCK_BYTES * hashes.len()];
                let length = compare::read_at(&*target, &mut buffer, offset)?;
                let ours = compare::hashes(&buffer[..length]);
                for (index, hash) in hashes.iter().enumerate() {
                    if ours.get(index) != Some(hash) {
                        blocks |= 1 << index;
                    }
                }
            }
        }
        let mut frame = Vec::new();
        put_backward(&mut frame, &Backward::Differ { tag, blocks });
        Ok(After::Answer(frame))
    }

    pub(super) fn block(&mut self, file: FileId, offset: u64, data: &[u8]) -> Result<After, Errno> {
        self.spare(file)?;
        match self.data(file) {
            Ok(target) => write_at(&*target, data, offset).map(|()| After::Nothing),
            Err(Errno::STALE | Errno::NOENT) => Ok(self.absent(file)),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn finish(&mut self, file: FileId, mtime: Stamp) -> Result<After, Errno> {
        match self.object(file) {
            Ok(object) => set_mtime(object, mtime).map(|()| After::Nothing),
            Err(Errno::STALE | Errno::NOENT) => Ok(self.absent(file)),
            Err(errno) => Err(errno),
        }
    }
}

/// Says of a rename that was not made as at the source which names may be wrong now, other than
/// those in a directory that is lost.
fn astray(op: &Op<'_>, lost: Option<FileId>) -> Vec<u8> {
    let mut frames = Vec::new();
    if let Op::Rename { parent, name, new_parent, new_name, .. } = *op {
        let names = [(parent, name), (new_parent, new_name)].into_iter();
        for (parent, name) in names.filter(|(parent, _)| Some(*parent) != lost) {
            put_backward(&mut frames, &Backward::Astray { parent, name });
        }
    }
    frames
}

fn ensure_attributes<'a>(ensure: &Ensure<'a>) -> Attributes<'a> {
    let Ensure { file, mode, uid, gid, .. } = *ensure;
    Attributes { file, mode, uid, gid, xattrs: ensure.xattrs.clone() }
}

fn dress_xattrs(
    object: &std::os::fd::OwnedFd,
    kind: Kind,
    wanted: &[(&[u8], &[u8])],
) -> Result<(), Errno> {
    let now = compare::xattrs_of(object, kind)?;
    for (name, _) in &now {
        if !wanted.iter().any(|(wanted, _)| wanted == name) {
            backing::remove_xattr(object, name)?;
        }
    }
    for (name, value) in wanted {
        compare::check_attribute(name)?;
        if !now.iter().any(|(n, v)| n == name && v == value) {
            backing::set_xattr(object, name, value, 0)?;
        }
    }
    Ok(())
}

/// Whether an object can become what the source has by changing its attributes and content.
fn is_alike(standing: &std::os::fd::OwnedFd, ensure: &Ensure<'_>) -> Result<bool, Errno> {
    let stat = backing::stat(standing)?;
    let kind = Kind::of_mode(ensure.mode);
    let shared = kind != Kind::Directory && stat.nlink > 1;
    Ok(stat.kind() == kind
        && !(ensure.apart && shared)
        && match kind {
            Kind::Symlink => {
                rustix::fs::readlinkat(standing, "", Vec::new())?.as_bytes() == ensure.target
            }
            Kind::Character | Kind::Block => stat.rdev == ensure.rdev,
            _ => true,
        })
}

fn recollection(recalled: Recalled, strayed: &[(u16, Vec<u8>, Strayed)]) -> After {
    let mut frames = Vec::new();
    put_backward(&mut frames, &Backward::Recalled(recalled));
    for part in strayed.chunks(SUSPECTS_AT_ONCE) {
        let suspects = part.iter().map(|(tree, path, strayed)| Suspect {
            tree: *tree,
            path,
            strayed: *strayed,
        });
        let suspects = suspects.collect();
        put_backward(&mut frames, &Backward::Suspects { last: false, suspects });
    }
    put_backward(&mut frames, &Backward::Suspects { last: true, suspects: Vec::new() });
    After::Answer(frames)
}

fn listing(tag: u64, names: &[(Vec<u8>, Theirs)]) -> After {
    let mut frames = Vec::new();
    let mut part: Vec<(&[u8], Theirs)> = Vec::new();
    let mut bytes = 0;
    for (name, theirs) in names {
        bytes += name.len() + 14;
        part.push((name, *theirs));
        if bytes > LISTING_BYTES {
            let entries = std::mem::take(&mut part);
            put_backward(&mut frames, &Backward::Listed { tag, last: false, entries });
            bytes = 0;
        }
    }
    put_backward(&mut frames, &Backward::Listed { tag, last: true, entries: part });
    After::Answer(frames)
}
