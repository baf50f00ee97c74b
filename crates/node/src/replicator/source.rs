//! The source of a session: its connection to the target and the threads that serve it.
//!
//! One thread connects and then sends, one hears, one walks while a resync is under way. A
//! connection that breaks is made anew, and both ends go on where they were.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Shutdown};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster::effect::{Serve, ServeSession};
use cluster::input::ReplicatorEvent;
use model::config::Compression;
use model::{NodeName, SessionId};
use mount::Order;
use replica::op::FileId;
use replica::{Session, Theirs};
use wire::hello::{Hello, Purpose};
use wire::owners::{OWNERS_MAX, Owner};
use wire::recall::{Recalled, Strayed};
use wire::replication::{Forward, Summary, put_forward};

use crate::connection::{self, Callee};
use crate::owners::Owners;
use crate::replicator::outbox::{Ended, Outbox};
use crate::replicator::packing::Packer;
use crate::replicator::ping::{PING_EVERY, Pings, SILENCE_MAX};
use crate::replicator::primary::{Live, Primary};
use crate::replicator::verifier::Verifier;
use crate::replicator::walker::Walker;
use crate::stream::Stream;

/// How long the target may need to be ready for the session.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the target says to the walk.
pub(super) enum Heard {
    Listed { tag: u64, last: bool, entries: BTreeMap<Vec<u8>, Theirs> },
    Recalled(Recalled),
    Suspects { last: bool, suspects: Vec<(u16, Vec<u8>, Strayed)> },
    Summarized { tag: u64, last: bool, entries: Vec<(Vec<u8>, Summary)> },
    Differ { tag: u64, blocks: u32 },
    Absent(FileId),
    Astray(FileId, Vec<u8>),
    Checked(u64),
}

/// The source of a session.
pub(super) struct Source {
    link: Arc<Link>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads of a session share.
pub(super) struct Link {
    pub(super) id: SessionId,
    pub(super) target: NodeName,
    pub(super) primary: Arc<Primary>,
    pub(super) order: Arc<Order>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) pings: Pings,
    pub(super) stall_timeout: Duration,
    compression: Compression,
    state: Mutex<State>,
    pub(super) changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) stream: Option<Stream>,
    /// Whether a connection has stood.
    pub(super) linked: bool,
    /// The highest barrier that the target has confirmed.
    pub(super) barrier: Option<u64>,
    /// Whether the target lacks nothing.
    pub(super) settled: bool,
    pub(super) ended: bool,
    /// Where the target is silent, while it is heard elsewhere.
    silent: Vec<IpAddr>,
    /// Who hears the answers when no walk is under way.
    pub(super) listener: Option<Sender<Heard>>,
    verifying: bool,
}

impl Source {
    /// Begins a session: from here on every change is told to the target.
    pub(super) fn begin(
        primary: &Arc<Primary>,
        order: &Arc<Order>,
        serve: &Serve,
        session: &ServeSession,
        to: (Hello, Callee),
    ) -> io::Result<Source> {
        // No change is recorded before the session knows of it.
        let _order = order.lock();
        let number = primary.lock().acks.number();
        let outbox = Outbox::kept(primary.keep(), session.id, number)?;
        let known = if session.resync { Session::waiting() } else { Session::settled() };
        outbox.put(|out| {
            // A target that need not be compared is one on which everything must apply exactly.
            put_forward(out, &Forward::Strict(!session.resync));
            if session.resync {
                put_forward(out, &Forward::Recall);
            }
        });
        Source::start(primary, order, serve, session, to, outbox, known)
    }

    /// Goes on with the session of a predecessor whose target lacked nothing; none when that
    /// cannot be.
    pub(super) fn resume(
        primary: &Arc<Primary>,
        order: &Arc<Order>,
        serve: &Serve,
        session: &ServeSession,
        to: (Hello, Callee),
    ) -> io::Result<Option<Source>> {
        if !primary.keep().is_settled(session.id) {
            return Ok(None);
        }
        let Some(outbox) = Outbox::left(primary.keep(), session.id)? else { return Ok(None) };
        let known = Session::settled();
        Source::start(primary, order, serve, session, to, outbox, known).map(Some)
    }

    fn start(
        primary: &Arc<Primary>,
        order: &Arc<Order>,
        serve: &Serve,
        session: &ServeSession,
        (hello, callee): (Hello, Callee),
        outbox: Arc<Outbox>,
        known: Session,
    ) -> io::Result<Source> {
        let resync = known.is_walking();
        // A link that is only to be made anew counts as standing.
        let resumed = outbox.is_resumed();
        let link = Arc::new(Link {
            id: session.id,
            target: session.target.clone(),
            primary: Arc::clone(primary),
            order: Arc::clone(order),
            outbox: Arc::clone(&outbox),
            pings: Pings::default(),
            stall_timeout: serve.replication.stall_timeout,
            compression: serve.replication.compression,
            state: Mutex::new(State { settled: !resync, linked: resumed, ..State::default() }),
            changed: Condvar::new(),
        });
        let target = session.target.clone();
        if !resync {
            primary.keep().note_settled(session.id);
        }
        primary.begin(Live { id: session.id, target, known, outbox, pinned: BTreeMap::new() });
        let (to_walker, heard) = channel();
        let mut threads = Vec::new();
        let sending = Arc::clone(&link);
        threads.push(std::thread::Builder::new().name("send".to_owned()).spawn(move || {
            sending.run(&callee, &hello, to_walker);
        })?);
        let checking = Arc::clone(&link);
        threads.push(std::thread::Builder::new().name("checkpoint".to_owned()).spawn(
            move || {
                checking.keep_checkpoints();
            },
        )?);
        let walking = Arc::clone(&link);
        if resync {
            threads.push(std::thread::Builder::new().name("walk".to_owned()).spawn(move || {
                walking.walk(heard);
            })?);
        }
        Ok(Source { link, threads })
    }

