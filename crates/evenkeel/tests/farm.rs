//! A farm of three real nodes under visitors that never pause: who serves whom when a node drains,
//! comes, loses its daemon or dies.
//!
//! Moments are printed and never judged: those are the benchmark's matter.

#![allow(clippy::print_stdout, reason = "the log of a trial is read by people")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::time::Instant;

use node::Authority;
use serde_json::Value;
use support::applications::succeed;
use support::farm::{ADDRESS, FARM, KEPT, MODULE, PATIENT, Trial, served, until};
use support::{CLIENT, INSIDE, NETWORK, ROOT, status_of};

const SIGNAL_KILL: i32 = 9;

#[test]
fn clients_stay_where_they_are_whoever_drains_comes_or_gets_a_new_daemon() {
    // So long may a daemon be away without being taken for lost, on however slow a machine.
    let mut trial = Trial::start("[farm]\ntimeout = \"10s\"\n");
    trial.even(&FARM, &FARM);
    let visitors = trial.visitors();
    let mark = Instant::now();
    assert_eq!(served(&visitors, mark, 200).len(), 3, "all three serve");

    let leader = trial.leader();
    let other = FARM.into_iter().find(|node| *node != leader).unwrap();
    for drained in [other, &leader] {
        assert_eq!(trial.health(drained), "200");
        trial.must(drained, &["maintenance", "on", drained]);
        assert_eq!(trial.health(drained), "503", "it drains");
        let rest: Vec<&str> = FARM.into_iter().filter(|node| *node != drained).collect();
        trial.even(&rest, &FARM);
        // The kernel of a leader that drains may take a moment longer than its table.
        until(&format!("{drained} serves no new clients"), || {
            let since = Instant::now();
            !served(&visitors, since, 50).contains_key(drained)
        });
        trial.must(drained, &["maintenance", "off", drained]);
        trial.even(&FARM, &FARM);
    }
    assert_ne!(trial.leader(), leader, "a leader that drains is followed by another");

    let leader = trial.leader();
    let before = trial.buckets(&leader);
    let daemon = trial.daemons.remove(&leader).unwrap();
    // It says nothing as it ends, unlike one that is replaced.
    daemon.kill(SIGNAL_KILL).unwrap();
    daemon.wait().unwrap();
    let since = Instant::now();
    served(&visitors, since, 20);
    trial.start_daemon(&leader);
    trial.even(&FARM, &FARM);
    assert_eq!(trial.buckets(&leader), before, "a new daemon changes nothing");
    assert_eq!(trial.leader(), leader);
    let tally = visitors.since(mark);
    assert!(tally.broken.is_empty(), "connections broke: {tally:?}");
    println!("{} new visitors, {} had no answer in time", tally.new, tally.lost);
}

#[test]
fn a_daemon_that_is_replaced_is_missed_by_nobody() {
    let mut trial = Trial::begin("", PATIENT, Some(&Authority::new("tests").unwrap()));
    trial.even(&FARM, &FARM);
    let visitors = trial.staying(2 * KEPT);
    let leader = trial.leader();
    let before = trial.buckets(&leader);
    let mark = Instant::now();
    let other = FARM.into_iter().find(|node| *node != leader).unwrap();
    for node in [other, &leader] {
        trial.replace_daemon(node, &visitors);
        // It serves whom it served, and decides again with the others.
        trial.even(&FARM, &FARM);
        let since = Instant::now();
        served(&visitors, since, 50);
    }
    // All daemons start anew at once.
    let module = "module = \"beside\"\nkind = \"light\"\nnodes = [\"node1\"]\n\
                  [[command]]\nname = \"sleep\"\nrun = [\"/bin/sleep\", \"1000000\"]\n";
    trial.write(other, "etc/evenkeel/modules/beside.toml", module);
    trial.must(other, &["apply"]);
    trial.even(&FARM, &FARM);
    let since = Instant::now();
    served(&visitors, since, 100);
    assert_eq!(trial.buckets(&leader), before, "nobody moved");
    assert_eq!(trial.leader(), leader);
    let tally = visitors.since(mark);
    assert!(tally.broken.is_empty(), "connections broke: {tally:?}");
    for node in FARM {
        let events = trial.events(node);
        assert!(!events.contains("farm-node-lost"), "{node}: {events}");
    }
    println!("{} new visitors, {} had no answer in time", tally.new, tally.lost);
}

