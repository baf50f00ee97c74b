//! Where a search begins, and what may happen in it.
//!
//! From a protected pair everything can be reached, but what is many steps away is not within the
//! depth of a search. So one begins in each of the situations in which a rule is at work.

use std::sync::Arc;
use std::time::Duration;

use cluster::input::Command;
use model::{Phase, Role};

use super::choices::{Choice, Step, Trap};
use super::pair::{Budget, Pair};

/// A pair that does not settle within so many tenths of a second never does.
const ROUNDS_MAX: usize = 1200;

/// How a pair is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// Protected, node1 being the primary; nothing is under way.
    Protected,
    /// The data link is given up, node2 has heard nothing for long and has asked the witness.
    Asked,
    /// node2 has lost power, node1 has gone on alone and written, and node2 is off.
    Alone,
    /// As that, but node2 has come back, and a resync into it is under way.
    Copying,
    /// Both have lost power.
    BothOff,
}

/// A beginning with a budget.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    /// How the pair is found.
    pub beginning: Beginning,
    /// What may happen.
    pub budget: Budget,
    /// How deep the command looks.
    pub depth: u8,
    /// How deep the test of every change looks.
    pub depth_in_tests: u8,
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    use Beginning::{Alone, Asked, BothOff, Copying, Protected};
    let case = |name, beginning, (depth, depth_in_tests), budget| Case {
        name,
        beginning,
        budget,
        depth,
        depth_in_tests,
    };
    let some = Budget { writes: 1, calms: 1, ..Budget::default() };
    vec![
        case("network", Protected, (7, 3), Budget { silences: 2, slow: 1, ..some }),
        case("late", Protected, (6, 3), Budget { late: 1, silences: 1, pings: 1, ..some }),
        case("power", Protected, (6, 3), Budget { silences: 1, powers: 2, slow: 1, ..some }),
        case("asked", Asked, (7, 3), Budget { slow: 1, given_up: 1, twice: 1, calms: 2, ..some }),
        case("asked-power", Asked, (7, 3), Budget { powers: 2, slow: 1, calms: 2, ..some }),
        case("alone", Alone, (9, 4), Budget { powers: 2, silences: 1, slow: 1, calms: 2, ..some }),
        case(
            "copying",
            Copying,
            (8, 3),
            Budget { powers: 2, silences: 1, slow: 1, calms: 2, ..some },
        ),
        case("both-off", BothOff, (10, 5), Budget { powers: 1, calms: 2, ..some }),
        case("disk", Protected, (7, 3), Budget { failures: 2, silences: 1, ..some }),
        case("processes", Protected, (7, 3), Budget { daemons: 1, deaths: 1, ..some }),
        case("witness", Asked, (7, 3), Budget { restarts: 1, rewinds: 1, calms: 2, ..some }),
        case("rewound", Alone, (9, 4), Budget { restarts: 1, rewinds: 1, calms: 2, ..some }),
        case(
            "switchover",
            Protected,
            (6, 3),
            Budget { switchovers: 2, silences: 1, slow: 1, ..some },
        ),
        case("stops", Protected, (6, 3), Budget { stops: 2, powers: 1, calms: 2, ..some }),
    ]
}

impl Case {
    /// The state in which the search begins.
    pub(super) fn begin(&self) -> Pair {
        let mut pair = Pair::new();
        for i in 0..2 {
            pair.boot(i);
            pair.command(i, Command::Start);
        }
        pair.settle_told();
        let _ = pair.settle();
        pair.saved = Arc::new(pair.witness.registers());
        pair.left = Budget { writes: 2, powers: 2, silences: 1, ..Budget::default() };
        // Acknowledged, but nowhere durable yet.
        let written = [Choice::Write(0), Choice::Carry(1), Choice::Acknowledge(0)];
        written.into_iter().for_each(|choice| pair.happens(choice));
        match self.beginning {
            Beginning::Protected => {}
            Beginning::Asked => {
                pair.happens(Choice::GiveUp(0));
                pair.happens(Choice::GiveUp(1));
                while pair.asked[1].is_empty() {
                    pair.happens(Choice::Clock(1));
                }
            }
            Beginning::Alone => pair.leave_node2_behind(),
            Beginning::Copying => {
                pair.leave_node2_behind();
                pair.happens(Choice::Boot(1));
                while pair.linked(0).is_none() {
                    pair.round();
                }
            }
            Beginning::BothOff => {
                pair.happens(Choice::Power(0));
                pair.happens(Choice::Power(1));
            }
        }
        pair.left = self.budget;
        pair
    }
}

