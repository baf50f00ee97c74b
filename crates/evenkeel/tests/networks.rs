//! Nodes with two networks: the loss of one of them is told and costs neither role nor writes, that
//! of both is a cut. How long it takes until replication goes by the other one is not judged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use self::support::applications::ledger;
use self::support::{Cluster, NETWORK, NODES, PATIENCE, ROOT, SYNC_PATIENCE, other, status_of};

/// The second network.
const SECOND: &str = "lan1";

fn pair() -> Cluster {
    let cluster = Cluster::build_on(&[NETWORK, SECOND], ledger(""), |hosts| {
        let addresses = NODES.map(|node| {
            let of = |network| hosts.host(node).address(network).unwrap();
            (of(NETWORK), of(SECOND))
        });
        for node in NODES {
            let file = hosts.host(node).read_file(format!("{ROOT}/etc/evenkeel/cluster.toml"));
            let (name, nodes) = file.as_ref().unwrap().split_once('\n').unwrap();
            let networks =
                [NETWORK, SECOND].map(|name| format!("[[network]]\nname = \"{name}\"\n"));
            let mut file = format!("{name}\n{}{nodes}", networks.concat());
            for (first, second) in addresses {
                let one = format!("{{ {NETWORK} = \"{first}\" }}");
                assert!(file.contains(&one), "{file}");
                let both = format!("{{ {NETWORK} = \"{first}\", {SECOND} = \"{second}\" }}");
                file = file.replace(&one, &both);
            }
            hosts.write(node, "etc/evenkeel/cluster.toml", &file);
        }
    });
    cluster.must(NODES[0], &["start", cluster.module()]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    cluster
}

/// The networks that a node tells to be silent.
fn silent(cluster: &Cluster, node: &str) -> Vec<String> {
    let status = status_of(&cluster.host(node)).unwrap_or_default();
    let reasons = status["network_reasons"].as_array().cloned().unwrap_or_default();
    let silent = reasons.iter().filter(|reason| reason["code"] == "network-silent");
    silent.map(|reason| reason["sentence"].as_str().unwrap().to_owned()).collect()
}

fn told(cluster: &Cluster, network: &str) {
    cluster.until(&format!("the silence on {network} is told"), PATIENCE, || {
        NODES.iter().all(|node| {
            let said = silent(cluster, node);
            said.len() == 1 && said[0].contains(&format!("the network {network},"))
        })
    });
}

fn nothing_told(cluster: &Cluster) {
    cluster.until("no network is silent", PATIENCE, || {
        NODES.iter().all(|node| silent(cluster, node).is_empty())
    });
}

fn epoch(cluster: &Cluster, node: &str) -> String {
    cluster.module_status(node).unwrap()["epoch"].to_string()
}

#[test]
fn the_loss_of_one_of_two_networks_costs_neither_role_nor_writes() {
    let cluster = pair();
    nothing_told(&cluster);
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    let before = epoch(&cluster, primary);
    assert_ne!(before, "null");
    for network in [SECOND, NETWORK] {
        // The clients and the witness reach the nodes by the first one, so one node loses it alone.
        let secondary = other(primary);
        cluster.lab().cut_network(secondary, network).unwrap();
        told(&cluster, network);
        cluster.progress(&workload);
        assert_eq!(
            (cluster.role(primary), cluster.role(secondary)),
            ("PRIM".into(), "SECOND".into())
        );
        let text = cluster.must(primary, &["status"]);
        assert!(text.contains("network-silent") && text.contains("links 1/2"), "{text}");
        let why = cluster.must(primary, &["why", cluster.module()]);
        assert!(why.contains("and its machine") && why.contains("network-silent"), "{why}");
        cluster.lab().restore_network(secondary, network).unwrap();
        nothing_told(&cluster);
        cluster.progress(&workload);
    }
    assert_eq!(epoch(&cluster, primary), before, "it was never alone");
    // Where the silent one was in use, it was left before the link was found broken.
    let log = format!("{ROOT}/var/lib/evenkeel/modules/ledger/replicator.log");
    let log = cluster.host(primary).read_file(log).unwrap();
    assert_eq!(log.matches("the link is to go another way").count(), 1, "{log}");
    let events = cluster.must(primary, &["events"]);
    for code in ["network-silent", "network-heard"] {
        assert_eq!(events.matches(&format!(" {code}: ")).count(), 2, "{code} in {events}");
    }
    // Both at once cut the nodes off from each other, which their networks are not blamed for.
    let secondary = other(primary);
    cluster.lab().cut_network(secondary, SECOND).unwrap();
    cluster.lab().cut_network(secondary, NETWORK).unwrap();
    cluster.until("the primary is alone", PATIENCE, || cluster.role(primary) == "ALONE");
    cluster.progress(&workload);
    for network in [SECOND, NETWORK] {
        cluster.lab().restore_network(secondary, network).unwrap();
    }
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    cluster.books_balance();
    cluster.stop_and_compare();
}
