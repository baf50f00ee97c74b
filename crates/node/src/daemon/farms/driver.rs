//! Drives the kernel's filter of one farm: a thread that carries out what the core wants, in order.
//!
//! ```text
//! SetAddresses held ──> Hold ────> probe, install the filter with an empty share, addresses
//! SetShares ──────────> Apply ───> one change of the filter; the leader announces
//! SetAddresses dropped > Release ─> addresses away, filter away
//! ```
//!
//! A farm without virtual addresses has no filter: a balancer in front of it asks for its health.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use cluster::Input;
use cluster::farm::{Left, Seat, Shares, Stray};
use model::config::{self, ModuleConfig, Vip};
use model::{BootId, NodeName};
use net::farm::{self, Engine, Nft, Place, Plan, Table};
use net::vip::{self, RENEW_EVERY};

use super::kept::Kept;
use super::places::Places;
use crate::daemon::event::Event;

/// How long the network is asked whether somebody else has an address.
const PROBE: Duration = Duration::from_millis(300);
/// How often, and the pause before the next time: a member whose pulses are still to come may be
/// the one that answers.
const PROBES: u32 = 8;
const PROBE_PAUSE: Duration = Duration::from_millis(400);
/// When a leader with a new table tells the network again where the addresses are: some switch or
/// router may miss it, and then it is told now and then for those that have forgotten.
const ANNOUNCE_AFTER_MS: [u64; 6] = [0, 100, 300, 1000, 3000, 10_000];
const ANNOUNCE_EVERY: Duration = Duration::from_secs(60);

/// What the thread is to do.
pub(crate) enum Order {
    /// Go on with what an earlier daemon left standing.
    Adopt,
    /// Take part: the filter, and then the addresses.
    Hold,
    /// Take no part any more.
    Release,
    /// Have the kernel go by these shares, and keep what a following daemon needs.
    Apply(Box<Shares>, Option<Box<Left>>),
    /// Another node is reached elsewhere.
    Moved,
}

/// One farm's filter, as the main loop sees it.
pub(crate) struct Driver {
    orders: Sender<Order>,
    places: Arc<Places>,
    /// What an earlier daemon of this boot left, if there was one.
    kept: Option<Kept>,
}

impl Driver {
    /// Starts the thread; `file` is what daemons of one boot keep for each other.
    pub(crate) fn start(
        (own, boot): (&NodeName, BootId),
        config: &ModuleConfig,
        file: PathBuf,
        events: &Sender<Event>,
    ) -> std::io::Result<Driver> {
        let (orders, received) = channel();
        let kept = Kept::read(&file, boot);
        let others = kept.as_ref().map(Kept::others).unwrap_or_default();
        let places = Arc::new(Places::new(others, orders.clone()));
        let seat = config.nodes.iter().position(|node| node == own);
        let worker = Worker {
            own: seat.and_then(|seat| Seat::try_from(seat).ok()).unwrap_or_default(),
            boot,
            config: config.clone(),
            file,
            events: events.clone(),
            places: Arc::clone(&places),
            engine: Box::new(Nft::new()),
            plan: None,
            shares: None,
            announcing: None,
            renew_at: Instant::now(),
            ailing: false,
        };
        let name = format!("farm-{}", config.name);
        std::thread::Builder::new().name(name).spawn(move || worker.run(&received))?;
        Ok(Driver { orders, places, kept })
    }

    pub(crate) fn order(&self, order: Order) {
        // The thread lives as long as the process.
        let _ = self.orders.send(order);
    }

    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Whether an earlier daemon of this boot had the farm take part.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Goes on with what that one left; what the core is to know of it.
    pub(crate) fn adopt(&mut self) -> Option<Left> {
        self.order(Order::Adopt);
        self.kept.take().and_then(|kept| kept.left)
    }
}

struct Worker {
    own: Seat,
    boot: BootId,
    config: ModuleConfig,
    file: PathBuf,
    events: Sender<Event>,
    places: Arc<Places>,
    engine: Box<dyn Engine>,
    plan: Option<Plan>,
    shares: Option<Shares>,
    /// As leader: since when it announces, and how often it did.
    announcing: Option<(Instant, usize)>,
    renew_at: Instant,
    /// The addresses could not be kept, or the shares not be filled in.
    ailing: bool,
}

