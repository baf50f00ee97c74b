//! The mount against the native file system: the same calls, the same results, the same tree.

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

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;

use common::{Fixture, describe, scratch};
use mount::{Immediate, Order, Serving, Tree};

#[test]
fn every_call_does_what_it_does_natively() {
    let native = scratch("native");
    let mut fixture = Fixture::new("every-call");
    let (expected, seen) = (script::run(&native), script::run(&fixture.view));
    expected.assert_same(&seen);
    let expected = describe(&native, false);
    assert_eq!(expected, describe(&fixture.view, false));
    assert_eq!(describe(&fixture.view, true), describe(&fixture.source, true));
    fixture.detach();
    assert_eq!(expected, describe(&fixture.source, false));
    fs::remove_dir_all(&native).unwrap();
}

#[test]
fn lists_and_other_people_are_treated_as_natively() {
    let native = scratch("native-posix");
    let mut fixture = Fixture::new("posix");
    let (expected, seen) = (posix::run(&native), posix::run(&fixture.view));
    expected.assert_same(&seen);
    let expected = describe(&native, false);
    assert_eq!(expected, describe(&fixture.view, false));
    fixture.detach();
    assert_eq!(expected, describe(&fixture.source, false));
    fs::remove_dir_all(&native).unwrap();
}

#[test]
fn a_directory_is_served_over_itself() {
    let base = scratch("itself");
    let directory = base.join("directory");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("before"), b"before").unwrap();
    let tree = Arc::new(Tree::open(0, &directory).unwrap());
    let order = Arc::new(Order::new(Immediate));
    let serving = Serving::start(tree, order, &directory, 2).unwrap();
    assert_eq!(fs::read(directory.join("before")).unwrap(), b"before");
    fs::write(directory.join("during"), b"during").unwrap();
    let open = File::open(directory.join("during")).unwrap();
    serving.detach().unwrap();
    assert_eq!(fs::read(directory.join("during")).unwrap(), b"during");
    assert!(open.metadata().is_err() || open.read_at(&mut [0], 0).is_err());
    fs::remove_dir_all(&base).unwrap();
}

#[test]
fn two_processes_append_without_losing_a_line() {
    let fixture = Fixture::new("append");
    let path = fixture.view.join("log");
    let shell = format!("for i in $(seq 400); do echo $1 $i; done >> {}", path.display());
    let writer = |name: &str| Command::new("sh").args(["-c", &shell, "sh", name]).spawn().unwrap();
    let (mut first, mut second) = (writer("first"), writer("second"));
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    let text = fs::read_to_string(&path).unwrap();
    for name in ["first", "second"] {
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(name)).collect();
        let expected: Vec<String> = (1..=400).map(|i| format!("{name} {i}")).collect();
        assert_eq!(lines, expected);
    }
}

#[test]
fn stores_to_a_shared_mapping_arrive() {
    let fixture = Fixture::new("mapping");
    let path = fixture.view.join("mapped");
    fs::write(&path, vec![b'.'; 20_000]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut map = mapping::Mapping::shared(&file, 20_000);
    map.store(5_000, b"stored");
    map.sync();
    drop(map);
    let backing = fs::read(fixture.source.join("mapped")).unwrap();
    assert_eq!(&backing[4_999..5_007], b".stored.");
    assert_eq!(fs::read(&path).unwrap(), backing);
    // Other descriptors see it, and the mapping's file can be written past it.
    let other = OpenOptions::new().write(true).open(&path).unwrap();
    other.write_all_at(b"direct", 5_002).unwrap();
    assert_eq!(&fs::read(&path).unwrap()[5_000..5_008], b"stdirect");
}

#[test]
fn attributes_of_other_names_are_never_stale() {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new("stale");
    let at = |name: &str| fixture.view.join(name);
    fs::write(at("a"), b"a").unwrap();
    fs::hard_link(at("a"), at("b")).unwrap();
    fs::create_dir(at("d")).unwrap();
    let same_as_backing = |name: &str| {
        let (seen, real) = (at(name).metadata(), fixture.source.join(name).metadata());
        let (seen, real) = (seen.unwrap(), real.unwrap());
        let all = |m: &fs::Metadata| {
            (m.nlink(), m.mode(), m.len(), m.blocks(), m.mtime_nsec(), m.ctime(), m.ctime_nsec())
        };
        assert_eq!(all(&seen), all(&real), "{name}");
    };
    let check = || ["a", "d", "."].into_iter().for_each(same_as_backing);
    check();
    fs::rename(at("b"), at("d/b")).unwrap();
    check();
    same_as_backing("d/b");
    fs::hard_link(at("d/b"), at("c")).unwrap();
    check();
    fs::remove_file(at("c")).unwrap();
    check();
    OpenOptions::new().append(true).open(at("d/b")).unwrap().write_all(b"more").unwrap();
    check();
    rustix::fs::setxattr(at("d/b"), "user.x", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    check();
    fs::write(at("v"), b"v").unwrap();
    fs::hard_link(at("v"), at("w")).unwrap();
    fs::rename(at("d/b"), at("v")).unwrap();
    check();
    same_as_backing("w");
    fs::create_dir(at("d/sub")).unwrap();
    fs::rename(at("d/sub"), at("sub")).unwrap();
    check();
    fs::remove_dir(at("sub")).unwrap();
    check();
}
