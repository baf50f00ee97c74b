//! Random joins, leaves, deaths, returns, changes of leader and restarts, under traffic, with what
//! a farm's data path promises checked after each. Needs root and iproute2.
//!
//! A seed says what happens. `EVENKEEL_SEEDS` of them from `EVENKEEL_FIRST` on are run, each with
//! ten changes; `cargo xtask soak farm` runs many. Times play no part in what passes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the test's failure")]

mod farm_support;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use farm_support::traffic::{Client, Failure, any, serve};
use farm_support::{CLIENT, Farm, SERVERS, SPREAD, VERSIONS};
use net::farm::{Affinity, Delivery, Installed, bucket};
use net::namespace::{NetNs, enter};

const CHANGES: usize = 10;
/// Connections that are kept throughout.
const KEPT: usize = 24;
/// New connections after each change, to see who serves.
const PROBES: usize = 24;

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // Knuth's generator; its high bits are the good ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn pick(&mut self, from: &[usize]) -> usize {
        from[self.below(from.len())]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Join(usize),
    Leave(usize),
    Kill(usize),
    Return(usize),
    Lead(usize),
    Restart(usize),
}

struct Run {
    seed: u64,
    farm: Farm,
    directed: bool,
    serving: Vec<usize>,
    kept: Vec<(Client, usize)>,
    opened: usize,
}

impl Run {
    fn new(seed: u64) -> Self {
        let directed = seed.is_multiple_of(2);
        let delivery = if directed { Delivery::Directed } else { Delivery::Multicast };
        let farm = Farm::serving(delivery, &[0, 1, 2]);
        for server in 0..SERVERS {
            farm.on_server(server, || serve(server, SPREAD));
        }
        let serving = vec![0, 1, 2];
        Self { seed, farm, directed, serving, kept: Vec::new(), opened: 0 }
    }

    fn choose(&self, dice: &mut Dice) -> Change {
        let dead = &self.farm.shares.dead;
        let idle: Vec<_> = (0..SERVERS)
            .filter(|server| !self.serving.contains(server) && !dead.contains(server))
            .collect();
        let alive: Vec<_> = (0..SERVERS).filter(|server| !dead.contains(server)).collect();
        loop {
            match dice.below(6) {
                0 if !idle.is_empty() => return Change::Join(dice.pick(&idle)),
                1 if self.serving.len() > 1 => return Change::Leave(dice.pick(&self.serving)),
                2 if self.serving.len() > 1 => return Change::Kill(dice.pick(&self.serving)),
                3 if !dead.is_empty() => return Change::Return(dice.pick(dead)),
                4 if self.directed => return Change::Lead(dice.pick(&alive)),
                5 => return Change::Restart(dice.pick(&alive)),
                _ => {}
            }
        }
    }

    fn perform(&mut self, change: Change) {
        match change {
            Change::Join(server) => {
                self.serving.push(server);
                self.farm.share_out(&self.serving);
            }
            Change::Leave(server) => {
                self.serving.retain(|other| *other != server);
                self.farm.share_out(&self.serving);
            }
            Change::Kill(server) => {
                self.serving.retain(|other| *other != server);
                self.farm.kill(server, &self.serving);
            }
            Change::Return(server) => self.farm.revive(server),
            Change::Lead(server) => self.farm.lead(server),
            Change::Restart(server) => {
                assert_eq!(self.farm.restart_engine(server), Installed::Adopted);
                self.farm.apply(server);
            }
        }
    }

    /// A change while connections are opened without pause; only a death may cost one.
    fn under_traffic(&mut self, change: Change) {
        let client = self.farm.on_client(NetNs::current).unwrap();
        let over = AtomicBool::new(false);
        let outcomes = thread::scope(|scope| {
            let opener = scope.spawn(|| enter(client.as_fd(), || open_until(&over)).unwrap());
            self.perform(change);
            over.store(true, Ordering::Relaxed);
            opener.join().unwrap()
        });
        self.opened += outcomes.len();
        let dies = matches!(change, Change::Kill(_));
        for outcome in outcomes {
            let bearable = outcome.is_ok() || dies;
            assert!(bearable, "seed {}, {change:?}: a new connection: {outcome:?}", self.seed);
        }
    }

    fn open(&self, number: usize) -> Result<(Client, usize), Failure> {
        let version = VERSIONS[number % 2];
        let to = SocketAddr::new(version.vip(), SPREAD);
        let from = any(version.on_lan(CLIENT));
        let mut client = self.farm.on_client(|| Client::connect(from, to))?;
        let server = client.ask()?;
        Ok((client, server))
    }

    /// What holds after each change.
    fn check(&mut self, change: Change) {
        let about = format!("seed {}, after {change:?}", self.seed);
        let dead = match change {
            Change::Kill(server) => Some(server),
            _ => None,
        };
        let mut lost = Vec::new();
        for (place, (client, server)) in self.kept.iter_mut().enumerate() {
            let answer = client.ask();
            if Some(*server) == dead {
                // With multicast delivery nobody may speak for a bucket with former owners.
                let told = answer == Err(Failure::Reset);
                let silent = !self.directed && answer == Err(Failure::Silent);
                assert!(told || silent, "{about}: {} of the dead: {answer:?}", client.from);
                lost.push(place);
            } else {
                assert_eq!(answer, Ok(*server), "{about}: {} was kept", client.from);
            }
        }
        for place in lost.into_iter().rev() {
            self.kept.remove(place);
        }
        for number in 0..PROBES {
            let (client, server) = self
                .open(number)
                .unwrap_or_else(|failure| panic!("{about}: a new connection: {failure:?}"));
            let owner = self.farm.shares.owner(bucket(Affinity::ClientIpPort, client.from));
            assert_eq!(server, owner, "{about}: {} is not where its bucket is", client.from);
            assert!(self.serving.contains(&server), "{about}: {server} serves nothing");
            if self.kept.len() < KEPT {
                self.kept.push((client, server));
            }
        }
    }
}

fn open_until(over: &AtomicBool) -> Vec<Result<usize, Failure>> {
    let mut outcomes = Vec::new();
    while !over.load(Ordering::Relaxed) || outcomes.len() < 10 {
        let version = VERSIONS[outcomes.len() % 2];
        let to = SocketAddr::new(version.vip(), SPREAD);
        let client = Client::connect(any(version.on_lan(CLIENT)), to);
        outcomes.push(client.and_then(|mut client| client.ask()));
    }
    outcomes
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn random_changes_keep_what_was_promised() {
    let (first, seeds) = (number("EVENKEEL_FIRST", 0), number("EVENKEEL_SEEDS", 2));
    let (mut changes, mut kills, mut opened) = (0, 0, 0);
    for seed in first..first + seeds {
        let mut dice = Dice(seed);
        // The first throws of neighbouring seeds are alike.
        for _ in 0..4 {
            dice.below(1);
        }
        let mut run = Run::new(seed);
        run.check(Change::Restart(0));
        for _ in 0..CHANGES {
            let change = run.choose(&mut dice);
            run.under_traffic(change);
            run.check(change);
            changes += 1;
            kills += u64::from(matches!(change, Change::Kill(_)));
        }
        opened += run.opened;
    }
    println!(
        "SOAK {{\"kind\": \"farm\", \"rounds\": 1, \"changes\": {changes}, \"kills\": {kills}, \
         \"opened\": {opened}}}"
    );
}
