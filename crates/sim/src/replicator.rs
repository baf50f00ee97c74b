//! The world's replicators: assignments, a data link, writes and their acknowledgements.
//!
//! The tree is a list of write numbers; comparing two lists is comparing two trees.

use std::time::Duration;

use cluster::Input;
use cluster::effect::{Assignment, Ending, Serve};
use cluster::input::{ReplicatorEvent, Running, ScriptError};
use model::SessionId;

use crate::acknowledging::Calls;
use crate::network::HOP;
use crate::promises::Tree;
use crate::world::{Happening, World, shop};

const RESYNC: Duration = Duration::from_millis(400);
/// How long it takes to look for what was changed past replication.
pub(crate) const LOOK_BACK: Duration = Duration::from_millis(30);
const ASSIGN: Duration = Duration::from_millis(10);
/// Silence after which a replicator gives its link up.
const LINK_SILENCE: Duration = Duration::from_millis(1000);

/// What a replicator is told: by its peer, or by its own machine.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each field is what it is called")]
pub enum Message {
    InForce { serial: u64, process: u64 },
    Write { session: SessionId, write: u64, number: u64 },
    Applied { session: SessionId, number: u64 },
    Sync { session: SessionId, number: u64 },
    Durable { session: SessionId, number: u64 },
    Copied { session: SessionId },
    Silence { session: SessionId },
    LookedBack { process: u64 },
}

/// A replicator: its process, its memory and its disk.
#[derive(Debug, Default, Clone)]
pub struct Replicator {
    /// What is replicated.
    pub tree: Tree,
    process: u64,
    /// The version of its program.
    pub(crate) program: u32,
    pub(crate) running: bool,
    serial: u64,
    pub(crate) told: Option<Assignment>,
    pub(crate) in_force: Option<Assignment>,
    pub(crate) link: Option<SessionId>,
    pub(crate) synced: bool,
    /// What the application waits for.
    pub(crate) calls: Calls,
    looks_back: bool,
    looked_back: bool,
    /// This process has made both copies equal.
    shared: bool,
    /// What a process finds that looks back.
    pub tampered: bool,
    /// A copy of the disk.
    pub saved: Option<Tree>,
    /// The disk has failed, and what is on it is worth nothing.
    pub broken: bool,
    /// The disk is not what this node last made of it.
    pub restored: bool,
}

impl Replicator {
    /// Its disk is copied, as it is with everything written to it. Nobody keeps a mixture.
    pub(crate) fn save(&mut self) {
        let mut saved = Some(self.tree.clone()).filter(|tree| !tree.is_mixed());
        saved.iter_mut().for_each(Tree::checkpoint);
        self.saved = saved;
    }

    /// A process that was given this long ago, with its link to the peer if `linked`.
    pub(crate) fn found(&mut self, assignment: Assignment, linked: bool) {
        self.process = 1;
        self.running = true;
        self.told = Some(assignment.clone());
        self.in_force = Some(assignment);
        self.looks_back = true;
        self.looked_back = true;
        self.shared = linked;
        self.synced = linked;
        self.link = self.session().filter(|_| linked);
        self.tree.burnt.extend(self.link);
    }

    /// What a new daemon finds running: what is in force. What the one before has told last may
    /// still be under way.
    #[must_use]
    pub fn running(&self, addresses: bool, service: bool) -> Option<Running> {
        let nothing = Assignment::Hold { ending: Ending::Cut };
        let assignment = self.running.then(|| self.in_force.clone().unwrap_or(nothing))?;
        Some(Running { assignment, addresses, service, farm: None })
    }

    /// What it serves.
    #[must_use]
    pub fn serving(&self) -> Option<&Serve> {
        match &self.in_force {
            Some(Assignment::Serve(serve)) => Some(serve),
            _ => None,
        }
    }

    fn session(&self) -> Option<SessionId> {
        match &self.in_force {
            Some(Assignment::Serve(serve)) => serve.session.as_ref().map(|s| s.id),
            Some(Assignment::Receive { session, .. }) => Some(*session),
            _ => None,
        }
    }

    pub(crate) fn receives(&self, id: SessionId) -> bool {
        matches!(&self.in_force, Some(Assignment::Receive { session, .. }) if *session == id)
    }
}

impl World {
    /// The daemon assigns something, starting the process if need be.
    pub fn assigned(&mut self, i: usize, serial: u64, assignment: Assignment) {
        let program = self.hosts[i].program;
        let replicator = &mut self.hosts[i].replicator;
        if !replicator.running {
            replicator.running = true;
            replicator.program = program;
            replicator.looks_back = false;
            replicator.looked_back = false;
            replicator.shared = false;
            replicator.process += 1;
        }
        replicator.serial = serial;
        replicator.told = Some(assignment);
        let process = replicator.process;
        self.after(ASSIGN, Happening::Link(i, Message::InForce { serial, process }));
    }

