//! Heartbeats of a cluster that has keys: strangers, garbage and what was recorded earlier change
//! nothing and are counted, and a failover goes as ever.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cluster::report::Heartbeat;
use model::{BootId, NodeName};
use serde_json::Value;
use wire::datagram::{DATAGRAM_BYTES_MAX, put_heartbeat, put_sealed};

use self::support::applications::{ledger, succeed};
use self::support::{CLIENT, Cluster, NETWORK, NODES, PATIENCE, SYNC_PATIENCE};

const PORT: u16 = 7620;

fn address(cluster: &Cluster, host: &str) -> IpAddr {
    cluster.host(host).address(NETWORK).unwrap()
}

/// A socket on a host of the lab.
fn socket(cluster: &Cluster, host: &str, at: SocketAddr) -> UdpSocket {
    let namespace = cluster.host(host).netns().unwrap();
    net::namespace::enter(namespace.as_fd(), || UdpSocket::bind(at)).unwrap().unwrap()
}

/// How many datagrams a node has turned away for a reason.
fn turned_away(cluster: &Cluster, node: &str, why: &str) -> u64 {
    let status = cluster.status(node).unwrap_or(Value::Null);
    status["turned_away"][why].as_u64().unwrap_or(0)
}

/// A heartbeat as a node without keys would send it, which says that everything is anew.
fn plain(from: &str) -> Vec<u8> {
    let heartbeat = Heartbeat {
        from: NodeName::new(from).unwrap(),
        boot: BootId(1),
        incarnation: u64::MAX,
        sequence: u64::MAX,
        echo: 1,
        echo_incarnation: 1,
        cluster_digest: 0,
        configuration: model::config::Stand::default(),
        reports: BTreeMap::new(),
    };
    put_heartbeat(&heartbeat).unwrap()
}

#[test]
fn nobody_without_the_key_is_heard_and_a_failover_goes_as_ever() {
    let cluster = Cluster::protected(ledger("").with_keys());
    let target = SocketAddr::new(address(&cluster, NODES[0]), PORT);
    let stranger = socket(&cluster, CLIENT, SocketAddr::new(address(&cluster, CLIENT), 0));
    // From the peer's own address, as somebody would who can forge that.
    let forger = socket(&cluster, NODES[1], SocketAddr::new(address(&cluster, NODES[1]), 0));
    let foreign = put_sealed(&[7; 32], &[7; 200]).unwrap();
    let long = vec![0xff; DATAGRAM_BYTES_MAX + 1];
    for datagram in [&plain(NODES[1]), &foreign, &long, &Vec::new()] {
        for from in [&stranger, &forger] {
            from.send_to(datagram, target).unwrap();
        }
    }
    for (why, count) in [("strangers", 4), ("plain", 1), ("unauthentic", 3)] {
        cluster.until("all of it is counted", PATIENCE, || {
            turned_away(&cluster, NODES[0], why) >= count
        });
    }
    cluster.wait_for(NODES[0], "protected", PATIENCE);
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    cluster.lab().kill(NODES[0]).unwrap();
    cluster.wait_for(NODES[1], "alone", PATIENCE);
    cluster.progress(&workload);
    cluster.boot_node(NODES[0]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    cluster.nothing_lost(&workload.stop());
    cluster.stop_and_compare();
}

/// The cluster's key as a node has it.
fn key(cluster: &Cluster, node: &str) -> String {
    let file = format!("{}/etc/evenkeel/keys/cluster.key", self::support::ROOT);
    cluster.host(node).read_file(file).unwrap()
}

#[test]
fn the_key_is_changed_while_everything_goes_on_or_not_at_all() {
    let cluster = Cluster::protected(ledger("").with_keys());
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let first = key(&cluster, NODES[0]);
    // On the node that does not do it itself.
    cluster.must(NODES[1], &["rotate-key"]);
    let second = key(&cluster, NODES[0]);
    assert_ne!(first, second);
    assert_eq!(second.lines().count(), 1, "the old one is accepted no more");
    assert_eq!(key(&cluster, NODES[1]), second);
    let mut heard = NODES.map(|_| false);
    cluster.until("both hear each other under it", PATIENCE, || {
        for (node, heard) in NODES.into_iter().zip(&mut heard) {
            let status = cluster.status(node).unwrap_or_default();
            let peer = &status["networks"][NETWORK][support::other(node)]["silent_ms"];
            *heard |= peer.as_u64().is_some_and(|silent| silent < 1000);
        }
        heard == [true; 2]
    });
    cluster.wait_for(NODES[0], "protected", PATIENCE);
    cluster.progress(&workload);
    for node in NODES {
        let events = cluster.must(node, &["events"]);
        for code in ["contact-lost", "peer-silent", "control-plane-down", "undecided"] {
            assert!(!events.contains(code), "{node}: {events}");
        }
    }
    cluster.nothing_lost(&workload.stop());
    // Without all nodes nothing is lost, and the next attempt does it.
    cluster.lab().kill(NODES[1]).unwrap();
    let output = cluster.command(NODES[0], &["rotate-key"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(key(&cluster, NODES[0]).starts_with(&second), "it seals as before");
    cluster.boot_node(NODES[1]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    cluster.must(NODES[0], &["rotate-key"]);
    assert_eq!(NODES.map(|node| key(&cluster, node).lines().count()), [1; 2]);
    assert_eq!(key(&cluster, NODES[0]), key(&cluster, NODES[1]));
    cluster.wait_for(NODES[0], "protected", PATIENCE);
}

#[test]
fn what_was_recorded_is_no_sign_of_life_to_a_node_that_starts_anew() {
    let cluster = Cluster::protected(ledger("").with_keys());
    let (ours, theirs) = (address(&cluster, NODES[1]), address(&cluster, NODES[0]));
    // Recorded on the node itself, while its daemon is away and the peer goes on.
    cluster.lab().kill(NODES[1]).unwrap();
    cluster.lab().start(NODES[1]).unwrap();
    let listener = socket(&cluster, NODES[1], SocketAddr::new(ours, PORT));
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut record = || {
        let (length, _) = listener.recv_from(&mut buffer).unwrap();
        buffer[..length].to_vec()
    };
    let recorded: Vec<Vec<u8>> = (0..50).map(|_| record()).collect();
    drop(listener);
    cluster.lab().kill(NODES[0]).unwrap();
    // Somebody takes the dead peer's address and repeats what it said.
    let address = format!("{theirs}/24");
    succeed(&cluster.host(CLIENT), &["ip", "address", "add", &address, "dev", NETWORK]);
    let forger = socket(&cluster, CLIENT, SocketAddr::new(theirs, PORT));
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for datagram in recorded.iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                // Until the daemon listens there is nobody to take it.
                let _ = forger.send_to(datagram, SocketAddr::new(ours, PORT));
                thread::sleep(Duration::from_millis(10));
            }
        });
        let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cluster.start_daemon(NODES[1]);
            cluster.until("it is all turned away", PATIENCE, || {
                turned_away(&cluster, NODES[1], "unanswered") > recorded.len() as u64
            });
            cluster.until("the peer counts as lost", PATIENCE, || {
                let status = cluster.module_status(NODES[1]).unwrap_or_default();
                status["peer"]["contact"] == "lost"
            });
        }));
        ended.store(true, Ordering::Relaxed);
        started.unwrap();
    });
    succeed(&cluster.host(CLIENT), &["ip", "address", "del", &address, "dev", NETWORK]);
    cluster.boot_node(NODES[0]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
}
