//! A node's machine: what survives the end of a process, of the machine, of a disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::effect::ServiceAction;
use cluster::input::{Boot, BootModule, DataState};
use cluster::isolation::Watch;
use cluster::report::Report;
use cluster::{Contact, Effect, Input, Node, Record};
use model::{BootId, EpochId, ModuleName, NodeName, Phase, Role, Time};

use crate::application::Application;
use crate::clock::Clock;
use crate::configuring::LOOK;
use crate::network::LANDMARK;
use crate::promises::Tree;
use crate::replicator::Replicator;
use crate::world::{Happening, World, shop};

/// One of the two machines.
#[derive(Debug, Clone)]
pub struct Host {
    /// Name of its node.
    pub name: NodeName,
    /// Its place: 0 or 1.
    pub index: usize,
    /// The daemon runs.
    pub up: bool,
    /// Identity of the running boot.
    pub boot: BootId,
    /// Counts daemons, so that what was meant for an earlier one is dropped.
    pub life: u64,
    /// The daemon's core.
    pub node: Option<Node>,
    /// The bookkeeping of its heartbeats.
    pub contact: Contact,
    /// The bookkeeping of its pings.
    pub watch: Watch,
    /// What its heartbeats say.
    pub announced: BTreeMap<ModuleName, Arc<Report>>,
    /// Its record, durable.
    pub record: Record,
    /// A disk of it was replaced, or was to be filled anew.
    pub refilled: bool,
    /// The marker in its directories.
    pub marker: Option<(u128, EpochId)>,
    /// The disk of the data is mounted.
    pub disk: bool,
    /// The directories held something before the first start.
    pub filled: bool,
    /// Records cannot be written.
    pub full: bool,
    /// How long a record takes to be written.
    pub slow: Duration,
    /// A configuration key of the module.
    pub config_key: u64,
    /// The process that replicates, its memory and its disk.
    pub replicator: Replicator,
    /// The application runs.
    pub service: bool,
    /// Of what runs, this is being started: the next daemon would end it.
    pub starting: bool,
    /// What its checks find.
    pub application: Application,
    /// Its part of the light module, if there is one.
    pub(crate) light: Option<crate::light::Light>,
    /// The version of its program.
    pub(crate) program: u32,
    /// Its configurations, if they lie in files.
    pub(crate) files: Option<Box<crate::configuring::Held>>,
    /// Modules of which a record could not be written, not told yet.
    pub(crate) failed: Vec<ModuleName>,
    /// How many of them are being told.
    pub(crate) untold: usize,
    /// Something is to be announced once they are.
    pub(crate) unannounced: bool,
    /// What the script before a resync has kept.
    pub kept: Option<Tree>,
    /// The script before a resync fails.
    pub script_broken: bool,
    /// Its command to hold the other host off fails.
    pub fence_broken: bool,
    /// The address is held.
    pub addresses: bool,
    /// Role and phase told last.
    pub shown: (Role, Phase),
    /// Stop performing effects after this many, and lose power: a crash inside a batch.
    pub crash_after: Option<usize>,
    /// Its own clock.
    pub clock: Clock,
    /// Nothing happens on it until then, and everything afterwards.
    pub frozen: Time,
    /// The daemon waits for its disk until then.
    pub busy: Time,
    /// What waits until it thaws, and what until its daemon listens.
    pub(crate) delayed: [Vec<(u64, Happening)>; 2],
    /// When what was delayed is looked at again.
    pub(crate) thaw: Option<Time>,
    /// Effects that wait for the disk.
    pub backlog: Vec<Effect>,
    /// When the daemon is to be woken next.
    pub wake: Option<Time>,
    /// When the daemon's loop turned last.
    pub ticked: Time,
}

impl Host {
    /// A machine that has never run.
    pub(crate) fn new(index: usize, name: NodeName) -> Host {
        Host {
            name,
            index,
            up: false,
            boot: BootId(index as u128 + 1),
            life: 0,
            node: None,
            contact: Contact::new(1),
            watch: Watch::named(Vec::new()),
            announced: BTreeMap::new(),
            record: Record::default(),
            refilled: false,
            marker: None,
            disk: true,
            filled: index == 0,
            full: false,
            slow: Duration::ZERO,
            config_key: 0,
            replicator: Replicator::default(),
            service: false,
            starting: false,
            application: Application::default(),
            light: None,
            program: 0,
            files: None,
            failed: Vec::new(),
            untold: 0,
            unannounced: false,
            kept: None,
            script_broken: false,
            fence_broken: false,
            addresses: false,
            shown: (Role::Stop, Phase::Ready),
            crash_after: None,
            clock: Clock::default(),
            frozen: Time::ZERO,
            busy: Time::ZERO,
            delayed: [Vec::new(), Vec::new()],
            thaw: None,
            backlog: Vec::new(),
            wake: None,
            ticked: Time::ZERO,
        }
    }

    pub(crate) fn data(&self) -> DataState {
        match (self.disk, self.marker) {
            (true, Some((root, epoch))) => DataState::Marked { root, epoch },
            (true, None) if self.filled => DataState::Unmarked,
            (true, None) | (false, _) => DataState::Empty,
        }
    }
}