    /// The script before a resync keeps the tree as it is, unless it is broken.
    pub fn keep(&mut self, i: usize, serial: u64) {
        let tree = self.hosts[i].replicator.tree.clone();
        let found = self.checks.worth_keeping(i, &tree);
        self.judge(found);
        let broken = self.hosts[i].script_broken;
        if !broken {
            self.hosts[i].kept = Some(tree);
        }
        let error = broken.then(|| ScriptError {
            how: "ended with exit status: 1".to_owned(),
            said: vec!["no room for a snapshot".to_owned()],
        });
        let ended = Input::ResyncPrepared { module: shop(), serial, error };
        self.after(self.script.unwrap_or_default(), Happening::Give(i, ended));
    }

    /// The process dies.
    pub fn replicator_dies(&mut self, i: usize) {
        let link = self.hosts[i].replicator.link.take();
        let replicator = &mut self.hosts[i].replicator;
        let was = replicator.running;
        replicator.running = false;
        replicator.in_force = None;
        replicator.calls = Calls::default();
        if let Some(session) = link {
            self.end_link(1 - i, session);
        }
        if was {
            let event = ReplicatorEvent::Died { how: "killed".into() };
            self.replicator_event(i, HOP, event);
        }
    }

    /// A message reaches a replicator.
    pub(crate) fn link_message(&mut self, i: usize, message: Message) {
        match message {
            Message::InForce { serial, process } => {
                let replicator = &self.hosts[i].replicator;
                let fits = replicator.running && replicator.serial == serial;
                if fits && replicator.process == process {
                    self.put_in_force(i, serial);
                }
            }
            Message::Silence { session } => self.lose_link(i, session),
            Message::LookedBack { process } => {
                let replicator = &mut self.hosts[i].replicator;
                if replicator.process == process {
                    replicator.looked_back = true;
                    self.tell_looked_back(i);
                }
            }
            Message::Write { session, .. }
            | Message::Applied { session, .. }
            | Message::Sync { session, .. }
            | Message::Durable { session, .. }
                if self.network.link_dead() =>
            {
                self.break_link(session);
            }
            Message::Write { .. } | Message::Sync { .. } => self.received(i, &message),
            Message::Applied { session, number } => self.confirmed(i, session, number),
            Message::Durable { session, number } => self.durable(i, session, number),
            Message::Copied { session } => self.copied(i, session),
        }
    }

    fn put_in_force(&mut self, i: usize, serial: u64) {
        let told = self.hosts[i].replicator.told.clone();
        let old = self.hosts[i].replicator.session();
        let served = self.hosts[i].replicator.serving().is_some();
        let replicator = &mut self.hosts[i].replicator;
        let drains = matches!(told, Some(Assignment::Hold { ending: Ending::Drain }));
        if drains && replicator.serving().is_some() && replicator.link.is_some() {
            self.finish_drain(i);
            return;
        }
        replicator.in_force = told.clone();
        if !matches!(told, Some(Assignment::Serve(_))) {
            replicator.calls.cut();
        }
        let new = replicator.session();
        if let Some(session) = old.filter(|old| Some(*old) != new) {
            replicator.link = None;
            replicator.synced = false;
            self.end_link(1 - i, session);
        }
        if let Some(Assignment::Serve(serve)) = &told {
            let replicator = &mut self.hosts[i].replicator;
            replicator.tree.checkpoint();
            let (heeded, other) = (self.can_acknowledge(i), self.other());
            let replicator = &mut self.hosts[i].replicator;
            if heeded {
                let found = self.checks.served(i, &replicator.tree, &serve.required, other);
                self.judge(found);
            }
            self.require(i, serve, served);
        }
        if told == Some(Assignment::Close) {
            self.hosts[i].replicator.tree.checkpoint();
            self.hosts[i].replicator.running = false;
        } else {
            self.look_back(i);
        }
        self.say_assigned(i, serial, false);
    }

    /// Begins to look for what was changed past replication, once per process.
    fn look_back(&mut self, i: usize) {
        let replicator = &mut self.hosts[i].replicator;
        if matches!(replicator.told, Some(Assignment::Serve(_))) {
            replicator.restored = false;
            replicator.broken = false;
        }
        if replicator.looked_back {
            return self.tell_looked_back(i);
        }
        if !std::mem::replace(&mut replicator.looks_back, true) {
            let process = replicator.process;
            if replicator.restored {
                self.tell_restored(i);
            }
            self.after(self.look_back, Happening::Link(i, Message::LookedBack { process }));
        }
    }

