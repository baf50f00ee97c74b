//! Serving a tree over a mount: threads, their start and their end.
//!
//! What a request does is in the modules below; when a caller is answered is up to the recorder.

mod attributes;
mod border;
mod call;
pub(crate) mod caller;
mod data;
mod directories;
mod dispatch;
mod files;
mod names;
mod resume;
mod sync;
mod turn;
mod unnamed;
mod xattrs;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use fuse::{Connection, MountOptions, Request};
use memory::Part;

use crate::backing;
use crate::estate::{Marks, SLOTS};
use crate::process;
use crate::record::Order;
use crate::tree::Tree;
use call::Call;
use files::Files;
use sync::Syncs;

/// Where a request is while it is served, and how far that has got.
type Slot = (Part, Marks);

/// A tree being served at a mount point. Dropping it ends that at once, as `abort` does.
#[derive(Debug)]
pub struct Serving {
    at: PathBuf,
    connection: Arc<Connection>,
    threads: Vec<JoinHandle<()>>,
    mounted: bool,
}

/// What the threads of a mount share.
struct Server {
    connection: Arc<Connection>,
    tree: Arc<Tree>,
    order: Arc<Order>,
    files: Files,
    syncs: Syncs,
}

impl Serving {
    /// Mounts over `at`, which may be the directory of the tree itself, and serves with this many
    /// threads besides those that sync.
    pub fn start(
        tree: Arc<Tree>,
        order: Arc<Order>,
        at: &Path,
        threads: usize,
    ) -> io::Result<Serving> {
        Serving::start_with(tree, order, at, threads, MountOptions::default())
    }

    /// As `start`, mounted in a way of one's own.
    pub fn start_with(
        tree: Arc<Tree>,
        order: Arc<Order>,
        at: &Path,
        threads: usize,
        mut options: MountOptions,
    ) -> io::Result<Serving> {
        process::prepare();
        // The kernel would ask for lists before every access, and take the error for an answer.
        options.features.acl &= backing::has_acls(&**tree.root());
        let connection = fuse::mount_at(at, &options).map_err(io::Error::other)?;
        let connection = Arc::new(connection);
        let mut serving = Serving {
            at: at.to_owned(),
            connection: Arc::clone(&connection),
            threads: Vec::new(),
            mounted: true,
        };
        tree.estate().note_connection(connection.number(), connection.protocol());
        let server = serving.prepare(connection, tree, order)?;
        serving.run(&server, server.tree.estate().take_slots(), threads)?;
        Ok(serving)
    }

    fn prepare(
        &mut self,
        connection: Arc<Connection>,
        tree: Arc<Tree>,
        order: Arc<Order>,
    ) -> io::Result<Arc<Server>> {
        let (syncs, workers) = Syncs::start(&order)?;
        self.threads.extend(workers);
        let files = Files::new(&tree)?;
        Ok(Arc::new(Server { connection, tree, order, files, syncs }))
    }

    /// Serves with so many threads, and with one for each slot that a predecessor left in use.
    fn run(&mut self, server: &Arc<Server>, slots: Vec<Slot>, threads: usize) -> io::Result<()> {
        let (used, free): (Vec<Slot>, Vec<Slot>) =
            slots.into_iter().partition(|(part, _)| length_of(part).is_some());
        let count = used.len().max(threads.clamp(1, SLOTS));
        for (number, slot) in used.into_iter().chain(free).take(count).enumerate() {
            let server = Arc::clone(server);
            let name = format!("fuse-{number}");
            let serve = move || server.serve(slot);
            self.threads.push(std::thread::Builder::new().name(name).spawn(serve)?);
        }
        Ok(())
    }

    /// The connection, for notifications.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Unmounts: new callers see the directory itself at once, and what is in the page cache is
    /// written first, as far as no file is open any more. Files that are still open fail.
    ///
    /// Waits for the recorder to answer what it holds, so it must not hold that back for ever;
    /// `abort` does not wait.
    pub fn detach(mut self) -> io::Result<()> {
        let detached = fuse::detach(&self.at, &self.connection);
        self.mounted = false;
        self.end();
        detached.map(|_| ()).map_err(io::Error::from)
    }

    /// Ends the connection first, so that every caller gets an error at once, then unmounts.
    pub fn abort(mut self) -> io::Result<()> {
        self.abandon()
    }

    /// Waits until the mount is gone, whoever takes it away, and the last open file is closed.
    pub fn wait(mut self) {
        self.mounted = false;
        self.join();
    }

    /// What unmounts as `detach` does, from wherever that is decided; for whoever `wait`s.
    pub fn stopper(&self) -> impl FnOnce() + Send + 'static {
        let (at, connection) = (self.at.clone(), Arc::clone(&self.connection));
        move || {
            // Errors mean that it is gone already.
            let _ = fuse::detach(&at, &connection);
            let _ = connection.abort();
        }
    }

    fn abandon(&mut self) -> io::Result<()> {
        // An error means that it is gone already.
        let _ = self.connection.abort();
        let detached = fuse::detach(&self.at, &self.connection);
        self.mounted = false;
        self.end();
        detached.map(|_| ()).map_err(io::Error::from)
    }

    fn end(&mut self) {
        let _ = self.connection.abort();
        self.join();
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..).rev() {
            // A thread that panicked has answered its callers by dropping their answers.
            let _ = thread.join();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.mounted {
            let _ = self.abandon();
        }
    }
}

impl Server {
    /// Serves requests until the mount is gone, the one that a predecessor has read first.
    fn serve(&self, (mut part, marks): Slot) {
        process::prepare_thread();
        if process::own_umask().is_err() {
            // Without one its callers' umasks would be those of other threads' callers.
            return;
        }
        // The kernel ends a request with an error when a process is killed while it waits for room
        // to read that request into.
        part.settle();
        let mut scratch = Vec::new();
        if length_of(&part).is_some() {
            self.serve_left(&part, &marks, &mut scratch);
        }
        loop {
            clear(&mut part, &marks);
            let Ok(Some(length)) = self.connection.receive(part.as_mut_slice()) else { return };
            let bytes = part.as_slice().get(..length).unwrap_or_default();
            self.serve_one(bytes, &marks, &mut scratch);
        }
    }

    fn serve_one(&self, bytes: &[u8], marks: &Marks, scratch: &mut Vec<u8>) {
        match Request::parse(bytes) {
            Ok(request) => self.dispatch(&Call::new(request, marks), scratch),
            Err(error) => {
                if let Some(unique) = error.unique {
                    self.connection.reply_error(unique, fuse::Errno::IO);
                }
            }
        }
    }
}

/// A slot is free from here on.
fn clear(part: &mut Part, marks: &Marks) {
    // The length first: marks without a request mean nothing.
    if let Some(length) = part.as_mut_slice().first_chunk_mut::<4>() {
        *length = [0; 4];
    }
    marks.clear();
}

/// Length of the request in a slot, as its header says; none when there is none.
fn length_of(part: &Part) -> Option<usize> {
    let length = u32::from_ne_bytes(*part.as_slice().first_chunk::<4>()?) as usize;
    (length > 0).then_some(length)
}
