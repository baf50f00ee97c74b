//! Random sequences of faults: what is done follows from a seed alone, so that a failing one can be
//! repeated; only the moments depend on the machine.
//!
//! The generator keeps in mind what it has broken, so that each step can be done: a node that is
//! down is not frozen, and a witness that is down does not forget. It fills disks and never breaks
//! one, for that is mended by hands alone.

use std::fmt;
use std::thread;
use std::time::Duration;

use lab::SpawnSpec;

use super::{FILLERS, Trial};
use crate::support::random::Random;
use crate::support::{INSIDE, NODES, ROOT, WITNESS, other};

/// Fewest and most faults of a sequence.
const FAULTS: [u64; 2] = [4, 10];
/// Longest pauses after a fault, by turns at random: one in which a change is under way, and one
/// that is enough for a failover.
const PAUSES_MAX_MS: [u64; 2] = [800, 4500];

/// Words of a replicator's command line.
const REPLICATOR: &str = "replicator ledger .*";

type Name = &'static str;

/// One step of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Cut(Name, Name),
    CutOneWay(Name, Name),
    CutDatagrams,
    Unplug(Name),
    Heal,
    Freeze(Name),
    Thaw(Name),
    Kill(Name),
    Power(Name),
    Boot(Name),
    KillReplicator(Name),
    KillReplicatorAndKeeper(Name),
    KillApplication(Name),
    KillDaemon(Name),
    StartDaemon(Name),
    Halt(Name, &'static str),
    Resume(Name),
    Fill(Name, &'static str),
    Unfill(Name),
    EmptyWitness,
    Switchover(Name),
    Stop(Name),
    StopAll(Name),
    Start(Name),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Cut(one, other) => write!(f, "{one} and {other} are cut from each other"),
            Step::CutOneWay(from, to) => write!(f, "nothing from {from} reaches {to}"),
            Step::CutDatagrams => write!(f, "datagrams between the nodes are lost"),
            Step::Unplug(host) => write!(f, "{host} is unplugged"),
            Step::Heal => write!(f, "all links are restored"),
            Step::Freeze(host) => write!(f, "{host} is frozen"),
            Step::Thaw(host) => write!(f, "{host} is thawed"),
            Step::Kill(host) => write!(f, "{host} is killed"),
            Step::Power(host) => write!(f, "{host} loses its power"),
            Step::Boot(host) => write!(f, "{host} is booted"),
            Step::KillReplicator(node) => write!(f, "the replicator of {node} is killed"),
            Step::KillReplicatorAndKeeper(node) => {
                write!(f, "the replicator of {node} is killed with its keeper")
            }
            Step::KillApplication(node) => write!(f, "the application on {node} is killed"),
            Step::KillDaemon(node) => write!(f, "the daemon of {node} is killed"),
            Step::StartDaemon(node) => write!(f, "the daemon of {node} is started"),
            Step::Halt(node, program) => write!(f, "the {program} of {node} stands still"),
            Step::Resume(node) => write!(f, "what stands still on {node} goes on"),
            Step::Fill(node, file) => write!(f, "{file} fills its disk on {node}"),
            Step::Unfill(node) => write!(f, "the disks of {node} have room again"),
            Step::EmptyWitness => write!(f, "the witness loses all it knew"),
            Step::Switchover(node) => write!(f, "{node} is asked for a switchover"),
            Step::Stop(node) => write!(f, "the module is stopped on {node}"),
            Step::StopAll(node) => write!(f, "{node} is asked to stop the module everywhere"),
            Step::Start(node) => write!(f, "the module is started on {node}"),
        }
    }
}

/// What the generator has broken so far.
#[derive(Default)]
struct Broken {
    links: Vec<Step>,
    down: Vec<Name>,
    frozen: Vec<Name>,
    daemons: Vec<Name>,
    halted: Vec<Name>,
    filled: Vec<Name>,
}

impl Broken {
    /// Whether programs can be started on a host.
    fn runs(&self, host: Name) -> bool {
        !self.down.contains(&host) && !self.frozen.contains(&host)
    }

    /// Whether the daemon of a node answers.
    fn answers(&self, node: Name) -> bool {
        self.runs(node) && !self.daemons.contains(&node) && !self.halted.contains(&node)
    }

