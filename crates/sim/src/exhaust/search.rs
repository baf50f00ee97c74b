//! The search: breadth first by way of depth first, deeper each time, so that only stamps are kept.
//!
//! A state is gone on from only at the depth at which it was first met, which is the smallest one,
//! since everything less deep was looked at before. So no violation is shorter than the first.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::cases::Case;
use super::choices::{Choice, Step, Trap};
use super::pair::Pair;
use super::steps::Taken;
use crate::promises::Promise;

/// Stamps are kept in so many maps, so that threads seldom wait for each other.
const SHARDS: usize = 64;
/// Records of one step that something may befall.
const TRAPS: u8 = 3;
/// The depth at which the work is divided among threads.
const DIVIDED_AT: u8 = 3;

/// A violation, with what leads there.
#[derive(Debug, Clone)]
pub struct Found {
    /// The broken promise.
    pub promise: Promise,
    /// How that shows.
    pub what: String,
    /// From the beginning of the case.
    pub steps: Vec<Step>,
}

/// What came of a search.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The depth to which everything was looked at.
    pub depth: u8,
    /// Different states.
    pub states: u64,
    /// Steps that were taken, each as often as its state was gone on from.
    pub transitions: u64,
    /// The shortest violations, one per promise.
    pub found: Vec<Found>,
}

/// A stamp is as good as its own hash.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// For each stamp the depth at which it was met, and the round in which it was last gone on from.
type Seen = HashMap<u64, (u8, u8), BuildHasherDefault<AsIs>>;

struct Search {
    seen: Vec<Mutex<Seen>>,
    states: AtomicU64,
    transitions: AtomicU64,
    limit: u8,
    states_max: u64,
    over: AtomicBool,
    found: Mutex<Vec<Found>>,
}

/// Looks at everything that can happen in a case within `depth` steps, on so many threads. It ends
/// early at the first depth with a violation, or when there would be more than `states_max` states.
#[must_use]
pub fn search(case: &Case, depth: u8, threads: usize, states_max: u64) -> Outcome {
    let begin = case.begin();
    let mut search = Search {
        seen: (0..SHARDS).map(|_| Mutex::default()).collect(),
        states: AtomicU64::new(0),
        transitions: AtomicU64::new(0),
        limit: 0,
        states_max,
        over: AtomicBool::new(false),
        found: Mutex::new(Vec::new()),
    };
    search.meet(begin.stamp(), 0);
    let mut outcome = Outcome::default();
    for limit in 1..=depth {
        search.limit = limit;
        search.transitions.store(0, Ordering::Relaxed);
        search.round(&begin, threads);
        outcome.states = search.states.load(Ordering::Relaxed);
        outcome.transitions = search.transitions.load(Ordering::Relaxed);
        outcome.found = std::mem::take(&mut *lock(&search.found));
        if !outcome.found.is_empty() || search.over.load(Ordering::Relaxed) {
            break;
        }
        outcome.depth = limit;
    }
    outcome
}

impl Search {
    /// Everything within the limit, where what is one less deep is known already.
    fn round(&self, begin: &Pair, threads: usize) {
        if self.limit <= DIVIDED_AT || threads < 2 {
            self.go_on(begin, &mut Vec::new(), self.limit, &mut |_, _| {});
            return;
        }
        let mut parts = Vec::new();
        self.go_on(begin, &mut Vec::new(), DIVIDED_AT, &mut |pair, steps| {
            parts.push((pair.clone(), steps.to_vec()));
        });
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((pair, steps)) = parts.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        self.go_on(pair, &mut steps.clone(), self.limit, &mut |_, _| {});
                    }
                });
            }
        });
    }

    /// Goes on from a state as far as `until`, where it hands the states over.
    fn go_on(
        &self,
        pair: &Pair,
        steps: &mut Vec<Step>,
        until: u8,
        hand_over: &mut impl FnMut(&Pair, &[Step]),
    ) {
        for choice in pair.choices() {
            let step = |trap| Step { choice, trap };
            let mut take = |trap| self.take(pair, step(trap), steps, until, hand_over);
            let Some(taken) = take(Trap::None) else { return };
            if taken.due && pair.left.slow > 0 {
                take(Trap::Slow);
            }
            let says = taken.due || matches!(choice, Choice::Copied(_));
            if says && pair.left.slow > 0 {
                take(Trap::Unheard);
            }
            for n in 1..=taken.written.min(TRAPS) {
                if pair.left.powers > u8::from(matches!(choice, Choice::Power(_))) {
                    take(Trap::Power(n));
                }
                if pair.left.failures > 0 {
                    take(Trap::Failure(n));
                }
            }
        }
    }

    fn take(
        &self,
        pair: &Pair,
        step: Step,
        steps: &mut Vec<Step>,
        until: u8,
        hand_over: &mut impl FnMut(&Pair, &[Step]),
    ) -> Option<Taken> {
        if self.over.load(Ordering::Relaxed) {
            return None;
        }
        let mut next = pair.clone();
        let taken = next.take(step);
        self.transitions.fetch_add(1, Ordering::Relaxed);
        steps.push(step);
        let depth = u8::try_from(steps.len()).unwrap_or(u8::MAX);
        if let Some((promise, what)) = next.found.take() {
            self.note(Found { promise, what, steps: steps.clone() });
        } else if self.meet(next.stamp(), depth) && depth < self.limit {
            if depth < until {
                self.go_on(&next, steps, until, hand_over);
            } else {
                hand_over(&next, steps);
            }
        }
        steps.pop();
        Some(taken)
    }

    /// Notes a state. Returns whether it is to be gone on from, now and from here.
    fn meet(&self, stamp: u64, depth: u8) -> bool {
        let mut seen = lock(&self.seen[(stamp >> 32) as usize % SHARDS]);
        match seen.get_mut(&stamp) {
            Some((met, round)) => {
                let first = *met == depth && *round < self.limit;
                *round = if first { self.limit } else { *round };
                first
            }
            None => {
                seen.insert(stamp, (depth, self.limit));
                let states = self.states.fetch_add(1, Ordering::Relaxed) + 1;
                if states >= self.states_max {
                    self.over.store(true, Ordering::Relaxed);
                }
                true
            }
        }
    }

    fn note(&self, violation: Found) {
        let mut found = lock(&self.found);
        if found.iter().all(|known| known.promise != violation.promise) {
            found.push(violation);
        }
    }
}

/// A thread that ended badly leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
