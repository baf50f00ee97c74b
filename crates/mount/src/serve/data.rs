//! Contents of files: opening, reading, writing, allocating, seeking.
//!
//! Opened for writing only, a file bypasses the page cache; else it uses it. Nothing is ever
//! passed through to the backing file, so every write comes by here.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use fuse::{Errno, Operation, abi, reply};
use replica::op::{Attr, Op, Stamp};
use replica::touch::Touch;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::{pread, pwrite};

use super::Server;
use super::call::Call;
use super::caller::as_writer;
use super::files::OpenFile;
use super::sync::Synced;
use super::turn::{Done, Turn};
use crate::backing;

/// Largest piece in which content is read back, in bytes.
const PIECE: usize = 1 << 20;
/// Largest part of a write that is recorded by itself, in bytes.
const PART: usize = 256 << 10;

impl Server {
    pub(super) fn open(&self, request: &Call<'_>, flags: u32, kill_privileges: bool) {
        if OFlags::from_bits_retain(flags).contains(OFlags::TRUNC) {
            let touches = [Touch::Rest(self.tree.id(request.node))];
            self.change(request, "truncating a file", &touches, |turn| {
                self.open_found(turn, request.node, flags, kill_privileges, |handle, _| {
                    reply::open(handle, self.cache_mode(flags))
                })
            });
            return;
        }
        let opened = self.tree.open_node(request.node, access(flags));
        let opened = opened.map(|file| {
            let mode = self.cache_mode(flags);
            let handle = self.files.add_file(request.node, file, access(flags), mode);
            reply::open(handle, mode)
        });
        self.answer(request, opened);
    }

    pub(super) fn read(&self, request: &Call<'_>, scratch: &mut Vec<u8>) {
        let Operation::Read { handle, offset, size } = request.operation else {
            return;
        };
        let outcome = self.files.file(handle).and_then(|open| {
            let size = (size as usize).min(abi::REQUEST_BYTES_MAX);
            // Grows once and stays, so that no read pays for zeroes that it overwrites.
            if scratch.len() < size {
                scratch.resize(size, 0);
            }
            let room = scratch.get_mut(..size).unwrap_or_default();
            read_all(open.file.as_fd(), room, offset)
        });
        match outcome {
            Ok(length) => {
                let bytes = scratch.get(..length).unwrap_or_default();
                self.connection.reply(request.unique, bytes);
            }
            Err(errno) => self.refuse(request, errno),
        }
    }

    pub(super) fn write(&self, request: &Call<'_>) {
        let Operation::Write { handle, offset, data, file_flags, kill_privileges, .. } =
            request.operation
        else {
            return;
        };
        let mut begun = None;
        let file = self.tree.id(request.node);
        let touches = [Touch::Content { file, offset, length: data.len() as u64 }];
        self.change(request, "writing a file", &touches, |mut turn| {
            let open = self.files.file(handle)?;
            if kill_privileges {
                self.kill_privileges(&mut turn, open.node, open.file.as_fd())?;
            }
            let (file, backing) = (self.tree.id(open.node), open.file.as_fd());
            let mut written = Written { offset, done: 0, failure: None };
            let mut last = as_writer(request, || written.next(backing, data));
            // Of a large write the first part is on its way while the rest is being written here.
            while written.failure.is_none() && written.done < data.len() {
                let mtime = backing::stat(backing)?.mtime;
                turn.also(Op::Write { file, offset: last.0, data: last.1, mtime });
                last = as_writer(request, || written.next(backing, data));
            }
            let body = reply::size(written.done as u32);
            let (offset, data) = last;
            if data.is_empty() && written.failure.is_none() {
                return Ok(turn.unchanged(&body));
            }
            let mtime = backing::stat(backing)?.mtime;
            let mut op = Op::Write { file, offset, data, mtime };
            if let Some(errno) = written.failure {
                if data.is_empty() {
                    // Of this part no byte was written, but the file was stamped before that
                    // turned out.
                    let attr = Attr { mtime: Some(mtime), ..Attr::default() };
                    op = Op::SetAttr { file, attr };
                }
                if written.done == 0 {
                    return Ok(turn.finish(op, Err(errno)));
                }
                turn.failed(errno);
            }
            match durability(&open, file_flags) {
                Some(data_only) => {
                    let (done, number) = turn.finish_with_sync(op, file, data_only);
                    let what = Synced::File(open);
                    begun = Some(self.job((request.unique, handle), what, data_only, number, body));
                    Ok(done)
                }
                None => Ok(turn.finish(op, Ok(body))),
            }
        });
        if let Some(job) = begun {
            self.run_sync(job);
        }
    }

