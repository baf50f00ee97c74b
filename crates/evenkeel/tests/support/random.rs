//! Random moments that can be repeated: numbers from a seed, which is printed.

use std::env;
use std::thread;
use std::time::{Duration, SystemTime};

/// Numbers that follow from a seed (splitmix64).
pub struct Random(u64);

impl Random {
    /// Seeded by `EVENKEEL_SEED`, or by the clock.
    pub fn from_environment() -> Random {
        let clock = || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos()) << 32 | now.as_secs() & 0xffff_ffff
        };
        let seed = number("EVENKEEL_SEED").unwrap_or_else(clock);
        println!("to repeat the moments of this test: EVENKEEL_SEED={seed}");
        Random(seed)
    }

    /// Numbers that follow from this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below a limit that is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Lets a random time pass, for a fault at no particular moment.
    pub fn moment(&mut self, most: Duration) {
        let most = u64::try_from(most.as_micros()).unwrap().max(1);
        thread::sleep(Duration::from_micros(self.next() % most));
    }
}

/// How many rounds to run: `EVENKEEL_ROUNDS`, or the test's own default.
pub fn rounds(default: u64) -> u64 {
    number("EVENKEEL_ROUNDS").unwrap_or(default)
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}
