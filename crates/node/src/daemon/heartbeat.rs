//! Heartbeats: sent at every pulse on every network, received from every network.
//!
//! `cluster::contact::Contact` numbers them and judges what an echo proves; here are the sockets
//! and the threads. What may be heard is found out by `guard`. The sender falls silent when the
//! main loop has stopped ticking, so that a wedged daemon does not look alive. It runs before all
//! ordinary threads, for it wants little; the receivers, whose work others decide on, only have the
//! best share of the processor.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cluster::Input;
use cluster::contact::Contact;
use cluster::report::{Heartbeat, Report};
use model::config::ClusterConfig;
use model::{ModuleName, NetworkName, NodeName, Time};
use wire::datagram::DATAGRAM_BYTES_MAX;

use crate::clock;
use crate::connection::PEER_PORT;
use crate::daemon::configuring::Stands;
use crate::daemon::event::Event;
use crate::daemon::farms::{self, Pulses};
use crate::daemon::guard::{Guard, Passage, TurnedAway};
use crate::urgent::{self, Urgency};

/// Time between two heartbeats.
pub(crate) const PULSE: Duration = Duration::from_millis(100);

/// How often the nodes of a farm are told that a daemon ends, and the pause after each time: what
/// fills a queue for a moment shall not take all of it.
const FAREWELLS: u32 = 3;
const FAREWELL_PAUSE: Duration = Duration::from_millis(2);

/// The sending side, as the main loop sees it.
pub(crate) struct Heartbeats {
    shared: Arc<Shared>,
    paths: Arc<Vec<Path>>,
    wake: Sender<()>,
}

struct Shared {
    guard: Guard,
    pulses: Pulses,
    contact: Mutex<Contact>,
    outgoing: Mutex<Outgoing>,
    heard: Mutex<BTreeMap<(NetworkName, NodeName), Heard>>,
    /// The configuration that each peer has in use.
    stands: Stands,
    /// How the sender is scheduled, once it has begun.
    urgency: OnceLock<Urgency>,
}

/// What was heard of a peer on a network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    /// When that was, the last time.
    pub(crate) at: Time,
    /// The longest time between two heartbeats so far.
    pub(crate) longest: Duration,
    /// How often that was longer than a node of this cluster may stand still.
    pub(crate) late: u64,
}

struct Outgoing {
    /// The coming heartbeat, but for its stamps.
    heartbeat: Heartbeat,
    /// Whether it has been said what is reported in it. Before that, it is not sent: what the core
    /// would say first may not be written down yet.
    announced: bool,
    /// When the main loop turned last, if it ever did.
    main_loop_ticked: Option<Time>,
    /// The main loop must have ticked within this time, or heartbeats stop.
    wedged_after: Duration,
}

/// One socket and the peers reached through it.
struct Path {
    network: NetworkName,
    socket: UdpSocket,
    peers: Vec<(NodeName, SocketAddr)>,
}

impl Heartbeats {
    /// Opens the sockets and starts the threads.
    pub(crate) fn start(
        cluster: &ClusterConfig,
        heartbeat: Heartbeat,
        (contact, guard, pulses): (Contact, Guard, Pulses),
        wedged_after: Duration,
        events: &Sender<Event>,
    ) -> io::Result<Heartbeats> {
        let mut paths = Vec::new();
        let own = heartbeat.from.clone();
        let outgoing =
            Outgoing { heartbeat, announced: false, main_loop_ticked: None, wedged_after };
        let (wake, woken) = channel();
        let shared = Arc::new(Shared {
            guard,
            pulses,
            contact: Mutex::new(contact),
            outgoing: Mutex::new(outgoing),
            heard: Mutex::new(BTreeMap::new()),
            stands: Stands::default(),
            urgency: OnceLock::new(),
        });
        for path in open_paths(cluster, &own)? {
            let receiving = path.socket.try_clone()?;
            let peers = path.peers.iter().map(|(name, address)| (address.ip(), name.clone()));
            let hearing = Hearing {
                peers: peers.collect(),
                network: path.network.clone(),
                shared: Arc::clone(&shared),
                events: events.clone(),
                wake: wake.clone(),
            };
            std::thread::Builder::new()
                .name(format!("hear-{}", path.network))
                .spawn(move || hearing.hear(&receiving))?;
            paths.push(path);
        }
        let paths = Arc::new(paths);
        pulse_farms(&paths, &shared)?;
        let (sending, all) = (Arc::clone(&shared), Arc::clone(&paths));
        std::thread::Builder::new()
            .name("pulse".to_owned())
            .spawn(move || pulse(&all, &woken, &sending))?;
        Ok(Heartbeats { shared, paths, wake })
    }

    /// Takes the reports for the coming heartbeats and sends one at once.
    pub(crate) fn announce(&self, reports: BTreeMap<ModuleName, Arc<Report>>) {
        lock(&self.shared.outgoing).announce(reports);
        // The thread lives as long as the process.
        let _ = self.wake.send(());
    }

