//! What was moved while the target was away, at the target: found under its former name, and
//! brought to its new one instead of being copied.
//!
//! It is only a saving. What is taken for an object of the source is compared like anything else,
//! so a wrong guess costs time and nothing more; where in doubt, nothing is guessed.

use mount::backing::{self, Kind};
use replica::op::FileId;
use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;
use wire::replication::Ensure;

use crate::replicator::log::suspects::by_path;
use crate::replicator::store::{After, Store};

impl Store {
    /// Gives an object the source's id that stands where the source says it stood.
    pub(super) fn formerly(
        &mut self,
        file: FileId,
        directory: bool,
        (parent, name): (FileId, &[u8]),
    ) -> Result<After, Errno> {
        if self.bound.contains_key(&file) {
            return Ok(After::Nothing);
        }
        let found = self.object(parent).and_then(|place| backing::open_name(place, name));
        let found = match found {
            Ok(found) => found,
            Err(Errno::IO | Errno::UCLEAN) => return found.map(|_| After::Nothing),
            Err(_) => return Ok(After::Nothing),
        };
        let stat = backing::stat(&found)?;
        let alike = match stat.kind() {
            Kind::Directory => directory,
            // A file with other names may be another one by those.
            Kind::File => !directory && stat.nlink == 1,
            _ => false,
        };
        if alike && self.id_of(file.tree, &found)?.is_none() {
            self.bind(file, &found)?;
            self.recognized.insert(file);
        }
        Ok(After::Nothing)
    }

    /// Moves a directory that was found under its former name to where it belongs; false when it
    /// was not, or cannot be moved there.
    pub(super) fn bring(
        &mut self,
        ensure: &Ensure<'_>,
        to: &std::os::fd::OwnedFd,
        how: RenameFlags,
    ) -> Result<bool, Errno> {
        let directory = Kind::of_mode(ensure.mode) == Kind::Directory;
        if !directory || !self.recognized.contains(&ensure.file) {
            return Ok(false);
        }
        let Ok(object) = self.object(ensure.file) else { return Ok(false) };
        let root = self.roots.get(usize::from(ensure.file.tree)).ok_or(Errno::STALE)?;
        let Some(mut components) = by_path(root, &object) else { return Ok(false) };
        let Some(name) = components.pop() else { return Ok(false) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut from = rustix::fs::openat(&**root, ".", flags, rustix::fs::Mode::empty())?;
        for component in &components {
            from = backing::open_name(&from, component)?;
        }
        match rustix::fs::renameat_with(&from, &*name, to, ensure.name, how) {
            Ok(()) => Ok(true),
            Err(errno @ (Errno::IO | Errno::ROFS | Errno::UCLEAN)) => Err(errno),
            // Below itself, for instance.
            Err(_) => Ok(false),
        }
    }
}