#[test]
fn a_node_that_dies_takes_no_connections_with_it_but_its_own() {
    let mut trial = Trial::start(PATIENT);
    trial.even(&FARM, &FARM);
    let visitors = trial.visitors();
    let mark = Instant::now();
    served(&visitors, mark, 50);
    let leader = trial.leader();
    let lost = FARM.into_iter().find(|node| *node != leader).unwrap();
    trial.kill(lost);
    let rest: Vec<&str> = FARM.into_iter().filter(|node| *node != lost).collect();
    trial.even(&rest, &rest);
    until("all visitors that stay are with living nodes", || {
        let kept = visitors.kept();
        !kept.contains_key(lost) && kept.values().sum::<usize>() == KEPT
    });
    let since = Instant::now();
    assert!(!served(&visitors, since, 100).contains_key(lost));
    let broken = visitors.since(mark).broken;
    assert!(broken.keys().all(|node| node == lost), "others' connections broke: {broken:?}");

    let mark = Instant::now();
    trial.kill(&leader);
    let last = rest.into_iter().find(|node| *node != leader).unwrap();
    trial.even(&[last], &[last]);
    let since = Instant::now();
    assert_eq!(served(&visitors, since, 100).keys().collect::<Vec<_>>(), [last]);
    until("all visitors that stay are with the last one", || {
        visitors.kept().get(last) == Some(&KEPT)
    });
    let broken = visitors.since(mark).broken;
    assert!(broken.keys().all(|node| *node == leader), "others' connections broke: {broken:?}");
    trial.lab.start(lost).unwrap();
    trial.start_daemon(lost);
    trial.even(&[last, lost], &[last, lost]);
}

#[test]
fn a_farm_that_fell_apart_heals_and_says_so() {
    let trial = Trial::start(PATIENT);
    trial.even(&FARM, &FARM);
    for other in [FARM[1], FARM[2]] {
        trial.lab.cut_datagrams(FARM[0], other).unwrap();
    }
    trial.even(&[FARM[0]], &[FARM[0]]);
    trial.even(&[FARM[1], FARM[2]], &[FARM[1], FARM[2]]);
    trial.lab.heal().unwrap();
    trial.even(&FARM, &FARM);
    let said = |node: &str| trial.events(node).contains("farm-healed");
    until("it is said that it has healed", || FARM.iter().any(|node| said(node)));
}

#[test]
fn an_application_that_fails_takes_its_node_out_of_the_farm_until_it_is_up() {
    let trial = Trial::start("[failover]\nmax_restarts = 0\n");
    trial.even(&FARM, &FARM);
    let host = trial.host(FARM[2]);
    let noted = format!("{ROOT}/run/evenkeel/{MODULE}.programs.json");
    let noted: Value = serde_json::from_str(&host.read_file(noted).unwrap()).unwrap();
    succeed(&host, &["kill", "-9", &noted[0]["pid"].to_string()]);
    trial.even(&FARM[..2], &FARM[..2]);
    trial.must(FARM[2], &["start", MODULE, "--node", FARM[2]]);
    trial.even(&FARM, &FARM);
}

#[test]
fn an_address_that_a_stranger_has_is_taken_once_the_stranger_has_left() {
    let trial = Trial::start(PATIENT);
    trial.even(&FARM, &FARM);
    trial.must(FARM[0], &["stop", MODULE]);
    nothing_is_left(&trial);
    let stranger = trial.host(CLIENT);
    let change = |what| {
        let address = format!("{ADDRESS}/32");
        succeed(&stranger, &["ip", "address", what, &address, "dev", NETWORK])
    };
    change("add");
    let words = ["timeout", "60", INSIDE, "--root", ROOT, "start", MODULE, "--node", FARM[0]];
    let output = trial.host(FARM[0]).run(words).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    let device = format!("/sys/class/net/{NETWORK}/address");
    let device = succeed(&stranger, &["cat", &device]);
    let who = format!("{ADDRESS} is in use already, by the device with the hardware address");
    assert!(said.contains(&who) && said.contains(device.trim()), "{said}");
    assert!(trial.reasons(FARM[0]).contains(&"address-failed".to_owned()));
    assert_eq!(trial.health(FARM[0]), "503");
    change("del");
    // It goes on by itself.
    trial.even(&FARM[..1], &FARM[..1]);
    until("the reason is gone", || !trial.reasons(FARM[0]).contains(&"address-failed".to_owned()));
    assert_eq!(trial.health(FARM[0]), "200");
}

