//! Connections between replicators that break: both go on where they were, without a resync and
//! without anybody's losing a change. How long that takes is not judged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use wire::control::Verb;

use self::support::applications::{Application, ledger, succeed};
use self::support::random::Random;
use self::support::{Cluster, NODES, PATIENCE, SYNC_PATIENCE, ask};

/// Resets of one test.
const ROUNDS: usize = 12;
/// Codes of events that tell of a session that did not go on.
const ENDINGS: [&str; 4] = ["dropped", "join-ended", "resync-ended", "session-ended"];

/// Longer than a link is away here, on however slow a machine.
const PATIENT: &str = "[failover]\ntimeout = \"10s\"\n";
/// After which time a link that did not break is ended again.
const AGAIN: Duration = Duration::from_secs(2);

/// How often the log of a node's replicator tells of a broken link.
fn breaks(cluster: &Cluster, node: &str) -> usize {
    let log = "/mnt/state/var/lib/evenkeel/modules/ledger/replicator.log";
    let text = fs::read_to_string(cluster.host(node).path(log).unwrap()).unwrap_or_default();
    text.lines().filter(|line| line.contains(" broke: ")).count()
}

/// Ends the connection at the primary; the other end hears of it, or is left in the dark.
fn reset_once(cluster: &Cluster, random: &mut Random) {
    let primary = cluster.primary();
    cluster.until("a link that stands", PATIENCE, || {
        let words = ["ss", "-H", "-t", "state", "established", "dport = :7620"];
        !succeed(&cluster.host(primary), &words).is_empty()
    });
    let before = breaks(cluster, primary);
    let dark = random.below(2) == 0;
    if dark {
        cluster.lab().cut(NODES[0], NODES[1]).unwrap();
    }
    succeed(&cluster.host(primary), &["ss", "-K", "-H", "-t", "dport = :7620"]);
    if dark {
        cluster.lab().restore(NODES[0], NODES[1]).unwrap();
    }
    // One that was just being made is made once more by itself, and is ended again.
    let mut again = Instant::now() + AGAIN;
    cluster.until("the link broke", PATIENCE, || {
        if Instant::now() > again {
            succeed(&cluster.host(primary), &["ss", "-K", "-H", "-t", "dport = :7620"]);
            again = Instant::now() + AGAIN;
        }
        breaks(cluster, primary) > before
    });
}

/// What a node tells of.
fn events(cluster: &Cluster, node: &str) -> Vec<Value> {
    let reply = ask(&cluster.host(node), Verb::Events { module: None, limit: 200 }).unwrap();
    reply.data["events"].as_array().unwrap().clone()
}

fn nothing_ended(cluster: &Cluster) {
    for node in NODES {
        for event in events(cluster, node) {
            let code = event["code"].as_str().unwrap_or_default();
            assert!(!ENDINGS.contains(&code), "{node}: {event}");
        }
    }
}

#[test]
fn a_link_that_breaks_is_made_anew_without_a_resync() {
    breaks_are_nothing(ledger(PATIENT));
}

#[test]
fn so_it_is_where_links_are_encrypted() {
    breaks_are_nothing(ledger(PATIENT).with_keys());
}

fn breaks_are_nothing(application: Application) {
    let cluster = Cluster::protected(application);
    let mut random = Random::new(1);
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let before = NODES.map(|node| events(&cluster, node));
    for _ in 0..ROUNDS {
        reset_once(&cluster, &mut random);
        cluster.progress(&workload);
    }
    assert_eq!(NODES.map(|node| events(&cluster, node)), before, "nothing is worth telling");
    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    cluster.books_balance();
    cluster.stop_and_compare();
}

#[test]
fn a_resync_goes_on_after_its_link_broke() {
    // Slow enough to be met under way.
    let slow = "[replication]\nresync_rate = \"60kB/s\"\n";
    let cluster = Cluster::build(ledger(slow).with_keys());
    let mut random = Random::new(2);
    let many = cluster.host(NODES[0]).path("/srv/ledger/many").unwrap();
    fs::create_dir_all(&many).unwrap();
    for number in 0..3_000 {
        fs::write(many.join(number.to_string()), number.to_string().repeat(50)).unwrap();
    }
    thread::scope(|scope| {
        // Its own connection to the other node may be ended too, so it may complain.
        scope.spawn(|| cluster.command(NODES[0], &["start", cluster.module()]));
        break_a_resync(&cluster, &mut random);
    });
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    nothing_ended(&cluster);
    cluster.stop_and_compare();
}

fn break_a_resync(cluster: &Cluster, random: &mut Random) {
    cluster.until("a resync is under way", PATIENCE, || {
        let status = cluster.module_status(NODES[0]).unwrap_or_default();
        status["detail"]["progress"]["running"] == true
    });
    for _ in 0..ROUNDS / 4 {
        reset_once(cluster, random);
    }
    cluster.must(NODES[0], &["resync-rate", cluster.module(), "unlimited"]);
}
