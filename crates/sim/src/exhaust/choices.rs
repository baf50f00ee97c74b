//! What can happen next, each as small as it can be, and how it is told.
//!
//! There is no choice for what is lost: whatever never happens was lost. There is none for a cut
//! either, for a cut network is one that carries nothing. A node's clock runs when it is chosen to,
//! and never otherwise, so that no order of timers is left out. What a choice does is in `steps`.

use std::fmt;

use model::{Phase, Role};

use super::pair::Pair;

/// What can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is told by `Display`")]
pub enum Choice {
    Heartbeat(usize),
    HoldUp(usize),
    Late(usize),
    Clock(usize),
    InForce(usize),
    Hear,
    Connect(usize),
    Copied(usize),
    Durable(usize),
    Ping,
    GiveUp(usize),
    Write(usize),
    Carry(usize),
    Acknowledge(usize),
    Checkpoint(usize),
    Consult(usize, usize),
    Ask(usize, usize),
    AskTwice(usize, usize),
    Answer(usize, usize),
    NoAnswer(usize, usize),
    Power(usize),
    Boot(usize),
    Daemon(usize),
    Die(usize),
    Calm,
    Witness(OfWitness),
    Switchover(usize),
    Stop(usize),
    Start(usize),
}

/// What befalls the witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfWitness {
    /// It is started anew.
    Restart,
    /// It is put back to the state of the pair's first protection.
    Rewind,
    /// It forgets everything.
    Empty,
}

/// What befalls a record that is written in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trap {
    /// Nothing.
    None,
    /// The power fails as soon as the record of this number is durable.
    Power(u8),
    /// The record of this number cannot be written.
    Failure(u8),
    /// No replicator obeys in this step.
    Slow,
    /// What replicators say of having obeyed is not heard in this step.
    Unheard,
}

/// A choice, and what befalls a record written in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What happens.
    pub choice: Choice,
    /// What befalls a record.
    pub trap: Trap,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = |i: usize| format!("node{}", i + 1);
        let text = match self.choice {
            Choice::Heartbeat(i) => format!("a heartbeat of {} arrives", node(i)),
            Choice::HoldUp(i) => format!("a heartbeat of {} is held up", node(i)),
            Choice::Late(i) => format!("the late heartbeat of {} arrives", node(i)),
            Choice::Clock(i) => format!("the clock of {} runs", node(i)),
            Choice::InForce(i) => format!("the replicator of {} obeys", node(i)),
            Choice::Hear => "what replicators said is heard".to_owned(),
            Choice::Connect(i) => format!("the data link of {} comes up", node(i)),
            Choice::Copied(i) => format!("the copy from {} is complete", node(i)),
            Choice::Durable(i) => format!("{} hears that all is durable at its target", node(i)),
            Choice::Ping => "the data link carries a ping".to_owned(),
            Choice::GiveUp(i) => format!("{} gives its data link up", node(i)),
            Choice::Write(i) => format!("the application writes on {}", node(i)),
            Choice::Carry(i) => format!("a write reaches {}", node(i)),
            Choice::Acknowledge(i) => format!("an acknowledgement reaches {}", node(i)),
            Choice::Checkpoint(i) => format!("{} makes everything durable", node(i)),
            Choice::Consult(i, _) => format!("{} asks the witness and is answered", node(i)),
            Choice::Ask(i, _) => format!("a question of {} reaches the witness", node(i)),
            Choice::AskTwice(i, _) => {
                format!("a question of {} reaches the witness, and will again", node(i))
            }
            Choice::Answer(i, _) => format!("the witness's answer reaches {}", node(i)),
            Choice::NoAnswer(i, _) => format!("{} gives up waiting for the witness", node(i)),
            Choice::Power(i) => format!("{} loses power", node(i)),
            Choice::Boot(i) => format!("{} is switched on", node(i)),
            Choice::Daemon(i) => format!("the daemon of {} is started anew", node(i)),
            Choice::Die(i) => format!("the replicator of {} dies", node(i)),
            Choice::Calm => "everything works for a moment".to_owned(),
            Choice::Witness(OfWitness::Restart) => "the witness is started anew".to_owned(),
            Choice::Witness(OfWitness::Rewind) => "the witness is put back".to_owned(),
            Choice::Witness(OfWitness::Empty) => "the witness forgets everything".to_owned(),
            Choice::Switchover(i) => format!("the operator switches over from {}", node(i)),
            Choice::Stop(i) => format!("the operator stops {}", node(i)),
            Choice::Start(i) => format!("the operator starts {}", node(i)),
        };
        f.write_str(&text)?;
        match self.trap {
            Trap::None => Ok(()),
            Trap::Power(n) => write!(f, "; the power fails after {n} records"),
            Trap::Failure(n) => write!(f, "; record {n} cannot be written"),
            Trap::Unheard => write!(f, "; what replicators say of it is not heard yet"),
            Trap::Slow => write!(f, "; replicators are slow to obey"),
        }
    }
}

