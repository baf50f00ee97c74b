//! A node's copy of a module as a list, a page at a time, for whoever compares it with the peer's
//! while neither follows the other. Names and attributes are told, no content.
//!
//! A page is read on a thread of its own, through the directory as everybody sees it, so that what
//! is not written out yet is in it. Nothing is kept between two pages: of a directory as many
//! names are in memory as come next. Nothing here decides what differs.

use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use model::EpochId;
use mount::backing::{self, Kind, Stat};
use replica::exclude::Exclude;
use replica::op::Stamp;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde_json::json;
use wire::control::{Exit, Reply, Verb};
use wire::listing::{
    Listed, PAGE_BYTES_MAX, PAGE_OBJECTS_MAX, PATH_BYTES_MAX, Page, PageAsked, Place, spell,
};

use crate::clock;
use crate::daemon::Daemon;
use crate::daemon::event::Line;
use crate::daemon::requests::{Part, gather_apart};
use crate::durable;

/// Pages that are read at a time: a directory may not answer.
const READERS_MAX: usize = 4;
/// Names of one directory that are in memory.
const NAMES_MAX: usize = 32 << 10;
/// Directories within each other that are walked through; each is open meanwhile.
const DEPTH_MAX: usize = 128;
/// Longest target of a symbolic link that is told.
const TARGET_BYTES_MAX: usize = 4096;
/// Epochs of which the time is known.
const EPOCHS_MAX: usize = 64;

/// Pages that are being read.
static READERS: AtomicUsize = AtomicUsize::new(0);

/// Notes that an epoch is taken up now. It is for people: no decision goes by it, and one that
/// could not be noted is not known, which is told as such.
pub(super) fn note_epoch(file: &Path, epoch: EpochId) {
    let mut epochs = epochs(file);
    if epochs.iter().any(|(known, _)| *known == epoch.to_string()) {
        return;
    }
    epochs.push((epoch.to_string(), clock::wall()));
    let from = epochs.len().saturating_sub(EPOCHS_MAX);
    if let Err(error) = durable::write(file, &&epochs[from..]) {
        eprintln!("! {}: {error}", file.display());
    }
}

/// What was noted; nothing if that cannot be read.
fn epochs(file: &Path) -> Vec<(String, Duration)> {
    durable::read(file).ok().flatten().unwrap_or_default()
}

impl Daemon {
    /// Answers with a page of the copy here, or has the module's other node answer.
    pub(super) fn page(&self, asked: PageAsked, lines: Sender<Line>) {
        let answer = |reply| drop(lines.send(Line::Reply(reply)));
        let node = asked.node.clone().unwrap_or_else(|| self.name.clone());
        if let Err(reply) = self.nodes_for(&asked.module, Some(node.clone())) {
            return answer(*reply);
        }
        if node != self.name {
            let (peer, verb) = (self.peer(&node), Verb::Page { page: asked });
            return gather_apart(vec![(node, Part::Remote(Box::new(peer), verb))], lines);
        }
        let Some(module) = self.modules.get(&asked.module) else { return };
        let Some(root) = module.config.replicate.get(usize::from(asked.tree)) else {
            let what = format!("{} has no directory number {}", asked.module, asked.tree);
            return answer(Reply::new(Exit::Usage, what));
        };
        let exclude = module.config.replication.exclude.iter().map(String::as_str);
        let walk = (root.clone(), Exclude::new(exclude));
        let file = self.layout.epochs_file(&asked.module);
        if READERS.fetch_add(1, Ordering::Relaxed) >= READERS_MAX {
            READERS.fetch_sub(1, Ordering::Relaxed);
            let what = format!("{READERS_MAX} lists are being read on {} already", self.name);
            return answer(Reply::new(Exit::Refused, what));
        }
        let told = lines.clone();
        let reading = move || {
            let reply = read(&walk.0, walk.1, &asked, &file);
            READERS.fetch_sub(1, Ordering::Relaxed);
            let _ = told.send(Line::Reply(reply));
        };
        if std::thread::Builder::new().name("copies".to_owned()).spawn(reading).is_err() {
            READERS.fetch_sub(1, Ordering::Relaxed);
            answer(Reply::new(Exit::Failed, "there is no thread to read with".to_owned()));
        }
    }
}

fn read(root: &Path, exclude: Exclude, asked: &PageAsked, file: &Path) -> Reply {
    let after = asked.after.as_ref().map(|path| Place::of(asked.tree, path)).transpose();
    let after = match after {
        Ok(after) => after.map(|place| place.names),
        Err(error) => return Reply::new(Exit::Usage, format!("no page begins there: {error}")),
    };
    match page(root, exclude, after) {
        Ok((objects, more)) => {
            let epochs: BTreeMap<_, _> = epochs(file).into_iter().collect();
            let page = Page { objects, more, epochs };
            let sentence = format!("{} objects", page.objects.len());
            Reply { data: json!(page), ..Reply::new(Exit::Done, sentence) }
        }
        Err(error) => {
            Reply::new(Exit::Failed, format!("{} cannot be listed: {error}", root.display()))
        }
    }
}

