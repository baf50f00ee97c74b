//! The one source of chance: a small generator that is the same on any machine.

/// A splitmix generator.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice whose every throw follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A number below `sides`; 0 when there are none.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).checked_rem(sides).unwrap_or(0)
    }

    /// One of two.
    pub fn node(&mut self) -> usize {
        usize::from(self.roll(2) == 1)
    }

    /// Whether something happens that happens `percent` times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    /// One of `choices`.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let at = self.roll(choices.len() as u64);
        choices.get(usize::try_from(at).unwrap_or(0))
    }
}
