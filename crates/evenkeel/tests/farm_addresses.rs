//! A farm with an address of each family that serves TCP and UDP, on real nodes: shares, a drain
//! and a death look the same on each. UDP knows no connections, so a flow goes with its share.
//!
//! Moments are printed and never judged: those are the benchmark's matter.

#![allow(clippy::print_stdout, reason = "the log of a trial is read by people")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use support::applications::succeed;
use support::farm::{ADDRESS, FARM, KEPT, MODULE, PATIENT, Trial, served, until};
use support::{CLIENT, INSIDE, NETWORK};

/// The address of the other family.
const SIXTH: &str = "fd77::60";
const UDP: u16 = 9000;
/// Flows of datagrams for each address.
const FLOWS: usize = 32;
/// After this a datagram counts as lost, and is sent again.
const LOST: Duration = Duration::from_millis(500);

#[test]
fn both_families_and_both_protocols_are_shared_alike_in_directed_delivery() {
    shared_alike("directed");
}

#[test]
fn both_families_and_both_protocols_are_shared_alike_in_multicast_delivery() {
    shared_alike("multicast");
}

fn shared_alike(delivery: &str) {
    let mut trial = begin(delivery);
    trial.even(&FARM, &FARM);
    FARM.iter().for_each(|node| answer(&trial, node));
    let visitors = [trial.visitors(), trial.staying_at(SIXTH, KEPT)];
    let mark = Instant::now();
    for visitors in &visitors {
        assert_eq!(served(visitors, mark, 200).len(), FARM.len(), "all serve");
    }
    let flows = [ADDRESS, SIXTH].map(|address| flows(&trial, address));
    let before = flows.each_ref().map(|flows| who(flows));
    for served in &before {
        assert_eq!(served.iter().collect::<BTreeSet<_>>().len(), FARM.len(), "{served:?}");
    }
    assert_eq!(flows.each_ref().map(|flows| who(flows)), before, "a flow stays where it is");

    let leader = trial.leader();
    let drained = FARM.into_iter().find(|node| *node != leader).unwrap();
    trial.must(drained, &["maintenance", "on", drained]);
    let rest: Vec<&str> = FARM.into_iter().filter(|node| *node != drained).collect();
    trial.even(&rest, &FARM);
    for visitors in &visitors {
        until(&format!("{drained} serves no new clients"), || {
            let since = Instant::now();
            !served(visitors, since, 50).contains_key(drained)
        });
        let tally = visitors.since(mark);
        assert!(tally.broken.is_empty(), "connections broke: {tally:?}");
    }
    only_moved_from(drained, &before, &flows);
    trial.must(drained, &["maintenance", "off", drained]);
    trial.even(&FARM, &FARM);

    let before = flows.each_ref().map(|flows| who(flows));
    let mark = Instant::now();
    trial.kill(drained);
    trial.even(&rest, &rest);
    for visitors in &visitors {
        until("all visitors that stay are with living nodes", || {
            let kept = visitors.kept();
            !kept.contains_key(drained) && kept.values().sum::<usize>() == KEPT
        });
        let broken = visitors.since(mark).broken;
        assert!(broken.keys().all(|node| node == drained), "others' broke: {broken:?}");
    }
    only_moved_from(drained, &before, &flows);
}

fn begin(delivery: &str) -> Trial {
    let more = format!(
        "[[vip]]\naddress = \"{SIXTH}/64\"\ninterface = \"{NETWORK}\"\n\
         [[balance]]\nport = {UDP}\nprotocol = \"udp\"\n\
         [[command]]\nname = \"web6\"\n\
         run = [\"{INSIDE}\", \"web\", \"--listen\", \"[{SIXTH}]:80\"]\n\
         {PATIENT}delivery = \"{delivery}\"\n"
    );
    let trial = Trial::idle("", &more, None);
    for (number, host) in (1..).zip(FARM.into_iter().chain([CLIENT])) {
        let own = format!("fd77::{number}/64");
        let words = ["ip", "-6", "address", "add", &own, "dev", NETWORK, "nodad"];
        succeed(&trial.host(host), &words);
    }
    trial.must(FARM[0], &["start", MODULE]);
    trial
}

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), UDP)
}

/// Has a node answer each datagram with its name, until the test ends.
fn answer(trial: &Trial, node: &'static str) {
    let namespace = trial.host(node).netns().unwrap();
    for address in [ADDRESS, SIXTH] {
        let bind = || UdpSocket::bind(at(address));
        let socket = net::namespace::enter(namespace.as_fd(), bind).unwrap().unwrap();
        thread::spawn(move || {
            let mut datagram = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut datagram) {
                // Whom it does not reach asks again.
                let _ = socket.send_to(node.as_bytes(), from);
            }
        });
    }
}

/// Sockets of the client, each of which is a flow of its own.
fn flows(trial: &Trial, address: &str) -> Vec<UdpSocket> {
    let namespace = trial.host(CLIENT).netns().unwrap();
    let unspecified = if address == SIXTH { "[::]:0" } else { "0.0.0.0:0" };
    let open = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(unspecified)?;
        socket.connect(at(address))?;
        socket.set_read_timeout(Some(LOST))?;
        Ok(socket)
    };
    let open = || (0..FLOWS).map(|_| open()).collect::<io::Result<_>>();
    net::namespace::enter(namespace.as_fd(), open).unwrap().unwrap()
}

/// Who answers each of the flows.
fn who(flows: &[UdpSocket]) -> Vec<String> {
    let ask = |flow: &UdpSocket| {
        let mut answer = [0; 64];
        let mut name = None;
        until_quietly("an answer to a datagram", || {
            // What is still there from an earlier question that came twice.
            flow.set_nonblocking(true).unwrap();
            while flow.recv(&mut answer).is_ok() {}
            flow.set_nonblocking(false).unwrap();
            let _ = flow.send(b"who");
            name = flow.recv(&mut answer).ok().map(|length| answer[..length].to_vec());
            name.is_some()
        });
        String::from_utf8(name.unwrap()).unwrap()
    };
    flows.iter().map(ask).collect()
}

fn until_quietly(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < support::PATIENCE, "{what}: not within {:?}", support::PATIENCE);
    }
}

/// The flows of a node that serves no more have moved, and no others.
fn only_moved_from(node: &str, before: &[Vec<String>; 2], flows: &[Vec<UdpSocket>; 2]) {
    for (before, flows) in before.iter().zip(flows) {
        let after = who(flows);
        let mut moved = BTreeMap::<&str, usize>::new();
        for (was, is) in before.iter().zip(&after) {
            assert_ne!(is, node, "{before:?}, then {after:?}");
            assert!(was == is || was == node, "{before:?}, then {after:?}");
            *moved.entry(was).or_default() += usize::from(was != is);
        }
        println!("flows that moved: {moved:?}");
    }
}
