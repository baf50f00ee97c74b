//! The second part of the script: lists, files without a name, whiteouts, and other people's calls.
//!
//! As the first part it returns what the calls returned, to be compared with a native directory.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, XattrFlags, linkat, mkdirat, mknodat,
    openat, removexattr, renameat_with, setxattr,
};
use rustix::io::Errno;

use crate::people::as_person;
use crate::script::Log;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Tags of a list's entries.
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP: u16 = 0x04;
const NAMED_GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NOBODY: u32 = u32::MAX;

/// A list for `user` besides the owner, group, mask and all others.
pub fn list(owner: u16, user: (u32, u16), group: u16, mask: u16, other: u16) -> Vec<u8> {
    let (user, bits) = user;
    let entries = [
        (OWNER, owner, NOBODY),
        (USER, bits, user),
        (GROUP, group, NOBODY),
        (NAMED_GROUP, bits, 1500),
        (MASK, mask, NOBODY),
        (OTHER, other, NOBODY),
    ];
    entries_of(&entries)
}

fn entries_of(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// Runs everything in `root`, which everybody may enter.
pub fn run(root: &Path) -> Log {
    let mut log = Log::default();
    fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
    lists_are_inherited(root, &mut log);
    lists_and_modes(root, &mut log);
    lists_are_enforced(root, &mut log);
    unnamed(root, &mut log);
    unnamed_below_lists(root, &mut log);
    whiteouts(root, &mut log);
    other_people(root, &mut log);
    labels(root, &mut log);
    log
}

/// Creates one of each kind with modes that a list or a umask cuts down.
fn one_of_each(directory: &Path, prefix: &str, log: &mut Log) {
    for mode in [0o777, 0o666, 0o640, 0o600, 0o4751] {
        let bits = Mode::from_raw_mode(mode);
        let at = |kind: &str| directory.join(format!("{prefix}-{kind}-{mode:o}"));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        log.note("file", openat(CWD, at("file"), flags, bits).map(drop));
        log.note("directory", mkdirat(CWD, at("directory"), bits));
        for (name, kind) in
            [("node", FileType::RegularFile), ("pipe", FileType::Fifo), ("sock", FileType::Socket)]
        {
            log.note(name, mknodat(CWD, at(name), kind, bits, 0));
        }
        log.io("symlink", std::os::unix::fs::symlink("target", at("symlink")));
        for kind in ["file", "directory", "node", "pipe", "sock", "symlink"] {
            let seen = at(kind).symlink_metadata();
            log.io(kind, seen.map(|seen| (seen.mode(), seen.uid(), seen.gid())));
        }
    }
}

fn lists_are_inherited(root: &Path, log: &mut Log) {
    let full = list(7, (1000, 7), 5, 7, 0);
    let narrow = list(6, (1000, 6), 4, 4, 1);
    let minimal = entries_of(&[(OWNER, 7, NOBODY), (GROUP, 5, NOBODY), (OTHER, 0, NOBODY)]);
    for (name, value) in [("full", full), ("narrow", narrow), ("minimal", minimal)] {
        for set_group in [false, true] {
            let directory = root.join(format!("{name}-{set_group}"));
            fs::create_dir(&directory).unwrap();
            log.io("group", chown(&directory, Some(1000), Some(1234)));
            let mode = if set_group { 0o2777 } else { 0o777 };
            log.io("mode", fs::set_permissions(&directory, Permissions::from_mode(mode)));
            log.note("default", setxattr(&directory, DEFAULT, &value, XattrFlags::empty()));
            one_of_each(&directory, "root", log);
            for mask in [0, 0o27, 0o777] {
                as_person(1000, 1001, mask, || one_of_each(&directory, &format!("{mask:o}"), log));
            }
            let deeper = directory.join("root-directory-777/deeper");
            log.io("deeper", fs::create_dir(&deeper));
            log.io("inside", fs::write(deeper.join("inside"), b"x"));
        }
    }
    let plain = root.join("plain");
    fs::create_dir(&plain).unwrap();
    log.io("mode", fs::set_permissions(&plain, Permissions::from_mode(0o3777)));
    for mask in [0, 0o27, 0o777] {
        as_person(1000, 1001, mask, || one_of_each(&plain, &format!("{mask:o}"), log));
    }
}

fn lists_and_modes(root: &Path, log: &mut Log) {
    let path = root.join("listed");
    fs::write(&path, b"x").unwrap();
    let value = list(6, (1000, 4), 4, 6, 0);
    let mode = |log: &mut Log, what: &str| {
        let mut value = [0; 100];
        let length = rustix::fs::getxattr(&path, ACCESS, &mut value);
        let bytes = length.map(|length| value[..length].to_vec());
        log.note(what, (path.metadata().unwrap().mode(), bytes));
    };
    log.note("set", setxattr(&path, ACCESS, &value, XattrFlags::empty()));
    mode(log, "after setting");
    log.io("chmod", fs::set_permissions(&path, Permissions::from_mode(0o751)));
    mode(log, "after chmod");
    log.io("chown", chown(&path, Some(1000), Some(1234)));
    mode(log, "after chown");
    log.note("create", setxattr(&path, ACCESS, &value, XattrFlags::CREATE));
    log.note("broken", setxattr(&path, ACCESS, b"nonsense", XattrFlags::empty()));
    log.note("default of a file", setxattr(&path, DEFAULT, &value, XattrFlags::empty()));
    log.note("remove", removexattr(&path, ACCESS));
    mode(log, "after removing");
    log.note("remove again", removexattr(&path, ACCESS));
    let minimal = entries_of(&[(OWNER, 6, NOBODY), (GROUP, 0, NOBODY), (OTHER, 4, NOBODY)]);
    log.note("minimal", setxattr(&path, ACCESS, &minimal, XattrFlags::empty()));
    mode(log, "after the minimal one");
    let link = root.join("list-link");
    std::os::unix::fs::symlink("listed", &link).unwrap();
    log.note("symlink", rustix::fs::lsetxattr(&link, ACCESS, &value, XattrFlags::empty()));
    // Whoever is not in the group cannot keep its bit by setting a list; nor may others set one.
    log.io("sgid", fs::set_permissions(&path, Permissions::from_mode(0o2755)));
    as_person(1000, 1001, 0, || {
        log.note("owner sets", setxattr(&path, ACCESS, &value, XattrFlags::empty()));
    });
    mode(log, "after the owner");
    as_person(1002, 1001, 0, || {
        log.note("other sets", setxattr(&path, ACCESS, &value, XattrFlags::empty()));
    });
    let directory = root.join("default");
    fs::create_dir(&directory).unwrap();
    log.note("default", setxattr(&directory, DEFAULT, &value, XattrFlags::empty()));
    log.note("default gone", removexattr(&directory, DEFAULT));
    log.note("default gone", removexattr(&directory, DEFAULT));
    log.io("plain again", fs::write(directory.join("file"), b"x"));
}

fn lists_are_enforced(root: &Path, log: &mut Log) {
    let directory = root.join("enforced");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    let path = directory.join("secret");
    fs::write(&path, b"secret").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let tries = |log: &mut Log, when: &str| {
        for (uid, gid) in [(1000, 1001), (1002, 1500), (1002, 1003)] {
            as_person(uid, gid, 0, || {
                log.io(when, fs::read(&path).map(|bytes| bytes.len()));
                log.io(when, OpenOptions::new().append(true).open(&path).map(drop));
                log.io(when, fs::read_dir(&directory).map(|entries| entries.count()));
                log.io(when, fs::write(directory.join(format!("by-{uid}-{gid}")), b"x"));
            });
        }
    };
    tries(log, "closed");
    let set = |path: &Path, value: &[u8]| setxattr(path, ACCESS, value, XattrFlags::empty());
    log.note("open", set(&directory, &list(7, (1000, 5), 0, 5, 0)));
    log.note("open", set(&path, &list(6, (1000, 4), 0, 4, 0)));
    tries(log, "opened");
    log.note("wide", set(&directory, &list(7, (1000, 7), 0, 7, 0)));
    log.note("wide", set(&path, &list(6, (1000, 6), 0, 6, 0)));
    tries(log, "wide");
    log.io("masked", fs::set_permissions(&path, Permissions::from_mode(0o600)));
    tries(log, "masked");
    log.note("shut", removexattr(&directory, ACCESS));
    log.io("shut", fs::set_permissions(&directory, Permissions::from_mode(0o700)));
    tries(log, "shut");
}

/// Opens a file without a name.
fn unnamed_in(directory: &Path, extra: i32) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o640).custom_flags(libc::O_TMPFILE | extra);
    options.open(directory)
}

