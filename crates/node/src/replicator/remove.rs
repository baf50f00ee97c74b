//! Removing a name with everything below it, without following anything out of the tree.

use std::os::fd::{AsFd, OwnedFd};

use mount::backing::{self, Kind};
use rustix::io::Errno;

/// A directory being emptied.
struct Level {
    parent: OwnedFd,
    name: Vec<u8>,
    directory: OwnedFd,
}

/// Removes a name and everything below it; that it is not there is no error.
pub(super) fn remove_tree(directory: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let Some(first) = enter(directory.as_fd().try_clone_to_owned().map_err(errno)?, name)? else {
        return Ok(());
    };
    let mut levels = vec![first];
    while let Some(level) = levels.last() {
        match first_entry(&level.directory)? {
            Some((entry, Kind::Directory)) => {
                let parent = level.directory.try_clone().map_err(errno)?;
                levels.extend(enter(parent, &entry)?);
            }
            Some((entry, _)) => tolerate_absence(backing::remove(&level.directory, &entry, false))?,
            None => {
                tolerate_absence(backing::remove(&level.parent, &level.name, true))?;
                levels.pop();
            }
        }
    }
    Ok(())
}

/// Removes what is not a directory; opens what is.
fn enter(parent: OwnedFd, name: &[u8]) -> Result<Option<Level>, Errno> {
    let found = match backing::open_name(&parent, name) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    if backing::stat(&found)?.kind() != Kind::Directory {
        tolerate_absence(backing::remove(&parent, name, false))?;
        return Ok(None);
    }
    Ok(Some(Level { parent, name: name.to_vec(), directory: found }))
}

fn first_entry(directory: &OwnedFd) -> Result<Option<(Vec<u8>, Kind)>, Errno> {
    let mut reader = backing::read_dir(directory)?;
    loop {
        let chunk = reader.next_chunk()?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let real = chunk.into_iter().find(|entry| entry.name != b"." && entry.name != b"..");
        if let Some(entry) = real {
            let kind = match entry.kind {
                Kind::Other => backing::stat(&backing::open_name(directory, &entry.name)?)?.kind(),
                known => known,
            };
            return Ok(Some((entry.name, kind)));
        }
    }
}

fn tolerate_absence(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
