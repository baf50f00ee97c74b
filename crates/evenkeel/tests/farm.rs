//! A farm of three real nodes under visitors that never pause: who serves whom when a node drains,
//! comes, loses its daemon or dies.
//!
//! Moments are printed and never judged: those are the benchmark's matter.

#![allow(clippy::print_stdout, reason = "the log of a trial is read by people")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lab::web::Visitors;
use lab::{Host, HostSpec, Lab, LabOptions, Process, SpawnSpec};
use model::NodeName;
use node::Authority;
use serde_json::Value;

use support::{BINARY, CLIENT, INSIDE, NETWORK, PATIENCE, ROOT, only_lab, status_of};

const FARM: [&str; 3] = ["node1", "node2", "node3"];
const ADDRESS: &str = "10.77.0.60";
const MODULE: &str = "web";
/// Visitors that keep their connection.
const KEPT: usize = 30;
const LOOK_PAUSE: Duration = Duration::from_millis(20);
const SIGNAL_KILL: i32 = 9;
const SIGNAL_TERM: i32 = 15;

struct Trial {
    lab: Lab,
    daemons: BTreeMap<String, Process>,
    // After the lab, for fields are dropped in order.
    _only: File,
}

impl Trial {
    /// Three nodes and a client; the module is started on all.
    fn start(more: &str) -> Trial {
        Trial::begin(more, None)
    }

    fn begin(more: &str, keys: Option<&Authority>) -> Trial {
        let only = only_lab();
        let mut hosts: Vec<HostSpec> = FARM.into_iter().map(HostSpec::node).collect();
        hosts.push(HostSpec::client(CLIENT));
        let lab = Lab::create(LabOptions {
            name: std::env::var("EVENKEEL_LAB").unwrap_or_else(|_| "tests".to_owned()),
            binary: BINARY.into(),
            networks: vec![NETWORK.to_owned()],
            hosts,
        });
        let lab = lab.unwrap_or_else(|error| panic!("these tests need a lab: {error}"));
        let mut trial = Trial { lab, daemons: BTreeMap::new(), _only: only };
        let nodes = FARM.map(|name| {
            let address = trial.host(name).address(NETWORK).unwrap();
            format!("[[node]]\nname = \"{name}\"\naddresses = {{ {NETWORK} = \"{address}\" }}\n")
        });
        let cluster = format!("cluster = \"tests\"\n{}", nodes.concat());
        let module = format!(
            "module = \"{MODULE}\"\nkind = \"farm\"\n[[vip]]\naddress = \"{ADDRESS}/24\"\n\
             [[balance]]\nport = 80\n[[command]]\nname = \"web\"\n\
             run = [\"{INSIDE}\", \"web\", \"--listen\", \"{ADDRESS}:80\"]\n\
             [[check]]\nname = \"answers\"\nkind = \"tcp\"\naddress = \"{ADDRESS}\"\n\
             port = 80\ninterval = \"100ms\"\n{more}"
        );
        for node in FARM {
            trial.write(node, "etc/evenkeel/cluster.toml", &cluster);
            trial.write(node, "etc/evenkeel/modules/web.toml", &module);
            if let Some(authority) = keys {
                let keys = Path::new(ROOT).join("etc/evenkeel/keys");
                let directory = trial.host(node).path(keys).unwrap();
                authority.furnish(&NodeName::new(node).unwrap(), &directory).unwrap();
            }
            trial.start_daemon(node);
        }
        trial.must(FARM[0], &["start", MODULE]);
        trial
    }

    /// Ends a daemon as systemd does, and starts the next one.
    fn replace_daemon(&mut self, node: &str, visitors: &Visitors) {
        let daemon = self.daemons.remove(node).unwrap();
        daemon.kill(SIGNAL_TERM).unwrap();
        daemon.wait().unwrap();
        let since = Instant::now();
        // They come for longer than any silence that would be noticed.
        served(visitors, since, 60);
        self.start_daemon(node);
    }