    pub(super) fn allocate(&self, request: &Call<'_>) {
        let Operation::Fallocate { handle, offset, length, mode } = request.operation else {
            return;
        };
        let file = self.tree.id(request.node);
        let touches = [Touch::Content { file, offset, length }];
        self.change(request, "allocating space", &touches, |mut turn| {
            let open = self.files.file(handle)?;
            let before = backing::stat(&open.file)?;
            let applied =
                as_writer(request, || backing::allocate(&open.file, mode, offset, length));
            let after = backing::stat(&open.file)?;
            let (file, mtime) = (self.tree.id(open.node), after.mtime);
            match applied {
                Ok(()) => {
                    let op = Op::Allocate { file, mode, offset, length, mtime };
                    Ok(turn.finish(op, Ok(Vec::new())))
                }
                // Part of the content may be gone already; the clock of files is too coarse to
                // tell by it whether that is so.
                Err(errno) if (clears(mode) || turn.is_doubtful()) && !is_refusal(errno) => {
                    let end = offset.saturating_add(length).min(after.size);
                    self.tell_content(&mut turn, open.node, open.file.as_fd(), offset..end, mtime);
                    let size =
                        (before.size != after.size || turn.is_doubtful()).then_some(after.size);
                    let attr = Attr { size, mtime: Some(mtime), ..Attr::default() };
                    Ok(turn.finish(Op::SetAttr { file, attr }, Err(errno)))
                }
                // A full disk may have let a part of it happen.
                Err(errno) if (before.size, before.mtime) != (after.size, mtime) => {
                    let size = (before.size != after.size).then_some(after.size);
                    let attr = Attr { size, mtime: Some(mtime), ..Attr::default() };
                    Ok(turn.finish(Op::SetAttr { file, attr }, Err(errno)))
                }
                Err(errno) => Err(errno),
            }
        });
    }

    /// Tells what a range holds now, where it is not known what was done to it.
    pub(super) fn tell_content(
        &self,
        turn: &mut Turn<'_>,
        node: u64,
        file: BorrowedFd<'_>,
        range: Range<u64>,
        mtime: Stamp,
    ) {
        let mut piece = vec![0; PIECE];
        let mut offset = range.start;
        while offset < range.end {
            let room = usize::try_from(range.end - offset).map_or(PIECE, |rest| rest.min(PIECE));
            let room = piece.get_mut(..room).unwrap_or_default();
            match read_all(file, room, offset) {
                Ok(0) => return,
                Ok(length) => {
                    let data = room.get(..length).unwrap_or_default();
                    turn.also(Op::Write { file: self.tree.id(node), offset, data, mtime });
                    offset += length as u64;
                }
                // The peer can no longer be told what is here.
                Err(errno) => return turn.broken(errno),
            }
        }
    }

    pub(super) fn seek(&self, handle: u64, offset: u64, whence: u32) -> Result<Vec<u8>, Errno> {
        let open = self.files.file(handle)?;
        let offset = i64::try_from(offset).map_err(|_| Errno::INVAL)?.cast_unsigned();
        let target = match whence.cast_signed() {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            // The kernel does all others itself.
            _ => return Err(Errno::INVAL),
        };
        rustix::fs::seek(&open.file, target).map(reply::offset)
    }