impl Worker {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let now = Instant::now();
            let next = self.next_announcement().into_iter().chain(self.next_renewal()).min();
            let pause = next.map_or(ANNOUNCE_EVERY, |at| at.saturating_duration_since(now));
            match orders.recv_timeout(pause) {
                Ok(order) => self.carry_out(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.keep();
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Adopt => {
                if let Err(error) = self.install() {
                    self.complain("cannot be adopted", &error);
                }
            }
            Order::Hold => {
                let held = self.probe().and_then(|()| self.install());
                let error = held.and_then(|()| self.write(None)).err();
                self.answer_addresses(true, error);
            }
            Order::Release => {
                let error = self.release().err();
                self.answer_addresses(false, error);
            }
            Order::Apply(shares, left) => {
                let edition = shares.edition;
                let error = self.apply(*shares, left).err();
                let module = self.config.name.clone();
                self.tell(Input::SharesSet { module, edition, error });
            }
            Order::Moved => {
                if let Some(shares) = self.shares.clone()
                    && let Err(error) = self.fill(&shares)
                {
                    self.complain("cannot follow a node that moved", &error);
                }
            }
        }
    }

    /// Nobody but a node of this farm may answer for an address.
    fn probe(&self) -> Result<(), String> {
        for vip in &self.config.vips {
            let mut stranger = None;
            for round in 0..PROBES {
                if round > 0 {
                    std::thread::sleep(PROBE_PAUSE);
                }
                let found = vip::probe(vip, PROBE).map_err(|error| error.to_string())?;
                stranger = found.filter(|mac| !self.is_member(mac));
                if stranger.is_none() {
                    break;
                }
            }
            if let Some(mac) = stranger {
                return Err(in_use(vip, mac));
            }
        }
        Ok(())
    }

    /// Whether the hardware address is one of this farm: a node's, or the one that all share.
    fn is_member(&self, mac: &[u8; 6]) -> bool {
        let shared = mac.first().is_some_and(|first| first & 1 != 0);
        let others = self.places.others();
        shared || others.values().flatten().any(|place| place.mac == *mac)
    }

    fn install(&mut self) -> Result<(), String> {
        if self.config.vips.is_empty() {
            return Ok(());
        }
        let plan = plan_of(&self.config).map_err(|error| error.to_string())?;
        let own: Vec<Place> = plan.addresses.iter().map(|address| address.own).collect();
        if !self.places.set_own(&own) {
            let vips = self.config.vips.len();
            return Err(format!("{vips} virtual addresses are more than a farm's nodes can tell"));
        }
        self.engine.install(&plan).map_err(|error| error.to_string())?;
        self.plan = Some(plan);
        self.renew_at = Instant::now() + RENEW_EVERY;
        Ok(())
    }

