//! The replicator processes of this node: starting, adopting and talking to them.
//!
//! A replicator is not the daemon's to take down: it runs in a session and a cgroup of its own,
//! below a keeper that holds its listening socket, and a later daemon finds it there. When one dies
//! and another goes on in its place, the daemon finds that one by the same socket.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster::effect::Assignment;
use model::config::ModuleConfig;
use model::{EpochId, ModuleName, NodeName};
use wire::local::{Caller, FromReplicator, ToReplicator};

use crate::daemon::cgroup::Cgroup;
use crate::daemon::event::Event;
use crate::layout::Layout;
use crate::packet;

/// How long a replicator may take to make a marker durable.
const MARK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a replicator that was found running may take to say what it is doing: one that just
/// goes on in the place of a dead one makes its log durable first, on a disk that may be slow.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one replicator may need to go on in another one's place.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// A replicator process.
pub(crate) struct Replicator {
    /// Tells the words of this process from those of an earlier one.
    pub(crate) generation: u64,
    way: Arc<Way>,
    marked: Receiver<(u64, Option<String>)>,
    next_mark: u64,
}

/// The way to a replicator, whichever process that is at the moment.
#[derive(Default)]
struct Way {
    state: Mutex<WayState>,
    changed: Condvar,
}

#[derive(Default)]
struct WayState {
    socket: Option<Arc<OwnedFd>>,
    ended: bool,
    /// The newest assignment, which one that takes over may not have heard of.
    assigned: Option<(u64, ToReplicator)>,
}

impl Way {
    /// Sends to the replicator; while one takes over from another, it is waited for.
    fn send(&self, message: &ToReplicator, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut state = self.lock();
        loop {
            let waiting = |state: &mut WayState| state.socket.is_none() && !state.ended;
            let waited = self.changed.wait_timeout_while(state, TAKEOVER_TIMEOUT, waiting);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let Some(socket) = state.socket.clone() else {
                return Err(io::Error::other("the replicator has ended"));
            };
            let Err(error) = packet::send(&*socket, message, descriptor) else { return Ok(()) };
            if error.kind() == io::ErrorKind::Other {
                return Err(error);
            }
            // Whoever hears it finds out too, and looks for another one.
            state.socket.take_if(|current| Arc::ptr_eq(current, &socket));
        }
    }

    fn lead_to(&self, socket: Option<Arc<OwnedFd>>) {
        self.lock().socket = socket;
        self.changed.notify_all();
    }

    fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.socket = None;
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, WayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a replicator found running was doing.
pub(crate) struct Found {
    /// Its assignment.
    pub(crate) assignment: Assignment,
    /// Last operation number.
    pub(crate) number: u64,
}

/// What a replicator needs to know when it starts.
pub(crate) struct Start<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) cluster: &'a ModuleName,
    pub(crate) node: &'a NodeName,
    pub(crate) config: &'a ModuleConfig,
    /// Last operation number, when the copy was closed cleanly.
    pub(crate) number: u64,
    pub(crate) generation: u64,
    pub(crate) events: &'a Sender<Event>,
}

impl Replicator {
    /// Starts a process.
    pub(crate) fn start(start: &Start<'_>) -> io::Result<Replicator> {
        let path = start.layout.replicator_socket(&start.config.name);
        let listener = packet::listen_at(&path)?;
        let group = Cgroup::of(&start.config.name, "replicator")?;
        let child = spawn(start, listener, &group)?;
        let socket = packet::connect_to(&path)?;
        Self::talk(start, socket, Some(child), None)
    }

    /// Connects to a process that an earlier daemon started, if there is one.
    pub(crate) fn adopt(start: &Start<'_>) -> io::Result<Option<(Replicator, Found)>> {
        let path = start.layout.replicator_socket(&start.config.name);
        let Ok(socket) = packet::connect_to(&path) else { return Ok(None) };
        let (found_sender, found) = channel();
        let replicator = Self::talk(start, socket, None, Some(found_sender))?;
        replicator.way.send(&ToReplicator::Query, None)?;
        match found.recv_timeout(QUERY_TIMEOUT) {
            Ok(found) => Ok(Some((replicator, found))),
            Err(_) => Err(io::Error::other("a replicator is running but does not answer")),
        }
    }