    /// Tells a new daemon what an earlier one may have missed.
    pub(crate) fn introduce(&mut self, i: usize) {
        if self.hosts[i].replicator.running && self.hosts[i].replicator.restored {
            self.tell_restored(i);
        }
        self.tell_looked_back(i);
        let replicator = &self.hosts[i].replicator;
        if !replicator.running {
            return;
        }
        let (serves, synced) = (replicator.serving().is_some(), replicator.synced);
        let number = replicator.tree.number();
        match (replicator.session(), replicator.link) {
            (_, Some(session)) => {
                self.replicator_event(i, Duration::ZERO, ReplicatorEvent::LinkUp { session });
                if serves && synced {
                    let event = ReplicatorEvent::Synced { session, number };
                    self.replicator_event(i, Duration::ZERO, event);
                }
            }
            (Some(session), None) => {
                let why = "the link was lost while no daemon listened".to_owned();
                let event = ReplicatorEvent::LinkLost { session, why };
                self.replicator_event(i, Duration::ZERO, event);
            }
            (None, None) => {}
        }
    }

    /// Some find something, which is compared if they say so. A new daemon is told again.
    fn tell_looked_back(&mut self, i: usize) {
        let replicator = &self.hosts[i].replicator;
        if replicator.running && replicator.looked_back {
            let strayed = replicator.process % 4 == 3 || replicator.tampered;
            let clean = replicator.shared || !strayed;
            let found = (!clean).then(|| "changed past replication: a file".to_owned());
            let event = ReplicatorEvent::LookedBack { clean, found };
            self.replicator_event(i, Duration::ZERO, event);
        }
    }

    pub(crate) fn say_assigned(&mut self, i: usize, serial: u64, drained: bool) {
        let number = self.hosts[i].replicator.tree.number();
        let event = ReplicatorEvent::Assigned { serial, number, drained };
        self.replicator_event(i, Duration::ZERO, event);
    }

    pub(crate) fn finish_drain(&mut self, i: usize) {
        let replicator = &mut self.hosts[i].replicator;
        let draining = replicator.told == Some(Assignment::Hold { ending: Ending::Drain })
            && replicator.running;
        if !draining || replicator.in_force == replicator.told || !replicator.calls.are_answered() {
            return;
        }
        let serial = replicator.serial;
        let drained = replicator.link.is_some();
        replicator.in_force = replicator.told.clone();
        let link = replicator.link.take();
        replicator.tree.checkpoint();
        if let Some(session) = link {
            self.hosts[1 - i].replicator.tree.checkpoint();
            self.end_link(1 - i, session);
        }
        self.say_assigned(i, serial, drained);
    }

    /// The other side learns that a session is over: behind what was sent, or by silence.
    fn end_link(&mut self, to: usize, session: SessionId) {
        if self.network.link_dead() {
            self.after(LINK_SILENCE, Happening::Link(to, Message::Silence { session }));
        } else {
            self.carry(to, Message::Silence { session });
        }
    }

    fn lose_link(&mut self, i: usize, session: SessionId) {
        let replicator = &mut self.hosts[i].replicator;
        if replicator.session() != Some(session) {
            return;
        }
        replicator.link = None;
        replicator.synced = false;
        self.forget_confirmed(i);
        let event = ReplicatorEvent::LinkLost { session, why: "the link is silent".into() };
        self.replicator_event(i, Duration::ZERO, event);
        if self.hosts[i].replicator.told == Some(Assignment::Hold { ending: Ending::Drain }) {
            let replicator = &mut self.hosts[i].replicator;
            replicator.calls.cut();
            self.finish_drain(i);
        }
    }

    /// Called every 20 ms: connects, pings, writes, makes durable.
    pub fn chores(&mut self) {
        for i in 0..2 {
            if self.hosts[i].frozen > self.now {
                continue;
            }
            self.connect(i);
            self.write(i);
            self.report_durable(i);
        }
        let millis = self.now.as_millis() / 20;
        for i in 0..2 {
            if millis % 50 == 7 * i as u64 {
                let host = &mut self.hosts[i];
                host.replicator.tree.checkpoint();
            }
        }
        let ready = (model::Role::Prim, model::Phase::Ready);
        let links = [0, 1].map(|i| self.hosts[i].replicator.link);
        let linked = links[0].is_some() && links[0] == links[1];
        let whole = self.hosts.iter().all(|host| host.up && !host.replicator.broken);
        let shown = self.hosts.iter().any(|host| host.shown == ready);
        if millis % 10 == 3 && linked && whole && shown {
            let trees = [&self.hosts[0].replicator.tree, &self.hosts[1].replicator.tree];
            self.checks.protected(trees);
        }
    }

