//! A script of file operations of every kind, to be run on a native directory and on a mount.
//!
//! It returns what the calls returned, so that errors are compared too. Nothing in it depends on
//! the clock, except for modification times, which only some comparisons include.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, XattrFlags, fallocate, mknodat,
    renameat_with, setxattr,
};
use rustix::io::Errno;

/// What the calls returned.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Log(Vec<String>);

impl Log {
    #[allow(dead_code, reason = "not every test program compares")]
    /// Compares call by call, so that a failure shows the one that differs.
    pub fn assert_same(&self, seen: &Log) {
        for (expected, seen) in self.0.iter().zip(&seen.0) {
            assert_eq!(expected, seen);
        }
        assert_eq!(self.0.len(), seen.0.len());
    }

    pub fn note(&mut self, what: &str, outcome: impl std::fmt::Debug) {
        self.0.push(format!("{what}: {outcome:?}"));
    }

    pub fn io<T: std::fmt::Debug>(&mut self, what: &str, outcome: std::io::Result<T>) {
        self.note(what, outcome.map_err(|error| Errno::from_io_error(&error)));
    }
}

/// Runs everything in `root`, which is empty.
pub fn run(root: &Path) -> Log {
    let mut log = Log::default();
    create_kinds(root, &mut log);
    links_and_renames(root, &mut log);
    open_but_gone(root, &mut log);
    contents(root, &mut log);
    attributes(root, &mut log);
    odd_names(root, &mut log);
    errors(root, &mut log);
    log
}