impl Pair {
    /// Everything that can happen next.
    pub(super) fn choices(&self) -> Vec<Choice> {
        let mut found = Vec::with_capacity(24);
        for i in 0..2 {
            self.of_machine(i, &mut found);
            self.of_link(i, &mut found);
            self.of_witness(i, &mut found);
        }
        self.of_both(&mut found);
        found
    }

    fn up(&self, i: usize) -> bool {
        self.machines[i].node.is_some()
    }

    fn of_machine(&self, i: usize, found: &mut Vec<Choice>) {
        let left = &self.left;
        if !self.up(i) {
            found.push(Choice::Boot(i));
            return;
        }
        found.push(Choice::Clock(i));
        if self.up(1 - i) {
            found.push(Choice::Heartbeat(i));
        }
        if self.late[i].is_some() {
            found.push(Choice::Late(i));
        } else if left.late > 0 {
            found.push(Choice::HoldUp(i));
        }
        if left.powers > 0 {
            found.push(Choice::Power(i));
        }
        if left.daemons > 0 {
            found.push(Choice::Daemon(i));
        }
        if left.deaths > 0 && self.machines[i].side.running {
            found.push(Choice::Die(i));
        }
        let Some(report) = self.machines[i].report() else { return };
        let serves = (report.role, report.phase) == (Role::Prim, Phase::Ready);
        if left.switchovers > 0 && serves {
            found.push(Choice::Switchover(i));
        }
        if left.stops > 0 && self.machines[i].record.started {
            found.push(Choice::Stop(i));
        }
        if !self.machines[i].record.started && report.role == Role::Stop {
            found.push(Choice::Start(i));
        }
    }

    fn of_link(&self, i: usize, found: &mut Vec<Choice>) {
        let (side, other) = (&self.machines[i].side, &self.machines[1 - i].side);
        if self.can_come_into_force(i) {
            found.push(Choice::InForce(i));
        }
        if self.connectable(i).is_some() {
            found.push(Choice::Connect(i));
        }
        if self.linked(i).is_some() {
            let received = other.inbound.is_empty();
            found.push(if !side.synced { Choice::Copied(i) } else { Choice::Durable(i) });
            if received && self.left.pings > 0 && self.up(0) && self.up(1) {
                found.push(Choice::Ping);
            }
        }
        if side.link.is_some() && (side.link != other.link || self.left.silences > 0) {
            found.push(Choice::GiveUp(i));
        }
        if self.left.writes > 0 && self.can_write(i) {
            found.push(Choice::Write(i));
        }
        if !side.inbound.is_empty() && side.link.is_some() {
            found.push(Choice::Carry(i));
        }
        if !side.acks.is_empty() && side.link.is_some() {
            found.push(Choice::Acknowledge(i));
        }
        if !side.tree.is_durable() {
            found.push(Choice::Checkpoint(i));
        }
    }

    fn of_witness(&self, i: usize, found: &mut Vec<Choice>) {
        for (k, flight) in self.asked[i].iter().enumerate() {
            if flight.answer.is_some() {
                found.push(Choice::Answer(i, k));
            } else {
                found.push(if flight.orphan { Choice::Ask(i, k) } else { Choice::Consult(i, k) });
                if self.left.slow > 0 && !flight.orphan {
                    found.push(Choice::Ask(i, k));
                }
                if self.left.twice > 0 {
                    found.push(Choice::AskTwice(i, k));
                }
            }
            if !flight.orphan && self.left.given_up > 0 {
                found.push(Choice::NoAnswer(i, k));
            }
        }
    }

    fn of_both(&self, found: &mut Vec<Choice>) {
        if self.left.restarts > 0 {
            found.push(Choice::Witness(OfWitness::Restart));
        }
        if self.left.rewinds > 0 {
            found.push(Choice::Witness(OfWitness::Rewind));
            found.push(Choice::Witness(OfWitness::Empty));
        }
        if !self.unheard.is_empty() {
            found.push(Choice::Hear);
        }
        if self.left.calms > 0 {
            found.push(Choice::Calm);
        }
    }
}
