//! The world: what is in it, what happens next, and the loop that lets it happen.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::effect::{Event, Outcome, Serve};
use cluster::input::{Command, JobId};
use cluster::record::StoredCopy;
use cluster::report::Heartbeat;
use cluster::status::ModuleStatus;
use cluster::witness::{Answer, Key, Register, Request, Witness};
use cluster::{Input, Node};
use model::config::{
    Ack, AfterDoubleCrash, CheckConfig, FailoverMode, Keep, ModuleConfig, WithoutWitness,
};
use model::{ModuleName, Time};

use crate::configuring::{Ask, Decided, Told};
use crate::dice::Dice;
use crate::host::Host;
use crate::names::node_name;
pub use crate::names::shop;
use crate::network::Network;
use crate::promises::{Checks, Finding, Other, Promise, Violation};
use crate::replicator::{LOOK_BACK, Message};

/// Time between two heartbeats.
pub const HEARTBEAT: Duration = Duration::from_millis(100);
/// Time between two looks at what goes on without being asked: links, writes, checkpoints.
const CHORES: Duration = Duration::from_millis(20);
/// More than any bound after which a node has dropped its address.
const LOOSE_MAX: Duration = Duration::from_secs(30);

/// Something that is to happen.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    /// A host sends its heartbeat.
    Pulse(usize),
    /// A host pings.
    Ping(usize),
    /// A host's command to hold the other one off ends.
    HeldOff(usize, u64),
    /// A heartbeat, of a program of this version, reaches a host.
    Arrive(usize, Box<(u32, Heartbeat)>),
    /// A host's question reaches the witness.
    AtWitness(usize, Request),
    /// The witness's answer, or its absence, reaches a host.
    FromWitness(usize, Request, Option<Answer>),
    /// A host's deadline may have passed.
    Wake(usize),
    /// A daemon is told something.
    Give(usize, Input),
    /// A replicator is told something.
    Link(usize, Message),
    /// A host's disk has done what its daemon waited for.
    Resume(usize),
    /// A host's daemon looks at its configuration, and at the peer's.
    Look(usize),
    /// A daemon that has ended for a new configuration begins again.
    Anew(usize),
    /// A question about configurations reaches a host, from the daemon of this life.
    Ask(usize, Box<(u64, Ask)>),
    /// Its answer reaches the host that asked.
    Answer(usize, Box<(Ask, Told)>),
    /// A host may have thawed, or its daemon's disk answered.
    Thaw(usize),
    /// Whatever goes on by itself.
    Chores,
}

impl Happening {
    /// The host where it happens, and whether it is the daemon's business alone.
    fn place(&self) -> Option<(usize, bool)> {
        match self {
            Happening::Wake(i) | Happening::Give(i, _) | Happening::FromWitness(i, ..) => {
                Some((*i, true))
            }
            Happening::Pulse(i)
            | Happening::Ping(i)
            | Happening::HeldOff(i, _)
            | Happening::Arrive(i, _)
            | Happening::Resume(i)
            | Happening::Look(i)
            | Happening::Anew(i)
            | Happening::Ask(i, _)
            | Happening::Answer(i, _)
            | Happening::Link(i, _) => Some((*i, false)),
            Happening::AtWitness(..) | Happening::Thaw(_) | Happening::Chores => None,
        }
    }
}

