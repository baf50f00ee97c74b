//! A simulated world for farms: several nodes, their kernels and the network between them.
//!
//! It runs the very code that runs in production. A kernel is what it was told last, some time
//! after it was told; it outlives a daemon, and not a machine. After each event the promises of
//! `promises` are looked at. What befalls the farm is a list of faults from a seed, in `plan`.
//! Packets of clients are not here: the lab has real ones.

mod plan;
mod promises;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::farm::{Farm, Left, Part, Pulse, Settings, Shares, Told, Wish};
use model::config::Delivery;
use model::{BootId, NodeName, Time};

pub use plan::{Fault, Plan, Run, shrink};
pub use promises::{FarmPromise, FarmViolation};

use crate::dice::Dice;

/// Time between two pulses.
pub const PULSE: Duration = Duration::from_millis(50);
/// Silence after which a node is lost.
pub const TIMEOUT: Duration = Duration::from_millis(200);
/// The longest that a kernel usually takes to go by new shares, in milliseconds.
const KERNEL_MS: u64 = 8;
/// How often a daemon says that it ends.
const FAREWELLS: u32 = 3;
/// So many events are between two looks at the promises, but for those that a kernel changes by.
const LOOK_EVERY: u64 = 8;

/// Something that happens.
#[derive(Debug, Clone)]
enum Happening {
    /// A node sends the pulse that it has.
    Send(usize, u64),
    /// A pulse arrives.
    Arrive(usize, Box<Pulse>),
    /// A kernel goes by other shares.
    Kernel(usize, u64, Box<Shares>),
    /// A farm wants to be woken.
    Wake(usize, u64),
    /// A daemon that stood still goes on.
    Thaw(usize, u64),
    /// The daemon after one that ended starts.
    Return(usize, u64),
}

/// A node.
struct Host {
    name: NodeName,
    /// Counts daemons, so that what is meant for one that ended is not taken by the next.
    life: u64,
    boot: BootId,
    /// The daemon's farm; none while it does not run.
    farm: Option<Farm>,
    /// What it takes part in, as the operator and the application have it.
    part: Part,
    weight: u32,
    /// What the kernel does; outlives the daemon.
    kernel: Shares,
    /// What the daemon has written down of it.
    left: Option<Left>,
    /// The daemon has ended, and said so: the kernel goes on.
    away: bool,
    pulse: Option<Box<Pulse>>,
    sequence: u64,
    /// Stands still until then; what arrives waits.
    frozen: Option<Time>,
    /// When the farm is to be woken.
    wake: Option<Time>,
    waiting: Vec<(Time, Box<Pulse>)>,
    /// What its clock shows more than the world's.
    ahead: Duration,
}

/// The network between the nodes.
#[derive(Debug, Clone, Default)]
struct Network {
    /// Nothing passes from the first to the second.
    cut: BTreeSet<(usize, usize)>,
    /// How many pulses of a hundred are lost.
    loss: u64,
    /// How many arrive twice.
    twice: u64,
    /// How much later than usual one may arrive, in milliseconds.
    jitter: u64,
}

/// The world.
pub struct World {
    now: Time,
    dice: Dice,
    delivery: Delivery,
    hosts: Vec<Host>,
    network: Network,
    /// The longest that a kernel takes to go by new shares, in milliseconds.
    lag: u64,
    queue: BTreeMap<(Time, u64), Happening>,
    count: u64,
    /// Where clients send packets: who answered for the address last.
    gateway: Option<usize>,
    watch: promises::Watch,
    /// How much happened.
    pub events: u64,
    /// What happened, a line each.
    pub log: Vec<String>,
    /// The first broken promise.
    pub violation: Option<FarmViolation>,
}

