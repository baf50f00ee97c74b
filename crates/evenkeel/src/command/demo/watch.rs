//! What a node says of itself, asked again and again by a thread of its own.
//!
//! A node that hangs or is dead delays nobody: whoever looks sees the newest answer and its age.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lab::Host;
use serde_json::Value;
use wire::control::Verb;

use super::cluster::control;
use super::{Failure, Result};

/// How often a node is asked: often enough for a bar that moves.
const PERIOD: Duration = Duration::from_millis(100);
/// An answer older than this is none.
const STALE: Duration = Duration::from_secs(2);

/// Asks a node until it is dropped.
pub(super) struct Watch {
    shared: Arc<Shared>,
}

struct Shared {
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    status: Option<(Instant, Value)>,
    error: String,
}

impl Watch {
    /// Begins to ask.
    pub(super) fn start(host: Host) -> Result<Watch> {
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), seen: Mutex::default() });
        let ours = Arc::clone(&shared);
        let ask = move || {
            while !ours.stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                ours.note(asked, look(&host));
                // Nothing announces a change of state; a person looks ten times a second at best.
                thread::sleep(PERIOD.saturating_sub(asked.elapsed()));
            }
        };
        let started = thread::Builder::new().name("watch".into()).spawn(ask);
        started.map_err(Failure::io("cannot start a thread"))?;
        Ok(Watch { shared })
    }

    /// Its newest answer to a question asked at `since` or later, unless that has grown old.
    pub(super) fn status(&self, since: Instant) -> Option<Value> {
        let seen = self.shared.seen();
        let fresh = |at: Instant| at >= since && at.elapsed() < STALE;
        seen.status.as_ref().filter(|(at, _)| fresh(*at)).map(|(_, status)| status.clone())
    }

    /// Why it does not answer.
    pub(super) fn error(&self) -> String {
        self.shared.seen().error.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, asked: Instant, answer: std::result::Result<Value, String>) {
        let mut seen = self.seen();
        match answer {
            Ok(status) => *seen = Seen { status: Some((asked, status)), error: String::new() },
            Err(error) => *seen = Seen { status: None, error },
        }
    }
}

fn look(host: &Host) -> std::result::Result<Value, String> {
    let client = control(host).map_err(|error| error.to_string())?;
    let reply = client.request(Verb::Status, &mut |_| {}).map_err(|error| error.to_string())?;
    Ok(reply.data)
}
