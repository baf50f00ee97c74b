//! What lies between the nodes and the witness: heartbeats, the data link, questions.
//!
//! Heartbeats are datagrams: lost, late, twice, overtaking. The data link is a stream: in order,
//! and once it is cut, ended on both sides after some silence.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use cluster::Input;
use cluster::report::Heartbeat;
use cluster::witness::Request;
use model::{ModuleName, Time};

use crate::replicator::Message;
use crate::world::{Happening, World, shop};

/// The time a datagram or a question takes.
pub(crate) const DELAY: Duration = Duration::from_millis(1);
/// The time a message on the data link takes.
pub(crate) const HOP: Duration = Duration::from_millis(2);
/// An asker gives the witness up after this long.
const NO_ANSWER: Duration = Duration::from_millis(500);
/// Time between two pings.
const PING: Duration = Duration::from_millis(500);
/// What hosts ping.
pub(crate) const LANDMARK: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254));
/// A daemon that has not turned for this long sends no heartbeats.
const WEDGED: Duration = Duration::from_secs(1);

/// The network's state.
#[derive(Debug, Default, Clone)]
pub struct Network {
    /// Nothing passes between the nodes.
    pub cut: bool,
    /// No heartbeat passes.
    pub cut_heartbeats: bool,
    /// The data link does not pass.
    pub cut_link: bool,
    /// Heartbeats from this host are lost.
    pub mute: Option<usize>,
    /// Nothing passes from this host to the other one.
    pub one_way: Option<usize>,
    /// Hosts that reach nobody at all.
    pub isolated: BTreeSet<usize>,
    /// What hosts ping does not answer.
    pub landmark_down: bool,
    /// How many heartbeats of a hundred are lost.
    pub loss: u64,
    /// How many heartbeats of a hundred arrive twice.
    pub twice: u64,
    /// How much later than usual a heartbeat may arrive.
    pub jitter: Duration,
    /// How much later than usual a message on the data link arrives.
    pub lag: Duration,
    /// Hosts that the witness does not hear.
    pub witness_cut: BTreeSet<usize>,
    /// Hosts that the witness hears, but whose answers are lost.
    pub witness_unheard: BTreeSet<usize>,
    /// The witness runs.
    pub witness_up: bool,
    /// How long questions of each host take to reach it.
    pub witness_delay: [Option<Duration>; 2],
    /// When the last message on the data link towards each host arrives.
    busy_until: [Time; 2],
}

impl Network {
    /// A network in which everything works.
    pub(crate) fn new() -> Network {
        Network { witness_up: true, ..Network::default() }
    }

    /// Whether the data link between the nodes is broken.
    #[must_use]
    pub fn link_dead(&self) -> bool {
        self.cut || self.cut_link || self.one_way.is_some() || !self.isolated.is_empty()
    }

    /// Whether nodes hear each other as if nothing were wrong.
    pub(crate) fn works(&self) -> bool {
        let lost = self.cut_heartbeats || self.mute.is_some() || self.loss > 0;
        !self.link_dead() && !lost
    }

    fn loses_heartbeats_from(&self, i: usize) -> bool {
        let lost = self.mute == Some(i) || self.one_way == Some(i);
        self.cut || self.cut_heartbeats || lost || !self.isolated.is_empty()
    }

    /// Everything between the nodes works again.
    pub fn heal(&mut self) {
        self.cut = false;
        self.cut_heartbeats = false;
        self.cut_link = false;
        self.mute = None;
        self.one_way = None;
        self.isolated.clear();
        self.landmark_down = false;
        self.loss = 0;
        self.twice = 0;
        self.jitter = Duration::ZERO;
        self.lag = Duration::ZERO;
    }

    /// The witness is there for both, at once.
    pub fn heal_witness(&mut self) {
        self.witness_up = true;
        self.witness_cut.clear();
        self.witness_unheard.clear();
        self.witness_delay = [None, None];
    }
}

