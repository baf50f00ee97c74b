//! What the recorder sees: every change, in order, enough of it to rebuild an equal tree.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
#[path = "common/copying.rs"]
mod copying;
#[path = "common/people.rs"]
mod people;
#[path = "common/posix.rs"]
mod posix;
#[path = "common/script.rs"]
mod script;
#[path = "common/speaking.rs"]
mod speaking;

use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use common::{Fixture, describe, scratch};
use copying::Copying;
use fuse::{Answer, Errno};
use mount::Recorder;
use replica::op::{FileId, Op};
use speaking::Speaking;

#[test]
fn what_is_recorded_rebuilds_an_equal_tree() {
    let copy = scratch("copy");
    let mut fixture = Fixture::recording("recorded", Copying::new(&copy));
    script::run(&fixture.view);
    fs::create_dir(fixture.view.join("posix")).unwrap();
    posix::run(&fixture.view.join("posix"));
    // Left to the kernel, which stamps it when the mount goes.
    fixture.detach();
    let (expected, seen) = (describe(&fixture.source, true), describe(&copy, true));
    for (path, text) in &expected {
        assert_eq!(Some(text), seen.get(path), "{}", path.display());
    }
    assert_eq!(expected, seen);
    let mtime = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    assert_eq!(mtime(&fixture.source), mtime(&copy));
    fs::remove_dir_all(&copy).unwrap();
}

#[test]
fn what_happens_at_once_is_recorded_in_the_order_in_which_it_was_done() {
    let copy = scratch("at-once-copy");
    let mut fixture = Fixture::recording("at-once", Copying::new(&copy));
    let view = &fixture.view;
    for name in ["one", "two", "shared", "one-posix", "two-posix"] {
        fs::create_dir(view.join(name)).unwrap();
    }
    std::thread::scope(|scope| {
        for name in ["one", "two"] {
            scope.spawn(move || script::run(&view.join(name)));
            scope.spawn(move || posix::run(&view.join(format!("{name}-posix"))));
        }
        for seed in 1..4 {
            scope.spawn(move || quarrel(&view.join("shared"), seed));
        }
    });
    fixture.detach();
    assert_eq!(describe(&fixture.source, true), describe(&copy, true));
    fs::remove_dir_all(&copy).unwrap();
}

/// Changes a few names in a way that others, who do the same, are always in the way of.
fn quarrel(directory: &Path, seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    for _ in 0..4000 {
        let (kind, a, b) = (random(9), random(6), random(6));
        let (from, to) = (directory.join(a.to_string()), directory.join(b.to_string()));
        // Most of it fails, each time differently.
        let _ = match kind {
            0 => fs::create_dir(&from),
            1 => fs::remove_dir(&from),
            2 => fs::remove_file(&from),
            3 => fs::hard_link(&from, &to),
            4 => fs::rename(&from, &to),
            5 => fs::rename(&from, to.join(a.to_string())),
            6 => fs::rename(from.join(b.to_string()), &to),
            7 => fs::write(&from, vec![a as u8; 5000 * (b as usize + 1)]),
            _ => fs::OpenOptions::new()
                .write(true)
                .open(&from)
                .and_then(|file| Ok(rustix::io::pwrite(&file, &[b as u8; 3000], a * 1000)?))
                .map(drop),
        };
    }
}

/// Tells what happens, and holds back every answer until it is told to give them.
struct Telling {
    told: Sender<String>,
    held: Arc<Mutex<Vec<Answer>>>,
    admitted: Result<(), Errno>,
}

impl Recorder for Telling {
    fn admit(&mut self) -> Result<(), Errno> {
        self.admitted
    }

    fn record(&mut self, op: Op<'_>, answer: Option<Answer>) {
        self.held.lock().unwrap().extend(answer);
        self.told.send(format!("{op:?}")).unwrap();
    }

    fn sync_begins(&mut self, file: FileId, data_only: bool) -> u64 {
        self.told.send(format!("sync {} {data_only}", file.node)).unwrap();
        42
    }

    fn sync_ended(&mut self, sync: u64, local: Result<(), Errno>, answer: Answer) {
        self.held.lock().unwrap().push(answer);
        self.told.send(format!("synced {sync} {local:?}")).unwrap();
    }

    fn copy_failed(&mut self, _what: &str, _errno: Errno) {}
}

#[test]
fn nobody_is_answered_before_the_recorder_says_so() {
    let (told, heard) = channel();
    let held = Arc::new(Mutex::new(Vec::new()));
    let recorder = Telling { told, held: Arc::clone(&held), admitted: Ok(()) };
    let fixture = Fixture::recording("held", recorder);
    let path = fixture.view.join("file");
    let writer = std::thread::spawn(move || {
        let file = File::create(path)?;
        rustix::io::pwrite(&file, b"data", 0)?;
        file.sync_data()
    });
    let release = || held.lock().unwrap().pop().unwrap();
    assert!(heard.recv().unwrap().starts_with("Create"));
    assert!(fixture.source.join("file").exists(), "applied, but not answered");
    assert!(!writer.is_finished());
    release().send();
    assert!(heard.recv().unwrap().starts_with("Write { file: FileId { tree: 0, node: 2 }"));
    // Others go on while it waits.
    assert_eq!(fs::read_dir(&fixture.view).unwrap().count(), 1);
    release().send();
    assert_eq!(heard.recv().unwrap(), "sync 2 true");
    assert_eq!(heard.recv().unwrap(), "synced 42 Ok(())");
    // Dropped instead of sent: an error, not a caller who waits for ever.
    drop(release());
    let error = writer.join().unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

#[test]
fn owners_and_sizes_are_told_also_when_they_stay_the_same() {
    let (told, heard) = channel();
    let fixture = Fixture::recording("same", Speaking(told));
    let path = fixture.view.join("file");
    fs::write(&path, b"data").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("file", fixture.view.join("symlink")).unwrap();
    let last = || heard.try_iter().last().unwrap();
    last();
    std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    let text = last();
    assert!(text.contains("mode: Some(416), uid: Some(0), gid: None, size: None"), "{text}");
    File::options().write(true).open(&path).unwrap().set_len(4).unwrap();
    let text = last();
    assert!(text.contains("size: Some(4), mtime: Some("), "{text}");
    std::os::unix::fs::lchown(fixture.view.join("symlink"), None, Some(0)).unwrap();
    let text = last();
    assert!(text.contains("mode: None, uid: None, gid: Some(0), size: None"), "{text}");
}

#[test]
fn what_is_not_admitted_is_not_applied() {
    let (told, _heard) = channel();
    let held = Arc::default();
    let recorder = Telling { told, held, admitted: Err(Errno::ROFS) };
    let fixture = Fixture::recording("refused", recorder);
    let error = fs::write(fixture.view.join("file"), b"").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::read_dir(&fixture.source).unwrap().count(), 0);
}