impl World {
    /// A world of nodes with these weights, none of them started.
    #[must_use]
    pub fn new(seed: u64, delivery: Delivery, weights: &[u32]) -> World {
        let mut dice = Dice::new(seed);
        let host = |(i, weight): (usize, &u32)| Host {
            name: node_name(i),
            life: 0,
            boot: BootId(i as u128 * 1_000_000 + 1),
            farm: None,
            part: Part::Out,
            weight: *weight,
            kernel: Shares::none(),
            left: None,
            away: false,
            pulse: None,
            sequence: 0,
            frozen: None,
            wake: None,
            waiting: Vec::new(),
            ahead: Duration::from_millis(1000 + dice.roll(100_000)),
        };
        let hosts: Vec<Host> = weights.iter().enumerate().map(host).collect();
        World {
            now: Time::ZERO,
            dice,
            delivery,
            watch: promises::Watch::new(hosts.len()),
            hosts,
            network: Network::default(),
            lag: KERNEL_MS,
            queue: BTreeMap::new(),
            count: 0,
            gateway: None,
            events: 0,
            log: Vec::new(),
            violation: None,
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.violation.is_none() {
            let Some(next) = self.queue.first_key_value().map(|(key, _)| *key) else { break };
            if next.0 > end {
                break;
            }
            let Some(happening) = self.queue.remove(&next) else { break };
            self.now = next.0;
            self.events += 1;
            let kernel = matches!(happening, Happening::Kernel(..));
            self.perform(happening);
            self.note_hearing();
            // What the kernels do changes by their own changes alone.
            if kernel || self.events.is_multiple_of(LOOK_EVERY) {
                self.look();
            }
        }
        self.now = self.now.max(end);
    }

    fn perform(&mut self, happening: Happening) {
        match happening {
            Happening::Send(i, life) if self.hosts[i].life == life => self.send_again(i),
            Happening::Arrive(i, pulse) => self.arrive(i, pulse),
            Happening::Kernel(i, life, shares) => self.kernel_set(i, life, *shares),
            Happening::Wake(i, life) if self.hosts[i].life == life => {
                if self.hosts[i].wake == Some(self.now) {
                    self.hosts[i].wake = None;
                    self.give(i, |farm, now| farm.tick(now));
                }
            }
            Happening::Thaw(i, life) if self.hosts[i].life == life => self.thaw(i),
            Happening::Return(i, life) if self.hosts[i].life == life => self.start(i, false),
            Happening::Send(..)
            | Happening::Wake(..)
            | Happening::Thaw(..)
            | Happening::Return(..) => {}
        }
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.count += 1;
        self.queue.insert((self.now + delay, self.count), happening);
    }

    fn own_time(&self, i: usize) -> Time {
        self.now + self.hosts[i].ahead
    }

    /// Hands something to a farm and does what it wishes.
    fn give(&mut self, i: usize, act: impl FnOnce(&mut Farm, Time) -> Vec<Wish>) {
        if self.hosts[i].frozen.is_some() {
            return;
        }
        let own = self.own_time(i);
        let Some(farm) = self.hosts[i].farm.as_mut() else { return };
        let wishes = act(farm, own);
        for wish in wishes {
            self.wish(i, wish);
        }
        let life = self.hosts[i].life;
        let deadline = self.hosts[i].farm.as_ref().and_then(Farm::deadline);
        if let Some(at) = deadline {
            let delay = at.since(own).max(Duration::from_micros(100));
            let sooner = self.hosts[i].wake.is_none_or(|wake| self.now + delay < wake);
            if sooner {
                self.hosts[i].wake = Some(self.now + delay);
                self.after(delay, Happening::Wake(i, life));
            }
        }
    }

    fn wish(&mut self, i: usize, wish: Wish) {
        match wish {
            Wish::Pulse(pulse) => {
                self.hosts[i].pulse = Some(pulse);
                self.send(i);
            }
            Wish::SetShares(shares) => {
                // A daemon writes this down before it tells the kernel.
                let farm = self.hosts[i].farm.as_ref().filter(|farm| farm.shares().serves());
                self.hosts[i].left = farm.map(Farm::left);
                let life = self.hosts[i].life;
                let delay = Duration::from_millis(1 + self.dice.roll(self.lag));
                // One change follows the other.
                let earlier = self.queue.iter().rev().find_map(|((at, _), happening)| {
                    matches!(happening, Happening::Kernel(k, ..) if *k == i).then_some(*at)
                });
                let delay = delay.max(earlier.unwrap_or(Time::ZERO).since(self.now));
                self.after(delay, Happening::Kernel(i, life, shares));
            }
            Wish::Tell(told) => {
                self.note(format!("{}: {told:?}", self.hosts[i].name));
                if self.watch.quiet && matches!(told, Told::Lost(_)) {
                    let what = format!("{}: {told:?}", self.hosts[i].name);
                    self.broken(FarmPromise::NoFalseLoss, what);
                }
            }
        }
    }

    fn note(&mut self, line: String) {
        self.log.push(format!("{:>8} {line}", self.now.as_millis()));
    }

    fn send_again(&mut self, i: usize) {
        if self.hosts[i].frozen.is_none() {
            self.send(i);
        }
        let life = self.hosts[i].life;
        self.after(PULSE, Happening::Send(i, life));
    }

    fn send(&mut self, i: usize) {
        let Some(pulse) = self.hosts[i].pulse.clone() else { return };
        self.hosts[i].sequence += 1;
        let pulse = Box::new(Pulse { sequence: self.hosts[i].sequence, ..*pulse });
        for to in (0..self.hosts.len()).filter(|to| *to != i) {
            if self.network.cut.contains(&(i, to)) || self.dice.percent(self.network.loss) {
                continue;
            }
            let copies = 1 + usize::from(self.dice.percent(self.network.twice));
            for _ in 0..copies {
                let late = self.dice.roll(self.network.jitter * 1000 + 1);
                let delay = Duration::from_micros(200 + self.dice.roll(800) + late);
                self.after(delay, Happening::Arrive(to, pulse.clone()));
            }
        }
    }

    fn arrive(&mut self, i: usize, pulse: Box<Pulse>) {
        if self.hosts[i].farm.is_none() {
            return;
        }
        let received = self.own_time(i);
        if self.hosts[i].frozen.is_some() {
            self.hosts[i].waiting.push((received, pulse));
            return;
        }
        self.give(i, |farm, now| farm.hear(now, received, *pulse));
    }

    fn kernel_set(&mut self, i: usize, life: u64, shares: Shares) {
        // A daemon's last change to the kernel may come through after its death.
        if self.hosts[i].life < life {
            return;
        }
        let edition = shares.edition;
        let before = &self.hosts[i].kernel;
        // It announces the address with each table that it has drawn up.
        let is_new = (before.term, before.serial) != (shares.term, shares.serial);
        if shares.leader && (is_new || !before.leader) {
            self.gateway = Some(i);
        }
        self.hosts[i].kernel = shares;
        if self.hosts[i].life == life {
            self.give(i, |farm, now| farm.shares_set(now, edition));
        }
    }

    /// As in production, whoever was late hears all that waits before it decides anything.
    fn thaw(&mut self, i: usize) {
        if self.hosts[i].frozen.is_none_or(|until| until > self.now) {
            return;
        }
        self.hosts[i].frozen = None;
        let mut waiting = std::mem::take(&mut self.hosts[i].waiting);
        let last = waiting.pop();
        if let Some(farm) = self.hosts[i].farm.as_mut() {
            waiting.into_iter().for_each(|(received, pulse)| farm.note(received, *pulse));
        }
        if let Some((received, pulse)) = last {
            self.give(i, |farm, now| farm.hear(now, received, *pulse));
        }
        let part = self.hosts[i].part;
        self.give(i, |farm, now| farm.set_part(now, part));
        // Shares that went into the kernel meanwhile.
        let edition = self.hosts[i].kernel.edition;
        self.give(i, |farm, now| farm.shares_set(now, edition));
    }

    /// The daemon starts; `anew`: on a machine that has just booted.
    fn start(&mut self, i: usize, anew: bool) {
        if self.hosts[i].farm.is_some() {
            return;
        }
        let nodes = (0..self.hosts.len()).map(node_name).collect();
        let settings = Settings {
            nodes,
            me: u8::try_from(i).unwrap_or(0),
            weight: self.hosts[i].weight,
            delivery: self.delivery,
            pulse: PULSE,
            timeout: TIMEOUT,
        };
        let own = self.own_time(i);
        let host = &mut self.hosts[i];
        host.life += 1;
        host.sequence = 0;
        host.wake = None;
        host.away = false;
        if anew {
            host.left = None;
        }
        let alive = (host.boot, host.life);
        host.farm = Some(Farm::new(own, settings, alive, host.left.clone()));
        let (life, part) = (host.life, host.part);
        self.give(i, |farm, now| farm.set_part(now, part));
        self.after(PULSE, Happening::Send(i, life));
    }

    /// The daemon ends in order and says so; the next one starts after that time.
    fn renew(&mut self, i: usize, time: Duration) {
        let host = &mut self.hosts[i];
        if host.farm.is_none() || host.frozen.is_some() {
            return;
        }
        if let Some(pulse) = host.pulse.as_mut() {
            pulse.away = true;
        }
        for _ in 0..FAREWELLS {
            self.send(i);
        }
        self.kill(i);
        self.hosts[i].away = true;
        let life = self.hosts[i].life;
        self.after(time, Happening::Return(i, life));
    }

    /// The daemon ends, and the kernel goes on.
    fn kill(&mut self, i: usize) {
        let host = &mut self.hosts[i];
        host.farm = None;
        host.away = false;
        host.pulse = None;
        host.frozen = None;
        host.waiting.clear();
    }

    /// The machine is gone.
    fn lose(&mut self, i: usize) {
        self.kill(i);
        let host = &mut self.hosts[i];
        // What was on its way to the kernel is lost with it.
        host.life += 1;
        host.boot = BootId(host.boot.0 + 1);
        host.kernel = Shares::none();
        host.left = None;
        let life = host.life;
        self.queue.retain(
            |_, happening| !matches!(happening, Happening::Kernel(k, l, _) if *k == i && *l < life),
        );
        // It takes longer to boot than any packet lives.
        let from = u8::try_from(i).ok();
        self.queue.retain(|_, happening| {
            !matches!(happening, Happening::Arrive(_, pulse) if Some(pulse.from) == from)
        });
        if self.gateway == Some(i) {
            self.gateway = None;
        }
    }

    fn set_part(&mut self, i: usize, part: Part) {
        self.hosts[i].part = part;
        self.give(i, |farm, now| farm.set_part(now, part));
    }
}

/// The name of a node of the world.
#[allow(clippy::expect_used, reason = "a number behind a word is a name")]
fn node_name(i: usize) -> NodeName {
    NodeName::new(&format!("node{}", i + 1)).expect("a valid name")
}
