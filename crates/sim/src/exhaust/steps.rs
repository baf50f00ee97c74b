//! Lets a step happen: whose turn it is, and the budget of what is rare.
//!
//! What replicators and the data link do is in `perform`; what can happen, in `choices`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::input::{Command, JobId};
use cluster::witness::{Answer, Request, Witness};
use cluster::{Effect, Input, Node};
use model::{ModuleName, Time};

use super::choices::{Choice, OfWitness, Step, Trap};
use super::pair::{Flight, Pair};
use crate::world::shop;

/// A clock is let run no further than this without anything coming of it.
const IDLE_MAX: Duration = Duration::from_secs(12);

/// What works by itself comes to an end within so many rounds.
const CALM_MAX: usize = 12;

/// What of a step something else could befall.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Records written in it.
    pub(super) written: u8,
    /// A replicator had something to obey.
    pub(super) due: bool,
}

impl Pair {
    /// Lets a step happen.
    pub(super) fn take(&mut self, step: Step) -> Taken {
        self.trap = step.trap;
        self.written = 0;
        match step.trap {
            Trap::None => {}
            Trap::Power(_) => self.left.powers -= 1,
            Trap::Failure(_) => self.left.failures -= 1,
            Trap::Slow | Trap::Unheard => self.left.slow -= 1,
        }
        self.happen(step.choice);
        if step.trap == Trap::Unheard && matches!(step.choice, Choice::Copied(_)) {
            self.unheard.append(&mut self.told);
        }
        self.settle_told();
        let due = self.machines.iter().any(|machine| machine.side.due);
        if step.trap != Trap::Slow {
            self.obey();
        }
        self.verify();
        Taken { written: self.written, due }
    }

    fn happen(&mut self, choice: Choice) {
        self.spend(choice);
        match choice {
            Choice::Heartbeat(i) => self.heartbeat(i),
            Choice::HoldUp(i) => self.late[i] = Some(Arc::new(self.next_heartbeat(i))),
            Choice::Late(i) => self.hear_late(i),
            Choice::Clock(i) => self.run_clock(i),
            Choice::InForce(i) => self.come_into_force(i),
            Choice::Hear => self.hear_replicators(),
            Choice::Connect(i) => self.connect(i),
            Choice::Copied(i) => self.copied(i),
            Choice::Durable(i) => self.report_durable(i),
            Choice::Ping => self.ping(),
            Choice::GiveUp(i) => self.give_up_link(i),
            Choice::Write(i) => self.write(i),
            Choice::Carry(i) => self.carry(i),
            Choice::Acknowledge(i) => self.acknowledged(i),
            Choice::Checkpoint(i) => self.side(i).tree.checkpoint(),
            Choice::Consult(i, k) => {
                let Flight { request, .. } = self.asked[i].remove(k);
                let answer = self.witness_says(i, request.clone());
                self.give(i, Input::Witness { module: shop(), request, answer });
            }
            Choice::Ask(i, k) => self.ask(i, k, false),
            Choice::AskTwice(i, k) => self.ask(i, k, true),
            Choice::Answer(i, k) => self.answer(i, k),
            Choice::NoAnswer(i, k) => self.no_answer(i, k),
            Choice::Power(i) => self.power(i),
            Choice::Boot(i) => self.boot(i),
            Choice::Daemon(i) => {
                self.orphan(i);
                self.boot(i);
            }
            Choice::Die(i) => self.die(i),
            Choice::Witness(what) => self.befall_witness(what),
            Choice::Calm => self.calm_down(),
            Choice::Switchover(i) => self.command(i, Command::Switchover),
            Choice::Stop(i) => self.command(i, Command::Stop),
            Choice::Start(i) => self.command(i, Command::Start),
        }
    }

    /// What is rare has a budget.
    fn spend(&mut self, choice: Choice) {
        let left = &mut self.left;
        match choice {
            Choice::HoldUp(_) => left.late -= 1,
            Choice::Ping => left.pings -= 1,
            Choice::GiveUp(_) => {
                let whole = self.machines[0].side.link == self.machines[1].side.link;
                left.silences -= u8::from(whole);
            }
            Choice::Write(_) => left.writes -= 1,
            Choice::Ask(i, k) => {
                // One that is slow twice in the same step is slow once.
                let slow = u8::from(!self.asked[i][k].orphan);
                left.slow = left.slow.saturating_sub(slow);
            }
            Choice::AskTwice(..) => left.twice -= 1,
            Choice::NoAnswer(..) => left.given_up -= 1,
            Choice::Power(_) => left.powers -= 1,
            Choice::Daemon(_) => left.daemons -= 1,
            Choice::Die(_) => left.deaths -= 1,
            Choice::Witness(OfWitness::Restart) => left.restarts -= 1,
            Choice::Witness(OfWitness::Rewind | OfWitness::Empty) => left.rewinds -= 1,
            Choice::Calm => left.calms -= 1,
            Choice::Switchover(_) => left.switchovers -= 1,
            Choice::Stop(_) => left.stops -= 1,
            Choice::Heartbeat(_)
            | Choice::Late(_)
            | Choice::Clock(_)
            | Choice::InForce(_)
            | Choice::Hear
            | Choice::Connect(_)
            | Choice::Copied(_)
            | Choice::Durable(_)
            | Choice::Carry(_)
            | Choice::Acknowledge(_)
            | Choice::Checkpoint(_)
            | Choice::Consult(..)
            | Choice::Answer(..)
            | Choice::Boot(_)
            | Choice::Start(_) => {}
        }
    }

