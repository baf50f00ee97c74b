//! A writer's files as a flat list, from the model or from a disk, and how two such lists differ.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use super::op::{SHARED, own_directory, place, prefix};
use crate::error::{During, Result, cannot};

/// Longest list of attribute names, and longest value, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 1 << 16;
/// Most differences that are told.
const FINDINGS_MAX: usize = 40;

/// All names of a writer; `""` is its directory. The shared directory itself is left out.
pub type Tree = BTreeMap<String, Entry>;

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is, with what is in it.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds; `None` when the model does not know it.
    pub mtime: Option<(i64, u32)>,
    /// Extended attributes but for Evenkeel's own.
    pub attributes: BTreeMap<String, Vec<u8>>,
    /// The first of all names of this file.
    pub first: String,
}

/// What a file is, with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File(Arc<Vec<u8>>),
    /// A directory; its names are in the list.
    Directory,
    /// A symbolic link.
    Symlink(String),
    /// A named pipe.
    Pipe,
}

impl Kind {
    /// A word for messages.
    pub(crate) fn word(&self) -> String {
        match self {
            Kind::File(content) => format!("a file of {} bytes", content.len()),
            Kind::Directory => "a directory".to_owned(),
            Kind::Symlink(target) => format!("a link to {target}"),
            Kind::Pipe => "a pipe".to_owned(),
        }
    }
}

/// The names of a writer below the place of all writers, as a disk has them.
///
/// # Errors
/// When something cannot be read, or is of a kind that no writer makes.
pub fn load(root: &Path, writer: u32) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut firsts = BTreeMap::new();
    let mut todo = vec![String::new()];
    let prefix = prefix(writer);
    // A writer that had nothing done yet may have no directory.
    if !root.join(own_directory(writer)).exists() {
        return Ok(tree);
    }
    for name in names(&root.join(SHARED))?.iter().rev() {
        todo.extend(name.strip_prefix(&prefix).map(|name| format!("{SHARED}/{name}")));
    }
    while let Some(path) = todo.pop() {
        let real = root.join(place(writer, &path));
        let entry = entry(&real, &path, &mut firsts)?;
        if entry.kind == Kind::Directory {
            let below = |name: &String| match path.as_str() {
                "" => name.clone(),
                path => format!("{path}/{name}"),
            };
            todo.extend(names(&real)?.iter().map(below));
        }
        tree.insert(path, entry);
    }
    name_firsts(&mut tree, &firsts);
    Ok(tree)
}

/// What is wrong with `found`, when `expected` should be there.
pub(crate) fn differences(expected: &Tree, found: &Tree) -> Vec<String> {
    let mut all = Vec::new();
    for (path, entry) in expected {
        match found.get(path) {
            None => all.push(format!("{path:?}: {} is missing", entry.kind.word())),
            Some(other) => all.extend(entry_differences(path, entry, other)),
        }
        if all.len() > FINDINGS_MAX {
            break;
        }
    }
    let extra = found.iter().filter(|(path, _)| !expected.contains_key(*path));
    all.extend(
        extra.map(|(path, entry)| format!("{path:?}: {} should not be there", entry.kind.word())),
    );
    all
}

fn entry_differences(path: &str, expected: &Entry, found: &Entry) -> Vec<String> {
    let mut all = Vec::new();
    let mut say = |text: String| all.push(format!("{path:?}: {text}"));
    if let Some(text) = kind_difference(&expected.kind, &found.kind) {
        say(text);
    }
    if expected.mode != found.mode && !matches!(expected.kind, Kind::Symlink(_)) {
        say(format!("mode {:o} instead of {:o}", found.mode, expected.mode));
    }
    if expected.owner != found.owner {
        say(format!("owner {:?} instead of {:?}", found.owner, expected.owner));
    }
    if expected.mtime.is_some() && expected.mtime != found.mtime {
        say(format!("mtime {:?} instead of {:?}", found.mtime, expected.mtime));
    }
    if expected.attributes != found.attributes {
        let show = |all: &BTreeMap<String, Vec<u8>>| {
            let each = |(name, value): (&String, &Vec<u8>)| {
                let start = &value[..value.len().min(16)];
                format!("{name}={}({})", start.escape_ascii(), value.len())
            };
            all.iter().map(each).collect::<Vec<_>>().join(" ")
        };
        let (found, expected) = (show(&found.attributes), show(&expected.attributes));
        say(format!("attributes [{found}] instead of [{expected}]"));
    }
    if expected.first != found.first {
        say(format!("the same file as {:?} instead of {:?}", found.first, expected.first));
    }
    all
}

fn kind_difference(expected: &Kind, found: &Kind) -> Option<String> {
    if expected == found {
        return None;
    }
    let (Kind::File(one), Kind::File(other)) = (expected, found) else {
        return Some(format!("{} instead of {}", found.word(), expected.word()));
    };
    let differs = |(one, other): (&u8, &u8)| one != other;
    let count = one.iter().zip(other.iter()).filter(|pair| differs(*pair)).count();
    let at = one.iter().zip(other.iter()).position(differs);
    let place = match at {
        Some(at) => {
            let zeros = other[at..].iter().take_while(|byte| **byte == 0).count();
            format!("{count} bytes differ from byte {at} on ({zeros} zeros found there)")
        }
        None => "equal as far as both go".to_owned(),
    };
    Some(format!("{} bytes instead of {}, {place}", other.len(), one.len()))
}

/// Fills in the first name of each file that has several.
pub(crate) fn name_firsts<K: Ord>(tree: &mut Tree, keys: &BTreeMap<String, K>) {
    let mut firsts: BTreeMap<&K, String> = BTreeMap::new();
    for (path, entry) in tree.iter_mut() {
        let Some(key) = keys.get(path) else { continue };
        entry.first.clone_from(firsts.entry(key).or_insert_with(|| path.clone()));
    }
}

fn entry(real: &Path, path: &str, keys: &mut BTreeMap<String, u64>) -> Result<Entry> {
    let meta = fs::symlink_metadata(real).during(|| cannot("look at", real))?;
    let kind = meta.file_type();
    keys.insert(path.to_owned(), meta.ino());
    let kind = if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        let target = fs::read_link(real).during(|| cannot("read the link", real))?;
        Kind::Symlink(target.to_string_lossy().into_owned())
    } else if kind.is_fifo() {
        Kind::Pipe
    } else if kind.is_file() {
        Kind::File(Arc::new(fs::read(real).during(|| cannot("read", real))?))
    } else {
        let odd = io::Error::other("no writer makes such a thing");
        return Err(odd).during(|| cannot("judge", real));
    };
    Ok(Entry {
        kind,
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        mtime: u32::try_from(meta.mtime_nsec()).ok().map(|part| (meta.mtime(), part)),
        attributes: attributes(real).during(|| cannot("read the attributes of", real))?,
        first: path.to_owned(),
    })
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        let name =
            |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        fs::read_dir(directory)?.map(name).collect()
    };
    read().during(|| cannot("list", directory))
}

fn attributes(path: &Path) -> rustix::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0; ATTRIBUTE_BYTES_MAX];
    let length = rustix::fs::llistxattr(path, &mut names)?;
    let mut all = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0) {
        let ours = name.starts_with(b"user.") || name.starts_with(b"trusted.");
        if !ours || name.starts_with(b"trusted.evenkeel") {
            continue;
        }
        let mut value = vec![0; ATTRIBUTE_BYTES_MAX];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value)?;
        value.truncate(length);
        all.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    Ok(all)
}
