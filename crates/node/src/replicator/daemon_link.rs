//! The replicator's side of the conversation with the daemon.
//!
//! Daemons come and go; the newest one that connected is told what happens. Markers are written
//! here at once, because the daemon waits for them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cluster::input::ReplicatorEvent;
use model::{EpochId, ModuleName};
use wire::local::{FromReplicator, ToReplicator};

use crate::marker::{self, Marker};
use crate::packet;
use crate::replicator::{Directory, PacketSender};

/// A message of the daemon and the descriptor that came with it.
pub(super) type Packet = (ToReplicator, Option<OwnedFd>);

/// The way to the daemon.
pub(super) struct DaemonLink {
    current: Mutex<Option<Arc<OwnedFd>>>,
}

impl DaemonLink {
    /// Starts to listen on standard input.
    pub(super) fn start(
        module: &ModuleName,
        directories: &[Directory],
        packets: PacketSender,
    ) -> io::Result<Arc<DaemonLink>> {
        let listener = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3)?;
        let link = Arc::new(DaemonLink { current: Mutex::new(None) });
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

    /// Tells the daemon something; without a daemon nobody need know, as a new one asks.
    pub(super) fn tell(&self, message: &FromReplicator) {
        let current = self.lock().clone();
        if let Some(connection) = current {
            let _ = packet::send(&*connection, message, None);
        }
    }

    /// Tells the daemon an event.
    pub(super) fn event(&self, event: ReplicatorEvent) {
        self.tell(&FromReplicator::Event(event));
    }

    fn hear(
        &self,
        connection: &OwnedFd,
        module: &ModuleName,
        directories: &[Directory],
        packets: &PacketSender,
    ) {
        while let Ok(Some((message, descriptor))) = packet::receive::<ToReplicator>(connection) {
            if let ToReplicator::Mark { serial, root, epoch } = message {
                let error = mark(module, directories, root, epoch).err();
                let error = error.map(|error| error.to_string());
                self.tell(&FromReplicator::Marked { serial, error });
            } else if packets.send((message, descriptor)).is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<OwnedFd>>> {
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
