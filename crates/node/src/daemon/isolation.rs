//! Pings, so that a node notices that it is cut off itself.
//!
//! A thread of its own asks every landmark in each round and tells the daemon of each answer. Which
//! landmarks count is found out by `cluster::isolation::Watch`, what follows by the modules.
//! Gateways that have answered in this boot are noted, as a daemon that starts while they are out
//! of reach has to miss them.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use cluster::Input;
use cluster::isolation::{Reach, Watch};
use model::Time;
use model::config::{ClusterConfig, Isolation};
use net::link::Netlink;
use net::ping::Pinger;
use net::route::Gateway;

use crate::clock;
use crate::daemon::event::Event;
use crate::durable;

/// The longest and the shortest time between two rounds.
const ROUNDS: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Rounds whose answers count: a late one shows as well that the landmark can be reached.
const REMEMBERED: usize = 16;
/// Time between two looks at the routes.
const LOOK: Duration = Duration::from_secs(5);

/// Begins to ping, if this cluster is one of those that need it.
pub(super) fn begin(
    cluster: &ClusterConfig,
    shortest_timeout: Option<Duration>,
    notes: PathBuf,
    events: &Sender<Event>,
) -> io::Result<()> {
    // Only mirrors go on, or not, by what is reached.
    let Some(shortest_timeout) = shortest_timeout else { return Ok(()) };
    let watch = match &cluster.isolation {
        Isolation::Off => return Ok(()),
        _ if cluster.witness.is_some() => return Ok(()),
        Isolation::Landmarks(landmarks) => Watch::named(landmarks.clone()),
        Isolation::Gateway => Watch::detected(noted(&notes)),
    };
    let look = (cluster.isolation == Isolation::Gateway).then(clock::now);
    // A quarter, so that a single answer that is lost is not taken for more.
    let round = (shortest_timeout / 4).clamp(ROUNDS[0], ROUNDS[1]);
    let (events, rounds, told) = (events.clone(), Vec::new(), None);
    let rounds = Rounds { watch, look, behind: Vec::new(), rounds, round, notes, told, events };
    std::thread::Builder::new().name("pings".to_owned()).spawn(move || rounds.go_on()).map(drop)
}

fn noted(notes: &Path) -> BTreeSet<IpAddr> {
    durable::read(notes).ok().flatten().unwrap_or_default()
}

struct Rounds {
    watch: Watch,
    /// When routes are looked at again; none where the landmarks are named.
    look: Option<Time>,
    /// The gateways, with their interfaces.
    behind: Vec<Gateway>,
    /// The newest rounds: number and time of each.
    rounds: Vec<(u16, Time)>,
    round: Duration,
    notes: PathBuf,
    told: Option<Reach>,
    events: Sender<Event>,
}

impl Rounds {
    fn go_on(mut self) {
        let mut pinger = None;
        let mut sequence = 0_u16;
        loop {
            let until = Instant::now() + self.round;
            self.look_for_gateways();
            let spoken = open(&mut pinger).and_then(|pinger| {
                sequence = sequence.wrapping_add(1);
                self.ask(pinger, sequence);
                self.hear(pinger, until)
            });
            if let Err(error) = spoken {
                // Nobody answers then, which is told; here is why.
                eprintln!("! {error}");
                pinger = None;
                self.watch.asks(clock::now());
            }
            if !self.tell() {
                return;
            }
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }

    fn look_for_gateways(&mut self) {
        let now = clock::now();
        if self.look.is_none_or(|at| at > now) {
            return;
        }
        self.look = Some(now + LOOK);
        match Netlink::open().and_then(|mut netlink| netlink.gateways()) {
            Ok(gateways) => {
                self.watch.found(gateways.iter().map(|gateway| gateway.address).collect());
                if !gateways.is_empty() {
                    self.behind = gateways;
                }
            }
            Err(error) => eprintln!("! {error}"),
        }
    }

    fn ask(&mut self, pinger: &Pinger, sequence: u16) {
        let now = clock::now();
        if self.rounds.len() >= REMEMBERED {
            self.rounds.remove(0);
        }
        self.rounds.push((sequence, now));
        if !self.watch.landmarks().is_empty() {
            self.watch.asks(now);
        }
        for address in self.watch.landmarks() {
            let known = self.behind.iter().find(|gateway| gateway.address == *address);
            let landmark = known.copied().unwrap_or(Gateway { address: *address, index: 0 });
            // Where nothing can be sent nothing is answered.
            drop(pinger.ask(landmark, sequence));
        }
    }

    /// Hears answers until the round is over.
    fn hear(&mut self, pinger: &Pinger, until: Instant) -> Result<(), net::Error> {
        while let Some(echo) = pinger.hear(until)? {
            let asked = self.rounds.iter().find(|(sequence, _)| *sequence == echo.sequence);
            let Some((_, asked)) = asked.copied() else { continue };
            let proven = self.watch.proven().len();
            self.watch.hears(echo.from, asked);
            if self.look.is_some() && self.watch.proven().len() > proven {
                self.note();
            }
            self.tell();
            if Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }

    fn note(&self) {
        if let Err(error) = durable::write(&self.notes, self.watch.proven()) {
            eprintln!("! {}: {error}", self.notes.display());
        }
    }

    /// Tells the daemon what is new. Whether it is still there to be told.
    fn tell(&mut self) -> bool {
        let reach = self.watch.reach(clock::now());
        if self.told.as_ref() == Some(&reach) {
            return true;
        }
        self.told = Some(reach.clone());
        self.events.send(Event::Input(Input::Reach(reach))).is_ok()
    }
}

fn open(pinger: &mut Option<Pinger>) -> Result<&Pinger, net::Error> {
    match pinger {
        Some(pinger) => Ok(pinger),
        none => Ok(none.insert(Pinger::open(clock::random() as u64)?)),
    }
}
