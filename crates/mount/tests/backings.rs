//! Backing stores that are special: full ones, and those that have no handles.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
#[path = "common/copying.rs"]
mod copying;
#[path = "common/script.rs"]
mod script;
#[path = "common/speaking.rs"]
mod speaking;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::channel;

use common::{Fixture, Mounted, describe, scratch};
use copying::Copying;
use mount::Immediate;
use mount::backing::{Root, handle_of};
use rustix::fs::FallocateFlags;
use rustix::mount::MountFlags;
use speaking::Speaking;

#[test]
fn on_a_full_disk_exactly_what_fitted_is_recorded() {
    let base = scratch("full");
    let copy = scratch("full-copy");
    let _disk = Mounted::new("tmpfs", &base.join("source"), "size=1m");
    let mut fixture = Fixture::over(base, Copying::new(&copy));
    let file = fs::File::create(fixture.view.join("written")).unwrap();
    let error = file.write_all_at(&vec![7; 3 << 20], 1000).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    let both = fs::OpenOptions::new().read(true).write(true).open(fixture.view.join("written"));
    let error = both.unwrap().write_all_at(&vec![8; 1 << 20], 1 << 20).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    let file = fs::File::create(fixture.view.join("allocated")).unwrap();
    let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 9 << 20);
    assert_eq!(allocated, Err(rustix::io::Errno::NOSPC));
    drop(file);
    fixture.detach();
    let expected = describe(&fixture.source, true);
    assert!(expected.len() == 2 && fs::metadata(fixture.source.join("written")).unwrap().len() > 0);
    assert_eq!(expected, describe(&copy, true));
    fs::remove_dir_all(&copy).unwrap();
}

#[test]
fn a_file_system_with_small_directories_in_their_inodes_is_refused_with_the_mend() {
    let refused = |features: &str, name: &str| {
        let source = scratch(name).join("disk");
        let _disk = Mounted::ext4(&source, 16, &["-O", features], "");
        fs::create_dir(source.join("data")).unwrap();
        mount::Tree::open(0, &source.join("data")).err().map(|error| error.to_string())
    };
    let why = refused("inline_data", "inline").unwrap();
    assert!(
        why.contains("disk/data is on an ext4 with the feature inline_data (/dev/loop"),
        "{why}"
    );
    assert!(why.contains("mkfs.ext4 -O ^inline_data"), "{why}");
    assert_eq!(refused("^inline_data", "not-inline"), None);
}

#[test]
fn what_a_failed_zeroing_left_behind_is_recorded() {
    let base = scratch("zeroed");
    let copy = scratch("zeroed-copy");
    let source = base.join("source");
    let _disk = Mounted::ext4(&source, 16, &["-O", "^has_journal"], "");
    let mut fixture = Fixture::over(base, Copying::new(&copy));
    let path = fixture.view.join("file");
    fs::write(&path, vec![7; (2 << 20) + 100]).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    let zeroed = rustix::fs::fallocate(&file, mode, 4096, 64 << 20);
    assert_eq!(zeroed, Err(rustix::io::Errno::NOSPC));
    drop(file);
    fixture.detach();
    let left = fs::read(source.join("file")).unwrap();
    assert!(left.ends_with(&[0; 100]), "nothing was zeroed, so this tests nothing");
    assert_eq!(describe(&source, true), describe(&copy, true));
    drop(fixture);
    fs::remove_dir_all(&copy).unwrap();
}

#[test]
fn a_store_that_became_read_only_fails_the_copy() {
    let base = scratch("read-only");
    let source = base.join("source");
    let _disk = Mounted::new("tmpfs", &source, "size=1m");
    let (told, heard) = channel();
    let fixture = Fixture::over(base, Speaking(told));
    rustix::mount::mount_remount(&source, MountFlags::RDONLY, c"").unwrap();
    let error = fs::create_dir(fixture.view.join("directory")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    let told: Vec<_> = heard.try_iter().collect();
    assert!(matches!(told.as_slice(), [one] if one.ends_with(": 30")), "{told:?}");
}

#[test]
fn file_systems_without_handles_are_served_too() {
    let [base, native] = ["no-handles", "no-handles-native"].map(|name| {
        let base = scratch(name);
        for below in ["lower", "upper", "work"] {
            fs::create_dir(base.join(below)).unwrap();
        }
        base
    });
    let overlay = |base: &Path| {
        let below = |name: &str| base.join(name).display().to_string();
        let (lower, upper, work) = (below("lower"), below("upper"), below("work"));
        let data = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        Mounted::new("overlay", &base.join("source"), &data)
    };
    let (_served, _plain) = (overlay(&base), overlay(&native));
    let root = Root::open(&base.join("source")).unwrap();
    assert!(!handle_of(&root, b"").unwrap().opens(), "this file system has handles by now");
    let mut fixture = Fixture::over(base, Immediate);
    let (expected, seen) = (script::run(&native.join("source")), script::run(&fixture.view));
    expected.assert_same(&seen);
    fixture.detach();
    let expected = describe(&native.join("source"), false);
    assert_eq!(expected, describe(&fixture.source, false));
}