    pub(super) fn id(&self) -> SessionId {
        self.link.id
    }

    /// Whether the link to the target stands.
    pub(super) fn is_linked(&self) -> bool {
        let state = self.link.lock();
        state.linked && !state.ended
    }

    /// What a daemon must know that has not heard it: whether the target lacks nothing, and up to
    /// which number all is durable there.
    pub(super) fn reached(&self) -> (bool, Option<u64>) {
        let state = self.link.lock();
        (state.settled, state.barrier)
    }

    /// Has the target say when it holds everything up to now durably; returns the number.
    pub(super) fn ask_durable(&self) -> u64 {
        // Under the lock, so that no later operation can be numbered before the barrier is put.
        let inner = self.link.primary.lock();
        let number = inner.acks.number();
        self.link.outbox.put(|out| put_forward(out, &Forward::Barrier { number, base: None }));
        number
    }

    /// Waits until the target holds everything durably; false when that was not reached.
    pub(super) fn barrier(&self, limit: Duration) -> bool {
        let number = self.ask_durable();
        let waiting = |state: &mut State| !state.ended && state.barrier < Some(number);
        let state = self.link.lock();
        let waited = self.link.changed.wait_timeout_while(state, limit, waiting);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        !state.ended && state.barrier >= Some(number)
    }

