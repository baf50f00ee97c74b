//! Syncs of the backing store, on threads of their own.
//!
//! A sync takes as long as the disk likes; neither the order nor the serving threads wait for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use fuse::{Answer, Connection, Errno, Request};

use super::Server;
use super::files::OpenFile;
use super::turn::is_bad_sync;
use crate::process;
use crate::record::Order;

/// Syncs that may run at once.
const WORKERS: usize = 4;

/// Hands syncs to the workers, which end when it is dropped.
pub(super) struct Syncs(Mutex<Sender<Job>>);

struct Job {
    what: Synced,
    data_only: bool,
    /// None where the recorder does not know the file.
    number: Option<u64>,
    unique: u64,
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

impl Syncs {
    pub(super) fn start(
        connection: &Arc<Connection>,
        order: &Arc<Order>,
    ) -> io::Result<(Syncs, Vec<JoinHandle<()>>)> {
        let (sender, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        let workers = (0..WORKERS).map(|number| {
            let (jobs, order) = (Arc::clone(&jobs), Arc::clone(order));
            let connection = Arc::clone(connection);
            let name = format!("sync-{number}");
            Builder::new().name(name).spawn(move || work(&jobs, &connection, &order))
        });
        let workers = workers.collect::<io::Result<Vec<_>>>()?;
        Ok((Syncs(Mutex::new(sender)), workers))
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
        let job = Job { what, data_only, number, unique: request.unique };
        let sender = self.syncs.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.send(job).is_err() {
            let answer = Answer::new(&self.connection, request.unique, Err(Errno::IO));
            match number {
                Some(number) => self.order.lock().sync_ended(number, Err(Errno::IO), answer),
                None => answer.send(),
            }
        }
    }
}

fn work(jobs: &Mutex<Receiver<Job>>, connection: &Arc<Connection>, order: &Order) {
    process::prepare_thread();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let local = if job.data_only {
            rustix::fs::fdatasync(&job.what)
        } else {
            rustix::fs::fsync(&job.what)
        };
        let answer = Answer::new(connection, job.unique, local.map(|()| Vec::new()));
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
}