fn create_kinds(root: &Path, log: &mut Log) {
    let mode = Mode::from_raw_mode(0o640);
    for (name, kind, device) in [
        ("pipe", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("character", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("block", FileType::BlockDevice, rustix::fs::makedev(7, 300)),
        ("regular", FileType::RegularFile, 0),
    ] {
        log.note(name, mknodat(CWD, root.join(name), kind, mode, device));
    }
    log.io("directory", fs::create_dir(root.join("directory")));
    log.io("symlink", symlink("no/such/target", root.join("symlink")));
    log.io("dangling read", fs::read(root.join("symlink")));
    // A directory with the set-gid bit passes on its group.
    let shared = root.join("shared");
    log.io("shared", fs::create_dir(&shared));
    log.io("shared owner", chown(&shared, Some(0), Some(1234)));
    log.io("shared mode", fs::set_permissions(&shared, fs::Permissions::from_mode(0o2775)));
    log.io("inside", fs::create_dir(shared.join("inside")));
    log.io("inside file", fs::write(shared.join("file"), b"x"));
    log.note("inherited", fs::metadata(shared.join("inside")).unwrap().gid());
}

fn links_and_renames(root: &Path, log: &mut Log) {
    let at = |name: &str| root.join(name);
    fs::write(at("one"), b"one").unwrap();
    log.io("link", fs::hard_link(at("one"), at("two")));
    log.io("link into directory", fs::hard_link(at("one"), at("directory/three")));
    log.io("link over", fs::hard_link(at("one"), at("regular")));
    let links = |name: &str| fs::metadata(at(name)).unwrap().nlink();
    log.note("links", (links("one"), links("two"), links("directory/three")));
    log.io("unlink", fs::remove_file(at("two")));
    log.note("links after", (links("one"), links("directory/three")));
    log.io("append through the other name", append(&at("directory/three"), b" more"));
    log.io("seen", fs::read(at("one")));

    log.io("rename", fs::rename(at("one"), at("directory/moved")));
    fs::write(at("victim"), b"victim").unwrap();
    let victim = File::open(at("victim")).unwrap();
    fs::write(at("winner"), b"winner").unwrap();
    log.io("rename over", fs::rename(at("winner"), at("victim")));
    log.io("the open victim", read_all(&victim));
    log.note("its links", victim.metadata().unwrap().nlink());
    log.io("the new one", fs::read(at("victim")));

    fs::create_dir_all(at("left/below")).unwrap();
    fs::write(at("left/below/file"), b"left").unwrap();
    let flags = RenameFlags::EXCHANGE;
    log.note("exchange", renameat_with(CWD, at("left"), CWD, at("victim"), flags));
    log.io("exchanged", fs::read(at("victim/below/file")));
    let flags = RenameFlags::NOREPLACE;
    log.note("noreplace", renameat_with(CWD, at("left"), CWD, at("regular"), flags));
    log.io("into itself", fs::rename(at("victim"), at("victim/below/x")));
    log.io("directory", fs::rename(at("victim"), at("directory/tree")));
    log.io("read through", fs::read(at("directory/tree/below/file")));
    log.note("directory links", links("directory"));
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir(at("other")).unwrap();
    log.io("over an empty directory", fs::rename(at("other"), at("empty")));
}

fn open_but_gone(root: &Path, log: &mut Log) {
    let path = root.join("gone");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(b"still here").unwrap();
    log.io("unlink open", fs::remove_file(&path));
    log.io("write on", file.write_all(b", really"));
    log.io("truncate on", file.set_len(15));
    log.io("chmod on", file.set_permissions(fs::Permissions::from_mode(0o604)));
    file.seek(SeekFrom::Start(0)).unwrap();
    log.io("read on", read_all(&file));
    let seen = file.metadata().unwrap();
    log.note("stat on", (seen.len(), seen.nlink(), seen.mode()));
    log.io("sync on", file.sync_all());
    log.io("again", fs::write(&path, b"another"));
    file.seek(SeekFrom::Start(0)).unwrap();
    log.io("the old one", read_all(&file));
}

fn contents(root: &Path, log: &mut Log) {
    let path = root.join("data");
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    log.io("far", file.write_all_at(b"end", 10_000_000));
    log.io("start", file.write_all_at(&vec![7; 3_000_000], 100));
    let size = || file.metadata().map(|seen| seen.len());
    log.io("size", size());
    log.note("data at", rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(4_000_000)));
    log.note("hole at", rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(200)));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    log.note("punch", fallocate(&file, punch, 4096, 8192));
    log.note("zero", fallocate(&file, FallocateFlags::ZERO_RANGE, 1 << 20, 4096));
    log.note("keep", fallocate(&file, FallocateFlags::KEEP_SIZE, 10 << 20, 1 << 20));
    log.io("size kept", size());
    log.note("allocate", fallocate(&file, FallocateFlags::empty(), 11 << 20, 4096));
    log.io("size grown", size());
    log.io("shrink", file.set_len(5_000_001));
    log.io("grow", file.set_len(5_000_101));
    log.io("tail", tail(&file));
    drop(file);

    let path = root.join("written");
    log.io("write only", OpenOptions::new().write(true).create_new(true).open(&path).map(drop));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    log.io("odd writes", (0..300).try_for_each(|i| file.write_all_at(&[i as u8; 777], i * 1000)));
    let both = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    log.io("mixed", both.write_all_at(b"cached", 5_000));
    log.io("direct again", file.write_all_at(b"direct", 5_003));
    let mut seen = [0; 12];
    log.io("read back", both.read_exact_at(&mut seen, 5_000));
    log.note("seen", seen);
    let synced = OpenOptions::new().write(true).custom_flags(libc::O_SYNC).open(&path).unwrap();
    log.io("synchronous", synced.write_all_at(b"sync", 9));
    log.io("append", append(&path, b"tail"));
    log.io("truncating open", File::create(root.join("one more")).map(drop));
    fs::write(root.join("one more"), b"some bytes").unwrap();
    log.io("truncating open", File::create(root.join("one more")).map(drop));
    log.note("empty", fs::metadata(root.join("one more")).unwrap().len());
    fs::write(root.join("one more"), b"some bytes").unwrap();
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::TRUNC;
    let read_only = rustix::fs::open(root.join("one more"), flags, Mode::empty());
    log.note("truncating open for reading", read_only.map(drop));
    log.note("empty", fs::metadata(root.join("one more")).unwrap().len());
}

