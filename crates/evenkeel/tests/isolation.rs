//! A pair without a witness: who is cut off from everything does not go on, the other one does; a
//! landmark that is silent moves nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use self::support::applications::{ledger, succeed};
use self::support::{CLIENT, Cluster, NETWORK, NODES, PATIENCE, ROOT, SYNC_PATIENCE, other};

/// A pair without a witness, whose cluster file ends with `more`.
fn pair(more: &str) -> Cluster {
    let cluster = Cluster::build_with(ledger(""), |hosts| {
        let client = hosts.host(CLIENT).address(NETWORK).unwrap().to_string();
        hosts.without_witness(&more.replace("CLIENT", &client));
        for node in NODES {
            succeed(&hosts.host(node), &["ip", "route", "replace", "default", "via", &client]);
        }
    });
    cluster.must(NODES[0], &["start", cluster.module()]);
    paired(&cluster);
    cluster
}

fn paired(cluster: &Cluster) {
    cluster.until("the pair is together", SYNC_PATIENCE, || {
        let roles = NODES.map(|node| cluster.role(node));
        roles.contains(&"PRIM".to_owned()) && roles.contains(&"SECOND".to_owned())
    });
}

fn shows(cluster: &Cluster, node: &str, code: &str) -> bool {
    let status = cluster.module_status(node).unwrap_or_default();
    status["reasons"].as_array().into_iter().flatten().any(|reason| reason["code"] == code)
}

fn wait_to_show(cluster: &Cluster, node: &str, code: &str) {
    cluster.until(&format!("{node} shows {code}"), PATIENCE, || shows(cluster, node, code));
}

#[test]
fn who_is_cut_off_waits_and_the_other_goes_on() {
    // The gateway is found by the nodes themselves.
    let cluster = pair("");
    for node in NODES {
        cluster.until("the gateway has answered", PATIENCE, || {
            cluster.host(node).read_file(format!("{ROOT}/run/evenkeel/gateways.json")).is_ok()
        });
    }
    for _ in 0..2 {
        let cut_off = cluster.primary();
        cluster.lab().cut_network(cut_off, NETWORK).unwrap();
        cluster.wait_for_role(other(cut_off), &["ALONE"]);
        wait_to_show(&cluster, cut_off, "isolated");
        assert!(!shows(&cluster, other(cut_off), "isolated"));
        cluster.until("it serves", PATIENCE, || cluster.serves(other(cut_off)));
        assert_eq!(cluster.primary(), other(cut_off));
        // A daemon that starts where the gateway is out of reach misses it all the same.
        cluster.daemon(cut_off).kill(9).unwrap();
        cluster.daemon(cut_off).wait().unwrap();
        cluster.start_daemon(cut_off);
        wait_to_show(&cluster, cut_off, "isolated");
        assert_eq!(cluster.primary(), other(cut_off));
        cluster.lab().heal().unwrap();
        paired(&cluster);
    }
    cluster.stop_and_compare();
}

#[test]
fn a_silent_landmark_moves_nothing_and_nobody_goes_on_without_it() {
    // A watchdog that is not there is told, and is no reason not to run.
    let watchdog = "[watchdog]\ndevice = \"/dev/watchdog-none\"\n";
    let cluster = pair(&format!("[isolation]\nping = [\"CLIENT\"]\n{watchdog}"));
    let primary = cluster.primary();
    for node in NODES {
        let watchdog = &cluster.status(node).unwrap()["watchdog"];
        assert_eq!(watchdog["state"], "absent", "{watchdog}");
        assert_eq!(watchdog["reasons"][0]["code"], "watchdog-missing", "{watchdog}");
        assert!(cluster.must(node, &["status"]).contains("watchdog absent"));
        assert!(cluster.must(node, &["why", cluster.module()]).contains("watchdog-missing"));
        assert!(cluster.must(node, &["events"]).contains("watchdog-missing"));
    }
    cluster.lab().cut_network(CLIENT, NETWORK).unwrap();
    for node in NODES {
        wait_to_show(&cluster, node, "landmark-silent");
    }
    assert_eq!(
        NODES.map(|node| cluster.role(node)).map(|role| role == "PRIM"),
        [primary == NODES[0], primary == NODES[1]]
    );
    cluster.lab().kill(primary).unwrap();
    let left = other(primary);
    wait_to_show(&cluster, left, "isolated");
    assert_eq!(cluster.role(left), "WAIT");
    cluster.must(left, &["force-primary", cluster.module(), "--node", left]);
    cluster.wait_for_role(left, &["ALONE"]);
    cluster.lab().heal().unwrap();
    cluster.boot_node(primary);
    paired(&cluster);
    cluster.stop_and_compare();
}