    fn hear_late(&mut self, i: usize) {
        if let Some(heartbeat) = self.late[i].take() {
            self.hear(1 - i, &heartbeat);
        }
    }

    fn answer(&mut self, i: usize, k: usize) {
        let Flight { request, answer, .. } = self.asked[i].remove(k);
        if let Some(answer) = answer {
            self.give(i, Input::Witness { module: shop(), request, answer });
        }
    }

    pub(super) fn command(&mut self, i: usize, command: Command) {
        self.give(i, Input::Operator { job: JobId(1), module: shop(), command });
    }

    fn befall_witness(&mut self, what: OfWitness) {
        let registers = match what {
            OfWitness::Restart => self.witness.registers(),
            OfWitness::Rewind => BTreeMap::clone(&self.saved),
            OfWitness::Empty => BTreeMap::new(),
        };
        // A question travels along a connection to the process that was asked.
        self.asked.iter_mut().for_each(|asked| asked.retain(|flight| flight.answer.is_some()));
        self.witness = Arc::new(Witness::new(registers));
    }

    /// Everything that works by itself does so, until nothing comes of it.
    fn calm_down(&mut self) {
        // Nothing rare happens meanwhile.
        let left = std::mem::take(&mut self.left);
        let mut before = self.stamp();
        for _ in 0..CALM_MAX {
            self.calm();
            let now = self.stamp();
            if now == before {
                break;
            }
            before = now;
        }
        self.left = left;
    }

    fn next_heartbeat(&mut self, i: usize) -> cluster::report::Heartbeat {
        let to = self.machines[1 - i].name.clone();
        let machine = self.machine(i);
        let mut heartbeat = machine.heartbeat(BTreeMap::clone(&machine.announced));
        Arc::make_mut(&mut machine.contact).stamp(machine.clock, &to, &mut heartbeat);
        heartbeat
    }

    pub(super) fn heartbeat(&mut self, i: usize) {
        let heartbeat = self.next_heartbeat(i);
        self.hear(1 - i, &heartbeat);
    }

    fn hear(&mut self, i: usize, heartbeat: &cluster::report::Heartbeat) {
        let machine = self.machine(i);
        if machine.node.is_none() {
            return;
        }
        let Some((received, echoed)) =
            Arc::make_mut(&mut machine.contact).receive(machine.clock, heartbeat)
        else {
            return;
        };
        let heartbeat = Box::new(heartbeat.clone());
        self.give(i, Input::Heartbeat { heartbeat, received, echoed });
    }

    /// A clock runs until something comes of it, or long in vain.
    fn run_clock(&mut self, i: usize) {
        let end = self.machines[i].clock + IDLE_MAX;
        while let Some(effects) = self.tick(i, end) {
            let matters = |effect: &Effect| !matches!(effect, Effect::Explain(_));
            let came = effects.iter().any(matters);
            self.perform(i, effects);
            if came {
                return;
            }
        }
    }

    /// A clock runs to the next deadline of its node.
    fn tick(&mut self, i: usize, end: Time) -> Option<Vec<Effect>> {
        let machine = self.machine(i);
        let due = machine.node.as_deref().and_then(Node::deadline)?.max(machine.clock);
        if due > end {
            return None;
        }
        machine.clock = due;
        Some(Arc::make_mut(machine.node.as_mut()?).handle(due, Input::Tick))
    }

    /// Both clocks run for a while.
    pub(super) fn pass(&mut self, duration: Duration) {
        for i in 0..2 {
            let end = self.machines[i].clock + duration;
            while let Some(effects) = self.tick(i, end) {
                self.perform(i, effects);
            }
            self.machine(i).clock = end;
        }
    }

    pub(super) fn ping(&mut self) {
        for i in 0..2 {
            let (module, received): (ModuleName, Time) = (shop(), self.machines[i].clock);
            self.give(i, Input::DataLink { module, received, echoed: Some(received) });
        }
    }

    pub(super) fn witness_says(&mut self, i: usize, request: Request) -> Answer {
        let key = (shop(), shop());
        let from = self.machines[i].name.clone();
        Arc::make_mut(&mut self.witness).handle(&key, &from, request).1
    }

    fn ask(&mut self, i: usize, k: usize, again: bool) {
        let mut flight = self.asked[i].remove(k);
        let answer = self.witness_says(i, flight.request.clone());
        if again {
            self.asked[i].push(Flight { orphan: true, ..flight.clone() });
        }
        if !flight.orphan {
            flight.answer = Some(answer);
            self.asked[i].push(flight);
        }
    }

    /// The question, or its answer, may still be under way.
    fn no_answer(&mut self, i: usize, k: usize) {
        let flight = &mut self.asked[i][k];
        flight.orphan = true;
        if flight.answer.is_some() {
            self.asked[i].remove(k);
        }
        let why = "no answer".to_owned();
        self.give(i, Input::WitnessUnreachable { module: shop(), why });
    }
}
