//! The cap of a resync, shared by whoever sets it and the walk that keeps to it.
//!
//! What it allows is decided in `replica::throttle`; here is the waiting.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use replica::Throttle;

use crate::clock;

/// The cap of a resync.
#[derive(Default)]
pub(super) struct Limit {
    throttle: Mutex<Throttle>,
    changed: Condvar,
}

impl Limit {
    /// Sets the cap, in bytes per second; a walk that waits goes on by it at once.
    pub(super) fn set(&self, rate: Option<u64>) {
        self.lock().set_rate(clock::now(), rate);
        self.changed.notify_all();
    }

    /// Waits until more may be compared or sent, at most `longest` at a time; whether it may.
    pub(super) fn wait(&self, longest: Duration) -> bool {
        let mut throttle = self.lock();
        let Err(wait) = throttle.ask(clock::now()) else { return true };
        let waited = self.changed.wait_timeout(throttle, wait.min(longest));
        throttle = waited.unwrap_or_else(PoisonError::into_inner).0;
        throttle.ask(clock::now()).is_ok()
    }

    /// So many bytes were compared or sent.
    pub(super) fn spend(&self, bytes: usize) {
        self.lock().spend(bytes as u64);
    }

    fn lock(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