impl Pair {
    fn happens(&mut self, choice: Choice) {
        self.take(Step { choice, trap: Trap::None });
    }

    fn leave_node2_behind(&mut self) {
        self.happens(Choice::Power(1));
        for _ in 0..100 {
            self.round();
        }
        self.happens(Choice::Write(0));
    }

    /// Everything is mended and time passes, until the pair is protected. Returns whether it gets
    /// there.
    pub(super) fn settle(&mut self) -> bool {
        self.left = Budget::default();
        self.hear_replicators();
        for i in 0..2 {
            if self.machines[i].node.is_none() {
                self.boot(i);
            }
        }
        self.settle_told();
        for _ in 0..ROUNDS_MAX {
            self.round();
            if self.is_settled() {
                return true;
            }
        }
        false
    }

    fn is_settled(&self) -> bool {
        let roles = [0, 1].map(|i| self.machines[i].report().map(|r| (r.role, r.phase)));
        let quiet = self.asked.iter().all(Vec::is_empty);
        let due = self.machines.iter().any(|machine| machine.side.due);
        let both = |a, b| roles == [Some((a, Phase::Ready)), Some((b, Phase::Ready))];
        quiet && !due && (both(Role::Prim, Role::Second) || both(Role::Second, Role::Prim))
    }

    /// A tenth of a second in which everything works.
    fn round(&mut self) {
        self.pass(Duration::from_millis(100));
        self.settle_told();
        self.calm();
    }

    /// Everything that works by itself does so, in no time.
    pub(super) fn calm(&mut self) {
        for i in 0..2 {
            if self.machines.iter().all(|machine| machine.node.is_some()) {
                self.heartbeat(i);
                self.settle_told();
            }
        }
        for choice in self.choices() {
            if choice.is_ordinary() && self.choices().contains(&choice) {
                self.happens(choice);
            }
        }
        if self.machines.iter().all(|machine| machine.node.is_some()) && self.linked_at_all() {
            self.ping();
        }
    }

    fn linked_at_all(&self) -> bool {
        (0..2).any(|i| self.linked(i).is_some())
    }
}

impl Choice {
    /// Whether it happens by itself soon where everything works.
    fn is_ordinary(self) -> bool {
        match self {
            Choice::InForce(_)
            | Choice::Hear
            | Choice::Connect(_)
            | Choice::Copied(_)
            | Choice::Durable(_)
            | Choice::Carry(_)
            | Choice::Acknowledge(_)
            | Choice::Checkpoint(_)
            | Choice::Consult(..)
            | Choice::Ask(..)
            | Choice::Answer(..)
            | Choice::Late(_)
            | Choice::Start(_) => true,
            Choice::GiveUp(_)
            | Choice::Heartbeat(_)
            | Choice::HoldUp(_)
            | Choice::Clock(_)
            | Choice::Calm
            | Choice::Ping
            | Choice::Write(_)
            | Choice::AskTwice(..)
            | Choice::NoAnswer(..)
            | Choice::Power(_)
            | Choice::Boot(_)
            | Choice::Daemon(_)
            | Choice::Die(_)
            | Choice::Witness(_)
            | Choice::Switchover(_)
            | Choice::Stop(_) => false,
        }
    }
}