    fn talk(
        start: &Start<'_>,
        socket: OwnedFd,
        child: Option<Child>,
        found: Option<Sender<Found>>,
    ) -> io::Result<Replicator> {
        let way = Arc::new(Way::default());
        let socket = Arc::new(socket);
        way.lead_to(Some(Arc::clone(&socket)));
        let (mark_sender, marked) = channel();
        let listening = Listening {
            path: start.layout.replicator_socket(&start.config.name),
            way: Arc::clone(&way),
            module: start.config.name.clone(),
            generation: start.generation,
            events: start.events.clone(),
            marked: mark_sender,
            found,
            child,
        };
        std::thread::Builder::new()
            .name(format!("{}-replicator", start.config.name))
            .spawn(move || listening.run(socket))?;
        Ok(Replicator { generation: start.generation, way, marked, next_mark: 1 })
    }

    /// Gives it an assignment.
    pub(crate) fn assign(
        &self,
        serial: u64,
        assignment: Assignment,
        peer: Vec<SocketAddr>,
    ) -> io::Result<()> {
        let message = ToReplicator::Assign { serial, assignment, peer };
        self.way.lock().assigned = Some((serial, message.clone()));
        self.way.send(&message, None)
    }

    /// Says how fast a resync may go, in bytes per second.
    pub(crate) fn resync_rate(&self, bytes_per_second: Option<u64>) -> io::Result<()> {
        self.way.send(&ToReplicator::ResyncRate { bytes_per_second }, None)
    }

    /// Says at which addresses the peer is silent, while it is heard at others.
    pub(crate) fn silent(&self, addresses: Vec<IpAddr>) -> io::Result<()> {
        self.way.send(&ToReplicator::Silent { addresses }, None)
    }

    /// Has it compare both copies.
    pub(crate) fn verify(&self, serial: u64, repair: bool) -> io::Result<()> {
        self.way.send(&ToReplicator::Verify { serial, repair }, None)
    }

    /// Hands over a connection that a peer opened for a session.
    pub(crate) fn connection(&self, caller: Caller, stream: &TcpStream) -> io::Result<()> {
        let message = ToReplicator::Connection(caller);
        self.way.send(&message, Some(stream.as_fd()))
    }

