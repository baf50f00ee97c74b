//! A replicator that serves its directories: mounts, the recorder behind them, and the session to
//! a target.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::effect::{Ending, Serve};
use model::{EpochId, SessionId};
use mount::Order;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use wire::hello::Hello;
use wire::local::Kept;

use crate::connection::Callee;
use crate::replicator::Directory;
use crate::replicator::keep::Notes;
use crate::replicator::keeper_link::{KeeperLink, Left};
use crate::replicator::primary::{Primary, PrimaryRecorder};
use crate::replicator::source::Source;

/// Threads that serve each directory.
const THREADS: usize = 2;

/// How long a drain may wait for the target.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A replicator that serves.
pub(super) struct Serving {
    primary: Arc<Primary>,
    order: Arc<Order>,
    keeper: Arc<KeeperLink>,
    directories: Vec<Directory>,
    mounts: Vec<mount::Serving>,
    source: Option<Source>,
    /// A session that has begun and ended is not begun again.
    last_session: Option<SessionId>,
    /// Number of the last operation before the present rule was in force.
    ruled_after: u64,
    /// The epoch whose opening checkpoint is complete.
    opened: Option<EpochId>,
}

impl Serving {
    pub(super) fn start(
        primary: Arc<Primary>,
        keeper: &Arc<KeeperLink>,
        directories: &[Directory],
        serve: &Serve,
        to: Option<(Hello, Callee)>,
    ) -> io::Result<Serving> {
        let mut serving = Serving::of(primary, keeper, directories);
        // What every answer needs is in force before there can be anything to answer.
        serving.change(serve, to)?;
        for (tree, directory) in serving.primary.trees().iter().zip(directories) {
            let (tree, order) = (Arc::clone(tree), Arc::clone(&serving.order));
            serving.mounts.push(mount::Serving::start(tree, order, &directory.path, THREADS)?);
        }
        serving.open(serve.epoch)?;
        Ok(serving)
    }

    /// Goes on where a predecessor died.
    pub(super) fn resume(
        primary: Arc<Primary>,
        (keeper, left): (&Arc<KeeperLink>, &mut Left),
        directories: &[Directory],
        notes: &Notes,
        to: Option<(Hello, Callee)>,
    ) -> io::Result<Serving> {
        let mut serving = Serving::of(primary, keeper, directories);
        serving.ruled_after = notes.ruled_after;
        serving.opened = notes.opened;
        let serve = &notes.serve;
        if let (Some(session), Some(to)) = (&serve.session, to) {
            serving.last_session = Some(session.id);
            let (primary, order) = (&serving.primary, &serving.order);
            serving.source = Source::resume(primary, order, serve, session, to)?;
        }
        serving.primary.require(serve.replication.ack, serve.required.clone());
        let mut resuming = Vec::new();
        for (index, directory) in (0..).zip(directories) {
            let lost = || io::Error::other("the keeper does not keep every mount");
            let device = left.kept.remove(&Kept::Device(index)).ok_or_else(lost)?;
            let tree = serving.primary.trees().get(usize::from(index)).ok_or_else(lost)?;
            let (tree, order) = (Arc::clone(tree), Arc::clone(&serving.order));
            resuming.push(mount::Serving::resume(tree, order, &directory.path, device)?);
        }
        // All that is doubtful is settled: new changes may come.
        for resuming in resuming {
            serving.mounts.push(resuming.run(THREADS)?);
        }
        Ok(serving)
    }

    fn of(primary: Arc<Primary>, keeper: &Arc<KeeperLink>, directories: &[Directory]) -> Serving {
        let number = primary.lock().acks.number();
        let recorder = PrimaryRecorder(Arc::clone(&primary));
        let gate = Arc::clone(primary.log());
        let order = Arc::new(Order::with_gate(recorder, gate));
        Serving {
            primary,
            order,
            keeper: Arc::clone(keeper),
            directories: directories.to_vec(),
            mounts: Vec::new(),
            source: None,
            last_session: None,
            ruled_after: number,
            opened: None,
        }
    }

    /// Notes what is to be done, and puts what a successor needs for that into safety.
    pub(super) fn keep(&self, serial: u64, serve: &Serve, peer: Vec<SocketAddr>) -> io::Result<()> {
        let (ruled_after, opened) = (self.ruled_after, self.opened);
        let notes = Notes { serial, serve: serve.clone(), peer, ruled_after, opened };
        let keep = self.primary.keep();
        keep.note(&notes)?;
        for (index, (directory, mount)) in (0..).zip(self.directories.iter().zip(&self.mounts)) {
            self.keeper.keep(Kept::Root(index), directory.root.as_fd())?;
            self.keeper.keep(Kept::Device(index), mount.connection().as_fd())?;
        }
        // The last, as it says that there is something to go on with.
        self.keeper.keep(Kept::Memory, keep.file()?)
    }