fn attributes(root: &Path, log: &mut Log) {
    let path = root.join("attributes");
    fs::write(&path, b"x").unwrap();
    let set = |name: &str, value: &[u8], flags| setxattr(&path, name, value, flags);
    log.note("xattr", set("user.one", b"1", XattrFlags::empty()));
    log.note("xattr", set("user.long", &[9; 3000], XattrFlags::CREATE));
    log.note("xattr again", set("user.one", b"2", XattrFlags::CREATE));
    log.note("xattr missing", set("user.none", b"2", XattrFlags::REPLACE));
    log.note("trusted", set("trusted.mine", b"\0\xff", XattrFlags::empty()));
    log.note("removed", rustix::fs::removexattr(&path, "user.one"));
    log.note("removed again", rustix::fs::removexattr(&path, "user.one"));
    let link = root.join("symlink");
    log.note("on symlink", rustix::fs::lsetxattr(&link, "trusted.l", b"v", XattrFlags::empty()));
    log.note("user on symlink", rustix::fs::lsetxattr(&link, "user.l", b"v", XattrFlags::empty()));

    log.io("owner", chown(&path, Some(1000), Some(1001)));
    log.io("mode", fs::set_permissions(&path, fs::Permissions::from_mode(0o6751)));
    log.io("owner clears", chown(&path, Some(1002), None));
    log.note("mode now", fs::metadata(&path).unwrap().mode());
    log.io("symlink owner", std::os::unix::fs::lchown(&link, Some(5), Some(6)));
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 2 },
        last_modification: rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 },
    };
    for file in [&path, &link, &root.join("directory")] {
        let set = rustix::fs::utimensat(CWD, file, &times, AtFlags::SYMLINK_NOFOLLOW);
        log.note("times", set);
    }
    let seen = fs::metadata(&path).unwrap();
    log.note("seen", (seen.mtime(), seen.mtime_nsec(), seen.atime(), seen.atime_nsec()));

    // What somebody unprivileged writes loses its set-id bits.
    let program = root.join("program");
    fs::write(&program, b"#!").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6777)).unwrap();
    let shell = format!("echo x >> {}", program.display());
    let status = std::process::Command::new("setpriv")
        .args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "sh", "-c", &shell])
        .status();
    log.io("written by others", status.map(|status| status.success()));
    log.note("mode now", fs::metadata(&program).unwrap().mode());
}

fn odd_names(root: &Path, log: &mut Log) {
    let directory = root.join("odd");
    fs::create_dir(&directory).unwrap();
    let mut every: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    every.push(b'x');
    let names: [&[u8]; 6] = [&every, b"\n", b" ", b"\xff\xfe", b"...", b"-rf"];
    for name in names {
        let path = directory.join(OsStr::from_bytes(name));
        log.io("create", fs::write(&path, name));
        log.io("read", fs::read(&path));
    }
    let long = directory.join(OsStr::from_bytes(&[b'n'; 256]));
    log.io("too long", fs::write(long, b""));
    let mut listed: Vec<_> =
        fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    listed.sort();
    log.note("listed", listed);
    for number in 0..3000 {
        fs::write(directory.join(format!("many-{number}")), b"").unwrap();
    }
    log.note("many", fs::read_dir(&directory).unwrap().count());
    for number in (0..3000).step_by(3) {
        fs::remove_file(directory.join(format!("many-{number}"))).unwrap();
    }
    log.note("fewer", fs::read_dir(&directory).unwrap().count());
}

fn errors(root: &Path, log: &mut Log) {
    let at = |name: &str| root.join(name);
    log.io("missing", fs::read(at("missing")));
    log.io("below a file", fs::read(at("regular/x")));
    log.io("rmdir of a file", fs::remove_dir(at("regular")));
    log.io("unlink of a directory", fs::remove_file(at("directory")));
    log.io("not empty", fs::remove_dir(at("directory")));
    log.io("exists", fs::create_dir(at("directory")));
    let exclusive = OpenOptions::new().write(true).create_new(true).open(at("regular"));
    log.io("exclusive", exclusive.map(drop));
    log.io("symlink exists", symlink("x", at("regular")));
    log.io("rmdir", fs::remove_dir(at("empty")));
    log.io("gone", fs::metadata(at("empty")).map(drop));
    log.io("write to a directory", fs::write(at("directory"), b""));
}

fn append(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(bytes)
}

fn read_all(mut file: &File) -> std::io::Result<String> {
    let mut text = String::new();
    file.read_to_string(&mut text).map(|_| text)
}

fn tail(file: &File) -> std::io::Result<[u8; 200]> {
    let mut bytes = [1; 200];
    file.read_exact_at(&mut bytes, 4_999_901).map(|()| bytes)
}
