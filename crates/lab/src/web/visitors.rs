//! Visitors without pause: a new one every ten milliseconds, and some that keep their connection.
//!
//! They know an address, not nodes. Each is counted: who answered, who had no answer in time, whose
//! connection broke.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http;

/// Time between two new visitors.
pub const EVERY: Duration = Duration::from_millis(10);
/// How long a new visitor waits for its answer: who has none by now has lost a packet, for only
/// then the kernel asks once more, after a second. On a busy machine an answer may well be late.
pub const PATIENCE: Duration = Duration::from_millis(900);
/// How long one that keeps its connection waits: longer than any change of a farm takes.
const PATIENCE_OF_KEPT: Duration = Duration::from_secs(10);
/// How often it asks.
const KEPT_ASKS_EVERY: Duration = Duration::from_millis(50);
/// Threads of new visitors. Each sees off one at a time, and all together one every [`EVERY`].
const THREADS: u32 = 100;

/// Visitors at work; they end when this is dropped.
pub struct Visitors {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What visitors saw in a stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// New visitors.
    pub new: usize,
    /// Those of them that had no answer in time.
    pub lost: usize,
    /// From the first of these to the one after the last of them.
    pub outage: Duration,
    /// New visitors by who answered.
    pub served: BTreeMap<String, usize>,
    /// Kept connections that broke, by who had served them.
    pub broken: BTreeMap<String, usize>,
    /// Why the first of each host's kept connections broke.
    pub why: BTreeMap<String, String>,
    /// The first thing that went wrong, in words.
    pub error: Option<String>,
}

impl Tally {
    /// How many kept connections broke.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.broken.values().sum()
    }
}

struct Shared {
    stop: AtomicBool,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    /// New visitors, by when they came; in the order of their ends.
    new: Vec<(Instant, Result<String, String>)>,
    /// Broken connections, with who had served them and why.
    broken: Vec<(Instant, String, String)>,
    /// Who serves each of the kept connections, and when it answered last.
    kept: Vec<Option<(String, Instant)>>,
}

impl Visitors {
    /// Sends visitors to an address, from a network namespace if one is given. `kept` of them keep
    /// their connection, and make a new one when it breaks.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        address: SocketAddr,
        kept: usize,
        namespace: Option<OwnedFd>,
    ) -> io::Result<Visitors> {
        let log = Mutex::new(Log { kept: vec![None; kept], ..Log::default() });
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), log });
        let mut visitors = Visitors { shared, threads: Vec::new() };
        let namespace = namespace.map(Arc::new);
        let begin = Instant::now();
        for number in 0..THREADS {
            let ours = Arc::clone(&visitors.shared);
            let come = move || come_anew(address, begin + EVERY * number, &ours);
            visitors.threads.push(inside(namespace.clone(), come)?);
        }
        for number in 0..kept {
            let ours = Arc::clone(&visitors.shared);
            let keep = move || keep(address, number, &ours);
            visitors.threads.push(inside(namespace.clone(), keep)?);
        }
        Ok(visitors)
    }

    /// What was seen since a moment. New visitors count by when they came; those that are still
    /// waiting do not count yet.
    #[must_use]
    pub fn since(&self, mark: Instant) -> Tally {
        self.shared.log().tally(mark)
    }

    /// How many kept connections each host has.
    #[must_use]
    pub fn kept(&self) -> BTreeMap<String, usize> {
        self.shared.log().kept(|_| true)
    }

    /// The same of those that were answered since a moment.
    #[must_use]
    pub fn kept_since(&self, mark: Instant) -> BTreeMap<String, usize> {
        self.shared.log().kept(|answered| answered >= mark)
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Log {
    fn kept(&self, counts: impl Fn(Instant) -> bool) -> BTreeMap<String, usize> {
        let mut kept = BTreeMap::new();
        for (server, _) in self.kept.iter().flatten().filter(|(_, answered)| counts(*answered)) {
            *kept.entry(server.clone()).or_default() += 1;
        }
        kept
    }

    fn tally(&self, mark: Instant) -> Tally {
        let mut tally = Tally::default();
        let mut lost: Option<(Instant, Instant)> = None;
        for (came, outcome) in self.new.iter().filter(|(came, _)| *came >= mark) {
            tally.new += 1;
            match outcome {
                Ok(server) => *tally.served.entry(server.clone()).or_default() += 1,
                Err(why) => {
                    tally.lost += 1;
                    tally.error.get_or_insert_with(|| why.clone());
                    let (first, last) = lost.unwrap_or((*came, *came));
                    lost = Some((first.min(*came), last.max(*came)));
                }
            }
        }
        if let Some((first, last)) = lost {
            tally.outage = last.duration_since(first) + EVERY;
        }
        for (_, server, why) in self.broken.iter().filter(|(at, _, _)| *at >= mark) {
            *tally.broken.entry(server.clone()).or_default() += 1;
            tally.why.entry(server.clone()).or_insert_with(|| why.clone());
            tally.error.get_or_insert_with(|| format!("a kept connection to {server}: {why}"));
        }
        tally
    }
}

/// Starts a thread, inside the namespace if there is one.
fn inside(
    namespace: Option<Arc<OwnedFd>>,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let work = move || match namespace {
        None => work(),
        Some(namespace) => {
            if let Err(error) = net::namespace::enter(namespace.as_fd(), work) {
                eprintln!("visitors: {error}");
            }
        }
    };
    thread::Builder::new().name("visitor".into()).spawn(work)
}

/// One thread of new visitors, whose first comes at `first`.
fn come_anew(address: SocketAddr, first: Instant, shared: &Shared) {
    let mut next = first;
    while !shared.stopped() {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let came = Instant::now();
        let answer = Connection::open(address, PATIENCE)
            .and_then(|mut connection| connection.ask("close"))
            .map_err(|error| error.to_string());
        shared.log().new.push((came, answer));
        // Who was late does not come twice.
        next = (next + EVERY * THREADS).max(Instant::now());
    }
}

/// One visitor that keeps its connection.
fn keep(address: SocketAddr, number: usize, shared: &Shared) {
    while !shared.stopped() {
        let Ok(mut connection) = Connection::open(address, PATIENCE_OF_KEPT) else {
            thread::sleep(KEPT_ASKS_EVERY);
            continue;
        };
        let mut server: Option<String> = None;
        while !shared.stopped() {
            let asked = Instant::now();
            let why = match connection.ask("keep-alive") {
                Ok(name) if server.as_ref().is_none_or(|before| *before == name) => {
                    shared.log().kept[number] = Some((name.clone(), asked));
                    server = Some(name);
                    None
                }
                Ok(name) => Some(format!("{name} answers instead")),
                Err(error) => Some(error.to_string()),
            };
            if let Some(why) = why {
                let mut log = shared.log();
                // One that never had an answer has not been broken.
                if let Some(server) = server.take() {
                    log.broken.push((Instant::now(), server, why));
                }
                log.kept[number] = None;
                break;
            }
            thread::sleep(KEPT_ASKS_EVERY);
        }
    }
}

struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: SocketAddr, patience: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Connection { reader: BufReader::new(stream) })
    }

    fn ask(&mut self, connection: &str) -> io::Result<String> {
        let request = format!("GET / HTTP/1.1\r\nHost: farm\r\nConnection: {connection}\r\n\r\n");
        self.reader.get_mut().write_all(request.as_bytes())?;
        http::read_answer(&mut self.reader)
    }
}
