//! The replication stream: from the source of a session to its target, and back.
//!
//! Everything from the source is one ordered stream; answers carry the number or tag they belong
//! to. Operations carry a number, steps of a resync do not.

use replica::op::{FileId, Op, Stamp};
use replica::walk::Theirs;

use crate::frame::{Decoder, WireError, put_bytes, put_frame};
use crate::op::{
    TARGET_BYTES_MAX, put_file, put_op, put_stamp, put_u64, take_bool, take_file, take_limited,
    take_name, take_op, take_stamp,
};

pub use crate::object::{Attributes, Ensure, XATTRS_MAX, Xattrs};
use crate::object::{put_attributes, put_ensure, take_attributes, take_ensure};
use crate::owners::{Owner, put_owners, take_owners};
pub use crate::ping::Ping;
use crate::ping::{PING, put_ping, take_ping};
use crate::recall::{
    Recalled, Suspect, put_recalled, put_suspects, put_theirs, take_recalled, take_suspects,
    take_theirs, take_u128,
};
pub use crate::summary::Summary;
use crate::summary::{put_summary, take_summary, take_wanted};

/// Bytes of a block whose hash is compared in a resync.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Blocks compared by one message.
pub const BLOCKS_MAX: usize = 16;
/// Bytes of all their values.
pub const XATTR_VALUES_BYTES_MAX: usize = 16 << 20;

/// BLAKE3 hash of a block.
pub type BlockHash = [u8; 32];

