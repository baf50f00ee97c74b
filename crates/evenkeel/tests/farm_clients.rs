//! Farms with `affinity = "client-ip"`: many clients are spread as the shares are, and each of them
//! always meets the same node.

#![allow(clippy::print_stdout, reason = "the log of a trial is read by people")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

use support::PATIENCE;
use support::farm::{ADDRESS, FARM, PATIENT, Trial};
use support::{CLIENT, NETWORK};

const BY_CLIENT: &str = "affinity = \"client-ip\"\n";
/// Connections of each of many clients.
const EACH: usize = 3;
/// Connections of a client that is faithful.
const FAITHFUL: usize = 1000;
/// Percent of all clients by which a node's may differ from its share.
const SPREAD: f64 = 5.0;
const SIGNAL_TERM: i32 = 15;

#[test]
fn two_hundred_clients_are_spread_as_the_shares_are_and_stay_where_they_are() {
    let trial = Trial::begin(BY_CLIENT, PATIENT, None);
    trial.even(&FARM, &FARM);
    // All that is left of the network, but for hosts, switch and the farm's own address.
    let clients: Vec<Ipv4Addr> =
        (15..60).chain(61..216).map(|last| Ipv4Addr::new(10, 77, 0, last)).collect();
    assert_eq!(clients.len(), 200);
    let add = |client: &Ipv4Addr| format!("addr add {client}/32 dev {NETWORK}\n");
    let batch: String = clients.iter().map(add).collect();
    let words = ["ip", "-batch", "-"];
    let output = trial.host(CLIENT).run_with_input(words, batch.as_bytes()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut spread: BTreeMap<String, usize> = BTreeMap::new();
    for client in &clients {
        let served = visits(&trial, Some(*client), EACH);
        assert_eq!(served.len(), 1, "{client} met several nodes: {served:?}");
        *spread.entry(served.into_keys().next().unwrap()).or_default() += 1;
    }
    println!("clients: {spread:?}");
    for (node, buckets) in FARM.iter().zip(trial.buckets(FARM[0]).unwrap()) {
        let due = buckets as f64 * 100.0 / 256.0;
        let has = *spread.get(*node).unwrap() as f64 * 100.0 / clients.len() as f64;
        assert!((has - due).abs() <= SPREAD, "{node} has {has:.1} % instead of {due:.1} %");
    }
}

#[test]
fn one_client_meets_the_same_node_a_thousand_times_whoever_gets_a_new_daemon() {
    let mut trial = Trial::begin(BY_CLIENT, PATIENT, None);
    trial.even(&FARM, &FARM);
    let mut served: BTreeMap<String, usize> = BTreeMap::new();
    let mut visit = |trial: &Trial| {
        for (node, count) in visits(trial, None, FAITHFUL / 8) {
            *served.entry(node).or_default() += count;
        }
    };
    for node in FARM {
        visit(&trial);
        let daemon = trial.daemons.remove(node).unwrap();
        daemon.kill(SIGNAL_TERM).unwrap();
        daemon.wait().unwrap();
        visit(&trial);
        trial.start_daemon(node);
    }
    visit(&trial);
    visit(&trial);
    println!("connections: {served:?}");
    if served.len() != 1 {
        FARM.iter().for_each(|node| println!("{node}:\n{}", trial.events(node)));
    }
    assert_eq!(served.into_values().collect::<Vec<_>>(), [FAITHFUL], "all by one node");
}

/// Connects so many times, one after the other, and tells who answered how often.
fn visits(trial: &Trial, from: Option<Ipv4Addr>, count: usize) -> BTreeMap<String, usize> {
    let namespace = trial.host(CLIENT).netns().unwrap();
    let come = || {
        let mut served: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..count {
            *served.entry(visit(from)).or_default() += 1;
        }
        served
    };
    net::namespace::enter(namespace.as_fd(), come).unwrap()
}

fn visit(from: Option<Ipv4Addr>) -> String {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    for what in [sockopt::Timeout::Send, sockopt::Timeout::Recv] {
        sockopt::set_socket_timeout(&socket, what, Some(PATIENCE)).unwrap();
    }
    if let Some(from) = from {
        bind(&socket, &SocketAddrV4::new(from, 0)).unwrap();
    }
    connect(&socket, &SocketAddrV4::new(ADDRESS.parse().unwrap(), 80)).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().last().unwrap().to_owned()
}
