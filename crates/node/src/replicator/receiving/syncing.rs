//! What the target makes durable, beside the thread that applies, and tells the source of.
//!
//! What has to be, and when, the stream says.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use activity::image::Clock;
use rustix::io::Errno;
use wire::replication::Backward;

use crate::replicator::receiving::Shared;
use crate::replicator::store::NotApplied;

/// Threads that sync.
const SYNCERS: usize = 2;
/// A sync that takes no longer is not worth a thread's being woken.
const QUICK: Duration = Duration::from_micros(50);
/// So many syncs in a row must have been quick for the next one to be expected to be.
pub(super) const QUICK_STREAK: u32 = 8;
/// Something to be made durable.
pub(super) enum Durability {
    File { number: u64, file: Arc<OwnedFd>, data_only: bool },
    Everything { number: u64, base: Option<(u128, u128)>, since: Clock },
}

impl Shared {
    pub(super) fn start_syncers(
        self: &Arc<Self>,
    ) -> io::Result<(Sender<Durability>, Vec<JoinHandle<()>>)> {
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = Vec::new();
        for index in 0..SYNCERS {
            let (shared, receiver) = (Arc::clone(self), Arc::clone(&receiver));
            let name = format!("sync-{index}");
            let thread = std::thread::Builder::new().name(name);
            threads.push(thread.spawn(move || shared.sync_all(&receiver))?);
        }
        Ok((sender, threads))
    }

    fn sync_all(&self, work: &Mutex<Receiver<Durability>>) {
        loop {
            let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(durability) = next else { return };
            if let Err(failed) = self.make_durable(durability) {
                self.failed(&failed);
                return;
            }
        }
    }

    /// Syncs, and says so to the source.
    pub(super) fn make_durable(&self, durability: Durability) -> Result<(), NotApplied> {
        let start = Instant::now();
        let result = match &durability {
            Durability::File { file, data_only: true, .. } => rustix::fs::fdatasync(file),
            Durability::File { file, data_only: false, .. } => rustix::fs::fsync(file),
            Durability::Everything { number, base, since } => {
                let _sealing = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
                self.begin_seal(base.is_some())
                    .and_then(|()| self.sync_everything())
                    .and_then(|()| self.share(*number, *base, *since))
            }
        };
        // What a failed sync has lost is not known: nothing here is proven any more.
        result.map_err(|errno| NotApplied {
            errno: Errno::IO,
            what: format!("syncing the copy failed with {errno}"),
        })?;
        match durability {
            Durability::File { number, .. } => {
                let streak = self.quick.load(Ordering::Relaxed).saturating_add(1);
                let streak = if start.elapsed() < QUICK { streak } else { 0 };
                self.quick.store(streak, Ordering::Relaxed);
                self.put(&Backward::Durable { number });
            }
            Durability::Everything { number, .. } => self.put(&Backward::BarrierDone { number }),
        }
        Ok(())
    }

    /// What is shared with the source is sealed with it.
    fn begin_seal(&self, shared: bool) -> Result<(), Errno> {
        if shared { self.log.begin_seal(&self.roots).map_err(not_logged) } else { Ok(()) }
    }

    /// Notes what is shared with the source from here on, before the source is told so.
    fn share(&self, number: u64, base: Option<(u128, u128)>, since: Clock) -> Result<(), Errno> {
        let Some((base, previous)) = base else { return Ok(()) };
        self.log.share(base, previous, number, since).map_err(not_logged)
    }

    fn sync_everything(&self) -> Result<(), Errno> {
        for root in &self.roots {
            // By the descriptor held since the start, which tells of every failure.
            rustix::fs::syncfs(&**root)?;
        }
        Ok(())
    }
}

fn not_logged(error: io::Error) -> Errno {
    eprintln!("the activity log cannot be written: {error}");
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
