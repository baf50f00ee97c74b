//! A protected pair under writers that know who acknowledged what, and the judgement when all is
//! mended: nothing acknowledged is lost, no two servers acknowledged at a time, both replicas are
//! identical, the pair is protected.
//!
//! Three writers work without pause: one through the virtual address, one at each node's own
//! address, so that a node that serves when it must not is asked too. Moments are printed and never
//! judged.

#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(clippy::print_stdout, reason = "the log of a trial is read by people and by soaks")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

pub mod sequence;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lab::ledger::testimony::{overlap, reigns};
use lab::ledger::{Acknowledged, Writer};
use model::{ModuleName, NodeName};
use serde_json::Value;
use wire::control::Verb;

use crate::support::applications::{Application, ledger};
use crate::support::{Cluster, NODES, PATIENCE, ROOT, SYNC_PATIENCE, WITNESS, ask, other};

/// First numbers of the writers: through the virtual address, and at each node.
const FIRSTS: [u64; 3] = [1, 1_000_000_000, 2_000_000_000];
/// What fills a disk from outside the replica.
pub const FILLERS: [&str; 2] = ["/srv/filler", "/mnt/state/filler"];
/// Failed attempts at each address that show that nobody acknowledges.
const FAILURES: u64 = 3;
const SIGNAL_KILL: i32 = 9;

/// A pair under writers.
pub struct Trial {
    pub cluster: Cluster,
    start: Instant,
    /// Through the virtual address, at node1, at node2.
    writers: [Writer; 3],
    frozen: std::cell::RefCell<BTreeSet<String>>,
}

impl Trial {
    /// A protected pair; `more` is appended to the module's file.
    pub fn start(more: &str) -> Trial {
        Trial::over(ledger(more))
    }

    pub fn over(application: Application) -> Trial {
        let cluster = Cluster::protected(application);
        let writers = [None, Some(NODES[0]), Some(NODES[1])];
        let mut firsts = FIRSTS.into_iter();
        let writers = writers.map(|node| cluster.writer(node, firsts.next().unwrap()));
        let trial = Trial { cluster, start: Instant::now(), writers, frozen: Default::default() };
        trial.progress();
        trial
    }

    /// The primary and the secondary.
    pub fn pair(&self) -> (&'static str, &'static str) {
        let primary = self.cluster.primary();
        (primary, other(primary))
    }

    /// Prints what is done, with its moment.
    pub fn say(&self, what: &str) {
        println!("  {:7.2} s  {what}", self.start.elapsed().as_secs_f64());
    }

    /// Waits until something is acknowledged through the virtual address that is sent from now on.
    pub fn progress(&self) {
        let progressed = self.writers[0].wait_for_progress(Instant::now(), PATIENCE);
        let why = self.writers[0].last_error();
        assert!(progressed, "nothing is acknowledged any more: {why:?}");
    }

    /// Waits until all writers have failed again and again; nothing they sent meanwhile may have
    /// been acknowledged.
    pub fn nobody_acknowledges(&self) {
        let mark = Instant::now();
        self.attempts_fail();
        let told = self.writers.iter().flat_map(Writer::acknowledged);
        let since: Vec<_> = told.filter(|one| one.sent > mark).collect();
        assert!(since.is_empty(), "{} acknowledged, such as {:?}", since.len(), since[0]);
    }

    /// Waits until all writers have failed again and again. Something may have been acknowledged
    /// meanwhile: a disk that is filled still takes what its files have room for.
    pub fn attempts_fail(&self) {
        let before = self.writers.each_ref().map(Writer::failures);
        self.cluster.until("attempts at every address fail", PATIENCE, || {
            let pairs = self.writers.iter().zip(before);
            pairs.into_iter().all(|(writer, before)| writer.failures() >= before + FAILURES)
        });
    }