/// From the source to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward<'a> {
    /// An operation with its number.
    Op {
        /// Number.
        number: u64,
        /// Operation.
        op: Op<'a>,
    },
    /// Gives an id to what already stands under a name on both sides.
    Bind {
        /// Id.
        file: FileId,
        /// Directory.
        parent: FileId,
        /// Name in it.
        name: &'a [u8],
    },
    /// Resync: this object stood under a name when the target last heard of it, and has been moved
    /// since: if what stands there may be it, it need not be copied.
    Formerly {
        /// Object.
        file: FileId,
        /// Whether it is a directory; else it is a file with one name.
        directory: bool,
        /// The directory that held it.
        parent: FileId,
        /// Its name there.
        name: &'a [u8],
    },
    /// Resync: make what stands under a name be this object, with these attributes; a file's
    /// content is cut to size but not compared yet.
    Ensure(Ensure<'a>),
    /// Resync: an object has exactly these attributes; sent for roots, which have no name, and
    /// after content, as writing removes file capabilities.
    Attributes(Attributes<'a>),
    /// Resync: remove what stands under a name, with everything below.
    Discard {
        /// Directory.
        parent: FileId,
        /// Name in it.
        name: &'a [u8],
    },
    /// Resync: tell what the directory holds.
    List {
        /// Returned with the answer.
        tag: u64,
        /// Directory.
        directory: FileId,
    },
    /// Resync: compare these blocks.
    Compare {
        /// Returned with the answer.
        tag: u64,
        /// File.
        file: FileId,
        /// Start of the first block, in bytes.
        offset: u64,
        /// Hashes of successive blocks.
        hashes: Vec<BlockHash>,
    },
    /// Resync: content of a file.
    Block {
        /// File.
        file: FileId,
        /// Position, in bytes.
        offset: u64,
        /// Content.
        data: &'a [u8],
    },
    /// Resync: an object is complete; its modification time is this.
    Finish {
        /// File or directory.
        file: FileId,
        /// Modification time.
        mtime: Stamp,
    },
    /// Nothing more will be said of this object under its id, unless that is bound anew.
    Forget(FileId),
    /// Verification: say what stands in a directory, under one name or, without one, under all; `.`
    /// is the directory itself.
    Summarize {
        /// Returned with the answer.
        tag: u64,
        /// Directory.
        directory: FileId,
        /// Name in it.
        name: &'a [u8],
    },
    /// Whose files these are.
    Owners(Vec<Owner<'a>>),
    /// Everything before this must be durable; then say so.
    Barrier {
        /// Number of the last operation before it.
        number: u64,
        /// That state is one that both share from here on: its identity, and that of the one
        /// which the source shared before. None while the target may lack something.
        base: Option<(u128, u128)>,
    },
    /// Resync: say what you recall.
    Recall,
    /// Whether every operation from here on must apply exactly as it did at the source, so that
    /// any difference is a fault, or what is missing is tolerated, as a resync is under way.
    Strict(bool),
    /// Say that everything before this has been taken, and so that every complaint about it is on
    /// its way already.
    Check {
        /// Returned with the answer.
        tag: u64,
    },
    /// So many bytes of the target's frames have been taken, pings left out: they need not be kept
    /// for another connection.
    Received(u64),
    /// Proof of life.
    Ping(Ping),
}

/// From the target to the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backward<'a> {
    /// Every operation up to this number has been applied.
    Applied {
        /// Number.
        number: u64,
    },
    /// The sync with this number, and everything before it, is durable.
    Durable {
        /// Number.
        number: u64,
    },
    /// Everything before the barrier with this number is durable.
    BarrierDone {
        /// Number.
        number: u64,
    },
    /// Part of what a directory holds.
    Listed {
        /// Of the question.
        tag: u64,
        /// Whether this is the last part.
        last: bool,
        /// Names and what stands under them.
        entries: Vec<(&'a [u8], Theirs)>,
    },
    /// Answer to `Recall`; suspects follow.
    Recalled(Recalled),
    /// Part of what the target may have strayed in.
    Suspects {
        /// Whether this is the last part.
        last: bool,
        /// Suspects.
        suspects: Vec<Suspect<'a>>,
    },
    /// Part of the answer to `Summarize`.
    Summarized {
        /// Of the question.
        tag: u64,
        /// Whether this is the last part.
        last: bool,
        /// Names and what stands under them.
        entries: Vec<(&'a [u8], Summary)>,
    },
    /// Which of the compared blocks differ: bit i for block i.
    Differ {
        /// Of the question.
        tag: u64,
        /// Bits.
        blocks: u32,
    },
    /// Everything before the check has been taken.
    Checked {
        /// Of the check.
        tag: u64,
    },
    /// The object is not held here any more: every name it had was removed before the walk came to
    /// its other names.
    Absent {
        /// Object.
        file: FileId,
    },
    /// A change of names was not made here as at the source: this name may not be right.
    Astray {
        /// Directory.
        parent: FileId,
        /// Name.
        name: &'a [u8],
    },
    /// Something could not be applied; the session is over.
    Failed {
        /// errno, 0 when it is not a matter of the file system.
        errno: u32,
        /// Sentence.
        what: &'a [u8],
    },
    /// So many bytes of the source's frames have been taken, pings left out.
    Received(u64),
    /// Proof of life.
    Ping(Ping),
}

/// Appends a frame to the target.
pub fn put_forward(out: &mut Vec<u8>, message: &Forward<'_>) {
    put_frame(out, |out| match message {
        Forward::Op { number, op } => {
            out.push(1);
            put_u64(out, *number);
            put_op(out, op);
        }
        Forward::Bind { file, parent, name } => {
            put_kind_file(out, 2, *file);
            put_entry(out, *parent, name);
        }
        Forward::Formerly { file, directory, parent, name } => {
            out.extend_from_slice(&[15, u8::from(*directory)]);
            put_file(out, *file);
            put_entry(out, *parent, name);
        }
        Forward::Ensure(ensure) => {
            out.push(3);
            put_ensure(out, ensure);
        }
        Forward::Attributes(attributes) => {
            out.push(12);
            put_attributes(out, attributes);
        }
        Forward::Discard { parent, name } => {
            out.push(4);
            put_entry(out, *parent, name);
        }
        Forward::List { tag, directory } => {
            put_kind_u64(out, 5, *tag);
            put_file(out, *directory);
        }
        Forward::Compare { tag, file, offset, hashes } => {
            put_compare(out, (*tag, *file, *offset), hashes);
        }
        Forward::Block { file, offset, data } => {
            put_kind_file(out, 7, *file);
            put_u64(out, *offset);
            out.extend_from_slice(data);
        }
        Forward::Finish { file, mtime } => {
            put_kind_file(out, 8, *file);
            put_stamp(out, *mtime);
        }
        Forward::Forget(file) => put_kind_file(out, 17, *file),
        Forward::Barrier { number, base } => put_barrier(out, *number, *base),
        Forward::Recall => out.push(13),
        Forward::Owners(owners) => put_kind_owners(out, owners),
        Forward::Strict(strict) => out.extend([10, u8::from(*strict)]),
        Forward::Check { tag } => put_kind_u64(out, 11, *tag),
        Forward::Summarize { tag, directory, name } => {
            put_kind_u64(out, 14, *tag);
            put_entry(out, *directory, name);
        }
        Forward::Received(bytes) => put_kind_u64(out, RECEIVED, *bytes),
        Forward::Ping(ping) => put_ping(out, ping),
    });
}

fn put_kind_file(out: &mut Vec<u8>, kind: u8, file: FileId) {
    out.push(kind);
    put_file(out, file);
}

/// Reads a frame from the source.
pub fn take_forward(frame: &[u8]) -> Result<Forward<'_>, WireError> {
    let mut decoder = Decoder::new(frame);
    let message = match decoder.u8()? {
        1 => Forward::Op { number: decoder.u64()?, op: take_op(&mut decoder)? },
        2 => Forward::Bind {
            file: take_file(&mut decoder)?,
            parent: take_file(&mut decoder)?,
            name: take_name(&mut decoder)?,
        },
        15 => Forward::Formerly {
            directory: take_bool(&mut decoder)?,
            file: take_file(&mut decoder)?,
            parent: take_file(&mut decoder)?,
            name: take_name(&mut decoder)?,
        },
        3 => Forward::Ensure(take_ensure(&mut decoder)?),
        4 => {
            let parent = take_file(&mut decoder)?;
            Forward::Discard { parent, name: take_name(&mut decoder)? }
        }
        5 => Forward::List { tag: decoder.u64()?, directory: take_file(&mut decoder)? },
        6 => take_compare(&mut decoder)?,
        7 => {
            let (file, offset) = (take_file(&mut decoder)?, decoder.u64()?);
            Forward::Block { file, offset, data: decoder.remainder() }
        }
        8 => Forward::Finish { file: take_file(&mut decoder)?, mtime: take_stamp(&mut decoder)? },
        9 => {
            let number = decoder.u64()?;
            let base = match take_bool(&mut decoder)? {
                true => Some((take_u128(&mut decoder)?, take_u128(&mut decoder)?)),
                false => None,
            };
            Forward::Barrier { number, base }
        }
        17 => Forward::Forget(take_file(&mut decoder)?),
        13 => Forward::Recall,
        16 => Forward::Owners(take_owners(&mut decoder)?),
        10 => Forward::Strict(take_bool(&mut decoder)?),
        12 => Forward::Attributes(take_attributes(&mut decoder)?),
        11 => Forward::Check { tag: decoder.u64()? },
        14 => {
            let (tag, directory) = (decoder.u64()?, take_file(&mut decoder)?);
            Forward::Summarize { tag, directory, name: take_wanted(&mut decoder)? }
        }
        RECEIVED => Forward::Received(decoder.u64()?),
        PING => Forward::Ping(take_ping(&mut decoder)?),
        unknown => return Err(WireError::Kind(unknown)),
    };
    decoder.finish()?;
    Ok(message)
}

/// Appends a frame to the source.
pub fn put_backward(out: &mut Vec<u8>, message: &Backward<'_>) {
    put_frame(out, |out| match message {
        Backward::Applied { number } => put_kind_u64(out, 1, *number),
        Backward::Durable { number } => put_kind_u64(out, 2, *number),
        Backward::BarrierDone { number } => put_kind_u64(out, 3, *number),
        Backward::Listed { tag, last, entries } => {
            put_kind_u64(out, 4, *tag);
            out.push(u8::from(*last));
            entries.iter().for_each(|(name, theirs)| put_theirs(out, name, *theirs));
        }
        Backward::Recalled(recalled) => {
            out.push(9);
            put_recalled(out, recalled);
        }
        Backward::Suspects { last, suspects } => {
            out.extend_from_slice(&[10, u8::from(*last)]);
            put_suspects(out, suspects);
        }
        Backward::Differ { tag, blocks } => {
            put_kind_u64(out, 5, *tag);
            out.extend_from_slice(&blocks.to_le_bytes());
        }
        Backward::Failed { errno, what } => {
            out.push(6);
            out.extend_from_slice(&errno.to_le_bytes());
            put_bytes(out, what);
        }
        Backward::Absent { file } => {
            out.push(7);
            put_file(out, *file);
        }
        Backward::Astray { parent, name } => {
            out.push(12);
            put_entry(out, *parent, name);
        }
        Backward::Checked { tag } => put_kind_u64(out, 8, *tag),
        Backward::Summarized { tag, last, entries } => {
            put_kind_u64(out, 11, *tag);
            out.push(u8::from(*last));
            entries.iter().for_each(|(name, summary)| put_summary(out, name, summary));
        }
        Backward::Received(bytes) => put_kind_u64(out, RECEIVED, *bytes),
        Backward::Ping(ping) => put_ping(out, ping),
    });
}

/// Reads a frame from the target.
pub fn take_backward(frame: &[u8]) -> Result<Backward<'_>, WireError> {
    let mut decoder = Decoder::new(frame);
    let message = match decoder.u8()? {
        1 => Backward::Applied { number: decoder.u64()? },
        2 => Backward::Durable { number: decoder.u64()? },
        3 => Backward::BarrierDone { number: decoder.u64()? },
        4 => take_listed(&mut decoder)?,
        5 => Backward::Differ { tag: decoder.u64()?, blocks: decoder.u32()? },
        6 => Backward::Failed {
            errno: decoder.u32()?,
            what: take_limited(&mut decoder, TARGET_BYTES_MAX, "sentence")?,
        },
        7 => Backward::Absent { file: take_file(&mut decoder)? },
        8 => Backward::Checked { tag: decoder.u64()? },
        9 => Backward::Recalled(take_recalled(&mut decoder)?),
        10 => {
            let last = take_bool(&mut decoder)?;
            Backward::Suspects { last, suspects: take_suspects(&mut decoder)? }
        }
        11 => {
            let (tag, last) = (decoder.u64()?, take_bool(&mut decoder)?);
            let mut entries = Vec::new();
            while !decoder.is_empty() {
                entries.push(take_summary(&mut decoder)?);
            }
            Backward::Summarized { tag, last, entries }
        }
        12 => Backward::Astray { parent: take_file(&mut decoder)?, name: take_name(&mut decoder)? },
        RECEIVED => Backward::Received(decoder.u64()?),
        PING => Backward::Ping(take_ping(&mut decoder)?),
        unknown => return Err(WireError::Kind(unknown)),
    };
    decoder.finish()?;
    Ok(message)
}

const RECEIVED: u8 = 101;

fn put_compare(out: &mut Vec<u8>, (tag, file, offset): (u64, FileId, u64), hashes: &[BlockHash]) {
    put_kind_u64(out, 6, tag);
    put_file(out, file);
    put_u64(out, offset);
    hashes.iter().for_each(|hash| out.extend_from_slice(hash));
}

fn put_barrier(out: &mut Vec<u8>, number: u64, base: Option<(u128, u128)>) {
    put_kind_u64(out, 9, number);
    out.push(u8::from(base.is_some()));
    if let Some((id, previous)) = base {
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&previous.to_le_bytes());
    }
}

