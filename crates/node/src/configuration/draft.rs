//! The files as they lie in the directory of the configuration, where people edit them.
//!
//! What they mean is not looked at. Hidden files, and what editors leave, are passed over; what can
//! not be carried to other nodes, such as a link, is an error that names it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use cluster::configuration::Version;
use model::config::{CLUSTER_FILE, Content, FILE_BYTES_MAX, FILES_MAX, Files, is_module_file};

use crate::durable;
use crate::layout::Layout;

/// How deep directories may lie in that of a module.
const DEPTH_MAX: usize = 8;

/// Reads all files of the configuration.
///
/// # Errors
/// What cannot be read or carried, as a sentence.
pub(crate) fn read(layout: &Layout) -> Result<Files, String> {
    let mut files = Files::default();
    read_file(&layout.cluster_file(), CLUSTER_FILE, &mut files)?;
    read_directory(&layout.module_directory(), "modules", 0, &mut files)?;
    files.check()?;
    Ok(files)
}

fn read_directory(
    directory: &Path,
    shown: &str,
    depth: usize,
    files: &mut Files,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound && depth == 0 => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| format!("{shown}: a name is no text"))?;
        if is_passed_over(name) {
            continue;
        }
        let (path, shown) = (entry.path(), format!("{shown}/{name}"));
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() && depth < DEPTH_MAX {
            read_directory(&path, &shown, depth + 1, files)?;
        } else if kind.is_file() && (depth > 0 || is_module_file(&shown)) {
            read_file(&path, &shown, files)?;
        } else if depth > 0 || is_module_file(&shown) {
            return Err(format!("{} is no plain file, and cannot be applied", path.display()));
        }
        if files.0.len() > FILES_MAX {
            return Err(format!("there are more than {FILES_MAX} files"));
        }
    }
    Ok(())
}

fn is_passed_over(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with('~') || name.ends_with(".new")
}

fn read_file(path: &Path, shown: &str, files: &mut Files) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("{} is no plain file, and cannot be applied", path.display()));
    }
    if metadata.len() > FILE_BYTES_MAX as u64 {
        return Err(format!("{} is longer than {} KiB", path.display(), FILE_BYTES_MAX >> 10));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let executable = metadata.permissions().mode() & 0o111 != 0;
    files.0.insert(shown.to_owned(), Content { text, executable });
    Ok(())
}

/// Has the files follow a configuration. One that is neither as it was before nor as it shall be
/// was edited: it stays, unless it is to be overwritten.
pub(crate) fn follow(
    layout: &Layout,
    before: &Files,
    version: &Version,
    overwrite: bool,
) -> io::Result<()> {
    let top = layout.configuration_directory();
    // What cannot be read whole is not written over.
    let draft = read(layout).map_err(io::Error::other)?;
    let edited = cluster::configuration::edited(&draft, version, &before.digests());
    let stays = |path: &String| !overwrite && edited.contains(path);
    for (path, content) in version.files.0.iter().filter(|(path, _)| !stays(path)) {
        if draft.0.get(path) != Some(content) {
            durable::write_in_place(&top.join(path), &content.text, content.executable)?;
        }
    }
    let known = draft.0.keys().chain(before.0.keys().filter(|path| !draft.0.contains_key(*path)));
    for path in known.filter(|path| !version.files.0.contains_key(*path) && !stays(path)) {
        let path = top.join(path);
        match durable::remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // Only one that is empty goes, and nobody minds if it stays.
        let directory = path.parent().filter(|parent| *parent != layout.module_directory());
        let _ = directory.map(fs::remove_dir);
    }
    Ok(())
}

/// By what a change of the files shows without reading them.
pub(crate) fn signature(layout: &Layout) -> Vec<(u64, u64, i64, i64)> {
    let mut found = Vec::new();
    look(&layout.cluster_file(), &mut found);
    walk(&layout.module_directory(), 0, &mut found);
    found.sort_unstable();
    found
}

fn walk(directory: &Path, depth: usize, found: &mut Vec<(u64, u64, i64, i64)>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if found.len() > 4 * FILES_MAX || depth > DEPTH_MAX {
            return;
        }
        look(&entry.path(), found);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), depth + 1, found);
        }
    }
}

fn look(path: &Path, found: &mut Vec<(u64, u64, i64, i64)>) {
    if let Ok(metadata) = fs::symlink_metadata(path) {
        let (seconds, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
        found.push((metadata.ino(), metadata.size(), seconds, nanoseconds));
    }
}
