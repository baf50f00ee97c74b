//! The target's copy, fed with messages and looked at through the file system. Needs root, as the
//! product does.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mount::backing::Root;
use replica::op::{FileId, Op, Stamp};
use wire::replication::{Backward, Ensure, Forward, take_backward};

use super::{After, NotApplied, Store};
use crate::replicator::log::ActivityLog;

const ROOT: FileId = FileId::root(0);
const A: FileId = FileId { tree: 0, node: 10 };
const B: FileId = FileId { tree: 0, node: 11 };
const MTIME: Stamp = Stamp { seconds: 1_000, nanoseconds: 7 };
const FILE: u32 = 0o100_640;
const DIRECTORY: u32 = 0o040_750;

struct Target {
    path: PathBuf,
    store: Store,
}

impl Target {
    fn new(name: &str) -> Target {
        let path =
            std::env::temp_dir().join(format!("evenkeel-store-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let log = std::env::temp_dir().join(format!("evenkeel-log-{}-{name}", std::process::id()));
        let (log, _) = ActivityLog::open(&log, 0).unwrap();
        let store = Store::new(vec![Arc::new(Root::open(&path).unwrap())], 0, log);
        Target { path, store }
    }

    fn try_apply(&mut self, message: &Forward<'_>) -> Result<After, NotApplied> {
        self.store.apply(message)
    }

    fn apply(&mut self, message: &Forward<'_>) -> After {
        self.try_apply(message).unwrap_or_else(|failed| panic!("{failed:?}"))
    }

    fn ensure(&mut self, file: FileId, name: &str, mode: u32, size: u64) -> After {
        self.apply(&Forward::Ensure(Ensure {
            parent: ROOT,
            name: name.as_bytes(),
            file,
            held: false,
            apart: false,
            mode,
            uid: 1,
            gid: 2,
            rdev: 0,
            size,
            mtime: MTIME,
            target: b"",
            xattrs: vec![(b"user.kept", b"yes")],
        }))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn remove(number: u64, name: &'static str) -> Forward<'static> {
    let (name, directory) = (name.as_bytes(), false);
    Forward::Op { number, op: Op::Remove { parent: ROOT, name, directory, parent_mtime: MTIME } }
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn what_stands_there_becomes_what_the_source_has() {
    let mut target = Target::new("becomes");
    fs::write(target.at("alike"), "too long").unwrap();
    let before = inode(&target.at("alike"));
    assert!(matches!(target.ensure(A, "alike", FILE, 3), After::Nothing));
    let now = fs::metadata(target.at("alike")).unwrap();
    assert_eq!((now.ino(), now.len(), now.mode(), now.uid(), now.gid()), (before, 3, FILE, 1, 2));

    fs::create_dir_all(target.at("other/below")).unwrap();
    symlink("/etc", target.at("other/way out")).unwrap();
    assert!(matches!(target.ensure(B, "other", FILE, 0), After::Nothing));
    assert!(fs::metadata(target.at("other")).unwrap().is_file());
    assert!(Path::new("/etc/passwd").exists(), "a symlink was followed");
}

#[test]
fn a_planted_symlink_leads_nowhere() {
    let mut target = Target::new("planted");
    symlink("/tmp", target.at("directory")).unwrap();
    target.ensure(A, "directory", DIRECTORY, 0);
    assert!(fs::symlink_metadata(target.at("directory")).unwrap().is_dir());
}

#[test]
fn a_second_name_is_a_link() {
    let mut target = Target::new("link");
    target.ensure(A, "one", FILE, 5);
    fs::write(target.at("two"), "in the way").unwrap();
    assert!(matches!(target.ensure(A, "two", FILE, 5), After::Nothing));
    assert_eq!(inode(&target.at("one")), inode(&target.at("two")));
}

#[test]
fn an_object_that_a_live_removal_took_with_it_is_told_as_absent() {
    let mut target = Target::new("absent");
    target.ensure(A, "name", FILE, 5);
    // At the source another object stood under that name, and was removed.
    target.apply(&remove(1, "name"));
    assert!(matches!(target.ensure(A, "new", FILE, 5), After::Absent(A)));
    assert!(matches!(target.ensure(A, "new", FILE, 5), After::Nothing), "told once");
}

#[test]
fn an_object_in_the_way_of_another_is_told_as_absent() {
    let mut target = Target::new("in-the-way");
    target.ensure(A, "name", FILE, 5);
    assert!(matches!(target.ensure(B, "name", FILE, 1), After::Nothing));
    assert!(matches!(target.ensure(A, "new", FILE, 5), After::Absent(A)));
    let op = Op::Write { file: B, offset: 0, data: b"b", mtime: MTIME };
    target.apply(&Forward::Op { number: 1, op });
    assert_eq!(fs::read(target.at("name")).unwrap(), b"b");
    assert_eq!(fs::metadata(target.at("name")).unwrap().mtime(), MTIME.seconds);
}

#[test]
fn a_live_change_of_what_is_not_held_is_told_or_refused() {
    let mut target = Target::new("not-held");
    let op = Op::Write { file: A, offset: 0, data: b"a", mtime: MTIME };
    assert!(matches!(target.apply(&Forward::Op { number: 1, op: op.clone() }), After::Absent(A)));
    target.apply(&Forward::Strict(true));
    let failed = target.try_apply(&Forward::Op { number: 2, op }).unwrap_err();
    assert_eq!(failed.errno, rustix::io::Errno::STALE);
    assert!(failed.what.contains("operation 2"), "{}", failed.what);
}

/// What a target says of an operation.
fn complaints(after: After) -> Vec<String> {
    let After::Answer(frames) = after else { panic!("no answer") };
    let mut rest = &frames[..];
    let mut told = Vec::new();
    while let Some((prefix, more)) = rest.split_first_chunk() {
        let (frame, next) = more.split_at(wire::frame::frame_length(*prefix).unwrap());
        told.push(format!("{:?}", take_backward(frame).unwrap()));
        rest = next;
    }
    told
}

fn rename(parent: FileId, new_parent: FileId, flags: u32) -> Forward<'static> {
    let op = Op::Rename {
        parent,
        name: b"old",
        new_parent,
        new_name: b"new",
        flags,
        parent_mtime: MTIME,
        new_parent_mtime: MTIME,
    };
    Forward::Op { number: 1, op }
}

#[test]
fn of_a_rename_that_is_left_out_the_other_name_is_told() {
    let absent = |file: FileId| format!("{:?}", Backward::Absent { file });
    let astray = |parent: FileId, name: &[u8]| format!("{:?}", Backward::Astray { parent, name });
    let mut target = Target::new("left-out");
    target.ensure(A, "a", DIRECTORY, 0);
    fs::create_dir(target.at("a/old")).unwrap();
    // The directory that it should go to was removed with a tree that stood in the way.
    let told = complaints(target.apply(&rename(A, B, 0)));
    assert_eq!(told, [absent(B), astray(A, b"old")]);
    assert!(target.at("a/old").exists(), "what is there is compared");
    let told = complaints(target.apply(&rename(B, A, 0)));
    assert_eq!(told, [absent(B), astray(A, b"new")]);
    // What should be moved is not there, or what should come in exchange.
    for flags in [0, 2] {
        let told = complaints(target.apply(&rename(ROOT, A, flags)));
        assert_eq!(told, [astray(ROOT, b"old"), astray(A, b"new")]);
    }
}

fn formerly(file: FileId, directory: bool, name: &'static str) -> Forward<'static> {
    Forward::Formerly { file, directory, parent: ROOT, name: name.as_bytes() }
}

#[test]
fn what_stood_under_a_former_name_is_brought_to_the_new_one() {
    let mut target = Target::new("former");
    for name in ["a", "b"] {
        fs::create_dir(target.at(name)).unwrap();
        fs::write(target.at(name).join("in"), name).unwrap();
    }
    fs::write(target.at("file"), "content").unwrap();
    target.apply(&formerly(A, true, "a"));
    target.apply(&formerly(B, true, "b"));
    target.apply(&formerly(FileId { tree: 0, node: 12 }, false, "file"));
    // Each in the other's place.
    assert!(matches!(target.ensure(A, "b", DIRECTORY, 0), After::Nothing));
    assert!(matches!(target.ensure(B, "a", DIRECTORY, 0), After::Nothing));
    assert_eq!(fs::read(target.at("b/in")).unwrap(), b"a");
    assert_eq!(fs::read(target.at("a/in")).unwrap(), b"b");
    let file = FileId { tree: 0, node: 12 };
    assert!(matches!(target.ensure(file, "moved", FILE, 7), After::Nothing));
    assert_eq!(fs::read(target.at("moved")).unwrap(), b"content");
}

#[test]
fn what_may_be_something_else_is_not_taken_for_what_was_moved() {
    let mut target = Target::new("no-former");
    fs::create_dir(target.at("directory")).unwrap();
    fs::write(target.at("file"), "one of two names").unwrap();
    fs::hard_link(target.at("file"), target.at("other")).unwrap();
    for (name, directory) in [("directory", false), ("file", true), ("file", false), ("no", true)] {
        target.apply(&formerly(A, directory, name));
        assert!(!target.store.bound.contains_key(&A), "{name}");
    }
    target.ensure(B, "directory", DIRECTORY, 0);
    target.apply(&formerly(A, true, "directory"));
    assert!(!target.store.bound.contains_key(&A), "it is another object of the source");
    // Below itself nothing can be moved; then it is made anew.
    fs::create_dir(target.at("directory/below")).unwrap();
    target.apply(&Forward::Bind { file: A, parent: B, name: b"below" });
    let former = FileId { tree: 0, node: 12 };
    fs::create_dir(target.at("former")).unwrap();
    target.apply(&formerly(former, true, "former"));
    fs::rename(target.at("directory"), target.at("former/directory")).unwrap();
    let ensure = |parent, file| {
        Forward::Ensure(Ensure {
            parent,
            name: b"new",
            file,
            held: false,
            apart: false,
            mode: DIRECTORY,
            uid: 1,
            gid: 2,
            rdev: 0,
            size: 0,
            mtime: MTIME,
            target: b"",
            xattrs: Vec::new(),
        })
    };
    assert!(matches!(target.apply(&ensure(A, former)), After::Absent(_)));
    assert!(target.at("former/directory/below/new").is_dir());
}

#[test]
fn numbers_never_go_back() {
    let mut target = Target::new("numbers");
    target.apply(&Forward::Strict(true));
    target.apply(&Forward::Barrier { number: 9, base: None });
    assert_eq!(target.store.number(), 9);
    assert!(target.try_apply(&remove(9, "old")).is_err());
    assert_eq!(target.store.number(), 9);
}

#[test]
fn differing_blocks_are_found_and_mended() {
    let mut target = Target::new("blocks");
    let block = wire::replication::BLOCK_BYTES;
    let mut content = vec![1; 2 * block + 10];
    fs::write(target.at("file"), &content).unwrap();
    target.ensure(A, "file", FILE, content.len() as u64);
    content[block] = 2;
    let hashes = crate::replicator::compare::hashes(&content);
    let question = Forward::Compare { tag: 4, file: A, offset: 0, hashes };
    let After::Answer(frame) = target.apply(&question) else { panic!("no answer") };
    let answer = take_backward(&frame[wire::frame::PREFIX_BYTES..]).unwrap();
    assert_eq!(answer, Backward::Differ { tag: 4, blocks: 0b010 });
    let data = &content[block..2 * block];
    target.apply(&Forward::Block { file: A, offset: block as u64, data });
    target.apply(&Forward::Finish { file: A, mtime: MTIME });
    assert_eq!(fs::read(target.at("file")).unwrap(), content);
    assert_eq!(fs::metadata(target.at("file")).unwrap().mtime_nsec(), 7);
}

/// A list for user 1000 with read permission and this mask, on an object with mode 640.
fn list_of(mask: u8) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in [
        (1u8, 6u8, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (16, mask, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        value.extend([tag, 0, bits, 0]);
        value.extend(id.to_le_bytes());
    }
    value
}

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The lists of an object, and its mode.
fn lists(path: &Path) -> (Option<Vec<u8>>, Option<Vec<u8>>, u32) {
    let object = fs::File::open(path).unwrap();
    let get = |name: &[u8]| mount::backing::get_xattr(&object, name).ok();
    (get(ACCESS), get(DEFAULT), path.metadata().unwrap().mode())
}

#[test]
fn lists_become_those_of_the_source() {
    let mut target = Target::new("lists");
    let (narrow, wide) = (list_of(4), list_of(6));
    let dress = |file, name: &'static str, mode, xattrs| {
        Forward::Ensure(Ensure {
            parent: ROOT,
            name: name.as_bytes(),
            file,
            held: false,
            apart: false,
            mode,
            uid: 1,
            gid: 2,
            rdev: 0,
            size: 0,
            mtime: MTIME,
            target: b"",
            xattrs,
        })
    };
    let inside = FileId { tree: 0, node: 12 };
    target.apply(&dress(A, "d", DIRECTORY, vec![(DEFAULT, &wide)]));
    // One that inherits a list at the target and has none at the source, and the other way round.
    let mut ensure = dress(B, "f", FILE, vec![]);
    let Forward::Ensure(described) = &mut ensure else { unreachable!() };
    described.parent = A;
    target.apply(&ensure);
    assert_eq!(lists(&target.at("d/f")), (None, None, FILE));
    target.apply(&dress(inside, "g", FILE, vec![(ACCESS, &narrow)]));
    assert_eq!(lists(&target.at("g")), (Some(narrow.clone()), None, FILE));
    target.apply(&dress(inside, "g", 0o100_660, vec![(ACCESS, &wide)]));
    assert_eq!(lists(&target.at("g")), (Some(wide.clone()), None, 0o100_660));
    target.apply(&dress(inside, "g", FILE, vec![]));
    assert_eq!(lists(&target.at("g")), (None, None, FILE));
    target.apply(&dress(A, "d", DIRECTORY, vec![(ACCESS, &narrow)]));
    assert_eq!(lists(&target.at("d")), (Some(narrow), None, 0o40_640));
}
