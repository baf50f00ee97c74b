//! A tree deeper than any path may be long, and a directory with very many entries: replicated as
//! they are made, brought up to date after the peer was away, and found equal by `verify`.
//!
//! `EVENKEEL_ROUNDS` is the number of thousands of entries; a million of them are a soak.

#![allow(clippy::print_stdout, reason = "figures for whoever runs it by hand")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};

use self::support::applications::ledger;
use self::support::{Cluster, other, random};

/// Directories in one another: their path is longer than a path may be.
const DEPTH: usize = 2_500;
const BOTTOM: &str = "bottom";
/// How long a resync of a million entries may take.
const PATIENCE: Duration = Duration::from_secs(1800);

fn open(at: &OwnedFd, name: &str, flags: OFlags) -> OwnedFd {
    rustix::fs::openat(at, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)).unwrap()
}

fn place(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Goes down as far as it goes, making what is missing.
fn descend(top: OwnedFd, make: bool) -> OwnedFd {
    let mut at = top;
    for _ in 0..DEPTH {
        if make {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
        }
        at = open(&at, "d", OFlags::DIRECTORY);
    }
    at
}

fn write_bottom(top: OwnedFd, make: bool, text: &str) {
    let at = descend(top, make);
    let file = open(&at, BOTTOM, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC);
    fs::File::from(file).write_all(text.as_bytes()).unwrap();
}

fn read_bottom(top: OwnedFd) -> String {
    let at = descend(top, false);
    let mut text = String::new();
    fs::File::from(open(&at, BOTTOM, OFlags::RDONLY)).read_to_string(&mut text).unwrap();
    text
}

fn equal(cluster: &Cluster, primary: &str) {
    let start = Instant::now();
    println!("{}", cluster.must(primary, &["verify", cluster.module()]).trim());
    println!("verified in {:.1} s", start.elapsed().as_secs_f64());
}

#[test]
fn a_tree_deeper_than_paths_are_long() {
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    let secondary = other(primary);
    let mount = cluster.host(primary).path("/srv/ledger").unwrap();
    fs::create_dir(mount.join("deep")).unwrap();
    write_bottom(place(&mount.join("deep")), true, "made");
    assert_eq!(read_bottom(place(&cluster.replica(secondary).join("deep"))), "made");
    cluster.lab().kill(secondary).unwrap();
    cluster.wait_for(primary, "alone", PATIENCE);
    write_bottom(place(&mount.join("deep")), false, "changed alone");
    // And one that the peer has never seen.
    fs::create_dir(mount.join("new")).unwrap();
    write_bottom(place(&mount.join("new")), true, "made alone");
    cluster.boot_node(secondary);
    cluster.wait_for(primary, "protected", PATIENCE);
    let replica = cluster.replica(secondary);
    assert_eq!(read_bottom(place(&replica.join("deep"))), "changed alone");
    assert_eq!(read_bottom(place(&replica.join("new"))), "made alone");
    equal(&cluster, primary);
    // Moved as a whole, and taken away, both while the peer follows.
    fs::rename(mount.join("deep"), mount.join("moved")).unwrap();
    write_bottom(place(&mount.join("moved")), false, "below another name");
    assert_eq!(read_bottom(place(&replica.join("moved"))), "below another name");
    for tree in ["moved", "new"] {
        cut_down(&place(&mount.join(tree)));
    }
    cluster.stop_and_compare();
}

/// Takes a tree away from its top, for from the bottom each step would go all the way.
fn cut_down(top: &OwnedFd) {
    for _ in 0..DEPTH {
        let first = open(top, "d", OFlags::DIRECTORY);
        // What is below moves to the top, and the emptied directory goes.
        let flags = RenameFlags::empty();
        if rustix::fs::renameat_with(&first, "d", top, "next", flags).is_err() {
            let _ = rustix::fs::unlinkat(&first, BOTTOM, AtFlags::empty());
        }
        rustix::fs::unlinkat(top, "d", AtFlags::REMOVEDIR).unwrap();
        let _ = rustix::fs::renameat_with(top, "next", top, "d", flags);
    }
}

#[test]
fn a_directory_with_very_many_entries() {
    let entries = random::rounds(20) * 1000;
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    let secondary = other(primary);
    let wide = cluster.host(primary).path("/srv/ledger").unwrap().join("wide");
    fs::create_dir(&wide).unwrap();
    let start = Instant::now();
    for number in 0..entries {
        fs::File::create(wide.join(format!("entry {number}"))).unwrap();
    }
    println!("{entries} entries in {:.1} s", start.elapsed().as_secs_f64());
    cluster.lab().kill(secondary).unwrap();
    cluster.wait_for(primary, "alone", PATIENCE);
    for number in (0..entries).step_by(100) {
        fs::write(wide.join(format!("entry {number}")), "changed").unwrap();
        fs::remove_file(wide.join(format!("entry {}", number + 1))).unwrap();
        fs::rename(wide.join(format!("entry {}", number + 2)), wide.join(format!("n {number}")))
            .unwrap();
    }
    let start = Instant::now();
    cluster.boot_node(secondary);
    cluster.wait_for(primary, "protected", PATIENCE);
    println!("protected again after {:.1} s", start.elapsed().as_secs_f64());
    equal(&cluster, primary);
    cluster.stop_and_compare();
}
