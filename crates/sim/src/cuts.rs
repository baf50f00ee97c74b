//! Every step of a joining, and of two starts in the same instant, is cut by every fault: nothing
//! here is left to chance.
//!
//! A case leads a pair to a beginning and lets it run. After each event that has changed anything,
//! the world is copied, one thing goes wrong in the copy, and some seconds later everything is
//! mended: then the pair must settle with equal copies, as after any schedule.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::promises::Promise;
use crate::story;
use crate::world::World;

/// What is cut.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Commands that lead to the beginning.
    pub before: &'static [&'static str],
    /// The command, or several in the same instant, from which on each step is cut.
    pub begin: &'static str,
    /// How long steps are cut.
    pub lasts: Duration,
}

const fn case(
    name: &'static str,
    before: &'static [&'static str],
    begin: &'static str,
    seconds: u64,
) -> Case {
    Case { name, before, begin, lasts: Duration::from_secs(seconds) }
}

/// Node2 has missed writes, and both are stopped.
const OUTDATED: &[&str] = &[
    "given a protected pair",
    "power node2",
    "run 4s",
    "stop node1",
    "boot node2",
    "stop node2",
    "run 1s",
];
const STOPPED: &[&str] = &["given a protected pair", "stop-all both", "run 2s"];
const CRASHED: &[&str] =
    &["given a protected pair", "run 50ms", "power node1", "power node2", "run 1s"];
const NO_WITNESS: &[&str] =
    &["no witness", "policy wait", "given a protected pair", "stop-all both", "run 2s"];

/// All cases.
pub const CASES: [Case; 13] = [
    case("first join", &["boot both"], "start both", 2),
    case("return", &["given a protected pair", "power node2", "run 4s"], "boot node2", 2),
    case("rejoin", &["given a protected pair", "cut-link", "run 3s"], "heal", 2),
    case(
        "return of the primary",
        &["given a protected pair", "power node1", "run 4s"],
        "boot node1",
        2,
    ),
    case(
        "return with a script",
        &["script 300ms", "given a protected pair", "power node2", "run 4s"],
        "boot node2",
        2,
    ),
    case("two first starts", &["boot both"], "start node2; start node1", 2),
    case("two starts in sync", STOPPED, "start node1; start node2", 1),
    case("two starts in sync, the other way", STOPPED, "start node2; start node1", 1),
    case("two starts, one outdated", OUTDATED, "start node2; start node1", 2),
    case("two starts, one outdated, the other way", OUTDATED, "start node1; start node2", 2),
    case("two boots after two crashes", CRASHED, "boot node1; boot node2", 2),
    case("two starts without a witness", NO_WITNESS, "start node1; start node2", 1),
    case(
        "two forced starts",
        &[
            "no witness",
            "policy wait",
            "given a protected pair",
            "power node1",
            "power node2",
            "boot both",
        ],
        "force-primary node1; force-primary node2",
        2,
    ),
];

/// What goes wrong.
pub const FAULTS: [&str; 20] = [
    "cut",
    "cut-link",
    "cut-heartbeats",
    "one-way node1",
    "one-way node2",
    "witness down",
    "power node1",
    "power node2",
    "power node1; power node2",
    "power node1; run 50ms; boot node1",
    "power node2; run 50ms; boot node2",
    "kill node1; run 50ms; boot node1",
    "kill node2; run 50ms; boot node2",
    "die node1",
    "die node2",
    "stop-daemon node1; run 30ms; boot node1",
    "stop-daemon node2; run 30ms; boot node2",
    "stop node1",
    "stop node2",
    "start node1; start node2",
];

/// Afterwards everything is mended.
const MEND: [&str; 9] = [
    "run 4s",
    "mend",
    "boot node1",
    "boot node2",
    "run 3s",
    "start both",
    "settle",
    "compare",
    "run 1s",
];

/// What came of a case.
#[derive(Debug, Default)]
pub struct Cuts {
    /// Events that have changed something.
    pub steps: u64,
    /// Worlds that something went wrong in.
    pub cut: u64,
    /// What broke a promise, each with all that happened.
    pub broken: Vec<String>,
}

impl Case {
    /// Cuts each step by each fault, or by one in `share` of them, others at each step.
    #[must_use]
    pub fn cut(&self, share: usize) -> Cuts {
        let mut cuts = Cuts::default();
        let has_witness = !self.before.contains(&"no witness");
        let mut world = World::new(7, has_witness);
        let begin = self.before.iter().copied().chain(self.begin.split("; "));
        for command in begin {
            if let Err(wrong) = perform(&mut world, command) {
                cuts.broken.push(format!("{}: {wrong}", self.name));
                return cuts;
            }
        }
        let end = world.now + self.lasts;
        let mut known = BTreeSet::new();
        while world.now < end && world.violation.is_none() {
            world.step();
            if !known.insert(stamp(&world)) {
                continue;
            }
            cuts.steps += 1;
            for (n, fault) in FAULTS.iter().enumerate() {
                if (n + known.len()) % share == 0 {
                    cuts.cut += 1;
                    cuts.broken.extend(self.cut_one(&world, fault));
                }
            }
        }
        let broken = world.violation.map(|broken| format!("{}: {broken}", self.name));
        cuts.broken.extend(broken);
        cuts
    }

    /// One thing goes wrong; what broke, with all that happened.
    fn cut_one(&self, world: &World, fault: &str) -> Option<String> {
        let mut world = world.clone();
        for command in fault.split("; ").chain(MEND) {
            world.note(&format!("> {command}"));
            if let Err(wrong) = perform(&mut world, command) {
                world.violate(Promise::ThePairSettles, wrong);
            }
        }
        let broken = world.violation?;
        let log = world.log.join("\n  ");
        Some(format!("{}, {fault}: {broken}\n  {log}", self.name))
    }
}

fn perform(world: &mut World, command: &str) -> Result<(), String> {
    story::perform(world, command)?;
    match &world.violation {
        Some(broken) => Err(broken.to_string()),
        None => Ok(()),
    }
}

/// By what a change shows: what lies on the disks, what the nodes tell each other and what the
/// replicators do.
fn stamp(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    for host in &world.hosts {
        let seen = (&host.record, &host.announced, host.service, host.addresses, host.up);
        format!("{seen:?}").hash(&mut hasher);
        let does = &host.replicator;
        let does = (&does.told, &does.in_force, does.link, does.synced, does.running);
        format!("{does:?}").hash(&mut hasher);
        host.replicator.tree.is_mixed().hash(&mut hasher);
    }
    hasher.finish()
}