#[test]
fn ids_and_names_follow_renames_and_links() {
    let fixture = Fixture::new("names");
    let (view, tree) = (&fixture.view, &fixture.tree);
    let root = FileId::root(0);
    fs::create_dir(view.join("d")).unwrap();
    fs::write(view.join("a"), b"a").unwrap();
    let (directory, _) = tree.lookup(root, b"d").unwrap();
    let (file, stat) = tree.lookup(root, b"a").unwrap();
    assert_eq!((stat.size, tree.name_of(file)), (1, Some((root, b"a".to_vec()))));
    fs::rename(view.join("a"), view.join("d/b")).unwrap();
    assert_eq!(tree.name_of(file), Some((directory, b"b".to_vec())));
    assert_eq!(tree.lookup(directory, b"b").unwrap().0, file);
    fs::hard_link(view.join("d/b"), view.join("c")).unwrap();
    fs::remove_file(view.join("d/b")).unwrap();
    assert_eq!(tree.name_of(file), Some((root, b"c".to_vec())));
    fs::remove_file(view.join("c")).unwrap();
    assert_eq!(tree.name_of(file), None);
    // Pinned, it can still be read: for what is open nowhere else.
    assert_eq!(tree.stat(file).unwrap().nlink, 0);
    tree.unpin(file);
    tree.unpin(file);
    assert_eq!(tree.lookup(root, b"c").unwrap_err(), Errno::NOENT);
    fs::write(view.join("c"), b"new").unwrap();
    assert!(tree.lookup(root, b"c").unwrap().0 > file, "ids are never used twice");
    assert_eq!(tree.lookup(root, b"..").unwrap_err(), Errno::INVAL);
}

/// Answers at once, and tells what changes contents and what is synced.
struct Durable(Sender<String>);

impl Recorder for Durable {
    fn admit(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    fn record(&mut self, op: Op<'_>, answer: Option<Answer>) {
        if let Op::Write { data, .. } = op {
            self.0.send(format!("write {}", data.len())).unwrap();
        }
        answer.into_iter().for_each(Answer::send);
    }

    fn sync_begins(&mut self, _file: FileId, data_only: bool) -> u64 {
        self.0.send(format!("sync {data_only}")).unwrap();
        0
    }

    fn sync_ended(&mut self, _sync: u64, _local: Result<(), Errno>, answer: Answer) {
        answer.send();
    }

    fn copy_failed(&mut self, what: &str, errno: Errno) {
        panic!("{what}: {errno}");
    }
}

#[test]
fn writes_that_shall_be_durable_are_followed_by_a_sync() {
    let (told, heard) = channel();
    let fixture = Fixture::recording("durable", Durable(told));
    let path = fixture.view.join("file");
    let open = |read: bool, flags: i32| {
        let mut options = File::options();
        options.read(read).write(true).create(true).truncate(false).custom_flags(flags);
        options.open(&path).unwrap()
    };
    // Past the page cache, through it, and past it on the caller's wish.
    for (read, direct) in [(false, 0), (true, 0), (true, libc::O_DIRECT), (false, libc::O_DIRECT)] {
        for (flags, data_only) in [(libc::O_SYNC, false), (libc::O_DSYNC, true)] {
            let file = open(read, flags | direct);
            let page = Page([7; 4096]);
            rustix::io::pwrite(&file, &page.0, 0).unwrap();
            let seen: Vec<String> = heard.try_iter().collect();
            let expected = ["write 4096".to_owned(), format!("sync {data_only}")];
            assert_eq!(seen, expected, "read {read}, flags {:o}", flags | direct);
        }
        let file = open(read, direct);
        let page = Page([8; 4096]);
        let page = [std::io::IoSlice::new(&page.0)];
        for flag in [rustix::io::ReadWriteFlags::SYNC, rustix::io::ReadWriteFlags::DSYNC] {
            rustix::io::pwritev2(&file, &page, 0, flag).unwrap();
            let data_only = flag == rustix::io::ReadWriteFlags::DSYNC;
            let seen: Vec<String> = heard.try_iter().collect();
            let expected = ["write 4096".to_owned(), format!("sync {data_only}")];
            assert_eq!(seen, expected, "read {read}, {direct:o}, {flag:?}");
        }
    }
}

/// Aligned as reading and writing past the page cache wants it.
#[repr(align(4096))]
struct Page([u8; 4096]);