    /// What the nodes have told of the farm.
    fn events(&self, node: &str) -> String {
        let words = ["timeout", "60", INSIDE, "--root", ROOT, "events", MODULE];
        let output = self.host(node).run(words).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn host(&self, name: &str) -> Host {
        self.lab.host(name).unwrap()
    }

    fn write(&self, node: &str, path: &str, text: &str) {
        self.host(node).write_file(Path::new(ROOT).join(path), text).unwrap();
    }

    fn start_daemon(&mut self, node: &str) {
        let argv = [INSIDE, "--root", ROOT, "daemon"];
        let daemon = self.host(node).spawn(SpawnSpec::new(argv).log("daemon.log")).unwrap();
        self.daemons.insert(node.to_owned(), daemon);
        until(&format!("an answer of the daemon of {node}"), || self.farm(node).is_some());
    }

    fn must(&self, node: &str, arguments: &[&str]) {
        let words = [&["timeout", "60", INSIDE, "--root", ROOT], arguments].concat();
        let output = self.host(node).run(words).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?} on {node}: {said}");
    }

    fn farm(&self, node: &str) -> Option<Value> {
        let status = status_of(&self.host(node))?;
        Some(status["modules"][MODULE]["farm"].clone()).filter(|farm| !farm.is_null())
    }

    fn leader(&self) -> String {
        let named = self.farm(FARM[0]).and_then(|farm| farm["leader"].as_str().map(str::to_owned));
        named.unwrap()
    }

    /// Buckets of each node, as a node has them.
    fn buckets(&self, node: &str) -> Option<Vec<u64>> {
        let farm = self.farm(node)?;
        let members = farm["members"].as_array()?;
        members.iter().map(|member| member["buckets"].as_u64()).collect()
    }

    /// Waits until these nodes serve all clients in even shares, as each of them sees it.
    fn even(&self, serving: &[&str], seen_by: &[&str]) {
        let each = 256 / serving.len() as u64;
        until(&format!("even shares of {serving:?}"), || {
            seen_by.iter().all(|node| {
                let Some(buckets) = self.buckets(node) else { return false };
                let due = |name: &str| serving.contains(&name);
                FARM.iter().zip(&buckets).all(|(name, count)| {
                    if due(name) { (each..=each + 1).contains(count) } else { *count == 0 }
                })
            })
        });
    }

    fn visitors(&self) -> Visitors {
        self.staying(KEPT)
    }

    /// Visitors of which so many keep their connection.
    fn staying(&self, kept: usize) -> Visitors {
        let address: SocketAddr = format!("{ADDRESS}:80").parse().unwrap();
        let namespace = self.host(CLIENT).netns().unwrap();
        let visitors = Visitors::start(address, kept, Some(namespace)).unwrap();
        until("all visitors that stay are served", || {
            visitors.kept().values().sum::<usize>() == kept
        });
        visitors
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(LOOK_PAUSE);
    }
    println!("{what}: {:.2} s", begin.elapsed().as_secs_f64());
}

/// Waits until so many new visitors have been served since a moment.
fn served(visitors: &Visitors, mark: Instant, count: usize) -> BTreeMap<String, usize> {
    until(&format!("{count} new visitors are served"), || {
        visitors.since(mark).served.values().sum::<usize>() >= count
    });
    visitors.since(mark).served
}

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
        trial.must(drained, &["maintenance", "on", drained]);
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
    let mut trial = Trial::begin("", Some(&Authority::new("tests").unwrap()));
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
    let mut trial = Trial::start("");
    trial.even(&FARM, &FARM);
    let visitors = trial.visitors();
    let mark = Instant::now();
    served(&visitors, mark, 50);
    let leader = trial.leader();
    let lost = FARM.into_iter().find(|node| *node != leader).unwrap();
    trial.lab.kill(lost).unwrap();
    trial.daemons.remove(lost);
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

    trial.lab.kill(&leader).unwrap();
    trial.daemons.remove(&leader);
    let last = rest.into_iter().find(|node| *node != leader).unwrap();
    trial.even(&[last], &[last]);
    let since = Instant::now();
    assert_eq!(served(&visitors, since, 100).keys().collect::<Vec<_>>(), [last]);
    trial.lab.start(lost).unwrap();
    trial.start_daemon(lost);
    trial.even(&[last, lost], &[last, lost]);
}

#[test]
fn a_farm_that_fell_apart_heals_and_says_so() {
    let trial = Trial::start("");
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
    assert!(host.run(["pkill", "-9", "-f", "web --listen"]).unwrap().status.success());
    trial.even(&FARM[..2], &FARM[..2]);
    trial.must(FARM[2], &["start", MODULE, "--node", FARM[2]]);
    trial.even(&FARM, &FARM);
}

#[test]
fn a_farm_and_a_mirror_run_on_the_same_nodes() {
    let trial = Trial::start("");
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