fn link_by_proc(file: &File, path: &Path) -> Result<(), Errno> {
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, from.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW)
}

fn unnamed(root: &Path, log: &mut Log) {
    let directory = root.join("unnamed");
    fs::create_dir(&directory).unwrap();
    let at = |name: &str| directory.join(name);
    let file = unnamed_in(&directory, 0).unwrap();
    log.io("write", file.write_all_at(b"head", 0));
    log.io("far", file.write_all_at(&[7; 70_000], 5_000_000));
    log.io("grow", file.set_len(6_000_001));
    log.io("owner", std::os::unix::fs::fchown(&file, Some(1000), Some(1001)));
    log.io("mode", file.set_permissions(Permissions::from_mode(0o4751)));
    log.note("xattr", rustix::fs::fsetxattr(&file, "user.x", b"value", XattrFlags::empty()));
    let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    log.note("punch", rustix::fs::fallocate(&file, punch, 5_010_000, 20_000));
    log.io("sync", file.sync_all());
    let seen = file.metadata().unwrap();
    log.note("unnamed", (seen.nlink(), seen.mode(), seen.len(), seen.uid()));
    log.note("nothing listed", fs::read_dir(&directory).unwrap().count());
    log.note("link", link_by_proc(&file, &at("linked")));
    log.note("again", link_by_proc(&file, &at("linked")));
    log.note("second", link_by_proc(&file, &at("second")));
    log.io("links", file.metadata().map(|seen| seen.nlink()));
    log.io("write on", file.write_all_at(b"tail", 6_000_000));
    log.io("rename", fs::rename(at("second"), at("renamed")));
    log.note("hole", rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(5_000_000)));

    let file = unnamed_in(&directory, 0).unwrap();
    log.io("small", file.write_all_at(b"small", 0));
    log.note("empty path", linkat(&file, "", CWD, at("empty-path"), AtFlags::EMPTY_PATH));
    let file = unnamed_in(&directory, libc::O_EXCL).unwrap();
    log.note("exclusive", link_by_proc(&file, &at("exclusive")));
    drop(unnamed_in(&directory, 0).unwrap());
    let no_access = rustix::fs::open(&directory, OFlags::TMPFILE, Mode::RUSR);
    log.note("read only", no_access.map(drop));
    let write_only = OFlags::TMPFILE | OFlags::WRONLY;
    let file = File::from(rustix::fs::open(&directory, write_only, Mode::RUSR).unwrap());
    log.io("write only", file.write_all_at(&[9; 9000], 1));
    log.note("link write only", link_by_proc(&file, &at("write-only")));

    fs::write(at("removed"), b"removed").unwrap();
    let file = OpenOptions::new().read(true).write(true).open(at("removed")).unwrap();
    log.io("remove", fs::remove_file(at("removed")));
    log.note("no way back", link_by_proc(&file, &at("back")));
    // Linked, removed, and written while it has no name once more.
    let mut file = unnamed_in(&directory, 0).unwrap();
    log.note("link", link_by_proc(&file, &at("brief")));
    log.io("remove", fs::remove_file(at("brief")));
    log.io("write", file.write_all(b"lost"));
    log.note("no way back", link_by_proc(&file, &at("brief")));
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    as_person(1000, 1001, 0o27, || {
        let mut file = unnamed_in(&directory, 0).unwrap();
        log.io("mine", file.write_all(b"mine"));
        log.note("link mine", link_by_proc(&file, &at("mine")));
        log.io("mine", file.metadata().map(|seen| (seen.uid(), seen.gid(), seen.mode())));
    });
}

