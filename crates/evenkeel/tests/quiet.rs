//! Nodes with a timeout of half a second, on a machine that has ten times more to do than it can:
//! nobody may be taken for lost. A soak, for only time shows it: `cargo xtask soak quiet`.
//!
//! The load runs on the nodes themselves, beside their daemons, unless `EVENKEEL_LOAD=elsewhere`
//! says that something else gives it. What was heard too late is counted and printed; judged is
//! that the load was there and that nothing happened. `EVENKEEL_MINUTES` says for how long.

#![allow(clippy::print_stdout, reason = "the soak reads the figures")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::env;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use lab::{Host, SpawnSpec};
use serde_json::{Value, json};
use wire::control::Verb;

use self::support::applications::ledger;
use self::support::farm::{FARM, Trial, until};
use self::support::{Cluster, NETWORK, NODES, SYNC_PATIENCE, ask, other};

/// The module's timeout.
const TIMEOUT: &str = "[failover]\ntimeout = \"500ms\"\n";
/// Busy processes on each node: together a load of 20.
const BUSY: &str = "10";
/// The nodes themselves make the machine busy.
const BY_NODES: &str = "nodes";
/// The load average must have come up to this; it lags behind by its nature.
const LOAD_WANTED: f64 = 20.0;
/// And must not fall below this while it is looked at.
const LOAD_KEPT: f64 = 18.0;
/// How long it may take to get there.
const LOAD_PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// What was seen in all looks.
#[derive(Default)]
struct Seen {
    looks: u64,
    /// Looks that found a node which did not count the other as alive.
    not_alive: u64,
    /// Looks that a daemon did not answer.
    unanswered: u64,
    load_least: f64,
}

#[test]
#[ignore = "a soak, which `cargo xtask soak quiet` runs"]
fn under_load_nobody_is_taken_for_lost() {
    let minutes: u64 = env::var("EVENKEEL_MINUTES").map_or(1, |text| text.parse().unwrap());
    let cluster = Cluster::protected(ledger(TIMEOUT));
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    NODES.into_iter().for_each(|node| keep_busy(&cluster.host(node)));
    await_load();
    let (mark, before) = (Instant::now(), NODES.map(|node| events(&cluster, node)));
    // What came late while the pair was formed is of no interest here.
    let late = late(&cluster);
    let seen = watch(&cluster, Duration::from_secs(minutes * 60));
    let outage = workload.outages_since(mark).length;
    println!(
        "SOAK {}",
        json!({
            "minutes": minutes, "load": giver(), "load_average_least": seen.load_least,
            "looks": seen.looks, "not_alive": seen.not_alive, "unanswered": seen.unanswered,
            "heartbeats": NODES.map(|node| status(&cluster, node)["heartbeats"].clone()),
            "late": self::late(&cluster) - late,
            "longest_silence_ms": NODES.map(|node| heard(&cluster, node, "longest_silence_ms")),
            "longest_outage_ms": u64::try_from(outage.as_millis()).unwrap(),
            "acknowledged": workload.count(),
        })
    );
    assert!(seen.load_least >= LOAD_KEPT, "the load went away: {}", seen.load_least);
    assert_eq!(NODES.map(|node| events(&cluster, node)), before, "nothing is worth telling");
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    cluster.nothing_lost(&workload.stop());
}

fn watch(cluster: &Cluster, time: Duration) -> Seen {
    let start = Instant::now();
    let mut seen = Seen { load_least: f64::MAX, ..Seen::default() };
    let mut told = 0;
    while start.elapsed() < time {
        let minute = start.elapsed().as_secs() / 60;
        if minute > told {
            told = minute;
            let silences = NODES.map(|node| heard(cluster, node, "longest_silence_ms"));
            println!(
                "after {minute} min: load {}, {} late, longest silences {silences:?} ms, {} of {} \
                 looks amber",
                load(),
                late(cluster),
                seen.not_alive,
                seen.looks
            );
        }
        for node in NODES {
            seen.looks += 1;
            match cluster.module_status(node) {
                Some(status) if status["peer"]["contact"] == "alive" => {}
                Some(_) => seen.not_alive += 1,
                None => seen.unanswered += 1,
            }
        }
        seen.load_least = seen.load_least.min(load());
        thread::sleep(PAUSE);
    }
    seen
}

