//! Operations as system calls, below a directory. It keeps descriptors open across
//! renames and removals of names, and decides nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};

use super::mapped;
use super::model::Id;
use super::op::{Allocation, How, Op, Renaming, bytes, place};

/// Descriptors that are kept open.
const HELD_MAX: usize = 5;
/// Where memory for direct writes has to begin.
const ALIGNMENT: usize = 4096;

/// Performs the operations of one writer.
#[derive(Debug)]
pub(super) struct Performer {
    /// The directory of all writers.
    root: PathBuf,
    writer: u32,
    held: BTreeMap<Id, File>,
}

impl Performer {
    pub(super) fn new(root: &Path, writer: u32) -> Performer {
        Performer { root: root.to_owned(), writer, held: BTreeMap::new() }
    }

    /// Performs one operation; `id` is the model's file of its path.
    pub(super) fn perform(&mut self, op: &Op, id: Option<Id>) -> io::Result<()> {
        match op {
            Op::Write { path, offset, length, key, how } => {
                let data = bytes(*key, *length);
                self.write(&self.at(path), id, *offset, &data, *how)
            }
            Op::Append { path, length, key } => {
                let mut file = OpenOptions::new().append(true).open(self.at(path))?;
                file.write_all(&bytes(*key, *length))
            }
            Op::Empty { path } => {
                OpenOptions::new().write(true).truncate(true).open(self.at(path)).map(drop)
            }
            Op::Truncate { path, size, open } => truncate(&self.at(path), *size, *open),
            Op::Allocate { path, how, offset, length } => {
                let file = OpenOptions::new().write(true).open(self.at(path))?;
                allocate(&file, *how, *offset, *length)
            }
            Op::Copy { from, to, offset, at, length } => {
                copy(&self.at(from), &self.at(to), *offset, *at, *length)
            }
            Op::Map { path, parts, key } => {
                let file = OpenOptions::new().read(true).write(true).open(self.at(path))?;
                let part = |((offset, length), key): (&(u64, u64), u64)| {
                    (usize::try_from(*offset).unwrap_or(0), bytes(key, *length))
                };
                mapped::store(&file, &parts.iter().zip(*key..).map(part).collect::<Vec<_>>())
            }
            Op::Sync { path, data_only } => {
                let file = File::open(self.at(path))?;
                if *data_only { file.sync_data() } else { file.sync_all() }
            }
            Op::Orphan { path, key } => orphan(&self.at(path), *key),
            Op::Create { .. }
            | Op::Rename { .. }
            | Op::Link { .. }
            | Op::Unlink { .. }
            | Op::Symlink { .. }
            | Op::Directory { .. }
            | Op::RemoveDirectory { .. }
            | Op::Pipe { .. } => self.change_names(op),
            Op::Mode { .. }
            | Op::Owner { .. }
            | Op::SetAttribute { .. }
            | Op::RemoveAttribute { .. }
            | Op::Times { .. } => self.change_attributes(op),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(place(self.writer, path))
    }

    fn change_names(&self, op: &Op) -> io::Result<()> {
        match op {
            Op::Create { path, mode } => {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(*mode).open(self.at(path)).map(drop)
            }
            Op::Rename { from, to, how } => {
                let flags = match how {
                    Renaming::Replace => RenameFlags::empty(),
                    Renaming::Fresh => RenameFlags::NOREPLACE,
                    Renaming::Exchange => RenameFlags::EXCHANGE,
                };
                Ok(rustix::fs::renameat_with(CWD, self.at(from), CWD, self.at(to), flags)?)
            }
            Op::Link { from, to } => fs::hard_link(self.at(from), self.at(to)),
            Op::Unlink { path } => fs::remove_file(self.at(path)),
            Op::Symlink { path, target } => std::os::unix::fs::symlink(target, self.at(path)),
            Op::Directory { path, mode } => {
                Ok(rustix::fs::mkdir(self.at(path), Mode::from_raw_mode(*mode))?)
            }
            Op::RemoveDirectory { path } => fs::remove_dir(self.at(path)),
            Op::Pipe { path, mode } => {
                let mode = Mode::from_raw_mode(*mode);
                Ok(rustix::fs::mknodat(CWD, self.at(path), FileType::Fifo, mode, 0)?)
            }
            other => Err(misplaced(other)),
        }
    }

    fn change_attributes(&self, op: &Op) -> io::Result<()> {
        match op {
            Op::Mode { path, mode } => {
                fs::set_permissions(self.at(path), Permissions::from_mode(*mode))
            }
            Op::Owner { path, uid, gid } => {
                let (uid, gid) = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
                Ok(rustix::fs::chownat(CWD, self.at(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            Op::SetAttribute { path, name, value } => {
                let flags = XattrFlags::empty();
                Ok(rustix::fs::setxattr(self.at(path), name.as_str(), value.as_bytes(), flags)?)
            }
            Op::RemoveAttribute { path, name } => {
                Ok(rustix::fs::removexattr(self.at(path), name.as_str())?)
            }
            Op::Times { path, seconds, nanoseconds } => {
                let time = Timespec { tv_sec: *seconds, tv_nsec: (*nanoseconds).into() };
                let times = Timestamps { last_access: time, last_modification: time };
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                Ok(rustix::fs::utimensat(CWD, self.at(path), &times, flags)?)
            }
            other => Err(misplaced(other)),
        }
    }

    fn write(
        &mut self,
        path: &Path,
        id: Option<Id>,
        offset: u64,
        data: &[u8],
        how: How,
    ) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true);
        match how {
            How::Plain => {}
            How::Cached => drop(options.read(true)),
            How::Sync => drop(options.custom_flags(libc::O_SYNC)),
            How::DataSync => drop(options.custom_flags(libc::O_DSYNC)),
            How::DataSyncOnce => return write_once(&options.open(path)?, data, offset),
            How::Direct => {
                let file = options.custom_flags(libc::O_DIRECT).open(path)?;
                return write_aligned(&file, data, offset);
            }
            How::Held => {
                let id = id.ok_or_else(|| io::Error::other("no such file in the model"))?;
                if !self.held.contains_key(&id) {
                    if self.held.len() >= HELD_MAX {
                        self.held.pop_first();
                    }
                    self.held.insert(id, options.read(true).open(path)?);
                }
                let file = self.held.get(&id);
                return file.map_or(Ok(()), |file| file.write_all_at(data, offset));
            }
        }
        options.open(path)?.write_all_at(data, offset)
    }
}

fn truncate(path: &Path, size: u64, open: bool) -> io::Result<()> {
    if open {
        return OpenOptions::new().write(true).open(path)?.set_len(size);
    }
    super::mapped::truncate(path, size)
}

/// Calls `fallocate` in one of its modes.
pub(super) fn allocate(file: &File, how: Allocation, offset: u64, length: u64) -> io::Result<()> {
    let mode = match how {
        Allocation::Grow => FallocateFlags::empty(),
        Allocation::Keep => FallocateFlags::KEEP_SIZE,
        Allocation::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        Allocation::Zero => FallocateFlags::ZERO_RANGE,
        Allocation::Collapse => FallocateFlags::COLLAPSE_RANGE,
        Allocation::Insert => FallocateFlags::INSERT_RANGE,
    };
    Ok(rustix::fs::fallocate(file, mode, offset, length)?)
}

fn copy(from: &Path, to: &Path, mut offset: u64, mut at: u64, length: u64) -> io::Result<()> {
    let source = File::open(from)?;
    let target = OpenOptions::new().write(true).open(to)?;
    let end = offset + length;
    while offset < end {
        let rest = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let (from, to) = (Some(&mut offset), Some(&mut at));
        if rustix::fs::copy_file_range(&source, from, &target, to, rest)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Writes with a flag that makes this write alone synchronous.
fn write_once(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < data.len() {
        let rest = [io::IoSlice::new(&data[done..])];
        let at = offset + done as u64;
        match rustix::io::pwritev2(file, &rest, at, rustix::io::ReadWriteFlags::DSYNC)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            length => done += length,
        }
    }
    Ok(())
}

fn write_aligned(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    let mut memory = vec![0_u8; data.len() + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let part = &mut memory[start..start + data.len()];
    part.copy_from_slice(data);
    file.write_all_at(part, offset)
}

/// What is written to a file without names is seen by nobody, and disturbs nobody.
fn orphan(path: &Path, key: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    fs::remove_file(path)?;
    file.write_all_at(&bytes(key, 5000), 100)?;
    file.sync_all()
}

fn misplaced(op: &Op) -> io::Error {
    io::Error::other(format!("{op:?} is performed elsewhere"))
}
