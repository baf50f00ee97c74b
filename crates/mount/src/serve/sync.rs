//! Syncs of the backing store, on threads of their own.
//!
//! A sync takes as long as the disk likes; the order does not wait for it, and the serving threads
//! only where the last ones took no longer than a thread takes to wake up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use fuse::{Answer, Connection, Errno, Request};

use super::Server;
use super::files::OpenFile;
use super::turn::is_bad_sync;
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
    /// The request to be answered when it has ended, and with what.
    pub(super) unique: u64,
    pub(super) body: Vec<u8>,
}

/// What is synced.
pub(super) enum Synced {
    File(Arc<OpenFile>),
    Directory(OwnedFd),
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
    pub(super) fn start(
        connection: &Arc<Connection>,
        order: &Arc<Order>,
    ) -> io::Result<(Syncs, Vec<JoinHandle<()>>)> {
        let (sender, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        let pace = Arc::new(Pace::default());
        let workers = (0..WORKERS).map(|number| {
            let (jobs, order) = (Arc::clone(&jobs), Arc::clone(order));
            let (connection, pace) = (Arc::clone(connection), Arc::clone(&pace));
            let name = format!("sync-{number}");
            Builder::new().name(name).spawn(move || work(&jobs, &pace, &connection, &order))
        });
        let workers = workers.collect::<io::Result<Vec<_>>>()?;
        Ok((Syncs { sender: Mutex::new(sender), pace }, workers))
    }
}

impl Server {
    /// Begins a sync of `node`; its caller is answered when it ended here and there.
    pub(super) fn sync(&self, request: &Request<'_>, node: u64, what: Synced, data_only: bool) {
        let number = {
            let mut recorder = self.order.lock();
            let unnamed = self.tree.note_sync(node);
            (!unnamed).then(|| recorder.sync_begins(self.tree.id(node), data_only))
        };
        self.order.changed();
        self.run_sync(Job { what, data_only, number, unique: request.unique, body: Vec::new() });
    }

    /// Does the local part of a sync that has begun.
    pub(super) fn run_sync(&self, job: Job) {
        let (number, unique) = (job.number, job.unique);
        let pace = &self.syncs.pace;
        if pace.is_quick() && !pace.serving.swap(true, Ordering::Acquire) {
            carry_out(job, pace, &self.connection, &self.order);
            pace.serving.store(false, Ordering::Release);
            return;
        }
        let sender = self.syncs.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.send(job).is_err() {
            let answer = Answer::new(&self.connection, unique, Err(Errno::IO));
            match number {
                Some(number) => self.order.lock().sync_ended(number, Err(Errno::IO), answer),
                None => answer.send(),
            }
        }
    }
}

fn work(jobs: &Mutex<Receiver<Job>>, pace: &Pace, connection: &Arc<Connection>, order: &Order) {
    process::prepare_thread();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        carry_out(job, pace, connection, order);
    }
}

fn carry_out(job: Job, pace: &Pace, connection: &Arc<Connection>, order: &Order) {
    let start = Instant::now();
    let local =
        if job.data_only { rustix::fs::fdatasync(&job.what) } else { rustix::fs::fsync(&job.what) };
    pace.took(start.elapsed());
    let answer = Answer::new(connection, job.unique, local.map(|()| job.body));
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
