//! What is asked about the names of the source's tree.
//!
//! The answers are the shell's.

use crate::op::FileId;

/// What the source's tree can tell about names, as of after the operation.
pub trait Names {
    /// Known names of an object.
    fn names_of(&self, file: FileId) -> Vec<(FileId, Vec<u8>)>;
    /// The object that stands under a name.
    fn child(&self, parent: FileId, name: &[u8]) -> Option<FileId>;
    /// Whether the object has any name at all, known or not.
    fn is_linked(&self, file: FileId) -> bool;
    /// Whether the id is still in use; an id that is not will never be used again.
    fn is_known(&self, file: FileId) -> bool;
}

/// Names as they were before one was added.
pub struct Without<'a> {
    /// Names as they are now.
    pub names: &'a dyn Names,
    /// Directory of the name that counts as absent.
    pub parent: FileId,
    /// That name.
    pub name: &'a [u8],
}

impl Names for Without<'_> {
    fn names_of(&self, file: FileId) -> Vec<(FileId, Vec<u8>)> {
        let mut names = self.names.names_of(file);
        names.retain(|(parent, name)| *parent != self.parent || name != self.name);
        names
    }

    fn child(&self, parent: FileId, name: &[u8]) -> Option<FileId> {
        self.names.child(parent, name)
    }

    fn is_linked(&self, file: FileId) -> bool {
        self.names.is_linked(file)
    }

    fn is_known(&self, file: FileId) -> bool {
        self.names.is_known(file)
    }
}