/// The objects behind `after`, as far as they fit on a page, and whether there are more.
fn page(
    root: &Path,
    exclude: Exclude,
    after: Option<Vec<Vec<u8>>>,
) -> io::Result<(Vec<Listed>, bool)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, flags, Mode::empty())?;
    let mut walk = Walk { exclude, after, objects: Vec::new(), bytes: 0, names: Vec::new() };
    let mut full = false;
    if walk.after.is_none() {
        full = walk.take(&directory, &backing::stat(&directory)?, String::new());
    }
    full = full || walk.directory(&directory)?;
    Ok((walk.objects, full))
}

/// A walk through a copy that ends when the page is full.
struct Walk {
    exclude: Exclude,
    /// What has been listed before.
    after: Option<Vec<Vec<u8>>>,
    objects: Vec<Listed>,
    bytes: usize,
    /// Where the walk is.
    names: Vec<Vec<u8>>,
}

impl Walk {
    /// Lists what a directory holds; whether the page is full.
    fn directory(&mut self, directory: &OwnedFd) -> io::Result<bool> {
        if self.names.len() >= DEPTH_MAX {
            let what = format!("more than {DEPTH_MAX} directories lie within each other");
            return Err(io::Error::other(what));
        }
        let inside = self.after.as_ref().filter(|after| after.starts_with(&self.names));
        // What was listed last may be a directory: what is in it comes next.
        let first = inside.and_then(|after| after.get(self.names.len())).cloned();
        let mut from = first.map(|name| (name, true));
        loop {
            let names = match next_names(directory, from.as_ref()) {
                // It has gone meanwhile, but for the directory of the module itself.
                Err(Errno::NOENT | Errno::STALE) if !self.names.is_empty() => return Ok(false),
                names => names?,
            };
            let Some(last) = names.last().cloned() else { return Ok(false) };
            for name in names {
                self.names.push(name);
                if self.object(directory)? {
                    return Ok(true);
                }
                self.names.pop();
            }
            from = Some((last, false));
        }
    }

    /// Lists the object that the walk is at, and what it holds.
    fn object(&mut self, parent: &OwnedFd) -> io::Result<bool> {
        let Some(name) = self.names.last() else { return Ok(false) };
        if self.exclude.covers(&self.names) {
            return Ok(false);
        }
        let path = spell(&self.names.join(&b'/'));
        if path.len() > PATH_BYTES_MAX {
            let what = format!("a path is longer than {PATH_BYTES_MAX} bytes");
            return Err(io::Error::other(what));
        }
        let opened =
            backing::open_name(parent, name).and_then(|file| Ok((backing::stat(&file)?, file)));
        let (stat, file) = match opened {
            Ok(found) => found,
            // It has gone meanwhile.
            Err(Errno::NOENT | Errno::STALE) => return Ok(false),
            Err(error) => return Err(io::Error::other(format!("{path}: {error}"))),
        };
        let known = self.after.as_ref().is_some_and(|after| after.starts_with(&self.names));
        if !known && self.take(&file, &stat, path) {
            return Ok(true);
        }
        Ok(stat.kind() == Kind::Directory && self.directory(&file)?)
    }

    /// Puts an object on the page; whether that is full now.
    fn take(&mut self, file: impl AsFd, stat: &Stat, path: String) -> bool {
        let target = (stat.kind() == Kind::Symlink)
            .then(|| rustix::fs::readlinkat(file, "", Vec::new()).ok())
            .flatten();
        let target = target.map(|target| {
            let bytes = target.as_bytes();
            spell(&bytes[..bytes.len().min(TARGET_BYTES_MAX)])
        });
        self.bytes += path.len() + target.as_ref().map_or(0, String::len);
        self.objects.push(Listed {
            path,
            mode: stat.mode,
            owner: (stat.uid, stat.gid),
            size: stat.size,
            device: stat.rdev,
            modified: nanoseconds(stat.mtime),
            changed: nanoseconds(stat.ctime),
            target,
        });
        self.objects.len() >= PAGE_OBJECTS_MAX || self.bytes >= PAGE_BYTES_MAX
    }
}

fn nanoseconds(stamp: Stamp) -> i64 {
    stamp.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(stamp.nanoseconds))
}

/// The names of a directory that come next in order, as many as may be in memory.
fn next_names(directory: &OwnedFd, from: Option<&(Vec<u8>, bool)>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut next = BinaryHeap::new();
    let mut reader = backing::read_dir(directory)?;
    loop {
        let chunk = reader.next_chunk()?;
        if chunk.is_empty() {
            return Ok(next.into_sorted_vec());
        }
        for name in chunk.into_iter().map(|entry| entry.name) {
            let behind = from.is_none_or(|(from, too)| name > *from || (*too && name == *from));
            if name == b"." || name == b".." || !behind {
                continue;
            }
            next.push(name);
            if next.len() > NAMES_MAX {
                next.pop();
            }
        }
    }
}

#[cfg(test)]
#[path = "copies_tests.rs"]
mod tests;
