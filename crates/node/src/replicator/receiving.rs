//! A replicator that receives a session: one thread applies, one answers, a few sync. A connection
//! that breaks is waited for anew, and both ends go on where they were.
//!
//! What was applied is confirmed whenever nothing more is waiting to be read, so that a stream is
//! confirmed in large strides and a single operation at once.

mod syncing;

use std::io;
use std::net::{IpAddr, Shutdown};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use cluster::input::ReplicatorEvent;
use model::{NodeName, SessionId};
use mount::backing::Root;
use rustix::io::Errno;
use wire::frame::PREFIX_BYTES;
use wire::hello::Welcome;
use wire::local::Caller;
use wire::owners::Owner;
use wire::replication::{Backward, Forward, put_backward, take_forward};

use crate::connection;
use crate::owners::Owners;
use crate::replicator::daemon_link::DaemonLink;
use crate::replicator::log::{self, ActivityLog};
use crate::replicator::outbox::Outbox;
use crate::replicator::packing::{first, unpack};
use crate::replicator::ping::{Pings, SILENCE_MAX};
use crate::replicator::quarantine::Quarantine;
use crate::replicator::receiving::syncing::{Durability, QUICK_STREAK};
use crate::replicator::store::{After, NotApplied, Store};
use crate::replicator::{Directory, roots};
use crate::stream::Stream;

/// How long a broken connection may take to be made anew; longer than the source tries.
const RELINK_TIMEOUT: Duration = Duration::from_secs(8);
/// Frames whose answers leave together, when there is no end of frames.
const FRAMES_AT_ONCE: u64 = 64;
/// Bytes read from the link at once.
const READ_BYTES: usize = 1 << 20;

/// A replicator that receives.
pub(super) struct Receiving {
    shared: Arc<Shared>,
}

/// Where the connections of a source come in, once it has shown who it is.
#[derive(Clone)]
pub(super) struct Entrance {
    shared: Arc<Shared>,
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
    applying: Mutex<Applying>,
    /// Held by whoever makes everything durable and seals it: each seal is of its own sync.
    sealing: Mutex<()>,
}

/// What is applied, until the first connection stands, and from then on the thread that does it.
struct Applying {
    store: Option<Store>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stream: Option<Stream>,
    /// The newest connection, with where its other end stands and how it is protected, until it is
    /// taken up.
    incoming: Option<(Stream, Caller)>,
    /// Number of the newest caller.
    newest: u64,
    /// Whether a connection has stood.
    linked: bool,
    /// Why nothing more is applied.
    failure: Option<String>,
    ended: bool,
}

impl Receiving {
    pub(super) fn new(
        session: SessionId,
        source: &NodeName,
        number: u64,
        (directories, quarantine): (&[Directory], Option<Quarantine>),
        daemon: &Arc<DaemonLink>,
        log: &Arc<ActivityLog>,
    ) -> io::Result<Receiving> {
        let roots = roots(directories);
        let excluded = directories.iter().map(|directory| directory.exclude.clone()).collect();
        let store = Store::new(roots.clone(), number, Arc::clone(log)).without(excluded);
        let store = store.sparing(quarantine);
        let applying = Mutex::new(Applying { store: Some(store), thread: None });
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
            applying,
            sealing: Mutex::default(),
        });
        Ok(Receiving { shared })
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

    /// Where connections of the source come in.
    pub(super) fn entrance(&self) -> Entrance {
        Entrance { shared: Arc::clone(&self.shared) }
    }

    /// Ends the session for good; what was read from the link is applied first. Says the number of
    /// the last operation.
    pub(super) fn end(self) -> u64 {
        self.shared.finish();
        let thread = self.shared.applying().thread.take();
        if let Some(thread) = thread {
            // A thread that panicked applies nothing more.
            let _ = thread.join();
        }
        self.shared.number.load(Ordering::Acquire)
    }
}

