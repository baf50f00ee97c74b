//! `evenkeel verify`: no false alarm under load, every kind of difference found and named, and
//! mended by `--repair` while the application goes on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use serde_json::Value;

use self::support::applications::ledger;
use self::support::{Cluster, NODES, SYNC_PATIENCE, other};

/// Times that the copies are compared while the application writes.
const ROUNDS: usize = 5;

/// What a verification said, and its exit status.
fn verify(cluster: &Cluster, node: &str, more: &[&str]) -> (Option<i32>, Value) {
    let words = [&["--json", "verify", cluster.module()], more].concat();
    let output = cluster.command(node, &words);
    let said = String::from_utf8(output.stdout).unwrap();
    let reply = serde_json::from_str(&said).unwrap_or_else(|_| {
        panic!("{said} {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code(), reply)
}

#[test]
fn equal_copies_are_found_equal_while_they_change() {
    let cluster = Cluster::protected(ledger(""));
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    for round in 0..ROUNDS {
        // Asked of either node, the one that serves compares.
        let (code, reply) = verify(&cluster, NODES[round % 2], &[]);
        assert_eq!(code, Some(0), "{reply}");
        assert!(reply["data"]["entries"].as_u64().unwrap() > 100, "{reply}");
        assert!(reply["data"]["bytes"].as_u64().unwrap() > 1 << 20, "{reply}");
        cluster.progress(&workload);
    }
    cluster.nothing_lost(&workload.stop());
    cluster.stop_and_compare();
}

/// Makes one difference of each kind on a replica, past everything; what must be said of each.
fn tamper(replica: &Path) -> Vec<(&'static str, &'static str)> {
    let scan = fs::File::options().write(true).open(replica.join("scan.img")).unwrap();
    let before = scan.metadata().unwrap().modified().unwrap();
    scan.write_all_at(b"tampered", 5_000_000).unwrap();
    scan.set_modified(before).unwrap();
    fs::set_permissions(replica.join("private"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(replica.join("statements/7.csv")).unwrap();
    fs::write(replica.join("statements/foreign"), "x").unwrap();
    fs::remove_file(replica.join("first")).unwrap();
    symlink("elsewhere", replica.join("first")).unwrap();
    rustix::fs::setxattr(
        replica.join("statements/8.csv"),
        "user.foreign",
        b"x",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    vec![
        ("/scan.img", "differs in content from"),
        ("/private", "mode 104750 here, 100600 there"),
        ("/statements/7.csv", "is missing on"),
        ("/statements/foreign", "is there on node2 alone"),
        ("/first", "target"),
        ("/statements/8.csv", "extended attributes"),
    ]
}

#[test]
fn every_kind_of_difference_is_named_and_mended() {
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    let secondary = other(primary);
    let expected = tamper(&cluster.replica(secondary));
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let (code, reply) = verify(&cluster, primary, &[]);
    assert_eq!(code, Some(1), "{reply}");
    let told: Vec<&str> =
        reply["data"]["told"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    for (path, how) in &expected {
        let found = told.iter().any(|told| {
            told.strip_prefix(path).is_some_and(|rest| rest.starts_with(' ') && rest.contains(how))
        });
        assert!(found, "{path} {how} is not told: {told:#?}");
    }
    assert!(told.len() <= expected.len() + 2, "besides these only directories differ: {told:#?}");
    let (code, reply) = verify(&cluster, primary, &["--repair"]);
    assert_eq!((code, &reply["data"]["repairing"]), (Some(0), &Value::Bool(true)), "{reply}");
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    let (code, reply) = verify(&cluster, primary, &[]);
    assert_eq!(code, Some(0), "{reply}");
    cluster.progress(&workload);
    cluster.nothing_lost(&workload.stop());
    cluster.stop_and_compare();
}

#[test]
fn without_a_peer_nothing_is_compared_and_it_is_said_why() {
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    cluster.lab().kill(other(primary)).unwrap();
    cluster.wait_for(primary, "alone", SYNC_PATIENCE);
    let (code, reply) = verify(&cluster, primary, &[]);
    assert_eq!(code, Some(4), "{reply}");
    assert!(reply["sentence"].as_str().unwrap().contains("no peer"), "{reply}");
}