    fn can(&self, step: Step) -> bool {
        match step {
            Step::Cut(..) | Step::CutOneWay(..) | Step::CutDatagrams | Step::Unplug(_) => {
                !self.links.contains(&step)
            }
            Step::Heal => !self.links.is_empty(),
            Step::Freeze(host) => self.runs(host),
            Step::Thaw(host) => self.frozen.contains(&host),
            Step::Kill(host) | Step::Power(host) => !self.down.contains(&host),
            // What fills a disk may have been made durable, and a daemon does not start there.
            Step::Boot(host) => self.down.contains(&host) && !self.filled.contains(&host),
            Step::KillReplicator(node)
            | Step::KillReplicatorAndKeeper(node)
            | Step::KillApplication(node) => self.runs(node),
            Step::KillDaemon(node)
            | Step::Switchover(node)
            | Step::Stop(node)
            | Step::StopAll(node)
            | Step::Start(node) => self.answers(node),
            Step::StartDaemon(node) => {
                self.runs(node) && self.daemons.contains(&node) && !self.filled.contains(&node)
            }
            Step::Halt(node, _) => self.answers(node),
            Step::Resume(node) => self.runs(node) && self.halted.contains(&node),
            Step::Fill(node, _) => self.runs(node) && !self.filled.contains(&node),
            Step::Unfill(node) => self.runs(node) && self.filled.contains(&node),
            Step::EmptyWitness => self.runs(WITNESS),
        }
    }

    fn note(&mut self, step: Step) {
        match step {
            Step::Cut(..) | Step::CutOneWay(..) | Step::CutDatagrams | Step::Unplug(_) => {
                self.links.push(step);
            }
            Step::Heal => self.links.clear(),
            Step::Freeze(host) => self.frozen.push(host),
            Step::Thaw(host) => self.frozen.retain(|frozen| *frozen != host),
            Step::Kill(host) | Step::Power(host) => {
                self.frozen.retain(|frozen| *frozen != host);
                self.daemons.retain(|node| *node != host);
                self.halted.retain(|node| *node != host);
                self.down.push(host);
            }
            Step::Boot(host) => self.down.retain(|down| *down != host),
            Step::KillDaemon(node) => self.daemons.push(node),
            Step::StartDaemon(node) => self.daemons.retain(|dead| *dead != node),
            Step::Halt(node, _) => self.halted.push(node),
            Step::Resume(node) => self.halted.retain(|halted| *halted != node),
            Step::Fill(node, _) => self.filled.push(node),
            Step::Unfill(node) => self.filled.retain(|filled| *filled != node),
            Step::KillReplicator(_)
            | Step::KillReplicatorAndKeeper(_)
            | Step::KillApplication(_)
            | Step::EmptyWitness
            | Step::Switchover(_)
            | Step::Stop(_)
            | Step::StopAll(_)
            | Step::Start(_) => {}
        }
    }
}

/// The sequence of a seed.
pub fn generate(random: &mut Random) -> Vec<Step> {
    let mut broken = Broken::default();
    let mut steps = Vec::new();
    let wanted = FAULTS[0] + random.below(FAULTS[1] - FAULTS[0] + 1);
    while (steps.len() as u64) < wanted {
        let step = draw(random);
        if broken.can(step) {
            broken.note(step);
            steps.push(step);
        }
    }
    steps
}

/// A step of any kind; links, losses of nodes and returns are the most frequent.
fn draw(random: &mut Random) -> Step {
    let node = NODES[usize::try_from(random.below(2)).unwrap()];
    let hosts = [NODES[0], NODES[1], WITNESS];
    let host = hosts[usize::try_from(random.below(3)).unwrap()];
    let peer = if random.below(2) == 0 { other(node) } else { WITNESS };
    let towards = random.below(2) == 0;
    let program = if towards { "daemon" } else { "replicator" };
    let filler = FILLERS[usize::try_from(random.below(2)).unwrap()];
    match random.below(42) {
        0..=2 => Step::Cut(NODES[0], NODES[1]),
        3 => Step::Cut(node, WITNESS),
        4..=5 if towards => Step::CutOneWay(node, peer),
        4..=5 => Step::CutOneWay(peer, node),
        6 => Step::CutDatagrams,
        7 => Step::Unplug(node),
        8..=11 => Step::Heal,
        12..=13 => Step::Freeze(host),
        14..=16 => Step::Thaw(host),
        17 => Step::Kill(host),
        18..=20 => Step::Power(host),
        21..=24 => Step::Boot(host),
        25 => Step::KillReplicator(node),
        26 => Step::KillReplicatorAndKeeper(node),
        27 => Step::KillApplication(node),
        28 => Step::KillDaemon(node),
        29..=30 => Step::StartDaemon(node),
        31 => Step::EmptyWitness,
        32 => Step::Switchover(node),
        33 => Step::Stop(node),
        34 => Step::StopAll(node),
        35..=36 => Step::Halt(node, program),
        37..=38 => Step::Resume(node),
        39 => Step::Fill(node, filler),
        40 => Step::Unfill(node),
        _ => Step::Start(node),
    }
}

