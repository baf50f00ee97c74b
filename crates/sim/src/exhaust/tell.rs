//! Violations as people read them, and schedules that are written down.
//!
//! A schedule is a list of steps in words. One that broke a promise once is told again, as far as
//! its steps can still be taken: what a mend has made impossible is left out.

use super::cases::Case;
use super::choices::{Choice, Step, Trap};
use super::pair::Pair;
use crate::promises::Promise;

/// Takes these steps and says what the nodes explain.
#[must_use]
pub fn tell(case: &Case, steps: &[Step]) -> Vec<String> {
    let mut pair = case.begin();
    pair.log = Some(Vec::new());
    for (n, step) in steps.iter().enumerate() {
        let line = format!("{:>2}. {step}", n + 1);
        pair.log.get_or_insert_default().push(line);
        pair.take(*step);
    }
    pair.log.unwrap_or_default()
}

/// What came of a schedule that was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Steps that could be taken.
    pub taken: usize,
    /// The broken promise.
    pub broken: Option<(Promise, String)>,
    /// The pair became protected again when everything was mended.
    pub settled: bool,
}

/// Takes the steps of a schedule in words, one a line, that can be taken.
#[must_use]
pub fn follow(case: &Case, schedule: &str) -> Told {
    let mut pair = case.begin();
    let mut taken = 0;
    for line in schedule.lines() {
        let Some(step) = pair.steps().into_iter().find(|step| step.to_string() == line) else {
            continue;
        };
        pair.take(step);
        taken += 1;
        if pair.found.is_some() {
            break;
        }
    }
    let broken = pair.found.take();
    let settled = pair.settle();
    Told { taken, broken: broken.or(pair.found), settled }
}

impl Pair {
    /// Everything that can happen next, with all that may befall it.
    fn steps(&self) -> Vec<Step> {
        let traps = [Trap::None, Trap::Slow, Trap::Unheard]
            .into_iter()
            .chain((1..=3).flat_map(|n| [Trap::Power(n), Trap::Failure(n)]));
        let traps: Vec<Trap> = traps.filter(|trap| self.affords(*trap)).collect();
        let each = |choice: Choice| traps.iter().map(move |trap| Step { choice, trap: *trap });
        self.choices().into_iter().flat_map(each).collect()
    }

    fn affords(&self, trap: Trap) -> bool {
        match trap {
            Trap::None => true,
            Trap::Power(_) => self.left.powers > 0,
            Trap::Failure(_) => self.left.failures > 0,
            Trap::Slow | Trap::Unheard => self.left.slow > 0,
        }
    }
}
