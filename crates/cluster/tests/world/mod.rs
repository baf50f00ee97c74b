//! A small deterministic world for the core: two hosts, a network, a witness, a clock.
//!
//! It models only what decisions depend on; file systems and real links are elsewhere. After
//! every event it checks the promises: one author at a time, nothing acknowledged lost.

#![allow(dead_code, reason = "each test binary uses a part of the world")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub mod check;
pub mod replicator;
pub mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::effect::{Event, Outcome, Serve};
use cluster::input::{Boot, BootModule, Command, DataState, JobId, ReplicatorEvent};
use cluster::record::StoredCopy;
use cluster::report::Heartbeat;
use cluster::witness::{Answer, Request, Witness};
use cluster::{Contact, Effect, Input, Node, Record};
use model::config::{
    Ack, ClusterConfig, Compression, FailoverConfig, InUse, ModuleConfig, ModuleKind, NodeConfig,
    ReplicationConfig, Scripts, WithoutWitness,
};
use model::{BootId, ModuleName, NodeName, Time};
use replicator::Replicator;

pub const HEARTBEAT: Duration = Duration::from_millis(100);
const DELAY: Duration = Duration::from_millis(1);

pub struct Host {
    pub name: NodeName,
    pub index: usize,
    pub up: bool,
    pub boot: BootId,
    pub life: u64,
    pub node: Option<Node>,
    pub contact: Contact,
    pub record: Record,
    pub marker: Option<(u128, model::EpochId)>,
    pub disk: bool,
    pub filled: bool,
    /// Records cannot be written.
    pub full: bool,
    pub config_key: u64,
    pub replicator: Replicator,
    pub service: bool,
    /// What the script before a resync has kept, and whether it fails.
    pub kept: Option<check::Tree>,
    pub script_broken: bool,
    pub addresses: bool,
    pub shown: (model::Role, model::Phase),
    /// Stop performing effects after this many, and lose power: a crash inside a batch.
    pub crash_after: Option<usize>,
}

#[derive(Debug, Clone)]
pub enum Happening {
    Pulse(usize),
    Arrive(usize, Box<Heartbeat>),
    AtWitness(usize, Request),
    FromWitness(usize, Request, Option<Answer>),
    Wake(usize),
    Give(usize, Input),
    Link(usize, replicator::Message),
    Chores,
}

pub struct World {
    pub now: Time,
    queue: BTreeMap<(Time, u64), (u64, Happening)>,
    count: u64,
    pub hosts: Vec<Host>,
    pub has_witness: bool,
    pub policy: WithoutWitness,
    pub witness: Witness,
    pub witness_up: bool,
    pub witness_cut: BTreeSet<usize>,
    pub witness_delay: BTreeMap<usize, Duration>,
    pub cut: bool,
    pub cut_heartbeats: bool,
    /// Heartbeats from this host are lost.
    pub mute: Option<usize>,
    pub frozen: [Time; 2],
    pub broken_service: Option<usize>,
    /// How long the script before a resync takes, if there is one.
    pub script: Option<Duration>,
    /// Something happened after which both may hold the address for a while.
    pub loose: bool,
    pub checks: check::Checks,
    pub log: Vec<String>,
    pub events: Vec<(usize, Event)>,
    pub outcomes: BTreeMap<u64, Outcome>,
    jobs: u64,
    pub seed: u64,
    pub writing: bool,
}

fn host_of(what: &Happening) -> Option<usize> {
    match what {
        Happening::Pulse(i)
        | Happening::Arrive(i, _)
        | Happening::FromWitness(i, ..)
        | Happening::Wake(i)
        | Happening::Give(i, _)
        | Happening::Link(i, _) => Some(*i),
        Happening::AtWitness(..) | Happening::Chores => None,
    }
}

pub fn shop() -> ModuleName {
    ModuleName::new("shop").unwrap()
}

