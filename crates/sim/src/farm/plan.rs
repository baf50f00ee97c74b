//! What befalls a farm, by seed: a list of faults, all mended at the end.
//!
//! All of chance is used up here and by the world's own dice, both from the seed, so that a plan
//! can be run again and shortened.

use std::time::Duration;

use cluster::farm::Part;
use model::config::Delivery;

use super::World;
use super::promises::{FarmPromise, FarmViolation};
use crate::dice::Dice;

/// In this time all agree after everything was mended.
const SETTLES: Duration = Duration::from_secs(3);
/// Milliseconds of the pauses between two faults, at most.
const PAUSES: [u64; 4] = [10, 80, 400, 3000];
const NODES_MAX: u64 = 6;
/// How often a node comes and goes.
const FLAPS: usize = 4;
/// For how long it is away each time, in milliseconds: shorter and longer than any is held.
const AWAY: [u64; 4] = [500, 500, 12_000, 40_000];
/// How long a kernel takes at most, in milliseconds: as usual, and on a machine that is busy.
const LAGS: [u64; 2] = [super::KERNEL_MS, 150];
/// How much later than another one a daemon starts at most, of those that are replaced together, in
/// milliseconds: longer than the timeout, and not as long as a daemon waits for the others.
const APART_MAX: u64 = 1500;
/// A node that came and went has clients again by then.
const HELD_MAX: Duration = Duration::from_secs(31);

/// Something that befalls a farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Time passes, in milliseconds.
    Pass(u64),
    /// The machine is lost, kernel and all.
    Lose(usize),
    /// The daemon dies.
    Kill(usize),
    /// The daemon ends in order, and the next one starts after so many milliseconds.
    Renew(usize, u64),
    /// The daemon, and the machine if need be, starts.
    Start(usize),
    /// The daemon stands still for so many milliseconds.
    Freeze(usize, u64),
    /// The node takes part in something else.
    Part(usize, Part),
    /// Nothing passes from the first to the second.
    Cut(usize, usize),
    /// The network falls into two: a bit for each node of the one part.
    Split(u64),
    /// Pulses are lost, doubled, late.
    Weather {
        /// How many of a hundred are lost.
        loss: u64,
        /// How many of a hundred arrive twice.
        twice: u64,
        /// How much later than usual they may arrive, in milliseconds.
        jitter: u64,
    },
    /// Everything passes again.
    Heal,
    /// Everything is mended, and all must agree after a while.
    Settle,
    /// A node of a farm that has settled is lost, while kernels take up to so many milliseconds to
    /// go by new shares: nobody but its clients must notice.
    LoseAlone(usize, u64),
    /// A node of a farm that has settled drains: no client must notice.
    DrainAlone(usize),
    /// A node of a farm that has settled comes: no client must notice.
    JoinAlone(usize),
    /// A daemon of a farm that has settled is replaced: nobody must notice.
    ReplaceAlone(usize),
    /// A daemon of a farm that has settled ends in order, and the next one starts after so many
    /// milliseconds: nobody must notice.
    RenewAlone(usize, u64),
    /// The same with all daemons at once.
    RenewAll(u64),
    /// A node of a farm that has settled is lost and comes back after so many milliseconds, again
    /// and again.
    Flap(usize, u64),
}

/// What befalls a farm.
#[derive(Debug, Clone)]
pub struct Plan {
    /// It follows from this.
    pub seed: u64,
    /// How packets reach the node that serves them.
    pub delivery: Delivery,
    /// Weights of the nodes.
    pub weights: Vec<u32>,
    /// In order.
    pub faults: Vec<Fault>,
}

