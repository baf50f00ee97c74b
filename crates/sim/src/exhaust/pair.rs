//! The smallest cluster as a value that can be copied: two machines, their witness, and all that is
//! under way between them.
//!
//! The decisions are those of production (`cluster::Node`, `cluster::Contact`,
//! `cluster::witness::Witness`). Nothing here happens by itself and nothing takes time: what can
//! happen next is in `choices`. Files are a list of writes, as in the rest of this crate.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use cluster::effect::{Assignment, Serve};
use cluster::input::{Boot, BootModule, DataState, Running};
use cluster::report::{Heartbeat, Report};
use cluster::witness::{Answer, Key, Register, Request, Witness};
use cluster::{Contact, Input, Node, Record};
use model::config::{ClusterConfig, ModuleConfig};
use model::{BootId, EpochId, ModuleName, NodeName, Phase, Role, SessionId, Time};

use super::stamp::Stamp;
use crate::promises::{Checks, Finding, Promise, Tree};
use crate::world::{World, shop};

/// Questions of one node that are under way; older ones are lost.
pub(super) const ASKED_MAX: usize = 2;

/// How much of what is rare may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// Writes of the application.
    pub writes: u8,
    /// Machines that lose power, in the middle of a batch of effects too.
    pub powers: u8,
    /// Records that cannot be written.
    pub failures: u8,
    /// Daemons that end and are started anew over a replicator that goes on.
    pub daemons: u8,
    /// Replicators that die.
    pub deaths: u8,
    /// Ends of the data link that give it up, for whatever reason.
    pub silences: u8,
    /// Pings of the data link.
    pub pings: u8,
    /// Questions that a node gives up waiting for.
    pub given_up: u8,
    /// Steps after which a replicator has not obeyed yet, or was not heard yet, and answers that
    /// take their time.
    pub slow: u8,
    /// Heartbeats that are held up, and arrive late.
    pub late: u8,
    /// Questions that reach the witness twice.
    pub twice: u8,
    /// The witness is started anew.
    pub restarts: u8,
    /// The witness is put back to the state in which the search began, or emptied.
    pub rewinds: u8,
    /// Switchovers that the operator commands.
    pub switchovers: u8,
    /// Moments in which everything works, as one step.
    pub calms: u8,
    /// Stops that the operator commands; each may be followed by a start.
    pub stops: u8,
}

/// A question to the witness that is under way, or its answer.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) request: Request,
    pub(super) answer: Option<Answer>,
    /// Nobody waits for the answer any more.
    pub(super) orphan: bool,
}

/// A replicator: its process, its memory and its disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Side {
    pub(super) running: bool,
    pub(super) serial: u64,
    pub(super) told: Option<Assignment>,
    pub(super) in_force: Option<Assignment>,
    /// What it was told last is not in force yet.
    pub(super) due: bool,
    pub(super) link: Option<SessionId>,
    pub(super) synced: bool,
    pub(super) tree: Tree,
    /// Writes that wait for the peer.
    pub(super) waiting: Vec<u64>,
    /// Writes on their way to this replicator.
    pub(super) inbound: Vec<u64>,
    /// Acknowledgements on their way to it.
    pub(super) acks: Vec<u64>,
}

/// One of the two machines.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) name: NodeName,
    pub(super) node: Option<Arc<Node>>,
    pub(super) contact: Arc<Contact>,
    pub(super) announced: Arc<BTreeMap<ModuleName, Arc<Report>>>,
    pub(super) clock: Time,
    pub(super) boot: u64,
    pub(super) life: u64,
    pub(super) record: Arc<Record>,
    pub(super) marker: Option<(u128, EpochId)>,
    pub(super) side: Side,
    pub(super) addresses: bool,
    pub(super) service: bool,
}

/// The smallest cluster.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) machines: [Arc<Machine>; 2],
    pub(super) witness: Arc<Witness>,
    /// What the witness held when the search began.
    pub(super) saved: Arc<BTreeMap<Key, Register>>,
    pub(super) asked: [Vec<Flight>; 2],
    pub(super) late: [Option<Arc<Heartbeat>>; 2],
    /// Sessions that were connected once: none is a second time.
    pub(super) connected: Arc<Vec<SessionId>>,
    pub(super) left: Budget,
    pub(super) checks: Arc<Checks>,
    /// The broken promise.
    pub(super) found: Option<(Promise, String)>,
    /// What is still to be told to daemons before anything else happens.
    pub(super) told: Vec<(usize, u64, Input)>,
    /// What replicators have said, and their daemons have not heard yet.
    pub(super) unheard: Vec<(usize, u64, Input)>,
    /// Counts the records written in the present step.
    pub(super) written: u8,
    /// What is to befall one of them.
    pub(super) trap: super::choices::Trap,
    /// What nodes explained, if that is to be told.
    pub(super) log: Option<Vec<String>>,
    configs: Arc<(ClusterConfig, ModuleConfig)>,
}

