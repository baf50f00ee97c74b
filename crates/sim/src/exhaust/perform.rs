//! What a step does: effects in order, replicators, writes, the data link.
//!
//! A replicator here is the one of `crate::replicator` without its clock: each thing that it does
//! by itself is a step of its own. Addresses and the application are done with at once, since no
//! promise that is searched for depends on how long they take.

use std::sync::Arc;

use cluster::effect::{Assignment, Effect, Ending, ServiceAction};
use cluster::input::ReplicatorEvent;
use cluster::witness::Request;
use cluster::{Input, Record};

use super::choices::Trap;
use super::pair::{ASKED_MAX, Flight, Pair};
use crate::promises::Other;
use crate::world::shop;

impl Pair {
    /// Tells a daemon something and performs what it wants done.
    pub(super) fn give(&mut self, i: usize, input: Input) {
        let machine = self.machine(i);
        let now = machine.clock;
        let Some(node) = &mut machine.node else { return };
        let effects = Arc::make_mut(node).handle(now, input);
        self.perform(i, effects);
    }

    pub(super) fn perform(&mut self, i: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist { record, .. } => {
                    self.written += 1;
                    if self.trap == Trap::Failure(self.written) {
                        let error = "no space left".to_owned();
                        return self.give(i, Input::PersistFailed { module: shop(), error });
                    }
                    self.persist(i, *record);
                    if self.trap == Trap::Power(self.written) {
                        return self.power(i);
                    }
                }
                Effect::Announce => {
                    let machine = self.machine(i);
                    machine.announced =
                        Arc::new(machine.node.as_ref().map(|n| n.reports()).unwrap_or_default());
                }
                Effect::AskWitness { request, .. } => {
                    if self.is_idle_probe(i, &request) {
                        self.probe(i, request);
                        continue;
                    }
                    let asked = &mut self.asked[i];
                    asked.push(Flight { request, answer: None, orphan: false });
                    if asked.len() > ASKED_MAX {
                        asked.remove(0);
                    }
                }
                Effect::Assign { serial, assignment, .. } => {
                    let side = self.side(i);
                    side.running = true;
                    side.serial = serial;
                    side.told = Some(assignment);
                    side.due = true;
                }
                Effect::SetAddresses { held, .. } => {
                    self.machine(i).addresses = held;
                    self.tell(i, Input::AddressesSet { module: shop(), held, error: None });
                }
                Effect::RunService { action, .. } => {
                    self.machine(i).service = action == ServiceAction::Start;
                    self.tell(i, Input::ServiceDone { module: shop(), action, error: None });
                }
                Effect::Explain(event) => {
                    if let Some(log) = &mut self.log {
                        let name = &self.machines[i].name;
                        log.push(format!("    {name} {}: {}", event.code, event.sentence));
                    }
                }
                Effect::RunChecks { .. }
                | Effect::PrepareResync { .. }
                | Effect::HoldOff { .. }
                | Effect::Pulse { .. }
                | Effect::SetShares { .. }
                | Effect::Answer { .. } => {}
            }
        }
    }

    fn persist(&mut self, i: usize, record: Record) {
        let machine = &self.machines[i];
        let before = machine.record.epoch.as_ref().map(|epoch| epoch.id);
        let opened = record.epoch.as_ref().filter(|epoch| Some(epoch.id) != before);
        if opened.is_some_and(|epoch| epoch.is_sole_member(&machine.name)) {
            // Whoever opens an epoch alone holds everything that was acknowledged before it.
            let peer = [self.machines[1 - i].name.clone()].into();
            let tree = &machine.side.tree;
            let found = Arc::make_mut(&mut self.checks).served(i, tree, &peer, Other::StaysBehind);
            self.judge(found);
        }
        let machine = self.machine(i);
        machine.marker = record.epoch.as_ref().map(|epoch| (record.root, epoch.id));
        machine.record = Arc::new(record);
    }

    /// A daemon is told something as soon as it has done with the present.
    fn tell(&mut self, i: usize, input: Input) {
        let life = self.machines[i].life;
        self.told.push((i, life, input));
    }

    fn event(&mut self, i: usize, event: ReplicatorEvent) {
        self.tell(i, Input::Replicator { module: shop(), event });
    }

    /// Whatever daemons are still to be told.
    pub(super) fn settle_told(&mut self) {
        while !self.told.is_empty() {
            let (i, life, input) = self.told.remove(0);
            if self.machines[i].life == life {
                self.give(i, input);
            }
        }
    }

    /// Replicators obey at once, but for those that are slow; or they do and are not heard.
    pub(super) fn obey(&mut self) {
        for i in [0, 1, 0, 1, 0, 1] {
            if !self.can_come_into_force(i) {
                continue;
            }
            self.come_into_force(i);
            if self.trap == Trap::Unheard {
                self.unheard.append(&mut self.told);
            }
            self.settle_told();
        }
    }

    /// What replicators have said is heard.
    pub(super) fn hear_replicators(&mut self) {
        self.told.append(&mut self.unheard);
        self.settle_told();
    }

    /// Whether a question only keeps an eye on the witness, so that no decision waits for it.
    fn is_idle_probe(&self, i: usize, request: &Request) -> bool {
        let idle = self.machines[i].report().is_some_and(|report| report.session.is_some());
        idle && matches!(request, Request::Probe { .. })
    }

    fn probe(&mut self, i: usize, request: Request) {
        let answer = self.witness_says(i, request.clone());
        self.tell(i, Input::Witness { module: shop(), request, answer });
    }

    /// Whether what a replicator was told can come into force.
    pub(super) fn can_come_into_force(&self, i: usize) -> bool {
        let (side, other) = (&self.machines[i].side, &self.machines[1 - i].side);
        let on_its_way = !side.waiting.is_empty() || !other.inbound.is_empty();
        side.running && side.due && !(self.drains(i) && side.link.is_some() && on_its_way)
    }

    fn drains(&self, i: usize) -> bool {
        let side = &self.machines[i].side;
        side.told == Some(Assignment::Hold { ending: Ending::Drain }) && side.serving().is_some()
    }

    pub(super) fn come_into_force(&mut self, i: usize) {
        let drained = self.drains(i) && self.machines[i].side.link.is_some();
        if drained {
            self.side(0).tree.checkpoint();
            self.side(1).tree.checkpoint();
        }
        let side = self.side(i);
        let (old, told) = (side.session(), side.told.clone());
        side.due = false;
        side.in_force = told.clone();
        let serial = side.serial;
        if !matches!(told, Some(Assignment::Serve(_))) {
            side.waiting.clear();
        }
        if old.is_some() && side.session() != old {
            side.unlink();
        }
        if let Some(Assignment::Serve(serve)) = &told {
            side.tree.checkpoint();
            if self.can_acknowledge(i) {
                let checks = Arc::make_mut(&mut self.checks);
                let found = checks.served(
                    i,
                    &self.machines[i].side.tree,
                    &serve.required,
                    Other::StaysBehind,
                );
                self.judge(found);
            }
            if serve.required.is_empty() {
                for write in std::mem::take(&mut self.side(i).waiting) {
                    Arc::make_mut(&mut self.checks).acknowledge(write, [i == 0, i == 1], false);
                }
            }
        }
        let number = self.machines[i].side.tree.number();
        self.event(i, ReplicatorEvent::Assigned { serial, number, drained });
        if told == Some(Assignment::Close) {
            let side = self.side(i);
            side.tree.checkpoint();
            side.running = false;
        } else {
            self.event(i, ReplicatorEvent::LookedBack { clean: true, found: None });
        }
    }

    /// The session that a replicator could connect for now.
    pub(super) fn connectable(&self, i: usize) -> Option<(model::SessionId, bool)> {
        let side = &self.machines[i].side;
        let session = side.serving().filter(|_| !side.due)?.session.as_ref()?;
        let ready = side.link.is_none() && self.machines[1 - i].side.receives(session.id);
        let fresh = ready && !self.connected.contains(&session.id);
        fresh.then_some((session.id, session.resync))
    }

    pub(super) fn connect(&mut self, i: usize) {
        let Some((session, resync)) = self.connectable(i) else { return };
        Arc::make_mut(&mut self.connected).push(session);
        for side in [i, 1 - i] {
            self.side(side).link = Some(session);
            self.event(side, ReplicatorEvent::LinkUp { session });
        }
        if resync {
            self.side(1 - i).tree.begin_copy();
            self.side(i).synced = false;
            return;
        }
        let trees = [0, 1].map(|side| &self.machines[side].side.tree);
        let found = self.checks.same(trees[0], trees[1]);
        self.judge(found);
        self.side(i).synced = true;
    }

    /// Whether the data link of a source stands.
    pub(super) fn linked(&self, i: usize) -> Option<model::SessionId> {
        let (side, other) = (&self.machines[i].side, &self.machines[1 - i].side);
        side.link.filter(|id| side.serving().is_some() && other.link == Some(*id))
    }

    pub(super) fn copied(&mut self, i: usize) {
        let Some(session) = self.linked(i) else { return };
        let tree = self.machines[i].side.tree.clone();
        self.side(1 - i).tree.become_copy(&tree);
        self.side(i).synced = true;
        let number = tree.number();
        self.event(i, ReplicatorEvent::Synced { session, number });
    }

    pub(super) fn report_durable(&mut self, i: usize) {
        let Some(session) = self.linked(i) else { return };
        let tree = &mut self.side(1 - i).tree;
        tree.checkpoint();
        let number = tree.number();
        self.event(i, ReplicatorEvent::TargetDurable { session, number });
    }

    /// An end of the data link gives it up.
    pub(super) fn give_up_link(&mut self, i: usize) {
        let side = self.side(i);
        let Some(session) = side.link else { return };
        side.unlink();
        let why = "the link is silent".to_owned();
        self.event(i, ReplicatorEvent::LinkLost { session, why });
        if self.drains(i) {
            self.side(i).waiting.clear();
        }
    }

    pub(super) fn can_write(&self, i: usize) -> bool {
        let machine = &self.machines[i];
        machine.service && machine.side.serving().is_some() && !machine.side.due
    }

    pub(super) fn write(&mut self, i: usize) {
        let write = Arc::make_mut(&mut self.checks).next_write();
        let linked = self.linked(i).is_some();
        let side = self.side(i);
        side.tree.apply(write);
        let alone = side.serving().is_some_and(|serve| serve.required.is_empty());
        let sent = side.synced && linked;
        if sent {
            self.side(1 - i).inbound.push(write);
        }
        if alone {
            self.served(i);
            Arc::make_mut(&mut self.checks).acknowledge(write, [i == 0, i == 1], false);
        } else {
            self.side(i).waiting.push(write);
        }
    }

    /// Whoever acknowledges holds everything that was acknowledged before.
    fn served(&mut self, i: usize) {
        let Some(serve) = self.machines[i].side.serving().cloned() else { return };
        let checks = Arc::make_mut(&mut self.checks);
        let found =
            checks.served(i, &self.machines[i].side.tree, &serve.required, Other::StaysBehind);
        self.judge(found);
    }

    /// A write reaches the target.
    pub(super) fn carry(&mut self, i: usize) {
        let side = self.side(i);
        let write = side.inbound.remove(0);
        side.tree.apply(write);
        if self.machines[1 - i].side.link == self.machines[i].side.link {
            self.side(1 - i).acks.push(write);
        }
    }

    /// An acknowledgement reaches the source.
    pub(super) fn acknowledged(&mut self, i: usize) {
        let write = self.side(i).acks.remove(0);
        let (machine, other) = (&self.machines[i], &self.machines[1 - i]);
        let Some(at) = machine.side.waiting.iter().position(|waits| *waits == write) else {
            return;
        };
        let epoch = machine.record.epoch.as_ref();
        // Until the target may promote itself, the source alone vouches.
        let author = epoch.map(|epoch| &epoch.author) == Some(&machine.name);
        let pair = !author || other.record.promotable;
        let session = machine.side.link;
        let receives = session.is_some_and(|session| other.side.receives(session));
        let mut holders = [pair && receives && other.side.tree.holds(write); 2];
        holders[i] = true;
        self.side(i).waiting.remove(at);
        self.served(i);
        Arc::make_mut(&mut self.checks).acknowledge(write, holders, pair);
    }

    pub(super) fn die(&mut self, i: usize) {
        let side = self.side(i);
        side.running = false;
        side.in_force = None;
        side.due = false;
        side.waiting.clear();
        side.unlink();
        self.event(i, ReplicatorEvent::Died { how: "killed".into() });
    }
}

impl super::pair::Side {
    fn unlink(&mut self) {
        self.link = None;
        self.synced = false;
        self.inbound.clear();
        self.acks.clear();
    }
}