impl World {
    pub fn new(seed: u64, has_witness: bool) -> World {
        let host = |index: usize| Host {
            name: NodeName::new(&format!("node{}", index + 1)).unwrap(),
            index,
            up: false,
            boot: BootId(index as u128 + 1),
            life: 0,
            node: None,
            contact: Contact::new(1),
            record: Record::default(),
            marker: None,
            disk: true,
            filled: index == 0,
            full: false,
            config_key: 0,
            replicator: Replicator::default(),
            service: false,
            kept: None,
            script_broken: false,
            addresses: false,
            shown: (model::Role::Stop, model::Phase::Ready),
            crash_after: None,
        };
        let mut world = World {
            now: Time::from_millis(1000),
            queue: BTreeMap::new(),
            count: 0,
            hosts: vec![host(0), host(1)],
            has_witness,
            policy: WithoutWitness::GoOn,
            witness: Witness::default(),
            witness_up: true,
            witness_cut: BTreeSet::new(),
            witness_delay: BTreeMap::new(),
            cut: false,
            cut_heartbeats: false,
            mute: None,
            frozen: [Time::ZERO; 2],
            broken_service: None,
            script: None,
            loose: false,
            checks: check::Checks::default(),
            log: Vec::new(),
            events: Vec::new(),
            outcomes: BTreeMap::new(),
            jobs: 0,
            seed,
            writing: true,
        };
        world.at(world.now, Happening::Chores);
        world
    }

    fn cluster_config(&self) -> ClusterConfig {
        let nodes = self.hosts.iter();
        ClusterConfig {
            cluster: ModuleName::new("lab").unwrap(),
            networks: Vec::new(),
            nodes: nodes
                .map(|h| NodeConfig { name: h.name.clone(), addresses: BTreeMap::new() })
                .collect(),
            witness: self.has_witness.then(|| "127.0.0.1:1".parse().unwrap()),
        }
    }

    fn module_config(&self) -> ModuleConfig {
        ModuleConfig {
            name: shop(),
            kind: ModuleKind::Mirror,
            nodes: self.hosts.iter().map(|h| h.name.clone()).collect(),
            replicate: Vec::new(),
            vips: Vec::new(),
            services: Vec::new(),
            commands: Vec::new(),
            scripts: Scripts {
                before_resync: self.script.map(|_| "keep".to_owned()),
                ..Scripts::default()
            },
            replication: ReplicationConfig {
                ack: Ack::Write,
                stall_timeout: Duration::from_secs(10),
                resync_rate: None,
                compression: Compression::None,
                encrypt: true,
                in_use: InUse::Refuse,
                exclude: Vec::new(),
            },
            failover: FailoverConfig {
                timeout: Duration::from_secs(2),
                without_witness: self.policy,
            },
        }
    }

    /// Starts the daemon of a host; the replicator may have been left running.
    pub fn boot(&mut self, i: usize) {
        let (cluster, config) = (self.cluster_config(), self.module_config());
        let now = self.now;
        let host = &mut self.hosts[i];
        host.up = true;
        host.life += 1;
        host.contact = Contact::new(now.as_nanos());
        let data = match (host.disk, host.marker) {
            (true, Some((root, epoch))) => DataState::Marked { root, epoch },
            (true, None) if host.filled => DataState::Unmarked,
            (true, None) | (false, _) => DataState::Empty,
        };
        let module = BootModule {
            config,
            digest: BTreeMap::from([("vips".to_owned(), host.config_key)]),
            record: host.record.clone(),
            data,
            running: host.replicator.running(host.addresses, host.service),
        };
        let boot = Boot {
            name: host.name.clone(),
            boot: host.boot,
            cluster,
            cluster_digest: 0,
            modules: vec![module],
            seed: u128::from(self.seed) << 64 | u128::from(host.life) << 8 | i as u128,
        };
        let (node, effects) = Node::new(now, boot);
        host.node = Some(node);
        self.perform(i, effects);
        self.tell_looked_back(i);
        self.at(now, Happening::Pulse(i));
        self.plan_wake(i);
    }

    /// Every process of the host dies; its kernel and page cache live on.
    pub fn kill(&mut self, i: usize) {
        let loose = self.loose;
        self.stop_daemon(i);
        self.loose = loose;
        let host = &mut self.hosts[i];
        host.service = false;
        host.addresses = false;
        self.replicator_dies(i);
    }

    pub fn stop_daemon(&mut self, i: usize) {
        self.loose = true;
        let host = &mut self.hosts[i];
        host.node = None;
        host.up = false;
        host.life += 1;
    }

    /// The host loses power: what is not on its disk is gone.
    pub fn power(&mut self, i: usize) {
        self.kill(i);
        let host = &mut self.hosts[i];
        host.boot = BootId(host.boot.0 + 1000);
        let other = self.hosts[1 - i].replicator.tree.clone();
        self.checks.power_lost(i, &mut self.hosts[i].replicator.tree, &other);
    }