    /// Begins to compare both copies; says in a sentence why not.
    pub(super) fn verify(&mut self, serial: u64, repair: bool) -> Result<(), String> {
        self.threads.retain(|thread| !thread.is_finished());
        let state = self.link.lock();
        if !state.settled || state.ended {
            return Err("the peer is not up to date".to_owned());
        }
        drop(state);
        if std::mem::replace(&mut self.link.lock().verifying, true) {
            return Err("a verification is under way".to_owned());
        }
        let link = Arc::clone(&self.link);
        let thread = std::thread::Builder::new().name("verify".to_owned()).spawn(move || {
            Verifier::run(&link, serial, repair);
            link.lock().verifying = false;
        });
        self.threads.push(thread.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// The peer is silent at these addresses, and is heard at others: if that is where the link
    /// goes, it is made anew by another way.
    pub(super) fn leave(&self, silent: &[IpAddr]) {
        let link = &self.link;
        let mut state = link.lock();
        state.silent = silent.to_vec();
        let Some(stream) = &state.stream else { return };
        let Ok(at) = stream.socket().peer_addr() else { return };
        if silent.contains(&at.ip()) {
            eprintln!("{} is silent at {}: the link is to go another way", link.target, at.ip());
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends the session for good.
    pub(super) fn end(self) {
        self.link.finish();
        for thread in self.threads {
            // A thread that panicked has nothing left to say.
            let _ = thread.join();
        }
    }
}

impl Link {
    fn run(self: &Arc<Self>, callee: &Callee, hello: &Hello, to_walker: Sender<Heard>) {
        self.tell_owners();
        match self.keep_linked(callee, hello, &to_walker) {
            // The outbox was closed by whoever ended the session; they have told why.
            Ok(()) => drop(self.finish()),
            Err(error) => self.lost(&error.to_string()),
        }
    }

    /// Tells whose files these are. What cannot be found out is no reason not to replicate.
    fn tell_owners(&self) {
        let owners = Owners::read();
        let trees = self.primary.trees().iter();
        let all: Vec<_> = trees.filter_map(|tree| owners.of(tree.root()).ok()).flatten().collect();
        let all = all.iter().take(OWNERS_MAX);
        let told = all.map(|owner| Owner { group: owner.group, name: &owner.name, id: owner.id });
        let told = told.collect();
        self.outbox.put(|out| put_forward(out, &Forward::Owners(told)));
    }

    /// Connects, and again whenever the connection breaks: nothing is lost by that.
    fn keep_linked(
        self: &Arc<Self>,
        callee: &Callee,
        hello: &Hello,
        to_walker: &Sender<Heard>,
    ) -> io::Result<()> {
        let mut broken = None;
        loop {
            let stream = match (self.connect(callee, hello, broken.is_some()), broken) {
                (Ok(stream), _) => stream,
                (Err(error), Some(broken)) => {
                    let why = format!("{broken}; it could not be made anew: {error}");
                    return Err(io::Error::other(why));
                }
                (Err(error), None) => return Err(error),
            };
            let heard = self.use_connection(&stream, to_walker)?;
            match heard {
                None => return Ok(()),
                Some(error) if connection::is_broken(&error) => {
                    eprintln!("the link to {} broke: {error}; it is made anew", self.target);
                    broken = Some(error);
                }
                Some(error) => return Err(error),
            }
        }
    }

    /// Sends and hears over a connection; says why that ended, unless the session has.
    fn use_connection(
        self: &Arc<Self>,
        stream: &Stream,
        to_walker: &Sender<Heard>,
    ) -> io::Result<Option<io::Error>> {
        let reading = stream.clone();
        if self.compression == Compression::None {
            self.outbox.attach(stream.clone());
        }
        let first = !std::mem::replace(&mut self.lock().linked, true);
        let (hearing, to_walker) = (Arc::clone(self), to_walker.clone());
        let thread = std::thread::Builder::new().name("hear".to_owned()).spawn(move || {
            let ended = hearing.hear(&reading, &to_walker);
            hearing.outbox.part();
            let _ = reading.shutdown(Shutdown::Both);
            ended.err()
        })?;
        if first {
            self.primary.daemon().event(ReplicatorEvent::LinkUp { session: self.id });
        }
        let packer = (self.compression == Compression::Lz4).then(Packer::default);
        let sent = self.outbox.send_all(stream, packer, |out| {
            if let Some(ping) = self.pings.due() {
                put_forward(out, &Forward::Ping(ping));
            }
        });
        // Who hears must end too.
        let _ = stream.shutdown(Shutdown::Both);
        let heard = thread.join().unwrap_or(None);
        Ok(match sent {
            Ended::Closed => None,
            _ if self.is_ended() => None,
            Ended::Broken(error) => heard.or(Some(error)),
        })
    }

    fn connect(&self, callee: &Callee, hello: &Hello, again: bool) -> io::Result<Stream> {
        let until = Instant::now() + CONNECT_TIMEOUT;
        loop {
            let mut hello = hello.clone();
            if let Purpose::Replication { joint, .. } = &mut hello.purpose {
                *joint = self.outbox.joint();
            }
            let mut callee = callee.clone();
            let silent = self.lock().silent.clone();
            callee.addresses.sort_by_key(|address| silent.contains(&address.ip()));
            let error = match connection::call(&callee, &hello) {
                Ok((stream, theirs)) => {
                    self.outbox.join(theirs).map_err(io::Error::other)?;
                    self.pings.begin_anew();
                    // Longer than a stall, which has a reason of its own to tell.
                    let socket = stream.socket();
                    socket.set_write_timeout(Some(self.stall_timeout + SILENCE_MAX))?;
                    socket.set_read_timeout(Some(SILENCE_MAX))?;
                    let mut state = self.lock();
                    if state.ended {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    state.stream = Some(stream.clone());
                    return Ok(stream);
                }
                Err(error) => error,
            };
            // At first the target may need time to be ready for the session.
            if again && connection::is_absent(&error) {
                return Err(error);
            }
            let state = self.lock();
            let waited = self.changed.wait_timeout_while(state, PING_EVERY, |state| !state.ended);
            if waited.unwrap_or_else(PoisonError::into_inner).0.ended || Instant::now() > until {
                return Err(error);
            }
        }
    }

    /// Has what the target says told to this listener, once no walk is under way.
    pub(super) fn listen(&self, listener: Sender<Heard>) {
        self.lock().listener = Some(listener);
    }

    fn walk(self: &Arc<Self>, heard: Receiver<Heard>) {
        if let Err(error) = Walker::new(Arc::clone(self), heard).run() {
            // What stopped it may stop the next one too, unless that compares everything.
            self.primary.log().give_up();
            self.lost(&format!("the resync failed: {error}"));
        }
    }

    /// The target lacks nothing any more.
    pub(super) fn settled(&self) {
        self.primary.keep().note_settled(self.id);
        self.lock().settled = true;
        self.changed.notify_all();
    }

    /// The link is gone without having been told to go.
    pub(super) fn lost(&self, why: &str) {
        if self.finish() {
            let why =
                if why.is_empty() { "the peer closed the link".to_owned() } else { why.to_owned() };
            self.primary.daemon().event(ReplicatorEvent::LinkLost { session: self.id, why });
        }
    }

    /// Ends everything; true for the first who does.
    pub(super) fn finish(&self) -> bool {
        let mut state = self.lock();
        let first = !state.ended;
        state.ended = true;
        if let Some(stream) = state.stream.take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.changed.notify_all();
        self.outbox.close();
        self.primary.end_session(self.id);
        self.primary.log().wake();
        first
    }

    pub(super) fn is_ended(&self) -> bool {
        self.lock().ended
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for what the target says; none once the session has ended.
pub(super) fn next(link: &Link, heard: &Receiver<Heard>) -> Option<Heard> {
    loop {
        match heard.recv_timeout(PING_EVERY) {
            Ok(heard) => return Some(heard),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) if link.is_ended() => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