impl World {
    /// Starts the daemon of a host; the replicator may have been left running.
    pub fn boot(&mut self, i: usize) {
        self.begin_configured(i);
        let parsed = self.in_use(i).cloned();
        let cluster = parsed.as_ref().map(|parsed| parsed.cluster.clone());
        let cluster = cluster.unwrap_or_else(|| self.cluster_config());
        let known = parsed.as_ref().and_then(|parsed| parsed.modules.get(&shop()).cloned());
        let (config, mut digest) = known.unwrap_or_else(|| (self.module_config(), BTreeMap::new()));
        let own = self.own_time(i);
        if self.hosts[i].addresses && !self.is_calm() {
            self.loosen();
        }
        self.end_what_starts(i);
        let light = self.light_boot(i);
        let host = &mut self.hosts[i];
        host.up = true;
        host.life += 1;
        host.contact = Contact::new(own.as_nanos());
        let running = host.replicator.running(host.addresses, host.service);
        if running.is_none() {
            // What was left over without a replicator is ended before anything is decided.
            host.addresses = false;
            host.service = false;
        }
        digest.insert("vips".to_owned(), host.config_key);
        let module =
            BootModule { config, digest, record: host.record.clone(), data: host.data(), running };
        let boot = Boot {
            name: host.name.clone(),
            boot: host.boot,
            cluster,
            cluster_digest: parsed.map_or(0, |parsed| parsed.cluster_digest),
            modules: std::iter::once(module).chain(light).collect(),
            wall: self.wall + self.now.since(Time::ZERO),
            seed: (u128::from(self.seed) << 64) | (u128::from(host.life) << 8) | i as u128,
        };
        let (node, effects) = Node::new(own, boot);
        host.node = Some(node);
        host.ticked = self.now;
        host.wake = None;
        if let Some(light) = &mut self.hosts[i].light {
            light.new_daemon();
        }
        self.forget_checks(i);
        self.perform(i, effects);
        self.introduce(i);
        self.at(self.now, Happening::Pulse(i));
        if self.hosts[i].files.is_some() {
            self.after(LOOK, Happening::Look(i));
        }
        if self.landmark {
            self.hosts[i].watch = Watch::named(vec![LANDMARK]);
            self.at(self.now, Happening::Ping(i));
        }
        self.plan_wake(i);
    }

    /// Takes note of a start that has ended.
    pub(crate) fn note_started(&mut self, i: usize, input: &Input) {
        let Input::ServiceDone { module, action: ServiceAction::Start, error: None } = input else {
            return;
        };
        let host = &mut self.hosts[i];
        if *module == shop() {
            host.starting = false;
        } else if let Some(light) = &mut host.light {
            light.starting = false;
        }
    }

    /// How far a start had come as a daemon ended, the next one does not know.
    fn end_what_starts(&mut self, i: usize) {
        let host = &mut self.hosts[i];
        host.service &= !host.starting;
        if let Some(light) = &mut host.light {
            light.service &= !light.starting;
        }
    }

    /// Every process of the host dies; its kernel and page cache live on.
    pub fn kill(&mut self, i: usize) {
        self.end_daemon(i);
        self.hosts[i].service = false;
        self.hosts[i].addresses = false;
        if let Some(light) = &mut self.hosts[i].light {
            light.killed();
        }
        self.replicator_dies(i);
    }

    /// The daemon ends; everything else goes on.
    pub fn stop_daemon(&mut self, i: usize) {
        self.loosen();
        self.end_daemon(i);
    }

    /// The same, for so short a time or with so much else that nothing is held for too long by it.
    pub(crate) fn end_daemon(&mut self, i: usize) {
        let host = &mut self.hosts[i];
        host.node = None;
        host.up = false;
        host.life += 1;
        host.backlog.clear();
        host.failed.clear();
        host.untold = 0;
        host.unannounced = false;
        host.busy = Time::ZERO;
    }

    /// The host loses power: what is not on its disk is gone.
    pub fn power(&mut self, i: usize) {
        self.kill(i);
        let other = self.hosts[1 - i].replicator.tree.clone();
        let host = &mut self.hosts[i];
        host.boot = BootId(host.boot.0 + 1000);
        self.checks.power_lost(i, &mut host.replicator.tree, &other);
    }

    /// The host's disk with the data, or its whole machine, is replaced by an empty one.
    pub fn replace_disk(&mut self, i: usize, machine: bool) {
        self.power(i);
        self.checks.disk_lost(i);
        self.disk_lost = true;
        let host = &mut self.hosts[i];
        host.replicator.tree = Tree::default();
        host.replicator.saved = None;
        host.marker = None;
        host.refilled = true;
        host.filled = false;
        if machine {
            host.record = Record::default();
            if let Some(light) = &mut host.light {
                light.replaced();
            }
        }
    }

    /// What a host's own clock shows.
    #[must_use]
    pub fn own_time(&self, i: usize) -> Time {
        self.hosts[i].clock.at(self.now)
    }
}
