//! Compares two directory trees in everything that replicas must share: type, mode, owner, size,
//! content, modification time, extended attributes, symbolic links and which names are one file.
//!
//! Access and change times, inode numbers and the size of directories belong to each file system
//! and are left out, as are Evenkeel's own markers. Both trees must be at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{During, Result, cannot};

/// Attributes that begin like this say whose copy it is, which may differ between copies.
const MARKER_PREFIX: &str = "trusted.evenkeel";
/// Bytes of content compared at a time.
const CHUNK_BYTES: usize = 1 << 18;
/// Longest value of an attribute, and longest list of their names, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 1 << 16;

/// What came out of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Names looked at, the roots included.
    pub entries: u64,
    /// Bytes of content compared.
    pub bytes: u64,
    /// Everything that differs, in the order of the walk; empty when the trees are identical.
    pub differences: Vec<Difference>,
}

/// Something that is not the same in both trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, below the roots; empty for the roots themselves.
    pub path: PathBuf,
    /// What differs, the first tree's value before the second's.
    pub what: String,
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_identical(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Path::new(".").join(&self.path).display(), self.what)
    }
}

/// Compares the trees below two directories.
///
/// # Errors
/// When something in them cannot be read, or vanishes in the meantime.
pub fn trees(one: &Path, other: &Path) -> Result<Comparison> {
    let mut walk = Walk {
        roots: [one, other],
        first_names: [BTreeMap::new(), BTreeMap::new()],
        result: Comparison::default(),
    };
    let mut directories = Vec::new();
    if walk.entry(Path::new(""))? {
        directories.push(PathBuf::new());
    }
    while let Some(directory) = directories.pop() {
        for name in walk.names(&directory)? {
            let path = directory.join(name);
            if walk.entry(&path)? {
                directories.push(path);
            }
        }
    }
    Ok(walk.result)
}

struct Walk<'a> {
    roots: [&'a Path; 2],
    /// The first name met of each file with several, by device and inode. Both trees are walked in
    /// one order, so equal groups have equal first names.
    first_names: [BTreeMap<(u64, u64), PathBuf>; 2],
    result: Comparison,
}

