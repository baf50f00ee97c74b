//! Which operation comes next: at random, of every kind, and such that it should succeed.

use std::collections::BTreeSet;

use super::model::{BLOCK, Model, Node};
use super::op::{Allocation, How, Op, Renaming, SHARED};

/// Names beyond which none are added.
const NAMES_MAX: usize = 45;
/// Largest offset of a write, in bytes.
const OFFSET_MAX: u64 = 120_000;
/// Largest file, in bytes.
const SIZE_MAX: u64 = 200_000;
/// Deepest path.
const DEPTH_MAX: usize = 5;

/// Numbers that follow from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below a limit that is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len().max(1) as u64);
        from.get(usize::try_from(at).unwrap_or(0)).cloned()
    }
}

/// Draws operations.
#[derive(Debug)]
pub(crate) struct Generator {
    random: Random,
    /// Kinds of `fallocate` that the file system refuses.
    refused: BTreeSet<Allocation>,
}

/// What there is to choose from.
struct Choice {
    all: Vec<String>,
    files: Vec<String>,
    directories: Vec<String>,
    leaves: Vec<String>,
}

impl Generator {
    pub(crate) fn new(seed: u64, refused: BTreeSet<Allocation>) -> Generator {
        Generator { random: Random::new(seed), refused }
    }

    /// The next operation and what it makes of the model.
    pub(crate) fn next(&mut self, model: &Model) -> (Op, Model) {
        let choice = Choice::of(model);
        loop {
            let Some(op) = self.propose(model, &choice) else { continue };
            let mut after = model.clone();
            if after.apply(&op).is_ok() {
                return (op, after);
            }
        }
    }

    fn propose(&mut self, model: &Model, choice: &Choice) -> Option<Op> {
        let full = choice.all.len() >= NAMES_MAX;
        let file = self.random.pick(&choice.files);
        let leaf = self.random.pick(&choice.leaves);
        let any = self.random.pick(&choice.all);
        Some(match self.random.below(100) {
            0..9 if !full => Op::Create { path: self.fresh(choice)?, mode: self.mode() },
            0..29 => self.write(file?),
            29..35 => Op::Append { path: file?, length: self.length(), key: self.random.next() },
            35..37 => Op::Empty { path: file? },
            37..42 => {
                let size = self.random.below(SIZE_MAX / 2);
                Op::Truncate { path: file?, size, open: self.random.below(2) == 0 }
            }
            42..48 => self.allocate(file?)?,
            48..51 => self.copy(model, file?, self.random.clone().pick(&choice.files)?)?,
            51..54 => self.map(model, file?)?,
            54..57 => Op::Sync { path: file?, data_only: self.random.below(2) == 0 },
            57..58 => Op::Sync { path: self.random.pick(&choice.directories)?, data_only: false },
            58..72 => {
                let from = self.random.pick(&choice.all)?;
                Op::Rename { from, to: self.anywhere(choice)?, how: Renaming::Replace }
            }
            72..73 => Op::Rename { from: leaf?, to: self.fresh(choice)?, how: Renaming::Fresh },
            73..75 => Op::Rename { from: leaf?, to: any?, how: Renaming::Exchange },
            75..78 if !full => Op::Link { from: leaf?, to: self.fresh(choice)? },
            75..80 => Op::Unlink { path: leaf? },
            80..81 => Op::Orphan { path: file?, key: self.random.next() },
            81..83 if !full => {
                let target = format!("target{}", self.random.below(1000));
                Op::Symlink { path: self.fresh(choice)?, target }
            }
            81..86 if !full => Op::Directory { path: self.fresh(choice)?, mode: self.mode() },
            81..88 => Op::RemoveDirectory { path: self.random.pick(&choice.directories)? },
            88..89 if !full => Op::Pipe { path: self.fresh(choice)?, mode: self.mode() },
            88..91 => Op::Mode { path: file?, mode: self.mode() },
            91..94 => {
                let (uid, gid) = (self.random.below(4), self.random.below(4));
                Op::Owner {
                    path: any?,
                    uid: u32::try_from(uid).ok()?,
                    gid: u32::try_from(gid).ok()?,
                }
            }
            94..96 => self.attribute(file?),
            96..97 => Op::RemoveAttribute { path: file?, name: self.attribute_name() },
            97..98 => Op::Mode { path: self.random.pick(&choice.directories)?, mode: self.mode() },
            _ => Op::Times {
                path: any?,
                seconds: i64::try_from(self.random.below(2_000_000_000)).ok()?,
                nanoseconds: u32::try_from(self.random.below(1_000_000_000)).ok()?,
            },
        })
    }

