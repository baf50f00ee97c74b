//! Each kind of difference is made in one of two equal trees and must be the only one found.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::trees;

/// Two equal trees, removed at the end.
struct Pair(PathBuf);

impl Pair {
    fn new(name: &str) -> Pair {
        let base = format!("evenkeel-compare-{name}-{}", std::process::id());
        let pair = Pair(std::env::temp_dir().join(base));
        let _ = fs::remove_dir_all(&pair.0);
        fill(&pair.one());
        fill(&pair.other());
        pair
    }

    fn one(&self) -> PathBuf {
        self.0.join("one")
    }

    fn other(&self) -> PathBuf {
        self.0.join("other")
    }

    /// What a change of the second tree makes the comparison say.
    fn after(&self, change: impl FnOnce(&Path)) -> Vec<String> {
        change(&self.other());
        settle(&self.other());
        let found = trees(&self.one(), &self.other()).unwrap();
        found.differences.iter().map(ToString::to_string).collect()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fill(root: &Path) {
    fs::create_dir_all(root.join("dir")).unwrap();
    fs::write(root.join("dir/file"), vec![7; 600_000]).unwrap();
    fs::hard_link(root.join("dir/file"), root.join("again")).unwrap();
    fs::write(root.join("copy"), "text").unwrap();
    fs::hard_link(root.join("copy"), root.join("second")).unwrap();
    symlink("dir/file", root.join("link")).unwrap();
    settle(root);
}

/// Gives everything but symbolic links and what a test has aged the same time.
fn settle(root: &Path) {
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            settle(&path);
        } else if metadata.is_file() && metadata.modified().unwrap() > then {
            File::open(&path).unwrap().set_modified(then).unwrap();
        } else if metadata.is_symlink() {
            let then = rustix::fs::Timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
            let times = rustix::fs::Timestamps { last_access: then, last_modification: then };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, flags).unwrap();
        }
    }
    File::open(root).unwrap().set_times(FileTimes::new().set_modified(then)).unwrap();
}

#[test]
fn equal_trees_are_identical() {
    let pair = Pair::new("equal");
    let found = trees(&pair.one(), &pair.other()).unwrap();
    assert_eq!(found.differences, []);
    assert!(found.is_identical());
    assert_eq!((found.entries, found.bytes), (7, 1_200_008));
}

#[test]
fn content_and_size_are_compared() {
    let found = Pair::new("content").after(|root| {
        let mut bytes = fs::read(root.join("dir/file")).unwrap();
        bytes[300_001] = 8;
        fs::write(root.join("dir/file"), bytes).unwrap();
    });
    let what = "content differs from byte 300001 on";
    assert_eq!(found, [format!("./again: {what}"), format!("./dir/file: {what}")]);
    let found = Pair::new("size").after(|root| fs::write(root.join("copy"), "text and").unwrap());
    assert_eq!(found, ["./copy: size 4 and 8", "./second: size 4 and 8"]);
}

#[test]
fn names_and_types_are_compared() {
    let found = Pair::new("names").after(|root| {
        fs::write(root.join("dir/more"), "").unwrap();
        fs::remove_file(root.join("link")).unwrap();
        fs::create_dir(root.join("link")).unwrap();
    });
    let expected =
        ["./link: a symbolic link and a directory", "./dir/more: only in the second tree"];
    assert_eq!(found, expected);
}

#[test]
fn mode_owner_time_and_attributes_are_compared() {
    let found = Pair::new("mode").after(|root| {
        fs::set_permissions(root.join("dir"), Permissions::from_mode(0o700)).unwrap();
    });
    assert_eq!(found, ["./dir: mode 755 and 700"]);
    let found = Pair::new("time").after(|root| {
        let then = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 1);
        File::open(root.join("copy")).unwrap().set_modified(then).unwrap();
    });
    let what = "mtime 1700000000.123456789 and 1600000000.000000001";
    assert_eq!(found, [format!("./copy: {what}"), format!("./second: {what}")]);
    let found = Pair::new("xattr").after(|root| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(root.join("dir"), "user.colour", b"red", flags).unwrap();
        rustix::fs::setxattr(root.join("dir"), "trusted.evenkeel", b"mine", flags).unwrap();
    });
    assert_eq!(found, ["./dir: attribute user.colour none and \"red\""]);
}

#[test]
fn links_are_compared() {
    let found = Pair::new("symlink").after(|root| {
        fs::remove_file(root.join("link")).unwrap();
        symlink("copy", root.join("link")).unwrap();
    });
    assert!(found.contains(&"./link: link to dir/file and copy".to_owned()), "{found:?}");
    let found = Pair::new("split").after(|root| {
        fs::remove_file(root.join("second")).unwrap();
        fs::write(root.join("second"), "text").unwrap();
    });
    assert!(found.contains(&"./second: same file as copy and second".to_owned()), "{found:?}");
    let found = Pair::new("regroup").after(|root| {
        fs::remove_file(root.join("second")).unwrap();
        fs::hard_link(root.join("dir/file"), root.join("second")).unwrap();
    });
    assert!(found.contains(&"./second: same file as copy and again".to_owned()), "{found:?}");
}

#[test]
fn a_tree_that_cannot_be_read_is_an_error() {
    let pair = Pair::new("absent");
    fs::remove_dir_all(pair.other()).unwrap();
    assert!(trees(&pair.one(), &pair.other()).is_err());
}