impl Walk<'_> {
    /// The names that are in this directory of both trees; the others are differences.
    fn names(&mut self, directory: &Path) -> Result<Vec<OsString>> {
        let mut one = list(&self.roots[0].join(directory))?;
        let other = list(&self.roots[1].join(directory))?;
        for name in one.symmetric_difference(&other) {
            let which = if one.contains(name) { "first" } else { "second" };
            self.differs(&directory.join(name), format!("only in the {which} tree"));
        }
        one.retain(|name| other.contains(name));
        Ok(one.into_iter().collect())
    }

    /// Compares one name; whether it is a directory in both.
    fn entry(&mut self, path: &Path) -> Result<bool> {
        let [one, other] = self.roots.map(|root| root.join(path));
        let [first, second] = [metadata(&one)?, metadata(&other)?];
        self.result.entries += 1;
        let kinds = [kind(first.file_type()), kind(second.file_type())];
        if kinds[0] != kinds[1] {
            self.differs(path, format!("{} and {}", kinds[0], kinds[1]));
            return Ok(false);
        }
        self.attributes(path, &first, &second);
        self.extended(path, &one, &other)?;
        let kind = first.file_type();
        if kind.is_dir() {
            return Ok(true);
        }
        self.group(path, [&first, &second]);
        if kind.is_symlink() {
            let [a, b] = [target(&one)?, target(&other)?];
            self.check(path, "link to", &a.display(), &b.display());
        } else if kind.is_file() {
            self.content(path, &one, &other)?;
        }
        Ok(false)
    }

    fn attributes(&mut self, path: &Path, one: &Metadata, other: &Metadata) {
        let mode = |m: &Metadata| format!("{:o}", m.mode() & 0o7777);
        let owner = |m: &Metadata| format!("{}:{}", m.uid(), m.gid());
        let time = |m: &Metadata| format!("{}.{:09}", m.mtime(), m.mtime_nsec());
        self.check(path, "mode", &mode(one), &mode(other));
        self.check(path, "owner", &owner(one), &owner(other));
        self.check(path, "mtime", &time(one), &time(other));
        self.check(path, "device", &one.rdev(), &other.rdev());
        if !one.is_dir() {
            self.check(path, "size", &one.size(), &other.size());
        }
    }

    fn extended(&mut self, path: &Path, one: &Path, other: &Path) -> Result<()> {
        let [one, other] = [attributes_of(one)?, attributes_of(other)?];
        let names: BTreeSet<&OsString> = one.keys().chain(other.keys()).collect();
        for name in names {
            let show = |value: Option<&Vec<u8>>| match value {
                Some(value) => format!("\"{}\"", value.escape_ascii()),
                None => "none".to_owned(),
            };
            let what = format!("attribute {}", name.display());
            self.check(path, &what, &show(one.get(name)), &show(other.get(name)));
        }
        Ok(())
    }

    fn group(&mut self, path: &Path, both: [&Metadata; 2]) {
        let mut firsts = [PathBuf::new(), PathBuf::new()];
        for ((first, known), metadata) in firsts.iter_mut().zip(&mut self.first_names).zip(both) {
            *first = path.to_owned();
            if metadata.nlink() > 1 {
                let name = known.entry((metadata.dev(), metadata.ino()));
                first.clone_from(name.or_insert_with(|| path.to_owned()));
            }
        }
        self.check(path, "same file as", &firsts[0].display(), &firsts[1].display());
        self.check(path, "number of names", &both[0].nlink(), &both[1].nlink());
    }

    fn content(&mut self, path: &Path, one: &Path, other: &Path) -> Result<()> {
        let open = |path: &Path| File::open(path).during(|| cannot("open", path));
        let [mut first, mut second] = [open(one)?, open(other)?];
        let [mut a, mut b] = [Vec::new(), Vec::new()];
        let mut offset = 0;
        loop {
            chunk(&mut first, &mut a).during(|| cannot("read", one))?;
            chunk(&mut second, &mut b).during(|| cannot("read", other))?;
            // Equal chunks are told at once; only for others is the place looked for.
            let at = if a == b { None } else { a.iter().zip(&b).position(|(a, b)| a != b) };
            if let Some(at) = at {
                let at = offset + at as u64;
                self.differs(path, format!("content differs from byte {at} on"));
                return Ok(());
            }
            // A difference in length was noticed already.
            if a.is_empty() || b.is_empty() {
                self.result.bytes += offset;
                return Ok(());
            }
            offset += a.len().min(b.len()) as u64;
        }
    }

    fn check<T: fmt::Display>(&mut self, path: &Path, what: &str, one: &T, other: &T) {
        let (one, other) = (one.to_string(), other.to_string());
        if one != other {
            self.differs(path, format!("{what} {one} and {other}"));
        }
    }

    fn differs(&mut self, path: &Path, what: String) {
        self.result.differences.push(Difference { path: path.to_owned(), what });
    }
}

fn list(directory: &Path) -> Result<BTreeSet<OsString>> {
    let names = || fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect();
    let names: io::Result<_> = names();
    names.during(|| cannot("list", directory))
}

fn metadata(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).during(|| cannot("look at", path))
}

fn target(path: &Path) -> Result<PathBuf> {
    fs::read_link(path).during(|| cannot("read the link", path))
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_file() => "a file",
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() => "a character device",
        _ => "a block device",
    }
}

/// All extended attributes of a file, of a symbolic link itself too, but for our markers.
fn attributes_of(path: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let what = || cannot("read the attributes of", path);
    let names = sized(|buffer| rustix::fs::llistxattr(path, buffer)).during(what)?;
    let mut attributes = BTreeMap::new();
    for name in names.split(|byte| *byte == 0) {
        if name.is_empty() || name.starts_with(MARKER_PREFIX.as_bytes()) {
            continue;
        }
        let name = OsStr::from_bytes(name);
        let value = sized(|buffer| rustix::fs::lgetxattr(path, name, buffer)).during(what)?;
        attributes.insert(name.to_owned(), value);
    }
    Ok(attributes)
}

/// Gives as much room as the kernel allows lists and values to have.
fn sized(get: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; ATTRIBUTE_BYTES_MAX];
    let length = get(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

fn chunk(file: &mut File, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    file.take(CHUNK_BYTES as u64).read_to_end(buffer).map(drop)
}

#[cfg(test)]
mod tests;
