//! A module of two directories on different disks, one of them the root of its file system, through
//! resync, cap, switchover and failover: each is a tree of its own, and both are equal at the end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use lab::Disk;

use self::support::applications::{Application, ledger};
use self::support::{Cluster, NODES, PATIENCE, SYNC_PATIENCE, other};

const SECOND: &str = "/mnt/second";
const SECOND_BYTES: u64 = 256 << 20;

fn two_directories() -> Application {
    let mut application = ledger("[replication]\nresync_rate = \"1GB/s\"\ncompression = \"lz4\"\n");
    let (one, both) = ("[\"/srv/ledger\"]", "[\"/srv/ledger\", \"/mnt/second\"]");
    assert!(application.configuration.contains(one));
    application.configuration = application.configuration.replace(one, both);
    application.disks = vec![Disk { bytes: SECOND_BYTES, ..Disk::new("second", SECOND) }];
    application
}

#[test]
fn directories_on_different_disks_are_replicated_beside_each_other() {
    let cluster = Cluster::build(two_directories());
    let inodes = NODES.map(|node| lost_and_found(&cluster, node));
    // What a node has before its first start comes along, in both.
    write(&cluster, NODES[0], "first", 300_000);
    cluster.must(NODES[0], &["start", cluster.module()]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    let primary = cluster.primary();
    write(&cluster, primary, "live", 300_000);
    let [one, two] = ["/srv/ledger/live", "/mnt/second/moved"]
        .map(|path| cluster.host(primary).path(path).unwrap());
    let error = fs::rename(&one, &two).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::CrossesDevices);
    let error = fs::hard_link(&one, &two).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::CrossesDevices);

    let secondary = other(primary);
    cluster.lab().kill(secondary).unwrap();
    cluster.wait_for_role(primary, &["ALONE"]);
    write(&cluster, primary, "alone", 3_000_000);
    fs::remove_file(cluster.host(primary).path("/mnt/second/data/first").unwrap()).unwrap();
    // Slow at first, so that it is changed while it runs; without that, this would take an hour.
    cluster.must(primary, &["resync-rate", cluster.module(), "1kB/s"]);
    assert_eq!(rate(&cluster, primary), Some(1000));
    cluster.boot_node(secondary);
    cluster.until("a resync that has begun", PATIENCE, || {
        let detail = cluster.module_status(primary).unwrap_or_default()["detail"].clone();
        detail["progress"]["running"] == true
    });
    // Said on the other node, it is passed on to the one that serves.
    cluster.must(secondary, &["resync-rate", cluster.module(), "unlimited"]);
    assert_eq!(rate(&cluster, primary), None);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);

    cluster.must(primary, &["switchover", cluster.module()]);
    cluster.wait_for(secondary, "protected", SYNC_PATIENCE);
    write(&cluster, secondary, "switched", 300_000);
    cluster.lab().kill(secondary).unwrap();
    cluster.wait_for(primary, "alone", PATIENCE);
    write(&cluster, primary, "failed-over", 300_000);
    cluster.boot_node(secondary);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    cluster.stop_and_compare();
    second_is_equal(&cluster);
    assert_eq!(inodes, NODES.map(|node| lost_and_found(&cluster, node)), "lost+found stayed");
}

#[test]
fn one_of_two_disks_that_was_replaced_is_filled_anew_on_the_operators_word() {
    let cluster = Cluster::build(two_directories());
    write(&cluster, NODES[0], "first", 300_000);
    cluster.must(NODES[0], &["start", cluster.module()]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    let primary = cluster.primary();
    let node = other(primary);
    cluster.lab().power(node).unwrap();
    cluster.wait_for_role(primary, &["ALONE"]);
    write(&cluster, primary, "alone", 300_000);
    cluster.lab().start(node).unwrap();
    let second = cluster.host(node).path(SECOND).unwrap();
    empty(&second);
    cluster.start_daemon(node);
    cluster.until("it is told", PATIENCE, || {
        let status = cluster.module_status(node).unwrap_or_default();
        let mut reasons = status["reasons"].as_array().into_iter().flatten();
        let is_told = reasons.any(|reason| reason["code"] == "data-missing");
        is_told && status["peer"]["contact"] == "alive"
    });
    let why = cluster.must(node, &["why", cluster.module()]);
    assert!(why.contains("/mnt/second has no marker, but another directory of the module has"));
    assert!(why.contains(&format!("evenkeel heal {} --keep {primary}", cluster.module())), "{why}");
    cluster.must(node, &["heal", cluster.module(), "--keep", primary]);
    cluster.wait_for(cluster.primary(), "protected", SYNC_PATIENCE);
    assert_eq!(cluster.primary(), primary);
    cluster.stop_and_compare();
    let [one, two] = NODES.map(|node| cluster.host(node).disk_path("second").unwrap());
    let comparison = lab::compare::trees(&one.join("data"), &two.join("data")).unwrap();
    assert!(comparison.is_identical(), "{:?}", comparison.differences);
    // The other node can take over on it.
    cluster.must(primary, &["start", cluster.module()]);
    cluster.wait_for(cluster.primary(), "protected", SYNC_PATIENCE);
    cluster.must(cluster.primary(), &["switchover", cluster.module()]);
    cluster.until("it serves the other way", SYNC_PATIENCE, || cluster.serves(node));
}

/// As a new disk would be.
fn empty(directory: &std::path::Path) {
    fs::remove_dir_all(directory.join("data")).unwrap();
    for name in ["trusted.evenkeel", "trusted.evenkeel.seal"] {
        rustix::fs::removexattr(directory, name).unwrap();
    }
}

/// Writes a file into each of the directories.
fn write(cluster: &Cluster, node: &str, name: &str, length: usize) {
    let host = cluster.host(node);
    let content: Vec<u8> = name.bytes().cycle().take(length).collect();
    fs::write(host.path("/srv/ledger").unwrap().join(name), &content).unwrap();
    let below = host.path(SECOND).unwrap().join("data");
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join(name), &content).unwrap();
}

fn rate(cluster: &Cluster, node: &str) -> Option<u64> {
    cluster.module_status(node).unwrap()["detail"]["resync_rate"].as_u64()
}

/// Identity of what the file system made for itself.
fn lost_and_found(cluster: &Cluster, node: &str) -> u64 {
    let path = cluster.host(node).disk_path("second").unwrap().join("lost+found");
    fs::metadata(path).unwrap().ino()
}

fn second_is_equal(cluster: &Cluster) {
    let [one, two] = NODES.map(|node| cluster.host(node).disk_path("second").unwrap());
    let comparison = lab::compare::trees(&one.join("data"), &two.join("data")).unwrap();
    assert!(comparison.is_identical(), "{:?}", comparison.differences);
    let names = |path: &std::path::Path| -> BTreeSet<_> {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(&one), names(&two));
    assert_eq!(names(&one.join("data")).len(), 4, "live, alone, switched, failed-over");
}
