//! A real PostgreSQL on replicated directories, with pgbench and a counting client on it, while its
//! nodes are killed, lose power, lose each other, and hand over. Whatever was acknowledged must be
//! on the survivor. How long anything takes is not judged.
//!
//! `EVENKEEL_ROUNDS` says how often each fault is repeated, `EVENKEEL_SEED` at which moments.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]
#![allow(clippy::print_stdout, reason = "soaks read the figures from the output")]

mod support;

use std::time::Duration;

use lab::ledger::Workload;
use serde_json::json;

use self::support::applications::{Bench, postgresql};
use self::support::observer::Observer;
use self::support::random::{Random, rounds};
use self::support::{Cluster, NODES, PATIENCE, SYNC_PATIENCE, other};

/// A fault comes after at most this time of undisturbed work.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// A timeout that a node can come back in.
const PATIENT: &str = "[failover]\ntimeout = \"5s\"\n";

/// A protected cluster under load.
struct Run {
    kind: &'static str,
    rounds: u64,
    random: Random,
    cluster: Cluster,
    observer: Observer,
    bench: Bench,
    workload: Workload,
}

impl Run {
    fn start(kind: &'static str, rounds: u64, more: &str) -> Run {
        let cluster = Cluster::protected(postgresql(more));
        cluster.set_up();
        let observer = Observer::start(&cluster);
        let bench = Bench::start(&cluster);
        let workload = cluster.workload(1);
        cluster.progress(&workload);
        cluster.bench_gets_on();
        let random = Random::from_environment();
        Run { kind, rounds, random, cluster, observer, bench, workload }
    }

    /// Repeats a fault; it gets the primary, and returns when the pair should be protected again.
    fn rounds(&mut self, fault: impl Fn(&Cluster, &str, &Workload)) {
        for round in 1..=self.rounds {
            let before = self.workload.count();
            let primary = self.cluster.primary();
            self.random.moment(QUIET_MAX);
            fault(&self.cluster, primary, &self.workload);
            self.cluster.progress(&self.workload);
            self.cluster.wait_for(self.cluster.primary(), "protected", SYNC_PATIENCE);
            self.cluster.nothing_lost(&self.workload.acknowledged());
            let acknowledged = self.workload.count() - before;
            assert!(acknowledged > 0, "nothing was acknowledged in round {round}");
            let figures = json!({
                "kind": self.kind, "rounds": 1, "acknowledged": acknowledged, "lost": 0,
            });
            println!("\nSOAK {figures}");
        }
    }

    /// Everything acknowledged is there, the database is sound, the replicas are identical.
    fn finish(self) {
        self.bench.finish();
        let acknowledged = self.workload.stop();
        self.cluster.nothing_lost(&acknowledged);
        self.cluster.database_is_sound();
        self.cluster.stop_and_compare();
        self.observer.finish();
        for node in NODES {
            self.cluster.pages_are_sound(node);
        }
    }
}

/// What a test knows of a failover: the peer serves alone, and transactions are acknowledged.
fn taken_over(cluster: &Cluster, survivor: &str, workload: &Workload) {
    cluster.wait_for(survivor, "alone", PATIENCE);
    cluster.progress(workload);
}

#[test]
fn a_killed_primary_loses_nothing_and_resynchronises_under_load() {
    let mut run = Run::start("kill", rounds(3), "");
    run.rounds(|cluster, primary, workload| {
        cluster.lab().kill(primary).unwrap();
        taken_over(cluster, other(primary), workload);
        cluster.boot_node(primary);
        cluster.wait_for_role(primary, &["SECOND"]);
    });
    run.finish();
}

#[test]
fn a_primary_killed_and_back_inside_the_timeout_loses_nothing() {
    let mut run = Run::start("kill-inside-timeout", rounds(1), PATIENT);
    run.rounds(|cluster, primary, _| {
        cluster.lab().kill(primary).unwrap();
        cluster.boot_node(primary);
    });
    run.finish();
}

#[test]
fn a_primary_without_power_and_back_inside_the_timeout_loses_nothing() {
    let mut run = Run::start("power-inside-timeout", rounds(1), PATIENT);
    run.rounds(|cluster, primary, _| {
        cluster.lab().power(primary).unwrap();
        cluster.boot_node(primary);
    });
    run.finish();
}

#[test]
fn a_primary_without_power_loses_nothing() {
    let mut run = Run::start("power", rounds(1), "");
    run.rounds(|cluster, primary, workload| {
        cluster.lab().power(primary).unwrap();
        taken_over(cluster, other(primary), workload);
        cluster.boot_node(primary);
        cluster.wait_for_role(primary, &["SECOND"]);
    });
    run.finish();
}

#[test]
fn of_two_nodes_cut_from_each_other_exactly_one_goes_on() {
    let mut run = Run::start("cut", rounds(1), "");
    run.rounds(|cluster, _, workload| {
        cluster.lab().cut(NODES[0], NODES[1]).unwrap();
        cluster.until("one of the nodes goes on alone", PATIENCE, || {
            let alone = |node: &&str| cluster.role(node) == "ALONE" && cluster.serves(node);
            NODES.iter().filter(|node| alone(node)).count() == 1
        });
        let alone = cluster.primary();
        let stopped = other(alone);
        cluster.wait_for_role(stopped, &["WAIT", "SECOND", "STOP"]);
        cluster.until("only one node holds the address", PATIENCE, || {
            cluster.holds_address(alone) && !cluster.holds_address(stopped)
        });
        cluster.progress(workload);
        assert_eq!(cluster.primary(), alone);
        cluster.lab().restore(NODES[0], NODES[1]).unwrap();
        cluster.wait_for_role(stopped, &["SECOND"]);
    });
    run.finish();
}

#[test]
fn a_switchover_under_load_and_back_loses_nothing() {
    let mut run = Run::start("switchover", rounds(1), "");
    run.rounds(|cluster, primary, workload| {
        for to in [other(primary), primary] {
            cluster.must(NODES[0], &["switchover", cluster.module(), "--to", to]);
            assert_eq!(cluster.primary(), to);
            cluster.progress(workload);
            cluster.wait_for(to, "protected", SYNC_PATIENCE);
        }
    });
    run.finish();
}