fn put_kind_owners(out: &mut Vec<u8>, owners: &[Owner<'_>]) {
    out.push(16);
    put_owners(out, owners);
}

fn put_kind_u64(out: &mut Vec<u8>, kind: u8, value: u64) {
    out.push(kind);
    put_u64(out, value);
}

fn put_entry(out: &mut Vec<u8>, parent: FileId, name: &[u8]) {
    put_file(out, parent);
    put_bytes(out, name);
}

fn take_compare<'a>(decoder: &mut Decoder<'a>) -> Result<Forward<'a>, WireError> {
    let (tag, file, offset) = (decoder.u64()?, take_file(decoder)?, decoder.u64()?);
    let (hashes, rest) = decoder.remainder().as_chunks::<32>();
    if !rest.is_empty() || hashes.is_empty() || hashes.len() > BLOCKS_MAX {
        return Err(WireError::Value("number of hashes"));
    }
    Ok(Forward::Compare { tag, file, offset, hashes: hashes.to_vec() })
}

fn take_listed<'a>(decoder: &mut Decoder<'a>) -> Result<Backward<'a>, WireError> {
    let tag = decoder.u64()?;
    let last = take_bool(decoder)?;
    let mut entries = Vec::new();
    while !decoder.is_empty() {
        entries.push(take_theirs(decoder)?);
    }
    Ok(Backward::Listed { tag, last, entries })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::PREFIX_BYTES;

    const FILE: FileId = FileId { tree: 1, node: 77 };
    const STAMP: Stamp = Stamp { seconds: -5, nanoseconds: 999_999_999 };

    fn forward_examples() -> Vec<Forward<'static>> {
        vec![
            Forward::Formerly { file: FILE, directory: true, parent: FILE, name: b"was" },
            Forward::Forget(FILE),
            Forward::Op {
                number: 9,
                op: Op::Write { file: FILE, offset: 4096, data: b"abc", mtime: STAMP },
            },
            Forward::Op {
                number: 10,
                op: Op::Rename {
                    parent: FILE,
                    name: b"a\xff",
                    new_parent: FileId::root(0),
                    new_name: b"b",
                    flags: 2,
                    parent_mtime: STAMP,
                    new_parent_mtime: STAMP,
                },
            },
            Forward::Ensure(Ensure {
                parent: FILE,
                name: b"n",
                file: FILE,
                held: true,
                apart: false,
                mode: 0o100_644,
                uid: 1,
                gid: 2,
                rdev: 3,
                size: 4,
                mtime: STAMP,
                target: b"",
                xattrs: vec![(b"user.a", b"1"), (b"user.b", b"")],
            }),
            Forward::Attributes(Attributes {
                file: FILE,
                mode: 0o104_755,
                uid: 1,
                gid: 2,
                xattrs: vec![(b"security.capability", b"x")],
            }),
            Forward::Compare { tag: 1, file: FILE, offset: 0, hashes: vec![[7; 32]; 3] },
            Forward::Block { file: FILE, offset: 65536, data: b"block" },
            Forward::Barrier { number: 3, base: None },
            Forward::Barrier { number: 3, base: Some((u128::MAX - 1, 5)) },
            Forward::Recall,
            Forward::Owners(vec![Owner { group: true, name: b"people", id: 1000 }]),
            Forward::Strict(true),
            Forward::Received(1 << 40),
            Forward::Summarize { tag: 3, directory: FILE, name: b"" },
            Forward::Summarize { tag: 3, directory: FILE, name: b"." },
            Forward::Ping(Ping { sequence: 1, echo: 2 }),
        ]
    }

    #[test]
    fn what_is_put_is_taken() {
        for message in forward_examples() {
            let mut out = Vec::new();
            put_forward(&mut out, &message);
            assert_eq!(take_forward(&out[PREFIX_BYTES..]), Ok(message));
        }
        let file = Theirs { size: 3, kind: 8, recent: true };
        let entries: Vec<(&[u8], Theirs)> = vec![(b"x", file), (b"y", Theirs::default())];
        let listed = Backward::Listed { tag: 4, last: true, entries };
        let mut out = Vec::new();
        put_backward(&mut out, &listed);
        assert_eq!(take_backward(&out[PREFIX_BYTES..]), Ok(listed));
        let (mode, mtime) = (0o100_644, STAMP);
        let summary = Summary { mode, mtime, size: 1 << 40, rest: [7; 16], ..Summary::default() };
        let entries: Vec<(&[u8], Summary)> = vec![(b"x", summary), (b".", Summary::default())];
        let summarized = Backward::Summarized { tag: 4, last: false, entries };
        let mut out = Vec::new();
        put_backward(&mut out, &summarized);
        assert_eq!(take_backward(&out[PREFIX_BYTES..]), Ok(summarized));
    }

    #[test]
    fn every_truncation_and_every_changed_byte_is_survived() {
        for message in forward_examples() {
            let mut out = Vec::new();
            put_forward(&mut out, &message);
            let frame = &out[PREFIX_BYTES..];
            for end in 0..frame.len() {
                let _ = take_forward(&frame[..end]);
            }
            for at in 0..frame.len() {
                let mut bent = frame.to_vec();
                bent[at] ^= 0xff;
                let _ = take_forward(&bent);
            }
        }
    }

    #[test]
    fn names_that_leave_their_directory_are_refused() {
        for name in [&b".."[..], b".", b"", b"a/b", b"/", b"a\0b", &[b'x'; 256]] {
            let mut out = Vec::new();
            put_forward(&mut out, &Forward::Discard { parent: FILE, name });
            assert_eq!(take_forward(&out[PREFIX_BYTES..]), Err(WireError::Value("name")));
        }
    }
}