    /// Whatever was sent since a moment and acknowledged was so by this node.
    pub fn only_since(&self, mark: Instant, node: &str) {
        let told = self.writers.iter().flat_map(Writer::acknowledged);
        let since: Vec<_> = told.filter(|one| one.sent > mark).collect();
        let own = format!("{node}/");
        let foreign: Vec<_> = since.iter().filter(|one| !one.run.starts_with(&own)).collect();
        assert!(foreign.is_empty(), "acknowledged by another: {:?}", foreign[0]);
        assert!(!since.is_empty(), "{node} has acknowledged nothing");
    }

    /// How much has been acknowledged so far, by anybody.
    pub fn count(&self) -> usize {
        self.writers.iter().map(|writer| writer.acknowledged().len()).sum()
    }

    /// Waits until only this node holds the address, and serves.
    pub fn alone(&self, node: &str) {
        let cluster = &self.cluster;
        cluster.wait_for_role(node, &["ALONE"]);
        cluster.until(&format!("only {node} holds the address"), PATIENCE, || {
            cluster.holds_address(node) && !cluster.holds_address(other(node))
        });
        self.progress();
        assert!(!cluster.serves(other(node)), "{} serves too", other(node));
    }

    /// Waits until one of the nodes serves alone, whichever it is.
    pub fn one_alone(&self) -> &'static str {
        self.cluster.until("one of the nodes goes on alone", PATIENCE, || {
            NODES.into_iter().any(|node| self.cluster.role(node) == "ALONE")
        });
        let alone = NODES.into_iter().find(|node| self.cluster.role(node) == "ALONE").unwrap();
        self.alone(alone);
        alone
    }

    /// Waits until the pair is protected with this node as the primary.
    pub fn protected(&self, primary: &str) {
        self.cluster.wait_for(primary, "protected", SYNC_PATIENCE);
        self.cluster.wait_for_role(other(primary), &["SECOND"]);
        assert_eq!(self.cluster.primary(), primary);
        self.progress();
    }

    /// Waits until the pair is as it is when it is protected, though something may be amber.
    pub fn paired(&self, primary: &str) {
        self.cluster.wait_for_role(primary, &["PRIM"]);
        self.cluster.wait_for_role(other(primary), &["SECOND"]);
        self.cluster.until("the session stands", PATIENCE, || {
            let status = |node| self.cluster.module_status(node).unwrap_or_default();
            NODES.iter().all(|node| status(node)["session"] == "done")
        });
        self.progress();
        assert_eq!(self.cluster.primary(), primary);
    }

    /// Whether a node names this reason for not being green.
    pub fn shows(&self, node: &str, code: &str) -> bool {
        let status = self.cluster.module_status(node).unwrap_or_default();
        reasons(&status).iter().any(|reason| reason == code)
    }

    pub fn headline(&self, node: &str) -> String {
        let status = self.cluster.module_status(node).unwrap_or_default();
        status["headline"].as_str().unwrap_or_default().to_owned()
    }

    /// Fills the disk for records, with what the node had set aside there.
    pub fn fill_up(&self, node: &str) {
        let reserve = format!("{ROOT}/var/lib/evenkeel/reserve");
        self.cluster.host(node).run(["rm", "-r", &reserve]).unwrap();
        self.cluster.lab().fill(node, FILLERS[1]).unwrap();
    }

    pub fn freeze(&self, node: &str) {
        self.cluster.lab().freeze(node).unwrap();
        self.frozen.borrow_mut().insert(node.to_owned());
    }

    pub fn thaw(&self, node: &str) {
        if self.frozen.borrow_mut().remove(node) {
            self.cluster.lab().thaw(node).unwrap();
        }
    }

    pub fn is_frozen(&self, node: &str) -> bool {
        self.frozen.borrow().contains(node)
    }

    /// Ends all processes of a host; frozen or not.
    pub fn kill(&self, host: &str) {
        self.cluster.lab().kill(host).unwrap();
        self.frozen.borrow_mut().remove(host);
    }

    /// Takes the power from a host; frozen or not.
    pub fn power(&self, host: &str) {
        self.cluster.lab().power(host).unwrap();
        self.frozen.borrow_mut().remove(host);
    }

    /// The daemon alone dies.
    pub fn kill_daemon(&self, node: &str) {
        let daemon = self.cluster.daemon(node);
        daemon.kill(SIGNAL_KILL).unwrap();
        daemon.wait().unwrap();
    }

    pub fn start_witness(&self) {
        self.cluster.lab().start(WITNESS).unwrap();
        self.cluster.start_witness();
    }

    /// The witness forgets all epochs, and runs again. Who it is and whom it serves, it knows.
    pub fn empty_witness(&self) {
        self.cluster.lab().kill(WITNESS).unwrap();
        self.cluster.lab().start(WITNESS).unwrap();
        let file = format!("{ROOT}/witness/registers.json");
        // There is none before the first register.
        let _ = std::fs::remove_file(self.cluster.host(WITNESS).path(file).unwrap());
        self.cluster.start_witness();
    }

    /// Mends everything that a fault of the lab may have broken. The module is started where an
    /// operator had stopped it.
    pub fn mend(&self) {
        let cluster = &self.cluster;
        for host in [NODES[0], NODES[1], WITNESS] {
            self.thaw(host);
        }
        cluster.lab().heal().unwrap();
        if !cluster.host(WITNESS).is_up() {
            self.start_witness();
        }
        for node in NODES {
            if !cluster.host(node).is_up() {
                cluster.lab().start(node).unwrap();
            }
            self.unfill(node);
            self.resume(node);
            if !cluster.daemon(node).is_alive() {
                cluster.start_daemon(node);
            }
        }
        for node in NODES {
            let status = cluster.module_status(node).unwrap_or_default();
            if status["started"] == false {
                let module = ModuleName::new(cluster.module()).unwrap();
                let node_name = Some(NodeName::new(node).unwrap());
                // Its answer would come when the pair is up, for which both must be started.
                let _ = ask(&cluster.host(node), Verb::Start { module, node: node_name });
            }
        }
    }

    /// Mends everything, waits for a protected pair, and judges.
    pub fn finish(self) -> usize {
        self.mend();
        // One that was left behind says that it serves until it hears of the other one.
        let mut found = None;
        self.cluster.until("a pair", PATIENCE * 2 + SYNC_PATIENCE, || {
            let leads = |node: &&str| {
                let follows = self.cluster.role(other(node)) == "SECOND";
                follows && self.headline(node) == "protected" && self.cluster.serves(node)
            };
            found = NODES.into_iter().find(leads);
            found.is_some()
        });
        let primary = found.unwrap();
        self.protected(primary);
        self.say(&format!("protected, {primary} is the primary"));
        let Trial { cluster, writers, .. } = self;
        let told: Vec<Acknowledged> = writers.into_iter().flat_map(Writer::stop).collect();
        judge(&cluster, &told);
        told.len()
    }
}

fn judge(cluster: &Cluster, told: &[Acknowledged]) {
    let ids: Vec<u64> = told.iter().map(|one| one.id).collect();
    cluster.nothing_lost(&ids);
    cluster.books_balance();
    let reigns = reigns(told);
    let begin = reigns[0].begun_by;
    for reign in &reigns {
        let second = |at: Instant| at.saturating_duration_since(begin).as_secs_f64();
        let (from, to) = (second(reign.begun_by), second(reign.lasted_until));
        println!("  {} acknowledged {} from {from:.2} s to {to:.2} s", reign.run, reign.count);
    }
    if let Some((one, other)) = overlap(&reigns) {
        panic!("two servers acknowledged at the same time: {one:?} and {other:?}");
    }
    cluster.stop_and_compare();
}

/// Codes of the reasons that a status names.
pub fn reasons(status: &Value) -> Vec<String> {
    let reasons = status["reasons"].as_array().into_iter().flatten();
    reasons.filter_map(|reason| Some(reason["code"].as_str()?.to_owned())).collect()
}

/// How long until something is so, waiting for it as long as anything may take.
pub fn measure(cluster: &Cluster, what: &str, done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    cluster.until(what, PATIENCE, done);
    start.elapsed()
}
