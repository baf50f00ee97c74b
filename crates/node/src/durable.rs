//! Files that are replaced as a whole and are durable before the call returns.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::room;

/// Replaces the file by `value` as JSON; after a crash either the old or the new content is there.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
    replace(path, &text, 0o644)
}

/// The same for a text that nobody else may read.
pub(crate) fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    replace(path, text.as_bytes(), 0o600).map_err(|error| named(path, &error))
}

/// The same for a text that everybody may read.
pub(crate) fn write_text(path: &Path, text: &str) -> io::Result<()> {
    replace(path, text.as_bytes(), 0o644).map_err(|error| named(path, &error))
}

/// The same for a text that keeps who may do what with it, but for who may run it.
pub(crate) fn write_in_place(path: &Path, text: &str, executable: bool) -> io::Result<()> {
    let before = fs::metadata(path).map_or(0o644, |metadata| metadata.permissions().mode() & 0o777);
    // Who may read it may run it.
    let runs = (before & 0o444) >> 2;
    let mode = if executable { before | runs } else { before & !0o111 };
    replace(path, text.as_bytes(), mode).map_err(|error| named(path, &error))
}

/// Uses what was set aside where the disk is full.
fn replace(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    loop {
        match replace_once(path, text, mode) {
            Err(error) if is_full(&error) && room::give_up(path) => {}
            outcome => return outcome,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn replace_once(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(directory)?;
    let temporary = path.with_extension("new");
    // One that an earlier attempt has left may be open to others.
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

/// Reads such a file; none when there is none. A file that cannot be understood is an error that
/// names it: guessing could start an application on the wrong data.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(path, &error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| named(path, &io::Error::other(error)))
}

/// Removes such a file; after a crash it stays removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    File::open(directory)?.sync_all()
}

/// Renames such a file, or a directory; after a crash it stays so.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let parent = |path: &Path| path.parent().map(Path::to_owned);
    let (source, target) = (parent(from), parent(to));
    let (source, target) = source.zip(target).ok_or(io::ErrorKind::InvalidInput)?;
    // Opened first, so that little can fail once it has a new name.
    let (source, target) = (File::open(source)?, File::open(target)?);
    fs::rename(from, to).map_err(|error| named(from, &error))?;
    target.sync_all()?;
    source.sync_all()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
