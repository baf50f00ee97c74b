//! What of a tree is not replicated: found out by names, from an object up to the root.

use replica::op::FileId;

use super::Tree;

/// Directories on the way to the root beyond which a way is taken for a circle.
const DEPTH_MAX: usize = 1 << 14;

impl Tree {
    /// Whether anything is left out at all.
    #[must_use]
    pub fn has_excluded(&self) -> bool {
        !self.exclude.is_empty()
    }

    /// Whether an object is not replicated: every name that it is known by is left out. What has no
    /// name any more counts as it did for whoever made it: as replicated.
    #[must_use]
    pub fn is_excluded(&self, file: FileId) -> bool {
        if !self.has_excluded() {
            return false;
        }
        let names = self.names_of(file);
        !names.is_empty() && names.iter().all(|(parent, name)| self.is_excluded_name(*parent, name))
    }

    /// Whether what stands, or will stand, under a name is not replicated under it.
    #[must_use]
    pub fn is_excluded_name(&self, parent: FileId, name: &[u8]) -> bool {
        if !self.has_excluded() {
            return false;
        }
        self.path_of(parent).is_some_and(|mut path| {
            path.push(name.to_vec());
            self.exclude.covers(&path)
        })
    }

    /// Whether a directory must keep its name, as something below it is left out by its path.
    #[must_use]
    pub fn must_stay(&self, parent: FileId, name: &[u8]) -> bool {
        let path = || {
            let mut path = self.path_of(parent)?;
            path.push(name.to_vec());
            Some(path)
        };
        self.has_excluded() && path().is_some_and(|path| self.exclude.has_below(&path))
    }

    /// Names from the root down to a directory.
    fn path_of(&self, directory: FileId) -> Option<Vec<Vec<u8>>> {
        let mut path = Vec::new();
        let mut at = directory;
        while at.node != fuse::ROOT {
            let (parent, name) = self.name_of(at)?;
            path.push(name);
            at = parent;
            if path.len() > DEPTH_MAX {
                return None;
            }
        }
        path.reverse();
        Some(path)
    }
}