/// What came of a plan.
#[derive(Debug)]
pub struct Run {
    /// The first broken promise.
    pub violation: Option<FarmViolation>,
    /// How much happened.
    pub events: u64,
    /// What happened, a line each.
    pub log: Vec<String>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Plan {
        let mut dice = Dice::new(seed ^ 0xfa12);
        let nodes = 1 + dice.roll(NODES_MAX);
        let equal = dice.percent(60);
        let mut weights: Vec<u32> = (0..nodes)
            .map(|_| if equal { 100 } else { u32::try_from(dice.roll(5) * 50).unwrap_or(0) })
            .collect();
        if weights.iter().all(|weight| *weight == 0) {
            weights[0] = 100;
        }
        let delivery = if dice.percent(50) { Delivery::Directed } else { Delivery::Multicast };
        let nodes = weights.len();
        let mut faults: Vec<Fault> = Vec::new();
        for i in 0..nodes {
            faults.push(Fault::Part(i, Part::Ready));
            faults.push(Fault::Start(i));
            faults.push(Fault::Pass(dice.roll(100)));
        }
        let quiet = dice.percent(30);
        for _ in 0..3 + dice.roll(12) {
            faults.push(if quiet { alone(&mut dice, nodes) } else { fault(&mut dice, nodes) });
            let pause = dice.pick(&PAUSES).copied().unwrap_or(1);
            faults.push(Fault::Pass(dice.roll(pause)));
        }
        faults.push(Fault::Settle);
        Plan { seed, delivery, weights, faults }
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self) -> Run {
        let mut world = World::new(self.seed, self.delivery, &self.weights);
        for fault in &self.faults {
            if world.violation.is_some() {
                break;
            }
            world.befall(fault);
        }
        Run { violation: world.violation, events: world.events, log: world.log }
    }
}

fn fault(dice: &mut Dice, nodes: usize) -> Fault {
    let i = usize::try_from(dice.roll(nodes as u64)).unwrap_or(0);
    let k = usize::try_from(dice.roll(nodes as u64)).unwrap_or(0);
    match dice.roll(22) {
        0 | 1 => Fault::Lose(i),
        2 | 3 => Fault::Kill(i),
        4..=6 => Fault::Start(i),
        7 => Fault::Freeze(i, dice.roll(600)),
        8 => Fault::Part(i, Part::Draining),
        9 => Fault::Part(i, Part::Standby),
        10 => Fault::Part(i, Part::Out),
        11 | 12 => Fault::Part(i, Part::Ready),
        13 => Fault::Cut(i, k),
        14 | 15 => Fault::Split(dice.roll(1 << nodes)),
        16 => Fault::Weather { loss: dice.roll(40), twice: dice.roll(40), jitter: dice.roll(120) },
        17 | 18 => Fault::Heal,
        19 | 20 => Fault::Renew(i, dice.roll(1500)),
        _ => Fault::Settle,
    }
}

fn alone(dice: &mut Dice, nodes: usize) -> Fault {
    let i = usize::try_from(dice.roll(nodes as u64)).unwrap_or(0);
    match dice.roll(7) {
        0 => Fault::LoseAlone(i, dice.pick(&LAGS).copied().unwrap_or(1)),
        1 => Fault::DrainAlone(i),
        2 => Fault::JoinAlone(i),
        5 => Fault::Flap(i, dice.pick(&AWAY).copied().unwrap_or(1)),
        3 => Fault::RenewAlone(i, dice.roll(9000)),
        4 => Fault::RenewAll(dice.roll(900)),
        _ => Fault::ReplaceAlone(i),
    }
}

