//! Serving a tree over a mount: threads, their start and their end.
//!
//! What a request does is in the modules below; when a caller is answered is up to the recorder.

mod attributes;
pub(crate) mod caller;
mod data;
mod directories;
mod dispatch;
mod files;
mod names;
mod sync;
mod turn;
mod unnamed;
mod xattrs;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use fuse::{Connection, MountOptions, Request, abi};

use crate::backing;
use crate::process;
use crate::record::Order;
use crate::tree::Tree;
use files::Files;
use sync::Syncs;

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
        let (syncs, workers) = Syncs::start(&connection, &order)?;
        serving.threads.extend(workers);
        let files = Files::default();
        let server = Arc::new(Server { connection, tree, order, files, syncs });
        for number in 0..threads.max(1) {
            let server = Arc::clone(&server);
            let name = format!("fuse-{number}");
            let thread = std::thread::Builder::new().name(name).spawn(move || server.serve())?;
            serving.threads.push(thread);
        }
        Ok(serving)
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
    /// Serves requests until the mount is gone.
    fn serve(&self) {
        process::prepare_thread();
        if process::own_umask().is_err() {
            // Without one its callers' umasks would be those of other threads' callers.
            return;
        }
        let mut buffer = vec![0; abi::REQUEST_BYTES_MAX];
        let mut scratch = Vec::new();
        while let Ok(Some(length)) = self.connection.receive(&mut buffer) {
            let Some(bytes) = buffer.get(..length) else {
                continue;
            };
            match Request::parse(bytes) {
                Ok(request) => self.dispatch(&request, &mut scratch),
                Err(error) => {
                    if let Some(unique) = error.unique {
                        self.connection.reply_error(unique, fuse::Errno::IO);
                    }
                }
            }
        }
    }
}