    fn write(&mut self, path: String) -> Op {
        let how = match self.random.below(22) {
            0..5 => How::Plain,
            5..9 => How::Cached,
            9..12 => How::Held,
            12 => How::Sync,
            13 => How::DataSync,
            14 => How::DataSyncOnce,
            15..19 => How::Direct,
            _ => How::Plain,
        };
        let (mut offset, mut length) = (self.random.below(OFFSET_MAX), self.length());
        if how == How::Direct || self.random.below(4) == 0 {
            offset -= offset % BLOCK;
            length = length.next_multiple_of(BLOCK);
        }
        Op::Write { path, offset, length, key: self.random.next(), how }
    }

    fn allocate(&mut self, path: String) -> Option<Op> {
        let kinds = [
            Allocation::Grow,
            Allocation::Keep,
            Allocation::Punch,
            Allocation::Zero,
            Allocation::Collapse,
            Allocation::Insert,
        ];
        let how = self.random.pick(&kinds).filter(|how| !self.refused.contains(how))?;
        let (mut offset, mut length) = (self.random.below(SIZE_MAX / 2), self.length());
        if matches!(how, Allocation::Collapse | Allocation::Insert) || self.random.below(2) == 0 {
            offset -= offset % BLOCK;
            length = length.next_multiple_of(BLOCK);
        }
        Some(Op::Allocate { path, how, offset, length })
    }

    fn copy(&mut self, model: &Model, from: String, to: String) -> Option<Op> {
        let size = model.content(&from).ok()?.len() as u64;
        let offset = self.random.below(size.max(1));
        let length = 1 + self.random.below(size.checked_sub(offset).filter(|rest| *rest > 0)?);
        Some(Op::Copy { from, to, offset, at: self.random.below(OFFSET_MAX), length })
    }

    fn map(&mut self, model: &Model, path: String) -> Option<Op> {
        let size = model.content(&path).ok()?.len() as u64;
        let mut parts: Vec<(u64, u64)> = Vec::new();
        for _ in 0..=self.random.below(3) {
            let offset = self.random.below(size.max(1));
            parts.push((
                offset,
                1 + self.random.below(size.checked_sub(offset + 1)?.clamp(1, 9000)),
            ));
        }
        Some(Op::Map { path, parts, key: self.random.next() >> 1 })
    }

    fn attribute(&mut self, path: String) -> Op {
        let name = self.attribute_name();
        let most = if self.random.below(8) == 0 { 500 } else { 30 };
        let length = 1 + self.random.below(most);
        let value = format!("{:0>1$}", self.random.next(), usize::try_from(length).unwrap_or(1));
        Op::SetAttribute { path, name, value }
    }

    fn attribute_name(&mut self) -> String {
        let names = ["user.a", "user.b", "user.\u{fc}", "trusted.c"];
        self.random.pick(&names).unwrap_or(names[0]).to_owned()
    }

    fn mode(&mut self) -> u32 {
        let modes = [0o644, 0o600, 0o755, 0o711, 0o400, 0o1755, 0o640];
        self.random.pick(&modes).unwrap_or(0o644)
    }

    /// Mostly small, at times several requests of the kernel long.
    fn length(&mut self) -> u64 {
        let most = match self.random.below(10) {
            0..4 => 300,
            4..8 => 9000,
            _ => 70_000,
        };
        1 + self.random.below(most)
    }

    fn fresh(&mut self, choice: &Choice) -> Option<String> {
        let path = self.anywhere(choice)?;
        (!choice.all.contains(&path)).then_some(path)
    }

    fn anywhere(&mut self, choice: &Choice) -> Option<String> {
        let directory = self.random.pick(&choice.directories)?;
        let number = self.random.below(14);
        let name = match self.random.below(12) {
            0 => format!("a name with blanks {number}"),
            1 => format!("\u{e4}\u{f6}\u{fc}\u{4e2d}{number}"),
            2 => format!("{number}{}", "long".repeat(50)),
            _ => format!("n{number}"),
        };
        let path = super::model::join(&directory, &name);
        (path.matches('/').count() < DEPTH_MAX).then_some(path)
    }
}

impl Choice {
    fn of(model: &Model) -> Choice {
        let mut choice = Choice {
            all: Vec::new(),
            files: Vec::new(),
            directories: vec![String::new(), SHARED.to_owned()],
            leaves: Vec::new(),
        };
        for (path, id) in model.names() {
            if path.is_empty() || path == SHARED {
                continue;
            }
            match model.get(id).map(|inode| &inode.node) {
                Some(Node::Directory(_)) => choice.directories.push(path.clone()),
                Some(Node::File(_)) => {
                    choice.files.push(path.clone());
                    choice.leaves.push(path.clone());
                }
                Some(Node::Symlink(_) | Node::Pipe) | None => choice.leaves.push(path.clone()),
            }
            choice.all.push(path);
        }
        choice
    }
}
