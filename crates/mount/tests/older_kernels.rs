//! What is done instead of features that older kernels lack: each is left out in turn, and the
//! mount must still do what a native directory does, or refuse.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
#[path = "common/mapping.rs"]
mod mapping;
#[path = "common/people.rs"]
mod people;
#[path = "common/posix.rs"]
mod posix;
#[path = "common/script.rs"]
mod script;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Fixture, describe, scratch};
use rustix::fs::{Mode, OFlags, XattrFlags, getxattr, listxattr, setxattr};
use rustix::io::Errno;

/// Without these features, nothing is different for an application.
#[test]
fn fallbacks_do_what_is_done_natively() {
    // Without a umask, as all that is served is.
    mount::prepare();
    let native = scratch("fallbacks-native");
    let run = |root: &Path| {
        let [first, second] = ["script", "posix"].map(|name| root.join(name));
        for directory in [&first, &second] {
            fs::create_dir(directory).unwrap();
        }
        (script::run(&first), posix::run(&second))
    };
    let expected = run(&native);
    let tree = describe(&native, false);
    let all = ["direct-mmap", "kill-privileges", "parallel-writes"];
    for features in [&all[..1], &all[1..2], &all[2..], &all] {
        let mut fixture = Fixture::without("fallbacks", features);
        let seen = run(&fixture.view);
        expected.0.assert_same(&seen.0);
        expected.1.assert_same(&seen.1);
        assert_eq!(tree, describe(&fixture.view, false), "without {features:?}");
        fixture.detach();
        assert_eq!(tree, describe(&fixture.source, false), "without {features:?}");
    }
    fs::remove_dir_all(&native).unwrap();
}

/// Every way to look at a file shows what was written in any other.
#[test]
fn mappings_and_writes_see_each_other() {
    for features in [&[][..], &["direct-mmap"], &["parallel-writes"]] {
        let fixture = Fixture::without("coherent", features);
        let path = fixture.view.join("file");
        fs::write(&path, vec![b'.'; 100_000]).unwrap();
        let both = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let only = OpenOptions::new().write(true).open(&path).unwrap();
        let mut map = mapping::Mapping::shared(&both, 100_000);
        let mut expected = vec![b'.'; 100_000];
        let mut state = 7u64;
        for round in 0..3000u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            let at = (state >> 33) as usize % 99_000;
            let bytes = vec![round as u8; 1 + (state >> 20) as usize % 900];
            expected[at..at + bytes.len()].copy_from_slice(&bytes);
            match round % 3 {
                0 => both.write_all_at(&bytes, at as u64).unwrap(),
                1 => only.write_all_at(&bytes, at as u64).unwrap(),
                _ => map.store(at, &bytes),
            }
            let mut seen = vec![0; 2000.min(100_000 - at)];
            both.read_exact_at(&mut seen, at as u64).unwrap();
            assert_eq!(seen, expected[at..at + seen.len()], "round {round} without {features:?}");
            assert_eq!(map.load(at, seen.len()), seen, "round {round} without {features:?}");
        }
        map.sync();
        drop(map);
        assert_eq!(fs::read(fixture.source.join("file")).unwrap(), expected);
    }
}

#[test]
fn without_lists_they_are_refused_and_hidden() {
    let native = scratch("no-lists-native");
    let mut fixture = Fixture::without("no-lists", &["acl"]);
    script::run(&native).assert_same(&script::run(&fixture.view));
    let path = fixture.view.join("file");
    fs::write(&path, b"x").unwrap();
    let list = posix::list(6, (1000, 4), 4, 4, 0);
    setxattr(fixture.source.join("file"), "system.posix_acl_access", &list, XattrFlags::empty())
        .unwrap();
    let set = setxattr(&path, "system.posix_acl_access", &list, XattrFlags::empty());
    assert_eq!(set, Err(Errno::OPNOTSUPP));
    let get = getxattr(&path, "system.posix_acl_access", &mut [0; 100]);
    assert_eq!(get, Err(Errno::OPNOTSUPP));
    assert_eq!(listxattr(&path, &mut [0; 100]), Ok(0));
    fixture.detach();
    fs::remove_dir_all(&native).unwrap();
}

#[test]
fn without_unnamed_files_they_are_refused() {
    let fixture = Fixture::without("no-unnamed", &["tmpfile"]);
    for _ in 0..2 {
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        let opened = rustix::fs::open(&fixture.view, flags, Mode::RUSR);
        assert_eq!(opened.map(drop), Err(Errno::OPNOTSUPP));
    }
}