impl Machine {
    pub(super) fn report(&self) -> Option<&Report> {
        self.node.as_ref()?;
        self.announced.get(&shop()).map(|report| &**report)
    }

    pub(super) fn heartbeat(&self, reports: BTreeMap<ModuleName, Arc<Report>>) -> Heartbeat {
        Heartbeat {
            from: self.name.clone(),
            boot: BootId(u128::from(self.boot)),
            incarnation: 0,
            sequence: 0,
            echo: 0,
            echo_incarnation: 0,
            cluster_digest: 0,
            configuration: model::config::Stand::default(),
            reports,
        }
    }

    fn stamp(&self, stamp: &mut Stamp) {
        stamp.at(self.clock);
        stamp.take(&self.node.as_deref());
        if self.node.is_none() {
            stamp.take(&*self.record);
        }
        stamp.take(&(self.addresses, self.service));
        let side = &self.side;
        stamp.take(&(side.running, side.due, side.synced));
        stamp.take(&(&side.told, &side.in_force, &side.link));
        stamp.take(&(&side.waiting, &side.inbound, &side.acks));
    }
}

impl Side {
    pub(super) fn serving(&self) -> Option<&Serve> {
        match &self.in_force {
            Some(Assignment::Serve(serve)) => Some(serve),
            _ => None,
        }
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        match &self.in_force {
            Some(Assignment::Serve(serve)) => serve.session.as_ref().map(|session| session.id),
            Some(Assignment::Receive { session, .. }) => Some(*session),
            _ => None,
        }
    }

    pub(super) fn receives(&self, id: SessionId) -> bool {
        matches!(&self.in_force, Some(Assignment::Receive { session, .. }) if *session == id)
    }
}

/// Only derived hashes go through this.
struct Through<'a>(&'a mut Stamp);

