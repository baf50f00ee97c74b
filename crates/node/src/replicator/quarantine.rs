//! Quarantine: what a copy holds that was given up, kept aside before a resync overwrites it.
//!
//! Whole files, under their paths and with their owners and times, so that nobody needs a tool to
//! look at them or to take something back. A file is kept once, before it is changed for the first
//! time, and durably: until then the change waits. Nothing is ever taken from here into the copy,
//! and what is not content of files and symlinks (attributes, devices) is not kept.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mount::backing::{self, DirReader, Handle, Kind, Root};
use replica::op::{Attr, FileId};
use rustix::fs::OFlags;
use rustix::io::Errno;
use wire::replication::Forward;

use crate::clock;
use crate::replicator::Directory;
use crate::replicator::log::suspects::by_path;
use crate::replicator::store::{Store, describe};

/// Copied at once.
const CHUNK_BYTES: u64 = 8 << 20;
/// Files of one directory that are made durable together. Each alone would wait for the disk, and
/// a directory may have very many.
const TOGETHER: usize = 256;

impl Store {
    /// The content of a file is about to be changed.
    pub(super) fn spare(&mut self, file: FileId) -> Result<(), Errno> {
        if self.strict || self.quarantine.is_none() {
            return Ok(());
        }
        let object = match self.object(file) {
            Ok(object) => object,
            Err(Errno::STALE | Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        self.quarantine.as_mut().map_or(Ok(()), |quarantine| quarantine.keep(file.tree, &object))
    }

    /// A name is about to be removed or replaced.
    pub(super) fn spare_name(
        &mut self,
        tree: u16,
        directory: impl AsFd,
        name: &[u8],
    ) -> Result<(), Errno> {
        match &mut self.quarantine {
            Some(quarantine) if !self.strict => quarantine.keep_name(tree, directory, name),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn came_with_source(&mut self, tree: u16, object: impl AsFd) {
        if let Some(quarantine) = self.quarantine.as_mut().filter(|_| !self.strict) {
            quarantine.came_with_source(tree, object);
        }
    }

    /// What could not be done of a message.
    pub(super) fn failed_at(&mut self, message: &Forward<'_>) -> String {
        let unkept = self.quarantine.as_mut().and_then(|quarantine| quarantine.failed.take());
        unkept.unwrap_or_else(|| describe(message))
    }
}

/// What was copied of an object.
enum Content {
    /// A file that lies here under a name of its own.
    File(PathBuf),
    Symlink(OsString),
}

struct Copied {
    object: (u16, Handle),
    content: Content,
    /// Where it is to be kept.
    path: PathBuf,
    /// Where else, if that cannot be.
    nameless: PathBuf,
}

/// The quarantine of one copy that was given up.
pub(super) struct Quarantine {
    folder: PathBuf,
    /// What the names of files begin with that are being copied. A copy is gone on with in the same
    /// boot only, as the end of another one may never have reached the disk.
    parts: PathBuf,
    trees: Vec<(PathBuf, Arc<Root>)>,
    /// What has been kept, or came from the new source and need not be.
    seen: BTreeSet<(u16, Handle)>,
    /// The same for later sessions. A lost line makes a file be kept that need not be.
    seen_file: File,
    /// The folder that was made durable last, with the names of all above it.
    synced: PathBuf,
    /// Opened before anything is copied, so that it knows of every error of the disk.
    disk: File,
    /// What was copied and has no name here yet.
    copied: Vec<Copied>,
    /// Why something could not be kept.
    failed: Option<String>,
}

impl Quarantine {
    /// Goes on with the quarantine that was begun at a time since 1970, or begins it.
    pub(super) fn open(
        folder: &Path,
        begun: Duration,
        directories: &[Directory],
    ) -> io::Result<Quarantine> {
        let folder = folder.join(begun.as_secs().to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let parts = format!("part-{:x}", clock::boot_id()?.0);
        remove_other_parts(&folder, &parts)?;
        for above in folder.ancestors().skip(1).take(2) {
            File::open(above)?.sync_all()?;
        }
        let path = folder.join("seen");
        let mut seen_file =
            OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(&path)?;
        let mut text = String::new();
        seen_file.read_to_string(&mut text)?;
        let seen = text.lines().filter_map(read_seen).collect();
        let trees = directories
            .iter()
            .map(|directory| (directory.path.clone(), Arc::clone(&directory.root)))
            .collect();
        let parts = folder.join(parts);
        Ok(Quarantine {
            synced: folder.clone(),
            disk: File::open(&folder)?,
            copied: Vec::new(),
            folder,
            parts,
            trees,
            seen,
            seen_file,
            failed: None,
        })
    }

    /// The content of a file is about to be changed.
    pub(super) fn keep(&mut self, tree: u16, object: &OwnedFd) -> Result<(), Errno> {
        self.copy(tree, object)?;
        self.finish()
    }

    /// Copies an object, unless that was done; it is kept once that is finished.
    fn copy(&mut self, tree: u16, object: &OwnedFd) -> Result<(), Errno> {
        let handle = (tree, backing::handle_of(object, b"")?);
        if self.seen.contains(&handle) || self.copied.iter().any(|one| one.object == handle) {
            return Ok(());
        }
        match self.copy_object(tree, object) {
            Ok(Some((content, [path, nameless]))) => {
                self.copied.push(Copied { object: handle, content, path, nameless });
            }
            Ok(None) => {}
            Err(error) => return Err(self.fail(&error)),
        }
        Ok(())
    }

    /// Makes durable what was copied, and gives it its names; only then it counts as kept.
    fn finish(&mut self) -> Result<(), Errno> {
        let copied = std::mem::take(&mut self.copied);
        if let Err(error) = self.name(&copied) {
            // The disk tells of an error once: what is here of a file may be less than it seems.
            for Copied { content, .. } in &copied {
                if let Content::File(part) = content {
                    let _ = fs::remove_file(part);
                }
            }
            return Err(self.fail(&error));
        }
        for one in copied {
            self.note(one.object);
        }
        Ok(())
    }

    fn fail(&mut self, error: &io::Error) -> Errno {
        self.failed = Some(format!("nothing is overwritten before it is in quarantine: {error}"));
        Errno::from_io_error(error).unwrap_or(Errno::IO)
    }

    fn name(&mut self, copied: &[Copied]) -> io::Result<()> {
        // Whole before it has its name: what a cut-off attempt leaves there misleads nobody.
        match copied {
            [Copied { content: Content::File(part), .. }] => File::open(part)?.sync_all()?,
            [] | [Copied { content: Content::Symlink(_), .. }] => {}
            _ => rustix::fs::syncfs(&self.disk)?,
        }
        let mut last = None;
        for one in copied {
            let path = self.place(one)?;
            match &one.content {
                Content::File(part) => fs::rename(part, &path)?,
                Content::Symlink(target) => std::os::unix::fs::symlink(target, &path)?,
            }
            last = Some(path);
        }
        match last {
            None => Ok(()),
            Some(path) if copied.len() == 1 => self.sync(folder_of(&path)),
            Some(_) => Ok(rustix::fs::syncfs(&self.disk)?),
        }
    }

    /// A name that nothing has yet, in a folder that is there: under the path of the object, or
    /// under its number where that cannot be. What was kept may stand in the way, for a directory
    /// can come to a name that a file had; and nothing goes through a link that was kept.
    fn place(&self, Copied { path, nameless, .. }: &Copied) -> io::Result<PathBuf> {
        let path = self.is_open(folder_of(path)).then(|| free(path.clone())).flatten();
        let path = path.or_else(|| free(nameless.clone()));
        let path = path.ok_or_else(|| io::Error::other(format!("no name for {nameless:?}")))?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder_of(&path))?;
        Ok(path)
    }

    /// Whether a folder is one, or can be made, with all that is above it here.
    fn is_open(&self, folder: &Path) -> bool {
        let mut above = folder.ancestors().take_while(|above| above.starts_with(&self.folder));
        above.all(|above| match above.symlink_metadata() {
            Ok(found) => found.is_dir(),
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
        })
    }

    /// A name is about to be removed, with everything below it.
    pub(super) fn keep_name(
        &mut self,
        tree: u16,
        directory: impl AsFd,
        name: &[u8],
    ) -> Result<(), Errno> {
        let object = match backing::open_name(directory, name) {
            Ok(object) => object,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        if backing::stat(&object)?.kind() != Kind::Directory {
            return self.keep(tree, &object);
        }
        // One descriptor for each level, however many entries there are.
        let mut levels = vec![Level::enter(object)?];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.next()? else {
                levels.pop();
                continue;
            };
            if backing::stat(&entry)?.kind() == Kind::Directory {
                levels.push(Level::enter(entry)?);
                continue;
            }
            if let Err(errno) = self.copy(tree, &entry) {
                // What was copied before need not be copied again; the error is told.
                let told = self.failed.take();
                let _ = self.finish();
                self.failed = told;
                return Err(errno);
            }
            if self.copied.len() >= TOGETHER {
                self.finish()?;
            }
        }
        self.finish()
    }

    /// An object was made by the new source: nothing of it is to be kept.
    pub(super) fn came_with_source(&mut self, tree: u16, object: impl AsFd) {
        if let Ok(handle) = backing::handle_of(object, b"") {
            self.note((tree, handle));
        }
    }

    fn note(&mut self, (tree, handle): (u16, Handle)) {
        let bytes = handle.to_bytes();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // What is not noted is kept once more than it need be.
        let _ = writeln!(self.seen_file, "{tree} {hex}");
        self.seen.insert((tree, handle));
    }

    /// Copies what an object holds, and tells where it is to be kept; nothing of what holds none.
    fn copy_object(
        &self,
        tree: u16,
        object: &OwnedFd,
    ) -> io::Result<Option<(Content, [PathBuf; 2])>> {
        let stat = backing::stat(object)?;
        let Some(paths) = self.paths(tree, object, stat.ino) else { return Ok(None) };
        match stat.kind() {
            Kind::File => {
                let mut part = self.parts.clone().into_os_string();
                part.push(format!("-{tree}-{}-{}", stat.dev, stat.ino));
                let part = PathBuf::from(part);
                copy(object, &part)?;
                backing::set_attr(
                    File::open(&part)?,
                    &Attr {
                        mode: Some(stat.mode & 0o777),
                        uid: Some(stat.uid),
                        gid: Some(stat.gid),
                        size: None,
                        mtime: Some(stat.mtime),
                    },
                )?;
                Ok(Some((Content::File(part), paths)))
            }
            Kind::Symlink => {
                let target = rustix::fs::readlinkat(object, "", Vec::new())?;
                let target = OsStr::from_bytes(target.as_bytes()).to_owned();
                Ok(Some((Content::Symlink(target), paths)))
            }
            Kind::Directory
            | Kind::Pipe
            | Kind::Socket
            | Kind::Character
            | Kind::Block
            | Kind::Other => Ok(None),
        }
    }

    /// Makes a name in a folder durable, with those of the folders above it that may be new.
    fn sync(&mut self, folder: &Path) -> io::Result<()> {
        for above in folder.ancestors().take_while(|above| above.starts_with(&self.folder)) {
            File::open(above)?.sync_all()?;
            if self.synced.starts_with(above) {
                break;
            }
        }
        folder.clone_into(&mut self.synced);
        Ok(())
    }

    /// Where an object is kept: under its path, or under its number when nobody knows that.
    fn paths(&self, tree: u16, object: &OwnedFd, number: u64) -> Option<[PathBuf; 2]> {
        let (directory, root) = self.trees.get(usize::from(tree))?;
        let below = directory.strip_prefix("/").unwrap_or(directory);
        let nameless = self.folder.join("nameless").join(below).join(number.to_string());
        let Some(components) = by_path(root, object) else {
            return Some([nameless.clone(), nameless]);
        };
        let mut path = self.folder.join("files").join(below);
        path.extend(components.iter().map(|name| OsStr::from_bytes(name)));
        Some([path, nameless])
    }
}

/// The directory that is being gone through.
struct Level {
    directory: OwnedFd,
    reader: DirReader,
    names: Vec<Vec<u8>>,
}

impl Level {
    fn enter(directory: OwnedFd) -> Result<Level, Errno> {
        let reader = backing::read_dir(&directory)?;
        Ok(Level { directory, reader, names: Vec::new() })
    }

    /// The next entry, opened.
    fn next(&mut self) -> Result<Option<OwnedFd>, Errno> {
        loop {
            if let Some(name) = self.names.pop() {
                return backing::open_name(&self.directory, &name).map(Some);
            }
            let chunk = self.reader.next_chunk()?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let names = chunk.into_iter().map(|entry| entry.name);
            self.names.extend(names.filter(|name| name != b"." && name != b".."));
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// A name that nothing has yet: another file may have had this path before, or an attempt that was
/// cut off. None when the names get too long.
fn free(path: PathBuf) -> Option<PathBuf> {
    let others = (2_u64..).map(|count| {
        let mut other = path.clone().into_os_string();
        other.push(format!(".{count}"));
        PathBuf::from(other)
    });
    let mut names = std::iter::once(path.clone()).chain(others);
    names.find_map(|path| match path.symlink_metadata() {
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Some(path)),
        Err(_) => Some(None),
    })?
}

fn remove_other_parts(folder: &Path, own: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("part-") && !name.starts_with(own) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Copies the data of a file, holes left out, going on where an attempt before this one ended: what
/// is copied does not change meanwhile.
fn copy(object: &OwnedFd, part: &Path) -> io::Result<()> {
    let mut from = File::from(backing::reopen(object, OFlags::RDONLY | OFlags::CLOEXEC)?);
    let mut to =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(part)?;
    let size = from.metadata()?.len();
    let mut at = to.metadata()?.len();
    while at < size {
        at = match rustix::fs::seek(&from, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let hole = rustix::fs::seek(&from, rustix::fs::SeekFrom::Hole(at))?.min(size);
        while at < hole {
            let length = (hole - at).min(CHUNK_BYTES);
            from.seek(SeekFrom::Start(at))?;
            to.seek(SeekFrom::Start(at))?;
            let copied = io::copy(&mut (&from).take(length), &mut to)?;
            if copied == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += copied;
        }
    }
    to.set_len(size)
}

fn read_seen(line: &str) -> Option<(u16, Handle)> {
    let (tree, hex) = line.split_once(' ')?;
    let digits = hex.as_bytes().chunks_exact(2);
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.map(byte).collect();
    Some((tree.parse().ok()?, Handle::from_bytes(&bytes?)?))
}

#[cfg(test)]
#[path = "quarantine_tests.rs"]
mod tests;
