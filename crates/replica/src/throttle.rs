//! How fast a resync may go.
//!
//! What was done is owed, and is paid off as time passes; nothing more is done before. It neither
//! waits nor looks at a clock: whoever asks is told how long to wait.

use std::time::Duration;

use model::Time;

/// What may be owed while more is done, as time at the full rate: long enough that waiting for it
/// is not all that is done, short enough that nobody notices.
const CREDIT: Duration = Duration::from_millis(100);

/// Caps what is done in a time.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    /// In bytes per second; unlimited when absent.
    rate: Option<u64>,
    /// Bytes that were done and are not paid off yet, as of `at`.
    owed: u64,
    at: Time,
}

impl Throttle {
    /// The cap, in bytes per second; unlimited when absent.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Sets the cap, in bytes per second, from now on. A cap of nothing counts as one byte.
    pub fn set_rate(&mut self, now: Time, rate: Option<u64>) {
        self.settle(now);
        self.rate = rate.map(|rate| rate.max(1));
        if self.rate.is_none() {
            self.owed = 0;
        }
    }

    /// Whether more may be done now; if not, how long to wait before asking again.
    pub fn ask(&mut self, now: Time) -> Result<(), Duration> {
        self.settle(now);
        let Some(rate) = self.rate else { return Ok(()) };
        let credit = bytes_in(CREDIT, rate);
        match self.owed.checked_sub(credit) {
            None | Some(0) => Ok(()),
            Some(excess) => Err(time_for(excess, rate)),
        }
    }

    /// So many bytes were done.
    pub fn spend(&mut self, bytes: u64) {
        if self.rate.is_some() {
            self.owed = self.owed.saturating_add(bytes);
        }
    }

    fn settle(&mut self, now: Time) {
        let paid = self.rate.map_or(0, |rate| bytes_in(now.since(self.at), rate));
        if self.rate.is_none() || paid >= self.owed {
            self.owed = 0;
            self.at = self.at.max(now);
        } else if let Some(rate) = self.rate {
            self.owed -= paid;
            // Only as far as whole bytes were paid, so that asking often costs nothing.
            self.at = self.at + time_for(paid, rate);
        }
    }
}

fn bytes_in(time: Duration, rate: u64) -> u64 {
    u64::try_from(time.as_nanos().saturating_mul(rate.into()) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// Rounded up, so that whoever waits for it need not ask twice and roundings never add up to more
/// than the rate.
fn time_for(bytes: u64, rate: u64) -> Duration {
    let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(rate));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn at(milliseconds: u64) -> Time {
        Time::from_millis(1_000_000 + milliseconds)
    }

    /// Does pieces for so long, as fast as it may; says how many bytes that were.
    fn run(throttle: &mut Throttle, from: Time, until: Time, piece: u64) -> u64 {
        let (mut now, mut done) = (from, 0);
        while now < until {
            match throttle.ask(now) {
                Ok(()) => {
                    throttle.spend(piece);
                    done += piece;
                }
                Err(wait) => now = now + wait,
            }
        }
        done
    }

    #[test]
    fn over_any_time_no_more_is_done_than_the_rate_allows() {
        for (rate, piece) in [(50 * MB, 262_144), (MB, 262_144), (3 * MB, 7), (10, 262_144)] {
            let mut throttle = Throttle::default();
            throttle.set_rate(at(0), Some(rate));
            let done = run(&mut throttle, at(0), at(10_000), piece);
            let fair = rate * 10;
            assert!(done <= fair + rate / 10 + piece, "{rate}: {done}");
            assert!(done + piece >= fair, "{rate}: {done} is less than it might be");
        }
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let mut throttle = Throttle::default();
        throttle.set_rate(at(0), Some(MB));
        throttle.spend(MB);
        let done = run(&mut throttle, at(3_600_000), at(3_601_000), 1000);
        assert!(done <= MB + MB / 10 + 1000, "{done}");
    }

    #[test]
    fn a_new_rate_counts_from_its_moment() {
        let mut throttle = Throttle::default();
        throttle.spend(u64::MAX);
        assert_eq!(throttle.ask(at(0)), Ok(()), "unlimited");
        throttle.set_rate(at(0), Some(MB));
        throttle.spend(10 * MB);
        assert_eq!(throttle.ask(at(0)).map_err(|wait| wait.as_millis()), Err(9900));
        throttle.set_rate(at(1000), Some(9 * MB));
        assert_eq!(throttle.ask(at(1000)).map_err(|wait| wait.as_millis()), Err(900));
        throttle.set_rate(at(1000), None);
        assert_eq!(throttle.ask(at(1000)), Ok(()));
        assert_eq!((throttle.rate(), throttle.owed), (None, 0));
    }
}
