//! Complaints that many may cause: counted all, told now and then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::Time;

use crate::clock;

/// At most once in this time the log has a line of one kind.
const PAUSE: Duration = Duration::from_secs(60);

/// Complaints of one kind.
#[derive(Default)]
pub(crate) struct Complaints(Mutex<State>);

#[derive(Default)]
struct State {
    count: u64,
    /// When the log was told last, and how many there were then.
    told: Option<(Time, u64)>,
}

impl Complaints {
    /// Counts one, and tells the log unless it was told just before.
    pub(crate) fn tell(&self, what: &dyn std::fmt::Display) {
        if let Some(more) = self.count(clock::now()) {
            let before = if more > 1 { format!(" ({more} in all)") } else { String::new() };
            eprintln!("! {what}{before}");
        }
    }

    /// How many there were so far.
    pub(crate) fn so_far(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Counts one; how many there were since the log was told, if it is to be told again.
    fn count(&self, now: Time) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        let told = match state.told {
            Some((at, _)) if now.since(at) < PAUSE => return None,
            Some((_, told)) => told,
            None => 0,
        };
        state.told = Some((now, state.count));
        Some(state.count - told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_few_are_told() {
        let complaints = Complaints::default();
        assert_eq!(complaints.count(Time::ZERO), Some(1));
        for _ in 0..5 {
            assert_eq!(complaints.count(Time::ZERO + PAUSE / 2), None);
        }
        assert_eq!(complaints.count(Time::ZERO + PAUSE), Some(6));
        assert_eq!(complaints.so_far(), 7);
    }
}