    fn release(&mut self) -> Result<(), String> {
        self.announcing = None;
        self.shares = None;
        let removed = match self.plan {
            Some(_) => self.engine.remove(),
            // Whatever an earlier daemon left.
            None => (self.config.vips.iter().try_for_each(vip::remove))
                .and_then(|()| farm::remove(self.config.name.as_str())),
        };
        removed.map_err(|error| error.to_string())?;
        self.plan = None;
        self.places.set_own(&[]);
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn apply(&mut self, shares: Shares, left: Option<Box<Left>>) -> Result<(), String> {
        // Before the kernel goes by it, for a daemon may die in between.
        self.write(left.map(|left| *left))?;
        self.fill(&shares)?;
        let table = |shares: &Shares| (shares.term, shares.serial);
        let is_new = self.shares.as_ref().map(table) != Some(table(&shares));
        self.announcing = match (shares.leader, self.announcing) {
            // With each table: a former leader that clients still went by may be gone.
            (true, Some(announcing)) if !is_new => Some(announcing),
            (true, _) => Some((Instant::now(), 0)),
            (false, _) => None,
        };
        self.shares = Some(shares);
        Ok(())
    }

    /// Keeps what a following daemon of this boot must know.
    fn write(&self, left: Option<Left>) -> Result<(), String> {
        let kept = Kept::new(self.boot, left, &self.places.others());
        kept.write(&self.file).map_err(|error| format!("{}: {error}", self.file.display()))
    }

    fn fill(&mut self, shares: &Shares) -> Result<(), String> {
        if self.plan.is_none() && shares.serves() {
            // An adoption that failed. A farm without addresses has none here either.
            self.install()?;
        }
        if self.plan.is_none() {
            // A farm without addresses, or one that takes no part: nothing is served by the kernel.
            return Ok(());
        }
        if self.ailing {
            self.engine.renew().map_err(|error| error.to_string())?;
            self.ailing = false;
        }
        let table = self.table(shares);
        let applied = self.engine.apply(&table).map_err(|error| error.to_string());
        // Somebody may have taken the filter away: it is put up again before the next attempt.
        self.ailing = applied.is_err();
        applied
    }

    /// The shares in the engine's terms. A node whose place is not known cannot be sent anything.
    fn table(&self, shares: &Shares) -> Table {
        let wanted = self.plan.as_ref().map_or(0, |plan| plan.addresses.len());
        let others = self.places.others();
        let others: Vec<(Seat, Vec<Place>)> =
            others.into_iter().filter(|(_, places)| places.len() == wanted).collect();
        let member = |seat: Seat| {
            let index = others.iter().position(|(other, _)| *other == seat);
            index.and_then(|index| u8::try_from(index).ok())
        };
        let bucket = |bucket: &cluster::farm::Bucket| {
            let owner = match bucket.owner {
                Some(seat) if seat == self.own => farm::Owner::Me,
                Some(seat) => member(seat).map_or(farm::Owner::Nobody, farm::Owner::Member),
                None => farm::Owner::Nobody,
            };
            let stray = match bucket.stray {
                Stray::Pass(seat) => member(seat).map_or(farm::Stray::Silent, farm::Stray::Pass),
                Stray::Reset => farm::Stray::Reset,
                Stray::Silent => farm::Stray::Silent,
            };
            farm::Bucket { owner, stray, former: bucket.former }
        };
        let buckets = shares.buckets.iter().map(bucket).collect();
        let members = others.iter().map(|(_, places)| places.clone()).collect();
        Table { leader: shares.leader, members, buckets }
    }

    /// Renewals and announcements that are due.
    fn keep(&mut self) {
        let now = Instant::now();
        if self.next_renewal().is_some_and(|at| at <= now) {
            self.renew_at = now + RENEW_EVERY;
            if let Err(error) = self.engine.renew() {
                // Told like shares that the kernel does not take: they are told again then.
                self.ailing = true;
                let edition = self.shares.as_ref().map_or(0, |shares| shares.edition);
                let error = Some(format!("its addresses cannot be kept: {error}"));
                self.tell(Input::SharesSet { module: self.config.name.clone(), edition, error });
            }
        }
        if self.next_announcement().is_some_and(|at| at <= now) {
            if let Some((_, count)) = &mut self.announcing {
                *count += 1;
            }
            let announced = self.plan.as_ref().map_or(Ok(()), farm::announce);
            if let Err(error) = announced {
                self.complain("cannot announce its addresses", &error.to_string());
            }
        }
    }

    fn next_renewal(&self) -> Option<Instant> {
        self.plan.as_ref().map(|_| self.renew_at)
    }

    fn next_announcement(&self) -> Option<Instant> {
        let (since, count) = self.announcing?;
        let after = ANNOUNCE_AFTER_MS.get(count).copied().map(Duration::from_millis);
        let [.., last] = ANNOUNCE_AFTER_MS;
        let more = u32::try_from(count + 1 - ANNOUNCE_AFTER_MS.len().min(count + 1)).unwrap_or(0);
        Some(since + after.unwrap_or(Duration::from_millis(last) + ANNOUNCE_EVERY * more))
    }

    fn answer_addresses(&self, held: bool, error: Option<String>) {
        self.tell(Input::AddressesSet { module: self.config.name.clone(), held, error });
    }

    fn tell(&self, input: Input) {
        // The main loop has ended when nobody listens.
        let _ = self.events.send(Event::Input(input));
    }

    fn complain(&self, what: &str, error: &str) {
        eprintln!("! farm {} {what}: {error}", self.config.name);
    }
}

fn in_use(vip: &Vip, mac: [u8; 6]) -> String {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    format!(
        "{} is in use already, by the device with the hardware address {mac}, which is no node of \
         this farm; take the address away there, or give the farm another one",
        vip.address
    )
}

fn plan_of(config: &ModuleConfig) -> Result<Plan, net::Error> {
    let addresses = config.vips.iter().map(farm::address).collect::<Result<Vec<_>, _>>()?;
    let (balance, delivery) = match &config.farm {
        Some(farm) => (&farm.balance[..], farm.delivery),
        None => (&[][..], config::Delivery::Directed),
    };
    let rules = balance.iter().map(|rule| farm::Rule {
        protocol: match rule.protocol {
            config::Protocol::Tcp => farm::Protocol::Tcp,
            config::Protocol::Udp => farm::Protocol::Udp,
        },
        port: rule.port,
        affinity: match rule.affinity {
            config::Affinity::ClientIp => farm::Affinity::ClientIp,
            config::Affinity::ClientIpPort => farm::Affinity::ClientIpPort,
        },
    });
    Ok(Plan {
        module: config.name.as_str().to_owned(),
        addresses,
        rules: rules.collect(),
        delivery: match delivery {
            config::Delivery::Directed => farm::Delivery::Directed,
            config::Delivery::Multicast => farm::Delivery::Multicast,
        },
        connections: true,
    })
}
