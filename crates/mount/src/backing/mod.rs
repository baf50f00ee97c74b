//! Operations on a backing tree: the directory itself, reached below whatever is mounted on it.
//!
//! Everything goes by descriptor and single name, never by path, so that no rename elsewhere and
//! no mount can redirect it, and symlinks are never followed. It replicates nothing and keeps no
//! table of files.

mod acl;
mod change;
mod directory;
mod handle;
mod stat;
mod xattr;

pub use acl::{ACCESS_ACL, DEFAULT_ACL, has_acls, minimal_acl};
pub use change::{Kind, allocate, create, link, make, make_unnamed, remove, rename, set_attr};
pub use directory::{DirEntry, DirReader, read_dir};
pub use handle::{Handle, Root, handle_of, open_name, reopen, same_file};
pub use stat::{Stat, stat};
pub use xattr::{get_xattr, list_xattr, remove_xattr, set_xattr};

pub(crate) use change::{Moment, set_times};
pub(crate) use handle::magic_path;
