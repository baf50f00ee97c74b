//! Changes made past replication while the module was stopped: found at the next start on either
//! node, named, and compared before the pair counts as protected; and none are seen where there
//! were none.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use self::support::applications::ledger;
use self::support::logs::{self, progress, why};
use self::support::{Cluster, NODES, PATIENCE, SYNC_PATIENCE, other};

/// Bytes of a file of which little is changed.
const BIG_BYTES: usize = 24 << 20;

#[test]
fn a_stop_during_which_nothing_is_changed_needs_no_resync() {
    let cluster = Cluster::protected(ledger(""));
    furnish(&cluster);
    for _ in 0..2 {
        cluster.stop_and_compare();
        // Reading and new daemons are no changes.
        fs::read(cluster.replica(NODES[0]).join("tree/a/deep/file")).unwrap();
        for node in NODES {
            cluster.daemon(node).kill(15).unwrap();
            cluster.daemon(node).wait().unwrap();
            cluster.start_daemon(node);
        }
        let told = cluster.start_in_sync();
        assert!(!told.contains("out-of-band"), "{told}");
        assert!(!told.contains("out-of-band"), "{}", events(&cluster, other(cluster.primary())));
    }
}

#[test]
fn what_was_changed_on_either_node_while_stopped_is_found_and_mended() {
    let cluster = Cluster::protected(ledger(""));
    furnish(&cluster);
    let (primary, secondary) = (cluster.primary(), other(cluster.primary()));
    cluster.stop_and_compare();
    change(&cluster.replica(primary));
    tamper(&cluster.replica(secondary));
    start(&cluster);
    assert_eq!(cluster.primary(), primary, "the last primary leads");
    for (node, path) in [(primary, "/srv/ledger/tree"), (secondary, "/srv/ledger/tree/b")] {
        let told = events(&cluster, node);
        assert!(told.contains("out-of-band") && told.contains(path), "{node}: {told}");
    }
    let progress = progress(&cluster, primary);
    assert!(why(&progress).starts_with("only what changed"), "{progress}");
    let compared = progress["bytes"].as_u64().unwrap();
    assert!(compared < 3 * BIG_BYTES as u64, "one of the large files was left alone: {progress}");
    cluster.stop_and_compare();
    expect_primarys(&cluster.replica(secondary));
}

#[test]
fn a_directory_that_takes_the_place_of_another_is_compared_with_all_below() {
    let cluster = Cluster::protected(ledger(""));
    let place = cluster.host(cluster.primary()).path("/srv/ledger").unwrap();
    // Nothing but the content tells which is which.
    for name in ["cur", "old"] {
        fs::create_dir_all(place.join(name).join("sub/deep")).unwrap();
        fs::write(place.join(name).join("sub/deep/file"), name).unwrap();
        fs::write(place.join(name).join("sub/file"), name).unwrap();
    }
    logs::forget(&cluster);
    let (primary, secondary) = (cluster.primary(), other(cluster.primary()));
    for node in [primary, secondary] {
        cluster.stop_and_compare();
        let replica = cluster.replica(node);
        for (from, to) in [("cur", "aside"), ("old", "cur"), ("aside", "old")] {
            fs::rename(replica.join(from), replica.join(to)).unwrap();
        }
        start(&cluster);
    }
    cluster.stop_and_compare();
    let found = fs::read(cluster.replica(secondary).join("cur/sub/deep/file")).unwrap();
    assert_eq!(found, b"old", "the last primary's copy counts");
}

#[test]
fn what_was_found_counts_until_it_was_compared() {
    let cluster = Cluster::protected(ledger(""));
    furnish(&cluster);
    let (primary, secondary) = (cluster.primary(), other(cluster.primary()));
    cluster.stop_and_compare();
    tamper(&cluster.replica(secondary));
    // It looks back alone, and waits for its peer.
    cluster.lab().kill(primary).unwrap();
    let refused = cluster.command(secondary, &["start", cluster.module(), "--node", secondary]);
    drop(refused);
    cluster
        .until("it looks back", PATIENCE, || events(&cluster, secondary).contains("out-of-band"));
    cluster.command(secondary, &["stop", cluster.module(), "--node", secondary]);
    cluster.wait_for(secondary, "stopped", PATIENCE);
    cluster.boot_node(primary);
    start(&cluster);
    cluster.stop_and_compare();
}