/// The world.
#[derive(Clone)]
pub struct World {
    /// The world's own time.
    pub now: Time,
    /// Boxed, for whatever comes in between moves what comes later.
    queue: BTreeMap<(Time, u64), (u64, Box<Happening>)>,
    count: u64,
    /// The two hosts.
    pub hosts: Vec<Host>,
    /// What lies between them.
    pub network: Network,
    /// A witness is configured.
    pub has_witness: bool,
    /// What a node does when there is none.
    pub policy: WithoutWitness,
    /// How long the command takes that holds the other host off, if there is one.
    pub fence: Option<Duration>,
    /// What a node does that went down uncleanly and hears nobody.
    pub after_crash: AfterDoubleCrash,
    /// When the application is answered.
    pub ack: Ack,
    /// Whose data are kept once both nodes have gone on alone.
    pub keep: Keep,
    /// There is something to ping.
    pub landmark: bool,
    /// A node takes over by itself, or on the operator's word only.
    pub mode: FailoverMode,
    /// The host that is to run the application.
    pub preferred: Option<usize>,
    /// What the clock on the wall showed when the world's own time began.
    pub wall: Duration,
    /// The module's configuration, where it is not the usual one.
    pub(crate) config: Option<ModuleConfig>,
    /// The witness.
    pub witness: Witness,
    /// A copy of what the witness kept.
    pub witness_saved: BTreeMap<Key, Register>,
    /// How often the witness was asked something.
    pub asked: u64,
    /// The host whose application does not start.
    pub broken_service: Option<usize>,
    /// The checks of the module.
    pub checked: Vec<CheckConfig>,
    /// How long the script before a resync takes, if there is one.
    pub script: Option<Duration>,
    /// How long it takes to look for what was changed past replication.
    pub look_back: Duration,
    /// Something happened after which both may hold the address until then.
    pub(crate) loose_until: Time,
    /// Nothing that happens is a reason for another node than this one to serve.
    pub steady: Option<usize>,
    /// A disk was lost, put back, or failed.
    pub disk_lost: bool,
    /// What must hold.
    pub checks: Checks,
    /// The first broken promise; nothing happens any more after it.
    pub violation: Option<Violation>,
    /// What happened, one line each.
    pub log: Vec<String>,
    /// What the nodes explained.
    pub events: Vec<(usize, Event)>,
    /// What became of the operator's jobs.
    pub outcomes: BTreeMap<u64, Outcome>,
    jobs: u64,
    /// What is known of configurations in files.
    pub(crate) decided: Decided,
    /// Seed of whatever is left to chance.
    pub seed: u64,
    /// Chance of the network.
    pub chance: Dice,
    /// The application writes.
    pub writing: bool,
    /// How much has happened.
    pub happened: u64,
}

impl World {
    /// Two hosts that have never run, and a witness perhaps.
    #[must_use]
    pub fn new(seed: u64, has_witness: bool) -> World {
        let mut world = World {
            now: Time::from_millis(1000),
            queue: BTreeMap::new(),
            count: 0,
            hosts: vec![Host::new(0, node_name(0)), Host::new(1, node_name(1))],
            network: Network::new(),
            has_witness,
            policy: WithoutWitness::GoOn,
            ack: Ack::Write,
            landmark: false,
            after_crash: AfterDoubleCrash::Wait,
            keep: Keep::Manual,
            fence: None,
            wall: Duration::ZERO,
            mode: FailoverMode::Automatic,
            preferred: None,
            config: None,
            witness: Witness::default(),
            witness_saved: BTreeMap::new(),
            asked: 0,
            broken_service: None,
            checked: Vec::new(),
            script: None,
            look_back: LOOK_BACK,
            loose_until: Time::ZERO,
            steady: None,
            disk_lost: false,
            checks: Checks::default(),
            violation: None,
            log: Vec::new(),
            events: Vec::new(),
            outcomes: BTreeMap::new(),
            jobs: 0,
            decided: Decided::default(),
            seed,
            chance: Dice::new(seed ^ 0x00c0_ffee),
            writing: true,
            happened: 0,
        };
        world.at(world.now, Happening::Chores);
        world
    }

    /// The operator commands something, if the daemon is there to hear it.
    pub fn command(&mut self, i: usize, command: Command) -> Option<u64> {
        self.command_of(i, shop(), command)
    }

    pub(crate) fn command_of(&mut self, i: usize, of: ModuleName, command: Command) -> Option<u64> {
        if !self.hosts[i].up {
            return None;
        }
        self.jobs += 1;
        let job = JobId(self.jobs);
        self.give_when_free(i, Input::Operator { job, module: of, command });
        Some(self.jobs)
    }

    /// Lets something happen at a moment, or at once if that has passed.
    pub(crate) fn at(&mut self, at: Time, what: Happening) {
        let life = match &what {
            Happening::Pulse(i)
            | Happening::Ping(i)
            | Happening::HeldOff(i, _)
            | Happening::Wake(i)
            | Happening::Give(i, _)
            | Happening::Resume(i)
            | Happening::Look(i)
            | Happening::Anew(i)
            | Happening::FromWitness(i, ..)
            | Happening::AtWitness(i, _) => self.hosts[*i].life,
            Happening::Ask(..)
            | Happening::Answer(..)
            | Happening::Arrive(..)
            | Happening::Link(..)
            | Happening::Thaw(_)
            | Happening::Chores => 0,
        };
        self.put(at, life, what);
    }

    pub(crate) fn put(&mut self, at: Time, life: u64, what: Happening) {
        self.count += 1;
        self.queue.insert((at.max(self.now), self.count), (life, Box::new(what)));
    }