fn unnamed_below_lists(root: &Path, log: &mut Log) {
    let (plain, listed) = (root.join("unnamed-plain"), root.join("unnamed-listed"));
    fs::create_dir(&plain).unwrap();
    fs::create_dir(&listed).unwrap();
    let value = list(7, (1000, 6), 5, 7, 0);
    log.note("default", setxattr(&listed, DEFAULT, &value, XattrFlags::empty()));
    for (from, to) in [(&plain, &listed), (&listed, &plain), (&listed, &listed)] {
        let mut file = unnamed_in(from, 0).unwrap();
        log.io("write", file.write_all(b"content"));
        let name = from.file_name().unwrap().to_str().unwrap().to_owned() + "-file";
        log.note("link", link_by_proc(&file, &to.join(name)));
        log.io("mode", file.metadata().map(|seen| seen.mode()));
    }
}

fn whiteouts(root: &Path, log: &mut Log) {
    let directory = root.join("whiteouts");
    fs::create_dir(&directory).unwrap();
    let at = |name: &str| directory.join(name);
    for name in ["one", "two", "three"] {
        fs::write(at(name), name).unwrap();
    }
    let hide = |from: &str, to: &str, flags: RenameFlags| {
        renameat_with(CWD, at(from), CWD, at(to), RenameFlags::WHITEOUT | flags)
    };
    log.note("whiteout", hide("one", "moved", RenameFlags::empty()));
    let seen = at("one").symlink_metadata().unwrap();
    log.note("left behind", (seen.mode(), seen.rdev(), seen.nlink()));
    log.note("taken", hide("two", "moved", RenameFlags::NOREPLACE));
    log.note("over", hide("two", "moved", RenameFlags::empty()));
    log.note("exchange", hide("three", "moved", RenameFlags::EXCHANGE));
    log.io("remove", fs::remove_file(at("one")));
    log.io("moved", fs::read(at("moved")));
    log.io("name", fs::rename(at("two"), at("renamed whiteout")));
}

