//! A pair without a witness, each of which can have the other one switched off. The test is the
//! power switch: a node's command asks it by a file, and waits for its answer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use self::support::applications::ledger;
use self::support::{Cluster, NODES, PATIENCE, SYNC_PATIENCE, other};

/// Asks whom to switch off, waits for the answer, and succeeds if that is yes.
const COMMAND: &str = "cd /mnt/state; rm -f answer; echo $EVENKEEL_PEER > asked; \
                       until test -s answer; do sleep 0.05; done; rm asked; cat answer; \
                       grep -q yes answer";

fn pair() -> Cluster {
    let fence = format!("[fence]\nexec = [\"/bin/sh\", \"-c\", \"{COMMAND}\"]\n");
    let cluster = Cluster::build_with(ledger(""), |hosts| hosts.without_witness(&fence));
    cluster.must(NODES[0], &["start", cluster.module()]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    cluster
}

fn shows(cluster: &Cluster, node: &str, code: &str) -> Option<serde_json::Value> {
    let status = cluster.module_status(node)?;
    status["reasons"].as_array()?.iter().find(|reason| reason["code"] == code).cloned()
}

/// Waits until a node asks to have its peer switched off.
fn asked(cluster: &Cluster, node: &str) {
    cluster.until(&format!("{node} asks"), PATIENCE, || {
        let asked = cluster.host(node).read_file("/mnt/state/asked").unwrap_or_default();
        asked.trim() == other(node)
    });
}

fn answer(cluster: &Cluster, node: &str, answer: &str) {
    cluster.host(node).write_file("/mnt/state/answer", format!("{answer}\n")).unwrap();
}

#[test]
fn who_has_switched_its_peer_off_goes_on_and_nobody_else() {
    let cluster = pair();
    let (first, second) = (cluster.primary(), other(cluster.primary()));
    cluster.lab().cut(first, second).unwrap();
    for node in NODES {
        asked(&cluster, node);
    }
    assert_eq!(NODES.map(|node| cluster.role(node) == "ALONE"), [false, false]);
    cluster.lab().power(second).unwrap();
    answer(&cluster, first, "yes");
    cluster.wait_for_role(first, &["ALONE"]);
    cluster.until("it serves", PATIENCE, || cluster.serves(first));
    // Switched on while the other one is not heard, it does not go on: it was not watching.
    cluster.boot_node(second);
    cluster.until("it says why it waits", PATIENCE, || {
        ["crashed-copy", "no-witness"].iter().any(|code| shows(&cluster, second, code).is_some())
    });
    assert_eq!(cluster.role(second), "WAIT");
    cluster.lab().heal().unwrap();
    cluster.wait_for(first, "protected", SYNC_PATIENCE);

    // The command fails: nobody goes on, and what it said is told.
    cluster.lab().kill(first).unwrap();
    asked(&cluster, second);
    answer(&cluster, second, "no such switch");
    cluster.until("it says that the command failed", PATIENCE, || {
        let reason = shows(&cluster, second, "hold-off-failed").unwrap_or_default();
        reason["evidence"].to_string().contains("no such switch")
    });
    assert_eq!(cluster.role(second), "WAIT");
    // It is tried again by itself.
    asked(&cluster, second);
    answer(&cluster, second, "yes");
    cluster.wait_for_role(second, &["ALONE"]);
    cluster.boot_node(first);
    cluster.wait_for(second, "protected", SYNC_PATIENCE);
    cluster.stop_and_compare();
}
