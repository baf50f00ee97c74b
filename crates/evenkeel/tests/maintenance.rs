//! What is left to the operator, with real nodes and a client that goes on writing: maintenance of
//! a node, and a pause. The rules are told by the scenarios.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use self::support::applications::ledger;
use self::support::{Cluster, NODES, PATIENCE, SYNC_PATIENCE, other};

const USAGE: i32 = 2;

fn shows(cluster: &Cluster, node: &str, code: &str) -> bool {
    let status = cluster.module_status(node).unwrap_or_default();
    status["reasons"].as_array().into_iter().flatten().any(|reason| reason["code"] == code)
}

#[test]
fn a_node_that_is_worked_on_hands_over_and_gets_nothing_back() {
    let cluster = Cluster::protected(ledger(""));
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    let survivor = other(primary);

    // From the other node, which passes it on.
    let said = cluster.must(survivor, &["maintenance", "on", primary, "--for", "1h"]);
    assert!(said.contains("in maintenance for 1 h, and does not run ledger"), "{said}");
    assert_eq!(cluster.primary(), survivor);
    cluster.until("the peer tells it", PATIENCE, || shows(&cluster, survivor, "peer-maintained"));
    assert!(shows(&cluster, primary, "maintenance"));
    let why = cluster.must(primary, &["why", "ledger"]);
    assert!(why.contains("it ends in 1 h") || why.contains("it ends in 60 min"), "{why}");

    // It outlasts the daemon.
    cluster.daemon(primary).kill(15).unwrap();
    cluster.daemon(primary).wait().unwrap();
    cluster.start_daemon(primary);
    cluster.until("it is remembered", PATIENCE, || shows(&cluster, primary, "maintenance"));

    cluster.must(primary, &["maintenance", "off", primary]);
    cluster.wait_for(survivor, "protected", SYNC_PATIENCE);
    assert_eq!(cluster.primary(), survivor, "nothing moves back");
    cluster.progress(&workload);
    let ids = workload.stop();
    cluster.nothing_lost(&ids);
    cluster.stop_and_compare();
}

#[test]
fn nobody_takes_over_while_that_is_paused_and_the_operators_word_ends_it() {
    let cluster = Cluster::protected(ledger(""));
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    let survivor = other(primary);
    cluster.must(survivor, &["pause", "ledger", "--for", "1h"]);
    for node in NODES {
        cluster.until("it is shown", PATIENCE, || shows(&cluster, node, "paused"));
    }
    cluster.lab().kill(primary).unwrap();
    cluster.until("it waits", PATIENCE, || shows(&cluster, survivor, "waits-for-operator"));
    assert!(!cluster.serves(survivor) && !cluster.holds_address(survivor));
    cluster.must(survivor, &["start", "ledger", "--node", survivor]);
    assert!(cluster.serves(survivor));
    cluster.progress(&workload);
    cluster.boot_node(primary);
    cluster.wait_for_role(primary, &["SECOND"]);
    cluster.must(primary, &["resume", "ledger"]);
    cluster.wait_for(survivor, "protected", SYNC_PATIENCE);
    let ids = workload.stop();
    cluster.nothing_lost(&ids);
    cluster.stop_and_compare();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let cluster = Cluster::protected(ledger(""));
    let node = cluster.primary();
    for wrong in [
        &["maintenance", "on", "node9"][..],
        &["maintenance", "on", node, "--for", "0s"],
        &["pause", "ledger", "--for", "31d"],
        &["pause", "no-such-module"],
        &["resume", "ledger", "--node", "node9"],
    ] {
        let output = cluster.command(node, wrong);
        assert_eq!(output.status.code(), Some(USAGE), "{wrong:?}: {output:?}");
    }
    assert!(!shows(&cluster, node, "paused") && !shows(&cluster, node, "maintenance"));
    cluster.wait_for(node, "protected", PATIENCE);
}