impl Trial {
    /// Does all steps, with pauses.
    pub fn perform(&self, steps: &[Step], random: &mut Random) {
        for step in steps {
            self.say(&step.to_string());
            self.step(*step);
            // Faults come at moments of their own, not when something awaits them.
            let most = PAUSES_MAX_MS[usize::try_from(random.below(2)).unwrap()];
            thread::sleep(Duration::from_millis(random.below(most)));
        }
    }

    fn step(&self, step: Step) {
        let lab = self.cluster.lab();
        match step {
            Step::Cut(one, other) => lab.cut(one, other).unwrap(),
            Step::CutOneWay(from, to) => lab.cut_one_way(from, to).unwrap(),
            Step::CutDatagrams => lab.cut_datagrams(NODES[0], NODES[1]).unwrap(),
            Step::Unplug(host) => lab.cut_network(host, crate::support::NETWORK).unwrap(),
            Step::Heal => lab.heal().unwrap(),
            Step::Freeze(host) => self.freeze(host),
            Step::Thaw(host) => self.thaw(host),
            Step::Kill(host) => self.kill(host),
            Step::Power(host) => self.power(host),
            Step::Boot(WITNESS) => self.start_witness(),
            Step::Boot(node) => self.cluster.boot_node(node),
            Step::KillReplicator(node) => self.signal_program(node, "KILL", REPLICATOR),
            Step::KillReplicatorAndKeeper(node) => {
                self.signal_program(node, "KILL", "(keeper|replicator) ledger .*");
            }
            Step::KillApplication(node) => {
                self.signal_program(node, "KILL", "ledger --data .*");
            }
            Step::KillDaemon(node) => self.kill_daemon(node),
            Step::StartDaemon(node) => self.cluster.start_daemon(node),
            Step::Halt(node, "daemon") => self.signal_program(node, "STOP", "daemon"),
            Step::Halt(node, _) => self.signal_program(node, "STOP", REPLICATOR),
            Step::Resume(node) => self.resume(node),
            Step::Fill(node, file) => drop(lab.fill(node, file).unwrap()),
            Step::Unfill(node) => self.unfill(node),
            Step::EmptyWitness => self.empty_witness(),
            Step::Switchover(node) => self.order(node, &["switchover", self.cluster.module()]),
            Step::Stop(node) => self.order(node, &["stop", "--node", node, self.cluster.module()]),
            Step::StopAll(node) => self.order(node, &["stop", self.cluster.module()]),
            Step::Start(node) => {
                self.order(node, &["start", "--node", node, self.cluster.module()]);
            }
        }
    }

    /// What was halted on a node goes on.
    pub fn resume(&self, node: &str) {
        for program in ["daemon", REPLICATOR] {
            self.signal_program(node, "CONT", program);
        }
    }

    /// The disks of a node have room again.
    pub fn unfill(&self, node: &str) {
        for filler in FILLERS {
            // It may be gone with a node that had not made it durable.
            let _ = self.cluster.lab().unfill(node, filler);
        }
    }

    /// Sends a signal to whatever runs at this moment by this command line.
    fn signal_program(&self, node: &str, signal: &str, words: &str) {
        let pattern = format!("[^ ]*evenkeel (.* )?{words}");
        let signal = format!("-{signal}");
        // There may be none, as where the node does not serve.
        let _ = self.cluster.host(node).run(["pkill", &signal, "-f", "-x", &pattern]).unwrap();
    }

    /// Has an operator order something, who does not wait for what becomes of it.
    fn order(&self, node: &str, words: &[&str]) {
        let argv = [&[INSIDE, "--root", ROOT], words].concat();
        self.cluster.host(node).spawn(SpawnSpec::new(argv).log("operator.log")).unwrap();
    }
}