    fn connect(&mut self, i: usize) {
        let Some(serve) = self.hosts[i].replicator.serving() else {
            return;
        };
        let Some(session) = serve.session.clone() else {
            return;
        };
        let target_ready = self.hosts[1 - i].replicator.receives(session.id);
        let linked = self.hosts[i].replicator.link == Some(session.id);
        if linked && self.network.link_dead() {
            self.break_link(session.id);
            return;
        }
        if linked {
            self.ping();
            return;
        }
        let fresh = self.hosts[i].replicator.told == self.hosts[i].replicator.in_force;
        let lost = self.hosts[i].replicator.tree.burnt.contains(&session.id);
        if !target_ready || !self.replicators_agree() || self.network.link_dead() || !fresh || lost
        {
            return;
        }
        self.hosts[i].replicator.tree.burnt.insert(session.id);
        self.check_rules();
        for side in 0..2 {
            self.hosts[side].replicator.link = Some(session.id);
            let event = ReplicatorEvent::LinkUp { session: session.id };
            self.replicator_event(side, HOP, event);
        }
        self.forget_confirmed(i);
        if session.resync {
            self.keep_aside(i);
            self.hosts[1 - i].replicator.tree.begin_copy();
            self.hosts[i].replicator.synced = false;
            let copied = Message::Copied { session: session.id };
            self.after(RESYNC, Happening::Link(i, copied));
        } else {
            let (mine, theirs) = (&self.hosts[i], &self.hosts[1 - i]);
            let found = self.checks.same(&mine.replicator.tree, &theirs.replicator.tree);
            self.judge(found);
            self.hosts[i].replicator.synced = true;
            self.holds_all(i, session.id);
        }
    }

    /// A stream that has lost something never goes on: both ends hear nothing any more.
    fn break_link(&mut self, session: SessionId) {
        for side in 0..2 {
            let link = &mut self.hosts[side].replicator.link;
            if *link == Some(session) {
                *link = None;
                let silence = Message::Silence { session };
                self.after(LINK_SILENCE, Happening::Link(side, silence));
            }
        }
    }

    fn copied(&mut self, i: usize, session: SessionId) {
        let linked = self.hosts[i].replicator.link == Some(session);
        if !linked || !self.hosts[1 - i].replicator.receives(session) {
            return;
        }
        if self.network.link_dead() {
            return self.break_link(session);
        }
        self.checks.copied(1 - i);
        let tree = self.hosts[i].replicator.tree.clone();
        self.hosts[1 - i].replicator.tree.become_copy(&tree);
        self.hosts[1 - i].replicator.restored = false;
        self.hosts[1 - i].replicator.broken = false;
        for side in 0..2 {
            self.hosts[side].replicator.shared = true;
        }
        self.hosts[i].replicator.synced = true;
        self.holds_all(i, session);
        let number = tree.number();
        self.replicator_event(i, HOP, ReplicatorEvent::Synced { session, number });
    }

    fn report_durable(&mut self, i: usize) {
        let replicator = &self.hosts[i].replicator;
        let Some(session) = replicator.link.filter(|_| replicator.synced) else {
            return;
        };
        let number = self.hosts[1 - i].replicator.tree.number();
        if self.now.as_millis() % 100 < 20 && !self.network.link_dead() {
            self.hosts[1 - i].replicator.tree.checkpoint();
            self.replicator_event(i, HOP, ReplicatorEvent::TargetDurable { session, number });
        }
    }

    fn ping(&mut self) {
        for side in 0..2 {
            // By the clock of the host, which may be slow.
            let received = self.own_time(side);
            let echoed = Some(received - HOP);
            let module = shop();
            let ping = cluster::Input::DataLink { module, received, echoed };
            self.after(HOP, Happening::Give(side, ping));
        }
    }

    /// Whether the node's replicator could acknowledge a write now.
    pub fn can_acknowledge(&self, i: usize) -> bool {
        let replicator = &self.hosts[i].replicator;
        let Some(serve) = replicator.serving() else {
            return false;
        };
        let peer = &self.hosts[1 - i].replicator;
        let linked = replicator.link.is_some_and(|id| peer.receives(id));
        serve.required.is_empty() || linked
    }
}
