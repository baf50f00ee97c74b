//! Summaries of objects, computed alike by source and target of a verification.
//!
//! What is done with them is the verifier's business.

use std::os::fd::AsFd;

use mount::backing::{self, Kind};
use replica::op::FileId;
use rustix::io::Errno;
use wire::replication::{Backward, Summary, put_backward};

use crate::replicator::compare;
use crate::replicator::store::{After, Store};
use crate::replicator::walker::LOST_AND_FOUND;

/// Names in one part of an answer.
const NAMES_AT_ONCE: usize = 4096;

/// A name and what stands under it.
pub(super) type Named = (Vec<u8>, Summary);

/// What stands in a directory: under one name, or under all if that is empty; `.` is the directory
/// itself. What goes away meanwhile is not there.
pub(super) fn summaries(
    directory: impl AsFd,
    is_root: bool,
    name: &[u8],
) -> Result<Vec<Named>, Errno> {
    if name == b"." {
        return Ok(vec![(name.to_vec(), summary_of(&directory)?)]);
    }
    if !name.is_empty() {
        return Ok(named(&directory, is_root, name)?.into_iter().collect());
    }
    let mut reader = backing::read_dir(&directory)?;
    let mut all = Vec::new();
    loop {
        let chunk = reader.next_chunk()?;
        if chunk.is_empty() {
            return Ok(all);
        }
        for entry in chunk {
            if entry.name != b"." && entry.name != b".." {
                all.extend(named(&directory, is_root, &entry.name)?);
            }
        }
    }
}

fn named(directory: impl AsFd, is_root: bool, name: &[u8]) -> Result<Option<Named>, Errno> {
    if is_root && name == LOST_AND_FOUND {
        return Ok(None);
    }
    let summary = backing::open_name(directory, name).and_then(summary_of);
    match summary {
        Ok(summary) => Ok(Some((name.to_vec(), summary))),
        Err(Errno::NOENT | Errno::STALE) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn summary_of(object: impl AsFd) -> Result<Summary, Errno> {
    let stat = backing::stat(&object)?;
    let kind = stat.kind();
    let mut rest = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        rest.update(&(bytes.len() as u64).to_le_bytes());
        rest.update(bytes);
    };
    add(&stat.rdev.to_le_bytes());
    if kind == Kind::Symlink {
        add(rustix::fs::readlinkat(&object, "", Vec::new())?.as_bytes());
    }
    for (name, value) in compare::xattrs_of(&object, kind)? {
        add(&name);
        add(&value);
    }
    let hash = rest.finalize();
    let (half, _) = hash.as_bytes().split_at(16);
    Ok(Summary {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        size: if kind == Kind::File { stat.size } else { 0 },
        mtime: stat.mtime,
        rest: half.try_into().unwrap_or_default(),
    })
}

impl Store {
    /// The answer to a question of a verification.
    pub(super) fn summarize(
        &mut self,
        tag: u64,
        directory: FileId,
        name: &[u8],
    ) -> Result<After, Errno> {
        let place = self.object(directory)?;
        let all = summaries(&place, directory.node == 1, name)?;
        let mut frames = Vec::new();
        let mut parts = all.chunks(NAMES_AT_ONCE).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let entries = part.iter().map(|(name, summary)| (&name[..], *summary)).collect();
            let last = parts.peek().is_none();
            put_backward(&mut frames, &Backward::Summarized { tag, last, entries });
            if last {
                return Ok(After::Answer(frames));
            }
        }
    }
}