fn other_people(root: &Path, log: &mut Log) {
    let directory = root.join("people");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o1777)).unwrap();
    let at = |name: &str| directory.join(name);
    as_person(1000, 1001, 0o22, || {
        log.io("directory", fs::create_dir(at("mine")));
        log.io("file", fs::write(at("mine/file"), b"mine"));
        log.io("link", fs::hard_link(at("mine/file"), at("link")));
        let bits = |mode| Permissions::from_mode(mode);
        log.io("set-id", fs::set_permissions(at("link"), bits(0o6755)));
        log.io("chown", chown(at("link"), Some(1002), None));
        log.io("chgrp", chown(at("link"), None, Some(1002)));
        log.io("own group", chown(at("link"), None, Some(1001)));
        log.note("xattr", setxattr(at("link"), "user.x", b"1", XattrFlags::empty()));
        log.note("trusted", setxattr(at("link"), "trusted.x", b"1", XattrFlags::empty()));
        let device = mknodat(CWD, at("device"), FileType::CharacterDevice, Mode::RUSR, 5);
        log.note("device", device);
    });
    as_person(1002, 1003, 0o22, || {
        log.io("read", fs::read(at("link")));
        log.io("write", fs::write(at("link"), b"no"));
        log.io("remove", fs::remove_file(at("link")));
        log.io("rename", fs::rename(at("link"), at("stolen")));
        log.io("inside", fs::write(at("mine/other"), b"no"));
    });
    let seen = at("link").metadata().unwrap();
    log.note("link", (seen.mode(), seen.uid(), seen.gid()));
}

fn labels(root: &Path, log: &mut Log) {
    let path = root.join("labelled");
    fs::write(&path, b"x").unwrap();
    log.note("label", setxattr(&path, "security.label", b"value\0", XattrFlags::empty()));
    let capability = [&0x0200_0000u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0; 12]].concat();
    log.note(
        "capability",
        setxattr(&path, "security.capability", &capability, XattrFlags::empty()),
    );
    let names = |path: &Path| {
        let mut names = [0; 4096];
        rustix::fs::listxattr(path, &mut names).map(|length| {
            let names = names[..length].split(|byte| *byte == 0).map(<[u8]>::to_vec);
            names.collect::<std::collections::BTreeSet<_>>()
        })
    };
    log.note("names", names(&path));
    as_person(1000, 1000, 0, || {
        log.note("not mine", setxattr(&path, "security.label", b"v", XattrFlags::empty()));
    });
    log.io(
        "write",
        OpenOptions::new().append(true).open(&path).and_then(|mut f| f.write_all(b"y")),
    );
    log.note("names", names(&path));
    log.note("no such space", setxattr(&path, "nothing.x", b"v", XattrFlags::empty()));
    log.note("no space", setxattr(&path, "nothing", b"v", XattrFlags::empty()));
}
