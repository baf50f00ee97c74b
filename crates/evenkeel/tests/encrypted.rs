//! A cluster with keys: its links are encrypted, and nobody without its keys is spoken with. What
//! travels is looked at by tests of the crate `node`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs;

use node::Authority;
use serde_json::Value;

use self::support::applications::ledger;
use self::support::{Cluster, NODES, PATIENCE, ROOT, SYNC_PATIENCE};

/// Sentences of all that is said to be wrong on a node.
fn reasons(cluster: &Cluster, node: &str) -> String {
    let status = cluster.module_status(node).unwrap_or_default();
    let reasons = status["reasons"].as_array().cloned().unwrap_or_default();
    let sentences = reasons.iter().filter_map(|reason| reason["sentence"].as_str());
    sentences.collect::<Vec<_>>().join("\n")
}

fn protection(cluster: &Cluster, node: &str) -> Value {
    cluster.module_status(node).unwrap()["detail"]["protection"].clone()
}

fn refusal(cluster: &Cluster, node: &str, arguments: &[&str]) -> String {
    let output = cluster.command(node, arguments);
    assert!(!output.status.success());
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn who_has_no_keys_of_the_cluster_is_not_spoken_with() {
    let cluster = Cluster::build(ledger("").with_keys());
    let module = cluster.module();
    let key = |node: &str| {
        cluster.host(node).path(format!("{ROOT}/etc/evenkeel/keys/cluster.key")).unwrap()
    };
    cluster.give_keys(&Authority::new("other").unwrap(), &NODES[1..]);
    // The nodes hear each other all the same: it is the certificates that are looked at here.
    fs::copy(key(NODES[0]), key(NODES[1])).unwrap();
    // A node that is too slow says nothing of certificates.
    cluster.until("a refusal that says why", PATIENCE, || {
        let words = refusal(&cluster, NODES[0], &["start", module]);
        assert!(words.contains("node2 cannot be reached"), "{words}");
        words.contains("invalid peer certificate")
    });
    std::thread::scope(|scope| {
        // The other node's module is started there; now sessions are offered that fail.
        scope.spawn(|| cluster.command(NODES[1], &["start", module, "--node", NODES[1]]));
        cluster.until("the reason is told", PATIENCE, || {
            reasons(&cluster, NODES[0]).contains("invalid peer certificate")
        });
        assert!(cluster.serves(NODES[0]), "the application goes on");
        // Other keys count from the next connection on.
        let keys = key(NODES[1]);
        for file in ["ca.pem", "node.pem", "node.key"] {
            fs::remove_file(keys.with_file_name(file)).unwrap();
        }
        // Once there were keys, nobody is spoken with without them.
        cluster.until("the other reason is told", PATIENCE, || {
            reasons(&cluster, NODES[0]).contains("the node's keys are of no use")
        });
        cluster.give_keys(&Authority::new("test").unwrap(), &NODES);
        cluster.enrol(NODES[0]);
    });
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    assert_eq!(NODES.map(|node| protection(&cluster, node)), ["encrypted"; 2]);
    cluster.stop_and_compare();
}

#[test]
fn what_is_replicated_may_go_in_the_clear_between_nodes_that_have_shown_who_they_are() {
    let cluster = Cluster::protected(ledger("[replication]\nencrypt = false\n").with_keys());
    assert_eq!(NODES.map(|node| protection(&cluster, node)), ["authenticated"; 2]);
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    cluster.nothing_lost(&workload.stop());
    cluster.stop_and_compare();
}