impl Hasher for Through<'_> {
    fn finish(&self) -> u64 {
        self.0.value()
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0.number(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0.number(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.0.number(number as u64);
    }
}

impl Pair {
    /// Two machines that have never run, both switched on and started by the operator.
    pub(super) fn new() -> Pair {
        // The world knows what a usual configuration is.
        let world = World::new(1, true);
        let configs = Arc::new((world.cluster_config(), world.module_config()));
        let machine = |i: usize| Machine {
            name: world.hosts[i].name.clone(),
            node: None,
            contact: Arc::new(Contact::new(1)),
            announced: Arc::default(),
            clock: Time::from_millis(1000),
            boot: i as u64 + 1,
            life: 0,
            record: Arc::default(),
            marker: None,
            side: Side::default(),
            addresses: false,
            service: false,
        };
        Pair {
            machines: [Arc::new(machine(0)), Arc::new(machine(1))],
            witness: Arc::new(Witness::default()),
            saved: Arc::default(),
            asked: [Vec::new(), Vec::new()],
            late: [None, None],
            connected: Arc::new(Vec::new()),
            left: Budget::default(),
            checks: Arc::new(Checks::default()),
            found: None,
            told: Vec::new(),
            unheard: Vec::new(),
            written: 0,
            trap: super::choices::Trap::None,
            log: None,
            configs,
        }
    }

    pub(super) fn machine(&mut self, i: usize) -> &mut Machine {
        Arc::make_mut(&mut self.machines[i])
    }

    pub(super) fn side(&mut self, i: usize) -> &mut Side {
        &mut self.machine(i).side
    }

    /// Two states with the same stamp have the same future.
    pub(super) fn stamp(&self) -> u64 {
        let mut stamp = Stamp::new();
        for machine in &self.machines {
            machine.stamp(&mut stamp);
            let offered = machine.side.session().is_some_and(|id| self.connected.contains(&id));
            stamp.number(u64::from(offered));
        }
        for i in 0..2 {
            self.stamp_contact(i, &mut stamp);
            for flight in &self.asked[i] {
                stamp.take(&(&flight.request, &flight.answer, flight.orphan));
            }
            stamp.number(13);
        }
        stamp.take(&*self.witness);
        for (i, life, input) in &self.unheard {
            if self.machines[*i].life == *life {
                stamp.take(&(i, input));
            }
        }
        let mut through = Through(&mut stamp);
        for machine in &self.machines {
            machine.side.tree.hash(&mut through);
        }
        self.checks.hash(&mut through);
        self.left.hash(&mut through);
        stamp.value()
    }

    /// What would come of the next heartbeat, and of the one that is held up.
    fn stamp_contact(&self, i: usize, stamp: &mut Stamp) {
        let (from, to) = (&self.machines[i], &self.machines[1 - i]);
        stamp.at(to.clock);
        if from.node.is_some() && to.node.is_some() {
            let mut heartbeat = from.heartbeat(BTreeMap::new());
            Contact::clone(&from.contact).stamp(from.clock, &to.name, &mut heartbeat);
            stamp.take(&Contact::clone(&to.contact).receive(to.clock, &heartbeat));
        }
        if let Some(late) = &self.late[i] {
            stamp.take(&late.reports);
            stamp.take(&late.boot);
            stamp.take(&Contact::clone(&to.contact).receive(to.clock, late));
        }
        stamp.number(17);
    }

    /// Switches a machine on, or starts a daemon anew where one has ended.
    pub(super) fn boot(&mut self, i: usize) {
        let configs = Arc::clone(&self.configs);
        let machine = self.machine(i);
        machine.life += 1;
        machine.clock = machine.clock + std::time::Duration::from_millis(1);
        machine.contact = Arc::new(Contact::new(machine.clock.as_nanos()));
        let assignment = machine.side.told.clone().filter(|_| machine.side.running);
        let (addresses, service) = (machine.addresses, machine.service);
        let running =
            assignment.map(|assignment| Running { assignment, addresses, service, farm: None });
        if running.is_none() {
            machine.addresses = false;
            machine.service = false;
        }
        let data = match machine.marker {
            Some((root, epoch)) => DataState::Marked { root, epoch },
            None if i == 0 => DataState::Unmarked,
            None => DataState::Empty,
        };
        let module = BootModule {
            config: configs.1.clone(),
            digest: BTreeMap::new(),
            record: Record::clone(&machine.record),
            data,
            running,
        };
        let boot = Boot {
            name: machine.name.clone(),
            boot: BootId(u128::from(machine.boot)),
            cluster: configs.0.clone(),
            cluster_digest: 0,
            modules: vec![module],
            wall: std::time::Duration::ZERO,
            seed: (u128::from(machine.life) << 8) | i as u128,
        };
        let (node, effects) = Node::new(machine.clock, boot);
        machine.node = Some(Arc::new(node));
        self.perform(i, effects);
    }

    /// A machine loses power: what is not on its disk is gone.
    pub(super) fn power(&mut self, i: usize) {
        let other = self.machines[1 - i].side.tree.clone();
        let machine = self.machine(i);
        machine.node = None;
        machine.life += 1;
        machine.boot += 2;
        machine.announced = Arc::default();
        machine.addresses = false;
        machine.service = false;
        let mut tree = std::mem::take(&mut machine.side).tree;
        Arc::make_mut(&mut self.checks).power_lost(i, &mut tree, &other);
        self.side(i).tree = tree;
        self.orphan(i);
    }

    /// Nobody waits for answers of the witness any more.
    pub(super) fn orphan(&mut self, i: usize) {
        self.asked[i].retain(|flight| flight.answer.is_none());
        self.asked[i].iter_mut().for_each(|flight| flight.orphan = true);
    }

    pub(super) fn judge(&mut self, found: Finding) {
        if let Err(broken) = found
            && self.found.is_none()
        {
            self.found = Some(broken);
        }
    }

    /// Whether a node's replicator could acknowledge a write now.
    pub(super) fn can_acknowledge(&self, i: usize) -> bool {
        let side = &self.machines[i].side;
        let Some(serve) = side.serving() else { return false };
        let peer = &self.machines[1 - i].side;
        serve.required.is_empty()
            || side.link.is_some_and(|id| peer.receives(id) && peer.link == Some(id))
    }

    /// Checked after every step.
    pub(super) fn verify(&mut self) {
        if self.can_acknowledge(0) && self.can_acknowledge(1) {
            self.judge(Err((Promise::OneNodeAcknowledges, "both nodes can".to_owned())));
        }
        let links = [0, 1].map(|i| self.machines[i].side.link);
        let shown = |i: usize| {
            self.machines[i]
                .report()
                .is_some_and(|r| (r.role, r.phase) == (Role::Prim, Phase::Ready))
        };
        let up = self.machines.iter().all(|machine| machine.node.is_some());
        if up && links[0].is_some() && links[0] == links[1] && (shown(0) || shown(1)) {
            let machines = self.machines.clone();
            let trees = [&machines[0].side.tree, &machines[1].side.tree];
            Arc::make_mut(&mut self.checks).protected(trees);
        }
    }
}
