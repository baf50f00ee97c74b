//! What is not replicated, at the target: it is this node's own, and goes only with the directory
//! that holds it.

use std::os::fd::AsFd;

use mount::backing::{self, Kind};
use rustix::io::Errno;

use crate::replicator::log::suspects::by_path;
use crate::replicator::remove::remove_tree;
use crate::replicator::store::Store;

impl Store {
    /// Before a directory is removed that the source has found empty: removes what is left out of
    /// the replication here.
    pub(super) fn remove_excluded(
        &self,
        tree: u16,
        parent: impl AsFd,
        name: &[u8],
    ) -> Result<(), Errno> {
        let tree = usize::from(tree);
        let Some(exclude) = self.excluded.get(tree).filter(|exclude| !exclude.is_empty()) else {
            return Ok(());
        };
        let Ok(directory) = backing::open_name(parent, name) else { return Ok(()) };
        if backing::stat(&directory)?.kind() != Kind::Directory {
            return Ok(());
        }
        let root = self.roots.get(tree).ok_or(Errno::STALE)?;
        let Some(path) = by_path(root, &directory) else { return Ok(()) };
        let mut names = Vec::new();
        let mut reader = backing::read_dir(&directory)?;
        loop {
            let chunk = reader.next_chunk()?;
            if chunk.is_empty() {
                break;
            }
            names.extend(chunk.into_iter().map(|entry| entry.name));
        }
        for name in names.into_iter().filter(|name| name != b"." && name != b"..") {
            let mut path = path.clone();
            path.push(name.clone());
            if exclude.covers(&path) {
                remove_tree(&directory, &name)?;
            }
        }
        Ok(())
    }
}
