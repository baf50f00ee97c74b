//! The built-in ledger under every fault of a node, its daemon and its replicator: whatever was
//! acknowledged stays, two nodes never serve, and what can go on goes on. How long anything takes
//! is not judged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::thread;
use std::time::Duration;

use lab::ledger::Workload;
use model::{ModuleName, NodeName};
use wire::control::Verb;

use self::support::applications::{ledger, succeed};
use self::support::observer::Observer;
use self::support::{Cluster, NETWORK, NODES, PATIENCE, SYNC_PATIENCE, WITNESS, ask, other};

/// First number of transactions that are offered to a node directly.
const DIRECT: u64 = 1_000_000_000;
const SIGNAL_KILL: i32 = 9;

/// A protected cluster under load.
struct Run {
    cluster: Cluster,
    observer: Observer,
    workload: Workload,
}

impl Run {
    fn start() -> Run {
        Run::over(Cluster::protected(ledger("")), 1)
    }

    /// With a client that begins at transaction `first`.
    fn over(cluster: Cluster, first: u64) -> Run {
        let observer = Observer::start(&cluster);
        let workload = cluster.workload(first);
        cluster.progress(&workload);
        // On a busy machine the first look may take longer than many transactions.
        cluster.until("a primary was seen", PATIENCE, || observer.has_seen_one());
        Run { cluster, observer, workload }
    }

    /// The pair is protected, nothing is lost, the replicas are identical.
    fn finish(self) {
        self.cluster.progress(&self.workload);
        self.cluster.wait_for(self.cluster.primary(), "protected", SYNC_PATIENCE);
        let acknowledged = self.workload.stop();
        self.cluster.nothing_lost(&acknowledged);
        self.cluster.books_balance();
        self.cluster.stop_and_compare();
        self.observer.finish();
    }
}

