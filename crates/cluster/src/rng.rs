//! A small seeded generator for ids, so that a run can be repeated exactly.
//!
//! Not for secrets: ids need only be unique, which the shell's unpredictable seed provides.

use serde::{Deserialize, Serialize};

/// A splitmix generator; two steps make one id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rng {
    low: u64,
    high: u64,
}

impl Rng {
    /// A generator whose sequence depends on all of `seed` and on `stream`.
    pub(crate) fn new(seed: u128, stream: u64) -> Rng {
        let mixed = mix(stream.wrapping_add(0x51ed_270b_7a3f_9c15));
        Rng { low: (seed as u64) ^ mixed, high: ((seed >> 64) as u64).wrapping_add(mixed) }
    }

    /// A new id; never 0, which stands for "none".
    pub(crate) fn id(&mut self) -> u128 {
        self.low = self.low.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.high = self.high.wrapping_add(0xd1b5_4a32_d192_ed03);
        let id = (u128::from(mix(self.high)) << 64) | u128::from(mix(self.low));
        id.max(1)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
