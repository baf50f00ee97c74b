//! Who acknowledged what, and when: for the question whether two servers ever served at a time.
//!
//! Writers offer new transactions to one address without pause and never offer one again, so that
//! an acknowledgement tells of a write that was made between its sending and its answer. How long
//! anything takes is not judged here, only its order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::{ClientError, LedgerClient};
use super::workload::CONNECT_TIMEOUT;

/// How long an acknowledgement may take before the connection is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Pause after an acknowledgement, which leaves the machine to others too.
const PAUSE: Duration = Duration::from_millis(2);

/// A transaction that a server acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its number.
    pub id: u64,
    /// The server, of all that ever ran.
    pub run: Arc<str>,
    /// When it was sent.
    pub sent: Instant,
    /// When the acknowledgement was there.
    pub heard: Instant,
}

/// A running writer.
pub struct Writer {
    shared: Arc<Shared>,
    /// None once it was waited for.
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
    acknowledged: Vec<Acknowledged>,
    failures: u64,
    last_error: Option<String>,
}

impl Writer {
    /// Starts offering transactions to an address from number `first` on, inside a network
    /// namespace.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(address: SocketAddr, first: u64, namespace: OwnedFd) -> std::io::Result<Writer> {
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        let thread = thread::Builder::new().name("writer".into()).spawn(move || {
            let work = || ours.write(address, first);
            if let Err(error) = net::namespace::enter(namespace.as_fd(), work) {
                ours.log().last_error = Some(error.to_string());
            }
        })?;
        Ok(Writer { shared, thread: Some(thread) })
    }

    /// Waits for the acknowledgement of something that is sent after `mark`; false when there is
    /// none in time.
    #[must_use]
    pub fn wait_for_progress(&self, mark: Instant, timeout: Duration) -> bool {
        let waiting = |log: &mut Log| log.acknowledged.last().is_none_or(|last| last.sent <= mark);
        let log = self.shared.log();
        let waited = self.shared.acknowledged.wait_timeout_while(log, timeout, waiting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// What has been acknowledged so far, in order.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        self.shared.log().acknowledged.clone()
    }

    /// How many attempts have failed so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.shared.log().failures
    }

    /// What went wrong last, if anything ever did.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.shared.log().last_error.clone()
    }

    /// Ends the writer and returns what was acknowledged, in order.
    #[must_use]
    pub fn stop(mut self) -> Vec<Acknowledged> {
        if let Err(panic) = self.end() {
            std::panic::resume_unwind(panic);
        }
        std::mem::take(&mut self.shared.log().acknowledged)
    }

    fn end(&mut self) -> thread::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl Drop for Writer {
    /// A test that panics leaves nothing behind that offers transactions to the next one's servers.
    fn drop(&mut self) {
        // What the thread panicked for is on the terminal; here somebody else fails already.
        let _ = self.end();
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, address: SocketAddr, first: u64) {
        let mut connection = None;
        for id in first.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            match offer(&mut connection, address, id) {
                Ok(acknowledged) => {
                    self.log().acknowledged.push(acknowledged);
                    self.acknowledged.notify_all();
                    thread::sleep(PAUSE);
                }
                Err(error) => {
                    connection = None;
                    {
                        let mut log = self.log();
                        log.failures += 1;
                        log.last_error = Some(error.to_string());
                    }
                    thread::sleep(RETRY_PAUSE);
                }
            }
        }
    }
}

fn offer(
    connection: &mut Option<(LedgerClient, Arc<str>)>,
    address: SocketAddr,
    id: u64,
) -> Result<Acknowledged, ClientError> {
    let (client, run) = match connection {
        Some(connection) => connection,
        None => {
            let mut client =
                LedgerClient::connect_within(address, CONNECT_TIMEOUT, ANSWER_TIMEOUT)?;
            let run = client.run()?.into();
            connection.insert((client, run))
        }
    };
    let sent = Instant::now();
    client.transfer(id)?;
    Ok(Acknowledged { id, run: Arc::clone(run), sent, heard: Instant::now() })
}

/// What one server acknowledged: how much, and between which moments for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reign {
    /// The server.
    pub run: Arc<str>,
    /// How many transactions it acknowledged.
    pub count: usize,
    /// The first acknowledgement came at this moment or before it.
    pub begun_by: Instant,
    /// The last acknowledgement came at this moment or after it.
    pub lasted_until: Instant,
}

/// The reigns of all servers, in the order of their first acknowledgements.
#[must_use]
pub fn reigns(acknowledged: &[Acknowledged]) -> Vec<Reign> {
    let mut reigns: BTreeMap<&Arc<str>, Reign> = BTreeMap::new();
    for one in acknowledged {
        let reign = reigns.entry(&one.run).or_insert_with(|| Reign {
            run: Arc::clone(&one.run),
            count: 0,
            begun_by: one.heard,
            lasted_until: one.sent,
        });
        reign.count += 1;
        reign.begun_by = reign.begun_by.min(one.heard);
        reign.lasted_until = reign.lasted_until.max(one.sent);
    }
    let mut reigns: Vec<Reign> = reigns.into_values().collect();
    reigns.sort_by_key(|reign| reign.begun_by);
    reigns
}

/// Two servers that for certain acknowledged at the same time, if there are any: neither had
/// acknowledged its last when the other had begun.
#[must_use]
pub fn overlap(reigns: &[Reign]) -> Option<(&Reign, &Reign)> {
    let later = |index: usize| &reigns[index + 1..];
    reigns.iter().enumerate().find_map(|(index, one)| {
        let clash =
            |other: &&Reign| one.lasted_until > other.begun_by && other.lasted_until > one.begun_by;
        later(index).iter().find(clash).map(|other| (one, other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acknowledgements of servers, each with its moments of sending and of hearing.
    fn told(told: &[(&str, u64, u64)]) -> Vec<Acknowledged> {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let one = |(id, (run, sent, heard)): (u64, &(&str, u64, u64))| Acknowledged {
            id,
            run: (*run).into(),
            sent: at(*sent),
            heard: at(*heard),
        };
        (1..).zip(told).map(one).collect()
    }

    fn clash(list: &[(&str, u64, u64)]) -> Option<String> {
        let reigns = reigns(&told(list));
        overlap(&reigns).map(|(one, other)| format!("{} {}", one.run, other.run))
    }

    #[test]
    fn servers_that_follow_each_other_do_not_overlap() {
        assert_eq!(clash(&[]), None);
        assert_eq!(clash(&[("a", 0, 1), ("a", 2, 3), ("b", 4, 5), ("b", 6, 7)]), None);
        // What was sent before the other began may have been acknowledged before that too.
        assert_eq!(clash(&[("a", 0, 1), ("a", 2, 9), ("b", 3, 4), ("b", 5, 6)]), None);
    }

    #[test]
    fn a_server_that_acknowledges_after_another_has_begun_is_found() {
        let both = [("a", 0, 1), ("b", 4, 5), ("b", 6, 7), ("a", 8, 9)];
        assert_eq!(clash(&both), Some("a b".into()));
        assert_eq!(clash(&both[..3]), None);
    }

    #[test]
    fn reigns_are_counted() {
        let told = told(&[("b", 6, 7), ("a", 0, 1), ("a", 2, 3)]);
        let counts: Vec<_> = reigns(&told).iter().map(|r| (r.run.to_string(), r.count)).collect();
        assert_eq!(counts, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    }
}