/// A farm that is stopped leaves neither rules nor its address behind on any node.
fn nothing_is_left(trial: &Trial) {
    for node in FARM {
        until(&format!("{node} is stopped"), || {
            let status = status_of(&trial.host(node)).unwrap_or_default();
            let module = &status["modules"][MODULE];
            module["role"] == "STOP" && module["phase"] == "ready"
        });
        let tables = succeed(&trial.host(node), &["nft", "list", "tables"]);
        assert!(!tables.contains("evenkeel"), "{node}: {tables}");
        let addresses = succeed(&trial.host(node), &["ip", "address"]);
        assert!(!addresses.contains(&ADDRESS.to_string()), "{node}: {addresses}");
    }
}

#[test]
fn a_filter_that_somebody_took_away_is_put_up_again() {
    let trial = Trial::start(PATIENT);
    trial.even(&FARM, &FARM);
    let leader = trial.leader();
    let other = FARM.into_iter().find(|node| *node != leader).unwrap();
    let third = FARM.into_iter().find(|node| *node != leader && *node != other).unwrap();
    // As a restart of a firewall does.
    succeed(&trial.host(other), &["nft", "flush", "ruleset"]);
    trial.must(third, &["maintenance", "on", third]);
    until("the kernel's refusal is told", || {
        trial.events(other).contains("the kernel does not take the shares")
    });
    until("the filter stands again", || {
        !trial.reasons(other).contains(&"farm-filter-failed".to_owned())
    });
    trial.even(&[&leader, other], &FARM);
    succeed(&trial.host(other), &["nft", "list", "table", "netdev", "evenkeel-web"]);
    trial.must(third, &["maintenance", "off", third]);
    trial.even(&FARM, &FARM);
    let visitors = trial.visitors();
    assert_eq!(served(&visitors, Instant::now(), 100).len(), 3, "all three serve");
}

#[test]
fn a_farm_and_a_mirror_run_on_the_same_nodes() {
    let trial = Trial::start(PATIENT);
    trial.even(&FARM, &FARM);
    let mirror = "module = \"shop\"\nkind = \"mirror\"\nnodes = [\"node1\", \"node2\"]\n\
                  replicate = [\"/srv/shop\"]\n";
    for node in FARM {
        trial.host(node).run(["mkdir", "-p", "/srv/shop"]).unwrap();
    }
    trial.write(FARM[0], "etc/evenkeel/modules/shop.toml", mirror);
    trial.must(FARM[0], &["apply"]);
    trial.must(FARM[0], &["start", "shop"]);
    let role = |node: &str| {
        let status = status_of(&trial.host(node)).unwrap_or_default();
        status["modules"]["shop"]["role"].as_str().unwrap_or_default().to_owned()
    };
    until("the mirror is in step", || {
        let roles = [role(FARM[0]), role(FARM[1])];
        roles.contains(&"PRIM".to_owned()) && roles.contains(&"SECOND".to_owned())
    });
    let primary = FARM[..2].iter().find(|node| role(node) == "PRIM").copied().unwrap();
    let other = if primary == FARM[0] { FARM[1] } else { FARM[0] };
    trial.even(&FARM, &FARM);
    // What the one kind does to a node is nothing to the other.
    trial.must(primary, &["stop", MODULE, "--node", primary]);
    let rest: Vec<&str> = FARM.into_iter().filter(|node| *node != primary).collect();
    trial.even(&rest, &rest);
    assert_eq!(role(primary), "PRIM");
    trial.must(primary, &["start", MODULE, "--node", primary]);
    trial.even(&FARM, &FARM);
    trial.must(primary, &["switchover", "shop"]);
    until("the mirror has moved", || role(other) == "PRIM");
    trial.even(&FARM, &FARM);
}
