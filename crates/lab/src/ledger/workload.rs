//! A client that commits without pause and remembers every acknowledgement with its time.
//!
//! It measures from the outside, as a user would notice an outage: it knows addresses, not nodes. A
//! transaction without acknowledgement is tried again under the same number until it has one.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::{Client, ClientError, LedgerClient};

/// How long a connection may take; short, so that the end of an outage is noticed at once.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// How long an acknowledgement may take before the connection is given up.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause after a failed attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Makes a new connection to the application.
pub type Connect = Box<dyn FnMut() -> Result<Box<dyn Client>, ClientError> + Send>;

/// The longest time without an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// How long it lasted, or has lasted so far.
    pub length: Duration,
    /// Whether it is not over.
    pub ongoing: bool,
}

/// A running workload.
pub struct Workload {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    log: Mutex<Log>,
    /// Signalled at each acknowledgement.
    acknowledged: Condvar,
}

#[derive(Default)]
struct Log {
    /// Numbers and times, in the order of both.
    acknowledged: Vec<(u64, Instant)>,
    last_error: Option<String>,
}

impl Workload {
    /// Starts committing to the ledger at an address, from transaction `first` on, inside a network
    /// namespace if one is given.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn ledger(
        address: SocketAddr,
        first: u64,
        namespace: Option<OwnedFd>,
    ) -> std::io::Result<Self> {
        let connect = move || -> Result<Box<dyn Client>, ClientError> {
            let client = LedgerClient::connect_within(address, CONNECT_TIMEOUT, ANSWER_TIMEOUT)?;
            Ok(Box::new(client))
        };
        Self::start(first, namespace, Box::new(connect))
    }

    /// Starts committing over connections made by `connect`, from transaction `first` on. The
    /// thread that does so is inside the network namespace, if one is given.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        first: u64,
        namespace: Option<OwnedFd>,
        connect: Connect,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        let work = move || match namespace {
            None => commit_without_pause(first, connect, &ours),
            Some(namespace) => {
                let work = || commit_without_pause(first, connect, &ours);
                if let Err(error) = net::namespace::enter(namespace.as_fd(), work) {
                    ours.log().last_error = Some(error.to_string());
                }
            }
        };
        let thread = thread::Builder::new().name("workload".into()).spawn(work)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The numbers acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<u64> {
        self.shared.log().numbers()
    }

    /// How many were acknowledged so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.log().acknowledged.len()
    }

    /// The longest time between two successive acknowledgements since `mark`, from the last one
    /// before it on; if the time since the last one of all is longer, then that.
    #[must_use]
    pub fn outages_since(&self, mark: Instant) -> Outage {
        self.shared.log().longest_outage(mark, Instant::now())
    }

    /// Waits for an acknowledgement that comes after `mark`; false when there is none in time.
    #[must_use]
    pub fn wait_for_progress(&self, mark: Instant, timeout: Duration) -> bool {
        let waiting = |log: &mut Log| log.acknowledged.last().is_none_or(|(_, at)| *at <= mark);
        let log = self.shared.log();
        let waited = self.shared.acknowledged.wait_timeout_while(log, timeout, waiting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// What went wrong last, if anything ever did.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.shared.log().last_error.clone()
    }

    /// Ends the workload and returns all numbers that were acknowledged.
    #[must_use]
    pub fn stop(mut self) -> Vec<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            resume_unwind(panic);
        }
        self.acknowledged()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Whoever forgets to stop it must not be disturbed by it for ever.
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn numbers(&self) -> Vec<u64> {
        self.acknowledged.iter().map(|(id, _)| *id).collect()
    }

    fn longest_outage(&self, mark: Instant, now: Instant) -> Outage {
        let before = self.acknowledged.partition_point(|(_, at)| *at <= mark);
        let times = self.acknowledged[before.saturating_sub(1)..].iter().map(|(_, at)| *at);
        let mut last = if before == 0 { mark } else { self.acknowledged[before - 1].1 };
        let mut longest = Duration::ZERO;
        for at in times {
            longest = longest.max(at.saturating_duration_since(last));
            last = at;
        }
        let running = now.saturating_duration_since(last);
        Outage { length: longest.max(running), ongoing: running > longest }
    }
}

fn commit_without_pause(first: u64, mut connect: Connect, shared: &Shared) {
    let mut id = first;
    let mut client = None;
    while !shared.stop.load(Ordering::Relaxed) {
        match commit(&mut client, &mut connect, id) {
            Ok(()) => {
                shared.log().acknowledged.push((id, Instant::now()));
                shared.acknowledged.notify_all();
                id += 1;
            }
            Err(error) => {
                client = None;
                shared.log().last_error = Some(error.to_string());
                thread::sleep(RETRY_PAUSE);
            }
        }
    }
}

fn commit(
    client: &mut Option<Box<dyn Client>>,
    connect: &mut Connect,
    id: u64,
) -> Result<(), ClientError> {
    let client = match client {
        Some(client) => client,
        None => client.insert(connect()?),
    };
    client.commit(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_outage_is_found() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let times = [0, 10, 100, 110, 400, 410].map(at);
        let log = Log { acknowledged: (1..).zip(times).collect(), last_error: None };
        let outage = |mark, now| {
            let outage = log.longest_outage(at(mark), at(now));
            (outage.length.as_millis(), outage.ongoing)
        };
        assert_eq!(outage(0, 411), (290, false));
        assert_eq!(outage(200, 411), (290, false), "the gap that the mark lies in counts");
        assert_eq!(outage(405, 412), (10, false));
        assert_eq!(outage(50, 1000), (590, true));
        assert_eq!(Log::default().longest_outage(at(5), at(8)).length.as_millis(), 3);
    }
}
