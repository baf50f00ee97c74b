//! Going on where a server died: what it may have done is settled first, what waits goes on
//! waiting, and what it had read is served.
//!
//! Callers notice nothing but the pause. The descriptors come from whoever kept them.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use fuse::{Errno, Request, Settled};
use memory::Part;

use super::sync::Synced;
use super::{Call, Server, Serving, Slot, clear, length_of};
use crate::estate::{Marks, Waiting};
use crate::process;
use crate::record::Order;
use crate::tree::Tree;

/// Processes that may die while they serve a request, before it is refused.
const DEATHS_MAX: u64 = 3;

/// A mount that is about to be served again. Dropping it leaves it to the next one.
pub struct Resuming {
    serving: Serving,
    server: Arc<Server>,
    slots: Vec<Slot>,
    waiting: Vec<(u32, Waiting)>,
}

impl Serving {
    /// Takes over a mount over `at` whose server died, and settles what that may have done. No
    /// other change may be made in the same order before this returns.
    pub fn resume(
        tree: Arc<Tree>,
        order: Arc<Order>,
        at: &Path,
        device: OwnedFd,
    ) -> io::Result<Resuming> {
        process::prepare();
        let connection = Arc::new(tree.estate().connection(device));
        let mut serving = Serving {
            at: at.to_owned(),
            connection: Arc::clone(&connection),
            threads: Vec::new(),
            mounted: false,
        };
        let server = serving.prepare(connection, tree, order)?;
        let waiting = server.left_waiting();
        let mut slots = server.tree.estate().take_slots();
        let mut settling = || {
            let settled =
                std::thread::scope(|scope| scope.spawn(|| server.settle(&mut slots)).join());
            settled.unwrap_or_else(|_| Err(io::Error::other("settling panicked")))
        };
        settling()?;
        Ok(Resuming { serving, server, slots, waiting })
    }
}

impl Resuming {
    /// Serves from here on, with this many threads. To be called once all mounts of the order are
    /// settled, for it records.
    pub fn run(self, threads: usize) -> io::Result<Serving> {
        let Resuming { mut serving, server, slots, waiting } = self;
        serving.mounted = true;
        server.wait_again(waiting);
        serving.run(&server, slots, threads)?;
        Ok(serving)
    }
}

impl Server {
    fn settle(&self, slots: &mut [Slot]) -> io::Result<()> {
        process::prepare_thread();
        process::own_umask()?;
        for (part, marks) in slots {
            if marks.is_done() {
                clear(part, marks);
            } else if marks.doubt().is_some() {
                self.serve_left(part, marks, &mut Vec::new());
                clear(part, marks);
            }
        }
        Ok(())
    }

    /// What waited for the peer or a disk.
    fn left_waiting(&self) -> Vec<(u32, Waiting)> {
        let answers = self.tree.estate().answers();
        let next = self.order.lock().next();
        let (waiting, never): (Vec<_>, Vec<_>) =
            answers.all().into_iter().partition(|(_, left)| match left {
                Waiting::Answer { number, .. } | Waiting::Durable { number, .. } => *number < next,
                Waiting::Sync { .. } => true,
            });
        // Those were noted before they were recorded, which they never were: they are still in
        // their slots.
        never.into_iter().for_each(|(ticket, _)| answers.settled(ticket));
        waiting
    }

    /// It waits again.
    fn wait_again(&self, waiting: Vec<(u32, Waiting)>) {
        let answers = self.tree.estate().answers();
        for (ticket, waiting) in waiting {
            match waiting {
                Waiting::Answer { unique, number, outcome } => {
                    let answer = answers.answer(&self.connection, unique, outcome, ticket);
                    self.order.lock().recorded(number, answer);
                }
                Waiting::Durable { unique, node, body, .. } => {
                    let answer = answers.answer(&self.connection, unique, Ok(body), ticket);
                    let mut recorder = self.order.lock();
                    let sync = recorder.sync_begins(self.tree.id(node), false);
                    recorder.sync_ended(sync, Ok(()), answer);
                }
                Waiting::Sync { unique, handle, directory, data_only, body } => {
                    self.sync_again((unique, handle), directory, data_only, body);
                    // Only now, as that has been noted anew.
                    answers.settled(ticket);
                }
            }
        }
        self.order.changed();
    }

    fn sync_again(
        &self,
        (unique, handle): (u64, u64),
        directory: bool,
        data_only: bool,
        body: Vec<u8>,
    ) {
        let found = if directory {
            self.files.directory(handle).and_then(|open| Ok((open.node, Synced::listed(&open)?)))
        } else {
            self.files.file(handle).map(|open| (open.node, Synced::File(open)))
        };
        match found {
            Ok((node, what)) => {
                let number = {
                    let mut recorder = self.order.lock();
                    let unnamed = self.tree.note_sync(node);
                    (!unnamed).then(|| recorder.sync_begins(self.tree.id(node), data_only))
                };
                self.run_sync(self.job((unique, handle), what, data_only, number, body));
            }
            Err(errno) => self.connection.reply_error(unique, errno),
        }
    }

    /// Serves a request that a predecessor had read, unless too many have died of it.
    pub(super) fn serve_left(&self, part: &Part, marks: &Marks, scratch: &mut Vec<u8>) {
        let Some(length) = length_of(part) else { return };
        let Some(bytes) = part.as_slice().get(..length) else { return };
        if marks.is_done() {
            return;
        }
        if marks.try_again() < DEATHS_MAX {
            return self.serve_one(bytes, marks, scratch);
        }
        if let Ok(request) = Request::parse(bytes) {
            let what = format!("{:?}", Call::new(request, marks).operation);
            let what = what.chars().take(200).collect::<String>();
            self.order.lock().gave_up(&what);
        }
        if let Some(unique) = bytes.get(8..16).and_then(|bytes| bytes.first_chunk()) {
            self.connection.reply_error(u64::from_ne_bytes(*unique), Errno::IO);
        }
    }
}