impl World {
    pub(crate) fn send_heartbeat(&mut self, i: usize) {
        let own = self.own_time(i);
        let to = self.hosts[1 - i].name.clone();
        let parsed = self.in_use(i);
        let stand = parsed.map(|parsed| parsed.stand).unwrap_or_default();
        let cluster_digest = parsed.map_or(0, |parsed| parsed.cluster_digest);
        let wedged = parsed.and_then(|parsed| parsed.wedged_after()).unwrap_or(WEDGED);
        let program = self.hosts[i].program;
        let host = &mut self.hosts[i];
        if host.node.is_none() || self.now.since(host.ticked) > wedged {
            return;
        }
        let mut heartbeat = Heartbeat {
            from: host.name.clone(),
            boot: host.boot,
            incarnation: 0,
            sequence: 0,
            echo: 0,
            echo_incarnation: 0,
            cluster_digest,
            configuration: stand,
            reports: host.announced.clone(),
        };
        host.contact.stamp(own, &to, &mut heartbeat);
        let lost = self.network.loses_heartbeats_from(i);
        if lost || self.chance.percent(self.network.loss) {
            return;
        }
        let copies = 1 + usize::from(self.chance.percent(self.network.twice));
        for _ in 0..copies {
            let jitter = self.chance.roll(self.network.jitter.as_millis() as u64 + 1);
            let delay = DELAY + Duration::from_millis(jitter);
            let sent = Box::new((program, heartbeat.clone()));
            self.after(delay, Happening::Arrive(1 - i, sent));
        }
    }

    pub(crate) fn arrive(&mut self, i: usize, program: u32, heartbeat: &Heartbeat) {
        if !self.hosts[i].up || self.network.loses_heartbeats_from(1 - i) {
            return;
        }
        let own = self.own_time(i);
        if self.hosts[i].program != program {
            let (from, version) = (heartbeat.from.clone(), u16::try_from(program).unwrap_or(0));
            return self.give_when_free(i, Input::Unread { from, received: own, version });
        }
        let Some((received, echoed)) = self.hosts[i].contact.receive(own, heartbeat) else {
            return;
        };
        self.hear_stand(i, heartbeat.configuration);
        let heartbeat = Box::new(heartbeat.clone());
        self.give_when_free(i, Input::Heartbeat { heartbeat, received, echoed });
    }

    pub(crate) fn ask(&mut self, i: usize, request: Request) {
        self.asked += 1;
        let delay = self.network.witness_delay[i].unwrap_or(DELAY);
        self.after(delay, Happening::AtWitness(i, request));
    }

    pub(crate) fn at_witness(&mut self, i: usize, life: u64, request: Request) {
        let from = self.hosts[i].name.clone();
        let Ok(cluster) = ModuleName::new("lab") else { return };
        let cut = &self.network;
        let away = cut.witness_cut.contains(&i) || cut.isolated.contains(&i);
        let reached = self.network.witness_up && !away;
        let answer = reached.then(|| {
            let key = (cluster, shop());
            self.witness.handle(&key, &from, request.clone()).1
        });
        let answer = answer.filter(|_| !self.network.witness_unheard.contains(&i));
        let delay = if answer.is_some() { DELAY } else { NO_ANSWER };
        if self.alive(i, life) {
            self.after(delay, Happening::FromWitness(i, request, answer));
        }
    }

    /// A host pings, if there is something to ping, and its daemon is told what came of it.
    pub(crate) fn ping_landmark(&mut self, i: usize) {
        let answered = !self.network.landmark_down && !self.network.isolated.contains(&i);
        let own = self.own_time(i);
        let watch = &mut self.hosts[i].watch;
        watch.asks(own);
        if answered {
            for landmark in watch.landmarks().to_vec() {
                watch.hears(landmark, own);
            }
        }
        let reach = watch.reach(own);
        self.give_when_free(i, Input::Reach(reach));
        self.after(PING, Happening::Ping(i));
    }

    /// Sends a message along the data link, behind those sent before.
    pub(crate) fn carry(&mut self, to: usize, message: Message) {
        let at = (self.now + HOP + self.network.lag).max(self.network.busy_until[to]);
        self.network.busy_until[to] = at;
        self.at(at, Happening::Link(to, message));
    }
}