/// Pids on a node whose command line contains all these words, by the words after the program.
fn pids(cluster: &Cluster, node: &str, pattern: &str) -> Vec<String> {
    let output = cluster.host(node).run(["pgrep", "-f", "-x", pattern]).unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

fn replicator(cluster: &Cluster, node: &str) -> String {
    let found = pids(cluster, node, "[^ ]*evenkeel .*replicator ledger .*");
    assert_eq!(found.len(), 1, "one replicator runs on {node}, not {found:?}");
    found[0].clone()
}

fn application(cluster: &Cluster, node: &str) -> String {
    let found = pids(cluster, node, "[^ ]*evenkeel ledger --data .*");
    assert_eq!(found.len(), 1, "one ledger runs on {node}, not {found:?}");
    found[0].clone()
}

#[test]
fn a_killed_primary_is_replaced_and_returns() {
    let run = Run::start();
    let primary = run.cluster.primary();
    run.cluster.lab().kill(primary).unwrap();
    run.cluster.wait_for(other(primary), "alone", PATIENCE);
    run.cluster.progress(&run.workload);
    run.cluster.boot_node(primary);
    run.cluster.wait_for_role(primary, &["SECOND"]);
    assert_eq!(run.cluster.primary(), other(primary), "a returning node disturbs nobody");
    run.finish();
}

#[test]
fn a_killed_secondary_disturbs_nobody_and_a_copy_is_read_only() {
    let run = Run::start();
    let primary = run.cluster.primary();
    let secondary = other(primary);
    let write = run.cluster.host(secondary).run(["touch", "/srv/ledger/intruder"]).unwrap();
    let said = String::from_utf8_lossy(&write.stderr);
    assert!(!write.status.success() && said.contains("Read-only"), "{said}");
    run.cluster.lab().kill(secondary).unwrap();
    run.cluster.wait_for(primary, "alone", PATIENCE);
    run.cluster.progress(&run.workload);
    run.cluster.boot_node(secondary);
    run.cluster.wait_for_role(secondary, &["SECOND"]);
    assert_eq!(run.cluster.primary(), primary);
    run.finish();
}

#[test]
fn a_frozen_primary_acknowledges_nothing_once_it_thaws() {
    let cluster = Cluster::protected(ledger(""));
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    let survivor = other(primary);
    cluster.transfer_at(primary, DIRECT).unwrap();
    cluster.lab().freeze(primary).unwrap();
    cluster.wait_for(survivor, "alone", PATIENCE);
    cluster.progress(&workload);
    cluster.lab().thaw(primary).unwrap();
    // Until it knows that it is not primary any more; whatever it says OK to has to be kept.
    let mut acknowledged = vec![DIRECT];
    let mut next = DIRECT;
    cluster.until("the thawed node follows", SYNC_PATIENCE, || {
        next += 1;
        if cluster.transfer_at(primary, next).is_ok() {
            acknowledged.push(next);
        }
        cluster.role(primary) == "SECOND"
    });
    assert_eq!(acknowledged, [DIRECT], "the thawed node acknowledges as if it were primary");
    assert_eq!(cluster.primary(), survivor);
    assert!(!cluster.holds_address(primary), "the thawed node holds the address");
    cluster.nothing_lost(&acknowledged);
    let observer = Observer::start(&cluster);
    Run { cluster, observer, workload }.finish();
}

#[test]
fn after_the_power_of_both_nodes_everything_acknowledged_is_there() {
    let mut cluster = Cluster::protected(ledger(""));
    let mut acknowledged: Vec<u64> = Vec::new();
    for primary_first in [true, false] {
        let run = Run::over(cluster, acknowledged.last().unwrap_or(&0) + 1);
        let primary = run.cluster.primary();
        for node in [primary, other(primary)] {
            run.cluster.lab().power(node).unwrap();
        }
        acknowledged.extend(run.workload.stop());
        run.observer.finish();
        cluster = run.cluster;
        let first = if primary_first { primary } else { other(primary) };
        cluster.boot_node(first);
        cluster.boot_node(other(first));
        cluster.wait_for(first, "protected", SYNC_PATIENCE);
        cluster.nothing_lost(&acknowledged);
    }
    Run::over(cluster, acknowledged.last().unwrap() + 1).finish();
}

#[test]
fn a_secondary_killed_in_its_first_sync_starts_again() {
    let cluster = Cluster::build_with(ledger(""), |hosts| {
        // Enough that it cannot be over between two looks.
        let random = "head -c 600M /dev/urandom > /srv/ledger/archive";
        succeed(&hosts.host(NODES[0]), &["sh", "-c", random]);
    });
    // Neither start can be waited for here: the second one's node will die.
    let start = |node: &str| {
        let module = ModuleName::new(cluster.module()).unwrap();
        let name = NodeName::new(node).unwrap();
        let host = cluster.host(node);
        thread::spawn(move || ask(&host, Verb::Start { module, node: Some(name) }))
    };
    let starts = NODES.map(start);
    cluster.until("the sync runs", PATIENCE, || {
        let status = cluster.module_status(NODES[0]).unwrap_or_default();
        status["detail"]["progress"]["running"] == true
    });
    cluster.lab().kill(NODES[1]).unwrap();
    for start in starts {
        // What it answers depends on the moment.
        let _ = start.join().unwrap();
    }
    let run = Run::over(cluster, 1);
    run.cluster.wait_for(NODES[0], "alone", PATIENCE);
    run.cluster.boot_node(NODES[1]);
    run.cluster.wait_for_role(NODES[1], &["SECOND"]);
    assert_eq!(run.cluster.primary(), NODES[0]);
    run.finish();
}

#[test]
fn a_frozen_secondary_disturbs_nobody_for_long_and_rejoins() {
    let run = Run::start();
    let primary = run.cluster.primary();
    let secondary = other(primary);
    run.cluster.lab().freeze(secondary).unwrap();
    run.cluster.wait_for(primary, "alone", PATIENCE);
    run.cluster.progress(&run.workload);
    run.cluster.lab().thaw(secondary).unwrap();
    run.cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    assert_eq!(run.cluster.primary(), primary);
    run.finish();
}

#[test]
fn a_primary_without_network_stops_serving() {
    let run = Run::start();
    let primary = run.cluster.primary();
    run.cluster.lab().cut_network(primary, NETWORK).unwrap();
    run.cluster.wait_for(other(primary), "alone", PATIENCE);
    run.cluster.progress(&run.workload);
    run.cluster.until("the old primary has let go", PATIENCE, || {
        !run.cluster.serves(primary) && !run.cluster.holds_address(primary)
    });
    run.cluster.lab().heal().unwrap();
    run.cluster.wait_for_role(primary, &["SECOND"]);
    assert_eq!(run.cluster.primary(), other(primary));
    run.finish();
}

#[test]
fn the_loss_of_the_witness_alone_changes_nothing() {
    let run = Run::start();
    let primary = run.cluster.primary();
    run.cluster.lab().freeze(WITNESS).unwrap();
    run.cluster.must(primary, &["switchover", run.cluster.module()]);
    assert_eq!(run.cluster.primary(), other(primary));
    run.cluster.progress(&run.workload);
    run.cluster.lab().thaw(WITNESS).unwrap();
    run.cluster.lab().kill(other(primary)).unwrap();
    run.cluster.wait_for(primary, "alone", PATIENCE);
    run.cluster.progress(&run.workload);
    run.cluster.boot_node(other(primary));
    run.cluster.wait_for_role(other(primary), &["SECOND"]);
    run.finish();
}

#[test]
fn a_primary_that_loses_its_replicator_and_the_keeper_of_that_fails_closed() {
    let run = Run::start();
    let primary = run.cluster.primary();
    let pid = replicator(&run.cluster, primary);
    let keepers = pids(&run.cluster, primary, "[^ ]*evenkeel .*keeper ledger .*");
    assert_eq!(keepers.len(), 1, "one keeper runs on {primary}, not {keepers:?}");
    // Without its keeper it goes on, and says that the next death is the last.
    succeed(&run.cluster.host(primary), &["kill", "-9", &keepers[0]]);
    run.cluster.until("the loss of the keeper is told", PATIENCE, || {
        let events = run.cluster.must(primary, &["events", "--json"]);
        events.contains("keeper-ended")
    });
    run.cluster.progress(&run.workload);
    succeed(&run.cluster.host(primary), &["kill", "-9", &pid]);
    run.cluster.until("the peer takes over", PATIENCE, || {
        run.cluster.serves(other(primary)) && !run.cluster.serves(primary)
    });
    run.cluster.progress(&run.workload);
    run.cluster.wait_for_role(primary, &["SECOND", "WAIT"]);
    assert!(!run.cluster.holds_address(primary));
    if run.cluster.role(primary) == "WAIT" {
        let why = run.cluster.must(primary, &["why", run.cluster.module()]);
        assert!(!why.trim().is_empty(), "a node that waits says why");
    }
    run.finish();
}

#[test]
fn a_killed_replicator_of_the_secondary_is_replaced() {
    let run = Run::start();
    let primary = run.cluster.primary();
    let pid = replicator(&run.cluster, other(primary));
    succeed(&run.cluster.host(other(primary)), &["kill", "-9", &pid]);
    run.cluster.until("another replicator runs", PATIENCE, || {
        let found = pids(&run.cluster, other(primary), "[^ ]*evenkeel .*replicator ledger .*");
        found.len() == 1 && found[0] != pid
    });
    run.cluster.progress(&run.workload);
    run.cluster.wait_for_role(other(primary), &["SECOND"]);
    assert_eq!(run.cluster.primary(), primary);
    run.finish();
}

#[test]
fn a_daemon_that_dies_takes_nothing_with_it() {
    let run = Run::start();
    let primary = run.cluster.primary();
    let before = application(&run.cluster, primary);
    for node in [primary, other(primary)] {
        let daemon = run.cluster.daemon(node);
        daemon.kill(SIGNAL_KILL).unwrap();
        daemon.wait().unwrap();
        run.cluster.progress(&run.workload);
        run.cluster.start_daemon(node);
        run.cluster.until("protected as before", Duration::from_secs(60), || {
            run.cluster.serves(primary) && run.cluster.role(other(primary)) == "SECOND"
        });
        assert!(run.cluster.holds_address(primary));
        assert_eq!(application(&run.cluster, primary), before, "the application was restarted");
    }
    run.finish();
}
