//! A replicator that receives a session: one thread applies, one answers, a few sync.
//!
//! What was applied is confirmed whenever nothing more is waiting to be read, so that a stream is
//! confirmed in large strides and a single operation at once.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use activity::image::Clock;
use cluster::input::ReplicatorEvent;
use model::{NodeName, SessionId};
use mount::backing::Root;
use rustix::io::Errno;
use wire::hello::Welcome;
use wire::replication::{Backward, Forward, put_backward, take_forward};

use crate::connection;
use crate::replicator::Directory;
use crate::replicator::daemon_link::DaemonLink;
use crate::replicator::log::{self, ActivityLog};
use crate::replicator::outbox::Outbox;
use crate::replicator::packing::{first, unpack};
use crate::replicator::ping::{PING_EVERY, Pings, SILENCE_MAX};
use crate::replicator::store::{After, NotApplied, Store};

/// Threads that sync.
const SYNCERS: usize = 2;
/// A sync that takes no longer is not worth a thread's being woken.
const QUICK: Duration = Duration::from_micros(50);
/// So many syncs in a row must have been quick for the next one to be expected to be.
const QUICK_STREAK: u32 = 8;
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
}

#[derive(Default)]
struct State {
    stream: Option<TcpStream>,
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
    ) -> Receiving {
        let roots: Vec<Arc<Root>> =
            directories.iter().map(|directory| Arc::clone(&directory.root)).collect();
        let store = Some(Store::new(roots.clone(), number, Arc::clone(log)));
        let shared = Arc::new(Shared {
            session,
            source: source.clone(),
            roots,
            daemon: Arc::clone(daemon),
            log: Arc::clone(log),
            outbox: Arc::new(Outbox::default()),
            pings: Pings::default(),
            number: AtomicU64::new(number),
            quick: AtomicU32::new(0),
            state: Mutex::default(),
        });
        Receiving { shared, store, thread: None }
    }

    pub(super) fn session(&self) -> SessionId {
        self.shared.session
    }

    /// The session, when its link stands.
    pub(super) fn linked(&self) -> Option<SessionId> {
        let state = self.shared.state();
        (state.stream.is_some() && !state.ended).then_some(self.shared.session)
    }

    /// Number of the last operation that was applied.
    pub(super) fn number(&self) -> u64 {
        self.shared.number.load(Ordering::Acquire)
    }

    /// The source has connected. A session has one connection; another one is refused.
    pub(super) fn connected(&mut self, session: SessionId, mut stream: TcpStream) {
        let refusal = if session != self.shared.session {
            Some("this node receives another session now")
        } else if self.store.is_none() {
            Some("the session has its connection already")
        } else {
            None
        };
        let welcome =
            refusal.map_or(Welcome::Accepted, |refusal| Welcome::Refused(refusal.to_owned()));
        // A caller that does not listen has gone, and may call again.
        let greeted = connection::welcome(&mut stream, &welcome).is_ok();
        if refusal.is_some() || !greeted {
            return;
        }
        let Some(store) = self.store.take() else { return };
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("apply".to_owned()).spawn(move || {
            let why = shared.run(store, stream).err();
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
    fn run(self: &Arc<Self>, mut store: Store, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        {
            let mut state = self.state();
            if state.ended {
                return Ok(());
            }
            state.stream = Some(stream.try_clone()?);
        }
        self.daemon.event(ReplicatorEvent::LinkUp { session: self.session });
        let writing = stream.try_clone()?;
        self.outbox.attach(stream.try_clone()?);
        let answering = Arc::clone(self);
        let answerer = std::thread::Builder::new()
            .name("answer".to_owned())
            .spawn(move || answering.answer(writing))?;
        let (to_sync, syncers) = self.start_syncers()?;
        let result = self.apply_all(&mut store, stream, &to_sync);
        drop(to_sync);
        for syncer in syncers {
            let _ = syncer.join();
        }
        if let Err(error) = &result {
            eprintln!("the session from {} ended: {error}", self.source);
            self.outbox.close();
        }
        self.finish();
        let _ = answerer.join();
        result
    }

    fn apply_all(
        &self,
        store: &mut Store,
        stream: TcpStream,
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
        if let Forward::Ping(ping) = message {
            self.daemon.tell(self.pings.heard(ping));
            return Ok(());
        }
        self.log.watch_clock()?;
        let after = store.apply(&message).map_err(|failed| self.failed(&failed))?;
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

    fn not_understood(&self, wrong: &dyn std::fmt::Display) -> io::Error {
        self.failed(&NotApplied { errno: Errno::PROTO, what: wrong.to_string() })
    }

    /// Tells the source what could not be applied, and waits until that is on its way.
    fn failed(&self, failed: &NotApplied) -> io::Error {
        let errno = u32::try_from(failed.errno.raw_os_error()).unwrap_or(0);
        let what = format!("{} on the target", failed.what);
        if matches!(failed.errno, Errno::IO | Errno::UCLEAN | Errno::ROFS) {
            let why = format!("{}: {}", failed.what, failed.errno);
            self.daemon.event(ReplicatorEvent::CopyFailed { why });
        }
        let mut frame = Vec::new();
        put_backward(&mut frame, &Backward::Failed { errno, what: what.as_bytes() });
        let stream = self.state().stream.as_ref().and_then(|stream| stream.try_clone().ok());
        self.outbox.close();
        if let Some(mut stream) = stream {
            // If it does not arrive, the source sees the link break, which means as much.
            let _ = stream.write_all(&frame);
        }
        io::Error::other(format!("{what}: {}", failed.errno))
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut frames = Vec::new();
        while self.outbox.take(&mut frames, PING_EVERY) {
            if let Some(ping) = self.pings.due() {
                put_backward(&mut frames, &Backward::Ping(ping));
            }
            if stream.write_all(&frames).is_err() {
                break;
            }
        }
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
                let error = self.failed(&failed);
                self.lost(&error.to_string());
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
            Durability::Everything { number, base, since } => {
                self.sync_everything().and_then(|()| self.share(*number, *base, *since))
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

    /// Notes what is shared with the source from here on, before the source is told so.
    fn share(&self, number: u64, base: Option<(u128, u128)>, since: Clock) -> Result<(), Errno> {
        let Some((base, previous)) = base else { return Ok(()) };
        self.log.share(base, previous, number, since).map_err(|error| {
            eprintln!("the activity log cannot be written: {error}");
            Errno::from_io_error(&error).unwrap_or(Errno::IO)
        })
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
        self.outbox.close();
        first
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod tests;
