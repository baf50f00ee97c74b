//! The replicator's side of the conversation with the daemon.
//!
//! Daemons come and go; the newest one that connected is told what happens. A thread of its own
//! does the telling, because a daemon that does not listen must not hold up data. Markers are
//! written here at once, because the daemon waits for them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cluster::effect::Assignment;
#[cfg(test)]
use cluster::effect::Ending;
use cluster::input::ReplicatorEvent;
use model::{EpochId, ModuleName};
use wire::local::{FromReplicator, ToReplicator};

use crate::marker::{self, Marker};
use crate::packet;
use crate::replicator::limit::Limit;
use crate::replicator::{Directory, PacketSender};

/// A message of the daemon and the descriptor that came with it.
pub(super) type Packet = (ToReplicator, Option<OwnedFd>);

/// Messages waiting for a daemon beyond which those are dropped that the next one replaces.
const QUEUE_MAX: usize = 32;

/// The way to the daemon.
pub(super) struct DaemonLink {
    current: Mutex<Option<Arc<OwnedFd>>>,
    queue: Mutex<VecDeque<FromReplicator>>,
    queued: Condvar,
    /// What to answer a daemon that asks, at once and whatever the main loop is busy with.
    state: Mutex<FromReplicator>,
    limit: Limit,
}

impl DaemonLink {
    /// A link that no daemon listens to: what is told stays in the queue.
    #[cfg(test)]
    pub(super) fn unheard() -> Arc<DaemonLink> {
        let (serial, assignment, number) = (0, Assignment::Hold { ending: Ending::Cut }, 0);
        Arc::new(DaemonLink {
            current: Mutex::new(None),
            queue: Mutex::default(),
            queued: Condvar::new(),
            state: Mutex::new(FromReplicator::State { serial, assignment, number }),
            limit: Limit::default(),
        })
    }

    /// Starts to listen on standard input; daemons that ask are told this state at first.
    pub(super) fn start(
        module: &ModuleName,
        directories: &[Directory],
        state: FromReplicator,
        packets: PacketSender,
    ) -> io::Result<Arc<DaemonLink>> {
        let listener = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3)?;
        let link = Arc::new(DaemonLink {
            current: Mutex::new(None),
            queue: Mutex::default(),
            queued: Condvar::new(),
            state: Mutex::new(state),
            limit: Limit::default(),
        });
        let telling = Arc::clone(&link);
        std::thread::Builder::new().name("tell".to_owned()).spawn(move || {
            loop {
                let message = telling.next();
                telling.send(&message);
            }
        })?;
        let listening = Arc::clone(&link);
        let (module, directories) = (module.clone(), directories.to_vec());
        std::thread::Builder::new().name("daemon".to_owned()).spawn(move || {
            while let Ok(connection) = packet::accept(&listener) {
                let connection = Arc::new(connection);
                *listening.lock() = Some(Arc::clone(&connection));
                listening.hear(&connection, &module, &directories, &packets);
            }
        })?;
        Ok(link)
    }

    /// How fast a resync may go, as the daemon said.
    pub(super) fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Notes what is in force, for daemons that ask.
    pub(super) fn note(&self, serial: u64, assignment: &Assignment, number: u64) {
        let assignment = assignment.clone();
        *self.state() = FromReplicator::State { serial, assignment, number };
    }

    /// Tells the daemon something soon, in order.
    pub(super) fn tell(&self, message: FromReplicator) {
        let lasting = match &message {
            FromReplicator::Event(_)
            | FromReplicator::Marked { .. }
            | FromReplicator::State { .. } => true,
            // The end of one must not be missed.
            FromReplicator::Verified(report) => !report.running,
            FromReplicator::DataLink { .. }
            | FromReplicator::Progress(_)
            | FromReplicator::TurnedAway { .. } => false,
        };
        let mut queue = self.queue();
        if lasting || queue.len() < QUEUE_MAX {
            queue.push_back(message);
            drop(queue);
            self.queued.notify_one();
        }
    }

    /// Waits until everything has been told, or could not be.
    pub(super) fn flush(&self) {
        let mut queue = self.queue();
        while !queue.is_empty() {
            queue = self.queued.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The oldest message; it stays in the queue until it has been sent.
    pub(super) fn next(&self) -> FromReplicator {
        let mut queue = self.queue();
        loop {
            if let Some(message) = queue.front() {
                return message.clone();
            }
            queue = self.queued.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Without a daemon nobody need know, as a new one asks.
    fn send(&self, message: &FromReplicator) {
        let current = self.lock().clone();
        if let Some(connection) = current {
            let _ = packet::send(&*connection, message, None);
        }
        self.queue().pop_front();
        self.queued.notify_all();
    }

    /// Tells the daemon an event.
    pub(super) fn event(&self, event: ReplicatorEvent) {
        self.tell(FromReplicator::Event(event));
    }

    fn hear(
        &self,
        connection: &OwnedFd,
        module: &ModuleName,
        directories: &[Directory],
        packets: &PacketSender,
    ) {
        loop {
            let (message, descriptor) = match packet::receive::<ToReplicator>(connection) {
                Ok(Some(received)) => received,
                Err(error) if error.raw_os_error().is_none() => {
                    // A newer daemon may know more; what it cannot do without it finds out.
                    eprintln!("a message of the daemon is not understood: {error}");
                    continue;
                }
                Ok(None) | Err(_) => return,
            };
            if let ToReplicator::Mark { serial, root, epoch } = message {
                let error = mark(module, directories, root, epoch).err();
                let error = error.map(|error| error.to_string());
                self.tell(FromReplicator::Marked { serial, error });
                continue;
            }
            if let ToReplicator::ResyncRate { bytes_per_second } = message {
                self.limit.set(bytes_per_second);
                continue;
            }
            if message == ToReplicator::Query {
                let state = self.state().clone();
                self.tell(state);
            }
            if packets.send((message, descriptor)).is_err() {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, FromReplicator> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<FromReplicator>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mark(
    module: &ModuleName,
    directories: &[Directory],
    root: u128,
    epoch: EpochId,
) -> io::Result<()> {
    for (index, directory) in directories.iter().enumerate() {
        // The path would lead to what is mounted over the directory.
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.root.as_fd().as_raw_fd()));
        marker::write(&path, &Marker { module: module.clone(), root, index, epoch })?;
    }
    Ok(())
}
