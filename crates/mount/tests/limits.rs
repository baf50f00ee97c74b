//! Limits: blocks that are reserved for root, quotas, and sizes of files. Whom they bind natively
//! they bind on the mount, and nobody else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
#[path = "common/people.rs"]
mod people;

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use common::{Fixture, Mounted, scratch};
use mount::Immediate;
use people::as_person;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PERSON: u32 = 1000;

/// Serves a new ext4 file system, and makes an equal one beside it: what both say must be equal.
fn compare(name: &str, make: &[&str], options: &str, calls: fn(&Path) -> Vec<String>) {
    let native = scratch(&format!("{name}-native"));
    let _plain = Mounted::ext4(&native.join("source"), 24, make, options);
    let base = scratch(name);
    let _disk = Mounted::ext4(&base.join("source"), 24, make, options);
    let said = |root: &Path| {
        fs::set_permissions(root, fs::Permissions::from_mode(0o777)).unwrap();
        calls(root)
    };
    let expected = said(&native.join("source"));
    let fixture = Fixture::over(base, Immediate);
    assert_eq!(expected, said(&fixture.view));
}

/// How a write of so many bytes ends, through the page cache or past it.
fn fill(path: &Path, bytes: usize, cached: bool) -> String {
    let mut options = OpenOptions::new();
    let file = options.write(true).read(cached).create(true).truncate(false).open(path);
    let outcome = file.and_then(|file| {
        let piece = vec![7; 64 << 10];
        (0..bytes as u64).step_by(piece.len()).try_for_each(|at| file.write_all_at(&piece, at))
    });
    format!("{:?}", outcome.map_err(|error| error.raw_os_error()))
}

#[test]
fn reserved_blocks_are_for_root_alone() {
    compare("reserved", &["-m", "50", "-O", "^has_journal"], "", |root| {
        let at = |name: &str| root.join(name);
        let mut said = as_person(PERSON, PERSON, 0, || {
            let mut said = vec![fill(&at("little"), 1 << 20, true)];
            said.push(fill(&at("cached"), 30 << 20, true));
            said.push(fill(&at("direct"), 30 << 20, false));
            let file = File::create(at("allocated"));
            said.push(format!(
                "{:?}",
                file.map(|file| fallocate(&file, FallocateFlags::empty(), 0, 4 << 20)).unwrap()
            ));
            said.push(format!("{:?}", fs::create_dir(at("directory")).map_err(|e| e.kind())));
            let long = "x".repeat(2000);
            said.push(format!("{:?}", std::os::unix::fs::symlink(long, at("long")).is_ok()));
            said
        });
        let free = rustix::fs::statvfs(root).unwrap();
        said.push(format!("{} {}", free.f_bavail, free.f_bfree > 1000));
        said.push(fill(&at("by root, cached"), 2 << 20, true));
        said.push(fill(&at("by root, direct"), 2 << 20, false));
        said.push(format!("{:?}", fs::create_dir(at("by root")).map_err(|error| error.kind())));
        assert!(said[1].contains("28") && said[7].contains("Ok"), "nothing was full: {said:?}");
        said
    });
}

#[test]
#[ignore = "needs a kernel with CONFIG_QFMT_V2; run with --ignored where there is one"]
fn quotas_are_those_of_the_caller() {
    let make = ["-O", "quota,^has_journal", "-E", "quotatype=usrquota"];
    compare("quota", &make, ",usrquota", |root| {
        // The quota is set below the mount, where the file system is.
        let below = root.parent().unwrap().join("source");
        limit(&below, PERSON, 1 << 20, 6);
        let at = |name: &str| root.join(name);
        let mut said = as_person(PERSON, PERSON, 0, || {
            let mut said = vec![fill(&at("little"), 100 << 10, true)];
            said.push(fill(&at("cached"), 4 << 20, true));
            said.push(fill(&at("direct"), 4 << 20, false));
            for number in 0..6 {
                let made = File::create(at(&format!("file-{number}")));
                said.push(format!("{:?}", made.map(drop).map_err(|error| error.raw_os_error())));
            }
            said
        });
        assert!(said[1].contains("122") && said[8].contains("122"), "no quota: {said:?}");
        said.push(fill(&at("by root"), 4 << 20, true));
        let given = std::os::unix::fs::chown(at("by root"), Some(PERSON), None);
        said.push(format!("{:?}", given.map_err(|error| error.raw_os_error())));
        said
    });
}

/// The head of the kernel's `struct dqblk`, and what follows in it.
#[repr(C)]
#[derive(Default)]
struct Quota {
    blocks_hard: u64,
    blocks_soft: u64,
    space: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// Limits what a user may have, in bytes and files.
#[allow(unsafe_code, reason = "setting a quota has no safe wrapper")]
fn limit(root: &Path, user: u32, bytes: u64, files: u64) {
    const SET_QUOTA: libc::c_int = 0x80_0008;
    const LIMITS: u32 = 1 | 4;
    let directory = File::open(root).unwrap();
    let quota =
        Quota { blocks_hard: bytes / 1024, inodes_hard: files, valid: LIMITS, ..Quota::default() };
    // SAFETY: `quota` has the layout of dqblk and lives for the length of the call.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            directory.as_raw_fd(),
            SET_QUOTA << 8,
            user,
            &raw const quota,
        )
    };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn only_the_callers_limit_bounds_the_size_of_a_file() {
    let limit = Rlimit { current: Some(4096), ..getrlimit(Resource::Fsize) };
    // Ours: it must not count, and not end us.
    setrlimit(Resource::Fsize, limit).unwrap();
    let fixture = Fixture::new("sizes");
    for (name, cached) in [("cached", true), ("direct", false)] {
        assert_eq!(fill(&fixture.view.join(name), 1 << 20, cached), "Ok(())");
    }
    let native = scratch("sizes-native");
    let said = |root: &Path| {
        let shell = "ulimit -f 8; trap '' XFSZ; for how in '' conv=notrunc oflag=append; do \
            dd if=/dev/zero of=file bs=1k count=9 $how 2>&1 | head -n 2; done; \
            truncate -s 10000 file 2>&1; fallocate -l 10000 file 2>&1; stat -c %s file";
        let done = std::process::Command::new("sh").args(["-c", shell]).current_dir(root).output();
        String::from_utf8(done.unwrap().stdout).unwrap()
    };
    let expected = said(&native);
    assert!(expected.contains("File too large"), "{expected}");
    assert_eq!(expected, said(&fixture.view));
    fs::remove_dir_all(&native).unwrap();
}
