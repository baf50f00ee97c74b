//! Syncs of the backing store, on threads of their own.
//!
//! A sync takes as long as the disk likes; the order does not wait for it, and the serving threads
//! only where the last ones took no longer than a thread takes to wake up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use fuse::{Answer, Errno};

use super::Server;
use super::call::Call;
use super::files::{OpenDirectory, OpenFile};
use super::turn::{is_bad_sync, noted};
use crate::estate::Waiting;
use crate::process;
use crate::record::Order;

/// Syncs that may run at once.
const WORKERS: usize = 4;

/// A sync that takes no longer is not worth a worker's being woken.
const QUICK: Duration = Duration::from_micros(50);
/// So many syncs in a row must have been quick for the next one to be expected to be.
const QUICK_STREAK: u32 = 8;

/// Hands syncs to the workers, which end when it is dropped.
pub(super) struct Syncs {
    sender: Mutex<Sender<Job>>,
    pace: Arc<Pace>,
}

/// How long syncs take at the moment.
#[derive(Default)]
struct Pace {
    /// Quick syncs since the last slow one.
    quick: AtomicU32,
    /// Whether a serving thread is syncing: never more than one may, for this sync may be slow.
    serving: AtomicBool,
}

/// A sync that has begun.
pub(super) struct Job {
    pub(super) what: Synced,
    pub(super) data_only: bool,
    /// None where the recorder does not know the file.
    pub(super) number: Option<u64>,
    /// What its caller gets when it has ended.
    pub(super) answer: Answer,
}

/// What is synced.
pub(super) enum Synced {
    File(Arc<OpenFile>),
    Directory(OwnedFd),
}

impl Synced {
    pub(super) fn listed(open: &OpenDirectory) -> Result<Synced, Errno> {
        let listed = open.listed.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::io::dup(listed.descriptor()).map(Synced::Directory)
    }
}

impl AsFd for Synced {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Synced::File(open) => open.file.as_fd(),
            Synced::Directory(directory) => directory.as_fd(),
        }
    }
}

impl Pace {
    fn is_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed) >= QUICK_STREAK
    }

    fn took(&self, time: Duration) {
        let quick = self.quick.load(Ordering::Relaxed);
        // Two at once may count as one, which only takes a little longer.
        let now = if time < QUICK { quick.saturating_add(1) } else { 0 };
        self.quick.store(now, Ordering::Relaxed);
    }
}

impl Syncs {
    pub(super) fn start(order: &Arc<Order>) -> io::Result<(Syncs, Vec<JoinHandle<()>>)> {
        let (sender, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        let pace = Arc::new(Pace::default());
        let workers = (0..WORKERS).map(|number| {
            let (jobs, order) = (Arc::clone(&jobs), Arc::clone(order));
            let pace = Arc::clone(&pace);
            let name = format!("sync-{number}");
            Builder::new().name(name).spawn(move || work(&jobs, &pace, &order))
        });
        let workers = workers.collect::<io::Result<Vec<_>>>()?;
        Ok((Syncs { sender: Mutex::new(sender), pace }, workers))
    }
}

impl Server {
    /// Begins a sync of `node`; its caller is answered when it ended here and there.
    pub(super) fn sync(
        &self,
        request: &Call<'_>,
        handle: u64,
        node: u64,
        what: Synced,
        data_only: bool,
    ) {
        let number = {
            let mut recorder = self.order.lock();
            let unnamed = self.tree.note_sync(node);
            (!unnamed).then(|| recorder.sync_begins(self.tree.id(node), data_only))
        };
        self.order.changed();
        let body = Vec::new();
        self.run_sync(self.job((request.unique, handle), what, data_only, number, body));
    }

    /// A sync that has begun, for this request and open file; its caller gets `body`.
    pub(super) fn job(
        &self,
        (unique, handle): (u64, u64),
        what: Synced,
        data_only: bool,
        number: Option<u64>,
        body: Vec<u8>,
    ) -> Job {
        let directory = matches!(what, Synced::Directory(_));
        let waiting = Waiting::Sync { unique, handle, directory, data_only, body };
        Job { what, data_only, number, answer: noted(&self.tree, &self.connection, waiting) }
    }

    /// Does the local part of a sync that has begun.
    pub(super) fn run_sync(&self, job: Job) {
        let pace = &self.syncs.pace;
        if pace.is_quick() && !pace.serving.swap(true, Ordering::Acquire) {
            carry_out(job, pace, &self.order);
            pace.serving.store(false, Ordering::Release);
            return;
        }
        let sender = self.syncs.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(SendError(Job { number, answer, .. })) = sender.send(job) {
            let failed = Err(Errno::IO);
            match number {
                Some(number) => {
                    self.order.lock().sync_ended(number, failed, answer.with(Errno::IO));
                }
                None => answer.refuse(Errno::IO),
            }
        }
    }
}

fn work(jobs: &Mutex<Receiver<Job>>, pace: &Pace, order: &Order) {
    process::prepare_thread();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        carry_out(job, pace, order);
    }
}

fn carry_out(job: Job, pace: &Pace, order: &Order) {
    let start = Instant::now();
    let local =
        if job.data_only { rustix::fs::fdatasync(&job.what) } else { rustix::fs::fsync(&job.what) };
    pace.took(start.elapsed());
    let answer = match local {
        Ok(()) => job.answer,
        Err(errno) => job.answer.with(errno),
    };
    let mut recorder = order.lock();
    if let Err(errno) = local
        && is_bad_sync(errno)
    {
        recorder.copy_failed("syncing the backing store", errno);
    }
    match job.number {
        Some(number) => recorder.sync_ended(number, local, answer),
        None => answer.send(),
    }
}
