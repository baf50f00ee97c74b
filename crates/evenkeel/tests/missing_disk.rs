//! A disk that is not mounted, and markers that a lost power has kept from being written: what a
//! node takes for its data, and what it leaves alone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::json;
use serde_json::value::RawValue;

use self::support::applications::ledger;
use self::support::{Cluster, NODES, PATIENCE, ROOT, SYNC_PATIENCE, other};

const DISK: &str = "data";
const MARKER: &str = "trusted.evenkeel";
const RECORD: &str = "modules/ledger/record.json";

#[test]
fn where_a_disk_is_missing_nothing_is_marked() {
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    let node = other(primary);
    cluster.stop_and_compare();
    end_daemon(&cluster, node);
    cluster.host(node).unmount_disk(DISK).unwrap();
    // A run that failed may have left one.
    let _ = fs::remove_dir(directory(&cluster, node));
    fs::create_dir_all(directory(&cluster, node)).unwrap();
    for _ in 0..2 {
        cluster.start_daemon(node);
        let refused = cluster.command(node, &["start", cluster.module(), "--node", node]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("the disk is not mounted or was replaced"), "{said}");
        // The record is written anew.
        cluster.must(node, &["maintenance", "on", node]);
        cluster.must(node, &["maintenance", "off", node]);
        cluster.must(node, &["stop", cluster.module(), "--node", node]);
        assert!(marker(&directory(&cluster, node)).is_none(), "the bare directory is marked");
        end_daemon(&cluster, node);
    }
    fs::remove_dir(directory(&cluster, node)).unwrap();
    cluster.host(node).mount_disk(DISK).unwrap();
    cluster.start_daemon(node);
    cluster.must(primary, &["start", cluster.module()]);
    cluster.wait_for(cluster.primary(), "protected", SYNC_PATIENCE);
    cluster.stop_and_compare();
}

#[test]
fn markers_that_were_not_written_any_more_are_written_by_the_next_daemon() {
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    cluster.stop_and_compare();
    end_daemon(&cluster, primary);
    // As if the power had failed after the record was written.
    let was = marker(&directory(&cluster, primary)).unwrap();
    let directory = directory(&cluster, primary);
    rustix::fs::removexattr(&directory, MARKER).unwrap();
    let state = cluster.host(primary).path(format!("{ROOT}/var/lib/evenkeel")).unwrap();
    // As text, for the identity is longer than a number may be.
    let said: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&was).unwrap();
    assert!(state.join(RECORD).exists());
    let metadata = fs::metadata(&directory).unwrap();
    let born = metadata.created().unwrap().duration_since(UNIX_EPOCH).unwrap();
    let place = json!([{ "inode": metadata.ino(), "born": born }]);
    let (root, epoch) = (&said["root"], &said["epoch"]);
    let note = format!(r#"{{"before":null,"wanted":[{root},{epoch}],"places":{place}}}"#);
    let file = state.join(RECORD).with_file_name("marking.json");
    fs::write(&file, note).unwrap();
    cluster.start_daemon(primary);
    assert_eq!(marker(&directory).unwrap(), was);
    assert!(!file.exists());
    cluster.wait_for(primary, "stopped", PATIENCE);
    cluster.must(primary, &["start", cluster.module()]);
    cluster.wait_for(cluster.primary(), "protected", SYNC_PATIENCE);
    assert_eq!(cluster.primary(), primary);
    assert_eq!(NODES.map(|node| marker(&cluster.replica(node)).is_some()), [true, true]);
}

#[test]
fn a_disk_that_was_replaced_is_filled_anew_on_the_operators_word() {
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    let node = other(primary);
    cluster.lab().power(node).unwrap();
    cluster.wait_for_role(primary, &["ALONE"]);
    cluster.lab().start(node).unwrap();
    let directory = directory(&cluster, node);
    empty(&directory);
    fs::write(directory.join("lost"), "found").unwrap();
    cluster.start_daemon(node);
    cluster.until("it is told", PATIENCE, || {
        let heard = cluster.module_status(node).unwrap_or_default()["peer"]["contact"] == "alive";
        heard && shows(&cluster, node, "data-missing")
    });
    let sides = cluster.must(primary, &["heal", cluster.module()]);
    assert!(sides.contains(&format!("{node} has not its data")), "{sides}");
    // Nothing can be filled from a node that does not serve, and nothing is changed by asking.
    cluster.must(primary, &["stop", cluster.module(), "--node", primary]);
    let keep = ["heal", cluster.module(), "--keep", primary];
    let refused = cluster.command(primary, &keep);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("once that one runs the application alone"), "{said}");
    assert!(shows(&cluster, node, "data-missing"));
    cluster.must(primary, &["start", cluster.module(), "--node", primary]);

    cluster.must(primary, &keep);
    cluster.wait_for(cluster.primary(), "protected", SYNC_PATIENCE);
    assert_eq!(cluster.primary(), primary);
    cluster.stop_and_compare();
    let folder = format!("{ROOT}/var/lib/evenkeel/modules/ledger/quarantine");
    let folder = cluster.host(node).path(folder).unwrap();
    let kept = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_to_string(kept.join("files/srv/ledger/lost")).unwrap(), "found");
}

/// As a new disk would be.
fn empty(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is_folder = path.symlink_metadata().unwrap().is_dir();
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.unwrap();
    }
    for name in [MARKER, "trusted.evenkeel.seal"] {
        rustix::fs::removexattr(directory, name).unwrap();
    }
}

fn shows(cluster: &Cluster, node: &str, code: &str) -> bool {
    let status = cluster.module_status(node).unwrap_or_default();
    status["reasons"].as_array().into_iter().flatten().any(|reason| reason["code"] == code)
}

fn directory(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.host(node).path("/srv/ledger").unwrap()
}

fn marker(directory: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::getxattr(directory, MARKER, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn end_daemon(cluster: &Cluster, node: &str) {
    cluster.daemon(node).kill(15).unwrap();
    cluster.daemon(node).wait().unwrap();
}