#[test]
fn what_is_changed_between_a_power_loss_and_the_start_is_found() {
    let cluster = Cluster::protected(ledger(""));
    furnish(&cluster);
    let (primary, secondary) = (cluster.primary(), other(cluster.primary()));
    cluster.lab().power(secondary).unwrap();
    cluster.wait_for_role(primary, &["ALONE"]);
    cluster.lab().start(secondary).unwrap();
    tamper(&cluster.replica(secondary));
    cluster.start_daemon(secondary);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    let told = events(&cluster, secondary);
    assert!(told.contains("out-of-band") && told.contains("/srv/ledger/tree/b"), "{told}");
    let progress = progress(&cluster, primary);
    assert!(why(&progress).starts_with("only what changed"), "{progress}");
    cluster.stop_and_compare();
}

/// Some of everything, old enough to be in no log.
fn furnish(cluster: &Cluster) {
    let place = cluster.host(cluster.primary()).path("/srv/ledger").unwrap();
    for name in ["big", "large", "untouched"] {
        fs::write(place.join(name), vec![3; BIG_BYTES]).unwrap();
    }
    for directory in ["a/deep", "b", "c", "d"] {
        let directory = place.join("tree").join(directory);
        fs::create_dir_all(&directory).unwrap();
        for name in ["file", "other", "third"] {
            fs::write(directory.join(name), directory.to_str().unwrap()).unwrap();
        }
    }
    symlink("a/deep", place.join("tree/link")).unwrap();
    logs::forget(cluster);
}

/// What an administrator may do to the copy that is to lead.
fn change(replica: &Path) {
    overwrite(&replica.join("big"), 10 << 20);
    let tree = replica.join("tree");
    // Another directory, all of whose content is old, under a name that was there.
    fs::rename(tree.join("a"), tree.join("a.old")).unwrap();
    fs::rename(tree.join("c"), tree.join("a")).unwrap();
    fs::create_dir_all(tree.join("new/below")).unwrap();
    fs::write(tree.join("new/below/file"), "new").unwrap();
    fs::remove_file(tree.join("d/other")).unwrap();
    fs::set_permissions(tree.join("d/third"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(tree.join("d/file"), tree.join("b/linked")).unwrap();
    fs::remove_file(tree.join("link")).unwrap();
    symlink("b", tree.join("link")).unwrap();
}

fn expect_primarys(replica: &Path) {
    let tree = replica.join("tree");
    assert_eq!(fs::read(tree.join("new/below/file")).unwrap(), b"new");
    assert!(tree.join("a.old/deep/file").exists() && !tree.join("c").exists());
    let mut changed = [0; 7];
    File::open(replica.join("big")).unwrap().read_exact_at(&mut changed, 10 << 20).unwrap();
    assert_eq!(&changed, b"changed");
}

/// What must not stay on the copy that follows.
fn tamper(replica: &Path) {
    overwrite(&replica.join("large"), 20 << 20);
    let tree = replica.join("tree");
    overwrite(&tree.join("b/file"), 2);
    fs::write(tree.join("b/foreign"), "foreign").unwrap();
    fs::remove_file(tree.join("b/other")).unwrap();
    fs::rename(tree.join("d/file"), tree.join("d/renamed")).unwrap();
    fs::remove_dir_all(tree.join("a/deep")).unwrap();
}

/// Changes a file in a way that neither its size nor its modification time shows.
fn overwrite(path: &Path, offset: u64) {
    let file = File::options().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"changed", offset).unwrap();
    file.set_modified(before).unwrap();
}

fn start(cluster: &Cluster) {
    for node in NODES {
        cluster.wait_for(node, "stopped", PATIENCE);
    }
    cluster.must(NODES[0], &["start", cluster.module()]);
    cluster.wait_for(cluster.primary(), "protected", SYNC_PATIENCE);
}

/// What the node told since its module was last started.
fn events(cluster: &Cluster, node: &str) -> String {
    let all = cluster.must(node, &["events", cluster.module()]);
    let last = all.rfind(" stopped: ").unwrap_or(0);
    all[last..].to_owned()
}
