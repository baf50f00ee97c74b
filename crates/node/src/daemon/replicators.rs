//! The replicator processes of this node: starting, adopting and talking to them.
//!
//! A replicator is not the daemon's to take down: it runs in a session and a cgroup of its own,
//! holds its listening socket itself, and a later daemon finds it there.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use cluster::effect::Assignment;
use model::config::ModuleConfig;
use model::{EpochId, ModuleName, NodeName, SessionId};
use wire::hello::Joint;
use wire::local::{FromReplicator, ToReplicator};

use crate::daemon::cgroup::Cgroup;
use crate::daemon::event::Event;
use crate::layout::Layout;
use crate::packet;

/// How long a replicator may take to make a marker durable.
const MARK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a replicator that was found running may take to say what it is doing.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// A replicator process.
pub(crate) struct Replicator {
    /// Tells the words of this process from those of an earlier one.
    pub(crate) generation: u64,
    socket: Arc<OwnedFd>,
    marked: Receiver<(u64, Option<String>)>,
    next_mark: u64,
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
        let child = spawn(start, listener)?;
        Cgroup::of(&start.config.name, "replicator")?.take_in(child.id())?;
        let socket = packet::connect_to(&path)?;
        Self::talk(start, socket, Some(child), None)
    }

    /// Connects to a process that an earlier daemon started, if there is one.
    pub(crate) fn adopt(start: &Start<'_>) -> io::Result<Option<(Replicator, Found)>> {
        let path = start.layout.replicator_socket(&start.config.name);
        let Ok(socket) = packet::connect_to(&path) else { return Ok(None) };
        let (found_sender, found) = channel();
        let replicator = Self::talk(start, socket, None, Some(found_sender))?;
        packet::send(&replicator.socket, &ToReplicator::Query, None)?;
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
        let socket = Arc::new(socket);
        let (mark_sender, marked) = channel();
        let listening = Listening {
            socket: Arc::clone(&socket),
            module: start.config.name.clone(),
            generation: start.generation,
            events: start.events.clone(),
            marked: mark_sender,
            found,
            child,
        };
        std::thread::Builder::new()
            .name(format!("{}-replicator", start.config.name))
            .spawn(move || listening.run())?;
        Ok(Replicator { generation: start.generation, socket, marked, next_mark: 1 })
    }

    /// Gives it an assignment.
    pub(crate) fn assign(
        &self,
        serial: u64,
        assignment: Assignment,
        peer: Vec<SocketAddr>,
    ) -> io::Result<()> {
        packet::send(&self.socket, &ToReplicator::Assign { serial, assignment, peer }, None)
    }

    /// Says how fast a resync may go, in bytes per second.
    pub(crate) fn resync_rate(&self, bytes_per_second: Option<u64>) -> io::Result<()> {
        packet::send(&self.socket, &ToReplicator::ResyncRate { bytes_per_second }, None)
    }

    /// Hands over a connection that a peer opened for a session.
    pub(crate) fn connection(
        &self,
        (session, joint): (SessionId, Joint),
        stream: &TcpStream,
    ) -> io::Result<()> {
        let message = ToReplicator::Connection { session, joint };
        packet::send(&self.socket, &message, Some(stream.as_fd()))
    }

    /// Has markers written, and waits until they are durable.
    pub(crate) fn mark(&mut self, root: u128, epoch: EpochId) -> io::Result<()> {
        let serial = self.next_mark;
        self.next_mark += 1;
        packet::send(&self.socket, &ToReplicator::Mark { serial, root, epoch }, None)?;
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

fn spawn(start: &Start<'_>, listener: OwnedFd) -> io::Result<Child> {
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
        .args(["replicator", start.config.name.as_str()])
        .args(["--cluster", start.cluster.as_str(), "--node", start.node.as_str()])
        .args(["--number", &start.number.to_string()])
        .arg("--log")
        .arg(start.layout.activity_file(&start.config.name))
        .stdin(Stdio::from(listener))
        .stdout(output.try_clone()?)
        .stderr(output)
        .current_dir("/")
        .process_group(0);
    for directory in &start.config.replicate {
        command.arg("--directory").arg(directory);
    }
    command.spawn()
}

/// The thread that hears one replicator.
struct Listening {
    socket: Arc<OwnedFd>,
    module: ModuleName,
    generation: u64,
    events: Sender<Event>,
    marked: Sender<(u64, Option<String>)>,
    found: Option<Sender<Found>>,
    child: Option<Child>,
}

impl Listening {
    fn run(mut self) {
        while let Ok(Some((message, _))) = packet::receive::<FromReplicator>(&self.socket) {
            match message {
                FromReplicator::Marked { serial, error } => {
                    let _ = self.marked.send((serial, error));
                }
                FromReplicator::State { assignment, number, .. } => {
                    if let Some(found) = self.found.take() {
                        let _ = found.send(Found { assignment, number });
                    }
                }
                message => {
                    let (module, generation) = (self.module.clone(), self.generation);
                    if self.events.send(Event::Replicator { module, generation, message }).is_err()
                    {
                        return;
                    }
                }
            }
        }
        let how = match self.child.as_mut().map(Child::wait) {
            Some(Ok(status)) => format!("the replicator process ended: {status}"),
            Some(Err(error)) => format!("the replicator process ended: {error}"),
            None => "the replicator process ended".to_owned(),
        };
        let (module, generation) = (self.module.clone(), self.generation);
        let _ = self.events.send(Event::ReplicatorEnded { module, generation, how });
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
