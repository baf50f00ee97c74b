//! A replicator that receives a session: one thread applies, one answers, a few sync. A connection
//! that breaks is waited for anew, and both ends go on where they were.
//!
//! What was applied is confirmed whenever nothing more is waiting to be read, so that a stream is
//! confirmed in large strides and a single operation at once.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use activity::image::Clock;
use cluster::input::ReplicatorEvent;
use model::{NodeName, SessionId};
use mount::backing::Root;
use rustix::io::Errno;
use wire::frame::PREFIX_BYTES;
use wire::hello::{Joint, Welcome};
use wire::owners::Owner;
use wire::replication::{Backward, Forward, put_backward, take_forward};

use crate::connection;
use crate::owners::Owners;
use crate::replicator::daemon_link::DaemonLink;
use crate::replicator::log::{self, ActivityLog};
use crate::replicator::outbox::Outbox;
use crate::replicator::packing::{first, unpack};
use crate::replicator::ping::{Pings, SILENCE_MAX};
use crate::replicator::store::{After, NotApplied, Store};
use crate::replicator::{Directory, roots};

/// Threads that sync.
const SYNCERS: usize = 2;
/// A sync that takes no longer is not worth a thread's being woken.
const QUICK: Duration = Duration::from_micros(50);
/// So many syncs in a row must have been quick for the next one to be expected to be.
const QUICK_STREAK: u32 = 8;
/// How long a broken connection may take to be made anew; longer than the source tries.
const RELINK_TIMEOUT: Duration = Duration::from_secs(8);
/// Bytes read from the link at once.
const READ_BYTES: usize = 1 << 20;

/// A replicator that receives.
pub(super) struct Receiving {
    shared: Arc<Shared>,
    store: Option<Store>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    session: SessionId,
    source: NodeName,
    roots: Vec<Arc<Root>>,
    daemon: Arc<DaemonLink>,
    log: Arc<ActivityLog>,
    outbox: Arc<Outbox>,
    pings: Pings,
    number: AtomicU64,
    /// Quick syncs since the last slow one.
    quick: AtomicU32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stream: Option<TcpStream>,
    /// The newest connection, with where its other end stands, until it is taken up.
    incoming: Option<(TcpStream, Joint)>,
    /// Whether a connection has stood.
    linked: bool,
    /// Why nothing more is applied.
    failure: Option<String>,
    ended: bool,
}

/// Something to be made durable.
enum Durability {
    File { number: u64, file: Arc<OwnedFd>, data_only: bool },
    Everything { number: u64, base: Option<(u128, u128)>, since: Clock },
}

