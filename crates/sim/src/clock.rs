//! A node's own clock: it may run faster or slower than the world's, and jump ahead.
//!
//! It never goes back, as the clock that production reads never does.

use std::time::Duration;

use model::Time;

/// Parts of a million by which a clock may be off.
const MILLION: i128 = 1_000_000;

/// A clock: its time at one moment of the world, and its rate from then on.
#[derive(Debug, Clone)]
pub struct Clock {
    world: Time,
    own: Time,
    /// By how many millionths it is faster than the world's.
    drift: i64,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { world: Time::ZERO, own: Time::ZERO, drift: 0 }
    }
}

impl Clock {
    /// What the clock shows at a moment of the world.
    #[must_use]
    pub fn at(&self, world: Time) -> Time {
        let passed = i128::from(world.as_nanos().saturating_sub(self.world.as_nanos()));
        let own = passed * (MILLION + i128::from(self.drift)) / MILLION;
        self.own + Duration::from_nanos(u64::try_from(own).unwrap_or(0))
    }

    /// The first moment of the world at which the clock shows at least `own`.
    #[must_use]
    pub fn when(&self, own: Time) -> Time {
        let ahead = i128::from(own.as_nanos().saturating_sub(self.own.as_nanos()));
        let rate = MILLION + i128::from(self.drift);
        let passed = (ahead * MILLION + rate - 1) / rate;
        self.world + Duration::from_nanos(u64::try_from(passed).unwrap_or(0))
    }

    /// From `now` on it runs at another rate.
    pub fn run_at(&mut self, now: Time, millionths: i64) {
        (self.own, self.world) = (self.at(now), now);
        self.drift = millionths;
    }

    /// It jumps ahead, as after a sleep of the machine.
    pub fn jump(&mut self, now: Time, by: Duration) {
        (self.own, self.world) = (self.at(now) + by, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_when_it_says_so() {
        let mut clock = Clock::default();
        let now = Time::from_millis(5000);
        for drift in [-30_000, -1, 0, 1, 12_345] {
            clock.run_at(now, drift);
            for ahead in [0, 1, 999, 123_456_789] {
                let deadline = clock.at(now) + Duration::from_nanos(ahead);
                let when = clock.when(deadline);
                assert!(clock.at(when) >= deadline, "drift {drift}, {ahead} ns ahead");
            }
        }
        clock.jump(now, Duration::from_secs(3));
        assert!(clock.at(now) >= Time::from_millis(8000));
    }
}