    /// The pulse of a farm, from now on and at once.
    pub(crate) fn say(&self, module: &ModuleName, pulse: cluster::farm::Pulse) {
        self.shared.pulses.say(module, pulse);
    }

    /// Whether the nodes of some farm listen for this one.
    pub(crate) fn are_awaited(&self) -> bool {
        self.shared.pulses.are_awaited()
    }

    /// Tells the nodes of the farms that this daemon ends, and its kernel goes on.
    pub(crate) fn end(&self) {
        for _ in 0..FAREWELLS {
            for (_, others, pulse) in self.shared.pulses.end() {
                others.iter().for_each(|node| send_pulse(&self.paths, &self.shared, node, &pulse));
            }
            std::thread::sleep(FAREWELL_PAUSE);
        }
    }

    /// When each peer was heard on each network.
    pub(crate) fn heard(&self) -> BTreeMap<(NetworkName, NodeName), Heard> {
        lock(&self.shared.heard).clone()
    }

    /// The configuration that each peer has in use, as it goes on being heard.
    pub(crate) fn stands(&self) -> Stands {
        Arc::clone(&self.shared.stands)
    }

    /// The file of the cluster's key was changed.
    pub(crate) fn refresh_key(&self) {
        self.shared.guard.refresh();
    }

    /// What came and was not heard.
    pub(crate) fn turned_away(&self) -> TurnedAway {
        self.shared.guard.turned_away()
    }

    /// How the sender is scheduled; none until it has begun.
    pub(crate) fn urgency(&self) -> Option<Urgency> {
        self.shared.urgency.get().copied()
    }

    /// The main loop is alive.
    pub(crate) fn tick(&self, now: Time) {
        lock(&self.shared.outgoing).main_loop_ticked = Some(now);
    }
}

impl Outgoing {
    fn announce(&mut self, reports: BTreeMap<ModuleName, Arc<Report>>) {
        self.heartbeat.reports = reports;
        self.announced = true;
    }

    /// Whether the main loop has not turned for longer than this.
    fn is_late(&self, now: Time, than: Duration) -> bool {
        self.main_loop_ticked.is_none_or(|at| now.since(at) > than)
    }

    /// What is to be sent now, but for its stamps.
    fn sayable(&self, now: Time) -> Option<Heartbeat> {
        let silent = !self.announced || self.is_late(now, self.wedged_after);
        (!silent).then(|| self.heartbeat.clone())
    }
}

impl Shared {
    fn note_heard(&self, key: (NetworkName, NodeName), at: Time) {
        let allowed = lock(&self.outgoing).wedged_after;
        let mut heard = lock(&self.heard);
        let first = Heard { at, longest: Duration::ZERO, late: 0 };
        let before = heard.get(&key).copied().unwrap_or(first);
        let silence = at.since(before.at);
        let longest = before.longest.max(silence);
        let late = before.late + u64::from(silence > allowed);
        heard.insert(key, Heard { at, longest, late });
    }
}

fn open_paths(cluster: &ClusterConfig, own: &NodeName) -> io::Result<Vec<Path>> {
    let mut paths = Vec::new();
    let addresses = cluster.node(own).map(|node| &node.addresses);
    for network in &cluster.networks {
        let Some(address) = addresses.and_then(|addresses| addresses.get(&network.name)) else {
            continue;
        };
        let socket = UdpSocket::bind((*address, PEER_PORT)).map_err(|error| {
            let what = format!("cannot listen on {address} UDP port {PEER_PORT}: {error}");
            io::Error::new(error.kind(), what)
        })?;
        let peers = cluster.nodes.iter().filter(|node| node.name != *own).filter_map(|node| {
            let address = node.addresses.get(&network.name)?;
            Some((node.name.clone(), SocketAddr::new(*address, PEER_PORT)))
        });
        let network = network.name.clone();
        paths.push(Path { network, socket, peers: peers.collect() });
    }
    Ok(paths)
}

/// What the thread of one network needs.
struct Hearing {
    peers: BTreeMap<IpAddr, NodeName>,
    network: NetworkName,
    shared: Arc<Shared>,
    events: Sender<Event>,
    wake: Sender<()>,
}

impl Hearing {
    fn hear(&self, socket: &UdpSocket) {
        urgent::prefer();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
        loop {
            // An error here is an earlier datagram's that a peer refused; the next call is fine.
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            let datagram = buffer.get(..length).unwrap_or_default();
            let Some(input) = self.take(clock::now(), from.ip(), datagram) else { continue };
            if self.events.send(Event::Input(input)).is_err() {
                return;
            }
        }
    }