impl Receiving {
    pub(super) fn new(
        session: SessionId,
        source: &NodeName,
        number: u64,
        directories: &[Directory],
        daemon: &Arc<DaemonLink>,
        log: &Arc<ActivityLog>,
    ) -> io::Result<Receiving> {
        let roots = roots(directories);
        let excluded = directories.iter().map(|directory| directory.exclude.clone()).collect();
        let store = Store::new(roots.clone(), number, Arc::clone(log)).without(excluded);
        let store = Some(store);
        let shared = Arc::new(Shared {
            session,
            source: source.clone(),
            roots,
            daemon: Arc::clone(daemon),
            log: Arc::clone(log),
            outbox: Outbox::new()?,
            pings: Pings::default(),
            number: AtomicU64::new(number),
            quick: AtomicU32::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        Ok(Receiving { shared, store, thread: None })
    }

    pub(super) fn session(&self) -> SessionId {
        self.shared.session
    }

    /// The session, when its link stands.
    pub(super) fn linked(&self) -> Option<SessionId> {
        let state = self.shared.state();
        (state.linked && !state.ended).then_some(self.shared.session)
    }

    /// Number of the last operation that was applied.
    pub(super) fn number(&self) -> u64 {
        self.shared.number.load(Ordering::Acquire)
    }

    /// The source has connected. Another connection of its takes the place of an earlier one, which
    /// it has found broken.
    pub(super) fn connected(&mut self, session: SessionId, joint: Joint, mut stream: TcpStream) {
        if session != self.shared.session {
            let why = "this node receives another session now".to_owned();
            // A caller that does not listen has gone.
            let _ = connection::welcome(&mut stream, &Welcome::Absent(why));
            return;
        }
        {
            let mut state = self.shared.state();
            if let Some(earlier) = state.stream.take() {
                let _ = earlier.shutdown(Shutdown::Both);
            }
            state.incoming = Some((stream, joint));
        }
        self.shared.changed.notify_all();
        let Some(store) = self.store.take() else { return };
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("apply".to_owned()).spawn(move || {
            let why = shared.run(store).err();
            shared.lost(&why.map_or_else(|| "it was closed".to_owned(), |why| why.to_string()));
        });
        self.thread = thread.ok();
    }

    /// Ends the session for good; what was read from the link is applied first. Says the number of
    /// the last operation.
    pub(super) fn end(self) -> u64 {
        self.shared.finish();
        if let Some(thread) = self.thread {
            // A thread that panicked applies nothing more.
            let _ = thread.join();
        }
        self.shared.number.load(Ordering::Acquire)
    }
}

impl Shared {
    fn run(self: &Arc<Self>, mut store: Store) -> io::Result<()> {
        let (to_sync, syncers) = self.start_syncers()?;
        let result = self.keep_linked(&mut store, &to_sync);
        drop(to_sync);
        for syncer in syncers {
            let _ = syncer.join();
        }
        if let Err(error) = &result {
            eprintln!("the session from {} ended: {error}", self.source);
        }
        self.finish();
        result
    }

    /// Serves one connection after the other: one that breaks loses nothing.
    fn keep_linked(
        self: &Arc<Self>,
        store: &mut Store,
        to_sync: &Sender<Durability>,
    ) -> io::Result<()> {
        let mut broken = None;
        while let Some((mut stream, theirs)) = self.next_connection() {
            if let Err(why) = self.outbox.join(theirs) {
                // It is not the source of this session, or not any more.
                let _ = connection::welcome(&mut stream, &Welcome::Absent(why));
                continue;
            }
            let welcome = Welcome::Accepted(self.outbox.joint());
            // A caller that does not listen has gone, and may call again.
            let greeted = connection::welcome(&mut stream, &welcome);
            let served = greeted.and_then(|()| self.use_connection(store, &stream, to_sync));
            self.outbox.part();
            let _ = stream.shutdown(Shutdown::Both);
            match served {
                Err(error) if connection::is_broken(&error) => {
                    eprintln!("the link from {} broke: {error}", self.source);
                    broken = Some(error);
                }
                served => return served,
            }
        }
        Err(broken.unwrap_or_else(|| io::ErrorKind::NotConnected.into()))
    }

    /// The next connection of the source, if one comes in time and the session has not ended.
    fn next_connection(&self) -> Option<(TcpStream, Joint)> {
        let mut state = self.state();
        state.stream = None;
        let waiting = |state: &mut State| state.incoming.is_none() && !state.ended;
        let waited = self.changed.wait_timeout_while(state, RELINK_TIMEOUT, waiting);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.ended {
            return None;
        }
        let (stream, theirs) = state.incoming.take()?;
        state.stream = stream.try_clone().ok();
        Some((stream, theirs))
    }

    fn use_connection(
        self: &Arc<Self>,
        store: &mut Store,
        stream: &TcpStream,
        to_sync: &Sender<Durability>,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        self.pings.begin_anew();
        if std::mem::replace(&mut self.state().linked, true) {
            // A source that has lost its memory of the last answers waits for one.
            self.put(&Backward::Applied { number: store.number() });
        } else {
            self.daemon.event(ReplicatorEvent::LinkUp { session: self.session });
        }
        self.outbox.attach(stream.try_clone()?);
        let (answering, writing) = (Arc::clone(self), stream.try_clone()?);
        let answerer = std::thread::Builder::new().name("answer".to_owned()).spawn(move || {
            answering.outbox.send_all(&writing, None, |out| {
                if let Some(ping) = answering.pings.due() {
                    put_backward(out, &Backward::Ping(ping));
                }
            });
            // Who reads must end too.
            let _ = writing.shutdown(Shutdown::Both);
        })?;
        let result = self.apply_all(store, stream, to_sync);
        if !self.outbox.is_closing() {
            self.outbox.part();
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = answerer.join();
        match self.state().failure.clone() {
            Some(failure) => Err(io::Error::other(failure)),
            None => result,
        }
    }

    fn apply_all(
        &self,
        store: &mut Store,
        stream: &TcpStream,
        to_sync: &Sender<Durability>,
    ) -> io::Result<()> {
        let mut frames = connection::Frames::new(stream, READ_BYTES);
        let mut confirmed = store.number();
        let mut room = Vec::new();
        loop {
            if frames.is_empty() && store.number() != confirmed {
                confirmed = store.number();
                self.number.store(confirmed, Ordering::Release);
                self.put(&Backward::Applied { number: confirmed });
            }
            let frame = frames.next()?;
            match unpack(frame, &mut room).map_err(|wrong| self.not_understood(&wrong))? {
                None => self.take_in(store, frame, to_sync)?,
                Some(mut packed) => {
                    while let Some(frame) =
                        first(&mut packed).map_err(|wrong| self.not_understood(&wrong))?
                    {
                        self.take_in(store, frame, to_sync)?;
                    }
                }
            }
        }
    }

    /// Takes in one frame.
    fn take_in(
        &self,
        store: &mut Store,
        frame: &[u8],
        to_sync: &Sender<Durability>,
    ) -> io::Result<()> {
        let message = take_forward(frame).map_err(|wrong| self.not_understood(&wrong))?;
        match message {
            Forward::Ping(ping) => {
                self.daemon.tell(self.pings.heard(ping));
                return Ok(());
            }
            Forward::Received(bytes) => self.outbox.confirmed(bytes),
            Forward::Owners(owners) => self.check_owners(&owners),
            _ => self.apply(store, &message, to_sync)?,
        }
        if let Some(received) = self.outbox.took(PREFIX_BYTES + frame.len()) {
            self.put(&Backward::Received(received));
        }
        Ok(())
    }

    fn apply(
        &self,
        store: &mut Store,
        message: &Forward<'_>,
        to_sync: &Sender<Durability>,
    ) -> io::Result<()> {
        self.log.watch_clock()?;
        let after = store.apply(message).map_err(|failed| self.failed(&failed))?;
        self.number.store(store.number(), Ordering::Release);
        match after {
            After::Nothing => {}
            After::Absent(file) => self.put(&Backward::Absent { file }),
            After::Answer(frames) => self.outbox.put(|out| out.extend_from_slice(&frames)),
            After::Sync { number, file, data_only } => {
                let durability = Durability::File { number, file, data_only };
                if self.quick.load(Ordering::Relaxed) >= QUICK_STREAK {
                    self.make_durable(durability).map_err(|failed| self.failed(&failed))?;
                } else {
                    let _ = to_sync.send(durability);
                }
            }
            After::Barrier { number, base } => {
                let since = log::now();
                let _ = to_sync.send(Durability::Everything { number, base, since });
            }
        }
        Ok(())
    }

    /// Whether files belong to the same people here as at the source.
    fn check_owners(&self, theirs: &[Owner<'_>]) {
        let ours = Owners::read();
        let there = self.source.as_str();
        let differ =
            theirs.iter().map(|owner| ours.differs(owner.group, owner.name, owner.id, there));
        let differ: Vec<String> = differ.flatten().collect();
        let how = (!differ.is_empty()).then(|| differ.join("; "));
        self.daemon.event(ReplicatorEvent::Owners { differ: how });
    }

    fn not_understood(&self, wrong: &dyn std::fmt::Display) -> io::Error {
        self.failed(&NotApplied { errno: Errno::PROTO, what: wrong.to_string() })
    }

    /// Tells the source what could not be applied, as the last that it hears.
    fn failed(&self, failed: &NotApplied) -> io::Error {
        let errno = u32::try_from(failed.errno.raw_os_error()).unwrap_or(0);
        let what = format!("{} on the target", failed.what);
        if matches!(failed.errno, Errno::IO | Errno::UCLEAN | Errno::ROFS) {
            let why = format!("{}: {}", failed.what, failed.errno);
            self.daemon.event(ReplicatorEvent::CopyFailed { why });
        }
        // If it does not arrive, the source sees the link break, which means as much.
        let frame = Backward::Failed { errno, what: what.as_bytes() };
        self.outbox.close_with(|out| put_backward(out, &frame));
        let why = format!("{what}: {}", failed.errno);
        let mut state = self.state();
        state.failure.get_or_insert_with(|| why.clone());
        if let Some(stream) = &state.stream {
            // Nothing more is applied, whoever found that out.
            let _ = stream.shutdown(Shutdown::Read);
        }
        io::Error::other(why)
    }

    fn start_syncers(self: &Arc<Self>) -> io::Result<(Sender<Durability>, Vec<JoinHandle<()>>)> {
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
    fn make_durable(&self, durability: Durability) -> Result<(), NotApplied> {
        let start = Instant::now();
        let result = match &durability {
            Durability::File { file, data_only: true, .. } => rustix::fs::fdatasync(file),
            Durability::File { file, data_only: false, .. } => rustix::fs::fsync(file),
            Durability::Everything { number, base, since } => self
                .begin_seal(base.is_some())
                .and_then(|()| self.sync_everything())
                .and_then(|()| self.share(*number, *base, *since)),
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

    fn put(&self, message: &Backward<'_>) {
        self.outbox.put_quietly(|out| put_backward(out, message));
        self.outbox.urge();
        self.outbox.send_at_once();
    }

    /// The link is gone without having been told to go.
    fn lost(&self, why: &str) {
        if self.finish() {
            let why = format!("the link from {} ended: {why}", self.source);
            self.daemon.event(ReplicatorEvent::LinkLost { session: self.session, why });
        }
    }

    /// Ends everything; true for the first who does.
    fn finish(&self) -> bool {
        let mut state = self.state();
        let first = !state.ended;
        state.ended = true;
        if let Some(stream) = state.stream.take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.changed.notify_all();
        self.outbox.close();
        first
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_logged(error: io::Error) -> Errno {
    eprintln!("the activity log cannot be written: {error}");
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod tests;