    pub fn command(&mut self, i: usize, command: Command) -> Option<u64> {
        if !self.hosts[i].up {
            return None;
        }
        self.jobs += 1;
        let job = JobId(self.jobs);
        self.give(i, Input::Operator { job, module: shop(), command });
        Some(self.jobs)
    }

    pub fn at(&mut self, at: Time, what: Happening) {
        let life = match &what {
            Happening::Pulse(i) | Happening::Wake(i) | Happening::Give(i, _) => self.hosts[*i].life,
            Happening::FromWitness(i, ..) | Happening::AtWitness(i, _) => self.hosts[*i].life,
            Happening::Arrive(..) | Happening::Link(..) | Happening::Chores => 0,
        };
        self.count += 1;
        self.queue.insert((at.max(self.now), self.count), (life, what));
    }

    pub fn after(&mut self, delay: Duration, what: Happening) {
        self.at(self.now + delay, what);
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.queue.keys().next().is_some_and(|(at, _)| *at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Handles the next happening.
    pub fn step(&mut self) {
        let Some(((at, _), (life, what))) = self.queue.pop_first() else {
            return;
        };
        self.now = self.now.max(at);
        if let Some(thaw) = host_of(&what).map(|i| self.frozen[i]).filter(|t| *t > self.now) {
            self.count += 1;
            self.queue.insert((thaw, self.count), (life, what));
            return;
        }
        match what {
            Happening::Pulse(i) if self.alive(i, life) => {
                self.send_heartbeat(i);
                self.after(HEARTBEAT, Happening::Pulse(i));
            }
            Happening::Wake(i) if self.alive(i, life) => {
                let due = self.hosts[i].node.as_ref().and_then(Node::deadline);
                if due.is_some_and(|due| due <= self.now) {
                    self.give(i, Input::Tick);
                }
            }
            Happening::Give(i, input) if self.alive(i, life) => self.give(i, input),
            Happening::FromWitness(i, request, answer) if self.alive(i, life) => {
                self.give(
                    i,
                    match answer {
                        Some(answer) => Input::Witness { module: shop(), request, answer },
                        None => {
                            Input::WitnessUnreachable { module: shop(), why: "no answer".into() }
                        }
                    },
                );
            }
            Happening::AtWitness(i, request) => self.at_witness(i, life, request),
            Happening::Arrive(i, heartbeat) => self.arrive(i, &heartbeat),
            Happening::Link(i, message) => self.link_message(i, message),
            Happening::Chores => {
                self.chores();
                self.after(Duration::from_millis(20), Happening::Chores);
            }
            Happening::Pulse(_)
            | Happening::Wake(_)
            | Happening::Give(..)
            | Happening::FromWitness(..) => {}
        }
        self.verify();
    }

    fn alive(&self, i: usize, life: u64) -> bool {
        self.hosts[i].up && self.hosts[i].life == life
    }

    fn send_heartbeat(&mut self, i: usize) {
        let to = self.hosts[1 - i].name.clone();
        let host = &mut self.hosts[i];
        let Some(node) = &host.node else { return };
        let mut heartbeat = Heartbeat {
            from: host.name.clone(),
            boot: host.boot,
            incarnation: 0,
            sequence: 0,
            echo: 0,
            echo_incarnation: 0,
            cluster_digest: 0,
            reports: node.reports(),
        };
        host.contact.stamp(self.now, &to, &mut heartbeat);
        if !self.cut && !self.cut_heartbeats && self.mute != Some(i) {
            self.after(DELAY, Happening::Arrive(1 - i, Box::new(heartbeat)));
        }
    }

    fn arrive(&mut self, i: usize, heartbeat: &Heartbeat) {
        if !self.hosts[i].up || self.cut || self.cut_heartbeats {
            return;
        }
        let Some((received, echoed)) = self.hosts[i].contact.receive(self.now, heartbeat) else {
            return;
        };
        let heartbeat = Box::new(heartbeat.clone());
        self.give(i, Input::Heartbeat { heartbeat, received, echoed });
    }

    fn at_witness(&mut self, i: usize, life: u64, request: Request) {
        let from = self.hosts[i].name.clone();
        let key = (ModuleName::new("lab").unwrap(), shop());
        let reached = self.witness_up && !self.witness_cut.contains(&i);
        let (delay, answer) = if reached {
            (DELAY, Some(self.witness.handle(&key, &from, request.clone()).1))
        } else {
            (Duration::from_millis(500), None)
        };
        if self.alive(i, life) {
            self.after(delay, Happening::FromWitness(i, request, answer));
        }
    }

    pub fn give(&mut self, i: usize, input: Input) {
        let now = self.now;
        let Some(node) = &mut self.hosts[i].node else {
            return;
        };
        let effects = node.handle(now, input);
        self.perform(i, effects);
        self.plan_wake(i);
    }

    fn plan_wake(&mut self, i: usize) {
        if let Some(at) = self.hosts[i].node.as_ref().and_then(Node::deadline) {
            self.at(at, Happening::Wake(i));
        }
        self.show(i);
    }

    fn perform(&mut self, i: usize, effects: Vec<Effect>) {
        for effect in effects {
            if let Some(left) = &mut self.hosts[i].crash_after {
                if *left == 0 {
                    self.hosts[i].crash_after = None;
                    self.power(i);
                    return;
                }
                *left -= 1;
            }
            if matches!(effect, Effect::Persist { .. }) && self.hosts[i].full {
                let error = "no space left".to_owned();
                self.give(i, Input::PersistFailed { module: shop(), error });
                return;
            }
            self.effect(i, effect);
        }
    }

    fn effect(&mut self, i: usize, effect: Effect) {
        let millis = Duration::from_millis;
        match effect {
            Effect::Persist { record, .. } => {
                let host = &mut self.hosts[i];
                let mixes = |record: &Record| record.copy == StoredCopy::Inconsistent;
                if self.script.is_some() && mixes(&record) && !mixes(&host.record) {
                    let tree = &host.replicator.tree;
                    self.checks.kept(i, host.kept.as_ref(), tree, &self.log);
                }
                host.marker = record.epoch.as_ref().map(|epoch| (record.root, epoch.id));
                host.record = *record;
            }
            Effect::Announce => self.send_heartbeat(i),
            Effect::AskWitness { request, .. } => {
                let delay = self.witness_delay.get(&i).copied().unwrap_or(DELAY);
                self.after(delay, Happening::AtWitness(i, request));
            }
            Effect::Assign { serial, assignment, .. } => self.assigned(i, serial, assignment),
            Effect::SetAddresses { held, .. } => {
                self.hosts[i].addresses = held;
                let set = Input::AddressesSet { module: shop(), held, error: None };
                self.after(millis(5), Happening::Give(i, set));
            }
            Effect::RunService { action, .. } => {
                self.hosts[i].service = action == cluster::effect::ServiceAction::Start;
                let broken = self.hosts[i].service && self.broken_service == Some(i);
                let error = broken.then(|| "it is broken".to_owned());
                let done = Input::ServiceDone { module: shop(), action, error };
                self.after(millis(100), Happening::Give(i, done));
            }
            Effect::PrepareResync { serial, .. } => self.keep(i, serial),
            Effect::Explain(event) => {
                let line = format!("{} {}: {}", self.hosts[i].name, event.code, event.sentence);
                self.note(&line);
                self.events.push((i, event));
            }
            Effect::Answer { job, outcome } => {
                let text = match &outcome {
                    Outcome::Done(text) => format!("done: {text}"),
                    Outcome::Failed(text) => format!("failed: {text}"),
                    Outcome::Refused { why, .. } => format!("refused: {why}"),
                };
                let line = format!("{} answers the operator, {text}", self.hosts[i].name);
                self.note(&line);
                self.outcomes.insert(job.0, outcome);
            }
        }
    }

    pub fn replicator_event(&mut self, i: usize, delay: Duration, event: ReplicatorEvent) {
        self.after(delay, Happening::Give(i, Input::Replicator { module: shop(), event }));
    }

    pub fn status(&self, i: usize) -> Option<cluster::status::ModuleStatus> {
        let node = self.hosts[i].node.as_ref()?;
        node.status(self.now).modules.remove(&shop())
    }

    fn show(&mut self, i: usize) {
        let Some(status) = self.status(i) else { return };
        let shown = (status.role, status.phase);
        if shown != self.hosts[i].shown {
            self.hosts[i].shown = shown;
            let line = format!("{} {} {:?}", self.hosts[i].name, shown.0, shown.1);
            self.note(&line);
        }
    }

    pub fn note(&mut self, line: &str) {
        let millis = self.now.as_millis();
        self.log.push(format!("{:>4}.{:03} {line}", millis / 1000, millis % 1000));
    }

    pub fn serve_in_force(&self, i: usize) -> Option<&Serve> {
        self.hosts[i].replicator.serving()
    }
}