    /// Has markers written, and waits until they are durable.
    pub(crate) fn mark(&mut self, root: u128, epoch: EpochId) -> io::Result<()> {
        let serial = self.next_mark;
        self.next_mark += 1;
        self.way.send(&ToReplicator::Mark { serial, root, epoch }, None)?;
        loop {
            match self.marked.recv_timeout(MARK_TIMEOUT) {
                Ok((answered, _)) if answered != serial => {}
                Ok((_, None)) => return Ok(()),
                Ok((_, Some(error))) => return Err(io::Error::other(error)),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(io::Error::other("the replicator did not write its markers"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the replicator ended"));
                }
            }
        }
    }
}

fn spawn(start: &Start<'_>, listener: OwnedFd, group: &Cgroup) -> io::Result<Child> {
    let log = start.layout.log_file(&start.config.name, "replicator");
    if let Some(directory) = log.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let output = OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("evenkeel")
        .arg("--root")
        .arg(start.layout.root())
        .args(["keeper", start.config.name.as_str()])
        .arg("--group")
        .arg(group.members_file())
        .arg("--")
        .args(["--cluster", start.cluster.as_str(), "--node", start.node.as_str()])
        .args(["--number", &start.number.to_string()])
        .arg("--log")
        .arg(start.layout.activity_file(&start.config.name))
        .arg("--covered")
        .arg(start.layout.covered_file(&start.config.name))
        .arg("--keys")
        .arg(start.layout.keys_directory())
        .stdin(Stdio::from(listener))
        .stdout(output.try_clone()?)
        .stderr(output)
        .current_dir("/")
        .process_group(0);
    for directory in &start.config.replicate {
        command.arg("--directory").arg(directory);
    }
    for pattern in &start.config.replication.exclude {
        // In one word, so that none is taken for an option.
        command.arg(format!("--exclude={pattern}"));
    }
    command.spawn()
}

/// The thread that hears one replicator, and whichever goes on in its place.
struct Listening {
    path: PathBuf,
    way: Arc<Way>,
    module: ModuleName,
    generation: u64,
    events: Sender<Event>,
    marked: Sender<(u64, Option<String>)>,
    found: Option<Sender<Found>>,
    child: Option<Child>,
}

impl Listening {
    fn run(mut self, mut socket: Arc<OwnedFd>) {
        loop {
            if !self.hear(&socket) {
                return;
            }
            self.way.lead_to(None);
            // As long as a keeper holds its end, somebody will answer, or it will end too.
            let Ok(next) = packet::connect_to(&self.path) else { break };
            socket = Arc::new(next);
            self.way.lead_to(Some(Arc::clone(&socket)));
            // An error is met again in a moment.
            let _ = packet::send(&*socket, &ToReplicator::Query, None);
        }
        self.way.end();
        let how = match self.child.as_mut().map(Child::wait) {
            Some(Ok(status)) => format!("the replicator process ended: {status}"),
            Some(Err(error)) => format!("the replicator process ended: {error}"),
            None => "the replicator process ended".to_owned(),
        };
        let (module, generation) = (self.module.clone(), self.generation);
        let _ = self.events.send(Event::ReplicatorEnded { module, generation, how });
    }

    /// Hears one process to its end; false when nobody wants to know any more.
    fn hear(&mut self, socket: &OwnedFd) -> bool {
        loop {
            let message = match packet::receive::<FromReplicator>(&socket) {
                Ok(Some((message, _))) => message,
                // One of a newer version may tell more; what matters it tells as well.
                Err(error) if error.raw_os_error().is_none() => continue,
                Ok(None) | Err(_) => return true,
            };
            match message {
                FromReplicator::Marked { serial, error } => {
                    let _ = self.marked.send((serial, error));
                }
                FromReplicator::State { serial, assignment, number } => match self.found.take() {
                    Some(found) => drop(found.send(Found { assignment, number })),
                    None => self.assign_again(socket, serial),
                },
                message => {
                    let (module, generation) = (self.module.clone(), self.generation);
                    if self.events.send(Event::Replicator { module, generation, message }).is_err()
                    {
                        return false;
                    }
                }
            }
        }
    }

    /// One that took over may lack the newest assignment.
    fn assign_again(&self, socket: &OwnedFd, serial: u64) {
        let assigned = self.way.lock().assigned.clone();
        if let Some((newest, message)) = assigned
            && newest != serial
        {
            // An error is met again in a moment.
            let _ = packet::send(&socket, &message, None);
        }
    }
}

/// Addresses of a peer on the networks that may carry replication, best first.
pub(crate) fn replication_addresses(
    cluster: &model::config::ClusterConfig,
    peer: &NodeName,
) -> Vec<SocketAddr> {
    let mut ranked = BTreeMap::new();
    let addresses = cluster.node(peer).map(|node| &node.addresses);
    for (index, network) in cluster.networks.iter().enumerate() {
        let rank = match network.replication {
            model::config::ReplicationUse::Preferred => 0,
            model::config::ReplicationUse::Allowed => 1,
            model::config::ReplicationUse::Never => continue,
        };
        if let Some(address) = addresses.and_then(|addresses| addresses.get(&network.name)) {
            let address = SocketAddr::new(*address, crate::connection::PEER_PORT);
            ranked.insert((rank, index), address);
        }
    }
    ranked.into_values().collect()
}
