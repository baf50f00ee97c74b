//! Nodes whose clocks on the wall are hours apart: what depends on them is refused with a word
//! about clocks and changes nothing; what is served, who hears whom and who takes over does not
//! depend on them. That such a node does not join is tested with the other refusals, in `joining`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::process::Output;

use self::support::applications::ledger;
use self::support::{Cluster, NETWORK, NODES, PATIENCE, SYNC_PATIENCE, clock};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Sentences of all that is said to be wrong on a node.
fn reasons(cluster: &Cluster, node: &str) -> String {
    let status = cluster.module_status(node).unwrap_or_default();
    status["reasons"].to_string()
}

fn is_protected(cluster: &Cluster) -> bool {
    cluster.module_status(NODES[0]).is_some_and(|status| status["headline"] == "protected")
}

#[test]
fn clocks_hours_apart_are_told_and_move_nothing() {
    let cluster = Cluster::build(ledger("").with_keys());
    let [one, two] = NODES;
    clock::set(&cluster.hosts, two, "-5h");
    cluster.daemon(two).kill(15).unwrap();
    cluster.daemon(two).wait().unwrap();
    clock::start_daemon(&cluster, two);
    // To the one that is behind, the certificate of the other does not count yet.
    let refusal = text(&cluster.command(one, &["start", cluster.module()]));
    assert!(
        refusal.contains("node2 cannot be reached")
            && refusal.contains("one of both clocks is wrong"),
        "{refusal}"
    );
    std::thread::scope(|scope| {
        let (cluster, start) = (&cluster, ["start", cluster.module(), "--node", two]);
        scope.spawn(move || clock::command(&cluster.hosts, two, &start));
        cluster.until("the reason is told", PATIENCE, || {
            reasons(cluster, one).contains("one of both clocks is wrong")
        });
        assert!(cluster.serves(one), "the application goes on");
        cluster.until("heartbeats are heard, which go by no clock on the wall", PATIENCE, || {
            let status = cluster.status(one).unwrap_or_default();
            status["networks"][NETWORK][two]["silent_ms"].as_u64().is_some_and(|ms| ms < 2000)
        });
        let log = cluster.host(two).log("daemon.log").unwrap();
        let told = log.matches("was turned away").count() as u64;
        let status = cluster.status(two).unwrap();
        let callers = status["turned_away"]["callers"].as_u64();
        assert!(told > 0 && Some(told) <= callers, "{log}\n{status}");
        // The clock is set, five hours too far: certificates count, and all heals by itself.
        clock::set(&cluster.hosts, two, "+5h");
    });
    cluster.wait_for(one, "protected", SYNC_PATIENCE);
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    // What is connected stays so, whatever the clock does.
    let before = cluster.module_status(one).unwrap()["epoch"].clone();
    clock::set(&cluster.hosts, two, "-5h");
    cluster.progress(&workload);
    cluster.until("the pair is protected", PATIENCE, || is_protected(&cluster));
    assert_eq!(cluster.module_status(one).unwrap()["epoch"], before);
    // The witness grants by what was registered, and the nodes wait by a clock that nobody sets.
    cluster.lab().kill(one).unwrap();
    cluster.wait_for_role(two, &["ALONE"]);
    cluster.progress(&workload);
    cluster.boot_node(one);
    cluster.until("the reason is told again", PATIENCE, || {
        reasons(&cluster, two).contains("the clock of this node is behind")
    });
    clock::set(&cluster.hosts, two, "+0h");
    cluster.wait_for(one, "protected", SYNC_PATIENCE);
    cluster.nothing_lost(&workload.stop());
    cluster.stop_and_compare();
}