impl World {
    /// Lets a fault befall the farm.
    pub fn befall(&mut self, fault: &Fault) {
        if !matches!(fault, Fault::Pass(_)) {
            self.note(format!("> {fault:?}"));
        }
        match fault {
            Fault::Pass(millis) => self.pass(Duration::from_millis(*millis)),
            Fault::Lose(i) => self.lose(*i),
            Fault::Kill(i) => self.kill(*i),
            Fault::Renew(i, millis) => self.renew(*i, Duration::from_millis(*millis)),
            Fault::Start(i) => self.start(*i, false),
            Fault::Freeze(i, millis) => self.freeze(*i, Duration::from_millis(*millis)),
            Fault::Part(i, part) => self.set_part(*i, *part),
            Fault::Cut(i, k) => {
                self.network.cut.insert((*i, *k));
            }
            Fault::Split(side) => self.split(*side),
            Fault::Weather { loss, twice, jitter } => {
                self.network.loss = *loss;
                self.network.twice = *twice;
                self.network.jitter = *jitter;
            }
            Fault::Heal => self.network = super::Network::default(),
            Fault::Settle => self.settle(),
            Fault::LoseAlone(i, millis) => {
                let usual = std::mem::replace(&mut self.lag, *millis);
                self.lose_alone(*i);
                self.lag = usual;
            }
            Fault::DrainAlone(i) => self.part_alone(*i, Part::Draining),
            Fault::JoinAlone(i) => self.part_alone(*i, Part::Ready),
            Fault::ReplaceAlone(i) => self.replace_alone(*i),
            Fault::RenewAlone(i, millis) => self.renew_alone(&[*i], *millis),
            Fault::Flap(i, millis) => self.flap(*i, Duration::from_millis(*millis)),
            Fault::RenewAll(millis) => {
                self.renew_alone(&(0..self.hosts.len()).collect::<Vec<_>>(), *millis);
            }
        }
        self.look();
    }

    fn freeze(&mut self, i: usize, time: Duration) {
        if self.hosts[i].farm.is_some() {
            self.hosts[i].frozen = Some(self.now + time);
            let life = self.hosts[i].life;
            self.after(time, super::Happening::Thaw(i, life));
        }
    }

    fn split(&mut self, side: u64) {
        let nodes = self.hosts.len();
        let is_there = |i: usize| side & (1 << i) != 0;
        let pairs = (0..nodes).flat_map(|i| (0..nodes).map(move |k| (i, k)));
        self.network.cut.extend(pairs.filter(|(i, k)| is_there(*i) != is_there(*k)));
    }

    fn settle(&mut self) {
        (self.watch.planned, self.watch.service) = (false, None);
        self.network = super::Network::default();
        for i in 0..self.hosts.len() {
            self.start(i, false);
        }
        self.pass(SETTLES);
        if self.violation.is_none() {
            self.look_settled();
        }
        // Who came and went has its share as well in the end.
        if self.violation.is_none() && !self.held().is_empty() {
            self.pass(HELD_MAX);
            if self.violation.is_none() && !self.held().is_empty() {
                self.broken(FarmPromise::TheFarmSettles, "somebody is held for ever".to_owned());
            }
            self.look_settled();
        }
    }

    /// A node comes and goes: after its second loss nobody is moved by that any more.
    fn flap(&mut self, i: usize, away: Duration) {
        self.settle();
        let ready = |host: &super::Host| host.part == Part::Ready;
        let others = (0..self.hosts.len()).filter(|k| *k != i && ready(&self.hosts[*k])).count();
        let mut before = Vec::new();
        for round in 0..FLAPS {
            self.lose(i);
            self.pass(away);
            self.watch_service(Duration::ZERO);
            self.start(i, true);
            self.pass(Duration::from_millis(500));
            self.watch.service = None;
            if self.violation.is_some() || others == 0 {
                return;
            }
            let after = self.owners();
            if round > 1 && after != before {
                let what = format!("{} moved clients in round {round}", self.hosts[i].name);
                return self.broken(FarmPromise::WhoFlapsIsHeld, what);
            }
            before = after;
        }
    }