/// The farm's own defaults: a node is lost after 200 ms of silence.
#[test]
#[ignore = "a soak, which `cargo xtask soak quiet --farm` runs"]
fn under_load_no_node_of_a_farm_is_taken_for_lost() {
    let minutes: u64 = env::var("EVENKEEL_MINUTES").map_or(1, |text| text.parse().unwrap());
    let trial = Trial::start("");
    trial.even(&FARM, &FARM);
    FARM.into_iter().for_each(|node| keep_busy(&trial.host(node)));
    await_load();
    let visitors = trial.visitors();
    let (mark, before) = (Instant::now(), FARM.map(|node| farm_events(&trial, node)));
    let mut seen = Seen { load_least: f64::MAX, ..Seen::default() };
    while mark.elapsed() < Duration::from_secs(minutes * 60) {
        for node in FARM {
            seen.looks += 1;
            match trial.buckets(node) {
                Some(buckets) if buckets.iter().all(|count| (85..=86).contains(count)) => {}
                Some(_) => seen.not_alive += 1,
                None => seen.unanswered += 1,
            }
        }
        seen.load_least = seen.load_least.min(load());
        thread::sleep(PAUSE);
    }
    let tally = visitors.since(mark);
    println!(
        "SOAK {}",
        json!({
            "farm": true, "minutes": minutes, "load": giver(),
            "load_average_least": seen.load_least,
            "looks": seen.looks, "not_alive": seen.not_alive, "unanswered": seen.unanswered,
            "new_clients": tally.new, "unanswered_clients": tally.lost,
            "broken": tally.broken.values().sum::<usize>(),
        })
    );
    assert!(seen.load_least >= LOAD_KEPT, "the load went away: {}", seen.load_least);
    assert_eq!(FARM.map(|node| farm_events(&trial, node)), before, "nothing is worth telling");
    assert_eq!(seen.not_alive, 0, "the shares stayed even");
    assert!(tally.broken.is_empty(), "connections broke: {tally:?}");
}

/// Keeps a node busy until its lab ends, unless the load is given elsewhere.
fn keep_busy(host: &Host) {
    if giver() != BY_NODES {
        return;
    }
    let words = ["stress-ng", "--cpu", BUSY, "--temp-path", "/tmp"];
    host.spawn(SpawnSpec::new(words).log("stress.log")).unwrap();
}

fn await_load() {
    let begin = Instant::now();
    while load() < LOAD_WANTED {
        assert!(begin.elapsed() < LOAD_PATIENCE, "the load is not there: {}", load());
        thread::sleep(PAUSE);
    }
}

/// Who makes the machine busy.
fn giver() -> String {
    env::var("EVENKEEL_LOAD").unwrap_or(BY_NODES.to_owned())
}

/// How many of its events a node of a farm told.
fn farm_events(trial: &Trial, node: &str) -> usize {
    let mut told = None;
    until("an answer", || {
        let reply = ask(&trial.host(node), Verb::Events { module: None, limit: 1000 }).ok();
        told = reply.and_then(|reply| reply.data["events"].as_array().map(Vec::len));
        told.is_some()
    });
    told.unwrap()
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// What a node tells of.
fn events(cluster: &Cluster, node: &str) -> Vec<Value> {
    let reply = ask(&cluster.host(node), Verb::Events { module: None, limit: 1000 }).unwrap();
    reply.data["events"].as_array().unwrap().clone()
}

/// A node under load may answer late.
fn status(cluster: &Cluster, node: &str) -> Value {
    let mut status = None;
    cluster.until("an answer", SYNC_PATIENCE, || {
        status = cluster.status(node);
        status.is_some()
    });
    status.unwrap_or_default()
}

/// What a node has counted of the heartbeats of the other.
fn heard(cluster: &Cluster, node: &str, figure: &str) -> u64 {
    status(cluster, node)["networks"][NETWORK][other(node)][figure].as_u64().unwrap()
}

/// How often both have heard each other later than after half of the timeout.
fn late(cluster: &Cluster) -> u64 {
    NODES.iter().map(|node| heard(cluster, node, "late")).sum()
}
