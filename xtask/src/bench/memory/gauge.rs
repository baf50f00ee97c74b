//! How much memory the replicators of a pair hold, sampled from outside while they work.
//!
//! What counts is `RssAnon + RssShmem`: the heap, and the memory files that outlive the process as
//! far as it has touched them (the ring of frames, the notes for a successor). The kernel cannot
//! drop these pages without swap. Pages of the binary are left out, for it can; so is what the
//! kernel itself holds on behalf of a process, such as dentries. `VmHWM` would do for the peak of
//! a process, but not for that of a phase, and counts the binary's pages.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bench::memory::processes::find;
use crate::bench::pair::Pair;
use crate::bench::site::NODES;

/// Time between two samples. Nothing tells when memory grows.
const EVERY: Duration = Duration::from_millis(50);
/// Memory that changes by less than this within [`QUIET`] counts as settled, in bytes.
const STIR_BYTES: u64 = 1 << 20;
const QUIET: Duration = Duration::from_secs(3);
/// How long it may take to settle.
const SETTLE_MAX: Duration = Duration::from_secs(120);

/// Bytes of both nodes' replicators, in the order of [`NODES`].
pub(super) type Bytes = [u64; 2];

/// A thread that samples until the gauge is dropped.
pub(super) struct Gauge {
    watched: Arc<Mutex<[Watched; 2]>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The replicator of one node.
#[derive(Default)]
struct Watched {
    /// The namespace by which processes of the node are known from outside.
    namespace: String,
    pid: Option<u32>,
    now: u64,
    peak: u64,
}

impl Gauge {
    /// Begins to sample; nothing is found before [`Gauge::aim`].
    pub(super) fn start(module: &'static str) -> Gauge {
        let watched = Arc::new(Mutex::new(<[Watched; 2]>::default()));
        let over = Arc::new(AtomicBool::new(false));
        let (of_thread, ends) = (Arc::clone(&watched), Arc::clone(&over));
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                lock(&of_thread).iter_mut().for_each(|watched| watched.sample(module));
                thread::sleep(EVERY);
            }
        });
        Gauge { watched, over, thread: Some(thread) }
    }

    /// Looks for the replicators of a pair whose nodes have just been booted.
    ///
    /// # Errors
    /// A node runs no program.
    pub(super) fn aim(&self, pair: &Pair) -> Result<(), String> {
        for (index, node) in NODES.into_iter().enumerate() {
            let namespace = pair.shell(node, "readlink /proc/self/ns/uts")?;
            if let Some(watched) = lock(&self.watched).get_mut(index) {
                watched.namespace = namespace.trim().to_owned();
                watched.pid = None;
            }
        }
        Ok(())
    }

    /// The process of the second node's replicator, as the machine numbers it.
    pub(super) fn second(&self) -> Result<u32, String> {
        let [_, second] = &*lock(&self.watched);
        second.pid.ok_or_else(|| format!("no replicator runs on {}", NODES[1]))
    }

    /// From here on peaks are those of a new phase.
    pub(super) fn begin(&self) {
        lock(&self.watched).iter_mut().for_each(|watched| watched.peak = 0);
    }

    /// The highest levels since the phase began.
    pub(super) fn peak(&self) -> Bytes {
        let [one, two] = &*lock(&self.watched);
        [one.peak, two.peak]
    }

    fn now(&self) -> Bytes {
        let [one, two] = &*lock(&self.watched);
        [one.now, two.now]
    }

    /// The levels once neither changes any more: what is given back comes in bits, unannounced.
    pub(super) fn settled(&self) -> Bytes {
        let start = Instant::now();
        let (mut level, mut since) = (self.now(), start);
        while since.elapsed() < QUIET && start.elapsed() < SETTLE_MAX {
            thread::sleep(EVERY);
            let now = self.now();
            if level.iter().zip(now).any(|(old, new)| old.abs_diff(new) > STIR_BYTES) {
                (level, since) = (now, Instant::now());
            }
        }
        self.now()
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and nothing is left to do if it has.
            let _ = thread.join();
        }
    }
}

impl Watched {
    fn sample(&mut self, module: &str) {
        if self.namespace.is_empty() {
            return;
        }
        let level = self.pid.and_then(level);
        if level.is_none() {
            self.pid = find(module, &self.namespace);
        }
        self.now = level.or_else(|| self.pid.and_then(self::level)).unwrap_or(0);
        self.peak = self.peak.max(self.now);
    }
}

fn lock(watched: &Mutex<[Watched; 2]>) -> MutexGuard<'_, [Watched; 2]> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a process holds; none when it has ended.
fn level(pid: u32) -> Option<u64> {
    held(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The bytes that count of a process's status; none when it has no memory any more.
fn held(status: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((field("RssAnon:")? + field("RssShmem:")?) << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_and_shared_memory_count_and_the_binary_does_not() {
        let status = "VmRSS:\t    1000 kB\nRssAnon:\t     100 kB\nRssFile:\t     800 kB\n\
                      RssShmem:\t     100 kB\n";
        assert_eq!(held(status), Some(200 << 10));
        assert_eq!(held("State:\tZ (zombie)\n"), None);
        assert!(level(std::process::id()).is_some_and(|bytes| bytes > 0));
    }
}
