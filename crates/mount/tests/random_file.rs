//! One file changed at random in every way, each time compared with what it must hold, and at the
//! end with what was recorded. The suites of others, which do more of it, are a soak.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
#[path = "common/copying.rs"]
mod copying;
#[path = "common/mapping.rs"]
mod mapping;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use common::{Fixture, describe, scratch};
use copying::Copying;
use mapping::Mapping;
use rustix::fs::{FallocateFlags, fallocate};

/// Largest size of the file, in bytes.
const SIZE_MAX: u64 = 400_000;
const CHANGES: u64 = 6_000;

#[test]
fn a_file_always_holds_what_was_written() {
    for seed in 1..=3 {
        let copy = scratch("random-copy");
        let mut fixture = Fixture::recording("random", Copying::new(&copy));
        let mut subject = Subject::new(fixture.view.join("file"), seed);
        for number in 0..CHANGES {
            subject.change();
            subject.check(&format!("seed {seed}, change {number}"));
        }
        let expected = std::mem::take(&mut subject.expected);
        drop(subject);
        fixture.detach();
        assert!(fs::read(fixture.source.join("file")).unwrap() == expected, "seed {seed}");
        assert_eq!(describe(&fixture.source, true), describe(&copy, true), "seed {seed}");
        fs::remove_dir_all(&copy).unwrap();
    }
}

/// The file under test, open in every way, and what it must hold.
struct Subject {
    path: PathBuf,
    both: File,
    only: File,
    direct: File,
    expected: Vec<u8>,
    state: u64,
}

impl Subject {
    fn new(path: PathBuf, seed: u64) -> Subject {
        let mut options = OpenOptions::new();
        let both = options.read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let only = OpenOptions::new().write(true).open(&path).unwrap();
        let direct = direct(&path);
        Subject { path, both, only, direct, expected: Vec::new(), state: seed }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.state >> 33) % limit.max(1)
    }

    /// A range that may begin anywhere.
    fn range(&mut self, aligned: u64) -> (u64, u64) {
        let offset = self.below(SIZE_MAX - 40_000) / aligned * aligned;
        (offset, (1 + self.below(40_000 / aligned)) * aligned)
    }

    fn change(&mut self) {
        let kind = self.below(12);
        let (offset, length) = self.range(if kind == 2 { 4096 } else { 1 });
        let bytes = vec![self.below(256) as u8; length as usize];
        match kind {
            0 => self.both.write_all_at(&bytes, offset).unwrap(),
            1 => self.only.write_all_at(&bytes, offset).unwrap(),
            2 => self.direct.write_all_at(&bytes, offset).unwrap(),
            3 => return self.store(offset, &bytes),
            4 => return self.resize(offset),
            5 | 6 => return self.clear(offset, length, kind == 5),
            7 => return self.allocate(offset, length),
            8 => return self.copy(offset, length),
            9 => return self.reopen(),
            10 => return self.both.sync_data().unwrap(),
            _ => return assert!(fs::metadata(&self.path).unwrap().is_file()),
        }
        self.put(offset, &bytes);
    }

    /// What was written somewhere.
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        self.expected.resize(self.expected.len().max(end), 0);
        self.expected[start..end].copy_from_slice(bytes);
    }

    fn store(&mut self, offset: u64, bytes: &[u8]) {
        let end = self.expected.len().min(offset as usize + bytes.len());
        if end <= offset as usize {
            return;
        }
        let bytes = &bytes[..end - offset as usize];
        let mut map = Mapping::shared(&self.both, self.expected.len());
        map.store(offset as usize, bytes);
        self.put(offset, bytes);
        if self.below(2) == 0 {
            map.sync();
        }
    }

    fn resize(&mut self, size: u64) {
        self.only.set_len(size).unwrap();
        self.expected.resize(size as usize, 0);
    }

    fn clear(&mut self, offset: u64, length: u64, punch: bool) {
        let how = if punch { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        fallocate(&self.both, how | FallocateFlags::KEEP_SIZE, offset, length).unwrap();
        let end = self.expected.len().min((offset + length) as usize);
        let start = end.min(offset as usize);
        self.expected[start..end].fill(0);
    }

    fn allocate(&mut self, offset: u64, length: u64) {
        fallocate(&self.only, FallocateFlags::empty(), offset, length).unwrap();
        let size = self.expected.len().max((offset + length) as usize);
        self.expected.resize(size, 0);
    }

    /// Copies what there is of a range to the end of the largest file.
    fn copy(&mut self, offset: u64, length: u64) {
        let target = SIZE_MAX - 40_000;
        let start = offset.min(target - length);
        let end = (start + length).min(self.expected.len() as u64);
        let (mut from, mut to) = (start, target);
        while from < end {
            let (both, only, rest) = (&self.both, &self.only, (end - from) as usize);
            let copied =
                rustix::fs::copy_file_range(both, Some(&mut from), only, Some(&mut to), rest);
            assert!(copied.unwrap() > 0);
        }
        let bytes = self.expected.get(start as usize..end as usize).unwrap_or_default().to_vec();
        if !bytes.is_empty() {
            self.put(target, &bytes);
        }
    }

    fn reopen(&mut self) {
        self.both = OpenOptions::new().read(true).write(true).open(&self.path).unwrap();
        self.only = OpenOptions::new().write(true).open(&self.path).unwrap();
        self.direct = direct(&self.path);
    }

    /// Reads a part of the file, and sometimes all of it.
    fn check(&mut self, when: &str) {
        assert_eq!(self.both.metadata().unwrap().len(), self.expected.len() as u64, "{when}");
        let (offset, length) = if self.below(50) == 0 { (0, SIZE_MAX) } else { self.range(1) };
        let end = self.expected.len().min((offset + length) as usize);
        let start = end.min(offset as usize);
        let mut seen = vec![1; end - start];
        self.both.read_exact_at(&mut seen, start as u64).unwrap();
        assert!(seen == self.expected[start..end], "{when}: {start}..{end} differs");
    }
}

fn direct(path: &PathBuf) -> File {
    OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).unwrap()
}
