//! Resyncs that go through what changed alone: after a time apart, after the power of the primary,
//! and that a log which cannot be read makes everything be compared. What is compared is counted,
//! not timed; that replicas are identical under changes of every kind is tested in `resync`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use self::support::applications::ledger;
use self::support::logs::{self, log_of, progress, why};
use self::support::{Cluster, SYNC_PATIENCE, other};

/// Directories, and files in each.
const DIRECTORIES: usize = 20;
const FILES: usize = 20;
const FILE_BYTES: usize = 64 << 10;
/// A file of several regions.
const BIG_BYTES: usize = 40 << 20;
/// All of that.
const ALL_BYTES: u64 = (DIRECTORIES * FILES * FILE_BYTES + BIG_BYTES) as u64;

#[test]
fn a_resync_compares_what_changed_and_nothing_else() {
    let cluster = Cluster::protected(ledger(""));
    let place = furnish(&cluster);
    let (primary, secondary) = (cluster.primary(), other(cluster.primary()));
    cluster.lab().kill(secondary).unwrap();
    cluster.wait_for_role(primary, &["ALONE"]);
    let big = OpenOptions::new().write(true).open(place.join("big")).unwrap();
    big.write_all_at(b"changed", 20 << 20).unwrap();
    fs::rename(place.join("d0/f0"), place.join("d1/renamed")).unwrap();
    fs::remove_file(place.join("d2/f2")).unwrap();
    fs::set_permissions(place.join("d3/f3"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(place.join("d4/new")).unwrap();
    fs::write(place.join("d4/new/file"), b"new").unwrap();
    fs::hard_link(place.join("d5/f5"), place.join("d6/link")).unwrap();
    cluster.boot_node(secondary);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    let progress = progress(&cluster, primary);
    assert!(why(&progress).starts_with("only what changed"), "{progress}");
    let compared = progress["bytes"].as_u64().unwrap();
    assert!(compared < ALL_BYTES / 4, "{compared} of {ALL_BYTES} bytes were compared: {progress}");
    cluster.stop_and_compare();
}

#[test]
fn what_was_moved_while_the_peer_was_away_is_moved_there_too() {
    let cluster = Cluster::protected(ledger(""));
    let place = furnish(&cluster);
    for directory in ["d11/sub", "d12/a/b/c"] {
        fs::create_dir_all(place.join(directory)).unwrap();
        fs::write(place.join(directory).join("deep"), vec![5; 3 << 20]).unwrap();
    }
    logs::forget(&cluster);
    let (primary, secondary) = (cluster.primary(), other(cluster.primary()));
    let there = |path: &str| cluster.replica(secondary).join("data").join(path);
    let ids = ["big", "d9", "d10", "d11/sub", "d12", "d12/a/b/c", "d13", "d13/f3"];
    let before = ids.map(|path| fs::metadata(there(path)).unwrap().ino());
    cluster.lab().kill(secondary).unwrap();
    cluster.wait_for_role(primary, &["ALONE"]);
    let rename = |from: &str, to: &str| fs::rename(place.join(from), place.join(to)).unwrap();
    rename("big", "d8/bigger");
    // Two that changed places.
    rename("d9", "aside");
    rename("d10", "d9");
    rename("aside", "d10");
    // Into one that is new.
    fs::create_dir(place.join("new")).unwrap();
    rename("d11/sub", "new/sub");
    // One out of another that has moved itself, and under which it stood; more than once.
    rename("d12", "new/d12");
    rename("new/d12/a/b/c", "d8/c");
    rename("d8/c", "c");
    rename("new/d12", "new/d12.again");
    // Another one under the name that was left.
    rename("d13", "new/d13");
    fs::create_dir(place.join("d13")).unwrap();
    fs::write(place.join("d13/f3"), "another").unwrap();
    cluster.boot_node(secondary);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    let progress = progress(&cluster, primary);
    assert!(why(&progress).starts_with("only what changed"), "{progress}");
    let copied = progress["copied"].as_u64().unwrap();
    assert!(copied < 1 << 20, "{copied} bytes were copied: {progress}");
    let now = ["d8/bigger", "d10", "d9", "new/sub", "new/d12.again", "c", "new/d13", "new/d13/f3"];
    let after = now.map(|path| fs::metadata(there(path)).unwrap().ino());
    assert_eq!(after, before, "the objects themselves were moved");
    cluster.stop_and_compare();
}

#[test]
fn a_primary_that_lost_power_tells_what_it_may_hold_alone() {
    let cluster = Cluster::protected(ledger(""));
    let place = furnish(&cluster);
    let (primary, secondary) = (cluster.primary(), other(cluster.primary()));
    // Written and not synced: on the old primary it may be lost, whole or in part.
    fs::write(place.join("d7/late"), vec![7; 200_000]).unwrap();
    let big = OpenOptions::new().write(true).open(place.join("big")).unwrap();
    big.write_all_at(&[1; 100_000], 8 << 20).unwrap();
    cluster.lab().power(primary).unwrap();
    cluster.wait_for_role(secondary, &["ALONE"]);
    cluster.boot_node(primary);
    cluster.wait_for(secondary, "protected", SYNC_PATIENCE);
    let progress = progress(&cluster, secondary);
    assert!(why(&progress).starts_with("only what changed"), "{progress}");
    assert!(!why(&progress).contains("and 0 of the target's"), "{progress}");
    assert!(progress["bytes"].as_u64().unwrap() < ALL_BYTES / 4, "{progress}");
    cluster.stop_and_compare();
}

#[test]
fn a_log_that_cannot_be_read_makes_everything_be_compared() {
    let cluster = Cluster::protected(ledger(""));
    let place = furnish(&cluster);
    let (primary, secondary) = (cluster.primary(), other(cluster.primary()));
    cluster.lab().kill(secondary).unwrap();
    cluster.wait_for_role(primary, &["ALONE"]);
    fs::write(place.join("d8/new"), b"new").unwrap();
    cluster.lab().start(secondary).unwrap();
    let log = log_of(&cluster, secondary);
    let length = fs::metadata(&log).unwrap().len();
    fs::write(&log, vec![0xa5; usize::try_from(length).unwrap()]).unwrap();
    cluster.start_daemon(secondary);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    let progress = progress(&cluster, primary);
    assert!(why(&progress).starts_with("the trees are compared whole"), "{progress}");
    assert!(log.with_extension("damaged").exists(), "the damaged log is kept");
    cluster.stop_and_compare();
}

/// Fills the directory, and begins anew, so that none of it is in the log any more.
fn furnish(cluster: &Cluster) -> PathBuf {
    let place = cluster.host(cluster.primary()).path("/srv/ledger/data").unwrap();
    for directory in 0..DIRECTORIES {
        let directory = place.join(format!("d{directory}"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..FILES {
            let content = [u8::try_from(file).unwrap(); FILE_BYTES];
            fs::write(directory.join(format!("f{file}")), content).unwrap();
        }
    }
    fs::write(place.join("big"), vec![9; BIG_BYTES]).unwrap();
    logs::forget(cluster);
    cluster.host(cluster.primary()).path("/srv/ledger/data").unwrap()
}