    /// What the kernel may cache of an open file.
    pub(super) fn cache_mode(&self, flags: u32) -> u32 {
        let features = self.connection.protocol().features;
        match OFlags::from_bits_retain(flags) & OFlags::RWMODE {
            // Only where direct writes and shared mappings see each other.
            OFlags::WRONLY if features.direct_mmap && features.parallel_writes => {
                abi::FOPEN_DIRECT_IO | abi::FOPEN_PARALLEL_DIRECT_WRITES
            }
            OFlags::WRONLY if features.direct_mmap => abi::FOPEN_DIRECT_IO,
            _ => abi::FOPEN_KEEP_CACHE,
        }
    }

    /// Opens and perhaps truncates a file found instead of created; its caller gets `body`.
    pub(super) fn open_found(
        &self,
        mut turn: Turn<'_>,
        node: u64,
        flags: u32,
        kill_privileges: bool,
        body: impl FnOnce(u64, &backing::Stat) -> Vec<u8>,
    ) -> Result<Done, Errno> {
        let file = self.tree.open_node(node, access(flags))?;
        let truncate = OFlags::from_bits_retain(flags).contains(OFlags::TRUNC);
        if truncate {
            if kill_privileges {
                self.kill_privileges(&mut turn, node, file.as_fd())?;
            }
            rustix::fs::ftruncate(&file, 0)?;
        }
        let stat = backing::stat(&file)?;
        let mode = self.cache_mode(flags);
        let body = body(self.files.add_file(node, file, access(flags), mode), &stat);
        if !truncate {
            return Ok(turn.unchanged(&body));
        }
        let attr = Attr { size: Some(0), mtime: Some(stat.mtime), ..Attr::default() };
        Ok(turn.finish(Op::SetAttr { file: self.tree.id(node), attr }, Ok(body)))
    }
}

/// How far a write has got.
struct Written {
    /// Of the whole write.
    offset: u64,
    done: usize,
    failure: Option<Errno>,
}

impl Written {
    /// Writes the next part: where it begins, and what of it was written.
    fn next<'a>(&mut self, file: BorrowedFd<'_>, data: &'a [u8]) -> (u64, &'a [u8]) {
        let offset = self.offset + self.done as u64;
        let rest = data.get(self.done..).unwrap_or_default();
        let part = rest.get(..PART).unwrap_or(rest);
        let (length, failure) = write_all(file, part, offset);
        self.done += length;
        self.failure = failure;
        (offset, part.get(..length).unwrap_or_default())
    }
}

/// Whether a write shall be durable before it returns, and then whether its data alone. Of what is
/// written through the page cache the kernel asks for the sync itself.
fn durability(open: &OpenFile, file_flags: u32) -> Option<bool> {
    let has = |flag: i32| file_flags & flag.cast_unsigned() == flag.cast_unsigned();
    // Whatever is synchronous in full is so for its data too, in bits as well.
    (open.direct && has(libc::O_DSYNC)).then(|| !has(libc::O_SYNC))
}

/// Whether a mode of fallocate takes content away.
fn clears(mode: u32) -> bool {
    FallocateFlags::from_bits_retain(mode)
        .intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE)
}

/// Whether an error tells that nothing was begun.
fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::BADF | Errno::PERM)
}

/// How the backing file is opened. The kernel supplies offsets and asks for syncs, so appending
/// and synchronous opens are none; a file only written to may yet be read by the page cache, and
/// one opened for reading only may be truncated by that.
pub(super) fn access(flags: u32) -> OFlags {
    let flags = OFlags::from_bits_retain(flags);
    if flags & OFlags::RWMODE == OFlags::RDONLY && !flags.contains(OFlags::TRUNC) {
        OFlags::RDONLY
    } else {
        OFlags::RDWR
    }
}

/// Fills the buffer as far as the file goes.
fn read_all(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match pread(file, rest, offset + done as u64) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            // The kernel reads on from here and meets the error then.
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Writes as much as possible: the number of bytes, and why it is not all.
fn write_all(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> (usize, Option<Errno>) {
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match pwrite(file, rest, offset + done as u64) {
            Ok(0) => return (done, Some(Errno::NOSPC)),
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(errno) => return (done, Some(errno)),
        }
    }
    (done, None)
}