    fn lose_alone(&mut self, i: usize) {
        self.settle();
        let equal = self.hosts.iter().all(|host| host.weight == self.hosts[0].weight);
        let before = self.owners();
        self.keep_connections();
        self.forget_connections(i);
        if self.hosts.iter().enumerate().any(|(k, host)| k != i && host.part == Part::Ready) {
            self.watch_service(super::TIMEOUT + Duration::from_millis(2 * self.lag));
        }
        self.lose(i);
        self.pass(SETTLES);
        if self.violation.is_some() {
            return;
        }
        self.look_settled();
        self.look_at_connections();
        let others = (0..self.hosts.len()).any(|k| k != i && self.hosts[k].part == Part::Ready);
        let after = self.owners();
        let seat = u8::try_from(i).ok();
        let moved =
            before.iter().zip(&after).filter(|(was, is)| was != is && **was != seat).count();
        if equal && others && moved > 0 {
            let what = format!("{moved} buckets moved that were others'");
            self.broken(FarmPromise::OnlyTheLostMove, what);
        }
    }

    /// A node drains or comes, and nothing else happens.
    fn part_alone(&mut self, i: usize, part: Part) {
        self.settle();
        let others = (0..self.hosts.len()).any(|k| k != i && self.hosts[k].part == Part::Ready);
        self.watch.planned = others && self.violation.is_none();
        if others {
            self.watch_service(Duration::ZERO);
        }
        self.keep_connections();
        self.set_part(i, part);
        self.pass(SETTLES);
        if part == Part::Draining && others && self.violation.is_none() {
            let drained = self.hosts[i].farm.as_ref().is_some_and(|farm| farm.is_drained());
            if !drained {
                let what = format!("{} has not drained", self.hosts[i].name);
                self.broken(FarmPromise::TheFarmSettles, what);
            }
        }
        self.watch.planned = false;
        if self.violation.is_none() {
            self.look_settled();
            self.look_at_connections();
        }
    }

    /// A daemon gives way to another one at once, as when a configuration is applied.
    fn replace_alone(&mut self, i: usize) {
        self.settle();
        let before = self.owners();
        self.watch_service(Duration::ZERO);
        self.keep_connections();
        self.kill(i);
        self.pass(Duration::from_millis(60));
        self.start(i, false);
        self.pass(SETTLES);
        if self.violation.is_some() {
            return;
        }
        self.look_settled();
        self.look_at_connections();
        if self.owners() != before {
            let what = format!("a new daemon on {} moved buckets", self.hosts[i].name);
            self.broken(FarmPromise::NoFalseLoss, what);
        }
    }

    /// Daemons end in order and are followed by others, and nothing else happens.
    fn renew_alone(&mut self, which: &[usize], millis: u64) {
        self.settle();
        let before = self.owners();
        self.watch.quiet = self.violation.is_none();
        self.watch_service(Duration::ZERO);
        self.keep_connections();
        // One alone is away for exactly as long as the fault says.
        let apart = if which.len() > 1 { APART_MAX } else { 1 };
        for i in which {
            let own = millis + self.dice.roll(apart);
            self.renew(*i, Duration::from_millis(own));
        }
        self.pass(Duration::from_millis(millis + APART_MAX) + SETTLES);
        self.watch.quiet = false;
        if self.violation.is_some() {
            return;
        }
        self.look_settled();
        self.look_at_connections();
        if self.owners() != before {
            self.broken(FarmPromise::NoFalseLoss, "new daemons moved buckets".to_owned());
        }
    }
}

/// The shortest plan found that breaks `promise` as `plan` does.
#[must_use]
pub fn shrink(plan: &Plan, promise: FarmPromise) -> Plan {
    let breaks = |plan: &Plan| plan.run().violation.is_some_and(|v| v.promise == promise);
    let mut best = plan.clone();
    let mut size = best.faults.len() / 2;
    while size > 0 {
        let mut at = 0;
        let mut progress = false;
        while at < best.faults.len() {
            let mut shorter = best.clone();
            let until = (at + size).min(shorter.faults.len());
            shorter.faults.drain(at..until);
            if breaks(&shorter) {
                best = shorter;
                progress = true;
            } else {
                at += size;
            }
        }
        if !progress {
            size /= 2;
        }
    }
    best
}