impl Receiving {
    /// The source is silent at these addresses, and is heard at others: a link from there is ended,
    /// so that it is made anew by another way.
    pub(super) fn leave(&self, silent: &[IpAddr]) {
        let state = self.shared.state();
        let Some(stream) = &state.stream else { return };
        let from = stream.socket().peer_addr().map(|from| from.ip());
        if from.is_ok_and(|from| silent.contains(&from)) {
            eprintln!("{} is silent where the link comes from: it ends", self.shared.source);
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Entrance {
    /// Says in a sentence why a caller has no business here.
    pub(super) fn admits(&self, caller: &Caller) -> Result<(), String> {
        if caller.session != self.shared.session {
            return Err("this node receives another session now".to_owned());
        }
        if caller.from != self.shared.source {
            return Err(format!("the source of this session is {}", self.shared.source));
        }
        Ok(())
    }

    /// The source has connected, as the caller with this number. Another connection of its takes
    /// the place of an earlier one, which it has found broken.
    pub(super) fn connected(&self, number: u64, caller: Caller, stream: Stream) {
        {
            let mut state = self.shared.state();
            if number < state.newest {
                // It has given that call up since.
                return;
            }
            state.newest = number;
            if let Some(earlier) = state.stream.take() {
                let _ = earlier.shutdown(Shutdown::Both);
            }
            state.incoming = Some((stream, caller));
        }
        self.shared.changed.notify_all();
        let mut applying = self.shared.applying();
        // Whoever ends the session waits for the thread that there is by then.
        if self.shared.state().ended {
            return;
        }
        let Some(store) = applying.store.take() else { return };
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("apply".to_owned()).spawn(move || {
            let why = shared.run(store).err();
            shared.lost(&why.map_or_else(|| "it was closed".to_owned(), |why| why.to_string()));
        });
        applying.thread = thread.ok();
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
        result
    }

    /// Serves one connection after the other: one that breaks loses nothing.
    fn keep_linked(
        self: &Arc<Self>,
        store: &mut Store,
        to_sync: &Sender<Durability>,
    ) -> io::Result<()> {
        let mut broken = None;
        while let Some((stream, caller)) = self.next_connection() {
            if let Err(why) = self.outbox.join(caller.joint) {
                // It is not the source of this session, or not any more.
                let _ = connection::welcome(&stream, &Welcome::Absent(why));
                continue;
            }
            // A caller that does not listen has gone, and may call again.
            let agreed = connection::accept(&stream, self.outbox.joint(), caller.protection);
            let served = agreed.and_then(|stream| self.use_connection(store, &stream, to_sync));
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
    fn next_connection(&self) -> Option<(Stream, Caller)> {
        let mut state = self.state();
        state.stream = None;
        let waiting = |state: &mut State| state.incoming.is_none() && !state.ended;
        let waited = self.changed.wait_timeout_while(state, RELINK_TIMEOUT, waiting);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.ended {
            return None;
        }
        let (stream, caller) = state.incoming.take()?;
        state.stream = Some(stream.clone());
        Some((stream, caller))
    }

    fn use_connection(
        self: &Arc<Self>,
        store: &mut Store,
        stream: &Stream,
        to_sync: &Sender<Durability>,
    ) -> io::Result<()> {
        let socket = stream.socket();
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        socket.set_write_timeout(Some(SILENCE_MAX))?;
        self.pings.begin_anew();
        if std::mem::replace(&mut self.state().linked, true) {
            // A source that has lost its memory of the last answers waits for one.
            self.put(&Backward::Applied { number: store.number() });
        } else {
            self.daemon.event(ReplicatorEvent::LinkUp { session: self.session });
        }
        self.outbox.attach(stream.clone());
        let (answering, writing) = (Arc::clone(self), stream.clone());
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
        stream: &Stream,
        to_sync: &Sender<Durability>,
    ) -> io::Result<()> {
        let mut frames = connection::Frames::new(stream, READ_BYTES);
        let mut confirmed = store.number();
        let mut room = Vec::new();
        for count in 1_u64.. {
            if frames.is_empty() && store.number() != confirmed {
                confirmed = store.number();
                self.number.store(confirmed, Ordering::Release);
                self.put(&Backward::Applied { number: confirmed });
            } else if frames.is_empty() || count.is_multiple_of(FRAMES_AT_ONCE) {
                self.outbox.send_rest();
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
        Ok(())
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
            After::Answer(frames) => {
                self.outbox.put_quietly(|out| out.extend_from_slice(&frames));
            }
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

    fn applying(&self) -> MutexGuard<'_, Applying> {
        self.applying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod tests;