    fn take(&self, now: Time, from: IpAddr, datagram: &[u8]) -> Option<Input> {
        let Some(peer) = self.peers.get(&from) else {
            self.shared.guard.stranger(&from);
            return None;
        };
        let guarded = match self.shared.guard.judge(now, peer, datagram) {
            Passage::Passed(guarded) => guarded,
            Passage::Pulse(module, pulse) => {
                return self.shared.pulses.hear(now, peer, module, pulse);
            }
            Passage::Unread(version) => {
                return Some(Input::Unread { from: peer.clone(), received: now, version });
            }
            Passage::Refused => return None,
            Passage::Answer => {
                // The thread lives as long as the process.
                let _ = self.wake.send(());
                return None;
            }
        };
        self.shared.note_heard((self.network.clone(), peer.clone()), now);
        let received = lock(&self.shared.contact).receive(now, &guarded.heartbeat);
        let Some((received, echoed)) = received else {
            self.shared.guard.repeated();
            return None;
        };
        if self.shared.guard.met(&guarded) {
            // A daemon that was started anew is to hear everything at once.
            self.shared.pulses.hurry();
            let _ = self.wake.send(());
        }
        lock(&self.shared.stands).insert(peer.clone(), guarded.heartbeat.configuration);
        let heartbeat = Box::new(guarded.heartbeat);
        Some(Input::Heartbeat { heartbeat, received, echoed })
    }
}

fn pulse(paths: &[Path], woken: &Receiver<()>, shared: &Shared) {
    let urgency = *shared.urgency.get_or_init(urgent::hurry);
    if urgency != Urgency::RealTime {
        eprintln!("! heartbeats are sent with {urgency} priority: real-time is not granted");
    }
    loop {
        match woken.recv_timeout(PULSE) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while woken.try_recv().is_ok() {}
        let now = clock::now();
        let heartbeat = lock(&shared.outgoing).sayable(now);
        let Some(heartbeat) = heartbeat else { continue };
        send_to_all(paths, now, &heartbeat, shared);
    }
}

/// Sends the pulses of this node's farms, by a thread of its own.
fn pulse_farms(paths: &Arc<Vec<Path>>, shared: &Arc<Shared>) -> io::Result<()> {
    let (paths, shared) = (Arc::clone(paths), Arc::clone(shared));
    let (wake, woken) = channel();
    shared.pulses.set_wake(wake);
    std::thread::Builder::new().name("farm-pulse".to_owned()).spawn(move || {
        let is_stale = |now: Time| lock(&shared.outgoing).is_late(now, farms::STALE);
        let send = |node: &NodeName, pulse: &[u8]| send_pulse(&paths, &shared, node, pulse);
        farms::pulse(&shared.pulses, &woken, is_stale, send);
    })?;
    Ok(())
}

fn send_pulse(paths: &[Path], shared: &Shared, node: &NodeName, pulse: &[u8]) {
    let Some(datagram) = shared.guard.pulse_to(node, pulse) else { return };
    for path in paths {
        for (_, address) in path.peers.iter().filter(|(peer, _)| peer == node) {
            // A network that is down shows by the silence on it.
            let _ = path.socket.send_to(&datagram, address);
        }
    }
}

fn send_to_all(paths: &[Path], now: Time, heartbeat: &Heartbeat, shared: &Shared) {
    let mut stamped = BTreeMap::new();
    for path in paths {
        for (peer, address) in &path.peers {
            let datagrams = stamped.entry(peer).or_insert_with(|| {
                let mut heartbeat = heartbeat.clone();
                lock(&shared.contact).stamp(now, peer, &mut heartbeat);
                shared.guard.datagrams(peer, &heartbeat)
            });
            for datagram in datagrams {
                // A network that is down shows by the silence on it.
                let _ = path.socket.send_to(datagram, address);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use model::BootId;
    use model::config::Stand;

    use super::*;

    #[test]
    fn nothing_is_sent_before_it_was_announced_and_the_main_loop_has_turned() {
        let heartbeat = Heartbeat {
            from: NodeName::new("node1").unwrap(),
            boot: BootId(1),
            incarnation: 1,
            sequence: 0,
            echo: 0,
            echo_incarnation: 0,
            cluster_digest: 0,
            configuration: Stand::default(),
            reports: BTreeMap::new(),
        };
        let wedged_after = Duration::from_secs(1);
        let new = || Outgoing {
            heartbeat: heartbeat.clone(),
            announced: false,
            main_loop_ticked: None,
            wedged_after,
        };
        // A machine that has just booted: less has passed than the main loop may stand still.
        let now = Time::from_millis(10);
        let mut outgoing = new();
        outgoing.announce(BTreeMap::new());
        assert_eq!(outgoing.sayable(now), None, "the main loop has not turned");
        assert!(outgoing.is_late(now, farms::STALE));
        let mut outgoing = new();
        outgoing.main_loop_ticked = Some(now);
        assert_eq!(outgoing.sayable(now), None, "nothing was announced");
        outgoing.announce(BTreeMap::new());
        assert_eq!(outgoing.sayable(now + wedged_after), Some(heartbeat.clone()));
        assert_eq!(outgoing.sayable(now + wedged_after * 2), None, "it stands still");
    }
}
