//! Calls that few programs make: each does what it does natively, or is refused as documented.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
#[path = "common/copying.rs"]
mod copying;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use common::{Fixture, Mounted, describe, scratch};
use copying::Copying;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, RawDir, SeekFrom, StatxFlags, XattrFlags, mkdirat,
    openat, seek, setxattr, statx,
};
use rustix::io::Errno;

/// Calls whose outcome is that of a native directory.
fn same_as_native(root: &Path) -> Vec<String> {
    let path = root.join("file");
    fs::write(&path, vec![7; 50_000]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut said = Vec::new();
    let mut say = |what: &str, outcome: &dyn std::fmt::Debug| {
        said.push(format!("{what}: {outcome:?}"));
    };
    let target = File::create(root.join("copy")).unwrap();
    let (mut from, mut to) = (1000, 5);
    let copied = rustix::fs::copy_file_range(&file, Some(&mut from), &target, Some(&mut to), 9000);
    say("copy_file_range", &(copied, from, to));
    let mut from = 10;
    say("sendfile", &rustix::fs::sendfile(&target, &file, Some(&mut from), 3000));
    let mut ready = [PollFd::new(&file, PollFlags::IN | PollFlags::OUT)];
    say("poll", &(poll(&mut ready, None), ready[0].revents()));
    say("syncfs", &rustix::fs::syncfs(&file));
    let directory = File::open(root).unwrap();
    say("fsync of a directory", &directory.sync_all().is_ok());
    say("write to a directory", &rustix::io::write(&directory, b"x"));
    say("whence", &seek(&file, SeekFrom::Data(60_000)));
    let seen = statx(CWD, &path, AtFlags::empty(), StatxFlags::ALL).unwrap();
    say("birth", &(seen.stx_mask & StatxFlags::BTIME.bits() != 0, seen.stx_btime.tv_sec > 1000));
    say("lock", &rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive));
    let other = File::open(&path).unwrap();
    say("lock", &rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockShared));
    say("access", &rustix::fs::access(&path, rustix::fs::Access::EXEC_OK));
    let advice = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    say("advice", &advice);
    said
}

#[test]
fn rare_calls_do_what_they_do_natively() {
    let native = scratch("rare-native");
    let fixture = Fixture::new("rare");
    assert_eq!(same_as_native(&native), same_as_native(&fixture.view));
    assert_eq!(describe(&native, false), describe(&fixture.view, false));
    fs::remove_dir_all(&native).unwrap();
}

#[test]
fn what_is_not_supported_is_refused() {
    let fixture = Fixture::new("refused");
    let path = fixture.view.join("file");
    fs::write(&path, vec![7; 50_000]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        assert_eq!(rustix::fs::fallocate(&file, mode, 4096, 4096), Err(Errno::OPNOTSUPP));
    }
    assert_eq!(flags_of(&file), Err(Errno::NOTTY));
    let copy = File::create(fixture.view.join("clone")).unwrap();
    assert!(matches!(rustix::fs::ioctl_ficlone(&copy, &file), Err(Errno::OPNOTSUPP)));
    assert_eq!(fs::metadata(fixture.source.join("clone")).unwrap().len(), 0);
}

#[allow(unsafe_code, reason = "FS_IOC_GETFLAGS has no safe wrapper")]
fn flags_of(file: &File) -> Result<libc::c_long, Errno> {
    let mut flags: libc::c_long = 0;
    // SAFETY: the request writes a number to live memory that is large enough for it.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) } {
        0 => Ok(flags),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
    }
}

#[test]
fn a_listing_goes_on_where_it_was_left() {
    let fixture = Fixture::new("seeking");
    for number in 0..500 {
        File::create(fixture.view.join(format!("entry-{number}"))).unwrap();
    }
    let directory = File::open(&fixture.view).unwrap();
    let listed = |from: u64| {
        seek(&directory, SeekFrom::Start(from)).unwrap();
        let mut buffer = [MaybeUninit::uninit(); 700];
        let mut entries = RawDir::new(&directory, &mut buffer);
        let mut found = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.unwrap();
            found.push((entry.file_name().to_owned(), entry.next_entry_cookie()));
        }
        found
    };
    let all = listed(0);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 502);
    for index in [0, 1, 100, 499, 501] {
        assert_eq!(listed(all[index].1), all[index + 1..]);
    }
}

#[test]
fn paths_may_be_deeper_than_any_path_can_say() {
    let copy = scratch("deep-copy");
    let mut fixture = Fixture::recording("deep", Copying::new(&copy));
    let name = "d".repeat(255);
    let open = |at: &OwnedFd| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(at, name.as_str(), flags, Mode::empty())
    };
    let start = |at: &Path| OwnedFd::from(File::open(at).unwrap());
    let mut at = start(&fixture.view);
    for _ in 0..40 {
        mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        at = open(&at).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let mut file = File::from(openat(&at, name.as_str(), flags, Mode::RUSR).unwrap());
    file.write_all(b"deep").unwrap();
    let too_long = openat(&at, "x".repeat(256), flags, Mode::RUSR);
    assert_eq!(too_long.map(drop), Err(Errno::NAMETOOLONG));
    drop((file, at));
    fixture.detach();
    for root in [&fixture.source, &copy] {
        let mut at = start(root);
        for _ in 0..40 {
            at = open(&at).unwrap();
        }
        let file = openat(at.as_fd(), name.as_str(), OFlags::RDONLY, Mode::empty()).unwrap();
        assert_eq!(std::io::read_to_string(File::from(file)).unwrap(), "deep");
    }
    fs::remove_dir_all(&copy).unwrap();
}

#[test]
fn a_file_may_have_a_thousand_attributes() {
    let base = scratch("attributes");
    let copy = scratch("attributes-copy");
    let _disk = Mounted::new("tmpfs", &base.join("source"), "size=64m");
    let _other = Mounted::new("tmpfs", &copy.join("disk"), "size=64m");
    let mut fixture = Fixture::over(base, Copying::new(&copy.join("disk")));
    let path = fixture.view.join("file");
    fs::write(&path, b"x").unwrap();
    for number in 0..1000 {
        let name = format!("user.attribute-{number}");
        setxattr(&path, name, number.to_string().as_bytes(), XattrFlags::CREATE).unwrap();
    }
    setxattr(&path, "user.large", &[7; 60_000], XattrFlags::empty()).unwrap();
    let expected = describe(&fixture.view, false);
    fixture.detach();
    assert_eq!(expected, describe(&fixture.source, false));
    assert_eq!(expected, describe(&copy.join("disk"), false));
}