    /// Lets something happen after a while.
    pub(crate) fn after(&mut self, delay: Duration, what: Happening) {
        self.at(self.now + delay, what);
    }

    /// Lets happen what happens within a time, or until a promise is broken.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.violation.is_none() && self.queue.keys().next().is_some_and(|(at, _)| *at <= end)
        {
            self.step();
        }
        self.now = end;
    }

    /// Lets the next thing happen.
    pub fn step(&mut self) {
        let Some(((at, _), (life, what))) = self.queue.pop_first() else {
            return;
        };
        self.now = self.now.max(at);
        self.happened += 1;
        if let Some((i, of_daemon)) = self.delayed(&what) {
            self.hosts[i].delayed[usize::from(of_daemon)].push((life, *what));
            return;
        }
        self.happen(life, *what);
        self.verify();
    }

    /// The host, if something cannot happen because its host is frozen or its daemon waits, and
    /// whether it is the daemon's business. What waits happens later in the same order.
    fn delayed(&mut self, what: &Happening) -> Option<(usize, bool)> {
        let (i, of_daemon) = what.place()?;
        let host = &self.hosts[i];
        let until = if of_daemon { host.frozen.max(host.busy) } else { host.frozen };
        if until > self.now {
            if host.thaw.is_none_or(|at| at <= self.now || at > until) {
                self.hosts[i].thaw = Some(until);
                self.at(until, Happening::Thaw(i));
            }
            return Some((i, of_daemon));
        }
        (!host.delayed[usize::from(of_daemon)].is_empty()).then_some((i, of_daemon))
    }

    /// What was delayed on a host happens now, as far as nothing delays it any more.
    fn thaw(&mut self, i: usize) {
        self.hosts[i].thaw = None;
        for queue in [0, 1] {
            let delayed = std::mem::take(&mut self.hosts[i].delayed[queue]);
            for (life, what) in delayed {
                match self.delayed(&what) {
                    Some(_) => self.hosts[i].delayed[queue].push((life, what)),
                    None => self.happen(life, what),
                }
                self.verify();
            }
        }
    }

    fn happen(&mut self, life: u64, what: Happening) {
        match what {
            Happening::Pulse(i) if self.alive(i, life) => {
                self.send_heartbeat(i);
                self.after(HEARTBEAT, Happening::Pulse(i));
            }
            Happening::Ping(i) if self.alive(i, life) => self.ping_landmark(i),
            Happening::HeldOff(i, serial) if self.alive(i, life) => self.hold_off(i, serial),
            Happening::Wake(i) if self.alive(i, life) => {
                let own = self.own_time(i);
                let due = self.hosts[i].node.as_ref().and_then(Node::deadline);
                if self.hosts[i].wake.is_none_or(|at| at > self.now) {
                    return;
                }
                self.hosts[i].wake = None;
                match due {
                    Some(due) if due <= own => self.give(i, Input::Tick),
                    // The clock has been made slower meanwhile.
                    Some(_) | None => self.plan_wake(i),
                }
            }
            Happening::Give(i, input) if self.alive(i, life) => self.give(i, input),
            Happening::Resume(i) if self.alive(i, life) => self.resume(i),
            Happening::FromWitness(i, request, answer) if self.alive(i, life) => {
                let module = shop();
                let why = "no answer".to_owned();
                let input = match answer {
                    Some(answer) => Input::Witness { module, request, answer },
                    None => Input::WitnessUnreachable { module, why },
                };
                self.give(i, input);
            }
            Happening::AtWitness(i, request) => self.at_witness(i, life, request),
            Happening::Arrive(i, sent) => self.arrive(i, sent.0, &sent.1),
            Happening::Link(i, message) => self.link_message(i, message),
            Happening::Look(i) if self.alive(i, life) => self.look_at_configurations(i),
            Happening::Anew(i) if self.hosts[i].life == life => self.comes_anew(i),
            Happening::Ask(i, told) => self.asked(i, told.0, told.1),
            Happening::Answer(i, told) if self.alive(i, life) => self.answered(i, told.0, told.1),
            Happening::Thaw(i) => self.thaw(i),
            Happening::Chores => {
                self.chores();
                self.after(CHORES, Happening::Chores);
            }
            Happening::Pulse(_)
            | Happening::Ping(_)
            | Happening::HeldOff(..)
            | Happening::Wake(_)
            | Happening::Give(..)
            | Happening::Resume(_)
            | Happening::Look(_)
            | Happening::Anew(_)
            | Happening::Answer(..)
            | Happening::FromWitness(..) => {}
        }
    }

    pub(crate) fn alive(&self, i: usize, life: u64) -> bool {
        self.hosts[i].up && self.hosts[i].life == life
    }

    /// Tells a daemon something, as soon as it listens.
    pub(crate) fn give_when_free(&mut self, i: usize, input: Input) {
        let life = self.hosts[i].life;
        let told = Happening::Give(i, input);
        if self.delayed(&told).is_some() {
            self.hosts[i].delayed[1].push((life, told));
        } else {
            self.happen(life, told);
        }
    }

    /// Tells a daemon something and performs what it wants done.
    pub fn give(&mut self, i: usize, input: Input) {
        if self.is_refused(i, &input) {
            return;
        }
        self.light_hears(i, &input);
        self.note_started(i, &input);
        let own = self.own_time(i);
        let now = self.now;
        let host = &mut self.hosts[i];
        let Some(node) = &mut host.node else {
            return;
        };
        host.ticked = now;
        let effects = node.handle(own, input);
        self.perform(i, effects);
        self.plan_wake(i);
    }

    pub(crate) fn plan_wake(&mut self, i: usize) {
        let host = &self.hosts[i];
        let due = host.node.as_ref().and_then(Node::deadline);
        if let Some(at) = due.map(|due| host.clock.when(due).max(self.now))
            && host.wake != Some(at)
        {
            self.hosts[i].wake = Some(at);
            self.at(at, Happening::Wake(i));
        }
        self.show(i);
    }

    /// What a node would show of the module.
    #[must_use]
    pub fn status(&self, i: usize) -> Option<ModuleStatus> {
        let node = self.hosts[i].node.as_ref()?;
        node.status_of(self.own_time(i), &shop())
    }

    fn show(&mut self, i: usize) {
        self.show_light(i);
        let shown = self.hosts[i].node.as_ref().and_then(|node| node.role(&shop()));
        let Some(shown) = shown else { return };
        if shown != self.hosts[i].shown {
            self.hosts[i].shown = shown;
            let line = format!("{} {} {:?}", self.hosts[i].name, shown.0, shown.1);
            self.note(&line);
        }
    }

    /// Adds a line to what happened.
    pub fn note(&mut self, line: &str) {
        let millis = self.now.as_millis();
        self.log.push(format!("{:>4}.{:03} {line}", millis / 1000, millis % 1000));
    }

    /// What a host's replicator serves, if it does.
    #[must_use]
    pub fn serve_in_force(&self, i: usize) -> Option<&Serve> {
        self.hosts[i].replicator.serving()
    }

    /// Whether both nodes have gone on without the other, or may, as the configuration lets them.
    pub(crate) fn other(&self) -> Other {
        if self.keep != Keep::LongestServing {
            return Other::StaysBehind;
        }
        let [one, two] = [0, 1].map(|i| &self.hosts[i].record);
        let (Some(a), Some(b)) = (&one.epoch, &two.epoch) else { return Other::MayGoOn };
        let related = a.id == b.id || one.lineage.contains(b.id) || two.lineage.contains(a.id);
        let whole = [one, two].iter().all(|record| record.copy == StoredCopy::Current);
        if related || !whole { Other::MayGoOn } else { Other::Apart }
    }

    /// Both may hold the address until the longest bound has passed.
    pub(crate) fn loosen(&mut self) {
        self.loosen_from(self.now);
    }

    /// The same from then on.
    pub(crate) fn loosen_from(&mut self, then: Time) {
        self.loose_until = self.loose_until.max(then + LOOSE_MAX);
    }

    /// Whether both may hold the address: a daemon that is away, stands still or waits for its disk
    /// drops it late.
    pub(crate) fn is_loose(&self) -> bool {
        let late = |host: &Host| {
            let away = !host.up && host.addresses;
            away || !host.slow.is_zero() || host.frozen > self.now
        };
        self.now < self.loose_until || self.hosts.iter().any(late)
    }

    /// Takes down a broken promise; only the first one counts.
    pub(crate) fn judge(&mut self, found: Finding) {
        if let Err((promise, what)) = found {
            self.violate(promise, what);
        }
    }

    /// A promise is broken.
    pub fn violate(&mut self, promise: Promise, what: String) {
        if self.violation.is_none() {
            self.note(&format!("BROKEN: {}: {what}", promise.sentence()));
            self.violation = Some(Violation { promise, at: self.now, what });
        }
    }
}
