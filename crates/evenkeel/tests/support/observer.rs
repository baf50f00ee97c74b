//! Looks at both nodes without pause, for the one thing that must never be seen: two primaries.
//!
//! Two answers are never of the same moment. So a node counts as primary beside its peer only if
//! it said so both before and after the peer did. What is acknowledged is counted elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lab::Host;
use serde_json::Value;

use super::{Cluster, NODES, status_of};

/// Pause between two observations, so that most of the machine is left to what is observed.
const PAUSE: Duration = Duration::from_millis(50);

/// A running observation.
pub struct Observer {
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<String>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// How often a primary was seen.
    primaries: AtomicU64,
}

impl Observer {
    pub fn start(cluster: &Cluster) -> Observer {
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        let hosts = NODES.map(|node| cluster.host(node));
        let module = cluster.module();
        let thread = thread::spawn(move || {
            let mut found = Vec::new();
            while !ours.stop.load(Ordering::Relaxed) {
                let (primary, both) = look(&hosts, module);
                found.extend(both);
                ours.primaries.fetch_add(u64::from(primary), Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
            found
        });
        Observer { shared, thread }
    }

    /// Whether a primary was seen since the beginning.
    pub fn has_seen_one(&self) -> bool {
        self.shared.primaries.load(Ordering::Relaxed) > 0
    }

    /// Ends the observation; two primaries must not have been seen.
    pub fn finish(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let found = self.thread.join().unwrap();
        let seen = self.shared.primaries.load(Ordering::Relaxed);
        assert!(found.is_empty(), "two primaries, {} times: {}", found.len(), found[0]);
        assert!(seen > 0, "no primary was ever seen");
    }
}

/// Whether a module's status is that of a primary that runs the application and holds its
/// addresses. One that is fenced has neither addresses nor writes; its application waits.
pub fn serves(module: &Value) -> bool {
    let role = module["role"].as_str().unwrap_or_default();
    let reachable = module["service"] == true && module["addresses"] == true;
    matches!(role, "PRIM" | "ALONE") && reachable
}

/// Whether somebody serves, and what was said when both did.
fn look(hosts: &[Host; 2], module: &str) -> (bool, Option<String>) {
    let ask = |host: &Host| Some(status_of(host)?["modules"][module].take()).filter(serves);
    match (ask(&hosts[0]), ask(&hosts[1])) {
        (Some(first), Some(second)) => {
            let again = ask(&hosts[0]);
            (true, again.map(|again| format!("{first}\n{second}\n{again}")))
        }
        (first, second) => (first.is_some() || second.is_some(), None),
    }
}
