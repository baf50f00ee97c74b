//! Disks that were put back to an earlier state: such a copy leads nobody, and is brought up to
//! date when the peer has the newer one; alone it waits for the operator's word.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use self::support::applications::ledger;
use self::support::logs::{progress, why};
use self::support::{Cluster, NODES, PATIENCE, SYNC_PATIENCE, other};

/// The disk that holds the replicated directory.
const DISK: &str = "data";

#[test]
fn a_copy_that_was_put_back_follows_the_newer_one() {
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    let newer = other(primary);
    cluster.stop_and_compare();
    let earlier = copy_disk(&cluster, primary);
    start(&cluster);
    assert_eq!(cluster.primary(), primary);
    let place = cluster.host(primary).path("/srv/ledger").unwrap();
    fs::write(place.join("late"), "acknowledged by both").unwrap();
    cluster.stop_and_compare();
    put_back(&cluster, primary, &earlier);
    assert!(!cluster.replica(primary).join("late").exists(), "the disk is the earlier one");
    start(&cluster);
    assert_eq!(cluster.primary(), newer, "the copy that was put back leads");
    let told = cluster.must(primary, &["events", cluster.module()]);
    assert!(told.contains("copy-restored"), "{told}");
    let progress = progress(&cluster, newer);
    assert!(why(&progress).starts_with("the trees are compared whole"), "{progress}");
    cluster.stop_and_compare();
    for node in NODES {
        assert!(cluster.replica(node).join("late").exists(), "{node} lost an acknowledged write");
    }
    // It counts as any other again.
    cluster.start_in_sync();
}

#[test]
fn alone_a_copy_that_was_put_back_waits_for_the_operator() {
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    cluster.stop_and_compare();
    let earlier = copy_disk(&cluster, primary);
    cluster.lab().kill(other(primary)).unwrap();
    let asked = |verb: &'static str| [verb, cluster.module(), "--node", primary];
    for _ in 0..2 {
        // Not the same state each time: with each start and stop the copy is another one.
        cluster.must(primary, &asked("force-primary"));
        cluster.wait_for_role(primary, &["ALONE"]);
        cluster.must(primary, &asked("stop"));
        put_back(&cluster, primary, &earlier);
        for _ in 0..2 {
            let refused = cluster.command(primary, &asked("start"));
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(4), "{said}");
            assert!(said.contains("put back to an earlier state"), "{said}");
            // The operator may give up, too.
            cluster.must(primary, &asked("stop"));
        }
    }
    cluster.must(primary, &asked("force-primary"));
    cluster.wait_for_role(primary, &["ALONE"]);
    cluster.must(primary, &asked("stop"));
    cluster.must(primary, &asked("start"));
    cluster.wait_for_role(primary, &["ALONE"]);
}

fn image(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.host(node).dir().join(format!("{DISK}.img"))
}

/// A copy of the disk as it is.
fn copy_disk(cluster: &Cluster, node: &str) -> PathBuf {
    let (image, host) = (image(cluster, node), cluster.host(node));
    let earlier = image.with_extension("earlier");
    host.unmount_disk(DISK).unwrap();
    copy(&image, &earlier);
    host.mount_disk(DISK).unwrap();
    earlier
}

fn put_back(cluster: &Cluster, node: &str, earlier: &PathBuf) {
    let host = cluster.host(node);
    host.unmount_disk(DISK).unwrap();
    copy(earlier, &image(cluster, node));
    host.mount_disk(DISK).unwrap();
}

fn copy(from: &PathBuf, to: &PathBuf) {
    let copied = Command::new("cp").arg("--sparse=always").args([from, to]).status().unwrap();
    assert!(copied.success());
}

fn start(cluster: &Cluster) {
    for node in NODES {
        cluster.wait_for(node, "stopped", PATIENCE);
    }
    cluster.must(NODES[0], &["start", cluster.module()]);
    cluster.wait_for(cluster.primary(), "protected", SYNC_PATIENCE);
}