    /// The opening checkpoint of an epoch: before anything in it is acknowledged without the peer,
    /// what is here is durable, so that from then on a crash loses no more than on one disk.
    pub(super) fn open(&mut self, epoch: EpochId) -> io::Result<()> {
        if self.opened != Some(epoch) {
            sync_all(&self.directories)?;
            self.opened = Some(epoch);
        }
        Ok(())
    }

    /// Why this copy must not be served any more, if it has failed.
    pub(super) fn failed(&self) -> Option<String> {
        self.primary.failed()
    }

    /// The session whose link stands.
    pub(super) fn linked(&self) -> Option<SessionId> {
        self.source.as_ref().filter(|source| source.is_linked()).map(Source::id)
    }

    /// The peer is silent at these addresses, and is heard at others.
    pub(super) fn leave(&self, silent: &[IpAddr]) {
        if let Some(source) = &self.source {
            source.leave(silent);
        }
    }

    /// Begins to compare both copies; says in a sentence why not.
    pub(super) fn verify(&mut self, serial: u64, repair: bool) -> Result<(), String> {
        match &mut self.source {
            Some(source) => source.verify(serial, repair),
            None => Err("no peer is connected".to_owned()),
        }
    }

    /// Whether a session is under way.
    pub(super) fn has_source(&self) -> bool {
        self.source.is_some()
    }

    /// What of the session a daemon must know.
    pub(super) fn reached(&self) -> (bool, Option<u64>) {
        self.source.as_ref().map_or((false, None), Source::reached)
    }

    pub(super) fn number(&self) -> u64 {
        self.primary.lock().acks.number()
    }

    /// Takes a new rule and session while the directories go on being served.
    pub(super) fn change(&mut self, serve: &Serve, to: Option<(Hello, Callee)>) -> io::Result<()> {
        let wanted = serve.session.as_ref().map(|session| session.id);
        if let Some(source) = self.source.take_if(|source| Some(source.id()) != wanted) {
            source.end();
        }
        if let (Some(session), Some((hello, peer))) = (&serve.session, to)
            && self.last_session != Some(session.id)
        {
            self.last_session = Some(session.id);
            let (primary, order) = (&self.primary, &self.order);
            self.source = Some(Source::begin(primary, order, serve, session, (hello, peer))?);
        }
        self.ruled_after = self.primary.require(serve.replication.ack, serve.required.clone());
        Ok(())
    }

    /// Number of the last operation before the present rule was in force.
    pub(super) fn ruled_after(&self) -> u64 {
        self.ruled_after
    }

    /// Has the target say when it holds everything durably.
    pub(super) fn ask_durable(&self) {
        if let Some(source) = &self.source {
            source.ask_durable();
        }
    }

    /// Ends serving; says the last number, and whether everything is durable on both nodes.
    pub(super) fn end(mut self, ending: Ending) -> (u64, bool) {
        // Whoever dies from here on has no successor: what is being ended must not go on.
        self.keeper.let_go_all();
        let drained = match ending {
            Ending::Cut => {
                self.primary.refuse(Errno::IO);
                self.primary.cut(Errno::IO);
                false
            }
            Ending::Drain => self.drain(),
        };
        if let Some(source) = self.source.take() {
            source.end();
        }
        self.primary.refuse(Errno::IO);
        self.primary.cut(Errno::IO);
        for mount in self.mounts.drain(..) {
            if let Err(error) = mount.abort() {
                eprintln!("unmounting: {error}");
            }
        }
        // A change that was under way when changes were refused has been counted by now.
        let number = {
            let _order = self.order.lock();
            self.number()
        };
        self.primary.log().end_serving();
        (number, drained)
    }

    /// Refuses changes and waits until everything is durable here and at the target.
    fn drain(&self) -> bool {
        // What programs stored in mapped memory becomes writes now, while those are accepted.
        for directory in &self.directories {
            if let Err(error) = sync_mount(&directory.path) {
                eprintln!("{}: {error}", directory.path.display());
                return false;
            }
        }
        {
            // A change under way is finished and told before the barrier.
            let _order = self.order.lock();
            self.primary.refuse(Errno::ROFS);
        }
        let reached = match &self.source {
            Some(source) => source.barrier(DRAIN_TIMEOUT),
            None => !self.primary.lock().acks.peers_may_lag(),
        };
        let durable = sync_all(&self.directories).is_ok();
        reached && durable && self.primary.lock().acks.held_back() == 0
    }
}

/// Makes everything below the directories durable.
pub(super) fn sync_all(directories: &[Directory]) -> io::Result<()> {
    for directory in directories {
        // By the descriptor held since the start: it tells of every failure since the last sync.
        rustix::fs::syncfs(&*directory.root)?;
    }
    Ok(())
}

fn sync_mount(path: &PathBuf) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mounted = rustix::fs::open(path, flags, Mode::empty())?;
    Ok(rustix::fs::syncfs(&mounted)?)
}
